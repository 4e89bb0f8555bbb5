"""The loops over bytes: those in Python and those of the C extension do the same."""

from __future__ import annotations

import gc
import itertools
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncws import native
from syncws.protocol import kernels, plain
from syncws.protocol.events import BINARY, TEXT, Event
from syncws.protocol.plain import head

# Around every border that an implementation may have: words, the switch from
# integers to tables, what is unmasked on the stack, a frame's length fields.
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 125, 126, 127, 1023, 1024, 1025, 1027]
LARGE = [4081, 4082, 4083, 4095, 4096, 4097, 65_535, 65_536, 100_003]
KEYS = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04", b"\0\0\0\x80", b"\x37\xfa\x21\x3d"]
KEY = KEYS[-1]

FIN = 0x80
MASKED = 0x80
NO_LIMIT = (1 << 63) - 1

# Where the C extension makes room for more of a payload.
FIRST_ROOM = 1 << 20

C = pytest.mark.skipif(native.extension is None, reason="the C extension is not in use")
BOTH = ["Python", *(["C"] if native.extension is not None else [])]
ROLES = pytest.mark.parametrize("mask_bit", [MASKED, 0], ids=["masked", "plain"])


def of(name: str) -> Any:
    """Return one of the implementations."""
    return native.extension if name == "C" else plain


@pytest.fixture(params=BOTH)
def impl(request: pytest.FixtureRequest) -> Any:
    """The implementations, one after the other."""
    return of(request.param)


@pytest.fixture
def extension() -> Any:
    """The C extension."""
    return of("C")


def test_the_kernels_are_those_of_the_extension_if_there_is_one() -> None:
    source: Any = plain if native.extension is None else native.extension
    for name in kernels.__all__:
        assert getattr(kernels, name) is getattr(source, name)


# -- The protocol by the letter --------------------------------------


def by_definition(data: bytes, key: bytes) -> bytes:
    """RFC 6455 section 5.3, to the letter."""
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(data))


def header(first: int, size: int, *, masked: bool, width: int | None = None) -> bytes:
    """RFC 6455 section 5.2, to the letter; `width` is that of the extended length, in bytes."""
    if width is None:
        width = 0 if size < 126 else 2 if size < 65_536 else 8
    short = size if width == 0 else 126 if width == 2 else 127
    bit = 0x80 if masked else 0
    return bytes((first, bit | short)) + (size.to_bytes(width, "big") if width else b"")


def frame_of(
    opcode: int, payload: bytes, *, masked: bool, key: bytes = KEY, width: int | None = None
) -> bytes:
    start = header(FIN | opcode, len(payload), masked=masked, width=width)
    return start + (key + by_definition(payload, key) if masked else payload)


def text_of(size: int) -> bytes:
    """Return UTF-8 of `size` bytes with characters of every width."""
    full, rest = divmod(size, 10)
    return "aé€𝄞".encode() * full + b"." * rest


# -- mask ------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES + LARGE)
@pytest.mark.parametrize("key", KEYS, ids=bytes.hex)
def test_every_octet_is_xored_with_its_octet_of_the_key(impl: Any, size: int, key: bytes) -> None:
    data = random.Random(size).randbytes(size)
    masked = impl.mask(data, key)
    assert masked == by_definition(data, key)
    assert type(masked) is bytes
    assert impl.mask(masked, key) == data


def test_the_example_of_the_rfc(impl: Any) -> None:
    # RFC 6455 section 5.7.
    assert impl.mask(bytes.fromhex("7f9f4d5158"), bytes.fromhex("37fa213d")) == b"Hello"


@pytest.mark.parametrize("size", [1, 5, 5000])
def test_the_argument_is_not_changed(impl: Any, size: int) -> None:
    data = random.Random(size).randbytes(size)
    before = bytes(bytearray(data))
    impl.mask(data, b"abcd")
    assert data == before


def test_the_cached_bytes_of_python_are_not_written_to(impl: Any) -> None:
    # Empty bytes and those of one byte are one object for the whole process.
    for octet in range(256):
        impl.mask(bytes([octet]), b"\xff\xff\xff\xff")
        assert bytes([octet])[0] == octet
    assert impl.mask(b"", KEY) == b""


# -- read_frames -----------------------------------------------------


class Read(NamedTuple):
    """What came of `read_frames`."""

    events: list[Any]
    stop: int


def read(
    impl: Any,
    data: bytes | bytearray,
    mask_bit: int,
    *,
    pos: int = 0,
    end: int | None = None,
    limit: int = NO_LIMIT,
    most: int = 256,
) -> Read:
    events: list[Any] = []
    stop = len(data) if end is None else end
    return Read(events, impl.read_frames(data, pos, stop, mask_bit, limit, most, Event, events))


