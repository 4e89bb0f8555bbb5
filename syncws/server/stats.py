"""What is counted of all clients of a server."""

from __future__ import annotations

from typing import NamedTuple

from ..engine.connection import Connection
from ..engine.stats import ConnectionStats

__all__ = ["Counts", "ListenerStats"]


class ListenerStats(NamedTuple):
    """What a listener has done so far, over all of its starts.

    Attributes:
        open: Connections that are open.
        accepted: Connections that there ever were.
        closed: How many have ended, by the code that `on_close` gets.
        bytes_received: Bytes of messages that have come; see `Caller.stats`.
        bytes_sent: Bytes of messages that were taken to be sent.
        messages_received: Messages that have come.
        messages_sent: Messages that were taken to be sent.
        buffered_bytes: Bytes that the system has not taken yet.
    """

    open: int
    accepted: int
    closed: dict[int, int]
    bytes_received: int
    bytes_sent: int
    messages_received: int
    messages_sent: int
    buffered_bytes: int


class Counts:
    """Adds up what has ended. Requires the lock of whoever owns it."""

    def __init__(self) -> None:
        self.accepted = 0
        self._closed: dict[int, int] = {}
        self._ended = ConnectionStats(0, 0, 0, 0)

    def ended(self, connection: Connection, code: int) -> None:
        """A connection has ended with this code."""
        self._closed[code] = self._closed.get(code, 0) + 1
        self._ended = _sum(self._ended, connection.stats())

    def stats(self, connections: set[Connection]) -> ListenerStats:
        """Return all counts, with those of the connections that are open."""
        total, buffered = self._ended, 0
        for connection in connections:
            total = _sum(total, connection.stats())
            buffered += connection.outbound.size
        closed = dict(self._closed)
        return ListenerStats(len(connections), self.accepted, closed, *total, buffered)


def _sum(one: ConnectionStats, other: ConnectionStats) -> ConnectionStats:
    return ConnectionStats(*(a + b for a, b in zip(one, other, strict=True)))
