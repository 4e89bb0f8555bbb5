"""Requests that are ambiguous, are for another, or claim to come from one; and such answers."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

import pytest

import syncws
from tests.abuse.door import SECRET, door, with_and_without_app
from tests.abuse.hostile import beside, connecting, everything, nobody_waits
from tests.abuse.watch import watched
from tests.support import (
    HANG,
    TEXT,
    RawPeer,
    RawServer,
    client_tls,
    frame,
    server_tls,
)

# -- What two parsers could read differently ---------------------------------


def _with(*headers: str) -> bytes:
    return RawPeer.request("/", *headers)


def _instead(old: bytes, new: bytes) -> bytes:
    request = RawPeer.request("/", "X-Last: 1")
    assert request.count(old) >= 1
    return request.replace(old, new, 1)


_HEADS = {
    "a length": _with("Content-Length: 5") + b"hello",
    "a length with a request in it": _with(f"Content-Length: {len(SECRET)}") + SECRET,
    "a length that is none": _with("Content-Length: x"),
    "a negative length": _with("Content-Length: -1"),
    "a signed length": _with("Content-Length: +5"),
    "a hexadecimal length": _with("Content-Length: 0x5"),
    "two lengths": _with("Content-Length: 0", "Content-Length: 5"),
    "a list of lengths": _with("Content-Length: 0, 5"),
    "chunked": _with("Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunked in capitals": _with("TRANSFER-ENCODING: CHUNKED") + b"0\r\n\r\n",
    "another transfer encoding": _with("Transfer-Encoding: xchunked"),
    "identity": _with("Transfer-Encoding: identity"),
    "chunked and a length": _with("Content-Length: 0", "Transfer-Encoding: chunked"),
    "two hosts": _with("Host: evil.example"),
    "two equal hosts": _with("Host: localhost"),
    "no host": _instead(b"Host: localhost\r\n", b""),
    "two keys": _with("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
    "two versions": _with("Sec-WebSocket-Version: 13"),
    "line feeds alone": RawPeer.request().replace(b"\r\n", b"\n"),
    "a line feed alone": _instead(b"Upgrade\r\n", b"Upgrade\n"),
    "a line feed at the end": RawPeer.request()[:-2] + b"\n",
    "a carriage return alone": _instead(b"Upgrade\r\n", b"Upgrade\r"),
    "a carriage return in a value": _instead(b"X-Last: 1", b"X-Last: 1\r2"),
    "two carriage returns": _instead(b"X-Last: 1", b"X-Last: 1\r"),
    "a folded line": _instead(b"X-Last: 1", b"X-Last: 1\r\n 2"),
    "a line folded with a tab": _instead(b"X-Last: 1", b"X-Last: 1\r\n\t2"),
    "a folded line that is empty": _instead(b"X-Last: 1", b"X-Last: 1\r\n \t"),
    "a folded first line": _instead(b"Host: ", b" Host: "),
    "a space before the colon": _instead(b"X-Last: 1", b"X-Last : 1"),
    "a tab before the colon": _instead(b"Host: ", b"Host\t: "),
    "no colon": _instead(b"X-Last: 1", b"X-Last"),
    "no name": _instead(b"X-Last: 1", b": 1"),
    "a NUL in a value": _instead(b"X-Last: 1", b"X-Last: \x001"),
    "a NUL in a name": _instead(b"X-Last: 1", b"X-L\x00st: 1"),
    "a control character": _instead(b"X-Last: 1", b"X-Last: \x0b1"),
    "a name that is no ASCII": _instead(b"X-Last: 1", b"X-L\xe4st: 1"),
    "a blank line first": b"\r\n" + RawPeer.request(),
    "bytes first": b"x" + RawPeer.request().replace(b"GET", b" GET", 1),
    "two spaces": _instead(b"GET / ", b"GET  / "),
    "no target": _instead(b"GET / ", b"GET "),
    "a target that is no path": _instead(b"GET / ", b"GET x "),
    "an authority for a target": _instead(b"GET / ", b"GET localhost:80 "),
    "a target with a fragment": _instead(b"GET / ", b"GET /#x "),
    "HTTP/1.0": _instead(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@with_and_without_app
@pytest.mark.parametrize("head", _HEADS.values(), ids=_HEADS)
def test_ambiguous_requests(app: bool, head: bytes) -> None:
    with door(app=app) as tried:
        status, _ = tried.answer(head + SECRET, later=SECRET)
        # RFC 9112 section 6.1 has a status of its own for transfer encodings that are unknown.
        unknown = b"xchunked" in head or b"identity" in head
        assert status == (501 if unknown else 400)
        tried.stayed_shut()


@with_and_without_app
def test_a_length_of_nothing_is_no_body(app: bool) -> None:
    with door(app=app) as tried:
        assert tried.status("Content-Length: 0") == 101


_ANSWERS = {
    "bytes first": b"x\r\nHTTP/1.1 101 Switching Protocols\r\n",
    "a blank line first": b"\r\nHTTP/1.1 101 Switching Protocols\r\n",
    "frames first": frame(TEXT, b"x", masked=False) + b"HTTP/1.1 101 Switching Protocols\r\n",
    "HTTP/1.0": b"HTTP/1.0 101 Switching Protocols\r\n",
    "HTTP/2": b"HTTP/2.0 101 Switching Protocols\r\n",
    "no version": b"HTTP 101 Switching Protocols\r\n",
    "a status of two digits": b"HTTP/1.1 10 Switching Protocols\r\n",
    "a NUL in a header": b"HTTP/1.1 101 Switching Protocols\r\nX: \x00\r\n",
    "a header without a colon": b"HTTP/1.1 101 Switching Protocols\r\nX\r\n",
    "a space before the colon": b"HTTP/1.1 101 Switching Protocols\r\nX : y\r\n",
    "two answers to the key": b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@pytest.mark.parametrize("start", _ANSWERS.values(), ids=_ANSWERS)
def test_ambiguous_answers(start: bytes) -> None:
    with connecting(syncws.HandshakeError) as peer:
        with pytest.MonkeyPatch.context() as patch:
            sent: list[bytes] = []
            patch.setattr(peer, "send_bytes", sent.append)
            peer.answer()
        (whole,) = sent
        _, _, rest = whole.partition(b"\r\n")
        with suppress(ConnectionError):
            peer.send_bytes(start + rest)


@pytest.mark.parametrize("body", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_what_is_after_a_101_are_frames_whatever_it_says_of_a_body(body: str) -> None:
    # RFC 9110 section 6.4.1: an answer with a status of 1xx has none.
    with RawServer() as server:
        opening = server.open_client()
        with server.accept() as peer:
            peer.answer(body, rest=frame(TEXT, b"hello", masked=False))
            with opening.result() as client:
                assert client.receive(timeout=HANG) == "hello"
                peer.close_frame()
                peer.expect_close(1000)
                peer.abort()


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"\r\n", b"\n"), (b"X-Last: 1", b"X-Last: 1\r\n 2"), (b"X-Last: 1", b"X-Last: 1\r\n\t2")],
    ids=["line feeds alone", "a folded line", "a line folded with a tab"],
)
def test_what_a_client_takes_as_user_agents_do(old: bytes, new: bytes) -> None:
    # RFC 9112 sections 2.2 and 5.2; where the head ends is clear all the same.
    with beside() as others, watched(), RawServer() as server:
        opening = server.open_client()
        with server.accept() as peer:
            with pytest.MonkeyPatch.context() as patch:
                sent: list[bytes] = []
                patch.setattr(peer, "send_bytes", sent.append)
                peer.answer("X-Last: 1")
            peer.send_bytes(sent[0].replace(old, new) + frame(TEXT, b"hello", masked=False))
            with opening.result() as client:
                assert client.receive(timeout=HANG) == "hello"
                others.served()
                peer.close_frame()
                peer.expect_close(1000)
                peer.abort()


# -- After a failed upgrade --------------------------------------------------

_REFUSED = {
    "version 8": (_instead(b"Version: 13", b"Version: 8"), 426),
    "version 0": (_instead(b"Version: 13", b"Version: 0"), 426),
    "version 013": (_instead(b"Version: 13", b"Version: 013"), 426),
    "versions 13 and 8": (_instead(b"Version: 13", b"Version: 13, 8"), 426),
    "no version": (_instead(b"Sec-WebSocket-Version: 13\r\n", b""), 426),
    "no key": (_instead(b"Sec-WebSocket-Key: ", b"X: "), 400),
    "an empty key": (_instead(b"dGhlIHNhbXBsZSBub25jZQ==", b""), 400),
    "a short key": (_instead(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25j"), 400),
    "a long key": (_instead(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQAA"), 400),
    "a key that is no base64": (_instead(b"dGhlI", b"!GhlI"), 400),
    "a key with a space": (_instead(b"dGhlI", b"dGh I"), 400),
    "a POST": (_instead(b"GET ", b"POST "), 405),
    "a CONNECT": (_instead(b"GET ", b"CONNECT "), 405),
    "another path": (_instead(b"GET / ", b"GET /nowhere "), 404),
    "another page": (_with("Origin: http://evil.example"), 403),
}


@with_and_without_app
@pytest.mark.parametrize("later", [False, True], ids=["at once", "after the answer"])
@pytest.mark.parametrize("more", [SECRET, frame(TEXT, b"x"), RawPeer.request()])
@pytest.mark.parametrize(("head", "status"), _REFUSED.values(), ids=_REFUSED)
def test_nothing_gets_through_after_a_failed_upgrade(
    app: bool, head: bytes, status: int, more: bytes, later: bool
) -> None:
    with door(app=app) as tried:
        got, whole = tried.answer(head + (b"" if later else more), later=more)
        assert got == status
        assert b"close" in whole.partition(b"\r\n\r\n")[0].lower()
        tried.stayed_shut()


@pytest.mark.parametrize("status", [200, 204, 400, 401, 403, 404, 426, 500, 503])
@pytest.mark.parametrize("framing", ["Content-Length: 0", "Connection: keep-alive"])
def test_a_client_that_is_refused_goes(status: int, framing: str) -> None:
    with connecting(syncws.HandshakeRejected) as peer:
        peer.read_head()
        peer.send_bytes(f"HTTP/1.1 {status} No\r\n{framing}\r\n\r\n".encode())
        with suppress(OSError):  # it may be gone
            peer.text("more")
            peer.end_writing()


# -- Redirects ---------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["elsewhere", "another scheme", "the same", "a path", "http"])
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("again", [False, True], ids=["once", "with retries"])
def test_redirects_lead_nowhere(status: int, where: str, secure: bool, again: bool) -> None:
    options: dict[str, Any] = {
        "headers": {"Authorization": "Bearer secret", "X-Token": "secret"},
        "cookies": {"session": "secret"},
    }
    if secure:
        options["ssl"] = client_tls()
    if again:
        options["retry"] = syncws.RetryConfig(max_count=1, interval=0.0)
    with beside() as others, watched(), RawServer() as server, RawServer() as other:
        scheme = "wss" if secure else "ws"
        server.url = f"{scheme}://user:password@127.0.0.1:{server.port}/"
        location = {
            "elsewhere": f"{scheme}://127.0.0.1:{other.port}/",
            "another scheme": f"{'ws' if secure else 'wss'}://127.0.0.1:{other.port}/",
            "the same": f"{scheme}://127.0.0.1:{server.port}/",
            "a path": "/elsewhere",
            "http": f"http://127.0.0.1:{other.port}/",
        }[where]
        opening = server.open_client(**options)
        for _ in range(2 if again else 1):
            with server.accept() as peer:
                if secure:
                    peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
                assert peer.read_head().startswith(b"GET / HTTP/1.1\r\n")
                peer.send_bytes(
                    f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n"
                    "Content-Length: 0\r\n\r\n".encode()
                )
                with suppress(ssl.SSLError):
                    everything(peer)
        error = opening.error()
        if again:
            assert isinstance(error, syncws.RetriesExhausted)
            error = error.reasons[0][1]
        assert isinstance(error, syncws.HandshakeRejected)
        assert error.status == status
        others.served()
        assert nobody_waits(server)
        assert nobody_waits(other)


# -- Who says what he likes about where it comes from ------------------------

_CLAIMS = [
    "X-Forwarded-For: 203.0.113.7",
    "X-Forwarded-For: 127.0.0.1, 203.0.113.7",
    "X-Real-IP: 203.0.113.7",
    "Forwarded: for=203.0.113.7;proto=https;host=evil.example",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 443",
    "X-Forwarded-Ssl: on",
    "True-Client-IP: 203.0.113.7",
    "CF-Connecting-IP: 203.0.113.7",
]


@pytest.mark.parametrize("claim", _CLAIMS)
def test_claims_of_proxies_are_ignored(claim: str) -> None:
    with door() as tried, RawPeer.dial(tried.listener) as peer:
        peer.send_bytes(RawPeer.request("/", claim))
        peer.read_head()
        caller = tried.service.expect("on_open")
        assert caller.remote_address == peer.sock.getsockname()
        assert caller.request.remote_address == peer.sock.getsockname()
        assert not caller.is_secure
        assert not caller.request.is_secure
        assert caller.request.headers["Host"] == "localhost"
        peer.finish()
        tried.service.expect("on_close")


@pytest.mark.parametrize("claim", _CLAIMS)
def test_claims_of_proxies_do_not_reach_the_application_as_truth(claim: str) -> None:
    with door(app=True) as tried, RawPeer.dial(tried.listener) as peer:
        peer.send_bytes(f"GET / HTTP/1.0\r\nHost: localhost\r\n{claim}\r\n\r\n".encode())
        assert peer.read_head().startswith(b"HTTP/1.1 200 ")
        everything(peer)
        assert tried.app is not None
        (environ,) = tried.app.environs
        assert environ["REMOTE_ADDR"] == "127.0.0.1"
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["HTTP_HOST"] == "localhost"
        assert environ["SERVER_PORT"] == str(tried.listener.port)


@pytest.mark.parametrize("claim", [c for c in _CLAIMS if "evil" in c])
def test_claims_of_proxies_do_not_let_a_page_in(claim: str) -> None:
    with door() as tried:
        assert tried.status(claim, "Origin: https://evil.example") == 403
        assert tried.status(claim, "Origin: http://evil.example") == 403


@pytest.mark.parametrize(
    "preface",
    [
        b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\x7f\x00\x00\x01\xdc\x04\x01\xbb",
    ],
    ids=["version 1", "version 1, unknown", "version 2"],
)
@with_and_without_app
def test_the_proxy_protocol_is_not_spoken(app: bool, preface: bytes) -> None:
    with door(app=app) as tried:
        assert tried.answer(preface + RawPeer.request())[0] == 400
        tried.stayed_shut()


# -- Pages of other origins --------------------------------------------------

_FOREIGN = [
    "http://evil.example",
    "https://evil.example",
    "null",
    "NULL",
    "",
    "file://",
    "about:blank",
    "chrome-extension://abcdefghijklmnop",
    "http://localhost:{port}",
    "http://127.0.0.1",
    "http://127.0.0.1:1",
    "http://127.0.0.1:{port}0",
    "http://127.0.0.1:{port}.evil.example",
    "http://127.0.0.1.evil.example:{port}",
    "http://evil.example:{port}",
    "http://evil127.0.0.1:{port}",
    "http://127.0.0.1:{port}@evil.example",
    "http://evil.example@127.0.0.1:{port}",
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/../evil",
    "http://127.0.0.1:{port}?x",
    "http://127.0.0.1:{port}#x",
    "http://127.0.0.1:{port}, http://evil.example",
    "http://127.0.0.1:{port} http://evil.example",
    "http://evil.example http://127.0.0.1:{port}",
    "http://127.0.0.1:{port}\\.evil.example",
    "http:127.0.0.1:{port}",
    "http:/127.0.0.1:{port}",
    "//127.0.0.1:{port}",
    "127.0.0.1:{port}",
    "ws://127.0.0.1:{port}",
    "ftp://127.0.0.1:{port}",
    "http://127.0.0.1.:{port}",
    "http://127.1:{port}",
    "http://2130706433:{port}",
    "http://[::ffff:127.0.0.1]:{port}",
    "http://127.0.0.1:{port}\xff",
]


@pytest.mark.parametrize("origin", _FOREIGN)
def test_pages_of_other_origins(origin: str) -> None:
    with door() as tried, RawPeer.dial(tried.listener) as peer:
        port = tried.listener.port
        request = RawPeer.request("/", "Origin: @", host=f"127.0.0.1:{port}")
        peer.send_bytes(request.replace(b"@", origin.format(port=port).encode("latin-1")))
        assert peer.read_head().startswith(b"HTTP/1.1 403 ")
        everything(peer)
        tried.stayed_shut()


def test_two_origins() -> None:
    with door() as tried:
        own = f"Origin: http://127.0.0.1:{tried.listener.port}"
        assert tried.status(own) == 101
        assert tried.status(own, own) == 403
        assert tried.status(own, "Origin: http://evil.example") == 403
        assert tried.status("Origin: http://evil.example", own) == 403


@pytest.mark.parametrize("scheme", ["http", "HTTP", "https"])
def test_the_listeners_own_pages(scheme: str) -> None:
    # Over https if a proxy does TLS, which the listener need not know.
    with door() as tried:
        assert tried.status(f"Origin: {scheme}://127.0.0.1:{tried.listener.port}") == 101


def test_who_is_no_page() -> None:
    with door() as tried:
        assert tried.status() == 101


_APP = "https://app.example"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (_APP, 101),
        ("HTTPS://APP.EXAMPLE", 101),
        (_APP + ":443", 101),
        ("http://app.example", 403),
        ("http://app.example:443", 403),
        (_APP + ":444", 403),
        (_APP + ":80", 403),
        (_APP + ".", 403),
        (_APP + ".evil.example", 403),
        (_APP + "evil", 403),
        (_APP + ":443.evil.example", 403),
        (_APP + "@evil.example", 403),
        (_APP + "/", 403),
        ("https://evil.app.example", 403),
        ("https://evil-app.example", 403),
        ("https://appxexample", 403),
        (f"https://evil.example, {_APP}", 403),
        ("null", 403),
        ("*", 403),
    ],
)
def test_an_allow_list_of_origins(origin: str, status: int) -> None:
    config = syncws.ServiceConfig(allowed_origins=(_APP,), ping_interval=None)
    with door(config=config) as tried:
        assert tried.status(f"Origin: {origin}") == status
        assert tried.status() == 101
        assert tried.status(f"Origin: http://127.0.0.1:{tried.listener.port}") == 101
