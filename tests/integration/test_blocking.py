"""Callbacks that block: all of them at once, in each way, and what resolves it."""

from __future__ import annotations

import logging
import queue
import socket
import threading
from contextlib import ExitStack
from typing import Any

import pytest

import syncws
from syncws.engine.lookout import Lookout
from tests.support import (
    HANG,
    TEXT,
    Gate,
    RawPeer,
    Recorder,
    listening,
    wait_until,
)

MOST = 3  # workers, which all block


class EngineOfThree:
    """A small pool, and what tells that all of it is blocked."""

    def __init__(self, **options: Any) -> None:
        self.engine = syncws.Engine(workers=1, max_workers=MOST, name="small", **options)
        self.inside: queue.Queue[None] = queue.Queue()
        # What gives up after a while does not begin before it was seen to block.
        self.seen = threading.Event()

    def wait_until_all_are_in(self) -> None:
        for _ in range(MOST):
            self.inside.get(timeout=HANG)
        assert self.engine.stats().threads == MOST
        assert len(self.engine.running()) == MOST


@pytest.fixture
def small() -> EngineOfThree:
    return EngineOfThree()


class Blocking(Recorder):
    """On "block" a callback does what the test says; "hello" is answered."""

    config = syncws.ServiceConfig(
        ping_interval=None, compression=False, send_timeout=0.3, send_buffer_size=10_000
    )

    def __init__(self, small: EngineOfThree) -> None:
        super().__init__()
        self._small = small
        self.outcomes: queue.Queue[Any] = queue.Queue()

    def block(self, caller: syncws.Caller) -> Any:
        raise NotImplementedError

    def on_text(self, caller: Any, text: str) -> None:
        if text == "hello":
            caller.send_text("hello")
            return
        self._small.inside.put(None)
        try:
            self.outcomes.put(self.block(caller))
        except BaseException as exc:
            self.outcomes.put(exc)


def block_all(stack: ExitStack, listener: syncws.Listener, small: EngineOfThree) -> list[RawPeer]:
    """Block every worker, and have one more client wait for an answer."""
    peers = [stack.enter_context(RawPeer.connect(listener, receive_buffer=4096)) for _ in range(4)]
    for peer in peers[:MOST]:
        peer.send(TEXT, b"block")
    small.wait_until_all_are_in()
    small.seen.set()
    peers[-1].send(TEXT, b"hello")
    return peers


def test_all_workers_blocked_in_send(small: EngineOfThree) -> None:
    class Sends(Blocking):
        def block(self, caller: syncws.Caller) -> Any:
            assert small.seen.wait(HANG)
            while True:
                caller.send_binary(bytes(1_000_000))

    service = Sends(small)
    with listening(service, engine=small.engine) as listener, ExitStack() as stack:
        *_, other = block_all(stack, listener, small)
        for _ in range(MOST):
            assert isinstance(service.outcomes.get(timeout=HANG), syncws.SendTimeout)
        assert other.read().payload == b"hello"


def test_all_workers_blocked_in_close(small: EngineOfThree) -> None:
    """The peers never answer the close frame."""

    class Closes(Blocking):
        def block(self, caller: syncws.Caller) -> Any:
            assert small.seen.wait(HANG)
            caller.close(timeout=0.3)
            return caller.is_open

    service = Closes(small)
    with listening(service, engine=small.engine) as listener, ExitStack() as stack:
        *_, other = block_all(stack, listener, small)
        assert [service.outcomes.get(timeout=HANG) for _ in range(MOST)] == [False] * MOST
        assert other.read().payload == b"hello"


def test_all_workers_blocked_in_receive(small: EngineOfThree) -> None:
    """They wait for an answer that no worker is left to give."""

    class Asks(Blocking):
        def block(self, caller: syncws.Caller) -> Any:
            assert small.seen.wait(HANG)
            url = f"ws://127.0.0.1:{listener.port}/"
            with syncws.Client(url, engine=small.engine, compression=False) as client:
                client.send_text("hello")
                return client.receive(timeout=0.3)

    service = Asks(small)
    with listening(service, engine=small.engine) as listener, ExitStack() as stack:
        *_, other = block_all(stack, listener, small)
        outcomes = [service.outcomes.get(timeout=HANG) for _ in range(MOST)]
        # The first to give up leaves a worker that answers the others.
        assert isinstance(outcomes[0], syncws.ReceiveTimeout)
        assert all(isinstance(one, syncws.ReceiveTimeout) or one == "hello" for one in outcomes)
        assert other.read().payload == b"hello"


