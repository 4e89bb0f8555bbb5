"""HTTP upgrade resources: functions that let clients in, or refuse them.

Threads: a resource runs in a worker, and so does everything here but what
stands under "I/O thread". Between the two go, one way, what the resource wants
done and, the other way, one answer: see `Hearing`.
"""

from __future__ import annotations

import datetime
import enum
import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from ..callbacks import ServiceSpec
from ..engine.lane import Lane
from ..engine.loop import IOLoop
from ..engine.transport import Transport
from ..errors import Close, ConnectionClosed
from ..logs import log_safely
from ..protocol.headers import normalize_extra_headers
from ..protocol.http import RESERVED, Request, list_of, target_for_log
from ..protocol.server_handshake import Refusal, check_origin, refusal_response
from ..service import Service
from .admission import Admitted, Terms, agree
from .caller import Caller
from .functions import check_room
from .routing import Route, parameters_of
from .set_cookie import set_cookie_header

__all__ = ["Arriving", "HeadersArgument", "Hearing", "Upgrade", "check_offered", "check_resource"]

HeadersArgument = Mapping[str, str] | Iterable[tuple[str, str]] | None

_log = logging.getLogger("syncws.server")


class Arriving(Protocol):
    """A client whose request has come, and who waits for the answer. See `Opening`."""

    @property
    def waiting(self) -> bool:
        """Whether `take` or `reply` is still to come."""

    def take(self) -> Transport:
        """Give the socket up to a connection."""

    def wait(self, on_lost: Callable[[], None]) -> None:
        """Wait until `take` or `reply`; `on_lost` is called if it comes to neither."""

    def prepare(self) -> None:
        """Make ready for `take`. In the thread of whoever accepts the client."""

    def has_left(self) -> bool:
        """Whether the client has hung up, as far as the system knows. Any thread."""

    def reply(self, refusal: Refusal) -> None:
        """End the wait with an answer other than 101. Harmless if it is over."""

    def abort(self) -> None:
        """Give the client up. Harmless twice."""


class Upgrade:
    """A client's handshake, to be accepted or refused: what a resource gets as `http`.

    Its methods may be called from any thread until the resource has returned.
    """

    __slots__ = ("_hearing",)

    def __init__(self, hearing: Hearing) -> None:
        self._hearing = hearing

    def accept_upgrade(
        self,
        headers: HeadersArgument = None,
        subprotocol: str | None = None,
        service: Service | type[Service] | None = None,
    ) -> Caller:
        """Let the client in.

        The connection is open when this returns, and what the caller sends
        goes out. The service is not called before the resource has returned.

        Blocks until the I/O thread has done it, which waits for nobody.

        Args:
            headers: Headers of the response beside those of the handshake: a
                mapping or pairs.
            subprotocol: One that the client offers; the service's choice if
                it is None.
            service: The service; that of the decorator if it is None. An
                instance that is made for this connection alone costs little.

        Raises:
            TypeError: An argument has a wrong type, or it is no service.
            ValueError: A header is reserved or cannot be sent as it is, or
                the client does not offer the subprotocol.
            RuntimeError: There is no service, the client has its answer, or
                the resource has returned.
            ConnectionClosed: The client is gone, the listener stops, or the
                service's `allowed_origins` does not name the client's page,
                which then was refused with 403. You may let it out of the
                resource.

        RFC 6455 section 4.2.2.
        """
        return self._hearing.accept(headers, subprotocol, service)

    def cancel_upgrade(
        self, status: int, body: str | bytes = "", headers: HeadersArgument = None
    ) -> None:
        """Refuse the client. Does not wait.

        Args:
            status: The HTTP status, 300 to 599.
            body: The text, sent as UTF-8, or bytes.
            headers: Headers of the response, such as Location,
                WWW-Authenticate, or a Content-Type in place of text/plain.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: The status is none of a refusal, or a header cannot be
                sent as it is.
            RuntimeError: The client has its answer, or the resource has
                returned.

        RFC 6455 section 4.2.2, point 5.
        """
        if isinstance(status, bool) or not isinstance(status, int):
            raise TypeError(f"status must be an int, not {status!r}")
        if not 300 <= status <= 599:
            raise ValueError(f"status must be between 300 and 599, not {int(status)}")
        if not isinstance(body, (str, bytes)):
            raise TypeError(f"body must be a str or bytes, not {body!r:.60}")
        self._hearing.cancel(int(status), body, headers)

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: float | None = None,
        expires: datetime.datetime | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = None,
    ) -> None:
        """Add a Set-Cookie header to the answer that follows, unless that is a 500.

        Another one with the same name, path and domain takes its place.

        Args:
            name: The name.
            value: The value. Percent-encode what is no ASCII, white space,
                quotes, commas, semicolons and backslashes.
            max_age: Seconds that the cookie is kept; 0 deletes it. None: as
                long as the browser runs, or until `expires`.
            expires: When it ends; a datetime with a time zone.
            path: The path below which it is sent back. None: that of the
                request, up to its last slash.
            domain: The domain that gets it with its subdomains. None: this
                host alone.
            secure: Send it back over TLS only.
            httponly: Hide it from scripts.
            samesite: "Strict", "Lax" or "None".

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: One has what cannot stand there, or what browsers refuse.
            RuntimeError: The client has its answer, or the resource has
                returned.

        RFC 6265 section 4.1.
        """
        header = set_cookie_header(
            name,
            value,
            max_age=max_age,
            expires=expires,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
        )
        self._hearing.set_cookie((name, path, domain), header)


