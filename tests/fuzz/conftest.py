"""Says what the state machines have done, where one process has run them."""

from __future__ import annotations

import pytest

from .profiles import COUNTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for what, count in sorted(COUNTS.items()):
        terminalreporter.write_line(f"{what}: {count}")
