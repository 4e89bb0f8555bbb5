"""Receives clients: what a listener does in the I/O thread.

Threads: `start`, `end`, `forget` and the making of it belong to whoever starts
and stops the listener; everything else runs in the I/O thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import socket
import ssl as ssl_module
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..endpoint import Address, address_of
from ..engine.budget import Budget
from ..engine.connection import Connection
from ..engine.lane import Lane, Lanes
from ..engine.loop import IOLoop
from ..engine.tls import TLSTransport
from ..engine.transport import Transport, make_transport
from ..errors import Close
from ..protocol.exchange import is_upgrade
from ..protocol.http import Request
from ..protocol.proxy_protocol import Introduction
from ..protocol.server_handshake import Refusal, check_origin, check_upgrade, lost_upgrade
from ..timing import Deadline
from .acceptor import Acceptor
from .admission import Admitted, Terms, admit, agree, start
from .door import Door
from .opening import Opening
from .proxies import Proxies
from .routing import Route, Router
from .site import Site
from .upgrade import Hearing

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Bounds", "HTTPOptions", "Reception", "Tally"]

# Clients that are told at once that there is no room; others are cut off.
_MOST_REFUSED = 128

# Seconds that those have for their request, which is read first: or a reset
# could destroy the answer on its way.
_REFUSE = 2.0

_OVERLOADED = Refusal(503, "The server is overloaded. Try again later.", (("Retry-After", "5"),))

_log = logging.getLogger("syncws.server")

#: What an opening asks about a request.
Decide = Callable[[Request, Opening, bytes], Refusal | None]


class Tally:
    """Counts what a listener's stop waits for. Any thread."""

    def __init__(self) -> None:
        # Guarded by _changed.
        self._changed = threading.Condition()
        self._open = 0  # sockets, listening ones included
        # Resources, requests, and connections whose on_close has not returned.
        self._running = 0

    def __repr__(self) -> str:
        return f"<Tally of {self._open} sockets, {self._running} callbacks>"

    def opened(self, number: int = 1) -> None:
        """There are so many more sockets."""
        with self._changed:
            self._open += number

    def closed(self, number: int = 1) -> None:
        """There are so many less."""
        with self._changed:
            self._open -= number
            self._changed.notify_all()

    def begun(self, number: int = 1) -> None:
        """So much more of the user's code is to run."""
        with self._changed:
            self._running += number

    def done(self) -> None:
        """One of those has returned, or will never be called."""
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def forget(self) -> None:
        """In a forked child: who held the lock is not here, nor what was counted."""
        self._changed = threading.Condition()
        self._open = self._running = 0

    def wait(self, deadline: Deadline, sockets_only: bool) -> bool:
        """Wait until there is nothing, or no socket; return whether that is so."""
        with self._changed:
            while self._open or (self._running and not sockets_only):
                remaining = deadline.remaining()
                if remaining == 0.0:
                    return False
                self._changed.wait(remaining)
        return True


