"""A network in memory: sockets that are none of the system's, and what waits for them.

Its sockets do what the engine, its TLS and the handshakes ask of sockets, and
nothing else. Bytes arrive at once, whole and in order; what one end has not
read yet is bounded, so that senders wait as they do on a real network.

Threads: any. One lock guards the whole network.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
from collections import deque
from typing import Any

from ..engine.poller import MOST_READY, READ, WRITE
from ..timing import Deadline

__all__ = ["MemoryPoller", "MemorySocket", "MemoryWakeup", "Network"]

# Bytes that one end may have sent and the other not read.
CAPACITY = 262_144

# Of what has no descriptor: far from those of the system, should one ever get there.
_FIRST_NUMBER = 1 << 30

_LOOPBACK = "127.0.0.1"


class Network:
    """Where those who listen and those who connect find each other.

    A port leads to who listens on it, under whatever name or address of a
    host: there is no other machine here. So does a path.

    Attributes:
        changed: Guards everything here; notified of whatever happens.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._listening: dict[int | str, MemoryListeningSocket] = {}
        self._ports = itertools.count(49_152)
        self._numbers = itertools.count(_FIRST_NUMBER)

    def listen(self, port: int, unix_path: str | None) -> Any:
        """Return a listening socket.

        Args:
            port: The port; 0 for one that is free.
            unix_path: The path to listen on, in place of a port.

        Raises:
            OSError: Somebody listens there.
        """
        with self.changed:
            where: int | str = unix_path if unix_path is not None else port or self._free_port()
            if where in self._listening:
                what = f"port {where}" if isinstance(where, int) else where
                code = errno.EADDRINUSE
                raise OSError(code, f"cannot listen on {what} in memory: {os.strerror(code)}")
            address = where if isinstance(where, str) else (_LOOPBACK, where)
            sock = MemoryListeningSocket(self, address)
            self._listening[where] = sock
            return sock

    def connect(self, port: int, unix_path: str | None) -> Any:
        """Return a socket that is connected.

        Raises:
            ConnectionRefusedError: Nobody listens there.
        """
        with self.changed:
            listening = self._listening.get(port if unix_path is None else unix_path)
            if listening is None:
                code = errno.ECONNREFUSED
                raise ConnectionRefusedError(code, os.strerror(code))
            here: Any = "" if unix_path is not None else (_LOOPBACK, self._free_port())
            ours = MemorySocket(self, here, listening.address)
            theirs = MemorySocket(self, listening.address, here)
            ours.peer, theirs.peer = theirs, ours
            listening.arrive(theirs)
            return ours

    def free(self, address: Any) -> None:
        """Nobody listens there any more. Requires the lock."""
        self._listening.pop(address if isinstance(address, str) else address[1], None)

    def number(self) -> int:
        """Return what no other socket has for a descriptor."""
        return next(self._numbers)

    def renew(self) -> None:
        """In a forked child: whoever held the lock is not here."""
        self.changed = threading.Condition()

    def _free_port(self) -> int:
        return next(port for port in self._ports if port not in self._listening)


class _Pollable:
    """What a poller can wait for."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.poller: MemoryPoller | None = None

    def readiness(self) -> int:
        """What is ready: READ, WRITE, both or 0. Requires the lock."""
        raise NotImplementedError

    def touched(self) -> None:
        """Something here may be ready now. Requires the lock."""
        if self.poller is not None:
            self.poller.suspect(self)
        self.network.changed.notify_all()


class MemoryWakeup(_Pollable):
    """Wakes whoever waits in a poller."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._woken = False

    def readiness(self) -> int:
        """READ once it was woken."""
        return READ if self._woken else 0

    def wake(self) -> None:
        """Make it readable. Any thread; does not block."""
        with self.network.changed:
            self._woken = True
            self.touched()

    def on_ready(self, mask: int) -> None:
        """Take back what `wake` did."""
        with self.network.changed:
            self._woken = False

    def on_loop_error(self, error: BaseException) -> None:
        """Nothing depends on it."""

    def close(self) -> None:
        """There is nothing to release."""


