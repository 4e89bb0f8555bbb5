from __future__ import annotations

import base64
import dataclasses
from typing import Any

import pytest

from syncws.protocol.headers import Headers
from syncws.protocol.http import RESERVED, Request
from syncws.protocol.server_handshake import (
    Refusal,
    accept_response,
    check_origin,
    check_upgrade,
    choose_subprotocol,
    lost_upgrade,
    refusal_response,
)
from tests.handshakes import ACCEPT, KEY, request

# -- check_upgrade ---------------------------------------------------


@pytest.mark.parametrize(
    "good",
    [
        request(),
        request(("Upgrade", "WebSocket")),
        request(("Upgrade", "h2c, websocket")),
        request(("Connection", "keep-alive, UPGRADE")),
        request(("Connection", "keep-alive"), ("connection", "upgrade")),
        request(("Content-Length", "0")),
    ],
)
def test_good_requests(good: Request) -> None:
    assert check_upgrade(good) is None


@pytest.mark.parametrize(
    ("bad", "status", "text"),
    [
        (Request("GET", "/", "/", "", Headers([("Host", "x")])), 426, "with ws://"),
        (request(without="Upgrade"), 426, "did not hand on"),
        (request(without="Connection"), 426, "did not hand on"),
        (request(("Upgrade", "websockets")), 426, "did not hand on"),
        (request(("Connection", "upgrades")), 426, "did not hand on"),
        (request(without="Upgrade", method="POST"), 426, "did not hand on"),
        (request(("Content-Length", "5")), 400, "no body"),
        (request(("Content-Length", "0"), ("Content-Length", "00x")), 400, "no body"),
        (request(("Transfer-Encoding", "chunked")), 400, "no body"),
        (request(method="POST"), 405, "not a POST"),
        (request(version="1.0"), 400, "not HTTP/1.0"),
        (request(version="2.0"), 400, "not HTTP/2.0"),
        (request(("Host", "a"), ("Host", "a")), 400, "Host is given more than once"),
        (request(("Sec-WebSocket-Key", KEY), ("sec-websocket-key", KEY)), 400, "more than once"),
        (
            request(("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Version", "13")),
            400,
            "more than once",
        ),
        (request(without="Host"), 400, "Host is missing"),
        (request(without="Sec-WebSocket-Version"), 426, "Version is missing"),
        (request(("Sec-WebSocket-Version", "8")), 426, "Version is '8'"),
        (request(("Sec-WebSocket-Version", "13, 8")), 426, "Version is '13, 8'"),
        (request(without="Sec-WebSocket-Key"), 400, "16 bytes"),
        (request(("Sec-WebSocket-Key", "")), 400, "16 bytes"),
        (request(("Sec-WebSocket-Key", KEY[:-4])), 400, "16 bytes"),
        (request(("Sec-WebSocket-Key", KEY + "=")), 400, "16 bytes"),
        (request(("Sec-WebSocket-Key", "\xe9" * 22 + "==")), 400, "16 bytes"),
        (request(("Sec-WebSocket-Key", base64.b64encode(bytes(17)).decode())), 400, "16 bytes"),
    ],
)
def test_bad_requests(bad: Request, status: int, text: str) -> None:
    refusal = check_upgrade(bad)
    assert refusal is not None
    assert refusal.status == status
    assert text in refusal.text


def test_refusals_say_what_would_do() -> None:
    refusal = check_upgrade(request(("Sec-WebSocket-Version", "8")))
    assert refusal is not None
    assert refusal.headers == (("Sec-WebSocket-Version", "13"),)
    refusal = check_upgrade(request(method="PUT"))
    assert refusal is not None
    assert refusal.headers == (("Allow", "GET"),)


# -- check_origin ----------------------------------------------------


