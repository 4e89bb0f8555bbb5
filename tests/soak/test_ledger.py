"""The book of the soak finds what is wrong, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

import syncws

from .ledger import LOST, Book, End, Inflow, judge, slices
from .message import Kind, pack


class Wire:
    """What one end sends, as it would arrive."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self._parts: list[Any] = []

    def send_text(self, text: str, final: bool = True) -> None:
        self._add(text, final, "")

    def send_binary(self, data: bytes, final: bool = True) -> None:
        self._add(data, final, b"")

    def _add(self, part: Any, final: bool, glue: Any) -> None:
        self._parts.append(part)
        if final:
            self.messages.append(glue.join(self._parts))
            self._parts.clear()


class Broken(Wire):
    """A connection that ends."""

    def __init__(self, maybe_sent: bool) -> None:
        super().__init__()
        self._maybe_sent = maybe_sent

    def _add(self, part: Any, final: bool, glue: Any) -> None:
        error = syncws.ConnectionClosed()
        error.maybe_sent = self._maybe_sent
        raise error


Fault = Callable[[list[Any]], list[Any]]


class Pair:
    """Both ends of a connection that has ended in order, drained."""

    def __init__(self) -> None:
        self.server, self.client = End(3, "echo"), End(3, "echo")
        self.client.plan, self.client.expected = "drained", 1000
        self.server.code = self.client.code = 1000
        self.client.closed = self.client.drained = True

    def send(self, count: int, *, to_server: bool, fault: Fault = list) -> None:
        """Send messages one way, which come out as `fault` has it."""
        sender, receiver = self.client, self.server
        if not to_server:
            sender, receiver = receiver, sender
        wire = Wire()
        for number in range(count):
            assert sender.send(wire, Kind.ECHO, f"message {number}")
        for message in fault(wire.messages):
            receiver.take(message)

    def cast(self, numbers: Iterable[int]) -> None:
        """Have broadcasts arrive."""
        for number in numbers:
            self.client.take(pack(Kind.BROADCAST, 0, number, 0.0, b"to all"))

    def end(self, plan: str, *, server: int = 1000, client: int = 1000, by: str = "client") -> None:
        """End it in another way."""
        self.client.plan = plan
        self.server.code, self.client.code = server, client
        self.client.drained = False
        self.client.closed, self.server.closed = by == "client", by == "server"

    def found(self) -> dict[str, int]:
        """Judge."""
        findings = judge(self.server.record(), self.client.record())
        return {finding.kind: finding.count for finding in findings}


BOTH_WAYS = pytest.mark.parametrize("to_server", [True, False])


@pytest.fixture
def pair() -> Pair:
    return Pair()


# -- What is wrong while messages come ---------------------------------------


def test_consecutive_numbers_are_right() -> None:
    flow = Inflow()
    for number in range(5):
        flow.take(number)
    assert (flow.received, flow.lost, flow.duplicated, flow.reordered) == (5, 0, 0, 0)


@pytest.mark.parametrize(
    ("numbers", "lost", "duplicated", "reordered"),
    [
        ((0, 1, 3), 1, 0, 0),
        ((2,), 2, 0, 0),
        ((0, 0, 1), 0, 1, 0),
        ((0, 1, 2, 0, 1), 0, 2, 0),
        ((1, 0, 2), 0, 0, 1),
        ((0, 2, 1, 1), 0, 1, 1),
        ((0, 5, 1, 2), 2, 0, 2),
        ((0, 50_000), 49_999, 0, 0),
    ],
)
def test_other_numbers_are_not(
    numbers: tuple[int, ...], lost: int, duplicated: int, reordered: int
) -> None:
    flow = Inflow()
    for number in numbers:
        flow.take(number)
    assert (flow.lost, flow.duplicated, flow.reordered) == (lost, duplicated, reordered)


def test_an_empty_message_has_a_number() -> None:
    sender, receiver, wire = End(1), End(1), Wire()
    sender.send(wire, Kind.ECHO, b"one")
    sender.send_empty(wire, text=True)
    sender.send_empty(wire, text=False)
    sender.send(wire, Kind.ECHO, b"four")
    for message in wire.messages:
        receiver.take(message)
    assert (receiver.inflow.next, receiver.inflow.lost) == (4, 0)


