"""What the I/O thread has to log: written by a worker, so that no handler holds it up.

Threads: `write` belongs to the I/O thread, `run` is a worker.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ..logs import log_safely

__all__ = ["Journal"]

# Lines that may wait while the workers are busy or a handler blocks; what is
# more is counted only. Whoever is refused at the door makes a line.
_MOST = 1000

# Lines that one turn of a worker writes before others have theirs.
_TURN = 64

_log = logging.getLogger("syncws.engine")


class Journal:
    """Lines for the log, in order, and a bounded number of them.

    Args:
        queue: Called in the I/O thread with this, to have a worker `run` it.
        again: Called in a worker with this, for the same.
    """

    __slots__ = ("_again", "_left_out", "_lines", "_queue", "_running")

    def __init__(self, queue: Callable[[Journal], None], again: Callable[[Journal], None]) -> None:
        self._queue = queue
        self._again = again
        self._lines: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._left_out = 0  # owned by the I/O thread
        # Held while this stands in the run queue or a worker runs it.
        self._running = threading.Lock()

    # -- I/O thread ------------------------------------------------------

    def write(self, log: logging.Logger, level: int, message: str, *args: object) -> None:
        """Log in a worker."""
        if log.isEnabledFor(level):
            self.call(log_safely, log, level, message, *args)

    def call(self, call: Callable[..., None], *args: Any) -> None:
        """Have `call(*args)` log in a worker."""
        if len(self._lines) >= _MOST:
            self._left_out += 1
            return
        if self._left_out:
            text = "%d lines were left out: the workers, or a handler of the log, were blocked"
            self._lines.append((log_safely, (_log, logging.WARNING, text, self._left_out)))
            self._left_out = 0
        self._lines.append((call, args))
        if self._running.acquire(False):
            self._queue(self)

    # -- Worker thread ---------------------------------------------------

    def run(self) -> None:
        """Write what waits, for one turn."""
        lines, running = self._lines, self._running
        for _ in range(_TURN):
            # As in `Dispatcher.run`: what this was queued for may be written.
            while not lines:
                running.release()
                if not (lines and running.acquire(False)):
                    return
            call, args = lines.popleft()
            call(*args)
        self._again(self)

    # -- Any thread ------------------------------------------------------

    def describe(self) -> str:
        """Say what runs."""
        return "a handler of the log"
