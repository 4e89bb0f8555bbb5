"""From a good handshake to an open connection.

Threads: `agree` may be called from any thread, all else in the I/O thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..callbacks import Runner, ServiceSpec
from ..endpoint import Address
from ..engine.budget import Budget
from ..engine.connection import Connection
from ..engine.dispatch import Dispatcher
from ..engine.loop import IOLoop
from ..engine.transport import Transport
from ..protocol import deflate
from ..protocol.codec import make_codec
from ..protocol.http import Request
from ..protocol.server_handshake import accept_response, choose_subprotocol
from .caller import Caller
from .functions import FunctionInbox, FunctionService, WebSocket

__all__ = ["Admitted", "Terms", "admit", "agree", "start"]

_log = logging.getLogger("syncws.server")


class Terms(NamedTuple):
    """What a client is let in with.

    Attributes:
        spec: The service.
        subprotocol: The subprotocol agreed on, or None.
        deflate: The parameters of permessage-deflate, or None.
        response: The 101 response that says so.
    """

    spec: ServiceSpec
    subprotocol: str | None
    deflate: deflate.DeflateParams | None
    response: bytes


class Admitted(NamedTuple):
    """A client that was let in."""

    connection: Connection
    caller: Caller
    dispatcher: Dispatcher | FunctionInbox


def agree(
    request: Request,
    spec: ServiceSpec,
    *,
    subprotocol: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Terms:
    """Return what a client is let in with that has passed `check_upgrade` and `check_origin`.

    Args:
        request: The handshake request.
        spec: The service.
        subprotocol: The subprotocol; the service's choice if it is None.
        headers: Further headers of the response.

    Raises:
        ValueError: A header is reserved or cannot be sent as it is.
    """
    config = spec.config
    if subprotocol is None:
        subprotocol = choose_subprotocol(request, config.subprotocols)
    params, extensions = None, None
    if config.deflate is not None:
        offers = request.headers.get_all("Sec-WebSocket-Extensions")
        params, extensions = deflate.choose(offers, config.deflate) or (None, None)
    response = accept_response(
        request, subprotocol=subprotocol, extensions=extensions, headers=headers
    )
    return Terms(spec, subprotocol, params, response)


def admit(
    loop: IOLoop,
    transport: Transport,
    request: Request,
    path: str,
    terms: Terms,
    *,
    addresses: tuple[Address, Address],
    on_done: Callable[[], None],
    on_end: Callable[[Connection], None],
    budget: Budget | None = None,
) -> Admitted:
    """Make a connection of a socket; `start` is to follow.

    Args:
        loop: The loop that owns the socket.
        transport: The socket.
        request: The handshake request.
        path: The path that the service stands on.
        terms: What `agree` has returned.
        addresses: The local one and the client's.
        on_done: Called in a worker after the last callback.
        on_end: Called in the I/O thread when the socket is gone.
        budget: What all connections may hold in memory together.
    """
    spec = terms.spec
    config = spec.config
    decoder, encoder = make_codec(
        config,
        terms.deflate,
        client=False,
        stream_text=spec.stream_text,
        stream_binary=spec.stream_binary,
    )
    bounds = {"max_count": config.receive_queue_size, "max_size": config.receive_queue_bytes}
    inbox: Dispatcher | FunctionInbox
    kind: type[Caller] = Caller
    bind: Callable[[Caller, Connection], None]
    if isinstance(spec.service, FunctionService):
        inbox = FunctionInbox(spec.service, loop, path, **bounds, on_done=on_done)
        kind, bind = WebSocket, inbox.bind
    else:
        runner = Runner(spec, _log, path)
        inbox = Dispatcher(runner.handle, loop, **bounds, on_done=on_done)
        bind = runner.bind
    connection = Connection(
        loop,
        transport,
        client=False,
        decoder=decoder,
        encoder=encoder,
        config=config,
        inbox=inbox,
        auto_pong="on_ping" not in spec.has,
        idle_event="on_idle_timeout" in spec.has,
        on_end=on_end,
        budget=budget,
    )
    caller = kind(connection, request, terms.subprotocol, addresses)
    bind(caller, connection)
    return Admitted(connection, caller, inbox)


def start(loop: IOLoop, admitted: Admitted, terms: Terms, rest: bytes) -> None:
    """Answer the client, and begin to read.

    Args:
        loop: The loop that owns the socket.
        admitted: What `admit` has returned.
        terms: The same as there.
        rest: What came behind the request: the first frames.
    """
    connection, spec = admitted.connection, terms.spec
    connection.take_over()
    opened = "on_open" in spec.has or isinstance(spec.service, type)
    loop.guard(connection, connection.start, terms.response, rest, True, opened)