@pytest.mark.parametrize(
    "fault", [lambda all: [all[0], *all[2:]], lambda all: [*all[:2], *all[1:]]]
)
def test_an_empty_message_is_missed(fault: Fault) -> None:
    sender, receiver, wire = End(1), End(1), Wire()
    sender.send(wire, Kind.ECHO, b"one")
    sender.send_empty(wire, text=True)
    sender.send(wire, Kind.ECHO, b"three")
    for message in fault(wire.messages):
        receiver.take(message)
    assert receiver.inflow.lost + receiver.inflow.duplicated == 1


# -- What is wrong in the end ------------------------------------------------


@BOTH_WAYS
def test_all_is_well(pair: Pair, to_server: bool) -> None:
    pair.send(20, to_server=to_server)
    assert pair.found() == {}


@BOTH_WAYS
@pytest.mark.parametrize(
    ("fault", "kind", "count"),
    [
        (lambda all: all[:5] + all[6:], "lost", 1),
        (lambda all: all[:-3], "lost", 3),
        (lambda all: [], "lost", 20),
        (lambda all: all[:5] + all[4:], "duplicated", 1),
        (lambda all: all + all[-1:], "duplicated", 1),
        (lambda all: [all[1], all[0], *all[2:]], "reordered", 1),
        (lambda all: [*all[:3], all[3] + "!", *all[4:]], "corrupt", 1),
    ],
)
def test_a_fault_is_found(pair: Pair, to_server: bool, fault: Fault, kind: str, count: int) -> None:
    pair.send(20, to_server=to_server, fault=fault)
    assert pair.found() == {kind: count}


def test_another_connections_message_is_found(pair: Pair) -> None:
    pair.client.take(pack(Kind.REPLY, 4, 0, 0.0, b"for another"))
    assert pair.found() == {"corrupt": 1}


def test_more_than_was_sent_is_found(pair: Pair) -> None:
    pair.client.take(pack(Kind.REPLY, 3, 0, 0.0, b"from nowhere"))
    assert pair.found() == {"duplicated": 1}


@BOTH_WAYS
@pytest.mark.parametrize(("by", "missed_by_server"), [("client", True), ("server", False)])
def test_who_has_closed_may_miss_what_comes_then(
    pair: Pair, by: str, missed_by_server: bool, to_server: bool
) -> None:
    pair.end("close" if by == "client" else "server close", by=by)
    pair.send(20, to_server=to_server, fault=lambda all: all[:-2])
    assert pair.found() == ({"lost": 2} if to_server is missed_by_server else {})


@BOTH_WAYS
def test_a_lost_connection_may_lose_its_last_messages(pair: Pair, to_server: bool) -> None:
    pair.end("abort", server=LOST, client=LOST)
    pair.send(20, to_server=to_server, fault=lambda all: all[:-2])
    assert pair.found() == {}


@BOTH_WAYS
def test_a_lost_connection_has_no_gaps(pair: Pair, to_server: bool) -> None:
    pair.end("abort", server=LOST, client=LOST)
    pair.send(20, to_server=to_server, fault=lambda all: all[:5] + all[6:-2])
    assert pair.found() == {"lost": 1}


def test_a_sender_that_was_told_nothing_is_found(pair: Pair) -> None:
    pair.end("cut", server=LOST, client=LOST, by="client")
    pair.client.code = None
    pair.send(20, to_server=True, fault=lambda all: all[:-2])
    assert pair.found() == {"untold": 2, "ended": 1}


# -- Sends that raise --------------------------------------------------------


@pytest.mark.parametrize("maybe", [True, False])
def test_a_send_that_raised_may_have_been_sent(pair: Pair, maybe: bool) -> None:
    assert not pair.client.send(Broken(maybe), Kind.ECHO, b"perhaps")
    pair.server.take(pack(Kind.ECHO, 3, 0, 0.0, b"perhaps"))
    assert pair.found() == ({} if maybe else {"duplicated": 1})


def test_a_send_that_raised_need_not_have_been_sent(pair: Pair) -> None:
    assert not pair.client.send(Broken(maybe_sent=True), Kind.ECHO, b"perhaps")
    assert pair.found() == {}


