"""Tells whoever has started this process how it is: systemd's protocol of sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import time

__all__ = ["Notifier"]


class Notifier:
    """The socket that NOTIFY_SOCKET names, if it does.

    The variable is taken out of `os.environ`: what this process starts has no
    say in it.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", None)

    def ready(self, status: str) -> None:
        """All processes listen."""
        self._send(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def reloading(self) -> None:
        """New processes are on their way."""
        now = int(time.monotonic() * 1_000_000)
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=Reloading")

    def stopping(self) -> None:
        """This is the end."""
        self._send("STOPPING=1\nSTATUS=Stopping")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = self._address
        if address[0] == "@":  # an abstract one
            address = "\0" + address[1:]
        # Nobody may be there any more, which is no reason to fail.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sock.sendall(text.encode())
