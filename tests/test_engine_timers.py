from __future__ import annotations

import random

import pytest

from syncws.engine.timers import Timers


def run(timers: Timers, now: float) -> None:
    for call in timers.pop_due(now):
        call()


def nothing() -> None:
    pass


def test_no_timers() -> None:
    timers = Timers()
    assert timers.next_due() is None
    assert list(timers.pop_due(1e9)) == []
    assert len(timers) == 0


def test_calls_are_made_when_due_and_once() -> None:
    timers = Timers()
    log: list[str] = []
    timers.add(10.0, lambda: log.append("ten"))
    timers.add(20.0, lambda: log.append("twenty"))
    assert timers.next_due() == 10.0
    run(timers, 9.9)
    assert log == []
    run(timers, 10.0)
    assert log == ["ten"]
    assert timers.next_due() == 20.0
    run(timers, 10.0)
    run(timers, 25.0)
    run(timers, 25.0)
    assert log == ["ten", "twenty"]
    assert timers.next_due() is None


def test_the_earliest_first_and_equals_in_the_order_they_were_added() -> None:
    timers = Timers()
    log: list[tuple[float, int]] = []
    order = [(float(n % 7), n) for n in range(50)]
    random.Random(1).shuffle(order)
    for entry in order:
        timers.add(entry[0], lambda entry=entry: log.append(entry))  # type: ignore[misc]
    run(timers, 100.0)
    assert log == sorted(order, key=lambda entry: entry[0])


def test_a_cancelled_timer_is_not_called() -> None:
    timers = Timers()
    log: list[str] = []
    first = timers.add(10.0, lambda: log.append("first"))
    timers.add(11.0, lambda: log.append("second"))
    first.cancel()
    first.cancel()
    assert timers.next_due() == 11.0
    run(timers, 20.0)
    assert log == ["second"]


def test_a_cancelled_timer_between_others_is_not_called() -> None:
    timers = Timers()
    log: list[str] = []
    timers.add(10.0, lambda: log.append("first"))
    timers.add(11.0, lambda: log.append("second")).cancel()
    timers.add(12.0, lambda: log.append("third"))
    run(timers, 20.0)
    assert log == ["first", "third"]


def test_a_timer_tells_whether_it_is_still_to_come() -> None:
    timers = Timers()
    timer = timers.add(10.0, nothing)
    assert timer.when == 10.0
    assert timer.call is nothing
    assert list(timers.pop_due(10.0)) == [nothing]
    assert timer.call is None
    timer.cancel()


def test_all_cancelled() -> None:
    timers = Timers()
    for timer in [timers.add(float(n), nothing) for n in range(10)]:
        timer.cancel()
    assert timers.next_due() is None
    assert len(timers) == 0


@pytest.mark.parametrize("kept", [0, 10, 500])
def test_cancelled_timers_do_not_pile_up(kept: int) -> None:
    timers = Timers()
    log: list[int] = []
    for n in range(kept):
        timers.add(1000.0 + n, lambda n=n: log.append(n))  # type: ignore[misc]
    for n in range(20_000):
        timers.add(500.0 + n, nothing).cancel()
    assert len(timers) <= max(64, 2 * kept + 2)
    run(timers, 1e9)
    assert log == list(range(kept))


def test_a_call_may_add_and_cancel_timers() -> None:
    timers = Timers()
    log: list[str] = []
    victim = timers.add(30.0, lambda: log.append("victim"))

    def call() -> None:
        log.append("call")
        victim.cancel()
        timers.add(5.0, lambda: log.append("overdue"))

    timers.add(10.0, call)
    run(timers, 10.0)
    assert log == ["call"]
    assert timers.next_due() == 5.0
    run(timers, 40.0)
    assert log == ["call", "overdue"]


def test_a_call_may_cancel_another_that_is_due_with_it() -> None:
    timers = Timers()
    log: list[str] = []

    def call() -> None:
        log.append("call")
        victim.cancel()

    timers.add(10.0, call)
    victim = timers.add(10.0, lambda: log.append("victim"))
    timers.add(10.0, lambda: log.append("last"))
    run(timers, 10.0)
    assert log == ["call", "last"]
    assert timers.next_due() is None
