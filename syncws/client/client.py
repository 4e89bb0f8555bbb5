"""The client's end of a connection."""

from __future__ import annotations

import functools
import http.cookiejar
import logging
import os
import ssl as ssl_module
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..callbacks import Runner, ServiceSpec
from ..config import ClientConfig, Compression, RetryConfig, TLSConfig
from ..endpoint import Endpoint, Line, Receiver, Sending, place_of
from ..engine.connection import Connection
from ..engine.dispatch import Dispatcher, Inbox, Mailbox, nothing
from ..engine.engine import Engine, engine_of
from ..engine.loop import IOLoop
from ..engine.state import NO_CLOSE
from ..errors import ConnectError
from ..protocol.client_handshake import Response
from ..protocol.codec import make_codec
from ..service import Service
from ..timing import check_timeout
from .attempt import Attempt, log_attempt
from .certificates import tls_context
from .cookies import Cookies, CookieStore
from .course import Course
from .credentials import request_headers
from .dialer import Dialer, Opened
from .link import Link
from .proxy import Proxies

__all__ = ["Client"]

_DEFAULTS = ClientConfig()
_LOSS = RetryConfig()  # what counts as one without retries

_CLOSED = (
    "connection closed: remote=%s code=%d duration=%.3f "
    "messages_in=%d bytes_in=%d messages_out=%d bytes_out=%d"
)

_log = logging.getLogger("syncws.client")


