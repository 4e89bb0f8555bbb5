"""What of one connection reaches the inbox that outlives it."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

import syncws
from syncws.client.relay import Concluding, Relay
from syncws.engine.dispatch import CLOSED, IDLE, Dispatcher, Mailbox, nothing
from syncws.protocol.events import BINARY, CLOSE, ERROR, PING, PONG, TEXT, Event


class FakeInbox:
    """Notes what is delivered."""

    on_room: Any = nothing
    on_last: Any = nothing

    def __init__(self, *, hears_close: bool) -> None:
        self.hears_close = hears_close
        self.events: list[Event] = []
        self.calls: list[str] = []
        self.answer = True

    def total(self) -> int:
        return 0

    def put(self, event: Event) -> bool:
        self.events.append(event)
        return self.answer

    def _note(self, name: str) -> bool:
        self.calls.append(name)
        return self.answer

    def pause(self) -> bool:
        return self._note("pause")

    def busy(self) -> bool:
        return self._note("busy")

    def idle(self) -> bool:
        return self._note("idle")

    def close(self) -> None:
        self._note("close")


both_kinds = pytest.mark.parametrize("hears_close", [True, False], ids=["mailbox", "dispatcher"])


@both_kinds
@pytest.mark.parametrize("answer", [True, False])
def test_messages_pass_and_the_answer_comes_back(hears_close: bool, answer: bool) -> None:
    inbox = FakeInbox(hears_close=hears_close)
    inbox.answer = answer
    relay = Relay(inbox, deque())
    events = [
        Event(TEXT, "x"),
        Event(BINARY, b"x", False),
        Event(PING, b""),
        Event(PONG, b"x"),
        Event(IDLE, None),
    ]
    for event in events:
        assert relay.put(event) is answer
    assert inbox.events == events
    assert all(got is event for got, event in zip(inbox.events, events, strict=True))


@both_kinds
def test_the_end_does_not_pass(hears_close: bool) -> None:
    inbox = FakeInbox(hears_close=hears_close)
    assert Relay(inbox, deque()).put(Event(CLOSED, syncws.Close(1000))) is False
    assert inbox.events == []


@both_kinds
def test_a_failure_is_kept_and_no_error_passes(hears_close: bool) -> None:
    inbox = FakeInbox(hears_close=hears_close)
    relay = Relay(inbox, deque())
    assert relay.error is None
    error = syncws.ProtocolError("bad")
    relay.put(Event(ERROR, error))
    assert relay.error is error
    assert [event.opcode for event in inbox.events if event.opcode != CLOSE] == []


def test_who_would_take_a_close_for_the_last_hears_of_none() -> None:
    inbox = FakeInbox(hears_close=True)
    relay = Relay(inbox, deque())
    assert relay.put(Event(CLOSE, syncws.Close(1012))) is False
    assert relay.put(Event(ERROR, syncws.ProtocolError("bad"))) is False
    assert inbox.events == []


class Bench:
    """A dispatcher that several connections deliver to, one after the other."""

    def __init__(self) -> None:
        self.ready: list[Any] = []
        self.handled: list[Event] = []
        self.concluded: list[str] = []
        self.dispatcher = Dispatcher(self.handled.append, self, max_count=10, max_size=1000)  # type: ignore[arg-type]
        self._concluding: Concluding = deque()
        self.dispatcher.on_last = self._conclude

    def _conclude(self) -> None:
        if self._concluding:
            self._concluding.popleft().on_last()

    def relay(self, name: str) -> Relay:
        relay = Relay(self.dispatcher, self._concluding)
        relay.on_last = lambda: self.concluded.append(name)
        return relay


CLOSES = [Event(CLOSE, syncws.Close(1012)), Event(ERROR, syncws.ProtocolError("bad"))]
both_ends = pytest.mark.parametrize("end", CLOSES, ids=["close", "failure"])


@both_ends
def test_a_dispatcher_takes_everything_that_passes(end: Event) -> None:
    """And counts it: what has no size must not reach it as a message does."""
    bench = Bench()
    relay = bench.relay("first")
    for event in (Event(TEXT, "x"), end, Event(CLOSED, syncws.Close(1012))):
        assert relay.put(event) is False
    bench.dispatcher.run()
    assert bench.handled[0] == Event(TEXT, "x")
    assert {event.opcode for event in bench.handled[1:]} <= {CLOSE}
    assert bench.concluded == ["first"]  # so that the peer's close is answered
    assert bench.dispatcher.idle()


@both_ends
def test_an_end_concludes_its_own_connection_only(end: Event) -> None:
    bench = Bench()
    for name in ("first", "second"):
        relay = bench.relay(name)
        relay.put(Event(TEXT, name))
        relay.put(end)
    seen: list[tuple[str, list[str]]] = []
    bench.dispatcher._handle = lambda event: seen.append((event.data, [*bench.concluded]))
    bench.dispatcher.run()
    assert [entry for entry in seen if isinstance(entry[0], str)] == [
        ("first", []),
        ("second", ["first"]),
    ]
    assert bench.concluded == ["first", "second"]


def test_the_last_of_all_concludes_no_relay() -> None:
    bench = Bench()
    bench.relay("first")
    bench.dispatcher.put(Event(ERROR, syncws.ConnectError("over")))
    bench.dispatcher.put(Event(CLOSED, syncws.Close(1006)))
    bench.dispatcher.run()
    assert bench.concluded == []


def test_a_mailbox_stays_open() -> None:
    mailbox = Mailbox(max_count=10, max_size=1000)
    relay = Relay(mailbox, deque())
    for event in (
        Event(CLOSE, syncws.Close(1012)),
        Event(ERROR, syncws.ProtocolError("bad")),
        Event(CLOSED, syncws.Close(1012)),
        Event(TEXT, "x"),
    ):
        relay.put(event)
    assert mailbox.get(0) == Event(TEXT, "x")
    with pytest.raises(TimeoutError):
        mailbox.get(0)


@both_kinds
def test_the_rest_is_the_inboxs(hears_close: bool) -> None:
    inbox = FakeInbox(hears_close=hears_close)
    relay = Relay(inbox, deque())
    assert relay.hears_close is hears_close
    assert relay.pause() is True
    assert relay.idle() is True
    # A mailbox is not waited for: it hears of no close, and would not come back for it.
    assert relay.busy() is not hears_close
    relay.close()
    assert [call for call in inbox.calls if call != "busy"] == ["pause", "idle", "close"]


@both_kinds
def test_who_makes_room_makes_it_for_the_connection(hears_close: bool) -> None:
    inbox = FakeInbox(hears_close=hears_close)
    relay = Relay(inbox, deque())
    room: list[str] = []
    relay.on_room = lambda: room.append("room")
    inbox.on_room()
    relay.on_room()
    assert room == ["room", "room"]
