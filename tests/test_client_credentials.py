"""What a client says of itself in its request."""

from __future__ import annotations

from typing import Any

import pytest

import syncws
from syncws.client.credentials import request_headers
from tests.support import RawServer

URL = "ws://localhost/"
RIGHT = ("Authorization", "Basic YW5uOnNlY3JldA==")


def test_nothing_is_added_unasked() -> None:
    assert request_headers({"X": "1"}, None, ["ws://ann:secret@localhost/"]) == (("X", "1"),)
    assert request_headers(None, None, [URL]) == ()


@pytest.mark.parametrize("auth", [("ann", "secret"), ["ann", "secret"]])
def test_a_user_becomes_a_header(auth: Any) -> None:
    assert request_headers({"X": "1"}, auth, [URL]) == (("X", "1"), RIGHT)


@pytest.mark.parametrize(
    ("auth", "error", "text"),
    [
        ("ann:secret", TypeError, "a pair"),
        (("ann",), TypeError, "a pair"),
        (("ann", "secret", ""), TypeError, "a pair"),
        ({"ann": "secret"}, TypeError, "a pair"),
        (("ann", None), TypeError, "a str"),
        (("ann", b"secret"), TypeError, "a str"),
        (("a:nn", "secret"), ValueError, "colon"),
        (("ann", "secret\r\nX: 1"), ValueError, "line break"),
        (("ann\0", "secret"), ValueError, "control"),
    ],
)
def test_wrong_users(auth: Any, error: type[Exception], text: str) -> None:
    with RawServer() as server:
        for make in (syncws.Client, lambda url, **o: syncws.FailoverClient([url], **o)):
            with pytest.raises(error, match=text) as caught:
                make(server.url, auth=auth)
            assert "secret" not in str(caught.value)
        server.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.sock.accept()  # and nobody has connected


def test_one_user_only() -> None:
    for name in ("Authorization", "AUTHORIZATION"):
        with pytest.raises(ValueError, match="among the headers: give one only"):
            request_headers({name: "Bearer x"}, ("ann", "secret"), [URL])
    with pytest.raises(ValueError, match="in the URL: give one only") as caught:
        request_headers(None, ("ann", "secret"), [URL, "ws://bob:hidden@localhost/"])
    assert "hidden" not in str(caught.value)


def test_a_config_does_not_show_it() -> None:
    config = syncws.ClientConfig(headers=request_headers(None, ("ann", "secret"), [URL]))
    assert RIGHT in config.headers
    assert RIGHT[1] not in repr(config)
