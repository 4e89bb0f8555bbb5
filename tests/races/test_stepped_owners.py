"""Groups, engines, listeners, routes and resources: operations of several threads, stepped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import syncws
from syncws.callbacks import ServiceSpec
from syncws.endpoint import Endpoint
from syncws.engine import engine as engine_module
from syncws.engine.engine import Engine
from syncws.engine.lane import Lane
from syncws.engine.state import State
from syncws.server.routing import Router
from syncws.server.tally import Tally
from syncws.timing import Deadline
from tests.races.stepping import Walker
from tests.races.wire import Wire
from tests.support import HANG, Gate, RawPeer, Recorder, Task

STEPPED = True

Exploring = Callable[..., int]


# -- Groups ------------------------------------------------------------------


class Member(Wire):
    """A group, and a connection that joins, leaves and ends."""

    def __init__(
        self,
        first: Callable[[Member], Any],
        second: Callable[[Member], Any],
        *,
        joined: bool = False,
    ) -> None:
        super().__init__(first, second)  # type: ignore[arg-type]
        self.endpoint = Endpoint(self.connection, None, ("", ""))
        self.group = syncws.Group()
        if joined:
            self.group.add(self.endpoint)

    def add(self) -> None:
        self.group.add(self.endpoint)

    def discard(self) -> None:
        self.group.discard(self.endpoint)

    def add_again(self) -> None:
        self.discard()
        self.add()

    def broadcast(self) -> None:
        (self.taken if self.group.send_text("all") else self.refused).append("all")

    def finish(self) -> None:
        self.connection.abort()

    def check_inbox(self) -> None:
        super().check_inbox()
        # It leaves by itself, whatever went before; and nothing holds the group.
        assert self.endpoint not in self.group
        assert not self.connection._farewells

    def check(self, first: Walker, second: Walker) -> None:
        if self.connection.state is not State.CLOSED:
            told = self.connection._farewells or {}
            assert len(told) == len(self.group), "it does not leave, or the group is kept"
        super().check(first, second)


GROUPS: dict[str, tuple[Callable[[Member], Any], Callable[[Member], Any], bool]] = {
    "add / end": (Member.add, Member.finish, False),
    "add / discard": (Member.add, Member.discard, False),
    "add / add": (Member.add, Member.add, False),
    "discard / add": (Member.discard, Member.add, True),
    "discard / discard and add": (Member.discard, Member.add_again, True),
    "discard / end": (Member.discard, Member.finish, True),
    "send / end": (Member.broadcast, Member.finish, True),
    "send / discard": (Member.broadcast, Member.discard, True),
    "send / close": (Member.broadcast, Wire.start_close, True),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("pair", GROUPS)
def test_groups(pair: str, exploring: Exploring) -> None:
    first, second, joined = GROUPS[pair]
    tried = exploring(
        lambda: Member(first, second, joined=joined), among=("group.py", "connection.py")
    )
    tried += exploring(
        lambda: Member(first, second, joined=joined), switches=2, among=("group.py",)
    )
    assert tried > 30


# -- Engines -----------------------------------------------------------------


class _Thread:
    def __init__(self) -> None:
        self.stops = 0

    def is_alive(self) -> bool:
        return not self.stops


class _Loop:
    def __init__(self) -> None:
        self.thread = _Thread()

    def stop(self) -> None:
        self.thread.stops += 1


class Runtime:
    """Threads that there are not."""

    made: list[Runtime] = []

    def __init__(self, *args: object) -> None:
        self.loop = _Loop()
        self.joins = 0
        self.made.append(self)

    def is_alive(self) -> bool:
        return self.loop.thread.is_alive()

    def join(self, deadline: Deadline) -> bool:
        self.joins += 1
        return True


class Users:
    """An engine, and two who come and go."""

    def __init__(
        self, first: Callable[[Users], Any], second: Callable[[Users], Any], loops: int
    ) -> None:
        Runtime.made.clear()
        self.engine = Engine(name="stepped")
        self._operations = first, second
        self.loops: list[Any] = [self.engine.acquire() for _ in range(loops)]

    def acquire(self) -> None:
        loop = self.engine.acquire()
        assert loop.thread.is_alive(), "its threads end already"
        self.loops.append(loop)

    def release(self) -> None:
        self.engine.release(self.loops.pop())

    def come_and_go(self) -> None:
        loop = self.engine.acquire()
        assert loop.thread.is_alive()
        self.engine.release(loop)

    def reap(self) -> None:
        self.engine.reap()

    def release_and_reap(self) -> None:
        self.release()
        self.reap()

    def first(self) -> None:
        self._operations[0](self)

    def second(self) -> None:
        self._operations[1](self)

    def check(self, first: Walker, second: Walker) -> None:
        first.result()
        second.result()
        assert all(loop.thread.is_alive() for loop in self.loops)
        assert self.engine._users == len(self.loops)
        for loop in self.loops:
            self.engine.release(loop)
        self.engine.reap()
        assert self.engine._runtime is None
        assert [one.loop.thread.stops for one in Runtime.made] == [1] * len(Runtime.made)
        assert all(one.joins <= 1 for one in Runtime.made)

    def close(self) -> None:
        pass


ENGINES: dict[str, tuple[Callable[[Users], Any], Callable[[Users], Any], int]] = {
    "acquire / acquire": (Users.acquire, Users.acquire, 0),
    "acquire / release": (Users.acquire, Users.release, 1),
    "release / release": (Users.release, Users.release, 2),
    "release / come and go": (Users.release, Users.come_and_go, 1),
    "come and go / come and go": (Users.come_and_go, Users.come_and_go, 0),
    "release / reap": (Users.release, Users.reap, 1),
    "acquire / release and reap": (Users.acquire, Users.release_and_reap, 1),
}


@pytest.mark.parametrize("pair", ENGINES)
def test_engines(pair: str, exploring: Exploring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_Runtime", Runtime)
    first, second, loops = ENGINES[pair]
    tried = exploring(lambda: Users(first, second, loops), switches=2, among=("engine.py",))
    assert tried > 40


# -- Lanes -------------------------------------------------------------------


class Calls:
    """A lane one call wide, and two workers or one and the I/O thread."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.ready: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        loop: Any = self
        self.lane = Lane(loop, 1)
        self.made: list[int] = []
        self.inside = 0
        self.lane.submit(self._make, 0)
        self.lane.submit(self._make, 1)

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def call_in_worker(self, call: Callable[..., None], *args: Any) -> None:
        self.ready.append((call, args))

    def _make(self, number: int) -> None:
        self.inside += 1
        assert self.inside == 1
        self.made.append(number)
        self.inside -= 1

    def first(self) -> None:
        """A worker."""
        while self.ready:
            call, args = self.ready.pop(0)
            call(*args)

    def second(self) -> None:
        """The I/O thread."""
        self.lane.submit(self._make, 2)
        while self.soon:
            self.soon.pop(0)()

    def check(self, first: Walker, second: Walker) -> None:
        first.result()
        second.result()
        while self.soon or self.ready:
            self.second_part()
        assert self.made == [0, 1, 2]
        assert self.lane._busy == 0

    def second_part(self) -> None:
        while self.soon:
            self.soon.pop(0)()
        self.first()

    def close(self) -> None:
        pass


