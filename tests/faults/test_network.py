"""Connections that are cut, reset, held up, thinned out and cut short at every place of their life.

Both ends are ours, and both are looked at: what was delivered, and how each
learns of the end.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import syncws
from tests.faults.ends import Ends, clocked, closed_error, ends, serves_on, timed_from
from tests.faults.proxy import DOWN, FAULTS, LOSSLESS, LOSSY, UP, Fault, Proxy
from tests.support import HANG, ServerRecorder, Task, listening

KINDS = ("blocking", "callbacks")
DIRECTIONS = (UP, DOWN)

SOURCE = {UP: "client", DOWN: "server"}
SINK = {UP: "server", DOWN: "client"}

PEER = {"client": "server", "server": "client"}
#: The direction that leads to each.
SINK_OF = {"client": DOWN, "server": UP}

#: Behind a keepalive ping, or its time.
LEAP = 21.0

LOST = "nothing came within 20.0 s of a keepalive ping"


# -- Amid the opening handshake ----------------------------------------------


class Opening(NamedTuple):
    """A place of the opening handshake.

    Attributes:
        direction: Where the fault strikes.
        offset: At which byte.
        headed: Counted from the end of the head.
        opened: Whether the server's end was open before it struck; None: it depends.
    """

    direction: str
    offset: int
    headed: bool = False
    opened: bool | None = True


OPENINGS = {
    "before the request": Opening(UP, 0, opened=False),
    "amid the request": Opening(UP, 20, opened=False),
    "after the request": Opening(UP, 0, headed=True, opened=None),
    "before the response": Opening(DOWN, 0, opened=None),
    "amid the response": Opening(DOWN, 20),
}


@contextlib.contextmanager
def served(*faults: Fault) -> Iterator[tuple[ServerRecorder, Proxy, Any]]:
    """A listener behind a proxy, and its clock."""
    service = ServerRecorder(syncws.ServiceConfig(compression=False))
    with (
        clocked() as (engine, clock),
        listening(service, engine=engine) as listener,
        Proxy(listener.port or 0, *faults) as proxy,
    ):
        yield service, proxy, clock
        serves_on(proxy.url, service)
        proxy.reset_all()
    assert service.calls.empty()


def lives(service: ServerRecorder) -> list[list[tuple[Any, ...]]]:
    """Return what each of a listener's connections has seen, once it has stopped."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    while not service.calls.empty():
        call = service.next()
        found.setdefault(call.endpoint.id, []).append((call.name, *call.args))
    return list(found.values())


NEXT = [("on_open",), ("on_text", "next"), ("on_close", 1000, "")]
GONE = [("on_open",), ("on_close", 1006, "")]


@pytest.mark.parametrize("place", OPENINGS)
@pytest.mark.parametrize("kind", LOSSY)
def test_an_opening_handshake_that_is_lost(kind: str, place: str) -> None:
    opening = OPENINGS[place]
    eager = opening.headed or not opening.offset
    fault = Fault(kind, opening.direction, opening.offset, opening.headed, eager)
    service = ServerRecorder(syncws.ServiceConfig(compression=False))
    with listening(service) as listener, Proxy(listener.port or 0, fault) as proxy:
        if kind == "truncate" and opening.headed:
            # The answer comes nevertheless.
            with syncws.Client(proxy.url) as client:
                assert closed_error(client.receive).received is None
        else:
            cannot_open(proxy)
        with syncws.Client(proxy.url) as client:
            client.send_text("next")
        proxy.reset_all()
    seen = lives(service)
    seen.remove(NEXT)
    # What a reset has overtaken the server may never have seen.
    if opening.opened is None or kind == "reset":
        assert seen in ([], [GONE])
    else:
        assert seen == ([GONE] if opening.opened else [])


def cannot_open(proxy: Proxy) -> None:
    """See that a client says what has happened."""
    with pytest.raises(syncws.ConnectError) as caught:
        syncws.Client(proxy.url)
    error = caught.value
    assert isinstance(error, ConnectionError)
    if isinstance(error, syncws.HandshakeError):
        assert str(error) == (
            "the server closed the connection before it answered the handshake; "
            "if it speaks TLS, write wss://"
        )
    else:  # the request could not even be sent
        assert re.match(
            f"(connecting|the opening handshake) with 127.0.0.1 port {proxy.port} failed: "
            "(Connection reset by peer|Broken pipe)",
            str(error),
        )
        assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize("place", OPENINGS)
@pytest.mark.parametrize("kind", LOSSLESS)
def test_an_opening_handshake_that_is_held_up(kind: str, place: str) -> None:
    opening = OPENINGS[place]
    with served(Fault(kind, opening.direction, opening.offset, opening.headed)) as (
        service,
        proxy,
        _,
    ):
        connecting = Task(syncws.Client, proxy.url)
        if opening.headed:  # nothing more comes there, until there are frames
            client = connecting.result()
            sending = Task(client.send_text, "behind the request")
            proxy.reached()
        else:
            proxy.reached()
            if kind == "delay":
                assert connecting.is_alive()
                proxy.release()
            client = connecting.result()
            sending = Task(client.send_text, "behind the request")
        proxy.release()
        sending.result()
        caller = service.expect("on_open")
        service.expect("on_text", "behind the request")
        caller.send_text("and back")
        assert client.receive(timeout=HANG) == "and back"
        client.close()
        service.expect("on_close", 1000, "")