@ROLES
@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", SIZES + LARGE)
def test_a_frame_of_any_size(
    impl: Any, size: int, opcode: int, kind: Callable[[bytes], Any], mask_bit: int
) -> None:
    payload = text_of(size) if opcode == TEXT else random.Random(size).randbytes(size)
    wire = kind(frame_of(opcode, payload, masked=bool(mask_bit)))
    events, stop = read(impl, wire, mask_bit)
    assert stop == len(wire)
    (event,) = events
    assert event == (opcode, payload.decode() if opcode == TEXT else payload, True)
    assert type(event) is Event
    assert type(event.data) is (str if opcode == TEXT else bytes)
    assert event.final is True
    # One byte less, and there is none.
    for missing in (1, size // 2 + 1):
        assert read(impl, wire, mask_bit, end=len(wire) - missing) == ([], 0)


@ROLES
@pytest.mark.parametrize("size", [0, 1, 5, 126, 300])
def test_a_frame_cut_anywhere_is_not_read(impl: Any, size: int, mask_bit: int) -> None:
    wire = frame_of(BINARY, bytes(size), masked=bool(mask_bit))
    for cut in range(len(wire)):
        assert read(impl, wire[:cut], mask_bit) == ([], 0)
        # Nor is what stands behind the end looked at.
        assert read(impl, bytearray(wire), mask_bit, end=cut) == ([], 0)


@ROLES
def test_a_long_header_cut_anywhere_is_not_read(impl: Any, mask_bit: int) -> None:
    wire = frame_of(BINARY, bytes(70_000), masked=bool(mask_bit))
    for cut in range(20):
        assert read(impl, wire[:cut], mask_bit) == ([], 0)


@ROLES
def test_several_frames(impl: Any, mask_bit: int) -> None:
    payloads = [text_of(n * 7) for n in range(40)]
    frames = [
        frame_of(TEXT if n % 2 else BINARY, payload, masked=bool(mask_bit), key=KEYS[n % 5])
        for n, payload in enumerate(payloads)
    ]
    events, stop = read(impl, b"".join(frames), mask_bit)
    assert stop == sum(map(len, frames))
    assert [event.opcode for event in events] == [BINARY, TEXT] * 20
    assert [e.data if e.opcode == BINARY else e.data.encode() for e in events] == payloads


@ROLES
def test_what_stands_before_and_behind_is_not_looked_at(impl: Any, mask_bit: int) -> None:
    frame = frame_of(TEXT, b"one", masked=bool(mask_bit))
    wire = b"\x81\x00" + frame + frame[:-1]
    assert read(impl, wire, mask_bit, pos=2) == ([Event(TEXT, "one")], 2 + len(frame))
    end = 2 + len(frame)
    assert read(impl, wire, mask_bit, pos=2, end=end) == ([Event(TEXT, "one")], end)
    assert read(impl, wire, mask_bit, pos=2, end=end - 1) == ([], 2)
    assert read(impl, wire, mask_bit, pos=end, end=end) == ([], end)
    assert read(impl, wire, mask_bit, pos=end, end=end + 1) == ([], end)
    assert read(impl, wire, mask_bit, pos=len(wire)) == ([], len(wire))
    assert read(impl, b"", mask_bit) == ([], 0)


def test_only_whole_messages_are_read(impl: Any) -> None:
    for first, masked in itertools.product(range(256), (True, False)):
        plain_frame = frame_of(TEXT, b"text", masked=masked)
        wire = plain_frame + bytes((first,)) + plain_frame[1:]
        opcodes = [TEXT, TEXT] if first == 0x81 else [TEXT, BINARY] if first == 0x82 else [TEXT]
        events, stop = read(impl, wire, MASKED if masked else 0)
        assert [event.opcode for event in events] == opcodes
        assert stop == len(opcodes) * len(plain_frame)


@ROLES
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_536])
def test_a_wrong_mask_bit_is_not_read(impl: Any, size: int, mask_bit: int) -> None:
    good = frame_of(BINARY, b"good", masked=bool(mask_bit))
    bad = frame_of(BINARY, bytes(size), masked=not mask_bit)
    assert read(impl, good + bad, mask_bit) == ([Event(BINARY, b"good")], len(good))


@ROLES
@pytest.mark.parametrize(
    ("size", "width"), [(0, 2), (1, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65_535, 8)]
)
def test_a_length_that_is_not_minimal_is_not_read(
    impl: Any, size: int, width: int, mask_bit: int
) -> None:
    bad = frame_of(BINARY, bytes(size), masked=bool(mask_bit), width=width)
    assert read(impl, bad, mask_bit) == ([], 0)


@ROLES
@pytest.mark.parametrize(
    "size", [1 << 20, (1 << 31) - 1, 1 << 32, NO_LIMIT, 1 << 63, (1 << 64) - 1]
)
@pytest.mark.parametrize("limit", [0, 100, NO_LIMIT, (1 << 64) - 1])
def test_a_length_beyond_all_that_is_here(impl: Any, size: int, limit: int, mask_bit: int) -> None:
    wire = header(FIN | BINARY, size, masked=bool(mask_bit), width=8) + bytes(1000)
    assert read(impl, wire, mask_bit, limit=limit) == ([], 0)


@ROLES
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_536])
def test_the_limit(impl: Any, size: int, mask_bit: int) -> None:
    wire = frame_of(BINARY, bytes(size), masked=bool(mask_bit))
    assert read(impl, wire, mask_bit, limit=size) == ([Event(BINARY, bytes(size))], len(wire))
    if size:
        assert read(impl, wire, mask_bit, limit=size - 1) == ([], 0)
        small = frame_of(BINARY, b"", masked=bool(mask_bit))
        assert read(impl, small + wire, mask_bit, limit=size - 1).stop == len(small)


