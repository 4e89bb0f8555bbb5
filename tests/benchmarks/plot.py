"""Bars of the main workloads, drawn with matplotlib if there is one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .report import Figures, Results, medians
from .workloads import METRICS, WORKLOADS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bars", "panels", "plot"]

_MAIN = (
    "echo-32-c1",
    "echo-32-c64",
    "echo-32-c1000",
    "echo-64k-c8",
    "echo-1m-c2",
    "echo-1k-deflate-c64",
    "broadcast-1000",
    "handshakes",
    "idle-10000",
    "client-roundtrip-32",
    "client-roundtrip-64k",
    "firehose-receive",
    "firehose-send",
    "slow-callbacks",
)
_COLUMNS = 3
_COLORS = {"syncws": "#1f5fa8", "syncws-pure": "#7fa9d6"}
_OTHERS = "#b4b8bd"

# Not libraries: drawn as outlines, and left out where they dwarf the others.
_RULERS = {"floor", "raw-socket"}
_DWARFS = 3.0


def panels(results: Results) -> list[str]:
    """Return the workloads to draw: the main ones, or all if none of those was measured."""
    measured = [name for name in WORKLOADS if any(map(medians, results.get(name, {}).values()))]
    return [name for name in _MAIN if name in measured] or measured


def bars(figures: dict[str, Figures], metric: str) -> list[tuple[str, float]]:
    """Return peers and figures, the best last, which is where the top is."""
    found = {peer: values[metric] for peer, values in figures.items() if metric in values}
    longest = max((value for peer, value in found.items() if peer not in _RULERS), default=math.inf)
    kept = [
        (peer, value)
        for peer, value in found.items()
        if peer not in _RULERS or value <= _DWARFS * longest
    ]
    return sorted(kept, key=lambda bar: bar[1], reverse=not METRICS[metric].more_is_better)


def _number(value: float) -> str:
    """Return a figure in few characters."""
    if value >= 1e6:
        return f"{value / 1e6:.2f}M"
    if value >= 1e4:
        return f"{value / 1e3:.1f}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _draw(axes: Axes, name: str, drawn: list[tuple[str, float]], metric: str) -> None:
    peers = [peer for peer, _ in drawn]
    values = [value for _, value in drawn]
    colors = ["white" if peer in _RULERS else _COLORS.get(peer, _OTHERS) for peer in peers]
    edges = [
        _OTHERS if peer in _RULERS else color for peer, color in zip(peers, colors, strict=True)
    ]
    drawing = axes.barh(peers, values, color=colors, edgecolor=edges, height=0.72)
    axes.bar_label(drawing, labels=[_number(value) for value in values], padding=3, fontsize=8)
    better = "more is better" if METRICS[metric].more_is_better else "less is better"
    axes.set_title(name, loc="left", fontsize=10, fontweight="bold")
    axes.set_title(f"{METRICS[metric].title}, {better}", loc="right", fontsize=7, color="#666666")
    axes.set_xlim(0, max(values) * 1.18)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    for label in axes.get_yticklabels():
        if label.get_text() == "syncws":
            label.set_fontweight("bold")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def _caption(about: dict[str, Any]) -> str:
    versions = [f"{name} {version}" for name, version in about["versions"].items()]
    speedups = f"syncws {'with' if about['speedups'] else 'without'} its C speedups"
    lines = [f"{about['python']}, {about['cpu']}, {about['cpus']} CPUs; {speedups}"]
    for start in range(0, len(versions), 8):
        lines.append(", ".join(versions[start : start + 8]))
    return "\n".join(lines)


def plot(path: Path, results: Results, about: dict[str, Any]) -> str:
    """Draw to an SVG or, after its name, a PNG file; return what was done, or why not."""
    names = panels(results)
    if not names:
        return "no plot: nothing was measured"
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as exc:
        return f"no plot: {exc}"
    mpl.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif"})
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.6 * columns, 2.5 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, name in zip(grid, _padded(names, rows * columns), strict=True):
        if name is None:
            axes.set_axis_off()
            continue
        metric = WORKLOADS[name].ratios[0]
        figures = {peer: medians(outcomes) for peer, outcomes in results[name].items()}
        _draw(axes, name, bars(figures, metric), metric)
    figure.supxlabel(_caption(about), fontsize=7, color="#666666", x=0.01, ha="left")
    figure.savefig(path, dpi=150, format="png" if path.suffix.lower() == ".png" else "svg")
    return f"plot: {path}"


def _padded(names: Iterable[str], size: int) -> list[str | None]:
    padded: list[str | None] = [*names]
    return padded + [None] * (size - len(padded))
