"""HTTP upgrade resources with real sockets: who is let in, when, and with what."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import syncws
from tests.support import (
    HANG,
    TEXT,
    Gate,
    RawPeer,
    ServerRecorder,
    Task,
    broken_log,
    frame,
    interpreter,
    listening,
    news,
    pass_time,
)

CONFIG = syncws.ServiceConfig(ping_interval=None, compression=False)
Resource = Callable[..., Any]


class Echo(syncws.Service):
    config = CONFIG

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)


@pytest.fixture
def service() -> ServerRecorder:
    return ServerRecorder(CONFIG)


@contextlib.contextmanager
def deciding(
    resource: Resource, service: Any = None, path: str = "/", **options: Any
) -> Iterator[syncws.Listener]:
    """A listener that asks `resource` about `path`, until the block ends."""
    with listening(**options) as listener:
        assert listener.upgrade(path, service=service)(resource) is resource
        yield listener


def refused(peer: RawPeer) -> tuple[int, bytes]:
    """Return the status and the body of the answer, which is the last thing that comes."""
    head = peer.read_head()
    body = peer._buffer
    with contextlib.suppress(ConnectionResetError):
        while data := peer.sock.recv(65_536):
            body += data
    return int(head.split()[1]), body


def ask(listener: syncws.Listener, path: str = "/", *headers: str) -> tuple[int, bytes]:
    """Return the status and the body with which a request is refused."""
    with RawPeer.dial(listener) as peer:
        peer.send_bytes(RawPeer.request(path, *headers))
        return refused(peer)


def errors(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the log's errors, each with the type of its exception."""
    return [
        (record.getMessage(), record.exc_info[0].__name__ if record.exc_info else "")  # type: ignore[union-attr]
        for record in caplog.records
        if record.levelno >= logging.ERROR
    ]


# -- Letting in --------------------------------------------------------------


def test_a_resource_gets_the_request_and_the_parameters_of_the_path(
    service: ServerRecorder,
) -> None:
    asked: queue.Queue[Any] = queue.Queue()

    def resource(http: syncws.Upgrade, request: syncws.Request, **params: Any) -> None:
        asked.put((request, params, threading.current_thread().name))

    id_ = uuid.UUID(int=7)
    path = "/chat/{name}/{room:int}/{id:uuid}/{rest:path}"
    target = f"/chat/a%20b/7/{id_}/x%2Fy//z?age=30&age=31&q=%C3%A4"
    with (
        deciding(resource, service, path) as listener,
        RawPeer.connect(listener, target, "Cookie: a=1; b=2", "X-A: 1", "x-a: 2") as peer,
    ):
        request, params, thread = asked.get(timeout=HANG)
        assert params == {"name": "a b", "room": 7, "id": id_, "rest": "x/y//z"}
        assert request.path_params == params
        assert (request.method, request.target) == ("GET", target)
        assert request.path == f"/chat/a b/7/{id_}/x/y//z"
        assert request.query["age"] == "30"
        assert request.query.get_all("age") == ["30", "31"]
        assert request.query["q"] == "\xe4"
        assert request.headers.get_all("X-A") == ["1", "2"]
        assert request.cookies == {"a": "1", "b": "2"}
        assert request.remote_address == peer.sock.getsockname()
        assert not request.is_secure
        assert request.http_version == "1.1"
        assert "-worker" in thread
        assert service.expect("on_open").request is request


def test_a_service_finds_the_parameters_of_its_path(service: ServerRecorder) -> None:
    with listening(service, "/x/{name}/{n:int}") as listener:
        listener.attach("/x/anna/{n:int}", service)
        listener.attach("/plain", service)
        for path, params in (
            ("/x/bob/7", {"name": "bob", "n": 7}),
            ("/x/anna/8", {"n": 8}),
            ("/plain", {}),
        ):
            with RawPeer.connect(listener, path):
                caller = service.expect("on_open")
                assert caller.request.path_params == params
                assert caller.request.remote_address == caller.remote_address
            service.expect("on_close")
        for path in ("/x/bob/x", "/x/%FF/7", "/x//7"):
            assert ask(listener, path)[0] == 404


def test_returning_accepts(service: ServerRecorder) -> None:
    with deciding(lambda http, request: None, service) as listener:
        with RawPeer.connect(listener) as peer:
            service.expect("on_open")
            peer.text("x")
            service.expect("on_text", "x")
            peer.finish()
        service.expect("on_close", 1000, "")


