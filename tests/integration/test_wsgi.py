"""HTTP requests and WebSockets on one port: real sockets, real applications."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import io
import logging
import os
import queue
import ssl
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import flask
import pytest
import requests

import syncws
from tests.django_settings import django_settings
from tests.support import (
    HANG,
    QUIET,
    TEXT,
    Gate,
    RawPeer,
    Task,
    interpreter,
    listening,
    server_tls,
)

CONFIG = syncws.ServiceConfig(ping_interval=None, compression=False)
PLAIN = [("Content-Type", "text/plain")]


class Echo(syncws.Service):
    config = CONFIG

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)


def echoed(peer: RawPeer, text: str = "hello") -> None:
    peer.text(text)
    peer.expect(TEXT, text)


def hello(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    return [f"hello {environ['PATH_INFO']}".encode()]


def digest(environ: Any, start_response: Any) -> Any:
    """Answer with the body's size and digest."""
    made, size = hashlib.sha256(), 0
    while data := environ["wsgi.input"].read(10_000):
        made.update(data)
        size += len(data)
    start_response("200 OK", PLAIN)
    return [f"{size} {made.hexdigest()}".encode()]


def digest_of(data: bytes) -> bytes:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode()


def request(path: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode()


def read_response(peer: RawPeer) -> tuple[int, bytes]:
    """Read a response with a Content-Length."""
    head = peer.read_head()
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    return int(head.split(b" ")[1]), peer._take(int(fields[b"content-length"]))


def read_to_end(peer: RawPeer) -> bytes:
    data = peer._buffer
    peer._buffer = b""
    while part := peer.sock.recv(1_000_000):
        data += part
    return data


def ask(peer: RawPeer, path: str = "/", *headers: str) -> tuple[int, bytes]:
    peer.send_bytes(request(path, *headers))
    return read_response(peer)


def url_of(listener: syncws.Listener, path: str = "/") -> str:
    return f"http://127.0.0.1:{listener.port}{path}"


@pytest.fixture
def engine() -> syncws.Engine:
    """Few workers: two of them are the applications'."""
    return syncws.Engine(workers=2, max_workers=6, name="few")


# -- One connection ----------------------------------------------------------


def test_one_connection_has_many_requests_and_then_a_web_socket() -> None:
    with listening(Echo(), app=hello) as listener, RawPeer.dial(listener) as peer:
        for number in range(20):
            assert ask(peer, f"/{number}") == (200, f"hello /{number}".encode())
        peer.send_bytes(RawPeer.request())
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        echoed(peer)


def test_requests_that_come_at_once_are_answered_in_order() -> None:
    with listening(Echo(), app=digest) as listener, RawPeer.dial(listener) as peer:
        bodies = [os.urandom(number * 997) for number in range(20)]
        peer.send_bytes(
            b"".join(
                request("/", f"Content-Length: {len(body)}", method="POST") + body
                for body in bodies
            )
            + RawPeer.request()
        )
        for body in bodies:
            assert read_response(peer) == (200, digest_of(body))
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        echoed(peer)


def test_a_handshake_needs_a_service() -> None:
    with listening(Echo(), "/chat", app=hello) as listener:
        with RawPeer.dial(listener) as peer:
            peer.send_bytes(RawPeer.request("/other"))
            assert peer.read_head().startswith(b"HTTP/1.1 404 ")
        with RawPeer.dial(listener) as peer:  # a request for a page, there or not
            assert ask(peer, "/chat") == (200, b"hello /chat")
        with RawPeer.connect(listener, "/chat") as peer:
            echoed(peer)


def test_without_an_application_there_is_no_http() -> None:
    with listening(Echo()) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request())
        assert peer.read_head().startswith(b"HTTP/1.1 426 ")


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (request("/", "Connection: close"), {}),
        (request(version="1.0"), {}),
        (request("/", "Connection: keep-alive", version="1.0"), {}),
        (request(), {"keep_alive_timeout": 0}),
    ],
)
def test_connections_that_have_one_request(data: bytes, options: dict[str, Any]) -> None:
    with listening(app=hello, **options) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(data)
        response = read_to_end(peer)
        assert b"\r\nConnection: close\r\n" in response
        assert response.endswith(b"\r\n\r\nhello /")