def from_page(origin: str, host: str) -> Request:
    return request(("Origin", origin), ("Host", host))


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("http://example.com", "example.com", False),
        ("http://example.com:80", "example.com", False),
        ("http://example.com", "example.com:80", False),
        ("HTTP://Example.com", "eXample.COM", False),
        ("http://example.com:8080", "example.com:8080", False),
        ("http://127.0.0.1:9090", "127.0.0.1:9090", False),
        ("http://[::1]:9090", "[::1]:9090", False),
        ("http://[::1]", "[::1]", False),
        ("https://example.com", "example.com", True),
        ("https://example.com:443", "example.com", True),
        ("https://example.com:8443", "example.com:8443", True),
        # A proxy ended TLS.
        ("https://example.com", "example.com", False),
        ("https://example.com", "example.com:443", False),
    ],
)
def test_our_own_pages_may_connect(origin: str, host: str, secure: bool) -> None:
    assert check_origin(from_page(origin, host), (), secure) is None


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("http://evil.example", "example.com", False),
        ("http://example.com.evil.example", "example.com", False),
        ("http://evilexample.com", "example.com", False),
        ("http://sub.example.com", "example.com", False),
        ("http://example.com.", "example.com", False),
        ("http://example.com", "sub.example.com", False),
        ("http://example.com:8080", "example.com", False),
        ("http://example.com", "example.com:8080", False),
        ("http://example.com", "example.com", True),
        ("http://example.com:443", "example.com", True),
        ("https://example.com:80", "example.com", False),
        ("ftp://example.com", "example.com", False),
        ("ws://example.com", "example.com", False),
        ("http://example.com/", "example.com", False),
        ("http://example.com/path", "example.com", False),
        ("http://user@example.com", "example.com", False),
        ("http://evil.example\\@example.com", "example.com", False),
        ("http://example.com#", "example.com", False),
        ("http://example.com:", "example.com", False),
        ("http://example.com:80:80", "example.com", False),
        ("http://example.com, http://evil.example", "example.com", False),
        ("http://example.com,", "example.com", False),
        ("http://[::1]", "[::2]", False),
        ("http://::1", "[::1]", False),
        ("//example.com", "example.com", False),
        ("example.com", "example.com", False),
        ("null", "null", False),
        ("", "example.com", False),
        ("\xe9", "example.com", False),
        ("http://example.com", "user@example.com", False),
        ("http://example.com", "", False),
    ],
)
def test_strange_pages_may_not_connect(origin: str, host: str, secure: bool) -> None:
    refusal = check_origin(from_page(origin, host), (), secure)
    assert refusal is not None
    assert refusal.status == 403
    assert "allowed_origins" in refusal.text
    assert refusal.text.isascii()
    assert check_origin(from_page(origin, host), ("*",), secure) is None


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example", ["http://x", "https://app.example"]),
        ("https://APP.example", ["https://app.EXAMPLE:443"]),
        ("https://app.example:443", ["https://app.example"]),
        ("http://app.example:8000", ["http://app.example:8000"]),
        ("chrome-extension://abcdef", ["chrome-extension://abcdef"]),
    ],
)
def test_pages_that_are_allowed(origin: str, allowed: list[str]) -> None:
    assert check_origin(from_page(origin, "example.com"), allowed, True) is None


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://app.example", ["https://app.example"]),
        ("https://app.example:8443", ["https://app.example"]),
        ("https://sub.app.example", ["https://app.example"]),
        ("null", ["null"]),
        ("null", ["https://app.example"]),
    ],
)
def test_pages_beside_the_allow_list(origin: str, allowed: list[str]) -> None:
    assert check_origin(from_page(origin, "example.com"), allowed, True) is not None


def test_no_origin_and_several() -> None:
    assert check_origin(request(), (), False) is None
    twice = request(("Origin", "http://example.com"), ("origin", "http://example.com"))
    for allowed in ((), ("*",)):
        refusal = check_origin(twice, allowed, False)
        assert refusal is not None
        assert refusal.status == 403
    hosts = request(("Origin", "http://a"), ("Host", "a"), ("Host", "a"))
    assert check_origin(hosts, (), False) is not None


# -- Subprotocols and responses --------------------------------------


@pytest.mark.parametrize(
    ("offered", "supported", "chosen"),
    [
        ([], ["json"], None),
        (["json"], [], None),
        (["json, xml"], ["xml", "json"], "xml"),
        (["json", "xml"], ["xml"], "xml"),
        (["\tjson ,"], ["json"], "json"),
        (["JSON"], ["json"], None),
        (["", ",,\xe9,\x00"], ["json"], None),
    ],
)
def test_choose_subprotocol(offered: list[str], supported: list[str], chosen: str | None) -> None:
    fields = [("Sec-WebSocket-Protocol", value) for value in offered]
    assert choose_subprotocol(request(*fields), supported) == chosen


def test_accept_response() -> None:
    assert accept_response(request(), subprotocol=None, extensions=None) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n"
    )
    full = accept_response(
        request(),
        subprotocol="json",
        extensions="permessage-deflate",
        headers=[("X-Room", "caf\xe9"), ("Set-Cookie", "a"), ("Set-Cookie", "b")],
    )
    assert full.endswith(
        b"\r\nSec-WebSocket-Protocol: json\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        b"X-Room: caf\xe9\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"
    )


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Sec-WebSocket-Accept"])
def test_accept_response_reserves_names(name: str) -> None:
    with pytest.raises(ValueError, match="set by the handshake"):
        accept_response(request(), subprotocol=None, extensions=None, headers=[(name, "x")])


