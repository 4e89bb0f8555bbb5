"""From a socket that is connected to a proxy to one that leads to a server.

HTTP is ours; SOCKS is that of python-socks, on a socket that is ours all the
same: every wait of it ends at the deadline of the attempt, and when that is
cancelled.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, NamedTuple

from ..engine.tls import ROOM, TLSTransport
from ..engine.transport import make_transport
from ..errors import ProxyAuthenticationError, ProxyError, printable
from ..protocol.connect_tunnel import ConnectTunnel
from ..protocol.uri import WebSocketURI
from ..timing import Deadline
from ..tls import make_context
from .proxy import Proxy
from .waiting import remaining, secure, send_all, wait, wait_for

__all__ = ["Way", "ask_http", "ask_socks", "secure_proxy"]

# python-socks has no numbers for these, only words.
_AUTHENTICATION = ("authentication failure", "No acceptable authentication")


class Way(NamedTuple):
    """What leads to a server.

    Attributes:
        wire: A socket, or a TLS connection with a proxy.
        received: What has come from the server already.
    """

    wire: socket.socket | TLSTransport
    received: bytes = b""


def secure_proxy(sock: socket.socket, proxy: Proxy, deadline: Deadline) -> TLSTransport:
    """Return the connection with an https proxy after its TLS handshake."""
    context = proxy.tls or make_context(ssl.Purpose.SERVER_AUTH)
    return secure(sock, context, proxy.uri.host, deadline)


def ask_http(
    wire: socket.socket | TLSTransport, proxy: Proxy, target: WebSocketURI, deadline: Deadline
) -> Way:
    """Have an HTTP proxy connect to the server.

    Raises:
        ProxyError: It refused, or speaks no HTTP.
        OSError: The connection with it was lost.
        TimeoutError: It took too long.
    """
    tunnel = ConnectTunnel(proxy.uri, target.host, target.port, headers=proxy.headers)
    transport = wire if isinstance(wire, TLSTransport) else make_transport(wire)
    send_all(transport, tunnel.request_bytes(), deadline)
    buffer = bytearray(ROOM)
    rest = None
    while rest is None:
        rest = tunnel.receive(wait_for(transport, buffer, deadline))
    return Way(wire, rest)


def ask_socks(sock: socket.socket, proxy: Proxy, target: WebSocketURI, deadline: Deadline) -> Way:
    """Have a SOCKS proxy connect to the server; in all else as `ask_http`.

    A name that the proxy does not resolve is looked up by the system.
    """
    import python_socks
    from python_socks.sync import Proxy as Socks

    uri = proxy.uri
    kind = (
        python_socks.ProxyType.SOCKS4 if uri.scheme == "socks4" else (python_socks.ProxyType.SOCKS5)
    )
    forward: Any = _Connected(sock, deadline)
    socks = Socks(
        kind, uri.host, uri.port, uri.username, uri.password, rdns=uri.resolves, forward=forward
    )
    try:
        socks.connect(target.host.partition("%")[0], target.port)
    except python_socks.ProxyError as exc:
        raise _refusal(proxy, str(exc), exc.error_code) from exc
    except (OSError, python_socks.ProxyTimeoutError):
        raise
    except Exception as exc:  # what it makes of an answer that makes no sense
        raise ProxyError(
            f"the proxy {uri} answered with what is not valid SOCKS: {printable(str(exc)[:100])}",
            str(uri),
        ) from exc
    return Way(sock)


def _refusal(proxy: Proxy, reason: str, code: int | None) -> ProxyError:
    shown = str(proxy.uri)
    text = f"the proxy {shown} did not connect to the server: {printable(reason[:100])}"
    if any(words in reason for words in _AUTHENTICATION):
        return ProxyAuthenticationError(text, shown)
    return ProxyError(text, shown, None if code is None else int(code))


class _Connected:
    """What python-socks takes for another proxy, through which it reaches its own.

    There is none: it gets the socket that is connected already.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = _Patient(sock, deadline)

    def connect(self, **options: object) -> _Patient:
        """Return what it uses as a socket that blocks."""
        return self._sock


class _Patient:
    """A socket that blocks, until the deadline only."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def recv(self, size: int) -> bytes:
        """Return what comes next, b"" at the end."""
        while True:
            remaining(self._deadline)  # there may always be a byte to read
            try:
                return self._sock.recv(size)
            except BlockingIOError:
                wait(self._sock, False, self._deadline)

    def sendall(self, data: bytes) -> None:
        """Send bytes, all of them."""
        send_all(make_transport(self._sock), data, self._deadline)

    def close(self) -> None:
        """Nothing: whoever has connected the socket closes it."""
