"""Peers that do not read, or hardly: whom they hold up, and what becomes of what they get."""

from __future__ import annotations

import threading
import zlib
from contextlib import ExitStack
from typing import Any

import pytest

import syncws
from tests.abuse.hostile import attacked, beside, endpoint_of, every_end
from tests.abuse.watch import watched
from tests.support import (
    BINARY,
    HANG,
    TEXT,
    RawPeer,
    RawServer,
    Recorder,
    ServerRecorder,
    Task,
    client_tls,
    server_tls,
)

KIB = 1024

# Bytes after which the window of a peer that does not read is shut, whatever
# the system puts aside for it.
_ENOUGH = 8 * KIB * KIB


# -- A window that stays shut ------------------------------------------------


def fill(endpoint: Any) -> None:
    """Send until nothing is taken any more, time and again."""
    refused = sent = 0
    while refused < 3:
        try:
            endpoint.send_binary(bytes(20_000))
        except syncws.SendTimeout:
            refused += 1
        else:
            refused = 0
            sent += 20_000
        assert sent < _ENOUGH


@every_end
def test_sends_to_a_peer_that_does_not_read(kind: str) -> None:
    with attacked(
        kind, receive_buffer=4096, send_buffer_size=100_000, send_timeout=0.2, peak=1024 * KIB
    ) as victim:
        endpoint = endpoint_of(victim)
        fill(endpoint)
        for send in (
            lambda: endpoint.send_text("x"),
            lambda: endpoint.send_binary(b"x", final=False),
            endpoint.ping,
        ):
            with pytest.raises(syncws.SendTimeout):
                send()
            victim.others.served()
        assert endpoint.is_open
        assert endpoint.buffered_amount < 130_000


@every_end
def test_threads_that_wait_for_a_peer_hold_up_nobody_and_end_with_it(kind: str) -> None:
    with attacked(kind, receive_buffer=4096, send_buffer_size=100_000, send_timeout=0.2) as victim:
        endpoint = endpoint_of(victim)
        fill(endpoint)
        endpoint._sending._timeout = None  # from now on they wait for ever
        waiting = [Task(endpoint.send_binary, bytes(20_000)) for _ in range(20)]
        victim.others.served()
        assert all(task.is_alive() for task in waiting)
        endpoint.close(timeout=0)
        for task in waiting:
            assert isinstance(task.error(), syncws.ConnectionClosed)
        victim.others.served()


