"""What a fuzzer's bytes mean: settings, cuts, and the bytes that go in.

2 bytes   settings, read bit by bit
1 byte    the number of cuts, modulo 8
n bytes   the sizes of the pieces, over and over; 0 means all that is left
the rest  what goes in
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

__all__ = ["Outcome", "Parcel", "Violation"]

#: What came of an input, as far as it tells inputs apart. Inputs whose outcome
#: is new are worth keeping.
Outcome = tuple[object, ...]

_T = TypeVar("_T")
_MOST_CUTS = 8


class Violation(AssertionError):
    """Something that must hold did not."""


class Parcel(NamedTuple):
    """One input, taken apart.

    Attributes:
        settings: 16 bits that choose roles, limits and so on.
        sizes: Sizes of the pieces.
        data: What goes in.
    """

    settings: int
    sizes: tuple[int, ...]
    data: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Parcel:
        """Take any bytes."""
        count = raw[2] % _MOST_CUTS if len(raw) > 2 else 0
        return cls(int.from_bytes(raw[:2], "big"), tuple(raw[3 : 3 + count]), raw[3 + count :])

    def pack(self) -> bytes:
        """Return the bytes that `parse` makes this of."""
        assert len(self.sizes) < _MOST_CUTS
        return self.settings.to_bytes(2, "big") + bytes((len(self.sizes), *self.sizes)) + self.data

    def bits(self, position: int, width: int = 1) -> int:
        """Return some of the settings."""
        return self.settings >> position & ((1 << width) - 1)

    def choose(self, position: int, choices: Sequence[_T]) -> _T:
        """Return the choice, one of 2, 4 or 8, that the settings at `position` make."""
        return choices[self.bits(position, (len(choices) - 1).bit_length())]

    def pieces(self) -> list[bytes]:
        """Return the data, cut."""
        return list(cut(self.data, self.sizes))


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Yield `data` in pieces."""
    pos = 0
    for size in itertools.cycle(sizes or (0,)):
        if pos >= len(data):
            return
        yield data[pos : pos + size] if size else data[pos:]
        pos = pos + size if size else len(data)
