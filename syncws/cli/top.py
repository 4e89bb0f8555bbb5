"""The command `syncws top`: a listener's connections, live."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..endpoint import place_of
from .codes import ExitCode
from .text import cut, escape

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["fetch", "rows", "summary", "top"]

_PATH = 30

Snapshot = Mapping[str, Any]


def fetch(url: str, timeout: float) -> Snapshot:
    """Return what a `StatsApp` tells.

    Raises:
        OSError: It cannot be reached.
        ValueError: There is something else.
    """
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        found = json.load(answer)
    if not (isinstance(found, dict) and {"listener", "engine", "connections"} <= found.keys()):
        raise ValueError("that is no StatsApp of syncws.integrations.stats")
    return found


def summary(before: Snapshot | None, now: Snapshot, seconds: float) -> str:
    """Return a line with what all connections do."""
    listener, engine = now["listener"], now["engine"]
    old = listener if before is None else before["listener"]
    came = (listener["messages_received"] - old["messages_received"]) / seconds
    went = (listener["messages_sent"] - old["messages_sent"]) / seconds
    return (
        f"{listener['open']:,} open, {listener['accepted']:,} ever, {listener['failed']:,} failed; "
        f"{came:,.0f} messages/s in, {went:,.0f}/s out, {listener['buffered_bytes']:,} bytes "
        f"buffered; {engine['threads']} threads, {engine['blocked']} blocked"
    )


def rows(before: Snapshot | None, now: Snapshot, seconds: float, most: int) -> list[list[str]]:
    """Return what is shown of each connection, those with the most messages a second first."""
    old = {one["id"]: one["stats"] for one in (before or now)["connections"]}
    found = []
    for one in now["connections"]:
        stats = one["stats"]
        last = old.get(one["id"], dict.fromkeys(stats, 0))
        came = (stats["messages_received"] - last["messages_received"]) / seconds
        went = (stats["messages_sent"] - last["messages_sent"]) / seconds
        address = one["remote_address"]
        place = place_of(tuple(address) if isinstance(address, list) else address)
        found.append((came + went, one, place, came, went))
    found.sort(key=lambda entry: -entry[0])
    return [
        [
            one["id"],
            cut(escape(one["path"], keep=""), _PATH),
            place,
            f"{one['stats']['duration']:,.0f}",
            f"{came:,.0f}",
            f"{went:,.0f}",
            f"{one['stats']['messages_received']:,}",
            f"{one['stats']['messages_sent']:,}",
            f"{one['buffered_bytes']:,}",
        ]
        for _, one, place, came, went in found[:most]
    ]


_HEADS = ("id", "path", "from", "seconds", "in/s", "out/s", "in", "out", "buffered")


def _table(title: str, cells: list[list[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, head in enumerate(_HEADS):
        table.add_column(head, justify="left" if number < 3 else "right", no_wrap=True)
    for row in cells:
        table.add_row(*map(Text, row))
    return table


@click.command()
@click.argument("url")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True,
    metavar="SECONDS",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Print it once, after one interval, and exit.")
def top(url: str, interval: float, once: bool) -> None:
    """Show a listener's connections, those that do the most first, until Ctrl-C.

    URL is where a syncws.integrations.stats.StatsApp of the listener answers,
    such as http://localhost:9091/.
    """
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        raise click.ClickException("this needs rich: pip install rich") from None
    if not url.lower().startswith(("http://", "https://")):
        raise click.UsageError(f"{url!r} is no http:// URL: StatsApp answers HTTP")
    console = Console()
    never = threading.Event()
    before: Snapshot | None = None
    try:
        with contextlib.ExitStack() as stack:
            live = None
            if not once:
                live = stack.enter_context(Live(console=console, screen=console.is_terminal))
            while True:
                now = fetch(url, 10.0)
                most = max(1, console.height - 3) if console.is_terminal else 1000
                table = _table(summary(before, now, interval), rows(before, now, interval, most))
                if live is not None:
                    live.update(table, refresh=True)
                elif before is not None:
                    console.print(table)
                    return
                before = now
                never.wait(interval)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except (OSError, ValueError) as exc:
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        click.echo(f"Error: {url} does not tell: {escape(str(reason), keep='')}", err=True)
        sys.exit(ExitCode.UNREACHABLE)
