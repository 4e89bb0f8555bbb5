"""Inboxes between the I/O thread and who takes from them, in every order of one or two switches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from syncws.engine.dispatch import CLOSED, Dispatcher, Mailbox
from syncws.errors import Close
from syncws.protocol.events import CLOSE, TEXT, Event
from tests.races.stepping import Walker, needs_instructions

STEPPED = True

Exploring = Callable[..., int]


class Desk:
    """Where a dispatcher's work is queued: by the I/O thread, and by workers for another turn."""

    def __init__(self) -> None:
        self.ready: list[Any] = []
        self.queue: deque[Any] = deque()
        self.pool = self

    def serve(self) -> None:
        """Do what a worker does, until there is nothing to do."""
        while self.ready or self.queue:
            self.queue.extend(self.ready)
            self.ready.clear()
            self.queue.popleft().run()


class Callbacks:
    """A dispatcher, with an I/O thread and a worker that the test steps."""

    def __init__(self, waiting: int, coming: int, *, held: bool = False, bound: int = 4) -> None:
        self.desk = Desk()
        self.handled: list[Any] = []
        self.inside = threading.Lock()
        self.resumed = 0
        self.done = 0
        self.reading = True
        desk: Any = self.desk
        self.dispatcher = Dispatcher(
            self._handle, desk, max_count=bound, max_size=1000, on_done=self._on_done
        )
        self.dispatcher.on_room = self._resume
        self.sent = 0
        self.coming = coming
        self.held = held
        if held:
            self.dispatcher.hold()
        for _ in range(waiting):
            self._put()

    def _handle(self, event: Event) -> None:
        assert self.inside.acquire(False), "two callbacks at once"
        self.handled.append(event.data)
        self.inside.release()

    def _on_done(self) -> None:
        self.done += 1

    def _resume(self) -> None:
        self.resumed += 1

    def _put(self) -> None:
        if self.dispatcher.put(Event(TEXT, str(self.sent))) and self.dispatcher.pause():
            self.reading = False
        self.sent += 1

    def first(self) -> None:
        """The I/O thread: deliver, and pause where there is no room."""
        for _ in range(self.coming):
            if self.reading:
                self._put()

    def second(self) -> None:
        """A worker."""
        if self.held:
            self.dispatcher.go_on()
        self.desk.serve()

    def check(self, first: Walker, second: Walker) -> None:
        first.result()
        second.result()
        self.desk.serve()
        self.dispatcher.put(Event(CLOSED, Close(1006)))
        self.desk.serve()
        assert self.handled[:-1] == [str(number) for number in range(self.sent)]
        assert self.done == 1
        assert not self.dispatcher.busy()
        # Reading that was paused goes on, for nobody would ask again.
        assert self.reading or self.resumed
        assert self.dispatcher._added == self.dispatcher._taken

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("waiting", "coming", "bound"),
    [(0, 1, 4), (1, 1, 4), (1, 2, 4), (3, 1, 4), (3, 2, 4), (0, 2, 1)],
)
def test_put_against_run(waiting: int, coming: int, bound: int, exploring: Exploring) -> None:
    tried = exploring(lambda: Callbacks(waiting, coming, bound=bound), switches=2)
    assert tried > 40


@pytest.mark.parametrize("waiting", [0, 1])
def test_put_against_go_on(waiting: int, exploring: Exploring) -> None:
    """An upgrade resource returns while messages come."""
    assert exploring(lambda: Callbacks(waiting, 2, held=True), switches=2) > 100


@needs_instructions
def test_put_against_run_by_instruction(exploring: Exploring) -> None:
    assert exploring(lambda: Callbacks(3, 1), by_instruction=True) > 30
    assert exploring(lambda: Callbacks(0, 1), by_instruction=True) > 20


class Turns(Callbacks):
    """More than a turn of a worker handles."""

    def __init__(self) -> None:
        super().__init__(64, 1, bound=1000)


def test_put_against_the_end_of_a_turn(exploring: Exploring) -> None:
    assert exploring(Turns, both=False) > 3
    assert exploring(Turns) > 100