@pytest.mark.parametrize(
    "arguments",
    [
        {"subprotocol": "a\r\nB: c", "extensions": None},
        {"subprotocol": None, "extensions": "a\nb"},
        {"subprotocol": None, "extensions": None, "headers": [("A", "b\r\nC: d")]},
    ],
)
def test_accept_response_cannot_be_injected(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="line break"):
        accept_response(request(), **arguments)


def test_refusal_response() -> None:
    refusal = Refusal(403, "No \u20ac.", (("X-Why", "because"),))
    body = "No \u20ac.\n".encode()
    expected = (
        b"HTTP/1.1 403 Forbidden\r\nX-Why: because\r\nConnection: close\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 8\r\n\r\n"
    )
    assert refusal_response(refusal) == expected + body
    assert refusal_response(refusal, head_only=True) == expected


@pytest.mark.parametrize(
    ("refusal", "start", "end"),
    [
        (Refusal(426, "x"), b"HTTP/1.1 426 Upgrade Required\r\n", b"\r\n\r\nx\n"),
        (Refusal(400, "x\n"), b"HTTP/1.1 400 Bad Request\r\n", b"Content-Length: 2\r\n\r\nx\n"),
        (Refusal(599, ""), b"HTTP/1.1 599 \r\n", b"\r\n\r\n\n"),
        (
            Refusal(401, "{}", (("content-type", "application/json"),)),
            b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\nConnection: close\r\n"
            b"Content-Length",
            b"{}\n",
        ),
        (Refusal(204, "x"), b"HTTP/1.1 204 No Content\r\n", b"Connection: close\r\n\r\n"),
        (
            Refusal(400, b"\xff\0"),
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n",
            b"Content-Length: 2\r\n\r\n\xff\0",
        ),
        (Refusal(404, b""), b"HTTP/1.1 404 Not Found\r\n", b"Content-Length: 0\r\n\r\n"),
        (Refusal(304, b"x"), b"HTTP/1.1 304 Not Modified\r\n", b"Connection: close\r\n\r\n"),
    ],
)
def test_refusal_responses(refusal: Refusal, start: bytes, end: bytes) -> None:
    response = refusal_response(refusal)
    assert response.startswith(start)
    assert response.endswith(end)
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade, close\r\n"
    assert (upgrade in response) is (refusal.status == 426)


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(101, "x"),
        Refusal(600, "x"),
        Refusal(400, "x", (("A", "b\r\nC: d"),)),
        Refusal(400, "x", (("Content-Length", "7"),)),
    ],
)
def test_refusals_that_cannot_be_sent(refusal: Refusal) -> None:
    with pytest.raises(ValueError):
        refusal_response(refusal)


# -- What proxies on the way make of it ------------------------------


@pytest.mark.parametrize(
    "lost",
    [
        request(without="Upgrade", version="1.0"),  # nginx with its defaults
        request(("Connection", "close"), without="Upgrade", version="1.0"),
        request(("Connection", "close")),
        request(("Connection", "keep-alive")),
    ],
)
def test_what_a_proxy_did_not_hand_on(lost: Request) -> None:
    refusal = check_upgrade(lost)
    assert refusal is not None
    assert refusal.status == 426
    for setting in ("proxy_http_version 1.1;", "proxy_set_header Upgrade $http_upgrade;"):
        assert setting in str(refusal.text)
    assert lost_upgrade(lost)


def test_what_was_no_handshake_before_either() -> None:
    assert not lost_upgrade(request())
    assert not lost_upgrade(request(without="Sec-WebSocket-Key"))
    assert not lost_upgrade(Request("GET", "/", "/", "", Headers([("Host", "x")])))


@pytest.mark.parametrize(
    ("host", "told", "secure", "origin", "allowed"),
    [
        ("inner:8000", "app.example", True, "https://app.example", True),
        ("inner:8000", "app.example:8443", True, "https://app.example:8443", True),
        ("inner:8000", "app.example", True, "https://inner:8000", False),
        ("inner:8000", "app.example", True, "http://app.example", False),
        ("inner:8000", "app.example", False, "http://app.example", True),
        ("app.example", "", True, "https://app.example", True),
        ("app.example", "", True, "http://app.example", False),
        ("app.example", "evil.example", True, "https://app.example", False),
    ],
)
def test_the_origin_is_compared_with_what_the_proxy_was_asked_for(
    host: str, told: str, secure: bool, origin: str, allowed: bool
) -> None:
    asked = dataclasses.replace(request(("Host", host), ("Origin", origin)), forwarded_host=told)
    assert (check_origin(asked, (), secure) is None) is allowed
