"""Most tests make the loop's rounds themselves, so that nothing runs by itself."""

from __future__ import annotations

import functools
import logging
import select
import socket
import threading
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from syncws.engine import loop as loop_module
from syncws.engine.loop import READ, STALL, WRITE, IOLoop
from syncws.engine.poller import Poller
from tests.scripted import POLLERS
from tests.support import Task, broken_log

HANG = 30.0  # seconds after which a test is taken to hang


class Pool:
    """A run queue that notes what the loop asks of it."""

    def __init__(self) -> None:
        self.queue: deque[Any] = deque()
        self.patience = STALL
        self.look_interval: float | None = None
        self.log: list[Any] = []

    def submit(self, work: list[Any]) -> None:
        self.log.append(("submit", list(work)))

    def unblock(self, now: float) -> None:
        self.log.append(("unblock", now))

    def stop(self) -> None:
        self.log.append("stop")


class Handler:
    """Owns one end of a socket pair and notes what the loop tells it."""

    def __init__(self, loop: IOLoop, name: str = "handler", mask: int = READ) -> None:
        self.name = name
        self.loop = loop
        self.sock, self.peer = socket.socketpair()
        self.log: list[Any] = []
        self.raises: Exception | None = None
        self.raises_again = False
        loop.own(self)
        loop.register(self.sock, mask, self)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def on_ready(self, mask: int) -> None:
        self.log.append(mask)
        if mask & READ:
            self.sock.recv(100)
        if self.raises is not None:
            raise self.raises

    def on_loop_error(self, error: BaseException) -> None:
        self.log.append(error)
        if self.raises_again:
            raise RuntimeError("again")

    def flush(self) -> None:
        self.log.append("flush")
        if self.raises is not None:
            raise self.raises

    def abort(self) -> None:
        self.log.append("abort")
        if self.raises is not None:
            raise self.raises
        self.loop.unregister(self.sock)

    def abandon(self) -> None:
        self.log.append("abandon")

    def close(self) -> None:
        self.sock.close()
        self.peer.close()


class Bench:
    def __init__(self, poller: Poller) -> None:
        self.now = 100.0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop_module, "make_poller", lambda: poller)
            self.loop = IOLoop("loop", lambda: self.now)
        self.pool = Pool()
        self.handlers: list[Handler] = []

    def handler(self, name: str = "handler", mask: int = READ) -> Handler:
        self.handlers.append(Handler(self.loop, name, mask))
        return self.handlers[-1]

    def turn(self) -> None:
        """Make one round that does not wait."""
        self.loop.call_soon(lambda: None)
        self.loop._round()

    def end(self) -> None:
        self.loop.stop()
        self.loop.run()

    def is_woken(self) -> bool:
        return bool(select.select([self.loop._wakeup], [], [], 0)[0])


