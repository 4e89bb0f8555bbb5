"""The command `python -m tests.benchmarks.clients PEER WORKLOAD PORT`.

Prints "{}" when it is connected. Each line that it reads is a number of
seconds to be busy for, and is answered with "{}" behind that; or it is
"figures", and is answered with those.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections.abc import Callable

from ..load import Figures, latencies_in_us
from ..process import die_with_parent
from ..workloads import WORKLOADS, Workload
from .peers import CONNECT, Connection

# Seconds of rehearsal, not counted.
_WARM_UP = 0.1

# Seconds that the messages of one burst take, about, and how many come first.
_BURST = 0.05
_FIRST_BURST = 2000


class RoundTrips:
    """Sends a message and waits for it to come back, again and again."""

    def __init__(self, connection: Connection, size: int) -> None:
        self._roundtrip = connection.roundtrip
        self._payload = b"x" * size
        self._latencies = array("d")
        self._elapsed = 0.0
        if connection.exchange(self._payload) != self._payload:
            raise ValueError("what came back is not what was sent")
        self.run(_WARM_UP)
        self._latencies = array("d")
        self._elapsed = 0.0

    def run(self, seconds: float) -> None:
        """Be busy for so long."""
        roundtrip, payload = self._roundtrip, self._payload
        now, add = time.perf_counter, self._latencies.append
        began = time_sent = now()
        end = began + seconds
        while time_sent < end:
            roundtrip(payload)
            time_back = now()
            add(time_back - time_sent)
            time_sent = time_back
        self._elapsed += time_sent - began

    def figures(self) -> Figures:
        """Return the figures so far."""
        rate = len(self._latencies) / self._elapsed
        return {"rate": rate} | latencies_in_us(self._latencies)


class Firehose:
    """Receives or sends bursts of messages."""

    def __init__(self, burst: Callable[[int], None]) -> None:
        self._burst = burst
        self._size = _FIRST_BURST
        self._count = 0
        self._elapsed = 0.0
        self.run(_WARM_UP)
        self._size = max(1, int(self._count / self._elapsed * _BURST))
        self._count = 0
        self._elapsed = 0.0

    def run(self, seconds: float) -> None:
        """Be busy for so long."""
        now = time.perf_counter
        began = now()
        while now() - began < seconds:
            self._burst(self._size)
            self._count += self._size
        self._elapsed += now() - began

    def figures(self) -> Figures:
        """Return the figures so far."""
        return {"rate": self._count / self._elapsed}


def _prepare(workload: Workload, connection: Connection) -> RoundTrips | Firehose:
    if workload.mode == "echo":
        return RoundTrips(connection, workload.size)
    bursts = {"push": connection.receive_burst, "sink": connection.send_burst}
    return Firehose(bursts[workload.mode])


def _serve_orders(peer: str, workload: Workload, port: int) -> None:
    work = _prepare(workload, CONNECT[peer](port))
    print("{}", flush=True)
    for line in sys.stdin:
        if line.strip() == "figures":
            print(json.dumps(work.figures()), flush=True)
        else:
            work.run(float(line))
            print("{}", flush=True)


def main() -> None:
    """Measure as told, until the input ends; what goes wrong is printed as a figure, too."""
    peer, name, port = sys.argv[1:]
    die_with_parent()
    try:
        _serve_orders(peer, WORKLOADS[name], int(port))
    except Exception as exc:
        print(json.dumps({"failed": f"{type(exc).__name__}: {exc}"}), flush=True)
        raise


if __name__ == "__main__":
    main()
