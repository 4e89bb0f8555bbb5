"""The I/O thread: waits for sockets and timers and serves them.

Threads: `run` is the I/O thread. `call_soon`, `flush_soon`, `own` and `stop` may be
called from any thread and do not block; everything else only from the I/O
thread.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..logs import log_safely
from ..timing import Clock
from .journal import Journal
from .lookout import describe_call
from .poller import MOST_READY, READ, WRITE, Poller, make_poller
from .timers import Timer, Timers
from .wakeup import Wakeup

__all__ = ["BUFFER_SIZE", "READ", "WRITE", "Handler", "IOLoop"]

# The longest wait, in seconds; far timers are looked at again then. The
# system's own limit is some weeks.
_LONGEST = 3600.0

# Bytes received at once. One buffer serves all connections: those with much to
# read get it in few calls, those with little need none of their own.
BUFFER_SIZE = 262_144

# How long a run queue may stand still before another worker is woken: the one
# that is awake has blocked in a callback. Seconds.
STALL = 0.001

# Connections with work from which the workers are left alone with it.
_BATCH = 8

_log = logging.getLogger("syncws.engine")

#: The engine that the current thread belongs to is its `owner`, if any.
CURRENT = threading.local()


class Failing(Protocol):
    """What the loop makes calls for."""

    def on_loop_error(self, error: BaseException) -> None:
        """A call for this one raised; it must give its descriptor up. In the I/O thread."""


class Owned(Failing, Protocol):
    """What ends with the loop. Every method runs in the I/O thread."""

    def abort(self) -> None:
        """End now: the loop stops."""

    def abandon(self) -> None:
        """Close this process's copies of descriptors, which belong to the parent process."""


class Handler(Owned, Protocol):
    """What has a descriptor."""

    def on_ready(self, mask: int) -> None:
        """The descriptor is readable, writable or both."""


class Flushable(Failing, Protocol):
    """What can have bytes queued for the I/O thread."""

    def flush(self) -> None:
        """Write what is queued."""


class Auditor(Protocol):
    """Who looks after what waits."""

    def look_later(self) -> None:
        """Something waits for a worker."""


class Waker(Failing, Protocol):
    """What can be made readable from any thread; see `Wakeup`."""

    def on_ready(self, mask: int) -> None:
        """It is readable."""

    def wake(self) -> None:
        """Become readable."""

    def close(self) -> None:
        """Release the descriptors."""


class RunQueue(Protocol):
    """What the loop hands runnable work to; see `WorkerPool`."""

    queue: deque[Any]
    patience: float  # seconds until `unblock` is to be called again
    look_interval: float | None  # seconds between calls of `look` while there is work

    def submit(self, work: list[Any]) -> None:
        """Queue `work` and see that a worker is awake for it."""

    def unblock(self, now: float) -> None:
        """Wake another worker if the queue stands still."""

    def look(self, now: float) -> bool:
        """Look at what runs for long; return whether anything runs."""

    def stop(self) -> None:
        """End the workers when the queue is empty: nothing more is submitted."""