@ROLES
@pytest.mark.parametrize("most", [-1, 0, 1, 2, 3, 4])
def test_not_more_than_the_most(impl: Any, most: int, mask_bit: int) -> None:
    frame = frame_of(BINARY, b"x", masked=bool(mask_bit))
    number = min(3, max(0, most))
    expected = ([Event(BINARY, b"x")] * number, number * len(frame))
    assert read(impl, frame * 3, mask_bit, most=most) == expected


# RFC 3629 section 3 and 4: what comes close to a character, and is none.
NO_UTF8 = [
    b"\x80",
    b"\xbf",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xc2",
    b"\xc2\x41",
    b"\xc3\xc3\xa9",
    b"\xe0\x9f\xbf",
    b"\xe0\x80\x80",
    b"\xe2\x82",
    b"\xe2\x82\x41",
    b"\xe2\x28\xa1",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xad\xbf\xed\xbe\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf0\x80\x80\x80",
    b"\xf0\x9d\x84",
    b"\xf0\x9d\x84\x41",
    b"\xf0\x28\x8c\xbc",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfe",
    b"\xff",
]
# The borders of each width, and around the surrogates.
UTF8 = [
    chr(point).encode()
    for point in (
        *(0x00, 0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xCFFF, 0xD000, 0xD7FF, 0xE000),
        *(0xFFFD, 0xFFFF, 0x10000, 0x3FFFF, 0x40000, 0xFFFFF, 0x100000, 0x10FFFF),
    )
]


@ROLES
@pytest.mark.parametrize("bad", NO_UTF8, ids=bytes.hex)
def test_a_text_that_is_no_utf8_is_not_read(impl: Any, bad: bytes, mask_bit: int) -> None:
    good = frame_of(TEXT, "gut ü".encode(), masked=bool(mask_bit))
    for before, behind in itertools.product((0, 1, 7, 8, 5000), (0, 9)):
        payload = b"x" * before + bad + b"y" * behind
        wire = good + frame_of(TEXT, payload, masked=bool(mask_bit)) + good
        assert read(impl, wire, mask_bit) == ([Event(TEXT, "gut ü")], len(good))
        # It is all right for binary.
        wire = frame_of(BINARY, payload, masked=bool(mask_bit))
        assert read(impl, wire, mask_bit) == ([Event(BINARY, payload)], len(wire))


@ROLES
@pytest.mark.parametrize("character", UTF8, ids=bytes.hex)
def test_every_kind_of_character_is_read(impl: Any, character: bytes, mask_bit: int) -> None:
    for before in (0, 1, 7, 8, 5000):
        payload = b"x" * before + character
        wire = frame_of(TEXT, payload, masked=bool(mask_bit))
        assert read(impl, wire, mask_bit) == ([Event(TEXT, payload.decode())], len(wire))


@ROLES
def test_events_are_added_to_what_the_list_has(impl: Any, mask_bit: int) -> None:
    wire = frame_of(TEXT, b"x", masked=bool(mask_bit))
    events: list[Any] = ["before"]
    impl.read_frames(wire, 0, len(wire), mask_bit, NO_LIMIT, 9, Event, events)
    assert events == ["before", Event(TEXT, "x")]


@ROLES
def test_events_are_like_those_that_are_made_elsewhere(impl: Any, mask_bit: int) -> None:
    wire = frame_of(TEXT, b"x", masked=bool(mask_bit))
    (event,) = read(impl, wire, mask_bit).events
    made = Event(TEXT, "x")
    assert event == made
    assert hash(event) == hash(made)
    assert repr(event) == repr(made)
    assert event._replace(data="y") == Event(TEXT, "y")
    assert (event.opcode, event.data, event.final) == tuple(event)
    assert {made: 1}[event] == 1


class Other(NamedTuple):
    """Another type of the same shape."""

    opcode: int
    data: Any
    final: bool


@ROLES
@pytest.mark.parametrize("event_type", [Other, tuple, type("Sub", (Event,), {})])
def test_events_have_the_type_that_is_asked_for(
    impl: Any, event_type: type[Any], mask_bit: int
) -> None:
    wire = frame_of(TEXT, b"x", masked=bool(mask_bit))
    events: list[Any] = []
    assert impl.read_frames(wire, 0, len(wire), mask_bit, NO_LIMIT, 9, event_type, events) == len(
        wire
    )
    assert type(events[0]) is event_type
    assert events == [(TEXT, "x", True)]


@ROLES
@pytest.mark.parametrize("size", [1, 5, 2000])
def test_the_buffer_can_be_used_again(impl: Any, size: int, mask_bit: int) -> None:
    payload = random.Random(size).randbytes(size)
    wire = bytearray(frame_of(BINARY, payload, masked=bool(mask_bit)))
    before = bytes(wire)
    events, _ = read(impl, wire, mask_bit)
    assert wire == before  # unmasked elsewhere
    wire[:] = bytes(len(wire))
    wire.append(0)  # nothing holds it
    assert events == [Event(BINARY, payload)]


