"""The loop and its workers: whoever is needed is awake, in every order of a switch or two.

The workers here have no threads of their own: each is an operation. A worker
that is woken has its gate released, and the loop that is woken a byte to read.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import pytest

from syncws.engine import loop as loop_module
from syncws.engine.loop import IOLoop
from syncws.engine.workers import WorkerPool, _Worker
from tests.races import stepping
from tests.races.stepping import Walker, needs_instructions
from tests.support import HANG

STEPPED = True

Exploring = Callable[..., int]


class Job:
    """Work that notes that it was done, and may queue itself again."""

    def __init__(self, done: list[Job], again: WorkerPool | None = None) -> None:
        self._done = done
        self._again = again

    def run(self) -> None:
        self._done.append(self)
        again, self._again = self._again, None
        if again is not None:
            again.queue.append(self)


class Crew(WorkerPool):
    """A pool whose workers are the test's."""

    def __init__(self, size: int, max_size: int, wake_loop: Callable[[], None]) -> None:
        super().__init__(size, max_size, "crew", wake_loop)

    def _spawn(self) -> bool:
        self._started += 1
        worker = _Worker(self.run, f"crew-{self._started}")
        self._workers.add(worker)
        self._idle.append(worker)
        return True

    def woken(self) -> list[_Worker]:
        """Return the workers that would run if they had threads."""
        return [worker for worker in self._workers if not worker.gate.locked()]

    def finish(self) -> None:
        """Let those that were woken serve, until nobody is awake."""
        while woken := self.woken():
            for worker in woken:
                assert worker.gate.acquire(False)
                self._serve(worker)
                self.rest_now(worker)

    def rest_now(self, worker: _Worker) -> None:
        """Become idle if there is nothing to do, without waiting there."""
        while self._rest_or_not(worker):
            self._serve(worker)

    def _rest_or_not(self, worker: _Worker) -> bool:
        park, self._park = self._park, lambda _: False  # type: ignore[method-assign]
        try:
            return self._rest(worker)
        finally:
            self._park = park  # type: ignore[method-assign]


class Pool:
    """A pool with one worker that is about to rest, and the I/O thread."""

    def __init__(
        self,
        operation: Callable[[Pool], None],
        *,
        queued: int = 0,
        size: int = 2,
        stopping: bool = False,
    ) -> None:
        self.done: list[Job] = []
        self.wakes = 0
        self.crew = Crew(size, 4, self._wake_loop)
        self._operation = operation
        self.jobs: list[Job] = []
        self.submit()
        (self.worker,) = self.crew.woken()
        assert self.worker.gate.acquire(False)
        for _ in range(queued):
            self.submit()
        self.stopping = stopping

    def _wake_loop(self) -> None:
        self.wakes += 1

    def submit(self) -> None:
        self.jobs.append(Job(self.done))
        self.crew.submit([self.jobs[-1]])

    def submit_again(self) -> None:
        """Work that takes two turns."""
        self.jobs += [Job(self.done, self.crew)] * 2
        self.crew.submit(self.jobs[-1:])

    def look_twice(self) -> None:
        """The queue has not moved for long, as far as the I/O thread can tell."""
        self.crew.unblock(0.0)
        self.crew.unblock(1000.0)

    def stop(self) -> None:
        self.submit()
        self.crew.stop()

    def first(self) -> None:
        self._operation(self)

    def second(self) -> None:
        """A worker: serves, rests, and ends when it may."""
        self.crew._serve(self.worker)
        self.crew.rest_now(self.worker)

    def check(self, first: Walker, second: Walker) -> None:
        first.result()
        second.result()
        self.crew.finish()
        assert not self.crew.queue, "work is left, and nobody is awake"
        assert sorted(map(id, self.done)) == sorted(map(id, self.jobs))
        assert self.wakes
        self.check_accounts()

    def check_accounts(self) -> None:
        crew = self.crew
        if crew._stopping:
            assert not crew._workers
            return
        assert crew._active == 0
        assert set(crew._idle) == crew._workers
        assert len(crew._idle) == len(crew._workers)

    def close(self) -> None:
        pass


