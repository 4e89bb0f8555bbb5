"""The examples talk to each other, and README and documentation say what is so."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import syncws
from tests.support import HANG

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "examples" / "basic_sample.py"
CLIENT = ROOT / "examples" / "client.py"
UPGRADE = ROOT / "examples" / "http_to_websocket_upgrade.py"

# Runs two blocks of code as one would in two threads, on a port that is free.
PAIR = """
import sys, threading
import syncws

server, client = sys.argv[1:]
started, start = threading.Event(), syncws.Listener.start

def start_and_tell(self):
    start(self)
    started.set()

syncws.Listener.start = start_and_tell
names = {"__name__": "__main__"}
thread = threading.Thread(target=exec, args=(server.replace("9090", "0"), names))
thread.start()
assert started.wait(20)
exec(client.replace("9090", str(names["listener"].port)))
names["listener"].stop()
thread.join(20)
"""

# Runs a block of code that has a group, with two clients that are in it.
ROOM = """
import sys, threading
import syncws

names = {}
exec(sys.argv[1], names)
joined = threading.Semaphore(0)

class Room(names["Room"]):
    def on_open(self, caller):
        super().on_open(caller)
        joined.release()

with syncws.Listener(0) as listener:
    listener.attach("/", Room())
    url = f"ws://localhost:{listener.port}/"
    with syncws.Client(url) as one, syncws.Client(url) as two:
        for _ in range(2):
            assert joined.acquire(timeout=20)
        one.send_text("from one")
        print(two.receive(timeout=20))
        two.send_text("from two")
        print(one.receive(timeout=20))
print(len(names["room"]))
"""


# Goes to the server that has an upgrade resource and an application.
VISITOR = """
import urllib.request

url = "localhost:9090"
try:
    syncws.Client(f"ws://{url}/chat/anna")
except syncws.HandshakeRejected as error:
    print(error.status, error.body.decode().strip())
with syncws.Client(f"ws://{url}/chat/anna?age=30") as client:
    print(client.response.headers["X-Room"])
    client.send_text("hello")
    print(client.receive(timeout=20))
