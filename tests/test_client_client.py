"""The client: its arguments, receiving, iterating, closing."""

from __future__ import annotations

import http.cookiejar
import logging
import queue
import re
import time
from typing import Any

import pytest

import syncws
from syncws.engine.connection import Connection
from tests.conftest import Leaks
from tests.reconnecting import NOW, Backend, Reconnector
from tests.support import (
    BINARY,
    HANG,
    QUIET,
    TEXT,
    Gate,
    RawPeer,
    RawServer,
    Recorder,
    ServerRecorder,
    Task,
    frame,
    listening,
    open_pair,
    server_tls,
)

# -- Arguments ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"ssl": True}, TypeError, "an ssl.SSLContext or None, not True"),
        ({"engine": "x"}, TypeError, "engine must be a syncws.Engine or None, not 'x'"),
        ({"service": object()}, TypeError, "a service is an instance or a subclass"),
        ({"service": syncws.Service()}, TypeError, "has no callback"),
        ({"service": ServerRecorder}, TypeError, "on_open is never called on a client"),
        ({"subprotocols": "json"}, TypeError, "a sequence of names such as ('json',)"),
        ({"subprotocols": ["a", "a"]}, ValueError, "one twice"),
        ({"subprotocols": ["a b"]}, ValueError, "'a b' is no subprotocol name"),
        ({"headers": {"Host": "x"}}, ValueError, "Host"),
        ({"headers": {"X": "a\r\nb"}}, ValueError, "X"),
        ({"headers": {"X\n": "a"}}, ValueError, "X"),
        ({"handshake_timeout": -1}, ValueError, "handshake_timeout"),
        ({"handshake_timeout": "1"}, TypeError, "handshake_timeout"),
        ({"handshake_timeout": float("nan")}, ValueError, "handshake_timeout"),
        ({"idle_timeout": 0}, ValueError, "idle_timeout must be more than 0"),
        ({"ping_interval": 0}, ValueError, "ping_interval must be more than 0"),
        ({"ping_timeout": "x"}, TypeError, "ping_timeout"),
        ({"close_timeout": None}, TypeError, "close_timeout"),
        ({"send_timeout": -0.1}, ValueError, "send_timeout"),
        ({"max_message_size": 0}, ValueError, "max_message_size must be at least 1, not 0"),
        ({"max_message_size": 1.5}, TypeError, "max_message_size must be an int or None, not 1.5"),
        ({"max_frame_size": True}, TypeError, "max_frame_size"),
        ({"max_fragments": 0}, ValueError, "max_fragments"),
        ({"compression": 1}, TypeError, "compression must be True, False or a Compression, not 1"),
        ({"send_buffer_size": None}, TypeError, "send_buffer_size must be an int, not None"),
        ({"receive_queue_size": 0}, ValueError, "receive_queue_size"),
        ({"receive_queue_bytes": "x"}, TypeError, "receive_queue_bytes"),
        ({"unix_path": 3}, TypeError, "PathLike"),
        ({"max_size": 3}, TypeError, "max_size"),
        ({"retry": True}, TypeError, "retry must be a syncws.RetryConfig or None, not True"),
        ({"retry": 3}, TypeError, "retry must be a syncws.RetryConfig or None, not 3"),
        ({"retry": syncws.RetryConfig}, TypeError, "retry must be a syncws.RetryConfig or None"),
        ({"service": Reconnector()}, TypeError, "on_reconnect is never called without retry"),
        ({"service": Reconnector}, TypeError, "on_reconnect is never called without retry"),
        ({"cookies": "a=b"}, TypeError, "a mapping of names to values or a CookieJar, not 'a=b'"),
        ({"cookies": {"a": 1}}, TypeError, "a cookie is a str and its value a str"),
        ({"cookies": {"a b": "c"}}, ValueError, "a b"),
        ({"cookies": {"a": "b\r\nX-Bad: c"}}, ValueError, "'a'"),
        ({"ssl": "ca.pem"}, TypeError, "ssl must be a syncws.TLSConfig, an ssl.SSLContext or None"),
        ({"ssl": syncws.TLSConfig()}, ValueError, "write wss:// for TLS"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with RawServer() as server:
        with pytest.raises(error, match=re.escape(text)):
            syncws.Client(server.url, **options)
        server.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.sock.accept()


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "localhost",
        "ws://",
        "ws://localhost/#x",
        "ws://local host/",
        "ws://x:y/",
        "ws://localhost/\r\n",
        "",
    ],
)
def test_wrong_urls(url: str) -> None:
    with pytest.raises(ValueError):
        syncws.Client(url)