def test_an_idle_connection_is_closed_in_the_end() -> None:
    with listening(app=hello, keep_alive_timeout=0.05) as listener, RawPeer.dial(listener) as peer:
        assert ask(peer)[0] == 200
        peer.expect_end()


def test_a_client_that_has_ended_its_side_gets_its_answer() -> None:
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        gate.block()
        return hello(environ, start_response)

    with gate, listening(app=app) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request())
        gate.reached()
        peer.end_writing()
        gate.open()
        assert read_to_end(peer).endswith(b"hello /")


# -- Bodies ------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body(chunked: bool, tls: bool) -> None:
    data = os.urandom(5_000_000)
    options: dict[str, Any] = {"ssl": server_tls()} if tls else {}
    with (
        listening(app=digest, **options) as listener,
        RawPeer.dial(listener, tls=tls) as peer,
    ):
        for _ in range(2):
            if chunked:
                peer.send_bytes(request("/", "Transfer-Encoding: chunked", method="POST"))
                for pos in range(0, len(data), 99_999):
                    part = data[pos : pos + 99_999]
                    peer.send_bytes(b"%x\r\n" % len(part) + part + b"\r\n")
                peer.send_bytes(b"0\r\n\r\n")
            else:
                head = request("/", f"Content-Length: {len(data)}", method="POST")
                peer.send_bytes(head + data)
            assert read_response(peer) == (200, digest_of(data))


def test_a_body_byte_by_byte() -> None:
    wire = request("/", "Transfer-Encoding: chunked", method="POST")
    wire += b"5;x=y\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: x\r\n\r\n"
    with listening(app=digest) as listener, RawPeer.dial(listener) as peer:
        for byte in wire:
            peer.send_bytes(bytes([byte]))
        assert read_response(peer) == (200, digest_of(b"hello world"))
        peer.send_bytes(wire)
        assert read_response(peer) == (200, digest_of(b"hello world"))


def test_many_small_chunks() -> None:
    wire = request("/", "Transfer-Encoding: chunked", method="POST")
    chunk = b"10\r\n" + b"x" * 16 + b"\r\n"
    with listening(app=digest) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(wire + chunk * 10_000 + b"0\r\n\r\n")
        assert read_response(peer) == (200, digest_of(b"x" * 160_000))


def test_many_chunks_of_a_byte_are_refused() -> None:
    wire = request("/", "Transfer-Encoding: chunked", method="POST")
    with listening(app=digest) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(wire + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
        status, text = read_response(peer)
        assert status == 400
        assert text.strip() == b"The request's body comes in too many small chunks."


def test_a_body_that_is_echoed_while_it_comes() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        while data := environ["wsgi.input"].read1(100_000):
            yield data

    data = os.urandom(3_000_000)
    with listening(app=app) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request("/", f"Content-Length: {len(data)}", "X: y", method="POST"))
        sending = Task(peer.send_bytes, data)
        response = http.client.HTTPResponse(peer.sock)
        response.begin()
        with response:
            assert response.read() == data
        sending.result()


