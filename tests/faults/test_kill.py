"""The peer is killed with SIGKILL, whatever this end is doing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from tests.faults.ends import ClientEnd, closed_error
from tests.support import (
    HANG,
    Interpreter,
    ServerRecorder,
    Task,
    interpreter,
    listening,
    wait_until,
)

_BIG = "x" * 500_000

# Echoes, floods, or reads nothing more, as the first message of a client says.
_SERVER = """
import threading, syncws
class Peer(syncws.Service):
    config = syncws.ServiceConfig(compression=False, ping_interval=None, receive_queue_size=1)
    def on_text(self, caller, text):
        if text == "block":
            print("blocks")
            threading.Event().wait()
        if text == "flood":
            print("floods")
            while True: caller.send_text("y" * 500_000)
        caller.send_text(text)
listener = syncws.Listener(0)
listener.attach("/", Peer())
listener.start()
print(listener.port)
input()
"""

_CLIENT = """
import sys, threading, syncws
client = syncws.Client(sys.argv[1], compression=False, ping_interval=None, receive_queue_size=1)
what = client.receive(timeout=20)
if what == "flood":
    print("floods")
    while True: client.send_text("y" * 500_000)
print("blocks")
input()
"""

OPTIONS: dict[str, Any] = {"compression": False, "ping_interval": None}


def kill(process: Interpreter) -> None:
    """Kill it, and see that it is dead."""
    process.process.kill()
    process.process.wait(HANG)


def until_blocked(endpoint: Any) -> Task:
    """Send for ever in another thread; return that when it blocks."""

    def flood() -> None:
        while True:
            endpoint.send_text(_BIG)

    task = Task(flood)

    def waits() -> bool:
        frame = sys._current_frames().get(task.ident or 0)
        while frame is not None and frame.f_code.co_name != "_wait_for_room":
            frame = frame.f_back
        return frame is not None

    wait_until(waits)
    return task


def sends_fail(endpoint: Any) -> None:
    """See that this end knows."""
    assert not endpoint.is_open
    assert closed_error(lambda: endpoint.send_text("late")).received is None


# -- A client whose server dies ----------------------------------------------


@contextlib.contextmanager
def client(kind: str) -> Iterator[tuple[Interpreter, ClientEnd]]:
    """A client of a process, which the block kills."""
    with interpreter(_SERVER) as process:
        end = ClientEnd(kind, f"ws://127.0.0.1:{process.line()}/", **OPTIONS)
        yield process, end
        sends_fail(end.client)
        end.finish()
        assert end.seen.calls.empty()


KINDS = ["blocking", "callbacks"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_waits(kind: str) -> None:
    with client(kind) as (process, end):
        end.client.send_text("echo")
        end.seen.expect("on_text", "echo")
        kill(process)
        end.seen.expect("on_close", 1006, "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_amid_large_messages(kind: str) -> None:
    """Only whole ones are delivered."""
    with client(kind) as (process, end):
        end.client.send_text("flood")
        for _ in range(3):
            end.seen.expect("on_text", "y" * 500_000)
        kill(process)
        while (call := end.seen.next()).name == "on_text":
            assert call.args == ("y" * 500_000,)
        assert (call.name, call.args) == ("on_close", (1006, ""))


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_blocks_in_a_send(kind: str) -> None:
    with client(kind) as (process, end):
        end.client.send_text("block")
        assert process.line() == "blocks"
        sending = until_blocked(end.client)
        kill(process)
        error = sending.error()
        assert isinstance(error, syncws.ConnectionClosed)
        assert error.received is None
        end.seen.expect("on_close", 1006, "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_blocks_in_close(kind: str) -> None:
    """The server's reading has paused, so that it does not see the close frame."""
    with client(kind) as (process, end):
        for _ in range(4):
            end.client.send_text("block")
        assert process.line() == "blocks"
        closing = Task(end.client.close, 4000, timeout=None)
        wait_until(lambda: not end.client.is_open)
        kill(process)
        closing.result()
        end.seen.expect("on_close", 1006, "")
        assert closed_error(end.client.ping).sent == (4000, "")


# -- A server whose client dies ----------------------------------------------


@contextlib.contextmanager
def caller() -> Iterator[tuple[Interpreter, syncws.Caller, ServerRecorder]]:
    """The server's end of a connection to a process, which the block kills."""
    service = ServerRecorder(syncws.ServiceConfig(**OPTIONS))
    with listening(service) as listener:
        url = f"ws://127.0.0.1:{listener.port}/"
        with interpreter(_CLIENT, url) as process:
            end = service.expect("on_open")
            yield process, end, service
            service.expect("on_close", 1006, "")
            sends_fail(end)
        with syncws.Client(url) as other:
            service.expect("on_open")
            other.send_text("next")
            service.expect("on_text", "next")
        service.expect("on_close", 1000, "")
    assert service.calls.empty()


def test_a_caller_that_waits() -> None:
    with caller() as (process, _, _):
        kill(process)


def test_a_caller_amid_large_messages() -> None:
    with caller() as (process, end, service):
        end.send_text("flood")
        for _ in range(3):
            service.expect("on_text", "y" * 500_000)
        kill(process)
        while (call := service.next()).name == "on_text":
            assert call.args == ("y" * 500_000,)
        service.calls.put(call)  # the last one, for whoever looks at it


@pytest.mark.parametrize("what", ["send", "close"])
def test_a_caller_that_blocks(what: str) -> None:
    with caller() as (process, end, _):
        end.send_text("block")
        assert process.line() == "blocks"
        sending = until_blocked(end)
        blocked: Callable[[], object] = sending.error
        if what == "close":
            closing = Task(end.close, 4000, timeout=None)
            wait_until(lambda: not end.is_open)
            blocked = closing.result
        kill(process)
        error = blocked()
        if what == "send":
            assert isinstance(error, syncws.ConnectionClosed)
        assert isinstance(sending.error(), syncws.ConnectionClosed)