def test_a_url_is_a_str() -> None:
    with pytest.raises(TypeError):
        syncws.Client(None)  # type: ignore[arg-type]


def test_tls_settings_without_tls() -> None:
    from tests.support import client_tls

    with pytest.raises(ValueError, match="write wss:// for TLS"):
        syncws.Client("ws://localhost:1/", ssl=client_tls())


def test_a_servers_tls_context_is_refused() -> None:
    with pytest.raises(ValueError, match=r"server's context.*create_default_context\(\)"):
        syncws.Client("wss://localhost:1/", ssl=server_tls())


def test_options_are_keywords() -> None:
    with pytest.raises(TypeError, match="positional"):
        syncws.Client("ws://localhost:1/", Recorder())  # type: ignore[misc]


# -- Receiving ---------------------------------------------------------------


def test_text_and_binary() -> None:
    with open_pair() as (client, peer):
        peer.text("text", "")
        peer.send(BINARY, b"data")
        peer.send(BINARY)
        assert [client.receive() for _ in range(4)] == ["text", "", b"data", b""]


def test_fragments_come_as_one() -> None:
    with open_pair() as (client, peer):
        peer.send(TEXT, "a", fin=False)
        peer.send(0x9, b"between")
        peer.send(0x0, "b", fin=False)
        peer.send(0x0, "c")
        assert client.receive(timeout=HANG) == "abc"


def test_receive_text_and_binary_take_their_kind_only() -> None:
    with open_pair() as (client, peer):
        peer.text("one")
        peer.send(BINARY, b"two")
        assert client.receive_text(timeout=HANG) == "one"
        assert client.receive_binary(timeout=HANG) == b"two"
        peer.text("three")
        peer.send(BINARY, b"four")
        with pytest.raises(syncws.MessageTypeError, match="expected a binary message") as caught:
            client.receive_binary(timeout=HANG)
        assert caught.value.message == "three"
        assert isinstance(caught.value, TypeError)
        with pytest.raises(syncws.MessageTypeError, match="expected a text message") as caught:
            client.receive_text(timeout=HANG)
        assert caught.value.message == b"four"
        assert client.is_open


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_a_receive_that_times_out_leaves_the_connection_usable(timeout: float) -> None:
    with open_pair() as (client, peer):
        for receive in (client.receive, client.receive_text, client.receive_binary):
            began = time.monotonic()
            with pytest.raises(syncws.ReceiveTimeout, match=f"within {timeout} s") as caught:
                receive(timeout=timeout)
            assert timeout * 0.5 <= time.monotonic() - began < HANG / 4
            assert isinstance(caught.value, TimeoutError)
        peer.text("late")
        assert client.receive(timeout=HANG) == "late"


def test_what_has_come_is_there_without_waiting() -> None:
    with open_pair() as (client, peer):
        peer.text("one", "two")
        peer.round_trip()
        assert client.receive(timeout=0) == "one"
        assert client.receive(timeout=0) == "two"


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), ("1", TypeError), (True, TypeError), (float("inf"), ValueError)],
)
def test_a_receive_timeout_is_checked(timeout: Any, error: type[Exception]) -> None:
    with open_pair() as (client, peer):
        peer.text("kept")
        for receive in (client.receive, client.receive_text, client.receive_binary):
            with pytest.raises(error, match="timeout"):
                receive(timeout=timeout)
        assert client.receive(timeout=HANG) == "kept"


def test_each_message_goes_to_one_receiver() -> None:
    number = 200
    with open_pair() as (client, peer):
        taken: queue.Queue[str] = queue.Queue()

        def take() -> None:
            for message in client:
                taken.put(str(message))

        tasks = [Task(take) for _ in range(4)]
        texts = [str(count) for count in range(number)]
        peer.text(*texts)
        got = [taken.get(timeout=HANG) for _ in texts]
        assert sorted(got, key=int) == texts
        peer.close_frame(1000)
        for task in tasks:
            task.result()
        assert taken.empty()


