"""One HTTP request's body in and the response to it out: bytes in, bytes out.

h11 frames both. What two parsers on the way could read differently is refused,
as it is in a head.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.utils import formatdate

import h11

from .headers import check_header
from .http import HeadError, Request, has_token

__all__ = ["Exchange", "ResponseError", "is_upgrade"]

#: What a response's bytes come as.
Piece = bytes | memoryview

# Bytes of a chunk's size with its extensions, and of all trailers.
_MAX_FRAMING = 16_384

# Parts of a body that one call takes: thousands of chunks of one byte would
# hold others up for long.
_PARTS = 64

# A chunk costs as much as a KiB in one, so those of a few bytes are allowed
# up to a number, and then as many as have this many bytes on average.
_FREE_CHUNKS = 1024
_LEAST_CHUNK = 16

_STATUS = re.compile(r"([2-5][0-9]{2}) (.*)")

# What concerns one connection only is the server's to say. RFC 9110 section
# 7.6.1, PEP 3333.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "trailers",  # as PEP 3333 and wsgiref spell it
        "transfer-encoding",
        "upgrade",
    }
)


class ResponseError(ValueError):
    """A response breaks the rules of HTTP."""


def is_upgrade(request: Request) -> bool:
    """Whether the request asks for a WebSocket, rightly or not. RFC 6455 section 4.2.1."""
    return has_token(request.headers, "Upgrade", "websocket") and has_token(
        request.headers, "Connection", "upgrade"
    )


class Exchange:
    """A request whose head has come, and its response.

    Guarantees:
        - A response is framed so that the client sees where it ends: by a
          Content-Length, by chunks, or for HTTP/1.0 by the end of the
          connection.
        - No part of a response that would break the framing goes out.

    Args:
        head: The request's head, as `HeadReader.feed` returns it.
        max_body_size: Bytes of the body. None: no limit.

    Attributes:
        content_length: Bytes of the body, as the head says. None: it is chunked.
        body_size: Bytes of the body so far.
        body_complete: Whether the body has come to its end.
        unparsed: Whether `receive` has more to do; call it again, with no data.
        started: Whether `start` has been called.
        sent: Bytes of the response's body so far.
        excess: Bytes that were left out behind the response's Content-Length.

    Raises:
        HeadError: The request is refused.

    Not thread-safe. RFC 9112 section 6.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_head_only",
        "_left",
        "_max_body_size",
        "_rest",
        "_window",
        "body_complete",
        "body_size",
        "content_length",
        "excess",
        "sent",
        "started",
        "unparsed",
    )

    def __init__(self, head: bytes, max_body_size: int | None = None) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_FRAMING)
        self._connection.receive_data(head)
        request = self._next()
        if not isinstance(request, h11.Request):
            raise HeadError(400, "The request is not valid HTTP: it is incomplete.")
        self.content_length = _check_framing(request)
        if max_body_size is not None and (self.content_length or 0) > max_body_size:
            raise _too_large(max_body_size)
        self._max_body_size = max_body_size
        self._head_only = request.method == b"HEAD"
        self._rest = bytearray()
        # Of a chunked body: the last four bytes taken, and what was not taken yet.
        self._window = b""
        self._chunks = 0
        self.body_size = 0
        self.body_complete = False
        self.unparsed = False

        self._left: int | None = None  # of the response's Content-Length
        self.started = False
        self.sent = 0
        self.excess = 0
        self.receive(b"")  # where there is no body, this is its end

    # -- The request ---------------------------------------------------

    def receive(self, data: bytes) -> list[bytes]:
        """Take bytes; return the parts of the body that they have.

        Raises:
            HeadError: The body is refused; nothing more can be received.
        """
        if self.body_complete:
            self._rest += data
            return []
        if data:
            self._connection.receive_data(data)
        parts: list[bytes] = []
        self.unparsed = False
        for _ in range(_PARTS):
            event = self._next()
            if isinstance(event, h11.Data):
                parts.append(event.data)
                self._count(len(event.data), event.chunk_start)
            elif isinstance(event, h11.EndOfMessage):
                self.body_complete = True
                break
            else:
                break
        else:
            self.unparsed = True
        if self.content_length is None:
            self._check_end(self._window + data)
        if self.body_complete:
            self._rest += self._connection.trailing_data[0]
        return parts

    def _next(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as exc:
            raise HeadError(
                exc.error_status_hint, f"The request is not valid HTTP: {str(exc)[:200]}."
            ) from None

    def _count(self, size: int, chunk_start: bool) -> None:
        self._chunks += chunk_start
        if self._chunks > _FREE_CHUNKS + self.body_size // _LEAST_CHUNK:
            raise HeadError(400, "The request's body comes in too many small chunks.")
        self.body_size += size
        if self._max_body_size is not None and self.body_size > self._max_body_size:
            raise _too_large(self._max_body_size)

    def _check_end(self, window: bytes) -> None:
        """h11 takes bare line breaks for the end of a chunked body; others do not."""
        waiting = self._connection.trailing_data[0]
        taken = window[: len(window) - len(waiting)][-4:]
        if self.body_complete and taken != b"\r\n\r\n":
            raise HeadError(400, "The request is not valid HTTP: it has a bare line break.")
        self._window = taken + waiting

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for a word before it sends the body."""
        return self._connection.they_are_waiting_for_100_continue

    @property
    def rest(self) -> bytes:
        """What came behind the body."""
        return bytes(self._rest)

    @property
    def rest_size(self) -> int:
        """How much of it."""
        return len(self._rest)

    # -- The response --------------------------------------------------

    def go_on(self) -> bytes:
        """Return the word that the client waits for. RFC 9110 section 10.1.1."""
        return self._send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))

    def start(self, status: str, headers: Iterable[tuple[str, str]], *, last: bool) -> bytes:
        """Return the head of the response.

        Args:
            status: Such as "200 OK".
            headers: All but those that belong to the connection; Date and
                Server are added if they are not there.
            last: Whether the connection is to end behind the response. It does
                all the same if the body has not come to its end yet.

        Raises:
            TypeError: The status or a header is no str.
            ResponseError: Something of it cannot be sent. Another response can.
        """
        code, reason = _split_status(status)
        fields = _check_fields(code, headers)
        if last or not self.body_complete:
            fields.append((b"Connection", b"close"))
        try:
            response = h11.Response(status_code=code, headers=fields, reason=reason)
        except h11.LocalProtocolError as exc:
            raise ResponseError(str(exc)) from None
        head = self._send(response)
        self.started = True
        if code in (204, 304):
            self._head_only = True
        elif not self._head_only:
            length = dict(response.headers).get(b"content-length")
            self._left = None if length is None else int(length)
        return head

    def data(self, data: Piece) -> list[Piece]:
        """Return what goes out for a part of the body; nothing if there is to be none.

        What is longer than the Content-Length is left out; see `excess`.
        """
        if self._head_only:
            return []
        if self._left is not None:
            if len(data) > self._left:
                self.excess += len(data) - self._left
                data = data[: self._left]
            self._left -= len(data)
        if not data:
            return []
        self.sent += len(data)
        pieces: list[Piece] = []
        # h11's writers pass on whatever they get.
        event = h11.Data(data=data)  # type: ignore[arg-type]
        pieces.extend(self._connection.send_with_data_passthrough(event) or ())
        return pieces

    def end(self) -> bytes:
        """Return what goes out behind the body.

        Raises:
            ResponseError: It is shorter than its Content-Length.
        """
        if self._left:
            raise ResponseError(f"the response is {self._left} bytes short of its Content-Length")
        return self._send(h11.EndOfMessage())

    def _send(self, event: h11.InformationalResponse | h11.Response | h11.EndOfMessage) -> bytes:
        return self._connection.send(event) or b""

    @property
    def reusable(self) -> bool:
        """Whether all is done, and the connection can have another request."""
        connection = self._connection
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


def _too_large(limit: int) -> HeadError:
    return HeadError(413, f"The request's body is over {limit} bytes.")


def _check_framing(request: h11.Request) -> int | None:
    """Return the Content-Length, or None if the body is chunked. RFC 9112 section 6.3."""
    if not request.http_version.startswith(b"1."):
        version = request.http_version.decode("ascii")
        raise HeadError(505, f"This server speaks HTTP/1.1, not HTTP/{version}.")
    # h11 has refused what differs, and what is neither a number nor "chunked".
    fields = dict(request.headers)
    length = fields.get(b"content-length")
    if b"transfer-encoding" not in fields:
        return int(length or 0)
    if length is not None:
        raise HeadError(400, "The request has both a Transfer-Encoding and a Content-Length.")
    if request.http_version == b"1.0":
        raise HeadError(400, "HTTP/1.0 has no Transfer-Encoding.")
    return None


def _split_status(status: str) -> tuple[int, bytes]:
    check_header("Status", status)
    match = _STATUS.fullmatch(status)
    if match is None:
        raise ResponseError(f"{status!r} is no status of a response, such as '200 OK'")
    return int(match[1]), match[2].strip().encode("latin-1")


def _check_fields(code: int, headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return what is sent of the application's headers, with ours."""
    fields: list[tuple[bytes, bytes]] = []
    names = set()
    for name, value in headers:
        check_header(name, value)
        lower = name.lower()
        if lower in _HOP_BY_HOP:
            raise ResponseError(f"the header {name!r} is the server's to set")
        if lower == "content-length" and code == 204:
            continue  # RFC 9110 section 8.6
        names.add(lower)
        fields.append((name.encode("ascii"), value.strip(" \t").encode("latin-1")))
    if "date" not in names:
        fields.append((b"Date", formatdate(usegmt=True).encode("ascii")))
    if "server" not in names:
        fields.append((b"Server", b"syncws"))
    return fields
