"""Running other programs."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

from .programs import find_program, free_port, is_listening, python_path, running
from .support import wait_until

SERVER = """
import socket, sys
print("starting")
sock = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    sock.accept()[0].close()
"""


def test_a_program_runs_until_the_block_ends(tmp_path: Path) -> None:
    port = free_port()
    with running(
        [sys.executable, "-c", SERVER, str(port)],
        log=tmp_path / "log",
        ready=lambda: is_listening(port),
        env=python_path(),
    ) as program:
        assert program.output == "starting\n"
    assert program.process.returncode == -signal.SIGKILL
    assert not is_listening(port)


def test_one_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(pytest.fail.Exception, match=r"ended with 3:\noh no"),
        running(
            [sys.executable, "-c", "print('oh no'); raise SystemExit(3)"],
            log=tmp_path / "log",
            ready=lambda: False,
        ),
    ):
        pass


def test_what_it_says_may_come_late(tmp_path: Path) -> None:
    """Not before the test goes on to wait for it."""
    script = (
        "import os, sys, threading; from pathlib import Path\n"
        "while not Path('waiting').exists(): os.sched_yield()\n"
        "print('late', flush=True); threading.Event().wait()"
    )
    with running([sys.executable, "-c", script], log=tmp_path / "log", cwd=tmp_path) as program:
        assert program.output == ""
        (tmp_path / "waiting").touch()
        program.wait_to_say("late")


def test_one_that_ends_without_saying_it_says_what_it_said(tmp_path: Path) -> None:
    with (
        running([sys.executable, "-c", "print('oh no')"], log=tmp_path / "log") as program,
        pytest.raises(pytest.fail.Exception, match=r"ended with 0:\noh no"),
    ):
        program.wait_to_say("late")


def test_its_children_end_with_it(tmp_path: Path) -> None:
    script = "import os, time; print(os.fork(), flush=True); time.sleep(600)"
    with running([sys.executable, "-c", script], log=tmp_path / "log") as program:
        program.wait_for(lambda: program.output.count("\n") == 2)
        child = max(map(int, program.output.split()))
    wait_until(lambda: _is_gone(child))


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_what_is_not_there_skips() -> None:
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        find_program("no-such-program")


def test_free_ports_are_none_that_others_are_given() -> None:
    ports = [free_port() for _ in range(50)]
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert max(ports) < sock.getsockname()[1]
    assert min(ports) >= 10_000


def test_a_port_that_is_taken_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    port, other = free_port(), free_port()
    with socket.create_server(("127.0.0.1", port)):
        drawn = iter([port - 10_000, port - 10_000, other - 10_000])
        monkeypatch.setattr("tests.programs.secrets.randbelow", lambda most: next(drawn))
        assert free_port() == other
