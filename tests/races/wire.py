"""A connection for stepped operations: its rounds are the test's, and what it did is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syncws.engine.dispatch import CLOSED
from syncws.engine.state import State
from syncws.errors import Close, ConnectionClosed
from syncws.protocol.events import BINARY, CLOSE, TEXT, Event
from tests.races.stepping import Walker
from tests.scripted import WAYS
from tests.test_engine_connection import Bench

__all__ = ["Wire"]

_Operation = Callable[["Wire"], Any]


class Wire(Bench):
    """A connection, its peer, and two operations on it.

    Args:
        first: One.
        second: The other.
        prepare: What comes before both.
        unblock: What a third thread does when both wait.
    """

    def __init__(
        self,
        first: _Operation,
        second: _Operation,
        prepare: _Operation | None = None,
        *,
        unblock: _Operation | None = None,
        **options: Any,
    ) -> None:
        super().__init__(WAYS[-1], **options)
        self._operations = first, second
        self._unblock = unblock or Wire.turn
        self.taken: list[str] = []
        self.refused: list[str] = []
        self.got: list[Event] = []  # by the peer
        if prepare is not None:
            prepare(self)

    def first(self) -> Any:
        return self._operations[0](self)

    def second(self) -> Any:
        return self._operations[1](self)

    def unblock(self) -> None:
        self._unblock(self)

    # -- Operations

    def send(self, text: str, opcode: int = TEXT, final: bool = True) -> None:
        """Send a message, and note whether it was taken."""
        try:
            self.connection.outbound.send(opcode, text.encode(), final)
        except ConnectionClosed as exc:
            if not exc.maybe_sent:
                self.refused.append(text)
        else:
            self.taken.append(text)

    def start_close(self, code: int = 4001) -> None:
        self.connection.start_close(Close(code), 5.0)

    def round(self) -> None:
        """What the I/O thread does."""
        self.turn(1)

    # -- What must hold

    def check(self, first: Walker, second: Walker) -> None:
        """Nothing was lost, nothing came twice, and there is one end."""
        first.result()
        second.result()
        cut = self.connection.state is State.CLOSED
        self._read()
        assert self.connection.outbound.size == 0
        texts = self.texts()
        assert len(texts) == len(set(texts))
        assert not set(self.refused) & set(texts)
        assert cut or set(self.taken) <= set(texts)
        if len(self.taken) > 1 and not cut:
            self.check_order(texts)
        self._end()

    def check_order(self, texts: list[str]) -> None:
        """What one thread has sent comes in the order it was sent."""

    def texts(self) -> list[str]:
        """Return what messages have come to the peer, and see that there is one close frame."""
        closes = [event for event in self.got if event.opcode == CLOSE]
        assert len(closes) <= 1
        assert not closes or self.got[-1] is closes[0]
        return [
            event.data if event.opcode == TEXT else event.data.decode()
            for event in self.got
            if event.opcode in (TEXT, BINARY)
        ]

    def _read(self) -> None:
        for _ in range(4):
            self.turn()
            self.got += self.peer_gets()

    def _end(self) -> None:
        """Come to the end, and see that everybody hears of it, once."""
        connection = self.connection
        if connection.state is not State.CLOSED:
            connection.abort()
            self.turn()
        assert connection.wait_closed(0)
        assert self.ended == [connection]
        assert connection not in self.loop._handlers
        assert not connection.outbound.open
        self.check_inbox()

    def check_inbox(self) -> None:
        """The end is the last, and comes once."""
        opcodes = self.opcodes()
        assert opcodes.count(CLOSED) == 1
        assert opcodes[-1] == CLOSED
