"""A listener's life: starting, stopping, serving, addresses, plain HTTP, threads and forks."""

from __future__ import annotations

import logging
import os
import queue
import re
import resource
import signal
import socket
import ssl
import stat
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import syncws
from tests.conftest import open_descriptors, running_threads
from tests.support import (
    HANG,
    TEXT,
    Gate,
    RawPeer,
    ServerRecorder,
    Task,
    interpreter,
    listening,
)

CONFIG = syncws.ServiceConfig(ping_interval=None, compression=False)


class Echo(syncws.Service):
    config = CONFIG

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)


def url_of(listener: syncws.Listener, path: str = "/") -> str:
    return f"ws://127.0.0.1:{listener.port}{path}"


def echoed(peer: RawPeer, text: str = "hello") -> None:
    peer.text(text)
    peer.expect(TEXT, text)


# -- start and stop ----------------------------------------------------------


def test_a_listener_starts_stops_and_starts_again() -> None:
    listener = syncws.Listener(0)
    listener.attach("/", Echo())
    assert listener.addresses == []
    assert listener.port == 0
    for _ in range(3):
        listener.start()
        assert listener.addresses == [("127.0.0.1", listener.port)]
        with RawPeer.connect(listener) as peer:
            echoed(peer)
            peer.finish()
        listener.stop()
        assert listener.addresses == []


def test_the_port_can_be_used_again_at_once() -> None:
    with listening(Echo()) as listener:
        port = listener.port
        with RawPeer.connect(listener) as peer:
            echoed(peer)
    with listening(Echo(), port=port) as listener, RawPeer.connect(listener) as peer:
        assert listener.port == port
        echoed(peer)


def test_stop_is_harmless_before_start_and_twice() -> None:
    listener = syncws.Listener(0)
    listener.stop()
    listener.start()
    listener.stop()
    listener.stop()


def test_starting_twice_is_an_error() -> None:
    with listening(Echo()) as listener:
        with pytest.raises(RuntimeError, match="started already"):
            listener.start()
        with RawPeer.connect(listener) as peer:
            echoed(peer)


def test_a_listener_that_could_not_start_may_start_later() -> None:
    with listening(Echo()) as first:
        second = syncws.Listener(first.port)
        second.attach("/", Echo())
        with pytest.raises(OSError, match=f"port {first.port}"):
            second.start()
        second.stop()
    with second, RawPeer.connect(second) as peer:
        echoed(peer)


@pytest.mark.parametrize("timeout", [None, "1", -1, True])
def test_a_wrong_timeout_does_not_stop_it(timeout: Any) -> None:
    with listening(Echo()) as listener:
        with pytest.raises((TypeError, ValueError), match="timeout"):
            listener.stop(timeout)
        with RawPeer.connect(listener) as peer:
            echoed(peer)


def test_repr_tells_where_and_in_which_state() -> None:
    listener = syncws.Listener(0)
    assert "not started" in repr(listener)
    with listener:
        assert str(listener.port) in repr(listener)
    assert "not started" in repr(listener)


def test_stop_sends_1001_to_all_and_waits_for_on_close() -> None:
    service = ServerRecorder(CONFIG)
    with listening(service) as listener, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer.connect(listener)) for _ in range(3)]
        for _ in peers:
            service.expect("on_open")
        stopping = Task(listener.stop)
        for peer in peers:
            assert peer.expect_close() == (1001, "the server is going away")
            peer.close_frame(1001)
            peer.expect_end()
            peer.abort()
        stopping.result()
        assert [service.calls.get_nowait().args for _ in peers] == [(1001, "")] * 3


def test_stop_refuses_new_connections_at_once() -> None:
    service = ServerRecorder(CONFIG)
    with listening(service) as listener, RawPeer.connect(listener) as peer:
        url = url_of(listener)
        stopping = Task(listener.stop)
        peer.expect_close(1001)
        with pytest.raises(syncws.ConnectError):
            syncws.Client(url)
        with pytest.raises(RuntimeError):
            listener.start()
        peer.close_frame(1001)
        peer.abort()
        stopping.result()


