"""Basic authentication: a user and a password in a header."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from syncws.protocol.basic import basic_authorization, check_credentials, credentials_of
from syncws.protocol.headers import Headers


def encoded(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return base64.b64encode(data).decode()


def request(*values: str) -> Headers:
    return Headers([("Host", "x"), *(("authorization", value) for value in values)])


def test_the_examples_of_the_rfc() -> None:
    assert basic_authorization("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert basic_authorization("test", "123\u00a3") == "Basic dGVzdDoxMjPCow=="


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("ann", "secret"),
        ("ann", ""),
        ("", "secret"),
        ("", ""),
        ("ann", "se:cr:et"),
        ("ann", ":"),
        ("j\u00fcrgen", "gr\u00fc\u00dfe \U0001f600"),
        ("a b", " c "),
    ],
)
def test_what_is_sent_is_what_comes(user: str, password: str) -> None:
    assert check_credentials(user, password) == (user, password)
    assert credentials_of(request(basic_authorization(user, password))) == (user, password)


@pytest.mark.parametrize("scheme", ["Basic ", "basic ", "BASIC ", "Basic   "])
def test_ways_to_write_it(scheme: str) -> None:
    assert credentials_of(request(scheme + encoded("ann:secret"))) == ("ann", "secret")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic",
        "Basic ",
        "Basic\t" + encoded("ann:secret"),
        encoded("ann:secret"),
        "Bearer " + encoded("ann:secret"),
        "Basic " + encoded("ann"),
        "Basic " + encoded("ann:secret")[:-1],
        "Basic " + encoded("ann:secret") + "!",
        "Basic " + encoded("ann:secret") + ", Basic " + encoded("bob:secret"),
        "Basic =" + encoded("ann:secret"),
        "Basic ann:secret",
        "Basic \xe9\xe9\xe9\xe9",
        "Basic " + encoded(b"ann:\xff"),
        "Basic " + encoded("j\u00fcrgen:x".encode("latin-1")),
        "Basic " + encoded(b"ann:\xed\xa0\x80"),
        *("Basic " + encoded(f"ann{chr(n)}:secret") for n in (0, 9, 10, 13, 31, 127)),
        *("Basic " + encoded(f"ann:secret{chr(n)}") for n in (0, 9, 10, 13, 31, 127)),
    ],
)
def test_what_counts_as_nothing(value: str) -> None:
    assert credentials_of(request(value)) is None


def test_one_header_only() -> None:
    right = basic_authorization("ann", "secret")
    assert credentials_of(request()) is None
    assert credentials_of(request(right, right)) is None
    assert credentials_of(request(right, "Bearer x")) is None
    assert credentials_of(request("Bearer x", right)) is None


@pytest.mark.parametrize(
    ("user", "password", "error"),
    [
        (None, "secret", TypeError),
        ("z0e", None, TypeError),
        (b"z0e", "secret", TypeError),
        ("z0e", b"secret", TypeError),
        ("z0e:x", "secret", ValueError),
        ("z0e", "secret\ud800", ValueError),
        *((f"z0e{chr(n)}", "secret", ValueError) for n in (0, 9, 10, 13, 31, 127)),
        *(("z0e", f"secret{chr(n)}", ValueError) for n in (0, 9, 10, 13, 31, 127)),
    ],
)
def test_what_cannot_be_sent(user: Any, password: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        check_credentials(user, password)
    assert "secret" not in str(caught.value)
    assert "z0e" not in str(caught.value)
    assert type(caught.value) is error  # a UnicodeEncodeError would have it all
