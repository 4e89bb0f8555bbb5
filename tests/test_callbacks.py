"""The runner: from events to callbacks, without a socket."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import syncws
from syncws.callbacks import Runner, ServiceSpec
from syncws.engine.dispatch import CLOSED, IDLE, OPENED, RECONNECT
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


# -- on_reconnect ------------------------------------------------------------

ATTEMPT: Any = object()


def client_runner_of(service: Any) -> tuple[Runner, FakeConnection]:
    connection = FakeConnection()
    runner = Runner(ServiceSpec(service, client=True), LOG, "ws://some.example/")
    runner.bind(CALLER, connection)  # type: ignore[arg-type]
    return runner, connection


class ForAClient(syncws.Service):
    """All that a client's service has, without on_open."""

    def __init__(self, *raising: str, error: BaseException = BOOM) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._raising = raising
        self._error = error

    def _note(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))
        if name in self._raising:
            raise self._error

    def on_text(self, client: Any, text: str) -> None:
        self._note("on_text", text)

    def on_reconnect(self, client: Any, attempt: Any) -> None:
        assert client is CALLER
        self._note("on_reconnect", attempt)

    def on_error(self, client: Any, error: BaseException) -> None:
        self._note("on_error", error)

    def on_close(self, client: Any, status_code: int, reason: str) -> None:
        self._note("on_close", status_code, reason)


AGAIN = Event(RECONNECT, ATTEMPT)


def test_on_reconnect_gets_the_client_and_the_attempt() -> None:
    service = ForAClient()
    runner, connection = client_runner_of(service)
    for event in (AGAIN, Event(TEXT, "x"), AGAIN):
        runner.handle(event)
    assert service.calls == [("on_reconnect", ATTEMPT), ("on_text", "x"), ("on_reconnect", ATTEMPT)]
    assert connection.failures == []


@pytest.mark.parametrize("of_class", [True, False])
def test_on_reconnect_is_for_clients_only(of_class: bool) -> None:
    service = ForAClient if of_class else ForAClient()
    with pytest.raises(TypeError, match=r"ForAClient\.on_reconnect is never called on a listener"):
        ServiceSpec(service, client=False)
    assert "on_reconnect" in ServiceSpec(service, client=True).has


def test_the_parameters_of_on_reconnect_are_checked() -> None:
    class Short(syncws.Service):
        def on_reconnect(self, client: Any) -> None: ...

    class Long(syncws.Service):
        def on_reconnect(self, client: Any, attempt: Any, more: Any) -> None: ...

    for service in (Short, Short(), Long, Long()):
        with pytest.raises(TypeError, match=r"on_reconnect.*must take.*caller, attempt\)"):
            ServiceSpec(service, client=True)

    class Async(syncws.Service):
        async def on_reconnect(self, client: Any, attempt: Any) -> None: ...

    with pytest.raises(TypeError, match="on_reconnect must be a plain method"):
        ServiceSpec(Async, client=True)


@pytest.mark.parametrize("name", ["on_reconnected", "on_reconnecting", "on_retry_reconnect"])
def test_a_name_like_on_reconnect_is_told(name: str) -> None:
    service = type("Near", (syncws.Service,), {name: lambda self, client, attempt: None})
    with pytest.raises(TypeError, match=f"{name} is no callback; did you mean on_reconnect"):
        ServiceSpec(service, client=True)


def test_once_this_end_has_closed_on_reconnect_is_not_called() -> None:
    service = ForAClient()
    runner, connection = client_runner_of(service)
    connection.closed_here = True
    runner.handle(AGAIN)
    runner.handle(ENDED)
    assert service.calls == [("on_close", 4000, "bye")]


def test_an_on_reconnect_that_raises_ends_the_client(caplog: pytest.LogCaptureFixture) -> None:
    service = ForAClient("on_reconnect")
    runner, connection = client_runner_of(service)
    for event in (AGAIN, AGAIN, ENDED):
        runner.handle(event)
    assert connection.failures == [(BOOM, Close(1011, "internal error"))]
    assert [call[0] for call in service.calls] == ["on_reconnect", "on_error", "on_close"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "ws://some.example/" in record.getMessage()


@pytest.mark.parametrize("name", ["on_text", "on_reconnect"])
@pytest.mark.parametrize("sending", [True, False])
def test_reconnecting_out_of_a_callback_is_no_failure(
    name: str, sending: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    service = ForAClient(name, error=syncws.Reconnecting("later"))
    runner, connection = client_runner_of(service)
    connection.sending = sending
    for event in (AGAIN, Event(TEXT, "x"), AGAIN, Event(TEXT, "y"), ENDED):
        runner.handle(event)
    assert connection.failures == []
    assert not connection.closed_here
    assert [call[0] for call in service.calls] == ["on_reconnect", "on_text"] * 2 + ["on_close"]
    assert [(record.levelno, record.exc_info) for record in caplog.records] == [
        (logging.INFO, None)
    ] * 2
    assert "a callback was cut short: later" in caplog.records[0].getMessage()


# -- A failure that nobody hears of -------------------------------------------


class Deaf(syncws.Service):
    """Has no on_error."""

    def on_text(self, caller: Any, text: str) -> None:
        if text == "raise":
            raise BOOM


def test_a_failure_without_on_error_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    runner, _ = client_runner_of(Deaf())
    for event in (Event(ERROR, syncws.ProtocolError("bad frame")), Event(ERROR, BOOM), ENDED):
        runner.handle(event)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "ws://some.example/: a connection failed: bad frame"


def test_a_callback_that_raised_is_logged_once_without_on_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner, _ = client_runner_of(Deaf())
    for event in (Event(TEXT, "raise"), Event(ERROR, BOOM), ENDED):
        runner.handle(event)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_failure_with_on_error_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    service = ForAClient()
    runner, _ = client_runner_of(service)
    runner.handle(Event(ERROR, BOOM))
    assert service.calls == [("on_error", BOOM)]
    assert caplog.records == []
