"""A request between the I/O thread and the application, without a socket and without a clock.

Also what the two share: `syncws.server.channel`.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from syncws.engine.journal import Journal
from syncws.engine.lane import Lane
from syncws.engine.loop import READ, WRITE
from syncws.protocol.exchange import Exchange, ResponseError
from syncws.protocol.http import parse_request
from syncws.server.channel import MOVES, Channel, ClientGone, Phase
from syncws.server.http import RequestHandler
from tests.support import HANG, QUIET, Task, wait_until
from tests.test_server_opening import FakeLoop, FakeTransport

# What fits into the buffers; see `syncws.server.channel`.
BODY = 65_536
OUT = 262_144


class Loop(FakeLoop):
    """Makes its calls when the test says so."""

    abandoned = False

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.buffer = bytearray(4 * BODY)
        self.calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.errands: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.called: queue.Queue[None] = queue.Queue()
        self.journal: Any = Journal(self._let_write, self._let_write)

    def _let_write(self, journal: Journal) -> None:
        self.errands.append((journal.run, ()))

    def call_in_worker(self, call: Callable[..., None], *args: Any) -> None:
        self.errands.append((call, args))

    def clock(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., None], *args: Any, owner: Any = None) -> None:
        self.calls.append((call, args))
        self.called.put(None)

    def flush_soon(self, connection: Any) -> None:
        self.call_soon(connection.flush)

    def turn(self) -> None:
        """Make the calls of other threads, and those that they lead to."""
        while self.calls:
            call, args = self.calls.popleft()
            call(*args)

    def work(self) -> None:
        """Do what is left to the workers."""
        while self.errands:
            call, args = self.errands.popleft()
            call(*args)


class Transport(FakeTransport):
    """One that takes as much as it has room for; None: all."""

    def __init__(self) -> None:
        super().__init__()
        self.capacity: int | None = None
        self.error: OSError | None = None

    def send(self, data: bytes) -> int:
        if self.error is not None:
            raise self.error
        size = len(data) if self.capacity is None else min(len(data), self.capacity)
        if self.capacity is not None:
            self.capacity -= size
        self.written += data[:size]
        return size

    def send_many(self, chunks: list[Any]) -> int:
        return self.send(b"".join(chunks))


class Scene:
    """A handler with everything around it; the application is what the test makes of it."""

    def __init__(
        self,
        *headers: str,
        method: str = "POST",
        version: str = "1.1",
        rest: bytes = b"",
        timeout: float | None = 30.0,
        max_body_size: int | None = None,
        start: bool = True,
    ) -> None:
        self.loop = Loop()
        self.transport = Transport()
        self.loop.masks[self.transport.sock] = READ
        self.channels: list[Channel] = []
        self.app: Callable[[Channel], None] = self.channels.append
        self.ended: list[bytes | None] = []
        self.done = 0
        lines = [f"{method} /path?query HTTP/{version}", "Host: localhost", *headers, "", ""]
        head = "\r\n".join(lines).encode()
        self.handler = RequestHandler(
            self.loop,  # type: ignore[arg-type]
            self.transport,  # type: ignore[arg-type]
            parse_request(head),
            Exchange(head, max_body_size),
            timeout=timeout,
            lane=Lane(self.loop, 1),  # type: ignore[arg-type]
            call=self.call_app,
            on_end=lambda handler, rest: self.ended.append(rest),
            on_done=self.count_done,
        )
        self.channel = self.handler.channel
        if start:
            self.handler.start(rest)

    def call_app(self, channel: Channel) -> None:
        self.app(channel)

    def count_done(self) -> None:
        self.done += 1

    def feed(self, *incoming: bytes | Exception | None) -> None:
        """Let each of these come in a round of its own."""
        for data in incoming:
            self.transport.incoming.append(data)
            self.handler.on_ready(READ)

    def begin(self) -> Channel:
        """Have the application called, and left: the test goes on in its place."""
        assert self.channel.begin()
        return self.channel

    def tick(self, seconds: float) -> None:
        """Let time pass, with the timers that are due meanwhile."""
        self.loop.now += seconds
        for timer in self.loop.due():
            if timer.when <= self.loop.now and timer.call is not None:
                call, timer.call = timer.call, None
                call()

    @property
    def mask(self) -> int:
        return self.loop.masks.get(self.transport.sock, 0)

    @property
    def phase(self) -> Phase:
        return self.channel.standing().phase

    @property
    def queued(self) -> bool:
        """Whether the application's call waits for a worker."""
        return self.phase is Phase.QUEUED

    def gone(self) -> bool:
        """Whether the socket was closed, in good order."""
        assert self.loop.masks == {}
        assert self.loop.due() == []
        assert self.loop.owned == set()
        assert self.ended == [None]
        return self.transport.closed == 1

    def freed(self) -> bytes:
        """Return what came behind the request; the socket was given up, in good order."""
        assert self.loop.masks == {self.transport.sock: READ}
        assert self.loop.due() == []
        assert self.loop.owned == set()
        assert not self.transport.closed
        (rest,) = self.ended
        assert rest is not None
        return rest


