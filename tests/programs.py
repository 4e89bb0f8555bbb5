"""Other people's programs, run for real: servers of the tests.

Each is started in a directory of its own, says what went wrong if it does not
come up, and is gone with all of its processes when the block ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from .support import HANG, wait_until

__all__ = [
    "Program",
    "catches",
    "find_program",
    "free_port",
    "is_listening",
    "python_path",
    "running",
]

ROOT = Path(__file__).resolve().parents[1]

# Below it are ports of well-known services.
_FIRST_PORT = 10_000

# Where servers are that are not for users.
_MORE_PLACES = ("/usr/sbin", "/usr/local/sbin", "/sbin")


def find_program(name: str) -> str:
    """Return the path of a program, or skip the test: nothing here can put it there."""
    # Scripts of the environment that the tests run in, which need not be active.
    places = [os.path.dirname(sys.executable), *os.get_exec_path(), *_MORE_PLACES]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago.

    For programs only that cannot be told to take any port and say which. It is
    none of those that the system gives to whoever asks for any: tests that run
    beside this one do so all the time.
    """
    while True:
        port = secrets.randbelow(_first_ephemeral() - _FIRST_PORT) + _FIRST_PORT
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def _first_ephemeral() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as sock:
        sock.settimeout(1.0)
        return sock.connect_ex((host, port)) == 0


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal, and does not hold it back."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    masks = dict(re.findall(r"^(Sig\w+):\s*([0-9a-f]+)$", status, re.MULTILINE))
    bit = 1 << number - 1
    return bool(int(masks["SigCgt"], 16) & bit) and not int(masks["SigBlk"], 16) & bit


def python_path() -> dict[str, str]:
    """Return the environment in which another Python finds what this one does."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


class Program:
    """A program that runs, and what it has printed.

    Attributes:
        process: The process, the leader of a group of its own.
    """

    def __init__(
        self, argv: Sequence[str], log: Path, cwd: Path | None, env: Mapping[str, str] | None
    ) -> None:
        self._argv = argv
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=None if env is None else dict(env),
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until `condition()` holds; fail with the output if the program ends first."""

        def holds() -> object:
            if self.process.poll() is not None:
                pytest.fail(
                    f"{self._argv[0]} has ended with {self.process.returncode}:\n{self.output}"
                )
            return condition()

        wait_until(holds)

    def wait_to_say(self, text: str) -> None:
        """Wait until it has printed `text`: its log may come after its answer."""
        try:
            self.wait_for(lambda: text in self.output)
        except AssertionError:
            pytest.fail(f"{self._argv[0]} has not said {text!r}, but:\n{self.output}")

    def signal(self, number: int) -> None:
        """Send a signal to the program itself."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; return its status."""
        return self.process.wait(HANG)

    def kill(self) -> None:
        """End it, and what it has started, without further ado. Harmless twice."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(HANG)


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], object] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """A program, from when `ready()` holds to the end of the block.

    Args:
        argv: The program and its arguments; see `find_program`.
        log: The file for what it prints.
        ready: Whether it can be used, such as `lambda: is_listening(port)`.
        cwd: Its directory.
        env: Its whole environment; see `python_path`. None: that of the tests.
    """
    program = Program(argv, log, cwd, env)
    try:
        if ready is not None:
            program.wait_for(ready)
        yield program
    finally:
        program.kill()