@pytest.mark.parametrize("place", OPENINGS)
def test_an_opening_handshake_that_stalls(place: str) -> None:
    opening = OPENINGS[place]
    eager = opening.headed or not opening.offset
    fault = Fault("stall", opening.direction, opening.offset, opening.headed, eager)
    with served(fault) as (service, proxy, clock):
        if opening.headed:
            # The answer comes, and then nothing that the client sends arrives.
            client = syncws.Client(proxy.url)
            service.expect("on_open")
            clock.leap(LEAP)
            clock.leap(LEAP)
            service.expect("on_error")
            service.expect("on_close", 1006, "")
            with pytest.raises(syncws.ConnectionClosed) as caught:
                client.receive(timeout=HANG)
            assert caught.value.received == syncws.Close(1011, LOST)
            client.close()
            return
        with timed_from("_upgrade"), pytest.raises(syncws.ConnectTimeout) as timeout:
            syncws.Client(proxy.url, handshake_timeout=0.2)
        assert isinstance(timeout.value, TimeoutError)
        assert str(timeout.value) == (
            f"the opening handshake with 127.0.0.1 port {proxy.port} "
            "took longer than handshake_timeout, 0.2 s"
        )
        if opening.opened is False:
            clock.leap(11.0)  # the listener's handshake_timeout
        else:
            service.expect("on_open")
            service.expect("on_close", 1006, "")


# -- Right after it ----------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("client", KINDS)
@pytest.mark.parametrize("kind", LOSSY)
def test_right_after_the_opening_handshake(kind: str, client: str, direction: str) -> None:
    with ends(client) as pair:
        pair.proxy.arm(Fault(kind, direction, 0, eager=True))
        for side in ("client", "server"):
            error = pair.ended(side, 1006)
            assert error.sent is None
            assert str(error) == "the connection is closed: no close frame received, none sent"


# -- Amid messages -----------------------------------------------------------


class Place(NamedTuple):
    """A place in what one end sends.

    Attributes:
        offset: Bytes that still pass, of which a client's frames have four more each.
        frames: Frames that pass whole before it.
        parts: What is sent: one message each, or the fragments of one.
        fragments: Which of them.
        before: What has been delivered when it strikes.
    """

    offset: int
    frames: int
    parts: tuple[str, ...]
    fragments: bool
    before: tuple[str, ...] = ()

    def bytes_of(self, direction: str) -> int:
        """Return how many bytes pass."""
        mask = 4 if direction == UP else 0
        return sum(2 + mask + len(part) for part in self.parts[: self.frames]) + self.offset

    def send(self, endpoint: Any) -> None:
        """Send it all."""
        last = len(self.parts) - 1
        for number, part in enumerate(self.parts):
            endpoint.send_text(part, final=not self.fragments or number == last)

    @property
    def messages(self) -> tuple[str, ...]:
        """What is delivered if nothing is lost."""
        return ("".join(self.parts),) if self.fragments else self.parts


