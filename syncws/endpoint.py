"""What both ends of a connection can do: the methods of `Caller` and `Client`."""

from __future__ import annotations

import enum
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .config import ConnectionConfig
from .engine.dispatch import Mailbox
from .engine.outbound import Outbound
from .engine.stats import ConnectionStats
from .engine.transport import Transport
from .errors import Close, ConnectionClosed, MessageTypeError, ReceiveTimeout
from .protocol.events import BINARY, PING, PONG, TEXT
from .timing import check_timeout

__all__ = [
    "Address",
    "Endpoint",
    "Line",
    "Receiver",
    "Sending",
    "address_of",
    "check_close",
    "connection_of",
    "peer_addresses",
    "place_of",
    "to_json",
]

#: (host, port), or the path of a Unix-domain socket, "" if it has none.
Address = tuple[str, int] | str

# Status codes that an application may send. RFC 6455 section 7.4, and the
# registry it sets up.
_SENDABLE = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))


# Held while an endpoint gets its id.
_naming = threading.Lock()


def _after_fork_in_child() -> None:
    global _naming
    _naming = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Line(Protocol):
    """What is behind an endpoint: a `Connection`, or several, one after the other."""

    closed_here: bool

    @property
    def config(self) -> ConnectionConfig: ...
    @property
    def latency(self) -> float | None: ...
    @property
    def outbound(self) -> Outbound: ...
    @property
    def sending(self) -> bool: ...
    @property
    def state(self) -> enum.Enum: ...
    @property
    def transport(self) -> Transport: ...

    def ask_to_abort(self) -> None: ...
    def ask_to_read(self) -> None: ...
    def closed_error(self) -> ConnectionClosed: ...
    def fail(self, error: BaseException, close: Close) -> None: ...
    def give_up(self) -> None: ...
    def not_when_ended(self, key: object) -> None: ...
    def start_close(self, close: Close, timeout: float) -> None: ...
    def stats(self) -> ConnectionStats: ...
    def wait_closed(self, timeout: float | None) -> bool: ...
    def when_ended(self, key: object, call: Callable[[], None]) -> bool: ...


class Sending(Protocol):
    """What an endpoint sends by."""

    def send(self, opcode: int, payload: bytes, final: bool = True) -> None:
        """Send a message, a fragment of one, a ping or a pong."""


class Endpoint:
    """One end of a WebSocket.

    Every method may be called from any thread, also from a callback. Once the
    connection has ended, sending raises `ConnectionClosed` at once.
    """

    __slots__ = (
        "__weakref__",
        "_attributes",
        "_connection",
        "_id",
        "_local_address",
        "_remote_address",
        "_secure",
        "_sending",
        "_subprotocol",
    )

    def __init__(
        self,
        connection: Line,
        subprotocol: str | None,
        addresses: tuple[Address, Address],
        sending: Sending | None = None,
    ) -> None:
        self._connection = connection
        self._sending = sending or connection.outbound
        self._secure = connection.transport.secure
        self._subprotocol = subprotocol
        self._local_address, self._remote_address = addresses
        self._attributes: dict[str, Any] = {}
        self._id = ""

    def __repr__(self) -> str:
        state = self._connection.state.name.lower()
        return f"<syncws.{type(self).__name__} {self.id} {self._remote_address} {state}>"

    # -- Sending ---------------------------------------------------------

    def send_text(self, text: str | bytes, final: bool = True) -> None:
        """Send a text message.

        Blocks while more than `send_buffer_size` bytes wait for the peer to
        read, for up to `send_timeout`. When it returns the message has been
        taken: it goes out whole and in order unless the connection is lost.

        Args:
            text: The message, or a fragment of one; bytes must be UTF-8.
            final: False if more fragments of the message follow, each by
                another call; the last has True. They must not be mixed with
                other messages; pings and pongs may come between.

        Raises:
            TypeError: `text` is neither a str nor bytes.
            ValueError: `text` has surrogates, which UTF-8 cannot carry, or
                bytes that are no UTF-8.
            ConnectionClosed: The connection has ended or is being closed.
            Reconnecting: A client's connection is being made again.
            SendTimeout: The peer did not read; nothing of `text` was sent.
            InvalidContinuationFrameError: A fragmented binary message is
                under way.

        RFC 6455 sections 5.4 and 5.6.
        """
        payload = text.encode() if isinstance(text, str) else _utf8(text)
        self._sending.send(TEXT, payload, final)

    def send_json(self, value: Any) -> None:
        """Send anything that JSON can express, as a text message; in all else as `send_text`.

        Raises:
            TypeError, ValueError: `json.dumps` refuses it, or it has a number
                that is not finite, which JSON has not.
        """
        self._sending.send(TEXT, to_json(value))

    def send_binary(self, data: bytes | bytearray | memoryview, final: bool = True) -> None:
        """Send a binary message; in all else as `send_text`.

        Args:
            data: The message, or a fragment of one; copied if it is mutable.
            final: False if more fragments of the message follow.

        Raises:
            TypeError: `data` is not bytes-like.

        RFC 6455 sections 5.4 and 5.6.
        """
        if not isinstance(data, bytes):
            if not isinstance(data, (bytearray, memoryview)):
                raise TypeError(
                    f"send_binary takes bytes, not {_kind(data)}; send_text takes a str"
                )
            data = bytes(data)
        self._sending.send(BINARY, data, final)

    def ping(self, data: bytes = b"") -> None:
        """Send a ping; the peer's pong comes to `on_pong`.

        Blocks as `send_text` does.

        Args:
            data: Up to 125 bytes that the pong will carry.

        RFC 6455 section 5.5.2.
        """
        self._sending.send(PING, _control_data("ping", data))

    def pong(self, data: bytes = b"") -> None:
        """Send a pong.

        Pings are answered without it, unless the service has an `on_ping`.
        Blocks as `send_text` does.

        Args:
            data: Up to 125 bytes, those of the ping that is answered.

        RFC 6455 section 5.5.3.
        """
        self._sending.send(PONG, _control_data("pong", data))

    def close(
        self, status_code: int = 1000, reason: str = "", timeout: float | None = 10.0
    ) -> None:
        """Close the connection, and wait for its end.

        Sends a close frame and waits for the peer's and for the end of TCP;
        after `timeout` TCP is cut. Messages that have come and were not yet
        delivered are dropped, and every thread that blocks in a send or a
        receive on this connection is woken. Harmless if the connection is
        closed already.

        Args:
            status_code: Why: 1000 to 1014 as far as they are assigned and may
                be sent, 3000 to 4999 for libraries and applications.
            reason: The same in words, up to 123 bytes of UTF-8.
            timeout: Seconds to wait. 0 returns at once, and the connection
                ends within `close_timeout`. None waits for that long.

        RFC 6455 sections 5.5.1 and 7.
        """
        close = check_close(status_code, reason)
        check_timeout("timeout", timeout)
        connection = self._connection
        allowed = timeout if timeout else connection.config.close_timeout
        connection.start_close(close, allowed)
        if timeout != 0:
            # The I/O thread cuts TCP at the deadline; the rest is its leeway.
            connection.wait_closed(allowed + 1.0)

    def ready(self) -> None:
        """Begin to receive, if the connection was opened with ``ready_on_connect=False``.

        Harmless otherwise.
        """
        self._connection.ask_to_read()

    # -- State -----------------------------------------------------------

    def stats(self) -> ConnectionStats:
        """Return what the connection has carried so far, also once it has ended.

        With the `retry` of a client: what all of its connections have. Does
        not block.
        """
        return self._connection.stats()

    @property
    def id(self) -> str:
        """An identifier of this connection, unlike every other's."""
        if not self._id:
            with _naming:
                if not self._id:  # still
                    self._id = secrets.token_hex(8)
        return self._id

    @property
    def attributes(self) -> dict[str, Any]:
        """What you want to keep with this connection."""
        return self._attributes

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, or None."""
        return self._subprotocol

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._connection.sending

    @property
    def is_secure(self) -> bool:
        """Whether the connection runs over TLS."""
        return self._secure

    @property
    def local_address(self) -> Address:
        """This end's (host, port), or the path of its Unix-domain socket."""
        return self._local_address

    @property
    def remote_address(self) -> Address:
        """The peer's (host, port), or the path of its Unix-domain socket."""
        return self._remote_address

    @property
    def buffered_amount(self) -> int:
        """Bytes that were sent here and that the system has not taken yet."""
        return self._connection.outbound.size

    @property
    def latency(self) -> float | None:
        """Seconds from the last keepalive ping to its pong, None before the first."""
        return self._connection.latency


