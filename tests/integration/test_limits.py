"""The baseline limits: what a hostile or slow peer meets, on both ends."""

from __future__ import annotations

import queue
import resource
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import syncws
from tests.support import (
    BINARY,
    CLOSE,
    CONT,
    HANG,
    PING,
    PONG,
    TEXT,
    Gate,
    RawPeer,
    Recorder,
    ServerRecorder,
    Task,
    close_payload,
    frame,
    listening,
    open_pair,
    pass_time,
)

both_roles = pytest.mark.parametrize("role", ["server", "client"])

# The longest timeout that is taken, in seconds.
LONGEST = 2_147_483

_DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
_WINDOWS = "; server_max_window_bits=12; client_max_window_bits=12"


@contextmanager
def end_of(
    role: str,
    service: Recorder,
    *,
    deflate: bool = False,
    receive_buffer: int | None = None,
    **options: Any,
) -> Iterator[RawPeer]:
    """A raw peer whose other end is a server's or a client's with this service."""
    options = {"ping_interval": None, "compression": deflate, **options}
    headers: tuple[str, ...] = ()
    if deflate:
        headers = (f"{_DEFLATE}{'' if role == 'server' else _WINDOWS}",)
    if role == "server":
        service.config = syncws.ServiceConfig(**options)
        with (
            listening(service) as listener,
            RawPeer.connect(listener, "/", *headers, receive_buffer=receive_buffer) as peer,
        ):
            yield peer
    else:
        with open_pair(
            service=service, answer=headers, receive_buffer=receive_buffer, **options
        ) as (_, peer):
            yield peer


def deflated(data: bytes) -> bytes:
    """Return the payload of one compressed message. RFC 7692 section 7.2.1."""
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def refused(peer: RawPeer, service: Recorder) -> None:
    """The connection fails with 1009, and the service hears of it."""
    peer.expect_close(1009)
    peer.abort()
    call = service.next()
    assert call.name == "on_error"
    assert isinstance(call.args[0], syncws.PayloadTooBigError)
    service.expect("on_close", 1006, "")


# -- Messages ----------------------------------------------------------------


def test_the_defaults_are_safe() -> None:
    config = syncws.ServiceConfig()
    assert config.max_message_size == 2**20
    assert config.max_fragments is not None
    assert config.send_timeout is not None
    assert config.allowed_origins == ()
    assert config.idle_timeout is None


@both_roles
@pytest.mark.parametrize("whole", [True, False], ids=["one frame", "fragments"])
def test_max_message_size(role: str, whole: bool) -> None:
    service = Recorder()
    with end_of(role, service, max_message_size=1000) as peer:
        for size in (1000, 1001):
            if whole:
                peer.send(BINARY, bytes(size))
            else:
                peer.send(BINARY, bytes(600), fin=False)
                peer.send(CONT, bytes(size - 600))
            if size == 1000:
                service.expect("on_binary", bytes(size))
        refused(peer, service)


@both_roles
def test_a_length_alone_is_enough_to_be_refused(role: str) -> None:
    service = Recorder()
    with end_of(role, service) as peer:
        whole = frame(BINARY, bytes(2**20 + 1), masked=role == "server")
        peer.send_bytes(whole[:14])
        refused(peer, service)


@both_roles
def test_the_default_message_size_is_one_mebibyte(role: str) -> None:
    service = Recorder()
    with end_of(role, service) as peer:
        peer.send(BINARY, bytes(2**20))
        assert len(service.next().args[0]) == 2**20


@both_roles
def test_max_frame_size(role: str) -> None:
    service = Recorder()
    with end_of(role, service, max_frame_size=100) as peer:
        peer.send(BINARY, bytes(100), fin=False)
        peer.send(CONT, bytes(100))
        service.expect("on_binary", bytes(200))
        peer.send(BINARY, bytes(101))
        refused(peer, service)


@both_roles
@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "one byte"])
def test_max_fragments(role: str, payload: bytes) -> None:
    service = Recorder()
    with end_of(role, service, max_fragments=10) as peer:
        peer.send(BINARY, payload, fin=False)
        for _ in range(8):
            peer.send(CONT, payload, fin=False)
        peer.send(CONT, payload)
        service.expect("on_binary", payload * 10)
        peer.send(BINARY, payload, fin=False)
        for _ in range(10):
            peer.send(CONT, payload, fin=False)
        refused(peer, service)


def test_endless_fragments_end_at_the_default_limit() -> None:
    service = Recorder()
    with end_of("server", service) as peer:
        peer.send_bytes(frame(TEXT, fin=False) + frame(CONT, fin=False) * 5000)
        refused(peer, service)


