"""Timers in one heap, without a thread."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

__all__ = ["Timer", "Timers"]


class Timer:
    """A call that is due at a time; `cancel` forgets it."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Never make the call. Harmless afterwards and twice."""
        self.call = None


class Timers:
    """The timers of one thread.

    A cancelled timer stays in the heap until it is due, or until most of the
    heap is cancelled ones.
    """

    __slots__ = ("_added", "_heap", "_next_sweep")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._added = 0
        self._next_sweep = 64

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, call: Callable[[], None]) -> Timer:
        """Make `call` at `when`, in monotonic seconds."""
        timer = Timer(when, call)
        self._added += 1
        heapq.heappush(self._heap, (when, self._added, timer))
        if len(self._heap) >= self._next_sweep:
            self._heap = [entry for entry in self._heap if entry[2].call is not None]
            heapq.heapify(self._heap)
            self._next_sweep = max(64, 2 * len(self._heap))
        return timer

    def next_due(self) -> float | None:
        """When the next timer is due, or None."""
        heap = self._heap
        while heap and heap[0][2].call is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> Iterator[Callable[[], None]]:
        """Take off the calls that are due at `now`, and yield them, the earliest first.

        Each may cancel those after it. What it adds is not due before the next time.
        """
        due = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            due.append(heapq.heappop(heap)[2])
        for timer in due:
            call, timer.call = timer.call, None
            if call is not None:
                yield call
