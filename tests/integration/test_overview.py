"""What Ballerina's WebSocket module says of itself, sentence by sentence, over real sockets."""

from __future__ import annotations

import queue
from collections.abc import Iterator
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
    RawPeer,
    RawServer,
    Recorder,
    ServerRecorder,
    frame,
    listening,
)

# A service waits this long for a message before it says so.
IDLE = 0.02

ROLES = ["listener", "client"]


class Everything(Recorder):
    """Records every callback of a client, those that change what a connection does included."""

    def on_ping(self, caller: Any, data: bytes) -> None:
        self.record("on_ping", caller, data)

    def on_idle_timeout(self, caller: Any) -> None:
        self.record("on_idle_timeout", caller)


class EverythingOnAListener(Everything):
    """The same with on_open."""

    def on_open(self, caller: syncws.Caller) -> None:
        self.record("on_open", caller)


class Scene:
    """A service at one end, a raw peer at the other, whichever end the service is at."""

    def __init__(self, service: Everything, peer: RawPeer, endpoint: Any) -> None:
        self.service = service
        self.peer = peer
        self.endpoint = endpoint


@pytest.fixture(params=ROLES)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    idle = getattr(request.function, "idle_timeout", None)
    if request.param == "listener":
        config = syncws.ServiceConfig(idle_timeout=idle)
        server_side = EverythingOnAListener(config)
        with listening(server_side) as listener, RawPeer.connect(listener) as peer:
            yield Scene(server_side, peer, server_side.expect("on_open"))
        return
    client_side = Everything()
    with RawServer() as server:
        opening = server.open_client(service=client_side, idle_timeout=idle)
        with server.accept() as peer:
            peer.answer()
            client = opening.result()
            yield Scene(client_side, peer, client)
            peer.abort()
            client.close()


# -- "There are two types of WebSocket endpoints: Listener and Client." -------


