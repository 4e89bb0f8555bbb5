"""Both ends of a connection through the proxy, looked at in the same way whatever they are."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from syncws.client import connect
from syncws.engine.loop import IOLoop
from syncws.timing import Deadline
from tests.faults.proxy import Fault, Proxy
from tests.support import (
    HANG,
    Call,
    Recorder,
    ServerRecorder,
    Task,
    client_tls,
    listening,
    server_tls,
)

__all__ = [
    "ClientEnd",
    "Clock",
    "Ends",
    "Reader",
    "clocked",
    "closed_error",
    "ends",
    "serves_on",
    "settle",
    "timed_from",
]


class Clock:
    """The monotonic clock, and the hours that it has leapt by."""

    def __init__(self, loop: IOLoop) -> None:
        self._loop = loop
        self._ahead = 0.0
        self._stands: float | None = None
        loop.clock = self

    def __call__(self) -> float:
        return (time.monotonic() if self._stands is None else self._stands) + self._ahead

    def stop(self) -> None:
        """From now on time passes in leaps only."""
        self._stands = time.monotonic()

    def leap(self, seconds: float) -> None:
        """Leap, and wait until the I/O thread has done all that is due then."""
        self._ahead += seconds
        settle(self._loop)


@contextlib.contextmanager
def timed_from(step: str) -> Iterator[None]:
    """Have the time of a client's handshake_timeout begin with a step of connecting.

    So it is none of those before that takes too long.
    """
    began: list[float] = []
    real = getattr(connect, step)

    def begin(*args: Any) -> Any:
        began.append(time.monotonic())
        return real(*args)

    def clock() -> float:
        return time.monotonic() - began[-1] if began else 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connect, step, begin)
        patch.setattr(connect, "Deadline", functools.partial(Deadline, clock=clock))
        yield


def settle(loop: IOLoop) -> None:
    """Wait until the I/O thread has done what is ready and what is due.

    It makes its calls before it looks at the time, has the timers called a
    round later, behind the calls of that, and is through with them in the next.
    """
    for _ in range(3):
        done = threading.Event()
        loop.call_soon(done.set)
        assert done.wait(HANG)


@contextlib.contextmanager
def clocked() -> Iterator[tuple[syncws.Engine, Clock]]:
    """An engine whose clock the test can have leap; its threads are gone behind the block."""
    engine = syncws.Engine(workers=2, max_workers=8)
    loop = engine.acquire()
    try:
        yield engine, Clock(loop)
    finally:
        engine.release(loop)
        engine.reap(HANG)


class Reader(Recorder):
    """A blocking client whose messages and whose end become calls, as those of a service."""

    def follow(self, client: syncws.Client) -> Task:
        """Receive until the end."""
        return Task(self._receive, client)

    def _receive(self, client: syncws.Client) -> None:
        try:
            while True:
                message = client.receive()
                name = "on_text" if isinstance(message, str) else "on_binary"
                self.record(name, client, message)
        except syncws.ConnectionClosed:
            # After a close of our own that comes before the end is known.
            assert client.wait_closed(HANG)
        exc = closed_error(client.receive)
        if isinstance(exc.__cause__, syncws.WebSocketError):
            self.record("on_error", client, exc.__cause__)
        received = exc.received or syncws.Close(1006)
        self.record("on_close", client, received.code, received.reason)


class ClientEnd:
    """A client of one kind or the other, with what it has seen in `calls`."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self._kind = kind
        self.seen: Recorder
        self._reading: Task | None = None
        if kind == "blocking":
            reader = Reader()
            self.client = syncws.Client(url, **options)
            self._reading = reader.follow(self.client)
            self.seen = reader
        else:
            self.seen = Recorder()
            self.client = syncws.Client(url, service=self.seen, **options)

    def finish(self) -> None:
        """Close, and see that there is no more to come."""
        self.client.close()
        assert self.client.wait_closed(HANG)
        if self._reading is not None:
            self._reading.result()


