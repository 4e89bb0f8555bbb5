"""Processes: a server and its load, or blocking clients and their server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import IO, Any

from .report import Figures, Outcome
from .workloads import Peer, Workload

__all__ = ["Failure", "importable", "measure"]

ROOT = Path(__file__).resolve().parents[2]

# Seconds until a server listens, and until a client has done what it is told.
_START = 60.0
_ANSWER = 60.0

# Seconds that a blocking client is busy for before it is the next one's turn, so
# that all clients see the same moods of the machine.
_SLICE = 0.1

_NOUNS = {"servers": "server", "load": "load", "clients": "client"}


class Failure(Exception):
    """A measurement that came to nothing, and why."""


def importable(peer: Peer) -> str | None:
    """Return why a peer cannot be measured, or None if it can."""
    if not peer.modules:
        return None
    source = "".join(f"import {module}\n" for module in peer.modules)
    try:
        done = subprocess.run(
            [sys.executable, "-c", source],
            cwd=ROOT,
            env=os.environ | dict(peer.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "the import takes more than a minute"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["the import ended the process"])[-1]


@dataclass(frozen=True)
class Settings:
    """How processes run.

    Attributes:
        verbose: Show what they write to stderr.
        one_cpu: Have them share one.
    """

    verbose: bool
    one_cpu: bool


class Child:
    """A process of ours, killed with all of its own at the end."""

    def __init__(
        self, module: str, *arguments: object, settings: Settings, peer: Peer | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.{module}", *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | dict(peer.environment if peer else ()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if settings.verbose else subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        if settings.one_cpu:
            # Its threads, which do not exist yet, will inherit it.
            os.sched_setaffinity(self.pid, {max(os.sched_getaffinity(0))})
        self._what = _NOUNS[module]

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def tell(self, line: str) -> None:
        """Write a line to its input."""
        try:
            print(line, file=self._pipe(self._process.stdin), flush=True)
        except OSError:
            raise Failure(f"the {self._what} ended") from None

    def line(self, timeout: float) -> str:
        """Read a line that it prints.

        Raises:
            Failure: It ended or took too long.
        """
        timer = Timer(timeout, self.kill)
        timer.start()
        began = time.monotonic()
        try:
            line = self._pipe(self._process.stdout).readline()
        finally:
            timer.cancel()
        if line:
            return line
        if time.monotonic() - began >= timeout:
            raise Failure(f"nothing from the {self._what} within {timeout:.0f} s")
        raise Failure(f"the {self._what} ended with status {self._process.wait(10)}")

    def figures(self, timeout: float) -> dict[str, Any]:
        """Read figures that it prints.

        Raises:
            Failure: There are none.
        """
        found: dict[str, Any] = json.loads(self.line(timeout))
        if "failed" in found:
            raise Failure(found["failed"])
        return found

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it and what it has started."""
        if not self.alive():
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        with contextlib.suppress(OSError):
            self._pipe(self._process.stdin).close()
        self._pipe(self._process.stdout).close()
        self._process.wait(30)


def _port(server: Child) -> int:
    """Wait until a server listens, and return where."""
    line = server.line(_START).strip()
    if not line.isdecimal():
        raise Failure(f"the server does not start: {line}")
    return int(line)


def measure(
    workload: Workload,
    names: Sequence[str],
    seconds: float,
    *,
    verbose: bool = False,
    any_cpu: bool = False,
) -> Iterator[tuple[str, Outcome | None]]:
    """Measure peers once, in this order.

    Args:
        workload: What to measure.
        names: On whom.
        seconds: How long each.
        verbose: Show what the processes write to stderr.
        any_cpu: Leave it to the system where they run.

    Yields:
        A name and None before it is measured; the name and its figures, or why
        there are none, behind that.
    """
    peers = [workload.candidates[name] for name in names]
    seconds = max(seconds, workload.seconds)
    settings = Settings(verbose, workload.one_cpu and not any_cpu)
    if workload.kind == "client":
        yield from _measure_clients(workload, peers, seconds, settings)
        return
    for peer in peers:
        yield peer.name, None
        try:
            yield peer.name, _measure_server(workload, peer, seconds, settings)
        except Failure as exc:
            yield peer.name, str(exc)


def _measure_server(workload: Workload, peer: Peer, seconds: float, settings: Settings) -> Figures:
    timeout = 60 + 10 * seconds + workload.connections / 25
    with Child("servers", peer.name, workload.name, peer=peer, settings=settings) as server:
        port = _port(server)
        arguments = (workload.name, port, server.pid, seconds)
        try:
            with Child("load", *arguments, settings=settings) as load:
                return load.figures(timeout)
        except Failure as exc:
            if server.alive():
                raise
            raise Failure(f"the server ended; {exc}") from None


def _measure_clients(
    workload: Workload, peers: Sequence[Peer], seconds: float, settings: Settings
) -> Iterator[tuple[str, Outcome | None]]:
    """Run all clients at once, each in its slices of the time."""
    outcomes: dict[str, Outcome] = {}
    try:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(
                Child("servers", "picows", workload.name, settings=settings)
            )
            arguments = (workload.name, _port(server))
            clients: dict[str, Child] = {}
            for peer in peers:
                yield peer.name, None
                child = Child("clients", peer.name, *arguments, peer=peer, settings=settings)
                clients[peer.name] = stack.enter_context(child)
                outcomes[peer.name] = _try(child, None)
            orders = [str(_SLICE)] * max(1, round(seconds / _SLICE))
            for order in [*orders, "figures"]:
                for name, child in clients.items():
                    if not isinstance(outcomes[name], str):
                        yield name, None
                        outcomes[name] = _try(child, order)
    except Failure as exc:
        outcomes = {peer.name: str(exc) for peer in peers}
    yield from outcomes.items()


def _try(client: Child, order: str | None) -> Outcome:
    """Have a client do something; None: only wait until it is connected."""
    try:
        if order is not None:
            client.tell(order)
        return client.figures(_ANSWER)
    except Failure as exc:
        return str(exc)
