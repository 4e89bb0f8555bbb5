"""The command `python -m tests.soak`.

It opens connections over loopback, keeps them busy, ends many of them in every
way there is, and checks at both ends that every message has arrived, once, in
order and as it was sent, or that its sender was told. Memory, threads and
descriptors must not grow, and all must be given back.

Exit status: 0 if all is well, 1 if not, 2 if it cannot be run.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
from pathlib import Path

from .report import table
from .run import soak
from .settings import SABOTAGE, Settings


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Soak syncws: thousands of connections, churn, hostile peers; nothing lost.",
    )
    parser.add_argument("--short", action="store_true", help="1,000 connections for 60 s")
    parser.add_argument("--connections", type=int, metavar="N", help="default: 10,000")
    parser.add_argument("--seconds", type=float, metavar="S", help="default: 600")
    parser.add_argument("--rate", type=float, metavar="R", help="messages a second, in all")
    parser.add_argument("--churn", type=float, metavar="R", help="connections that end, a second")
    parser.add_argument("--seed", type=int, default=1, help="of everything random")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--sabotage",
        choices=SABOTAGE,
        default="",
        help="have the server do this wrong, to see that it is noticed",
    )
    options = parser.parse_args(arguments)
    if options.connections is None:
        options.connections = 1000 if options.short else 10_000
    if options.seconds is None:
        options.seconds = 60.0 if options.short else 600.0
    if options.connections < 10 or options.seconds <= 0:
        parser.error("there must be 10 connections at least, and some time")
    return options


def refusal(settings: Settings, hard: int) -> str:
    """Return why this system cannot run it, or ""."""
    if hard != resource.RLIM_INFINITY and hard < settings.descriptors:
        return (
            f"{settings.connections} connections need {settings.descriptors} descriptors in one "
            f"process, and the hard limit is {hard}: raise it (ulimit -Hn), or ask for fewer"
        )
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    settings = Settings.of(
        options.connections,
        options.seconds,
        rate=options.rate,
        churn=options.churn,
        sabotage=options.sabotage,
        seed=options.seed,
    )
    if reason := refusal(settings, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        print(reason, file=sys.stderr)
        return 2
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, signal.default_int_handler)
    print(
        f"{settings.connections} connections for {settings.seconds:.0f} s, "
        f"{settings.rate:.0f} messages/s, {settings.churn:.0f} new connections/s",
        flush=True,
    )
    try:
        result = soak(settings, lambda text: print(text, flush=True))
    except KeyboardInterrupt:
        print("given up", file=sys.stderr)
        return 1
    print(table(result))
    if options.json is not None:
        options.json.write_text(json.dumps(result.figures | {"wrong": result.problems}, indent=1))
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