class Ends:
    """A listener, a client that is connected to it through a proxy, and what both have seen."""

    def __init__(
        self,
        proxy: Proxy,
        service: ServerRecorder,
        end: ClientEnd,
        caller: syncws.Caller,
        clocks: dict[str, Clock],
    ) -> None:
        self.proxy = proxy
        self._seen = {"server": service, "client": end.seen}
        self._endpoints: dict[str, Any] = {"server": caller, "client": end.client}
        self._clocks = clocks

    def endpoint(self, side: str) -> Any:
        """Return the caller or the client."""
        return self._endpoints[side]

    def expect(self, side: str, name: str, *args: Any) -> None:
        """See that this is the next call there."""
        self._seen[side].expect(name, *args)

    def next(self, side: str) -> Call:
        """Return the next call there."""
        return self._seen[side].next()

    def leap(self, side: str, seconds: float) -> None:
        """Have the clock of one end leap."""
        self._clocks[side].leap(seconds)

    def exchange(self) -> None:
        """Send a message each way, and see that they are delivered."""
        for side, peer in (("client", "server"), ("server", "client")):
            self.endpoint(side).send_text(f"first of the {side}")
            self.expect(peer, "on_text", f"first of the {side}")

    def ended(self, side: str, code: int, reason: str = "") -> syncws.ConnectionClosed:
        """See that this end learns of the end, and that sends tell the same from then on."""
        call = self.next(side)
        assert (call.name, *call.args) == ("on_close", code, reason), call
        error = closed_error(lambda: self.endpoint(side).send_text("too late"))
        assert closed_error(lambda: self.endpoint(side).ping()).args == error.args
        received = error.received
        assert (received.code if received else 1006) == code
        assert not self.endpoint(side).is_open
        return error

    def none_left(self) -> None:
        """See that nobody was told anything else. Once everything has ended."""
        for side, seen in self._seen.items():
            with contextlib.suppress(queue.Empty):
                raise AssertionError(f"the {side} was told {seen.calls.get_nowait()}")


def closed_error(call: Callable[[], object]) -> syncws.ConnectionClosed:
    """Return the ConnectionClosed that `call()` raises."""
    try:
        call()
    except syncws.ConnectionClosed as exc:
        return exc
    raise AssertionError("it is still open")


@contextlib.contextmanager
def ends(
    kind: str,
    *faults: Fault | None,
    tls: bool = False,
    compression: bool = False,
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[Ends]:
    """Connect a client of this kind through the proxy; see in the end that the listener serves on.

    Both ends have a loop with a clock of their own.
    """
    config = {"compression": compression, **(config or {})}
    service = ServerRecorder(syncws.ServiceConfig(**config))
    secure: dict[str, Any] = {"ssl": server_tls()} if tls else {}
    with contextlib.ExitStack() as stack:
        server_engine, server_clock = stack.enter_context(clocked())
        client_engine, client_clock = stack.enter_context(clocked())
        listener = stack.enter_context(listening(service, engine=server_engine, **secure))
        assert listener.port is not None
        proxy = stack.enter_context(Proxy(listener.port, *faults))
        url = proxy.url.replace("ws:", "wss:") if tls else proxy.url
        if tls:
            options["ssl"] = client_tls()
        options = {"engine": client_engine, **config, **options}
        end = ClientEnd(kind, url, **options)
        try:
            caller = service.expect("on_open")
            clocks = {"server": server_clock, "client": client_clock}
            pair = Ends(proxy, service, end, caller, clocks)
            yield pair
            serves_on(url, service, **options)
        finally:
            end.finish()
            proxy.reset_all()
            listener.stop()
        pair.none_left()


def serves_on(url: str, service: ServerRecorder, **options: Any) -> None:
    """See that the next client is served, and that its messages reach nobody else."""
    with syncws.Client(url, **{**options, "service": None, "retry": None}) as client:
        caller = service.expect("on_open")
        client.send_text("next")
        service.expect("on_text", "next")
        caller.send_text("welcome")
        assert client.receive(timeout=HANG) == "welcome"
    service.expect("on_close", 1000, "")
