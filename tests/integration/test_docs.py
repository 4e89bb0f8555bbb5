"""The pages of docs/: their code runs, and the tables for those who come from elsewhere are true.

Blocks of code marked ``python`` are ours and are run here; those marked ``py`` are the
others' and are not, but for those of the page on security. In a table whose header has
"syncws" the code in that column names something of ours, such as `Client.receive` or, with
its parameters, `Client(url=)`; if the next column is "default" it has the default of those
parameters.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import inspect
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import syncws
from syncws import testing
from syncws.callbacks import _CALLBACKS
from tests.proxying import REALM, squid
from tests.support import HANG, authority, interpreter

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = ("from-ballerina", "from-flask-sock", "from-websocket-client", "from-websockets")
ALL_PAGES = (
    *PAGES,
    "chat",
    "client-proxies",
    "clients",
    "first-service",
    "groups",
    "observability",
    "processes",
    "security",
    "testing",
    "tls",
)

# Runs a server's block of code in a thread and a client's in this one, on a port that is free.
PAIR = """
import logging, sys, threading
import syncws

logging.disable(logging.WARNING)  # of a client that connects again
server, client = sys.argv[1:]
started, start = threading.Event(), syncws.Listener.start

def start_and_tell(self):
    start(self)
    started.set()

syncws.Listener.start = start_and_tell
names = {"__name__": "__main__"}

def serve():
    try:
        exec(server.replace("9090", "0"), names)
    finally:
        started.set()  # should it not have come so far

thread = threading.Thread(target=serve)
thread.start()
assert started.wait(20)
listener = names["listener"]
try:
    exec(client.replace("9090", str(listener.port)), {"__name__": "__main__"})
finally:
    listener.stop()
thread.join(20)
"""

# The servers of the pages that have clients only, on the same paths.
ECHO = """
import syncws

class Echo(syncws.Service):
    def on_text(self, caller, text):
        name = caller.request.headers.get("X-Name")
        caller.send_text(text if name is None else f"{text} {name}")

    def on_binary(self, caller, data):
        caller.send_binary(data)

listener = syncws.Listener(9090)
listener.attach("/echo", Echo())
listener.serve_forever()
"""
TICKS = """
import itertools
import syncws

class Ticks(syncws.Service):
    count = itertools.count()

    def on_text(self, caller, text):
        tick = next(self.count)
        caller.send_text(f"tick {tick}")
        caller.close(1000 if tick else 1012, timeout=0)

listener = syncws.Listener(9090)
listener.attach("/ticks", Ticks())
listener.serve_forever()
"""

# Clients of the pages' servers that have none of their own there.
CHAT = """
import syncws

url = "ws://localhost:9090/chat/anna"
with syncws.Client(url + "?age=30") as client:
    print(client.response.headers["X-Name"])
    client.send_text("hello")
    print(client.receive(timeout=20))
try:
    syncws.Client(url)
except syncws.HandshakeRejected as error:
    print(error.status, error.body)
"""
PAGE = """
import urllib.request

with urllib.request.urlopen("http://localhost:9090/") as response:
    print(response.read())
"""
ROOMS = """
import flask
import syncws

app = flask.Flask("test")
app.secret_key = "not this one"

@app.route("/login")
def login():
    flask.session["user"] = "anna"
    return ""

url = "ws://localhost:9090/rooms/7?lang=fr"
try:
    syncws.Client(url)
except syncws.HandshakeRejected as error:
    print(error.status, error.body)
with app.test_client() as browser:
    browser.get("/login")
    cookie = browser.get_cookie("session").value
with syncws.Client(url, cookies={"session": cookie}) as client:
    print(client.receive(timeout=20))
    client.send_text("hello")
    print(client.receive(timeout=20))
"""

LOBBY = """
import syncws

url = "ws://localhost:9090/lobby"
with syncws.Client(url) as one:
    one.send_text("alone")
    print(one.receive(timeout=20))
    with syncws.Client(url) as other:
        print(one.receive(timeout=20))
        other.send_text("hello")
        print(one.receive(timeout=20), other.receive(timeout=20))
"""
PRICES = """
import syncws

with syncws.Client("ws://localhost:9090/prices") as client:
    client.send_text("how many?")
    print(client.receive(timeout=20))
"""

ROOM = """
import syncws