with urllib.request.urlopen(f"http://{url}/health") as response:
    print(response.read())
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with warnings of unclosed resources, for their text on stderr."""
    return subprocess.run(
        [sys.executable, "-X", "dev", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # this syncws, whatever is installed
        capture_output=True,
        encoding="utf-8",
        timeout=HANG,
        check=False,
    )


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have children that Ctrl-C ends, which those of a shell's background job inherit not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Sample:
    """basic_sample.py as it runs.

    Attributes:
        introduction: What it printed before the first connection.
        url: Where it listens.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self._output = process.stdout
        self.introduction = self.read_until("Then try")
        found = re.search(r"ws://localhost:\d+/basic/ws", self.introduction)
        assert found is not None
        self.url = found[0]

    def read_until(self, text: str) -> str:
        """Return what it prints up to the line with `text`."""
        lines = []
        for line in self._output:
            lines.append(line)
            if text in line:
                break
        else:
            pytest.fail(f"no {text!r} in:\n{''.join(lines)}")
        return "".join(lines)

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit code and what was still printed."""
        self._process.send_signal(signal.SIGINT)
        rest, _ = self._process.communicate(timeout=HANG)
        return self._process.returncode, rest


@pytest.fixture
def sample(interruptible: None) -> Iterator[Sample]:
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", str(SAMPLE), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    with process:
        try:
            yield Sample(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def test_the_examples_talk_to_each_other(sample: Sample) -> None:
    done = run(str(CLIENT), sample.url)
    assert done.stdout.splitlines() == [
        f"Connected to {sample.url}, subprotocol: json",
        "text: You said: hello",
        r"binary: b'\x00\x01\x02\x03'",
        "ping: b'Are you there?'",
        "pong: b'And you?'",
        "closed: 1001 You told me to close the connection",
    ]
    assert (done.stderr, done.returncode) == ("", 0)

    said = sample.read_until(" left: ")
    assert " connected from ('127.0.0.1', " in said
    lines = re.sub(r"^\w+ ", "", said, flags=re.MULTILINE).splitlines()[-8:]
    # The sample's ping and the client's may cross.
    assert [*lines[:4], *sorted(lines[4:6]), *lines[6:]] == [
        "subprotocol: json, over TLS: False",
        "text: hello",
        "binary, 4 bytes",
        "text: ping",
        "ping: b'And you?'",
        "pong: b'Are you there?'",
        "text: closeMe",
        "left: 1001",
    ]


def test_the_sample_names_the_command_that_comes_next(sample: Sample) -> None:
    (command,) = re.findall(r"^ +(.* ws://.*)$", sample.introduction, re.MULTILINE)[:1]
    done = subprocess.run(
        command, shell=True, cwd="/", capture_output=True, encoding="utf-8", timeout=HANG
    )
    assert "closed: 1001" in done.stdout
    assert done.returncode == 0


def test_ctrl_c_ends_the_sample(sample: Sample) -> None:
    code, rest = sample.interrupt()
    assert code == 0
    assert rest.strip() == "Stopped."


def test_the_client_says_when_nobody_is_there() -> None:
    done = run(str(CLIENT), "ws://localhost:1/basic/ws")
    assert done.returncode == 1
    assert done.stderr.startswith("No connection to ws://localhost:1/basic/ws: ")
    assert "Is examples/basic_sample.py running?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_resource_lets_in_and_refuses() -> None:
    done = run(str(UPGRADE))
    assert done.stdout.splitlines() == [
        "accepted, X-Room: anna",
        "Welcome, anna, 30",
        "anna said: hello",
        "refused, 400: Age is required",
        "refused, 401: Basic",
    ]
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_first_server_and_client_of_the_readme() -> None:
    server, client = blocks("python")[:2]
    assert server.count("9090") == client.count("9090") == 1
    done = run("-c", PAIR, server, client)
    assert done.stdout == blocks("text")[0]
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_service_of_the_readme_with_everything() -> None:
    done = run("-c", blocks("python")[3])
    assert done.stdout.splitlines() == ["json", r"b'\x00\x01'", "stranger left: 1000 "]
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_upgrade_resource_and_the_application_of_the_readme() -> None:
    server = blocks("python")[4]
    assert server.count("9090") == 1
    done = run("-c", PAIR, server, VISITOR)
    assert done.stdout.splitlines() == ["400 Age is required", "chat", "anna: hello", "b'well\\n'"]
    assert done.returncode == 0, done.stderr


def test_the_room_of_the_readme() -> None:
    done = run("-c", ROOM, blocks("python")[5])
    assert done.stdout.splitlines() == ["from one", "from two", "0"]
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_flask_application_of_the_readme() -> None:
    """test_flask runs it, as `flask run` and gunicorn do."""
    page = (ROOT / "docs" / "flask.md").read_text(encoding="utf-8")
    assert f"```python\n{blocks('python')[2]}```" in page


def test_there_is_no_other_code_in_the_readme() -> None:
    assert len(blocks("python")) == 6


def test_the_documentation_has_the_limits_of_the_code() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+|None) \|", text, re.MULTILINE)
    documented = {name: None if value == "None" else float(value) for name, value in rows}
    defaults: dict[str, object] = {}
    for function in (syncws.Listener, syncws.Client, syncws.ServiceConfig):
        parameters = inspect.signature(function).parameters
        defaults.update((name, each.default) for name, each in parameters.items())
    assert documented == {name: defaults[name] for name in documented}
    options = {
        name
        for name, each in inspect.signature(syncws.ServiceConfig).parameters.items()
        if isinstance(each.default, (int, float, type(None))) and each.default is not True
    }
    assert options <= set(documented)


def test_the_links_of_the_documentation_lead_somewhere() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
