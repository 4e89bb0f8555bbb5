"""The server's end of a connection, as a service sees it."""

from __future__ import annotations

from ..endpoint import Address, Endpoint
from ..engine.connection import Connection
from ..protocol.http import Request

__all__ = ["Caller"]


class Caller(Endpoint):
    """A client that is connected to a service; what callbacks are called with.

    Callers are hashable and compare by identity, so they can be members of a
    set or the keys of a dict.
    """

    __slots__ = ("_request",)

    def __init__(
        self,
        connection: Connection,
        request: Request,
        subprotocol: str | None,
        addresses: tuple[Address, Address],
    ) -> None:
        super().__init__(connection, subprotocol, addresses)
        self._request = request

    @property
    def request(self) -> Request:
        """The handshake request: path, its parameters, query, headers and cookies."""
        return self._request

    @property
    def is_secure(self) -> bool:
        """Whether the client has come over TLS, to the listener or to a proxy it trusts."""
        return self._request.is_secure
