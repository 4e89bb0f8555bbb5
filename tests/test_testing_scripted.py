"""Scripted peers do what their script says, and say what went otherwise."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from syncws.testing import (
    MemoryEngine,
    ScriptedServer,
    Step,
    accept,
    close,
    drop,
    expect,
    expect_close,
    expect_ping,
    expect_pong,
    hang,
    ignore,
    ping,
    play,
    pong,
    raw,
    refuse,
    send,
    serving,
    silence,
)
from tests.support import HANG, Recorder, ServerRecorder


@pytest.fixture(params=["in memory", "on a port"])
def engine(request: pytest.FixtureRequest) -> Iterator[syncws.Engine]:
    engine = MemoryEngine() if request.param == "in memory" else syncws.Engine()
    yield engine
    engine.reap()


def scripted(engine: syncws.Engine, *scripts: list[Step], timeout: float = HANG) -> ScriptedServer:
    return ScriptedServer(*scripts, engine=engine, timeout=timeout)


def vanish(client: syncws.Client) -> None:
    client._connection.ask_to_abort()
    assert client.wait_closed(HANG)


def connect(server: ScriptedServer, engine: syncws.Engine, **options: Any) -> syncws.Client:
    return syncws.Client(server.url, engine=engine, **options)


# -- Servers ------------------------------------------------------------------


def test_a_dialogue(engine: syncws.Engine) -> None:
    with (
        scripted(
            engine,
            [
                expect("hello"),
                send("welcome"),
                expect(b"\0"),
                send(bytes(70_000)),
                expect_close(1000),
            ],
        ) as server,
        connect(server, engine) as client,
    ):
        client.send_text("hello")
        assert client.receive(HANG) == "welcome"
        client.send_binary(b"\0")
        assert client.receive(HANG) == bytes(70_000)


def test_each_connection_has_a_script_of_its_own(engine: syncws.Engine) -> None:
    with scripted(engine, [send("1"), silence()], [send("2"), silence()]) as server:
        with connect(server, engine) as first, connect(server, engine) as second:
            assert [first.receive(HANG), second.receive(HANG)] == ["1", "2"]
        with pytest.raises(syncws.ConnectError, match="refused"):
            connect(server, engine)


def test_a_drop_is_a_loss(engine: syncws.Engine) -> None:
    with scripted(engine, [drop()]) as server, connect(server, engine) as client:
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.receive(HANG)
        assert caught.value.received is None


def test_a_close_is_answered(engine: syncws.Engine) -> None:
    with scripted(engine, [close(4000, "enough")]) as server, connect(server, engine) as client:
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.receive(HANG)
        assert caught.value.received == (4000, "enough")


def test_a_refusal(engine: syncws.Engine) -> None:
    refusal = refuse(503, "later", {"Retry-After": "7"})
    with scripted(engine, [refusal]) as server, pytest.raises(syncws.HandshakeRejected) as caught:
        connect(server, engine)
    assert (caught.value.status, caught.value.body.strip()) == (503, b"later")
    assert caught.value.response.headers["Retry-After"] == "7"


def test_no_answer_at_all(engine: syncws.Engine) -> None:
    with scripted(engine, [ignore()]) as server, pytest.raises(syncws.ConnectTimeout):
        connect(server, engine, handshake_timeout=0.05)


def test_what_a_handshake_says(engine: syncws.Engine) -> None:
    script = [accept("chat.v2", {"X-Room": "7"}), silence()]
    with scripted(engine, script) as server:
        with connect(server, engine, subprotocols=["chat.v2"], headers={"X-A": "b"}) as client:
            assert client.subprotocol == "chat.v2"
            assert client.response.headers["X-Room"] == "7"
        (request,) = server.requests
    assert (request.path, request.headers["X-A"]) == ("/", "b")


def test_control_frames(engine: syncws.Engine) -> None:
    class Told(Recorder):
        def on_pong(self, client: Any, data: bytes) -> None:
            self.record("on_pong", client, data)

    service = Told()
    script = [ping(b"you?"), expect_pong(b"you?"), pong(b"me"), expect_ping(b"and you?"), silence()]
    with (
        scripted(engine, script) as server,
        connect(server, engine, service=service, ping_interval=None) as client,
    ):
        service.expect("on_pong", b"me")
        client.ping(b"and you?")
        service.expect("on_pong", b"and you?")


def test_pings_are_answered_while_something_else_is_expected(engine: syncws.Engine) -> None:
    class Ponged(Recorder):
        def on_pong(self, client: Any, data: bytes) -> None:
            self.record("on_pong", client, data)

    service = Ponged()
    script = [expect("after"), silence()]
    with scripted(engine, script) as server, connect(server, engine, service=service) as client:
        client.ping(b"x")
        service.expect("on_pong", b"x")
        client.send_text("after")


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (expect("hi"), "expect('hi'): expected 'hi', but the other end sent the text 'hello'"),
        (expect(b"hello"), "expected b'hello', but the other end sent the text 'hello'"),
        (expect(re.compile("hell")), "expected re.compile('hell'), but the other end sent"),
        (expect(str.isdigit), "expected str.isdigit, but the other end sent the text 'hello'"),
        (expect_ping(), "expect_ping(): expected a ping, but the other end sent the text 'hello'"),
        (expect_pong(b"x"), "expected a pong with b'x', but the other end sent the text 'hello'"),
        (expect_close(), "expect_close(): expected a close, but the other end sent the text"),
        (expect_close(1000), "expected a close 1000, but the other end sent the text 'hello'"),
    ],
    ids=repr,
)
def test_another_message(engine: syncws.Engine, step: Step, says: str) -> None:
    with (
        pytest.raises(AssertionError, match="^connection 1, step 1, " + f".*{re.escape(says)}"),
        scripted(engine, [step]) as server,
        connect(server, engine) as client,
    ):
        client.send_text("hello")


@pytest.mark.parametrize("step", [expect(re.compile("h.*o")), expect(str.islower)], ids=repr)
def test_patterns_and_functions(engine: syncws.Engine, step: Step) -> None:
    with scripted(engine, [step]) as server, connect(server, engine) as client:
        client.send_text("hello")


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (lambda client: client.close(1001, "bye"), "but the other end closed with 1001 bye"),
        (vanish, "but the connection ended: "),
    ],
)
def test_an_end_where_a_message_was_expected(
    engine: syncws.Engine, end: Callable[[syncws.Client], None], says: str
) -> None:
    with (
        pytest.raises(AssertionError, match=f"expected 'more', {says}"),
        scripted(engine, [expect("more")]) as server,
        connect(server, engine) as client,
    ):
        end(client)


def test_another_code(engine: syncws.Engine) -> None:
    with (
        pytest.raises(AssertionError, match="expected a close 1001, but the other end closed with"),
        scripted(engine, [expect_close(1001)]) as server,
        connect(server, engine),
    ):
        pass


def test_nothing_comes(engine: syncws.Engine) -> None:
    with (
        pytest.raises(AssertionError, match=r"step 1, expect\('x'\): nothing came within 0.05 s"),
        scripted(engine, [expect("x")], timeout=0.05) as server,
        connect(server, engine) as client,
        pytest.raises(syncws.ConnectionClosed),
    ):
        client.receive(HANG)


def test_a_connection_that_does_not_come(engine: syncws.Engine) -> None:
    with (
        pytest.raises(AssertionError, match="1 more of 2 connections were expected"),
        scripted(engine, [send("x")], [send("y")], timeout=0.05) as server,
        connect(server, engine) as client,
    ):
        assert client.receive(HANG) == "x"


def test_a_script_that_is_not_through(engine: syncws.Engine) -> None:
    client = None
    with (
        pytest.raises(AssertionError, match="connection 1: the script is not through"),
        scripted(engine, [silence()], timeout=0.05) as server,
    ):
        client = connect(server, engine)
    assert client is not None
    client.close()


def test_what_the_block_raises_comes_first(engine: syncws.Engine) -> None:
    with pytest.raises(LookupError), scripted(engine, [expect("x")]):
        raise LookupError


def test_a_peer_that_hangs(engine: syncws.Engine) -> None:
    with (
        scripted(engine, [hang()]) as server,
        connect(server, engine) as client,
    ):
        client.send_text("hello?")
        with pytest.raises(syncws.ReceiveTimeout):
            client.receive(timeout=0.01)
        client.close(timeout=0.05)


def test_waiting_for_a_script(engine: syncws.Engine) -> None:
    with scripted(engine, [drop()], [silence()], timeout=0.1) as server:
        with connect(server, engine):
            server.wait_for(1)
        with (
            connect(server, engine),
            pytest.raises(AssertionError, match="the script of connection 2 is not through"),
        ):
            server.wait_for(2)
        with pytest.raises(ValueError, match="there are scripts for connections 1 to 2, not 3"):
            server.wait_for(3)


def test_who_speaks_no_http() -> None:
    with (
        pytest.raises(AssertionError, match="the client left before its handshake"),
        ScriptedServer([send("x")], timeout=HANG) as server,
        socket.create_connection(("127.0.0.1", int(server.url[:-1].rsplit(":")[-1])), HANG),
    ):
        pass


def test_it_needs_scripts() -> None:
    with pytest.raises(ValueError, match="needs a script for each connection"):
        ScriptedServer()
    with pytest.raises(TypeError, match="a script is a list of steps such as"):
        ScriptedServer(["hello"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a message is a str or bytes, not 7"):
        send(7)  # type: ignore[arg-type]


# -- Clients ------------------------------------------------------------------


def test_a_client_that_breaks_the_rules() -> None:
    service = ServerRecorder()
    with serving(service) as site:
        play(site.url(), [send("hi"), raw(b"\xff\xff"), expect_close(1002)], engine=site.engine)
        service.expect("on_open")
        service.expect("on_text", "hi")


def test_a_client_over_a_port() -> None:
    service = ServerRecorder()
    listener = syncws.Listener(0)
    listener.attach("/a", service)
    with listener:
        url = f"ws://127.0.0.1:{listener.port}/a"
        play(url, [send(b"hi"), close(4000)], headers=[("X-A", "b")])
        assert service.expect("on_open").request.headers["X-A"] == "b"
        service.expect("on_binary", b"hi")
        service.expect("on_close", 4000, "")
        with pytest.raises(syncws.HandshakeRejected):
            play(f"ws://127.0.0.1:{listener.port}/b", [])


def test_what_went_otherwise_is_raised_at_once() -> None:
    with (
        serving(ServerRecorder()) as site,
        pytest.raises(AssertionError, match=r"^step 2, expect\('ho'\): expected 'ho', but"),
    ):
        play(site.url(), [close(), expect("ho")], engine=site.engine)


def test_a_client_speaks_no_tls() -> None:
    with pytest.raises(ValueError, match="a script is played over ws://"):
        play("wss://localhost/", [])
