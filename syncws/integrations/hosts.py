"""The servers that WSGI applications run in, as far as their sockets are concerned.

A host keeps its connection in an object of its own, which it goes on using
after the application has returned: it writes a response, half-closes, drains,
waits for the next request, closes. So the object stays where it is. Only the
descriptor that it names is made to lead elsewhere: `dup` gives us the
connection under a new number, and `dup2` puts one end of a fresh socket pair,
the sink, under the old one. All that the host still does ends there.

Threads: everything here runs in the thread of the host.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Host", "Moved", "find_host", "make_sink"]

# What the engine must have as it is.
_PATCHED = ("threading", "select", "socket")

# What hosts of which no connection can be had are told by, and what they are.
_HELPLESS = {
    "mod_wsgi.version": "mod_wsgi",
    "waitress.client_disconnected": "waitress",
}

# More than any host reads ahead.
_MOST = 1_048_576

# Seconds for writing an answer in the host's stead.
_ANSWER = 2.0

_INSTEAD = (
    "Serve the WebSockets with a syncws.Listener, to which services are attached, on a port of its "
    "own or, with syncws.Listener(app=...), on one port with the application, which then gets "
    "all requests but those for WebSockets"
)


class Moved(NamedTuple):
    """A connection that the host has no more.

    Attributes:
        sock: The connection.
        sink: The other end of what the host has instead.
        rest: What the client has sent right after its request.
    """

    sock: socket.socket
    sink: socket.socket
    rest: bytes


class Host:
    """One connection of a host.

    Args:
        name: What the host is called.
        descriptor: The number of the connection's descriptor.
        drain: Returns what the host has read and not used. It is called when
            a read of the descriptor does not wait.
        tls: The socket object that speaks TLS on it, or None.

    Attributes:
        name: What the host is called.
        tls: That object.
        local: The address that the client has connected to.
        remote: The address that it has connected from.
    """

    def __init__(
        self, name: str, descriptor: int, drain: Callable[[], bytes], tls: Any = None
    ) -> None:
        self.name = name
        self.tls = tls
        self._descriptor = descriptor
        self._drain = drain
        self._identity = _identity(descriptor)
        with self._borrowed() as sock:
            self.local: Any = sock.getsockname()
            self.remote: Any = sock.getpeername()

    @contextlib.contextmanager
    def _borrowed(self) -> Any:
        """The connection, as a socket of ours that does not own it."""
        blocking = os.get_blocking(self._descriptor)
        sock = socket.socket(fileno=self._descriptor)
        # If the application has set a default timeout it has that now, and does not block.
        sock.settimeout(None)
        os.set_blocking(self._descriptor, blocking)
        try:
            yield sock
        finally:
            sock.detach()

    def has_left(self) -> bool:
        """Whether the client has hung up, as far as the system knows. Any thread."""
        try:
            with self._borrowed() as sock:
                return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def move(self) -> Moved:
        """Take the connection; the host is left with a sink.

        Raises:
            OSError: There is no descriptor left, or the host has closed the
                connection; nothing has changed.
        """
        sink, given = make_sink()
        try:
            sock = self.replace(given)
        except BaseException:
            sink.close()
            raise
        return Moved(sock, sink, self.read_ahead())

    def replace(self, given: socket.socket) -> socket.socket:
        """Put a socket in the place of the connection, and return that.

        Args:
            given: What the host has from now on; closed in any case.

        Raises:
            OSError: There is no descriptor left, or the host has closed the
                connection; nothing has changed.
        """
        with given:
            # The host has set its descriptor as it wants to have it.
            given.setblocking(os.get_blocking(self._descriptor))
            sock = socket.socket(fileno=os.dup(self._descriptor))
            try:
                self._put(given)
            except BaseException:
                sock.close()
                raise
        return sock

    def discard(self, given: socket.socket) -> None:
        """Put a socket in the place of the connection, which is closed.

        Args:
            given: As for `replace`.
        """
        with given, contextlib.suppress(OSError):
            given.setblocking(os.get_blocking(self._descriptor))
            self._put(given)

    def _put(self, given: socket.socket) -> None:
        """Have the host's descriptor lead to another socket."""
        self._check()
        inheritable = os.get_inheritable(self._descriptor)
        os.dup2(given.fileno(), self._descriptor, inheritable=inheritable)

    def _check(self) -> None:
        """Raise an OSError unless the descriptor is still that of the connection.

        A host that has closed it may have another client's under its number.
        """
        if _identity(self._descriptor) != self._identity:
            raise OSError(errno.EBADF, "the server has it no more")

    def answer(self, response: bytes) -> None:
        """Answer the client in the host's stead, and end the connection.

        What the host writes then fails, as if the client had gone. Nothing
        happens if the connection was moved or closed.
        """
        with contextlib.suppress(OSError):
            self._check()
            if self.tls is not None:
                self.tls.sendall(response)
            else:
                self._send(response)
            self.half_close()

    def _send(self, response: bytes) -> None:
        blocking = os.get_blocking(self._descriptor)
        with self._borrowed() as sock:
            try:
                sock.settimeout(_ANSWER)
                sock.sendall(response)
            finally:
                os.set_blocking(self._descriptor, blocking)

    def read_ahead(self) -> bytes:
        """Return what the host has read and not used; reads no more of the connection."""
        try:
            return self._drain() or b""
        except (OSError, ValueError):  # it would have to wait, under TLS; or it is closed
            return b""

    def half_close(self) -> None:
        """Tell the client that nothing more comes."""
        with contextlib.suppress(OSError), self._borrowed() as sock:
            sock.shutdown(socket.SHUT_WR)


def _identity(descriptor: int) -> tuple[int, int]:
    """Return what a connection is known by, which its number is not."""
    stat = os.fstat(descriptor)
    return stat.st_dev, stat.st_ino


