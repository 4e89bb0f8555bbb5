"""The command `python -m tests.fuzz.instrumented TARGET DIRECTORY [libFuzzer's options]`.

Runs one target under atheris, which sees which lines an input reaches. What
goes wrong is noted, and the run goes on; libFuzzer itself only stops for an
input that takes too long or too much memory. `python -m tests.fuzz` starts it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

with atheris.instrument_imports(include=["syncws", "wsproto", "h11"]):
    from .findings import Findings
    from .targets import TARGETS


def main() -> None:
    """Run; libFuzzer ends the process."""
    name, directory, *options = sys.argv[1:]
    target = TARGETS[name]
    findings = Findings(name, Path(directory))
    atheris.Setup([sys.argv[0], *options], lambda data: findings.attempt(target, data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
