"""`syncws connect`: what is typed, how it is shown, scripts and the console."""

from __future__ import annotations

import io
import os
import queue
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

import syncws
from syncws.cli.codes import ExitCode
from syncws.cli.connect.console import Console, history_of
from syncws.cli.connect.orders import HELP, ORDERS, Order, parse
from syncws.cli.connect.render import Renderer
from syncws.cli.connect.script import Plan, Script, messages_of
from tests.support import HANG, Gate, Task

# -- Orders ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "order"),
    [
        ("hello", Order("text", "hello")),
        (" /ping", Order("text", " /ping")),
        ("", Order("nothing")),
        ("/text /ping", Order("text", "/ping")),
        ("/text", Order("text")),
        ("/ping", Order("ping")),
        ("/ping ä", Order("ping", data="ä".encode())),
        ("/pong a b", Order("pong", data=b"a b")),
        ("/binary 00 ff0A", Order("binary", data=b"\x00\xff\n")),
        ("/close", Order("close")),
        ("/close 4001", Order("close", code=4001)),
        ("/close 4001  all done", Order("close", "all done", code=4001)),
        ("/help", Order("help")),
        ("/quit ", Order("quit")),
    ],
)
def test_a_line_is_a_message_or_an_order(line: str, order: Order) -> None:
    assert parse(line) == order


def test_a_file_is_a_binary_message(tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(b"\x00\n")
    assert parse(f"/file {tmp_path}/a file") == Order("binary", data=b"\x00\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/pin", "there is no /pin: see /help; /text sends a text that begins with a slash"),
        ("/binary 0x", "'0x' is not hex, such as 00 ff 0a"),
        ("/close soon", "'soon' is no status code, such as 1000 or 4001"),
        ("/close ²", "'²' is no status code, such as 1000 or 4001"),
        ("/file", "/file needs a path"),
    ],
)
def test_a_wrong_order_is_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(line)


def test_every_order_is_known_and_explained() -> None:
    for name in ORDERS:
        assert name in HELP
        if name != "/file":
            assert parse(name).kind == name[1:]


# -- Showing -----------------------------------------------------------------


def test_binary_messages_are_shown_as_asked() -> None:
    data = b"\x00\xffa"
    assert Renderer().binary(data) == b"00ff61\n"
    assert Renderer(binary_as="base64").binary(data) == b"AP9h\n"
    assert Renderer(binary_as="size").binary(data) == b"3 bytes\n"
    assert Renderer(binary_as="raw", timestamps=True).binary(data) == data


def test_timestamps_come_first() -> None:
    render = Renderer(timestamps=True, now=lambda: "12:00:00")
    assert render.text("a") == "12:00:00 a"
    assert render.binary(b"a") == b"12:00:00 61\n"


def test_escapes_only_where_a_terminal_reads() -> None:
    assert Renderer().text("\x1b[2J") == "\x1b[2J"
    assert Renderer(escaped=True).text("\x1b[2J\n") == "\\x1b[2J\n"


def test_json_has_colours_only_where_asked() -> None:
    text = '{"a": "\u202e"}'
    assert Renderer(pretty=True).text(text) == '{\n  "a": "\u202e"\n}'
    shown = Renderer(pretty=True, colour=True, escaped=True).text(text)
    assert "\x1b[" in shown
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown) == '{\n  "a": "\\u202e"\n}'


def test_a_peers_further_lines_are_indented() -> None:
    assert Renderer().line("in", "<", "a\n* closed") == "< a\n  * closed"
    assert Renderer(colour=True).line("in", "<", "a") == "\x1b[32m<\x1b[0m a"


# -- Scripts -----------------------------------------------------------------


def read(data: bytes, plan: Plan) -> list[str | bytes]:
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        return list(messages_of(reader, plan))
    finally:
        os.close(reader)


def test_each_line_is_a_message() -> None:
    assert read(b"a\n\nb\r\nc", Plan()) == ["a", "", "b", "c"]
    assert read(b"", Plan()) == []


