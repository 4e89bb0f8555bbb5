"""Opening handshakes that no honest peer sends: too much, or too slow."""

from __future__ import annotations

import ssl
from contextlib import ExitStack, suppress
from typing import Any

import pytest

import syncws
from syncws.protocol.http import HeadError, HeadReader
from tests.abuse.door import door, with_and_without_app
from tests.abuse.hostile import DEFLATE, beside, connecting, everything
from tests.abuse.watch import watched
from tests.support import (
    RawPeer,
    RawServer,
    Task,
    client_tls,
    server_tls,
)

KIB = 1024

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
        with suppress(OSError):  # the other end may be gone
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
        with suppress(OSError):  # the other end may be gone
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
    with connecting(syncws.HandshakeError, peak=1024 * KIB) as peer:
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
    with beside(tls=tls, handshake_timeout=2.0) as others, watched(), ExitStack() as stack:
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
        beside(tls=tls, handshake_timeout=2.0) as others,
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
        beside(tls=tls, handshake_timeout=2.0) as others,
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
    with connecting(syncws.ConnectTimeout, handshake_timeout=1.0) as peer:
        peer.read_head()
        peer.send_bytes(said)


def test_a_server_that_is_silent_in_the_tls_handshake() -> None:
    with beside() as others, watched(), RawServer() as server:
        server.url = f"wss://127.0.0.1:{server.port}/"
        opening = server.open_client(ssl=client_tls(), handshake_timeout=1.0)
        with server.accept() as peer:
            peer._take(5)
            others.served()
            assert isinstance(opening.error(), syncws.ConnectTimeout)
            everything(peer)


def test_a_server_that_answers_a_byte_at_a_time() -> None:
    with connecting(syncws.ConnectTimeout, handshake_timeout=1.0) as peer:
        peer.read_head()
        assert peer.drip(b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 15_000, 0.01)
