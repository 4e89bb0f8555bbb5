"""Rooms by name: groups that exist as long as somebody needs them, here or in other processes."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from ..endpoint import Endpoint
from ..errors import BackplaneError
from .backplane import Backplane, Presence
from .envelope import LONGEST_NAME
from .group import Group, _Membership

__all__ = ["Groups", "Room"]

# Seconds that a question after presence may take.
_ASK = 5.0

# Bytes of a member's info as JSON.
_LARGEST_INFO = 4096


class Room(Group):
    """A group with a name, from `Groups.room`: its members may be in several processes.

    Members that were added here get a message at once. It is on its way to
    the others when `send_text` returns; that counts the members here only.
    What one thread sends to a room arrives everywhere in its order.

    Beside what `Group` says, sending raises `BackplaneError` if the backplane
    cannot take the message, and `ValueError` if it is too big for that; then
    nobody has got it, here neither.
    """

    def __init__(self, owner: Groups, name: str, policy: str, compression: bool) -> None:
        self._owner = owner
        # Guarded by _owner's lock.
        self._present: dict[Endpoint, Presence] = {}
        super().__init__(name=name, policy=policy, compression=compression)

    @property
    def name(self) -> str:
        """What it is called."""
        assert self._name is not None
        return self._name

    def add(self, member: Endpoint, *, info: Mapping[str, Any] | None = None) -> bool:
        """Add a connection; return whether it is a member now: not if it has ended.

        Args:
            member: The caller or client.
            info: What `presence` tells of it in all processes, such as
                ``{"name": "Ann"}``; JSON has to be able to express it. None:
                `presence` does not tell of it.

        Raises:
            TypeError: `member` is no `Caller` or `Client`; `info` is no mapping.
            ValueError: JSON cannot express `info`, or takes more than 4,096
                bytes for it.
        """
        if info is not None:
            info = _checked(info)
        try:
            if not super().add(member):
                return False
        finally:
            try:
                self._owner._settle(self)
            except BaseException:
                super().discard(member)  # it would never hear of the other processes
                raise
        if info is not None:
            self._owner._join(self, member, info)
        return member in self

    def discard(self, member: Endpoint) -> None:
        """Remove a connection. Harmless if it is no member."""
        super().discard(member)
        self._owner._settle(self, member)

    def presence(self, timeout: float = _ASK) -> list[Presence]:
        """Return who is here, in all processes, of those that were added with `info`.

        Blocks while the backplane is asked; those of this process are in it
        in any case as they are now.

        Args:
            timeout: Seconds to wait.

        Raises:
            BackplaneError: There was no answer.
        """
        return self._owner.who(self.name, timeout)

    def _leave(self, member: Endpoint, membership: _Membership) -> None:
        super()._leave(member, membership)
        self._owner._settle(self, member)

    def _send(self, opcode: int, payload: bytes, exclude: AbstractSet[Endpoint]) -> int:
        self._owner._publish(self.name, opcode, payload)
        return self._deliver(opcode, payload, exclude)

    def _receive(self, opcode: int, payload: bytes) -> None:
        """Another process has sent this."""
        self._deliver(opcode, payload, frozenset())


class Groups:
    """Rooms by name.

    A room is there as long as it has members or you hold it, and takes no
    memory afterwards. Iterating goes through the rooms that have members in
    this process; `len` counts them. Every method may be called from any
    thread.

    Args:
        backplane: What carries messages to other processes and back, such as
            a `RedisBackplane`; nobody else's. None: rooms are of this process
            only. It is started with the first member or message, so a server
            that forks may make this before it does.
        policy: What becomes of a message for a member that has too much to
            read still; see `Group`.
        compression: Whether members that have agreed on it get messages
            compressed; see `Group`.

    Raises:
        TypeError: `backplane` is none; `compression` is no bool.
        ValueError: It belongs to other groups; there is no such policy.
    """

    def __init__(
        self,
        backplane: Backplane | None = None,
        *,
        policy: str = "close",
        compression: bool = True,
    ) -> None:
        if backplane is not None and not isinstance(backplane, Backplane):
            hint = ": write Groups(RedisBackplane(url))" if isinstance(backplane, str) else ""
            # Of a URL no more, for it may have a password.
            raise TypeError(
                f"backplane is a Backplane or None, not {type(backplane).__name__}{hint}"
            )
        Group(policy=policy, compression=compression)  # which checks them
        self._policy = policy
        self._compression = compression
        self._backplane = backplane
        # Guarded by _lock. An RLock: a destructor that the collector runs, or a
        # signal handler, may come back here.
        self._lock = threading.RLock()
        self._rooms: weakref.WeakValueDictionary[str, Room] = weakref.WeakValueDictionary()
        self._occupied: dict[str, Room] = {}
        self._started = False
        self._closed = False
        if backplane is not None:
            if backplane in _taken:
                raise ValueError(f"{backplane!r} belongs to other groups")
            _taken.add(backplane)
        _all.add(self)

    def __repr__(self) -> str:
        return f"<syncws.Groups of {len(self._occupied)} rooms>"

    def room(self, name: str) -> Room:
        """Return the room of this name.

        Raises:
            TypeError: `name` is no str.
            ValueError: It is empty, is longer than 1,024 bytes of UTF-8, or
                has surrogates.
        """
        if not isinstance(name, str):
            raise TypeError(f"a room's name is a str, not {name!r:.60}")
        if not 0 < len(name.encode()) <= LONGEST_NAME:
            raise ValueError(f"a room's name has 1 to {LONGEST_NAME} bytes of UTF-8: {name!r:.60}")
        with self._lock:
            room = self._rooms.get(name)
            if room is None:
                room = self._rooms[name] = Room(self, name, self._policy, self._compression)
            return room

    def __len__(self) -> int:
        return len(self._occupied)

    def __bool__(self) -> bool:
        return True  # also without rooms

    def __contains__(self, name: object) -> bool:
        return name in self._occupied

    def __iter__(self) -> Iterator[Room]:
        """Go through the rooms that have members here now."""
        with self._lock:
            return iter(list(self._occupied.values()))

    def who(self, name: str, timeout: float = _ASK) -> list[Presence]:
        """Return who is in a room; in all as `Room.presence`."""
        room = self.room(name)
        found: dict[str, Presence] = {}
        if self._backplane is not None:
            with self._lock:
                self._start()
            found = {one.id: one for one in self._backplane.who(name, timeout)}
        with self._lock:
            here = list(room._present.values())
        return list((found | {one.id: one for one in here}).values())

    def flush(self, timeout: float = _ASK) -> bool:
        """Wait until what was sent, and who was added, is known to the backplane.

        Afterwards members here get what is sent in other processes from then on.

        Returns:
            Whether it is; False after `timeout` seconds.
        """
        backplane = self._backplane
        return backplane is None or not self._started or backplane.flush(timeout)

    def close(self, timeout: float = _ASK) -> None:
        """Part from the other processes; members stay connected. Harmless twice.

        Args:
            timeout: Seconds in which what was sent before may go out.
        """
        with self._lock:
            started, self._closed = self._started and not self._closed, True
        if self._backplane is not None and started:
            self._backplane.close(timeout)

    def __enter__(self) -> Groups:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- Called by rooms ---------------------------------------------------

    def _start(self) -> None:
        """Start the backplane if it has not been. Requires _lock."""
        if self._closed:
            raise BackplaneError("these groups are closed")
        if not self._started and self._backplane is not None:
            self._backplane.start()
            self._started = True

    def _publish(self, name: str, opcode: int, payload: bytes) -> None:
        backplane = self._backplane
        if backplane is not None:
            if self._closed or not self._started:
                with self._lock:
                    self._start()
            backplane.publish(name, opcode, payload)

    def _settle(self, room: Room, gone: Endpoint | None = None) -> None:
        """A room may have its first member now, or none any more, and `gone` may be none."""
        name, backplane = room.name, self._backplane
        with self._lock:
            if gone is not None and gone not in room:
                self._gone(room, gone)
            occupied = len(room) > 0
            if occupied == (name in self._occupied):
                return
            if not occupied:
                del self._occupied[name]
                if backplane is not None:
                    backplane.unsubscribe(name)
            else:
                if backplane is not None and not self._closed:
                    self._start()
                    backplane.subscribe(name, room._receive)
                self._occupied[name] = room

    def _join(self, room: Room, member: Endpoint, info: Mapping[str, Any]) -> None:
        with self._lock:
            if member not in room:
                return  # it has ended meanwhile
            if self._backplane is not None and not self._closed:
                self._backplane.join(room.name, member.id, info)
            room._present[member] = Presence(member.id, info)

    def _gone(self, room: Room, member: Endpoint) -> None:
        """Requires _lock."""
        if room._present.pop(member, None) is not None and self._backplane is not None:
            self._backplane.leave(room.name, member.id)

    def _after_fork(self) -> None:
        """In the child, where the members' connections are not."""
        self._lock = threading.RLock()
        self._started = False
        for room in self._occupied.values():
            room._members = {}
            room._present = {}
        self._occupied = {}


def _checked(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of what JSON can express."""
    if not isinstance(info, Mapping):
        raise TypeError(f"info is a mapping, not {info!r:.60}")
    try:
        text = json.dumps(dict(info), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"JSON cannot express {info!r:.60}: {exc}") from None
    if len(text) > _LARGEST_INFO:
        raise ValueError(f"info has at most {_LARGEST_INFO} bytes as JSON, not {len(text)}")
    copy: dict[str, Any] = json.loads(text)
    return copy


_all: weakref.WeakSet[Groups] = weakref.WeakSet()
_taken: weakref.WeakSet[Backplane] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for groups in list(_all):
        groups._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
