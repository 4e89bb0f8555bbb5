"""A listener and its proxies, which are played by hand; programs are in test_proxies."""

from __future__ import annotations

import logging
import os
import queue
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import syncws
import syncws.server.reception as module
from tests.abuse.door import App
from tests.introductions import LINE, TLS, V4, V6, introduction_2, local, with_checksum
from tests.support import (
    HANG,
    Gate,
    RawPeer,
    ServerRecorder,
    client_tls,
    listening,
    news,
    server_tls,
    wait_until,
)

CLIENT = ("203.0.113.7", 56324)


@contextmanager
def behind(**options: Any) -> Iterator[tuple[syncws.Listener, ServerRecorder]]:
    """A listener that trusts whoever is on this machine."""
    service = ServerRecorder(syncws.ServiceConfig(ping_interval=None))
    options.setdefault("trusted_proxies", ["127.0.0.1", "10.0.0.0/8"])
    with listening(service, **options) as listener:
        yield listener, service


def caller_of(
    listener: syncws.Listener, service: ServerRecorder, *headers: str, before: bytes = b""
) -> syncws.Caller:
    """Return what the service gets to see of a client that has come, and gone since."""
    with RawPeer.dial(listener) as peer:
        peer.send_bytes(before + RawPeer.request("/", *headers))
        assert peer.read_head().startswith(b"HTTP/1.1 101 "), peer.head
        caller = service.expect("on_open")
        assert isinstance(caller, syncws.Caller)
        peer.finish()
        service.expect("on_close", 1000, "")
    return caller


def status(listener: syncws.Listener, *headers: str, before: bytes = b"") -> int:
    """Return the status of the answer to a handshake that is refused."""
    with RawPeer.dial(listener) as peer:
        peer.send_bytes(before + RawPeer.request("/", *headers))
        return int(peer.read_head().split()[1])


# -- Headers -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "headers", "address", "secure", "host"),
    [
        ({}, ["X-Forwarded-For: 8.8.8.8"], ("8.8.8.8", 0), False, "localhost"),
        (
            {},
            ["X-Forwarded-For: 1.1.1.1, [2001:db8::7]:9, 10.9.9.9", "X-Forwarded-Proto: https"],
            ("2001:db8::7", 9),
            True,
            "localhost",
        ),
        (
            {"forwarded_headers": ["X-Forwarded-Host", "x-forwarded-port"]},
            ["X-Forwarded-For: 8.8.8.8", "X-Forwarded-Host: app.example", "X-Forwarded-Port: 81"],
            None,
            False,
            "app.example:81",
        ),
        (
            {"forwarded_headers": ("Forwarded",)},
            ["X-Forwarded-For: 1.1.1.1", "Forwarded: for=8.8.8.8;proto=https;host=app.example"],
            ("8.8.8.8", 0),
            True,
            "app.example",
        ),
        ({"forwarded_headers": ()}, ["X-Forwarded-For: 8.8.8.8"], None, False, "localhost"),
        ({"trusted_proxies": ["::1"]}, ["X-Forwarded-For: 8.8.8.8"], None, False, "localhost"),
    ],
)
def test_what_a_proxy_says_is_so(
    options: dict[str, Any], headers: list[str], address: Any, secure: bool, host: str
) -> None:
    with behind(**options) as (listener, service):
        caller = caller_of(listener, service, *headers)
        request = caller.request
        if address is None:
            address = request.peer_address
        assert caller.remote_address == request.remote_address == address
        assert str(address) in repr(caller)
        assert caller.is_secure is request.is_secure is secure
        assert request.host == host
        assert isinstance(request.peer_address, tuple)
        assert request.peer_address[0] == "127.0.0.1"
        assert request.peer_address[1] != 0
        assert request.headers["X-Forwarded-For" if "For:" in headers[0] else "Host"]


def test_a_proxy_by_a_unix_domain_socket(tmp_path: Path) -> None:
    options: Any = {"unix_path": os.path.relpath(tmp_path / "s"), "trusted_proxies": ["unix"]}
    with behind(**options) as (listener, service):
        assert caller_of(listener, service).remote_address == ""
        caller = caller_of(listener, service, "X-Forwarded-For: 8.8.8.8")
        assert caller.remote_address == ("8.8.8.8", 0)
        assert caller.request.peer_address == ""


def test_a_resource_and_an_application_are_told_so_as_well() -> None:
    app = App()
    seen: queue.Queue[Any] = queue.Queue()
    with behind(app=app) as (listener, service):

        @listener.upgrade("/asked", service=service)
        def asked(http: syncws.Upgrade, request: syncws.Request) -> None:
            seen.put((request.remote_address, request.is_secure))
            http.cancel_upgrade(404)

        headers = ["X-Forwarded-For: 8.8.8.8:7", "X-Forwarded-Proto: https"]
        with RawPeer.dial(listener) as peer:
            peer.send_bytes(RawPeer.request("/asked", *headers))
            peer.read_head()
        assert seen.get(timeout=HANG) == (("8.8.8.8", 7), True)
        with RawPeer.dial(listener) as peer:
            lines = ["GET /page HTTP/1.1", "Host: app.example", *headers, "", ""]
            peer.send_bytes("\r\n".join(lines).encode())
            assert peer.read_head().startswith(b"HTTP/1.1 200 ")
    (environ,) = app.environs
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("8.8.8.8", "7")
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["HTTP_HOST"] == "app.example"
    assert environ["HTTP_X_FORWARDED_FOR"] == "8.8.8.8:7"


