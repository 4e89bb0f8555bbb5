"""`syncws echo`."""

from __future__ import annotations

import queue
import urllib.request

import pytest
from click.testing import CliRunner

import syncws
from syncws.cli.codes import ExitCode
from syncws.cli.commands import commands
from syncws.cli.echo import Echo, page
from tests.support import HANG


def test_it_sends_back_what_comes_and_says_so() -> None:
    said: queue.Queue[str] = queue.Queue()
    with syncws.Listener(0) as listener:
        listener.attach("/{path:path}", Echo(said.put, ["json"]))
        url = f"ws://localhost:{listener.port}/a?b=%1b"
        with syncws.Client(url, subprotocols=["json"]) as client:
            client.send_text("a\x1b")
            assert client.receive(timeout=HANG) == "a\x1b"
            client.send_binary(b"\x00\xff")
            assert client.receive(timeout=HANG) == b"\x00\xff"
            client.close(4001, "enough\n")
        lines = [said.get(timeout=HANG).split(" ", 2)[2] for _ in range(4)]
    assert lines[0].startswith("connected to /a?b=%1b from 127.0.0.1:")
    assert lines[0].endswith(", json")
    assert lines[1:] == [
        "text, 2 characters: a\\x1b",
        "binary, 2 bytes: 00ff",
        "closed with 4001 enough\\n",
    ]


def test_a_browser_gets_a_page() -> None:
    with (
        syncws.Listener(0, app=page) as listener,
        urllib.request.urlopen(f"http://localhost:{listener.port}/", timeout=HANG) as answer,
    ):
        assert "What you send here comes back" in answer.read().decode()


def test_a_port_that_is_taken_is_said() -> None:
    with syncws.Listener(0) as listener:
        port = listener.port
        result = CliRunner().invoke(commands, ["echo", "--port", str(port)])
    assert result.exit_code == ExitCode.FAILED
    assert f"Error: cannot listen on 127.0.0.1 port {port}: " in result.output
    assert "another port (0 finds a free one)" in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: str) -> None:
    result = CliRunner().invoke(commands, ["completion", shell])
    assert result.exit_code == 0
    assert "_SYNCWS_COMPLETE" in result.output
