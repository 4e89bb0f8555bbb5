"""What a listener makes of the proxies in front of it.

Threads: everything but the making of it runs in the I/O thread.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterable

from ..endpoint import Address
from ..protocol.forwarded import DEFAULT_HEADERS, Client, TrustedProxies
from ..protocol.http import Request
from ..protocol.proxy_protocol import MOST, Introduction, IntroductionReader

__all__ = ["Proxies", "check_proxies", "read_introduction"]


class Proxies:
    """The proxies that are believed, and what they say.

    Args:
        addresses: See `TrustedProxies`.
        headers: The same.
        protocol: Whether they begin each connection with a PROXY header.

    Attributes:
        protocol: The same.

    Raises:
        TypeError, ValueError: That is nothing to go by.
    """

    __slots__ = ("_trusted", "protocol")

    def __init__(
        self,
        addresses: Iterable[str] = (),
        headers: Iterable[str] = DEFAULT_HEADERS,
        protocol: bool = False,
    ) -> None:
        self._trusted = TrustedProxies(addresses, headers)
        if not isinstance(protocol, bool):
            raise TypeError(f"proxy_protocol must be True or False, not {protocol!r}")
        if protocol and not self.given:
            raise ValueError(
                "proxy_protocol needs trusted_proxies: whoever may send a PROXY header "
                "can say to be anybody, so name the addresses of your proxies"
            )
        self.protocol = protocol

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return bool(self._trusted)

    def turns_away(self, address: Address) -> bool:
        """Whether a connection from there is not for this listener."""
        return self.protocol and not self._trusted.trusts(address)

    def counted(self, address: Address) -> Address:
        """Return the address that a socket counts for at the door; "" for none.

        A proxy is not limited as a client is.
        """
        return "" if self._trusted.trusts(address) else address

    def attribute(self, request: Request, introduction: Introduction | None) -> Request:
        """Return the request as its client's.

        Args:
            request: As the connection has it.
            introduction: What the connection began with, if that had to be.

        Raises:
            HeadError: A trusted proxy says what cannot be understood.
        """
        peer, secure = request.remote_address, request.is_secure
        if introduction is not None:
            secure = secure or introduction.secure
        if introduction is None:
            client = self._trusted.client(request.headers, peer, secure)
        elif isinstance(introduction.source, tuple):
            client = self._trusted.client(request.headers, introduction.source, secure)
        else:
            # Nobody knows who has written the headers.
            client = Client(peer if introduction.source is None else introduction.source, secure)
        return dataclasses.replace(
            request,
            remote_address=client.address,
            is_secure=client.secure,
            forwarded_host=client.host,
        )


def check_proxies(
    addresses: Iterable[str], headers: Iterable[str], protocol: bool
) -> Proxies | None:
    """Return what a `Listener` was told of proxies; None if there are none. See `Proxies`."""
    proxies = Proxies(addresses, headers, protocol)
    return proxies if proxies.given else None


def read_introduction(sock: socket.socket, reader: IntroductionReader) -> bool:
    """Take from a socket what belongs to an introduction, and nothing else.

    What follows is TLS's or HTTP's, which read the socket themselves.

    Returns:
        Whether it is complete; if not there is nothing to read at the moment.

    Raises:
        IntroductionError: It is none.
        EOFError: The connection has ended.
        OSError: It is lost.
    """
    while reader.introduction is None:
        try:
            data = sock.recv(MOST, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        if not data:
            raise EOFError
        sock.recv(reader.feed(data))
    return True