class MemoryPoller:
    """Waits for sockets of a network, as `engine.poller.Poller` says.

    Only those that were touched since they were last found not to be ready
    are looked at.

    Attributes:
        asleep: Whether the I/O thread waits here. Requires the lock.
        polls: How often it has come here.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._owners: dict[_Pollable, tuple[Any, int]] = {}
        self._suspects: dict[_Pollable, None] = {}
        self.asleep = False
        self.polls = 0

    def register(self, fileobj: Any, mask: int, owner: Any) -> None:
        """Wait for a socket to be ready for READ, WRITE or both."""
        with self._network.changed:
            if fileobj.poller is not None:
                raise FileExistsError(f"{fileobj!r} is registered already")
            fileobj.poller = self
            self._owners[fileobj] = owner, mask
            self.suspect(fileobj)

    def modify(self, fileobj: Any, mask: int, owner: Any) -> None:
        """Wait for something else from now on, or for another owner."""
        with self._network.changed:
            self._owners[fileobj] = owner, mask
            self.suspect(fileobj)

    def unregister(self, fileobj: Any) -> None:
        """Forget a socket, whether or not it is known."""
        with self._network.changed:
            if self._owners.pop(fileobj, None) is not None:
                fileobj.poller = None
            self._suspects.pop(fileobj, None)

    def suspect(self, fileobj: _Pollable) -> None:
        """Look at a socket at the next poll. Requires the lock."""
        self._suspects[fileobj] = None

    def poll(self, timeout: float | None) -> list[tuple[Any, int]]:
        """Wait for up to `timeout` seconds; return the owners of what is ready, and for what."""
        changed = self._network.changed
        deadline = Deadline(timeout)
        with changed:
            self.polls += 1
            while not (ready := self.ready()):
                remaining = deadline.remaining()
                if remaining == 0.0:
                    break
                self.asleep = True
                changed.wait(remaining)
            self.asleep = False
            return ready

    def ready(self) -> list[tuple[Any, int]]:
        """Return the owners of what is ready now, and for what. Requires the lock."""
        ready: list[tuple[Any, int]] = []
        for fileobj in list(self._suspects):
            owner, mask = self._owners[fileobj]
            found = fileobj.readiness() & mask
            if not found:
                del self._suspects[fileobj]
            elif len(ready) < MOST_READY:
                ready.append((owner, found))
        return ready

    def close(self) -> None:
        """Forget everything."""
        with self._network.changed:
            for fileobj in self._owners:
                fileobj.poller = None
            self._owners.clear()
            self._suspects.clear()


class _Socket(_Pollable):
    """What all sockets have."""

    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, network: Network, address: Any) -> None:
        super().__init__(network)
        self.address = address
        self.closed = False
        self._number = network.number()

    @property
    def family(self) -> int:
        """AF_INET, or AF_UNIX for a path."""
        return socket.AF_INET if isinstance(self.address, tuple) else socket.AF_UNIX

    def fileno(self) -> int:
        """A number that is no descriptor; -1 once it is closed."""
        return -1 if self.closed else self._number

    def getsockname(self) -> Any:
        """The address of this end."""
        return self.address

    def setblocking(self, blocking: bool) -> None:
        """Nothing but `wait_ready` ever waits."""

    def setsockopt(self, *args: Any) -> None:
        """There is nothing to set."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        raise NotImplementedError

    def wait_ready(self, writable: bool, timeout: float | None) -> bool:
        """Wait until the socket can be written to or, if not `writable`, read from.

        Returns:
            Whether that is so after at most `timeout` seconds.
        """
        wanted = WRITE if writable else READ
        changed = self.network.changed
        with changed:
            return changed.wait_for(lambda: self.closed or self.readiness() & wanted, timeout) != 0

    def _check_open(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class MemoryListeningSocket(_Socket):
    """Has those who connect wait until they are accepted."""

    def __init__(self, network: Network, address: Any) -> None:
        super().__init__(network, address)
        self._arrived: deque[MemorySocket] = deque()

    def readiness(self) -> int:
        """READ while somebody waits."""
        return READ if self._arrived or self.closed else 0

    def arrive(self, sock: MemorySocket) -> None:
        """Somebody has connected. Requires the lock."""
        self._arrived.append(sock)
        self.touched()

    def accept(self) -> tuple[Any, Any]:
        """Return the socket of whoever has waited longest, and its address.

        Raises:
            BlockingIOError: Nobody waits.
        """
        with self.network.changed:
            self._check_open()
            if not self._arrived:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            sock = self._arrived.popleft()
            return sock, sock.getpeername()

    def close(self) -> None:
        """Refuse everybody from now on; who was not accepted is cut off. Harmless twice."""
        with self.network.changed:
            if self.closed:
                return
            self.closed = True
            self.network.free(self.address)
            arrived, self._arrived = list(self._arrived), deque()
            for sock in arrived:
                sock.reset()
            self.touched()


class MemorySocket(_Socket):
    """One end of a connection.

    Attributes:
        peer: The other end.
    """

    peer: MemorySocket

    def __init__(self, network: Network, address: Any, remote: Any) -> None:
        super().__init__(network, address)
        self._remote = remote

        # Guarded by the network's lock.
        self._received = bytearray()
        self._ended = False  # nothing more comes
        self._finished = False  # nothing more may be sent
        self._broken = False  # the other end has cut it off

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<MemorySocket {self.address} to {self._remote}, {state}>"

    def readiness(self) -> int:
        """Ready for both after the end, as the system's sockets are."""
        if self._broken or self.closed:
            return READ | WRITE
        readable = READ if self._received or self._ended else 0
        return readable | (WRITE if self._has_room() else 0)

    def _has_room(self) -> bool:
        return self._finished or self.peer.closed or len(self.peer._received) < CAPACITY

    def getpeername(self) -> Any:
        """The address of the other end."""
        return self._remote

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Take what has come, up to `size` bytes; b"" at the end.

        Raises:
            BlockingIOError: Nothing has.
            ConnectionResetError: The other end has cut the connection off.
        """
        with self.network.changed:
            self._check_open()
            if self._broken:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            if not self._received and not self._ended:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            data = bytes(self._received[:size])
            if data and not flags & socket.MSG_PEEK:
                del self._received[: len(data)]
                self.peer.touched()
            return data

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        """Do what `recv` does, to a buffer; return how many bytes."""
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        """Send a part of `data`; return how many bytes the other end has room for.

        Raises:
            BlockingIOError: It has none.
            BrokenPipeError: It is gone, or this end said that nothing more comes.
        """
        with self.network.changed:
            self._check_open()
            if self._finished or self._broken or self.peer.closed:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            size = min(len(data), CAPACITY - len(self.peer._received))
            if size <= 0 < len(data):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self.peer._received += data[:size]
            self.peer.touched()
            return size

    def sendmsg(self, chunks: list[bytes | memoryview]) -> int:
        """Send a part of `chunks`, in order; return how many bytes."""
        return self.send(b"".join(chunks))

    def shutdown(self, how: int) -> None:
        """Send nothing more, read nothing more, or both."""
        with self.network.changed:
            self._check_open()
            if how != socket.SHUT_WR:
                self._ended = True
            if how != socket.SHUT_RD:
                self._finished = self.peer._ended = True
            self.touched()
            self.peer.touched()

    def close(self) -> None:
        """End it: the other end can read what was sent, and then its end. Harmless twice."""
        with self.network.changed:
            self.closed = True
            self.peer._ended = True
            self.touched()
            self.peer.touched()

    def reset(self) -> None:
        """Cut it off: the other end gets an error, whatever was on the way."""
        with self.network.changed:
            if not self.closed:
                self.peer._broken = True
            self.close()
