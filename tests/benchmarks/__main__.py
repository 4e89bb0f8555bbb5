"""The command `python -m tests.benchmarks`.

Exit status: 0, whatever the figures; 1 if nothing could be measured; 130 if it
was interrupted, behind a report of what there is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .environment import describe, environment
from .plot import plot
from .report import Outcome, Verdict, judge, targets_table, workload_table
from .run import importable, measure
from .workloads import CLIENTS, SERVERS, TARGETS, WORKLOADS, Peer, Workload, by_name, select

_LOAD = Peer("the load generator", ("picows", "uvloop"))

_LEGEND = (
    "user, sys: the server's CPU time for a message\n"
    "load: the share of a CPU that the load generator uses; near 1 it limits the rate"
)

#: By workload, peer and round.
Measured = dict[str, dict[str, list[Outcome]]]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure syncws beside other WebSocket libraries. All of it takes about half "
        "an hour, and wants a machine that does nothing else.",
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="workload", help="a name or a pattern such as 'echo-*'"
    )
    parser.add_argument(
        "--peers", nargs="+", default=[], metavar="PEER", help="names or patterns (default: all)"
    )
    parser.add_argument("--rounds", type=int, help="how often (default: 3)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (default: 2)")
    parser.add_argument("--quick", action="store_true", help="1 round, 0.5 seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the main workloads")
    parser.add_argument(
        "--any-cpu",
        action="store_true",
        help="let the system place the two ends also where they would share a CPU",
    )
    parser.add_argument("--list", action="store_true", help="list workloads and peers")
    parser.add_argument(
        "--verbose", action="store_true", help="show what the processes complain of"
    )
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = 1 if options.quick else 3
    if options.seconds is None:
        options.seconds = 0.5 if options.quick else 2.0
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds have to be more than 0")
    try:
        options.workloads = by_name(options.workloads)
        options.peers = select(options.peers, dict.fromkeys([*SERVERS, *CLIENTS]))
    except ValueError as exc:
        parser.error(str(exc))
    return options


class Status:
    """What goes on, on stderr: one line on a terminal, else a line per measurement."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._tty = sys.stderr.isatty()

    def begin(self, text: str) -> None:
        """Say what is being measured."""
        if self._tty:
            print(f"\r\033[K[{self._done + 1}/{self._total}] {text}", end="", file=sys.stderr)
            sys.stderr.flush()

    def end(self, text: str) -> None:
        """Say what came out."""
        self._done += 1
        if not self._tty:
            print(f"[{self._done}/{self._total}] {text}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the terminal as it was."""
        if self._tty:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def available(peers: Sequence[Peer]) -> dict[Peer, str | None]:
    """Return why peers cannot be measured; None for those that can."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(peers, pool.map(importable, peers), strict=True))


def rotated(names: list[str], by: int) -> list[str]:
    """Return the names, beginning with another one each round."""
    by %= len(names)
    return names[by:] + names[:by]


def run(options: argparse.Namespace, chosen: dict[str, list[str]], results: Measured) -> None:
    """Measure all, round after round, and add the outcomes to `results`."""
    for name, peers in chosen.items():
        results[name] = {peer: [] for peer in peers}
    status = Status(options.rounds * sum(map(len, chosen.values())))
    try:
        for number in range(options.rounds):
            for workload in options.workloads:
                peers = chosen[workload.name]
                if not peers:
                    continue
                order = rotated(peers, number)
                where = f"round {number + 1} of {options.rounds}: {workload.name}"
                measured = measure(
                    workload,
                    order,
                    options.seconds,
                    verbose=options.verbose,
                    any_cpu=options.any_cpu,
                )
                for peer, outcome in measured:
                    if outcome is None:
                        status.begin(f"{where}, {peer}")
                    else:
                        results[workload.name][peer].append(outcome)
                        status.end(f"{where}, {peer}: {_brief(workload, outcome)}")
    finally:
        status.clear()


def _brief(workload: Workload, outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return f"failed: {outcome}"
    metric = workload.ratios[0]
    return f"{metric} {outcome.get(metric, 0):,.1f}"


def report(options: argparse.Namespace, results: Measured) -> list[Verdict]:
    """Print the tables."""
    for workload in options.workloads:
        if any(results.get(workload.name, {}).values()):
            print(workload_table(workload, results), end="\n\n")
    verdicts = judge(results, TARGETS)
    print(targets_table(verdicts))
    return verdicts


def dump(path: Path, about: dict[str, Any], results: Measured, verdicts: Sequence[Verdict]) -> None:
    """Write everything as JSON."""
    targets = [
        vars(verdict.target) | {"value": verdict.value, "verdict": verdict.word}
        for verdict in verdicts
    ]
    document = {"environment": about, "results": results, "targets": targets}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def listing() -> str:
    """Return the workloads and peers in words."""
    lines = [f"{workload.name:<22} {workload.about}" for workload in WORKLOADS.values()]
    lines += ["", "servers: " + ", ".join(SERVERS), "clients: " + ", ".join(CLIENTS)]
    return "\n".join(lines)


def main() -> int:
    """Run the command and return its exit status."""
    options = parse()
    if options.list:
        print(listing())
        return 0
    if (why := importable(_LOAD)) is not None:
        print(f"the load generator cannot be imported: {why}", file=sys.stderr)
        return 1
    candidates = dict.fromkeys(
        peer
        for workload in options.workloads
        for peer in workload.candidates.values()
        if peer.name in options.peers
    )
    missing = {peer: why for peer, why in available(list(candidates)).items() if why is not None}
    about = environment([peer for peer in candidates if peer not in missing])
    print(describe(about))
    for peer, why in missing.items():
        print(f"left out: {peer.name}: {why}")
    print(f"medians of {options.rounds} rounds of {options.seconds:g} s")
    print(_LEGEND, end="\n\n", flush=True)
    chosen = {
        workload.name: [
            name
            for name, peer in workload.candidates.items()
            if peer in candidates and peer not in missing
        ]
        for workload in options.workloads
    }
    results: Measured = {}
    status = 0
    try:
        run(options, chosen, results)
    except KeyboardInterrupt:
        status = 130
    verdicts = report(options, results)
    if options.json:
        dump(options.json, about | {"seconds": options.seconds}, results, verdicts)
    if options.plot:
        print(plot(options.plot, results, about))
    measured = any(rounds for peers in results.values() for rounds in peers.values())
    return status or (0 if measured else 1)


if __name__ == "__main__":
    sys.exit(main())
