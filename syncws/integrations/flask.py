"""WebSockets in a Flask application, in whatever WSGI server it runs.

::

    from syncws.integrations.flask import WebSockets

    sockets = WebSockets(app)

    @sockets.route("/echo")
    def echo(ws):
        for message in ws:
            ws.send(message)

The view of such a route runs as others do, with before_request, the session
and after_request; its response hands the connection to the engine, and the
server's thread is free again. A function then runs in a thread of its own,
with a copy of the request's context.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import flask
    from flask import globals as flask_globals
    from werkzeug.exceptions import HTTPException
    from werkzeug.routing import WebsocketMismatch
except ImportError as exc:
    raise ImportError("syncws.integrations.flask needs Flask: pip install flask") from exc

from ..callbacks import ServiceSpec
from ..config import ServiceConfig
from ..protocol.http import Request
from ..server.caller import Caller
from ..server.functions import FunctionCall, Threads, WebSocket, check_function, name_of
from ..server.upgrade import HeadersArgument, Upgrade, check_resource
from ..service import Service
from .environ import NO_TEST_CLIENT, is_test_client, keepsake, may_say_upgrade
from .wsgi import Adopter, UpgradeResponse, default_adopter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["WebSocket", "WebSockets"]

_Owner = flask.Flask | flask.Blueprint
_Handler = TypeVar("_Handler", bound=Callable[..., Any])

# What the context of its request is called among a caller's attributes.
_KEY = "flask"


class WebSockets:
    """The WebSockets of a Flask application, or of one of its blueprints.

    Args:
        app: The application or the blueprint; None: see `init_app`.
        config: The settings of the connections of functions; a service has
            its own.
        max_threads: Functions that may run at once, in a thread each; further
            clients get 503. None: no limit.
        adopter: What takes the connections over; the process's own if None.
    """

    def __init__(
        self,
        app: _Owner | None = None,
        *,
        config: ServiceConfig | None = None,
        max_threads: int | None = 100,
        adopter: Adopter | None = None,
    ) -> None:
        if config is not None and not isinstance(config, ServiceConfig):
            raise TypeError(f"config must be a syncws.ServiceConfig or None, not {config!r}")
        if adopter is not None and not isinstance(adopter, Adopter):
            raise TypeError(f"adopter must be an Adopter or None, not {adopter!r}")
        self._config = config or ServiceConfig()
        self._threads = Threads(max_threads)
        self._adopter = adopter
        self._owners: list[_Owner] = []
        # Routes with the options they were given, for applications to come.
        self._routes: list[tuple[str, str, Callable[..., Any], dict[str, Any]]] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: _Owner) -> None:
        """Add the routes to an application or a blueprint, those that are still to come as well.

        May be called for several.

        Raises:
            TypeError: It is neither.
        """
        if not isinstance(app, (flask.Flask, flask.Blueprint)):
            raise TypeError(f"app must be a flask.Flask or a flask.Blueprint, not {app!r}")
        self._owners.append(app)
        _prepare(app)
        for route in self._routes:
            _add(app, *route)

    # -- Routes ----------------------------------------------------------

    def route(
        self,
        rule: str,
        *,
        endpoint: str | None = None,
        blueprint: flask.Blueprint | None = None,
        config: ServiceConfig | None = None,
        **options: Any,
    ) -> Callable[[_Handler], _Handler]:
        """Lead WebSockets of a rule to a function or a class of services; a decorator.

        A function is called in a thread of its own for each connection, with
        a `WebSocket` and the values of the rule by name, in a copy of the
        request's context. Of a class each connection gets an instance;
        `caller.request.path_params` has the values.

        Args:
            rule: As for `Flask.route`: "/chat/<name>", "/rooms/<int:number>".
            endpoint: The name for `url_for`; that of the function or class if None.
            blueprint: The blueprint that it belongs to, in place of the
                application.
            config: The settings of a function's connections.
            options: Those of `Flask.add_url_rule`, such as `defaults`.

        Raises:
            TypeError: It is neither a function that takes a WebSocket nor a
                class of services.
        """
        _check_rule(rule)

        def attach(handler: _Handler) -> _Handler:
            if isinstance(handler, type) and issubclass(handler, Service):
                self.add_service(
                    rule, handler, endpoint=endpoint, blueprint=blueprint, config=config, **options
                )
                return handler
            if isinstance(handler, Service):
                raise TypeError(
                    "route decorates a function or a class; for an instance write "
                    f"sockets.add_service({rule!r}, service)"
                )
            check_function(handler)
            view = self._function_view(handler, config or self._config)
            self._add(rule, endpoint or name_of(handler), view, blueprint, options)
            return handler

        return attach

    def add_service(
        self,
        rule: str,
        service: Service | type[Service],
        *,
        endpoint: str | None = None,
        blueprint: flask.Blueprint | None = None,
        config: ServiceConfig | None = None,
        **options: Any,
    ) -> None:
        """Lead WebSockets of a rule to a service.

        Args:
            rule: As for `route`.
            service: An instance, which all connections share, or a class.
            endpoint: The name for `url_for`; that of the class if None.
            blueprint: As for `route`.
            config: Not for services: they have `config`.
            options: As for `route`.

        Raises:
            TypeError: It is no service.
        """
        _check_rule(rule)
        spec = ServiceSpec(service, client=False)
        if config is not None:
            raise TypeError(
                "config is for functions: a service has settings of its own, the attribute config"
            )
        cls = service if isinstance(service, type) else type(service)

        def view(**values: Any) -> flask.Response:
            return self._answer(spec.service, params=values)

        self._add(rule, endpoint or cls.__name__, view, blueprint, options)

    def upgrade(
        self,
        rule: str,
        service: Service | type[Service] | None = None,
        *,
        endpoint: str | None = None,
        blueprint: flask.Blueprint | None = None,
        **options: Any,
    ) -> Callable[[_Handler], _Handler]:
        """Have a function decide on each client of a rule; a decorator.

        It is called with `http`, the `Request` and the values of the rule by
        name, as a resource of `Listener.upgrade` is, in the server's thread
        and in a copy of the request's context. It is called after
        after_request: the session is saved already. A view that returns
        `accept` decides before that.

        Args:
            rule: As for `route`.
            service: The service, unless the function gives another.
            endpoint: The name for `url_for`; that of the function if None.
            blueprint: As for `route`.
            options: As for `route`.
        """
        _check_rule(rule)
        if service is not None:
            ServiceSpec(service, client=False)

        def attach(resource: _Handler) -> _Handler:
            def view(**values: Any) -> flask.Response:
                check_resource(resource, rule, tuple(values))
                context = _Context()

                def decide(http: Upgrade, request: Request, **params: Any) -> Any:
                    with context():
                        return resource(http, request, **params)

                return self._answer(service, resource=decide, params=values, context=context)

            self._add(rule, endpoint or name_of(resource), view, blueprint, options)
            return resource

        return attach

    def _function_view(
        self, function: Callable[..., Any], config: ServiceConfig
    ) -> Callable[..., flask.Response]:
        def view(**values: Any) -> flask.Response:
            return self._answer(self._call_of(function, config, values), params=values)

        return view

    def _add(
        self,
        rule: str,
        endpoint: str,
        view: Callable[..., flask.Response],
        blueprint: flask.Blueprint | None,
        options: dict[str, Any],
    ) -> None:
        for name in ("methods", "websocket"):
            if name in options:
                raise TypeError(f"{name} cannot be set: a WebSocket's rule is what it is")
        view.__name__ = endpoint
        if blueprint is not None:
            _prepare(blueprint)
            _add(blueprint, rule, endpoint, view, options)
            return
        self._routes.append((rule, endpoint, view, options))
        for owner in self._owners:
            _add(owner, rule, endpoint, view, options)

    # -- In a request ----------------------------------------------------

    def accept(
        self,
        target: Service | type[Service] | Callable[..., Any],
        *,
        params: Mapping[str, Any] | None = None,
        headers: HeadersArgument = None,
        subprotocol: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> flask.Response:
        """Return the response with which a view lets a WebSocket in.

        For views that decide themselves, with all that Flask has for that::

            @app.route("/chat/<name>", websocket=True)
            def chat(name):
                if "user" not in session:
                    abort(401)
                return sockets.accept(Chat, attributes={"name": name})

        Args:
            target: A service, a class of services, or a function.
            params: What the function gets by name, and
                `caller.request.path_params`; the values of the rule if None.
            headers: Headers of the 101; others may be put into the response.
            subprotocol: One that the client offers; the service's choice if None.
            attributes: What `caller.attributes` begins with.

        Raises:
            TypeError, ValueError: An argument is wrong.
            RuntimeError: The server does not let its connections be taken.
        """
        values = dict(flask.request.view_args or {} if params is None else params)
        service = target
        if not isinstance(target, Service) and not isinstance(target, type):
            check_function(target)
            service = self._call_of(target, self._config, values)
        return self._answer(
            service, params=values, headers=headers, subprotocol=subprotocol, attributes=attributes
        )

    @contextlib.contextmanager
    def context(self, caller: Caller) -> Iterator[None]:
        """Have the request's context in a callback: `request`, `session`, `g`, `current_app`.

        ::

            def on_text(self, caller, text):
                with sockets.context(caller):
                    save(session["user"], text)

        It is a copy, and at the end of the block what was registered with
        teardown_request and teardown_appcontext is called.

        Raises:
            RuntimeError: The caller has not come through Flask.
        """
        context = caller.attributes.get(_KEY)
        if not isinstance(context, _Context):
            raise RuntimeError(f"{caller!r} has not come through a route of Flask")
        with context():
            yield

    def _call_of(
        self, function: Callable[..., Any], config: ServiceConfig, values: dict[str, Any]
    ) -> FunctionCall:
        check_function(function, *values)
        return _Call(function, config, self._threads)

    def _answer(
        self,
        service: Any,
        *,
        context: _Context | None = None,
        attributes: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> flask.Response:
        adopter = default_adopter() if self._adopter is None else self._adopter
        attributes = {_KEY: context or _Context(), **(attributes or {})}
        environ = flask.request.environ
        try:
            answer = adopter.upgrade(environ, service, attributes=attributes, **options)
        except RuntimeError:
            if is_test_client(environ):
                raise RuntimeError(NO_TEST_CLIENT) from None
            raise
        return _Response(answer)


class _Context:
    """The context of a request, from which others are copied once that is over."""

    def __init__(self) -> None:
        self._request: Any = flask_globals.request_ctx.copy()
        request = copy.copy(self._request.request)
        request.environ = keepsake(request.environ)
        self._request.request = request
        self._globals: Any = flask.g._get_current_object()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._request.copy():
            # A context has a `g` of its own. What is in the request's by now was
            # left there by teardown functions, so it is not closed.
            for name in self._globals:
                setattr(flask.g, name, getattr(self._globals, name))
            yield


class _Call(FunctionCall):
    """One call of a function, in the context of its request."""

    def call(self, ws: WebSocket) -> None:
        with ws.attributes[_KEY]():
            try:
                super().call(ws)
            except HTTPException as exc:  # of flask.abort
                ws.close(1008, f"{exc.code} {exc.name}", timeout=0)
            except Exception as exc:
                if ws.is_open:
                    app = flask.current_app
                    flask.got_request_exception.send(
                        app._get_current_object(),  # type: ignore[attr-defined]
                        _async_wrapper=app.ensure_sync,
                        exception=exc,
                    )
                raise


class _Response(flask.Response):
    """The response of a view; what after_request puts into its headers goes out with the 101."""

    def __init__(self, answer: UpgradeResponse) -> None:
        super().__init__(answer.body, answer.status, answer.headers)
        self._answer = answer

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.status_code != 101:  # refused, or changed by after_request
            return super().__call__(environ, start_response)
        return self._settle(environ, start_response)

    def _settle(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        # When the server begins to take the body, so after Flask has torn down
        # the request's context: what that leaves in `g` is what functions get.
        self._answer.headers = self.headers.to_wsgi_list()
        yield from self._answer(environ, start_response)


def _prepare(owner: _Owner) -> None:
    """Have an application, or that of a blueprint, answer who comes by the wrong protocol."""
    if isinstance(owner, flask.Blueprint):
        owner.record_once(lambda state: _prepare_app(state.app))
    else:
        _prepare_app(owner)


def _prepare_app(app: Any) -> None:
    if "syncws" not in app.extensions:
        app.extensions["syncws"] = True
        app.register_error_handler(WebsocketMismatch, _mismatch)


def _mismatch(error: WebsocketMismatch) -> flask.Response:
    """The path is there, but for the other protocol."""
    request = flask.request
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return flask.Response(f"{request.path} is no WebSocket route.\n", 404, headers)
    if may_say_upgrade(request.environ):
        headers["Upgrade"] = "websocket"
    text = "This address speaks WebSocket: connect to it with ws://, not http://.\n"
    return flask.Response(text, 426, headers)


def _add(
    owner: _Owner,
    rule: str,
    endpoint: str,
    view: Callable[..., flask.Response],
    options: dict[str, Any],
) -> None:
    owner.add_url_rule(rule, endpoint, view, methods=["GET"], websocket=True, **options)


def _check_rule(rule: object) -> None:
    if not isinstance(rule, str):
        raise TypeError(
            f"a rule is a str such as '/echo', not {rule!r:.60}: write @sockets.route('/echo')"
        )
