"""A connection that is made again: losses, ends, and what is sent and received in between."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import queue
import re
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import syncws
from tests.conftest import Leaks, running_threads
from tests.reconnecting import LATER, NEVER, NOW, Backend, Reconnector, linked
from tests.support import (
    BINARY,
    CLOSE,
    CONT,
    HANG,
    QUIET,
    TEXT,
    Gate,
    RawPeer,
    RawServer,
    Task,
    client_tls,
    frame,
    interpreter,
    open_pair,
    server_tls,
    wait_until,
)

WAITING_TO_SEND = syncws.RetryConfig(interval=0.0, wait_to_send=True)


@pytest.fixture(autouse=True)
def nothing_fails_in_the_engine(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a peer does is no error of ours."""
    yield
    assert [record for record in caplog.get_records("call") if record.name == "syncws.engine"] == []


@pytest.fixture
def service() -> Reconnector:
    return Reconnector()


def waits(task: Task) -> None:
    """Assert that a call is not over, and would not be soon."""
    task.join(QUIET)
    assert task.is_alive()


def until_the_gap(client: syncws.Client) -> None:
    """Return once the client knows of the loss: until then, what it writes goes nowhere."""
    began = time.monotonic()
    with contextlib.suppress(syncws.Reconnecting):
        while True:
            client.send_text("x")
            assert time.monotonic() - began < HANG


