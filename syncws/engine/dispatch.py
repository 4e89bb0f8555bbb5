"""Where a connection's events go: to callbacks in a worker, or to a blocked receiver.

Both are inboxes with a bound: the connection stops reading while one is full.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from itertools import starmap
from queue import Empty, SimpleQueue
from typing import Protocol

from ..logs import log_safely
from ..protocol.events import BINARY, CLOSE, ERROR, Event
from .lookout import describe_call
from .loop import IOLoop

__all__ = ["CLOSED", "IDLE", "OPENED", "RECONNECT", "Dispatcher", "Inbox", "Mailbox", "nothing"]

# Events beside those of the codec.
OPENED = -2  # the handshake is done
IDLE = -3  # nothing was sent or received for idle_timeout
CLOSED = -4  # the connection has ended; data is the peer's Close, or one with 1006
RECONNECT = -5  # the connection is being made again; data says how far it is
_LOOK = -6  # among messages: one was given back

_BLOCKING = (True,)
_ONCE = ((),)

_log = logging.getLogger("syncws.engine")

# Bytes that a message takes up beside its own.
_OVERHEAD = 200

# Events that one turn of a worker handles before others have theirs.
_TURN = 64


class Inbox(Protocol):
    """What a connection delivers to.

    The connection sets two hooks, which the consumer's thread calls.
    """

    on_room: Callable[[], None]  # reading may go on
    on_last: Callable[[], None]  # all that came before the peer's close was dealt with

    hears_close: bool  # whether CLOSE means something though nothing came before it

    # -- I/O thread

    def put(self, event: Event) -> bool:
        """Deliver `event`; return whether what waits has reached its bound. CLOSED is the last."""

    def pause(self) -> bool:
        """Have `on_room` called once half of what waits is gone; False if it is already."""

    def busy(self) -> bool:
        """Whether something that was delivered is not dealt with."""

    def idle(self) -> bool:
        """Whether nothing waits and no callback runs."""

    def waiting(self) -> int:
        """Return the bytes that wait, and what they take up beside."""

    def total(self) -> int:
        """Return the size of all messages delivered: bytes, and characters of text."""

    def bound(self, max_count: int, max_size: int) -> None:
        """Set the bounds that `put` and `pause` go by."""

    # -- Any thread

    def close(self) -> None:
        """Drop what waits and wake who waits: this end has closed."""


class _Bound:
    """Counts what waits, without a lock.

    The I/O thread counts what comes in, the consumer what goes out, and each
    reads the other's figure.
    """

    __slots__ = (
        "_added",
        "_max_count",
        "_max_size",
        "_paused",
        "_taken",
        "on_last",
        "on_room",
    )

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count = max_count
        self._max_size = max_size
        self._added = 0
        self._taken = 0
        self._paused = False
        self.on_room: Callable[[], None] = nothing
        self.on_last: Callable[[], None] = nothing

    def _count(self) -> int:
        raise NotImplementedError

    @property
    def source(self) -> object:
        """The connection that delivers here, until it has ended."""
        return getattr(self.on_room, "__self__", None)

    def waiting(self) -> int:
        """Return the bytes that wait, and what they take up beside."""
        return self._added - self._taken + _OVERHEAD * self._count()

    def total(self) -> int:
        """Return the size of all messages delivered: bytes, and characters of text."""
        return self._added

    def bound(self, max_count: int, max_size: int) -> None:
        """Set other bounds."""
        self._max_count = max_count
        self._max_size = max_size

    def pause(self) -> bool:
        # Set first, looked at second; the consumer does it the other way round.
        self._paused = True
        if self._is_low():
            self._paused = False
            return False
        return True

    def _is_low(self) -> bool:
        return (
            self._count() <= self._max_count // 2
            and self._added - self._taken <= self._max_size // 2
        )

    def _make_room(self) -> None:
        """Let reading go on if it is paused and enough was taken."""
        if self._paused and self._is_low():
            self._paused = False
            self.on_room()


def nothing(*_: object) -> None:
    """Do nothing, with anything."""


class Dispatcher(_Bound):
    """Runs the callbacks of one connection in the workers: in order, one at a time.

    Args:
        handle: Called in a worker with each event.
        loop: The connection's loop, whose pool runs this.
        max_count: Events that may wait before reading pauses.
        max_size: Their size, in bytes, or characters of text.
        on_done: Called in a worker after the last event.

    Attributes:
        current: The event that is handled now, if one is.
    """

    __slots__ = ("_beside", "_handle", "_inbox", "_loop", "_on_done", "_running", "current")

    hears_close = False

    def __init__(
        self,
        handle: Callable[[Event], None],
        loop: IOLoop,
        *,
        max_count: int,
        max_size: int,
        on_done: Callable[[], None] = nothing,
    ) -> None:
        super().__init__(max_count, max_size)
        self.current: Event | None = None
        self._beside = 0  # the part of `_added` that is no message's
        self._handle = handle
        self._loop = loop
        self._on_done = on_done
        self._inbox: deque[Event] = deque()
        # Held while this stands in the run queue or a worker runs it. A lock
        # and not a flag, since taking it is atomic.
        self._running = threading.Lock()

    # -- I/O thread ------------------------------------------------------

    def hold(self) -> None:
        """Handle nothing until `go_on`. Before the first event."""
        self._running.acquire()

    def put(self, event: Event) -> bool:
        """Deliver `event`; return whether what waits has reached its bound."""
        if event[0] > 0:
            self._added += len(event[1])
            if event[0] > BINARY:
                self._beside += len(event[1])
        inbox = self._inbox
        inbox.append(event)
        if self._running.acquire(False):
            self._loop.ready.append(self)
        return len(inbox) >= self._max_count or self._added - self._taken >= self._max_size

    def busy(self) -> bool:
        """Whether something waits or a callback runs."""
        return bool(self._inbox) or self._running.locked()

    def idle(self) -> bool:
        """Whether nothing waits and no callback runs."""
        return not self.busy()

    def _count(self) -> int:
        return len(self._inbox)

    def total(self) -> int:
        return self._added - self._beside

    # -- Worker thread ---------------------------------------------------

    def mute(self) -> None:
        """Handle nothing any more, but call `on_done` in the end. While it is held."""
        self._handle = nothing

    def go_on(self) -> None:
        """Let go of what `hold` has held, and handle what has come meanwhile."""
        self.run()

    def run(self) -> None:
        """Handle what is in the inbox, for one turn."""
        inbox = self._inbox
        running = self._running
        for _ in range(_TURN):
            # Before each, the first as well: what this was queued for may have
            # been handled since, for `put` fills the inbox before it takes the lock.
            while not inbox:
                self.current = None  # it may be large, and the next one far
                running.release()
                # What came between the look and the release found it held.
                if not (inbox and running.acquire(False)):
                    return
            self.current = event = inbox.popleft()
            opcode = event[0]
            if 0 < opcode <= BINARY:
                try:
                    self._handle(event)
                except BaseException as exc:
                    self._failed(event, exc)
                self._taken += len(event[1])
            else:
                self._run_other(event)
            if self._paused:
                self._make_room()
        assert self._loop.pool is not None
        self._loop.pool.queue.append(self)

    def _run_other(self, event: Event) -> None:
        """Handle what is no message."""
        opcode = event[0]
        if opcode == CLOSE or opcode == ERROR:
            self.on_last()
        try:
            self._handle(event)
        except BaseException as exc:
            self._failed(event, exc)
        if opcode > 0:
            self._taken += len(event[1])
        elif opcode == CLOSED:
            self._handle = nothing  # a cycle less: all is freed at once
            self._on_done()

    def _failed(self, event: Event, error: BaseException) -> None:
        log_safely(_log, logging.ERROR, "handling %r failed", event, error=error)

    # -- Any thread ------------------------------------------------------

    def close(self) -> None:
        """Nothing to wake here; what waits is dropped by `handle`, in order."""

    def describe(self) -> str:
        """Say which callback runs."""
        event = self.current
        return "a callback" if event is None else describe_call(self._handle, (event,))


class Mailbox(_Bound):
    """Holds messages for threads that block in `get`.

    A message counts as dealt with when its receiver comes back for the next.
    """

    __slots__ = (
        "_closed",
        "_delivered",
        "_finished",
        "_lock",
        "_queue",
        "_received",
        "_returned",
    )

    hears_close = True

    def __init__(self, *, max_count: int, max_size: int) -> None:
        super().__init__(max_count, max_size)
        # Its get() is one C call that a put() in another thread ends at once.
        self._queue: SimpleQueue[Event] = SimpleQueue()
        # Messages that were taken off it by a receiver that could not return.
        self._returned: deque[Event] = deque()
        self._closed = False
        self._delivered = 0  # messages put; owned by the I/O thread

        # Guarded by _lock: several threads may receive.
        self._lock = threading.Lock()
        self._received = 0  # messages taken

        # Written by receivers without it: who comes back for the next message
        # has dealt with the last.
        self._finished = 0  # messages dealt with

    # -- I/O thread ------------------------------------------------------

    def put(self, event: Event) -> bool:
        """Deliver `event`: messages and the end; others have no receiver."""
        opcode = event[0]
        if 0 < opcode <= BINARY:
            self._added += len(event[1])
            self._delivered += 1
        elif opcode not in (CLOSE, ERROR, CLOSED):
            self.other(event)
            return False
        self._queue.put(event)
        return self._queue.qsize() >= self._max_count or self._added - self._taken >= self._max_size

    def other(self, event: Event) -> None:
        """What is neither a message nor the end. Nobody is told of it here."""

    def busy(self) -> bool:
        """Whether a message waits or its receiver has not come back."""
        return self._delivered != self._finished

    def idle(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty() and not self._returned

    def _count(self) -> int:
        return self._queue.qsize()

    # -- Any thread ------------------------------------------------------

    def get(self, timeout: float | None) -> Event | None:
        """Take the next message; None if there will be no more.

        Blocks for up to `timeout` seconds.

        Raises:
            TimeoutError: Nothing came.
        """
        self._finished = self._received
        while True:
            taken: list[Event] = []
            counted = False
            try:
                # One call of the interpreter's either way, so that no signal
                # handler can raise while nobody has the event.
                if self._returned:
                    taken.extend(starmap(self._returned.popleft, _ONCE))
                else:
                    taken.extend(map(self._queue.get, _BLOCKING, (timeout,)))
                event = taken[0]
                if not 0 < event[0] <= BINARY:
                    if event[0] == _LOOK:
                        continue
                    self._queue.put(event)  # for the next receiver
                    self.on_last()
                    return None
                size = len(event[1])
                with self._lock:
                    self._received += 1
                    self._taken += size
                    counted = True
                    if self._paused:
                        self._make_room()
                if not self._closed:
                    return event
            except Empty:
                raise TimeoutError from None
            except IndexError:  # another receiver was quicker
                continue
            except BaseException:
                self._give_back(taken, counted)
                raise

    def _give_back(self, taken: list[Event], counted: bool) -> None:
        """A signal handler has raised in `get`: nothing is lost by that."""
        if taken:
            event = taken[0]
            if counted:
                with self._lock:
                    self._received -= 1
                    self._taken -= len(event[1])
            if event[0] != _LOOK:
                self._returned.append(event)
            self._queue.put(Event(_LOOK, None))  # another receiver may wait there
        self.on_room()  # harmless if there is none to be made

    def close(self) -> None:
        """Wake every receiver: this end has closed, and messages that wait are dropped."""
        self._closed = True
        self._queue.put(Event(CLOSED, None))
