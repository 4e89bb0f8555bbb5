from __future__ import annotations

import itertools
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from syncws import native
from syncws.config import Compression, ConnectionConfig
from syncws.errors import (
    Close,
    InvalidContinuationFrameError,
    InvalidPayloadError,
    PayloadTooBigError,
    ProtocolError,
    WebSocketError,
)
from syncws.protocol import decoder as decoder_module
from syncws.protocol import encoder as encoder_module
from syncws.protocol import plain
from syncws.protocol.codec import make_codec
from syncws.protocol.decoder import Decoder
from syncws.protocol.deflate import DeflateParams, Inflate
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

FIN = 0x80
RSV1 = 0x40
CONTINUATION = 0x0
KEY = b"\x37\xfa\x21\x3d"
PARAMS = DeflateParams(False, False, 12, 12)

ROLES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
SIZES = [0, 1, 125, 126, 127, 65_535, 65_536]


@pytest.fixture(autouse=True, scope="module", params=["C", "Python"])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test with the loops of the extension, and with those in Python."""
    if request.param == "C" and native.extension is None:
        pytest.skip("the C extension is not in use")
    source = native.extension if request.param == "C" else plain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_module, "read_frames", source.read_frames)
        patch.setattr(decoder_module, "Payload", source.Payload)
        patch.setattr(encoder_module, "frame", source.frame)
        yield


# -- Frames by the letter of RFC 6455 section 5.2 --------------------


def xor(data: bytes, key: bytes) -> bytes:
    size = len(data)
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")


def header(first: int, size: int, *, masked: bool, width: int | None = None) -> bytes:
    """Write a frame's header up to the key; `width` is that of the extended length, in bytes."""
    if width is None:
        width = 0 if size < 126 else 2 if size < 65_536 else 8
    short = size if width == 0 else 126 if width == 2 else 127
    return bytes((first, short | (0x80 if masked else 0))) + (
        size.to_bytes(width, "big") if width else b""
    )


def frame(first: int, payload: bytes = b"", *, to_client: bool, width: int | None = None) -> bytes:
    start = header(first, len(payload), masked=not to_client, width=width)
    return start + payload if to_client else start + KEY + xor(payload, KEY)


def close_body(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


# -- Ways to cut bytes -----------------------------------------------


def pieces(data: bytes, step: int) -> Iterator[bytes]:
    return (data[pos : pos + step] for pos in range(0, len(data), step))


def cut(data: bytes, how: str) -> list[bytes]:
    if how == "whole":
        return [data]
    if how == "halves":
        middle = len(data) // 2
        return [data[:middle], data[middle:]]
    # One at a time as long as that is affordable; beyond, a header and the
    # first bytes so, and the rest in pieces that no key and no word divides.
    head, rest = data[:600], data[600:]
    return [*pieces(head, 1), *pieces(rest, 4093)]


CUTS = pytest.mark.parametrize("how", ["whole", "halves", "bytes"])


def feed(decoder: Decoder, chunks: list[bytes]) -> list[Event]:
    return [event for chunk in chunks for event in decoder.receive(chunk)]


def only_error(events: list[Event]) -> WebSocketError:
    assert [event.opcode for event in events] == [ERROR], events
    error = events[0].data
    assert isinstance(error, WebSocketError)
    return error


def sample(opcode: int, size: int) -> Any:
    """Return a message whose payload has `size` bytes; text has characters of every width."""
    if opcode == BINARY:
        return random.Random(size).randbytes(size)
    full, rest = divmod(size, 10)
    return "aé€𝄞" * full + "." * rest


def as_payload(data: Any) -> bytes:
    return data.encode() if isinstance(data, str) else data


# -- One message -----------------------------------------------------


@ROLES
@CUTS
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_a_message_of_one_frame(client: bool, how: str, size: int, opcode: int) -> None:
    data = sample(opcode, size)
    wire = frame(FIN | opcode, as_payload(data), to_client=client)
    after = frame(FIN | BINARY, b"after", to_client=client)
    events = feed(Decoder(client=client), cut(wire + after, how))
    assert events == [Event(opcode, data), Event(BINARY, b"after")]
    assert type(events[0].data) is (str if opcode == TEXT else bytes)


@ROLES
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_a_message_of_a_mebibyte(client: bool, opcode: int) -> None:
    data = sample(opcode, 1 << 20)
    wire = frame(FIN | opcode, as_payload(data), to_client=client)
    decoder = Decoder(client=client, max_message_size=1 << 20)
    assert feed(decoder, [wire[:7], *pieces(wire[7:], 65_521)]) == [Event(opcode, data)]


@ROLES
@pytest.mark.parametrize("size", [*SIZES, 1 << 20])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_what_one_end_encodes_the_other_decodes(client: bool, size: int, opcode: int) -> None:
    data = sample(opcode, size)
    wire = Encoder(client=client).message(opcode, as_payload(data))
    assert type(wire) is bytes
    # The length field is minimal, and a client's frame is masked.
    assert wire.startswith(header(FIN | opcode, size, masked=client))
    assert len(wire) == len(header(FIN | opcode, size, masked=client)) + 4 * client + size
    assert feed(Decoder(client=not client), cut(wire, "halves")) == [Event(opcode, data)]


def test_every_frame_of_a_client_has_a_new_key() -> None:
    encoder = Encoder(client=True)
    keys = {encoder.message(BINARY, b"")[2:6] for _ in range(20)}
    keys |= {encoder.ping(b"")[2:6] for _ in range(20)}
    assert len(keys) == 40


@ROLES
def test_many_messages_in_one_chunk_come_in_order(client: bool) -> None:
    wire = b"".join(
        frame(FIN | BINARY, bytes([n]) * (n % 130), to_client=client) for n in range(256)
    )
    for how in ("whole", "halves", "bytes"):
        events = feed(Decoder(client=client), cut(wire, how))
        assert events == [Event(BINARY, bytes([n]) * (n % 130)) for n in range(256)]


def test_nothing_comes_of_nothing() -> None:
    decoder = Decoder(client=True)
    assert decoder.receive(b"") == []
    assert decoder.receive(b"\x82") == []
    assert decoder.receive(b"") == []
    assert decoder.receive(b"\x00") == [Event(BINARY, b"")]


@ROLES
@CUTS
def test_whether_a_message_is_under_way(client: bool, how: str) -> None:
    decoder = Decoder(client=client)
    assert not decoder.in_message
    wire = frame(FIN | BINARY, b"a" * 200, to_client=client)
    for chunk in cut(wire[:-1], how):
        decoder.receive(chunk)
    assert decoder.in_message
    assert len(decoder.receive(wire[-1:])) == 1
    assert not decoder.in_message
    # Half a ping is no message, but fragments are, also between their frames.
    wire = frame(FIN | PING, b"a" * 100, to_client=client)
    decoder.receive(wire[:-1])
    assert not decoder.in_message
    decoder.receive(wire[-1:])
    decoder.receive(frame(BINARY, b"a", to_client=client))
    assert decoder.in_message
    decoder.receive(frame(FIN | CONTINUATION, b"a", to_client=client))
    assert not decoder.in_message


# -- Both ends, with and without compression -------------------------


def connect(
    client: bool, *, deflate: bool, **decoding: bool
) -> tuple[tuple[Decoder, Encoder], tuple[Decoder, Encoder]]:
    """Return our half of the protocol and the peer's."""
    config = ConnectionConfig(
        compression=Compression(threshold=10), max_message_size=1 << 21, max_fragments=None
    )
    params = DeflateParams(False, True, 11, 14) if deflate else None
    return (
        make_codec(config, params, client=client, **decoding),
        make_codec(config, params, client=not client, **decoding),
    )


DEFLATE = pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])


