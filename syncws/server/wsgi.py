"""Calls a WSGI application for one request. PEP 3333.

The application's half is the standard library's `wsgiref.handlers.BaseHandler`:
its rules for start_response, exc_info and close() are right and well kept. The
connection's half is not `wsgiref`'s, nor that of waitress, cheroot or werkzeug:
each of those owns its sockets or gives a connection a thread, and here one
thread owns all sockets, of WebSockets and of HTTP alike.

Threads: everything here runs in the worker that calls the application.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes
from wsgiref.handlers import BaseHandler
from wsgiref.headers import Headers
from wsgiref.util import FileWrapper

from ..endpoint import Address
from ..logs import log_safely
from ..protocol.forwarded import split_host
from ..protocol.http import Request, target_for_log
from ..timing import Clock
from .channel import Channel, ClientGone

if TYPE_CHECKING:
    from _typeshed.wsgi import InputStream, WSGIApplication

__all__ = ["Origin", "call_application"]

# Bytes read from a file at once.
_BLOCK = 65_536

# What applications of others have among their headers though only a server
# knows; others of that kind are errors, as PEP 3333 has it.
_WAIVED = frozenset(("connection", "keep-alive"))

_log = logging.getLogger("syncws.server")


class Origin(NamedTuple):
    """Where a request came from, and where to.

    Attributes:
        local: The address that it came to.
        remote: The client's address; see `Request.remote_address`.
        secure: Whether it came over TLS; see `Request.is_secure`.
    """

    local: Address
    remote: Address
    secure: bool


def call_application(
    application: WSGIApplication, request: Request, origin: Origin, clock: Clock, channel: Channel
) -> None:
    """Have the application answer the request. Raises nothing that the application raises."""
    begun = clock()
    call = _Call(request, origin, channel)
    call.run(application)
    log_safely(
        _log,
        logging.INFO,
        "%s %s %s, %d bytes, %.3f s",
        request.method,
        target_for_log(request),
        call.outcome,
        channel.sent,
        clock() - begun,
    )


class _Call(BaseHandler):
    """One call of an application."""

    wsgi_file_wrapper = FileWrapper
    wsgi_run_once = False
    wsgi_multithread = True
    wsgi_multiprocess = False
    server_software = "syncws"
    os_environ = {}  # the process's environment is no part of a request
    error_status = "500 Internal Server Error"
    error_headers = [("Content-Type", "text/plain; charset=utf-8")]
    error_body = b"The server has failed to answer this request.\n"

    # What BaseHandler sets.
    environ: dict[str, Any]
    status: str | None
    headers: Headers | None

    def __init__(self, request: Request, origin: Origin, channel: Channel) -> None:
        self._request = request
        self._origin = origin
        self._channel = channel
        self._errors = _Errors(f"{request.method} {request.raw_path}")
        self.outcome = "without an answer"  # as the log has it
        self.headers_sent = False

    # -- The call --------------------------------------------------------

    def run(self, application: WSGIApplication) -> None:
        """Call the application.

        BaseHandler's takes a ConnectionError of the application's own, from
        its database say, for the client's, and answers nothing.
        """
        try:
            self.setup_environ()
            self.result = application(self.environ, self.start_response)
            self.finish_response()
        except BaseException as exc:
            if _is_gone(exc):
                self.outcome += f", cut short: {exc}"
            else:
                self._failed(exc)
        finally:
            self._errors.flush()

    def _failed(self, error: BaseException) -> None:
        where = f"{self._request.method} {self._request.raw_path}"
        log_safely(_log, logging.ERROR, "%s: the application raised", where, error=error)
        if self.headers_sent:
            self._channel.cut()
            return
        try:
            self.result = self.error_output(self.environ, self.start_response)
            self.finish_response()
        except ClientGone as exc:
            self.outcome += f", cut short: {exc}"

    def close(self) -> None:
        """Close the iterable.

        BaseHandler's forgets that there was a response, and would send
        another if this raises.
        """
        close = getattr(self.result, "close", None)
        if close is not None:
            close()

    # -- The environment -------------------------------------------------

    def add_cgi_vars(self) -> None:
        """Add the request."""
        request, environ = self._request, self.environ
        local, remote, _ = self._origin
        environ.update(_header_variables(request))
        # A Unix-domain socket has no host and no port.
        name, port = local if isinstance(local, tuple) else ("localhost", self._default_port())
        if request.forwarded_host:
            name, port = split_host(request.forwarded_host, self._default_port())
            environ["HTTP_HOST"] = request.forwarded_host
        environ.update(
            REQUEST_METHOD=request.method,
            SCRIPT_NAME="",
            PATH_INFO=unquote_to_bytes(request.raw_path).decode("latin-1"),
            QUERY_STRING=request.query_string,
            REQUEST_URI=request.target,
            RAW_URI=request.target,
            SERVER_NAME=name,
            SERVER_PORT=str(port),
            SERVER_PROTOCOL=f"HTTP/{request.http_version}",
            REMOTE_ADDR=remote[0] if isinstance(remote, tuple) else "",
        )
        if isinstance(remote, tuple) and remote[1]:  # a proxy may not tell it
            environ["REMOTE_PORT"] = str(remote[1])
        environ["wsgi.input_terminated"] = True
        self._add_length()

    def _default_port(self) -> int:
        return 443 if self._origin.secure else 80

    def _add_length(self) -> None:
        """Say how long the body is, if it has one.

        Django reads no body of unknown length, so what has come whole has a
        length, also if it was chunked.
        """
        headers, environ = self._request.headers, self.environ
        chunked = "Transfer-Encoding" in headers
        size = self._channel.body_size
        if (chunked or "Content-Length" in headers) and size is not None:
            environ["CONTENT_LENGTH"] = str(size)
            environ.pop("HTTP_TRANSFER_ENCODING", None)

    def get_stdin(self) -> InputStream:
        """Return the request's body."""
        return io.BufferedReader(_Body(self._channel))

    def get_stderr(self) -> _Errors:
        """Return what leads to the log."""
        return self._errors

    def get_scheme(self) -> str:
        """Return "http" or "https"."""
        return "https" if self._origin.secure else "http"

    # -- The response ----------------------------------------------------

    def start_response(self, status: Any, headers: Any, exc_info: Any = None) -> Any:
        """Take the status and the headers."""
        kept = [field for field in headers if str(field[0]).lower() not in _WAIVED]
        same = len(kept) == len(headers)
        return super().start_response(status, headers if same else kept, exc_info)

    def write(self, data: bytes) -> None:
        """Send some of the body. The head waits for the first byte, as PEP 3333 has it."""
        if data or not isinstance(data, bytes):
            super().write(data)
        elif self.headers is None:
            raise AssertionError("write() before start_response()")

    def sendfile(self) -> bool:
        """Send a file, in larger blocks than most frameworks ask for.

        It goes to its end or up to the Content-Length, as PEP 3333 has it.
        """
        wrapper: Any = self.result
        read, size = wrapper.filelike.read, max(wrapper.blksize, _BLOCK)
        length = self.headers.get("Content-Length") if self.headers else None
        left = int(length) if length else None
        if self._request.method == "HEAD":
            left = 0  # nobody gets to see it
        while data := read(size if left is None else min(size, left)):
            self.write(data)
            if left is not None:
                left -= len(data)
        self.finish_content()
        return True

    def finish_content(self) -> None:
        """End the response."""
        if self.headers is None:
            raise AssertionError("the application has not called start_response()")
        if not self.headers_sent:
            self.bytes_sent = 0
            self.send_headers()
        self._channel.finish()

    def send_headers(self) -> None:
        """Send the head."""
        assert self.headers is not None
        assert self.status is not None
        fields = self.headers.items()  # a copy: the list is the application's
        if "Content-Length" not in self.headers and self._is_whole():
            fields.append(("Content-Length", str(self.bytes_sent)))
        self._channel.respond(self.status, fields)
        self.headers_sent = True
        self.outcome = self.status[:3]

    def _is_whole(self) -> bool:
        """Whether the body is known to its end, with what is being sent now."""
        if self.bytes_sent:
            return isinstance(self.result, (list, tuple)) and len(self.result) == 1
        # What a HEAD request or a status without a body leave out is unknown.
        bodiless = self._request.method == "HEAD" or (self.status or "")[:3] in ("204", "304")
        return not bodiless

    def _write(self, data: bytes) -> None:
        self._channel.send(data)

    def _flush(self) -> None:
        """What is written is on its way."""


