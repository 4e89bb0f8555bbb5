from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import Any

import pytest

from syncws.engine.lookout import Lookout, Watched, describe, describe_call
from tests.support import HANG, Gate, Task, broken_log, wait_until


class Work:
    """Something that a worker runs, in steps."""

    def __init__(self, name: str = "work") -> None:
        self.current: object | None = object()
        self._name = name

    def describe(self) -> str:
        return self._name


@pytest.fixture
def lookout() -> Lookout:
    return Lookout(10.0, "test", 8)


def worker(work: Any = None) -> Watched:
    watched = Watched()
    watched.thread = threading.current_thread()
    watched.work = work
    return watched


def report(lookout: Lookout) -> None:
    """Wait for the warnings."""
    assert lookout.reporter is not None
    lookout.reporter.join(HANG)
    assert not lookout.reporter.is_alive()


def stands(thread: threading.Thread) -> str:
    """Return where a thread is now, in lines of source."""
    assert thread.ident is not None
    return "".join(traceback.format_stack(sys._current_frames()[thread.ident]))


def test_a_call_that_does_not_return_is_warned_of_once(
    lookout: Lookout, caplog: pytest.LogCaptureFixture
) -> None:
    stuck = worker(Work("Chat.on_text at /chat"))
    assert lookout.interval == 2.5
    assert lookout.look([stuck, worker()], 100.0)
    assert lookout.look([stuck, worker()], 109.9)
    assert lookout.reporter is None
    assert lookout.look([stuck, worker()], 110.0)
    report(lookout)
    (message,) = caplog.messages
    assert "Chat.on_text at /chat has run for 10.0 s and blocks MainThread" in message
    assert "1 of at most 8 workers are busy" in message
    assert lookout.look([stuck], 120.0)
    report(lookout)
    assert len(caplog.messages) == 1


def test_the_warning_shows_where_it_stands_from_the_users_first_line_on(
    lookout: Lookout, caplog: pytest.LogCaptureFixture
) -> None:
    with Gate() as gate:
        task = Task(gate.block)
        gate.reached()
        wait_until(lambda: "self._opened.wait" in stands(task))
        stuck = worker(Work())
        stuck.thread = task
        lookout.look([stuck], 100.0)
        lookout.look([stuck], 110.0)
        report(lookout)
    task.result()
    lines = caplog.messages[0].splitlines()[1:]
    assert "tests/support.py" in lines[0].replace("\\", "/")
    assert any("self._opened.wait" in line for line in lines)
    assert not any("_bootstrap" in line for line in lines)


def test_each_step_has_its_own_time(lookout: Lookout) -> None:
    work = Work()
    busy = worker(work)
    for now in range(100, 200, 5):
        work.current = object()
        assert lookout.look([busy], float(now))
    assert lookout.reporter is None


def test_work_without_steps_is_one(lookout: Lookout) -> None:
    class Plain:
        current = None

    stuck = worker(Plain())
    lookout.look([stuck], 100.0)
    lookout.look([stuck], 110.0)
    report(lookout)


def test_a_rest_between_the_same_work_begins_anew(lookout: Lookout) -> None:
    work = Work()
    busy = worker(work)
    lookout.look([busy], 100.0)
    busy.work = None
    assert not lookout.look([busy], 105.0)
    busy.work = work
    lookout.look([busy], 108.0)
    lookout.look([busy], 112.0)
    assert lookout.reporter is None


def test_what_has_returned_meanwhile_is_not_warned_of(
    lookout: Lookout, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = worker(Work())
    lookout.look([stuck], 100.0)
    report_now = lookout._report

    def returned(*args: Any) -> None:
        stuck.work = None
        report_now(*args)

    monkeypatch.setattr(lookout, "_report", returned)
    lookout.look([stuck], 110.0)
    report(lookout)
    assert caplog.messages == []


def test_one_reporter_at_a_time(lookout: Lookout, caplog: pytest.LogCaptureFixture) -> None:
    """Its handler may block; what comes meanwhile is told of later."""
    with Gate() as gate:
        held = lookout.reporter = Task(gate.block)
        gate.reached()
        stuck = worker(Work())
        lookout.look([stuck], 100.0)
        lookout.look([stuck], 110.0)
        assert lookout.reporter is held
    held.result()
    lookout.look([stuck], 112.0)
    report(lookout)
    assert "12.0 s" in caplog.messages[0]


def test_without_a_thread_to_report_the_next_look_tries_again(
    lookout: Lookout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stuck = worker(Work())
    lookout.look([stuck], 100.0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert lookout.look([stuck], 110.0)
    assert lookout.reporter is None
    lookout.look([stuck], 111.0)
    report(lookout)
    assert "11.0 s" in caplog.messages[0]


def test_a_log_that_raises_ends_the_reporter_only(lookout: Lookout) -> None:
    stuck = worker(Work())
    lookout.look([stuck], 100.0)
    with broken_log("syncws.engine"):
        lookout.look([stuck], 110.0)
        report(lookout)


def test_the_reporter_is_named_and_a_daemon(lookout: Lookout) -> None:
    stuck = worker(Work())
    lookout.look([stuck], 100.0)
    lookout.look([stuck], 110.0)
    report(lookout)
    assert lookout.reporter is not None
    assert lookout.reporter.name == "test-report"
    assert lookout.reporter.daemon


# -- Names -------------------------------------------------------------------


class Named:
    def describe(self) -> str:
        return "a named thing"

    def call(self) -> None: ...


class Relaying:
    def describe_call(self, call: Any) -> str:
        return describe_call(call, ())

    def call(self) -> None: ...


class Failing:
    def describe(self) -> str:
        raise KeyError("over")


def test_names() -> None:
    assert describe(Named()) == "a named thing"
    assert describe_call(Named().call, ()) == "a named thing"
    assert describe_call(Relaying().call, (Named().call,)) == "a named thing"
    assert describe_call(logging.info, ()) == "logging.info"
    assert describe(7) == "7"
    assert describe(Failing()) == "Failing (KeyError)"
