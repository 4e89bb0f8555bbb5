"""Clients through real proxies: squid, tinyproxy and Dante."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest

import syncws
from tests.programs import free_port
from tests.proxying import (
    PASSWORD,
    REALM,
    SECRET_NAME,
    USER,
    RunningProxy,
    dante,
    no_proxies,
    squid,
    tinyproxy,
)
from tests.reconnecting import Reconnector
from tests.support import HANG, ServerRecorder, client_tls, listening, server_tls

MIB = 1_048_576

_PROXIES = {
    "squid": squid,
    "squid with users": lambda: squid(auth=True),
    "squid over TLS": lambda: squid(tls=True),
    "squid over TLS with users": lambda: squid(tls=True, auth=True),
    "tinyproxy": tinyproxy,
    "tinyproxy with users": lambda: tinyproxy(auth=True),
    "Dante, SOCKS 5": lambda: dante("socks5"),
    "Dante, SOCKS 5 with names": lambda: dante("socks5h"),
    "Dante, SOCKS 4": lambda: dante("socks4"),
}


class Echo(syncws.Service):
    config = syncws.ServiceConfig(max_message_size=8 * MIB)

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        caller.send_binary(data)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxies(monkeypatch)


@pytest.fixture(scope="module", params=_PROXIES)
def proxy(request: pytest.FixtureRequest) -> Iterator[RunningProxy]:
    with _PROXIES[request.param]() as running:
        yield running


@contextlib.contextmanager
def target(tls: bool, *names: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A listener that echoes: its URL, and the options that it takes."""
    options: dict[str, Any] = {"ssl": server_tls(*names)} if tls else {}
    with listening(Echo(), **options) as listener:
        scheme = "wss" if tls else "ws"
        yield (
            f"{scheme}://{names[0] if names else 'localhost'}:{listener.port}/",
            {"ssl": client_tls()} if tls else {},
        )


def through(proxy: RunningProxy, url: str | None = None) -> dict[str, Any]:
    """Return the options for a client to go through it."""
    options: dict[str, Any] = {"proxy": url or proxy.url}
    if proxy.url.startswith("https:"):
        options["proxy_ssl"] = client_tls()
    return options


with_and_without_tls = pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])


# -- Messages ----------------------------------------------------------------


@with_and_without_tls
def test_echo(proxy: RunningProxy, tls: bool) -> None:
    with (
        target(tls) as (url, options),
        syncws.Client(url, **options, **through(proxy)) as client,
    ):
        client.send_text("hello")
        assert client.receive(timeout=HANG) == "hello"
        assert client.is_secure is tls
        assert client.url == url
        remote = client.remote_address
        assert isinstance(remote, tuple)
        assert remote[1] == proxy.port
        client.close(1000, "done")