POOLS: dict[str, tuple[Callable[[Pool], None], int]] = {
    "submit / rest": (Pool.submit, 0),
    "submit / rest, more": (Pool.submit, 2),
    "submit / rest, again": (Pool.submit_again, 1),
    "unblock / rest": (Pool.look_twice, 1),
    "stop / rest": (Pool.stop, 0),
    "stop / rest, more": (Pool.stop, 1),
}


@pytest.mark.parametrize("pair", POOLS)
def test_a_worker_against_the_io_thread(pair: str, exploring: Exploring) -> None:
    operation, queued = POOLS[pair]
    tried = exploring(lambda: Pool(operation, queued=queued), switches=2, among=("workers.py",))
    assert tried > 200


@needs_instructions
def test_a_worker_against_submit_by_instruction(exploring: Exploring) -> None:
    assert exploring(lambda: Pool(Pool.submit), by_instruction=True) > 30


class Lingering(Pool):
    """A worker too many has waited for long, in the moment that it is wanted."""

    def __init__(self, sizes: set[int]) -> None:
        super().__init__(Pool.submit, size=2)
        self._sizes = sizes
        self.crew._size = 1
        self.ends: list[bool] = []
        self.crew._serve(self.worker)
        self.crew.rest_now(self.worker)
        # The one that will be wanted first, and is one too many.
        self.worker = self.crew._idle[-1]
        self._gate = self.worker.gate
        self.worker.gate = Late(self._gate)  # type: ignore[assignment]

    def second(self) -> None:
        """It is at the end of its patience."""
        if self.crew._park(self.worker):
            self.crew._serve(self.worker)
            self.crew.rest_now(self.worker)

    def check(self, first: Walker, second: Walker) -> None:
        self.worker.gate = self._gate
        super().check(first, second)
        self._sizes.add(len(self.crew._workers))

    def check_accounts(self) -> None:
        assert self.crew._active == 0
        assert set(self.crew._idle) == self.crew._workers


class Late:
    """A gate at which waiting takes no time: once it ends at once, and then it is for ever."""

    def __init__(self, gate: Any) -> None:
        self._gate = gate
        self._waits = 0

    def acquire(self, timeout: float = -1) -> bool:
        self._waits += 1
        if self._waits == 1:
            return bool(self._gate.acquire(False))
        return bool(self._gate.acquire(True, -1))

    def release(self) -> None:
        self._gate.release()

    def locked(self) -> bool:
        return bool(self._gate.locked())


def test_a_worker_that_lingers_against_submit(exploring: Exploring) -> None:
    sizes: set[int] = set()
    assert exploring(lambda: Lingering(sizes), switches=2, among=("workers.py",)) > 50
    assert sizes == {1, 2}  # it has gone, or was wanted just in time


# -- The loop's sleep --------------------------------------------------------


