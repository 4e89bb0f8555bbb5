"""Each sample of examples/ is run as a user runs it, and prints what it says it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support import HANG

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def lines_of(name: str) -> list[str]:
    """Run a sample from another directory; return its lines, with every port as PORT."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", str(EXAMPLES / name)],
        cwd="/",
        capture_output=True,
        encoding="utf-8",
        timeout=2 * HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nothing is told twice
    return re.sub(r"localhost(:| port )\d+", r"localhost\1PORT", done.stdout).splitlines()


def test_the_client_brings_a_server_of_its_own() -> None:
    # Two workers that print at once may get into each other's lines.
    said = "\n".join(lines_of("client.py"))
    for text in (
        "Connected to ws://localhost:PORT/basic/ws, subprotocol: json",
        "text: You said: hello",
        r"binary: b'\x00\x01\x02\x03'",
        "ping: b'Are you there?'",
        "pong: b'And you?'",
        "closed: 1001 You told me to close the connection",
        " text: hello",
        " left: 1001",
    ):
        assert said.count(text) == 1, said


def test_the_proxy_hands_on_texts_and_closes() -> None:
    said = "\n".join(lines_of("proxy_server.py"))
    for text, times in {
        "proxy -> hello": 1,
        "proxy <- the backend heard: hello": 1,
        "/proxy: the backend heard: hello": 1,
        "proxy -> bye": 1,
        "proxy: the backend left: 4001 the backend says bye": 1,
        "proxy: the caller left: 4001": 2,
        "/proxy closed: 4001 (the backend says bye)": 1,
        "/blocking: the backend heard: hello": 1,
        "/blocking closed: 4001 (the backend says bye)": 1,
    }.items():
        assert said.count(text) == times, said
    assert said.index("proxy -> hello") < said.index("/proxy: the backend heard: hello")


def test_the_client_of_the_retry_sample_comes_back() -> None:
    lines = lines_of("retry.py")
    assert lines[0] == "text: You said: hello"
    assert lines[-2:] == ["text: You said: hello again", "closed: 1000"]
    first = r"reconnect: attempt 1 at ws://localhost:PORT/ in 0\.\d+ s "
    assert re.fullmatch(first + r"\(the connection is closed: .*\)", lines[1])
    refused = [
        line
        for line in lines
        if line.endswith("failed: Connection refused: nothing listens there)")
    ]
    assert refused
    numbers = [int(found) for found in re.findall(r"attempt (\d+) at", "\n".join(lines))]
    assert numbers == sorted(numbers)
    assert any(re.match(r"reconnect: connected to .* by attempt \d+", line) for line in lines)
    assert [line for line in lines if line.startswith("not sent: ")]
    assert not [line for line in lines if line.startswith("given up")]


def test_the_client_of_the_failover_sample_goes_on_until_none_is_left() -> None:
    lines = lines_of("failover.py")
    heard = [line for line in lines if line.startswith("text: ")]
    assert heard == [f"text: {name} heard: hello" for name in ("one", "two", "three")]
    assert len([line for line in lines if "connected to" in line]) == 2
    (given_up,) = [line for line in lines if line.startswith("given up: ")]
    assert given_up.startswith("given up: no connection after 3 attempts: ws://localhost:PORT/: ")
    assert given_up.count("Connection refused") == 3
    assert lines[-1] == "closed: 1006"


def test_the_cookie_sample_logs_in_and_is_known() -> None:
    assert lines_of("cookie.py") == [
        "without a cookie: 401 Log in first.",
        "logged in: 200 Welcome.",
        "Hello Ada, this is visit 1.",
        "Hello Ada, this is visit 2.",
    ]
