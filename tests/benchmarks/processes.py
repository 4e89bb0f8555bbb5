"""The command `python -m tests.benchmarks.processes`: one process of `syncws serve` and several.

The load needs a core of its own: on a machine of two cores, two processes that
do little but echo share them with the load, and cannot be twice as fast.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .process import cpu

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[2]

_PATIENCE = 60.0


class Case(NamedTuple):
    """What is measured.

    Attributes:
        title: Its name in the table.
        listener: Which of `processes_app`.
        workload: Whose load.
    """

    title: str
    listener: str
    workload: str


CASES = (
    Case("echo, 32 bytes, 64 connections", "echo", "echo-32-c64"),
    Case("0.2 ms of computing for each message", "work", "echo-32-c64"),
    Case("handshakes", "echo", "handshakes"),
)


class Figure(NamedTuple):
    """What a round has shown: messages per second, and the cores that were busy."""

    rate: float
    servers: float
    load: float


class Fleet:
    """A command that serves.

    Attributes:
        port: Where.
        pids: Its processes, without the supervisor.
    """

    def __init__(self, port: int, supervisor: int) -> None:
        self.port = port
        text = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii")
        self.pids = [int(word) for word in text.split()]

    def cpu(self) -> float:
        """Return the seconds of CPU time that all of them have used."""
        return sum(sum(cpu(pid)) for pid in self.pids)


@contextlib.contextmanager
def serving(listener: str, processes: int) -> Iterator[Fleet]:
    """The command with so many processes, until the block ends."""
    argv = ["-m", "syncws", "serve", f"tests.benchmarks.processes_app:{listener}"]
    argv += ["--processes", str(processes), "--log-level", "error"]
    with subprocess.Popen(
        [sys.executable, *argv], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r":(\d+) with", line)
            if found is None:
                raise RuntimeError(f"the command does not serve: {line!r}")
            yield Fleet(int(found[1]), process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_PATIENCE)


def measure(case: Case, processes: int, seconds: float) -> Figure:
    """Measure once.

    Raises:
        RuntimeError: The load has failed.
    """
    with serving(case.listener, processes) as fleet:
        before = fleet.cpu()
        argv = ["-m", "tests.benchmarks.load", case.workload, fleet.port, fleet.pids[0], seconds]
        done = subprocess.run(
            [sys.executable, *map(str, argv)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_PATIENCE + seconds,
            check=False,
        )
        if not done.stdout:
            raise RuntimeError(f"the load has ended with {done.returncode}")
        figures = json.loads(done.stdout.splitlines()[-1])
        if "failed" in figures:
            raise RuntimeError(figures["failed"])
        # What came before and after the measurement belongs to it as well: an estimate.
        return Figure(figures["rate"], (fleet.cpu() - before) / seconds, figures["load"])


def table(results: dict[tuple[Case, int], list[Figure]], counts: list[int]) -> str:
    """Return the medians as a table, with ratios to the first count."""
    lines = ["| | processes | per s | ratio | CPUs of the load |", "|---|---|---|---|---|"]
    for case in dict.fromkeys(case for case, _ in results):
        first = statistics.median(each.rate for each in results[case, counts[0]])
        for count in counts:
            rates = [each.rate for each in results[case, count]]
            load = statistics.median(each.load for each in results[case, count])
            rate = statistics.median(rates)
            lines.append(
                f"| {case.title} | {count} | {rate:,.0f} | {rate / first:.2f} | {load:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure in turns, so that all see the same moods of the machine, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.processes")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    results: dict[tuple[Case, int], list[Figure]] = {}
    for _ in range(options.rounds):
        for case in CASES:
            for count in options.processes:
                figure = measure(case, count, options.seconds)
                results.setdefault((case, count), []).append(figure)
    version = sys.version.split()[0]
    print(f"{len(os.sched_getaffinity(0))} cores, CPython {version}, {options.rounds} rounds\n")
    print(table(results, options.processes))


if __name__ == "__main__":
    main()