def test_a_client_with_a_service_does_not_receive() -> None:
    with open_pair(service=Recorder()) as (client, _):
        for receive in (client.receive, client.receive_text, client.receive_binary):
            with pytest.raises(RuntimeError, match="has a callback service"):
                receive(timeout=0)
        with pytest.raises(RuntimeError, match="has a callback service"):
            next(iter(client))


def test_a_class_of_service() -> None:
    made: queue.Queue[Recorder] = queue.Queue()

    class Made(Recorder):
        def __init__(self) -> None:
            super().__init__()
            made.put(self)

    with open_pair(service=Made) as (client, peer):
        peer.text("hello")
        service = made.get(timeout=HANG)
        assert service.expect("on_text", "hello") is client


def test_a_streaming_service_gets_the_fragments() -> None:
    class Streaming(Recorder):
        def on_text(self, client: Any, text: str, final: bool) -> None:
            self.record("on_text", client, text, final)

    service = Streaming()
    with open_pair(service=service) as (_, peer):
        peer.send(TEXT, "ä".encode()[:1], fin=False)
        peer.send(0x0, "ä".encode()[1:] + b"b", fin=False)
        peer.send(0x0, "c")
        parts = [service.next().args for _ in range(3)]
        assert "".join(text for text, _ in parts) == "äbc"
        assert [final for _, final in parts] == [False, False, True]


# -- Iterating ---------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, None])
def test_iteration_ends_with_an_orderly_close(code: int | None) -> None:
    with open_pair() as (client, peer):
        peer.text("one", "two")
        if code is None:
            peer.send(0x8)
        else:
            peer.close_frame(code)
        assert list(client) == ["one", "two"]
        assert list(client) == []


@pytest.mark.parametrize("way", ["4000", "1002", "abort", "failure"])
def test_iteration_raises_at_any_other_end(way: str) -> None:
    with open_pair() as (client, peer):
        peer.text("one")
        if way.isdigit():
            peer.close_frame(int(way))
        elif way == "abort":
            peer.abort()
        else:
            peer.send_bytes(frame(0x3, masked=False))
        messages = iter(client)
        assert next(messages) == "one"
        with pytest.raises(syncws.ConnectionClosed):
            next(messages)


def test_iteration_ends_when_this_end_closes() -> None:
    with open_pair() as (client, peer):
        taking = Task(list, client)
        client.close(timeout=0)
        assert taking.result() == []
        peer.expect_close(1000)


# -- Life --------------------------------------------------------------------


def test_the_with_block_closes() -> None:
    service = ServerRecorder()
    with listening(service) as listener:
        with syncws.Client(f"ws://127.0.0.1:{listener.port}/") as client:
            service.expect("on_open")
            assert client.is_open
        assert not client.is_open
        service.expect("on_close", 1000, "")
        with pytest.raises(KeyError), syncws.Client(f"ws://127.0.0.1:{listener.port}/"):
            raise KeyError
        service.expect("on_open")
        service.expect("on_close", 1000, "")


def test_a_client_takes_one_thread_which_goes_with_it() -> None:
    leaks = Leaks()
    with open_pair() as (client, peer):
        assert [line for line in leaks.left() if "thread" in line] == ["thread syncws-io"]
        closing = Task(client.close)
        peer.expect_close(1000)
        peer.close_frame(1000)
        peer.abort()
        closing.result()
    assert leaks.wait(HANG) == []


