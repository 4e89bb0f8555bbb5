"""A listener and a client with their threads and sockets: anything in any order, or at once.

What comes when is left to the threads. So what was sent and what was got is
compared in the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

import syncws
from syncws.endpoint import Endpoint, connection_of
from tests.support import HANG, Task, client_tls, listening, server_tls

from .profiles import COUNTS, profile

BOTH = ("client", "server")
SIDES = st.sampled_from(BOTH)
SIZES = st.sampled_from([0, 5, 126, 70_000])

#: A message as it is got: the data, and whether it is the last of its message.
Got = tuple[str | bytes, bool]


class Side:
    """One end: what it has sent, and what has come to it."""

    def __init__(self, name: str, streams: bool) -> None:
        self.name = name
        self.streams = streams
        self.endpoint: Any = None
        self.promised: list[Got] = []  # as the peer is to get it
        self.maybe: list[Got] = []
        self.pings: list[bytes] = []
        self.has_closed: syncws.Close | None = None
        self.has_aborted = False
        self._parts: list[str | bytes] = []  # of the message that is sent in fragments
        self._count = 0

        # Guarded by `changed`.
        self.changed = threading.Condition()
        self.got: list[Got] = []
        self.pongs: list[bytes] = []
        self.ends: list[object] = []
        self.wrong: list[str] = []

    # -- What comes --------------------------------------------------------

    def note(self, where: list[Any], what: object) -> None:
        with self.changed:
            if self.ends:
                self.wrong.append(f"{what!r:.100} behind the end")
            where.append(what)
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: condition() or bool(self.ends), HANG), self.name

    def wait_for_messages(self, count: int) -> None:
        self.wait(lambda: len(self.got) >= count)

    def receive(self) -> None:
        """Receive until the end, as a thread that blocks does."""
        while True:
            try:
                message = self.endpoint.receive()
            except syncws.ConnectionClosed as exc:
                self.note(self.ends, exc.received or syncws.Close(1006))
                return
            self.note(self.got, (message, True))

    # -- What it does ------------------------------------------------------

    def data(self, text: bool, size: int) -> str | bytes:
        self._count += 1
        label = f"{self.name} {self._count} "
        return label + "é" * size if text else label.encode() + b"\xff" * size

    def send(self, data: str | bytes, final: bool, streamed: bool) -> None:
        """Send a message or a fragment.

        Args:
            data: The data.
            final: Whether the message ends with it.
            streamed: Whether the peer gets fragments apart.
        """
        send = self.endpoint.send_text if isinstance(data, str) else self.endpoint.send_binary
        where = self.promised
        try:
            send(data, final)
        except syncws.ConnectionClosed as exc:
            if not exc.maybe_sent:
                return
            where = self.maybe
        else:
            assert not self.maybe, "a send was taken behind one that failed"
        self._parts.append(data)
        if streamed:
            where.append((data, final))
        elif final:
            empty: Any = "" if isinstance(data, str) else b""
            where.append((empty.join(self._parts), True))
        if final:
            self._parts = []

    def ping(self) -> None:
        self._count += 1
        data = b"ping %d" % self._count
        self.pings.append(data)
        try:
            self.endpoint.ping(data)
        except syncws.ConnectionClosed:
            pass

    def close(self, code: int) -> None:
        if self.has_closed is None:
            self.has_closed = syncws.Close(code, self.name)
        self.endpoint.close(code, self.name, timeout=0)

    def abort(self) -> None:
        self.has_aborted = True
        connection_of(self.endpoint).ask_to_abort()


class Keeper(syncws.Service):
    """Notes what comes, in whole messages."""

    config = syncws.ServiceConfig(ping_interval=None, receive_queue_size=8)

    def __init__(self, side: Side) -> None:
        self.side = side

    def on_text(self, endpoint: Endpoint, text: str) -> None:
        self.side.note(self.side.got, (text, True))

    def on_binary(self, endpoint: Endpoint, data: bytes) -> None:
        self.side.note(self.side.got, (data, True))

    def on_pong(self, endpoint: Endpoint, data: bytes) -> None:
        self.side.note(self.side.pongs, data)

    def on_error(self, endpoint: Endpoint, error: BaseException) -> None:
        self.side.note(self.side.wrong, repr(error))

    def on_close(self, endpoint: Endpoint, status_code: int, reason: str) -> None:
        self.side.note(self.side.ends, syncws.Close(status_code, reason))


class StreamKeeper(Keeper):
    """The same in fragments."""

    def on_text(self, endpoint: Endpoint, text: str, final: bool) -> None:  # type: ignore[override]
        self.side.note(self.side.got, (text, final))

    def on_binary(  # type: ignore[override]
        self, endpoint: Endpoint, data: bytes, final: bool
    ) -> None:
        self.side.note(self.side.got, (data, final))


def opened(keeper: Keeper, side: Side) -> Keeper:
    """Have a server's keeper tell of its caller, too."""

    def on_open(self: Keeper, caller: syncws.Caller) -> None:
        with side.changed:
            side.endpoint = caller
            side.changed.notify_all()

    kind = type("Opened", (type(keeper),), {"on_open": on_open})
    service: Keeper = kind(side)
    return service


