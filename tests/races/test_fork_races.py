"""A fork while another thread is amid something: the child finds no lock that is held for ever."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from syncws.endpoint import Endpoint
from tests.races.stepping import Standing, Walker, telling
from tests.races.wire import Wire
from tests.support import Recorder, listening

STEPPED = True

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# Seconds after which a child that hangs is ended.
_CHILD = 5


def fork(check: Callable[[], Any]) -> int:
    """Make `check()` in a forked child; return how that ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are the point here
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_CHILD)
            check()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return status


def fork_amid(
    operation: Callable[[], Any], check: Callable[[], Any], *among: str, most: int = 60
) -> int:
    """Fork at each point of an operation, which is repeated; return how many there were."""
    for point in range(most):
        walker = Walker(operation, among=among)
        stopped = walker.walk(point) is Standing.STOPPED
        status = fork(check) if stopped else 0
        where = walker.where
        if stopped:
            walker.walk(None)
        walker.join()
        walker.result()
        assert status == 0, f"at {where}: {'it hangs' if status == signal.SIGALRM else status}"
        if not stopped:
            return point
    return most


@pytest.fixture
def wire() -> Iterator[Wire]:
    with telling():
        made = Wire(lambda _: None, lambda _: None)
        yield made
        made.close()


def test_naming(wire: Wire) -> None:
    def name() -> str:
        return Endpoint(wire.connection, None, ("", "")).id

    assert fork_amid(name, name, "endpoint.py") > 3


def test_groups(wire: Wire) -> None:
    member = Endpoint(wire.connection, None, ("", ""))
    group = syncws.Group()

    def come_and_go() -> None:
        group.add(member)
        assert member in list(group)
        group.discard(member)

    def check() -> None:
        group.discard(member)
        assert len(group) == 0
        assert group.send_text("to nobody") == 0

    assert fork_amid(come_and_go, check, "group.py") > 10


def test_routes() -> None:
    listener = syncws.Listener(0)
    service = Recorder()

    def come_and_go() -> None:
        listener.attach("/a", service)
        listener.detach("/a")

    assert fork_amid(come_and_go, lambda: listener.attach("/b", service), "routing.py") > 10


def test_starting_and_stopping() -> None:
    """The child stops what its parent has, whatever that was about, and may start anew."""
    listener = syncws.Listener(0)
    listener.attach("/", Recorder())

    def start_and_stop() -> None:
        listener.start()
        listener.stop()

    def check() -> None:
        listener.stop()
        with listener:
            assert listener.port

    assert (
        fork_amid(start_and_stop, check, "listener.py", "reception.py", "hall.py", "tally.py") > 20
    )


def test_engines() -> None:
    engine = syncws.Engine(name="forked")

    def come_and_go() -> None:
        engine.release(engine.acquire())
        engine.reap()

    def check() -> None:
        loop = engine.acquire()
        assert loop.thread.is_alive()
        engine.release(loop)
        engine.reap()

    assert fork_amid(come_and_go, check, "engine.py") > 15


def test_clients() -> None:
    """What a parent is about to send is not sent by its child, which may close its client."""
    service = Recorder(syncws.ServiceConfig(ping_interval=None))
    with (
        listening(service) as listener,
        syncws.Client(f"ws://127.0.0.1:{listener.port}/", ping_interval=None) as client,
    ):
        sent = 0

        def send() -> None:
            nonlocal sent
            client.send_text("one")
            sent += 1

        def check() -> None:
            with pytest.raises(syncws.ConnectionClosed):
                client.send_text("not from here")
            with pytest.raises(syncws.ConnectionClosed):
                client.receive()
            client.close()

        assert fork_amid(send, check, "outbound.py") > 10
        for _ in range(sent):
            service.expect("on_text", "one")
