"""Connections that send messages and wait for them to come back."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import TypeVar, cast

import picows
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from ..wire import BINARY, TEXT, client_frame, open_websocket, receive_frame
from ..workloads import Workload
from . import Figures, Server, gather, watch

__all__ = ["Pinger", "check", "connect", "measure"]

_MAX_FRAME = 8 << 20

AnyPinger = TypeVar("AnyPinger", bound="Pinger")


class Pinger(WSListener):
    """A connection."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.lost = False
        self.sent = deque([0.0])

    def oldest(self) -> float:
        """Return when the oldest message under way was sent."""
        return self.sent[0]

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.lost = True

    def begin(self) -> None:
        """Send the first message."""
        raise NotImplementedError


def _single(kind: WSMsgType, payload: bytes, latencies: array[float]) -> Callable[[], Pinger]:
    """Make connections with one message under way."""
    now = time.perf_counter
    add = latencies.append

    class Single(Pinger):
        def oldest(self) -> float:
            return self.time_sent

        def begin(self) -> None:
            self.time_sent = now()
            self.transport.send(kind, payload)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            time = now()
            add(time - self.time_sent)
            self.time_sent = time
            transport.send(kind, payload)

    return Single


def _several(
    kind: WSMsgType, payload: bytes, latencies: array[float], depth: int
) -> Callable[[], Pinger]:
    """Make connections with several messages under way."""
    now = time.perf_counter
    add = latencies.append

    class Several(Pinger):
        def begin(self) -> None:
            self.sent = deque([now()] * depth)
            for _ in range(depth):
                self.transport.send(kind, payload)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            time = now()
            add(time - self.sent.popleft())
            self.sent.append(time)
            transport.send(kind, payload)

    return Several


def check(server: Server, payload: bytes, *, text: bool) -> None:
    """Make sure that the server sends back what it gets.

    Raises:
        ValueError: It does not.
    """
    opcode = TEXT if text else BINARY
    sock, _ = open_websocket(server.port)
    with sock:
        sock.sendall(client_frame(opcode, payload))
        if receive_frame(sock) != (0x80 | opcode, payload):
            raise ValueError("what came back is not what was sent")


async def connect(server: Server, make: Callable[[], AnyPinger], count: int) -> list[AnyPinger]:
    """Open connections."""

    async def open_one(index: int) -> AnyPinger:
        _, listener = await picows.ws_connect(
            make,
            f"ws://127.0.0.1:{server.port}/",
            max_frame_size=_MAX_FRAME,
            websocket_handshake_timeout=30,
        )
        return cast(AnyPinger, listener)

    return await gather(open_one, range(count))


def measure(workload: Workload, server: Server, seconds: float) -> Figures:
    """Measure rate and latencies.

    Raises:
        ConnectionError: A connection was lost.
    """
    payload = (b"The quick brown fox jumps over 13 lazy dogs. " * (workload.size // 40 + 1))[
        : workload.size
    ]
    check(server, payload, text=workload.text)
    kind = WSMsgType.TEXT if workload.text else WSMsgType.BINARY
    latencies = array("d")
    if workload.depth == 1:
        make = _single(kind, payload, latencies)
    else:
        make = _several(kind, payload, latencies, workload.depth)

    async def run() -> Figures:
        pingers = await connect(server, make, workload.connections)
        for pinger in pingers:
            pinger.begin()
        return await watch(server, latencies, seconds, pingers)

    return uvloop.run(run())
