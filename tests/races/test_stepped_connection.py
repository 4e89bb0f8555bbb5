"""A connection's operations against each other, in every order that one or two switches make.

What must hold after each is in `wire`: what a send has taken comes, once; what
it has refused does not; there is one close frame at the most, and it is the
last; the inbox hears of the end once, last; nobody waits in vain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from syncws.engine.dispatch import Dispatcher
from syncws.engine.outbound import Outbound
from syncws.engine.sharing import DROP_NEWEST, DROP_OLDEST, Sharing, share
from syncws.engine.state import State
from syncws.errors import Close, ConnectionClosed, ProtocolError
from syncws.protocol.events import TEXT, Event
from tests.races.stepping import Walker, needs_instructions
from tests.races.wire import Wire

STEPPED = True

Exploring = Callable[..., int]
Operation = Callable[[Wire], Any]


def send(wire: Wire) -> None:
    wire.send("whole")


def send_again(wire: Wire) -> None:
    wire.send("another")


def send_fragments(wire: Wire) -> None:
    """One message in two parts."""
    send = wire.connection.outbound.send
    try:
        send(TEXT, b"frag", False)
        send(TEXT, b"ment")
    except ConnectionClosed:
        return  # the half of it is no message
    wire.taken.append("fragment")


def share_one(wire: Wire) -> None:
    """What a group does."""
    if share(TEXT, b"shared", [wire.connection.outbound]):
        wire.taken.append("shared")
    else:
        wire.refused.append("shared")


def abort(wire: Wire) -> None:
    wire.connection.abort()


def fail(wire: Wire) -> None:
    wire.connection.fail(ProtocolError("a test"), Close(1002))


def conclude(wire: Wire) -> None:
    wire.connection.conclude()


def peer_has_closed(wire: Wire) -> None:
    wire.peer.sendall(wire.encoder.close(Close(4002)))


def peer_has_gone(wire: Wire) -> None:
    wire.peer.sendall(wire.encoder.message(TEXT, b"last"))
    wire.connection.transport.sock.shutdown(0)


def peer_waits_for_answer(wire: Wire) -> None:
    """The peer has closed, and somebody is busy with its last messages."""
    wire.inbox.is_busy = True
    peer_has_closed(wire)
    wire.turn()
    assert wire.connection.state is State.ANSWERING


def fill(wire: Wire) -> None:
    """The socket takes nothing for now, and something waits for it."""
    wire.transport.room = 0
    wire.send("first")
    wire.turn()
    wire.transport.room = None


def overfill(wire: Wire) -> None:
    """Senders have to wait."""
    wire.transport.room = 0
    wire.send("x" * 200)
    wire.turn()
    wire.transport.room = None
    assert wire.connection.outbound.size > 100


def wait(wire: Wire) -> None:
    assert wire.connection.wait_closed(None)
    assert wire.connection.state is State.CLOSED


def hear_of_the_end(wire: Wire) -> None:
    """Group.add, and what a member's end does then."""
    told: list[None] = []
    wire.told = told  # type: ignore[attr-defined]
    wire.is_told = wire.connection.when_ended(wire, lambda: told.append(None))  # type: ignore[attr-defined]


class Told(Wire):
    """Somebody wants to hear of the end: it is told, or told that it will not be."""

    def check(self, first: Walker, second: Walker) -> None:
        super().check(first, second)
        assert self.is_told == bool(self.told)  # type: ignore[attr-defined]


PAIRS: dict[str, tuple[Operation, Operation, Operation | None, dict[str, Any]]] = {
    "close / send": (Wire.start_close, send, None, {}),
    "close / send, queued": (Wire.start_close, send, fill, {}),
    "close / fragments": (Wire.start_close, send_fragments, None, {}),
    "close / share": (Wire.start_close, share_one, None, {}),
    "close / close": (Wire.start_close, lambda w: w.start_close(4003), None, {}),
    "close / fail": (Wire.start_close, fail, None, {}),
    "close / abort": (Wire.start_close, abort, None, {}),
    "close / the peer's close": (Wire.start_close, Wire.round, peer_has_closed, {}),
    "close / answer": (Wire.start_close, conclude, peer_waits_for_answer, {}),
    "close / end of TCP": (Wire.start_close, Wire.round, peer_has_gone, {}),
    "fail / the peer's close": (fail, Wire.round, peer_has_closed, {}),
    "fail / send": (fail, send, None, {}),
    "answer / answer": (conclude, conclude, peer_waits_for_answer, {}),
    "answer / abort": (conclude, abort, peer_waits_for_answer, {}),
    "answer / send": (conclude, send, peer_waits_for_answer, {}),
    "send / send": (send, send_again, None, {}),
    "send / send, queued": (send, send_again, fill, {}),
    "send / abort": (send, abort, None, {}),
    "send / abort, queued": (send, abort, fill, {}),
    "send / share": (send, share_one, None, {}),
    "fragments / share": (send_fragments, share_one, None, {}),
    "fragments / abort": (send_fragments, abort, None, {}),
    "send / flush": (send, Wire.round, fill, {}),
    "send / end of TCP": (send, Wire.round, peer_has_gone, {}),
    "share / flush": (share_one, Wire.round, fill, {}),
    "share / abort": (share_one, abort, None, {}),
    "waiting send / flush": (send, Wire.round, overfill, {"send_buffer_size": 100}),
    "waiting send / abort": (send, abort, overfill, {"send_buffer_size": 100}),
    "waiting send / close": (send, Wire.start_close, overfill, {"send_buffer_size": 100}),
    "waiting send / waiting send": (send, send_again, overfill, {"send_buffer_size": 100}),
    "compressed send / compressed send": (
        lambda w: w.send("a" * 2000),
        lambda w: w.send("b" * 2000),
        None,
        {"compression": True},
    ),
}

