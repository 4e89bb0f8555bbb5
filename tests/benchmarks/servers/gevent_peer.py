"""gevent-websocket under gevent's pywsgi."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler

from ..workloads import Workload
from . import BACKLOG, announce


def _application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    connection = environ["wsgi.websocket"]
    while (message := connection.receive()) is not None:
        connection.send(message)
    return []


def serve(workload: Workload) -> None:
    """Serve until killed."""
    server = WSGIServer(
        ("127.0.0.1", 0),
        _application,
        handler_class=WebSocketHandler,
        log=None,
        error_log=None,
        backlog=BACKLOG,
    )
    server.start()
    announce(server.server_port)
    server.serve_forever()
