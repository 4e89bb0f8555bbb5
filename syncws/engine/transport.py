"""Sockets that never block, plain or TLS, behind one interface.

`receive` returns None and `send` 0 where a blocking socket would wait. With
TLS, reading may need the socket writable and writing may need it readable;
`wants_write` and `wants_read` say so until the operation has succeeded.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from collections import deque
from typing import Protocol

__all__ = ["PlainTransport", "TLSTransport", "Transport", "make_transport"]

# Chunks handed to one sendmsg, well below any system's IOV_MAX.
_MAX_CHUNKS = 64

# Bytes that one TLS write may join: one record's payload. RFC 8446 section 5.1.
_TLS_RECORD = 16_384


class Transport(Protocol):
    """A connected socket in non-blocking mode."""

    @property
    def sock(self) -> socket.socket:
        """The socket, for a selector and for addresses."""

    @property
    def secure(self) -> bool:
        """Whether it is TLS."""

    @property
    def wants_read(self) -> bool:
        """Whether writing waits for the socket to be readable."""

    @property
    def wants_write(self) -> bool:
        """Whether reading waits for the socket to be writable."""

    def handshake(self) -> bool:
        """Go on with the TLS handshake; return whether it is done."""

    def receive(self, size: int) -> bytes | None:
        """Return what has come, b"" at the end, or None if nothing has."""

    def send(self, data: bytes | memoryview) -> int:
        """Write a part of `data`; return how many bytes were taken."""

    def send_many(self, chunks: deque[bytes | memoryview]) -> int:
        """Write a part of `chunks` in order; return how many bytes were taken."""

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more comes."""

    def close(self) -> None:
        """End the connection and release the descriptor."""

    def abandon(self) -> None:
        """Release the descriptor only: the connection belongs to another process."""


class PlainTransport:
    """A TCP or Unix-domain socket."""

    __slots__ = ("sock",)

    secure = False
    wants_read = False
    wants_write = False

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def handshake(self) -> bool:
        """Nothing to do."""
        return True

    def receive(self, size: int) -> bytes | None:
        """Return what has come, b"" at the end, or None if nothing has."""
        try:
            return self.sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return None

    def send(self, data: bytes | memoryview) -> int:
        """Write a part of `data`; return how many bytes were taken."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def send_many(self, chunks: deque[bytes | memoryview]) -> int:
        """Write a part of `chunks` in order; return how many bytes were taken."""
        if len(chunks) == 1:
            return self.send(chunks[0])
        try:
            return self.sock.sendmsg(itertools.islice(chunks, _MAX_CHUNKS))
        except (BlockingIOError, InterruptedError):
            return 0

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more comes."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection and release the descriptor.

        The shutdown reaches the peer even if another process still holds a
        copy of the descriptor.
        """
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def abandon(self) -> None:
        """Release the descriptor only: the connection belongs to another process."""
        self.sock.close()


class TLSTransport:
    """A TLS socket.

    An SSL object must not be read and written by two threads at once, hence
    the lock; no operation under it waits for the network.
    """

    __slots__ = ("_lock", "sock", "wants_read", "wants_write")

    secure = True
    sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self.wants_read = False
        self.wants_write = False
        self._lock = threading.Lock()

    def handshake(self) -> bool:
        """Go on with the TLS handshake; return whether it is done.

        Raises:
            OSError: The handshake has failed (`ssl.SSLError`) or TCP has.
        """
        self.wants_read = self.wants_write = False
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            self.wants_read = True
            return False
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return False
        return True

    def receive(self, size: int) -> bytes | None:
        """Return what has come, b"" at the end, or None if nothing has.

        Takes whatever the TLS layer has decrypted already, too: the selector
        does not tell of it.
        """
        with self._lock:
            self.wants_write = False
            parts: list[bytes] = []
            try:
                parts.append(self.sock.recv(size))
                while parts[-1] and self.sock.pending():
                    parts.append(self.sock.recv(self.sock.pending()))
            except (ssl.SSLWantReadError, BlockingIOError, InterruptedError):
                # Behind shutdown_write the socket is a plain one again.
                pass
            except ssl.SSLWantWriteError:
                self.wants_write = True
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                parts.append(b"")
            return b"".join(parts) if parts else None

    def send(self, data: bytes | memoryview) -> int:
        """Write a part of `data`; return how many bytes were taken.

        After 0 the next call must begin with the same bytes and be no
        shorter: the TLS layer may have encrypted them already.
        """
        with self._lock:
            self.wants_read = False
            try:
                return self.sock.send(data)
            except ssl.SSLWantWriteError:
                return 0
            except ssl.SSLWantReadError:
                self.wants_read = True
                return 0

    def send_many(self, chunks: deque[bytes | memoryview]) -> int:
        """Write a part of `chunks` in order; return how many bytes were taken.

        Small chunks are joined into one record, and stay joined, so that a
        repeated write is never shorter.
        """
        if len(chunks) > 1 and len(chunks[0]) + len(chunks[1]) <= _TLS_RECORD:
            joined = [chunks.popleft()]
            size = len(joined[0])
            while chunks and size + len(chunks[0]) <= _TLS_RECORD:
                size += len(chunks[0])
                joined.append(chunks.popleft())
            chunks.appendleft(b"".join(joined))
        return self.send(chunks[0])

    def shutdown_write(self) -> None:
        """Send TLS's close_notify, and tell the peer that nothing more comes."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            # Waits for the peer's close_notify; one try sends ours.
            self.sock.unwrap()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection and release the descriptor."""
        with self._lock:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()

    def abandon(self) -> None:
        """Release the descriptor only: the connection belongs to another process."""
        self.sock.close()


def make_transport(sock: socket.socket) -> Transport:
    """Return the transport for a connected socket, which becomes non-blocking."""
    sock.setblocking(False)
    return TLSTransport(sock) if isinstance(sock, ssl.SSLSocket) else PlainTransport(sock)
