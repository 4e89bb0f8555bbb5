"""The worker pool: a few threads that run callbacks.

All runnable connections stand in one queue, and as a rule one worker is awake
to serve it: many runnable threads would only fight for the interpreter lock.
Another is woken when the queue has not moved for a millisecond, which means
that the one awake has blocked in a callback. A blocked worker no longer counts,
so the next connection with work wakes another at once; and when every worker
stays blocked the pool grows, up to its bound. Where there is no interpreter
lock, as many are awake as there are cores.

Threads: `submit` and `unblock` belong to the I/O thread, `run` is a worker,
`stop`, `join` and `stats` may be called from any thread.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..logs import log_safely
from ..timing import Clock, Deadline
from .lookout import Lookout, Running, Watched, describe
from .loop import CURRENT, STALL

__all__ = ["PoolStats", "WorkerPool", "parallel_threads"]

# Seconds that a worker beyond the pool's usual size stays without work.
_LINGER = 10.0

# Looks in a row at a queue that stands still, with all threads in callbacks,
# after which the pool grows. Looks and not seconds: on a busy machine the
# threads may just not have had their turn, but then the I/O thread, which
# looks, has not had its either. Each thread that changes nothing halves them,
# down to the last.
_GROW_AFTER = 16
_GROW_AGAIN_AFTER = 2

# Seconds between looks at a queue that stands still with all threads blocked.
_LONGEST_STALL = 0.1

_log = logging.getLogger("syncws.engine")


def parallel_threads() -> int:
    """Return how many threads can run Python code at once: one, but without the lock of PEP 703."""
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Work(Protocol):
    """What a worker runs.

    It may have `current`, the part that it is in the midst of, and `describe`,
    which says so in words; see `Lookout`.
    """

    def run(self) -> None:
        """Do some of the work; queue again for the rest."""


class PoolStats(NamedTuple):
    """The state of a pool: threads, those waiting for work or blocked, the queue's length."""

    threads: int
    idle: int
    blocked: int
    queued: int


class _Worker(Watched):
    """One thread of the pool."""

    __slots__ = ("epoch", "gate")

    def __init__(self, body: Callable[[_Worker], None], name: str) -> None:
        super().__init__()
        self.gate = threading.Lock()  # released to wake the worker
        self.gate.acquire()
        self.epoch = 0  # the pool's when this worker last counted as active
        self.thread = threading.Thread(target=body, args=(self,), name=name, daemon=True)


