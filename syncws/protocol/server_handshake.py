"""The server's side of the opening handshake: a request in, a response out.

RFC 6455 section 4.2. wsproto's own handshake is not used, in either role: it
raises UnicodeError on some Host headers and sets no limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from wsproto.utilities import generate_accept_token

from .headers import check_header, normalize_extra_headers
from .http import AUTHORITY, RESERVED, VERSION, Request, has_token, list_of

__all__ = [
    "Refusal",
    "accept_response",
    "check_origin",
    "check_upgrade",
    "choose_subprotocol",
    "lost_upgrade",
    "refusal_content",
    "refusal_response",
]

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

_QUOTED = 60

# What goes wrong most often.
_NGINX = (
    "nginx needs: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "upgrade";'
)

# 16 bytes in base64.
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.\-]*)://{AUTHORITY}")
_HOST = re.compile(AUTHORITY)
_ORIGIN_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer other than 101.

    Attributes:
        status: The HTTP status.
        text: The body: a sentence for the person who looks at it, or bytes,
            which are sent as they are.
        headers: Headers beside those of every refusal.
    """

    status: int
    text: str | bytes
    headers: tuple[tuple[str, str], ...] = ()


# -- The checks -------------------------------------------------------


def check_upgrade(request: Request) -> Refusal | None:
    """Return why the request is no valid handshake, or None if it is one.

    The reason that helps most comes first. RFC 6455 section 4.2.1.
    """
    for check in _CHECKS:
        refusal = check(request)
        if refusal is not None:
            return refusal
    return None


def _has_tokens(request: Request) -> bool:
    return has_token(request.headers, "Upgrade", "websocket") and has_token(
        request.headers, "Connection", "upgrade"
    )


def _check_tokens(request: Request) -> Refusal | None:
    if _has_tokens(request):
        return None
    if lost_upgrade(request):
        return Refusal(
            426,
            "This WebSocket handshake lacks Upgrade: websocket or Connection: Upgrade, which a "
            f"proxy on the way did not hand on: {_NGINX}",
        )
    return Refusal(426, "This address speaks WebSocket: connect to it with ws://, not http://.")


def lost_upgrade(request: Request) -> bool:
    """Whether this was a handshake before a proxy took it for another request.

    Upgrade and Connection are for one hop; the others are handed on by all.
    """
    return "Sec-WebSocket-Key" in request.headers and not _has_tokens(request)


def _check_body(request: Request) -> Refusal | None:
    # A body that one end sees and the other does not would be read as frames.
    lengths = request.headers.get_all("Content-Length")
    if "Transfer-Encoding" in request.headers or any(length.strip("0") for length in lengths):
        return Refusal(400, "A WebSocket handshake has no body.")
    return None


def _check_method(request: Request) -> Refusal | None:
    if request.method == "GET":
        return None
    return Refusal(
        405, f"A WebSocket handshake is a GET, not a {request.method}.", (("Allow", "GET"),)
    )


def _check_http_version(request: Request) -> Refusal | None:
    if request.http_version == "1.1":
        return None
    text = f"A WebSocket handshake is HTTP/1.1, not HTTP/{request.http_version}."
    if request.http_version == "1.0":
        text += f" If there is a proxy on the way: {_NGINX}"
    return Refusal(400, text)


def _check_duplicates(request: Request) -> Refusal | None:
    for name in ("Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version"):
        if len(request.headers.get_all(name)) > 1:
            return Refusal(400, f"The header {name} is given more than once.")
    return None


def _check_host(request: Request) -> Refusal | None:
    return None if "Host" in request.headers else Refusal(400, "The header Host is missing.")


def _check_version(request: Request) -> Refusal | None:
    version = request.headers.get("Sec-WebSocket-Version")
    if version == VERSION:
        return None
    got = "is missing" if version is None else f"is {version[:_QUOTED]!a}"
    return Refusal(
        426,
        f"The header Sec-WebSocket-Version {got}; this server speaks version {VERSION}.",
        (("Sec-WebSocket-Version", VERSION),),
    )


def _check_key(request: Request) -> Refusal | None:
    if _KEY.fullmatch(request.headers.get("Sec-WebSocket-Key", "")):
        return None
    return Refusal(400, "The header Sec-WebSocket-Key must be 16 bytes in base64.")


_CHECKS: tuple[Callable[[Request], Refusal | None], ...] = (
    _check_tokens,
    _check_body,
    _check_method,
    _check_http_version,
    _check_duplicates,
    _check_host,
    _check_version,
    _check_key,
)


