"""What the corpora begin with: good handshakes and frames, and known ways to go wrong."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from tests.handshakes import ACCEPT, KEY
from tests.introductions import LINE, TLS, V4, V6, introduction_2, local, value, with_checksum
from tests.support import BINARY, CLOSE, CONT, PING, PONG, TEXT, close_payload
from tests.support import frame as make_frame

from .parcel import Parcel

__all__ = ["seeds"]

_UPGRADE = (
    "Host: example.com",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)
_SWITCH = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Accept: {ACCEPT}",
)


def seeds(target: str) -> dict[str, bytes]:
    """Return the inputs that a target begins with, by name."""
    return {name: parcel.pack() for name, parcel in _SEEDS[target]()}


def _head(first: str, *lines: str, end: str = "\r\n") -> bytes:
    return end.join((first, *lines, "", "")).encode("latin-1")


# -- Handshakes ------------------------------------------------------


def _requests() -> Iterator[tuple[str, Parcel]]:
    get = "GET /chat HTTP/1.1"

    def good(*lines: str, settings: int = 0, rest: bytes = b"", first: str = get) -> Parcel:
        return Parcel(settings, (7, 1), _head(first, *_UPGRADE, *lines) + rest)

    yield "good", good()
    yield "good-path-parameter", good(first="GET /chat/7?a=b&a=%20+c HTTP/1.1")
    yield "good-absolute-form", good(first="GET http://example.com:80/chat HTTP/1.1")
    yield "good-encoded-path", good(first="GET /files/%2e%2E/a%2Fb%ff/%E2%82%AC HTTP/1.1")
    yield "good-first-frames", good(rest=make_frame(TEXT, b"early"))
    yield "good-cookies", good('Cookie: a=1; b="2"; =3; c; a=4', "Cookie: d==")
    yield "good-latin-1", good("X: \xe9\xff")
    yield "good-no-body-twice", good("Content-Length: 0, 0")
    yield "good-subprotocol", good("Sec-WebSocket-Protocol: soap, json,, xml", settings=8)
    yield "good-origin", good("Origin: https://app.example", settings=2)
    yield "good-same-origin", good("Origin: http://example.com")
    yield "refused-origin-null", good("Origin: null")
    yield "refused-origin-suffix", good("Origin: https://app.example.evil.example", settings=2)
    yield "refused-origin-port", good("Origin: http://example.com:8080")
    yield "refused-origin-twice", good("Origin: http://example.com", "Origin: http://e.example")
    yield "refused-origin-port-huge", good("Origin: http://example.com:99999")
    deflate = "Sec-WebSocket-Extensions: permessage-deflate"
    yield "good-deflate", good(deflate, settings=0x10)
    yield "good-deflate-bits", good(f"{deflate}; client_max_window_bits=9", settings=0x20)
    yield (
        "good-deflate-second",
        good(f'{deflate}; x=1, permessage-deflate; server_max_window_bits="10"', settings=0x30),
    )
    for name, parameters in (
        ("bits-0", "client_max_window_bits=0"),
        ("bits-7", "server_max_window_bits=7"),
        ("bits-8", "server_max_window_bits=8"),
        ("bits-16", "client_max_window_bits=16"),
        ("bits-x", "client_max_window_bits=x"),
        ("bits-none", "server_max_window_bits"),
        ("bits-empty", "server_max_window_bits="),
        ("twice", "client_max_window_bits; client_max_window_bits=10"),
        ("quote", 'client_max_window_bits="1'),
        ("escape", 'client_max_window_bits="1\\0"'),
    ):
        yield f"declined-{name}", good(f"{deflate}; {parameters}", settings=0x10)
    for name, line in (
        ("body", "Content-Length: 1"),
        ("chunked", "Transfer-Encoding: chunked"),
        ("host-twice", "Host: evil.example"),
        ("key-twice", f"Sec-WebSocket-Key: {KEY}"),
        ("version-twice", "Sec-WebSocket-Version: 8"),
        ("fold", "X: a\r\n b"),
        ("bare-lf", "X: a\nY: b"),
        ("bare-cr", "X: a\rY: b"),
        ("nul", "X: a\0b"),
        ("space-before-colon", "X : a"),
        ("no-colon", "X"),
    ):
        yield f"refused-{name}", good(line)
    yield "refused-many-headers", good(*(f"X{n}: {n}" for n in range(20)))
    yield "refused-long-head", good("X: " + "x" * 2000)
    yield "refused-no-upgrade", Parcel(0, (), _head(get, "Host: x"))
    yield "refused-post", good(first="POST / HTTP/1.1")
    yield "refused-head", good(first="HEAD / HTTP/1.1")
    yield "refused-1.0", good(first="GET / HTTP/1.0")
    yield "refused-2.0", good(first="GET / HTTP/2.0")
    yield "refused-target", good(first="GET example.com HTTP/1.1")
    yield "refused-target-userinfo", good(first="GET http://u:p@example.com/ HTTP/1.1")
    yield "refused-fragment", good(first="GET /#a HTTP/1.1")
    yield "refused-blank-line", Parcel(0, (1,), b"\r\n" + _head(get, *_UPGRADE))
    yield "refused-lf-only", Parcel(0, (), _head(get, *_UPGRADE, end="\n"))
    yield "refused-key", Parcel(0, (), _head(get, *_UPGRADE[:3], "Sec-WebSocket-Key: x"))
    yield "refused-version", Parcel(0, (), _head(get, *_UPGRADE[:4], "Sec-WebSocket-Version: 8"))
    yield "refused-tls", Parcel(0, (), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    yield "part", Parcel(0, (1,), _head(get, *_UPGRADE)[:-1])


def _responses() -> Iterator[tuple[str, Parcel]]:
    switch = "HTTP/1.1 101 Switching Protocols"
    deflate = "Sec-WebSocket-Extensions: permessage-deflate"

    def good(*lines: str, settings: int = 0, rest: bytes = b"", first: str = switch) -> Parcel:
        return Parcel(settings, (9, 1), _head(first, *_SWITCH, *lines) + rest)

    yield "good", good()
    yield "good-no-reason", good(first="HTTP/1.1 101 ")
    yield "good-first-frames", good(rest=make_frame(TEXT, b"hello", masked=False))
    yield "good-subprotocol", good("Sec-WebSocket-Protocol: chat", settings=4)
    yield "good-deflate", good(f"{deflate}; server_max_window_bits=12", settings=0x10)
    yield "good-deflate-bits", good(f"{deflate}; server_max_window_bits=9", settings=0x20)
    yield "bad-deflate-no-bits", good(deflate, settings=0x10)
    yield "good-after-100", Parcel(0, (5,), _head("HTTP/1.1 103 Early") + good().data)
    yield "bad-subprotocol", good("Sec-WebSocket-Protocol: soap", settings=4)
    yield "bad-subprotocols", good("Sec-WebSocket-Protocol: chat, chat", settings=4)
    yield "bad-deflate-unasked", good(deflate)
    yield "bad-deflate-twice", good(f"{deflate}, permessage-deflate", settings=0x10)
    yield "bad-deflate-bits", good(f"{deflate}; client_max_window_bits=16", settings=0x10)
    yield "bad-deflate-missing", good(deflate, settings=0x30)
    yield "bad-extension", good("Sec-WebSocket-Extensions: x-other", settings=0x10)
    yield "bad-accept", Parcel(0, (), _head(switch, *_SWITCH[:2], "Sec-WebSocket-Accept: x"))
    yield "bad-accept-twice", good(f"Sec-WebSocket-Accept: {ACCEPT}")
    yield "bad-no-upgrade", Parcel(0, (), _head(switch, *_SWITCH[1:]))
    yield "bad-1.0", good(first="HTTP/1.0 101 Switching Protocols")
    yield "bad-long", good("X: " + "x" * 2100)
    yield "good-many-headers", good(*(f"X{n}: {n}" for n in range(150)))
    yield "good-lf-only", Parcel(0, (3,), _head(switch, *_SWITCH, end="\n"))
    yield "bad-status", good(first="HTTP/1.1 1010 Switching")
    yield "bad-ssh", Parcel(0, (1,), b"SSH-2.0-OpenSSH_9.2\r\n")
    yield "bad-h", Parcel(0, (1,), b"HTTQ")
    yield "nothing", Parcel(0, (), b"")
    body = b"Age is required\n"
    yield (
        "rejected",
        Parcel(0, (20,), _head("HTTP/1.1 400 Bad Request", "Content-Length: 16") + body),
    )
    yield "rejected-to-the-end", Parcel(0, (), _head("HTTP/1.1 503 Busy") + body)
    chunked = _head("HTTP/1.1 500 Oops", "Transfer-Encoding: chunked")
    yield "rejected-chunked", Parcel(0, (11,), chunked + b"4\r\nwhat\r\n0\r\n\r\n")
    yield "rejected-bad-chunk", Parcel(0, (11,), chunked + b"4\r\nwhat\r\nx\r\n\r\n")
    redirect = _head("HTTP/1.1 302 Found", "Location: http://evil.example/", "Content-Length: 0")
    yield "rejected-redirect", Parcel(0, (), redirect)
    yield "rejected-200", Parcel(0, (), _head("HTTP/1.1 200 OK", "Content-Length: 99") + body)


# -- Frames ----------------------------------------------------------

# Settings of the target `frames`.
_CLIENT, _DEFLATE, _STREAM, _SMALL = 1, 2, 12, 0x20


def _raw_deflate(data: bytes, *, finish: bool = False) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    if finish:
        return compressor.compress(data) + compressor.flush(zlib.Z_FINISH)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _frames() -> Iterator[tuple[str, Parcel]]:
    for role, settings, masked in (("server", 0, True), ("client", _CLIENT, False)):
        for name, extra, data in _frame_cases(masked):
            yield f"{role}-{name}", Parcel(settings | extra, (3, 1), data)


def _frame_cases(masked: bool) -> Iterator[tuple[str, int, bytes]]:
    def f(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> bytes:
        return make_frame(opcode, payload, fin=fin, rsv=rsv, masked=masked)

    euro = "a€𝄞".encode()
    close = f(CLOSE, close_payload(1000, "bye"))
    yield "text", 0, f(TEXT, euro) + f(TEXT) + close
    yield "binary", 0, f(BINARY, bytes(200)) + f(BINARY, b"x" * 126) + close
    fragments = (
        f(TEXT, euro[:2], False) + f(PING, b"p") + f(CONT, euro[2:5], False) + f(CONT, euro[5:])
    )
    yield "fragments", 0, fragments + close
    yield "fragments-streamed", _STREAM, fragments + f(BINARY, b"", False) + f(CONT, b"b")
    yield "controls", 0, f(PING, b"x" * 125) + f(PONG, b"y") + f(CLOSE)
    yield "many", 0, f(TEXT, b"m") * 300 + close
    yield "small-limits", _SMALL, f(BINARY, b"x" * 60) + f(BINARY, b"x" * 61)
    yield "many-fragments", _SMALL, f(TEXT, b"a", False) + f(CONT, b"", False) * 4
    yield "two-messages-at-once", 0, f(TEXT, b"a", False) + f(TEXT, b"b")
    yield "nothing-to-continue", 0, f(CONT, b"a")
    yield "not-masked-right", 0, make_frame(TEXT, b"a", masked=not masked)
    yield "close-midway", 0, f(BINARY, b"a", False) + close + f(CONT, b"b")
    for rsv in (1, 2, 4):
        yield f"rsv-{rsv}", 0, f(TEXT, b"a", True, rsv)
        yield f"rsv-{rsv}-control", _DEFLATE, f(PING, b"a", True, rsv)
    yield "rsv-continuation", _DEFLATE, f(TEXT, b"", False) + f(CONT, b"", True, 4)
    yield "opcodes", 0, f(0x3)
    yield "opcode-control", 0, f(0xB)
    yield "ping-fragment", 0, f(PING, b"a", False)
    yield "ping-long", 0, f(PING, b"x" * 126)
    bit = 0x80 if masked else 0
    key = bytes(4) if masked else b""
    yield "length-top-bit", 0, bytes((0x82, bit | 127)) + b"\x80" + bytes(7) + key
    yield "length-largest", _SMALL, bytes((0x82, bit | 127)) + b"\x7f" + b"\xff" * 7 + key
    yield "length-16-short", 0, bytes((0x82, bit | 126)) + b"\x00\x7d" + key + bytes(125)
    yield "length-64-short", 0, bytes((0x82, bit | 127)) + bytes(6) + b"\xff\xff" + key
    for name, bad in (("overlong", b"\xc0\xaf"), ("surrogate", b"\xed\xa0\x80"), ("cut", b"\xe2")):
        yield f"utf8-{name}", 0, f(TEXT, b"good " + bad)
        yield f"utf8-{name}-part", 0, f(TEXT, b"good " + bad, False) + f(CONT, b"more")
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535):
        yield f"close-{code}", 0, f(CLOSE, close_payload(code))
    yield "close-one-byte", 0, f(CLOSE, b"\x03")
    yield "close-utf8", 0, f(CLOSE, b"\x03\xe8\xff")
    small = _raw_deflate(b"deflated " * 20)
    yield "deflated", _DEFLATE, f(TEXT, small, True, 4) + f(TEXT, b"plain") + close
    yield (
        "deflated-fragments",
        _DEFLATE | _STREAM,
        f(TEXT, small[:5], False, 4) + f(PING) + f(CONT, small[5:]) + close,
    )
    bomb = _raw_deflate(bytes(100_000))
    yield "bomb", _DEFLATE | 0x10, f(BINARY, bomb, True, 4)
    yield (
        "bomb-fragments",
        _DEFLATE | 0x30,
        f(BINARY, bomb[:20], False, 4) + f(CONT, bomb[20:80], False) + f(CONT, bomb[80:]),
    )
    yield "deflated-rubbish", _DEFLATE, f(BINARY, b"\xff\xff\xff", True, 4)


def _deflated() -> Iterator[tuple[str, Parcel]]:
    text = b"the quick brown fox " * 10
    yield "empty", Parcel(0, (), b"")
    yield "empty-block", Parcel(0, (), b"\x00")
    yield "text", Parcel(0x10, (5,), _raw_deflate(text))
    yield "three", Parcel(0, (5,), b"||".join([_raw_deflate(text)] * 3))
    yield "three-afresh", Parcel(8, (5, 1), b"||".join([_raw_deflate(text)] * 3))
    yield "finished", Parcel(0, (2,), _raw_deflate(text, finish=True))
    yield "finished-twice", Parcel(0, (4,), _raw_deflate(text, finish=True) * 2)
    yield "finished-often", Parcel(0, (4,), _raw_deflate(b"", finish=True) * 70)
    yield "finished-then-more", Parcel(0, (), _raw_deflate(text, finish=True) + _raw_deflate(text))
    yield "bomb", Parcel(3, (9,), _raw_deflate(bytes(500_000)))
    yield "bomb-unlimited", Parcel(0, (100,), _raw_deflate(bytes(500_000)))
    yield "exact", Parcel(2, (), _raw_deflate(bytes(100)))
    yield "one-more", Parcel(2, (), _raw_deflate(bytes(101)))
    yield "nothing-for-long", Parcel(1, (50,), b"\x00\x00\x00\xff\xff" * 400)
    yield "stored", Parcel(0, (), b"\x00\x05\x00\xfa\xffhello\x00")
    yield "far-back", Parcel(4, (), _raw_deflate(bytes(range(256)) * 4))
    yield "cut", Parcel(0, (), _raw_deflate(text)[:-3])
    yield "rubbish", Parcel(0, (1,), b"\xff\xff\xff")
    yield "not-utf8", Parcel(0x10, (1,), _raw_deflate(b"good \xed\xa0\x80"))
    yield "utf8-apart", Parcel(0x10, (1,), _raw_deflate("€𝄞".encode()))
    yield "tail-in-data", Parcel(0, (3,), b"\x00\x00\x00\xff\xff\x00")


# -- Requests with a body --------------------------------------------


def _bodies() -> Iterator[tuple[str, Parcel]]:
    def post(*lines: str, body: bytes = b"", settings: int = 0, first: str = "POST /") -> Parcel:
        return Parcel(settings, (8, 1), _head(f"{first} HTTP/1.1", "Host: x", *lines) + body)

    chunked = "Transfer-Encoding: chunked"
    yield "get", post(first="GET /", settings=0x1F00)
    yield "head", post(first="HEAD /", settings=0x1F30)
    yield "length", post("Content-Length: 5", body=b"hello")
    yield "length-and-more", post("Content-Length: 5", body=b"helloGET / HTTP/1.1\r\n\r\n")
    yield "length-same-twice", post("Content-Length: 5, 5", body=b"hello")
    yield "part", post("Content-Length: 50", body=b"hello")
    yield "chunks", post(chunked, body=b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\n")
    yield "chunks-and-more", post(chunked, body=b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n")
    yield "chunks-trailers", post(chunked, body=b"0\r\nX: y\r\nZ: w\r\n\r\nmore")
    yield "chunks-tiny", post(chunked, body=b"1\r\nx\r\n" * 300 + b"0\r\n\r\n")
    yield "chunks-part", post(chunked, body=b"5\r\nhel")
    yield "continue", post("Expect: 100-continue", "Content-Length: 2", body=b"hi")
    yield "wish-to-close", post("Connection: close", settings=0x0740)
    yield "no-content", post(settings=0x0504)
    yield "not-modified", post(settings=0x0508)
    yield "length-0", post(settings=0x0010)
    yield "length-short", post(settings=0x0320)
    for name, lines, body in (
        ("both", ("Content-Length: 3", chunked), b"0\r\n\r\n"),
        ("lengths-differ", ("Content-Length: 3", "Content-Length: 4"), b"abcd"),
        ("length-sign", ("Content-Length: +3",), b"abc"),
        ("length-hex", ("Content-Length: 0x3",), b"abc"),
        ("length-huge", ("Content-Length: " + "9" * 30,), b"abc"),
        ("codings", ("Transfer-Encoding: gzip, chunked",), b"0\r\n\r\n"),
        ("coding-x", ("Transfer-Encoding: xchunked",), b"0\r\n\r\n"),
        ("coding-twice", (chunked, chunked), b"0\r\n\r\n"),
        ("chunk-size", (chunked,), b"0x5\r\nhello\r\n0\r\n\r\n"),
        ("chunk-sign", (chunked,), b"-5\r\nhello\r\n0\r\n\r\n"),
        ("chunk-lf", (chunked,), b"5\nhello\n0\n\n"),
        ("chunk-end", (chunked,), b"5\r\nhelloXX0\r\n\r\n"),
        ("chunk-long", (chunked,), b"f" * 30 + b"\r\n"),
        ("last-lf", (chunked,), b"0\r\n\n"),
        ("trailer-lf", (chunked,), b"0\r\nX: y\n\nGET / HTTP/1.1\r\n\r\n"),
        ("trailer-mixed", (chunked,), b"0\r\nX: y\n\r\n"),
        ("trailer-bad", (chunked,), b"0\r\nX y\r\n\r\n"),
    ):
        yield f"odd-{name}", post(*lines, body=body)
    yield "too-large", post("Content-Length: 11", body=b"x" * 11, settings=1)
    yield "too-large-chunks", post(chunked, body=b"b\r\n" + b"x" * 11 + b"\r\n", settings=1)
    old = _head("POST / HTTP/1.0", chunked)
    yield "odd-1.0-chunks", Parcel(0, (), old + b"0\r\n\r\n")
    yield "old", Parcel(0x0700, (), _head("GET / HTTP/1.0"))
    yield "odd-2.0", Parcel(0, (), _head("GET / HTTP/2.0", "Host: x"))


# -- Proxies ---------------------------------------------------------


def _introduced() -> Iterator[tuple[str, Parcel]]:
    request = _head("GET / HTTP/1.1", "Host: x")
    inner = b"PROXY TCP4 10.0.0.1 127.0.0.1 1 2\r\n"
    for name, header in (
        ("line", LINE),
        ("line-6", b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n"),
        ("line-unknown", b"PROXY UNKNOWN ffff ffff 1 2\r\n"),
        ("line-long", b"PROXY UNKNOWN " + b"x" * 100),
        ("line-bad", b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n"),
        ("line-port", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n"),
        ("line-lf", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n"),
        ("binary", introduction_2(V4)),
        ("binary-6", introduction_2(V6, family=0x21)),
        ("binary-unix", introduction_2(b"/run/a".ljust(216, b"\0"), family=0x31)),
        ("binary-tls", introduction_2(V4 + TLS)),
        ("binary-values", introduction_2(V4 + value(2, b"a.example") + value(4) + TLS)),
        ("binary-checksum", with_checksum(V4, TLS)),
        ("binary-checksum-wrong", introduction_2(V4 + value(3, b"1234"))),
        ("binary-local", local(V4, family=0x11)),
        ("binary-short", introduction_2(V4[:-1])),
        ("binary-value-long", introduction_2(V4 + b"\x04\xff\xff")),
        ("binary-version", introduction_2(V4, version=0x31)),
        ("binary-long", introduction_2(V4)[:14] + b"\xff\xff"),
        ("none", b""),
    ):
        yield name, Parcel(1, (5, 1), header + request)
    for name, settings, lines in (
        ("for", 0, ("X-Forwarded-For: 1.1.1.1, 8.8.8.8:1, 10.0.0.1", "X-Forwarded-Proto: https")),
        ("for-bad", 0, ("X-Forwarded-For: x",)),
        ("for-6", 0, ("X-Forwarded-For: [2001:db9::1]:1, ::ffff:10.0.0.1",)),
        ("for-hidden", 0, ("X-Forwarded-For: unknown",)),
        ("forwarded", 2, ('Forwarded: for="[2001:db9::1]:1";proto=https;host=a, for=10.0.0.1',)),
        ("forwarded-open", 2, ('Forwarded: for=1.1.1.1;x="', "Forwarded: for=8.8.8.8")),
        ("host", 4, ("X-Forwarded-Host: a.example", "X-Forwarded-Port: 81")),
        ("host-bad", 4, ("X-Forwarded-Host: a/b",)),
    ):
        head = _head("GET / HTTP/1.1", "Host: x", *lines)
        yield name, Parcel(settings, (), head)
        yield f"{name}-inner", Parcel(settings | 1, (9,), inner + head)
        yield f"{name}-stranger", Parcel(settings | 1, (9,), LINE + head)


_SEEDS = {
    "server_handshake": _requests,
    "client_handshake": _responses,
    "frames": _frames,
    "deflate": _deflated,
    "exchange": _bodies,
    "proxies": _introduced,
}
