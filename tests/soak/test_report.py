"""What is wrong is named, and makes the command fail."""

from __future__ import annotations

from typing import Any

import pytest

from .__main__ import parse, refusal
from .report import Result, problems_of, table
from .settings import Settings

STATE = {"threads": 1, "descriptors": 4, "objects": 1000, "connections": 0}


def figures(**changes: Any) -> dict[str, Any]:
    """Figures of a run in which all was well, but for the changes."""
    counts = dict.fromkeys(("lost", "duplicated", "reordered", "corrupt", "untold", "ended"), 0)
    return {
        "warm_up": 60.0,
        "judges_memory": True,
        "interrupted": False,
        "opening": 1.0,
        "peak": 10,
        "opened": 20,
        "pairs": 20,
        "plans": {"drained": 20},
        "totals": {"server received": 5, "client received": 5},
        "counts": counts,
        "findings": [],
        "broadcasts": 3,
        "samples": {"server": [(x * 10.0, 100_000, 12, 20, 5000, 9000) for x in range(60)]},
        "looks": {"server": [STATE, STATE]},
        "done": {"server": {"before": STATE, "after": STATE, "left": []}},
        "problems": [],
        "latency": {"p50": 0.001, "p99": None},
        **changes,
    }


def test_all_is_well() -> None:
    result = Result(figures(), problems_of(figures()))
    assert result.problems == []
    assert "All is well." in table(result)


RESIDENT = [(x * 10.0, 100_000 + x * 2000, 12, 20, 5000, 9000) for x in range(60)]
KEPT = [(x * 10.0, 100_000 + x * 500, 12, 20, 5000, 9000) for x in range(60)]
USED = [(x * 10.0, 100_000, 12, 20, 5000 + x * 500, 9000) for x in range(60)]
OBJECTS = [(x * 10.0, 100_000, 12, 20, 5000, 9000 + x * 2000) for x in range(60)]
THREADS = [(x * 10.0, 100_000, 12 + 2 * x, 20, 5000, 9000) for x in range(60)]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"counts": {"lost": 2}}, "2 messages lost"),
        ({"counts": {"untold": 1}}, "1 ends that somebody was not told of"),
        ({"pairs": 0}, "no connection has come to its end"),
        ({"totals": {"client received": 1}}, "the server has received nothing"),
        ({"samples": {"server": RESIDENT}}, "server: growth of resident memory: 109.4 MiB at"),
        (
            {"samples": {"server": USED}},
            "server: growth of memory in use: 7.8 MiB at minute 1.0, 33.7",
        ),
        ({"samples": {"server": OBJECTS}}, "server: growth of small objects: 21.0 thousand at"),
        ({"samples": {"server": THREADS}}, "server: 130 threads"),
        ({"looks": {"server": [STATE, STATE | {"objects": 50_000}]}}, "1000 objects became 50000"),
        ({"done": {}}, "server: it has not come to its end"),
        (
            {"done": {"server": {"before": STATE, "after": STATE, "left": ["3 descriptors"]}}},
            "server: left behind at the end: 3 descriptors",
        ),
        ({"problems": ["server: logged: something"]}, "server: logged: something"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], text: str) -> None:
    found = figures(**changes)
    problems = problems_of(found)
    assert len(problems) == 1
    assert text in problems[0]
    assert f"  {problems[0]}" in table(Result(found, problems))


def test_what_the_system_keeps_of_freed_memory_is_none_of_ours() -> None:
    assert problems_of(figures(samples={"server": KEPT})) == []


def test_a_short_run_does_not_judge_memory() -> None:
    found = figures(samples={"server": USED}, judges_memory=False)
    assert problems_of(found) == []
    assert not Settings.of(1000, 60).judges_memory
    assert Settings.of(10_000, 600).judges_memory


def test_the_command_has_two_sizes() -> None:
    options = parse([])
    assert (options.connections, options.seconds) == (10_000, 600)
    options = parse(["--short"])
    assert (options.connections, options.seconds) == (1000, 60)
    options = parse(["--short", "--connections", "50"])
    assert (options.connections, options.seconds) == (50, 60)


def test_too_few_descriptors_are_refused() -> None:
    settings = Settings.of(10_000, 600)
    assert refusal(settings, 20_000) == ""
    assert refusal(settings, -1) == ""  # no limit
    assert "10000 connections need 11256 descriptors" in refusal(settings, 4096)


@pytest.mark.parametrize("connections", [10, 20, 200, 1000, 10_000])
def test_the_connections_are_shared_out(connections: int) -> None:
    settings = Settings.of(connections, 60)
    blocking = settings.blocking_threads * settings.blocking_each
    assert settings.rough + blocking + settings.callback_clients == connections
    assert settings.callback_clients > connections * 0.6
    assert Settings.load(settings.dump()) == settings
