"""One message for many; the test is the I/O thread, and logs are the connections."""

from __future__ import annotations

import itertools
import random
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncws.engine import sharing
from syncws.engine.loop import IOLoop
from syncws.engine.outbound import Outbound
from syncws.engine.sharing import DROP_NEWEST, DROP_OLDEST, Sharing, share
from syncws.errors import Close, ConnectionClosed, SendTimeout
from syncws.protocol.encoder import compressed_alone
from syncws.protocol.events import BINARY, PING, PONG, TEXT, Event
from tests.scripted import HANG, WAYS, Background, TellingCondition
from tests.support import Frame, Gate
from tests.test_engine_outbound import SMALL, Bench, MakeBench, fill, frames, gate_encoder

ROLES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


@pytest.fixture(params=WAYS[1:])
def make(request: pytest.FixtureRequest) -> Iterator[MakeBench]:
    benches: list[Bench] = []

    def make_bench(**options: Any) -> Bench:
        benches.append(Bench(request.param, **options))
        return benches[-1]

    yield make_bench
    for bench in benches:
        bench.close()


# -- Shared messages -------------------------------------------------


@ROLES
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 5, 126, SMALL, 70_000])
def test_a_message_for_many(make: MakeBench, client: bool, opcode: int, size: int) -> None:
    benches = [make(client=client) for _ in range(3)]
    payload = b"x" * size
    assert share(opcode, payload, [bench.outbound for bench in benches]) == 3
    keys = set()
    for bench in benches:
        # Only queued: who shares does not write.
        assert bench.transport.sends == 0
        assert list(bench.loop.dirty) == [bench.outbound]
        bench.turn()
        wire = bench.wire()
        assert frames(wire) == [Frame(opcode, payload, masked=client)]
        if client:
            start = 2 if size < 126 else 4 if size < 65_536 else 10
            keys.add(wire[start : start + 4])
    assert len(keys) == (3 if client else 0)


def test_a_message_for_nobody() -> None:
    assert share(TEXT, b"x", []) == 0


def test_servers_and_clients_together(make: MakeBench) -> None:
    benches = [make(client=client) for client in (True, False, True)]
    assert share(TEXT, b"x", (bench.outbound for bench in benches)) == 3
    for bench in benches:
        bench.turn()
        assert bench.got() == [Event(TEXT, "x")]


def test_servers_have_one_copy(make: MakeBench) -> None:
    benches = [make() for _ in range(3)]
    share(BINARY, bytes(100_000), [bench.outbound for bench in benches])
    chunks = [bench.outbound._out.chunks for bench in benches]
    assert [len(queued) for queued in chunks] == [1, 1, 1]
    assert len({id(queued[0]) for queued in chunks}) == 1


def test_shared_messages_keep_their_place_among_the_others(make: MakeBench) -> None:
    bench = make()
    bench.outbound.send(TEXT, b"1")
    share(TEXT, b"2", [bench.outbound])
    bench.outbound.send(TEXT, b"3")
    share(BINARY, b"4", [bench.outbound])
    bench.outbound.send(BINARY, b"5" * SMALL)
    bench.outbound.send(PING, b"6")
    assert list(bench.loop.dirty) == [bench.outbound]
    bench.turn()
    assert bench.got() == [
        Event(TEXT, "1"),
        Event(TEXT, "2"),
        Event(TEXT, "3"),
        Event(BINARY, b"4"),
        Event(BINARY, b"5" * SMALL),
        Event(PING, b"6"),
    ]


def test_a_member_that_waits_for_its_socket_is_not_flushed_again(make: MakeBench) -> None:
    bench = make()
    bench.transport.room = 1
    bench.outbound.send(TEXT, b"1")
    bench.turn()
    assert bench.sender.log == [("flushed", False)]
    assert share(TEXT, b"2", [bench.outbound]) == 1
    assert not bench.loop.dirty
    bench.transport.room = None
    bench.flush()
    assert bench.got() == [Event(TEXT, "1"), Event(TEXT, "2")]


def test_a_closed_member_is_left_out(make: MakeBench) -> None:
    closed, good = make(), make()
    closed.outbound.open = False
    assert share(TEXT, b"x", [closed.outbound, good.outbound]) == 1
    for bench in (closed, good):
        bench.turn()
    assert closed.got() == []
    assert closed.sender.log == []
    assert good.got() == [Event(TEXT, "x")]


def test_a_slow_member_falls_behind_and_the_others_do_not(make: MakeBench) -> None:
    slow, good = make(send_buffer_size=1000), make(send_buffer_size=1000)
    fill(slow)
    assert share(TEXT, b"x", [slow.outbound, good.outbound]) == 1
    assert slow.outbound.size == 1001
    assert slow.sender.log == []  # the I/O thread tells it
    slow.loop.dirty.clear()
    slow.turn()
    assert slow.sender.log == [("fell behind", 1001)]
    good.turn()
    assert good.got() == [Event(TEXT, "x")]
    assert good.sender.log == []