def test_a_message_whose_first_part_raised_cannot_arrive(pair: Pair) -> None:
    assert not pair.client.send(Broken(maybe_sent=True), Kind.ECHO, b"in parts", parts=3)
    assert pair.client.maybe == 0


@pytest.mark.parametrize("message", ["a text in parts", b"bytes in parts", "ab", b"a"])
def test_parts_are_the_whole(message: str | bytes) -> None:
    parts = list(slices(message, 4))
    assert [final for _, final in parts] == [False] * (len(parts) - 1) + [True]
    glue: Any = message[:0]
    assert glue.join(part for part, _ in parts) == message


# -- Broadcasts --------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        (range(5, 9), {}),
        (range(6, 9), {"lost": 1}),
        (range(5, 8), {"lost": 1}),
        ((), {"lost": 4}),
        ((5, 6, 8), {"lost": 1}),
        ((5, 6, 6, 7, 8), {"duplicated": 1}),
        ((5, 7, 6, 8), {"reordered": 1}),
        (range(4, 9), {"duplicated": 1}),
        (range(5, 10), {"duplicated": 1}),
    ],
)
def test_broadcasts_are_those_from_joining_to_leaving(
    pair: Pair, numbers: Iterable[int], found: dict[str, int]
) -> None:
    pair.server.joined, pair.server.left = 5, 9
    pair.cast(numbers)
    assert pair.found() == found


def test_broadcasts_come_in_full_before_the_server_closes(pair: Pair) -> None:
    pair.end("server close", by="server")
    pair.server.joined, pair.server.left = 5, 9
    pair.cast(range(5, 8))
    assert pair.found() == {"lost": 1}


def test_broadcasts_may_be_missing_after_the_client_has_closed(pair: Pair) -> None:
    pair.end("close")
    pair.server.joined = 5
    pair.cast(range(5, 8))
    assert pair.found() == {}


def test_nobody_else_gets_broadcasts(pair: Pair) -> None:
    pair.cast(range(2))
    assert pair.found() == {"duplicated": 1}


# -- Ends --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "server", "client"),
    [
        ("close", 1000, LOST),
        ("close", LOST, 1000),
        ("close", 1001, 1001),
        ("abort", 1000, LOST),
        ("server abort", LOST, 1000),
        ("cross", 1000, LOST),
        ("stop", 1000, 1000),
        ("evicted", 1013, 1013),  # nothing was too slow
        ("", 1000, 1000),
    ],
)
def test_an_end_without_a_plan_is_found(pair: Pair, plan: str, server: int, client: int) -> None:
    pair.end(plan, server=server, client=client)
    assert pair.found() == {"ended": 1}


@pytest.mark.parametrize(
    ("plan", "server", "client"),
    [("close", 1000, 1000), ("cross", 1000, 1001), ("stop", 1001, 1001), ("cut", LOST, LOST)],
)
def test_an_end_as_planned_is_right(pair: Pair, plan: str, server: int, client: int) -> None:
    pair.end(plan, server=server, client=client)
    assert pair.found() == {}


def test_an_eviction_is_right_where_it_is_planned(pair: Pair) -> None:
    pair.end("evicted", server=1013, client=1013)
    pair.server.error = "SendTimeout"
    assert pair.found() == {}
    pair.end("close")
    assert pair.found() == {"ended": 1}


# -- The book ----------------------------------------------------------------


def test_the_book_brings_both_ends_together(pair: Pair) -> None:
    pair.send(20, to_server=True, fault=lambda all: all[:-3])
    book = Book()
    book.add("client", pair.client.record())
    assert not book.counts
    book.add("server", pair.server.record())
    book.close()
    assert dict(book.counts) == {"lost": 3}
    assert book.pairs == 1
    assert book.totals["client sent"] == 20
    assert book.totals["server received"] == 17
    assert book.plans == {"drained": 1}


@pytest.mark.parametrize("side", ["server", "client"])
def test_the_book_misses_an_end(pair: Pair, side: str) -> None:
    book = Book()
    book.add(side, getattr(pair, side).record())
    book.close()
    assert dict(book.counts) == {"untold": 1}


def test_the_book_knows_who_ends_twice(pair: Pair) -> None:
    book = Book()
    book.add("server", pair.server.record())
    book.add("server", pair.server.record())
    assert dict(book.counts) == {"ended": 1}
