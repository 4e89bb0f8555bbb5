"""WebSocket by hand, as little of it as a benchmark needs. RFC 6455."""

from __future__ import annotations

import os
import socket
import struct

__all__ = [
    "BINARY",
    "CLOSE",
    "TEXT",
    "client_frame",
    "dial",
    "header",
    "open_websocket",
    "receive_exactly",
    "receive_frame",
    "request",
    "xor",
]

TEXT = 1
BINARY = 2
CLOSE = 8

# Not in the standard library before Python 3.12.
_IP_BIND_ADDRESS_NO_PORT = 24

# Source addresses among which connections are spread, each with its own ports.
_SOURCES = 100


def header(opcode: int, size: int, *, masked: bool = False, compressed: bool = False) -> bytes:
    """Return the head of a frame, without the mask."""
    first = 0x80 | (0x40 if compressed else 0) | opcode
    mask = 0x80 if masked else 0
    if size < 126:
        return bytes((first, mask | size))
    if size < 65536:
        return struct.pack("!BBH", first, mask | 126, size)
    return struct.pack("!BBQ", first, mask | 127, size)


def xor(data: bytes, mask: bytes) -> bytes:
    """Mask or unmask."""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def client_frame(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """Return a masked frame."""
    mask = os.urandom(4)
    head = header(opcode, len(payload), masked=True, compressed=compressed)
    return head + mask + xor(payload, mask)


def request(port: int, extensions: str = "") -> bytes:
    """Return an opening handshake for "/"."""
    offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    return (
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Version: 13\r\n{offer}\r\n"
    ).encode()


def dial(index: int = 0) -> socket.socket:
    """Return a socket that is not connected yet, bound to one of many local addresses."""
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((f"127.0.0.{2 + index % _SOURCES}", 0))
    return sock


def open_websocket(
    port: int, index: int = 0, extensions: str = "", timeout: float = 30.0
) -> tuple[socket.socket, bytes]:
    """Open a connection; return its blocking socket and the response's head.

    Raises:
        ConnectionError: The server did not say 101.
    """
    sock = dial(index)
    try:
        sock.settimeout(timeout)
        sock.connect(("127.0.0.1", port))
        sock.sendall(request(port, extensions))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = sock.recv(1)
            if not data:
                raise ConnectionError("closed amid the handshake")
            head += data
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(f"the handshake was answered with {head[:40]!r}")
    except BaseException:
        sock.close()
        raise
    return sock, head


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """Return that many bytes."""
    parts = []
    while size:
        data = sock.recv(min(size, 262144))
        if not data:
            raise ConnectionError("the server closed the connection")
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def receive_frame(sock: socket.socket) -> tuple[int, bytes]:
    """Return the first byte and the payload of a frame from a server.

    Raises:
        ConnectionError: It is a close frame, or there is none.
    """
    first, size = receive_exactly(sock, 2)
    if size == 126:
        (size,) = struct.unpack("!H", receive_exactly(sock, 2))
    elif size == 127:
        (size,) = struct.unpack("!Q", receive_exactly(sock, 8))
    payload = receive_exactly(sock, size)
    if first == 0x80 | CLOSE:
        raise ConnectionError(f"the server closed the connection with {payload!r}")
    return first, payload
