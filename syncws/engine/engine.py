"""One I/O thread and one worker pool, shared by listeners and clients.

The threads start when the first listener or client opens and end with the
last. A process has a default engine; a fork gives the child a fresh one.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, NamedTuple, Protocol

from ..timing import Deadline, check_timeout
from .lane import Lanes
from .lookout import Running
from .loop import CURRENT, IOLoop
from .observer import Observer
from .workers import PoolStats, WorkerPool, parallel_threads

__all__ = ["Engine", "EngineStats", "Network", "default_engine", "engine_of"]

# Seconds that ending threads are waited for: they have nothing left to do,
# unless a callback does not return.
_JOIN = 1.0


class Network(Protocol):
    """What takes the place of the system's sockets. Any thread."""

    def listen(self, port: int, unix_path: str | None) -> Any:
        """Return a listening socket for a port, 0 for a free one, or a path.

        Raises:
            OSError: It cannot be listened on.
        """

    def connect(self, port: int, unix_path: str | None) -> Any:
        """Return a socket that is connected.

        Raises:
            OSError: Nobody listens there.
        """


class EngineStats(NamedTuple):
    """What an engine does now.

    Attributes:
        users: Open listeners and clients.
        threads: Worker threads; beside them there is the I/O thread.
        idle: Workers without work.
        blocked: Workers whose callback has held the others up, for a
            millisecond or longer: it waits for something, or computes.
        queued: Connections that wait for a worker.
    """

    users: int
    threads: int
    idle: int
    blocked: int
    queued: int


class _Runtime:
    """The threads of an engine, from its first user to its last."""

    def __init__(
        self,
        name: str,
        workers: int,
        max_workers: int,
        slow_after: float | None,
        owner: Engine,
    ) -> None:
        self.loop = owner._make_loop(f"{name}-io")
        self.pool = owner._pool_type(
            workers,
            max_workers,
            f"{name}-worker",
            self.loop.wake_if_dirty,
            owner,
            slow_after,
            self.loop.clock,
            parallel_threads(),
        )
        self.loop.pool = self.pool
        self.lanes = Lanes.of(self.loop, max_workers)
        try:
            self.loop.thread.start()
        except BaseException:
            self.loop.abandon()  # its descriptors
            raise

    def is_alive(self) -> bool:
        """Whether any of the threads is still there."""
        return self.loop.thread.is_alive() or self.pool.is_alive()

    def join(self, deadline: Deadline) -> bool:
        """Wait for the threads to end; return whether they have."""
        self.loop.thread.join(deadline.remaining())
        return not self.loop.thread.is_alive() and self.pool.join(deadline)


