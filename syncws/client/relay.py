"""Between one connection and an inbox that outlives it.

Threads: as the inbox's; see `engine.dispatch`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..engine.dispatch import CLOSED, Inbox
from ..protocol.events import CLOSE, ERROR, Event

__all__ = ["Relay"]

# What makes a dispatcher conclude a connection, and no callback hears of.
_END = Event(CLOSE, None)


class Relay:
    """Passes everything on but the end of the connection: it may not be the last.

    Attributes:
        error: What the connection failed with, if the inbox was to hear of that.
    """

    __slots__ = ("_inbox", "error", "hears_close")

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.hears_close = inbox.hears_close
        self.error: BaseException | None = None

    @property
    def on_room(self) -> Callable[[], None]:
        """See `Inbox`."""
        return self._inbox.on_room

    @on_room.setter
    def on_room(self, call: Callable[[], None]) -> None:
        self._inbox.on_room = call

    @property
    def on_last(self) -> Callable[[], None]:
        """See `Inbox`."""
        return self._inbox.on_last

    @on_last.setter
    def on_last(self, call: Callable[[], None]) -> None:
        self._inbox.on_last = call

    def put(self, event: Event) -> bool:
        """Deliver `event`; return whether what waits has reached its bound."""
        opcode = event[0]
        if opcode == CLOSED:
            return False
        if opcode == ERROR:
            self.error = event.data
            event = _END
        if opcode in (CLOSE, ERROR) and self.hears_close:
            return False  # it would take it for the last
        return self._inbox.put(event)

    def pause(self) -> bool:
        """See `Inbox`."""
        return self._inbox.pause()

    def busy(self) -> bool:
        """See `Inbox`; one that hears of closes here would not, and so is not waited for."""
        return not self.hears_close and self._inbox.busy()

    def idle(self) -> bool:
        """See `Inbox`."""
        return self._inbox.idle()

    def close(self) -> None:
        """See `Inbox`."""
        self._inbox.close()
