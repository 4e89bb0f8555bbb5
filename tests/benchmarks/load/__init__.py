"""The load on a server, from another process, and what is seen of the server."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..process import Cpu, cpu

__all__ = [
    "CONCURRENT",
    "WARM_UP",
    "Connection",
    "Figures",
    "Server",
    "all_go_on",
    "cpu_per_message",
    "gather",
    "latencies_in_us",
    "until",
    "watch",
]

Figures = dict[str, float]

# Seconds before a measurement begins.
WARM_UP = 0.3

# Connections that are opened at a time.
CONCURRENT = 16

# Seconds within which a slow server must have answered.
_PATIENCE = 20.0


@dataclass(frozen=True)
class Server:
    """What is measured.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        pid: Its process.
    """

    port: int
    pid: int


def latencies_in_us(seconds: Sequence[float]) -> Figures:
    """Return median, 99th percentile and minimum in microseconds."""
    ordered = sorted(seconds)
    return {
        "p50_us": ordered[len(ordered) // 2] * 1e6,
        "p99_us": ordered[len(ordered) * 99 // 100] * 1e6,
        "min_us": ordered[0] * 1e6,
    }


def cpu_per_message(before: Cpu, after: Cpu, messages: int) -> Figures:
    """Return the CPU time spent on a message in microseconds."""
    return {
        "user_us": (after.user - before.user) / messages * 1e6,
        "sys_us": (after.system - before.system) / messages * 1e6,
    }


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a server does.

    Raises:
        TimeoutError: It did not.
    """
    deadline = time.perf_counter() + _PATIENCE
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError(f"messages did not come back within {_PATIENCE:.0f} s")
        await asyncio.sleep(0.01)


class Connection(Protocol):
    """A connection that always has messages under way."""

    lost: bool

    def oldest(self) -> float:
        """Return when the oldest of them was sent."""


async def all_go_on(connections: Sequence[Connection]) -> None:
    """Wait until the messages of all connections that are under way now have come back.

    Raises:
        ConnectionError: A connection was lost.
        TimeoutError: They did not come back.
    """
    now = time.perf_counter()
    await until(lambda: all(each.lost or each.oldest() > now for each in connections))
    if lost := sum(each.lost for each in connections):
        raise ConnectionError(f"the server closed {lost} of {len(connections)} connections")


async def watch(
    server: Server,
    latencies: array[float],
    seconds: float,
    connections: Sequence[Connection] = (),
) -> Figures:
    """Return the figures of the messages that are added to `latencies` meanwhile.

    Args:
        server: The server.
        latencies: What connections add to.
        seconds: How long.
        connections: All have to get something back, before that and after it.

    Raises:
        ConnectionError: A connection was lost.
        TimeoutError: Nothing comes back.
    """
    await all_go_on(connections)
    await asyncio.sleep(WARM_UP)
    first, cpu_before = len(latencies), cpu(server.pid)
    began, busy = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    await until(lambda: len(latencies) > first)
    end, elapsed = len(latencies), time.perf_counter() - began
    figures = {"rate": (end - first) / elapsed, "load": (time.process_time() - busy) / elapsed}
    figures |= latencies_in_us(latencies[first:end])
    figures |= cpu_per_message(cpu_before, cpu(server.pid), end - first)
    await all_go_on(connections)
    return figures


async def gather(open_one: Callable[[int], Awaitable[Any]], indexes: Iterable[int]) -> list[Any]:
    """Open connections, some at a time."""
    limit = asyncio.Semaphore(CONCURRENT)

    async def open_limited(index: int) -> Any:
        async with limit:
            return await open_one(index)

    return await asyncio.gather(*map(open_limited, indexes))
