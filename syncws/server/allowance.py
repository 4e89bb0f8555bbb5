"""How long a client may take over something."""

from __future__ import annotations

__all__ = ["Allowance"]

# Bytes a second that a client must manage in the long run.
_LEAST_RATE = 1024


class Allowance:
    """The time that a client has for a body, or to take a response.

    Something must move within each `timeout` seconds, and after the first of
    them at least a KiB a second on the average: a trickle cannot go on for
    ever. Time counts only while the client is waited for.

    Args:
        timeout: Seconds. None: no limit.
    """

    __slots__ = ("_moved", "_seen", "_size", "_spent", "_timeout", "_waiting")

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._waiting = False
        self._size = 0
        self._spent = 0.0  # seconds that it was waited for
        self._seen = 0.0  # when this was last brought up to date
        self._moved = 0.0  # when something moved, or the wait began

    def update(self, waiting: bool, size: int, now: float) -> float | None:
        """Say how things stand; return when the time is up, or None if it does not run.

        Args:
            waiting: Whether it is the client's turn, from now on.
            size: Bytes that have moved so far.
            now: The time.
        """
        if self._timeout is None:
            return None
        if self._waiting:
            self._spent += now - self._seen
        if size > self._size or not self._waiting:
            self._moved = now
        self._waiting, self._size, self._seen = waiting, size, now
        if not waiting:
            return None
        left = self._timeout + size / _LEAST_RATE - self._spent
        return min(self._moved + self._timeout, now + left)