class Client(Receiver, Endpoint):
    """A WebSocket connection to a server; open when the constructor returns.

    Without a `service` messages are taken with `receive`, or by iteration.
    With one its callbacks get them, with this client as their first argument.

    The options that are not described here are those of `ClientConfig`.

    Args:
        url: ws://host:port/path?query, or wss:// for TLS. A user and password
            in it become Basic authentication.
        service: An instance of a `Service`, or a class to make one of.
        headers: Request headers: a mapping or pairs.
        auth: A user and a password, which become Basic authentication: an
            Authorization header in each handshake, with each address.
        cookies: A mapping of names to values, or an `http.cookiejar.CookieJar`
            such as the one of a session of requests: domain, path, Secure and
            expiry decide which of its cookies are sent. They are copied to a
            jar of the client's own; see `cookies`. A Cookie among the
            `headers` is sent in place of all of them.
        ssl: A `TLSConfig` or an `ssl.SSLContext` for wss://. None verifies the
            server's certificate and name against the system's authorities.
        proxy: The proxy to go through: True for that of the environment, such
            as `https_proxy`, if it has one for the address; None or False for
            none; or a URL with http, https, socks5, socks5h, socks4 or socks4a.
            A user and a password in it are for the proxy only.
        proxy_headers: Headers for an HTTP proxy, which never reach the server.
        proxy_ssl: As `ssl`, for an https:// proxy; `ssl` is for the server.
        unix_path: A Unix-domain socket to connect to; the URL then gives the
            Host header and the path only.
        engine: The threads to run on; the process's own if None.
        ready_on_connect: False to receive nothing before `ready` is called.
        retry: How to connect again, at first and after each loss of the
            connection; None: not at all.

    Raises:
        TypeError, ValueError: An argument is wrong; nothing was sent.
        OSError: A file that `ssl` names cannot be read.
        HandshakeRejected: The server answered with another status than 101.
        HandshakeError: The server's answer breaks the rules.
        TLSError: The certificate was refused, or TLS failed.
        ConnectTimeout: It took longer than `handshake_timeout`.
        ProxyAuthenticationError: The proxy does not take the user and the password.
        ProxyError: The proxy cannot be reached, or does not connect to the server.
        ImportError: A SOCKS proxy needs `pip install python-socks`.
        RetriesExhausted: As often as `retry` says.
        ConnectError: Any of these, or no address could be connected to.

    The constructor blocks for up to `handshake_timeout`, and for the look-up
    of the name; with `retry` as often as it tries, and in between. Use the
    client as a context manager, or `close` it.

    RFC 6455 section 4.1.
    """

    __slots__ = ("_cookies", "_done", "_engine", "_link", "_mailbox", "_response", "_url")

    def __init__(
        self,
        url: str,
        *,
        service: Service | type[Service] | None = None,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        auth: tuple[str, str] | None = None,
        cookies: Cookies | None = None,
        ssl: TLSConfig | ssl_module.SSLContext | None = None,
        proxy: str | bool | None = True,
        proxy_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        proxy_ssl: TLSConfig | ssl_module.SSLContext | None = None,
        unix_path: str | os.PathLike[str] | None = None,
        engine: Engine | None = None,
        ready_on_connect: bool = True,
        retry: RetryConfig | None = None,
        handshake_timeout: float | None = _DEFAULTS.handshake_timeout,
        idle_timeout: float | None = _DEFAULTS.idle_timeout,
        max_message_size: int | None = _DEFAULTS.max_message_size,
        max_frame_size: int | None = _DEFAULTS.max_frame_size,
        max_fragments: int | None = _DEFAULTS.max_fragments,
        message_timeout: float | None = _DEFAULTS.message_timeout,
        compression: bool | Compression = _DEFAULTS.compression,
        ping_interval: float | None = _DEFAULTS.ping_interval,
        ping_timeout: float | None = _DEFAULTS.ping_timeout,
        close_timeout: float = _DEFAULTS.close_timeout,
        send_timeout: float | None = _DEFAULTS.send_timeout,
        send_buffer_size: int = _DEFAULTS.send_buffer_size,
        receive_queue_size: int = _DEFAULTS.receive_queue_size,
        receive_queue_bytes: int = _DEFAULTS.receive_queue_bytes,
    ) -> None:
        config = ClientConfig(
            subprotocols=subprotocols,
            headers=request_headers(headers, auth, [url]),
            handshake_timeout=handshake_timeout,
            idle_timeout=idle_timeout,
            max_message_size=max_message_size,
            max_frame_size=max_frame_size,
            max_fragments=max_fragments,
            message_timeout=message_timeout,
            compression=compression,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            send_timeout=send_timeout,
            send_buffer_size=send_buffer_size,
            receive_queue_size=receive_queue_size,
            receive_queue_bytes=receive_queue_bytes,
        )
        self._open(
            [url],
            config,
            service=service,
            cookies=cookies,
            ssl=ssl,
            proxies=Proxies(proxy, proxy_headers, proxy_ssl, unix_path=unix_path is not None),
            unix_path=unix_path,
            engine=engine,
            ready_on_connect=ready_on_connect,
            retry=retry,
        )

    def _open(
        self,
        urls: Sequence[str],
        config: ClientConfig,
        *,
        service: Service | type[Service] | None,
        cookies: Cookies | None,
        ssl: TLSConfig | ssl_module.SSLContext | None,
        proxies: Proxies,
        unix_path: str | os.PathLike[str] | None,
        engine: Engine | None,
        ready_on_connect: bool,
        retry: RetryConfig | None,
        failover_interval: float | None = None,
    ) -> None:
        """Check what the constructor was given, connect, and begin."""
        self._engine = engine_of(engine)
        if retry is not None and not isinstance(retry, RetryConfig):
            raise TypeError(f"retry must be a syncws.RetryConfig or None, not {retry!r}")
        path = None if unix_path is None else os.fspath(unix_path)
        spec = None if service is None else ServiceSpec(service, client=True)
        course = None
        if retry is not None or failover_interval is not None:
            course = Course(len(urls), retry, failover_interval)
        elif spec is not None and "on_reconnect" in spec.has:
            raise TypeError(
                "on_reconnect is never called without retry: give the client a syncws.RetryConfig"
            )
        self._cookies = CookieStore(cookies)
        tls = tls_context(ssl)
        network = self._engine.network
        dialers = [Dialer(url, config, tls, path, self._cookies, proxies, network) for url in urls]
        opened = _connect(dialers, course)
        self._url = dialers[course.target if course else 0].url
        self._begin(opened, dialers, course, retry or _LOSS, config, spec, ready_on_connect)

    def _begin(
        self,
        opened: Opened,
        dialers: Sequence[Dialer],
        course: Course | None,
        retry: RetryConfig,
        config: ClientConfig,
        spec: ServiceSpec | None,
        reading: bool,
    ) -> None:
        """Give what was opened to the I/O thread."""
        engine = self._engine
        try:
            loop = engine.acquire()
        except BaseException as exc:
            opened.transport.close()
            if isinstance(exc, OSError):
                raise ConnectError(f"the engine cannot be started: {exc.strerror}") from exc
            raise
        self._done = done = threading.Event()

        def release() -> None:
            engine.release(loop)
            done.set()

        runner = None if spec is None else Runner(spec, _log, dialers[0].url)
        inbox = self._make_inbox(config, runner, loop, release)
        on_end = release if runner is None else nothing  # a dispatcher does it after its last event
        make = functools.partial(_make_connection, loop, config, spec)
        line: Connection | Link
        sending: Sending
        self._link: Link | None = None
        if course is None:
            line = make(opened, inbox, lambda _: on_end())
            sending = line.outbound
            begin = functools.partial(line.start, b"", opened.agreement.rest, reading, False)
        else:
            line = sending = self._link = Link(
                loop,
                engine.lanes(loop).dialing,
                dialers,
                course,
                retry,
                inbox=inbox,
                reading=reading,
                opened=opened,
                make=make,
                on_open=_weak(self._renew),
                on_end=on_end,
                telling=spec is not None and "on_reconnect" in spec.has,
            )
            begin = functools.partial(line.begin, opened.agreement.rest)
        super().__init__(line, opened.agreement.subprotocol, opened.addresses, sending)
        self._secure = opened.secure
        self._response = opened.agreement.response
        if runner is not None:
            runner.bind(self, line)
        loop.call_soon(begin, owner=line)

    def _make_inbox(
        self, config: ClientConfig, runner: Runner | None, loop: IOLoop, release: Callable[[], None]
    ) -> Inbox:
        bounds = {"max_count": config.receive_queue_size, "max_size": config.receive_queue_bytes}
        self._mailbox = None
        if runner is not None:
            return Dispatcher(runner.handle, loop, **bounds, on_done=release)
        self._mailbox = Mailbox(**bounds)
        return self._mailbox

    def _renew(self, url: str, opened: Opened) -> None:
        """In the I/O thread: there is another connection."""
        self._url = url
        self._response = opened.agreement.response
        self._subprotocol = opened.agreement.subprotocol
        self._local_address, self._remote_address = opened.addresses
        self._secure = opened.secure

    @property
    def url(self) -> str:
        """The URL that it is, or was last, connected to, without user and password."""
        return self._url

    @property
    def response(self) -> Response:
        """The server's handshake response."""
        return self._response

    @property
    def cookies(self) -> http.cookiejar.CookieJar:
        """The cookies that it was given, and those that servers have set in handshakes."""
        return self._cookies.jar

    # -- Life ------------------------------------------------------------

    def close(
        self, status_code: int = 1000, reason: str = "", timeout: float | None = 10.0
    ) -> None:
        super().close(status_code, reason, timeout)
        if timeout != 0:
            self._engine.reap()

    close.__doc__ = Endpoint.close.__doc__

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the connection has ended, and until on_close has returned if there is one.

        With `retry` that is when there will be no other. Called from a
        callback, it does not wait for callbacks.

        Args:
            timeout: Seconds to wait, or None to wait for ever.

        Returns:
            Whether it has ended.
        """
        check_timeout("timeout", timeout)
        if self._engine.owns_current_thread():
            return self._connection.wait_closed(timeout)
        return self._done.wait(timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A client with a service lives as long as its connection.
        connection: Line | None = getattr(self, "_connection", None)
        if connection is None:
            return
        if connection.sending or (self._link is not None and not self._link.over):
            connection.ask_to_abort()
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)


def _connect(dialers: Sequence[Dialer], course: Course | None) -> Opened:
    """Connect to the first address that can be, as `course` says; to the only one without it."""
    if course is None:
        return dialers[0].dial()
    while True:
        url = dialers[course.target].url
        number = course.attempts + 1
        if number > 1:
            log_attempt(url, Attempt(number, url, "connecting"))
        try:
            opened = dialers[course.target].dial()
        except ConnectError as exc:
            step = course.failed(exc)
            if step is None:
                verdict = course.verdict([dialer.url for dialer in dialers])
                if verdict is exc:
                    raise
                raise verdict from exc
            log_attempt(url, Attempt.waiting(step, dialers[step.target].url, exc))
            threading.Event().wait(step.wait)
        else:
            if number > 1:
                log_attempt(url, Attempt(number, url, "connected"))
            course.connected()
            return opened


def _make_connection(
    loop: IOLoop,
    config: ClientConfig,
    spec: ServiceSpec | None,
    opened: Opened,
    inbox: Inbox,
    on_end: Callable[[Connection], None],
) -> Connection:
    decoder, encoder = make_codec(
        config,
        opened.agreement.deflate,
        client=True,
        stream_text=spec is not None and spec.stream_text,
        stream_binary=spec is not None and spec.stream_binary,
    )

    def ended(connection: Connection) -> None:
        _note_end(loop, opened, connection)
        on_end(connection)

    return Connection(
        loop,
        opened.transport,
        client=True,
        decoder=decoder,
        encoder=encoder,
        config=config,
        inbox=inbox,
        auto_pong=spec is None or "on_ping" not in spec.has,
        idle_event=spec is not None and "on_idle_timeout" in spec.has,
        on_end=ended,
    )


def _note_end(loop: IOLoop, opened: Opened, connection: Connection) -> None:
    """Log the end of a connection. In the I/O thread."""
    if not _log.isEnabledFor(logging.INFO):
        return
    stats = connection.stats()
    loop.journal.write(
        _log,
        logging.INFO,
        _CLOSED,
        place_of(opened.addresses[1]),
        (connection.received or NO_CLOSE).code,
        stats.duration,
        stats.messages_received,
        stats.bytes_received,
        stats.messages_sent,
        stats.bytes_sent,
    )


def _weak(method: Callable[[str, Opened], None]) -> Callable[[str, Opened], None]:
    """Return what calls `method` as long as its object is there, without keeping it there."""
    weak = weakref.WeakMethod(method)

    def call(url: str, opened: Opened) -> None:
        found = weak()
        if found is not None:
            found(url, opened)

    return call
