"""The targets `frames` and `deflate`: what a peer sends once the connection is open."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from syncws import native
from syncws.errors import Close, PayloadTooBigError, ProtocolError, WebSocketError
from syncws.protocol import decoder as decoder_module
from syncws.protocol import plain
from syncws.protocol.decoder import Decoder
from syncws.protocol.deflate import Deflate, Inflate
from syncws.protocol.events import BINARY, CLOSE, ERROR, PING, PONG, TEXT, Event
from tests.support import frame as make_frame

from .parcel import Outcome, Parcel, Violation, cut

__all__ = ["deflate", "frames"]

_TAIL = b"\x00\x00\xff\xff"

# max_message_size, max_frame_size, max_fragments
_LIMITS: tuple[tuple[int | None, int | None, int | None], ...] = (
    (None, None, None),
    (1000, None, None),
    (125, 60, 3),
    (4096, 126, 4096),
)

# Whose loops are in use, and whether large frames are received in place.
_WAYS: list[tuple[ModuleType, bool]] = [(plain, False)]
if native.extension is not None:
    _WAYS += [(native.extension, False), (native.extension, True)]


class _Setup(NamedTuple):
    """How the decoder is made."""

    client: bool = False
    deflate: bool = False
    stream_text: bool = False
    stream_binary: bool = False
    limits: tuple[int | None, int | None, int | None] = (None, None, None)
    window_bits: int = 15
    no_context_takeover: bool = False

    def decoder(self) -> Decoder:
        size, frame_size, fragments = self.limits
        inflate = Inflate(
            window_bits=self.window_bits,
            no_context_takeover=self.no_context_takeover,
            max_message_size=size,
        )
        return Decoder(
            client=self.client,
            max_message_size=size,
            max_frame_size=frame_size,
            max_fragments=fragments,
            inflate=inflate if self.deflate else None,
            stream_text=self.stream_text,
            stream_binary=self.stream_binary,
        )


@contextlib.contextmanager
def _using(kernels: ModuleType, in_place: bool) -> Iterator[None]:
    """Have the decoder work with these loops."""
    module: Any = decoder_module
    names = ("Payload", "mask", "read_frames")
    before = {name: getattr(module, name) for name in (*names, "_IN_PLACE")}
    for name in names:
        setattr(module, name, getattr(kernels, name))
    if in_place:
        module._IN_PLACE = 1
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def _receive(decoder: Decoder, piece: bytes, in_place: bool) -> list[Event]:
    """Give the decoder bytes as a connection does."""
    events: list[Event] = []
    pos = 0
    while in_place and pos < len(piece) and not _over(events):
        space = decoder.space()
        if space is None:
            break
        with space:
            size = min(len(space), len(piece) - pos)
            space[:size] = piece[pos : pos + size]
        pos += size
        events += decoder.filled(size)
    if not _over(events):
        events += decoder.receive(piece[pos:])
    while decoder.pending:
        events += decoder.receive(b"")
    return events


def _over(events: Sequence[Event]) -> bool:
    return bool(events) and events[-1].opcode in (CLOSE, ERROR)


def _decode(
    setup: _Setup, pieces: Sequence[bytes], kernels: ModuleType = plain, in_place: bool = False
) -> list[Event]:
    """Return all events, and check what holds for each."""
    with _using(kernels, in_place):
        decoder = setup.decoder()
        events: list[Event] = []
        for piece in pieces:
            events += _receive(decoder, piece, in_place)
            if _over(events):
                break
        if _over(events) and (decoder.receive(b"\x81\x00") or decoder.pending or decoder.at_border):
            raise Violation(f"the decoder goes on behind {events[-1]}")
        _check_events(setup, events)
        decoder.release()
        if decoder.receive(b"\x81\x00"):
            raise Violation("a released decoder goes on")
    return events


def _check_events(setup: _Setup, events: Sequence[Event]) -> None:
    size = 0
    for number, event in enumerate(events):
        opcode, data, final = event
        if opcode in (CLOSE, ERROR):
            if number != len(events) - 1:
                raise Violation(f"something follows {event}")
            _check_last(event)
        elif opcode in (PING, PONG):
            if not isinstance(data, bytes) or len(data) > 125:
                raise Violation(f"a control frame is {event}")
        else:
            if not isinstance(data, {TEXT: str, BINARY: bytes}[opcode]):
                raise Violation(f"a message is {event}")
            streams = setup.stream_text if opcode == TEXT else setup.stream_binary
            if not (final or streams):
                raise Violation(f"a fragment came apart: {event}")
            size += len(data.encode() if isinstance(data, str) else data)
            if setup.limits[0] is not None and size > setup.limits[0]:
                raise Violation(f"a message of {size} bytes is over the limit")
            if final:
                size = 0


def _check_last(event: Event) -> None:
    if event.opcode == ERROR:
        good = isinstance(event.data, (ProtocolError, PayloadTooBigError))
        if not good or event.data.status_code not in (1002, 1007, 1009):
            raise Violation(f"an error is {event.data!r}")
        str(event.data).encode()
        return
    close = event.data
    good = isinstance(close, Close) and (
        close.code in (1000, 1001, 1002, 1003, 1005, *range(1007, 1015))
        or 3000 <= close.code < 5000
    )
    if not good or len(close.reason.encode()) > 123 or (close.code == 1005 and close.reason):
        raise Violation(f"a close frame says {close}")


def _same(what: str, some: Sequence[Event], others: Sequence[Event], exact: bool) -> None:
    """Check that both are the same, errors in their words only if `exact`."""
    if [_known(event, exact) for event in some] != [_known(event, exact) for event in others]:
        raise Violation(f"{what}: {some!r:.1000} is not {others!r:.1000}")


def _known(event: Event, exact: bool) -> Outcome:
    if event.opcode != ERROR:
        return tuple(event)
    return (ERROR, type(event.data), str(event.data)) if exact else (ERROR,)


def _outcome(events: Sequence[Event]) -> Outcome:
    """Return what tells these events from others, in few words."""
    kinds = []
    for event in events[:6]:
        if event.opcode == ERROR:
            words = "".join("9" if c.isdigit() else c for c in str(event.data))
            kinds.append(f"{type(event.data).__name__} {words[:60]}")
        elif event.opcode == CLOSE:
            kinds.append(f"close {event.data.code} {bool(event.data.reason)}")
        else:
            kinds.append(f"{event.opcode} {event.final} {len(event.data).bit_length()}")
    return tuple(kinds)


# -- frames ----------------------------------------------------------


def frames(raw: bytes) -> Outcome:
    """Decode any bytes: with both sets of loops, in pieces, whole, and by wsproto alone."""
    parcel = Parcel.parse(raw)
    setup = _Setup(
        client=bool(parcel.bits(0)),
        deflate=bool(parcel.bits(1)),
        stream_text=bool(parcel.bits(2)),
        stream_binary=bool(parcel.bits(3)),
        limits=parcel.choose(4, _LIMITS),
        window_bits=parcel.choose(6, (15, 9)),
        no_context_takeover=bool(parcel.bits(7)),
    )
    pieces = parcel.pieces()
    results = [_decode(setup, pieces, *way) for way in _WAYS]
    for result in results[1:]:
        _same("in C and in Python", result, results[0], exact=True)
    whole = _decode(setup, [parcel.data])
    _same("whole and in pieces", whole, results[0], exact=False)
    if not (setup.deflate or setup.stream_text or setup.stream_binary) and not any(setup.limits):
        _same("by wsproto alone", whole, _by_wsproto(setup.client, parcel.data), exact=False)
    return (parcel.settings & 0xFF, *_outcome(whole))


def _by_wsproto(client: bool, data: bytes) -> list[Event]:
    proto = FrameProtocol(client, [])
    proto.receive_bytes(data)
    events: list[Event] = []
    parts: list[Any] = []
    try:
        for got in proto.received_frames():
            payload: Any = got.payload
            if got.opcode is Opcode.CLOSE:
                return [*events, Event(CLOSE, Close(int(payload[0]), payload[1]))]
            if got.opcode.iscontrol():
                events.append(Event(int(got.opcode), bytes(payload)))
                continue
            parts.append(payload)
            if got.message_finished:
                whole = "".join(parts) if got.opcode is Opcode.TEXT else b"".join(parts)
                events.append(Event(int(got.opcode), whole))
                parts = []
    except ParseFailed as exc:
        events.append(Event(ERROR, exc))
    return events


# -- deflate ---------------------------------------------------------

_SIZES: tuple[int | None, ...] = (None, 1, 100, 4096)
_FEW_STREAMS = 60
_AT_ONCE = 10_000


def deflate(raw: bytes) -> Outcome:
    """Inflate any bytes as messages, against limits; and deflate them, and get them back."""
    parcel = Parcel.parse(raw)
    setup = _Setup(
        client=True,
        deflate=True,
        limits=(parcel.choose(0, _SIZES), None, None),
        window_bits=parcel.choose(2, (15, 9)),
        no_context_takeover=bool(parcel.bits(3)),
    )
    opcode = parcel.choose(4, (BINARY, TEXT))
    payloads = parcel.data.split(b"||", 3)
    whole = b"".join(make_frame(opcode, data, rsv=4, masked=False) for data in payloads)
    apart = b"".join(_fragments(opcode, data, parcel.sizes) for data in payloads)
    results = [
        _decode(setup, [whole], *_WAYS[-1]),
        _decode(setup, [apart]),
        _decode(setup, list(cut(whole, parcel.sizes))),
        _decode(setup, list(cut(apart, (1,)))),
    ]
    if max(map(_streams, payloads)) <= _FEW_STREAMS:  # a frame may have so many, not a message
        for result in results[1:]:
            _same("in other pieces", result, results[0], exact=False)
    _check_inflated(setup, payloads, results[0])
    _round_trip(setup, parcel, opcode)
    return (parcel.settings & 0x1F, *_outcome(results[0]))


def _fragments(opcode: int, payload: bytes, sizes: Sequence[int]) -> bytes:
    parts = list(cut(payload, sizes)) or [b""]
    return b"".join(
        make_frame(
            opcode if not number else 0,
            part,
            rsv=0 if number else 4,
            fin=number == len(parts) - 1,
            masked=False,
        )
        for number, part in enumerate(parts)
    )


def _streams(payload: bytes) -> int:
    """Return how many streams end in a payload."""
    count = 0
    while payload:
        inflater = zlib.decompressobj(-15)
        try:
            while payload and not inflater.eof:
                inflater.decompress(payload, _AT_ONCE)
                payload = inflater.unconsumed_tail
        except zlib.error:
            break
        if not inflater.eof:
            break
        payload = inflater.unused_data
        count += 1
    return count


def _check_inflated(setup: _Setup, payloads: Sequence[bytes], events: Sequence[Event]) -> None:
    """The first message is what zlib says, as far as it is one stream."""
    if not events or events[0].opcode == ERROR:
        return
    data = events[0].data
    got = data.encode() if isinstance(data, str) else data
    inflater = zlib.decompressobj(-setup.window_bits)
    expected = inflater.decompress(payloads[0] + _TAIL) if payloads[0] else b""
    if got != expected and not (inflater.eof and got.startswith(expected)):
        raise Violation(f"{payloads[0]!r} inflates to {got!r:.500}, not {expected!r:.500}")


def _round_trip(setup: _Setup, parcel: Parcel, opcode: int) -> None:
    """What is deflated here is inflated again, at exactly the limit, and not one byte below."""
    deflater = Deflate(
        window_bits=setup.window_bits,
        no_context_takeover=setup.no_context_takeover,
        level=1 + parcel.bits(5, 3),
        mem_level=1 + parcel.bits(8, 3),
    )
    messages = parcel.pieces() or [b""]
    wire = [make_frame(BINARY, deflater.whole(m), rsv=4, masked=False) for m in messages]
    size = max(1, *map(len, messages), 1)
    for limit in (size, None):
        got = _decode(setup._replace(limits=(limit, None, None)), wire)
        if got != [Event(BINARY, message) for message in messages]:
            raise Violation(f"{messages!r:.500} came back as {got!r:.500}")
    if size > 1:
        last = _decode(setup._replace(limits=(size - 1, None, None)), wire)[-1]
        if last.opcode != ERROR or not isinstance(last.data, WebSocketError):
            raise Violation(f"a message over the limit was accepted: {last!r:.500}")
