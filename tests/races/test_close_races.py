"""Closing while something else goes on: whatever comes first, nothing hangs and nothing is lost."""

from __future__ import annotations

import functools
import hashlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import syncws
from syncws.server.reception import Reception
from tests.support import (
    BINARY,
    CLOSE,
    HANG,
    Gate,
    RawPeer,
    RawServer,
    Recorder,
    ServerRecorder,
    Task,
    client_tls,
    listening,
    open_pair,
    server_tls,
)

CONFIG = syncws.ServiceConfig(ping_interval=None, compression=False)

# Seconds for the rounds of one test, and rounds at the most.
_TIME = 0.25
_ROUNDS = 100


def rounds() -> Iterator[int]:
    """Count for a while."""
    end = time.monotonic() + _TIME
    for number in range(_ROUNDS):
        if number and time.monotonic() > end:
            return
        yield number


def together(*calls: Any) -> list[Task]:
    """Make the calls in a thread each, as much at once as can be."""
    barrier = threading.Barrier(len(calls))

    def begin(call: Any) -> Any:
        barrier.wait(HANG)
        return call()

    return [Task(begin, call) for call in calls]


@pytest.fixture
def service() -> ServerRecorder:
    return ServerRecorder(CONFIG)


@pytest.fixture
def listener(service: ServerRecorder) -> Iterator[syncws.Listener]:
    with listening(service) as running:
        yield running


def connect(listener: syncws.Listener, **options: Any) -> syncws.Client:
    return syncws.Client(f"ws://127.0.0.1:{listener.port}/", ping_interval=None, **options)


def test_close_from_both_ends_at_once(listener: syncws.Listener, service: ServerRecorder) -> None:
    for _ in rounds():
        client = connect(listener)
        caller = service.expect("on_open")
        tasks = together(lambda c=client: c.close(4001), lambda c=caller: c.close(4002))
        for task in tasks:
            task.result()
        call = service.next()
        assert call.name == "on_close"
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.receive(timeout=HANG)
        received, sent = caught.value.received, caught.value.sent
        assert received is not None
        assert sent is not None
        # Both crossed, or one was first and the other its echo.
        assert sent.code in (4001, 4002)
        assert received.code in (4001, 4002)
        assert call.args[0] == sent.code
    assert service.calls.empty()


def test_two_closes_of_one_end_send_one_frame() -> None:
    with RawServer() as server:
        for _ in rounds():
            opening = Task(syncws.Client, server.url, ping_interval=None)
            with server.accept() as peer:
                peer.answer()
                client = opening.result()
                tasks = together(*(functools.partial(client.close, 4000 + n) for n in range(4)))
                code, _ = peer.expect_close()
                peer.close_frame(code)
                peer.end_writing()
                with pytest.raises(EOFError):
                    peer.read()
                for task in tasks:
                    task.result()


def test_close_against_the_peers_close(listener: syncws.Listener, service: ServerRecorder) -> None:
    for _ in rounds():
        with RawPeer.connect(listener) as peer:
            caller = service.expect("on_open")
            tasks = together(
                lambda c=caller: c.close(4001, timeout=0), lambda p=peer: p.close_frame(4002)
            )
            for task in tasks:
                task.result()
            code, _ = peer.expect_close()
            assert code in (4001, 4002)
            peer.expect_end()  # one close frame
            peer.abort()
            service.expect("on_close", 4002, "")


def test_close_against_the_end_of_tcp(listener: syncws.Listener, service: ServerRecorder) -> None:
    for number in rounds():
        peer = RawPeer.connect(listener)
        caller = service.expect("on_open")
        end = peer.abort if number % 2 else peer.reset
        for task in together(lambda c=caller: c.close(4001), end):
            task.result()
        service.expect("on_close", 1006, "")
    assert service.calls.empty()


def test_close_against_send(listener: syncws.Listener, service: ServerRecorder) -> None:
    """What a send has taken arrives, and what it has refused does not."""
    for _ in rounds():
        client = connect(listener)
        caller = service.expect("on_open")
        sent: list[int] = []

        def send(client: syncws.Client = client, sent: list[int] = sent) -> None:
            for number in range(1000):
                client.send_text(str(number))
                sent.append(number)

        sending, closing = together(send, lambda c=client: c.close(4001))
        sending.wait()
        closing.result()
        if len(sent) < 1000:
            assert isinstance(sending.error(), syncws.ConnectionClosed)
        for number in sent:
            service.expect("on_text", str(number))
        assert service.expect("on_close", 4001, "") is caller


