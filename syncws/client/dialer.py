"""One address to connect to, with all that it takes."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from ..config import ClientConfig
from ..endpoint import Address, peer_addresses
from ..engine.engine import Network
from ..engine.transport import Transport
from ..errors import ConnectError, HandshakeRejected
from ..protocol.client_handshake import Agreement
from ..protocol.uri import parse_uri
from .connect import Cancel, connect
from .cookies import CookieStore
from .proxy import Proxies

__all__ = ["Dialer", "Opened"]


class Opened(NamedTuple):
    """What an attempt has come to: a socket after its handshake."""

    transport: Transport
    agreement: Agreement
    addresses: tuple[Address, Address]
    secure: bool  # as far as the server; a proxy may have TLS of its own

    @classmethod
    def of(cls, transport: Transport, agreement: Agreement, secure: bool) -> Opened:
        """Take over a connected socket.

        Raises:
            ConnectError: It is lost already.
        """
        try:
            return cls(transport, agreement, peer_addresses(transport.sock), secure)
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
        proxies: What says which proxy to go through, now and always.
        network: What takes the place of the system's sockets.

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
        proxies: Proxies | None = None,
        network: Network | None = None,
    ) -> None:
        self._uri = uri = parse_uri(url)
        if tls is not None and not uri.secure:
            raise ValueError("ssl is given but the URL begins with ws://; write wss:// for TLS")
        self._config = config
        self._tls = tls
        self._unix_path = unix_path
        self._cookies = cookies
        self._network = network
        self._proxy = None
        if proxies is not None:
            self._proxy = proxies.find(uri, environment=network is None)
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
                self._uri,
                self._config,
                self._tls,
                self._unix_path,
                proxy=self._proxy,
                headers=headers,
                cancel=cancel,
                network=self._network,
            )
        except HandshakeRejected as exc:
            self._cookies.keep(self._uri, exc.response.headers)
            raise
        self._cookies.keep(self._uri, agreement.response.headers)
        return Opened.of(transport, agreement, self._uri.secure)
