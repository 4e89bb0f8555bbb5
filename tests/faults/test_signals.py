"""Signals that come amid a call that blocks: with a handler that raises, and with one that returns.

A handler runs in the main thread, wherever that is in the interpreter's code,
so these tests make their calls in the main thread.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from syncws.engine.dispatch import Mailbox
from syncws.protocol.events import TEXT as TEXT_EVENT
from syncws.protocol.events import Event
from tests.faults.ends import closed_error
from tests.support import (
    HANG,
    TEXT,
    Gate,
    RawPeer,
    RawServer,
    ServerRecorder,
    Task,
    interpreter,
    listening,
    open_pair,
)

pytestmark = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals need the main thread"
)

_BIG = "x" * 200_000


class Interrupt(BaseException):
    """What the handler raises; not one that anybody else handles."""


@contextlib.contextmanager
def signals(file: str, *functions: str, raising: bool = False) -> Iterator[list[int]]:
    """Send a signal to the main thread as soon as it is in these functions; tell which came.

    The first of them is in this file; the others it has called.
    """
    came: list[int] = []
    done = threading.Event()

    def handler(number: int, frame: object) -> None:
        came.append(number)
        done.set()
        if raising:
            raise Interrupt

    def strike() -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not _is_in(sys._current_frames()[main], file, functions):
            if done.wait(0.001):
                return
        # It may still be on its way into the wait; twice is enough anyway.
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    task = Task(strike)
    try:
        yield came
    finally:
        done.set()
        task.wait()
        signal.signal(signal.SIGUSR1, before)


def _is_in(frame: Any, file: str, functions: tuple[str, ...]) -> bool:
    wanted = list(functions)
    while frame is not None:
        name = frame.f_code.co_name
        if name == wanted[-1] and (len(wanted) > 1 or frame.f_code.co_filename.endswith(file)):
            wanted.pop()
            if not wanted:
                return True
        frame = frame.f_back
    return False


def when(came: list[int], call: Callable[[], object]) -> Task:
    """Make a call as soon as the handler has returned."""

    def wait() -> None:
        while not came:
            threading.Event().wait(0.001)
        call()

    return Task(wait)


# -- Handlers that raise -----------------------------------------------------


@contextlib.contextmanager
def interrupted(file: str, *functions: str) -> Iterator[None]:
    """The block makes a call that a handler raises out of."""
    with signals(file, *functions, raising=True) as came, pytest.raises(Interrupt):
        yield
    assert came == [signal.SIGUSR1]


def test_a_receive_that_is_interrupted_leaves_the_message_to_the_next() -> None:
    with open_pair() as (client, peer):
        for timeout in (None, HANG):
            with interrupted("dispatch.py", "get"):
                client.receive(timeout)
            peer.text("one", "two")
            assert client.receive(timeout=HANG) == "one"
            assert client.receive(timeout=HANG) == "two"


def fill(client: syncws.Client) -> int:
    """Send until the next send would block; return how many were taken."""
    count = 0
    while client.buffered_amount <= 262_144:
        client.send_text(_BIG)
        count += 1
    return count


def test_a_send_that_is_interrupted_has_sent_nothing() -> None:
    with open_pair(receive_buffer=4096, compression=False, ping_interval=None) as (client, peer):
        count = fill(client)
        with interrupted("room.py", "_wait_for_room"):
            client.send_text("never")
        reading = Task(lambda: [peer.expect(TEXT, _BIG) for _ in range(count)])
        client.send_text("behind it")
        reading.result()
        peer.expect(TEXT, "behind it")


def test_a_close_that_is_interrupted_goes_on() -> None:
    with open_pair() as (client, peer):
        with interrupted("connection.py", "wait_closed"):
            client.close(4000, "bye")
        peer.expect_close(4000)
        peer.close_frame(4000)
        peer.end_writing()
        assert client.wait_closed(HANG)
        error = closed_error(client.receive)
        assert error.sent == (4000, "bye")
        assert error.received == (4000, "")
        client.close()


def test_a_wait_for_the_end_that_is_interrupted() -> None:
    with open_pair() as (client, peer):
        with interrupted("client.py", "wait_closed"):
            client.wait_closed()
        client.send_text("still open")
        peer.expect(TEXT, "still open")
        peer.abort()
        assert client.wait_closed(HANG)


def test_a_stop_that_is_interrupted() -> None:
    """What had not ended by then is aborted, and the listener may start again."""
    service = ServerRecorder()
    with listening(service) as listener:
        with RawPeer.connect(listener) as peer:
            service.expect("on_open")
            with interrupted("tally.py", "wait"):
                listener.stop(HANG)
            peer.expect_close(1001)
            peer.expect_end()
        service.expect("on_close", 1006, "")
        listener.start()
        RawPeer.connect(listener).finish()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_client_that_is_interrupted_while_it_connects(secure: bool) -> None:
    with RawServer() as server:
        url = server.url.replace("ws:", "wss:") if secure else server.url
        with interrupted(
            "waiting.py" if secure else "connect.py", "secure" if secure else "_upgrade"
        ):
            syncws.Client(url)
        with server.accept() as peer, contextlib.suppress(EOFError):
            peer.read_head()
            peer.read()
        assert_connects(server)


def test_a_client_that_is_interrupted_before_its_next_attempt() -> None:
    with RawServer() as server:
        server.sock.settimeout(HANG)

        def refuse() -> None:
            server.accept().abort()

        refusing = Task(refuse)
        with interrupted("client.py", "_connect", "wait"):
            syncws.Client(server.url, retry=syncws.RetryConfig(interval=30.0))
        refusing.result()
        assert_connects(server)


def assert_connects(server: RawServer) -> None:
    """See that nothing stands in the way of the next client."""
    opening = server.open_client()
    with server.accept() as peer:
        peer.answer()
        with opening.result() as client:
            peer.text("hello")
            assert client.receive(timeout=HANG) == "hello"
            peer.end_writing()


# -- Handlers that return ----------------------------------------------------


def test_a_receive_goes_on_behind_a_handler() -> None:
    with open_pair() as (client, peer), signals("dispatch.py", "get") as came:
        sending = when(came, lambda: peer.text("hello"))
        assert client.receive() == "hello"
        sending.result()
        assert len(came) == 1


def test_a_receive_keeps_its_deadline_behind_a_handler() -> None:
    with open_pair() as (client, _), signals("dispatch.py", "get") as came:
        while not came:  # whoever sends the signal may be too late for one of them
            began = time.monotonic()
            with pytest.raises(syncws.ReceiveTimeout):
                client.receive(timeout=0.2)
            assert time.monotonic() - began >= 0.2
        assert len(came) == 1


def test_a_send_goes_on_behind_a_handler() -> None:
    with open_pair(receive_buffer=4096, compression=False, ping_interval=None) as (client, peer):
        count = fill(client)
        with signals("room.py", "_wait_for_room") as came:
            reading = when(came, lambda: [peer.expect(TEXT, _BIG) for _ in range(count)])
            client.send_text("last")
            reading.result()
        peer.expect(TEXT, "last")


def test_a_send_keeps_its_deadline_behind_a_handler() -> None:
    options: dict[str, Any] = {"compression": False, "ping_interval": None, "send_timeout": 0.2}
    with open_pair(receive_buffer=4096, **options) as (client, _):
        fill(client)
        with signals("room.py", "_wait_for_room") as came:
            while not came:  # whoever sends the signal may be too late for one of them
                began = time.monotonic()
                with pytest.raises(syncws.SendTimeout):
                    client.send_text("never")
                assert time.monotonic() - began >= 0.2
        assert len(came) == 1


def test_a_close_goes_on_behind_a_handler() -> None:
    with open_pair() as (client, peer), signals("connection.py", "wait_closed") as came:

        def answer() -> None:
            peer.expect_close(1000)
            peer.close_frame(1000)
            peer.end_writing()

        answering = when(came, answer)
        client.close()
        answering.result()
        assert closed_error(client.receive).received == (1000, "")


def test_a_stop_goes_on_behind_a_handler() -> None:
    gate = Gate()

    class Slow(ServerRecorder):
        def on_close(self, caller: Any, status_code: int, reason: str) -> None:
            gate.block()
            super().on_close(caller, status_code, reason)

    service = Slow()
    with gate, listening(service) as listener, RawPeer.connect(listener) as peer:
        service.expect("on_open")
        peer.abort()
        gate.reached()
        with signals("tally.py", "wait") as came:
            opening = when(came, gate.open)
            listener.stop(HANG)
            opening.result()
        service.expect("on_close", 1006, "")
        assert service.calls.empty()


def test_an_opening_handshake_goes_on_behind_a_handler() -> None:
    with RawServer() as server, signals("connect.py", "_upgrade") as came:

        def answer() -> RawPeer:
            peer = server.accept()
            peer.answer()
            return peer

        answering = Task(lambda: (when(came, lambda: None).result(), answer())[1])
        client = syncws.Client(server.url)
        with answering.result() as peer:
            client.send_text("hello")
            peer.expect(TEXT, "hello")
        client.close()
        assert len(came) == 1


def test_an_opening_handshake_keeps_its_deadline_behind_a_handler() -> None:
    with RawServer() as server, signals("connect.py", "_upgrade") as came:
        while not came:  # whoever sends the signal may be too late for one of them
            began = time.monotonic()
            with pytest.raises(syncws.ConnectTimeout):
                syncws.Client(server.url, handshake_timeout=0.2)
            assert time.monotonic() - began >= 0.2
        assert len(came) == 1


# -- In the worst moment -----------------------------------------------------


class Raising:
    """A lock that is taken, and then a signal handler raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.armed = True

    def __enter__(self) -> None:
        self._lock.acquire()
        if self.armed:
            self.armed = False
            self._lock.release()
            raise Interrupt

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


