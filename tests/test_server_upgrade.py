"""Resources: what can be one, and what its answers do, without a socket."""

from __future__ import annotations

import functools
import logging
import queue
import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

import syncws
from syncws.callbacks import ServiceSpec
from syncws.engine.dispatch import OPENED, Dispatcher
from syncws.errors import Close
from syncws.protocol.events import Event
from syncws.protocol.server_handshake import Refusal, refusal_response
from syncws.server.admission import Admitted, Terms
from syncws.server.hearing import Hearing
from syncws.server.routing import Route
from syncws.server.upgrade import Upgrade, check_resource
from tests.handshakes import request
from tests.support import HANG, QUIET, Task

# -- What can be a resource --------------------------------------------------


class Callable_:
    def __call__(self, http: Any, request: Any, name: str) -> None: ...

    def method(self, http: Any, request: Any, *, name: str) -> None: ...

    @classmethod
    def of_class(cls, http: Any, request: Any, name: str) -> None: ...

    @staticmethod
    def static(http: Any, request: Any, name: str, more: int = 3) -> None: ...


def plain(http: Any, request: Any, name: str) -> None: ...


@pytest.mark.parametrize(
    "resource",
    [
        plain,
        lambda a, b, name: None,
        lambda *args, name: None,
        lambda *args, **kwargs: None,
        lambda http, request, **params: None,
        lambda http, request, name=None, other=None: None,
        Callable_(),
        Callable_().method,
        Callable_.of_class,
        Callable_.static,
        functools.partial(lambda more, http, request, name: None, 3),
    ],
)
def test_what_can_be_a_resource(resource: Callable[..., Any]) -> None:
    check_resource(resource, "/chat/{name}")


@pytest.mark.parametrize(
    ("resource", "path", "said"),
    [
        (lambda http, request: None, "/{name}", "unexpected keyword argument 'name'"),
        (lambda http, request, nmae: None, "/{name}", "'nmae'"),
        (lambda http, request, name: None, "/", "missing a required argument: 'name'"),
        (lambda http, request, *, name: None, "/", "missing a required"),
        (lambda http: None, "/", "too many positional arguments"),
        (lambda http, name: None, "/{name}", "multiple values for argument 'name'"),
        (lambda name, request: None, "/{name}", "multiple values for argument 'name'"),
        (lambda http, request, *args: None, "/{name}", "unexpected keyword argument 'name'"),
        (lambda http, request, name, /: None, "/{name}", "'name'"),
        (lambda: None, "/", "too many positional arguments"),
    ],
)
def test_a_resource_takes_the_parameters_of_its_path(
    resource: Callable[..., Any], path: str, said: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(said)) as caught:
        check_resource(resource, path)
    text = str(caught.value)
    assert f"cannot be the resource of {path!r}" in text
    right = "(http, request)" if path == "/" else f"(http, request, {path[2:-1]})"
    assert text.endswith(f"it must take {right}")


class Async:
    async def __call__(self, http: Any, request: Any) -> None: ...


async def coroutine(http: Any, request: Any) -> None: ...


async def async_generator(http: Any, request: Any) -> Any:
    yield


def generator(http: Any, request: Any) -> Any:
    yield


@pytest.mark.parametrize("resource", [coroutine, async_generator, generator, Async()])
def test_a_resource_is_a_plain_function(resource: Any) -> None:
    with pytest.raises(TypeError, match="must be a plain function, not async and no generator"):
        check_resource(resource, "/")


