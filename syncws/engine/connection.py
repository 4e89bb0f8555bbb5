"""One open WebSocket, either end.

Threads: methods under "I/O thread" run only in the IOLoop; methods under "Any
thread" may be called from anywhere and take the lock themselves.

In:  the loop calls `on_ready`, the bytes go through the decoder, messages into
the inbox. Out: `send` encodes and writes at once if nothing is queued and no
callback waits for a worker; else it queues, and the loop writes the batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sized

from ..config import ConnectionConfig
from ..errors import (
    Close,
    ConnectionClosed,
    KeepaliveTimeout,
    PayloadTooBigError,
    ProtocolError,
    SendTimeout,
)
from ..protocol.decoder import Decoder
from ..protocol.encoder import Encoder
from ..protocol.events import BINARY, CLOSE, ERROR, PING, PONG, TEXT, Event
from ..timing import Deadline
from .dispatch import CLOSED, IDLE, OPENED, Inbox, nothing
from .loop import READ, WRITE, IOLoop
from .outbuf import OutBuffer
from .state import MOVES, State
from .timers import Timer
from .transport import Transport
from .watch import Due, Watch

__all__ = ["Connection"]

# Bytes asked of a socket at once.
_READ_SIZE = 65_536

# Reads at the most from a connection that can no longer be written to.
_LAST_READS = 64

# Seconds for which the answer to the peer's close frame waits for those who
# have its last messages, so that their replies come before it. RFC 6455
# section 5.5.1 lets an endpoint finish what it is sending.
_GRACE = 0.5

_OPEN = State.OPEN
_ANSWERING = State.ANSWERING
_CLOSED = State.CLOSED

_NO_CLOSE = Close(1006)  # RFC 6455 section 7.1.5: no close frame was received


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
    """

    __slots__ = (
        "__weakref__",
        "_answer",
        "_auto_pong",
        "_client",
        "_condition",
        "_config",
        "_decoder",
        "_encoder",
        "_encoding",
        "_flushing",
        "_high",
        "_idle_event",
        "_inbox",
        "_lock",
        "_loop",
        "_low",
        "_mask",
        "_on_end",
        "_out",
        "_pong_due",
        "_reading",
        "_rest",
        "_run_queue",
        "_state",
        "_timer",
        "_transport",
        "_watch",
        "_write_error",
        "closed_here",
        "error",
        "received",
        "sent",
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
    ) -> None:
        self._loop = loop
        # Only whether it is empty matters here.
        self._run_queue: Sized = loop.pool.queue if loop.pool is not None else ()
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
        self._mask = 0  # what the selector waits for; 0: not registered
        self._reading = False
        # Bytes that came before reading began; None once it has.
        self._rest: bytes | None = b""
        self._timer: Timer | None = None
        self._watch = Watch(config, loop.clock())

        # Held by whoever sends a message, from encoding to queueing: deflate
        # output is only valid on the wire in the order it was produced. Taken
        # before _lock, and never in the I/O thread, which must not wait while
        # a big message is compressed.
        self._encoding = threading.Lock()
        self._encoder = encoder

        # Guarded by _lock.
        self._lock = threading.Lock()
        self._condition: threading.Condition | None = None  # made by the first who waits
        self._state = State.OPEN
        self._transport = transport
        self._out = OutBuffer()
        self._high = config.send_buffer_size  # bytes above which senders wait
        self._low = config.send_buffer_size // 4  # and at which they go on
        self._flushing = False  # the I/O thread will write what is queued
        self._write_error: OSError | None = None
        self._pong_due: bytes | None = None  # a pong kept back while the peer does not read
        self._answer: Close | None = None  # to the peer's close or failure
        self.received: Close | None = None
        self.sent: Close | None = None
        self.error: BaseException | None = None  # why the connection failed
        self.closed_here = False  # this end was the first to close, or failed
        loop.own(self)

    # -- I/O thread ------------------------------------------------------

    def start(self, out: bytes, rest: bytes, reading: bool, opened: bool) -> None:
        """Take the socket over.

        Args:
            out: Bytes to write before anything else: a handshake's response.
            rest: Bytes received behind the peer's handshake: its first frames.
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
            with self._lock:
                queued = self._write(out)
            if queued:
                self.flush()
        if reading:
            self._begin_reading()
        self._update_interest()

    def on_ready(self, mask: int) -> None:
        """The socket is ready."""
        if self._state is _CLOSED:
            return
        if self._transport.secure:
            self._on_ready_tls(mask)
            return
        if mask & READ:
            self._read()
        if mask & WRITE:
            self._write_on()

    def _on_ready_tls(self, mask: int) -> None:
        """Reading may have waited for the socket to be writable, and the other way round."""
        transport = self._transport
        if mask & READ or transport.wants_write:
            self._read()
        if mask & WRITE:
            self._write_on()
        elif transport.wants_read:
            self.flush()
        self._update_interest()

    def _write_on(self) -> None:
        """The socket was full and takes bytes again.

        So the peer has taken some, and is there, though it may have a long
        way to our last ping.
        """
        before = self._out.size
        self.flush()
        if self._out.size < before:
            self._watch.alive = True

    def _read(self) -> None:
        try:
            data = self._transport.receive(_READ_SIZE)
        except OSError:
            self._terminate()
            return
        if data is None:
            self._update_interest()
        elif not data:
            self._terminate()
        elif self._state is not State.ENDING:
            self._watch.alive = True
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        """Decode `data` and hand its events on, as far as the inbox has room."""
        inbox = self._inbox
        decoder = self._decoder
        while True:
            events = decoder.receive(data)
            if self._watch.idle_timeout is not None:
                self._note_messages(events)
            for event in events:
                opcode = event[0]
                if 0 < opcode <= BINARY:
                    # RFC 6455 section 1.4 lets us ignore data once we have closed.
                    if self._state is _OPEN:
                        inbox.put(event)
                else:
                    self._control(event)
            if inbox.full() and self._state is _OPEN and inbox.pause():
                self._reading = False
                self._update_interest()
                return
            if not decoder.pending:
                return
            data = b""

    def _control(self, event: Event) -> None:
        opcode = event.opcode
        if opcode == PING:
            self._pinged(event)
        elif opcode == PONG:
            self._ponged(event)
        elif opcode == CLOSE:
            self._peer_closed(event.data)
        else:
            self._peer_failed(event.data)

    def _note_messages(self, events: list[Event]) -> None:
        """No idleness while messages come, or parts of one."""
        if self._decoder.in_message or any(event.opcode in (TEXT, BINARY) for event in events):
            self._watch.last_message = self._loop.clock()

    def _pinged(self, event: Event) -> None:
        """RFC 6455 section 5.5.2."""
        if not self._auto_pong:
            if self._state is State.OPEN:
                self._inbox.put(event)
            return
        with self._lock:
            if self._state is not State.OPEN:
                return
            if self._out.size > self._high:
                # The peer floods us and does not read: only the latest ping
                # needs an answer, says section 5.5.3.
                self._pong_due = event.data
                return
            queued = self._write(self._encoder.pong(event.data))
        if queued:
            self._loop.flush_soon(self)

    def _ponged(self, event: Event) -> None:
        keepalive = self._watch.pong(event.data, self._loop.clock())
        if not keepalive and self._state is State.OPEN:
            self._inbox.put(event)

    def _peer_closed(self, close: Close) -> None:
        """Answer the peer's close frame, or take it for the answer. RFC 6455 section 5.5.1."""
        with self._lock:
            self.received = close
        self._no_more(Event(CLOSE, close), Close(close.code))

    def _peer_failed(self, error: ProtocolError | PayloadTooBigError) -> None:
        """Fail the connection for what the peer did. RFC 6455 section 7.1.7."""
        with self._lock:
            self.error = error
        self._no_more(Event(ERROR, error), Close(error.status_code, _fit(str(error))))

    def _no_more(self, event: Event, answer: Close) -> None:
        """Nothing more comes from the peer: send our close frame, or end if it is sent.

        Who is dealing with the messages that came before has `_GRACE` to answer them.
        """
        with self._lock:
            if self._state is State.CLOSING:
                self._move(State.ENDING)
                self._notify()
            elif self._state is State.OPEN:
                self._answer = answer
                self._move(State.ANSWERING)
        if self._state is not State.ANSWERING:
            self._end_tcp()
            return
        if self._inbox.busy():
            self._reading = False
            self._watch.relax()
            self._watch.answer_by(self._loop.clock() + _GRACE)
            self._schedule()
            self._update_interest()
        else:
            self.conclude()
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
        self._reading = True
        self._watch.relax()
        self._watch.end_by(self._loop.clock() + self._config.close_timeout)
        self._schedule()
        self._after_flush()
        self._update_interest()

    def flush(self) -> None:
        """Write what is queued, as far as the socket takes it."""
        failed = False
        with self._lock:
            if self._state is _CLOSED:
                return
            try:
                if self._write_error is not None:
                    raise self._write_error
                drained = self._out.write_to(self._transport)
                if drained and self._pong_due is not None and self._state is State.OPEN:
                    self._out.append(self._encoder.pong(self._pong_due))
                    self._pong_due = None
                    drained = self._out.write_to(self._transport)
            except OSError as exc:
                self._write_error = exc
                failed = True
            else:
                self._flushing = not drained
                if self._condition is not None and self._out.size <= self._low:
                    self._condition.notify_all()
        if failed:
            self._read_to_end()
        elif not drained or self._mask & WRITE or self._state is not _OPEN:
            self._after_flush()
            self._update_interest()

    def _after_flush(self) -> None:
        """Half-close once everything is written and we are to end TCP."""
        if self._state is State.ENDING and not self._flushing:
            failed = self.received is None
            if failed or not self._client:
                self._transport.shutdown_write()

    def _read_to_end(self) -> None:
        """Writing has failed. What the peer sent before may tell why: read it.

        That stops where the inbox is full, and goes on when it has room.
        """
        with self._lock:
            self._out.clear()
            self._flushing = False
            self._notify()
        for _ in range(_LAST_READS if self._rest is None else 0):
            if not self._reading:
                self._update_interest()
                return
            try:
                data = self._transport.receive(_READ_SIZE)
            except OSError:
                break
            if not data:
                break
            if self._state is not State.ENDING:
                self._deliver(data)
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
        rest, self._rest = self._rest or b"", None
        if rest or self._decoder.pending:
            self._deliver(rest)
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
        reading = self._reading and not transport.wants_write
        mask = READ if reading or transport.wants_read else 0
        if transport.wants_write or (self._flushing and not transport.wants_read):
            mask |= WRITE
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
        for due in self._watch.check(self._loop.clock(), quiet=quiet, reading=self._reading):
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
        elif self._idle_event:
            self._inbox.put(Event(IDLE, None))
        else:
            self.start_close(Close(1001, "idle timeout"), config.close_timeout)

    def _keep_alive(self) -> None:
        data = self._watch.ping(self._loop.clock())
        with self._lock:
            queued = self._state is State.OPEN and self._write(self._encoder.ping(data))
        if queued:
            self._loop.flush_soon(self)

    def _terminate(self) -> None:
        """The socket is at its end: release it and tell everyone."""
        with self._lock:
            if self._state is State.CLOSED:
                return
            self._move(State.CLOSED)
            if self._mask:
                self._loop.unregister(self._transport.sock)
                self._mask = 0
            # Under the lock: no sender may be about to use the descriptor.
            self._transport.close()
            self._out.clear()
        self._loop.disown(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rest = None
        inbox = self._inbox
        inbox.put(Event(CLOSED, self.received or _NO_CLOSE))
        # Without these cycles all is freed at once.
        inbox.on_room = inbox.on_last = nothing
        self._decoder.release()
        if self._on_end is not None:
            self._on_end(self)
        with self._lock:
            self._notify()

    def abort(self) -> None:
        """End now, without a closing handshake."""
        self._terminate()

    def on_loop_error(self, error: BaseException) -> None:
        """Something of ours raised in the I/O thread."""
        self.error = error
        self._terminate()

    def abandon(self) -> None:
        """In a forked child: close this process's copy of the socket, and be closed."""
        self._lock = threading.Lock()
        self._encoding = threading.Lock()
        self._condition = None
        self._state = State.CLOSED
        self._mask = 0
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
    def buffered_amount(self) -> int:
        """Bytes taken by `send` that the system has not taken yet."""
        return self._out.size

    def closed_error(self) -> ConnectionClosed:
        """Return the error that tells how the connection ended; `error` is its cause."""
        error = ConnectionClosed(self.received, self.sent)
        error.__cause__ = self.error or self._write_error
        return error

    def send(self, opcode: int, payload: bytes, final: bool = True) -> None:
        """Send a message, a fragment of one, a ping or a pong; see `Endpoint.send_text`."""
        message = opcode <= BINARY
        watch = self._watch
        if message and watch.idle_timeout is not None:
            watch.last_message = self._loop.clock()
        deadline: Deadline | None = None
        while True:
            if self._state is not _OPEN and self._state is not _ANSWERING:
                raise self.closed_error()
            if self._out.size > self._high:
                deadline = self._wait_for_room(deadline)
            with self._encoding:
                if self._out.size > self._high:
                    continue  # another sender was quicker
                encoder = self._encoder
                if message:
                    frame = encoder.message(opcode, payload, final)
                else:
                    frame = encoder.ping(payload) if opcode == PING else encoder.pong(payload)
                with self._lock:
                    if self._state is not _OPEN and self._state is not _ANSWERING:
                        raise self.closed_error()
                    queued = self._write(frame)
                    failed = self._write_error is not None
            break
        if queued:
            self._loop.flush_soon(self)
        if failed:
            raise self.closed_error()

    def ask_to_read(self) -> None:
        """Begin to read. Harmless if that is so already."""
        self._loop.call_soon(self._begin_reading, owner=self)

    def _ask_to_resume(self) -> None:
        self._loop.call_soon(self._resume_reading, owner=self)

    @property
    def sending(self) -> bool:
        """Whether messages can be sent."""
        return self._state is _OPEN or self._state is _ANSWERING

    def start_close(self, close: Close, timeout: float) -> None:
        """Send a close frame if none was sent, and end within `timeout` seconds.

        Does not wait.
        """
        with self._lock:
            if self._state is State.CLOSED:
                return
            if self.sending:
                self.closed_here = True
                answering = self._state is State.ANSWERING
                self._send_close(close, State.ENDING if answering else State.CLOSING)
        self._inbox.close()
        self._loop.call_soon(self._await_close, self._loop.clock() + timeout, owner=self)

    def conclude(self) -> None:
        """What came before the peer's close or failure is dealt with: answer it."""
        with self._lock:
            if self._state is not State.ANSWERING:
                return
            assert self._answer is not None
            self._send_close(self._answer, State.ENDING)
        self._loop.call_soon(self._end_tcp, owner=self)

    def give_up(self) -> None:
        """Have no more messages delivered: whoever gets them cannot go on."""
        with self._lock:
            self.closed_here = True

    def fail(self, error: BaseException, close: Close) -> None:
        """Close because this end cannot go on.

        Does not wait.

        Args:
            error: Why.
            close: What the peer is told.
        """
        with self._lock:
            self.closed_here = True
            if self._state is State.CLOSED:
                return
            if self.error is None:
                self.error = error
            if self.sending:
                answering = self._state is State.ANSWERING
                self._send_close(close, State.ENDING if answering else State.CLOSING)
        deadline = self._loop.clock() + self._config.close_timeout
        self._loop.call_soon(self._await_close, deadline, owner=self)

    def _send_close(self, close: Close, state: State) -> None:
        """Send our one close frame. Requires _lock."""
        frame = self._encoder.close(close)
        self.sent = close
        if self._write(frame):
            self._loop.flush_soon(self)
        self._move(state)
        self._notify()

    def wait_closed(self, timeout: float | None) -> bool:
        """Wait until the socket is gone; return whether it is.

        The I/O thread, which alone can bring that about, does not wait.
        """
        deadline = Deadline(0.0 if self._loop.in_thread() else timeout, self._loop.clock)
        with self._lock:
            condition = self._waiting()
            while self._state is not State.CLOSED:
                remaining = deadline.remaining()
                if remaining == 0.0:
                    return False
                condition.wait(remaining)
        return True

    def ask_to_abort(self) -> None:
        """End now, without a closing handshake. Does not wait."""
        self._loop.call_soon(self.abort, owner=self)

    def _wait_for_room(self, deadline: Deadline | None) -> Deadline:
        """Wait until the peer has read; return the deadline that the next wait has, too."""
        # The I/O thread must not wait for itself. It comes here only from a
        # logging handler of the user's that sends what it gets.
        timeout = 0.0 if self._loop.in_thread() else self._config.send_timeout
        deadline = deadline or Deadline(timeout, self._loop.clock)
        with self._lock:
            condition = self._waiting()
            while self._out.size > self._high and self.sending:
                remaining = deadline.remaining()
                if remaining == 0.0:
                    raise SendTimeout(
                        f"no room for {timeout} s: the peer has {self._out.size} bytes still to "
                        "read; nothing of this message was sent"
                    )
                condition.wait(remaining)
            if not self.sending:
                raise self.closed_error()
        return deadline

    # -- Under the lock --------------------------------------------------

    def _write(self, data: bytes) -> bool:
        """Write or queue `data`; return whether the I/O thread has to flush. Requires _lock.

        With nothing queued, and no callback waiting for a worker, writing here
        saves the hand-over to the I/O thread. When callbacks do wait, a batch
        of answers is cheaper written there.
        """
        out = self._out
        rest: bytes | memoryview = data
        if not out.size and not self._run_queue:
            try:
                sent = self._transport.send(data)
            except OSError as exc:
                self._write_error = exc
                self._flushing = True
                return True
            if sent == len(data):
                return False
            rest = memoryview(data)[sent:] if sent else data
        out.append(rest)
        if self._flushing:
            return False
        self._flushing = True
        return True

    def _waiting(self) -> threading.Condition:
        """Requires _lock."""
        if self._condition is None:
            self._condition = threading.Condition(self._lock)
        return self._condition

    def _notify(self) -> None:
        """Wake who waits for room or for the end. Requires _lock."""
        if self._condition is not None:
            self._condition.notify_all()

    def _move(self, state: State) -> None:
        """Requires _lock."""
        assert state in MOVES[self._state], f"{self._state} to {state}"
        self._state = state

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


def _fit(reason: str) -> str:
    """Cut `reason` to what a close frame has room for: 123 bytes. RFC 6455 section 5.5."""
    return reason.encode()[:123].decode(errors="ignore")
