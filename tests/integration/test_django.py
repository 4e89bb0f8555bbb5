"""WebSockets of a Django project in the servers that people run it in."""

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
from tests.integration.sites.servers import DJANGO_SERVERS, Server, Visitor, blocks, serving
from tests.programs import ROOT, python_path
from tests.support import HANG

MODULE = "tests.integration.sites.django_site"
APP = f"{MODULE}:application"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a project whose database is made."""
    pytest.importorskip("django")
    variables = {"SITE_DATABASE": str(tmp_path_factory.mktemp("site") / "db.sqlite3")}
    subprocess.run(
        [sys.executable, "-m", MODULE, "setup"],
        cwd=ROOT,
        env={**python_path(), **variables},
        timeout=HANG,
        check=True,
    )
    return variables


@pytest.fixture(scope="module", params=DJANGO_SERVERS)
def server(
    request: pytest.FixtureRequest,
    site: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Each server in turn, with the project."""
    with serving(request.param, APP, tmp_path_factory.mktemp("server"), env=site) as server:
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
    assert server.get("/").text == "a page"
    for n, client in enumerate(clients):
        client.send_text(str(n))
    assert [client.receive(HANG) for client in clients] == [f"a 1 {n}" for n in range(30)]
    for client in clients:
        client.close()


def test_functions_have_the_request_with_its_user(server: Server) -> None:
    cookies = server.login()
    for name, given in (("ann", cookies), ("", None)):
        with server.connect("/who/x?q=1", cookies=given) as client:
            assert client.receive(HANG) == f"x {name} 1 /who/x"
            client.send_text("again")
            assert client.receive(HANG) == "again"


def test_only_who_has_logged_in_is_let_in(server: Server) -> None:
    refusal = server.refused("/members")
    assert (refusal.status, refusal.body) == (401, b"Log in first")
    with server.connect("/members", cookies=server.login()) as client:
        assert client.receive(HANG) == "member ann None /members"


def test_what_a_view_changes_of_the_session_is_in_the_101(server: Server) -> None:
    cookies = None
    for visits in range(1, 4):
        with server.connect("/count", cookies=cookies) as client:
            headers = client.response.headers
            assert (headers["X-Given"], headers["X-Set"]) == ("1", "2")
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert "Content-Type" not in headers
            cookies = client.cookies
            assert {one.name for one in cookies} == {"sessionid", "extra"}
            client.send_text("hi")
            assert client.receive(HANG) == f"{visits} 1 hi"


def test_pages_and_plain_requests_are_answered(server: Server) -> None:
    assert server.get("/").text == "a page"
    answer = server.get("/echo")
    assert answer.status_code == 426
    assert "ws://" in answer.text
    assert server.refused("/nowhere").status == 404
    assert server.refused("/echo", headers={"Origin": "https://foe.example"}).status == 403


@pytest.mark.parametrize("name", [name for name in DJANGO_SERVERS if name != "runserver"])
def test_the_end_of_a_server_is_the_end_of_its_connections(
    name: str, site: dict[str, str], tmp_path: Path
) -> None:
    with serving(name, APP, tmp_path, env=site) as server:
        with server.connect("/echo") as one, server.connect("/say/a") as two:
            server.program.signal(signal.SIGTERM)
            for client in (one, two):
                with pytest.raises(syncws.ConnectionClosed):
                    client.receive(HANG)
        server.program.wait()


def test_an_exception_is_told_in_the_servers_log(site: dict[str, str], tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="/broken: a function raised") as caught,
        serving("gunicorn sync", APP, tmp_path, env=site) as server,
    ):
        with server.connect("/broken") as client, pytest.raises(syncws.ConnectionClosed) as closed:
            client.receive(HANG)
        assert closed.value.received == syncws.Close(1011, "internal error")
        server.program.wait_for(lambda: "ZeroDivisionError" in server.program.output)
    said = str(caught.value).partition("\nassert ")[0]  # what pytest adds has it again
    assert said.count("Traceback") == 1


# -- The page on Django --------------------------------------------------------

PAGE = blocks("django")
PROJECT = """
from django.conf import settings
from django.core.wsgi import get_wsgi_application

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF="urls",
    SECRET_KEY="not this one",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
application = get_wsgi_application()
"""


@contextlib.contextmanager
def project_of(code: str, tmp_path: Path) -> Iterator[Server]:
    """A fresh directory with a project that has this code in urls.py, and its server."""
    place, log = tmp_path / "site", tmp_path / "server"
    place.mkdir()
    log.mkdir()
    (place / "project.py").write_text(PROJECT, encoding="utf-8")
    (place / "urls.py").write_text(code, encoding="utf-8")
    with serving("gunicorn gthread", "project:application", log, cwd=place) as server:
        yield server


def test_the_pages_functions(tmp_path: Path) -> None:
    with project_of(PAGE[0], tmp_path) as server:
        assert server.ask("/echo/ann", "hi") == "ann: hi"


def test_the_pages_request(tmp_path: Path) -> None:
    with project_of(PAGE[1], tmp_path) as server, server.connect("/hello") as client:
        assert client.receive(HANG) == "stranger at /hello"


def test_the_pages_service(tmp_path: Path) -> None:
    with (
        project_of(PAGE[2], tmp_path) as server,
        server.connect("/chat/ann") as ann,
    ):
        ann.send_text("here")
        assert ann.receive(HANG) == "ann: here"  # she is in the room
        with server.connect("/chat/bob") as bob:
            bob.send_text("hi")
            assert bob.receive(HANG) == ann.receive(HANG) == "bob: hi"


def test_the_pages_view(tmp_path: Path) -> None:
    with project_of(PAGE[3], tmp_path) as server:
        assert server.refused("/chat").status == 401
        with server.connect("/chat", cookies=server.login()) as client:
            assert client.response.headers["X-Room"] == "hall"
            assert "sessionid" in client.response.headers["Set-Cookie"]
            client.send_text("hi")
            assert client.receive(HANG) == "ann: hi"


def test_all_code_of_the_page_is_run() -> None:
    assert len(PAGE) == 4


# -- The example ---------------------------------------------------------------


@pytest.mark.parametrize("name", DJANGO_SERVERS)
def test_the_example(name: str, tmp_path: Path) -> None:
    with serving(name, "django_app:application", tmp_path, cwd=ROOT / "examples") as server:
        assert server.ask("/echo/ann", "hi") == "ann: hi"
        assert server.refused("/chat").status == 401
        ann, url = Visitor(), f"http://{server.host}/"
        found = re.search(r'value="(\w+)"', ann.get(url).text)
        assert found is not None
        ann.post(url + "login", {"name": "Ann", "csrfmiddlewaretoken": found[1]})
        assert "new WebSocket" in ann.get(url).text
        with server.connect("/chat", cookies=ann.cookies) as client:
            assert client.receive(HANG) == "Ann has come."
            client.send_text("hi")
            assert client.receive(HANG) == "Ann: hi"
