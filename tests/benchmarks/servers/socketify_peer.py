"""socketify, which is uWebSockets behind cffi."""

from __future__ import annotations

import socket

from socketify import App, AppListenOptions, CompressOptions, OpCode, WebSocket

from ..workloads import Workload
from . import MAX_SIZE, announce


def _echo(connection: WebSocket, message: str | bytes, opcode: OpCode) -> None:
    connection.send(message, opcode)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def serve(workload: Workload) -> None:
    """Serve until killed."""
    app = App()
    behavior = {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": MAX_SIZE,
        "max_backpressure": 4 * MAX_SIZE,
        "idle_timeout": 960,
        "message": _echo,
    }
    app.ws("/", behavior)
    port = _free_port()
    app.listen(AppListenOptions(port=port, host="127.0.0.1"), lambda _: announce(port))
    app.run()
