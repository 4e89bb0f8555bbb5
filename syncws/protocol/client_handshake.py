"""The client's side of the opening handshake: a request out, a response in.

RFC 6455 section 4.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import h11
from wsproto.utilities import generate_accept_token, generate_nonce

from ..config import Compression
from ..errors import HandshakeError, HandshakeRejected
from .basic import basic_authorization
from .deflate import DeflateParams, agree, offer
from .headers import Headers, normalize_extra_headers
from .http import RESERVED, VERSION, has_token, headers_of, send_request
from .uri import WebSocketURI

__all__ = ["Agreement", "ClientHandshake", "Response"]

_MAX_BODY = 65_536
_QUOTED = 60


@dataclass(frozen=True, slots=True)
class Response:
    """The server's handshake response.

    Attributes:
        status: The HTTP status: 101 if it has switched to WebSocket.
        headers: The headers.
        body: The body of another status, up to 64 KiB of it.
    """

    status: int
    headers: Headers
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a handshake has come to.

    Attributes:
        response: The server's response.
        subprotocol: The one that the server chose, or None.
        deflate: The compression agreed on, or None.
        rest: Bytes that came behind the response: the first frames.
    """

    response: Response
    subprotocol: str | None
    deflate: DeflateParams | None
    rest: bytes


class ClientHandshake:
    """The client's side of one handshake; not to be used again.

    Args:
        uri: Where to; its user and password become Basic authentication.
        subprotocols: The subprotocols offered, best first.
        compression: What to offer, or None for nothing.
        headers: Further headers.
        max_size: Bytes of the response's head, with the informational ones
            before it.

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
        self._secure = uri.secure
        self._subprotocols = tuple(subprotocols)
        self._compression = compression
        self._max_size = max_size
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_size)
        self._request = self._serialize(uri, key.decode("ascii"), headers)
        # What came first, to recognise and to quote what is no HTTP.
        self._first = b""
        self._received = 0
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
            ("Sec-WebSocket-Version", VERSION),
        ]
        if self._subprotocols:
            fields.append(("Sec-WebSocket-Protocol", ", ".join(self._subprotocols)))
        if self._compression is not None:
            fields.append(("Sec-WebSocket-Extensions", offer(self._compression)))
        if uri.username is not None and "authorization" not in given:
            # RFC 7617 section 2.
            value = basic_authorization(uri.username, uri.password or "")
            fields.append(("Authorization", value))
        if "user-agent" not in given:
            fields.append(("User-Agent", "syncws"))
        fields.extend(extra)
        return send_request(self._parser, "GET", uri.target, fields)

    def request_bytes(self) -> bytes:
        """Return the request; the same bytes at each call."""
        return self._request

    def receive(self, data: bytes) -> Agreement | None:
        """Take bytes from the server; return what was agreed on once that is a valid 101.

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
                    + ("" if self._secure else "; if it speaks TLS, write wss://")
                )
            self._first = (self._first + data[:_QUOTED])[:_QUOTED]
            if not b"HTTP/".startswith(self._first[:5]):
                raise self._not_http()
        self._received += len(data)
        try:
            self._parser.receive_data(data)
            while True:
                event = self._parser.next_event()
                if event is h11.NEED_DATA:
                    return None
                if isinstance(event, h11.InformationalResponse):
                    # Others, such as 100 and 103, precede the one that counts.
                    self._check_size()
                    if event.status_code == 101:
                        return self._accepted(event)
                else:
                    self._take_rejection(event)
        except h11.RemoteProtocolError as exc:
            if self._rejection is not None:
                raise self._rejected(self._rejection) from None
            if exc.error_status_hint == 431:
                raise self._too_long() from None
            raise self._not_http() from exc

    def _check_size(self) -> None:
        """h11 limits a head that is not complete; one that comes in one piece always is."""
        if self._received - len(self._parser.trailing_data[0]) > self._max_size:
            raise self._too_long()

    def _too_long(self) -> HandshakeError:
        return HandshakeError(f"the head of the server's response is over {self._max_size} bytes")

    def _not_http(self) -> HandshakeError:
        return HandshakeError(f"the server's answer is not valid HTTP: {self._first!r}")

    def _take_rejection(self, event: object) -> None:
        if isinstance(event, h11.Response):
            self._check_size()
            self._rejection = event
            return
        assert self._rejection is not None
        if isinstance(event, h11.Data):
            self._body += event.data
        if not isinstance(event, h11.Data) or len(self._body) >= _MAX_BODY:
            raise self._rejected(self._rejection)

    def _rejected(self, response: h11.Response) -> HandshakeRejected:
        body = bytes(self._body[:_MAX_BODY])
        return HandshakeRejected(Response(response.status_code, headers_of(response), body))

    def _accepted(self, response: h11.InformationalResponse) -> Agreement:
        headers = headers_of(response)
        if not b"1.1" <= response.http_version < b"2":
            version = response.http_version.decode("ascii")
            raise HandshakeError(f"the server switches protocols in HTTP/{version}")
        if not has_token(headers, "Upgrade", "websocket"):
            raise HandshakeError("the server's response has no Upgrade: websocket")
        if not has_token(headers, "Connection", "upgrade"):
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
        return Agreement(
            Response(response.status_code, headers),
            subprotocols[0] if subprotocols else None,
            agree(headers.get_all("Sec-WebSocket-Extensions"), self._compression),
            self._parser.trailing_data[0],
        )
