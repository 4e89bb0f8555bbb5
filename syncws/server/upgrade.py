"""HTTP upgrade resources: functions that let clients in, or refuse them.

This is what they are given, and what they must be; `Hearing` is what becomes
of what they say.

Threads: all of it is for the thread that a resource runs in.
"""

from __future__ import annotations

import datetime
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..callbacks import is_async
from ..protocol.http import Request, list_of
from ..service import Service
from .caller import Caller
from .routing import parameters_of
from .set_cookie import set_cookie_header

__all__ = ["Decision", "HeadersArgument", "Upgrade", "check_offered", "check_resource"]

HeadersArgument = Mapping[str, str] | Iterable[tuple[str, str]] | None


class Decision(Protocol):
    """What is to become of a client. See `Hearing`, and `Upgrade` for what is raised."""

    def accept(
        self,
        headers: HeadersArgument,
        subprotocol: str | None,
        service: Service | type[Service] | None,
    ) -> Caller:
        """Let it in."""

    def cancel(self, status: int, body: str | bytes, headers: HeadersArgument) -> None:
        """Refuse it."""

    def set_cookie(self, key: object, header: str) -> None:
        """Add a Set-Cookie header to its answer."""


class Upgrade:
    """A client's handshake, to be accepted or refused: what a resource gets as `http`.

    Its methods may be called from any thread until the resource has returned.
    """

    __slots__ = ("_hearing",)

    def __init__(self, hearing: Decision) -> None:
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
    if is_async(function, generators=True):
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
