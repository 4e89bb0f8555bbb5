"""WebSockets of Django projects, under Django's own server in a thread of the test."""

from __future__ import annotations

import contextlib
import importlib
import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

django = pytest.importorskip("django")

from django.core import signals  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import Client as Browser  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.urls import path, re_path  # noqa: E402

import syncws  # noqa: E402
from syncws.integrations import django as integration  # noqa: E402
from syncws.integrations.django import WebSocket, database, upgrade, websocket  # noqa: E402
from syncws.integrations.wsgi import default_adopter  # noqa: E402
from syncws.server.functions import Threads  # noqa: E402
from tests.django_settings import django_settings  # noqa: E402
from tests.support import HANG, wait_until  # noqa: E402

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}

urlpatterns: list[Any] = []

# What the tests want the last middleware to do with requests and responses.
hooks: dict[str, Callable[..., Any]] = {}


def touch(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., Any]:
    """A middleware: the last."""

    def middleware(request: HttpRequest) -> HttpResponse:
        refusal = hooks["before"](request) if "before" in hooks else None
        response = refusal or get_response(request)
        if "after" in hooks:
            response = hooks["after"](response)
        return response

    return middleware


def echo(ws: WebSocket, **values: Any) -> None:
    """Send back what comes."""
    for message in ws:
        ws.send(message)


class Say(syncws.Service):
    """Says what there is of a path's values."""

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(f"{caller.request.path_params} {text}")


class Site:
    """Django's development server in a thread."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"

    def connect(self, path: str, **options: Any) -> syncws.Client:
        """Return a client."""
        return syncws.Client(f"ws://{self.host}{path}", **options)

    def refused(self, path: str, **options: Any) -> syncws.HandshakeRejected:
        """Return the refusal that a client gets."""
        with pytest.raises(syncws.HandshakeRejected) as caught:
            self.connect(path, **options)
        return caught.value

    def ask(self, path: str, **options: Any) -> Any:
        """Return the answer to a message."""
        with self.connect(path, **options) as client:
            client.send_text("hi")
            return client.receive(HANG)


@pytest.fixture(scope="module", autouse=True)
def project() -> Iterator[None]:
    """The settings of a project."""
    with django_settings(
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            f"{__name__}.touch",
        ],
        ROOT_URLCONF=__name__,
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    ):
        yield


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    """The threads of the test's functions; the hooks are off again behind it."""
    mine = Threads(5)
    monkeypatch.setattr(integration, "_threads", lambda: mine)
    yield mine
    hooks.clear()


@contextlib.contextmanager
def served(*routes: Any) -> Iterator[Site]:
    """A project with these paths, until the block ends."""
    from django.core.servers.basehttp import (
        ThreadedWSGIServer,
        WSGIRequestHandler,
    )
    from django.core.wsgi import get_wsgi_application
    from django.urls import clear_url_caches

    urlpatterns[:] = routes
    clear_url_caches()
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(get_wsgi_application())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Site(server.server_address[1])
    finally:
        default_adopter().stop()
        server.shutdown()
        thread.join(HANG)
        server.server_close()


# -- Functions and services --------------------------------------------------


def test_a_function_gets_the_values_of_its_path() -> None:
    def talk(ws: WebSocket, room: str, number: int) -> None:
        ws.send(f"{room} {number!r} {ws.receive_text(HANG)}")

    with served(path("rooms/<str:room>/<int:number>", websocket(talk))) as site:
        assert site.ask("/rooms/a/7") == "a 7 hi"


def test_groups_of_an_expression_have_names() -> None:
    with served(re_path(r"^(?P<name>\w+)$", websocket(Say))) as site:
        assert site.ask("/x") == "{'name': 'x'} hi"


def test_groups_without_names_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with served(re_path(r"^(\w+)$", websocket(echo))) as site:
        assert site.refused("/x").status == 500
    assert "the path's groups need names" in caplog.text


def test_an_instance_and_a_class_are_services() -> None:
    class Count(syncws.Service):
        def __init__(self) -> None:
            self.count = 0

        def on_text(self, caller: syncws.Caller, text: str) -> None:
            self.count += 1
            caller.send_text(str(self.count))

    with served(path("own", websocket(Count)), path("all", websocket(Count()))) as site:
        assert [site.ask("/own") for _ in range(2)] == ["1", "1"]
        assert [site.ask("/all") for _ in range(2)] == ["1", "2"]


