"""Listeners and clients that meet in memory are those of production."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import syncws
from syncws.testing import ManualClock, MemoryEngine, Site, serving
from tests.conftest import open_descriptors
from tests.support import HANG, Gate, Recorder, ServerRecorder, client_tls, server_tls


class Echo(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        caller.send_binary(data)


def test_no_socket_and_no_descriptor_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: Any, **options: Any) -> Any:
        raise AssertionError("a socket of the system's")

    before = open_descriptors()
    monkeypatch.setattr(socket.socket, "__init__", forbidden)
    monkeypatch.setattr(socket, "socketpair", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    engine = MemoryEngine()
    listener = syncws.Listener(9090, engine=engine)
    listener.attach("/echo", Echo())
    with listener, syncws.Client("ws://chat.example.com:9090/echo", engine=engine) as client:
        client.send_text("hello")
        assert client.receive(HANG) == "hello"
        assert open_descriptors() == before
    assert listener.port == 9090


@pytest.mark.parametrize("size", [0, 125, 70_000, 3_000_000])
@pytest.mark.parametrize("compression", [False, True])
def test_messages_of_any_size(size: int, compression: bool) -> None:
    with serving(Echo()) as site:
        client = site.connect("/", compression=compression, max_message_size=4_000_000)
        data = os.urandom(size)
        client.send_binary(data)
        if size <= 1 << 20:
            assert client.receive(HANG) == data
        else:  # that is more than the service takes
            with pytest.raises(syncws.ConnectionClosed) as caught:
                client.receive(HANG)
            assert caught.value.received is not None
            assert caught.value.received.code == 1009


def test_tls() -> None:
    engine = MemoryEngine()
    listener = syncws.Listener(0, ssl=server_tls(), engine=engine)
    listener.attach("/", Echo())
    with serving(listener, engine=engine) as site:
        assert site.url("/").startswith("wss://localhost:")
        client = site.connect("/", ssl=client_tls())
        client.send_text("hidden")
        assert client.receive(HANG) == "hidden"
        with pytest.raises(syncws.TLSError, match="its certificate was refused"):
            site.connect("/", ssl=syncws.TLSConfig())


def test_a_unix_path(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    listener = syncws.Listener(unix_path=path)
    listener.attach("/", Echo())
    with serving(listener) as site:
        assert not os.path.exists(path)
        client = site.connect("/")
        client.send_text("here")
        assert client.receive(HANG) == "here"


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    engine = MemoryEngine()
    listener = syncws.Listener(80, engine=engine)
    listener.attach("/", Echo())
    with listener, syncws.Client("ws://other.example/", engine=engine) as client:
        client.send_text("direct")
        assert client.receive(HANG) == "direct"


def test_sockets_of_the_system_are_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = syncws.Listener(sockets=[sock], engine=MemoryEngine())
        with pytest.raises(ValueError, match="this engine is none for those"):
            listener.start()
        with serving(listener) as site:
            assert site.listener.port not in (None, sock.getsockname()[1])


def test_a_client_that_vanishes_is_a_loss() -> None:
    service = ServerRecorder()
    with serving(service) as site:
        client = site.connect("/")
        service.expect("on_open")
        client._connection.ask_to_abort()
        service.expect("on_close", 1006, "")


def test_http_requests_are_answered() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    engine = MemoryEngine()
    with syncws.Listener(80, app=app, engine=engine):
        sock = engine.network.connect(80, None)
        sock.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = b""
        while sock.wait_ready(False, HANG) and (data := sock.recv(1000)):
            got += data
        sock.close()
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"hello")


def test_callbacks_that_wait_for_each_other_get_threads_of_their_own() -> None:
    """Though the clock stands still: more workers come by real time."""
    met = threading.Barrier(3)

    class Meeting(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            met.wait(HANG)
            caller.send_text("met")

    with serving(Meeting(), clock=ManualClock()) as site:
        clients = [site.connect("/") for _ in range(3)]
        for client in clients:
            client.send_text("go")
        assert [client.receive(HANG) for client in clients] == ["met"] * 3


# -- settle -------------------------------------------------------------------


def test_settle_waits_for_callbacks_and_for_what_they_send() -> None:
    class Chain(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            if len(text) < 20:
                caller.send_text(text + "x")

    class Answering(Recorder):
        def on_text(self, client: Any, text: str) -> None:
            super().on_text(client, text)
            client.send_text(text + "y")

    service = Answering()
    with serving(Chain()) as site:
        site.connect("/", service=service).send_text("")
        site.engine.settle()
        assert service.calls.qsize() == 10


def test_settle_without_anything() -> None:
    MemoryEngine().settle()


def test_settle_tells_what_does_not_end() -> None:
    gate = Gate()

    class Stuck(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            gate.block()

    with serving(Stuck(), path="/stuck") as site, gate:
        site.connect("/stuck").send_text("go")
        gate.reached()
        with pytest.raises(TimeoutError, match=r"under way after .*Stuck.on_text at /stuck"):
            site.engine.settle(timeout=0.05)


def test_settle_in_a_callback() -> None:
    class Waits(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            try:
                site.engine.settle()
            except RuntimeError as exc:
                caller.send_text(str(exc))

    with serving(Waits()) as site:
        client = site.connect("/")
        client.send_text("go")
        assert "cannot be called from one" in str(client.receive(HANG))


# -- serving ------------------------------------------------------------------


def test_a_listener_is_given_back() -> None:
    engine = syncws.Engine()
    listener = syncws.Listener(9090, engine=engine)
    listener.attach("/echo", Echo())
    for _ in range(2):
        with serving(listener) as site:
            assert site.url("/echo?x=1") == "ws://localhost:9090/echo?x=1"
            client = site.connect("/echo")
            client.send_text("a")
            assert client.receive(HANG) == "a"
    assert listener._engine is engine
    assert engine.stats().users == 0


def test_a_listener_that_is_started_is_refused() -> None:
    engine = MemoryEngine()
    with (
        syncws.Listener(80, engine=engine) as listener,
        pytest.raises(RuntimeError, match="started already"),
        serving(listener),
    ):
        pass


def test_what_is_no_service() -> None:
    with pytest.raises(TypeError), serving(object()):  # type: ignore[arg-type]
        pass


def test_a_path_without_a_slash() -> None:
    with serving(Echo()) as site, pytest.raises(ValueError, match="must begin with '/', not 'x'"):
        site.connect("x")


def test_a_class_gets_an_instance_for_each_client() -> None:
    made = []

    class Counted(Echo):
        def __init__(self) -> None:
            made.append(self)

    with serving(Counted, path="/c") as site:
        assert isinstance(site, Site)
        site.connect("/c")
        site.connect("/c")
        site.engine.settle()
    assert len(made) == 2


def test_everything_ends_with_the_block() -> None:
    """However it ends; the leaks of threads and descriptors are looked for by all tests."""
    with pytest.raises(LookupError), serving(Echo()) as site:
        client = site.connect("/")
        raise LookupError
    assert client.wait_closed(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_child_has_nothing_of_it() -> None:
    with serving(Echo()) as site:
        client = site.connect("/")
        pid = os.fork()
        if not pid:
            engine = site.engine
            with syncws.Listener(81, engine=engine) as listener:
                listener.attach("/", Echo())
                with syncws.Client("ws://x:81/", engine=engine) as inner:
                    inner.send_text("child")
                    os._exit(inner.receive(HANG) != "child")
        assert os.waitpid(pid, 0)[1] == 0
        client.send_text("parent")
        assert client.receive(HANG) == "parent"
