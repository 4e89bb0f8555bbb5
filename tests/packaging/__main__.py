"""Builds the distributions and uses them in clean environments, on every Python that there is.

    python -m tests.packaging

With and without a compiler; prints a table, and exits with 1 if anything is not as it should be.
It needs `build`, `twine` and `mypy`, and an index of packages.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("python3.10", "python3.11", "python3.12", "python3.13")

# Uses an installed syncws, and tells which data path it has.
ROUND_TRIP = """
import pathlib, sys, syncws
class Echo(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)
with syncws.Listener(0) as listener:
    listener.attach("/", Echo())
    with syncws.Client(f"ws://127.0.0.1:{listener.port}/") as client:
        client.send_text("hello")
        assert client.receive(timeout=20) == "hello"
home = pathlib.Path(syncws.__file__)
assert home.is_relative_to(sys.prefix), home
assert (home.parent / "py.typed").exists()
print("C" if syncws.speedups else "Python")
"""

# What a user's type checker sees: right, and wrong where it says so.
TYPED = """
import syncws

class Echo(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)

listener = syncws.Listener(9090)
listener.attach("/", Echo())

@listener.upgrade("/{name}", service=Echo)
def admit(http: syncws.Upgrade, request: syncws.Request, name: str) -> None:
    http.accept_upgrade(headers={"X-Name": name})

client = syncws.Client("ws://localhost:9090/")
reveal_type(client.receive())
client.send_text(7)
"""
SEEN = ('Revealed type is "str | bytes"', 'has incompatible type "int"', "Found 1 error")

NEEDED = (
    "LICENSE", "README.md", "CHANGES.md", "setup.py", "pyproject.toml", "tox.ini",
    "syncws/_speedups.c", "syncws/py.typed", "tests/support.py", "examples/basic_sample.py",
    "docs/conf.py",
)  # fmt: skip


# What setuptools warns of whatever one does.
USUAL = ("no previously-included files", "byte-compiling is disabled")


class Row(NamedTuple):
    """What came of one installation."""

    python: str
    source: str
    compiler: str
    result: str


def main() -> int:
    """Do it all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.packaging", description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        sdist, wheel = build(scratch)
        problems = [*check_sdist(sdist), *check_wheel(wheel)]
        rows = [row for python in pythons() for row in install(python, sdist, wheel, scratch)]
        problems += [" ".join(row) for row in rows if row.result not in ("C", "Python")]
        problems += check_types(wheel, scratch)
    for row in [Row("python", "from", "compiler", "data path"), *rows]:
        print("{:<12} {:<6} {:<9} {}".format(*row))
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print("not as it should be" if problems else "all as it should be")
    return bool(problems)


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command; return what it has said."""
    texts = [str(part) for part in command]
    return subprocess.run(
        texts,
        capture_output=True,
        encoding="utf-8",
        check=False,
        **options,  # type: ignore[call-overload]
    )


def succeed(*command: object, **options: object) -> str:
    """Run a command that has to succeed."""
    done = run(*command, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def build(scratch: Path) -> tuple[Path, Path]:
    """Return an sdist and the wheel that is built from it, both checked by twine."""
    source, out = scratch / "source", scratch / "dist"
    files = succeed("git", "ls-files", cwd=ROOT).splitlines()
    for file in files:
        if (ROOT / file).is_file():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, source / file)
    said = succeed(sys.executable, "-m", "build", "--outdir", out, source)
    for line in said.splitlines():
        told = "Deprecat" in line or "warning" in line.lower()
        if told and not any(usual in line for usual in USUAL):
            print(f"the build says: {line.strip()}")
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    succeed(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    return sdist, wheel


def check_sdist(path: Path) -> Iterator[str]:
    """Yield what is missing."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in NEEDED:
        if name not in names:
            yield f"{path.name} lacks {name}"


def check_wheel(path: Path) -> Iterator[str]:
    """Yield what is missing, and what should not be there."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if sys.version_info >= (3, 11) and "-abi3-" not in path.name:
        yield f"{path.name} is for one version only"
    for wanted in ("syncws/py.typed", "LICENSE", "entry_points.txt"):
        if not any(name.endswith(wanted) for name in names):
            yield f"{path.name} lacks {wanted}"
    for name in names:
        top = name.split("/")[0]
        if top != "syncws" and not top.endswith(".dist-info"):
            yield f"{path.name} has {name}"


def pythons() -> list[str]:
    """Return the interpreters that there are."""
    return [name for name in PYTHONS if run(name, "--version").returncode == 0]


def install(python: str, sdist: Path, wheel: Path, scratch: Path) -> Iterator[Row]:
    """Install in clean environments, and use what is there."""
    cases: list[tuple[str, Path, str, str]] = [
        ("sdist", sdist, "yes", "C"),
        ("sdist", sdist, "none", "Python"),
    ]
    if "-abi3-" in wheel.name and python != "python3.10":
        cases.append(("wheel", wheel, "none", "C"))
    for source, file, compiler, wanted in cases:
        home = scratch / f"{python}-{source}-{compiler}"
        succeed(python, "-m", "venv", home)
        environment = dict(os.environ)
        environment.pop("PYTHONPATH", None)
        if compiler == "none":
            environment |= {"CC": "/bin/false", "CXX": "/bin/false"}
        interpreter = home / "bin" / "python"
        installed = run(
            interpreter, "-m", "pip", "install", "-q", f"{file}[cli]", env=environment, cwd=scratch
        )
        result = installed.stderr.strip()
        if not installed.returncode:
            done = run(interpreter, "-c", ROUND_TRIP, cwd=scratch, env=environment)
            result = done.stdout.strip() or done.stderr.strip()
            for command in (
                (interpreter, "-m", "pip", "check"),
                (home / "bin" / "syncws", "--version"),
                (home / "bin" / "syncws", "bench", "--help"),
            ):
                checked = run(*command, cwd=scratch, env=environment)
                if checked.returncode:
                    result = f"{command[-1]}: {checked.stdout}{checked.stderr}"
        if result in ("C", "Python") and result != wanted:
            result = f"has the data path in {result}, not in {wanted}"
        yield Row(python, source, compiler, result)


def check_types(wheel: Path, scratch: Path) -> Iterator[str]:
    """Have mypy look at a user's program that uses what is installed."""
    home = scratch / "typed"
    venv.create(home, with_pip=True)
    interpreter = home / "bin" / "python"
    succeed(interpreter, "-m", "pip", "install", "-q", wheel, "mypy")
    (scratch / "program.py").write_text(TYPED, encoding="utf-8")
    said = run(interpreter, "-m", "mypy", "--strict", "program.py", cwd=scratch).stdout
    for wanted in SEEN:
        if wanted not in said:
            yield f"mypy does not say {wanted!r}:\n{said}"


if __name__ == "__main__":
    sys.exit(main())