def check_origin(request: Request, allowed: Sequence[str], secure: bool) -> Refusal | None:
    """Return why the page that the request comes from may not connect, or None.

    A request without an Origin comes from no browser's page.

    Args:
        request: The handshake request.
        allowed: Origins that may connect beside our own; "*" means all.
        secure: Whether the request came over TLS. If not, a proxy may have
            ended it, so that a Host without a port may mean 443.

    RFC 6455 section 10.2, RFC 6454 section 7.
    """
    origins = request.headers.get_all("Origin")
    if not origins:
        return None
    if len(origins) > 1:
        return Refusal(403, "The header Origin is given more than once.")
    if "*" in allowed:
        return None
    origin = _split_origin(origins[0])
    if origin is not None:
        if any(_split_origin(other) == origin for other in allowed):
            return None
        # What a trusted proxy was asked for is what the page's browser knows.
        told = request.forwarded_host
        hosts = [told] if told else request.headers.get_all("Host")
        if _is_same_origin(origin, hosts, secure):
            return None
    return Refusal(
        403,
        f"Pages of the origin {origins[0][:200]!a} may not connect: "
        "the service's allowed_origins does not name it.",
    )


def _split_origin(origin: str) -> tuple[str, str, int | None] | None:
    match = _ORIGIN.fullmatch(origin.lower())
    if match is None:
        return None
    scheme, host, port = match.groups()
    return scheme, host, int(port) if port else _ORIGIN_PORTS.get(scheme)


def _is_same_origin(
    origin: tuple[str, str, int | None], hosts: Sequence[str], secure: bool
) -> bool:
    scheme, host, port = origin
    ours = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
    if ours is None or scheme not in ("http", "https") or (secure and scheme == "http"):
        return False
    our_port = int(ours[2]) if ours[2] else 443 if secure else _ORIGIN_PORTS[scheme]
    return (host, port) == (ours[1], our_port)


def choose_subprotocol(request: Request, supported: Sequence[str]) -> str | None:
    """Return the first of `supported` that the client offers. RFC 6455 section 4.2.2."""
    if not supported:
        return None
    offered = set(list_of(request.headers, "Sec-WebSocket-Protocol"))
    return next((name for name in supported if name in offered), None)


# -- The response -----------------------------------------------------


def accept_response(
    request: Request,
    *,
    subprotocol: str | None,
    extensions: str | None,
    headers: Sequence[tuple[str, str]] = (),
) -> bytes:
    """Return the 101 response to a request that `check_upgrade` accepts.

    Args:
        request: The handshake request.
        subprotocol: The one chosen, or None.
        extensions: The Sec-WebSocket-Extensions value of `deflate.choose`, or None.
        headers: Further headers.

    Raises:
        ValueError: A header is reserved or cannot be sent as it is.

    RFC 6455 section 4.2.2.
    """
    accept = generate_accept_token(request.headers["Sec-WebSocket-Key"].encode("latin-1"))
    fields = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept.decode("ascii")),
    ]
    if subprotocol is not None:
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    if extensions is not None:
        fields.append(("Sec-WebSocket-Extensions", extensions))
    if headers:
        fields.extend(normalize_extra_headers(headers, RESERVED))
    return _response_head(101, fields)


def refusal_response(refusal: Refusal, *, head_only: bool = False) -> bytes:
    """Return the whole response that refuses a handshake; the connection ends after it.

    Args:
        refusal: What to say. Its text is sent as UTF-8, with a line end behind it.
        head_only: Leave the body out: the answer to a HEAD request.

    Raises:
        ValueError: The status is none of a refusal, or a header cannot be sent
            as it is.
    """
    if not 200 <= refusal.status <= 599:
        raise ValueError(f"a refusal's status is between 200 and 599, not {refusal.status!r}")
    fields = list(refusal.headers)
    names = {name.lower() for name, _ in fields}
    if names & {"connection", "content-length", "transfer-encoding", "upgrade"}:
        raise ValueError("a refusal sets Connection, Content-Length and Upgrade itself")
    if refusal.status == 426:
        # RFC 9110 section 15.5.22.
        fields += [("Upgrade", "websocket"), ("Connection", "Upgrade, close")]
    else:
        fields.append(("Connection", "close"))
    more, body = refusal_content(refusal)
    return _response_head(refusal.status, [*fields, *more]) + (b"" if head_only else body)


def refusal_content(refusal: Refusal) -> tuple[list[tuple[str, str]], bytes]:
    """Return the body of a refusal, and the headers that tell of it."""
    # RFC 9110 section 6.4.1: these have no body.
    if refusal.status in (204, 304):
        return [], b""
    body, kind = _body(refusal.text)
    fields = [("Content-Length", str(len(body)))]
    if not any(name.lower() == "content-type" for name, _ in refusal.headers):
        fields.insert(0, ("Content-Type", kind))
    return fields, body


def _body(text: str | bytes) -> tuple[bytes, str]:
    """Return a refusal's body and its type."""
    if isinstance(text, bytes):
        return text, "text/plain"
    body = text.encode("utf-8", "replace")
    return body if body.endswith(b"\n") else body + b"\n", "text/plain; charset=utf-8"


def _response_head(status: int, fields: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}"]
    for name, value in fields:
        check_header(name, value)
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
