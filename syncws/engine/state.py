"""The life of a connection, from the end of its opening handshake.

    OPEN ──> CLOSING ──────────> ENDING ──> CLOSED
      └────> ANSWERING ────────────^          ^
                any of them, TCP lost ────────┘

RFC 6455 section 7.
"""

from __future__ import annotations

import enum

__all__ = ["MOVES", "State"]


class State(enum.Enum):
    """Where a connection stands."""

    OPEN = "messages go both ways"
    CLOSING = "our close frame is sent, the peer's is awaited"
    ANSWERING = "the peer has closed or failed; who has its last messages may still answer them"
    ENDING = "both are done with frames: what is queued goes out and TCP ends"
    CLOSED = "the socket is gone"


MOVES = {
    State.OPEN: {State.CLOSING, State.ANSWERING, State.ENDING, State.CLOSED},
    State.CLOSING: {State.ENDING, State.CLOSED},
    State.ANSWERING: {State.ENDING, State.CLOSED},
    State.ENDING: {State.CLOSED},
    State.CLOSED: set[State](),
}
