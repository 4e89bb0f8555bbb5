"""Time that passes when a test says so."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from ..timing import check_timeout

__all__ = ["ManualClock"]

# Steps without a later timer after which `advance` goes on regardless.
_MOST_AT_ONCE = 1000


class Timed(Protocol):
    """What goes by a clock."""

    def next_due(self) -> float | None:
        """When there is something to do next; None: never."""

    def settle(self) -> None:
        """Wait until all that was to be done is done."""


class ManualClock:
    """A clock for a `MemoryEngine`, which stands still but for `advance`.

    It moves what the I/O thread does by itself: idle timeouts, keepalive pings
    and what they wait for, a listener's `handshake_timeout`, a message's
    `message_timeout`, `close_timeout`, and the waits of a client's `retry`
    after it has lost its connection.

    What a call that blocks waits for is in real seconds, so that no test hangs:
    the `timeout` of `receive`, `close`, `wait_closed` and `stop`, a
    `send_timeout`, and what the constructor of a client does.

    Calling it gives the time in seconds. Any thread.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._lock = threading.Lock()  # one advance at a time
        self._engines: weakref.WeakSet[Timed] = weakref.WeakSet()

    def __call__(self) -> float:
        return self._now

    def __repr__(self) -> str:
        return f"<syncws.testing.ManualClock at {self._now:.3f} s>"

    def join(self, engine: Timed) -> None:
        """Have an engine's time be this."""
        self._engines.add(engine)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        It goes from one thing that is due to the next, as time does: three
        times an idle_timeout of 20 s are due in a minute. After each, and
        before this returns, all that came of it is over: the bytes have
        arrived, and the callbacks have returned; see `MemoryEngine.settle`.

        Args:
            seconds: How long.

        Raises:
            TimeoutError: A callback has not returned within 5 real seconds.
        """
        check_timeout("seconds", seconds, optional=False)
        with self._lock:
            target = self._now + seconds
            self._settle()
            for _ in range(_MOST_AT_ONCE):
                due = min(filter(None, (one.next_due() for one in self._engines)), default=None)
                if due is None or due > target:
                    break
                self._now = max(self._now, due)
                self._settle()
            self._now = target
            self._settle()

    def _settle(self) -> None:
        for engine in list(self._engines):
            engine.settle()
