"""A connection before its upgrade, without a socket."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from syncws.engine.journal import Journal
from syncws.engine.loop import READ, WRITE
from syncws.protocol.http import Request
from syncws.protocol.server_handshake import Refusal, refusal_response
from syncws.server.opening import Opening
from tests.scripted import DirectJournal
from tests.support import RawPeer

REQUEST = RawPeer.request("/path?query")


class FakeTimer:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class FakeLoop:
    """What an opening sees of a loop."""

    def __init__(self) -> None:
        self.masks: dict[Any, int] = {}
        self.timers: list[FakeTimer] = []
        self.owned: set[Any] = set()
        self.journal = DirectJournal()
        self.buffer = bytearray(4096)

    def clock(self) -> float:
        return 100.0

    def register(self, sock: Any, mask: int, handler: Any) -> None:
        assert sock not in self.masks
        self.masks[sock] = mask

    def modify(self, sock: Any, mask: int, handler: Any) -> None:
        assert sock in self.masks
        self.masks[sock] = mask

    def unregister(self, sock: Any) -> None:
        self.masks.pop(sock, None)

    def call_at(self, when: float, call: Callable[[], None], owner: Any) -> FakeTimer:
        self.timers.append(FakeTimer(when, call))
        return self.timers[-1]

    def own(self, handler: Any) -> None:
        self.owned.add(handler)

    def disown(self, handler: Any) -> None:
        self.owned.discard(handler)

    def due(self) -> list[FakeTimer]:
        return [timer for timer in self.timers if timer.call is not None]


class FakeSocket:
    def getpeername(self) -> tuple[str, int]:
        return ("192.0.2.1", 4321)


class FakeTransport:
    """A transport that follows a script.

    `handshakes` has what each step of TLS wants, `incoming` what each read
    returns, and `room` how many bytes each write takes.
    """

    secure = False
    peer_certificate: dict[str, Any] | None = None

    def __init__(self) -> None:
        self.sock = FakeSocket()
        self.handshakes: list[str | Exception] = []
        self.incoming: list[bytes | Exception | None] = []
        self.room: list[int] = []
        self.written = b""
        self.wants_read = self.wants_write = False
        self.shut = self.closed = self.abandoned = 0

    def handshake(self) -> bool:
        self.wants_read = self.wants_write = False
        if not self.handshakes:
            return True
        step = self.handshakes.pop(0)
        if isinstance(step, Exception):
            raise step
        setattr(self, f"wants_{step}", True)
        return False

    def receive(self, buffer: bytearray) -> int:
        data = self.incoming.pop(0) if self.incoming else None
        if data is None:
            return -1
        if isinstance(data, Exception):
            raise data
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes) -> int:
        size = min(len(data), self.room.pop(0)) if self.room else len(data)
        self.written += data[:size]
        return size

    def shutdown_write(self) -> None:
        self.shut += 1

    def close(self) -> None:
        self.closed += 1

    def abandon(self) -> None:
        self.abandoned += 1


class Scene:
    """An opening with everything around it."""

    def __init__(
        self,
        deadline: float | None = 110.0,
        refusal: Refusal | None = None,
        waiting: bool = False,
    ) -> None:
        self.waiting = waiting
        self.lost = 0
        self.loop = FakeLoop()
        self.transport = FakeTransport()
        self.refusal = refusal
        self.requests: list[tuple[Request, bytes]] = []
        self.ended: list[Opening] = []
        self.taken: Any = None
        self.opening = Opening(
            self.loop,  # type: ignore[arg-type]
            self.transport,  # type: ignore[arg-type]
            deadline=deadline,
            max_size=1000,
            decide=self.decide,
            on_end=self.ended.append,
        )

    def decide(self, request: Request, opening: Opening, rest: bytes) -> Refusal | None:
        self.requests.append((request, rest))
        if self.waiting:
            opening.wait(self.lose)
        elif self.refusal is None:
            self.taken = opening.take()
        return self.refusal

    def lose(self) -> None:
        self.lost += 1

    def feed(self, *incoming: bytes | Exception | None) -> None:
        """Let each of these come in a round of its own."""
        for data in incoming:
            self.transport.incoming.append(data)
            self.opening.on_ready(READ)

    @property
    def mask(self) -> int | None:
        return self.loop.masks.get(self.transport.sock)

    def upgraded(self) -> bool:
        """Whether the socket was given up, in good order: registered, for who takes it over."""
        assert self.loop.masks == {self.transport.sock: READ}
        assert self.loop.due() == []
        assert self.loop.owned == set()
        assert self.ended == [self.opening]
        return self.taken is self.transport and not self.transport.closed

    def gone(self) -> bool:
        """Whether the socket was closed, in good order."""
        assert self.loop.masks == {}
        assert self.loop.due() == []
        assert self.loop.owned == set()
        assert self.ended == [self.opening]
        return self.transport.closed == 1


@pytest.mark.parametrize("cut", [1, 7, len(REQUEST)])
def test_a_request_however_it_is_cut(cut: int) -> None:
    scene = Scene()
    assert scene.mask == READ
    scene.feed(*(REQUEST[pos : pos + cut] for pos in range(0, len(REQUEST), cut)))
    ((request, rest),) = scene.requests
    assert (request.raw_path, request.query_string, rest) == ("/path", "query", b"")
    assert scene.upgraded()


def test_bytes_behind_the_request_are_handed_on() -> None:
    scene = Scene()
    scene.feed(REQUEST + b"first frames")
    assert scene.requests[0][1] == b"first frames"
    assert scene.upgraded()


def test_tls_before_the_request() -> None:
    scene = Scene()
    scene.transport.handshakes = ["read", "write", "read"]
    for mask in (READ, WRITE, READ):
        scene.opening.on_ready(READ)
        assert scene.mask == mask
    scene.feed(REQUEST)
    assert scene.upgraded()


def test_a_socket_that_nobody_takes_over_is_waited_for_no_more() -> None:
    scene = Scene()
    scene.feed(REQUEST)
    assert scene.upgraded()
    scene.opening.on_ready(READ)
    assert scene.loop.masks == {}
    scene.opening.abort()
    assert scene.transport.closed == 0


@pytest.mark.parametrize("rest", [b"", REQUEST[:9], REQUEST, REQUEST + b"behind it"])
def test_a_socket_that_had_a_request_before(rest: bytes) -> None:
    scene = Scene()
    scene.opening.take()
    scene.ended.clear()
    scene.transport.handshakes = ["read"]  # TLS is over
    scene.opening = Opening(
        scene.loop,  # type: ignore[arg-type]
        scene.transport,  # type: ignore[arg-type]
        deadline=110.0,
        max_size=1000,
        decide=scene.decide,
        on_end=scene.ended.append,
        resumed=True,
    )
    scene.opening.resume(rest)
    if len(rest) < len(REQUEST):
        assert scene.requests == []
        scene.feed(REQUEST[len(rest) :])
    ((_, behind),) = scene.requests
    assert behind == rest[len(REQUEST) :]
    assert scene.opening.head == REQUEST
    assert scene.upgraded()


def test_a_socket_of_which_tls_has_more_to_tell() -> None:
    """The end stood right behind the request before; the selector does not know."""
    scene = Scene()
    scene.opening.take()
    scene.ended.clear()
    scene.transport.wants_write = True
    scene.opening = Opening(
        scene.loop,  # type: ignore[arg-type]
        scene.transport,  # type: ignore[arg-type]
        deadline=110.0,
        max_size=1000,
        decide=scene.decide,
        on_end=scene.ended.append,
        resumed=True,
    )
    assert scene.mask == WRITE
    scene.transport.wants_write = False
    scene.feed(b"")
    assert scene.gone()


def test_a_socket_that_is_lost_when_its_next_request_is_looked_at() -> None:
    scene = Scene()

    def decide(*args: Any) -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    scene.opening._decide = decide
    scene.opening.resume(REQUEST)
    assert scene.gone()


def test_a_spurious_wakeup() -> None:
    scene = Scene()
    scene.feed(None, REQUEST[:10], None, REQUEST[10:])
    assert scene.upgraded()


@pytest.mark.parametrize("end", [b"", OSError(errno.ECONNRESET, "reset")])
@pytest.mark.parametrize("before", [b"", REQUEST[:10]])
def test_a_client_that_goes_away(before: bytes, end: bytes | Exception) -> None:
    scene = Scene()
    scene.feed(*((before, end) if before else (end,)))
    assert scene.requests == []
    assert scene.gone()


def test_tls_that_fails() -> None:
    scene = Scene()
    scene.transport.handshakes = [OSError("no TLS")]
    scene.opening.on_ready(READ)
    assert scene.gone()


def test_the_deadline() -> None:
    scene = Scene()
    scene.feed(REQUEST[:10])
    (timer,) = scene.loop.due()
    assert timer.when == 110.0
    assert timer.call is not None
    timer.call()
    timer.cancel()
    assert scene.gone()


def test_no_deadline() -> None:
    scene = Scene(deadline=None)
    assert scene.loop.timers == []
    scene.feed(REQUEST)
    assert scene.upgraded()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 1000, 431),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /#fragment HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
)
def test_a_bad_head_is_refused(data: bytes, status: int) -> None:
    scene = Scene()
    scene.feed(data)
    assert scene.transport.written.startswith(b"HTTP/1.1 %d " % status)
    assert scene.requests == []
    assert scene.transport.shut == 1
    scene.feed(b"more", None, b"")
    assert scene.gone()


def test_a_refusal_is_written_in_pieces_and_the_client_goes_first() -> None:
    scene = Scene(refusal=Refusal(418, "I am a teapot."))
    scene.transport.room = [5, 0, 7]
    scene.feed(REQUEST)
    assert scene.mask == WRITE
    for _ in range(2):
        assert scene.transport.shut == 0
        scene.opening.on_ready(WRITE)
    scene.opening.on_ready(WRITE)
    assert scene.transport.shut == 1
    assert scene.mask == READ
    assert scene.transport.written.startswith(b"HTTP/1.1 418 ")
    assert scene.transport.written.endswith(b"\r\n\r\nI am a teapot.\n")
    assert scene.ended == []
    scene.feed(b"ignored", b"")
    assert scene.gone()


def test_a_refused_head_request_gets_no_body() -> None:
    scene = Scene(refusal=Refusal(418, "I am a teapot."))
    scene.feed(REQUEST.replace(b"GET", b"HEAD"))
    assert scene.transport.written.endswith(b"\r\n\r\n")


def test_a_refused_client_that_stays_is_dropped() -> None:
    scene = Scene(refusal=Refusal(418, "I am a teapot."))
    scene.feed(REQUEST, b"more", b"and more")
    (timer,) = scene.loop.due()  # in place of the first
    assert timer.when == 102.0
    assert timer.call is not None
    timer.call()
    timer.cancel()
    assert scene.gone()


def test_a_refused_client_is_dropped_though_there_was_no_deadline() -> None:
    scene = Scene(deadline=None, refusal=Refusal(418, "I am a teapot."))
    scene.feed(REQUEST)
    (timer,) = scene.loop.due()
    assert timer.when == 102.0


def test_writing_a_refusal_fails() -> None:
    class Broken(FakeTransport):
        def send(self, data: bytes) -> int:
            raise BrokenPipeError

    scene = Scene(refusal=Refusal(418, "I am a teapot."))
    scene.transport.__class__ = Broken
    scene.feed(REQUEST)
    assert scene.gone()


def test_abort_and_errors_close_once() -> None:
    scene = Scene()
    scene.opening.abort()
    scene.opening.abort()
    scene.opening.on_loop_error(ValueError())
    assert scene.gone()


def test_an_error_of_ours_closes() -> None:
    scene = Scene()
    scene.opening.on_loop_error(ValueError())
    assert scene.gone()


def test_in_a_forked_child_only_the_descriptor_goes() -> None:
    scene = Scene()
    scene.opening.abandon()
    assert scene.transport.abandoned == 1
    assert scene.transport.closed == 0
    scene.opening.abort()
    assert scene.transport.closed == 0


def test_what_happens_is_logged_in_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.refusal = Refusal(404, "nothing there")
    works: list[Journal] = []
    scene.loop.journal = Journal(works.append, works.append)  # type: ignore[assignment]
    with caplog.at_level("INFO", "syncws.server"):
        scene.feed(REQUEST)
        assert caplog.messages == []
        for work in works:
            work.run()
    assert ["404" in message for message in caplog.messages] == [True]


def test_what_happens_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "syncws.server")
    scene = Scene(refusal=Refusal(418, "I am a teapot."))
    scene.feed(REQUEST, OSError("lost"))
    assert caplog.messages == [
        "refused /path?query with 418: I am a teapot.",
        "a client was lost during waiting for the client to go: lost",
    ]


def test_a_request_knows_where_it_came_from() -> None:
    scene = Scene()
    scene.transport.secure = True
    scene.transport.peer_certificate = {"serialNumber": "01"}
    scene.feed(REQUEST)
    ((request, _),) = scene.requests
    assert (request.remote_address, request.is_secure) == (("192.0.2.1", 4321), True)
    assert request.peer_certificate == {"serialNumber": "01"}


# -- Waiting -----------------------------------------------------------------

NO = Refusal(400, b"no")


def waiting(deadline: float | None = 110.0) -> Scene:
    """An opening that waits for an answer of somebody else's: nothing else concerns it."""
    scene = Scene(deadline, waiting=True)
    assert not scene.opening.waiting
    scene.feed(REQUEST + b"first frames")
    assert scene.opening.waiting
    assert scene.loop.masks == {}
    assert scene.loop.due() == []
    assert scene.loop.owned == {scene.opening}
    assert scene.ended == []
    scene.opening.on_ready(READ)  # nobody calls it, but if somebody did
    assert scene.loop.masks == {}
    return scene