def test_all_of_it_can_be_one_message() -> None:
    assert read(b"a\nb\n", Plan(whole=True)) == ["a\nb"]
    assert read(b"a\r\n", Plan(whole=True)) == ["a"]
    assert read(b"", Plan(whole=True)) == []


def test_binary_lines_are_hex() -> None:
    assert read(b"00 ff\n0a\n", Plan(binary=True)) == [b"\x00\xff", b"\n"]
    assert read(b"\x00\xff\n", Plan(binary=True, whole=True)) == [b"\x00\xff"]


def test_what_is_no_text_and_no_hex_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2 of stdin is not UTF-8; --binary --one"):
        read(b"a\n\xff\n", Plan())
    with pytest.raises(ValueError, match="line 1 of stdin, 'zz', is not hex"):
        read(b"zz\n", Plan(binary=True))


class Echo(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        if text.startswith("close "):
            caller.close(int(text[6:]), "as asked", timeout=0)
        elif text != "silence":
            caller.send_text(text)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        caller.send_binary(data)


@pytest.fixture
def url() -> Iterator[str]:
    with syncws.Listener(0) as listener:
        listener.attach("/echo", Echo())
        yield f"ws://localhost:{listener.port}/echo"


class Broken(io.RawIOBase):
    """A pipe that nobody reads."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise BrokenPipeError


def run(
    url: str, plan: Plan, output: Any = None, fd: int | None = None
) -> tuple[ExitCode, bytes, str]:
    out = io.BytesIO() if output is None else output
    said: list[str] = []
    script = Script(plan, out, said.append, Renderer())
    client = syncws.Client(url, service=script, ready_on_connect=False)
    code = script.run(client, fd)
    return code, out.getvalue() if output is None else b"", "\n".join(said)


def test_it_ends_when_what_is_expected_has_come(url: str) -> None:
    plan = Plan(texts=("a", "b", "c"), expect=2, timeout=HANG)
    assert run(url, plan) == (ExitCode.OK, b"a\nb\n", "")


def test_it_ends_when_nothing_comes_any_more(url: str) -> None:
    assert run(url, Plan(texts=("silence",), wait=0.0)) == (ExitCode.OK, b"", "")


def test_a_message_that_does_not_come_is_a_timeout(url: str) -> None:
    code, out, said = run(url, Plan(texts=("silence",), expect=1, timeout=0.05))
    assert (code, out) == (ExitCode.TIMEOUT, b"")
    assert said == "Error: 0 of 1 messages have come, and no other within 0.05 s"


def test_a_server_that_closes_too_early_is_a_failure(url: str) -> None:
    plan = Plan(texts=("close 1000",), expect=1, timeout=HANG)
    assert run(url, plan) == (
        ExitCode.FAILED,
        b"",
        "Error: the server has closed with 1000: as asked",
    )


def test_a_server_that_closes_with_an_error_is_a_failure(url: str) -> None:
    plan = Plan(texts=("close 4001",), wait=None)
    assert run(url, plan) == (
        ExitCode.FAILED,
        b"",
        "Error: the server has closed with 4001: as asked",
    )


def test_a_server_that_closes_is_the_end_of_listening(url: str) -> None:
    assert run(url, Plan(texts=("close 1000",), wait=None)) == (ExitCode.OK, b"", "")


def test_it_ends_quietly_when_nobody_reads(url: str) -> None:
    plan = Plan(texts=("a",), expect=5, timeout=HANG)
    assert run(url, plan, Broken()) == (ExitCode.OK, b"", "")


def test_what_cannot_be_sent_is_said(url: str) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"\xff\n")
    os.close(writer)
    try:
        code, _, said = run(url, Plan(wait=None), fd=reader)
    finally:
        os.close(reader)
    assert code is ExitCode.FAILED
    assert "is not UTF-8" in said


def test_a_flood_of_answers_holds_up_no_sender(url: str) -> None:
    texts = tuple(str(number) * 100 for number in range(3000))
    code, out, _ = run(url, Plan(texts=texts, expect=len(texts), timeout=HANG))
    assert code is ExitCode.OK
    assert out.decode().split() == list(texts)


def test_a_ctrl_c_closes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Script) -> ExitCode:
        raise KeyboardInterrupt

    monkeypatch.setattr(Script, "_wait", interrupted)
    assert run(url, Plan(wait=None))[0] is ExitCode.INTERRUPTED


# -- The console -------------------------------------------------------------


class Typist:
    """Types when something was shown, and keeps what is."""

    def __init__(self, type_text: Callable[[str], None], *steps: tuple[str, str]) -> None:
        self.shown: queue.Queue[str] = queue.Queue()
        self.lines: list[str] = []
        self._type = type_text
        self._steps = steps

    def run(self) -> None:
        for awaited, typed in self._steps:
            while awaited not in (line := self.shown.get(timeout=HANG)):
                self.lines.append(line)
            self.lines.append(line)
            self._type(typed)

    def rest(self) -> list[str]:
        while not self.shown.empty():
            self.lines.append(self.shown.get())
        return self.lines


def converse(url: str, *steps: tuple[str, str]) -> tuple[ExitCode, list[str]]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        typist = Typist(pipe.send_text, *steps)
        console = Console(Renderer(), InMemoryHistory(), typist.shown.put)
        client = syncws.Client(url, service=console, ready_on_connect=False)
        typing = Task(typist.run)
        code = console.run(client)
        typing.result()
    return code, typist.rest()


def test_the_console_sends_and_shows(url: str) -> None:
    code, lines = converse(
        url,
        ("connected to", "hello\r"),
        ("< hello", "/binary 00ff\r"),
        ("< (2 bytes) 00ff", "/ping abc\r"),
        ("* pong abc", "/nope\r"),
        ("! there is no /nope", "/help\r"),
        ("/quit", "/quit\r"),
    )
    assert code is ExitCode.OK
    assert lines[-1] == "* closed with 1000"


def test_the_console_ends_when_the_server_closes_while_a_line_is_typed(url: str) -> None:
    code, lines = converse(url, ("connected to", "close 4002\r"))
    assert code is ExitCode.FAILED
    assert lines[-1] == "* closed with 4002: as asked"


def test_closing_oneself_is_no_failure(url: str) -> None:
    code, lines = converse(url, ("connected to", "/close 4001 enough\r"))
    assert code is ExitCode.OK
    assert lines[-1] == "* closed with 4001"


def test_ctrl_d_leaves(url: str) -> None:
    assert converse(url, ("connected to", "\x04"))[0] is ExitCode.OK


def test_ctrl_c_leaves(url: str) -> None:
    assert converse(url, ("connected to", "\x03"))[0] is ExitCode.INTERRUPTED


def test_an_end_between_two_lines_is_noticed(url: str) -> None:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        console = Console(Renderer(), InMemoryHistory(), lambda line: None)
        client = syncws.Client(url, service=console, ready_on_connect=False)
        client.ready()
        with Gate() as gate:
            obey = console._obey

            def held(client: syncws.Client, line: str) -> None:
                obey(client, line)
                gate.block()

            console._obey = held  # type: ignore[method-assign]

            def close() -> None:
                gate.reached()
                assert client.wait_closed(HANG)
                gate.open()

            closing = Task(close)
            pipe.send_text("close 1000\r")
            assert console.run(client) is ExitCode.OK
            closing.result()


def test_the_history_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert isinstance(history_of(True), FileHistory)
    file = tmp_path / "state" / "syncws" / "history"
    assert file.stat().st_mode & 0o777 == 0o600
    assert isinstance(history_of(False), InMemoryHistory)
    monkeypatch.setenv("XDG_STATE_HOME", str(file))  # no directory can be made there
    assert not isinstance(history_of(True), FileHistory)
