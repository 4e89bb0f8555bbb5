"""Connections on which nothing happens."""

from __future__ import annotations

import contextlib
import socket
import time

from ..process import memory_kib, threads
from ..wire import BINARY, client_frame, open_websocket, receive_frame
from ..workloads import Workload
from . import Figures, Server

__all__ = ["measure"]

# Seconds in which a server comes to rest.
_SETTLE = 0.5

# Connections that are opened, used and closed first, so that what a server
# needs once is not counted.
_REHEARSAL = 20


def measure(workload: Workload, server: Server, seconds: float) -> Figures:
    """Measure the memory of a connection, and the threads."""
    frame = client_frame(BINARY, b"x" * workload.size)
    with contextlib.ExitStack() as stack:
        for index in range(_REHEARSAL):
            with open_websocket(server.port, index)[0] as sock:
                _echo(sock, frame)
        first = stack.enter_context(open_websocket(server.port)[0])
        _echo(first, frame)
        time.sleep(_SETTLE)
        memory, threads_one = memory_kib(server.pid), threads(server.pid)
        socks = [
            stack.enter_context(open_websocket(server.port, index)[0])
            for index in range(workload.connections)
        ]
        time.sleep(_SETTLE)
        opened, threads_all = memory_kib(server.pid), threads(server.pid)
        for sock in socks:
            _echo(sock, frame)
        time.sleep(_SETTLE)
        used = memory_kib(server.pid)
    return {
        "kib": (opened - memory) / workload.connections,
        "kib_used": (used - memory) / workload.connections,
        "threads_one": threads_one,
        "threads": threads_all,
    }


def _echo(sock: socket.socket, frame: bytes) -> None:
    sock.sendall(frame)
    receive_frame(sock)
