"""One request and its response, between the I/O thread and the application.

The I/O thread moves bytes: the request's body into a bounded buffer, the
response out of another. A worker runs the application, which reads from the
one and writes to the other, and waits when there is nothing to read or no room
to write.

Threads: methods under "I/O thread" run only in the IOLoop; those under "Worker
thread" are for the one worker that runs the application. All of them take the
lock themselves.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from ..engine.loop import IOLoop
from ..engine.outbuf import OutBuffer
from ..engine.transport import Transport
from ..protocol.exchange import Exchange, ResponseError

__all__ = ["BODY_BUFFER", "Channel", "ClientGone", "Mover", "Phase", "Standing"]

# Bytes of a body that wait for the application, above which reading pauses; it
# goes on at half. Also bytes of the client's next requests.
BODY_BUFFER = 65_536

# Bytes of a response not yet taken by the client above which the application
# waits; it goes on at a quarter.
_HIGH = 262_144
_LOW = _HIGH // 4

# Bytes of a response that are framed at once, so that nobody writes for long
# under the lock.
_PIECE = 65_536


class ClientGone(ConnectionAbortedError):
    """Nobody is there any more to read from or to write to."""


class Phase(enum.Enum):
    """Where a request stands."""

    BODY = "its body was read"
    QUEUED = "it waited for a worker"
    RUNNING = "the application ran"
    SENDING = "the response was sent"
    LEAVING = "it was to go"
    DONE = "all was over"


MOVES = {
    Phase.BODY: {Phase.QUEUED, Phase.SENDING, Phase.DONE},
    Phase.QUEUED: {Phase.RUNNING, Phase.SENDING, Phase.DONE},
    Phase.RUNNING: {Phase.SENDING, Phase.DONE},
    Phase.SENDING: {Phase.LEAVING, Phase.DONE},
    Phase.LEAVING: {Phase.DONE},
    Phase.DONE: set[Phase](),
}

# Those in which the body is of use to somebody.
_READING = (Phase.BODY, Phase.QUEUED, Phase.RUNNING)


class Mover(Protocol):
    """What moves a channel's bytes. Every method runs in the I/O thread."""

    def take(self, data: bytes) -> None:
        """These bytes have come; none means that there is room for more."""

    def flush(self) -> None:
        """Write what is queued."""

    def update(self) -> None:
        """Something else is waited for from now on."""

    def end(self, why: str) -> None:
        """Close the socket."""

    def on_loop_error(self, error: BaseException) -> None:
        """A call for this one raised; it must give its descriptor up."""


class Standing(NamedTuple):
    """What the I/O thread has to wait for.

    Attributes:
        phase: Where the request stands.
        reading: Whether more is wanted from the client.
        writing: Whether the client has something to take.
        owing: Whether somebody waits for the client to go on with the body.
        body_size: Bytes of the body so far.
        taken: Bytes of the response that the client's system has taken.
    """

    phase: Phase
    reading: bool
    writing: bool
    owing: bool
    body_size: int
    taken: int


