"""A listening socket.

Threads: everything but `open_sockets` and the making of an Acceptor runs in
the I/O thread.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable

from ..engine.loop import READ, IOLoop

__all__ = ["Acceptor", "Sharing", "UnixPath", "can_share_port", "open_sibling", "open_sockets"]

# Connections accepted at once before others have their turn.
_BATCH = 64

# Seconds without accepting when the system cannot.
_BACK_OFF = 0.5

# What a name's IPv6 address gives where the system has no IPv6.
_ABSENT = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))

# What accept() says of the connection rather than of this system. Among all
# the others are those for descriptors and memory that have run out.
_GONE = frozenset((errno.ECONNABORTED, errno.ECONNRESET, errno.EINTR, errno.EPERM, errno.EPROTO))

_log = logging.getLogger("syncws.server")


class Sharing(enum.Enum):
    """Who else may listen on a port."""

    NOBODY = "nobody"
    #: Whoever asks for it, of the same user.
    ANYBODY = "anybody"
    #: Whoever asks for it, of the same user; but nobody may be there yet.
    FOLLOWERS = "followers"


def can_share_port() -> bool:
    """Whether the system spreads connections among the sockets that share a port."""
    # Elsewhere an option of this name is something else, or all go to one of them.
    return sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")


class Acceptor:
    """Accepts connections and hands them on.

    Args:
        loop: The I/O loop.
        sock: The listening socket; owned from now on.
        on_accept: Called with each accepted socket.
    """

    __slots__ = ("_listening", "_loop", "_on_accept", "_sock")

    def __init__(
        self, loop: IOLoop, sock: socket.socket, on_accept: Callable[[socket.socket], None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._on_accept = on_accept
        self._listening = False
        loop.own(self)

    def listen(self) -> None:
        """Accept from now on."""
        if self._sock.fileno() >= 0:
            try:
                self._loop.register(self._sock, READ, self)
            except OSError as exc:
                self._back_off(exc)
                return
            self._listening = True

    def on_ready(self, mask: int) -> None:
        """Accept what waits."""
        for _ in range(_BATCH):
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _GONE:
                    continue  # the client went away meanwhile
                self._back_off(exc)
                return
            try:
                self._on_accept(sock)
            except OSError as exc:  # it was accepted, but the selector has no room for it
                self._back_off(exc)
                return

    def _back_off(self, error: OSError) -> None:
        """The connections stay in the system's queue; trying on would only spin."""
        text = "cannot accept connections, trying again in %s s: %s"
        self._loop.journal.write(_log, logging.ERROR, text, _BACK_OFF, error)
        self._loop.unregister(self._sock)
        self._listening = False
        self._loop.call_at(self._loop.clock() + _BACK_OFF, self.listen, self)

    def abort(self) -> None:
        """Close the socket. Harmless twice."""
        if self._listening:
            self._loop.unregister(self._sock)
            self._listening = False
        self._loop.disown(self)
        self._sock.close()

    def on_loop_error(self, error: BaseException) -> None:
        """Handing a connection on raised; the next one may do better."""

    def abandon(self) -> None:
        """In a forked child: close this process's copy of the socket."""
        self._sock.close()


def open_sockets(
    host: str | None,
    port: int,
    unix_path: str | None,
    backlog: int,
    sharing: Sharing = Sharing.NOBODY,
) -> list[socket.socket]:
    """Return listening sockets: one for each address that `host` has.

    Raises:
        OSError: An address cannot be listened on; the text names it.
    """
    if unix_path is not None:
        return [_open_unix(unix_path, backlog)]
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as exc:
        raise OSError(exc.errno, f"cannot listen on {host!r}: {exc.strerror}") from exc
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, kind, proto, _, (address, _, *more) in dict.fromkeys(found):
            if port == 0 and sockets:
                # One port for all addresses: the one that the first was given.
                port = sockets[0].getsockname()[1]
            try:
                where = (address, port, *more)
                sockets.append(_open_inet(family, kind, proto, where, backlog, sharing))
            except OSError as exc:
                if exc.errno not in _ABSENT:
                    raise
                absent = exc
        if absent is not None and not sockets:
            raise absent
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def open_sibling(sock: socket.socket, backlog: int) -> socket.socket:
    """Return one more listening socket on a port that may be shared.

    Raises:
        OSError: It cannot be listened on.
    """
    address = sock.getsockname()
    return _open_inet(sock.family, sock.type, sock.proto, address, backlog, Sharing.ANYBODY)


def _open_inet(
    family: int,
    kind: int,
    proto: int,
    address: tuple[object, ...],
    backlog: int,
    sharing: Sharing,
) -> socket.socket:
    where = f"{address[0]} port {address[1]}"
    try:
        sock = socket.socket(family, kind, proto)
    except OSError as exc:
        raise _named(exc, where) from exc
    try:
        sock.setblocking(False)
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has a socket of its own where it is wanted.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if sharing is Sharing.ANYBODY:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        if sharing is Sharing.FOLLOWERS:
            # Set before, it would have joined whoever listens there.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.listen(backlog)
    except OSError as exc:
        sock.close()
        raise _named(exc, where) from exc
    return sock


def _open_unix(path: str, backlog: int) -> socket.socket:
    if "\0" in path[1:]:  # at the beginning it makes an abstract one, on Linux
        raise ValueError(f"unix_path has an embedded null character: {path!r}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.bind(path)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(backlog)
    except (OSError, ValueError) as exc:
        sock.close()
        raise _named(exc, path) from exc
    return sock


class UnixPath:
    """The path of a Unix-domain socket that was bound here just now, to be removed with it.

    Its file may be removed meanwhile, and somebody else may listen there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._is = _what_is(path)

    def remove(self) -> None:
        """Remove it if it is the same still. Harmless twice."""
        with contextlib.suppress(OSError):
            if self._is is not None and _what_is(self._path) == self._is:
                os.unlink(self._path)
        self._is = None


def _what_is(path: str) -> tuple[int, int, int] | None:
    """Return what no other file has; None if there is none, or the socket is abstract."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns  # numbers of files come again


def _is_stale(path: str) -> bool:
    """Whether `path` is a socket that nobody listens on any more."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _named(error: OSError | ValueError, where: str) -> OSError:
    """Return an OSError with a text that names the address and the way out."""
    code = error.errno if isinstance(error, OSError) else None
    text = f"cannot listen on {where}: {(code and os.strerror(code)) or error}"
    if code == errno.EADDRINUSE:
        text += "; another program does, so stop it or take another port (0 finds a free one)"
    return OSError(text) if code is None else OSError(code, text)