def test_a_receive_that_needs_a_worker_finds_one_while_the_pool_can_grow(
    small: EngineOfThree,
) -> None:
    """Two of three wait, without a timeout, for what the third one does."""

    class Asks(Blocking):
        def block(self, caller: syncws.Caller) -> Any:
            with syncws.Client(f"ws://127.0.0.1:{listener.port}/", engine=small.engine) as client:
                client.send_text("hello")
                return client.receive()

    service = Asks(small)
    with listening(service, engine=small.engine) as listener, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer.connect(listener)) for _ in range(MOST - 1)]
        for peer in peers:
            peer.send(TEXT, b"block")
        for _ in peers:
            assert service.outcomes.get(timeout=HANG) == "hello"


def test_a_lock_held_by_another_callback(small: EngineOfThree) -> None:
    """All workers want a lock; who has it is stuck in a send until its deadline."""

    class Locks(Blocking):
        lock = threading.Lock()

        def block(self, caller: syncws.Caller) -> Any:
            with self.lock:
                assert small.seen.wait(HANG)
                for _ in range(100):
                    caller.send_binary(bytes(1_000_000))

    service = Locks(small)
    with listening(service, engine=small.engine) as listener, ExitStack() as stack:
        *_, other = block_all(stack, listener, small)
        for _ in range(MOST):
            assert isinstance(service.outcomes.get(timeout=HANG), syncws.SendTimeout)
        assert other.read().payload == b"hello"


def test_a_lock_whose_holder_waits_for_another_callback(small: EngineOfThree) -> None:
    """One holds the lock and waits for what a third connection's callback tells it."""

    class Waits(Blocking):
        lock = threading.Lock()
        told = threading.Event()

        def block(self, caller: syncws.Caller) -> Any:
            with self.lock:
                return self.told.wait(HANG)

        def on_binary(self, caller: Any, data: bytes) -> None:
            self.told.set()

    service = Waits(small)
    with listening(service, engine=small.engine) as listener, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer.connect(listener)) for _ in range(MOST)]
        for peer in peers[: MOST - 1]:
            peer.send(TEXT, b"block")
            small.inside.get(timeout=HANG)
        peers[-1].send(0x2, b"tell")
        assert [service.outcomes.get(timeout=HANG) for _ in range(MOST - 1)] == [True, True]


def test_two_callbacks_that_close_each_others_connection(small: EngineOfThree) -> None:
    callers: dict[str, syncws.Caller] = {}
    both = threading.Barrier(2)

    class Closes(Blocking):
        def on_open(self, caller: syncws.Caller) -> None:
            callers[caller.request.path] = caller
            self.inside.put(None)

        inside: queue.Queue[None] = queue.Queue()

        def block(self, caller: syncws.Caller) -> Any:
            both.wait(HANG)
            callers["/b" if caller.request.path == "/a" else "/a"].close()
            return True

    service = Closes(small)
    with listening(service, "/a", engine=small.engine) as listener, ExitStack() as stack:
        listener.attach("/b", service)
        peers = [stack.enter_context(RawPeer.connect(listener, path)) for path in ("/a", "/b")]
        for _ in peers:
            service.inside.get(timeout=HANG)
        for peer in peers:
            peer.send(TEXT, b"block")
        for peer in peers:
            peer.expect_close(1000)
            peer.close_frame()
            peer.sock.shutdown(socket.SHUT_WR)
        assert [service.outcomes.get(timeout=HANG) for _ in peers] == [True, True]


# -- What is to be seen of it ------------------------------------------------


def test_the_state_of_the_pool(small: EngineOfThree) -> None:
    with Gate() as gate:

        class Blocks(Blocking):
            def block(self, caller: syncws.Caller) -> Any:
                gate.block()

        service = Blocks(small)
        with listening(service, "/room", engine=small.engine) as listener, ExitStack() as stack:
            peers = [stack.enter_context(RawPeer.connect(listener, "/room")) for _ in range(4)]
            for peer in peers[:MOST]:
                peer.send(TEXT, b"block")
            small.wait_until_all_are_in()
            peers[-1].send(TEXT, b"hello")
            # It is queued, and in the end all that are there count as blocked.
            wait_until(lambda: small.engine.stats() == (1, MOST, 0, MOST, 1))
            for running in small.engine.running():
                assert running.thread.startswith("small-worker-")
                assert running.call == "Blocks.on_text at /room"
            gate.open()
            assert peers[-1].read().payload == b"hello"
    assert small.engine.running() == []


