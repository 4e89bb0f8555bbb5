"""From a URL to an upgraded socket. Blocks; runs in the thread of the caller."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
from typing import NamedTuple

from ..config import ClientConfig
from ..errors import ConnectError, ConnectTimeout, WebSocketError
from ..protocol.client_handshake import ClientHandshake, Response
from ..protocol.uri import WebSocketURI
from ..timing import Deadline

__all__ = ["connect"]

# Seconds between the starts of two attempts at a name's addresses. RFC 8305
# section 5 recommends 250 ms.
_STAGGER = 0.25

_IN_PROGRESS = frozenset((errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR))


class _Address(NamedTuple):
    family: int
    kind: int
    proto: int
    address: tuple[object, ...]


def connect(
    uri: WebSocketURI,
    config: ClientConfig,
    ssl_context: ssl.SSLContext | None,
    unix_path: str | None,
) -> tuple[socket.socket, Response]:
    """Connect, do TLS and the opening handshake; all within `handshake_timeout`.

    Raises:
        ConnectError: No WebSocket came about; the text says how far it got.
        ssl.SSLError: The server's certificate or TLS was refused; it is the
            `__cause__` of a ConnectError.
    """
    handshake = ClientHandshake(
        uri,
        subprotocols=config.subprotocols,
        compression=config.deflate,
        headers=config.headers,
    )
    deadline = Deadline(config.handshake_timeout)
    where = unix_path if unix_path is not None else f"{uri.host} port {uri.port}"
    step = "connecting"
    sock: socket.socket | None = None
    try:
        sock = _open_unix(unix_path, deadline) if unix_path is not None else _open(uri, deadline)
        if uri.secure:
            step = "the TLS handshake"
            sock = _wrap(sock, uri, ssl_context or ssl.create_default_context(), deadline)
        step = "the opening handshake"
        response = _upgrade(sock, handshake, deadline)
    except BaseException as exc:
        if sock is not None:
            sock.close()
        # The system's own time-outs have an errno.
        if isinstance(exc, TimeoutError) and exc.errno is None:
            raise ConnectTimeout(
                f"{step} with {where} took longer than handshake_timeout, "
                f"{config.handshake_timeout} s"
            ) from exc
        if isinstance(exc, OSError) and not isinstance(exc, WebSocketError):
            raise ConnectError(f"{step} with {where} failed: {_reason(exc)}") from exc
        raise
    return sock, response


def _reason(exc: OSError) -> str:
    return exc.strerror or str(exc) or type(exc).__name__


def _remaining(deadline: Deadline) -> float | None:
    remaining = deadline.remaining()
    if remaining == 0.0:
        raise TimeoutError
    return remaining


def _open_unix(path: str, deadline: Deadline) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_remaining(deadline))
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _open(uri: WebSocketURI, deadline: Deadline) -> socket.socket:
    """Connect to whichever address of the name answers first."""
    found = socket.getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM)
    addresses = [
        _Address(family, kind, proto, address)
        for family, kind, proto, _, address in dict.fromkeys(found)
    ]
    sock = _Race(_interleaved(addresses), deadline).run()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _interleaved(addresses: list[_Address]) -> list[_Address]:
    """Alternate between the families, beginning with the first. RFC 8305 section 4."""
    first = [a for a in addresses if a.family == addresses[0].family]
    other = [a for a in addresses if a.family != addresses[0].family]
    mixed: list[_Address] = []
    while first or other:
        mixed += first[:1] + other[:1]
        first, other = first[1:], other[1:]
    return mixed


class _Race:
    """Attempts at several addresses, each started a little after the one before it."""

    def __init__(self, addresses: list[_Address], deadline: Deadline) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._errors: list[OSError] = []
        self._selector = selectors.DefaultSelector()

    def run(self) -> socket.socket:
        """Return the first socket that is connected.

        Raises:
            OSError: Every address refused.
            TimeoutError: None answered in time.
        """
        winner: socket.socket | None = None
        try:
            while winner is None:
                winner = self._start() if self._addresses else None
                while winner is None and self._selector.get_map():
                    ready = self._selector.select(self._patience())
                    winner = self._finished(ready)
                    if self._addresses and not ready:
                        break  # it is the next one's turn
                if winner is None and not self._addresses and not self._selector.get_map():
                    raise self._failure()
            return winner
        finally:
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()

    def _patience(self) -> float | None:
        remaining = _remaining(self._deadline)
        if not self._addresses:
            return remaining
        return _STAGGER if remaining is None else min(_STAGGER, remaining)

    def _start(self) -> socket.socket | None:
        """Begin the next attempt; return its socket if it is connected at once."""
        _remaining(self._deadline)
        target = self._addresses.pop(0)
        try:
            sock = socket.socket(target.family, target.kind, target.proto)
        except OSError as exc:  # the system may have no IPv6
            self._errors.append(exc)
            return None
        sock.setblocking(False)
        code = sock.connect_ex(target.address)
        if code == 0:
            return sock
        if code in _IN_PROGRESS:
            self._selector.register(sock, selectors.EVENT_WRITE)
        else:
            sock.close()
            self._errors.append(OSError(code, os.strerror(code)))
        return None

    def _finished(self, ready: list[tuple[selectors.SelectorKey, int]]) -> socket.socket | None:
        for key, _ in ready:
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            self._selector.unregister(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                return sock
            sock.close()
            self._errors.append(OSError(code, os.strerror(code)))
        return None

    def _failure(self) -> OSError:
        if not self._errors:
            return OSError(errno.EADDRNOTAVAIL, "the name has no address")
        texts = dict.fromkeys(_reason(exc) for exc in self._errors)
        return OSError(self._errors[0].errno, "; ".join(texts))


def _wrap(
    sock: socket.socket, uri: WebSocketURI, context: ssl.SSLContext, deadline: Deadline
) -> ssl.SSLSocket:
    sock.settimeout(_remaining(deadline))
    wrapped = context.wrap_socket(sock, server_hostname=uri.host, do_handshake_on_connect=False)
    try:
        wrapped.do_handshake()
    except BaseException:
        wrapped.close()
        raise
    return wrapped


def _upgrade(sock: socket.socket, handshake: ClientHandshake, deadline: Deadline) -> Response:
    sock.settimeout(_remaining(deadline))
    sock.sendall(handshake.request_bytes())
    response = None
    while response is None:
        sock.settimeout(_remaining(deadline))
        try:
            data = sock.recv(16_384)
        except ConnectionResetError:
            data = b""
        response = handshake.receive(data)
    with contextlib.suppress(OSError):
        sock.settimeout(0.0)
    return response