@C
@pytest.mark.parametrize(
    ("position", "value", "error"),
    [
        (0, "text", TypeError),
        (0, None, TypeError),
        (0, memoryview(b"\x82\x00"), TypeError),
        (0, [0x82, 0], TypeError),
        (1, -1, ValueError),
        (1, None, TypeError),
        (1, 1 << 80, OverflowError),
        (1, 1.0, TypeError),
        (2, 3, ValueError),
        (2, 1 << 62, ValueError),
        (2, 1 << 80, OverflowError),
        (2, None, TypeError),
        (3, 1, ValueError),
        (3, 0x81, ValueError),
        (3, 0x100, ValueError),
        (3, -0x80, OverflowError),
        (3, 1 << 32, ValueError),
        (3, None, TypeError),
        (4, -1, OverflowError),
        (4, 1 << 64, OverflowError),
        (4, None, TypeError),
        (5, 1 << 80, OverflowError),
        (5, None, TypeError),
        (6, None, TypeError),
        (6, list, TypeError),
        (6, object, TypeError),
        (6, Event(1, 2), TypeError),
        (7, None, ValueError),
        (7, (), ValueError),
    ],
)
def test_read_frames_with_a_wrong_argument(
    extension: Any, position: int, value: Any, error: type[Exception]
) -> None:
    events: list[Any] = []
    args: list[Any] = [b"\x82\x00", 0, 2, 0, 100, 10, Event, events]
    assert extension.read_frames(*args) == 2
    args[position] = value
    with pytest.raises(error):
        extension.read_frames(*args)
    assert events == [Event(BINARY, b"")]


@C
@pytest.mark.parametrize("name", ["read_frames", "frame", "mask"])
def test_a_wrong_number_of_arguments(extension: Any, name: str) -> None:
    good: dict[str, list[Any]] = {
        "read_frames": [b"", 0, 0, 0, 0, 0, Event, []],
        "frame": [0x81, b"", None],
        "mask": [b"", KEY],
    }
    call = getattr(extension, name)
    call(*good[name])
    for count in range(len(good[name])):
        with pytest.raises(TypeError, match=f"{name} takes {len(good[name])}"):
            call(*good[name][:count])
    with pytest.raises(TypeError, match=f"{name} takes {len(good[name])}"):
        call(*good[name], None)
    with pytest.raises(TypeError):
        call(*good[name], keyword=1)


# -- frame, head -----------------------------------------------------


@pytest.mark.parametrize("size", SIZES + LARGE)
@pytest.mark.parametrize("key", [None, *KEYS], ids=lambda key: key.hex() if key else "plain")
def test_a_frame_is_written(impl: Any, size: int, key: bytes | None) -> None:
    payload = random.Random(size).randbytes(size)
    start = header(FIN | BINARY, size, masked=key is not None)
    written = impl.frame(FIN | BINARY, payload, key)
    assert type(written) is bytes
    assert written == start + (payload if key is None else key + by_definition(payload, key))


def test_the_first_byte_is_as_it_was_given(impl: Any) -> None:
    masked = bytes((0x81,)) + KEY + by_definition(b"x", KEY)
    for first in range(256):
        assert impl.frame(first, b"", None) == bytes((first, 0))
        assert impl.frame(first, b"x", KEY) == bytes((first,)) + masked


@pytest.mark.parametrize(
    "size", [0, 1, 125, 126, 127, 255, 256, 65_535, 65_536, 1 << 24, 1 << 32, NO_LIMIT]
)
@pytest.mark.parametrize("masked", [True, False])
def test_a_head_is_written(size: int, masked: bool) -> None:
    assert head(0x82, size, masked=masked) == header(0x82, size, masked=masked)


def test_a_head_is_not_masked_unless_asked_for() -> None:
    assert head(0x81, 5) == b"\x81\x05"


WRONG_KEYS: list[tuple[Any, type[Exception]]] = [
    (b"", ValueError),
    (b"123", ValueError),
    (b"12345", ValueError),
    ("1234", TypeError),
    (1234, TypeError),
    (bytearray(b"1234"), TypeError),
    (memoryview(b"1234"), TypeError),
]


