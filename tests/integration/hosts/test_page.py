"""The code of the page on WSGI servers."""

from __future__ import annotations

import re
from pathlib import Path

import requests

import syncws
from tests.programs import ROOT, find_program, free_port, is_listening, python_path, running
from tests.support import HANG, interpreter

PAGE = (ROOT / "docs" / "wsgi-servers.md").read_text(encoding="utf-8")
APPLICATION, ADOPTER, SIDE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_application(tmp_path: Path) -> None:

    (tmp_path / "module.py").write_text(APPLICATION + ADOPTER)
    (command,) = re.findall(r"^```\n(gunicorn .*)\n```$", PAGE, re.MULTILINE)
    port = free_port()
    name, *arguments = command.split()
    argv = [find_program(name), *arguments, f"--bind=127.0.0.1:{port}", "--no-control-socket"]
    with running(
        argv,
        log=tmp_path / "log",
        ready=lambda: is_listening(port),
        cwd=tmp_path,
        env=python_path(),
    ):
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=HANG).text == "a page\n"
        with syncws.Client(f"ws://127.0.0.1:{port}/chat") as client:
            client.send_text("hello")
            assert client.receive(timeout=HANG) == "ann: hello"


def test_the_listener_beside_it() -> None:
    client = """
with syncws.Client(f"ws://localhost:{listener.port}/clock") as client:
    client.send_text("?")
    print(client.receive(timeout=20))
listener.stop()
"""
    with interpreter(SIDE.replace("9090", "0") + client) as process:
        assert process.line() == "now"
        assert process.end() == (0, "")