def test_headers_subprotocol_and_cookies_of_the_answer(service: ServerRecorder) -> None:
    service.config = syncws.ServiceConfig(subprotocols=("xml", "json"), ping_interval=None)

    def resource(http: syncws.Upgrade, request: syncws.Request, name: str) -> None:
        http.set_cookie("a", "1", httponly=True, path=None)
        http.set_cookie("b", "2", max_age=60, samesite="lax")
        http.set_cookie("b", "3", max_age=60, samesite="lax")
        http.set_cookie("b", "4", path="/x")
        http.accept_upgrade(headers={"X-Room": name}, subprotocol="json")

    offer = ("Sec-WebSocket-Protocol: other, json", "Sec-WebSocket-Protocol: xml")
    with (
        deciding(resource, service, "/{name}") as listener,
        RawPeer.connect(listener, "/anna", *offer) as peer,
    ):
        lines = peer.head.decode().split("\r\n")
        assert [line for line in lines if line.startswith("Set-Cookie")] == [
            "Set-Cookie: a=1; HttpOnly",
            "Set-Cookie: b=3; Max-Age=60; Path=/; SameSite=Lax",
            "Set-Cookie: b=4; Path=/x",
        ]
        assert "X-Room: anna" in lines
        assert "Sec-WebSocket-Protocol: json" in lines
        assert service.expect("on_open").subprotocol == "json"


def test_without_a_word_the_service_chooses_the_subprotocol(service: ServerRecorder) -> None:
    service.config = syncws.ServiceConfig(subprotocols=("xml", "json"), ping_interval=None)
    offer = "Sec-WebSocket-Protocol: json, xml"
    for resource in (lambda http, request: None, lambda http, request: http.accept_upgrade()):
        with deciding(resource, service) as listener, RawPeer.connect(listener, "/", offer):
            assert service.expect("on_open").subprotocol == "xml"
        service.expect("on_close")