@pytest.mark.parametrize("where", ["counting", "making room"])
def test_a_message_that_a_receive_has_taken_is_given_back(where: str) -> None:
    mailbox = Mailbox(max_count=4, max_size=1000)
    rooms: list[None] = []

    def room() -> None:
        rooms.append(None)
        if where == "making room" and len(rooms) == 1:
            raise Interrupt

    mailbox.on_room = room
    for number in range(4):
        full = mailbox.put(Event(TEXT_EVENT, f"{number}"))
    assert full
    assert mailbox.pause()
    if where == "counting":
        mailbox._lock = Raising()  # type: ignore[assignment]
    got: list[str] = []
    hits = 0
    while len(got) < 4:
        try:
            event = mailbox.get(0.0)
            assert event is not None
            got.append(event.data)
        except Interrupt:
            hits += 1
            assert mailbox.busy()
            assert not mailbox.idle()
    assert got == ["0", "1", "2", "3"]
    assert hits == 1
    assert rooms  # reading goes on
    with pytest.raises(TimeoutError):
        mailbox.get(0.0)
    assert mailbox.idle()
    assert not mailbox.busy()


def test_a_message_that_was_given_back_wakes_another_receiver() -> None:
    mailbox = Mailbox(max_count=4, max_size=1000)
    other = Task(mailbox.get, HANG)
    with pytest.raises(TimeoutError):
        mailbox.get(0.0)
    mailbox._give_back([Event(TEXT_EVENT, "hello")], False)
    assert other.result().data == "hello"