def test_the_peers_close_against_send(listener: syncws.Listener, service: ServerRecorder) -> None:
    for _ in rounds():
        client = connect(listener)
        caller = service.expect("on_open")

        def send(client: syncws.Client = client) -> None:
            while True:
                client.send_text("x")

        sending, closing = together(send, lambda c=caller: c.close(4001))
        assert isinstance(sending.error(), syncws.ConnectionClosed)
        closing.result()
        client.close()
        while (call := service.next()).name == "on_text":
            pass
        assert call.name == "on_close"


def test_close_against_receive(listener: syncws.Listener, service: ServerRecorder) -> None:
    for number in rounds():
        client = connect(listener)
        caller = service.expect("on_open")
        closer = client if number % 2 else caller
        receiving = [*[client.receive] * 3, lambda c=client: c.receive(timeout=HANG)]
        *tasks, closing = together(*receiving, lambda c=closer: c.close(4001))
        for task in tasks:
            assert isinstance(task.error(), syncws.ConnectionClosed)
        closing.result()
        client.close()
        service.expect("on_close", 4001, "")


def test_close_against_ping(listener: syncws.Listener, service: ServerRecorder) -> None:
    for _ in rounds():
        with RawPeer.connect(listener) as peer:
            caller = service.expect("on_open")

            def ping(peer: RawPeer = peer) -> None:
                for number in range(20):
                    peer.send(0x9, bytes([number]))

            for task in together(ping, lambda c=caller: c.close(4001, timeout=0)):
                task.result()
            # Pongs, then the close frame, then nothing.
            number = 0
            while (frame := peer.read()).opcode != CLOSE:
                assert (frame.opcode, frame.payload) == (0xA, bytes([number]))
                number += 1
            peer.close_frame(4001)
            peer.expect_end()
            peer.abort()
            service.expect("on_close", 4001, "")


def test_stop_against_accept() -> None:
    """A client is refused, cut short or closed with 1001; the listener stops in any case."""

    def come(url: str) -> None:
        try:
            with (
                syncws.Client(url, ping_interval=None) as client,
                pytest.raises(syncws.ConnectionClosed) as caught,
            ):
                client.receive(timeout=HANG)
            assert caught.value.received in ((1001, "the server is going away"), None)
        except syncws.ConnectError:
            pass

    for _ in rounds():
        service = ServerRecorder(CONFIG)
        listener = syncws.Listener(0)
        listener.attach("/", service)
        listener.start()
        url = f"ws://127.0.0.1:{listener.port}/"
        for task in together(listener.stop, *[lambda u=url: come(u)] * 4):
            task.result()
        names = [service.calls.get_nowait().name for _ in range(service.calls.qsize())]
        assert names.count("on_open") == names.count("on_close")


def test_stop_against_start() -> None:
    listener = syncws.Listener(0)
    for _ in rounds():
        starting, stopping = together(listener.start, listener.stop)
        starting.result()
        stopping.result()
        listener.stop()


def test_stop_against_close(service: ServerRecorder) -> None:
    for _ in rounds():
        with listening(service) as listener:
            clients = [connect(listener) for _ in range(3)]
            tasks = together(listener.stop, *(client.close for client in clients))
            for task in tasks:
                task.result()
        names = [service.next().name for _ in range(6)]
        assert names.count("on_close") == 3


def test_the_last_client_closes_while_another_opens(
    listener: syncws.Listener, service: ServerRecorder
) -> None:
    """The engine's threads end with its last user, and begin anew with the next."""
    engine = syncws.Engine(name="shared")
    client = connect(listener, engine=engine)
    service.expect("on_open")
    for _ in rounds():
        closing, opening = together(client.close, lambda: connect(listener, engine=engine))
        closing.result()
        client = opening.result()
        names = {service.next().name for _ in range(2)}
        assert names == {"on_open", "on_close"}
        client.send_text("still works")
        service.expect("on_text", "still works")
    client.close()


def test_on_close_comes_once_whatever_ends_it(service: ServerRecorder) -> None:
    with listening(service) as listener:
        for _ in rounds():
            peer = RawPeer.connect(listener)
            caller = service.expect("on_open")
            tasks = together(
                lambda c=caller: c.close(4001, timeout=0),
                lambda p=peer: p.send(0x3),
                lambda c=caller: c.close(4002, timeout=0),
            )
            for task in tasks:
                task.result()
            peer.abort()
            names = [service.next().name]
            if names == ["on_error"]:
                names.append(service.next().name)
            assert names[-1] == "on_close"
        assert service.calls.empty()


