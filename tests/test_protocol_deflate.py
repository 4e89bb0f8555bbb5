from __future__ import annotations

import itertools
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from syncws.config import Compression
from syncws.errors import HandshakeError
from syncws.protocol.deflate import Deflate, DeflateParams, Inflate, agree, choose, offer

WIDE: dict[str, Any] = {"server_max_window_bits": 15, "client_max_window_bits": 15}
PMD = "permessage-deflate"


# -- Negotiation -----------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Compression(), f"{PMD}; client_max_window_bits=12; server_max_window_bits=12"),
        (Compression(**WIDE), f"{PMD}; client_max_window_bits"),
        (
            Compression(**WIDE, server_no_context_takeover=True, client_no_context_takeover=True),
            f"{PMD}; client_max_window_bits; server_no_context_takeover; "
            "client_no_context_takeover",
        ),
    ],
)
def test_offer(config: Compression, expected: str) -> None:
    assert offer(config) == expected


def params(
    server: int = 15, client: int = 15, *, server_afresh: bool = False, client_afresh: bool = False
) -> DeflateParams:
    return DeflateParams(server_afresh, client_afresh, server, client)


@pytest.mark.parametrize(
    ("header", "config", "expected", "response"),
    [
        (PMD, WIDE, params(), PMD),
        (PMD, {}, params(12, 15), f"{PMD}; server_max_window_bits=12"),
        (
            f"{PMD}; client_max_window_bits",
            {},
            params(12, 12),
            f"{PMD}; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            f"{PMD};client_max_window_bits=10 ; server_max_window_bits = 9",
            {},
            params(9, 10),
            f"{PMD}; server_max_window_bits=9; client_max_window_bits=10",
        ),
        (
            f'{PMD}; client_max_window_bits="15"; server_max_window_bits="1\\5"',
            WIDE,
            params(),
            f"{PMD}; server_max_window_bits=15; client_max_window_bits=15",
        ),
        (
            f"{PMD}; server_no_context_takeover; client_no_context_takeover",
            WIDE,
            params(server_afresh=True, client_afresh=True),
            f"{PMD}; server_no_context_takeover; client_no_context_takeover",
        ),
        (
            PMD,
            {**WIDE, "server_no_context_takeover": True, "client_no_context_takeover": True},
            params(server_afresh=True, client_afresh=True),
            f"{PMD}; server_no_context_takeover; client_no_context_takeover",
        ),
        (f'x-other; a="b, {PMD}; x"; c, ,{PMD},', WIDE, params(), PMD),
        (
            f"{PMD}; client_max_window_bits=9, {PMD}",
            WIDE,
            params(15, 9),
            f"{PMD}; client_max_window_bits=9",
        ),
    ],
)
def test_choose(
    header: str, config: dict[str, Any], expected: DeflateParams, response: str
) -> None:
    assert choose([header], Compression(**config)) == (expected, response)
    # Several lines are one list. RFC 9110 section 5.3.
    assert choose(["x-first", header], Compression(**config)) == (expected, response)


BAD_BITS = ["0", "7", "8", "16", "x", "09", "", '""', '" 9"', "-9", "9.0", "15000000000000"]
BAD_PARAMS = [
    *(f"{side}_max_window_bits={bits}" for side in ("server", "client") for bits in BAD_BITS),
    "server_max_window_bits",
    "server_no_context_takeover=1",
    "client_no_context_takeover=",
    "client_no_context_takeover; client_no_context_takeover",
    "client_max_window_bits; client_max_window_bits",
    "server_max_window_bits=10; server_max_window_bits=10",
    "unknown",
    "unknown=1",
]


@pytest.mark.parametrize("bad", BAD_PARAMS)
def test_choose_declines_a_bad_offer_and_takes_the_next(bad: str) -> None:
    config = Compression(**WIDE)
    assert choose([f"{PMD}; {bad}"], config) is None
    assert choose([f"{PMD}; {bad}, {PMD}"], config) == (params(), PMD)


MALFORMED = [
    f"{PMD};",
    f"{PMD} x",
    f"; {PMD}",
    f"{PMD}; =1",
    f'{PMD}; a="',
    f'{PMD}; a="b"c',
    f"{PMD}; a=b=c",
    f"{PMD}; \xe9",
    f"{PMD}; a=\xe9",
    "\x00",
    '"',
]


