"""From a URL to an upgraded socket. Blocks; runs in the thread of the caller."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..config import ClientConfig
from ..engine.engine import Network
from ..engine.tls import ROOM, TLSTransport
from ..engine.transport import Transport, make_transport
from ..errors import ConnectError, ConnectTimeout, ProxyError, TLSError, WebSocketError
from ..protocol.client_handshake import Agreement, ClientHandshake
from ..protocol.uri import WebSocketURI
from ..timing import Deadline
from ..tls import make_context
from .proxy import Proxy
from .tunnel import Way, ask_http, ask_socks, secure_proxy
from .waiting import remaining, secure, send_all, wait_for

__all__ = ["Cancel", "connect"]

# Seconds between the starts of two attempts at a name's addresses. RFC 8305
# section 5 recommends 250 ms.
_STAGGER = 0.25

_IN_PROGRESS = frozenset((errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR))

# X509_V_ERR_..._ISSUER_CERT, SELF_SIGNED_..., UNABLE_TO_VERIFY_LEAF_SIGNATURE of OpenSSL.
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)


class _Address(NamedTuple):
    family: int
    kind: int
    proto: int
    address: tuple[object, ...]


class Cancel:
    """Ends an attempt to connect, from another thread.

    Looking a name up is the system's, and goes on to its end.
    """

    def __init__(self) -> None:
        # Guarded by _lock.
        self._lock = threading.Lock()
        self._cancelled = False
        self._sockets: set[socket.socket] = set()
        self._close: Callable[[], None] | None = None  # what came of the attempt

    def check(self) -> None:
        """Raise if the attempt was cancelled.

        Raises:
            ConnectError: It was.
        """
        if self._cancelled:
            raise ConnectError("the client was closed while it was connecting")

    def watch(self, sock: socket.socket) -> None:
        """Have `sock` woken by `cancel`.

        Raises:
            ConnectError: That was called already.
        """
        with self._lock:
            self.check()
            self._sockets.add(sock)

    def forget(self, sock: socket.socket) -> None:
        """Leave `sock` alone from now on: it is about to be closed, or is somebody's."""
        with self._lock:
            self._sockets.discard(sock)

    def keep(self, close: Callable[[], None]) -> None:
        """The attempt has succeeded: have `close()` called by `cancel`, or now if that was."""
        with self._lock:
            if not self._cancelled:
                self._close = close
                return
        close()

    def take(self) -> bool:
        """Leave alone from now on what was kept; return whether it was not closed."""
        with self._lock:
            kept, self._close = self._close, None
            self._sockets.clear()
        return kept is not None

    def cancel(self) -> None:
        """Let the attempt fail, or close what came of it. Harmless after `take`."""
        with self._lock:
            self._cancelled = True
            close, self._close = self._close, None
            for sock in self._sockets:
                # Behind it nothing waits for this socket any more.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        if close is not None:
            close()

    def abandon(self) -> None:
        """In a forked child: close this process's copies of the sockets."""
        self._lock = threading.Lock()
        for sock in self._sockets:
            sock.close()


def connect(
    uri: WebSocketURI,
    config: ClientConfig,
    ssl_context: ssl.SSLContext | None,
    unix_path: str | None,
    *,
    proxy: Proxy | None = None,
    headers: Sequence[tuple[str, str]] = (),
    cancel: Cancel | None = None,
    network: Network | None = None,
) -> tuple[Transport, Agreement]:
    """Connect, do TLS and the opening handshake; all within `handshake_timeout`.

    Args:
        uri: Where to.
        config: Timeouts, and what the handshake has.
        ssl_context: For wss; None for the system's authorities.
        unix_path: A Unix-domain socket in place of the URI's host and port.
        proxy: The proxy to go through, if there is to be one.
        headers: Request headers beside those of `config`.
        cancel: What can end this early.
        network: What takes the place of the system's sockets.

    Raises:
        ConnectError: No WebSocket came about; the text says how far it got.
    """
    handshake = ClientHandshake(
        uri,
        subprotocols=config.subprotocols,
        compression=config.deflate,
        headers=(*config.headers, *headers),
    )
    cancel = cancel or Cancel()
    cancel.check()
    attempt = _Attempt(uri, config, proxy, unix_path, cancel, network)
    try:
        way = attempt.reach()
        transport = attempt.secured(way, ssl_context)
        early = b"" if uri.secure else way.received
        return transport, attempt.upgrade(transport, handshake, early)
    except BaseException as exc:
        attempt.give_up()
        # The system's own time-outs have an errno.
        if isinstance(exc, TimeoutError) and exc.errno is None:
            raise ConnectTimeout(
                f"{attempt.step} took longer than handshake_timeout, {config.handshake_timeout} s"
            ) from exc
        if isinstance(exc, OSError) and not isinstance(exc, WebSocketError):
            raise attempt.failure(exc) from exc
        raise


