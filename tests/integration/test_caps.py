"""What a listener's clients may be and hold together."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
from contextlib import ExitStack
from typing import Any

import pytest

import syncws
from syncws.server import reception as module
from syncws.server.tally import Tally
from tests.support import (
    BINARY,
    CONT,
    HANG,
    TEXT,
    Gate,
    RawPeer,
    Recorder,
    ServerRecorder,
    Task,
    frame,
    listening,
    pass_time,
    wait_until,
)


def refused(listener: syncws.Listener) -> RawPeer:
    """Return a client that gets 503."""
    peer = RawPeer.dial(listener)
    peer.send_bytes(peer.request())
    head = peer.read_head()
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5\r\n" in head
    return peer


# -- How many ----------------------------------------------------------------


def test_further_clients_get_503_until_one_has_left() -> None:
    service = ServerRecorder()
    with (
        listening(service, max_connections=2) as listener,
        RawPeer.connect(listener) as first,
        RawPeer.connect(listener) as second,
    ):
        for _ in range(2):
            service.expect("on_open")
        refused(listener).abort()
        first.text("still served")
        service.expect("on_text", "still served")
        second.abort()
        service.expect("on_close")
        with RawPeer.connect(listener):
            service.expect("on_open")
            refused(listener).abort()


def test_a_client_that_only_connects_counts_too() -> None:
    with listening(Recorder(), max_connections=1) as listener:
        with RawPeer.dial(listener):
            # Accepted in order: who comes after it finds it inside.
            refused(listener).abort()
        wait_until(lambda: not inside(listener))
        RawPeer.connect(listener).abort()


def inside(listener: syncws.Listener) -> Any:
    door = listener._reception._door
    assert door is not None
    return door._inside


def test_an_http_connection_counts_while_it_is_kept_alive() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    request = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with listening(Recorder(), app=app, max_connections=1) as listener:
        with RawPeer.dial(listener) as page:
            for _ in range(2):
                page.send_bytes(request)
                assert page.read_head().startswith(b"HTTP/1.1 200")
                assert page._take(2) == b"ok"
                refused(listener).abort()
        wait_until(lambda: not inside(listener))
        RawPeer.connect(listener).abort()


@pytest.mark.parametrize("how", ["refused", "cut", "timeout", "resource"])
def test_whoever_leaves_makes_room(how: str) -> None:
    with listening(Recorder(), max_connections=1, handshake_timeout=10.0) as listener:

        @listener.upgrade("/no")
        def upgrader(http: syncws.Upgrade, request: syncws.Request) -> None:
            http.cancel_upgrade(403)

        for _ in range(3):
            with RawPeer.dial(listener) as peer:
                wait_until(lambda: inside(listener))
                if how == "refused":
                    peer.send_bytes(peer.request("/nowhere"))
                    assert peer.read_head().startswith(b"HTTP/1.1 404")
                elif how == "resource":
                    peer.send_bytes(peer.request("/no"))
                    assert peer.read_head().startswith(b"HTTP/1.1 403")
                elif how == "timeout":
                    pass_time(listener, 10.0)
                    assert peer.sock.recv(1) == b""
            wait_until(lambda: not inside(listener))
        RawPeer.connect(listener).abort()


def test_over_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with listening(Recorder(), ssl=server_tls, max_connections=1) as listener:
        url = f"wss://localhost:{listener.port}/"
        with syncws.Client(url, ssl=client_tls):
            with pytest.raises(syncws.HandshakeRejected) as caught:
                syncws.Client(url, ssl=client_tls)
            assert caught.value.status == 503
        wait_until(lambda: not inside(listener))
        syncws.Client(url, ssl=client_tls).close()


def test_each_address_has_its_own_number() -> None:
    def dial(source: str) -> RawPeer:
        assert listener.port is not None
        address = ("127.0.0.1", listener.port)
        sock = socket.create_connection(address, HANG, source_address=(source, 0))
        peer = RawPeer(sock, client=True)
        peer.send_bytes(peer.request())
        return peer

    with (
        listening(Recorder(), max_connections_per_address=1) as listener,
        dial("127.0.0.1") as mine,
        dial("127.0.0.2") as other,
        dial("127.0.0.1") as third,
    ):
        assert mine.read_head().startswith(b"HTTP/1.1 101")
        assert other.read_head().startswith(b"HTTP/1.1 101")
        assert third.read_head().startswith(b"HTTP/1.1 503")
        mine.abort()
        wait_until(lambda: len(inside(listener)) == 1)
        with dial("127.0.0.1") as fourth:
            assert fourth.read_head().startswith(b"HTTP/1.1 101")


def test_those_that_are_told_are_so_many_and_others_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST_REFUSED", 1)
    with listening(Recorder(), max_connections=1) as listener, RawPeer.connect(listener):
        with RawPeer.dial(listener) as told:
            with RawPeer.dial(listener) as cut:
                assert cut.sock.recv(1) == b""
            told.send_bytes(told.request())
            assert told.read_head().startswith(b"HTTP/1.1 503")
        wait_until(lambda: not listener._reception._refusing)
        refused(listener).abort()


def test_a_listener_that_starts_again_counts_from_nought() -> None:
    listener = syncws.Listener(0, max_connections=1)
    listener.attach("/", Recorder())
    for _ in range(2):
        with listener:
            peer = RawPeer.connect(listener)
            refused(listener).abort()
            peer.abort()


@pytest.mark.parametrize(
    "option", ["max_connections", "max_connections_per_address", "max_buffered_bytes"]
)
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), ("1", TypeError), (1.0, TypeError)])
def test_what_is_no_number(option: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=option):
        syncws.Listener(0, **{option: value})


# -- How much ----------------------------------------------------------------

LIMIT = 2_000_000


def is_tight(listener: syncws.Listener) -> bool:
    budget = listener._reception._budget
    assert budget is not None
    return budget.tight


def held(listener: syncws.Listener) -> int:
    """Return how much there is of messages that have come in part."""
    connections = list(listener._reception._connections)
    return sum(connection._decoder.held for connection in connections)


def waiting(listener: syncws.Listener) -> int:
    """Return how much there is of whole messages that wait for a callback."""
    return sum(one.held()[0] for one in list(listener._reception._connections))


class Gated(Recorder):
    """Its callbacks wait until they may go on."""

    config = syncws.ServiceConfig(ping_interval=None, compression=False)

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.may = threading.Event()

    def on_binary(self, caller: Any, data: bytes) -> None:
        self.begun.set()
        assert self.may.wait(HANG)
        self.record("on_binary", caller, data)


def test_messages_that_wait_pause_their_senders_and_none_is_lost() -> None:
    """40 MB are sent to callbacks that do not return; a fraction of it is taken in."""
    service = Gated()
    queue_bytes, size = 400_000, 50_000
    service.config = syncws.ServiceConfig(
        ping_interval=None, compression=False, receive_queue_bytes=queue_bytes
    )
    engine = syncws.Engine(workers=1, max_workers=1)
    clients, messages = 20, 40
    # What each may hold: a full queue, one more read, and a message in part.
    most = queue_bytes + 262_144 + 2 * size
    limit = clients * most
    assert limit // 2 < clients * queue_bytes, "all queues full are more than half"
    with ExitStack() as stack:
        listener = stack.enter_context(listening(service, engine=engine, max_buffered_bytes=limit))
        peers = [stack.enter_context(RawPeer.connect(listener)) for _ in range(clients)]

        def send(number: int) -> None:
            for index in range(messages):
                peers[number].send(BINARY, bytes([number, index]) + bytes(size))

        senders = [Task(send, number) for number in range(clients)]
        wait_until(lambda: is_tight(listener))
        # Whoever is through has its messages here or in the system's buffers.
        held = [sum(one.held()) for one in listener._reception._connections]
        assert max(held) <= most
        service.may.set()
        seen: dict[int, list[int]] = {number: [] for number in range(clients)}
        for _ in range(clients * messages):
            call = service.next()
            assert call.name == "on_binary", call
            seen[call.args[0][0]].append(call.args[0][1])
        assert all(indices == list(range(messages)) for indices in seen.values())
        for sender in senders:
            sender.result()
        wait_until(lambda: not is_tight(listener))


class Endings(ServerRecorder):
    """Keeps callers, and what they end with."""

    config = syncws.ServiceConfig(ping_interval=None, compression=False, send_timeout=5.0)

    def __init__(self) -> None:
        super().__init__()
        self.errors: queue.Queue[BaseException] = queue.Queue()

    def on_error(self, caller: Any, error: BaseException) -> None:
        self.errors.put(error)

    def on_close(self, caller: Any, status_code: int, reason: str) -> None:
        self.record("on_close", caller, status_code)


@pytest.mark.parametrize("how", ["frame", "fragments"])
def test_parts_of_messages_over_the_limit_end_the_largest(how: str) -> None:
    service = Endings()
    with listening(service, max_buffered_bytes=LIMIT) as listener, ExitStack() as stack:
        honest = stack.enter_context(RawPeer.connect(listener))
        greedy = [stack.enter_context(RawPeer.connect(listener)) for _ in range(3)]
        for number, peer in enumerate(greedy, 1):
            if how == "frame":
                header = b"\x82\xff" + (1_000_000).to_bytes(8, "big") + bytes(4)
                peer.send_bytes(header + bytes(900_000))
            else:
                peer.send(BINARY, bytes(450_000), fin=False)
                peer.send(CONT, bytes(450_000), fin=False)
            if number < len(greedy):
                # All of it: else the largest might be one that is still under way.
                wait_until(lambda number=number: held(listener) == number * 900_000)
        error = service.errors.get(timeout=HANG)
        assert isinstance(error, syncws.OverloadError)
        assert "900000 bytes are held" in str(error)
        assert isinstance(error, syncws.WebSocketError)
        wait_until(lambda: len(listener._reception._connections) == 3)
        honest.text("served")
        while (call := service.next()).name != "on_text":
            assert call.name in ("on_open", "on_close")
        assert call.args == ("served",)


def test_what_nobody_reads_ends_the_largest_and_no_others() -> None:
    service = Endings()
    with listening(service, max_buffered_bytes=LIMIT) as listener, ExitStack() as stack:
        peers = [
            stack.enter_context(RawPeer.connect(listener, receive_buffer=4096)) for _ in range(3)
        ]
        callers = [service.expect("on_open") for _ in peers]
        sizes = (600_000, 700_000, 12_000_000)
        for caller, size in zip(callers, sizes, strict=True):
            caller.send_binary(bytes(size))
        assert isinstance(service.errors.get(timeout=HANG), syncws.OverloadError)
        ended = service.expect("on_close")
        assert ended is callers[2]
        with pytest.raises(syncws.ConnectionClosed) as caught:
            ended.send_text("late")
        assert isinstance(caught.value.__cause__, syncws.OverloadError)
        assert caught.value.unsent > 0, "it is said that not all of it went out"
        assert callers[0].is_open
        assert callers[1].is_open


def test_while_memory_is_scarce_sends_wait_early() -> None:
    service = Endings()
    with listening(service, max_buffered_bytes=LIMIT) as listener, ExitStack() as stack:
        hoarder = stack.enter_context(RawPeer.connect(listener, receive_buffer=4096))
        caller = service.expect("on_open")
        other = stack.enter_context(RawPeer.connect(listener, receive_buffer=4096))
        slow = service.expect("on_open")
        slow.send_binary(bytes(4_000_000))  # more than the system's buffers take
        wait_until(lambda: is_tight(listener))
        assert caller._connection.outbound._high == 262_144 // 8
        other.abort()
        service.expect("on_close")
        wait_until(lambda: not is_tight(listener))
        assert caller._connection.outbound._high == 262_144
        hoarder.abort()


def test_over_the_limit_nobody_is_let_in() -> None:
    """Messages that wait for blocked callbacks cannot be given back."""
    service = Gated()
    engine = syncws.Engine(workers=1, max_workers=1)
    with Gate() as gate, listening(service, engine=engine, max_buffered_bytes=200_000) as listener:
        with ExitStack() as stack:
            peers = [stack.enter_context(RawPeer.connect(listener)) for _ in range(5)]
            budget = listener._reception._budget
            assert budget is not None
            # Whoever is over the limit with a part of a message is ended: the large ones
            # are whole before small ones, which come in one piece, lead over it.
            peers[0].send(BINARY, b"x")
            assert service.begun.wait(HANG)
            for number, peer in enumerate(peers[1:3], 1):
                peer.send(BINARY, bytes(95_000))
                wait_until(lambda number=number: waiting(listener) >= number * 95_000)
            for peer in peers[3:]:
                peer.send_bytes(frame(BINARY, bytes(20_000)))
            wait_until(lambda: budget.full)
            refused(listener).abort()
            service.may.set()
            for _ in peers:
                service.expect("on_binary")
            wait_until(lambda: not budget.full and not budget.tight)
            RawPeer.connect(listener).abort()
        gate.open()


def test_what_waits_for_a_callback_that_runs_counts() -> None:
    """Such a connection does not stand in the run queue."""
    service = Gated()
    service.config = syncws.ServiceConfig(
        ping_interval=None, compression=False, receive_queue_size=10
    )
    with (
        listening(service, max_buffered_bytes=3000) as listener,
        RawPeer.connect(listener) as peer,
    ):
        budget = listener._reception._budget
        assert budget is not None
        peer.send(BINARY, b"x")
        assert service.begun.wait(HANG)
        wait_until(lambda: not budget._due)
        peer.send_bytes(frame(BINARY, b"x") * 10)
        wait_until(lambda: budget.tight)
        service.may.set()
        wait_until(lambda: not budget.tight)


def test_what_clients_leave_behind_counts_until_it_is_dealt_with() -> None:
    """Who comes, sends, and goes again does not get around the limit."""
    service = Gated()
    engine = syncws.Engine(workers=1, max_workers=1)
    with (
        listening(service, engine=engine, max_buffered_bytes=200_000) as listener,
        RawPeer.connect(listener) as blocker,
    ):
        blocker.send(BINARY, b"x")
        assert service.begun.wait(HANG)
        budget = listener._reception._budget
        assert budget is not None
        with RawPeer.connect(listener) as gone:
            gone.send(BINARY, bytes(90_000))
        wait_until(lambda: len(listener._reception._connections) == 1)
        with RawPeer.connect(listener) as peer:
            peer.send(BINARY, bytes(120_000))
            wait_until(lambda: budget.full)
            refused(listener).abort()
        service.may.set()
        wait_until(lambda: not budget.full and not budget.tight)
        RawPeer.connect(listener).abort()


def test_without_a_limit_nothing_is_added_up() -> None:
    service = Endings()
    with listening(service, max_buffered_bytes=None) as listener:
        assert listener._reception._budget is None
        with RawPeer.connect(listener) as peer:
            service.expect("on_open")
            peer.text("hello")
            service.expect("on_text", "hello")


def test_a_listener_leaves_no_budget_behind() -> None:
    with listening(Recorder()) as keeper:
        loop = keeper._loop
        assert loop is not None
        before = len(loop.budgets)
        for _ in range(3):
            with listening(Recorder()):
                pass
        wait_until(lambda: len(loop.budgets) == before)


def test_a_start_right_after_a_stop_has_its_own_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the I/O thread comes to the end of the last one only then."""
    with listening(Recorder()) as keeper, listening(Recorder()) as listener, Gate() as gate:
        loop = keeper._loop
        assert loop is not None
        wait = Tally.wait

        def wait_and_hold_up(*args: Any) -> bool:
            try:
                return wait(*args)
            finally:
                loop.call_soon(gate.block)

        with monkeypatch.context() as patch:
            patch.setattr(Tally, "wait", wait_and_hold_up)
            listener.stop()
        listener.start()
        gate.open()
        RawPeer.connect(listener).abort()
        budget = listener._reception._budget
        assert budget in loop.budgets
        assert len(loop.budgets) == 2


def test_text_that_waits_counts() -> None:
    service = Gated()
    engine = syncws.Engine(workers=1, max_workers=1)
    with (
        listening(service, engine=engine, max_buffered_bytes=100_000) as listener,
        RawPeer.connect(listener) as blocker,
        RawPeer.connect(listener) as peer,
    ):
        blocker.send(BINARY, b"x")
        assert service.begun.wait(HANG)
        peer.send(TEXT, b"x" * 60_000)
        wait_until(lambda: is_tight(listener))
        service.may.set()
        wait_until(lambda: not is_tight(listener))
