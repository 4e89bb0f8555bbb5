"""From figures to tables: medians, ratios, targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from .workloads import METRICS, Target, Workload

__all__ = [
    "Figures",
    "Outcome",
    "Results",
    "Verdict",
    "format_table",
    "judge",
    "medians",
    "ratio",
    "targets_table",
    "workload_table",
]

#: Figures by metric.
Figures = dict[str, float]
#: Figures, or why there are none.
Outcome = Figures | str
#: Outcomes by workload, peer and round.
Results = Mapping[str, Mapping[str, Sequence[Outcome]]]

#: Workload, peer, metric.
Place = tuple[str, str, str]

_SUBJECT = "syncws"


def medians(outcomes: Iterable[Outcome]) -> Figures:
    """Return the median of each metric over the rounds that have it."""
    columns: dict[str, list[float]] = {}
    for outcome in outcomes:
        if not isinstance(outcome, str):
            for metric, value in outcome.items():
                columns.setdefault(metric, []).append(value)
    return {metric: median(values) for metric, values in columns.items()}


def _rounds(results: Results, place: Place) -> list[float | None]:
    workload, peer, metric = place
    outcomes = results.get(workload, {}).get(peer, ())
    return [None if isinstance(outcome, str) else outcome.get(metric) for outcome in outcomes]


def ratio(results: Results, dividend: Place, divisor: Place) -> float | None:
    """Return the median over the rounds of the ratio of two figures, None without any."""
    pairs = zip(_rounds(results, dividend), _rounds(results, divisor), strict=False)
    ratios = [above / below for above, below in pairs if above is not None and below]
    return median(ratios) if ratios else None


# -- Tables ----------------------------------------------------------


def format_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align columns: the first `left` ones to the left, the others to the right.

    The first row is the head. A row that is shorter ends with text that is
    not aligned.
    """
    columns = len(rows[0])
    aligned = [row if len(row) == columns else row[:-1] for row in rows]
    widths = [
        max(len(row[column]) for row in aligned if column < len(row)) for column in range(columns)
    ]
    lines = []
    for row, cells in zip(rows, aligned, strict=True):
        line = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=False))
        ]
        lines.append("  ".join([*line, *row[len(cells) :]]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def format_figure(metric: str, value: float) -> str:
    """Return a figure as its column has it."""
    return f"{value:,.{METRICS[metric].decimals}f}"


def _first_failure(outcomes: Sequence[Outcome]) -> str | None:
    return next((outcome for outcome in outcomes if isinstance(outcome, str)), None)


def workload_table(workload: Workload, results: Results) -> str:
    """Draw the figures of a workload: medians over the rounds, a row per peer."""
    outcomes = results.get(workload.name, {})
    head = ["peer", *(METRICS[metric].title for metric in workload.metrics)]
    head += [f"{_SUBJECT}/peer, {METRICS[metric].title}" for metric in workload.ratios]
    rows = [head]
    notes = [f"note: {workload.note}"] if workload.note else []
    for peer, rounds in outcomes.items():
        figures = medians(rounds)
        failure = _first_failure(rounds)
        if not figures:
            rows.append([peer, f"failed: {failure}"])
            continue
        if failure is not None:
            count = sum(isinstance(outcome, str) for outcome in rounds)
            notes.append(f"{peer} failed in {count} of {len(rounds)} rounds: {failure}")
        rows.append([peer, *_cells(workload, peer, figures, results)])
    title = f"{workload.name}: {workload.about}"
    return "\n".join([title, format_table(rows), *notes])


def _cells(workload: Workload, peer: str, figures: Figures, results: Results) -> list[str]:
    cells = [
        format_figure(metric, figures[metric]) if metric in figures else "-"
        for metric in workload.metrics
    ]
    for metric in workload.ratios:
        dividend = (workload.name, _SUBJECT, metric)
        found = ratio(results, dividend, (workload.name, peer, metric))
        cells.append("-" if found is None or peer == _SUBJECT else f"{found:.2f}")
    return cells


# -- Targets ---------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """A target and what came out.

    Attributes:
        target: The target.
        value: The figure or ratio; None if it was not measured.
    """

    target: Target
    value: float | None

    @property
    def word(self) -> str:
        """What to call it."""
        if self.value is None:
            return "not measured"
        return "reached" if self.target.reached(self.value) else "MISSED"


def judge(results: Results, targets: Iterable[Target]) -> list[Verdict]:
    """Compare results with targets."""
    verdicts = []
    for target in targets:
        place = (target.workload, target.peer, target.metric)
        if target.is_ratio:
            value = ratio(results, place, target.divisor())
        else:
            found = [figure for figure in _rounds(results, place) if figure is not None]
            value = median(found) if found else None
        verdicts.append(Verdict(target, value))
    return verdicts


def _describe(target: Target) -> str:
    """Return what is compared."""
    title = METRICS[target.metric].title
    if not target.is_ratio:
        return f"{target.peer}, {title}"
    if target.against is not None:
        return f"{target.peer} / {target.against}, {title}"
    if target.against_workload is not None:
        return f"{target.peer}, {title}, / that of {target.against_workload}"
    assert target.against_metric is not None
    return f"{target.peer}, {title} / {METRICS[target.against_metric].title}"


def targets_table(verdicts: Iterable[Verdict]) -> str:
    """Draw the targets that were measured."""
    rows = [["target", "figure", "wanted", "is", ""]]
    for verdict in verdicts:
        target = verdict.target
        if verdict.value is not None:
            wanted = f"{target.sign} {target.limit:g}"
            value = f"{verdict.value:.2f}"
            rows.append([target.workload, _describe(target), wanted, value, verdict.word])
    if len(rows) == 1:
        return "targets: none was measured"
    return "targets\n" + format_table(rows, left=2)