def test_a_handshake_that_a_proxy_has_mangled_is_not_the_applications() -> None:
    app = App()
    with behind(app=app) as (listener, _), RawPeer.dial(listener) as peer:
        request = RawPeer.request().replace(b"Upgrade: websocket\r\n", b"")
        peer.send_bytes(request.replace(b"Connection: Upgrade", b"Connection: close"))
        assert peer.read_head().startswith(b"HTTP/1.1 426 ")
        with RawPeer.dial(listener) as other:  # where no WebSocket is it is as any request
            other.send_bytes(request.replace(b"GET / ", b"GET /page "))
            assert other.read_head().startswith(b"HTTP/1.1 200 ")
    assert app.paths == ["/page"]


@pytest.mark.parametrize(
    "connection", ["keep-alive, Upgrade", "Upgrade, keep-alive", "upgrade,,keep-alive", "UPGRADE"]
)
def test_handshakes_as_proxies_write_them(connection: str) -> None:
    with behind() as (listener, service), RawPeer.dial(listener) as peer:
        head = (
            RawPeer.request().decode().replace("Connection: Upgrade", f"connection: {connection}")
        )
        first, _, fields = head.partition("\r\n")
        names = [line.partition(":") for line in fields.split("\r\n")]
        fields = "\r\n".join(name.lower() + colon + text for name, colon, text in names)
        peer.send_bytes(f"{first}\r\n{fields}".encode())
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        service.expect("on_open")
        peer.text("hello")
        service.expect("on_text", "hello")


# -- How many from one address -----------------------------------------------


def test_clients_are_counted_and_not_their_proxy() -> None:
    with behind(max_connections_per_address=1) as (listener, service):
        for_one, for_other = ["X-Forwarded-For: 8.8.8.8"], ["X-Forwarded-For: 9.9.9.9"]
        with (
            RawPeer.connect(listener, "/", *for_one) as mine,
            RawPeer.connect(listener, "/", *for_other),
            RawPeer.connect(listener),
            RawPeer.connect(listener),  # the proxy's own
        ):
            for _ in range(4):
                service.expect("on_open")
            assert status(listener, *for_one) == 503
            assert status(listener, "X-Forwarded-For: 9.9.9.9, 8.8.8.8") == 503
            mine.finish()
            service.expect("on_close")
            wait_until(lambda: status(listener, *for_one) == 101)


def test_an_application_s_requests_count_while_they_last() -> None:
    gate = Gate()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            gate.block()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        return []

    def ask(peer: RawPeer, path: str, client: str) -> None:
        lines = [f"GET {path} HTTP/1.1", "Host: x", f"X-Forwarded-For: {client}", "", ""]
        peer.send_bytes("\r\n".join(lines).encode())

    with (
        behind(app=app, max_connections_per_address=1) as (listener, _),
        gate,
        RawPeer.dial(listener) as first,
        RawPeer.dial(listener) as second,
        RawPeer.dial(listener) as third,
    ):
        door = listener._reception._door
        assert door is not None
        for client in ("8.8.8.8", "9.9.9.9", "8.8.8.8"):
            for peer in (first, second):  # each has had everybody's
                ask(peer, "/", client)
                assert peer.read_head().startswith(b"HTTP/1.1 200 ")
                # The end of a request is seen a little after the answer's.
                wait_until(lambda: not door._by_address)
        ask(first, "/slow", "8.8.8.8")
        gate.reached()
        ask(second, "/", "9.9.9.9")
        assert second.read_head().startswith(b"HTTP/1.1 200 ")
        ask(third, "/", "8.8.8.8")
        assert third.read_head().startswith(b"HTTP/1.1 503 ")
        gate.open()
        assert first.read_head().startswith(b"HTTP/1.1 200 ")


# -- The PROXY protocol ------------------------------------------------------

