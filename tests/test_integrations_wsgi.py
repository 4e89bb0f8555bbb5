"""Upgrades out of a WSGI application, with a host that is the test itself."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from syncws.integrations.wsgi import Adopter, UpgradeResponse, default_adopter, upgrade

from .support import HANG, TEXT, Gate, RawPeer, Recorder, ServerRecorder, Task, frame, wait_until

PLAIN = syncws.ServiceConfig(ping_interval=None, compression=False)


class Host:
    """A server with one connection: it has read the request, and calls the application.

    Attributes:
        peer: The client.
        environ: The request's environment.
        status: What the application has started the response with.
        headers: The same.
        written: Whether it could write its response.
    """

    def __init__(self, *headers: str, rest: bytes = b"") -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.peer = RawPeer(socket.create_connection(listener.getsockname()), client=True)
            self._sock, address = listener.accept()
        self._sock.settimeout(HANG)
        self.peer.send_bytes(RawPeer.request("/chat?a=b", *headers) + rest)
        self._reader = self._sock.makefile("rb")
        self.environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/chat",
            "QUERY_STRING": "a=b",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": address[0],
            "REMOTE_PORT": str(address[1]),
            "wsgi.url_scheme": "http",
            "wsgi.input": self._reader,
            "wsgi.multithread": True,
        }
        self._reader.readline()
        while (line := self._reader.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            self.environ[f"HTTP_{name.upper().replace('-', '_')}"] = value.strip()
        self.status = ""
        self.written = False
        self.headers: list[tuple[str, str]] = []

    def call(self, application: Callable[..., Any]) -> bytes:
        """Answer the client with what the application returns, as servers do."""

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            self.status, self.headers = status, headers

        body = b"".join(application(self.environ, start_response))
        self.send(body)
        return body

    def send(self, body: bytes = b"") -> None:
        """Write a response, and end the connection."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        self.written = False
        with contextlib.suppress(OSError):  # the client may have gone
            self._sock.sendall(f"HTTP/1.1 {self.status}\r\n{fields}\r\n".encode() + body)
            self._sock.shutdown(socket.SHUT_WR)
            self.written = True
        self._reader.close()
        self._sock.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *exc: object) -> None:
        self.peer.abort()
        self._reader.close()
        self._sock.close()


@pytest.fixture
def adopter() -> Iterator[Adopter]:
    """An adopter with threads of its own, which is stopped behind the test."""
    adopter = Adopter(syncws.Engine(name="adopter"))
    yield adopter
    adopter.stop(HANG)


def service() -> ServerRecorder:
    return ServerRecorder(PLAIN)


def adopted(adopter: Adopter, host: Host, *args: Any, **options: Any) -> UpgradeResponse:
    """Have a request upgraded; assert that it was."""
    response = adopter.upgrade(host.environ, *args, **options)
    host.call(response)
    head = host.peer.read_head()
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert host.status == "101 Switching Protocols"
    assert host.written  # to nobody, but without an error
    return response


# -- Letting in ---------------------------------------------------------------


def test_the_connection_outlives_the_host_s(adopter: Adopter) -> None:
    recorder = service()
    with Host() as host:
        response = adopted(adopter, host, recorder)
        assert repr(response) == "<syncws.UpgradeResponse 101>"
        caller = recorder.expect("on_open")
        host.peer.text("hello")
        recorder.expect("on_text", "hello")
        caller.send_text("and back")
        host.peer.expect(TEXT, "and back")
        assert caller.request is response.request
        assert caller.request.query["a"] == "b"
        assert caller.remote_address == host.peer.sock.getsockname()
        assert caller.local_address == host.peer.sock.getpeername()
        assert adopter.connections == [caller]
        assert (len(adopter), repr(adopter)) == (1, "<syncws.Adopter of 1 WebSockets>")
        host.peer.close_frame(1000)
        host.peer.expect_close(1000)
        host.peer.expect_end()
    recorder.expect("on_close", 1000, "")
    assert (len(adopter), adopter.connections) == (0, [])


def test_a_class_is_a_service_too(adopter: Adopter) -> None:
    class Echo(syncws.Service):
        config = PLAIN

        def on_text(self, caller: syncws.Caller, text: str) -> None:
            caller.send_text(text)

    with Host(rest=frame(TEXT, b"early")) as host:
        adopted(adopter, host, Echo)
        host.peer.expect(TEXT, "early")