url = "localhost:9090/rooms/7"
try:
    syncws.Client("ws://ann:wrong@" + url)
except syncws.HandshakeRejected as error:
    print(error.status, error.body)
with syncws.Client("ws://ann:secret@" + url) as client:
    client.send_text("hello")
    print(client.receive(timeout=20))
"""

# Tells what the block on new certificates does, which runs in a process of its own.
RENEWING = """
import logging
import syncws

start, reload_tls = syncws.Listener.start, syncws.Listener.reload_tls

def start_and_tell(self):
    start(self)
    print(self.port)

def reload_and_tell(self):
    try:
        reload_tls(self)
        print("renewed")
    except ValueError:
        print("refused")
        raise

syncws.Listener.start, syncws.Listener.reload_tls = start_and_tell, reload_and_tell
"""

# Before and after the block of the first page on logging: a client of its block on TLS.
WITH_LOGS = """
import logging

logging.disable(logging.NOTSET)
"""
TLS_CLIENT = """
import syncws

tls = syncws.TLSConfig(ca_file="ca.pem")
with syncws.Client("wss://localhost:9090/echo", ssl=tls) as client:
    client.send_text("hello")
    print(client.receive(timeout=20))
try:
    syncws.Client("wss://localhost:9090/ecko", ssl=tls)
except syncws.HandshakeRejected as error:
    print(error.status)
"""

# A client of the listener that may run in several processes.
PROCESS = """
import os
import syncws

with syncws.Client("ws://localhost:9090/chat") as client:
    client.send_text("hello")
    print(client.receive(timeout=20).replace(str(os.getpid()), "N"))
"""

SECURE_CLIENT = """
import syncws

tls = syncws.TLSConfig(ca_file="ca.pem")
url = "wss://localhost:9090/chat"
try:
    syncws.Client(url, ssl=tls)
except syncws.HandshakeRejected as error:
    print(error.status)
with syncws.Client(url, ssl=tls, auth=("ann", "secret")) as client:
    client.send_text("hello")
    print(client.receive(timeout=20))
"""


# Has the test of the page on chats run with the listener that its code has started.
LATE = """
import types

test_late_comers_see_what_was_said(types.SimpleNamespace(port=9090))
print("seen")
"""


class Block(NamedTuple):
    """The n-th block of ours on a page."""

    page: str
    number: int

    @property
    def code(self) -> str:
        """What it says; without the waits between attempts."""
        code = blocks(self.page)[self.number]
        return code.replace("RetryConfig(interval=1,", "RetryConfig(interval=0.01,")


# A server, a client, and what the two print.
RUNS: list[tuple[Block | str, Block | str, list[str]]] = [
    (Block("from-ballerina", 0), Block("from-ballerina", 2), ["You said: hello"]),
    (Block("from-ballerina", 1), CHAT, ["anna", "anna: hello", "400 b'Age is required'"]),
    (Block("from-flask-sock", 1), Block("from-flask-sock", 3), ["You said: hello"]),
    (Block("from-flask-sock", 1), PAGE, ["b'a page'"]),
    (
        Block("from-flask-sock", 2),
        ROOMS,
        ["401 b'Log in first'", "anna in room 7, fr", "hello"],
    ),
    (ECHO, Block("from-websocket-client", 0), ["hello anna", r"b'\x00\x01'"]),
    (TICKS, Block("from-websocket-client", 1), ["tick 0", "tick 1", "closed: 1000"]),
    (Block("from-websockets", 0), Block("from-websockets", 1), ["/echo", "hello"]),
    (TICKS, Block("from-websockets", 2), ["tick 0", "tick 1"]),
    (TICKS, Block("clients", 0), ["tick 0", "tick 1"]),
    (ECHO, Block("clients", 1), ["hello"]),
    (ECHO, Block("clients", 2), ["hello", "['token']"]),
    (Block("README", 2), Block("clients", 3), ["ann: hello"]),
    (Block("groups", 0), LOBBY, ["alone", '{"here":2}', "hello hello"]),
    (Block("groups", 1), PRICES, ["you have missed 0 of our messages"]),
    (Block("processes", 0), PROCESS, ["You said to process N: hello"]),
    (Block("processes", 1), Block("clients", 1), ["hello"]),
    (Block("README", 2), ROOM, ["401 b'Who are you?'", "ann: hello"]),
    (Block("first-service", 0), Block("first-service", 1), ["Who are you?", "Hello, Anna!"]),
    (Block("chat", 0), Block("chat", 1), ["Anna says: hello", "400 Say who you are: ?name=..."]),
]


class Row(NamedTuple):
    """What a row of a table says of ours."""

    page: str
    ours: list[str]
    default: str | None


def text_of(page: str) -> str:
    """Return a page's text."""
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    """Return the blocks of code that are ours."""
    return re.findall(r"^```python\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def rows(page: str) -> Iterator[Row]:
    """Go through the rows of the tables that have something of ours."""
    header: list[str] = []
    for line in text_of(page).splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
        elif "syncws" in header and not re.fullmatch("[|-]+", line):
            assert len(cells) == len(header), line
            ours = header.index("syncws")
            has_default = header[ours + 1] == "default"
            yield Row(
                page, re.findall("`([^`]+)`", cells[ours]), cells[ours + 1] if has_default else None
            )


def find(text: str) -> tuple[Any, list[str]]:
    """Return what is called so, and the parameters that are named after it."""
    found = re.fullmatch(r"([\w.]+)(?:\(((?:\w+=(?:, )?)+)\))?", text)
    assert found is not None, text
    if found[1] in _CALLBACKS:
        return found[1], []
    thing: Any = syncws
    for name in found[1].split("."):
        thing = getattr(thing, name)
    return thing, re.findall(r"\w+", found[2] or "")


def case(run: tuple[Block | str, Block | str, list[str]]) -> str:
    """Return the name of a run."""
    named = [part for part in run[:2] if isinstance(part, Block)]
    return " and ".join(f"{block.page} {block.number}" for block in named)


@pytest.mark.parametrize(("server", "client", "said"), RUNS, ids=map(case, RUNS))
def test_our_code_runs(server: Block | str, client: Block | str, said: list[str]) -> None:
    codes = [part.code if isinstance(part, Block) else part for part in (server, client)]
    if "flask" in codes[0] and importlib.util.find_spec("flask") is None:
        pytest.skip("Flask is not installed")
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PAIR, *codes],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=HANG,
        check=False,
    )
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (said, "", 0)


