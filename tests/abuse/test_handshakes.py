"""Opening handshakes that no honest peer sends: too much, too slow, ambiguous, or for another."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

import syncws
from syncws.protocol.http import HeadError, HeadReader
from tests.abuse.hostile import DEFLATE, beside, connecting, everything, nobody_waits
from tests.abuse.watch import watched
from tests.support import (
    HANG,
    TEXT,
    RawPeer,
    RawServer,
    ServerRecorder,
    Task,
    client_tls,
    frame,
    server_tls,
)

KIB = 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [0-9]{3} ")

_SECRET = b"GET /secret HTTP/1.1\r\nHost: localhost\r\n\r\n"


class App:
    """A WSGI application that notes what it is asked for."""

    def __init__(self) -> None:
        self.environs: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.environs.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    @property
    def paths(self) -> list[str]:
        """The paths that it was asked for."""
        return [environ["PATH_INFO"] for environ in self.environs]


class Door:
    """A listener whose door is tried."""

    def __init__(self, listener: syncws.Listener, service: ServerRecorder, app: App | None) -> None:
        self.listener = listener
        self.service = service
        self.app = app

    def answer(self, request: bytes, later: bytes = b"") -> tuple[int, bytes]:
        """Return the status of the only answer to a request, and all of it.

        Args:
            request: What is sent.
            later: What is sent once there is an answer.
        """
        with RawPeer.dial(self.listener) as peer:
            peer.send_bytes(request)
            head = peer.read_head()
            if later:
                with suppress(ConnectionError):
                    peer.send_bytes(later)
            rest = peer._buffer + everything(peer)
        assert not _STATUS_LINE.search(rest), rest
        return int(head.split()[1]), head + rest

    def status(self, *headers: str, host: str | None = None, path: str = "/") -> int:
        """Return the status of the answer to a handshake; 101 comes with an open connection."""
        with RawPeer.dial(self.listener) as peer:
            host = host or f"127.0.0.1:{self.listener.port}"
            peer.send_bytes(RawPeer.request(path, *headers, host=host))
            status = int(peer.read_head().split()[1])
            if status == 101:
                peer.finish()
                self.service.expect("on_open")
                self.service.expect("on_close")
        assert self.service.calls.empty()
        return status

    def stayed_shut(self) -> None:
        """Assert that neither the service nor the application was asked."""
        assert self.service.calls.empty()
        assert self.app is None or self.app.paths == []


@contextmanager
def door(
    *, app: bool = False, peak: int | None = None, config: Any = None, **options: Any
) -> Iterator[Door]:
    """A listener that is attacked before there is a connection; nothing is left of it."""
    service = ServerRecorder(config or syncws.ServiceConfig(ping_interval=None))
    application = App() if app else None
    with beside(app=application, **options) as others:
        others.listener.attach("/", service)
        with watched(peak=peak):
            yield Door(others.listener, service, application)
            others.served()


with_and_without_app = pytest.mark.parametrize("app", [False, True], ids=["alone", "with an app"])


# -- Compression -------------------------------------------------------------

_BAD_BITS = ["0", "7", "8", "16", "x", "-9", "+9", "09", "1e1", "9.0", '""', "", "99999999999", "९"]
_BAD_PARAMETERS = [
    *(f"{side}_max_window_bits={bits}" for side in ("server", "client") for bits in _BAD_BITS),
    "server_max_window_bits",
    "server_max_window_bits=10; server_max_window_bits=10",
    "client_max_window_bits=10; client_max_window_bits=12",
    "server_no_context_takeover; server_no_context_takeover",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    "unknown",
    "unknown=1",
    "=9",
    ";;",
    "server_max_window_bits=10;",
    'server_max_window_bits="10',
    "server_max_window_bits=10 12",
]


@pytest.mark.parametrize("parameters", _BAD_PARAMETERS)
@pytest.mark.parametrize("more", [False, True], ids=["alone", "with a good one"])
def test_offers_of_compression_that_are_wrong(parameters: str, more: bool) -> None:
    offer = f"{DEFLATE}; {parameters}"
    with door() as tried, RawPeer.dial(tried.listener) as peer:
        request = RawPeer.request("/", offer + (", permessage-deflate" if more else ""))
        peer.send_bytes(request)
        head = peer.read_head().lower()
        # Declined; the good one beside it may be accepted.
        assert head.startswith(b"http/1.1 101 ")
        given = head.partition(b"sec-websocket-extensions:")[2].partition(b"\r\n")[0]
        assert given in (b"", b" permessage-deflate; server_max_window_bits=12" if more else b"")
        peer.text("plain")
        tried.service.expect("on_open")
        tried.service.expect("on_text", "plain")
        peer.finish()
        tried.service.expect("on_close")


@pytest.mark.parametrize(
    "parameters",
    [
        *_BAD_PARAMETERS,
        "client_max_window_bits",  # only an offer has it so
        "server_max_window_bits=13",  # more than was asked for
        "client_max_window_bits=12",  # without the server's, which was asked for
    ],
)
def test_answers_on_compression_that_are_wrong(parameters: str) -> None:
    with connecting(syncws.HandshakeError, compression=True) as peer:
        peer.answer(f"{DEFLATE}; {parameters}")


@pytest.mark.parametrize(
    "extensions",
    [
        "permessage-deflate, permessage-deflate",
        "x-webkit-deflate-frame",
        "permessage-bzip2",
        "permessage-deflate; server_max_window_bits=12, x",
    ],
)
@pytest.mark.parametrize("compression", [True, False], ids=["offered", "not offered"])
def test_extensions_that_were_not_offered(extensions: str, compression: bool) -> None:
    with connecting(syncws.HandshakeError, compression=compression) as peer:
        peer.answer(f"Sec-WebSocket-Extensions: {extensions}")


@pytest.mark.parametrize("offered", [(), ("chat",)])
@pytest.mark.parametrize(
    "answer", [["Chat"], ["other"], ["chat, other"], ["chat", "chat"], [""], ["chat\x01"]]
)
def test_subprotocols_that_were_not_offered(offered: tuple[str, ...], answer: list[str]) -> None:
    with connecting(syncws.HandshakeError, subprotocols=offered) as peer:
        peer.answer(*(f"Sec-WebSocket-Protocol: {name}" for name in answer))


# -- Floods ------------------------------------------------------------------


@with_and_without_app
@pytest.mark.parametrize("limit", [16_384, 10_000_000])
def test_ten_thousand_headers(app: bool, limit: int) -> None:
    flood = RawPeer.request("/", *(f"X-{number}: y" for number in range(10_000)))
    with door(app=app, peak=512 * KIB, max_handshake_size=limit) as tried:
        status, _ = tried.answer(flood)
        assert status == 431
        tried.stayed_shut()


@with_and_without_app
@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nX: "], ids=["a line", "a header"])
def test_twenty_megabytes_of_head(app: bool, start: bytes) -> None:
    more = b"x" * 65_536
    with door(app=app, peak=512 * KIB) as tried, RawPeer.dial(tried.listener) as peer:
        peer.send_bytes(start)
        with suppress(ConnectionError):
            for _ in range(20_000_000 // len(more)):
                peer.send_bytes(more)
        peer.end_writing()
        assert everything(peer).startswith(b"HTTP/1.1 431 ")
        tried.stayed_shut()


@pytest.mark.parametrize("line", [b"x", b"X:y\r\n"], ids=["a header", "headers"])
def test_a_head_a_byte_at_a_time(line: bytes) -> None:
    with door(peak=512 * KIB) as tried, RawPeer.dial(tried.listener) as peer:
        peer.send_bytes(b"GET / HTTP/1.1\r\nX: ")
        for number in range(16_384):
            try:
                peer.send_bytes(line[number % len(line) :][:1])
            except ConnectionError:
                break
        assert peer.read_head().startswith(b"HTTP/1.1 431 ")
        peer.end_writing()
        everything(peer)
        tried.stayed_shut()


class _Counting(bytearray):
    """Counts the bytes that are looked at."""

    looked_at = 0

    def find(self, part: Any, start: Any = 0, end: Any = None) -> int:
        self.looked_at += min(len(self), end) - start
        return super().find(part, start, end)

    def count(self, part: Any, start: Any = 0, end: Any = None) -> int:
        self.looked_at += min(len(self), end) - start
        return super().count(part, start, end)


class _CountingPattern:
    def __init__(self, pattern: Any) -> None:
        self._pattern = pattern
        self.looked_at = 0

    def search(self, data: bytearray, start: int, end: int) -> Any:
        self.looked_at += end - start
        return self._pattern.search(data, start, end)


@pytest.mark.parametrize("line", [b"x" * 64, b"X: yyyyyyyyy\r\n"], ids=["a header", "headers"])
def test_the_work_for_a_head_is_linear(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 200_000
    pattern = _CountingPattern(HeadReader.feed.__globals__["_SMUGGLING"])
    monkeypatch.setattr("syncws.protocol.http._SMUGGLING", pattern)
    reader = HeadReader(size, max_headers=size)
    reader._buffer = counting = _Counting()
    head = (b"GET / HTTP/1.1\r\nX: " + line * size)[:size]
    with pytest.raises(HeadError, match="over 200000 bytes"):
        for number in range(size):
            reader.feed(head[number : number + 1])
    assert len(counting) == size
    assert counting.looked_at + pattern.looked_at < 12 * size


def _pour(peer: RawPeer, data: bytes, times: int) -> None:
    with suppress(ConnectionError):
        for _ in range(times):
            peer.send_bytes(data)


@pytest.mark.parametrize(
    ("start", "more", "times"),
    [
        pytest.param(b"", b"".join(b"X-%d: y\r\n" % n for n in range(10_000)), 1, id="headers"),
        pytest.param(b"X: ", b"x" * 65_536, 300, id="20 MB of a header"),
        pytest.param(b"X: ", b"x", 17_000, id="a byte at a time"),
    ],
)
def test_floods_of_headers_from_a_server(start: bytes, more: bytes, times: int) -> None:
    with connecting(syncws.HandshakeError, peak=1024 * KIB) as peer:
        peer.read_head()
        peer.send_bytes(b"HTTP/1.1 101 Switching Protocols\r\n" + start)
        _pour(peer, more, times)


def test_a_flood_of_other_answers_before_the_one_that_counts() -> None:
    with connecting(syncws.ConnectTimeout, handshake_timeout=0.5, peak=1024 * KIB) as peer:
        peer.read_head()
        with suppress(ConnectionError):
            while True:
                peer.send_bytes(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 10)


@pytest.mark.parametrize("framing", ["", "Content-Length: 1000000000\r\n"])
def test_a_refusal_with_an_endless_body(framing: str) -> None:
    with connecting(syncws.HandshakeRejected, peak=1024 * KIB) as peer:
        peer.read_head()
        peer.send_bytes(f"HTTP/1.1 503 Busy\r\n{framing}\r\n".encode())
        _pour(peer, b"x" * 65_536, 300)


# -- Slowness ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("secure", "said"),
    [
        pytest.param(False, b"", id="nothing"),
        pytest.param(False, b"G", id="a byte"),
        pytest.param(False, RawPeer.request()[:-1], id="all but a byte"),
        pytest.param(True, b"", id="TLS: nothing"),
        pytest.param(True, b"\x16\x03\x01", id="TLS: a part"),
        pytest.param(True, b"\x16\x03\x01\x40\x00\x01", id="TLS: a part of a large one"),
    ],
)
def test_silence_in_a_handshake(secure: bool, said: bytes) -> None:
    tls = (server_tls(), client_tls()) if secure else None
    with beside(tls=tls, handshake_timeout=1.0) as others, watched(), ExitStack() as stack:
        silent = [stack.enter_context(RawPeer.dial(others.listener)) for _ in range(10)]
        for peer in silent:
            peer.send_bytes(said)
        others.served()
        for peer in silent:
            peer.expect_end()
        others.served()


@pytest.mark.parametrize("said", [b"", b"GET / HT"], ids=["nothing", "a part"])
def test_silence_after_the_tls_handshake(said: bytes) -> None:
    tls = (server_tls(), client_tls())
    with (
        beside(tls=tls, handshake_timeout=1.0) as others,
        watched(),
        RawPeer.dial(others.listener, tls=True) as silent,
    ):
        silent.send_bytes(said)
        others.served()
        with suppress(ssl.SSLError):  # TCP ends, and TLS is not told
            silent.expect_end()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_handshake_a_byte_at_a_time(secure: bool) -> None:
    tls = (server_tls(), client_tls()) if secure else None
    with (
        beside(tls=tls, handshake_timeout=1.0) as others,
        watched(),
        RawPeer.dial(others.listener, tls=secure) as slow,
    ):
        dripping = Task(slow.drip, RawPeer.request("/", "X: " + "x" * 15_000), 0.01)
        others.served()
        try:
            assert dripping.result()
        except ssl.SSLError:
            pass  # TCP has ended, and TLS was not told


@pytest.mark.parametrize(
    "said",
    [b"", b"H", b"HTTP/1.1 101 Switching Protocols\r\nX: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["nothing", "a byte", "a part", "wait"],
)
def test_a_server_that_falls_silent_in_the_handshake(said: bytes) -> None:
    with connecting(syncws.ConnectTimeout, handshake_timeout=0.3) as peer:
        peer.read_head()
        peer.send_bytes(said)


def test_a_server_that_is_silent_in_the_tls_handshake() -> None:
    with beside() as others, watched(), RawServer() as server:
        server.url = f"wss://127.0.0.1:{server.port}/"
        opening = server.open_client(ssl=client_tls(), handshake_timeout=0.3)
        with server.accept() as peer:
            peer._take(5)
            others.served()
            assert isinstance(opening.error(), syncws.ConnectTimeout)
            everything(peer)


def test_a_server_that_answers_a_byte_at_a_time() -> None:
    with connecting(syncws.ConnectTimeout, handshake_timeout=0.5) as peer:
        peer.read_head()
        assert peer.drip(b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 15_000, 0.01)


# -- What two parsers could read differently ---------------------------------


def _with(*headers: str) -> bytes:
    return RawPeer.request("/", *headers)


def _instead(old: bytes, new: bytes) -> bytes:
    request = RawPeer.request("/", "X-Last: 1")
    assert request.count(old) >= 1
    return request.replace(old, new, 1)


_HEADS = {
    "a length": _with("Content-Length: 5") + b"hello",
    "a length with a request in it": _with(f"Content-Length: {len(_SECRET)}") + _SECRET,
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
        status, _ = tried.answer(head + _SECRET, later=_SECRET)
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
        sent: list[bytes] = []
        peer.send_bytes = sent.append  # type: ignore[method-assign]
        peer.answer()
        (whole,) = sent
        _, _, rest = whole.partition(b"\r\n")
        with suppress(ConnectionError):
            peer.sock.sendall(start + rest)


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
@pytest.mark.parametrize("more", [_SECRET, frame(TEXT, b"x"), RawPeer.request()])
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
        with suppress(ConnectionError):
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
