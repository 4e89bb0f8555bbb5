"""Calls that may block for long, a bounded number at once.

Callbacks come first: what else the workers do has lanes, which leave some of
them for callbacks however long it takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from .lookout import describe_call
from .loop import IOLoop

__all__ = ["Lane", "Lanes"]


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

    def abort(self) -> None:
        """The loop ends: make all calls that wait. They find that it has ended."""
        waiting, self._waiting = self._waiting, deque()
        for call, args in waiting:
            self._loop.call_in_worker(call, *args)

    def on_loop_error(self, error: BaseException) -> None:
        """Making room raised, which it does not."""

    def abandon(self) -> None:
        """In a forked child: the calls are the parent's."""
        self._waiting.clear()

    # -- Worker thread ---------------------------------------------------

    def _make(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        try:
            call(*args)
        finally:
            self._loop.call_soon(self._next)

    # -- Any thread ------------------------------------------------------

    def describe_call(self, call: Callable[..., None], args: tuple[Any, ...]) -> str:
        """Say what is called."""
        return describe_call(call, args)


class Lanes(NamedTuple):
    """What workers do beside callbacks.

    Attributes:
        dialing: Connecting clients again.
        deciding: Upgrade resources.
        serving: HTTP requests.
    """

    dialing: Lane
    deciding: Lane
    serving: Lane

    @classmethod
    def of(cls, loop: IOLoop, workers: int) -> Lanes:
        """Return lanes that together take three quarters of the workers."""
        lanes = cls(
            Lane(loop, max(1, workers // 8)),
            Lane(loop, max(1, workers // 4)),
            Lane(loop, max(1, 3 * workers // 8)),
        )
        for lane in lanes:
            loop.own(lane)
        return lanes
