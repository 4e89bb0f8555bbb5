"""Both ends pass Autobahn's suite, all of it but compression.

Compression takes minutes: ``python -m tests.conformance`` runs it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .environment import has_suite
from .presets import PRESETS
from .report import table
from .runner import run_client, run_server

VENV = os.environ.get("SYNCWS_WSTEST_VENV")

pytestmark = [
    pytest.mark.skipif(
        not VENV or not has_suite(Path(VENV)),
        reason="SYNCWS_WSTEST_VENV names no environment with Autobahn's testsuite; "
        "python -m tests.conformance --setup --venv DIR makes one",
    ),
    pytest.mark.timeout(600),
]


@pytest.mark.parametrize("role", ["server", "client"])
def test_every_case_passes(role: str, tmp_path: Path) -> None:
    run = {"server": run_server, "client": run_client}[role]
    verdict = run(PRESETS["light"], Path(VENV or "").absolute(), tmp_path / "report")
    assert verdict.passed, table({role: verdict})
