"""A connection whose I/O thread is the test: it makes the loop's rounds one by one."""

from __future__ import annotations

import os
import select
import socket
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from syncws.config import ConnectionConfig
from syncws.engine.connection import Connection
from syncws.engine.dispatch import CLOSED, IDLE, OPENED, Dispatcher, Mailbox
from syncws.engine.loop import READ, WRITE, IOLoop
from syncws.engine.poller import SelectorPoller
from syncws.engine.sharing import share
from syncws.engine.state import State
from syncws.engine.transport import Buffer
from syncws.errors import (
    Close,
    ConnectionClosed,
    KeepaliveTimeout,
    MessageTimeout,
    ProtocolError,
    SendTimeout,
)
from syncws.protocol.decoder import Decoder
from syncws.protocol.deflate import Deflate, Inflate
from syncws.protocol.encoder import Encoder
from syncws.protocol.events import (
    BINARY,
    CLOSE,
    ERROR,
    PING,
    PONG,
    TEXT,
    Event,
)
from tests.scripted import (
    HANG,
    WAYS,
    Background,
    GatedEncoder,
    ScriptedTransport,
    TellingCondition,
)
from tests.support import Gate

ROLES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


class ScriptedInbox:
    """Keeps what it is given; full and busy when the test wants."""

    on_room: Callable[[], None]
    on_last: Callable[[], None]
    hears_close = True

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.is_full = False
        self.is_busy = False
        self.pauses = 0
        self.refuses_to_pause = False
        self.closes = 0

    def total(self) -> int:
        return 0

    def put(self, event: Event) -> bool:
        self.events.append(event)
        return self.is_full

    def pause(self) -> bool:
        self.pauses += 1
        return not self.refuses_to_pause

    def busy(self) -> bool:
        return self.is_busy

    def idle(self) -> bool:
        return not self.is_busy

    def close(self) -> None:
        self.closes += 1


# What the handshake agreed on, with compression.
AGREED: dict[str, Any] = {
    "window_bits": 15,
    "no_context_takeover": False,
    "level": 6,
    "mem_level": 8,
}


class Bench:
    """A connection and its peer on a socket pair, a loop without a thread, and a clock."""

    def __init__(
        self,
        way: str,
        *,
        client: bool = False,
        inbox: Any = None,
        start: bool = True,
        secure: bool = False,
        stream: bool = False,
        compression: bool = False,
        **options: Any,
    ) -> None:
        self.way = way
        self.client = client
        self.now = 1000.0
        self.loop = IOLoop("bench", lambda: self.now)
        self.run_queue: deque[Any] = deque()
        self.loop.pool = SimpleNamespace(
            queue=self.run_queue,
            submit=self.run_queue.extend,
            unblock=lambda now: None,
            look_interval=None,
            stop=lambda: None,
        )
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.transport = ScriptedTransport(ours, way, secure=secure)
        self.inbox = ScriptedInbox() if inbox is None else inbox(self.loop)
        self.ended: list[Connection] = []
        hooks = {name: options.pop(name) for name in ("auto_pong", "idle_event") if name in options}
        options.setdefault("ping_interval", None)
        self.connection = Connection(
            self.loop,
            self.transport,
            client=client,
            decoder=Decoder(client=client, stream_text=stream),
            encoder=Encoder(client=client, deflate=Deflate(**AGREED) if compression else None),
            config=ConnectionConfig(**options),
            inbox=self.inbox,
            on_end=self.ended.append,
            **hooks,
        )
        # The peer's half of the protocol.
        inflate = Inflate(window_bits=15, no_context_takeover=False, max_message_size=None)
        self.decoder = Decoder(client=not client, inflate=inflate if compression else None)
        self.encoder = Encoder(client=not client)
        if start:
            self.connection.start(b"", b"", True, False)
            self.turn()

    # -- The I/O thread

    def turn(self, rounds: int = 4) -> None:
        """Make rounds of the loop, enough for what one thing leads to."""
        for _ in range(rounds):
            self.loop.call_soon(lambda: None)
            self.loop._round()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.turn()

    # -- The peer

    def peer_sends_slowly(self, data: bytes) -> None:
        """Send as fast as we read, from another thread."""
        sent = 0
        while sent < len(data):
            select.select([], [self.peer], [], HANG)
            sent += self.peer.send(data[sent : sent + 100_000])

    def peer_sends(self, data: bytes) -> None:
        self.peer.sendall(data)
        self.turn()

    def peer_says(self, opcode: int, payload: bytes, final: bool = True) -> None:
        self.peer_sends(self.encoder.message(opcode, payload, final))

    def peer_closes(self, code: int, reason: str = "") -> None:
        self.peer_sends(self.encoder.close(Close(code, reason)))

    def peer_gets(self) -> list[Event]:
        """Return what has come to the peer since the last time."""
        events = []
        while True:
            try:
                data = self.peer.recv(65_536)
            except BlockingIOError:
                return events
            if not data:
                return events
            events += self.decoder.receive(data)
            while self.decoder.pending:
                events += self.decoder.receive(b"")

    def peer_is_at_the_end(self) -> bool:
        try:
            return not self.peer.recv(65_536)
        except BlockingIOError:
            return False

    # -- What the inbox got

    def opcodes(self) -> list[int]:
        return [event.opcode for event in self.inbox.events]

    def close(self) -> None:
        self.connection.abort()
        self.loop.stop()
        self.loop.run()
        self.peer.close()
        self.transport.sock.close()


MakeBench = Callable[..., Bench]


@pytest.fixture(params=WAYS)
def make(request: pytest.FixtureRequest) -> Iterator[MakeBench]:
    benches: list[Bench] = []

    def make_bench(**options: Any) -> Bench:
        benches.append(Bench(request.param, **options))
        return benches[-1]

    yield make_bench
    for bench in benches:
        bench.close()


def interest(bench: Bench) -> int:
    """Return what the selector waits for."""
    poller: Any = bench.loop._poller
    if isinstance(poller, SelectorPoller):
        waited = [(key.data, key.events) for key in poller._selector.get_map().values()]
    else:
        waited = list(poller._owners.values())
    return dict(waited).get(bench.connection, 0)


# -- Opening ---------------------------------------------------------


@ROLES
def test_start_writes_the_response_and_delivers_what_came_too_early(
    make: MakeBench, client: bool
) -> None:
    bench = make(client=client, start=False)
    early = bench.encoder.message(TEXT, b"early") + bench.encoder.message(TEXT, b"cut")[:3]
    bench.connection.start(b"\x8a\x00" if not client else b"", early, True, True)
    bench.turn()
    assert bench.inbox.events == [Event(OPENED, None), Event(TEXT, "early")]
    if not client:
        assert bench.peer_gets() == [Event(PONG, b"")]
    assert bench.connection.state is State.OPEN
    assert bench.connection.sending


def test_what_came_too_early_is_joined_with_what_comes(make: MakeBench) -> None:
    bench = make(start=False)
    whole = bench.encoder.message(BINARY, b"x" * 200)
    bench.connection.start(b"", whole[:50], True, False)
    bench.peer_sends(whole[50:])
    assert bench.inbox.events == [Event(BINARY, b"x" * 200)]


def test_nothing_is_read_before_it_is_ready(make: MakeBench) -> None:
    bench = make(start=False)
    bench.connection.start(b"", bench.encoder.message(TEXT, b"1"), False, False)
    bench.peer_says(TEXT, b"2")
    assert bench.inbox.events == []
    # What is sent goes out all the same.
    bench.connection.outbound.send(TEXT, b"hello")
    assert bench.peer_gets() == [Event(TEXT, "hello")]
    bench.connection.ask_to_read()
    bench.connection.ask_to_read()
    bench.turn()
    assert bench.inbox.events == [Event(TEXT, "1"), Event(TEXT, "2")]
    bench.connection.ask_to_read()
    bench.peer_says(TEXT, b"3")
    assert bench.inbox.events[2:] == [Event(TEXT, "3")]


def test_a_response_that_the_socket_does_not_take_at_once(make: MakeBench) -> None:
    bench = make(start=False)
    bench.transport.room = 1
    bench.connection.start(b"\x8a\x01a", b"", True, True)
    bench.connection.outbound.send(TEXT, b"behind")
    bench.turn()
    assert bench.connection.outbound.size > 0
    bench.transport.room = None
    bench.turn()
    assert bench.connection.outbound.size == 0
    assert bench.peer_gets() == [Event(PONG, b"a"), Event(TEXT, "behind")]


def test_a_response_that_cannot_be_written(make: MakeBench) -> None:
    bench = make(start=False)
    bench.transport.send_error = BrokenPipeError()
    bench.connection.start(b"response", b"", True, True)
    bench.turn()
    assert bench.inbox.events == [Event(OPENED, None), Event(CLOSED, Close(1006))]
    assert bench.ended == [bench.connection]


def test_a_close_among_what_came_too_early(make: MakeBench) -> None:
    bench = make(start=False)
    rest = bench.encoder.message(TEXT, b"last") + bench.encoder.close(Close(1001))
    bench.connection.start(b"", rest, True, True)
    bench.turn()
    assert bench.opcodes() == [OPENED, TEXT, CLOSE]
    assert bench.peer_gets() == [Event(CLOSE, Close(1001))]


def test_start_after_the_end_does_nothing(make: MakeBench) -> None:
    bench = make(start=False)
    bench.connection.abort()
    bench.connection.start(b"out", b"rest", True, True)
    bench.connection.ask_to_read()
    bench.turn()
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]
    assert interest(bench) == 0


def test_properties(make: MakeBench) -> None:
    bench = make(max_message_size=77)
    assert bench.connection.config.max_message_size == 77
    assert bench.connection.transport is bench.transport
    assert bench.connection.latency is None
    assert bench.connection.outbound.size == 0


# -- Messages --------------------------------------------------------


@ROLES
def test_messages_both_ways(make: MakeBench, client: bool) -> None:
    bench = make(client=client)
    bench.connection.outbound.send(TEXT, b"one")
    bench.connection.outbound.send(BINARY, b"two", final=False)
    bench.connection.outbound.send(PING, b"p")
    bench.connection.outbound.send(PONG, b"q")
    bench.connection.outbound.send(BINARY, b"three")
    assert bench.peer_gets() == [
        Event(TEXT, "one"),
        Event(PING, b"p"),
        Event(PONG, b"q"),
        Event(BINARY, b"twothree"),
    ]
    bench.peer_sends(bench.encoder.message(TEXT, b"a") + bench.encoder.message(BINARY, b"b"))
    assert bench.inbox.events == [Event(TEXT, "a"), Event(BINARY, b"b")]


def test_plain_frames_are_taken_in_one_go_where_the_transport_can(make: MakeBench) -> None:
    bench = make()
    bench.peer_sends(b"".join(bench.encoder.message(TEXT, b"%d" % n) for n in range(5)))
    assert bench.inbox.events == [Event(TEXT, str(n)) for n in range(5)]
    assert bench.transport.takes == (0 if bench.way == "bytes" else 1)


