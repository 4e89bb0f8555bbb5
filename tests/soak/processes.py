"""The processes of a run, as whoever starts them sees them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..benchmarks.process import memory_kib, threads
from .settings import Settings

__all__ = ["Child", "Failure", "Report", "Sample"]

_ROOT = Path(__file__).resolve().parents[2]


class Failure(Exception):
    """The run cannot go on."""


class Report(NamedTuple):
    """What a process has said; `what` is "ended" for its end, then `data` is empty."""

    child: str
    what: str
    data: dict[str, Any]


class Sample(NamedTuple):
    """What a process takes up at a time."""

    at: float
    memory: int  # resident, KiB
    threads: int
    descriptors: int
    heap: int  # KiB, see `heap.Heap`
    blocks: int


class Child:
    """A process of the run; a thread reads what it says."""

    def __init__(self, name: str, settings: Settings, reports: queue.Queue[Report]) -> None:
        self.name = name
        self.samples: list[Sample] = []
        self._reports = reports
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.{name}", settings.dump()],
            cwd=_ROOT,
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for its parent, which ends it in order
        )
        self._reader = threading.Thread(target=self._read, name=f"reader-{name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                data = json.loads(line)
                what = data.pop("what")
            except (ValueError, KeyError, AttributeError):
                what, data = "problem", {"text": f"not a report: {line!r}"}
            self._reports.put(Report(self.name, what, data))
        self._reports.put(Report(self.name, "ended", {"status": self._process.wait()}))

    def tell(self, order: str) -> None:
        """Give it an order."""
        assert self._process.stdin is not None
        try:
            print(order, file=self._process.stdin, flush=True)
        except OSError:
            raise Failure(f"{self.name} has ended") from None

    def look(self, at: float, heap: Sequence[int]) -> Sample | None:
        """See what it takes up, beside what it says itself; None if it has ended."""
        pid = self._process.pid
        try:
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
            sample = Sample(at, memory_kib(pid), threads(pid), descriptors, *heap)
        except (OSError, ProcessLookupError):
            return None
        self.samples.append(sample)
        return sample

    def close(self) -> None:
        """End it, however it is."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