@with_and_without_tls
def test_big_messages(proxy: RunningProxy, tls: bool) -> None:
    data = bytes(range(256)) * (4 * MIB // 256)
    with (
        target(tls) as (url, options),
        syncws.Client(
            url, max_message_size=8 * MIB, compression=False, **options, **through(proxy)
        ) as client,
    ):
        for size in (4 * MIB, 1, 16_384, 65_536, 3 * MIB + 1):
            client.send_binary(data[:size])
        for size in (4 * MIB, 1, 16_384, 65_536, 3 * MIB + 1):
            assert client.receive(timeout=HANG) == data[:size]


@with_and_without_tls
def test_many_messages_before_any_is_received(proxy: RunningProxy, tls: bool) -> None:
    texts = [f"message {number}" for number in range(500)]
    with (
        target(tls) as (url, options),
        syncws.Client(url, **options, **through(proxy)) as client,
    ):
        for text in texts:
            client.send_text(text)
        assert [client.receive(timeout=HANG) for _ in texts] == texts


def test_the_servers_close_comes_through(proxy: RunningProxy) -> None:
    service = ServerRecorder()
    with (
        listening(service) as listener,
        syncws.Client(f"ws://localhost:{listener.port}/", **through(proxy)) as client,
    ):
        service.expect("on_open").close(4001, "enough", timeout=0)
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.receive(timeout=HANG)
        assert caught.value.received == (4001, "enough")


# -- What goes wrong ---------------------------------------------------------


_REFUSALS = {
    "squid": (squid, 403),
    "squid over TLS": (lambda: squid(tls=True), 403),
    "tinyproxy": (lambda: tinyproxy(1), 403),
    "Dante, SOCKS 5": (dante, 2),
}


@pytest.mark.parametrize("kind", _REFUSALS)
def test_a_port_that_the_proxy_does_not_allow(kind: str) -> None:
    make, status = _REFUSALS[kind]
    retry = syncws.RetryConfig(interval=0.0)  # for ever, did it not give up
    with make() as proxy:
        url = f"ws://localhost:{proxy.forbidden}/"
        with pytest.raises(syncws.ProxyError, match=f"the proxy {proxy.open_url} ") as caught:
            syncws.Client(url, retry=retry, **through(proxy))
    assert caught.value.status == status
    assert caught.value.proxy == proxy.open_url


def test_a_server_that_is_away(proxy: RunningProxy) -> None:
    retry = syncws.RetryConfig(max_count=1, interval=0.0)
    url = f"ws://127.0.0.1:{free_port()}/"
    with pytest.raises(syncws.RetriesExhausted) as caught:
        syncws.Client(url, retry=retry, **through(proxy))
    assert caught.value.attempts == 2
    (reason,) = caught.value.reasons
    assert isinstance(reason[1], syncws.ProxyError)
    assert f"the proxy {proxy.open_url} " in str(caught.value)


@pytest.mark.parametrize("kind", ["squid with users", "tinyproxy with users"])
@pytest.mark.parametrize("known", [False, True], ids=["nobody", "a wrong password"])
def test_who_may_not_use_the_proxy(
    kind: str, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    retry = syncws.RetryConfig(interval=0.0)  # for ever, did it not give up
    with _PROXIES[kind]() as proxy:
        url = proxy.url.replace(PASSWORD, "wrong-password") if known else proxy.open_url
        with pytest.raises(syncws.ProxyAuthenticationError) as caught:
            syncws.Client("ws://localhost:1/", proxy=url, retry=retry)
    error = caught.value
    text = "does not take this user and password" if known else "asks for a user and a password"
    assert f"the proxy {proxy.open_url} {text}" in str(error)
    assert error.status in (401, 407)
    if "squid" in kind:
        assert error.realm == REALM
    for secret in ("wrong-password", f"{USER}:"):
        assert secret not in f"{error!r} {caplog.text}"


def test_the_certificate_of_a_proxy_is_verified() -> None:
    with squid(tls=True) as proxy, target(True) as (url, options):
        with pytest.raises(syncws.TLSError, match=f"the proxy {proxy.open_url} failed"):
            syncws.Client(url, proxy=proxy.url, **options)
        elsewhere = proxy.url.replace("localhost", "127.0.0.1")
        with pytest.raises(syncws.TLSError, match=r"not valid for '127\.0\.0\.1'"):
            syncws.Client(url, proxy=elsewhere, proxy_ssl=client_tls(), **options)
        with pytest.raises(syncws.ProxyError, match="write https://"):
            syncws.Client(url, proxy=proxy.url.replace("https", "http"), **options)


@with_and_without_tls
def test_the_certificate_of_the_server_is_verified_behind_the_proxy(
    proxy: RunningProxy, tls: bool
) -> None:
    with target(tls, "other.example") as (url, _):
        secure = url.replace("ws:", "wss:").replace("other.example", "localhost")
        with pytest.raises(syncws.TLSError) as caught:
            syncws.Client(secure, ssl=client_tls(), **through(proxy))
    expected = "not valid for 'localhost'" if tls else "does not speak TLS"
    assert expected in str(caught.value)
    assert f"through the proxy {proxy.open_url} failed" in str(caught.value)


# -- Names and the environment -----------------------------------------------


@with_and_without_tls
@pytest.mark.parametrize("upper", [False, True], ids=["lower", "upper"])
def test_the_environments_proxy_knows_names_that_nobody_else_does(
    tls: bool, upper: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with squid(auth=True) as proxy, target(tls, SECRET_NAME) as (url, options):
        with pytest.raises(syncws.ConnectError) as caught:
            syncws.Client(url, proxy=None, **options)
        assert isinstance(caught.value.__cause__, socket.gaierror)
        name = "https_proxy" if tls else "http_proxy"
        monkeypatch.setenv(name.upper() if upper else name, proxy.url)
        with syncws.Client(url, **options) as client:
            client.send_text("hello")
            assert client.receive(timeout=HANG) == "hello"
        monkeypatch.setenv("no_proxy", ".example")
        with pytest.raises(syncws.ConnectError) as caught:
            syncws.Client(url, **options)
        assert isinstance(caught.value.__cause__, socket.gaierror)


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for tls in (False, True):
        with target(tls) as (url, options), syncws.Client(url, **options) as client:
            client.send_text("hello")
            assert client.receive(timeout=HANG) == "hello"


# -- Coming back -------------------------------------------------------------


def test_a_proxy_that_dies_and_comes_back() -> None:
    service, recorder = ServerRecorder(), Reconnector()
    retry = syncws.RetryConfig(interval=0.01)
    port = free_port()
    with listening(service) as listener:
        url = f"ws://localhost:{listener.port}/"
        with squid(port=port) as proxy:
            client = syncws.Client(url, service=recorder, retry=retry, proxy=proxy.url)
            service.expect("on_open")
            proxy.program.kill()
            error = recorder.attempt("waiting", 1).error
            assert isinstance(error, syncws.ConnectionClosed)
        with client:
            while True:  # for as long as it is away
                recorder.attempt("connecting")
                failed = recorder.attempt("waiting")
                assert isinstance(failed.error, syncws.ProxyError)
                assert f"connecting with the proxy {proxy.open_url} failed" in str(failed.error)
                if failed.number > 3:
                    break
            with squid(port=port):
                while recorder.next().args[0].state != "connected":
                    pass
                while service.next().name != "on_open":
                    pass
                client.send_text("again")
                service.expect("on_text", "again")
                client.close()
                service.expect("on_close", 1000, "")


def test_failover_goes_through_the_proxy(proxy: RunningProxy) -> None:
    with target(False) as (url, _):
        urls = [f"ws://127.0.0.1:{free_port()}/", url]
        with syncws.FailoverClient(urls, failover_interval=0.0, **through(proxy)) as client:
            client.send_text("hello")
            assert client.receive(timeout=HANG) == "hello"
            assert client.url == url
            remote = client.remote_address
            assert isinstance(remote, tuple)
            assert remote[1] == proxy.port