def test_callbacks_that_wait_for_their_peers_hold_up_nobody() -> None:
    class Talker(Recorder):
        config = syncws.ServiceConfig(
            ping_interval=None, compression=False, send_buffer_size=100_000, send_timeout=None
        )

        def on_text(self, caller: Any, text: str) -> None:
            self.record("on_text", caller, text)
            while True:
                caller.send_binary(bytes(20_000))

    talker = Talker()
    with beside() as others:
        others.listener.attach("/", talker)
        with watched(), ExitStack() as stack:
            peers = [
                stack.enter_context(RawPeer.connect(others.listener, receive_buffer=4096))
                for _ in range(20)  # more than there are workers at first
            ]
            for peer in peers:
                peer.text("begin")
            for _ in peers:
                talker.expect("on_text")
            others.served()
            for peer in peers:
                peer.reset()
            for _ in peers:
                talker.expect("on_close")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_broadcast_goes_past_who_does_not_read(secure: bool) -> None:
    class Room(ServerRecorder):
        config = syncws.ServiceConfig(
            ping_interval=None, send_buffer_size=100_000, close_timeout=0.2
        )

        def on_open(self, caller: syncws.Caller) -> None:
            super().on_open(caller)
            group.add(caller)

    group = syncws.Group()
    room = Room()
    message = bytes(range(250)) * 80
    tls = (server_tls(), client_tls()) if secure else None
    with beside(tls=tls) as others:
        others.listener.attach("/", room)
        with watched(peak=4096 * KIB), ExitStack() as stack:
            stuck = stack.enter_context(
                RawPeer.connect(others.listener, receive_buffer=4096, tls=secure)
            )
            stuck_caller = room.expect("on_open")
            peers = [
                stack.enter_context(RawPeer.connect(others.listener, tls=secure)) for _ in range(3)
            ]
            for _ in peers:
                room.expect("on_open")
            for _ in range(_ENOUGH // len(message)):
                reached = group.send_binary(message)
                for peer in peers:
                    peer.expect(BINARY, message)
                if reached == 3:
                    break
            assert reached == 3
            error = room.next()
            assert (error.name, error.endpoint) == ("on_error", stuck_caller)
            assert isinstance(error.args[0], syncws.SendTimeout)
            # It does not read that it was closed with 1013 either, and is cut off.
            assert room.expect("on_close", 1006, "") is stuck_caller
            assert len(group) == 3
            others.served()
            group.send_text("on we go")
            for peer in peers:
                peer.expect(TEXT, "on we go")
                peer.abort()
            stuck.abort()
            for _ in peers:
                room.expect("on_close")


def test_a_broadcast_of_clients_goes_past_a_server_that_does_not_read() -> None:
    group = syncws.Group()
    message = bytes(20_000)
    options: dict[str, Any] = {
        "ping_interval": None,
        "compression": False,
        "send_buffer_size": 100_000,
        "close_timeout": 0.2,
    }
    with (
        beside() as others,
        watched(peak=4096 * KIB),
        RawServer(receive_buffer=4096) as deaf,
        RawServer() as well,
    ):
        openings = [server.open_client(**options) for server in (deaf, well)]
        with deaf.accept() as stuck, well.accept() as peer:
            stuck.answer()
            peer.answer()
            clients = [opening.result() for opening in openings]
            for client in clients:
                group.add(client)
            for _ in range(_ENOUGH // len(message)):
                reached = group.send_binary(message)
                peer.expect(BINARY, message)
                if reached == 1:
                    break
            assert reached == 1
            with pytest.raises(syncws.ConnectionClosed) as caught:
                clients[0].receive(timeout=HANG)
            assert isinstance(caught.value.__cause__, syncws.SendTimeout)
            assert caught.value.sent is not None
            assert caught.value.sent.code == 1013
            others.served()
            group.send_text("on we go")
            peer.expect(TEXT, "on we go")
            peer.abort()
            for client in clients:
                client.close()


# -- A window that opens a little at a time ----------------------------------

_THREADS = 20
_EACH = 1024 * KIB


def _messages(thread: int, count: int) -> list[bytes]:
    """What a thread sends: together a MiB, each with who sent it and in which turn."""
    size = _EACH // count
    pattern = bytes((thread * 7 + n * n) & 0xFF for n in range(251))
    body = pattern * (size // 251 + 1)
    return [
        thread.to_bytes(2, "big") + turn.to_bytes(2, "big") + body[turn : turn + size - 4]
        for turn in range(count)
    ]


@pytest.mark.parametrize("kind", ["server", "blocking"])
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflated"])
@pytest.mark.parametrize("count", [1, 16, 1024], ids=["1 MiB", "64 KiB", "1 KiB"])
def test_twenty_threads_and_a_slow_reader(kind: str, deflate: bool, count: int) -> None:
    with attacked(kind, deflate=deflate, receive_buffer=4096, send_timeout=None) as victim:
        endpoint = endpoint_of(victim)
        barrier = threading.Barrier(_THREADS)

        def send(thread: int) -> None:
            barrier.wait(HANG)
            for message in expected[thread]:
                endpoint.send_binary(message)

        expected = [_messages(thread, count) for thread in range(_THREADS)]
        tasks = [Task(send, thread) for thread in range(_THREADS)]
        turns = [0] * _THREADS
        inflater = zlib.decompressobj(-12)
        for number in range(_THREADS * count):
            got = victim.peer.read()
            assert (got.opcode, got.fin, got.rsv) == (BINARY, True, 4 if deflate else 0)
            payload = got.payload
            if deflate:
                payload = inflater.decompress(payload + b"\x00\x00\xff\xff")
            thread = int.from_bytes(payload[:2], "big")
            turn = int.from_bytes(payload[2:4], "big")
            assert turn == turns[thread]
            assert payload == expected[thread][turn]
            turns[thread] += 1
            if number == count:
                victim.others.served()
        assert turns == [count] * _THREADS
        for task in tasks:
            task.result()
