"""A Redis server that the test plays: it reads what comes, and answers what it likes."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from tests.support import HANG

__all__ = ["RedisPeer", "ScriptedRedis", "array", "bulk", "message"]


def bulk(data: bytes | str | int | None) -> bytes:
    """Return a string as it is on the wire."""
    if data is None:
        return b"$-1\r\n"
    raw = data if isinstance(data, bytes) else str(data).encode()
    return b"$%d\r\n%s\r\n" % (len(raw), raw)


def array(*items: bytes) -> bytes:
    """Return a list of what is on the wire already."""
    return b"*%d\r\n" % len(items) + b"".join(items)


def message(channel: str, data: bytes) -> bytes:
    """Return what a subscriber gets."""
    return array(bulk("message"), bulk(channel), bulk(data))


class RedisPeer:
    """A connection that has come, without what redis-py says first."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(HANG)
        self.sock = sock
        self._file = sock.makefile("rb")
        self._ahead: list[list[bytes]] = []
        #: The channel by which its process wakes it.
        self.woken_by = ""

    def _read(self) -> list[bytes]:
        line = self._file.readline()
        if not line:
            raise EOFError("the connection has ended")
        assert line[:1] == b"*", line
        parts = []
        for _ in range(int(line[1:])):
            size = int(self._file.readline()[1:])
            parts.append(self._file.read(size + 2)[:-2])
        return parts

    def next(self) -> list[bytes]:
        """Return the next command; those about the client itself are obeyed."""
        if self._ahead:
            return self._ahead.pop(0)
        while (command := self._read())[0] == b"CLIENT":
            self.answer(b"+OK\r\n")
        return command

    def peek_all(self) -> list[bytes]:
        """Return the next command, which stays the next one."""
        self._ahead.insert(0, self.next())
        return self._ahead[0]

    def peek(self) -> bytes:
        """Return its name."""
        return self.peek_all()[0]

    def expect(self, *start: str) -> list[bytes]:
        """Return the next command, which begins so."""
        command = self.next()
        assert [part.decode(errors="replace") for part in command[: len(start)]] == list(start)
        return command

    def answer(self, *data: bytes) -> None:
        """Send answers."""
        self.sock.sendall(b"".join(data))

    def pong(self) -> None:
        """Answer a sign of life."""
        self.expect("PING")
        self.answer(b"+PONG\r\n")

    def confirm(self) -> list[str]:
        """Obey a change of subscriptions; return it: each name with a sign before it.

        The channel by which the process wakes its reader is kept apart.
        """
        changes: list[str] = []
        while (command := self.next())[0] != b"PING":
            verb = command[0].decode().lower()
            assert verb in ("subscribe", "unsubscribe"), command
            sign = "-" if verb.startswith("un") else "+"
            for name in command[1:]:
                if b":wake:" in name:
                    self.woken_by = name.decode()
                else:
                    changes.append(sign + name.decode())
                self.answer(array(bulk(verb), bulk(name), b":1\r\n"))
        self.answer(array(bulk("pong"), bulk(command[1])))
        return changes

    def wake(self, reader: RedisPeer) -> None:
        """Pass on that the process wakes its reader, which is subscribed to that."""
        self.expect("PUBLISH", reader.woken_by, "")
        self.answer(b":1\r\n")
        reader.answer(message(reader.woken_by, b""))

    def close(self) -> None:
        """End it."""
        self._file.close()
        self.sock.close()


class ScriptedRedis:
    """A listening socket whose connections the test serves by hand."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(16)
        self.sock.settimeout(HANG)
        self.port: int = self.sock.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/"
        self._peers: list[RedisPeer] = []

    def accept(self) -> RedisPeer:
        """Accept one connection."""
        sock, _ = self.sock.accept()
        self._peers.append(RedisPeer(sock))
        return self._peers[-1]

    def writer(self) -> RedisPeer:
        """Accept a connection that writes, and answer its first sign of life."""
        peer = self.accept()
        peer.pong()
        return peer

    def both(self) -> tuple[RedisPeer, RedisPeer]:
        """Accept the connections that write and that read, in whatever order they come."""
        peers = [self.accept(), self.accept()]
        writers = [peer for peer in peers if peer.peek() == b"PING"]
        assert len(writers) == 1
        peers.remove(writers[0])
        writers[0].pong()
        return writers[0], peers[0]

    def __enter__(self) -> ScriptedRedis:
        return self

    def __exit__(self, *exc: Any) -> None:
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.close()
        self.sock.close()