def mixture(bench: Bench) -> tuple[bytes, list[Event], list[Event]]:
    """Return a stream of all that may come, and what it gives to the inbox and to the peer."""
    fragmented = Encoder(client=not bench.client)
    parts: list[tuple[bytes, list[Event], list[Event]]] = [
        (bench.encoder.message(TEXT, "eins é".encode()), [Event(TEXT, "eins é")], []),
        (bench.encoder.ping(b"p"), [], [Event(PONG, b"p")]),
        (bench.encoder.message(BINARY, bytes(300)), [Event(BINARY, bytes(300))], []),
        (fragmented.message(TEXT, b"a", False), [], []),
        (bench.encoder.ping(b"q"), [], [Event(PONG, b"q")]),
        (fragmented.message(TEXT, b"b", False), [], []),
        (fragmented.message(TEXT, b"c"), [Event(TEXT, "abc")], []),
        (bench.encoder.pong(b"r"), [Event(PONG, b"r")], []),
        (bench.encoder.message(TEXT, b""), [Event(TEXT, "")], []),
        (bench.encoder.message(BINARY, b"l" * 70_000), [Event(BINARY, b"l" * 70_000)], []),
        (bench.encoder.message(TEXT, b"last"), [Event(TEXT, "last")], []),
    ]
    return (
        b"".join(wire for wire, _, _ in parts),
        [event for _, inbox, _ in parts for event in inbox],
        [event for _, _, peer in parts for event in peer],
    )


