from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from syncws.engine import workers
from syncws.engine.loop import STALL
from syncws.engine.workers import WorkerPool
from syncws.timing import Deadline
from tests.support import broken_log, wait_until

HANG = 30.0  # seconds after which a test is taken to hang


class Job:
    """Work that tells when a worker has it, and returns when it may."""

    blocked: list[threading.Event] = []  # of this test

    def __init__(self, name: str = "job", *, blocks: bool = False) -> None:
        self.name = name
        self.begun: SimpleQueue[str] = SimpleQueue()
        self.ended: SimpleQueue[str] = SimpleQueue()
        self._may_end = threading.Event()
        if blocks:
            self.blocked.append(self._may_end)
        else:
            self._may_end.set()

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def run(self) -> None:
        self.begun.put(threading.current_thread().name)
        assert self._may_end.wait(HANG)
        self.ended.put(threading.current_thread().name)

    def worker(self) -> str:
        """Wait for a worker to have it; return which."""
        return self.begun.get(timeout=HANG)

    def end(self) -> str:
        """Let it return, and wait for that."""
        self._may_end.set()
        return self.ended.get(timeout=HANG)


class Call:
    """Work that is one call."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.run = call


MakePool = Callable[..., WorkerPool]


@pytest.fixture
def make() -> Iterator[MakePool]:
    pools: list[WorkerPool] = []

    def make_pool(
        size: int = 4,
        max_size: int = 8,
        wake_loop: Callable[[], None] = lambda: None,
        slow_after: float | None = None,
        awake: int = 1,
    ) -> WorkerPool:
        pools.append(
            WorkerPool(size, max_size, "pool", wake_loop, slow_after=slow_after, awake=awake)
        )
        return pools[-1]

    yield make_pool
    while Job.blocked:  # by a test that has failed
        Job.blocked.pop().set()
    for pool in pools:
        pool.stop()
        assert pool.join(Deadline(HANG))
        assert pool.stats().threads == 0


def settle(pool: WorkerPool) -> None:
    """Wait until every worker is idle, and check the accounts."""
    wait_until(lambda: pool.stats().idle == pool.stats().threads)
    assert pool._active == 0


def stall(pool: WorkerPool, now: float) -> float:
    """Have the I/O thread see that the queue does not move, until it acts; return the time then.

    It wakes a worker, or starts one, or finds that it can do neither.
    """
    epoch = pool._epoch
    for _ in range(workers._GROW_AFTER + 2):
        now += 2 * pool.patience
        pool.unblock(now)
        if pool._epoch != epoch and pool._active:
            break
    assert pool._epoch != epoch
    return now


# -- Lazy wake -------------------------------------------------------


def test_no_thread_before_there_is_work(make: MakePool) -> None:
    pool = make()
    assert pool.stats() == (0, 0, 0, 0)


def test_one_worker_serves_many_works(make: MakePool) -> None:
    pool = make(size=4)
    first = Job("first", blocks=True)
    others = [Job() for _ in range(50)]
    pool.submit([first])
    name = first.worker()
    pool.submit(others[:25])
    pool.submit(others[25:])
    # The others are there, but nobody has woken them.
    assert pool.stats() == (4, 3, 0, 50)
    assert first.end() == name
    assert {job.worker() for job in others} == {name}
    settle(pool)
    assert pool.stats() == (4, 4, 0, 0)


def test_as_many_workers_are_awake_as_can_run_at_once(make: MakePool) -> None:
    pool = make(size=4, awake=2)
    jobs = [Job(blocks=True) for _ in range(3)]
    pool.submit(jobs[:1])
    first = jobs[0].worker()
    assert pool.stats().idle == 3  # there is nothing for another
    pool.submit(jobs[1:])
    assert jobs[1].worker() != first
    assert pool.stats() == (4, 2, 0, 1)  # the third has to wait
    assert jobs[0].end() == jobs[2].worker() == first
    jobs[1].end()
    jobs[2].end()
    settle(pool)


@pytest.mark.parametrize("awake", [2, 9])
def test_no_more_workers_are_woken_than_there_are(awake: int, make: MakePool) -> None:
    pool = make(size=2, awake=awake)
    jobs = [Job(blocks=True) for _ in range(3)]
    pool.submit(jobs)
    assert len({jobs[0].worker(), jobs[1].worker()}) == 2
    for job in jobs:
        job.end()
    settle(pool)


@pytest.mark.parametrize(("lock", "threads"), [(True, 1), (False, 5), (None, 1)])
def test_only_without_the_interpreters_lock_threads_run_at_once(
    lock: bool | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lock is None:  # before CPython 3.13
        monkeypatch.delattr(workers.sys, "_is_gil_enabled", raising=False)
    else:
        monkeypatch.setattr(workers.sys, "_is_gil_enabled", lambda: lock, raising=False)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda pid: set(range(5)), raising=False)
    assert workers.parallel_threads() == threads


def test_workers_have_names_and_are_daemons(make: MakePool) -> None:
    pool = make(size=1)
    threads: SimpleQueue[threading.Thread] = SimpleQueue()
    pool.submit([Call(lambda: threads.put(threading.current_thread()))])
    thread = threads.get(timeout=HANG)
    assert thread.name == "pool-1"
    assert thread.daemon


def test_a_worker_is_woken_again_and_again(make: MakePool) -> None:
    pool = make(size=2)
    for _ in range(20):
        job = Job()
        pool.submit([job])
        job.worker()
        settle(pool)


def test_work_that_comes_back_is_run_again(make: MakePool) -> None:
    pool = make(size=1)
    turns: list[int] = []
    done = threading.Event()

    def run() -> None:
        turns.append(len(turns))
        if len(turns) < 5:
            pool.queue.append(again)
        else:
            done.set()

    again = Call(run)
    pool.submit([again])
    assert done.wait(HANG)
    assert turns == [0, 1, 2, 3, 4]


def test_the_loop_is_woken_when_the_queue_is_empty(make: MakePool) -> None:
    lengths: SimpleQueue[int] = SimpleQueue()
    pool: WorkerPool
    pool = make(size=1, wake_loop=lambda: lengths.put(len(pool.queue)))
    job = Job(blocks=True)
    pool.submit([job, Job(), Job()])
    job.worker()
    assert lengths.empty()
    job.end()
    assert lengths.get(timeout=HANG) == 0
    settle(pool)
    assert lengths.empty()


def test_the_loop_is_woken_before_the_work_that_empties_the_queue(make: MakePool) -> None:
    lengths: SimpleQueue[int] = SimpleQueue()
    pool: WorkerPool
    pool = make(size=1, wake_loop=lambda: lengths.put(len(pool.queue)))
    job = Job(blocks=True)
    pool.submit([job])
    job.worker()
    # It may block for ever, and flushes were left to whoever empties the queue.
    assert lengths.get_nowait() == 0
    job.end()


def test_the_loop_is_woken_by_work_that_takes_itself_from_the_queue(make: MakePool) -> None:
    woken: SimpleQueue[None] = SimpleQueue()
    pool = make(size=1, wake_loop=lambda: woken.put(None))
    second_turn = Job(blocks=True)
    first_turn = Call(lambda: pool.queue.append(second_turn))
    pool.submit([first_turn])
    second_turn.worker()
    assert woken.qsize() == 2
    second_turn.end()


def test_work_that_comes_when_a_worker_is_about_to_rest(make: MakePool) -> None:
    late = Job("late")
    came: list[bool] = []
    pool: WorkerPool

    def wake_loop() -> None:
        # Between the look at the empty queue and the rest.
        if not came:
            came.append(True)
            pool.queue.append(late)

    pool = make(size=1, wake_loop=wake_loop)
    pool.submit([Job()])
    assert late.worker() == "pool-1"
    settle(pool)


# -- Workers that block ----------------------------------------------


def test_another_is_woken_when_the_queue_stands_still(make: MakePool) -> None:
    pool = make(size=4)
    first, second = Job("first", blocks=True), Job("second")
    pool.submit([first])
    name = first.worker()
    pool.submit([second])
    pool.unblock(0.0)
    pool.unblock(0.9 * STALL)
    assert pool.stats().idle == 3
    pool.unblock(STALL)
    assert second.worker() != name
    first.end()
    settle(pool)


def test_progress_starts_the_clock_again(make: MakePool) -> None:
    pool = make(size=2)
    first, second, third = Job(), Job(blocks=True), Job(blocks=True)
    pool.submit([second, third])
    second.worker()
    pool.unblock(0.0)
    second.end()
    third.worker()
    pool.submit([first])
    pool.unblock(STALL)  # it has moved meanwhile
    assert pool.stats().idle == 1
    pool.unblock(1.5 * STALL)
    assert pool.stats().idle == 1
    pool.unblock(2 * STALL)
    first.worker()
    third.end()
    settle(pool)


def test_work_that_finds_the_queue_empty_has_its_own_time(make: MakePool) -> None:
    pool = make(size=2)
    first, second = Job(blocks=True), Job()
    pool.submit([first])
    first.worker()
    pool.unblock(0.0)
    # A long time later there is more; the queue has not stood still till now.
    pool.submit([second])
    pool.unblock(200.0)
    assert pool.stats().idle == 1
    pool.unblock(200.0 + 2 * STALL)
    second.worker()
    first.end()
    settle(pool)


def test_a_blocked_worker_does_not_count_for_what_comes_next(make: MakePool) -> None:
    pool = make(size=3)
    first, second, third = Job(blocks=True), Job(), Job()
    pool.submit([first])
    name = first.worker()
    pool.submit([second])
    stall(pool, 100.0)
    second.worker()
    wait_until(lambda: pool.stats().idle == 2)
    # The first is known to be blocked: another is woken at once.
    pool.submit([third])
    assert third.worker() != name
    first.end()
    settle(pool)


def test_a_worker_that_comes_back_counts_again(make: MakePool) -> None:
    pool = make(size=3)
    first, second, third, fourth = (Job(blocks=True) for _ in range(4))
    pool.submit([first])
    name = first.worker()
    pool.submit([second])
    stall(pool, 100.0)
    second.worker()
    assert pool._active == 1
    pool.submit([third])
    first.end()
    assert third.worker() == name
    assert pool._active == 2
    second.end()
    wait_until(lambda: pool.stats().idle == 2)
    assert pool._active == 1
    # One is awake, so nobody is woken until the queue stands still again.
    pool.submit([fourth])
    assert pool.stats().idle == 2
    stall(pool, 200.0)
    fourth.worker()
    third.end()
    fourth.end()
    settle(pool)


def test_a_worker_that_comes_back_to_an_empty_queue_is_idle(make: MakePool) -> None:
    pool = make(size=2)
    first, second = Job(blocks=True), Job(blocks=True)
    pool.submit([first])
    first.worker()
    pool.submit([second])
    stall(pool, 100.0)
    second.worker()
    first.end()
    wait_until(lambda: pool.stats().idle == 1)
    assert pool._active == 1
    second.end()
    settle(pool)


def test_taken_for_blocked_between_its_work_and_its_rest(make: MakePool) -> None:
    pool: WorkerPool
    found: SimpleQueue[int] = SimpleQueue()

    def wake_loop() -> None:
        # The worker has nothing to do, but still counts; now it does not.
        with pool._lock:
            pool._epoch += 1
            pool._active = 0
        found.put(0)

    pool = make(size=1, wake_loop=wake_loop)
    pool.submit([Job()])
    found.get(timeout=HANG)
    settle(pool)


def test_the_pool_grows_while_all_block_and_not_beyond_its_bound(make: MakePool) -> None:
    pool = make(size=2, max_size=4)
    jobs = [Job(blocks=True) for _ in range(6)]
    pool.submit(jobs)
    now = 100.0
    for started, job in enumerate(jobs[:4], 1):
        job.worker()
        assert pool.stats().threads == max(2, started)
        now = stall(pool, now + 1)
    for _ in range(3):
        now = stall(pool, now + 1)
    assert pool.stats() == (4, 0, 4, 2)
    # Whoever comes back takes the rest.
    jobs[2].end()
    name = jobs[4].worker()
    jobs[4].end()
    assert jobs[5].worker() == name
    for job in (jobs[0], jobs[1], jobs[3], jobs[5]):
        job.end()


def test_the_pool_does_not_grow_for_a_short_stall(make: MakePool) -> None:
    pool = make(size=1, max_size=2)
    jobs = [Job(blocks=True) for _ in range(3)]
    pool.submit(jobs[:2])
    jobs[0].worker()
    now = 100.0
    pool.unblock(now)
    for _ in range(workers._GROW_AFTER):
        now += 1.0  # as long as it may be: the process had no turn meanwhile
        pool.unblock(now)
    pool.submit(jobs[2:])
    assert pool.stats().threads == 1
    pool.unblock(now + 1.0)
    assert pool.stats().threads == 2
    for job in jobs:
        job.end()


def test_each_thread_that_changes_nothing_is_followed_by_the_next_one_sooner(
    make: MakePool,
) -> None:
    pool = make(size=1, max_size=6)
    jobs = [Job(blocks=True) for _ in range(6)]
    pool.submit(jobs)
    jobs[0].worker()
    now = 100.0
    pool.unblock(now)
    looks = []
    for job in jobs[1:]:
        threads = pool.stats().threads
        count = 0
        while pool.stats().threads == threads:
            now += 1.0
            pool.unblock(now)
            count += 1
        looks.append(count)
        job.worker()
    assert looks == [workers._GROW_AFTER + 1, 9, 5, 3, 3]
    for job in jobs:
        job.end()
    settle(pool)
    pool.unblock(now)
    assert pool._grow_after == workers._GROW_AFTER  # something has moved: patient again


def test_a_pool_of_one_fixed_worker(make: MakePool) -> None:
    pool = make(size=1, max_size=1)
    jobs = [Job(blocks=True) for _ in range(3)]
    pool.submit(jobs)
    jobs[0].worker()
    stall(pool, 100.0)
    assert pool.stats() == (1, 0, 1, 2)
    for job in jobs:
        assert job.end() == "pool-1"
    settle(pool)


def test_workers_beyond_the_size_retire(make: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_LINGER", 0.01)
    pool = make(size=2, max_size=5)
    for _ in range(2):
        jobs = [Job(blocks=True) for _ in range(5)]
        pool.submit(jobs)
        now = 100.0
        for job in jobs:
            job.worker()
            now = stall(pool, now + 1)
        assert pool.stats().threads == 5
        for job in jobs:
            job.end()
        wait_until(lambda: pool.stats().threads <= 2)
        settle(pool)
    assert pool.stats() == (2, 2, 0, 0)
    assert len(pool._threads) == 2


def test_the_io_thread_looks_less_often_while_nobody_can_be_woken(make: MakePool) -> None:
    pool = make(size=1, max_size=1)
    jobs = [Job(blocks=True) for _ in range(3)]
    pool.submit(jobs)
    jobs[0].worker()
    now = 100.0
    pool.unblock(now)
    seen = []
    for _ in range(workers._GROW_AFTER + 10):
        seen.append(pool.patience)
        now += 2 * pool.patience
        pool.unblock(now)
    often = workers._GROW_AFTER + 1
    assert seen[:often] == [STALL] * often
    assert seen[often : often + 2] == [2 * STALL, 4 * STALL]
    assert seen[-1] == pool.patience == 0.1
    # The queue moves: the next to block is found out soon.
    jobs[0].end()
    jobs[1].worker()
    pool.unblock(now)
    assert pool.patience == STALL
    for job in jobs[1:]:
        job.end()


def test_the_io_thread_looks_often_while_there_are_some_to_wake(make: MakePool) -> None:
    pool = make(size=2, max_size=4)
    jobs = [Job(blocks=True) for _ in range(4)]
    pool.submit(jobs)
    now = 100.0
    for job in jobs[:3]:
        job.worker()
        now = stall(pool, now + 1)
        assert pool.patience == STALL
    for job in jobs:
        job.end()


class FakeWorker:
    """A worker whose body is the test."""

    def __init__(self, gate: Any) -> None:
        self.gate = gate
        self.epoch = 0
        self.thread = threading.current_thread()


def test_a_worker_that_is_woken_when_its_time_has_run_out_works(make: MakePool) -> None:
    pool = make(size=1)
    job = Job()
    asked: list[float] = []

    class Gate:
        def acquire(self, timeout: float) -> bool:
            asked.append(timeout)
            if len(asked) == 1:
                pool._idle.remove(worker)  # what _wake_one() does
                return False
            return True

    worker, other = FakeWorker(Gate()), FakeWorker(None)
    pool._workers |= {worker, other}  # type: ignore[arg-type]
    pool._idle.append(worker)  # type: ignore[arg-type]
    assert pool._park(worker) is True  # type: ignore[arg-type]
    assert asked == [workers._LINGER, workers._LINGER]
    pool._workers.clear()
    pool.submit([job])
    job.worker()


def test_a_pool_does_not_shrink_below_its_size(make: MakePool) -> None:
    pool = make(size=1)
    asked: list[float] = []

    class Gate:
        def acquire(self, timeout: float) -> bool:
            asked.append(timeout)
            if len(asked) == 1:
                pool._workers.discard(other)  # it has retired first
                return False
            return True

    worker, other = FakeWorker(Gate()), FakeWorker(None)
    pool._workers |= {worker, other}  # type: ignore[arg-type]
    pool._idle.append(worker)  # type: ignore[arg-type]
    assert pool._park(worker) is True  # type: ignore[arg-type]
    assert asked == [workers._LINGER, -1]
    pool._workers.clear()
    pool._idle.clear()


# -- What runs for long ----------------------------------------------


def test_looks_go_on_until_every_worker_rests(make: MakePool) -> None:
    """Also while one has taken its work and not begun it: it may never return."""
    taken, may_begin = threading.Event(), threading.Event()

    def wake_loop() -> None:
        taken.set()
        assert may_begin.wait(HANG)

    pool = make(1, 1, wake_loop, slow_after=100.0)
    assert not pool.look(0.0)
    job = Job(blocks=True)
    pool.submit([job])
    assert taken.wait(HANG)
    assert pool.running() == []
    assert pool.look(1.0)
    may_begin.set()
    job.worker()
    assert pool.look(2.0)
    ((name, call, _),) = pool.running()
    assert (name, call) == ("pool-1", "<job>")
    job.end()
    settle(pool)
    assert not pool.look(3.0)
    assert pool.running() == []


def test_looks_go_on_while_work_is_queued(make: MakePool) -> None:
    pool = make(1, 1, slow_after=100.0)
    pool.queue.append(Job())
    assert pool.look(0.0)
    pool.queue.clear()


def test_a_pool_that_warns_of_nothing_is_not_looked_at(make: MakePool) -> None:
    assert make().look_interval is None
    assert make(slow_after=10.0).look_interval == 2.5


# -- What goes wrong -------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(1), KeyboardInterrupt()])
def test_work_that_raises_is_logged(
    make: MakePool, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    pool = make(size=1)

    class Broken:
        def __repr__(self) -> str:
            return "<broken>"

        def run(self) -> None:
            raise error

    after = Job()
    with caplog.at_level(logging.ERROR, "syncws.engine"):
        pool.submit([Broken(), after])
        assert after.worker() == "pool-1"
    (record,) = caplog.records
    assert record.getMessage() == "<broken> failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    settle(pool)


def test_a_log_that_raises_does_not_end_the_worker(make: MakePool) -> None:
    pool = make(size=1)

    def fail() -> None:
        raise ValueError("broken")

    after = Job()
    with broken_log("syncws.engine"):
        pool.submit([Call(fail), after])
        assert after.worker() == "pool-1"
    settle(pool)


def test_threads_that_cannot_be_started(
    make: MakePool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make(size=2)
    job = Job()

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        pool.submit([job])
        assert pool.stats() == (0, 0, 0, 1)
        stall(pool, 100.0)
    assert all(record.levelno == logging.ERROR for record in caplog.records)
    assert caplog.messages == ["could not start worker pool-1"], "once, until one can be started"
    # It is tried again when the queue still stands still.
    stall(pool, 200.0)
    job.worker()
    settle(pool)


# -- The end ---------------------------------------------------------


def test_stop_ends_idle_workers(make: MakePool) -> None:
    pool = make(size=3)
    job = Job()
    pool.submit([job])
    job.worker()
    settle(pool)
    pool.stop()
    assert pool.join(Deadline(HANG))
    assert pool.stats() == (0, 0, 0, 0)
    pool.stop()
    assert pool.join(Deadline(0))


def test_stop_without_a_worker(make: MakePool) -> None:
    pool = make()
    pool.stop()
    assert pool.join(Deadline(0))


def test_what_is_queued_is_done_before_the_end(make: MakePool) -> None:
    pool = make(size=2)
    first, second, third = Job(blocks=True), Job(blocks=True), Job()
    pool.submit([first, second, third])
    first.worker()
    # The idle one is woken by stop() and takes what is queued.
    pool.stop()
    second.worker()
    assert not pool.join(Deadline(0))
    second.end()
    third.worker()
    first.end()
    assert pool.join(Deadline(HANG))
    assert pool.stats().queued == 0


def test_join_waits_for_a_callback_only_so_long(make: MakePool) -> None:
    pool = make(size=1)
    job = Job(blocks=True)
    pool.submit([job])
    job.worker()
    pool.stop()
    assert pool.join(Deadline(0)) is False
    assert pool.join(Deadline(0.01)) is False
    job.end()
    assert pool.join(Deadline(HANG)) is True