@C
@pytest.mark.parametrize(("key", "error"), WRONG_KEYS)
def test_a_wrong_key(extension: Any, key: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        extension.mask(b"data", key)
    with pytest.raises(error):
        extension.frame(0x81, b"data", key)
    with pytest.raises(error):
        extension.Payload(4, key, True)


@C
@pytest.mark.parametrize("data", ["text", None, 5, [1], object()])
def test_a_wrong_payload(extension: Any, data: Any) -> None:
    with pytest.raises(TypeError):
        extension.mask(data, KEY)
    with pytest.raises(TypeError):
        extension.frame(0x81, data, KEY)
    with pytest.raises(TypeError):
        extension.frame(0x81, data, None)


@C
def test_a_key_of_none_is_for_frames_only(extension: Any) -> None:
    with pytest.raises(TypeError):
        extension.mask(b"data", None)


@pytest.mark.parametrize(
    ("first", "error"),
    [
        (-1, (ValueError, OverflowError)),
        (256, (ValueError, OverflowError)),
        (1 << 80, (ValueError, OverflowError)),
        (None, TypeError),
        ("1", TypeError),
        (1.5, TypeError),
    ],
)
def test_a_wrong_first_byte(impl: Any, first: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        impl.frame(first, b"", None)


# -- Payload ---------------------------------------------------------


def pieces(data: bytes, step: int) -> list[bytes]:
    return [data[pos : pos + step] for pos in range(0, len(data), step)]


def add(payload: Any, piece: bytes, how: str = "bytes") -> bool:
    """Give it its next bytes in one of the ways that there are."""
    if how == "space":
        return fill(payload, piece)
    if how == "middle":
        wrapped = bytearray(b"before" + piece + b"behind")
        good = payload.add(wrapped, 6, 6 + len(piece))
        wrapped.append(0)  # nothing holds it
    else:
        good = payload.add(piece, 0, len(piece))
    assert good is True or good is False
    return bool(good)


def fill(payload: Any, piece: bytes) -> bool:
    """Receive the next bytes to its space, as much at a time as that has room for."""
    good = True
    while piece and good:
        with payload.space() as space:
            assert space.format == "B"
            assert not space.readonly
            size = min(len(piece), len(space))
            assert size
            space[:size] = piece[:size]
        good = payload.fill(size)
        assert good is True or good is False
        piece = piece[size:]
    return good


WAYS = [
    (name, how)
    for name in BOTH
    for how in ("bytes", "middle", "space")
    if name == "C" or how != "space"
]


@pytest.fixture(params=WAYS, ids="-".join)
def make(request: pytest.FixtureRequest) -> Any:
    """Makes payloads of an implementation, with a way to give them bytes."""
    name, how = request.param
    source = of(name)

    class Made:
        def __init__(self, size: int, key: bytes | None, text: bool) -> None:
            self._payload = source.Payload(size, key, text)

        def add(self, piece: bytes) -> bool:
            return add(self._payload, piece, how)

        def take(self) -> Any:
            return self._payload.take()

        def so_far(self) -> Any:
            return self._payload.so_far()

    return Made


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "masked"])
@pytest.mark.parametrize("text", [True, False], ids=["text", "binary"])
@pytest.mark.parametrize("size", [0, 1, 3, 8, 9, 31, 126, 1030, 5001])
def test_a_payload_in_pieces(make: Any, size: int, text: bool, key: bytes | None) -> None:
    whole = text_of(size) if text else random.Random(size).randbytes(size)
    wire = whole if key is None else by_definition(whole, key)
    for step in (1, 2, 3, 4, 5, 7, 8, 13, 1000, 10_000):
        payload = make(size, key, text)
        for piece in pieces(wire, step):
            assert payload.add(piece) is True
        taken = payload.take()
        assert taken == (whole.decode() if text else whole)
        assert type(taken) is (str if text else bytes)


@pytest.mark.parametrize("text", [True, False], ids=["text", "binary"])
def test_pieces_may_be_empty(make: Any, text: bool) -> None:
    payload = make(2, KEY, text)
    for piece in (b"", by_definition(b"ab", KEY)[:1], b"", by_definition(b"ab", KEY)[1:], b""):
        assert payload.add(piece) is True
    assert payload.take() == ("ab" if text else b"ab")
    payload = make(0, KEY, text)
    assert payload.add(b"") is True
    assert payload.take() == ("" if text else b"")


@pytest.mark.parametrize("text", [True, False], ids=["text", "binary"])
@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "masked"])
@pytest.mark.parametrize("step", [9_973, 65_536, FIRST_ROOM - 1, FIRST_ROOM + 1, 10_000_000])
@pytest.mark.parametrize("size", [FIRST_ROOM - 1, FIRST_ROOM, FIRST_ROOM + 1, 5_000_003])
def test_a_payload_above_the_first_room(
    make: Any, size: int, step: int, key: bytes | None, text: bool
) -> None:
    whole = text_of(size) if text else random.Random(size).randbytes(size)
    wire = whole if key is None else plain.mask(whole, key)
    payload = make(size, key, text)
    for piece in pieces(wire, step):
        assert payload.add(piece) is True
    assert payload.take() == (whole.decode() if text else whole)


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "masked"])
def test_a_character_across_the_borders_of_the_rooms(make: Any, key: bytes | None) -> None:
    for before in range(FIRST_ROOM - 4, FIRST_ROOM + 1):
        whole = b"x" * before + "𝄞".encode() + b"y" * 1000
        wire = whole if key is None else plain.mask(whole, key)
        payload = make(len(whole), key, True)
        assert payload.add(wire) is True
        assert payload.take() == whole.decode()
        # And cut off there.
        cut = whole[: before + 2] + b"y" + whole[before + 3 :]
        payload = make(len(cut), key, True)
        assert payload.add(cut if key is None else plain.mask(cut, key)) is False
        assert payload.so_far().startswith(cut[: before + 2])


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "masked"])
def test_a_text_cut_anywhere(make: Any, key: bytes | None) -> None:
    whole = b"".join(UTF8) + b"ascii only"
    wire = whole if key is None else by_definition(whole, key)
    for cut in range(len(whole) + 1):
        payload = make(len(whole), key, True)
        assert payload.add(wire[:cut]) is True
        assert payload.add(wire[cut:]) is True
        assert payload.take() == whole.decode()


def first_bad(whole: bytes, cuts: list[int]) -> int | None:
    """Return the number of the piece at which Python's own decoder refuses this; None if none."""
    decoder = plain._Utf8Decoder()
    borders = [0, *cuts, len(whole)]
    for number, (start, stop) in enumerate(itertools.pairwise(borders)):
        try:
            decoder.decode(whole[start:stop], stop == len(whole))
        except UnicodeDecodeError:
            return number
    return None


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "masked"])
@pytest.mark.parametrize("around", [(0, 0), (1, 0), (9, 9)])
def test_a_text_that_is_no_utf8_is_refused_as_early_as_can_be(
    make: Any, around: tuple[int, int], key: bytes | None
) -> None:
    wholes = [b"a" * around[0] + bad + b"b" * around[1] for bad in NO_UTF8]
    for whole, cut in ((one, cut) for one in wholes for cut in range(len(one) + 1)):
        wire = whole if key is None else by_definition(whole, key)
        payload = make(len(whole), key, True)
        verdicts = []
        for piece in (wire[:cut], wire[cut:]):
            verdicts.append(payload.add(piece))
            if not verdicts[-1]:
                break
        expected = first_bad(whole, [cut])
        assert expected is not None
        assert verdicts == [True] * expected + [False]
        # What came, whole and unmasked, so that it can be told where and why.
        so_far = payload.so_far()
        assert so_far == (whole[:cut] if expected == 0 else whole)
        assert type(so_far) is bytes


