"""The Python 2.7 environment that Autobahn's suite runs in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["NoPython27", "ensure", "find_python27", "has_suite", "python_of"]

# The last virtualenv that makes environments for Python 2.7.
_VIRTUALENV = "virtualenv<20.22"

# The suite's requirements are open-ended, and most of them have left Python 2
# behind since: these are versions that still work together.
_PINS = (
    "autobahntestsuite==25.10.1",
    "autobahn==0.10.9",
    "attrs==21.4.0",
    "Automat==22.10.0",
    "cryptography==3.3.2",
    "incremental==16.10.1",
    "Jinja2==2.11.3",
    "klein==17.10.0",
    "pyOpenSSL==19.1.0",
    "Twisted==19.10.0",
    "txaio==2.1.0",
    "ujson==2.0.3",
    "Werkzeug==1.0.1",
    "wsaccel==0.6.6",
    "zope.interface==4.6.0",
)


class NoPython27(Exception):
    """The suite needs Python 2.7 and there is none."""


def find_python27() -> Path:
    """Return a Python 2.7 that starts: on PATH, or one that pyenv has installed."""
    found = shutil.which("python2.7")
    candidates = [Path(found)] if found else []
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates += sorted(pyenv.glob("versions/2.7.*/bin/python2.7"), reverse=True)
    for candidate in candidates:
        # A pyenv shim is on PATH also when it leads nowhere.
        asked = subprocess.run(
            [candidate, "-c", "import sys; print(sys.version_info[:2] == (2, 7))"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.stdout.strip() == "True":
            return candidate
    raise NoPython27("Autobahn's testsuite needs Python 2.7, and none was found")


def python_of(venv: Path) -> Path:
    """Return the path of an environment's interpreter."""
    return venv / "bin" / "python"


def has_suite(venv: Path) -> bool:
    """Whether the suite is installed in the environment."""
    return (venv / "bin" / "wstest").exists()


def ensure(venv: Path) -> None:
    """Make the environment unless it is there; downloads from PyPI.

    Raises:
        NoPython27: There is nothing to make it from.
        subprocess.CalledProcessError: A step failed; its output was shown.
    """
    if has_suite(venv):
        return
    python27 = find_python27()
    print(f"making an environment for Autobahn's testsuite in {venv}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="syncws-virtualenv-") as scratch:
        tool = Path(scratch) / "venv"
        _run(sys.executable, "-m", "venv", tool)
        _run(python_of(tool), "-m", "pip", "install", "-q", _VIRTUALENV)
        _run(python_of(tool), "-m", "virtualenv", "-q", "-p", python27, venv)
    _run(python_of(venv), "-m", "pip", "install", "-q", *_PINS)
    if not has_suite(venv):
        raise RuntimeError(f"{venv} was made, but has no wstest")


def _run(*command: str | Path) -> None:
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run(command, env={**os.environ, **quiet}, stdout=sys.stderr, check=True)
