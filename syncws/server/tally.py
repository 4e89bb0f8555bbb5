"""What the stop of a listener waits for.

Threads: everything here may be called from any thread.
"""

from __future__ import annotations

import threading

from ..timing import Deadline

__all__ = ["Tally"]


class Tally:
    """Counts what a listener's stop waits for."""

    def __init__(self) -> None:
        # Guarded by _changed.
        self._changed = threading.Condition()
        self._open = 0  # sockets, listening ones included
        # Resources, requests, and connections whose on_close has not returned.
        self._running = 0

    def __repr__(self) -> str:
        return f"<Tally of {self._open} sockets, {self._running} callbacks>"

    def opened(self, number: int = 1) -> None:
        """There are so many more sockets."""
        with self._changed:
            self._open += number

    def closed(self, number: int = 1) -> None:
        """There are so many less."""
        with self._changed:
            self._open -= number
            self._changed.notify_all()

    def begun(self, number: int = 1) -> None:
        """So much more of the user's code is to run."""
        with self._changed:
            self._running += number

    def done(self) -> None:
        """One of those has returned, or will never be called."""
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def forget(self) -> None:
        """In a forked child: who held the lock is not here, nor what was counted."""
        self._changed = threading.Condition()
        self._open = self._running = 0

    def wait(self, deadline: Deadline, sockets_only: bool) -> bool:
        """Wait until there is nothing, or no socket; return whether that is so."""
        with self._changed:
            while self._open or (self._running and not sockets_only):
                remaining = deadline.remaining()
                if remaining == 0.0:
                    return False
                self._changed.wait(remaining)
        return True
