"""WebSockets of a Flask application in the servers that people run it in."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import syncws
from tests.integration.sites.servers import FLASK_SERVERS, Server, serving
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
    assert said.count("Traceback") == 1


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
