"""The three pollers do the same."""

from __future__ import annotations

import math
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from syncws import native
from syncws.engine import poller as poller_module
from syncws.engine.poller import (
    READ,
    WRITE,
    EpollPoller,
    FastEpollPoller,
    Poller,
    SelectorPoller,
    make_poller,
)
from tests.scripted import EPOLL_IN_C, POLLERS
from tests.support import Task

FAST = pytest.mark.skipif(not EPOLL_IN_C, reason="the C extension is not in use")

MakePair = Callable[[], tuple[socket.socket, socket.socket]]


@pytest.fixture(params=POLLERS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made = POLLERS[request.param]()
    yield made
    made.close()


@pytest.fixture
def make() -> Iterator[MakePair]:
    """Makes pairs of sockets: ours, to be waited for, and the peer's."""
    made: list[socket.socket] = []

    def make_pair() -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair()
        for sock in pair:
            sock.setblocking(False)
        made.extend(pair)
        return pair

    yield make_pair
    for sock in made:
        sock.close()


def fill(sock: socket.socket) -> None:
    """Write until the socket takes nothing more."""
    while True:
        try:
            sock.send(bytes(65_536))
        except BlockingIOError:
            return


def empty(sock: socket.socket) -> None:
    """Read all there is."""
    while True:
        try:
            sock.recv(1 << 20)
        except BlockingIOError:
            return


def ready(poller: Poller) -> dict[Any, int]:
    """Return what is ready now, each owner once."""
    found = poller.poll(0)
    assert len(dict(found)) == len(found)
    return dict(found)


# -- What is ready ---------------------------------------------------


def test_nothing_is_ready(poller: Poller, make: MakePair) -> None:
    assert poller.poll(0) == []
    ours, _ = make()
    poller.register(ours, READ, "owner")
    assert poller.poll(0) == []


def test_what_can_be_read(poller: Poller, make: MakePair) -> None:
    ours, peer = make()
    poller.register(ours, READ, "owner")
    for _ in range(3):
        peer.send(b"x")
        assert poller.poll(0) == [("owner", READ)]
        assert poller.poll(None) == [("owner", READ)]  # as long as it is not read
        ours.recv(10)
        assert poller.poll(0) == []


def test_what_can_be_written(poller: Poller, make: MakePair) -> None:
    ours, peer = make()
    poller.register(ours, WRITE, "owner")
    assert poller.poll(None) == [("owner", WRITE)]
    fill(ours)
    assert poller.poll(0) == []
    peer.send(b"nobody waits for that")
    assert poller.poll(0) == []
    empty(peer)
    assert poller.poll(0) == [("owner", WRITE)]


def test_both(poller: Poller, make: MakePair) -> None:
    ours, peer = make()
    poller.register(ours, READ | WRITE, "owner")
    assert poller.poll(0) == [("owner", WRITE)]
    peer.send(b"x")
    assert poller.poll(0) == [("owner", READ | WRITE)]
    fill(ours)
    assert poller.poll(0) == [("owner", READ)]


def test_modify_changes_the_mask_and_the_owner(poller: Poller, make: MakePair) -> None:
    ours, peer = make()
    peer.send(b"x")
    poller.register(ours, READ, "first")
    poller.modify(ours, WRITE, "second")
    assert poller.poll(0) == [("second", WRITE)]
    poller.modify(ours, READ | WRITE, "third")
    assert poller.poll(0) == [("third", READ | WRITE)]
    poller.modify(ours, READ, "fourth")
    assert poller.poll(0) == [("fourth", READ)]


def test_everything_that_is_ready_is_told_at_once(poller: Poller, make: MakePair) -> None:
    pairs = [make() for _ in range(40)]
    for number, (ours, _) in enumerate(pairs):
        poller.register(ours, READ if number % 4 else READ | WRITE, number)
    for number, (_, peer) in enumerate(pairs):
        if number % 2:
            peer.send(b"x")
    expected = {number: READ for number in range(40) if number % 2}
    expected |= dict.fromkeys(range(0, 40, 4), WRITE)
    assert ready(poller) == expected
    assert len(poller.poll(None)) == 30


def test_more_is_ready_than_one_round_tells_of(poller: Poller, make: MakePair) -> None:
    ours, peer = make()
    peer.send(b"x")
    copies = [ours.dup() for _ in range(1100)]
    try:
        for number, copy in enumerate(copies):
            poller.register(copy, READ, number)
        told: set[int] = set()
        for _ in range(2):
            for number in ready(poller):
                told.add(number)
                poller.unregister(copies[number])
        assert told == set(range(1100))
        assert poller.poll(0) == []
    finally:
        for copy in copies:
            copy.close()


def test_whatever_has_a_descriptor(poller: Poller) -> None:
    class Pipe:
        def __init__(self, number: int) -> None:
            self._number = number

        def fileno(self) -> int:
            return self._number

    reader, writer = os.pipe()
    try:
        poller.register(Pipe(reader), READ, "pipe")
        os.write(writer, b"x")
        assert poller.poll(0) == [("pipe", READ)]
        poller.unregister(Pipe(reader))
        assert poller.poll(0) == []
    finally:
        os.close(reader)
        os.close(writer)


# -- The peer's end --------------------------------------------------


@pytest.mark.parametrize("mask", [READ, WRITE, READ | WRITE])
def test_a_hang_up_is_told_to_who_waits_for_either(
    poller: Poller, make: MakePair, mask: int
) -> None:
    ours, peer = make()
    fill(ours)
    poller.register(ours, mask, "owner")
    assert poller.poll(0) == []
    peer.close()
    assert poller.poll(0) == [("owner", mask)]
    assert poller.poll(None) == [("owner", mask)]


@pytest.mark.parametrize("mask", [READ, WRITE, READ | WRITE])
def test_an_error_is_told_to_who_waits_for_either(
    poller: Poller, make: MakePair, mask: int
) -> None:
    reader, writer = os.pipe()
    with open(writer, "wb", buffering=0) as end:
        os.close(reader)  # EPOLLERR, and nothing else, for a reader
        poller.register(end, mask, "owner")
        ((owner, got),) = poller.poll(0)
        assert owner == "owner"
        assert got == mask
        poller.unregister(end)


def test_the_end_of_what_the_peer_writes_can_be_read(poller: Poller, make: MakePair) -> None:
    ours, peer = make()
    fill(ours)
    poller.register(ours, READ | WRITE, "owner")
    peer.shutdown(socket.SHUT_WR)
    assert poller.poll(0) == [("owner", READ)]


# -- Forgetting ------------------------------------------------------


def test_what_is_unregistered_is_told_no_more(poller: Poller, make: MakePair) -> None:
    ours, peer = make()
    other, other_peer = make()
    for sock, name in ((ours, "ours"), (other, "other")):
        poller.register(sock, READ, name)
    for sock in (peer, other_peer):
        sock.send(b"x")
    poller.unregister(ours)
    assert poller.poll(0) == [("other", READ)]
    poller.register(ours, READ, "again")
    assert ready(poller) == {"other": READ, "again": READ}


def test_what_is_not_known_can_be_unregistered(poller: Poller, make: MakePair) -> None:
    ours, peer = make()
    poller.unregister(ours)
    poller.register(ours, READ, "owner")
    poller.unregister(ours)
    poller.unregister(ours)
    peer.send(b"x")
    assert poller.poll(0) == []


def test_what_is_closed_can_be_unregistered(poller: Poller, make: MakePair) -> None:
    ours, peer = make()
    never, _ = make()
    never.close()
    poller.unregister(never)
    poller.register(ours, READ, "owner")
    peer.send(b"x")
    ours.close()
    poller.unregister(ours)
    assert poller.poll(0) == []


def test_a_descriptor_that_was_closed_meanwhile_can_be_unregistered(
    poller: Poller, make: MakePair
) -> None:
    # As if another library had closed it: its number is known, and leads nowhere.
    ours, peer = make()
    poller.register(ours, READ, "owner")
    peer.send(b"x")
    os.close(ours.fileno())
    poller.unregister(ours)
    ours.detach()
    assert poller.poll(0) == []


def test_a_descriptor_may_be_another_socket_the_next_time(poller: Poller, make: MakePair) -> None:
    first, _ = make()
    number = first.fileno()
    poller.register(first, READ | WRITE, "first")
    poller.unregister(first)
    second, peer = make()
    first.close()
    third = socket.socket(fileno=os.dup2(second.fileno(), number))
    with third:
        poller.register(third, READ, "third")
        assert poller.poll(0) == []
        peer.send(b"x")
        assert poller.poll(0) == [("third", READ)]
        poller.unregister(third)


def test_owners_are_not_kept(poller: Poller, make: MakePair) -> None:
    class Owner:
        gone = 0

        def __del__(self) -> None:
            Owner.gone += 1

    ours, peer = make()
    peer.send(b"x")
    poller.register(ours, READ, Owner())
    poller.modify(ours, READ | WRITE, Owner())
    assert Owner.gone == 1
    for _ in range(3):
        assert len(poller.poll(0)) == 1
    poller.unregister(ours)
    assert Owner.gone == 2


def test_closing_forgets_everything(poller: Poller, make: MakePair) -> None:
    ours, _ = make()
    poller.register(ours, WRITE, "owner")
    poller.close()
    poller.close()
    with pytest.raises((ValueError, OSError, RuntimeError, AttributeError)):
        poller.register(ours, WRITE, "owner")
    assert ours.send(b"x") == 1  # it is not the poller's to close


# -- Waiting ---------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 3600.0])
def test_a_wait_ends_when_something_is_ready(
    poller: Poller, make: MakePair, timeout: float | None
) -> None:
    ours, peer = make()
    poller.register(ours, READ, "owner")
    waiting = Task(poller.poll, timeout)
    peer.send(b"x")
    assert waiting.result() == [("owner", READ)]


@pytest.mark.parametrize("timeout", [0.0001, 0.001, 0.0205])
def test_a_wait_is_not_shorter_than_it_should_be(
    poller: Poller, make: MakePair, timeout: float
) -> None:
    # Else a round before a timer is due would be made over and over.
    ours, _ = make()
    poller.register(ours, READ, "owner")
    before = time.monotonic()
    assert poller.poll(timeout) == []
    assert time.monotonic() - before >= timeout


@FAST
@pytest.mark.parametrize(
    ("timeout", "expected"), [(None, -1), (0, 0), (0.0001, 1), (1.0, 1000), (3600.0, 3_600_000)]
)
def test_timeouts_in_milliseconds_are_rounded_up(
    monkeypatch: pytest.MonkeyPatch, timeout: float | None, expected: int
) -> None:
    asked: list[int] = []

    class Extension:
        @staticmethod
        def epoll_wait(fd: int, milliseconds: int, owners: Any) -> list[Any]:
            asked.append(milliseconds)
            return []

    poller = FastEpollPoller()
    monkeypatch.setattr(poller_module, "_extension", Extension)
    assert poller.poll(timeout) == []
    poller.close()
    assert asked == [expected]
    assert timeout is None or expected == math.ceil(timeout * 1000)


# -- The choice ------------------------------------------------------


def test_the_best_that_there_is() -> None:
    poller = make_poller()
    poller.close()
    if EPOLL_IN_C:
        assert type(poller) is FastEpollPoller
    elif hasattr(select, "epoll"):
        assert type(poller) is EpollPoller
    else:
        assert type(poller) is SelectorPoller


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "extension", None)
    poller = make_poller()
    poller.close()
    assert type(poller) is (EpollPoller if hasattr(select, "epoll") else SelectorPoller)


