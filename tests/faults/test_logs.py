"""Logs that cannot be written: full disks, handlers and filters that raise or block, no stderr."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from tests.faults.ends import serves_on, settle
from tests.reconnecting import Backend, Reconnector
from tests.support import (
    HANG,
    Gate,
    RawPeer,
    ServerRecorder,
    Task,
    interpreter,
    listening,
)


class FullDisk(io.StringIO):
    """A file on a disk that is full."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class Raising(logging.Handler):
    """A handler that is broken itself, which logging does not look after."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error
        self.tried = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.tried += 1
        raise self._error


class Filtered(logging.Handler):
    """A handler whose filter raises."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0

    def filter(self, record: logging.LogRecord) -> bool:
        self.tried += 1
        raise ValueError("a broken filter")


def full_disk() -> logging.Handler:
    return logging.StreamHandler(FullDisk())


HANDLERS: dict[str, Callable[[], logging.Handler]] = {
    "a full disk": full_disk,
    "an emit that raises": lambda: Raising(RuntimeError("a broken handler")),
    "an emit that exits": lambda: Raising(SystemExit(1)),
    "an emit that recurses": lambda: Raising(RecursionError("too deep")),
    "a filter that raises": Filtered,
}


def tried(handler: logging.Handler) -> int:
    """Return how often it was to log something."""
    if isinstance(handler, logging.StreamHandler):
        return int(handler.stream.tried)
    return int(handler.tried)  # type: ignore[attr-defined]


@contextlib.contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Have this handler only get all that the library logs."""
    log = logging.getLogger("syncws")
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
        log.setLevel(before[0])


class Broken(ServerRecorder):
    """Raises when it is told to."""

    def on_text(self, caller: Any, text: str) -> None:
        super().on_text(caller, text)
        if text == "raise":
            raise ValueError("a broken callback")


class Silent(syncws.Service):
    """Has no on_error, so that the library has to say why a connection has failed."""

    def on_text(self, caller: Any, text: str) -> None:
        pass


def application(environ: Any, start_response: Any) -> list[bytes]:
    raise ValueError("a broken application")


# -- What is logged ----------------------------------------------------------


def refused(listener: syncws.Listener, service: Broken) -> None:
    with RawPeer.dial(listener) as peer:
        peer.send_bytes(RawPeer.request("/nowhere"))
        assert peer.read_head().startswith(b"HTTP/1.1 404 ")


def requested(listener: syncws.Listener, service: Broken) -> None:
    with RawPeer.dial(listener) as peer:
        peer.send_bytes(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.read_head().startswith(b"HTTP/1.1 500 ")


def raised(listener: syncws.Listener, service: Broken) -> None:
    with RawPeer.connect(listener) as peer:
        service.expect("on_open")
        peer.text("raise")
        service.expect("on_text", "raise")
        peer.expect_close(1011)
    assert isinstance(service.next().args[0], ValueError)
    service.expect("on_close", 1006, "")


def failed(listener: syncws.Listener, service: Broken) -> None:
    with RawPeer.connect(listener, "/silent") as peer:
        peer.send_bytes(b"\xff\xff")
        peer.expect_close(1002)
        peer.expect_end()


def decided(listener: syncws.Listener, service: Broken) -> None:
    with RawPeer.dial(listener) as peer:
        peer.send_bytes(RawPeer.request("/broken"))
        assert peer.read_head().startswith(b"HTTP/1.1 500 ")


EVENTS = {
    "a refusal": refused,
    "a request": requested,
    "a callback that raises": raised,
    "a failure": failed,
    "a resource that raises": decided,
}


@contextlib.contextmanager
def server() -> Iterator[tuple[syncws.Listener, Broken]]:
    """A listener with all that can be logged."""
    service = Broken(syncws.ServiceConfig(compression=False))
    with listening(service, app=application) as listener:
        listener.attach("/silent", Silent())

        def resource(http: Any, request: Any) -> None:
            raise ValueError("a broken resource")

        listener.upgrade("/broken", service=Silent)(resource)
        yield listener, service
    assert service.calls.empty()


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("kind", HANDLERS)
def test_a_servers_log_that_fails(kind: str, event: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times each: neither a worker nor the I/O thread is lost by it."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = HANDLERS[kind]()
    with logging_to(handler), server() as (listener, service):
        for _ in range(3):
            EVENTS[event](listener, service)
        serves_on(f"ws://127.0.0.1:{listener.port}/", service)
    assert tried(handler) >= 3


@pytest.mark.parametrize("kind", HANDLERS)
def test_a_clients_log_that_fails(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its callback raises, its connection is lost, and its attempts fail and succeed."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = HANDLERS[kind]()
    retry = syncws.RetryConfig(interval=0.0, jitter=0.0)

    class Raises(Reconnector):
        def on_text(self, client: Any, text: str) -> None:
            super().on_text(client, text)
            raise ValueError("a broken callback")

    service = Raises()
    with logging_to(handler), Backend() as backend:
        options = {"service": service, "retry": retry, "ping_interval": None}
        connecting = Task(syncws.Client, backend.url, **options)
        with backend.answered() as peer:
            client = connecting.result()
            peer.reset()
        with backend.accept() as peer:
            peer.abort()
        service.attempt("waiting", 1)
        service.attempt("connecting", 1)
        service.attempt("waiting", 2)
        service.attempt("connecting", 2)
        with backend.answered() as peer:
            service.attempt("connected", 2)
            peer.text("raise")
            service.expect("on_text", "raise")
            peer.expect_close(1011)
            peer.close_frame(1011)
            peer.end_writing()
            assert isinstance(service.next().args[0], ValueError)
            service.expect("on_close", 1011, "")
        client.close()
    assert tried(handler) >= 4


# -- A log that blocks -------------------------------------------------------


class Blocking(logging.Handler):
    """A handler that waits for a disk, or for a network, that does not come back."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def emit(self, record: logging.LogRecord) -> None:
        self._gate.block()


