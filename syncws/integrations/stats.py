"""What a listener counts, as JSON over HTTP.

    listener = syncws.Listener(9090)
    ...
    inside = syncws.Listener(9091, app=StatsApp(listener))  # on 127.0.0.1 only
    inside.start()

Whoever can reach it sees the addresses of clients and the paths they asked
for, so keep it to where only you can.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..engine.engine import Engine, engine_of
from ..server.listener import Listener

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["StatsApp", "snapshot"]

# Connections that are told of one by one.
_MOST = 1000


def snapshot(listener: Listener, engine: Engine, most: int = _MOST) -> dict[str, Any]:
    """Return what a listener and an engine count, as what JSON can express.

    Args:
        listener: The listener.
        engine: Its engine.
        most: Connections that are told of one by one, those that carry the
            most first.
    """
    connections = listener.connections()
    connections.sort(key=lambda one: -(one.stats.bytes_received + one.stats.bytes_sent))
    return {
        "listener": listener.stats()._asdict(),
        "engine": engine.stats()._asdict(),
        "connections": [
            {**one._asdict(), "stats": one.stats._asdict()} for one in connections[:most]
        ],
    }


class StatsApp:
    """A WSGI application that answers every GET with the counts of a listener.

    Args:
        listener: The listener to tell of, which is another than the one that
            serves this.
        engine: The listener's engine; the process's own if None.

    The JSON has `listener` with the fields of `ListenerStats`, `engine` with
    those of `EngineStats`, and `connections`, a list with those of
    `ConnectionInfo`, of the 1000 that have carried the most.
    """

    def __init__(self, listener: Listener, engine: Engine | None = None) -> None:
        if not isinstance(listener, Listener):
            raise TypeError(f"StatsApp tells of a syncws.Listener, not {listener!r}")
        self._listener = listener
        self._engine = engine_of(engine)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Answer a request."""
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD")])
            return []
        body = json.dumps(snapshot(self._listener, self._engine)).encode()
        start_response(
            "200 OK",
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
            ],
        )
        return [body]
