"""TLS on a socket that never blocks."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from syncws.engine.tls import ROOM, TLSTransport

Chunks = list[bytes | memoryview]

# What a record carries.
RECORD = 16_384


def take(transport: TLSTransport, size: int = ROOM) -> bytes | None:
    """Receive once, up to `size` bytes; None if nothing has come."""
    buffer = bytearray(size)
    count = transport.receive(buffer)
    assert -1 <= count <= size
    assert not any(buffer[max(count, 0) :]), "more was written than was told"
    return None if count < 0 else bytes(buffer[:count])


def drain(transport: TLSTransport) -> bytes:
    """Return everything that has come."""
    parts = []
    while data := take(transport):
        parts.append(data)
    return b"".join(parts)


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return client, server


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
MakePair = Callable[..., tuple[TLSTransport, TLSTransport]]


@pytest.fixture
def make_tls(contexts: Contexts) -> Iterator[MakePair]:
    made: list[TLSTransport] = []

    def make(
        client: ssl.SSLContext = contexts[0],
        server: ssl.SSLContext = contexts[1],
        handshake: bool = True,
    ) -> tuple[TLSTransport, TLSTransport]:
        first, second = socket.socketpair()
        ours = TLSTransport(first, client, server_hostname="localhost")
        theirs = TLSTransport(second, server, server_side=True)
        made.extend((ours, theirs))
        while handshake and not (ours.handshake() and theirs.handshake()):
            theirs.handshake()
        # The server's session tickets are no data.
        assert not handshake or take(ours) is None
        return ours, theirs

    yield make
    for transport in made:
        transport.close()


@pytest.fixture
def make_nested(make_tls: MakePair, contexts: Contexts) -> MakePair:
    """The same, but each end is TLS within that of `make_tls`."""

    def make(handshake: bool = True) -> tuple[TLSTransport, TLSTransport]:
        first, second = make_tls()
        ours = TLSTransport(first, contexts[0], server_hostname="localhost")
        theirs = TLSTransport(second, contexts[1], server_side=True)
        while handshake and not (ours.handshake() and theirs.handshake()):
            theirs.handshake()
        assert not handshake or take(ours) is None
        return ours, theirs

    return make


def test_the_tls_handshake_is_made_step_by_step(make_tls: MakePair) -> None:
    ours, theirs = make_tls(handshake=False)
    assert theirs.handshake() is False
    assert (theirs.wants_read, theirs.wants_write) == (True, False)
    steps = 0
    done: set[TLSTransport] = set()
    while len(done) < 2:
        for end in (ours, theirs):
            if end not in done:
                steps += 1
                assert steps < 20
                if end.handshake():
                    done.add(end)
                    assert not end.wants_read
                else:
                    assert end.wants_read
    assert steps > 2
    assert ours.secure
    ours.send(b"hello")
    assert take(theirs, 10) == b"hello"


def test_a_certificate_that_is_not_trusted(make_tls: MakePair) -> None:
    ours, theirs = make_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), handshake=False)
    assert not ours.handshake()
    assert not theirs.handshake()
    with pytest.raises(ssl.SSLCertVerificationError):
        ours.handshake()
    with pytest.raises(OSError):
        theirs.handshake()


def test_a_peer_that_speaks_no_tls(contexts: Contexts) -> None:
    ours, peer = socket.socketpair()
    transport = TLSTransport(ours, contexts[1], server_side=True)
    peer.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        transport.handshake()
    transport.close()
    peer.close()


def test_tls_bytes_both_ways(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    assert take(theirs, 10) is None
    assert not theirs.wants_write
    assert ours.send(b"hello") == 5
    assert take(theirs, 10) == b"hello"
    assert theirs.send(memoryview(b"answer")[1:]) == 5
    assert take(ours, 10) == b"nswer"
    assert take(ours, 10) is None


def test_what_finds_no_room_is_asked_for_again(make_tls: MakePair) -> None:
    # The selector would not tell of it.
    ours, theirs = make_tls()
    ours.send(b"x" * RECORD)
    assert take(theirs, 10) == b"x" * 10
    assert theirs.wants_write
    assert take(theirs) == b"x" * (RECORD - 10)
    assert take(theirs) is None
    assert not theirs.wants_write


def test_all_that_was_received_is_taken(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    for number in range(100):
        ours.send(b"%02d" % number)
    assert take(theirs) == b"".join(b"%02d" % number for number in range(100))
    assert take(theirs) is None


def test_a_tls_socket_that_is_full(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    data = random.Random(1).randbytes(1 << 22)
    chunks: Chunks = [memoryview(data)]
    total = 0
    got = b""
    full = 0
    while total < len(data):
        sent = ours.send_many(chunks)
        if not sent:
            full += 1
            # The very same bytes are offered again, and a chunk more.
            if len(chunks) == 1:
                chunks.append(b"more")
            got += drain(theirs)
            continue
        total += sent
        chunks[0] = chunks[0][sent:]
    assert full > 0
    assert not chunks[0]
    del chunks[0]
    while chunks:
        assert ours.send_many(chunks) == 4
        del chunks[0]
    assert got + drain(theirs) == data + b"more"


@pytest.mark.parametrize(
    ("sizes", "left", "sent"),
    [
        ([10], [10], 10),
        ([10, 20, 30], [60], 60),
        ([16_383, 1, 1], [16_384, 1], 16_384),
        ([16_384, 1], [16_384, 1], 16_384),
        ([8192, 8192, 8192], [16_384, 8192], 16_384),
        ([20_000, 10, 10], [20_000, 10, 10], None),
    ],
)
def test_small_chunks_are_joined_into_a_record(
    make_tls: MakePair, sizes: list[int], left: list[int], sent: int | None
) -> None:
    ours, theirs = make_tls()
    data = [bytes([n]) * size for n, size in enumerate(sizes)]
    chunks: Chunks = list(data)
    count = ours.send_many(chunks)
    assert [len(chunk) for chunk in chunks] == left
    assert b"".join(chunks) == b"".join(data)
    if sent is not None:
        assert count == sent
    assert drain(theirs) == b"".join(data)[:count]


def test_close_notify_is_the_end(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    ours.send(b"last")
    ours.shutdown_write()
    assert take(theirs, 10) == b"last"
    assert take(theirs, 10) == b""
    theirs.shutdown_write()
    ours.shutdown_write()
    while data := take(ours, 1000):
        pass
    assert data == b""


@pytest.mark.parametrize("under_way", [b"", b"under way"])
def test_after_the_end_of_writing_reading_only_waits_for_the_peers_end(
    make_tls: MakePair, under_way: bytes
) -> None:
    ours, theirs = make_tls()
    if under_way:
        theirs.send(under_way)
    ours.shutdown_write()
    # Whatever comes is given, decrypted or not; nothing of it is an end or an error.
    while data := take(ours, 1000):
        pass
    assert data is None
    theirs.send(b"more")
    assert take(ours, 1000)
    assert take(ours, 1000) is None
    assert take(theirs, 1000) == b"", "unread, our close_notify would make this a reset"
    theirs.close()
    assert take(ours, 1000) == b""


def test_an_end_without_close_notify(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    ours.abandon()
    assert take(theirs, 10) == b""


def test_close_twice(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    ours.close()
    ours.close()
    ours.shutdown_write()
    assert take(theirs, 10) == b""
    assert ours.sock.fileno() == -1


def test_an_end_behind_data_is_asked_for(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    ours.send(b"last")
    ours._tls.write(b" of all")
    with pytest.raises(ssl.SSLWantReadError):
        ours._tls.unwrap()
    assert ours.send(b"") == 0  # what waits goes out, and TCP does not end
    assert take(theirs) == b"last of all"
    assert theirs.wants_write
    assert take(theirs) == b""
    assert not theirs.wants_write


def test_an_error_behind_data_is_told_after_them(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    ours.send(b"good")
    ours.sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert take(theirs) == b"good"
    assert theirs.wants_write
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            take(theirs)
    with pytest.raises(ssl.SSLError, match="ALERT"):  # which was told why
        take(ours)


def test_nothing_is_sent_after_the_end_of_writing(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    ours.shutdown_write()
    with pytest.raises(BrokenPipeError):
        ours.send(b"in the clear")
    assert take(theirs) == b""


def test_a_handshake_waits_until_its_part_is_sent(contexts: Contexts) -> None:
    ours, peer = socket.socketpair()
    transport = TLSTransport(ours, contexts[0], server_hostname="localhost")
    full = 0
    try:
        while True:
            full += ours.send(bytes(100_000))
    except BlockingIOError:
        pass
    for _ in range(2):
        assert transport.handshake() is False
        assert (transport.wants_read, transport.wants_write) == (False, True)
    while full:
        full -= len(peer.recv(min(full, 1 << 20)))
    assert transport.handshake() is False
    assert (transport.wants_read, transport.wants_write) == (True, False)
    assert peer.recv(1) == b"\x16"
    transport.close()
    peer.close()


def test_what_came_with_the_handshake_is_taken(make_tls: MakePair) -> None:
    ours, theirs = make_tls(handshake=False)
    assert not ours.handshake()
    assert not theirs.handshake()
    assert ours.handshake()
    ours.send(b"in the same segment")
    assert theirs.handshake()
    assert take(theirs) == b"in the same segment"


def test_who_breaks_the_rules_is_told(contexts: Contexts) -> None:
    ours, peer = socket.socketpair()
    transport = TLSTransport(ours, contexts[1], server_side=True)
    peer.send(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
    with pytest.raises(ssl.SSLError):
        transport.handshake()
    assert peer.recv(10)[:1] == b"\x15"
    transport.close()
    peer.close()


# -- A TLS layer that does what a script says ----------------------------------


class Layer:
    """In place of an SSLObject; it has the memory that it reads from and writes to."""

    def __init__(self) -> None:
        self.read_from: Any = None
        self.write_to: Any = None
        self.reads: list[bytes] = []  # what came in each call
        self.answer = b""  # what it writes for each of them
        self.gives: bytes | None = None  # what the peer sent, if it was data
        self.writes: list[Any] = []

    def wrap_bio(self, incoming: Any, outgoing: Any, server: bool, name: Any) -> Any:
        self.read_from, self.write_to = incoming, outgoing
        return self

    def read(self, size: int, buffer: memoryview) -> int:
        data = self.read_from.read()
        if not data:
            raise ssl.SSLWantReadError
        self.reads.append(data)
        self.write_to.write(self.answer)
        if self.gives is None:
            raise ssl.SSLWantReadError
        buffer[: len(self.gives)] = self.gives
        return len(self.gives)

    def pending(self) -> int:
        return 0

    def write(self, data: memoryview) -> int:
        if self.writes:
            raise self.writes.pop()
        self.write_to.write(bytes(data))
        return len(data)


@pytest.fixture
def scripted() -> Iterator[tuple[TLSTransport, Layer, socket.socket]]:
    ours, peer = socket.socketpair()
    layer = Layer()
    transport = TLSTransport(ours, SimpleNamespace(wrap_bio=layer.wrap_bio))  # type: ignore[arg-type]
    peer.setblocking(False)
    yield transport, layer, peer
    transport.close()
    peer.close()


Scripted = tuple[TLSTransport, Layer, socket.socket]


def send_all(sock: socket.socket) -> int:
    """Fill a socket; return with how much."""
    total = 0
    try:
        while True:
            total += sock.send(bytes(65_536))
    except BlockingIOError:
        return total


def test_a_call_takes_what_one_read_of_the_socket_gives(scripted: Scripted) -> None:
    """However much more there is that is no data: others have their turn."""
    transport, layer, peer = scripted
    send_all(peer)
    assert take(transport) is None
    assert 0 < sum(map(len, layer.reads)) <= ROOM / 2
    layer.gives = b"data"
    assert take(transport) == b"data"


def test_messages_without_data_end_somewhere(scripted: Scripted) -> None:
    transport, layer, peer = scripted
    calls = 0
    with pytest.raises(ssl.SSLError, match="without any data"):
        while True:
            if calls == 3:
                layer.gives = b"data"
            send_all(peer)
            assert take(transport) == layer.gives
            layer.gives = None
            calls += 1
    assert 128 * 1024 <= sum(map(len, layer.reads[4:])) < 160 * 1024


def test_answers_that_the_peer_does_not_take_end_reading(scripted: Scripted) -> None:
    transport, layer, peer = scripted
    layer.answer, layer.gives = bytes(10_000), b"data"
    full = send_all(transport.sock)
    while not transport.wants_write:
        peer.send(b"question")
        assert take(transport) in (b"data", None)
        assert len(layer.reads) < 20
    read = len(layer.reads)
    assert read > 5, "a little is no reason"
    assert take(transport) is None
    assert len(layer.reads) == read
    while full:
        full -= len(peer.recv(min(full, 1 << 20)))
    assert take(transport) == b"data"
    assert not transport.wants_write
    assert len(layer.reads) == read + 1


def test_writing_that_wants_to_read(scripted: Scripted) -> None:
    transport, layer, peer = scripted
    layer.writes = [ssl.SSLWantReadError()]
    assert transport.send(b"data") == 0
    assert transport.wants_read
    assert transport.send(b"data") == 4
    assert not transport.wants_read
    assert peer.recv(10) == b"data"


def test_what_is_sealed_is_sent_once(scripted: Scripted) -> None:
    transport, _, peer = scripted
    full = send_all(transport.sock)
    for _ in range(3):
        assert transport.send(b"first") == 0
    while full:
        full -= len(peer.recv(min(full, 1 << 20)))
    assert transport.send(b"first, second") == 13
    assert peer.recv(100) == b"first, second"


@pytest.mark.parametrize("error", [ssl.SSLError("bad record"), ConnectionResetError()])
def test_what_fails_is_raised(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    transport, layer, peer = scripted

    def failing(*args: Any) -> Any:
        raise error

    for name in ("read", "write", "do_handshake"):
        setattr(layer, name, failing)
    for call in (lambda: take(transport), lambda: transport.send(b"x"), transport.handshake):
        with pytest.raises(type(error)):
            call()
    layer.unwrap = failing  # type: ignore[attr-defined]
    transport.shutdown_write()  # in silence
    assert peer.recv(10) == b""


# -- TLS within TLS ----------------------------------------------------------


def both_ways(ours: TLSTransport, theirs: TLSTransport, data: bytes) -> None:
    """Send it to and fro, as much at once as there is room for."""
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        rest, parts = memoryview(data), []
        while rest:
            rest = rest[sender.send(rest) :]
            while part := take(receiver):
                parts.append(part)
        while part := take(receiver):
            parts.append(part)
        assert b"".join(parts) == data


@pytest.mark.parametrize("size", [1, 125, 16_384, 16_385, 36_874, 1_000_000])
def test_bytes_both_ways_within(make_nested: MakePair, size: int) -> None:
    ours, theirs = make_nested()
    assert ours.secure
    both_ways(ours, theirs, random.Random(size).randbytes(size))


def test_bytes_within_that_come_a_few_at_a_time(make_nested: MakePair) -> None:
    """What a read of the socket gives begins and ends within records of both."""
    ours, theirs = make_nested()
    data = random.Random(5).randbytes(300_000)
    rest, got = memoryview(data), b""
    chances = random.Random(6)
    while len(got) < len(data):
        if rest:
            rest = rest[ours.send(rest) :]
        for _ in range(chances.randrange(3)):
            got += take(theirs) or b""
    assert got == data


def test_the_handshake_within_takes_what_came_before(
    make_tls: MakePair, contexts: Contexts
) -> None:
    """As a proxy may send it in one piece with its answer."""
    first, second = make_tls()
    theirs = TLSTransport(second, contexts[0], server_hostname="localhost")
    assert not theirs.handshake()
    hello = take(first)
    assert hello
    ours = TLSTransport(first, contexts[1], server_side=True, received=hello)
    while not (ours.handshake() and theirs.handshake()):
        theirs.handshake()
    both_ways(ours, theirs, b"hello")


def test_close_notify_within_is_the_end(make_nested: MakePair) -> None:
    ours, theirs = make_nested()
    theirs.send(b"last")
    theirs.shutdown_write()
    parts = []
    while data := take(ours):
        parts.append(data)
    assert b"".join(parts) == b"last"
    assert data == b""
    assert theirs._outer is not None
    for end in (theirs, theirs._outer):
        with pytest.raises(BrokenPipeError, match="the end of writing was told"):
            end.send(b"more")


def test_the_end_of_the_outer_connection_is_the_end(make_nested: MakePair) -> None:
    """A proxy says that nothing more comes, without a word of the server's."""
    ours, theirs = make_nested()
    outer = theirs._outer
    assert outer is not None
    theirs.send(b"last")
    outer.shutdown_write()
    assert take(ours) == b"last"
    # It came in one piece with the data, so that no selector would tell of it.
    assert ours.wants_write
    assert take(ours) == b""


