"""A client's connection that is made again when it is lost.

Threads: methods under "I/O thread" run only in the IOLoop, `_dial` in a worker;
methods under "Any thread" may be called from anywhere. Nothing waits for an
attempt to come: a timer of the loop does.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from ..config import ConnectionConfig, RetryConfig
from ..engine.connection import Connection
from ..engine.dispatch import CLOSED, RECONNECT, Inbox, nothing
from ..engine.lane import Lane
from ..engine.loop import IOLoop
from ..engine.outbound import Outbound
from ..engine.state import NO_CLOSE
from ..engine.stats import NOTHING_YET, ConnectionStats
from ..engine.timers import Timer
from ..engine.transport import Transport
from ..errors import (
    Close,
    ConnectError,
    ConnectionClosed,
    Reconnecting,
    SendTimeout,
)
from ..protocol.events import BINARY, ERROR, Event
from ..timing import Deadline
from .attempt import Attempt, log_attempt
from .connect import Cancel
from .course import Course, Step
from .dialer import Dialer, Opened
from .relay import Concluding, Relay
from .stage import MOVES, Stage

__all__ = ["Link"]

_log = logging.getLogger("syncws.client")


class Link:
    """Connections to one peer, one after the other, as one.

    Guarantees:
        - The inbox gets the events of one connection after those of the one
          before, and `CLOSED` last, once, when there will be no more.
        - A message that `send` has given to one connection is never sent on
          another.

    Args:
        loop: The I/O loop.
        lane: Where attempts to connect are made.
        dialers: The addresses.
        course: Which of them is next, and when.
        retry: What counts as a loss, and whether `send` waits.
        inbox: Where events go.
        reading: Whether to read at once, or after `ask_to_read`.
        make: Makes a connection of what was opened, the inbox and what to call
            at its end.
        on_open: Called in the I/O thread with each further connection.
        on_end: Called there, once, when there will be no more.
        telling: Whether the inbox is told of attempts.
    """

    __slots__ = (
        "__weakref__",
        "_cancel",
        "_concluding",
        "_connection",
        "_course",
        "_dialers",
        "_done",
        "_error",
        "_farewells",
        "_full",
        "_inbox",
        "_lane",
        "_lock",
        "_loop",
        "_make",
        "_midway",
        "_on_end",
        "_on_open",
        "_past",
        "_reading",
        "_relay",
        "_state",
        "_status_codes",
        "_telling",
        "_timer",
        "_waits",
        "closed_here",
    )

    def __init__(
        self,
        loop: IOLoop,
        lane: Lane,
        dialers: Sequence[Dialer],
        course: Course,
        retry: RetryConfig,
        *,
        inbox: Inbox,
        reading: bool,
        opened: Opened,
        make: Callable[[Opened, Inbox, Callable[[Connection], None]], Connection],
        on_open: Callable[[str, Opened], None],
        on_end: Callable[[], None],
        telling: bool,
    ) -> None:
        self._loop = loop
        self._lane = lane
        self._dialers = tuple(dialers)
        self._status_codes = retry.status_codes
        self._waits = retry.wait_to_send
        self._inbox = inbox
        self._make = make
        self._on_open = on_open
        self._on_end = on_end
        self._telling = telling

        # Owned by the I/O thread.
        self._course = course
        self._reading = reading
        self._timer: Timer | None = None
        self._full = False  # the inbox has more to tell than it should
        # What the connections that have ended have carried, and the last of those.
        self._past: tuple[Connection | None, ConnectionStats] = None, NOTHING_YET

        # Guarded by _lock; _state and _connection may be read without it.
        self._lock = threading.Condition()
        self._state = Stage.CONNECTED
        self._cancel = Cancel()  # of the attempt under way, or of none
        self.closed_here = False  # this end has closed for good
        self._error: BaseException | None = None  # why there is no connection any more
        self._done = False  # everyone was told of the end
        self._farewells: dict[object, Callable[[], None]] = {}
        # Where a fragmented message is under way.
        self._midway: Connection | None = None
        # Filled by the I/O thread, emptied by whoever handles the inbox.
        self._concluding: Concluding = deque()
        inbox.on_last = self._conclude
        self._relay = Relay(inbox, self._concluding)
        self._connection = make(opened, self._relay, self._ended)
        loop.own(self)

    # -- I/O thread ------------------------------------------------------

    def begin(self, rest: bytes) -> None:
        """Start the first connection. `rest` came behind the handshake."""
        connection = self._connection
        self._loop.guard(connection, connection.start, b"", rest, self._reading, False)

    def _ended(self, connection: Connection) -> None:
        """The connection is gone: for good, or until the next attempt succeeds."""
        self._past = connection, self._past[1].plus(connection.stats())
        if self._state is not Stage.CONNECTED:
            return
        if self._is_final(connection):
            self._finish(self._relay.error, connection.received or NO_CLOSE)
            return
        url = self._dialers[self._course.target].url
        closed = connection.closed_error()
        error = self._relay.error or closed
        step = self._course.lost()
        if step is None:
            self._finish(error, connection.received or NO_CLOSE)
        else:
            self._wait(step, url, error, closed.unsent)

    def _is_final(self, connection: Connection) -> bool:
        """Whether this end has closed, or the peer in order. Any thread."""
        if self.closed_here:
            return True
        if connection.error is not None:
            return False
        if connection.closed_here:
            return True
        close = connection.received
        return close is not None and close.code not in self._status_codes

    def _wait(self, step: Step, before: str, error: BaseException, unsent: int = 0) -> None:
        with self._lock:
            self._move(Stage.WAITING)
        attempt = Attempt.waiting(step, self._dialers[step.target].url, error, unsent)
        self._loop.journal.call(log_attempt, before, attempt)
        self._tell(attempt)
        when = self._loop.clock() + step.wait
        self._timer = self._loop.call_at(when, self._begin_attempt, self)

    def _begin_attempt(self) -> None:
        dialer = self._dialers[self._course.target]
        with self._lock:
            self._move(Stage.DIALING)
            self._cancel = Cancel()
        attempt = Attempt(self._course.attempts + 1, dialer.url, "connecting")
        self._loop.journal.call(log_attempt, dialer.url, attempt)
        self._tell(attempt)
        self._lane.submit(self._dial, dialer, self._cancel)

    def _succeeded(self, opened: Opened, cancel: Cancel) -> None:
        if not cancel.take():
            return  # this end has closed
        url = self._dialers[self._course.target].url
        attempt = Attempt(self._course.attempts + 1, url, "connected")
        relay = Relay(self._inbox, self._concluding)
        try:
            connection = self._make(opened, relay, self._ended)
        except BaseException:
            opened.transport.close()
            raise
        with self._lock:
            closed = self.closed_here
            if not closed:
                self._connection = connection
                self._move(Stage.CONNECTED)
        if closed:
            connection.abort()
            self._give_up()
            return
        self._relay = relay
        self._course.connected()
        self._on_open(url, opened)
        self._loop.journal.call(log_attempt, url, attempt)
        self._tell(attempt, always=True)
        self.begin(opened.agreement.rest)

    def _failed(self, error: BaseException) -> None:
        if self.closed_here:
            self._give_up()
        if self._state is not Stage.DIALING:
            return
        url = self._dialers[self._course.target].url
        step = self._course.failed(error)
        if step is not None:
            self._wait(step, url, error)
            return
        reason = self._course.verdict([dialer.url for dialer in self._dialers])
        self._loop.journal.write(_log, logging.ERROR, "%s: giving up: %s", url, reason)
        self._finish(reason, NO_CLOSE)

    def _finish(self, error: BaseException | None, close: Close) -> None:
        """There will be no more connection: tell everyone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            self._error = error
            self._move(Stage.CLOSED)
            farewells, self._farewells = self._farewells, {}
        self._cancel.cancel()
        self._loop.disown(self)
        for call in farewells.values():
            call()
        if error is not None:
            self._inbox.put(Event(ERROR, error))
        self._inbox.put(Event(CLOSED, close))
        self._inbox.on_last = nothing  # a cycle less: all is freed at once
        self._on_end()
        with self._lock:
            self._done = True
            self._lock.notify_all()

    def _tell(self, attempt: Attempt, *, always: bool = False) -> None:
        """Have on_reconnect called; unless it is so far behind that it would never catch up."""
        if self._telling and (always or not (self._full and self._inbox.busy())):
            self._full = self._inbox.put(Event(RECONNECT, attempt))

    def _give_up(self) -> None:
        """This end has closed while there was no connection."""
        if self._state in (Stage.WAITING, Stage.DIALING):
            self._finish(None, NO_CLOSE)

    def abort(self) -> None:
        """End now, for good."""
        with self._lock:
            self.closed_here = True
        self._cancel.cancel()
        if self._state is Stage.CONNECTED:
            self._connection.abort()
        else:
            self._give_up()

    def on_loop_error(self, error: BaseException) -> None:
        """Something of ours raised in the I/O thread."""
        if self._state is Stage.CONNECTED:
            self._relay.error = self._relay.error or error
            self.abort()
        elif self._state is not Stage.CLOSED:
            self._finish(error, NO_CLOSE)

    def abandon(self) -> None:
        """In a forked child: the connection is the parent's."""
        self._lock = threading.Condition()
        self._state = Stage.CLOSED
        self._done = True
        self.closed_here = True  # what waits to be delivered is the parent's
        self._cancel.abandon()
        self._connection.outbound.abandon()  # it may have ended, and is owned no more
        self._inbox.close()

    def _begin_reading(self) -> None:
        self._reading = True
        self._connection.ask_to_read()

    # -- Worker thread ---------------------------------------------------

    def _dial(self, dialer: Dialer, cancel: Cancel) -> None:
        """Make one attempt."""
        try:
            opened = dialer.dial(cancel)
        except BaseException as exc:
            self._loop.call_soon(self._failed, exc, owner=self)
        else:
            cancel.keep(opened.transport.close)
            self._loop.call_soon(self._succeeded, opened, cancel, owner=self)

    def describe(self) -> str:
        """Say what a worker runs."""
        return f"connecting to {self._dialers[self._course.target].url}"

    def _conclude(self) -> None:
        """What came before a connection's end is dealt with."""
        if self._concluding:  # the last of all is no relay's
            self._concluding.popleft().on_last()

    # -- Any thread ------------------------------------------------------

    @property
    def config(self) -> ConnectionConfig:
        """The limits and timeouts in force."""
        return self._connection.config

    @property
    def latency(self) -> float | None:
        """Seconds from the last keepalive ping to its pong; None before the first."""
        return self._connection.latency

    @property
    def outbound(self) -> Outbound:
        """What sends on the connection that there is, or was."""
        return self._connection.outbound

    @property
    def sending(self) -> bool:
        """Whether there is a connection on which messages can be sent."""
        return self._connection.sending

    @property
    def state(self) -> enum.Enum:
        """Where the connection stands, or what is done to have one."""
        return self._connection.state if self._state is Stage.CONNECTED else self._state

    @property
    def over(self) -> bool:
        """Whether there will be no connection any more."""
        return self._state is Stage.CLOSED

    @property
    def transport(self) -> Transport:
        """The socket, to be asked for addresses and certificates only."""
        return self._connection.transport

    def send(self, opcode: int, payload: bytes, final: bool = True) -> None:
        """Send a message, a fragment of one, a ping or a pong; see `Endpoint.send_text`.

        Raises:
            Reconnecting: There is no connection, or it was lost meanwhile.
        """
        deadline: Deadline | None = None
        while True:
            connection = self._connection
            message = opcode <= BINARY
            if message and self._midway is not None:
                self._check_midway(connection)
            try:
                connection.outbound.send(opcode, payload, final)
            except ConnectionClosed as exc:
                if self.over or self._is_final(connection):
                    closed = self.closed_error()
                    closed.maybe_sent = exc.maybe_sent
                    raise closed from closed.__cause__
                try:
                    deadline = self._wait_to_send(connection, exc, deadline)
                except (Reconnecting, SendTimeout):
                    if message and self._midway is connection:
                        self._midway = None  # whoever sends it begins again
                    raise
                continue
            if message and (not final or self._midway is not None):
                self._midway = None if final else connection
            return

    def _check_midway(self, connection: Connection) -> None:
        """Refuse a fragment whose predecessors went elsewhere."""
        with self._lock:
            if self._midway in (None, connection):
                return
            self._midway = None
        raise Reconnecting(
            "the fragments of this message that were sent before are lost with their "
            "connection: send it again from its beginning"
        )

    def _wait_to_send(
        self, connection: Connection, error: ConnectionClosed, deadline: Deadline | None
    ) -> Deadline:
        """Wait for the next connection, if that is wanted and cannot send anything twice."""
        if error.maybe_sent:
            raise Reconnecting(
                "the connection was lost while this message was sent, which may have reached "
                "the peer or not; it is being made again",
                maybe_sent=True,
            ) from error
        if not self._waits:
            raise Reconnecting(
                "the connection is lost and is being made again; nothing of this message was sent"
            ) from error
        # The I/O thread must not wait for itself.
        timeout = 0.0 if self._loop.in_thread() else self.config.send_timeout
        deadline = deadline or Deadline(timeout, self._loop.wait_clock)
        with self._lock:
            while not self.over and self._connection is connection:
                remaining = deadline.remaining()
                if remaining == 0.0:
                    raise SendTimeout(
                        f"there was no connection for {timeout} s; nothing of this message was sent"
                    )
                self._lock.wait(remaining)
        return deadline

    def stats(self) -> ConnectionStats:
        """Return what all connections have carried so far."""
        connection = self._connection  # first: it may end meanwhile
        last, total = self._past
        return total if connection is last else total.plus(connection.stats())

    def closed_error(self) -> ConnectionClosed:
        """Return the error that tells how it has ended."""
        error = self._connection.closed_error()
        if isinstance(self._error, ConnectError):
            error.__cause__ = self._error
        return error

    def ask_to_read(self) -> None:
        """Begin to read. Harmless if that is so already."""
        self._loop.call_soon(self._begin_reading, owner=self)

    def start_close(self, close: Close, timeout: float) -> None:
        """Close for good, within `timeout` seconds. Does not wait."""
        if not self.over:
            self._connect_no_more().start_close(close, timeout)
            self._inbox.close()

    def fail(self, error: BaseException, close: Close) -> None:
        """Close for good because this end cannot go on. Does not wait."""
        self._connect_no_more().fail(error, close)

    def _connect_no_more(self) -> Connection:
        """Return the last connection that there is."""
        with self._lock:
            self.closed_here = True
            connection = self._connection
            cancel = self._cancel
        cancel.cancel()
        self._loop.call_soon(self._give_up, owner=self)
        return connection

    def give_up(self) -> None:
        """Have no more messages delivered: whoever gets them cannot go on."""
        if self.over or self._is_final(self._connection):
            self.closed_here = True

    def ask_to_abort(self) -> None:
        """End now, for good, without a closing handshake. Does not wait."""
        self._loop.call_soon(self.abort, owner=self)

    def wait_closed(self, timeout: float | None) -> bool:
        """Wait until there is no connection and will be none; return whether that is so."""
        deadline = Deadline(0.0 if self._loop.in_thread() else timeout, self._loop.wait_clock)
        with self._lock:
            while not self._done:
                remaining = deadline.remaining()
                if remaining == 0.0:
                    return False
                self._lock.wait(remaining)
        return True

    def when_ended(self, key: object, call: Callable[[], None]) -> bool:
        """Have `call()` made in the I/O thread at the end for good; False if that was."""
        with self._lock:
            if self.over:
                return False
            self._farewells[key] = call
            return True

    def not_when_ended(self, key: object) -> None:
        """Forget what `when_ended` was told."""
        with self._lock:
            self._farewells.pop(key, None)

    # -- Under the lock --------------------------------------------------

    def _move(self, state: Stage) -> None:
        """Requires _lock."""
        assert state in MOVES[self._state], f"{self._state} to {state}"
        self._state = state
        self._lock.notify_all()