def test_a_callback_may_open_another_client() -> None:
    class Opening(Recorder):
        def on_text(self, client: Any, text: str) -> None:
            with syncws.Client(url) as other:
                other.send_text(text)
                self.record("echoed", client, other.receive(timeout=HANG))

    class Echo(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            caller.send_text(text)

    with listening(Echo()) as listener:
        url = f"ws://127.0.0.1:{listener.port}/"
        service = Opening()
        with syncws.Client(url, service=service) as client:
            client.send_text("hello")
            service.expect("echoed", "hello")


def test_a_failed_constructor_leaves_nothing_running() -> None:
    with RawServer() as server:
        opening = Task(syncws.Client, server.url)
        with server.accept() as peer:
            peer.read_head()
            peer.send_bytes(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
            assert isinstance(opening.error(), syncws.HandshakeRejected)
    assert syncws.default_engine().stats().users == 0


def test_latency_is_measured_by_keepalive_pings() -> None:
    class Ponging(syncws.Service):
        def on_ping(self, caller: syncws.Caller, data: bytes) -> None:
            caller.pong(data)
            caller.send_text("answered")

    with (
        listening(Ponging()) as listener,
        syncws.Client(f"ws://127.0.0.1:{listener.port}/", ping_interval=0.02) as client,
    ):
        assert client.receive(timeout=HANG) == "answered"
        latency = client.latency
        assert latency is not None
        assert 0 < latency < HANG


def test_a_connection_lost_right_behind_the_handshake_is_a_connect_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(sock: object) -> None:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr("syncws.client.dialer.peer_addresses", lost)
    with RawServer() as server:
        opening = Task(syncws.Client, server.url)
        with server.accept() as peer:
            peer.answer()
            assert isinstance(opening.error(), syncws.ConnectError)
            peer.expect_end()
    assert syncws.default_engine().stats().users == 0


def test_a_connection_that_cannot_be_started_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Connection, "start", broken)
    with open_pair() as (client, peer):
        with pytest.raises(syncws.ConnectionClosed):
            client.receive(HANG)
        peer.expect_end()


# -- The end -----------------------------------------------------------------


def test_waiting_for_the_end_of_a_blocking_client() -> None:
    with open_pair() as (client, peer):
        assert not client.wait_closed(0)
        waiting = Task(client.wait_closed, HANG)
        peer.close_frame()
        peer.expect_close()
        peer.abort()
        assert waiting.result() is True
        assert client.wait_closed() is True


def test_waiting_for_the_end_waits_for_on_close() -> None:
    gate = Gate()

    class Slow(syncws.Service):
        def on_close(self, client: syncws.Client, status_code: int, reason: str) -> None:
            gate.block()

    with open_pair(service=Slow()) as (client, peer), gate:
        peer.abort()
        gate.reached()
        assert not client.is_open
        assert not client.wait_closed(QUIET)
        gate.open()
        assert client.wait_closed(HANG)


def test_waiting_for_the_end_in_a_callback_does_not_wait_for_callbacks() -> None:
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()

    class Impatient(syncws.Service):
        def on_text(self, client: syncws.Client, text: str) -> None:
            told.put(client.wait_closed(QUIET))
            client.close(timeout=0)
            told.put(client.wait_closed(HANG))

    with open_pair(service=Impatient()) as (client, peer):
        peer.text("go")
        peer.expect_close()
        peer.close_frame()
        peer.abort()
        assert [told.get(timeout=HANG) for _ in range(2)] == [False, True]
        assert client.wait_closed(HANG)


@pytest.mark.parametrize("timeout", [-1, "1", float("nan")])
def test_a_wrong_time_to_wait_for_the_end(timeout: Any) -> None:
    with open_pair() as (client, _), pytest.raises((TypeError, ValueError), match="timeout"):
        client.wait_closed(timeout)


# -- Cookies -----------------------------------------------------------------


def cookie_lines(peer: RawPeer) -> list[bytes]:
    return [line for line in peer.head.split(b"\r\n") if line.lower().startswith(b"cookie:")]


def test_cookies_are_sent_and_kept() -> None:
    with open_pair(cookies={"mine": "1"}, answer=("Set-Cookie: theirs=2",)) as (client, peer):
        assert cookie_lines(peer) == [b"Cookie: mine=1"]
        assert {cookie.name: cookie.value for cookie in client.cookies} == {
            "mine": "1",
            "theirs": "2",
        }


def test_without_cookies_none_are_sent() -> None:
    with open_pair() as (client, peer):
        assert cookie_lines(peer) == []
        assert list(client.cookies) == []


def test_each_client_has_a_jar_of_its_own() -> None:
    jar = http.cookiejar.CookieJar()
    with open_pair(cookies=jar, answer=("Set-Cookie: theirs=2",)) as (client, _):
        assert client.cookies is not jar
        with open_pair(cookies=jar) as (other, peer):
            assert cookie_lines(peer) == []
            assert list(other.cookies) == []
    assert list(jar) == []


def test_a_cookie_header_by_hand() -> None:
    with open_pair(cookies={"mine": "1"}, headers={"Cookie": "by=hand"}) as (_, peer):
        assert cookie_lines(peer) == [b"Cookie: by=hand"]


# -- Retries of the first connection -----------------------------------------


def test_a_server_that_comes_late_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "syncws.client")
    tried: queue.Queue[str] = queue.Queue()

    class Telling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tried.put(record.getMessage())

    handler = Telling()
    logging.getLogger("syncws.client").addHandler(handler)
    service = Reconnector()
    retry = syncws.RetryConfig(interval=0.001, jitter=0)
    try:
        with Backend(listening=False) as backend:
            opening = Task(syncws.Client, backend.url, service=service, retry=retry)
            waits = 0
            while waits < 3:
                waits += "0.001 s" in tried.get(timeout=HANG)
            backend.listen()
            with backend.answered() as peer:
                client = opening.result()
                peer.text("hello")
                assert service.expect("on_text", "hello") is client  # and of no attempt
                client.close(timeout=0)
                peer.abort()
            client.close()
    finally:
        logging.getLogger("syncws.client").removeHandler(handler)
    texts = [record.getMessage() for record in caplog.records]
    assert re.match(r"ws://127.*: connecting with .* refused: .*; attempt 2 in 0.001 s", texts[0])
    assert any(text.startswith(f"connected to {backend.url} by attempt ") for text in texts)


