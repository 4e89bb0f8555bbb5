"""One client before an upgrade resource: what the resource says, and what becomes of it.

Threads: a resource runs in a worker, and so does everything here but what
stands under "I/O thread". Between the two go, one way, what the resource wants
done and, the other way, one answer: see `Hearing`.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from ..callbacks import ServiceSpec
from ..engine.lane import Lane
from ..engine.loop import IOLoop
from ..engine.transport import Transport
from ..errors import Close, ConnectionClosed
from ..logs import log_safely
from ..protocol.headers import normalize_extra_headers
from ..protocol.http import RESERVED, Request, target_for_log
from ..protocol.server_handshake import Refusal, check_origin, refusal_response
from ..service import Service
from .admission import Admitted, Terms, agree
from .caller import Caller
from .functions import check_room
from .routing import Route
from .upgrade import HeadersArgument, Upgrade, check_offered

__all__ = ["Arriving", "Hearing"]

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


def _is_service(value: object) -> bool:
    return isinstance(value, Service) or (isinstance(value, type) and issubclass(value, Service))
