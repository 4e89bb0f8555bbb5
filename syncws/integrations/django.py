"""WebSockets in a Django project, in whatever WSGI server it runs.

::

    from syncws.integrations.django import websocket

    def echo(ws, name):
        for message in ws:
            ws.send(f"{name}: {message}")

    urlpatterns = [path("echo/<str:name>", websocket(echo))]

Such a view runs as others do, with all middleware; its response hands the
connection to the engine, and the server's thread is free again. A function
then runs in a thread of its own.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

try:
    from django.conf import settings
    from django.core import signals
    from django.db import close_old_connections, connections
    from django.http import HttpRequest, HttpResponse
    from django.views.decorators.csrf import csrf_exempt
except ImportError as exc:
    raise ImportError("syncws.integrations.django needs Django: pip install django") from exc

from ..callbacks import ServiceSpec
from ..config import ServiceConfig
from ..server.functions import FunctionCall, Threads, WebSocket, check_function, name_of
from ..server.upgrade import HeadersArgument
from ..service import Service
from .environ import NO_TEST_CLIENT, is_test_client, keepsake, may_say_upgrade
from .wsgi import UpgradeResponse, default_adopter

__all__ = ["WebSocket", "database", "upgrade", "websocket"]

#: What a WebSocket can be led to.
Target = Service | type[Service] | Callable[..., Any]

# What the request is called among a caller's attributes.
_KEY = "django"

_NO_CONFIG = "config is for functions: a service has settings of its own, the attribute config"


def websocket(
    target: Target, *, config: ServiceConfig | None = None
) -> Callable[..., HttpResponse]:
    """Return a view for WebSockets.

    A function is called in a thread of its own for each connection, with a
    `WebSocket` and the values of the path by name. Of a class of services
    each connection gets an instance; `caller.request.path_params` has the
    values.

    In either, `caller.attributes["django"]` is the request, with its session
    and its user.

    Args:
        target: A function, a service, or a class of services.
        config: The settings of a function's connections.

    Raises:
        TypeError: It is nothing of this, or cannot be called so.
    """
    _check(target, config)

    def view(request: HttpRequest, *args: Any, **values: Any) -> HttpResponse:
        if args:
            raise TypeError(
                "the path's groups need names, by which functions and services get their values"
            )
        return upgrade(request, target, config=config, params=values)

    view.__name__ = view.__qualname__ = name_of(target)
    view.__module__ = target.__module__
    view.__doc__ = target.__doc__
    exempt: Callable[..., HttpResponse] = csrf_exempt(view)
    return exempt


def upgrade(
    request: HttpRequest,
    target: Target,
    *,
    config: ServiceConfig | None = None,
    params: Mapping[str, Any] | None = None,
    headers: HeadersArgument = None,
    subprotocol: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> HttpResponse:
    """Return the response with which a view lets a WebSocket in.

    For views that decide themselves, with all that Django has for that::

        @login_required
        def chat(request, room):
            return upgrade(request, Chat, attributes={"room": room})

    Args:
        request: The view's request.
        target: A function, a service, or a class of services.
        config: The settings of a function's connections.
        params: What a function gets by name, and `caller.request.path_params`;
            the values of the path if None.
        headers: Headers of the 101; others may be put into the response.
        subprotocol: One that the client offers; the service's choice if None.
        attributes: What `caller.attributes` begins with.

    Raises:
        TypeError, ValueError: An argument is wrong.
        RuntimeError: The server does not let its connections be taken.
    """
    environ = getattr(request, "environ", None)
    if environ is None:
        raise RuntimeError(
            "this request has not come through WSGI, of which WebSockets are taken here"
        )
    if params is None:
        params = request.resolver_match.kwargs if request.resolver_match is not None else {}
    service: Any = target
    if not isinstance(target, Service) and not isinstance(target, type):
        check_function(target, *params)
        service = _Call(target, config or ServiceConfig(), _threads())
    elif config is not None:
        raise TypeError(_NO_CONFIG)
    try:
        answer = default_adopter().upgrade(
            environ,
            service,
            params=params,
            headers=headers,
            subprotocol=subprotocol,
            attributes={_KEY: _keepsake(request), **(attributes or {})},
        )
    except RuntimeError:
        if is_test_client(environ):
            raise RuntimeError(NO_TEST_CLIENT) from None
        raise
    return _Response(answer, environ)


@contextlib.contextmanager
def database() -> Iterator[None]:
    """Use the database in a callback of a service.

    ::

        def on_text(self, caller, text):
            with database():
                Message.objects.create(text=text)

    Callbacks run in workers, which live on: connections that are too old or
    broken are closed before and after the block, as Django does it with each
    request. Functions need it not.
    """
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


class _Call(FunctionCall):
    """One call of a function."""

    def call(self, ws: WebSocket) -> None:
        try:
            super().call(ws)
        except Exception:
            if ws.is_open:
                request = ws.attributes[_KEY]
                signals.got_request_exception.send(sender=type(self), request=request)
            raise
        finally:
            connections.close_all()  # they are this thread's, and it ends


class _Response(HttpResponse):
    """The response of a view; what middleware puts into its headers goes out with the 101."""

    status_code: int

    def __init__(self, answer: UpgradeResponse, environ: Mapping[str, Any]) -> None:
        self._answer = answer
        self._settled = answer.status != 101
        self._handler: type | None = None
        super().__init__(answer.body, status=answer.status)
        self._take_headers()
        if answer.status == 426 and may_say_upgrade(environ):
            self.headers["Upgrade"] = "websocket"

    def _take_headers(self) -> None:
        for name, value in self._answer.headers:
            self.headers[name] = value

    # The handler sets this when all middleware has run, before it asks for the
    # status and the headers: then the client is let in, or refused after all.
    @property
    def _handler_class(self) -> type | None:
        return self._handler

    @_handler_class.setter
    def _handler_class(self, handler: type | None) -> None:
        self._handler = handler
        if handler is not None:
            self._settle()

    def _settle(self, late: bool = False) -> None:
        if self._settled or self.status_code != 101:  # refused, by middleware perhaps
            return
        self._settled = True
        cookies = [("Set-Cookie", one.OutputString()) for one in self.cookies.values()]
        self._answer.headers = [*self.items(), *cookies]
        status = self._answer.settle(late=late)
        if status != 101:
            self.status_code = status
            self.content = self._answer.body
            for name in list(self.headers):
                del self.headers[name]
            self._take_headers()

    def __iter__(self) -> Iterator[bytes]:
        self._settle(late=True)
        body: Iterator[bytes] = super().__iter__()
        return body


def _keepsake(request: HttpRequest) -> HttpRequest:
    """Return the request as it can be kept for as long as the connection lives."""
    kept = copy.copy(request)
    environ = keepsake(request.META)
    vars(kept).update(environ=environ, META=environ, _stream=environ["wsgi.input"])
    return kept


@functools.cache
def _threads() -> Threads:
    """The threads of all functions of the process."""
    return Threads(getattr(settings, "SYNCWS_MAX_THREADS", 100))


def _check(target: Any, config: object) -> None:
    if config is not None and not isinstance(config, ServiceConfig):
        raise TypeError(f"config must be a syncws.ServiceConfig or None, not {config!r}")
    if isinstance(target, Service) or (isinstance(target, type) and issubclass(target, Service)):
        ServiceSpec(target, client=False)
        if config is not None:
            raise TypeError(_NO_CONFIG)
    else:
        check_function(target)
