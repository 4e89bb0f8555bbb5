"""WebSockets of a Flask application in the servers that people run it in."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import syncws
from tests.integration.sites.servers import FLASK_SERVERS, Server, Visitor, blocks, serving
from tests.programs import ROOT, find_program, free_port, is_listening, python_path, running
from tests.support import HANG

APP = "tests.integration.sites.flask_site:app"


@pytest.fixture(scope="module", params=FLASK_SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Each server in turn, with the application."""
    with serving(request.param, APP, tmp_path_factory.mktemp("server")) as server:
        yield server


def test_a_function_answers(server: Server) -> None:
    with server.connect("/echo") as client:
        for text in ("one", "two", "x" * 100_000):
            client.send_text(text)
            assert client.receive(HANG) == text
        client.send_binary(b"\x00")
        assert client.receive(HANG) == b"\x00"


def test_many_connections_hold_no_thread_of_the_server(server: Server) -> None:
    clients = [server.connect("/say/a") for _ in range(30)]
    assert server.get("/echo").text == "a page"
    for n, client in enumerate(clients):
        client.send_text(str(n))
    assert [client.receive(HANG) for client in clients] == [f"a None {n}" for n in range(30)]
    for client in clients:
        client.close()


def test_only_who_has_logged_in_is_let_in(server: Server) -> None:
    refusal = server.refused("/members/7")
    assert (refusal.status, refusal.body) == (401, b"Log in first")
    said = server.ask("/members/7?q=1", "hi", cookies=server.login())
    assert said == "ann ann 8 ImmutableMultiDict([('q', '1')]) hi"


def test_callbacks_have_the_session(server: Server) -> None:
    assert server.ask("/say/x", "hi", cookies=server.login()) == "x ann hi"


def test_what_a_view_changes_of_the_session_is_in_the_101(server: Server) -> None:
    cookies = None
    for visits in range(1, 4):
        with server.connect("/count", cookies=cookies) as client:
            assert client.response.headers["X-After"] == "1"
            cookies = client.cookies
            client.send_text("hi")
            assert client.receive(HANG) == f"{visits} None hi"


def test_a_resource_decides(server: Server) -> None:
    refusal = server.refused("/ask")
    assert (refusal.status, refusal.body) == (403, b"Not you")
    with server.connect("/ask", cookies=server.login()) as client:
        assert client.response.headers["X-Asked"] == "1"
        assert client.receive(HANG) == "hello ann"


def test_a_blueprints_routes_have_its_prefix(server: Server) -> None:
    with server.connect("/chat/room") as client:
        assert client.receive(HANG) == f"ws://{server.host}/chat/room"


def test_pages_and_plain_requests_are_answered(server: Server) -> None:
    assert server.get("/echo").text == "a page"
    answer = server.get("/say/x")
    assert (answer.status_code, answer.headers["Upgrade"]) == (426, "websocket")
    assert server.refused("/pid").status == 404
    assert server.refused("/say/x", headers={"Origin": "https://foe.example"}).status == 403


@pytest.mark.parametrize("name", FLASK_SERVERS)
def test_the_end_of_a_server_is_the_end_of_its_connections(name: str, tmp_path: Path) -> None:
    with serving(name, APP, tmp_path) as server:
        with server.connect("/echo") as one, server.connect("/say/a") as two:
            server.program.signal(signal.SIGTERM)
            for client in (one, two):
                with pytest.raises(syncws.ConnectionClosed):
                    client.receive(HANG)
        server.program.wait()


def test_an_exception_is_told_in_the_servers_log(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught, serving("gunicorn sync", APP, tmp_path) as server:
        with server.connect("/chat/broken") as client:
            with pytest.raises(syncws.ConnectionClosed) as closed:
                client.receive(HANG)
            assert closed.value.received == syncws.Close(1011, "internal error")
        server.program.wait_for(lambda: "ZeroDivisionError" in server.program.output)
    said = str(caught.value)
    assert "/chat/broken: a function raised" in said
    assert said.partition("\nassert ")[0].count("Traceback") == 1


def test_the_reloader_ends_connections_and_serves_what_is_new(tmp_path: Path) -> None:
    module = tmp_path / "site_to_reload.py"
    code = (Path(__file__).parent / "sites" / "flask_site.py").read_text(encoding="utf-8")
    module.write_text(code, encoding="utf-8")
    log = tmp_path / "server"
    log.mkdir()
    with serving("flask run --debug", "site_to_reload:app", log, cwd=tmp_path) as server:
        before = server.get("/pid").text
        with server.connect("/echo") as client:
            module.write_text(code.replace("a page", "a new page"), encoding="utf-8")
            with pytest.raises(syncws.ConnectionClosed):
                client.receive(HANG)
        server.program.wait_for(lambda: re.search("Restarting", server.program.output))
        server.program.wait_for(lambda: _page(server) == "a new page")
        assert server.get("/pid").text != before
        assert server.ask("/echo", "again") == "again"


def _page(server: Server) -> str:
    try:
        return server.get("/echo").text
    except OSError:  # it starts
        return ""


# -- The page on Flask ---------------------------------------------------------

PAGE = blocks("flask")


@contextlib.contextmanager
def site_of(code: str, tmp_path: Path, name: str = "gunicorn gthread") -> Iterator[Server]:
    """A fresh directory with an application of this code in app.py, and its server."""
    place, log = tmp_path / "site", tmp_path / "server"
    place.mkdir()
    log.mkdir()
    (place / "app.py").write_text(code, encoding="utf-8")
    app = "app" if name == "flask run" else "app:app"
    with serving(name, app, log, cwd=place) as server:
        yield server


@pytest.mark.parametrize("name", ["flask run", "gunicorn sync"])
def test_the_first_application_of_the_page(name: str, tmp_path: Path) -> None:
    text = "".join(blocks("flask", "sh"))
    assert "flask --app app run" in text
    application, client = PAGE[0], PAGE[1]
    assert client.count("localhost:5000") == 1
    with site_of(application, tmp_path, name) as server:
        assert server.get("/").text == "Hello, world!"
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", client.replace("localhost:5000", server.host)],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            timeout=HANG,
            check=False,
        )
    assert (done.stdout, done.stderr) == (blocks("flask", "text")[0], "")


