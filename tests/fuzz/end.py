"""One end of a pair of connections: a connection whose I/O thread is the test."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from syncws.config import Compression, ConnectionConfig
from syncws.engine.connection import Connection
from syncws.engine.dispatch import CLOSED, IDLE, Dispatcher, Mailbox
from syncws.engine.loop import IOLoop
from syncws.engine.sharing import share
from syncws.engine.state import State
from syncws.errors import (
    Close,
    ConnectionClosed,
    InvalidContinuationFrameError,
    SendTimeout,
)
from syncws.protocol.codec import make_codec
from syncws.protocol.deflate import DeflateParams
from syncws.protocol.events import BINARY, CLOSE, ERROR, PING, PONG, TEXT, Event
from tests.scripted import ScriptedTransport

from .tap import Seen

__all__ = ["LIMIT", "End", "Options", "counts"]

# Bytes of one message that the ends take: enough to be received in place.
LIMIT = 10_000

# Bytes of a keepalive ping; the test's own never have as many.
_KEEPALIVE = 4

# The system's buffers, so that they fill soon.
_SYSTEM_BUFFER = 8192
_SEND_BUFFER = 6000


class Options(NamedTuple):
    """How a pair is set up; pairs of values are for the client and the server."""

    way: str = "bytes"
    compression: Compression | None = None
    params: DeflateParams | None = None
    blocking: tuple[bool, bool] = (True, False)
    auto_pong: tuple[bool, bool] = (True, True)
    idle_event: tuple[bool, bool] = (False, False)
    stream: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
    idle_timeout: float | None = None
    ping_interval: float | None = None

    def config(self) -> ConnectionConfig:
        return ConnectionConfig(
            compression=self.compression or False,
            idle_timeout=self.idle_timeout,
            ping_interval=self.ping_interval,
            max_message_size=LIMIT,
            send_timeout=0.0,
            send_buffer_size=_SEND_BUFFER,
            receive_queue_size=4,
            receive_queue_bytes=6000,
        )


class _SpyDispatcher(Dispatcher):
    """Keeps what the connection delivers."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.delivered: list[Event] = []

    def put(self, event: Event) -> bool:
        self.delivered.append(event)
        return super().put(event)


