"""The life of a connection, from the end of its opening handshake.

    OPEN ──> CLOSING ──────────> ENDING ──> CLOSED
      └────> ANSWERING ────────────^          ^
                any of them, TCP lost ────────┘

RFC 6455 section 7.
"""

from __future__ import annotations

import enum

from ..errors import Close, ConnectionClosed

__all__ = ["MOVES", "NO_CLOSE", "End", "State"]

# No close frame was received. RFC 6455 section 7.1.5.
NO_CLOSE = Close(1006)


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


class End:
    """How a connection came to its end. Written under its lock.

    Attributes:
        received: The peer's close frame.
        sent: Ours.
        error: Why the connection failed, if it did.
        write_error: What writing to the socket failed with.
        unsent: Bytes that were queued when it was lost.
    """

    __slots__ = ("error", "received", "sent", "unsent", "write_error")

    def __init__(self) -> None:
        self.received: Close | None = None
        self.sent: Close | None = None
        self.error: BaseException | None = None
        self.write_error: OSError | None = None
        self.unsent = 0

    def closed_error(self, maybe_sent: bool = False) -> ConnectionClosed:
        """Return the error that tells of it; what failed is its cause.

        Args:
            maybe_sent: Whether the message at hand may be on its way.
        """
        error = ConnectionClosed(self.received, self.sent, self.unsent)
        error.maybe_sent = maybe_sent
        error.__cause__ = self.error or self.write_error
        return error
