"""The errors of syncws, one tree.

    WebSocketError
    ├── ConnectError                  also ConnectionError: no WebSocket came about
    │   ├── ConnectTimeout            also TimeoutError
    │   ├── HandshakeError            the peer's handshake breaks the rules
    │   └── HandshakeRejected         the server answered with another status
    ├── ConnectionClosed              the connection has ended, or never opens again
    ├── ProtocolError                 a frame breaks RFC 6455
    │   ├── InvalidContinuationFrameError
    │   └── InvalidPayloadError       text or a close reason that is not UTF-8
    ├── PayloadTooBigError            a message, frame or fragment count over its limit
    ├── MessageTypeError              also TypeError: text where binary was asked for
    ├── ReceiveTimeout                also TimeoutError: the connection is still usable
    ├── SendTimeout                   also TimeoutError: nothing of the message was sent
    └── KeepaliveTimeout              also TimeoutError: the peer stopped answering

Arguments that are wrong by themselves raise the builtin ValueError or
TypeError before a byte is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = [
    "Close",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "HandshakeError",
    "HandshakeRejected",
    "InvalidContinuationFrameError",
    "InvalidPayloadError",
    "KeepaliveTimeout",
    "MessageTypeError",
    "PayloadTooBigError",
    "ProtocolError",
    "ReceiveTimeout",
    "SendTimeout",
    "WebSocketError",
]


class Close(NamedTuple):
    """What a close frame says: its status code and its reason.

    A frame without a body has the code 1005 and an empty reason.
    RFC 6455 section 5.5.1.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.code} ({self.reason})" if self.reason else str(self.code)


class WebSocketError(Exception):
    """Base of every error that syncws raises for its own reasons."""


class ConnectError(WebSocketError, ConnectionError):
    """No WebSocket connection came about."""


class ConnectTimeout(ConnectError, TimeoutError):
    """Connecting, TLS and the opening handshake took longer than allowed."""


class HandshakeError(ConnectError):
    """The peer's part of the opening handshake breaks RFC 6455 section 4."""


class HandshakeRejected(ConnectError):
    """The server answered the handshake with a status other than 101.

    Attributes:
        status: The HTTP status code.
        headers: The response's headers, case-insensitive.
        body: The response's body, up to 64 KiB of it.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body
        text = body[:200].decode("utf-8", "replace").strip()
        super().__init__(
            f"the server answered with HTTP status {status}, not 101"
            + (f": {text}" if text else "")
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.headers, self.body)


class ConnectionClosed(WebSocketError):
    """The connection has ended; nothing more is sent or received on it.

    Attributes:
        received: The peer's close frame, or None if none came.
        sent: Our close frame, or None if none was sent.

    What failed, if something did, is the ``__cause__``.
    """

    def __init__(self, received: Close | None = None, sent: Close | None = None) -> None:
        self.received = received
        self.sent = sent
        got = f"received {received}" if received else "no close frame received"
        gave = f"sent {sent}" if sent else "none sent"
        super().__init__(f"the connection is closed: {got}, {gave}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.received, self.sent)


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


class KeepaliveTimeout(WebSocketError, TimeoutError):
    """Nothing came from the peer within `ping_timeout` of a keepalive ping."""

    status_code = 1011
