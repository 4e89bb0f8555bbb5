from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest

from syncws.engine.dispatch import CLOSED, IDLE, OPENED, Dispatcher, Mailbox
from syncws.errors import Close, ProtocolError
from syncws.protocol.events import BINARY, CLOSE, ERROR, PING, PONG, TEXT, Event
from tests.support import broken_log

HANG = 30.0  # seconds after which a test is taken to hang

LAST = [Event(CLOSE, Close(1000)), Event(ERROR, ProtocolError("no")), Event(CLOSED, Close(1006))]


def text(data: str) -> Event:
    return Event(TEXT, data)


class Loop:
    """As much of a loop as a dispatcher needs; the pool's workers are the test's."""

    def __init__(self) -> None:
        self.ready: list[Any] = []
        self.pool = self
        self.queue: deque[Any] = deque()

    def runnable(self) -> list[Any]:
        """Return what stands in either queue, and take it off."""
        found = [*self.ready, *self.queue]
        self.ready = []
        self.queue.clear()
        return found


class Bench:
    """A dispatcher that notes what it does."""

    def __init__(self, *, max_count: int = 10, max_size: int = 1000) -> None:
        self.loop = Loop()
        self.log: list[Any] = []
        self.during: Callable[[Event], None] = lambda event: None
        self.dispatcher = Dispatcher(
            self.handle,
            self.loop,  # type: ignore[arg-type]
            max_count=max_count,
            max_size=max_size,
            on_done=lambda: self.log.append("done"),
        )
        self.dispatcher.on_room = lambda: self.log.append("room")
        self.dispatcher.on_last = lambda: self.log.append("last")

    def handle(self, event: Event) -> None:
        self.log.append(event)
        self.during(event)

    def run(self) -> None:
        """Be the workers until nothing is to do."""
        while work := self.loop.runnable():
            for one in work:
                one.run()


# -- Dispatcher ------------------------------------------------------


def test_it_knows_what_it_handles_and_forgets_it_then() -> None:
    """A message that was handled is not kept until the next one comes."""
    bench = Bench()
    assert bench.dispatcher.describe() == "a callback"
    seen: list[Any] = []

    def look(event: Event) -> None:
        seen.append((bench.dispatcher.current, bench.dispatcher.describe()))

    bench.during = look
    bench.dispatcher.put(text("a"))
    bench.run()
    assert seen == [(text("a"), "tests.test_engine_dispatch.Bench.handle")]
    assert bench.dispatcher.current is None


def test_what_waits_is_counted_with_what_it_takes_up_beside() -> None:
    bench = Bench()
    assert bench.dispatcher.waiting() == 0
    bench.dispatcher.put(text("abc"))
    bench.dispatcher.put(text("de"))
    assert bench.dispatcher.waiting() == 5 + 2 * 200
    bench.run()
    assert bench.dispatcher.waiting() == 0


def test_its_source_is_who_reads_for_it() -> None:
    bench = Bench()
    assert bench.dispatcher.source is None

    class Reader:
        def read_on(self) -> None: ...

    reader = Reader()
    bench.dispatcher.on_room = reader.read_on
    assert bench.dispatcher.source is reader


def test_other_bounds() -> None:
    bench = Bench()
    bench.dispatcher.bound(1, 1)
    assert bench.dispatcher.put(text("a"))
    bench.dispatcher.bound(10, 1000)
    assert not bench.dispatcher.put(text("b"))
    bench.run()


def test_events_are_handled_in_order() -> None:
    bench = Bench()
    events = [Event(OPENED, None), text("a"), Event(BINARY, b"b"), Event(PING, b""), text("c")]
    for event in events:
        bench.dispatcher.put(event)
    assert bench.loop.ready == [bench.dispatcher]
    bench.run()
    assert bench.log == events
    bench.dispatcher.put(text("d"))
    bench.run()
    assert bench.log == [*events, text("d")]


def test_a_dispatcher_stands_in_the_queue_once() -> None:
    bench = Bench()
    for _ in range(5):
        bench.dispatcher.put(text("x"))
    assert bench.loop.runnable() == [bench.dispatcher]
    # Also while a worker runs it.
    bench.during = lambda event: bench.dispatcher.put(text("y")) if event == text("x") else None
    bench.dispatcher.run()
    assert bench.loop.runnable() == []
    assert bench.log == [text("x")] * 5 + [text("y")] * 5


