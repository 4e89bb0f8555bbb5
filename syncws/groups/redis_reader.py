"""The thread that listens to Redis: to channels, or to streams."""

from __future__ import annotations

import logging
import selectors
import threading
import time
from collections.abc import Callable
from typing import Any

from ..engine.wakeup import Wakeup
from ..logs import log_safely
from .envelope import Envelope, Log, MalformedError
from .redis_link import Link
from .redis_state import LOG, Health, Settings, Subscriptions
from .resp import ReplyError

__all__ = ["ChannelReader", "Reader", "StreamReader"]

# These two are made for each wait, and so must take no descriptor of their own.
_Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)

# Channels that are subscribed by one command.
_BATCH = 500

# Seconds for a thread to end in.
_LEEWAY = 0.2

# Entries of each stream that are read at once.
_ENTRIES = 100


class Reader:
    """One connection that only reads, and gets another when it is lost.

    All but `start`, `wake`, `close` and `abandon` runs in its thread.
    """

    def __init__(
        self, settings: Settings, subscriptions: Subscriptions, health: Health, sender: bytes
    ) -> None:
        #: Called when the connection is lost.
        self.when_lost: Callable[[], None] = lambda: None
        self._settings = settings
        self._subscriptions = subscriptions
        self._health = health
        self._sender = sender
        self._wakeup = Wakeup()
        self._closing = False
        self._backoff = settings.backoff()
        self._log = Log()
        self._link: Link | None = None
        self._thread = threading.Thread(target=self._run, name="syncws-redis-reader", daemon=True)

    # -- Any thread --------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Subscriptions have changed."""
        self._wakeup.wake()

    def close(self, timeout: float) -> None:
        """End the thread, and wait for that."""
        self._closing = True
        self._wakeup.wake()
        self._thread.join(timeout + _LEEWAY)
        if self._thread.is_alive() and (link := self._link) is not None:
            link.interrupt()
            self._thread.join(1.0)

    def abandon(self) -> None:
        """In a forked child: the thread is not here."""
        if self._link is not None:
            self._link.close()
        self._wakeup.close()

    # -- Its thread --------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                try:
                    self._listen()
                except OSError as exc:
                    self._drop()
                    if not self._closing:
                        self._health.lost("reader", exc)
                        self.when_lost()
                        self._wait(None, self._backoff.next(), patient=True)
        except BaseException as exc:
            log_safely(LOG, logging.ERROR, "the reader of Redis has failed", error=exc)
        finally:
            self._drop()
            self._wakeup.close()

    def _listen(self) -> None:
        while not self._closing and not self._subscriptions.wanted:
            self._subscriptions.settle(self._subscriptions.take_all())
            self._health.rests("reader")
            self._wait(None, None)
        if not self._closing:
            self._link = link = self._settings.server.connect()
            self._subscriptions.all_changed()
            self._log.retain(self._needed())
            self._follow(link)

    def _follow(self, link: Link) -> None:
        raise NotImplementedError

    def _needed(self) -> set[str]:
        """Return the channels of the rooms that are wanted."""
        with self._subscriptions.changed:
            return {self._settings.channel(room) for room in self._subscriptions.wanted}

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _well(self) -> None:
        """The connection does what it is for."""
        self._backoff.reset()
        self._health.back("reader")

    def _wait(self, link: Link | None, timeout: float | None, *, patient: bool = False) -> None:
        """Wait until there is something to read, somebody wakes us, or it has taken too long.

        Args:
            link: What to read from, if anything.
            timeout: Seconds.
            patient: Only the end makes it shorter.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with _Selector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            if link is not None:
                selector.register(link, selectors.EVENT_READ)
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = selector.select(left)
                if any(key.fileobj is self._wakeup for key, _ in ready):
                    self._wakeup.on_ready(0)
                if self._closing or not ready or not patient:
                    return

    def _take(self, channel: str, data: Any) -> None:
        """A message has come."""
        try:
            if not isinstance(data, bytes):
                raise MalformedError("too long" if data is not None else "none")
            envelope = Envelope.unpack(data)
            if len(envelope.payload) > self._settings.max_message_size:
                raise MalformedError("too long")
            if self._settings.channel(envelope.room) != channel:
                raise MalformedError("of another channel")
        except MalformedError as exc:
            self._malformed(channel, exc)
            return
        if envelope.sender == self._sender:
            return
        missed = self._log.admit(channel, envelope)
        if missed < 0:
            self._health.count("duplicates")
            return
        if missed:
            self._health.count("missed", missed)
        deliver = self._subscriptions.wanted.get(envelope.room)
        if deliver is not None:
            self._health.count("received")
            try:
                deliver(envelope.opcode, envelope.payload)
            except Exception as exc:
                log_safely(LOG, logging.ERROR, "a message was not delivered", error=exc)

    def _malformed(self, channel: str, why: object) -> None:
        self._health.count("malformed")
        if self._health["malformed"] == 1:
            log_safely(
                LOG,
                logging.WARNING,
                "what came through %.100r of Redis is none of ours: %s; more of it is counted only",
                channel,
                why,
            )


class ChannelReader(Reader):
    """Subscribes to a channel for each room."""

    def _follow(self, link: Link) -> None:
        have: set[str] = set()
        asked = 0.0  # when, since it was heard of
        while not self._closing:
            busy = self._change(link, have)
            if replies := link.receive():
                for reply in replies:
                    self._obey(reply)
                continue
            if busy:
                continue
            timeout = self._settings.timeout
            now = time.monotonic()
            if asked < link.heard:
                asked = 0.0
            if not asked and now - link.heard >= timeout:
                asked = now
                link.send([("PING", "-")])
            wait = (asked or link.heard) + timeout - now
            if wait <= 0:
                raise TimeoutError("Redis does not answer")
            self._wait(link, wait)

    def _change(self, link: Link, have: set[str]) -> bool:
        """Subscribe and unsubscribe; return whether there is more of that."""
        rooms, version = self._subscriptions.take(_BATCH)
        if not rooms:
            return False
        wanted, channel = self._subscriptions.wanted, self._settings.channel
        coming = [room for room in rooms if room in wanted and room not in have]
        going = [room for room in rooms if room not in wanted and room in have]
        commands: list[list[str]] = []
        if coming:
            commands.append(["SUBSCRIBE", *map(channel, coming)])
        if going:
            commands.append(["UNSUBSCRIBE", *map(channel, going)])
        have.update(coming)
        have.difference_update(going)
        for room in going:
            self._log.forget(channel(room))
        # Its answer comes after theirs.
        link.send([*commands, ["PING", str(version)]])
        return version < 0

    def _obey(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise ConnectionError(str(reply))
        if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
            channel = reply[1].decode(errors="replace") if isinstance(reply[1], bytes) else "?"
            self._take(channel, reply[2])
            return
        if isinstance(reply, list) and len(reply) == 2 and reply[0] == b"pong":
            reply = reply[1]
        if isinstance(reply, bytes) and reply.isdigit():
            self._subscriptions.settle(int(reply))
            self._well()


class StreamReader(Reader):
    """Reads the streams that the rooms' messages are in, from where it stopped."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._positions: dict[str, tuple[int, int]] = {}
        self._begins: dict[str, tuple[int, int]] = {}

    def _follow(self, link: Link) -> None:
        while not self._closing:
            version = self._subscriptions.take_all()
            needed = self._needed()
            if not needed:
                self._positions.clear()
                self._begins.clear()
                self._drop()
                return
            self._place(link, needed)
            self._subscriptions.settle(version)
            self._well()
            if not self._read(link, needed):
                # It stands blocked, and is to read more streams: on another one.
                self._drop()
                return

    def _place(self, link: Link, needed: set[str]) -> None:
        """Find out where to begin: at the end of streams that were not read so far."""
        for gone in self._positions.keys() - needed:
            del self._positions[gone], self._begins[gone]
        keys = sorted(needed)
        answers = link.call([("XREVRANGE", key, "+", "-", "COUNT", 1) for key in keys])
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, ReplyError):
                raise ConnectionError(str(answer))
            last = _position(answer[0][0]) if answer else (0, 0)
            if key not in self._positions:
                self._positions[key] = self._begins[key] = last
            elif self._positions[key] > last:
                # Redis has lost what it had. What comes again is known by its numbers.
                self._positions[key] = min(self._begins[key], last)

    def _read(self, link: Link, needed: set[str]) -> bool:
        """Read until there must be read more than these; return whether nothing is under way."""
        keys = sorted(needed)
        timeout = self._settings.timeout
        while not self._closing:
            ids = [f"{ms}-{part}" for ms, part in map(self._positions.__getitem__, keys)]
            block = ("BLOCK", int(timeout * 1000))
            link.send([("XREAD", *block, "COUNT", _ENTRIES, "STREAMS", *keys, *ids)])
            sent = time.monotonic()
            while not (replies := link.receive()):
                left = max(sent, link.heard) + 2 * timeout - time.monotonic()
                if left <= 0:
                    raise TimeoutError("Redis does not answer")
                self._wait(link, left)
                if self._closing:
                    return True
                version = self._subscriptions.take_all()
                if not self._needed() <= needed:
                    return False
                self._subscriptions.settle(version)
            for reply in replies:
                self._obey(reply)
        return True

    def _obey(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise ConnectionError(str(reply))
        for key, entries in reply or ():
            channel = key.decode()
            for name, fields in entries:
                self._positions[channel] = _position(name)
                # An entry that was deleted while it was read has no fields.
                if isinstance(fields, list) and len(fields) == 2:
                    self._take(channel, fields[1])
                else:
                    self._malformed(channel, "other fields")


def _position(name: bytes) -> tuple[int, int]:
    ms, _, part = name.partition(b"-")
    return int(ms), int(part)
