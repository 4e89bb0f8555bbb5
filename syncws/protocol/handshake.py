"""The opening handshake, both roles: bytes in, a decision out. RFC 6455 section 4.

h11 parses and serialises; wsproto's own handshake is not used, because it
raises UnicodeError on some Host headers and sets no limits.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

import h11
from wsproto.utilities import generate_accept_token, generate_nonce

from ..config import Compression
from ..errors import HandshakeError, HandshakeRejected
from .deflate import DeflateParams, agree, offer
from .headers import Headers, check_header, normalize_extra_headers
from .uri import WebSocketURI

__all__ = [
    "RESERVED",
    "ClientHandshake",
    "HeadError",
    "HeadReader",
    "Refusal",
    "Request",
    "Response",
    "accept_response",
    "check_origin",
    "check_upgrade",
    "choose_subprotocol",
    "parse_request",
    "refusal_response",
]

# Header names that users may not set, in either role.
RESERVED = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    }
)

_VERSION = "13"
_MAX_BODY = 65_536
_QUOTED = 60

_HEAD_END = b"\r\n\r\n"
# A bare LF, a bare CR, a folded line, a control character: what two parsers on
# the way may read differently. RFC 9112 sections 2.2 and 5.2.
_SMUGGLING = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\n(?=[ \t])|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ABSOLUTE_FORM = re.compile(r"(?:https?|wss?)://[^/?]+", re.IGNORECASE)
# 16 bytes in base64.
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_AUTHORITY = r"(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]\\,]+)(?::([0-9]{1,5}))?"
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.\-]*)://{_AUTHORITY}")
_HOST = re.compile(_AUTHORITY)
_ORIGIN_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


# -- Server: the request ---------------------------------------------


class HeadError(Exception):
    """The peer's HTTP head is refused.

    Attributes:
        status: The HTTP status to answer with.
        text: A sentence for the peer.
    """

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(text)


class HeadReader:
    """Collects one HTTP head, however its bytes are cut.

    Each byte is looked at a fixed number of times, so a head that arrives byte
    by byte costs no more than one that arrives whole.

    Args:
        max_size: Bytes of the head, with its blank line.
        max_headers: Header lines.

    Attributes:
        rest: What came behind the head, once it is complete.
    """

    def __init__(self, max_size: int, max_headers: int = 128) -> None:
        self.rest = b""
        self._max_size = max_size
        self._max_headers = max_headers
        self._buffer = bytearray()
        self._lines = 0

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; return the head with its blank line once it is complete.

        Raises:
            HeadError: 431 if the head is over a limit, 400 if its lines are
                not as RFC 9112 section 2.2 has them.
        """
        buffer, seen = self._buffer, len(self._buffer)
        buffer += data
        found = buffer.find(_HEAD_END, max(0, seen - 3), self._max_size)
        end = min(len(buffer), self._max_size) if found < 0 else found + len(_HEAD_END)
        if _SMUGGLING.search(buffer, max(0, seen - 1), end):
            raise HeadError(
                400,
                "The request is not valid HTTP: it has a bare line break, a folded line "
                "or a control character.",
            )
        if buffer.startswith(b"\r\n"):
            raise HeadError(400, "The request is not valid HTTP: it begins with a blank line.")
        # A complete head has a request line and a blank line beside its headers.
        self._lines += buffer.count(b"\r\n", max(0, seen - 1), end)
        if self._lines > self._max_headers + (1 if found < 0 else 2):
            raise HeadError(431, f"The request has more than {self._max_headers} headers.")
        if found >= 0:
            self.rest = bytes(buffer[end:])
            return bytes(buffer[:end])
        if len(buffer) >= self._max_size:
            raise HeadError(431, f"The request's head is over {self._max_size} bytes.")
        return None


@dataclass(frozen=True, slots=True)
class Request:
    """The client's handshake request.

    Attributes:
        method: The method, as it came.
        target: The request target, as it came.
        path: The target's path, still percent-encoded.
        query_string: What follows its "?", still percent-encoded.
        headers: The headers.
        http_version: "1.1", say.
    """

    method: str
    target: str
    path: str
    query_string: str
    headers: Headers
    http_version: str = "1.1"

    @property
    def query(self) -> dict[str, list[str]]:
        """The query, decoded: all values of each name. A new dict each time."""
        return parse_qs(self.query_string, keep_blank_values=True)


def parse_request(head: bytes) -> Request:
    """Parse a complete head, as `HeadReader` returns it.

    Raises:
        HeadError: It is no HTTP/1 request, or its target is neither a path nor
            an http or ws URL.

    RFC 9112 section 3.2.
    """
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head) + 1)
    parser.receive_data(head)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError as exc:
        raise HeadError(
            exc.error_status_hint, f"The request is not valid HTTP: {str(exc)[:200]}."
        ) from None
    if not isinstance(event, h11.Request):
        raise HeadError(400, "The request is not valid HTTP: it is incomplete.")
    target = event.target.decode("ascii")
    absolute = _ABSOLUTE_FORM.match(target)
    path, _, query_string = target[absolute.end() if absolute else 0 :].partition("?")
    if (not absolute and not path.startswith("/")) or "#" in target:
        raise HeadError(400, "The request target is neither a path nor an http URL.")
    return Request(
        event.method.decode("ascii"),
        target,
        path or "/",
        query_string,
        _headers_of(event),
        event.http_version.decode("ascii"),
    )


