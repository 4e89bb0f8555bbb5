"""A WSGI environment read as the request that it was made of."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from ..endpoint import Address, address_of
from ..protocol.http import HeadError, Request, parse_request

__all__ = ["NO_TEST_CLIENT", "is_test_client", "keepsake", "may_say_upgrade", "request_of"]

#: What is said to those who test a WebSocket by a framework's test client.
NO_TEST_CLIENT = (
    "a test client has no connection that could become a WebSocket: serve the application in a "
    "thread of the test, for example by wsgiref.simple_server or werkzeug.serving.make_server, "
    "and connect to it with syncws.Client"
)

# What leads to a server's connection.
_SERVERS = frozenset({"gunicorn.socket", "werkzeug.request", "werkzeug.socket"})

# Characters of a path that need no quoting. RFC 3986 section 3.3.
_PATH = "/:@!$&'()*+,;=~"

# No server lets these through; but this one's lines are made of what it says.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_FIELDS = {"CONTENT_TYPE": "Content-Type", "CONTENT_LENGTH": "Content-Length"}


def request_of(environ: Mapping[str, Any], peer: Any = "") -> Request:
    """Return the request that the server has made an environment of.

    It is put together as it may have come and parsed as a listener does, so
    what a listener refuses is refused here, too. What servers join remains
    joined: a header that came twice is one with a comma.

    Args:
        environ: The environment.
        peer: What `getpeername` says of the connection.

    Raises:
        HeadError: It is no request that a listener would take.
    """
    version = str(environ.get("SERVER_PROTOCOL", "")).partition("/")[2]
    if version not in ("1.0", "1.1"):
        raise HeadError(400, f"A WebSocket handshake is HTTP/1.1, not HTTP/{version[:10]}.")
    lines = [f"{environ['REQUEST_METHOD']} {_target(environ)} HTTP/{version}"]
    lines += [f"{name}: {value}" for name, value in _headers(environ)]
    for line in lines:
        if _CONTROL.search(line):
            raise HeadError(400, "The request has a control character.")
    try:
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    except UnicodeEncodeError:
        raise HeadError(400, "The request has characters outside of latin-1.") from None
    return parse_request(
        head,
        remote_address=_remote(environ, address_of(peer)),
        is_secure=environ.get("wsgi.url_scheme") == "https",
    )


def _target(environ: Mapping[str, Any]) -> str:
    """Return the request's target.

    Servers that keep it as it came say so in one of two variables, of which
    PEP 3333 knows none. From the others only its meaning can be had.
    """
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw:
        return str(raw)
    path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    query = environ.get("QUERY_STRING")
    target = quote(path.encode("latin-1", "replace"), safe=_PATH) or "/"
    return f"{target}?{query}" if query else target


def _headers(environ: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[5:].replace("_", "-").title(), str(value).strip(" \t")
        elif key in _FIELDS and value not in ("", None):
            yield _FIELDS[key], str(value).strip(" \t")


def _remote(environ: Mapping[str, Any], peer: Address) -> Address:
    """Return the client's address, as the application's other requests have it.

    REMOTE_ADDR comes first: it is what servers and middleware replace with the
    client's address if they are told to trust a proxy, and the connection's
    other end is that proxy then. The port is the client's if both are; of a
    client behind a proxy it is unknown, 0, unless the server has learnt it.
    """
    host = str(environ.get("REMOTE_ADDR", ""))
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return peer  # a Unix-domain socket, or no address
    if isinstance(peer, tuple) and peer[0] == host:
        return peer
    port = 0
    with contextlib.suppress(ValueError):
        port = int(environ.get("REMOTE_PORT", ""))
    if isinstance(peer, tuple) and peer[1] == port:
        port = 0  # the proxy's
    return host, port


def may_say_upgrade(environ: Mapping[str, Any]) -> bool:
    """Whether the server lets a 426 have the header that belongs to it.

    PEP 3333 forbids it. That of wsgiref, which `manage.py runserver` is, asserts so.
    """
    return not str(environ.get("SERVER_SOFTWARE", "")).startswith("WSGIServer")


def is_test_client(environ: Mapping[str, Any]) -> bool:
    """Whether an environment looks as if no server has made it: that of a test client.

    uWSGI says by a name of its own what it is.
    """
    return "SERVER_SOFTWARE" not in environ and "uwsgi.version" not in environ


def keepsake(environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an environment can be kept for as long as a connection lives.

    That of uWSGI is emptied when the request is over, and others hold on to
    what the server needs for its connection.
    """
    kept = {key: value for key, value in environ.items() if key not in _SERVERS}
    kept["wsgi.input"] = io.BytesIO()
    return kept
