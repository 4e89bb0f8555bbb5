"""Bytes to messages and control frames: the inbound half of a connection.

Two paths share the work. Unfragmented data frames, nearly all of real traffic,
and control frames are read here, the uncompressed messages by `kernels`;
fragments, and whatever is malformed, go through wsproto. The two hand over at
frame borders only: this module reads every frame header that `kernels` has
left, so it always knows where the next one starts. What wsproto refuses, the
fast path refuses too, and as early: text is checked as it arrives, not when it
is complete. RFC 6455 section 5.
"""

from __future__ import annotations

import codecs
import io
from typing import Any

from wsproto.frame_protocol import CloseReason, Frame, FrameProtocol, Opcode, ParseFailed

from ..errors import (
    Close,
    InvalidContinuationFrameError,
    InvalidPayloadError,
    PayloadTooBigError,
    ProtocolError,
    WebSocketError,
)
from .deflate import Inflate
from .events import BINARY, CLOSE, ERROR, TEXT, Event
from .kernels import Payload, mask, read_frames

__all__ = ["Decoder"]

_FIN = 0x80
_RSV1 = 0x40
_MASKED = 0x80
_FIN_TEXT = _FIN | TEXT
_FIN_BINARY = _FIN | BINARY

_PLAIN = (_FIN_TEXT, _FIN_BINARY)

# First bytes that can begin a good frame. Any other goes to wsproto, which
# says what is wrong with it.
_PLAIN_STARTS = frozenset((0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A))
_COMPRESSED = (_FIN | _RSV1 | TEXT, _FIN | _RSV1 | BINARY)
_DEFLATE_STARTS = _PLAIN_STARTS | {0x41, 0x42, 0xC1, 0xC2}

# Status codes of close frames that are right beyond doubt. RFC 6455 section 7.4.
_CLOSE_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)))

_NO_LIMIT = (1 << 63) - 1

# Events, and bytes of messages, after which `Decoder.receive` takes a break:
# what came at once may become a thousand times as much.
_MAX_EVENTS = 256
_MAX_BYTES = 262_144

# Bytes still to come of a frame from which it is worth receiving them in place.
_IN_PLACE = 8192

