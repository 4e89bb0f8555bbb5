"""What the clients are told to do, and how each of them does it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

from ..wire import BINARY, TEXT, client_frame, header, open_websocket, receive_frame
from ..workloads import MIB

__all__ = ["CONNECT", "Connection"]

_MAX_SIZE = 4 * MIB
_MESSAGE = b"x" * 32


class Connection(Protocol):
    """A connection to one of the servers in `picows_peer`."""

    def exchange(self, payload: bytes) -> bytes:
        """Send a message and return what comes back."""

    def roundtrip(self, payload: bytes) -> object:
        """Do the same for the clock, always with the same message."""

    def receive_burst(self, count: int) -> None:
        """Ask for so many messages and receive them."""

    def send_burst(self, count: int) -> None:
        """Send so many messages and wait until the server has them."""


class Library:
    """A connection of a library."""

    def __init__(
        self,
        send_text: Callable[[str], object],
        send: Callable[[bytes], object],
        receive: Callable[[], Any],
    ) -> None:
        self._send_text = send_text
        self._send = send
        self._receive = receive

    def roundtrip(self, payload: bytes) -> Any:
        self._send(payload)
        return self._receive()

    exchange = roundtrip

    def receive_burst(self, count: int) -> None:
        self._send_text(str(count))
        receive = self._receive
        for _ in range(count):
            receive()

    def send_burst(self, count: int) -> None:
        self._send_text(str(count))
        send = self._send
        for _ in range(count):
            send(_MESSAGE)
        if self._receive() != str(count):
            raise ValueError("the server has counted other messages")


class RawSocket:
    """A bare blocking socket, with frames made beforehand; the least that Python can do."""

    def __init__(self, port: int) -> None:
        self._sock, _ = open_websocket(port)
        self._sock.settimeout(None)
        self._frame = client_frame(BINARY, _MESSAGE)
        self._buffer = bytearray(262144)
        self._expected = 0

    def exchange(self, payload: bytes) -> bytes:
        self._frame = client_frame(BINARY, payload)
        self._expected = len(header(BINARY, len(payload))) + len(payload)
        self._sock.sendall(self._frame)
        return receive_frame(self._sock)[1]

    def roundtrip(self, payload: bytes) -> None:
        self._sock.sendall(self._frame)
        self._sock.recv_into(self._buffer, self._expected, socket.MSG_WAITALL)

    def receive_burst(self, count: int) -> None:
        self._sock.sendall(client_frame(TEXT, str(count).encode()))
        left = count * (len(header(BINARY, len(_MESSAGE))) + len(_MESSAGE))
        while left:
            left -= self._sock.recv_into(self._buffer, min(left, len(self._buffer)))

    def send_burst(self, count: int) -> None:
        number = str(count).encode()
        self._sock.sendall(client_frame(TEXT, number))
        send, frame = self._sock.sendall, self._frame
        for _ in range(count):
            send(frame)
        if receive_frame(self._sock)[1] != number:
            raise ValueError("the server has counted other messages")


def _url(port: int) -> str:
    return f"ws://127.0.0.1:{port}/"


def _syncws(port: int) -> Connection:
    import syncws

    client = syncws.Client(
        _url(port), compression=False, ping_interval=None, max_message_size=_MAX_SIZE
    )
    return Library(client.send_text, client.send_binary, client.receive)


def _websocket_client(port: int) -> Connection:
    import websocket

    client = websocket.create_connection(_url(port))
    return Library(client.send, client.send_binary, client.recv)


def _websockets_sync(port: int) -> Connection:
    from websockets.sync.client import connect

    client = connect(
        _url(port), compression=None, ping_interval=None, max_size=_MAX_SIZE, proxy=None
    )
    return Library(client.send, client.send, client.recv)


def _simple_websocket(port: int) -> Connection:
    from simple_websocket import Client

    client = Client.connect(_url(port), max_message_size=_MAX_SIZE)
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Library(client.send, client.send, client.receive)


CONNECT: dict[str, Callable[[int], Connection]] = {
    "raw-socket": RawSocket,
    "syncws": _syncws,
    "syncws-pure": _syncws,
    "websocket-client": _websocket_client,
    "websockets-sync": _websockets_sync,
    "simple-websocket": _simple_websocket,
}
