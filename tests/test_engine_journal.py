from __future__ import annotations

import logging
import threading

import pytest

from syncws.engine import journal as module
from syncws.engine.journal import Journal
from tests.support import HANG, Task

LOG = logging.getLogger("syncws.test")


class Bench:
    """A journal whose worker is the test."""

    def __init__(self) -> None:
        self.queued: list[Journal] = []
        self.again: list[Journal] = []
        self.journal = Journal(self.queued.append, self.again.append)

    def info(self, message: str, *args: object) -> None:
        self.journal.write(LOG, logging.INFO, message, *args)


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO, "syncws")
    return Bench()


def test_lines_are_written_by_a_worker_in_order(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.info("a %d", 1)
    bench.info("a %d", 2)
    assert bench.queued == [bench.journal], "queued once"
    assert caplog.messages == []
    bench.journal.run()
    assert caplog.messages == ["a 1", "a 2"]
    bench.info("b")
    assert bench.queued == [bench.journal] * 2, "and again for what comes later"


def test_what_nobody_wants_is_not_queued(bench: Bench) -> None:
    bench.journal.write(LOG, logging.DEBUG, "no")
    assert bench.queued == []


def test_a_call_that_logs(bench: Bench) -> None:
    seen: list[tuple[int, int]] = []
    bench.journal.call(lambda a, b: seen.append((a, b)), 1, 2)
    bench.journal.run()
    assert seen == [(1, 2)]


def test_a_turn_is_bounded(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(module._TURN + 1):
        bench.info("%d", number)
    bench.journal.run()
    assert len(caplog.messages) == module._TURN
    assert bench.again == [bench.journal]
    bench.journal.run()
    assert len(caplog.messages) == module._TURN + 1
    assert bench.again == [bench.journal]


def test_a_line_that_is_written_before_it_is_queued_for(bench: Bench) -> None:
    """By a worker that was running the journal when the line was added."""
    written: list[int] = []
    bench.journal.call(written.append, 1)

    class Lock:
        """Lets the worker run before the I/O thread asks whether it runs."""

        def __init__(self) -> None:
            self._lock = threading.Lock()
            self._lock.acquire()
            self.first = True

        def acquire(self, blocking: bool) -> bool:
            if self.first:
                self.first = False
                bench.journal.run()
            return self._lock.acquire(blocking)

        def release(self) -> None:
            self._lock.release()

    bench.journal._running = Lock()  # type: ignore[assignment]
    bench.journal.call(written.append, 2)
    assert written == [1, 2]
    assert len(bench.queued) == 2
    bench.journal.run()
    bench.journal.call(written.append, 3)
    assert len(bench.queued) == 3


def test_what_waits_is_bounded_and_what_is_left_out_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    for number in range(10):
        bench.info("%d", number)
    bench.journal.run()
    assert caplog.messages == ["0", "1", "2"]
    bench.info("10")
    bench.info("11")
    bench.journal.run()
    assert caplog.messages[3:] == [
        "7 lines were left out: the workers, or a handler of the log, were blocked",
        "10",
        "11",
    ]


def test_a_line_that_comes_while_the_last_one_is_written(bench: Bench) -> None:
    """It finds the journal running, or gone: it is written either way."""
    written: list[int] = []

    def write(number: int) -> None:
        written.append(number)
        if number < 5:
            bench.journal.call(write, number + 1)

    bench.journal.call(write, 0)
    bench.journal.run()
    assert written == [0, 1, 2, 3, 4, 5]


def test_no_line_is_lost_between_two_threads(bench: Bench) -> None:
    written: list[int] = []
    wanted = 20_000
    some = threading.Semaphore(0)
    bench.journal = Journal(lambda _: some.release(), lambda _: some.release())

    def work() -> None:
        while len(written) < wanted:
            assert some.acquire(timeout=HANG)
            bench.journal.run()

    worker = Task(work)
    number = 0
    while number < wanted:
        if number - len(written) < 500:
            bench.journal.call(written.append, number)
            number += 1
    worker.result()
    assert written == list(range(wanted))


def test_it_says_what_it_is(bench: Bench) -> None:
    assert "log" in bench.journal.describe()
