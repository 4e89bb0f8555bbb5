"""What a message of the soak says of itself, so that whoever gets it can check it.

A head has the message's kind, the connection it belongs to, its number there,
the time it was made, the size of the body, and a checksum of all of it. Text
has the head in base64. An empty message has none: it takes the number after
the one before, which the next message confirms.
"""

from __future__ import annotations

import base64
import binascii
import enum
import functools
import random
import struct
import zlib
from typing import NamedTuple

__all__ = ["BROADCAST", "Corrupt", "Kind", "Message", "Stock", "pack", "unpack"]


class Kind(enum.IntEnum):
    """What is meant to come of a message."""

    ECHO = 1  # a REPLY with the same body
    REPLY = 2
    BURST = 3  # as many PUSHes as the body says
    PUSH = 4
    FIN = 5  # nothing follows from this end: a FINACK, after everything else
    FINACK = 6
    CLOSE_ME = 7  # the server is to close, with the code in the body
    ABORT_ME = 8  # the server is to cut TCP; with a reset if the body says so
    BROADCAST = 9  # to a group; has a numbering of its own


BROADCAST = Kind.BROADCAST

# kind, connection, number, size of the body, time
_HEAD = struct.Struct("<BQIId")
_SUM = struct.Struct("<Ix")
_SIZE = _HEAD.size + _SUM.size
_TEXT_SIZE = len(base64.b64encode(bytes(_SIZE)))


class Message(NamedTuple):
    """A message that is what its sender has made."""

    kind: int
    connection: int
    number: int
    stamp: float
    body: str | bytes


class Corrupt(Exception):
    """A message is not what its sender has made."""


def pack(kind: int, connection: int, number: int, stamp: float, body: str | bytes) -> str | bytes:
    """Return a message, of the body's type."""
    data = body.encode() if isinstance(body, str) else body
    head = _HEAD.pack(kind, connection, number, len(data), stamp)
    head += _SUM.pack(zlib.crc32(data, zlib.crc32(head)))
    if isinstance(body, str):
        return base64.b64encode(head).decode() + body
    return head + data


def unpack(message: str | bytes) -> Message:
    """Return what a message says.

    Raises:
        Corrupt: It is not what `pack` has made.
    """
    body: str | bytes
    if isinstance(message, str):
        try:
            head = base64.b64decode(message[:_TEXT_SIZE], validate=True)
        except (binascii.Error, ValueError):
            raise Corrupt("the head is not base64") from None
        body = message[_TEXT_SIZE:]
        data = body.encode()
    else:
        head = message[:_SIZE]
        body = data = message[_SIZE:]
    if len(head) != _SIZE:
        raise Corrupt(f"{len(message)} are too few for a head")
    kind, connection, number, size, stamp = _HEAD.unpack_from(head)
    if size != len(data):
        raise Corrupt(f"{len(data)} bytes of {size}")
    (checksum,) = _SUM.unpack_from(head, _HEAD.size)
    if checksum != zlib.crc32(data, zlib.crc32(head[: _HEAD.size])):
        raise Corrupt("the checksum is wrong")
    return Message(kind, connection, number, stamp, body)


# Sizes of bodies: up to which, and how many of a thousand.
_SIZES = ((80, 620), (1024, 280), (8192, 85), (49_152, 13), (262_000, 2))

_WORDS = [
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", ""),
    *("naïve", "café", "10", "€", "漢字", "🦊"),
]


@functools.cache
def _matter() -> tuple[bytes, str]:
    """Return what bodies are cut from: noise and text."""
    dice = random.Random(0)
    return dice.randbytes(524_288), " ".join(dice.choices(_WORDS, k=100_000))[:300_000]


class Stock:
    """Bodies of mixed sizes, some of which compress well and others not at all."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._noise, self._text = _matter()
        self._limits, self._weights = zip(*_SIZES, strict=True)

    def size(self) -> int:
        """Return the size of the next body."""
        (index,) = self._random.choices(range(len(_SIZES)), self._weights)
        least = self._limits[index - 1] if index else 0
        return self._random.randint(least, self._limits[index])

    def body(self, size: int | None = None) -> str | bytes:
        """Return a body: text, noise, or what compresses well."""
        if size is None:
            size = self.size()
        pick = self._random.random()
        if pick < 0.4:
            # A character is 1.2 bytes or so; at the most 262,144 bytes in all.
            size = int(size * 0.8)
            start = self._random.randrange(len(self._text) - size)
            return self._text[start : start + size]
        if pick < 0.5:
            return bytes(size)
        start = self._random.randrange(len(self._noise) - size)
        return self._noise[start : start + size]
