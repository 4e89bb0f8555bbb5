"""Closes connections a few at a time, so that their clients do not all come back at once.

Threads: everything runs in the I/O thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Set

from ..engine.connection import Connection
from ..engine.loop import IOLoop
from .hall import GOING_AWAY
from .opening import Opening

__all__ = ["Farewell"]

# Seconds from one look to the next, and how many may be closed at each in any case.
_TICK = 0.1
_FEW = 10


class Farewell:
    """The end of a listener whose clients have somewhere else to go.

    Args:
        loop: The I/O loop.
        openings: Who is in the midst of a handshake; let in meanwhile.
        connections: Who is to be closed, also those that are still to come.
        timeout: Seconds for all of it.
        spread: Seconds over which closing is spread; at most half of `timeout`.
        finish: Called with what is left of `timeout` once nobody is left, or
            at half of it.
    """

    def __init__(
        self,
        loop: IOLoop,
        openings: Set[Opening],
        connections: Set[Connection],
        timeout: float,
        spread: float,
        finish: Callable[[float], None],
    ) -> None:
        self._loop = loop
        self._openings = openings
        self._connections = connections
        self._finish = finish
        now = loop.clock()
        self._end = now + timeout
        self._half = now + timeout / 2
        self._spread_until = now + min(spread, timeout / 2)
        self._told: set[Connection] = set()
        self._over = False

    def begin(self) -> None:
        """Close the first of them."""
        self._tick()

    def end(self) -> None:
        """Nobody is left. Harmless twice."""
        self._over = True

    def _tick(self) -> None:
        if self._over:
            return
        now = self._loop.clock()
        left = [each for each in self._connections if each not in self._told]
        for connection in left[: self._how_many(len(left), now)]:
            self._told.add(connection)
            connection.start_close(GOING_AWAY, max(0.0, self._end - now))
        under_way = any(each.begun for each in self._openings)
        if now >= self._half or not (under_way or self._connections):
            self._over = True
            self._finish(max(0.0, self._end - now))
        else:
            self._loop.call_at(now + _TICK, self._tick, self)

    def _how_many(self, left: int, now: float) -> int:
        ticks = (self._spread_until - now) / _TICK
        return left if ticks <= 1 else max(_FEW, math.ceil(left / ticks))

    def on_loop_error(self, error: BaseException) -> None:
        """Closing failed: end all of it at once."""
        if not self._over:
            self._over = True
            self._finish(max(0.0, self._end - self._loop.clock()))
