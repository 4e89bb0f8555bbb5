"""What the threads of a `RedisBackplane` share: settings, figures, and what is asked of them."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from ..logs import log_safely
from ..timing import Backoff
from .backplane import Deliver
from .redis_link import Server

__all__ = ["LOG", "BackplaneStats", "Health", "Settings", "Subscriptions"]

LOG = logging.getLogger("syncws.groups")


class BackplaneStats(NamedTuple):
    """What a `RedisBackplane` has done since this process began to use it.

    Attributes:
        connected: Whether it reaches Redis, as far as it knows.
        rooms: Rooms that it listens to: those with members here.
        queued: Messages that wait to be sent.
        sent: Messages that Redis has taken.
        unsent: Messages that were accepted and given up: the queue was full,
            Redis refused them, or there was no time left when it was closed.
        received: Messages of other processes, for rooms with members here.
        missed: Messages of other processes that never came here, known from
            gaps in their senders' numbers; in mode "stream" also those for
            rooms without members here.
        duplicates: Messages that came again, and were dropped.
        malformed: What came and is none of ours, and was dropped.
        losses: How often the connection to Redis was lost, or could not be made.
    """

    connected: bool
    rooms: int
    queued: int
    sent: int
    unsent: int
    received: int
    missed: int
    duplicates: int
    malformed: int
    losses: int


@dataclass(frozen=True)
class Settings:
    """What a `RedisBackplane` was made with; see there."""

    server: Server
    streams: bool
    prefix: str
    shards: int
    stream_length: int
    stream_ttl: float
    presence_ttl: float
    queue_size: int
    queue_bytes: int
    max_message_size: int
    timeout: float
    retry_interval: float
    max_retry_interval: float

    def channel(self, room: str) -> str:
        """Return the key or channel that a room's messages go through."""
        if self.streams:
            return f"{self.prefix}stream:{zlib.crc32(room.encode()) % self.shards}"
        return f"{self.prefix}room:{room}"

    def wake(self, sender: str) -> str:
        """Return the key or channel by which a process wakes its own reader."""
        return f"{self.prefix}wake:{sender}"

    def backoff(self) -> Backoff:
        """Return the waits between attempts to connect."""
        return Backoff(self.retry_interval, 2.0, self.max_retry_interval, 0.25)


class Health:
    """Figures, and a line in the log when Redis is lost and when it is back. Any thread."""

    def __init__(self, place: str) -> None:
        self._place = place
        # Guarded by _lock.
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._down: set[str] = set()
        self._up: set[str] = set()
        self._since = 0.0
        self._told_full = False

    def count(self, name: str, by: int = 1) -> None:
        """Add to a figure."""
        with self._lock:
            self._counts[name] += by

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    @property
    def connected(self) -> bool:
        """Whether all threads that want a connection have one."""
        return bool(self._up) and not self._down

    def lost(self, who: str, error: BaseException) -> None:
        """A thread has lost its connection, or got none."""
        with self._lock:
            first = not self._down
            self._counts["losses"] += first
            self._up.discard(who)
            self._down.add(who)
            if first:
                self._since = time.monotonic()
        if first:
            log_safely(
                LOG,
                logging.WARNING,
                "no connection to Redis at %s, trying again: %s",
                self._place,
                error,
            )

    def back(self, who: str) -> None:
        """A thread has a connection."""
        with self._lock:
            self._up.add(who)
            last = self._down == {who}
            self._down.discard(who)
            seconds = time.monotonic() - self._since
            unsent = self._counts["unsent"]
            if last:
                self._told_full = False
        if last:
            log_safely(
                LOG,
                logging.INFO,
                "connected to Redis at %s again after %.1f s; %d messages were not sent so far",
                self._place,
                seconds,
                unsent,
            )

    def rests(self, who: str) -> None:
        """A thread needs no connection."""
        with self._lock:
            self._up.discard(who)
            self._down.discard(who)

    def gave_up(self, number: int, why: str) -> None:
        """Messages will never be sent. Told once until the next return of Redis."""
        with self._lock:
            self._counts["unsent"] += number
            told, self._told_full = self._told_full, True
        if not told:
            log_safely(
                LOG, logging.ERROR, "messages for Redis at %s are lost: %s", self._place, why
            )


class Subscriptions:
    """The rooms to listen to, and how far the reader is in listening to them."""

    def __init__(self) -> None:
        # Guarded by changed.
        self.changed = threading.Condition()
        self.wanted: dict[str, Deliver] = {}
        self._dirty: set[str] = set()
        self._version = 0
        self._settled = 0

    def put(self, room: str, deliver: Deliver | None) -> None:
        """Listen to a room, or do so no more."""
        with self.changed:
            if deliver is None:
                self.wanted.pop(room, None)
            else:
                self.wanted[room] = deliver
            self._dirty.add(room)
            self._version += 1

    def take(self, limit: int) -> tuple[list[str], int]:
        """Return rooms that have changed, and what they are settled by; -1 if there are more."""
        with self.changed:
            taken = [self._dirty.pop() for _ in range(min(limit, len(self._dirty)))]
            return taken, -1 if self._dirty else self._version

    def take_all(self) -> int:
        """Forget which have changed; return what all are settled by."""
        with self.changed:
            self._dirty.clear()
            return self._version

    def all_changed(self) -> None:
        """Nothing is listened to now."""
        with self.changed:
            self._dirty = set(self.wanted)

    def settle(self, version: int) -> None:
        """All up to this version is listened to."""
        with self.changed:
            self._settled = max(self._settled, version)
            self.changed.notify_all()

    def wait(self, timeout: float | None) -> bool:
        """Wait until all that is wanted now is listened to; return whether it is."""
        with self.changed:
            version = self._version
            return self.changed.wait_for(lambda: self._settled >= version, timeout)