def test_a_client_that_waits_for_a_word() -> None:
    with listening(app=digest) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request("/", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        assert peer.read_head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send_bytes(b"hello")
        assert read_response(peer) == (200, digest_of(b"hello"))
        assert ask(peer)[0] == 200


def test_clients_that_wait_for_a_word_and_then_say_nothing_hold_nobody(
    engine: syncws.Engine,
) -> None:
    wire = request("/", "Content-Length: 5", "Expect: 100-continue", method="POST")
    with listening(app=digest, engine=engine) as listener, contextlib.ExitStack() as stack:
        for _ in range(10):
            peer = stack.enter_context(RawPeer.dial(listener))
            peer.send_bytes(wire)
            assert peer.read_head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        with RawPeer.dial(listener) as peer:
            assert ask(peer)[0] == 200


def test_two_listeners_share_the_workers_that_serve_requests(engine: syncws.Engine) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        gate.block()
        return hello(environ, start_response)

    with (
        Gate() as gate,
        listening(Echo(), app=app, engine=engine) as one,
        listening(Echo(), app=app, engine=engine) as two,
        contextlib.ExitStack() as stack,
        RawPeer.connect(one) as socket_peer,
    ):
        peers = [stack.enter_context(RawPeer.dial(each)) for each in (one, two) * 4]
        for peer in peers:
            peer.send_bytes(request())
        for _ in range(2):
            gate.reached()
        echoed(socket_peer, "still here")
        gate.open()
        for peer in peers:
            assert read_response(peer)[0] == 200


def test_the_head_of_a_second_request_has_a_time_of_its_own() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        # The first one may take its time: only the next has so little.
        reception = listener._reception
        reception._options = dataclasses.replace(reception._options, handshake_timeout=0.2)
        return hello(environ, start_response)

    with listening(app=app, keep_alive_timeout=None) as listener, RawPeer.dial(listener) as peer:
        assert ask(peer)[0] == 200
        assert peer.drip(b"GET / HTTP/1.1\r\nX: " + b"y" * 1000, QUIET)


def test_pipelined_requests_are_answered_though_the_client_has_said_all() -> None:
    with Gate() as gate:

        def app(environ: Any, start_response: Any) -> Any:
            gate.block()
            return hello(environ, start_response)

        with listening(app=app) as listener, RawPeer.dial(listener) as peer:
            peer.send_bytes(request("/1") + request("/2") + request("/3"))
            peer.end_writing()
            gate.reached()
            gate.open()
            answers = [read_response(peer) for _ in range(3)]
            assert answers == [(200, f"hello /{number}".encode()) for number in (1, 2, 3)]


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit(chunked: bool, caplog: pytest.LogCaptureFixture) -> None:
    called = queue.SimpleQueue[None]()

    def app(environ: Any, start_response: Any) -> Any:
        called.put(None)
        return digest(environ, start_response)

    with listening(app=app, max_body_size=100_000) as listener, RawPeer.dial(listener) as peer:
        if chunked:
            peer.send_bytes(request("/", "Transfer-Encoding: chunked", method="POST"))
            peer.send_bytes(b"186a1\r\n" + b"x" * 100_001)
        else:
            peer.send_bytes(request("/", "Content-Length: 100001", method="POST"))
        assert read_response(peer)[0] == 413
    assert chunked or called.empty()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_body_at_the_limit() -> None:
    data = b"x" * 100_000
    with listening(app=digest, max_body_size=len(data)) as listener:
        for body in (data, iter([data[:1], data[1:]])):
            response = requests.post(url_of(listener), data=body, timeout=HANG)
            assert response.content == digest_of(data)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("Transfer-Encoding: chunked", "Content-Length: 5"), 400),
        (("Content-Length: 5", "Content-Length: 6"), 400),
        (("Transfer-Encoding: gzip",), 501),
    ],
)
def test_a_request_that_could_be_read_in_two_ways(headers: tuple[str, ...], status: int) -> None:
    with listening(app=hello) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request("/", *headers, method="POST") + b"hello" + request("/second"))
        assert read_response(peer)[0] == status
        peer.expect_end()


# -- Responses ---------------------------------------------------------------


def stream_of(parts: Any, headers: Any = PLAIN) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", headers)
        return parts()

    return app


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_response_without_a_length(version: str) -> None:
    def parts() -> Iterator[bytes]:
        yield from (b"hello", b"", b" world")

    with listening(app=stream_of(parts)) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request("/", "Connection: close", version=version))
        head, _, body = read_to_end(peer).partition(b"\r\n\r\n")
        if version == "1.1":
            assert b"\r\nTransfer-Encoding: chunked" in head
            assert body == b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        else:
            assert body == b"hello world"


def test_a_part_of_a_response_goes_out_while_the_next_is_made() -> None:
    gate = Gate()

    def parts() -> Iterator[bytes]:
        yield b"first"
        gate.block()
        yield b"second"

    with gate, listening(app=stream_of(parts)) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request())
        peer.read_head()
        assert peer._take(10) == b"5\r\nfirst\r\n"
        gate.reached()
        gate.open()
        assert peer._take(16) == b"6\r\nsecond\r\n0\r\n\r\n"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_head_request_gets_the_head(method: str) -> None:
    with listening(app=hello) as listener:
        connection = http.client.HTTPConnection("127.0.0.1", listener.port or 0, timeout=HANG)
        with contextlib.closing(connection):
            for _ in range(2):
                connection.request(method, "/path")
                response = connection.getresponse()
                assert response.headers["Content-Length"] == "11"
                assert response.read() == (b"hello /path" if method == "GET" else b"")


