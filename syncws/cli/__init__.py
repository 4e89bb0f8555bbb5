"""The command `syncws`, also as `python -m syncws`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command; its library may be missing, for only the command needs it."""
    try:
        import click  # noqa: F401
    except ImportError:
        sys.stderr.write("The command needs click: pip install click\n")
        sys.exit(2)
    from .commands import commands

    commands(prog_name="syncws")
