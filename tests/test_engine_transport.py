from __future__ import annotations

import errno
import itertools
import os
import random
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from syncws.engine.transport import (
    FastTransport,
    FrameReceiver,
    PlainTransport,
    Transport,
    make_transport,
)
from syncws.protocol.decoder import Decoder
from syncws.protocol.events import BINARY, TEXT, Event
from syncws.protocol.kernels import frame
from tests.scripted import SOCKETS_IN_C
from tests.support import HANG, RawPeer

Chunks = list[bytes | memoryview]

# What frames to read, as a server's decoder says it.
FRAMES = Decoder(client=False).plain_frames
KEY = b"\x37\xfa\x21\x3d"


def take(transport: Transport, size: int = 65_536) -> bytes | None:
    """Receive once, up to `size` bytes; None if nothing has come."""
    buffer = bytearray(size)
    count = transport.receive(buffer)
    assert -1 <= count <= size
    assert len(buffer) == size
    assert not any(buffer[max(count, 0) :]), "more was written than was told"
    return None if count < 0 else bytes(buffer[:count])


def fill(transport: Transport, data: bytes) -> int:
    """Send `data` over and over until nothing more is taken; return how much was."""
    total = 0
    while sent := transport.send(data[total % len(data) :]):
        total += sent
    return total


def drain(transport: Transport, size: int = 65_536) -> bytes:
    """Return everything that has come."""
    parts = []
    while data := take(transport, size):
        parts.append(data)
    return b"".join(parts)


# -- Plain -----------------------------------------------------------


@pytest.fixture(params=["plain", *(["fast"] if SOCKETS_IN_C else [])])
def kind(request: pytest.FixtureRequest) -> type[PlainTransport]:
    """The class of the transports; the two do the same."""
    return FastTransport if request.param == "fast" else PlainTransport


@pytest.fixture
def pair(kind: type[PlainTransport]) -> Iterator[tuple[PlainTransport, PlainTransport]]:
    sockets = socket.socketpair()
    for sock in sockets:
        sock.setblocking(False)
    ours, theirs = (kind(sock) for sock in sockets)
    yield ours, theirs
    ours.close()
    theirs.close()


Pair = tuple[PlainTransport, PlainTransport]


def test_a_plain_socket_becomes_non_blocking() -> None:
    first, second = socket.socketpair()
    first.setblocking(True)
    with first, second:
        transport = make_transport(first)
        fast = SOCKETS_IN_C
        assert type(transport) is (FastTransport if fast else PlainTransport)
        assert transport.sock is first
        assert first.getblocking() is False


def test_a_plain_transport_wants_nothing(pair: Pair) -> None:
    ours, _ = pair
    assert (ours.secure, ours.wants_read, ours.wants_write) == (False, False, False)
    assert ours.handshake() is True


def test_plain_bytes(pair: Pair) -> None:
    ours, theirs = pair
    assert take(theirs, 10) is None
    assert ours.send(b"hello") == 5
    assert ours.send(memoryview(b"world")[1:]) == 4
    assert take(theirs, 7) == b"helloor"
    assert take(theirs, 7) == b"ld"
    assert take(theirs, 7) is None


def test_a_plain_socket_that_is_full(pair: Pair) -> None:
    ours, theirs = pair
    data = random.Random(1).randbytes(1 << 20)
    sent = fill(ours, data)
    assert sent > 0
    assert ours.send(data) == 0
    assert ours.send_many([data, data]) == 0
    expected = b"".join(itertools.repeat(data, sent // len(data) + 1))[:sent]
    assert drain(theirs) == expected
    assert ours.send(b"more") == 4


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 200])
def test_several_chunks_in_one_call(pair: Pair, count: int) -> None:
    ours, theirs = pair
    chunks: Chunks = [b"%03d" % n for n in range(count)]
    before = list(chunks)
    sent = ours.send_many(chunks)
    assert sent == 3 * min(count, 64)
    assert chunks == before
    assert drain(theirs) == b"".join(before)[:sent]


def test_the_end_of_a_plain_connection(pair: Pair) -> None:
    ours, theirs = pair
    ours.send(b"last")
    ours.shutdown_write()
    ours.shutdown_write()
    assert take(theirs, 10) == b"last"
    assert take(theirs, 10) == b""
    # The other direction is still open.
    assert theirs.send(b"answer") == 6
    assert take(ours, 10) == b"answer"
    theirs.close()
    assert take(ours, 10) == b""
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
        assert take(theirs, 10) == b""


def test_abandon_does_not_reach_the_peer(pair: Pair) -> None:
    ours, theirs = pair
    with ours.sock.dup() as copy:
        ours.abandon()
        assert ours.sock.fileno() == -1
        assert take(theirs, 10) is None
        copy.send(b"still here")
        assert take(theirs, 10) == b"still here"


