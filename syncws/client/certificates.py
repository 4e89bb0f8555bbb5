"""The certificates that a client was given."""

from __future__ import annotations

import ssl

from ..config import TLSConfig
from ..tls import check_context

__all__ = ["tls_context"]


def tls_context(given: object, option: str = "ssl") -> ssl.SSLContext | None:
    """Return the context for what a client was given as `option`.

    Raises:
        TypeError, ValueError: It is nothing that a client can use.
        OSError: A file of it cannot be read.
    """
    if given is None:
        return None
    if isinstance(given, TLSConfig):
        return given.client_context()
    if not isinstance(given, ssl.SSLContext):
        raise TypeError(
            f"{option} must be a syncws.TLSConfig, an ssl.SSLContext or None, not {given!r}"
        )
    if given.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ValueError(
            f"{option} is a server's context: make a client's with ssl.create_default_context()"
        )
    return check_context(given, option)