def test_an_unconfigured_service_has_the_defaults() -> None:
    class Plain(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            caller.send_text(text)

    offer = "Sec-WebSocket-Extensions: permessage-deflate"
    with (
        deciding(lambda http, request: None, Plain) as listener,
        RawPeer.connect(listener, "/", offer) as peer,
    ):
        assert b"permessage-deflate" in peer.head
        peer.text("x")
        peer.expect(TEXT, "x")
        peer.text("x" * (syncws.ServiceConfig().max_message_size + 1))  # type: ignore[operator]
        peer.expect_close(1009)


def test_a_service_stands_on_several_paths_and_listeners(service: ServerRecorder) -> None:
    with (
        deciding(lambda http, request: None, service, "/one") as one,
        deciding(lambda http, request, x: None, service, "/{x}") as other,
    ):
        one.attach("/two", service)
        for listener, path in ((one, "/one"), (one, "/two"), (other, "/one"), (other, "/y")):
            with RawPeer.connect(listener, path):
                assert service.expect("on_open").request.path == path
            service.expect("on_close")


# -- The caller before on_open -----------------------------------------------


def test_what_a_resource_sends_is_behind_the_answer_and_before_on_open() -> None:
    class Talking(ServerRecorder):
        def on_open(self, caller: syncws.Caller) -> None:
            caller.send_text("from on_open")
            super().on_open(caller)

    def resource(http: syncws.Upgrade, request: syncws.Request) -> syncws.Caller:
        caller = http.accept_upgrade()
        assert caller.is_open
        caller.attributes["name"] = "anna"
        for number in range(3):
            caller.send_text(f"from the resource {number}")
        gate.block()
        return caller

    service = Talking(CONFIG)
    with deciding(resource, service) as listener, RawPeer.dial(listener) as peer, Gate() as gate:
        # The first message comes with the handshake, in one segment.
        peer.send_bytes(RawPeer.request() + frame(TEXT, b"early"))
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        for number in range(3):
            peer.expect(TEXT, f"from the resource {number}")
        gate.reached()
        peer.text("late")
        peer.round_trip()  # both have arrived, and pongs do not wait for the resource
        service.quiet()
        gate.open()
        peer.expect(TEXT, "from on_open")
        caller = service.expect("on_open")
        assert caller.attributes == {"name": "anna"}
        service.expect("on_text", "early")
        service.expect("on_text", "late")
        peer.text("last")
        service.expect("on_text", "last")


def test_a_service_made_for_the_connection_is_made_after_the_resource() -> None:
    made: queue.Queue[str] = queue.Queue()

    class Own(syncws.Service):
        config = CONFIG

        def __init__(self) -> None:
            made.put("service")

        def on_text(self, caller: Any, text: str) -> None: ...

    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        http.accept_upgrade()
        gate.block()
        made.put("resource")

    with deciding(resource, Own) as listener, Gate() as gate, RawPeer.connect(listener) as peer:
        gate.reached()
        peer.round_trip()
        gate.open()
        assert [made.get(timeout=HANG) for _ in range(2)] == ["resource", "service"]


def test_close_inside_the_resource(service: ServerRecorder) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        caller = http.accept_upgrade()
        caller.send_text("bye")
        caller.close(4000, "enough")
        assert not caller.is_open
        service.record("closed", caller)

    with deciding(resource, service) as listener, RawPeer.connect(listener) as peer:
        peer.expect(TEXT, "bye")
        assert peer.expect_close() == (4000, "enough")
        peer.close_frame(4000, "too")
        peer.expect_end()
        peer.abort()
        service.expect("closed")
        service.expect("on_open")
        service.expect("on_close", 4000, "too")


def test_a_client_that_closes_while_the_resource_runs(service: ServerRecorder) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        http.accept_upgrade()
        gate.block()

    with deciding(resource, service) as listener, Gate() as gate, RawPeer.connect(listener) as peer:
        gate.reached()
        peer.text("x")
        peer.close_frame(4000)
        peer.expect_close(4000)  # it does not wait for the resource for ever
        peer.expect_end()
        peer.abort()
        service.quiet()
        gate.open()
        service.expect("on_open")
        service.expect("on_text", "x")
        service.expect("on_close", 4000, "")


def test_a_caller_joins_a_group_in_the_resource(service: ServerRecorder) -> None:
    room = syncws.Group()

    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        room.add(http.accept_upgrade())
        room.send_text("welcome")

    with deciding(resource, service) as listener, RawPeer.connect(listener) as peer:
        peer.expect(TEXT, "welcome")


def test_reading_pauses_while_a_resource_that_accepted_runs() -> None:
    service = ServerRecorder(
        syncws.ServiceConfig(ping_interval=None, compression=False, receive_queue_size=4)
    )

    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        http.accept_upgrade()
        gate.block()

    with deciding(resource, service) as listener, Gate() as gate, RawPeer.connect(listener) as peer:
        gate.reached()
        peer.text(*"0123456789")
        gate.open()
        service.expect("on_open")
        for text in "0123456789":
            service.expect("on_text", text)


# -- Which service -----------------------------------------------------------


class Named(ServerRecorder):
    """Says its name to whom it serves."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(syncws.ServiceConfig(ping_interval=None, compression=False, **options))
        self.name = name

    def on_open(self, caller: syncws.Caller) -> None:
        caller.send_text(self.name)


class NamedClass(Named):
    def __init__(self) -> None:
        super().__init__("class")


@pytest.mark.parametrize("default", [None, Named("default")])
@pytest.mark.parametrize("way", ["accept_upgrade", "return"])
@pytest.mark.parametrize("other", ["instance", "class"])
def test_the_resource_chooses_the_service(default: Any, way: str, other: str) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> Any:
        service = NamedClass if other == "class" else Named(request.query["name"])
        if way == "return":
            return service
        return http.accept_upgrade(service=service)

    with deciding(resource, default) as listener:
        for name in ("one", "two"):
            with RawPeer.connect(listener, f"/?name={name}") as peer:
                peer.expect(TEXT, "class" if other == "class" else name)


def test_without_any_service_nobody_is_let_in(caplog: pytest.LogCaptureFixture) -> None:
    def accepting(http: syncws.Upgrade, request: syncws.Request) -> None:
        http.accept_upgrade()

    for resource in (accepting, lambda http, request: None):
        caplog.clear()
        with deciding(resource) as listener:
            assert ask(listener) == (500, b"internal error\n")
        assert errors(caplog) == [("/: a resource raised", "RuntimeError")]
        assert "give one to listener.upgrade() or to accept_upgrade()" in caplog.text


@pytest.mark.parametrize("value", [3, "x", object(), syncws.Listener, False, b""])
def test_a_resource_returns_nothing_else(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    with deciding(lambda http, request: value, Echo) as listener:
        assert ask(listener) == (500, b"internal error\n")
    assert errors(caplog) == [("/: a resource raised", "TypeError")]


# -- Refusing ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "lines", "body"),
    [
        (
            (400, "Age is required"),
            400,
            ["Content-Type: text/plain; charset=utf-8"],
            "Age is required",
        ),
        ((404,), 404, ["Content-Length: 0"], ""),
        ((403, "N\xf6 \u20ac"), 403, [], "N\xf6 \u20ac"),
        ((400, b"\xff\0"), 400, ["Content-Type: text/plain"], b"\xff\0"),
        ((302, "", {"Location": "/x"}), 302, ["HTTP/1.1 302 Found", "Location: /x"], ""),
        (
            (401, "", [("WWW-Authenticate", "A"), ("WWW-Authenticate", "B")]),
            401,
            ["WWW-Authenticate: A", "WWW-Authenticate: B"],
            "",
        ),
        (
            (400, "{}", {"content-type": "application/json"}),
            400,
            ["content-type: application/json"],
            "{}",
        ),
        ((599, "x"), 599, ["HTTP/1.1 599 "], "x"),
        ((300, "x" * 1_000_000), 300, ["Content-Length: 1000000"], "x" * 1_000_000),
    ],
)
def test_a_resource_refuses(
    arguments: tuple[Any, ...],
    status: int,
    lines: list[str],
    body: str | bytes,
    caplog: pytest.LogCaptureFixture,
    service: ServerRecorder,
) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        http.set_cookie("a", "1")
        return http.cancel_upgrade(*arguments)

    with deciding(resource, service) as listener, RawPeer.dial(listener) as peer:
        caplog.set_level(logging.INFO, "syncws.server")
        peer.send_bytes(RawPeer.request("/?q=1"))
        assert refused(peer) == (status, body.encode() if isinstance(body, str) else body)
        head = peer.head.decode().split("\r\n")
        assert {*lines, "Connection: close", "Set-Cookie: a=1; Path=/"} <= set(head)
        assert sum(line.lower().startswith("content-type:") for line in head) == 1
    service.quiet()
    assert caplog.messages == [f"refused /?q=1 with {status}"]


def test_a_refusal_is_on_its_way_before_the_resource_returns() -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        http.cancel_upgrade(400, "no")
        gate.block()

    with deciding(resource, Echo) as listener, Gate() as gate:
        assert ask(listener) == (400, b"no")
        gate.reached()


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("log", ["good", "broken"])
def test_a_resource_that_raises_refuses_with_500(
    error: BaseException, log: str, caplog: pytest.LogCaptureFixture, service: ServerRecorder
) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request, name: str) -> None:
        http.set_cookie("a", "1")
        raise error

    caplog.set_level(logging.INFO)
    with deciding(resource, service, "/chat/{name}") as listener, RawPeer.dial(listener) as peer:
        with broken_log("syncws.server") if log == "broken" else contextlib.nullcontext():
            peer.send_bytes(RawPeer.request("/chat/anna"))
            assert refused(peer) == (500, b"internal error\n")
        assert b"Set-Cookie" not in peer.head
    service.quiet()
    if log == "good":
        assert errors(caplog) == [("/chat/{name}: a resource raised", type(error).__name__)]
        assert len(caplog.records) == 1
        assert caplog.records[0].name == "syncws.server"
    else:
        assert caplog.records == []


def test_a_refusal_stands_though_the_resource_raises(
    caplog: pytest.LogCaptureFixture, service: ServerRecorder
) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        http.cancel_upgrade(403, "no")
        raise ValueError("boom")

    with deciding(resource, service) as listener:
        assert ask(listener) == (403, b"no")
    assert errors(caplog) == [("/: a resource raised", "ValueError")]
    service.quiet()


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3)])
@pytest.mark.parametrize("log", ["good", "broken"])
def test_raising_behind_accept_upgrade_closes_and_the_service_hears_nothing(
    error: BaseException, log: str, caplog: pytest.LogCaptureFixture, service: ServerRecorder
) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        http.accept_upgrade().send_text("hello")
        raise error

    with (
        broken_log("syncws.server") if log == "broken" else contextlib.nullcontext(),
        deciding(resource, service) as listener,
        RawPeer.dial(listener) as peer,
    ):
        peer.send_bytes(RawPeer.request() + frame(TEXT, b"early"))
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        peer.expect(TEXT, "hello")
        assert peer.expect_close() == (1011, "internal error")
        peer.close_frame(1011)
        peer.expect_end()
        peer.abort()
        listener.stop()  # waits for callbacks
        assert service.calls.empty()
    expected = [("/: a resource raised", type(error).__name__)] if log == "good" else []
    assert errors(caplog) == expected


def test_returning_a_service_behind_accept_upgrade_is_an_error(
    caplog: pytest.LogCaptureFixture, service: ServerRecorder
) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> Any:
        http.accept_upgrade()
        return Echo()

    with deciding(resource, service) as listener, RawPeer.connect(listener) as peer:
        peer.expect_close(1011)
    assert errors(caplog) == [("/: a resource raised", "TypeError")]
    service.quiet()


# -- What comes before the resource ------------------------------------------


def test_what_is_no_handshake_does_not_reach_the_resource(service: ServerRecorder) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        asked.append(request)

    asked: list[Any] = []
    good = RawPeer.request()
    with deciding(resource, service) as listener:
        for status, request in (
            (426, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            (405, good.replace(b"GET", b"POST")),
            (400, good.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n")),
            (426, good.replace(b"Version: 13", b"Version: 8")),
            (403, RawPeer.request("/", "Origin: https://evil.example")),
            (404, RawPeer.request("/other")),
        ):
            with RawPeer.dial(listener) as peer:
                peer.send_bytes(request)
                assert refused(peer)[0] == status
    assert asked == []


ORIGIN = "https://app.example"


@pytest.mark.parametrize("way", ["accept_upgrade", "return"])
@pytest.mark.parametrize("default", [None, "open", "closed"])
@pytest.mark.parametrize("other", ["open", "closed", None])
def test_the_accepting_service_decides_on_the_origin(
    way: str, default: str | None, other: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    services = {
        "open": Named("open", allowed_origins=[ORIGIN]),
        "closed": Named("closed", allowed_origins=["https://other.example"]),
    }
    asked: list[str] = []

    def resource(http: syncws.Upgrade, request: syncws.Request) -> Any:
        asked.append(request.headers["Origin"])
        if way == "return":
            return services.get(other)  # type: ignore[arg-type]
        return http.accept_upgrade(service=services.get(other))  # type: ignore[arg-type]

    caplog.set_level(logging.INFO, "syncws.server")
    with deciding(resource, services.get(default)) as listener, RawPeer.dial(listener) as peer:  # type: ignore[arg-type]
        peer.send_bytes(RawPeer.request("/", f"Origin: {ORIGIN}"))
        serving = other or default
        if default == "closed":
            assert refused(peer)[0] == 403
            assert asked == []
        elif serving == "open":
            assert peer.read_head().startswith(b"HTTP/1.1 101 ")
            peer.expect(TEXT, "open")
        elif serving == "closed":
            status, body = refused(peer)
            assert status == 403
            assert b"may not connect" in body
        else:
            assert refused(peer)[0] == 500
    assert bool(asked) is (default != "closed")
    assert bool(errors(caplog)) is (serving is None)
    assert ("with 403" in caplog.text) is ("closed" in (default, serving))


def test_a_refused_origin_is_an_everyday_event_for_the_resource(
    caplog: pytest.LogCaptureFixture, service: ServerRecorder
) -> None:
    caught: list[BaseException] = []

    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        try:
            http.accept_upgrade(service=service)
        except syncws.ConnectionClosed as error:
            caught.append(error)
            with pytest.raises(RuntimeError):
                http.accept_upgrade(service=Named("open", allowed_origins=["*"]))

    with deciding(resource) as listener:
        assert ask(listener, "/", f"Origin: {ORIGIN}")[0] == 403
    assert len(caught) == 1
    assert errors(caplog) == []
    service.quiet()


# -- The same path with and without it ---------------------------------------


def test_attach_and_detach(service: ServerRecorder) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request, name: str = "") -> None:
        http.cancel_upgrade(418)

    with listening(service, "/chat/{name}") as listener:
        with pytest.raises(ValueError, match="has a service already"):
            listener.upgrade("/chat/{other}", service=service)(lambda http, request, other: None)
        listener.upgrade("/chat/anna")(resource)
        listener.upgrade("/{name}", service=Echo)(resource)
        assert ask(listener, "/chat/anna")[0] == 418
        assert ask(listener, "/x")[0] == 418
        with RawPeer.connect(listener, "/chat/bob"):
            service.expect("on_open")
        listener.detach("/chat/anna")
        with RawPeer.connect(listener, "/chat/anna"):
            pass
        listener.detach(Echo)
        assert ask(listener, "/x")[0] == 404
        listener.upgrade("/x")(resource)
        listener.detach(resource)
        assert ask(listener, "/x")[0] == 404


# -- Threads -----------------------------------------------------------------


def test_a_resource_that_blocks_holds_nobody_else_up() -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        gate.block()

    engine = syncws.Engine(workers=1, name="syncws-test")
    with deciding(resource, Echo, "/slow", engine=engine) as listener, Gate() as gate:
        listener.attach("/", Echo())
        with RawPeer.connect(listener) as other, RawPeer.dial(listener) as peer:
            peer.send_bytes(RawPeer.request("/slow"))
            gate.reached()
            other.text("x")
            other.expect(TEXT, "x")
            other.round_trip()
            with RawPeer.connect(listener) as third:  # and new ones are let in
                third.text("y")
                third.expect(TEXT, "y")
            gate.open()
            peer.read_head()
            peer.text("z")
            peer.expect(TEXT, "z")


def test_the_time_that_a_resource_takes_is_not_the_clients(service: ServerRecorder) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        gate.block()

    with (
        deciding(resource, service, handshake_timeout=8.0) as listener,
        RawPeer.dial(listener) as peer,
        Gate() as gate,
    ):
        peer.send_bytes(RawPeer.request())
        gate.reached()
        with RawPeer.dial(listener) as idle:
            assert ask(listener, "/other")[0] == 404  # so that idle has been accepted
            pass_time(listener, 8.0)
            idle.expect_end()  # one that came later has had its time
        gate.open()
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        service.expect("on_open")


def test_resources_that_block_leave_workers_for_callbacks() -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        ran.put(None)
        gate.block()

    ran: queue.SimpleQueue[None] = queue.SimpleQueue()
    engine = syncws.Engine(workers=2, max_workers=4)
    listener = syncws.Listener(0, engine=engine)
    listener.upgrade("/slow", service=Echo)(resource)
    listener.attach("/echo", Echo())
    with Gate() as gate, listener, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer.dial(listener)) for _ in range(8)]
        for peer in peers:
            peer.send_bytes(RawPeer.request("/slow"))
        gate.reached()
        with RawPeer.connect(listener, "/echo") as peer:
            peer.text("still here")
            peer.expect(TEXT, "still here")
            peer.finish()
        ran.get(timeout=HANG)
        assert ran.empty()  # the others wait
        for peer in peers[4:]:
            peer.abort()
        gate.open()
        for peer in peers[:4]:
            assert peer.read_head().startswith(b"HTTP/1.1 101 ")
    assert 4 <= 1 + ran.qsize() < 8  # those who left while they waited were not decided on


def test_many_resources_at_once() -> None:
    number = 12

    def resource(http: syncws.Upgrade, request: syncws.Request, name: str) -> Any:
        barrier.wait(HANG)
        if name == "3":
            raise ValueError("three")
        if int(name) % 4 == 0:
            return http.cancel_upgrade(400, name)
        if int(name) % 4 == 1:
            http.accept_upgrade().send_text(f"hello {name}")
        return None

    barrier = threading.Barrier(number)
    with deciding(resource, Echo, "/{name}") as listener, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer.dial(listener)) for _ in range(number)]
        with broken_log("syncws.server"):
            for name, peer in enumerate(peers):
                peer.send_bytes(RawPeer.request(f"/{name}") + frame(TEXT, b"early"))
            for name, peer in enumerate(peers):
                if name == 3:
                    assert refused(peer)[0] == 500
                elif name % 4 == 0:
                    assert refused(peer) == (400, str(name).encode())
                else:
                    peer.read_head()
                    if name % 4 == 1:
                        peer.expect(TEXT, f"hello {name}")
                    peer.expect(TEXT, "early")


def test_http_may_be_handed_to_another_thread(service: ServerRecorder) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        callers = [Task(http.accept_upgrade) for _ in range(4)]
        for task in callers:
            task.wait()
        assert [task._error for task in callers].count(None) == 1

    for _ in range(10):
        with deciding(resource, service) as listener, RawPeer.connect(listener):
            service.expect("on_open")
        service.expect("on_close")


def test_tls(service: ServerRecorder, server_tls: ssl.SSLContext) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        assert request.is_secure
        gate.block()
        if request.query.get("accept"):
            http.accept_upgrade().send_text("hello")
        else:
            http.cancel_upgrade(403, "no")

    with Gate() as gate, deciding(resource, service, ssl=server_tls) as listener:
        with RawPeer.dial(listener, tls=True) as peer:
            # In one record, so that the TLS layer holds the frame while the socket rests.
            peer.send_bytes(RawPeer.request("/?accept=1") + frame(TEXT, b"early"))
            gate.reached()
            gate.open()
            assert peer.read_head().startswith(b"HTTP/1.1 101 ")
            peer.expect(TEXT, "hello")
            assert service.expect("on_open").is_secure
            service.expect("on_text", "early")
        with RawPeer.dial(listener, tls=True) as peer:
            peer.send_bytes(RawPeer.request())
            assert refused(peer) == (403, b"no")


# -- The client vanishes, the listener stops, the loop ends -------------------


@pytest.mark.parametrize("end", [RawPeer.abort, RawPeer.reset])
@pytest.mark.parametrize("early", [b"", b"x" * 10])
def test_a_client_that_vanishes_before_accept_upgrade(
    end: Callable[[RawPeer], None],
    early: bytes,
    service: ServerRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: queue.Queue[bool] = queue.Queue()

    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        gate.block()
        http.accept_upgrade()
        seen.put(True)

    with deciding(resource, service) as listener, Gate() as gate:
        peer = RawPeer.dial(listener)
        peer.send_bytes(RawPeer.request() + early)
        gate.reached()
        end(peer)
        gate.open()
        assert seen.get(timeout=HANG)
        service.expect("on_open")
        while (call := service.next()).name == "on_error":
            pass
        assert call.name == "on_close"
    assert errors(caplog) == []


def test_a_send_to_a_client_that_has_vanished_is_an_everyday_event(
    service: ServerRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        caller = http.accept_upgrade()
        gate.block()
        while True:
            caller.send_text("x" * 10_000)

    caplog.set_level(logging.INFO, "syncws.server")
    with deciding(resource, service) as listener, Gate() as gate:
        with RawPeer.connect(listener) as peer:
            gate.reached()
            peer.reset()
        gate.open()
        listener.stop()
        assert [record.levelno for record in news(caplog)] == [logging.INFO]
        assert "a resource was cut short" in caplog.text
        assert service.calls.empty()


def test_a_client_that_vanishes_before_it_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        gate.block()
        http.cancel_upgrade(400, "x" * 100_000)
        raise OSError("by the resource")

    with deciding(resource, Echo) as listener, Gate() as gate:
        peer = RawPeer.dial(listener)
        peer.send_bytes(RawPeer.request())
        gate.reached()
        peer.reset()
        gate.open()
        listener.stop()
        assert repr(listener._tally) == "<Tally of 0 sockets, 0 callbacks>"
    assert errors(caplog) == [("/: a resource raised", "OSError")]


@pytest.mark.parametrize("act", ["accept", "return", "cancel", "raise", "serve"])
def test_stop_refuses_who_waits_and_waits_for_the_resource(
    act: str, service: ServerRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    caught: queue.Queue[Any] = queue.Queue()

    def resource(http: syncws.Upgrade, request: syncws.Request) -> Any:
        gate.block()
        try:
            if act == "accept":
                http.accept_upgrade()
            elif act == "cancel":
                http.cancel_upgrade(400)
            elif act == "raise":
                raise ValueError("boom")
        finally:
            caught.put(act)
        return service if act == "serve" else None

    caplog.set_level(logging.INFO, "syncws.server")
    with deciding(resource, service) as listener, RawPeer.dial(listener) as peer, Gate() as gate:
        peer.send_bytes(RawPeer.request())
        gate.reached()
        stopping = Task(listener.stop)
        assert refused(peer) == (503, b"The server is going away.\n")
        peer.abort()
        assert stopping.is_alive()  # the resource counts as a callback
        gate.open()
        stopping.result()
        assert caught.get_nowait() == act
        assert repr(listener._tally) == "<Tally of 0 sockets, 0 callbacks>"
    service.quiet()
    assert [level for name, level in ((r.name, r.levelname) for r in caplog.records)].count(
        "ERROR"
    ) == (act == "raise")
    assert ("a resource was cut short" in caplog.text) is (act == "accept")
    assert "with 503" in caplog.text


def test_stop_leaves_a_resource_behind_that_does_not_return(
    service: ServerRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncws.server.listener._ABORT", 0.1)
    outcome: queue.Queue[str] = queue.Queue()

    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        if not gate._opened.is_set():
            gate.block()
            with pytest.raises(syncws.ConnectionClosed):
                http.accept_upgrade()  # its loop is gone, or the client at least
            outcome.put("closed")

    with deciding(resource, service) as listener, RawPeer.dial(listener) as peer, Gate() as gate:
        peer.send_bytes(RawPeer.request())
        gate.reached()
        listener.stop(timeout=0.1)
        assert refused(peer)[0] == 503
        gate.open()
        assert outcome.get(timeout=HANG) == "closed"
        with listener, RawPeer.connect(listener):  # it starts again all the same
            service.expect("on_open")


def test_a_client_that_does_not_leave_after_503_is_dropped_at_the_deadline() -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        gate.block()

    # The other listener keeps the engine running, whose end would drop the client as well.
    with (
        listening(Echo()),
        deciding(resource, Echo) as listener,
        RawPeer.dial(listener) as peer,
        Gate() as gate,
    ):
        peer.send_bytes(RawPeer.request())
        gate.reached()
        stopping = Task(listener.stop, timeout=0.1)
        assert peer.read_head().startswith(b"HTTP/1.1 503 ")
        gate.open()
        stopping.result()  # though the peer has not closed
        assert "of 0 sockets" in repr(listener._tally)


def test_stop_from_a_resource_does_not_wait_for_itself(service: ServerRecorder) -> None:
    outcome: queue.Queue[Any] = queue.Queue()

    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        listener.stop()
        outcome.put(listener.addresses)
        http.accept_upgrade()

    with deciding(resource, service) as listener, RawPeer.dial(listener) as peer:
        peer.send_bytes(RawPeer.request())
        assert refused(peer)[0] == 503
        peer.abort()
        assert outcome.get(timeout=HANG) == []
    service.quiet()


def test_stop_closes_a_connection_whose_resource_has_accepted(service: ServerRecorder) -> None:
    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        http.accept_upgrade()
        gate.block()

    with deciding(resource, service) as listener, Gate() as gate, RawPeer.connect(listener) as peer:
        gate.reached()
        stopping = Task(listener.stop)
        peer.expect_close(1001)
        peer.close_frame(1001)
        peer.expect_end()
        peer.abort()
        assert stopping.is_alive()
        gate.open()
        stopping.result()
        assert service.calls.get_nowait().name == "on_open"
        assert service.calls.get_nowait().args == (1001, "")


def test_accept_stop_and_a_client_that_vanishes_in_any_order(service: ServerRecorder) -> None:
    """All at once, many times: nothing hangs, and the counts come out even."""

    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        ready.release()
        go.acquire(timeout=HANG)
        http.accept_upgrade().send_text("hello")

    ready, go = threading.Semaphore(0), threading.Semaphore(0)
    for round_ in range(20):
        with deciding(resource, service) as listener:
            peer = RawPeer.dial(listener)
            peer.send_bytes(RawPeer.request())
            assert ready.acquire(timeout=HANG)
            calls: list[Callable[[], Any]] = [go.release, listener.stop, peer.reset]
            barrier = threading.Barrier(len(calls))

            def begin(call: Callable[[], Any], barrier: threading.Barrier = barrier) -> None:
                barrier.wait(HANG)
                call()

            for task in [Task(begin, call) for call in calls[round_ % 3 :] + calls[: round_ % 3]]:
                task.result()
            assert repr(listener._tally) == "<Tally of 0 sockets, 0 callbacks>"
        names = []
        while not service.calls.empty():
            names.append(service.calls.get_nowait().name)
        assert names in ([], ["on_open", "on_close"])


def test_the_end_of_the_loop_answers_who_waits(
    service: ServerRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends the engine's thread under a resource, accept_upgrade does not hang."""
    monkeypatch.setattr("syncws.server.listener._ABORT", 0.1)
    outcome: queue.Queue[BaseException] = queue.Queue()

    def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
        gate.block()
        try:
            http.accept_upgrade()
        except syncws.ConnectionClosed as error:
            outcome.put(error)
            raise

    engine = syncws.Engine(name="syncws-test")
    listener = syncws.Listener(0, engine=engine)
    listener.upgrade("/", service=service)(resource)
    listener.start()
    with RawPeer.dial(listener) as peer, Gate() as gate:
        peer.send_bytes(RawPeer.request())
        gate.reached()
        loop = listener._loop
        assert loop is not None
        loop.stop()
        loop.thread.join(HANG)
        gate.open()
        assert outcome.get(timeout=HANG)
        peer.expect_end()
    listener.stop(timeout=0.1)
    service.quiet()


# -- Forks -------------------------------------------------------------------

_FORK = """
import os, sys, traceback, syncws
class Echo(syncws.Service):
    def on_text(self, caller, text): caller.send_text(text)
listener = syncws.Listener(0)
@listener.upgrade("/{when}", service=Echo)
def resource(http, request, when):
    if when == "in the child":
        return http.cancel_upgrade(418)
    caller = http.accept_upgrade() if when == "after" else None
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return None
    try:
        try:
            if caller is None:
                http.accept_upgrade()
            else:
                caller.send_text("not from here")
        except syncws.ConnectionClosed:
            print("closed")
        listener.stop()
        listener.start()
        try:
            syncws.Client(f"ws://127.0.0.1:{listener.port}/in%20the%20child")
        except syncws.HandshakeRejected as error:
            print(error.status)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(0)
listener.start()
for when in ("before", "after"):
    with syncws.Client(f"ws://127.0.0.1:{listener.port}/{when}") as client:
        client.send_text(when)
        print("parent", client.receive(timeout=20))
listener.stop()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_resource_that_forks() -> None:
    with interpreter(_FORK) as process:
        for when in ("before", "after"):
            for line in ("closed", "418", f"parent {when}"):
                assert process.line() == line
        code, text = process.end()
        assert code == 0
        assert "Traceback" not in text, text
