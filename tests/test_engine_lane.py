"""Calls a bounded number at once, with a loop that only notes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from syncws.engine.lane import Lane, Lanes


class FakeLoop:
    """Keeps what is to run in a worker, and makes the I/O thread's calls at once."""

    def __init__(self) -> None:
        self.errands: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.owned: list[Any] = []

    def own(self, handler: Any) -> None:
        self.owned.append(handler)

    def call_in_worker(self, call: Callable[..., None], *args: Any) -> None:
        self.errands.append((call, args))

    def call_soon(self, call: Callable[..., None], *args: Any) -> None:
        call(*args)

    def work(self) -> None:
        """Run the oldest errand."""
        call, args = self.errands.pop(0)
        call(*args)


def test_calls_are_made_in_order_and_no_more_than_the_width_at_once() -> None:
    loop = FakeLoop()
    lane = Lane(loop, 2)  # type: ignore[arg-type]
    made: list[int] = []
    for number in range(5):
        lane.submit(made.append, number)
    assert len(loop.errands) == 2
    loop.work()
    assert (made, len(loop.errands)) == ([0], 2)
    while loop.errands:
        loop.work()
        assert len(loop.errands) <= 2
    assert made == [0, 1, 2, 3, 4]


def test_a_call_that_raises_makes_room_for_the_next() -> None:
    loop = FakeLoop()
    lane = Lane(loop, 1)  # type: ignore[arg-type]
    made: list[str] = []

    def broken() -> None:
        raise ValueError("broken")

    lane.submit(broken)
    lane.submit(made.append, "behind it")
    with pytest.raises(ValueError, match="broken"):
        loop.work()
    loop.work()
    assert made == ["behind it"]
    assert not loop.errands


def test_room_is_not_given_away_twice() -> None:
    loop = FakeLoop()
    lane = Lane(loop, 1)  # type: ignore[arg-type]
    made: list[int] = []
    lane.submit(made.append, 1)
    loop.work()
    lane.submit(made.append, 2)
    lane.submit(made.append, 3)
    assert len(loop.errands) == 1
    loop.work()
    loop.work()
    assert made == [1, 2, 3]


def test_calls_that_wait_when_the_loop_ends_are_made() -> None:
    loop = FakeLoop()
    lane = Lane(loop, 1)  # type: ignore[arg-type]
    made: list[int] = []
    for number in range(3):
        lane.submit(made.append, number)
    lane.abort()
    assert len(loop.errands) == 3
    while loop.errands:
        loop.work()
    assert made == [0, 1, 2]


def test_in_a_forked_child_nothing_waits() -> None:
    loop = FakeLoop()
    lane = Lane(loop, 1)  # type: ignore[arg-type]
    made: list[int] = []
    for number in range(3):
        lane.submit(made.append, number)
    lane.abandon()
    while loop.errands:
        loop.work()
    assert made == [0]


@pytest.mark.parametrize(
    ("workers", "widths"),
    [(64, (8, 16, 24)), (8, (1, 2, 3)), (4, (1, 1, 1)), (1, (1, 1, 1))],
)
def test_lanes_leave_a_quarter_of_the_workers(workers: int, widths: tuple[int, ...]) -> None:
    loop = FakeLoop()
    lanes = Lanes.of(loop, workers)  # type: ignore[arg-type]
    assert loop.owned == list(lanes)
    busy = []
    for lane in lanes:
        before = len(loop.errands)
        for _ in range(workers):
            lane.submit(list)
        busy.append(len(loop.errands) - before)
    assert tuple(busy) == widths
    assert workers < 4 or sum(busy) <= 3 * workers // 4
