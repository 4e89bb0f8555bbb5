"""Time passes when a test says so, one thing that is due after the other."""

from __future__ import annotations

from typing import Any

import pytest

import syncws
from syncws.testing import (
    ManualClock,
    MemoryEngine,
    ScriptedServer,
    drop,
    expect_ping,
    ping,
    play,
    serving,
    silence,
)
from tests.reconnecting import Reconnector
from tests.support import HANG, RawPeer, ServerRecorder, Task


class Idle(ServerRecorder):
    config = syncws.ServiceConfig(idle_timeout=60, ping_interval=None)

    def on_idle_timeout(self, caller: Any) -> None:
        self.record("on_idle_timeout", caller)


def test_it_stands_still_but_for_advance() -> None:
    clock = ManualClock(5.0)
    assert clock() == 5.0
    clock.advance(0.5)
    clock.advance(0)
    assert clock() == 5.5
    assert repr(clock) == "<syncws.testing.ManualClock at 5.500 s>"


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_it_does_not_go_back(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be from 0"):
        ManualClock().advance(seconds)


def test_idleness_comes_to_the_second() -> None:
    clock = ManualClock()
    service = Idle()
    with serving(service, clock=clock) as site:
        site.connect("/", ping_interval=None)
        site.engine.settle()
        service.expect("on_open")
        clock.advance(59.9)
        assert service.calls.empty()
        clock.advance(0.2)
        service.expect("on_idle_timeout")
        clock.advance(5 * 60)
        assert service.calls.qsize() == 5
        while not service.calls.empty():
            service.expect("on_idle_timeout")


def test_keepalive_is_answered_as_often_as_it_is_due() -> None:
    clock = ManualClock()
    with serving(ServerRecorder(), clock=clock) as site:
        client = site.connect("/", ping_interval=20, ping_timeout=20)
        clock.advance(3600)
        assert client.is_open


def test_a_peer_that_does_not_answer_is_given_up() -> None:
    clock = ManualClock()
    service = ServerRecorder(syncws.ServiceConfig(ping_interval=20, ping_timeout=10))
    engine = MemoryEngine(clock=clock)
    with serving(service, engine=engine) as site:
        sock = engine.network.connect(80, None)
        sock.send(RawPeer.request())
        service.expect("on_open")
        clock.advance(29)
        assert service.calls.empty()
        clock.advance(2)
        assert isinstance(service.next().args[0], syncws.KeepaliveTimeout)
        service.expect("on_close", 1006, "")
        sock.close()
        site.engine.settle()


def test_a_handshake_that_does_not_come() -> None:
    clock = ManualClock()
    engine = MemoryEngine(clock=clock)
    with syncws.Listener(80, handshake_timeout=10, engine=engine):
        sock = engine.network.connect(80, None)
        engine.settle()
        clock.advance(9)
        assert not sock.readiness() & 1
        clock.advance(2)
        assert sock.recv(1000) == b""
        sock.close()


def test_a_client_comes_back_when_it_is_due() -> None:
    clock = ManualClock()
    engine = MemoryEngine(clock=clock)
    service = Reconnector()
    retry = syncws.RetryConfig(interval=60, max_interval=60, jitter=0)
    with (
        ScriptedServer([drop()], [silence()], engine=engine) as server,
        syncws.Client(server.url, service=service, retry=retry, engine=engine) as client,
    ):
        service.attempt("waiting", 1)
        engine.settle()
        clock.advance(59)
        assert service.calls.empty()
        clock.advance(2)
        service.attempt("connecting", 1)
        service.attempt("connected", 1)
        assert client.is_open


def test_a_call_that_blocks_goes_by_real_time() -> None:
    with serving(ServerRecorder(), clock=ManualClock()) as site:
        client = site.connect("/")
        with pytest.raises(syncws.ReceiveTimeout):
            client.receive(timeout=0.01)
        assert not client.wait_closed(0.01)


def test_a_send_that_nobody_reads_goes_by_real_time() -> None:
    engine = MemoryEngine(clock=ManualClock())
    service = ServerRecorder(syncws.ServiceConfig(send_timeout=0.05, ping_interval=None))
    with serving(service, engine=engine):
        sock = engine.network.connect(80, None)
        sock.send(RawPeer.request())
        caller = service.expect("on_open")
        with pytest.raises(syncws.SendTimeout):
            for _ in range(1000):
                caller.send_binary(bytes(100_000))
        sock.close()
        service.expect("on_close", 1006, "")


def test_several_engines_go_by_one_clock() -> None:
    clock = ManualClock()
    services = [Idle(), Idle()]
    with serving(services[0], clock=clock) as one, serving(services[1], clock=clock) as two:
        for site, service in zip((one, two), services, strict=True):
            site.connect("/", ping_interval=None)
            service.expect("on_open")
        clock.advance(61)
        for service in services:
            service.expect("on_idle_timeout")


def test_a_script_sees_the_pings() -> None:
    clock = ManualClock()
    service = ServerRecorder(syncws.ServiceConfig(ping_interval=20))
    with serving(service, clock=clock) as site:
        script = [ping(b"a"), expect_ping(), silence()]
        playing = Task(play, site.url("/"), script, engine=site.engine)
        caller = service.expect("on_open")
        site.engine.settle()
        for _ in range(3):
            clock.advance(20)
        caller.close(timeout=0)
        playing.result()


def test_close_timeout() -> None:
    clock = ManualClock()
    service = ServerRecorder(syncws.ServiceConfig(close_timeout=10, ping_interval=None))
    engine = MemoryEngine(clock=clock)
    with serving(service, engine=engine):
        sock = engine.network.connect(80, None)
        sock.send(RawPeer.request())
        caller = service.expect("on_open")
        caller.close(timeout=0)
        engine.settle()
        clock.advance(9)
        assert not caller._connection.wait_closed(0)
        clock.advance(2)
        assert caller._connection.wait_closed(HANG)
        sock.close()