def at_once(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return what a call returns, which waits for nothing."""
    began = time.monotonic()
    result = call(*args, **options)
    assert time.monotonic() - began < HANG / 4
    return result


def nothing_runs() -> None:
    """No dialing worker is left to its timeout, which there is not."""
    began = time.monotonic()
    while syncws.default_engine().stats().users:
        assert time.monotonic() - began < HANG / 4
    syncws.default_engine().reap(HANG / 4)
    assert not [task for task in running_threads() if task.name.startswith("syncws")]


# -- Losses and ends ---------------------------------------------------------

LOSSES: dict[str, tuple[Callable[[RawPeer], None], type[Exception], dict[str, Any]]] = {
    "reset": (RawPeer.reset, syncws.ConnectionClosed, {}),
    "end of TCP": (RawPeer.abort, syncws.ConnectionClosed, {}),
    "end of writing": (RawPeer.end_writing, syncws.ConnectionClosed, {}),
    "protocol error": (lambda peer: peer.send(0x3), syncws.ProtocolError, {}),
    "bad text": (lambda peer: peer.send(TEXT, b"\xff"), syncws.InvalidPayloadError, {}),
    "too big": (
        lambda peer: peer.send(TEXT, b"x" * 101),
        syncws.PayloadTooBigError,
        {"max_message_size": 100},
    ),
    "silence": (
        lambda peer: None,
        syncws.KeepaliveTimeout,
        {"ping_interval": 0.02, "ping_timeout": 0.02},
    ),
    **{
        str(code): (
            lambda peer, code=code: peer.close_frame(code),  # type: ignore[misc]
            syncws.ConnectionClosed,
            {},
        )
        for code in (1011, 1012, 1013, 1014)
    },
}


@pytest.mark.parametrize("way", LOSSES)
def test_a_lost_connection_is_made_again(way: str, service: Reconnector) -> None:
    lose, kind, options = LOSSES[way]
    with linked(service=service, close_timeout=0.1, **options) as (server, client, peer):
        lose(peer)
        waiting = service.attempt("waiting", 1)
        assert isinstance(waiting.error, kind)
        assert (waiting.url, waiting.wait, waiting.unsent) == (server.url, 0.0, 0)
        with server.accept() as second:
            assert service.attempt("connecting", 1).url == server.url
            # In one write: a client that is short of patience would be lost again meanwhile.
            second.answer(rest=frame(TEXT, b"hello", masked=False))
            assert service.attempt("connected", 1).url == server.url
            assert service.expect("on_text", "hello") is client


@pytest.mark.parametrize("way", LOSSES)
def test_a_blocking_client_connects_again(way: str) -> None:
    lose, _, options = LOSSES[way]
    with linked(close_timeout=0.1, **options) as (server, client, peer):
        receiving = Task(client.receive)
        lose(peer)
        with server.accept() as second:
            second.answer(rest=frame(TEXT, b"hello", masked=False))
            assert receiving.result() == "hello"


def test_the_reason_of_a_loss_tells_what_the_peer_said(service: Reconnector) -> None:
    with linked(service=service) as (_, _, peer):
        peer.close_frame(1012, "back soon")
        peer.expect_close(1012)
        peer.abort()
        error = service.attempt("waiting").error
        assert isinstance(error, syncws.ConnectionClosed)
        assert error.received == (1012, "back soon")


@pytest.mark.parametrize("code", [1000, 1003, 1008, 4000, None])
def test_an_orderly_close_by_the_peer_is_the_end(code: int | None, service: Reconnector) -> None:
    with linked(service=service) as (server, client, peer):
        peer.text("last")
        if code is None:
            peer.send(CLOSE)
        else:
            peer.close_frame(code, "bye")
        assert peer.expect_close()[0] == (code or 1005)
        peer.abort()
        service.expect("on_text", "last")
        service.expect("on_close", code or 1005, "bye" if code else "")
        service.quiet()
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.send_text("x")
        assert caught.value.received is not None
        assert caught.value.received.code == (code or 1005)
        nobody_comes(server)


def nobody_comes(server: RawServer) -> None:
    server.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.sock.accept()


@pytest.mark.parametrize("code", [1000, None])
def test_iteration_ends_with_an_orderly_close(code: int | None) -> None:
    with linked() as (server, client, peer):
        peer.text("one")
        iterating = Task(list, client)
        peer.abort()
        with server.accept() as second:
            second.answer()
            second.text("two")
            if code is None:
                second.send(CLOSE)
            else:
                second.close_frame(code)
            second.expect_close()
            second.abort()
            assert iterating.result() == ["one", "two"]
        assert list(client) == []


def test_other_codes_may_count_as_a_loss(service: Reconnector) -> None:
    retry = syncws.RetryConfig(interval=0.0, status_codes=(1001, 4000))
    with linked(service=service, retry=retry) as (server, _, peer):
        peer.finish(4000)
        with server.accept() as second:
            second.answer()
            service.reconnected()
            second.finish(1001)
        with server.accept() as third:
            third.answer()
            service.reconnected()
            third.finish(1012)
        service.expect("on_close", 1012, "")
        service.quiet()


@pytest.mark.parametrize("answered", [True, False])
def test_an_idle_connection_that_this_end_closes_is_not_made_again(
    answered: bool, service: Reconnector
) -> None:
    with linked(service=service, idle_timeout=0.02) as (server, _, peer):
        peer.expect_close(1001)
        if answered:
            peer.close_frame(1001)
        peer.abort()
        service.expect("on_close", 1001 if answered else 1006, "")
        service.quiet()
        nobody_comes(server)


def test_the_peers_last_messages_may_be_answered_before_a_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Answering(Reconnector):
        def on_text(self, client: syncws.Client, text: str) -> None:
            gate.block()
            client.send_text(f"answer to {text}")

    monkeypatch.setattr("syncws.engine.connection._GRACE", HANG)
    with Gate() as gate, linked(service=Answering()) as (_, _, peer):
        peer.text("hello")
        gate.reached()
        peer.close_frame(1012)
        gate.open()
        peer.expect(TEXT, "answer to hello")
        peer.expect_close(1012)


def test_what_ended_one_connection_concludes_no_other(
    service: Reconnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow callback: the end of the first is dealt with when the second is at its own."""

    class Slow(Reconnector):
        def on_text(self, client: syncws.Client, text: str) -> None:
            if text == "slow":
                gate.block()
            else:
                client.send_text(f"answer to {text}")

    monkeypatch.setattr("syncws.engine.connection._GRACE", 0.01)
    with Gate() as gate, linked(service=Slow()) as (server, _, peer):
        peer.text("slow")
        gate.reached()
        peer.close_frame(1012)
        peer.expect_close(1012)
        monkeypatch.setattr("syncws.engine.connection._GRACE", HANG)
        peer.abort()
        with server.accept() as second:
            second.answer()
            second.text("hello")
            second.close_frame(1000)
            gate.open()
            second.expect(TEXT, "answer to hello")
            second.expect_close(1000)
            second.abort()


def test_the_count_begins_afresh_with_each_connection(service: Reconnector) -> None:
    with linked(service=service, retry=NEVER) as (server, _, peer):
        peer.abort()
        for _ in range(4):
            with server.accept() as another:
                another.answer()
                service.reconnected()


def test_each_attempt_is_told_with_what_the_one_before_has_failed_with(
    service: Reconnector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "syncws.client")
    retry = syncws.RetryConfig(interval=0.002, backoff_factor=2, max_interval=0.008, jitter=0)
    with Backend() as backend:
        opening = Task(syncws.Client, backend.url, service=service, retry=retry, ping_interval=None)
        peer = backend.answered()
        with opening.result() as client:
            backend.refuse()
            peer.abort()
            kind: type[BaseException] = syncws.ConnectionClosed
            for number, wait in ((1, 0.002), (2, 0.004), (3, 0.008), (4, 0.008)):
                waiting = service.attempt("waiting", number)
                assert type(waiting.error) is kind
                assert (waiting.wait, waiting.unsent) == (wait, 0)
                assert service.attempt("connecting", number).error is None
                kind = syncws.ConnectError
            backend.listen()
            with backend.answered() as second:
                last = 4
                while (call := service.next()).args[0].state != "connected":
                    last = call.args[0].number
                assert call.args[0].number == last
                client.close(timeout=0)
                second.expect_close(1000)
    connected = f"connected to {backend.url} by attempt {last}"
    wait_until(lambda: connected in caplog.messages)  # by a worker, and it is the last line
    logs = [record for record in caplog.records if record.name == "syncws.client"]
    texts = [record.getMessage() for record in logs if record.levelno == logging.WARNING]
    assert any("attempt 1 in 0.002 s" in text for text in texts)
    assert any(re.search("refused: .*; attempt 2 in 0.004 s", text) for text in texts)
    assert connected in [log.getMessage() for log in logs]


def test_the_last_attempt_fails(service: Reconnector, caplog: pytest.LogCaptureFixture) -> None:
    retry = syncws.RetryConfig(max_count=2, interval=0.0)
    with Backend() as backend:
        opening = Task(syncws.Client, backend.url, service=service, retry=retry, ping_interval=None)
        peer = backend.answered()
        client = opening.result()
        backend.refuse()
        peer.abort()
        for number in (1, 2):
            service.attempt("waiting", number)
            service.attempt("connecting", number)
        error = service.error(syncws.RetriesExhausted)
        assert [url for url, _ in error.reasons] == [backend.url]
        assert error.attempts == 2
        service.expect("on_close", 1006, "")
        service.quiet()
        assert not client.is_open
        for call in (lambda: client.send_text("x"), client.ping):
            with pytest.raises(syncws.ConnectionClosed) as caught:
                call()
            assert caught.value.__cause__ is error
        client.close()
        client.close()
    text = f"{backend.url}: giving up: no connection after 2 attempts"
    wait_until(lambda: text in caplog.text)  # a worker writes it, beside the callbacks


def test_a_receiver_learns_that_the_last_attempt_has_failed() -> None:
    with Backend() as backend:
        opening = Task(syncws.Client, backend.url, retry=NEVER, ping_interval=None)
        peer = backend.answered()
        with opening.result() as client:
            peer.text("first")
            receiving = Task(list, client)
            peer.round_trip()
            backend.refuse()
            peer.abort()
            error = receiving.error()
            assert isinstance(error, syncws.ConnectionClosed)
            assert isinstance(error.__cause__, syncws.RetriesExhausted)
            with pytest.raises(syncws.ConnectionClosed):
                client.receive(timeout=0)


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_come_in_again_does_not_try(status: int, service: Reconnector) -> None:
    with linked(service=service) as (server, client, peer):
        peer.abort()
        with server.accept() as second:
            second.read_head()
            second.send_bytes(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            service.attempt("waiting", 1)
            service.attempt("connecting", 1)
            error = service.error(syncws.HandshakeRejected)
            assert error.status == status
            service.ended()
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.send_text("x")
        assert caught.value.__cause__ is error
        nobody_comes(server)


def test_another_refusal_is_retried(service: Reconnector) -> None:
    with linked(service=service) as (server, _, peer):
        peer.abort()
        for number in (1, 2, 3):
            with server.accept() as next_one:
                service.attempt("waiting", number)
                service.attempt("connecting", number)
                if number == 3:
                    next_one.answer()
                    service.attempt("connected", 3)
                else:
                    next_one.read_head()
                    next_one.send_bytes(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")


# -- What stays, and what does not -------------------------------------------


def test_what_stays_across_connections_and_what_does_not(service: Reconnector) -> None:
    made: queue.Queue[Reconnector] = queue.Queue()

    class Made(Reconnector):
        def __init__(self) -> None:
            super().__init__()
            made.put(self)

    with linked(
        service=Made, subprotocols=["one", "two"], answer=("Sec-WebSocket-Protocol: one", "X-Is: 1")
    ) as (server, client, peer):
        client.attributes["mine"] = 1
        before = client.id
        assert (client.subprotocol, client.response.headers["x-is"]) == ("one", "1")
        assert client.local_address == peer.sock.getpeername()
        peer.abort()
        with server.accept() as second:
            second.answer("Sec-WebSocket-Protocol: two", "X-Is: 2")
            service = made.get(timeout=HANG)
            service.reconnected()
            assert client.id == before
            assert client.attributes == {"mine": 1}
            assert (client.subprotocol, client.response.headers["x-is"]) == ("two", "2")
            assert client.local_address == second.sock.getpeername()
            assert client.remote_address == ("127.0.0.1", server.port)
            assert client.url == server.url
            assert not client.is_secure
            assert client.is_open
    assert made.empty()


def test_a_subprotocol_that_is_not_agreed_on_again() -> None:
    with linked(subprotocols=["one"], answer=("Sec-WebSocket-Protocol: one",)) as (
        server,
        client,
        peer,
    ):
        peer.abort()
        with server.accept() as second:
            second.answer()
            second.text("x")
            assert client.receive(HANG) == "x"
            assert client.subprotocol is None


def test_compression_is_agreed_on_each_time() -> None:
    deflate = (
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; "
        "client_max_window_bits=12"
    )
    with linked(answer=(deflate,)) as (server, client, peer):
        client.send_text("x" * 1000)
        assert peer.read().rsv == 4
        peer.abort()
        with server.accept() as second:
            second.answer()
            second.text("y" * 1000)
            assert client.receive(HANG) == "y" * 1000
            client.send_text("x" * 1000)
            got = second.read()
            assert (got.rsv, got.payload) == (0, b"x" * 1000)


def test_the_handshake_is_the_same_each_time_but_for_its_key() -> None:
    with linked(headers={"X-Mine": "yes"}, subprotocols=["one"]) as (server, _, peer):
        first = peer.head
        peer.abort()
        with server.accept() as second:
            second.answer()
            lines = [set(head.splitlines()) for head in (first, second.head)]
            keys = [{line for line in part if b"Sec-WebSocket-Key" in line} for part in lines]
            assert keys[0] != keys[1]
            assert lines[0] - keys[0] == lines[1] - keys[1]
            assert b"X-Mine: yes" in lines[1]


def test_cookies_of_one_handshake_are_sent_with_the_next() -> None:
    with linked(cookies={"mine": "1"}, answer=("Set-Cookie: theirs=2; Path=/",)) as (
        server,
        client,
        peer,
    ):
        assert b"Cookie: mine=1\r\n" in peer.head
        assert {cookie.name for cookie in client.cookies} == {"mine", "theirs"}
        peer.abort()
        with server.accept() as second:
            second.answer()
            (line,) = (part for part in second.head.split(b"\r\n") if part.startswith(b"Cookie: "))
            assert set(line[8:].split(b"; ")) == {b"mine=1", b"theirs=2"}


def test_tls_is_done_each_time() -> None:
    with RawServer() as server:
        opening = Task(
            syncws.Client,
            f"wss://localhost:{server.port}/",
            ssl=client_tls(),
            retry=NOW,
            ping_interval=None,
        )
        peers = []
        for number in range(2):
            peer = server.accept()
            peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
            peer.answer()
            client = opening.result()
            peer.text(str(number))
            assert client.receive(HANG) == str(number)
            assert client.is_secure
            peers.append(peer)
            if not number:
                peer.abort()
        client.close(timeout=0)
        peers[1].abort()
        client.close()


def test_a_unix_path_is_connected_to_again(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        listening.settimeout(HANG)
        opening = Task(
            syncws.Client, "ws://localhost/", unix_path=path, retry=NOW, ping_interval=None
        )
        with RawPeer(listening.accept()[0], client=False) as peer:
            peer.answer()
            client = opening.result()
        with RawPeer(listening.accept()[0], client=False) as second:
            second.answer()
            second.text("hello")
            assert client.receive(HANG) == "hello"
            assert client.remote_address == path
            client.close(timeout=0)
            second.abort()
        client.close()


def test_a_client_stays_in_its_groups() -> None:
    with linked() as (server, client, peer):
        group = syncws.Group([client])
        assert group.send_text("one") == 1
        peer.expect(TEXT, "one")
        peer.abort()
        with server.accept() as second:
            second.read_head()  # in the gap
            assert client in group
            assert group.send_text("lost") == 0
            later = syncws.Group()
            assert later.add(client)
            second.send_bytes(b"")
            second._buffer = second.head
            second.answer()
            second.text("x")
            assert client.receive(HANG) == "x"
            for number, one in enumerate((group, later)):
                assert one.send_text(f"two {number}") == 1
                second.expect(TEXT, f"two {number}")
            second.finish(1000)
            with pytest.raises(syncws.ConnectionClosed):
                client.receive(HANG)
            assert client not in group
            assert client not in later


# -- Receiving ---------------------------------------------------------------


def test_messages_from_before_a_loss_come_before_it(service: Reconnector) -> None:
    class Slow(Reconnector):
        def on_text(self, client: syncws.Client, text: str) -> None:
            if text == "a":
                gate.block()
            super().on_text(client, text)

    slow = Slow()
    with Gate() as gate, linked(service=slow) as (server, _, peer):
        peer.text("a", "b", "c")
        gate.reached()
        peer.abort()
        with server.accept() as second:
            second.answer(rest=b"\x81\x01d")
            second.text("e")
            gate.open()
            for text in "abc":
                slow.expect("on_text", text)
            slow.reconnected()
            for text in "de":
                slow.expect("on_text", text)
            slow.quiet()


def test_messages_from_before_a_loss_are_received() -> None:
    with linked() as (server, client, peer):
        peer.text("a", "b")
        peer.round_trip()
        peer.reset()
        with server.accept() as second:
            second.answer(rest=b"\x81\x01c")
            assert [client.receive(HANG) for _ in "abc"] == ["a", "b", "c"]
            with pytest.raises(syncws.ReceiveTimeout):
                client.receive(timeout=0)


def test_each_receiver_gets_a_message_across_the_gap() -> None:
    with linked() as (server, client, peer):
        tasks = [Task(client.receive) for _ in range(4)]
        peer.text("0", "1")
        peer.abort()
        with server.accept() as second:
            second.answer()
            second.text("2", "3")
            assert sorted(task.result() for task in tasks) == ["0", "1", "2", "3"]


def test_half_a_message_is_lost_with_its_connection() -> None:
    with linked() as (server, client, peer):
        peer.send(TEXT, "half", fin=False)
        peer.abort()
        with server.accept() as second:
            second.answer()
            second.send(TEXT, "who", fin=False)
            second.send(CONT, "le")
            assert client.receive(HANG) == "whole"


def test_reading_that_was_paused_goes_on_with_the_next_connection() -> None:
    class Slow(Reconnector):
        def on_text(self, client: syncws.Client, text: str) -> None:
            gate.block()
            super().on_text(client, text)

    service = Slow()
    with (
        Gate() as gate,
        linked(service=service, receive_queue_size=2) as (server, client, peer),
    ):
        peer.text("0", "1", "2", "3")
        gate.reached()
        peer.reset()
        # While reading is paused only a write finds out, and what can still be
        # read is read before the next attempt.
        until_the_gap(client)
        gate.open()
        with server.accept() as second:
            second.answer()
            texts = [f"next {number}" for number in range(20)]
            second.text(*texts)
            got = []
            while got[-1:] != texts[-1:]:
                call = service.next()
                if call.name == "on_text":
                    got.append(call.args[0])
            assert got[-20:] == texts
            assert got[:-20] == ["0", "1", "2", "3"][: len(got) - 20]


def send_until_it_fails(client: syncws.Client) -> None:
    """Until the peer's reset is here, a write succeeds."""
    began = time.monotonic()
    while time.monotonic() - began < HANG:
        client.send_text("x")


def test_nothing_is_read_before_ready_on_any_connection() -> None:
    with linked(ready_on_connect=False) as (server, client, peer):
        peer.text("lost")
        peer.reset()
        until_the_gap(client)
        with server.accept() as second:
            second.answer(rest=b"\x81\x01a")
            second.text("b")
            with pytest.raises(syncws.ReceiveTimeout):
                client.receive(timeout=QUIET)
            client.ready()
            assert [client.receive(HANG) for _ in "ab"] == ["a", "b"]
            second.abort()
        with server.accept() as third:
            third.answer()
            third.text("c")
            assert client.receive(HANG) == "c"


def test_ready_in_the_gap_counts_for_the_next_connection() -> None:
    with linked(ready_on_connect=False) as (server, client, peer):
        peer.reset()
        until_the_gap(client)
        with server.accept() as second:
            client.ready()
            second.answer(rest=b"\x81\x01a")
            assert client.receive(HANG) == "a"


# -- Sending -----------------------------------------------------------------


@contextlib.contextmanager
def in_the_gap(**options: Any) -> Iterator[tuple[syncws.Client, RawPeer]]:
    """A client whose connection is lost, and the next one, whose handshake waits for its answer."""
    with linked(**options) as (server, client, peer):
        peer.abort()
        with server.accept() as second:
            yield client, second


def test_a_send_in_the_gap_is_refused_at_once() -> None:
    with in_the_gap() as (client, second):
        assert not client.is_open
        assert client.buffered_amount == 0
        for send in (
            lambda: client.send_text("lost"),
            lambda: client.send_binary(b"lost"),
            lambda: client.send_binary(bytes(1_000_000)),
            lambda: client.send_json({}),
            lambda: client.send_text("lost", final=False),
            client.ping,
            client.pong,
        ):
            with pytest.raises(
                syncws.Reconnecting, match="nothing of this message was sent"
            ) as got:
                at_once(send)
            assert isinstance(got.value, ConnectionError)
            assert got.value.maybe_sent is False
            assert isinstance(got.value.__cause__, syncws.ConnectionClosed)
        second.answer()
        second.text("x")
        assert client.receive(HANG) == "x"
        assert client.is_open
        client.send_text("new")
        second.expect(TEXT, "new")
        second.round_trip()


def test_sends_in_the_gap_wait_and_each_arrives_once() -> None:
    with in_the_gap(retry=WAITING_TO_SEND) as (client, second):
        tasks = [Task(client.send_text, str(number)) for number in range(5)]
        tasks.append(Task(client.send_binary, bytes(1000)))
        tasks.append(Task(client.ping, b"ping"))
        for task in tasks:
            waits(task)
        second.answer()
        frames = [second.read() for _ in tasks]
        for task in tasks:
            task.result()
        texts = sorted(frame.payload.decode() for frame in frames if frame.opcode == TEXT)
        assert texts == ["0", "1", "2", "3", "4"]
        assert {frame.opcode for frame in frames} == {TEXT, BINARY, 0x9}
        second.round_trip()


def test_a_send_waits_across_attempts_that_fail() -> None:
    with linked(retry=WAITING_TO_SEND) as (server, client, peer):
        peer.abort()
        with server.accept() as second:
            sending = Task(client.send_text, "hello")
            waits(sending)
            second.abort()
        with server.accept() as third:
            waits(sending)
            third.answer()
            third.expect(TEXT, "hello")
            sending.result()
            third.round_trip()


def test_a_send_in_the_gap_waits_for_send_timeout() -> None:
    with in_the_gap(retry=WAITING_TO_SEND, send_timeout=0.02) as (client, second):
        with pytest.raises(syncws.SendTimeout, match=r"no connection for 0\.02 s; nothing"):
            client.send_text("lost")
        second.answer()
        second.text("x")
        assert client.receive(HANG) == "x"
        client.send_text("new")
        second.expect(TEXT, "new")


def test_a_send_in_the_gap_with_no_time_at_all() -> None:
    with (
        in_the_gap(retry=WAITING_TO_SEND, send_timeout=0) as (client, _),
        pytest.raises(syncws.SendTimeout),
    ):
        client.send_text("lost")


@pytest.mark.parametrize("timeout", [None, 1000.0])
def test_a_send_in_the_gap_ends_with_close(timeout: float | None) -> None:
    with in_the_gap(retry=WAITING_TO_SEND, send_timeout=timeout) as (client, _):
        sending = [Task(client.send_text, "lost"), Task(client.ping)]
        for task in sending:
            waits(task)
        client.close()
        for task in sending:
            error = task.error()
            assert isinstance(error, syncws.ConnectionClosed)
            assert not error.maybe_sent


def test_a_send_in_the_gap_ends_with_the_last_attempt() -> None:
    retry = syncws.RetryConfig(interval=0.0, max_count=1, wait_to_send=True)
    with in_the_gap(retry=retry) as (client, second):
        sending = Task(client.send_text, "lost")
        waits(sending)
        second.abort()
        error = sending.error()
        assert isinstance(error, syncws.ConnectionClosed)
        assert isinstance(error.__cause__, syncws.RetriesExhausted)
        assert not error.maybe_sent


def test_a_send_that_waits_for_room_is_sent_on_the_next_connection() -> None:
    with RawServer(receive_buffer=4096) as server:
        opening = server.open_client(retry=WAITING_TO_SEND, ping_interval=None, send_buffer_size=1)
        with server.accept() as peer:
            peer.answer()
            client = opening.result()
            client.send_binary(bytes(10_000_000))
            sending = Task(client.send_text, "not lost")
            waits(sending)
            peer.reset()
        with server.accept() as second:
            second.answer()
            second.expect(TEXT, "not lost")
            sending.result()
            second.round_trip()
            client.close(timeout=0)
        client.close()


@pytest.mark.parametrize("waiting", [True, False])
def test_a_message_that_may_have_been_sent_is_not_sent_again(waiting: bool) -> None:
    retry = WAITING_TO_SEND if waiting else NOW
    with linked(retry=retry, ready_on_connect=False) as (server, client, peer):
        peer.reset()  # which nobody reads
        with pytest.raises(syncws.Reconnecting, match="may have reached") as caught:
            send_until_it_fails(client)
        assert caught.value.maybe_sent is True
        with server.accept() as second:
            second.answer()
            client.ready()
            second.round_trip()  # with nothing before it
            client.send_text("new")
            second.expect(TEXT, "new")


def test_what_was_queued_is_counted_as_unsent(service: Reconnector) -> None:
    size = 10_000_000
    with RawServer(receive_buffer=4096) as server:
        opening = server.open_client(service=service, retry=NOW, ping_interval=None)
        with server.accept() as peer:
            peer.answer()
            client = opening.result()
            client.send_binary(bytes(size))
            assert 0 < client.buffered_amount < size
            peer.reset()
            assert 0 < service.attempt("waiting", 1).unsent < size
            service.attempt("connecting", 1)
        with server.accept() as second:
            second.abort()
            assert service.attempt("waiting", 2).unsent == 0
        client.close()


def test_what_was_queued_is_counted_as_unsent_without_retry() -> None:
    size = 10_000_000
    with open_pair(receive_buffer=4096, ping_interval=None) as (client, peer):
        client.send_binary(bytes(size))
        peer.reset()
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.receive(HANG)
        assert 0 < caught.value.unsent < size
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.send_text("x")
        assert 0 < caught.value.unsent < size
        assert not caught.value.maybe_sent


def fresh_messages(client: syncws.Client, second: RawPeer) -> None:
    """Whoever was told to begin anew can."""
    client.send_text("one")
    client.send_text("tw", final=False)
    client.send_text("o")
    client.send_binary(b"three")
    for opcode, payload, fin in (
        (TEXT, b"one", True),
        (TEXT, b"tw", False),
        (CONT, b"o", True),
        (BINARY, b"three", True),
    ):
        got = second.read()
        assert (got.opcode, got.payload, got.fin) == (opcode, payload, fin)


last_one = pytest.mark.parametrize("final", [True, False], ids=["the last", "one of several"])


@last_one
def test_a_fragment_in_the_gap_is_refused_and_then_all_begins_anew(final: bool) -> None:
    with linked() as (server, client, peer):
        client.send_text("lo", final=False)
        peer.expect(TEXT, "lo")
        peer.abort()
        with server.accept() as second:
            with pytest.raises(syncws.Reconnecting):
                client.send_text("st", final=final)
            second.answer()
            second.text("x")
            assert client.receive(HANG) == "x"
            fresh_messages(client, second)


@last_one
def test_a_fragment_behind_the_gap_is_refused_and_then_all_begins_anew(final: bool) -> None:
    with linked() as (server, client, peer):
        client.send_text("lo", final=False)
        peer.expect(TEXT, "lo")
        peer.abort()
        with server.accept() as second:
            second.answer()
            second.text("x")
            assert client.receive(HANG) == "x"
            client.ping(b"between")
            second.expect(0x9, b"between")
            with pytest.raises(syncws.Reconnecting, match="send it again from its beginning"):
                client.send_text("st", final=final)
            fresh_messages(client, second)


@last_one
def test_a_fragment_that_waits_is_refused_and_then_all_begins_anew(final: bool) -> None:
    with linked(retry=WAITING_TO_SEND) as (server, client, peer):
        client.send_text("lo", final=False)
        peer.expect(TEXT, "lo")
        peer.abort()
        with server.accept() as second:
            sending = Task(client.send_text, "st", final=final)
            waits(sending)
            second.answer()
            assert isinstance(sending.error(), syncws.Reconnecting)
            fresh_messages(client, second)


def test_a_fragment_that_may_have_been_sent_and_then_all_begins_anew() -> None:
    with linked(ready_on_connect=False) as (server, client, peer):
        client.send_text("lo", final=False)
        peer.expect(TEXT, "lo")
        peer.reset()
        with pytest.raises(syncws.Reconnecting) as caught:
            while True:
                client.send_text("st", final=False)
        assert caught.value.maybe_sent is True
        with server.accept() as second:
            second.answer()
            client.ready()
            second.text("x")
            assert client.receive(HANG) == "x"
            fresh_messages(client, second)


def test_a_fragment_times_out_in_the_gap_and_then_all_begins_anew() -> None:
    with linked(retry=WAITING_TO_SEND, send_timeout=0.02) as (server, client, peer):
        client.send_text("lo", final=False)
        peer.expect(TEXT, "lo")
        peer.abort()
        with server.accept() as second:
            with pytest.raises(syncws.SendTimeout):
                client.send_text("st")
            second.answer()
            second.text("x")
            assert client.receive(HANG) == "x"
            fresh_messages(client, second)


# -- on_reconnect ------------------------------------------------------------


def test_on_reconnect_may_send() -> None:
    class Sending(Reconnector):
        def on_reconnect(self, client: syncws.Client, attempt: syncws.Attempt) -> None:
            if attempt.state == "connected":
                client.send_text("here again")
            else:
                try:
                    client.send_text("not yet")  # Reconnecting: no failure
                finally:
                    super().on_reconnect(client, attempt)

    sending = Sending()
    with linked(service=sending) as (server, _, peer):
        peer.abort()
        for _ in range(2):
            with server.accept() as another:
                sending.attempt("waiting", 1)
                sending.attempt("connecting", 1)
                another.answer()
                another.expect(TEXT, "here again")


def test_reconnecting_out_of_a_callback_does_not_end_the_client() -> None:
    class Late(Reconnector):
        def on_text(self, client: syncws.Client, text: str) -> None:
            if text == "first":
                gate.block()
            client.send_text(text)

    with Gate() as gate, linked(service=Late()) as (server, _, peer):
        peer.text("first", "second")
        gate.reached()
        peer.abort()
        with server.accept() as second:
            gate.open()
            second.answer()
            second.text("third")
            while second.expect(TEXT) != b"third":
                pass


def test_a_callback_that_is_far_behind_hears_of_no_more_than_it_can_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(Reconnector):
        def on_reconnect(self, client: syncws.Client, attempt: syncws.Attempt) -> None:
            gate.block()
            super().on_reconnect(client, attempt)

    service = Slow()
    with Backend() as backend, Gate() as gate:
        opening = Task(
            syncws.Client,
            backend.url,
            service=service,
            retry=NOW,
            ping_interval=None,
            receive_queue_size=10,
        )
        peer = backend.answered()
        client = opening.result()
        tried: queue.Queue[None] = queue.Queue()
        dial = syncws.client.link.Dialer.dial

        def counted(*args: Any) -> Any:
            tried.put(None)
            return dial(*args)

        monkeypatch.setattr("syncws.client.link.Dialer.dial", counted)
        backend.refuse()
        peer.abort()
        gate.reached()
        for _ in range(200):
            tried.get(timeout=HANG)
        backend.listen()
        with backend.answered() as peer:
            gate.open()
            number = 0
            while (call := service.next()).args[0].state != "connected":
                number += 1
            assert 2 <= number <= 20
            assert call.args[0].number >= 200
            service.quiet()
            client.close(timeout=0)
        client.close()


# -- close -------------------------------------------------------------------


def test_close_while_connected(service: Reconnector) -> None:
    with linked(service=service) as (server, client, peer):
        closing = Task(client.close, 4000, "bye")
        assert peer.expect_close(4000)[1] == "bye"
        peer.close_frame(4000)
        peer.abort()
        closing.result()
        service.expect("on_close", 4000, "")
        service.quiet()
        nobody_comes(server)


def test_close_while_connected_to_a_peer_that_goes_away(service: Reconnector) -> None:
    with linked(service=service) as (server, client, peer):
        closing = Task(client.close)
        peer.expect_close(1000)
        peer.reset()
        closing.result()
        service.expect("on_close", 1006, "")
        service.quiet()
        nobody_comes(server)


def test_close_while_connected_again(service: Reconnector) -> None:
    with linked(service=service) as (server, client, peer):
        peer.abort()
        with server.accept() as second:
            second.answer()
            service.reconnected()
            closing = Task(client.close)
            second.expect_close(1000)
            second.close_frame(1000)
            second.abort()
            closing.result()
            service.expect("on_close", 1000, "")
            service.quiet()


@pytest.mark.parametrize("timeout", [0, 10.0, None])
def test_close_while_the_next_attempt_is_a_while_away(
    timeout: float | None, service: Reconnector
) -> None:
    leaks = Leaks()
    with linked(service=service, retry=LATER) as (_, client, peer):
        peer.abort()
        assert service.attempt("waiting", 1).wait > 500
        at_once(client.close, timeout=timeout)
        service.expect("on_close", 1006, "")
        at_once(client.close)
        service.quiet()
        assert not client.is_open
        with pytest.raises(syncws.ConnectionClosed):
            client.send_text("x")
    assert leaks.wait(HANG) == []


def test_close_wakes_a_receiver_while_the_next_attempt_is_a_while_away() -> None:
    with linked(retry=LATER) as (_, client, peer):
        receiving = [Task(client.receive), Task(list, client)]
        peer.abort()
        for task in receiving:
            waits(task)
        at_once(client.close)
        for task in receiving:
            assert isinstance(task.error(), syncws.ConnectionClosed)


def silent(server: RawServer, stack: contextlib.ExitStack) -> None:
    """Let the server's queue be full: connections are not even refused."""
    server.sock.listen(0)
    for _ in range(3):
        filler = stack.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(server.sock.getsockname())


def test_close_while_tcp_is_connecting(service: Reconnector) -> None:
    with (
        contextlib.ExitStack() as stack,
        linked(service=service, handshake_timeout=None) as (server, client, peer),
    ):
        silent(server, stack)
        peer.abort()
        service.attempt("waiting", 1)
        service.attempt("connecting", 1)
        at_once(client.close)
        service.ended()
        nothing_runs()


def test_close_while_the_server_does_not_answer(service: Reconnector) -> None:
    with linked(service=service, handshake_timeout=None) as (server, client, peer):
        peer.abort()
        with server.accept() as second:
            second.read_head()
            service.attempt("waiting", 1)
            service.attempt("connecting", 1)
            at_once(client.close)
            second.expect_end()
        service.ended()
        nothing_runs()


def test_close_while_the_server_is_silent_in_tls() -> None:
    with RawServer() as server:
        opening = Task(
            syncws.Client,
            f"wss://localhost:{server.port}/",
            ssl=client_tls(),
            retry=NOW,
            handshake_timeout=None,
            ping_interval=None,
        )
        with server.accept() as peer:
            peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
            peer.answer()
            client = opening.result()
        with server.accept() as second:
            assert second.sock.recv(1)
            at_once(client.close)
            while second.sock.recv(65_536):
                pass
        nothing_runs()


def test_close_while_the_server_is_silent_behind_tls() -> None:
    with RawServer() as server:
        opening = Task(
            syncws.Client,
            f"wss://localhost:{server.port}/",
            ssl=client_tls(),
            retry=NOW,
            handshake_timeout=None,
            ping_interval=None,
        )
        with server.accept() as peer:
            peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
            peer.answer()
            client = opening.result()
        with server.accept() as second:
            second.sock = server_tls().wrap_socket(second.sock, server_side=True)
            second.read_head()
            at_once(client.close)
            with contextlib.suppress(ssl.SSLError):  # without a word
                assert second.sock.recv(1) == b""
        nothing_runs()


def test_close_while_others_dial() -> None:
    """An attempt that waits for its turn is not made any more."""
    engine = syncws.Engine(workers=2, max_workers=4)  # one dials at a time
    with contextlib.ExitStack() as stack:
        pairs = [
            stack.enter_context(linked(engine=engine, handshake_timeout=None)) for _ in range(3)
        ]
        first, second, third = (client for _, client, _ in pairs)
        pairs[0][2].abort()
        with pairs[0][0].accept() as silent:
            silent.read_head()
            for _, client, peer in pairs[1:]:
                peer.abort()
                until_the_gap(client)
            at_once(second.close)
            at_once(third.close, timeout=0)
            at_once(first.close)
            silent.expect_end()
        for server, _, _ in pairs[1:]:
            nobody_comes(server)
        assert engine.stats().users == 0


def test_close_from_a_callback(service: Reconnector) -> None:
    class Closing(Reconnector):
        def on_text(self, client: syncws.Client, text: str) -> None:
            client.close(timeout=0)
            super().on_text(client, text)

    closing = Closing()
    with linked(service=closing) as (server, _, peer):
        peer.text("close", "dropped")
        peer.expect_close(1000)
        closing.expect("on_text", "close")
        peer.close_frame(1000)
        peer.abort()
        closing.expect("on_close", 1000, "")
        closing.quiet()
        nobody_comes(server)


@pytest.mark.parametrize("state", ["waiting", "connecting", "connected"])
@pytest.mark.parametrize("timeout", [0, 10.0])
def test_close_from_on_reconnect(state: str, timeout: float) -> None:
    class Closing(Reconnector):
        def on_reconnect(self, client: syncws.Client, attempt: syncws.Attempt) -> None:
            super().on_reconnect(client, attempt)
            if attempt.state == state:
                client.close(timeout=timeout)

    closing = Closing()
    retry = LATER if state == "waiting" else NOW
    with linked(service=closing, retry=retry, handshake_timeout=None) as (server, _, peer):
        peer.abort()
        closing.attempt("waiting", 1)
        if state != "waiting":
            closing.attempt("connecting", 1)
        if state == "connected":
            with server.accept() as second:
                second.answer()
                closing.attempt("connected", 1)
                second.expect_close(1000)
                second.close_frame(1000)
                second.abort()
                closing.expect("on_close", 1000, "")
        else:
            closing.expect("on_close", 1006, "")
        closing.quiet()


def test_close_from_many_threads_in_the_gap(service: Reconnector) -> None:
    with linked(service=service, retry=LATER) as (_, client, peer):
        peer.abort()
        service.attempt("waiting", 1)
        for task in [Task(client.close, 4000 + number) for number in range(4)]:
            task.result()
        service.ended()


def test_a_callback_that_raises_ends_the_client_for_good(service: Reconnector) -> None:
    class Failing(Reconnector):
        def on_text(self, client: syncws.Client, text: str) -> None:
            raise ValueError("boom")

    failing = Failing()
    with linked(service=failing) as (server, client, peer):
        peer.text("x")
        peer.expect_close(1011)
        peer.close_frame(1011)
        peer.abort()
        assert str(failing.error(ValueError)) == "boom"
        failing.expect("on_close", 1011, "")
        failing.quiet()
        nobody_comes(server)
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.send_text("x")
        assert isinstance(caught.value.__cause__, ValueError)


def test_an_on_reconnect_that_raises_ends_the_client_for_good() -> None:
    class Failing(Reconnector):
        def on_reconnect(self, client: syncws.Client, attempt: syncws.Attempt) -> None:
            raise ValueError("boom")

    failing = Failing()
    with linked(service=failing, retry=LATER) as (server, client, peer):
        peer.abort()
        assert str(failing.error(ValueError)) == "boom"
        failing.expect("on_close", 1006, "")
        failing.quiet()
        nobody_comes(server)
        assert not client.is_open


def test_a_connection_that_cannot_be_made_ends_the_client_and_leaves_no_socket(
    service: Reconnector, caplog: pytest.LogCaptureFixture
) -> None:
    """Something of ours is wrong: the loop says so, and nothing hangs."""

    def broken(*args: object) -> None:
        raise RuntimeError("broken")

    with linked(service=service) as (server, client, peer):
        assert client._link is not None
        client._link._make = broken  # type: ignore[assignment]
        peer.abort()
        with server.accept() as second:
            second.answer()
            service.attempt("waiting", 1)
            service.attempt("connecting", 1)
            assert str(service.error(RuntimeError)) == "broken"
            service.ended()
            second.expect_end()
        with pytest.raises(syncws.ConnectionClosed):
            client.send_text("x")
    assert "a call in the I/O thread failed" in caplog.text
    caplog.clear()


def test_an_attempt_that_breaks_ends_the_client(
    service: Reconnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("broken")

    with linked(service=service) as (server, _, peer):
        monkeypatch.setattr("syncws.client.dialer.Dialer.dial", broken)
        peer.abort()
        service.attempt("waiting", 1)
        service.attempt("connecting", 1)
        assert str(service.error(RuntimeError)) == "broken"
        service.ended()
        nobody_comes(server)


# -- Threads, memory, forks --------------------------------------------------


def test_waiting_takes_no_thread() -> None:
    """The one worker that there is serves somebody else meanwhile."""
    engine = syncws.Engine(workers=1, max_workers=1)
    service = Reconnector()
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(linked(engine=engine, retry=LATER)) for _ in range(3)]
        for _, client, peer in waiting:
            peer.abort()
            until_the_gap(client)
        _, _, peer = stack.enter_context(linked(engine=engine, service=service))
        peer.text("hello")
        service.expect("on_text", "hello")
        assert engine.stats().threads == 1


def test_dialing_leaves_workers_for_callbacks() -> None:
    engine = syncws.Engine(workers=2, max_workers=4)
    service = Reconnector()
    with contextlib.ExitStack() as stack:
        dialing = [
            stack.enter_context(linked(engine=engine, handshake_timeout=None)) for _ in range(3)
        ]
        _, _, mine = stack.enter_context(linked(engine=engine, service=service))
        dialing[0][2].abort()
        stack.enter_context(dialing[0][0].accept())
        for _, client, peer in dialing[1:]:
            peer.abort()
            until_the_gap(client)
        mine.text("hello")
        service.expect("on_text", "hello")


@pytest.mark.parametrize("found_by", ["reading", "writing"])
def test_a_client_that_is_dropped_in_the_gap_ends(found_by: str) -> None:
    leaks = Leaks()
    with RawServer() as server:
        opening = server.open_client(
            retry=LATER, ping_interval=None, ready_on_connect=found_by == "reading"
        )
        with server.accept() as peer:
            peer.answer()
            client = opening.result()
            peer.reset()
        # What the failed write has left behind must not keep the client.
        until_the_gap(client)
        weak = weakref.ref(client)
        del opening
        server._opening = None
        gc.collect()
        with pytest.warns(ResourceWarning, match="was not closed"):
            del client
        assert weak() is None
    assert leaks.wait(HANG) == []


def test_a_client_with_a_service_is_kept_in_the_gap(service: Reconnector) -> None:
    with RawServer() as server:
        opening = server.open_client(service=service, retry=NOW, ping_interval=None)
        with server.accept() as peer:
            peer.answer()
            opening.result()
            del opening
            server._opening = None
        with server.accept() as second:
            gc.collect()
            second.answer()
            service.reconnected()
            second.text("hello")
            service.expect("on_text", "hello").close(timeout=0)
            second.abort()
            service.expect("on_close")


_FORK = """
import os, signal, sys, traceback, warnings
warnings.simplefilter("ignore")  # of Python 3.12 about forks with threads
sys.path.insert(0, os.getcwd())
import syncws
from tests.support import RawServer
from tests.reconnecting import LATER, NOW
server = RawServer()
dialing = sys.argv[1] == "dialing"
opening = server.open_client(retry=NOW if dialing else LATER, handshake_timeout=None)
peer = server.accept()
peer.answer()
client = opening.result()
peer.abort()
if dialing:
    second = server.accept()
    second.read_head()
else:
    try:
        while True:
            client.send_text("x")
    except syncws.Reconnecting:
        pass
def sockets():
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass
    return {name for name in found if name.startswith("socket:")}
own = [server.sock, second.sock] if dialing else [server.sock]
mine = {f"socket:[{os.fstat(sock.fileno()).st_ino}]" for sock in own}
# By threads that the child does not have.
link = client._link
locks = [link._lock, link.outbound.lock, link.outbound._encoding]
for lock in locks:
    lock.acquire()
child = os.fork()
if child == 0:
    signal.alarm(15)  # should it hang
    try:
        print("left", sorted(sockets() - mine))
        try:
            client.send_text("not from here")
        except syncws.ConnectionClosed:
            print("closed")
        try:
            client.receive(timeout=5)
        except syncws.ConnectionClosed:
            print("closed")
        client.close()
        print("open", client.is_open)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(0)
for lock in locks:
    lock.release()
os.waitpid(child, 0)
if dialing:
    second._buffer = second.head
    second.answer()
    second.text("hello")
    print("parent", client.receive(timeout=20))
    client.close(timeout=0)
    second.abort()
client.close()
print("parent", client.is_open)
server.sock.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("state", ["waiting", "dialing"])
def test_a_fork_in_the_gap_leaves_the_attempts_to_the_parent(state: str) -> None:
    with interpreter(_FORK, state) as process:
        began = time.monotonic()
        for line in ("left []", "closed", "closed", "open False"):
            assert process.line() == line
        if state == "dialing":
            assert process.line() == "parent hello"
        assert process.line() == "parent False"
        assert time.monotonic() - began < HANG / 2
        code, errors = process.end()
        assert code == 0
        assert "Traceback" not in errors, errors