@dataclasses.dataclass(frozen=True)
class HTTPOptions:
    """How requests are read, and by whom they are answered; see `Listener`."""

    handshake_timeout: float | None
    max_handshake_size: int
    app: WSGIApplication | None
    max_body_size: int | None
    http_timeout: float | None
    keep_alive_timeout: float | None
    proxies: Proxies | None = None  # those that are believed


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How many are let in, and what they may hold; see `Listener`."""

    max_connections: int | None
    max_connections_per_address: int | None
    max_buffered_bytes: int | None


class Reception:
    """Accepts clients, and leads them to services, resources and the application.

    Args:
        router: Which path leads where.
        tls: The server's certificate; None for plain connections. Any thread may
            put another one in its place, for connections that are still to come.
        options: What there is to be known of HTTP.
        bounds: How many are let in.
        tally: Is told of every socket, and of all that runs the user's code.
        unix_path: What is to be removed when nobody listens on it any more.
    """

    def __init__(
        self,
        router: Router,
        tls: ssl_module.SSLContext | None,
        options: HTTPOptions,
        bounds: Bounds,
        tally: Tally,
        unix_path: str | None,
    ) -> None:
        self._router = router
        self.tls = tls
        self._options = options
        self._bounds = bounds
        self._tally = tally
        self._unix_path = unix_path
        self._site: Site | None = None
        if options.app is not None:
            self._site = Site(
                options.app,
                max_body_size=options.max_body_size,
                timeout=options.http_timeout,
                keep_alive=options.keep_alive_timeout != 0,
                on_begin=self._request_begun,
                on_end=self._request_ended,
                on_done=tally.done,
            )

        # Owned by the I/O thread; before that `start` sets what it is to begin with.
        self._loop: IOLoop | None = None
        self._deciding: Lane | None = None
        self._door: Door | None = None
        self._budget: Budget | None = None
        self._acceptors: list[Acceptor] = []
        self._openings: set[Opening] = set()
        self._refusing: set[Opening] = set()  # those of them that will hear a 503
        self._connections: set[Connection] = set()
        # What sockets that may have another request began with, if they had to.
        self._introductions: dict[Transport, Introduction] = {}

    def start(self, loop: IOLoop, sockets: list[socket.socket], lanes: Lanes) -> None:
        """Listen.

        Args:
            loop: The I/O loop.
            sockets: The listening sockets; owned from now on.
            lanes: The loop's, for what may block.
        """
        self._loop = loop
        self._deciding = lanes.deciding
        self._tally.opened(len(sockets))
        bounds = self._bounds
        if bounds.max_connections is not None or bounds.max_connections_per_address is not None:
            self._door = Door(
                bounds.max_connections,
                bounds.max_connections_per_address,
                loop.clock,
                loop.journal,
            )
        if bounds.max_buffered_bytes is not None:
            self._budget = Budget(loop, self._connections, bounds.max_buffered_bytes)
        self._acceptors = [Acceptor(loop, sock, self._accepted) for sock in sockets]
        if self._site is not None:
            self._site.start(loop, lanes.serving)
        for acceptor in self._acceptors:
            loop.call_soon(acceptor.listen, owner=acceptor)

    def end(self) -> None:
        """Nothing is left to look after: of this start, for the next may come at once."""
        if self._loop is not None and self._budget is not None:
            self._loop.call_soon(self._budget.end)

    def forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._acceptors = []
        self._openings = set()
        self._refusing = set()
        self._connections = set()
        self._introductions = {}
        self._door = self._budget = None
        if self._site is not None:
            self._site.forget()
        self._tally.forget()

    # -- I/O thread ------------------------------------------------------

    def close_all(self, timeout: float) -> None:
        """Accept no more, and end what there is within `timeout` seconds."""
        for acceptor in self._acceptors:
            acceptor.abort()
        self._tally.closed(len(self._acceptors))
        self._acceptors = []
        if self._unix_path is not None:
            with contextlib.suppress(OSError, ValueError):  # it may be gone, or be abstract
                os.unlink(self._unix_path)
        if self._site is not None:
            self._site.end_soon()
        for opening in list(self._openings):
            opening.stop()
        for connection in list(self._connections):
            connection.start_close(Close(1001, "the server is going away"), timeout)

    def abort_all(self) -> None:
        """End what there is now."""
        for opening in list(self._openings):
            opening.abort()
        if self._site is not None:
            self._site.abort()
        for connection in list(self._connections):
            connection.abort()

    def _accepted(self, sock: socket.socket) -> None:
        assert self._loop is not None
        try:
            address: Address = ""
            if self._door is not None or self._options.proxies is not None:
                address = address_of(sock.getpeername())
            if self._turned_away(address):
                sock.close()
                return
            address = self._counted(address)
            refusal = self._refusal(address)
            if refusal is not None and len(self._refusing) >= _MOST_REFUSED:
                sock.close()
                return
            if sock.family != getattr(socket, "AF_UNIX", None):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self.tls
            transport: Transport
            if tls is None:
                transport = make_transport(sock)
            else:
                transport = TLSTransport(sock, tls, server_side=True)
        except (OSError, ValueError):
            sock.close()  # the client went away meanwhile
            return
        if refusal is None:
            if self._door is not None:
                self._door.enter(transport, address)
            self._open_socket(transport, self._options.handshake_timeout)
        else:
            opening = self._open_socket(transport, _REFUSE, decide=lambda *_: refusal)
            self._refusing.add(opening)

    def _turned_away(self, address: Address) -> bool:
        """Whether a client has come past the proxies that have to introduce it."""
        proxies = self._options.proxies
        if proxies is None or not proxies.turns_away(address):
            return False
        assert self._loop is not None
        text = "turned %s away: with proxy_protocol only trusted_proxies may connect"
        self._loop.journal.write(_log, logging.INFO, text, address)
        return True

    def _counted(self, address: Address) -> Address:
        """Return the address that a socket counts for at the door."""
        proxies = self._options.proxies
        return address if proxies is None else proxies.counted(address)

    def _introduced(self, opening: Opening) -> Refusal | None:
        """A proxy says who the client is: return why it has to stay outside, if that is so."""
        assert opening.introduction is not None
        transport, source = opening.transport, opening.introduction.source
        self._introductions[transport] = opening.introduction
        if self._door is None or source is None or opening in self._refusing:
            return None
        refusal = self._door.move(transport, self._counted(source))
        if refusal is not None:
            self._refusing.add(opening)
            if len(self._refusing) > _MOST_REFUSED:
                opening.abort()
        return refusal

    def _rest(self, transport: Transport) -> None:
        """Between requests: a proxy's next one may be another client's."""
        if self._door is None or self._options.proxies is None:
            return
        introduction = self._introductions.get(transport)
        if introduction is None or introduction.source is None:
            self._door.rest(transport)
        else:
            self._door.move(transport, self._counted(introduction.source))

    def _refusal(self, address: Address) -> Refusal | None:
        """Return why a client has to stay outside, if that is so."""
        if self._budget is not None and self._budget.full:
            return _OVERLOADED
        return self._door.refusal(address) if self._door is not None else None

    def _open_socket(
        self,
        transport: Transport,
        timeout: float | None,
        *,
        resumed: bool = False,
        decide: Decide | None = None,
    ) -> Opening:
        assert self._loop is not None
        options = self._options
        try:
            opening = Opening(
                self._loop,
                transport,
                deadline=None if timeout is None else self._loop.clock() + timeout,
                max_size=options.max_handshake_size,
                decide=decide or self._decide,
                on_end=self._opening_ended,
                resumed=resumed,
                head_timeout=options.handshake_timeout,
                proxies=options.proxies,
                introduction=self._introductions.get(transport),
                on_introduction=self._introduced,
            )
        except BaseException:
            transport.close()
            self._left(transport)
            raise
        self._tally.opened()
        self._openings.add(opening)
        return opening

    def _opening_ended(self, opening: Opening) -> None:
        self._openings.discard(opening)
        self._refusing.discard(opening)
        if opening.transport.sock.fileno() < 0:  # else it was taken
            self._left(opening.transport)
        self._tally.closed()

    def _left(self, transport: Transport) -> None:
        self._introductions.pop(transport, None)
        if self._door is not None:
            self._door.leave(transport)

    def _decide(self, request: Request, opening: Opening, rest: bytes) -> Refusal | None:
        """Refuse a request, make its socket a connection, or ask a resource or the application."""
        if self._door is not None and self._options.proxies is not None:
            refusal = self._door.move(opening.transport, self._counted(request.remote_address))
            if refusal is not None:
                return refusal
        if self._site is not None and not is_upgrade(request):
            if lost_upgrade(request) and self._router.match(request.raw_path) is not None:
                return check_upgrade(request)
            self._site.serve(request, opening, rest)
            return None
        route = self._router.match(request.raw_path)
        if route is None:
            return Refusal(404, f"No WebSocket service is attached to {request.raw_path}")
        spec = route.spec
        refusal = check_upgrade(request)
        if refusal is None and spec is not None:
            refusal = check_origin(request, spec.config.allowed_origins, request.is_secure)
        if refusal is not None:
            return refusal
        if route.params:
            request = dataclasses.replace(request, path_params=dict(route.params))
        if route.resource is not None:
            self._ask(request, opening, rest, route)
        else:
            assert spec is not None
            self._admit(request, opening, rest, route.path, agree(request, spec))
        return None

    def _ask(self, request: Request, opening: Opening, rest: bytes, route: Route) -> None:
        assert self._loop is not None
        self._tally.begun()
        hearing = Hearing(
            self._loop,
            opening,
            request,
            route,
            admit=functools.partial(self._admit, request, opening, rest, route.path),
            on_done=self._tally.done,
        )
        assert self._deciding is not None
        hearing.begin(self._deciding)

    def _admit(
        self,
        request: Request,
        opening: Opening,
        rest: bytes,
        path: str,
        terms: Terms,
        held: bool = False,
    ) -> Admitted:
        """Make an opening a connection; its callbacks may have to wait for `go_on`."""
        loop = self._loop
        assert loop is not None
        local = address_of(opening.transport.sock.getsockname())
        self._tally.opened()
        self._tally.begun()
        admitted = admit(
            loop,
            opening.take(),
            request,
            path,
            terms,
            addresses=(local, request.remote_address),
            on_done=self._tally.done,
            on_end=self._connection_ended,
            budget=self._budget,
        )
        self._connections.add(admitted.connection)
        if held:
            admitted.dispatcher.hold()
        start(loop, admitted, terms, rest)
        return admitted

    def _request_begun(self) -> None:
        # The application's call and the socket, which is not waited for
        # without the other: a stop from the application would wait for itself.
        self._tally.begun(2)

    def _request_ended(self, transport: Transport, rest: bytes | None) -> None:
        if rest is None:
            self._left(transport)
        else:
            self._rest(transport)
            opening = self._open_socket(transport, self._options.keep_alive_timeout, resumed=True)
            if rest:
                opening.resume(rest)
        self._tally.done()

    def _connection_ended(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._left(connection.transport)
        self._tally.closed()
