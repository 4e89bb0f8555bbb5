"""Groups over processes and machines, by a Redis server."""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from ..errors import BackplaneError
from ..timing import Deadline, check_timeout
from .backplane import Backplane, Deliver, Presence
from .redis_link import Server
from .redis_reader import ChannelReader, Reader, StreamReader
from .redis_state import BackplaneStats, Health, Settings, Subscriptions
from .redis_writer import Writer

__all__ = ["MODES", "RedisBackplane"]

#: How messages go through Redis.
MODES = ("pubsub", "stream")


class RedisBackplane(Backplane):
    """Carries rooms by a Redis server: ``Groups(RedisBackplane("redis://localhost"))``.

    Needs redis-py: ``pip install redis``. One thread writes and one
    reads, each on a connection of its own; both start with the first member or
    message, and make a new connection when theirs is lost. After a fork the
    child has its own.

    Guarantees:
        - What one process sends to a room arrives in every other one in its
          order, and never twice.
        - mode="pubsub": a message arrives wherever the connection to Redis
          stands. What is sent while it does not may be lost.
        - mode="stream": a message also arrives where the connection was lost
          meanwhile, unless more than `stream_length` others came in between,
          or Redis itself has lost it.
        - What has not arrived is counted: as `unsent` where it was sent, as
          `missed` where it should have come and another one came after it.

    Args:
        url: As redis-py takes it: ``redis://``, ``rediss://`` for TLS or
            ``unix://``, with a password if there is one; it is in no log and
            in no error.
        mode: One of `MODES`.
        prefix: Begins the names of all keys and channels. All processes of an
            application share one; others that use the server have another.
        options: More for redis-py's connections, such as
            ``{"ssl_ca_certs": "ca.pem"}``.
        max_message_size: Bytes of a message; a bigger one is refused with
            ValueError here, and dropped if another process sends it, once it
            has been read: Redis is trusted not to send what takes all memory.
        queue_size: Messages that wait to be written. With one more, mode
            "pubsub" gives up the oldest, mode "stream" raises `BackplaneError`.
        queue_bytes: The same in bytes.
        presence_ttl: Seconds after which the members of a process are no more
            seen if it has ended without a word.
        timeout: Seconds to connect and for each answer; a connection that is
            quiet for that long is asked for a sign of life.
        retry_interval: Seconds before the first attempt to connect again; each
            wait is twice the one before, with a random part.
        max_retry_interval: The longest wait.
        shards: mode="stream": the number of streams that all rooms share. The
            same in all processes. A process reads those that have a room with
            members in it, whole.
        stream_length: mode="stream": entries that a stream keeps, about.
        stream_ttl: mode="stream": seconds after which a stream that nobody
            writes to is removed.

    Raises:
        ImportError: redis-py is not installed.
        ValueError, TypeError: An argument is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        mode: str = "pubsub",
        prefix: str = "syncws:",
        options: Mapping[str, Any] | None = None,
        max_message_size: int = 1_048_576,
        queue_size: int = 10_000,
        queue_bytes: int = 67_108_864,
        presence_ttl: float = 30.0,
        timeout: float = 5.0,
        retry_interval: float = 0.1,
        max_retry_interval: float = 5.0,
        shards: int = 16,
        stream_length: int = 10_000,
        stream_ttl: float = 3600.0,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is one of {', '.join(map(repr, MODES))}, not {mode!r:.60}")
        if not isinstance(prefix, str):
            raise TypeError(f"prefix is a str, not {prefix!r:.60}")
        for name, number in (
            ("max_message_size", max_message_size),
            ("queue_size", queue_size),
            ("queue_bytes", queue_bytes),
            ("shards", shards),
            ("stream_length", stream_length),
        ):
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"{name} is an int, not {number!r:.60}")
            if number < 1:
                raise ValueError(f"{name} is 1 at least, not {number}")
        for name, seconds in (
            ("presence_ttl", presence_ttl),
            ("timeout", timeout),
            ("retry_interval", retry_interval),
            ("max_retry_interval", max_retry_interval),
            ("stream_ttl", stream_ttl),
        ):
            check_timeout(name, seconds, optional=False)
            if seconds < 0.001:
                raise ValueError(f"{name} is a millisecond at least, not {seconds!r}")
        self._settings = Settings(
            server=Server(url, options or {}, timeout),
            streams=mode == "stream",
            prefix=prefix,
            shards=shards,
            stream_length=stream_length,
            stream_ttl=stream_ttl,
            presence_ttl=presence_ttl,
            queue_size=queue_size,
            queue_bytes=queue_bytes,
            max_message_size=max_message_size,
            timeout=timeout,
            retry_interval=retry_interval,
            max_retry_interval=max(retry_interval, max_retry_interval),
        )
        self._lock = threading.Lock()
        self._runtime: _Runtime | None = None
        self._closed = False
        _all.add(self)

    def __repr__(self) -> str:
        mode = MODES[self._settings.streams]
        return f"<syncws.RedisBackplane {mode} by Redis at {self._settings.server.place}>"

    def start(self) -> None:
        """Start the threads."""
        with self._lock:
            if self._closed:
                raise BackplaneError("the backplane is closed")
            if self._runtime is None:
                self._runtime = _Runtime(self._settings)

    def publish(self, room: str, opcode: int, payload: bytes) -> None:
        """Queue a message.

        Raises:
            BackplaneError: mode="stream": too many wait; or it is closed.
            ValueError: It has more than `max_message_size` bytes.
        """
        most = self._settings.max_message_size
        if len(payload) > most:
            raise ValueError(
                f"a message through Redis has at most {most} bytes, not "
                f"{len(payload)}: see max_message_size"
            )
        self._running().writer.publish(room, opcode, payload)

    def subscribe(self, room: str, deliver: Deliver) -> None:
        """Have the reader listen to a room."""
        runtime = self._running()
        runtime.subscriptions.put(room, deliver)
        runtime.reader.wake()

    def unsubscribe(self, room: str) -> None:
        """Have it listen no more."""
        runtime = self._runtime
        if runtime is not None:
            runtime.subscriptions.put(room, None)
            runtime.reader.wake()

    def join(self, room: str, member: str, info: Mapping[str, Any]) -> None:
        """Have a member seen."""
        self._running().writer.note(room, member, info)

    def leave(self, room: str, member: str) -> None:
        """Have it seen no more."""
        runtime = self._runtime
        if runtime is not None:
            runtime.writer.note(room, member, None)

    def who(self, room: str, timeout: float) -> list[Presence]:
        """Return who is in a room, in other processes; those that are gone are left out."""
        return self._running().writer.ask(room, timeout)

    def flush(self, timeout: float) -> bool:
        """Wait until Redis has all that was sent, and listens for us to all rooms."""
        runtime = self._runtime
        if runtime is None:
            return True
        deadline = Deadline(timeout)
        return runtime.subscriptions.wait(deadline.remaining()) and runtime.writer.wait(
            deadline.remaining()
        )

    def close(self, timeout: float) -> None:
        """Send what waits, for up to `timeout` seconds, and end the threads.

        If Redis does not answer they end when their wait for it is over.
        """
        with self._lock:
            self._closed = True
            runtime = self._runtime
        if runtime is not None:
            runtime.reader.end()
            runtime.writer.close(timeout)
            runtime.reader.close(timeout)

    def stats(self) -> BackplaneStats:
        """Return what has gone through so far. Cheap; any thread."""
        runtime = self._runtime
        if runtime is None:
            return BackplaneStats(False, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        health = runtime.health
        return BackplaneStats(
            connected=health.connected and not self._closed,
            rooms=len(runtime.subscriptions.wanted),
            queued=runtime.writer.queued,
            sent=health["sent"],
            unsent=health["unsent"],
            received=health["received"],
            missed=health["missed"],
            duplicates=health["duplicates"],
            malformed=health["malformed"],
            losses=health["losses"],
        )

    def _running(self) -> _Runtime:
        runtime = self._runtime
        if runtime is None:
            raise BackplaneError("the backplane was not started")
        return runtime

    def _after_fork(self) -> None:
        """In the child: threads and connections are the parent's."""
        runtime, self._runtime = self._runtime, None
        self._lock = threading.Lock()
        if runtime is not None:
            runtime.abandon()


class _Runtime:
    """What one process has of a backplane."""

    def __init__(self, settings: Settings) -> None:
        sender = secrets.token_bytes(8)
        self.health = Health(settings.server.place)
        self.subscriptions = Subscriptions()
        self.writer = Writer(settings, self.health, sender)
        kind = StreamReader if settings.streams else ChannelReader
        self.reader: Reader = kind(settings, self.subscriptions, self.health, sender)
        self.reader.when_lost = self.writer.doubt
        self.reader.when_woken = self.writer.wake_reader
        self.writer.waking = self.reader.waking
        self.reader.start()
        self.writer.start()

    def abandon(self) -> None:
        """In a forked child."""
        self.reader.abandon()
        self.writer.abandon()


_all: weakref.WeakSet[RedisBackplane] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for backplane in list(_all):
        backplane._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
