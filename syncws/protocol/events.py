"""What a decoder gives: messages, control frames, and the end."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["BINARY", "CLOSE", "ERROR", "PING", "PONG", "TEXT", "Event"]

# Opcodes, RFC 6455 section 5.2, and one of our own for a failed connection.
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA
ERROR = -1


class Event(NamedTuple):
    """What arrived.

    Attributes:
        opcode: TEXT, BINARY, PING, PONG, CLOSE or ERROR.
        data: A str for TEXT, bytes for BINARY, PING and PONG, a `Close` for
            CLOSE, a `WebSocketError` for ERROR.
        final: False for a fragment that others follow.

    Nothing follows CLOSE or ERROR.
    """

    opcode: int
    data: Any
    final: bool = True
