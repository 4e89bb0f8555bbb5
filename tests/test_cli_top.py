"""`syncws top`: what it shows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from click.testing import CliRunner

import syncws
from syncws.cli.codes import ExitCode
from syncws.cli.commands import commands
from syncws.cli.top import fetch, rows, summary
from syncws.integrations.stats import StatsApp
from tests.support import HANG, ServerRecorder, listening


def seen(messages: int) -> dict[str, Any]:
    stats = {
        "bytes_received": 10,
        "bytes_sent": 10,
        "messages_received": messages,
        "messages_sent": 2 * messages,
        "duration": 61.5,
    }
    return {
        "listener": {**stats, "open": 1, "accepted": 2, "failed": 0, "buffered_bytes": 7},
        "engine": {"threads": 8, "blocked": 1},
        "connections": [
            {
                "id": "abc",
                "path": "/chat\x1b" + "x" * 50,
                "remote_address": ["127.0.0.1", 5000],
                "buffered_bytes": 7,
                "stats": stats,
            }
        ],
    }


def test_a_summary_has_rates() -> None:
    assert summary(seen(10), seen(30), 2.0) == (
        "1 open, 2 ever, 0 failed; 10 messages/s in, 20/s out, 7 bytes buffered; "
        "8 threads, 1 blocked"
    )
    assert "0 messages/s in" in summary(None, seen(30), 2.0)


def test_rows_have_rates_and_the_busiest_comes_first() -> None:
    before, now = seen(10), seen(30)
    idle = copy.deepcopy(now["connections"][0])
    idle["id"], idle["stats"] = "idle", {**idle["stats"], "messages_received": 9}
    before["connections"].append(copy.deepcopy(idle))
    before["connections"][1]["stats"]["messages_received"] = 9
    now["connections"].insert(0, idle)
    first, second = rows(before, now, 2.0, 10)
    assert (first[0], second[0]) == ("abc", "idle")
    assert first[2:] == ["127.0.0.1:5000", "62", "10", "20", "30", "60", "7"]
    assert first[1].startswith("/chat\\x1b")
    assert len(rows(before, now, 2.0, 1)) == 1


def test_it_shows_a_listener() -> None:
    service = ServerRecorder()
    with (
        listening(service) as listener,
        syncws.Listener(0, app=StatsApp(listener)) as inside,
        syncws.Client(f"ws://127.0.0.1:{listener.port}/?room=7") as client,
    ):
        client.send_text("hello")
        service.expect("on_open")
        service.expect("on_text", "hello")
        url = f"http://127.0.0.1:{inside.port}/"
        result = CliRunner(env={"COLUMNS": "160"}).invoke(
            commands, ["top", url, "--once", "--interval", "0.1"]
        )
        assert fetch(url, HANG)["listener"]["open"] == 1
    assert result.exit_code == 0, result.output
    assert "1 open, 1 ever, 0 failed" in result.output
    assert "buffered" in result.output


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("localhost:9091", ExitCode.USAGE, "is no http:// URL: StatsApp answers HTTP"),
        ("http://127.0.0.1:1/", ExitCode.UNREACHABLE, "does not tell: "),
    ],
)
def test_nobody_tells(url: str, code: ExitCode, says: str) -> None:
    result = CliRunner().invoke(commands, ["top", url, "--once"])
    assert (result.exit_code, says in result.output) == (code, True), result.output


def test_something_else_answers() -> None:
    def other(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"{}"]

    with syncws.Listener(0, app=other) as listener:
        result = CliRunner().invoke(commands, ["top", f"http://127.0.0.1:{listener.port}/"])
    assert result.exit_code == ExitCode.UNREACHABLE
    assert "that is no StatsApp" in result.output
