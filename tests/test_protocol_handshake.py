from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import h11
import pytest
from wsproto.utilities import generate_accept_token

from syncws.config import Compression
from syncws.errors import HandshakeError, HandshakeRejected
from syncws.protocol.deflate import DeflateParams
from syncws.protocol.handshake import (
    RESERVED,
    ClientHandshake,
    HeadError,
    HeadReader,
    Refusal,
    Request,
    Response,
    accept_response,
    check_origin,
    check_upgrade,
    choose_subprotocol,
    parse_request,
    refusal_response,
)
from syncws.protocol.headers import Headers
from syncws.protocol.uri import parse_uri

# The example of RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

FIELDS = (
    ("Host", "example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)


def request(
    *extra: tuple[str, str], without: str = "", method: str = "GET", version: str = "1.1"
) -> Request:
    """A good request; `extra` replaces or adds headers, `without` leaves one out."""
    replaced = {name.lower() for name, _ in extra} | {without.lower()}
    fields = [field for field in FIELDS if field[0].lower() not in replaced]
    return Request(method, "/chat", "/chat", "", Headers([*fields, *extra]), version)


def head(line: str = "GET /chat HTTP/1.1", fields: Sequence[tuple[str, str]] = FIELDS) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def pieces(data: bytes, cut: int) -> list[bytes]:
    step = cut or max(1, -(-len(data) // 2)) if cut >= 0 else len(data)
    return [data[start : start + step] for start in range(0, len(data), step)]


# Whole, in halves, byte by byte, and two sizes that part line ends.
CUTS = [-1, 0, 1, 2, 3]


# -- HeadReader ------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("whole", [head(), b"GET / HTTP/1.1\r\n\r\n", b"\x47\r\nA:\xff\t \r\n\r\n"])
def test_a_head_is_collected(whole: bytes, cut: int) -> None:
    reader = HeadReader(1000)
    *most, last = pieces(whole, cut)
    assert [reader.feed(piece) for piece in most] == [None] * len(most)
    # What follows is not looked at, whatever it is.
    assert reader.feed(last + b"\x82\x00\n\r \0") == whole
    assert reader.rest == b"\x82\x00\n\r \0"


def test_nothing_behind_the_head() -> None:
    reader = HeadReader(1000)
    assert reader.feed(b"") is None
    assert reader.feed(head()) == head()
    assert reader.rest == b""


def refused(data: bytes, cut: int, **limits: int) -> HeadError:
    reader = HeadReader(limits.pop("max_size", 1000), **limits)
    with pytest.raises(HeadError) as caught:
        for piece in pieces(data, cut):
            reader.feed(piece)
    return caught.value


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\x1b[m\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_ambiguous_lines_are_refused(data: bytes, cut: int) -> None:
    assert refused(data, cut).status == 400


@pytest.mark.parametrize("cut", CUTS)
def test_the_size_limit(cut: int) -> None:
    whole = head()
    reader = HeadReader(len(whole))
    assert [reader.feed(piece) for piece in pieces(whole, cut)][-1] == whole
    error = refused(whole, cut, max_size=len(whole) - 1)
    assert error.status == 431
    assert str(error) == error.text


def test_the_size_limit_ends_the_wait() -> None:
    reader = HeadReader(100)
    with pytest.raises(HeadError) as caught:
        for _ in range(101):
            assert reader.feed(b"x") is None
    assert caught.value.status == 431


@pytest.mark.parametrize("cut", CUTS)
def test_the_count_of_headers(cut: int) -> None:
    many = [(f"X-{number}", "y") for number in range(8)]
    reader = HeadReader(1000, max_headers=8)
    assert [reader.feed(piece) for piece in pieces(head(fields=many), cut)][-1]
    assert refused(head(fields=many), cut, max_headers=7).status == 431
    # As early as it is known.
    assert refused(head(fields=many)[:-2], cut, max_headers=7).status == 431


class CountingBuffer(bytearray):
    """Counts the bytes that searches are asked to look at."""

    looked_at = 0

    def find(self, *args: Any) -> int:
        self.looked_at += min(len(self), args[2]) - args[1]
        return super().find(*args)

    def count(self, *args: Any) -> int:
        self.looked_at += args[2] - args[1]
        return super().count(*args)


def test_a_slow_head_is_looked_at_once() -> None:
    reader = HeadReader(20_000)
    buffer = reader._buffer = CountingBuffer()
    for piece in pieces(b"x" * 19_000, 1):
        assert reader.feed(piece) is None
    assert buffer.looked_at < 8 * 19_000


# -- Request ---------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path", "query_string"),
    [
        ("/", "/", ""),
        ("/chat%20room?a=1&b=", "/chat%20room", "a=1&b="),
        ("/?", "/", ""),
        ("/a?b?c", "/a", "b?c"),
        ("//host/x", "//host/x", ""),
        ("http://host/path?x", "/path", "x"),
        ("HTTPS://host:1/path", "/path", ""),
        ("ws://host", "/", ""),
        ("wss://host?x=1", "/", "x=1"),
    ],
)
def test_targets(target: str, path: str, query_string: str) -> None:
    parsed = parse_request(head(f"GET {target} HTTP/1.1"))
    assert (parsed.target, parsed.path, parsed.query_string) == (target, path, query_string)


def test_a_request_is_parsed() -> None:
    fields = [*FIELDS, ("X-Name", "caf\xe9"), ("x-name", "2")]
    parsed = parse_request(head("POST /a?x=1&x=%20&y= HTTP/1.0", fields))
    assert (parsed.method, parsed.http_version) == ("POST", "1.0")
    assert parsed.headers.raw == tuple(fields)
    assert parsed.query == {"x": ["1", " "], "y": [""]}
    assert hash(parsed) == hash(dataclasses.replace(parsed))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head("GET * HTTP/1.1"), 400),
        (head("CONNECT host:80 HTTP/1.1"), 400),
        (head("GET ftp://host/ HTTP/1.1"), 400),
        (head("GET http:///x HTTP/1.1"), 400),
        (head("GET chat HTTP/1.1"), 400),
        (head("GET /a#b HTTP/1.1"), 400),
        (head("GET /\xe9 HTTP/1.1"), 400),
        (head("GET / HTTP/two"), 400),
        (head("GET /"), 400),
        (head("\x16\x03\x01"), 400),
        (b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", 400),
        (head(fields=()), 400),
        (head(fields=[*FIELDS, ("Host", "other")]), 400),
        (head(fields=[*FIELDS, ("A B", "x")]), 400),
        (head(fields=[*FIELDS, ("Host ", "x")]), 400),
        (head(fields=[*FIELDS, ("Content-Length", "x")]), 400),
        (head(fields=[*FIELDS, ("Content-Length", "1"), ("Content-Length", "2")]), 400),
        (head(fields=[*FIELDS, ("Transfer-Encoding", "gzip")]), 501),
    ],
)
def test_a_request_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(HeadError) as caught:
        parse_request(data)
    assert caught.value.status == status
    assert len(caught.value.text) < 300


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
        (request(without="Upgrade"), 426, "ws://"),
        (request(without="Connection"), 426, "ws://"),
        (request(("Upgrade", "websockets")), 426, "ws://"),
        (request(("Connection", "upgrades")), 426, "ws://"),
        (request(without="Upgrade", method="POST"), 426, "ws://"),
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
        (request(("Sec-WebSocket-Version", "8")), 426, "Version is 8"),
        (request(("Sec-WebSocket-Version", "13, 8")), 426, "Version is 13, 8"),
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


# -- ClientHandshake -------------------------------------------------


def client(
    url: str = "ws://example.com/chat",
    *,
    subprotocols: Sequence[str] = (),
    compression: Compression | None = None,
    headers: Sequence[tuple[str, str]] = (),
    max_size: int = 16384,
) -> ClientHandshake:
    return ClientHandshake(
        parse_uri(url),
        subprotocols=subprotocols,
        compression=compression,
        headers=headers,
        max_size=max_size,
    )


def test_the_request() -> None:
    handshake = client("ws://example.com:9090/a%20b?c=d")
    sent = handshake.request_bytes()
    assert re.fullmatch(
        rb"GET /a%20b\?c=d HTTP/1\.1\r\nHost: example\.com:9090\r\nUpgrade: websocket\r\n"
        rb"Connection: Upgrade\r\nSec-WebSocket-Key: [A-Za-z0-9+/]{22}==\r\n"
        rb"Sec-WebSocket-Version: 13\r\nUser-Agent: syncws\r\n\r\n",
        sent,
    )
    assert handshake.request_bytes() == sent
    assert client("ws://example.com:9090/a%20b?c=d").request_bytes() != sent


def test_the_request_with_everything() -> None:
    handshake = client(
        "ws://ann:p%C3%A9@h/",
        subprotocols=["xml", "json"],
        compression=Compression(),
        headers=[("user-agent", "mine"), ("X", " caf\xe9 ")],
    )
    parsed = parse_request(handshake.request_bytes())
    assert check_upgrade(parsed) is None
    assert parsed.headers["Sec-WebSocket-Protocol"] == "xml, json"
    assert parsed.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate; ")
    user = base64.b64encode("ann:p\xe9".encode()).decode()
    assert parsed.headers["Authorization"] == f"Basic {user}"
    assert parsed.headers["User-Agent"] == "mine"
    assert parsed.headers["X"] == "caf\xe9"


@pytest.mark.parametrize(
    ("url", "headers", "expected"),
    [
        ("ws://ann@h/", [], "Basic " + base64.b64encode(b"ann:").decode()),
        ("ws://ann:x@h/", [("AUTHORIZATION", "Bearer t")], "Bearer t"),
    ],
)
def test_authorization(url: str, headers: list[tuple[str, str]], expected: str) -> None:
    parsed = parse_request(client(url, headers=headers).request_bytes())
    assert parsed.headers.get_all("Authorization") == [expected]


@pytest.mark.parametrize(
    "arguments",
    [
        *({"headers": [(name.title(), "x")]} for name in sorted(RESERVED)),
        {"headers": [("X", "a\r\nb")]},
        {"subprotocols": ["a\r\nb"]},
    ],
)
def test_the_request_cannot_be_spoiled(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        client(**arguments)


Answer = Callable[[str], bytes]


def answer(*changes: tuple[str, str | None], line: str = "HTTP/1.1 101 Switching") -> Answer:
    """A good response but for the changes; None leaves a header out."""

    def build(accept: str) -> bytes:
        fields: list[tuple[str, str | None]] = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept),
        ]
        changed = {name for name, _ in changes}
        fields = [field for field in fields if field[0] not in changed] + list(changes)
        kept = [(name, value) for name, value in fields if value is not None]
        return head(line, kept)

    return build


def run(handshake: ClientHandshake, build: Answer, cut: int, behind: bytes = b"") -> Response:
    key = parse_request(handshake.request_bytes()).headers["Sec-WebSocket-Key"]
    data = build(generate_accept_token(key.encode()).decode())
    for piece in pieces(data, cut)[:-1]:
        assert handshake.receive(piece) is None
    response = handshake.receive(pieces(data, cut)[-1] + behind)
    assert response is not None
    return response


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("build", "subprotocol", "deflate"),
    [
        (answer(), None, None),
        (answer(("Upgrade", "WebSocket"), ("Connection", "upgrade, x")), None, None),
        (answer(line="HTTP/1.1 101"), None, None),
        (answer(("Sec-WebSocket-Protocol", "json")), "json", None),
        (
            answer(("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=9")),
            None,
            DeflateParams(False, False, 9, 12),
        ),
    ],
)
def test_a_server_accepts(
    build: Answer, subprotocol: str | None, deflate: DeflateParams | None, cut: int
) -> None:
    handshake = client(subprotocols=["xml", "json"], compression=Compression())
    response = run(handshake, build, cut, b"\x82\x00")
    assert (response.status, response.rest, response.body) == (101, b"\x82\x00", b"")
    assert (response.subprotocol, response.deflate) == (subprotocol, deflate)
    assert "sec-websocket-accept" in response.headers


