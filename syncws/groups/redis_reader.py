"""The thread that listens to Redis: to channels, or to streams."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ..logs import log_safely
from .envelope import OVERHEAD, Envelope, Log, MalformedError
from .redis_link import Command, Link, ReplyError
from .redis_state import LOG, Health, Settings, Subscriptions

__all__ = ["ChannelReader", "Reader", "StreamReader"]

# Channels that are subscribed by one command.
_BATCH = 500

# Seconds for a thread to end in.
_LEEWAY = 0.2

# Entries of each stream that are read at once.
_ENTRIES = 100

# Milliseconds that a stream of waking is kept.
_WAKE_KEPT = 60_000


class Reader:
    """One connection that only reads, and gets another when it is lost.

    While it waits for Redis it is woken through Redis as well: it also listens
    to a channel or stream of its own, and `wake` has the writer send `waking`
    to that. While that fails it looks up by itself, at least every `timeout`.

    All but `start`, `wake`, `end`, `close` and `abandon` runs in its thread.
    """

    def __init__(
        self, settings: Settings, subscriptions: Subscriptions, health: Health, sender: bytes
    ) -> None:
        #: Called when the connection is lost.
        self.when_lost: Callable[[], None] = lambda: None
        #: Called to have `waking` sent.
        self.when_woken: Callable[[], None] = lambda: None
        self._settings = settings
        self._subscriptions = subscriptions
        self._health = health
        self._sender = sender
        self._own = settings.wake(sender.hex())
        # Guarded by _poked.
        self._poked = threading.Condition()
        self._news = False
        self._asleep = False  # whoever has news must wake it through Redis
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
        with self._poked:
            self._news = True
            self._poked.notify_all()
            asleep, self._asleep = self._asleep, False
        if asleep:
            self.when_woken()

    def waking(self) -> list[Command]:
        """Return the commands that wake it through Redis."""
        raise NotImplementedError

    def end(self) -> None:
        """Have the thread end, without waiting for that."""
        self._closing = True
        self.wake()

    def close(self, timeout: float) -> None:
        """End the thread, and wait for that.

        If Redis does not answer the thread ends later, when its wait is over.
        """
        self.end()
        self._thread.join(timeout + _LEEWAY)

    def abandon(self) -> None:
        """In a forked child: the thread is not here."""
        if self._link is not None:
            self._link.close()

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
                        with self._poked:
                            self._poked.wait_for(lambda: self._closing, self._backoff.next())
        except BaseException as exc:
            log_safely(LOG, logging.ERROR, "the reader of Redis has failed", error=exc)
        finally:
            self._drop()

    def _listen(self) -> None:
        while not self._closing and not self._subscriptions.wanted:
            self._subscriptions.settle(self._subscriptions.take_all())
            self._health.rests("reader")
            with self._poked:
                self._poked.wait_for(lambda: self._news or self._closing)
                self._news = False
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

    def _lie_down(self) -> None:
        """From here on news come through Redis; look for older ones, then wait."""
        with self._poked:
            self._asleep = True

    def _drop(self) -> None:
        with self._poked:
            self._asleep = False
        if self._link is not None:
            self._link.close()
            self._link = None

    def _well(self) -> None:
        """The connection does what it is for."""
        self._backoff.reset()
        self._health.back("reader")

    def _take(self, channel: str, data: Any) -> None:
        """A message has come."""
        try:
            if not isinstance(data, bytes):
                raise MalformedError("no string")
            if len(data) > self._settings.max_message_size + OVERHEAD:
                raise MalformedError("too long")
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

    def waking(self) -> list[Command]:
        """Return the commands that wake it through Redis."""
        return [("PUBLISH", self._own, b"")]

    def _follow(self, link: Link) -> None:
        link.send([("SUBSCRIBE", self._own)])
        have: set[str] = set()
        asked = 0.0  # when, since it was heard of
        timeout = self._settings.timeout
        while True:
            self._lie_down()
            if self._closing:
                return
            busy = self._change(link, have)
            now = time.monotonic()
            if asked < link.heard:
                asked = 0.0
            if not asked and now - link.heard >= timeout:
                asked = now
                link.send([("PING", "-")])
            left = (asked or link.heard) + timeout - now
            replies = link.receive(0.0 if busy else max(left, 0.0))
            for reply in replies:
                self._obey(reply)
            if not (replies or busy or left > 0):
                raise TimeoutError("Redis does not answer")

    def _change(self, link: Link, have: set[str]) -> bool:
        """Subscribe and unsubscribe; return whether there is more of that."""
        rooms, version = self._subscriptions.take(_BATCH)
        if not rooms:
            return False
        wanted, channel = self._subscriptions.wanted, self._settings.channel
        coming = [room for room in rooms if room in wanted and room not in have]
        going = [room for room in rooms if room not in wanted and room in have]
        commands: list[Command] = []
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
            if channel != self._own:
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

    def waking(self) -> list[Command]:
        """Return the commands that wake it through Redis."""
        add = ("XADD", self._own, "MAXLEN", 1, "*", "w", "")
        return [add, ("PEXPIRE", self._own, _WAKE_KEPT)]

    def _follow(self, link: Link) -> None:
        version = -1
        needed: set[str] = set()
        # What is there of an earlier waking only has it look once more.
        woken = (0, 0)
        while True:
            self._lie_down()
            if self._closing:
                return
            before, version = version, self._subscriptions.take_all()
            if version != before:
                after = self._needed()
                if not after:
                    self._positions.clear()
                    self._begins.clear()
                    self._drop()
                    return
                if not after <= needed:  # fewer are read as before
                    needed = after
                    self._log.retain(needed)
                    self._place(link, needed)
                self._subscriptions.settle(version)
                self._well()
            woken = self._read(link, sorted(needed), woken)

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

    def _read(self, link: Link, keys: list[str], woken: tuple[int, int]) -> tuple[int, int]:
        """Read what comes after the positions, waiting for it; return that of waking."""
        positions = [*map(self._positions.__getitem__, keys), woken]
        ids = [f"{ms}-{part}" for ms, part in positions]
        block = int(self._settings.timeout * 1000)
        how: Command = ("BLOCK", block, "COUNT", _ENTRIES)
        link.send([("XREAD", *how, "STREAMS", *keys, self._own, *ids)])
        replies = link.receive(2 * self._settings.timeout)
        if not replies:
            raise TimeoutError("Redis does not answer")
        for reply in replies:
            woken = self._obey(reply) or woken
        return woken

    def _obey(self, reply: Any) -> tuple[int, int] | None:
        woken = None
        if isinstance(reply, ReplyError):
            raise ConnectionError(str(reply))
        for key, entries in reply or ():
            channel = key.decode()
            if channel == self._own:
                woken = _position(entries[-1][0])
                continue
            for name, fields in entries:
                self._positions[channel] = _position(name)
                # An entry that was deleted while it was read has no fields.
                if isinstance(fields, list) and len(fields) == 2:
                    self._take(channel, fields[1])
                else:
                    self._malformed(channel, "other fields")
        return woken


def _position(name: bytes) -> tuple[int, int]:
    ms, _, part = name.partition(b"-")
    return int(ms), int(part)
