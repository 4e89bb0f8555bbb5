"""The benchmarks choose, compare and print as they should; nothing is measured here."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from .__main__ import parse, rotated
from .plot import bars, panels
from .report import (
    Outcome,
    Verdict,
    format_table,
    judge,
    medians,
    ratio,
    targets_table,
    workload_table,
)
from .workloads import (
    CLIENTS,
    METRICS,
    SERVERS,
    TARGETS,
    WORKLOADS,
    Target,
    Workload,
    by_name,
    select,
)

C64 = WORKLOADS["echo-32-c64"]


def rates(*values: float | str) -> list[Outcome]:
    return [value if isinstance(value, str) else {"rate": value} for value in values]


# -- Medians and ratios ----------------------------------------------


def test_medians_are_those_of_the_rounds_that_worked() -> None:
    outcomes: list[Outcome] = [
        {"rate": 3.0, "p50_us": 9.0},
        "stalled",
        {"rate": 5.0},
        {"rate": 1.0},
    ]
    assert medians(outcomes) == {"rate": 3.0, "p50_us": 9.0}
    assert medians(["stalled"]) == {}
    assert medians([]) == {}


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    # Those of the medians would be 20 / 10.
    results = {"w": {"a": rates(10, 20, 90), "b": rates(10, 4, 30)}}
    assert ratio(results, ("w", "a", "rate"), ("w", "b", "rate")) == 3


def test_a_ratio_leaves_out_rounds_that_one_of_both_lacks() -> None:
    results = {"w": {"a": rates(10, 20, "died", 40), "b": rates("died", 10, 10)}}
    assert ratio(results, ("w", "a", "rate"), ("w", "b", "rate")) == 2


@pytest.mark.parametrize("divisor", ["nobody", "broken", "nothing"])
def test_no_ratio(divisor: str) -> None:
    results = {"w": {"a": rates(1), "broken": rates("died"), "nothing": rates(0)}}
    assert ratio(results, ("w", "a", "rate"), ("w", divisor, "rate")) is None
    assert ratio(results, ("elsewhere", "a", "rate"), ("w", "a", "rate")) is None


# -- Tables ----------------------------------------------------------


def test_a_table_is_aligned() -> None:
    rows = [
        ["peer", "per s", "ratio"],
        ["one", "1,000", "0.5"],
        ["three", "7", "-"],
        ["another", "failed: a long story"],
    ]
    assert format_table(rows).splitlines() == [
        "peer     per s  ratio",
        "-------  -----  -----",
        "one      1,000    0.5",
        "three        7      -",
        "another  failed: a long story",
    ]


def test_the_table_of_a_workload() -> None:
    figures = {"rate": 1234.5, "p50_us": 2.25}
    results: dict[str, dict[str, list[Outcome]]] = {
        C64.name: {
            "syncws": [figures],
            "aiohttp": [figures | {"rate": 617.25}],
            "picows": [figures, "it died"],
            "floor": ["no luck"],
        }
    }
    title, head, _, syncws, aiohttp, _, floor, note = workload_table(C64, results).splitlines()
    assert title.startswith("echo-32-c64: ")
    assert head.split()[:3] == ["peer", "per", "s"]
    assert head.endswith("syncws/peer, per s")
    assert syncws.split()[:3] == ["syncws", "1,234", "2.2"]
    assert syncws.endswith("-")
    assert aiohttp.endswith("2.00")
    assert floor == "floor    failed: no luck"
    assert note == "picows failed in 1 of 2 rounds: it died"


# -- Targets ---------------------------------------------------------


@pytest.mark.parametrize(
    ("sign", "value", "reached"),
    [
        (">=", 2.0, True),
        (">=", 1.99, False),
        ("<=", 2.0, True),
        ("<=", 2.01, False),
        ("<", 1.99, True),
        ("<", 2.0, False),
    ],
)
def test_a_target_is_reached_or_missed(sign: str, value: float, reached: bool) -> None:
    target = Target("w", "rate", sign, 2.0)
    assert target.reached(value) is reached
    assert Verdict(target, value).word == ("reached" if reached else "MISSED")


def test_what_a_target_is_compared_with() -> None:
    results: dict[str, dict[str, list[Outcome]]] = {
        "w": {"syncws": [{"rate": 8.0, "p50_us": 4.0}], "picows": rates(2)},
        "x": {"syncws": rates(16), "syncws-pure": rates(6)},
    }
    targets = [
        Target("w", "rate", ">=", 1),
        Target("w", "rate", ">=", 1, against="picows"),
        Target("w", "rate", ">=", 1, against_workload="x"),
        Target("w", "rate", ">=", 1, against_metric="p50_us"),
        Target("x", "rate", ">=", 1, peer="syncws-pure"),
        Target("x", "rate", ">=", 1, against="picows"),
    ]
    verdicts = judge(results, targets)
    assert [verdict.value for verdict in verdicts] == [8, 4, 0.5, 2, 6, None]
    assert [verdict.word for verdict in verdicts[2:]] == [
        "MISSED",
        "reached",
        "reached",
        "not measured",
    ]


def test_the_table_of_targets() -> None:
    targets = [
        Target("echo-32-c64", "rate", ">=", 1.3, against="aiohttp"),
        Target("idle-10000", "kib", "<=", 10),
        Target("echo-32-c1000", "rate", ">=", 0.9, against_workload="echo-32-c64"),
        Target("slow-callbacks", "p99_us", "<", 5, against_metric="alone_p99_us"),
        Target("churn", "rate", ">=", 1, against="aiohttp"),
    ]
    values = [1.5, 12.0, 0.95, 2.0, None]
    table = targets_table(map(Verdict, targets, values))
    lines = [" ".join(line.split()) for line in table.splitlines()[3:]]
    assert lines == [
        "echo-32-c64 syncws / aiohttp, per s >= 1.3 1.50 reached",
        "idle-10000 syncws, KiB each <= 10 12.00 MISSED",
        "echo-32-c1000 syncws, per s, / that of echo-32-c64 >= 0.9 0.95 reached",
        "slow-callbacks syncws, p99 µs / p99 µs alone < 5 2.00 reached",
    ]
    assert targets_table([Verdict(targets[0], None)]) == "targets: none was measured"


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_targets_are_about_what_is_measured(target: Target) -> None:
    for name, peer, metric in ((target.workload, target.peer, target.metric), target.divisor()):
        workload = WORKLOADS[name]
        assert peer in workload.peers
        assert metric in workload.metrics


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda workload: workload.name)
def test_workloads_are_of_known_parts(workload: Workload) -> None:
    assert set(workload.metrics) | set(workload.ratios) <= set(METRICS)
    assert set(workload.ratios) <= set(workload.metrics)
    assert "syncws" in workload.candidates


# -- Selection -------------------------------------------------------


def test_select_by_name_and_pattern() -> None:
    known = ["echo-1", "echo-2", "idle"]
    assert select([], known) == known
    assert select(["idle", "echo-1"], known) == ["echo-1", "idle"]
    assert select(["echo-*"], known) == ["echo-1", "echo-2"]
    with pytest.raises(ValueError, match=r"'ech' is none of: echo-1, echo-2, idle"):
        select(["idle", "ech"], known)


def test_workloads_by_name() -> None:
    assert by_name([]) == list(WORKLOADS.values())
    assert [workload.name for workload in by_name(["idle-*"])] == ["idle-2000", "idle-10000"]


def test_the_command_line() -> None:
    options = parse(["churn", "--peers", "syncws*", "--quick"])
    assert [workload.name for workload in options.workloads] == ["churn"]
    assert options.peers == ["syncws", "syncws-pure"]
    assert (options.rounds, options.seconds) == (1, 0.5)
    options = parse(["--quick", "--rounds", "2", "--seconds", "3"])
    assert (options.rounds, options.seconds) == (2, 3.0)
    assert options.peers == list(dict.fromkeys([*SERVERS, *CLIENTS]))


@pytest.mark.parametrize("arguments", [["no-such"], ["--peers", "nobody"], ["--rounds", "0"]])
def test_a_wrong_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert "error:" in capsys.readouterr().err


def test_peers_take_turns_at_being_first() -> None:
    assert [rotated(["a", "b", "c"], number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


# -- Plot ------------------------------------------------------------


def test_the_plot_shows_the_main_workloads_or_what_there_is() -> None:
    assert panels({"churn": {"a": rates(1)}, "handshakes": {"a": rates(1)}}) == ["handshakes"]
    assert panels({"churn": {"a": rates(1)}, "handshakes": {"a": rates("died")}}) == ["churn"]
    assert panels({}) == []


def test_bars_have_the_best_at_the_top_and_no_giants() -> None:
    figures = {"a": {"rate": 2.0}, "b": {"rate": 3.0}, "floor": {"rate": 5.0}, "broken": {}}
    assert bars(figures, "rate") == [("a", 2.0), ("b", 3.0), ("floor", 5.0)]
    assert bars(figures | {"floor": {"rate": 50.0}}, "rate") == [("a", 2.0), ("b", 3.0)]
    latencies = {"a": {"p50_us": 2.0}, "b": {"p50_us": 3.0}}
    assert bars(latencies, "p50_us") == [("b", 3.0), ("a", 2.0)]


# -- Structure -------------------------------------------------------


def test_what_pytest_imports_needs_no_peer() -> None:
    names = {"workloads", "report", "run", "plot", "environment", "__main__"}
    for name in names:
        tree = ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
        imported = {
            alias.name.partition(".")[0]
            for node in tree.body
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {
            (node.module or "").partition(".")[0]
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and not node.level
        }
        assert imported <= set(sys.stdlib_module_names), name
