"""The client's end of a connection."""

from __future__ import annotations

import logging
import os
import ssl as ssl_module
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..callbacks import Runner, ServiceSpec
from ..config import ClientConfig, Compression
from ..endpoint import Endpoint, peer_addresses
from ..engine.connection import Connection
from ..engine.dispatch import Dispatcher, Inbox, Mailbox
from ..engine.engine import Engine, default_engine
from ..engine.transport import make_transport
from ..errors import ConnectError, ConnectionClosed, MessageTypeError, ReceiveTimeout
from ..protocol.client_handshake import Response
from ..protocol.codec import make_codec
from ..protocol.headers import normalize_extra_headers
from ..protocol.http import RESERVED
from ..protocol.uri import parse_uri
from ..service import Service
from ..timing import check_timeout
from .connect import connect

__all__ = ["Client"]

_DEFAULTS = ClientConfig()

_log = logging.getLogger("syncws.client")


class Client(Endpoint):
    """A WebSocket connection to a server; open when the constructor returns.

    Without a `service` messages are taken with `receive`, or by iteration.
    With one its callbacks get them, with this client as their first argument.

    The options that are not described here are those of `ClientConfig`.

    Args:
        url: ws://host:port/path?query, or wss:// for TLS. A user and password
            in it become Basic authentication.
        service: An instance of a `Service`, or a class to make one of.
        headers: Request headers: a mapping or pairs.
        ssl: TLS settings for wss://. None verifies the server's certificate
            and name against the system's authorities.
        unix_path: A Unix-domain socket to connect to; the URL then gives the
            Host header and the path only.
        engine: The threads to run on; the process's own if None.
        ready_on_connect: False to receive nothing before `ready` is called.

    Raises:
        TypeError, ValueError: An argument is wrong; nothing was sent.
        HandshakeRejected: The server answered with another status than 101.
        HandshakeError: The server's answer breaks the rules.
        ConnectTimeout: It took longer than `handshake_timeout`.
        ConnectError: Any of these, or no address could be connected to, or
            the certificate was refused.

    The constructor blocks for up to `handshake_timeout`, and for the look-up
    of the name. Use the client as a context manager, or `close` it.

    RFC 6455 section 4.1.
    """

    __slots__ = ("_engine", "_mailbox", "_response", "_url")

    def __init__(
        self,
        url: str,
        *,
        service: Service | type[Service] | None = None,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        ssl: ssl_module.SSLContext | None = None,
        unix_path: str | os.PathLike[str] | None = None,
        engine: Engine | None = None,
        ready_on_connect: bool = True,
        handshake_timeout: float | None = _DEFAULTS.handshake_timeout,
        idle_timeout: float | None = _DEFAULTS.idle_timeout,
        max_message_size: int | None = _DEFAULTS.max_message_size,
        max_frame_size: int | None = _DEFAULTS.max_frame_size,
        max_fragments: int | None = _DEFAULTS.max_fragments,
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
            headers=normalize_extra_headers(headers, RESERVED),
            handshake_timeout=handshake_timeout,
            idle_timeout=idle_timeout,
            max_message_size=max_message_size,
            max_frame_size=max_frame_size,
            max_fragments=max_fragments,
            compression=compression,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            send_timeout=send_timeout,
            send_buffer_size=send_buffer_size,
            receive_queue_size=receive_queue_size,
            receive_queue_bytes=receive_queue_bytes,
        )
        uri = parse_uri(url)
        if ssl is not None and not isinstance(ssl, ssl_module.SSLContext):
            raise TypeError(f"ssl must be an ssl.SSLContext or None, not {ssl!r}")
        if ssl is not None and ssl.protocol is ssl_module.PROTOCOL_TLS_SERVER:
            raise ValueError(
                "ssl is a server's context: make a client's with ssl.create_default_context()"
            )
        if ssl is not None and not uri.secure:
            raise ValueError("ssl is given but the URL begins with ws://; write wss:// for TLS")
        if engine is not None and not isinstance(engine, Engine):
            raise TypeError(f"engine must be a syncws.Engine or None, not {engine!r}")
        spec = None if service is None else ServiceSpec(service, client=True)
        path = None if unix_path is None else os.fspath(unix_path)
        self._url = f"{'wss' if uri.secure else 'ws'}://{uri.host_header}{uri.target}"

        sock, self._response = connect(uri, config, ssl, path)
        try:
            addresses = peer_addresses(sock)
            transport = make_transport(sock)
        except OSError as exc:
            sock.close()
            raise ConnectError("the connection was lost right behind the handshake") from exc
        owner = self._engine = engine or default_engine()
        loop = owner.acquire()
        decoder, encoder = make_codec(
            config,
            self._response.deflate,
            client=True,
            stream_text=spec is not None and spec.stream_text,
            stream_binary=spec is not None and spec.stream_binary,
        )

        def release(*_: object) -> None:
            owner.release(loop)

        runner: Runner | None = None
        self._mailbox: Mailbox | None = None
        bounds = {"max_count": config.receive_queue_size, "max_size": config.receive_queue_bytes}
        inbox: Inbox
        if spec is None:
            inbox = self._mailbox = Mailbox(**bounds)
        else:
            runner = Runner(spec, _log, self._url)
            inbox = Dispatcher(runner.handle, loop, **bounds, on_done=release)
        connection = Connection(
            loop,
            transport,
            client=True,
            decoder=decoder,
            encoder=encoder,
            config=config,
            inbox=inbox,
            auto_pong=spec is None or "on_ping" not in spec.has,
            idle_event=spec is not None and "on_idle_timeout" in spec.has,
            on_end=release if spec is None else None,
        )
        super().__init__(connection, self._response.subprotocol, addresses)
        if runner is not None:
            runner.bind(self, connection)
        rest = self._response.rest
        loop.call_soon(connection.start, b"", rest, ready_on_connect, False, owner=connection)

    @property
    def url(self) -> str:
        """The URL, without user and password."""
        return self._url

    @property
    def response(self) -> Response:
        """The server's handshake response."""
        return self._response

    # -- Receiving -------------------------------------------------------

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Take the next message: a str for text, bytes for binary.

        Blocks until there is one. Several threads may receive; each message
        goes to one of them.

        Args:
            timeout: Seconds to wait, or None to wait for ever.

        Raises:
            ReceiveTimeout: No message came; the connection is still usable.
            ConnectionClosed: The connection has ended, and every message that
                came before the peer's close has been taken.
            RuntimeError: The client has a callback service.

        RFC 6455 section 6.2.
        """
        mailbox = self._mailbox
        if mailbox is None:
            raise RuntimeError(
                "this client has a callback service, whose on_text and on_binary get the messages"
            )
        if timeout is not None:
            check_timeout("timeout", timeout)
        try:
            event = mailbox.get(timeout)
        except TimeoutError:
            raise ReceiveTimeout(f"no message came within {timeout} s") from None
        if event is None:
            raise self._connection.closed_error()
        message: str | bytes = event.data
        return message

    def receive_text(self, timeout: float | None = None) -> str:
        """Take the next message, which must be text; in all else as `receive`.

        Raises:
            MessageTypeError: It is binary; the error's `message` has it.
        """
        message = self.receive(timeout)
        if not isinstance(message, str):
            raise MessageTypeError("text", message)
        return message

    def receive_binary(self, timeout: float | None = None) -> bytes:
        """Take the next message, which must be binary; in all else as `receive`.

        Raises:
            MessageTypeError: It is text; the error's `message` has it.
        """
        message = self.receive(timeout)
        if not isinstance(message, bytes):
            raise MessageTypeError("binary", message)
        return message

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield messages until an orderly close: with 1000, 1001, or without a status code.

        Raises:
            ConnectionClosed: The connection ended in any other way.
        """
        while True:
            try:
                yield self.receive()
            except ConnectionClosed as exc:
                close = exc.received or exc.sent
                if exc.__cause__ is None and close is not None and close.code in (1000, 1001, 1005):
                    return
                raise

    # -- Life ------------------------------------------------------------

    def close(
        self, status_code: int = 1000, reason: str = "", timeout: float | None = 10.0
    ) -> None:
        super().close(status_code, reason, timeout)
        if timeout != 0:
            self._engine.reap()

    close.__doc__ = Endpoint.close.__doc__

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A client with a service lives as long as its connection.
        connection: Connection | None = getattr(self, "_connection", None)
        if connection is not None and connection.sending:
            connection.ask_to_abort()
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)
