"""The runner: from events to callbacks, without a socket."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import syncws
from syncws.callbacks import Runner, ServiceSpec
from syncws.engine.dispatch import CLOSED, IDLE, OPENED
from syncws.errors import Close
from syncws.protocol.events import BINARY, CLOSE, ERROR, PING, PONG, TEXT, Event
from tests.support import broken_log

LOG = logging.getLogger("syncws.tests")


class FakeConnection:
    """What a runner sees of a connection."""

    def __init__(self) -> None:
        self.closed_here = False
        self.sending = True
        self.failures: list[tuple[BaseException, Close]] = []

    def fail(self, error: BaseException, close: Close) -> None:
        self.failures.append((error, close))
        self.closed_here = True

    def give_up(self) -> None:
        self.closed_here = True


class Everything(syncws.Service):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.raises: dict[str, BaseException] = {}

    def note(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))
        if name in self.raises:
            raise self.raises[name]

    def on_open(self, caller: Any) -> None:
        self.note("on_open", caller)

    def on_text(self, caller: Any, text: str) -> None:
        self.note("on_text", caller, text)

    def on_binary(self, caller: Any, data: bytes) -> None:
        self.note("on_binary", caller, data)

    def on_ping(self, caller: Any, data: bytes) -> None:
        self.note("on_ping", caller, data)

    def on_pong(self, caller: Any, data: bytes) -> None:
        self.note("on_pong", caller, data)

    def on_idle_timeout(self, caller: Any) -> None:
        self.note("on_idle_timeout", caller)

    def on_error(self, caller: Any, error: BaseException) -> None:
        self.note("on_error", caller, error)

    def on_close(self, caller: Any, status_code: int, reason: str) -> None:
        self.note("on_close", caller, status_code, reason)


BOOM = ValueError("boom")
CALLER: Any = object()
ENDED = Event(CLOSED, syncws.Close(4000, "bye"))


def runner_of(service: Any) -> tuple[Runner, FakeConnection]:
    connection = FakeConnection()
    runner = Runner(ServiceSpec(service, client=False), LOG, "/some/path")
    runner.bind(CALLER, connection)  # type: ignore[arg-type]
    return runner, connection


def test_each_event_has_its_callback() -> None:
    service = Everything()
    runner, connection = runner_of(service)
    for event in (
        Event(OPENED, None),
        Event(TEXT, "text"),
        Event(BINARY, b"data"),
        Event(PING, b"ping"),
        Event(PONG, b"pong"),
        Event(IDLE, None),
        Event(CLOSE, syncws.Close(4000, "bye")),
        Event(ERROR, BOOM),
        ENDED,
    ):
        runner.handle(event)
    assert service.calls == [
        ("on_open", CALLER),
        ("on_text", CALLER, "text"),
        ("on_binary", CALLER, b"data"),
        ("on_ping", CALLER, b"ping"),
        ("on_pong", CALLER, b"pong"),
        ("on_idle_timeout", CALLER),
        ("on_error", CALLER, BOOM),
        ("on_close", CALLER, 4000, "bye"),
    ]
    assert connection.failures == []


def test_events_without_a_callback_are_dropped() -> None:
    class Deaf(syncws.Service):
        def on_close(self, caller: Any, status_code: int, reason: str) -> None:
            calls.append(status_code)

    calls: list[int] = []
    runner, connection = runner_of(Deaf())
    for opcode in (OPENED, TEXT, BINARY, PING, PONG, IDLE, ERROR):
        runner.handle(Event(opcode, None))
    runner.handle(ENDED)
    assert calls == [4000]
    assert connection.failures == []


def test_final_goes_to_those_who_take_it() -> None:
    class Streaming(syncws.Service):
        def on_text(self, caller: Any, text: str, final: bool) -> None:
            calls.append((text, final))

        def on_binary(self, caller: Any, data: bytes, final: bool = True) -> None:
            calls.append((data, final))

    calls: list[tuple[Any, bool]] = []
    runner, _ = runner_of(Streaming())
    runner.handle(Event(TEXT, "a", False))
    runner.handle(Event(TEXT, "b", True))
    runner.handle(Event(BINARY, b"c", False))
    assert calls == [("a", False), ("b", True), (b"c", False)]


def test_once_this_end_has_closed_only_the_end_is_told() -> None:
    service = Everything()
    runner, connection = runner_of(service)
    connection.closed_here = True
    for opcode in (OPENED, TEXT, BINARY, PING, PONG, IDLE):
        runner.handle(Event(opcode, None))
    runner.handle(Event(ERROR, BOOM))
    runner.handle(ENDED)
    # on_open is the first event: whoever closed it then was not the service.
    names = [call[0] for call in service.calls if call[0] != "on_open"]
    assert names == ["on_error", "on_close"]


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("on_open", Event(OPENED, None)),
        ("on_text", Event(TEXT, "x")),
        ("on_binary", Event(BINARY, b"x")),
        ("on_ping", Event(PING, b"x")),
        ("on_pong", Event(PONG, b"x")),
        ("on_idle_timeout", Event(IDLE, None)),
    ],
)
@pytest.mark.parametrize("error", [BOOM, SystemExit(1), KeyboardInterrupt()])
def test_a_callback_that_raises(
    name: str, event: Event, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    service = Everything()
    service.raises = {name: error}
    runner, connection = runner_of(service)
    runner.handle(event)
    if event.opcode != OPENED:
        runner.handle(event)  # closed here: not delivered
    runner.handle(ENDED)
    assert connection.failures == [(error, Close(1011, "internal error"))]
    assert [call[0] for call in service.calls] == [name, "on_error", "on_close"]
    assert service.calls[1][2] is error
    (record,) = caplog.records
    assert record.name == LOG.name
    assert record.levelno == logging.ERROR
    assert "/some/path" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


class Coded(Exception):
    """As those of web frameworks are."""

    def __init__(self, status_code: Any) -> None:
        super().__init__(status_code)
        self.status_code = status_code


@pytest.mark.parametrize(
    "error",
    [
        *(Coded(code) for code in (404, "404 Not Found", 70_000, None, 1000)),
        syncws.InvalidContinuationFrameError("a send mixed fragments"),
    ],
    ids=repr,
)
def test_an_exceptions_status_code_is_no_close_code(error: Exception) -> None:
    service = Everything()
    service.raises = {"on_text": error}
    runner, connection = runner_of(service)
    runner.handle(Event(TEXT, "x"))
    runner.handle(ENDED)
    assert connection.failures == [(error, Close(1011, "internal error"))]
    assert [call[0] for call in service.calls] == ["on_text", "on_error", "on_close"]


def test_a_callback_that_is_cut_short_by_the_end_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Everything()
    service.raises = {"on_text": syncws.ConnectionClosed(None, None)}
    runner, connection = runner_of(service)
    connection.sending = False
    with caplog.at_level(logging.INFO, LOG.name):
        runner.handle(Event(TEXT, "first"))
        runner.handle(Event(TEXT, "second"))
        runner.handle(ENDED)
    assert connection.failures == []
    assert [call[0] for call in service.calls] == ["on_text", "on_close"]
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "/some/path" in record.getMessage()
    assert not record.exc_info


def test_the_end_of_another_connection_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    error = syncws.ConnectionClosed(None, None)
    service = Everything()
    service.raises = {"on_text": error}
    runner, connection = runner_of(service)
    runner.handle(Event(TEXT, "x"))
    runner.handle(ENDED)
    assert connection.failures == [(error, Close(1011, "internal error"))]
    assert [call[0] for call in service.calls] == ["on_text", "on_error", "on_close"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("error", [BOOM, syncws.ConnectionClosed(None, None)])
def test_a_log_that_raises_does_not_change_the_end(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    service = Everything()
    service.raises = {"on_text": error}
    runner, connection = runner_of(service)
    connection.sending = error is BOOM
    with broken_log(LOG.name):
        runner.handle(Event(TEXT, "x"))
        runner.handle(ENDED)
    assert connection.closed_here
    assert [call[0] for call in service.calls][-1] == "on_close"
    assert ("on_error", CALLER, BOOM) in service.calls or error is not BOOM


def test_an_on_error_that_raises_is_not_called_with_its_own_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Everything()
    service.raises = {"on_error": BOOM}
    runner, connection = runner_of(service)
    runner.handle(Event(ERROR, syncws.ProtocolError("bad")))
    runner.handle(ENDED)
    assert [call[0] for call in service.calls] == ["on_error", "on_close"]
    assert len(caplog.records) == 1
    assert connection.failures == [(BOOM, Close(1011, "internal error"))]


def test_an_on_error_that_raises_behind_another_callback_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Everything()
    service.raises = {"on_text": KeyError("first"), "on_error": BOOM}
    runner, _ = runner_of(service)
    runner.handle(Event(TEXT, "x"))
    runner.handle(ENDED)
    assert [call[0] for call in service.calls] == ["on_text", "on_error", "on_close"]
    assert [type(r.exc_info[1]) for r in caplog.records if r.exc_info] == [KeyError, ValueError]


def test_nothing_comes_behind_an_on_close_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    service = Everything()
    service.raises = {"on_close": BOOM}
    runner, _ = runner_of(service)
    runner.handle(ENDED)
    assert [call[0] for call in service.calls] == ["on_close"]
    assert len(caplog.records) == 1


def test_a_class_is_made_with_the_first_event_and_once() -> None:
    made: list[Any] = []

    class Made(Everything):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    runner, _ = runner_of(Made)
    assert made == []
    runner.handle(Event(OPENED, None))
    runner.handle(Event(TEXT, "x"))
    assert len(made) == 1
    assert [call[0] for call in made[0].calls] == ["on_open", "on_text"]


def test_a_class_that_cannot_be_made_fails_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    class Unmade(Everything):
        def __init__(self) -> None:
            raise BOOM

    runner, connection = runner_of(Unmade)
    for event in (Event(OPENED, None), Event(TEXT, "x"), ENDED):
        runner.handle(event)
    assert connection.failures == [(BOOM, Close(1011, "internal error"))]
    assert len(caplog.records) == 1