def test_every_two_bytes_and_every_beginning_of_a_character(make: Any) -> None:
    for first, second in itertools.product(range(256), repeat=2):
        whole = bytes((first, second))
        payload = make(2, None, True)
        verdicts = [payload.add(whole[:1])]
        if verdicts[0]:
            verdicts.append(payload.add(whole[1:]))
        expected = first_bad(whole, [1])
        good = [True, True] if expected is None else [True] * expected + [False]
        assert verdicts == good, whole
        if expected is None:
            assert payload.take() == whole.decode()
        # Also where the character could still go on.
        payload = make(100, None, True)
        assert payload.add(whole) is (first_bad(whole + b"x", [2]) != 0), whole


def test_a_payload_does_not_keep_the_buffer(impl: Any) -> None:
    buffer = bytearray(b"one")
    payload = impl.Payload(6, None, False)
    payload.add(buffer, 0, 3)
    buffer[:] = b"two"
    buffer.append(0)
    payload.add(buffer, 0, 3)
    assert payload.take() == b"onetwo"


@pytest.mark.parametrize("text", [True, False], ids=["text", "binary"])
def test_a_payload_that_is_not_complete_cannot_be_taken(impl: Any, text: bool) -> None:
    payload = impl.Payload(3, None, text)
    for _ in range(3):
        with pytest.raises(ValueError):
            payload.take()
        payload.add(b"x", 0, 1)
    assert payload.take() == ("xxx" if text else b"xxx")


@pytest.mark.parametrize("text", [True, False], ids=["text", "binary"])
@pytest.mark.parametrize("size", [0, 3, FIRST_ROOM, FIRST_ROOM + 5])
def test_a_payload_has_no_room_for_more(impl: Any, size: int, text: bool) -> None:
    payload = impl.Payload(size, None, text)
    with pytest.raises(ValueError):
        payload.add(b"x" * (size + 1), 0, size + 1)
    payload = impl.Payload(size, None, text)
    payload.add(b"x" * size, 0, size)
    with pytest.raises(ValueError):
        payload.add(b"x", 0, 1)


def test_in_python_there_is_no_space() -> None:
    payload = plain.Payload(5, None, False)
    assert payload.space() is None
    with pytest.raises(ValueError):
        payload.fill(1)


# -- Payload in C: its space -----------------------------------------


@C
def test_the_space_is_what_is_left(extension: Any) -> None:
    payload = extension.Payload(10, None, False)
    with payload.space() as space:
        assert (len(space), space.format, space.readonly) == (10, "B", False)
        space[:3] = b"abc"
    assert payload.fill(3) is True
    with payload.space() as space:
        assert len(space) == 7
    payload.add(b"defg", 0, 4)
    with payload.space() as space:
        assert len(space) == 3
        space[:] = b"hij"
    assert payload.fill(0) is True
    assert payload.fill(3) is True
    with payload.space() as space:
        assert len(space) == 0
    assert payload.take() == b"abcdefghij"


@C
def test_the_space_is_not_all_made_at_once(extension: Any) -> None:
    # The peer's word for the size is not worth that much.
    payload = extension.Payload(1 << 62, None, False)
    room = 0
    for _ in range(3):
        with payload.space() as space:
            size = len(space)
        assert 0 < size <= max(room, FIRST_ROOM)
        assert payload.fill(size) is True
        room += size
    assert room == 4 * FIRST_ROOM


@C
def test_a_space_in_use_does_not_move(extension: Any) -> None:
    payload = extension.Payload(FIRST_ROOM + 10, None, False)
    space = payload.space()
    payload.fill(FIRST_ROOM)
    with pytest.raises(BufferError):
        payload.space()
    with pytest.raises(BufferError):
        payload.add(b"x", 0, 1)
    space.release()
    assert payload.add(b"x" * 10, 0, 10) is True
    assert len(payload.take()) == FIRST_ROOM + 10


@C
@pytest.mark.parametrize("text", [True, False], ids=["text", "binary"])
def test_a_payload_whose_space_is_in_use_cannot_be_taken(extension: Any, text: bool) -> None:
    # What was taken must never change, nor be freed under the view.
    payload = extension.Payload(3, None, text)
    with payload.space() as space:
        space[:] = b"abc"
        payload.fill(3)
        with pytest.raises((BufferError, ValueError)):
            payload.take()
    assert payload.take() == ("abc" if text else b"abc")


@C
def test_a_space_keeps_its_payload(extension: Any) -> None:
    space = extension.Payload(100, None, False).space()
    space[:] = b"x" * 100
    assert bytes(space) == b"x" * 100
    space.release()