class Engine:
    """The threads behind listeners and clients.

    Args:
        workers: Threads that run callbacks, started with the first callback.
        max_workers: Threads that run callbacks at the most: the pool grows
            while callbacks block and shrinks again.
        name: Prefix of the threads' names.
        slow_callback_timeout: Seconds after which a callback that has not
            returned is warned of in the log, with its name and where it
            stands, once. None: never.

    The I/O thread is one, whatever the number of connections. Threads are
    daemonic: they do not keep a process alive.
    """

    #: Where listeners and clients find each other; None: by the system's sockets.
    network: Network | None = None

    _pool_type = WorkerPool

    def __init__(
        self,
        *,
        workers: int = 8,
        max_workers: int = 64,
        name: str = "syncws",
        slow_callback_timeout: float | None = 10.0,
    ) -> None:
        for label, value in (("workers", workers), ("max_workers", max_workers)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{label} must be an int, not {value!r}")
        if not 1 <= workers <= max_workers:
            raise ValueError(
                f"workers must be at least 1 and at most max_workers, {max_workers}, not {workers}"
            )
        if check_timeout("slow_callback_timeout", slow_callback_timeout) == 0:
            raise ValueError("slow_callback_timeout must be more than 0 seconds; None: never")
        self._slow_after = slow_callback_timeout
        self._observer: Observer | None = None
        self._workers = workers
        self._max_workers = max_workers
        self._name = name

        # Guarded by _lock.
        self._lock = threading.Lock()
        self._runtime: _Runtime | None = None
        self._users = 0
        self._ending: list[_Runtime] = []
        _engines.add(self)

    def __repr__(self) -> str:
        return f"<syncws.Engine {self._name!r}, {self._users} users>"

    def acquire(self) -> IOLoop:
        """Count one more user; the first starts the threads. Returns the loop to use."""
        with self._lock:
            if self._runtime is None or not self._runtime.loop.thread.is_alive():
                self._users = 0
                self._runtime = _Runtime(
                    self._name, self._workers, self._max_workers, self._slow_after, self
                )
            self._users += 1
            return self._runtime.loop

    def _make_loop(self, name: str) -> IOLoop:
        return IOLoop(name, owner=self)

    def lanes(self, loop: IOLoop) -> Lanes:
        """Return the lanes of `loop`, which is acquired."""
        with self._lock:
            runtime = self._runtime
            assert runtime is not None
            assert runtime.loop is loop
            return runtime.lanes

    def release(self, loop: IOLoop) -> None:
        """Count one user of `loop` less; with the last the threads end. Does not wait."""
        with self._lock:
            runtime = self._runtime
            if runtime is None or runtime.loop is not loop:
                return  # acquired before a fork
            self._users -= 1
            if self._users:
                return
            self._runtime = None
            self._ending = [one for one in self._ending if one.is_alive()]
            self._ending.append(runtime)
        loop.stop()

    def reap(self, timeout: float = _JOIN) -> None:
        """Wait for threads that have nothing left to do to end.

        A callback that has not returned by then is left behind. Does nothing
        in a thread of this engine's own.
        """
        if self.owns_current_thread():
            return
        deadline = Deadline(timeout)
        with self._lock:
            ending, self._ending = self._ending, []
        for runtime in ending:
            runtime.join(deadline)

    def owns_current_thread(self) -> bool:
        """Whether the caller runs in a thread of this engine: in a callback."""
        return getattr(CURRENT, "owner", None) is self

    def observe(self, observer: Observer | None) -> None:
        """Have an observer look on while callbacks run, for traces; None: nobody.

        It sees every callback of connections whose first callback is still to
        come; without one callbacks run as if this did not exist.

        Args:
            observer: Has a method `callback`, as `Observer` says.

        Raises:
            TypeError: It has none.
        """
        if observer is not None and not callable(getattr(observer, "callback", None)):
            raise TypeError(f"an observer has a method callback(endpoint, name), not {observer!r}")
        self._observer = observer

    @property
    def observer(self) -> Observer | None:
        """Who looks on while callbacks run."""
        return self._observer

    def stats(self) -> EngineStats:
        """Return what the engine does now."""
        with self._lock:
            pool = self._runtime.pool.stats() if self._runtime else PoolStats(0, 0, 0, 0)
            return EngineStats(self._users, *pool)

    def running(self) -> list[Running]:
        """Return what the workers are in the midst of, the longest first.

        Its seconds begin when the I/O thread first sees a call, which it does
        four times within `slow_callback_timeout`; without that they stay 0.
        """
        with self._lock:
            runtime = self._runtime
        return [] if runtime is None else runtime.pool.running()

    def _after_fork(self) -> None:
        """In the child: the threads are the parent's, and so are the connections."""
        runtime = self._runtime
        self._lock = threading.Lock()
        self._runtime = None
        self._users = 0
        self._ending = []
        if runtime is not None:
            runtime.loop.abandon()
            runtime.pool.abandon()


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_default_lock = threading.Lock()
_default: Engine | None = None


def default_engine() -> Engine:
    """Return the process's engine, made on first use."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Engine()
        return _default


def engine_of(given: object) -> Engine:
    """Return the engine that a user has given, or the process's if that is None.

    Raises:
        TypeError: It is none.
    """
    if given is None:
        return default_engine()
    if not isinstance(given, Engine):
        raise TypeError(f"engine must be a syncws.Engine or None, not {given!r}")
    return given


def _after_fork_in_child() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    CURRENT.owner = None  # a worker may have forked: here it is none
    for engine in list(_engines):
        engine._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
