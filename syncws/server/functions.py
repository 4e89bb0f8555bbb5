"""Functions in place of services: one call for each connection, in a thread of its own.

Threads: what stands under "I/O thread" and "Worker thread" belongs there. The
function's thread is started by a worker, takes messages out of a mailbox that
the I/O thread fills, and is gone when the function has returned.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ..callbacks import ServiceSpec, is_async
from ..config import ServiceConfig, check_count
from ..endpoint import Receiver
from ..engine.connection import Connection
from ..engine.dispatch import OPENED, Mailbox
from ..engine.loop import IOLoop
from ..errors import Close, ConnectionClosed
from ..logs import log_safely
from ..protocol.events import Event
from ..protocol.server_handshake import Refusal
from ..service import Service
from .caller import Caller

__all__ = [
    "FunctionCall",
    "FunctionInbox",
    "FunctionService",
    "Threads",
    "WebSocket",
    "check_function",
    "check_room",
    "name_of",
]

_FULL = Refusal(503, "The server is busy. Try again later.", (("Retry-After", "5"),))

_log = logging.getLogger("syncws.server")
_numbers = itertools.count(1)


class WebSocket(Receiver, Caller):
    """A client that is connected to a function, which takes its messages with `receive`.

    In all else it is as every `Caller`: it may be a member of a `Group`, and
    every method may be called from any thread.
    """

    __slots__ = ("_mailbox",)

    _mailbox: Mailbox

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message: text for a str, binary for bytes; see `send_text` and `send_binary`.

        Raises:
            TypeError: It is neither; `send_json` takes what JSON can express.
        """
        if isinstance(message, str):
            self.send_text(message)
        elif isinstance(message, (bytes, bytearray, memoryview)):
            self.send_binary(message)
        else:
            raise TypeError(
                f"send takes a str or bytes, not {type(message).__name__}: {message!r:.60}; "
                "send_json takes what JSON can express"
            )


class Threads:
    """How many functions may run at once; a further client is refused with 503.

    Args:
        max_threads: Threads at once. None: no limit.

    Several services may share one of these.
    """

    def __init__(self, max_threads: int | None = 100) -> None:
        check_count("max_threads", max_threads)
        self.max_threads = max_threads

        # Guarded by _lock.
        self._lock = threading.Lock()
        self._inside: set[object] = set()
        _all_threads.add(self)

    def __repr__(self) -> str:
        return f"<syncws.Threads {len(self._inside)} of {self.max_threads}>"

    @property
    def running(self) -> int:
        """How many functions run, or are about to."""
        return len(self._inside)

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return self.max_threads is not None and len(self._inside) >= self.max_threads

    def enter(self, key: object) -> bool:
        """Take a place if there is one; return whether there is."""
        with self._lock:
            if self.full:
                return False
            self._inside.add(key)
            return True

    def leave(self, key: object) -> None:
        """Give a place back. Harmless twice."""
        with self._lock:
            self._inside.discard(key)

    def _after_fork(self) -> None:
        """In the child: the threads are the parent's."""
        self._lock = threading.Lock()
        self._inside = set()


