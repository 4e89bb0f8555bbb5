"""The conformance harness says no where it should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .report import CaseResult, judge, load, table

NEVER_OPENED = "The WebSocket opening handshake was never completed!"


def good(number: int) -> list[CaseResult]:
    return [CaseResult(f"1.1.{index + 1}", "OK", "OK") for index in range(number)]


def test_all_good() -> None:
    informational = [
        CaseResult(case, "INFORMATIONAL", "INFORMATIONAL") for case in ("7.1.6", "7.13.1", "7.13.2")
    ]
    verdict = judge(good(5) + informational, announced=8, expected=8)
    assert verdict.passed
    assert "PASSED" in table({"server": verdict})


@pytest.mark.parametrize(
    "result",
    [
        CaseResult("6.4.1", "NON-STRICT", "OK"),
        CaseResult("6.4.1", "FAILED", "OK"),
        CaseResult("12.1.1", "UNIMPLEMENTED", "OK"),
        CaseResult("6.4.1", "INFORMATIONAL", "OK"),
        CaseResult("6.4.1", "INFORMATIONAL", "INFORMATIONAL"),
        CaseResult("6.4.1", "OK", "FAILED"),
        CaseResult("6.4.1", "OK", "UNCLEAN"),
        CaseResult("6.4.1", "OK", "WRONG CODE"),
        CaseResult("6.4.1", "OK", "FAILED BY CLIENT"),
        CaseResult("6.4.1", "OK", "INFORMATIONAL"),
        CaseResult("7.1.6", "INFORMATIONAL", "FAILED"),
        CaseResult("7.1.6", "FAILED", "INFORMATIONAL"),
        CaseResult("7.1.6", "INFORMATIONAL", "INFORMATIONAL", close_detail=NEVER_OPENED),
    ],
    ids=lambda result: f"{result.case}-{result.behavior}-{result.behavior_close}",
)
def test_one_bad_case_fails_the_run(result: CaseResult) -> None:
    verdict = judge([*good(2), result], announced=3, expected=3)
    assert [line.split(":")[0] for line in verdict.complaints] == [result.case]
    assert "FAILED" in table({"server": verdict})


@pytest.mark.parametrize(
    ("recorded", "announced", "expected"),
    [(2, 3, 3), (0, 3, 3), (3, 3, 4), (0, 0, 3), (0, None, 3), (3, None, 3), (4, 3, 3)],
)
def test_numbers_that_differ_fail_the_run(
    recorded: int, announced: int | None, expected: int
) -> None:
    verdict = judge(good(recorded), announced=announced, expected=expected)
    assert not verdict.passed


def test_a_case_that_does_not_end_fails_the_run() -> None:
    verdict = judge(good(3), announced=3, expected=3, aborted=["1.1.2"])
    assert verdict.complaints == ["1.1.2: did not end"]


def test_load_reads_the_report_in_the_order_of_the_cases(tmp_path: Path) -> None:
    index = {}
    for case in ("10.1.1", "2.10", "2.9"):
        name = f"peer_case_{case.replace('.', '_')}.json"
        index[case] = {
            "behavior": "OK",
            "behaviorClose": "UNCLEAN",
            "duration": 1500,
            "reportfile": name,
        }
        (tmp_path / name).write_text(json.dumps({"resultClose": case}))
    (tmp_path / "index.json").write_text(json.dumps({"peer": index, "another": index}))
    assert load(tmp_path, "peer") == [
        CaseResult(case, "OK", "UNCLEAN", case, 1.5) for case in ("2.9", "2.10", "10.1.1")
    ]
    assert load(tmp_path, "nobody") == []


def test_load_gives_a_case_that_never_opened_no_time(tmp_path: Path) -> None:
    summary = {
        "behavior": "FAILED",
        "behaviorClose": "FAILED",
        "duration": 1_700_000_000_000,
        "reportfile": "case.json",
    }
    (tmp_path / "case.json").write_text(json.dumps({"resultClose": NEVER_OPENED}))
    (tmp_path / "index.json").write_text(json.dumps({"peer": {"1.1.1": summary}}))
    (result,) = load(tmp_path, "peer")
    assert result.seconds == 0
    assert result.complaint == "the opening handshake failed"


def test_load_without_a_report(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path, "peer")
