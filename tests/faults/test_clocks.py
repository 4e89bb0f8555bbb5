"""Clocks that step, leap and stand still."""

from __future__ import annotations

import ast
import os
import select
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest

import syncws
from syncws.engine.loop import IOLoop
from syncws.engine.poller import MOST_READY
from tests.faults.ends import clocked, serves_on
from tests.reconnecting import Reconnector, linked
from tests.support import (
    CLOSE,
    HANG,
    PING,
    PONG,
    TEXT,
    Gate,
    RawPeer,
    Recorder,
    ServerRecorder,
    interpreter,
    listening,
    open_pair,
    wait_until,
)

_PACKAGE = Path(syncws.__file__).resolve().parent
_DAY = 86_400.0
_HOURS = 5 * 3600.0

CONFIG = syncws.ServiceConfig(compression=False)


# -- The time of day ---------------------------------------------------------


def clocks_used(source: str) -> set[str]:
    """Return what a module uses of `time`, and which of its calls ask for the time of day."""
    used = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            of_time = isinstance(node.value, ast.Name) and node.value.id == "time"
            if of_time or node.attr in ("now", "utcnow", "today"):
                used.add(node.attr)
    return used


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "from time import time",
        "import datetime\ndatetime.datetime.now()",
    ],
)
def test_the_look_at_the_sources_finds_clocks(source: str) -> None:
    assert clocks_used(source)
    assert clocks_used(source) - {"monotonic"}


# What a command shows to whoever reads along.
_SHOWN = {"echo.py": {"strftime"}, "render.py": {"strftime", "now"}}


def test_only_the_monotonic_clock_is_used() -> None:
    found = {
        path.name: used
        for path in sorted(_PACKAGE.rglob("*.py"))
        if (used := clocks_used(path.read_text(encoding="utf-8")) - {"monotonic"})
    }
    assert found == _SHOWN