class Threads(RuleBasedStateMachine):
    """The rules."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: dict[str, Side] = {}
        self.stack = ExitStack()
        self.receiver: Task | None = None

    @initialize(
        tls=st.sampled_from([False, False, False, True]),
        compression=st.booleans(),
        blocking=st.booleans(),
        client_streams=st.booleans(),
        server_streams=st.booleans(),
    )
    def begin(
        self,
        tls: bool,
        compression: bool,
        blocking: bool,
        client_streams: bool,
        server_streams: bool,
    ) -> None:
        COUNTS["threads: examples"] += 1
        client = Side("client", client_streams and not blocking)
        server = Side("server", server_streams)
        self.sides = {"client": client, "server": server}
        keepers = {
            side.name: (StreamKeeper if side.streams else Keeper)(side) for side in (client, server)
        }
        options: dict[str, Any] = {} if blocking else {"service": keepers["client"]}
        listener = self.stack.enter_context(
            listening(opened(keepers["server"], server), ssl=server_tls() if tls else None)
        )
        client.endpoint = self.stack.enter_context(
            syncws.Client(
                f"{'wss' if tls else 'ws'}://localhost:{listener.port}/",
                ssl=client_tls() if tls else None,
                compression=compression,
                ping_interval=None,
                receive_queue_size=8,
                **options,
            )
        )
        if blocking:
            self.receiver = Task(client.receive)
        server.wait(lambda: server.endpoint is not None)

    def side(self, name: str) -> Side:
        COUNTS["threads: steps"] += 1
        return self.sides[name]

    def peer(self, side: Side) -> Side:
        return self.sides["server" if side.name == "client" else "client"]

    # -- Rules -------------------------------------------------------------

    @rule(
        name=SIDES,
        text=st.booleans(),
        sizes=st.lists(SIZES, min_size=1, max_size=4),
        ping=st.booleans(),
    )
    def send_fragments(self, name: str, text: bool, sizes: list[int], ping: bool) -> None:
        self.fragments(self.side(name), text, sizes, ping)

    def fragments(self, side: Side, text: bool, sizes: list[int], ping: bool) -> None:
        streamed = self.peer(side).streams
        for number, size in enumerate(sizes):
            side.send(side.data(text, size), number == len(sizes) - 1, streamed)
            if ping:
                side.ping()

    @rule(name=SIDES, text=st.booleans(), size=SIZES, times=st.sampled_from([1, 3, 50]))
    def send(self, name: str, text: bool, size: int, times: int) -> None:
        self.messages(self.side(name), text, size, times)

    def messages(self, side: Side, text: bool, size: int, times: int) -> None:
        for _ in range(min(times, 5) if size > 1000 else times):
            side.send(side.data(text, size), True, self.peer(side).streams)

    @rule(name=SIDES)
    def ping(self, name: str) -> None:
        self.side(name).ping()

    @rule(name=SIDES)
    def wait(self, name: str) -> None:
        """Wait until all that an end has sent is there."""
        side = self.side(name)
        peer = self.peer(side)
        expected = len(side.promised)
        peer.wait(lambda: len(peer.got) >= expected or bool(side.ends))

    @rule(name=SIDES, how=st.sampled_from(["close", "close", "abort", "both"]))
    def finish(self, name: str, how: str) -> None:
        side = self.side(name)
        if how == "abort":
            side.abort()
        elif how == "close":
            side.close(4000)
        else:
            self.together(side, lambda: side.close(4001), lambda: self.peer(side).close(4002))

    @rule(name=SIDES, peer_closes=st.booleans())
    def do_at_once(self, name: str, peer_closes: bool) -> None:
        """One end sends a lot while the other does, or closes."""
        side = self.side(name)
        peer = self.peer(side)
        self.together(
            side,
            lambda: self.messages(side, True, 100, 30),
            (lambda: peer.close(4003))
            if peer_closes
            else (lambda: self.fragments(peer, False, [5] * 10, True)),
        )

    def together(self, side: Side, *calls: Callable[[], object]) -> None:
        barrier = threading.Barrier(len(calls))

        def begin(call: Callable[[], object]) -> None:
            barrier.wait(HANG)
            call()

        for task in [Task(begin, call) for call in calls]:
            task.result()

    # -- The end -----------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.sides and self.sides["server"].endpoint is not None:
                self.compare()
        finally:
            self.stack.close()
            if self.receiver is not None:
                self.receiver.wait()

    def compare(self) -> None:
        sides = [self.sides[name] for name in BOTH]
        if not any(side.has_closed or side.has_aborted for side in sides):
            for side in sides:
                peer = self.peer(side)
                peer.wait_for_messages(len(side.promised))
                assert peer.got == side.promised
            sides[len(sides[0].promised) % 2].close(1000)
        for side in sides:
            side.wait(lambda: False)  # for the end
        self.stack.close()  # all callbacks have returned
        for side in sides:
            self.check(side, self.peer(side))

    def check(self, side: Side, peer: Side) -> None:
        promised = side.promised + side.maybe
        assert peer.got == promised[: len(peer.got)]
        assert len(side.ends) == 1
        if not (side.has_aborted or peer.has_aborted):
            assert side.wrong == []
        assert not side.endpoint.is_open
        with pytest.raises(syncws.ConnectionClosed) as caught:
            side.endpoint.send_text("too late")
        received, sent = caught.value.received, caught.value.sent
        end = side.ends[0]
        if not (self.receiver is not None and side.has_closed and side.name == "client"):
            # Who blocks is woken by a close of its own before the peer's has come.
            assert end == (received or syncws.Close(1006))
        if sent is not None and side.has_closed is not None and received is None:
            assert sent == side.has_closed
        self.check_close(side, peer, received)
        pongs = iter(side.pings)
        assert all(pong in pongs for pong in side.pongs), "pongs in another order"

    def check_close(self, side: Side, peer: Side, received: syncws.Close | None) -> None:
        if received is None:
            assert side.has_aborted or peer.has_aborted, "the end has no close frame"
            return
        if side.has_closed is None and not side.has_aborted:
            # It was open until the peer closed: it got all that came before.
            assert received == peer.has_closed
            assert side.got == peer.promised
        else:
            assert received in (
                peer.has_closed,
                syncws.Close(side.has_closed.code) if side.has_closed else None,
            )


@pytest.mark.timeout(1800)
def test_a_listener_and_a_client() -> None:
    run_state_machine_as_test(Threads, settings=profile(examples=25, steps=12))
