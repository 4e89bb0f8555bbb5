"""Clients that connect again through what has cut them off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import syncws
from tests.faults.proxy import DOWN, LOSSY, UP, Fault, Proxy
from tests.faults.test_network import DIRECTIONS, PLACES, SINK, SOURCE, Place
from tests.reconnecting import NOW, Reconnector
from tests.support import HANG, ServerRecorder, client_tls, listening, server_tls

CONFIG = syncws.ServiceConfig(compression=False)

#: Keeps a client that comes back at the door until the test lets it in.
HELD = Fault("delay", UP, 0, eager=True)


class Pair:
    """A client that connects again, and what the server has seen of all its connections."""

    def __init__(self, proxy: Proxy, service: ServerRecorder, client: syncws.Client) -> None:
        self.proxy = proxy
        self.service = service
        self.client = client
        self.caller: Any = None
        self.opened()

    def opened(self) -> None:
        """The server has a connection of this client."""
        self.caller = self.service.expect("on_open")

    def lost(self) -> None:
        """And has it no more."""
        self.service.expect("on_close", 1006, "")

    def back(self) -> None:
        """The server knows of the loss, and the client, which was `HELD` till now, is let in."""
        assert self.proxy.reached() == HELD
        self.lost()
        self.proxy.release()
        self.opened()


@contextlib.contextmanager
def pairs(*faults: Fault | None, tls: bool = False, **options: Any) -> Iterator[Pair]:
    """A client with a way back to the listener, which it closes in the end."""
    service = ServerRecorder(CONFIG)
    secure: dict[str, Any] = {"ssl": server_tls()} if tls else {}
    if tls:
        options["ssl"] = client_tls()
    with listening(service, **secure) as listener, Proxy(listener.port or 0, *faults) as proxy:
        url = proxy.url.replace("ws:", "wss:") if tls else proxy.url
        options = {"retry": NOW, "compression": False, **options}
        with syncws.Client(url, **options) as client:
            yield Pair(proxy, service, client)
        service.expect("on_close", 1000, "")
    assert service.calls.empty()


def send(place: Place, endpoint: Any) -> None:
    """Send what belongs there, as far as the connection takes it."""
    with contextlib.suppress(syncws.ConnectionClosed, syncws.Reconnecting):
        place.send(endpoint)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", LOSSY)
def test_a_client_with_callbacks_comes_back(
    kind: str, direction: str, place: str, tls: bool
) -> None:
    """What was amid the fault is not sent again, and the next connection begins afresh."""
    seen = Reconnector()
    where = PLACES[place]
    with pairs(None, HELD, service=seen, tls=tls) as pair:
        pair.proxy.arm(Fault(kind, direction, where.offset if tls else where.bytes_of(direction)))
        endpoints = {"client": pair.client, "server": pair.caller}
        sinks = {"client": seen, "server": pair.service}
        send(where, endpoints[SOURCE[direction]])
        pair.proxy.reached()
        if not tls:
            for message in where.before:
                sinks[SINK[direction]].expect("on_text", message)
        pair.back()
        attempt = seen.reconnected()
        assert isinstance(attempt.error, syncws.ConnectionClosed)
        assert attempt.error.received is None
        pair.client.send_text("again")
        pair.service.expect("on_text", "again")
        pair.caller.send_text("welcome")
        seen.expect("on_text", "welcome")
    seen.expect("on_close", 1000, "")
    assert seen.calls.empty()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", LOSSY)
def test_a_blocking_client_comes_back(kind: str, direction: str) -> None:
    """A receive waits for the next connection; only a send is told of the loss."""
    with pairs(None, HELD) as pair:
        pair.caller.send_text("first")
        assert pair.client.receive(timeout=HANG) == "first"
        pair.proxy.arm(Fault(kind, direction, 4))
        send(PLACES["amid a payload"], pair.client if direction == UP else pair.caller)
        pair.proxy.reached()
        pair.back()
        pair.caller.send_text("second")
        assert pair.client.receive(timeout=HANG) == "second"
        pair.client.send_text("third")
        pair.service.expect("on_text", "third")


#: Attempts that fail, each in its own way.
ATTEMPTS = (
    Fault("cut", UP, 20),
    Fault("reset", DOWN, 20),
    Fault("truncate", DOWN, 50),
    Fault("reset", UP, 0, eager=True),
)


def test_attempts_that_fail_on_the_way() -> None:
    seen = Reconnector()
    with pairs(None, *ATTEMPTS, service=seen) as pair:
        pair.proxy.arm(Fault("reset", DOWN, 0, eager=True))
        for number in range(1, len(ATTEMPTS) + 2):
            waiting = seen.attempt("waiting", number)
            kind = syncws.ConnectionClosed if number == 1 else syncws.ConnectError
            assert isinstance(waiting.error, kind)
            seen.attempt("connecting", number)
        seen.attempt("connected", len(ATTEMPTS) + 1)
        pair.client.send_text("arrived")
        # Of those that have failed the server knew two: it had answered them.
        told = [pair.service.next() for _ in range(7)]
        (arrived,) = [call.endpoint for call in told if call.args == ("arrived",)]
        opened = {call.endpoint for call in told if call.name == "on_open"}
        gone = [call for call in told if call.name == "on_close"]
        assert len(opened) == 3
        assert {call.endpoint for call in gone} == {pair.caller, *opened} - {arrived}
        assert all(call.args == (1006, "") for call in gone)
        arrived.send_text("hello")
        seen.expect("on_text", "hello")
    seen.expect("on_close", 1000, "")


@pytest.mark.parametrize("kind", LOSSY)
def test_the_first_connection_takes_several_attempts(kind: str) -> None:
    retry = syncws.RetryConfig(max_count=3, interval=0.0, jitter=0.0)
    faults = [Fault(kind, DOWN, 0)] * 3
    service = ServerRecorder(CONFIG)
    with (
        listening(service) as listener,
        Proxy(listener.port or 0, *faults) as proxy,
        syncws.Client(proxy.url, retry=retry) as client,
    ):
        client.send_text("hello")
        while service.next().args != ("hello",):
            pass


@pytest.mark.parametrize("kind", LOSSY)
def test_attempts_end_when_there_were_enough(kind: str) -> None:
    retry = syncws.RetryConfig(max_count=2, interval=0.0, jitter=0.0)
    faults = [Fault(kind, UP, 20)] * 3
    service = ServerRecorder(CONFIG)
    with listening(service) as listener, Proxy(listener.port or 0, *faults) as proxy:
        with pytest.raises(syncws.RetriesExhausted) as caught:
            syncws.Client(proxy.url, retry=retry)
        assert caught.value.attempts == 3
        ((url, reason),) = caught.value.reasons
        assert url == proxy.url
        assert isinstance(reason, syncws.ConnectError)
    assert service.calls.empty()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", LOSSY)
def test_a_failover_client_goes_on_to_the_next(kind: str, direction: str) -> None:
    """The second address has a fault as well, and the first is well again then."""
    seen = Reconnector()
    service = ServerRecorder(CONFIG)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(service))
        port = listener.port or 0
        one = stack.enter_context(Proxy(port, None, HELD))
        two = stack.enter_context(Proxy(port, Fault(kind, UP, 20)))
        client = syncws.FailoverClient([one.url, two.url], service=seen, failover_interval=0.0)
        stack.callback(client.close)
        caller = service.expect("on_open")
        one.arm(Fault(kind, direction, 3))
        with contextlib.suppress(syncws.ConnectionClosed, syncws.Reconnecting):
            (client if direction == UP else caller).send_text("lost")
        one.reached()
        urls = [(seen.attempt("waiting").url, seen.attempt("connecting").url) for _ in range(2)]
        assert urls == [(two.url,) * 2, (one.url,) * 2]
        assert one.reached() == HELD
        service.expect("on_close", 1006, "")
        one.release()
        assert seen.attempt("connected").url == one.url
        caller = service.expect("on_open")
        client.send_text("again")
        service.expect("on_text", "again")
        client.close()
        service.expect("on_close", 1000, "")
        seen.expect("on_close", 1000, "")
    assert service.calls.empty()
    assert seen.calls.empty()
