"""The scripts run, and print figures; how large those are is nobody's business here."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import HANG

pytestmark = pytest.mark.timeout(10 * HANG)  # a dozen processes, one after another

_ROOT = Path(__file__).resolve().parents[2]
_FIGURE = re.compile(r"\d[\d,.]*")


def rows_of(*argv: str) -> dict[str, list[str]]:
    """Run a script for a moment, print its table, and return the cells of each row."""
    done = subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=9 * HANG,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    print(done.stdout)
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if "|" in line]
    return {name: cells for name, *cells in lines[2:]}


def test_the_deliveries_of_groups(record_property: Callable[[str, object], None]) -> None:
    rows = rows_of(
        *("tests.benchmarks.groups", "--seconds", "0.3", "--rounds", "1"),
        *("--members", "50", "--sizes", "32"),
    )
    assert [name.split(",")[0] for name in rows] == [
        "one process",
        "two processes",
        "one publishes",
        "the same",
    ]
    if any("not installed" in cell for cells in rows.values() for cell in cells):
        pytest.skip("redis-server is not installed")
    for name, (figure,) in rows.items():
        assert float(figure.replace(",", "")) > 0
        record_property(f"deliveries per second, {name}", figure)


def test_one_and_two_processes(record_property: Callable[[str, object], None]) -> None:
    rows = rows_of("tests.benchmarks.processes", "--seconds", "0.3", "--rounds", "1")
    assert len(rows) == 3
    for name, cells in rows.items():
        assert len(cells) >= 2
        assert all(_FIGURE.match(cell) for cell in cells)
        record_property(name, ", ".join(cells))
