"""Where clients are once their request is known: what all servers have in common.

A server whose sockets were accepted here is a `Reception`; one that gets them
from another server has no more than this.

Threads: `open`, `end`, `forget`, `wind_up` and the making of it belong to
whoever starts and stops the server; everything else runs in the I/O thread.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..callbacks import ServiceSpec
from ..config import check_count
from ..endpoint import Address, place_of
from ..engine.budget import Budget
from ..engine.connection import Connection
from ..engine.loop import IOLoop
from ..engine.state import NO_CLOSE
from ..engine.stats import ConnectionStats
from ..errors import Close
from ..protocol.http import Request, target_for_log
from ..protocol.server_handshake import Refusal, check_origin, check_upgrade
from ..timing import Deadline
from .admission import Admitted, Terms, admit, start
from .caller import Caller
from .door import Door
from .functions import check_room
from .hearing import Arriving, Hearing
from .routing import Route
from .stats import ConnectionInfo, Counts, ListenerStats, info_of
from .tally import Tally

__all__ = ["GOING_AWAY", "Bounds", "Hall", "examine"]

#: What connections are closed with when their server stops.
GOING_AWAY = Close(1001, "the server is going away")

_CLOSED = (
    "connection %s closed: path=%s remote=%s code=%d duration=%.3f "
    "messages_in=%d bytes_in=%d messages_out=%d bytes_out=%d"
)

_log = logging.getLogger("syncws.server")

# Seconds that sockets may take to go away once they were aborted.
_ABORT = 1.0

_OVERLOADED = Refusal(503, "The server is overloaded. Try again later.", (("Retry-After", "5"),))


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How many are let in, and what they may hold; see `Listener`."""

    max_connections: int | None
    max_connections_per_address: int | None
    max_buffered_bytes: int | None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_count(field.name, getattr(self, field.name))


def examine(request: Request, spec: ServiceSpec | None) -> Refusal | None:
    """Return why a request may not have a WebSocket, before anybody is asked. Any thread.

    Args:
        request: The request.
        spec: The service, or None if a resource is to choose it.
    """
    refusal = check_upgrade(request)
    if refusal is None and spec is not None:
        refusal = check_origin(request, spec.config.allowed_origins, request.is_secure)
        refusal = refusal or check_room(spec)
    return refusal


