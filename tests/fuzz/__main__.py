"""The command `python -m tests.fuzz`.

Exit status: 0 if nothing was found, 1 if something was.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import mutate
from .corpus import CORPUS, distil, load, name_of, write_seeds
from .findings import Findings
from .targets import MAX_SIZE, TARGETS, TOKENS

_ROOT = Path(__file__).resolve().parents[2]

# For one input, and for the whole process.
_TIMEOUT = 20
_MEMORY = 1024


class Tally(NamedTuple):
    """One target's run."""

    target: str
    executions: int
    seconds: float
    corpus: int
    findings: list[Path]

    @property
    def rate(self) -> float:
        """Executions per second."""
        return self.executions / max(self.seconds, 0.001)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Feed hostile bytes to the handshakes, frames and bodies. Guided by coverage "
        "where atheris is installed, by chance elsewhere.",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="run only these inputs")
    parser.add_argument(
        "--target", action="append", choices=TARGETS, help="which; may be repeated (default: all)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="for each (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="repeat a run (default: another each time)")
    parser.add_argument("--plain", action="store_true", help="by chance, though there is atheris")
    parser.add_argument(
        "--findings", type=Path, default=_ROOT / ".fuzz" / "findings", help="where findings go"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="go on from, and keep, corpora")
    parser.add_argument(
        "--distil",
        type=int,
        metavar="N",
        help="only add up to N inputs for each target of --keep to tests/fuzz/corpus",
    )
    parser.add_argument(
        "--seeds", action="store_true", help="only write what the corpora begin with"
    )
    options = parser.parse_args(arguments)
    if options.distil is not None and options.keep is None:
        parser.error("--distil takes what --keep has kept")
    return options


def main() -> int:
    """Run the command and return its exit status."""
    options = parse()
    names = options.target or list(TARGETS)
    if options.files:
        return replay(names, options.files)
    if options.seeds or options.distil is not None:
        for name in names:
            write_seeds(name) if options.seeds else add(name, options.keep / name, options.distil)
        return 0
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    guided = not options.plain and importlib.util.find_spec("atheris") is not None
    run = run_guided if guided else run_plain
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.keep or Path(scratch)
        tallies = [
            run(name, kept / name, options.findings, options.seconds, seed) for name in names
        ]
    print(table(tallies, "atheris" if guided else "plain mutations"))
    return 1 if any(tally.findings for tally in tallies) else 0


def replay(names: Sequence[str], paths: Sequence[Path]) -> int:
    """Run inputs through targets; what one raises is shown whole."""
    for path in paths:
        for name in names:
            print(f"{path.name}: {name}: {TARGETS[name](path.read_bytes())}")
    return 0


def add(name: str, directory: Path, most: int) -> None:
    """Add what goes to new places to a corpus."""
    for data in distil(name, TARGETS[name], load(directory).values(), most):
        (CORPUS / name / name_of(data)).write_bytes(data)


def run_plain(name: str, kept: Path, findings: Path, seconds: float, seed: int) -> Tally:
    """Run one target by chance."""
    noted = Findings(name, findings)
    corpus = [*load(CORPUS / name).values(), *load(kept).values()]
    begin = time.monotonic()
    executions, inputs = mutate.fuzz(
        TARGETS[name], corpus, TOKENS[name], noted, seconds=seconds, seed=seed
    )
    taken = time.monotonic() - begin
    kept.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (kept / name_of(data)).write_bytes(data)
    return Tally(name, executions, taken, len(inputs), noted.paths)


def run_guided(name: str, kept: Path, findings: Path, seconds: float, seed: int) -> Tally:
    """Run one target under atheris, in a process of its own, which does not return."""
    kept.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.glob(f"{name}-*"))
    words = kept.parent / f"{name}.dict"
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in TOKENS[name]))
    command = [
        *(sys.executable, "-m", f"{__package__}.instrumented", name, str(findings)),
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={MAX_SIZE}",
        f"-seed={seed}",
        f"-dict={words}",
        f"-timeout={_TIMEOUT}",
        f"-rss_limit_mb={_MEMORY}",
        f"-artifact_prefix={findings}/{name}-",
        *("-print_final_stats=1", str(kept), str(CORPUS / name)),
    ]
    begin = time.monotonic()
    ran = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, errors="replace")
    taken = time.monotonic() - begin
    print(ran.stdout, end="", flush=True)
    found = re.search(r"^stat::number_of_executed_units:\s*([0-9]+)", ran.stderr, re.MULTILINE)
    new = sorted(set(findings.glob(f"{name}-*")) - before)
    if found is None or (ran.returncode and not new):
        raise SystemExit(f"{name}: atheris failed:\n{ran.stderr[-4000:]}")
    size = len(load(kept)) + len(load(CORPUS / name))
    return Tally(name, int(found[1]), taken, size, new)


def _escaped(token: bytes) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in token)


def table(tallies: Sequence[Tally], how: str) -> str:
    """Return what was done, a line for each target."""
    lines = [f"{how:18}{'executions':>12}{'per second':>12}{'corpus':>8}{'findings':>10}"]
    lines += [
        f"{tally.target:18}{tally.executions:12}{tally.rate:12.0f}{tally.corpus:8}"
        f"{len(tally.findings):10}"
        for tally in tallies
    ]
    lines += [f"  {path}" for tally in tallies for path in tally.findings]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
