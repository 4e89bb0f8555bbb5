"""What tests of one half of a connection put in place of the other: transports, waits, encoders."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from syncws import native
from syncws.engine.outbound import Outbound
from syncws.engine.poller import EpollPoller, FastEpollPoller, Poller, SelectorPoller
from syncws.engine.transport import Buffer, FastTransport, FrameReceiver, PlainTransport
from syncws.protocol.encoder import Encoder
from syncws.protocol.events import Event
from syncws.protocol.kernels import frame
from tests.support import Gate

HANG = 30.0  # seconds after which a test is taken to hang

# What the C extension adds is left out where that is not in use: nothing is
# skipped then, test by test, of what there cannot be.
SOCKETS_IN_C = hasattr(native.extension, "receive")
EPOLL_IN_C = hasattr(native.extension, "epoll_wait")

# How a connection receives: bytes that it reads itself, or plain frames in one
# go; and whether that goes straight into the C extension.
WAYS = ["bytes", "frames", *(["fast"] if SOCKETS_IN_C else [])]

# Ways to wait for descriptors.
POLLERS: dict[str, type[Poller]] = {"selector": SelectorPoller}
if hasattr(select, "epoll"):
    POLLERS["epoll"] = EpollPoller
if EPOLL_IN_C:
    POLLERS["fast epoll"] = FastEpollPoller


class ScriptedTransport:
    """A transport that takes as much as the test wants, and fails when it wants."""

    def __init__(self, sock: socket.socket, way: str, *, secure: bool = False) -> None:
        sock.setblocking(False)
        self._inner = FastTransport(sock) if way == "fast" else PlainTransport(sock)
        self._by_frames = way != "bytes" and not secure
        self.sock = sock
        self.room: int | None = None  # bytes that it still takes; None: what the system takes
        self.send_error: OSError | None = None
        self.receive_error: OSError | None = None
        self.secure = secure
        self.wants_read = False
        self.wants_write = False
        self.sends = 0
        self.takes = 0  # by frames
        self.ends_of_writing = 0
        self.abandoned = False

    def frame_receiver(self, frames: tuple[int, int, int, type[Event]]) -> FrameReceiver | None:
        take = self._inner.frame_receiver(frames)
        if take is None or not self._by_frames:
            return None
        receiver = take

        def scripted(buffer: bytearray) -> list[Event] | tuple[list[Event], int, int] | int:
            self.takes += 1
            if self.receive_error is not None:
                raise self.receive_error
            return receiver(buffer)

        return scripted

    def handshake(self) -> bool:
        return True

    def receive(self, buffer: Buffer) -> int:
        if self.receive_error is not None:
            raise self.receive_error
        return self._inner.receive(buffer)

    def send(self, data: bytes | memoryview) -> int:
        self.sends += 1
        if self.send_error is not None:
            raise self.send_error
        if self.room is None:
            return self._inner.send(data)
        sent = self._inner.send(data[: self.room]) if self.room else 0
        self.room -= sent
        return sent

    def send_frame(self, first: int, payload: bytes, key: bytes | None) -> bytes | None:
        if self.room is None and self.send_error is None:
            self.sends += 1
            return self._inner.send_frame(first, payload, key)
        data = frame(first, payload, key)
        sent = self.send(data)
        return None if sent == len(data) else data[sent:]

    def send_many(self, chunks: list[bytes | memoryview]) -> int:
        if self.room is None and self.send_error is None:
            self.sends += 1
            return self._inner.send_many(chunks)
        return self.send(b"".join(chunks))

    def shutdown_write(self) -> None:
        self.ends_of_writing += 1
        self._inner.shutdown_write()

    def close(self) -> None:
        self._inner.close()

    def abandon(self) -> None:
        self.abandoned = True
        self._inner.abandon()


class TellingCondition(threading.Condition):
    """Tells of each thread that waits; once told, the lock is free when the thread sleeps."""

    def __init__(self, outbound: Outbound) -> None:
        super().__init__(outbound.lock)
        self.waiting: SimpleQueue[None] = SimpleQueue()
        self.woken: SimpleQueue[None] = SimpleQueue()
        outbound._condition = self

    def wait(self, timeout: float | None = None) -> bool:
        # The lock is held here; who wants to notify gets it only when wait() gives it up.
        self.waiting.put(None)
        try:
            return super().wait(timeout)
        finally:
            self.woken.put(None)


class Background:
    """A call in a thread, and its outcome."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self._outcome: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(call, args), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self._outcome.put(call(*args))
        except BaseException as exc:
            self._outcome.put(exc)

    def result(self) -> Any:
        outcome = self._outcome.get(timeout=HANG)
        self._thread.join(HANG)
        return outcome


class GatedEncoder:
    """An encoder that takes its time for messages."""

    def __init__(self, encoder: Encoder, gate: Gate) -> None:
        self._encoder = encoder
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def parts(self, *args: Any) -> tuple[bytes, ...]:
        self._gate.block()
        return self._encoder.parts(*args)


class DirectJournal:
    """Logs at once."""

    def write(self, log: logging.Logger, level: int, message: str, *args: object) -> None:
        log.log(level, message, *args)

    def call(self, call: Callable[..., None], *args: Any) -> None:
        call(*args)
