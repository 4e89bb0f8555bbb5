"""Listeners behind nginx and haproxy, with the configurations of docs/proxies.md."""

from __future__ import annotations

import ast
import inspect
import queue
import re
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import syncws
from tests.abuse.hostile import everything
from tests.integration.fronts import (
    KINDS,
    PAGE,
    Front,
    blocks,
    directory,
    front,
    haproxy,
    nginx,
    serving,
)
from tests.programs import free_port
from tests.support import (
    HANG,
    PING,
    PONG,
    RawPeer,
    Recorder,
    ServerRecorder,
    client_tls,
    interpreter,
    listening,
    server_tls,
    wait_until,
)

every_kind = pytest.mark.parametrize("kind", KINDS)
http_kinds = pytest.mark.parametrize("kind", ["nginx", "haproxy"])


class Echo(syncws.Service):
    config = syncws.ServiceConfig(subprotocols=("xml", "json"), max_message_size=8_000_000)

    def __init__(self) -> None:
        self.callers: queue.Queue[syncws.Caller] = queue.Queue()

    def on_open(self, caller: syncws.Caller) -> None:
        self.callers.put(caller)

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        caller.send_binary(data)


# -- Through each of them ----------------------------------------------------


@every_kind
def test_messages_go_through(kind: str, tmp_path: Path) -> None:
    with (
        serving(kind, tmp_path, Echo()) as (made, _),
        made.client(max_message_size=8_000_000, subprotocols=["json"]) as client,
    ):
        assert client.subprotocol == "json"
        for text in ("", "hello", "a€𝄞" * 100, "x" * 70_000):
            client.send_text(text)
            assert client.receive(HANG) == text
        big = bytes(range(256)) * 20_000
        client.send_binary(big)
        assert client.receive(HANG) == big


@every_kind
@pytest.mark.parametrize("compression", [True, False])
def test_compression_is_agreed_on_through_it(kind: str, compression: bool, tmp_path: Path) -> None:
    offer = ["Sec-WebSocket-Extensions: permessage-deflate"] if compression else []
    with serving(kind, tmp_path, Echo()) as (made, _), made.raw(*offer) as peer:
        assert (b"permessage-deflate" in peer.head) is compression
        peer.text("x" * 10_000)
        frame = peer.read()
        assert (frame.rsv == 4) is compression
        assert (len(frame.payload) < 1000) is compression


@every_kind
def test_who_the_client_is(kind: str, tmp_path: Path) -> None:
    service = Echo()
    forged = ["X-Forwarded-For: 8.8.8.8", "X-Forwarded-Proto: http", "Forwarded: for=8.8.8.8"]
    forged += ["X-Forwarded-Host: evil.example", "X-Forwarded-Port: 1"]
    with (
        serving(kind, tmp_path, service) as (made, _),
        made.raw(*forged, source="127.0.0.5") as peer,
    ):
        caller = service.callers.get(timeout=HANG)
        request = caller.request
        port = peer.sock.getsockname()[1] if kind not in ("nginx", "haproxy") else 0
        assert caller.remote_address == request.remote_address == ("127.0.0.5", port)
        assert caller.is_secure
        assert request.is_secure
        assert request.host == f"localhost:{made.port}"
        assert isinstance(request.peer_address, tuple)
        assert request.peer_address[0] == "127.0.0.1"
        assert request.peer_address[1] not in (0, peer.sock.getsockname()[1])


@every_kind
def test_pages_of_the_same_origin_alone(kind: str, tmp_path: Path) -> None:
    with serving(kind, tmp_path, Echo()) as (made, _):
        assert made.status(f"Origin: {made.origin}") == 101
        assert made.status(f"Origin: {made.origin.upper()}") == 101
        for other in (
            "https://evil.example",
            "https://localhost",
            f"http://localhost:{made.port}",
            f"https://127.0.0.1:{made.port}",
            "null",
        ):
            assert made.status(f"Origin: {other}") == 403


@every_kind
def test_closes_go_both_ways(kind: str, tmp_path: Path) -> None:
    service = ServerRecorder()
    with serving(kind, tmp_path, service) as (made, _):
        with made.client() as client:
            caller = service.expect("on_open")
            client.close(4321, "from the client")
            service.expect("on_close", 4321, "from the client")
        recorder = Recorder()
        with made.client(service=recorder):
            caller = service.expect("on_open")
            caller.close(4322, "from the server")
            recorder.expect("on_close", 4322, "from the server")
            service.expect("on_close")


