"""Connections at a modest pace, alone and beside others whose callbacks sleep."""

from __future__ import annotations

import asyncio
import time
from array import array

import uvloop
from picows import WSFrame, WSMsgType, WSTransport

from ..workloads import Workload
from . import WARM_UP, Figures, Server, all_go_on, latencies_in_us
from .echo import Pinger, check, connect

__all__ = ["measure"]

_SLEEPERS = 16
_SLEEP = b"1"

# Seconds between an echo and the next message.
_PAUSE = 0.01


class Sleeper(Pinger):
    """A connection whose callback always sleeps."""

    def begin(self) -> None:
        self.transport.send(WSMsgType.TEXT, _SLEEP)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.begin()


class Walker(Pinger):
    """A connection that waits a little between two echoes."""

    def __init__(self, payload: bytes, latencies: array[float]) -> None:
        self._payload = payload
        self._add = latencies.append
        self._later = asyncio.get_running_loop().call_later
        self.time_sent = 0.0

    def oldest(self) -> float:
        return self.time_sent

    def begin(self) -> None:
        if not self.lost:
            self.time_sent = time.perf_counter()
            self.transport.send(WSMsgType.BINARY, self._payload)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._add(time.perf_counter() - self.time_sent)
        self._later(_PAUSE, self.begin)


async def _walk(walkers: list[Walker], latencies: array[float], seconds: float) -> Figures:
    """Return the latencies of so long, those of the messages then under way included.

    Raises:
        ConnectionError: A connection was lost.
        TimeoutError: Not all of them came back.
    """
    del latencies[:]
    await asyncio.sleep(seconds)
    await all_go_on(walkers)
    return latencies_in_us(latencies) | {"max_us": max(latencies) * 1e6}


def measure(workload: Workload, server: Server, seconds: float) -> Figures:
    """Measure latencies of the same connections without and with sleeping callbacks beside them."""
    payload = b"x" * workload.size
    check(server, payload, text=False)
    latencies = array("d")

    async def run() -> Figures:
        def walker() -> Walker:
            return Walker(payload, latencies)

        walkers = await connect(server, walker, workload.connections)
        sleepers = await connect(server, Sleeper, _SLEEPERS)
        for pinger in walkers:
            pinger.begin()
        await asyncio.sleep(WARM_UP)
        alone = await _walk(walkers, latencies, seconds)
        for sleeper in sleepers:
            sleeper.begin()
        beside = await _walk(walkers, latencies, seconds)
        return beside | {
            "alone_p50_us": alone["p50_us"],
            "alone_p99_us": alone["p99_us"],
            "p99_ratio": beside["p99_us"] / alone["p99_us"],
        }

    return uvloop.run(run())
