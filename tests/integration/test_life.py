"""The order of life: what is called when, for both ends of a connection."""

from __future__ import annotations

import gc
import logging
import queue
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

import syncws
from tests.support import (
    BINARY,
    CLOSE,
    HANG,
    PING,
    PONG,
    TEXT,
    Gate,
    RawPeer,
    RawServer,
    Recorder,
    ServerRecorder,
    Task,
    broken_log,
    close_payload,
    frame,
    interpreter,
    listening,
    news,
    open_pair,
    wait_until,
)

# No keepalive pings among the frames that a test reads.
QUIET_CONFIG = syncws.ServiceConfig(ping_interval=None, compression=False)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait long for those who have a closing peer's last messages."""
    monkeypatch.setattr("syncws.engine.connection._GRACE", 0.1)


@pytest.fixture
def long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everybody wait for those who have a closing peer's last messages, longer than a peer."""
    monkeypatch.setattr("syncws.engine.connection._GRACE", 2 * HANG)


both_roles = pytest.mark.parametrize("role", ["server", "client"])


@contextmanager
def end_of(role: str, service: Recorder, **options: Any) -> Iterator[RawPeer]:
    """A raw peer whose other end is a server's or a client's with this service.

    Of a server's the call of on_open is taken off already.
    """
    if role == "server":
        service.config = syncws.ServiceConfig(
            **{"ping_interval": None, "compression": False, **options}
        )
        with listening(service) as listener, RawPeer.connect(listener) as peer:
            if isinstance(service, ServerRecorder):
                service.expect("on_open")
            yield peer
    else:
        with open_pair(service=service, **{"ping_interval": None, **options}) as (_, peer):
            yield peer


# -- on_open -----------------------------------------------------------------


def test_no_message_is_delivered_before_on_open_has_returned() -> None:
    class Slow(ServerRecorder):
        def on_open(self, caller: syncws.Caller) -> None:
            super().on_open(caller)
            gate.block()
            self.record("on_open returns", caller)

    service = Slow(QUIET_CONFIG)
    with listening(service) as listener, RawPeer.dial(listener) as peer, Gate() as gate:
        # The first message comes with the handshake, in one segment.
        peer.send_bytes(RawPeer.request() + frame(TEXT, b"early"))
        peer.read_head()
        gate.reached()
        service.expect("on_open")
        peer.text("later")
        peer.round_trip()  # both have arrived
        service.quiet()
        gate.open()
        service.expect("on_open returns")
        service.expect("on_text", "early")
        service.expect("on_text", "later")


def test_a_caller_sends_from_on_open() -> None:
    class Greeter(Recorder):
        def on_open(self, caller: syncws.Caller) -> None:
            caller.send_text("welcome")

    with listening(Greeter(QUIET_CONFIG)) as listener, RawPeer.connect(listener) as peer:
        peer.expect(TEXT, "welcome")


def test_messages_that_come_with_the_response_reach_a_clients_service() -> None:
    service = Recorder()
    rest = frame(TEXT, b"at once", masked=False)
    with open_pair(service=service, rest=rest):
        service.expect("on_text", "at once")


def test_a_client_is_not_read_before_it_is_ready() -> None:
    service = Recorder()
    rest = frame(TEXT, b"early", masked=False)
    with open_pair(service=service, rest=rest, ready_on_connect=False) as (client, peer):
        peer.text("later")
        client.send_text("sending works")
        peer.expect(TEXT, "sending works")
        service.quiet()
        client.ready()
        service.expect("on_text", "early")
        service.expect("on_text", "later")
        client.ready()  # harmless
        peer.text("still")
        service.expect("on_text", "still")


def test_a_client_closes_that_never_was_ready() -> None:
    with open_pair(ready_on_connect=False) as (client, peer):
        closing = Task(client.close)
        peer.expect_close(1000)
        peer.close_frame(1000)
        peer.abort()
        closing.result()


# -- One at a time -----------------------------------------------------------


def test_callbacks_of_one_connection_never_overlap() -> None:
    messages, pings, senders = 300, 100, 3

    class Counting(syncws.Service):
        config = QUIET_CONFIG

        def __init__(self) -> None:
            self.inside = threading.Lock()
            self.overlaps = 0
            self.seen: queue.Queue[str] = queue.Queue()

        def enter(self, kind: str) -> None:
            if not self.inside.acquire(blocking=False):
                self.overlaps += 1
                return
            time.perf_counter()
            self.inside.release()
            self.seen.put(kind)

        def on_open(self, caller: syncws.Caller) -> None:
            self.enter("open")

        def on_text(self, caller: syncws.Caller, text: str) -> None:
            self.enter("text")

        def on_ping(self, caller: syncws.Caller, data: bytes) -> None:
            self.enter("ping")

        def on_close(self, caller: syncws.Caller, status_code: int, reason: str) -> None:
            self.enter("close")

    service = Counting()

    def flood(client: syncws.Client) -> None:
        for number in range(messages):
            client.send_text(str(number))
            if number < pings:
                client.ping()

    with listening(service) as listener:
        with syncws.Client(f"ws://127.0.0.1:{listener.port}/") as client:
            for task in [Task(flood, client) for _ in range(senders)]:
                task.result()
            kinds = [
                service.seen.get(timeout=HANG) for _ in range(1 + senders * (messages + pings))
            ]
        kinds.append(service.seen.get(timeout=HANG))
    assert service.overlaps == 0
    assert kinds[0] == "open"
    assert kinds[-1] == "close"
    assert kinds.count("text") == senders * messages
    assert kinds.count("ping") == senders * pings


