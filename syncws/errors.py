"""The errors of syncws, one tree.

    WebSocketError
    ├── ConnectError                  also ConnectionError: no WebSocket came about
    │   ├── ConnectTimeout            also TimeoutError
    │   ├── TLSError                  the certificate or TLS was refused
    │   ├── HandshakeError            the peer's handshake breaks the rules
    │   ├── HandshakeRejected         the server answered with another status
    │   ├── ProxyError                the proxy cannot be reached, refuses, or breaks the rules
    │   │   └── ProxyAuthenticationError  it asks for a user and a password, or for others
    │   └── RetriesExhausted          no address could be connected to, however often tried
    ├── ConnectionClosed              the connection has ended, or never opens again
    ├── Reconnecting                  also ConnectionError: it is being made again
    ├── ProtocolError                 a frame breaks RFC 6455
    │   ├── InvalidContinuationFrameError
    │   └── InvalidPayloadError       text or a close reason that is not UTF-8
    ├── PayloadTooBigError            a message, frame or fragment count over its limit
    ├── MessageTypeError              also TypeError: text where binary was asked for
    ├── ReceiveTimeout                also TimeoutError: the connection is still usable
    ├── SendTimeout                   also TimeoutError: nothing of the message was sent
    ├── OverloadError                 the listener's connections hold too much together
    ├── MessageTimeout                also TimeoutError: a message took too long to come
    ├── KeepaliveTimeout              also TimeoutError: the peer stopped answering
    └── BackplaneError                groups of several processes: theirs cannot be reached

Arguments that are wrong by themselves raise the builtin ValueError or
TypeError before a byte is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "BackplaneError",
    "Close",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "HandshakeError",
    "HandshakeRejected",
    "InvalidContinuationFrameError",
    "InvalidPayloadError",
    "KeepaliveTimeout",
    "MessageTimeout",
    "MessageTypeError",
    "OverloadError",
    "PayloadTooBigError",
    "ProtocolError",
    "ProxyAuthenticationError",
    "ProxyError",
    "ReceiveTimeout",
    "Reconnecting",
    "RetriesExhausted",
    "SendTimeout",
    "TLSError",
    "WebSocketError",
    "printable",
]


class Close(NamedTuple):
    """What a close frame says: its status code and its reason.

    A frame without a body has the code 1005 and an empty reason.
    RFC 6455 section 5.5.1.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.code} ({printable(self.reason)})" if self.reason else str(self.code)


def printable(text: str) -> str:
    """Return what a peer has said without what a terminal would obey."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


class WebSocketError(Exception):
    """Base of every error that syncws raises for its own reasons."""


class ConnectError(WebSocketError, ConnectionError):
    """No WebSocket connection came about."""


class ConnectTimeout(ConnectError, TimeoutError):
    """Connecting, TLS and the opening handshake took longer than allowed."""


class HandshakeError(ConnectError):
    """The peer's part of the opening handshake breaks RFC 6455 section 4."""


class TLSError(ConnectError):
    """The server's certificate was refused, or TLS failed; the ``__cause__`` says why."""


class HandshakeRejected(ConnectError):
    """The server answered the handshake with a status other than 101.

    Attributes:
        response: The server's `Response`.
    """

    def __init__(self, response: Any) -> None:
        self.response = response
        text = response.body[:200].decode("utf-8", "replace").strip()
        super().__init__(
            f"the server answered with HTTP status {response.status}, not 101"
            + (f": {printable(text)}" if text else "")
        )

    @property
    def status(self) -> int:
        """The HTTP status code."""
        status: int = self.response.status
        return status

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers, case-insensitive."""
        headers: Mapping[str, str] = self.response.headers
        return headers

    @property
    def body(self) -> bytes:
        """The response's body, up to 64 KiB of it."""
        body: bytes = self.response.body
        return body

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.response,)


class ProxyError(ConnectError):
    """The proxy could not be reached, refused to connect to the server, or broke the rules.

    Attributes:
        proxy: The proxy's URL, without user and password.
        status: What it refused with: the HTTP status, or the number in the
            answer of a SOCKS proxy. None: it was no refusal.
    """

    def __init__(self, text: str, proxy: str = "", status: int | None = None) -> None:
        self.proxy = proxy
        self.status = status
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.proxy, self.status)