@pytest.mark.parametrize("kind", ["plain", "large", "compressed", "ping"])
@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_a_send_that_is_cut_short_in_the_write_ends_the_connection(
    kind: str, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows how much is out: nothing more may follow it, and nothing come twice."""
    compressed = kind == "compressed"
    extension = (
        ("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12",)
        if compressed
        else ()
    )
    with open_pair(answer=extension, compression=compressed, ping_interval=None) as (client, peer):
        outbound = client._connection.outbound
        transport = _Cut(outbound._transport, written)
        monkeypatch.setattr(outbound, "_transport", transport)
        with pytest.raises(Interrupt):
            if kind == "ping":
                client.ping(b"once")
            else:
                client.send_text("once" if kind == "plain" else "once" * 100_000)
        assert not client.is_open
        for send in (lambda: client.send_text("late"), client.ping):
            error = closed_error(send)
            assert isinstance(error.__cause__, ConnectionAbortedError)
            assert error.__cause__.strerror == "a signal cut a send short"
        if written:
            peer.read()
        peer.expect_end()
        client.close()


class _Cut:
    """A transport on which a signal handler raises as soon as something is written, or before."""

    def __init__(self, transport: Any, written: bool) -> None:
        self._transport = transport
        self._written = written

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._transport, name)
        if name not in ("send", "send_frame", "send_many"):
            return real

        def cut(*args: Any) -> None:
            sock: socket.socket = self._transport.sock
            if self._written:
                sock.setblocking(True)  # all of it, for the peer to read
                if name == "send_frame":
                    real(*args)
                else:
                    sock.sendall(b"".join(args[0]) if name == "send_many" else args[0])
                sock.setblocking(False)
            raise Interrupt

        return cut


# -- At any moment -----------------------------------------------------------

_STORM = """
import random, signal, sys, threading, syncws
what, count = sys.argv[1], int(sys.argv[2])
class Interrupt(BaseException): pass
armed = False
hits = 0
def handler(number, frame):
    global armed, hits
    if armed:
        armed = False
        hits += 1
        raise Interrupt
def arm():
    global armed
    armed = True
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4))
signal.signal(signal.SIGALRM, handler)
arrived = []
def feed(caller):
    for number in range(count): caller.send_text(str(number))
