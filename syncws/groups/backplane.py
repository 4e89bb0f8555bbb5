"""What carries groups over processes, and what is in one room of all of them."""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Backplane", "Deliver", "MemoryBackplane", "Presence"]

#: Takes a message for the members here: its opcode (1 text, 2 binary) and its payload.
Deliver = Callable[[int, bytes], object]


class Presence(NamedTuple):
    """Somebody who is in a room, in whatever process.

    Attributes:
        id: The `id` of the caller or client.
        info: What was given when it was added.
    """

    id: str
    info: Mapping[str, Any]


class Backplane(abc.ABC):
    """Carries messages of rooms to the other processes, and knows who is where.

    `Groups` calls these methods, from any thread and from several at once;
    write your own for another message broker. A backplane belongs to one
    `Groups`. The members in the same process get a message without it, so it
    must not come back to where it was published.

    All but `who`, `flush` and `close` must not block: they are called from
    callbacks, and `unsubscribe` and `leave` also from the I/O thread when a
    member's connection ends. What they ask for may take effect a little later.

    Methods are called in this order: `start`; then all the others; `close` at
    the end. After a fork the child calls `start` again, and subscribes its own
    rooms; threads and connections of the parent are none of its business.
    """

    def start(self) -> None:  # noqa: B027  # there may be nothing to do
        """Get ready: the first of the other methods is about to be called.

        Once in each process that uses it; not when it is made, for a server
        that forks makes it before it does.
        """

    @abc.abstractmethod
    def publish(self, room: str, opcode: int, payload: bytes) -> None:
        """Have a message delivered to the room in every other process.

        Messages of one thread arrive in its order.

        Args:
            room: The room's name.
            opcode: 1 for text, 2 for binary.
            payload: The message; of a text valid UTF-8.

        Raises:
            BackplaneError: It cannot be taken. Then no member gets it, here
                neither.
            ValueError: It is too big.
        """

    @abc.abstractmethod
    def subscribe(self, room: str, deliver: Deliver) -> None:
        """Begin to call `deliver(opcode, payload)` for what others publish to the room.

        The room has its first member here. `deliver` does not block and does
        not raise; it may be called from any thread, but for one room from one
        at a time.
        """

    @abc.abstractmethod
    def unsubscribe(self, room: str) -> None:
        """Stop that: the room has no member here any more."""

    @abc.abstractmethod
    def join(self, room: str, member: str, info: Mapping[str, Any]) -> None:
        """A member here is to be seen in all processes, with `info`, which JSON can express.

        Again for a member that has joined: its info is another one.
        """

    @abc.abstractmethod
    def leave(self, room: str, member: str) -> None:
        """It is to be seen no more."""

    @abc.abstractmethod
    def who(self, room: str, timeout: float) -> list[Presence]:
        """Return who is in a room, in other processes at least. May block.

        Raises:
            BackplaneError: It could not be found out within `timeout` seconds.
        """

    def flush(self, timeout: float) -> bool:
        """Wait until all that was asked for before has taken effect; return whether it has."""
        return True

    def close(self, timeout: float) -> None:  # noqa: B027
        """Send what is still to be sent, for up to `timeout` seconds, and end.

        What is asked for afterwards raises `BackplaneError`; leaving and
        unsubscribing do nothing.
        """


class _Hub:
    """What joined `MemoryBackplane`s share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.planes: list[MemoryBackplane] = []


class MemoryBackplane(Backplane):
    """Joins several `Groups` of one process: for tests, and as an example.

    Args:
        other: One that it is joined to; None for the first.
    """

    def __init__(self, other: MemoryBackplane | None = None) -> None:
        self._hub: _Hub = _Hub() if other is None else other._hub
        self._rooms: dict[str, Deliver] = {}
        self._here: dict[str, dict[str, Presence]] = {}
        with self._hub.lock:
            self._hub.planes.append(self)

    def publish(self, room: str, opcode: int, payload: bytes) -> None:
        """Deliver to the others, in this thread."""
        with self._hub.lock:
            others = [plane._rooms.get(room) for plane in self._hub.planes if plane is not self]
        for deliver in others:
            if deliver is not None:
                deliver(opcode, payload)

    def subscribe(self, room: str, deliver: Deliver) -> None:
        """Deliver what the others publish."""
        with self._hub.lock:
            self._rooms[room] = deliver

    def unsubscribe(self, room: str) -> None:
        """Deliver no more."""
        with self._hub.lock:
            self._rooms.pop(room, None)

    def join(self, room: str, member: str, info: Mapping[str, Any]) -> None:
        """Note a member."""
        with self._hub.lock:
            self._here.setdefault(room, {})[member] = Presence(member, info)

    def leave(self, room: str, member: str) -> None:
        """Forget a member."""
        with self._hub.lock:
            members = self._here.get(room, {})
            members.pop(member, None)
            if not members:
                self._here.pop(room, None)

    def who(self, room: str, timeout: float) -> list[Presence]:
        """Return the members of all."""
        with self._hub.lock:
            return [one for p in self._hub.planes for one in p._here.get(room, {}).values()]

    def close(self, timeout: float) -> None:
        """Part from the others."""
        with self._hub.lock:
            if self in self._hub.planes:
                self._hub.planes.remove(self)
