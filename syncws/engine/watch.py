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
    SLOW = "a message that has begun does not get on"


# Bytes a second that a message must get on with beyond its first `message_timeout`.
_PACE = 1024

# Keepalive pings whose pongs are still told from others'. More are out only
# if the peer sends, but no pongs.
_REMEMBERED = 4


class Watch:
    """When a connection has to do something by itself.

    It begins paused: what is not read says nothing of the peer. While that is
    so, idleness, the wait for a pong and that for the rest of a message stand
    still.

    Args:
        config: Its intervals and timeouts.
        now: The time, in seconds of the clock that every call here uses.

    Attributes:
        alive: Set when anything comes from the peer.
        last_message: When a message last came or went.
        idle_timeout: The one in force; None if there is none, or no longer.
        in_message: Whether a message is under way.
        latency: Seconds from a keepalive ping to its pong, the last ones; or None.
    """

    __slots__ = (
        "_answer_at",
        "_come",
        "_cut_at",
        "_idle_at",
        "_interval",
        "_last",
        "_lost_at",
        "_message_timeout",
        "_paused_at",
        "_ping_at",
        "_pings",
        "_slow_at",
        "_timeout",
        "alive",
        "idle_timeout",
        "in_message",
        "last_message",
        "latency",
    )

    def __init__(self, config: ConnectionConfig, now: float) -> None:
        self.idle_timeout = config.idle_timeout
        self._interval = config.ping_interval
        self._timeout = config.ping_timeout
        self._message_timeout = config.message_timeout
        self.alive = False
        self.last_message = now
        self.latency: float | None = None
        self._paused_at: float | None = now
        self._idle_at = None if self.idle_timeout is None else now + self.idle_timeout
        self._ping_at = None if self._interval is None else now + self._interval
        self._lost_at: float | None = None
        self._slow_at: float | None = None  # a message is under way: when it should be here
        self._come = 0  # bytes of it since `_slow_at` was set
        self._last = 0  # bytes that came at once the last time
        self.in_message = False
        self._answer_at: float | None = None
        self._cut_at: float | None = None
        self._pings: tuple[tuple[bytes, float], ...] = ()  # those without a pong: payload, when

    def pause(self, now: float) -> None:
        """Nothing is read from now on."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """What comes is read from now on."""
        if self._paused_at is None:
            return
        stood = now - self._paused_at
        self._paused_at = None
        if self._lost_at is not None:
            self._lost_at += stood
        if self._slow_at is not None:
            self._slow_at += stood

    def relax(self) -> None:
        """Look after idleness and the peer's life no more: the connection is ending."""
        self.idle_timeout = self._idle_at = self._ping_at = self._lost_at = None
        self._message_timeout = self._slow_at = None

    def answer_by(self, when: float) -> None:
        """Have ANSWER due at `when`."""
        self._answer_at = when

    def end_by(self, when: float) -> None:
        """Have CUT due at `when`, or earlier if that was said before."""
        self._answer_at = None
        self._cut_at = when if self._cut_at is None else min(when, self._cut_at)

    def next_due(self) -> float | None:
        """When `check` is to be called next, or None."""
        times = [self._cut_at, self._answer_at, self._ping_at, self._idle_at]
        if self._paused_at is None:
            times += (self._lost_at, self._slow_at)
        return min((when for when in times if when is not None), default=None)

    def check(self, now: float, *, quiet: bool) -> list[Due]:
        """Return what is due, most urgent first.

        Args:
            now: The time.
            quiet: Whether no message waits or is dealt with; else that is no
                idleness.
        """
        due = []
        if self._cut_at is not None and now >= self._cut_at:
            return [Due.CUT]
        if self._answer_at is not None and now >= self._answer_at:
            self._answer_at = None
            due.append(Due.ANSWER)
        if self._paused_at is None:
            if self._is_lost(now):
                due.append(Due.LOST)
            if self._is_slow(now):
                due.append(Due.SLOW)
        if self._is_idle(now, quiet and self._paused_at is None):
            due.append(Due.IDLE)
        if self._ping_at is not None and self._interval is not None and now >= self._ping_at:
            self._ping_at = now + self._interval
            if self._lost_at is None or self.alive:
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

    def _is_lost(self, now: float) -> bool:
        if self._lost_at is None or now < self._lost_at:
            return False
        if not self.alive:
            return True
        self._lost_at = None
        return False

    def _is_slow(self, now: float) -> bool:
        if self._slow_at is None or now < self._slow_at:
            return False
        self._slow_at += max(0, self._come) / _PACE
        self._come = 0
        return now >= self._slow_at

    # -- Messages --------------------------------------------------------

    def begin_message(self, now: float, size: int) -> bool:
        """A message is under way, and so much of it is here; return whether it has a deadline.

        Of that counts no more than has come: it may be inflated. It came at
        once, or it would be under way already.
        """
        self.in_message = True
        self._come = min(size, self._last)
        if self._message_timeout is None:
            return False
        self._slow_at = now + self._message_timeout
        return True

    def came(self, size: int) -> None:
        """So many bytes have come at once."""
        self._last = size
        self._come += size

    def came_beside(self, size: int) -> None:
        """So many of them are none of the message's."""
        self._come -= size

    def end_message(self) -> None:
        """No message is under way."""
        self.in_message = False
        self._slow_at = None

    # -- Keepalive -------------------------------------------------------

    def ping(self, now: float) -> bytes:
        """Return the payload of a keepalive ping that is sent now. RFC 6455 section 5.5.2."""
        data = os.urandom(4)
        self._pings = (*self._pings, (data, now))[-_REMEMBERED:]
        self.alive = False
        if self._timeout is not None:
            self._lost_at = now + self._timeout
            if self._paused_at is not None:
                self._lost_at -= now - self._paused_at  # `resume` adds all of the pause
        return data

    def pong(self, data: bytes, now: float) -> bool:
        """Return whether a pong answers a keepalive ping, and note its latency.

        It answers those before, too: RFC 6455 section 5.5.3.
        """
        for index, (payload, sent) in enumerate(self._pings):
            if payload == data:
                self._pings = self._pings[index + 1 :]
                self.latency = now - sent
                if not self._pings:
                    self._lost_at = None
                return True
        return False
