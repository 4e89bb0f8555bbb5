"""From a connection's events to a service's callbacks."""

from __future__ import annotations

import difflib
import inspect
import logging
import re
import weakref
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

from .config import ServiceConfig
from .endpoint import Endpoint, Line
from .engine.dispatch import CLOSED, IDLE, OPENED, RECONNECT
from .engine.loop import CURRENT
from .engine.observer import Observer, observed
from .errors import Close, ConnectionClosed, Reconnecting
from .logs import log_safely
from .protocol.events import BINARY, ERROR, PING, PONG, TEXT, Event
from .service import Service

__all__ = ["Runner", "ServiceSpec", "is_async"]

# Each callback: its parameters behind the caller, and its event.
_CALLBACKS: dict[str, tuple[tuple[str, ...], int]] = {
    "on_open": ((), OPENED),
    "on_text": (("text",), TEXT),
    "on_binary": (("data",), BINARY),
    "on_ping": (("data",), PING),
    "on_pong": (("data",), PONG),
    "on_idle_timeout": ((), IDLE),
    "on_error": (("error",), ERROR),
    "on_close": (("status_code", "reason"), CLOSED),
    "on_reconnect": (("attempt",), RECONNECT),
}
_STREAMED = ("on_text", "on_binary")

# What the callbacks are called elsewhere.
_ALIASES = {
    "on_connect": "on_open",
    "on_connection": "on_open",
    "on_data": "on_binary",
    "on_disconnect": "on_close",
    "on_message": "on_text",
    "on_receive": "on_text",
    "on_timeout": "on_idle_timeout",
}


class _Found(NamedTuple):
    """What was found of a service: its callbacks, and which of them take `final`."""

    has: frozenset[str]
    streamed: frozenset[str]


# Callbacks that have returned something: a warning for each is enough.
_talkative: set[tuple[type, int]] = set()

# By class, of those whose instances all have the same callbacks.
_known: weakref.WeakKeyDictionary[type, _Found] = weakref.WeakKeyDictionary()


class ServiceSpec:
    """A service that was looked at once: which callbacks it has and how they are called.

    Args:
        service: An instance, shared by all connections, or a class, of which
            each connection gets an instance.
        client: Whether it is to be a client's.
        again: Go by what was found of another instance of the same class. For
            those that are made for one connection each.

    Raises:
        TypeError: It is no service, or a callback has a wrong name or
            parameters.
    """

    __slots__ = ("config", "has", "service", "stream_binary", "stream_text")

    def __init__(
        self, service: Service | type[Service], *, client: bool, again: bool = False
    ) -> None:
        cls = service if isinstance(service, type) else type(service)
        if not issubclass(cls, Service):
            hint = "; make one of a function with syncws.FunctionService(...)"
            raise TypeError(
                f"a service is an instance or a subclass of syncws.Service, not {service!r}"
                f"{hint if inspect.isroutine(service) and not client else ''}"
            )
        self.service = service
        self.config = service.config
        if not isinstance(self.config, ServiceConfig):
            raise TypeError(
                f"{cls.__name__}.config must be a syncws.ServiceConfig, not {self.config!r}"
            )
        found = _known.get(cls) if again and not _has_own_callbacks(service) else None
        if found is None:
            found = _look(service, cls)
            if again and _is_plain(service, cls):
                _known[cls] = found
        self.has = found.has
        if client and "on_open" in self.has:
            raise TypeError(
                f"{cls.__name__}.on_open is never called on a client, which is open once it is "
                "made: move what it does after the Client(...) call"
            )
        if not client and "on_reconnect" in self.has:
            raise TypeError(
                f"{cls.__name__}.on_reconnect is never called on a listener, whose callers "
                "connect again by themselves, if at all; it is for a client's service"
            )
        self.stream_text = "on_text" in found.streamed
        self.stream_binary = "on_binary" in found.streamed

    def instance(self) -> Service:
        """Return the service for one connection; runs the user's code if it is a class."""
        return self.service() if isinstance(self.service, type) else self.service


def _look(service: object, cls: type) -> _Found:
    """Find the callbacks of a service, and check them."""
    _check_names(service, cls)
    has = frozenset(name for name in _CALLBACKS if hasattr(service, name))
    if not has:
        raise TypeError(f"{cls.__name__} has no callback: define one of {', '.join(_CALLBACKS)}")
    return _Found(has, frozenset(name for name in has if _check_signature(service, cls, name)))


def _has_own_callbacks(service: object) -> bool:
    """Whether this is an instance that may have others than its class has."""
    return not isinstance(service, type) and any(
        name.startswith("on_") for name in getattr(service, "__dict__", ())
    )


