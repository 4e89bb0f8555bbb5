"""What is typed at the console: a message, or an order that begins with a slash."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["HELP", "ORDERS", "Order", "parse"]

#: The orders, and what each does.
ORDERS = {
    "/ping": "[TEXT]  send a ping",
    "/pong": "[TEXT]  send a pong that nobody asked for",
    "/binary": "HEX  send a binary message, such as /binary 00 ff 0a",
    "/file": "PATH  send a file as a binary message",
    "/text": "TEXT  send a text that begins with a slash, or an empty one",
    "/close": "[CODE [REASON]]  close the connection",
    "/help": "show this",
    "/quit": "close the connection and leave; so does Ctrl-D",
}

HELP = "\n".join(f"{name} {what}" for name, what in ORDERS.items())


class Order(NamedTuple):
    """What is to be done.

    Attributes:
        kind: "text", "binary", "ping", "pong", "close", "help", "quit" or "nothing".
        text: A message, or the reason of a close.
        data: A binary message, or what a ping or pong has.
        code: The status code of a close.
    """

    kind: str
    text: str = ""
    data: bytes = b""
    code: int = 1000


def parse(line: str) -> Order:
    """Return what a line asks for.

    Raises:
        ValueError: There is no such order, or it cannot be done so.
        OSError: A file cannot be read.
    """
    if not line.startswith("/"):
        return Order("text", line) if line else Order("nothing")
    name, _, rest = line.partition(" ")
    if name == "/text":
        return Order("text", rest)
    rest = rest.strip()
    if name in ("/ping", "/pong"):
        return Order(name[1:], data=rest.encode())
    if name == "/binary":
        return Order("binary", data=_from_hex(rest))
    if name == "/file":
        if not rest:
            raise ValueError("/file needs a path")
        return Order("binary", data=Path(rest).expanduser().read_bytes())
    if name == "/close":
        return _close(rest)
    if name in ("/help", "/quit"):
        return Order(name[1:])
    raise ValueError(f"there is no {name}: see /help; /text sends a text that begins with a slash")


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{text!r} is not hex, such as 00 ff 0a") from None


def _close(rest: str) -> Order:
    code, _, reason = rest.partition(" ")
    if not code:
        return Order("close")
    if not (code.isascii() and code.isdigit()):
        raise ValueError(f"{code!r} is no status code, such as 1000 or 4001")
    return Order("close", reason.strip(), code=int(code))
