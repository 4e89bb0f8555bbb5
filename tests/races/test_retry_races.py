"""Closing, losing and connecting at once: each order is forced, and each comes to one end."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from syncws.client import connect as connect_module
from syncws.client.connect import Cancel
from syncws.client.cookies import CookieStore
from syncws.client.dialer import Dialer
from syncws.client.link import Link
from syncws.engine.engine import Engine
from syncws.engine.loop import IOLoop
from syncws.engine.outbound import Outbound
from tests.reconnecting import LATER, NOW, Reconnector, linked
from tests.support import (
    HANG,
    QUIET,
    TEXT,
    Gate,
    RawPeer,
    RawServer,
    Task,
    client_tls,
    server_tls,
    wait_until,
)

WAITING_TO_SEND = syncws.RetryConfig(interval=0.0, wait_to_send=True)


@pytest.fixture(autouse=True)
def nothing_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No order is an error of ours."""
    yield
    wrong = [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert wrong == []


@pytest.fixture
def service() -> Reconnector:
    return Reconnector()


def connecting(service: Reconnector) -> None:
    """Take the calls of a loss and an attempt off: those that wait at the end are dropped."""
    service.attempt("waiting")
    service.attempt("connecting")


def ends_once(service: Reconnector) -> list[str]:
    """Return the calls up to on_close, which is the last."""
    names = []
    while (call := service.next()).name != "on_close":
        names.append(call.name)
    service.quiet()
    return names


def gated(
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    gate: Gate,
    *,
    behind: bool = False,
    when: Callable[[], bool] = lambda: True,
) -> None:
    """Have a method wait at a gate before it is called, or behind that."""
    original = getattr(owner, name)

    def waiting(*args: Any, **options: Any) -> Any:
        if not when():
            return original(*args, **options)
        if behind:
            try:
                return original(*args, **options)
            finally:
                gate.block()
        gate.block()
        return original(*args, **options)

    monkeypatch.setattr(owner, name, waiting)


def noted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> queue.Queue[Any]:
    """Have each call of a method put its result into a queue."""
    original = getattr(owner, name)
    results: queue.Queue[Any] = queue.Queue()

    def noting(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        results.put(result)
        return result

    monkeypatch.setattr(owner, name, noting)
    return results


def in_the_io_thread() -> bool:
    return "-io" in threading.current_thread().name


@contextlib.contextmanager
def io_thread_held(client: syncws.Client) -> Iterator[None]:
    """The I/O thread does nothing until the block ends."""
    assert client._link is not None
    with Gate() as gate:
        client._link._loop.call_soon(gate.block)
        gate.reached()
        yield


# -- close() against an attempt ----------------------------------------------


@pytest.mark.parametrize("timeout", [0, 10.0])
def test_close_while_a_socket_is_handed_over(
    timeout: float, monkeypatch: pytest.MonkeyPatch, service: Reconnector
) -> None:
    """The handshake is done, and the I/O thread does not know yet: the server is not left alone."""
    with linked(service=service) as (server, client, peer), Gate() as gate:
        gated(monkeypatch, Dialer, "dial", gate, behind=True)
        peer.abort()
        with server.accept() as second:
            second.answer()
            gate.reached()
            connecting(service)
            closing = Task(client.close, timeout=timeout)
            assert ends_once(service) == []
            gate.open()
            closing.result()
            second.expect_end()
    wait_until(lambda: syncws.default_engine().stats().users == 0)


def test_close_behind_the_loops_end_while_a_socket_is_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop, whose call would take the socket, has ended."""
    with linked() as (server, client, peer), Gate() as gate:
        gated(monkeypatch, Dialer, "dial", gate, behind=True)
        assert client._link is not None
        loop = client._link._loop
        peer.abort()
        with server.accept() as second:
            second.answer()
            gate.reached()
            client.close(timeout=0)
            loop.thread.join(HANG)
            assert not loop.thread.is_alive()
            gate.open()
            second.expect_end()


def test_close_while_the_io_thread_takes_a_socket(service: Reconnector) -> None:
    """It was handed over, and close() is quicker than the I/O thread."""
    with linked(service=service) as (server, client, peer):
        peer.abort()
        with server.accept() as second:
            second.read_head()
            service.attempt("waiting", 1)
            service.attempt("connecting", 1)
            with io_thread_held(client):
                second._buffer = second.head
                answered = threading.Event()
                original = client._link._loop.call_soon  # type: ignore[union-attr]

                def call_soon(*args: Any, **options: Any) -> None:
                    original(*args, **options)
                    answered.set()

                client._link._loop.call_soon = call_soon  # type: ignore[union-attr, method-assign]
                second.answer()
                assert answered.wait(HANG)
                client.close(timeout=0)
            second.expect_end()
        assert ends_once(service) == []


def test_close_as_soon_as_there_is_a_connection_again(
    monkeypatch: pytest.MonkeyPatch, service: Reconnector
) -> None:
    """The I/O thread has made the connection, and not told of it."""
    with linked(service=service) as (server, client, peer), Gate() as gate:
        assert client._link is not None
        gated(monkeypatch, client._link, "_on_open", gate)
        peer.abort()
        with server.accept() as second:
            second.answer()
            gate.reached()
            connecting(service)
            closing = Task(client.close, 4000)
            second.expect_close(4000)
            gate.open()
            second.close_frame(4000)
            second.abort()
            closing.result()
        assert ends_once(service) in ([], ["on_reconnect"])


def test_close_between_the_making_of_a_connection_and_its_use(
    monkeypatch: pytest.MonkeyPatch, service: Reconnector
) -> None:
    with linked(service=service) as (server, client, peer), Gate() as gate:
        link = client._link
        assert link is not None
        make = link._make

        def making(*args: Any) -> Any:
            connection = make(*args)
            gate.block()
            return connection

        link._make = making
        peer.abort()
        with server.accept() as second:
            second.answer()
            gate.reached()
            connecting(service)
            client.close(timeout=0)
            gate.open()
            second.expect_end()
        assert ends_once(service) == []
    wait_until(lambda: syncws.default_engine().stats().users == 0)


@pytest.mark.parametrize("count", [0, 1], ids=["for ever", "the last one"])
def test_close_against_an_attempt_that_fails(
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    service: Reconnector,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The attempt hears of close() first, and the I/O thread of the attempt: that is no failure."""
    retry = syncws.RetryConfig(max_count=count, interval=0.0)
    with linked(service=service, retry=retry) as (server, client, peer), Gate() as gate:
        # Only that of who closes waits: the I/O thread cancels as well.
        gated(monkeypatch, Cancel, "cancel", gate, behind=True, when=lambda: not in_the_io_thread())
        failed = noted(monkeypatch, Link, "_failed")
        peer.abort()
        with server.accept() as second:
            second.read_head()
            connecting(service)
            closing = Task(client.close)
            gate.reached()
            failed.get(timeout=HANG)
            gate.open()
            closing.result()
            second.expect_end()
        assert ends_once(service) == []
    assert "the client was closed" not in caplog.text
    assert "giving up" not in caplog.text


def test_close_in_the_moment_an_attempt_begins(
    monkeypatch: pytest.MonkeyPatch, service: Reconnector
) -> None:
    """The attempt's Cancel is made behind the look of close()."""
    with linked(service=service, handshake_timeout=None) as (_, client, peer), Gate() as gate:
        gated(monkeypatch, Cancel, "__init__", gate, when=in_the_io_thread)
        peer.abort()
        gate.reached()
        closing = Task(client.close)
        closing.join(QUIET)
        gate.open()
        closing.result()
        names = ends_once(service)
        assert set(names) <= {"on_reconnect"}
    wait_until(lambda: syncws.default_engine().stats().users == 0)


def test_cancel_before_a_socket_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shut down before it goes to a server that never answers."""
    cancel = Cancel()

    class Late(socket.socket):
        def connect_ex(self, address: Any) -> int:
            cancel.cancel()
            return super().connect_ex(address)

    monkeypatch.setattr(connect_module.socket, "socket", Late)
    with RawServer() as server:
        dialer = Dialer(
            server.url,
            syncws.ClientConfig(handshake_timeout=None),
            None,
            None,
            CookieStore(),
        )
        assert isinstance(Task(dialer.dial, cancel).error(), syncws.ConnectError)


def test_cancel_while_a_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = Cancel()
    look_up = socket.getaddrinfo

    def getaddrinfo(*args: Any, **options: Any) -> Any:
        cancel.cancel()
        return look_up(*args, **options)

    monkeypatch.setattr(connect_module.socket, "getaddrinfo", getaddrinfo)
    with RawServer() as server:
        dialer = Dialer(server.url, syncws.ClientConfig(), None, None, CookieStore())
        with pytest.raises(syncws.ConnectError, match="the client was closed"):
            dialer.dial(cancel)
        server.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.sock.accept()


def test_an_attempt_that_is_cancelled_in_time_looks_no_name_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def getaddrinfo(*args: Any, **options: Any) -> Any:
        raise AssertionError("it may take minutes")

    monkeypatch.setattr(connect_module.socket, "getaddrinfo", getaddrinfo)
    cancel = Cancel()
    cancel.cancel()
    dialer = Dialer("ws://some.example/", syncws.ClientConfig(), None, None, CookieStore())
    with pytest.raises(syncws.ConnectError, match="the client was closed"):
        dialer.dial(cancel)


def test_cancel_makes_a_tls_socket_say_nothing_in_the_clear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The request, with its cookies, is sent while the socket is about to be shut down."""
    cancel = Cancel()
    upgrade = connect_module._upgrade
    shutdown = socket.socket.shutdown
    with RawServer() as server, Gate() as before, Gate() as amid:

        def upgrading(*args: Any) -> Any:
            before.block()
            return upgrade(*args)

        def shutting(sock: socket.socket, how: int) -> None:
            if threading.current_thread().name == "task-cancel":
                amid.block()
            shutdown(sock, how)

        monkeypatch.setattr(connect_module, "_upgrade", upgrading)
        monkeypatch.setattr(socket.socket, "shutdown", shutting)
        dialer = Dialer(
            f"wss://localhost:{server.port}/",
            syncws.ClientConfig(headers=(("Authorization", "secret"),)),
            client_tls(),
            None,
            CookieStore(),
        )
        dialing = Task(dialer.dial, cancel)
        with server.accept() as peer:
            plain = peer.sock.dup()
            peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
            assert isinstance(peer.sock, ssl.SSLSocket)
            with plain:
                plain.settimeout(HANG)
                before.reached()
                cancelling = Task(cancel.cancel)
                amid.reached()
                before.open()
                # What comes is a record of TLS.
                first = plain.recv(5)
                assert first[:1] == b"\x17", first
                assert b"GET" not in first
                amid.open()
                cancelling.result()
                assert isinstance(dialing.error(), syncws.ConnectError)


# -- close() against a loss --------------------------------------------------


def test_close_behind_a_loss_that_nobody_knows_of(service: Reconnector) -> None:
    with linked(service=service) as (server, client, peer):
        with io_thread_held(client):
            peer.reset()
            client.close(timeout=0)
        assert ends_once(service) == []
        server.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.sock.accept()


def test_close_while_a_loss_is_dealt_with(
    monkeypatch: pytest.MonkeyPatch, service: Reconnector
) -> None:
    """It was found to be no end, and then close() comes."""
    with linked(service=service) as (_, client, peer), Gate() as gate:
        gated(monkeypatch, Link, "_wait", gate)
        peer.abort()
        gate.reached()
        closing = Task(client.close)
        closing.join(QUIET)
        gate.open()
        closing.result()
        assert set(ends_once(service)) <= {"on_reconnect"}
    wait_until(lambda: syncws.default_engine().stats().users == 0)


def test_close_from_both_ends_at_once_is_the_end(service: Reconnector) -> None:
    """Even with a code that counts as a loss."""
    with linked(service=service) as (server, client, peer):
        with io_thread_held(client):
            peer.close_frame(1012)
            client.close(timeout=0)
        peer.expect_close(1000)
        peer.abort()
        service.expect("on_close", 1012, "")
        service.quiet()
        server.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.sock.accept()


def test_close_returns_when_the_engine_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    with linked(retry=LATER) as (_, client, peer), Gate() as gate:
        peer.abort()
        with contextlib.suppress(syncws.Reconnecting):
            while True:
                client.send_text("x")
        gated(monkeypatch, Engine, "release", gate)
        closing = Task(client.close)
        gate.reached()
        closing.join(QUIET)
        assert closing.is_alive()
        gate.open()
        closing.result()
        assert syncws.default_engine().stats() == (0, 0, 0, 0, 0)


# -- send() against a loss ---------------------------------------------------


def lost(peer: RawPeer, client: syncws.Client) -> None:
    """Return once the I/O thread has dealt with the loss."""
    link = client._link
    assert link is not None
    before = link._connection
    peer.reset()
    with link._lock:
        assert link._lock.wait_for(lambda: link._state.name != "CONNECTED", HANG)
    assert link._connection is before


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "waiting"])
def test_a_send_that_has_its_connection_when_it_is_lost(
    waiting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it was sent: it is refused, or goes to the next connection, once."""
    with (
        linked(retry=WAITING_TO_SEND if waiting else NOW) as (server, client, peer),
        Gate() as gate,
    ):
        gated(monkeypatch, Outbound, "send", gate, when=lambda: not in_the_io_thread())
        sending = Task(client.send_text, "hello")
        gate.reached()
        lost(peer, client)
        gate.open()
        with server.accept() as second:
            if waiting:
                second.answer()
                second.expect(TEXT, "hello")
                sending.result()
            else:
                error = sending.error()
                assert isinstance(error, syncws.Reconnecting)
                assert not error.maybe_sent
                second.answer()
            second.round_trip()


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "waiting"])
def test_a_send_that_is_written_when_the_connection_is_lost(waiting: bool) -> None:
    """The I/O thread knows nothing of the loss: some of it may have been sent, so never again."""
    with linked(retry=WAITING_TO_SEND if waiting else NOW) as (server, client, peer):
        with io_thread_held(client):
            peer.reset()
            with pytest.raises(syncws.Reconnecting) as caught:
                while True:
                    client.send_text("hello")
            assert caught.value.maybe_sent is True
        with server.accept() as second:
            second.answer()
            second.round_trip()


def test_a_send_that_was_taken_is_not_sent_again(service: Reconnector) -> None:
    """It stands in the buffer of the connection that is lost: it is told of as unsent."""
    with linked(service=service, retry=WAITING_TO_SEND) as (server, client, peer):
        assert client._link is not None
        with io_thread_held(client):
            outbound = client._link.outbound
            with outbound.lock:
                outbound._queue(b"\x81\x00" * 8)  # as a busy socket would have it
            client.send_text("taken")
            size = client.buffered_amount
            assert size > 16
            peer.reset()
        assert service.attempt("waiting", 1).unsent == size
        with server.accept() as second:
            second.answer()
            service.attempt("connecting", 1)
            service.attempt("connected", 1)
            second.round_trip()


def test_a_send_that_waits_while_its_client_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes up because of the end, and looks at that before anything else."""
    with linked(retry=WAITING_TO_SEND) as (server, client, peer):
        lost(peer, client)
        with server.accept() as second:
            second.read_head()  # or it might not come any more
            tasks = [Task(client.send_text, str(number)) for number in range(4)]
            for task in tasks:
                task.join(QUIET)
                assert task.is_alive()
            client.close(timeout=0)
            for task in tasks:
                assert isinstance(task.error(), syncws.ConnectionClosed)
            second.expect_end()


def test_a_waiting_send_whose_connection_is_lost_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """There was a connection for a moment: the sender that comes too late waits for the next."""
    with linked(retry=WAITING_TO_SEND) as (server, client, peer):
        assert client._link is not None
        lost(peer, client)
        with server.accept() as second:
            sending = Task(client.send_text, "hello")
            sending.join(QUIET)
            assert sending.is_alive()
            with Gate() as gate:
                gated(monkeypatch, Outbound, "send", gate, when=lambda: not in_the_io_thread())
                second.answer()
                gate.reached()
                lost(second, client)
                gate.open()
        with server.accept() as third:
            third.answer()
            third.expect(TEXT, "hello")
            sending.result()
            third.round_trip()


# -- A loss right behind connecting ------------------------------------------


def test_a_connection_that_is_lost_before_it_is_begun(
    monkeypatch: pytest.MonkeyPatch, service: Reconnector
) -> None:
    with linked(service=service) as (server, client, peer), Gate() as gate:
        gated(monkeypatch, Link, "begin", gate)
        peer.abort()
        with server.accept() as second:
            second.answer(rest=b"\x81\x04last")
            gate.reached()
            second.abort()
        gate.open()
        service.reconnected()
        service.expect("on_text", "last")
        with server.accept() as third:
            third.answer()
            service.reconnected()
            third.text("hello")
            assert service.expect("on_text", "hello") is client


def test_a_connection_that_is_lost_before_the_io_thread_has_it(service: Reconnector) -> None:
    with linked(service=service) as (server, client, peer):
        peer.abort()
        with server.accept() as second:
            second.read_head()
            service.attempt("waiting", 1)
            service.attempt("connecting", 1)
            with io_thread_held(client):
                second._buffer = second.head
                second.answer()
                second.reset()
        with server.accept() as third:
            third.answer()
            third.text("hello")
            while (call := service.next()).name == "on_reconnect":
                pass
            assert (call.name, call.args) == ("on_text", ("hello",))


def test_the_first_connection_is_lost_before_it_is_begun(
    monkeypatch: pytest.MonkeyPatch, service: Reconnector
) -> None:
    with RawServer() as server, Gate() as gate:
        gated(monkeypatch, Link, "begin", gate)
        opening = server.open_client(service=service, retry=NOW, ping_interval=None)
        with server.accept() as peer:
            peer.answer()
            client = opening.result()
            gate.reached()
            peer.abort()
        gate.open()
        with server.accept() as second:
            second.answer()
            service.reconnected()
            client.close(timeout=0)
            second.expect_close(1000)
            second.abort()
        client.close()


def test_the_loop_ends_amid_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of the process, or when something of ours goes wrong."""
    with linked() as (server, client, peer):
        assert client._link is not None
        loop: IOLoop = client._link._loop
        receiving = Task(client.receive)
        peer.abort()
        with server.accept() as second:
            second.read_head()
            loop.stop()
            loop.thread.join(HANG)
            assert isinstance(receiving.error(), syncws.ConnectionClosed)
            second.expect_end()
        with pytest.raises(syncws.ConnectionClosed):
            client.send_text("x")
        client.close()
