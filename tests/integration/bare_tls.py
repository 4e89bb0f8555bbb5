"""TLS whose records pass through the test's hands, so that they can be cut, spoilt or dripped."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, cast

import syncws
from tests.support import RawPeer, RawServer, Recorder, Task, client_tls, listening, server_tls

__all__ = ["BareTLS", "end_of", "newest"]


def newest(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Have this context of the test's own speak no newer version; return it."""
    context.maximum_version = version
    return context


class BareTLS:
    """Stands for a TLS socket, as far as `RawPeer` uses one.

    Args:
        sock: A connected socket; owned from now on.
        context: Decides which end this is.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.raw = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.protocol is ssl.PROTOCOL_TLS_SERVER
        name = None if server else "localhost"
        self.tls = context.wrap_bio(self._in, self._out, server, name)

    def peer(self) -> RawPeer:
        """Return this as a peer, before or after the handshake."""
        server = self.tls.context.protocol is ssl.PROTOCOL_TLS_SERVER
        return RawPeer(cast(socket.socket, self), client=not server)

    def _do(self, call: Callable[..., Any], *args: Any) -> Any:
        while True:
            try:
                return call(*args)
            except ssl.SSLWantReadError:
                self.flush()
                data = self.raw.recv(65_536)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()
            finally:
                self.flush()

    def flush(self) -> None:
        """Send the records that wait, if there still is someone to take them."""
        with contextlib.suppress(ConnectionError):
            self.raw.sendall(self._out.read())

    def handshake(self) -> None:
        """Do the whole TLS handshake."""
        self._do(self.tls.do_handshake)

    def hello(self) -> bytes:
        """Return the client's first flight, which has not been sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._out.read()

    def answer(self) -> bytes:
        """Return what the server has for the client's first flight, and has not sent."""
        while not (flight := self._out.read()):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            if not self._out.pending:
                self._in.write(self.raw.recv(65_536))
        return flight

    def seal(self, data: bytes) -> bytes:
        """Return the records of this data, which are not sent."""
        self.tls.write(data)
        return self._out.read()

    def close_notify(self) -> bytes:
        """Return the record that ends the stream, which is not sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._out.read()

    def alert(self) -> bytes:
        """Return a fatal alert under the keys of the connection, which is not sent."""
        self._in.write(b"\x17\x03\x03\x00\x40" + bytes(0x40))
        with contextlib.suppress(ssl.SSLError):
            while True:
                self.tls.read(65_536)
        return self._out.read()

    # -- What `RawPeer` uses -----------------------------------------------

    def sendall(self, data: bytes) -> None:
        self.raw.sendall(self.seal(data))

    def recv(self, size: int) -> bytes:
        """Return what has come, or nothing at an end, with or without a close_notify."""
        try:
            return cast(bytes, self._do(self.tls.read, size))
        except ssl.SSLEOFError:
            return b""

    def settimeout(self, timeout: float | None) -> None:
        self.raw.settimeout(timeout)

    def shutdown(self, how: int) -> None:
        self.raw.shutdown(how)

    def close(self) -> None:
        self.raw.close()


@contextlib.contextmanager
def end_of(
    role: str, service: Recorder, context: ssl.SSLContext, **options: Any
) -> Iterator[tuple[RawPeer, BareTLS, str]]:
    """Another end for a listener or a client of ours, as `role` says.

    Args:
        role: What is tested, "server" or "client".
        service: Its service.
        context: The other end's, a client's or a server's.
        options: Those of the service or the client.

    Yields:
        The peer, its TLS, and the address of the listener.
    """
    if role == "server":
        service.config = syncws.ServiceConfig(**options)
        with listening(service, ssl=server_tls()) as listener:
            tls = BareTLS(RawPeer.dial(listener).sock, context)
            with tls.peer() as peer:
                tls.handshake()
                peer.send_bytes(RawPeer.request())
                assert peer.read_head().startswith(b"HTTP/1.1 101 ")
                yield peer, tls, f"wss://localhost:{listener.port}/"
        return
    with RawServer() as server:
        url = f"wss://localhost:{server.port}/"
        opening = Task(syncws.Client, url, service=service, ssl=client_tls(), **options)
        tls = BareTLS(server.accept().sock, context)
        with tls.peer() as peer:
            tls.handshake()
            peer.answer()
            client = opening.result()
            try:
                yield peer, tls, ""
            finally:
                peer.abort()
                client.close()
