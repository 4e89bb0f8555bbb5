"""HTTP heads, and the request that comes of one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from syncws.protocol.headers import Headers
from syncws.protocol.http import HeadError, HeadReader, Query, Request, parse_request
from tests.handshakes import CUTS, FIELDS, head, pieces

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
    assert (parsed.target, parsed.raw_path, parsed.query_string) == (target, path, query_string)


def test_a_request_is_parsed() -> None:
    fields = [*FIELDS, ("X-Name", "caf\xe9"), ("x-name", "2")]
    parsed = parse_request(head("POST /a?x=1&x=%20&y= HTTP/1.0", fields))
    assert (parsed.method, parsed.http_version) == ("POST", "1.0")
    assert parsed.headers.raw == tuple(fields)
    assert parsed.query.raw == (("x", "1"), ("x", " "), ("y", ""))
    assert hash(parsed) == hash(dataclasses.replace(parsed))


def request(target: str = "/", *fields: tuple[str, str]) -> Request:
    return parse_request(head(f"GET {target} HTTP/1.1", [*FIELDS, *fields]))


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/chat", "/chat"),
        ("/a%20b", "/a b"),
        ("/%C3%A4/", "/\xe4/"),
        ("/a%2Fb", "/a/b"),
        ("/a+b", "/a+b"),
        ("/%25", "/%"),
        ("/%FF", "/\ufffd"),
        ("/%zz", "/%zz"),
    ],
)
def test_the_path_is_decoded_and_the_raw_one_is_not(raw: str, path: str) -> None:
    parsed = request(f"{raw}?x=%20")
    assert (parsed.raw_path, parsed.path, parsed.target) == (raw, path, f"{raw}?x=%20")


def test_where_a_request_came_from() -> None:
    assert (request().remote_address, request().is_secure) == ("", False)
    assert request().peer_certificate is None
    parsed = parse_request(head(), remote_address=("192.0.2.1", 4321), is_secure=True)
    assert (parsed.remote_address, parsed.is_secure) == (("192.0.2.1", 4321), True)


def test_the_cookies_of_a_request() -> None:
    assert request("/", ("Cookie", "a=1; b=2"), ("Cookie", "a=3")).cookies == {"a": "1", "b": "2"}
    assert request().cookies == {}


def test_a_request_is_frozen_and_its_path_parameters_are_its_own() -> None:
    one, other = request(), request()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.method = "POST"  # type: ignore[misc]
    assert one == other
    assert one.path_params == {}
    one.path_params["name"] = "x"
    assert other.path_params == {}
    assert one != other
    assert hash(one) == hash(other)


# -- Query -----------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "pairs"),
    [
        ("", []),
        ("a=1", [("a", "1")]),
        ("a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        ("a", [("a", "")]),
        ("a=&b", [("a", ""), ("b", "")]),
        ("a=b=c", [("a", "b=c")]),
        ("a+b=c+d", [("a b", "c d")]),
        ("%61=%C3%A4&x=%26", [("a", "\xe4"), ("x", "&")]),
        ("a=%FF", [("a", "\ufffd")]),
        ("a=1;b=2", [("a", "1;b=2")]),
        ("&&a=1&", [("a", "1")]),
        ("a=?&b=/", [("a", "?"), ("b", "/")]),
    ],
)
def test_a_query_is_decoded(query: str, pairs: list[tuple[str, str]]) -> None:
    assert request(f"/?{query}").query.raw == tuple(pairs)


def test_a_name_that_comes_several_times() -> None:
    query = request("/?a=1&b=2&a=3").query
    assert query["a"] == query.get("a") == "1"
    assert query.get_all("a") == ["1", "3"]
    assert list(query) == ["a", "b"]
    assert len(query) == 2
    assert dict(query) == {"a": "1", "b": "2"}
    query.get_all("a").append("x")
    assert query.get_all("a") == ["1", "3"]


def test_a_name_that_is_not_there() -> None:
    query = Query([("age", "30")])
    assert "age" in query
    for name in ("Age", "name", "", None, 3):
        assert name not in query
    assert query.get("name") is None
    assert query.get("name", "x") == "x"
    assert query.get_all("name") == []
    with pytest.raises(KeyError, match="name"):
        query["name"]


def test_a_query_cannot_be_changed() -> None:
    query = Query([("a", "1")])
    with pytest.raises(TypeError):
        query["a"] = "2"  # type: ignore[index]
    with pytest.raises(AttributeError):
        query.x = 1  # type: ignore[attr-defined]


def test_queries_compare_by_all_values() -> None:
    query = Query([("a", "1"), ("b", "2"), ("a", "3")])
    same = Query([("b", "2"), ("a", "1"), ("a", "3")])
    assert query == same
    assert hash(query) == hash(same)
    assert query != Query([("a", "1"), ("b", "2")])
    assert query != Query([("a", "3"), ("b", "2"), ("a", "1")])
    assert query != {"a": "1", "b": "2"}
    assert Query([("a", "1")]) == {"a": "1"}
    assert Query() == {}
    assert query != "a=1"


def test_a_query_shows_its_pairs() -> None:
    assert repr(Query([("a", "1"), ("a", "2")])) == "Query([('a', '1'), ('a', '2')])"


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


@pytest.mark.parametrize(
    "target", ["http://[/x", "http://[zz]/", "http://@/", "http://a@b/", "http://a:b/", "http:///x"]
)
def test_a_full_url_without_a_host_that_can_be_is_refused(target: str) -> None:
    with pytest.raises(HeadError) as caught:
        parse_request(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert caught.value.status == 400


@pytest.mark.parametrize("host", ["a", "a.example:80", "[::1]", "[::1]:80", "a:", "1.2.3.4"])
def test_a_full_url_has_its_path(host: str) -> None:
    request = parse_request(f"GET http://{host}/x?y HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (request.raw_path, request.query_string) == ("/x", "y")


# -- The host --------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "hosts", "told", "host"),
    [
        ("/", ["a.example:81"], "", "a.example:81"),
        ("/", [], "", ""),
        ("/", ["a.example", "b.example"], "", ""),
        ("/", ["a.example"], "b.example", "b.example"),
        ("http://c.example:82/x?y", ["a.example"], "", "c.example:82"),
        ("http://c.example", ["a.example"], "", "c.example"),
        ("http://c.example/", ["a.example"], "b.example", "b.example"),
    ],
)
def test_the_host_that_was_asked_for(target: str, hosts: list[str], told: str, host: str) -> None:
    fields = [("Host", name) for name in hosts]
    request = Request("GET", target, "/", "", Headers(fields), forwarded_host=told)
    assert request.host == host


def test_who_has_sent_it_is_at_first_who_it_is_from() -> None:
    request = parse_request(head(), remote_address=("192.0.2.1", 7))
    assert request.peer_address == request.remote_address == ("192.0.2.1", 7)
