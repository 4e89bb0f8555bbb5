"""Echoes of compressed messages, from frames that are made beforehand.

The client compresses each message afresh, so that its frames can be sent
again; of what comes back only the heads of frames are looked at.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import zlib
from array import array
from collections.abc import Iterator
from typing import cast

import uvloop

from ..wire import TEXT, client_frame, open_websocket, receive_frame
from ..workloads import Workload
from . import Figures, Server, gather, watch

__all__ = ["measure"]

_OFFER = (
    "permessage-deflate; client_no_context_takeover; "
    "client_max_window_bits=12; server_max_window_bits=12"
)
_TAIL = b"\x00\x00\xff\xff"

# Different messages, so that no window holds all of them.
_MESSAGES = 64


def _message(number: int, size: int) -> bytes:
    """Return JSON of that many bytes, unlike that of other numbers."""
    records = []
    for index in itertools.count(number * 1000):
        word = f"{index * 2654435761 % 4294967296:08x}"
        records.append({"id": index, "name": f"sensor-{word[:3]}", "value": index % 977 / 8})
        text = json.dumps({"kind": "readings", "token": word, "records": records})
        if len(text) >= size:
            return text[:size].encode()
    raise AssertionError


def _compressed(message: bytes) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -12, 5)
    return (deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


class Pinger(asyncio.Protocol):
    """A connection with one message under way, upgraded already."""

    def __init__(self, frames: Iterator[bytes], latencies: array[float]) -> None:
        self._frames = frames
        self._add = latencies.append
        self._rest = b""
        self._sent = 0.0
        self.bytes = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast(asyncio.Transport, transport).write

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def oldest(self) -> float:
        """Return when the message under way was sent."""
        return self._sent

    def begin(self) -> None:
        """Send the next message."""
        self._sent = time.perf_counter()
        self._write(next(self._frames))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        # A reply is one frame, below 64 KiB.
        short = len(data) < 4 or data[1] == 126
        size = 4 + int.from_bytes(data[2:4], "big") if short else 2 + data[1]
        if len(data) < size:
            self._rest = data
            return
        self._rest = data[size:]
        self.bytes += size
        self._add(time.perf_counter() - self._sent)
        self.begin()


def _check(server: Server, messages: list[bytes], frames: list[bytes]) -> None:
    """Make sure that the server compresses and sends back what it gets.

    Raises:
        ValueError: It does not.
    """
    sock, head = open_websocket(server.port, extensions=_OFFER)
    with sock:
        if b"permessage-deflate" not in head:
            raise ValueError("the server does not compress")
        inflater = zlib.decompressobj(-12)
        for message, frame in zip(messages[:3], frames, strict=False):
            sock.sendall(frame)
            first, payload = receive_frame(sock)
            if first != 0xC0 | TEXT or inflater.decompress(payload + _TAIL) != message:
                raise ValueError("what came back is not what was sent")


def measure(workload: Workload, server: Server, seconds: float) -> Figures:
    """Measure rate, latencies, and the bytes that come back for a message.

    Raises:
        ConnectionError: A connection was lost.
    """
    messages = [_message(number, workload.size) for number in range(_MESSAGES)]
    frames = [client_frame(TEXT, _compressed(message), compressed=True) for message in messages]
    _check(server, messages, frames)
    latencies = array("d")

    async def open_one(index: int) -> Pinger:
        loop = asyncio.get_running_loop()
        sock, _ = await loop.run_in_executor(None, open_websocket, server.port, index, _OFFER)
        sock.setblocking(False)
        mine = itertools.cycle(frames[index % _MESSAGES :] + frames[: index % _MESSAGES])
        _, pinger = await loop.create_connection(lambda: Pinger(mine, latencies), sock=sock)
        return pinger

    async def run() -> Figures:
        pingers = await gather(open_one, range(workload.connections))
        for pinger in pingers:
            pinger.begin()
        figures = await watch(server, latencies, seconds, pingers)
        figures["wire_bytes"] = sum(pinger.bytes for pinger in pingers) / len(latencies)
        return figures

    return uvloop.run(run())