@pytest.mark.parametrize("header", MALFORMED)
def test_choose_takes_a_malformed_header_as_no_offer(header: str) -> None:
    assert choose([header], Compression()) is None
    assert choose([PMD, header], Compression()) is None


@pytest.mark.parametrize("header", [[], [""], [" , "], ["x-other"], ["Permessage-Deflate2"]])
def test_choose_without_an_offer(header: list[str]) -> None:
    assert choose(header, Compression()) is None


def test_what_one_end_offers_the_other_accepts() -> None:
    for server, client in itertools.product(range(9, 16), repeat=2):
        for flags in itertools.product((False, True), repeat=4):
            ours = Compression(
                server_max_window_bits=server,
                client_max_window_bits=client,
                server_no_context_takeover=flags[0],
                client_no_context_takeover=flags[1],
            )
            theirs = Compression(
                server_no_context_takeover=flags[2], client_no_context_takeover=flags[3]
            )
            chosen = choose([offer(ours)], theirs)
            assert chosen is not None
            assert agree([chosen[1]], ours) == chosen[0]


@pytest.mark.parametrize(
    ("values", "config", "expected"),
    [
        ([], {}, None),
        ([""], {}, None),
        ([PMD], WIDE, params()),
        ([f"{PMD}; server_max_window_bits=11"], WIDE, params(11)),
        ([f"{PMD}; server_max_window_bits=11"], {}, params(11, 12)),
        ([f"{PMD}; client_max_window_bits=9"], WIDE, params(15, 9)),
        ([f"{PMD}; client_max_window_bits=15; server_max_window_bits=12"], {}, params(12, 12)),
        (
            [f"{PMD}; server_no_context_takeover; client_no_context_takeover"],
            WIDE,
            params(server_afresh=True, client_afresh=True),
        ),
        (
            [PMD],
            {**WIDE, "client_no_context_takeover": True},
            params(client_afresh=True),
        ),
    ],
)
def test_agree(values: list[str], config: dict[str, Any], expected: DeflateParams | None) -> None:
    assert agree(values, Compression(**config)) == expected


@pytest.mark.parametrize(
    ("values", "config", "text"),
    [
        (["x-other"], WIDE, "'x-other' was not offered"),
        ([f"{PMD}, x-other"], WIDE, "'x-other' was not offered"),
        ([PMD, PMD], WIDE, "more than once"),
        ([f"{PMD}; client_max_window_bits"], WIDE, "between 9 and 15, not None"),
        ([PMD], {}, "server_max_window_bits is 15, more than 12"),
        ([f"{PMD}; server_max_window_bits=13"], {}, "is 13, more than 12"),
        ([PMD], {**WIDE, "server_no_context_takeover": True}, "is missing"),
        *(([f"{PMD}; {bad}"], WIDE, "does not fit our offer") for bad in BAD_PARAMS),
        *(([bad], WIDE, "malformed") for bad in MALFORMED),
    ],
)
def test_agree_refuses(values: list[str], config: dict[str, Any], text: str) -> None:
    with pytest.raises(HandshakeError, match=text):
        agree(values, Compression(**config))


def test_agree_without_an_offer() -> None:
    assert agree([], None) is None
    for header in (PMD, "x-other"):
        with pytest.raises(HandshakeError, match="was not offered"):
            agree([header], None)


# -- At work ---------------------------------------------------------


def receiver(
    limit: int | None = None, *, bits: int = 15, afresh: bool = False, client: bool = True
) -> FrameProtocol:
    inflate = Inflate(window_bits=bits, no_context_takeover=afresh, max_message_size=limit)
    return FrameProtocol(client, [inflate])


def sender(
    *, bits: int = 15, afresh: bool = False, client: bool = False
) -> tuple[FrameProtocol, Deflate]:
    deflate = Deflate(window_bits=bits, no_context_takeover=afresh, level=6, mem_level=5)
    return FrameProtocol(client, [deflate]), deflate


