"""An engine whose listeners and clients meet in memory."""

from __future__ import annotations

import threading
import time

from ..engine.engine import Engine
from ..engine.loop import IOLoop
from ..engine.workers import WorkerPool
from ..timing import Clock, Deadline, check_timeout
from .clock import ManualClock
from .network import MemoryPoller, MemoryWakeup, Network

__all__ = ["MemoryEngine"]

# Seconds between looks at whether the workers are through, of which nobody tells.
_LOOK = 0.001

# Rounds of the I/O thread after which it has made all calls that were due:
# timers have their turn a round after they are found to be.
_ROUNDS = 3


class _Pool(WorkerPool):
    """Whose watch over callbacks that block goes by real time, whatever the clock says."""

    def unblock(self, now: float) -> None:
        super().unblock(time.monotonic())

    def look(self, now: float) -> bool:
        return super().look(time.monotonic())


class MemoryEngine(Engine):
    """An engine whose listeners and clients meet in memory: no port, no descriptor, no network.

    Everything else is what it is in production: `Listener`, `Client` and
    `FailoverClient` take it as their `engine`, and the same handshakes, frames,
    TLS, callbacks and threads do the work::

        engine = MemoryEngine()
        listener = syncws.Listener(9090, engine=engine)
        listener.attach("/chat", Chat())
        with listener, syncws.Client("ws://localhost:9090/chat", engine=engine) as client:
            client.send_text("hello")

    A port leads to the listener that was given it, whatever the host in the
    URL; so a listener for port 80 or 443 needs no rights. A proxy of the
    environment is not used. What is open ends as usual: with `close` and `stop`.

    Args:
        clock: Its time; a `ManualClock` to have it pass at will.
        workers: As for `Engine`.
        max_workers: As for `Engine`.
        name: As for `Engine`.
        slow_callback_timeout: As for `Engine`; it does not look at callbacks
            while a `ManualClock` stands still.
    """

    def __init__(
        self,
        *,
        clock: Clock = time.monotonic,
        workers: int = 2,
        max_workers: int = 16,
        name: str = "syncws-memory",
        slow_callback_timeout: float | None = 10.0,
    ) -> None:
        super().__init__(
            workers=workers,
            max_workers=max_workers,
            name=name,
            slow_callback_timeout=slow_callback_timeout,
        )
        self._clock = clock
        self._poller: MemoryPoller | None = None
        self.network: Network = Network()
        if isinstance(clock, ManualClock):
            clock.join(self)

    def _make_loop(self, name: str) -> IOLoop:
        self._poller = MemoryPoller(self.network)
        wakeup = MemoryWakeup(self.network)
        return IOLoop(
            name,
            self._clock,
            self,
            wait_clock=time.monotonic,
            poller=self._poller,
            wakeup=wakeup,
        )

    _pool_type = _Pool

    def settle(self, timeout: float = 5.0) -> None:
        """Wait until nothing is under way.

        Then every byte that was sent has arrived and was dealt with, every
        callback that was due has returned, and what these have sent has
        arrived as well. What waits for time, or for `receive`, may still wait.

        Args:
            timeout: Real seconds.

        Raises:
            RuntimeError: It is called from a callback, which is under way.
            TimeoutError: Something still is; the text names the callbacks.
        """
        check_timeout("timeout", timeout, optional=False)
        if self.owns_current_thread():
            raise RuntimeError("settle waits for callbacks, so it cannot be called from one")
        deadline = Deadline(timeout)
        for _ in range(_ROUNDS):
            self._ask(deadline)
        while not self._is_quiet():
            if deadline.remaining() == 0.0:
                running = ", ".join(one.call for one in self.running()) or "the I/O thread"
                raise TimeoutError(f"still under way after {timeout} s: {running}")
            with self.network.changed:
                self.network.changed.wait(_LOOK)

    def next_due(self) -> float | None:
        """When the I/O thread has something to do next by itself, on this engine's clock."""
        found = self._ask(Deadline(5.0))
        return found[0] if found else None

    def _ask(self, deadline: Deadline) -> list[float | None]:
        """Have the I/O thread look when something is due; nothing if there is no such thread."""
        with self._lock:
            loop = self._runtime.loop if self._runtime is not None else None
        if loop is None:
            return []
        found: list[float | None] = []
        done = threading.Event()

        def look() -> None:
            found.append(loop.next_due())
            done.set()

        loop.call_soon(look)
        while not done.wait(0.01) and loop.thread.is_alive():
            if deadline.remaining() == 0.0:
                raise TimeoutError("the I/O thread does not answer: a callback of logging hangs?")
        return found

    def _is_quiet(self) -> bool:
        """Whether the workers rest, and the I/O thread, and both still do after that."""
        with self._lock:
            runtime = self._runtime
        poller = self._poller
        if runtime is None or poller is None:
            return True
        before = poller.polls
        if not runtime.pool.is_idle():
            return False
        with self.network.changed:
            if not poller.asleep or poller.ready() or runtime.loop.has_calls():
                return False
        return runtime.pool.is_idle() and poller.polls == before

    def _after_fork(self) -> None:
        self.network.renew()
        super()._after_fork()
