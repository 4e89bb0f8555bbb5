"""A request's body and its response, as bytes."""

from __future__ import annotations

from typing import Any

import h11
import pytest

from syncws.protocol.exchange import Exchange, ResponseError, is_upgrade
from syncws.protocol.http import HeadError, parse_request

CHUNKED = "Transfer-Encoding: chunked"


def head(*headers: str, method: str = "POST", version: str = "1.1") -> bytes:
    return "\r\n".join(
        [f"{method} /path HTTP/{version}", "Host: localhost", *headers, "", ""]
    ).encode()


def exchange(*headers: str, **options: Any) -> Exchange:
    limit = options.pop("max_body_size", None)
    return Exchange(head(*headers, **options), limit)


def answer(one: Exchange, *parts: bytes, status: str = "200 OK", headers: Any = ()) -> bytes:
    """Return a whole response."""
    pieces: list[Any] = [one.start(status, headers, last=False)]
    for part in parts:
        pieces += one.data(part)
    return b"".join([*pieces, one.end()])


def split(response: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Return the status line, the headers and the body, as it is on the wire."""
    top, _, body = response.partition(b"\r\n\r\n")
    line, *fields = top.split(b"\r\n")
    pairs = [field.partition(b": ")[::2] for field in fields]
    return line, {name.lower(): value for name, value in pairs}, body


# -- The request -----------------------------------------------------------


def test_a_request_without_a_body() -> None:
    one = exchange(method="GET")
    assert one.body_complete
    assert (one.content_length, one.body_size, one.rest) == (0, 0, b"")


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("headers", "wire"),
    [
        (("Content-Length: 11",), b"hello world"),
        ((CHUNKED,), b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\n\r\n"),
        ((CHUNKED,), b"b\r\nhello world\r\n000\r\nTrailer: x\r\nOther: y\r\n\r\n"),
    ],
)
def test_a_body_however_it_is_cut(headers: tuple[str, ...], wire: bytes, cut: int) -> None:
    one = exchange(*headers)
    wire += b"GET / next"
    parts = []
    for pos in range(0, len(wire), cut):
        assert one.body_complete is (pos >= len(wire) - len(b"GET / next"))
        parts += one.receive(wire[pos : pos + cut])
    assert b"".join(parts) == b"hello world"
    assert one.body_complete
    assert (one.body_size, one.rest, one.rest_size) == (11, b"GET / next", 10)


def test_many_small_chunks_are_taken_in_turns() -> None:
    one = exchange(CHUNKED)
    parts = one.receive(b"1\r\nx\r\n" * 100 + b"0\r\n\r\nrest")
    assert len(parts) < 100
    assert one.unparsed
    for _ in range(10):
        parts += one.receive(b"")
    assert (len(parts), one.unparsed) == (100, False)
    assert (one.body_complete, one.rest) == (True, b"rest")


@pytest.mark.parametrize(
    ("headers", "version", "status"),
    [
        (("Content-Length: 5", CHUNKED), "1.1", 400),
        ((CHUNKED, "Content-Length: 5"), "1.1", 400),
        (("Content-Length: 5", "Content-Length: 6"), "1.1", 400),
        (("Content-Length: 5, 6",), "1.1", 400),
        (("Content-Length: -5",), "1.1", 400),
        (("Content-Length: +5",), "1.1", 400),
        (("Content-Length: 0x5",), "1.1", 400),
        (("Content-Length: " + "9" * 5000,), "1.1", 400),
        (("Transfer-Encoding: gzip, chunked",), "1.1", 501),
        (("Transfer-Encoding: identity",), "1.1", 501),
        ((CHUNKED, CHUNKED), "1.1", 501),
        ((CHUNKED,), "1.0", 400),
        ((), "2.0", 505),
        ((), "0.9", 505),
    ],
)
def test_a_framing_that_could_be_read_in_two_ways_is_refused(
    headers: tuple[str, ...], version: str, status: int
) -> None:
    with pytest.raises(HeadError) as caught:
        exchange(*headers, version=version)
    assert caught.value.status == status


def test_a_length_that_is_given_twice_alike() -> None:
    assert exchange("Content-Length: 5", "Content-Length: 5").content_length == 5


@pytest.mark.parametrize("cut", [1, 1000])
@pytest.mark.parametrize(
    "wire",
    [
        b"5\nhello\n0\n\n",
        b"x\r\n",
        b"-1\r\n",
        b"5\r\nhello!\r\n",
        b"0\r\n\n",
        b"0\r\nTrailer: x\n\n",
        b"0\r\nTrailer: x\n\r\n",
        b"0\r\nTrailer: x\r\n\n",
        b"5;" + b"x" * 70_000 + b"\r\n",
        b"0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    ],
)
def test_chunks_that_could_be_read_in_two_ways_are_refused(wire: bytes, cut: int) -> None:
    one = exchange(CHUNKED)
    wire = wire if len(wire) < 1000 else wire[:20_000]
    with pytest.raises(HeadError) as caught:
        for pos in range(0, len(wire) + 40_000, cut):
            one.receive((wire + b"GET / HTTP/1.1\r\n" * 2500)[pos : pos + cut])
    assert caught.value.status in (400, 431)


def test_a_body_that_is_too_large() -> None:
    assert exchange("Content-Length: 10", max_body_size=10).content_length == 10
    with pytest.raises(HeadError) as caught:
        exchange("Content-Length: 11", max_body_size=10)
    assert caught.value.status == 413
    one = exchange(CHUNKED, max_body_size=10)
    assert one.receive(b"a\r\n0123456789\r\n") == [b"0123456789"]
    with pytest.raises(HeadError) as caught:
        one.receive(b"1\r\n0\r\n")
    assert caught.value.status == 413


def test_a_client_that_waits_for_a_word() -> None:
    one = exchange("Expect: 100-continue", "Content-Length: 5")
    assert one.wants_continue
    assert one.go_on() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not one.wants_continue
    assert one.receive(b"hello") == [b"hello"]
    assert b"\r\nConnection: close" not in answer(one)
    assert one.reusable


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        (("Content-Length: 0",), "1.1"),
        (("Content-Length: 5",), "1.0"),
    ],
)
def test_a_client_that_does_not_wait(headers: tuple[str, ...], version: str) -> None:
    assert not exchange("Expect: 100-continue", *headers, version=version).wants_continue


def test_a_client_that_has_not_waited() -> None:
    one = exchange("Expect: 100-continue", "Content-Length: 5")
    one.receive(b"h")
    assert not one.wants_continue


def test_a_client_that_got_an_answer_in_place_of_the_word() -> None:
    one = exchange("Expect: 100-continue", "Content-Length: 5")
    assert b"\r\nConnection: close\r\n" in answer(one, status="403 Forbidden")
    assert not one.wants_continue
    assert not one.reusable


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (("Upgrade: websocket", "Connection: Upgrade"), True),
        (("Upgrade: h2c, WebSocket", "Connection: keep-alive, upgrade"), True),
        (("Upgrade: websocket",), False),
        (("Connection: Upgrade",), False),
        (("Upgrade: h2c", "Connection: Upgrade"), False),
        ((), False),
    ],
)
def test_what_is_an_upgrade(headers: tuple[str, ...], expected: bool) -> None:
    assert is_upgrade(parse_request(head(*headers, method="GET"))) is expected


def test_another_upgrade_is_ignored() -> None:
    one = exchange("Upgrade: h2c", "Connection: Upgrade", method="GET")
    assert one.body_complete
    one.receive(b"GET / next")
    assert answer(one, b"hello").startswith(b"HTTP/1.1 200 OK\r\n")
    assert one.reusable
    assert one.rest == b"GET / next"


# -- The response ----------------------------------------------------------


def test_a_response_with_a_length() -> None:
    one = exchange(method="GET")
    fields = [("Content-Type", "text/plain"), ("Content-Length", "5"), ("X-Name", " \t\xe9 ")]
    line, headers, body = split(answer(one, b"he", b"", b"llo", status="299 Fine", headers=fields))
    assert line == b"HTTP/1.1 299 Fine"
    assert body == b"hello"
    assert headers.pop(b"date").endswith(b" GMT")
    assert headers == {
        b"content-type": b"text/plain",
        b"content-length": b"5",
        b"x-name": b"\xe9",
        b"server": b"syncws",
    }
    assert (one.sent, one.excess, one.reusable) == (5, 0, True)


def test_the_applications_date_and_server_stay() -> None:
    fields = [("date", "now"), ("SERVER", "mine")]
    response = answer(exchange(method="GET"), headers=fields)
    assert response.lower().count(b"\r\ndate: ") == response.lower().count(b"\r\nserver: ") == 1


def test_a_response_without_a_length_is_chunked() -> None:
    one = exchange(method="GET")
    _, headers, body = split(answer(one, b"hello", b" world"))
    assert headers[b"transfer-encoding"] == b"chunked"
    assert body == b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    assert one.reusable


def test_for_http_1_0_a_response_ends_with_the_connection() -> None:
    one = exchange(method="GET", version="1.0")
    _, headers, body = split(answer(one, b"hello"))
    assert headers[b"connection"] == b"close"
    assert b"transfer-encoding" not in headers
    assert body == b"hello"
    assert not one.reusable


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [
        ("HEAD", "200 OK", b"5"),
        ("GET", "304 Not Modified", b"5"),
        ("GET", "204 No Content", None),
    ],
)
def test_a_response_that_has_no_body(method: str, status: str, length: bytes | None) -> None:
    one = exchange(method=method)
    _, headers, body = split(
        answer(one, b"hello", status=status, headers=[("Content-Length", "5")])
    )
    assert body == b""
    assert headers.get(b"content-length") == length
    assert b"transfer-encoding" not in headers
    assert (one.sent, one.reusable) == (0, True)


def test_what_is_longer_than_its_length_is_left_out() -> None:
    one = exchange(method="GET")
    one.start("200 OK", [("Content-Length", "5")], last=False)
    assert one.data(b"hel") == [b"hel"]
    assert one.data(b"lo world") == [b"lo"]
    assert one.data(b"!") == []
    assert (one.sent, one.excess) == (5, 7)
    assert one.end() == b""


def test_what_is_shorter_than_its_length_does_not_end() -> None:
    one = exchange(method="GET")
    one.start("200 OK", [("Content-Length", "5")], last=False)
    one.data(b"hell")
    with pytest.raises(ResponseError, match="1 bytes short"):
        one.end()
    assert not one.reusable


@pytest.mark.parametrize("last", [True, False])
def test_the_last_response_says_so(last: bool) -> None:
    one = exchange(method="GET")
    assert (b"Connection: close\r\n" in one.start("200 OK", [], last=last)) is last
    one.end()
    assert one.reusable is not last


def test_a_client_that_closes() -> None:
    one = exchange("Connection: close", method="GET")
    assert answer(one).lower().count(b"connection: close\r\n") == 1
    one.receive(b"more")
    assert not one.reusable


def test_a_response_before_the_body_has_come_is_the_last() -> None:
    one = exchange("Content-Length: 5")
    one.receive(b"hell")
    assert b"\r\nConnection: close\r\n" in answer(one)
    assert not one.reusable


@pytest.mark.parametrize(
    ("status", "headers", "error", "text"),
    [
        ("200", [], ResponseError, "is no status"),
        ("20 OK", [], ResponseError, "is no status"),
        ("600 Odd", [], ResponseError, "is no status"),
        ("101 Switching", [], ResponseError, "is no status"),
        ("100 Continue", [], ResponseError, "is no status"),
        ("200 OK\r\nX: y", [], ValueError, "line break"),
        (200, [], TypeError, "must be a str"),
        ("200 OK", [("X", "a\r\nY: b")], ValueError, "line break"),
        ("200 OK", [("X", "a\nb")], ValueError, "line break"),
        ("200 OK", [("X Y", "a")], ValueError, "no header name"),
        ("200 OK", [("X", "\u20ac")], ValueError, "latin-1"),
        ("200 OK", [("X", b"a")], TypeError, "must be a str"),
        ("200 OK", [("Connection", "close")], ResponseError, "server's to set"),
        ("200 OK", [("Transfer-encoding", "chunked")], ResponseError, "server's to set"),
        ("200 OK", [("upgrade", "h2c")], ResponseError, "server's to set"),
        ("200 OK", [("Content-Length", "five")], ResponseError, "Content-Length"),
        ("200 OK", [("Content-Length", "5"), ("Content-Length", "6")], ResponseError, "Content"),
        ("200 OK", [("Content-Length", "9" * 5000)], ResponseError, "Content-Length"),
    ],
)
def test_a_wrong_response_is_refused_and_another_can_be_sent(
    status: Any, headers: Any, error: type[Exception], text: str
) -> None:
    one = exchange(method="GET")
    with pytest.raises(error, match=text):
        one.start(status, headers, last=False)
    assert not one.started
    assert answer(one, b"x", status="500 Oops").startswith(b"HTTP/1.1 500 Oops\r\n")


def test_another_parser_reads_the_same() -> None:
    one = exchange(method="GET")
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/path", headers=[("Host", "localhost")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer(one, b"a" * 70_000, memoryview(b"bcd")[1:]))  # type: ignore[arg-type]
    body = b""
    assert isinstance(client.next_event(), h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == b"a" * 70_000 + b"cd"