# Short enough for two switches, which make some hundred orders.
TWICE = ("close / send", "close / close", "close / answer", "send / abort", "send / share")


# In whose end the roles differ.
ENDS = [pair for pair in PAIRS if "close" in pair or "answer" in pair or "TCP" in pair]


@pytest.mark.parametrize("pair", PAIRS)
def test_two_operations_of_a_server(pair: str, exploring: Exploring) -> None:
    first, second, prepare, options = PAIRS[pair]
    assert exploring(lambda: Wire(first, second, prepare, **options)) > 10


@pytest.mark.parametrize("pair", ENDS)
def test_two_operations_of_a_client(pair: str, exploring: Exploring) -> None:
    first, second, prepare, options = PAIRS[pair]
    assert exploring(lambda: Wire(first, second, prepare, client=True, **options)) > 10


@pytest.mark.parametrize("pair", TWICE)
def test_two_operations_that_both_stop(pair: str, exploring: Exploring) -> None:
    first, second, prepare, options = PAIRS[pair]
    assert exploring(lambda: Wire(first, second, prepare, **options), switches=2) > 200


@needs_instructions
@pytest.mark.parametrize("pair", ["close / send", "send / send, queued", "send / abort"])
def test_two_operations_by_instruction(pair: str, exploring: Exploring) -> None:
    first, second, prepare, options = PAIRS[pair]
    tried = exploring(lambda: Wire(first, second, prepare, **options), by_instruction=True)
    assert tried > 30


# -- A group's messages ------------------------------------------------------

_PHRASE = "what is said here is said again and again, "
_OTHER = "but they all hear something else; "


class Deflating(Wire):
    """What a member compresses refers to what it has sent before; the group's must not harm it."""

    def __init__(self, first: Operation, second: Operation, **options: Any) -> None:
        def begin(wire: Wire) -> None:
            wire.send(_PHRASE * 30)

        super().__init__(first, second, begin, compression=True, **options)

    def check(self, first: Walker, second: Walker) -> None:
        for number in range(2):
            self.send(f"{number} {_PHRASE}" * 20)
        super().check(first, second)
        assert len(self.taken) == len(self.texts())


def send_compressed(wire: Wire) -> None:
    wire.send("own " + _PHRASE * 20)


def send_compressed_fragments(wire: Wire) -> None:
    parts = ["fragment " + _PHRASE * 10, _PHRASE * 12, _PHRASE * 5]
    for number, part in enumerate(parts, 1):
        wire.connection.outbound.send(TEXT, part.encode(), number == len(parts))
    wire.taken.append("".join(parts))


def share_compressed(wire: Wire) -> None:
    text = "shared " + _OTHER * 40
    assert share(TEXT, text.encode(), [wire.connection.outbound])
    wire.taken.append(text)


def share_another(wire: Wire) -> None:
    text = "shared as well " + _OTHER * 30
    assert share(TEXT, text.encode(), [wire.connection.outbound])
    wire.taken.append(text)


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("own", [send_compressed, send_compressed_fragments, share_another])
def test_a_compressed_message_of_a_group(
    own: Operation, client: bool, exploring: Exploring
) -> None:
    assert exploring(lambda: Deflating(own, share_compressed, client=client)) > 30


def test_a_compressed_message_of_a_group_twice_stopped(exploring: Exploring) -> None:
    def make() -> Deflating:
        return Deflating(share_compressed, send_compressed)

    among = ("outbound.py", "sharing.py")
    assert exploring(make, switches=2, among=among, both=False) > 500


@needs_instructions
def test_a_compressed_message_of_a_group_by_instruction(exploring: Exploring) -> None:
    def make() -> Deflating:
        return Deflating(send_compressed, share_compressed)

    among = ("outbound.py", "sharing.py")
    assert exploring(make, by_instruction=True, among=among) > 300