def _headers_of(event: h11.Request | h11.InformationalResponse | h11.Response) -> Headers:
    fields = event.headers.raw_items()
    return Headers((name.decode("ascii"), value.decode("latin-1")) for name, value in fields)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer other than 101.

    Attributes:
        status: The HTTP status.
        text: The body: a sentence for the person who looks at it.
        headers: Headers beside those of every refusal.
    """

    status: int
    text: str
    headers: tuple[tuple[str, str], ...] = ()


# -- Server: the checks ----------------------------------------------


def check_upgrade(request: Request) -> Refusal | None:
    """Return why the request is no valid handshake, or None if it is one.

    The reason that helps most comes first. RFC 6455 section 4.2.1.
    """
    for check in _CHECKS:
        refusal = check(request)
        if refusal is not None:
            return refusal
    return None


def _check_tokens(request: Request) -> Refusal | None:
    if _has_token(request.headers, "Upgrade", "websocket") and _has_token(
        request.headers, "Connection", "upgrade"
    ):
        return None
    return Refusal(426, "This address speaks WebSocket: connect to it with ws://, not http://.")


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
    return Refusal(400, f"A WebSocket handshake is HTTP/1.1, not HTTP/{request.http_version}.")


def _check_duplicates(request: Request) -> Refusal | None:
    for name in ("Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version"):
        if len(request.headers.get_all(name)) > 1:
            return Refusal(400, f"The header {name} is given more than once.")
    return None


def _check_host(request: Request) -> Refusal | None:
    return None if "Host" in request.headers else Refusal(400, "The header Host is missing.")


def _check_version(request: Request) -> Refusal | None:
    version = request.headers.get("Sec-WebSocket-Version")
    if version == _VERSION:
        return None
    got = "is missing" if version is None else f"is {version[:_QUOTED]}"
    return Refusal(
        426,
        f"The header Sec-WebSocket-Version {got}; this server speaks version {_VERSION}.",
        (("Sec-WebSocket-Version", _VERSION),),
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
        if _is_same_origin(origin, request.headers.get_all("Host"), secure):
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
    offered = set(_list(request.headers, "Sec-WebSocket-Protocol"))
    return next((name for name in supported if name in offered), None)


def _list(headers: Headers, name: str) -> list[str]:
    return [part.strip(" \t") for value in headers.get_all(name) for part in value.split(",")]


def _has_token(headers: Headers, name: str, token: str) -> bool:
    return any(part.lower() == token for part in _list(headers, name))


# -- Server: the response --------------------------------------------


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
    fields.extend(normalize_extra_headers(headers, RESERVED))
    return _response_head(101, fields)


def refusal_response(refusal: Refusal, *, head_only: bool = False) -> bytes:
    """Return the whole response that refuses a handshake; the connection ends after it.

    Args:
        refusal: What to say. Its text is sent as UTF-8.
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
    # RFC 9110 section 6.4.1: these have no body.
    if refusal.status in (204, 304):
        return _response_head(refusal.status, fields)
    body = refusal.text.encode("utf-8", "replace")
    if not body.endswith(b"\n"):
        body += b"\n"
    if "content-type" not in names:
        fields.append(("Content-Type", "text/plain; charset=utf-8"))
    fields.append(("Content-Length", str(len(body))))
    return _response_head(refusal.status, fields) + (b"" if head_only else body)


def _response_head(status: int, fields: Sequence[tuple[str, str]]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}"]
    for name, value in fields:
        check_header(name, value)
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


# -- Client ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Response:
    """The server's 101 response, and what was agreed on in it.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        subprotocol: The one that the server chose, or None.
        deflate: The compression agreed on, or None.
        rest: Bytes that came behind the response: the first frames.
        body: Empty; a 101 response has none.
    """

    status: int
    headers: Headers
    subprotocol: str | None
    deflate: DeflateParams | None
    rest: bytes
    body: bytes = b""