@ROLES
@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1000, 33_333, 1_000_000])
def test_all_that_may_come_however_it_is_cut(make: MakeBench, client: bool, step: int) -> None:
    bench = make(client=client)
    wire, inbox, answers = mixture(bench)
    # The beginning in small pieces, each in a read of its own; the rest of the
    # large message in larger ones.
    steps = [step] * (500 // step) + [max(step, 5000)] * (len(wire) // max(step, 5000) + 1)
    for size in steps:
        bench.peer.sendall(wire[:size])
        bench.turn(1)
        wire = wire[size:]
    assert not wire
    bench.turn()
    assert bench.inbox.events == inbox
    assert bench.peer_gets() == answers
    assert bench.connection.state is State.OPEN


def test_more_messages_at_once_than_are_read_in_one_go(make: MakeBench) -> None:
    bench = make()
    wire = b"".join(bench.encoder.message(TEXT, b"%d" % n) for n in range(1000))
    bench.peer_sends(wire + bench.encoder.ping(b"behind"))
    assert bench.inbox.events == [Event(TEXT, str(n)) for n in range(1000)]
    assert bench.peer_gets() == [Event(PONG, b"behind")]


@pytest.mark.parametrize("text", [True, False], ids=["text", "binary"])
@pytest.mark.parametrize("size", [8191, 262_144, 1_048_577, 3_000_001])
def test_a_large_message_in_many_reads(make: MakeBench, size: int, text: bool) -> None:
    bench = make()
    payload = ("aé€𝄞" * (size // 10) + "." * (size % 10)).encode()
    opcode = TEXT if text else BINARY
    wire = bench.encoder.message(TEXT, b"before") + bench.encoder.message(opcode, payload)
    sender = Background(bench.peer_sends_slowly, wire + bench.encoder.message(TEXT, b"behind"))
    while len(bench.inbox.events) < 3:
        bench.turn(1)
    assert sender.result() is None
    assert bench.inbox.events == [
        Event(TEXT, "before"),
        Event(opcode, payload.decode() if text else payload),
        Event(TEXT, "behind"),
    ]
    assert bench.connection.state is State.OPEN


def test_a_large_text_is_refused_where_it_goes_wrong(make: MakeBench) -> None:
    bench = make()
    payload = b"x" * 50_000 + b"\xff" + b"x" * 50_000
    wire = bench.encoder.message(BINARY, payload)
    bench.peer_sends(b"\x81" + wire[1:20_000])
    assert bench.connection.state is State.OPEN
    bench.peer_sends(wire[20_000:60_000])
    assert bench.connection.state is State.ENDING
    assert "byte 50000" in str(bench.connection.error)
    assert [event.data.code for event in bench.peer_gets()] == [1007]


def test_a_ping_is_answered_by_itself(make: MakeBench) -> None:
    bench = make()
    bench.peer_sends(bench.encoder.ping(b"x") + bench.encoder.message(TEXT, b"after"))
    assert bench.peer_gets() == [Event(PONG, b"x")]
    assert bench.inbox.events == [Event(TEXT, "after")]


@pytest.mark.parametrize("what", ["ping", "close", "flush"])
def test_the_io_thread_goes_on_while_a_sender_encodes(make: MakeBench, what: str) -> None:
    bench = make(client=True)
    big = b"big" * 6000  # else it needs no encoder
    with Gate() as gate:
        encoder = bench.connection.outbound._encoder
        bench.connection.outbound._encoder = GatedEncoder(encoder, gate)  # type: ignore[assignment]
        sender = Background(bench.connection.outbound.send, TEXT, big)
        gate.reached()
        if what == "ping":
            bench.peer_sends(bench.encoder.ping(b"x"))
            assert bench.peer_gets() == [Event(PONG, b"x")]
        elif what == "close":
            bench.peer_closes(4000)
            assert bench.peer_gets() == [Event(CLOSE, Close(4000))]
        else:
            bench.loop.flush_soon(bench.connection.outbound)
            bench.turn()
    if what == "close":
        assert isinstance(sender.result(), ConnectionClosed)
        assert bench.peer_gets() == []
    else:
        assert sender.result() is None
        assert bench.peer_gets() == [Event(TEXT, big.decode())]


def test_a_pong_goes_out_before_the_fragment_that_a_sender_encodes(make: MakeBench) -> None:
    bench = make()
    with Gate() as gate:
        encoder = bench.connection.outbound._encoder
        bench.connection.outbound._encoder = GatedEncoder(encoder, gate)  # type: ignore[assignment]
        first = Background(bench.connection.outbound.send, TEXT, b"first", False)
        gate.reached()
        # A control frame does not wait for fragments, and may come between them.
        bench.peer_sends(bench.encoder.ping(b""))
        assert bench.peer_gets() == [Event(PONG, b"")]
    assert first.result() is None
    bench.connection.outbound.send(TEXT, b" last")
    assert bench.peer_gets() == [Event(TEXT, "first last")]


def test_a_ping_for_the_inbox(make: MakeBench) -> None:
    bench = make(auto_pong=False)
    bench.peer_sends(bench.encoder.ping(b"x"))
    assert bench.peer_gets() == []
    assert bench.inbox.events == [Event(PING, b"x")]
    bench.connection.start_close(Close(1000), 10.0)
    bench.peer_sends(bench.encoder.ping(b"y"))
    assert bench.inbox.events == [Event(PING, b"x")]


def test_a_pong_that_answers_nothing_of_ours_is_for_the_inbox(make: MakeBench) -> None:
    bench = make()
    bench.peer_sends(bench.encoder.pong(b"x"))
    assert bench.inbox.events == [Event(PONG, b"x")]


def test_pings_and_pongs_after_our_close_are_dropped(make: MakeBench) -> None:
    bench = make()
    bench.connection.start_close(Close(1000), 10.0)
    bench.peer_sends(bench.encoder.ping(b"x") + bench.encoder.pong(b"y"))
    assert bench.peer_gets() == [Event(CLOSE, Close(1000))]
    assert bench.inbox.events == []


def test_a_write_goes_out_at_once_if_nothing_is_queued(make: MakeBench) -> None:
    bench = make()
    bench.connection.outbound.send(TEXT, b"now")
    assert bench.peer_gets() == [Event(TEXT, "now")]


def test_a_write_is_left_to_the_io_thread_while_callbacks_wait_for_a_worker(
    make: MakeBench,
) -> None:
    bench = make()
    bench.run_queue.append(None)
    bench.connection.outbound.send(TEXT, b"1")
    bench.connection.outbound.send(TEXT, b"2")
    assert bench.transport.sends == 0
    assert bench.connection.outbound.size > 0
    # What is queued goes first, whatever has become of the queue of callbacks.
    bench.run_queue.clear()
    bench.connection.outbound.send(TEXT, b"3")
    assert bench.peer_gets() == []
    bench.turn()
    assert bench.transport.sends == 1
    assert bench.peer_gets() == [Event(TEXT, "1"), Event(TEXT, "2"), Event(TEXT, "3")]


@pytest.mark.parametrize("room", [0, 1, 3, 100])
def test_a_short_write_is_continued_in_order(make: MakeBench, room: int) -> None:
    bench = make()
    messages = [bytes([n]) * 50 for n in range(20)]
    bench.transport.room = room
    for message in messages:
        bench.connection.outbound.send(BINARY, message)
    bench.turn()
    got = []
    for _ in range(40):
        bench.transport.room = 30
        bench.turn(1)
        got += bench.peer_gets()
    assert got == [Event(BINARY, message) for message in messages]
    assert bench.connection.outbound.size == 0
    # The selector does not wait for room any more.
    assert interest(bench) == READ


def test_real_sockets_that_fill_up(make: MakeBench) -> None:
    bench = make(send_buffer_size=10_000_000)
    message = bytes(range(256)) * 4096
    for _ in range(4):
        bench.connection.outbound.send(BINARY, message)
    assert bench.connection.outbound.size > 0
    got: list[Event] = []
    for _ in range(10_000):
        got += bench.peer_gets()
        if len(got) == 4:
            break
        bench.turn(1)
    assert got == [Event(BINARY, message)] * 4


# -- Back-pressure on the way out ------------------------------------


def fill(bench: Bench) -> bytes:
    """Queue more than the send buffer's size while the peer does not read."""
    bench.transport.room = 0
    size = bench.connection.config.send_buffer_size
    bench.connection.outbound.send(BINARY, b"f" * (size + 1))
    bench.turn()
    assert bench.connection.outbound.size > size
    return b"f" * (size + 1)


@pytest.mark.parametrize("what", ["message", "ping", "pong"])
def test_send_timeout_and_nothing_of_the_message_is_on_the_wire(make: MakeBench, what: str) -> None:
    bench = make(send_buffer_size=1000, send_timeout=0)
    filling = fill(bench)
    before = bench.connection.outbound.size
    with pytest.raises(SendTimeout) as caught:
        if what == "message":
            bench.connection.outbound.send(TEXT, b"never", final=False)
        else:
            bench.connection.outbound.send(PING if what == "ping" else PONG, b"never")
    assert f"{before} bytes" in str(caught.value)
    assert "no room for 0 s" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    assert bench.connection.outbound.size == before
    bench.transport.room = None
    bench.turn()
    bench.connection.outbound.send(BINARY, b"next")
    assert bench.peer_gets() == [Event(BINARY, filling), Event(BINARY, b"next")]
    assert bench.connection.state is State.OPEN


def test_a_buffer_of_exactly_its_size_still_takes_a_message(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000, send_timeout=0)
    bench.transport.room = 0
    bench.connection.outbound.send(BINARY, b"f" * (1000 - 4))
    assert bench.connection.outbound.size == 1000
    bench.connection.outbound.send(BINARY, b"one more")
    with pytest.raises(SendTimeout):
        bench.connection.outbound.send(BINARY, b"one too many")


@pytest.mark.parametrize("send_timeout", [None, HANG])
@pytest.mark.parametrize("what", ["message", "ping"])
def test_a_sender_waits_until_three_quarters_have_gone(
    make: MakeBench, what: str, send_timeout: float | None
) -> None:
    bench = make(send_buffer_size=1000, send_timeout=send_timeout)
    condition = TellingCondition(bench.connection.outbound)
    filling = fill(bench)
    if what == "message":
        sender = Background(bench.connection.outbound.send, TEXT, b"waited")
    else:
        sender = Background(bench.connection.outbound.send, PING, b"waited")
    condition.waiting.get(timeout=HANG)
    # One byte over a quarter: nobody is woken.
    bench.transport.room = bench.connection.outbound.size - 251
    bench.turn()
    assert bench.connection.outbound.size == 251
    assert condition._waiters
    bench.transport.room = 1
    bench.turn()
    assert sender.result() is None
    bench.transport.room = None
    bench.turn()
    expected = Event(TEXT, "waited") if what == "message" else Event(PING, b"waited")
    assert bench.peer_gets() == [Event(BINARY, filling), expected]


@pytest.mark.parametrize("what", ["message", "ping"])
@pytest.mark.parametrize("how", ["close", "fail", "abort", "peer closes", "peer ends"])
def test_a_waiting_sender_is_woken_by_the_end(make: MakeBench, what: str, how: str) -> None:
    bench = make(send_buffer_size=1000, send_timeout=None)
    condition = TellingCondition(bench.connection.outbound)
    fill(bench)
    if what == "message":
        sender = Background(bench.connection.outbound.send, TEXT, b"never")
    else:
        sender = Background(bench.connection.outbound.send, PING, b"never")
    condition.waiting.get(timeout=HANG)
    if how == "close":
        bench.connection.start_close(Close(1000), 10.0)
    elif how == "fail":
        bench.connection.fail(RuntimeError("broken"), Close(1011))
    elif how == "abort":
        bench.connection.abort()
    elif how == "peer closes":
        bench.peer_closes(1001)
    else:
        bench.peer.shutdown(socket.SHUT_WR)
        bench.turn()
    error = sender.result()
    assert isinstance(error, ConnectionClosed)
    if how == "close":
        assert error.sent == Close(1000)


def test_a_waiting_sender_whose_time_runs_out(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000, send_timeout=HANG)
    condition = TellingCondition(bench.connection.outbound)
    fill(bench)
    sender = Background(bench.connection.outbound.send, TEXT, b"never")
    condition.waiting.get(timeout=HANG)
    bench.now += HANG
    with bench.connection.outbound.lock:
        bench.connection.outbound.notify()
    assert isinstance(sender.result(), SendTimeout)


class NeverWait(threading.Condition):
    """Fails the test when someone waits."""

    def wait(self, timeout: float | None = None) -> bool:
        raise AssertionError(f"waits for {timeout} s")


def test_the_io_thread_does_not_wait(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000, send_timeout=30.0)
    fill(bench)
    bench.loop.thread = threading.current_thread()
    bench.connection.outbound._condition = NeverWait(bench.connection.outbound.lock)
    with pytest.raises(SendTimeout):
        bench.connection.outbound.send(TEXT, b"a line of the log")
    assert bench.connection.wait_closed(None) is False


def test_a_flood_of_pings_is_bounded_while_the_peer_does_not_read(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    bench.transport.room = 0
    for n in range(200):
        bench.peer_sends(bench.encoder.ping(b"%03d" % n + b"." * 100))
    assert bench.connection.outbound.size < 1000 + 200
    bench.transport.room = None
    bench.turn()
    pongs = [event.data[:3] for event in bench.peer_gets()]
    # The first ones as long as there was room, and the latest.
    assert pongs[:9] == [b"%03d" % n for n in range(9)]
    assert pongs[-1] == b"199"
    assert len(pongs) < 15
    bench.peer_sends(bench.encoder.ping(b"again"))
    assert bench.peer_gets() == [Event(PONG, b"again")]


def test_a_pong_kept_back_is_dropped_by_a_close(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    filling = fill(bench)
    bench.peer_sends(bench.encoder.ping(b"x"))
    bench.connection.start_close(Close(1000), 10.0)
    bench.transport.room = None
    bench.turn()
    assert bench.peer_gets() == [Event(BINARY, filling), Event(CLOSE, Close(1000))]


# -- Back-pressure on the way in -------------------------------------


def test_reading_pauses_while_the_inbox_is_full(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_full = True
    bench.peer_says(TEXT, b"1")
    bench.peer_says(TEXT, b"2")
    assert bench.inbox.events == [Event(TEXT, "1")]
    assert bench.inbox.pauses == 1
    # Sending goes on meanwhile, also what does not go out at once.
    bench.transport.room = 1
    bench.connection.outbound.send(TEXT, b"out")
    bench.turn()
    bench.transport.room = None
    bench.turn()
    assert bench.peer_gets() == [Event(TEXT, "out")]
    bench.inbox.is_full = False
    bench.inbox.on_room()
    bench.turn()
    assert bench.inbox.events == [Event(TEXT, "1"), Event(TEXT, "2")]


def test_reading_goes_on_if_there_is_room_again_before_it_pauses(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_full = True
    bench.inbox.refuses_to_pause = True
    bench.peer_says(TEXT, b"1")
    bench.peer_says(TEXT, b"2")
    assert bench.inbox.events == [Event(TEXT, "1"), Event(TEXT, "2")]
    assert bench.inbox.pauses == 2


@pytest.mark.parametrize("what", ["ping", "pong"])
def test_reading_pauses_when_pings_or_pongs_fill_the_inbox(make: MakeBench, what: str) -> None:
    bench = make(auto_pong=False)
    bench.inbox.is_full = True
    one, two = (getattr(bench.encoder, what)(payload) for payload in (b"1", b"2"))
    opcode = PING if what == "ping" else PONG
    bench.peer_sends(one)
    bench.peer_sends(two)
    assert bench.inbox.events == [Event(opcode, b"1")]
    assert bench.inbox.pauses == 1
    bench.inbox.is_full = False
    bench.inbox.on_room()
    bench.turn()
    assert bench.inbox.events == [Event(opcode, b"1"), Event(opcode, b"2")]


@pytest.mark.parametrize("what", ["ping", "pong"])
def test_pings_and_pongs_that_are_not_for_the_inbox_do_not_pause_reading(
    make: MakeBench, what: str
) -> None:
    bench = make(ping_interval=5.0)
    bench.inbox.is_full = True
    if what == "ping":
        bench.peer_sends(bench.encoder.ping(b"x"))
    else:
        bench.advance(5.0)
        bench.peer_sends(bench.encoder.pong(keepalive_ping(bench)))
        assert bench.connection.latency is not None
    assert bench.inbox.pauses == 0
    assert bench.inbox.events == []


def test_all_of_one_read_is_delivered_though_the_first_fills_the_inbox(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_full = True
    wire = b"".join(bench.encoder.message(TEXT, b"%d" % n) for n in range(3))
    bench.peer_sends(wire)
    bench.peer_says(TEXT, b"next")
    assert bench.inbox.events == [Event(TEXT, str(n)) for n in range(3)]
    assert bench.inbox.pauses == 1


def test_a_ping_behind_the_message_that_fills_the_inbox(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_full = True
    bench.peer_sends(bench.encoder.message(TEXT, b"x") + bench.encoder.ping(b"y"))
    assert bench.inbox.events == [Event(TEXT, "x")]
    assert bench.peer_gets() == [Event(PONG, b"y")]
    bench.peer_says(TEXT, b"next")
    assert bench.inbox.events == [Event(TEXT, "x")]


@pytest.mark.parametrize("limit", ["receive_queue_size", "receive_queue_bytes"])
def test_with_a_mailbox(make: MakeBench, limit: str) -> None:
    config = ConnectionConfig(**{limit: 4})

    def mailbox(loop: IOLoop) -> Mailbox:
        return Mailbox(max_count=config.receive_queue_size, max_size=config.receive_queue_bytes)

    bench = make(inbox=mailbox)
    for n in range(10):
        bench.peer_says(TEXT, b"%d" % n)
    assert bench.inbox._count() == 4
    got = []
    for _ in range(10):
        event = bench.inbox.get(0)
        got.append(event.data)
        bench.turn()
    assert got == [str(n) for n in range(10)]


@pytest.mark.parametrize("bound", ["receive_queue_size", "receive_queue_bytes"])
def test_one_read_that_becomes_a_lot_pauses_and_loses_nothing(make: MakeBench, bound: str) -> None:
    inflate = Inflate(window_bits=15, no_context_takeover=True, max_message_size=None)
    texts = [f"{n} ".ljust(4 if bound == "receive_queue_size" else 100_000) for n in range(900)]
    texts = texts if bound == "receive_queue_size" else texts[:40]
    bounds = {"receive_queue_size": 10_000, "receive_queue_bytes": 1 << 30} | {
        bound: 8 if bound == "receive_queue_size" else 200_000
    }

    def mailbox(loop: IOLoop) -> Mailbox:
        return Mailbox(
            max_count=bounds["receive_queue_size"], max_size=bounds["receive_queue_bytes"]
        )

    bench = make(client=True, inbox=mailbox, **bounds)
    bench.connection._decoder = Decoder(client=True, inflate=inflate)
    wire = b""
    for text in texts:
        squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
        payload = (squeezer.compress(text.encode()) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        wire += (
            bytes((0xC1, 126)) + len(payload).to_bytes(2, "big") + payload
            if (len(payload) > 125)
            else bytes((0xC1, len(payload))) + payload
        )
    assert len(wire) < 65_536  # one read
    bench.peer_sends(wire + bench.encoder.close(Close(1000)))
    count = bench.inbox._count()
    if bound == "receive_queue_size":
        assert 8 <= count <= 300
    else:
        assert 2 <= count <= 6
    got = []
    while (event := next_event(bench)) is not None:
        got.append(event.data)
    assert got == texts
    assert bench.peer_gets() == [Event(CLOSE, Close(1000))]


def next_event(bench: Bench) -> Event | None:
    """Take one from a mailbox, with the round that it leads to."""
    event: Event | None = bench.inbox.get(0)
    bench.turn(1)
    return event


def test_to_be_ready_again_changes_nothing(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_full = True
    bench.peer_says(TEXT, b"1")
    bench.peer_says(TEXT, b"2")
    bench.connection.ask_to_read()
    bench.turn()
    assert bench.inbox.events == [Event(TEXT, "1")]
    bench.inbox.is_full = False
    bench.inbox.on_room()
    bench.turn()
    assert bench.inbox.events == [Event(TEXT, "1"), Event(TEXT, "2")]


def test_a_paused_connection_ends_with_the_loop(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_full = True
    bench.peer_says(TEXT, b"1")
    bench.loop.stop()
    bench.loop.run()
    assert bench.connection.state is State.CLOSED
    assert bench.opcodes() == [TEXT, CLOSED]


# -- Closing from this end -------------------------------------------


@ROLES
def test_we_close(make: MakeBench, client: bool) -> None:
    bench = make(client=client)
    connection = bench.connection
    connection.start_close(Close(1001, "bye"), 10.0)
    assert connection.state is State.CLOSING
    assert connection.closed_here
    assert not connection.sending
    assert bench.inbox.closes == 1
    bench.turn()
    assert bench.peer_gets() == [Event(CLOSE, Close(1001, "bye"))]
    for call in (
        lambda: connection.outbound.send(TEXT, b"late"),
        lambda: connection.outbound.send(PING, b"late"),
    ):
        with pytest.raises(ConnectionClosed) as caught:
            call()
        assert caught.value.sent == Close(1001, "bye")
        assert caught.value.received is None
    # Data under way is ignored.
    bench.peer_says(TEXT, b"late")
    assert bench.inbox.events == []

    bench.peer_closes(1001, "bye")
    assert connection.state is State.ENDING
    # The server ends TCP, the client waits for that.
    assert bench.peer_is_at_the_end() is not client
    bench.peer.close()
    bench.turn()
    assert connection.state is State.CLOSED
    assert bench.inbox.events == [Event(CLOSED, Close(1001, "bye"))]
    assert bench.ended == [connection]
    assert connection.received == Close(1001, "bye")
    assert connection.error is None
    with pytest.raises(ConnectionClosed) as caught:
        connection.outbound.send(TEXT, b"late")
    assert caught.value.received == Close(1001, "bye")
    assert caught.value.__cause__ is None


@ROLES
def test_a_close_that_the_peer_does_not_answer(make: MakeBench, client: bool) -> None:
    bench = make(client=client)
    bench.connection.start_close(Close(1000), 3.0)
    bench.turn()
    bench.advance(2.9)
    assert bench.connection.state is State.CLOSING
    bench.advance(0.1)
    assert bench.connection.state is State.CLOSED
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]
    assert bench.connection.received is None
    assert bench.ended == [bench.connection]


@ROLES
def test_a_peer_that_answers_and_does_not_end_tcp(make: MakeBench, client: bool) -> None:
    bench = make(client=client, close_timeout=4.0)
    bench.connection.start_close(Close(1000), 3.0)
    bench.turn()
    bench.peer_closes(1000)
    assert bench.connection.state is State.ENDING
    bench.advance(2.9)
    assert bench.connection.state is State.ENDING
    bench.advance(0.1)
    assert bench.connection.state is State.CLOSED
    assert bench.inbox.events == [Event(CLOSED, Close(1000))]


def test_closing_twice_sends_one_frame_and_the_shorter_time_counts(make: MakeBench) -> None:
    bench = make()
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    bench.connection.start_close(Close(1001), 2.0)
    bench.connection.start_close(Close(1001), 20.0)
    bench.connection.fail(RuntimeError("too late"), Close(1011))
    bench.turn()
    assert bench.peer_gets() == [Event(CLOSE, Close(1000))]
    assert bench.connection.sent == Close(1000)
    bench.advance(2.0)
    assert bench.connection.state is State.CLOSED
    bench.connection.start_close(Close(1001), 2.0)
    bench.connection.fail(RuntimeError("too late"), Close(1011))
    bench.connection.abort()
    bench.turn()
    assert bench.opcodes() == [CLOSED]
    assert bench.ended == [bench.connection]


def test_closing_with_a_timeout_of_zero(make: MakeBench) -> None:
    bench = make()
    bench.connection.start_close(Close(1000), 0.0)
    bench.turn()
    assert bench.connection.state is State.CLOSED
    assert bench.peer_gets() == [Event(CLOSE, Close(1000))]


def test_what_is_queued_goes_out_before_the_close(make: MakeBench) -> None:
    bench = make()
    bench.transport.room = 2
    bench.connection.outbound.send(TEXT, b"first")
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    bench.peer_closes(1000)
    # The server does not end TCP before its queue is empty.
    assert bench.connection.state is State.ENDING
    assert bench.transport.ends_of_writing == 0
    bench.transport.room = None
    bench.turn()
    assert bench.peer_gets() == [Event(TEXT, "first"), Event(CLOSE, Close(1000))]
    assert bench.transport.ends_of_writing > 0
    assert bench.peer_is_at_the_end()


def test_closing_reads_again_if_reading_was_paused(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_full = True
    bench.peer_says(TEXT, b"1")
    bench.peer_says(TEXT, b"2")
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    bench.peer_closes(1000)
    assert bench.connection.state is State.ENDING
    assert bench.opcodes() == [TEXT]


def test_closing_before_it_is_ready(make: MakeBench) -> None:
    bench = make(start=False)
    bench.connection.start(b"", bench.encoder.message(TEXT, b"unread"), False, False)
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    bench.peer_closes(1000)
    bench.peer.close()
    bench.turn()
    assert bench.inbox.events == [Event(CLOSED, Close(1000))]


@ROLES
def test_both_close_at_once(make: MakeBench, client: bool) -> None:
    bench = make(client=client)
    bench.peer.sendall(bench.encoder.close(Close(3001)))
    bench.connection.start_close(Close(3000), 10.0)
    bench.turn()
    assert bench.connection.state is State.ENDING
    assert bench.peer_gets() == [Event(CLOSE, Close(3000))]
    bench.peer.close()
    bench.turn()
    assert bench.inbox.events == [Event(CLOSED, Close(3001))]
    assert bench.connection.sent == Close(3000)
    assert bench.connection.received == Close(3001)


def test_the_peer_goes_without_an_answer(make: MakeBench) -> None:
    bench = make()
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    bench.peer.close()
    bench.turn()
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]


def test_we_fail(make: MakeBench) -> None:
    error, close = RuntimeError("secret"), Close(1011, "internal error")
    bench = make(close_timeout=5.0)
    bench.connection.fail(error, close)
    bench.connection.fail(RuntimeError("second"), Close(1001))
    bench.turn()
    assert bench.peer_gets() == [Event(CLOSE, close)]
    assert bench.connection.error is error
    assert bench.connection.closed_here
    assert bench.connection.state is State.CLOSING
    bench.advance(5.0)
    assert bench.connection.state is State.CLOSED
    with pytest.raises(ConnectionClosed) as caught:
        bench.connection.outbound.send(TEXT, b"late")
    assert caught.value.__cause__ is error


# -- Closing from the peer's end -------------------------------------


@ROLES
@pytest.mark.parametrize("close", [Close(1000), Close(1005), Close(4000, "because")])
def test_the_peer_closes(make: MakeBench, client: bool, close: Close) -> None:
    bench = make(client=client)
    bench.peer_closes(*close)
    assert bench.connection.state is State.ENDING
    assert not bench.connection.closed_here
    assert bench.connection.received == close
    assert bench.inbox.events == [Event(CLOSE, close)]
    assert bench.peer_gets() == [Event(CLOSE, Close(close.code))]
    assert bench.peer_is_at_the_end() is not client
    bench.peer.close()
    bench.turn()
    assert bench.inbox.events == [Event(CLOSE, close), Event(CLOSED, close)]
    assert bench.ended == [bench.connection]


@ROLES
def test_who_has_the_last_messages_may_answer_them(make: MakeBench, client: bool) -> None:
    bench = make(client=client)
    bench.inbox.is_busy = True
    bench.peer_sends(bench.encoder.message(TEXT, b"last") + bench.encoder.close(Close(1000)))
    assert bench.connection.state is State.ANSWERING
    assert bench.inbox.events == [Event(TEXT, "last"), Event(CLOSE, Close(1000))]
    assert bench.connection.sending
    bench.connection.outbound.send(TEXT, b"answer")
    bench.connection.outbound.send(PONG, b"pong")
    bench.advance(0.4)
    bench.inbox.on_last()
    bench.inbox.on_last()
    assert bench.connection.state is State.ENDING
    with pytest.raises(ConnectionClosed) as caught:
        bench.connection.outbound.send(TEXT, b"late")
    assert (caught.value.received, caught.value.sent) == (Close(1000), Close(1000))
    bench.turn()
    assert bench.peer_gets() == [
        Event(TEXT, "answer"),
        Event(PONG, b"pong"),
        Event(CLOSE, Close(1000)),
    ]
    assert bench.peer_is_at_the_end() is not client


def test_who_has_fallen_behind_stays_so_if_the_peer_closes_meanwhile(make: MakeBench) -> None:
    """It has missed a message of a group; nothing may come after that."""
    bench = make(send_buffer_size=1000)
    outbound = bench.connection.outbound
    bench.inbox.is_busy = True
    bench.transport.room = 0
    outbound.send(BINARY, bytes(1001))
    # The peer's close frame is read before the I/O thread hears of the group.
    bench.peer.sendall(bench.encoder.close(Close(1000)))
    assert share(TEXT, b"missed", [outbound]) == 0
    bench.turn()
    assert bench.connection.state is State.ANSWERING
    bench.transport.room = None
    outbound.flush()
    assert share(TEXT, b"after", [outbound]) == 0
    with pytest.raises(ConnectionClosed):
        outbound.send(TEXT, b"after")


def test_answers_have_half_a_second(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_busy = True
    bench.peer_closes(1000)
    bench.advance(0.4)
    assert bench.connection.state is State.ANSWERING
    assert bench.peer_gets() == []
    bench.advance(0.2)
    assert bench.connection.state is State.ENDING
    assert bench.peer_gets() == [Event(CLOSE, Close(1000))]
    bench.inbox.on_last()
    bench.turn()
    assert bench.peer_gets() == []


def test_we_close_with_our_own_code_while_answering(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_busy = True
    bench.peer_closes(1000)
    bench.connection.start_close(Close(3000, "mine"), 5.0)
    assert bench.connection.state is State.ENDING
    assert bench.connection.closed_here
    bench.turn()
    assert bench.peer_gets() == [Event(CLOSE, Close(3000, "mine"))]
    assert bench.peer_is_at_the_end()
    bench.advance(5.0)
    assert bench.inbox.events[-1] == Event(CLOSED, Close(1000))


def test_we_fail_while_answering(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_busy = True
    bench.peer_closes(1000)
    bench.connection.fail(RuntimeError("broken"), Close(1011, "broken"))
    bench.turn()
    assert bench.connection.state is State.ENDING
    assert bench.peer_gets() == [Event(CLOSE, Close(1011, "broken"))]


def test_an_answer_and_the_end_at_once(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_busy = True
    bench.peer_closes(1000)
    bench.inbox.on_last()
    bench.connection.abort()
    bench.turn()
    assert bench.opcodes() == [CLOSE, CLOSED]
    assert bench.ended == [bench.connection]


def test_the_peer_goes_while_we_answer(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_busy = True
    bench.peer_closes(1000)
    bench.connection.abort()
    assert bench.opcodes() == [CLOSE, CLOSED]
    bench.inbox.on_last()
    bench.advance(10.0)
    assert bench.opcodes() == [CLOSE, CLOSED]


@pytest.mark.parametrize("what", ["ready", "room"])
def test_nothing_makes_it_read_while_it_answers(make: MakeBench, what: str) -> None:
    bench = make()
    on_room = bench.inbox.on_room
    bench.inbox.is_busy = True
    bench.peer_closes(1000)
    bench.peer.shutdown(socket.SHUT_WR)
    assert bench.connection.state is State.ANSWERING
    if what == "ready":
        bench.connection.ask_to_read()
    else:
        on_room()
    bench.turn()
    assert bench.connection.state is State.ANSWERING
    assert interest(bench) == 0
    bench.connection.outbound.send(TEXT, b"reply")
    bench.connection.conclude()
    bench.turn()
    assert bench.peer_gets() == [Event(TEXT, "reply"), Event(CLOSE, Close(1000))]


def test_a_peer_that_half_closes_behind_its_close_gets_its_answer(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_busy = True
    bench.peer.sendall(bench.encoder.close(Close(1000)))
    bench.peer.shutdown(socket.SHUT_WR)
    bench.turn()
    bench.connection.outbound.send(TEXT, b"answer")
    bench.inbox.on_last()
    bench.turn()
    assert bench.peer_gets() == [Event(TEXT, "answer"), Event(CLOSE, Close(1000))]
    assert bench.connection.state is State.CLOSED


def test_with_a_dispatcher_answers_come_before_the_close(make: MakeBench) -> None:
    bench: Bench

    def handle(event: Event) -> None:
        if event.opcode == TEXT:
            bench.connection.outbound.send(TEXT, event.data.encode())

    def dispatcher(loop: IOLoop) -> Dispatcher:
        return Dispatcher(handle, loop, max_count=10, max_size=1000)

    bench = make(inbox=dispatcher)
    wire = [bench.encoder.message(TEXT, b"%d" % n) for n in range(3)]
    bench.peer_sends(b"".join([*wire, bench.encoder.close(Close(1000))]))
    assert bench.connection.state is State.ANSWERING
    bench.run_queue.popleft().run()
    bench.turn()
    assert bench.peer_gets() == [
        *(Event(TEXT, str(n)) for n in range(3)),
        Event(CLOSE, Close(1000)),
    ]
    bench.peer.close()
    bench.turn()
    bench.run_queue.popleft().run()
    assert not bench.inbox.busy()


def test_an_inbox_that_has_nothing_to_do_may_not_care_for_the_close(make: MakeBench) -> None:
    bench = make()
    bench.inbox.hears_close = False
    bench.peer_closes(1000)
    assert bench.peer_gets() == [Event(CLOSE, Close(1000))]
    bench.peer.close()
    bench.turn()
    assert bench.inbox.events == [Event(CLOSED, Close(1000))]


def test_an_inbox_that_is_busy_hears_of_the_close_in_any_case(make: MakeBench) -> None:
    bench = make()
    bench.inbox.hears_close = False
    bench.inbox.is_busy = True
    bench.peer_closes(1000)
    assert bench.inbox.events == [Event(CLOSE, Close(1000))]


def test_every_inbox_hears_of_a_failure(make: MakeBench) -> None:
    bench = make()
    bench.inbox.hears_close = False
    bench.peer_sends(b"\x83\x80")
    assert bench.inbox.events == [Event(ERROR, bench.connection.error)]


def test_a_receiver_is_told_of_the_close_before_tcp_ends(make: MakeBench) -> None:
    bench = make(client=True, inbox=lambda loop: Mailbox(max_count=9, max_size=999))
    receiver = Background(bench.inbox.get, HANG)
    bench.peer_closes(1000)
    assert bench.connection.state is State.ENDING
    assert receiver.result() is None


# -- What the peer does wrong ----------------------------------------


@ROLES
def test_the_peer_breaks_the_protocol(make: MakeBench, client: bool) -> None:
    bench = make(client=client)
    bench.peer_sends(bench.encoder.message(TEXT, b"good") + b"\x83" + bytes([0 if client else 128]))
    assert bench.connection.state is State.ENDING
    assert isinstance(bench.connection.error, ProtocolError)
    assert bench.inbox.events == [
        Event(TEXT, "good"),
        Event(ERROR, bench.connection.error),
    ]
    close = Close(1002, "Invalid opcode 0x3")
    assert bench.peer_gets() == [Event(CLOSE, close)]
    assert bench.connection.sent == close
    # Whoever fails the connection ends TCP, and what still comes is dropped.
    assert bench.peer_is_at_the_end()
    bench.peer_sends(b"more of the same")
    assert bench.connection.state is State.ENDING
    bench.peer.close()
    bench.turn()
    assert bench.inbox.events[2:] == [Event(CLOSED, Close(1006))]
    with pytest.raises(ConnectionClosed) as caught:
        bench.connection.outbound.send(TEXT, b"late")
    assert caught.value.__cause__ is bench.connection.error


def test_a_failed_peer_that_stays_is_left_after_close_timeout(make: MakeBench) -> None:
    bench = make(close_timeout=7.0)
    bench.peer_sends(b"\x83\x80")
    bench.advance(6.9)
    bench.peer_sends(b"more")
    assert bench.connection.state is State.ENDING
    bench.advance(0.1)
    assert bench.connection.state is State.CLOSED


def test_messages_before_the_mistake_may_be_answered(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_busy = True
    bench.peer_sends(b"\x83\x80")
    assert bench.connection.state is State.ANSWERING
    bench.connection.outbound.send(TEXT, b"answer")
    bench.inbox.on_last()
    bench.turn()
    assert bench.peer_gets() == [
        Event(TEXT, "answer"),
        Event(CLOSE, Close(1002, "Invalid opcode 0x3")),
    ]


def test_a_mistake_instead_of_the_answer_to_our_close(make: MakeBench) -> None:
    bench = make()
    bench.connection.start_close(Close(1000), 10.0)
    bench.peer_sends(b"\x83\x80")
    assert bench.connection.state is State.ENDING
    assert bench.peer_gets() == [Event(CLOSE, Close(1000))]
    assert bench.peer_is_at_the_end()
    bench.peer.close()
    bench.turn()
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]
    assert isinstance(bench.connection.error, ProtocolError)


# -- TCP lost --------------------------------------------------------


@ROLES
@pytest.mark.parametrize("how", ["end", "reset"])
def test_tcp_ends_without_a_close_frame(make: MakeBench, client: bool, how: str) -> None:
    bench = make(client=client)
    if how == "reset":
        bench.transport.receive_error = ConnectionResetError()
    bench.peer.close()
    bench.turn()
    assert bench.connection.state is State.CLOSED
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]
    assert bench.ended == [bench.connection]
    assert bench.transport.sock.fileno() == -1
    assert interest(bench) == 0
    with pytest.raises(ConnectionClosed) as caught:
        bench.connection.outbound.send(TEXT, b"late")
    assert (caught.value.received, caught.value.sent) == (None, None)


def test_a_message_and_the_end_in_one_go(make: MakeBench) -> None:
    bench = make()
    bench.peer.sendall(bench.encoder.message(TEXT, b"last"))
    bench.peer.close()
    bench.turn()
    assert bench.inbox.events == [Event(TEXT, "last"), Event(CLOSED, Close(1006))]


def test_writing_fails_before_it_is_ready(make: MakeBench) -> None:
    bench = make(start=False)
    wire = bench.encoder.message(TEXT, b"first") + bench.encoder.close(Close(1001))
    bench.connection.start(b"", wire[:4], False, False)
    bench.peer.sendall(wire[4:])
    bench.transport.send_error = BrokenPipeError("gone")
    with pytest.raises(ConnectionClosed):
        bench.connection.outbound.send(TEXT, b"lost")
    bench.turn()
    # Nothing is delivered before it is ready, and nothing taken for a mistake.
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]
    assert bench.connection.error is None
    bench.connection.ask_to_read()
    bench.turn()
    assert bench.opcodes() == [CLOSED]


def test_a_direct_write_fails(make: MakeBench) -> None:
    bench = make()
    # The peer has said why before it went.
    bench.peer.sendall(bench.encoder.message(TEXT, b"last") + bench.encoder.close(Close(1001)))
    bench.transport.send_error = BrokenPipeError("gone")
    with pytest.raises(ConnectionClosed) as caught:
        bench.connection.outbound.send(TEXT, b"lost")
    assert caught.value.__cause__ is bench.transport.send_error
    assert not bench.connection.sending  # though the I/O thread has not heard of it
    with pytest.raises(ConnectionClosed):
        bench.connection.outbound.send(PING, b"lost")
    bench.turn()
    assert bench.connection.state is State.CLOSED
    assert bench.inbox.events == [
        Event(TEXT, "last"),
        Event(CLOSE, Close(1001)),
        Event(CLOSED, Close(1001)),
    ]
    assert bench.connection.received == Close(1001)


def test_a_control_frame_that_cannot_be_written(make: MakeBench) -> None:
    bench = make()
    bench.transport.send_error = BrokenPipeError("gone")
    with pytest.raises(ConnectionClosed):
        bench.connection.outbound.send(PONG, b"lost")
    bench.turn()
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]


def test_a_queued_write_fails(make: MakeBench) -> None:
    bench = make()
    bench.transport.room = 2
    bench.connection.outbound.send(TEXT, b"cut short")
    bench.transport.send_error = ConnectionResetError("gone")
    bench.turn()
    assert bench.connection.state is State.CLOSED
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]
    assert bench.connection.outbound.size == 0
    with pytest.raises(ConnectionClosed) as caught:
        bench.connection.outbound.send(TEXT, b"late")
    assert caught.value.__cause__ is bench.transport.send_error


def test_reading_to_the_end_after_a_failed_write_may_fail_as_well(make: MakeBench) -> None:
    bench = make()
    bench.transport.receive_error = ConnectionResetError("gone")
    bench.transport.send_error = BrokenPipeError("gone")
    with pytest.raises(ConnectionClosed):
        bench.connection.outbound.send(TEXT, b"lost")
    bench.turn()
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]


def test_a_close_that_cannot_be_written(make: MakeBench) -> None:
    bench = make()
    bench.transport.send_error = BrokenPipeError("gone")
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    assert bench.connection.state is State.CLOSED
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]


def test_an_answer_that_cannot_be_written(make: MakeBench) -> None:
    bench = make()
    bench.transport.send_error = BrokenPipeError("gone")
    bench.peer_closes(1000)
    assert bench.connection.state is State.CLOSED
    assert bench.inbox.events == [Event(CLOSE, Close(1000)), Event(CLOSED, Close(1000))]


def test_what_was_not_read_yet_is_read_when_writing_fails(make: MakeBench) -> None:
    bench = make(start=False)
    bench.connection.start(b"", b"", True, False)
    messages = [b"%d" % n * 40_000 for n in range(3)]
    wire = b"".join(bench.encoder.message(BINARY, message) for message in messages)
    bench.peer.sendall(wire + bench.encoder.close(Close(1001)) + b"rubbish")
    bench.transport.send_error = BrokenPipeError("gone")
    with pytest.raises(ConnectionClosed):
        bench.connection.outbound.send(TEXT, b"lost")
    bench.turn()
    assert bench.inbox.events == [
        *(Event(BINARY, message) for message in messages),
        Event(CLOSE, Close(1001)),
        Event(CLOSED, Close(1001)),
    ]


def test_what_the_decoder_held_back_is_not_lost_when_writing_fails(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_full = True
    texts = [str(n) for n in range(1000)]
    wire = b"".join(bench.encoder.message(TEXT, text.encode()) for text in texts)
    bench.peer.sendall(wire + bench.encoder.close(Close(1001)))
    bench.transport.send_error = BrokenPipeError("gone")
    with pytest.raises(ConnectionClosed):
        bench.connection.outbound.send(TEXT, b"lost")
    bench.turn()
    assert CLOSED not in bench.opcodes()
    assert len(bench.inbox.events) < 1000
    bench.inbox.is_full = False
    bench.inbox.on_room()
    bench.turn()
    assert bench.inbox.events == [
        *(Event(TEXT, text) for text in texts),
        Event(CLOSE, Close(1001)),
        Event(CLOSED, Close(1001)),
    ]


def test_a_peer_that_never_stops_sending_does_not_hold_the_io_thread(
    make: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    ping = bench.encoder.ping(b"")
    size = len(ping)

    def endless(buffer: Buffer) -> int:
        buffer[:size] = ping
        return size

    monkeypatch.setattr(bench.transport, "receive", endless)
    bench.transport.send_error = BrokenPipeError("gone")
    with pytest.raises(ConnectionClosed):
        bench.connection.outbound.send(TEXT, b"lost")
    bench.turn()
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]


def test_what_comes_behind_the_close_is_dropped_when_writing_fails(make: MakeBench) -> None:
    bench = make()
    bench.transport.room = 0
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    bench.peer_closes(1000)
    bench.peer.sendall(b"rubbish")
    bench.transport.send_error = BrokenPipeError("gone")
    bench.connection.outbound.flush()
    assert bench.inbox.events == [Event(CLOSED, Close(1000))]


def test_a_flush_after_the_end_does_nothing(make: MakeBench) -> None:
    bench = make()
    bench.connection.abort()
    bench.connection.outbound.flush()
    bench.connection.on_ready(READ | WRITE)
    assert bench.opcodes() == [CLOSED]


# -- Idleness --------------------------------------------------------


@ROLES
def test_an_idle_connection_is_closed(make: MakeBench, client: bool) -> None:
    bench = make(client=client, idle_timeout=10.0)
    bench.advance(9.9)
    assert bench.peer_gets() == []
    bench.advance(0.1)
    assert bench.peer_gets() == [Event(CLOSE, Close(1001, "idle timeout"))]
    assert bench.connection.closed_here
    bench.peer_closes(1001)
    bench.peer.close()
    bench.turn()
    assert bench.inbox.events == [Event(CLOSED, Close(1001))]


def test_the_inbox_is_told_of_idleness_again_and_again(make: MakeBench) -> None:
    bench = make(idle_timeout=10.0, idle_event=True)
    bench.advance(10.0)
    assert bench.inbox.events == [Event(IDLE, None)]
    bench.advance(9.9)
    assert bench.inbox.events == [Event(IDLE, None)]
    bench.advance(0.1)
    assert bench.inbox.events == [Event(IDLE, None)] * 2
    assert bench.connection.state is State.OPEN


@pytest.mark.parametrize("direction", ["in", "out"])
def test_messages_either_way_are_no_idleness(make: MakeBench, direction: str) -> None:
    bench = make(idle_timeout=10.0, idle_event=True)
    for _ in range(5):
        bench.advance(6.0)
        if direction == "in":
            bench.peer_says(TEXT, b"x")
        else:
            bench.connection.outbound.send(TEXT, b"x")
    assert IDLE not in bench.opcodes()
    bench.advance(9.9)
    assert IDLE not in bench.opcodes()
    bench.advance(0.2)
    assert bench.opcodes()[-1] == IDLE


@pytest.mark.parametrize("what", ["ping", "pong"])
def test_pings_and_pongs_are_idleness(make: MakeBench, what: str) -> None:
    bench = make(idle_timeout=10.0, idle_event=True)
    bench.advance(6.0)
    bench.peer_sends(bench.encoder.ping(b"") if what == "ping" else bench.encoder.pong(b""))
    bench.connection.outbound.send(PING, b"")
    bench.advance(4.0)
    assert IDLE in bench.opcodes()


def test_a_message_with_a_ping_behind_it_is_no_idleness(make: MakeBench) -> None:
    bench = make(idle_timeout=10.0, idle_event=True)
    bench.advance(6.0)
    bench.peer_sends(bench.encoder.message(TEXT, b"x") + bench.encoder.ping(b""))
    bench.advance(6.0)
    assert bench.opcodes() == [TEXT]


def test_a_ping_cut_in_two_is_idleness(make: MakeBench) -> None:
    bench = make(idle_timeout=10.0, idle_event=True)
    bench.advance(6.0)
    ping = bench.encoder.ping(b"cut")
    bench.peer_sends(ping[:4])
    bench.peer_sends(ping[4:])
    bench.advance(4.0)
    assert bench.opcodes() == [IDLE]


def test_a_callback_that_runs_is_no_idleness(make: MakeBench) -> None:
    bench = make(idle_timeout=10.0, idle_event=True)
    bench.inbox.is_busy = True
    bench.advance(10.0)
    bench.advance(15.0)
    assert bench.inbox.events == []
    bench.inbox.is_busy = False
    bench.advance(9.9)
    assert bench.inbox.events == []
    bench.advance(10.0)
    assert bench.inbox.events == [Event(IDLE, None)]


def test_a_connection_that_closes_is_not_idle(make: MakeBench) -> None:
    bench = make(idle_timeout=1.0, idle_event=True)
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    bench.advance(5.0)
    assert bench.inbox.events == []


# -- Keepalive -------------------------------------------------------


def keepalive_ping(bench: Bench) -> bytes:
    events = bench.peer_gets()
    assert [event.opcode for event in events] == [PING]
    return bytes(events[0].data)


@ROLES
def test_keepalive_pings_and_their_latency(make: MakeBench, client: bool) -> None:
    bench = make(client=client, ping_interval=20.0, ping_timeout=10.0)
    bench.advance(19.9)
    assert bench.peer_gets() == []
    bench.advance(0.1)
    first = keepalive_ping(bench)
    assert len(first) == 4
    bench.now += 0.25
    bench.peer_sends(bench.encoder.pong(first))
    assert bench.connection.latency == pytest.approx(0.25)
    # It is ours, so the inbox does not see it; but the same again it does.
    assert bench.inbox.events == []
    bench.peer_sends(bench.encoder.pong(first))
    assert bench.inbox.events == [Event(PONG, first)]
    bench.advance(19.75)
    second = keepalive_ping(bench)
    assert second != first
    bench.now += 0.5
    bench.peer_sends(bench.encoder.pong(second))
    assert bench.connection.latency == pytest.approx(0.5)


def test_an_encoder_rests_with_each_keepalive_ping_unless_somebody_sends(
    make: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(ping_interval=20.0)
    rests: list[float] = []
    monkeypatch.setattr(Encoder, "rest", lambda encoder: rests.append(bench.now))
    bench.advance(20.0)
    assert rests == [bench.now]
    with bench.connection.outbound._encoding:  # the I/O thread does not wait for it
        bench.peer_sends(bench.encoder.pong(keepalive_ping(bench)))
        bench.advance(20.0)
    assert len(rests) == 1
    bench.peer_sends(bench.encoder.pong(keepalive_ping(bench)))
    bench.advance(20.0)
    assert len(rests) == 2


@ROLES
def test_a_peer_that_does_not_answer_a_keepalive_ping(make: MakeBench, client: bool) -> None:
    bench = make(client=client, ping_interval=20.0, ping_timeout=5.0)
    bench.advance(20.0)
    keepalive_ping(bench)
    bench.advance(4.9)
    assert bench.connection.state is State.OPEN
    bench.advance(0.1)
    assert bench.connection.state is State.CLOSED
    error = bench.connection.error
    assert isinstance(error, KeepaliveTimeout)
    assert "5.0 s" in str(error)
    assert bench.inbox.events == [Event(ERROR, error), Event(CLOSED, Close(1006))]
    assert [event.data.code for event in bench.peer_gets()] == [1011]
    with pytest.raises(ConnectionClosed) as caught:
        bench.connection.outbound.send(TEXT, b"late")
    assert caught.value.__cause__ is error


def test_any_byte_is_a_sign_of_life(make: MakeBench) -> None:
    bench = make(ping_interval=20.0, ping_timeout=5.0, message_timeout=None)
    bench.advance(5.0)
    # A message that comes byte by byte, one for each ping; never a pong.
    for octet in bench.encoder.message(BINARY, b"")[:4]:
        bench.advance(15.0)  # 5 s of the 20 s were the last ping's
        keepalive_ping(bench)
        bench.peer_sends(bytes([octet]))
        bench.advance(5.0)
        assert bench.connection.state is State.OPEN
    assert bench.connection.latency is None


@pytest.mark.parametrize("what", ["message", "ping", "fragment"])
def test_whatever_comes_whole_is_a_sign_of_life(make: MakeBench, what: str) -> None:
    bench = make(ping_interval=20.0, ping_timeout=5.0, message_timeout=None)
    bench.advance(20.0)
    for _ in range(4):
        keepalive_ping(bench)
        if what == "ping":
            bench.peer_sends(bench.encoder.ping(b""))
            assert bench.peer_gets() == [Event(PONG, b"")]
        else:
            bench.peer_sends(bench.encoder.message(TEXT, b"x", what == "message"))
        bench.advance(5.0)
        assert bench.connection.state is State.OPEN
        bench.advance(15.0)
    assert bench.connection.latency is None


def test_a_peer_that_takes_what_we_send_is_alive(make: MakeBench) -> None:
    bench = make(ping_interval=20.0, ping_timeout=5.0)
    bench.connection.outbound.send(BINARY, bytes(10_000_000))
    for _ in range(3):
        bench.advance(20.0)  # the ping stands behind the message
        bench.peer_gets()
        bench.turn()
        bench.advance(5.0)
        assert bench.connection.state is State.OPEN
    bench.advance(20.0)
    bench.advance(5.0)
    assert bench.connection.state is State.CLOSED
    assert isinstance(bench.connection.error, KeepaliveTimeout)


def test_what_came_before_the_ping_is_no_sign_of_life(make: MakeBench) -> None:
    bench = make(ping_interval=20.0, ping_timeout=5.0)
    bench.advance(19.0)
    bench.peer_says(TEXT, b"x")
    bench.advance(1.0)
    bench.advance(5.0)
    assert bench.connection.state is State.CLOSED


def test_while_we_do_not_read_the_peer_cannot_be_judged(make: MakeBench) -> None:
    bench = make(ping_interval=20.0, ping_timeout=5.0)
    bench.inbox.is_full = True
    bench.peer_says(TEXT, b"x")
    bench.advance(20.0)
    ping = keepalive_ping(bench)
    for _ in range(4):
        bench.advance(5.0)
    assert bench.connection.state is State.OPEN
    # Read again, it has the whole time again.
    bench.inbox.is_full = False
    bench.inbox.on_room()
    bench.advance(4.9)
    assert bench.connection.state is State.OPEN
    bench.peer_sends(bench.encoder.pong(ping))
    bench.advance(0.1)
    assert bench.connection.state is State.OPEN


def test_a_paused_reader_that_goes_on_finds_a_dead_peer(make: MakeBench) -> None:
    bench = make(ping_interval=20.0, ping_timeout=5.0)
    bench.inbox.is_full = True
    bench.peer_says(TEXT, b"x")
    bench.advance(20.0)
    bench.advance(5.0)
    bench.inbox.is_full = False
    bench.inbox.on_room()
    bench.turn()
    bench.advance(4.9)
    assert bench.connection.state is State.OPEN
    bench.advance(0.1)
    assert isinstance(bench.connection.error, KeepaliveTimeout)


# -- Slow messages ---------------------------------------------------


def slow(make: MakeBench, **options: Any) -> Bench:
    return make(ping_interval=None, message_timeout=10.0, **options)


@ROLES
@pytest.mark.parametrize("how", ["frame", "fragments", "control", "header"])
def test_a_message_that_is_not_here_in_time(make: MakeBench, client: bool, how: str) -> None:
    bench = slow(make, client=client)
    whole = {
        "frame": lambda: bench.encoder.message(BINARY, bytes(1000)),
        "fragments": lambda: bench.encoder.message(TEXT, b"a", False),
        "control": lambda: bench.encoder.ping(bytes(100)),
        "header": lambda: bench.encoder.message(BINARY, bytes(1000)),
    }[how]()
    bench.peer_sends(whole if how == "fragments" else whole[: 1 if how == "header" else 20])
    bench.advance(9.9)
    assert bench.connection.state is State.OPEN
    bench.advance(0.1 + 20 / 1024)
    assert [event.data.code for event in bench.peer_gets()] == [1008]
    error = bench.connection.error
    assert isinstance(error, MessageTimeout)
    assert "10.0 s" in str(error)
    assert bench.inbox.events == [Event(ERROR, error)]
    bench.advance(bench.connection.config.close_timeout)
    assert bench.connection.state is State.CLOSED, "though the peer says nothing more"


def test_a_message_that_trickles_is_too_slow(make: MakeBench) -> None:
    bench = slow(make)
    whole = bench.encoder.message(BINARY, bytes(1000))
    for octet in whole[:10]:
        bench.peer_sends(bytes([octet]))
        bench.advance(1.0)
    bench.advance(0.1)
    assert isinstance(bench.connection.error, MessageTimeout)


def test_what_comes_with_the_first_byte_counts_too(make: MakeBench) -> None:
    bench = slow(make)
    whole = bench.encoder.message(BINARY, bytes(20 * 1024))
    bench.peer_sends(whole[:-1])
    bench.advance(10.0 + 19.9)
    assert bench.connection.state is State.OPEN
    bench.advance(0.2)
    assert isinstance(bench.connection.error, MessageTimeout)


def test_fragments_do_not_begin_the_time_anew(make: MakeBench) -> None:
    bench = slow(make)
    bench.peer_says(TEXT, b"", False)
    for _ in range(10):
        bench.peer_says(TEXT, b"", False)
        bench.advance(1.0)
    bench.advance(0.1)
    assert isinstance(bench.connection.error, MessageTimeout)


def test_a_message_that_gets_on_has_all_the_time_it_takes(make: MakeBench) -> None:
    bench = slow(make)
    whole = bench.encoder.message(BINARY, bytes(64 * 1024))
    for start in range(0, len(whole), 2048):
        bench.peer_sends(whole[start : start + 2048])
        bench.advance(2.0)
    assert bench.inbox.events == [Event(BINARY, bytes(64 * 1024))]
    bench.advance(100.0)
    assert bench.connection.state is State.OPEN


@pytest.mark.parametrize("size", [10, 100_000])
def test_each_message_has_its_own_time(make: MakeBench, size: int) -> None:
    """Also where every read ends amid the next one."""
    bench = slow(make)
    whole = bench.encoder.message(BINARY, bytes(size))
    bench.peer_sends(whole[:5])
    for _ in range(5):
        bench.advance(9.0)
        bench.peer_sends(whole[5:] + whole[:5])
    assert bench.inbox.events == [Event(BINARY, bytes(size))] * 5
    bench.advance(10.0 + 5 / 1024)
    assert isinstance(bench.connection.error, MessageTimeout)


def test_control_frames_do_not_begin_a_messages_time_anew(make: MakeBench) -> None:
    bench = slow(make)
    bench.peer_says(TEXT, b"a", False)
    for _ in range(5):
        bench.advance(2.0)
        bench.peer_sends(bench.encoder.ping(b""))
    bench.advance(0.1)
    assert isinstance(bench.connection.error, MessageTimeout)


def test_a_streamed_message_has_a_time_as_well(make: MakeBench) -> None:
    bench = slow(make, stream=True)
    bench.peer_says(TEXT, b"a", False)
    bench.advance(5.0)
    bench.peer_says(TEXT, b"b", False)
    bench.advance(5.1)
    assert isinstance(bench.connection.error, MessageTimeout)


def test_a_pause_does_not_count_for_a_message(make: MakeBench) -> None:
    bench = slow(make)
    bench.inbox.is_full = True
    bench.peer_sends(bench.encoder.message(TEXT, b"x") + bench.encoder.message(TEXT, b"yz")[:3])
    bench.advance(1000.0)
    assert bench.connection.state is State.OPEN
    bench.inbox.is_full = False
    bench.inbox.on_room()
    bench.turn()
    bench.advance(9.9)
    assert bench.connection.state is State.OPEN
    bench.advance(0.2)
    assert isinstance(bench.connection.error, MessageTimeout)


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_without_a_message_under_way_nothing_is_slow(
    make: MakeBench, timeout: float | None
) -> None:
    bench = make(ping_interval=None, message_timeout=timeout)
    whole = bench.encoder.message(BINARY, bytes(1000))
    bench.peer_sends(whole[:20])
    if timeout is None:
        bench.advance(1e6)
    bench.peer_sends(whole[20:])
    bench.advance(1e6)
    assert bench.connection.state is State.OPEN


def test_one_ping_at_a_time(make: MakeBench) -> None:
    bench = make(ping_interval=5.0, ping_timeout=12.0)
    bench.advance(5.0)
    ping = keepalive_ping(bench)
    bench.advance(5.0)
    bench.advance(5.0)
    assert bench.peer_gets() == []
    bench.peer_sends(bench.encoder.pong(ping))
    bench.advance(5.0)
    keepalive_ping(bench)


def test_pings_without_a_limit_to_the_answer(make: MakeBench) -> None:
    bench = make(ping_interval=5.0, ping_timeout=None)
    for _ in range(5):
        bench.advance(5.0)
        keepalive_ping(bench)
    assert bench.connection.state is State.OPEN


def test_no_pings(make: MakeBench) -> None:
    bench = make(ping_interval=None)
    bench.advance(1e6)
    assert bench.peer_gets() == []
    assert bench.connection.state is State.OPEN


def test_a_keepalive_ping_waits_behind_what_is_queued(make: MakeBench) -> None:
    bench = make(ping_interval=5.0, ping_timeout=5.0)
    bench.transport.room = 3
    bench.connection.outbound.send(TEXT, b"first")
    bench.advance(5.0)
    bench.transport.room = None
    bench.turn()
    assert [event.opcode for event in bench.peer_gets()] == [TEXT, PING]


def test_a_keepalive_ping_that_is_left_to_the_flush(make: MakeBench) -> None:
    bench = make(ping_interval=5.0, ping_timeout=5.0)
    bench.transport.room = 0
    bench.advance(5.0)
    assert bench.peer_gets() == []
    bench.transport.room = None
    bench.turn()
    keepalive_ping(bench)


def test_a_pong_that_is_left_to_the_flush(make: MakeBench) -> None:
    bench = make()
    bench.transport.room = 1
    bench.peer_sends(bench.encoder.ping(b"x"))
    bench.transport.room = None
    bench.turn()
    assert bench.peer_gets() == [Event(PONG, b"x")]


def test_no_keepalive_while_closing(make: MakeBench) -> None:
    bench = make(ping_interval=5.0, ping_timeout=2.0)
    bench.advance(5.0)
    keepalive_ping(bench)
    bench.connection.start_close(Close(1000), 60.0)
    bench.turn()
    bench.peer_gets()
    bench.advance(50.0)
    assert bench.connection.state is State.CLOSING
    assert bench.peer_gets() == []


def test_idle_and_keepalive_together(make: MakeBench) -> None:
    bench = make(ping_interval=4.0, ping_timeout=None, idle_timeout=10.0, idle_event=True)
    for _ in range(20):
        bench.advance(1.0)
    assert len(bench.peer_gets()) == 5
    assert bench.opcodes() == [IDLE, IDLE]


def test_lost_and_idle_at_once(make: MakeBench) -> None:
    bench = make(ping_interval=5.0, ping_timeout=5.0, idle_timeout=10.0, idle_event=True)
    bench.advance(5.0)
    bench.advance(5.0)
    assert bench.opcodes() == [ERROR, CLOSED]


# -- TLS wants -------------------------------------------------------


def test_what_tls_wants_is_what_the_selector_waits_for(make: MakeBench) -> None:
    bench = make(start=False, secure=True)
    transport = bench.transport
    bench.connection.start(b"", b"", False, False)
    assert interest(bench) == 0
    # Reading that waits for the socket to be writable, but has paused.
    transport.wants_write = True
    bench.connection.on_ready(READ)
    assert interest(bench) == 0
    bench.peer_says(TEXT, b"not yet")
    bench.connection.on_ready(WRITE)
    assert bench.inbox.events == []
    transport.wants_write = False
    # Writing that waits for it to be readable.
    transport.room = 0
    transport.wants_read = True
    bench.connection.outbound.send(TEXT, b"x")
    bench.loop._flush()
    assert interest(bench) == READ
    transport.room = None
    bench.connection.on_ready(READ)
    assert bench.peer_gets() == [Event(TEXT, "x")]
    transport.wants_read = False
    bench.connection.on_ready(READ)
    assert interest(bench) == 0


def test_reading_that_waits_for_writing_is_not_asked_to_read(make: MakeBench) -> None:
    bench = make(secure=True)
    bench.transport.wants_write = True
    bench.connection.on_ready(READ)
    assert interest(bench) == WRITE  # readable it is, over and over
    bench.connection.on_ready(WRITE)
    assert interest(bench) == WRITE
    bench.transport.wants_write = False
    bench.connection.on_ready(WRITE)
    assert interest(bench) == READ


def test_writing_that_waits_for_reading_goes_on_when_readable(make: MakeBench) -> None:
    bench = make(secure=True)
    transport = bench.transport
    transport.wants_read = True
    transport.room = 0
    bench.connection.outbound.send(TEXT, b"x")
    bench.turn()
    assert interest(bench) == READ
    transport.room = None
    bench.peer_says(TEXT, b"wake")
    assert bench.peer_gets() == [Event(TEXT, "x")]
    assert bench.inbox.events == [Event(TEXT, "wake")]


def test_reading_begins_with_what_the_tls_layer_holds(make: MakeBench) -> None:
    bench = make(start=False, secure=True)
    # As if it were decrypted already: no selector would tell of it.
    held = [bench.encoder.message(TEXT, b"held")]

    def receive(buffer: Buffer) -> int:
        if not held:
            return -1
        data = held.pop()
        buffer[: len(data)] = data
        return len(data)

    bench.transport.receive = receive  # type: ignore[method-assign]
    bench.connection.start(b"", b"", True, False)
    assert bench.inbox.events == [Event(TEXT, "held")]


def test_nothing_is_read_on_if_what_came_early_fills_the_inbox(make: MakeBench) -> None:
    bench = make(start=False, secure=True)
    bench.inbox.is_full = True
    bench.peer.sendall(bench.encoder.message(TEXT, b"2"))
    bench.connection.start(b"", bench.encoder.message(TEXT, b"1"), True, False)
    bench.turn()
    assert bench.inbox.events == [Event(TEXT, "1")]


# -- The end ---------------------------------------------------------


def test_abort(make: MakeBench) -> None:
    bench = make()
    bench.transport.room = 0
    bench.connection.outbound.send(TEXT, b"never")
    bench.connection.ask_to_abort()
    assert bench.connection.state is State.OPEN
    bench.turn()
    assert bench.connection.state is State.CLOSED
    assert bench.connection.outbound.size == 0
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]
    assert bench.peer_is_at_the_end()


def test_what_has_ended_does_not_read_from_the_descriptor_that_another_has_now(
    make: MakeBench,
) -> None:
    bench = make()
    bench.peer_says(TEXT, b"ours")
    number = bench.transport.sock.fileno()
    another, peer = socket.socketpair()
    with another, peer:
        peer.send(bench.encoder.message(TEXT, b"for the other one"))
        bench.connection.abort()
        # As the system does for the next that is opened.
        reused = socket.socket(fileno=os.dup2(another.fileno(), number))
        with reused:
            for mask in (READ, WRITE, READ | WRITE):
                bench.connection.on_ready(mask)
            bench.connection.outbound.flush()
            with pytest.raises(ConnectionClosed):
                bench.connection.outbound.send(TEXT, b"not for the other one")
            bench.turn()
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(10)
        another.setblocking(False)
        assert len(another.recv(100)) == len(bench.encoder.message(TEXT, b"for the other one"))
    assert bench.inbox.events == [Event(TEXT, "ours"), Event(CLOSED, Close(1006))]


def test_a_registration_is_taken_over(make: MakeBench) -> None:
    class Before:
        def on_ready(self, mask: int) -> None:
            raise AssertionError("gave it up")

    bench = make(start=False)
    before: Any = Before()
    bench.loop.register(bench.transport.sock, READ, before)
    bench.peer.sendall(bench.encoder.message(TEXT, b"early"))
    bench.connection.take_over()
    assert interest(bench) == READ
    bench.connection.start(b"", b"", True, False)
    bench.turn()
    assert bench.inbox.events == [Event(TEXT, "early")]
    bench.connection.abort()
    assert interest(bench) == 0


def test_a_registration_that_is_taken_over_and_not_needed(make: MakeBench) -> None:
    bench = make(start=False)
    bench.loop.register(bench.transport.sock, READ, bench.connection)
    bench.connection.take_over()
    bench.connection.start(b"", b"", False, False)
    assert interest(bench) == 0


def test_something_of_ours_raises_in_the_io_thread(
    make: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    error = RuntimeError("broken")

    def broken(event: Event) -> None:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(bench.inbox, "put", broken)
    bench.peer_says(TEXT, b"x")
    assert bench.connection.state is State.CLOSED
    assert bench.connection.error is error
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]


def test_the_end_comes_though_the_selector_has_lost_the_socket(make: MakeBench) -> None:
    bench = make()
    bench.loop._poller.unregister(bench.transport.sock)  # as a failed modify() does
    bench.connection.abort()
    assert bench.connection.state is State.CLOSED
    assert bench.transport.sock.fileno() == -1
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]
    assert bench.ended == [bench.connection]


def test_a_failure_after_the_end_stops_deliveries(make: MakeBench) -> None:
    bench = make()
    bench.connection.abort()
    assert not bench.connection.closed_here
    bench.connection.fail(RuntimeError("broken"), Close(1011))
    assert bench.connection.closed_here


@pytest.mark.parametrize("where", ["flush", "timer"])
def test_a_flush_or_a_timer_that_raises_ends_the_connection(
    make: MakeBench, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    bench = make(idle_timeout=1.0)
    error = RuntimeError("broken")

    def broken(*args: Any) -> None:
        raise error

    if where == "flush":
        bench.transport.room = 0
        bench.connection.outbound.send(TEXT, b"x")
        monkeypatch.setattr(bench.transport, "send", broken)
        bench.turn()
    else:
        monkeypatch.setattr(bench.inbox, "idle", broken)
        bench.advance(1.0)
    assert bench.connection.state is State.CLOSED
    assert bench.connection.error is error


def test_nobody_needs_to_be_told_of_the_end(make: MakeBench) -> None:
    bench = make()
    bench.connection._on_end = None
    bench.connection.abort()
    assert bench.opcodes() == [CLOSED]


def test_the_loop_stops(make: MakeBench) -> None:
    bench = make()
    bench.loop.stop()
    bench.loop.run()
    assert bench.inbox.events == [Event(CLOSED, Close(1006))]


def test_wait_closed(make: MakeBench) -> None:
    bench = make()
    assert bench.connection.wait_closed(0) is False
    condition = TellingCondition(bench.connection.outbound)
    waiters = [Background(bench.connection.wait_closed, timeout) for timeout in (None, HANG)]
    for _ in waiters:
        condition.waiting.get(timeout=HANG)
    bench.connection.start_close(Close(1000), 10.0)
    # A change of state that is not the end wakes them for nothing.
    for _ in waiters:
        condition.waiting.get(timeout=HANG)
    bench.connection.abort()
    assert [waiter.result() for waiter in waiters] == [True, True]
    assert bench.connection.wait_closed(0) is True
    assert bench.connection.wait_closed(None) is True


def test_abandon_leaves_the_parents_connection_alone(make: MakeBench) -> None:
    bench = make()
    bench.connection.outbound.lock.acquire()  # by a thread that does not exist in the child
    copy = bench.transport.sock.dup()
    bench.loop.unregister(bench.transport.sock)
    bench.connection.abandon()
    assert bench.transport.abandoned
    assert bench.transport.sock.fileno() == -1
    assert bench.connection.state is State.CLOSED
    assert bench.inbox.closes == 1
    with pytest.raises(ConnectionClosed):
        bench.connection.outbound.send(TEXT, b"never")
    assert bench.connection.wait_closed(0) is True
    # Nothing was shut down: the other copy still works.
    assert not bench.peer_is_at_the_end()
    copy.send(bench.encoder.ping(b"")[:0] + b"\x89\x00")
    assert bench.peer_gets() == [Event(PING, b"")]
    copy.close()


def test_a_paused_connection_is_abandoned_with_the_loop(make: MakeBench) -> None:
    bench = make()
    bench.inbox.is_full = True
    bench.peer_says(TEXT, b"x")
    copy = bench.loop
    copy.abandon()
    assert bench.transport.abandoned
    assert bench.connection.state is State.CLOSED
    # Its descriptors are closed; a new one for the teardown.
    bench.loop = IOLoop("bench")


# -- A group's member ------------------------------------------------


def test_a_member_that_is_too_slow_is_closed(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000, close_timeout=5.0)
    filling = fill(bench)
    size = bench.connection.outbound.size
    assert share(TEXT, b"too much", [bench.connection.outbound]) == 0
    assert bench.connection.state is State.OPEN
    bench.turn()
    assert bench.connection.state is State.CLOSING
    error = bench.connection.error
    assert isinstance(error, SendTimeout)
    assert f"{size} bytes" in str(error)
    assert bench.inbox.events == [Event(ERROR, error)]
    assert bench.connection.closed_here
    bench.transport.room = None
    bench.turn()
    assert bench.peer_gets() == [
        Event(BINARY, filling),
        Event(CLOSE, Close(1013, "too slow")),
    ]
    bench.advance(5.0)
    assert bench.connection.state is State.CLOSED
    assert bench.opcodes() == [ERROR, CLOSED]


def test_a_member_that_is_too_slow_gets_nothing_after_what_it_has_missed(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    filling = fill(bench)
    outbound = bench.connection.outbound
    assert share(TEXT, b"missed", [outbound]) == 0
    bench.transport.room = None
    outbound.flush()  # before the I/O thread has heard of it
    assert outbound.size == 0
    assert share(TEXT, b"after it", [outbound]) == 0
    with pytest.raises(ConnectionClosed):
        outbound.send(TEXT, b"to it alone")
    bench.turn()
    assert bench.peer_gets() == [
        Event(BINARY, filling),
        Event(CLOSE, Close(1013, "too slow")),
    ]
    assert bench.opcodes() == [ERROR]


def test_a_member_that_is_too_slow_answers_a_close_that_has_come(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    filling = fill(bench)
    bench.inbox.is_busy = True
    bench.peer_sends(bench.encoder.close(Close(1000)))
    bench.turn()
    assert bench.connection.state is State.ANSWERING
    assert share(TEXT, b"missed", [bench.connection.outbound]) == 0
    bench.connection.conclude()
    bench.transport.room = None
    bench.turn()
    assert bench.peer_gets() == [Event(BINARY, filling), Event(CLOSE, Close(1000))]


def test_a_member_that_is_too_slow_and_has_closed_meanwhile(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    fill(bench)
    for _ in range(3):
        share(TEXT, b"too much", [bench.connection.outbound])
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    assert bench.connection.sent == Close(1000)
    assert bench.connection.error is None
    assert bench.inbox.events == []


def test_a_member_that_falls_behind_twice_is_told_once(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    fill(bench)
    for _ in range(3):
        share(TEXT, b"too much", [bench.connection.outbound])
    bench.turn()
    assert bench.opcodes() == [ERROR]


def test_shared_messages_go_out_with_the_next_round(make: MakeBench) -> None:
    bench = make()
    assert share(TEXT, b"shared", [bench.connection.outbound]) == 1
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    assert bench.peer_gets() == [Event(TEXT, "shared"), Event(CLOSE, Close(1000))]
    assert share(TEXT, b"late", [bench.connection.outbound]) == 0


def test_calls_when_it_has_ended(make: MakeBench) -> None:
    bench = make()
    log: list[Any] = []
    for key in ("a", "b", "c"):
        assert bench.connection.when_ended(key, lambda key=key: log.append(key)) is True
    bench.connection.not_when_ended("b")
    bench.connection.not_when_ended("b")
    bench.connection.not_when_ended("never")
    assert bench.connection.when_ended("c", lambda: log.append("c again")) is True
    bench.connection.start_close(Close(1000), 10.0)
    bench.turn()
    assert log == []
    bench.connection.abort()
    assert log == ["a", "c again"]
    bench.connection.abort()
    assert log == ["a", "c again"]
    assert bench.connection.when_ended("d", lambda: log.append("d")) is False
    bench.connection.not_when_ended("a")
    assert log == ["a", "c again"]


def test_nothing_to_call_when_it_has_ended(make: MakeBench) -> None:
    bench = make()
    bench.connection.not_when_ended("never")
    bench.connection.abort()
    assert bench.connection.when_ended("late", bench.turn) is False


def test_what_waits_for_the_last_fragment_counts_for_the_budget(make: MakeBench) -> None:
    noted: list[Connection] = []
    bench = make()
    bench.connection._budget = SimpleNamespace(note=noted.append)  # type: ignore[assignment]
    bench.connection.outbound.send(TEXT, b"begin", final=False)
    bench.turn()
    assert noted == []
    for _ in range(3):
        share(TEXT, b"x" * 998, [bench.connection.outbound])
    bench.turn()
    assert noted == [bench.connection]
    assert bench.connection.outbound.held() > 3000
    bench.connection.outbound.send(TEXT, b"end")
    bench.turn()
    assert bench.connection.outbound.held() == 0
    bench.connection._budget = None
