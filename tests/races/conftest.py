"""Every race twice: as threads usually take turns, and with as many turns as the system makes.

A module whose tests decide themselves who goes on says so with `STEPPED`: its
orders are the same whatever the interval is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from tests.races.stepping import explore

# Seconds after which a thread that runs has to let another run.
_TINY = 1e-6


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "switch_interval" in metafunc.fixturenames and not hasattr(metafunc.module, "STEPPED"):
        metafunc.parametrize("switch_interval", ["default", "tiny"], indirect=True)


@pytest.fixture(autouse=True)
def switch_interval(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let threads take turns as often as can be, if that is asked for."""
    before = sys.getswitchinterval()
    if getattr(request, "param", "default") == "tiny":
        sys.setswitchinterval(_TINY)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def exploring(record_property: Callable[[str, object], None]) -> Callable[..., int]:
    """`explore`, which notes in the report how many orders it has tried."""

    def noting(*args: object, **options: object) -> int:
        tried = explore(*args, **options)  # type: ignore[arg-type]
        record_property("orders", tried)
        return tried

    return noting
