"""TLS that a WSGI server speaks, for a WebSocket that the engine has."""

from __future__ import annotations

import socket

from .hosts import Host

__all__ = ["relay"]


def relay(host: Host, sock: socket.socket) -> None:
    """Carry bytes between a host's TLS and a socket until both ways have ended."""
    raise NotImplementedError