@pytest.fixture(params=POLLERS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(POLLERS[request.param]())
    yield bench
    for handler in bench.handlers:
        bench.loop.disown(handler)
        handler.close()
    bench.loop.abandon()


# -- Calls -----------------------------------------------------------


def test_calls_are_made_in_order(bench: Bench) -> None:
    log: list[Any] = []
    for n in range(5):
        bench.loop.call_soon(log.append, n)
    bench.loop.call_soon(lambda *args: log.append(args), 1, 2)
    assert log == []
    bench.turn()
    assert log == [0, 1, 2, 3, 4, (1, 2)]


def test_a_call_made_by_a_call_is_for_the_next_round(bench: Bench) -> None:
    log: list[str] = []

    def call() -> None:
        log.append("call")
        bench.loop.call_soon(log.append, "next")

    bench.loop.call_soon(call)
    bench.loop._round()
    assert log == ["call"]
    assert bench.loop._patience() == 0
    bench.loop._round()
    assert log == ["call", "next"]


def test_a_call_that_raises_costs_its_owner_only(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    owner = bench.handler()
    log: list[str] = []
    error = ValueError("broken")

    def broken() -> None:
        raise error

    bench.loop.call_soon(broken, owner=owner)
    bench.loop.call_soon(broken)
    bench.loop.call_soon(log.append, "after")
    with caplog.at_level(logging.ERROR, "syncws.engine"):
        bench.turn()
    assert log == ["after"]
    assert owner.log == [error]
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error] * 2


def test_an_owner_that_cannot_even_be_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    owner = bench.handler("stubborn")
    owner.raises_again = True

    def broken() -> None:
        raise ValueError("broken")

    bench.loop.call_soon(broken, owner=owner)
    bench.turn()
    assert "could not give up <stubborn>" in caplog.text
    bench.turn()


def test_a_log_that_raises_does_not_end_the_loop(bench: Bench) -> None:
    broken, good = bench.handler("broken"), bench.handler("good")
    broken.raises = ValueError("broken")
    broken.raises_again = True  # and cannot be told
    with broken_log("syncws.engine"):
        for handler in (broken, good):
            handler.peer.send(b"x")
        bench.turn()
    assert broken.log == [READ, broken.raises]
    assert good.log == [READ]


# -- Sockets ---------------------------------------------------------


def test_a_handler_is_told_what_its_socket_is_ready_for(bench: Bench) -> None:
    handler = bench.handler()
    bench.turn()
    assert handler.log == []
    handler.peer.send(b"x")
    bench.turn()
    assert handler.log == [READ]
    bench.loop.modify(handler.sock, READ | WRITE, handler)
    bench.turn()
    assert handler.log == [READ, WRITE]
    handler.peer.send(b"x")
    bench.turn()
    assert handler.log == [READ, WRITE, READ | WRITE]
    bench.loop.unregister(handler.sock)
    handler.peer.send(b"x")
    bench.turn()
    assert handler.log == [READ, WRITE, READ | WRITE]


def test_a_handler_that_raises_costs_nobody_else(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = bench.handler("broken"), bench.handler("good")
    broken.raises = ValueError("broken")
    log: list[str] = []
    bench.loop.call_soon(log.append, "call")
    for handler in (broken, good):
        handler.peer.send(b"x")
    bench.turn()
    assert broken.log == [READ, broken.raises]
    assert good.log == [READ]
    assert log == ["call"]
    assert "a call in the I/O thread failed" in caplog.text


def test_what_is_not_registered_can_be_unregistered(bench: Bench) -> None:
    handler = bench.handler()
    bench.loop.unregister(handler.sock)
    bench.loop.unregister(handler.sock)
    bench.loop.register(handler.sock, READ, handler)
    handler.sock.close()
    bench.loop.unregister(handler.sock)
    bench.turn()
    assert handler.log == []


# -- Timers ----------------------------------------------------------


def test_timers_by_the_clock(bench: Bench) -> None:
    owner = bench.handler()
    log: list[str] = []
    bench.loop.call_at(110.0, lambda: log.append("110"), owner)
    bench.loop.call_at(105.0, lambda: log.append("105"), owner)
    bench.loop.call_at(106.0, lambda: log.append("never"), owner).cancel()
    bench.turn()
    assert log == []
    bench.now = 105.0
    bench.turn()
    assert log == []  # the sockets are looked at once more
    bench.turn()
    assert log == ["105"]
    bench.now = 200.0
    bench.turn()
    bench.turn()
    assert log == ["105", "110"]


def test_a_timer_that_raises_costs_its_owner_only(bench: Bench) -> None:
    owner = bench.handler()
    log: list[str] = []
    error = ValueError("broken")

    def broken() -> None:
        raise error

    bench.loop.call_at(100.0, broken, owner)
    bench.loop.call_at(100.0, lambda: log.append("after"), owner)
    bench.turn()
    assert owner.log == [error]
    assert log == ["after"]


# -- How long a round waits ------------------------------------------


def test_a_round_waits_for_what_is_due_first(bench: Bench) -> None:
    loop, owner = bench.loop, bench.handler()
    loop.pool = bench.pool
    assert loop._patience() is None
    bench.pool.queue.append("work")
    assert loop._patience() == STALL
    bench.pool.queue.clear()
    timer = loop.call_at(103.0, lambda: None, owner)
    assert loop._patience() == 3.0
    bench.pool.queue.append("work")
    assert loop._patience() == STALL
    bench.now = 104.0
    assert loop._patience() == 0.0
    timer.cancel()
    bench.pool.queue.clear()
    # A far time is no more than the system can wait.
    loop.call_at(1e300, lambda: None, owner)
    assert 0 < (loop._patience() or 0) <= 86_400
    loop.ready.append("work")
    assert loop._patience() == 0
    loop.ready.clear()
    loop.flush_soon(owner)
    assert loop._patience() == 0
    loop._flush()
    loop.call_soon(lambda: None)
    assert loop._patience() == 0


# -- Flushes and wake-ups --------------------------------------------


def test_what_is_queued_is_flushed_once_in_order(bench: Bench) -> None:
    first, second = bench.handler("first"), bench.handler("second")
    bench.loop.flush_soon(first)
    bench.loop.flush_soon(second)
    bench.turn()
    bench.turn()
    assert first.log == second.log == ["flush"]


def test_many_are_flushed_once_in_order(bench: Bench) -> None:
    first, second, third = (bench.handler(name) for name in ("first", "second", "third"))
    order: list[Any] = []
    for handler in (first, second, third):
        handler.flush = functools.partial(order.append, handler)  # type: ignore[method-assign]
    bench.loop.flush_soon(second)
    bench.loop.flush_all_soon([third, first])
    bench.turn()
    bench.turn()
    assert order == [second, third, first]


@pytest.mark.parametrize("callbacks", [True, False], ids=["callbacks wait", "none waits"])
def test_a_flush_of_many_wakes_the_thread_once(bench: Bench, callbacks: bool) -> None:
    bench.loop.pool = bench.pool
    if callbacks:
        bench.pool.queue.append("work")
    bench.loop._waiting = True
    bench.loop.flush_all_soon([bench.handler(), bench.handler()])
    assert bench.is_woken() is not callbacks
    if callbacks:
        # The one who empties the queue does.
        bench.loop.wake_if_dirty()
        assert bench.is_woken()


def test_a_flush_that_raises_costs_its_connection_only(bench: Bench) -> None:
    broken, good = bench.handler("broken"), bench.handler("good")
    broken.raises = ValueError("broken")
    bench.loop.flush_soon(broken)
    bench.loop.flush_soon(good)
    bench.turn()
    assert broken.log == ["flush", broken.raises]
    assert good.log == ["flush"]


def test_nobody_is_woken_who_does_not_wait(bench: Bench) -> None:
    bench.loop.call_soon(lambda: None)
    bench.loop.flush_soon(bench.handler())
    assert not bench.is_woken()


def test_a_call_wakes_the_thread_once(bench: Bench) -> None:
    bench.loop._waiting = True
    bench.loop.call_soon(lambda: None)
    assert bench.is_woken()
    assert not bench.loop._waiting
    bench.loop._wakeup.on_ready(READ)
    bench.loop.call_soon(lambda: None)
    assert not bench.is_woken()


@pytest.mark.parametrize("pool", [True, False])
def test_a_flush_wakes_the_thread_if_no_callback_waits(bench: Bench, pool: bool) -> None:
    bench.loop.pool = bench.pool if pool else None
    bench.loop._waiting = True
    bench.loop.flush_soon(bench.handler())
    assert bench.is_woken()


def test_while_callbacks_wait_the_one_who_empties_the_queue_wakes_the_thread(
    bench: Bench,
) -> None:
    bench.loop.pool = bench.pool
    bench.pool.queue.append("work")
    bench.loop._waiting = True
    bench.loop.wake_if_dirty()
    assert not bench.is_woken()
    bench.loop.flush_soon(bench.handler())
    assert not bench.is_woken()
    bench.loop.wake_if_dirty()
    assert bench.is_woken()
    # The round takes the wake-up back.
    bench.loop._round()
    assert not bench.is_woken()


def test_a_flush_left_to_the_queues_end_is_not_missed_by_a_round_about_to_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, pool = bench.loop, bench.pool
    loop.pool = pool
    pool.queue.append("work")
    handler = bench.handler()

    class Timers:
        def next_due(self) -> None:
            # Amid _patience: a flush is left to the queue's end, which comes
            # at once; the worker blocks in that work.
            loop.flush_soon(handler)
            pool.queue.clear()

    loop._waiting = True
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_timers", Timers())
        patience = loop._patience()
    assert patience is not None
    assert patience <= STALL


# -- Work for the pool -----------------------------------------------


def test_all_that_is_runnable_is_handed_over_at_once(bench: Bench) -> None:
    bench.loop.pool = bench.pool
    bench.loop.call_soon(bench.loop.ready.append, "a")
    bench.loop.call_soon(bench.loop.ready.append, "b")
    bench.turn()
    assert bench.pool.log == [("submit", ["a", "b"])]
    bench.turn()
    assert bench.pool.log == [("submit", ["a", "b"])]
    assert bench.loop.ready == []


def test_the_pool_is_looked_after_while_work_waits(bench: Bench) -> None:
    bench.loop.pool = bench.pool
    bench.pool.queue.append("work")
    bench.now = 123.0
    bench.turn()
    assert bench.pool.log == [("unblock", 123.0)]


def test_calls_for_a_worker(bench: Bench) -> None:
    bench.loop.pool = bench.pool
    log: list[int] = []
    bench.loop.call_soon(bench.loop.call_in_worker, log.append, 1)
    bench.turn()
    assert log == []
    ((name, (errand,)),) = bench.pool.log
    assert name == "submit"
    errand.run()
    assert log == [1]


# -- The end ---------------------------------------------------------


def test_stop_aborts_everyone_and_stops_the_pool(bench: Bench) -> None:
    bench.loop.pool = bench.pool
    handlers = [bench.handler(str(n)) for n in range(3)]
    # Also one that does not wait for anything now.
    bench.loop.unregister(handlers[1].sock)
    handlers[1].raises = ValueError("broken")
    log: list[str] = []
    bench.loop.call_soon(log.append, "before")
    bench.loop.stop()
    bench.loop.call_soon(log.append, "behind")
    bench.loop.run()
    assert log == ["before", "behind"]
    assert handlers[0].log == handlers[2].log == ["abort"]
    assert handlers[1].log == ["abort", handlers[1].raises]
    assert bench.pool.log == ["stop"]
    assert bench.loop._wakeup.fileno() == -1


def test_what_the_end_makes_runnable_is_still_run(bench: Bench) -> None:
    bench.loop.pool = bench.pool
    handler = bench.handler()
    handler.abort = lambda: bench.loop.ready.append("closed")  # type: ignore[method-assign]
    bench.end()
    assert bench.pool.log == [("submit", ["closed"]), "stop"]


def test_what_aborting_asks_for_is_done(bench: Bench) -> None:
    handler = bench.handler()
    log: list[str] = []
    handler.abort = lambda: bench.loop.call_soon(log.append, "asked")  # type: ignore[method-assign]
    bench.end()
    assert log == ["asked"]


def test_the_end_of_a_thread_of_its_own(bench: Bench) -> None:
    loop = IOLoop("own-io")
    seen: SimpleQueue[tuple[bool, str, bool]] = SimpleQueue()

    def look() -> None:
        thread = threading.current_thread()
        seen.put((loop.in_thread(), thread.name, thread.daemon))

    loop.thread.start()
    loop.call_soon(look)
    assert seen.get(timeout=HANG) == (True, "own-io", True)
    assert not loop.in_thread()
    # Woken from its wait as well as before it.
    for _ in range(100):
        loop.call_soon(look)
        seen.get(timeout=HANG)
    loop.stop()
    loop.thread.join(HANG)
    assert not loop.thread.is_alive()


def test_an_error_of_the_loop_itself_aborts_everyone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = bench.handler()

    def broken(timeout: float | None) -> None:
        raise OSError("bad selector")

    monkeypatch.setattr(bench.loop._poller, "poll", broken)
    with pytest.raises(OSError, match="bad selector"):
        bench.loop.run()
    assert handler.log == ["abort"]


def test_abandon(bench: Bench) -> None:
    handlers = [bench.handler(), bench.handler()]
    bench.loop.unregister(handlers[0].sock)
    bench.loop.disown(handlers[1])
    bench.loop.disown(handlers[1])
    assert not bench.loop.abandoned
    bench.loop.abandon()
    assert bench.loop.abandoned
    assert handlers[0].log == ["abandon"]
    assert handlers[1].log == []
    assert bench.loop._wakeup.fileno() == -1


def test_one_that_cannot_be_abandoned_does_not_spoil_the_rest(bench: Bench) -> None:
    handlers = [bench.handler(str(n)) for n in range(8)]
    broken, good = handlers[::2], handlers[1::2]

    def fail() -> None:
        raise AttributeError("not made yet")

    for handler in broken:
        handler.abandon = fail  # type: ignore[method-assign]
    bench.loop.abandon()
    assert [handler.log for handler in good] == [["abandon"]] * 4
    assert bench.loop._wakeup.fileno() == -1


# -- Many connections with work ----------------------------------------------


class BusyPool(Pool):
    """Has as much work as the loop lets the workers deal with, and a worker for it."""

    def __init__(self, loop: IOLoop, work: Any) -> None:
        super().__init__()
        self.loop = loop
        self.tasks: list[Task] = []
        self._work = work

    def submit(self, work: list[Any]) -> None:
        super().submit(work)
        self.queue.extend(work)
        self.tasks.append(Task(self._begin))

    def _begin(self) -> None:
        while not self.loop._pausing:
            pass  # not yet
        self._work()


@pytest.fixture
def never_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the loop wait for the workers until somebody wakes it."""
    monkeypatch.setattr(loop_module, "STALL", HANG)


class Flushed:
    """Notes that it was flushed."""

    def __init__(self) -> None:
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1

    def on_loop_error(self, error: BaseException) -> None:
        raise AssertionError("nothing fails here") from error


@pytest.mark.usefixtures("never_stalls")
def test_what_the_workers_have_sent_is_written_when_they_are_through(bench: Bench) -> None:
    loop, sent = bench.loop, Flushed()

    def work() -> None:
        while pool.queue:
            pool.queue.popleft()
            if not pool.queue:
                loop.flush_soon(sent)
                loop.wake_if_dirty()

    loop.pool = pool = BusyPool(loop, work)
    loop.ready.extend(range(20))
    loop.call_soon(lambda: None)
    loop._round()
    assert sent.flushes == 1
    pool.tasks[0].result()


@pytest.mark.usefixtures("never_stalls")
def test_workers_without_an_answer_wake_the_loop_as_well(bench: Bench) -> None:
    loop = bench.loop

    def work() -> None:
        pool.queue.clear()
        loop.wake_if_dirty()

    loop.pool = pool = BusyPool(loop, work)
    loop.ready.extend(range(20))
    loop.call_soon(lambda: None)
    loop._round()
    pool.tasks[0].result()
    assert loop.ready == []


@pytest.mark.usefixtures("never_stalls")
def test_a_call_does_not_wait_for_the_workers(bench: Bench) -> None:
    loop, called = bench.loop, []
    loop.pool = pool = BusyPool(loop, lambda: loop.call_soon(called.append, 1))
    loop.ready.extend(range(20))
    loop.call_soon(lambda: None)
    loop._round()
    pool.tasks[0].result()
    assert len(pool.queue) == 20
    loop._round()
    assert called == [1]
    pool.queue.clear()


def test_workers_that_block_hold_the_loop_up_for_a_moment_only(bench: Bench) -> None:
    loop = bench.loop
    loop.pool = pool = Pool()
    pool.queue.extend(range(20))
    loop.ready.extend(range(20))
    loop.call_soon(lambda: None)
    loop._round()
    assert len(pool.queue) == 20
    assert pool.log[-1][0] == "unblock"
    pool.queue.clear()
