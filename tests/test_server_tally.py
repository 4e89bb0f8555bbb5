"""What the stop of a listener waits for."""

from __future__ import annotations

from syncws.server.tally import Tally
from syncws.timing import Deadline
from tests.support import HANG, QUIET, Task


def test_nothing_is_waited_for_where_there_is_nothing() -> None:
    assert Tally().wait(Deadline(0.0), False)


def test_sockets_and_callbacks_are_waited_for() -> None:
    tally = Tally()
    tally.opened(2)
    tally.begun()
    assert repr(tally) == "<Tally of 2 sockets, 1 callbacks>"
    waiting = Task(tally.wait, Deadline(HANG), False)
    tally.closed(2)
    assert not tally.wait(Deadline(QUIET), False)
    tally.done()
    assert waiting.result() is True


def test_sockets_alone_can_be_waited_for() -> None:
    tally = Tally()
    tally.opened()
    tally.begun(2)
    assert not tally.wait(Deadline(QUIET), True)
    waiting = Task(tally.wait, Deadline(HANG), True)
    tally.closed()
    assert waiting.result() is True
    assert not tally.wait(Deadline(0.0), False)


def test_in_a_forked_child_all_is_forgotten_even_the_lock() -> None:
    tally = Tally()
    tally.opened()
    tally.begun()
    tally._changed.acquire()  # by a thread that is not in the child
    tally.forget()
    assert tally.wait(Deadline(0.0), False)
