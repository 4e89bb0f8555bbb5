"""A soak in small: what the long one checks holds, and what is wrong is caught."""

from __future__ import annotations

import pytest

from .report import Result
from .run import soak
from .settings import Settings


def run(seconds: float, sabotage: str = "") -> Result:
    """Do a run with a few connections, and answers that have to come soon if some do not."""
    patience = 2.0 if sabotage else 60.0
    settings = Settings.of(20, seconds, churn=10.0, sabotage=sabotage, patience=patience)
    return soak(settings, print)


def test_nothing_is_lost() -> None:
    result = run(2.0)
    assert result.problems == []
    assert result.figures["pairs"] >= 25
    assert result.figures["totals"]["client broadcasts"]


@pytest.mark.parametrize(
    ("sabotage", "text"), [("drop", "messages lost"), ("leak", "left behind at the end: thread")]
)
def test_a_server_that_does_wrong_is_caught(sabotage: str, text: str) -> None:
    result = run(1.0, sabotage)
    assert any(text in problem for problem in result.problems), result.problems