class _Errand:
    """A call on its way to a worker."""

    __slots__ = ("_args", "_call")

    def __init__(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._call = call
        self._args = args

    def run(self) -> None:
        """Make the call."""
        self._call(*self._args)

    def describe(self) -> str:
        """Say what is called."""
        return describe_call(self._call, self._args)


class IOLoop:
    """One selector, one timer heap, one thread.

    A round: wait; serve the sockets that are ready; make the calls of other
    threads; write what was queued; make the timers' calls; hand the
    connections that have work to the workers, all at once, and if they are
    many let the workers deal with them.
    """

    def __init__(
        self,
        name: str,
        clock: Clock = time.monotonic,
        owner: object = None,
        *,
        wait_clock: Clock | None = None,
        poller: Poller | None = None,
        wakeup: Waker | None = None,
    ) -> None:
        self.clock = clock
        self._wait_clock = wait_clock
        self._owner = owner
        self.thread = threading.Thread(target=self.run, name=name, daemon=True)
        self.pool: RunQueue | None = None
        self.abandoned = False  # it is the parent process's: nothing called here will run

        # Owned by the I/O thread.
        self.buffer = bytearray(BUFFER_SIZE)  # what is received, until it is dealt with
        self.ready: list[Any] = []  # connections that got work in this round
        self._timers = Timers()
        self._crowded = 0  # rounds for which timers have waited
        self._due = clock()  # up to when the timers are due that this round may call
        self._stopping = False
        self._looking = False  # a timer is set for `_look`
        self.budgets: list[Auditor] = []  # see `Budget`
        self.journal = Journal(self._run_later, self._run_again)  # what is to be logged

        # Any thread: what is done with these is atomic.
        self._handlers: set[Owned] = set()
        self._calls: deque[tuple[Failing | None, Callable[..., None], tuple[Any, ...]]] = deque()
        self.dirty: deque[Flushable] = deque()  # what is to be flushed; see `flush_soon`
        self._wakeup: Waker = wakeup or Wakeup()
        try:
            self._poller = poller or make_poller()
            self._poller.register(self._wakeup, READ, self._wakeup)
        except BaseException:
            self._wakeup.close()
            raise
        # True while the I/O thread may be waiting. It sets this before it
        # looks at _calls and dirty for the last time; others fill those
        # before they look at this. So either side sees the other.
        self._waiting = False
        # The same for when it waits for the workers, on a lock that is let go.
        self._pausing = False
        self._pause = threading.Lock()
        self._pause.acquire()

    # -- Any thread ------------------------------------------------------

    def call_soon(
        self, call: Callable[..., None], *args: Any, owner: Failing | None = None
    ) -> None:
        """Make `call(*args)` in the I/O thread. `owner` is told if it raises."""
        self._calls.append((owner, call, args))
        self._wake()

    def flush_soon(self, connection: Flushable) -> None:
        """Have `connection.flush()` called in the I/O thread.

        While the run queue has work the wake-up is left to whoever empties it
        (`wake_if_dirty`), so that a batch of answers costs one wake-up.
        """
        self.dirty.append(connection)
        if not (self.pool is not None and self.pool.queue):
            self._wake()

    def flush_all_soon(self, connections: Sequence[Flushable]) -> None:
        """Do what `flush_soon` does for many at once."""
        self.dirty.extend(connections)
        if not (self.pool is not None and self.pool.queue):
            self._wake()

    def wake_if_dirty(self) -> None:
        """Wake the I/O thread if it waits for that: the run queue is empty."""
        if self.dirty or self._pausing:
            self._wake()

    def call_in_worker(self, call: Callable[..., None], *args: Any) -> None:
        """Make `call(*args)` in a worker: it may run a user's code. In the I/O thread only."""
        self.ready.append(_Errand(call, args))

    def _run_later(self, work: Any) -> None:
        """In the I/O thread only."""
        self.ready.append(work)

    def _run_again(self, work: Any) -> None:
        """In a worker, which has had its turn with it."""
        assert self.pool is not None
        self.pool.queue.append(work)

    def own(self, handler: Owned) -> None:
        """Have `handler` aborted when the loop ends, and abandoned in a forked child.

        At once, and not in the I/O thread only: a fork may come any time.
        """
        self._handlers.add(handler)

    def disown(self, handler: Owned) -> None:
        """Forget `handler`: it has no descriptor any more."""
        self._handlers.discard(handler)

    @property
    def wait_clock(self) -> Clock:
        """What calls that block go by: the clock, unless it passes as a test says."""
        return self._wait_clock or self.clock

    def has_calls(self) -> bool:
        """Whether the I/O thread has something to do for others."""
        return bool(self._calls or self.dirty or self.ready)

    def stop(self) -> None:
        """End the thread; what is still registered is aborted."""
        self.call_soon(self._stop)

    def in_thread(self) -> bool:
        """Whether the caller is the I/O thread."""
        return threading.current_thread() is self.thread

    def join_engine(self) -> None:
        """Count the current thread among those of this loop's engine."""
        CURRENT.owner = self._owner

    def _wake(self) -> None:
        if self._pausing:
            self._pausing = False
            try:  # no name of this module: see Wakeup.wake
                self._pause.release()
            except RuntimeError:  # another thread was as quick
                pass
        elif self._waiting:
            self._waiting = False
            self._wakeup.wake()

    # -- I/O thread ------------------------------------------------------

    def register(self, fileobj: Any, mask: int, handler: Handler) -> None:
        """Call `handler.on_ready` when `fileobj` is ready."""
        self._poller.register(fileobj, mask, handler)

    def modify(self, fileobj: Any, mask: int, handler: Handler) -> None:
        """Wait for `mask` from now on, for `handler`."""
        self._poller.modify(fileobj, mask, handler)

    def unregister(self, fileobj: Any) -> None:
        """Forget `fileobj`, whether or not it is known."""
        self._poller.unregister(fileobj)

    def call_at(self, when: float, call: Callable[[], None], owner: Failing) -> Timer:
        """Make `call` at `when` on this loop's clock. `owner` is told if it raises."""
        return self._timers.add(when, functools.partial(self.guard, owner, call))

    def next_due(self) -> float | None:
        """When the next timer is due on this loop's clock; None: there is none."""
        return self._timers.next_due()

    def run(self) -> None:
        """The thread's body."""
        self.join_engine()
        try:
            while not self._stopping:
                self._round()
        finally:
            for handler in list(self._handlers):
                self.guard(handler, handler.abort)
            self._make_calls()
            self._poller.close()
            self._wakeup.close()
            if self.pool is not None:
                if self.ready:
                    self.pool.submit(self.ready)
                self.pool.stop()

    def abandon(self) -> None:
        """In a forked child: close its copies of the descriptors; the thread is not here."""
        self.abandoned = True
        for handler in list(self._handlers):
            with contextlib.suppress(Exception):  # a fork may come amid anything
                handler.abandon()
        self._poller.close()
        self._wakeup.close()

    def _round(self) -> None:
        pool = self.pool
        self._waiting = True
        ready = self._poller.poll(self._patience())
        self._waiting = False
        for handler, mask in ready:
            try:
                handler.on_ready(mask)
            except Exception as exc:
                self._failed(handler, exc)
        if self._calls:
            self._make_calls()
        if self.dirty:
            self._flush()
        # Timers judge peers, whose bytes may have come while this process
        # stood still: what was due at the end of the round before is due now
        # that the sockets were looked at since.
        due, self._due = self._due, self.clock()
        now = self._due
        if len(ready) >= MOST_READY and self._crowded * MOST_READY < len(self._handlers):
            self._crowded += 1
            self._due = due  # others may be ready as well: their turn comes first
        else:
            self._crowded = 0
            for call in self._timers.pop_due(due):
                call()
        if pool is not None:
            if self.ready:
                pool.submit(self.ready)
                self.ready = []
                if not self._looking:
                    self._look_later(pool, now)
                if len(pool.queue) >= _BATCH:
                    self._let_workers_run(pool)
                    now = self.clock()
            if pool.queue:
                pool.unblock(now)
                for budget in self.budgets:
                    budget.look_later()

    def _look_later(self, pool: RunQueue, now: float) -> None:
        """There is work: look after what does not return, until nothing runs."""
        self._looking = True
        if pool.look_interval is not None:
            self._timers.add(now + pool.look_interval, self._look)

    def _look(self) -> None:
        self._looking = False
        pool = self.pool
        assert pool is not None
        now = self.clock()
        if pool.look(now):
            self._look_later(pool, now)

    def _let_workers_run(self, pool: RunQueue) -> None:
        """Many have work: wait until the workers are through, or have blocked.

        In the poller every answer's answer would wake this thread, for little,
        and it would fight with the workers for the interpreter lock.
        """
        self._pausing = True
        if pool.queue and not self._calls:
            self._pause.acquire(timeout=STALL)
        self._pausing = False
        self._pause.acquire(False)  # if it was let go too late
        if self.dirty and not pool.queue:
            self._flush()

    def _patience(self) -> float | None:
        """Seconds that this round may wait."""
        # The queue first: who empties it looks at dirty afterwards.
        queued = self.pool is not None and bool(self.pool.queue)
        if self._calls or self.dirty or self.ready:
            return 0
        due = self._timers.next_due()
        timeout = None if due is None else min(max(0.0, due - self.clock()), _LONGEST)
        if queued and self.pool is not None:
            patience = self.pool.patience
            return patience if timeout is None else min(timeout, patience)
        return timeout

    def _make_calls(self) -> None:
        for _ in range(len(self._calls)):
            owner, call, args = self._calls.popleft()
            self.guard(owner, call, *args)

    def _flush(self) -> None:
        dirty = self.dirty
        for _ in range(len(dirty)):
            connection = dirty.popleft()
            try:
                connection.flush()
            except Exception as exc:
                self._failed(connection, exc)

    def guard(self, owner: Failing | None, call: Callable[..., None], *args: Any) -> None:
        """Make a call at once; if it raises, only `owner` is affected. In the I/O thread only."""
        try:
            call(*args)
        except Exception as exc:
            self._failed(owner, exc)

    def _failed(self, handler: Failing | None, error: Exception) -> None:
        log_safely(_log, logging.ERROR, "a call in the I/O thread failed", error=error)
        if handler is not None:
            try:
                handler.on_loop_error(error)
            except Exception as exc:
                log_safely(_log, logging.ERROR, "could not give up %r", handler, error=exc)

    def _stop(self) -> None:
        self._stopping = True
