"""How messages are shown."""

from __future__ import annotations

import base64
import dataclasses
import io
import time
from collections.abc import Callable

from ..text import escape, indent_json

__all__ = ["BINARY_AS", "Renderer"]

#: How binary messages may be shown.
BINARY_AS = ("hex", "base64", "raw", "size")

_RESET = "\x1b[0m"
_COLOURS = {"in": "\x1b[32m", "out": "\x1b[36m", "note": "\x1b[2m", "error": "\x1b[31m"}


def _now() -> str:
    return time.strftime("%H:%M:%S")


@dataclasses.dataclass(frozen=True)
class Renderer:
    """Turns messages into what is written.

    Args:
        colour: Use colours.
        escaped: Escape what a terminal would obey, for it is one.
        pretty: Show JSON objects and arrays on several lines.
        timestamps: Begin each with the time.
        binary_as: One of `BINARY_AS`.
        now: Gives the time of day.
    """

    colour: bool = False
    escaped: bool = False
    pretty: bool = False
    timestamps: bool = False
    binary_as: str = "hex"
    now: Callable[[], str] = _now

    def text(self, text: str) -> str:
        """Return what a text message is shown as."""
        shown = indent_json(text) if self.pretty else None
        found = shown is not None
        shown = text if shown is None else shown
        if self.escaped:
            shown = escape(shown, keep="\t\n")
        if found and self.colour:
            shown = _highlight(shown)
        return self.stamp() + shown

    def binary(self, data: bytes) -> bytes:
        """Return what a binary message is shown as, which has its line's end if it has one."""
        if self.binary_as == "raw":
            return data
        if self.binary_as == "base64":
            shown = base64.b64encode(data).decode()
        elif self.binary_as == "size":
            shown = f"{len(data)} bytes"
        else:
            shown = data.hex()
        return f"{self.stamp()}{shown}\n".encode()

    def stamp(self) -> str:
        """Return what comes before everything: the time, or nothing."""
        return f"{self.now()} " if self.timestamps else ""

    def line(self, kind: str, mark: str, shown: str) -> str:
        """Return a line of the console, whose further lines are indented.

        Otherwise a peer's text could look as if the console had said it.

        Args:
            kind: "in", "out", "note" or "error".
            mark: What it begins with.
            shown: What is shown.
        """
        shown = shown.replace("\n", "\n" + " " * (len(mark) + 1))
        if not self.colour:
            return f"{mark} {shown}"
        return f"{_COLOURS[kind]}{mark}{_RESET} {shown}"


def _highlight(shown: str) -> str:
    try:
        from rich.console import Console
        from rich.highlighter import JSONHighlighter
    except ImportError:  # as it is without colours
        return shown

    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(JSONHighlighter()(shown), end="", soft_wrap=True)
    return captured.get()
