"""Real WSGI servers, as one starts them for an application of Flask or Django."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

import syncws
from tests.programs import (
    ROOT,
    Program,
    find_program,
    free_port,
    is_listening,
    python_path,
    running,
)
from tests.support import HANG

__all__ = ["DJANGO_SERVERS", "FLASK_SERVERS", "Server", "Visitor", "blocks", "serving"]

_COMMANDS: dict[str, list[str]] = {
    "flask run": ["flask", "--app", "{app}", "run", "--port", "{port}"],
    "flask run --debug": ["flask", "--app", "{app}", "run", "--debug", "--port", "{port}"],
    "runserver": ["{python}", "-m", "{module}", "runserver", "127.0.0.1:{port}"],
    "gunicorn sync": ["gunicorn", "--bind", "127.0.0.1:{port}", "{app}"],
    "gunicorn gthread": ["gunicorn", "--threads", "4", "--bind", "127.0.0.1:{port}", "{app}"],
    "uwsgi": [
        *("uwsgi", "--http-socket", "127.0.0.1:{port}", "--wsgi", "{app}"),
        *("--master", "--enable-threads", "--die-on-term", "--need-app"),
    ],
}

FLASK_SERVERS = [name for name in _COMMANDS if name != "runserver"]
DJANGO_SERVERS = [name for name in _COMMANDS if not name.startswith("flask")]


class Visitor:
    """Somebody who has cookies, and a connection for each request.

    uWSGI ends a connection after its answer without saying so in that; a
    session that is quick enough sends its next request there, and is reset.
    """

    def __init__(self) -> None:
        self.cookies = requests.cookies.RequestsCookieJar()

    def get(self, url: str) -> requests.Response:
        """Return the answer."""
        return self._keep(requests.get(url, cookies=self.cookies, timeout=HANG))

    def post(self, url: str, data: Mapping[str, str]) -> requests.Response:
        """Return the answer to a form; a redirect is not followed."""
        return self._keep(
            requests.post(url, data=data, cookies=self.cookies, allow_redirects=False, timeout=HANG)
        )

    def _keep(self, response: requests.Response) -> requests.Response:
        self.cookies.update(response.cookies)
        return response


class Server:
    """A server that runs.

    Attributes:
        program: The program.
        host: Where it listens.
    """

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.host = f"127.0.0.1:{port}"

    def get(self, path: str, **options: Any) -> requests.Response:
        """Return the answer to a plain request."""
        return requests.get(f"http://{self.host}{path}", timeout=HANG, **options)

    def connect(self, path: str, **options: Any) -> syncws.Client:
        """Return a client."""
        return syncws.Client(f"ws://{self.host}{path}", **options)

    def refused(self, path: str, **options: Any) -> syncws.HandshakeRejected:
        """Return the refusal that a client gets."""
        with pytest.raises(syncws.HandshakeRejected) as caught:
            self.connect(path, **options)
        return caught.value

    def ask(self, path: str, text: str, **options: Any) -> Any:
        """Return the answer to a message."""
        with self.connect(path, **options) as client:
            client.send_text(text)
            return client.receive(HANG)

    def login(self, path: str = "/login/ann") -> Any:
        """Return the cookies of somebody who has logged in."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.cookies


@contextlib.contextmanager
def serving(
    name: str,
    app: str,
    tmp_path: Path,
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server with an application, until the block ends; it must not have said that it failed.

    Args:
        name: Which server.
        app: The application, as gunicorn calls it.
        tmp_path: Where its files are.
        cwd: Where it runs.
        env: Variables of its environment beside those of every Python.
    """
    port = free_port()
    places = {"app": app, "module": app.partition(":")[0], "port": port, "python": sys.executable}
    argv = [word.format(**places) for word in _COMMANDS[name]]
    if argv[0] == "gunicorn":
        argv[1:1] = ["--no-control-socket", "--graceful-timeout", "5"]
    argv[0] = find_program(argv[0])
    environment = {**python_path(), **(env or {})}
    # Where the application is, and this syncws.
    environment["PYTHONPATH"] = f"{cwd}:{environment['PYTHONPATH']}"
    with running(
        argv,
        log=tmp_path / "log",
        ready=lambda: is_listening(port),
        cwd=cwd,
        env=environment,
    ) as program:
        yield Server(program, port)
        output = program.output
    assert not re.search(r"Traceback|\bERROR\b|Exception", output), output


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the blocks of code of a page of the documentation."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