def test_a_streaming_callback_is_bound_by_the_limits_too() -> None:
    class Streaming(Recorder):
        def on_binary(self, caller: Any, data: bytes, final: bool) -> None:
            self.record("on_binary", caller, data, final)

    service = Streaming()
    with end_of("server", service, max_message_size=150) as peer:
        peer.send(BINARY, bytes(100), fin=False)
        service.expect("on_binary", bytes(100), False)
        peer.send(CONT, bytes(100))
        refused(peer, service)


@both_roles
def test_the_limit_counts_inflated_bytes(role: str) -> None:
    service = Recorder()
    with end_of(role, service, deflate=True, max_message_size=10_000) as peer:
        peer.send(BINARY, deflated(bytes(10_000)), rsv=4)
        service.expect("on_binary", bytes(10_000))
        peer.send(BINARY, deflated(bytes(10_001)), rsv=4)
        refused(peer, service)


@both_roles
@pytest.mark.parametrize("pieces", [1, 50], ids=["one frame", "fragments"])
def test_a_deflate_bomb_is_refused_in_bounded_memory(role: str, pieces: int) -> None:
    service = Recorder()
    bomb = deflated(bytes(32 * 2**20))
    size = len(bomb) // pieces + 1
    with end_of(role, service, deflate=True) as peer:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for start in range(0, len(bomb), size):
            with suppress(ConnectionError):  # it need not read on once it has refused
                peer.send(
                    CONT if start else BINARY,
                    bomb[start : start + size],
                    rsv=0 if start else 4,
                    fin=start + size >= len(bomb),
                )
        refused(peer, service)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 16 * 1024  # KiB


def test_other_connections_go_on_when_one_is_refused() -> None:
    service = Recorder(syncws.ServiceConfig(max_message_size=10))
    with (
        listening(service) as listener,
        RawPeer.connect(listener) as bad,
        RawPeer.connect(listener) as good,
    ):
        bad.text("far too long for this")
        refused(bad, service)
        good.text("short")
        service.expect("on_text", "short")


# -- The opening handshake ---------------------------------------------------


def test_a_handshake_over_the_limit_is_answered_431() -> None:
    with (
        listening(Recorder(), max_handshake_size=1000) as listener,
        RawPeer.dial(listener) as peer,
    ):
        peer.send_bytes(RawPeer.request("/", "X-Long: " + "x" * 2000))
        assert peer.read_head().startswith(b"HTTP/1.1 431 ")


def test_a_handshake_within_the_limit_is_accepted() -> None:
    service = Recorder()
    with listening(service) as listener, RawPeer.connect(listener, "/", "X: " + "x" * 8000) as peer:
        peer.text("fine")
        service.expect("on_text", "fine")


def test_a_handshake_with_too_many_headers_is_answered_431() -> None:
    with listening(Recorder()) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(RawPeer.request("/", *[f"X-{n}: y" for n in range(1000)]))
        assert peer.read_head().startswith(b"HTTP/1.1 431 ")


def test_a_silent_client_is_dropped_and_others_are_accepted_meanwhile() -> None:
    service = Recorder()
    with (
        listening(service, handshake_timeout=10.0) as listener,
        RawPeer.dial(listener) as silent,
        RawPeer.connect(listener) as peer,
    ):
        peer.text("hello")
        service.expect("on_text", "hello")
        pass_time(listener, 10.0)
        silent.expect_end()
        peer.text("still here")
        service.expect("on_text", "still here")


def test_a_client_that_sends_a_byte_at_a_time_is_dropped() -> None:
    began = time.monotonic()
    with listening(Recorder(), handshake_timeout=0.2) as listener, RawPeer.dial(listener) as slow:
        assert slow.drip(RawPeer.request("/", "X-Long: " + "x" * 8000), 0.005)
        assert 0.1 < time.monotonic() - began < HANG / 2


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"], ids=["nothing", "a part of TLS"])
def test_a_silent_tls_client_is_dropped(server_tls: ssl.SSLContext, said: bytes) -> None:
    service = Recorder()
    with (
        listening(service, ssl=server_tls, handshake_timeout=10.0) as listener,
        RawPeer.dial(listener) as silent,
        RawPeer.connect(listener, tls=True) as peer,
    ):
        silent.send_bytes(said)
        peer.text("hello")
        service.expect("on_text", "hello")
        pass_time(listener, 10.0)
        silent.expect_end()
        peer.text("still here")
        service.expect("on_text", "still here")


