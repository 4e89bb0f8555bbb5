"""The command `python -m tests.conformance`.

Exit status: 0 if every case passed, 1 if not, 3 if there is no Python 2.7 to
run the suite with.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .environment import NoPython27, ensure
from .presets import PRESETS
from .report import table
from .runner import CLIENT_COMMAND, ROOT, SERVER_COMMAND, run_client, run_server


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Run Autobahn's WebSocket testsuite against syncws.",
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="quick",
        help="core: no limits, no compression; light: core and limits; quick: light and the "
        "cheaper half of compression; limits, pmd: only those; full (default: %(default)s)",
    )
    parser.add_argument("--role", choices=("server", "client", "both"), default="both")
    parser.add_argument(
        "--venv",
        type=Path,
        default=os.environ.get("SYNCWS_WSTEST_VENV") or ROOT / ".conformance" / "venv",
        help="the suite's Python 2.7 environment, made if missing "
        "(default: $SYNCWS_WSTEST_VENV or .conformance/venv)",
    )
    parser.add_argument(
        "--reports",
        type=Path,
        default=ROOT / ".conformance" / "reports",
        help="where reports go (default: .conformance/reports)",
    )
    parser.add_argument("--setup", action="store_true", help="only make the suite's environment")
    parser.add_argument(
        "--server-command",
        type=shlex.split,
        default=SERVER_COMMAND,
        metavar="COMMAND",
        help="test another echo server; it prints its port when it is ready",
    )
    parser.add_argument(
        "--client-command",
        type=shlex.split,
        default=CLIENT_COMMAND,
        metavar="COMMAND",
        help="test another echo client; it is given the suite's URL and the agent's name",
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Run the command and return its exit status."""
    options = parse()
    venv = options.venv.absolute()
    try:
        ensure(venv)
    except NoPython27 as error:
        print(error, file=sys.stderr)
        return 3
    except subprocess.CalledProcessError as error:
        print(f"the suite's environment could not be made: {error}", file=sys.stderr)
        return 1
    if options.setup:
        return 0

    preset = PRESETS[options.preset]
    roles = ("server", "client") if options.role == "both" else (options.role,)
    reports = {role: options.reports.absolute() / f"{options.preset}-{role}" for role in roles}
    runs = {
        "server": (run_server, options.server_command),
        "client": (run_client, options.client_command),
    }
    # Each role has processes and a directory of its own, and most of its time
    # passes in the suite, which uses one core.
    with ThreadPoolExecutor(len(roles)) as pool:
        futures = {}
        for role in roles:
            run, command = runs[role]
            futures[role] = pool.submit(run, preset, venv, reports[role], command)
        verdicts = {role: future.result() for role, future in futures.items()}

    print(table(verdicts))
    for role in roles:
        print(f"report of the {role}: {reports[role] / 'index.html'}")
    return 0 if all(verdict.passed for verdict in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
