"""Plain frames: whole messages of one uncompressed frame. RFC 6455 section 5.

What costs time for every byte and every message stands here, each piece for
itself and in Python. The C extension has twins of the same names, and
`kernels` tells which are in use.
"""

from __future__ import annotations

import codecs
import io
from typing import Any

from .events import BINARY, TEXT

__all__ = ["Payload", "frame", "head", "mask", "read_frames"]

_FIN_TEXT = 0x80 | TEXT
_FIN_BINARY = 0x80 | BINARY

_XOR = [bytes(byte ^ key for byte in range(256)) for key in range(256)]

# Above this many bytes four table look-ups beat one XOR of big integers.
_TABLE_FROM = 1024

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")

# What a NamedTuple's constructor does, without the call in between.
_new_event = tuple.__new__


def mask(data: bytes | bytearray, key: bytes | bytearray, _int: type[int] = int) -> bytes:
    """Return `data` XORed with the 4 bytes of `key`, over and over.

    Masking twice with one key gives the data back. RFC 6455 section 5.3.
    """
    size = len(data)
    if size < _TABLE_FROM:
        keys = (key * ((size >> 2) + 1))[:size]
        return (_int.from_bytes(data, "little") ^ _int.from_bytes(keys, "little")).to_bytes(
            size, "little"
        )
    out = bytearray(data)
    for offset in range(4):
        out[offset::4] = out[offset::4].translate(_XOR[key[offset]])
    return bytes(out)


def read_frames(
    data: bytes | bytearray,
    pos: int,
    end: int,
    mask_bit: int,
    limit: int,
    most: int,
    event_type: type[tuple[Any, ...]],
    events: list[Any],
) -> int:
    """Read the plain frames that begin at `pos` and are whole.

    Stops at the first frame that is another, is not complete, or is one to
    refuse, whatever the reason.

    Args:
        data: What has come.
        pos: Where a frame begins.
        end: Where the data ends.
        mask_bit: 0x80 if frames must be masked, 0 if they must not.
        limit: Bytes of the largest payload to take.
        most: The number of frames to read at the most.
        event_type: A tuple of three: the opcode, a str or bytes, True.
        events: Gets one for each frame.

    Returns:
        Where it stopped: `pos` if it read nothing.
    """
    key_size = 4 if mask_bit else 0
    from_bytes = int.from_bytes
    while end - pos >= 2 and most > 0:
        first = data[pos]
        if first != _FIN_BINARY and first != _FIN_TEXT:
            break
        size = data[pos + 1] ^ mask_bit  # were the bit wrong, this would be 128 or more
        start = pos + 2 + key_size
        if size > 125:
            width = 2 if size == 126 else 8
            start += width
            if size > 127 or start > end:
                break
            size = int.from_bytes(data[pos + 2 : pos + 2 + width], "big")
            if size < (126 if width == 2 else 65_536):
                break
        stop = start + size
        if stop > end or size > limit:
            break
        payload = data[start:stop]
        if mask_bit:
            key = data[start - 4 : start]
            if size < _TABLE_FROM:  # the same as `mask`, without the call
                keys = (key * ((size >> 2) + 1))[:size]
                number = from_bytes(payload, "little") ^ from_bytes(keys, "little")
                payload = number.to_bytes(size, "little")
            else:
                payload = mask(payload, key)
        if first == _FIN_TEXT:
            try:
                events.append(_new_event(event_type, (TEXT, payload.decode(), True)))
            except UnicodeDecodeError:
                break  # the caller tells where and why
        else:
            events.append(_new_event(event_type, (BINARY, bytes(payload), True)))
        pos = stop
        most -= 1
    return pos


def frame(first: int, payload: bytes, key: bytes | None) -> bytes:
    """Return a frame. RFC 6455 section 5.2.

    Args:
        first: Its first byte: FIN, reserved bits and opcode.
        payload: The payload as it is.
        key: The masking key, or None for a frame without.
    """
    start = head(first, len(payload), masked=key is not None)
    return start + payload if key is None else start + key + mask(payload, key)


def head(first: int, size: int, *, masked: bool = False) -> bytes:
    """Return a frame's header up to its masking key. RFC 6455 section 5.2."""
    bit = 0x80 if masked else 0
    if size < 126:
        return bytes((first, bit | size))
    if size < 65_536:
        return bytes((first, bit | 126, size >> 8, size & 0xFF))
    return bytes((first, bit | 127)) + size.to_bytes(8, "big")


class Payload:
    """The payload of one plain frame, which comes in pieces.

    Text is checked as it comes. The pieces are joined as they come: kept
    apart, the tiniest would take up many times their size.

    Args:
        size: Its bytes.
        key: Its masking key, or None.
        text: Whether it is UTF-8.
    """

    __slots__ = ("_bad", "_bytes", "_decoder", "_filled", "_key", "_size", "_text")

    def __init__(self, size: int, key: bytes | None, text: bool) -> None:
        self._size = size
        self._key = key
        self._filled = 0
        self._decoder = _Utf8Decoder() if text else None
        self._text = io.StringIO()
        self._bytes = io.BytesIO()
        self._bad = b""

    def space(self) -> memoryview | None:
        """Where the next bytes can be received to; then they are told to `fill`.

        Not here: they are given to `add`.
        """
        return None

    def fill(self, size: int) -> bool:
        """Take `size` bytes that were received to `space`."""
        raise ValueError("a payload in Python has no space")

    def add(self, data: bytes | bytearray, start: int, stop: int) -> bool:
        """Take the next bytes, a part of `data`; return False if this can be no UTF-8."""
        piece = data[start:stop]
        decoder = self._decoder
        turn = self._filled & 3
        self._filled += len(piece)
        if self._filled > self._size:
            raise ValueError("a payload has no room for that")
        if decoder is None:
            self._bytes.write(piece)
            return True
        if self._key is not None:
            piece = mask(piece, self._key[turn:] + self._key[:turn])
        held = decoder.getstate()[0]
        try:
            self._text.write(decoder.decode(piece, self._filled == self._size))
        except UnicodeDecodeError:
            self._bad = held + bytes(piece)
            return False
        return True

    def so_far(self) -> bytes:
        """Return a text's bytes, unmasked: after `add` has returned False."""
        return self._text.getvalue().encode() + self._bad

    def take(self) -> str | bytes:
        """Return the whole, a str if it is text."""
        if self._filled != self._size:
            raise ValueError("the payload is not complete")
        if self._decoder is not None:
            return self._text.getvalue()
        data = self._bytes.getvalue()
        return data if self._key is None else mask(data, self._key)
