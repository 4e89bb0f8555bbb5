"""The system has no descriptors, no memory, or no room in its selector left."""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

import syncws
from syncws.server.acceptor import Acceptor
from syncws.server.opening import Opening
from tests.faults.ends import clocked, closed_error, serves_on, settle
from tests.support import (
    HANG,
    RawPeer,
    RawServer,
    ServerRecorder,
    Task,
    interpreter,
    listening,
    news,
)

CODES = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]
NAMES = [errno.errorcode[code] for code in CODES]


class Failing:
    """A listening socket that has connections only when the test says so."""

    def __init__(self, sock: socket.socket, code: int) -> None:
        self._sock = sock
        self._error = OSError(code, os.strerror(code))
        self.failing = True
        self.tried = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def accept(self) -> tuple[socket.socket, Any]:
        self.tried += 1
        if self.failing:
            raise self._error
        return self._sock.accept()


def acceptor_of(listener: syncws.Listener) -> Acceptor:
    (acceptor,) = listener._reception._acceptors
    return acceptor


@pytest.mark.parametrize("code", CODES, ids=NAMES)
def test_accept_fails_for_a_while(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """Who is connected goes on, who is not waits, and the log has one line for each pause."""
    caplog.set_level(logging.INFO, "syncws")
    service = ServerRecorder(syncws.ServiceConfig(ping_interval=None))
    with clocked() as (engine, clock), listening(service, engine=engine) as listener:
        loop = listener._loop
        assert loop is not None
        with RawPeer.connect(listener) as peer:
            caller = service.expect("on_open")
            clock.stop()  # or a pause might end by itself
            acceptor = acceptor_of(listener)
            sock = Failing(acceptor._sock, code)
            acceptor._sock = sock  # type: ignore[assignment]
            waiting = [RawPeer.dial(listener) for _ in range(3)]
            for one in waiting:
                one.send_bytes(RawPeer.request())
            for pause in range(1, 4):
                settle(loop)
                assert sock.tried == pause
                peer.text(f"{pause}")
                service.expect("on_text", f"{pause}")
                caller.send_text("and back")
                peer.read()
                assert sock.tried == pause  # in between it does not try
                if pause == 3:
                    sock.failing = False
                clock.leap(0.6)
            for one in waiting:
                assert one.read_head().startswith(b"HTTP/1.1 101 ")
                service.expect("on_open")
            for one in waiting:
                one.abort()
                service.expect("on_close", 1006, "")
            peer.finish()
            service.expect("on_close", 1000, "")
    lines = news(caplog)
    assert [line.levelno for line in lines] == [logging.ERROR] * 3
    for line in lines:
        assert line.getMessage() == (
            f"cannot accept connections, trying again in 0.5 s: [Errno {code}] {os.strerror(code)}"
        )


# -- The selector ------------------------------------------------------------


class NoRoom:
    """Has the selector refuse the sockets that `refuses` says."""

    def __init__(self, loop: Any, refuses: Callable[[Any], bool], code: int) -> None:
        self._register = loop.register
        self._refuses = refuses
        self._error = OSError(code, os.strerror(code))
        self.times = 0
        loop.register = self

    def __call__(self, fileobj: Any, mask: int, handler: Any) -> None:
        if self._refuses(handler):
            self.times += 1
            raise self._error
        self._register(fileobj, mask, handler)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM], ids=["ENOSPC", "ENOMEM"])
def test_the_selector_refuses_a_client(code: int) -> None:
    """It is hung up on, the next one is served, and the listener stops as ever."""
    service = ServerRecorder()
    with clocked() as (engine, clock), listening(service, engine=engine) as listener:
        room = NoRoom(listener._loop, lambda one: isinstance(one, Opening) and room.times < 2, code)
        for _ in range(2):
            with RawPeer.dial(listener) as peer:
                peer.expect_end()
            clock.leap(0.6)
        serves_on(f"ws://127.0.0.1:{listener.port}/", service)
        stopping = Task(listener.stop, 2 * HANG)
        stopping.result()  # it does not wait for them
    assert service.calls.empty()