def test_a_turn_is_64_events() -> None:
    bench = Bench()
    for n in range(130):
        bench.dispatcher.put(text(str(n)))
    lengths = []
    while work := bench.loop.runnable():
        assert work == [bench.dispatcher]
        bench.dispatcher.run()
        lengths.append(len(bench.log))
    assert lengths == [64, 128, 130]
    assert bench.log == [text(str(n)) for n in range(130)]


@pytest.mark.parametrize("count", [63, 64, 65])
def test_the_border_of_a_turn(count: int) -> None:
    bench = Bench()
    for n in range(count):
        bench.dispatcher.put(text(str(n)))
    bench.run()
    assert len(bench.log) == count
    assert not bench.dispatcher.busy()
    bench.dispatcher.put(text("next"))
    bench.run()
    assert bench.log[-1] == text("next")


def test_busy_and_idle() -> None:
    bench = Bench()
    seen = []
    bench.during = lambda event: seen.append((bench.dispatcher.busy(), bench.dispatcher.idle()))
    assert (bench.dispatcher.busy(), bench.dispatcher.idle()) == (False, True)
    bench.dispatcher.put(text("x"))
    assert (bench.dispatcher.busy(), bench.dispatcher.idle()) == (True, False)
    bench.run()
    assert seen == [(True, False)]
    assert (bench.dispatcher.busy(), bench.dispatcher.idle()) == (False, True)


@pytest.mark.parametrize("last", LAST[:2], ids=["close", "error"])
def test_on_last_comes_before_the_close_or_the_error_is_handled(last: Event) -> None:
    bench = Bench()
    for event in (text("a"), last, LAST[2]):
        bench.dispatcher.put(event)
    bench.run()
    assert bench.log == [text("a"), "last", last, LAST[2], "done"]


def test_closed_alone_is_done() -> None:
    bench = Bench()
    bench.dispatcher.put(LAST[2])
    bench.run()
    assert bench.log == [LAST[2], "done"]


def test_the_hooks_may_be_absent() -> None:
    handled: list[Event] = []
    loop = Loop()
    dispatcher = Dispatcher(handled.append, loop, max_count=1, max_size=1)  # type: ignore[arg-type]
    dispatcher.put(text("a"))
    assert dispatcher.pause()
    for event in LAST:
        dispatcher.put(event)
    dispatcher.run()
    assert handled == [text("a"), *LAST]


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(1)])
@pytest.mark.parametrize("logging_fails", [False, True])
def test_a_handler_that_raises_does_not_hold_up_the_rest(
    error: BaseException, logging_fails: bool
) -> None:
    bench = Bench()

    def fail(event: Event) -> None:
        if event == text("first"):
            raise error

    bench.during = fail
    events = [text("first"), text("second"), Event(CLOSED, Close(1006))]
    for event in events:
        bench.dispatcher.put(event)
    with broken_log("syncws.engine" if logging_fails else "syncws.tests"):
        bench.run()
    assert bench.log == [*events, "done"]
    assert not bench.dispatcher.busy()


def test_close_drops_nothing_itself() -> None:
    bench = Bench()
    bench.dispatcher.put(text("a"))
    bench.dispatcher.close()
    bench.run()
    assert bench.log == [text("a")]


class GatedDeque(deque[Event]):
    """A deque that does something right after it was found empty."""

    then: Callable[[], None] | None = None

    def _found_empty(self) -> None:
        then, self.then = self.then, None
        if then is not None:
            then()

    def popleft(self) -> Event:
        if not len(self):
            self._found_empty()
            raise IndexError
        return super().popleft()

    def __bool__(self) -> bool:
        if len(self):
            return True
        self._found_empty()
        return False


def test_what_comes_between_the_look_and_the_release_is_handled() -> None:
    # The I/O thread puts after the worker has found nothing, and before it has
    # released: the put cannot take the lock, so the worker must look again.
    bench = Bench()
    gated = bench.dispatcher._inbox = GatedDeque()
    bench.dispatcher.put(text("a"))
    assert bench.loop.runnable() == [bench.dispatcher]
    gated.then = lambda: bench.dispatcher.put(text("b"))
    bench.dispatcher.run()
    assert bench.log == [text("a"), text("b")]
    assert bench.loop.runnable() == []
    assert not bench.dispatcher.busy()


