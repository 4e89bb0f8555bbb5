"""What the commands exit with, for scripts to go by."""

from __future__ import annotations

import enum

__all__ = ["ExitCode"]


class ExitCode(enum.IntEnum):
    """The same for every command."""

    OK = 0
    FAILED = 1  # it began well: the peer closed with an error, or an answer did not come
    USAGE = 2  # an option or argument is wrong; nothing was sent
    UNREACHABLE = 3  # no connection could be made
    REFUSED = 4  # the server answered the handshake with another status than 101
    TIMEOUT = 5  # connecting, or an answer, took too long
    INTERRUPTED = 130  # Ctrl-C
