"""WebSockets in any WSGI application, in the server that it runs in already.

A view hands its request to a service::

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/chat":
            return upgrade(environ, Chat())(environ, start_response)
        ...

The response that `upgrade` returns takes the connection out of the server's
hands when the server calls it, and is over: the server's thread is free for
other requests, and the connection lives on in the engine's I/O thread, as a
listener's does. The server itself notices nothing. It writes its response into
a socket that leads nowhere, and its log has a 101.

Threads: everything here runs in whatever thread the server calls the
application in.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from http.client import responses
from typing import Any

from ..callbacks import ServiceSpec
from ..engine.engine import Engine, default_engine
from ..engine.loop import IOLoop
from ..protocol.headers import Headers, normalize_extra_headers
from ..protocol.http import RESERVED, HeadError, Request
from ..protocol.server_handshake import Refusal, refusal_content, refusal_response
from ..server.admission import agree
from ..server.caller import Caller
from ..server.hall import Bounds, Hall, examine
from ..server.routing import Route
from ..server.stats import ListenerStats
from ..server.tally import Tally
from ..server.upgrade import HeadersArgument, check_offered
from ..service import Service
from ..timing import Deadline, check_timeout
from .arrival import LOST, STOPPING, Arrival, log_refusal
from .environ import request_of
from .hosts import Host, find_host

__all__ = ["Adopter", "UpgradeResponse", "default_adopter", "upgrade"]

#: What an upgrade resource is: see `Listener.upgrade`.
Resource = Callable[..., Any]

# Seconds that open WebSockets have at the end of the process.
_EXIT = 1.0

# What stands for a request in the log that is none.
_NO_REQUEST = Request("", "a request", "", "", Headers())

# Headers of a framework's response that tell of its body, or of what only a
# server can know: they are no part of a 101.
_OF_BODIES = frozenset(
    {
        *RESERVED,
        "accept-ranges",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-range",
        "content-type",
        "etag",
        "keep-alive",
        "last-modified",
        "proxy-connection",
        "te",
        "trailer",
    }
)


class _Hall(Hall):
    """Where the clients are that have come through WSGI servers."""

    def __init__(self, bounds: Bounds, tally: Tally) -> None:
        super().__init__(bounds, tally)
        # Owned by the I/O thread.
        self._arrivals: set[Arrival] = set()
        self._closing = False

    def open(self, loop: IOLoop) -> None:
        super().open(loop)
        self._closing = False

    def forget(self) -> None:
        super().forget()
        self._arrivals = set()

    def close_all(self, timeout: float) -> None:
        self._closing = True
        for arrival in list(self._arrivals):
            arrival.stop()
        super().close_all(timeout)

    def abort_all(self) -> None:
        for arrival in list(self._arrivals):
            arrival.abort()
        super().abort_all()

    def enter(self, who: object, address: Any) -> None:
        super().enter(who, address)
        if isinstance(who, Arrival):
            self._arrivals.add(who)

    def refusal(self, address: Any) -> Refusal | None:
        return STOPPING if self._closing else super().refusal(address)

    def arrival_ended(self, arrival: Arrival) -> None:
        """A client was refused, or let in."""
        self._arrivals.discard(arrival)
        self._tally.closed()


class UpgradeResponse:
    """The answer to a request for a WebSocket: a WSGI application that is called once.

    The connection is taken when it is called, so what is put into `headers`
    before that goes out with the 101. Frameworks that call `start_response`
    themselves call `settle` instead.

    Attributes:
        status: 101, or the status of a refusal as far as it is known already:
            what only the resource or the limits refuse is not.
        headers: (name, value) pairs of the answer beside those of the
            handshake, to be added to. What a 101 cannot have, such as a
            Content-Length, is left out of it.
        body: What the answer to a refused client says.
        request: What the service gets as `caller.request`; None if it was not
            even that.
    """

    def __init__(self, adopter: Adopter, request: Request | None, refusal: Refusal | None) -> None:
        self._adopter = adopter
        self._settled = False
        self._refusal: Refusal | None = None
        self.request = request
        self.status = 101
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        # What there is to be done, unless it is refused; see `Adopter.upgrade`.
        self._host: Host | None = None
        self._route: Route | None = None
        self._own: tuple[tuple[str, str], ...] = ()
        self._subprotocol: str | None = None
        self._attributes: dict[str, Any] = {}
        if refusal is not None:
            self._refuse(refusal)

    def __repr__(self) -> str:
        return f"<syncws.UpgradeResponse {self.status}>"

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer the client: take the connection, or refuse it as any other response.

        Under TLS it returns when the connection has ended.
        """
        self.settle()
        start_response(f"{self.status} {responses.get(self.status, 'Refused')}", self.headers)
        return [self.body] if self.body else []

    def settle(self, *, late: bool = False) -> int:
        """Let the client in, or find out why not; return the status.

        Afterwards `status`, `headers` and `body` are final. If the status is
        101 the client has it already, and whatever the server still writes is
        dropped; a refusal is the server's to send.

        Args:
            late: The server was told 101 already, as it was the `status`. So
                the client hears of a refusal from us, and the server's 101 is
                dropped.

        Raises:
            RuntimeError: It was called before.
        """
        if self._settled:
            raise RuntimeError("the client has its answer already")
        self._settled = True
        if self.status == 101:
            refusal = self._adopter._adopt(self, late)
            if refusal is not None:
                self._refuse(refusal)
        elif self._refusal is not None:
            self._refuse(self._refusal)
        return self.status

    def _refuse(self, refusal: Refusal) -> None:
        """Make this the answer, with what has been added to it."""
        self._refusal = refusal
        fields, self.body = refusal_content(refusal)
        self.status = refusal.status
        replaced = {name.lower() for name, _ in (*fields, *refusal.headers)} - {"set-cookie"}
        kept = [field for field in self.headers if field[0].lower() not in replaced]
        self.headers = [*kept, *refusal.headers, *fields]


