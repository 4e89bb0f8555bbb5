"""TLS on a socket that never blocks.

The TLS layer works in memory here: what it reads was received before, and what
it writes is sent after. On a socket of its own it would go on, within one call,
for as long as messages come that are no data, and a peer that sends nothing
else, such as updates of keys, would have the I/O thread to itself.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any

from ..protocol.events import Event
from ..protocol.kernels import frame
from .transport import Buffer, FrameReceiver

__all__ = ["ROOM", "TLSTransport"]

# Bytes received at once: the longest record there may be. RFC 5246 section 6.2.3.
_RECEIVED = 16_384 + 2048 + 5

# Bytes that one record carries. RFC 8446 section 5.1.
_RECORD = 16_384

#: Bytes for which a buffer to `receive` must have room: the part of a record
#: that had come before, and as much as is received at once.
ROOM = 2 * _RECEIVED

# Bytes that wait to be sent above which nothing is received, for the peer may
# ask for answers that it does not take.
_WAITING = 65_536

# Bytes without any data among them after which the peer has no honest purpose.
_EMPTY = 131_072


class _Within:
    """What a TLS connection within another one has in place of a socket."""

    __slots__ = ("_outer",)

    def __init__(self, outer: TLSTransport) -> None:
        self._outer = outer

    def recv(self, size: int) -> bytes:
        """Return what has come: all of it, for no selector would tell of the rest."""
        buffer = bytearray(ROOM)
        return bytes(memoryview(buffer)[: self.recv_into(buffer)])

    def recv_into(self, buffer: Buffer) -> int:
        """Take what has come; the buffer must have room for it, as the outer one says."""
        size = self._outer.receive(buffer)
        if size < 0:
            raise BlockingIOError
        return size

    def send(self, data: bytes | memoryview) -> int:
        """Write a part of `data`."""
        sent = self._outer.send(data)
        if not sent:
            raise BlockingIOError
        return sent

    def shutdown(self, how: int) -> None:
        """Tell the peer of the outer connection what that of the inner one was told."""
        if how == socket.SHUT_WR:
            self._outer.shutdown_write()

    def close(self) -> None:
        """End the outer connection."""
        self._outer.close()


class TLSTransport:
    """A TLS connection.

    An SSL object must not be read and written by two threads at once, hence
    the lock; no operation under it waits for the network.

    Args:
        sock: A connected socket, which becomes non-blocking; owned from now on.
            Or a TLS connection, to have another one in it.
        context: The certificates.
        server_side: Which end this is.
        server_hostname: The server's name, on a client.
        received: What has come of the connection already.

    Raises:
        OSError, ValueError: The context cannot be used; the socket is as it was.
    """

    __slots__ = (
        "_empty",
        "_ended",
        "_failure",
        "_in",
        "_lock",
        "_more",
        "_out",
        "_outer",
        "_rest",
        "_sealed",
        "_tls",
        "_wire",
        "sock",
        "wants_read",
        "wants_write",
    )

    secure = True

    def __init__(
        self,
        sock: socket.socket | TLSTransport,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        received: bytes = b"",
    ) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side, server_hostname)
        self._in.write(received)
        self._wire: socket.socket | _Within
        self._outer: TLSTransport | None
        self.sock: socket.socket
        if isinstance(sock, TLSTransport):
            self._outer, self._wire, self.sock = sock, _Within(sock), sock.sock
        else:
            sock.setblocking(False)
            self._outer, self._wire, self.sock = None, sock, sock
        self.wants_read = False
        self.wants_write = False

        # Guarded by _lock, as the TLS layer is.
        self._lock = threading.Lock()
        self._rest: bytes | memoryview = b""  # records that the socket has not taken yet
        self._sealed = 0  # bytes in these that `send` has not called taken
        self._empty = 0  # bytes received since there were data
        self._more = True  # of what was received, also with the handshake, there may be more
        self._ended = False  # nothing more is sent, and what comes is of no interest
        self._failure: OSError | None = None  # came behind some data, and is told next

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The peer's certificate, if it was asked for one and has shown it."""
        with self._lock:
            return self._tls.getpeercert() or None

    def frame_receiver(self, frames: tuple[int, int, int, type[Event]]) -> FrameReceiver | None:
        """Return None: this only receives."""
        return None

    # -- Between the TLS layer and the socket ----------------------------

    def _fill(self) -> bool:
        """Receive once; return whether something has come, the end included. Requires _lock."""
        try:
            data = self._wire.recv(_RECEIVED)
        except (BlockingIOError, InterruptedError):
            return False
        if data:
            self._in.write(data)
            self._empty += len(data)
        else:
            self._in.write_eof()
        return True

    def _flush(self) -> bool:
        """Send what waits; return whether that is all. Requires _lock."""
        while self._rest or self._out.pending:
            rest = self._rest or self._out.read()
            self._rest = rest
            try:
                sent = self._wire.send(rest)
            except (BlockingIOError, InterruptedError):
                return False
            self._rest = b"" if sent == len(rest) else memoryview(rest)[sent:]
        return True

    def _warn(self) -> None:
        """Send the alert that says what the peer did wrong, if it can be. Requires _lock."""
        with contextlib.suppress(OSError):
            self._flush()

    # -- What a transport does -------------------------------------------

    def handshake(self) -> bool:
        """Go on with the TLS handshake; return whether it is done.

        Raises:
            OSError: The handshake has failed (`ssl.SSLError`) or TCP has.
        """
        with self._lock:
            self.wants_read = self.wants_write = False
            done = self._shake() or (self._fill() and self._shake())
            if not self._flush():
                self.wants_write = True
                return False
            self.wants_read = not done
            if self._outer is not None and self._outer.wants_write:
                self.wants_write = True
            return done

    def _shake(self) -> bool:
        """Requires _lock."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            self._warn()
            raise
        return True

    def receive(self, buffer: Buffer) -> int:
        """Take what has come; return how many bytes, 0 at the end, or -1 if nothing has.

        Takes whatever is here, so `buffer` must have room for `ROOM` bytes:
        the selector tells only of what the system holds. If an end or an error
        came behind the bytes it is told by the next call, which
        `wants_write` asks for.

        Raises:
            OSError: The peer broke the rules (`ssl.SSLError`), or TCP is lost.
        """
        with self._lock:
            self.wants_write = False
            if self._ended:
                return self._drop(buffer)
            if self._failure is not None:
                raise self._failure
            if not self._flush() and self._waiting() > _WAITING:
                self.wants_write = True
                return -1
            size = self._open(buffer) if self._more else -1
            if size < 0 and self._fill():
                size = self._open(buffer)
            if size > 0:
                self._empty = 0
            elif self._empty > _EMPTY:
                raise ssl.SSLError("the peer sends messages of TLS without any data")
            if self._out.pending:
                self._warn()  # or answer: whatever the TLS layer has to say
            if self._outer is not None and self._outer.wants_write:
                self.wants_write = True
            return size

    def _waiting(self) -> int:
        return len(self._rest) + self._out.pending

    def _drop(self, buffer: Buffer) -> int:
        try:
            return self._wire.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return -1

    def _open(self, buffer: Buffer) -> int:
        """Return what `receive` does, of what was received. Requires _lock."""
        view = memoryview(buffer)
        size = 0
        self._more = True
        try:
            while got := self._tls.read(len(view) - size, view[size:]):
                size += got  # type: ignore[operator]
                if not (self._in.pending or self._tls.pending()):
                    self._more = False
                    return size
        except ssl.SSLWantReadError:
            self._more = False
            return size or -1
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass
        except ssl.SSLError as exc:
            self._warn()
            if not size:
                raise
            self._failure = exc
        self.wants_write = size > 0
        return size

    def send(self, data: bytes | memoryview) -> int:
        """Write a part of `data`; return how many bytes were taken.

        The next call must begin with those that were not taken, and with no
        fewer of them: they may be encrypted already.

        Raises:
            OSError: The connection is lost, or the end of writing was told.
        """
        with self._lock:
            self.wants_read = False
            if self._ended:
                raise BrokenPipeError("the end of writing was told")
            if not self._flush():
                self.wants_read = self._outer is not None and self._outer.wants_read
                return 0
            view = memoryview(data)
            taken, self._sealed = self._sealed, 0
            while taken < len(view):
                try:
                    size = self._tls.write(view[taken : taken + _RECORD])
                except ssl.SSLWantReadError:
                    self.wants_read = True
                    break
                if not self._flush():
                    self.wants_read = self._outer is not None and self._outer.wants_read
                    self._sealed = size
                    break
                taken += size
            return taken

    def send_frame(self, first: int, payload: bytes, key: bytes | None) -> bytes | None:
        """Write a frame as `kernels.frame` makes it; return what was not taken, or None."""
        data = frame(first, payload, key)
        sent = self.send(data)
        return None if sent == len(data) else data[sent:]

    def send_many(self, chunks: list[bytes | memoryview]) -> int:
        """Write a part of `chunks` in order; return how many bytes were taken.

        Small chunks are joined into one record, and stay joined, so that a
        repeated write is never shorter.
        """
        size = count = 0
        for chunk in chunks:
            size += len(chunk)
            if size > _RECORD:
                break
            count += 1
        if count > 1:
            chunks[:count] = [b"".join(chunks[:count])]
        return self.send(chunks[0])

    def shutdown_write(self) -> None:
        """Send TLS's close_notify, and tell the peer that nothing more comes."""
        with self._lock:
            self._ended = True
            with contextlib.suppress(OSError, ValueError):
                self._tls.unwrap()  # waits for the peer's; one try makes ours
            self._warn()
            with contextlib.suppress(OSError):
                self._wire.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection and release the descriptor."""
        with self._lock:
            self._ended = True
            with contextlib.suppress(OSError):
                self._wire.shutdown(socket.SHUT_RDWR)
            self._wire.close()

    def abandon(self) -> None:
        """Release the descriptor only: the connection belongs to another process."""
        self.sock.close()