@pytest.mark.parametrize("cut", CUTS)
def test_other_informational_responses_are_skipped(cut: int) -> None:
    before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    response = run(client(), lambda accept: before + answer()(accept), cut)
    assert (response.status, response.rest) == (101, b"")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("build", "text"),
    [
        (answer(line="HTTP/1.0 101 Switching"), "HTTP/1.0"),
        (answer(("Upgrade", None)), "Upgrade: websocket"),
        (answer(("Upgrade", "h2c")), "Upgrade: websocket"),
        (answer(("Connection", "close")), "Connection: Upgrade"),
        (answer(("Sec-WebSocket-Accept", None)), "Sec-WebSocket-Accept"),
        (answer(("Sec-WebSocket-Accept", ACCEPT)), "Sec-WebSocket-Accept"),
        (answer(("Sec-WebSocket-Accept", "\xe9")), "Sec-WebSocket-Accept"),
        (lambda accept: answer(("sec-websocket-accept", accept))(accept), "Sec-WebSocket-Accept"),
        (answer(("Sec-WebSocket-Protocol", "soap")), "the subprotocol 'soap'"),
        (answer(("Sec-WebSocket-Protocol", "xml, json")), "the subprotocol 'xml, json'"),
        (answer(("Sec-WebSocket-Protocol", "")), "the subprotocol ''"),
        (
            answer(("Sec-WebSocket-Protocol", "xml"), ("Sec-WebSocket-Protocol", "xml")),
            "the subprotocol 'xml, xml'",
        ),
        (answer(("Sec-WebSocket-Extensions", "x-other")), "was not offered"),
        (lambda _: b"SSH-2.0-server\r\n", "b'S"),
        (lambda _: b"HTTP/1.1 oops\r\n\r\n", "not valid HTTP: b'HTTP/1.1 oops"),
        (lambda _: b"\x15\x03\x01\x00\x02", "not valid HTTP"),
    ],
)
def test_a_server_breaks_the_rules(build: Answer, text: str, cut: int) -> None:
    with pytest.raises(HandshakeError, match=re.escape(text)):
        run(client(subprotocols=["xml", "json"]), build, cut)


