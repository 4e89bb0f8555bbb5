"""What ends a listener that serves for ever: a stop, or a signal."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

__all__ = ["Stops"]

# Seconds for which `wait` may sleep through a signal.
_LOOK = 0.5

# What a signal puts where a stop puts the count of starts: it always counts.
_SIGNAL = sys.maxsize


class Stops:
    """Tells whoever serves of stops, each of them the count of starts then."""

    def __init__(self) -> None:
        # The one queue that may be filled in a signal handler.
        self._queue: SimpleQueue[int] = SimpleQueue()

    def put(self, start: int) -> None:
        """What was started as number `start` has been stopped."""
        self._queue.put(start)

    def forget(self) -> None:
        """Forget those that came so far: a signal too many, the last time."""
        while not self._queue.empty():
            self._queue.get()

    def wait(self, start: int) -> None:
        """Wait for a signal, or for a stop of start number `start`; those before it are over."""
        while self._next() < start:
            pass

    def _next(self) -> int:
        """Wait for one, and wake up now and then.

        A signal that comes right before the thread sleeps is noticed only when
        it wakes: Python's handler would wait as long, perhaps for ever.
        """
        while True:
            with contextlib.suppress(Empty):
                return self._queue.get(timeout=_LOOK)

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Have Ctrl-C and SIGTERM count as stops, if this is the main thread."""
        handlers: dict[int, Any] = {}
        try:
            if threading.current_thread() is threading.main_thread():
                for wanted in (signal.SIGINT, signal.SIGTERM):
                    handlers[wanted] = signal.signal(wanted, self._on_signal)
            yield
        finally:
            for signum, handler in handlers.items():
                # None stands for one that was not set from Python.
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._queue.put(_SIGNAL)