PLACES = {
    "amid a frame header": Place(1, 0, ("second", "third"), False),
    "amid a payload": Place(8, 0, ("second message", "third"), False),
    "between messages": Place(0, 1, ("second", "third", "fourth"), False, ("second",)),
    "amid the second message": Place(4, 1, ("second", "third"), False, ("second",)),
    "between fragments": Place(0, 1, ("sec", "on", "d"), True),
    "amid a fragment": Place(3, 1, ("sec", "on", "d"), True),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("client", KINDS)
@pytest.mark.parametrize("kind", FAULTS)
def test_amid_messages(kind: str, client: str, direction: str, place: str) -> None:
    with ends(client) as pair:
        send_amid(pair, kind, direction, PLACES[place])


def send_amid(pair: Ends, kind: str, direction: str, place: Place) -> None:
    """Have the fault strike there, and see what both ends make of it."""
    source, sink = SOURCE[direction], SINK[direction]
    pair.exchange()
    pair.proxy.arm(Fault(kind, direction, place.bytes_of(direction)))
    with contextlib.suppress(syncws.ConnectionClosed):  # the end may come amid that
        place.send(pair.endpoint(source))
    pair.proxy.reached()
    for message in place.before:
        pair.expect(sink, "on_text", message)
    if kind in LOSSY:
        for side in (source, sink):
            assert pair.ended(side, 1006).sent is None
    elif kind in LOSSLESS:
        pair.proxy.release()
        for message in place.messages[len(place.before) :]:
            pair.expect(sink, "on_text", message)
        pair.exchange()
        pair.endpoint(source).close(1000, timeout=0)
        for side in (source, sink):
            pair.ended(side, 1000)
    else:
        keepalive_ends_it(pair, source, sink)


def keepalive_ends_it(pair: Ends, source: str, sink: str) -> None:
    """What comes no further than here: the one that hears nothing finds out."""
    pair.leap(sink, LEAP)
    pair.leap(sink, LEAP)
    call = pair.next(sink)
    assert call.name == "on_error"
    assert isinstance(call.args[0], syncws.KeepaliveTimeout)
    assert str(call.args[0]) == LOST
    error = pair.ended(sink, 1006)
    assert error.__cause__ is call.args[0]
    assert error.sent == syncws.Close(1011, LOST)
    pair.ended(source, 1011, LOST)


# -- Amid the closing handshake ----------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("client", KINDS)
@pytest.mark.parametrize("kind", FAULTS)
def test_amid_a_close_frame(kind: str, client: str, direction: str) -> None:
    source, sink = SOURCE[direction], SINK[direction]
    with ends(client) as pair:
        pair.exchange()
        pair.proxy.arm(Fault(kind, direction, 3))
        pair.endpoint(source).close(4000, "bye", timeout=0)
        pair.proxy.reached()
        if kind in LOSSY:
            assert pair.ended(source, 1006).sent == (4000, "bye")
            assert pair.ended(sink, 1006).sent is None
        elif kind in LOSSLESS:
            pair.proxy.release()
            assert pair.ended(sink, 4000, "bye").sent == (4000, "")
            assert pair.ended(source, 4000).sent == (4000, "bye")
        else:
            pair.leap(source, 11.0)  # close_timeout
            assert pair.ended(source, 1006).sent == (4000, "bye")
            # The end of TCP comes no further either, or comes as it can.
            pair.leap(sink, LEAP)
            pair.leap(sink, LEAP)
            call = pair.next(sink)
            if call.name == "on_error":
                assert isinstance(call.args[0], syncws.KeepaliveTimeout)
                call = pair.next(sink)
            assert (call.name, call.args) == ("on_close", (1006, ""))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("client", KINDS)
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_before_and_amid_the_answer_to_a_close(
    offset: int, kind: str, client: str, direction: str
) -> None:
    """The closer is where that direction leads to."""
    answerer, closer = SOURCE[direction], SINK[direction]
    with ends(client) as pair:
        pair.exchange()
        pair.proxy.arm(Fault(kind, direction, offset))
        pair.endpoint(closer).close(4000, "bye", timeout=0)
        pair.proxy.reached()
        if kind in LOSSLESS:
            pair.proxy.release()
        elif kind == "stall":
            pair.leap(closer, 11.0)
        assert pair.ended(answerer, 4000, "bye").sent == (4000, "")
        if kind in LOSSLESS:
            assert pair.ended(closer, 4000).sent == (4000, "bye")
        else:
            error = pair.ended(closer, 1006)
            assert error.sent == (4000, "bye")
            assert str(error) == (
                "the connection is closed: no close frame received, sent 4000 (bye)"
            )


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("client", KINDS)
@pytest.mark.parametrize("kind", [*LOSSY, "stall"])
def test_a_close_that_waits_returns(kind: str, client: str, side: str) -> None:
    with ends(client) as pair:
        pair.exchange()
        pair.proxy.arm(Fault(kind, SINK_OF[side], 0))
        closing = Task(pair.endpoint(side).close, 4000, timeout=None)
        pair.proxy.reached()
        while kind == "stall" and closing.is_alive():
            pair.leap(side, 11.0)  # again, should its deadline not have been set
        closing.result()
        pair.ended(side, 1006)
        pair.ended(PEER[side], 4000)


# -- Messages both ways ------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", [*LOSSY, *LOSSLESS])
@pytest.mark.parametrize("offset", [1, 1000, 70_001, 200_003])
def test_amid_a_stream_both_ways(offset: int, kind: str, direction: str) -> None:
    """Whatever is delivered is a beginning of what was sent, once each."""
    count = 400
    config = {"ping_interval": None}
    with ends("callbacks", config=config) as pair:
        pair.exchange()
        pair.proxy.arm(Fault(kind, direction, offset))
        ready = threading.Barrier(2)

        def stream(side: str) -> int:
            ready.wait(HANG)
            sent = 0
            with contextlib.suppress(syncws.ConnectionClosed):
                for number in range(count):
                    pair.endpoint(side).send_text(f"{number} " + "x" * 1000)
                    sent += 1
            return sent

        tasks = {side: Task(stream, side) for side in ("client", "server")}
        pair.proxy.reached()
        if kind in LOSSLESS:
            pair.proxy.release()
        sent = {side: task.result() for side, task in tasks.items()}
        got: dict[str, int] = {}
        for side, peer in (("client", "server"), ("server", "client")):
            got[side] = 0
            limit = count if kind in LOSSLESS else count + 1
            for number in range(limit):
                call = pair.next(side)
                if call.name == "on_close":
                    assert call.args == (1006, "")
                    break
                assert call.args[0].split()[0] == str(number)
                got[side] += 1
            assert got[side] <= sent[peer]
        if kind in LOSSLESS:
            assert set(got.values()) == set(sent.values()) == {count}
            pair.endpoint("client").close(timeout=0)
            for side in ("client", "server"):
                pair.ended(side, 1000)
        else:
            assert got[SINK[direction]] <= offset // 1000
