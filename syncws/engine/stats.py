"""What is counted of one connection."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ConnectionStats"]


class ConnectionStats(NamedTuple):
    """What a connection has carried so far.

    Messages count whole, once their last fragment has come or was taken to be
    sent; bytes are those of their payloads before compression, text as UTF-8,
    without headers and control frames.

    Attributes:
        bytes_received: Bytes that have come.
        bytes_sent: Bytes that were taken to be sent.
        messages_received: Messages that have come.
        messages_sent: Messages that were taken to be sent.
    """

    bytes_received: int
    bytes_sent: int
    messages_received: int
    messages_sent: int
