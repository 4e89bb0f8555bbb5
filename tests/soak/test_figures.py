"""Latencies and memory over time."""

from __future__ import annotations

import pytest

from .figures import Histogram, growth, slope


def test_quantiles_are_close() -> None:
    histogram = Histogram()
    for number in range(1, 1001):
        histogram.add(number / 1000)
    assert histogram.quantile(0.5) == pytest.approx(0.5, rel=0.1)
    assert histogram.quantile(0.99) == pytest.approx(0.99, rel=0.1)


def test_histograms_add_up() -> None:
    one, other = Histogram(), Histogram()
    one.add(0.001)
    other.add(10.0)
    other.add(1e9)  # more than there is a bucket for
    one.add_counts(other.counts)
    assert sum(one.counts) == 3
    assert one.quantile(0.3) == pytest.approx(0.001, rel=0.1)


def test_no_durations_have_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


@pytest.mark.parametrize(
    ("points", "expected"),
    [((), 0), (((1, 5),), 0), (((1, 5), (1, 7)), 0), (((0, 1), (1, 3), (2, 5), (3, 7)), 2)],
)
def test_the_slope_is_that_of_least_squares(
    points: tuple[tuple[float, float], ...], expected: float
) -> None:
    assert slope(points) == pytest.approx(expected)


def climbing(by: float) -> list[tuple[float, float]]:
    """Memory of 200 MiB, for ten minutes, that grows by so many KiB a second."""
    return [(x, 200 * 1024 + by * x) for x in range(0, 600, 10)]


@pytest.mark.parametrize(("by", "grown"), [(0, False), (-100, False), (10, False), (100, True)])
def test_growth_is_found(by: float, grown: bool) -> None:
    found = growth(climbing(by), 60, least=24 * 1024)
    assert found["grown"] is grown
    assert found["slope"] == pytest.approx(by * 60)


def test_growth_before_the_warm_up_is_none() -> None:
    points = [(x, 1024.0 * min(x, 60)) for x in range(0, 600, 10)]
    assert not growth(points, 60)["grown"]
    assert growth(points, 0)["grown"]


def test_too_few_points_say_nothing() -> None:
    assert growth([(0, 1)], 0) == {"first": None, "last": None, "slope": None, "grown": False}
