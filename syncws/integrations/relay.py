"""TLS that a WSGI server speaks, for a WebSocket that the engine has.

The state of a TLS connection cannot be given to somebody else. So the server's
thread stays, and carries what comes through its TLS to a socket whose other
end the engine has, and back: a thread for each connection.

Threads: everything here runs in the thread of the host.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl

from .hosts import Host

__all__ = ["Relay"]

# Seconds that a client has to take what it was sent last.
_LEAVE = 2.0

# Bytes carried at once.
_SIZE = 65_536

_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError)


class Relay:
    """Carries bytes between a host's TLS and the engine.

    Args:
        host: The host's connection.
        sock: The other end of the engine's socket; owned from now on.
        given: What the host gets for its connection at the end; owned.
    """

    def __init__(self, host: Host, sock: socket.socket, given: socket.socket) -> None:
        self._host = host
        self._tls = host.tls
        self._sock = sock
        self._given = given
        sock.setblocking(False)
        self._inbound = b""  # from the client, which the engine has not taken
        self._outbound = memoryview(b"")  # from the engine, which the client has not taken
        self._client_ended = False  # nothing more comes from there
        self._engine_ended = False
        self._engine_gone = False  # it takes nothing, either
        self._tls_wants = 0  # what reading and writing the TLS has waited for

    def close(self) -> None:
        """Let go of the sockets: there is nothing to carry."""
        self._sock.close()
        self._given.close()

    def run(self) -> None:
        """Carry, until the engine has closed its end or the client is lost."""
        timeout = self._tls.gettimeout()
        try:
            self._tls.settimeout(0)
            self._inbound = self._host.read_ahead()
            while self._step():
                pass
        except OSError:
            pass  # one of them is lost, and the other one learns it from the end
        finally:
            self._sock.close()
            self._leave(timeout)

    def _leave(self, timeout: float | None) -> None:
        """Give the host something else for its connection, and end that."""
        self._host.discard(self._given)
        # What it still writes would fail after the end of TLS: this ends TLS
        # for the object that it writes to, too.
        self._tls.shutdown(socket.SHUT_RD)
        self._tls.settimeout(timeout)

    def _step(self) -> bool:
        """Carry what can be carried, or wait; return whether there will be more."""
        self._tls_wants = 0
        moved = (self._from_client(), self._to_engine(), self._from_engine(), self._to_client())
        if any(moved):
            return True
        if self._engine_gone and self._engine_ended and not self._outbound:
            return False
        return self._wait()

    def _wait(self) -> bool:
        """Wait until something can be done; return False if nothing can for too long."""
        poller = select.poll()
        if not self._engine_gone:  # else it would be ready always
            reading = 0 if self._outbound or self._engine_ended else select.POLLIN
            poller.register(self._sock, reading | (select.POLLOUT if self._inbound else 0))
        if self._tls_wants:
            poller.register(self._tls.fileno(), self._tls_wants)
        found = dict(poller.poll(_LEAVE * 1000 if self._engine_gone else None))
        if found.get(self._sock.fileno(), 0) & (select.POLLHUP | select.POLLERR):
            self._engine_gone = True
        return bool(found)

    def _from_client(self) -> bool:
        if self._client_ended or self._inbound:
            return False
        try:
            self._inbound = self._tls.recv(_SIZE)
        except _WANTS as exc:
            self._want(exc, select.POLLIN)
            return False
        if not self._inbound:
            self._client_ended = True
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        return True

    def _to_engine(self) -> bool:
        if not self._inbound:
            return False
        try:
            sent = self._sock.send(self._inbound)
        except _WANTS:
            return False
        except OSError:  # the engine is gone, perhaps not without a last word
            self._inbound = b""
            self._client_ended = True
            return True
        self._inbound = self._inbound[sent:]
        return True

    def _from_engine(self) -> bool:
        if self._engine_ended or self._outbound:
            return False
        try:
            self._outbound = memoryview(self._sock.recv(_SIZE))
        except _WANTS:
            return False
        except OSError:  # it is gone without having read everything
            self._engine_gone = True
        if not self._outbound:
            self._engine_ended = True
            with contextlib.suppress(OSError):  # the client has not said the same yet
                self._tls.unwrap()
                self._client_ended = True
            self._host.half_close()
        return True

    def _to_client(self) -> bool:
        if not self._outbound:
            return False
        try:
            sent = self._tls.send(self._outbound)
        except _WANTS as exc:
            self._want(exc, select.POLLOUT)
            return False
        self._outbound = self._outbound[sent:]
        return True

    def _want(self, error: OSError, otherwise: int) -> None:
        """Note what the TLS waits for."""
        if isinstance(error, ssl.SSLWantReadError):
            self._tls_wants |= select.POLLIN
        elif isinstance(error, ssl.SSLWantWriteError):
            self._tls_wants |= select.POLLOUT
        else:
            self._tls_wants |= otherwise