@pytest.mark.parametrize("deadline", [110.0, None])
def test_taking_ends_the_wait(deadline: float | None) -> None:
    scene = waiting(deadline)
    scene.taken = scene.opening.take()
    assert scene.upgraded()
    assert not scene.opening.waiting
    scene.opening.reply(NO)
    scene.opening.stop()
    scene.opening.abort()
    assert scene.transport.written == b""
    assert scene.transport.closed == scene.lost == 0


def test_a_reply_ends_the_wait() -> None:
    scene = waiting()
    scene.transport.room = [5, 0]
    scene.opening.reply(NO)
    assert not scene.opening.waiting
    assert scene.mask == WRITE
    scene.opening.reply(NO)
    scene.opening.on_ready(WRITE)
    assert scene.transport.shut == 0
    scene.opening.on_ready(WRITE)
    assert scene.transport.written == refusal_response(NO)
    assert scene.transport.shut == 1
    assert scene.mask == READ
    (timer,) = scene.loop.due()
    assert timer.when == 102.0
    scene.feed(b"ignored", b"")
    assert scene.gone()
    assert scene.lost == 0


def test_a_reply_to_a_client_that_is_gone() -> None:
    class Broken(FakeTransport):
        def send(self, data: bytes) -> int:
            raise BrokenPipeError

    scene = waiting()
    scene.transport.__class__ = Broken
    scene.opening.reply(NO)
    assert scene.gone()
    assert scene.lost == 0
    scene.opening.reply(NO)