def respond(channel: Channel, *parts: bytes, headers: Any = ()) -> None:
    channel.respond("200 OK", headers)
    for part in parts:
        channel.send(part)
    channel.finish()


def read(channel: Channel, size: int = 1_000_000) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: channel.read(memoryview(buffer))])


def waits(channel: Channel) -> bool:
    """Whether the application's thread does, in one of the channel's methods."""
    return bool(channel._changed._waiters)  # type: ignore[attr-defined]


def read_all(channel: Channel) -> bytes:
    parts = []
    while part := read(channel):
        parts.append(part)
    return b"".join(parts)


# -- The whole way ---------------------------------------------------------


def test_a_request_and_its_response() -> None:
    scene = Scene("Content-Length: 5")
    scene.app = lambda channel: respond(channel, read_all(channel))
    scene.feed(b"he")
    assert not scene.queued
    scene.feed(None, b"llo")
    assert scene.queued
    scene.loop.work()
    assert scene.done == 1
    assert scene.transport.written.endswith(b"\r\n5\r\nhello\r\n0\r\n\r\n")
    assert scene.ended == []  # that is for the I/O thread
    scene.loop.turn()
    assert scene.freed() == b""


def test_a_request_without_a_body_is_ready_at_once_and_sets_no_timer() -> None:
    scene = Scene(method="GET")
    assert scene.queued
    respond(scene.begin(), b"hello")
    scene.loop.turn()
    assert scene.freed() == b""
    assert scene.loop.timers == []


@pytest.mark.parametrize("late", [True, False])
def test_what_comes_behind_the_request_is_handed_on(late: bool) -> None:
    scene = Scene("Content-Length: 5", rest=b"hello" if late else b"helloGET / next")
    channel = scene.begin()
    if late:
        scene.feed(b"GET / ")
    respond(channel)
    if late:
        scene.feed(b"next")
    scene.loop.turn()
    assert scene.freed() == b"GET / next"


def test_no_more_than_a_buffer_of_the_next_requests_is_taken() -> None:
    scene = Scene(method="GET")
    channel = scene.begin()
    scene.feed(b"x" * (BODY - 1))
    assert scene.mask == READ
    scene.feed(b"x")
    assert scene.mask == 0
    respond(channel)
    scene.loop.turn()
    assert scene.freed() == b"x" * BODY


def test_a_closing_response_waits_for_the_client_to_go() -> None:
    scene = Scene("Connection: close", method="GET")
    respond(scene.begin(), b"hello")
    assert scene.transport.shut == 0
    scene.loop.turn()
    assert scene.transport.shut == 1
    assert scene.ended == []
    scene.feed(b"more", None, b"")
    assert scene.gone()


def test_a_client_that_does_not_go_is_dropped() -> None:
    scene = Scene("Connection: close", method="GET")
    respond(scene.begin())
    scene.loop.turn()
    (timer,) = scene.loop.due()
    assert timer.when == scene.loop.now + 2.0
    scene.feed(b"x" * BODY, b"x" * BODY)
    assert scene.mask == READ
    scene.tick(2.0)
    assert scene.gone()


def test_the_last_request_of_a_connection_says_so() -> None:
    scene = Scene(method="GET")
    scene.handler.end_soon()
    respond(scene.begin())
    scene.loop.turn()
    assert b"\r\nConnection: close\r\n" in scene.transport.written
    assert scene.transport.shut == 1
    scene.feed(b"")
    assert scene.gone()