class Sleeping:
    """A loop that has nothing to do and is about to wait, and somebody who has something for it.

    A wait without an end is one until a byte comes; others are over at once,
    as if time flew.
    """

    def __init__(
        self,
        first: Callable[[Sleeping], None],
        second: Callable[[Sleeping], None],
        *,
        queued: int = 0,
        asleep: bool = False,
    ) -> None:
        self.loop = IOLoop("sleeping")
        self.crew = Crew(1, 1, self.loop.wake_if_dirty)
        self.loop.pool = self.crew
        self._operations = first, second
        self._expects = {"call", "flush"} & {
            name for operation in (first, second) for name in _MAKES.get(operation, ())
        }
        self.made: set[str] = set()
        self.done: list[Job] = []
        self._poller = self.loop._poller
        self.loop._poller = self  # type: ignore[assignment]
        for _ in range(queued):
            self.crew.queue.append(Job(self.done))
        self.loop._waiting = asleep

    def poll(self, timeout: float | None) -> Any:
        walker = getattr(stepping._current, "walker", None)
        if timeout is not None or walker is None:
            return self._poller.poll(0)
        found = self._poller.poll(0)
        if found:
            return found
        walker.waits(self._is_woken)
        found = self._poller.poll(HANG)
        walker.has_waited()
        return found

    def _is_woken(self) -> bool:
        return bool(select.select([self.loop._wakeup], [], [], 0)[0])

    # -- Operations

    def call(self) -> None:
        self.loop.call_soon(self.made.add, "call")

    def flush_one(self) -> None:
        self.loop.flush_soon(self)

    def flush_many(self) -> None:
        self.loop.flush_all_soon([self])

    def flush(self) -> None:
        self.made.add("flush")

    def on_loop_error(self, error: BaseException) -> None:
        raise AssertionError from error

    def serve(self) -> None:
        """A worker empties the queue."""
        self.crew._serve(_Worker(self.crew.run, "crew"))

    def rounds(self) -> None:
        """The I/O thread."""
        while not self._expects <= self.made:
            self.loop._round()

    def pause(self) -> None:
        """The I/O thread lets the workers run."""
        self.loop._let_workers_run(self.crew)

    def first(self) -> None:
        self._operations[0](self)

    def second(self) -> None:
        self._operations[1](self)

    def check(self, first: Walker, second: Walker) -> None:
        first.result()
        second.result()
        if self.loop._waiting or self._expects - self.made:
            # It sleeps, or is about to wait.
            assert self._is_woken() or self.loop._patience() is not None, "it sleeps on"

    def close(self) -> None:
        self._poller.close()
        self.loop._wakeup.close()


_MAKES: dict[Callable[[Sleeping], None], tuple[str, ...]] = {
    Sleeping.call: ("call",),
    Sleeping.flush_one: ("flush",),
    Sleeping.flush_many: ("flush",),
}

SLEEPS: dict[str, tuple[Callable[[Sleeping], None], Callable[[Sleeping], None], dict[str, Any]]] = {
    "call / sleep": (Sleeping.call, Sleeping.rounds, {}),
    "flush / sleep": (Sleeping.flush_one, Sleeping.rounds, {}),
    "flush of many / sleep": (Sleeping.flush_many, Sleeping.rounds, {}),
    "flush / a worker empties the queue": (
        Sleeping.flush_one,
        Sleeping.serve,
        {"queued": 2, "asleep": True},
    ),
    "flush of many / a worker empties the queue": (
        Sleeping.flush_many,
        Sleeping.serve,
        {"queued": 1, "asleep": True},
    ),
    "call / call": (Sleeping.call, Sleeping.call, {"asleep": True}),
    "call / flush": (Sleeping.call, Sleeping.flush_one, {"asleep": True}),
    "a worker empties the queue / pause": (Sleeping.serve, Sleeping.pause, {"queued": 2}),
    "call / pause": (Sleeping.call, Sleeping.pause, {"queued": 1}),
}


@pytest.mark.parametrize("pair", SLEEPS)
def test_waking_the_loop(pair: str, exploring: Exploring, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody is woken because time is over.
    monkeypatch.setattr(loop_module, "STALL", HANG)
    first, second, options = SLEEPS[pair]
    tried = exploring(
        lambda: Sleeping(first, second, **options), switches=2, among=("loop.py", "workers.py")
    )
    assert tried > 10


@needs_instructions
def test_waking_the_loop_by_instruction(exploring: Exploring) -> None:
    tried = exploring(lambda: Sleeping(Sleeping.call, Sleeping.rounds), by_instruction=True)
    assert tried > 20


def test_two_wake_a_loop_that_pauses(exploring: Exploring, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them comes too late: it does no harm, and the next pause is none."""
    monkeypatch.setattr(loop_module, "STALL", 0.0)
    tried = exploring(
        lambda: Sleeping(Sleeping.call, Sleeping.pause, queued=1), switches=2, among=("loop.py",)
    )
    assert tried > 50
