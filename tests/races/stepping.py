"""Runs two operations in every order that one or two switches between their threads can make.

An operation runs in a thread that counts the points which it passes: each line,
or each instruction, of our own code. `explore` has the first operation stop at
its k-th point, runs the other meanwhile, and lets the first go on: for every k.
With two switches the other stops at its j-th point, too, until the first has
ended: for every k and j.

Who waits for a lock says so, since locks are told apart from those of the
system while a test explores: then the other goes on. So no order depends on
time; what never ends runs into the guard.
"""

from __future__ import annotations

import contextlib
import enum
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import syncws
from syncws.client import client as client_module
from syncws.engine import dispatch
from syncws.server import upgrade
from tests.support import HANG

__all__ = ["Race", "Standing", "TellingLock", "TellingQueue", "Walker", "explore", "telling"]

_PACKAGE = str(Path(syncws.__file__).parent) + os.sep

# Rooms and modules that share nothing between threads: no points are there.
_ALONE = tuple(
    _PACKAGE + name
    for name in ("protocol" + os.sep, "errors.py", "logs.py", "timing.py", "config.py")
)

# Seconds for a thread to take what is there for it; another may have been quicker.
_SOON = 1.0

# What may be done by others before it is clear that somebody waits in vain.
_UNBLOCKS = 8

_Trace = Callable[[FrameType, str, Any], Any]

_current = threading.local()


class Standing(enum.Enum):
    """Where an operation stands."""

    STOPPED = "at a point"
    WAITING = "for a lock, or for what others bring"
    ENDED = "it has returned or raised"


class Walker(threading.Thread):
    """An operation in a thread that goes as far as it is told.

    Args:
        call: The operation.
        by_instruction: Whether each instruction is a point, or each line.
    """

    def __init__(self, call: Callable[[], Any], *, by_instruction: bool = False) -> None:
        super().__init__(name=f"walker-{getattr(call, '__name__', 'call')}", daemon=True)
        self._call = call
        self._kind = "opcode" if by_instruction else "line"
        self._go: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[Standing] = queue.SimpleQueue()
        self._left: int | None = 0  # points until it stops; None: it does not
        self.standing = Standing.STOPPED
        self.where = ""  # the last point
        self._comes: Callable[[], bool] = lambda: False
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    # -- Its own thread

    def run(self) -> None:
        _current.walker = self
        self._left = self._go.get()
        sys.settrace(self._enter)
        try:
            self.value = self._call()
        except BaseException as exc:
            self.error = exc
        finally:
            sys.settrace(None)
            _current.walker = None
            self._told.put(Standing.ENDED)

    def _enter(self, frame: FrameType, event: str, arg: Any) -> _Trace | None:
        name = frame.f_code.co_filename
        if not name.startswith(_PACKAGE) or name.startswith(_ALONE):
            return None
        if self._kind == "opcode":
            frame.f_trace_opcodes = True
        return self._point

    def _point(self, frame: FrameType, event: str, arg: Any) -> _Trace:
        if event == self._kind and self._left is not None:
            if self._left == 0:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                self._halt()
            else:
                self._left -= 1
        return self._point

    def _halt(self) -> None:
        self._told.put(Standing.STOPPED)
        self._left = self._go.get()

    def waits(self, comes: Callable[[], bool]) -> None:
        """It is about to wait; `comes()` tells whether it need not any more."""
        self._comes = comes
        self._told.put(Standing.WAITING)

    def has_waited(self) -> None:
        """It has what it waited for: others first, since they go on as well."""
        self._halt()

    # -- The test's thread

    def walk(self, points: int | None) -> Standing:
        """Go on past so many points, or to the end; return where it stands then."""
        assert self.standing is Standing.STOPPED
        self._go.put(points)
        return self._hear(HANG)

    def look(self) -> Standing:
        """Return where it stands; what it waited for may have come."""
        if self.standing is Standing.WAITING and self._comes():
            with contextlib.suppress(queue.Empty):
                self._hear(_SOON)
        return self.standing

    def _hear(self, timeout: float) -> Standing:
        self.standing = self._told.get(timeout=timeout)
        return self.standing

    def free(self) -> None:
        """Stop no more, whatever comes: the test has failed."""
        for _ in range(_UNBLOCKS):
            self._go.put(None)

    def result(self) -> Any:
        """Return what the operation returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self.value


# -- Locks that tell -----------------------------------------------------


class TellingLock:
    """A lock that tells of a walker that waits for it."""

    _make = staticmethod(threading.Lock)

    def __init__(self) -> None:
        self._inner = self._make()
        self._owner: int | None = None
        self._releases = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._inner.acquire(False):
            self._owner = threading.get_ident()
            return True
        if not blocking:
            return False
        walker: Walker | None = getattr(_current, "walker", None)
        if walker is None:
            got = self._inner.acquire(True, timeout)
        else:
            walker.waits(self._watch(self._releases, threading.get_ident()))
            got = self._inner.acquire(True, timeout)
        if got:
            self._owner = threading.get_ident()
        if walker is not None:
            walker.has_waited()
        return got

    def _watch(self, releases: int, waiter: int) -> Callable[[], bool]:
        """Return what tells whether `waiter` has the lock, or will have it at once."""
        return lambda: self._releases > releases and self._owner in (None, waiter)

    def release(self) -> None:
        self._owner = None
        self._releases += 1
        self._inner.release()

    def locked(self) -> bool:
        return self._inner.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class TellingQueue:
    """A queue that tells of a walker that waits for something to come."""

    def __init__(self) -> None:
        self._inner: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __class_getitem__(cls, item: object) -> type[TellingQueue]:
        return cls

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        with contextlib.suppress(queue.Empty):
            return self._inner.get(False)
        walker: Walker | None = getattr(_current, "walker", None)
        if walker is None or not block:
            return self._inner.get(block, timeout)
        walker.waits(lambda: not self._inner.empty())
        try:
            return self._inner.get(True, timeout)
        finally:
            walker.has_waited()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Locks, conditions and inboxes that are made in this block tell of walkers that wait."""
    changed: list[tuple[Any, str, Any]] = [
        (threading, "Lock", TellingLock),
        (threading, "_allocate_lock", TellingLock),
        (threading, "RLock", threading._RLock),  # the one in Python, which has a lock in it
        *((module, "SimpleQueue", TellingQueue) for module in (dispatch, upgrade)),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changed]
    for owner, name, value in changed:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


