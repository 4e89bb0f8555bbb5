"""The suite against its peer, both as processes, for one role."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .environment import python_of
from .presets import Preset
from .report import Verdict, judge, load

__all__ = ["CLIENT_COMMAND", "SERVER_COMMAND", "run_client", "run_server"]

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = Path(__file__).with_name("wstest_launcher.py")
SERVER_COMMAND = (sys.executable, "-m", "tests.conformance.echo_server")
CLIENT_COMMAND = (sys.executable, "-m", "tests.conformance.echo_client")
AGENT = "peer"

_START_TIMEOUT = 60.0
# The HTML and JSON of 517 cases take the suite a while.
_REPORT_TIMEOUT = 120.0


class NotReady(Exception):
    """A child did not say in time that it is ready."""


class Process:
    """A child whose output goes to a log file and can be waited for, line by line.

    It is gone when the ``with`` block is left.
    """

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self.log = log
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._child = subprocess.Popen(
            [os.fspath(part) for part in command],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        # Reads for as long as the child runs, or the child would block.
        self._reader = threading.Thread(target=self._copy, name=f"log-{log.name}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.terminate(timeout=10.0)
        self._reader.join()

    def expect(self, pattern: str, timeout: float) -> str:
        """Wait for a line that matches and return the pattern's first group.

        Raises:
            NotReady: No such line came.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise NotReady(f"no {pattern!r} in the output; see {self.log}")
            if found := re.search(pattern, line):
                return found.group(1)

    def wait(self, timeout: float) -> int | None:
        """Wait for the child's end and return its exit status, or None if it has not ended."""
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self, timeout: float) -> None:
        """Ask the child to end; kill it if it does not."""
        self._child.terminate()
        if self.wait(timeout) is None:
            self._child.kill()
            self._child.wait()

    def _copy(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as output, self.log.open("w", encoding="utf-8") as log:
            for line in output:
                log.write(line)
                log.flush()
                self._lines.put(line)
        self._lines.put(None)


def run_server(
    preset: Preset, venv: Path, directory: Path, command: Sequence[str] = SERVER_COMMAND
) -> Verdict:
    """Run the suite's client against an echo server.

    Args:
        preset: Which cases.
        venv: The suite's environment.
        directory: Where the report goes; what is there is removed.
        command: The server. The first number it prints is its port on the
            loopback interface, and says that it is ready.
    """
    _clear(directory)
    problems: list[str] = []
    try:
        _fuzz_server(preset, venv, directory, command, problems)
    except (OSError, NotReady) as error:
        problems.append(str(error))
    return _verdict(preset, directory, problems)


def _fuzz_server(
    preset: Preset, venv: Path, directory: Path, command: Sequence[str], problems: list[str]
) -> None:
    with Process(command, directory / "server.log") as server:
        port = server.expect(r"(\d+)", _START_TIMEOUT)
        target = {"agent": AGENT, "url": f"ws://127.0.0.1:{port}"}
        with _suite("fuzzingclient", preset, venv, directory, servers=[target]) as suite:
            status = suite.wait(preset.timeout)
            if status is None:
                problems.append(f"the suite was stopped after {preset.timeout:g} seconds")
                suite.terminate(_REPORT_TIMEOUT)
            elif status:
                problems.append(f"the suite ended with {status}; see {suite.log}")
        if (ended := server.wait(0)) is not None:
            problems.append(f"the server ended with {ended}; see {server.log}")


def run_client(
    preset: Preset, venv: Path, directory: Path, command: Sequence[str] = CLIENT_COMMAND
) -> Verdict:
    """Run an echo client against the suite's server.

    Args:
        preset: Which cases.
        venv: The suite's environment.
        directory: Where the report goes; what is there is removed.
        command: The client. It is given the suite's URL and the agent's name,
            and runs each case, then has the report written.
    """
    _clear(directory)
    problems: list[str] = []
    try:
        _fuzz_client(preset, venv, directory, command, problems)
    except (OSError, NotReady) as error:
        problems.append(str(error))
    return _verdict(preset, directory, problems)


def _fuzz_client(
    preset: Preset, venv: Path, directory: Path, command: Sequence[str], problems: list[str]
) -> None:
    # The launcher chooses the port; the suite only insists on a valid one here.
    with _suite("fuzzingserver", preset, venv, directory, url="ws://127.0.0.1:1") as suite:
        port = suite.expect(r"^LISTENING (\d+)", _START_TIMEOUT)
        arguments = (f"ws://127.0.0.1:{port}", AGENT)
        with Process((*command, *arguments), directory / "client.log") as client:
            status = client.wait(preset.timeout)
            if status is None:
                problems.append(f"the client was stopped after {preset.timeout:g} seconds")
            elif status:
                problems.append(f"the client ended with {status}; see {client.log}")
        suite.terminate(_REPORT_TIMEOUT)


def _suite(mode: str, preset: Preset, venv: Path, directory: Path, **settings: object) -> Process:
    spec = {
        **settings,
        "outdir": str(directory),
        "cases": preset.cases,
        "exclude-cases": preset.exclude,
        "exclude-agent-cases": {},
    }
    path = directory / "spec.json"
    path.write_text(json.dumps(spec, indent=2), encoding="utf-8")
    return Process(
        (
            *(python_of(venv), LAUNCHER, str(preset.case_timeout)),
            *("--mode", mode, "--webport", "0", "--spec", path),
        ),
        directory / "wstest.log",
    )


def _verdict(preset: Preset, directory: Path, problems: list[str]) -> Verdict:
    path = directory / "wstest.log"
    log = path.read_text(encoding="utf-8") if path.exists() else ""
    announced = re.search(r"^Ok, will run (\d+) test cases", log, re.MULTILINE)
    try:
        results = load(directory, AGENT)
    except FileNotFoundError:
        results = []
        problems.append("the suite wrote no report")
    verdict = judge(
        results,
        announced=int(announced.group(1)) if announced else None,
        expected=preset.count,
        aborted=re.findall(r"^ABORTED (\S+)", log, re.MULTILINE),
    )
    verdict.complaints[:0] = problems
    return verdict


def _clear(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
