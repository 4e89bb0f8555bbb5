"""What a listener's connections may hold in memory together.

Nothing is counted on the way of a message. While anything waits, the I/O
thread adds up what the connections hold that have something to wait for: a
worker, a reader at the other end, or the rest of a message. So the bound is
one of some twentieths of a second, not of every byte.

Who waits for a reader or for the rest of a message, and who reads no more for
its queue is full, says so (`note`); who waits for a worker is found in the run
queue. What stands in a queue that is not full while its own callback runs is in
neither: that is a queue for each worker at the most.

Threads: a Budget is made by whoever starts a listener; everything else runs in
the I/O thread.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import Any, Protocol

from .loop import IOLoop

__all__ = ["Budget", "Member"]

# Seconds between looks while something waits, and how many times the duration
# of a look it is at least.
_INTERVAL = 0.05
_SHARE = 20

_log = logging.getLogger("syncws.server")


class Member(Protocol):
    """A connection."""

    def held(self) -> tuple[int, int]:
        """Return the bytes that wait for a worker, and those that an end would give back."""

    def tighten(self) -> None:
        """Hold as little as possible from now on."""

    def relax(self) -> None:
        """Hold as much as is set, again."""

    def give_back(self, size: int) -> None:
        """End, and give back what is held: so many bytes."""


class Remains(Protocol):
    """What a connection that has ended leaves to a worker."""

    def waiting(self) -> int:
        """Return the bytes that wait, and what they take up beside."""


class Budget:
    """Keeps what connections hold together below a limit.

    From half of it on each of them may hold little, which slows their peers
    down. Over it those that hold the most are ended, as far as an end gives
    anything back. Below a quarter all is as before.

    Args:
        loop: The I/O loop of the connections.
        members: The connections; somebody else adds and removes them.
        limit: Bytes.

    Attributes:
        tight: Whether each may hold little.
        full: Whether there is no room for others.
    """

    def __init__(self, loop: IOLoop, members: Collection[Member], limit: int) -> None:
        self._loop = loop
        self._members = members
        self._limit = limit
        self._suspects: set[Member] = set()
        self._remains: set[Remains] = set()
        self._due = False  # a timer is set for `look`
        self._interval = _INTERVAL
        self.tight = False
        self.full = False
        loop.budgets.append(self)

    def end(self) -> None:
        """Look no more: the listener has ended."""
        self._suspects.clear()
        self._remains.clear()
        self._members = ()
        if self in self._loop.budgets:
            self._loop.budgets.remove(self)

    def note(self, member: Member) -> None:
        """A connection has begun to hold something that may stay."""
        self._suspects.add(member)
        if not self._due:
            self.look_later()

    def keep(self, remains: Remains) -> None:
        """A connection has ended, and what it leaves counts until it is dealt with.

        Else a client could fill the memory by coming again and again.
        """
        if remains.waiting():
            self._remains.add(remains)
            self.look_later()

    def look_later(self) -> None:
        """Something waits: look at it soon, if that is not about to be done."""
        if not self._due:
            self._due = True
            self._loop.call_at(self._loop.clock() + self._interval, self.look, self)

    def look(self) -> None:
        """Add up what is held, and do what follows from it."""
        self._due = False
        begun = self._loop.clock()
        suspects = self._suspects
        pool = self._loop.pool
        queued = bool(pool is not None and pool.queue)
        if pool is not None and queued:
            members = self._members
            for work in _snapshot(pool.queue):
                source: Any = getattr(work, "source", None)
                if source in members:
                    suspects.add(source)
        self._remains = {one for one in self._remains if one.waiting()}
        total = sum(one.waiting() for one in self._remains)
        releasable: list[tuple[int, Member]] = []
        for member in list(suspects):
            waiting, other = member.held()
            if not waiting and not other:
                suspects.discard(member)
            total += waiting + other
            if other:
                releasable.append((other, member))
        self._settle(total, releasable)
        if suspects or self._remains or queued or self.tight:
            self._interval = max(_INTERVAL, _SHARE * (self._loop.clock() - begun))
            self.look_later()

    def _settle(self, total: int, releasable: list[tuple[int, Member]]) -> None:
        limit = self._limit
        if not self.tight and total > limit // 2:
            self.tight = True
            self._report(
                "the connections hold %d bytes, over half of max_buffered_bytes, %d: "
                "each may hold little from now on",
                total,
                limit,
            )
            for member in list(self._members):
                member.tighten()
        elif self.tight and total <= limit // 4:
            self.tight = self.full = False
            text = "the connections hold %d bytes of max_buffered_bytes, %d, again"
            self._report(text, total, limit)
            for member in list(self._members):
                member.relax()
        was_full, self.full = self.full, total > limit
        if not self.full:
            return
        ended = 0
        for size, member in sorted(releasable, key=lambda pair: pair[0], reverse=True):
            if total <= limit:
                break
            member.give_back(size)
            total -= size
            ended += 1
        if was_full and not ended:
            return  # that was said, and workers have the rest
        self._report("over max_buffered_bytes, %d: ended the %d that held the most", limit, ended)

    def _report(self, message: str, *args: int) -> None:
        self._loop.journal.write(_log, logging.WARNING, message, *args)

    def on_loop_error(self, error: BaseException) -> None:
        """A look raised, which it does not."""


def _snapshot(queue: Iterable[Any]) -> list[Any]:
    """Return what is in a deque that other threads change."""
    while True:
        try:
            return list(queue)
        except RuntimeError:  # it changed in the midst of that
            continue