class _Phase(enum.Enum):
    ASKED = "the client waits for its answer"
    ACCEPTED = "accept_upgrade was called already"
    CANCELLED = "cancel_upgrade was called already"
    OVER = "the resource has returned"


class Hearing:
    """One client that waits, and the resource that decides on it.

    Guarantees:
        - The client is answered once.
        - The service is not called before the resource has returned; if that
          raises, it never is.
        - Who waits in `accept` is answered: by `_admit`, or if the opening
          ends before that, as it does when the loop ends, by `_lose`. Both
          run in the I/O thread.

    Args:
        loop: The loop that owns the socket.
        opening: The connection so far.
        request: The handshake request.
        route: Where the path leads: to a resource.
        admit: Makes a connection on these terms, in the I/O thread, and calls
            the service at once or, if the second argument is true, when the
            dispatcher goes on.
        on_done: Called in the worker after the resource.
        headers: Headers of the 101 beside those that the resource gives.
    """

    __slots__ = (
        "_admit_now",
        "_admitted",
        "_cookies",
        "_headers",
        "_lock",
        "_loop",
        "_lost",
        "_on_done",
        "_opening",
        "_outcome",
        "_phase",
        "_request",
        "_route",
    )

    def __init__(
        self,
        loop: IOLoop,
        opening: Arriving,
        request: Request,
        route: Route,
        *,
        admit: Callable[[Terms, bool], Admitted],
        on_done: Callable[[], None],
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._loop = loop
        self._opening = opening
        self._request = request
        self._route = route
        self._admit_now = admit
        self._on_done = on_done
        self._headers = tuple(headers)
        # What came of the admission, for `accept`; None if nothing did.
        self._outcome: SimpleQueue[Admitted | None] = SimpleQueue()
        self._lost = False  # written by the I/O thread: nobody waits for an answer any more

        # Guarded by _lock. It is held while `accept` waits, so that the end of
        # the resource waits as well; the I/O thread never takes it.
        self._lock = threading.Lock()
        self._phase = _Phase.ASKED
        self._admitted: Admitted | None = None
        self._cookies: dict[object, str] = {}

    # -- I/O thread ------------------------------------------------------

    def begin(self, lane: Lane) -> None:
        """Have the resource run in a worker; the opening waits."""
        self.await_run()
        lane.submit(self.run)

    def await_run(self) -> None:
        """Somebody else calls `run`, in whatever thread; the opening waits."""
        self._opening.wait(self._lose)

    def _lose(self) -> None:
        self._lost = True
        self._outcome.put(None)

    def _admit(self, terms: Terms, held: bool) -> None:
        if not self._opening.waiting:
            return  # `_lose` has answered
        admitted = None
        try:
            admitted = self._admit_now(terms, held)
        finally:
            self._outcome.put(admitted)

    def on_loop_error(self, error: BaseException) -> None:
        """Something of ours raised: give the client up."""
        self._opening.abort()

    # -- Worker thread ---------------------------------------------------

    def run(self) -> None:
        """Run the resource, and whatever it does, see that the client has its answer."""
        phase = _Phase.ASKED
        try:
            if self._is_gone():
                self._loop.call_soon(self._opening.abort, owner=self)
            else:
                try:
                    returned = self._call()
                finally:
                    phase = self._end()
                self._returned(phase, returned)
        except BaseException as exc:
            self._raised(phase, exc)
        if not self._loop.abandoned:  # else the one that counts is in the parent process
            self._on_done()
        if self._admitted is not None:
            self._admitted.dispatcher.go_on()

    def describe(self) -> str:
        """Say what runs. Any thread."""
        resource = self._route.resource
        name = getattr(resource, "__qualname__", repr(resource))
        return f"the upgrade resource {name} at {self._route.path}"

    def _is_gone(self) -> bool:
        """Whether there is nobody any more to decide on. It may have waited for a worker."""
        return self._lost or self._opening.has_left()

    def _call(self) -> object:
        resource = self._route.resource
        assert resource is not None
        return resource(Upgrade(self), self._request, **self._request.path_params)

    def _end(self) -> _Phase:
        """Take no more calls; return how far it came."""
        with self._lock:
            phase, self._phase = self._phase, _Phase.OVER
            return phase

    def _returned(self, phase: _Phase, value: Any) -> None:
        """The resource has returned: what that says, beside what it has called."""
        caller = self._admitted.caller if self._admitted is not None else None
        if phase is _Phase.ASKED and (value is None or _is_service(value)):
            terms = self._agree(None, None, value)
            refusal = self._check_origin(terms.spec)
            if refusal is None:
                self._opening.prepare()
                self._loop.call_soon(self._admit, terms, False, owner=self)
            else:
                self._refuse(refusal)
        elif value is not None and value is not caller:
            raise TypeError(
                "an upgrade resource returns nothing, its caller, or a service in place of "
                f"calling accept_upgrade, not {value!r:.60}"
            )

    def _raised(self, phase: _Phase, error: BaseException) -> None:
        path, admitted = self._route.path, self._admitted
        if admitted is not None:
            gone = not admitted.connection.sending
        else:
            gone = self._lost or phase is _Phase.ACCEPTED
        if gone and isinstance(error, ConnectionClosed):
            # The client went away, or the listener stops: an everyday event.
            log_safely(_log, logging.INFO, "%s: a resource was cut short: %s", path, error)
        else:
            log_safely(_log, logging.ERROR, "%s: a resource raised", path, error=error)
        if admitted is not None:
            admitted.dispatcher.mute()
            admitted.connection.fail(error, Close(1011, "internal error"))
        elif phase is _Phase.ASKED:
            self._reply(Refusal(500, "internal error"))

    # -- The resource's thread, or another that it has handed `http` to --

    def accept(
        self,
        headers: HeadersArgument,
        subprotocol: str | None,
        service: Service | type[Service] | None,
    ) -> Caller:
        """See `Upgrade.accept_upgrade`."""
        self._check_asked()
        terms = self._agree(headers, subprotocol, service)
        refusal = self._check_origin(terms.spec)
        with self._lock:
            self._move(_Phase.ACCEPTED)
            if refusal is None:
                self._opening.prepare()
                self._loop.call_soon(self._admit, terms, True, owner=self)
                self._admitted = self._outcome.get()
        if refusal is not None:
            self._refuse(refusal)
        if self._admitted is None:
            raise ConnectionClosed
        return self._admitted.caller

    def cancel(self, status: int, body: str | bytes, headers: HeadersArgument) -> None:
        """See `Upgrade.cancel_upgrade`."""
        self._check_asked()
        fields = self._with_cookies(normalize_extra_headers(headers, frozenset()))
        if isinstance(body, str):
            body = body.encode()
            if not any(name.lower() == "content-type" for name, _ in fields):
                fields = (*fields, ("Content-Type", "text/plain; charset=utf-8"))
        refusal = Refusal(status, body, fields)
        refusal_response(refusal)  # raises if it cannot be sent
        with self._lock:
            self._move(_Phase.CANCELLED)
        self._reply(refusal)
        target = target_for_log(self._request)
        log_safely(_log, logging.INFO, "refused %s with %d", target, status)

    def set_cookie(self, key: object, header: str) -> None:
        """See `Upgrade.set_cookie`."""
        with self._lock:
            self._check_asked()
            self._cookies[key] = header

    def _check_asked(self) -> None:
        if self._phase is not _Phase.ASKED:
            raise RuntimeError(f"the client has its answer: {self._phase.value}")

    def _move(self, phase: _Phase) -> None:
        """The client gets its answer, the only one. Requires _lock."""
        self._check_asked()
        self._phase = phase

    def _agree(
        self,
        headers: HeadersArgument,
        subprotocol: str | None,
        service: Service | type[Service] | None,
    ) -> Terms:
        spec = self._route.spec
        if service is not None and (spec is None or service is not spec.service):
            spec = ServiceSpec(service, client=False, again=True)
        if spec is None:
            raise RuntimeError(
                f"{self._route.path} has no service to accept with: give one to "
                "listener.upgrade() or to accept_upgrade(), or return one"
            )
        if subprotocol is not None:
            check_offered(self._request, subprotocol)
        fields = self._with_cookies(normalize_extra_headers(headers, RESERVED)) + self._headers
        return agree(self._request, spec, subprotocol=subprotocol, headers=fields)

    def _with_cookies(self, fields: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        return (*fields, *(("Set-Cookie", header) for header in list(self._cookies.values())))

    def _check_origin(self, spec: ServiceSpec) -> Refusal | None:
        """Return why the page may not connect to a service other than the route's, if so."""
        if spec is self._route.spec:
            return None  # this was checked before the resource was asked
        origins = spec.config.allowed_origins
        refusal = check_origin(self._request, origins, self._request.is_secure)
        return refusal or check_room(spec)

    def _refuse(self, refusal: Refusal) -> None:
        self._reply(refusal)
        target = target_for_log(self._request)
        status, text = refusal.status, refusal.text
        log_safely(_log, logging.WARNING, "refused %s with %d: %s", target, status, text)

    def _reply(self, refusal: Refusal) -> None:
        self._loop.call_soon(self._opening.reply, refusal, owner=self)


def check_offered(request: Request, subprotocol: object) -> None:
    """Check that a client offers a subprotocol.

    Raises:
        TypeError, ValueError: It is none, or one that it does not offer.
    """
    if not isinstance(subprotocol, str):
        raise TypeError(f"subprotocol must be a str or None, not {subprotocol!r}")
    offered = list(filter(None, list_of(request.headers, "Sec-WebSocket-Protocol")))
    if subprotocol not in offered:
        raise ValueError(
            f"the client does not offer the subprotocol {subprotocol!r}; it offers: "
            f"{', '.join(offered) or 'none'}"
        )


def _is_service(value: object) -> bool:
    return isinstance(value, Service) or (isinstance(value, type) and issubclass(value, Service))


def check_resource(
    function: Callable[..., Any], path: str, parameters: Sequence[str] | None = None
) -> None:
    """Check that a function can be the resource of a path.

    Args:
        function: The function.
        path: The path.
        parameters: The names of its parameters, unless the path is one of ours.

    Raises:
        TypeError: It is async, or cannot be called with `http`, `request` and
            the path's parameters by name.
    """
    if parameters is None:
        parameters = parameters_of(path)
    for parameter in parameters:
        if parameter in ("http", "request"):
            raise TypeError(
                f"the path {path!r} of a resource has the parameter {parameter!r}, which is the "
                "name of what a resource gets before it: take another"
            )
    wanted = f"(http, request{''.join(f', {name}' for name in parameters)})"
    if not callable(function):
        raise TypeError(f"the resource of {path!r} must be a function{wanted}, not {function!r}")
    name = getattr(function, "__name__", type(function).__name__)
    for called in (function, type(function).__call__):
        if (
            inspect.iscoroutinefunction(called)
            or inspect.isasyncgenfunction(called)
            or inspect.isgeneratorfunction(called)
        ):
            raise TypeError(
                f"{name}, the resource of {path!r}, must be a plain function, not async and no "
                "generator: it runs in a thread and may block"
            )
    signature = inspect.signature(function)
    try:
        signature.bind(None, None, **dict.fromkeys(parameters))
    except TypeError as exc:
        raise TypeError(
            f"{name}{signature} cannot be the resource of {path!r}: {exc}; it must take {wanted}"
        ) from None