INTRODUCTIONS = {
    "version 1": (LINE, CLIENT, False),
    "version 1, IPv6": (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", ("2001:db8::7", 1), False),
    "version 1, unknown": (b"PROXY UNKNOWN\r\n", None, False),
    "version 2": (introduction_2(V4), CLIENT, False),
    "version 2, IPv6": (introduction_2(V6, family=0x21), ("2001:db8::7", 56324), False),
    "version 2, TLS": (with_checksum(V4, TLS), CLIENT, True),
    "version 2, local": (local(), None, False),
    "version 2, Unix": (
        introduction_2(b"/run/a".ljust(216, b"\0"), family=0x31),
        "/run/a",
        False,
    ),
}


@pytest.mark.parametrize("kind", INTRODUCTIONS)
def test_an_introduction_is_believed(kind: str) -> None:
    header, address, secure = INTRODUCTIONS[kind]
    with behind(proxy_protocol=True) as (listener, service):
        # Its claims are the client's own.
        claims = ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https"]
        caller = caller_of(listener, service, *claims, before=header)
        request = caller.request
        assert caller.remote_address == (request.peer_address if address is None else address)
        assert caller.is_secure is secure
        assert request.peer_address[0] == "127.0.0.1"


@pytest.mark.parametrize("cut", [1, 20, 1000])
@pytest.mark.parametrize("kind", ["version 1", "version 2, TLS", "version 2, local"])
def test_tls_begins_behind_it(kind: str, cut: int) -> None:
    header, address, _ = INTRODUCTIONS[kind]
    with (
        behind(proxy_protocol=True, ssl=server_tls()) as (listener, service),
        RawPeer.dial(listener) as plain,
    ):
        for start in range(0, len(header), cut):
            plain.send_bytes(header[start : start + cut])
        with RawPeer(
            client_tls().wrap_socket(plain.sock, server_hostname="localhost"), client=True
        ) as peer:
            peer.send_bytes(RawPeer.request())
            assert peer.read_head().startswith(b"HTTP/1.1 101 ")
            caller = service.expect("on_open")
            assert caller.is_secure
            assert caller.remote_address == (address or peer.sock.getsockname())
            peer.text("hello")
            service.expect("on_text", "hello")


def test_tls_that_comes_with_it() -> None:
    """The header, and the whole of the client's first flight, in one write."""
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_tls().wrap_bio(inward, outward, server_hostname="localhost")
    with (
        behind(proxy_protocol=True, ssl=server_tls()) as (listener, service),
        RawPeer.dial(listener) as peer,
    ):
        before = LINE
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                peer.send_bytes(before + outward.read())
                before = b""
                inward.write(peer.sock.recv(65_536))
            else:
                break
        tls.write(RawPeer.request())
        peer.send_bytes(outward.read())
        assert service.expect("on_open").remote_address == CLIENT


def test_a_proxy_before_a_proxy() -> None:
    inner = b"PROXY TCP4 10.1.1.1 127.0.0.1 1 2\r\n"
    headers = ["X-Forwarded-For: 8.8.8.8", "X-Forwarded-Proto: https"]
    with behind(proxy_protocol=True) as (listener, service):
        caller = caller_of(listener, service, *headers, before=inner)
        assert caller.remote_address == ("8.8.8.8", 0)
        assert caller.is_secure


def test_each_request_of_a_connection_has_its_introduction() -> None:
    app = App()
    with behind(proxy_protocol=True, app=app) as (listener, _), RawPeer.dial(listener) as peer:
        page = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"
        peer.send_bytes(LINE + page + page)
        for _ in range(2):
            assert peer.read_head().startswith(b"HTTP/1.1 200 ")
            assert peer._take(2) == b"ok"
        peer.send_bytes(page)
        assert peer.read_head().startswith(b"HTTP/1.1 200 ")
        peer.abort()
        wait_until(lambda: not listener._reception._introductions)
    assert [environ["REMOTE_ADDR"] for environ in app.environs] == ["203.0.113.7"] * 3


def test_introduced_clients_are_counted() -> None:
    options: Any = {"proxy_protocol": True, "max_connections_per_address": 1}
    with behind(**options) as (listener, service):
        with RawPeer.dial(listener) as mine, RawPeer.dial(listener) as own:
            mine.send_bytes(LINE)
            door = listener._reception._door
            assert door is not None
            wait_until(lambda: door._by_address)  # long before it says anything else
            assert status(listener, before=LINE) == 503
            own.send_bytes(local() + RawPeer.request())
            assert own.read_head().startswith(b"HTTP/1.1 101 ")
            service.expect("on_open")
            assert caller_of(listener, service, before=local()).remote_address != CLIENT
        service.expect("on_close")
        wait_until(lambda: not door._by_address)
        assert caller_of(listener, service, before=LINE).remote_address == CLIENT
        assert listener._reception._introductions == {}


def test_those_that_are_told_that_there_is_no_room_are_so_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST_REFUSED", 1)
    options: Any = {"proxy_protocol": True, "max_connections_per_address": 1}
    with behind(**options) as (listener, _), RawPeer.dial(listener) as mine:
        mine.send_bytes(LINE)
        door = listener._reception._door
        assert door is not None
        wait_until(lambda: door._by_address)
        with RawPeer.dial(listener) as told:
            told.send_bytes(LINE)
            wait_until(lambda: listener._reception._refusing)
            with RawPeer.dial(listener) as cut:
                cut.send_bytes(LINE)
                cut.expect_end()
            told.send_bytes(RawPeer.request())
            assert told.read_head().startswith(b"HTTP/1.1 503 ")


def test_looking_whether_somebody_is_here_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "syncws.server"),
        behind(proxy_protocol=True) as (listener, service),
    ):
        for _ in range(5):
            RawPeer.dial(listener).abort()
        assert caller_of(listener, service, before=LINE).remote_address == CLIENT
    assert news(caplog) == []