@ROLES
@DEFLATE
@CUTS
def test_a_conversation(client: bool, deflate: bool, how: str) -> None:
    (decoder, _), (_, encoder) = connect(client, deflate=deflate)
    expected = []
    wire = b""
    # The second message of a size makes use of the window of the first.
    for size, opcode in itertools.product([0, 1, 9, 10, 11, 126, 126, 65_535, 65_536], [1, 2]):
        data = sample(opcode, size)
        expected.append(Event(opcode, data))
        wire += encoder.message(opcode, as_payload(data))
        expected.append(Event(PING, b"p"))
        wire += encoder.ping(b"p")
    assert feed(decoder, cut(wire, how)) == expected


@ROLES
@DEFLATE
@CUTS
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_fragments_become_one_message(client: bool, deflate: bool, how: str, opcode: int) -> None:
    (decoder, _), (_, encoder) = connect(client, deflate=deflate)
    parts = [sample(opcode, size) for size in (0, 130, 0, 1, 65_536, 20, 0)]
    wire = b""
    for part in parts:
        wire += encoder.message(opcode, as_payload(part), final=False)
        wire += encoder.pong(b"between")
    wire += encoder.message(opcode, b"", final=True)
    wire += encoder.message(opcode, b"alone")
    whole = parts[0][:0].join(parts)
    assert feed(decoder, cut(wire, how)) == [
        *[Event(PONG, b"between")] * len(parts),
        Event(opcode, whole),
        Event(opcode, sample(opcode, 0) + ("alone" if opcode == TEXT else b"alone")),
    ]


@ROLES
@DEFLATE
@CUTS
@pytest.mark.parametrize("streamed", [TEXT, BINARY], ids=["text", "binary"])
def test_fragments_of_a_streamed_type_come_one_by_one(
    client: bool, deflate: bool, how: str, streamed: int
) -> None:
    (decoder, _), (_, encoder) = connect(
        client, deflate=deflate, stream_text=streamed == TEXT, stream_binary=streamed == BINARY
    )
    wire = b""
    expected = []
    for opcode in (TEXT, BINARY):
        parts = [sample(opcode, size) for size in (20, 0, 65_536, 3)]
        for i, part in enumerate(parts):
            final = i == len(parts) - 1
            wire += encoder.message(opcode, as_payload(part), final)
            wire += encoder.ping(b"x")
            if streamed == opcode:
                expected.append(Event(opcode, part, final))
            elif final:
                expected.append(Event(opcode, parts[0][:0].join(parts)))
            expected.append(Event(PING, b"x"))
        wire += encoder.message(opcode, as_payload(sample(opcode, 300)))
        expected.append(Event(opcode, sample(opcode, 300)))
    assert feed(decoder, cut(wire, how)) == expected


def test_a_character_cut_by_a_streamed_fragment_comes_with_the_next_one() -> None:
    decoder = Decoder(client=True, stream_text=True)
    assert decoder.receive(frame(TEXT, b"a\xe2\x82", to_client=True)) == [Event(TEXT, "a", False)]
    events = decoder.receive(frame(FIN, b"\xacz", to_client=True))
    assert events == [Event(TEXT, "€z", True)]


@ROLES
def test_compressed_frames_are_marked_and_short_ones_are_not_compressed(client: bool) -> None:
    _, (_, encoder) = connect(client, deflate=True)
    assert encoder.message(BINARY, b"a" * 9)[0] == FIN | BINARY
    assert encoder.message(BINARY, b"a" * 10)[0] == FIN | RSV1 | BINARY
    # How long a fragmented message becomes is not known at its beginning.
    assert encoder.message(TEXT, b"a", final=False)[0] == RSV1 | TEXT
    assert encoder.message(TEXT, b"a" * 10, final=False)[0] == CONTINUATION
    assert encoder.message(TEXT, b"a", final=True)[0] == FIN | CONTINUATION
    assert len(encoder.message(BINARY, b"a" * 60_000)) < 200