def test_without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "extension", object())
    monkeypatch.delattr(select, "epoll", raising=False)
    poller = make_poller()
    poller.close()
    assert type(poller) is SelectorPoller


# -- The extension by itself -----------------------------------------


@FAST
def test_wrong_arguments_are_refused(make: MakePair) -> None:
    wait: Any = native.extension and native.extension.epoll_wait
    epoll = select.epoll()
    ours, _ = make()
    epoll.register(ours, select.EPOLLOUT)
    good: tuple[Any, ...] = (epoll.fileno(), 0, {})
    assert wait(*good) == []
    with epoll:
        wrong: list[tuple[Any, ...]] = [(), good[:2], (*good, None)]
        wrong += [("1", 0, {}), (None, 0, {}), (1, None, {})]
        for args in wrong:
            with pytest.raises(TypeError):
                wait(*args)
        with pytest.raises(OSError):
            wait(-1, 0, {})
        with pytest.raises(OSError):
            wait(ours.fileno(), 0, {})
        number = ours.fileno()
        none: list[Any] = [None, [], {number: None}, {number: ()}, {number: ("owner", None)}]
        for owners in none:
            with pytest.raises((TypeError, SystemError, IndexError)):
                wait(epoll.fileno(), 0, owners)
        assert wait(epoll.fileno(), 0, {number: ("owner", WRITE)}) == [("owner", WRITE)]
