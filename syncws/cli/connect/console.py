"""`syncws connect` in a terminal: a line to type in, with what comes above it.

Threads: the main one reads the line and sends; a worker prints what comes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout

from ...client.client import Client
from ...errors import ConnectionClosed, WebSocketError
from ...service import Service
from ..codes import ExitCode
from ..text import escape
from .orders import HELP, ORDERS, Order, parse
from .render import Renderer

__all__ = ["Console", "history_of"]

# Seconds that the server has to answer our close.
_CLOSE = 5.0


def history_of(keep: bool) -> History:
    """Return the lines typed before: in a file of the user's, if one can be written."""
    if keep:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        place = Path(base) / "syncws"
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = place / "history"
            file.touch(mode=0o600)
            return FileHistory(file)
    return InMemoryHistory()


class Console(Service):
    """Reads lines and does what they say.

    Args:
        render: How messages are shown.
        history: The lines typed before.
        say: Shows a line.
    """

    def __init__(
        self, render: Renderer, history: History, say: Callable[[str], None] = print
    ) -> None:
        self._render = render
        self._say = say
        self._session: PromptSession[str] = PromptSession(
            history=history,
            completer=WordCompleter(list(ORDERS), sentence=True),
            complete_while_typing=False,
        )
        self._over = threading.Event()
        self._code = ExitCode.OK
        self._closed_here = False

    # -- The client's worker ---------------------------------------------

    def on_text(self, client: Client, text: str) -> None:
        self._show("in", "<", self._render.text(text))

    def on_binary(self, client: Client, data: bytes) -> None:
        shown = self._render.binary(data).decode(errors="replace").removesuffix("\n")
        self._show("in", "<", escape(f"({len(data)} bytes) {shown}"))

    def on_pong(self, client: Client, data: bytes) -> None:
        self._note(f"pong {escape(data.decode(errors='replace'), keep='')}".rstrip())

    def on_error(self, client: Client, error: WebSocketError) -> None:
        self._code = ExitCode.FAILED
        self._fail(str(error))

    def on_close(self, client: Client, status_code: int, reason: str) -> None:
        why = f": {escape(reason, keep='')}" if reason else ""
        self._note(f"closed with {status_code}{why}")
        if not (self._closed_here or status_code in (1000, 1001, 1005)):
            self._code = ExitCode.FAILED
        self._over.set()
        self._leave()

    # -- Any thread ------------------------------------------------------

    def _show(self, kind: str, mark: str, shown: str) -> None:
        self._say(self._render.line(kind, mark, shown))

    def _note(self, text: str) -> None:
        self._show("note", "*", self._render.stamp() + text)

    def _fail(self, text: str) -> None:
        self._show("error", "!", escape(text))

    def _leave(self) -> None:
        """End the line that is being typed, if there is one."""
        app = self._session.app
        loop = app.loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: the line is complete
                loop.call_soon_threadsafe(self._leave_here)

    def _leave_here(self) -> None:
        app = self._session.app
        if app.is_running and not app.is_done:
            app.exit(exception=EOFError)

    def _begin_line(self) -> None:
        if self._over.is_set():
            self._leave_here()

    # -- The main thread -------------------------------------------------

    def run(self, client: Client) -> ExitCode:
        """Read lines until the connection ends or the user leaves. Closes the client."""
        subprotocol = f", subprotocol {client.subprotocol}" if client.subprotocol else ""
        with patch_stdout(raw=True):
            self._note(f"connected to {client.url}{subprotocol}; /help shows what can be done")
            client.ready()
            try:
                while not self._over.is_set():
                    line = self._session.prompt("> ", pre_run=self._begin_line)
                    self._obey(client, line)
            except EOFError:
                pass
            except KeyboardInterrupt:
                self._code = ExitCode.INTERRUPTED
            client.close(timeout=_CLOSE)
            client.wait_closed(_CLOSE)
        return self._code

    def _obey(self, client: Client, line: str) -> None:
        try:
            self._do(client, parse(line))
        except ConnectionClosed:
            pass  # on_close or on_error tells
        except (OSError, ValueError, WebSocketError) as exc:
            self._fail(str(exc))

    def _do(self, client: Client, order: Order) -> None:
        if order.kind == "text":
            client.send_text(order.text)
        elif order.kind == "binary":
            client.send_binary(order.data)
        elif order.kind == "ping":
            client.ping(order.data)
        elif order.kind == "pong":
            client.pong(order.data)
        elif order.kind == "close":
            self._closed_here = True
            client.close(order.code, order.text, timeout=_CLOSE)
        elif order.kind == "help":
            self._note(HELP)
        elif order.kind == "quit":
            raise EOFError