@pytest.mark.parametrize("tls", [False, True])
def test_a_large_file_to_a_slow_reader(tmp_path: Path, tls: bool) -> None:
    path = tmp_path / "file"
    data = os.urandom(8_000_000)
    path.write_bytes(data)
    files = []

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/hello":
            return hello(environ, start_response)
        start_response("200 OK", [("Content-Length", str(len(data)))])
        files.append(path.open("rb"))
        return environ["wsgi.file_wrapper"](files[-1], 8192)

    options: dict[str, Any] = {"ssl": server_tls()} if tls else {}
    with (
        listening(Echo(), app=app, **options) as listener,
        RawPeer.dial(listener, receive_buffer=4096, tls=tls) as peer,
    ):
        peer.send_bytes(request())
        with RawPeer.dial(listener, tls=tls) as other:
            assert ask(other, "/hello")[0] == 200
        peer.read_head()
        got = b"".join(
            peer._take(min(50_000, len(data) - pos)) for pos in range(0, 8_000_000, 50_000)
        )
        assert got == data
        assert ask(peer, "/hello") == (200, b"hello /hello")
        assert files[0].closed


def test_one_large_part() -> None:
    data = os.urandom(10_000_000)
    with listening(app=stream_of(lambda: [data])) as listener:
        assert requests.get(url_of(listener), timeout=HANG).content == data


# -- Applications and clients that fail --------------------------------------


def test_an_application_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/broken":
            raise KeyError("broken")
        return hello(environ, start_response)

    with listening(app=app) as listener, RawPeer.dial(listener) as peer:
        assert ask(peer, "/broken")[0] == 500
        assert ask(peer, "/whole")[0] == 200
    (record,) = caplog.records
    assert record.message == "GET /broken: the application raised"


def test_an_application_that_raises_behind_its_first_byte(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def parts() -> Iterator[bytes]:
        yield b"begun"
        raise KeyError("broken")

    with listening(app=stream_of(parts)) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request())
        assert read_to_end(peer).endswith(b"\r\n\r\n5\r\nbegun\r\n")
    assert len(caplog.records) == 1


def test_a_client_that_vanishes_amid_a_download(caplog: pytest.LogCaptureFixture) -> None:
    closed = threading.Event()

    def parts() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.set()

    with listening(app=stream_of(parts)) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request())
        peer.read_head()
        peer.reset()
        assert closed.wait(HANG)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("reset", [True, False])
def test_a_client_that_vanishes_amid_an_upload(
    reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        try:
            environ["wsgi.input"].read(50_000)
            gate.block()
            return digest(environ, start_response)
        except OSError as exc:
            errors.put(exc)
            raise

    with gate, listening(app=app) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request("/", "Content-Length: 1000000", method="POST") + b"x" * 100_000)
        gate.reached()
        gate.open()
        if reset:
            peer.reset()
        else:
            peer.abort()
        assert isinstance(errors.get(timeout=HANG), ConnectionError)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_client_that_is_too_slow() -> None:
    with (
        listening(app=digest, http_timeout=0.05) as listener,
        RawPeer.dial(listener) as peer,
    ):
        peer.send_bytes(request("/", "Content-Length: 5", method="POST") + b"hell")
        assert read_response(peer)[0] == 408
        peer.expect_end()


def test_a_client_that_takes_nothing() -> None:
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def parts() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            ended.put(None)

    with (
        listening(app=stream_of(parts), http_timeout=0.05) as listener,
        RawPeer.dial(listener, receive_buffer=4096) as peer,
    ):
        peer.send_bytes(request())
        ended.get(timeout=HANG)
        with contextlib.suppress(ConnectionError):
            read_to_end(peer)


# -- Beside WebSockets -------------------------------------------------------


