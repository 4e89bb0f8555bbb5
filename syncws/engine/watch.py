"""The times of one connection: idleness, keepalive, and the deadlines of its end.

Decides what is due; the connection does it. Owned by the I/O thread, apart
from `last_message`, which senders set too: whichever is last is right.
"""

from __future__ import annotations

import enum
import os

from ..config import ConnectionConfig

__all__ = ["Due", "Watch"]


class Due(enum.Enum):
    """What it is time for."""

    CUT = "the end of TCP has taken too long"
    ANSWER = "the peer's close frame has waited long enough for its answer"
    IDLE = "no message has come or gone for idle_timeout"
    PING = "a keepalive ping"
    LOST = "nothing has come since the last keepalive ping, for ping_timeout"


class Watch:
    """When a connection has to do something by itself.

    Args:
        config: Its intervals and timeouts.
        now: The time, in seconds of the clock that every call here uses.

    Attributes:
        alive: Set when anything comes from the peer.
        last_message: When a message last came or went.
        idle_timeout: The one in force; None if there is none, or no longer.
        latency: Seconds from the last keepalive ping to its pong, or None.
    """

    __slots__ = (
        "_answer_at",
        "_cut_at",
        "_idle_at",
        "_interval",
        "_lost_at",
        "_ping_at",
        "_ping_data",
        "_ping_sent",
        "_timeout",
        "alive",
        "idle_timeout",
        "last_message",
        "latency",
    )

    def __init__(self, config: ConnectionConfig, now: float) -> None:
        self.idle_timeout = config.idle_timeout
        self._interval = config.ping_interval
        self._timeout = config.ping_timeout
        self.alive = False
        self.last_message = now
        self.latency: float | None = None
        self._idle_at = None if self.idle_timeout is None else now + self.idle_timeout
        self._ping_at = None if self._interval is None else now + self._interval
        self._lost_at: float | None = None
        self._answer_at: float | None = None
        self._cut_at: float | None = None
        self._ping_data = b""
        self._ping_sent = 0.0

    def relax(self) -> None:
        """Look after idleness and the peer's life no more: the connection is ending."""
        self.idle_timeout = self._idle_at = self._ping_at = self._lost_at = None

    def answer_by(self, when: float) -> None:
        """Have ANSWER due at `when`."""
        self._answer_at = when

    def end_by(self, when: float) -> None:
        """Have CUT due at `when`, or earlier if that was said before."""
        self._answer_at = None
        self._cut_at = when if self._cut_at is None else min(when, self._cut_at)

    def next_due(self) -> float | None:
        """When `check` is to be called next, or None."""
        times = (self._cut_at, self._answer_at, self._lost_at, self._ping_at, self._idle_at)
        return min((when for when in times if when is not None), default=None)

    def check(self, now: float, *, quiet: bool, reading: bool) -> list[Due]:
        """Return what is due, most urgent first.

        Args:
            now: The time.
            quiet: Whether no message waits or is dealt with; else that is no
                idleness.
            reading: Whether the connection reads; while it does not, silence
                says nothing about the peer.
        """
        due = []
        if self._cut_at is not None and now >= self._cut_at:
            return [Due.CUT]
        if self._answer_at is not None and now >= self._answer_at:
            self._answer_at = None
            due.append(Due.ANSWER)
        if self._is_lost(now, reading):
            due.append(Due.LOST)
        if self._is_idle(now, quiet):
            due.append(Due.IDLE)
        if self._ping_at is not None and self._interval is not None and now >= self._ping_at:
            self._ping_at = now + self._interval
            if self._lost_at is None:
                due.append(Due.PING)
        return due

    def _is_idle(self, now: float, quiet: bool) -> bool:
        if self._idle_at is None or self.idle_timeout is None:
            return False
        if not quiet:
            self.last_message = now
        self._idle_at = self.last_message + self.idle_timeout
        if now < self._idle_at:
            return False
        self.last_message = now
        self._idle_at = now + self.idle_timeout
        return True

    def _is_lost(self, now: float, reading: bool) -> bool:
        if self._lost_at is None or self._timeout is None or now < self._lost_at:
            return False
        if self.alive:
            self._lost_at = None
        elif reading:
            return True
        else:
            self._lost_at = now + self._timeout
        return False

    def ping(self, now: float) -> bytes:
        """Return the payload of a keepalive ping that is sent now. RFC 6455 section 5.5.2."""
        self._ping_data = os.urandom(4)
        self._ping_sent = now
        self.alive = False
        if self._timeout is not None:
            self._lost_at = now + self._timeout
        return self._ping_data

    def pong(self, data: bytes, now: float) -> bool:
        """Return whether a pong answers the last keepalive ping, and note its latency."""
        if not self._ping_data or data != self._ping_data:
            return False
        self._ping_data = b""
        self._lost_at = None
        self.latency = now - self._ping_sent
        return True
