"""Receives clients: what a listener does in the I/O thread.

Threads: `start`, `end`, `forget` and the making of it belong to whoever starts
and stops the listener; everything else runs in the I/O thread.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..endpoint import Address, address_of
from ..engine.lane import Lane, Lanes
from ..engine.loop import IOLoop
from ..engine.tls import TLSTransport
from ..engine.transport import Transport, make_transport
from ..protocol.exchange import is_upgrade
from ..protocol.http import Request
from ..protocol.proxy_protocol import Introduction
from ..protocol.server_handshake import Refusal, check_upgrade, lost_upgrade
from .acceptor import Acceptor, UnixPath
from .admission import Admitted, Terms, agree
from .certificates import Certificates
from .farewell import Farewell
from .hall import Bounds, Hall, examine
from .opening import Opening
from .proxies import Proxies
from .routing import Route, Router
from .site import Site
from .tally import Tally

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["HTTPOptions", "Reception"]

# Clients that are told at once that there is no room; others are cut off.
_MOST_REFUSED = 128

# Seconds that those have for their request, which is read first: or a reset
# could destroy the answer on its way.
_REFUSE = 2.0

_log = logging.getLogger("syncws.server")

#: What an opening asks about a request.
Decide = Callable[[Request, Opening, bytes], Refusal | None]


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


class Reception(Hall):
    """Accepts clients, and leads them to services, resources and the application.

    Args:
        router: Which path leads where.
        certificates: The server's.
        options: What there is to be known of HTTP.
        bounds: How many are let in.
        tally: Is told of every socket, and of all that runs the user's code.
        unix_path: What is to be removed when nobody listens on it any more.
    """

    def __init__(
        self,
        router: Router,
        certificates: Certificates,
        options: HTTPOptions,
        bounds: Bounds,
        tally: Tally,
        unix_path: str | None,
    ) -> None:
        super().__init__(bounds, tally)
        self._router = router
        self._certificates = certificates
        self._options = options
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
        self._deciding: Lane | None = None
        self._farewell: Farewell | None = None
        self._acceptors: list[Acceptor] = []
        self._path: UnixPath | None = None
        self._openings: set[Opening] = set()
        self._refusing: set[Opening] = set()  # those of them that will hear a 503
        # What sockets that may have another request began with, if they had to.
        self._introductions: dict[object, Introduction] = {}

    def start(
        self, loop: IOLoop, sockets: list[socket.socket], lanes: Lanes, *, remove_path: bool = True
    ) -> None:
        """Listen.

        Args:
            loop: The I/O loop.
            sockets: The listening sockets; owned from now on.
            lanes: The loop's, for what may block.
            remove_path: Whether `unix_path` is this one's to remove.
        """
        self.open(loop)
        bound = remove_path and self._unix_path is not None
        self._path = UnixPath(self._unix_path or "") if bound else None
        self._deciding = lanes.deciding
        self._tally.opened(len(sockets))
        self._acceptors = [Acceptor(loop, sock, self._accepted) for sock in sockets]
        if self._site is not None:
            self._site.start(loop, lanes.serving)
        for acceptor in self._acceptors:
            loop.call_soon(acceptor.listen, owner=acceptor)

    def also_accept(self, sockets: list[socket.socket]) -> None:
        """Accept on further listening sockets; owned from now on."""
        assert self._loop is not None
        self._tally.opened(len(sockets))
        for sock in sockets:
            acceptor = Acceptor(self._loop, sock, self._accepted)
            self._loop.call_soon(self._join, acceptor, owner=acceptor)

    def _join(self, acceptor: Acceptor) -> None:
        self._acceptors.append(acceptor)
        acceptor.listen()

    def end(self) -> None:
        """Nothing is left to look after: of this start, for the next may come at once."""
        super().end()
        if self._loop is not None and self._farewell is not None:
            self._loop.call_soon(self._farewell.end)
            self._farewell = None

    def forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._acceptors = []
        self._path = None
        self._openings = set()
        self._refusing = set()
        self._introductions = {}
        self._farewell = None
        if self._site is not None:
            self._site.forget()
        super().forget()

    # -- I/O thread ------------------------------------------------------

    def close_all(self, timeout: float) -> None:
        """Accept no more, and end what there is within `timeout` seconds."""
        self._accept_no_more()
        if self._site is not None:
            self._site.end_soon()
        for opening in list(self._openings):
            opening.stop()
        super().close_all(timeout)

    def close_slowly(self, timeout: float, spread: float) -> None:
        """Accept no more; let in who has begun, and close over `spread` seconds, then all."""
        assert self._loop is not None
        if not self._openings and not self._connections:
            self.close_all(timeout)
            return
        self._farewell = Farewell(
            self._loop, self._openings, self._connections, timeout, spread, self.close_all
        )
        self._accept_no_more()
        self._farewell.begin()

    def _accept_no_more(self) -> None:
        for acceptor in self._acceptors:
            acceptor.abort()
        self._tally.closed(len(self._acceptors))
        self._acceptors = []
        if self._path is not None:
            self._path.remove()

    def abort_all(self) -> None:
        """End what there is now."""
        for opening in list(self._openings):
            opening.abort()
        if self._site is not None:
            self._site.abort()
        super().abort_all()

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
            refusal = self.refusal(address)
            if refusal is not None and len(self._refusing) >= _MOST_REFUSED:
                sock.close()
                return
            if sock.family != getattr(socket, "AF_UNIX", None):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._certificates.context
            transport: Transport
            if tls is None:
                transport = make_transport(sock)
            else:
                transport = TLSTransport(sock, tls, server_side=True)
        except (OSError, ValueError):
            sock.close()  # the client went away meanwhile
            return
        if refusal is None:
            self.enter(transport, address)
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
            self.leave(transport)
            raise
        self._tally.opened()
        self._openings.add(opening)
        return opening

    def _opening_ended(self, opening: Opening) -> None:
        self._openings.discard(opening)
        self._refusing.discard(opening)
        if opening.transport.sock.fileno() < 0:  # else it was taken
            self.leave(opening.transport)
        if opening.status is not None:
            self.count_refusal(opening.status)
        self._tally.closed()

    def leave(self, who: object) -> None:
        """Count one less, and forget what its proxy has said."""
        self._introductions.pop(who, None)
        super().leave(who)

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
            text = f"No WebSocket service is attached to {request.raw_path}"
            if self._site is not None:
                text += ": the application does not get to see requests for WebSockets"
            return Refusal(404, text)
        spec = route.spec
        refusal = examine(request, spec)
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
        admit = functools.partial(self._admit, request, opening, rest, route.path)
        assert self._deciding is not None
        self.hear(opening, request, route, admit=admit).begin(self._deciding)

    def _admit(
        self,
        request: Request,
        opening: Opening,
        rest: bytes,
        path: str,
        terms: Terms,
        held: bool = False,
    ) -> Admitted:
        local = address_of(opening.transport.sock.getsockname())
        return self.let_in(opening, request, rest, path, terms, held, local=local)

    def _request_begun(self) -> None:
        # The application's call and the socket, which is not waited for
        # without the other: a stop from the application would wait for itself.
        self._tally.begun(2)

    def _request_ended(self, transport: Transport, rest: bytes | None) -> None:
        if rest is None:
            self.leave(transport)
        else:
            self._rest(transport)
            opening = self._open_socket(transport, self._options.keep_alive_timeout, resumed=True)
            if rest:
                opening.resume(rest)
        self._tally.done()