@pytest.mark.parametrize("end", ["abort", "on_loop_error"])
def test_who_waits_with_it_is_told_once_of_the_end(end: str) -> None:
    scene = waiting()
    if end == "abort":
        scene.opening.abort()
    else:
        scene.opening.on_loop_error(ValueError())
    assert scene.gone()
    assert scene.lost == 1
    scene.opening.abort()
    scene.opening.stop()
    scene.opening.reply(NO)
    assert scene.lost == 1
    assert scene.transport.written == b""


def test_stop_tells_who_waits_and_its_client() -> None:
    scene = waiting()
    scene.opening.stop()
    assert scene.lost == 1
    assert scene.transport.written.startswith(b"HTTP/1.1 503 ")
    assert scene.transport.shut == 1
    assert scene.ended == []
    scene.opening.reply(NO)
    scene.feed(b"")
    assert scene.gone()
    assert scene.lost == 1
    assert b"400" not in scene.transport.written


def test_stop_drops_who_does_not_wait() -> None:
    scene = Scene()
    scene.feed(REQUEST[:10])
    scene.opening.stop()
    assert scene.gone()
    assert scene.transport.written == b""


def test_who_waits_in_a_forked_child_is_told() -> None:
    scene = waiting()
    scene.opening.abandon()
    assert scene.lost == 1
    assert not scene.opening.waiting
    assert (scene.transport.abandoned, scene.transport.closed) == (1, 0)