def test_applications_that_block_leave_workers_for_callbacks(engine: syncws.Engine) -> None:
    gate = Gate()
    running: queue.SimpleQueue[None] = queue.SimpleQueue()

    def app(environ: Any, start_response: Any) -> Any:
        running.put(None)
        gate.block()
        return hello(environ, start_response)

    with (
        gate,
        listening(Echo(), app=app, engine=engine) as listener,
        contextlib.ExitStack() as stack,
        RawPeer.connect(listener) as socket_peer,
    ):
        peers = [stack.enter_context(RawPeer.dial(listener)) for _ in range(10)]
        for peer in peers:
            peer.send_bytes(request())
        for _ in range(2):  # three eighths of max_workers
            gate.reached()
        for number in range(20):
            echoed(socket_peer, str(number))
        assert running.get(timeout=HANG) is running.get(timeout=HANG)
        assert running.empty()
        gate.open()
        for peer in peers:
            assert read_response(peer)[0] == 200


def test_slow_clients_hold_nobody(engine: syncws.Engine) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read()
        start_response("200 OK", PLAIN)
        return [b"x" * 200_000, body]

    slow = request("/", "Content-Length: 1000", method="POST") + b"x" * 500
    with (
        listening(Echo(), app=app, engine=engine) as listener,
        contextlib.ExitStack() as stack,
        RawPeer.connect(listener) as socket_peer,
    ):
        for _ in range(40):  # half a head, half a body, and nothing read
            for data in (slow[:20], slow, request()):
                peer = stack.enter_context(RawPeer.dial(listener, receive_buffer=4096))
                peer.send_bytes(data)
        for number in range(20):
            echoed(socket_peer, str(number))
        response = requests.get(url_of(listener), timeout=HANG)
        assert len(response.content) == 200_000


def test_an_application_may_use_a_caller() -> None:
    callers: queue.SimpleQueue[syncws.Caller] = queue.SimpleQueue()

    class Opened(syncws.Service):
        config = CONFIG

        def on_open(self, caller: syncws.Caller) -> None:
            callers.put(caller)

    def app(environ: Any, start_response: Any) -> Any:
        callers.get(timeout=HANG).send_text("from the application")
        return hello(environ, start_response)

    with listening(Opened(), app=app) as listener, RawPeer.connect(listener) as peer:
        assert requests.get(url_of(listener), timeout=HANG).status_code == 200
        peer.expect(TEXT, "from the application")


# -- The end -----------------------------------------------------------------


def test_a_stop_lets_requests_finish_and_closes_idle_connections() -> None:
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/slow":
            gate.block()
        return hello(environ, start_response)

    with gate, listening(app=app) as listener:
        with RawPeer.dial(listener) as idle, RawPeer.dial(listener) as peer:
            assert ask(idle)[0] == 200
            peer.send_bytes(request("/slow"))
            gate.reached()
            stopping = Task(listener.stop, HANG)
            idle.expect_end()
            assert stopping.is_alive()
            gate.open()
            assert read_response(peer) == (200, b"hello /slow")
            assert b"\r\nConnection: close\r\n" in peer.head
            peer.expect_end()
            peer.abort()
            stopping.result()
        assert listener.addresses == []


def test_a_stop_does_not_wait_longer_than_it_was_told_to() -> None:
    gate = Gate()
    done = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        gate.block()
        try:
            start_response("200 OK", PLAIN)(b"x")
        except ConnectionError:
            done.set()
        return []

    with gate, listening(app=app) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(request())
        gate.reached()
        listener.stop(0)
        peer.expect_end()
        gate.open()
        assert done.wait(HANG)


def test_a_listener_that_was_stopped_amid_requests_starts_again(engine: syncws.Engine) -> None:
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/slow":
            gate.block()
        return hello(environ, start_response)

    listener = syncws.Listener(0, app=app, engine=engine)
    with gate, contextlib.ExitStack() as stack:
        with listener:
            for _ in range(6):  # two that run, and four that wait for a worker
                peer = stack.enter_context(RawPeer.dial(listener))
                peer.send_bytes(request("/slow"))
            gate.reached()
            gate.reached()
            listener.stop(0)
        gate.open()
        with listener:
            assert requests.get(url_of(listener), timeout=HANG).status_code == 200


