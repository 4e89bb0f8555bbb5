"""WebSockets of Flask applications, under Flask's own server in a thread of the test."""

from __future__ import annotations

import contextlib
import importlib
import logging
import queue
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import flask
import pytest
import requests
from requests.cookies import RequestsCookieJar
from werkzeug.serving import make_server

import syncws
from syncws.integrations.flask import WebSocket, WebSockets
from syncws.integrations.wsgi import Adopter
from tests.support import HANG, RawPeer, Task, wait_until

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def echo(ws: WebSocket, **values: Any) -> None:
    """Send back what comes."""
    for message in ws:
        ws.send(message)


class Site:
    """An application and its WebSockets."""

    def __init__(self, **options: Any) -> None:
        self.app = flask.Flask("site")
        self.app.secret_key = "not this one"
        self.adopter = Adopter()
        self.sockets = WebSockets(self.app, adopter=self.adopter, **options)
        self.host = ""

        @self.app.get("/login/<name>")
        def login(name: str) -> str:
            flask.session["user"] = name
            return "welcome"

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Flask's server runs in a thread, until the block ends."""
        server = make_server("127.0.0.1", 0, self.app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        self.host = f"127.0.0.1:{server.server_port}"
        thread.start()
        try:
            yield
        finally:
            self.adopter.stop()
            server.shutdown()
            thread.join(HANG)
            server.server_close()

    def connect(self, path: str, **options: Any) -> syncws.Client:
        """Return a client."""
        return syncws.Client(f"ws://{self.host}{path}", **options)

    def refused(self, path: str, **options: Any) -> syncws.HandshakeRejected:
        """Return the refusal that a client gets."""
        with pytest.raises(syncws.HandshakeRejected) as caught:
            self.connect(path, **options)
        return caught.value

    def get(self, path: str) -> requests.Response:
        """Return the answer to a plain request."""
        return requests.get(f"http://{self.host}{path}", timeout=HANG)

    def login(self, name: str = "ann") -> RequestsCookieJar:
        """Return the cookies of somebody who has logged in."""
        return self.get(f"/login/{name}").cookies


@pytest.fixture
def site() -> Site:
    return Site()


class Say(syncws.Service):
    """Says what there is of a path's values."""

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(f"{caller.request.path_params} {text}")


def ask(client: syncws.Client, text: str = "hi") -> Any:
    """Return the answer to a message."""
    with client:
        client.send_text(text)
        return client.receive(HANG)


# -- Functions ---------------------------------------------------------------


def test_a_function_gets_the_values_of_its_rule(site: Site) -> None:
    @site.sockets.route("/rooms/<room>/<int:number>")
    def talk(ws: WebSocket, room: str, number: int) -> None:
        ws.send(f"{room} {number!r} {ws.receive_text(HANG)}")

    with site.served():
        assert ask(site.connect("/rooms/a%20b/7")) == "a b 7 hi"


def test_the_decorator_leaves_the_function_as_it_is(site: Site) -> None:
    assert site.sockets.route("/")(echo) is echo
    assert site.sockets.route("/say")(Say) is Say


def test_a_function_has_the_contexts_of_its_request(site: Site) -> None:
    @site.app.before_request
    def load() -> None:
        flask.g.user = flask.session.get("user")

    @site.sockets.route("/")
    def look(ws: WebSocket) -> None:
        app = flask.current_app._get_current_object()  # type: ignore[attr-defined]
        assert app is site.app
        assert flask.request.endpoint == "look"
        ws.send_json([flask.request.args["q"], flask.session["user"], flask.g.user])

    with site.served(), site.connect("/?q=1", cookies=site.login()) as client:
        assert client.receive(HANG) == '["1","ann","ann"]'


def test_what_teardown_has_closed_is_not_what_a_function_gets(site: Site) -> None:
    closed: queue.Queue[tuple[str, str]] = queue.Queue()

    @site.app.before_request
    def load() -> None:
        flask.g.database = "the request's"
        flask.g.user = "ann"

    @site.app.teardown_appcontext
    def close(error: BaseException | None) -> None:
        name = threading.current_thread().name
        closed.put((flask.g.pop("database", "none"), name.split("-")[0]))

    @site.sockets.route("/")
    def look(ws: WebSocket) -> None:
        ws.send_json(["database" in flask.g, flask.g.user])
        flask.g.database = "the function's"
        echo(ws)

    with site.served():
        with site.connect("/") as client:
            assert client.receive(HANG) == '[false,"ann"]'
            assert closed.get(timeout=HANG)[0] == "the request's"
            assert closed.empty()
        assert closed.get(timeout=HANG) == ("the function's", "syncws")


def test_functions_of_two_connections_have_contexts_of_their_own(site: Site) -> None:
    @site.sockets.route("/<name>")
    def keep(ws: WebSocket, name: str) -> None:
        flask.g.name = name
        for _ in ws:
            ws.send(f"{flask.g.name} {flask.request.path}")

    with site.served(), site.connect("/one") as one, site.connect("/two") as two:
        for client, name in ((one, "one"), (two, "two")) * 2:
            client.send_text("?")
            assert client.receive(HANG) == f"{name} /{name}"


def test_over_the_bound_of_threads_clients_are_refused() -> None:
    site = Site(max_threads=1)
    site.sockets.route("/one")(echo)
    site.sockets.route("/two", endpoint="other")(echo)
    with site.served():
        with site.connect("/one"):
            refusal = site.refused("/two")
            assert (refusal.status, refusal.headers["Retry-After"]) == (503, "5")
            assert site.get("/login/ann").status_code == 200
        wait_until(lambda: site.sockets._threads.running == 0)
        assert ask(site.connect("/two")) == "hi"


def test_a_function_has_the_settings_that_are_given() -> None:
    config = syncws.ServiceConfig(subprotocols=("a",))
    other = syncws.ServiceConfig(subprotocols=("b",))
    site = Site(config=config)
    site.sockets.route("/one")(echo)
    site.sockets.route("/two", endpoint="two", config=other)(echo)
    with site.served():
        with site.connect("/one", subprotocols=["a", "b"]) as client:
            assert client.subprotocol == "a"
        with site.connect("/two", subprotocols=["a", "b"]) as client:
            assert client.subprotocol == "b"


def test_an_exception_is_logged_signalled_and_closes_with_1011(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    signalled: queue.Queue[Any] = queue.Queue()

    @site.sockets.route("/")
    def broken(ws: WebSocket) -> None:
        raise ZeroDivisionError("oh")

    def note(sender: Any, exception: BaseException, **_: Any) -> None:
        signalled.put((sender, type(exception)))

    with site.served(), flask.got_request_exception.connected_to(note, site.app):
        with site.connect("/") as client, pytest.raises(syncws.ConnectionClosed) as caught:
            client.receive(HANG)
        assert caught.value.received == syncws.Close(1011, "internal error")
        assert signalled.get(timeout=HANG) == (site.app, ZeroDivisionError)
    (record,) = [one for one in caplog.records if one.name == "syncws.server"]
    assert record.getMessage() == "/: a function raised"


def test_abort_in_a_function_closes_with_1008(site: Site) -> None:
    @site.sockets.route("/")
    def members(ws: WebSocket) -> None:
        if "user" not in flask.session:
            flask.abort(401)

    with (
        site.served(),
        site.connect("/") as client,
        pytest.raises(syncws.ConnectionClosed) as caught,
    ):
        client.receive(HANG)
    assert caught.value.received == syncws.Close(1008, "401 Unauthorized")


def test_the_end_of_a_connection_is_no_exception(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    signalled = threading.Event()
    ended = threading.Event()

    @site.sockets.route("/")
    def loop(ws: WebSocket) -> None:
        try:
            while True:
                ws.send(ws.receive())
        finally:
            ended.set()

    def note(sender: Any, **_: Any) -> None:
        signalled.set()

    with site.served(), flask.got_request_exception.connected_to(note, site.app):
        assert ask(site.connect("/")) == "hi"
        assert ended.wait(HANG)
    assert not signalled.is_set()
    assert [one for one in caplog.records if one.name.startswith("syncws")] == []


# -- Services ----------------------------------------------------------------


def test_a_class_makes_a_service_for_each_connection(site: Site) -> None:
    @site.sockets.route("/count/<name>")
    class Count(syncws.Service):
        def __init__(self) -> None:
            self.count = 0

        def on_text(self, caller: syncws.Caller, text: str) -> None:
            self.count += 1
            caller.send_text(f"{caller.request.path_params['name']} {self.count}")

    with site.served():
        assert ask(site.connect("/count/a")) == "a 1"
        assert ask(site.connect("/count/b")) == "b 1"


def test_an_instance_serves_all(site: Site) -> None:
    site.sockets.add_service("/say/<int:n>", Say())
    with site.served():
        assert ask(site.connect("/say/7")) == "{'n': 7} hi"


def test_callbacks_have_the_requests_context_where_they_ask_for_it(site: Site) -> None:
    @site.sockets.route("/")
    class Who(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            assert not flask.has_request_context()
            assert not flask.has_app_context()
            with site.sockets.context(caller):
                caller.send_text(f"{flask.session['user']} {flask.request.args['q']}")
            assert not flask.has_app_context()

    with site.served(), site.connect("/?q=5", cookies=site.login()) as client:
        for _ in range(3):
            client.send_text("?")
            assert client.receive(HANG) == "ann 5"


def test_who_has_not_come_through_flask_has_no_context(site: Site) -> None:
    class Outside:
        attributes: dict[str, Any] = {}

    context = site.sockets.context(Outside())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has not come through a route of Flask"), context:
        pass


# -- Who decides -------------------------------------------------------------


def test_before_request_can_refuse(site: Site) -> None:
    called = threading.Event()

    @site.app.before_request
    def check() -> Any:
        if flask.request.path == "/in" and "user" not in flask.session:
            return flask.redirect("/login/x") if flask.request.args else ("log in", 401)
        return None

    @site.sockets.route("/in")
    def inside(ws: WebSocket) -> None:
        called.set()
        echo(ws)

    with site.served():
        assert (site.refused("/in").status, site.refused("/in").body) == (401, b"log in")
        moved = site.refused("/in?q=1")
        assert (moved.status, moved.headers["Location"]) == (302, "/login/x")
        assert not called.is_set()
        assert ask(site.connect("/in", cookies=site.login())) == "hi"


def test_headers_and_cookies_of_the_response_are_in_the_101(site: Site) -> None:
    @site.app.before_request
    def count() -> None:
        flask.session["visits"] = flask.session.get("visits", 0) + 1

    @site.app.after_request
    def mark(response: flask.Response) -> flask.Response:
        assert response.status_code == 101
        response.headers["X-After"] = "1"
        response.set_cookie("extra", "2")
        return response

    site.sockets.route("/")(echo)
    with site.served(), site.connect("/") as client:
        headers = client.response.headers
        assert headers["X-After"] == "1"
        assert "Content-Type" not in headers
        assert "Content-Length" not in headers
        names = {one.name for one in client.cookies}
        assert names == {"session", "extra"}


def test_what_a_function_changes_of_the_session_reaches_nobody(site: Site) -> None:
    done = threading.Event()

    @site.sockets.route("/")
    def late(ws: WebSocket) -> None:
        flask.session["late"] = True
        done.set()
        echo(ws)

    with site.served(), site.connect("/") as client:
        assert done.wait(HANG)
        assert "Set-Cookie" not in client.response.headers


def test_after_request_may_put_another_response_in_its_place(site: Site) -> None:
    @site.app.after_request
    def refuse(response: flask.Response) -> flask.Response:
        return flask.Response("closed", 403)

    called = threading.Event()
    site.sockets.route("/", endpoint="called")(lambda ws: called.set())
    with site.served():
        assert site.refused("/").status == 403
    assert not called.is_set()


def test_after_request_may_make_it_a_refusal(site: Site) -> None:
    @site.app.after_request
    def refuse(response: flask.Response) -> flask.Response:
        response.status_code = 403
        return response

    site.sockets.route("/")(echo)
    with site.served():
        assert site.refused("/").status == 403


def test_a_view_decides_with_all_that_flask_has(site: Site) -> None:
    @site.app.route("/chat/<name>", websocket=True)
    def chat(name: str) -> flask.Response:
        if "user" not in flask.session:
            flask.abort(401)
        flask.session["room"] = name
        return site.sockets.accept(Say, headers={"X-Room": name}, attributes={"n": 1})

    @site.app.route("/talk/<name>", websocket=True)
    def talk(name: str) -> flask.Response:
        def reply(ws: WebSocket, name: str) -> None:
            ws.send(f"{name} {ws.attributes['n']} {flask.session['room']}")

        flask.session["room"] = "hall"
        return site.sockets.accept(reply, attributes={"n": 1})

    with site.served():
        assert site.refused("/chat/a").status == 401
        with site.connect("/chat/a", cookies=site.login()) as client:
            assert client.response.headers["X-Room"] == "a"
            assert {one.name for one in client.cookies} == {"session"}
            assert "Set-Cookie" in client.response.headers
            assert ask(client) == "{'name': 'a'} hi"
        with site.connect("/talk/b") as client:
            assert client.receive(HANG) == "b 1 hall"


def test_a_resource_decides_as_on_a_listener(site: Site) -> None:
    @site.sockets.upgrade("/chat/<name>", service=Say)
    def chat(http: syncws.Upgrade, request: syncws.Request, name: str) -> Any:
        if "user" not in flask.session:
            return http.cancel_upgrade(401, "Log in first", headers={"X-Why": "login"})
        caller = http.accept_upgrade(headers={"X-Room": name})
        caller.send_text(f"hello {flask.session['user']} {flask.request.args['q']}")
        return caller

    with site.served():
        refusal = site.refused("/chat/a")
        assert (refusal.status, refusal.body) == (401, b"Log in first")
        assert refusal.headers["X-Why"] == "login"
        with site.connect("/chat/a?q=1", cookies=site.login()) as client:
            assert client.response.headers["X-Room"] == "a"
            assert client.receive(HANG) == "hello ann 1"
            assert ask(client) == "{'name': 'a'} hi"


def test_a_resource_that_raises_refuses_with_500(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @site.sockets.upgrade("/", service=Say)
    def broken(http: syncws.Upgrade, request: syncws.Request) -> None:
        raise ZeroDivisionError

    with site.served():
        assert site.refused("/").status == 500
    assert "/: a resource raised" in caplog.text


def test_pages_of_other_origins_are_refused(site: Site) -> None:
    allowed = syncws.ServiceConfig(allowed_origins=("https://friend.example",))
    site.sockets.route("/own")(echo)
    site.sockets.route("/friend", endpoint="friend", config=allowed)(echo)
    foe, friend = {"Origin": "https://foe.example"}, {"Origin": "https://friend.example"}
    with site.served():
        assert site.refused("/own", headers=foe).status == 403
        assert site.refused("/own", headers=friend).status == 403
        assert ask(site.connect("/own", headers={"Origin": f"http://{site.host}"})) == "hi"
        assert site.refused("/friend", headers=foe).status == 403
        assert ask(site.connect("/friend", headers=friend)) == "hi"


# -- Rules -------------------------------------------------------------------


def test_a_rule_may_have_a_page_beside_its_websocket(site: Site) -> None:
    site.sockets.route("/both", endpoint="socket")(echo)
    site.app.add_url_rule("/both", "page", lambda: "a page")
    with site.served():
        assert site.get("/both").text == "a page"
        assert ask(site.connect("/both")) == "hi"


def test_a_plain_request_is_told_what_to_do(site: Site) -> None:
    site.sockets.route("/echo")(echo)
    with site.served():
        answer = site.get("/echo")
    assert (answer.status_code, answer.headers["Upgrade"]) == (426, "websocket")
    assert "ws://" in answer.text


def test_a_page_is_no_websocket(site: Site) -> None:
    with site.served():
        refusal = site.refused("/login/ann")
        assert (refusal.status, refusal.body) == (404, b"/login/ann is no WebSocket route.\n")
        assert site.refused("/nowhere").status == 404


def test_a_bad_handshake_is_refused_as_a_listener_does(site: Site) -> None:
    site.sockets.route("/echo")(echo)
    with site.served():
        headers = {**HANDSHAKE, "Sec-WebSocket-Version": "12"}
        answer = requests.get(f"http://{site.host}/echo", headers=headers, timeout=HANG)
    assert (answer.status_code, answer.headers["Sec-WebSocket-Version"]) == (426, "13")


def test_url_for_gives_addresses_of_websockets(site: Site) -> None:
    site.sockets.route("/echo/<name>")(echo)
    site.sockets.route("/say")(Say)
    with site.app.test_request_context(base_url="https://chat.example"):
        assert flask.url_for("echo", name="a b") == "wss://chat.example/echo/a%20b"
        assert flask.url_for("Say") == "wss://chat.example/say"


def test_options_of_a_rule_are_flasks(site: Site) -> None:
    @site.sockets.route("/rooms/", defaults={"n": 1})
    def room(ws: WebSocket, n: int) -> None:
        ws.send(str(n))

    with site.served(), site.connect("/rooms/") as client:
        assert client.receive(HANG) == "1"


def test_an_application_may_come_later(site: Site) -> None:
    sockets = WebSockets(adopter=site.adopter)
    sockets.route("/before")(echo)
    sockets.init_app(site.app)
    sockets.route("/after", endpoint="after")(echo)
    with site.served():
        assert ask(site.connect("/before")) == "hi"
        assert ask(site.connect("/after")) == "hi"


def test_two_applications_may_have_the_same_routes() -> None:
    first, second = Site(), Site()
    sockets = WebSockets(adopter=first.adopter)
    sockets.route("/echo")(echo)
    for site in (first, second):
        sockets.init_app(site.app)
        with site.served():
            first.host = site.host
            assert ask(first.connect("/echo")) == "hi"
            first.adopter.stop()


def test_a_blueprint_has_websockets_of_its_own(site: Site) -> None:
    blueprint = flask.Blueprint("chat", __name__, url_prefix="/chat/<tenant>")
    sockets = WebSockets(blueprint, adopter=site.adopter)

    @blueprint.before_request
    def check() -> Any:
        return None if flask.request.args.get("in") else ("no", 403)

    @sockets.route("/<name>")
    def talk(ws: WebSocket, tenant: str, name: str) -> None:
        ws.send(f"{tenant} {name} {flask.request.blueprint}")

    site.app.register_blueprint(blueprint)
    with site.app.test_request_context():
        assert flask.url_for("chat.talk", tenant="t", name="n") == "ws://localhost/chat/t/n"
    with site.served():
        assert site.refused("/chat/t/n").status == 403
        with site.connect("/chat/t/n?in=1") as client:
            assert client.receive(HANG) == "t n chat"
        assert site.get("/chat/t/n").status_code == 426


def test_a_route_may_belong_to_a_blueprint(site: Site) -> None:
    blueprint = flask.Blueprint("chat", __name__)
    site.sockets.route("/echo", blueprint=blueprint)(echo)
    site.sockets.add_service("/say/<n>", Say, blueprint=blueprint)
    site.app.register_blueprint(blueprint, url_prefix="/v1")
    with site.served():
        assert ask(site.connect("/v1/echo")) == "hi"
        assert ask(site.connect("/v1/say/2")) == "{'n': '2'} hi"
        assert site.refused("/echo").status == 404


# -- Ends --------------------------------------------------------------------


def test_a_stop_ends_functions_and_services(site: Site) -> None:
    site.sockets.route("/echo")(echo)
    site.sockets.route("/say")(Say)
    with site.served():
        clients = [site.connect("/echo"), site.connect("/say")]
        site.adopter.stop()
        for client in clients:
            with pytest.raises(syncws.ConnectionClosed) as caught:
                client.receive(HANG)
            assert caught.value.received is not None
            assert caught.value.received.code == 1001
            client.close()
        wait_until(
            lambda: not any(t.name.startswith("syncws-function") for t in threading.enumerate())
        )


def test_a_client_that_resets_ends_its_function(site: Site) -> None:
    ended: queue.Queue[BaseException] = queue.Queue()

    @site.sockets.route("/")
    def loop(ws: WebSocket) -> None:
        ws.send("here")
        try:
            ws.receive()
        except BaseException as exc:
            ended.put(exc)
            raise

    with site.served():
        host, _, port = site.host.partition(":")
        peer = RawPeer(socket.create_connection((host, int(port))), client=True)
        peer.send_bytes(RawPeer.request("/", host=site.host))
        peer.read_head()
        peer.expect(0x1, "here")
        peer.reset()
        assert isinstance(ended.get(timeout=HANG), syncws.ConnectionClosed)


def test_pages_are_served_while_functions_run(site: Site) -> None:
    site.sockets.route("/echo")(echo)
    with site.served():
        clients = [site.connect("/echo") for _ in range(20)]
        answers = [Task(site.get, "/login/ann") for _ in range(5)]
        assert {task.result().status_code for task in answers} == {200}
        for n, client in enumerate(clients):
            client.send_text(str(n))
        assert [client.receive(HANG) for client in clients] == [str(n) for n in range(20)]
        for client in clients:
            client.close()


# -- Mistakes ----------------------------------------------------------------


def test_a_test_client_is_told_what_to_do(site: Site) -> None:
    site.sockets.route("/echo")(echo)
    site.app.testing = True
    client = site.app.test_client()
    with pytest.raises(RuntimeError, match="a test client has no connection that could become"):
        client.get("/echo", headers=HANDSHAKE)
    assert client.get("/echo").status_code == 426


def test_a_server_that_gives_no_connection_is_told_of(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.sockets.route("/echo")(echo)
    environ = {"SERVER_SOFTWARE": "waitress", "waitress.client_disconnected": None}
    answer = site.app.test_client().get("/echo", headers=HANDSHAKE, environ_base=environ)
    assert answer.status_code == 500
    assert "waitress does not let an application have a connection" in caplog.text
    assert "syncws.Listener" in caplog.text


def test_values_that_a_function_does_not_take_are_told_of(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.sockets.route("/<room>", endpoint="wrong")(lambda ws: None)
    with site.served():
        assert site.refused("/a").status == 500
    assert "write <lambda>(ws, room)" in caplog.text


def _no_parameter() -> None: ...


async def _async(ws: WebSocket) -> None: ...


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (_no_parameter, r"write _no_parameter\(ws\)"),
        (_async, "must be a plain function, not async"),
        (5, "a function that takes a WebSocket is wanted, not 5"),
        (dict, "a function that takes a WebSocket is wanted, not <class 'dict'>"),
        (Say(), r"for an instance write sockets.add_service\('/', service\)"),
    ],
)
def test_what_is_no_handler_is_refused(site: Site, handler: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        site.sockets.route("/")(handler)


def test_a_decorator_without_its_rule_is_told_of(site: Site) -> None:
    for decorator in (site.sockets.route, site.sockets.upgrade):
        with pytest.raises(TypeError, match=r"write @sockets.route\('/echo'\)"):
            decorator(echo)  # type: ignore[arg-type]


def test_a_service_has_settings_of_its_own(site: Site) -> None:
    with pytest.raises(TypeError, match="a service has settings of its own"):
        site.sockets.route("/", config=syncws.ServiceConfig())(Say)
    with pytest.raises(TypeError, match="a service has settings of its own"):
        site.sockets.add_service("/", Say, config=syncws.ServiceConfig())


@pytest.mark.parametrize("name", ["methods", "websocket"])
def test_what_makes_it_a_websocket_cannot_be_set(site: Site, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} cannot be set"):
        site.sockets.route("/", **{name: None})(echo)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"app": 5}, "app must be a flask.Flask or a flask.Blueprint, not 5"),
        ({"config": 5}, "config must be a syncws.ServiceConfig or None, not 5"),
        ({"adopter": 5}, "adopter must be an Adopter or None, not 5"),
        ({"max_threads": "5"}, "max_threads must be an int or None, not '5'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        WebSockets(**options)


def test_accept_takes_what_routes_take(site: Site) -> None:
    request = site.app.test_request_context("/", headers=HANDSHAKE)
    with request, pytest.raises(TypeError, match="a function that takes a WebSocket is wanted"):
        site.sockets.accept(5)  # type: ignore[arg-type]


def test_without_flask_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)
    monkeypatch.delitem(sys.modules, "syncws.integrations.flask")
    with pytest.raises(ImportError, match=r"pip install flask"):
        importlib.import_module("syncws.integrations.flask")


def test_refusals_are_logged_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "syncws.server")
    site.sockets.route("/own")(echo)
    with site.served():
        site.refused("/own", headers={"Origin": "https://foe.example"})
    (record,) = [one for one in caplog.records if one.name == "syncws.server"]
    assert record.levelname == "WARNING"