@pytest.mark.parametrize("step", [_DAY, -_DAY, -4 * 365 * _DAY], ids=["on", "back", "far back"])
def test_the_time_of_day_steps(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines, keepalive, idleness and retries do not notice."""
    real = time.time
    service = ServerRecorder(syncws.ServiceConfig(idle_timeout=60, ping_interval=20))
    with listening(service) as listener:
        url = f"ws://127.0.0.1:{listener.port}/"
        with syncws.Client(url, idle_timeout=60) as client:
            caller = service.expect("on_open")
            monkeypatch.setattr(time, "time", lambda: real() + step)
            for number in range(3):
                client.send_text(f"{number}")
                service.expect("on_text", f"{number}")
                caller.send_text("and back")
                assert client.receive(timeout=HANG) == "and back"
            with pytest.raises(syncws.ReceiveTimeout):
                client.receive(timeout=0.01)
            serves_on(url, service)
        service.expect("on_close", 1000, "")
    assert service.calls.empty()


@pytest.mark.parametrize("step", [_DAY, -_DAY], ids=["on", "back"])
def test_the_time_of_day_steps_between_attempts(
    step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    service = Reconnector()
    retry = syncws.RetryConfig(interval=0.02, jitter=0.0)
    with linked(service=service, retry=retry) as (server, _, peer):
        monkeypatch.setattr(time, "time", lambda: real() + step)
        peer.abort()
        with server.accept() as second:
            second.answer()
            service.reconnected()
            second.text("hello")
            service.expect("on_text", "hello").close(timeout=0)
            second.abort()
        service.expect("on_close")


# -- Leaps of the monotonic clock --------------------------------------------


def pinged(peer: RawPeer, leap: Any) -> bytes:
    """Have the other end send a keepalive ping, and return what it carries."""
    leap(21.0)
    return peer.expect(PING)


@pytest.mark.parametrize("what", ["the pong", "a message", "much"])
@pytest.mark.parametrize("role", ["server", "client"])
def test_a_leap_does_not_end_a_connection_whose_pong_waits(role: str, what: str) -> None:
    """The process stood still for hours, and what came meanwhile is read first.

    Wherever in a round that was: here amid the calls, behind the sockets.
    """
    service = ServerRecorder(CONFIG) if role == "server" else Recorder()
    with clocked() as (engine, clock), Gate() as gate:
        loop = engine.acquire()
        if role == "server":
            ends: Any = listening(service, engine=engine)
        else:
            ends = open_pair(service=service, engine=engine, compression=False)
        with ends as opened:
            peer = RawPeer.connect(opened) if role == "server" else opened[1]
            with peer:
                if role == "server":
                    service.expect("on_open")
                data = pinged(peer, clock.leap)
                loop.call_soon(gate.block)
                gate.reached()
                if what == "the pong":
                    peer.send(PONG, data)
                elif what == "a message":
                    peer.text("still here")
                else:
                    peer.text(*["x" * 1000] * 100)
                clock._ahead += _HOURS
                gate.open()
                # The next ping is sent, and answered: the connection is well.
                peer.send(PONG, peer.expect(PING))
                if what == "a message":
                    service.expect("on_text", "still here")
                peer.text("and after")
                while service.next().args != ("and after",):
                    pass
        engine.release(loop)


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_leap_finds_a_peer_that_has_said_nothing(role: str) -> None:
    """But not before it had its ping_timeout."""
    service = ServerRecorder(CONFIG) if role == "server" else Recorder()
    with clocked() as (engine, clock):
        if role == "server":
            ends: Any = listening(service, engine=engine)
        else:
            ends = open_pair(service=service, engine=engine, compression=False)
        with ends as opened:
            peer = RawPeer.connect(opened) if role == "server" else opened[1]
            with peer:
                if role == "server":
                    service.expect("on_open")
                clock.stop()
                # Nobody was asked before the leap, so nobody is late behind it.
                clock.leap(_HOURS)
                peer.expect(PING)
                service.quiet()
                clock.leap(19.0)
                service.quiet()
                clock.leap(2.0)
                assert isinstance(service.next().args[0], syncws.KeepaliveTimeout)
                service.expect("on_close", 1006, "")
                peer.expect_close(1011)


def test_a_leap_while_reading_is_paused() -> None:
    """What the peer has sent is not read, so its silence says nothing."""
    gate = Gate()

    class Slow(ServerRecorder):
        config = syncws.ServiceConfig(compression=False, receive_queue_size=2)

        def on_text(self, caller: Any, text: str) -> None:
            gate.block()
            super().on_text(caller, text)

    service = Slow()
    with (
        gate,
        clocked() as (engine, clock),
        listening(service, engine=engine) as listener,
        RawPeer.connect(listener) as peer,
    ):
        service.expect("on_open")
        data = pinged(peer, clock.leap)
        texts = [f"{number}" for number in range(10)]
        peer.text(*texts[:4])
        gate.reached()
        connection = next(iter(listener._reception._connections))
        wait_until(lambda: not connection._reading)
        peer.text(*texts[4:])
        peer.send(PONG, data)
        for _ in range(5):
            clock.leap(_HOURS)
        gate.open()
        for text in texts:
            service.expect("on_text", text)
        peer.abort()
        service.expect("on_close", 1006, "")


def test_a_leap_amid_an_opening_handshake() -> None:
    """Who has sent the whole request by then is let in; who has not is late."""
    service = ServerRecorder(CONFIG)
    with (
        clocked() as (engine, clock),
        Gate() as gate,
        listening(service, engine=engine) as listener,
    ):
        loop = listener._loop
        assert loop is not None
        with RawPeer.dial(listener) as early, RawPeer.dial(listener) as late:
            request = RawPeer.request()
            for peer in (early, late):
                peer.send_bytes(request[:20])
            wait_until(lambda: len(listener._reception._openings) == 2)
            loop.call_soon(gate.block)
            gate.reached()
            early.send_bytes(request[20:])
            clock._ahead += _HOURS
            gate.open()
            assert early.read_head().startswith(b"HTTP/1.1 101 ")
            service.expect("on_open")
            late.expect_end()
        service.expect("on_close", 1006, "")


def test_a_leap_finds_idleness_once() -> None:
    """However long it was: as one idle_timeout that is over."""

    class Idle(ServerRecorder):
        config = syncws.ServiceConfig(idle_timeout=60, ping_interval=None)

        def on_idle_timeout(self, caller: Any) -> None:
            self.record("on_idle_timeout", caller)

    service = Idle()
    with (
        clocked() as (engine, clock),
        listening(service, engine=engine) as listener,
        RawPeer.connect(listener) as peer,
    ):
        service.expect("on_open")
        (connection,) = listener._reception._connections
        wait_until(connection._inbox.idle)
        clock.stop()
        clock.leap(_HOURS)
        service.expect("on_idle_timeout")
        wait_until(connection._inbox.idle)  # as long as the callback runs nobody is idle
        service.quiet()
        clock.leap(59.0)
        service.quiet()
        clock.leap(2.0)
        service.expect("on_idle_timeout")
        peer.abort()
        service.expect("on_close", 1006, "")


def test_a_clock_that_stands_still() -> None:
    """No deadline comes, and nothing else depends on it."""
    service = ServerRecorder(CONFIG)
    with clocked() as (engine, _), listening(service, engine=engine) as listener:
        assert listener._loop is not None
        stands = listener._loop.clock()
        listener._loop.clock = lambda: stands
        for _ in range(3):
            serves_on(f"ws://127.0.0.1:{listener.port}/", service)


# -- More that is ready than one poll tells of -------------------------------


class Crowd:
    """A poller that tells of so many at once."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = list(sizes)
        self.polls = 0

    def poll(self, timeout: float | None) -> list[tuple[Any, int]]:
        self.polls += 1
        size = self.sizes.pop(0) if self.sizes else 0
        return [(self, 1)] * size

    def on_ready(self, mask: int) -> None:
        pass

    def on_loop_error(self, error: BaseException) -> None:
        raise AssertionError(error)

    def register(self, *args: Any) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("sizes", "rounds"),
    [((0, 0), 2), ((0, MOST_READY, 5), 3), ((0, MOST_READY, MOST_READY, MOST_READY, 5), 4)],
    ids=["none", "many", "always"],
)
def test_timers_wait_for_all_that_is_ready(
    sizes: tuple[int, ...], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not longer than it takes to look at every socket."""
    crowd = Crowd(*sizes)
    monkeypatch.setattr("syncws.engine.loop.make_poller", lambda: crowd)
    now = [100.0]
    loop = IOLoop("crowded", lambda: now[0])
    for number in range(2 * MOST_READY):
        loop._handlers.add(number)  # type: ignore[arg-type]
    called: list[int] = []
    loop.call_at(110.0, lambda: called.append(crowd.polls), crowd)
    now[0] = 200.0
    while not called:
        loop._round()
    assert called == [rounds]
    loop._handlers.clear()
    loop.abandon()


# -- A process that is stopped -----------------------------------------------

# Its clock is the monotonic one, ahead by the seconds in a file, which the test
# writes while this cannot read.
_STOPPED = """
import mmap, struct, sys, time, syncws
with open(sys.argv[1], "rb") as file:
    ahead = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
class Quiet(syncws.Service):
    config = syncws.ServiceConfig(compression=False, ping_interval=0.02, ping_timeout=20)
    def on_text(self, caller, text): caller.send_text(text)
    def on_error(self, caller, error): print("error", error)
    def on_close(self, caller, code, reason): print("closed", code)
engine = syncws.Engine()
engine.acquire().clock = lambda: time.monotonic() + struct.unpack("d", ahead)[0]
listener = syncws.Listener(0, engine=engine)
listener.attach("/", Quiet())
listener.start()
print(listener.port)
input()
listener.stop()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_process_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """Ctrl-Z and fg: the wait of the I/O thread is cut short by that, with nothing to tell."""
    ahead = tmp_path / "ahead"
    ahead.write_bytes(struct.pack("d", 0.0))
    with interpreter(_STOPPED, str(ahead)) as process, ahead.open("r+b", buffering=0) as file:
        pid = process.process.pid
        with socket.create_connection(("127.0.0.1", int(process.line())), HANG) as sock:
            peer = RawPeer(sock, client=True)
            peer.send_bytes(RawPeer.request())
            assert peer.read_head().startswith(b"HTTP/1.1 101 ")
            for number in range(2):
                data = peer.expect(PING)
                os.kill(pid, signal.SIGSTOP)
                assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
                # Longer than its ping_timeout, in which the pong arrives; and
                # than it would have waited for something to be ready.
                peer.send(PONG, data)
                file.seek(0)
                file.write(struct.pack("d", 100.0 * (number + 1)))
                assert not select.select([sock], [], [], 0.3)[0]
                os.kill(pid, signal.SIGCONT)
                peer.text(f"{number}")
                while (got := peer.read()).opcode == PING:
                    peer.send(PONG, got.payload)
                assert (got.opcode, got.payload) == (TEXT, b"%d" % number)
            peer.close_frame(1000)
            while (got := peer.read()).opcode == PING:
                pass
            assert got.opcode == CLOSE
        process.tell()
        assert process.line() == "closed 1000"
        assert process.end() == (0, "")