@both_roles
def test_messages_come_in_order(role: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service) as peer:
        texts = [str(number) for number in range(1000)]
        peer.text(*texts)
        for text in texts:
            service.expect("on_text", text)


def test_other_connections_go_on_while_callbacks_block() -> None:
    class Blocking(Recorder):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            if text == "block":
                gate.block()
            caller.send_text(text)

    blocked = 12  # more than the pool has workers at first
    with listening(Blocking(QUIET_CONFIG)) as listener, ExitStack() as stack, Gate() as gate:
        peers = [stack.enter_context(RawPeer.connect(listener)) for _ in range(blocked)]
        other = stack.enter_context(RawPeer.connect(listener))
        for peer in peers:
            peer.text("block")
            gate.reached()
            other.text("hello")
            other.expect(TEXT, "hello")
        gate.open()
        for peer in peers:
            peer.expect(TEXT, "block")


def test_blocking_calls_in_the_only_worker_do_not_deadlock() -> None:
    class Busy(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            for _ in range(50):  # far more than the buffer takes
                caller.send_binary(bytes(65_536))
            caller.close(4000)
            super().on_text(caller, text)

    service = Busy(
        syncws.ServiceConfig(ping_interval=None, compression=False, send_buffer_size=1000)
    )
    engine = syncws.Engine(workers=1, max_workers=1)
    with (
        listening(service, engine=engine) as listener,
        RawPeer.connect(listener, receive_buffer=4096) as peer,
    ):
        peer.text("go")
        for _ in range(50):
            peer.expect(BINARY, bytes(65_536))
        peer.expect_close(4000)
        peer.close_frame(4000)
        peer.abort()
        service.expect("on_text", "go")
        service.expect("on_close", 4000, "")


@pytest.mark.usefixtures("short_grace")
def test_control_frames_do_not_wait_for_a_worker() -> None:
    class Blocking(ServerRecorder):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()

    service = Blocking(QUIET_CONFIG)
    engine = syncws.Engine(workers=1, max_workers=1)
    with (
        listening(service, engine=engine) as listener,
        RawPeer.connect(listener) as stuck,
        Gate() as gate,
    ):
        service.expect("on_open")
        stuck.text("x")
        gate.reached()
        stuck.round_trip()
        with RawPeer.connect(listener) as other:  # its on_open waits for the worker
            other.round_trip()
            other.finish()
        service.quiet()
        gate.open()
        service.expect("on_open")
        service.expect("on_close", 1000, "")


# -- Pings -------------------------------------------------------------------


@both_roles
def test_without_on_ping_the_pong_is_automatic(role: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service) as peer:
        peer.send(PING, b"payload")
        peer.expect(PONG, b"payload")
        service.quiet()


def test_a_pong_is_automatic_while_a_callback_blocks() -> None:
    class Blocking(Recorder):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            gate.block()

    with end_of("server", Blocking()) as peer, Gate() as gate:
        peer.text("x")
        gate.reached()
        peer.round_trip()


@both_roles
def test_with_on_ping_the_pong_is_the_services(role: str) -> None:
    class Pinged(Recorder):
        def on_ping(self, caller: Any, data: bytes) -> None:
            self.record("on_ping", caller, data)

    service = Pinged()
    with end_of(role, service) as peer:
        peer.send(PING, b"one")
        endpoint = service.expect("on_ping", b"one")
        endpoint.send_text("no pong before this")
        endpoint.pong(b"mine")
        peer.expect(TEXT, "no pong before this")
        peer.expect(PONG, b"mine")


@both_roles
def test_a_pong_comes_to_on_pong(role: str) -> None:
    class Server(ServerRecorder):
        def on_open(self, caller: Any) -> None:
            super().on_open(caller)
            caller.ping(b"ours")

    service = Server() if role == "server" else Recorder()
    with end_of(role, service) as peer:
        if role == "server":
            peer.expect(PING, b"ours")
        peer.send(PONG, b"ours")
        service.expect("on_pong", b"ours")


@both_roles
def test_keepalive_pings_are_answered_and_measured(role: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service, ping_interval=0.02, ping_timeout=HANG) as peer:
        for _ in range(2):
            peer.send(PONG, peer.expect(PING))
        peer.text("now")
        endpoint = service.expect("on_text", "now")
        assert 0 < endpoint.latency < HANG


@both_roles
def test_a_peer_that_is_silent_after_a_ping_is_dropped(role: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service, ping_interval=0.02, ping_timeout=0.03) as peer:
        peer.expect(PING)
        call = service.next()
        assert call.name == "on_error"
        assert isinstance(call.args[0], syncws.KeepaliveTimeout)
        assert isinstance(call.args[0], TimeoutError)
        service.expect("on_close", 1006, "")
        peer.expect_close(1011)
        peer.expect_end()


# -- Errors ------------------------------------------------------------------

BAD_FRAMES = {
    "reserved opcode": (frame(0x3), 1002, syncws.ProtocolError),
    "continuation of nothing": (frame(0x0), 1002, syncws.InvalidContinuationFrameError),
    "no UTF-8": (frame(TEXT, b"\xff"), 1007, syncws.InvalidPayloadError),
    "unmasked": (frame(TEXT, b"x", masked=False), 1002, syncws.ProtocolError),
}


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_on_error_comes_after_the_close_frame(kind: str) -> None:
    data, code, error_type = BAD_FRAMES[kind]
    got: queue.Queue[Any] = queue.Queue()

    class Failing(Recorder):
        def on_error(self, caller: Any, error: BaseException) -> None:
            got.put(peer.expect_close())  # it is there, while we are here
            got.put(caller.is_open)
            super().on_error(caller, error)

    service = Failing()
    with end_of("server", service) as peer:
        peer.text("fine")
        service.expect("on_text", "fine")
        peer.send_bytes(data)
        assert got.get(timeout=HANG)[0] == code
        assert got.get(timeout=HANG) is False
        call = service.next()
        assert call.name == "on_error"
        assert type(call.args[0]) is error_type
        peer.expect_end()
        peer.abort()
        service.expect("on_close", 1006, "")


def test_a_client_fails_a_server_that_masks() -> None:
    service = Recorder()
    with open_pair(service=service, ping_interval=None) as (client, peer):
        peer.send_bytes(frame(TEXT, b"x", masked=True))
        peer.expect_close(1002)
        call = service.next()
        assert call.name == "on_error"
        assert type(call.args[0]) is syncws.ProtocolError
        peer.expect_end()
        peer.abort()
        service.expect("on_close", 1006, "")
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.send_text("x")
        assert caught.value.received is None
        assert caught.value.sent is not None
        assert caught.value.sent.code == 1002
        assert caught.value.__cause__ is call.args[0]


def test_messages_before_the_bad_frame_are_delivered() -> None:
    service = ServerRecorder()
    with end_of("server", service) as peer:
        peer.send_bytes(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(0x3) + frame(TEXT, b"no"))
        service.expect("on_text", "one")
        service.expect("on_text", "two")
        service.expect("on_error")
        peer.expect_close(1002)
        peer.abort()
        service.expect("on_close", 1006, "")
        service.quiet()


# -- on_close ----------------------------------------------------------------


@both_roles
def test_on_close_has_the_peers_code_and_reason(role: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service) as peer:
        peer.close_frame(4321, "because")
        assert peer.expect_close() == (4321, "")
        if role == "server":
            peer.expect_end()
        peer.abort()
        endpoint = service.expect("on_close", 4321, "because")
        service.quiet()
        assert not endpoint.is_open


@both_roles
def test_on_close_has_1005_for_a_close_frame_without_a_code(role: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service) as peer:
        peer.send(CLOSE)
        peer.expect(CLOSE, b"")
        peer.abort()
        service.expect("on_close", 1005, "")


@both_roles
@pytest.mark.parametrize("way", ["end", "reset"])
def test_on_close_has_1006_without_a_close_frame(role: str, way: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service) as peer:
        peer.text("hello")
        service.expect("on_text", "hello")
        if way == "end":
            peer.abort()
        else:
            peer.reset()
        service.expect("on_close", 1006, "")
        service.quiet()


@both_roles
def test_on_close_waits_for_the_callback_that_runs(role: str) -> None:
    class Blocking(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()
            super().on_text(caller, text)

    service = Blocking()
    with end_of(role, service) as peer, Gate() as gate:
        peer.text("x")
        gate.reached()
        peer.abort()
        service.quiet()
        gate.open()
        service.expect("on_text", "x")
        service.expect("on_close", 1006, "")
        service.quiet()


@both_roles
def test_on_close_comes_after_this_ends_own_close(role: str) -> None:
    class Closing(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            caller.close(4000, "enough", timeout=0)
            super().on_text(caller, text)

    service = Closing()
    with end_of(role, service) as peer:
        peer.text("x")
        assert peer.expect_close() == (4000, "enough")
        service.expect("on_text", "x")
        peer.close_frame(4000)
        peer.abort()
        service.expect("on_close", 4000, "")
        service.quiet()


def test_a_callback_may_block_in_close() -> None:
    class Closing(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            caller.close(4000)
            super().on_text(caller, text)

    service = Closing()
    with end_of("server", service) as peer:
        peer.text("x")
        peer.expect_close(4000)
        service.quiet()  # it waits for us
        peer.close_frame(4000)
        peer.abort()
        service.expect("on_text", "x")
        service.expect("on_close", 4000, "")


# -- Callbacks that raise ----------------------------------------------------


class Boom(Exception):
    """What a test's callback raises."""


def raising(name: str) -> type[Recorder]:
    """Return a service whose callback of this name raises."""

    def fail(self: Recorder, caller: Any, *args: Any) -> None:
        if args == ("spare me",):
            caller.send_text("spared")
            return
        self.record(name, caller, *args)
        raise Boom(name)

    if name in ("on_text", "on_binary", "on_ping", "on_pong"):

        def one(self: Recorder, caller: Any, value: Any) -> None:
            fail(self, caller, value)

        function: Any = one
    elif name == "on_error":

        def error(self: Recorder, caller: Any, error: BaseException) -> None:
            fail(self, caller, error)

        function = error
    elif name == "on_close":

        def close(self: Recorder, caller: Any, status_code: int, reason: str) -> None:
            fail(self, caller, status_code, reason)

        function = close
    else:

        def bare(self: Recorder, caller: Any) -> None:
            fail(self, caller)

        function = bare
    return type("Raising", (Recorder,), {name: function})


TRIGGERS = {
    "on_open": b"",
    "on_text": frame(TEXT, b"x"),
    "on_binary": frame(BINARY, b"x"),
    "on_ping": frame(PING, b"x"),
    "on_pong": frame(PONG, b"x"),
    "on_idle_timeout": b"",
}


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_callback_that_raises_is_logged_once_and_closes_with_1011(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    idle_timeout = 0.03 if name == "on_idle_timeout" else None
    service = raising(name)(
        syncws.ServiceConfig(ping_interval=None, compression=False, idle_timeout=idle_timeout)
    )
    with (
        listening(service, "/some/path") as listener,
        RawPeer.connect(listener, "/some/path") as peer,
    ):
        peer.send_bytes(TRIGGERS[name])
        service.expect(name)
        assert peer.expect_close() == (1011, "internal error")
        error = service.next()
        assert error.name == "on_error"
        assert isinstance(error.args[0], Boom)
        peer.close_frame(1011)
        peer.expect_end()
        peer.abort()
        service.expect("on_close", 1011, "")
        service.quiet()
    (record,) = logged(caplog)
    assert record.name == "syncws.server"
    assert "/some/path" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Boom)


def test_a_clients_callback_that_raises_is_logged_with_the_url(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = raising("on_text")()
    with open_pair(service=service) as (client, peer):
        peer.text("x")
        peer.expect_close(1011)
        service.expect("on_text", "x")
        service.expect("on_error")
        peer.abort()
        service.expect("on_close", 1006, "")
        (record,) = logged(caplog)
        assert record.name == "syncws.client"
        assert client.url in record.getMessage()


def test_messages_behind_the_one_that_raised_are_not_delivered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = raising("on_text")()
    with end_of("server", service) as peer:
        peer.text("one", "two", "three")
        peer.expect_close(1011)
        peer.abort()
        service.expect("on_text", "one")
        service.expect("on_error")
        service.expect("on_close", 1006, "")
        service.quiet()
    assert len(logged(caplog)) == 1


class Coded(Exception):
    """As those of web frameworks are."""

    def __init__(self, status_code: Any) -> None:
        super().__init__(status_code)
        self.status_code = status_code


@pytest.mark.parametrize("code", [404, "404 Not Found", 70_000, None])
def test_a_status_code_of_the_exception_is_no_close_code(code: Any) -> None:
    class Refusing(ServerRecorder):
        def on_text(self, caller: Any, text: str) -> None:
            raise Coded(code)

    service = Refusing(QUIET_CONFIG)
    with listening(service) as listener, RawPeer.connect(listener) as peer:
        service.expect("on_open")
        peer.text("x")
        assert peer.expect_close() == (1011, "internal error")
        peer.close_frame(1011)
        peer.expect_end()
        peer.abort()
        (error,) = service.next().args
        assert isinstance(error, Coded)
        service.expect("on_close", 1011, "")
        began = time.monotonic()
        listener.stop(HANG)
        assert time.monotonic() - began < HANG / 2


def test_a_log_that_raises_changes_nothing() -> None:
    service = raising("on_text")(QUIET_CONFIG)
    with (
        broken_log("syncws.server"),
        listening(service) as listener,
        RawPeer.connect(listener) as peer,
        RawPeer.connect(listener) as other,
    ):
        peer.text("x")
        peer.expect_close(1011)
        peer.close_frame(1011)
        peer.expect_end()
        peer.abort()
        for name in ("on_text", "on_error", "on_close"):
            service.expect(name)
        other.round_trip()


@pytest.mark.parametrize("how", ["sends", "raises"])
def test_messages_behind_the_loss_of_the_connection_are_not_delivered(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Late(ServerRecorder):
        def on_text(self, caller: Any, text: str) -> None:
            super().on_text(caller, text)
            assert caller._connection.wait_closed(HANG)
            if how == "raises":
                raise Boom
            caller.send_text("you are gone")

    service = Late(QUIET_CONFIG)
    caplog.set_level(logging.INFO, "syncws.server")
    with listening(service) as listener:
        peer = RawPeer.connect(listener)
        service.expect("on_open")
        peer.text(*(str(n) for n in range(50)))
        peer.round_trip()
        peer.reset()
        service.expect("on_text", "0")
        if how == "raises":
            service.expect("on_error")
        service.expect("on_close", 1006, "")
        service.quiet()
    (record,) = news(caplog)
    assert record.levelno == (logging.ERROR if how == "raises" else logging.INFO)
    assert bool(record.exc_info) is (how == "raises")


def test_other_connections_are_unaffected_by_one_that_raises() -> None:
    service = raising("on_text")(QUIET_CONFIG)
    with (
        listening(service) as listener,
        RawPeer.connect(listener) as other,
        RawPeer.connect(listener) as peer,
    ):
        peer.text("x")
        peer.expect_close(1011)
        other.text("spare me")
        other.expect(TEXT, "spared")


def test_nothing_comes_after_an_on_close_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    service = raising("on_close")()
    with end_of("server", service) as peer:
        peer.finish()
        service.expect("on_close", 1000, "")
        service.quiet()
    assert len(logged(caplog)) == 1


def test_an_on_error_that_raises_is_not_called_again(caplog: pytest.LogCaptureFixture) -> None:
    service = raising("on_error")()
    with end_of("server", service) as peer:
        peer.send(0x3)
        peer.expect_close(1002)
        peer.abort()
        service.expect("on_error")
        service.expect("on_close", 1006, "")
        service.quiet()
    assert len(logged(caplog)) == 1


@pytest.mark.usefixtures("short_grace")
def test_on_error_comes_once_when_both_ends_fail(caplog: pytest.LogCaptureFixture) -> None:
    class Raising(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()
            raise Boom

    service = Raising()
    with end_of("server", service) as peer, Gate() as gate:
        peer.text("x")
        gate.reached()
        peer.send(0x3)
        peer.expect_close(1002)  # at the end of the grace
        gate.open()
        peer.abort()
        service.expect("on_error")
        service.expect("on_close", 1006, "")
        service.quiet()
    assert len(logged(caplog)) == 1


def test_on_close_comes_when_the_connection_ends_while_a_callback_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Raising(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()
            raise Boom

    service = Raising()
    with end_of("server", service) as peer, Gate() as gate:
        peer.text("x")
        gate.reached()
        peer.abort()
        gate.open()
        service.expect("on_error")
        service.expect("on_close", 1006, "")
        service.quiet()
    assert len(logged(caplog)) == 1


def test_a_service_class_that_cannot_be_made_closes_with_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Unmade(Recorder):
        def __init__(self) -> None:
            raise Boom

    with listening(Unmade) as listener, RawPeer.connect(listener) as peer:
        peer.expect_close(1011)
    assert len(logged(caplog)) == 1


# -- Idleness ----------------------------------------------------------------


class Idle(Recorder):
    def on_idle_timeout(self, caller: Any) -> None:
        self.record("on_idle_timeout", caller)


@both_roles
def test_on_idle_timeout_comes_again_after_each_idle_period(role: str) -> None:
    service = Idle()
    with end_of(role, service, idle_timeout=0.03) as peer:
        began = time.monotonic()
        for _ in range(3):
            service.expect("on_idle_timeout")
        assert time.monotonic() - began > 0.05
        peer.round_trip()  # the connection goes on


@both_roles
def test_without_on_idle_timeout_the_connection_is_closed_with_1001(role: str) -> None:
    service = Recorder()
    with end_of(role, service, idle_timeout=0.03) as peer:
        assert peer.expect_close() == (1001, "idle timeout")
        peer.close_frame(1001)
        peer.abort()
        service.expect("on_close", 1001, "")
        service.quiet()


def test_a_blocking_client_is_closed_when_it_is_idle() -> None:
    with open_pair(idle_timeout=0.05, ping_interval=None) as (client, peer):
        peer.text("before")
        assert client.receive(timeout=HANG) == "before"
        # It does not come back for more: that is idle, too.
        peer.expect_close(1001)
        peer.close_frame(1001)
        peer.abort()
        with pytest.raises(syncws.ConnectionClosed):
            client.receive(timeout=HANG)


@both_roles
@pytest.mark.parametrize("direction", ["in", "out"])
def test_messages_in_either_direction_put_idleness_off(role: str, direction: str) -> None:
    period = 0.1

    class Timed(Recorder):
        def on_idle_timeout(self, caller: Any) -> None:
            idle.put(time.monotonic())

        def on_ping(self, caller: Any, data: bytes) -> None:
            self.record("on_ping", caller, data)

    idle: queue.Queue[float] = queue.Queue()
    service = Timed()
    activities: list[tuple[float, float]] = []
    with end_of(role, service, idle_timeout=period) as peer:
        peer.text("hello")
        endpoint = service.expect("on_text", "hello")
        times = []
        for _ in range(20):
            with suppress(queue.Empty):
                times.append(idle.get(timeout=period / 10))
            before = time.monotonic()
            if direction == "in":
                peer.text("more")
                service.expect("on_text", "more")
            else:
                endpoint.send_binary(b"more")
                peer.expect(BINARY, b"more")
                # What was idleness before the message is told of before this, which is none.
                peer.send(PING)
                service.expect("on_ping")
            activities.append((before, time.monotonic()))
        times.append(idle.get(timeout=HANG))
    # It comes, however slow this machine is, but never within a period of a message.
    for when in times:
        assert all(when - before > 0.9 * period for before, after in activities if after <= when)


@both_roles
def test_pings_do_not_count_as_messages(role: str) -> None:
    service = Idle()
    with end_of(role, service, idle_timeout=0.15, ping_interval=0.02) as peer:

        def answer() -> None:
            with suppress(EOFError, OSError):
                while True:
                    got = peer.read()
                    if got.opcode == PING:
                        peer.send(PONG, got.payload)
                        peer.send(PING)

        answering = Task(answer)
        try:
            service.expect("on_idle_timeout")
        finally:
            peer.sock.shutdown(socket.SHUT_RDWR)
            answering.result()


def test_a_running_callback_is_not_idle() -> None:
    class Working(Idle):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()
            self.record("on_text returns", caller)

    service = Working()
    with end_of("server", service, idle_timeout=0.02) as peer, Gate() as gate:
        service.expect("on_idle_timeout")
        peer.text("work")
        gate.reached()
        while not service.calls.empty():
            service.expect("on_idle_timeout")  # from before
        service.quiet()
        gate.open()
        service.expect("on_text returns")  # none came meanwhile
        service.expect("on_idle_timeout")


# -- close -------------------------------------------------------------------


@both_roles
def test_a_second_close_is_harmless(role: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service) as peer:
        peer.text("x")
        endpoint = service.expect("on_text", "x")
        closing = [Task(endpoint.close, 4000 + number) for number in range(4)]
        code, _ = peer.expect_close()
        assert 4000 <= code < 4004
        endpoint.close(4010, timeout=0)
        peer.close_frame(code)
        if role == "server":
            peer.expect_end()  # no second close frame
        peer.abort()
        for task in closing:
            task.result()
        service.expect("on_close", code, "")
        endpoint.close()
        endpoint.close(1001, "again", timeout=0)
        service.quiet()


@both_roles
def test_close_after_the_peers_close_is_harmless(role: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service) as peer:
        peer.text("x")
        endpoint = service.expect("on_text", "x")
        peer.close_frame(4000)
        peer.expect_close(4000)
        peer.abort()
        endpoint.close()
        service.expect("on_close", 4000, "")
        service.quiet()


def test_on_close_may_close_and_may_not_send() -> None:
    errors: queue.Queue[BaseException] = queue.Queue()

    class Last(Recorder):
        def on_close(self, caller: Any, status_code: int, reason: str) -> None:
            caller.close()
            try:
                caller.send_text("too late")
            except syncws.ConnectionClosed as exc:
                errors.put(exc)

    with end_of("server", Last()) as peer:
        peer.finish(1000)
        error = errors.get(timeout=HANG)
        assert isinstance(error, syncws.ConnectionClosed)
        assert error.received == (1000, "")
        assert error.sent == (1000, "")


def test_close_without_waiting_returns_at_once() -> None:
    with open_pair(close_timeout=0.2) as (client, peer):
        client.close(timeout=0)
        assert not client.is_open
        peer.expect_close(1000)
        peer.expect_end()  # at close_timeout, though we never answered


def test_close_returns_at_its_timeout_when_the_peer_is_silent() -> None:
    with open_pair() as (client, peer):
        began = time.monotonic()
        client.close(timeout=0.1)
        assert 0.05 < time.monotonic() - began < HANG / 2
        peer.expect_close(1000)
        peer.expect_end()


def blocked(task_beats: queue.Queue[None]) -> None:
    """Return once a thread that reports each of its steps has reported none for a while."""
    task_beats.get(timeout=HANG)
    try:
        while True:
            task_beats.get(timeout=0.1)
    except queue.Empty:
        pass


def send_until_closed(endpoint: Any, beats: queue.Queue[None]) -> None:
    data = bytes(65_536)
    while True:
        beats.put(None)
        endpoint.send_binary(data)


def test_close_wakes_every_thread_blocked_in_receive() -> None:
    with open_pair() as (client, peer):
        receiving = [Task(client.receive) for _ in range(3)]
        receiving += [Task(client.receive, timeout=HANG)]
        closing = Task(client.close)
        peer.expect_close(1000)
        # They wake at once; the peer has not answered yet.
        for task in receiving:
            assert isinstance(task.error(), syncws.ConnectionClosed)
        peer.close_frame(1000)
        peer.abort()
        closing.result()


@both_roles
def test_close_wakes_every_thread_blocked_in_send(role: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service, send_buffer_size=65_536, send_timeout=None) as peer:
        peer.text("x")
        endpoint = service.expect("on_text", "x")
        beats: queue.Queue[None] = queue.Queue()
        sending = [Task(send_until_closed, endpoint, beats) for _ in range(3)]
        blocked(beats)
        wait_until(lambda: endpoint.buffered_amount > 65_536)
        assert all(task.is_alive() for task in sending)
        closing = Task(endpoint.close, timeout=0.1)
        for task in sending:
            assert isinstance(task.error(), syncws.ConnectionClosed)
        closing.result()
        service.expect("on_close", 1006, "")
        assert endpoint.buffered_amount == 0


@both_roles
def test_the_peers_end_wakes_every_thread_blocked_in_send(role: str) -> None:
    service = (ServerRecorder if role == "server" else Recorder)()
    with end_of(role, service, send_buffer_size=65_536, send_timeout=None) as peer:
        peer.text("x")
        endpoint = service.expect("on_text", "x")
        beats: queue.Queue[None] = queue.Queue()
        sending = [Task(send_until_closed, endpoint, beats) for _ in range(3)]
        blocked(beats)
        peer.reset()
        for task in sending:
            assert isinstance(task.error(), syncws.ConnectionClosed)
        service.expect("on_close", 1006, "")


@pytest.mark.parametrize("way", ["close", "abort"])
def test_the_peers_end_wakes_every_thread_blocked_in_receive(way: str) -> None:
    with open_pair() as (client, peer):
        receiving = [Task(client.receive) for _ in range(3)]
        if way == "close":
            peer.close_frame(4000, "bye")
        peer.end_writing()
        errors = [task.error() for task in receiving]
        for error in errors:
            assert isinstance(error, syncws.ConnectionClosed)
            assert error.received == ((4000, "bye") if way == "close" else None)


def test_close_from_one_callback_wakes_a_send_in_another_thread() -> None:
    class Closer(Recorder):
        def on_binary(self, caller: Any, data: bytes) -> None:
            caller.close(4000, timeout=0)

    service = Closer()
    with end_of(
        "server", service, send_buffer_size=1, send_timeout=None, close_timeout=0.2
    ) as peer:
        peer.text("x")
        endpoint = service.expect("on_text", "x")
        beats: queue.Queue[None] = queue.Queue()
        sending = Task(send_until_closed, endpoint, beats)
        blocked(beats)
        peer.send(BINARY, b"close!")
        assert isinstance(sending.error(), syncws.ConnectionClosed)
        service.expect("on_close", 1006, "")


@both_roles
def test_no_message_is_delivered_after_this_end_has_closed(role: str) -> None:
    class Closing(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()
            caller.close(4000, timeout=0)
            super().on_text(caller, text)

    service = Closing()
    with end_of(role, service) as peer, Gate() as gate:
        peer.text("one", "two", "three")
        gate.reached()
        peer.round_trip()  # all three have arrived
        gate.open()
        peer.expect_close(4000)
        peer.text("four")
        peer.close_frame(4000)
        peer.abort()
        service.expect("on_text", "one")
        service.expect("on_close", 4000, "")
        service.quiet()


def test_no_message_is_received_after_this_end_has_closed() -> None:
    with open_pair() as (client, peer):
        peer.text("one", "two")
        peer.round_trip()
        assert client.receive(timeout=HANG) == "one"
        client.close(timeout=0)
        for _ in range(2):
            with pytest.raises(syncws.ConnectionClosed):
                client.receive(timeout=HANG)
        peer.expect_close(1000)


# -- The end of a blocking client --------------------------------------------


def state_of(error: syncws.ConnectionClosed) -> tuple[Any, ...]:
    return error.received, error.sent, error.__cause__


@pytest.mark.parametrize("way", ["close", "abort", "failure"])
def test_messages_before_the_peers_end_are_received_then_always_the_same(way: str) -> None:
    with open_pair(ping_interval=None) as (client, peer):
        texts = [str(number) for number in range(5)]
        peer.text(*texts)
        if way == "close":
            peer.close_frame(4000, "bye")
        elif way == "failure":
            peer.send_bytes(frame(0x3, masked=False))
        peer.end_writing()
        for text in texts:
            assert client.receive(timeout=HANG) == text
        states = []
        for attempt in (client.receive, client.receive_text, client.receive_binary, client.receive):
            with pytest.raises(syncws.ConnectionClosed) as caught:
                attempt(timeout=HANG)
            states.append(state_of(caught.value))
        client.close()
        for send in (client.ping, client.pong, lambda: client.send_text("x")):
            with pytest.raises(syncws.ConnectionClosed) as caught:
                send()
            states.append(state_of(caught.value))
        assert len(set(states)) == 1, states
        received, sent, cause = states[0]
        if way == "close":
            assert (received, sent, cause) == ((4000, "bye"), (4000, ""), None)
        elif way == "abort":
            assert (received, sent, cause) == (None, None, None)
        else:
            assert received is None
            assert sent.code == 1002
            assert isinstance(cause, syncws.ProtocolError)


@pytest.mark.usefixtures("long_grace")
def test_a_reply_to_the_last_message_goes_out_before_the_close_frame() -> None:
    with open_pair(ping_interval=None) as (client, peer):
        peer.text("question")
        peer.close_frame(1000)
        assert client.receive(timeout=HANG) == "question"
        client.send_text("answer")
        with pytest.raises(syncws.ConnectionClosed):
            client.receive(timeout=HANG)
        peer.expect(TEXT, "answer")
        peer.expect_close(1000)


@pytest.mark.usefixtures("long_grace")
def test_a_callbacks_reply_to_the_last_message_goes_out_before_the_close_frame() -> None:
    class Answering(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()
            caller.send_text("answer")

    with end_of("server", Answering()) as peer, Gate() as gate:
        peer.send_bytes(frame(TEXT, b"question") + frame(CLOSE, close_payload(1000)))
        gate.reached()
        gate.open()
        peer.expect(TEXT, "answer")
        peer.expect_close(1000)


@both_roles
@pytest.mark.parametrize("last", ["close", "failure"])
@pytest.mark.usefixtures("short_grace")
def test_a_peer_that_ends_tcp_behind_its_last_frame_gets_the_close_frame(
    role: str, last: str
) -> None:
    class Blocking(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()

    service = Blocking()
    with end_of(role, service) as peer, Gate() as gate:
        peer.text("x")
        gate.reached()
        if last == "close":
            peer.close_frame(4000)
        else:
            peer.send(0x3)
        peer.end_writing()
        peer.expect_close(4000 if last == "close" else 1002)
        gate.open()
        if last == "failure":
            service.expect("on_error")
        service.expect("on_close", *((4000, "") if last == "close" else (1006, "")))


@both_roles
@pytest.mark.usefixtures("short_grace")
def test_the_peers_close_is_answered_while_a_callback_sleeps(role: str) -> None:
    class Blocking(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()
            super().on_text(caller, text)

    service = Blocking()
    with end_of(role, service) as peer, Gate() as gate:
        peer.text("x")
        gate.reached()
        began = time.monotonic()
        peer.close_frame(1000)
        peer.expect_close(1000)
        assert time.monotonic() - began < 5
        service.quiet()  # the callback still sleeps
        gate.open()
        service.expect("on_text", "x")
        peer.abort()
        service.expect("on_close", 1000, "")


@pytest.mark.usefixtures("short_grace")
def test_the_peers_close_is_answered_though_nobody_receives() -> None:
    with open_pair(ping_interval=None) as (_, peer):
        peer.text("nobody takes this")
        peer.close_frame(1000)
        peer.expect_close(1000)


def test_the_grace_is_half_a_second() -> None:
    with open_pair(ping_interval=None) as (_, peer):
        peer.text("nobody takes this")
        peer.round_trip()
        began = time.monotonic()
        peer.close_frame(1000)
        peer.expect_close(1000)
        assert 0.45 < time.monotonic() - began < 5


@pytest.mark.usefixtures("long_grace")
def test_an_idle_connections_close_is_answered_at_once() -> None:
    service = ServerRecorder()
    with end_of("server", service) as peer:
        peer.finish(1000)
        service.expect("on_close", 1000, "")


def test_a_connection_and_its_service_are_freed_when_it_has_ended() -> None:
    class Once(syncws.Service):
        config = QUIET_CONFIG

        def __init__(self) -> None:
            made.append(weakref.ref(self))

        def on_text(self, caller: Any, text: str) -> None:
            made.append(weakref.ref(caller))

        def on_close(self, caller: Any, status_code: int, reason: str) -> None:
            ended.set()

    made: list[weakref.ref[Any]] = []
    ended = threading.Event()
    with listening(Once) as listener:
        with RawPeer.connect(listener) as peer:
            peer.text("x")
            peer.finish()
        assert ended.wait(HANG)
    gc.collect()
    assert len(made) == 2
    assert [ref() for ref in made] == [None, None]


@pytest.mark.parametrize("kind", ["blocking", "service"])
def test_ended_connections_are_freed_without_the_garbage_collector(kind: str) -> None:
    class Server(syncws.Service):
        config = syncws.ServiceConfig()

        def on_text(self, caller: Any, text: str) -> None:
            watch(caller)
            caller.send_text(text)

    class Callbacks(syncws.Service):
        def on_text(self, client: Any, text: str) -> None:
            received.put(text)

    def watch(endpoint: Any) -> None:
        watched.append(weakref.ref(endpoint._connection, lambda _: freed.put(None)))

    def talk() -> None:
        service = Callbacks() if kind == "service" else None
        with syncws.Client(f"ws://127.0.0.1:{listener.port}/", service=service) as client:
            watch(client)
            client.send_text("x")
            assert (client.receive(HANG) if service is None else received.get(timeout=HANG)) == "x"

    watched: list[weakref.ref[Any]] = []
    freed: queue.Queue[None] = queue.Queue()
    received: queue.Queue[str] = queue.Queue()
    with listening(Server()) as listener:
        talk()  # whatever is made once
        for _ in range(2):
            freed.get(timeout=HANG)
        gc.disable()
        try:
            talk()
            for _ in range(2):
                freed.get(timeout=HANG)
        finally:
            gc.enable()
    assert [ref() for ref in watched] == [None] * 4


def test_a_client_that_is_forgotten_warns_and_lets_its_connection_go() -> None:
    with RawServer() as server:
        opening = Task(syncws.Client, server.url)
        with server.accept() as peer:
            peer.answer()
            client = opening.result()
            del opening
            with pytest.warns(ResourceWarning, match="was not closed"):
                del client
            peer.expect_end()


# -- The end of the process --------------------------------------------------

_ECHO = """
import sys, threading, syncws
reached = threading.Event()
class Echo(syncws.Service):
    def on_text(self, caller, text):
        if text == "block":
            reached.set()
            threading.Event().wait()
        caller.send_text(text)
listener = syncws.Listener(0)
listener.attach("/", Echo())
listener.start()
url = f"ws://127.0.0.1:{listener.port}/"
"""

ENDINGS = {
    "an open listener": "",
    "an open client": "client = syncws.Client(url); client.send_text('x'); client.receive()",
    "a client with a service": """
class Callbacks(syncws.Service):
    def on_text(self, client, text): pass
client = syncws.Client(url, service=Callbacks())
""",
    "a callback that runs": (
        "client = syncws.Client(url); client.send_text('block'); reached.wait(20)"
    ),
    "a daemon thread in receive": """
client = syncws.Client(url)
beginning = threading.Event()
def receive():
    beginning.set()
    client.receive()
threading.Thread(target=receive, daemon=True).start()
beginning.wait(20)
""",
    "a daemon thread that serves": """
listener.stop()
threading.Thread(target=listener.serve_forever, daemon=True).start()
""",
    "a callback's client": """
class Callbacks(syncws.Service):
    def on_text(self, client, text):
        client.close()
        done.set()
done = threading.Event()
client = syncws.Client(url, service=Callbacks())
client.send_text("x")
done.wait(20)
""",
    "messages under way": """
client = syncws.Client(url)
def chatter():
    while True:
        client.send_text("x" * 1000)
        client.receive()
threading.Thread(target=chatter, daemon=True).start()
client.receive()
""",
}


@pytest.mark.parametrize("kind", ENDINGS)
def test_a_process_ends_at_once_when_its_main_thread_does(kind: str) -> None:
    script = f"{_ECHO}\n{ENDINGS[kind]}\nprint('main thread ends')\n"
    with interpreter(script) as process:
        assert process.line() == "main thread ends"
        began = time.monotonic()
        assert process.end() == (0, "")
        assert time.monotonic() - began < 3
