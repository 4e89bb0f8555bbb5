"""What a listener can be told to listen on."""

from __future__ import annotations

import ssl

from ..config import TLSConfig
from ..tls import check_context

__all__ = ["check_port", "server_context"]


def check_port(port: object, unix_path: str | None) -> int:
    """Return the TCP port, 0 beside a `unix_path`; raise if it is none."""
    if unix_path is not None:
        if port is not None:
            raise ValueError(f"give a port or a unix_path, not both: {port!r} and {unix_path!r}")
        return 0
    if port is None:
        raise TypeError("Listener needs a port, 0 for a free one, or a unix_path")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an int, not {port!r}")
    if not 0 <= port <= 65_535:
        raise ValueError(f"port must be between 0 and 65535, not {port!r}")
    return port


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
