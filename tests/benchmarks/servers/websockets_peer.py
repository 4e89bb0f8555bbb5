"""websockets: its threaded server, and its asyncio server on asyncio's own loop."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from websockets.asyncio.server import ServerConnection as AsyncConnection
from websockets.asyncio.server import broadcast
from websockets.asyncio.server import serve as asyncio_serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.sync.server import ServerConnection as SyncConnection
from websockets.sync.server import serve as sync_serve

from ..workloads import Workload
from . import BACKLOG, MAX_SIZE, announce


def _options(workload: Workload) -> dict[str, Any]:
    factory = ServerPerMessageDeflateFactory(
        server_max_window_bits=12,
        client_max_window_bits=12,
        compress_settings={"memLevel": 5, "level": 6},
    )
    return {
        "compression": None,
        "extensions": [factory] if workload.deflate else None,
        "max_size": MAX_SIZE,
        "ping_interval": None,
    }


def _echo(connection: SyncConnection) -> None:
    for message in connection:
        connection.send(message)


def _sleep(connection: SyncConnection) -> None:
    for message in connection:
        if isinstance(message, str):
            time.sleep(float(message))
        connection.send(message)


def serve_sync(workload: Workload) -> None:
    """Serve with a thread per connection until killed."""
    handler = {"echo": _echo, "sleep": _sleep}[workload.mode]
    sock = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    with sync_serve(handler, sock=sock, **_options(workload)) as server:
        announce(sock.getsockname()[1])
        server.serve_forever()


async def _async_echo(connection: AsyncConnection) -> None:
    async for message in connection:
        await connection.send(message)


_members: set[AsyncConnection] = set()


async def _async_broadcast(connection: AsyncConnection) -> None:
    async for message in connection:
        if isinstance(message, str):
            _members.add(connection)
            await connection.send(message)
        else:
            broadcast(_members, message)


def serve_asyncio(workload: Workload) -> None:
    """Serve until killed."""
    handler = {"echo": _async_echo, "broadcast": _async_broadcast}[workload.mode]

    async def run() -> None:
        sock = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        options = _options(workload)
        async with asyncio_serve(handler, sock=sock, backlog=BACKLOG, **options) as server:
            announce(sock.getsockname()[1])
            await server.serve_forever()

    asyncio.run(run())
