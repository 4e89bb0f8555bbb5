"""What a connection sends; the test is the I/O thread, and a log is the connection."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from syncws.config import ConnectionConfig
from syncws.engine.loop import IOLoop
from syncws.engine.outbound import Outbound
from syncws.engine.sharing import share
from syncws.engine.state import End
from syncws.engine.watch import Watch
from syncws.errors import Close, ConnectionClosed, InvalidContinuationFrameError, SendTimeout
from syncws.protocol.decoder import Decoder
from syncws.protocol.deflate import Deflate, Inflate
from syncws.protocol.encoder import Encoder
from syncws.protocol.events import BINARY, CLOSE, PING, PONG, TEXT, Event
from tests.scripted import (
    HANG,
    WAYS,
    Background,
    GatedEncoder,
    ScriptedTransport,
    TellingCondition,
)
from tests.support import Frame, Gate, RawPeer

ROLES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])

# Below it a message is copied behind its header.
SMALL = 16_384


class Sender:
    """The connection: notes what it is told."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def flushed(self, drained: bool) -> None:
        self.log.append(("flushed", drained))

    def write_failed(self) -> None:
        self.log.append("write failed")

    def fell_behind(self, size: int) -> None:
        self.log.append(("fell behind", size))

    def holds_back(self) -> None:
        self.log.append("holds back")

    def on_loop_error(self, error: BaseException) -> None:
        self.log.append(error)


class Bench:
    """An outbound half with a socket pair, a loop without a thread, and a clock."""

    def __init__(
        self,
        way: str,
        *,
        client: bool = False,
        loop: IOLoop | None = None,
        compression: bool = False,
        window_bits: int = 15,
        no_context_takeover: bool = False,
        threshold: int = 0,
        secure: bool = False,
        **options: Any,
    ) -> None:
        self.now = 1000.0
        self.loop = IOLoop("bench", lambda: self.now) if loop is None else loop
        self.run_queue: deque[Any] = deque()
        self.loop.pool = SimpleNamespace(
            queue=self.run_queue,
            submit=self.run_queue.extend,
            unblock=lambda now: None,
            look_interval=None,
            stop=lambda: None,
        )
        ours, peer = socket.socketpair()
        self.peer = RawPeer(peer, client=not client)
        self.transport = ScriptedTransport(ours, way, secure=secure)
        agreed: dict[str, Any] = {
            "window_bits": window_bits,
            "no_context_takeover": no_context_takeover,
        }
        deflate = Deflate(**agreed, level=6, mem_level=8) if compression else None
        self.encoder = Encoder(client=client, deflate=deflate, threshold=threshold)
        inflate = Inflate(**agreed, max_message_size=None)
        self.decoder = Decoder(client=not client, inflate=inflate if compression else None)
        options.setdefault("ping_interval", None)
        config = ConnectionConfig(**options)
        self.watch = Watch(config, self.now)
        self.end = End()
        self.sender = Sender()
        self.outbound = Outbound(
            self.loop, self.transport, self.encoder, config, self.watch, self.end, self.sender
        )

    def turn(self) -> None:
        """Make a round of the loop that does not wait."""
        self.loop.call_soon(lambda: None)
        self.loop._round()

    def flush(self) -> None:
        """Have what is queued written, as far as the socket takes it."""
        self.outbound.flush()

    def wire(self) -> bytes:
        """Return the bytes that have come to the peer."""
        found = b""
        self.peer.sock.setblocking(False)
        try:
            while data := self.peer.sock.recv(1 << 20):
                found += data
        except BlockingIOError:
            pass
        return found

    def got(self) -> list[Event]:
        """Return what has come to the peer."""
        events = self.decoder.receive(self.wire())
        while self.decoder.pending:
            events += self.decoder.receive(b"")
        return events

    def give_up(self) -> None:
        """What a connection does when its socket is gone."""
        with self.outbound.lock:
            self.transport.close()
            self.outbound.release()
            self.outbound.notify()

    def close(self) -> None:
        self.transport.close()
        self.peer.abort()
        self.loop.abandon()


MakeBench = Callable[..., Bench]