def messages(proto: FrameProtocol, data: bytes, cut: int = 0) -> Iterator[tuple[Opcode, Any]]:
    """Feed `data` in pieces of `cut` bytes, or whole; yield whole messages and pings."""
    parts: list[Any] = []
    step = cut or max(len(data), 1)
    for start in range(0, len(data), step):
        proto.receive_bytes(data[start : start + step])
        for frame in proto.received_frames():
            if frame.opcode.iscontrol():
                yield frame.opcode, frame.payload
                continue
            parts.append(frame.payload)
            if frame.message_finished and frame.frame_finished:
                yield frame.opcode, parts[0][:0].join(parts)
                parts = []


def failure(proto: FrameProtocol, data: bytes, cut: int = 0) -> CloseReason:
    with pytest.raises(ParseFailed) as caught:
        list(messages(proto, data, cut))
    return caught.value.code


def frame(payload: bytes, *, first: int = 0xC2) -> bytes:
    """A frame from a server; RSV1, FIN and binary unless told otherwise."""
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 65536:
        return bytes([first, 126]) + size.to_bytes(2, "big") + payload
    return bytes([first, 127]) + size.to_bytes(8, "big") + payload


def squeeze(data: bytes, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    out = deflater.compress(data) + deflater.flush(mode)
    return out[:-4] if mode == zlib.Z_SYNC_FLUSH else out


SIZES = [0, 1, 125, 126, 65535, 65536]


@pytest.mark.parametrize("afresh", [False, True])
@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("client_sends", [False, True])
def test_there_and_back(bits: int, afresh: bool, client_sends: bool) -> None:
    out, deflate = sender(bits=bits, afresh=afresh, client=client_sends)
    into = receiver(bits=bits, afresh=afresh, client=not client_sends)
    noise = random.Random(bits)
    for size in SIZES * 2:
        payload = noise.randbytes(size // 2) + b"a" * (size - size // 2)
        wire = bytes(out.send_data(payload))
        assert wire[0] == 0xC2
        assert list(messages(into, wire)) == [(Opcode.BINARY, payload)]
        text = "\u20ac" * (size // 3)
        assert list(messages(into, bytes(out.send_data(text)))) == [(Opcode.TEXT, text)]
    assert (deflate._compressor is None) is afresh


@pytest.mark.parametrize("cut", [1, 7, 0])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 700])
def test_however_it_is_cut(size: int, cut: int) -> None:
    # From a client: the header is looked at again while its mask is missing.
    out, _ = sender(client=True)
    into = receiver(client=False)
    payload = random.Random(size).randbytes(size)
    for _ in range(3):
        wire = bytes(out.send_data(payload))
        assert list(messages(into, wire, cut)) == [(Opcode.BINARY, payload)]


def test_context_is_taken_over_or_not() -> None:
    payload = random.Random(1).randbytes(1000)
    keeps, _ = sender()
    first, second = len(keeps.send_data(payload)), len(keeps.send_data(payload))
    assert second < first / 10
    forgets, _ = sender(afresh=True)
    assert len(forgets.send_data(payload)) == len(forgets.send_data(payload)) == first


def test_an_empty_message_is_one_zero_byte() -> None:
    out, _ = sender()
    into = receiver()
    for payload in (b"", b"", b"x", b"", b"y"):
        wire = bytes(out.send_data(payload))
        if not payload:
            assert wire == b"\xc2\x01\x00"
        assert list(messages(into, wire)) == [(Opcode.BINARY, payload)]


@pytest.mark.parametrize("cut", [1, 0])
@pytest.mark.parametrize("afresh", [False, True])
@pytest.mark.parametrize("parts", [(b"ab", b"", b"cd"), (b"", b""), (b"x" * 70000, b"", b"y")])
def test_fragments_with_pings_between(parts: tuple[bytes, ...], afresh: bool, cut: int) -> None:
    out, _ = sender(afresh=afresh)
    into = receiver(afresh=afresh)
    for _ in range(2):
        wire = bytearray()
        for number, part in enumerate(parts):
            wire += out.ping(b"p")
            wire += out.send_data(part, fin=number == len(parts) - 1)
        expected = [*[(Opcode.PING, b"p")] * len(parts), (Opcode.BINARY, b"".join(parts))]
        assert list(messages(into, bytes(wire), cut)) == expected


def test_a_fragment_arrives_at_once() -> None:
    out, _ = sender()
    into = receiver()
    into.receive_bytes(bytes(out.send_data(b"first", fin=False)))
    assert b"".join(f.payload for f in into.received_frames()) == b"first"  # type: ignore[misc]


def test_the_first_frame_decides_about_compression() -> None:
    out, deflate = sender()
    into = receiver()
    deflate.compress_next = False
    plain = bytes(out.send_data(b"small", fin=False))
    deflate.compress_next = True
    plain += out.send_data(b"er")
    assert plain == b"\x02\x05small\x80\x02er"
    packed = bytes(out.send_data(b"big", fin=False))
    deflate.compress_next = False
    packed += out.send_data(b"ger")
    assert packed[0] == 0x42
    wire = packed + plain + bytes(out.send_data(b"no")) + out.pong(b"z")
    deflate.compress_next = True
    wire += out.send_data(b"bigger")
    assert [payload for _, payload in messages(into, wire)] == [
        b"bigger",
        b"smaller",
        b"no",
        b"z",
        b"bigger",
    ]


def test_nothing_is_created_before_it_is_needed() -> None:
    out, deflate = sender()
    deflate.compress_next = False
    inflate = Inflate(window_bits=15, no_context_takeover=False, max_message_size=None)
    assert list(messages(FrameProtocol(True, [inflate]), bytes(out.send_data(b"x"))))
    assert deflate._compressor is None
    assert inflate._decompressor is None


@pytest.mark.parametrize("half", [Inflate, Deflate])
def test_wsproto_does_not_negotiate(half: type[Inflate] | type[Deflate]) -> None:
    made: Inflate | Deflate
    if half is Inflate:
        made = Inflate(window_bits=15, no_context_takeover=False, max_message_size=1)
    else:
        made = Deflate(window_bits=15, no_context_takeover=False, level=6, mem_level=5)
    assert made.enabled()
    assert not made.offer()
    assert made.name == PMD


# -- Limits ----------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 0])
@pytest.mark.parametrize("fragments", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 126, 1000])
def test_the_limit_is_inflated_bytes_of_the_message(size: int, fragments: int, cut: int) -> None:
    def wire(total: int) -> bytes:
        out, _ = sender()
        payload = bytes(total)
        step = -(-total // fragments)
        cuts = [payload[i * step : (i + 1) * step] for i in range(fragments)]
        return b"".join(
            bytes(out.send_data(part, fin=number == fragments - 1))
            for number, part in enumerate(cuts)
        )

    accepts = receiver(size)
    # The count starts afresh with each message.
    for _ in range(3):
        into = receiver(size)
        assert list(messages(into, wire(size), cut)) == [(Opcode.BINARY, bytes(size))]
    assert list(messages(accepts, wire(size) + frame(squeeze(b"z")), cut))
    assert failure(receiver(size), wire(size + 1), cut) is CloseReason.MESSAGE_TOO_BIG
    assert failure(receiver(size), wire(size + 200), cut) is CloseReason.MESSAGE_TOO_BIG


def test_a_limit_of_nothing() -> None:
    assert list(messages(receiver(0), frame(b"\x00"))) == [(Opcode.BINARY, b"")]
    assert failure(receiver(0), frame(squeeze(b"x"))) is CloseReason.MESSAGE_TOO_BIG


def test_uncompressed_messages_are_not_counted() -> None:
    into = receiver(3)
    wire = frame(b"0123456789", first=0x82) + frame(squeeze(b"abc"))
    assert [payload for _, payload in messages(into, wire)] == [b"0123456789", b"abc"]


@pytest.mark.parametrize("fragments", [1, 16])
def test_a_bomb_is_refused_in_bounded_memory(fragments: int) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = deflater.compress(bytes(2**20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    parts = [megabyte * (1024 // fragments)] * fragments
    wire = b"".join(
        frame(part, first=(0x42 if not number else 0) | (0x80 if number == fragments - 1 else 0))
        for number, part in enumerate(parts)
    )
    assert zlib.decompressobj(-15).decompress(megabyte) == bytes(2**20)
    into = receiver(2**20)
    into.receive_bytes(wire)
    got = 0
    tracemalloc.start()
    try:
        with pytest.raises(ParseFailed) as caught:
            for part in into.received_frames():
                got += len(part.payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code is CloseReason.MESSAGE_TOO_BIG
    assert got <= 2**20
    assert peak < 8 * 2**20


# -- Broken and unusual streams --------------------------------------


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(b"\xff" * 10), CloseReason.INVALID_FRAME_PAYLOAD_DATA),
        (frame(b"\x06"), CloseReason.INVALID_FRAME_PAYLOAD_DATA),
        # The tail completes a stored block whose two lengths differ.
        (frame(b"\x00\x01"), CloseReason.INVALID_FRAME_PAYLOAD_DATA),
        (frame(b"", first=0xC9), CloseReason.PROTOCOL_ERROR),
        (frame(b"", first=0xC8), CloseReason.PROTOCOL_ERROR),
        (frame(squeeze(b"a"), first=0x42) + frame(b"", first=0xC0), CloseReason.PROTOCOL_ERROR),
        (frame(b"a", first=0x02) + frame(b"\x00", first=0xC0), CloseReason.PROTOCOL_ERROR),
        (frame(b"", first=0xA2), CloseReason.PROTOCOL_ERROR),
        (frame(b"", first=0x92), CloseReason.PROTOCOL_ERROR),
        (frame(b"x", first=0x80), CloseReason.PROTOCOL_ERROR),
        (frame(b"\xc1\x01\x00\xfe\xff\xff", first=0xC1), CloseReason.INVALID_FRAME_PAYLOAD_DATA),
    ],
)
@pytest.mark.parametrize("cut", [1, 0])
def test_broken(wire: bytes, code: CloseReason, cut: int) -> None:
    assert failure(receiver(1000), wire, cut) is code


def test_a_window_larger_than_agreed_is_an_error() -> None:
    payload = random.Random(3).randbytes(2000)
    out, _ = sender(bits=15)
    into = receiver(bits=9)
    assert list(messages(into, bytes(out.send_data(payload))))
    code = failure(into, bytes(out.send_data(payload)))
    assert code is CloseReason.INVALID_FRAME_PAYLOAD_DATA


FINISHED = squeeze(b"Hello", zlib.Z_FINISH)


@pytest.mark.parametrize("cut", [1, 0])
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (FINISHED, b"Hello"),
        # RFC 7692 section 7.2.3.4.
        (FINISHED + b"\x00", b"Hello"),
        (FINISHED + FINISHED, b"HelloHello"),
        (FINISHED + squeeze(b" you"), b"Hello you"),
        (squeeze(b"Hello") + b"\x00\x00\xff\xff" + FINISHED, b"HelloHello"),
        # An empty stored block that is final, its lengths cut off as the tail.
        (b"\x01", b""),
        # No block at all.
        (b"", b""),
    ],
)
def test_a_stream_that_ends_within_a_message(payload: bytes, expected: bytes, cut: int) -> None:
    into = receiver(1000)
    after = frame(squeeze(b"after"))
    for _ in range(2):
        wire = frame(payload) + frame(b"", first=0x89) + after
        got = [data for opcode, data in messages(into, wire, cut) if opcode is Opcode.BINARY]
        assert got == [expected, b"after"]


def test_a_stream_that_ends_between_fragments() -> None:
    wire = frame(FINISHED, first=0x42) + frame(b"", first=0x89) + frame(FINISHED, first=0x80)
    assert list(messages(receiver(10), wire))[1] == (Opcode.BINARY, b"HelloHello")
    assert failure(receiver(9), wire) is CloseReason.MESSAGE_TOO_BIG


def test_endless_streams_in_a_frame_are_refused() -> None:
    empty = squeeze(b"", zlib.Z_FINISH)
    assert list(messages(receiver(10), frame(empty * 64))) == [(Opcode.BINARY, b"")]
    code = failure(receiver(10), frame(empty * 65))
    assert code is CloseReason.INVALID_FRAME_PAYLOAD_DATA