class ClientHandshake:
    """The client's side of one handshake; not to be used again.

    Args:
        uri: Where to; its user and password become Basic authentication.
        subprotocols: The subprotocols offered, best first.
        compression: What to offer, or None for nothing.
        headers: Further headers.
        max_size: Bytes of the response's head.

    Raises:
        ValueError: A header is reserved or cannot be sent as it is.

    RFC 6455 section 4.1.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        subprotocols: Sequence[str],
        compression: Compression | None,
        headers: Sequence[tuple[str, str]],
        max_size: int = 16384,
    ) -> None:
        key = generate_nonce()
        self._accept = generate_accept_token(key)
        self._subprotocols = tuple(subprotocols)
        self._compression = compression
        self._max_size = max_size
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_size)
        self._request = self._serialize(uri, key.decode("ascii"), headers)
        # What came first, to recognise and to quote what is no HTTP.
        self._first = b""
        # The response that is no 101, once its head is here, and its body.
        self._rejection: h11.Response | None = None
        self._body = bytearray()

    def _serialize(self, uri: WebSocketURI, key: str, headers: Sequence[tuple[str, str]]) -> bytes:
        extra = normalize_extra_headers(headers, RESERVED)
        given = {name.lower() for name, _ in extra}
        fields = [
            ("Host", uri.host_header),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", key),
            ("Sec-WebSocket-Version", _VERSION),
        ]
        if self._subprotocols:
            fields.append(("Sec-WebSocket-Protocol", ", ".join(self._subprotocols)))
        if self._compression is not None:
            fields.append(("Sec-WebSocket-Extensions", offer(self._compression)))
        if uri.username is not None and "authorization" not in given:
            # RFC 7617 section 2.
            user = f"{uri.username}:{uri.password or ''}".encode()
            fields.append(("Authorization", "Basic " + base64.b64encode(user).decode("ascii")))
        if "user-agent" not in given:
            fields.append(("User-Agent", "syncws"))
        fields.extend(extra)
        for name, value in fields:
            check_header(name, value)
        request = h11.Request(
            method="GET",
            target=uri.target,
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in fields],
        )
        sent = self._parser.send(request)
        self._parser.send(h11.EndOfMessage())
        assert sent is not None
        return sent

    def request_bytes(self) -> bytes:
        """Return the request; the same bytes at each call."""
        return self._request

    def receive(self, data: bytes) -> Response | None:
        """Take bytes from the server; return the response once it is a valid 101.

        Args:
            data: The bytes, or b"" at their end.

        Raises:
            HandshakeError: The server closed early, speaks no HTTP, or breaks
                the rules of the handshake.
            HandshakeRejected: The server answered with another status; raised
                when the body is complete, or 64 KiB of it are here.
        """
        if self._rejection is None:
            if not data:
                raise HandshakeError(
                    "the server closed the connection before it answered the handshake"
                )
            self._first = (self._first + data[:_QUOTED])[:_QUOTED]
            if not b"HTTP/".startswith(self._first[:5]):
                raise self._not_http()
        try:
            self._parser.receive_data(data)
            while True:
                event = self._parser.next_event()
                if event is h11.NEED_DATA:
                    return None
                if isinstance(event, h11.InformationalResponse):
                    # Others, such as 100 and 103, precede the one that counts.
                    if event.status_code == 101:
                        return self._accepted(event)
                else:
                    self._take_rejection(event)
        except h11.RemoteProtocolError as exc:
            if self._rejection is not None:
                raise self._rejected(self._rejection) from None
            if exc.error_status_hint == 431:
                raise HandshakeError(
                    f"the head of the server's response is over {self._max_size} bytes"
                ) from None
            raise self._not_http() from exc

    def _not_http(self) -> HandshakeError:
        return HandshakeError(f"the server's answer is not valid HTTP: {self._first!r}")

    def _take_rejection(self, event: object) -> None:
        if isinstance(event, h11.Response):
            self._rejection = event
            return
        assert self._rejection is not None
        if isinstance(event, h11.Data):
            self._body += event.data
        if not isinstance(event, h11.Data) or len(self._body) >= _MAX_BODY:
            raise self._rejected(self._rejection)

    def _rejected(self, response: h11.Response) -> HandshakeRejected:
        body = bytes(self._body[:_MAX_BODY])
        return HandshakeRejected(response.status_code, _headers_of(response), body)

    def _accepted(self, response: h11.InformationalResponse) -> Response:
        headers = _headers_of(response)
        if response.http_version < b"1.1":
            raise HandshakeError("the server switches protocols in HTTP/1.0")
        if not _has_token(headers, "Upgrade", "websocket"):
            raise HandshakeError("the server's response has no Upgrade: websocket")
        if not _has_token(headers, "Connection", "upgrade"):
            raise HandshakeError("the server's response has no Connection: Upgrade")
        accepts = headers.get_all("Sec-WebSocket-Accept")
        if len(accepts) != 1 or not hmac.compare_digest(accepts[0].encode("latin-1"), self._accept):
            raise HandshakeError(
                "the server's Sec-WebSocket-Accept does not answer our key: "
                "it is no WebSocket server, or a cache answered"
            )
        subprotocols = headers.get_all("Sec-WebSocket-Protocol")
        if len(subprotocols) > 1 or not set(subprotocols) <= set(self._subprotocols):
            raise HandshakeError(
                f"the server chose the subprotocol {', '.join(subprotocols)!r}, "
                f"which is none of those offered: {self._subprotocols!r}"
            )
        return Response(
            response.status_code,
            headers,
            subprotocols[0] if subprotocols else None,
            agree(headers.get_all("Sec-WebSocket-Extensions"), self._compression),
            self._parser.trailing_data[0],
        )