@pytest.mark.parametrize("kind", ["plain", "compressed", "tls"])
@pytest.mark.parametrize("role", ["server", "client"])
def test_messages_of_many_threads_reach_a_slow_reader_whole_and_in_order(
    role: str, kind: str
) -> None:
    senders, messages, size = 20, 5, 65_536

    def payload(sender: int, number: int) -> bytes:
        seed = hashlib.sha256(b"%d %d" % (sender, number)).digest()
        return bytes([sender, number]) + seed * ((size - 2) // 32)

    def send(endpoint: Any, sender: int) -> None:
        for number in range(messages):
            endpoint.send_binary(payload(sender, number))

    def check(take: Any) -> None:
        last = [-1] * senders
        for _ in range(senders * messages):
            data = take()
            sender, number = data[0], data[1]
            assert data == payload(sender, number)
            assert number == last[sender] + 1
            last[sender] = number
        assert last == [messages - 1] * senders

    if kind != "plain":
        # Another end of ours, slow by a queue of one message.
        bounds = {"receive_queue_size": 1, "send_buffer_size": 1000}
        server = ServerRecorder(syncws.ServiceConfig(compression=kind == "compressed", **bounds))
        scheme, tls = ("wss", server_tls()) if kind == "tls" else ("ws", None)
        with (
            listening(server, ssl=tls) as listener,
            syncws.Client(
                f"{scheme}://localhost:{listener.port}/", ssl=tls and client_tls(), **bounds
            ) as client,
        ):
            caller = server.expect("on_open")
            endpoint: Any = caller if role == "server" else client
            tasks = [Task(send, endpoint, sender) for sender in range(senders)]
            if role == "server":
                check(lambda: client.receive_binary(timeout=HANG))
            else:
                check(lambda: server.next().args[0])
            for task in tasks:
                task.result()
        return

    service: Recorder = Recorder(
        syncws.ServiceConfig(ping_interval=None, compression=False, send_buffer_size=100_000)
    )
    if role == "server":
        with (
            listening(service) as listener,
            RawPeer.connect(listener, receive_buffer=4096) as peer,
        ):
            peer.text("x")
            endpoint = service.expect("on_text", "x")
            tasks = [Task(send, endpoint, sender) for sender in range(senders)]
            check(lambda: peer.expect(BINARY))
            for task in tasks:
                task.result()
    else:
        with open_pair(
            ping_interval=None, compression=False, send_buffer_size=100_000, receive_buffer=4096
        ) as (client, peer):
            tasks = [Task(send, client, sender) for sender in range(senders)]
            check(lambda: peer.expect(BINARY))
            for task in tasks:
                task.result()


def test_send_from_many_callbacks_while_the_connection_closes(
    listener: syncws.Listener, service: ServerRecorder
) -> None:
    """A sender that is blocked when TCP ends is woken, whichever way round they come."""
    for number in rounds():
        peer = RawPeer.connect(listener, receive_buffer=4096)
        caller = service.expect("on_open")
        begun: queue.Queue[None] = queue.Queue()

        def flood(caller: Any = caller, begun: queue.Queue[None] = begun) -> None:
            begun.put(None)
            while True:
                caller.send_binary(bytes(300_000))

        tasks = [Task(flood) for _ in range(3)]
        for _ in tasks:
            begun.get(timeout=HANG)
        if number % 2:
            peer.reset()
        else:
            caller.close(4000, timeout=0.01)
            peer.abort()
        for task in tasks:
            assert isinstance(task.error(), syncws.ConnectionClosed)
        service.expect("on_close", 1006, "")


def test_a_stop_amid_an_upgrade_closes_behind_the_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = ServerRecorder(CONFIG)
    decide = Reception._decide

    def late(self: Reception, *args: Any) -> Any:
        gate.block()
        return decide(self, *args)

    monkeypatch.setattr(Reception, "_decide", late)
    with Gate() as gate, listening(service) as listener, RawPeer.dial(listener) as peer:
        assert listener._loop is not None
        asked: queue.Queue[None] = queue.Queue()
        call_soon = listener._loop.call_soon

        def note(*args: Any, **options: Any) -> None:
            call_soon(*args, **options)
            asked.put(None)

        peer.send_bytes(RawPeer.request())
        gate.reached()
        monkeypatch.setattr(listener._loop, "call_soon", note)
        stopping = Task(listener.stop)
        asked.get(timeout=HANG)  # to close what there is
        gate.open()
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        peer.expect_close(1001)
        peer.close_frame(1001)
        peer.expect_end()
        peer.abort()
        stopping.result()
        service.expect("on_open")
        service.expect("on_close", 1001, "")
