"""The servers that are measured, each in a process of its own.

A server does one of these with a message:

- echo: sends it back.
- broadcast: text joins the sender to the group and is sent back; binary goes
  to everyone in the group.
- sleep: text is a number of seconds, sent back after so long; binary is sent
  back at once.
- push: text is a number of 32 B messages, which are then sent.
- sink: text is a number of messages; when they have come it is sent back.
"""

from __future__ import annotations

__all__ = ["BACKLOG", "MAX_SIZE", "announce"]

# Bytes of a message, at all servers.
MAX_SIZE = 4 << 20
BACKLOG = 1024


def announce(port: int) -> None:
    """Say that the server listens."""
    print(port, flush=True)