@C
def test_a_payload_is_taken_once(extension: Any) -> None:
    for text in (True, False):
        payload = extension.Payload(2, None, text)
        payload.add(b"ab", 0, 2)
        payload.take()
        for call in (
            payload.take,
            payload.space,
            payload.so_far,
            lambda payload=payload: payload.fill(0),
            lambda payload=payload: payload.add(b"", 0, 0),
            lambda payload=payload: payload.add(b"x", 0, 1),
        ):
            with pytest.raises(ValueError):
                call()


@C
@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((), TypeError),
        ((1,), TypeError),
        ((1, None), TypeError),
        ((1, None, True, None), TypeError),
        ((-1, None, True), ValueError),
        ((-(1 << 62), None, True), ValueError),
        ((1 << 80, None, True), OverflowError),
        ((1.0, None, True), TypeError),
        ((None, None, True), TypeError),
        (("1", None, True), TypeError),
    ],
)
def test_a_payload_with_wrong_arguments(
    extension: Any, args: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        extension.Payload(*args)


class Broken:
    """Has no truth."""

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


@C
def test_whether_it_is_text_may_fail(extension: Any) -> None:
    with pytest.raises(RuntimeError, match="no truth"):
        extension.Payload(1, None, Broken())


@C
@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((), TypeError),
        ((b"abc",), TypeError),
        ((b"abc", 0), TypeError),
        ((b"abc", 0, 3, None), TypeError),
        (("abc", 0, 3), TypeError),
        ((None, 0, 3), TypeError),
        ((memoryview(b"abc"), 0, 3), TypeError),
        ((b"abc", None, 3), TypeError),
        ((b"abc", 0, None), TypeError),
        ((b"abc", -1, 3), ValueError),
        ((b"abc", 2, 1), ValueError),
        ((b"abc", 0, -1), ValueError),
        ((b"abc", 0, 4), ValueError),
        ((b"abc", 4, 4), ValueError),
        ((b"abc", 0, sys.maxsize), ValueError),
        ((b"abc", -sys.maxsize - 1, 0), ValueError),
        ((b"abc", sys.maxsize, sys.maxsize), ValueError),
        ((b"abc", 0, 1 << 80), OverflowError),
    ],
)
def test_add_with_wrong_arguments(
    extension: Any, args: tuple[Any, ...], error: type[Exception]
) -> None:
    payload = extension.Payload(100, None, False)
    with pytest.raises(error):
        payload.add(*args)
    assert payload.so_far() == b""
    assert payload.add(b"abc", 3, 3) is True


@C
@pytest.mark.parametrize(
    ("size", "error"),
    [(-1, ValueError), (11, ValueError), (1 << 80, OverflowError), (None, TypeError)],
)
def test_fill_with_a_wrong_size(extension: Any, size: Any, error: type[Exception]) -> None:
    payload = extension.Payload(10, KEY, True)
    with pytest.raises(error):
        payload.fill(size)
    assert payload.so_far() == b""


@C
def test_fill_beyond_the_room_that_was_made(extension: Any) -> None:
    payload = extension.Payload(FIRST_ROOM + 10, None, False)
    with pytest.raises(ValueError):
        payload.fill(FIRST_ROOM + 1)


# -- Both do the same ------------------------------------------------


def wire_pieces() -> st.SearchStrategy[bytes]:
    """Parts of what may come: good frames, frames of all kinds, and anything."""
    payload = st.one_of(
        st.text(max_size=20).map(str.encode),
        st.binary(max_size=20),
        st.sampled_from(NO_UTF8),
        st.integers(120, 130).map(bytes),
        st.sampled_from([65_534, 65_535, 65_536]).map(bytes),
    )
    key = st.sampled_from(KEYS)
    good = st.builds(
        lambda opcode, payload, masked, key: frame_of(opcode, payload, masked=masked, key=key),
        st.sampled_from([TEXT, BINARY]),
        payload,
        st.booleans(),
        key,
    )
    odd = st.builds(
        lambda first, payload, masked, width: (
            header(first, len(payload), masked=masked, width=width) + payload
        ),
        st.sampled_from([0x00, 0x01, 0x02, 0x81, 0x82, 0x83, 0x88, 0x89, 0xC1, 0xC2, 0xF1]),
        st.binary(max_size=100),
        st.booleans(),
        st.sampled_from([0, 2, 8]),
    )
    return st.one_of(good, good, good, odd, st.binary(max_size=30))


@C
@settings(max_examples=400, deadline=None)
@given(
    parts=st.lists(wire_pieces(), max_size=6),
    mask_bit=st.sampled_from([0, MASKED]),
    limit=st.one_of(st.sampled_from([0, 5, 125, 126, 65_535, NO_LIMIT]), st.integers(0, 200)),
    most=st.one_of(st.just(256), st.integers(0, 4)),
    pos=st.integers(0, 3),
    less=st.integers(0, 3),
)
@example(
    parts=[frame_of(TEXT, b"\xed\xa0\x80", masked=True)],
    mask_bit=MASKED,
    limit=99,
    most=9,
    pos=0,
    less=0,
)
def test_both_read_the_same_frames(
    parts: list[bytes], mask_bit: int, limit: int, most: int, pos: int, less: int
) -> None:
    data = b"".join(parts)
    pos = min(pos, len(data))
    end = max(pos, len(data) - less)
    results = [
        read(of(name), kind(data), mask_bit, pos=pos, end=end, limit=limit, most=most)
        for name in ("Python", "C")
        for kind in (bytes, bytearray)
    ]
    assert results == results[:1] * 4
    for event in results[-1].events:
        assert type(event) is Event