class Channel:
    """What the two threads share of one request.

    Args:
        loop: The I/O loop.
        mover: Who moves the bytes.
        transport: The socket.
        exchange: The body and the response.
    """

    __slots__ = (
        "_body",
        "_body_size",
        "_changed",
        "_error",
        "_exchange",
        "_flushing",
        "_last",
        "_loop",
        "_mover",
        "_out",
        "_paused",
        "_phase",
        "_starved",
        "_taken",
        "_transport",
    )

    def __init__(
        self, loop: IOLoop, mover: Mover, transport: Transport, exchange: Exchange
    ) -> None:
        self._loop = loop
        self._mover = mover

        # Guarded by the lock of _changed, which is told of all that a worker
        # may wait for.
        self._changed = threading.Condition(threading.Lock())
        self._phase = Phase.BODY
        self._error = "the request has ended"  # why the application has nobody to talk to
        self._transport = transport
        self._exchange = exchange
        self._body: deque[bytes] = deque()
        self._body_size = 0  # bytes in that
        self._paused = False  # that is full
        self._starved = False  # the application waits for the body
        self._out = OutBuffer()
        self._taken = 0  # bytes of the response that the system has taken
        self._flushing = False  # the I/O thread will write what is queued
        self._last = False  # the response is to say that the connection ends with it

    def _move(self, phase: Phase) -> None:
        """Requires the lock."""
        assert phase in MOVES[self._phase], f"{self._phase} to {phase}"
        self._phase = phase
        self._changed.notify_all()

    # -- I/O thread ------------------------------------------------------

    def receive(self, data: bytes) -> bool:
        """Take bytes from the client; return whether the application is to be called now.

        It is when the body has come whole, or more of it than the buffer
        holds: a slow client must not hold a worker. For that, one that waits
        for a word before it sends its body gets it at once.

        Raises:
            HeadError: The body is refused.
        """
        with self._changed:
            exchange, phase = self._exchange, self._phase
            if phase in _READING:
                parts = exchange.receive(data)
                if parts:
                    self._body.append(b"".join(parts))
                self._body_size += sum(map(len, parts))
                self._paused = self._body_size >= BODY_BUFFER
                if exchange.unparsed and not self._paused:
                    self._loop.call_soon(self._mover.take, b"", owner=self._mover)
                self._changed.notify_all()
            elif phase is Phase.SENDING and exchange.body_complete:
                exchange.receive(data)  # the client's next request
            if phase is not Phase.BODY:
                return False
            if exchange.wants_continue:
                self._out.append(exchange.go_on())
            if not (exchange.body_complete or self._paused):
                return False
            self._move(Phase.QUEUED)
            return True

    def write(self) -> bool:
        """Write what is queued; return whether the whole response is out.

        Raises:
            OSError: The client is lost.
        """
        with self._changed:
            if self._phase in (Phase.LEAVING, Phase.DONE):
                return False
            self._flushing = not self._write()
            if self._out.size <= _LOW:
                self._changed.notify_all()
            return self._phase is Phase.SENDING and not self._flushing

    def refuse(self, response: bytes, why: str) -> Phase:
        """Answer in place of the application, unless it has begun to; return where it stood."""
        with self._changed:
            phase = self._phase
            if phase not in _READING:
                return phase
            if not self._exchange.started:
                self._out.append(response)
            self._error = why
            self._body.clear()
            self._move(Phase.SENDING)
            return phase

    def end_soon(self) -> None:
        """Tell the client that the connection ends after this request, if there still is time."""
        with self._changed:
            self._last = True

    @property
    def reusable(self) -> bool:
        """Whether all is done, and the client may send another request."""
        return self._exchange.reusable

    def conclude(self, keep: bool, at_end: bool) -> bytes | None:
        """The response is out: return what came behind the request, or None if the client must go.

        Args:
            keep: Whether the socket may have another request.
        """
        with self._changed:
            if keep and self._exchange.reusable and (not at_end or self._exchange.rest_size):
                self._move(Phase.DONE)
                return self._exchange.rest
            self._move(Phase.LEAVING)
            # Closing with unread bytes would reset the connection and could
            # destroy the answer on its way: the client goes first.
            self._transport.shutdown_write()
            return None

    def close(self, why: str) -> Phase:
        """Close the socket, and wake who waits for it; return where it stood."""
        with self._changed:
            phase = self._phase
            if phase is not Phase.DONE:
                self._transport.close()
                self._error = why
                self._body.clear()
                self._out.clear()
                self._move(Phase.DONE)
            return phase

    def abandon(self) -> None:
        """In a forked child: close this process's copy of the socket."""
        # Who had the lock may not be here.
        self._changed = threading.Condition(threading.Lock())
        self._phase = Phase.DONE
        self._transport.abandon()

    def standing(self) -> Standing:
        """Return what is to be waited for."""
        with self._changed:
            phase, exchange = self._phase, self._exchange
            if phase in _READING and not exchange.body_complete:
                reading = not (self._paused or exchange.unparsed)
            elif phase is not Phase.LEAVING and exchange.body_complete:
                # So that the client's end is seen, and its next request taken.
                reading = exchange.rest_size < BODY_BUFFER
            else:
                reading = True  # nobody wants it, but the client may not read before it has sent
            return Standing(
                phase,
                reading,
                bool(self._out.size),
                phase is Phase.BODY or (phase is Phase.RUNNING and self._starved),
                exchange.body_size,
                self._taken,
            )

    @property
    def expects_more(self) -> bool:
        """Whether it is the client's turn: to send the rest of its request, or to go."""
        phase = self._phase
        return phase is Phase.LEAVING or (phase in _READING and not self._exchange.body_complete)

    # -- Worker thread: the life of the application's call ---------------

    def begin(self) -> bool:
        """Return whether the application is to be called: there still is someone to answer."""
        with self._changed:
            if self._phase is not Phase.QUEUED:
                return False
            self._move(Phase.RUNNING)
            return True

    def cut(self) -> None:
        """Send what there is, and end the connection, unless the response has ended."""
        with self._changed:
            if self._phase is not Phase.RUNNING:
                return
            self._move(Phase.SENDING)
        self._loop.flush_soon(self._mover)

    def _check(self) -> None:
        """Requires the lock."""
        if self._phase is not Phase.RUNNING:
            raise ClientGone(self._error)

    # -- Worker thread: the body -----------------------------------------

    @property
    def body_size(self) -> int | None:
        """Bytes of the whole body, or None if that is not known yet."""
        exchange = self._exchange
        return exchange.body_size if exchange.body_complete else exchange.content_length

    def read(self, buffer: memoryview) -> int:
        """Read some of the body, at least a byte, to `buffer`; return how many, 0 at the end.

        Raises:
            ClientGone: The rest of it will not come.
        """
        with self._changed:
            self._wait_for_body()
            if not self._body:
                return 0
            part = self._body[0]
            size = min(len(part), len(buffer))
            buffer[:size] = part[:size]
            if size == len(part):
                self._body.popleft()
            else:
                self._body[0] = part[size:]
            self._body_size -= size
            if self._paused and self._body_size <= BODY_BUFFER // 2:
                self._paused = False
                self._loop.call_soon(self._mover.take, b"", owner=self._mover)
            return size

    def _wait_for_body(self) -> None:
        """Requires the lock."""
        self._check()
        if self._body or self._exchange.body_complete:
            return
        self._starved = True
        self._loop.call_soon(self._mover.update, owner=self._mover)  # the client's time runs
        while not (self._body or self._exchange.body_complete):
            self._changed.wait()
            self._check()
        self._starved = False

    # -- Worker thread: the response -------------------------------------

    @property
    def sent(self) -> int:
        """Bytes of the response's body so far."""
        return self._exchange.sent

    def respond(self, status: str, headers: Iterable[tuple[str, str]]) -> None:
        """Begin the response; its head goes out with the first of its body.

        Raises:
            ClientGone: Nobody is there to read it.
            TypeError, ValueError: See `Exchange.start`.
        """
        with self._changed:
            self._check()
            self._out.append(self._exchange.start(status, headers, last=self._last))

    def send(self, data: bytes) -> None:
        """Send some of the response's body.

        Blocks while more than 256 KiB wait for the client to read.

        Raises:
            ClientGone: Nobody is there to read it.
            ResponseError: There is more of it than its Content-Length says;
                the rest was left out.
        """
        view = memoryview(data)
        for start in range(0, len(data), _PIECE):
            with self._changed:
                self._wait_for_room()
                for piece in self._exchange.data(view[start : start + _PIECE]):
                    self._out.append(piece)
                self._push()
                if self._exchange.excess:
                    raise ResponseError("the response is longer than its Content-Length")

    def _wait_for_room(self) -> None:
        """Requires the lock."""
        self._check()
        if self._out.size > _HIGH:
            while self._out.size > _LOW:
                self._changed.wait()
                self._check()

    def finish(self) -> None:
        """End the response.

        Raises:
            ClientGone: Nobody is there to read it.
            ResponseError: There is less of it than its Content-Length says.
        """
        with self._changed:
            self._check()
            end = self._exchange.end()
            if end:
                self._out.append(end)
            self._push()
            self._move(Phase.SENDING)
        self._loop.flush_soon(self._mover)

    # -- Under the lock --------------------------------------------------

    def _push(self) -> None:
        """Write at once, or have it written if something is queued. Requires the lock."""
        if self._flushing or not self._out.size:
            return
        try:
            self._flushing = not self._write()
        except OSError as exc:
            why = f"the client was lost: {exc}"
            self._loop.call_soon(self._mover.end, why, owner=self._mover)
            raise ClientGone(why) from exc
        if self._flushing:
            self._loop.flush_soon(self._mover)

    def _write(self) -> bool:
        """Write what the socket takes; return whether that is all. Requires the lock."""
        before = self._out.size
        try:
            return self._out.write_to(self._transport)
        finally:
            self._taken += before - self._out.size
