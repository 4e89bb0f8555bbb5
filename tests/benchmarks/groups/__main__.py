"""The command `python -m tests.benchmarks.groups`: a table, and no judgement.

Members are sockets that are only read and counted, all in this process, which
takes part of a CPU itself. A publisher has a few messages under way and sends
the next one when all members have got one.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..environment import describe, environment
from ..process import raise_file_limit
from ..wire import BINARY, TEXT, client_frame, header, open_websocket, receive_frame

_ROOT = Path(__file__).resolve().parents[3]
_WARM_UP = 0.5  # seconds
_DEPTH = 16  # messages that a publisher has under way


class Scene(NamedTuple):
    """What is measured.

    Attributes:
        name: What the table calls it.
        mode: That of Redis; "" without.
        publishers: Processes that publish.
        readers: Other processes, which have the members; 0: publishers have.
    """

    name: str
    mode: str
    publishers: int
    readers: int


SCENES = (
    Scene("one process", "", 1, 0),
    Scene("two processes, each for itself", "", 2, 0),
    Scene("one publishes, two have the members, pubsub", "pubsub", 1, 2),
    Scene("the same, stream", "stream", 1, 2),
)


class Flow:
    """One publisher and the members that it is for.

    Attributes:
        received: Bytes that all members have got together.
    """

    def __init__(self, port: int, members: list[socket.socket], size: int) -> None:
        self.members = members
        self.received = 0
        self.frame = len(header(BINARY, size)) + size
        self._message = self.frame * len(members)
        self._acked = 0
        self._control, _ = open_websocket(port)

    def begin(self) -> None:
        """Have it publish."""
        self._control.sendall(client_frame(TEXT, b"go"))

    def acknowledge(self) -> None:
        """Tell the publisher how many more messages all have got, on average."""
        done = self.received // self._message
        if done > self._acked:
            self._control.sendall(client_frame(TEXT, str(done - self._acked).encode()))
            self._acked = done

    def close(self) -> None:
        """Close all."""
        for sock in (*self.members, self._control):
            sock.close()


class Nodes:
    """The servers' processes of one measurement."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, url: str, mode: str, size: int, depth: int) -> int:
        """Start one; return its port."""
        argv = [sys.executable, "-m", f"{__package__}.node", url, mode, str(size), str(depth)]
        process = subprocess.Popen(
            argv, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._processes.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    def flush(self) -> None:
        """Wait until all of them listen to Redis."""
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            print(file=process.stdin, flush=True)
            assert process.stdout.readline() == "True\n"

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.communicate()


def join(port: int, count: int) -> list[socket.socket]:
    """Return that many members of a server's room."""
    found = []
    for index in range(count):
        sock, _ = open_websocket(port, index)
        sock.sendall(client_frame(TEXT, b"join"))
        assert receive_frame(sock)[1] == b"in"
        sock.setblocking(False)
        found.append(sock)
    return found


def deliveries(scene: Scene, url: str, members: int, size: int, seconds: float) -> float:
    """Return the deliveries per second."""
    with contextlib.ExitStack() as stack:
        nodes = Nodes()
        stack.callback(nodes.close)
        used = url if scene.mode else ""
        publishers = [nodes.start(used, scene.mode, size, _DEPTH) for _ in range(scene.publishers)]
        readers = [nodes.start(used, scene.mode, size, _DEPTH) for _ in range(scene.readers)]
        flows: list[Flow] = []
        if readers:
            joined = [sock for port in readers for sock in join(port, members // len(readers))]
            flows.append(Flow(publishers[0], joined, size))
        else:
            for port in publishers:
                flows.append(Flow(port, join(port, members // len(publishers)), size))
        for flow in flows:
            stack.callback(flow.close)
        nodes.flush()
        for flow in flows:
            flow.begin()
        _read(flows, _WARM_UP)
        before = sum(flow.received / flow.frame for flow in flows)
        elapsed = _read(flows, seconds)
        return (sum(flow.received / flow.frame for flow in flows) - before) / elapsed


def _read(flows: list[Flow], seconds: float) -> float:
    """Read for that long; return how long it was."""
    owners = {sock.fileno(): (flow, sock) for flow in flows for sock in flow.members}
    buffer = bytearray(262_144)
    begun = time.perf_counter()
    with select.epoll() as poller:
        for number in owners:
            poller.register(number, select.EPOLLIN)
        while (elapsed := time.perf_counter() - begun) < seconds:
            for number, _ in poller.poll(0.1):
                flow, sock = owners[number]
                got = sock.recv_into(buffer)
                if not got:
                    raise ConnectionError("a member was closed")
                flow.received += got
            for flow in flows:
                flow.acknowledge()
    return elapsed


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """A Redis server of our own; gives its URL, or "" if it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="syncws-") as directory:
        path = Path(directory, "redis.sock")
        argv = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", directory]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            while not path.exists():
                time.sleep(0.01)
            yield f"unix://{path}"
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.groups")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    parser.add_argument("--members", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 1024], help="in bytes")
    options = parser.parse_args()
    raise_file_limit()
    cases = [(members, size) for members in options.members for size in options.sizes]
    print(describe(environment([])))
    print(f"deliveries per second; medians of {options.rounds} rounds of {options.seconds:g} s\n")
    print("| | " + " | ".join(f"{members:,} members, {size:,} B" for members, size in cases) + " |")
    print("|---|" + "---|" * len(cases))
    with redis_server() as url:
        for scene in SCENES:
            if scene.mode and not url:
                print(f"| {scene.name} | redis-server is not installed |")
                continue
            row = []
            for members, size in cases:
                rates = sorted(
                    deliveries(scene, url, members, size, options.seconds)
                    for _ in range(options.rounds)
                )
                row.append(f"{rates[len(rates) // 2]:,.0f}")
            print(f"| {scene.name} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
