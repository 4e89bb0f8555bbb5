"""What is counted of one connection."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NOTHING_YET", "ConnectionStats"]


class ConnectionStats(NamedTuple):
    """What a connection has carried so far.

    Messages count whole, once their last fragment has come or was taken to be
    sent; bytes are those of their payloads before compression, text as UTF-8,
    without headers and control frames.

    Attributes:
        bytes_received: Bytes that have come.
        bytes_sent: Bytes that were taken to be sent.
        messages_received: Messages that have come.
        messages_sent: Messages that were taken to be sent; a group may have dropped
            some of them since.
        duration: Seconds from the end of the opening handshake to the end of the
            connection, or to now.
    """

    bytes_received: int
    bytes_sent: int
    messages_received: int
    messages_sent: int
    duration: float

    def plus(self, other: ConnectionStats) -> ConnectionStats:
        """Return what both have carried together."""
        return ConnectionStats(
            self.bytes_received + other.bytes_received,
            self.bytes_sent + other.bytes_sent,
            self.messages_received + other.messages_received,
            self.messages_sent + other.messages_sent,
            self.duration + other.duration,
        )


NOTHING_YET = ConnectionStats(0, 0, 0, 0, 0.0)