def test_the_test_of_the_page_on_chats_passes() -> None:
    test_our_code_runs(Block("chat", 0), Block("chat", 2).code + LATE, ["seen"])


def run_alone(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, as it is."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=HANG,
        check=False,
    )


def test_the_code_of_the_page_on_tls_runs(
    certificates: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    server, client = blocks("tls")
    for name, file in certificates.items():
        server, client = (code.replace(f'"{name}"', repr(file)) for code in (server, client))
    names: dict[str, Any] = {}
    exec(server.replace("9443", "0"), names)
    with contextlib.ExitStack() as stack:
        stack.callback(names["listener"].stop)
        exec(client.replace("9443", str(names["listener"].port)), {})
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize("number", range(5))
def test_the_code_for_observability_runs(number: int) -> None:
    code = re.sub("9090|9091|9100", "0", blocks("observability")[number])
    if "opentelemetry" in code:
        pytest.importorskip("opentelemetry.trace")
    done = run_alone(code)
    assert (done.stderr, done.returncode) == ("", 0)
    if number == 1:
        assert done.stdout.startswith("ConnectionStats(bytes_received=5, bytes_sent=5, ")


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    """The files of a certificate for localhost, by the names that a page gives them."""
    files = {name: str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")}
    certificate = authority().issue_cert("localhost")
    authority().cert_pem.write_to_path(files["ca.pem"])
    certificate.cert_chain_pems[0].write_to_path(files["cert.pem"])
    certificate.private_key_pem.write_to_path(files["key.pem"])
    return files


def test_the_code_for_tls_and_logging_runs(certificates: dict[str, str]) -> None:
    tls, _, _, logs = blocks("README")
    server, client = tls, WITH_LOGS + logs + TLS_CLIENT
    for name, file in certificates.items():
        server, client = (part.replace(f'"{name}"', repr(file)) for part in (server, client))
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PAIR, server, client],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=HANG,
        check=False,
    )
    assert (done.stdout.splitlines(), done.returncode) == (["hello", "404"], 0), done.stderr
    refused = "INFO:syncws.server:refused /ecko with 404: No WebSocket service is attached to /ecko"
    assert refused in done.stderr


