"""picows on uvloop; it also serves the blocking clients."""

from __future__ import annotations

import asyncio

import picows
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from ..wire import BINARY, header
from ..workloads import Workload
from . import BACKLOG, MAX_SIZE, announce

_PUSHED = bytes(range(32))
_PUSHED_FRAME = header(BINARY, len(_PUSHED)) + _PUSHED


class _Peer(WSListener):
    """One that answers a close."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.BINARY:
            self.on_binary(transport, frame)
        elif kind is WSMsgType.TEXT:
            self.on_text(transport, frame)
        elif kind is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_binary(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle a binary message."""

    def on_text(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle a text message."""


class Echo(WSListener):
    """Sends messages back."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        else:
            transport.send(kind, frame.get_payload_as_memoryview())


class Broadcast(_Peer):
    """Sends binary messages to all who have sent a text."""

    members: list[WSTransport] = []

    def on_text(self, transport: WSTransport, frame: WSFrame) -> None:
        self.members.append(transport)
        transport.send(WSMsgType.TEXT, frame.get_payload_as_bytes())

    def on_binary(self, transport: WSTransport, frame: WSFrame) -> None:
        data = frame.get_payload_as_bytes()
        for member in self.members:
            member.send(WSMsgType.BINARY, data)


class Push(_Peer):
    """Sends as many messages as a text asks for, in one write."""

    def on_text(self, transport: WSTransport, frame: WSFrame) -> None:
        count = int(frame.get_payload_as_ascii_text())
        transport.underlying_transport.write(_PUSHED_FRAME * count)


class Sink(WSListener):
    """Counts binary messages up to the number in a text, which it then sends back."""

    left = 0
    number = b""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.BINARY:
            self.left -= 1
            if not self.left:
                transport.send(WSMsgType.TEXT, self.number)
        elif kind is WSMsgType.TEXT:
            self.number = frame.get_payload_as_bytes()
            self.left = int(self.number)
        elif kind is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()


def serve(workload: Workload) -> None:
    """Serve until killed."""
    modes = {"echo": Echo, "broadcast": Broadcast, "push": Push, "sink": Sink}
    listener = modes[workload.mode]

    async def run() -> None:
        server = await picows.ws_create_server(
            lambda _: listener(), "127.0.0.1", 0, max_frame_size=MAX_SIZE, backlog=BACKLOG
        )
        announce(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    uvloop.run(run())
