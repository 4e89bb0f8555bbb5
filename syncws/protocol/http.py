"""HTTP heads, as far as a handshake needs them: bytes to a request, and a request to bytes.

h11 parses; what two parsers on the way could read differently is refused first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import h11

from .cookies import parse_cookies
from .headers import Headers, check_header

__all__ = [
    "AUTHORITY",
    "RESERVED",
    "VERSION",
    "HeadError",
    "HeadReader",
    "Query",
    "Request",
    "has_token",
    "headers_of",
    "list_of",
    "parse_request",
    "send_request",
    "target_for_log",
]

# The version of the protocol. RFC 6455 section 4.1.
VERSION = "13"

#: A host in lower case and its port, if there is one; a pattern with a group for each.
AUTHORITY = r"(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]\\,]+)(?::([0-9]{1,5}))?"

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

# Characters of a request's target in the log.
_LOGGED = 200

_HEAD_END = b"\r\n\r\n"
# A bare LF, a bare CR, a folded line, a control character: what two parsers on
# the way may read differently. RFC 9112 sections 2.2 and 5.2.
# What a TLS connection begins with: a handshake record. RFC 8446 section 5.1.
_TLS = b"\x16\x03"

_SMUGGLING = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\n(?=[ \t])|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ABSOLUTE_FORM = re.compile(
    r"(?:https?|wss?)://(?:\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=%\-]+)(?::[0-9]{0,5})?(?=[/?]|\Z)",
    re.IGNORECASE,
)


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
        if buffer.startswith(_TLS):
            raise HeadError(
                400, "The request is a TLS handshake, and ws:// is spoken here: wss:// needs ssl."
            )
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


class Query(Mapping[str, str]):
    """The parameters of a query, decoded, in order and immutable; names are case-sensitive.

    `query[name]` is the first value of a name that occurs several times;
    `get_all` returns all. Iterating gives each name once. Equal is another
    query that has the same values for each name, and a dict if each has one.

    Args:
        pairs: Names and values.
    """

    __slots__ = ("_raw", "_values")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._raw = tuple((name, value) for name, value in pairs)
        self._values: dict[str, list[str]] = {}
        for name, value in self._raw:
            self._values.setdefault(name, []).append(value)

    @property
    def raw(self) -> tuple[tuple[str, str], ...]:
        """The parameters as they came, a repeated name repeated."""
        return self._raw

    def get_all(self, name: str) -> list[str]:
        """Return every value of `name`, in order; an empty list if there is none."""
        return list(self._values.get(name, ()))

    def __getitem__(self, name: str) -> str:
        return self._values[name][0]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Query):
            return self._values == other._values
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._values == {name: [value] for name, value in other.items()}

    def __hash__(self) -> int:
        return hash(frozenset((name, tuple(values)) for name, values in self._values.items()))

    def __repr__(self) -> str:
        return f"Query({list(self._raw)!r})"


@dataclass(frozen=True, slots=True)
class Request:
    """The client's handshake request.

    It has no body: a handshake that brings one is refused with 400, and its
    head is as long as the listener's `max_handshake_size` at the most.

    Attributes:
        method: The method, as it came.
        target: The request target, as it came.
        raw_path: The target's path, still percent-encoded.
        query_string: What follows its "?", still percent-encoded.
        headers: The headers.
        http_version: "1.1", say.
        remote_address: The client's (host, port), or the path of its
            Unix-domain socket. Behind proxies that the listener trusts it is
            what they say; the port is 0 then unless they tell it.
        is_secure: Whether it came over TLS, to the listener or to such a proxy.
        path_params: The parameters of the path that the service stands on, by
            name: {"room": 7} for "/chat/{room:int}".
        peer_certificate: The client's certificate if the listener demands one:
            what `ssl.SSLSocket.getpeercert` returns, with "subject",
            "subjectAltName" and others. None: the client has none.
        peer_address: Who is at the other end of the socket: the client, or
            the last proxy.
        forwarded_host: What a trusted proxy was asked for in place of the
            Host header, if it says so; see `host`.
    """

    method: str
    target: str
    raw_path: str
    query_string: str
    headers: Headers
    http_version: str = "1.1"
    remote_address: tuple[str, int] | str = ""
    is_secure: bool = False
    path_params: dict[str, Any] = field(default_factory=dict, hash=False)
    peer_certificate: dict[str, Any] | None = field(default=None, hash=False)
    peer_address: tuple[str, int] | str = ""
    forwarded_host: str = ""

    @property
    def host(self) -> str:
        """The host that the client asked for, with its port if it has named one.

        What a trusted proxy says counts before the target's, and that before
        the Host header; "" if there is none. It is the client's word: use it
        for links to yourself, not to decide on anything.
        """
        if self.forwarded_host:
            return self.forwarded_host
        absolute = _ABSOLUTE_FORM.match(self.target)
        if absolute:
            return absolute[0].split("://", 1)[1]
        hosts = self.headers.get_all("Host")
        return hosts[0] if len(hosts) == 1 else ""

    @property
    def path(self) -> str:
        """The path, decoded; so a slash in it may have been an encoded one."""
        return unquote(self.raw_path)

    @property
    def query(self) -> Query:
        """The query, decoded: `request.query["age"]`. Parsed each time."""
        return Query(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, by name. Parsed each time."""
        return parse_cookies(self.headers)


def parse_request(
    head: bytes,
    *,
    remote_address: tuple[str, int] | str = "",
    is_secure: bool = False,
    peer_certificate: dict[str, Any] | None = None,
) -> Request:
    """Parse a complete head, as `HeadReader` returns it.

    Args:
        head: The head.
        remote_address: Where it came from.
        is_secure: Whether it came over TLS.
        peer_certificate: The client's certificate, or None.

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
        headers_of(event),
        event.http_version.decode("ascii"),
        remote_address,
        is_secure,
        peer_certificate=peer_certificate,
        peer_address=remote_address,
    )


def target_for_log(request: Request) -> str:
    """Return what the log has of a request's target, which may be as long as the head."""
    return request.target[:_LOGGED]


def send_request(
    parser: h11.Connection, method: str, target: str, fields: Sequence[tuple[str, str]]
) -> bytes:
    """Return the bytes of a client's request without a body; every field is checked first.

    Raises:
        ValueError: A header cannot be sent as it is.
    """
    for name, value in fields:
        check_header(name, value)
    request = h11.Request(
        method=method,
        target=target,
        headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in fields],
    )
    sent = parser.send(request)
    parser.send(h11.EndOfMessage())
    assert sent is not None
    return sent


def headers_of(event: h11.Request | h11.InformationalResponse | h11.Response) -> Headers:
    fields = event.headers.raw_items()
    return Headers((name.decode("ascii"), value.decode("latin-1")) for name, value in fields)


def list_of(headers: Headers, name: str) -> list[str]:
    return [part.strip(" \t") for value in headers.get_all(name) for part in value.split(",")]


def has_token(headers: Headers, name: str, token: str) -> bool:
    return any(part.lower() == token for part in list_of(headers, name))
