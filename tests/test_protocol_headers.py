from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from syncws.protocol.headers import Headers, check_header, normalize_extra_headers

PAIRS = (("Host", "example.com"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("X-Empty", ""))


def test_lookup_ignores_case_and_joins_values() -> None:
    headers = Headers(PAIRS)
    assert headers["hOST"] == "example.com"
    assert headers["SET-COOKIE"] == "a=1, b=2"
    assert headers.get_all("Set-cookie") == ["a=1", "b=2"]
    assert headers.get_all("absent") == []
    assert headers.get("absent") is None
    with pytest.raises(KeyError, match="Absent"):
        headers["Absent"]


def test_iteration_gives_each_name_once_in_order() -> None:
    headers = Headers(iter(PAIRS))
    assert list(headers) == ["Host", "Set-Cookie", "X-Empty"]
    assert dict(headers.items())["Set-Cookie"] == "a=1, b=2"
    assert len(headers) == 3
    assert headers.raw == PAIRS
    assert isinstance(headers, Mapping)


@pytest.mark.parametrize(
    ("name", "expected"), [("host", True), ("HOST", True), ("x", False), (1, False)]
)
def test_contains(name: object, expected: bool) -> None:
    assert (name in Headers(PAIRS)) is expected


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (Headers([("hoST", "a"), ("X", "1, 2")]), True),
        ({"HOST": "a", "x": "1, 2"}, True),
        ({"Host": "a"}, False),
        (Headers([("Host", "A"), ("X", "1, 2")]), False),
        ([("Host", "a")], False),
    ],
)
def test_equality_ignores_the_case_of_names(other: object, equal: bool) -> None:
    headers = Headers([("Host", "a"), ("X", "1"), ("x", "2")])
    assert (headers == other) is equal
    if isinstance(other, Headers):
        assert (hash(headers) == hash(other)) is equal


def test_it_cannot_be_changed() -> None:
    headers: Any = Headers(PAIRS)
    headers.get_all("Host").append("x")
    assert headers["Host"] == "example.com"
    with pytest.raises(AttributeError):
        headers.raw = ()
    with pytest.raises(AttributeError):
        headers.other = 1
    with pytest.raises(TypeError):
        headers["Host"] = "x"


def test_repr() -> None:
    assert repr(Headers([("A", "b")])) == "Headers([('A', 'b')])"
    assert Headers() == {}


@pytest.mark.parametrize(
    "name", ["Authorization", "PROXY-Authorization", "cookie", "Set-Cookie", "authorization"]
)
def test_repr_keeps_secrets(name: str) -> None:
    headers = Headers([(name, "secret"), ("A", "b")])
    assert repr(headers) == f"Headers([('{name}', '***'), ('A', 'b')])"
    assert headers[name] == "secret"


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Room", "blue"), ("!#$%&'*+-.^_`|~09aZ", ""), ("X", "a\tb"), ("X", "caf\xe9 \xa0")],
)
def test_check_header_accepts(name: str, value: str) -> None:
    check_header(name, value)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("", "x", ValueError),
        ("X Y", "x", ValueError),
        ("X:", "x", ValueError),
        ("X\r\nY", "x", ValueError),
        ("X\n", "x", ValueError),
        ("\xe9", "x", ValueError),
        ("X", "a\rb", ValueError),
        ("X", "a\nb", ValueError),
        ("X", "a\n", ValueError),
        ("X", "a\0b", ValueError),
        ("X", "a\x1bb", ValueError),
        ("X", "a\x7fb", ValueError),
        ("X", "\u20ac", ValueError),
        (b"X", "x", TypeError),
        ("X", b"x", TypeError),
        ("X", 5, TypeError),
        ("X", None, TypeError),
    ],
)
def test_check_header_refuses(name: Any, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_header(name, value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ()),
        ({}, ()),
        ({"A": "1", "B": " 2\t"}, (("A", "1"), ("B", "2"))),
        ([("A", "1"), ["A", "2"]], (("A", "1"), ("A", "2"))),
        (iter([("A", "1")]), (("A", "1"),)),
        (Headers([("A", "1"), ("a", "2")]), (("A", "1"), ("a", "2"))),
    ],
)
def test_extra_headers(given: Any, expected: tuple[tuple[str, str], ...]) -> None:
    assert normalize_extra_headers(given, frozenset({"host"})) == expected


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"HOST": "x"}, ValueError, "'HOST' is set by the handshake"),
        ([("A", "1\r\nB: 2")], ValueError, "line break"),
        ("A: 1", TypeError, "mapping or"),
        (b"A: 1", TypeError, "mapping or"),
        (["A: 1"], TypeError, "pair"),
        ([1], TypeError, "pair"),
        ({"A": 1}, TypeError, "must be a str"),
    ],
)
def test_wrong_extra_headers(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        normalize_extra_headers(given, frozenset({"host"}))


@pytest.mark.parametrize(
    "given",
    [
        "Authorization: secret",
        b"Authorization: secret",
        ["Authorization: secret"],
        [("Authorization", "secret", "x")],
        [("Authorization", b"secret")],
        [("Authorization", ("ann", "secret"))],
        [("Authorization", "secret\r\n")],
        [("Authorization", "secret\u20ac")],
    ],
)
def test_errors_do_not_show_what_the_headers_have(given: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        normalize_extra_headers(given, frozenset())
    assert "secret" not in str(caught.value)
