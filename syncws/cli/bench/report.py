"""What `syncws bench` prints: for people, and as JSON."""

from __future__ import annotations

from typing import Any

from .histogram import PERCENTILES, Histogram, bars
from .load import Plan, Result

__all__ = ["as_json", "as_text"]

# Cores that the generator uses, from which on it may be what limits the rate.
_BUSY = 0.9

_BAR = 40


def as_json(plan: Plan, result: Result) -> dict[str, Any]:
    """Return all of it as what JSON can express; times in milliseconds."""
    return {
        "url": plan.url,
        "connections": {
            "asked": plan.connections,
            "made": result.made,
            "refused": result.refused,
            "connect_ms": _percentiles(result.connecting),
        },
        "message_bytes": _size(plan),
        "seconds": round(result.seconds, 3),
        "answers": result.latency.count,
        "answers_per_second": round(result.rate, 1),
        "megabytes_per_second": round(result.rate * _size(plan) / 1e6, 3),
        "latency_ms": _percentiles(result.latency),
        "histogram": [
            {"up_to_ms": _ms(edge), "count": count} for edge, count in result.latency.rows()
        ],
        "unanswered": result.unanswered,
        "errors": dict(result.errors),
        "generator_cores": round(result.cpu, 2),
        "stopped_early": result.stopped,
    }


def _size(plan: Plan) -> int:
    payload = plan.payload
    return len(payload.encode() if isinstance(payload, str) else payload)


def _ms(seconds: float) -> float:
    return float(f"{seconds * 1000:.4g}")


def _percentiles(histogram: Histogram) -> dict[str, float]:
    if not histogram.count:
        return {}
    found = {f"p{percent:g}": _ms(histogram.percentile(percent)) for percent in PERCENTILES}
    least, most = _ms(histogram.least), _ms(histogram.most)
    return {"min": least, "mean": _ms(histogram.mean), **found, "max": most}


def as_text(plan: Plan, result: Result) -> str:
    """Return it in lines of at most 80 characters, but for what servers say."""
    how = f"{plan.rate:g} a second" if plan.rate is not None else f"{plan.depth} under way on each"
    volume = f"{result.rate * _size(plan) / 1e6:,.1f} MB/s each way"
    lines = [
        f"{plan.url}, {_size(plan)} bytes, {how}",
        f"connections  {result.made:,} of {plan.connections:,}",
        *_times("  made in", result.connecting),
    ]
    if result.made:
        lines += [
            f"answers      {result.latency.count:,} in {result.seconds:.1f} s",
            f"rate         {result.rate:,.0f}/s, {volume}",
            *_times("latency", result.latency),
        ]
    rows = result.latency.rows()
    if rows:
        lines.append("")
        drawn = bars([count for _, count in rows], _BAR)
        for (edge, count), bar in zip(rows, drawn, strict=True):
            lines.append(f"  <= {_shown(edge):>8}  {count:>11,}  {bar}".rstrip())
    if result.unanswered:
        lines.append(f"unanswered   {result.unanswered:,} messages at the end")
    for what, count in result.errors.most_common(10):
        lines.append(f"{count:,} x {what}")
    if result.stopped:
        lines.append("It was stopped early.")
    if result.made and not result.latency.count:
        lines.append("No answer came: this measures servers that answer each message with one.")
    if result.cpu >= _BUSY:
        lines.append(
            f"The generator itself used {result.cpu:.1f} cores: the server may be able to do more."
        )
    return "\n".join(lines)


def _times(label: str, histogram: Histogram) -> list[str]:
    if not histogram.count:
        return []
    found = [f"p{percent:g} {_shown(histogram.percentile(percent))}" for percent in PERCENTILES]
    ends = {"min": histogram.least, "mean": histogram.mean, "max": histogram.most}
    rest = [f"{name} {_shown(seconds)}" for name, seconds in ends.items()]
    return [f"{label:<12} " + "  ".join(found), " " * 13 + "  ".join(rest)]


def _shown(seconds: float) -> str:
    """Three digits, in the unit that suits."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"
