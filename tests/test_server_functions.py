"""Functions in place of services: threads, their bound, ends, and what is said of mistakes."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from syncws.server.functions import FunctionService, Threads, WebSocket, check_function
from tests.support import HANG, QUIET, TEXT, Gate, RawPeer, Task, listening, wait_until


def echo(ws: WebSocket, **values: Any) -> None:
    """Send back what comes."""
    while True:
        ws.send(ws.receive())


@contextlib.contextmanager
def serving(
    function: Callable[..., Any], path: str = "/", **options: Any
) -> Iterator[syncws.Listener]:
    """A listener with one function."""
    with listening(FunctionService(function, **options), path) as listener:
        yield listener


@contextlib.contextmanager
def connected(
    function: Callable[..., Any], path: str = "/", **options: Any
) -> Iterator[syncws.Client]:
    """A client of a function."""
    with (
        serving(function, path, **options) as listener,
        syncws.Client(f"ws://localhost:{listener.port}{path}") as client,
    ):
        yield client


def function_threads() -> set[str]:
    return {one.name for one in threading.enumerate() if one.name.startswith("syncws-function-")}


def closed_by(client: syncws.Client) -> syncws.Close:
    """Return the close frame that comes next."""
    with pytest.raises(syncws.ConnectionClosed) as caught:
        client.receive(HANG)
    assert caught.value.received is not None
    return caught.value.received


# -- Messages ----------------------------------------------------------------


def test_messages_go_both_ways_as_what_they_are() -> None:
    with connected(echo) as client:
        client.send_text("hello")
        assert client.receive(HANG) == "hello"
        client.send_binary(b"\x00\x01")
        assert client.receive(HANG) == b"\x00\x01"


def test_a_function_gets_the_parameters_of_the_path() -> None:
    def name(ws: WebSocket, room: str, number: int) -> None:
        ws.send(f"{room} {number!r} {ws.request.path_params}")

    service = FunctionService(name)
    with (
        listening(service, "/{room}/{number:int}") as listener,
        syncws.Client(f"ws://localhost:{listener.port}/hall/7") as client,
    ):
        assert client.receive(HANG) == "hall 7 {'room': 'hall', 'number': 7}"


def test_iteration_ends_with_the_clients_orderly_close() -> None:
    got: queue.Queue[list[Any]] = queue.Queue()

    def collect(ws: WebSocket) -> None:
        got.put(list(ws))

    with connected(collect) as client:
        client.send_text("one")
        client.send_binary(b"two")
    assert got.get(timeout=HANG) == ["one", b"two"]


def test_a_receive_that_times_out_leaves_the_connection_as_it_is() -> None:
    def patient(ws: WebSocket) -> None:
        with pytest.raises(syncws.ReceiveTimeout):
            ws.receive(timeout=0)
        ws.send("nothing yet")
        ws.send(ws.receive_text(HANG))

    with connected(patient) as client:
        assert client.receive(HANG) == "nothing yet"
        client.send_text("now")
        assert client.receive(HANG) == "now"


def test_send_takes_text_and_bytes_only() -> None:
    def wrong(ws: WebSocket) -> None:
        with pytest.raises(TypeError, match=r"a str or bytes, not int: 5; send_json takes"):
            ws.send(5)  # type: ignore[arg-type]
        ws.send(bytearray(b"ab"))
        ws.send(memoryview(b"cd"))

    with connected(wrong) as client:
        assert [client.receive(HANG), client.receive(HANG)] == [b"ab", b"cd"]


def test_several_threads_may_send() -> None:
    def many(ws: WebSocket) -> None:
        def send(n: int) -> None:
            for i in range(50):
                ws.send(f"{n} {i}")

        for task in [Task(send, n) for n in range(4)]:
            task.result()

    with connected(many) as client:
        got = list(client)
    assert len(got) == 200
    for n in "0123":
        mine = [text for text in got if isinstance(text, str) and text[0] == n]
        assert mine == [f"{n} {i}" for i in range(50)]


def test_a_function_that_does_not_receive_holds_the_client_up() -> None:
    config = syncws.ServiceConfig(receive_queue_size=4)
    with Gate() as gate:

        def slow(ws: WebSocket) -> None:
            gate.block()
            echo(ws)

        with serving(slow, config=config) as listener, RawPeer.connect(listener) as peer:
            peer.round_trip()
            for n in range(8):
                peer.text(str(n))
            peer.send(0x9, b"late")  # what is not read is not answered
            peer.sock.settimeout(0.03)
            with pytest.raises(TimeoutError):
                peer.read()
            peer.sock.settimeout(HANG)
            gate.open()
            got = [peer.read() for _ in range(9)]
            assert sorted(one.payload for one in got if one.opcode == TEXT) == [
                str(n).encode() for n in range(8)
            ]


def test_it_is_a_caller_with_all_that_callers_have() -> None:
    config = syncws.ServiceConfig(subprotocols=("json",))
    group = syncws.Group()
    seen: queue.Queue[WebSocket] = queue.Queue()

    def member(ws: WebSocket) -> None:
        ws.attributes["n"] = 1
        group.add(ws)
        seen.put(ws)
        echo(ws)

    with serving(member, config=config) as listener:
        url = f"ws://localhost:{listener.port}/?q=1"
        with syncws.Client(url, subprotocols=["json"]) as client:
            ws = seen.get(timeout=HANG)
            assert isinstance(ws, syncws.Caller)
            assert (ws.subprotocol, ws.request.query["q"], ws.is_open) == ("json", "1", True)
            group.send_text("to all")
            assert client.receive(HANG) == "to all"
            assert ws.attributes == {"n": 1}
        wait_until(lambda: not ws.is_open)


# -- Ends --------------------------------------------------------------------


def test_returning_closes_with_1000() -> None:
    with connected(lambda ws: ws.send("bye")) as client:
        assert client.receive(HANG) == "bye"
        assert closed_by(client) == syncws.Close(1000, "")


def test_a_function_may_close_by_itself() -> None:
    def leave(ws: WebSocket) -> None:
        ws.close(4000, "enough")
        with pytest.raises(syncws.ConnectionClosed):
            ws.send("more")
        with pytest.raises(syncws.ConnectionClosed):
            ws.receive()

    with connected(leave) as client:
        assert closed_by(client) == syncws.Close(4000, "enough")


def test_the_end_of_the_connection_ends_a_function_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    ended: queue.Queue[BaseException] = queue.Queue()

    def watched(ws: WebSocket) -> None:
        try:
            echo(ws)
        except BaseException as exc:
            ended.put(exc)
            raise

    with connected(watched) as client:
        client.close(4001, "gone")
        error = ended.get(timeout=HANG)
    assert isinstance(error, syncws.ConnectionClosed)
    assert error.received == syncws.Close(4001, "gone")
    assert [text for text in caplog.messages if "closed: " not in text] == []


def test_an_exception_is_logged_once_and_closes_with_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(ws: WebSocket) -> None:
        raise ZeroDivisionError("oh")

    with connected(broken, "/broken") as client:
        assert closed_by(client) == syncws.Close(1011, "internal error")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("syncws.server", "ERROR")
    assert record.getMessage() == "/broken: a function raised"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_the_end_of_another_connection_is_an_exception_like_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(lambda ws: None) as other:

        def relay(ws: WebSocket) -> None:
            with syncws.Client(f"ws://localhost:{other.port}/") as backend:
                backend.receive(HANG)

        with connected(relay) as client:
            assert closed_by(client).code == 1011
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_why_a_connection_has_failed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    config = syncws.ServiceConfig(max_message_size=5)
    with serving(echo, config=config) as listener, RawPeer.connect(listener) as peer:
        peer.text("too long")
        peer.expect_close(1009)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("/: a connection failed: ")


def test_a_stop_closes_with_1001_and_waits_for_the_function() -> None:
    ended: queue.Queue[bool] = queue.Queue()

    def watched(ws: WebSocket) -> None:
        try:
            ws.send("here")
            echo(ws)
        finally:
            ended.put(True)

    with serving(watched) as listener:
        client = syncws.Client(f"ws://localhost:{listener.port}/")
        assert client.receive(HANG) == "here"
        listener.stop()
        assert ended.get_nowait()  # it was waited for
        assert closed_by(client).code == 1001
        wait_until(lambda: not function_threads())  # it ends behind what was waited for
        client.close()


def test_a_function_may_stop_its_listener() -> None:
    stopped: queue.Queue[bool] = queue.Queue()
    listener = syncws.Listener(0)

    def stop(ws: WebSocket) -> None:
        listener.stop(timeout=600)  # does not wait for this call
        stopped.put(True)

    listener.attach("/", FunctionService(stop))
    with listener, syncws.Client(f"ws://localhost:{listener.port}/") as client:
        assert closed_by(client).code == 1001
        assert stopped.get(timeout=HANG)


# -- Threads -----------------------------------------------------------------


def test_each_connection_has_a_thread_which_ends_with_it() -> None:
    names: queue.Queue[str] = queue.Queue()

    def name(ws: WebSocket) -> None:
        names.put(threading.current_thread().name)
        echo(ws)

    with serving(name) as listener:
        url = f"ws://localhost:{listener.port}/"
        with syncws.Client(url), syncws.Client(url):
            seen = {names.get(timeout=HANG), names.get(timeout=HANG)}
            assert seen == function_threads()
            assert len(seen) == 2
        wait_until(lambda: not function_threads())


def test_over_the_bound_clients_are_refused_until_a_function_has_returned() -> None:
    threads = Threads(1)
    with serving(echo, threads=threads) as listener:
        url = f"ws://localhost:{listener.port}/"
        with syncws.Client(url):
            with pytest.raises(syncws.HandshakeRejected) as caught:
                syncws.Client(url)
            assert caught.value.status == 503
            assert caught.value.headers["Retry-After"] == "5"
            assert (threads.running, threads.full) == (1, True)
        wait_until(lambda: threads.running == 0)
        with syncws.Client(url) as client:
            client.send_text("in")
            assert client.receive(HANG) == "in"


def test_services_may_share_a_bound() -> None:
    threads = Threads(1)
    with serving(echo, "/one", threads=threads) as listener:
        listener.attach("/two", FunctionService(echo, threads=threads))
        url = f"ws://localhost:{listener.port}/"
        with syncws.Client(url + "one"), pytest.raises(syncws.HandshakeRejected, match="503"):
            syncws.Client(url + "two")


def test_a_client_let_in_by_a_resource_in_the_last_moment_is_told_to_come_back() -> None:
    threads = Threads(1)
    service = FunctionService(echo, threads=threads)
    with Gate() as gate, listening() as listener:

        @listener.upgrade("/", service=service)
        def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
            gate.block()

        url = f"ws://localhost:{listener.port}/"
        first, second = Task(syncws.Client, url), Task(syncws.Client, url)
        gate.reached()
        gate.reached()
        gate.open()
        clients = [first.result(), second.result()]
        ends = []
        for client in clients:
            try:
                client.send_text("in")
                assert client.receive(HANG) == "in"
            except syncws.ConnectionClosed as exc:
                ends.append(exc.received)
            client.close()
        assert ends == [syncws.Close(1013, "too many clients")]
        wait_until(lambda: threads.running == 0)


def test_a_resource_that_returns_a_function_is_refused_over_the_bound() -> None:
    service = FunctionService(echo, threads=Threads(1))
    with listening() as listener:

        @listener.upgrade("/")
        def resource(http: syncws.Upgrade, request: syncws.Request) -> FunctionService:
            return service

        url = f"ws://localhost:{listener.port}/"
        with syncws.Client(url), pytest.raises(syncws.HandshakeRejected, match="503"):
            syncws.Client(url)


def test_the_function_waits_for_its_resource() -> None:
    calls: queue.Queue[str] = queue.Queue()
    gate = Gate()

    def told(ws: WebSocket) -> None:
        calls.put(ws.attributes["name"])
        echo(ws)

    with listening() as listener:

        @listener.upgrade("/", service=FunctionService(told))
        def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
            caller = http.accept_upgrade()
            caller.send_text("first")
            gate.block()
            calls.put("resource")
            caller.attributes["name"] = "function"

        with syncws.Client(f"ws://localhost:{listener.port}/") as client:
            assert client.receive(HANG) == "first"
            with pytest.raises(queue.Empty):
                calls.get(timeout=QUIET)
            gate.open()
            assert [calls.get(timeout=HANG), calls.get(timeout=HANG)] == ["resource", "function"]


def test_after_a_resource_that_raised_the_function_is_never_called() -> None:
    threads = Threads(1)
    called = threading.Event()
    with listening() as listener:

        @listener.upgrade("/", service=FunctionService(lambda ws: called.set(), threads=threads))
        def resource(http: syncws.Upgrade, request: syncws.Request) -> None:
            http.accept_upgrade()
            raise ZeroDivisionError

        with syncws.Client(f"ws://localhost:{listener.port}/") as client:
            assert closed_by(client).code == 1011
        wait_until(lambda: threads.running == 0)
        assert not called.is_set()


def test_a_thread_that_cannot_be_started_costs_that_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    threads = Threads(1)
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name.startswith("syncws-function"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with serving(echo, threads=threads) as listener:
        url = f"ws://localhost:{listener.port}/"
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with syncws.Client(url) as client:
                assert closed_by(client).code == 1013
        wait_until(lambda: threads.running == 0)
        with syncws.Client(url) as client:
            client.send_text("again")
            assert client.receive(HANG) == "again"
    assert "could not start syncws-function-" in caplog.records[0].getMessage()


def test_a_forked_child_counts_its_own_threads() -> None:
    threads = Threads(2)
    threads.enter("parent's")
    read, write = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover - in the child
        os.write(write, b"%d" % threads.running)
        os._exit(0)
    os.close(write)
    assert os.read(read, 10) == b"0"
    os.close(read)
    os.waitpid(child, 0)
    assert threads.running == 1


# -- Mistakes ----------------------------------------------------------------


async def _coroutine(ws: WebSocket) -> None: ...


def _generator(ws: WebSocket) -> Iterator[None]:
    yield


def _nothing() -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (None, "a function that takes a WebSocket is wanted, not None"),
        (
            dict,
            "a function that takes a WebSocket is wanted, not <class 'dict'>; a class has to be",
        ),
        (_coroutine, r"_coroutine must be a plain function, not async and no generator"),
        (_generator, r"_generator must be a plain function, not async and no generator"),
        (_nothing, r"_nothing\(\) -> .* cannot be called with a WebSocket: .*write _nothing\(ws\)"),
    ],
)
def test_what_cannot_be_called_is_refused(function: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        FunctionService(function)


def test_the_names_that_it_must_take_are_checked() -> None:
    check_function(lambda ws, name: None, "name")
    check_function(functools.partial(lambda ws, extra, name: None, extra=1), "name")
    with pytest.raises(TypeError, match=r"echo2\(ws\).*write echo2\(ws, name\)"):

        def echo2(ws):  # type: ignore[no-untyped-def]
            ...

        check_function(echo2, "name")


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_bound_is_at_least_one(wrong: int) -> None:
    with pytest.raises(ValueError, match="max_threads must be at least 1"):
        Threads(wrong)


def test_threads_are_threads() -> None:
    with pytest.raises(TypeError, match="threads must be a Threads or None, not 5"):
        FunctionService(echo, threads=5)  # type: ignore[arg-type]


def test_they_show_what_they_are() -> None:
    threads = Threads(2)
    threads.enter("one")
    assert repr(threads) == "<syncws.Threads 1 of 2>"
    assert repr(FunctionService(echo)) == "<syncws.FunctionService echo>"
