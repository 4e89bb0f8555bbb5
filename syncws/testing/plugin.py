"""The fixtures that pytest finds by itself, as the plugin `syncws`.

``-p no:syncws`` leaves them out.

All of it is imported with pytest; no thread is started before a test asks for one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..client.client import Client
    from ..engine.engine import Engine
    from ..server.listener import Listener
    from .clock import ManualClock

__all__ = ["ws_client", "ws_clock", "ws_engine", "ws_errors", "ws_listener"]


class _Errors(logging.Handler):
    """Collects what is logged at ERROR."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def ws_errors() -> Iterator[list[logging.LogRecord]]:
    """What syncws has logged at ERROR so far, such as the exception of a callback.

    If anything is in this list when the test is over, the test fails with it:
    one that expects an error looks at the list and calls its ``clear``.
    """
    handler = _Errors()
    logger = logging.getLogger("syncws")
    logger.addHandler(handler)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)
    if handler.records:
        shown = logging.Formatter("%(name)s: %(message)s")
        texts = [shown.format(record) for record in handler.records]
        pytest.fail("logged at ERROR:\n" + "\n".join(texts), pytrace=False)


@pytest.fixture
def ws_clock() -> ManualClock:
    """A clock that stands still but for its ``advance``; `ws_engine` goes by it if it is used."""
    from .clock import ManualClock

    return ManualClock()


@pytest.fixture
def ws_engine(request: pytest.FixtureRequest, ws_errors: object) -> Iterator[Engine]:
    """What the test's listener and clients run on: a `MemoryEngine`.

    A fixture of this name that returns ``syncws.Engine()`` has them use the
    system's sockets, on a free port of 127.0.0.1, instead.
    """
    from .memory import MemoryEngine

    if "ws_clock" in request.fixturenames:
        engine = MemoryEngine(clock=request.getfixturevalue("ws_clock"))
    else:
        engine = MemoryEngine()
    yield engine
    engine.reap()


@pytest.fixture
def ws_listener(ws_engine: Engine, ws_errors: object) -> Iterator[Listener]:
    """A `Listener` that is started, and stopped when the test is over.

    Attach services to it. A fixture of this name in the tests' own
    ``conftest.py`` can do that for all of them, or yield the application's
    listener, with `serving`.
    """
    from ..server.listener import Listener

    listener = Listener(0, engine=ws_engine)
    with listener:
        yield listener
    ws_engine.reap()


@pytest.fixture
def ws_client(request: pytest.FixtureRequest, ws_engine: Engine) -> Iterator[Callable[..., Client]]:
    """A function that connects, and closes what it has connected when the test is over.

    Its first argument is a path of `ws_listener`, such as "/chat?age=30", or a
    URL; the others are those of `Client`.
    """
    from ..client.client import Client
    from .site import Site

    clients: list[Client] = []

    def connect(where: str = "/", **options: Any) -> Client:
        if where.startswith("/"):
            site = Site(request.getfixturevalue("ws_listener"), ws_engine)
            client = site.connect(where, **options)
        else:
            client = Client(where, **{"engine": ws_engine, **options})
        clients.append(client)
        return client

    if "ws_listener" in request.fixturenames:
        request.getfixturevalue("ws_listener")  # it is stopped after the clients are closed
    yield connect
    for client in clients:
        client.close()