def make_sink() -> tuple[socket.socket, socket.socket]:
    """Return a socket that is to be read up to its end, and what a host may have instead.

    A host that reads that finds the end at once.
    """
    sink, given = socket.socketpair()
    sink.setblocking(False)
    sink.shutdown(socket.SHUT_WR)
    return sink, given


def find_host(environ: dict[str, Any]) -> Host:
    """Return the connection that a request has come by.

    Args:
        environ: The request's environment.

    Raises:
        RuntimeError: The host does not let it be had.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise RuntimeError(f"WebSockets cannot be taken from a WSGI server here. {_INSTEAD}")
    _check_threads()
    for find in (_find_gunicorn, _find_werkzeug, _find_uwsgi, _find_reader):
        host = find(environ)
        if host is not None:
            if host.tls is not None:
                _check_tls(host, environ)
            return host
    named = [name for key, name in _HELPLESS.items() if key in environ]
    name = named[0] if named else environ.get("SERVER_SOFTWARE") or "this WSGI server"
    raise RuntimeError(
        f"{name} does not let an application have a connection, so it cannot carry WebSockets. "
        f"{_INSTEAD}."
    )


def _check_threads() -> None:
    """Check that threads are what they are called.

    Raises:
        RuntimeError: They are greenlets.
    """
    gevent: Any = sys.modules.get("gevent.monkey")
    eventlet: Any = sys.modules.get("eventlet.patcher")
    patched = gevent is not None and any(map(gevent.is_module_patched, _PATCHED))
    patched = patched or (
        eventlet is not None and any(map(eventlet.is_monkey_patched, ("thread", "socket")))
    )
    if patched:
        raise RuntimeError(
            "gevent or eventlet has put greenlets in the place of this process's threads "
            "(monkey.patch_all), and syncws needs real ones. Run gunicorn with "
            "--worker-class gthread, which holds as many WebSockets, or gevent's pywsgi "
            "without monkey-patching"
        )


def _check_tls(host: Host, environ: dict[str, Any]) -> None:
    """Check that a connection under TLS may have a thread of the host's.

    Raises:
        RuntimeError: It would be the only one.
    """
    if type(host.tls).__module__.startswith("gevent") or not environ.get("wsgi.multithread"):
        raise RuntimeError(
            f"a WebSocket under the TLS of {host.name} takes one of its threads, and it has one "
            "only. Give it more (gunicorn --threads 100), or have a proxy in front of it speak "
            "TLS"
        )


def _find_gunicorn(environ: dict[str, Any]) -> Host | None:
    """Return what gunicorn's sync, gthread and gevent workers tell."""
    sock = environ.get("gunicorn.socket")
    if sock is None:
        return None
    reader = getattr(environ.get("wsgi.input"), "reader", None)
    unreader: Any = getattr(reader, "unreader", None)
    if not isinstance(getattr(unreader, "buf", None), io.BytesIO):
        raise RuntimeError(
            "gunicorn's wsgi.input is not in the environment any more: something on the way "
            "has replaced it, so what the client has sent already cannot be had"
        )

    def drain() -> bytes:
        data: bytes = unreader.buf.getvalue()
        unreader.buf = io.BytesIO()
        return data

    return _host_of_socket("gunicorn", sock, drain)


def _find_werkzeug(environ: dict[str, Any]) -> Host | None:
    """Return what werkzeug's development server tells."""
    sock = environ.get("werkzeug.socket")
    if sock is None:
        return None
    reader = environ.get("wsgi.input")
    if not isinstance(reader, io.BufferedReader):
        raise RuntimeError(
            "werkzeug's wsgi.input is not in the environment any more: something on the way "
            "has replaced it, so what the client has sent already cannot be had"
        )
    return _host_of_socket("werkzeug", sock, lambda: _drain_reader(reader))


def _find_uwsgi(environ: dict[str, Any]) -> Host | None:
    """Return what uWSGI tells, in a module that exists inside of it only."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or "uwsgi.version" not in environ:
        return None
    options = {name.decode() if isinstance(name, bytes) else name for name in uwsgi.opt}
    if not options & {"enable-threads", "threads"}:
        raise RuntimeError("uWSGI runs no threads but its own: start it with --enable-threads")
    if options & {"https-socket", "https-socket2", "suwsgi-socket"}:
        raise RuntimeError(
            "uWSGI does not let an application have the TLS of its https-socket. Have its "
            "--https router or a proxy speak TLS"
        )
    return Host("uWSGI", uwsgi.connection_fd(), bytes)


def _find_reader(environ: dict[str, Any]) -> Host | None:
    """Return what can be known of a host that reads bodies through a socket's file."""
    reader = environ.get("wsgi.input")
    reader = getattr(reader, "rfile", reader)  # gevent's
    # Django's development server has one that ends with the request's body.
    reader = getattr(getattr(reader, "_read", None), "__self__", reader)
    raw = getattr(reader, "raw", None)
    if not isinstance(reader, io.BufferedReader) or not isinstance(raw, socket.SocketIO):
        return None
    sock = getattr(raw, "_sock", None)
    if sock is None:
        return None
    name = str(environ.get("SERVER_SOFTWARE") or "the WSGI server")
    return _host_of_socket(name, sock, lambda: _drain_reader(reader))


def _host_of_socket(name: str, sock: Any, drain: Callable[[], bytes]) -> Host:
    return Host(name, sock.fileno(), drain, sock if hasattr(sock, "unwrap") else None)


def _drain_reader(reader: io.BufferedReader) -> bytes:
    """Return what a reader has read ahead."""
    # At most one read of what is below, and none if there is something.
    return reader.read1(_MOST)