def _is_plain(service: object, cls: type) -> bool:
    """Whether what was found of this one holds for every instance of its class."""
    if _has_own_callbacks(service) or hasattr(cls, "__getattr__"):
        return False
    lookup = inspect.getattr_static(cls, "__getattribute__")
    return lookup is object.__getattribute__ and all(
        isinstance(inspect.getattr_static(cls, name), (FunctionType, staticmethod, classmethod))
        for name in dir(cls)
        if name.startswith("on_")
    )


def _check_names(service: object, cls: type) -> None:
    for name in dir(service):
        meant = _in_our_spelling(name)
        if meant is not None:
            raise TypeError(f"{cls.__name__}.{name} is no callback; did you mean {meant}?")
        if name.startswith("on_") and name not in _CALLBACKS:
            near = [_ALIASES[name]] if name in _ALIASES else []
            near += [callback for callback in _CALLBACKS if callback.startswith(name)]
            near += difflib.get_close_matches(name, _CALLBACKS, 1, 0.5)
            raise TypeError(
                f"{cls.__name__}.{name} is no callback"
                + (f"; did you mean {near[0]}?" if near else ".")
                + f" There are {', '.join(_CALLBACKS)}; other methods must not begin with on_"
            )


def _in_our_spelling(name: str) -> str | None:
    """Return the callback that `onMessage` or the like stands for, if it does for one."""
    if name[:2] != "on" or not name[2:3].isupper():
        return None
    found = re.sub("[A-Z]", lambda upper: f"_{upper[0].lower()}", name)
    found = _ALIASES.get(found, found)
    return found if found in _CALLBACKS else None


def _check_signature(service: object, cls: type, name: str) -> bool:
    """Return whether the callback takes `final` too."""
    function: Any = getattr(service, name)
    wanted = ("caller", *_CALLBACKS[name][0])
    bound = not isinstance(service, type) or isinstance(
        inspect.getattr_static(service, name), (staticmethod, classmethod)
    )
    text = f"{name}({'self, ' if not bound or inspect.ismethod(function) else ''}"
    if not callable(function):
        raise TypeError(f"{cls.__name__}.{name} must be a method, not {function!r}")
    if is_async(function):
        raise TypeError(
            f"{cls.__name__}.{name} must be a plain method, not async: it runs in a thread "
            "and may block"
        )
    signature = inspect.signature(function)
    probe: tuple[Any, ...] = (None,) * (len(wanted) + (0 if bound else 1))
    # A parameter more that has no default is meant, one with a default may be
    # anything: only `final` is taken for ours then.
    streamed = name in _STREAMED and (
        _binds(signature, (*probe, None))
        and (not _binds(signature, probe) or "final" in signature.parameters)
    )
    if streamed or _binds(signature, probe):
        return streamed
    also = " or the same and final" if name in _STREAMED else ""
    raise TypeError(
        f"{cls.__name__}.{name}{signature} cannot be called: it must take "
        f"{text}{', '.join(wanted)}){also}"
    )


def is_async(function: Callable[..., Any], *, generators: bool = False) -> bool:
    """Whether calling a function, or an object, returns before it has done anything.

    Args:
        function: What is to be called.
        generators: Whether plain generators count as well.
    """
    return any(
        inspect.iscoroutinefunction(called)
        or inspect.isasyncgenfunction(called)
        or (generators and inspect.isgeneratorfunction(called))
        for called in (function, type(function).__call__)
    )


def _binds(signature: inspect.Signature, arguments: tuple[Any, ...]) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