# -- Exploring -----------------------------------------------------------


class Race(Protocol):
    """Two operations on something that is made anew for each order."""

    def first(self) -> Any:
        """One of them."""

    def second(self) -> Any:
        """The other."""

    def check(self, first: Walker, second: Walker) -> None:
        """Both have ended, or wait for what `unblock` brings: assert what must hold."""

    def close(self) -> None:
        """Give back what was taken."""


def explore(
    make: Callable[[], Race],
    *,
    switches: int = 1,
    by_instruction: bool = False,
    both: bool = True,
) -> int:
    """Try every order; return how many there were.

    Args:
        make: Makes what the two operations work on. If it has a method
            `unblock`, that is called when both wait, or one does and the
            other has ended: it does what a third thread would.
        switches: 1, or 2 for orders in which the second stops midway, too.
        by_instruction: Whether to stop at each instruction, or each line.
        both: Whether the second is also made the first.
    """
    tried = 0
    with telling():
        for swapped in (False, True) if both else (False,):
            more, point = True, 0
            while more:
                more = False
                other: int | None = 0 if switches == 2 else None
                while True:
                    standing, other_standing = _try(make, swapped, point, other, by_instruction)
                    tried += 1
                    more = more or standing is Standing.STOPPED
                    if other is None or other_standing is not Standing.STOPPED:
                        break
                    other += 1
                point += 1
    return tried


def _try(
    make: Callable[[], Race], swapped: bool, point: int, other: int | None, by_instruction: bool
) -> tuple[Standing, Standing]:
    """Try one order; return where the two stood when they were to stop."""
    race = make()
    first = Walker(race.first, by_instruction=by_instruction)
    second = Walker(race.second, by_instruction=by_instruction)
    ahead, behind = (second, first) if swapped else (first, second)
    try:
        stood = ahead.walk(point)
        other_stood = behind.walk(other)
        _finish([ahead, behind], getattr(race, "unblock", None))
        race.check(first, second)
    except BaseException as exc:
        first.free()
        second.free()
        where = "; ".join(
            f"{walker.name} at {walker.where or number}, {walker.standing.name}"
            for walker, number in ((ahead, point), (behind, other))
        )
        raise AssertionError(f"{where}: {exc!r}") from exc
    finally:
        race.close()
        for walker in (first, second):
            walker.join(_SOON)
    return stood, other_stood


def _finish(walkers: list[Walker], unblock: Callable[[], None] | None) -> None:
    """Let both run to their ends, the first before the second as far as locks let it."""
    unblocked = 0
    while any(walker.standing is not Standing.ENDED for walker in walkers):
        able = [walker for walker in walkers if walker.look() is Standing.STOPPED]
        if able:
            able[0].walk(None)
        else:
            assert unblock is not None, "nobody goes on"
            assert unblocked < _UNBLOCKS, "nobody goes on, whatever others do"
            unblock()
            unblocked += 1