@ROLES
def test_each_end_uses_its_own_window_and_takeover(client: bool) -> None:
    params = DeflateParams(True, False, 9, 15)
    config = ConnectionConfig(compression=Compression(threshold=0))
    ours = make_codec(config, params, client=client)
    peers = make_codec(config, params, client=not client)
    data = random.Random(1).randbytes(2000)
    # What goes further back than 512 bytes is found in the client's window
    # only, and what a server said before is never used again.
    for (_, encoder), (decoder, _), from_client in [
        (ours, peers, client),
        (peers, ours, not client),
    ]:
        twice = encoder.message(BINARY, data + data)
        again = encoder.message(BINARY, data)
        assert (len(twice) < 3000) is from_client
        assert (len(again) < 200) is from_client
        assert decoder.receive(twice + again) == [Event(BINARY, data + data), Event(BINARY, data)]


def deflated(data: bytes) -> bytes:
    squeezer = zlib.compressobj(6, zlib.DEFLATED, -12)
    return (squeezer.compress(data) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def finished(data: bytes) -> bytes:
    """Deflate to a stream that ends: its last block has BFINAL."""
    squeezer = zlib.compressobj(6, zlib.DEFLATED, -12)
    return squeezer.compress(data) + squeezer.flush()


# RFC 7692 section 7.2.3.4: a stream may end within a message, or with it.
ENDED = {
    "ended": finished(b"one"),
    "ended, and an empty block": finished(b"one") + b"\0",
    "two": finished(b"one") + finished(b"two"),
    "ended, and one that goes on": finished(b"one") + deflated(b"two"),
    "many": finished(b"one") * 60,
    "too many": finished(b"one") * 70,
    "ended, and no stream": finished(b"one") + b"\xff\xff",
    "ended, and too much": finished(b"one") + finished(bytes(5000)),
    "cut": finished(b"one")[:-1],
}


@pytest.mark.parametrize("takeover", [False, True])
@pytest.mark.parametrize("payload", ENDED.values(), ids=ENDED)
def test_streams_that_end_come_to_the_same_whole_and_in_pieces(
    payload: bytes, takeover: bool
) -> None:
    wire = frame(FIN | RSV1 | BINARY, payload, to_client=False)
    wire += frame(FIN | RSV1 | BINARY, deflated(b"next"), to_client=False)

    def outcome(how: str) -> list[Any]:
        inflate = Inflate(window_bits=12, no_context_takeover=not takeover, max_message_size=4000)
        decoder = Decoder(client=False, inflate=inflate)
        events = feed(decoder, cut(wire, how))
        return [
            (event.opcode, str(event.data) if event.opcode == ERROR else event.data)
            for event in events
        ]

    assert outcome("whole") == outcome("bytes")


def test_a_compressor_that_rests_is_given_back() -> None:
    (decoder, _), (_, encoder) = connect(True, deflate=True)
    assert encoder._deflate is not None
    encoder.rest()
    text = random.Random(2).randbytes(300).hex()

    def sent() -> int:
        frame = encoder.message(TEXT, text.encode())
        assert decoder.receive(frame) == [Event(TEXT, text)]
        return len(frame)

    first = sent()
    assert sent() < first / 4  # it remembers
    encoder.rest()  # something was sent since the last time
    assert encoder._deflate._compressor is not None
    assert sent() < first / 4
    encoder.rest()
    encoder.rest()
    assert encoder._deflate._compressor is None
    assert sent() == first
    assert sent() < first / 4


def test_no_rest_within_a_fragmented_message() -> None:
    (decoder, _), (_, encoder) = connect(True, deflate=True)
    assert encoder._deflate is not None
    wire = encoder.message(TEXT, b"once " * 50, final=False)
    encoder.rest()
    encoder.rest()
    assert encoder._deflate._compressor is not None
    wire += encoder.message(TEXT, b"twice " * 50)
    assert decoder.receive(wire) == [Event(TEXT, "once " * 50 + "twice " * 50)]


@pytest.mark.parametrize("compression", [False, True])
def test_no_compression_without_an_agreement_or_with_compression_off(compression: bool) -> None:
    config = ConnectionConfig(compression=compression)
    decoder, encoder = make_codec(config, None if compression else PARAMS, client=True)
    assert encoder.message(BINARY, b"a" * 1000)[0] == FIN | BINARY
    error = only_error(decoder.receive(frame(FIN | RSV1 | BINARY, b"a", to_client=True)))
    assert error.status_code == 1002


def test_make_codec_hands_on_the_limits() -> None:
    config = ConnectionConfig(max_message_size=50, max_frame_size=20, max_fragments=3)
    for params in (None, PARAMS):
        decoder, _ = make_codec(config, params, client=True)
        assert "max_frame_size, 20" in str(only_error(decoder.receive(b"\x82\x15")))
        decoder, _ = make_codec(config, params, client=True)
        events = feed(decoder, [b"\x02\x14" + b"a" * 20, b"\x00\x14" + b"a" * 20, b"\x80\x0b"])
        assert "max_message_size, 50" in str(only_error(events))
        decoder, _ = make_codec(config, params, client=True)
        events = feed(decoder, [b"\x02\x00", b"\x00\x00", b"\x00\x00", b"\x80\x00"])
        assert "max_fragments, 3" in str(only_error(events))


def test_an_uncompressed_message_between_compressed_ones() -> None:
    _, encoder = make_codec(ConnectionConfig(), PARAMS, client=False)
    decoder, _ = make_codec(ConnectionConfig(), PARAMS, client=True)
    text = b"again and again " * 20
    wire = encoder.message(TEXT, text) + frame(FIN | TEXT, text, to_client=True)
    wire += frame(TEXT, text, to_client=True) + frame(FIN, text, to_client=True)
    wire += encoder.message(TEXT, text)
    assert feed(decoder, cut(wire, "bytes")) == [
        Event(TEXT, text.decode()),
        Event(TEXT, text.decode()),
        Event(TEXT, (text * 2).decode()),
        Event(TEXT, text.decode()),
    ]


# -- Control frames --------------------------------------------------


@ROLES
@CUTS
@pytest.mark.parametrize("size", [0, 1, 124, 125])
def test_pings_and_pongs(client: bool, how: str, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    encoder = Encoder(client=not client)
    wire = encoder.ping(payload) + encoder.pong(payload)
    assert wire[0] == FIN | PING
    assert feed(Decoder(client=client), cut(wire, how)) == [
        Event(PING, payload),
        Event(PONG, payload),
    ]


@ROLES
@CUTS
@pytest.mark.parametrize(
    ("close", "body"),
    [
        (Close(1000), b"\x03\xe8"),
        (Close(1000, "bye"), b"\x03\xe8bye"),
        (Close(1005), b""),
        (Close(1001, "é" * 61), b"\x03\xe9" + "é".encode() * 61),
        (Close(4999, "x" * 123), b"\x13\x87" + b"x" * 123),
    ],
)
def test_close_frames(client: bool, how: str, close: Close, body: bytes) -> None:
    wire = Encoder(client=not client).close(close)
    assert wire[:2] == header(FIN | CLOSE, len(body), masked=not client)
    if client:
        assert wire == frame(FIN | CLOSE, body, to_client=True)
    events = feed(Decoder(client=client), cut(wire, how))
    assert events == [Event(CLOSE, close)]
    assert type(events[0].data.code) is int


VALID_CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
# wsproto does not know 1014, which was assigned later.
KNOWN_CODES = [code for code in VALID_CODES if code != 1014]
INVALID_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]


@ROLES
@pytest.mark.parametrize("code", VALID_CODES)
def test_close_codes_that_may_be_on_the_wire(client: bool, code: int) -> None:
    wire = frame(FIN | CLOSE, close_body(code), to_client=client)
    assert Decoder(client=client).receive(wire) == [Event(CLOSE, Close(code))]


@ROLES
@pytest.mark.parametrize("code", INVALID_CODES)
def test_close_codes_that_may_not(client: bool, code: int) -> None:
    # RFC 6455 section 7.4.
    wire = frame(FIN | CLOSE, close_body(code), to_client=client)
    error = only_error(Decoder(client=client).receive(wire))
    assert type(error) is ProtocolError
    assert error.status_code == 1002
    assert "CLOSE" in str(error)


def test_a_close_frame_with_half_a_code() -> None:
    error = only_error(Decoder(client=True).receive(b"\x88\x01\x03"))
    assert type(error) is ProtocolError
    assert "1 byte" in str(error)


def test_a_close_reason_that_is_not_utf_8() -> None:
    wire = frame(FIN | CLOSE, close_body(1000, b"\xff"), to_client=True)
    error = only_error(Decoder(client=True).receive(wire))
    assert type(error) is InvalidPayloadError
    assert error.status_code == 1007


@ROLES
@CUTS
@pytest.mark.parametrize("body", [b"", close_body(1000), close_body(999)])
def test_what_comes_behind_a_close_or_an_error_is_ignored(
    client: bool, how: str, body: bytes
) -> None:
    wire = frame(FIN | CLOSE, body, to_client=client)
    wire += frame(FIN | TEXT, b"late", to_client=client) + b"\xff" * 20
    decoder = Decoder(client=client)
    events = feed(decoder, cut(wire, how))
    assert [event.opcode for event in events] == [ERROR if body == close_body(999) else CLOSE]
    assert decoder.receive(frame(FIN | TEXT, b"late", to_client=client)) == []


@ROLES
@pytest.mark.parametrize("body", [close_body(1000), close_body(999)])
def test_what_comes_behind_the_end_of_a_close_in_one_chunk_is_ignored(
    client: bool, body: bytes
) -> None:
    wire = frame(FIN | CLOSE, body, to_client=client)
    late = frame(FIN | TEXT, b"late", to_client=client)
    for at in range(1, len(wire)):
        decoder = Decoder(client=client)
        assert decoder.receive(wire[:at]) == []
        events = decoder.receive(wire[at:] + late)
        assert [event.opcode for event in events] == [ERROR if body == close_body(999) else CLOSE]


def test_messages_before_a_close_in_the_same_chunk_are_delivered() -> None:
    wire = frame(FIN | TEXT, b"last", to_client=True) + b"\x88\x00"
    assert Decoder(client=True).receive(wire) == [Event(TEXT, "last"), Event(CLOSE, Close(1005))]


def test_messages_before_an_error_in_the_same_chunk_are_delivered() -> None:
    wire = frame(FIN | TEXT, b"last", to_client=True) + b"\x83\x00"
    events = Decoder(client=True).receive(wire)
    assert [event.opcode for event in events] == [TEXT, ERROR]


# -- Fragments -------------------------------------------------------


@ROLES
@pytest.mark.parametrize("payload", [b"", b"more"])
@pytest.mark.parametrize("first", [CONTINUATION, FIN | CONTINUATION])
def test_a_continuation_of_nothing(client: bool, payload: bytes, first: int) -> None:
    wire = frame(FIN | BINARY, b"whole", to_client=client)
    wire += frame(first, payload, to_client=client)
    events = Decoder(client=client).receive(wire)
    error = only_error(events[1:])
    assert type(error) is InvalidContinuationFrameError
    assert error.status_code == 1002
    assert "unexpected CONTINUATION" in str(error)


@ROLES
@pytest.mark.parametrize("first", [TEXT, BINARY, FIN | TEXT, FIN | BINARY])
def test_a_new_message_within_a_fragmented_one(client: bool, first: int) -> None:
    decoder = Decoder(client=client)
    assert decoder.receive(frame(TEXT, b"begun", to_client=client)) == []
    error = only_error(decoder.receive(frame(first, b"", to_client=client)))
    assert type(error) is InvalidContinuationFrameError
    assert "expected CONTINUATION" in str(error)


@ROLES
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_a_fragment_of_the_other_type_is_not_encoded(client: bool, opcode: int) -> None:
    encoder = Encoder(client=client)
    decoder = Decoder(client=not client)
    wire = encoder.message(opcode, b"a", final=False)
    names = {TEXT: "text", BINARY: "binary"}
    other = TEXT + BINARY - opcode
    for final in (True, False):
        with pytest.raises(InvalidContinuationFrameError) as caught:
            encoder.message(other, b"b", final)
        assert f"a fragmented {names[opcode]} message" in str(caught.value)
        assert f"before sending {names[other]}" in str(caught.value)
    wire += encoder.message(opcode, b"c", final=True)
    whole = "ac" if opcode == TEXT else b"ac"
    assert decoder.receive(wire) == [Event(opcode, whole)]
    assert decoder.receive(encoder.message(other, b"b"))[0].opcode == other


# -- Headers that are wrong ------------------------------------------


@ROLES
@pytest.mark.parametrize("opcode", [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_reserved_opcodes(client: bool, opcode: int) -> None:
    error = only_error(Decoder(client=client).receive(frame(FIN | opcode, to_client=client)))
    assert type(error) is ProtocolError
    assert str(error) == f"Invalid opcode {opcode:#x}"


@ROLES
@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("bits", [0x10, 0x20, 0x40, 0x70])
def test_reserved_bits(client: bool, opcode: int, bits: int) -> None:
    wire = frame(FIN | bits | opcode, to_client=client)
    error = only_error(Decoder(client=client).receive(wire))
    assert type(error) is ProtocolError
    assert "Reserved bit" in str(error)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_rsv1_on_a_control_frame_is_wrong_with_compression_too(opcode: int) -> None:
    decoder, _ = make_codec(ConnectionConfig(), PARAMS, client=True)
    error = only_error(decoder.receive(bytes((FIN | RSV1 | opcode, 0))))
    assert type(error) is ProtocolError


def test_rsv1_on_a_continuation_is_wrong() -> None:
    decoder, _ = make_codec(ConnectionConfig(), PARAMS, client=True)
    events = decoder.receive(b"\x01\x01a" + b"\xc0\x01b")
    assert type(only_error(events)) is ProtocolError


@ROLES
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_control_frame_in_fragments(client: bool, opcode: int) -> None:
    error = only_error(Decoder(client=client).receive(frame(opcode, to_client=client)))
    assert type(error) is ProtocolError
    assert "fragment control frame" in str(error)


@ROLES
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("width", [2, 8])
def test_a_control_frame_over_125_bytes(client: bool, opcode: int, width: int) -> None:
    wire = header(FIN | opcode, 126, masked=not client, width=width)
    # Its second byte says enough.
    error = only_error(Decoder(client=client).receive(wire[:2]))
    assert type(error) is ProtocolError
    assert "> 125" in str(error)


@ROLES
@CUTS
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_536])
@pytest.mark.parametrize("first", [FIN | TEXT, FIN | BINARY, TEXT])
def test_the_wrong_masking(client: bool, how: str, size: int, first: int) -> None:
    # RFC 6455 section 5.1.
    wire = frame(first, b"a" * size, to_client=not client)
    error = only_error(feed(Decoder(client=client), cut(wire, how)))
    assert type(error) is ProtocolError
    assert ("unexpected masked" if client else "unexpected unmasked") in str(error)


@ROLES
@pytest.mark.parametrize("opcode", [CLOSE, PING])
def test_the_wrong_masking_of_control_frames(client: bool, opcode: int) -> None:
    error = only_error(Decoder(client=client).receive(frame(FIN | opcode, to_client=not client)))
    assert "masked frame" in str(error)


@ROLES
@CUTS
@pytest.mark.parametrize(
    ("size", "width"), [(0, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65_535, 8)]
)
def test_lengths_that_are_not_minimal(client: bool, how: str, size: int, width: int) -> None:
    for first in (FIN | BINARY, BINARY):
        wire = frame(first, b"a" * size, to_client=client, width=width)
        error = only_error(feed(Decoder(client=client), cut(wire, how)))
        assert type(error) is ProtocolError
        assert f"Payload length used {width} bytes" in str(error)


@ROLES
def test_a_length_with_its_64th_bit(client: bool) -> None:
    wire = header(FIN | BINARY, 1 << 63, masked=not client, width=8)
    error = only_error(Decoder(client=client).receive(wire))
    assert type(error) is ProtocolError
    assert "MSB" in str(error)


def test_the_largest_length_there_is() -> None:
    decoder = Decoder(client=True)
    assert decoder.receive(header(FIN | BINARY, (1 << 63) - 1, masked=False) + b"begun") == []
    decoder = Decoder(client=True, max_message_size=1 << 40)
    error = only_error(decoder.receive(header(FIN | BINARY, (1 << 63) - 1, masked=False)))
    assert type(error) is PayloadTooBigError


def test_a_wrong_first_byte_is_refused_with_the_second() -> None:
    decoder = Decoder(client=False)
    assert decoder.receive(b"\x83") == []
    assert type(only_error(decoder.receive(b"\x80"))) is ProtocolError


# -- Text ------------------------------------------------------------

# Payloads, and how many of their bytes have come when they can only be wrong.
BAD_TEXT = [
    (b"\xff", 1),
    (b"ok\xc0\xaf...", 3),
    (b"a\xe2\x28\xa1...", 3),
    (b"\xed\xa0\x80", 3),  # a surrogate, of which Python wants to see all
    (b"\xf4\x90\x80\x80", 2),  # beyond U+10FFFF
    (b"\xf0\x80\x80\x80", 2),  # too long a form
    (b"abc\x80", 4),
    (b"abc\xe2\x82", 5),  # ends within a character
    (b"x" * 300 + b"\xf8" + b"y" * 300, 301),
]


@ROLES
@pytest.mark.parametrize(("payload", "known_at"), BAD_TEXT)
def test_text_that_is_not_utf_8_is_refused_with_the_byte_that_tells(
    client: bool, payload: bytes, known_at: int
) -> None:
    wire = frame(FIN | TEXT, payload, to_client=client)
    known_at += len(wire) - len(payload)
    decoder = Decoder(client=client)
    assert feed(decoder, list(pieces(wire[: known_at - 1], 1))) == []
    error = only_error(decoder.receive(wire[known_at - 1 : known_at]))
    assert type(error) is InvalidPayloadError
    assert error.status_code == 1007
    for how in ("whole", "halves"):
        assert only_error(feed(Decoder(client=client), cut(wire, how))).status_code == 1007


@ROLES
@pytest.mark.parametrize("streamed", [False, True])
def test_the_same_across_fragments(client: bool, streamed: bool) -> None:
    decoder = Decoder(client=client, stream_text=streamed)
    wire = frame(TEXT, b"a\xe2", to_client=client) + frame(PING, b"", to_client=client)[:0]
    wire += frame(CONTINUATION, b"\x82", to_client=client)
    good = feed(decoder, list(pieces(wire, 1)))
    assert good == ([Event(TEXT, "a", False), Event(TEXT, "", False)] if streamed else [])
    bad = frame(FIN | CONTINUATION, b"\x28...", to_client=client)
    assert decoder.receive(bad[:-4]) == []
    assert type(only_error(decoder.receive(bad[-4:-3]))) is InvalidPayloadError


def test_a_fragmented_text_that_ends_within_a_character() -> None:
    decoder = Decoder(client=True)
    assert decoder.receive(frame(TEXT, b"\xe2\x82", to_client=True)) == []
    error = only_error(decoder.receive(frame(FIN | CONTINUATION, b"", to_client=True)))
    assert type(error) is InvalidPayloadError


@pytest.mark.parametrize("at", [0, 3, 200, 70_000])
@CUTS
def test_the_error_names_the_byte(at: int, how: str) -> None:
    wire = frame(FIN | TEXT, b"a" * at + b"\xff" + b"b" * 3, to_client=True)
    error = only_error(feed(Decoder(client=True), cut(wire, how)))
    assert f"at byte {at}" in str(error)


def test_compressed_text_that_is_not_utf_8() -> None:
    decoder, _ = make_codec(ConnectionConfig(), PARAMS, client=True)
    squeezer = zlib.compressobj(6, zlib.DEFLATED, -12)
    body = squeezer.compress(b"a\xff" * 100) + squeezer.flush(zlib.Z_SYNC_FLUSH)
    wire = frame(FIN | RSV1 | TEXT, body[:-4], to_client=True)
    assert type(only_error(decoder.receive(wire))) is InvalidPayloadError


def test_compressed_data_that_does_not_inflate() -> None:
    decoder, _ = make_codec(ConnectionConfig(), PARAMS, client=True)
    wire = frame(FIN | RSV1 | BINARY, b"\xff" * 20, to_client=True)
    error = only_error(decoder.receive(wire))
    assert type(error) is InvalidPayloadError
    assert error.status_code == 1007


# -- Limits ----------------------------------------------------------


@ROLES
@CUTS
@pytest.mark.parametrize("limit", [1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("name", ["max_message_size", "max_frame_size"])
def test_a_frame_at_its_limit_and_one_byte_over(
    client: bool, how: str, limit: int, name: str
) -> None:
    limits: Any = {name: limit}
    wire = frame(FIN | BINARY, b"a" * limit, to_client=client)
    events = feed(Decoder(client=client, **limits), cut(wire, how))
    assert events == [Event(BINARY, b"a" * limit)]
    # The header alone is refused: nothing of the payload has come.
    wire = header(FIN | BINARY, limit + 1, masked=not client) + (b"" if client else KEY)
    error = only_error(feed(Decoder(client=client, **limits), cut(wire, how)))
    assert type(error) is PayloadTooBigError
    assert error.status_code == 1009
    assert f"{limit + 1} bytes is over {name}, {limit}" in str(error)


def test_a_short_frame_over_the_limit_that_has_come_whole() -> None:
    decoder = Decoder(client=True, max_message_size=3)
    assert type(only_error(decoder.receive(b"\x82\x04abcd"))) is PayloadTooBigError


@ROLES
@CUTS
def test_fragments_at_the_limit_and_one_byte_over(client: bool, how: str) -> None:
    begun = frame(TEXT, b"a" * 60, to_client=client) + frame(FIN | PING, b"", to_client=client)
    last = frame(FIN | CONTINUATION, b"b" * 40, to_client=client)
    again = begun + last
    decoder = Decoder(client=client, max_message_size=100)
    events = feed(decoder, cut(again * 2, how))
    assert events == [Event(PING, b""), Event(TEXT, "a" * 60 + "b" * 40)] * 2

    over = header(FIN | CONTINUATION, 41, masked=not client) + (b"" if client else KEY)
    events = feed(decoder, cut(begun + over, how))
    assert events[0] == Event(PING, b"")
    error = only_error(events[1:])
    assert type(error) is PayloadTooBigError
    assert "at least 101 bytes is over max_message_size, 100" in str(error)


@ROLES
def test_control_frames_do_not_count(client: bool) -> None:
    decoder = Decoder(client=client, max_message_size=1, max_frame_size=1, max_fragments=1)
    wire = frame(FIN | PING, b"p" * 125, to_client=client) * 3
    wire += frame(FIN | CLOSE, close_body(1000, b"r" * 123), to_client=client)
    events = decoder.receive(wire)
    assert [event.opcode for event in events] == [PING, PING, PING, CLOSE]


@ROLES
@CUTS
@pytest.mark.parametrize("size", [0, 1])
def test_the_number_of_fragments(client: bool, how: str, size: int) -> None:
    decoder = Decoder(client=client, max_fragments=5)
    start = frame(BINARY, b"a" * size, to_client=client)
    middle = frame(CONTINUATION, b"a" * size, to_client=client)
    last = frame(FIN | CONTINUATION, b"a" * size, to_client=client)
    for _ in range(2):
        events = feed(decoder, cut(start + middle * 3 + last, how))
        assert events == [Event(BINARY, b"a" * 5 * size)]
    error = only_error(feed(decoder, cut(start + middle * 5, how)))
    assert type(error) is PayloadTooBigError
    assert "max_fragments, 5" in str(error)


@ROLES
def test_a_compressed_message_at_the_limit_and_one_byte_over(client: bool) -> None:
    config = ConnectionConfig(max_message_size=10_000)
    _, encoder = make_codec(config, PARAMS, client=not client)
    decoder, _ = make_codec(config, PARAMS, client=client)
    assert decoder.receive(encoder.message(BINARY, b"a" * 10_000)) == [Event(BINARY, b"a" * 10_000)]
    error = only_error(decoder.receive(encoder.message(BINARY, b"a" * 10_001)))
    assert type(error) is PayloadTooBigError
    assert "inflates to more than max_message_size, 10000 bytes" in str(error)


def test_blocks_that_inflate_to_nothing_are_bounded_as_well() -> None:
    # A message may be larger deflated than inflated, but not by much.
    config = ConnectionConfig(max_message_size=1000)
    decoder, _ = make_codec(config, PARAMS, client=True)
    assert decoder.receive(header(FIN | RSV1 | BINARY, 3024, masked=False)) == []
    decoder, _ = make_codec(config, PARAMS, client=True)
    wire = header(FIN | RSV1 | BINARY, 3025, masked=False)
    assert type(only_error(decoder.receive(wire))) is PayloadTooBigError


def test_an_uncompressed_message_has_its_own_limit_with_compression_too() -> None:
    config = ConnectionConfig(max_message_size=1000)
    decoder, _ = make_codec(config, PARAMS, client=True)
    wire = header(BINARY, 600, masked=False) + b"a" * 600 + header(FIN, 401, masked=False)
    assert type(only_error(decoder.receive(wire))) is PayloadTooBigError


# -- How much at once ------------------------------------------------


def drain(decoder: Decoder, data: bytes) -> list[list[Event]]:
    """Return what each call gives until nothing is pending."""
    batches = [decoder.receive(data)]
    while decoder.pending:
        batches.append(decoder.receive(b""))
    return batches


def test_it_takes_a_break_from_many_messages() -> None:
    decoder = Decoder(client=True)
    data = b"".join(frame(FIN | TEXT, b"%d" % n, to_client=True) for n in range(1000))
    batches = drain(decoder, data + header(FIN | TEXT, 5, masked=False))
    assert len(batches) > 3
    assert max(map(len, batches)) <= 256
    events = [event for batch in batches for event in batch]
    assert events == [Event(TEXT, str(n)) for n in range(1000)]
    # Half a header is nothing to come back for.
    assert not decoder.pending
    assert decoder.receive(b"hello") == [Event(TEXT, "hello")]


def test_it_takes_a_break_from_what_inflates_to_a_lot() -> None:
    decoder = Decoder(client=True, inflate=new_inflate())
    messages = [bytes([n]) * 100_000 for n in range(30)]
    data = b"".join(frame(FIN | RSV1 | BINARY, deflated(m), to_client=True) for m in messages)
    assert len(data) < 30_000
    batches = drain(decoder, data)
    assert max(map(len, batches)) <= 3
    assert [event.data for batch in batches for event in batch] == messages


def test_more_may_come_during_a_break() -> None:
    decoder = Decoder(client=True)
    data = b"".join(frame(FIN | TEXT, b"%d" % n, to_client=True) for n in range(600))
    events = decoder.receive(data[:1999])
    assert decoder.pending
    for rest in (data[1999:], b"", b""):
        events += decoder.receive(rest)
    assert not decoder.pending
    assert events == [Event(TEXT, str(n)) for n in range(600)]


@pytest.mark.parametrize("last", ["close", "error"])
def test_the_end_comes_behind_a_break(last: str) -> None:
    decoder = Decoder(client=True)
    data = frame(FIN | TEXT, b"x", to_client=True) * 300
    data += Encoder(client=False).close(Close(1001)) if last == "close" else b"\xff\xff"
    batches = drain(decoder, data + frame(FIN | TEXT, b"ignored", to_client=True) * 300)
    opcodes = [event.opcode for batch in batches for event in batch]
    assert opcodes == [TEXT] * 300 + [CLOSE if last == "close" else ERROR]
    assert decoder.receive(b"more") == []


@pytest.mark.parametrize("first", [FIN | TEXT, FIN | BINARY, TEXT], ids=["text", "binary", "part"])
def test_a_message_in_tiny_pieces_takes_no_more_memory(first: int) -> None:
    size = 262_144
    decoder = Decoder(client=True)
    wire = frame(first, b"x" * size, to_client=True)
    chunks = list(pieces(wire, 2))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for chunk in chunks[:-1]:
            assert decoder.receive(chunk) == []
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.in_message
    assert now - before < 10 * size  # where four bytes a character are over-allocated
    events = decoder.receive(chunks[-1])
    if first == TEXT:
        events += decoder.receive(frame(FIN | CONTINUATION, to_client=True))
    assert [len(event.data) for event in events] == [size]


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("size", [0, 1, 125])
def test_control_frames_of_the_encoder_are_by_the_letter(client: bool, size: int) -> None:
    encoder = Encoder(client=client)
    payload = b"p" * size
    peer = Decoder(client=not client)
    assert peer.receive(encoder.ping(payload)) == [Event(PING, payload)]
    assert peer.receive(encoder.pong(payload)) == [Event(PONG, payload)]
    # Amid a fragmented message, and without a part in its state.
    begun = encoder.message(TEXT, b"be", False) + encoder.ping(payload)
    assert peer.receive(begun) == [Event(PING, payload)]
    assert peer.receive(encoder.message(TEXT, b"gun", True)) == [Event(TEXT, "begun")]
    assert peer.receive(encoder.close(Close(4000, "é"))) == [Event(CLOSE, Close(4000, "é"))]


def test_without_limits_nothing_is_too_big() -> None:
    decoder = Decoder(client=True)
    wire = b"\x02\x01a" + b"\x00\x01b" * 10_000 + b"\x80\x01c"
    assert decoder.receive(wire) == [Event(BINARY, b"a" + b"b" * 10_000 + b"c")]


# -- The same bytes through wsproto alone ----------------------------

Outcome = list[tuple[int, int, Any]]  # the chunk that completed it, opcode, data


def by_wsproto(client: bool, deflate: bool, chunks: list[bytes]) -> Outcome:
    proto = FrameProtocol(client, [new_inflate()] if deflate else [])
    parts: list[Any] = []
    found: Outcome = []
    for i, chunk in enumerate(chunks):
        proto.receive_bytes(chunk)
        try:
            for got in proto.received_frames():
                if got.opcode is Opcode.CLOSE:
                    found.append((i, CLOSE, tuple(got.payload)))
                    return found
                parts.append(got.payload)
                if got.opcode.iscontrol():
                    found.append((i, int(got.opcode), parts.pop()))
                elif got.message_finished:
                    found.append((i, int(got.opcode), type(got.payload)().join(parts)))
                    parts = []
        except ParseFailed as exc:
            found.append((i, ERROR, int(exc.code)))
            return found
    return found


def by_decoder(client: bool, deflate: bool, chunks: list[bytes]) -> Outcome:
    decoder = Decoder(client=client, inflate=new_inflate() if deflate else None)
    found: Outcome = []
    for i, chunk in enumerate(chunks):
        for event in decoder.receive(chunk):
            data = event.data
            if event.opcode == ERROR:
                data = data.status_code
            elif event.opcode == CLOSE:
                data = tuple(data)
            found.append((i, event.opcode, data))
    return found


def new_inflate() -> Inflate:
    return Inflate(window_bits=12, no_context_takeover=False, max_message_size=None)


texts = st.text(max_size=60).map(str.encode) | st.binary(max_size=5)
binaries = st.binary(max_size=60) | st.sampled_from([b"a" * 126, b"b" * 300])
# A first byte and a payload; now and then one that cannot be right.
data_frames = st.one_of(
    st.tuples(st.just(FIN | TEXT), texts),
    st.tuples(st.just(FIN | BINARY), binaries),
    st.tuples(st.sampled_from([TEXT, BINARY]), texts),
    st.tuples(st.sampled_from([CONTINUATION, FIN | CONTINUATION]), texts),
    st.tuples(st.sampled_from([FIN | RSV1 | TEXT, FIN | RSV1 | BINARY]), texts.map(deflated)),
)
control_frames = st.one_of(
    st.tuples(st.sampled_from([FIN | PING, FIN | PONG]), st.binary(max_size=125)),
    st.tuples(
        st.just(FIN | CLOSE),
        st.builds(
            close_body,
            st.sampled_from([*KNOWN_CODES, *INVALID_CODES]),
            st.text(max_size=20).map(str.encode),
        ),
    ),
)
# In fragments that fit together, with control frames between them.
fragmented = st.tuples(
    st.sampled_from([TEXT, BINARY]), texts, st.lists(texts, max_size=3), control_frames
).map(
    lambda given: [
        (given[0], given[1]),
        *((CONTINUATION, part) for part in given[2]),
        given[3],
        (FIN | CONTINUATION, given[1]),
    ]
)
sequences = st.lists(
    st.one_of(data_frames.map(lambda one: [one]), control_frames.map(lambda one: [one]), fragmented)
    | data_frames.map(lambda one: [one]),
    min_size=1,
    max_size=6,
).map(lambda groups: [one for group in groups for one in group])


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(data=st.data(), client=st.booleans(), deflate=st.booleans(), frames=sequences)
def test_the_outcome_is_that_of_wsproto_and_comes_as_early(
    data: st.DataObject, client: bool, deflate: bool, frames: list[tuple[int, bytes]]
) -> None:
    wire = bytearray()
    for first, payload in frames:
        wire += frame(first, payload, to_client=client)
    positions = st.integers(0, len(wire) - 1)
    if data.draw(st.integers(0, 3), label="spoil") == 0:
        for at in data.draw(st.lists(positions, min_size=1, max_size=3), label="spoiled"):
            wire[at] = data.draw(st.integers(0, 255))
    step = data.draw(st.sampled_from([0, 0, 1, 2, 7]), label="step")
    if step:
        cuts = list(range(step, len(wire), step))
    else:
        cuts = sorted(data.draw(st.sets(positions, max_size=8), label="cuts"))
    borders = [0, *cuts, len(wire)]
    chunks = [bytes(wire[a:b]) for a, b in itertools.pairwise(borders)]
    assert by_decoder(client, deflate, chunks) == by_wsproto(client, deflate, chunks)
