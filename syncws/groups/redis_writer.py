"""The thread that writes to Redis, and the queue in front of it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import BackplaneError
from ..logs import log_safely
from .backplane import Presence
from .envelope import Counters, Envelope
from .presence import Book, look
from .redis_link import Command, Link, ReplyError
from .redis_state import LOG, Health, Settings

__all__ = ["Writer"]

# What is sent at once, at most.
_BATCH = 256
_BATCH_BYTES = 1_048_576

# Seconds for a thread to end in.
_LEEWAY = 0.2

# Errors that are over some time. Others stay as they are, whatever we do.
_PASSING = {
    *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM"),
    *("READONLY", "TRYAGAIN"),
}


class _NotNowError(ConnectionError):
    """Redis is there, and obeys later perhaps."""


class _Message(NamedTuple):
    channel: str
    sequence: int
    data: bytes


class _Question:
    """Who is in a room? Whoever asks waits for `done`."""

    def __init__(self, room: str) -> None:
        self.room = room
        self.done = threading.Event()
        self.members: list[Presence] = []
        self.error = ""


class Writer:
    """One connection that only writes, and gets another when it is lost.

    A batch whose outcome is not known is sent again; who has got it already
    knows it by its numbers.
    """

    def __init__(self, settings: Settings, health: Health, sender: bytes) -> None:
        #: Returns the commands that wake the reader of this process.
        self.waking: Callable[[], list[Command]] = list
        self._settings = settings
        self._health = health
        self._sender = sender
        # Guarded by _changed.
        self._changed = threading.Condition()
        self._counters = Counters()
        self._queue: deque[_Message] = deque()
        self._queued_bytes = 0
        self._batch: list[_Message] = []  # under way; replaced by the thread only
        self._book = Book(settings.prefix, sender.hex(), settings.presence_ttl)
        self._booked = 0
        self._asked: deque[_Question] = deque()
        self._wakes = False  # the reader is to be woken
        self._last = 0  # the sequence number accepted last
        self._ends_at: float | None = None
        self._beats_at = 0.0
        # The thread's own.
        self._link: Link | None = None
        self._backoff = settings.backoff()
        self._refreshes_at = 0.0
        self._announced = False
        self._worked = False  # the connection that we have
        self._refused: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="syncws-redis-writer", daemon=True)

    # -- Any thread --------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def queued(self) -> int:
        """Messages that wait."""
        return len(self._queue) + len(self._batch)

    def publish(self, room: str, opcode: int, payload: bytes) -> None:
        """Queue a message; see `Backplane.publish`."""
        channel = self._settings.channel(room)
        dropped = 0
        with self._changed:
            self._check_open()
            if self._is_full(len(payload)):
                if self._settings.streams:
                    raise BackplaneError(
                        f"{len(self._queue)} messages wait for Redis already, of "
                        f"{self._queued_bytes} bytes; nothing of this one was sent"
                    )
                while self._queue and self._is_full(len(payload)):
                    self._queued_bytes -= len(self._queue.popleft().data)
                    dropped += 1
            sequence, number = self._counters.next(channel)
            data = Envelope(self._sender, sequence, number, room, opcode, payload).pack()
            self._queue.append(_Message(channel, sequence, data))
            self._queued_bytes += len(data)
            self._last = sequence
            self._changed.notify_all()
        if dropped:
            self._health.gave_up(dropped, "the queue is full; the oldest go first")

    def _is_full(self, size: int) -> bool:
        """Whether a message of this size has no place. Requires _changed."""
        settings = self._settings
        return (
            len(self._queue) >= settings.queue_size
            or self._queued_bytes + size > settings.queue_bytes
        )

    def _check_open(self) -> None:
        if self._ends_at is not None:
            raise BackplaneError("the backplane is closed")

    def note(self, room: str, member: str, info: Mapping[str, Any] | None) -> None:
        """Have a member seen in all processes, or no more."""
        with self._changed:
            if self._ends_at is None:
                self._book.put((room, member), info)
                self._changed.notify_all()

    def ask(self, room: str, timeout: float) -> list[Presence]:
        """Return who is in a room, in other processes."""
        question = _Question(room)
        with self._changed:
            self._check_open()
            self._asked.append(question)
            self._changed.notify_all()
        if not question.done.wait(timeout):
            raise BackplaneError(f"no answer from Redis within {timeout} s")
        if question.error:
            raise BackplaneError(question.error)
        return question.members

    def doubt(self) -> None:
        """The other connection is lost: see whether this one is."""
        with self._changed:
            self._beats_at = 0.0
            self._changed.notify_all()

    def wake_reader(self) -> None:
        """The reader waits for Redis, and is to do something else."""
        with self._changed:
            self._wakes = True
            self._changed.notify_all()

    def wait(self, timeout: float | None) -> bool:
        """Wait until all that was asked for so far is done, or given up; return whether it is."""
        with self._changed:
            last, version = self._last, self._book.version
            return self._changed.wait_for(
                lambda: self._first() > last and self._booked >= version, timeout
            )

    def _first(self) -> int:
        """Return the lowest sequence number that is not done. Requires _changed."""
        waiting = self._batch or self._queue
        return waiting[0].sequence if waiting else self._last + 1

    def close(self, timeout: float) -> None:
        """Send what waits, for up to `timeout` seconds, and end.

        If Redis does not answer the thread ends later, when its wait is over.
        """
        with self._changed:
            if self._ends_at is None:
                self._ends_at = time.monotonic() + timeout
                self._book.leave()
                self._changed.notify_all()
        self._thread.join(timeout + _LEEWAY)

    def abandon(self) -> None:
        """In a forked child: the thread is not here."""
        if self._link is not None:
            self._link.close()

    # -- Its thread --------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait():
                try:
                    self._work()
                except OSError as exc:
                    self._lose(exc)
        except BaseException as exc:
            log_safely(LOG, logging.ERROR, "the writer of Redis has failed", error=exc)
        finally:
            self._finish()

    def _wait(self) -> bool:
        """Wait until there is something to do; return False when all is over."""
        with self._changed:
            while True:
                now = time.monotonic()
                busy = self._queue or self._batch or self._asked or self._book.dirty
                if self._ends_at is not None and (not busy or now >= self._ends_at):
                    return False
                if busy or self._wakes or now >= self._beats_at:
                    return True
                self._changed.wait(self._beats_at - now)

    def _lose(self, error: OSError) -> None:
        """Wait until it makes sense to try again."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self._health.lost("writer", error)
        worked, self._worked = self._worked, False
        if worked and not isinstance(error, _NotNowError):
            return  # it may have been lost long ago
        with self._changed:
            self._fail_asked(f"no connection to Redis: {error}")
            wait = self._backoff.next()
            until = time.monotonic() + wait
            while (left := until - time.monotonic()) > 0:
                if self._ends_at is not None:
                    left = min(left, self._ends_at - time.monotonic())
                    if left <= 0:
                        return
                self._changed.wait(left)
                self._fail_asked(f"no connection to Redis: {error}")

    def _fail_asked(self, why: str) -> None:
        """Requires _changed."""
        while self._asked:
            question = self._asked.popleft()
            question.error = why
            question.done.set()

    def _work(self) -> None:
        if self._link is None:
            self._link = self._settings.server.connect()
            self._beats_at = 0.0
            self._announced = False  # that may be a Redis that knows nothing
        link = self._link
        self._beat(link)
        self._wake_reader(link)
        self._write_presence(link)
        self._write_messages(link)
        self._answer(link)
        self._worked = True
        self._backoff.reset()
        self._health.back("writer")

    def _beat(self, link: Link) -> None:
        """Say that we are there, if it is time."""
        now = time.monotonic()
        if now < self._beats_at:
            return
        if not self._book:
            self._announced = False
            _check(link.call([("PING",)])[0])
        elif not self._announced or now >= self._refreshes_at:
            self._announce(link)
        elif link.call([self._book.renew()])[0] == 0:
            self._announce(link)  # Redis has forgotten us
        self._beats_at = now + self._settings.presence_ttl / 3

    def _wake_reader(self, link: Link) -> None:
        """Wake it, if it is to be. It looks up by itself some time if Redis refuses that."""
        with self._changed:
            wakes, self._wakes = self._wakes, False
        if not wakes:
            return
        try:
            answers = link.call(self.waking())
        except OSError:
            self.wake_reader()
            raise
        for answer in answers:
            if not (isinstance(answer, ReplyError) and answer.code in _PASSING):
                self._permitted("to wake the reader", answer)

    def _announce(self, link: Link) -> None:
        self._permitted("presence", link.call([self._book.announce()])[0])
        with self._changed:
            self._book.all_dirty()
        self._announced = True
        self._refreshes_at = time.monotonic() + self._book.refresh_after()

    def _write_presence(self, link: Link) -> None:
        with self._changed:
            taken, version = self._book.take(_BATCH), self._book.version
            if self._book.dirty:
                version = 0
        try:
            if taken:
                if not self._announced:
                    self._announce(link)
                for answer in link.call(self._book.commands(taken)):
                    self._permitted("presence", answer)
        except BaseException:
            with self._changed:
                self._book.put_back(taken)
            raise
        with self._changed:
            if version > self._booked:
                self._booked = version
                self._changed.notify_all()

    def _write_messages(self, link: Link) -> None:
        batch = self._batch
        if not batch:
            with self._changed:
                size = 0
                while self._queue and len(batch) < _BATCH and size < _BATCH_BYTES:
                    batch.append(self._queue.popleft())
                    size += len(batch[-1].data)
                self._queued_bytes -= size
        if not batch:
            return
        unsent = self._xadd(link, batch) if self._settings.streams else self._publish(link, batch)
        self._health.count("sent", len(batch) - unsent)
        if unsent:
            self._health.count("unsent", unsent)
        with self._changed:
            self._batch = []
            self._changed.notify_all()

    def _publish(self, link: Link, batch: Sequence[_Message]) -> int:
        """Publish messages; return how many were refused for good."""
        answers = link.call([("PUBLISH", channel, data) for channel, _, data in batch])
        return sum([not self._permitted("messages", answer) for answer in answers])

    def _xadd(self, link: Link, batch: Sequence[_Message]) -> int:
        """Append messages to their streams, all of them or none.

        Were one of them refused for lack of memory and the next one not, the
        first could not be sent after it.
        """
        length = ("MAXLEN", "~", self._settings.stream_length)
        ttl = int(self._settings.stream_ttl * 1000)
        commands: list[Command] = [("MULTI",)]
        commands += [("XADD", channel, *length, "*", "m", data) for channel, _, data in batch]
        commands += [("PEXPIRE", key, ttl) for key in sorted({one.channel for one in batch})]
        *queued, done = link.call([*commands, ("EXEC",)])
        if isinstance(done, list):
            return sum([not self._permitted("messages", one) for one in done[: len(batch)]])
        for answer in (*queued, done):
            self._permitted("messages", answer)
        return len(batch)

    def _permitted(self, what: str, answer: Any) -> bool:
        """Return whether Redis has obeyed; log what it refuses, once for each reason.

        Raises:
            _NotNowError: It may obey later.
        """
        if not isinstance(answer, ReplyError):
            return True
        if answer.code in _PASSING:
            raise _NotNowError(str(answer))
        if answer.code not in self._refused:
            self._refused.add(answer.code)
            log_safely(
                LOG,
                logging.ERROR,
                "Redis at %s refuses %s: %s",
                self._settings.server.place,
                what,
                answer,
            )
        return False

    def _answer(self, link: Link) -> None:
        """Answer those who have asked."""
        while self._asked:
            question = self._asked[0]
            try:
                question.members = look(link.call, self._book, question.room)
            except OSError:
                raise  # the next connection may know
            except Exception as exc:  # Redis refuses, or has there what is not ours
                question.error = f"no answer from Redis: {exc}"
            with self._changed:
                self._asked.popleft()
            question.done.set()

    def _finish(self) -> None:
        with self._changed:
            self._ends_at = self._ends_at or 0.0
            left = self.queued
            self._queue.clear()
            self._batch = []
            self._fail_asked("the backplane is closed")
            self._booked = self._book.version
            self._changed.notify_all()
        if left:
            self._health.gave_up(left, "there was no time left to send them")
        if self._link is not None:
            try:
                self._wake_reader(self._link)
                if self._announced:
                    self._link.call([("DEL", self._book.alive())])
            except OSError:
                pass  # it expires
            self._link.close()
            self._link = None


def _check(answer: Any) -> None:
    if isinstance(answer, ReplyError):
        raise ConnectionError(str(answer))
