"""Set-Cookie headers: what can be set, and that nothing else gets in."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest

from syncws.protocol.cookies import parse_cookies
from syncws.protocol.headers import Headers
from syncws.server.set_cookie import set_cookie_header

UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({}, "a=1; Path=/"),
        ({"path": "/x/y"}, "a=1; Path=/x/y"),
        ({"path": None}, "a=1"),
        ({"path": None, "domain": "example.com"}, "a=1; Domain=example.com"),
        ({"path": None, "max_age": 60}, "a=1; Max-Age=60"),
        ({"path": None, "max_age": 0}, "a=1; Max-Age=0"),
        ({"path": None, "max_age": -1}, "a=1; Max-Age=-1"),
        ({"path": None, "max_age": 1.9}, "a=1; Max-Age=1"),
        ({"path": None, "secure": True}, "a=1; Secure"),
        ({"path": None, "httponly": True}, "a=1; HttpOnly"),
        ({"path": None, "samesite": "Strict"}, "a=1; SameSite=Strict"),
        ({"path": None, "samesite": "lax"}, "a=1; SameSite=Lax"),
        ({"path": None, "samesite": "None", "secure": True}, "a=1; SameSite=None; Secure"),
        (
            {"path": None, "expires": datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)},
            "a=1; expires=Wed, 02 Jan 2030 03:04:05 GMT",
        ),
        (
            {
                "path": None,
                "expires": datetime.datetime(
                    2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=2))
                ),
            },
            "a=1; expires=Wed, 02 Jan 2030 01:04:05 GMT",
        ),
    ],
)
def test_what_can_be_set(options: dict[str, Any], header: str) -> None:
    assert set_cookie_header("a", "1", **options) == header


@pytest.mark.parametrize(
    "value", ["", "1", "a=b", "%20", "!#$%&'()*+-./:<=>?@[]^_`{|}~", "x" * 4000]
)
def test_a_value_comes_back_as_it_is(value: str) -> None:
    sent = set_cookie_header("name", value).partition("; ")[0]
    assert parse_cookies(Headers([("Cookie", sent)])) == {"name": value}


FORGED = ["\r\nX: y", "\n", "\r", "\0", "\x1f", "\x7f", ";", "; Secure", "\xe9", "\u20ac"]


@pytest.mark.parametrize("bad", [*FORGED, " ", "\t", ",", '"', "\\", "a b"])
def test_a_value_cannot_be_forged(bad: str) -> None:
    for value in (bad, f"x{bad}", f"{bad}x"):
        with pytest.raises(ValueError, match="percent-encode it"):
            set_cookie_header("a", value)


@pytest.mark.parametrize("bad", [*FORGED, "=", "", " ", "a b", ",", '"', "path", "Secure"])
def test_a_name_cannot_be_forged(bad: str) -> None:
    with pytest.raises(ValueError, match="is no name of a cookie"):
        set_cookie_header(bad, "1")
    if bad in FORGED:
        with pytest.raises(ValueError, match="is no name of a cookie"):
            set_cookie_header(f"a{bad}", "1")


@pytest.mark.parametrize("option", ["path", "domain", "samesite"])
@pytest.mark.parametrize("bad", FORGED)
def test_attributes_cannot_be_forged(option: str, bad: str) -> None:
    for value in (bad, f"/{bad}", f"/x{bad}", f"x{bad}", f"Lax{bad}"):
        with pytest.raises(ValueError, match=option):
            set_cookie_header("a", "1", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((b"a", "1"), {}, TypeError, "name is a str, not b'a'"),
        (("a", 1), {}, TypeError, "value is a str, not 1"),
        (("a", "1"), {"path": 1}, TypeError, "path is a str"),
        (("a", "1"), {"path": ""}, ValueError, "an absolute path"),
        (("a", "1"), {"path": "x"}, ValueError, "an absolute path"),
        (("a", "1"), {"domain": ""}, ValueError, "a host name"),
        (("a", "1"), {"max_age": "60"}, TypeError, "max_age must be a number"),
        (("a", "1"), {"max_age": True}, TypeError, "max_age must be a number"),
        (("a", "1"), {"max_age": float("nan")}, ValueError, "finite"),
        (("a", "1"), {"max_age": float("inf")}, ValueError, "finite"),
        (("a", "1"), {"expires": 60}, TypeError, "expires must be a datetime"),
        (("a", "1"), {"expires": "Wed, 02 Jan 2030"}, TypeError, "expires must be a datetime"),
        (("a", "1"), {"expires": datetime.datetime(2030, 1, 1)}, ValueError, "no time zone"),
        (("a", "1"), {"samesite": True}, TypeError, "samesite must be a str"),
        (("a", "1"), {"samesite": "Loose"}, ValueError, "'Strict', 'Lax' or 'None'"),
        (("a", "1"), {"samesite": "None"}, ValueError, "with secure=True only"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)):
        set_cookie_header(*arguments, **options)