class _Attempt:
    """One way from here to a server, step by step.

    Attributes:
        step: What is being done, for errors.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        config: ClientConfig,
        proxy: Proxy | None,
        unix_path: str | None,
        cancel: Cancel,
        network: Network | None,
    ) -> None:
        self._uri = uri
        self._network = network
        self._deadline = Deadline(config.handshake_timeout)
        self._proxy = proxy
        self._unix_path = unix_path
        self._cancel = cancel
        self._sock: socket.socket | None = None
        self._server = unix_path if unix_path is not None else f"{uri.host} port {uri.port}"
        # With whom the step is, as far as that is the proxy.
        self._via: str | None = None if proxy is None else str(proxy.uri)
        self.step = "connecting"

    def reach(self) -> Way:
        """Connect to the server, or to the proxy and have that do it."""
        proxy = self._proxy
        if proxy is None:
            self.step = f"connecting with {self._server}"
            self._sock = self._open(self._uri.host, self._uri.port)
            return Way(self._sock)
        self.step = f"connecting with the proxy {proxy.uri}"
        self._sock = self._open(proxy.uri.host, proxy.uri.port)
        wire: socket.socket | TLSTransport = self._sock
        if proxy.uri.scheme == "https":
            self.step = f"the TLS handshake with the proxy {proxy.uri}"
            wire = secure_proxy(self._sock, proxy, self._deadline)
        self.step = f"asking the proxy {proxy.uri} for {self._server}"
        if proxy.uri.is_socks:
            way = ask_socks(self._sock, proxy, self._uri, self._deadline)
        else:
            way = ask_http(wire, proxy, self._uri, self._deadline)
        self._via = None
        self._server += f" through the proxy {proxy.uri}"
        return way

    def _open(self, host: str, port: int) -> socket.socket:
        if self._network is not None:
            sock: socket.socket = self._network.connect(port, self._unix_path)
            self._cancel.watch(sock)
            return sock
        if self._unix_path is not None:
            return _open_unix(self._unix_path, self._deadline, self._cancel)
        return _open(host, port, self._deadline, self._cancel)

    def secured(self, way: Way, context: ssl.SSLContext | None) -> Transport:
        """Do TLS with the server, if there is to be TLS."""
        if self._uri.secure:
            self.step = f"the TLS handshake with {self._server}"
            context = context or make_context(ssl.Purpose.SERVER_AUTH)
            return secure(way.wire, context, self._uri.host, self._deadline, way.received)
        return way.wire if isinstance(way.wire, TLSTransport) else make_transport(way.wire)

    def upgrade(self, transport: Transport, handshake: ClientHandshake, early: bytes) -> Agreement:
        """Do the opening handshake; `early` is what has come before the request."""
        self.step = f"the opening handshake with {self._server}"
        return _upgrade(transport, handshake, self._deadline, early)

    def give_up(self) -> None:
        """Close what is open."""
        if self._sock is not None:
            self._cancel.forget(self._sock)
            self._sock.close()

    def failure(self, error: OSError) -> ConnectError:
        """Return what is raised for an error of the system's or of TLS."""
        text = f"{self.step} failed: {_reason(error, self._via)}"
        if isinstance(error, ConnectionRefusedError):
            text += ": nothing listens there"
        if isinstance(error, ssl.SSLError):
            return TLSError(text)
        return ConnectError(text) if self._via is None else ProxyError(text, self._via)


def _reason(exc: OSError, proxy: str | None = None) -> str:
    if isinstance(exc, ssl.SSLError) and exc.reason == "WRONG_VERSION_NUMBER":
        if proxy is not None:
            return "the proxy does not speak TLS there; is its address one of http://?"
        return "the server does not speak TLS there; is its address one of ws://?"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _distrust(exc)
    return exc.strerror or str(exc) or type(exc).__name__


def _distrust(error: ssl.SSLCertVerificationError) -> str:
    """Return why a certificate was refused, and what can be done."""
    text = f"its certificate was refused: {error.verify_message.rstrip('.')}"
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return f"{text}; if its authority is your own, ssl=syncws.TLSConfig(ca_file=...) names it"
    return text


def _open_unix(path: str, deadline: Deadline, cancel: Cancel) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        cancel.watch(sock)
        sock.settimeout(remaining(deadline))
        sock.connect(path)
    except BaseException:
        cancel.forget(sock)
        sock.close()
        raise
    return sock


def _open(host: str, port: int, deadline: Deadline, cancel: Cancel) -> socket.socket:
    """Connect to whichever address of the name answers first."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [
        _Address(family, kind, proto, address)
        for family, kind, proto, _, address in dict.fromkeys(found)
    ]
    sock = _Race(_interleaved(addresses), deadline, cancel).run()
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

    def __init__(self, addresses: list[_Address], deadline: Deadline, cancel: Cancel) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._cancel = cancel
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
                self._lose(key.fileobj)  # type: ignore[arg-type]
            self._selector.close()

    def _lose(self, sock: socket.socket) -> None:
        self._cancel.forget(sock)
        sock.close()

    def _patience(self) -> float | None:
        left = remaining(self._deadline)
        if not self._addresses:
            return left
        return _STAGGER if left is None else min(_STAGGER, left)

    def _start(self) -> socket.socket | None:
        """Begin the next attempt; return its socket if it is connected at once."""
        remaining(self._deadline)
        target = self._addresses.pop(0)
        try:
            sock = socket.socket(target.family, target.kind, target.proto)
        except OSError as exc:  # the system may have no IPv6
            self._errors.append(exc)
            return None
        try:
            self._cancel.watch(sock)
        except BaseException:
            sock.close()
            raise
        sock.setblocking(False)
        code = sock.connect_ex(target.address)
        if code == 0:
            return sock
        if code in _IN_PROGRESS:
            self._selector.register(sock, selectors.EVENT_WRITE)
        else:
            self._lose(sock)
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
            self._lose(sock)
            self._errors.append(OSError(code, os.strerror(code)))
        return None

    def _failure(self) -> OSError:
        if not self._errors:
            return OSError(errno.EADDRNOTAVAIL, "the name has no address")
        texts = dict.fromkeys(_reason(exc) for exc in self._errors)
        return OSError(self._errors[0].errno, "; ".join(texts))


def _upgrade(
    transport: Transport, handshake: ClientHandshake, deadline: Deadline, early: bytes = b""
) -> Agreement:
    send_all(transport, handshake.request_bytes(), deadline)
    agreement = handshake.receive(early) if early else None
    buffer = bytearray(ROOM)
    while agreement is None:
        agreement = handshake.receive(wait_for(transport, buffer, deadline))
    return agreement
