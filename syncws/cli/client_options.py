"""What the commands that connect have in common."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from typing import TypeVar

import click

from ..errors import ConnectError, ConnectTimeout, HandshakeRejected
from .codes import ExitCode
from .text import escape

__all__ = ["FILE", "make_context", "parse_headers", "split", "try_to_connect"]

FILE = click.Path(exists=True, dir_okay=False)

_Made = TypeVar("_Made")


def parse_headers(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Return what --header has given."""
    return [split(text, ":", "'X-Name: value'") for text in value]


def split(text: str, mark: str, example: str) -> tuple[str, str]:
    """Return a name and a value."""
    name, found, value = text.partition(mark)
    if not (name.strip() and found):
        raise click.BadParameter(f"{text!r} is not such as {example}")
    return name.strip(), value.strip()


def make_context(
    url: str, ca: str | None, cert: str | None, key: str | None, insecure: bool
) -> ssl.SSLContext | None:
    """Return what TLS goes by, or None for the usual."""
    if not (ca or cert or key or insecure):
        return None
    if key and not cert:
        raise click.UsageError("--key needs --cert")
    if not url.lower().startswith("wss:"):
        raise click.UsageError(f"--ca, --cert, --key and --insecure are for wss://, not {url!r}")
    try:
        context = ssl.create_default_context(cafile=ca)
        if insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if cert:
            context.load_cert_chain(cert, key)
    except ssl.SSLError as exc:
        raise click.UsageError(f"--ca, --cert or --key cannot be used: {exc}") from None
    return context


def try_to_connect(make: Callable[[], _Made]) -> _Made:
    """Connect, or say why not and exit."""
    try:
        return make()
    except (TypeError, ValueError) as exc:
        raise click.UsageError(str(exc)) from None
    except ImportError as exc:
        raise click.ClickException(str(exc)) from None
    except ConnectError as exc:
        click.echo(f"Error: {escape(str(exc), keep='')}", err=True)
        if isinstance(exc, HandshakeRejected):
            sys.exit(ExitCode.REFUSED)
        timed_out = isinstance(exc, ConnectTimeout)
        sys.exit(ExitCode.TIMEOUT if timed_out else ExitCode.UNREACHABLE)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
