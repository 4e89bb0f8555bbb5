"""A reader of what one end has put on the wire, by the letter and on its own.

It shares no code with what it checks. RFC 6455 section 5, RFC 7692 section 7.2.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from syncws.errors import Close

__all__ = ["Seen", "Tap"]

_TAIL = b"\x00\x00\xff\xff"
_CONT, _TEXT, _CLOSE = 0x0, 0x1, 0x8


class Seen(NamedTuple):
    """A message, a fragment of one, or a control frame."""

    opcode: int
    data: str | bytes
    final: bool = True


class Tap:
    """Reads frames as they pass.

    Args:
        masked: Whether they must be masked.
        streams: The opcodes whose fragments are kept apart.
        afresh: Whether each compressed message starts afresh.
        window_bits: The sender's window.

    Attributes:
        seen: Messages and pings and pongs, in the order of their ends.
        close: The close frame.
        at_border: Whether no frame has come in part.
    """

    def __init__(self, masked: bool, streams: set[int], afresh: bool, window_bits: int) -> None:
        self.seen: list[Seen] = []
        self.close: Close | None = None
        self._masked = masked
        self._streams = streams
        self._afresh = afresh
        self._bits = window_bits
        self._inflater = zlib.decompressobj(-window_bits)
        self._buffer = b""
        self._opcode = _CONT  # of the message under way
        self._compressed = False
        self._parts: list[bytes] = []

    @property
    def at_border(self) -> bool:
        return not self._buffer

    def feed(self, data: bytes) -> None:
        """Take what passes."""
        self._buffer += data
        while (taken := self._frame()) is not None:
            self._buffer = self._buffer[taken:]

    def _frame(self) -> int | None:
        """Take one frame; return its size, or None if it is not complete."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
            assert size > (125 if start == 4 else 0xFFFF), "a length is not minimal"
        assert bool(buffer[1] & 0x80) is self._masked, "masked wrongly"
        key = buffer[start : start + 4] if self._masked else b""
        start += 4 if self._masked else 0
        if len(buffer) < start + size:
            return None
        payload = buffer[start : start + size]
        if key:
            payload = bytes(byte ^ key[number & 3] for number, byte in enumerate(payload))
        self._take(buffer[0], payload)
        return start + size

    def _take(self, first: int, payload: bytes) -> None:
        assert self.close is None, f"a frame behind the close frame: {first:#x}, {payload!r:.100}"
        opcode, fin = first & 0x0F, bool(first & 0x80)
        assert not first & 0x30, "RSV2 or RSV3 is set"
        if opcode < _CLOSE:
            self._message(opcode, bool(first & 0x40), fin, payload)
            return
        assert fin, "a control frame is fragmented"
        assert not first & 0x40, "a control frame is compressed"
        assert len(payload) < 126, "a control frame is too long"
        if opcode == _CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else 1005
            self.close = Close(code, payload[2:].decode())
        else:
            self.seen.append(Seen(opcode, payload))

    def _message(self, opcode: int, compressed: bool, fin: bool, payload: bytes) -> None:
        if opcode == _CONT:
            assert self._opcode, "nothing to continue"
            assert not compressed, "RSV1 is set on a continuation"
        else:
            assert not self._opcode, "a message begins in another"
            self._opcode, self._compressed = opcode, compressed
        if self._compressed:
            payload = self._inflater.decompress(payload + (_TAIL if fin else b""))
            if fin and self._afresh:
                self._inflater = zlib.decompressobj(-self._bits)
        self._parts.append(payload)
        opcode = self._opcode
        if fin or opcode in self._streams:
            data = b"".join(self._parts)
            self.seen.append(Seen(opcode, data.decode() if opcode == _TEXT else data, fin))
            self._parts = []
        if fin:
            self._opcode = _CONT