@pytest.mark.parametrize("count", [1, 3])
def test_a_server_that_never_comes(count: int) -> None:
    retry = syncws.RetryConfig(max_count=count, interval=0.0)
    with (
        Backend(listening=False) as backend,
        pytest.raises(syncws.RetriesExhausted, match="refused") as caught,
    ):
        syncws.Client(backend.url, retry=retry)
    error = caught.value
    assert error.attempts == count + 1
    assert [url for url, _ in error.reasons] == [backend.url]
    assert error.__cause__ is error.reasons[0][1]
    assert isinstance(error, syncws.ConnectError)
    assert syncws.default_engine().stats().users == 0


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_come_in_does_not_try_again(status: int) -> None:
    with RawServer() as server:
        opening = Task(syncws.Client, server.url, retry=NOW)
        with server.accept() as peer:
            peer.read_head()
            peer.send_bytes(f"HTTP/1.1 {status} No\r\nContent-Length: 3\r\n\r\nwhy".encode())
            error = opening.error()
        assert isinstance(error, syncws.HandshakeRejected)
        assert (error.status, error.body) == (status, b"why")


def test_a_refusal_sets_a_cookie_for_the_next_attempt() -> None:
    with RawServer() as server:
        opening = Task(syncws.Client, server.url, retry=NOW, ping_interval=None)
        with server.accept() as peer:
            peer.read_head()
            peer.send_bytes(b"HTTP/1.1 503 No\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\n\r\n")
        with server.accept() as second:
            second.answer()
            assert cookie_lines(second) == [b"Cookie: a=1"]
            client = opening.result()
            client.close(timeout=0)
            second.abort()
        client.close()


# -- Waiting for the end -----------------------------------------------------


def test_a_client_is_waited_for_until_it_does_not_connect_any_more() -> None:
    service = Reconnector()
    retry = syncws.RetryConfig(max_count=1, interval=0.0)
    with Backend() as backend:
        opening = Task(syncws.Client, backend.url, service=service, retry=retry, ping_interval=None)
        peer = backend.answered()
        client = opening.result()
        assert client.wait_closed(0) is False
        waiting = Task(client.wait_closed)
        peer.abort()
        with backend.answered():
            service.reconnected()
            assert client.wait_closed(0) is False
            backend.refuse()
        assert waiting.result() is True
        names = [service.next().name for _ in range(4)]
        assert names == ["on_reconnect", "on_reconnect", "on_error", "on_close"]
        assert client.wait_closed(0) is True