class Service(syncws.Service):
    def on_open(self, caller):
        if what == "receive": threading.Thread(target=feed, args=(caller,), daemon=True).start()
    def on_text(self, caller, text):
        arrived.append(int(text.partition(" ")[0]))
    def on_error(self, caller, error):
        print("the peer fails", error)
listener = syncws.Listener(0, engine=syncws.Engine())
listener.attach("/", Service())
listener.start()
def connect():
    return syncws.Client(f"ws://127.0.0.1:{listener.port}/", compression=what == "compressed")
client = connect()
number = 0
sent = []
sizes = [0, 10, 1000, 20000]
while number < count:
    text = f"{number} " + "x" * sizes[number % 4]
    try:
        try:
            if what == "receive":
                arm()
                got = client.receive(timeout=20)
                armed = False
                arrived.append(int(got))
                number += 1
            else:
                arm()
                client.send_text(text)
                armed = False
                sent.append(number)
                number += 1
        except syncws.ConnectionClosed:
            armed = False
            client.close()
            client = connect()
    except Interrupt:  # also in what deals with the other
        number += what != "receive"
armed = False
client.close()
listener.stop()
if what == "receive":
    print("in order", arrived == list(range(count)))
else:
    print("in order", sorted(arrived) == sorted(set(arrived)))
print("struck", hits > count // 100)
"""


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="a call's result can be lost while it is returned"
)
def test_a_handler_that_raises_at_any_moment_loses_no_message() -> None:
    with interpreter(_STORM, "receive", "2000") as process:
        assert process.line() == "in order True"
        assert process.line() == "struck True"
        assert process.end() == (0, "")


@pytest.mark.parametrize("what", ["send", "compressed"])
def test_a_handler_that_raises_at_any_moment_sends_nothing_twice(what: str) -> None:
    with interpreter(_STORM, what, "1000") as process:
        assert process.line() == "in order True"
        assert process.line() == "struck True"
        assert process.end() == (0, "")


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_a_close_that_is_cut_short_in_the_write_is_not_sent_twice(
    written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_pair(compression=False, ping_interval=None) as (client, peer):
        outbound = client._connection.outbound
        transport = outbound._transport
        monkeypatch.setattr(outbound, "_transport", _Cut(transport, written))
        with pytest.raises(Interrupt):
            client.close(4000)
        monkeypatch.setattr(outbound, "_transport", transport)
        client.close(4001)
        if written:
            peer.expect_close(4000)
        peer.expect_end()