@pytest.mark.parametrize("error", [BlockingIOError, InterruptedError])
def test_a_call_that_is_interrupted_is_made_again_later(error: type[OSError]) -> None:
    class Interrupted:
        def recv_into(self, buffer: Any) -> int:
            raise error

        def send(self, data: bytes) -> int:
            raise error

        def sendmsg(self, chunks: Any) -> int:
            raise error

    transport = PlainTransport(Interrupted())  # type: ignore[arg-type]
    assert transport.receive(bytearray(1)) == -1
    receiver = transport.frame_receiver(FRAMES)
    assert receiver is not None
    assert receiver(bytearray(1)) == -1
    assert transport.send(b"x") == 0
    assert transport.send_frame(0x82, b"x", None) == b"\x82\x01x"
    assert transport.send_many([b"x", b"y"]) == 0


def test_what_fails_is_raised(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    with pytest.raises(BrokenPipeError):
        ours.send(b"x")
    with pytest.raises(BrokenPipeError):
        ours.send_frame(0x82, b"x", None)
    with pytest.raises(BrokenPipeError):
        ours.send_many([b"x", b"y"])


def test_a_reset_is_raised(kind: type[PlainTransport]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = RawPeer(socket.create_connection(listener.getsockname()), client=True)
        sock, _ = listener.accept()
    peer.reset()
    select.select([sock], [], [], HANG)
    sock.setblocking(False)
    transport = kind(sock)
    with pytest.raises(ConnectionResetError):
        transport.receive(bytearray(10))
    transport.close()


def test_bytes_are_received_into_any_writable_buffer(pair: Pair) -> None:
    ours, theirs = pair
    ours.send(b"one two three")
    buffer = bytearray(10)
    with memoryview(buffer) as view:
        assert theirs.receive(view[3:6]) == 3
    assert buffer == b"\0\0\0one\0\0\0\0"
    buffer.append(0)  # nothing holds it
    assert theirs.receive(buffer) == 10
    buffer.append(0)
    assert theirs.receive(buffer) == -1
    buffer.append(0)
    for wrong in (b"read only", "text", None, 5):
        with pytest.raises((TypeError, BufferError)):
            theirs.receive(wrong)  # type: ignore[arg-type]


# A view of this size takes another way through the C extension.
@pytest.mark.parametrize("size", [131_071, 131_072, 1_000_000])
def test_a_large_view(pair: Pair, size: int) -> None:
    ours, theirs = pair
    data = random.Random(size).randbytes(300_000)
    sent = fill_once(ours, data)
    buffer = bytearray(size)
    received = b""
    with memoryview(buffer) as view:
        while (count := theirs.receive(view)) > 0:
            received += bytes(view[:count])
    assert count == -1
    assert received == data[:sent]


def fill_once(transport: Transport, data: bytes) -> int:
    """Send as much of `data` as is taken; return how much was."""
    total = 0
    while total < len(data) and (sent := transport.send(memoryview(data)[total:])):
        total += sent
    assert total
    return total


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "masked"])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 4081, 4082, 4083, 4096, 65_535, 65_536, 100_000])
def test_a_frame_in_one_call(pair: Pair, size: int, key: bytes | None) -> None:
    ours, theirs = pair
    payload = random.Random(size).randbytes(size)
    assert ours.send_frame(0x82, payload, key) is None
    assert drain(theirs) == frame(0x82, payload, key)


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "masked"])
def test_a_frame_that_is_not_taken_whole(pair: Pair, key: bytes | None) -> None:
    ours, theirs = pair
    payload = random.Random(1).randbytes(1 << 22)
    rest = ours.send_frame(0x82, payload, key)
    assert type(rest) is bytes
    whole = frame(0x82, payload, key)
    assert 0 < len(rest) < len(whole)
    # Nothing of the next is taken.
    assert ours.send_frame(0x81, b"text", None) == b"\x81\x04text"
    assert ours.send_frame(0x81, bytes(10_000), KEY) == frame(0x81, bytes(10_000), KEY)
    assert drain(theirs) + rest == whole


