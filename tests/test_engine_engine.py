from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from syncws.engine import engine as module
from syncws.engine.engine import Engine, default_engine
from syncws.engine.loop import IOLoop
from syncws.engine.workers import WorkerPool

HANG = 30.0  # seconds after which a test is taken to hang


class Work:
    def __init__(self, call: Callable[[], Any]) -> None:
        self.run = call


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(workers=2, max_workers=3, name="test")
    yield engine
    while engine.stats().users:
        assert engine._runtime is not None
        engine.release(engine._runtime.loop)
    engine.reap(HANG)


# -- Arguments -------------------------------------------------------


@pytest.mark.parametrize("name", ["workers", "max_workers"])
@pytest.mark.parametrize("value", [None, 1.0, "8", True])
def test_counts_are_ints(name: str, value: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Engine(**{name: value})
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(("workers", "max_workers"), [(0, 1), (-1, 1), (3, 2), (1, 0)])
def test_counts_that_do_not_fit(workers: int, max_workers: int) -> None:
    with pytest.raises(ValueError) as caught:
        Engine(workers=workers, max_workers=max_workers)
    assert f"not {workers}" in str(caught.value)
    assert f"max_workers, {max_workers}" in str(caught.value)


def test_arguments_are_named() -> None:
    with pytest.raises(TypeError):
        Engine(8)  # type: ignore[misc]


# -- Threads ---------------------------------------------------------


def test_an_engine_without_users_has_no_threads(engine: Engine) -> None:
    assert engine.stats() == (0, 0, 0, 0, 0)
    assert not names() & {"test-io"}
    assert repr(engine) == "<syncws.Engine 'test', 0 users>"


def test_the_threads_come_with_the_first_user_and_go_with_the_last(engine: Engine) -> None:
    loop = engine.acquire()
    assert engine.acquire() is loop
    assert engine.stats() == (2, 0, 0, 0, 0)
    assert repr(engine) == "<syncws.Engine 'test', 2 users>"
    assert "test-io" in names()
    assert loop.thread.daemon
    engine.release(loop)
    assert loop.thread.is_alive()
    assert engine.stats().users == 1
    engine.release(loop)
    assert engine.stats() == (0, 0, 0, 0, 0)
    loop.thread.join(HANG)
    assert not loop.thread.is_alive()
    # Neither started for nothing, nor left.
    assert not [name for name in names() if name.startswith("test-")]


def test_an_engine_can_be_used_again(engine: Engine) -> None:
    first = engine.acquire()
    engine.release(first)
    second = engine.acquire()
    assert second is not first
    # Who still has the first has been counted out already.
    engine.release(first)
    assert engine.stats().users == 1
    called = threading.Event()
    second.call_soon(called.set)
    assert called.wait(HANG)
    engine.release(second)
    engine.release(second)
    assert engine.stats().users == 0


def run_in_a_worker(engine: Engine, call: Callable[[], Any]) -> Any:
    loop = engine.acquire()
    outcome: SimpleQueue[Any] = SimpleQueue()
    loop.call_soon(loop.ready.append, Work(lambda: outcome.put(call())))
    try:
        return outcome.get(timeout=HANG)
    finally:
        engine.release(loop)


def test_workers_start_with_the_first_work(engine: Engine) -> None:
    loop = engine.acquire()
    assert engine.stats().threads == 0
    name = run_in_a_worker(engine, lambda: threading.current_thread().name)
    assert name in ("test-worker-1", "test-worker-2")
    assert engine.stats().threads == 2
    engine.release(loop)


def test_reap_waits_for_the_threads(engine: Engine) -> None:
    run_in_a_worker(engine, lambda: None)
    engine.reap(HANG)
    assert engine._ending == []
    assert not [name for name in names() if name.startswith("test-")]
    engine.reap(HANG)


def test_reap_does_not_wait_for_ever(engine: Engine) -> None:
    loop = engine.acquire()
    begun, may_end = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert may_end.wait(HANG)

    loop.call_soon(loop.ready.append, Work(block))
    assert begun.wait(HANG)
    engine.release(loop)
    loop.thread.join(HANG)
    engine.reap(0.01)
    # It is left behind, and nobody waits for it again.
    assert engine._ending == []
    may_end.set()


def test_two_may_reap_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in_a_worker(engine, lambda: None)
    (runtime,) = engine._ending
    join = module._Runtime.join

    def join_late(self: Any, deadline: Any) -> bool:
        done = join(self, deadline)
        engine._ending.clear()  # the other one
        return done

    monkeypatch.setattr(module._Runtime, "join", join_late)
    engine.reap(HANG)
    assert engine._ending == []
    assert not runtime.loop.thread.is_alive()


def test_a_callback_left_behind_is_waited_for_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = engine.acquire()
    begun, may_end = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert may_end.wait(HANG)

    loop.call_soon(loop.ready.append, Work(block))
    assert begun.wait(HANG)
    engine.release(loop)
    loop.thread.join(HANG)
    (stuck,) = engine._ending
    joined: list[Any] = []
    join = module._Runtime.join

    def join_and_note(self: Any, deadline: Any) -> bool:
        joined.append(self)
        return join(self, deadline)

    monkeypatch.setattr(module._Runtime, "join", join_and_note)
    engine.reap(0.01)
    assert joined == [stuck]
    joined.clear()
    engine.release(engine.acquire())
    engine.reap(HANG)
    assert stuck not in joined
    may_end.set()


def test_runtimes_that_have_ended_do_not_pile_up(engine: Engine) -> None:
    for _ in range(5):
        loop = engine.acquire()
        engine.release(loop)  # and nobody waits, as when the peer ends the last connection
        loop.thread.join(HANG)
    assert len(engine._ending) == 1


def test_the_last_user_may_go_in_a_thread_of_a_runtime_that_has_ended(engine: Engine) -> None:
    first = engine.acquire()
    outcome: SimpleQueue[Any] = SimpleQueue()

    def use_it_again() -> None:
        try:
            engine.release(first)
            first.thread.join(HANG)
            second = engine.acquire()
            engine.release(second)
            second.thread.join(HANG)
            outcome.put(second.thread.is_alive())
        except BaseException as exc:
            outcome.put(exc)

    first.call_soon(first.ready.append, Work(use_it_again))
    assert outcome.get(timeout=HANG) is False


def test_an_io_thread_that_has_died_is_replaced(engine: Engine) -> None:
    dead = engine.acquire()
    dead.stop()
    dead.thread.join(HANG)
    fresh = engine.acquire()
    assert fresh is not dead
    assert engine.stats().users == 1
    called = threading.Event()
    fresh.call_soon(called.set)
    assert called.wait(HANG)
    engine.release(dead)
    assert engine.stats().users == 1


def test_owns_current_thread(engine: Engine) -> None:
    assert not engine.owns_current_thread()
    loop = engine.acquire()
    assert not engine.owns_current_thread()
    assert run_in_a_worker(engine, engine.owns_current_thread) is True
    seen: SimpleQueue[bool] = SimpleQueue()
    loop.call_soon(lambda: seen.put(engine.owns_current_thread()))
    assert seen.get(timeout=HANG) is True
    other = Engine(name="other")
    assert run_in_a_worker(engine, other.owns_current_thread) is False
    engine.release(loop)


def test_a_thread_of_an_engine_that_ends_is_still_its_own(engine: Engine) -> None:
    loop = engine.acquire()
    seen: SimpleQueue[Any] = SimpleQueue()

    def last() -> None:
        engine.release(loop)
        loop.thread.join(HANG)
        # Would otherwise wait for the thread that it is called in.
        engine.reap(HANG)
        seen.put((engine.owns_current_thread(), engine.stats().users))

    loop.call_soon(loop.ready.append, Work(last))
    assert seen.get(timeout=HANG) == (True, 0)


# -- The process's engine --------------------------------------------


def test_a_process_has_one_default_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_default", None)
    engine = default_engine()
    assert default_engine() is engine
    assert engine.stats() == (0, 0, 0, 0, 0)
    assert repr(engine) == "<syncws.Engine 'syncws', 0 users>"


# -- Forks -----------------------------------------------------------


def test_what_a_child_does_first(monkeypatch: pytest.MonkeyPatch) -> None:
    used, unused = Engine(name="used"), Engine(name="unused")
    monkeypatch.setattr(module, "_engines", {used, unused})
    monkeypatch.setattr(module, "_default_lock", threading.Lock())
    module._default_lock.acquire()  # by a thread that the child does not have
    used._lock.acquire()
    loop = IOLoop("parents")
    pool = WorkerPool(1, 1, "parents", lambda: None)
    pool.queue.append(SimpleNamespace())  # type: ignore[arg-type]
    used._runtime = SimpleNamespace(loop=loop, pool=pool)  # type: ignore[assignment]
    used._users = 3
    module._after_fork_in_child()
    assert loop.abandoned
    assert not pool.queue  # what it had to do is the parent's, too
    for engine in (used, unused):
        assert engine.stats() == (0, 0, 0, 0, 0)
        assert not engine.owns_current_thread()
    used.release(loop)
    assert used.stats().users == 0
    assert not module._default_lock.locked()


FORK = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")  # of Python 3.12 about forks with threads
from syncws.engine.engine import Engine, default_engine

engine = default_engine()
other = Engine(name="other")
ended = Engine(name="ended")
loop = engine.acquire()
engine.acquire()
ended.release(ended.acquire())
alive = threading.Event()
loop.call_soon(alive.set)
assert alive.wait(30)
engine._lock.acquire()  # by a thread that the child does not have
child = os.fork()
if child == 0:
    try:
        assert default_engine() is engine
        assert engine.stats() == (0, 0, 0, 0, 0), engine.stats()
        assert ended.stats() == other.stats() == (0, 0, 0, 0, 0)
        assert loop.abandoned
        engine.release(loop)  # of the parent's: counts for nothing
        fresh = engine.acquire()
        assert fresh is not loop
        called = threading.Event()
        fresh.call_soon(called.set)
        assert called.wait(30)
        assert engine.stats().users == 1
        engine.release(fresh)
        engine.reap(30)
        assert threading.active_count() == 1, threading.enumerate()
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
engine._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
# The parent has noticed nothing.
called = threading.Event()
loop.call_soon(called.set)
assert called.wait(30)
assert engine.stats().users == 2
engine.release(loop)
engine.release(loop)
engine.reap(30)
ended.reap(30)
assert threading.active_count() == 1, threading.enumerate()
"""


@pytest.mark.skipif(not hasattr(module.os, "fork"), reason="the system has no fork")
def test_a_forked_child_has_fresh_engines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=2 * HANG
    )
    assert (done.returncode, done.stderr) == (0, "")