def test_headers_of_the_101(adopter: Adopter) -> None:
    with Host("Sec-WebSocket-Protocol: xml, json") as host:
        response = adopter.upgrade(
            host.environ, service(), headers={"X-Own": "1"}, subprotocol="json"
        )
        response.headers += [
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Content-Type", "text/html"),
            ("Content-Length", "0"),
            ("Connection", "close"),
            ("Sec-WebSocket-Accept", "wrong"),
        ]
        host.call(response)
        head = host.peer.read_head().decode()
    fields = [line for line in head.split("\r\n")[1:] if line]
    assert sorted(fields) == [
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: json",
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
        "Upgrade: websocket",
        "X-Own: 1",
    ]
    assert host.headers == [("X-Own", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]


def test_attributes_and_parameters(adopter: Adopter) -> None:
    seen: list[Any] = []

    class Seeing(syncws.Service):
        def on_open(self, caller: syncws.Caller) -> None:
            seen.append((dict(caller.attributes), caller.request.path_params))
            caller.send_text("seen")

    with Host() as host:
        adopted(adopter, host, Seeing, attributes={"user": 7}, params={"room": "blue"})
        host.peer.expect(TEXT, "seen")
    assert seen == [({"user": 7}, {"room": "blue"})]


def test_the_host_s_security_is_the_connection_s(adopter: Adopter) -> None:
    recorder = service()
    with Host() as host:
        host.environ["wsgi.url_scheme"] = "https"
        adopted(adopter, host, recorder)
        caller = recorder.expect("on_open")
        assert (caller.is_secure, caller.request.is_secure) == (True, True)
        caller.send_text("x")
        host.peer.expect(TEXT, "x")


def test_the_process_has_one_of_its_own() -> None:
    recorder = service()
    with Host() as host:
        host.call(upgrade(host.environ, recorder))
        host.peer.read_head()
        recorder.expect("on_open")
        assert default_adopter() is default_adopter()
        assert len(default_adopter()) == 1
        stopping = Task(default_adopter().stop, HANG)
        host.peer.expect_close(1001)
        host.peer.close_frame(1001)
        host.peer.abort()
        stopping.result()
    recorder.expect("on_close", 1001, "")


# -- Resources ----------------------------------------------------------------


def test_a_resource_runs_in_the_host_s_thread(adopter: Adopter) -> None:
    threads: list[int] = []

    def resource(http: Any, request: syncws.Request, room: str) -> None:
        threads.append(threading.get_ident())
        http.set_cookie("seen", room)
        caller = http.accept_upgrade(headers={"X-Room": room})
        caller.attributes["room"] = room
        caller.send_text("from the resource")

    recorder = service()
    with Host() as host:
        response = adopter.upgrade(
            host.environ, recorder, resource=resource, params={"room": "blue"}
        )
        response.headers.append(("X-Framework", "1"))
        assert threads == []
        host.call(response)
        head = host.peer.read_head()
        assert b"\r\nX-Room: blue\r\n" in head
        assert b"\r\nSet-Cookie: seen=blue" in head
        assert b"\r\nX-Framework: 1\r\n" in head
        assert threads == [threading.get_ident()]
        assert recorder.expect("on_open").attributes == {"room": "blue"}
        host.peer.expect(TEXT, "from the resource")


def test_a_resource_may_return_a_service(adopter: Adopter) -> None:
    recorder = service()
    with Host() as host:
        adopted(adopter, host, resource=lambda http, request: recorder)
        recorder.expect("on_open")


def test_a_resource_refuses(adopter: Adopter) -> None:
    def resource(http: Any, request: syncws.Request) -> None:
        http.set_cookie("b", "2", path=None)
        http.cancel_upgrade(418, "teapot", headers={"X-Why": "tea", "Content-Type": "a/b"})

    with Host() as host:
        response = adopter.upgrade(host.environ, service(), resource=resource)
        response.headers += [("Content-Type", "text/html"), ("Set-Cookie", "a=1")]
        assert response.status == 101
        assert host.call(response) == b"teapot"
    assert host.status == "418 I'm a Teapot"
    assert sorted(host.headers) == [
        ("Content-Length", "6"),
        ("Content-Type", "a/b"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Why", "tea"),
    ]


def test_a_resource_that_raises(adopter: Adopter, caplog: pytest.LogCaptureFixture) -> None:
    def resource(http: Any, request: syncws.Request) -> None:
        raise ValueError("boom")

    with Host() as host:
        host.call(adopter.upgrade(host.environ, service(), resource=resource))
    assert host.status == "500 Internal Server Error"
    assert "/chat: a resource raised" in caplog.text


def test_a_resource_whose_client_has_left(adopter: Adopter) -> None:
    with Host() as host:
        host.peer.abort()
        called: list[Any] = []
        response = adopter.upgrade(
            host.environ, service(), resource=lambda http, request: called.append(http)
        )
        host.call(response)
        assert response.status == 503
        assert called == []


def test_a_client_that_resets_before_its_answer_is_not_kept(adopter: Adopter) -> None:
    """The 101 cannot be written, so the connection has ended before it has begun."""
    recorder = service()
    with Host() as host:
        response = adopter.upgrade(host.environ, recorder)
        host.peer.reset()
        wait_until(lambda: has_ended(host._sock))
        host.call(response)
        wait_until(lambda: adopter._tally._open == 0)
        assert (len(adopter), adopter.connections) == (0, [])


def test_a_client_that_resets_before_it_is_looked_at(adopter: Adopter) -> None:
    """It is refused as one that leaves later, not told of as an error of the application."""
    with Host() as host:
        host.peer.reset()
        wait_until(lambda: has_ended(host._sock))
        response = adopter.upgrade(host.environ, service())
        host.call(response)
        assert response.status == 503


def test_who_was_interrupted_takes_no_place(
    adopter: Adopter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(host: object) -> None:
        raise KeyboardInterrupt

    with Host() as host:
        response = adopter.upgrade(host.environ, service())
        monkeypatch.setattr("syncws.integrations.hosts.Host.move", interrupted)
        with pytest.raises(KeyboardInterrupt):
            response.settle()
        wait_until(lambda: adopter._tally._open == 0)
        assert adopter._hall._arrivals == set()


def test_an_input_that_was_closed(adopter: Adopter) -> None:
    recorder = service()
    with Host() as host:
        response = adopter.upgrade(host.environ, recorder)
        host._reader.close()
        host.call(response)
        assert host.peer.read_head().startswith(b"HTTP/1.1 101 ")
        recorder.expect("on_open")


def test_an_adopter_without_connections_is_one() -> None:
    assert Adopter()


def has_ended(sock: socket.socket) -> bool:
    """Whether a reset has come."""
    try:
        sock.getpeername()
    except OSError:
        return True
    return False


# -- Refusals -----------------------------------------------------------------


def refused(response: UpgradeResponse, host: Host, status: int) -> bytes:
    host.call(response)
    head = host.peer.read_head()
    assert int(head.split()[1]) == status == response.status
    return response.body


def test_what_is_no_handshake_is_refused_at_once(
    adopter: Adopter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Host() as host:
        del host.environ["HTTP_UPGRADE"], host.environ["HTTP_SEC_WEBSOCKET_KEY"]
        response = adopter.upgrade(host.environ, service())
        assert response.status == 426
        assert b"ws://" in response.body
        assert dict(response.headers)["Content-Type"] == "text/plain; charset=utf-8"
        refused(response, host, 426)
    assert "refused /chat?a=b with 426" in caplog.text


def test_no_host_is_looked_for_before_that(adopter: Adopter) -> None:
    with Host() as host:
        response = adopter.upgrade(
            {**host.environ, "HTTP_UPGRADE": "", "wsgi.input": None}, service()
        )
        assert response.status == 426
        with pytest.raises(RuntimeError, match="does not let an application"):
            adopter.upgrade({**host.environ, "wsgi.input": None}, service())


def test_what_is_no_request(adopter: Adopter, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Host() as host:
        host.environ["RAW_URI"] = "/a b"
        response = adopter.upgrade(host.environ, service())
        assert response.request is None
        refused(response, host, 400)
    assert "refused a request with 400" in caplog.text


def test_an_origin_that_may_not(adopter: Adopter, caplog: pytest.LogCaptureFixture) -> None:
    with Host("Origin: http://elsewhere.example") as host:
        assert b"allowed_origins" in refused(adopter.upgrade(host.environ, service()), host, 403)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_no_room(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    adopter = Adopter(max_connections=1)
    recorder = service()
    with Host() as host, Host() as other:
        adopted(adopter, host, recorder)
        recorder.expect("on_open")
        response = adopter.upgrade(other.environ, recorder)
        assert b"no room" in refused(response, other, 503)
        assert ("Retry-After", "5") in response.headers
        assert "refused /chat?a=b with 503" in caplog.text
        host.peer.close_frame(1000)
        host.peer.expect_close(1000)
        host.peer.abort()
        recorder.expect("on_close")
        with Host() as third:
            adopted(adopter, third, recorder)
    adopter.stop(HANG)


def test_no_room_for_an_address() -> None:
    """It is the address of REMOTE_ADDR: those of one proxy are not all alike."""
    adopter = Adopter(max_connections_per_address=1)
    with Host() as host, Host() as other, Host() as third:
        for one, address in ((host, "192.0.2.1"), (other, "192.0.2.1"), (third, "192.0.2.2")):
            one.environ["REMOTE_ADDR"] = address
        adopted(adopter, host, service())
        assert b"192.0.2.1" in refused(adopter.upgrade(other.environ, service()), other, 503)
        adopted(adopter, third, service())
    adopter.stop(HANG)


def test_a_refused_client_has_no_place() -> None:
    adopter = Adopter(max_connections=1)
    resources = [lambda http, request: http.cancel_upgrade(400), lambda http, request: None]
    for resource, status in zip(resources, (b"400", b"101"), strict=True):
        with Host() as host:
            host.call(adopter.upgrade(host.environ, service(), resource=resource))
            assert host.peer.read_head().split()[1] == status
    adopter.stop(HANG)


def test_no_descriptors(
    adopter: Adopter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(descriptor: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    def accepts(http: Any, request: syncws.Request) -> None:
        http.accept_upgrade()

    monkeypatch.setattr(os, "dup", fails)
    for resource in (None, accepts):
        with Host() as host:
            refused(adopter.upgrade(host.environ, service(), resource=resource), host, 503)
    with Host() as host:  # which was told 101 already
        response = adopter.upgrade(host.environ, service())
        host.status = "101 Switching Protocols"
        assert response.settle(late=True) == 503
        host.send()
        assert host.peer.read_head().startswith(b"HTTP/1.1 503 ")
    assert caplog.text.count("cannot take a connection over: [Errno 24]") == 3


def test_a_refusal_that_comes_too_late_for_the_host(adopter: Adopter) -> None:
    def resource(http: Any, request: syncws.Request) -> None:
        http.cancel_upgrade(409, "no")

    with Host() as host:
        response = adopter.upgrade(host.environ, service(), resource=resource)
        host.status = "101 Switching Protocols"
        assert response.settle(late=True) == 409
        host.send()
        assert host.peer.read_head().startswith(b"HTTP/1.1 409 ")
        assert b"\r\nX-" not in host.peer.head


def test_it_is_settled_once(adopter: Adopter) -> None:
    with Host() as host:
        response = adopter.upgrade(host.environ, service())
        assert response.settle() == 101
        with pytest.raises(RuntimeError, match="has its answer"):
            response.settle()


@pytest.mark.parametrize("trusted", [0, 1])
def test_middleware_on_the_way(trusted: int, adopter: Adopter) -> None:
    """What it makes of the request is what counts, for the origin and the address."""
    fix: Any = pytest.importorskip("werkzeug.middleware.proxy_fix")
    recorder = service()

    def application(environ: Any, start_response: Any) -> Any:
        return adopter.upgrade(environ, recorder)(environ, start_response)

    def wrapping(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Late", "1")])

        return fixed(dict(environ), start)

    fixed = fix.ProxyFix(application, x_for=trusted, x_host=trusted, x_proto=trusted)
    forwarded = ("203.0.113.9", "shop.example", "https")
    names = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
    headers = [f"{name}: {value}" for name, value in zip(names, forwarded, strict=True)]
    with Host("Origin: https://shop.example", *headers) as host:
        host.call(wrapping)
        if trusted:
            assert host.peer.read_head().startswith(b"HTTP/1.1 101 ")
            caller = recorder.expect("on_open")
            assert caller.remote_address == ("203.0.113.9", 0)
            assert caller.is_secure
        else:
            assert host.peer.read_head().startswith(b"HTTP/1.1 403 ")
        assert ("X-Late", "1") in host.headers


# -- Wrong arguments ----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, TypeError, "needs a service"),
        ({"service": object()}, TypeError, "a service is"),
        ({"service": Recorder(), "headers": {"Upgrade": "x"}}, ValueError, "set by the handshake"),
        ({"service": Recorder(), "headers": {"X": "a\nb"}}, ValueError, "line break"),
        ({"service": Recorder(), "subprotocol": "json"}, ValueError, "does not offer"),
        ({"service": Recorder(), "subprotocol": 1}, TypeError, "subprotocol must be"),
    ],
)
def test_wrong_arguments(
    options: dict[str, Any], error: type[Exception], text: str, adopter: Adopter
) -> None:
    with Host() as host, pytest.raises(error, match=text):
        adopter.upgrade(host.environ, **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"engine": 1}, TypeError),
        ({"max_connections": 0}, ValueError),
        ({"max_connections_per_address": "1"}, TypeError),
        ({"max_buffered_bytes": -1}, ValueError),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Adopter(**options)


def test_a_framework_s_header_that_cannot_be_sent(adopter: Adopter) -> None:
    """Nothing has happened by then: the host may still answer 500."""
    with Host() as host:
        response = adopter.upgrade(host.environ, service())
        response.headers.append(("X-A", "\u20ac"))
        with pytest.raises(ValueError, match="latin-1"):
            host.call(response)
        host.status = "500 Oh"
        host.send()
        assert host.peer.read_head().startswith(b"HTTP/1.1 500 ")


# -- Life ---------------------------------------------------------------------


def test_stop_closes_and_begins_anew(adopter: Adopter) -> None:
    recorder = service()
    for _ in range(2):
        with Host() as host:
            adopted(adopter, host, recorder)
            recorder.expect("on_open")
            stopping = Task(adopter.stop, HANG)
            host.peer.expect_close(1001)
            host.peer.close_frame(1001)
            host.peer.abort()
            stopping.result()
            recorder.expect("on_close", 1001, "")
            assert len(adopter) == 0
    adopter.stop()


def test_stop_aborts_who_does_not_answer(adopter: Adopter) -> None:
    recorder = service()
    with Host() as host:
        adopted(adopter, host, recorder)
        recorder.expect("on_open")
        adopter.stop(0.0)
        host.peer.expect_close(1001)
        host.peer.expect_end()
    recorder.expect("on_close")


def test_who_comes_while_it_stops_is_refused(adopter: Adopter) -> None:
    recorder, gate = service(), Gate()

    def resource(http: Any, request: syncws.Request) -> None:
        gate.block()
        with pytest.raises(syncws.ConnectionClosed):
            http.accept_upgrade()

    with gate, Host() as host, Host() as other:
        waiting = Task(host.call, adopter.upgrade(host.environ, recorder, resource=resource))
        gate.reached()
        stopping = Task(adopter.stop, HANG)
        wait_until(lambda: not adopter._hall._arrivals)
        refused(adopter.upgrade(other.environ, recorder), other, 503)
        gate.open()
        waiting.result()
        stopping.result()
        assert host.status == "503 Service Unavailable"
        assert host.peer.read_head().startswith(b"HTTP/1.1 503 ")
    recorder.quiet()


def test_stop_from_a_callback(adopter: Adopter) -> None:
    class Stopping(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            adopter.stop(0.0)

    with Host() as host:
        adopted(adopter, host, Stopping)
        host.peer.text("now")
        host.peer.expect_close(1001)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_in_a_forked_child_there_are_none(adopter: Adopter) -> None:
    recorder = service()
    with Host() as host:
        adopted(adopter, host, recorder)
        recorder.expect("on_open")
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                adopter.stop(HANG)
                os.write(writer, b"%d" % len(adopter))
            finally:
                os._exit(0)
        os.close(writer)
        assert os.waitpid(pid, 0)[1] == 0
        with open(reader, "rb") as told:
            assert told.read() == b"0"
        assert len(adopter) == 1
        host.peer.text("still here")
        recorder.expect("on_text", "still here")