def test_the_selector_refuses_a_listener_that_has_paused() -> None:
    """It pauses once more: a listener that nobody hears of would be deaf for ever."""
    service = ServerRecorder()
    with clocked() as (engine, clock), listening(service, engine=engine) as listener:
        clock.stop()  # or a pause might end by itself
        acceptor = acceptor_of(listener)
        sock = Failing(acceptor._sock, errno.EMFILE)
        acceptor._sock = sock  # type: ignore[assignment]
        with RawPeer.dial(listener) as peer:
            assert listener._loop is not None
            settle(listener._loop)
            sock.failing = False
            room = NoRoom(listener._loop, lambda handler: room.times < 2, errno.ENOMEM)
            for pause in range(3):
                assert room.times == pause
                clock.leap(0.6)
            peer.send_bytes(RawPeer.request())
            assert peer.read_head().startswith(b"HTTP/1.1 101 ")
            service.expect("on_open")


def test_the_selector_refuses_a_clients_connection() -> None:
    with clocked() as (engine, _), RawServer() as server:
        loop = engine.acquire()
        room = NoRoom(loop, lambda handler: True, errno.ENOSPC)
        opening = server.open_client(engine=engine)
        with server.accept() as peer:
            peer.answer()
            client = opening.result()
            error = closed_error(lambda: client.receive(timeout=HANG))
            assert isinstance(error.__cause__, OSError)
            assert error.__cause__.errno == errno.ENOSPC
            assert not client.is_open
            peer.expect_end()
        assert client.wait_closed(HANG)
        client.close()
        assert room.times == 1
        engine.release(loop)


# -- A client's own ----------------------------------------------------------

_CLIENT = """
import os, resource, sys, threading, warnings, syncws
warnings.simplefilter("error")
url = sys.argv[1]
with syncws.Client(url) as client: pass  # what is imported late is imported now
def descriptors():
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
before = descriptors()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for extra in range(10):
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[-1] + 1 + extra, hard))
    try:
        client = syncws.Client(url)
    except syncws.ConnectError as exc:
        print(extra, "ConnectError", exc)
        del exc
    except BaseException as exc:
        print(extra, "wrong", repr(exc))
    else:
        client.send_text("x")
        client.close()
        print(extra, "connected")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if (left := descriptors()) != before or threading.active_count() > 1:
        print("left", left, threading.enumerate())
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")
def test_a_client_that_has_no_descriptors_left_says_so() -> None:
    """However many it still gets, up to those that it needs."""
    with listening(ServerRecorder()) as listener:
        url = f"ws://127.0.0.1:{listener.port}/"
        with interpreter(_CLIENT, url) as process:
            lines = [process.line() for _ in range(10)]
            assert process.end() == (0, "")
        connected = [line for line in lines if line.endswith(" connected")]
        failed = lines[: -len(connected)]
        assert len(failed) >= 3
        assert connected == [f"{extra} connected" for extra in range(len(failed), 10)]
        for extra, line in enumerate(failed):
            where = "connecting with 127.0.0.1 port [0-9]+ failed|the engine cannot be started"
            assert re.fullmatch(f"{extra} ConnectError ({where}): Too many open files", line), lines


def test_a_listener_whose_thread_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left open, and it may start later."""
    listener = syncws.Listener(0, engine=syncws.Engine())
    with monkeypatch.context() as patch:
        patch.setattr("syncws.engine.loop.threading.Thread.start", _no_thread)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            listener.start()
    service = ServerRecorder()
    listener.attach("/", service)
    with listener:
        serves_on(f"ws://127.0.0.1:{listener.port}/", service)


def _no_thread(thread: object) -> None:
    raise RuntimeError("can't start new thread")


def test_a_client_whose_thread_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = syncws.Engine()
    with listening(ServerRecorder()) as listener:
        url = f"ws://127.0.0.1:{listener.port}/"
        with monkeypatch.context() as patch:
            patch.setattr("syncws.engine.loop.threading.Thread.start", _no_thread)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                syncws.Client(url, engine=engine)
        assert engine.stats().users == 0
        with syncws.Client(url, engine=engine) as client:
            client.send_text("x")