class WorkerPool:
    """Threads that serve one run queue.

    Args:
        size: Threads that are started with the first work and then stay.
        max_size: Threads at the most, while callbacks block.
        name: Prefix of the threads' names.
        wake_loop: Called when the queue becomes empty: answers that were
            queued meanwhile can be written in one go.
        owner: Whose threads these are: an engine.
        slow_after: Seconds after which a call that has not returned is warned
            of; None: never.
        clock: The loop's clock.
        awake: Workers that serve the queue at once as a rule.
    """

    def __init__(
        self,
        size: int,
        max_size: int,
        name: str,
        wake_loop: Callable[[], None],
        owner: object = None,
        slow_after: float | None = None,
        clock: Clock = time.monotonic,
        awake: int = 1,
    ) -> None:
        self._owner = owner
        self._awake = awake
        self._clock = clock
        self._lookout = None if slow_after is None else Lookout(slow_after, name, max_size)
        # Seconds between calls of `look` while there is work; None: it is not called.
        self.look_interval = None if self._lookout is None else self._lookout.interval
        self.queue: deque[Work] = deque()
        self._size = size
        self._max_size = max_size
        self._name = name
        self._wake_loop = wake_loop

        # Guarded by _lock.
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._threads: set[threading.Thread] = set()  # theirs; those that end while stopping too
        self._idle: list[_Worker] = []
        self._active = 0  # workers neither idle nor taken for blocked
        self._epoch = 0  # counts the times that all active ones were taken for blocked
        self._started = 0
        self._stopping = False

        # Written by workers without the lock: only whether it moves matters.
        self._progress = 0
        # Owned by the I/O thread.
        self.patience = STALL  # seconds until `unblock` is to be called again
        self._seen_progress = -1
        self._stalled_since = 0.0
        self._stalls = 0  # looks in a row at which it had not moved
        self._grow_after = _GROW_AFTER
        self._spawn_failed = False

    # -- I/O thread ------------------------------------------------------

    def submit(self, work: list[Work]) -> None:
        """Queue `work` and see that a worker is awake for it."""
        queue = self.queue
        if not queue:
            self._seen_progress = -1
        queue.extend(work)
        with self._lock:
            if not self._workers:
                while len(self._workers) < self._size and self._spawn():
                    pass
            if self._active < self._awake:
                self._wake_some(len(work))

    def unblock(self, now: float) -> None:
        """Wake another worker if the queue has not moved for a while."""
        if self._progress != self._seen_progress:
            self._seen_progress = self._progress
            self._stalled_since = now
            self._stalls = 0
            self._grow_after = _GROW_AFTER
            self.patience = STALL
        elif now - self._stalled_since >= self.patience:
            self._stalled_since = now
            self._stalls += 1
            grow = self._stalls > self._grow_after
            with self._lock:
                self._epoch += 1
                self._active = 0
                woken = self._wake_one(grow)
            if woken:
                self._stalls = 0
                self.patience = STALL
                if grow:
                    self._grow_after = max(self._grow_after // 2, _GROW_AGAIN_AFTER)
            elif grow:
                # With every thread blocked, looking more often helps nobody:
                # the first that comes back serves the queue.
                self.patience = min(2 * self.patience, _LONGEST_STALL)

    def _wake_some(self, most: int) -> None:
        """Requires _lock."""
        for _ in range(min(self._awake - self._active, most)):
            if not self._wake_one():
                return

    def _wake_one(self, grow: bool = False) -> bool:
        """Return whether there was one to wake. Requires _lock.

        Args:
            grow: Start one beyond the pool's usual size if need be.
        """
        if not self._idle:
            bound = self._max_size if grow else self._size
            if len(self._workers) >= bound or not self._spawn():
                return False
        worker = self._idle.pop()
        worker.epoch = self._epoch
        self._active += 1
        worker.gate.release()
        return True

    def _spawn(self) -> bool:
        """Start one more idle worker. Requires _lock."""
        self._started += 1
        worker = _Worker(self.run, f"{self._name}-{self._started}")
        try:
            worker.thread.start()
        except RuntimeError as exc:
            if not self._spawn_failed:
                self._spawn_failed = True
                name = worker.thread.name
                log_safely(_log, logging.ERROR, "could not start worker %s", name, error=exc)
            return False
        self._spawn_failed = False
        self._workers.add(worker)
        self._threads.add(worker.thread)
        self._idle.append(worker)
        return True

    def look(self, now: float) -> bool:
        """Warn of what has run for long; return whether anything runs, or is about to."""
        assert self._lookout is not None
        with self._lock:
            workers = list(self._workers)
            awake = len(workers) > len(self._idle)
        return self._lookout.look(workers, now) or awake or bool(self.queue)

    # -- Worker threads --------------------------------------------------

    def run(self, worker: _Worker) -> None:
        """A worker's body."""
        CURRENT.owner = self._owner
        alive = self._park(worker)
        while alive:
            self._serve(worker)
            alive = self._rest(worker)

    def _serve(self, worker: _Worker) -> None:
        """Run what is queued until nothing is."""
        queue = self.queue
        while True:
            try:
                work = queue.popleft()
            except IndexError:
                return
            if not queue:
                # Who found the queue filled has left this to us; see
                # IOLoop.flush_soon. Not behind the work, which may block.
                self._wake_loop()
            worker.work = work
            try:
                work.run()
            except BaseException as exc:
                log_safely(_log, logging.ERROR, "%r failed", work, error=exc)
            self._progress += 1
            if worker.epoch != self._epoch:
                # Taken for blocked meanwhile, but here it is again.
                with self._lock:
                    worker.epoch = self._epoch
                    self._active += 1

    def _rest(self, worker: _Worker) -> bool:
        """Become idle until there is work; return False when this worker is to end."""
        with self._lock:
            if self.queue:
                return True
            worker.work = None
            if worker.epoch == self._epoch:
                self._active -= 1
            if self._stopping:
                self._retire(worker)
                return False
            self._idle.append(worker)
        return self._park(worker)

    def _park(self, worker: _Worker) -> bool:
        """Wait among the idle; return False when this worker is to end."""
        while not worker.gate.acquire(timeout=self._patience()):
            with self._lock:
                if worker in self._idle and len(self._workers) > self._size:
                    self._idle.remove(worker)
                    self._retire(worker)
                    return False
        with self._lock:
            if self._stopping and not self.queue:
                self._retire(worker)
                return False
        return True

    def _patience(self) -> float:
        """Seconds that an idle worker stays; -1 for ever."""
        return _LINGER if len(self._workers) > self._size else -1

    def _retire(self, worker: _Worker) -> None:
        """Requires _lock."""
        self._workers.discard(worker)
        if not self._stopping:
            self._threads.discard(worker.thread)

    # -- Any thread ------------------------------------------------------

    def is_idle(self) -> bool:
        """Whether every worker rests, and there is nothing to do."""
        with self._lock:
            return not self.queue and len(self._idle) == len(self._workers)

    def stats(self) -> PoolStats:
        """Return the state of the pool."""
        with self._lock:
            threads, idle = len(self._workers), len(self._idle)
            # One that is waking counts as active before it has left the idle.
            return PoolStats(threads, idle, max(0, threads - idle - self._active), len(self.queue))

    def running(self) -> list[Running]:
        """Return what the workers are in the midst of, the longest first."""
        now = self._clock()
        found = []
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            work, step, since = worker.work, worker.step, worker.since
            if work is not None:
                seen = step is (getattr(work, "current", None) or work)
                seconds = max(0.0, now - since) if seen else 0.0
                found.append(Running(worker.thread.name, describe(work), seconds))
        return sorted(found, key=lambda running: running.seconds, reverse=True)

    def stop(self) -> None:
        """End every worker once the queue is empty and its callback has returned."""
        with self._lock:
            self._stopping = True
            idle, self._idle = self._idle, []
            for worker in idle:
                worker.epoch = self._epoch
                self._active += 1
                worker.gate.release()

    def abandon(self) -> None:
        """In a forked child: what is queued is the parent's, as the workers are.

        One of them may have forked, in a callback. It ends when that returns.
        """
        self._lock = threading.Lock()
        self._stopping = True
        self.queue.clear()

    def is_alive(self) -> bool:
        """Whether any of the workers is still there."""
        with self._lock:
            return any(thread.is_alive() for thread in self._all_threads())

    def _all_threads(self) -> list[threading.Thread]:
        """Requires _lock."""
        reporter = self._lookout.reporter if self._lookout is not None else None
        return [*self._threads, *([reporter] if reporter is not None else [])]

    def join(self, deadline: Deadline) -> bool:
        """Wait for the workers to end after `stop`; return whether they have."""
        with self._lock:
            threads = self._all_threads()
        for thread in threads:
            thread.join(deadline.remaining())
        return not any(thread.is_alive() for thread in threads)