class Receiver:
    """Takes messages from the mailbox of an endpoint that has no callbacks.

    A part of the endpoints' classes that have one.
    """

    __slots__ = ()

    _connection: Line
    _mailbox: Mailbox | None

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
            RuntimeError: A client has a callback service.

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


def connection_of(endpoint: Endpoint) -> Line:
    """Return what is behind an endpoint."""
    return endpoint._connection


def peer_addresses(sock: socket.socket) -> tuple[Address, Address]:
    """Return the local and the remote address of a connected socket."""
    return address_of(sock.getsockname()), address_of(sock.getpeername())


def address_of(raw: Any) -> Address:
    """Return what getsockname() or getpeername() gave as we show it."""
    if isinstance(raw, tuple):
        return raw[0], raw[1]
    return os.fsdecode(raw)  # an abstract Unix-domain address is bytes


def place_of(address: Address) -> str:
    """Return an address as URLs and logs have it."""
    if isinstance(address, tuple):
        host, port = address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ascii(address)[1:-1] or "a Unix-domain socket"


def to_json(value: Any) -> bytes:
    """Return the payload that `send_json` sends."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def check_close(status_code: object, reason: object) -> Close:
    """Return what an application closes with, or raise what `Endpoint.close` does."""
    return Close(_status_code(status_code), _reason(reason))


def _kind(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__}: {value!r:.60}"


def _utf8(text: object) -> bytes:
    """Return the payload of a text message that is no str."""
    if not isinstance(text, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"send_text takes a str, not {_kind(text)}; send_json takes what JSON can express"
        )
    data = bytes(text)
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        raise ValueError(
            f"send_text takes bytes that are UTF-8, which {data!r:.60} is not: {exc.reason} at "
            f"position {exc.start}; send_binary takes any"
        ) from None
    return data


def _control_data(name: str, data: object) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{name} takes bytes, not {_kind(data)}")
    data = bytes(data)
    if len(data) > 125:
        raise ValueError(f"{name} carries up to 125 bytes, not {len(data)}: RFC 6455 section 5.5")
    return data


def _status_code(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"status_code must be an int, not {_kind(value)}")
    if value not in _SENDABLE and not 3000 <= value <= 4999:
        raise ValueError(
            f"status_code {value} cannot be sent: use 1000 (normal), 1001 (going away), "
            "1008 (policy), 1011 (error), another that RFC 6455 section 7.4.1 lets an endpoint "
            "send, or one from 3000 to 4999"
        )
    return int(value)


def _reason(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"reason must be a str, not {_kind(value)}")
    size = len(value.encode())
    if size > 123:
        raise ValueError(f"reason takes up to 123 bytes of UTF-8, not {size}: {value!r:.60}")
    return value