class Hall:
    """Lets clients in, keeps what they are to what is allowed, and sends them home.

    Args:
        bounds: How many are let in.
        tally: Is told of every socket, and of all that runs the user's code.
    """

    def __init__(self, bounds: Bounds, tally: Tally) -> None:
        self._bounds = bounds
        self._tally = tally

        # Owned by the I/O thread; before that `open` sets what it is to begin with.
        self._loop: IOLoop | None = None
        self._door: Door | None = None
        self._budget: Budget | None = None
        self._connections: set[Connection] = set()

        # The same, but read by any thread.
        self.callers: dict[Connection, Caller] = {}
        # Held while a connection is added or ends, so that it counts once.
        self._counting = threading.Lock()
        self._counts = Counts()

    def open(self, loop: IOLoop) -> None:
        """Let clients in from now on, in this loop."""
        self._loop = loop
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

    def end(self) -> None:
        """Nothing is left to look after: of this start, for the next may come at once."""
        if self._loop is not None and self._budget is not None:
            self._loop.call_soon(self._budget.end)

    def forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._connections = set()
        self.callers = {}
        self._counting = threading.Lock()  # who held it is not here
        self._counts = Counts()
        self._door = self._budget = None
        self._tally.forget()

    def stats(self) -> ListenerStats:
        """Return what was counted so far. Any thread."""
        with self._counting:
            return self._counts.stats(self._connections)

    def infos(self) -> list[ConnectionInfo]:
        """Return what there is to be said of the open connections. Any thread."""
        return [info_of(caller) for caller in self.callers.copy().values()]

    def wind_up(
        self, loop: IOLoop, close: Callable[[], None], deadline: Deadline, sockets_only: bool
    ) -> None:
        """End what there is, and wait for it.

        Args:
            loop: The loop that this was started with.
            close: Begins to end it: `close_all`, say. Called in the I/O thread.
            deadline: When what is left is aborted.
            sockets_only: Do not wait for the user's code.
        """
        loop.call_soon(close)
        ended = False
        try:
            ended = self._tally.wait(deadline, sockets_only)
        finally:  # also after a Ctrl-C
            if not ended:
                loop.call_soon(self.abort_all)
                self._tally.wait(Deadline(_ABORT), True)
            self.end()

    # -- I/O thread ------------------------------------------------------

    def close_all(self, timeout: float) -> None:
        """End every connection within `timeout` seconds."""
        for connection in list(self._connections):
            connection.start_close(GOING_AWAY, timeout)

    def abort_all(self) -> None:
        """End every connection now."""
        for connection in list(self._connections):
            connection.abort()

    def refusal(self, address: Address) -> Refusal | None:
        """Return why a client has to stay outside, if that is so."""
        if self._budget is not None and self._budget.full:
            return _OVERLOADED
        return self._door.refusal(address) if self._door is not None else None

    def enter(self, who: object, address: Address) -> None:
        """Count one client more, which was not refused."""
        if self._door is not None:
            self._door.enter(who, address)

    def leave(self, who: object) -> None:
        """Count one less. Harmless for one that was not counted."""
        if self._door is not None:
            self._door.leave(who)

    def hear(
        self,
        arriving: Arriving,
        request: Request,
        route: Route,
        *,
        admit: Callable[[Terms, bool], Admitted],
        headers: Sequence[tuple[str, str]] = (),
    ) -> Hearing:
        """Return the hearing of a client before a resource; it has to run.

        Args:
            arriving: The client.
            request: Its request.
            route: Where the path leads: to a resource.
            admit: Makes a connection on these terms, held if the second is true.
            headers: Headers of the 101 beside those that the resource gives.
        """
        assert self._loop is not None
        self._tally.begun()
        return Hearing(
            self._loop,
            arriving,
            request,
            route,
            admit=admit,
            on_done=self._tally.done,
            headers=headers,
        )

    def let_in(
        self,
        arriving: Arriving,
        request: Request,
        rest: bytes,
        path: str,
        terms: Terms,
        held: bool = False,
        *,
        local: Address,
        attributes: Mapping[str, Any] | None = None,
    ) -> Admitted:
        """Make a client a connection; its callbacks may have to wait for `go_on`.

        Args:
            arriving: The client.
            request: Its request.
            rest: What came behind that.
            path: The path that the service stands on.
            terms: What `agree` has returned.
            held: Whether the callbacks wait.
            local: The address that it came to.
            attributes: What the caller's `attributes` begin with.
        """
        loop = self._loop
        assert loop is not None
        self._tally.opened()
        self._tally.begun()
        admitted = admit(
            loop,
            arriving.take(),
            request,
            path,
            terms,
            addresses=(local, request.remote_address),
            on_done=self._tally.done,
            on_end=self._connection_ended,
            budget=self._budget,
        )
        self._admitted(admitted)
        if attributes:
            admitted.caller.attributes.update(attributes)
        if held:
            admitted.dispatcher.hold()
        start(loop, admitted, terms, rest)
        return admitted

    def _admitted(self, admitted: Admitted) -> None:
        """There is a connection, which may end as soon as it starts."""
        with self._counting:
            self._counts.accepted += 1
            self._connections.add(admitted.connection)
        self.callers[admitted.connection] = admitted.caller

    def _connection_ended(self, connection: Connection) -> None:
        code = (connection.received or NO_CLOSE).code
        stats = connection.stats()
        with self._counting:
            self._connections.discard(connection)
            self._counts.ended(stats, code, connection.error is not None)
        caller = self.callers.pop(connection, None)
        if caller is not None and _log.isEnabledFor(logging.INFO):
            self._note_end(caller, code, stats)
        self.leave(connection.transport)
        self._tally.closed()

    def _note_end(self, caller: Caller, code: int, stats: ConnectionStats) -> None:
        assert self._loop is not None
        self._loop.journal.write(
            _log,
            logging.INFO,
            _CLOSED,
            caller.id,
            target_for_log(caller.request),
            place_of(caller.remote_address),
            code,
            stats.duration,
            stats.messages_received,
            stats.bytes_received,
            stats.messages_sent,
            stats.bytes_sent,
        )

    def count_refusal(self, status: int) -> None:
        """A handshake was answered with this status."""
        with self._counting:
            self._counts.refused(status)