def test_the_code_for_running_in_the_open_runs(certificates: dict[str, str]) -> None:
    (server,) = blocks("security")
    assert 'host=""' in server
    server, client = server.replace('host=""', 'host="localhost"'), SECURE_CLIENT
    for name, file in certificates.items():
        server, client = (part.replace(f'"{name}"', repr(file)) for part in (server, client))
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PAIR, server, client],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=HANG,
        check=False,
    )
    assert (done.stdout.splitlines(), done.returncode) == (["401", "ann: hello"], 0), done.stderr


@pytest.mark.parametrize(
    ("number", "options", "said"),
    [
        (0, {"auth": True}, ["hello"]),
        (1, {"tls": True}, ["hello", "False"]),
        (2, {"auth": True}, [f"407 {REALM}"]),
    ],
)
def test_the_code_for_proxies_runs(
    number: int, options: dict[str, bool], said: list[str], certificates: dict[str, str]
) -> None:
    with squid(**options) as proxy:
        code = blocks("client-proxies")[number].replace("3128", str(proxy.port))
        code = code.replace('"ca.pem"', repr(certificates["ca.pem"]))
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", PAIR, ECHO, code],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            timeout=HANG,
            check=False,
        )
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (said, "", 0)


def findings() -> list[tuple[str, str]]:
    """Return what shows a flaw of another library, with what it prints."""
    pairs = "^```py\n(.*?)^```$\n\n^```text\n(.*?)^```$"
    return re.findall(pairs, text_of("security"), re.MULTILINE | re.DOTALL)


def test_every_flaw_of_others_says_what_it_prints() -> None:
    assert len(findings()) == text_of("security").count("```py\n") > 5


@pytest.mark.parametrize("number", range(len(findings())))
def test_the_flaws_of_others_are_as_described(number: int) -> None:
    for library, version in re.findall(r"\b(wsproto|h11) (\d[\d.]*\d)", text_of("security")):
        if importlib.metadata.version(library) != version:
            pytest.skip(f"that is about {library} {version}")
    code, printed = findings()[number]
    done = run_alone(code)
    assert (done.stdout, done.stderr) == (printed, "")


def test_the_code_for_new_certificates_runs(certificates: dict[str, str]) -> None:
    code = RENEWING + blocks("README")[1].replace("9090", "0")
    for name, file in certificates.items():
        code = code.replace(f'"{name}"', repr(file))
    trust = syncws.TLSConfig(ca_file=certificates["ca.pem"])
    with interpreter(code) as server:
        url = f"wss://localhost:{server.line()}/echo"
        with syncws.Client(url, ssl=trust) as client:
            key = Path(certificates["key.pem"])
            whole = key.read_bytes()
            key.write_bytes(b"")
            server.process.send_signal(signal.SIGHUP)
            assert server.line() == "refused"
            syncws.Client(url, ssl=trust).close()
            other = authority().issue_cert("other.example")
            other.cert_chain_pems[0].write_to_path(certificates["cert.pem"])
            other.private_key_pem.write_to_path(certificates["key.pem"])
            assert key.read_bytes() != whole
            server.process.send_signal(signal.SIGHUP)
            assert server.line() == "renewed"
            with pytest.raises(syncws.TLSError, match="not valid for 'localhost'"):
                syncws.Client(url, ssl=trust)
            client.send_text("still here")
            assert client.receive(HANG) == "still here"
        server.process.send_signal(signal.SIGTERM)
        code_and_log = server.end()
    assert code_and_log[0] == 0
    assert code_and_log[1].startswith("ERROR:root:the old certificate stays\n")


def test_all_our_code_is_run() -> None:
    run = {part for parts in RUNS for part in parts[:2] if isinstance(part, Block)}
    run |= {Block("README", n) for n in (0, 1, 3)}  # by the tests above
    run.add(Block("security", 0))
    run |= {Block("client-proxies", n) for n in range(3)}
    run |= {Block("observability", n) for n in range(5)}
    run.add(Block("chat", 2))
    run |= {Block("tls", n) for n in range(2)}
    run |= {Block("testing", n) for n in range(9)}  # by test_testing
    run.add(Block("from-flask-sock", 0))  # with those of the page on Flask, see test_flask
    pages = ("README", *ALL_PAGES)
    assert run == {Block(page, n) for page in pages for n in range(len(blocks(page)))}