def _is_gone(error: BaseException | None) -> bool:
    """Whether an error is the client's, also if the application has wrapped it in its own."""
    while error is not None:
        if isinstance(error, ClientGone):
            return True
        error = error.__cause__ or error.__context__
    return False


def _header_variables(request: Request) -> Iterable[tuple[str, str]]:
    """Return the headers as the environment has them."""
    for name in request.headers:
        if "_" in name:
            continue  # it could pass for another one, which a proxy has checked
        key = name.upper().replace("-", "_")
        if key == "CONTENT_LENGTH":
            continue
        values = request.headers.get_all(name)
        if key == "CONTENT_TYPE":
            yield key, values[0]
        elif key == "HOST" and not request.target.startswith("/"):
            # RFC 9112 section 3.2.2: the target's counts.
            yield "HTTP_HOST", re.split("[/?]", request.target.split("://", 1)[1], maxsplit=1)[0]
        else:
            yield "HTTP_" + key, ("; " if key == "COOKIE" else ",").join(values)


class _Body(io.RawIOBase):
    """The request's body, as wsgi.input reads it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as view, view.cast("B") as octets:
            return self._channel.read(octets) if octets else 0


class _Errors(io.TextIOBase):
    """wsgi.errors: each line goes to the log.

    Args:
        where: What is said before each.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._text = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._text += text
        whole, end, rest = self._text.rpartition("\n")
        if end:
            self._text = rest
            self._put(whole)
        return len(text)

    def flush(self) -> None:
        text, self._text = self._text, ""
        self._put(text)

    def _put(self, text: str) -> None:
        if text:
            log_safely(_log, logging.ERROR, "%s: %s", self._where, text)