class Lines(logging.Handler):
    """Puts what the log gets into a queue."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.lines: queue.Queue[tuple[str, str]] = queue.Queue()
        self._log = logging.getLogger(name)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put((threading.current_thread().name, record.getMessage()))

    def __enter__(self) -> Lines:
        self._log.addHandler(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._log.removeHandler(self)


def test_a_warning_names_the_callback_though_all_workers_are_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = EngineOfThree(slow_callback_timeout=0.05)
    look = Lookout.look

    def look_when_all_are_at_the_gate(self: Lookout, *args: Any) -> bool:
        return not small.seen.is_set() or look(self, *args)

    monkeypatch.setattr(Lookout, "look", look_when_all_are_at_the_gate)
    with Gate() as gate, Lines("syncws.engine") as log:

        class Slow(Blocking):
            def block(self, caller: syncws.Caller) -> Any:
                gate.block()

        with listening(Slow(small), "/room", engine=small.engine) as listener, ExitStack() as stack:
            peers = [stack.enter_context(RawPeer.connect(listener, "/room")) for _ in range(MOST)]
            for peer in peers:
                peer.send(TEXT, b"block")
            for _ in peers:
                gate.reached()
            small.seen.set()
            seen = [log.lines.get(timeout=HANG) for _ in range(MOST)]
            gate.open()
    assert {thread for thread, _ in seen} == {"small-worker-report"}
    for _, line in seen:
        assert line.startswith("Slow.on_text at /room has run for ")
        assert "of at most 3 workers are busy" in line
        assert "gate.block()" in line
        assert "syncws" not in line.split("\n", 1)[1].replace("tests", "")[:20]


@pytest.mark.parametrize("what", ["resource", "application", "client"])
def test_a_warning_names_what_else_runs_in_a_worker(what: str) -> None:
    small = EngineOfThree(slow_callback_timeout=0.05)
    with Gate() as gate, Lines("syncws.engine") as log:
        if what == "application":

            def app(environ: Any, start_response: Any) -> list[bytes]:
                gate.block()
                start_response("204 No Content", [])
                return []

            with listening(None, engine=small.engine, app=app) as listener, ExitStack() as stack:
                peer = stack.enter_context(RawPeer.dial(listener))
                peer.send_bytes(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
                _, line = log.lines.get(timeout=HANG)
                gate.open()
                assert peer.read_head().startswith(b"HTTP/1.1 204")
            assert line.startswith("the application, for /page, has run for ")
        elif what == "resource":
            with listening(None, engine=small.engine) as listener, ExitStack() as stack:

                @listener.upgrade("/room", service=Blocking(small))
                def upgrader(http: syncws.Upgrade, request: syncws.Request) -> None:
                    gate.block()

                peer = stack.enter_context(RawPeer.dial(listener))
                peer.send_bytes(peer.request("/room"))
                _, line = log.lines.get(timeout=HANG)
                gate.open()
                assert peer.read_head().startswith(b"HTTP/1.1 101")
            assert line.startswith("the upgrade resource ")
            assert "upgrader at /room has run for " in line
        else:

            class Slow(Recorder):
                def on_text(self, caller: Any, text: str) -> None:
                    gate.block()

            with listening(Blocking(small)) as listener, ExitStack() as stack:
                url = f"ws://127.0.0.1:{listener.port}/"
                with syncws.Client(url, service=Slow(), engine=small.engine) as client:
                    client.send_text("hello")
                    _, line = log.lines.get(timeout=HANG)
                    gate.open()
            assert line.startswith(f"Slow.on_text at {url} has run for ")


def test_without_a_timeout_nothing_is_warned_of() -> None:
    small = EngineOfThree(slow_callback_timeout=None)
    with Gate() as gate, Lines("syncws.engine") as log:

        class Slow(Blocking):
            def block(self, caller: syncws.Caller) -> Any:
                gate.block()

        with listening(Slow(small), engine=small.engine) as listener, ExitStack() as stack:
            peer = stack.enter_context(RawPeer.connect(listener))
            peer.send(TEXT, b"block")
            gate.reached()
            assert small.engine.running()[0].seconds == 0.0
            assert log.lines.empty()
            gate.open()


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_a_slow_callback_timeout_that_is_none(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="slow_callback_timeout"):
        syncws.Engine(slow_callback_timeout=value)