def test_the_page_says_what_makes_it_three_lines_more() -> None:
    more = [line for line in PAGE[0].splitlines() if "ocket" in line]
    assert more == [
        "from syncws.integrations.flask import WebSockets",
        "sockets = WebSockets(app)",
        '@sockets.route("/echo")',
    ]


def test_the_pages_function(tmp_path: Path) -> None:
    code = PAGE[2].replace("timeout=60", "timeout=0.01")
    with site_of(code, tmp_path) as server, server.connect("/rooms/7?lang=fr") as client:
        assert client.receive(HANG) == "stranger in room 7, fr"
        assert client.receive(HANG) == "Are you still there?"
        client.send_text("yes")
        assert "YES" in iter(lambda: client.receive(HANG), None)


def test_the_pages_service(tmp_path: Path) -> None:
    with (
        site_of(PAGE[3], tmp_path) as server,
        server.connect("/chat/ann") as ann,
    ):
        ann.send_text("here")
        assert ann.receive(HANG) == "ann: here"  # she is in the room
        with server.connect("/chat/bob") as bob:
            bob.send_text("hi")
            assert bob.receive(HANG) == ann.receive(HANG) == "bob: hi"


def test_the_pages_view(tmp_path: Path) -> None:
    with site_of(PAGE[4], tmp_path) as server:
        assert server.refused("/chat/hall").status == 401
        with server.connect("/chat/hall", cookies=server.login()) as client:
            assert "session" in client.response.headers["Set-Cookie"]
            client.send_text("hi")
            assert client.receive(HANG) == "ann: hi"


def test_the_pages_context(tmp_path: Path) -> None:
    login = """

@app.get("/login/<user>")
def login(user):
    session["user"] = user
    return "welcome"
"""
    with site_of(PAGE[5] + login, tmp_path) as server:
        assert server.ask("/who", "?") == "stranger"
        assert server.ask("/who", "?", cookies=server.login()) == "ann"


def test_all_code_of_the_page_is_run() -> None:
    assert len(PAGE) == 6


def test_the_function_of_the_page_for_those_from_flask_sock(tmp_path: Path) -> None:
    with site_of(blocks("from-flask-sock")[0], tmp_path) as server:
        assert server.ask("/echo/ann", "hi") == "ann said: hi"


# -- The example ---------------------------------------------------------------


@pytest.mark.parametrize("name", FLASK_SERVERS)
def test_the_example(name: str, tmp_path: Path) -> None:
    app = "flask_app:app"
    with serving(name, app, tmp_path, cwd=ROOT / "examples") as server:
        assert "Your name" in server.get("/").text
        assert server.refused("/chat").status == 401
        ann, bob = Visitor(), Visitor()
        for visitor, who in ((ann, "Ann"), (bob, "Bob")):
            visitor.post(f"http://{server.host}/login", {"name": who})
            assert "new WebSocket" in visitor.get(f"http://{server.host}/").text
        with server.connect("/chat", cookies=ann.cookies) as first:
            assert first.receive(HANG) == "Ann has come."
            with server.connect("/chat", cookies=bob.cookies) as second:
                assert first.receive(HANG) == second.receive(HANG) == "Bob has come."
                second.send_text("hi")
                assert first.receive(HANG) == second.receive(HANG) == "Bob: hi"
            assert first.receive(HANG) == "Bob has left."


def test_a_server_that_keeps_its_connections_is_told_of(tmp_path: Path) -> None:
    port = free_port()
    argv = [find_program("waitress-serve"), f"--listen=127.0.0.1:{port}", APP]
    with running(
        argv, log=tmp_path / "log", ready=lambda: is_listening(port), cwd=ROOT, env=python_path()
    ) as program:
        server = Server(program, port)
        assert server.refused("/echo").status == 500
        assert server.get("/echo").text == "a page"
        program.wait_to_say("waitress does not let an application have a connection")
        program.wait_to_say("Serve the WebSockets with a syncws.Listener")
