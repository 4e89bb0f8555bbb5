"""Who is in which room, as it stands in Redis.

    <prefix>alive:<sender>   there as long as the process is, by its expiry
    <prefix>who:<room>       a hash: <sender>:<id of the member> -> its info as JSON

The entries of a process that is not alive count for nothing, and whoever comes
upon them removes them. Expiry is by Redis's clock alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .backplane import Presence
from .redis_link import Command, ReplyError

__all__ = ["Book", "look"]

# Seconds after which a room's hash is gone if nobody has written to it; all
# members are written again in half of that.
_KEPT = 86_400

#: Obeys commands and returns their answers.
Call = Callable[[list[Command]], list[Any]]

Entry = tuple[str, str]  # room, member


class Book:
    """The members here, and which of them are not yet so in Redis. Not thread-safe."""

    def __init__(self, prefix: str, sender: str, ttl: float) -> None:
        self._prefix = prefix
        self._sender = sender
        self._ttl = int(ttl * 1000)
        self._here: dict[Entry, bytes] = {}
        self._dirty: dict[Entry, None] = {}
        #: Counts changes.
        self.version = 0

    def __len__(self) -> int:
        return len(self._here)

    @property
    def dirty(self) -> bool:
        """Whether something is to be written."""
        return bool(self._dirty)

    def put(self, entry: Entry, info: Mapping[str, Any] | None) -> None:
        """Note a member; None: it is none any more."""
        if info is not None:
            self._here[entry] = json.dumps(info, separators=(",", ":")).encode()
        elif self._here.pop(entry, None) is None:
            return
        self._mark(entry)
        self.version += 1

    def _mark(self, entry: Entry) -> None:
        self._dirty[entry] = None

    def all_dirty(self) -> None:
        """Redis may have lost what it had."""
        for entry in self._here:
            self._mark(entry)

    def leave(self) -> None:
        """Nobody is here any more."""
        self.all_dirty()
        self._here.clear()

    def take(self, limit: int) -> list[tuple[Entry, bytes | None]]:
        """Return entries to write, with what they are now."""
        entries = list(self._dirty)[:limit] if len(self._dirty) > limit else list(self._dirty)
        for entry in entries:
            del self._dirty[entry]
        return [(entry, self._here.get(entry)) for entry in entries]

    def put_back(self, taken: list[tuple[Entry, bytes | None]]) -> None:
        """They were not written."""
        for entry, _ in taken:
            self._mark(entry)

    def commands(self, taken: list[tuple[Entry, bytes | None]]) -> list[Command]:
        """Return what writes them."""
        commands: list[Command] = []
        for (room, member), info in taken:
            key, field = self.key(room), f"{self._sender}:{member}"
            if info is None:
                commands.append(("HDEL", key, field))
            else:
                commands.append(("HSET", key, field, info))
                commands.append(("EXPIRE", key, _KEPT))
        return commands

    def key(self, room: str) -> str:
        """Return the key of a room's hash."""
        return f"{self._prefix}who:{room}"

    def alive(self, sender: str | None = None) -> str:
        """Return the key that says that a process is there."""
        return f"{self._prefix}alive:{sender or self._sender}"

    def announce(self) -> Command:
        """Return what says that this one is."""
        return ("SET", self.alive(), "1", "PX", self._ttl)

    def renew(self) -> Command:
        """Return what says so for longer; its answer is 0 if Redis has forgotten us."""
        return ("PEXPIRE", self.alive(), self._ttl)

    def refresh_after(self) -> float:
        """Return the seconds after which all are to be written again."""
        return _KEPT / 2


def look(call: Call, book: Book, room: str) -> list[Presence]:
    """Ask who is in a room, in other processes; remove who is left of those that are gone.

    Raises:
        ReplyError: Redis refused.
    """
    found: dict[str, list[tuple[bytes, bytes]]] = {}
    pairs = iter(_good(call([("HGETALL", book.key(room))])[0]))
    for field, info in zip(pairs, pairs, strict=True):
        found.setdefault(field.partition(b":")[0].decode(errors="replace"), []).append(
            (field, info)
        )
    found.pop(book._sender, None)
    senders = list(found)
    alive = call([("EXISTS", book.alive(sender)) for sender in senders])
    members: list[Presence] = []
    stale: list[bytes] = []
    for sender, there in zip(senders, alive, strict=True):
        if _good(there):
            members += filter(None, (_presence(field, info) for field, info in found[sender]))
        else:
            stale += [field for field, _ in found[sender]]
    if stale:
        call([("HDEL", book.key(room), *stale)])
    return members


def _good(answer: Any) -> Any:
    if isinstance(answer, ReplyError):
        raise answer
    return answer


def _presence(field: bytes, info: bytes) -> Presence | None:
    """Return an entry, if it is one."""
    try:
        value = json.loads(info)
        member = field.partition(b":")[2].decode()
    except (ValueError, RecursionError):
        return None
    return Presence(member, value) if isinstance(value, dict) else None