def test_there_are_two_types_of_endpoints_listener_and_client() -> None:
    class Echo(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            caller.send_text(text)

    with syncws.Listener(0) as listener:
        listener.attach("/", Echo())
        with syncws.Client(f"ws://localhost:{listener.port}/") as client:
            client.send_text("hello")
            assert client.receive(timeout=HANG) == "hello"


# -- "Both endpoints support all WebSocket frames." ---------------------------


def test_both_endpoints_support_all_frames(scene: Scene) -> None:
    peer, service, endpoint = scene.peer, scene.service, scene.endpoint
    masked = endpoint.__class__ is syncws.Caller

    peer.send_bytes(
        frame(TEXT, b"te", fin=False, masked=masked)
        + frame(PING, b"p", masked=masked)
        + frame(CONT, b"xt", masked=masked)
        + frame(BINARY, b"bytes", masked=masked)
        + frame(PONG, b"q", masked=masked)
    )
    service.expect("on_ping", b"p")
    service.expect("on_text", "text")
    service.expect("on_binary", b"bytes")
    service.expect("on_pong", b"q")

    endpoint.send_text("te", final=False)
    endpoint.send_text("xt")
    endpoint.send_binary(b"bytes")
    endpoint.ping(b"p")
    endpoint.pong(b"q")
    endpoint.close(4000, "over", timeout=0)
    assert [peer.read()[:3] for _ in range(5)] == [
        (TEXT, b"te", False),
        (CONT, b"xt", True),
        (BINARY, b"bytes", True),
        (PING, b"p", True),
        (PONG, b"q", True),
    ]
    assert peer.expect_close() == (4000, "over")
    peer.close_frame(4000)


# -- "A client can have a callback service." ----------------------------------


def test_a_client_can_have_a_callback_service() -> None:
    class Greeter(syncws.Service):
        def on_open(self, caller: syncws.Caller) -> None:
            caller.send_text("welcome")

    service = Recorder()
    with (
        listening(Greeter()) as listener,
        syncws.Client(f"ws://localhost:{listener.port}/", service=service) as client,
    ):
        assert service.expect("on_text", "welcome") is client


# -- "An upgrade resource intercepts the handshake, with custom headers." ------


def test_an_upgrade_resource_intercepts_the_handshake_with_custom_headers() -> None:
    service = ServerRecorder()
    listener = syncws.Listener(0)

    @listener.upgrade("/rooms/{room}", service=service)
    def upgrader(http: Any, request: syncws.Request, room: str) -> None:
        if "age" not in request.query:
            http.cancel_upgrade(400, "Age is required", headers={"X-Missing": "age"})
            return
        http.accept_upgrade(headers={"X-Room": room}).attributes["age"] = request.query["age"]

    with listener:
        url = f"ws://localhost:{listener.port}/rooms/blue"
        with pytest.raises(syncws.HandshakeRejected) as refused:
            syncws.Client(url)
        response = refused.value.response
        assert (response.status, response.headers["X-Missing"]) == (400, "age")
        assert response.body.strip() == b"Age is required"
        with syncws.Client(url + "?age=7") as client:
            assert client.response.headers["X-Room"] == "blue"
            assert service.expect("on_open").attributes == {"age": "7"}


# -- "onOpen is called on the server only." -----------------------------------


def test_on_open_is_called_on_the_server_only() -> None:
    service = ServerRecorder()
    with listening(service) as listener:
        url = f"ws://localhost:{listener.port}/"
        with pytest.raises(TypeError, match="on_open is never called on a client"):
            syncws.Client(url, service=ServerRecorder())
        with syncws.Client(url):
            service.expect("on_open")


# -- "onText, onBinary, onPing, onPong, onIdleTimeout are called on both." -----


@pytest.mark.parametrize(
    ("opcode", "payload", "name", "argument"),
    [
        (TEXT, b"text", "on_text", "text"),
        (BINARY, b"bytes", "on_binary", b"bytes"),
        (PING, b"ping", "on_ping", b"ping"),
        (PONG, b"pong", "on_pong", b"pong"),
    ],
)
def test_messages_pings_and_pongs_are_told_of_on_both(
    scene: Scene, opcode: int, payload: bytes, name: str, argument: object
) -> None:
    scene.peer.send(opcode, payload)
    assert scene.service.expect(name, argument) is scene.endpoint


def test_idleness_is_told_of_on_both(scene: Scene) -> None:
    assert scene.service.expect("on_idle_timeout") is scene.endpoint


test_idleness_is_told_of_on_both.idle_timeout = IDLE  # type: ignore[attr-defined]


# -- "onClose has the status code and the reason." ----------------------------


def test_on_close_has_the_status_code_and_the_reason_on_both(scene: Scene) -> None:
    scene.peer.close_frame(4321, "because")
    scene.peer.expect_close(4321)
    scene.peer.abort()
    assert scene.service.expect("on_close", 4321, "because") is scene.endpoint


# -- "onError is preceded by a close with an appropriate frame." --------------


@pytest.mark.parametrize(
    ("wire", "code", "error"),
    [
        ((CONT, b"x"), 1002, syncws.InvalidContinuationFrameError),
        ((0x3, b""), 1002, syncws.ProtocolError),
        ((TEXT, b"\xff"), 1007, syncws.InvalidPayloadError),
        ((BINARY, bytes(1_048_577)), 1009, syncws.PayloadTooBigError),
    ],
)
def test_on_error_comes_behind_a_close_with_an_appropriate_frame_on_both(
    scene: Scene, wire: tuple[int, bytes], code: int, error: type[Exception]
) -> None:
    told: queue.Queue[tuple[Any, Any]] = queue.Queue()
    record = scene.service.record

    def note(name: str, endpoint: Any, *args: Any) -> None:
        if name == "on_error":
            told.put((args[0], endpoint._connection.sent))
        record(name, endpoint, *args)

    scene.service.record = note  # type: ignore[method-assign]
    scene.peer.send(*wire)
    failure, sent = told.get(timeout=HANG)
    assert type(failure) is error
    assert sent is not None, "on_error came before the close frame"
    assert sent.code == code
    frames = [scene.peer.read()]
    assert frames[0].opcode == CLOSE
    assert int.from_bytes(frames[0].payload[:2], "big") == code
    scene.peer.abort()
    scene.service.expect("on_error")
    scene.service.expect("on_close")