def test_a_function_has_the_request() -> None:
    def look(ws: WebSocket) -> None:
        request = ws.attributes["django"]
        assert isinstance(request, HttpRequest)
        ws.send_json([request.GET["q"], request.session["user"], request.META["REMOTE_ADDR"]])
        ws.send_json([request.body.decode(), request.path, request.COOKIES["a"]])

    def before(request: Any) -> None:
        request.session["user"] = "ann"

    hooks["before"] = before
    with (
        served(path("", websocket(look))) as site,
        site.connect("/?q=1", cookies={"a": "b"}) as client,
    ):
        assert client.receive(HANG) == '["1","ann","127.0.0.1"]'
        assert client.receive(HANG) == '["","/","b"]'


def test_over_the_bound_of_threads_clients_are_refused(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads.max_threads = 1
    with served(path("", websocket(echo))) as site:
        with site.connect("/"):
            refusal = site.refused("/")
            assert (refusal.status, refusal.headers["Retry-After"]) == (503, "5")
        wait_until(lambda: threads.running == 0)
        assert site.ask("/") == "hi"


def test_the_bound_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    integration._threads.cache_clear()
    try:
        with override_settings(SYNCWS_MAX_THREADS=7):
            assert integration._threads().max_threads == 7
        integration._threads.cache_clear()
        assert integration._threads().max_threads == 100
        assert integration._threads() is integration._threads()
    finally:
        integration._threads.cache_clear()


def test_a_function_has_the_settings_that_are_given() -> None:
    config = syncws.ServiceConfig(subprotocols=("a",))
    with (
        served(path("", websocket(echo, config=config))) as site,
        site.connect("/", subprotocols=["a"]) as client,
    ):
        assert client.subprotocol == "a"


def test_an_exception_is_logged_signalled_and_closes_with_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    signalled: queue.Queue[str] = queue.Queue()

    def broken(ws: WebSocket) -> None:
        raise ZeroDivisionError

    def note(sender: Any, request: HttpRequest, **_: Any) -> None:
        signalled.put(request.path)

    signals.got_request_exception.connect(note)
    try:
        with (
            served(path("broken", websocket(broken))) as site,
            site.connect("/broken") as client,
            pytest.raises(syncws.ConnectionClosed) as caught,
        ):
            client.receive(HANG)
    finally:
        signals.got_request_exception.disconnect(note)
    assert caught.value.received == syncws.Close(1011, "internal error")
    assert signalled.get(timeout=HANG) == "/broken"
    (record,) = [one for one in caplog.records if one.name == "syncws.server"]
    assert record.getMessage() == "/broken: a function raised"


class _Connections:
    """What stands for Django's database connections."""

    def __init__(self) -> None:
        self.closed: queue.Queue[str] = queue.Queue()

    def close_all(self) -> None:
        self.closed.put(threading.current_thread().name)


def test_the_connections_of_a_functions_thread_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connections = _Connections()
    monkeypatch.setattr(integration, "connections", connections)
    with served(path("", websocket(echo))) as site:
        assert site.ask("/") == "hi"
        assert connections.closed.get(timeout=HANG).startswith("syncws-function-")
        assert connections.closed.empty()


def test_callbacks_that_use_the_database_close_what_is_too_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    monkeypatch.setattr(integration, "close_old_connections", lambda: done.append("closed"))
    with contextlib.suppress(ZeroDivisionError), database():
        done.append("used")
        raise ZeroDivisionError
    assert done == ["closed", "used", "closed"]


# -- Who decides -------------------------------------------------------------


def test_middleware_can_refuse() -> None:
    called = threading.Event()
    hooks["before"] = lambda request: HttpResponse("no", status=401)
    with served(path("", websocket(lambda ws: called.set()))) as site:
        assert (site.refused("/").status, site.refused("/").body) == (401, b"no")
    assert not called.is_set()


def test_headers_and_cookies_of_the_response_are_in_the_101() -> None:
    def view(request: Any) -> HttpResponse:
        request.session["visits"] = 1
        response = upgrade(request, Say, headers={"X-Given": "1"})
        response.set_cookie("extra", "2")
        return response

    def after(response: HttpResponse) -> HttpResponse:
        assert response.status_code == 101
        response["X-After"] = "3"
        return response

    hooks["after"] = after
    with served(path("", view)) as site, site.connect("/") as client:
        headers = client.response.headers
        assert (headers["X-Given"], headers["X-After"]) == ("1", "3")
        assert "Content-Length" not in headers
        assert {one.name for one in client.cookies} == {"sessionid", "extra"}


def test_middleware_may_put_another_response_in_its_place() -> None:
    hooks["after"] = lambda response: HttpResponse("no", status=403)
    with served(path("", websocket(echo))) as site:
        assert site.refused("/").status == 403


def test_middleware_may_make_it_a_refusal() -> None:
    def after(response: HttpResponse) -> HttpResponse:
        response.status_code = 403
        return response

    hooks["after"] = after
    with served(path("", websocket(echo))) as site:
        assert site.refused("/").status == 403


def test_a_view_gives_attributes_and_takes_the_paths_values() -> None:
    def reply(ws: WebSocket, name: str) -> None:
        ws.send(f"{name} {ws.attributes['n']}")

    def view(request: HttpRequest, name: str) -> HttpResponse:
        return upgrade(request, reply, attributes={"n": 1})

    with served(path("<str:name>", view)) as site, site.connect("/x") as client:
        assert client.receive(HANG) == "x 1"


def test_who_is_refused_in_the_last_moment_gets_a_refusal_with_the_cookies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def view(request: Any) -> HttpResponse:
        request.session["user"] = "ann"
        return upgrade(request, Say)

    adopter = default_adopter()
    monkeypatch.setattr(adopter, "_begin", lambda: None)  # as if the process were about to end
    with served(path("", view)) as site:
        refusal = site.refused("/")
    assert refusal.status == 503
    assert refusal.headers["Retry-After"] == "5"
    assert refusal.body == b"The server is going away.\n"
    assert "sessionid" in refusal.headers["Set-Cookie"]


def test_a_post_is_refused_for_its_method_and_not_for_a_token() -> None:
    with served(path("", websocket(echo))) as site:
        answer = requests.post(f"http://{site.host}/", headers=HANDSHAKE, timeout=HANG)
    assert answer.status_code in (400, 405)


def test_pages_of_other_origins_are_refused() -> None:
    with served(path("", websocket(echo))) as site:
        assert site.refused("/", headers={"Origin": "https://foe.example"}).status == 403
        assert site.ask("/", headers={"Origin": f"http://{site.host}"}) == "hi"


def test_a_plain_request_is_told_what_to_do() -> None:
    with served(path("", websocket(echo))) as site:
        answer = requests.get(f"http://{site.host}/", timeout=HANG)
    assert answer.status_code == 426
    assert "ws://" in answer.text
    assert "Upgrade" not in answer.headers  # wsgiref does not let anybody


# -- Mistakes ----------------------------------------------------------------


def test_a_test_client_is_told_what_to_do() -> None:
    urlpatterns[:] = [path("", websocket(echo))]
    client = Browser()
    with pytest.raises(RuntimeError, match="a test client has no connection that could become"):
        client.get("/", headers={**HANDSHAKE, "Host": "testserver"})
    answer = client.get("/", headers={"Host": "testserver"})
    assert (answer.status_code, answer.headers["Upgrade"]) == (426, "websocket")


def test_a_request_without_wsgi_is_told_of() -> None:
    with pytest.raises(RuntimeError, match="has not come through WSGI"):
        upgrade(HttpRequest(), Say)


def test_values_that_a_function_does_not_take_are_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    with served(path("<str:room>", websocket(lambda ws: None))) as site:
        assert site.refused("/a").status == 500
    assert "write <lambda>(ws, room)" in caplog.text


async def _async(ws: WebSocket) -> None: ...


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (_async, "must be a plain function, not async"),
        (5, "a function that takes a WebSocket is wanted, not 5"),
        (dict, "a function that takes a WebSocket is wanted, not <class 'dict'>"),
    ],
)
def test_what_is_no_target_is_refused(target: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        websocket(target)


def test_a_service_has_settings_of_its_own() -> None:
    with pytest.raises(TypeError, match="a service has settings of its own"):
        websocket(Say, config=syncws.ServiceConfig())
    with pytest.raises(TypeError, match=r"config must be a syncws\.ServiceConfig or None, not 5"):
        websocket(echo, config=5)  # type: ignore[arg-type]


def test_a_view_is_called_as_its_target() -> None:
    assert websocket(echo).__name__ == "echo"
    assert websocket(Say).__name__ == "Say"
    assert websocket(Say()).__name__ == "Say"
    assert websocket(echo).__module__ == __name__


def test_without_django_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "django.conf", None)
    monkeypatch.delitem(sys.modules, "syncws.integrations.django")
    with pytest.raises(ImportError, match=r"pip install django"):
        importlib.import_module("syncws.integrations.django")
