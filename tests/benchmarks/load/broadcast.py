"""Many subscribers, and a publisher whose messages go to each of them."""

from __future__ import annotations

import time
from array import array

import uvloop
from picows import WSFrame, WSMsgType, WSTransport

from ..workloads import Workload
from . import Figures, Server, until, watch
from .echo import Pinger, connect

__all__ = ["measure"]

_KIND = WSMsgType.BINARY


class Broadcasts:
    """What is under way.

    Attributes:
        latencies: Seconds from a message of the publisher to the last
            subscriber, one for each subscriber.
    """

    def __init__(self, subscribers: int, payload: bytes) -> None:
        self.latencies = array("d")
        self.arrived = [0]
        self._subscribers = subscribers
        self._payload = payload
        self._sent = [0.0]
        self._publisher: WSTransport | None = None

    def begin(self, publisher: WSTransport, depth: int) -> None:
        """Publish the first messages."""
        self._publisher = publisher
        for _ in range(depth):
            self._publish()

    def _publish(self) -> None:
        assert self._publisher is not None
        self.arrived.append(0)
        self._sent.append(time.perf_counter())
        self._publisher.send(_KIND, self._payload)

    def complete(self, number: int) -> None:
        """Note that a message has come to all, and publish another."""
        elapsed = time.perf_counter() - self._sent[number]
        self.latencies.extend([elapsed] * self._subscribers)
        self._publish()


class Subscriber(Pinger):
    """A connection that counts messages; it has joined when its text came back."""

    def __init__(self, broadcasts: Broadcasts, count: int) -> None:
        self._broadcasts = broadcasts
        self._arrived = broadcasts.arrived
        self._count = count
        self.joined = False
        self.number = 0

    def begin(self) -> None:
        self.transport.send(WSMsgType.TEXT, b"join")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if not self.joined:
            self.joined = True
            return
        self.number = number = self.number + 1
        self._arrived[number] += 1
        if self._arrived[number] == self._count:
            self._broadcasts.complete(number)


def _check(subscribers: list[Subscriber]) -> None:
    if lost := sum(each.lost for each in subscribers):
        raise ConnectionError(f"the server closed {lost} of {len(subscribers)} connections")


def measure(workload: Workload, server: Server, seconds: float) -> Figures:
    """Measure deliveries per second, and the latencies of the last ones.

    Raises:
        ConnectionError: A connection was lost.
    """
    count = workload.connections
    broadcasts = Broadcasts(count, b"x" * workload.size)

    async def run() -> Figures:
        subscribers = await connect(server, lambda: Subscriber(broadcasts, count), count)
        for subscriber in subscribers:
            subscriber.begin()
        await until(lambda: all(each.joined or each.lost for each in subscribers))
        _check(subscribers)
        (publisher,) = await connect(server, Pinger, 1)
        broadcasts.begin(publisher.transport, workload.depth)
        figures = await watch(server, broadcasts.latencies, seconds)
        _check(subscribers)
        return figures

    return uvloop.run(run())
