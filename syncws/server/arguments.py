"""What a listener can be told to listen on."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import NamedTuple

from ..config import TLSConfig
from ..engine.engine import Network
from ..timing import check_timeout
from ..tls import check_context
from .acceptor import Sharing, can_share_port, open_sockets

__all__ = [
    "Binding",
    "check_port",
    "check_reuse_port",
    "check_sockets",
    "check_stop",
    "close_all",
    "copies_of",
    "server_context",
]


class Binding(NamedTuple):
    """Where a listener was told to listen.

    Attributes:
        host: The address or name.
        port: The TCP port.
        unix_path: The path of a Unix-domain socket, in place of both.
        backlog: Connections that may wait in the system.
    """

    host: str
    port: int
    unix_path: str | None
    backlog: int

    def open(
        self, sharing: Sharing = Sharing.NOBODY, network: Network | None = None
    ) -> list[socket.socket]:
        """Return listening sockets: of the system, or of a `network` in its place.

        Raises:
            OSError: An address cannot be listened on; the text names it.
        """
        if network is not None:
            return [network.listen(self.port, self.unix_path)]
        return open_sockets(self.host, self.port, self.unix_path, self.backlog, sharing)


def check_port(port: object, unix_path: str | None, sockets: Sequence[socket.socket] | None) -> int:
    """Return the TCP port, 0 if there is none; raise if it is none."""
    if sockets is not None:
        if port is not None or unix_path is not None:
            raise ValueError("give sockets, or a port or a unix_path, not both")
        return 0
    if unix_path is not None:
        if port is not None:
            raise ValueError(f"give a port or a unix_path, not both: {port!r} and {unix_path!r}")
        return 0
    if port is None:
        raise TypeError("Listener needs a port, 0 for a free one, a unix_path or sockets")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an int, not {port!r}")
    if not 0 <= port <= 65_535:
        raise ValueError(f"port must be between 0 and 65535, not {port!r}")
    return port


def check_sockets(given: object) -> list[socket.socket] | None:
    """Return the listening sockets that a listener was given; raise if they are none."""
    if given is None:
        return None
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise TypeError(f"sockets must be a sequence of socket.socket, not {given!r}")
    if not given:
        raise ValueError("sockets is empty: there is nothing to listen on")
    for sock in given:
        if not isinstance(sock, socket.socket) or isinstance(sock, ssl.SSLSocket):
            raise TypeError(f"sockets must have plain sockets only, not {sock!r}")
        if sock.fileno() < 0:
            raise ValueError("sockets has a socket that is closed")
        if sock.type != socket.SOCK_STREAM or not _is_listening(sock):
            raise ValueError(f"sockets has one that does not listen: {sock!r}")
    return list(given)


def _is_listening(sock: socket.socket) -> bool:
    option = getattr(socket, "SO_ACCEPTCONN", None)
    return option is None or bool(sock.getsockopt(socket.SOL_SOCKET, option))


def copies_of(
    sockets: Sequence[socket.socket], network: Network | None = None
) -> list[socket.socket]:
    """Return descriptors of our own for listening sockets, which a `network` has no use for."""
    if network is not None:
        raise ValueError("sockets are the system's, and this engine is none for those")
    copies: list[socket.socket] = []
    try:
        for sock in sockets:
            copies.append(sock.dup())
            copies[-1].setblocking(False)
    except BaseException:
        close_all(copies)
        raise
    return copies


def close_all(sockets: Sequence[socket.socket]) -> None:
    """Close them."""
    for sock in sockets:
        sock.close()


def check_reuse_port(given: object, *, tcp: bool) -> Sharing:
    """Return who else may listen; raise if that cannot be."""
    if not isinstance(given, bool):
        raise TypeError(f"reuse_port must be a bool, not {given!r}")
    if not given:
        return Sharing.NOBODY
    if not tcp:
        raise ValueError("reuse_port is for a port only, not for a unix_path or sockets")
    if not can_share_port():
        raise ValueError("reuse_port: this system does not spread connections over processes")
    return Sharing.ANYBODY


def server_context(given: object) -> ssl.SSLContext | None:
    """Return the context for what a listener was given as `ssl`.

    Raises:
        TypeError, ValueError: It is nothing that a listener can use.
        OSError: A file of it cannot be read.
    """
    if given is None:
        return None
    if isinstance(given, TLSConfig):
        return given.server_context()
    if not isinstance(given, ssl.SSLContext):
        raise TypeError(f"ssl must be a syncws.TLSConfig, an ssl.SSLContext or None, not {given!r}")
    if given.protocol is ssl.PROTOCOL_TLS_CLIENT or given.check_hostname:
        raise ValueError(
            "ssl is a client's context: make a server's with ssl.create_default_context("
            "ssl.Purpose.CLIENT_AUTH), and load_cert_chain() its certificate"
        )
    return check_context(given)


def check_stop(timeout: float) -> float:
    """Return the seconds that a stop may take.

    Raises:
        TypeError, ValueError: They are none.
    """
    check_timeout("timeout", timeout, optional=False)
    return timeout