class Dropping(Wire):
    """A group has filled a member's buffer, and a part of the first message is written."""

    def __init__(self, first: Operation, second: Operation, policy: str, **options: Any) -> None:
        self.sharing = Sharing(policy)
        self.dropped: dict[Outbound, int] = {}
        self.sent = 0
        super().__init__(first, second, Dropping.fill, send_buffer_size=100, **options)

    def share(self) -> None:
        text = f"{self.sent} shared".ljust(38)
        outbound = self.connection.outbound
        before = dict(self.dropped)
        taken = self.sharing.send(TEXT, text.encode(), [outbound], self.dropped)
        if taken or self.dropped != before:  # else it is being closed
            self.sent += 1

    def fill(self) -> None:  # type: ignore[override]
        self.transport.room = 50
        for _ in range(6):
            self.share()
            self.turn(1)
        self.transport.room = None
        assert self.connection.outbound.size > 100
        assert self.dropped

    def check(self, first: Walker, second: Walker) -> None:
        super().check(first, second)
        texts = [text for text in self.texts() if "shared" in text]
        assert texts == sorted(texts)
        assert len(texts) + self.dropped[self.connection.outbound] == self.sent


@pytest.mark.parametrize("policy", [DROP_NEWEST, DROP_OLDEST])
@pytest.mark.parametrize("other", [Wire.round, send, send_fragments, Wire.start_close])
def test_dropping_against_others(policy: str, other: Operation, exploring: Exploring) -> None:
    def make() -> Dropping:
        return Dropping(Dropping.share, other, policy)  # type: ignore[arg-type]

    assert exploring(make) > 20


# -- Who waits for the end, or wants to hear of it ---------------------------


@pytest.mark.parametrize("end", [abort, Wire.start_close], ids=["abort", "close"])
def test_waiting_for_the_end(end: Operation, exploring: Exploring) -> None:
    assert exploring(lambda: Wire(wait, end, unblock=abort)) > 10


def test_waiting_for_the_end_twice(exploring: Exploring) -> None:
    assert exploring(lambda: Wire(wait, wait, unblock=abort)) > 5


def test_hearing_of_the_end(exploring: Exploring) -> None:
    assert exploring(lambda: Told(hear_of_the_end, abort), switches=2) > 100


# -- Reading against the callbacks -------------------------------------------


class Flow(Wire):
    """Messages that come in two pieces, and a worker that runs the callbacks."""

    def __init__(self, first: Operation, second: Operation, *, queue: int) -> None:
        self.handled: list[Any] = []
        super().__init__(
            first,
            second,
            inbox=lambda loop: Dispatcher(
                lambda event: self.handled.append(event.data),
                loop,
                max_count=queue,
                max_size=1000,
            ),
        )
        # One read ends amid the second message.
        self.loop.buffer = bytearray(len(self.encoder.message(TEXT, b"one")) + 7)
        self.peer.sendall(b"".join(self.encoder.message(TEXT, b) for b in (b"one", b"two", b"six")))

    def serve(self) -> None:
        while self.run_queue:
            self.run_queue.popleft().run()

    def check_inbox(self) -> None:
        self.serve()
        assert self.handled == ["one", "two", "six", "end", Close(1006)]

    def check(self, first: Walker, second: Walker) -> None:
        for _ in range(8):
            self.turn()
            self.serve()
        # What comes now is read, too.
        self.peer_says(TEXT, b"end")
        self.serve()
        super().check(first, second)


@pytest.mark.parametrize("queue", [1, 2, 3, 4])
def test_reading_against_callbacks(queue: int, exploring: Exploring) -> None:
    """Reading pauses while callbacks are behind, and goes on whatever the moment."""

    def rounds(wire: Wire) -> None:
        wire.turn(3)

    tried = exploring(lambda: Flow(rounds, Flow.serve, queue=queue))  # type: ignore[arg-type]
    assert tried > 50


def test_reading_against_callbacks_twice_stopped(exploring: Exploring) -> None:
    def round_with_work(wire: Wire) -> None:
        wire.turn(1)

    class Begun(Flow):
        """The first message is handed to a worker."""

        def __init__(self) -> None:
            super().__init__(round_with_work, Flow.serve, queue=1)  # type: ignore[arg-type]
            self.run_queue.append(self.inbox)
            self.inbox._running.acquire()
            self.inbox.put(Event(TEXT, "zero"))

        def check_inbox(self) -> None:
            self.serve()
            assert self.handled == ["zero", "one", "two", "six", "end", Close(1006)]

    tried = exploring(Begun, switches=2, among=("dispatch.py",), both=False)
    assert tried > 300
