"""What the operating system says of a process, and what is asked of it. Linux."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
from pathlib import Path
from typing import NamedTuple

__all__ = ["Cpu", "cpu", "die_with_parent", "memory_kib", "raise_file_limit", "threads"]

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1


class Cpu(NamedTuple):
    """Seconds of CPU time."""

    user: float
    system: float


def cpu(pid: int) -> Cpu:
    """Return the CPU time that a process has used."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    fields = stat.rpartition(")")[2].split()
    return Cpu(int(fields[11]) * _TICK, int(fields[12]) * _TICK)


def memory_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    return _status(pid, "VmRSS")


def threads(pid: int) -> int:
    """Return the number of threads of a process."""
    return _status(pid, "Threads")


def _status(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(rf"^{field}:\s*(\d+)", status, re.MULTILINE)
    if found is None:
        raise ProcessLookupError(f"process {pid} has ended")
    return int(found[1])


def die_with_parent() -> None:
    """Have this process killed when its parent ends, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def raise_file_limit() -> None:
    """Allow this process as many open files as it may allow itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