def test_the_application_may_stop_its_listener() -> None:
    stopped: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()

    def app(environ: Any, start_response: Any) -> Any:
        listener.stop(HANG)
        stopped.put(listener.addresses)
        return hello(environ, start_response)

    with (
        listening(Echo(), app=app) as listener,
        RawPeer.connect(listener) as peer,
        RawPeer.dial(listener) as asking,
    ):
        asking.send_bytes(request())
        peer.expect_close(1001)
        peer.close_frame(1001)
        peer.abort()
        assert stopped.get(timeout=HANG) == []
        # Its own answer may be lost with the I/O thread, or may be out before that ends.
        with contextlib.suppress(ConnectionError):
            assert read_to_end(asking)[-7:] in (b"", b"hello /")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_amid_a_request() -> None:
    script = """
import os, warnings, syncws, http.client

warnings.simplefilter("ignore")  # of Python 3.12 about forks of threads

def app(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    child = os.fork()
    if not child:
        try:
            write(b"from the child")
        except ConnectionError:
            os._exit(7)
        os._exit(1)
    return [b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]

with syncws.Listener(0, app=app) as listener:
    connection = http.client.HTTPConnection("127.0.0.1", listener.port)
    for _ in range(2):
        connection.request("GET", "/")
        print(connection.getresponse().read().decode())
    connection.close()
"""
    with interpreter(script) as process:
        assert (process.line(), process.line()) == ("7", "7")
        assert process.end() == (0, "")


def test_a_unix_domain_socket() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        return [environ["SERVER_NAME"].encode(), environ["REMOTE_ADDR"].encode()]

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        with (
            listening(app=validator(app), unix_path=path) as listener,
            RawPeer.dial(listener) as peer,
        ):
            peer.send_bytes(request("/", "Connection: close"))
            assert b"\r\nlocalhost\r\n" in read_to_end(peer)