def test_a_tls_client_that_is_silent_behind_the_tls_handshake_is_dropped(
    server_tls: ssl.SSLContext,
) -> None:
    with (
        listening(Recorder(), ssl=server_tls, handshake_timeout=10.0) as listener,
        RawPeer.dial(listener, tls=True) as silent,
        suppress(ssl.SSLError),
    ):
        pass_time(listener, 10.0)
        silent.expect_end()


def test_a_refused_client_that_stays_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncws.server.opening._LEAVE", 0.1)
    with listening(Recorder()) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(RawPeer.request("/nowhere"))
        assert peer.read_head().startswith(b"HTTP/1.1 404 ")
        with suppress(EOFError):
            peer.read()
            raise AssertionError("more than the answer came")
        # Ours is still open for writing. What we send now is refused in the end.
        with pytest.raises(ConnectionError):
            while True:
                peer.send_bytes(b"x")


# -- The closing handshake ---------------------------------------------------


@both_roles
def test_a_peer_that_never_answers_a_close_is_dropped_at_close_timeout(role: str) -> None:
    class Closing(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            caller.close(4000, timeout=0)

    service = Closing()
    with end_of(role, service, close_timeout=0.1) as peer:
        began = time.monotonic()
        peer.text("x")
        peer.expect_close(4000)
        peer.expect_end()
        assert 0.05 < time.monotonic() - began < HANG / 2
        service.expect("on_close", 1006, "")


@both_roles
def test_a_peer_that_never_ends_tcp_is_dropped_at_close_timeout(role: str) -> None:
    service = Recorder()
    with end_of(role, service, close_timeout=0.1) as peer:
        began = time.monotonic()
        peer.close_frame(4000)
        peer.expect_close(4000)
        service.expect("on_close", 4000, "")
        assert 0.05 < time.monotonic() - began < HANG / 2


@both_roles
def test_data_behind_a_close_is_ignored(role: str) -> None:
    service = Recorder()
    with end_of(role, service, close_timeout=0.1) as peer:
        behind = ((CLOSE, close_payload(4000)), (TEXT, b"ignored"), (PING, b"ignored"), (0x3, b""))
        # In one write, or the last would find nobody if it came late.
        peer.send_bytes(b"".join(frame(*each, masked=role == "server") for each in behind))
        peer.expect_close(4000)
        service.expect("on_close", 4000, "")
        service.quiet()


# -- Sending -----------------------------------------------------------------


@both_roles
def test_a_send_to_a_peer_that_does_not_read_times_out(role: str) -> None:
    service = Recorder()
    with end_of(
        role, service, receive_buffer=4096, send_timeout=0.1, send_buffer_size=100_000
    ) as peer:
        peer.text("x")
        endpoint = service.expect("on_text", "x")
        sent = 0
        with pytest.raises(syncws.SendTimeout) as caught:
            while True:
                endpoint.send_binary(sent.to_bytes(4, "big") * 10_000)
                sent += 1
        assert isinstance(caught.value, TimeoutError)
        assert endpoint.is_open
        assert 100_000 < endpoint.buffered_amount < 100_000 + 2 * 40_014
        with pytest.raises(syncws.SendTimeout):
            endpoint.ping()
        # What was taken comes whole and in order, and nothing of what was not.
        for number in range(sent):
            peer.expect(BINARY, number.to_bytes(4, "big") * 10_000)
        endpoint.send_text("the end")
        peer.expect(TEXT, "the end")
        assert endpoint.buffered_amount == 0


def test_a_send_over_tls_to_a_peer_that_does_not_read_times_out(
    server_tls: ssl.SSLContext,
) -> None:
    service = ServerRecorder(
        syncws.ServiceConfig(
            ping_interval=None, compression=False, send_timeout=0.1, send_buffer_size=100_000
        )
    )
    with (
        listening(service, ssl=server_tls) as listener,
        RawPeer.connect(listener, tls=True, receive_buffer=4096) as peer,
    ):
        caller = service.expect("on_open")
        sent = 0
        with pytest.raises(syncws.SendTimeout):
            while True:
                caller.send_binary(sent.to_bytes(4, "big") * 10_000)
                sent += 1
        peer.send(PING, b"still there")  # read and answered behind what waits
        for number in range(sent):
            peer.expect(BINARY, number.to_bytes(4, "big") * 10_000)
        peer.expect(PONG, b"still there")
        peer.finish()
        service.expect("on_close", 1000, "")


def test_a_blocked_send_goes_on_when_the_peer_reads() -> None:
    service = Recorder()
    with end_of("server", service, receive_buffer=4096, send_buffer_size=50_000) as peer:
        peer.text("x")
        endpoint = service.expect("on_text", "x")
        number = 200
        beats: queue.Queue[int] = queue.Queue()

        def send_all() -> None:
            for count in range(number):
                beats.put(count)
                endpoint.send_binary(count.to_bytes(2, "big") * 20_000)

        sending = Task(send_all)
        with pytest.raises(queue.Empty):
            while True:
                beats.get(timeout=0.1)
        assert sending.is_alive()
        for count in range(number):
            peer.expect(BINARY, count.to_bytes(2, "big") * 20_000)
        sending.result()


def test_others_are_unaffected_by_a_peer_that_does_not_read() -> None:
    class Flooding(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            if text != "flood":
                caller.send_text(text)
                return
            with suppress(syncws.ConnectionClosed):
                while True:
                    self.record("sending", caller)
                    caller.send_binary(bytes(65_536))

    service = Flooding(syncws.ServiceConfig(ping_interval=None, compression=False))
    with listening(service) as listener, RawPeer.connect(listener) as other:
        with RawPeer.connect(listener, receive_buffer=4096) as stuck:
            stuck.text("flood")
            with pytest.raises(queue.Empty):
                while True:
                    service.calls.get(timeout=0.1)
            other.text("hello")
            other.expect(TEXT, "hello")
            stuck.reset()
        # Some more may have gone out, if it did not send for a while and yet was not stuck.
        while (call := service.next()).name == "sending":
            pass
        assert (call.name, call.args) == ("on_close", (1006, ""))


# -- Receiving ---------------------------------------------------------------


def push(
    peer: RawPeer, data: bytes, stop: threading.Event, beats: queue.Queue[None], last: bytes = b""
) -> int:
    """Send copies of `data` until told to stop, then `last`; return how many went out whole."""
    peer.sock.setblocking(True)
    sent = 0
    while not stop.is_set():
        peer.send_bytes(data)
        sent += 1
        beats.put(None)
    peer.send_bytes(last)
    return sent


@pytest.mark.parametrize("bound", ["receive_queue_size", "receive_queue_bytes"])
def test_reading_pauses_while_the_queue_is_full_and_goes_on(bound: str) -> None:
    class Slow(Recorder):
        def on_binary(self, caller: Any, data: bytes) -> None:
            if first.is_set():
                first.clear()
                gate.block()
            counted.put(len(data))

    first = threading.Event()
    first.set()
    counted: queue.Queue[int] = queue.Queue()
    size = 20_000
    limit = {"receive_queue_size": 4} if bound == "receive_queue_size" else {bound: 80_000}
    stop, beats = threading.Event(), queue.Queue[None]()
    with end_of("server", Slow(), **limit) as peer, Gate() as gate:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        pushing = Task(push, peer, frame(BINARY, bytes(size)), stop, beats)
        gate.reached()
        with pytest.raises(queue.Empty):
            while True:
                beats.get(timeout=0.1)
        assert pushing.is_alive()  # its send blocks: nobody reads
        stop.set()
        gate.open()
        for _ in range(pushing.result()):
            assert counted.get(timeout=HANG) == size
        peer.round_trip()


def test_reading_pauses_for_a_blocking_client_that_does_not_receive() -> None:
    stop, beats = threading.Event(), queue.Queue[None]()
    with open_pair(
        compression=False, ping_interval=None, receive_queue_size=4, receive_queue_bytes=80_000
    ) as (client, peer):
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        data = frame(BINARY, bytes(20_000), masked=False)
        last = frame(TEXT, b"the last", masked=False)
        pushing = Task(push, peer, data, stop, beats, last)
        with pytest.raises(queue.Empty):
            while True:
                beats.get(timeout=0.1)
        assert pushing.is_alive()
        stop.set()
        messages = list(iter(lambda: client.receive(timeout=HANG), "the last"))
        assert messages == [bytes(20_000)] * pushing.result()
        peer.round_trip()


def test_many_small_messages_are_bounded_too() -> None:
    class Slow(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            if not gate_passed:
                gate_passed.append(True)
                gate.block()
            counted.put(text)

    gate_passed: list[bool] = []
    counted: queue.Queue[str] = queue.Queue()
    stop, beats = threading.Event(), queue.Queue[None]()
    with end_of("server", Slow(), receive_queue_size=10) as peer, Gate() as gate:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        batch = 500
        data = frame(TEXT) * batch
        pushing = Task(push, peer, data, stop, beats)
        gate.reached()
        with pytest.raises(queue.Empty):
            while True:
                beats.get(timeout=0.1)
        stop.set()
        gate.open()
        for _ in range(pushing.result() * batch):
            assert counted.get(timeout=HANG) == ""


@both_roles
def test_a_ping_flood_from_a_peer_that_does_not_read_is_bounded(role: str) -> None:
    service = Recorder()
    high = 20_000
    with end_of(role, service, receive_buffer=4096, send_buffer_size=high) as peer:
        peer.text("x")
        endpoint = service.expect("on_text", "x")
        total = 30_000
        flood = frame(PING, bytes(125), masked=role == "server") * 1000
        for _ in range(total // 1000):
            peer.send_bytes(flood)  # read all the while: pings never block us
        peer.send(PING, b"the last")
        peer.text("all read")
        service.expect("on_text", "all read")
        assert endpoint.buffered_amount < high + 200
        # Not every ping has its pong, but the last has. RFC 6455 section 5.5.3.
        pongs = 1
        while (data := peer.expect(PONG)) != b"the last":
            assert data == bytes(125)
            pongs += 1
        assert 100 < pongs < total


def test_a_ping_flood_to_an_on_ping_that_blocks_is_bounded() -> None:
    class Pinged(Recorder):
        def on_ping(self, caller: Any, data: bytes) -> None:
            if not passed:
                passed.append(True)
                gate.block()
            counted.put(data)

    passed: list[bool] = []
    counted: queue.Queue[bytes] = queue.Queue()
    stop, beats = threading.Event(), queue.Queue[None]()
    with end_of("server", Pinged(), receive_queue_size=10) as peer, Gate() as gate:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        pushing = Task(push, peer, frame(PING, bytes(125)) * 100, stop, beats)
        gate.reached()
        with pytest.raises(queue.Empty):
            while True:
                beats.get(timeout=0.1)
        assert pushing.is_alive()
        stop.set()
        gate.open()
        for _ in range(pushing.result() * 100):
            assert counted.get(timeout=HANG) == bytes(125)


# -- Origins -----------------------------------------------------------------


def status_for(listener: syncws.Listener, *headers: str, host: str | None = None) -> int:
    """Return the status of the answer to a handshake request."""
    with RawPeer.dial(listener) as peer:
        request = RawPeer.request("/", *headers, host=host or f"127.0.0.1:{listener.port}")
        peer.send_bytes(request)
        return int(peer.read_head().split()[1])


def test_a_page_of_another_origin_is_refused_by_default() -> None:
    with listening(Recorder()) as listener:
        own = f"http://127.0.0.1:{listener.port}"
        assert status_for(listener) == 101
        assert status_for(listener, f"Origin: {own}") == 101
        for foreign in (
            "http://evil.example",
            "null",
            f"http://127.0.0.1:{listener.port}.evil.example",
            f"http://127.0.0.1:{(listener.port or 0) - 1}",
            "http://127.0.0.1",
            f"{own}@evil.example",
            "",
        ):
            assert status_for(listener, f"Origin: {foreign}") == 403, foreign
        assert status_for(listener, f"Origin: {own}", f"Origin: {own}") == 403


def test_allowed_origins_widen_the_check() -> None:
    config = syncws.ServiceConfig(allowed_origins=("https://app.example",))
    with listening(Recorder(config)) as listener:
        own = f"http://127.0.0.1:{listener.port}"
        assert status_for(listener, "Origin: https://app.example") == 101
        assert status_for(listener, f"Origin: {own}") == 101
        assert status_for(listener, "Origin: http://app.example") == 403
        assert status_for(listener, "Origin: https://app.example.evil.example") == 403
        assert status_for(listener, "Origin: https://sub.app.example") == 403


def test_a_star_allows_every_origin() -> None:
    with listening(Recorder(syncws.ServiceConfig(allowed_origins=("*",)))) as listener:
        assert status_for(listener, "Origin: http://evil.example") == 101
        assert status_for(listener, "Origin: null") == 101


def test_a_clients_origin_header_is_checked_as_a_pages() -> None:
    with (
        listening(Recorder()) as listener,
        pytest.raises(syncws.HandshakeRejected) as caught,
    ):
        syncws.Client(f"ws://127.0.0.1:{listener.port}/", headers={"Origin": "http://evil.example"})
    assert caught.value.status == 403
    assert caught.value.body


@both_roles
def test_the_longest_timeouts_do_no_harm(role: str) -> None:
    service = ServerRecorder() if role == "server" else Recorder()
    names = ("idle_timeout", "ping_interval", "ping_timeout", "close_timeout")
    long = dict.fromkeys(names, LONGEST)
    with end_of(role, service, **long) as peer:
        peer.round_trip()
        peer.send(CLOSE)
        peer.expect(CLOSE)
