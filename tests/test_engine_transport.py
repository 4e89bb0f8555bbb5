from __future__ import annotations

import itertools
import random
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from syncws.engine.transport import PlainTransport, TLSTransport, Transport, make_transport

Chunks = deque[bytes | memoryview]


def fill(transport: Transport, data: bytes) -> int:
    """Send `data` over and over until nothing more is taken; return how much was."""
    total = 0
    while sent := transport.send(data[total % len(data) :]):
        total += sent
    return total


def drain(transport: Transport, size: int = 65_536) -> bytes:
    """Return everything that has come."""
    parts = []
    while data := transport.receive(size):
        parts.append(data)
    return b"".join(parts)


# -- Plain -----------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[Transport, Transport]]:
    ours, theirs = (make_transport(sock) for sock in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


Pair = tuple[Transport, Transport]


def test_a_plain_socket_becomes_non_blocking(pair: Pair) -> None:
    ours, _ = pair
    assert isinstance(ours, PlainTransport)
    assert ours.sock.getblocking() is False
    assert (ours.secure, ours.wants_read, ours.wants_write) == (False, False, False)
    assert ours.handshake() is True


def test_plain_bytes(pair: Pair) -> None:
    ours, theirs = pair
    assert theirs.receive(10) is None
    assert ours.send(b"hello") == 5
    assert ours.send(memoryview(b"world")[1:]) == 4
    assert theirs.receive(7) == b"helloor"
    assert theirs.receive(7) == b"ld"
    assert theirs.receive(7) is None


def test_a_plain_socket_that_is_full(pair: Pair) -> None:
    ours, theirs = pair
    data = random.Random(1).randbytes(1 << 20)
    sent = fill(ours, data)
    assert sent > 0
    assert ours.send(data) == 0
    assert ours.send_many(deque([data, data])) == 0
    expected = b"".join(itertools.repeat(data, sent // len(data) + 1))[:sent]
    assert drain(theirs) == expected
    assert ours.send(b"more") == 4


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 200])
def test_several_chunks_in_one_call(pair: Pair, count: int) -> None:
    ours, theirs = pair
    chunks: Chunks = deque(b"%03d" % n for n in range(count))
    before = list(chunks)
    sent = ours.send_many(chunks)
    assert sent == 3 * min(count, 64)
    assert list(chunks) == before
    assert drain(theirs) == b"".join(before)[:sent]


def test_the_end_of_a_plain_connection(pair: Pair) -> None:
    ours, theirs = pair
    ours.send(b"last")
    ours.shutdown_write()
    ours.shutdown_write()
    assert theirs.receive(10) == b"last"
    assert theirs.receive(10) == b""
    # The other direction is still open.
    assert theirs.send(b"answer") == 6
    assert ours.receive(10) == b"answer"
    theirs.close()
    assert ours.receive(10) == b""
    with pytest.raises(OSError):
        ours.send(b"too late")
    ours.shutdown_write()
    ours.close()
    ours.close()
    ours.shutdown_write()


def test_close_reaches_the_peer_despite_a_copy_of_the_descriptor(pair: Pair) -> None:
    ours, theirs = pair
    with ours.sock.dup():
        ours.close()
        assert ours.sock.fileno() == -1
        assert theirs.receive(10) == b""


def test_abandon_does_not_reach_the_peer(pair: Pair) -> None:
    ours, theirs = pair
    with ours.sock.dup() as copy:
        ours.abandon()
        assert ours.sock.fileno() == -1
        assert theirs.receive(10) is None
        copy.send(b"still here")
        assert theirs.receive(10) == b"still here"


@pytest.mark.parametrize("error", [BlockingIOError, InterruptedError])
def test_a_call_that_is_interrupted_is_made_again_later(error: type[OSError]) -> None:
    class Interrupted:
        def recv(self, size: int) -> bytes:
            raise error

        def send(self, data: bytes) -> int:
            raise error

        def sendmsg(self, chunks: Any) -> int:
            raise error

    transport = PlainTransport(Interrupted())  # type: ignore[arg-type]
    assert transport.receive(1) is None
    assert transport.send(b"x") == 0
    assert transport.send_many(deque([b"x", b"y"])) == 0


def test_what_fails_is_raised() -> None:
    sock, other = socket.socketpair()
    other.close()
    transport = make_transport(sock)
    with pytest.raises(BrokenPipeError):
        transport.send(b"x")
    with pytest.raises(BrokenPipeError):
        transport.send_many(deque([b"x", b"y"]))
    transport.close()
    with pytest.raises(OSError):
        transport.receive(1)


# -- TLS -------------------------------------------------------------


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
    made: list[Transport] = []

    def make(
        client: ssl.SSLContext = contexts[0],
        server: ssl.SSLContext = contexts[1],
        handshake: bool = True,
    ) -> tuple[TLSTransport, TLSTransport]:
        first, second = socket.socketpair()
        ends = (
            client.wrap_socket(first, server_hostname="localhost", do_handshake_on_connect=False),
            server.wrap_socket(second, server_side=True, do_handshake_on_connect=False),
        )
        ours, theirs = (make_transport(end) for end in ends)
        made.extend((ours, theirs))
        assert isinstance(ours, TLSTransport)
        assert isinstance(theirs, TLSTransport)
        while handshake and not (ours.handshake() and theirs.handshake()):
            theirs.handshake()
        # The server's session tickets are no data.
        assert not handshake or ours.receive(1) is None
        return ours, theirs

    yield make
    for transport in made:
        transport.close()


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
    assert theirs.receive(10) == b"hello"


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
    transport = make_transport(
        contexts[1].wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
    )
    peer.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        transport.handshake()
    transport.close()
    peer.close()


def test_tls_bytes_both_ways(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    assert theirs.receive(10) is None
    assert not theirs.wants_write
    assert ours.send(b"hello") == 5
    assert theirs.receive(10) == b"hello"
    assert theirs.send(memoryview(b"answer")[1:]) == 5
    assert ours.receive(10) == b"nswer"
    assert ours.receive(10) is None


def test_what_is_decrypted_already_is_taken_too(make_tls: MakePair) -> None:
    # The selector would not tell of it.
    ours, theirs = make_tls()
    ours.send(b"x" * 5000)
    assert theirs.receive(10) == b"x" * 5000
    assert theirs.receive(10) is None


def test_a_tls_socket_that_is_full(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    data = random.Random(1).randbytes(1 << 22)
    chunks: Chunks = deque([memoryview(data)])
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
    chunks.popleft()
    while chunks:
        assert ours.send_many(chunks) == 4
        chunks.popleft()
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
    chunks: Chunks = deque(data)
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
    assert theirs.receive(10) == b"last"
    assert theirs.receive(10) == b""
    theirs.shutdown_write()
    ours.shutdown_write()
    while data := ours.receive(1000):
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
    while data := ours.receive(1000):
        pass
    assert data is None
    theirs.send(b"more")
    assert ours.receive(1000)
    assert ours.receive(1000) is None
    assert theirs.receive(1000) == b"", "unread, our close_notify would make this a reset"
    theirs.close()
    assert ours.receive(1000) == b""


def test_an_end_without_close_notify(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    ours.abandon()
    assert theirs.receive(10) == b""


def test_close_twice(make_tls: MakePair) -> None:
    ours, theirs = make_tls()
    ours.close()
    ours.close()
    ours.shutdown_write()
    assert theirs.receive(10) == b""
    assert ours.sock.fileno() == -1


class ScriptedSSLSocket:
    """Does what the script says: raises errors, returns the rest."""

    def __init__(self, **script: list[Any]) -> None:
        self.script = script

    def _next(self, name: str) -> Any:
        step = self.script[name].pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def recv(self, size: int) -> Any:
        return self._next("recv")

    def pending(self) -> Any:
        return self._next("pending")

    def send(self, data: bytes) -> Any:
        return self._next("send")

    def do_handshake(self) -> Any:
        return self._next("do_handshake")

    def unwrap(self) -> Any:
        return self._next("unwrap")

    def shutdown(self, how: int) -> Any:
        return self._next("shutdown")


def scripted(**script: list[Any]) -> TLSTransport:
    return TLSTransport(ScriptedSSLSocket(**script))  # type: ignore[arg-type]


def test_a_handshake_that_wants_to_write() -> None:
    transport = scripted(do_handshake=[ssl.SSLWantWriteError(), ssl.SSLWantReadError(), None])
    wants = []
    for _ in range(3):
        done = transport.handshake()
        wants.append((done, transport.wants_read, transport.wants_write))
    assert wants == [(False, False, True), (False, True, False), (True, False, False)]


def test_reading_that_wants_to_write() -> None:
    transport = scripted(recv=[ssl.SSLWantWriteError(), b"data"], pending=[0])
    assert transport.receive(10) is None
    assert transport.wants_write
    assert transport.receive(10) == b"data"
    assert not transport.wants_write


@pytest.mark.parametrize("error", [ssl.SSLWantReadError(), ssl.SSLWantWriteError()])
def test_reading_that_must_wait_after_some_data(error: Exception) -> None:
    transport = scripted(recv=[b"some", error], pending=[3, 3])
    assert transport.receive(10) == b"some"
    assert transport.wants_write is isinstance(error, ssl.SSLWantWriteError)


@pytest.mark.parametrize("error", [ssl.SSLZeroReturnError(), ssl.SSLEOFError()])
def test_the_end_as_an_error(error: Exception) -> None:
    assert scripted(recv=[error]).receive(10) == b""


def test_writing_that_wants_to_read() -> None:
    transport = scripted(send=[ssl.SSLWantReadError(), ssl.SSLWantWriteError(), 4])
    assert transport.send(b"data") == 0
    assert transport.wants_read
    assert transport.send(b"data") == 0
    assert not transport.wants_read
    assert transport.send(b"data") == 4


@pytest.mark.parametrize("error", [ssl.SSLError("bad record"), ConnectionResetError()])
def test_tls_that_fails_is_raised(error: Exception) -> None:
    transport = scripted(recv=[error], send=[error], do_handshake=[error])
    for call in (
        lambda: transport.receive(1),
        lambda: transport.send(b"x"),
        transport.handshake,
    ):
        with pytest.raises(type(error)):
            call()


def test_the_end_of_writing_fails_in_silence() -> None:
    scripted(unwrap=[ValueError("no SSL")], shutdown=[OSError()]).shutdown_write()
    scripted(unwrap=[ssl.SSLWantReadError()], shutdown=[None]).shutdown_write()