class ProxyAuthenticationError(ProxyError):
    """The proxy asks for a user and a password, or does not take those that it got.

    Attributes:
        realm: What the proxy calls that for which it asks. None: it does not say.
    """

    def __init__(
        self, text: str, proxy: str = "", status: int | None = None, realm: str | None = None
    ) -> None:
        self.realm = realm
        super().__init__(text, proxy, status)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.proxy, self.status, self.realm)


class RetriesExhausted(ConnectError):
    """No connection came about, however often it was tried.

    Attributes:
        reasons: Each address that was tried, with what its last attempt failed with.
        attempts: How often it was tried since there was a connection.
    """

    def __init__(self, reasons: Sequence[tuple[str, BaseException]], attempts: int) -> None:
        self.reasons = tuple(reasons)
        self.attempts = attempts
        times = f"{attempts} attempt{'s' if attempts != 1 else ''}"
        texts = "; ".join(f"{url}: {error}" for url, error in self.reasons)
        super().__init__(f"no connection after {times}: {texts}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reasons, self.attempts)


class ConnectionClosed(WebSocketError):
    """The connection has ended; nothing more is sent or received on it.

    Attributes:
        received: The peer's close frame, or None if none came.
        sent: Our close frame, or None if none was sent.
        unsent: Bytes of frames that were taken to be sent and got lost with
            the connection. What the system had taken already may be lost,
            too, which nobody can know.
        maybe_sent: Whether the message of the send that raises this may have
            reached the peer nevertheless.

    What failed, if something did, is the ``__cause__``.
    """

    def __init__(
        self, received: Close | None = None, sent: Close | None = None, unsent: int = 0
    ) -> None:
        self.received = received
        self.sent = sent
        self.unsent = unsent
        self.maybe_sent = False
        got = f"received {received}" if received else "no close frame received"
        gave = f"sent {sent}" if sent else "none sent"
        super().__init__(f"the connection is closed: {got}, {gave}")

    def __reduce__(self) -> tuple[Any, ...]:
        maybe_sent = {"maybe_sent": self.maybe_sent}
        return type(self), (self.received, self.sent, self.unsent), maybe_sent


class Reconnecting(WebSocketError, ConnectionError):
    """The connection was lost and is being made again: try later.

    Attributes:
        maybe_sent: Whether the message of the send that raises this may have
            reached the peer nevertheless.
    """

    def __init__(self, text: str, maybe_sent: bool = False) -> None:
        self.maybe_sent = maybe_sent
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.maybe_sent)


class ProtocolError(WebSocketError):
    """A frame breaks RFC 6455.

    Attributes:
        status_code: The status code that the connection is closed with.
    """

    status_code = 1002


class InvalidContinuationFrameError(ProtocolError):
    """A continuation frame with nothing to continue, or its absence in a fragmented message.

    RFC 6455 section 5.4.
    """


class InvalidPayloadError(ProtocolError):
    """Text or a close reason that is not UTF-8, or compressed data that does not inflate.

    RFC 6455 section 8.1, RFC 7692 section 7.2.2.
    """

    status_code = 1007


class PayloadTooBigError(WebSocketError):
    """A message over `max_message_size`, `max_frame_size` or `max_fragments`.

    RFC 6455 section 7.4.1.
    """

    status_code = 1009


class MessageTypeError(WebSocketError, TypeError):
    """The next message is of the other type than the one asked for.

    Attributes:
        expected: "text" or "binary".
        message: The message, which is taken off the connection: nothing is lost.
    """

    def __init__(self, expected: str, message: str | bytes) -> None:
        self.expected = expected
        self.message = message
        got = "text" if isinstance(message, str) else "binary"
        super().__init__(
            f"expected a {expected} message, received a {got} one of {len(message)} "
            f"{'characters' if got == 'text' else 'bytes'}; receive() takes both"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.expected, self.message)


class ReceiveTimeout(WebSocketError, TimeoutError):
    """No message came within the timeout; the connection is still usable."""


class SendTimeout(WebSocketError, TimeoutError):
    """The peer did not read for `send_timeout`; nothing of the message was sent."""


class OverloadError(WebSocketError):
    """A listener's connections held more than `max_buffered_bytes`, this one among the most."""

    status_code = 1013


class MessageTimeout(WebSocketError, TimeoutError):
    """A message of the peer's did not come within `message_timeout`, and not at its pace."""

    status_code = 1008


class KeepaliveTimeout(WebSocketError, TimeoutError):
    """Nothing came from the peer within `ping_timeout` of a keepalive ping."""

    status_code = 1011


class BackplaneError(WebSocketError):
    """What carries groups to other processes takes no message, or does not answer."""
