"""One open WebSocket, either end.

Threads: methods under "I/O thread" run only in the IOLoop; methods under "Any
thread" may be called from anywhere and take the lock themselves.

In:  the loop calls `on_ready`, the bytes go through the decoder, messages into
the inbox. Out: see `outbound`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config import ConnectionConfig
from ..errors import (
    Close,
    ConnectionClosed,
    KeepaliveTimeout,
    MessageTimeout,
    OverloadError,
    PayloadTooBigError,
    ProtocolError,
    SendTimeout,
    WebSocketError,
)
from ..protocol.decoder import Decoder
from ..protocol.encoder import Encoder
from ..protocol.events import BINARY, CLOSE, ERROR, PING, PONG, TEXT, Event
from ..timing import Deadline
from .budget import Budget
from .dispatch import CLOSED, IDLE, OPENED, Inbox, nothing
from .loop import READ, WRITE, IOLoop
from .outbound import Outbound
from .state import MOVES, NO_CLOSE, End, State
from .stats import ConnectionStats
from .timers import Timer
from .transport import Transport
from .watch import Due, Watch

__all__ = ["Connection"]

# Reads of one large frame before others have their turn.
_READS = 8

# Reads at the most from a connection that can no longer be written to.
_LAST_READS = 64

# Seconds for which the answer to the peer's close frame waits for those who
# have its last messages, so that their replies come before it. RFC 6455
# section 5.5.1 lets an endpoint finish what it is sending.
_GRACE = 0.5

_OPEN = State.OPEN
_ANSWERING = State.ANSWERING
_CLOSED = State.CLOSED


class Connection:
    """A WebSocket after its opening handshake.

    Guarantees:
        - What `send` has taken is written whole, in the order it was taken.
        - The inbox gets the events in order of arrival, and `CLOSED` last, once.
        - At most one close frame is sent.

    Args:
        loop: The I/O loop that will own the socket.
        transport: The connected socket, past TLS.
        client: Whether this end is the client.
        decoder: The inbound half of the protocol.
        encoder: The outbound half.
        config: Limits and timeouts.
        inbox: Where messages go.
        auto_pong: Answer pings here; else they go to the inbox.
        idle_event: Tell the inbox of idleness; else close with 1001.
        on_end: Called once in the I/O thread when the socket is gone.
        budget: What this and others may hold in memory together.
    """

    __slots__ = (
        "__weakref__",
        "_answer",
        "_auto_pong",
        "_began",
        "_budget",
        "_client",
        "_config",
        "_decoder",
        "_end",
        "_farewells",
        "_idle_event",
        "_inbox",
        "_lasted",
        "_loop",
        "_mask",
        "_messages_received",
        "_on_end",
        "_reading",
        "_rest",
        "_state",
        "_surplus",
        "_take",
        "_timer",
        "_transport",
        "_watch",
        "closed_here",
        "outbound",
    )

    def __init__(
        self,
        loop: IOLoop,
        transport: Transport,
        *,
        client: bool,
        decoder: Decoder,
        encoder: Encoder,
        config: ConnectionConfig,
        inbox: Inbox,
        auto_pong: bool = True,
        idle_event: bool = False,
        on_end: Callable[[Connection], None] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._loop = loop
        self._budget = budget
        self._client = client
        self._config = config
        self._inbox = inbox
        self._auto_pong = auto_pong
        self._idle_event = idle_event
        self._on_end = on_end
        inbox.on_room = self._ask_to_resume
        inbox.on_last = self.conclude

        # Owned by the I/O thread.
        self._decoder = decoder
        self._messages_received = 0
        self._surplus = 0  # bytes of messages beyond the sizes that the inbox adds up
        self._mask = 0  # what the selector waits for; 0: not registered
        self._reading = False
        # Receives and decodes plain frames in one go, where the transport can.
        self._take = transport.frame_receiver(decoder.plain_frames)
        # Bytes that came before reading began; None once it has.
        self._rest: bytes | None = b""
        self._timer: Timer | None = None
        self._began = loop.clock()
        self._lasted: float | None = None  # seconds, once it has ended
        self._watch = Watch(config, self._began)

        # Guarded by the outbound half's lock.
        self._state = State.OPEN
        self._transport = transport
        self._end = End()
        self._answer: Close | None = None  # to the peer's close or failure
        self.closed_here = False  # this end was the first to close, or failed
        self._farewells: dict[object, Callable[[], None]] | None = None  # see `when_ended`

        #: What sends.
        self.outbound = Outbound(loop, transport, encoder, config, self._watch, self._end, self)
        loop.own(self)
        if budget is not None and budget.tight:
            self.tighten()

    # -- I/O thread ------------------------------------------------------

    def take_over(self) -> None:
        """The socket is registered for READ already, for an owner that gives it up."""
        self._loop.modify(self._transport.sock, READ, self)
        self._mask = READ

    def start(self, out: bytes, rest: bytes, reading: bool, opened: bool) -> None:
        """Take the socket over.

        Args:
            out: Bytes to write before anything else: a handshake's response.
            rest: Bytes received after the peer's handshake: its first frames.
            reading: Whether to read at once, or after `ask_to_read`.
            opened: Whether the inbox is told, before anything else.
        """
        if self._state is State.CLOSED:
            return
        self._rest = rest
        self._schedule()
        if opened:
            self._inbox.put(Event(OPENED, None))
        if out:
            self.outbound.send_first(out)
        if reading:
            self._begin_reading()
        self._update_interest()

    def on_ready(self, mask: int) -> None:
        """The socket is ready."""
        take = self._take
        if take is not None and mask == READ and self._decoder.at_border:
            # Nearly always all that has come are plain frames.
            try:
                got = take(self._loop.buffer)
            except OSError:
                self._terminate()
                return
            if got.__class__ is list:
                watch = self._watch
                watch.alive = True
                if watch.idle_timeout is not None:
                    watch.last_message = self._loop.clock()
                full = False
                if self._state is _OPEN:
                    put = self._inbox.put
                    # Before it is handed on: a callback may ask.
                    self._messages_received += len(got)
                    for message in got:
                        data = message[1]
                        if data.__class__ is str and not data.isascii():
                            self._surplus += _surplus(data)
                        full = put(message)
                if full:
                    self._pause()
            else:
                self._took(got)
        elif self._state is _CLOSED:
            return
        elif self._transport.secure:
            self._on_ready_tls(mask)
        else:
            if mask & READ:
                self._read()
            if mask & WRITE:
                self._write_on()

    def _took(self, got: Any) -> None:
        """Something else than plain frames has come, or nothing, or the end."""
        if isinstance(got, int):
            if got < 0:
                self._update_interest()
            else:
                self._terminate()
            return
        events, pos, end = got
        self._watch.alive = True
        self._watch.came(end - pos)
        self._deliver(self._decoder.receive_rest(self._loop.buffer, pos, end, events))
        if self._decoder.in_frame and self._reading:
            self._read()  # what is cut in two has its other half behind it, as a rule

    def _on_ready_tls(self, mask: int) -> None:
        """Reading may have waited for the socket to be writable, and the other way round."""
        transport = self._transport
        if mask & READ or (transport.wants_write and self._reading):
            self._read()
        if mask & WRITE:
            self._write_on()
        elif transport.wants_read:
            self.outbound.flush()
        self._update_interest()

    def _write_on(self) -> None:
        """The socket was full and takes bytes again.

        So the peer has taken some, and is there, though it may have a long
        way to our last ping.
        """
        outbound = self.outbound
        before = outbound.size
        outbound.flush()
        if outbound.size < before:
            self._watch.alive = True

    def _read(self) -> None:
        """Read once, and on while a frame has come in part only, up to a bound."""
        for _ in range(_READS):
            try:
                events = self._receive()
            except OSError:
                self._terminate()
                return
            if events is None:
                self._update_interest()
                return
            if events or self._decoder.pending:
                self._deliver(events)
            elif not self._watch.in_message:
                self._note_progress(events)
            if not (self._decoder.in_frame and self._reading):
                return

    def _receive(self) -> list[Event] | None:
        """Take what has come; None if nothing has.

        Raises:
            OSError: The connection is at its end, or lost.
        """
        decoder = self._decoder
        space = None if self._transport.secure else decoder.space()
        if space is not None:
            with space:
                size = self._transport.receive(space)
        else:
            size = self._transport.receive(self._loop.buffer)
        if size < 0:
            return None
        if not size:
            raise ConnectionResetError
        if self._state is State.ENDING:
            return []
        self._watch.alive = True
        self._watch.came(size)
        if space is not None:
            return decoder.filled(size)
        return decoder.receive(self._loop.buffer, size)

    def _deliver(self, events: list[Event]) -> None:
        """Hand events on, and those that can be decoded of what is here, while there is room."""
        inbox = self._inbox
        decoder = self._decoder
        watch = self._watch
        while True:
            if watch.idle_timeout is not None:
                self._note_messages(events)
            if not decoder.at_border:
                self._note_progress(events)
            elif watch.in_message:
                watch.end_message()
            full = False
            for event in events:
                opcode = event[0]
                if 0 < opcode <= BINARY:
                    # RFC 6455 section 1.4 lets us ignore data once we have closed.
                    if self._state is _OPEN:
                        self._surplus += _surplus(event[1])
                        self._messages_received += event[2]
                        full = inbox.put(event)
                else:
                    full = self._control(event) or full
            if (full and self._pause()) or not decoder.pending:
                return
            events = decoder.receive(b"")

    def _pause(self) -> bool:
        """Read no more until the inbox has room; return False if it has already."""
        if self._state is not _OPEN:
            return False
        # It may pause already, since TLS reads to be able to write. If there is
        # room now the inbox asks nobody to read on.
        self._reading = not self._inbox.pause()
        now = self._loop.clock()
        if self._reading:
            self._watch.resume(now)
        else:
            self._watch.pause(now)
            if self._budget is not None:
                self._budget.note(self)  # while its callback runs it is not in the run queue
        self._update_interest()
        return not self._reading

    def _control(self, event: Event) -> bool:
        """Return whether the inbox is full."""
        opcode = event.opcode
        if opcode == PING:
            return self._pinged(event)
        if opcode == PONG:
            return self._ponged(event)
        if opcode == CLOSE:
            self._peer_closed(event.data)
        else:
            self._peer_failed(event.data)
        return False

    def _note_messages(self, events: list[Event]) -> None:
        """No idleness while messages come, or parts of one."""
        if self._decoder.in_message or any(event.opcode in (TEXT, BINARY) for event in events):
            self._watch.last_message = self._loop.clock()

    def _note_progress(self, events: list[Event]) -> None:
        """A frame or a message is under way: it has to be here in time.

        What has come completed others perhaps, and then this one is new.
        """
        watch = self._watch
        new = not watch.in_message or any(
            event.opcode in (TEXT, BINARY) and event.final for event in events
        )
        if new:
            if watch.begin_message(self._loop.clock(), self._decoder.held):
                self._schedule()
            if self._budget is not None:
                self._budget.note(self)
        else:
            # Control frames between its fragments do not get it on.
            header = 2 if self._client else 6
            beside = [header + len(one.data) for one in events if one.opcode in (PING, PONG)]
            watch.came_beside(sum(beside))

    def _pinged(self, event: Event) -> bool:
        """RFC 6455 section 5.5.2."""
        if self._auto_pong:
            self.outbound.send_pong(event.data)
            return False
        return self._state is State.OPEN and self._inbox.put(event)

    def _ponged(self, event: Event) -> bool:
        keepalive = self._watch.pong(event.data, self._loop.clock())
        return not keepalive and self._state is State.OPEN and self._inbox.put(event)

    def _peer_closed(self, close: Close) -> None:
        """Answer the peer's close frame, or take it for the answer. RFC 6455 section 5.5.1."""
        with self.outbound.lock:
            self._end.received = close
        self._no_more(Event(CLOSE, close), Close(close.code))

    def _peer_failed(self, error: ProtocolError | PayloadTooBigError) -> None:
        """Fail the connection for what the peer did. RFC 6455 section 7.1.7."""
        with self.outbound.lock:
            self._end.error = error
        self._no_more(Event(ERROR, error), Close(error.status_code, _fit(str(error))))

    def _no_more(self, event: Event, answer: Close) -> None:
        """Nothing more comes from the peer: send our close frame, or end if it is sent.

        Who is dealing with the messages that came before has `_GRACE` to answer them.
        """
        with self.outbound.lock:
            if self._state is State.CLOSING:
                self._move(State.ENDING)
                self.outbound.notify()
            elif self._state is State.OPEN:
                self._answer = answer
                self._move(State.ANSWERING)
        if self._state is not State.ANSWERING:
            self._end_tcp()
            return
        busy = self._inbox.busy()
        if busy:
            self._reading = False
            self._watch.relax()
            self._watch.answer_by(self._loop.clock() + _GRACE)
            self._schedule()
            self._update_interest()
        else:
            self.conclude()
        if busy or self._inbox.hears_close or event.opcode == ERROR:
            self._inbox.put(event)

    def _end_tcp(self) -> None:
        """No more frames either way: end TCP once what is queued is written.

        The server ends it, so that the client does not keep the port in
        TIME_WAIT, says RFC 6455 section 7.1.1; a failed connection either end
        does. What the peer still sends is read and dropped until its end, for
        closing a socket with unread bytes would reset the connection and could
        destroy the close frame on its way.
        """
        if self._state is State.CLOSED:
            return
        self._take = None  # what still comes is dropped
        self._reading = True
        self._watch.relax()
        self._watch.end_by(self._loop.clock() + self._config.close_timeout)
        self._schedule()
        self._after_flush()
        self._update_interest()

    def flushed(self, drained: bool) -> None:
        """What was queued has been written, as far as the socket takes it."""
        if not drained and self._budget is not None:
            self._budget.note(self)
        self._after_flush()
        self._update_interest()

    def _after_flush(self) -> None:
        """Half-close once everything is written and we are to end TCP."""
        if self._state is State.ENDING and not self.outbound.flushing:
            failed = self._end.received is None
            if failed or not self._client:
                self._transport.shutdown_write()

    def write_failed(self) -> None:
        """Writing has failed. What the peer sent before may tell why: read it.

        That stops where the inbox is full, and goes on when it has room.
        """
        for _ in range(_LAST_READS if self._rest is None else 0):
            if not self._reading:
                self._update_interest()
                return
            try:
                events = self._receive()
            except OSError:
                break
            if events is None:
                break
            self._deliver(events)
        self._terminate()

    def fell_behind(self, size: int) -> None:
        """The peer has `size` bytes to read still, and there is more that cannot wait for it."""
        if self._state is not _OPEN:
            return
        error = SendTimeout(
            f"the peer has {size} bytes still to read, and the next message of a group "
            "waits for nobody"
        )
        self._give_up_on(error, Close(1013, "too slow"))

    def holds_back(self) -> None:
        """Messages wait for the end of a fragmented one, which may not come."""
        if self._budget is not None:
            self._budget.note(self)

    def _give_up_on(self, error: WebSocketError, close: Close) -> None:
        """The peer does not do its part: fail the connection."""
        self.fail(error, close)
        self._inbox.put(Event(ERROR, error))

    def held(self) -> tuple[int, int]:
        """Return the bytes that wait for a worker, and those that an end would give back."""
        if self._state is _CLOSED:
            return 0, 0
        return self._inbox.waiting(), self._decoder.held + self.outbound.held()

    def tighten(self) -> None:
        """Hold as little as possible from now on: memory is scarce."""
        self.outbound.tighten()
        self._inbox.bound(1, 1)

    def relax(self) -> None:
        """Hold as much as is set, again."""
        self.outbound.relax()
        self._inbox.bound(self._config.receive_queue_size, self._config.receive_queue_bytes)

    def give_back(self, size: int) -> None:
        """End, and give back what is held: so many bytes."""
        error = OverloadError(f"{size} bytes are held for this connection, and all hold too much")
        self._give_up_on(error, Close(error.status_code, "overloaded"))
        self._terminate()

    def _begin_reading(self) -> None:
        """Read for the first time, beginning with what came too early."""
        if self._rest is not None:
            self._read_on()

    def _resume_reading(self) -> None:
        """The inbox has room again."""
        if self._state is State.OPEN:
            self._read_on()

    def _read_on(self) -> None:
        """Read from now on, beginning with what is here already."""
        if self._reading:
            return
        self._reading = True
        self._watch.resume(self._loop.clock())
        self._schedule()
        rest, self._rest = self._rest or b"", None
        if rest or self._decoder.pending:
            self._deliver(self._decoder.receive(rest))
        self._update_interest()
        if self._transport.secure and self._reading:
            # The TLS layer may hold bytes that the selector does not know of.
            self._read()

    def _update_interest(self) -> None:
        """Tell the selector what to wait for."""
        if self._state is State.CLOSED:
            return
        transport = self._transport
        # A read that waits for the socket to be writable would find it readable
        # over and over.
        wants_write = self._reading and transport.wants_write
        reading = self._reading and not wants_write
        mask = READ if reading or transport.wants_read else 0
        if wants_write or (self.outbound.flushing and not transport.wants_read):
            mask |= WRITE
        self.outbound.attentive = mask & WRITE != 0 or self._state is State.ENDING
        if mask == self._mask:
            return
        if not mask:
            self._loop.unregister(transport.sock)
        elif not self._mask:
            self._loop.register(transport.sock, mask, self)
        else:
            self._loop.modify(transport.sock, mask, self)
        self._mask = mask

    def _schedule(self) -> None:
        """Set the timer to when something is due next."""
        due = self._watch.next_due()
        timer = self._timer
        if timer is not None:
            if due is not None and timer.call is not None and timer.when <= due:
                return  # it comes early enough, and looks again then
            timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer, self)

    def _on_timer(self) -> None:
        quiet = self._inbox.idle()
        for due in self._watch.check(self._loop.clock(), quiet=quiet):
            if due is Due.CUT:
                self._terminate()
            elif due is Due.ANSWER:
                self.conclude()
            elif self._state is State.OPEN:
                self._open_timer(due)
        if self._state is not State.CLOSED:
            self._schedule()

    def _open_timer(self, due: Due) -> None:
        config = self._config
        if due is Due.PING:
            self._keep_alive()
        elif due is Due.LOST:
            error = KeepaliveTimeout(
                f"nothing came within {config.ping_timeout} s of a keepalive ping"
            )
            self.fail(error, Close(error.status_code, str(error)))
            self._inbox.put(Event(ERROR, error))
            self._terminate()
        elif due is Due.SLOW:
            self._give_up_on(
                MessageTimeout(
                    f"a message was not here {config.message_timeout} s after its first byte, "
                    "and came with less than a KiB a second since"
                ),
                Close(1008, "message too slow"),
            )
        elif self._idle_event:
            self._inbox.put(Event(IDLE, None))
        else:
            self.start_close(Close(1001, "idle timeout"), config.close_timeout)

    def _keep_alive(self) -> None:
        self.outbound.send_ping(self._watch.ping(self._loop.clock()))
        self.outbound.rest()

    def _terminate(self) -> None:
        """The socket is at its end: release it and tell everyone."""
        with self.outbound.lock:
            if self._state is State.CLOSED:
                return
            self._move(State.CLOSED)
            self._lasted = self._loop.clock() - self._began
            farewells, self._farewells = self._farewells, None
            if self._mask:
                self._loop.unregister(self._transport.sock)
                self._mask = 0
            # Under the lock: no sender may be about to use the descriptor.
            self._transport.close()
            self._take = None
            self.outbound.release()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rest = None
        for call in (farewells or {}).values():
            call()
        inbox = self._inbox
        if self._budget is not None:
            self._budget.keep(inbox)
        inbox.put(Event(CLOSED, self._end.received or NO_CLOSE))
        # Without these cycles all is freed at once.
        inbox.on_room = inbox.on_last = nothing
        self._decoder.release()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self)
        with self.outbound.lock:
            self.outbound.notify()
        self._loop.disown(self)  # only now: a fork has to renew the lock above as well

    def abort(self) -> None:
        """End now, without a closing handshake."""
        self._terminate()

    def on_loop_error(self, error: BaseException) -> None:
        """Something of ours raised in the I/O thread."""
        self._end.error = error
        self._terminate()

    def abandon(self) -> None:
        """In a forked child: close this process's copy of the socket, and be closed."""
        self.outbound.abandon()
        self._state = State.CLOSED
        self.closed_here = True  # what waits to be delivered is the parent's
        self._mask = 0
        self._take = None
        self._transport.abandon()
        self._inbox.close()

    # -- Any thread ------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._state

    @property
    def config(self) -> ConnectionConfig:
        """The limits and timeouts in force."""
        return self._config

    @property
    def transport(self) -> Transport:
        """The socket, to be asked for addresses and certificates only."""
        return self._transport

    @property
    def latency(self) -> float | None:
        """Seconds from the last keepalive ping to its pong; None before the first."""
        return self._watch.latency

    @property
    def received(self) -> Close | None:
        """The peer's close frame."""
        return self._end.received

    @property
    def sent(self) -> Close | None:
        """Our close frame."""
        return self._end.sent

    @property
    def error(self) -> BaseException | None:
        """Why the connection failed, if it did."""
        return self._end.error

    def stats(self) -> ConnectionStats:
        """Return what was counted so far."""
        out = self.outbound
        lasted = self._lasted
        return ConnectionStats(
            self._inbox.total() + self._surplus,
            out.bytes_sent,
            self._messages_received,
            out.messages_sent,
            self._loop.clock() - self._began if lasted is None else lasted,
        )

    def closed_error(self) -> ConnectionClosed:
        """Return the error that tells how the connection ended."""
        return self._end.closed_error()

    def ask_to_read(self) -> None:
        """Begin to read. Harmless if that is so already."""
        self._loop.call_soon(self._begin_reading, owner=self)

    def _ask_to_resume(self) -> None:
        self._loop.call_soon(self._resume_reading, owner=self)

    @property
    def sending(self) -> bool:
        """Whether messages can be sent, as far as is known: writing may have failed just now."""
        return self.outbound.open and not self.outbound.failed

    def start_close(self, close: Close, timeout: float) -> None:
        """Send a close frame if none was sent, and end within `timeout` seconds.

        Does not wait.
        """
        with self.outbound.lock:
            if self._state is State.CLOSED:
                return
            if self._state is _OPEN or self._state is _ANSWERING:
                self.closed_here = True
                answering = self._state is State.ANSWERING
                self._send_close(close, State.ENDING if answering else State.CLOSING)
        self._inbox.close()
        self._loop.call_soon(self._await_close, self._loop.clock() + timeout, owner=self)

    def conclude(self) -> None:
        """What came before the peer's close or failure is dealt with: answer it."""
        with self.outbound.lock:
            if self._state is not State.ANSWERING:
                return
            assert self._answer is not None
            self._send_close(self._answer, State.ENDING)
        self._loop.call_soon(self._end_tcp, owner=self)

    def give_up(self) -> None:
        """Have no more messages delivered: whoever gets them cannot go on."""
        with self.outbound.lock:
            self.closed_here = True

    def fail(self, error: BaseException, close: Close) -> None:
        """Close because this end cannot go on.

        Does not wait.

        Args:
            error: Why.
            close: What the peer is told.
        """
        with self.outbound.lock:
            self.closed_here = True
            if self._state is State.CLOSED:
                return
            if self._end.error is None:
                self._end.error = error
            if self._state is _OPEN or self._state is _ANSWERING:
                answering = self._state is State.ANSWERING
                self._send_close(close, State.ENDING if answering else State.CLOSING)
        deadline = self._loop.clock() + self._config.close_timeout
        self._loop.call_soon(self._await_close, deadline, owner=self)

    def _send_close(self, close: Close, state: State) -> None:
        """Send our one close frame. Requires the lock."""
        try:
            self._move(state)
            if self.outbound.send_close(close):
                self.outbound.flush_soon()
            self.outbound.notify()
        except BaseException:
            self.outbound.cut_short()  # the frame may be out, and is not sent twice
            raise

    def wait_closed(self, timeout: float | None) -> bool:
        """Wait until the socket is gone; return whether it is.

        The I/O thread, which alone can bring that about, does not wait.
        """
        deadline = Deadline(0.0 if self._loop.in_thread() else timeout, self._loop.wait_clock)
        with self.outbound.lock:
            condition = self.outbound.waiting()
            while self._state is not State.CLOSED:
                remaining = deadline.remaining()
                if remaining == 0.0:
                    return False
                condition.wait(remaining)
        return True

    def when_ended(self, key: object, call: Callable[[], None]) -> bool:
        """Have `call()` made in the I/O thread when the socket is gone, before anybody hears of it.

        Returns False if it is gone.
        """
        with self.outbound.lock:
            if self._state is State.CLOSED:
                return False
            self._farewells = self._farewells or {}
            self._farewells[key] = call
            return True

    def not_when_ended(self, key: object) -> None:
        """Forget what `when_ended` was told."""
        with self.outbound.lock:
            if self._farewells is not None:
                self._farewells.pop(key, None)

    def ask_to_abort(self) -> None:
        """End now, without a closing handshake. Does not wait."""
        self._loop.call_soon(self.abort, owner=self)

    # -- Under the lock --------------------------------------------------

    def _move(self, state: State) -> None:
        """Requires the lock."""
        assert state in MOVES[self._state], f"{self._state} to {state}"
        self._state = state
        # Who has fallen behind, or was cut short, stays closed whatever the peer does.
        self.outbound.open &= state is _OPEN or state is _ANSWERING

    # -- I/O thread, on behalf of another --------------------------------

    def _await_close(self, deadline: float) -> None:
        """Our close frame is on its way: see that the closing handshake comes to an end."""
        if self._state is State.CLOSED:
            return
        self._watch.end_by(deadline)
        if self._state is State.ENDING:
            self._end_tcp()
            return
        self._watch.relax()
        self._schedule()
        self._read_on()


def _surplus(data: str | bytes) -> int:
    """Return how many bytes a message has beyond its length: in UTF-8, if it is text."""
    return 0 if isinstance(data, bytes) or data.isascii() else len(data.encode()) - len(data)


def _fit(reason: str) -> str:
    """Cut `reason` to what a close frame has room for: 123 bytes. RFC 6455 section 5.5."""
    return reason.encode()[:123].decode(errors="ignore")
