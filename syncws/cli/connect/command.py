"""The options of `syncws connect`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from ...client.client import Client
from ...service import Service
from ..client_options import FILE, make_context, parse_headers, split, try_to_connect
from ..codes import ExitCode
from ..text import escape
from .render import BINARY_AS, Renderer
from .script import Plan, Script

__all__ = ["connect"]


def _cookies(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    return dict(split(text, "=", "name=value") for text in value)


def _user(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, str] | None:
    if value is None:
        return None
    name, _, password = value.partition(":")
    return name, password


def _show_handshake(client: Client) -> None:
    click.echo(f"* connected to {client.url}", err=True)
    for name, value in client.response.headers.items():
        click.echo(f"* {escape(name, keep='')}: {escape(value, keep='')}", err=True)


@click.command()
@click.argument("url")
@click.option(
    "-H", "--header", "headers", multiple=True, callback=parse_headers,
    help="'Name: value', of the handshake; may be given several times.",
)  # fmt: skip
@click.option("--subprotocol", "subprotocols", multiple=True, help="One to offer; several times.")
@click.option("--origin", help="The Origin that a browser would send.")
@click.option("--user", callback=_user, metavar="NAME:PASSWORD", help="For Basic authentication.")
@click.option("--cookie", "cookies", multiple=True, callback=_cookies, metavar="NAME=VALUE")
@click.option("--ca", type=FILE, help="A file with the authorities to trust, in PEM.")
@click.option("--cert", type=FILE, help="A client certificate, in PEM.")
@click.option("--key", type=FILE, help="Its key.")
@click.option("--insecure", is_flag=True, help="Do not verify the server's certificate.")
@click.option("--proxy", help="A URL, or 'none'; by default that of the environment.")
@click.option("--no-compression", is_flag=True, help="Do not offer permessage-deflate.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="For connecting, and for each message that --one or --expect waits for.",
)
@click.option("--send", "texts", multiple=True, metavar="TEXT", help="Send this, and no stdin.")
@click.option("--one", is_flag=True, help="Send all of stdin as one message; wait for one.")
@click.option("--expect", type=click.IntRange(min=0), metavar="N", help="End after N messages.")
@click.option("--listen", is_flag=True, help="Send nothing; print what comes until the end.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Without --one and --expect: end once all is sent and nothing has come for so long.",
)
@click.option(
    "--binary", is_flag=True, help="Send binary: lines in hex, or with --one stdin as it is."
)
@click.option(
    "--binary-as", type=click.Choice(BINARY_AS), default="hex", show_default=True,
    help="How to print binary messages.",
)  # fmt: skip
@click.option("--json/--no-json", "pretty", default=None, help="JSON on several lines.")
@click.option("--timestamps", is_flag=True, help="Begin each message with the time.")
@click.option("--no-history", is_flag=True, help="Keep no file of the lines typed.")
@click.option("-v", "--verbose", is_flag=True, help="Show the server's handshake headers.")
def connect(
    url: str,
    headers: list[tuple[str, str]],
    subprotocols: tuple[str, ...],
    origin: str | None,
    user: tuple[str, str] | None,
    cookies: dict[str, str],
    ca: str | None,
    cert: str | None,
    key: str | None,
    insecure: bool,
    proxy: str | None,
    no_compression: bool,
    timeout: float,
    texts: tuple[str, ...],
    one: bool,
    expect: int | None,
    listen: bool,
    wait: float,
    binary: bool,
    binary_as: str,
    pretty: bool | None,
    timestamps: bool,
    no_history: bool,
    verbose: bool,
) -> None:
    """Connect to a server, and send and show messages.

    In a terminal you type them, and /help lists what else can be done. In a
    pipe each line of stdin is a message; each that comes is a line of stdout,
    and nothing else is.

    \b
    syncws connect ws://localhost:9090/
    echo hi | syncws connect ws://localhost:9090/ --one

    \b
    Exit codes: 0 all went well; 1 the connection failed, or the server closed
    it with an error or too early; 2 wrong usage; 3 no connection; 4 the
    handshake was refused; 5 a timeout; 130 Ctrl-C.
    """
    if listen and (texts or one or binary):
        raise click.UsageError("--listen sends nothing: leave --send, --one and --binary away")
    if one and expect is not None:
        raise click.UsageError("--one waits for one message: leave --expect away")
    terminal = sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR")
    interactive = terminal and sys.stdin.isatty()
    interactive = interactive and not (texts or one or listen or expect is not None)
    render = Renderer(
        colour=colour,
        escaped=terminal,
        pretty=terminal if pretty is None else pretty,
        timestamps=timestamps,
        binary_as=binary_as,
    )
    if origin is not None:
        headers = [*headers, ("Origin", origin)]
    context = make_context(url, ca, cert, key, insecure)

    def make(service: Service) -> Client:
        return Client(
            url,
            service=service,
            headers=headers,
            subprotocols=subprotocols,
            auth=user,
            cookies=cookies or None,
            ssl=context,
            proxy={None: True, "none": False}.get(proxy, proxy),
            compression=not no_compression,
            handshake_timeout=timeout,
            ready_on_connect=False,
        )

    if interactive:
        code = _converse(make, render, history=not no_history, verbose=verbose)
    else:
        plan = Plan(
            texts=texts,
            whole=one,
            binary=binary,
            expect=1 if one else expect,
            wait=None if listen else wait,
            timeout=timeout,
        )
        code = _run(make, plan, render, listen=listen, verbose=verbose)
    sys.exit(code)


def _converse(
    make: Callable[[Service], Client], render: Renderer, *, history: bool, verbose: bool
) -> ExitCode:
    try:
        from .console import Console, history_of
    except ImportError as exc:
        raise click.ClickException(
            f"a terminal needs {exc.name}: pip install prompt_toolkit rich"
        ) from None
    console = Console(render, history_of(history))
    client = try_to_connect(lambda: make(console))
    if verbose:
        _show_handshake(client)
    return console.run(client)


def _run(
    make: Callable[[Service], Client], plan: Plan, render: Renderer, *, listen: bool, verbose: bool
) -> ExitCode:
    script = Script(plan, sys.stdout.buffer, lambda text: click.echo(text, err=True), render)
    client = try_to_connect(lambda: make(script))
    if verbose:
        _show_handshake(client)
    code = script.run(client, None if listen else 0)
    try:
        sys.stdout.flush()
    except OSError:
        # What is left is for nobody; the interpreter would complain of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
