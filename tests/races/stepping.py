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

import pytest

import syncws
from syncws.engine import dispatch
from syncws.server import hearing
from tests.support import HANG

__all__ = [
    "Race",
    "Standing",
    "TellingLock",
    "TellingQueue",
    "Walker",
    "explore",
    "needs_instructions",
    "telling",
]

_PACKAGE = str(Path(syncws.__file__).parent) + os.sep

# Rooms and modules that share nothing between threads: no points are there.
_ALONE = tuple(
    _PACKAGE + name
    for name in ("protocol" + os.sep, "errors.py", "logs.py", "timing.py", "config.py")
)

# Seconds between looks at whether a thread still has something to take, and looks.
_SOON = 0.005
_LOOKS = 1000

# What may be done by others before it is clear that somebody waits in vain.
_UNBLOCKS = 8

#: For tests that stop at instructions.
needs_instructions = pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="since 3.12 not every instruction is told of to who begins to trace",
)

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
        among: The modules that have points, such as "dispatch.py"; all of them if there are none.
    """

    def __init__(
        self,
        call: Callable[[], Any],
        *,
        by_instruction: bool = False,
        among: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name=f"walker-{getattr(call, '__name__', 'call')}", daemon=True)
        self._call = call
        self._kind = "opcode" if by_instruction else "line"
        self._among = among
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
        if self._among and not name.endswith(self._among):
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

    def has_waited(self, then: Callable[[], None] = lambda: None) -> None:
        """It has what it waited for: others first, since they go on as well."""
        self._told.put(Standing.STOPPED)
        then()
        self._left = self._go.get()

    # -- The test's thread

    def walk(self, points: int | None) -> Standing:
        """Go on past so many points, or to the end; return where it stands then."""
        assert self.standing is Standing.STOPPED
        self._go.put(points)
        return self._hear(HANG)

    def look(self) -> Standing:
        """Return where it stands; what it waited for may have come."""
        for _ in range(_LOOKS):
            if self.standing is not Standing.WAITING:
                break
            comes = self._comes()  # before it is heard, for it may say so in between
            with contextlib.suppress(queue.Empty):
                self._hear(_SOON if comes else 0)
                break
            if not comes:
                break
        return self.standing

    def _hear(self, timeout: float) -> Standing:
        self.standing = self._told.get(timeout > 0, timeout or None)
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
        self._puts = 0
        self._takes = 0

    def __class_getitem__(cls, item: object) -> type[TellingQueue]:
        return cls

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        with contextlib.suppress(queue.Empty):
            item = self._inner.get(False)
            self._take()
            return item
        walker: Walker | None = getattr(_current, "walker", None)
        if walker is None or not block:
            item = self._inner.get(block, timeout)
            self._take()
            return item
        walker.waits(lambda: self._puts > self._takes)
        item = self._inner.get(True, timeout)
        walker.has_waited(self._take)
        return item

    def _take(self) -> None:
        self._takes += 1

    def put(self, item: Any) -> None:
        self._puts += 1
        self._inner.put(item)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Locks, conditions and inboxes that are made in this block tell of walkers that wait."""
    changed: list[tuple[Any, str, Any]] = [
        (threading, "Lock", TellingLock),
        (threading, "_allocate_lock", TellingLock),
        (threading, "RLock", threading._RLock),  # the one in Python, which has a lock in it
        *((module, "SimpleQueue", TellingQueue) for module in (dispatch, hearing)),
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
    among: tuple[str, ...] = (),
    both: bool = True,
) -> int:
    """Try every order; return how many there were.

    Args:
        make: Makes what the two operations work on. If it has a method
            `unblock`, that is called when both wait, or one does and the
            other has ended: it does what a third thread would.
        switches: 1, or 2 for orders in which the second stops midway, too.
        by_instruction: Whether to stop at each instruction, or each line.
        among: The modules to stop in; all if there are none.
        both: Whether the second is also made the first.
    """
    tried = 0
    options: dict[str, Any] = {"by_instruction": by_instruction, "among": among}
    with telling():
        for swapped in (False, True) if both else (False,):
            more, point = True, 0
            while more:
                more = False
                other: int | None = 0 if switches == 2 else None
                while True:
                    standing, other_standing = _try(make, swapped, point, other, options)
                    tried += 1
                    more = more or standing is Standing.STOPPED
                    if other is None or other_standing is not Standing.STOPPED:
                        break
                    other += 1
                point += 1
    return tried


def _try(
    make: Callable[[], Race],
    swapped: bool,
    point: int,
    other: int | None,
    options: dict[str, Any],
) -> tuple[Standing, Standing]:
    """Try one order; return where the two stood when they were to stop."""
    race = make()
    first = Walker(race.first, **options)
    second = Walker(race.second, **options)
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
            walker.join(1.0)
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