@pytest.mark.parametrize("event", EVENTS)
def test_a_log_that_blocks_holds_up_nobody_else(event: str) -> None:
    """The I/O thread goes on, and so do callbacks, even where many would log meanwhile."""
    with Gate() as gate, server() as (listener, service):
        url = f"ws://127.0.0.1:{listener.port}/"
        with syncws.Client(url) as client:
            caller = service.expect("on_open")
            with logging_to(Blocking(gate)):
                peers = _begin(event, listener)
                gate.reached()
                assert listener._loop is not None
                settle(listener._loop)
                for number in range(3):
                    client.send_text(f"{number}")
                    _on_text(service, f"{number}")
                    caller.send_text("and back")
                    assert client.receive(timeout=HANG) == "and back"
                gate.open()
                for peer in peers:
                    peer.end_writing()
                    with contextlib.suppress(ConnectionError, EOFError):
                        while peer.sock.recv(4096):
                            pass
                    peer.abort()
                listener.stop()
            with pytest.raises(syncws.ConnectionClosed):
                client.receive(timeout=HANG)
        while not service.calls.empty():
            service.next()


def _begin(event: str, listener: syncws.Listener) -> list[RawPeer]:
    """Have some clients cause it, and wait for nothing."""
    requests = {
        "a refusal": RawPeer.request("/nowhere"),
        "a request": b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "a callback that raises": RawPeer.request() + b"\x81\x85\0\0\0\0raise",
        "a failure": RawPeer.request("/silent") + b"\xff\xff",
        "a resource that raises": RawPeer.request("/broken"),
    }
    peers = []
    for _ in range(4):
        peer = RawPeer.dial(listener)
        peer.send_bytes(requests[event])
        peers.append(peer)
    return peers


def _on_text(service: Broken, text: str) -> None:
    """Take calls off up to this one: those of the others come between."""
    while True:
        call = service.next()
        if call.args == (text,):
            return
        assert call.name in ("on_open", "on_close", "on_error") or call.args == ("raise",)


# -- No stderr ---------------------------------------------------------------

_NO_STDERR = """
import os, sys, syncws
from tests.support import RawPeer
kind = sys.argv[1]
if kind == "closed": sys.stderr.close()
if kind == "none": sys.stderr = None
if kind == "no descriptor": os.close(2)
if kind == "full": sys.stderr = open("/dev/full", "w", buffering=1)
class Broken(syncws.Service):
    def on_text(self, caller, text):
        if text == "raise": raise ValueError
        caller.send_text(text)
class Callbacks(syncws.Service):
    def on_text(self, client, text): raise ValueError
listener = syncws.Listener(0)
listener.attach("/", Broken())
with listener:
    url = f"ws://127.0.0.1:{listener.port}/"
    for _ in range(3):
        with RawPeer.dial(listener) as peer:
            peer.send_bytes(RawPeer.request("/nowhere"))
            peer.read_head()
        with syncws.Client(url) as client:
            client.send_text("raise")
            try:
                client.receive(timeout=20)
            except syncws.ConnectionClosed as exc:
                print(exc.received.code)
        client = syncws.Client(url, service=Callbacks())
        client.send_text("x")
        print(client.wait_closed(20))
        with syncws.Client(url) as client:
            client.send_text("hello")
            print(client.receive(timeout=20))
print("end")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("kind", ["closed", "none", "no descriptor", "full"])
def test_a_process_without_a_stderr(kind: str) -> None:
    with interpreter(_NO_STDERR, kind) as process:
        for _ in range(3):
            for line in ("1011", "True", "hello"):
                assert process.line() == line
        assert process.line() == "end"
        assert process.end() == (0, "")