def test_stop_lets_a_running_callback_end() -> None:
    class Blocking(ServerRecorder):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()
            super().on_text(caller, text)

    service = Blocking(CONFIG)
    with listening(service) as listener, RawPeer.connect(listener) as peer, Gate() as gate:
        service.expect("on_open")
        peer.text("x")
        gate.reached()
        stopping = Task(listener.stop)
        peer.expect_close(1001)
        peer.close_frame(1001)
        peer.expect_end()
        peer.abort()
        service.quiet()
        assert stopping.is_alive()
        gate.open()
        stopping.result()
        assert service.calls.get_nowait().name == "on_text"
        assert service.calls.get_nowait().args == (1001, "")


def test_stop_aborts_what_has_not_ended_at_the_deadline() -> None:
    service = ServerRecorder(CONFIG)
    with listening(service) as listener, RawPeer.connect(listener) as peer:
        service.expect("on_open")
        began = time.monotonic()
        listener.stop(timeout=0.1)  # the peer never answers
        assert 0.05 < time.monotonic() - began < HANG / 2
        service.expect("on_close", 1006, "")
        peer.expect_close(1001)
        peer.expect_end()


def test_stop_leaves_a_callback_behind_that_does_not_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("syncws.server.listener._ABORT", 0.1)

    class Stuck(ServerRecorder):
        def on_text(self, caller: Any, text: str) -> None:
            gate.block()
            super().on_text(caller, text)

    service = Stuck(CONFIG)
    with listening(service) as listener, RawPeer.connect(listener) as peer, Gate() as gate:
        service.expect("on_open")
        peer.text("x")
        gate.reached()
        peer.abort()
        listener.stop(timeout=0.1)
        assert service.calls.empty()
        with listener, RawPeer.connect(listener):  # it starts again all the same
            service.expect("on_open")
            gate.open()
            seen = {service.next()[::2] for _ in range(2)}
            assert seen == {("on_text", ("x",)), ("on_close", (1006, ""))}
            listener.stop(timeout=0.1)