class Runner:
    """Calls a service's callbacks with the events of one connection.

    Every method runs in a worker thread, one at a time.

    Guarantees:
        - Once this end has closed, only on_error and on_close are called.
        - A callback that raises is logged once, and the connection is closed
          with 1011; on_error and on_close still come.
        - ConnectionClosed out of a callback whose own connection has ended is
          no such failure, nor is Reconnecting.
        - on_error is called once at the most, with what failed first.

    Args:
        spec: The service.
        log: Where exceptions go.
        where: The path or URL to name there.
    """

    __slots__ = (
        "_calls",
        "_connection",
        "_endpoint",
        "_failed",
        "_log",
        "_spec",
        "_streamed",
        "_where",
        "_whole",
    )

    # Both are set before the first event.
    _connection: Line
    _endpoint: Endpoint

    def __init__(self, spec: ServiceSpec, log: logging.Logger, where: str) -> None:
        self._spec = spec
        self._log = log
        self._where = where
        self._calls: dict[int, Callable[..., Any]] | None = None  # of the service, once it is made
        # Those among them that get a message, ping or pong, and nothing else.
        self._whole: dict[int, Callable[..., Any]] = {}
        self._streamed = frozenset(
            opcode
            for opcode, streamed in ((TEXT, spec.stream_text), (BINARY, spec.stream_binary))
            if streamed
        )
        self._failed = False  # on_error was called, or the log has it

    def bind(self, endpoint: Endpoint, connection: Line) -> None:
        """Set what the callbacks get as their first argument. Before the first event."""
        self._endpoint = endpoint
        self._connection = connection

    def handle(self, event: Event) -> None:
        """Handle one event."""
        opcode, data, final = event
        try:
            callback = self._whole.get(opcode)
            if callback is not None:
                if not self._connection.closed_here and callback(self._endpoint, data) is not None:
                    self._returned(event)
                return
            calls = self._calls
            if calls is None:
                calls = self._prepare()
            callback = calls.get(opcode)
            if callback is None:
                if opcode == ERROR:
                    self._untold(data)
                return
            if opcode > 0:
                if self._connection.closed_here:
                    return
                if opcode in self._streamed:
                    callback(self._endpoint, data, final)
                else:
                    callback(self._endpoint, data)
            elif opcode == ERROR:
                if not self._failed:
                    self._failed = True
                    callback(self._endpoint, data)
            elif opcode == CLOSED:
                callback(self._endpoint, data.code, data.reason)
            elif opcode == RECONNECT:
                if not self._connection.closed_here:
                    callback(self._endpoint, data)
            elif opcode == OPENED or not self._connection.closed_here:
                callback(self._endpoint)
        except BaseException as exc:
            self._raised(opcode, exc)

    def describe_call(self, event: Event) -> str:
        """Say which callback an event leads to. Any thread."""
        names = {opcode: name for name, (_, opcode) in _CALLBACKS.items()}
        service = self._spec.service
        cls = service if isinstance(service, type) else type(service)
        name = names[event.opcode] if self._calls is not None else "__init__"
        return f"{cls.__name__}.{name} at {self._where}"

    def _returned(self, event: Event) -> None:
        """A callback has returned something, perhaps to have it sent: say once that it is not."""
        service = self._spec.service
        cls = service if isinstance(service, type) else type(service)
        if (cls, event.opcode) not in _talkative:
            _talkative.add((cls, event.opcode))
            log_safely(
                self._log,
                logging.WARNING,
                "%s returned something, which is not sent: send it with caller.send_text(...) "
                "or the like",
                self.describe_call(event),
            )

    def _untold(self, error: BaseException) -> None:
        """There is no on_error: nobody else would say why the connection has ended."""
        if not self._failed:
            self._failed = True
            log_safely(
                self._log, logging.WARNING, "%s: a connection failed: %s", self._where, error
            )

    def _prepare(self) -> dict[int, Callable[..., Any]]:
        """Make the service; here, since a class runs the user's code."""
        self._calls = {}  # should the class raise
        service = self._spec.instance()
        calls = {
            event: getattr(service, name)
            for name, (_, event) in _CALLBACKS.items()
            if name in self._spec.has
        }
        observer: Observer | None = getattr(getattr(CURRENT, "owner", None), "observer", None)
        if observer is not None:
            for name, (_, event) in _CALLBACKS.items():
                if event in calls:
                    calls[event] = observed(observer, name, calls[event])
        self._calls = calls
        self._whole = {
            opcode: call
            for opcode, call in self._calls.items()
            if opcode > 0 and opcode not in self._streamed
        }
        return self._calls

    def _raised(self, opcode: int, error: BaseException) -> None:
        connection = self._connection
        if isinstance(error, ConnectionClosed) and not connection.sending:
            # It sent on a connection that ended meanwhile: an everyday event.
            log_safely(
                self._log, logging.INFO, "%s: a callback was cut short: %s", self._where, error
            )
            connection.give_up()
            return
        if isinstance(error, Reconnecting):
            # Its connection was lost, and it hears of the next.
            log_safely(
                self._log, logging.INFO, "%s: a callback was cut short: %s", self._where, error
            )
            return
        log_safely(self._log, logging.ERROR, "%s: a callback raised", self._where, error=error)
        connection.fail(error, Close(1011, "internal error"))
        # on_close comes last, and on_error does not hear of itself.
        if opcode not in (ERROR, CLOSED) and ERROR in (self._calls or ()):
            self.handle(Event(ERROR, error))
        self._failed = True
