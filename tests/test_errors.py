from __future__ import annotations

import pickle

import pytest

from syncws import errors
from syncws.errors import (
    BackplaneError,
    Close,
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    HandshakeError,
    HandshakeRejected,
    InvalidContinuationFrameError,
    InvalidPayloadError,
    KeepaliveTimeout,
    MessageTimeout,
    MessageTypeError,
    OverloadError,
    PayloadTooBigError,
    ProtocolError,
    ProxyAuthenticationError,
    ProxyError,
    ReceiveTimeout,
    Reconnecting,
    RetriesExhausted,
    SendTimeout,
    TLSError,
    WebSocketError,
)
from syncws.protocol.client_handshake import Response
from syncws.protocol.headers import Headers


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (WebSocketError, [Exception]),
        (BackplaneError, [WebSocketError]),
        (ConnectError, [WebSocketError, ConnectionError, OSError]),
        (ConnectTimeout, [ConnectError, TimeoutError]),
        (HandshakeError, [ConnectError]),
        (HandshakeRejected, [ConnectError]),
        (TLSError, [ConnectError]),
        (ProxyError, [ConnectError]),
        (ProxyAuthenticationError, [ProxyError]),
        (RetriesExhausted, [ConnectError]),
        (ConnectionClosed, [WebSocketError]),
        (Reconnecting, [WebSocketError, ConnectionError]),
        (ProtocolError, [WebSocketError]),
        (InvalidContinuationFrameError, [ProtocolError]),
        (InvalidPayloadError, [ProtocolError]),
        (PayloadTooBigError, [WebSocketError]),
        (MessageTypeError, [WebSocketError, TypeError]),
        (ReceiveTimeout, [WebSocketError, TimeoutError]),
        (SendTimeout, [WebSocketError, TimeoutError]),
        (KeepaliveTimeout, [WebSocketError, TimeoutError]),
        (MessageTimeout, [WebSocketError, TimeoutError]),
        (OverloadError, [WebSocketError]),
    ],
)
def test_the_tree(error: type[Exception], bases: list[type[Exception]]) -> None:
    for base in bases:
        assert issubclass(error, base)
    # As drawn at the top of the module, and with a docstring of its own.
    assert errors.__doc__ is not None
    assert error.__name__ in errors.__doc__
    assert error.__doc__
    assert error.__name__ in errors.__all__


def test_a_closed_connection_is_no_connect_error() -> None:
    assert not issubclass(ConnectionClosed, (ConnectError, OSError))
    assert not issubclass(ReceiveTimeout, ConnectError)


@pytest.mark.parametrize(
    ("error", "status_code"),
    [
        (ProtocolError, 1002),
        (InvalidContinuationFrameError, 1002),
        (InvalidPayloadError, 1007),
        (PayloadTooBigError, 1009),
        (KeepaliveTimeout, 1011),
        (MessageTimeout, 1008),
        (OverloadError, 1013),
    ],
)
def test_status_codes(error: type[WebSocketError], status_code: int) -> None:
    assert error("x").status_code == status_code  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("close", "text"),
    [
        (Close(1000), "1000"),
        (Close(1001, ""), "1001"),
        (Close(4000, "because"), "4000 (because)"),
    ],
)
def test_close(close: Close, text: str) -> None:
    assert str(close) == text
    code, reason = close
    assert (code, reason) == (close.code, close.reason)


@pytest.mark.parametrize(
    ("received", "sent", "text"),
    [
        (None, None, "no close frame received, none sent"),
        (Close(1000), None, "received 1000, none sent"),
        (None, Close(1001, "bye"), "no close frame received, sent 1001 (bye)"),
        (Close(1005), Close(1005), "received 1005, sent 1005"),
    ],
)
def test_connection_closed(received: Close | None, sent: Close | None, text: str) -> None:
    error = ConnectionClosed(received, sent)
    assert error.received == received
    assert error.sent == sent
    assert str(error) == f"the connection is closed: {text}"


def test_connection_closed_without_arguments() -> None:
    error = ConnectionClosed()
    assert (error.received, error.sent) == (None, None)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", ""),
        (b"  \n", ""),
        (b"no such path\n", ": no such path"),
        (b"\xff", ": \ufffd"),
        (b"x" * 1000, ": " + "x" * 200),
    ],
)
def test_handshake_rejected(body: bytes, text: str) -> None:
    headers = Headers([("Server", "test")])
    response = Response(404, headers, body)
    error = HandshakeRejected(response)
    assert error.response is response
    assert (error.status, error.headers, error.body) == (404, headers, body)
    assert str(error) == f"the server answered with HTTP status 404, not 101{text}"


def test_retries_exhausted() -> None:
    reasons = [("ws://one/", ConnectError("refused")), ("ws://two/", ConnectTimeout("late"))]
    error = RetriesExhausted(reasons, 7)
    assert (error.reasons, error.attempts) == (tuple(reasons), 7)
    assert str(error) == "no connection after 7 attempts: ws://one/: refused; ws://two/: late"
    assert "after 1 attempt: " in str(RetriesExhausted(reasons[:1], 1))


@pytest.mark.parametrize(
    ("message", "expected", "text"),
    [
        (b"abc", "text", "expected a text message, received a binary one of 3 bytes"),
        ("a€", "binary", "expected a binary message, received a text one of 2 characters"),
    ],
)
def test_message_type_error(message: str | bytes, expected: str, text: str) -> None:
    error = MessageTypeError(expected, message)
    assert error.message == message
    assert text in str(error)
    assert "receive() takes both" in str(error)


def unsure() -> ConnectionClosed:
    error = ConnectionClosed()
    error.maybe_sent = True
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionClosed(Close(1000), Close(1001, "bye")),
        HandshakeRejected(Response(404, Headers([("Server", "test")]), b"no such path")),
        Reconnecting("later", maybe_sent=True),
        ConnectionClosed(Close(1000), unsent=5),
        unsure(),
        MessageTypeError("text", b"abc"),
        SendTimeout("no room"),
        ProxyError("it is away", "http://proxy:3128"),
        ProxyError("it refused", "socks5://proxy:1080", 2),
        ProxyAuthenticationError("who are you?", "http://proxy:3128", 407, "realm"),
        PayloadTooBigError("too big"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_can_be_handed_to_another_process(error: WebSocketError) -> None:
    # As the pools of multiprocessing and test runners do.
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