@pytest.mark.parametrize("page", PAGES)
def test_what_the_tables_name_is_there(page: str) -> None:
    named = [text for row in rows(page) for text in row.ours]
    assert len(named) > 20
    for text in named:
        thing, parameters = find(text)
        if parameters:
            assert set(parameters) <= set(inspect.signature(thing).parameters), text


@pytest.mark.parametrize("page", PAGES)
def test_the_defaults_of_the_tables_are_so(page: str) -> None:
    checked = 0
    for _, ours, default in rows(page):
        for text in ours if default is not None else ():
            thing, parameters = find(text)
            assert parameters, f"{text} has a default, but of which parameter?"
            for name in parameters:
                actual = inspect.signature(thing).parameters[name].default
                assert default == f"`{_literal(default)!r}`".replace("'", '"'), (text, default)
                assert actual == _literal(default), text
                assert type(actual) is type(_literal(default)), text
                checked += 1
    assert checked > 3


# The sections of the page on security that have every option, and whose they are.
OPTIONS: dict[str, set[str]] = {
    "Of a connection": {field.name for field in dataclasses.fields(syncws.ServiceConfig)},
    "Of permessage-deflate": {field.name for field in dataclasses.fields(syncws.Compression)},
    "Of a listener": {*inspect.signature(syncws.Listener).parameters}
    - {"port", "unix_path", "sockets", "engine", "app"},
    "Of an engine": {*inspect.signature(syncws.Engine).parameters} - {"name"},
}
OWNERS: dict[str, Any] = {
    "Of a connection": syncws.ServiceConfig,
    "Of permessage-deflate": syncws.Compression,
    "Of a listener": syncws.Listener,
    "Of an engine": syncws.Engine,
}


@pytest.mark.parametrize("title", OPTIONS)
def test_the_page_on_security_has_every_option_with_its_default(title: str) -> None:
    section = text_of("security").split(f"### {title}\n")[1].split("\n##")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, re.MULTILINE))
    assert told.keys() == OPTIONS[title]
    parameters = inspect.signature(OWNERS[title]).parameters
    assert {name: _literal(cell) for name, cell in told.items()} == {
        name: parameters[name].default for name in told
    }


def test_every_promise_is_shown_by_tests() -> None:
    text = text_of("security").split("\n## What is promised\n")[1]
    found = re.findall(r"^\| (?!promise )([^|]+) \| *(`tests/[^|]*)?\|$", text, re.MULTILINE)
    assert len(found) > 25
    assert [promise for promise, tests in found if not tests] == []


def test_the_page_on_security_has_the_clients_default() -> None:
    default = inspect.signature(syncws.Client).parameters["handshake_timeout"].default
    assert f"`handshake_timeout={default}`" in text_of("security")


def _literal(cell: str | None) -> Any:
    assert cell is not None
    return ast.literal_eval(cell.strip("`"))


LINKING = [
    "README",
    "../README",
    "../SECURITY",
    "abuse-cases",
    "architecture",
    "command-line",
    "django",
    "flask",
    "performance",
    "proxies",
    "reference",
    "scaling",
    "troubleshooting",
    "wsgi-servers",
    *ALL_PAGES,
]


@pytest.mark.parametrize("page", LINKING)
def test_the_links_lead_somewhere(page: str) -> None:
    path = DOCS / f"{page}.md"
    text = re.sub(r"`[^`]*`", "", without_code(path))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            other = path.parent / name if name else path
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), target


def without_code(path: Path) -> str:
    """Return a page's text without blocks of code."""
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return what links to a page's titles end with."""
    titles = re.findall(r"^#+ (.*)$", without_code(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_table_of_contents() -> None:
    trees = re.findall(r"```{toctree}\n.*?\n\n(.*?)\n```", text_of("index"), re.DOTALL)
    listed = [page for tree in trees for page in tree.split()]
    assert sorted(listed) == sorted(path.stem for path in DOCS.glob("*.md") if path.stem != "index")


def test_the_reference_has_every_public_name() -> None:
    named = re.findall(r"^\.\. auto\w+:: syncws\.(\w+)$", text_of("reference"), re.MULTILINE)
    assert sorted(named) == sorted(syncws.__all__)
    named = re.findall(
        r"^\.\. auto\w+:: syncws\.testing\.(\w+)$", text_of("reference"), re.MULTILINE
    )
    assert sorted(named) == sorted(testing.__all__)
