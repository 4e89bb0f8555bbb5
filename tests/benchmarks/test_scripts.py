"""The scripts run, and print figures; how large those are is nobody's business here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import HANG

pytestmark = pytest.mark.timeout(10 * HANG)  # a dozen processes, one after another

_ROOT = Path(__file__).resolve().parents[2]


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
        *("tests.benchmarks.groups", "--seconds", "1", "--rounds", "1"),
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
