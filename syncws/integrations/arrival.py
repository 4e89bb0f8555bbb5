"""A client that a WSGI server holds, on its way to a service.

Threads: what stands under "I/O thread" runs there; all else in the thread of
the WSGI server, which waits for the I/O thread now and then, and for nobody
else.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from ..endpoint import address_of
from ..engine.dispatch import nothing
from ..engine.loop import READ, IOLoop
from ..engine.transport import Transport, make_transport
from ..errors import ConnectionClosed
from ..logs import log_safely
from ..protocol.http import Request, target_for_log
from ..protocol.server_handshake import Refusal
from ..server.admission import Admitted, Terms
from ..server.hall import Hall
from ..server.routing import Route
from .hosts import Host, Moved, make_sink
from .relay import Relay

__all__ = ["LOST", "STOPPING", "Arrival", "log_refusal"]

STOPPING = Refusal(503, "The server is going away.", (("Retry-After", "5"),))
LOST = Refusal(503, "The client has gone.")
_FULL = Refusal(503, "The server is overloaded. Try again later.", (("Retry-After", "5"),))

_log = logging.getLogger("syncws.server")


def log_refusal(request: Request, refusal: Refusal) -> None:
    """Log that a client is refused, as a listener does."""
    level = logging.WARNING if refusal.status == 403 else logging.INFO
    target, status, text = target_for_log(request), refusal.status, refusal.text
    log_safely(_log, level, "refused %s with %d: %s", target, status, text)


class Arrival:
    """One client: what an `Opening` is to a listener.

    Args:
        hall: Where it is to be let in.
        loop: The hall's loop.
        host: The connection.
        request: The request.
        attributes: What the caller's `attributes` begin with.
        on_end: Called once, in the I/O thread, when it is refused or let in.

    Attributes:
        waiting: Whether it is yet to be refused or let in. In the I/O thread.
        relay: What is to run then, if the host speaks TLS: that cannot be moved.
    """

    def __init__(
        self,
        hall: Hall,
        loop: IOLoop,
        host: Host,
        request: Request,
        attributes: Mapping[str, Any],
        on_end: Callable[[Arrival], None],
    ) -> None:
        self._hall = hall
        self._loop = loop
        self._host = host
        self._request = request
        self._attributes = attributes
        self._on_end = on_end
        self.relay: Relay | None = None
        # Whether it has entered (None) or must not, and then what came of it:
        # None for a connection.
        self._outcome: SimpleQueue[Refusal | None] = SimpleQueue()
        self._moved: Moved | None = None  # written before `take` is called
        self._path = ""

        # Owned by the I/O thread.
        self.waiting = False
        self._on_lost: Callable[[], None] = nothing

    # -- Thread of the host ----------------------------------------------

    def settle(
        self, route: Route, headers: Sequence[tuple[str, str]], terms: Terms | None
    ) -> Refusal | None:
        """Make the client a connection; return None, or why it is none.

        Args:
            route: The service, or the resource that is to be asked.
            headers: Headers of the 101 that a resource accepts with.
            terms: What to let it in with, without a resource.
        """
        self._path = route.path
        try:
            return self._settle(route, headers, terms)
        except BaseException:  # a signal's, perhaps
            self._loop.call_soon(self.abort, owner=self)
            raise

    def _settle(
        self, route: Route, headers: Sequence[tuple[str, str]], terms: Terms | None
    ) -> Refusal | None:
        self._loop.call_soon(self._enter, owner=self)
        refusal = self._outcome.get()
        if refusal is not None:
            log_refusal(self._request, refusal)
            return refusal
        if terms is None:
            hearing = self._hall.hear(
                self, self._request, route, admit=self._admit, headers=headers
            )
            self._loop.call_soon(hearing.await_run, owner=self)
            hearing.run()
        else:
            with contextlib.suppress(ConnectionClosed):  # then there is an outcome
                self.prepare()
                self._loop.call_soon(self._admit_now, terms, owner=self)
        refusal = self._outcome.get()
        if refusal is not None:
            self._clear()
        return refusal

    def prepare(self) -> None:
        """Take the connection from the host.

        Raises:
            ConnectionClosed: There are no descriptors left, or it is refused
                already: the host has to say so.
        """
        if not self.waiting:
            raise ConnectionClosed
        try:
            self._move()
        except OSError as exc:
            log_safely(_log, logging.ERROR, "cannot take a connection over: %s", exc)
            self._loop.call_soon(self.reply, _FULL, owner=self)
            raise ConnectionClosed from exc

    def _move(self) -> None:
        if self._host.tls is not None:
            ours, theirs = socket.socketpair()
            sink, given = make_sink()
            self.relay = Relay(self._host, theirs, given)
            self._moved = Moved(ours, sink, b"")
        else:
            self._moved = self._host.move()

    def _clear(self) -> None:
        """It was refused after all: give back what was made for it."""
        moved, self._moved = self._moved, None
        if self.relay is not None:
            self.relay.close()
            self.relay = None
        if moved is not None:
            moved.sock.close()
            moved.sink.close()

    def has_left(self) -> bool:
        """Whether the client has hung up, as far as the system knows. Any thread."""
        return self._host.has_left()

    # -- I/O thread ------------------------------------------------------

    def _enter(self) -> None:
        refusal = self._hall.refusal(self._request.remote_address)
        if refusal is not None:
            self._end(refusal)
            return
        self._hall.enter(self, self._request.remote_address)
        self.waiting = True
        self._loop.own(self)
        self._outcome.put(None)

    def wait(self, on_lost: Callable[[], None]) -> None:
        """Wait until `take` or `reply`; `on_lost` is called if it comes to neither."""
        if self.waiting:
            self._on_lost = on_lost
        else:
            on_lost()

    def _admit(self, terms: Terms, held: bool) -> Admitted:
        assert self._moved is not None
        return self._hall.let_in(
            self,
            self._request,
            self._moved.rest,
            self._path,
            terms,
            held,
            local=address_of(self._host.local),
            attributes=self._attributes,
        )

    def _admit_now(self, terms: Terms) -> None:
        if self.waiting:
            self._admit(terms, False)

    def take(self) -> Transport:
        """Give the socket up to a connection."""
        assert self._moved is not None
        assert self.waiting
        sock, sink, _ = self._moved
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = make_transport(sock, secure=self._request.is_secure)
        self._loop.register(sock, READ, self)
        Sink(self._loop, sink)
        self._moved = None
        self._end(None)
        self._hall.enter(transport, self._request.remote_address)
        return transport

    def reply(self, refusal: Refusal) -> None:
        """Refuse the client. Harmless if it has its answer."""
        if self.waiting:
            self._end(refusal)

    def stop(self) -> None:
        """The server stops."""
        if self.waiting:
            on_lost = self._on_lost
            self._end(STOPPING)
            on_lost()

    def abort(self) -> None:
        """Give the client up. Harmless twice."""
        if self.waiting:
            on_lost = self._on_lost
            self._end(LOST)
            on_lost()

    def _end(self, refusal: Refusal | None) -> None:
        self.waiting = False
        self._on_lost = nothing
        self._hall.leave(self)
        self._loop.disown(self)
        self._on_end(self)
        self._outcome.put(refusal)

    def on_ready(self, mask: int) -> None:
        """Nobody has taken the socket over, which does not happen."""

    def on_loop_error(self, error: BaseException) -> None:
        """Something of ours raised."""
        self.abort()

    def abandon(self) -> None:
        """In a forked child: the client is the parent's."""


class Sink:
    """Takes what a host writes for a connection that it has no more.

    Threads: everything here runs in the I/O thread.
    """

    def __init__(self, loop: IOLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        loop.own(self)
        try:
            loop.register(sock, READ, self)
        except BaseException:
            loop.disown(self)
            raise

    def on_ready(self, mask: int) -> None:
        """Drop what has come, up to the end."""
        try:
            if self._sock.recv_into(self._loop.buffer):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass  # it was reset: the host has not read its end
        self.abort()

    def abort(self) -> None:
        """Let go of it."""
        self._loop.disown(self)
        self._loop.unregister(self._sock)
        self._sock.close()

    def on_loop_error(self, error: BaseException) -> None:
        """Something of ours raised."""
        self.abort()

    def abandon(self) -> None:
        """In a forked child."""
        self._sock.close()
