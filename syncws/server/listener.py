"""Listens on an address and leads WebSocket connections to services."""

from __future__ import annotations

import contextlib
import enum
import functools
import os
import socket
import ssl as ssl_module
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..callbacks import ServiceSpec
from ..config import TLSConfig, check_count
from ..endpoint import Address, address_of
from ..engine.engine import Engine, engine_of
from ..engine.loop import IOLoop
from ..protocol.forwarded import DEFAULT_HEADERS
from ..service import Service
from ..timing import Deadline, check_timeout
from .arguments import (
    Binding,
    check_port,
    check_reuse_port,
    check_sockets,
    check_stop,
    close_all,
    copies_of,
)
from .certificates import Certificates
from .hall import Bounds
from .proxies import check_proxies
from .reception import HTTPOptions, Reception
from .routing import Router, parameters_of
from .stats import ConnectionInfo, ListenerStats
from .stops import Stops
from .tally import Tally
from .upgrade import check_resource

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Listener", "running_on", "use_tls"]

# Seconds that sockets may take to go away once they were aborted.
_ABORT = 1.0

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
        sockets: Listening sockets to accept on, in place of both: those of
            `syncws.systemd_sockets()`, say. They stay yours: the listener
            works with copies, so clients that come while it is stopped wait.
        reuse_port: Let other processes of the same user listen on the port,
            too, if they say so as well; Linux spreads clients among them. One
            that stops resets clients that it has not accepted yet: `syncws
            serve` runs several processes without that.
        ssl: The server's certificate, as a `TLSConfig` or an `ssl.SSLContext`;
            then the listener speaks wss:// only.
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
            after the first of them at least a KiB a second. The application's
            own time does not count. None: no limit.
        keep_alive_timeout: Seconds that a connection stays open for the next
            request. 0: each request has its own. None: no limit.
        max_connections: Sockets at once, in whatever state. Further clients
            get 503. None: as many as there are descriptors.
        max_connections_per_address: The same for one client's address, which
            for IPv6 is its first 64 bits. Clients behind a proxy that is
            none of `trusted_proxies` have the proxy's address. None: no limit.
        max_buffered_bytes: Bytes that all WebSockets together may hold:
            messages that wait for a callback, that have come in part, or that
            clients have not taken yet. From half of it on reading pauses at
            each message and sends wait early; over it the connections that
            hold the most are ended with 1013, and further clients get 503.
            None: no limit.
        trusted_proxies: Addresses and networks of the proxies in front of the
            listener, and "unix" for whoever comes by its `unix_path`. What
            these say of a client is believed, and what anybody else says is
            not. Name proxies only, and no network that clients are in.
        forwarded_headers: The headers that all of these proxies set
            themselves, whatever a client has sent: "X-Forwarded-For",
            "X-Forwarded-Proto", "X-Forwarded-Host" and "X-Forwarded-Port", or
            "Forwarded" alone. A header that a proxy does not set is the
            client's own word, so name no other.
        proxy_protocol: The proxies begin each connection with a header of the
            PROXY protocol, version 1 or 2. Whoever is none of
            `trusted_proxies` cannot connect then.

    Use it as a context manager, or with `start` and `stop`, or with
    `serve_forever`. Its methods may be called from any thread.
    """

    def __init__(
        self,
        port: int | None = None,
        host: str = "127.0.0.1",
        *,
        unix_path: str | os.PathLike[str] | None = None,
        sockets: Sequence[socket.socket] | None = None,
        reuse_port: bool = False,
        ssl: TLSConfig | ssl_module.SSLContext | None = None,
        engine: Engine | None = None,
        handshake_timeout: float | None = 10.0,
        max_handshake_size: int = 16_384,
        backlog: int = 1024,
        app: WSGIApplication | None = None,
        max_body_size: int | None = 16_777_216,
        http_timeout: float | None = 30.0,
        keep_alive_timeout: float | None = 15.0,
        max_connections: int | None = None,
        max_connections_per_address: int | None = None,
        max_buffered_bytes: int | None = 268_435_456,
        trusted_proxies: Iterable[str] = (),
        forwarded_headers: Iterable[str] = DEFAULT_HEADERS,
        proxy_protocol: bool = False,
    ) -> None:
        self._unix_path = None if unix_path is None else os.fspath(unix_path)
        self._sockets = check_sockets(sockets)
        self._port = check_port(port, self._unix_path, self._sockets)
        if not isinstance(host, str):
            raise TypeError(f"host must be a str such as '127.0.0.1', not {host!r}")
        self._host = host
        tcp = self._unix_path is None and self._sockets is None
        self._sharing = check_reuse_port(reuse_port, tcp=tcp)
        self._certificates = Certificates(ssl)
        self._engine = engine_of(engine)
        check_count("backlog", backlog, optional=False)
        self._backlog = backlog
        check_count("max_handshake_size", max_handshake_size, optional=False)
        check_count("max_body_size", max_body_size, least=0)
        options = HTTPOptions(
            handshake_timeout=check_timeout("handshake_timeout", handshake_timeout),
            max_handshake_size=max_handshake_size,
            app=app,
            max_body_size=max_body_size,
            http_timeout=check_timeout("http_timeout", http_timeout),
            keep_alive_timeout=check_timeout("keep_alive_timeout", keep_alive_timeout),
            proxies=check_proxies(trusted_proxies, forwarded_headers, proxy_protocol),
        )
        bounds = Bounds(max_connections, max_connections_per_address, max_buffered_bytes)
        self._router = Router()
        self._tally = Tally()
        self._reception = Reception(
            self._router, self._certificates, options, bounds, self._tally, self._unix_path
        )
        self._stops = Stops()  # what ends serve_forever

        # Guarded by _lock, which `_changed` wraps.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._phase = _Phase.NEW
        self._starts = 0
        self._addresses: list[Address] = []
        self._loop: IOLoop | None = None
        _listeners.add(self)

    def __repr__(self) -> str:
        given = "sockets of yours" if self._sockets is not None else self._host
        where = ", ".join(map(str, self._addresses)) or self._unix_path or given
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
        exception refuses with 500 and is logged once; after `accept_upgrade`
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

    # -- TLS -------------------------------------------------------------

    def reload_tls(self, config: TLSConfig | ssl_module.SSLContext | None = None) -> None:
        """Show another certificate to clients that connect from now on.

        Connections that are open go on, also those in the midst of their TLS
        handshake. May be called at any time, also from a signal handler.

        Args:
            config: The new settings, in place of `ssl`. None: read the files
                of the `TLSConfig` that was given last, at first as `ssl`, anew.

        Raises:
            RuntimeError: The listener has no TLS.
            TypeError, ValueError: `config` is nothing that a listener can
                use, a file does not have what it should, or an
                `ssl.SSLContext` was given last, which has no files to read.
            OSError: A file cannot be read.

        After an error all is as it was.
        """
        self._certificates.reload(config)

    # -- Life ------------------------------------------------------------

    def start(self, *, sockets: Sequence[socket.socket] | None = None) -> None:
        """Listen; returns once connections are accepted.

        Args:
            sockets: Listening sockets to use this time, whatever the listener
                was made with; see there.

        Raises:
            RuntimeError: It is started already.
            OSError: The address cannot be listened on.
        """
        given = check_sockets(sockets) or self._sockets
        with self._lock:
            if self._phase is not _Phase.NEW:
                raise RuntimeError("the listener is started already")
            if given is None:
                opened = self.binding.open(self._sharing, self._engine.network)
            else:
                opened = copies_of(given, self._engine.network)
            try:
                self._loop = loop = self._engine.acquire()
            except BaseException:
                close_all(opened)
                raise
            self._addresses = [address_of(sock.getsockname()) for sock in opened]
            self._phase = _Phase.STARTED
            self._starts += 1
            lanes = self._engine.lanes(loop)
            self._reception.start(loop, opened, lanes, remove_path=given is None)

    def also_accept(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on further listening sockets, until `stop`.

        They stay yours: the listener works with copies.

        Raises:
            RuntimeError: It is not started.
        """
        given = check_sockets(sockets)
        with self._lock:
            if self._phase is not _Phase.STARTED or self._loop is None or given is None:
                raise RuntimeError("the listener is not started")
            opened = copies_of(given, self._engine.network)
            self._addresses += [address_of(sock.getsockname()) for sock in opened]
            self._reception.also_accept(opened)

    def stop(self, timeout: float = 10.0, *, spread: float | None = None) -> None:
        """Close every connection with 1001, and wait for them and their callbacks.

        New connections are refused at once, and HTTP requests under way are
        waited for as callbacks are. What has not ended after `timeout` seconds
        is aborted; a callback that does not return is left behind. Called from
        a callback, or from the application, it waits for neither callbacks nor
        requests. Harmless if the listener is not started; it may be started
        again.

        Args:
            timeout: Seconds.
            spread: Seconds over which closing is spread, for clients that come
                back at once, to another process; those in the midst of their
                handshake are let in first. At most half of `timeout`. None:
                all at once.
        """
        deadline = Deadline(check_stop(timeout))
        check_timeout("spread", spread)
        in_callback = self._engine.owns_current_thread()
        with self._changed:
            start = self._starts
            if self._phase is _Phase.STOPPING and not in_callback:
                # Another thread is about it; a start that comes after is not meant.
                self._changed.wait_for(
                    lambda: self._phase is not _Phase.STOPPING or self._starts != start,
                    deadline.remaining(),
                )
                return
            if self._phase is not _Phase.STARTED:
                return
            self._phase = _Phase.STOPPING
            loop = self._loop
        assert loop is not None
        try:
            if loop.abandoned:
                self._reception.forget()
            else:
                if spread is None:
                    close = functools.partial(self._reception.close_all, timeout)
                else:
                    close = functools.partial(self._reception.close_slowly, timeout, spread)
                self._reception.wind_up(loop, close, deadline, in_callback)
        finally:
            with self._changed:
                self._phase = _Phase.NEW
                self._loop = None
                self._addresses = []
                self._changed.notify_all()
            self._engine.release(loop)
        self._engine.reap((deadline.remaining() or 0.0) + _ABORT)
        self._stops.put(start)

    def serve_forever(self, stop_timeout: float = 10.0) -> None:
        """Listen until Ctrl-C, SIGTERM, or a `stop` from another thread; then stop.

        The signals are looked after only when this runs in the main thread.

        Args:
            stop_timeout: Seconds for `stop`. A second Ctrl-C cuts it short.
        """
        check_stop(stop_timeout)
        with self._lock:
            started = self._phase is not _Phase.NEW
            start = self._starts
        if not started:
            self._stops.forget()
        try:
            with self._stops.on_signals():
                if not started:
                    self.start()
                    start = self._starts
                self._stops.wait(start)
        finally:
            self.stop(stop_timeout)

    def _after_fork(self) -> None:
        """In the child: whoever held a lock, or stopped this, is not here."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._certificates.renew()
        self._router.renew()
        self._reception.forget()
        if self._phase is _Phase.STOPPING:
            self._phase = _Phase.STARTED

    def __enter__(self) -> Listener:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def port(self) -> int | None:
        """The TCP port; the one that was found if it was given as 0."""
        given = [address_of(sock.getsockname()) for sock in self._sockets or ()]
        for address in self._addresses or given:
            if isinstance(address, tuple):
                return address[1]
        return None if self._unix_path is not None or given else self._port

    @property
    def secure(self) -> bool:
        """Whether it speaks wss://."""
        return self._certificates.context is not None

    @property
    def binding(self) -> Binding:
        """Where it was told to listen, if it was not given sockets."""
        return Binding(self._host, self._port, self._unix_path, self._backlog)

    @property
    def addresses(self) -> list[Address]:
        """Where it listens: (host, port) pairs, or the path of a Unix-domain socket."""
        return list(self._addresses)

    def stats(self) -> ListenerStats:
        """Return what was counted since this was made."""
        return self._reception.stats()

    def connections(self) -> list[ConnectionInfo]:
        """Return the connections that are open, and what each has carried."""
        return self._reception.infos()


def use_tls(listener: Listener, config: TLSConfig) -> None:
    """Have a listener speak wss:// with this certificate, whatever it was made with."""
    listener._certificates.replace(config)


@contextlib.contextmanager
def running_on(listener: Listener, engine: Engine) -> Iterator[None]:
    """Have a listener run on another engine for a while, whatever it was made to listen on."""
    with listener._lock:
        if listener._phase is not _Phase.NEW:
            raise RuntimeError("the listener is started already")
        before = listener._engine, listener._sockets
        listener._engine, listener._sockets = engine, None
    try:
        yield
    finally:
        with listener._lock:
            listener._engine, listener._sockets = before


_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for listener in list(_listeners):
        listener._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
