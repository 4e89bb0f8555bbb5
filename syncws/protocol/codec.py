"""Frames to events and back. RFC 6455 section 5.

Two paths share the work. Unfragmented, uncompressed data frames, nearly all of
real traffic, are read and written here, and control frames are written here;
fragments, compressed messages, incoming control frames and whatever is
malformed go through wsproto. The two hand over at frame borders only: this
module reads every frame header, so it always knows where the next one starts.
What wsproto refuses, the fast path refuses too, and as early: text is checked
as it arrives, not when it is complete.

A connection's two directions share no state: `Decoder` is the inbound half,
`Encoder` the outbound one. Each takes messages of one thread at a time.
"""

from __future__ import annotations

import codecs
import io
import os
from typing import Any, NamedTuple

from wsproto.frame_protocol import Frame, FrameProtocol, Opcode, ParseFailed

from ..config import ConnectionConfig
from ..errors import (
    Close,
    InvalidContinuationFrameError,
    InvalidPayloadError,
    PayloadTooBigError,
    ProtocolError,
    WebSocketError,
)
from .deflate import Deflate, DeflateParams, Inflate
from .masking import mask

__all__ = [
    "BINARY",
    "CLOSE",
    "ERROR",
    "PING",
    "PONG",
    "TEXT",
    "Decoder",
    "Encoder",
    "Event",
    "make_codec",
]

# Opcodes, RFC 6455 section 5.2, and one of our own for a failed connection.
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA
ERROR = -1

_FIN = 0x80
_RSV1 = 0x40
_MASKED = 0x80
_FIN_TEXT = _FIN | TEXT
_FIN_BINARY = _FIN | BINARY

# First bytes that can begin a good frame. Any other goes to wsproto, which
# says what is wrong with it.
_PLAIN_STARTS = frozenset((0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A))
_DEFLATE_STARTS = _PLAIN_STARTS | {0x41, 0x42, 0xC1, 0xC2}

_NO_LIMIT = 1 << 63

# Events, and bytes of messages, after which `Decoder.receive` takes a break:
# what came at once may become a thousand times as much.
_MAX_EVENTS = 256
_MAX_BYTES = 262_144

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class Event(NamedTuple):
    """What arrived.

    Attributes:
        opcode: TEXT, BINARY, PING, PONG, CLOSE or ERROR.
        data: A str for TEXT, bytes for BINARY, PING and PONG, a `Close` for
            CLOSE, a `WebSocketError` for ERROR.
        final: False for a fragment that others follow.

    Nothing follows CLOSE or ERROR.
    """

    opcode: int
    data: Any
    final: bool = True


# What Event(...) does, without the call in between: one is made per message.
_new_event = tuple.__new__


class _Pieces:
    """A message or frame that comes in pieces.

    They are joined as they come: kept apart, the tiniest would take up many
    times their size.
    """

    __slots__ = ("_buffer", "_first")

    def __init__(self) -> None:
        self._first: Any = None
        self._buffer: Any = None

    def __bool__(self) -> bool:
        return self._first is not None

    def add(self, piece: str | bytes) -> None:
        """Join one more piece, of the same type as the others."""
        if self._first is None:
            self._first = piece
            return
        if self._buffer is None:
            self._buffer = io.StringIO() if isinstance(piece, str) else io.BytesIO()
            self._buffer.write(self._first)
        self._buffer.write(piece)

    def take(self) -> Any:
        """Return the whole, and begin again."""
        whole = self._first if self._buffer is None else self._buffer.getvalue()
        self._first = self._buffer = None
        return whole