@C
@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=200), mask_bit=st.sampled_from([0, MASKED]))
def test_both_read_the_same_of_anything(data: bytes, mask_bit: int) -> None:
    assert read(of("C"), data, mask_bit) == read(plain, data, mask_bit)


@C
@settings(max_examples=300, deadline=None)
@given(
    first=st.integers(0, 255),
    payload=st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(bytes)),
    key=st.one_of(st.none(), st.binary(min_size=4, max_size=4)),
)
def test_both_write_the_same_frames(first: int, payload: bytes, key: bytes | None) -> None:
    written = of("C").frame(first, payload, key)
    assert written == plain.frame(first, payload, key)
    if key is not None:
        assert of("C").mask(payload, key) == plain.mask(payload, key)


def texts() -> st.SearchStrategy[bytes]:
    """Bytes that are UTF-8, nearly so, or not at all."""
    part = st.one_of(
        st.text(max_size=6).map(str.encode),
        st.sampled_from(UTF8 + NO_UTF8),
        st.sampled_from(UTF8),
        st.binary(max_size=3),
        st.integers(0, 20).map(lambda size: b"." * size),
    )
    return st.lists(part, max_size=8).map(b"".join)


def verdicts(payload: Any, cut: list[bytes], hows: Iterator[str]) -> tuple[list[bool], Any]:
    """Return what is said to each piece up to the first that is bad, and what there is then."""
    said = []
    for piece in cut:
        said.append(add(payload, piece, next(hows)))
        if not said[-1]:
            return said, payload.so_far()
    return said, payload.take()


@C
@settings(max_examples=600, deadline=None)
@given(
    whole=texts(),
    cuts=st.lists(st.integers(0, 100), max_size=6),
    key=st.one_of(st.none(), st.binary(min_size=4, max_size=4)),
    text=st.sampled_from([True, True, True, False]),
    hows=st.lists(st.sampled_from(["bytes", "middle", "space"]), min_size=1, max_size=3),
)
def test_both_say_the_same_to_the_same_piece(
    whole: bytes, cuts: list[int], key: bytes | None, text: bool, hows: list[str]
) -> None:
    wire = whole if key is None else by_definition(whole, key)
    borders = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    cut = [wire[start:stop] for start, stop in itertools.pairwise(borders)]
    in_c = verdicts(of("C").Payload(len(wire), key, text), cut, itertools.cycle(hows))
    in_python = verdicts(plain.Payload(len(wire), key, text), cut, itertools.repeat("bytes"))
    assert in_c == in_python
    if text:
        bad = first_bad(whole, borders[1:-1])
        assert in_c[0] == ([True] * len(cut) if bad is None else [True] * bad + [False])
        assert in_c[1] == (whole.decode() if bad is None else whole[: borders[bad + 1]])
    else:
        assert in_c == ([True] * len(cut), whole)


# -- Memory ----------------------------------------------------------


def everything_once(extension: Any) -> None:
    """Call all there is, rightly and wrongly."""
    data = bytes(300)
    extension.mask(data, KEY)
    extension.frame(0x81, data, KEY)
    extension.frame(0x81, data, None)
    for mask_bit in (0, MASKED):
        wire = bytearray(
            frame_of(BINARY, data, masked=bool(mask_bit))
            + frame_of(TEXT, b"\xc3\xa9" * 3000, masked=bool(mask_bit))
            + frame_of(TEXT, b"\xff" * 5000, masked=bool(mask_bit))
        )
        assert len(read(extension, wire, mask_bit).events) == 2
    for text in (True, False):
        payload = extension.Payload(300, KEY, text)
        add(payload, by_definition(data[:100], KEY))
        fill(payload, by_definition(data, KEY)[100:])
        payload.so_far()
        payload.take()
        extension.Payload(300, KEY, text).add(data, 0, 10)
        extension.Payload(300, KEY, text).space()
    for wrong in (
        lambda: extension.mask("text", KEY),
        lambda: extension.frame(0x81, data, b"123"),
        lambda: extension.read_frames(data, 0, 301, 0, 1, 1, Event, []),
        lambda: extension.Payload(-1, None, True),
        lambda: extension.Payload(300, b"", True),
        lambda: extension.Payload(300, KEY, Broken()),
        lambda: extension.Payload(300, KEY, True).add("text", 0, 1),
        lambda: extension.Payload(300, KEY, True).fill(301),
        lambda: extension.Payload(300, KEY, True).take(),
    ):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            wrong()


@C
def test_nothing_is_leaked(extension: Any) -> None:
    for _ in range(20):
        everything_once(extension)
    tracemalloc.start()
    try:
        everything_once(extension)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            everything_once(extension)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 200 * 24, "an object for each call"


@C
def test_the_type_of_payloads_is_not_leaked(extension: Any) -> None:
    def make_some(number: int) -> None:
        made = [extension.Payload(1, None, False) for _ in range(number)]
        for wrong in ((-1, None, True), (1, b"", True)):
            with pytest.raises(ValueError):
                extension.Payload(*wrong)
        assert len(made) == number

    make_some(100)
    before = sys.getrefcount(extension.Payload)
    for _ in range(20):
        make_some(100)
    # The interpreter may keep one itself.
    assert sys.getrefcount(extension.Payload) < before + 20
