"""`syncws connect` as a program, in pipes and in a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import syncws
from syncws.cli.codes import ExitCode
from syncws.cli.commands import commands
from syncws.cli.echo import Echo
from tests.support import HANG

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def url() -> Iterator[str]:
    with syncws.Listener(0) as listener:
        listener.attach("/", Echo(lambda line: None))
        yield f"ws://localhost:{listener.port}/"


def connect(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    result = subprocess.run(
        [sys.executable, "-m", "syncws", "connect", *arguments],
        input=stdin,
        capture_output=True,
        timeout=2 * HANG,
        cwd=ROOT,
    )
    return result.returncode, result.stdout.decode(), result.stderr.decode()


def test_one_message_there_and_back(url: str) -> None:
    assert connect(url, "--one", stdin=b"hi\n") == (0, "hi\n", "")


def test_stdout_has_messages_only(url: str) -> None:
    code, out, err = connect(url, "--expect", "2", "-v", stdin=b'{"a": 1}\nb\n')
    assert (code, out) == (0, '{"a": 1}\nb\n')
    assert "* connected to ws://localhost" in err


def test_bytes_go_through_unchanged(url: str) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "syncws", "connect", url),
            *("--one", "--binary", "--binary-as", "raw"),
        ],
        input=bytes(range(256)),
        stdout=subprocess.PIPE,
        timeout=2 * HANG,
        cwd=ROOT,
    )
    assert (result.returncode, result.stdout) == (0, bytes(range(256)))


def test_a_stdin_that_stays_open_is_left_behind(url: str) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"a\n")
        result = subprocess.run(
            [sys.executable, "-m", "syncws", "connect", url, "--expect", "1"],
            stdin=reader,
            capture_output=True,
            timeout=2 * HANG,
            cwd=ROOT,
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"a\n", b"")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["localhost:1/x"], ExitCode.USAGE, "ws://"),
        (["http://localhost:1"], ExitCode.USAGE, "use ws://... instead"),
        (["{url}", "-H", "nothing"], ExitCode.USAGE, "'nothing' is not such as 'X-Name: value'"),
        (["{url}", "--insecure"], ExitCode.USAGE, "are for wss://"),
        (["{url}", "--one", "--expect", "2"], ExitCode.USAGE, "--one waits for one message"),
        (["{url}", "--listen", "--send", "a"], ExitCode.USAGE, "--listen sends nothing"),
        (["{url}nowhere"], ExitCode.REFUSED, "404"),
        (["ws://no-such-host.invalid/"], ExitCode.UNREACHABLE, "no-such-host.invalid"),
    ],
)
def test_exit_codes(url: str, arguments: list[str], code: ExitCode, said: str) -> None:
    found, out, err = connect(*(text.format(url=url) for text in arguments))
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


class Evil(syncws.Service):
    """Tries to set the title of the user's terminal."""

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(f"{text}\x1b]0;title\x07")


@pytest.fixture
def evil_url() -> Iterator[str]:
    with syncws.Listener(0) as listener:
        listener.attach("/", Evil())
        yield f"ws://localhost:{listener.port}/"


def test_a_terminal_gets_a_console(evil_url: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "syncws", "connect", evil_url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"},
    )
    os.close(theirs)
    try:
        seen = ""

        def read_until(wanted: str) -> None:
            nonlocal seen
            while wanted not in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen):
                seen += os.read(ours, 4096).decode(errors="replace")

        read_until("connected to")
        os.write(ours, b"hello\r")
        read_until("< hello\\x1b]0;title\\x07")
        os.write(ours, b"/quit\r")
        read_until("closed with 1000")
        assert program.wait(2 * HANG) == 0
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def test_the_page_has_every_option() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    for name, command in commands.commands.items():
        assert f"`syncws {name}" in page
        if name == "serve":
            continue  # has a page of its own
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                for option in parameter.opts:
                    if option.startswith("--"):
                        assert f"`{option}`" in page, f"{name} {option}"
    for code in ExitCode:
        assert f"| {code.value} |" in page
