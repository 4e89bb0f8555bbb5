"""What the supervisor and a process that it has started say to each other.

A socket pair, and a line of JSON for each message; listening sockets go along
with the line that is about them. If one end is gone the other reads the end.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

__all__ = ["Channel", "Message"]

Message = dict[str, Any]

# Descriptors in one message; the system's own limit is not much more.
_MOST = 250


class Channel:
    """One end. One thread sends and one receives.

    Attributes:
        sock: The socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""
        self._fds: list[int] = []

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return both ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours), cls(theirs)

    def send(self, name: str, *, sockets: Sequence[socket.socket] = (), **values: Any) -> None:
        """Send a message, with copies of sockets.

        Raises:
            OSError: The other end is gone.
        """
        line = json.dumps({"name": name, "sockets": len(sockets), **values}).encode() + b"\n"
        sent = 0
        if sockets:
            sent = socket.send_fds(self.sock, [line], [sock.fileno() for sock in sockets])
        self.sock.sendall(line[sent:])

    def receive(self) -> list[tuple[Message, list[socket.socket]]] | None:
        """Wait for messages; return them with their sockets, or None at the end."""
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, 65_536, _MOST)
        except ConnectionError:
            data, fds = b"", []
        for fd in fds:
            os.set_inheritable(fd, False)  # unlike other descriptors these are
        self._fds += fds
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        found = []
        for line in lines:
            message: Message = json.loads(line)
            count = message.pop("sockets")
            taken, self._fds = self._fds[:count], self._fds[count:]
            found.append((message, [socket.socket(fileno=fd) for fd in taken]))
        return found

    def close(self) -> None:
        """Close this end."""
        self.sock.close()
