"""The HTTP requests of a listener that its WSGI application answers.

Threads: everything but the making of it, `start` and `forget` runs in the I/O
thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..callbacks import is_async
from ..endpoint import address_of
from ..engine.lane import Lane
from ..engine.loop import IOLoop
from ..engine.transport import Transport
from ..protocol.exchange import Exchange
from ..protocol.http import Request
from .http import RequestHandler
from .opening import Opening
from .wsgi import Origin, call_application

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Site"]


class Site:
    """Has requests answered, as many at once as leave workers for callbacks.

    Args:
        application: The WSGI application.
        max_body_size: Bytes of a request's body. None: no limit.
        timeout: Seconds for a client; see `Allowance`.
        keep_alive: Whether a connection may have more than one request.
        on_begin: Called when a request is about to be served.
        on_end: Called for each of those when it is done with its socket; with
            the socket, and the bytes behind the request if there can be
            another one, or None. In the I/O thread.
        on_done: Called for each of those when the application has returned or
            will never be called. In any thread.

    Raises:
        TypeError: The application cannot be called.
    """

    def __init__(
        self,
        application: WSGIApplication,
        *,
        max_body_size: int | None,
        timeout: float | None,
        keep_alive: bool,
        on_begin: Callable[[], None],
        on_end: Callable[[Transport, bytes | None], None],
        on_done: Callable[[], None],
    ) -> None:
        if not callable(application):
            raise TypeError(f"app must be a WSGI application or None, not {application!r}")
        if is_async(application):
            raise TypeError(f"app must be a WSGI application, not async: {application!r} is ASGI")
        self._application = application
        self._max_body_size = max_body_size
        self._timeout = timeout
        self._keep_alive = keep_alive
        self._on_begin = on_begin
        self._on_end = on_end
        self._on_done = on_done

        # Owned by the I/O thread, once it is started.
        self._loop: IOLoop | None = None
        self._lane: Lane | None = None
        self._handlers: set[RequestHandler] = set()

    def start(self, loop: IOLoop, lane: Lane) -> None:
        """Serve from now on, in workers of this loop."""
        self._loop = loop
        self._lane = lane

    def forget(self) -> None:
        """In a forked child: the requests are the parent's."""
        self._handlers = set()

    # -- I/O thread ------------------------------------------------------

    def serve(self, request: Request, opening: Opening, rest: bytes) -> None:
        """Have a request answered; take its socket.

        Raises:
            HeadError: The request is refused.
            OSError: The client has gone already.
        """
        loop, lane = self._loop, self._lane
        assert loop is not None
        assert lane is not None
        exchange = Exchange(opening.head, self._max_body_size)
        local = address_of(opening.transport.sock.getsockname())
        origin = Origin(local, request.remote_address, request.is_secure)
        self._on_begin()
        handler = RequestHandler(
            loop,
            opening.take(),
            request,
            exchange,
            timeout=self._timeout,
            lane=lane,
            call=functools.partial(
                call_application, self._application, request, origin, loop.clock
            ),
            on_end=self._ended,
            on_done=self._on_done,
        )
        self._handlers.add(handler)
        if not self._keep_alive:
            handler.end_soon()
        loop.guard(handler, handler.start, rest)

    def _ended(self, handler: RequestHandler, rest: bytes | None) -> None:
        self._handlers.discard(handler)
        self._on_end(handler.transport, rest)

    def end_soon(self) -> None:
        """Let each connection end after its request."""
        for handler in list(self._handlers):
            handler.end_soon()

    def abort(self) -> None:
        """End each connection now."""
        for handler in list(self._handlers):
            handler.abort()