def test_a_member_with_exactly_its_buffer_full_still_takes_one(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    bench.transport.room = 0
    bench.outbound.send(BINARY, bytes(1000 - 4))
    assert share(BINARY, bytes(5000), [bench.outbound]) == 1
    assert share(BINARY, b"x", [bench.outbound]) == 0


def test_a_member_midway_gets_it_behind_the_message(make: MakeBench) -> None:
    bench = make()
    bench.outbound.send(TEXT, b"1", final=False)
    assert share(BINARY, b"shared", [bench.outbound]) == 1
    assert share(TEXT, b"shared too", [bench.outbound]) == 1
    assert not bench.loop.dirty
    bench.outbound.send(PING, b"2")
    bench.outbound.send(TEXT, b"3", final=False)
    bench.outbound.send(TEXT, b"4")
    bench.outbound.send(TEXT, b"5")
    bench.turn()
    assert [(f.opcode, f.payload, f.fin) for f in frames(bench.wire())] == [
        (TEXT, b"1", False),
        (PING, b"2", True),
        (0, b"3", False),
        (0, b"4", True),
        (BINARY, b"shared", True),
        (TEXT, b"shared too", True),
        (TEXT, b"5", True),
    ]
    # Once, not behind every fragmented message.
    bench.outbound.send(TEXT, b"6", final=False)
    bench.outbound.send(TEXT, b"7")
    assert [frame.payload for frame in frames(bench.wire())] == [b"6", b"7"]


def test_what_waits_for_the_last_fragment_has_a_bound(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    bench.outbound.send(TEXT, b"1", final=False)
    taken = [share(BINARY, bytes(496), [bench.outbound]) for _ in range(4)]
    assert taken == [1, 1, 1, 0]
    bench.turn()
    assert bench.sender.log == ["holds back", ("fell behind", 0)]


def test_what_waits_for_the_last_fragment_is_written_when_there_is_room(make: MakeBench) -> None:
    bench = make()
    bench.outbound.send(TEXT, b"1", final=False)
    share(BINARY, b"shared", [bench.outbound])
    bench.transport.room = 1
    bench.outbound.send(TEXT, b"2")
    assert list(bench.loop.dirty) == [bench.outbound]
    bench.transport.room = None
    bench.turn()
    assert [frame.payload for frame in frames(bench.wire())] == [b"1", b"2", b"shared"]


def test_what_waits_for_the_last_fragment_goes_with_the_connection(make: MakeBench) -> None:
    bench = make()
    bench.outbound.send(TEXT, b"1", final=False)
    share(BINARY, b"shared", [bench.outbound])
    bench.give_up()
    with pytest.raises(ConnectionClosed):
        bench.outbound.send(TEXT, b"2")
    assert [frame.payload for frame in frames(bench.wire())] == [b"1"]


def test_a_member_whose_socket_fails(make: MakeBench) -> None:
    broken, good = make(), make()
    broken.transport.send_error = BrokenPipeError("gone")
    assert share(TEXT, b"x", [broken.outbound, good.outbound]) == 2
    for bench in (broken, good):
        bench.turn()
    assert broken.sender.log == ["write failed"]
    assert broken.outbound.size == 0
    assert good.got() == [Event(TEXT, "x")]


def test_each_loop_is_told_once(make: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = make(), make()
    benches = [one, make(loop=one.loop), other, make(loop=one.loop)]
    told: list[tuple[IOLoop, list[Outbound]]] = []
    for loop in (one.loop, other.loop):
        monkeypatch.setattr(
            loop,
            "flush_all_soon",
            lambda outbounds, loop=loop: told.append((loop, list(outbounds))),
        )
    share(TEXT, b"x", [bench.outbound for bench in benches])
    assert told == [
        (one.loop, [benches[0].outbound, benches[1].outbound, benches[3].outbound]),
        (other.loop, [other.outbound]),
    ]


def test_a_shared_message_is_no_idleness_for_those_who_took_it(make: MakeBench) -> None:
    good, closed = make(idle_timeout=10.0), make(idle_timeout=10.0)
    closed.outbound.open = False
    for bench in (good, closed):
        bench.now += 5.0
    share(TEXT, b"x", [good.outbound, closed.outbound])
    assert good.watch.last_message == good.now
    assert closed.watch.last_message == closed.now - 5.0


def test_sharing_does_not_wait_for_a_sender_that_encodes(make: MakeBench) -> None:
    bench = make()
    with Gate() as gate:
        gate_encoder(bench, gate)
        sender = Background(bench.outbound.send, BINARY, bytes(SMALL))
        gate.reached()
        assert share(TEXT, b"x", [bench.outbound]) == 1
        bench.turn()
        assert bench.got() == [Event(TEXT, "x")]
    assert sender.result() is None
    assert bench.got() == [Event(BINARY, bytes(SMALL))]


def test_many_threads_share_and_send(make: MakeBench) -> None:
    benches = [make(send_buffer_size=10_000_000) for _ in range(3)]
    outbounds = [bench.outbound for bench in benches]
    begin = threading.Barrier(4)

    def share_all(kind: int) -> int:
        begin.wait(HANG)
        return sum(share(BINARY, bytes([kind, n]) * 20, outbounds) for n in range(100))

    def send_all(kind: int) -> None:
        begin.wait(HANG)
        for n, bench in itertools.product(range(100), benches):
            if n % 10 == 0:
                bench.outbound.send(TEXT, b"cut ", final=False)
                bench.outbound.send(TEXT, b"in two")
            bench.outbound.send(BINARY, bytes([kind, n]) * 20)

    threads = [Background(share_all, 1), Background(share_all, 2), Background(send_all, 3)]
    begin.wait(HANG)
    got: list[list[Event]] = [[] for _ in benches]
    while any(len(events) < 310 for events in got):
        for bench, events in zip(benches, got, strict=True):
            bench.turn()
            bench.flush()
            events.extend(bench.got())
    assert [thread.result() for thread in threads] == [300, 300, None]
    for events in got:
        assert [event.data for event in events if event.opcode == TEXT] == ["cut in two"] * 10
        for kind in (1, 2, 3):
            numbers = [e.data[1] for e in events if e.opcode == BINARY and e.data[0] == kind]
            assert numbers == list(range(100))


def test_a_signal_amid_sharing_leaves_nobody_unwritten(make: MakeBench) -> None:
    """A handler that raises comes to light wherever it likes; here at a member's lock."""
    benches = [make() for _ in range(3)]

    class Interrupt(BaseException):
        pass

    class Interrupting:
        def __enter__(self) -> None:
            raise Interrupt

        def __exit__(self, *exc: object) -> None: ...

    lock = benches[1].outbound.lock
    benches[1].outbound.lock = Interrupting()  # type: ignore[assignment]
    with pytest.raises(Interrupt):
        share(TEXT, b"x", [bench.outbound for bench in benches])
    benches[1].outbound.lock = lock
    for bench in benches:
        bench.turn()
    assert [bench.got() for bench in benches] == [[Event(TEXT, "x")], [], []]
    for bench in benches:
        bench.outbound.send(TEXT, b"y")
        bench.turn()
        assert bench.got() == [Event(TEXT, "y")]


@pytest.mark.parametrize("compression", [False, True])
def test_a_signal_amid_a_members_queue_is_that_members_end(
    make: MakeBench, compression: bool
) -> None:
    good, cut = make(compression=compression), make(compression=compression)

    class Interrupt(BaseException):
        pass

    class Chunks(list[Any]):
        def append(self, chunk: Any) -> None:
            super().append(chunk)
            raise Interrupt

    cut.outbound._out.chunks = Chunks()
    with pytest.raises(Interrupt):
        share(TEXT, b"x" * 1000, [good.outbound, cut.outbound])
    assert not cut.outbound.open
    for bench in (good, cut):
        bench.turn()
    assert good.got() == [Event(TEXT, "x" * 1000)]
    assert set(cut.sender.log) == {"write failed"}


# -- Compressed once -------------------------------------------------


class Read(NamedTuple):
    """A message as an independent peer reads it."""

    opcode: int
    payload: bytes
    compressed: bool


class Peer:
    """What the peer of a connection with permessage-deflate does, by zlib alone. RFC 7692."""

    def __init__(self, window_bits: int = 15, no_context_takeover: bool = False) -> None:
        self._bits = window_bits
        self._afresh = no_context_takeover
        self._inflating = zlib.decompressobj(-window_bits)
        self._under_way: list[Frame] = []

    def read(self, wire: bytes) -> list[Read]:
        """Return the messages and control frames; a message comes with its last fragment."""
        found = []
        for frame in frames(wire):
            if frame.opcode > BINARY:
                found.append(Read(frame.opcode, frame.payload, False))
                continue
            assert bool(self._under_way) == (frame.opcode == 0)
            self._under_way.append(frame)
            if frame.fin:
                found.append(self._message())
        return found

    def _message(self) -> Read:
        parts, self._under_way = self._under_way, []
        payload = b"".join(frame.payload for frame in parts)
        compressed = parts[0].rsv == 4
        if compressed:
            if self._afresh:
                self._inflating = zlib.decompressobj(-self._bits)
            payload = self._inflating.decompress(payload + b"\x00\x00\xff\xff")
            assert not self._inflating.eof
        return Read(parts[0].opcode, payload, compressed)


def payloads(bench: Bench, peer: Peer | None = None) -> list[bytes]:
    return [one.payload for one in (peer or Peer()).read(bench.wire())]


LONG = b"what all of them say, and again what all of them say; " * 20


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int, int]]:
    """How often a message was compressed, by what was agreed on."""
    counted: Counter[tuple[int, int, int]] = Counter()

    def counting(payload: bytes, settings: tuple[int, int, int]) -> bytes:
        counted[settings] += 1
        return compressed_alone(payload, settings)

    monkeypatch.setattr(sharing, "compressed_alone", counting)
    return counted


def test_it_is_compressed_once_for_all_who_agreed_on_the_same(
    make: MakeBench, compressed: Counter[tuple[int, int, int]]
) -> None:
    alike = [make(compression=True, window_bits=15) for _ in range(3)]
    other = [make(compression=True, window_bits=9, no_context_takeover=True) for _ in range(2)]
    plain = [make() for _ in range(2)]
    benches = [alike[0], plain[0], other[0], alike[1], other[1], plain[1], alike[2]]
    assert share(TEXT, LONG, [bench.outbound for bench in benches]) == 7
    assert compressed == {(6, 15, 8): 1, (6, 9, 8): 1}
    for group in (alike, other, plain):
        assert len({id(bench.outbound._out.chunks[0]) for bench in group}) == 1
    for bench in benches:
        size = bench.outbound.size
        bench.turn()
        (got,) = Peer(9 if bench in other else 15).read(bench.wire())
        assert got == (TEXT, LONG, bench not in plain)
        assert (size < len(LONG) / 5) == got.compressed


def test_clients_that_compress_mask_it_each_with_a_key_of_its_own(
    make: MakeBench, compressed: Counter[tuple[int, int, int]]
) -> None:
    benches = [make(client=True, compression=True) for _ in range(3)]
    assert share(BINARY, LONG, [bench.outbound for bench in benches]) == 3
    assert compressed == {(6, 15, 8): 1}
    wires = []
    for bench in benches:
        bench.turn()
        wires.append(bench.wire())
        assert Peer().read(wires[-1]) == [(BINARY, LONG, True)]
    assert len(set(wires)) == 3


@ROLES
def test_a_group_may_leave_it(
    make: MakeBench, client: bool, compressed: Counter[tuple[int, int, int]]
) -> None:
    """What a member is sent alone still refers to what it was sent alone before."""
    bench, peer = make(client=client, compression=True), Peer()
    sizes = []
    for _ in range(2):
        bench.outbound.send(TEXT, LONG)
        bench.turn()
        sizes.append(len(wire := bench.wire()))
        assert peer.read(wire) == [(TEXT, LONG, True)]
        assert Sharing(compression=False).send(TEXT, LONG, [bench.outbound], {}) == 1
        bench.turn()
        assert peer.read(bench.wire()) == [(TEXT, LONG, False)]
    assert sizes[1] < sizes[0]
    assert not compressed


@ROLES
@pytest.mark.parametrize(("size", "expected"), [(99, False), (100, True)])
def test_short_messages_stay_plain(
    make: MakeBench, client: bool, size: int, expected: bool
) -> None:
    bench = make(client=client, compression=True, threshold=100)
    share(TEXT, b"x" * size, [bench.outbound])
    bench.turn()
    assert Peer().read(bench.wire()) == [(TEXT, b"x" * size, expected)]


def test_what_compressing_makes_no_shorter_stays_plain(
    make: MakeBench, compressed: Counter[tuple[int, int, int]]
) -> None:
    benches = [make(compression=True) for _ in range(2)]
    noise = bytes(range(256))
    share(BINARY, noise, [bench.outbound for bench in benches])
    share(BINARY, b"", [bench.outbound for bench in benches])
    assert compressed == {(6, 15, 8): 2}
    for bench in benches:
        bench.turn()
        assert Peer().read(bench.wire()) == [(BINARY, noise, False), (BINARY, b"", False)]


def test_after_it_a_members_own_messages_begin_afresh(make: MakeBench) -> None:
    bench = make(compression=True)
    bench.outbound.send(TEXT, LONG)
    first = len(bench.wire())
    bench.outbound.send(TEXT, LONG)
    assert len(bench.wire()) < first / 2  # it refers to the one before
    share(TEXT, LONG, [bench.outbound])
    bench.turn()
    bench.wire()
    bench.outbound.send(TEXT, LONG)
    own = bench.wire()
    assert len(own) == first
    assert Peer().read(own) == [(TEXT, LONG, True)]  # which knows of none before
    bench.outbound.send(TEXT, LONG)
    assert len(bench.wire()) < first / 2


@ROLES
def test_who_is_compressing_gets_the_plain_one(make: MakeBench, client: bool) -> None:
    bench = make(client=client, compression=True)
    peer = Peer()
    bench.outbound.send(TEXT, LONG)
    assert payloads(bench, peer) == [LONG]
    with Gate() as gate:
        gate_encoder(bench, gate)
        sender = Background(bench.outbound.send, TEXT, LONG + b"1")
        gate.reached()
        assert share(TEXT, LONG + b"2", [bench.outbound]) == 1
        bench.turn()
        assert peer.read(bench.wire()) == [(TEXT, LONG + b"2", False)]
    assert sender.result() is None
    own = bench.wire()
    assert peer.read(own) == [(TEXT, LONG + b"1", True)]
    assert len(own) < 40  # for it refers to the first
    share(TEXT, LONG + b"3", [bench.outbound])
    bench.turn()
    assert peer.read(bench.wire()) == [(TEXT, LONG + b"3", True)]


def test_who_begins_to_compress_meanwhile_gets_the_plain_one(
    make: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender comes between the look at the member and its lock."""
    bench = make(compression=True)
    peer = Peer()
    bench.outbound.send(TEXT, LONG)
    with Gate() as gate:
        gate_encoder(bench, gate)
        senders = []

        def begin(payload: bytes, settings: tuple[int, int, int]) -> bytes:
            senders.append(Background(bench.outbound.send, TEXT, LONG + b"own"))
            gate.reached()
            return compressed_alone(payload, settings)

        monkeypatch.setattr(sharing, "compressed_alone", begin)
        assert share(TEXT, LONG, [bench.outbound]) == 1
    assert senders[0].result() is None
    bench.turn()
    assert [one.compressed for one in peer.read(bench.wire())] == [True, False, True]


def test_a_refused_fragment_compresses_nothing_any_more(make: MakeBench) -> None:
    bench = make(compression=True)
    bench.outbound.send(TEXT, LONG, final=False)
    with pytest.raises(Exception, match="a fragmented text message is under way"):
        bench.outbound.send(BINARY, LONG)
    share(TEXT, LONG, [bench.outbound])
    bench.outbound.send(TEXT, b"end")
    bench.turn()
    assert Peer().read(bench.wire()) == [(TEXT, LONG + b"end", True), (TEXT, LONG, True)]


def test_held_back_it_is_compressed_and_what_follows_begins_afresh(make: MakeBench) -> None:
    bench = make(compression=True)
    bench.outbound.send(TEXT, LONG, final=False)
    share(TEXT, LONG + b"1", [bench.outbound])
    bench.outbound.send(TEXT, LONG, final=False)
    share(TEXT, b"", [bench.outbound])
    bench.outbound.send(TEXT, b"end")
    bench.outbound.send(TEXT, LONG + b"2")
    bench.turn()
    assert Peer().read(bench.wire()) == [
        (TEXT, LONG + LONG + b"end", True),
        (TEXT, LONG + b"1", True),
        (TEXT, b"", False),
        (TEXT, LONG + b"2", True),
    ]


# Messages that refer to each other, at distances shorter and longer than the windows.
TEXTS = [
    bytes(random.Random(seed).choices(b"abcdefgh", k=size))
    for seed, size in enumerate((300, 400, 511, 513, 700, 40))
]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["own", "all", "fragment", "end"]), st.integers(0, 5)),
        st.tuples(st.sampled_from(["ping", "rest", "turn"]), st.just(0)),
        st.tuples(st.just("room"), st.sampled_from([0, 1, 7, 100, 600])),
    ),
    max_size=40,
)


class Interleaving:
    """One member with messages of its own and of a group, and what has to come of them."""

    def __init__(self, bench: Bench, policy: str) -> None:
        self.bench = bench
        self.sharing = Sharing(policy)
        self.dropped: dict[Outbound, int] = {}
        self.number = 0
        self.own: list[bytes] = []  # what was sent alone
        self.all: list[bytes] = []  # what was sent to all
        self.refused = 0
        self._begun = b""

    def payload(self, which: int) -> bytes:
        self.number += 1
        return b"%04d " % self.number + TEXTS[which]

    def step(self, what: str, which: int) -> None:
        outbound = self.bench.outbound
        crowded = outbound.size > outbound._high  # then a send would wait
        if what == "turn":
            self.bench.transport.room = None
            self.bench.turn()
        elif what == "room":
            self.bench.transport.room = which
        elif what == "rest":
            outbound.rest()
        elif what == "all":
            payload = self.payload(which)
            self.all.append(payload)
            self.refused += not self.sharing.send(BINARY, payload, [outbound], self.dropped)
        elif not crowded:
            self.send(what, which)

    def send(self, what: str, which: int) -> None:
        send = self.bench.outbound.send
        if what == "ping":
            send(PING, b"ping")
            return
        payload = self.payload(which)
        final = what != "fragment"
        send(TEXT, payload, final)
        self._begun += payload
        if final:
            self.own.append(self._begun)
            self._begun = b""

    def finish(self) -> None:
        if self._begun:
            self.step("turn", 0)
            self.send("end", 0)
        self.step("turn", 0)


@pytest.mark.parametrize("policy", sharing.POLICIES)
@pytest.mark.parametrize("afresh", [False, True], ids=["takeover", "afresh"])
@pytest.mark.parametrize("bits", [9, 15])
@ROLES
@given(steps=STEPS)
def test_whatever_the_order_everything_is_inflated(
    client: bool, bits: int, afresh: bool, policy: str, steps: list[tuple[str, int]]
) -> None:
    limit = 1 << 20 if policy == sharing.CLOSE else 1500
    bench = Bench(
        WAYS[-1],
        client=client,
        compression=True,
        window_bits=bits,
        no_context_takeover=afresh,
        threshold=100,
        send_buffer_size=limit,
    )
    try:
        run = Interleaving(bench, policy)
        for what, which in steps:
            run.step(what, which)
        run.finish()
        got = Peer(bits, afresh).read(bench.wire())
    finally:
        bench.close()
    shared = [one.payload for one in got if one.opcode == BINARY]
    assert [one.payload for one in got if one.opcode == TEXT] == run.own
    assert len(shared) + run.dropped.get(bench.outbound, 0) == len(run.all)
    assert [one for one in run.all if one in shared] == shared
    if policy != DROP_OLDEST:
        assert run.dropped.get(bench.outbound, 0) == run.refused


# -- Who has too much to read still ----------------------------------


class Room:
    """A group of some members, by a policy."""

    def __init__(self, policy: str, *benches: Bench) -> None:
        self.sharing = Sharing(policy)
        self.benches = benches
        self.dropped: dict[Outbound, int] = {}

    def send(self, payload: bytes, opcode: int = TEXT) -> int:
        outbounds = [bench.outbound for bench in self.benches]
        return self.sharing.send(opcode, payload, outbounds, self.dropped)

    def dropped_of(self, bench: Bench) -> int:
        return self.dropped.get(bench.outbound, 0)


def sleep(bench: Bench) -> None:
    """The peer reads nothing."""
    bench.transport.room = 0


def wake(bench: Bench) -> list[bytes]:
    """The peer reads everything."""
    assert bench.outbound.size == sum(map(len, bench.outbound._out.chunks))
    bench.transport.room = None
    bench.turn()
    bench.flush()
    assert bench.outbound.size == 0
    return [frame.payload for frame in frames(bench.wire())]


def numbered(number: int, size: int = 98) -> bytes:
    """A message whose frame has two bytes more."""
    return b"%d" % number + b"." * (size - len(str(number)))


def names(messages: list[bytes]) -> list[int]:
    return [int(message.rstrip(b".")) for message in messages]


@ROLES
def test_drop_newest_keeps_what_waits(make: MakeBench, client: bool) -> None:
    size = 94 if client else 98
    slow = make(client=client, send_buffer_size=1000)
    good = make(client=client, send_buffer_size=1000)
    room = Room(DROP_NEWEST, slow, good)
    sleep(slow)
    taken = []
    for number in range(20):
        taken.append(room.send(numbered(number, size)))
        good.turn()
    assert taken == [2] * 11 + [1] * 9
    assert room.dropped == {slow.outbound: 9}
    assert slow.outbound.size == 1100
    assert names(wake(slow)) == list(range(11))
    assert names(wake(good)) == list(range(20))
    assert room.send(numbered(20, size)) == 2
    assert names(wake(slow)) == [20]
    assert slow.sender.log == []
    assert slow.outbound.open


@ROLES
def test_drop_oldest_makes_room(make: MakeBench, client: bool) -> None:
    size = 94 if client else 98
    slow = make(client=client, send_buffer_size=1000)
    good = make(client=client, send_buffer_size=1000)
    room = Room(DROP_OLDEST, slow, good)
    sleep(slow)
    for number in range(20):
        assert room.send(numbered(number, size)) == 2
        good.turn()
        assert slow.outbound.size <= 1100
    assert room.dropped == {slow.outbound: 9}
    assert names(wake(slow)) == list(range(9, 20))
    assert names(wake(good)) == list(range(20))
    assert slow.outbound.open


def test_a_large_message_makes_several_go(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    room = Room(DROP_OLDEST, bench)
    sleep(bench)
    room.send(b"x" * 98)
    room.send(b"y" * 996)
    assert bench.outbound.size == 1100
    # No more are left than fit, or than there were: one of the two has to go, or both.
    room.send(numbered(1))
    assert (room.dropped_of(bench), bench.outbound.size) == (1, 1100)
    room.send(numbered(2, 1996))
    assert (room.dropped_of(bench), bench.outbound.size) == (2, 2100)
    assert names(wake(bench)) == [1, 2]


def test_what_has_begun_to_be_written_is_not_dropped(make: MakeBench) -> None:
    bench = make(send_buffer_size=300)
    room = Room(DROP_OLDEST, bench)
    sleep(bench)
    for number in range(4):
        room.send(numbered(number))
    bench.transport.room = 1
    bench.turn()
    room.send(numbered(4))
    assert room.dropped_of(bench) == 1
    assert names(wake(bench)) == [0, 2, 3, 4]


def test_tls_may_have_encrypted_the_first(make: MakeBench) -> None:
    """It says that it took nothing, and cannot take it back: that is its record under way."""
    bench = make(send_buffer_size=300, secure=True)
    room = Room(DROP_OLDEST, bench)
    sleep(bench)
    for number in range(4):
        room.send(numbered(number))
    room.send(numbered(4))
    assert names(wake(bench)) == [0, 2, 3, 4]
    sleep(bench)
    room.send(numbered(5, 998))
    room.send(numbered(6))
    assert room.dropped_of(bench) == 2
    assert names(wake(bench)) == [5]


@ROLES
def test_nothing_else_is_dropped(make: MakeBench, client: bool) -> None:
    bench = make(client=client, send_buffer_size=1000)
    one, other = Room(DROP_OLDEST, bench), Room(DROP_OLDEST, bench)
    closing = Room(sharing.CLOSE, bench)
    sleep(bench)
    bench.outbound.send(BINARY, numbered(1))
    one.send(numbered(2))
    other.send(numbered(3))
    closing.send(numbered(4))
    bench.outbound.send(PING, numbered(5))
    bench.outbound.send(PONG, numbered(6))
    one.send(numbered(7))
    bench.outbound.send(BINARY, numbered(8, 800))
    assert bench.outbound.size > 1000
    for number in range(9, 12):
        assert one.send(numbered(number)) == 1
    assert (one.dropped_of(bench), other.dropped_of(bench)) == (3, 0)
    with bench.outbound.lock:
        bench.outbound.send_close(Close(1000))
    bench.outbound.open = False
    assert one.send(numbered(99)) == 0
    assert one.dropped_of(bench) == 3  # it is being closed, not slow
    assert names(wake(bench)[:-1]) == [1, 3, 4, 5, 6, 8, 10, 11]


def test_where_it_has_nothing_to_drop_the_newest_goes(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    room = Room(DROP_OLDEST, bench)
    sleep(bench)
    bench.outbound.send(BINARY, numbered(1, 2000))
    assert [room.send(numbered(number)) for number in (2, 3)] == [0, 0]
    assert room.dropped_of(bench) == 2
    assert names(wake(bench)) == [1]


def test_nothing_is_dropped_in_vain(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    room = Room(DROP_OLDEST, bench)
    sleep(bench)
    room.send(numbered(1))
    bench.outbound.send(BINARY, numbered(2, 2000))
    assert room.send(numbered(3, 500)) == 0  # for which the first would not be enough
    assert room.send(numbered(4)) == 1  # and for this it is
    assert room.dropped_of(bench) == 2
    assert names(wake(bench)) == [2, 4]


def test_compressed_ones_can_be_dropped(make: MakeBench) -> None:
    bench = make(compression=True, send_buffer_size=200)
    room = Room(DROP_OLDEST, bench)
    peer = Peer()
    bench.outbound.send(TEXT, LONG)
    sleep(bench)
    sent = [b"%d " % number + LONG for number in range(20)]
    for message in sent:
        assert room.send(message) == 1
    own = LONG + b"own"
    bench.transport.room = None
    bench.turn()
    bench.outbound.send(TEXT, own)
    got = peer.read(bench.wire())
    assert all(one.compressed for one in got)
    kept = len(sent) - room.dropped_of(bench)
    assert 0 < kept < 10
    assert [one.payload for one in got] == [LONG, *sent[-kept:], own]


def test_each_group_has_its_own_policy_for_a_member(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    newest, oldest = Room(DROP_NEWEST, bench), Room(DROP_OLDEST, bench)
    closing = Room(sharing.CLOSE, bench)
    sleep(bench)
    for number in range(11):
        (newest if number % 2 else oldest).send(numbered(number))
    assert newest.send(numbered(11)) == 0
    assert oldest.send(numbered(12)) == 1
    assert closing.send(numbered(13)) == 0
    assert (newest.dropped_of(bench), oldest.dropped_of(bench)) == (1, 1)
    assert closing.dropped == {}
    bench.loop.dirty.clear()
    bench.turn()
    assert bench.sender.log == [("fell behind", 1100)]
    assert [room.send(numbered(14)) for room in (newest, oldest, closing)] == [0, 0, 0]
    assert (newest.dropped_of(bench), oldest.dropped_of(bench)) == (1, 1)


@pytest.mark.parametrize("policy", [DROP_NEWEST, DROP_OLDEST])
def test_a_sender_that_waits_for_room_comes_first(make: MakeBench, policy: str) -> None:
    """A group that takes whatever room there is would have it wait for ever."""
    bench = make(send_buffer_size=1000)
    room = Room(policy, bench)
    sleep(bench)
    for number in range(11):
        assert room.send(numbered(number)) == 1
    condition = TellingCondition(bench.outbound)
    sender = Background(bench.outbound.send, TEXT, b"own")
    condition.waiting.get(timeout=HANG)
    for number in range(11, 50):
        bench.transport.room = 50
        bench.flush()
        if bench.outbound.size <= 250:  # a quarter of what there is
            break
        room.send(numbered(number))
    assert sender.result() is None
    assert bench.outbound.size <= 250 + 5
    before = room.dropped_of(bench)
    while room.dropped_of(bench) == before:  # up to the brim again
        room.send(numbered(99))
    assert bench.outbound.size > 1000
    assert b"own" in wake(bench)


def test_a_sender_that_waits_is_no_reason_to_close(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000)
    room = Room(sharing.CLOSE, bench)
    sleep(bench)
    for number in range(11):
        room.send(numbered(number))
    condition = TellingCondition(bench.outbound)
    sender = Background(bench.outbound.send, TEXT, b"own")
    condition.waiting.get(timeout=HANG)
    bench.transport.room = 300
    bench.flush()
    assert 250 < bench.outbound.size < 1000
    assert room.send(numbered(11)) == 1
    bench.transport.room = None
    bench.flush()
    assert sender.result() is None
    assert wake(bench)[-1] == b"own"


def test_who_waits_no_more_leaves_the_room_to_others(make: MakeBench) -> None:
    bench = make(send_buffer_size=1000, send_timeout=5.0)
    room = Room(DROP_NEWEST, bench)
    sleep(bench)
    for number in range(11):
        room.send(numbered(number))
    condition = TellingCondition(bench.outbound)
    sender = Background(bench.outbound.send, TEXT, b"own")
    condition.waiting.get(timeout=HANG)
    bench.now += 5.0
    with bench.outbound.lock:
        bench.outbound.notify()
    assert isinstance(sender.result(), SendTimeout)
    bench.transport.room = 150
    bench.flush()
    assert room.send(numbered(11)) == 1


def test_a_sender_that_a_signal_calls_away_leaves_the_room_to_others(
    make: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the moment at which the handler raises."""
    bench = make(send_buffer_size=1000)
    room = Room(DROP_NEWEST, bench)
    sleep(bench)
    for number in range(11):
        room.send(numbered(number))
    wait_first = bench.outbound._wait_first

    def interrupted() -> None:
        monkeypatch.setattr(type(bench.outbound), "_wait_first", lambda self: wait_first())
        wait_first()
        raise KeyboardInterrupt

    monkeypatch.setattr(type(bench.outbound), "_wait_first", lambda self: interrupted())
    with pytest.raises(KeyboardInterrupt):
        bench.outbound.send(TEXT, b"own")
    bench.transport.room = 150
    bench.flush()
    assert bench.outbound.size < 1000
    assert room.send(numbered(11)) == 1


def test_while_memory_is_scarce_there_is_less_room(make: MakeBench) -> None:
    bench = make(send_buffer_size=8000)
    room = Room(DROP_NEWEST, bench)
    sleep(bench)
    bench.outbound.tighten()
    assert sum(room.send(numbered(number)) for number in range(20)) == 11
    bench.outbound.relax()
    assert room.send(numbered(20)) == 1


# -- Midway ----------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"), [(DROP_NEWEST, range(10)), (DROP_OLDEST, range(10, 20))]
)
def test_what_is_held_back_follows_the_policy(
    make: MakeBench, policy: str, expected: range
) -> None:
    bench = make(send_buffer_size=1000)
    room, other = Room(policy, bench), Room(DROP_OLDEST, bench)
    bench.outbound.send(TEXT, b"begin", final=False)
    other.send(numbered(100, 8))
    for number in range(20):
        room.send(numbered(number))
    assert room.dropped_of(bench) == 10
    assert other.dropped_of(bench) == 0
    assert bench.outbound.held() == 10 + 1000 + 48 * 11
    bench.outbound.send(TEXT, b"end")
    bench.turn()
    got = [frame.payload for frame in frames(bench.wire())]
    assert got[:2] == [b"begin", b"end"]
    assert names(got[2:]) == [100, *expected]


def test_what_was_held_back_can_still_be_dropped_when_it_is_queued(make: MakeBench) -> None:
    bench = make(send_buffer_size=300)
    room = Room(DROP_OLDEST, bench)
    bench.outbound.send(TEXT, b"begin", final=False)
    for number in range(4):
        room.send(numbered(number))
    bench.transport.room = 5 + 50  # the end, and a part of the first
    bench.outbound.send(TEXT, b"end")
    room.send(numbered(4))
    assert room.dropped_of(bench) == 1
    assert [payload[:1] for payload in wake(bench)] == [b"b", b"e", b"0", b"2", b"3", b"4"]


def test_what_is_held_back_is_lost_with_the_connection_and_told(make: MakeBench) -> None:
    bench = make()
    bench.outbound.send(TEXT, b"begin", final=False)
    Room(DROP_OLDEST, bench).send(numbered(1))
    bench.turn()
    assert bench.sender.log == ["holds back"]
    bench.give_up()
    assert bench.end.unsent == 100
    share(TEXT, b"x", [bench.outbound])
    bench.turn()
    assert bench.sender.log == ["holds back"]
