"""What a scripted peer does, step by step."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..protocol.events import BINARY, CLOSE, PING, PONG, TEXT
from ..protocol.server_handshake import Refusal
from .peer import Peer

__all__ = [
    "Accept",
    "Ignore",
    "Refuse",
    "Step",
    "accept",
    "close",
    "drop",
    "expect",
    "expect_close",
    "expect_ping",
    "expect_pong",
    "hang",
    "ignore",
    "ping",
    "pong",
    "raw",
    "refuse",
    "send",
    "silence",
]

_NAMES = {TEXT: "the text", BINARY: "the bytes", PING: "a ping", PONG: "a pong", CLOSE: "a close"}


class Step:
    """Something that a peer does; made by the functions here.

    Args:
        text: How it is written in a script.
        play: Does it.
    """

    def __init__(self, text: str, play: Callable[[Peer], None]) -> None:
        self._text = text
        self.play = play

    def __repr__(self) -> str:
        return self._text


class Accept(Step):
    """Answers the handshake with 101."""

    def __init__(self, subprotocol: str | None, headers: Mapping[str, str]) -> None:
        super().__init__(f"accept({subprotocol!r})", lambda peer: None)
        self.subprotocol = subprotocol
        self.headers = tuple(headers.items())


class Refuse(Step):
    """Answers the handshake with another status."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"refuse({refusal.status})", lambda peer: None)
        self.refusal = refusal


class Ignore(Step):
    """Never answers the handshake."""

    def __init__(self) -> None:
        super().__init__("ignore()", lambda peer: None)


# -- The handshake, of servers ------------------------------------------------


def accept(subprotocol: str | None = None, headers: Mapping[str, str] | None = None) -> Step:
    """Accept the handshake; what a server's script begins with if it says nothing else.

    Args:
        subprotocol: The one to choose, whether or not it was offered.
        headers: Further headers of the response.
    """
    return Accept(subprotocol, headers or {})


def refuse(status: int, body: str = "", headers: Mapping[str, str] | None = None) -> Step:
    """Refuse the handshake with an HTTP status; the script ends."""
    return Refuse(Refusal(status, body, tuple((headers or {}).items())))


def ignore() -> Step:
    """Read the handshake's request and never answer; the script ends when the client leaves."""
    return Ignore()


# -- What is sent -------------------------------------------------------------


def send(message: str | bytes) -> Step:
    """Send a text, or bytes as a binary message."""
    _check_message(message)
    return Step(f"send({message!r})", lambda peer: peer.send(message))


def ping(data: bytes = b"") -> Step:
    """Send a ping; an answer is expected with `expect_pong`, or ignored."""
    return Step(f"ping({data!r})", lambda peer: peer.write(peer.encoder.ping(data)))


def pong(data: bytes = b"") -> Step:
    """Send a pong that nobody asked for."""
    return Step(f"pong({data!r})", lambda peer: peer.write(peer.encoder.pong(data)))


def raw(data: bytes) -> Step:
    """Send bytes as they are, whatever the protocol says of them."""
    return Step(f"raw({data!r})", lambda peer: peer.write(data))


# -- What is expected ---------------------------------------------------------


def expect(message: str | bytes | re.Pattern[str] | Callable[[Any], object]) -> Step:
    """Wait for the next message, which has to be this one.

    Pings before it are answered, pongs before it ignored.

    Args:
        message: A text; bytes, for a binary message; a compiled pattern that a
            text has to match as a whole; or a function that is given the
            message, and whose result has to be true.
    """
    if not isinstance(message, re.Pattern) and not callable(message):
        _check_message(message)
    return Step(f"expect({_shown(message)})", lambda peer: _expect(peer, message))


def expect_ping(data: bytes | None = None) -> Step:
    """Wait for a ping with these bytes, or with any; it is answered."""
    shown = "" if data is None else repr(data)
    return Step(f"expect_ping({shown})", lambda peer: _expect_control(peer, PING, data))


def expect_pong(data: bytes | None = None) -> Step:
    """Wait for a pong with these bytes, or with any."""
    shown = "" if data is None else repr(data)
    return Step(f"expect_pong({shown})", lambda peer: _expect_control(peer, PONG, data))


def expect_close(code: int | None = None, reason: str | None = None) -> Step:
    """Wait for a close frame, with this code and this reason or with any, and answer it.

    1005 stands for one without a code. The script ends.
    """
    shown = ", ".join(repr(one) for one in (code, reason) if one is not None)
    return Step(f"expect_close({shown})", lambda peer: _expect_close(peer, code, reason))


def silence() -> Step:
    """Send nothing more, whatever comes, until the other end closes or leaves; the script ends.

    Pings are answered, and so is the close frame.
    """
    return Step("silence()", lambda peer: peer.listen())


def hang() -> Step:
    """Read, but answer nothing at all until the other end leaves; the script ends."""
    return Step("hang()", lambda peer: peer.read_to_end())


# -- Ends ---------------------------------------------------------------------


def close(code: int = 1000, reason: str = "") -> Step:
    """Close, and wait for the other end's close frame; the script ends."""
    return Step(f"close({code}, {reason!r})", lambda peer: peer.close(code, reason))


def drop() -> Step:
    """End the connection without a close frame; the script ends."""
    return Step("drop()", lambda peer: peer.drop())


# -- What comes is what was expected, or an AssertionError --------------------


def _expect(peer: Peer, message: Any) -> None:
    opcode, data = peer.next_event((PING, PONG))
    if opcode not in (TEXT, BINARY) or not _matches(message, data):
        raise AssertionError(f"expected {_shown(message)}, but {_told(opcode, data)}")


def _matches(message: Any, data: Any) -> bool:
    if isinstance(message, re.Pattern):
        return isinstance(data, str) and message.fullmatch(data) is not None
    if callable(message):
        return bool(message(data))
    return type(message) is type(data) and bool(message == data)


def _expect_control(peer: Peer, wanted: int, data: bytes | None) -> None:
    opcode, got = peer.next_event((PONG if wanted == PING else PING,))
    if opcode != wanted or (data is not None and got != data):
        what = _NAMES[wanted] + ("" if data is None else f" with {data!r}")
        raise AssertionError(f"expected {what}, but {_told(opcode, got)}")


def _expect_close(peer: Peer, code: int | None, reason: str | None) -> None:
    opcode, got = peer.next_event((PING, PONG))
    found = (got.code or 1005, got.reason) if opcode == CLOSE else (None, None)
    if found[0] is None or code not in (None, found[0]) or reason not in (None, found[1]):
        shown = " ".join(str(one) for one in (code, reason) if one is not None)
        raise AssertionError(f"expected a close {shown}".rstrip() + f", but {_told(opcode, got)}")


def _told(opcode: int | None, data: Any) -> str:
    """Say what came instead."""
    if opcode is None:
        return f"the connection ended: {data}"
    if opcode == CLOSE:
        return f"the other end closed with {data.code or 1005} {data.reason}".rstrip()
    if opcode in _NAMES:
        return f"the other end sent {_NAMES[opcode]} {data!r}"
    return f"the other end broke the protocol: {data}"


def _shown(message: Any) -> str:
    if isinstance(message, re.Pattern):
        return f"re.compile({message.pattern!r})"
    if callable(message):
        return getattr(message, "__qualname__", repr(message))
    return repr(message)


def _check_message(message: object) -> None:
    if not isinstance(message, (str, bytes)):
        raise TypeError(f"a message is a str or bytes, not {message!r}")
