"""WSGI environments read as requests."""

from __future__ import annotations

from typing import Any

import pytest

from syncws.integrations.environ import is_test_client, request_of
from syncws.protocol.http import HeadError

PEER = ("127.0.0.1", 4321)


def environ(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/chat",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "4321",
        "HTTP_HOST": "example.com",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "CONTENT_LENGTH": "",
        "CONTENT_TYPE": "",
        "wsgi.url_scheme": "http",
    }
    made.update(changes)
    return {name: value for name, value in made.items() if value is not None}


def test_all_of_it() -> None:
    request = request_of(
        environ(RAW_URI="/a%20b?c=%20d", HTTP_X_MANY="1,2", HTTP_COOKIE="k=v"), PEER
    )
    assert request.method == "GET"
    assert (request.target, request.raw_path, request.path) == ("/a%20b?c=%20d", "/a%20b", "/a b")
    assert request.query["c"] == " d"
    assert request.http_version == "1.1"
    assert request.headers["Host"] == "example.com"
    assert request.headers["Sec-WebSocket-Key"] == "dGhlIHNhbXBsZSBub25jZQ=="
    assert request.headers["X-Many"] == "1,2"
    assert request.cookies == {"k": "v"}
    assert "Content-Length" not in request.headers
    assert request.remote_address == PEER
    assert not request.is_secure


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"RAW_URI": "/raw", "REQUEST_URI": "/request"}, "/raw"),
        ({"REQUEST_URI": "/request%2f?a"}, "/request%2f?a"),
        ({}, "/chat"),
        ({"QUERY_STRING": "a=b&c"}, "/chat?a=b&c"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/a b?c#d%"}, "/app/a%20b%3Fc%23d%25"),
        ({"PATH_INFO": "/é".encode().decode("latin-1")}, "/%C3%A9"),
        ({"PATH_INFO": ""}, "/"),
        ({"SCRIPT_NAME": None, "PATH_INFO": None, "QUERY_STRING": None}, "/"),
    ],
)
def test_the_target(changes: dict[str, Any], target: str) -> None:
    assert request_of(environ(**changes)).target == target


def test_an_absolute_target() -> None:
    request = request_of(environ(RAW_URI="http://example.com/chat?a"))
    assert (request.raw_path, request.query_string) == ("/chat", "a")


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_security_is_what_the_server_says(scheme: str, secure: bool) -> None:
    assert request_of(environ(**{"wsgi.url_scheme": scheme})).is_secure is secure


@pytest.mark.parametrize(
    ("changes", "peer", "remote"),
    [
        ({}, PEER, PEER),
        ({"REMOTE_PORT": None}, PEER, PEER),
        # A proxy's header, taken by middleware that leaves the port as it was.
        ({"REMOTE_ADDR": "192.0.2.7"}, PEER, ("192.0.2.7", 0)),
        # A proxy's protocol, read by the server: both are the client's.
        ({"REMOTE_ADDR": "192.0.2.7", "REMOTE_PORT": "99"}, PEER, ("192.0.2.7", 99)),
        ({"REMOTE_ADDR": "2001:db8::1", "REMOTE_PORT": "x"}, PEER, ("2001:db8::1", 0)),
        ({"REMOTE_ADDR": "fe80::1%eth0"}, PEER, ("fe80::1%eth0", 0)),
        ({"REMOTE_ADDR": "unknown"}, PEER, PEER),
        ({"REMOTE_ADDR": "192.0.2.7:80"}, PEER, PEER),
        ({"REMOTE_ADDR": None}, PEER, PEER),
        ({"REMOTE_ADDR": "", "REMOTE_PORT": None}, "", ""),
        ({"REMOTE_ADDR": "192.0.2.7", "REMOTE_PORT": None}, "/run/x.sock", ("192.0.2.7", 0)),
    ],
)
def test_the_client_s_address(changes: dict[str, Any], peer: Any, remote: Any) -> None:
    assert request_of(environ(**changes), peer).remote_address == remote


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"SERVER_PROTOCOL": "HTTP/2"}, "not HTTP/2"),
        ({"SERVER_PROTOCOL": None}, "not HTTP/"),
        ({"HTTP_X_A": "b\r\nX-C: d"}, "control character"),
        ({"HTTP_X_A": "b\0"}, "control character"),
        ({"RAW_URI": "/a\nb"}, "control character"),
        ({"HTTP_X_A": "\u20ac"}, "latin-1"),
        ({"RAW_URI": "/a b"}, "not valid HTTP"),
        ({"RAW_URI": "chat"}, "neither a path nor an http URL"),
        ({"HTTP_HOST": None}, "not valid HTTP"),
    ],
)
def test_what_is_no_request(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(HeadError, match=text) as caught:
        request_of(environ(**changes))
    assert caught.value.status == 400


def test_what_tells_of_a_body_is_kept() -> None:
    request = request_of(environ(CONTENT_LENGTH="5", CONTENT_TYPE="text/plain"))
    assert request.headers["Content-Length"] == "5"
    assert request.headers["Content-Type"] == "text/plain"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"SERVER_SOFTWARE": "gunicorn/23.0.0"}, False),
        ({"uwsgi.version": b"2.0.28"}, False),  # which has no SERVER_SOFTWARE
    ],
)
def test_a_server_is_no_test_client(changes: dict[str, Any], expected: bool) -> None:
    assert is_test_client(environ(**changes)) is expected