class _SpyMailbox(Mailbox):
    """The same for a receiver that blocks."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.delivered: list[Event] = []

    def put(self, event: Event) -> bool:
        self.delivered.append(event)
        return super().put(event)


class End:
    """One end, and what it has done.

    Attributes:
        promised: What its sends were taken for, as the peer is to get it.
        maybe: Sends that may or may not have gone out, behind those.
        got: What its callbacks or its receiver have got.
        spoiled: Whether something came in that the peer has not sent.
        has_closed: Whether it was closed here, maybe too late to matter.
        has_aborted: Whether it was ended here without a close frame.
    """

    def __init__(self, options: Options, client: bool, clock: Callable[[], float]) -> None:
        number = 0 if client else 1
        self.client = client
        self.auto_pong = options.auto_pong[number]
        self.streams_of_peer = options.stream[1 - number]
        self.promised: list[Seen] = []
        self.maybe: list[Seen] = []
        self.got: list[Event] = []
        self.ended: list[Connection] = []
        self.plans: list[str] = []
        self.spoiled = False
        self.has_closed = False
        self.has_aborted = False
        self.last_message = clock()
        self._clock = clock
        self._parts: list[bytes] | None = None
        self._opcode = 0  # of the message that is being sent in fragments
        self._held: list[Seen] = []  # shared messages that wait for its end
        self._count = 0
        self._last_events = 0

        self.loop = IOLoop("fuzz", clock)
        self.work_queue: deque[Any] = deque()
        self.loop.pool = SimpleNamespace(
            queue=self.work_queue,
            submit=self.work_queue.extend,
            unblock=lambda now: None,
            look_interval=None,
            stop=lambda: None,
        )
        ours, self.wire = socket.socketpair()
        for sock in (ours, self.wire):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SYSTEM_BUFFER)
        self.wire.setblocking(False)
        self.transport = ScriptedTransport(ours, options.way)
        config = options.config()
        bounds = {"max_count": config.receive_queue_size, "max_size": config.receive_queue_bytes}
        self.inbox: Any
        if options.blocking[number]:
            self.inbox = _SpyMailbox(**bounds)
        else:
            self.inbox = _SpyDispatcher(self._handle, self.loop, **bounds)
        decoder, encoder = make_codec(
            config,
            options.params,
            client=client,
            stream_text=TEXT in options.stream[number],
            stream_binary=BINARY in options.stream[number],
        )
        self.connection = Connection(
            self.loop,
            self.transport,
            client=client,
            decoder=decoder,
            encoder=encoder,
            config=config,
            inbox=self.inbox,
            auto_pong=self.auto_pong,
            idle_event=options.idle_event[number],
            on_end=self.ended.append,
        )
        self.connection.start(b"", b"", True, False)

    # -- What it does ----------------------------------------------------

    def turn(self, rounds: int = 4) -> None:
        """Make rounds of the loop; no one of them waits."""
        for _ in range(rounds):
            self.loop.call_soon(lambda: None)
            self.loop._round()
        self._note_activity()

    def work(self) -> None:
        """Run the callbacks that are due, or receive what there is."""
        if isinstance(self.inbox, Mailbox):
            while True:
                try:
                    event = self.inbox.get(0.0)
                except TimeoutError:
                    return
                if event is None:
                    return
                self._handle(event)
        for _ in range(len(self.work_queue)):
            self.work_queue.popleft().run()

    def _handle(self, event: Event) -> None:
        """What a callback does."""
        self.got.append(event)
        if event.opcode == PING:
            self.control(PONG, event.data)
        elif event.opcode == IDLE:
            self.close(Close(4101, "idle"))
        elif event.opcode in (TEXT, BINARY) and self.plans:
            plan = self.plans.pop()
            if plan == "close":
                self.close(Close(4100, "from a callback"))
            elif plan == "ping":
                self.control(PING)
            else:
                self.send(BINARY, self.label(), True)

    def label(self) -> bytes:
        """Return bytes that no other message of this end has."""
        self._count += 1
        return b"%s-%05d" % (b"client" if self.client else b"server", self._count)

    def send(self, opcode: int, payload: bytes, final: bool) -> None:
        """Send a message or a fragment, and note what must come of it."""
        other = self._parts is not None and opcode != self._opcode
        self.last_message = self._clock()
        try:
            self.connection.outbound.send(opcode, payload, final)
        except InvalidContinuationFrameError:
            assert other, "a fragment was refused"
            return
        except SendTimeout:
            assert self.connection.outbound.size > _SEND_BUFFER, "there was room"
            return
        except ConnectionClosed as exc:
            assert not self.connection.sending
            if exc.maybe_sent:
                self._take(opcode, payload, final, self.maybe)
            return
        assert not other, "a message was let into another"
        assert not self.maybe, "a send was taken behind one that failed"
        self._take(opcode, payload, final, self.promised)

    def _take(self, opcode: int, payload: bytes, final: bool, where: list[Seen]) -> None:
        parts = [*(self._parts or []), payload]
        self._opcode = opcode
        self._parts = None if final else parts
        if final or opcode in self.streams_of_peer:
            data = payload if opcode in self.streams_of_peer else b"".join(parts)
            where.append(Seen(opcode, data.decode() if opcode == TEXT else data, final))
        if final:
            where += self._held
            self._held = []

    def share(self, payload: bytes) -> None:
        """Send as a group does."""
        if share(BINARY, payload, [self.connection.outbound]):
            self.last_message = self._clock()
            waiting = self._parts is not None
            (self._held if waiting else self.promised).append(Seen(BINARY, payload))

    def control(self, opcode: int, payload: bytes | None = None) -> None:
        """Send a ping or a pong."""
        data = payload if payload is not None else self.label()
        try:
            self.connection.outbound.send(opcode, data)
        except SendTimeout:
            return
        except ConnectionClosed as exc:
            assert not self.connection.sending
            if exc.maybe_sent and len(data) != _KEEPALIVE:
                self.maybe.append(Seen(opcode, data))
            return
        assert not self.maybe, "a send was taken behind one that failed"
        if len(data) != _KEEPALIVE:
            self.promised.append(Seen(opcode, data))

    def close(self, close: Close) -> None:
        """Close, and don't wait for it."""
        self.has_closed = True
        self.connection.start_close(close, 10.0)

    def abort(self) -> None:
        """End without a close frame."""
        self.has_aborted = True
        self.connection.ask_to_abort()

    # -- What must hold --------------------------------------------------

    @property
    def open(self) -> bool:
        return self.connection.state is State.OPEN

    @property
    def gone(self) -> bool:
        return self.connection.state is State.CLOSED

    def delivered(self) -> list[Seen]:
        """Return what has come in, but answers to keepalive pings."""
        return [Seen(*event) for event in self.inbox.delivered if counts(event)]

    def _note_activity(self) -> None:
        events = self.inbox.delivered
        if any(event.opcode in (TEXT, BINARY) for event in events[self._last_events :]):
            self.last_message = self._clock()
        self._last_events = len(events)

    def check(self) -> None:
        """Check what holds at any time, whatever the peer does."""
        opcodes = [event.opcode for event in self.inbox.delivered]
        assert opcodes.count(CLOSED) == (1 if self.gone else 0)
        assert len(self.ended) == (1 if self.gone else 0)
        if self.gone:
            assert opcodes[-1] == CLOSED, "something comes behind the end"
            assert self.inbox.delivered[-1].data == (self.connection.received or Close(1006))
            assert self.connection.outbound.size == 0
        for last in (CLOSE, ERROR):
            assert opcodes.count(last) <= 1
            if last in opcodes:
                after = opcodes[opcodes.index(last) + 1 :]
                assert not {TEXT, BINARY, PING, PONG} & set(after), "a message behind the close"
        got = [Seen(*event) for event in self.got if counts(event)]
        messages = self.delivered()
        if isinstance(self.inbox, Mailbox):
            messages = [seen for seen in messages if seen.opcode in (TEXT, BINARY)]
        assert got == messages[: len(got)], "callbacks get something else than what has come"

    def free(self) -> None:
        """Give back the sockets."""
        self.connection.abort()
        self.loop.stop()
        self.loop.run()
        self.wire.close()
        self.transport.sock.close()


def counts(event: Event) -> bool:
    """Whether this is a promise kept: all is but answers to keepalive pings, and the end."""
    if event.opcode in (PING, PONG):
        return len(event.data) != _KEEPALIVE
    return event.opcode in (TEXT, BINARY)
