"""What the suite recorded, and whether that will do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CaseResult", "Verdict", "judge", "load", "table"]

# Cases about which RFC 6455 says nothing. The suite calls their outcome
# informational whatever happens in them, and no others'.
INFORMATIONAL = frozenset({"7.1.6", "7.13.1", "7.13.2"})

# How the suite says that a connection never came to be a WebSocket; the only
# trace that leaves in an informational case.
_NEVER_OPENED = "The WebSocket opening handshake was never completed!"


@dataclass(frozen=True)
class CaseResult:
    """One case as the suite recorded it.

    Attributes:
        case: Its number, such as "7.13.1".
        behavior: The verdict on what was received.
        behavior_close: The verdict on how the connection ended.
        close_detail: The latter in words.
        seconds: How long it took.
    """

    case: str
    behavior: str
    behavior_close: str
    close_detail: str = ""
    seconds: float = 0.0

    @property
    def complaint(self) -> str | None:
        """What is wrong with it, or None if it is as good as can be."""
        if self.close_detail == _NEVER_OPENED:
            return "the opening handshake failed"
        best = "INFORMATIONAL" if self.case in INFORMATIONAL else "OK"
        if self.behavior != best:
            return self.behavior
        if self.behavior_close != best:
            return f"close {self.behavior_close}"
        return None


@dataclass
class Verdict:
    """The outcome of a run.

    Attributes:
        results: What was recorded.
        announced: How many cases the suite said it would run, or None if it
            did not say.
        complaints: What is wrong, one line each; empty if all is well.
    """

    results: list[CaseResult]
    announced: int | None
    complaints: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        return not self.complaints


def load(directory: Path, agent: str) -> list[CaseResult]:
    """Read the report that the suite wrote to a directory, in the order of its cases.

    Raises:
        FileNotFoundError: There is none.
    """
    index = json.loads((directory / "index.json").read_text(encoding="utf-8"))
    results = []
    for case, summary in index.get(agent, {}).items():
        detail = json.loads((directory / summary["reportfile"]).read_text(encoding="utf-8"))
        results.append(
            CaseResult(
                case=case,
                behavior=summary["behavior"],
                behavior_close=summary["behaviorClose"],
                close_detail=detail["resultClose"],
                # Without an opening handshake the suite counts from 1970.
                seconds=0.0
                if detail["resultClose"] == _NEVER_OPENED
                else summary["duration"] / 1000,
            )
        )
    return sorted(results, key=lambda result: _numbers(result.case))


def judge(
    results: Iterable[CaseResult],
    *,
    announced: int | None,
    expected: int,
    aborted: Iterable[str] = (),
) -> Verdict:
    """Decide whether a run has passed.

    A refused connection only makes the report shorter, so the numbers count
    as much as the results.

    Args:
        results: What was recorded.
        announced: How many cases the suite said it would run.
        expected: How many it should have said.
        aborted: The cases that did not end by themselves.
    """
    verdict = Verdict(list(results), announced)
    if announced != expected:
        verdict.complaints.append(f"the suite announced {announced} cases instead of {expected}")
    if len(verdict.results) != announced:
        verdict.complaints.append(
            f"{len(verdict.results)} cases were recorded, {announced} were announced"
        )
    verdict.complaints += [f"{case}: did not end" for case in aborted]
    verdict.complaints += [
        f"{result.case}: {result.complaint}" for result in verdict.results if result.complaint
    ]
    return verdict


def table(verdicts: Mapping[str, Verdict]) -> str:
    """Draw the outcome of the runs, one row per group of cases and role."""
    lines = [f"{'role':<8} {'group':>5} {'cases':>5} {'seconds':>8}  results"]
    for role, verdict in verdicts.items():
        groups: dict[int, list[CaseResult]] = {}
        for result in verdict.results:
            groups.setdefault(_numbers(result.case)[0], []).append(result)
        for group, results in groups.items():
            lines.append(_row(role, str(group), results))
        lines.append(_row(role, "all", verdict.results))
        lines += [f"{role:<8} {complaint}" for complaint in verdict.complaints]
        lines.append(f"{role:<8} {'PASSED' if verdict.passed else 'FAILED'}")
    return "\n".join(lines)


def _row(role: str, group: str, results: list[CaseResult]) -> str:
    counts = Counter(result.complaint or result.behavior for result in results)
    outcome = ", ".join(f"{number} {name}" for name, number in counts.most_common())
    seconds = sum(result.seconds for result in results)
    return f"{role:<8} {group:>5} {len(results):>5} {seconds:>8.1f}  {outcome or 'none'}"


def _numbers(case: str) -> tuple[int, ...]:
    return tuple(int(part) for part in case.split("."))