_Data = bytes | bytearray

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


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

    @property
    def size(self) -> int:
        """Their bytes, or characters of text."""
        if self._buffer is not None:
            return int(self._buffer.tell())
        return 0 if self._first is None else len(self._first)

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
        at_border: Whether no frame and no message has begun.
        pending: Whether `receive` has to be called again, with b"" or more.
    """

    __slots__ = (
        "_doomed",
        "_ended",
        "_fragments",
        "_frame_size",
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
        "at_border",
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

        self.at_border = True
        self.pending = False  # there is more in _tail than half a header
        self._given = 0  # bytes of messages in this receive(), short ones aside
        self._tail = b""  # not read yet
        self._frame_size = 0  # of the frame that we are in, if it is ours
        self._remaining = 0  # bytes of it to come
        self._partial: Payload | None = None  # that frame, if it is ours, not wsproto's
        self._open = False  # between the frames of a fragmented message
        self._size = 0  # of the fragmented message so far, on the wire
        self._wire_limit = 0  # for it
        self._fragments = 0
        self._proto: FrameProtocol | None = None
        self._pieces = _Pieces()  # of a message or frame from wsproto
        self._doomed = False  # a frame is malformed; wsproto will say how
        self._ended = False

    def receive(self, data: bytes | bytearray, size: int | None = None) -> list[Event]:
        """Return the events that `data` completes, in order.

        Takes a break when that is a lot: then `pending` is True, and a call
        with b"" goes on. Raises nothing: what is wrong with the bytes comes as
        an ERROR event. Bytes behind a close frame or an error are ignored
        (RFC 6455 section 1.4 and section 7.1.7).

        Args:
            data: What has come. It is not kept.
            size: How much of it, if not all.
        """
        events: list[Event] = []
        end = len(data) if size is None else size
        pos = 0
        if self.at_border:
            pos = read_frames(data, 0, end, self._mask_bit, self._limit, _MAX_EVENTS, Event, events)
            if pos == end:
                return events
        return self.receive_rest(data, pos, end, events)

    def receive_rest(
        self, data: bytes | bytearray, pos: int, end: int, events: list[Event]
    ) -> list[Event]:
        """Do what `receive` does with `data` from `pos` to `end`.

        Args:
            data: What has come. It is not kept.
            pos: Where plain frames end that were read already.
            end: Where the data ends.
            events: What they gave; gets the others.
        """
        if self._ended:
            return events
        if self._tail:
            data = self._tail + data[pos:end]
            self._tail = b""
            self.pending = False
            pos, end = 0, len(data)
        try:
            self._read(data, pos, end, events)
        except WebSocketError as exc:
            self._fail(exc, events)
        self._note_border()
        return events

    @property
    def plain_frames(self) -> tuple[int, int, int, type[Event]]:
        """What `kernels.read_frames` is told of the frames to read."""
        return self._mask_bit, self._limit, _MAX_EVENTS, Event

    def space(self) -> memoryview | None:
        """Where the next bytes may be received to, if not anywhere: then `filled` takes them.

        That is the rest of a large frame, which is so copied once less.
        """
        if self._partial is None or self._remaining < _IN_PLACE:
            return None
        return self._partial.space()

    def filled(self, size: int) -> list[Event]:
        """Return the events that come with `size` bytes in `space`, which was released."""
        partial = self._partial
        assert partial is not None
        self._remaining -= size
        events: list[Event] = []
        self._advance(partial.fill(size), events)
        return events

    def _note_border(self) -> None:
        self.at_border = not (
            self._tail or self._remaining or self._open or self._doomed or self._ended
        )

    def _fail(self, error: WebSocketError, events: list[Event]) -> None:
        self._ended = True
        events.append(Event(ERROR, error))

    def release(self) -> None:
        """Give back what takes memory: nothing more is received."""
        self._ended = True
        self.at_border = False
        self.pending = False
        self._tail = b""
        self._partial = None
        if self._inflate is not None:
            self._inflate.release()

    @property
    def in_frame(self) -> bool:
        """Whether a part of a plain frame has come and the rest has not."""
        return self._partial is not None

    @property
    def in_message(self) -> bool:
        """Whether a part of a message has come and the rest has not."""
        return self._partial is not None or self._open or bool(self._pieces)

    @property
    def held(self) -> int:
        """Bytes of what has come in part."""
        size = len(self._tail) + self._pieces.size
        return size if self._partial is None else size + self._frame_size - self._remaining

    def _read(self, data: _Data, pos: int, end: int, events: list[Event]) -> None:
        self._given = 0
        while pos < end:
            if len(events) >= _MAX_EVENTS or self._given >= _MAX_BYTES:
                self._tail = bytes(data[pos:end])
                self.pending = True
                return
            if self._remaining:
                pos = self._go_on(data, pos, end, events)
                if self._ended:
                    return
                continue
            if end - pos < 2 and not self._doomed:
                self._tail = bytes(data[pos:end])
                return
            if data[pos] in _PLAIN and not (self._open or self._doomed):
                most = _MAX_EVENTS - len(events)
                start = pos
                pos = read_frames(data, pos, end, self._mask_bit, self._limit, most, Event, events)
                if pos != start:
                    continue
            pos = self._begin(data, pos, end, events)
            if self._ended:
                return

    def _begin(self, data: _Data, pos: int, end: int, events: list[Event]) -> int:
        """Read the header at `pos` and as much of its frame as is there; return where that ends."""
        border = None if self._doomed else self._header(data, pos, end)
        if self._doomed:
            self._feed(bytes(data[pos:end]), events)
            return end
        if border is None:
            self._tail = bytes(data[pos:end])
            return end
        start, size = border
        first = data[pos]
        alone = first in _PLAIN and not self._open
        compressed = first in _COMPRESSED and not self._open
        if not first & 0x08:
            self._check_limits(first, size)
        if compressed and start + size <= end and self._inflate is not None:
            stop = start + size
            payload = self._unmasked(data, start, stop)
            event = self._inflated(first & 0x0F, self._inflate.whole(payload))
            self._given += len(event.data)
            events.append(event)
            return stop
        if alone:
            key = bytes(data[start - 4 : start]) if self._key_size else None
            self._partial = Payload(size, key, first == _FIN_TEXT)
            self._remaining = self._frame_size = size
            return self._go_on(data, start, end, events)
        stop = min(end, start + size)
        if first & 0x08 and stop == start + size:
            control = self._control(first & 0x0F, data, start, stop)
            if control is not None:
                events.append(control)
                return stop
        self._remaining = start + size - stop
        self._feed(bytes(data[pos:stop]), events)
        return stop

    def _unmasked(self, data: _Data, start: int, stop: int) -> bytes:
        payload = bytes(data[start:stop])
        return mask(payload, bytes(data[start - 4 : start])) if self._key_size else payload

    def _control(self, opcode: int, data: _Data, start: int, stop: int) -> Event | None:
        """Return a control frame that came whole; None if wsproto should look at it.

        RFC 6455 section 5.5.
        """
        payload = self._unmasked(data, start, stop)
        if opcode != CLOSE:
            return Event(opcode, payload)
        if not payload:
            close = Close(1005)
        else:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) < 2 or code not in _CLOSE_CODES:
                return None
            try:
                close = Close(code, payload[2:].decode())
            except UnicodeDecodeError:
                return None
        self._ended = True
        return Event(CLOSE, close)

    def _inflated(self, opcode: int, message: bytes | CloseReason) -> Event:
        """Return a compressed message that came whole."""
        if not isinstance(message, bytes):
            raise _error(message, "error in extension", self._max_message_size)
        if opcode == BINARY:
            return Event(BINARY, message)
        try:
            return Event(TEXT, message.decode())
        except UnicodeDecodeError as exc:
            raise InvalidPayloadError(str(exc)) from exc

    def _header(self, data: _Data, pos: int, end: int) -> tuple[int, int] | None:
        """Return where the payload starts and its size; None if the header is not complete.

        Sets _doomed if the header can only be refused. RFC 6455 section 5.2.
        """
        available = end - pos
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

    def _go_on(self, data: _Data, pos: int, end: int, events: list[Event]) -> int:
        """Read on in a frame that is not complete; return where that ends."""
        stop = min(end, pos + self._remaining)
        self._remaining -= stop - pos
        if self._partial is None:
            self._feed(bytes(data[pos:stop]), events)
        else:
            self._advance(self._partial.add(data, pos, stop), events)
        return stop

    def _advance(self, good: bool, events: list[Event]) -> None:
        """A plain frame has got some more of its payload, good or not."""
        partial = self._partial
        assert partial is not None
        if not good:
            self._fail(_not_utf8(partial.so_far(), not self._remaining), events)
        elif not self._remaining:
            data = partial.take()
            self._partial = None
            self._given += len(data)
            events.append(Event(TEXT if isinstance(data, str) else BINARY, data))
        self._note_border()

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
            raise _error(exc.code, str(exc), self._max_message_size) from exc

    def _collect(self, frame: Frame, events: list[Event]) -> None:
        """Join the parts of a message, or of a frame of one that is streamed."""
        self._pieces.add(frame.payload)  # type: ignore[arg-type]
        if frame.frame_finished if self._stream[frame.opcode] else frame.message_finished:
            data = self._pieces.take()
            self._given += len(data)
            events.append(Event(int(frame.opcode), data, frame.message_finished))


def _not_utf8(text: bytes, whole: bool) -> InvalidPayloadError:
    """Return the error for a text, or the beginning of one, that is not UTF-8."""
    try:
        _Utf8Decoder().decode(text, whole)
    except UnicodeDecodeError as exc:
        return InvalidPayloadError(f"a text message is not UTF-8: {exc.reason} at byte {exc.start}")
    raise AssertionError("that is UTF-8")


def _error(code: CloseReason, text: str, max_message_size: int) -> WebSocketError:
    """Return our error for wsproto's."""
    if code == PayloadTooBigError.status_code:
        return PayloadTooBigError(
            f"a message inflates to more than max_message_size, {max_message_size} bytes"
        )
    by_extension = text == "error in extension"
    if code == InvalidPayloadError.status_code:
        return InvalidPayloadError(
            "a compressed message does not inflate" if by_extension else text
        )
    if by_extension:
        return ProtocolError("RSV1 is set on a frame that does not begin a message")
    if "CONTINUATION" in text:
        return InvalidContinuationFrameError(text)
    return ProtocolError(text)
