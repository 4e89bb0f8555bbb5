"""A service or a listener to be tested, served in memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from ..client.client import Client
from ..engine.engine import Engine
from ..server.listener import Listener, running_on
from ..service import Service
from ..timing import Clock
from .memory import MemoryEngine

__all__ = ["Site", "serving"]


class Site:
    """A listener that is started, and clients of it, for a test.

    Attributes:
        listener: The listener.
        engine: What it and the clients run on.
    """

    def __init__(self, listener: Listener, engine: Engine) -> None:
        self.listener = listener
        self.engine = engine
        self._clients: list[Client] = []

    def url(self, path: str = "/") -> str:
        """Return the URL of a path, which may have a query.

        Raises:
            ValueError: The path does not begin with a slash.
        """
        if not path.startswith("/"):
            raise ValueError(f"path must begin with '/', not {path!r}")
        scheme, usual = ("wss", 443) if self.listener.secure else ("ws", 80)
        port = self.listener.port
        host = "localhost" if port in (None, usual) else f"localhost:{port}"
        return f"{scheme}://{host}{path}"

    def connect(self, path: str = "/", **options: Any) -> Client:
        """Return a client of the listener, to be closed when the test ends.

        Blocks as the constructor of `Client` does, whose errors it raises.

        Args:
            path: The path, which may have a query.
            options: Those of `Client`, such as `headers` or `service`.
        """
        addresses = self.listener.addresses
        if addresses and isinstance(addresses[0], str):
            options.setdefault("unix_path", addresses[0])
        client = Client(self.url(path), engine=self.engine, **options)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Close the clients that are open."""
        clients, self._clients = self._clients, []
        for client in clients:
            client.close()


@contextlib.contextmanager
def serving(
    target: Service | type[Service] | Listener,
    *,
    path: str = "/",
    clock: Clock = time.monotonic,
    engine: Engine | None = None,
) -> Iterator[Site]:
    """Serve a service or a listener in memory, for as long as a ``with`` block takes.

    Args:
        target: A service, as for `Listener.attach`; or a listener that is not
            started, such as that of the application's module. It is run on
            `engine` meanwhile, whatever port and engine it was made with.
        path: Where to attach a service.
        clock: Its time; a `ManualClock` to have it pass at will.
        engine: What to run on; a `MemoryEngine` of its own if None.

    At the end the clients of `Site.connect` are closed, and the listener is
    stopped, however the block ends.

    Raises:
        RuntimeError: The listener is started.
        TypeError: `target` is neither.
    """
    engine = engine or MemoryEngine(clock=clock)
    if isinstance(target, Listener):
        listener = target
    else:
        listener = Listener(80, engine=engine)
        listener.attach(path, target)
    with running_on(listener, engine):
        site = Site(listener, engine)
        with listener:
            try:
                yield site
            finally:
                site.close()
    engine.reap()
