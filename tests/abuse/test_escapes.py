"""Escape sequences from a peer, on their way to somebody's terminal."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import syncws
from tests.support import HANG, RawPeer, RawServer, ServerRecorder, listening, open_pair

# It clears the screen, sets the title, rings, overwrites the line, begins
# another, and reverses what follows.
EVIL = "\x1b[2J\x1b]0;owned\x07\rok\n\u202e\x9b31m"


def assert_harmless(text: str) -> None:
    assert text.isprintable(), ascii(text)
    assert "\\x1b" in text


@pytest.mark.parametrize("role", ["server", "client"])
def test_the_reason_of_a_close(role: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "syncws")
    if role == "client":
        with open_pair() as (client, peer):
            peer.close_frame(1000, EVIL)
            with pytest.raises(syncws.ConnectionClosed) as caught:
                client.receive(timeout=HANG)
            error: BaseException = caught.value
            peer.end_writing()
    else:
        raised: list[BaseException] = []

        class Answers(ServerRecorder):
            def on_close(self, caller: Any, status_code: int, reason: str) -> None:
                assert reason == EVIL, "the service gets what was said"
                try:
                    caller.send_text("late")
                except syncws.ConnectionClosed as exc:
                    raised.append(exc)
                    super().on_close(caller, status_code, reason)
                    raise

        service = Answers()
        with listening(service) as listener, RawPeer.connect(listener) as peer:
            service.expect("on_open")
            peer.close_frame(1000, EVIL)
            peer.end_writing()
            service.expect("on_close", 1000, EVIL)
        (error,) = raised
        assert any("cut short" in message for message in caplog.messages)
    assert_harmless(str(error))
    for message in caplog.messages:
        assert message.isprintable(), ascii(message)


@pytest.mark.parametrize("place", ["reason", "realm", "nonsense"])
def test_what_a_proxy_says(place: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "syncws")
    evil = EVIL.replace("\r", "").replace("\n", "").replace("\u202e", "\xad").encode("latin-1")
    answer = {
        "reason": b"HTTP/1.1 503 " + evil + b"\r\n\r\n",
        "realm": b'HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm="\xad'
        + evil.replace(b"\x1b", b"\x9b").replace(b"\x07", b"")
        + b'"\r\n\r\n',
        "nonsense": evil,
    }[place]
    with RawServer() as server:
        server.url = "ws://app.example/"
        proxy = f"http://127.0.0.1:{server.port}"
        retry = syncws.RetryConfig(max_count=1, interval=0.0)
        opening = server.open_client(proxy=proxy, retry=retry)
        for _ in range(1 if place == "realm" else 2):
            with server.accept() as peer:
                peer.read_head()
                peer.send_bytes(answer)
        error = opening.error()
    assert str(error).isprintable(), ascii(error)
    assert "\\x9b31m" in str(error)
    for message in caplog.messages:
        assert message.isprintable(), ascii(message)


def test_the_body_of_a_refusal() -> None:
    body = EVIL.encode()
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with RawServer() as server:
        opening = server.open_client()
        with server.accept() as peer:
            peer.read_head()
            peer.send_bytes(head + body)
            error = opening.error()
    assert isinstance(error, syncws.HandshakeRejected)
    assert error.body == body
    assert_harmless(str(error))


@pytest.mark.parametrize(
    "head",
    [
        f"GET /{EVIL} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://{EVIL}\r\n\r\n",
        RawPeer.request("/", "Sec-WebSocket-Protocol: \x1b[2J").decode(),
        RawPeer.request("/%1b%5b2J%0a").decode(),
        RawPeer.request("/", "Origin: http://evil\x7f\x9b31m").decode("latin-1"),
        f"{EVIL} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["path", "header", "subprotocol", "encoded path", "origin", "method"],
)
def test_requests_in_the_log(head: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "syncws")
    service = ServerRecorder()
    with listening(service, "/room") as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(head.encode("utf-8", "surrogateescape"))
        answer = peer.read_head()
        assert answer.split()[1] in (b"400", b"403", b"404")
    assert any("refused" in message for message in caplog.messages)
    for message in caplog.messages:
        assert message.isprintable(), ascii(message)