class FunctionService(Service):
    """A function that is called once for each connection, in a thread of its own.

    It gets a `WebSocket`, and the values of the path's parameters by name::

        def echo(ws):
            for message in ws:
                ws.send(message)

    - When it returns, the connection is closed with 1000.
    - When the connection ends, its next call that sends or receives raises
      `ConnectionClosed`, which it may let out.
    - Any other exception is logged, and the connection is closed with 1011.

    Args:
        function: The function.
        config: The settings of its connections.
        threads: How many may run at once; 100 of this service's own if None.

    Raises:
        TypeError: It cannot be called so, or is async.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        config: ServiceConfig | None = None,
        threads: Threads | None = None,
    ) -> None:
        check_function(function)
        if threads is not None and not isinstance(threads, Threads):
            raise TypeError(f"threads must be a Threads or None, not {threads!r}")
        if config is not None:
            self.config = config
        self.function = function
        self.threads = threads or Threads()

    def __repr__(self) -> str:
        return f"<syncws.FunctionService {name_of(self.function)}>"

    def on_open(self, caller: Caller) -> None:
        """Never called: the inbox is told in its place, and starts the thread."""

    def call(self, ws: WebSocket) -> None:
        """Call the function; in its thread."""
        self.function(ws, **ws.request.path_params)

    def refusal(self) -> Refusal | None:
        """Return why nobody can be let in now, if that is so."""
        return _FULL if self.threads.full else None


class FunctionCall(FunctionService):
    """One call of a function that has been checked already: for one connection.

    Args:
        function: The function.
        config: The settings of the connection.
        threads: How many may run at once.
    """

    def __init__(
        self, function: Callable[..., Any], config: ServiceConfig, threads: Threads
    ) -> None:
        self.function = function
        self.config = config
        self.threads = threads


class FunctionInbox(Mailbox):
    """The messages of one connection, and the thread that takes them.

    Guarantees:
        - The function is called once at most: when the connection is open and
          the resource, if there is one, has returned.
        - `on_done` is called once, after the function if that is called.

    Args:
        service: The function.
        loop: The connection's loop.
        where: The path to name in the log.
        max_count: Messages that may wait before reading pauses.
        max_size: Their size, in bytes, or characters of text.
        on_done: Called when the function has returned or will never be called.
    """

    __slots__ = (
        "_connection",
        "_entered",
        "_held",
        "_loop",
        "_muted",
        "_on_done",
        "_service",
        "_where",
        "_ws",
    )

    def __init__(
        self,
        service: FunctionService,
        loop: IOLoop,
        where: str,
        *,
        max_count: int,
        max_size: int,
        on_done: Callable[[], None],
    ) -> None:
        super().__init__(max_count=max_count, max_size=max_size)
        self._service = service
        self._loop = loop
        self._where = where
        self._on_done = on_done
        self._ws: WebSocket | None = None
        self._connection: Connection | None = None
        self._held = self._muted = self._entered = False

    # -- I/O thread ------------------------------------------------------

    def bind(self, ws: Any, connection: Connection) -> None:
        """Set what the function gets. Before the first event."""
        ws._mailbox = self
        self._ws = ws
        self._connection = connection

    def hold(self) -> None:
        """Do not call the function until `go_on`. Before the first event."""
        self._held = True

    def other(self, event: Event) -> None:
        """The connection is open: have a worker start the thread."""
        if event.opcode == OPENED:
            self._entered = self._service.threads.enter(self)
            if not self._held:
                self._loop.ready.append(self)

    # -- Worker thread ---------------------------------------------------

    def mute(self) -> None:
        """Never call the function. While it is held."""
        self._muted = True

    def go_on(self) -> None:
        """Let go of what `hold` has held."""
        self.run()

    def run(self) -> None:
        """Start the thread."""
        if self._muted:
            self._leave()
            return
        connection = self._connection
        assert connection is not None
        if not self._entered:
            # Others came between the look at the room and this one's entry.
            connection.start_close(Close(1013, "too many clients"), connection.config.close_timeout)
            self._leave()
            return
        name = f"syncws-function-{next(_numbers)}"
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError as exc:
            log_safely(_log, logging.ERROR, "%s: could not start %s", self._where, name, error=exc)
            connection.fail(exc, Close(1013, "too many clients"))
            self._leave()

    def describe(self) -> str:
        """Say what is done."""
        return f"starting the thread of {name_of(self._service.function)} at {self._where}"

    def _leave(self) -> None:
        """The function has returned or will never be called."""
        self._ws = self._connection = None  # cycles less: all is freed at once
        if not self._loop.abandoned:  # else the ones that count are in the parent process
            self._service.threads.leave(self)
            self._on_done()

    # -- The function's thread -------------------------------------------

    def _run(self) -> None:
        self._loop.join_engine()
        ws, connection = self._ws, self._connection
        assert ws is not None
        assert connection is not None
        try:
            self._service.call(ws)
        except BaseException as exc:
            self._raised(connection, exc)
        else:
            self._untold(connection)
            connection.start_close(Close(1000, ""), connection.config.close_timeout)
        finally:
            self._leave()

    def _raised(self, connection: Connection, error: BaseException) -> None:
        if isinstance(error, ConnectionClosed) and not connection.sending:
            self._untold(connection)  # it is how most functions end
            return
        log_safely(_log, logging.ERROR, "%s: a function raised", self._where, error=error)
        connection.fail(error, Close(1011, "internal error"))

    def _untold(self, connection: Connection) -> None:
        """Nobody else would say why the connection has ended."""
        error = connection.error
        if error is not None:
            log_safely(_log, logging.WARNING, "%s: a connection failed: %s", self._where, error)


def check_room(spec: ServiceSpec) -> Refusal | None:
    """Return why nobody can be let in to a service now, if that is so. Any thread."""
    service = spec.service
    return service.refusal() if isinstance(service, FunctionService) else None


def check_function(function: object, *names: str) -> None:
    """Check that a function can be called with a WebSocket, and with these names.

    Without names, that it takes something.

    Raises:
        TypeError: It cannot, or is async.
    """
    if not callable(function) or isinstance(function, type):
        advice = "; a class has to be a subclass of syncws.Service"
        raise TypeError(
            f"a function that takes a WebSocket is wanted, not {function!r}"
            f"{advice if isinstance(function, type) else ''}"
        )
    if is_async(function, generators=True):
        raise TypeError(
            f"{name_of(function)} must be a plain function, not async and no generator: it "
            "runs in a thread of its own and may block"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some that are written in C
        return
    try:
        if names:
            signature.bind(None, **dict.fromkeys(names))
        else:
            signature.bind_partial(None)
    except TypeError as exc:
        wanted = ", ".join(("ws", *names))
        raise TypeError(
            f"{name_of(function)}{signature} cannot be called with a WebSocket: {exc}; write "
            f"{name_of(function)}({wanted})"
        ) from None


def name_of(function: object) -> str:
    """Return what a function is called, or else its type."""
    name: str = getattr(function, "__name__", type(function).__name__)
    return name


_all_threads: weakref.WeakSet[Threads] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for threads in list(_all_threads):
        threads._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