class Adopter:
    """Takes WebSockets over from the WSGI server that the process runs in.

    The threads start with the first of them; `upgrade` is all there is to
    call. Open ones are told 1001 when the process ends as Python programs do:
    by a return, by SystemExit, or as its server handles signals.

    Args:
        engine: The threads to run on; the process's own if None.
        max_connections: WebSockets at once. Further clients get 503. None: as
            many as there are descriptors.
        max_connections_per_address: The same for one client's address, which
            for IPv6 is its first 64 bits; see `request_of` for what that is.
        max_buffered_bytes: Bytes that all of them together may hold; see
            `Listener`.

    Its methods may be called from any thread.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        max_connections: int | None = None,
        max_connections_per_address: int | None = None,
        max_buffered_bytes: int | None = 268_435_456,
    ) -> None:
        if engine is not None and not isinstance(engine, Engine):
            raise TypeError(f"engine must be a syncws.Engine or None, not {engine!r}")
        self._engine = engine
        self._tally = Tally()
        self._hall = _Hall(
            Bounds(max_connections, max_connections_per_address, max_buffered_bytes), self._tally
        )

        # Guarded by _lock.
        self._lock = threading.Lock()
        self._loop: IOLoop | None = None
        self._stopping = False
        _adopters.add(self)

    def __repr__(self) -> str:
        return f"<syncws.Adopter of {len(self)} WebSockets>"

    def __len__(self) -> int:
        """How many WebSockets are open."""
        return len(self._hall.callers)

    def __bool__(self) -> bool:
        """True, also without any."""
        return True

    @property
    def connections(self) -> list[Caller]:
        """The callers of those."""
        return list(self._hall.callers.copy().values())

    def stats(self) -> ListenerStats:
        """Return what was counted so far, without refusals. Any thread."""
        return self._hall.stats()

    # -- Upgrades --------------------------------------------------------

    def upgrade(
        self,
        environ: dict[str, Any],
        service: Service | type[Service] | None = None,
        *,
        resource: Resource | None = None,
        params: Mapping[str, Any] | None = None,
        headers: HeadersArgument = None,
        subprotocol: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> UpgradeResponse:
        """Return the response that makes a request a WebSocket of a service.

        It refuses what a listener would: with 426 what is no handshake, with
        400 a bad one, with 403 a page that the service's `allowed_origins`
        does not name; and when it is called, with 503 what is over a limit.

        Args:
            environ: The request's environment, as the server has made it.
                Middleware may have changed copies of it.
            service: An instance, shared by all connections, or a class, of
                which each gets an instance; see `Listener.attach`.
            resource: A function that decides on the client, called with
                `http`, `request` and `params` as `Listener.upgrade` says. It
                runs in the server's thread, when the response is called.
            params: Parameters of the path: `caller.request.path_params`, and
                what the resource gets by name.
            headers: Headers of the 101 beside those of the handshake: a
                mapping or pairs.
            subprotocol: One that the client offers; the service's choice if
                it is None. A resource chooses it itself.
            attributes: What `caller.attributes` begins with, before `on_open`.
                Not the environment itself: some servers empty it after the
                request, others need what is in it.

        Raises:
            TypeError: It is no service, or an argument has a wrong type.
            ValueError: A header is reserved or cannot be sent as it is, or
                the client does not offer the subprotocol.
            RuntimeError: The server does not let its connections be taken;
                the text says what to do instead.
        """
        if service is None and resource is None:
            raise TypeError("upgrade needs a service, or a resource that chooses one")
        spec = None if service is None else ServiceSpec(service, client=False, again=True)
        own = normalize_extra_headers(headers, RESERVED)
        refusal: Refusal | None = None
        request: Request | None = None
        host: Host | None = None
        try:
            request = request_of(environ)
            refusal = examine(request, spec)
        except HeadError as exc:
            refusal = Refusal(exc.status, exc.text)
        if request is not None and refusal is None:
            if subprotocol is not None:
                check_offered(request, subprotocol)
            try:
                host = find_host(environ)
            except OSError:  # a connection that was reset has no ends
                refusal = LOST
            else:
                request = dataclasses.replace(
                    request_of(environ, host.remote), path_params=dict(params or {})
                )
        response = UpgradeResponse(self, request, refusal)
        if refusal is not None:
            log_refusal(request or _NO_REQUEST, refusal)
            return response
        assert request is not None
        response._host = host
        response._route = Route(request.raw_path, spec, resource, request.path_params)
        response._own = own
        response._subprotocol = subprotocol
        response._attributes = dict(attributes or {})
        return response

    def _adopt(self, response: UpgradeResponse, late: bool) -> Refusal | None:
        """Settle a response; return why the client is refused, if it is."""
        request, route, host = response.request, response._route, response._host
        assert request is not None
        assert route is not None
        assert host is not None
        given = [field for field in response.headers if field[0].lower() not in _OF_BODIES]
        fields = (*response._own, *given)
        terms = None
        if route.resource is None:
            assert route.spec is not None
            terms = agree(request, route.spec, subprotocol=response._subprotocol, headers=fields)
        refusal: Refusal | None = STOPPING
        loop = self._begin()
        if loop is not None:
            arrival = Arrival(
                self._hall, loop, host, request, response._attributes, self._hall.arrival_ended
            )
            refusal = arrival.settle(route, fields, terms)
            if refusal is None:
                response.headers = list(fields)
                if arrival.relay is not None:
                    arrival.relay.run()
                return None
        assert refusal is not None
        if late:
            host.answer(refusal_response(refusal))
        return refusal

    # -- Life ------------------------------------------------------------

    def _begin(self) -> IOLoop | None:
        """Return the loop for one client more, which is counted; None if it stops."""
        with self._lock:
            if self._stopping or _exiting:
                return None
            if self._loop is None:
                engine = self._engine or default_engine()
                self._loop = engine.acquire()
                self._hall.open(self._loop)
            self._tally.opened()
            return self._loop

    def stop(self, timeout: float = 10.0) -> None:
        """Close every WebSocket with 1001, and wait for them and their callbacks.

        Clients that come meanwhile get 503. What has not ended after `timeout`
        seconds is aborted. Called from a callback it waits for no callbacks.
        Harmless if there is nothing; the next `upgrade` starts it again.

        Args:
            timeout: Seconds.
        """
        check_timeout("timeout", timeout, optional=False)
        deadline = Deadline(timeout)
        with self._lock:
            loop = self._loop
            if loop is None or self._stopping:
                return
            self._stopping = True
        engine = self._engine or default_engine()
        try:
            if not loop.abandoned:
                in_callback = engine.owns_current_thread()
                close = functools.partial(self._hall.close_all, timeout)
                self._hall.wind_up(loop, close, deadline, in_callback)
        finally:
            with self._lock:
                self._loop = None
                self._stopping = False
            engine.release(loop)
        engine.reap((deadline.remaining() or 0.0) + _EXIT)

    def _after_fork(self) -> None:
        """In the child: the connections are the parent's."""
        self._lock = threading.Lock()
        self._loop = None
        self._stopping = False
        self._hall.forget()


_adopters: weakref.WeakSet[Adopter] = weakref.WeakSet()
_default_lock = threading.Lock()
_default: Adopter | None = None
_exiting = False


def default_adopter() -> Adopter:
    """Return the process's adopter, made on first use."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Adopter()
        return _default


def upgrade(
    environ: dict[str, Any],
    service: Service | type[Service] | None = None,
    *,
    resource: Resource | None = None,
    params: Mapping[str, Any] | None = None,
    headers: HeadersArgument = None,
    subprotocol: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> UpgradeResponse:
    """Do what `Adopter.upgrade` does, with the process's own adopter."""
    return default_adopter().upgrade(
        environ,
        service,
        resource=resource,
        params=params,
        headers=headers,
        subprotocol=subprotocol,
        attributes=attributes,
    )


def _after_fork_in_child() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    for adopter in list(_adopters):
        adopter._after_fork()


def _at_exit() -> None:
    """The process ends: tell the clients."""
    global _exiting
    _exiting = True
    for adopter in list(_adopters):
        adopter.stop(_EXIT)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
# Before the threads of a pool are waited for: under TLS they are with clients.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