class _Partial:
    """A data frame on the fast path of which bytes are still to come."""

    __slots__ = ("decoder", "key", "offset", "pieces")

    def __init__(self, opcode: int, key: bytes) -> None:
        self.key = key
        self.offset = 0  # of the next byte
        self.pieces = _Pieces()
        self.decoder = _Utf8Decoder() if opcode == TEXT else None

    def feed(self, chunk: bytes, last: bool) -> Event | None:
        offset = self.offset
        self.offset += len(chunk)
        decoder = self.decoder
        if decoder is None:
            self.pieces.add(chunk)
            if not last:
                return None
            data = self.pieces.take()
            return Event(BINARY, mask(data, self.key) if self.key else data)
        if self.key:
            turn = offset & 3
            chunk = mask(chunk, self.key[turn:] + self.key[:turn])
        try:
            self.pieces.add(decoder.decode(chunk, last))
        except UnicodeDecodeError as exc:
            held = len(decoder.getstate()[0])  # the beginning of a character, not decoded yet
            raise _not_utf8(exc.reason, offset - held + exc.start) from exc
        return Event(TEXT, self.pieces.take()) if last else None


class Decoder:
    """The inbound half: bytes in, events out.

    Args:
        client: Whether this end is the client, which takes unmasked frames.
        max_message_size: Bytes of one message, or None.
        max_frame_size: Bytes of one frame on the wire, or None.
        max_fragments: Frames of one message, or None.
        inflate: permessage-deflate's inbound half if it was agreed on.
        stream_text: Give the frames of a text message as they come, not joined.
        stream_binary: The same for binary messages.

    Attributes:
        pending: Whether `receive` has to be called again, with b"" or more.
    """

    __slots__ = (
        "_doomed",
        "_ended",
        "_fragments",
        "_given",
        "_inflate",
        "_key_size",
        "_limit",
        "_mask_bit",
        "_max_fragments",
        "_max_frame_size",
        "_max_message_size",
        "_open",
        "_partial",
        "_pieces",
        "_proto",
        "_remaining",
        "_size",
        "_starts",
        "_stream",
        "_tail",
        "_wire_limit",
        "pending",
    )

    def __init__(
        self,
        *,
        client: bool,
        max_message_size: int | None = None,
        max_frame_size: int | None = None,
        max_fragments: int | None = None,
        inflate: Inflate | None = None,
        stream_text: bool = False,
        stream_binary: bool = False,
    ) -> None:
        self._mask_bit = 0 if client else _MASKED
        self._key_size = 0 if client else 4
        self._max_message_size = _NO_LIMIT if max_message_size is None else max_message_size
        self._max_frame_size = _NO_LIMIT if max_frame_size is None else max_frame_size
        self._max_fragments = _NO_LIMIT if max_fragments is None else max_fragments
        self._limit = min(self._max_message_size, self._max_frame_size)
        self._inflate = inflate
        self._starts = _DEFLATE_STARTS if inflate else _PLAIN_STARTS
        self._stream = {Opcode.TEXT: stream_text, Opcode.BINARY: stream_binary}

        self.pending = False  # there is more in _tail than half a header
        self._given = 0  # bytes of messages in this receive(), short ones aside
        self._tail = b""  # not read yet
        self._remaining = 0  # bytes to come of the frame we are in
        self._partial: _Partial | None = None  # that frame, if it is ours, not wsproto's
        self._open = False  # between the frames of a fragmented message
        self._size = 0  # of the fragmented message so far, on the wire
        self._wire_limit = 0  # for it
        self._fragments = 0
        self._proto: FrameProtocol | None = None
        self._pieces = _Pieces()  # of a message or frame from wsproto
        self._doomed = False  # a frame is malformed; wsproto will say how
        self._ended = False

    def receive(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes, in order.

        Takes a break when that is a lot: then `pending` is True, and a call
        with b"" goes on. Raises nothing: what is wrong with the bytes comes as
        an ERROR event. Bytes behind a close frame or an error are ignored
        (RFC 6455 section 1.4 and section 7.1.7).
        """
        events: list[Event] = []
        if self._ended:
            return events
        if self._tail:
            data = self._tail + data
            self._tail = b""
            self.pending = False
        try:
            self._read(data, events)
        except WebSocketError as exc:
            self._ended = True
            events.append(Event(ERROR, exc))
        return events

    def release(self) -> None:
        """Give back what takes memory: nothing more is received."""
        self._ended = True
        self.pending = False
        self._tail = b""
        self._partial = None
        if self._inflate is not None:
            self._inflate.release()

    @property
    def in_message(self) -> bool:
        """Whether a part of a message has come and the rest has not."""
        return self._partial is not None or self._open or bool(self._pieces)

    def _read(self, data: bytes, events: list[Event]) -> None:
        pos, end = 0, len(data)
        mask_bit, key_size, limit = self._mask_bit, self._key_size, self._limit
        self._given = 0
        while pos < end:
            if len(events) >= _MAX_EVENTS or self._given >= _MAX_BYTES:
                self._tail = data[pos:]
                self.pending = True
                return
            if self._remaining:
                pos = self._go_on(data, pos, events)
                if self._ended:
                    return
                continue
            if end - pos < 2 and not self._doomed:
                self._tail = data[pos:]
                return
            # A frame that is short, whole, plain and alone. Were the mask bit
            # wrong, the size would be 128 or more.
            first = data[pos]
            if (first == _FIN_BINARY or first == _FIN_TEXT) and not (self._open or self._doomed):
                size = data[pos + 1] ^ mask_bit
                start = pos + 2 + key_size
                stop = start + size
                if size < 126 and size <= limit and stop <= end:
                    payload = data[start:stop]
                    if key_size:
                        payload = mask(payload, data[pos + 2 : start])
                    if first == _FIN_TEXT:
                        events.append(_new_event(Event, (TEXT, _text(payload), True)))
                    else:
                        events.append(_new_event(Event, (BINARY, payload, True)))
                    pos = stop
                    continue
            pos = self._begin(data, pos, events)
            if self._ended:
                return

    def _begin(self, data: bytes, pos: int, events: list[Event]) -> int:
        """Read the header at `pos` and as much of its frame as is there; return where that ends."""
        end = len(data)
        border = None if self._doomed else self._header(data, pos)
        if self._doomed:
            self._feed(data[pos:], events)
            return end
        if border is None:
            self._tail = data[pos:]
            return end
        start, size = border
        first = data[pos]
        alone = first in (_FIN_TEXT, _FIN_BINARY) and not self._open
        if not first & 0x08:
            self._check_limits(first, size)
        if alone:
            self._partial = _Partial(first & 0x0F, data[start - self._key_size : start])
            self._remaining = size
            return self._go_on(data, start, events)
        stop = min(end, start + size)
        self._remaining = start + size - stop
        self._feed(data[pos:stop], events)
        return stop

    def _header(self, data: bytes, pos: int) -> tuple[int, int] | None:
        """Return where the payload starts and its size; None if the header is not complete.

        Sets _doomed if the header can only be refused. RFC 6455 section 5.2.
        """
        available = len(data) - pos
        first = data[pos]
        size = data[pos + 1] ^ self._mask_bit
        width = 0
        if first not in self._starts or size > 127 or (first & 0x08 and size > 125):
            self._doomed = True
            return None
        if size > 125:
            width = 2 if size == 126 else 8
            if available < 2 + width:
                return None
            size = int.from_bytes(data[pos + 2 : pos + 2 + width], "big")
            if size < (126 if width == 2 else 65_536) or size >> 63:
                self._doomed = True
                return None
        length = 2 + width + self._key_size
        return (pos + length, size) if available >= length else None

    def _check_limits(self, first: int, size: int) -> None:
        """Refuse a data frame whose header already says too much, and note the message's state."""
        if size > self._max_frame_size:
            raise PayloadTooBigError(
                f"a frame of {size} bytes is over max_frame_size, {self._max_frame_size}"
            )
        if not self._open:
            self._size = self._fragments = 0
            limit = self._max_message_size
            # Inflate bounds what comes out; what goes in is bounded here too,
            # against blocks that inflate to nothing.
            self._wire_limit = 2 * limit + 1024 if first & _RSV1 else limit
        self._size += size
        self._fragments += 1
        if self._size > self._wire_limit:
            raise PayloadTooBigError(
                f"a message of at least {self._size} bytes is over max_message_size, "
                f"{self._max_message_size}"
            )
        if self._fragments > self._max_fragments:
            raise PayloadTooBigError(
                f"a message of more frames than max_fragments, {self._max_fragments}"
            )
        self._open = not first & _FIN

    def _go_on(self, data: bytes, pos: int, events: list[Event]) -> int:
        """Read on in a frame that is not complete; return where that ends."""
        chunk = data[pos : pos + self._remaining]
        self._remaining -= len(chunk)
        if self._partial is None:
            self._feed(chunk, events)
        else:
            event = self._partial.feed(chunk, not self._remaining)
            if event is not None:
                self._partial = None
                self._given += len(event.data)
                events.append(event)
        return pos + len(chunk)

    # -- What wsproto does -----------------------------------------------

    def _feed(self, chunk: bytes, events: list[Event]) -> None:
        if self._proto is None:
            extensions = [self._inflate] if self._inflate else []
            self._proto = FrameProtocol(not self._mask_bit, list(extensions))
        self._proto.receive_bytes(chunk)
        try:
            for frame in self._proto.received_frames():
                opcode = frame.opcode
                if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
                    self._collect(frame, events)
                elif opcode is Opcode.CLOSE:
                    payload: Any = frame.payload
                    code, reason = payload
                    events.append(Event(CLOSE, Close(int(code), reason)))
                    self._ended = True
                    return
                else:
                    events.append(Event(int(opcode), frame.payload))
        except ParseFailed as exc:
            raise _error(exc, self._max_message_size) from exc

    def _collect(self, frame: Frame, events: list[Event]) -> None:
        """Join the parts of a message, or of a frame of one that is streamed."""
        self._pieces.add(frame.payload)  # type: ignore[arg-type]
        if frame.frame_finished if self._stream[frame.opcode] else frame.message_finished:
            data = self._pieces.take()
            self._given += len(data)
            events.append(Event(int(frame.opcode), data, frame.message_finished))


class Encoder:
    """The outbound half: messages and control frames in, bytes out.

    Control frames share no state with messages: one thread may ask for them
    while another encodes a message.

    Args:
        client: Whether this end is the client, which masks what it sends.
        deflate: permessage-deflate's outbound half if it was agreed on.
        threshold: Messages of fewer bytes are not compressed.
    """

    __slots__ = ("_client", "_deflate", "_open", "_proto", "_threshold")

    def __init__(self, *, client: bool, deflate: Deflate | None = None, threshold: int = 0) -> None:
        self._client = client
        self._deflate = deflate
        self._threshold = threshold if deflate else _NO_LIMIT
        self._open: int | None = None  # opcode of a fragmented message under way
        self._proto: FrameProtocol | None = None

    def message(self, opcode: int, payload: bytes, final: bool = True) -> bytes:
        """Return the frame of a message, or of a fragment of one.

        Args:
            opcode: TEXT or BINARY.
            payload: The data; for TEXT valid UTF-8 as a whole, fragment by fragment.
            final: False if more fragments follow.

        Raises:
            InvalidContinuationFrameError: A fragmented message of the other
                type is under way; nothing has changed. RFC 6455 section 5.4.
        """
        size = len(payload)
        if final and self._open is None and size < self._threshold:
            if size < 126:
                return self._small(opcode, payload)
            return self._large(opcode, payload)
        return self._by_wsproto(opcode, payload, final)

    def _large(self, opcode: int, payload: bytes) -> bytes:
        """Return a final frame of 126 bytes or more. RFC 6455 section 5.2."""
        size = len(payload)
        width, code = (2, 126) if size < 65_536 else (8, 127)
        bit = _MASKED if self._client else 0
        header = bytes((_FIN | opcode, bit | code)) + size.to_bytes(width, "big")
        if self._client:
            key = os.urandom(4)
            return header + key + mask(payload, key)
        return header + payload

    def _by_wsproto(self, opcode: int, payload: bytes, final: bool) -> bytes:
        if self._open is None:
            if self._deflate is not None:
                self._deflate.compress_next = not final or len(payload) >= self._threshold
        elif self._open != opcode:
            names = {TEXT: "text", BINARY: "binary"}
            raise InvalidContinuationFrameError(
                f"a fragmented {names[self._open]} message is under way: end it with "
                f"final=True before sending {names[opcode]}"
            )
        self._open = None if final else opcode
        if self._proto is None:
            self._proto = FrameProtocol(self._client, [self._deflate] if self._deflate else [])
        data = payload.decode() if opcode == TEXT else payload
        return bytes(self._proto.send_data(data, final))

    def ping(self, payload: bytes) -> bytes:
        """Return a ping frame. RFC 6455 section 5.5.2."""
        return self._control(PING, payload)

    def pong(self, payload: bytes) -> bytes:
        """Return a pong frame. RFC 6455 section 5.5.3."""
        return self._control(PONG, payload)

    def close(self, close: Close) -> bytes:
        """Return a close frame; one without a body for code 1005. RFC 6455 section 5.5.1."""
        if close.code == 1005:
            return self._control(CLOSE, b"")
        return self._control(CLOSE, close.code.to_bytes(2, "big") + close.reason.encode())

    def _control(self, opcode: int, payload: bytes) -> bytes:
        """Return a control frame. RFC 6455 section 5.5."""
        assert len(payload) < 126
        return self._small(opcode, payload)

    def _small(self, opcode: int, payload: bytes) -> bytes:
        """Return a final frame of fewer than 126 bytes."""
        if self._client:
            key = os.urandom(4)
            header = bytes((_FIN | opcode, _MASKED | len(payload)))
            return header + key + mask(payload, key)
        return bytes((_FIN | opcode, len(payload))) + payload


def make_codec(
    config: ConnectionConfig,
    params: DeflateParams | None,
    *,
    client: bool,
    stream_text: bool = False,
    stream_binary: bool = False,
) -> tuple[Decoder, Encoder]:
    """Return both halves for a connection.

    Args:
        config: Its limits, and the settings of its compression.
        params: What the handshake agreed on, or None for no compression.
        client: Whether this end is the client.
        stream_text: Give the frames of a text message as they come.
        stream_binary: The same for binary messages.
    """
    inflate = deflate = None
    settings = config.deflate
    if params is not None and settings is not None:
        bits = (params.server_max_window_bits, params.client_max_window_bits)
        fresh = (params.server_no_context_takeover, params.client_no_context_takeover)
        inflate = Inflate(
            window_bits=bits[not client],
            no_context_takeover=fresh[not client],
            max_message_size=config.max_message_size,
        )
        deflate = Deflate(
            window_bits=bits[client],
            no_context_takeover=fresh[client],
            level=settings.level,
            mem_level=settings.mem_level,
        )
    decoder = Decoder(
        client=client,
        max_message_size=config.max_message_size,
        max_frame_size=config.max_frame_size,
        max_fragments=config.max_fragments,
        inflate=inflate,
        stream_text=stream_text,
        stream_binary=stream_binary,
    )
    threshold = settings.threshold if settings is not None else 0
    return decoder, Encoder(client=client, deflate=deflate, threshold=threshold)


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as exc:
        raise _not_utf8(exc.reason, exc.start) from exc


def _not_utf8(reason: str, offset: int) -> InvalidPayloadError:
    return InvalidPayloadError(f"a text message is not UTF-8: {reason} at byte {offset}")


def _error(exc: ParseFailed, max_message_size: int) -> WebSocketError:
    """Return our error for wsproto's."""
    if exc.code == PayloadTooBigError.status_code:
        return PayloadTooBigError(
            f"a message inflates to more than max_message_size, {max_message_size} bytes"
        )
    text = str(exc)
    by_extension = text == "error in extension"
    if exc.code == InvalidPayloadError.status_code:
        return InvalidPayloadError(
            "a compressed message does not inflate" if by_extension else text
        )
    if by_extension:
        return ProtocolError("RSV1 is set on a frame that does not begin a message")
    if "CONTINUATION" in text:
        return InvalidContinuationFrameError(text)
    return ProtocolError(text)