@every_kind
def test_a_loss_is_noticed_both_ways(kind: str, tmp_path: Path) -> None:
    service = ServerRecorder()
    with serving(kind, tmp_path, service) as (made, _):
        peer = made.raw()
        service.expect("on_open")
        peer.abort()
        service.expect("on_close", 1006, "")
        with made.client() as client:
            caller = service.expect("on_open")
            caller._connection.transport.sock.shutdown(socket.SHUT_RDWR)
            with pytest.raises(syncws.ConnectionClosed) as caught:
                client.receive(HANG)
            assert caught.value.received is None
            service.expect("on_close", 1006, "")


@every_kind
def test_bytes_behind_the_handshake_are_frames(kind: str, tmp_path: Path) -> None:
    """What comes with the request, or right after it, is neither lost nor taken twice."""
    service = ServerRecorder()
    with serving(kind, tmp_path, service) as (made, _), made.dial() as peer:
        peer.send_bytes(RawPeer.request(host=f"localhost:{made.port}"))
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        service.expect("on_open")
        peer.text(*map(str, range(50)))
        for number in range(50):
            service.expect("on_text", str(number))
        peer.finish()
        service.expect("on_close", 1000, "")


@every_kind
def test_limits_are_for_clients_and_not_for_the_proxy(kind: str, tmp_path: Path) -> None:
    service = ServerRecorder()
    options: Any = {"max_connections_per_address": 2}
    with serving(kind, tmp_path, service, **options) as (made, _), ExitStack() as stack:

        def enter(source: str) -> int:
            peer = stack.enter_context(made.raw(source=source))
            status = int(peer.head.split()[1])
            if status == 101:
                service.expect("on_open")
                mine.append(peer)
            return status

        mine: list[RawPeer] = []
        assert [enter("127.0.0.5") for _ in range(3)] == [101, 101, 503]
        assert [enter("127.0.0.6") for _ in range(3)] == [101, 101, 503]
        mine[0].finish()
        service.expect("on_close", 1000, "")
        wait_until(lambda: enter("127.0.0.5") == 101)
        assert enter("127.0.0.6") == 503


# -- Time --------------------------------------------------------------------

# What cuts a connection in a second, for each kind: what is on the page, and what is tried.
_QUIET_CUT = {
    "nginx": {"proxy_read_timeout 60s": "proxy_read_timeout 1s"},
    "haproxy": {"timeout tunnel  60s": "timeout tunnel  1s"},
    "passthrough": {"timeout client  60s": "timeout client  1s", "server  60s": "server  1s"},
}


def quick(kind: str, path: Path, listener: syncws.Listener) -> Any:
    """Return a front that cuts in a second what is quiet."""
    backend = f"127.0.0.1:{listener.port}"
    if kind == "nginx":
        return nginx(path, backend, changes=_QUIET_CUT[kind])
    return haproxy(path, int(kind != "haproxy"), backend, _QUIET_CUT[kind])


def options_of(kind: str) -> dict[str, Any]:
    """Return the listener's options behind that."""
    passing = {"ssl": server_tls(), "proxy_protocol": True} if kind == "passthrough" else {}
    return {"trusted_proxies": ["127.0.0.1"], **passing}


@pytest.mark.parametrize("kind", _QUIET_CUT)
def test_pings_keep_what_is_quiet_open(kind: str, tmp_path: Path) -> None:
    service = ServerRecorder(syncws.ServiceConfig(ping_interval=0.2))
    with (
        listening(service, **options_of(kind)) as listener,
        quick(kind, tmp_path, listener) as made,
        made.raw() as peer,
    ):
        service.expect("on_open")
        for _ in range(10):  # two seconds
            peer.send(PONG, peer.expect(PING))
        peer.text("still here")
        service.expect("on_text", "still here")
        peer.finish()
        service.expect("on_close", 1000, "")


