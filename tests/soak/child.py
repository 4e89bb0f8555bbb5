"""What each process of the soak has: a line to whoever started it, and a look at itself."""

from __future__ import annotations

import collections
import contextlib
import gc
import json
import logging
import os
import sys
import threading
import time
from typing import Any

from syncws.engine.connection import Connection

from ..benchmarks.process import die_with_parent, raise_file_limit
from .heap import heap
from .settings import Settings

__all__ = ["Control", "State", "wait_until"]

# Texts of problems that are told; the others are counted.
_SHOWN = 30


class Control(logging.Handler):
    """Lines of JSON: orders come by standard input, reports go to standard output.

    It also is where warnings of the library go, and what threads die of: both
    are problems.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        die_with_parent()
        raise_file_limit()
        self.settings = Settings.load(sys.argv[1])
        self._writing = threading.Lock()
        self._problems: collections.Counter[str] = collections.Counter()
        self._records: collections.deque[dict[str, Any]] = collections.deque()
        logging.getLogger("syncws").addHandler(self)
        threading.excepthook = self._thread_died
        sys.unraisablehook = self._unraisable

    def stats(self, **figures: Any) -> None:
        """Report how it goes."""
        self.flush()
        self.tell("stats", heap=heap(), **figures)

    def tell(self, what: str, **report: Any) -> None:
        """Report something."""
        line = json.dumps({"what": what, **report})
        with self._writing, contextlib.suppress(BrokenPipeError):
            print(line, flush=True)

    def order(self) -> str:
        """Wait for the next order; "quit" at the end of them."""
        return sys.stdin.readline().strip() or "quit"

    # -- Ends of connections ---------------------------------------------

    def ended(self, record: dict[str, Any]) -> None:
        """Keep what is known of a connection that has ended, until `flush`."""
        self._records.append(record)

    def flush(self) -> None:
        """Report the connections that have ended."""
        records = [self._records.popleft() for _ in range(len(self._records))]
        if records:
            self.tell("records", records=records)

    # -- Problems --------------------------------------------------------

    def problem(self, text: str) -> None:
        """Report that something is wrong."""
        self._problems[text.partition(":")[0]] += 1
        if self._problems.total() <= _SHOWN:
            self.tell("problem", text=shortened(text))

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self.problem(f"logged: {record.name} {record.levelname}: {text}")

    def _thread_died(self, args: threading.ExceptHookArgs) -> None:
        error = args.exc_value
        name = args.thread.name if args.thread else "a thread"
        text = logging.Formatter().formatException((type(error), error, args.exc_traceback))  # type: ignore[arg-type]
        self.problem(f"thread died: {name}: {text}")

    def _unraisable(self, args: Any) -> None:
        self.problem(f"unraisable: {args.err_msg}: {args.object!r}: {args.exc_value!r}")


class State:
    """What this process holds that it has to give back."""

    def __init__(self) -> None:
        gc.collect()
        self.threads = sorted(thread.name for thread in threading.enumerate())
        self.descriptors = len(os.listdir("/proc/self/fd"))
        found = gc.get_objects()
        self.objects = len(found)
        self.connections = sum(type(one) is Connection for one in found)

    def report(self) -> dict[str, Any]:
        """Return it for a report."""
        return {
            "threads": len(self.threads),
            "descriptors": self.descriptors,
            "objects": self.objects,
            "connections": self.connections,
        }

    def left(self, timeout: float) -> tuple[dict[str, Any], list[str]]:
        """Return the state now, and what there is beside this one, once that has gone or not."""
        deadline = time.monotonic() + timeout
        while True:
            now = State()
            extra = collections.Counter(now.threads) - collections.Counter(self.threads)
            found = [f"thread {name}" for name in extra.elements()]
            if now.descriptors > self.descriptors:
                found.append(f"{now.descriptors - self.descriptors} descriptors")
            if now.connections > self.connections:
                found.append(f"{now.connections - self.connections} Connection objects")
            if not found or time.monotonic() > deadline:
                return now.report(), found
            time.sleep(0.1)


def shortened(text: str, most: int = 3000) -> str:
    """Return a text without its middle, if it is long: a traceback says the most at its end."""
    if len(text) <= most:
        return text
    return f"{text[: most // 5]}\n  [...]\n{text[-4 * most // 5 :]}"


def wait_until(condition: Any, timeout: float) -> bool:
    """Wait until `condition()` holds; return whether it does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