def test_lanes(exploring: Exploring) -> None:
    assert exploring(Calls, switches=2) > 30


# -- What a stop waits for ---------------------------------------------------


class Stopping:
    """A stop that waits, and what it waits for."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.tally.opened()
        self.tally.begun(2)

    def first(self) -> bool:
        return self.tally.wait(Deadline(None), False)

    def second(self) -> None:
        self.tally.done()
        self.tally.closed()
        self.tally.done()

    def check(self, first: Walker, second: Walker) -> None:
        assert first.result()
        second.result()

    def close(self) -> None:
        pass


def test_a_stop_against_the_last_that_it_waits_for(exploring: Exploring) -> None:
    assert exploring(Stopping, switches=2) > 30


# -- Routes ------------------------------------------------------------------


class Routes:
    """Paths that come and go while they are looked up."""

    def __init__(self, first: Callable[[Routes], Any], second: Callable[[Routes], Any]) -> None:
        self.router = Router()
        self.spec = ServiceSpec(Recorder(), client=False)
        self.router.attach("/a/{name}", self.spec)
        self._operations = first, second
        self.refusals = 0

    def attach(self) -> None:
        self._try(lambda: self.router.attach("/a/b", self.spec))

    def attach_another(self) -> None:
        self.router.attach("/c", self.spec)

    def detach(self) -> None:
        self._try(lambda: self.router.detach("/a/{name}"))

    def match(self) -> None:
        route = self.router.match("/a/b")
        assert route is None or (route.path, dict(route.params)) in [
            ("/a/{name}", {"name": "b"}),
            ("/a/b", {}),
        ]

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except ValueError:
            self.refusals += 1

    def first(self) -> None:
        self._operations[0](self)

    def second(self) -> None:
        self._operations[1](self)

    def check(self, first: Walker, second: Walker) -> None:
        first.result()
        second.result()
        operations = list(self._operations)
        assert self.refusals == len(operations) - len(set(operations))
        if Routes.attach_another in operations:
            assert self.router.match("/c") is not None
        if Routes.detach in operations:
            assert self.router.match("/a/x") is None
        if Routes.attach in operations:
            assert self.router.match("/a/b") is not None

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Routes.attach, Routes.attach),
        (Routes.attach, Routes.attach_another),
        (Routes.attach, Routes.detach),
        (Routes.detach, Routes.detach),
        (Routes.attach, Routes.match),
        (Routes.detach, Routes.match),
    ],
)
def test_routes(
    first: Callable[[Routes], Any], second: Callable[[Routes], Any], exploring: Exploring
) -> None:
    assert exploring(lambda: Routes(first, second)) > 10


# -- Listeners ---------------------------------------------------------------


class Slow(threading.Condition):
    """Those who wait are slow to go on."""

    def __init__(self, lock: threading.Lock, gate: Gate) -> None:
        super().__init__(lock)
        self._gate = gate
        self.waiting = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting.set()
        got = super().wait(timeout)
        self.release()
        self._gate.block()
        self.acquire()
        return got


def test_a_stop_that_waited_for_another_leaves_a_new_start_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = syncws.Listener(0)
    close = listener._reception.wind_up
    with Gate() as closing, Gate() as woken:

        def late(*args: Any) -> None:
            closing.block()
            close(*args)

        listener._changed = slow = Slow(listener._lock, woken)
        monkeypatch.setattr(listener._reception, "wind_up", late)
        listener.start()
        first = Task(listener.stop)
        closing.reached()
        second = Task(listener.stop, 0.5)
        assert slow.waiting.wait(HANG)
        closing.open()
        woken.reached()
        first.result()
        listener.start()
        try:
            woken.open()
            second.result()
            RawPeer.dial(listener).abort()  # it still listens
        finally:
            listener.stop()