def test_close_within_closes_the_socket(make_nested: MakePair) -> None:
    ours, theirs = make_nested()
    ours.close()
    ours.close()
    assert ours.sock.fileno() == -1
    with pytest.raises(OSError):
        ours.send(b"x")
    assert take(theirs) == b""


def test_abandon_within_says_nothing(make_nested: MakePair) -> None:
    ours, theirs = make_nested()
    copy = ours.sock.dup()
    with copy:
        ours.abandon()
        assert ours.sock.fileno() == -1
        assert take(theirs) is None


def test_what_finds_no_room_within_is_sent_later(make_nested: MakePair) -> None:
    ours, theirs = make_nested()
    data = random.Random(7).randbytes(3_000_000)
    rest = memoryview(data)
    while size := ours.send(rest):
        rest = rest[size:]
    assert rest
    assert ours.send(rest) == 0
    got = b""
    while len(got) < len(data):
        got += take(theirs) or b""
        if rest:
            rest = rest[ours.send(rest) :]
    assert got == data


def test_an_end_amid_the_handshake_within_is_not_waited_for(
    make_tls: MakePair, contexts: Contexts
) -> None:
    first, second = make_tls()
    ours = TLSTransport(first, contexts[0], server_hostname="localhost")
    assert not ours.handshake()
    assert take(second)
    second.send(b"\x16\x03\x03")  # a part of an answer
    second.shutdown_write()
    with pytest.raises(ssl.SSLError):
        for _ in range(3):
            assert not ours.handshake()
            assert ours.wants_read
            assert ours.wants_write  # now, not when more has come
