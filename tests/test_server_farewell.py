"""Closing connections a few at a time, on a clock that the test turns."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from syncws.errors import Close
from syncws.server.farewell import Farewell


class FakeLoop:
    """What it sees of a loop."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timer: tuple[float, Callable[[], None]] | None = None

    def clock(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None], owner: Any) -> None:
        assert self.timer is None
        self.timer = when, call

    def fire(self) -> None:
        assert self.timer is not None
        (self.now, call), self.timer = self.timer, None
        call()


class FakeConnection:
    """One that notes when it is closed."""

    def __init__(self) -> None:
        self.closes: list[tuple[Close, float]] = []

    def start_close(self, close: Close, timeout: float) -> None:
        self.closes.append((close, timeout))


class FakeOpening:
    """A handshake under way, or a connection between two requests."""

    def __init__(self, begun: bool) -> None:
        self.begun = begun


class Scene:
    """A farewell to so many."""

    def __init__(
        self, count: int, *, openings: int = 0, timeout: float = 20.0, spread: float = 5.0
    ) -> None:
        self.loop = FakeLoop()
        self.connections: set[Any] = {FakeConnection() for _ in range(count)}
        self.openings: set[Any] = {FakeOpening(True) for _ in range(openings)}
        self.finished: list[float] = []
        args: Any = (self.loop, self.openings, self.connections, timeout, spread)
        self.it = Farewell(*args, self.finished.append)
        self.it.begin()

    def closed(self) -> int:
        """How many were told."""
        assert all(len(each.closes) <= 1 for each in self.connections)
        return sum(len(each.closes) for each in self.connections)


def test_a_few_are_closed_at_once() -> None:
    scene = Scene(10)
    assert scene.closed() == 10
    for connection in scene.connections:
        ((close, timeout),) = connection.closes
        assert close.code == 1001
        assert timeout == 20.0
    assert scene.finished == []  # they have not ended yet
    scene.connections.clear()
    scene.loop.fire()
    assert len(scene.finished) == 1
    assert scene.loop.timer is None


def test_many_are_spread_evenly() -> None:
    scene = Scene(5000)
    seen = [scene.closed()]
    while scene.closed() < 5000:
        scene.loop.fire()
        seen.append(scene.closed())
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert max(steps[:-2]) <= 102
    assert 104.5 < scene.loop.now <= 105.2


def test_whoever_comes_meanwhile_is_closed_as_well() -> None:
    scene = Scene(1, openings=2)
    scene.connections.clear()
    scene.loop.fire()
    assert scene.finished == []
    opening = scene.openings.pop()
    assert opening.begun
    scene.connections.add(FakeConnection())
    scene.loop.fire()
    assert scene.closed() == 1
    scene.openings.clear()
    scene.connections.clear()
    scene.loop.fire()
    assert len(scene.finished) == 1


def test_a_handshake_that_takes_too_long_is_waited_for_half_the_time() -> None:
    scene = Scene(0, openings=1)
    while not scene.finished:
        scene.loop.fire()
    assert 110.0 <= scene.loop.now < 110.2
    assert 9.8 < scene.finished[0] <= 10.0


def test_who_is_between_two_requests_is_not_waited_for() -> None:
    scene = Scene(0, openings=1)
    for opening in scene.openings:
        opening.begun = False
    scene.loop.fire()
    assert len(scene.finished) == 1


def test_a_spread_is_at_most_half_of_the_time() -> None:
    scene = Scene(1000, timeout=4.0, spread=100.0)
    while not scene.finished:
        scene.loop.fire()
    assert scene.closed() == 1000
    assert scene.loop.now < 102.2


def test_it_may_end_before() -> None:
    scene = Scene(1)
    scene.it.end()
    scene.loop.fire()
    assert scene.loop.timer is None
    assert scene.finished == []
    scene.it.on_loop_error(ValueError())
    assert scene.finished == []


def test_what_fails_ends_all_of_it() -> None:
    scene = Scene(1)
    scene.it.on_loop_error(ValueError())
    assert len(scene.finished) == 1
