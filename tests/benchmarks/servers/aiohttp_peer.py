"""aiohttp, on asyncio's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from ..workloads import Workload
from . import BACKLOG, MAX_SIZE, announce

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _accept(workload: Workload) -> web.WebSocketResponse:
    return web.WebSocketResponse(compress=workload.deflate, max_msg_size=MAX_SIZE)


def _echo(workload: Workload) -> web.Application:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        connection = _accept(workload)
        await connection.prepare(request)
        async for message in connection:
            if message.type is WSMsgType.BINARY:
                await connection.send_bytes(message.data)
            else:
                await connection.send_str(message.data)
        return connection

    return _application(handle)


def _broadcast(workload: Workload) -> web.Application:
    members: list[web.WebSocketResponse] = []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        connection = _accept(workload)
        await connection.prepare(request)
        async for message in connection:
            if message.type is WSMsgType.BINARY:
                for member in members:
                    await member.send_bytes(message.data)
            else:
                members.append(connection)
                await connection.send_str(message.data)
        return connection

    return _application(handle)


def _application(handle: Handler) -> web.Application:
    application = web.Application()
    application.router.add_get("/", handle)
    return application


def serve(workload: Workload) -> None:
    """Serve until killed."""

    async def run() -> None:
        application = {"echo": _echo, "broadcast": _broadcast}[workload.mode](workload)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG).start()
        announce(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())
