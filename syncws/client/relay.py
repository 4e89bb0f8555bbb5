"""Between one connection and an inbox that outlives it.

Threads: as the inbox's; see `engine.dispatch`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..engine.dispatch import CLOSED, Inbox, nothing
from ..engine.state import NO_CLOSE
from ..protocol.events import CLOSE, ERROR, Event

__all__ = ["Relay"]

# What makes a dispatcher conclude a connection, and no callback hears of.
_END = Event(CLOSE, NO_CLOSE)

#: The relays whose connections the inbox has still to conclude, in the order
#: in which it comes to them.
Concluding = deque["Relay"]


class Relay:
    """Passes everything on but the end of the connection: it may not be the last.

    Args:
        inbox: The inbox.
        concluding: What all relays of the inbox share; whoever owns it has the
            inbox's `on_last` conclude the first of them.

    Attributes:
        on_last: Set by the connection; see `Inbox`. It must not be called for
            the connection before.
        error: What the connection failed with, if the inbox was to hear of that.
    """

    __slots__ = ("_before", "_concluding", "_inbox", "error", "hears_close", "on_last")

    def __init__(self, inbox: Inbox, concluding: Concluding) -> None:
        self._inbox = inbox
        self._concluding = concluding
        self.hears_close = inbox.hears_close
        self.on_last: Callable[[], None] = nothing
        self.error: BaseException | None = None
        self._before = inbox.total()  # what other connections have delivered

    @property
    def on_room(self) -> Callable[[], None]:
        """See `Inbox`."""
        return self._inbox.on_room

    @on_room.setter
    def on_room(self, call: Callable[[], None]) -> None:
        self._inbox.on_room = call

    def put(self, event: Event) -> bool:
        """Deliver `event`; return whether what waits has reached its bound."""
        opcode = event[0]
        if opcode == CLOSED:
            return False
        if opcode == ERROR:
            self.error = event.data
            event = _END
        if opcode == CLOSE or opcode == ERROR:
            if self.hears_close:
                return False  # it would take it for the last
            self._concluding.append(self)
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

    def waiting(self) -> int:
        """See `Inbox`."""
        return self._inbox.waiting()

    def total(self) -> int:
        """See `Inbox`."""
        return self._inbox.total() - self._before

    def bound(self, max_count: int, max_size: int) -> None:
        """See `Inbox`."""
        self._inbox.bound(max_count, max_size)

    def close(self) -> None:
        """See `Inbox`."""
        self._inbox.close()
