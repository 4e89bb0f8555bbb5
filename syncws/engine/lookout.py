"""Callbacks that do not return: who has them, where they stand, and a warning.

Threads: `Lookout.look` runs in the I/O thread; the warning is written in a
thread of its own, since the workers may all be the ones that are blocked, and
the user's log handlers must not hold up the I/O thread.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Collection
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from ..logs import log_safely

__all__ = ["Lookout", "Running", "Watched", "describe", "describe_call"]

_PACKAGE = str(Path(__file__).resolve().parents[1])

_log = logging.getLogger("syncws.engine")


class Running(NamedTuple):
    """What a worker is in the midst of.

    Attributes:
        thread: The worker's name.
        call: What it runs, such as "Chat.on_text at /chat".
        seconds: For how long, at least: the time since it was first seen.
    """

    thread: str
    call: str
    seconds: float


class Watched:
    """What the lookout knows of a worker.

    Attributes:
        work: What the worker runs; None while it rests. Set by the worker.
        thread: The worker's thread.
        step: What the worker was seen to be in the midst of.
        since: When that was first seen.
        told: Whether there was a warning of it.
    """

    __slots__ = ("since", "step", "thread", "told", "work")

    thread: threading.Thread

    def __init__(self) -> None:
        self.work: Any = None
        self.step: Any = None
        self.since = 0.0
        self.told = False


def describe(work: Any) -> str:
    """Say what is run. Any thread; it may be over meanwhile."""
    try:
        return str(work.describe()) if hasattr(work, "describe") else repr(work)
    except Exception as exc:  # a user's __repr__, or it is over
        return f"{type(work).__name__} ({type(exc).__name__})"


def describe_call(call: Any, args: tuple[Any, ...]) -> str:
    """Say what is called: as the object whose method it is does, or by its name."""
    owner: Any = getattr(call, "__self__", None)
    if hasattr(owner, "describe_call"):
        return str(owner.describe_call(*args))
    if hasattr(owner, "describe"):
        return str(owner.describe())
    return f"{call.__module__}.{call.__qualname__}"


class Lookout:
    """Looks after calls that run for long.

    Args:
        timeout: Seconds after which a call that has not returned is warned of.
        name: Prefix of the thread's name.
        max_workers: How many threads there may be, to be told.
    """

    def __init__(self, timeout: float, name: str, max_workers: int) -> None:
        self._timeout = timeout
        self._name = f"{name}-report"
        self._max_workers = max_workers
        self.interval = timeout / 4  # seconds between looks while anything runs
        self.reporter: threading.Thread | None = None

    # -- I/O thread ------------------------------------------------------

    def look(self, workers: Collection[Watched], now: float) -> bool:
        """Look at the workers; return whether any of them runs something."""
        late = []
        busy = 0
        for worker in workers:
            work = worker.work
            if work is None:
                worker.step = None
                continue
            busy += 1
            step = getattr(work, "current", None) or work
            if worker.step is not step:
                worker.step, worker.since, worker.told = step, now, False
            elif not worker.told and now - worker.since >= self._timeout:
                late.append((worker, step))
        if late and (self.reporter is None or not self.reporter.is_alive()):
            for worker, _ in late:
                worker.told = True
            counts = f"{busy} of at most {self._max_workers} workers are busy"
            reporter = threading.Thread(
                target=self._report, args=(late, now, counts), name=self._name, daemon=True
            )
            try:
                reporter.start()
            except RuntimeError:  # no more threads: the next look may do better
                for worker, _ in late:
                    worker.told = False
            else:
                self.reporter = reporter
        return busy > 0

    # -- The reporter's thread -------------------------------------------

    def _report(self, late: list[tuple[Watched, Any]], now: float, counts: str) -> None:
        for worker, step in late:
            work = worker.work
            frame = sys._current_frames().get(worker.thread.ident or 0)
            if worker.step is not step or work is None:
                continue  # it has returned
            log_safely(
                _log,
                logging.WARNING,
                "%s has run for %.1f s and blocks %s; %s\n%s",
                describe(work),
                now - worker.since,
                worker.thread.name,
                counts,
                _stack(frame).rstrip(),
            )
            del frame


def _stack(frame: FrameType | None) -> str:
    """Return where a thread stands, from the user's first line on."""
    if frame is None:
        return ""
    frames = traceback.extract_stack(frame)
    first = next(
        (index for index, entry in enumerate(frames) if _is_users(entry.filename)), len(frames) - 1
    )
    return "".join(traceback.format_list(frames[first:]))


def _is_users(filename: str) -> bool:
    return not filename.startswith(_PACKAGE) and Path(filename).name != "threading.py"
