"""The options of `syncws bench`."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ..client_options import FILE, make_context, parse_headers, try_to_connect
from ..codes import ExitCode
from ..text import escape
from .load import Load, Plan, Result
from .report import as_json, as_text

__all__ = ["bench"]

_Tick = Callable[[str, float], None]


def _payload(text: str | None, file: str | None, size: int | None, binary: bool) -> str | bytes:
    if sum(given is not None for given in (text, file, size)) > 1:
        raise click.UsageError("give one of --message, --file and --size")
    if file is not None:
        data = Path(file).read_bytes()
    else:
        data = text.encode() if text is not None else b"x" * (32 if size is None else size)
    if binary:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise click.UsageError("--file has no UTF-8 text: add --binary") from None


@contextmanager
def _progress(load: Load, shown: bool) -> Iterator[_Tick]:
    """Show a bar on stderr, with the rate of the last second or so."""
    if not shown:
        yield lambda what, part: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        raise click.ClickException("a progress bar needs rich: pip install rich") from None
    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(None),
        TextColumn("{task.fields[rate]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1.0, rate="")
        last: list[int] = []

        def tick(what: str, part: float) -> None:
            last.append(load.answers())
            del last[:-11]
            lately = (last[-1] - last[0]) * 10 / max(1, len(last) - 1)
            shown = f"{lately:>9,.0f}/s" if what == "measuring" else ""
            progress.update(task, description=what, completed=part, rate=shown)

        yield tick


def _verdict(result: Result) -> ExitCode:
    if result.stopped:
        return ExitCode.INTERRUPTED
    if not result.made:
        return ExitCode.REFUSED if result.refused else ExitCode.UNREACHABLE
    if not result.latency.count:
        return ExitCode.TIMEOUT
    return ExitCode.FAILED if result.errors or result.unanswered else ExitCode.OK


@click.command()
@click.argument("url")
@click.option("-c", "--connections", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "-d", "--duration", type=click.FloatRange(min=0, min_open=True), default=10.0,
    show_default=True, metavar="SECONDS", help="How long to measure.",
)  # fmt: skip
@click.option("--messages", type=click.IntRange(1), metavar="N", help="End after N answers.")
@click.option(
    "--warmup", type=click.FloatRange(min=0), default=1.0, show_default=True, metavar="SECONDS",
    help="How long to send before that.",
)  # fmt: skip
@click.option(
    "--size", type=click.IntRange(0), metavar="BYTES", help="Of a message.  [default: 32]"
)
@click.option("--message", metavar="TEXT", help="What to send.")
@click.option("--file", type=FILE, help="What to send.")
@click.option("--binary", is_flag=True, help="Send it as binary messages.")
@click.option(
    "--depth", type=click.IntRange(1), default=1, show_default=True, metavar="N",
    help="Messages under way on each connection.",
)  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), metavar="N",
    help="Messages a second of all connections together, whether or not answers come.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True,
    metavar="SECONDS", help="For connecting, and for the last answers.",
)  # fmt: skip
@click.option("-H", "--header", "headers", multiple=True, callback=parse_headers,
              help="'Name: value', of the handshake; may be given several times.")  # fmt: skip
@click.option("--subprotocol", "subprotocols", multiple=True, help="One to offer; several times.")
@click.option("--ca", type=FILE, help="A file with the authorities to trust, in PEM.")
@click.option("--insecure", is_flag=True, help="Do not verify the server's certificate.")
@click.option("--no-compression", is_flag=True, help="Do not offer permessage-deflate.")
@click.option("--json", "as_object", is_flag=True, help="Print the result as JSON.")
@click.option("--no-progress", is_flag=True, help="Show no bar meanwhile.")
def bench(
    url: str,
    connections: int,
    duration: float,
    messages: int | None,
    warmup: float,
    size: int | None,
    message: str | None,
    file: str | None,
    binary: bool,
    depth: int,
    rate: float | None,
    timeout: float,
    headers: list[tuple[str, str]],
    subprotocols: tuple[str, ...],
    ca: str | None,
    insecure: bool,
    no_compression: bool,
    as_object: bool,
    no_progress: bool,
) -> None:
    """Put load on a server that answers each message with one, and measure it.

    Each connection sends the next message when the answer to the last has
    come. With --rate messages are sent when it is their time, and latency
    counts from then on, so that a server which stalls cannot hide it.

    \b
    syncws bench ws://localhost:9090/ --connections 100 --duration 10

    \b
    Exit codes: 0 all went well; 1 something failed meanwhile; 2 wrong usage;
    3 no connection; 4 all handshakes were refused; 5 no answer; 130 Ctrl-C.
    """
    if rate is not None and depth != 1:
        raise click.UsageError("--rate sends whether or not answers come: leave --depth away")
    plan = Plan(
        url=url,
        payload=_payload(message, file, size, binary),
        connections=connections,
        duration=duration,
        messages=messages,
        warmup=warmup,
        depth=depth,
        rate=rate,
        timeout=timeout,
    )
    load = Load(
        plan,
        headers=headers,
        subprotocols=subprotocols,
        ssl=make_context(url, ca, None, None, insecure),
        compression=not no_compression,
        handshake_timeout=timeout,
    )
    shown = not no_progress and sys.stderr.isatty()
    with _interruptible(load), _progress(load, shown) as tick:
        result = try_to_connect(lambda: load.run(tick))
    if as_object:
        click.echo(json.dumps(as_json(plan, result), indent=2))
    else:
        click.echo(escape(as_text(plan, result), keep="\n"))
    sys.exit(_verdict(result))


@contextmanager
def _interruptible(load: Load) -> Iterator[None]:
    """Have Ctrl-C end it with what was measured so far; the second time at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        load.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
