"""What came of a run: what is wrong, and a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .figures import growth

__all__ = ["Result", "problems_of", "table"]

# Threads that a process has at the most, whatever the connections: 64 workers
# and the I/O thread of an engine, and those of the program.
_THREADS = 96

# By how much the number of objects may differ.
_OBJECTS = 1.15
_MORE_OBJECTS = 20_000

_NAMES = {
    "lost": "messages lost",
    "duplicated": "messages duplicated",
    "reordered": "messages out of order",
    "corrupt": "messages corrupt",
    "untold": "ends that somebody was not told of",
    "ended": "connections that ended in another way than planned",
}


class Result(NamedTuple):
    """What came of a run."""

    figures: dict[str, Any]
    problems: list[str]


class Kind(NamedTuple):
    """One way to look at memory.

    Attributes:
        name: What it is called.
        index: Where a sample has it.
        part: By which part it may grow after the warm-up.
        least: By how much it may in any case.
        unit: What it is shown in, and how many of it that is.
    """

    name: str
    index: int
    part: float
    least: float
    unit: tuple[str, int]


# What the C library keeps of freed memory makes resident memory grow for long;
# what is in use does not.
_MEMORY = (
    Kind("resident memory", 1, 0.5, 48 * 1024, ("MiB", 1024)),
    Kind("memory in use", 4, 0.1, 16 * 1024, ("MiB", 1024)),
    Kind("small objects", 5, 0.1, 50_000, ("thousand", 1000)),
)


def memory_of(figures: Mapping[str, Any], name: str, kind: Kind) -> dict[str, Any]:
    """Return how the memory of a process went."""
    points = [(sample[0], sample[kind.index]) for sample in figures["samples"].get(name, ())]
    return growth(points, figures["warm_up"], part=kind.part, least=kind.least)


def problems_of(figures: Mapping[str, Any]) -> list[str]:
    """Return what is wrong, in words; nothing if all is well."""
    return [
        *_wrong_messages(figures),
        *_wrong_processes(figures),
        *figures["problems"],
    ]


def _wrong_messages(figures: Mapping[str, Any]) -> Iterator[str]:
    for kind, count in figures["counts"].items():
        if count:
            yield f"{count} {_NAMES[kind]}"
    yield from figures["findings"]
    if not figures["pairs"]:
        yield "no connection has come to its end at both ends"
    totals = figures["totals"]
    for side in ("server", "client"):
        if not totals.get(f"{side} received"):
            yield f"the {side} has received nothing"


def _wrong_processes(figures: Mapping[str, Any]) -> Iterator[str]:
    for name, samples in figures["samples"].items():
        for kind in _MEMORY if figures["judges_memory"] else ():
            if memory_of(figures, name, kind)["grown"]:
                yield f"{name}: growth of {kind.name}: {_memory(figures, name, kind)}"
        most = max((sample[2] for sample in samples), default=0)
        if most > _THREADS:
            yield f"{name}: {most} threads"
        looks = figures["looks"].get(name, ())
        if len(looks) > 1 and (
            looks[-1]["objects"] > looks[0]["objects"] * _OBJECTS + _MORE_OBJECTS
        ):
            yield f"{name}: {looks[0]['objects']} objects became {looks[-1]['objects']}"
        done = figures["done"].get(name)
        if done is None:
            yield f"{name}: it has not come to its end"
        else:
            yield from (f"{name}: left behind at the end: {one}" for one in done["left"])


def table(result: Result) -> str:
    """Return the figures for people."""
    figures = result.figures
    totals = figures["totals"]
    latency = figures["latency"]
    rows: list[tuple[str, str]] = [
        ("connections opened", f"{figures['opened']}"),
        ("at once, at the most", f"{figures['peak']}"),
        ("opened at first within", f"{figures['opening']:.1f} s"),
        ("ended at both ends", f"{figures['pairs']}"),
        *((f"  {plan}", f"{count}") for plan, count in sorted(figures["plans"].items())),
        ("messages to the server", _both(totals, "client sent", "server received")),
        ("messages to the clients", _both(totals, "server sent", "client received")),
        (
            "MiB to the server, to the clients",
            f"{totals.get('server bytes received', 0) / 2**20:.0f}, "
            f"{totals.get('client bytes received', 0) / 2**20:.0f}",
        ),
        ("broadcasts, delivered", f"{figures['broadcasts']}, {totals.get('client broadcasts', 0)}"),
        ("members evicted", f"{totals.get('evicted', 0)}"),
        *((_NAMES[kind], f"{count}") for kind, count in figures["counts"].items()),
        ("echo p50, p99", f"{_ms(latency['p50'])}, {_ms(latency['p99'])}"),
    ]
    for name in figures["samples"]:
        rows += _process(figures, name)
    width = max(len(label) for label, _ in rows)
    lines = [f"{label:{width}}  {value}" for label, value in rows]
    if figures["interrupted"]:
        lines.append("The run was interrupted.")
    if result.problems:
        lines += ["", "WRONG:", *(f"  {problem}" for problem in result.problems)]
    else:
        lines += ["", "All is well."]
    return "\n".join(lines)


def _both(totals: Mapping[str, int], sent: str, received: str) -> str:
    return f"{totals.get(sent, 0)} sent, {totals.get(received, 0)} received"


def _ms(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds * 1000:.1f} ms"


def _process(figures: Mapping[str, Any], name: str) -> Iterator[tuple[str, str]]:
    samples = figures["samples"][name]
    for kind in _MEMORY:
        if text := _memory(figures, name, kind):
            yield f"{name}: {kind.name}", text
    if samples:
        yield (
            f"{name}: threads, descriptors at the most",
            f"{max(one[2] for one in samples)}, {max(one[3] for one in samples)}",
        )
    looks = figures["looks"].get(name, ())
    if len(looks) > 1:
        yield f"{name}: objects", f"{looks[0]['objects']}, {looks[-1]['objects']}"
    done = figures["done"].get(name)
    if done is not None:
        yield f"{name}: before it all", _state(done["before"])
        yield f"{name}: after it all", _state(done["after"])


def _memory(figures: Mapping[str, Any], name: str, kind: Kind) -> str:
    memory = memory_of(figures, name, kind)
    if memory["first"] is None:
        return ""
    unit, size = kind.unit
    minutes = figures["warm_up"] / 60
    return (
        f"{memory['first'] / size:.1f} {unit} at minute {minutes:.1f}, "
        f"{memory['last'] / size:.1f} at the end, {memory['slope'] / size:+.2f} a minute"
    )


def _state(state: Mapping[str, int]) -> str:
    return (
        f"{state['threads']} threads, {state['descriptors']} descriptors, "
        f"{state['connections']} connections, {state['objects']} objects"
    )
