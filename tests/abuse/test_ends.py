"""Ends that no honest peer makes: silence after a close, all at once, and callbacks that raise."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import syncws
from tests.abuse.hostile import Victim, attacked, beside, endpoint_of, every_end, everything
from tests.abuse.watch import watched
from tests.support import (
    BINARY,
    CLOSE,
    HANG,
    PING,
    PONG,
    TEXT,
    RawPeer,
    Recorder,
    Task,
    frame,
)

with_callbacks = pytest.mark.parametrize("kind", ["server", "client"])


# -- A peer that does not go -------------------------------------------------


def gone(peer: RawPeer) -> None:
    """Wait until the other end takes nothing any more: its socket is closed."""
    with pytest.raises(ConnectionError):
        while True:
            peer.send(PONG)


def _our_close(victim: Victim) -> None:
    endpoint_of(victim).close(4000, timeout=0)
    victim.peer.expect_close(4000)


def _close_then_silence(victim: Victim) -> None:
    _our_close(victim)
    victim.peer.expect_end()
    victim.closes(1006)


def _close_then_more(victim: Victim) -> None:
    _our_close(victim)
    data = victim.frame(BINARY, bytes(60_000)) + victim.frame(PING)
    with pytest.raises(ConnectionError):
        while True:
            victim.peer.send_bytes(data)
    victim.closes(1006)


def _close_then_a_part_of_the_answer(victim: Victim) -> None:
    _our_close(victim)
    victim.peer.send_bytes(victim.frame(CLOSE, b"\x0f\xa0")[:3])
    victim.peer.expect_end()
    victim.closes(1006)


def _their_close_then_silence(victim: Victim) -> None:
    victim.peer.close_frame(4000)
    victim.peer.expect_close(4000)
    gone(victim.peer)
    victim.closes(4000)


def _a_bad_frame_then_silence(victim: Victim) -> None:
    victim.peer.send(0x3)
    victim.peer.expect_close(1002)
    gone(victim.peer)
    if victim.kind != "blocking":
        victim.service.expect("on_error")
    victim.closes(1006)


def _nothing_is_read(victim: Victim) -> None:
    endpoint = endpoint_of(victim)
    for _ in range(120):
        endpoint.send_binary(bytes(60_000))
    assert endpoint.buffered_amount
    endpoint.close(4000, timeout=0)
    gone(victim.peer)
    victim.closes(1006)


_STAYING: dict[str, Callable[[Victim], None]] = {
    "our close, then silence": _close_then_silence,
    "our close, then ever more": _close_then_more,
    "our close, then a part of the answer": _close_then_a_part_of_the_answer,
    "their close, then silence": _their_close_then_silence,
    "a bad frame, then silence": _a_bad_frame_then_silence,
    "nothing is read": _nothing_is_read,
}


@every_end
@pytest.mark.parametrize("way", _STAYING)
def test_a_peer_that_stays_is_dropped_at_the_deadline(kind: str, way: str) -> None:
    with attacked(
        kind, close_timeout=0.2, receive_buffer=4096, send_buffer_size=10_000_000
    ) as victim:
        _STAYING[way](victim)


@every_end
def test_a_close_that_waits_returns_at_its_deadline(kind: str) -> None:
    with attacked(kind, close_timeout=HANG * 2) as victim:
        closing = Task(endpoint_of(victim).close, 4000, timeout=0.2)
        victim.peer.expect_close(4000)
        closing.result()
        victim.peer.expect_end()
        victim.closes(1006)


def test_a_listener_stops_though_its_clients_stay() -> None:
    service = Recorder(syncws.ServiceConfig(ping_interval=None))
    with beside(), watched():
        listener = syncws.Listener(0)
        listener.attach("/", service)
        listener.start()
        with RawPeer.connect(listener) as peer, RawPeer.dial(listener) as silent:
            peer.round_trip()
            listener.stop(0.2)
            peer.expect_close(1001)
            peer.expect_end()
            silent.expect_end()
            service.expect("on_close", 1006, "")


# -- Closing while something else goes on ------------------------------------


class Reader(threading.Thread):
    """Reads all that comes to a peer, and answers a close frame unless one was sent already."""

    def __init__(self, peer: RawPeer, *, answers: bool) -> None:
        super().__init__(daemon=True)
        self._peer = peer
        self._answers = answers
        self.closes = 0
        self.after = 0  # frames after the close frame
        self.start()

    def run(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                got = self._peer.read()
                self.after += bool(self.closes)
                if got.opcode == CLOSE:
                    self.closes += 1
                    if self._answers:
                        self._peer.send(CLOSE, got.payload)
                    self._peer.end_writing()
        with suppress(OSError):
            self._peer.end_writing()


def _close(endpoint: Any, peer: RawPeer) -> None:
    endpoint.close(4001)


def _close_at_once(endpoint: Any, peer: RawPeer) -> None:
    endpoint.close(4002, "soon", timeout=0)


def _peer_closes(endpoint: Any, peer: RawPeer) -> None:
    with suppress(OSError):
        peer.close_frame(4003)


def _peer_goes(endpoint: Any, peer: RawPeer) -> None:
    with suppress(OSError):
        peer.end_writing()


def _peer_breaks_the_rules(endpoint: Any, peer: RawPeer) -> None:
    with suppress(OSError):
        peer.send(0x3)


def _until_closed(call: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(syncws.ConnectionClosed):
        while True:
            call(*args)


def _send(endpoint: Any, peer: RawPeer) -> None:
    _until_closed(endpoint.send_binary, bytes(5000))


def _ping(endpoint: Any, peer: RawPeer) -> None:
    _until_closed(endpoint.ping, b"well?")


def _receive(endpoint: Any, peer: RawPeer) -> None:
    """Have messages come; a blocking client takes them."""
    with suppress(OSError):
        for _ in range(50):
            peer.text("x")


_RACES: dict[str, list[Callable[[Any, RawPeer], None]]] = {
    "both ends": [_close, _peer_closes],
    "both ends, nobody waits": [_close_at_once, _peer_closes],
    "twice": [_close, _close],
    "many times": [_close, _close_at_once] * 4,
    "sends": [_close, _send, _send],
    "pings": [_close, _ping, _ping],
    "messages": [_close, _receive],
    "all at once": [_close, _send, _ping, _receive, _close_at_once],
    "the peer's, sends": [_peer_closes, _send, _send],
    "the peer's, pings": [_peer_closes, _ping],
    "the peer goes": [_close, _peer_goes, _send],
    "the peer breaks the rules": [_close, _peer_breaks_the_rules, _send],
}


@every_end
@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("race", _RACES)
def test_closing_at_the_same_time(kind: str, race: str, turn: int) -> None:
    calls = _RACES[race]
    theirs = any(call.__name__.startswith("_peer") for call in calls)
    with attacked(kind, send_timeout=HANG) as victim:
        endpoint = endpoint_of(victim)
        barrier = threading.Barrier(len(calls))

        def begin(call: Callable[..., None]) -> None:
            barrier.wait(HANG)
            call(endpoint, victim.peer)

        receiving = Task(_until_closed, endpoint.receive) if kind == "blocking" else None
        reader = Reader(victim.peer, answers=not theirs)
        tasks = [Task(begin, call) for call in calls]
        for task in tasks:
            task.result()
        reader.join(HANG)
        assert not reader.is_alive()
        # To a peer that has ended TCP there may be none on its way.
        assert reader.closes == 1 or (_peer_goes in calls and not reader.closes)
        assert reader.after == 0
        endpoint.close(4005)  # harmless
        assert not endpoint.is_open
        if receiving is not None:
            receiving.result()
        else:
            calls_made = [victim.service.next()]
            while calls_made[-1].name != "on_close":
                calls_made.append(victim.service.next())
            assert {call.name for call in calls_made[:-1]} <= {"on_text", "on_error"}
            victim.service.quiet()


# -- Callbacks that raise ----------------------------------------------------


class Boom(Exception):
    """Raised by an application."""


class Raising(Recorder):
    """Raises in one of its callbacks."""

    where = ""
    error: BaseException = Boom("boom")

    def record(self, name: str, endpoint: Any, *args: Any) -> None:
        super().record(name, endpoint, *args)
        if name == self.where:
            raise self.error


def _raising(where: str, error: BaseException) -> Raising:
    """Return a service that has this callback, too, if the others do not."""

    def no_argument(self: Raising, caller: Any) -> None:
        self.record(where, caller)

    def one_argument(self: Raising, caller: Any, data: Any) -> None:
        self.record(where, caller, data)

    def streamed(self: Raising, caller: Any, data: Any, final: bool) -> None:
        self.record(where, caller, data)

    missing: dict[str, dict[str, Any]] = {
        "on_open": {"on_open": no_argument},
        "on_idle_timeout": {"on_idle_timeout": no_argument},
        "on_ping": {"on_ping": one_argument},
        "on_text, streamed": {"on_text": streamed},
        "on_binary, streamed": {"on_binary": streamed},
    }
    more = missing.get(where, {})
    service: Raising = type("Raising", (Raising,), {"where": where, "error": error, **more})()
    return service


_TRIGGERS: dict[str, Callable[[RawPeer], None]] = {
    "on_open": lambda peer: None,
    "on_text": lambda peer: peer.text("x"),
    "on_binary": lambda peer: peer.send(BINARY, b"x"),
    "on_text, streamed": lambda peer: peer.send(TEXT, b"x", fin=False),
    "on_binary, streamed": lambda peer: peer.send(BINARY, b"x", fin=False),
    "on_ping": lambda peer: peer.send(PING, b"x"),
    "on_pong": lambda peer: peer.send(PONG, b"x"),
    "on_idle_timeout": lambda peer: None,
}


def logged(caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    """Assert that there is one record of this error, and no other of an error."""
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("error", [Boom("boom"), SystemExit(1), syncws.SendTimeout("late")])
@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (kind, where)
        for kind in ("server", "client")
        for where in _TRIGGERS
        if (kind, where) != ("client", "on_open")  # a client has none
    ],
)
def test_a_callback_that_raises(
    kind: str, where: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"idle_timeout": 0.1} if where == "on_idle_timeout" else {}
    service = _raising(where, error)
    with attacked(kind, service=service, **options) as victim:
        _TRIGGERS[where](victim.peer)
        assert victim.peer.expect_close() == (1011, "internal error")
        victim.others.served()
        victim.peer.close_frame(1011)
        if kind == "server":
            victim.peer.expect_end()
        victim.peer.abort()
        service.expect(where)
        service.expect("on_error", error)
        service.expect("on_close", 1011, "")
        service.quiet()
    logged(caplog, error)


@with_callbacks
@pytest.mark.parametrize("error", [Boom("boom"), SystemExit(1)])
def test_an_on_error_that_raises(
    kind: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    service = _raising("on_error", error)
    with attacked(kind, service=service) as victim:
        victim.peer.send(0x3)
        victim.peer.expect_close(1002)
        victim.others.served()
        victim.peer.abort()
        service.expect("on_error")
        service.expect("on_close", 1006, "")
        service.quiet()
    logged(caplog, error)


@with_callbacks
@pytest.mark.parametrize("error", [Boom("boom"), SystemExit(1)])
@pytest.mark.parametrize("way", ["closed", "lost", "failed"])
def test_an_on_close_that_raises(
    kind: str, error: BaseException, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = _raising("on_close", error)
    with attacked(kind, service=service) as victim:
        if way == "failed":
            victim.peer.send(0x3)
            victim.peer.expect_close(1002)
            service.expect("on_error")
        elif way == "closed":
            victim.peer.close_frame(1000)
            victim.peer.expect_close(1000)
        victim.peer.abort()
        service.expect("on_close")
        service.quiet()
    logged(caplog, error)


@pytest.mark.parametrize("error", [Boom("boom"), SystemExit(1)])
def test_a_service_that_cannot_be_made(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Unmade(syncws.Service):
        def __init__(self) -> None:
            raise error

        def on_text(self, caller: syncws.Caller, text: str) -> None: ...

    with beside() as others:
        others.listener.attach("/", Unmade)
        with watched(), RawPeer.connect(others.listener) as peer:
            peer.expect_close(1011)
            others.served()
    logged(caplog, error)


@pytest.mark.parametrize("error", [Boom("boom"), SystemExit(1)])
@pytest.mark.parametrize("accepts", [False, True], ids=["before its answer", "after accepting"])
def test_an_upgrade_resource_that_raises(
    error: BaseException, accepts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    service = Recorder()

    def resource(http: Any, request: Any) -> None:
        if accepts:
            http.accept_upgrade()
        raise error

    with beside() as others:
        others.listener.upgrade("/", service=service)(resource)
        with watched(), RawPeer.dial(others.listener) as peer:
            peer.send_bytes(RawPeer.request() + frame(TEXT, b"x"))
            head = peer.read_head()
            assert head.startswith(b"HTTP/1.1 101 " if accepts else b"HTTP/1.1 500 ")
            if accepts:
                peer.expect_close(1011)
            else:
                everything(peer)
            others.served()
        service.quiet()
    logged(caplog, error)
