"""The command `syncws serve`, and its options."""

from __future__ import annotations

import logging
import os
import sys

import click

from ..config import TLSConfig
from .bind import Bind, parse_bind

__all__ = ["serve", "usable_cores"]

_FILE = click.Path(exists=True, dir_okay=False)
_LEVELS = ("debug", "info", "warning", "error")


def _processes(ctx: click.Context, param: click.Parameter, value: str) -> int:
    if value == "auto":
        return usable_cores()
    if value.isascii() and value.isdigit() and int(value) > 0:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a number of at least 1 nor 'auto'")


def _binds(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[Bind]:
    try:
        return [parse_bind(text) for text in value]
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@click.command()
@click.argument("target", metavar="MODULE:LISTENER")
@click.option(
    "--processes",
    callback=_processes,
    default="1",
    metavar="N",
    show_default=True,
    help="How many; 'auto': one for each core.",
)
@click.option(
    "--bind",
    "binds",
    callback=_binds,
    multiple=True,
    metavar="ADDRESS",
    help="HOST:PORT, :PORT for all interfaces, unix:PATH, fd://N, systemd or systemd:NAME, in "
    "place of the listener's own address; may be given several times.",
)
@click.option(
    "--graceful-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long a process that ends may take for its connections and callbacks.  "
    "[default: 30; with --reload 1]",
)
@click.option(
    "--reload",
    "reload_",
    is_flag=True,
    help="Load the code anew when a Python file in or below the working directory changes.",
)
@click.option("--tls-cert", type=_FILE, help="Speak wss:// with this certificate, in PEM.")
@click.option("--tls-key", type=_FILE, help="Its key, unless it is in the same file.")
@click.option("--pid-file", type=click.Path(dir_okay=False), help="Where to write the process id.")
@click.option(
    "--ready-fd", type=click.IntRange(min=1), help="Gets a line once all processes listen."
)
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    help="Of the log on stderr, unless the module sets logging up itself.",
)
def serve(
    target: str,
    processes: int,
    binds: list[Bind],
    graceful_timeout: float | None,
    reload_: bool,
    tls_cert: str | None,
    tls_key: str | None,
    pid_file: str | None,
    ready_fd: int | None,
    log_level: str,
) -> None:
    """Serve a listener of a module, in one process or several.

    MODULE:LISTENER names a syncws.Listener, or a function that returns one, as
    chat:listener or shop.sockets:make_listener. The listener must not be
    started: this command does that, in each process.

    SIGHUP loads the code anew, SIGTERM and Ctrl-C end it, at once the second time.
    """
    if not hasattr(os, "fork"):
        raise click.ClickException("syncws serve needs a system that can fork")
    module, colon, attribute = target.partition(":")
    if not (colon and module and attribute):
        raise click.UsageError(f"{target!r} is not MODULE:LISTENER, such as chat:listener")
    if tls_key and not tls_cert:
        raise click.UsageError("--tls-key needs --tls-cert")
    if graceful_timeout is None:
        graceful_timeout = 1.0 if reload_ else 30.0
    from .serving import Options, run  # not where there is no fork

    sys.exit(
        run(
            Options(
                module=module,
                attribute=attribute,
                processes=processes,
                binds=binds,
                graceful_timeout=graceful_timeout,
                pid_file=pid_file,
                ready_fd=ready_fd,
                log_level=getattr(logging, log_level.upper()),
                tls=TLSConfig(cert_file=tls_cert, key_file=tls_key) if tls_cert else None,
                reload=reload_,
            )
        )
    )
