"""Figures over time: latencies, and whether memory is flat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["Histogram", "growth", "slope"]

# Buckets to each doubling.
_FINE = 8
_BUCKETS = 36 * _FINE


class Histogram:
    """Durations, each counted in a bucket that is a twelfth wide.

    Several threads may add; a few of their counts may get lost, which does not
    matter for what they say.
    """

    def __init__(self, counts: Sequence[int] = ()) -> None:
        self.counts = [0] * _BUCKETS
        self.add_counts(counts)

    def add(self, seconds: float) -> None:
        """Count one."""
        index = int(math.log2(max(1.0, seconds * 1e6)) * _FINE)
        self.counts[min(index, _BUCKETS - 1)] += 1

    def add_counts(self, counts: Sequence[int]) -> None:
        """Count what another has counted."""
        for index, count in enumerate(counts):
            self.counts[index] += count

    def quantile(self, part: float) -> float | None:
        """Return the seconds that this part of them took at the most; None without any."""
        total = sum(self.counts)
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= part * total:
                return float(2 ** ((index + 0.5) / _FINE) / 1e6)
        return None


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the straight line through the points, by least squares."""
    if len(points) < 2:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    width = sum((x - middle_x) ** 2 for x, _ in points)
    if not width:
        return 0.0
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / width


def growth(
    points: Sequence[tuple[float, float]], warm_up: float, *, part: float = 0.1, least: float = 0
) -> dict[str, Any]:
    """Return how something went after the warm-up: points of seconds and amounts.

    It has grown if the line through it says that it has, by more than this
    part of it and by more than `least`, and it is no less at the end than in
    the middle. The slope is by the minute.
    """
    late = [(x, y) for x, y in points if x >= warm_up]
    if len(late) < 2:
        return {"first": None, "last": None, "slope": None, "grown": False}
    rate = slope(late)
    by = rate * (late[-1][0] - late[0][0])
    middle = late[len(late) // 2][1]
    return {
        "first": late[0][1],
        "last": late[-1][1],
        "slope": rate * 60,
        "grown": by > max(part * late[0][1], least) and late[-1][1] >= middle,
    }
