"""The command `syncws serve`, run for real, for the tests of it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import syncws
from tests.programs import Program, python_path, running
from tests.support import HANG

__all__ = ["MODULE", "Served", "served"]

# Its service tells whose process it is, and which code that has.
MODULE = """
import os, syncws

VERSION = "1"

class Echo(syncws.Service):
    def on_open(self, caller):
        caller.send_text(f"{os.getpid()} {VERSION}")

    def on_text(self, caller, text):
        caller.send_text(text)

listener = syncws.Listener(0)
listener.attach("/", Echo())

if __name__ == "__main__":
    listener.serve_forever()
"""


class Served:
    """A command that runs, and its module."""

    def __init__(self, program: Program, module: Path) -> None:
        self.program = program
        self._module = module

    @property
    def port(self) -> int:
        """Where it listens."""
        found = re.search(r"Listening on \S+:(\d+)[, ]", self.program.output)
        assert found is not None, self.program.output
        return int(found[1])

    def connect(self) -> tuple[syncws.Client, int, str]:
        """Return a client, the process that it is connected to, and the version of its code."""
        client = syncws.Client(f"ws://127.0.0.1:{self.port}/")
        try:
            pid, version = client.receive_text(timeout=HANG).split()
        except BaseException:
            client.close()
            raise
        return client, int(pid), version

    def ask(self) -> tuple[int, str]:
        """Return the process and the version that a new client meets.

        It comes back if it met a process that was about to end.
        """
        while True:
            with contextlib.suppress(syncws.ConnectionClosed):
                client, pid, version = self.connect()
                client.close()
                return pid, version

    def pids(self, count: int) -> set[int]:
        """Return the processes that new clients meet, once there are so many."""
        found: set[int] = set()

        def complete() -> bool:
            found.add(self.ask()[0])
            return len(found) >= count

        self.program.wait_for(complete)
        return found

    def write(self, **changes: str) -> None:
        """Change the module: replace names by their values in its text."""
        text = MODULE
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        write_module(self._module, text)

    def listenings(self) -> int:
        """How often all processes were said to listen."""
        return self.program.output.count("Listening on")

    def reload(self) -> None:
        """Have it load the module anew, and wait until it says so."""
        before = self.listenings()
        self.program.signal(1)
        self.program.wait_for(lambda: self.listenings() > before)

    def meet(self, count: int) -> dict[int, syncws.Client]:
        """Return a client of each process; there are so many."""
        found: dict[int, syncws.Client] = {}

        def complete() -> bool:
            client, pid, _ = self.connect()
            if found.setdefault(pid, client) is not client:
                client.close()
            return len(found) >= count

        self.program.wait_for(complete)
        return found

    def ended(self, pid: int) -> bool:
        """Whether a process is gone, and was waited for."""
        return not Path(f"/proc/{pid}").exists()


def write_module(path: Path, text: str) -> None:
    """Write a module whose change Python notices, however soon it comes."""
    path.write_text(text, encoding="utf-8")
    cached = path.parent / "__pycache__"
    if cached.is_dir():
        for file in cached.iterdir():
            file.unlink()


def environment() -> dict[str, str]:
    """Return that of a command whose stderr is compared; without compiled files."""
    env = {key: value for key, value in python_path().items() if key != "PYTHONDEVMODE"}
    return env | {"PYTHONDONTWRITEBYTECODE": "1"}


def command(*args: str) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "syncws", "serve", *args]


@contextlib.contextmanager
def served(
    tmp_path: Path,
    *args: str,
    module: str = MODULE,
    target: str = "chat:listener",
    env: Mapping[str, str] | None = None,
    argv: Sequence[str] = (),
) -> Iterator[Served]:
    """The command with a module of its own, from when it listens to the end of the block.

    Args:
        tmp_path: The directory of the module.
        args: The command's options.
        module: The text of the module.
        target: What is served.
        env: More for its environment.
        argv: A program that starts it.
    """
    path = tmp_path / "chat.py"
    write_module(path, module)
    with running(
        [*argv, *command(target, *args)],
        log=tmp_path / "log",
        cwd=tmp_path,
        env=environment() | dict(env or {}),
    ) as program:
        it = Served(program, path)
        program.wait_for(it.listenings)
        yield it


def refused(tmp_path: Path, module: str, *args: str, target: str = "chat:listener") -> str:
    """Return what the command prints that does not come up; its status is 1."""
    write_module(tmp_path / "chat.py", module)
    with running(
        command(target, *args), log=tmp_path / "log", cwd=tmp_path, env=environment()
    ) as program:
        assert program.wait() == 1, program.output
        return program.output


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))
