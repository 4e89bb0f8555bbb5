"""Proxies of a client's that are hostile: they answer too much, too slowly, nonsense, or lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import syncws
from tests.abuse.hostile import beside, everything, nobody_waits
from tests.abuse.watch import watched
from tests.proxying import TUNNEL, taken
from tests.support import RawPeer, RawServer

KIB = 1024

_SECRETS: dict[str, Any] = {
    "cookies": {"session": "secret"},
    "headers": {"X-Token": "secret"},
    "auth": ("user", "secret"),
}


@contextmanager
def proxying(
    error: type[syncws.ConnectError],
    scheme: str = "http",
    *,
    url: str = "ws://app.example/",
    userinfo: str = "",
    peak: int | None = None,
    **options: Any,
) -> Iterator[RawPeer]:
    """A hostile proxy's end of a connection that our client breaks off with this error.

    The client has connected once, then, and is gone when the block ends.

    Args:
        error: What `Client(...)` raises.
        scheme: What the proxy is taken for.
        url: Where the client wants to go.
        userinfo: A user and a password for the proxy.
        peak: See `watched`.
        options: Those of the client.
    """
    with beside() as others, watched(peak=peak), RawServer() as server:
        options["proxy"] = f"{scheme}://{userinfo}127.0.0.1:{server.port}"
        server.url = url
        opening = server.open_client(**options)
        with server.accept() as peer:
            yield peer
            raised = opening.error()
            assert type(raised) is error, raised
            others.served()
            everything(peer)  # what was left of its request, and the end
        assert nobody_waits(server)


def _pour(peer: RawPeer, data: bytes, times: int) -> None:
    with suppress(ConnectionError):
        for _ in range(times):
            peer.send_bytes(data)


def _say(peer: RawPeer, data: bytes) -> None:
    """Send the last that this end has to say."""
    with suppress(OSError):  # the client may be gone
        peer.send_bytes(data)
        peer.end_writing()


# -- Floods ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "more", "times"),
    [
        pytest.param(b"", b"x" * 65_536, 300, id="20 MB of a line"),
        pytest.param(b"\r\n", b"".join(b"X-%d: y\r\n" % n for n in range(10_000)), 1, id="headers"),
        pytest.param(b"\r\nX: ", b"x" * 65_536, 300, id="20 MB of a header"),
        pytest.param(b"\r\nX: ", b"x", 17_000, id="a byte at a time"),
    ],
)
def test_floods_of_headers_from_a_proxy(start: bytes, more: bytes, times: int) -> None:
    with proxying(syncws.ProxyError, peak=1024 * KIB) as peer:
        peer.read_head()
        peer.send_bytes(b"HTTP/1.1 200 OK" + start)
        _pour(peer, more, times)


def test_a_flood_of_other_answers_from_a_proxy() -> None:
    with proxying(syncws.ProxyError, peak=1024 * KIB) as peer:
        peer.read_head()
        with suppress(ConnectionError):
            while True:
                peer.send_bytes(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 10)


@pytest.mark.parametrize("status", [403, 407, 503])
def test_a_proxys_refusal_with_an_endless_body(status: int) -> None:
    error = syncws.ProxyAuthenticationError if status == 407 else syncws.ProxyError
    with proxying(error, peak=1024 * KIB) as peer:
        peer.read_head()
        peer.send_bytes(b"HTTP/1.1 %d No\r\nContent-Length: 1000000000\r\n\r\n" % status)
        _pour(peer, b"x" * 65_536, 300)


# -- Slowness ----------------------------------------------------------------

_SILENT = {
    "HTTP: nothing": ("http", b""),
    "HTTP: a byte": ("http", b"H"),
    "HTTP: a part": ("http", b"HTTP/1.1 200 OK\r\nX: y\r\n"),
    "HTTP: wait": ("http", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "TLS: nothing": ("https", b""),
    "TLS: a part": ("https", b"\x16\x03\x03\x40\x00\x02"),
    "SOCKS 4": ("socks4a", b""),
    "SOCKS 4: a part": ("socks4a", b"\0\x5a\0"),
    "SOCKS 5": ("socks5h", b""),
    "SOCKS 5: a byte": ("socks5h", b"\x05"),
    "SOCKS 5: a part": ("socks5h", b"\x05\0\x05\0\0\x03\xff"),
}


@pytest.mark.parametrize("kind", _SILENT)
def test_a_proxy_that_falls_silent(kind: str) -> None:
    scheme, said = _SILENT[kind]
    with proxying(syncws.ConnectTimeout, scheme, handshake_timeout=1.0) as peer:
        taken(peer, 1)
        peer.send_bytes(said)


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        ("http", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 15_000),
        ("http", b"HTTP/1.1 100 Continue\r\n\r\n" * 600),
        ("socks5h", b"\x05\0\x05\0\0\x03\xff" + b"x" * 250),
    ],
    ids=["HTTP", "HTTP: wait", "SOCKS 5"],
)
def test_a_proxy_that_answers_a_byte_at_a_time(scheme: str, said: bytes) -> None:
    with proxying(syncws.ConnectTimeout, scheme, handshake_timeout=1.0) as peer:
        taken(peer, 1)
        assert peer.drip(said, 0.01)


# -- Nonsense ----------------------------------------------------------------

_NONSENSE = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "SOCKS": b"\x05\0",
    "a blank head": b"\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "another version": b"HTTP/2 200 OK\r\n\r\n",
    "an end": b"HTTP/1.1 200 OK\r\nX: y\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "a NUL": b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Go on\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "an upgrade to a tunnel": b"HTTP/1.1 101 Go on\r\n\r\n" + TUNNEL,
    "only other answers": b"HTTP/1.1 103 Early Hints\r\n\r\n",
}


@pytest.mark.parametrize("kind", _NONSENSE)
def test_proxies_that_speak_no_http(kind: str) -> None:
    with proxying(syncws.ProxyError, **_SECRETS) as peer:
        assert b"secret" not in peer.read_head()
        _say(peer, _NONSENSE[kind])
        assert everything(peer) == b""


_SOCKS_NONSENSE = {
    "nothing": b"",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "another version": b"\x04\0",
    "a way that was not offered": b"\x05\x02",
    "GSSAPI": b"\x05\x01",
    "an unknown way": b"\x05\x80",
    "no way": b"\x05\xff",
    "an answer of another version": b"\x05\0\x04\0\0\x01\0\0\0\0\0\0",
    "an unknown answer": b"\x05\0\x05\x99\0\x01\0\0\0\0\0\0",
    "a reserved byte": b"\x05\0\x05\0\x01\x01\0\0\0\0\0\0",
    "an unknown address": b"\x05\0\x05\0\0\x02\0\0\0\0\0\0",
    "a name of wrong letters": b"\x05\0\x05\0\0\x03\x02\xff\xfe\0\0",
    "a name that is cut": b"\x05\0\x05\0\0\x03\xffx",
}


@pytest.mark.parametrize("kind", _SOCKS_NONSENSE)
def test_proxies_that_speak_no_socks(kind: str) -> None:
    error: type[syncws.ConnectError] = syncws.ProxyError
    if kind == "no way":
        error = syncws.ProxyAuthenticationError
    with proxying(error, "socks5h", **_SECRETS) as peer:
        _say(peer, _SOCKS_NONSENSE[kind])
        assert b"secret" not in everything(peer)


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
def test_noise_from_a_socks_proxy(scheme: str) -> None:
    for _ in range(20):
        with proxying(syncws.ProxyError, scheme, **_SECRETS) as peer:
            _say(peer, b"\xfa" + os.urandom(200))
            assert b"secret" not in everything(peer)


# -- Lies --------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_a_body_where_there_is_none(framing: str, secure: bool) -> None:
    """It is what the server says, as is all that comes after the head."""
    error = syncws.TLSError if secure else syncws.HandshakeError
    url = "wss://app.example/" if secure else "ws://app.example/"
    with proxying(error, url=url, **_SECRETS) as peer:
        assert b"secret" not in peer.read_head()
        peer.send_bytes(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\nhello".encode())
        said = everything(peer)
        assert not secure or b"secret" not in said


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("again", [False, True], ids=["once", "with retries"])
def test_redirects_of_proxies_lead_nowhere(status: int, again: bool) -> None:
    error = syncws.RetriesExhausted if again else syncws.ProxyError
    options: dict[str, Any] = {**_SECRETS}
    if again:
        options["retry"] = syncws.RetryConfig(max_count=1, interval=0.0)
    with beside() as others, watched(), RawServer() as server, RawServer() as other:
        options["proxy"] = f"http://ann:password@127.0.0.1:{server.port}"
        server.url = "ws://app.example/"
        opening = server.open_client(**options)
        for _ in range(2 if again else 1):
            with server.accept() as peer:
                assert b"secret" not in peer.read_head()
                location = f"http://127.0.0.1:{other.port}/"
                peer.send_bytes(
                    f"HTTP/1.1 {status} Use another\r\nLocation: {location}\r\n\r\n".encode()
                )
                assert everything(peer) == b""
        assert type(opening.error()) is error
        others.served()
        assert nobody_waits(server)
        assert nobody_waits(other)


@pytest.mark.parametrize("status", [401, 407])
def test_a_password_is_sent_once(status: int) -> None:
    """However often a proxy asks, and whatever it offers."""
    with proxying(
        syncws.ProxyAuthenticationError,
        userinfo="ann:password@",
        retry=syncws.RetryConfig(interval=0.0),
        **_SECRETS,
    ) as peer:
        assert b"Proxy-Authorization: Basic " in peer.read_head()
        challenges = 'Basic realm="x"\r\nProxy-Authenticate: Digest realm="x", nonce="y"'
        peer.send_bytes(
            f"HTTP/1.1 {status} Again\r\nProxy-Authenticate: {challenges}\r\n"
            "Content-Length: 0\r\nConnection: keep-alive\r\n\r\n".encode()
        )
        assert everything(peer) == b""
