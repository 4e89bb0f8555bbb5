"""What is counted of all clients of a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..endpoint import Address
from ..engine.connection import Connection
from ..engine.stats import NOTHING_YET, ConnectionStats
from .caller import Caller

__all__ = ["ConnectionInfo", "Counts", "ListenerStats", "info_of"]


class ListenerStats(NamedTuple):
    """What a listener has done so far, over all of its starts; a forked child begins anew.

    Attributes:
        open: Connections that are open.
        accepted: Connections that there ever were.
        closed: How many have ended, by the code that `on_close` gets.
        failed: How many of those failed: with an error, not by a close frame alone.
        refused: How many handshakes were refused, by the status of the answer.
        bytes_received: Bytes of messages that have come; see `ConnectionStats`.
        bytes_sent: Bytes of messages that were taken to be sent.
        messages_received: Messages that have come.
        messages_sent: Messages that were taken to be sent.
        buffered_bytes: Bytes that clients have not taken yet.
    """

    open: int
    accepted: int
    closed: dict[int, int]
    failed: int
    refused: dict[int, int]
    bytes_received: int
    bytes_sent: int
    messages_received: int
    messages_sent: int
    buffered_bytes: int


class ConnectionInfo(NamedTuple):
    """One open connection, at one moment.

    Attributes:
        id: The caller's `id`.
        path: The path that was asked for.
        remote_address: The client's address.
        subprotocol: The subprotocol, or None.
        buffered_bytes: Bytes that the client has not taken yet.
        stats: What it has carried so far.
    """

    id: str
    path: str
    remote_address: Address
    subprotocol: str | None
    buffered_bytes: int
    stats: ConnectionStats


def info_of(caller: Caller) -> ConnectionInfo:
    """Return what there is to be said of a caller now. Any thread."""
    return ConnectionInfo(
        caller.id,
        caller.request.path,
        caller.remote_address,
        caller.subprotocol,
        caller.buffered_amount,
        caller.stats(),
    )


class Counts:
    """Adds up what has ended. Requires the lock of whoever owns it."""

    def __init__(self) -> None:
        self.accepted = 0
        self._closed: dict[int, int] = {}
        self._failed = 0
        self._refused: dict[int, int] = {}
        self._ended = NOTHING_YET

    def refused(self, status: int) -> None:
        """A handshake was answered with this status."""
        self._refused[status] = self._refused.get(status, 0) + 1

    def ended(self, stats: ConnectionStats, code: int, failed: bool) -> None:
        """A connection has ended with this code."""
        self._closed[code] = self._closed.get(code, 0) + 1
        self._failed += failed
        self._ended = self._ended.plus(stats)

    def stats(self, connections: Iterable[Connection]) -> ListenerStats:
        """Return all counts, with those of the connections that are open."""
        total, number, buffered = self._ended, 0, 0
        for connection in connections:
            number += 1
            total = total.plus(connection.stats())
            buffered += connection.outbound.size
        return ListenerStats(
            number,
            self.accepted,
            dict(self._closed),
            self._failed,
            dict(self._refused),
            *total[:4],
            buffered,
        )
