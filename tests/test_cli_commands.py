"""The command line of `syncws`: what it takes, and what it says of what it does not."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click")

from click.testing import CliRunner, Result

import syncws
from syncws.cli import serving
from syncws.cli.bind import parse_bind
from syncws.cli.commands import commands
from syncws.cli.serve import usable_cores

ROOT = Path(__file__).resolve().parents[1]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(commands, args, prog_name="syncws")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[serving.Options]:
    """With what it would have served."""
    got: list[serving.Options] = []

    def run(options: serving.Options) -> int:
        got.append(options)
        return 3

    monkeypatch.setattr(serving, "run", run)
    return got


def test_the_defaults(served: list[serving.Options]) -> None:
    assert invoke("serve", "chat:listener").exit_code == 3
    (options,) = served
    assert options == serving.Options(
        module="chat",
        attribute="listener",
        processes=1,
        binds=[],
        graceful_timeout=30.0,
        pid_file=None,
        ready_fd=None,
        log_level=20,
        tls=None,
        reload=False,
    )


def test_options_for_development(served: list[serving.Options]) -> None:
    file = str(ROOT / "setup.py")
    invoke("serve", "chat:listener", "--reload", "--tls-cert", file, "--tls-key", file)
    (options,) = served
    assert (options.reload, options.graceful_timeout) == (True, 1.0)
    assert options.tls == syncws.TLSConfig(cert_file=file, key_file=file)


def test_a_key_without_a_certificate(served: list[serving.Options]) -> None:
    result = invoke("serve", "chat:listener", "--tls-key", str(ROOT / "setup.py"))
    assert result.exit_code == 2
    assert "--tls-key needs --tls-cert" in result.output
    assert served == []


def test_all_options(served: list[serving.Options]) -> None:
    invoke(
        *("serve", "shop.chat:site.make", "--processes", "auto", "--bind", ":80"),
        *("--bind", "unix:/x", "--graceful-timeout", "0.5", "--pid-file", "p"),
        *("--ready-fd", "9", "--log-level", "debug"),
    )
    (options,) = served
    assert (options.module, options.attribute) == ("shop.chat", "site.make")
    assert options.processes == usable_cores() >= 1
    assert options.binds == [parse_bind(":80"), parse_bind("unix:/x")]
    assert (options.graceful_timeout, options.pid_file, options.ready_fd) == (0.5, "p", 9)
    assert options.log_level == 10


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["chat"], "'chat' is not MODULE:LISTENER, such as chat:listener"),
        (["chat:"], "is not MODULE:LISTENER"),
        ([":listener"], "is not MODULE:LISTENER"),
        ([], "Missing argument"),
        (["a:b", "--processes", "0"], "'0' is neither a number of at least 1 nor 'auto'"),
        (["a:b", "--processes", "many"], "neither a number"),
        (["a:b", "--bind", "nowhere"], "'nowhere' is no HOST:PORT"),
        (["a:b", "--graceful-timeout", "-1"], "--graceful-timeout"),
        (["a:b", "--log-level", "loud"], "--log-level"),
    ],
)
def test_wrong_arguments(args: list[str], said: str, served: list[serving.Options]) -> None:
    result = invoke("serve", *args)
    assert result.exit_code == 2
    assert said in result.output
    assert served == []


def test_a_system_without_fork(
    monkeypatch: pytest.MonkeyPatch, served: list[serving.Options]
) -> None:
    monkeypatch.delattr(os, "fork")
    result = invoke("serve", "chat:listener")
    assert result.exit_code == 1
    assert "needs a system that can fork" in result.output
    assert served == []


def test_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_python_m_syncws_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "syncws", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.fullmatch(rf"syncws, version {syncws.__version__}\n", done.stdout), done


def test_the_installed_command_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {}
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.setattr(setuptools, "setup", arguments.update)
    runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    assert arguments["entry_points"]["console_scripts"] == ["syncws = syncws.cli:main"]