@pytest.fixture(params=WAYS[1:])
def make(request: pytest.FixtureRequest) -> Iterator[MakeBench]:
    benches: list[Bench] = []

    def make_bench(**options: Any) -> Bench:
        benches.append(Bench(request.param, **options))
        return benches[-1]

    yield make_bench
    for bench in benches:
        bench.close()


def frames(wire: bytes) -> list[Frame]:
    """Read frames one by one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writing = Background(theirs.sendall, wire)
        peer = RawPeer(ours, client=False)
        found = []
        left = len(wire)
        while left:
            found.append(peer.read())
            size = len(found[-1].payload)
            left -= 2 + (0 if size < 126 else 2 if size < 65_536 else 8) + 4 * found[-1].masked
            left -= size
        assert writing.result() is None
    return found


# -- At once, or queued ----------------------------------------------


@ROLES
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(
    "size", [0, 1, 125, 126, SMALL - 1, SMALL, SMALL + 1, 65_535, 65_536, 100_000]
)
def test_a_message_goes_out_at_once(make: MakeBench, client: bool, opcode: int, size: int) -> None:
    bench = make(client=client)
    payload = bytes(ord("a") + n % 26 for n in range(size))
    bench.outbound.send(opcode, payload)
    assert not bench.loop.dirty
    assert bench.outbound.size == 0
    assert not bench.outbound.flushing
    (frame,) = frames(bench.wire())
    assert frame == Frame(opcode, payload, masked=client)


@ROLES
def test_everything_in_the_order_it_was_taken(make: MakeBench, client: bool) -> None:
    bench = make(client=client, send_buffer_size=10_000_000)
    bench.transport.room = 10
    bench.outbound.send(TEXT, b"one")
    bench.outbound.send(BINARY, b"two" * 10_000)
    bench.outbound.send(PING, b"three")
    bench.outbound.send(TEXT, b"four", final=False)
    bench.outbound.send(PONG, b"five")
    bench.outbound.send(TEXT, b"six")
    bench.outbound.send(BINARY, b"seven")
    bench.transport.room = None
    bench.flush()
    assert bench.outbound.size == 0
    assert bench.got() == [
        Event(TEXT, "one"),
        Event(BINARY, b"two" * 10_000),
        Event(PING, b"three"),
        Event(PONG, b"five"),
        Event(TEXT, "foursix"),
        Event(BINARY, b"seven"),
    ]


def test_the_keys_of_a_client_differ(make: MakeBench) -> None:
    bench = make(client=True)
    keys = set()
    for _ in range(20):
        bench.outbound.send(BINARY, b"same")
        wire = bench.wire()
        assert len(wire) == 10
        keys.add(wire[2:6])
    assert len(keys) == 20


@pytest.mark.parametrize("size", [5, SMALL])
def test_while_callbacks_wait_everything_is_queued_and_one_flush_asked_for(
    make: MakeBench, size: int
) -> None:
    bench = make()
    bench.run_queue.append("a callback")
    for _ in range(3):
        bench.outbound.send(BINARY, bytes(size))
        bench.outbound.send(PING, b"x")
    assert bench.transport.sends == 0
    assert list(bench.loop.dirty) == [bench.outbound]
    assert bench.outbound.flushing
    bench.run_queue.clear()
    bench.turn()
    assert not bench.loop.dirty
    assert not bench.outbound.flushing
    assert bench.got() == [Event(BINARY, bytes(size)), Event(PING, b"x")] * 3


@pytest.mark.parametrize("waiting", [True, False], ids=["waiting", "awake"])
@pytest.mark.parametrize("size", [5, SMALL])
def test_who_fills_an_empty_buffer_wakes_the_io_thread(
    make: MakeBench, size: int, waiting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    wakes: list[str] = []
    monkeypatch.setattr(bench.loop, "_wake", lambda: wakes.append("wake"))
    bench.transport.room = 1
    if waiting:
        # Then who empties the queue wakes it.
        bench.run_queue.append("a callback")
    bench.outbound.send(BINARY, bytes(size))
    assert wakes == ([] if waiting else ["wake"])
    bench.outbound.send(BINARY, bytes(size))
    assert len(wakes) == (0 if waiting else 1)


@pytest.mark.parametrize("room", [0, 1, 2, 3, 9, 10, 11, 12, SMALL + 9, SMALL + 10])
def test_a_large_message_is_sent_in_parts_and_not_copied(make: MakeBench, room: int) -> None:
    bench = make(send_buffer_size=1_000_000)
    payload = bytes(range(256)) * (SMALL // 256 + 300)
    assert len(payload) > 65_536
    bench.transport.room = room
    bench.outbound.send(BINARY, payload)
    bench.outbound.send(TEXT, b"behind")
    whole = len(payload) + 10
    assert bench.outbound.size == whole - room + 8
    chunks = bench.outbound._out.chunks
    if room < 10:
        assert chunks[1] is payload
    elif room == 10:
        assert chunks[0] is payload
    else:
        assert isinstance(chunks[0], memoryview)
        assert chunks[0].obj is payload
    for bench.transport.room in (0, 1, 5000, 4, 10_000, 1_000_000):
        bench.flush()
    assert bench.outbound.size == 0
    assert bench.got() == [Event(BINARY, payload), Event(TEXT, "behind")]


@ROLES
def test_large_messages_through_a_small_socket(make: MakeBench, client: bool) -> None:
    bench = make(client=client, send_buffer_size=100_000_000)
    messages = [bytes([n]) * 700_001 for n in range(5)]
    for message in messages:
        bench.outbound.send(BINARY, message)
    assert bench.outbound.size > 0
    got: list[Event] = []
    while len(got) < 5:
        got += bench.got()
        bench.flush()
    assert got == [Event(BINARY, message) for message in messages]
    assert bench.outbound.size == 0


@ROLES
def test_with_compression(make: MakeBench, client: bool) -> None:
    bench = make(client=client, compression=True)
    texts = ["again and again " * n for n in (0, 1, 10, 2000)]
    bench.transport.room = 7
    for text in texts:
        bench.outbound.send(TEXT, text.encode())
    assert bench.outbound.size < 1000
    bench.transport.room = None
    bench.flush()
    assert bench.got() == [Event(TEXT, text) for text in texts]


def test_messages_are_no_idleness_pings_are(make: MakeBench) -> None:
    bench = make(idle_timeout=10.0)
    for opcode, payload, final, counts in (
        (TEXT, b"x", True, True),
        (PING, b"x", True, False),
        (PONG, b"x", True, False),
        (BINARY, bytes(SMALL), True, True),
        (BINARY, b"x", False, True),
    ):
        bench.now += 1.0
        bench.outbound.send(opcode, payload, final)
        assert bench.watch.last_message == (bench.now if counts else bench.now - 1.0)
        bench.watch.last_message = bench.now


def test_without_an_idle_timeout_nobody_looks_at_the_clock(make: MakeBench) -> None:
    bench = make()
    before = bench.watch.last_message
    bench.now += 1.0
    bench.outbound.send(TEXT, b"x")
    assert bench.watch.last_message == before


# -- Fragments and other threads -------------------------------------


@ROLES
def test_other_messages_do_not_come_between_fragments(make: MakeBench, client: bool) -> None:
    bench = make(client=client)
    bench.outbound.send(TEXT, b"1", final=False)
    # A message of the other kind is refused, whatever its size and its way.
    for size in (0, 5, SMALL, 100_000):
        outcome = Background(bench.outbound.send, BINARY, bytes(size)).result()
        assert isinstance(outcome, InvalidContinuationFrameError)
    bench.outbound.send(PING, b"2")
    bench.outbound.send(TEXT, b"3", final=False)
    bench.outbound.send(TEXT, b"4")
    bench.outbound.send(BINARY, b"5")
    assert [(f.opcode, f.payload, f.fin) for f in frames(bench.wire())] == [
        (TEXT, b"1", False),
        (PING, b"2", True),
        (0, b"3", False),
        (0, b"4", True),
        (BINARY, b"5", True),
    ]


def gate_encoder(bench: Bench, gate: Gate) -> None:
    bench.outbound._encoder = GatedEncoder(bench.encoder, gate)  # type: ignore[assignment]


def test_a_message_goes_out_before_the_first_fragment_that_is_encoded_meanwhile(
    make: MakeBench,
) -> None:
    bench = make()
    with Gate() as gate:
        gate_encoder(bench, gate)
        fragment = Background(bench.outbound.send, TEXT, b"first", False)
        gate.reached()
        bench.outbound.send(BINARY, b"whole")
        assert bench.got() == [Event(BINARY, b"whole")]
    assert fragment.result() is None
    bench.outbound.send(TEXT, b" last")
    assert bench.got() == [Event(TEXT, "first last")]


def test_a_message_waits_for_the_last_fragment_that_is_encoded_meanwhile(make: MakeBench) -> None:
    bench = make()
    bench.outbound.send(TEXT, b"first", final=False)
    with Gate() as gate:
        gate_encoder(bench, gate)
        last = Background(bench.outbound.send, TEXT, b" last")
        gate.reached()
        whole = Background(bench.outbound.send, BINARY, b"whole")
        assert [f.payload for f in frames(bench.wire())] == [b"first"]
    assert last.result() is None
    assert whole.result() is None
    assert [f.payload for f in frames(bench.wire())] == [b" last", b"whole"]


@ROLES
def test_whatever_the_threads_do_messages_stay_whole(make: MakeBench, client: bool) -> None:
    bench = make(client=client, send_buffer_size=3000)
    texts = [f"{n} " * (n % 50) for n in range(150)]
    ready = threading.Barrier(4)

    def send_fragments() -> None:
        ready.wait(HANG)
        for text in texts:
            data = text.encode()
            third = len(data) // 3
            bench.outbound.send(TEXT, data[:third], final=False)
            bench.outbound.send(TEXT, data[third : 2 * third], final=False)
            bench.outbound.send(TEXT, data[2 * third :])

    def send_whole(kind: int) -> None:
        ready.wait(HANG)
        for n in range(150):
            while True:
                try:
                    bench.outbound.send(BINARY, bytes([kind, n]) * (10_000 if n % 30 == 0 else 5))
                    break
                except InvalidContinuationFrameError:
                    pass  # midway

    def send_pings() -> None:
        ready.wait(HANG)
        for n in range(150):
            bench.outbound.send(PING, bytes([n]))

    senders = [
        Background(send_fragments),
        Background(send_whole, 1),
        Background(send_whole, 2),
        Background(send_pings),
    ]
    got: list[Event] = []
    while len(got) < 600:
        bench.turn()
        bench.flush()  # as the connection does when the socket takes bytes again
        got += bench.got()
        assert CLOSE not in [event.opcode for event in got]
        assert not [event for event in got if isinstance(event.data, Exception)]
    assert [sender.result() for sender in senders] == [None] * 4
    assert [event.data for event in got if event.opcode == TEXT] == texts
    assert [event.data for event in got if event.opcode == PING] == [bytes([n]) for n in range(150)]
    for kind in (1, 2):
        found = [event.data for event in got if event.opcode == BINARY and event.data[0] == kind]
        assert found == [bytes([kind, n]) * (10_000 if n % 30 == 0 else 5) for n in range(150)]


# -- Flushes ---------------------------------------------------------


def test_a_flush_that_writes_all_bothers_nobody(make: MakeBench) -> None:
    bench = make()
    bench.run_queue.append("a callback")
    bench.outbound.send(TEXT, b"x")
    bench.flush()
    assert bench.got() == [Event(TEXT, "x")]
    bench.outbound.send(TEXT, b"y")
    bench.outbound.send(TEXT, b"z")
    bench.flush()
    assert bench.got() == [Event(TEXT, "y"), Event(TEXT, "z")]
    assert bench.sender.log == []
    assert not bench.outbound.flushing


def test_an_attentive_sender_hears_of_every_flush(make: MakeBench) -> None:
    bench = make()
    bench.outbound.attentive = True
    bench.flush()
    bench.run_queue.append("a callback")
    bench.outbound.send(TEXT, b"x")
    bench.flush()
    assert bench.sender.log == [("flushed", True)] * 2


@pytest.mark.parametrize("final", [True, False])
def test_after_a_fragment_that_fails_it_is_the_end_that_is_told(
    make: MakeBench, final: bool
) -> None:
    """And not that a message of another type is under way, which is no more."""
    bench = make()
    bench.transport.send_error = BrokenPipeError("gone")
    with pytest.raises(ConnectionClosed) as caught:
        bench.outbound.send(TEXT, b"one", False)
    assert caught.value.maybe_sent
    with pytest.raises(ConnectionClosed) as caught:
        bench.outbound.send(BINARY, b"two", final)
    assert caught.value.__cause__ is bench.transport.send_error
    assert not caught.value.maybe_sent


@pytest.mark.parametrize("messages", [1, 2], ids=["one", "several"])
@pytest.mark.parametrize("room", [0, 1, 4])
def test_a_flush_that_leaves_something_is_told_of(
    make: MakeBench, room: int, messages: int
) -> None:
    bench = make()
    bench.run_queue.append("a callback")
    for _ in range(messages):
        bench.outbound.send(TEXT, b"text")
    bench.transport.room = room
    bench.flush()
    assert bench.sender.log == [("flushed", False)]
    assert bench.outbound.flushing
    assert bench.outbound.size == 6 * messages - room
    # What comes meanwhile asks for no further flush.
    bench.loop.dirty.clear()
    bench.outbound.send(TEXT, b"more")
    assert not bench.loop.dirty
    bench.transport.room = None
    bench.flush()
    assert bench.sender.log == [("flushed", False)]
    assert bench.got() == [Event(TEXT, "text")] * messages + [Event(TEXT, "more")]


def test_a_flush_of_nothing(make: MakeBench) -> None:
    bench = make()
    bench.flush()
    assert bench.transport.sends == 0
    assert bench.sender.log == []


def test_what_comes_before_the_first_frame(make: MakeBench) -> None:
    bench = make()
    bench.outbound.send_first(b"HTTP/1.1 101\r\n\r\n")
    assert bench.wire() == b"HTTP/1.1 101\r\n\r\n"
    bench.transport.room = 3
    bench.outbound.send_first(b"head")
    # The connection waits for room already, so it is told at once.
    assert bench.sender.log == [("flushed", False)]
    bench.outbound.send(TEXT, b"x")
    bench.transport.room = None
    bench.flush()
    assert bench.wire() == b"head\x81\x01x"


@pytest.mark.parametrize("what", ["ping", "pong", "close"])
def test_control_frames_of_the_connection(make: MakeBench, what: str) -> None:
    bench = make()
    for room in (None, 1):
        bench.transport.room = room
        if what == "ping":
            bench.outbound.send_ping(b"abcd")
        elif what == "pong":
            bench.outbound.send_pong(b"abcd")
        else:
            with bench.outbound.lock:
                assert bench.outbound.send_close(Close(1000, "ab")) is (room == 1)
            assert bench.end.sent == Close(1000, "ab")
            if room:
                bench.outbound.flush_soon()
        assert list(bench.loop.dirty) == ([] if room is None else [bench.outbound])
    bench.transport.room = None
    bench.turn()
    expected = {
        "ping": Event(PING, b"abcd"),
        "pong": Event(PONG, b"abcd"),
        "close": Event(CLOSE, Close(1000, "ab")),
    }[what]
    assert bench.got() == [expected] * (1 if what == "close" else 2)


def test_of_the_pongs_that_find_no_room_the_latest_is_kept(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    bench.transport.room = 0
    bench.outbound.send(BINARY, bytes(1001))
    for payload in (b"1", b"2", b"3"):
        bench.outbound.send_pong(payload)
    assert bench.outbound.size == 1005
    bench.transport.room = 1005 + 2
    bench.flush()
    assert bench.sender.log == [("flushed", False)]
    bench.transport.room = None
    bench.flush()
    bench.flush()
    assert bench.got() == [Event(BINARY, bytes(1001)), Event(PONG, b"3")]


def test_tiny_frames_that_wait_hold_more_than_their_bytes(make: MakeBench) -> None:
    bench = make()
    bench.transport.room = 0
    bench.run_queue.append("a callback")
    tracemalloc.start()
    try:
        for _ in range(10_000):
            bench.outbound.send_pong(b"")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert bench.outbound.size == 20_000
    assert 0.7 * taken < bench.outbound.held() < 1.5 * taken


def test_nothing_is_sent_for_a_connection_that_has_closed(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    bench.transport.room = 0
    bench.outbound.send(BINARY, bytes(1001))
    bench.outbound.send_pong(b"kept back")
    bench.outbound.open = False
    bench.outbound.send_pong(b"x")
    bench.outbound.send_ping(b"x")
    for opcode, payload, final in (
        (TEXT, b"x", True),
        (TEXT, b"x", False),
        (BINARY, bytes(SMALL), True),
        (PING, b"x", True),
        (PONG, b"x", True),
    ):
        with pytest.raises(ConnectionClosed):
            bench.outbound.send(opcode, payload, final)
    bench.transport.room = None
    bench.flush()
    assert bench.got() == [Event(BINARY, bytes(1001))]


# -- Sockets that fail -----------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "payload", "final"),
    [
        (TEXT, b"x", True),
        (TEXT, b"x", False),
        (BINARY, bytes(SMALL), True),
        (PING, b"x", True),
        (PONG, b"x", True),
    ],
    ids=["plain", "fragment", "parts", "ping", "pong"],
)
def test_writing_at_once_fails(make: MakeBench, opcode: int, payload: bytes, final: bool) -> None:
    bench = make()
    bench.transport.send_error = BrokenPipeError("gone")
    for _ in range(2):
        with pytest.raises(ConnectionClosed) as caught:
            bench.outbound.send(opcode, payload, final)
        assert caught.value.__cause__ is bench.transport.send_error
    assert bench.outbound.failed
    assert bench.end.write_error is bench.transport.send_error
    assert bench.loop.dirty
    assert bench.sender.log == []  # the I/O thread tells it
    bench.turn()
    assert bench.sender.log[0] == "write failed"
    assert bench.outbound.size == 0
    assert not bench.outbound.flushing


@pytest.mark.parametrize("messages", [1, 2], ids=["one", "several"])
def test_writing_what_is_queued_fails(make: MakeBench, messages: int) -> None:
    bench = make()
    bench.transport.room = 3
    for _ in range(messages):
        bench.outbound.send(TEXT, b"text")
    bench.transport.send_error = ConnectionResetError("gone")
    bench.flush()
    assert bench.sender.log == ["write failed"]
    assert bench.outbound.size == 0
    assert bench.outbound._out.chunks == []
    assert bench.outbound.failed
    with pytest.raises(ConnectionClosed) as caught:
        bench.outbound.send(TEXT, b"late")
    assert caught.value.__cause__ is bench.transport.send_error


def test_writing_a_pong_that_was_kept_back_fails(make: MakeBench) -> None:
    bench = make(send_buffer_size=10)
    bench.transport.room = 0
    bench.outbound.send(BINARY, bytes(20))
    bench.outbound.send_pong(b"x")
    error = BrokenPipeError("gone")
    sent: list[int] = []

    def send(data: bytes | memoryview) -> int:
        if sent:
            raise error
        sent.append(len(data))
        return len(data)

    bench.transport.send = send  # type: ignore[method-assign]
    bench.flush()
    assert sent == [22]
    assert bench.end.write_error is error
    assert bench.sender.log == ["write failed"]


def test_a_real_socket_whose_peer_has_gone(make: MakeBench) -> None:
    bench = make()
    bench.peer.abort()
    with pytest.raises(ConnectionClosed) as caught:
        bench.outbound.send(TEXT, b"x")
    assert isinstance(caught.value.__cause__, BrokenPipeError)
    bench.turn()
    assert bench.sender.log == ["write failed"]


def test_what_the_connection_failed_with_counts_more(make: MakeBench) -> None:
    bench = make()
    bench.end.error = ValueError("first")
    bench.transport.send_error = BrokenPipeError("gone")
    with pytest.raises(ConnectionClosed) as caught:
        bench.outbound.send(TEXT, b"x")
    assert caught.value.__cause__ is bench.end.error


def test_a_flush_that_raises_is_the_connections_end(make: MakeBench) -> None:
    bench = make()
    error = RuntimeError("broken")

    def broken(data: bytes | memoryview) -> int:
        raise error

    bench.transport.room = 0
    bench.outbound.send(TEXT, b"x")
    bench.transport.send = broken  # type: ignore[method-assign]
    bench.turn()
    assert bench.sender.log == [error]


# -- The end ---------------------------------------------------------


def test_what_was_released_does_nothing_more(make: MakeBench) -> None:
    bench = make()
    bench.transport.room = 0
    bench.outbound.send(TEXT, b"never")
    bench.give_up()
    assert bench.outbound.size == 0
    assert not bench.outbound.open
    bench.flush()
    bench.outbound.on_loop_error(ValueError("late"))
    bench.outbound.fall_behind()
    bench.turn()
    assert bench.sender.log == []
    with pytest.raises(ConnectionClosed):
        bench.outbound.send(TEXT, b"late")
    assert share(TEXT, b"late", [bench.outbound]) == 0


def test_what_was_abandoned_needs_no_lock_of_the_parents(make: MakeBench) -> None:
    bench = make()
    # By threads that do not exist in the child.
    bench.outbound.lock.acquire()
    bench.outbound._encoding.acquire()
    bench.outbound.abandon()
    assert not bench.outbound.lock.locked()
    assert not bench.outbound._encoding.locked()
    for opcode in (TEXT, PING):
        with pytest.raises(ConnectionClosed):
            bench.outbound.send(opcode, b"never")
    with bench.outbound.lock:
        assert bench.outbound.waiting().wait_for(lambda: True)


# -- Waiting for room ------------------------------------------------

MESSAGES = [
    pytest.param(TEXT, b"waited", True, id="plain"),
    pytest.param(TEXT, b"waited", False, id="fragment"),
    pytest.param(BINARY, b"w" * SMALL, True, id="parts"),
    pytest.param(PING, b"waited", True, id="ping"),
]


def fill(bench: Bench) -> None:
    """Queue a byte more than a send buffer of 1000 bytes."""
    bench.transport.room = 0
    bench.outbound.send(BINARY, bytes(1001 - 4))
    assert bench.outbound.size == 1001


@pytest.mark.parametrize(("opcode", "payload", "final"), MESSAGES)
def test_a_sender_waits_for_room(make: MakeBench, opcode: int, payload: bytes, final: bool) -> None:
    bench = make(send_buffer_size=1000, send_timeout=None)
    condition = TellingCondition(bench.outbound)
    fill(bench)
    sender = Background(bench.outbound.send, opcode, payload, final)
    condition.waiting.get(timeout=HANG)
    for room, woken in ((750, False), (1, True)):
        bench.transport.room = room
        bench.flush()
        assert bool(condition._waiters) is not woken  # type: ignore[attr-defined]
    assert sender.result() is None
    bench.transport.room = None
    bench.flush()
    whole, *rest = frames(bench.wire())
    assert whole == Frame(BINARY, bytes(997))
    assert [(frame.opcode, frame.payload, frame.fin) for frame in rest] == [
        (opcode, payload, final)
    ]


@pytest.mark.parametrize(("opcode", "payload", "final"), MESSAGES)
def test_a_sender_whose_time_runs_out(
    make: MakeBench, opcode: int, payload: bytes, final: bool
) -> None:
    bench = make(send_buffer_size=1000, send_timeout=HANG)
    condition = TellingCondition(bench.outbound)
    fill(bench)
    sender = Background(bench.outbound.send, opcode, payload, final)
    condition.waiting.get(timeout=HANG)
    bench.now += HANG
    with bench.outbound.lock:
        bench.outbound.notify()
    error = sender.result()
    assert isinstance(error, SendTimeout)
    assert "1001 bytes" in str(error)
    bench.transport.room = None
    bench.flush()
    assert bench.got() == [Event(BINARY, bytes(997))]
    bench.outbound.send(TEXT, b"nothing is midway")
    assert bench.got() == [Event(TEXT, "nothing is midway")]


@pytest.mark.parametrize(("opcode", "payload", "final"), MESSAGES)
def test_a_waiting_sender_is_woken_by_the_end(
    make: MakeBench, opcode: int, payload: bytes, final: bool
) -> None:
    bench = make(send_buffer_size=1000, send_timeout=None)
    condition = TellingCondition(bench.outbound)
    fill(bench)
    sender = Background(bench.outbound.send, opcode, payload, final)
    condition.waiting.get(timeout=HANG)
    bench.give_up()
    assert isinstance(sender.result(), ConnectionClosed)


def test_a_waiting_sender_is_woken_by_a_failure(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000, send_timeout=None)
    condition = TellingCondition(bench.outbound)
    fill(bench)
    sender = Background(bench.outbound.send, TEXT, b"never")
    condition.waiting.get(timeout=HANG)
    bench.transport.send_error = BrokenPipeError("gone")
    bench.flush()
    error = sender.result()
    assert isinstance(error, ConnectionClosed)
    assert error.__cause__ is bench.transport.send_error


@pytest.mark.parametrize("size", [5000, SMALL], ids=["plain", "parts"])
def test_of_two_who_waited_the_second_waits_on_with_the_time_that_is_left(
    make: MakeBench, size: int
) -> None:
    bench = make(send_buffer_size=1000, send_timeout=HANG)
    condition = TellingCondition(bench.outbound)
    fill(bench)
    senders = [Background(bench.outbound.send, BINARY, bytes([n]) * size) for n in range(2)]
    for _ in senders:
        condition.waiting.get(timeout=HANG)
    bench.now += 10.0
    bench.transport.room = 1001
    with bench.outbound._encoding:
        bench.flush()
        for _ in senders:
            condition.woken.get(timeout=HANG)
        with bench.outbound.lock:
            pass  # both have found room, and neither has used it
    # One of them was quicker, and has filled the buffer again.
    condition.waiting.get(timeout=HANG)
    assert bench.outbound.size == size + 4
    bench.now += HANG - 10.0
    with bench.outbound.lock:
        bench.outbound.notify()
    outcomes = [sender.result() for sender in senders]
    assert sorted(map(type, outcomes), key=str) == [type(None), SendTimeout]
    bench.transport.room = None
    bench.flush()
    quicker = bytes([outcomes.index(None)])
    assert bench.got() == [Event(BINARY, bytes(997)), Event(BINARY, quicker * size)]


class NeverWait(threading.Condition):
    """Fails the test when someone waits."""

    def wait(self, timeout: float | None = None) -> bool:
        raise AssertionError(f"waits for {timeout} s")


@pytest.mark.parametrize(("opcode", "payload", "final"), MESSAGES)
def test_the_io_thread_does_not_wait(
    make: MakeBench, opcode: int, payload: bytes, final: bool
) -> None:
    bench = make(send_buffer_size=1000, send_timeout=30.0)
    fill(bench)
    bench.loop.thread = threading.current_thread()
    bench.outbound._condition = NeverWait(bench.outbound.lock)
    with pytest.raises(SendTimeout):
        bench.outbound.send(opcode, payload, final)


def test_there_is_one_condition(make: MakeBench) -> None:
    bench = make()
    with bench.outbound.lock:
        bench.outbound.notify()  # nobody waits
        condition = bench.outbound.waiting()
        assert bench.outbound.waiting() is condition
        bench.outbound.notify()


# -- Signals -----------------------------------------------------------------


class Interrupt(BaseException):
    """What a signal handler raises."""


class RaisingLock:
    """A lock; once it is let go for the first time a signal handler raises."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._armed = True

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()
        if self._armed:
            self._armed = False
            raise Interrupt


@pytest.mark.parametrize("lock", ["lock", "_encoding"])
@pytest.mark.parametrize("size", [5, SMALL])
def test_what_an_interrupted_send_has_queued_is_written(
    make: MakeBench, size: int, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    bench.transport.room = 1
    if lock == "_encoding" and size < SMALL:
        bench.outbound._plain_below = 0
    wakes: list[str] = []
    monkeypatch.setattr(bench.loop, "_wake", lambda: wakes.append("wake"))
    setattr(bench.outbound, lock, RaisingLock(getattr(bench.outbound, lock)))
    with pytest.raises(Interrupt):
        bench.outbound.send(BINARY, bytes(size))
    assert list(bench.loop.dirty) == [bench.outbound]
    assert wakes