# -- A mailbox ---------------------------------------------------------------


class Receiving:
    """A mailbox and receivers in two threads, or one and the I/O thread."""

    def __init__(
        self,
        first: Callable[[Receiving], Any],
        second: Callable[[Receiving], Any],
        *,
        waiting: int = 0,
        bound: int = 4,
        ends: bool = True,
    ) -> None:
        self.mailbox = Mailbox(max_count=bound, max_size=1000)
        self.mailbox.on_room = self._resume
        self.mailbox.on_last = self._conclude
        self._operations = first, second
        self.sent: list[str] = []
        self.got: list[str] = []
        self.ended = 0
        self.concluded = 0
        self.resumed = 0
        self.reading = True
        self._ends = ends
        for _ in range(waiting):
            self.put()

    def _resume(self) -> None:
        self.resumed += 1

    def _conclude(self) -> None:
        self.concluded += 1

    def first(self) -> None:
        self._operations[0](self)

    def second(self) -> None:
        self._operations[1](self)

    def put(self) -> None:
        text = str(len(self.sent))
        self.sent.append(text)
        if self.mailbox.put(Event(TEXT, text)) and self.mailbox.pause():
            self.reading = False

    def get(self) -> None:
        event = self.mailbox.get(None)
        if event is None:
            self.ended += 1
        else:
            self.got.append(event.data)

    def get_twice(self) -> None:
        self.get()
        self.get()

    def end(self) -> None:
        """The peer has closed."""
        self.mailbox.put(Event(CLOSE, Close(1000)))

    def close_it(self) -> None:
        """This end closes."""
        self.mailbox.close()

    def unblock(self) -> None:
        self.end()

    def check(self, first: Walker, second: Walker) -> None:
        first.result()
        second.result()
        # One thread takes in order, and two do not take the same.
        assert len(set(self.got)) == len(self.got)
        if not self.mailbox._closed:
            for _ in range(len(self.sent) - len(self.got)):
                self.get()
            self.end()
            self.get()
            assert sorted(self.got, key=int) == self.sent
            assert self.mailbox._added == self.mailbox._taken
            assert self.reading or self.resumed
        else:
            self.get()
        assert self.ended
        assert self.concluded

    def close(self) -> None:
        pass


RECEIVING: dict[str, tuple[Callable[[Receiving], Any], Callable[[Receiving], Any], int, int]] = {
    "get / put": (Receiving.get, Receiving.put, 0, 4),
    "get / put, full": (Receiving.get_twice, Receiving.put, 3, 4),
    "get / put, bound of one": (Receiving.get_twice, Receiving.put, 0, 1),
    "get / get": (Receiving.get, Receiving.get, 1, 4),
    "get / get, enough": (Receiving.get_twice, Receiving.get_twice, 4, 4),
    "get / get, none": (Receiving.get, Receiving.get, 0, 4),
    "get / close": (Receiving.get, Receiving.close_it, 0, 4),
    "get / close, one waits": (Receiving.get_twice, Receiving.close_it, 1, 4),
    "get / the peer's close": (Receiving.get_twice, Receiving.end, 1, 4),
    "close / the peer's close": (Receiving.close_it, Receiving.end, 1, 4),
    "close / put": (Receiving.close_it, Receiving.put, 1, 4),
}


@pytest.mark.parametrize("pair", RECEIVING)
def test_receivers(pair: str, exploring: Exploring) -> None:
    first, second, waiting, bound = RECEIVING[pair]
    tried = exploring(lambda: Receiving(first, second, waiting=waiting, bound=bound), switches=2)
    assert tried > 10


@needs_instructions
@pytest.mark.parametrize("pair", ["get / put, full", "get / get, enough"])
def test_receivers_by_instruction(pair: str, exploring: Exploring) -> None:
    first, second, waiting, bound = RECEIVING[pair]
    tried = exploring(
        lambda: Receiving(first, second, waiting=waiting, bound=bound), by_instruction=True
    )
    assert tried > 30