def test_a_response_that_has_begun_cannot_say_so() -> None:
    scene = Scene(method="GET")
    channel = scene.begin()
    channel.respond("200 OK", [])
    scene.handler.end_soon()
    channel.finish()
    scene.loop.turn()
    assert scene.gone()  # as an idle connection is


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_a_client_that_has_only_ended_its_side_gets_its_answer(connection: str) -> None:
    scene = Scene("Content-Length: 5", f"Connection: {connection}")
    scene.feed(b"hello", b"")
    assert scene.mask == 0  # or the loop would spin
    respond(scene.begin(), b"answer")
    scene.loop.turn()
    assert b"answer" in scene.transport.written
    assert scene.gone()


def test_moves_are_those_of_the_table() -> None:
    scene = Scene(method="GET")
    respond(scene.begin())
    for phase in Phase:
        assert Phase.BODY not in MOVES[phase]
        if phase not in MOVES[Phase.SENDING]:
            with pytest.raises(AssertionError):
                scene.channel._move(phase)


# -- The body --------------------------------------------------------------


def test_the_application_is_called_when_the_buffer_is_full() -> None:
    scene = Scene("Content-Length: 1000000")
    scene.feed(b"x" * (BODY - 1))
    assert not scene.queued
    scene.feed(b"y")
    assert scene.queued
    assert scene.mask == 0
    channel = scene.begin()
    assert read(channel, BODY // 2 - 1) == b"x" * (BODY // 2 - 1)
    scene.loop.turn()
    assert scene.mask == 0
    assert read(channel, 1) == b"x"
    scene.loop.turn()
    assert scene.mask == READ
    assert read(channel) == b"x" * (BODY // 2 - 1)
    assert read(channel) == b"y"


def test_the_application_waits_for_the_body() -> None:
    scene = Scene("Content-Length: 1000000", rest=b"x" * BODY)
    channel = scene.begin()
    assert len(read(channel)) == BODY
    scene.loop.turn()
    reading = Task(read, channel)
    while not scene.loop.due():
        scene.loop.called.get(timeout=HANG)
        scene.loop.turn()
    scene.feed(b"more")
    assert reading.result() == b"more"
    scene.handler.update()
    scene.tick(1000.0)  # nobody waits any more
    assert scene.transport.written == b""


def test_chunks_are_parsed_on_without_reading() -> None:
    scene = Scene("Transfer-Encoding: chunked", rest=b"1\r\nx\r\n" * 200 + b"0\r\n\r\n")
    assert not scene.queued
    assert scene.mask == 0
    scene.loop.turn()
    assert scene.queued
    assert scene.mask == READ
    assert read_all(scene.begin()) == b"x" * 200


def test_a_client_that_waits_for_a_word_gets_it_and_holds_no_worker() -> None:
    scene = Scene("Expect: 100-continue", "Content-Length: 5")
    assert not scene.queued
    assert scene.mask & WRITE
    scene.handler.on_ready(WRITE)
    assert scene.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert len(scene.loop.due()) == 1  # its time runs
    scene.feed(b"hel", b"lo")
    channel = scene.begin()
    assert read(channel) + read(channel) == b"hello"
    respond(channel)
    scene.loop.turn()
    assert scene.freed() == b""


def test_a_refusal_that_meets_the_end_of_the_response_changes_nothing() -> None:
    scene = Scene()
    channel = scene.begin()
    respond(channel, b"hello")
    assert channel.refuse(b"HTTP/1.1 400 Bad Request\r\n\r\n", "too late") is Phase.SENDING
    scene.loop.turn()
    assert b"hello" in scene.transport.written
    assert b"400" not in scene.transport.written
    assert scene.freed() == b""


def test_a_body_that_nobody_reads_does_not_hold_the_response_up() -> None:
    scene = Scene("Content-Length: 1000000", rest=b"x" * BODY)
    scene.transport.capacity = 10
    respond(scene.begin(), b"hello")
    scene.loop.turn()
    assert scene.mask == READ | WRITE  # the client may write before it reads
    scene.feed(b"x" * BODY, b"x" * BODY)
    scene.transport.capacity = None
    scene.handler.on_ready(WRITE)
    assert scene.transport.shut == 1
    scene.feed(b"x" * BODY, b"")
    assert scene.gone()


def test_a_body_that_grows_too_large() -> None:
    scene = Scene("Transfer-Encoding: chunked", max_body_size=10)
    scene.feed(b"b\r\n")
    assert scene.ended == []
    scene.feed(b"hello world\r\n")
    assert scene.done == 1
    assert scene.transport.written.startswith(b"HTTP/1.1 413 ")
    assert not scene.channel.begin()
    scene.feed(b"more", b"")
    assert scene.gone()


@pytest.mark.parametrize("started", [True, False])
def test_a_body_that_grows_too_large_under_the_application(started: bool) -> None:
    scene = Scene("Transfer-Encoding: chunked", max_body_size=BODY + 10)
    scene.feed(b"10000\r\n", b"x" * BODY)
    channel = scene.begin()
    read(channel)
    scene.loop.turn()
    if started:
        channel.respond("200 OK", [])
        channel.send(b"begun")
    reading = Task(read, channel)
    while not scene.loop.due():
        scene.loop.called.get(timeout=HANG)
        scene.loop.turn()
    scene.feed(b"\r\nb\r\n12345678901")
    assert isinstance(reading.error(), ClientGone)
    with pytest.raises(ClientGone, match="over 65546 bytes"):
        channel.send(b"x")
    status = b"200" if started else b"413"
    assert scene.transport.written.startswith(b"HTTP/1.1 " + status)
    assert scene.transport.written.count(b"HTTP/1.1") == 1
    assert scene.done == 0  # the application has not returned
    scene.feed(b"")
    assert scene.gone()


def test_a_malformed_body() -> None:
    scene = Scene("Transfer-Encoding: chunked")
    scene.feed(b"nonsense\r\n")
    assert scene.transport.written.startswith(b"HTTP/1.1 400 ")
    assert scene.done == 1


# -- The response ----------------------------------------------------------


def test_a_small_response_does_not_hold_the_worker_though_nobody_reads() -> None:
    scene = Scene(method="GET")
    scene.transport.capacity = 0
    scene.app = lambda channel: respond(channel, b"x" * 100_000)
    scene.loop.work()
    assert scene.done == 1
    scene.loop.turn()
    assert scene.mask == READ | WRITE
    for _ in range(11):
        scene.transport.capacity = 10_000
        scene.handler.on_ready(WRITE)
    assert scene.freed() == b""


def test_the_application_waits_for_the_client_to_read() -> None:
    scene = Scene(method="GET")
    scene.transport.capacity = 0
    channel = scene.begin()
    channel.respond("200 OK", [("Content-Length", str(OUT + 300_000))])
    for _ in range(4):
        channel.send(b"x" * BODY)  # with the head it is more than fits
    sending = Task(channel.send, b"y" * 300_000)
    wait_until(lambda: waits(channel))
    scene.transport.capacity = scene.channel._out.size - OUT // 4 - 1
    scene.handler.on_ready(WRITE)
    sending.join(QUIET)
    assert scene.channel._out.size == OUT // 4 + 1
    assert sending.is_alive()
    scene.transport.capacity = None
    while sending.is_alive():
        scene.handler.on_ready(WRITE)
        sending.join(0.001)
    sending.result()
    channel.finish()
    scene.loop.turn()
    assert scene.transport.written.endswith(b"x" * OUT + b"y" * 300_000)
    assert scene.freed() == b""


def test_large_data_is_framed_in_pieces() -> None:
    scene = Scene(method="GET")
    respond(scene.begin(), b"x" * (2 * BODY + 1))
    assert scene.transport.written.count(b"\r\n10000\r\n") == 2
    assert scene.transport.written.endswith(b"\r\n1\r\nx\r\n0\r\n\r\n")


def test_a_response_that_is_too_long_goes_out_as_far_as_it_may() -> None:
    scene = Scene(method="GET")
    channel = scene.begin()
    channel.respond("200 OK", [("Content-Length", "5")])
    with pytest.raises(ResponseError, match="longer"):
        channel.send(b"hello world")
    channel.cut()
    scene.loop.turn()
    assert scene.transport.written.endswith(b"\r\n\r\nhello")
    assert scene.transport.shut == 1


def test_a_response_that_ends_too_early_is_cut() -> None:
    scene = Scene(method="GET")

    def app(channel: Channel) -> None:
        channel.respond("200 OK", [("Content-Length", "6")])
        channel.send(b"hello")
        with pytest.raises(ResponseError, match="short"):
            channel.finish()

    scene.app = app
    scene.loop.work()
    assert scene.done == 1
    scene.loop.turn()
    assert scene.transport.written.endswith(b"\r\n\r\nhello")
    assert scene.transport.shut == 1


def test_an_application_that_raises_or_does_nothing_is_cut_off() -> None:
    scene = Scene(method="GET")

    def app(channel: Channel) -> None:
        raise KeyError

    scene.app = app
    with pytest.raises(KeyError):
        scene.loop.work()
    assert scene.done == 1
    scene.loop.turn()
    assert (scene.transport.written, scene.transport.shut) == (b"", 1)


def test_nothing_goes_out_behind_the_response() -> None:
    scene = Scene(method="GET")
    channel = scene.begin()
    respond(channel)
    written = scene.transport.written
    for call in (lambda: channel.send(b"x"), channel.finish, lambda: read(channel)):
        with pytest.raises(ClientGone, match="has ended"):
            call()
    channel.cut()
    assert scene.transport.written == written
    scene.loop.turn()
    assert scene.freed() == b""


# -- Clients that go away --------------------------------------------------


@pytest.mark.parametrize("end", [b"", OSError("reset")])
def test_a_client_that_goes_before_its_body_has_come(end: Any) -> None:
    scene = Scene("Content-Length: 5")
    scene.feed(b"hell", end)
    assert scene.done == 1
    assert scene.gone()


def test_a_client_that_goes_while_its_request_waits_for_a_worker() -> None:
    scene = Scene(method="GET")
    scene.feed(OSError("reset"))
    assert scene.gone()
    scene.loop.work()
    assert scene.channels == []
    assert scene.done == 1


@pytest.mark.parametrize("end", [b"", OSError("reset")])
def test_a_client_that_goes_wakes_who_reads(end: Any) -> None:
    scene = Scene("Content-Length: 1000000", rest=b"x" * BODY)
    channel = scene.begin()
    read(channel)
    scene.loop.turn()
    reading = Task(read, channel)
    while not scene.loop.due():
        scene.loop.called.get(timeout=HANG)
        scene.loop.turn()
    scene.feed(end)
    assert isinstance(reading.error(), ConnectionError)
    assert scene.gone()
    assert scene.done == 0


def test_a_client_that_goes_wakes_who_writes() -> None:
    scene = Scene(method="GET")
    scene.transport.capacity = 0
    channel = scene.begin()
    channel.respond("200 OK", [])
    sending = Task(channel.send, b"x" * 1_000_000)
    wait_until(lambda: waits(channel))
    scene.loop.turn()
    scene.feed(OSError("reset"))
    assert isinstance(sending.error(), ClientGone)
    assert scene.gone()


@pytest.mark.parametrize("direct", [True, False])
def test_writing_fails(direct: bool) -> None:
    scene = Scene(method="GET")
    channel = scene.begin()
    channel.respond("200 OK", [])
    if direct:
        scene.transport.error = BrokenPipeError("gone")
        with pytest.raises(ClientGone):
            channel.send(b"x")
        scene.loop.turn()
    else:
        scene.transport.capacity = 0
        channel.send(b"x")
        scene.loop.turn()
        assert scene.mask == READ | WRITE
        scene.transport.error = BrokenPipeError("gone")
        scene.handler.on_ready(WRITE)
    assert scene.gone()
    with pytest.raises(ClientGone):
        channel.send(b"x")


def test_abort_and_errors_close_once() -> None:
    scene = Scene(method="GET")
    scene.handler.abort()
    scene.handler.abort()
    scene.handler.on_loop_error(ValueError())
    scene.handler.end("again")
    assert scene.gone()
    assert scene.done == 1


def test_what_was_given_up_is_left_alone() -> None:
    scene = Scene(method="GET")
    respond(scene.begin())
    scene.loop.turn()
    scene.handler.abort()
    scene.handler.take(b"more")
    scene.handler.flush()
    assert scene.freed() == b""


def test_a_forked_child_closes_its_copy() -> None:
    scene = Scene(method="GET")
    channel = scene.begin()
    with channel._changed:  # as another thread of the parent may have it
        scene.handler.abandon()
        with pytest.raises(ClientGone):
            channel.send(b"x")
    assert (scene.transport.abandoned, scene.transport.closed) == (1, 0)


# -- Slow clients ----------------------------------------------------------


def test_a_body_that_does_not_come() -> None:
    scene = Scene("Content-Length: 5")
    scene.feed(b"h")
    scene.tick(29.0)
    assert scene.transport.written == b""
    scene.tick(1.0)
    assert scene.transport.written.startswith(b"HTTP/1.1 408 ")
    assert scene.done == 1
    scene.feed(b"")
    assert scene.gone()


def test_a_body_that_stops_coming() -> None:
    scene = Scene("Content-Length: 5")
    scene.tick(0.9)
    scene.feed(b"h")
    scene.tick(29.1)  # the timer was set for nothing of it
    assert scene.transport.written == b""
    scene.tick(0.9)
    assert scene.transport.written.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles() -> None:
    scene = Scene("Content-Length: 100000")
    for _ in range(30):
        scene.tick(0.99)
        scene.feed(b"x")
    assert scene.transport.written == b""
    scene.tick(0.99)
    assert scene.transport.written.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_comes_slowly_but_keeps_up() -> None:
    scene = Scene("Content-Length: 100000")
    for _ in range(60):
        scene.tick(1.0)
        scene.feed(b"x" * 1024)
    assert scene.transport.written == b""
    assert scene.ended == []


def test_a_response_that_is_not_taken() -> None:
    scene = Scene(method="GET")
    channel = scene.begin()
    scene.transport.capacity = 10
    respond(channel, b"x")
    scene.loop.turn()
    scene.tick(29.0)
    assert scene.ended == []
    scene.tick(1.0)
    assert scene.gone()


def test_a_response_that_is_taken_in_a_trickle() -> None:
    scene = Scene(method="GET")
    scene.transport.capacity = 0
    respond(scene.begin(), b"x" * 100)
    scene.loop.turn()
    for _ in range(30):
        scene.tick(0.99)
        scene.transport.capacity = 1
        scene.handler.on_ready(WRITE)
    assert scene.ended == []
    scene.tick(0.99)
    assert scene.gone()


def test_the_applications_time_does_not_count() -> None:
    scene = Scene("Content-Length: 100000", rest=b"x" * BODY)
    channel = scene.begin()
    scene.tick(1000.0)  # the buffer is full
    assert len(read(channel)) == BODY
    scene.loop.turn()
    scene.tick(1000.0)  # there is room, but nobody waits
    channel.respond("200 OK", [])
    channel.send(b"x")
    scene.loop.turn()
    scene.tick(1000.0)
    assert scene.ended == []
    reading = Task(read, channel)
    while not scene.loop.due():
        scene.loop.called.get(timeout=HANG)
        scene.loop.turn()
    scene.tick(29.0)
    assert reading.is_alive()
    scene.tick(1.0)
    assert isinstance(reading.error(), ClientGone)


def test_no_timeout() -> None:
    scene = Scene("Content-Length: 5", timeout=None)
    scene.feed(b"h")
    assert scene.loop.due() == []


# -- TLS -------------------------------------------------------------------


def test_reading_that_has_to_write_first() -> None:
    class Crossed(Transport):
        def receive(self, buffer: bytearray) -> int:
            self.wants_write = not self.wants_write
            return -1 if self.wants_write else super().receive(buffer)

    scene = Scene("Content-Length: 5")
    scene.transport.__class__ = Crossed
    scene.handler.on_ready(READ)
    assert scene.mask == WRITE
    scene.transport.incoming.append(b"hello")
    scene.handler.on_ready(WRITE)
    assert scene.mask == READ
    assert scene.queued


def test_writing_that_has_to_read_first() -> None:
    class Crossed(Transport):
        stuck = True

        def send(self, data: bytes) -> int:
            self.wants_read = self.stuck
            return 0 if self.stuck else super().send(data)

    scene = Scene(method="GET")
    scene.feed(b"x" * BODY)  # so that nothing is read for its own sake
    assert scene.mask == 0
    scene.transport.__class__ = Crossed
    respond(scene.begin(), b"hello")
    scene.loop.turn()
    assert scene.mask == READ
    Crossed.stuck = False
    scene.handler.on_ready(READ)
    assert b"hello" in scene.transport.written


# -- The log ---------------------------------------------------------------


def test_what_happens_is_logged_in_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "syncws.server")
    scene = Scene("Content-Length: 5")
    scene.tick(30.0)
    scene.feed(OSError("reset"))
    other = Scene("Content-Length: 5")
    other.feed(OSError("lost"))
    assert caplog.messages == []
    scene.loop.work()
    other.loop.work()
    assert caplog.messages == [
        "refused /path?query with 408: The request's body did not come in time.",
        "/path?query, while its body was read: the client was lost: lost",
    ]
