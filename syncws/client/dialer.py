"""One address to connect to, with all that it takes."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from ..config import ClientConfig, TLSConfig
from ..endpoint import Address, peer_addresses
from ..engine.transport import Transport
from ..errors import ConnectError, HandshakeRejected
from ..protocol.client_handshake import Agreement
from ..protocol.uri import parse_uri
from ..tls import check_context
from .connect import Cancel, connect
from .cookies import CookieStore

__all__ = ["Dialer", "Opened", "tls_context"]


class Opened(NamedTuple):
    """What an attempt has come to: a socket after its handshake."""

    transport: Transport
    agreement: Agreement
    addresses: tuple[Address, Address]

    @classmethod
    def of(cls, transport: Transport, agreement: Agreement) -> Opened:
        """Take over a connected socket.

        Raises:
            ConnectError: It is lost already.
        """
        try:
            return cls(transport, agreement, peer_addresses(transport.sock))
        except OSError as exc:
            transport.close()
            raise ConnectError("the connection was lost right after the handshake") from exc


class Dialer:
    """Connects to one address.

    Args:
        url: The address; what is wrong with it is a ValueError.
        config: What the handshake has, and its timeout.
        tls: For wss://; None for the system's authorities.
        unix_path: A Unix-domain socket in place of the URL's host and port.
        cookies: The client's cookies.

    Attributes:
        url: The address without user and password.
    """

    def __init__(
        self,
        url: str,
        config: ClientConfig,
        tls: ssl.SSLContext | None,
        unix_path: str | None,
        cookies: CookieStore,
    ) -> None:
        self._uri = uri = parse_uri(url)
        if tls is not None and not uri.secure:
            raise ValueError("ssl is given but the URL begins with ws://; write wss:// for TLS")
        self._config = config
        self._tls = tls
        self._unix_path = unix_path
        self._cookies = cookies
        # A Cookie header that was given by hand is the whole truth.
        self._by_hand = any(name.lower() == "cookie" for name, _ in config.headers)
        self.url = f"{'wss' if uri.secure else 'ws'}://{uri.host_header}{uri.target}"

    def dial(self, cancel: Cancel | None = None) -> Opened:
        """Connect and do the handshake. Blocks for up to `handshake_timeout`.

        Raises:
            ConnectError: No WebSocket came about.
        """
        headers: tuple[tuple[str, str], ...] = ()
        cookie = None if self._by_hand else self._cookies.header(self._uri)
        if cookie is not None:
            headers = (("Cookie", cookie),)
        try:
            transport, agreement = connect(
                self._uri, self._config, self._tls, self._unix_path, headers=headers, cancel=cancel
            )
        except HandshakeRejected as exc:
            self._cookies.keep(self._uri, exc.response.headers)
            raise
        self._cookies.keep(self._uri, agreement.response.headers)
        return Opened.of(transport, agreement)


def tls_context(given: object) -> ssl.SSLContext | None:
    """Return the context for what a client was given as `ssl`.

    Raises:
        TypeError, ValueError: It is nothing that a client can use.
        OSError: A file of it cannot be read.
    """
    if given is None:
        return None
    if isinstance(given, TLSConfig):
        return given.client_context()
    if not isinstance(given, ssl.SSLContext):
        raise TypeError(f"ssl must be a syncws.TLSConfig, an ssl.SSLContext or None, not {given!r}")
    if given.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ValueError(
            "ssl is a server's context: make a client's with ssl.create_default_context()"
        )
    return check_context(given)
