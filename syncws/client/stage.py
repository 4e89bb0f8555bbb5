"""How far a client is that connects again.

CONNECTED ──> WAITING <──> DIALING ──> CONNECTED
    any of them ──> CLOSED
"""

from __future__ import annotations

import enum

__all__ = ["MOVES", "Stage"]


class Stage(enum.Enum):
    """Where a client stands between its first connection and its end."""

    CONNECTED = "there is a connection"
    WAITING = "the next attempt is a while away"
    DIALING = "a worker connects"
    CLOSED = "it has ended for good"


MOVES = {
    Stage.CONNECTED: {Stage.WAITING, Stage.CLOSED},
    Stage.WAITING: {Stage.DIALING, Stage.CLOSED},
    Stage.DIALING: {Stage.WAITING, Stage.CONNECTED, Stage.CLOSED},
    Stage.CLOSED: set[Stage](),
}
