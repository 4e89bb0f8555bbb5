"""A client with several addresses: which it goes on to, and when it gives up."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import syncws
from syncws.config import ClientConfig
from tests.reconnecting import NEVER, NOW, Backend, Reconnector
from tests.support import BINARY, HANG, TEXT, RawPeer, Task, client_tls, wait_until

ONCE = syncws.RetryConfig(max_count=1, interval=0.0)


@pytest.fixture
def backends() -> Iterator[list[Backend]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Backend()) for _ in range(3)]


@pytest.fixture
def service() -> Reconnector:
    return Reconnector()


def opening_to(backends: list[Backend], **options: Any) -> Task:
    options = {"failover_interval": 0.0, "ping_interval": None, **options}
    return Task(syncws.FailoverClient, [backend.url for backend in backends], **options)


@contextlib.contextmanager
def connected(
    backends: list[Backend], at: int = 0, **options: Any
) -> Iterator[tuple[syncws.FailoverClient, RawPeer]]:
    """A client that is connected to one of them, and the other end."""
    opening = opening_to(backends, **options)
    with backends[at].answered() as peer:
        client = opening.result()
        try:
            yield client, peer
        finally:
            client.close(timeout=0)
            peer.abort()
            client.close()


# -- Arguments ---------------------------------------------------------------


def test_the_options_are_those_of_a_client() -> None:
    client = dict(inspect.signature(syncws.Client).parameters)
    failover = dict(inspect.signature(syncws.FailoverClient).parameters)
    assert [name for name in client if name not in failover] == ["url", "unix_path"]
    assert [name for name in failover if name not in client] == ["urls", "failover_interval"]
    for name in client.keys() & failover.keys():
        assert client[name] == failover[name]
    assert failover["failover_interval"].default == 1.0
    config = {field.name for field in dataclasses.fields(ClientConfig)}
    assert config <= client.keys()
    assert next(iter(failover)) == "urls"
    assert [p.kind for p in failover.values()][1:] == [inspect.Parameter.KEYWORD_ONLY] * (
        len(failover) - 1
    )


@pytest.mark.parametrize(
    ("urls", "options", "error", "text"),
    [
        ("ws://a.example/", {}, TypeError, r"such as \['ws://a.example/'\]"),
        (b"ws://a.example/", {}, TypeError, "urls must be a sequence"),
        ([], {}, ValueError, "urls is empty"),
        ([None], {}, TypeError, "None"),
        (["http://a.example/"], {}, ValueError, "http://a.example/"),
        (["ws://a.example/", "b.example"], {}, ValueError, "b.example"),
        (None, {}, TypeError, "None"),
        (["ws://a.example/"], {"failover_interval": None}, TypeError, "not None"),
        (["ws://a.example/"], {"failover_interval": -1}, ValueError, "failover_interval"),
        (["ws://a.example/"], {"failover_interval": "1"}, TypeError, "failover_interval"),
        (["ws://a.example/"], {"failover_interval": True}, TypeError, "failover_interval"),
        (["ws://a.example/"], {"retry": syncws.RetryConfig()}, ValueError, "max_count=0"),
        (["ws://a.example/"], {"retry": 3}, TypeError, "a syncws.RetryConfig or None, not 3"),
        (["ws://a.example/"], {"unix_path": "/x"}, TypeError, "unix_path"),
        (["ws://a.example/"], {"ssl": client_tls()}, ValueError, "write wss://"),
        (["ws://a.example/"], {"headers": {"Host": "x"}}, ValueError, "Host"),
    ],
)
def test_wrong_arguments(
    urls: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        syncws.FailoverClient(urls, **options)


def test_it_is_a_client() -> None:
    assert issubclass(syncws.FailoverClient, syncws.Client)


# -- The first connection ----------------------------------------------------


def test_the_first_that_accepts_is_taken(backends: list[Backend]) -> None:
    with connected(backends) as (client, peer):
        assert client.url == backends[0].url
        assert repr(client).startswith("<syncws.FailoverClient ")
        client.send_text("hello")
        peer.expect(TEXT, "hello")


def test_those_that_refuse_are_passed(
    backends: list[Backend], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "syncws.client")
    backends[0].refuse()
    backends[1].refuse()
    with connected(backends, at=2) as (client, peer):
        assert client.url == backends[2].url
        peer.text("hello")
        assert client.receive(HANG) == "hello"
    assert f"attempt 2 at {backends[1].url} in 0 s" in caplog.text
    assert f"connected to {backends[2].url} by attempt 3" in caplog.text


def test_one_that_may_not_be_entered_is_passed(backends: list[Backend]) -> None:
    opening = opening_to(backends)
    with backends[0].accept() as refusing:
        refusing.read_head()
        refusing.send_bytes(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        with backends[1].answered() as peer:
            client = opening.result()
            assert client.url == backends[1].url
            client.close(timeout=0)
            peer.abort()
            client.close()


def test_all_refuse(backends: list[Backend]) -> None:
    for backend in backends:
        backend.refuse()
    error = opening_to(backends).error()
    assert isinstance(error, syncws.RetriesExhausted)
    assert [url for url, _ in error.reasons] == [backend.url for backend in backends]
    for _, reason in error.reasons:
        assert isinstance(reason, syncws.ConnectError)
        assert "refused" in str(reason)
    assert error.attempts == 3
    assert str(error).count("refused") == 3
    assert syncws.default_engine().stats().users == 0


def test_all_refuse_each_as_often_as_retry_says(backends: list[Backend]) -> None:
    for backend in backends:
        backend.refuse()
    retry = syncws.RetryConfig(max_count=2, interval=0.0)
    error = opening_to(backends, retry=retry).error()
    assert isinstance(error, syncws.RetriesExhausted)
    assert error.attempts == 9
    assert [url for url, _ in error.reasons] == [backend.url for backend in backends]


# -- Losses ------------------------------------------------------------------


def test_losses_go_round(backends: list[Backend], service: Reconnector) -> None:
    with connected(backends, service=service) as (client, peer):
        mine = client.id
        peer.abort()
        for number in (1, 2, 0, 1):
            with backends[number].answered() as another:
                waiting = service.reconnected()
                assert waiting.url == backends[number].url
                assert isinstance(waiting.error, syncws.ConnectionClosed)
                assert client.url == backends[number].url
                assert client.remote_address == ("127.0.0.1", backends[number].port)
                assert client.id == mine
                client.send_binary(b"hello")
                another.expect(BINARY, b"hello")


@pytest.mark.parametrize("code", [1011, 1012, 1013, 1014])
def test_a_server_that_says_it_goes_is_a_loss(
    code: int, backends: list[Backend], service: Reconnector
) -> None:
    with connected(backends, service=service) as (_, peer):
        peer.finish(code)
        with backends[1].answered():
            assert service.reconnected().url == backends[1].url


def test_an_orderly_close_is_the_end(backends: list[Backend], service: Reconnector) -> None:
    with connected(backends, service=service) as (_, peer):
        peer.finish(1000)
        service.expect("on_close", 1000, "")
        service.quiet()


def test_behind_a_loss_those_that_refuse_are_passed(
    backends: list[Backend], service: Reconnector
) -> None:
    with connected(backends, service=service) as (client, peer):
        backends[1].refuse()
        peer.abort()
        with backends[2].answered():
            for number, at in ((1, 1), (2, 2)):
                assert service.attempt("waiting", number).url == backends[at].url
                assert service.attempt("connecting", number).url == backends[at].url
            assert service.attempt("connected", 2).url == backends[2].url
            assert client.url == backends[2].url


def test_the_lost_one_is_tried_last(backends: list[Backend], service: Reconnector) -> None:
    with connected(backends, service=service) as (_, peer):
        backends[1].refuse()
        backends[2].refuse()
        peer.abort()
        with backends[0].answered():
            for number, at in ((1, 1), (2, 2), (3, 0)):
                service.attempt("waiting", number)
                assert service.attempt("connecting", number).url == backends[at].url
            service.attempt("connected", 3)


def test_a_full_round_without_success_is_the_end(
    backends: list[Backend], service: Reconnector, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(backends, service=service) as (client, peer):
        backends[0].refuse()
        backends[2].refuse()
        peer.abort()
        with backends[1].accept() as refusing:
            refusing.read_head()
            refusing.send_bytes(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
            for number in (1, 2, 3):
                service.attempt("waiting", number)
                service.attempt("connecting", number)
        error = service.error(syncws.RetriesExhausted)
        assert [url for url, _ in error.reasons] == [backends[at].url for at in (1, 2, 0)]
        kinds = [type(reason) for _, reason in error.reasons]
        assert kinds == [syncws.HandshakeRejected, syncws.ConnectError, syncws.ConnectError]
        assert error.attempts == 3
        service.expect("on_close", 1006, "")
        service.quiet()
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.send_text("x")
        assert caught.value.__cause__ is error
    text = "giving up: no connection after 3 attempts"
    wait_until(lambda: text in caplog.text)  # a worker writes it, beside the callbacks


def test_each_is_retried_before_the_next(backends: list[Backend], service: Reconnector) -> None:
    with connected(backends[:2], service=service, retry=ONCE, failover_interval=0.001) as (
        _,
        peer,
    ):
        backends[0].refuse()
        backends[1].refuse()
        peer.abort()
        found = []
        while (call := service.next()).name == "on_reconnect":
            attempt = call.args[0]
            if attempt.state == "waiting":
                found.append((attempt.number, attempt.url, attempt.wait))
        first, second = backends[0].url, backends[1].url
        assert found == [(1, first, 0.0), (2, second, 0.001), (3, second, 0.0)]
        assert call.name == "on_error"
        assert [url for url, _ in call.args[0].reasons] == [first, second]


def test_the_lost_one_is_retried_first(backends: list[Backend], service: Reconnector) -> None:
    with connected(backends, service=service, retry=ONCE) as (client, peer):
        for _ in range(2):
            peer.abort()
            with backends[0].answered() as again:
                service.reconnected()
                assert client.url == backends[0].url
                again.text("x")
                service.expect("on_text", "x")


def test_the_next_has_its_turn_behind_the_interval(
    backends: list[Backend], service: Reconnector
) -> None:
    with connected(backends, service=service, failover_interval=1000) as (client, peer):
        peer.abort()
        waiting = service.attempt("waiting", 1)
        assert (waiting.wait, waiting.url) == (1000, backends[1].url)
        assert client.url == backends[0].url  # the one that there was last
        client.close()
        service.ended()


def test_one_address_alone_is_tried_once_more(
    backends: list[Backend], service: Reconnector
) -> None:
    with connected(backends[:1], service=service) as (_, peer):
        peer.abort()
        with backends[0].answered():
            service.reconnected()
            backends[0].refuse()
        service.attempt("waiting", 1)
        service.attempt("connecting", 1)
        service.error(syncws.RetriesExhausted)
        service.ended()


def test_without_retry_a_send_in_the_gap_is_refused(backends: list[Backend]) -> None:
    with connected(backends) as (client, peer):
        peer.abort()
        with backends[1].accept() as second:
            with pytest.raises(syncws.Reconnecting):
                client.send_text("lost")
            second.answer()
            second.text("x")
            assert client.receive(HANG) == "x"
            client.send_text("new")
            second.expect(TEXT, "new")


def test_a_send_may_wait_for_the_next(backends: list[Backend]) -> None:
    retry = syncws.RetryConfig(max_count=1, interval=0.0, wait_to_send=True)
    with connected(backends, retry=retry) as (client, peer):
        backends[0].refuse()
        peer.abort()
        with backends[1].accept() as second:
            sending = Task(client.send_text, "hello")
            second.answer()
            second.expect(TEXT, "hello")
            sending.result()


def test_each_gets_its_own_cookies(backends: list[Backend]) -> None:
    """A port does not part cookies, says RFC 6265 section 8.5; a path does."""
    urls = [f"{backends[0].url}one/x", f"{backends[1].url}two/x"]
    opening = Task(syncws.FailoverClient, urls, failover_interval=0.0, ping_interval=None)
    with backends[0].answered("Set-Cookie: one=1", "Set-Cookie: both=2; Path=/"):
        client = opening.result()
    with backends[1].answered("Set-Cookie: two=3") as second:
        assert b"Cookie: both=2\r\n" in second.head
        second.text("x")
        assert client.receive(HANG) == "x"
        assert {cookie.name for cookie in client.cookies} == {"one", "both", "two"}
        client.close(timeout=0)
        second.abort()
    client.close()


def test_user_and_password_go_to_their_address_only(backends: list[Backend]) -> None:
    with_password = backends[0].url.replace("ws://", "ws://user:secret@")
    opening = Task(
        syncws.FailoverClient,
        [with_password, backends[1].url],
        failover_interval=0.0,
        ping_interval=None,
    )
    with backends[0].answered() as peer:
        client = opening.result()
        assert b"Authorization: Basic" in peer.head
        assert client.url == backends[0].url
    with backends[1].answered() as second:
        assert b"Authorization" not in second.head
        client.close(timeout=0)
        second.abort()
    client.close()


def test_nothing_else_makes_a_client_go_on(backends: list[Backend]) -> None:
    """A client with one address stays with it."""
    assert NOW.max_count == 0
    opening = Task(syncws.Client, backends[0].url, retry=NEVER, ping_interval=None)
    with backends[0].answered():
        client = opening.result()
        backends[0].refuse()
    with pytest.raises(syncws.ConnectionClosed):
        client.receive(HANG)
    assert client.url == backends[0].url
    client.close()
