"""WebSockets of an application that runs in somebody else's server: each of them, for real."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator

import pytest
import requests

import syncws
from tests.support import HANG, TEXT, RawPeer, frame, wait_until

from .servers import ALL, Server, serving


@pytest.fixture(scope="module", params=ALL)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(request.param, tmp_path_factory.mktemp("host")) as server:
        yield server


@pytest.fixture(autouse=True)
def quiet(request: pytest.FixtureRequest) -> Iterator[None]:
    """No server of these tests has anything to complain about."""
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").check_output()


def test_messages_of_every_kind(server: Server) -> None:
    big = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(250)) * 300
    with server.client(max_message_size=8_388_608) as client:
        client.send_text("hello")
        assert client.receive(timeout=HANG) == "hello"
        client.send_binary(b"\0\xff")
        assert client.receive(timeout=HANG) == b"\0\xff"
        assert "Sec-WebSocket-Extensions" in client.response.headers
        client.send_text("again " * 100_000)
        assert client.receive(timeout=HANG) == "again " * 100_000
    with server.client(compression=False, max_message_size=8_388_608) as client:
        client.send_binary(big)
        assert client.receive(timeout=HANG) == big


def test_many_at_once(server: Server) -> None:
    clients = [server.client() for _ in range(6)]
    for i, client in enumerate(clients):
        client.send_text(f"{i}")
    assert [client.receive(timeout=HANG) for client in clients] == [f"{i}" for i in range(6)]
    assert server.state().open == 6
    for client in clients:
        client.close()
    server.wait_for_open(0)


def test_the_101(server: Server) -> None:
    with server.client(subprotocols=["other", "chat"]) as client:
        headers = client.response.headers
        assert headers["X-Served"] == "here"
        assert headers["Set-Cookie"] == "session=abc"
        assert "Content-Type" not in headers
        assert client.subprotocol == "chat"
    with server.client() as client:
        assert client.subprotocol is None


def test_what_the_service_gets_to_know(server: Server) -> None:
    with server.client("/ws?a=%20b&c=d", headers={"Cookie": "k=v"}) as client:
        client.send_text("who")
        told = json.loads(client.receive(timeout=HANG))
        local, remote = list(client.local_address), list(client.remote_address)
        secure = client.is_secure
    assert told.pop("pid") == server.state().pid
    assert told == {
        "method": "GET",
        "target": "/ws?a=%20b&c=d",
        "path": "/ws",
        "query": {"a": " b", "c": "d"},
        "params": {},
        "cookies": {"k": "v"},
        "remote": local,
        "local": remote,
        "secure": [secure, secure],
        "host": f"127.0.0.1:{server.port}",
    }


def test_attributes_are_there_before_on_open(server: Server) -> None:
    with server.client("/greeted") as client:
        assert client.receive(timeout=HANG) == "welcome"


def test_a_resource_lets_in(server: Server) -> None:
    with server.client("/ask?age=7") as client:
        assert client.response.headers["X-Room"] == "blue"
        assert client.response.headers["Set-Cookie"].startswith("seen=1")
        assert client.receive(timeout=HANG) == "hello 7 in blue"
        client.send_text("on")
        assert client.receive(timeout=HANG) == "on"


def test_a_resource_refuses(server: Server) -> None:
    with pytest.raises(syncws.HandshakeRejected) as caught:
        server.client("/ask")
    assert (caught.value.status, caught.value.body) == (409, b"Age is required")
    assert caught.value.headers["X-Why"] == "age"


@pytest.mark.parametrize("path", ["/ws", "/ask?age=7"])
def test_a_page_of_another_origin_is_refused(server: Server, path: str) -> None:
    with pytest.raises(syncws.HandshakeRejected, match="403") as caught:
        server.client(path, headers={"Origin": "http://elsewhere.example"})
    assert b"allowed_origins" in caught.value.body
    server.program.wait_to_say("refused /")


def test_what_is_no_handshake(server: Server) -> None:
    response = server.get("/ws")
    assert response.status_code == 426
    assert "ws://" in response.text
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (RawPeer.request("/ws").replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (RawPeer.request("/ws").replace(b"Version: 13", b"Version: 12"), 426),
        (RawPeer.request("/ws").replace(b"GET", b"PUT"), 405),
        (RawPeer.request("/ws").replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
    ],
    ids=["HTTP/1.0", "a wrong version", "a wrong method", "no key"],
)
def test_bad_handshakes(server: Server, request_: bytes, status: int) -> None:
    with server.peer() as peer:
        peer.send_bytes(request_)
        assert int(peer.read_head().split()[1]) == status


def test_what_comes_right_after_the_request(server: Server) -> None:
    """The server has read it already, in one go with the request."""
    if server.name == "uwsgi":
        pytest.skip("uWSGI keeps that to itself")
    early = [f"early {i}" for i in range(50)]
    with server.peer() as peer:
        frames = b"".join(frame(TEXT, text.encode()) for text in early)
        peer.send_bytes(RawPeer.request("/ws") + frames)
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        for text in early:
            peer.expect(TEXT, text)
        peer.text("late")
        peer.expect(TEXT, "late")


def test_a_request_behind_the_handshake_is_none(server: Server) -> None:
    """What a proxy takes for frames must not be a request to anybody."""
    if server.name == "uwsgi":
        pytest.skip("uWSGI keeps that to itself")
    with server.peer() as peer:
        peer.send_bytes(RawPeer.request("/ws") + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        peer.expect_close(1002)
    server.wait_for_open(0)
    assert "smuggled" not in server.program.output


def test_a_close_by_the_client(server: Server) -> None:
    with server.peer() as peer:
        peer.send_bytes(RawPeer.request("/ws"))
        peer.read_head()
        peer.close_frame(1000, "bye")
        peer.expect_close(1000)
        peer.expect_end()
    server.wait_for_open(0)


def test_a_close_by_the_server(server: Server) -> None:
    with server.client() as client:
        client.send_text("close")
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.receive(timeout=HANG)
    assert caught.value.received == syncws.Close(4000, "as you wish")
    server.wait_for_open(0)


def test_a_client_that_is_lost(server: Server) -> None:
    peer = server.peer()
    peer.send_bytes(RawPeer.request("/ws"))
    peer.read_head()
    server.wait_for_open(1)
    peer.abort()
    server.wait_for_open(0)


def test_a_client_that_half_closes(server: Server) -> None:
    with server.peer() as peer:
        peer.send_bytes(RawPeer.request("/ws"))
        peer.read_head()
        socket.socket.shutdown(peer.sock, socket.SHUT_WR)
        server.wait_for_open(0)


def test_requests_and_keep_alive_go_on(server: Server) -> None:
    with server.client() as client, requests.Session() as session:
        for _ in range(3):
            assert server.get("/plain", session).text == "hello /plain"
            client.send_text("x")
            assert client.receive(timeout=HANG) == "x"


def test_the_access_log_has_a_101(server: Server) -> None:
    with server.client("/ws?logged"):
        pass

    def logged() -> bool:
        lines = server.program.output.splitlines()
        return any("/ws?logged" in line and " 101" in line for line in lines)

    wait_until(logged)


def test_nothing_is_left(server: Server) -> None:
    """Neither descriptors nor threads, after the first ones."""
    server.client().close()

    def rest() -> tuple[int, int]:
        state = server.state()
        return state.descriptors, state.open

    server.wait_for_open(0)
    with requests.Session():
        pass
    wait_until(lambda: rest() == rest())
    before = rest()
    for _ in range(20):
        server.client().close()
    wait_until(lambda: rest()[0] <= before[0] and rest()[1] == 0)


@pytest.mark.parametrize("name", ["gevent", "pywsgi patched"])
def test_greenlets_in_the_place_of_threads(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with serving(name, tmp_path_factory.mktemp("host")) as server:
        with pytest.raises(syncws.HandshakeRejected, match="500"):
            server.client()
        server.program.wait_to_say("--worker-class gthread")
        assert server.get("/plain").text == "hello /plain"


def test_waitress_has_nothing_to_give(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving("waitress", tmp_path_factory.mktemp("host")) as server:
        with pytest.raises(syncws.HandshakeRejected, match="500"):
            server.client()
        server.program.wait_to_say("waitress does not let an application have a connection")
        server.program.wait_to_say("syncws.Listener")


def test_mod_wsgi_has_nothing_to_give(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving("apache2", tmp_path_factory.mktemp("host")) as server:
        assert server.get("/plain").text == "hello /plain"
        with pytest.raises(syncws.HandshakeRejected, match="500"):
            server.client()
        server.program.wait_to_say("mod_wsgi does not let an application have a connection")
        server.program.wait_to_say("syncws.Listener")


def test_uwsgi_without_threads(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving("uwsgi --lazy", tmp_path_factory.mktemp("host")) as server:
        with pytest.raises(syncws.ConnectError):  # uWSGI answers an exception with nothing
            server.client()
        server.program.wait_to_say("--enable-threads")


def test_tls_without_threads(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One WebSocket would be all that it could do."""
    with serving("gunicorn tls", tmp_path_factory.mktemp("host")) as server:
        with pytest.raises(syncws.HandshakeRejected, match="500"):
            server.client()
        server.program.wait_to_say("gunicorn --threads")