def test_wrong_arguments_write_nothing(pair: Pair) -> None:
    ours, theirs = pair
    chunk = bytearray(b"good")
    for wrong in ("text", None, 5):
        with pytest.raises(TypeError):
            ours.send(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            ours.send_frame(0x82, wrong, None)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            ours.send_many([chunk, wrong])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        ours.send_frame(None, b"x", None)  # type: ignore[arg-type]
    assert take(theirs) is None
    chunk.append(0)  # nothing holds it


# -- Frames as they are received -------------------------------------


def receiver(transport: PlainTransport) -> FrameReceiver:
    found = transport.frame_receiver(FRAMES)
    assert found is not None
    return found


def test_plain_frames_in_one_go(pair: Pair) -> None:
    ours, theirs = pair
    receive = receiver(theirs)
    buffer = bytearray(100)
    assert receive(buffer) == -1
    ours.send(frame(0x81, "é".encode(), KEY) + frame(0x82, b"", KEY) + frame(0x82, b"x", KEY))
    got = receive(buffer)
    assert got == [Event(TEXT, "é"), Event(BINARY, b""), Event(BINARY, b"x")]
    assert isinstance(got, list)
    assert {type(event) for event in got} == {Event}
    assert receive(buffer) == -1
    buffer.append(0)  # nothing holds it


@pytest.mark.parametrize(
    "rest",
    [
        frame(0x89, b"ping", KEY),
        frame(0x01, b"fragment", KEY),
        frame(0x81, b"\xff", KEY),
        frame(0x81, b"not masked", None),
        frame(0x82, b"cut short", KEY)[:-1],
        b"\x82",
    ],
    ids=["ping", "fragment", "no UTF-8", "not masked", "cut", "one byte"],
)
@pytest.mark.parametrize("before", [b"", frame(0x81, b"text", KEY)], ids=["alone", "behind"])
def test_what_is_no_plain_frame_is_left_in_the_buffer(
    pair: Pair, before: bytes, rest: bytes
) -> None:
    ours, theirs = pair
    buffer = bytearray(100)
    ours.send(before + rest)
    events = [Event(TEXT, "text")] if before else []
    end = len(before) + len(rest)
    assert receiver(theirs)(buffer) == (events, len(before), end)
    assert buffer[len(before) : end] == rest


def test_as_much_is_received_as_the_buffer_takes(pair: Pair) -> None:
    ours, theirs = pair
    wire = frame(0x82, b"0123456789", KEY)
    ours.send(wire)
    buffer = bytearray(len(wire) - 1)
    assert receiver(theirs)(buffer) == ([], 0, len(buffer))
    assert take(theirs) == wire[-1:]


def test_not_more_frames_than_asked_for(pair: Pair) -> None:
    ours, theirs = pair
    mask_bit, limit, _, event_type = FRAMES
    receive = theirs.frame_receiver((mask_bit, limit, 2, event_type))
    assert receive is not None
    one = frame(0x82, b"x", KEY)
    ours.send(one * 3)
    assert receive(bytearray(100)) == ([Event(BINARY, b"x")] * 2, 2 * len(one), 3 * len(one))


def test_the_end_is_told_behind_the_frames(pair: Pair) -> None:
    ours, theirs = pair
    ours.send(frame(0x82, b"last", KEY))
    ours.close()
    receive = receiver(theirs)
    assert receive(bytearray(100)) == [Event(BINARY, b"last")]
    assert receive(bytearray(100)) == 0


@pytest.mark.skipif(not SOCKETS_IN_C, reason="the C extension is not in use")
def test_frames_are_received_to_a_bytearray_only() -> None:
    first, second = socket.socketpair()
    with first, second:
        first.setblocking(False)
        receive = receiver(FastTransport(first))
        second.send(frame(0x82, b"x", KEY))
        for wrong in (memoryview(bytearray(100)), bytes(100), None):
            with pytest.raises(TypeError):
                receive(wrong)  # type: ignore[arg-type]
        assert receive(bytearray(100)) == [Event(BINARY, b"x")]


# -- A transport that was closed -------------------------------------


@pytest.mark.parametrize("how", ["close", "abandon"])
def test_a_closed_transport_does_not_use_the_descriptor_that_another_has_now(
    pair: Pair, how: str
) -> None:
    ours, _ = pair
    number = ours.sock.fileno()
    another, peer = socket.socketpair()
    with another, peer:
        peer.setblocking(False)
        peer.send(b"for the other one")
        getattr(ours, how)()
        # As the system does for the next that is opened.
        os.dup2(another.fileno(), number)
        try:
            for call in (
                lambda: ours.receive(bytearray(10)),
                lambda: ours.send(b"x"),
                lambda: ours.send(memoryview(bytes(200_000))),
                lambda: ours.send_frame(0x82, b"x", None),
                lambda: ours.send_frame(0x82, bytes(200_000), KEY),
                lambda: ours.send_many([b"x", b"y"]),
                lambda: receiver(ours)(bytearray(10)),
            ):
                with pytest.raises(OSError) as caught:
                    call()
                assert caught.value.errno == errno.EBADF
            ours.shutdown_write()
            ours.close()
            with pytest.raises(BlockingIOError):
                peer.recv(10)
            assert another.recv(100) == b"for the other one"
        finally:
            os.close(number)
