"""Sockets that never block: what all of them do, and plain ones; `tls` has the others.

`receive` returns -1 and `send` 0 where a blocking socket would wait. With
TLS, reading may need the socket writable and writing may need it readable;
`wants_write` and `wants_read` say so until the operation has succeeded.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable
from typing import Any, Protocol

from ..native import extension
from ..protocol.events import Event
from ..protocol.kernels import frame, read_frames

__all__ = [
    "Buffer",
    "FastTransport",
    "PlainTransport",
    "Transport",
    "make_transport",
]

#: What bytes are received to.
Buffer = bytearray | memoryview

#: Gives events if all that has come were plain frames; those, where they end
#: and where the bytes end, if more has; or what `Transport.receive` returns.
FrameReceiver = Callable[[bytearray], list[Event] | tuple[list[Event], int, int] | int]

_extension: Any = extension

# Chunks handed to one sendmsg, well below any system's IOV_MAX.
_MAX_CHUNKS = 64


class Transport(Protocol):
    """A connected socket in non-blocking mode."""

    @property
    def sock(self) -> socket.socket:
        """The socket, for a selector and for addresses."""

    @property
    def secure(self) -> bool:
        """Whether it is TLS."""

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The peer's certificate, if it was asked for one and has shown it."""

    @property
    def wants_read(self) -> bool:
        """Whether writing waits for the socket to be readable."""

    @property
    def wants_write(self) -> bool:
        """Whether reading waits for the socket to be writable."""

    def frame_receiver(self, frames: tuple[int, int, int, type[Event]]) -> FrameReceiver | None:
        """Return what receives and reads `Decoder.plain_frames` in one go, if this can."""

    def handshake(self) -> bool:
        """Go on with the TLS handshake; return whether it is done."""

    def receive(self, buffer: Buffer) -> int:
        """Take what has come; return how many bytes, 0 at the end, or -1 if nothing has."""

    def send(self, data: bytes | memoryview) -> int:
        """Write a part of `data`; return how many bytes were taken."""

    def send_frame(self, first: int, payload: bytes, key: bytes | None) -> bytes | None:
        """Write a frame as `kernels.frame` makes it; return what was not taken, or None."""

    def send_many(self, chunks: list[bytes | memoryview]) -> int:
        """Write a part of `chunks` in order; return how many bytes were taken."""

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more comes."""

    def close(self) -> None:
        """End the connection and release the descriptor."""

    def abandon(self) -> None:
        """Release the descriptor only: the connection belongs to another process."""


class PlainTransport:
    """A TCP or Unix-domain socket."""

    __slots__ = ("_ended", "sock")

    secure = False
    peer_certificate = None
    wants_read = False
    wants_write = False

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._ended = False  # the peer knows that nothing more comes

    def frame_receiver(self, frames: tuple[int, int, int, type[Event]]) -> FrameReceiver | None:
        """Return what receives and reads `Decoder.plain_frames` in one go."""
        return functools.partial(_receive_frames, self.sock, *frames)

    def handshake(self) -> bool:
        """Nothing to do."""
        return True

    def receive(self, buffer: Buffer) -> int:
        """Take what has come; return how many bytes, 0 at the end, or -1 if nothing has."""
        try:
            return self.sock.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return -1

    def send(self, data: bytes | memoryview) -> int:
        """Write a part of `data`; return how many bytes were taken."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def send_frame(self, first: int, payload: bytes, key: bytes | None) -> bytes | None:
        """Write a frame as `kernels.frame` makes it; return what was not taken, or None."""
        data = frame(first, payload, key)
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return data
        return None if sent == len(data) else data[sent:]

    def send_many(self, chunks: list[bytes | memoryview]) -> int:
        """Write a part of `chunks` in order; return how many bytes were taken."""
        try:
            return self.sock.sendmsg(chunks[:_MAX_CHUNKS])
        except (BlockingIOError, InterruptedError):
            return 0

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more comes."""
        self._ended = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection and release the descriptor.

        The shutdown reaches the peer even if another process still holds a
        copy of the descriptor.
        """
        if not self._ended:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def abandon(self) -> None:
        """Release the descriptor only: the connection belongs to another process."""
        self.sock.close()


def _receive_frames(
    sock: socket.socket,
    mask_bit: int,
    limit: int,
    most: int,
    event_type: type[Event],
    buffer: bytearray,
) -> list[Event] | tuple[list[Event], int, int] | int:
    """What `FrameReceiver` says; the C extension has a twin."""
    try:
        size = sock.recv_into(buffer)
    except (BlockingIOError, InterruptedError):
        return -1
    if not size:
        return 0
    events: list[Event] = []
    pos = read_frames(buffer, 0, size, mask_bit, limit, most, event_type, events)
    return events if pos == size else (events, pos, size)


class FastTransport(PlainTransport):
    """The same, but small reads and writes keep the interpreter lock.

    They take microseconds, since the socket never blocks; to give the lock up
    and to get it back from another thread takes longer.
    """

    __slots__ = ("_fd", "send", "send_frame")

    # No methods: calls of them go straight into the C extension.
    send: Callable[[bytes | memoryview], int]  # type: ignore[assignment]
    send_frame: Callable[[int, bytes, bytes | None], bytes | None]  # type: ignore[assignment]

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._use(sock.fileno())

    def _use(self, fd: int) -> None:
        self._fd = fd
        self.send = functools.partial(_extension.send, fd)
        self.send_frame = functools.partial(_extension.send_frame, fd)

    def frame_receiver(self, frames: tuple[int, int, int, type[Event]]) -> FrameReceiver | None:
        """Return what receives, and reads those frames of it that `kernels.read_frames` reads."""
        return functools.partial(_extension.receive_frames, self._fd, *frames)

    def receive(self, buffer: Buffer) -> int:
        """Take what has come; return how many bytes, 0 at the end, or -1 if nothing has."""
        size: int = _extension.receive(self._fd, buffer)
        return size

    def send_many(self, chunks: list[bytes | memoryview]) -> int:
        """Write a part of `chunks` in order; return how many bytes were taken."""
        sent: int = _extension.send_many(self._fd, chunks)
        return sent

    def close(self) -> None:
        """End the connection and release the descriptor, which may be another's from now on."""
        self._use(-1)
        super().close()

    def abandon(self) -> None:
        """Release the descriptor only: the connection belongs to another process."""
        self._use(-1)
        super().abandon()


class _SecurePlainTransport(PlainTransport):
    """One whose TLS ends before it."""

    __slots__ = ()
    secure = True


class _SecureFastTransport(FastTransport):
    """One whose TLS ends before it."""

    __slots__ = ()
    secure = True


def make_transport(sock: socket.socket, *, secure: bool = False) -> Transport:
    """Return the transport without TLS for a connected socket, which becomes non-blocking.

    Args:
        sock: The socket.
        secure: Whether somebody else sees to TLS.
    """
    sock.setblocking(False)
    # Windows has none, and what is no socket of the system's has no descriptor.
    fast = hasattr(extension, "receive") and isinstance(sock, socket.socket)
    if secure:
        return _SecureFastTransport(sock) if fast else _SecurePlainTransport(sock)
    return FastTransport(sock) if fast else PlainTransport(sock)
