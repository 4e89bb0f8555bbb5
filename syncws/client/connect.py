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
from ..engine.tls import ROOM, TLSTransport
from ..engine.transport import Transport, make_transport
from ..errors import ConnectError, ConnectTimeout, TLSError, WebSocketError
from ..protocol.client_handshake import Agreement, ClientHandshake
from ..protocol.uri import WebSocketURI
from ..timing import Deadline
from ..tls import make_context

__all__ = ["Cancel", "connect"]

# Seconds between the starts of two attempts at a name's addresses. RFC 8305
# section 5 recommends 250 ms.
_STAGGER = 0.25

_IN_PROGRESS = frozenset((errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR))


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
    headers: Sequence[tuple[str, str]] = (),
    cancel: Cancel | None = None,
) -> tuple[Transport, Agreement]:
    """Connect, do TLS and the opening handshake; all within `handshake_timeout`.

    Args:
        uri: Where to.
        config: Timeouts, and what the handshake has.
        ssl_context: For wss; None for the system's authorities.
        unix_path: A Unix-domain socket in place of the URI's host and port.
        headers: Request headers beside those of `config`.
        cancel: What can end this early.

    Raises:
        ConnectError: No WebSocket came about; the text says how far it got.
    """
    handshake = ClientHandshake(
        uri,
        subprotocols=config.subprotocols,
        compression=config.deflate,
        headers=(*config.headers, *headers),
    )
    deadline = Deadline(config.handshake_timeout)
    cancel = cancel or Cancel()
    cancel.check()
    where = unix_path if unix_path is not None else f"{uri.host} port {uri.port}"
    step = "connecting"
    sock: socket.socket | None = None
    try:
        if unix_path is not None:
            sock = _open_unix(unix_path, deadline, cancel)
        else:
            sock = _open(uri, deadline, cancel)
        if uri.secure:
            step = "the TLS handshake"
            context = ssl_context or make_context(ssl.Purpose.SERVER_AUTH)
            transport = _secure(sock, uri, context, deadline)
        else:
            transport = make_transport(sock)
        step = "the opening handshake"
        agreement = _upgrade(transport, handshake, deadline)
    except BaseException as exc:
        if sock is not None:
            cancel.forget(sock)
            sock.close()
        # The system's own time-outs have an errno.
        if isinstance(exc, TimeoutError) and exc.errno is None:
            raise ConnectTimeout(
                f"{step} with {where} took longer than handshake_timeout, "
                f"{config.handshake_timeout} s"
            ) from exc
        if isinstance(exc, OSError) and not isinstance(exc, WebSocketError):
            kind = TLSError if isinstance(exc, ssl.SSLError) else ConnectError
            raise kind(f"{step} with {where} failed: {_reason(exc)}") from exc
        raise
    return transport, agreement


def _reason(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError) and exc.reason == "WRONG_VERSION_NUMBER":
        return "the server does not speak TLS there; is its address one of ws://?"
    return exc.strerror or str(exc) or type(exc).__name__


def _remaining(deadline: Deadline) -> float | None:
    remaining = deadline.remaining()
    if remaining == 0.0:
        raise TimeoutError
    return remaining


def _open_unix(path: str, deadline: Deadline, cancel: Cancel) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        cancel.watch(sock)
        sock.settimeout(_remaining(deadline))
        sock.connect(path)
    except BaseException:
        cancel.forget(sock)
        sock.close()
        raise
    return sock


def _open(uri: WebSocketURI, deadline: Deadline, cancel: Cancel) -> socket.socket:
    """Connect to whichever address of the name answers first."""
    found = socket.getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM)
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


def _secure(
    sock: socket.socket, uri: WebSocketURI, context: ssl.SSLContext, deadline: Deadline
) -> Transport:
    """Return `sock` after its TLS handshake."""
    transport = TLSTransport(sock, context, server_hostname=uri.host)
    while not transport.handshake():
        _wait(transport, transport.wants_write, deadline)
    return transport


def _upgrade(transport: Transport, handshake: ClientHandshake, deadline: Deadline) -> Agreement:
    rest = memoryview(handshake.request_bytes())
    while rest := rest[transport.send(rest) :]:
        _wait(transport, not transport.wants_read, deadline)
    buffer = bytearray(ROOM)
    agreement = None
    while agreement is None:
        try:
            size = transport.receive(buffer)
        except ConnectionResetError:
            size = 0
        if size < 0:
            _wait(transport, transport.wants_write, deadline)
        else:
            _remaining(deadline)  # there may always be something to read
            agreement = handshake.receive(bytes(buffer[:size]))
    return agreement


def _wait(transport: Transport, writable: bool, deadline: Deadline) -> None:
    """Wait until the socket can be written to or, if not `writable`, read from.

    Raises:
        TimeoutError: It was not in time.
    """
    with selectors.DefaultSelector() as selector:
        mask = selectors.EVENT_WRITE if writable else selectors.EVENT_READ
        selector.register(transport.sock, mask)
        if not selector.select(_remaining(deadline)):
            raise TimeoutError