@pytest.mark.parametrize("size", [0, 1, 7, 40])
def test_a_server_closes_early(size: int) -> None:
    handshake = client()
    if size:
        assert handshake.receive(answer()(ACCEPT)[:size]) is None
    with pytest.raises(HandshakeError, match="closed the connection before it answered"):
        handshake.receive(b"")


def test_at_most_60_bytes_are_quoted() -> None:
    with pytest.raises(HandshakeError) as caught:
        client().receive(b"HTTP!" + b"x" * 1000)
    assert "x" * 55 + "'" in str(caught.value)
    assert "x" * 56 not in str(caught.value)


def test_a_head_that_does_not_end() -> None:
    handshake = client(max_size=500)
    assert handshake.receive(b"HTTP/1.1 101 X\r\n") is None
    with pytest.raises(HandshakeError, match="over 500 bytes"):
        for _ in range(100):
            assert handshake.receive(b"X-Y: 12345\r\n") is None


LIMIT = 65_536


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope", 403, b"nope"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno", 403, b"no"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.0 500\r\n\r\nto the end", 500, b"to the end"),
        (
            b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            302,
            b"abcd",
        ),
        (b"HTTP/1.1 400 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", 400, b"abc"),
        (b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 401 X\r\nContent-Length: 1\r\n\r\ny", 401, b"y"),
    ],
)
def test_a_server_rejects(data: bytes, status: int, body: bytes, cut: int) -> None:
    handshake = client()
    with pytest.raises(HandshakeRejected) as caught:
        for piece in [*pieces(data, cut), b""]:
            assert handshake.receive(piece) is None
    assert (caught.value.status, caught.value.body) == (status, body)
    assert isinstance(caught.value.headers, Headers)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 500 X\r\n\r\n",
        b"HTTP/1.1 500 X\r\nContent-Length: 9999999999\r\n\r\n",
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n",
    ],
)
def test_a_rejection_is_read_to_64_kib(start: bytes) -> None:
    handshake = client()
    with pytest.raises(HandshakeRejected) as caught:
        for piece in [start, *[b"x" * 1000] * 70]:
            assert handshake.receive(piece) is None
    assert caught.value.body == b"x" * LIMIT


def test_both_roles_agree() -> None:
    handshake = client(subprotocols=["json"], compression=Compression())
    reader = HeadReader(16384)
    whole = reader.feed(handshake.request_bytes())
    assert whole is not None
    parsed = parse_request(whole)
    assert check_upgrade(parsed) is None
    sent = accept_response(
        parsed, subprotocol=choose_subprotocol(parsed, ["json"]), extensions=None
    )
    response = handshake.receive(sent)
    assert response is not None
    assert response.subprotocol == "json"
    other = client()
    with pytest.raises(HandshakeRejected) as caught:
        other.receive(refusal_response(Refusal(426, "Later.")))
    assert caught.value.body == b"Later.\n"
    assert caught.value.headers["upgrade"] == "websocket"


def test_h11_reads_our_responses() -> None:
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    reader.receive_data(refusal_response(Refusal(400, "Bad.")))
    event = reader.next_event()
    assert isinstance(event, h11.Response)
    assert event.status_code == 400
