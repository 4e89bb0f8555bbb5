"""simple-websocket under Werkzeug's threaded server, as Flask-Sock has it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from simple_websocket import ConnectionClosed, Server
from werkzeug.serving import WSGIRequestHandler, make_server

from ..workloads import Workload
from . import MAX_SIZE, announce


class Handler(WSGIRequestHandler):
    """A quiet one."""

    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing."""


def _echo(connection: Server) -> None:
    while True:
        connection.send(connection.receive())


def _sleep(connection: Server) -> None:
    while True:
        message = connection.receive()
        if isinstance(message, str):
            time.sleep(float(message))
        connection.send(message)


_lock = threading.Lock()
_members: tuple[Server, ...] = ()


def _broadcast(connection: Server) -> None:
    global _members
    while True:
        message = connection.receive()
        if isinstance(message, str):
            with _lock:
                _members += (connection,)
            connection.send(message)
        else:
            for member in _members:
                member.send(message)


def serve(workload: Workload) -> None:
    """Serve until killed."""
    handle = {"echo": _echo, "sleep": _sleep, "broadcast": _broadcast}[workload.mode]

    def application(
        environ: dict[str, Any], start_response: Callable[..., object]
    ) -> Iterable[bytes]:
        connection = Server.accept(environ, max_message_size=MAX_SIZE)
        try:
            handle(connection)
        except ConnectionClosed:
            pass
        # Nothing must be answered any more; the server drops the connection quietly.
        raise ConnectionError

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    announce(server.port)
    server.serve_forever()
