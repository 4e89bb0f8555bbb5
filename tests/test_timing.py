from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any

import pytest

from syncws.timing import Backoff, Deadline, check_timeout


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("value", [None, 0, 1, 0.0, 0.5, 86_400.0])
def test_timeouts_that_are_right(value: float | None) -> None:
    assert check_timeout("it", value) is value


@pytest.mark.parametrize("value", ["5", b"5", True, False, [], 1j, Fraction(1, 2)])
def test_timeouts_of_the_wrong_type(value: Any) -> None:
    with pytest.raises(TypeError) as caught:
        check_timeout("send_timeout", value)
    assert "send_timeout must be a number of seconds or None" in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [-1, -0.001, float("nan"), float("-inf")])
def test_timeouts_of_the_wrong_value(value: float) -> None:
    with pytest.raises(ValueError) as caught:
        check_timeout("send_timeout", value)
    assert "send_timeout" in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), threading.TIMEOUT_MAX * 2])
def test_timeouts_that_no_wait_can_take(value: float) -> None:
    with pytest.raises(ValueError) as caught:
        check_timeout("send_timeout", value)
    assert "send_timeout" in str(caught.value)
    assert repr(value) in str(caught.value)


def test_a_deadline() -> None:
    clock = Clock()
    deadline = Deadline(10.0, clock)
    assert deadline.remaining() == 10.0
    assert deadline.remaining() != 0.0
    clock.now = 109.5
    assert deadline.remaining() == 0.5
    assert deadline.remaining() != 0.0
    clock.now = 110.0
    assert deadline.remaining() == 0.0
    assert deadline.remaining() == 0.0
    clock.now = 1000.0
    assert deadline.remaining() == 0.0
    assert deadline.remaining() == 0.0


def test_no_deadline() -> None:
    clock = Clock()
    deadline = Deadline(None, clock)
    clock.now = 1e9
    assert deadline.remaining() is None
    assert deadline.remaining() != 0.0


def test_a_deadline_of_zero_is_over_at_once() -> None:
    deadline = Deadline(0, Clock())
    assert deadline.remaining() == 0.0
    assert deadline.remaining() == 0.0


def test_the_clock_is_monotonic_by_default() -> None:
    deadline = Deadline(1000.0)
    remaining = deadline.remaining()
    assert remaining is not None
    assert 0 < remaining <= 1000.0


# -- Backoff -----------------------------------------------------------------


def waits(backoff: Backoff, number: int) -> list[float]:
    return [backoff.next() for _ in range(number)]


def test_each_wait_is_longer_by_the_factor_up_to_the_longest() -> None:
    backoff = Backoff(1.0, 2.0, 10.0, 0.0)
    assert waits(backoff, 7) == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_a_factor_of_one_keeps_the_wait() -> None:
    assert waits(Backoff(0.5, 1.0, 30.0, 0.0), 5) == [0.5] * 5


def test_no_wait_at_all() -> None:
    assert waits(Backoff(0.0, 1000.0, 30.0, 1.0), 5) == [0.0] * 5


def test_after_a_reset_the_waits_begin_again() -> None:
    backoff = Backoff(1.0, 3.0, 100.0, 0.0)
    first = waits(backoff, 6)
    backoff.reset()
    assert waits(backoff, 6) == first == [1.0, 3.0, 9.0, 27.0, 81.0, 100.0]


@pytest.mark.parametrize(("number", "wait"), [(0.0, 7.5), (0.5, 10.0), (1.0, 12.5)])
def test_jitter_goes_both_ways(number: float, wait: float) -> None:
    assert Backoff(10.0, 1.0, 100.0, 0.25, lambda: number).next() == wait


def test_jitter_does_not_add_up() -> None:
    numbers = iter([0.0, 1.0, 0.5])
    backoff = Backoff(1.0, 2.0, 100.0, 0.5, lambda: next(numbers))
    assert waits(backoff, 3) == [0.5, 3.0, 4.0]


def test_jitter_makes_no_wait_longer_than_the_longest_nor_negative() -> None:
    assert waits(Backoff(10.0, 1.0, 10.0, 1.0, lambda: 1.0), 2) == [10.0, 10.0]
    assert waits(Backoff(10.0, 1.0, 10.0, 1.0, lambda: 0.0), 2) == [0.0, 0.0]


def test_jitter_is_random_by_default() -> None:
    backoff = Backoff(10.0, 1.0, 100.0, 0.1)
    found = waits(backoff, 50)
    assert len(set(found)) > 1
    assert all(9.0 <= wait <= 11.0 for wait in found)


def test_waits_never_overflow() -> None:
    assert waits(Backoff(1.0, 1000.0, 30.0, 0.0), 2000)[-1] == 30.0


def test_those_that_wait_the_longest_do_not_meet() -> None:
    numbers = iter([0.0, 0.5, 1.0])
    found = waits(Backoff(11.0, 2.0, 11.0, 0.1, lambda: next(numbers)), 3)
    assert found == pytest.approx([9.0, 10.0, 11.0])
