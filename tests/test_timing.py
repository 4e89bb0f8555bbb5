from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any

import pytest

from syncws.timing import Deadline, check_timeout


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
