"""The command `python -m tests.benchmarks.load WORKLOAD PORT PID SECONDS`; prints figures."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable

from ..process import die_with_parent, raise_file_limit
from ..workloads import WORKLOADS, Workload
from . import Figures, Server


def main() -> None:
    """Measure once; what goes wrong is printed as a figure, too."""
    name, port, pid, seconds = sys.argv[1:]
    die_with_parent()
    raise_file_limit()
    workload = WORKLOADS[name]
    module = importlib.import_module(f"{__package__}.{workload.kind}")
    measure: Callable[[Workload, Server, float], Figures] = module.measure
    try:
        figures = measure(workload, Server(int(port), int(pid)), float(seconds))
    except Exception as exc:
        print(json.dumps({"failed": f"{type(exc).__name__}: {exc}"}), flush=True)
        raise
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