def test_tls(client_tls: ssl.SSLContext) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        return [environ["wsgi.url_scheme"].encode()]

    with listening(Echo(), app=app, ssl=server_tls()) as listener:
        connection = http.client.HTTPSConnection(
            "localhost", listener.port, timeout=HANG, context=client_tls
        )
        with contextlib.closing(connection):
            for _ in range(3):
                connection.request("GET", "/")
                assert connection.getresponse().read() == b"https"
        with RawPeer.connect(listener, tls=True) as peer:
            echoed(peer)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"app": 3}, TypeError, "app must be a WSGI application or None, not 3"),
        ({"app": "module:app"}, TypeError, "app must be a WSGI application"),
        ({"app": hello, "max_body_size": "1"}, TypeError, "max_body_size"),
        ({"max_body_size": -1}, ValueError, "max_body_size"),
        ({"http_timeout": "1"}, TypeError, "http_timeout"),
        ({"http_timeout": -1}, ValueError, "http_timeout"),
        ({"keep_alive_timeout": -1}, ValueError, "keep_alive_timeout"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        syncws.Listener(0, **options)


# -- Real applications -------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_the_validator_has_nothing_to_say(method: str, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        data = environ["wsgi.input"].read(1000)
        start_response("200 OK", PLAIN)
        return iter([b"got ", data])

    with listening(app=validator(app)) as listener:
        response = requests.request(method, url_of(listener, "/a/b?c"), data="hello", timeout=HANG)
        assert response.status_code == 200
        if method != "HEAD":
            assert response.content == b"got hello"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
def flask_app() -> flask.Flask:
    app = flask.Flask("tests")
    app.secret_key = "secret"

    @app.get("/health")
    def health() -> Any:
        return {"status": "ok"}

    @app.post("/login")
    def login() -> Any:
        flask.session["name"] = flask.request.form["name"]
        return flask.redirect("/me")

    @app.get("/me")
    def me() -> Any:
        return f"hello {flask.session['name']} at {flask.request.url}"

    @app.post("/upload")
    def upload() -> Any:
        file = flask.request.files["file"]
        data = file.read()
        return flask.send_file(io.BytesIO(data), download_name=file.filename or "x")

    @app.post("/json")
    def json() -> Any:
        return flask.request.get_json()

    @app.get("/stream")
    def stream() -> Any:
        return (f"{number}\n" for number in range(1000))

    @app.post("/size")
    def size() -> Any:
        return str(len(flask.request.get_data()))

    @app.get("/broken")
    def broken() -> Any:
        raise KeyError("broken")

    return app


def test_flask(flask_app: flask.Flask, caplog: pytest.LogCaptureFixture) -> None:
    data = os.urandom(1_000_000)
    with listening(Echo(), "/ws", app=flask_app) as listener, requests.Session() as session:

        def ask(method: str, path: str, **options: Any) -> requests.Response:
            return session.request(method, url_of(listener, path), timeout=HANG, **options)

        assert ask("GET", "/health").json() == {"status": "ok"}
        assert ask("POST", "/login", data={"name": "Zo\u00eb"}).text == (
            f"hello Zo\u00eb at {url_of(listener, '/me')}"
        )
        assert ask("POST", "/upload", files={"file": ("name", data)}).content == data
        assert ask("POST", "/json", json={"a": [1, 2]}).json() == {"a": [1, 2]}
        assert ask("GET", "/stream").text.splitlines() == [str(n) for n in range(1000)]
        assert ask("POST", "/size", data=iter([data, data])).text == "2000000"
        assert ask("GET", "/missing").status_code == 404
        assert ask("HEAD", "/stream").content == b""
        assert ask("GET", "/broken").status_code == 500
        with RawPeer.connect(listener, "/ws") as peer:
            echoed(peer)
    assert [record.name for record in caplog.records] == ["tests"]  # Flask's own


@pytest.fixture(scope="module")
def django_app() -> Iterator[Callable[..., Any]]:
    """An application of Django's."""
    from django import http as django_http
    from django import urls
    from django.core.handlers.wsgi import WSGIHandler

    routes = types.ModuleType("routes")

    def form(request: Any) -> Any:
        return django_http.JsonResponse({"name": request.POST["name"], "url": request.path})

    def upload(request: Any) -> Any:
        return django_http.HttpResponse(request.FILES["file"].read())

    def size(request: Any) -> Any:
        return django_http.HttpResponse(str(len(request.body)))

    def file(request: Any) -> Any:
        return django_http.FileResponse(io.BytesIO(b"x" * 300_000))

    def stream(request: Any) -> Any:
        return django_http.StreamingHttpResponse(str(number) for number in range(1000))

    def broken(request: Any) -> Any:
        raise KeyError("broken")

    routes.urlpatterns = [  # type: ignore[attr-defined]
        urls.path(f"{view.__name__}/", view) for view in (form, upload, size, file, stream, broken)
    ]
    middleware = ["django.middleware.common.CommonMiddleware"]
    with django_settings(ROOT_URLCONF=routes, MIDDLEWARE=middleware):
        yield WSGIHandler()


def test_django(django_app: Any, caplog: pytest.LogCaptureFixture) -> None:
    data = os.urandom(1_000_000)
    with listening(Echo(), "/ws", app=django_app) as listener, requests.Session() as session:

        def ask(method: str, path: str, **options: Any) -> requests.Response:
            return session.request(method, url_of(listener, path), timeout=HANG, **options)

        answer = ask("POST", "/form/", data={"name": "Zo\u00eb"})
        assert answer.json() == {"name": "Zo\u00eb", "url": "/form/"}
        assert ask("POST", "/upload/", files={"file": ("name", data)}).content == data
        assert ask("POST", "/size/", data=b"x" * 1000).text == "1000"
        assert ask("POST", "/size/", data=iter([b"x" * 1000])).text == "1000"  # chunked
        assert ask("GET", "/file/").content == b"x" * 300_000
        assert ask("GET", "/stream/").text == "".join(map(str, range(1000)))
        assert ask("HEAD", "/file/").headers["Content-Length"] == "300000"
        assert ask("GET", "/form").url.endswith("/form/")  # a redirect
        assert ask("GET", "/missing/").status_code == 404
        assert ask("GET", "/broken/").status_code == 500
        with RawPeer.connect(listener, "/ws") as peer:
            echoed(peer)
    assert {record.name for record in caplog.records} == {"django.request"}