@pytest.mark.parametrize("resource", [None, "x", 3])
def test_a_resource_can_be_called(resource: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a function\(http, request, a\), not"):
        check_resource(resource, "/{a}")


@pytest.mark.parametrize("name", ["http", "request"])
def test_a_parameter_of_the_path_takes_no_name_that_is_taken(name: str) -> None:
    with pytest.raises(TypeError, match=f"has the parameter '{name}'.*take another"):
        check_resource(lambda http, request: None, f"/{{{name}}}")


def test_wrong_arguments_of_the_decorator() -> None:
    listener = syncws.Listener(0)
    with pytest.raises(ValueError, match="slash"):
        listener.upgrade("chat")
    with pytest.raises(TypeError, match=r"write @listener\.upgrade\(path"):
        listener.upgrade(plain)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a path is a str"):
        listener.upgrade(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no type"):
        listener.upgrade("/{a:x}")
    with pytest.raises(TypeError, match="a service is"):
        listener.upgrade("/", service=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be the resource"):
        listener.upgrade("/")(plain)
    with pytest.raises(ValueError, match="the attached paths are: none"):
        listener.detach("/")
    assert listener.upgrade("/{name}")(plain) is plain
    with pytest.raises(ValueError, match="has a service already"):
        listener.upgrade("/{name}")(plain)


# -- A hearing ---------------------------------------------------------------


class Chat(syncws.Service):
    config = syncws.ServiceConfig(subprotocols=("xml", "json"))

    def on_open(self, caller: Any) -> None: ...


class FakeLoop:
    """A loop whose thread is the test: it makes the calls at once, or when it is told to."""

    def __init__(self) -> None:
        self.abandoned = False
        self.at_once = True
        self.posted = threading.Event()
        self.calls: queue.Queue[Callable[[], None]] = queue.Queue()
        self.errands: list[Callable[[], None]] = []
        self.ready: list[Any] = []
        self.pool = self
        self.queue: deque[Any] = deque()

    def call_soon(self, call: Callable[..., None], *args: Any, owner: Any = None) -> None:
        def guarded() -> None:
            try:
                call(*args)
            except Exception as exc:
                owner.on_loop_error(exc)

        if self.at_once:
            guarded()
        else:
            self.calls.put(guarded)
            self.posted.set()

    def call_in_worker(self, call: Callable[..., None], *args: Any) -> None:
        self.errands.append(functools.partial(call, *args))


class FakeLane:
    """Has room for every call."""

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop

    def submit(self, call: Callable[..., None], *args: Any) -> None:
        self._loop.call_in_worker(call, *args)


class FakeOpening:
    def __init__(self) -> None:
        self.left = False
        self.waiting = False
        self.on_lost: Callable[[], None] = lambda: None
        self.replies: list[bytes] = []
        self.aborted = 0

    def wait(self, on_lost: Callable[[], None]) -> None:
        self.waiting = True
        self.on_lost = on_lost

    def has_left(self) -> bool:
        return self.left

    def prepare(self) -> None:
        pass

    def reply(self, refusal: Refusal) -> None:
        if self.waiting:
            self.waiting = False
            self.replies.append(refusal_response(refusal))

    def abort(self) -> None:
        if self.waiting:
            self.waiting = False
            self.aborted += 1
            self.on_lost()


class FakeConnection:
    def __init__(self) -> None:
        self.sending = True
        self.failures: list[tuple[BaseException, Close]] = []

    def fail(self, error: BaseException, close: Close) -> None:
        self.failures.append((error, close))


class Scene:
    """A hearing with everything around it.

    Attributes:
        log: What happened, in order.
    """

    def __init__(
        self, resource: Callable[..., Any], service: Any = Chat, *headers: tuple[str, str]
    ) -> None:
        self.log: list[Any] = []
        self.loop = FakeLoop()
        self.opening = FakeOpening()
        self.connection = FakeConnection()
        self.caller: Any = object()
        self.terms: list[tuple[Terms, bool]] = []
        self.during: Callable[[], None] = lambda: None
        self.dispatcher = Dispatcher(
            lambda event: self.log.append(event.opcode),
            self.loop,  # type: ignore[arg-type]
            max_count=10,
            max_size=1000,
        )
        spec = None if service is None else ServiceSpec(service, client=False)
        self.hearing = Hearing(
            self.loop,  # type: ignore[arg-type]
            self.opening,  # type: ignore[arg-type]
            request(*headers),
            Route("/chat", spec, resource),
            admit=self.admit,
            on_done=lambda: self.log.append("done"),
        )
        self.hearing.begin(FakeLane(self.loop))  # type: ignore[arg-type]

    def admit(self, terms: Terms, held: bool) -> Admitted:
        self.during()
        self.opening.waiting = False
        self.terms.append((terms, held))
        if held:
            self.dispatcher.hold()
        self.dispatcher.put(Event(OPENED, None))
        return Admitted(self.connection, self.caller, self.dispatcher)  # type: ignore[arg-type]

    def run(self) -> None:
        """Be the worker."""
        (errand,) = self.loop.errands
        errand()

    @property
    def status(self) -> int | None:
        """The status of the answer other than 101."""
        if not self.opening.replies:
            return None
        (reply,) = self.opening.replies
        return int(reply.split()[1])


def test_the_opening_waits_and_the_resource_runs_in_a_worker() -> None:
    scene = Scene(lambda http, request: None)
    assert scene.opening.waiting
    assert len(scene.loop.errands) == 1
    assert scene.log == []
    scene.run()
    ((terms, held),) = scene.terms
    assert not held
    assert b"101 Switching Protocols" in terms.response
    assert scene.log == ["done"]
    assert scene.loop.ready == [scene.dispatcher]  # for any worker


def test_callbacks_are_held_until_the_resource_has_returned_and_go_on_in_its_worker() -> None:
    def resource(http: Upgrade, request: syncws.Request) -> Any:
        assert http.accept_upgrade() is scene.caller
        scene.log.append("resource")
        return scene.caller

    scene = Scene(resource)
    scene.run()
    assert scene.log == ["resource", "done", OPENED]
    assert scene.terms[0][1]
    assert scene.loop.ready == []
    assert scene.dispatcher.idle()


def accept(http: Upgrade) -> Any:
    return http.accept_upgrade()


def cancel(http: Upgrade) -> None:
    http.cancel_upgrade(400)


def set_cookie(http: Upgrade) -> None:
    http.set_cookie("a", "1")


@pytest.mark.parametrize("first", [accept, cancel])
@pytest.mark.parametrize("second", [accept, cancel, set_cookie])
def test_there_is_one_answer(first: Any, second: Any) -> None:
    def resource(http: Upgrade, request: syncws.Request) -> None:
        first(http)
        with pytest.raises(RuntimeError, match=r"has its answer: .*_upgrade was called"):
            second(http)
        scene.log.append("said")

    scene = Scene(resource)
    scene.run()
    assert scene.log[0] == "said"
    assert len(scene.terms) + len(scene.opening.replies) == 1
    assert scene.connection.failures == []


@pytest.mark.parametrize("late", [accept, cancel, set_cookie])
@pytest.mark.parametrize("raising", [False, True])
def test_no_answer_once_the_resource_has_returned(
    late: Any, raising: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def resource(http: Upgrade, request: syncws.Request) -> None:
        kept.append(http)
        if raising:
            raise ValueError

    kept: list[Upgrade] = []
    scene = Scene(resource)
    scene.run()
    with pytest.raises(RuntimeError, match="the resource has returned"):
        late(kept[0])
    assert (len(scene.terms), scene.status) == ((0, 500) if raising else (1, None))


WRONG: list[tuple[Callable[[Upgrade], Any], type[Exception], str]] = [
    (
        lambda http: http.accept_upgrade(headers={"Upgrade": "x"}),
        ValueError,
        "set by the handshake",
    ),
    (lambda http: http.accept_upgrade(headers={"A": "b\r\nC: d"}), ValueError, "line break"),
    (lambda http: http.accept_upgrade(headers="A: b"), TypeError, "headers must be"),  # type: ignore[arg-type]
    (lambda http: http.accept_upgrade(headers={"A": 1}), TypeError, "must be a str"),  # type: ignore[dict-item]
    (lambda http: http.accept_upgrade(subprotocol="soap"), ValueError, "it offers: json, a, b"),
    (lambda http: http.accept_upgrade(subprotocol="JSON"), ValueError, "does not offer"),
    (lambda http: http.accept_upgrade(subprotocol=""), ValueError, "does not offer"),
    (lambda http: http.accept_upgrade(subprotocol=["json"]), TypeError, "must be a str or None"),  # type: ignore[arg-type]
    (lambda http: http.accept_upgrade(service=3), TypeError, "a service is"),  # type: ignore[arg-type]
    (lambda http: http.accept_upgrade(service=syncws.Service()), TypeError, "has no callback"),
    (lambda http: http.cancel_upgrade("400"), TypeError, "status must be an int"),  # type: ignore[arg-type]
    (lambda http: http.cancel_upgrade(True), TypeError, "status must be an int"),
    (lambda http: http.cancel_upgrade(101), ValueError, "between 300 and 599, not 101"),
    (lambda http: http.cancel_upgrade(100), ValueError, "between 300 and 599"),
    (lambda http: http.cancel_upgrade(200), ValueError, "between 300 and 599"),
    (lambda http: http.cancel_upgrade(299), ValueError, "between 300 and 599"),
    (lambda http: http.cancel_upgrade(600), ValueError, "between 300 and 599"),
    (lambda http: http.cancel_upgrade(400, 3), TypeError, "body must be a str or bytes"),  # type: ignore[arg-type]
    (lambda http: http.cancel_upgrade(400, None), TypeError, "body must be"),  # type: ignore[arg-type]
    (lambda http: http.cancel_upgrade(400, "\ud800"), ValueError, "surrogates"),
    (lambda http: http.cancel_upgrade(400, "", {"A": "\n"}), ValueError, "line break"),
    (lambda http: http.cancel_upgrade(400, "", {"A b": "x"}), ValueError, "no header name"),
    (lambda http: http.cancel_upgrade(400, "", {"Content-Length": "1"}), ValueError, "itself"),
    (lambda http: http.cancel_upgrade(400, "", 3), TypeError, "not iterable"),  # type: ignore[arg-type]
    (lambda http: http.set_cookie("a", "b;c"), ValueError, "percent-encode"),
    (lambda http: http.set_cookie("a b", "c"), ValueError, "no name of a cookie"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_wrong_arguments_raise_in_the_resource_and_answer_nothing(
    call: Callable[[Upgrade], Any], error: type[Exception], text: str
) -> None:
    def resource(http: Upgrade, request: syncws.Request) -> None:
        with pytest.raises(error, match=text):
            call(http)
        assert scene.opening.waiting
        http.accept_upgrade(subprotocol="json")
        scene.log.append("accepted")

    scene = Scene(resource, Chat, ("Sec-WebSocket-Protocol", "json, a,, b"))
    scene.run()
    assert scene.log == ["accepted", "done", OPENED]
    ((terms, _),) = scene.terms
    assert terms.subprotocol == "json"


def test_the_service_of_accept_upgrade_overrides_that_of_the_decorator() -> None:
    own = Chat()
    for service, wanted in ((None, Chat), (Chat, Chat), (own, own)):
        scene = Scene(lambda http, request, s=service: http.accept_upgrade(service=s))
        scene.run()
        assert scene.terms[0][0].spec.service is wanted


def test_the_answer_of_a_refusal_is_whole_before_it_is_posted() -> None:
    def resource(http: Upgrade, request: syncws.Request) -> None:
        http.set_cookie("a", "1", path=None)
        http.cancel_upgrade(403, "no", {"X-Why": " because "})

    scene = Scene(resource)
    scene.run()
    (reply,) = scene.opening.replies
    head, _, body = reply.partition(b"\r\n\r\n")
    assert body == b"no"
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 403 Forbidden",
        b"X-Why: because",
        b"Set-Cookie: a=1",
        b"Content-Type: text/plain; charset=utf-8",
        b"Connection: close",
        b"Content-Length: 2",
    ]


# -- What comes in between ---------------------------------------------------


def test_accept_upgrade_waits_for_the_io_thread() -> None:
    def resource(http: Upgrade, request: syncws.Request) -> None:
        scene.log.append(http.accept_upgrade())

    scene = Scene(resource)
    scene.loop.at_once = False
    worker = Task(scene.run)
    call = scene.loop.calls.get(timeout=HANG)
    assert scene.log == []
    call()
    worker.result()
    assert scene.log == [scene.caller, "done", OPENED]


@pytest.mark.parametrize("when", ["before it asks", "while it waits", "at the loop's end"])
def test_an_opening_that_ends_answers_accept_upgrade(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    def resource(http: Upgrade, request: syncws.Request) -> None:
        if when == "before it asks":
            scene.opening.abort()
        http.accept_upgrade()

    caplog.set_level(logging.INFO)
    scene = Scene(resource)
    scene.loop.at_once = False
    worker = Task(scene.run)
    call = scene.loop.calls.get(timeout=HANG)
    scene.opening.abort()
    if when != "at the loop's end":  # where it is never made
        call()
    worker.result()
    assert scene.terms == []
    assert scene.log == ["done"]
    assert scene.opening.replies == []
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize("error", [syncws.ConnectionClosed(), ValueError("boom")])
@pytest.mark.parametrize("answer", [False, True])
def test_what_is_logged_once_the_client_is_lost(
    error: Exception, answer: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def resource(http: Upgrade, request: syncws.Request) -> None:
        scene.opening.abort()
        if answer:
            with pytest.raises(syncws.ConnectionClosed):
                http.accept_upgrade()
        raise error

    caplog.set_level(logging.INFO)
    scene = Scene(resource)
    scene.run()
    everyday = isinstance(error, syncws.ConnectionClosed)
    assert [record.levelname for record in caplog.records] == ["INFO" if everyday else "ERROR"]
    assert scene.opening.replies == []


def test_the_end_of_its_own_connection_is_an_everyday_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def resource(http: Upgrade, request: syncws.Request) -> None:
        http.accept_upgrade()
        scene.connection.sending = False
        raise syncws.ConnectionClosed

    caplog.set_level(logging.INFO)
    scene = Scene(resource)
    scene.run()
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert scene.log == ["done"]


def test_another_connections_end_is_no_excuse(caplog: pytest.LogCaptureFixture) -> None:
    def before(http: Upgrade, request: syncws.Request) -> None:
        raise syncws.ConnectionClosed

    def behind(http: Upgrade, request: syncws.Request) -> None:
        http.accept_upgrade()
        raise syncws.ConnectionClosed

    one, other = Scene(before), Scene(behind)
    one.run()
    other.run()
    assert one.status == 500
    assert [close for _, close in other.connection.failures] == [Close(1011, "internal error")]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_the_service_never_hears_of_a_connection_whose_resource_raised() -> None:
    def resource(http: Upgrade, request: syncws.Request) -> None:
        http.accept_upgrade()
        raise error

    error = ValueError("boom")
    scene = Scene(resource)
    scene.run()
    assert scene.connection.failures == [(error, Close(1011, "internal error"))]
    assert scene.log == ["done"]
    assert scene.dispatcher.idle()


def test_a_resource_whose_client_is_gone_already_is_not_run() -> None:
    scene = Scene(lambda http, request: scene.log.append("asked"))
    scene.opening.abort()
    scene.run()
    assert scene.log == ["done"]


def test_a_failure_of_ours_answers_accept_upgrade(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    def resource(http: Upgrade, request: syncws.Request) -> None:
        http.accept_upgrade()

    caplog.set_level(logging.INFO)
    scene = Scene(resource)
    scene.during = broken
    scene.run()
    assert scene.opening.aborted == 1
    assert scene.log == ["done"]
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_in_a_forked_child_nothing_is_counted() -> None:
    def resource(http: Upgrade, request: syncws.Request) -> None:
        scene.loop.abandoned = True
        scene.opening.abort()
        with pytest.raises(syncws.ConnectionClosed):
            http.accept_upgrade()
        scene.log.append("child")

    scene = Scene(resource)
    scene.loop.at_once = False
    scene.run()
    assert scene.log == ["child"]


def test_the_end_of_the_resource_waits_for_an_accept_in_another_thread() -> None:
    """Or the dispatcher would be held for ever."""

    def resource(http: Upgrade, request: syncws.Request) -> None:
        tasks.append(Task(http.accept_upgrade))
        assert scene.loop.posted.wait(HANG)

    tasks: list[Task] = []
    scene = Scene(resource)
    scene.loop.at_once = False
    worker = Task(scene.run)
    call = scene.loop.calls.get(timeout=HANG)
    worker.join(QUIET)
    assert worker.is_alive()
    call()
    assert tasks[0].result() is scene.caller
    worker.result()
    assert scene.log == ["done", OPENED]


def test_nobody_is_asked_about_a_client_that_has_left(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[None] = []
    scene = Scene(lambda http, request: asked.append(None))
    scene.opening.left = True
    scene.run()
    assert asked == []
    assert scene.opening.aborted == 1
    assert scene.log == ["done"]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
