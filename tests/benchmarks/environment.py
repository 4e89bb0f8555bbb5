"""Where the figures come from: the machine, Python, and the versions of all peers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .workloads import Peer

__all__ = ["describe", "environment"]

_SPEEDUPS = "import syncws; print(bool(getattr(syncws, 'speedups', None)))"


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown"
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _speedups() -> bool:
    done = subprocess.run(
        [sys.executable, "-c", _SPEEDUPS],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip() == "True"


def environment(peers: Iterable[Peer]) -> dict[str, Any]:
    """Return what there is to know, ready for JSON."""
    names = dict.fromkeys(name for peer in peers for name in peer.distributions)
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "versions": {name: _version(name) for name in names},
        "speedups": _speedups(),
    }


def describe(about: dict[str, Any]) -> str:
    """Return it as lines."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['python']}, {about['system']}, {about['cpu']}, {about['cpus']} CPUs\n"
        f"{versions}\n"
        f"C speedups of syncws: {'in use' if about['speedups'] else 'not in use'}"
    )