class RacingLock:
    """A lock whose release is followed by something at once."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._then: Callable[[], None] | None = then

    def acquire(self, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()
        then, self._then = self._then, None
        if then is not None:
            then()

    def locked(self) -> bool:
        return self._lock.locked()


def test_what_comes_right_behind_the_release_is_queued_once() -> None:
    # The put takes the lock and queues the dispatcher: the worker that looks
    # again sees the event, and must leave it to the next one.
    bench = Bench()
    bench.dispatcher._running = RacingLock(  # type: ignore[assignment]
        lambda: bench.dispatcher.put(text("b"))
    )
    bench.dispatcher.put(text("a"))
    (work,) = bench.loop.runnable()
    work.run()
    assert bench.log == [text("a")]
    assert bench.loop.ready == [bench.dispatcher]
    bench.run()
    assert bench.log == [text("a"), text("b")]


def test_never_two_at_once_whatever_the_threads_do() -> None:
    total = 20_000
    running = threading.Lock()
    queue: SimpleQueue[Any] = SimpleQueue()
    order: list[int] = []
    done = threading.Event()
    overlaps = []

    class Ready:
        append = staticmethod(queue.put)

    class ThreadedLoop:
        ready = Ready()

        class pool:
            queue = Ready()

    def handle(event: Event) -> None:
        if not running.acquire(blocking=False):
            overlaps.append(event)
        order.append(int(event.data))
        running.release()
        if len(order) == total:
            done.set()

    def work() -> None:
        while (one := queue.get()) is not None:
            one.run()

    dispatcher = Dispatcher(handle, ThreadedLoop(), max_count=1, max_size=1)  # type: ignore[arg-type]
    workers = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for worker in workers:
        worker.start()
    for n in range(total):
        dispatcher.put(text(str(n)))
    assert done.wait(HANG)
    for _ in workers:
        queue.put(None)
    for worker in workers:
        worker.join(HANG)
    assert order == list(range(total))
    assert overlaps == []


# -- Bounds of both --------------------------------------------------


@pytest.mark.parametrize("kind", ["dispatcher", "mailbox"])
def test_full_by_count_and_by_size(kind: str) -> None:
    inbox: Any
    if kind == "dispatcher":
        inbox = Bench(max_count=4, max_size=100).dispatcher
    else:
        inbox = Mailbox(max_count=4, max_size=100)
    assert [inbox.put(Event(BINARY, bytes(n))) for n in range(4)] == [False, False, False, True]

    if kind == "dispatcher":
        inbox = Bench(max_count=4, max_size=100).dispatcher
    else:
        inbox = Mailbox(max_count=4, max_size=100)
    assert inbox.put(Event(BINARY, b"x" * 99)) is False
    assert inbox.put(text("x")) is True


@pytest.mark.parametrize("max_count", [1, 2, 10, 11])
def test_a_dispatcher_has_room_at_half_its_count(max_count: int) -> None:
    bench = Bench(max_count=max_count)
    full = [bench.dispatcher.put(text("x")) for _ in range(max_count)]
    assert full == [False] * (max_count - 1) + [True]
    assert bench.dispatcher.pause()
    bench.run()
    handled = bench.log.index("room")
    assert max_count - handled == max_count // 2
    assert bench.log.count("room") == 1


@pytest.mark.parametrize("events", [[60, 20, 20], [20, 20, 60]])
def test_a_dispatcher_has_room_at_half_its_size(events: list[int]) -> None:
    bench = Bench(max_count=100, max_size=100)
    full = [bench.dispatcher.put(Event(BINARY, b"x" * size)) for size in events]
    assert full == [False, False, True]
    assert bench.dispatcher.pause()
    bench.run()
    # Not before what waits is at most half.
    assert bench.log.index("room") == (1 if events[0] == 60 else 3)


def test_a_pause_that_comes_too_late_is_refused() -> None:
    bench = Bench(max_count=4)
    assert [bench.dispatcher.put(text("x")) for _ in range(4)][-1] is True
    bench.run()  # as if the worker had been faster
    assert bench.dispatcher.pause() is False
    bench.dispatcher.put(text("y"))
    bench.run()
    assert "room" not in bench.log


def test_a_message_larger_than_the_bound_does_not_block_for_ever() -> None:
    bench = Bench(max_count=4, max_size=10)
    assert bench.dispatcher.put(Event(BINARY, b"x" * 1000)) is True
    assert bench.dispatcher.pause()
    bench.run()
    assert bench.log[-1] == "room"
    assert bench.dispatcher.put(text("next")) is False


def test_a_callback_that_runs_counts_by_its_size() -> None:
    bench = Bench(max_count=4, max_size=10)
    full = []

    def put_more(event: Event) -> None:
        if event.data:
            full.append(bench.dispatcher.put(text("")))

    bench.during = put_more
    bench.dispatcher.put(Event(BINARY, b"x" * 10))
    bench.run()
    assert full == [True]
    assert bench.dispatcher.put(text("")) is False


# -- Dispatcher: held ------------------------------------------------


def test_a_held_dispatcher_handles_nothing_until_it_goes_on() -> None:
    bench = Bench()
    bench.dispatcher.hold()
    events = [Event(OPENED, None), text("a"), text("b")]
    for event in events:
        bench.dispatcher.put(event)
    assert bench.loop.runnable() == []
    assert bench.dispatcher.busy()
    assert not bench.dispatcher.idle()
    bench.dispatcher.go_on()
    assert bench.log == events
    assert bench.loop.runnable() == []
    bench.dispatcher.put(text("c"))  # from now on as ever
    assert bench.log == events
    bench.run()
    assert bench.log == [*events, text("c")]


def test_a_held_dispatcher_with_nothing_to_do_goes_on() -> None:
    bench = Bench()
    bench.dispatcher.hold()
    bench.dispatcher.go_on()
    assert bench.dispatcher.idle()
    bench.dispatcher.put(text("a"))
    bench.run()
    assert bench.log == [text("a")]


def test_what_comes_while_a_held_dispatcher_lets_go_is_handled() -> None:
    bench = Bench()
    dispatcher = bench.dispatcher

    class Late:
        """The lock; an event comes just before it is released."""

        def __init__(self) -> None:
            self.lock = threading.Lock()

        def acquire(self, *args: Any) -> bool:
            return self.lock.acquire(*args)

        def release(self) -> None:
            if not bench.log:
                dispatcher.put(text("late"))
            self.lock.release()

        def locked(self) -> bool:
            return self.lock.locked()

    dispatcher._running = Late()  # type: ignore[assignment]
    dispatcher.hold()
    dispatcher.go_on()
    assert bench.log == [text("late")]
    assert bench.loop.runnable() == []
    assert dispatcher.idle()


def test_a_held_dispatcher_pauses_at_its_bound() -> None:
    bench = Bench(max_count=4)
    bench.dispatcher.hold()
    assert [bench.dispatcher.put(text("x")) for _ in range(4)] == [False, False, False, True]
    assert bench.dispatcher.pause()
    bench.dispatcher.go_on()
    assert bench.log == [text("x"), text("x"), "room", text("x"), text("x")]


def test_a_held_dispatcher_has_turns_too() -> None:
    bench = Bench(max_count=1000)
    bench.dispatcher.hold()
    for _ in range(65):
        bench.dispatcher.put(text("x"))
    bench.dispatcher.go_on()
    assert len(bench.log) == 64
    assert bench.loop.runnable() == [bench.dispatcher]


def test_a_mute_dispatcher_handles_nothing_but_is_done() -> None:
    bench = Bench()
    bench.dispatcher.hold()
    bench.dispatcher.put(Event(OPENED, None))
    bench.dispatcher.mute()
    bench.dispatcher.go_on()
    bench.dispatcher.put(text("a"))
    bench.dispatcher.put(Event(CLOSE, Close(1000)))
    bench.dispatcher.put(Event(CLOSED, Close(1000)))
    bench.run()
    assert bench.log == ["last", "done"]


# -- Mailbox ---------------------------------------------------------


def mailbox(**bounds: int) -> Mailbox:
    return Mailbox(**{"max_count": 10, "max_size": 1000, **bounds})


class Receiver:
    """A thread that is, or soon will be, in `get`."""

    def __init__(self, box: Mailbox, timeout: float | None = None) -> None:
        self._outcome: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(box, timeout), daemon=True)
        self._thread.start()

    def _run(self, box: Mailbox, timeout: float | None) -> None:
        try:
            self._outcome.put(box.get(timeout))
        except BaseException as exc:
            self._outcome.put(exc)

    def result(self) -> Any:
        outcome = self._outcome.get(timeout=HANG)
        self._thread.join(HANG)
        return outcome


def test_messages_are_got_in_order() -> None:
    box = mailbox()
    events = [text("a"), Event(BINARY, b"b", False), Event(BINARY, b"c")]
    for event in events:
        box.put(event)
    assert [box.get(0) for _ in events] == events


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_nothing_comes(timeout: float) -> None:
    box = mailbox()
    with pytest.raises(TimeoutError):
        box.get(timeout)
    box.put(text("a"))
    assert box.get(timeout) == text("a")


@pytest.mark.parametrize("timeout", [None, HANG])
def test_a_blocked_receiver_gets_what_comes(timeout: float | None) -> None:
    box = mailbox()
    receiver = Receiver(box, timeout)
    box.put(text("a"))
    assert receiver.result() == text("a")


@pytest.mark.parametrize(
    "event", [Event(OPENED, None), Event(IDLE, None), Event(PING, b"x"), Event(PONG, b"x")]
)
def test_what_has_no_receiver_is_dropped(event: Event) -> None:
    box = mailbox(max_count=1)
    assert box.put(event) is False
    assert not box.busy()
    assert box.idle()
    with pytest.raises(TimeoutError):
        box.get(0)


@pytest.mark.parametrize("last", LAST, ids=["close", "error", "closed"])
def test_what_waits_is_still_got_after_the_peers_end(last: Event) -> None:
    box = mailbox()
    log: list[str] = []
    box.on_last = lambda: log.append("last")
    box.put(text("a"))
    box.put(last)
    box.put(LAST[2])
    assert box.get(0) == text("a")
    assert log == []
    for _ in range(3):
        assert box.get(0) is None
    assert log[0] == "last"


def test_every_blocked_receiver_is_woken_by_the_end() -> None:
    box = mailbox()
    receivers = [Receiver(box) for _ in range(5)]
    box.put(LAST[2])
    assert [receiver.result() for receiver in receivers] == [None] * 5
    assert Receiver(box).result() is None


def test_every_blocked_receiver_is_woken_by_close() -> None:
    box = mailbox()
    receivers = [Receiver(box) for _ in range(5)]
    box.close()
    assert [receiver.result() for receiver in receivers] == [None] * 5


def test_a_close_drops_what_waits() -> None:
    box = mailbox(max_count=2)
    rooms: list[str] = []
    box.on_room = lambda: rooms.append("room")
    box.put(text("a"))
    box.put(text("b"))
    assert box.pause()
    box.close()
    assert box.get(0) is None
    assert box.get(0) is None
    # Reading goes on, for the closing handshake.
    assert rooms == ["room"]
    box.put(text("late"))
    assert box.get(0) is None


def test_several_receivers_share_the_messages() -> None:
    box = mailbox()
    receivers = [Receiver(box) for _ in range(4)]
    for n in range(4):
        box.put(text(str(n)))
    assert sorted(receiver.result().data for receiver in receivers) == ["0", "1", "2", "3"]


def test_a_message_is_dealt_with_when_its_receiver_comes_back() -> None:
    box = mailbox()
    assert (box.busy(), box.idle()) == (False, True)
    box.put(text("a"))
    assert (box.busy(), box.idle()) == (True, False)
    box.get(0)
    assert (box.busy(), box.idle()) == (True, True)
    box.put(text("b"))
    box.get(0)
    assert box.busy()
    with pytest.raises(TimeoutError):
        box.get(0)
    assert not box.busy()


@pytest.mark.parametrize("max_count", [1, 2, 5, 10])
def test_a_mailbox_has_room_at_half_its_count(max_count: int) -> None:
    box = mailbox(max_count=max_count)
    rooms: list[int] = []
    taken = 0
    box.on_room = lambda: rooms.append(taken)
    full = [box.put(text("x")) for _ in range(max_count)]
    assert full == [False] * (max_count - 1) + [True]
    assert box.pause()
    for _ in range(max_count):
        taken += 1
        box.get(0)
    assert rooms == [max_count - max_count // 2]


def test_a_mailbox_has_room_at_half_its_size() -> None:
    box = mailbox(max_size=10)
    rooms: list[int] = []
    box.on_room = lambda: rooms.append(box._count())
    assert [box.put(Event(BINARY, b"1234")) for _ in range(3)] == [False, False, True]
    assert box.pause()
    box.get(0)
    assert rooms == []
    box.get(0)
    assert rooms == [1]


def test_the_hooks_of_a_mailbox_may_be_absent() -> None:
    box = mailbox(max_count=1)
    box.put(text("x"))
    assert box.pause()
    assert box.get(0) == text("x")
    box.put(LAST[0])
    assert box.get(0) is None
