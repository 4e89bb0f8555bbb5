"""A bare loop over sockets: what any Python code must spend on an echo.

It knows the size of all messages, and looks at nothing else of a frame but
its first byte and its mask.
"""

from __future__ import annotations

import base64
import hashlib
import re
import selectors
import socket

from ..wire import BINARY, CLOSE, header, xor
from ..workloads import Workload
from . import BACKLOG, announce

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_CLOSE = header(CLOSE, 2) + (1000).to_bytes(2, "big")


class Peer:
    """A connection, upgraded by its first bytes."""

    def __init__(self, sock: socket.socket, size: int) -> None:
        self._sock = sock
        self._size = size
        self._head = header(BINARY, size)[1:]
        self._mask_at = 1 + len(self._head)
        self._frame_size = self._mask_at + 4 + size
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._open = False

    def read(self) -> bool:
        """Read once and answer; return whether there will be more."""
        try:
            data = self._sock.recv(262144)
        except ConnectionError:
            return False
        if not data:
            return False
        if data[0] == 0x88 and not self._rest:
            self._sock.sendall(_CLOSE)
            return False
        if not self._open:
            self._upgrade(data)
        elif self._rest_size + len(data) < self._frame_size:
            self._keep(data)
        else:
            self._echo(data)
        return True

    def _keep(self, data: bytes) -> None:
        self._rest.append(data)
        self._rest_size += len(data)

    def _echo(self, data: bytes) -> None:
        if self._rest:
            self._rest.append(data)
            data = b"".join(self._rest)
            self._rest.clear()
            self._rest_size = 0
        head, mask_at, frame_size = self._head, self._mask_at, self._frame_size
        replies: list[bytes] = []
        position = 0
        while len(data) - position >= frame_size:
            at = position + mask_at
            end = position + frame_size
            replies += (
                data[position : position + 1],
                head,
                xor(data[at + 4 : end], data[at : at + 4]),
            )
            position = end
        if position < len(data):
            self._keep(data[position:])
        self._sock.sendall(b"".join(replies))

    def _upgrade(self, data: bytes) -> None:
        found = re.search(rb"Sec-WebSocket-Key: *(\S+)", data, re.IGNORECASE)
        key = found[1] if found else b""
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        self._sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self._open = True


def serve(workload: Workload) -> None:
    """Serve until killed."""
    selector = selectors.DefaultSelector()
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as server:
        selector.register(server, selectors.EVENT_READ)
        announce(server.getsockname()[1])
        while True:
            for key, _ in selector.select():
                peer: Peer | None = key.data
                if peer is None:
                    sock, _ = server.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(sock, selectors.EVENT_READ, Peer(sock, workload.size))
                elif not peer.read():
                    selector.unregister(key.fileobj)
                    assert isinstance(key.fileobj, socket.socket)
                    key.fileobj.close()
