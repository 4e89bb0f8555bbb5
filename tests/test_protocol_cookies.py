"""The cookies of a request."""

from __future__ import annotations

import pytest

from syncws.protocol.cookies import parse_cookies
from syncws.protocol.headers import Headers


def cookies(*headers: str) -> dict[str, str]:
    return parse_cookies(Headers(("Cookie", header) for header in headers))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("a=1", {"a": "1"}),
        ("a=1; b=2; c=3", {"a": "1", "b": "2", "c": "3"}),
        ("a=", {"a": ""}),
        ("a=1;b=2", {"a": "1", "b": "2"}),
        (" a = 1 ;\tb\t=\t2\t", {"a": "1", "b": "2"}),
        ("a=b=c==", {"a": "b=c=="}),
        ("a=1; A=2", {"a": "1", "A": "2"}),
        ("a=x y,z", {"a": "x y,z"}),
        ("a=%20", {"a": "%20"}),
        ("a=caf\xe9", {"a": "caf\xe9"}),
        ("$Version=1; a=1; $Path=/", {"$Version": "1", "a": "1", "$Path": "/"}),
    ],
)
def test_cookies(header: str, found: dict[str, str]) -> None:
    assert cookies(header) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ('"x"', "x"),
        ('""', ""),
        ('"', '"'),
        ('"x', '"x'),
        ('x"', 'x"'),
        ('"x"y', '"x"y'),
        ('""x""', '"x"'),
        (r'"\054"', r"\054"),
    ],
)
def test_quotes_around_a_value(value: str, found: str) -> None:
    assert cookies(f"a={value}; b=2") == {"a": found, "b": "2"}


@pytest.mark.parametrize("header", ["", ";", "; ;", "a", "=1", "=", " =x; a", ";;a;;"])
def test_what_is_no_cookie_is_skipped(header: str) -> None:
    assert cookies(header) == {}
    assert cookies(f"x=1; {header}; y=2") == {"x": "1", "y": "2"}


def test_the_first_of_a_repeated_name_wins() -> None:
    assert cookies("a=1; a=2") == {"a": "1"}
    assert cookies("a=; a=2") == {"a": ""}
    assert cookies("a=1", "a=2; b=3") == {"a": "1", "b": "3"}


def test_no_cookie() -> None:
    assert parse_cookies(Headers()) == {}
    assert parse_cookies(Headers([("Set-Cookie", "a=1")])) == {}


def test_the_name_of_the_header_is_case_insensitive() -> None:
    assert parse_cookies(Headers([("cookie", "a=1"), ("COOKIE", "b=2")])) == {"a": "1", "b": "2"}