@pytest.mark.parametrize("kind", _QUIET_CUT)
def test_without_pings_it_is_cut(kind: str, tmp_path: Path) -> None:
    service = ServerRecorder(syncws.ServiceConfig(ping_interval=None))
    with (
        listening(service, **options_of(kind)) as listener,
        quick(kind, tmp_path, listener) as made,
        made.raw() as peer,
    ):
        service.expect("on_open")
        assert everything(peer) == b""
        service.expect("on_close", 1006, "")


# -- What is not there -------------------------------------------------------


@pytest.mark.parametrize(("kind", "status"), [("nginx", 502), ("haproxy", 503)])
def test_a_listener_that_is_away(kind: str, status: int, tmp_path: Path) -> None:
    with front(kind, tmp_path, f"127.0.0.1:{free_port()}") as made:
        with pytest.raises(syncws.HandshakeRejected) as caught:
            made.client()
        assert caught.value.status == status


@http_kinds
def test_a_listener_that_is_back(kind: str, tmp_path: Path) -> None:
    service = ServerRecorder()
    with serving(kind, tmp_path, service) as (made, listener):
        port = listener.port
        with made.client() as client:
            service.expect("on_open")
            listener.stop()
            with pytest.raises(syncws.ConnectionClosed) as caught:
                client.receive(HANG)
            assert caught.value.received is not None
            assert caught.value.received.code == 1001
            service.expect("on_close")
        with pytest.raises(syncws.HandshakeRejected):
            made.client()
        with listening(service, port=port, trusted_proxies=["127.0.0.1"]):
            wait_until(lambda: _comes_through(made))


def _comes_through(made: Front) -> bool:
    try:
        made.client().close()
    except syncws.HandshakeRejected:
        return False
    return True


# -- nginx -------------------------------------------------------------------


def test_several_listeners_on_unix_domain_sockets(tmp_path: Path) -> None:
    services = [Echo(), Echo()]
    _, upstream = blocks("nginx")
    with directory() as short, ExitStack() as stack:
        listeners = []
        for number, service in enumerate(services, 1):
            old, new = f"/run/chat/{number}.sock", f"{short}/{number}"
            assert old in upstream
            upstream = upstream.replace(old, new)
            options: Any = {"unix_path": new, "trusted_proxies": ["unix"]}
            listeners.append(stack.enter_context(listening(service, **options)))
        made = stack.enter_context(nginx(tmp_path, upstream=upstream))
        with made.raw(source="127.0.0.5"), made.raw(source="127.0.0.6"):
            callers = [service.callers.get(timeout=HANG) for service in services]
            found = {caller.remote_address for caller in callers}
            assert found == {("127.0.0.5", 0), ("127.0.0.6", 0)}
            assert all(caller.is_secure for caller in callers)
            assert [caller.request.peer_address for caller in callers] == ["", ""]
        listeners[0].stop()
        for _ in range(4):
            with made.client() as client:
                client.send_text("well?")
                assert client.receive(HANG) == "well?"


@pytest.mark.parametrize(
    "left_out",
    [
        ["proxy_http_version 1.1;"],
        ["proxy_set_header Upgrade $http_upgrade;"],
        ["proxy_set_header Connection $connection_upgrade;"],
        ["proxy_http_version 1.1;", "proxy_set_header Upgrade $http_upgrade;"],
        [
            "proxy_http_version 1.1;",
            "proxy_set_header Upgrade $http_upgrade;",
            "proxy_set_header Connection $connection_upgrade;",
        ],
    ],
)
@pytest.mark.parametrize("with_app", [False, True], ids=["alone", "with an app"])
def test_what_nginx_has_to_be_told(left_out: list[str], with_app: bool, tmp_path: Path) -> None:
    options: Any = {"trusted_proxies": ["127.0.0.1"], "app": application if with_app else None}
    with (
        listening(Echo(), **options) as listener,
        nginx(tmp_path, f"127.0.0.1:{listener.port}", changes=dict.fromkeys(left_out, "")) as made,
        made.raw() as peer,
    ):
        said = peer.head + peer._buffer
        while b"\n" not in said.partition(b"\r\n\r\n")[2]:
            said += peer.sock.recv(65_536)
        if left_out == ["proxy_http_version 1.1;"]:
            # Upgrade is handed on, but not in the version that has it.
            assert peer.head.startswith(b"HTTP/1.1 400 ")
            assert b"HTTP/1.1, not HTTP/1.0" in said
        else:
            assert peer.head.startswith(b"HTTP/1.1 426 ")
        for setting in ("proxy_http_version 1.1;", "proxy_set_header Upgrade $http_upgrade;"):
            assert setting.encode() in said


