"""Wakes a thread that waits in a selector."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["Wakeup"]


class Wakeup:
    """A pair of sockets: a byte into one makes the other readable.

    It may be woken more often than needed; the bytes are drained together.
    """

    __slots__ = ("_reader", "_writer")

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._reader.fileno()

    def wake(self) -> None:
        """Make the pair readable. Any thread; does not block."""
        # A full pair is awake already; a closed one has nobody left to wake.
        # No name of this module is used: at the end of the interpreter, when a
        # client that was left open is thrown away, the module may be empty.
        try:
            self._writer.send(b"\0")
        except OSError:
            pass

    def on_ready(self, mask: int) -> None:
        """Take back what wake() put in."""
        with contextlib.suppress(BlockingIOError):
            while len(self._reader.recv(4096)) == 4096:
                pass

    def on_loop_error(self, error: BaseException) -> None:
        """Nothing depends on what is drained."""

    def close(self) -> None:
        """Release the descriptors."""
        self._reader.close()
        self._writer.close()
