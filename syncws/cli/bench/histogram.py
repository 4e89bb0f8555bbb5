"""Durations in buckets that grow with them: constant memory, and percentiles within a percent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["PERCENTILES", "Histogram", "bars"]

PERCENTILES = (50.0, 90.0, 99.0, 99.9)

# Buckets for each power of two: what is in one differs by less than 1/64.
_BITS = 6

_NANO = 1_000_000_000


class Histogram:
    """Counts durations.

    `add` may be called by one thread at a time; others may read meanwhile.

    Attributes:
        count: How many there are.
        least: The shortest, in seconds; 0 if there is none.
        most: The longest.
    """

    def __init__(self) -> None:
        self.count = 0
        self.least = self.most = 0.0
        self._total = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one."""
        if not self.count or seconds < self.least:
            self.least = seconds
        self.most = max(self.most, seconds)
        self.count += 1
        self._total += seconds
        nanos = int(seconds * _NANO)
        shift = max(0, nanos.bit_length() - _BITS - 1)
        self._buckets[(shift << _BITS) + (nanos >> shift)] += 1

    @classmethod
    def sum(cls, parts: Iterable[Histogram]) -> Histogram:
        """Return one with what all of them have."""
        whole = cls()
        for part in parts:
            if part.count:
                whole.least = min(part.least, whole.least) if whole.count else part.least
                whole.most = max(part.most, whole.most)
                whole.count += part.count
                whole._total += part._total
                whole._buckets.update(part._buckets)
        return whole

    @property
    def mean(self) -> float:
        """The mean, in seconds; 0 if there is none."""
        return self._total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Return what so many percent are at most, in seconds, within 1/64 of itself."""
        wanted = percent / 100 * self.count
        seen = 0
        for bucket, count in sorted(self._buckets.items()):
            seen += count
            if seen >= wanted:
                return min(max(_middle(bucket), self.least), self.most)
        return self.most

    def rows(self) -> list[tuple[float, int]]:
        """Return seconds in the steps 1, 2, 5, and how many are at most that and over the last."""
        rows: list[tuple[float, int]] = []
        found = sorted((_middle(bucket), count) for bucket, count in self._buckets.items())
        for edge in _edges():
            if not found:
                break
            inside = 0
            while found and found[0][0] <= edge:
                inside += found.pop(0)[1]
            if inside or rows:
                rows.append((edge, inside))
        return rows


def _middle(bucket: int) -> float:
    shift = max(0, (bucket >> _BITS) - 1)
    return (((bucket - (shift << _BITS)) << shift) + (1 << shift) / 2) / _NANO


def _edges() -> Iterable[float]:
    """1, 2 and 5 times each power of ten, from a microsecond on."""
    for power in range(-6, 6):
        for digit in (1, 2, 5):
            yield digit * 10.0**power


def bars(counts: Sequence[int], width: int) -> list[str]:
    """Return a bar for each count; the longest is `width` characters, none is empty but for 0."""
    most = max(counts, default=0)
    return ["#" * (-(-count * width // most) if most else 0) for count in counts]