# -- Both --------------------------------------------------------------------


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Say what there is to be known of the client."""
    names = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "PATH_INFO")
    said = " ".join(environ[name] for name in names).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))])
    return [said]


@http_kinds
def test_pages_and_websockets_on_one_port(kind: str, tmp_path: Path) -> None:
    service = Echo()
    options: Any = {"app": application, "max_connections_per_address": 2}
    with serving(kind, tmp_path, service, **options) as (made, _):
        host = f"localhost:{made.port}"
        # The proxy has connections to the listener that it uses again, for others.
        for source in ("127.0.0.5", "127.0.0.6", "127.0.0.5"):
            with made.dial(source) as peer:
                for path in ("/a", "/b"):
                    peer.send_bytes(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    said = f"{source} https {host} {path}".encode()
                    assert peer.read_head().startswith(b"HTTP/1.1 200 ")
                    assert peer._take(len(said)) == said
        with made.client() as client:
            client.send_text("and this")
            assert client.receive(HANG) == "and this"


@pytest.mark.parametrize(
    ("kind", "number", "said"),
    [
        ("nginx", signal.SIGHUP, "start worker process"),
        ("haproxy", signal.SIGUSR2, "Loading success"),
    ],
)
def test_a_reload_ends_nobody(kind: str, number: signal.Signals, said: str, tmp_path: Path) -> None:
    with serving(kind, tmp_path, Echo()) as (made, _), made.client() as old:
        old.send_text("before")
        assert old.receive(HANG) == "before"
        times = made.program.output.count(said)
        made.program.signal(number)
        made.program.wait_for(lambda: made.program.output.count(said) > times)
        with made.client() as new:
            for client in (new, old):
                client.send_text("after")
                assert client.receive(HANG) == "after"


@http_kinds
def test_extensions_that_are_filtered_cost_the_compression_only(kind: str, tmp_path: Path) -> None:
    line = "http-request set-header X-Forwarded-Proto https"
    more = f"{line}\n    http-request del-header Sec-WebSocket-Extensions"
    with listening(Echo(), trusted_proxies=["127.0.0.1"]) as listener:
        backend = f"127.0.0.1:{listener.port}"
        made: Any = haproxy(tmp_path, 0, backend, {line: more})
        if kind == "nginx":
            line = "proxy_set_header Host $http_host;"
            more = f'{line} proxy_set_header Sec-WebSocket-Extensions "";'
            made = nginx(tmp_path, backend, changes={line: more})
        with made as running_front, running_front.client(compression=True) as client:
            assert "Sec-WebSocket-Extensions" not in client.response.headers
            client.send_text("x" * 1000)
            assert client.receive(HANG) == "x" * 1000


# -- The page ----------------------------------------------------------------


def test_the_pages_own_listener(tmp_path: Path) -> None:
    (code,) = blocks("python")
    told = "listener.start(); print(listener.port); listener.serve_forever()"
    code = code.replace("9090", "0").replace("listener.serve_forever()", told)
    with (
        interpreter(code) as server,
        nginx(tmp_path, f"127.0.0.1:{server.line()}") as made,
        syncws.Client(f"{made.url}chat", ssl=client_tls(), subprotocols=["chat"]) as client,
    ):
        assert client.receive(HANG) == "127.0.0.1 True"
        client.send_text("hello")
        assert client.receive(HANG) == "hello"


def test_the_page_has_the_defaults() -> None:
    told = re.findall(
        r"^\| `(\w+)` \| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    parameters = inspect.signature(syncws.Listener).parameters
    assert {name: ast.literal_eval(default) for name, default in told} == {
        name: parameters[name].default
        for name in ("trusted_proxies", "forwarded_headers", "proxy_protocol")
    }


def test_every_configuration_of_the_page_is_run() -> None:
    assert (len(blocks("nginx")), len(blocks("haproxy"))) == (2, 3)
    assert PAGE.read_text(encoding="utf-8").count("\n```") == 2 * (2 + 3 + 1)
