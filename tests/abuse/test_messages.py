"""Messages that no honest peer sends: those that burst, those that never end, those that lie."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import syncws
from tests.abuse.hostile import Victim, attacked, deflated, every_end
from tests.support import BINARY, CONT, TEXT, Recorder, close_payload

MIB = 2**20

_RSV1 = 4

# -- Compression -------------------------------------------------------------


@functools.cache
def bomb() -> bytes:
    """A little more than 1 MB that inflates to 1 GiB."""
    zeros = bytes(16 * MIB)
    compressor = zlib.compressobj(wbits=-12)
    # The same bytes each time, since nothing refers to what was before a full flush.
    block = compressor.compress(zeros) + compressor.flush(zlib.Z_FULL_FLUSH)
    return block * 64


def in_frames(victim: Victim, opcode: int, payload: bytes, frames: int) -> Iterator[bytes]:
    """Return the frames of a compressed message."""
    size = len(payload) // frames + 1
    for start in range(0, len(payload), size):
        yield victim.frame(
            CONT if start else opcode,
            payload[start : start + size],
            rsv=0 if start else _RSV1,
            fin=start + size >= len(payload),
        )


def send_all(victim: Victim, data: bytes) -> None:
    """Send all, or as much as is taken: who refuses need not read on."""
    with suppress(ConnectionError):
        victim.peer.send_bytes(data)


def test_the_bomb_is_one() -> None:
    assert 1_000_000 < len(bomb()) < 1_100_000
    # It is the same block over and over.
    inflater = zlib.decompressobj(-12)
    assert len(inflater.decompress(bomb()[: len(bomb()) // 32])) == 32 * MIB


@every_end
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
@pytest.mark.parametrize("frames", [1, 10, 1000])
def test_a_decompression_bomb(kind: str, opcode: int, frames: int) -> None:
    # The wire has to be there before memory is watched, and so has the mask.
    with attacked(kind, deflate=True) as first:
        wire = b"".join(in_frames(first, opcode, bomb(), frames))
    with attacked(kind, deflate=True, peak=6 * MIB) as victim:
        send_all(victim, wire)
        victim.fails(1009, syncws.PayloadTooBigError)


class Streaming(Recorder):
    """Gets fragments as they come, and keeps none."""

    def on_binary(  # type: ignore[override]  # of another shape, which is allowed
        self, caller: Any, data: bytes, final: bool
    ) -> None:
        pass


@pytest.mark.parametrize("kind", ["server", "client"])
def test_a_decompression_bomb_for_a_callback_that_streams(kind: str) -> None:
    with attacked(kind, deflate=True) as first:
        wire = b"".join(in_frames(first, BINARY, bomb(), 1000))
    with attacked(kind, service=Streaming(), deflate=True, peak=6 * MIB) as victim:
        send_all(victim, wire)
        victim.fails(1009, syncws.PayloadTooBigError)


@every_end
def test_a_bomb_of_many_streams(kind: str) -> None:
    # Each ends its stream by itself, and costs a new window where it is begun.
    compressor = zlib.compressobj(wbits=-12)
    stream = compressor.compress(b"x") + compressor.flush(zlib.Z_FINISH)
    with attacked(kind, deflate=True, peak=6 * MIB) as victim:
        send_all(victim, victim.frame(BINARY, stream * 100_000, rsv=_RSV1))
        victim.fails(1007, syncws.InvalidPayloadError)


@every_end
@pytest.mark.parametrize("frames", [1, 10])
def test_a_bomb_of_blocks_that_inflate_to_nothing(kind: str, frames: int) -> None:
    empty = b"\x00\x00\x00\xff\xff" * (3 * MIB // 5)
    with attacked(kind, deflate=True) as first:
        wire = b"".join(in_frames(first, BINARY, empty, frames))
    with attacked(kind, deflate=True, peak=6 * MIB) as victim:
        send_all(victim, wire)
        victim.fails(1009, syncws.PayloadTooBigError)


@every_end
@pytest.mark.parametrize("frames", [1, 3], ids=["one frame", "fragments"])
@pytest.mark.parametrize("limit", [126, 1000, 70_000])
@pytest.mark.parametrize("over", [0, 1, 1000])
def test_the_limit_is_that_of_inflated_bytes(kind: str, frames: int, limit: int, over: int) -> None:
    data = b"x" * (limit + over)
    with attacked(kind, deflate=True, max_message_size=limit) as victim:
        for piece in in_frames(victim, BINARY, deflated(data), frames):
            send_all(victim, piece)
        if over:
            victim.fails(1009, syncws.PayloadTooBigError)
        else:
            victim.receives(data)


@every_end
@pytest.mark.parametrize("over", [0, 1])
def test_a_compressed_message_may_be_longer_than_what_it_inflates_to(kind: str, over: int) -> None:
    data = bytes(range(125)) + bytes(over)
    compressor = zlib.compressobj(0, wbits=-12)
    stored = (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(stored) > 125 + over
    with attacked(kind, deflate=True, max_message_size=125) as victim:
        send_all(victim, victim.frame(BINARY, stored, rsv=_RSV1))
        if over:
            victim.fails(1009, syncws.PayloadTooBigError)
        else:
            victim.receives(data)


@every_end
@pytest.mark.parametrize("frames", [1, 2], ids=["one frame", "fragments"])
@pytest.mark.parametrize("payload", [b"\xff" * 20, b"\x06" * 20, b"no deflate"])
def test_what_does_not_inflate(kind: str, frames: int, payload: bytes) -> None:
    with attacked(kind, deflate=True) as victim:
        for piece in in_frames(victim, BINARY, payload, frames):
            send_all(victim, piece)
        victim.fails(1007, syncws.InvalidPayloadError)


# -- Fragments ---------------------------------------------------------------


@every_end
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflated"])
@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "a byte"])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_fragments_without_end(kind: str, opcode: int, payload: bytes, compressed: bool) -> None:
    if compressed and payload:
        payload = b"\x00"  # the first byte of a stored block, then its length, then what is in it
    with attacked(kind, deflate=compressed, peak=2 * MIB) as victim:
        first = victim.frame(opcode, payload, fin=False, rsv=_RSV1 if compressed else 0)
        send_all(victim, first)
        more = victim.frame(CONT, payload, fin=False)
        wire = more * 1000
        for _ in range(4):
            send_all(victim, wire)
        victim.others.served()  # 4001 are within what is allowed
        send_all(victim, wire)
        if compressed and payload:
            # A stored block whose length is not confirmed, so that is known earlier.
            victim.fails(1007, syncws.InvalidPayloadError)
        else:
            victim.fails(1009, syncws.PayloadTooBigError)


@pytest.mark.parametrize("kind", ["server", "client"])
def test_fragments_without_end_for_a_callback_that_streams(kind: str) -> None:
    with attacked(kind, service=Streaming(), peak=2 * MIB) as victim:
        send_all(victim, victim.frame(BINARY, fin=False) + victim.frame(CONT, fin=False) * 5000)
        victim.fails(1009, syncws.PayloadTooBigError)


@every_end
def test_the_last_fragment_that_is_allowed(kind: str) -> None:
    with attacked(kind, max_fragments=10) as victim:
        for _ in range(2):
            send_all(victim, victim.frame(BINARY, b"x", fin=False))
            send_all(victim, victim.frame(CONT, b"x", fin=False) * 8)
            send_all(victim, victim.frame(CONT, b"x"))
            victim.receives(b"x" * 10)
        send_all(victim, victim.frame(BINARY, b"x", fin=False))
        send_all(victim, victim.frame(CONT, b"x", fin=False) * 9)
        victim.others.served()
        send_all(victim, victim.frame(CONT, b"x"))
        victim.fails(1009, syncws.PayloadTooBigError)


# -- UTF-8 -------------------------------------------------------------------

# What can begin no UTF-8, cut where that is known; of surrogates the decoder of Python
# wants to see the third byte, too.
_BAD = {
    "lone continuation": b"\x80",
    "overlong slash": b"\xc0",
    "overlong in 2": b"\xc1",
    "overlong in 3": b"\xe0\x80",
    "overlong in 3, highest": b"\xe0\x9f",
    "overlong in 4": b"\xf0\x80",
    "overlong in 4, highest": b"\xf0\x8f",
    "first surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "above U+10FFFF": b"\xf4\x90",
    "far above": b"\xf5",
    "5 bytes": b"\xf8",
    "6 bytes": b"\xfc",
    "FE": b"\xfe",
    "FF": b"\xff",
    "cut by a letter": b"\xe2\x82x",
    "cut by another": b"\xe2\x82\xe2",
    "cut by a NUL": b"\xf0\x9f\x00",
}
# What could go on, but is over.
_TRUNCATED = {
    "1 of 2": b"\xc3",
    "1 of 3": b"\xe2",
    "2 of 3": b"\xe2\x82",
    "1 of 4": b"\xf0",
    "3 of 4": b"\xf0\x9f\x98",
}

_bad = pytest.mark.parametrize("bad", _BAD.values(), ids=_BAD)
_truncated = pytest.mark.parametrize("bad", _TRUNCATED.values(), ids=_TRUNCATED)


def fails_as_text(victim: Victim) -> None:
    """Assert that a text is refused that is not UTF-8."""
    victim.fails(1007, syncws.InvalidPayloadError)


@every_end
@_bad
def test_text_that_is_no_utf_8(kind: str, bad: bytes) -> None:
    with attacked(kind) as victim:
        victim.peer.text("good")
        victim.receives("good")
        victim.peer.send(TEXT, b"good" + bad + b"good")
        fails_as_text(victim)


@every_end
@_bad
@pytest.mark.parametrize("size", [100, 100_000])
def test_text_is_refused_before_its_frame_is_complete(kind: str, bad: bytes, size: int) -> None:
    with attacked(kind) as victim:
        whole = victim.frame(TEXT, "gööd".encode() + bad + bytes(size))
        # The peer waits then: what is known to be wrong has to be refused now.
        victim.peer.send_bytes(whole[:-size])
        fails_as_text(victim)


@every_end
@_bad
def test_text_is_refused_before_its_last_fragment(kind: str, bad: bytes) -> None:
    with attacked(kind) as victim:
        victim.peer.send(TEXT, b"good" + bad, fin=False)
        fails_as_text(victim)


@every_end
@_bad
def test_text_is_refused_whose_bytes_are_in_fragments_of_their_own(kind: str, bad: bytes) -> None:
    with attacked(kind) as victim:
        victim.peer.send(TEXT, b"", fin=False)
        for number in range(len(bad)):
            victim.peer.round_trip()
            victim.peer.send(CONT, bad[number : number + 1], fin=False)
        fails_as_text(victim)


@every_end
@_bad
def test_compressed_text_is_refused_before_its_last_fragment(kind: str, bad: bytes) -> None:
    # The last four bytes of a flush, which are left out of a whole message, bring it all out.
    with attacked(kind, deflate=True) as victim:
        payload = deflated(b"good" + bad) + b"\x00\x00\xff\xff"
        victim.peer.send(TEXT, payload, fin=False, rsv=_RSV1)
        fails_as_text(victim)


@every_end
@pytest.mark.parametrize("bad", [*_BAD.values(), *_TRUNCATED.values()], ids=[*_BAD, *_TRUNCATED])
def test_compressed_text_that_is_no_utf_8(kind: str, bad: bytes) -> None:
    with attacked(kind, deflate=True) as victim:
        victim.peer.send(TEXT, deflated(b"good" + bad), rsv=_RSV1)
        fails_as_text(victim)


@every_end
@_truncated
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_text_that_ends_within_a_character(kind: str, bad: bytes, frames: int) -> None:
    with attacked(kind) as victim:
        pieces = {1: [b"good" + bad], 2: [b"good", bad], 3: [b"good", bad, b""]}[frames]
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            victim.peer.send(CONT if number else TEXT, piece, fin=last)
        fails_as_text(victim)


_CHARACTERS = "aß€😀\0\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"


@every_end
@pytest.mark.parametrize("way", ["fragments", "writes", "compressed fragments"])
def test_text_may_be_cut_anywhere(kind: str, way: str) -> None:
    data = _CHARACTERS.encode()
    with attacked(kind, deflate=way.startswith("compressed")) as victim:
        if way == "writes":
            for byte in victim.frame(TEXT, data):
                victim.peer.send_bytes(bytes((byte,)))
        elif way == "fragments":
            victim.peer.send(TEXT, b"", fin=False)
            for byte in data:
                victim.peer.send(CONT, bytes((byte,)), fin=False)
            victim.peer.send(CONT)
        else:
            payload = deflated(data)
            for piece in in_frames(victim, TEXT, payload, len(payload)):
                victim.peer.send_bytes(piece)
        victim.receives(_CHARACTERS)


@every_end
@_bad
def test_what_is_no_utf_8_is_fine_in_a_binary_message(kind: str, bad: bytes) -> None:
    with attacked(kind) as victim:
        victim.peer.send(BINARY, bad)
        victim.receives(bad)


@every_end
@_bad
def test_close_reasons_that_are_no_utf_8(kind: str, bad: bytes) -> None:
    with attacked(kind) as victim:
        victim.peer.send(0x8, close_payload(1000) + bad)
        fails_as_text(victim)