def test_a_stop_cut_short_aborts_and_the_listener_starts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = syncws.Listener(0)
    listener.attach("/", Echo())
    listener.start()
    wait = listener._tally.wait

    def interrupted(deadline: Any, sockets_only: bool) -> bool:
        monkeypatch.undo()
        raise KeyboardInterrupt

    # The other listener keeps the engine running.
    with listening(Echo()), RawPeer.connect(listener) as peer:
        echoed(peer)
        monkeypatch.setattr(listener._tally, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            listener.stop(10 * HANG)
        assert listener._tally.wait == wait
        peer.expect_close(1001)
        peer.expect_end()  # though it has not answered
    assert listener.addresses == []
    listener.stop()
    with listener, RawPeer.connect(listener) as peer:
        echoed(peer)
        peer.finish()


def test_stop_cuts_handshakes_short() -> None:
    with listening(Echo()) as listener, RawPeer.dial(listener) as peer:
        with RawPeer.connect(listener) as other:  # so that the first has been accepted
            echoed(other)
        listener.stop(timeout=0.1)
        peer.expect_end()


def test_stop_from_a_callback_does_not_wait_for_itself() -> None:
    class Stopping(ServerRecorder):
        def on_text(self, caller: Any, text: str) -> None:
            began = time.monotonic()
            listener.stop()
            self.record("stopped", caller, time.monotonic() - began)

    service = Stopping(CONFIG)
    with listening(service) as listener, RawPeer.connect(listener) as peer:
        service.expect("on_open")
        peer.text("stop")
        peer.expect_close(1001)
        peer.close_frame(1001)
        peer.expect_end()
        peer.abort()
        call = service.next()
        assert call.name == "stopped"
        assert call.args[0] < HANG / 4
        service.expect("on_close", 1001, "")
        assert "not started" in repr(listener)


def test_two_stops_at_once_both_wait() -> None:
    def stop() -> list[Any]:
        listener.stop()
        return listener.addresses

    service = ServerRecorder(CONFIG)
    with listening(service) as listener, RawPeer.connect(listener) as peer:
        service.expect("on_open")
        stopping = [Task(stop) for _ in range(2)]
        peer.expect_close(1001)
        service.quiet()
        assert all(task.is_alive() for task in stopping)
        peer.close_frame(1001)
        peer.abort()
        for task in stopping:
            assert task.result() == []
        service.expect("on_close", 1001, "")


# -- attach and detach -------------------------------------------------------


def test_attach_and_detach_while_running() -> None:
    with listening(Echo(), "/one") as listener, RawPeer.connect(listener, "/one") as one:
        with pytest.raises(syncws.HandshakeRejected) as caught:
            syncws.Client(url_of(listener, "/two"))
        assert caught.value.status == 404
        service = Echo()
        listener.attach("/two", service)
        with RawPeer.connect(listener, "/two") as two:
            echoed(two)
            listener.detach("/one")
            listener.detach(service)
            for path in ("/one", "/two"):
                with pytest.raises(syncws.HandshakeRejected) as caught:
                    syncws.Client(url_of(listener, path))
                assert caught.value.status == 404
            echoed(one)  # open connections go on
            echoed(two)
        with pytest.raises(ValueError, match="none"):
            listener.detach("/one")


def test_a_class_makes_one_service_per_connection_and_an_instance_is_shared() -> None:
    class Counting(syncws.Service):
        config = CONFIG

        def __init__(self) -> None:
            self.count = 0

        def on_text(self, caller: syncws.Caller, text: str) -> None:
            self.count += 1
            caller.send_text(str(self.count))

    listener = syncws.Listener(0)
    listener.attach("/class", Counting)
    listener.attach("/instance", Counting())
    with listener:
        answers = []
        for path in ("/class", "/class", "/instance", "/instance"):
            with RawPeer.connect(listener, path) as peer:
                peer.text("x")
                answers.append(peer.expect(TEXT))
    assert answers == [b"1", b"1", b"1", b"2"]


def test_a_caller_knows_its_request_and_addresses() -> None:
    service = ServerRecorder(syncws.ServiceConfig(subprotocols=("xml", "json")))
    with (
        listening(service, "/a b") as listener,
        RawPeer.connect(
            listener,
            "/a%20b?x=1&x=2&y=%20",
            "Sec-WebSocket-Protocol: json, other, xml",
            "X-Custom: yes",
        ) as peer,
    ):
        caller = service.expect("on_open")
        assert caller.request.raw_path == "/a%20b"
        assert caller.request.path == "/a b"
        assert caller.request.query.get_all("x") == ["1", "2"]
        assert caller.request.query["y"] == " "
        assert caller.request.headers["x-custom"] == "yes"
        assert caller.subprotocol == "xml"
        assert b"Sec-WebSocket-Protocol: xml\r\n" in peer.head
        assert caller.local_address == ("127.0.0.1", listener.port)
        assert caller.remote_address == peer.sock.getsockname()
        assert not caller.is_secure
        assert caller.is_open
        assert caller.id in repr(caller)
        caller.attributes["name"] = "x"
        assert caller.attributes == {"name": "x"}
        assert caller.latency is None
        assert len({caller, caller}) == 1


# -- serve_forever -----------------------------------------------------------

# `say` writes whole lines, also from several threads; `serving` returns once the
# signals are looked after.
_SAY = """
import signal, sys, threading, syncws
def say(*words): sys.stdout.write(" ".join(map(str, words)) + "\\n")
default = signal.getsignal(signal.SIGTERM)
def serving():
    while signal.getsignal(signal.SIGTERM) is default: threading.Event().wait(0.001)
"""

_SERVE = (
    _SAY
    + """
class Echo(syncws.Service):
    def on_text(self, caller, text): caller.send_text(text)
    def on_close(self, caller, status_code, reason): say("closed", status_code)
listener = syncws.Listener(0)
listener.attach("/", Echo())
clients = []
def connect():
    url = f"ws://127.0.0.1:{listener.port}/"
    clients.extend(syncws.Client(url) for _ in range(3))
    for client in clients:
        client.send_text("x"); client.receive()
    serving()
    say("ready")
    for client in clients:
        try: client.receive()
        except syncws.ConnectionClosed as exc: say("received", exc.received.code)
listener.start()
thread = threading.Thread(target=connect)
thread.start()
listener.serve_forever()
thread.join()
say("done", threading.active_count())
"""
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_serve_forever_ends_in_order_at_a_signal(number: signal.Signals) -> None:
    with interpreter(_SERVE) as process:
        assert process.line() == "ready"
        process.process.send_signal(number)
        lines = [process.line() for _ in range(6)]
        assert sorted(lines) == ["closed 1001"] * 3 + ["received 1001"] * 3
        assert process.line().startswith("done ")
        assert process.end() == (0, "")


def test_serve_forever_starts_the_listener_and_puts_the_handlers_back() -> None:
    script = (
        _SAY
        + """
before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
listener = syncws.Listener(0)
class Ready(syncws.Service):
    def on_open(self, caller): say("open")
listener.attach("/", Ready())
def connect():
    serving()
    while not listener.addresses: threading.Event().wait(0.001)
    syncws.Client(f"ws://127.0.0.1:{listener.port}/").close()
threading.Thread(target=connect).start()
listener.serve_forever()
assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
say("ended")
"""
    )
    with interpreter(script) as process:
        assert process.line() == "open"
        process.process.send_signal(signal.SIGTERM)
        assert process.line() == "ended"
        assert process.end() == (0, "")


def test_a_second_ctrl_c_cuts_the_stop_short() -> None:
    script = (
        _SAY
        + """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
stuck = threading.Event()
class Stuck(syncws.Service):
    def on_text(self, caller, text):
        serving()
        say("stuck")
        stuck.wait()
listener = syncws.Listener(0)
listener.attach("/", Stuck())
listener.start()
client = syncws.Client(f"ws://127.0.0.1:{listener.port}/")
client.send_text("x")
def tell():
    try: client.receive()
    except syncws.ConnectionClosed: say("stopping")
threading.Thread(target=tell, daemon=True).start()
try:
    listener.serve_forever(stop_timeout=60)
except KeyboardInterrupt:
    say("interrupted")
"""
    )
    with interpreter(script) as process:
        assert process.line() == "stuck"
        process.process.send_signal(signal.SIGINT)
        assert process.line() == "stopping"
        process.process.send_signal(signal.SIGINT)
        assert process.line() == "interrupted"
        assert process.end()[0] == 0


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals need the main thread"
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("started", [False, True])
def test_serve_forever_here(number: signal.Signals, started: bool) -> None:
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(signum) for signum in wanted]
    listener = syncws.Listener(0)
    listener.attach("/", Echo())

    def use() -> None:
        pause = threading.Event()
        handlers = list(zip(wanted, before, strict=True))
        while any(signal.getsignal(n) is old for n, old in handlers) or not listener.addresses:
            pause.wait(0.001)
        try:
            with syncws.Client(url_of(listener)) as client:
                client.send_text("x")
                assert client.receive(timeout=HANG) == "x"
        finally:
            os.kill(os.getpid(), number)

    if started:
        listener.start()
    using = Task(use)
    listener.serve_forever()
    using.result()
    assert [signal.getsignal(signum) for signum in wanted] == before
    assert listener.addresses == []


def test_serve_forever_with_a_handler_that_was_not_set_from_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = signal.signal
    before = signal.getsignal(signal.SIGTERM)
    listener = syncws.Listener(0)

    def unknown(number: int, handler: Any) -> Any:
        found = real(number, handler)
        if number != signal.SIGTERM:
            return found
        # Stopped here, amid serve_forever's beginning, it is not started again.
        listener.stop()
        return None

    monkeypatch.setattr(signal, "signal", unknown)
    listener.start()
    try:
        listener.serve_forever()
        assert listener.addresses == []
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        real(signal.SIGTERM, before)


def serving_task(listener: syncws.Listener) -> Task:
    """Return `serve_forever` in a thread of its own, once it waits: a stop before is not for it."""
    waiting = threading.Event()
    wait = listener._stops.wait

    def tell_and_wait(start: int) -> None:
        waiting.set()
        wait(start)

    listener._stops.wait = tell_and_wait  # type: ignore[method-assign]
    serving = Task(listener.serve_forever)
    assert waiting.wait(HANG)
    return serving


def test_serve_forever_in_another_thread_is_ended_by_stop() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for _ in range(2):
        with listening(Echo()) as listener:
            serving = serving_task(listener)
            with RawPeer.connect(listener) as peer:
                echoed(peer)
                assert serving.is_alive()
                peer.finish()
            listener.stop()
            serving.result()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_serve_forever_is_ended_by_a_stop_from_a_callback() -> None:
    class Stopping(syncws.Service):
        config = CONFIG

        def on_text(self, caller: syncws.Caller, text: str) -> None:
            listener.stop()

    with listening(Stopping()) as listener:
        serving = serving_task(listener)
        with RawPeer.connect(listener) as peer:
            peer.text("stop")
            peer.expect_close(1001)
            peer.close_frame(1001)
        serving.result()


# -- Addresses ---------------------------------------------------------------

has_ipv6 = pytest.mark.skipif(
    not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here"
)


@has_ipv6
def test_ipv6() -> None:
    with listening(Echo(), host="::1") as listener:
        assert listener.addresses == [("::1", listener.port)]
        with syncws.Client(f"ws://[::1]:{listener.port}/") as client:
            client.send_text("hello")
            assert client.receive(timeout=HANG) == "hello"
            assert client.remote_address == ("::1", listener.port)


@has_ipv6
def test_all_interfaces_are_ipv4_and_ipv6_on_one_port() -> None:
    with listening(Echo(), host="") as listener:
        assert sorted(host for host, _ in listener.addresses) == ["0.0.0.0", "::"]
        assert {port for _, port in listener.addresses} == {listener.port}
        for host in ("127.0.0.1", "[::1]"):
            with syncws.Client(f"ws://{host}:{listener.port}/") as client:
                client.send_text(host)
                assert client.receive(timeout=HANG) == host


def test_a_name() -> None:
    with (
        listening(Echo(), host="localhost") as listener,
        syncws.Client(f"ws://localhost:{listener.port}/") as client,
    ):
        client.send_text("hello")
        assert client.receive(timeout=HANG) == "hello"


def test_a_unix_domain_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    service = ServerRecorder(CONFIG)
    for _ in range(2):
        with listening(service, unix_path=path) as listener:
            assert listener.port is None
            assert listener.addresses == [str(path)]
            assert stat.S_ISSOCK(path.stat().st_mode)
            with syncws.Client("ws://localhost/", unix_path=path) as client:
                caller = service.expect("on_open")
                assert caller.local_address == str(path)
                assert caller.remote_address == ""
                assert client.remote_address == str(path)
                client.send_text("hello")
                service.expect("on_text", "hello")
            service.expect("on_close", 1000, "")
        assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux's")
def test_an_abstract_unix_domain_socket() -> None:
    path = f"\0syncws-test-{os.getpid()}"
    service = ServerRecorder(CONFIG)
    with listening(service, unix_path=path) as listener, RawPeer.connect(listener) as peer:
        assert listener.addresses == [path]
        assert service.expect("on_open").local_address == path
        peer.round_trip()


def test_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    class Secure(Echo):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            assert caller.is_secure
            caller.send_text(text)

        def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
            caller.send_binary(data)

    with (
        listening(Secure(), ssl=server_tls) as listener,
        syncws.Client(f"wss://localhost:{listener.port}/", ssl=client_tls) as client,
    ):
        assert client.is_secure
        client.send_text("hello")
        assert client.receive(timeout=HANG) == "hello"
        data = os.urandom(1_000_000)
        client.send_binary(data)
        assert client.receive(timeout=HANG) == data
        client.close(4000)
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.receive()
        assert caught.value.received == (4000, "")


def test_plain_http_to_a_tls_listener_is_dropped(server_tls: ssl.SSLContext) -> None:
    service = ServerRecorder(CONFIG)
    with listening(service, ssl=server_tls) as listener:
        with RawPeer.dial(listener) as plain:
            plain.send_bytes(RawPeer.request())
            with pytest.raises((EOFError, OSError)):
                plain.read_head()
        with RawPeer.connect(listener, tls=True):
            service.expect("on_open")


def test_a_tls_client_to_a_plain_listener_is_refused() -> None:
    with (
        listening(Echo()) as listener,
        pytest.raises(syncws.ConnectError, match="TLS"),
    ):
        syncws.Client(f"wss://localhost:{listener.port}/")


# -- Plain HTTP --------------------------------------------------------------


def answer_to(listener: syncws.Listener, request: bytes) -> tuple[int, bytes, bytes]:
    """Return the status, the head and the body of the answer; the server ends TCP behind it."""
    with RawPeer.dial(listener) as peer:
        peer.send_bytes(request)
        data = b""
        while chunk := peer.sock.recv(65_536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    assert length is not None
    if not request.startswith(b"HEAD"):
        assert len(body) == int(length[1])
    return int(head.split()[1]), head, body


def plain(method: str, path: str = "/", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_browser_is_told_that_this_is_a_websocket() -> None:
    with listening(Echo()) as listener:
        status, head, body = answer_to(listener, plain("GET"))
        assert status == 426
        assert b"\r\nUpgrade: websocket" in head
        assert b"text/plain" in head
        assert b"WebSocket" in body


def test_an_unknown_path_is_answered_404() -> None:
    with listening(Echo()) as listener:
        for request in (plain("GET", "/other"), RawPeer.request("/other?query")):
            status, _, body = answer_to(listener, request)
            assert status == 404
            assert b"/other" in body


def test_refusals_are_logged_in_a_worker() -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            gate.block()
            records.put((record.threadName, record.getMessage()))

    records: queue.Queue[tuple[str | None, str]] = queue.Queue()
    log, handler = logging.getLogger("syncws.server"), Handler(logging.INFO)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with listening(Echo()) as listener, Gate() as gate:
            answer_to(listener, plain("GET", "/nowhere"))
            gate.reached()
            with RawPeer.connect(listener) as peer:  # a handler that blocks holds up nobody
                peer.round_trip()
                echoed(peer)
            gate.open()
            name, text = records.get(timeout=HANG)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    assert name is not None
    assert name.startswith("syncws-worker-")
    assert "/nowhere with 404" in text


def test_a_wrong_version_is_told_the_right_one() -> None:
    request = RawPeer.request().replace(b"Version: 13", b"Version: 8")
    with listening(Echo()) as listener:
        status, head, body = answer_to(listener, request)
        assert status == 426
        assert b"\r\nSec-WebSocket-Version: 13\r\n" in head + b"\r\n"
        assert b"13" in body


def test_head_gets_no_body() -> None:
    with listening(Echo()) as listener:
        status, _, body = answer_to(listener, plain("HEAD"))
        assert (status, body) == (426, b"")


def test_post_is_refused() -> None:
    with listening(Echo()) as listener:
        assert answer_to(listener, plain("POST", "/", "Content-Length: 0"))[0] == 426
        upgrade = RawPeer.request().replace(b"GET", b"POST")
        status, head, _ = answer_to(listener, upgrade)
        assert status == 405
        assert b"\r\nAllow: GET" in head


@pytest.mark.parametrize(
    "request_",
    [b"\x00\x01\x02\r\n\r\n", b"hello\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n", b"\r\n\r\n"],
)
def test_what_is_no_http_is_answered_400(request_: bytes) -> None:
    with listening(Echo()) as listener:
        assert answer_to(listener, request_)[0] == 400


def test_bytes_behind_a_refused_handshake_are_not_frames() -> None:
    service = ServerRecorder(CONFIG)
    with listening(service) as listener:
        status, _, _ = answer_to(listener, plain("GET") + RawPeer.request())
        assert status == 426
        service.quiet()


# -- Threads and descriptors -------------------------------------------------

_THOUSAND = """
import os, resource, sys, threading, syncws
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
class Echo(syncws.Service):
    def on_text(self, caller, text): caller.send_text(text)
class Callbacks(syncws.Service):
    def on_text(self, client, text): got.put(text)
import queue
got = queue.Queue()
before = threading.active_count(), len(os.listdir("/proc/self/fd"))
listener = syncws.Listener(0, engine=syncws.Engine(name="server"))
listener.attach("/", Echo())
engine = syncws.Engine(name="client")
def count(name):
    return sum(t.name.startswith(name) for t in threading.enumerate())
with listener:
    url = f"ws://127.0.0.1:{listener.port}/"
    clients = []
    for wanted in (1, 1000):
        while len(clients) < wanted:
            service = Callbacks() if len(clients) % 2 else None
            clients.append(syncws.Client(url, service=service, engine=engine))
        for number, client in enumerate(clients):
            client.send_text("x")
            assert (got.get(timeout=20) if number % 2 else client.receive(timeout=20)) == "x"
        print(wanted, count("server-io"), count("server-worker") <= 8,
              count("client-io"), count("client-worker") <= 8)
    for client in clients: client.close(timeout=0)
    for client in clients: client.close()
for _ in range(1000):
    left = threading.active_count(), len(os.listdir("/proc/self/fd"))
    if left == before: break
    threading.Event().wait(0.01)
print(left == before)
"""


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2200, reason="too few descriptors allowed"
)
def test_a_thousand_connections_take_no_more_threads_than_one() -> None:
    with interpreter(_THOUSAND) as process:
        assert process.line() == "1 1 True 1 True"
        assert process.line() == "1000 1 True 1 True"
        assert process.line() == "True"
        assert process.end() == (0, "")


def test_threads_and_descriptors_are_gone_after_stop() -> None:
    threads, descriptors = running_threads(), open_descriptors()
    with listening(Echo()) as listener, ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(syncws.Client(url_of(listener)))
            client.send_text("x")
            assert client.receive(timeout=HANG) == "x"
        assert running_threads() > threads
    assert running_threads() == threads
    assert open_descriptors() == descriptors


def test_listeners_and_clients_share_the_default_engine() -> None:
    with (
        listening(Echo()) as one,
        listening(Echo()) as two,
        syncws.Client(url_of(one)) as first,
        syncws.Client(url_of(two)) as second,
    ):
        for client in (first, second):
            client.send_text("x")
            assert client.receive(timeout=HANG) == "x"
        names = [thread.name for thread in threading.enumerate()]
        assert sum(name.startswith("syncws-io") for name in names) == 1
        assert syncws.default_engine().stats().users == 4
        receiving = Task(first.receive)
        one.stop()
        assert isinstance(receiving.error(), syncws.ConnectionClosed)
        second.send_text("still")
        assert second.receive(timeout=HANG) == "still"


def test_an_engine_of_ones_own() -> None:
    engine = syncws.Engine(workers=2, name="mine")
    names = set()

    class Named(Echo):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            names.add(threading.current_thread().name.rpartition("-")[0])
            caller.send_text(text)

    with (
        listening(Named(), engine=engine) as listener,
        syncws.Client(url_of(listener), engine=engine) as client,
    ):
        client.send_text("x")
        assert client.receive(timeout=HANG) == "x"
        assert engine.stats().users == 2
        running = {thread.name for thread in threading.enumerate()}
        assert "mine-io" in running
        assert "syncws-io" not in running
    assert names == {"mine-worker"}
    assert engine.stats().users == 0


_EXHAUSTED = """
import logging, resource, threading, syncws, syncws.server.acceptor
syncws.server.acceptor._BACK_OFF = 0.05
class Counter(logging.Handler):
    count = 0
    def emit(self, record):
        if not self.count: print(record.getMessage())
        self.count += 1
counter = Counter()
logging.getLogger("syncws.server").addHandler(counter)
class Echo(syncws.Service):
    def on_text(self, caller, text): caller.send_text(text)
listener = syncws.Listener(0)
listener.attach("/", Echo())
listener.start()
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
print(listener.port)
input()
listener.stop()
print("spins" if counter.count > 100 else "stopped")
"""


def test_a_listener_survives_the_end_of_descriptors() -> None:
    with interpreter(_EXHAUSTED) as process, ExitStack() as stack:
        address = ("127.0.0.1", int(process.line()))
        peers = []
        for _ in range(25):  # more than it has descriptors for
            peer = RawPeer(socket.create_connection(address), client=True)
            peers.append(stack.enter_context(peer))
            peer.send_bytes(RawPeer.request())
        assert process.line().startswith("cannot accept connections")
        peers[0].read_head()
        echoed(peers[0])  # those that it has go on
        for peer in peers[:15]:
            peer.abort()
        for peer in peers[15:]:
            peer.read_head()  # and the others have their turn
            echoed(peer)
            peer.abort()
        process.tell()
        assert process.line() == "stopped"
        assert process.end() == (0, "")


# -- Forks -------------------------------------------------------------------

_FORK = """
import os, sys, threading, traceback, syncws
class Echo(syncws.Service):
    def on_text(self, caller, text): caller.send_text(text)
def echo(client, text):
    client.send_text(text)
    return client.receive(timeout=20) == text
listener = syncws.Listener(0)
listener.attach("/", Echo())
listener.start()
url = f"ws://127.0.0.1:{listener.port}/"
client = syncws.Client(url)
paused = syncws.Client(url, ready_on_connect=False)
assert echo(client, "before")
descriptors = len(os.listdir("/proc/self/fd"))
child = os.fork()
if child == 0:
    try:
        # The parent's are closed here, and a send does not reach the wire.
        for mine in (client, paused):
            try:
                mine.send_text("not from here")
            except syncws.ConnectionClosed:
                print("closed")
            mine.close()
        listener.stop()
        print("stopped")
        # And of our own there are new ones.
        other = syncws.Listener(0)
        other.attach("/", Echo())
        with other:
            with syncws.Client(f"ws://127.0.0.1:{other.port}/") as fresh:
                print("own", echo(fresh, "own"))
            with syncws.Client(url) as fresh:
                print("parent's", echo(fresh, "parent's"))
        listener.start()
        print("restarted", echo(syncws.Client(f"ws://127.0.0.1:{listener.port}/"), "x"))
        listener.stop()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    os._exit(0)
os.waitpid(child, 0)
print("parent", echo(client, "after"))
paused.ready()
print("parent", echo(paused, "after"))
client.close()
paused.close()
listener.stop()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_begins_afresh_and_the_parents_connections_go_on() -> None:
    with interpreter(_FORK) as process:
        began = time.monotonic()
        for line in ("closed", "closed", "stopped"):
            assert process.line() == line
        for line in ("own True", "parent's True", "restarted True", "parent True", "parent True"):
            assert process.line() == line
        assert time.monotonic() - began < HANG / 2  # nothing waited for threads that are not there
        code, errors = process.end()
        assert code == 0
        assert "Traceback" not in errors, errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_childs_end_does_not_close_the_parents_connections() -> None:
    script = """
import os, syncws
class Echo(syncws.Service):
    def on_text(self, caller, text): caller.send_text(text)
listener = syncws.Listener(0)
listener.attach("/", Echo())
with listener, syncws.Client(f"ws://127.0.0.1:{listener.port}/") as client:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        client.send_text("x")
        print("parent", client.receive(timeout=20))
print("left", bool(child))
"""
    with interpreter(script) as process:
        began = time.monotonic()
        assert process.line() == "left False"
        assert time.monotonic() - began < HANG / 2
        assert process.line() == "parent x"
        assert process.line() == "left True"
        code, errors = process.end()
        assert code == 0
        assert "Traceback" not in errors, errors
