"""Calls that may block for long, a bounded number at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .loop import IOLoop

__all__ = ["Lane"]


class Lane:
    """Makes calls in workers, in order, and so few at once that workers are left for callbacks.

    Args:
        loop: Whose workers make the calls.
        width: Calls at once.
    """

    __slots__ = ("_busy", "_loop", "_waiting", "_width")

    def __init__(self, loop: IOLoop, width: int) -> None:
        self._loop = loop
        self._width = width

        # Owned by the I/O thread.
        self._busy = 0
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    # -- I/O thread ------------------------------------------------------

    def submit(self, call: Callable[..., None], *args: Any) -> None:
        """Make `call(*args)` in a worker, once there is room for it."""
        if self._busy < self._width:
            self._busy += 1
            self._loop.call_in_worker(self._make, call, args)
        else:
            self._waiting.append((call, args))

    def _next(self) -> None:
        self._busy -= 1
        if self._waiting:
            call, args = self._waiting.popleft()
            self.submit(call, *args)

    # -- Worker thread ---------------------------------------------------

    def _make(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        try:
            call(*args)
        finally:
            self._loop.call_soon(self._next)
