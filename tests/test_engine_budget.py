from __future__ import annotations

import logging
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from syncws.engine.budget import Budget
from tests.scripted import DirectJournal


class Member:
    def __init__(self, waiting: int = 0, other: int = 0) -> None:
        self.waiting = waiting
        self.other = other
        self.log: list[Any] = []

    def held(self) -> tuple[int, int]:
        return self.waiting, self.other

    def tighten(self) -> None:
        self.log.append("tighten")

    def relax(self) -> None:
        self.log.append("relax")

    def give_back(self, size: int) -> None:
        self.log.append(size)
        self.other = self.waiting = 0


class _Remains:
    def __init__(self, size: int) -> None:
        self.size = size

    def waiting(self) -> int:
        return self.size


class Bench:
    """A budget of 1000 bytes, on a loop that is the test."""

    def __init__(self, *members: Member) -> None:
        self.now = 100.0
        self.timers: list[float] = []
        self.queue: deque[Any] = deque()
        self.loop: Any = SimpleNamespace(
            clock=lambda: self.now,
            budgets=[],
            pool=SimpleNamespace(queue=self.queue),
            journal=DirectJournal(),
            call_at=lambda when, call, owner: self.timers.append(when),
        )
        self.members: set[Any] = set(members)
        self.budget = Budget(self.loop, self.members, 1000)

    def look(self) -> None:
        assert self.timers
        self.now = self.timers.pop()
        self.budget.look()


def test_it_looks_only_while_something_may_wait() -> None:
    member = Member()
    bench = Bench(member)
    assert bench.loop.budgets == [bench.budget]
    assert bench.timers == []
    member.other = 10
    bench.budget.note(member)
    bench.budget.note(member)
    assert len(bench.timers) == 1
    bench.look()
    assert len(bench.timers) == 1, "something is held still"
    member.other = 0
    bench.look()
    assert bench.timers == []


def test_what_stands_in_the_run_queue_is_found() -> None:
    member, stranger = Member(waiting=600), Member(waiting=10_000)
    bench = Bench(member)
    bench.queue.extend([SimpleNamespace(source=member), SimpleNamespace(source=stranger), object()])
    bench.budget.look_later()
    bench.look()
    assert bench.budget.tight
    assert not bench.budget.full
    assert stranger.log == []
    bench.queue.clear()
    assert len(bench.timers) == 1


def test_from_half_on_all_hold_little_until_a_quarter() -> None:
    first, second = Member(waiting=300), Member()
    bench = Bench(first, second)
    bench.budget.note(first)
    bench.look()
    assert not bench.budget.tight
    first.waiting = 501
    bench.look()
    assert bench.budget.tight
    assert first.log == second.log == ["tighten"]
    first.waiting = 260
    bench.look()
    assert first.log == ["tighten"]
    first.waiting = 240
    bench.look()
    assert first.log == second.log == ["tighten", "relax"]
    assert not bench.budget.tight


def test_while_it_is_tight_it_goes_on_looking() -> None:
    member = Member(waiting=900)
    bench = Bench(member)
    bench.budget.note(member)
    bench.look()
    member.waiting = 0
    bench.members.clear()
    bench.look()
    assert not bench.budget.tight
    assert member.log == ["tighten"], "it is no member any more"
    assert bench.timers == []


def test_over_the_limit_those_that_hold_the_most_are_ended() -> None:
    members = [Member(other=size) for size in (100, 500, 200, 400)]
    bench = Bench(*members)
    for member in members:
        bench.budget.note(member)
    bench.look()
    assert [member.log for member in members] == [
        ["tighten"],
        ["tighten", 500],
        ["tighten"],
        ["tighten"],
    ]
    assert bench.budget.full, "for this moment"
    bench.look()
    assert not bench.budget.full


def test_what_an_end_would_not_give_back_does_not_end_a_connection() -> None:
    waiting, small = Member(waiting=5000), Member(other=1)
    bench = Bench(waiting, small)
    bench.budget.note(waiting)
    bench.budget.note(small)
    bench.look()
    assert waiting.log == ["tighten"]
    assert small.log == ["tighten", 1]
    assert bench.budget.full
    waiting.waiting = 0
    bench.look()
    assert not bench.budget.full


def test_what_ended_connections_leave_to_workers_counts() -> None:
    bench = Bench()
    remains: list[Any] = [_Remains(0), _Remains(1500)]
    for one in remains:
        bench.budget.keep(one)
    bench.look()
    assert bench.budget.tight
    assert bench.budget.full
    remains[1].size = 0
    bench.look()
    assert not bench.budget.full
    assert bench.timers == []
    assert bench.budget._remains == set()


def test_a_look_that_takes_long_is_followed_by_a_longer_pause() -> None:
    bench = Bench()

    class Slow(Member):
        def held(self) -> tuple[int, int]:
            bench.now += 0.01
            return 1, 0

    for _ in range(10):
        bench.budget.note(Slow())
    bench.look()
    assert bench.timers[0] - bench.now == pytest.approx(2.0)


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_however_low_the_limit_it_ends(limit: int) -> None:
    member = Member(other=10)
    bench = Bench(member)
    bench.budget._limit = limit
    bench.budget.note(member)
    bench.look()
    assert bench.budget.tight
    bench.look()
    assert not bench.budget.tight
    assert bench.timers == []


def test_ended_it_is_forgotten() -> None:
    member = Member(other=10)
    bench = Bench(member)
    bench.budget.note(member)
    bench.budget.end()
    bench.budget.end()
    assert bench.loop.budgets == []
    bench.look()
    assert bench.timers == []


def test_what_happens_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    member = Member(other=1500)
    bench = Bench(member)
    bench.budget.note(member)
    with caplog.at_level(logging.WARNING, "syncws.server"):
        bench.look()
        bench.look()
    assert caplog.messages == [
        "the connections hold 1500 bytes, over half of max_buffered_bytes, 1000: "
        "each may hold little from now on",
        "over max_buffered_bytes, 1000: ended the 1 that held the most",
        "the connections hold 0 bytes of max_buffered_bytes, 1000, again",
    ]


def test_it_is_said_once_that_nobody_can_be_ended(caplog: pytest.LogCaptureFixture) -> None:
    member = Member(waiting=1500)
    bench = Bench(member)
    bench.budget.note(member)
    with caplog.at_level(logging.WARNING, "syncws.server"):
        for _ in range(3):
            bench.look()
        assert len(caplog.messages) == 2
        member.other = 100
        bench.look()
    assert caplog.messages[1:] == [
        "over max_buffered_bytes, 1000: ended the 0 that held the most",
        "over max_buffered_bytes, 1000: ended the 1 that held the most",
    ]
