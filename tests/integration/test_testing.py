"""The fixtures as pytest finds them, and the code of the page on testing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CONFTEST = next(block for block in BLOCKS if "return syncws.Engine()" in block)

SHOUT = """
import syncws

class Shout(syncws.Service):
    def on_text(self, caller, text):
        caller.send_text(text.upper())
"""


def run(directory: Path, *options: str) -> tuple[int, str]:
    """Run pytest on a directory; return its status and what it says."""
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *options, str(directory)],
        cwd=directory,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    tests = 0
    for number, block in enumerate(BLOCKS):
        if block is not CONFTEST:
            (tmp_path / f"test_page_{number}.py").write_text(block, encoding="utf-8")
            tests += len(re.findall("^def test_", block, re.MULTILINE))
    status, told = run(tmp_path)
    assert (status, f"{tests} passed" in told) == (0, True), told
    # and through the system's sockets what does without the clock
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    status, told = run(tmp_path, "-k", "test_shout or test_the_name")
    assert (status, "3 passed" in told) == (0, True), told


def test_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        SHOUT
        + """
from syncws.testing import ManualClock, MemoryEngine, ScriptedServer, send, silence

def test_both(ws_client, ws_listener):
    ws_listener.attach("/shout", Shout())
    clients = [ws_client("/shout") for _ in range(2)]
    for client in clients:
        client.send_text("a")
    assert [client.receive(5) for client in clients] == ["A", "A"]

def test_a_client_alone(ws_client, ws_engine):
    with ScriptedServer([send("x"), silence()], engine=ws_engine) as server:
        client = ws_client(server.url)
        assert client.receive(5) == "x"
        client.close()

def test_the_kinds(ws_engine, ws_clock, ws_errors):
    assert isinstance(ws_engine, MemoryEngine)
    assert isinstance(ws_clock, ManualClock)
    assert ws_errors == []

def test_a_listener_is_made_when_a_path_is_given(ws_client):
    try:
        ws_client("/nothing")
    except syncws.HandshakeRejected as exc:
        assert exc.status == 404
""",
        encoding="utf-8",
    )
    status, told = run(tmp_path)
    assert (status, "4 passed" in told) == (0, True), told


def test_a_callback_that_raises_fails_the_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        """
import syncws

class Broken(syncws.Service):
    def on_text(self, caller, text):
        raise LookupError("no such room")

def test_broken(ws_listener, ws_client):
    ws_listener.attach("/", Broken())
    client = ws_client("/")
    client.send_text("a")
    try:
        client.receive(5)
    except syncws.ConnectionClosed:
        pass
""",
        encoding="utf-8",
    )
    status, told = run(tmp_path)
    assert status == 1
    assert "LookupError: no such room" in told
    assert "1 passed, 1 error" in told
    assert "ERROR at teardown of test_broken" in told


def test_without_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(ws_listener):\n    pass\n", encoding="utf-8")
    status, told = run(tmp_path, "-p", "no:syncws")
    assert status == 1
    assert "fixture 'ws_listener' not found" in told


@pytest.mark.parametrize("module", ["syncws", "syncws.cli"])
def test_nothing_else_needs_pytest_or_the_kit(module: str) -> None:
    code = f"import {module}, sys; print(sys.modules.keys() & {{'pytest', 'syncws.testing'}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    assert done.stdout == "set()\n"
