"""What the command `syncws` can do: one module for each."""

from __future__ import annotations

import sys

import click

from .bench.command import bench
from .completion import completion
from .connect.command import connect
from .echo import echo
from .serve import serve
from .top import top

__all__ = ["commands"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sys.modules["syncws"].__version__)
def commands() -> None:
    """WebSockets for threaded Python."""


for _command in (connect, echo, serve, bench, top, completion):
    commands.add_command(_command)
