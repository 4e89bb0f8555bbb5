"""The command `syncws echo`: a server to try things against."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from ..config import ServiceConfig
from ..endpoint import place_of
from ..errors import WebSocketError
from ..server.caller import Caller
from ..server.listener import Listener
from ..service import Service
from .codes import ExitCode
from .text import cut, escape

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Echo", "echo"]

# Characters of a message that are shown.
_SHOWN = 100

_PAGE = """\
<!doctype html>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>syncws echo</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto }
  form { display: flex; gap: .5rem }
  input { flex: 1; font: inherit; padding: .3rem .5rem }
  pre { white-space: pre-wrap; overflow-wrap: anywhere }
</style>
<h1>syncws echo</h1>
<p>What you send here comes back over a WebSocket.</p>
<form><input autofocus autocomplete="off" placeholder="a message"><button>Send</button></form>
<pre></pre>
<script>
  const log = line => { document.querySelector("pre").textContent += line + "\\n" };
  const scheme = location.protocol === "https:" ? "wss://" : "ws://";
  const socket = new WebSocket(scheme + location.host + location.pathname);
  socket.onopen = () => log("* connected to " + socket.url);
  socket.onmessage = event => log("< " + event.data);
  socket.onclose = event => log("* closed: " + event.code + " " + event.reason);
  document.querySelector("form").onsubmit = event => {
    event.preventDefault();
    const input = document.querySelector("input");
    log("> " + input.value);
    socket.send(input.value);
    input.value = "";
  };
</script>
"""


class Echo(Service):
    """Sends back what comes, and says so.

    Args:
        say: Gets a line for each event. Called in workers, one call at a time.
        subprotocols: Those to agree to.
    """

    def __init__(self, say: Callable[[str], None], subprotocols: Iterable[str] = ()) -> None:
        self.config = ServiceConfig(subprotocols=tuple(subprotocols))
        self._say = say
        self._lock = threading.Lock()

    def on_open(self, caller: Caller) -> None:
        request = caller.request
        place = place_of(caller.remote_address)
        with_ = f", {caller.subprotocol}" if caller.subprotocol else ""
        self._tell(caller, f"connected to {escape(request.target)} from {place}{with_}")

    def on_text(self, caller: Caller, text: str) -> None:
        self._tell(caller, f"text, {len(text)} characters: {_excerpt(text)}")
        caller.send_text(text)

    def on_binary(self, caller: Caller, data: bytes) -> None:
        self._tell(caller, f"binary, {len(data)} bytes: {cut(data[:_SHOWN].hex(), _SHOWN)}")
        caller.send_binary(data)

    def on_close(self, caller: Caller, status_code: int, reason: str) -> None:
        why = f" {escape(reason, keep='')}" if reason else ""
        self._tell(caller, f"closed with {status_code}{why}")

    def on_error(self, caller: Caller, error: WebSocketError) -> None:
        self._tell(caller, f"failed: {escape(str(error), keep='')}")

    def _tell(self, caller: Caller, text: str) -> None:
        with self._lock:
            self._say(f"{time.strftime('%H:%M:%S')} {caller.id} {text}")


def _excerpt(text: str) -> str:
    return escape(cut(text, _SHOWN), keep="")


def page(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer plain HTTP with a page to try the echo from; a WSGI application."""
    body = _PAGE.encode()
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    start_response("200 OK", headers)
    return [body]


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9090,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="'' listens on all interfaces."
)
@click.option(
    "--subprotocol",
    "subprotocols",
    multiple=True,
    help="One to agree to; may be given several times.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not print what comes.")
def echo(port: int, host: str, subprotocols: tuple[str, ...], quiet: bool) -> None:
    """Run a server that sends back what it gets, on any path.

    A browser that opens its address gets a page to try it from.
    """
    say: Callable[[str], Any] = (lambda line: None) if quiet else click.echo
    try:
        service = Echo(say, subprotocols)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    listener = Listener(port, host, app=page)
    listener.attach("/", service)
    listener.attach("/{path:path}", service)
    try:
        listener.start()
    except OSError as exc:
        click.echo(f"Error: {exc.strerror or exc}", err=True)
        sys.exit(ExitCode.FAILED)
    shown = host if host and ":" not in host else "localhost"
    click.echo(f"Listening on ws://{shown}:{listener.port}/ until Ctrl-C. To try it:")
    click.echo(f"  syncws connect ws://{shown}:{listener.port}/")
    click.echo(f"  or open http://{shown}:{listener.port}/ in a browser")
    listener.serve_forever()
