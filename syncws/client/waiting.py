"""Sockets that never block, waited for until one deadline that all steps of an attempt share."""

from __future__ import annotations

import selectors
import socket
import ssl
from typing import Any

from ..engine.tls import TLSTransport
from ..engine.transport import Transport
from ..timing import Deadline

__all__ = ["remaining", "secure", "send_all", "wait", "wait_for"]


def remaining(deadline: Deadline) -> float | None:
    """Return the seconds left, None if there is no deadline.

    Raises:
        TimeoutError: There are none.
    """
    seconds = deadline.remaining()
    if seconds == 0.0:
        raise TimeoutError
    return seconds


def wait(sock: Any, writable: bool, deadline: Deadline) -> None:
    """Wait until the socket can be written to or, if not `writable`, read from.

    Raises:
        TimeoutError: It was not in time.
    """
    if not isinstance(sock, socket.socket):  # of a network that is none of the system's
        if not sock.wait_ready(writable, remaining(deadline)):
            raise TimeoutError
        return
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE if writable else selectors.EVENT_READ)
        if not selector.select(remaining(deadline)):
            raise TimeoutError


def send_all(transport: Transport, data: bytes, deadline: Deadline) -> None:
    """Send bytes, all of them."""
    rest = memoryview(data)
    while rest := rest[transport.send(rest) :]:
        wait(transport.sock, not transport.wants_read, deadline)


def wait_for(transport: Transport, buffer: bytearray, deadline: Deadline) -> bytes:
    """Return what comes next, b"" at the end or after a reset."""
    while True:
        try:
            size = transport.receive(buffer)
        except ConnectionResetError:
            size = 0
        if size >= 0:
            remaining(deadline)  # there may always be something to read
            return bytes(buffer[:size])
        wait(transport.sock, transport.wants_write, deadline)


def secure(
    wire: socket.socket | TLSTransport,
    context: ssl.SSLContext,
    name: str,
    deadline: Deadline,
    received: bytes = b"",
) -> TLSTransport:
    """Return what was connected after its TLS handshake.

    Args:
        wire: A socket, or the TLS connection that the new one is to be in.
        context: The certificates.
        name: The server's.
        deadline: That of the attempt.
        received: What has come of the new connection already.
    """
    transport = TLSTransport(wire, context, server_hostname=name, received=received)
    while not transport.handshake():
        wait(transport.sock, transport.wants_write, deadline)
    return transport
