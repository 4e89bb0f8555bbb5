"""Deadlines on the monotonic clock, and waits that grow."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

__all__ = ["Backoff", "Clock", "Deadline", "check_timeout"]

Clock = Callable[[], float]


# Seconds that the system can wait for at once: 2**31 milliseconds, 24 days.
_LONGEST = 2_147_483


def check_timeout(name: str, value: float | None, *, optional: bool = True) -> float | None:
    """Return `value` if it is a number of seconds that can be waited for.

    None will do as well if it is `optional`.
    """
    if value is None:
        if optional:
            return None
        raise TypeError(f"{name} must be a number of seconds, not None")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        also = " or None" if optional else ""
        raise TypeError(f"{name} must be a number of seconds{also}, not {value!r}")
    if not 0 <= value <= _LONGEST:
        also = ", or None for no limit" if optional else ""
        raise ValueError(f"{name} must be from 0 to {_LONGEST} seconds{also}, not {value!r}")
    return value


class Deadline:
    """A point in time that several steps share.

    Args:
        timeout: Seconds from now, or None for no deadline.
        clock: Monotonic seconds; another one in tests.
    """

    __slots__ = ("_clock", "_when")

    def __init__(self, timeout: float | None, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._when = None if timeout is None else clock() + timeout

    def remaining(self) -> float | None:
        """Seconds left, never negative; None if there is no deadline."""
        if self._when is None:
            return None
        return max(0.0, self._when - self._clock())


class Backoff:
    """Waits between attempts, each longer than the one before.

    Args:
        interval: Seconds of the first.
        factor: What each is longer by.
        longest: Seconds that none is over.
        jitter: The part of each that is random, 0 to 1.
        rand: Random numbers from 0 to 1; others in tests.
    """

    __slots__ = ("_factor", "_interval", "_jitter", "_longest", "_next", "_rand")

    def __init__(
        self,
        interval: float,
        factor: float,
        longest: float,
        jitter: float,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._interval = self._next = interval
        self._factor = factor
        self._longest = longest
        self._jitter = jitter
        self._rand = rand

    def next(self) -> float:
        """Return the seconds to wait now."""
        wait = self._next
        self._next = min(wait * self._factor, self._longest)
        # Leaves room for jitter, or those that are at the longest would meet.
        wait = min(wait, self._longest / (1 + self._jitter))
        return wait * (1 + self._jitter * (2 * self._rand() - 1))

    def reset(self) -> None:
        """Begin again with the first."""
        self._next = self._interval
