"""Listens on an address and leads WebSocket connections to services."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import os
import signal
import socket
import ssl as ssl_module
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from ..callbacks import ServiceSpec
from ..config import check_count
from ..endpoint import Address, address_of
from ..engine.connection import Connection
from ..engine.engine import Engine, default_engine
from ..engine.loop import IOLoop
from ..engine.transport import Transport, make_transport
from ..errors import Close
from ..protocol.exchange import is_upgrade
from ..protocol.http import Request
from ..protocol.server_handshake import Refusal, check_origin, check_upgrade
from ..service import Service
from ..timing import Deadline, check_timeout
from .acceptor import Acceptor, open_sockets
from .admission import Admitted, Terms, admit, agree, start
from .arguments import check_port, check_server_context
from .opening import Opening
from .routing import Route, Router, parameters_of
from .site import Site
from .upgrade import Hearing, check_resource

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Listener"]

# Seconds that sockets may take to go away once they were aborted.
_ABORT = 1.0

# What a signal puts where a stop puts the count of starts: it always counts.
_SIGNAL = sys.maxsize

_Resource = TypeVar("_Resource", bound=Callable[..., Any])


class _Phase(enum.Enum):
    NEW = "not started"
    STARTED = "accepting connections"
    STOPPING = "closing them"


class Listener:
    """Accepts WebSocket connections and calls services.

    Args:
        port: The TCP port; 0 takes a free one, see `port`.
        host: The address or name to listen on, each of its addresses; ""
            listens on all interfaces, IPv4 and IPv6.
        unix_path: The path of a Unix-domain socket to listen on, in place of
            a port.
        ssl: The server's certificate, as an `ssl.SSLContext`; then the
            listener speaks wss:// only.
        engine: The threads to run on; the process's own if None.
        handshake_timeout: Seconds for TLS and the handshake request together.
            None: no limit.
        max_handshake_size: Bytes of a handshake request.
        backlog: Connections that may wait in the system to be accepted.
        app: A WSGI application that answers every request that is no
            WebSocket handshake: Flask's or Django's, or a function. None:
            they are refused with 426.
        max_body_size: Bytes of such a request's body; a longer one is refused
            with 413. None: no limit.
        http_timeout: Seconds within which something of a request's body must
            come, and within which something of a response must be taken; and
            behind the first of them at least a KiB a second. The application's
            own time does not count. None: no limit.
        keep_alive_timeout: Seconds that a connection stays open for the next
            request. 0: each request has its own. None: no limit.

    Use it as a context manager, or with `start` and `stop`, or with
    `serve_forever`. Its methods may be called from any thread.
    """

    def __init__(
        self,
        port: int | None = None,
        host: str = "127.0.0.1",
        *,
        unix_path: str | os.PathLike[str] | None = None,
        ssl: ssl_module.SSLContext | None = None,
        engine: Engine | None = None,
        handshake_timeout: float | None = 10.0,
        max_handshake_size: int = 16_384,
        backlog: int = 1024,
        app: WSGIApplication | None = None,
        max_body_size: int | None = 16_777_216,
        http_timeout: float | None = 30.0,
        keep_alive_timeout: float | None = 15.0,
    ) -> None:
        self._unix_path = None if unix_path is None else os.fspath(unix_path)
        self._port = check_port(port, self._unix_path)
        if not isinstance(host, str):
            raise TypeError(f"host must be a str such as '127.0.0.1', not {host!r}")
        self._host = host
        if ssl is not None:
            check_server_context(ssl)
        if engine is not None and not isinstance(engine, Engine):
            raise TypeError(f"engine must be a syncws.Engine or None, not {engine!r}")
        self._ssl = ssl
        self._engine = engine or default_engine()
        self._handshake_timeout = check_timeout("handshake_timeout", handshake_timeout)
        check_count("max_handshake_size", max_handshake_size, optional=False)
        check_count("backlog", backlog, optional=False)
        self._max_handshake_size = max_handshake_size
        self._backlog = backlog
        self._keep_alive_timeout = check_timeout("keep_alive_timeout", keep_alive_timeout)
        check_timeout("http_timeout", http_timeout)
        check_count("max_body_size", max_body_size, least=0)
        self._site: Site | None = None
        if app is not None:
            self._site = Site(
                app,
                max_body_size=max_body_size,
                timeout=http_timeout,
                keep_alive=keep_alive_timeout != 0,
                on_begin=self._request_begun,
                on_end=self._request_ended,
                on_done=self._callbacks_done,
            )
        self._router = Router()
        # What ends serve_forever: a stop, as the count of starts then, or a signal.
        self._stops: SimpleQueue[int] = SimpleQueue()

        # Guarded by _lock, which `_changed` wraps.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._phase = _Phase.NEW
        self._starts = 0
        self._addresses: list[Address] = []
        self._open = 0  # sockets, listening ones included
        # Resources, requests, and connections whose on_close has not returned.
        self._running = 0

        # Owned by the I/O thread, apart from the first two, which `start` sets.
        self._loop: IOLoop | None = None
        self._acceptors: list[Acceptor] = []
        self._openings: set[Opening] = set()
        self._connections: set[Connection] = set()

    def __repr__(self) -> str:
        where = ", ".join(map(str, self._addresses)) or self._unix_path or self._host
        return f"<syncws.Listener {where}, {self._phase.value}>"

    # -- Services --------------------------------------------------------

    def attach(self, path: str, service: Service | type[Service]) -> None:
        """Lead connections to `path` to a service.

        Args:
            path: An absolute path without a query, such as "/chat". A segment
                may be a parameter, whose value `caller.request.path_params`
                has: "/chat/{name}". `{name}` takes any segment that is not
                empty, `{name:int}`, `{name:float}` and `{name:uuid}` what
                they say, and `{name:path}`, which comes last, all segments
                that are left, with their slashes. If several paths match, the
                most specific one counts, compared from the left: a literal
                comes before int, float, uuid, a segment and path.
            service: An instance, shared by all connections, or a class, of
                which each connection gets an instance of its own. It may
                stand on other paths and listeners, too.

        Raises:
            TypeError: It is no service, or a callback has a wrong name or
                wrong parameters.
            ValueError: The path is no absolute path, or is taken: "/{a}"
                matches what "/{b}" does.
        """
        self._router.attach(path, ServiceSpec(service, client=False))

    def upgrade(
        self, path: str, service: Service | type[Service] | None = None
    ) -> Callable[[_Resource], _Resource]:
        """Have a function decide on each client that connects to `path`; a decorator.

        It is called in a worker, as callbacks are, with an `Upgrade`, the
        `Request`, and the path's parameters by name::

            @listener.upgrade("/chat/{name}", service=Chat)
            def upgrader(http, request, name):
                if "age" not in request.query:
                    return http.cancel_upgrade(400, "Age is required")
                caller = http.accept_upgrade(headers={"X-Room": name})
                caller.attributes["name"] = name

        Returning nothing accepts, and so does returning a service. An
        exception refuses with 500 and is logged once; behind `accept_upgrade`
        it closes the connection with 1011, and the service never hears of it.
        While the function runs the client waits, without a timeout.

        It is not asked about what is no WebSocket handshake, nor about pages
        that the service's `allowed_origins` does not name. Another service
        that it accepts with must allow the page as well, or the client is
        refused with 403; the request's Origin was not looked at before if
        there is no `service` here.

        Args:
            path: An absolute path, which may have parameters: see `attach`.
            service: The service, unless the function gives another.

        Raises:
            TypeError: It is no service, or the function cannot be called so.
            ValueError: The path is no absolute path, or is taken.
        """
        spec = None if service is None else ServiceSpec(service, client=False)
        parameters_of(path)  # raises

        def attach(resource: _Resource) -> _Resource:
            check_resource(resource, path)
            self._router.attach(path, spec, resource)
            return resource

        return attach

    def detach(self, target: str | Service | type[Service] | Callable[..., Any]) -> None:
        """Refuse connections to a path, or to every path of a service or resource, from now on.

        Connections that are open go on.

        Raises:
            ValueError: There is no such path, service or resource.
        """
        self._router.detach(target)

    # -- Life ------------------------------------------------------------

    def start(self) -> None:
        """Listen; returns once connections are accepted.

        Raises:
            RuntimeError: It is started already.
            OSError: The address cannot be listened on.
        """
        with self._lock:
            if self._phase is not _Phase.NEW:
                raise RuntimeError("the listener is started already")
            sockets = open_sockets(self._host, self._port, self._unix_path, self._backlog)
            self._loop = loop = self._engine.acquire()
            self._addresses = [address_of(sock.getsockname()) for sock in sockets]
            self._open = len(sockets)
            self._phase = _Phase.STARTED
            self._starts += 1
            self._acceptors = [Acceptor(loop, sock, self._accepted) for sock in sockets]
            if self._site is not None:
                self._site.start(loop, max(1, self._engine.max_workers // 2))
        for acceptor in self._acceptors:
            loop.call_soon(acceptor.listen, owner=acceptor)

    def stop(self, timeout: float = 10.0) -> None:
        """Close every connection with 1001, and wait for them and their callbacks.

        New connections are refused at once, and HTTP requests under way are
        waited for as callbacks are. What has not ended after `timeout` seconds
        is aborted; a callback that does not return is left behind. Called from
        a callback, or from the application, it waits for neither callbacks nor
        requests. Harmless if the listener is not started; it may be started
        again.

        Args:
            timeout: Seconds.
        """
        deadline = Deadline(_check_stop(timeout))
        in_callback = self._engine.owns_current_thread()
        with self._changed:
            if self._phase is _Phase.STOPPING and not in_callback:
                # Another thread is about it.
                self._changed.wait_for(lambda: self._phase is _Phase.NEW, deadline.remaining())
            if self._phase is not _Phase.STARTED:
                return
            self._phase = _Phase.STOPPING
            start = self._starts
            loop = self._loop
        assert loop is not None
        try:
            if loop.abandoned:
                self._forget()
            else:
                self._close_connections(loop, timeout, deadline, in_callback)
        finally:
            with self._changed:
                self._phase = _Phase.NEW
                self._loop = None
                self._addresses = []
                self._changed.notify_all()
            self._engine.release(loop)
        self._engine.reap((deadline.remaining() or 0.0) + _ABORT)
        self._stops.put(start)

    def _close_connections(
        self, loop: IOLoop, timeout: float, deadline: Deadline, in_callback: bool
    ) -> None:
        loop.call_soon(self._close_all, timeout)
        ended = False
        try:
            ended = self._wait(deadline, in_callback)
        finally:  # also behind a Ctrl-C
            if not ended:
                loop.call_soon(self._abort_all)
                self._wait(Deadline(_ABORT), True)

    def _forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._acceptors = []
        self._openings = set()
        self._connections = set()
        if self._site is not None:
            self._site.forget()
        with self._lock:
            self._open = self._running = 0

    def serve_forever(self, stop_timeout: float = 10.0) -> None:
        """Listen until Ctrl-C, SIGTERM, or a `stop` from another thread; then stop.

        The signals are looked after only when this runs in the main thread.

        Args:
            stop_timeout: Seconds for `stop`. A second Ctrl-C cuts it short.
        """
        _check_stop(stop_timeout)
        with self._lock:
            started = self._phase is not _Phase.NEW
            start = self._starts
        while not (started or self._stops.empty()):
            self._stops.get()  # a signal too many, the last time
        handlers: dict[int, Any] = {}
        try:
            if threading.current_thread() is threading.main_thread():
                for wanted in (signal.SIGINT, signal.SIGTERM):
                    handlers[wanted] = signal.signal(wanted, self._on_signal)
            if not started:
                self.start()
                start = self._starts
            # Stops that came before that start are over.
            while self._stops.get() < start:
                pass
        finally:
            for signum, handler in handlers.items():
                # None stands for one that was not set from Python.
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)
            self.stop(stop_timeout)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stops.put(_SIGNAL)  # the one queue that may be filled in a signal handler

    def __enter__(self) -> Listener:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def port(self) -> int | None:
        """The TCP port; the one that was found if it was given as 0."""
        for address in self._addresses:
            if isinstance(address, tuple):
                return address[1]
        return self._port if self._unix_path is None else None

    @property
    def addresses(self) -> list[Address]:
        """Where it listens: (host, port) pairs, or the path of a Unix-domain socket."""
        return list(self._addresses)

    def _wait(self, deadline: Deadline, sockets_only: bool) -> bool:
        """Wait for the connections to end; return whether they have."""
        with self._changed:
            while self._open or (self._running and not sockets_only):
                remaining = deadline.remaining()
                if remaining == 0.0:
                    return False
                self._changed.wait(remaining)
        return True

    # -- I/O thread ------------------------------------------------------

    def _close_all(self, timeout: float) -> None:
        for acceptor in self._acceptors:
            acceptor.abort()
        self._count_closed(len(self._acceptors))
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

    def _abort_all(self) -> None:
        for opening in list(self._openings):
            opening.abort()
        if self._site is not None:
            self._site.abort()
        for connection in list(self._connections):
            connection.abort()

    def _accepted(self, sock: socket.socket) -> None:
        assert self._loop is not None
        try:
            if sock.family != getattr(socket, "AF_UNIX", None):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl is not None:
                sock.setblocking(False)
                sock = self._ssl.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            transport = make_transport(sock)
        except (OSError, ValueError):
            sock.close()  # the client went away meanwhile
            return
        self._open_socket(transport, self._handshake_timeout)

    def _open_socket(
        self, transport: Transport, timeout: float | None, *, resumed: bool = False
    ) -> Opening:
        assert self._loop is not None
        with self._lock:
            self._open += 1
        opening = Opening(
            self._loop,
            transport,
            deadline=None if timeout is None else self._loop.clock() + timeout,
            max_size=self._max_handshake_size,
            decide=self._decide,
            on_end=self._opening_ended,
            resumed=resumed,
        )
        self._openings.add(opening)
        return opening

    def _opening_ended(self, opening: Opening) -> None:
        self._openings.discard(opening)
        self._count_closed(1)

    def _decide(self, request: Request, opening: Opening, rest: bytes) -> Refusal | None:
        """Refuse a request, make its socket a connection, or ask a resource or the application."""
        if self._site is not None and not is_upgrade(request):
            self._site.serve(request, opening, rest)
            return None
        route = self._router.match(request.raw_path)
        if route is None:
            return Refusal(404, f"There is nothing at {request.raw_path}.")
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
        with self._lock:
            self._running += 1
        hearing = Hearing(
            self._loop,
            opening,
            request,
            route,
            admit=functools.partial(self._admit, request, opening, rest, route.path),
            on_done=self._callbacks_done,
        )
        hearing.begin()

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
        with self._lock:
            self._open += 1
            self._running += 1
        admitted = admit(
            loop,
            opening.take(),
            request,
            path,
            terms,
            addresses=(local, request.remote_address),
            on_done=self._callbacks_done,
            on_end=self._connection_ended,
        )
        self._connections.add(admitted.connection)
        if held:
            admitted.dispatcher.hold()
        start(loop, admitted, terms, rest)
        return admitted

    def _request_begun(self) -> None:
        # The application's call and the socket, which is not waited for
        # without the other: a stop from the application would wait for itself.
        with self._lock:
            self._running += 2

    def _request_ended(self, free: tuple[Transport, bytes] | None) -> None:
        if free is not None:
            transport, rest = free
            opening = self._open_socket(transport, self._keep_alive_timeout, resumed=True)
            if rest:
                opening.resume(rest)
        self._callbacks_done()

    def _connection_ended(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._count_closed(1)

    def _count_closed(self, number: int) -> None:
        with self._changed:
            self._open -= number
            self._changed.notify_all()

    # -- Any thread ------------------------------------------------------

    def _callbacks_done(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()


def _check_stop(timeout: float) -> float:
    checked = check_timeout("timeout", timeout)
    if checked is None:
        raise TypeError("timeout must be a number of seconds, not None")
    return checked
