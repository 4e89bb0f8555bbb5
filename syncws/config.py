"""What can be set, and to what: frozen dataclasses that check themselves.

Durations are float seconds and None switches a limit off; sizes are bytes.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from .timing import check_timeout
from .tls import make_context

__all__ = [
    "TOKEN",
    "ClientConfig",
    "Compression",
    "ConnectionConfig",
    "RetryConfig",
    "ServiceConfig",
    "TLSConfig",
    "check_count",
]

# A token, as the text of a regular expression. RFC 9110 section 5.6.2.
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"


def check_count(name: str, value: object, *, least: int = 1, optional: bool = True) -> None:
    """Raise unless `value` is an int of at least `least`, or None if that is allowed."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int{' or None' if optional else ''}, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")


def _check_subprotocols(value: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)):
        raise TypeError(f"subprotocols must be a sequence of names such as ({value!r},)")
    names = tuple(value)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a subprotocol is a str, not {name!r}")
        if not re.fullmatch(TOKEN, name):
            raise ValueError(
                f"{name!r} is no subprotocol name: letters, digits and !#$%&'*+-.^_`|~"
            )
    if len(set(names)) != len(names):
        raise ValueError(f"subprotocols names one twice: {names!r}")
    return names


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How permessage-deflate is offered and accepted. RFC 7692.

    Attributes:
        level: zlib's level, 1 (fast) to 9 (small).
        mem_level: zlib's memory level, 1 to 9.
        server_max_window_bits: The server's largest window, 9 to 15.
        client_max_window_bits: The client's largest window, 9 to 15.
        server_no_context_takeover: The server starts each message afresh.
        client_no_context_takeover: The client starts each message afresh.
        threshold: Messages of fewer bytes are sent as they are.
    """

    level: int = 6
    mem_level: int = 5
    server_max_window_bits: int = 12
    client_max_window_bits: int = 12
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    threshold: int = 128

    def __post_init__(self) -> None:
        check_count("threshold", self.threshold, least=0, optional=False)
        for name, low, high in (
            ("level", 1, 9),
            ("mem_level", 1, 9),
            ("server_max_window_bits", 9, 15),
            ("client_max_window_bits", 9, 15),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name} must be between {low} and {high}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class ConnectionConfig:
    """What both ends of a connection can be told.

    Attributes:
        idle_timeout: Seconds without a text or binary message in either
            direction until `on_idle_timeout`, or until a close with 1001 if
            there is none. None: never. Pings and pongs do not count.
        max_message_size: Bytes of one incoming message, inflated; over it the
            connection is closed with 1009.
        max_frame_size: Bytes of one incoming frame on the wire. None: as the
            message.
        max_fragments: Frames of one incoming message.
        message_timeout: Seconds in which an incoming message must be here from
            its first byte on, and one more for each KiB of it that has come;
            over it the connection is closed with 1008. Time in which nothing
            is read does not count. None: no limit.
        compression: True, False, or a `Compression`.
        ping_interval: Seconds between keepalive pings. None: no pings.
        ping_timeout: Seconds after a keepalive ping within which something,
            whatever it is, must come from the peer. None: no limit.
        close_timeout: Seconds that a closing handshake and the end of TCP may
            take.
        send_timeout: Seconds that a send waits for room in the send buffer.
            None: for ever.
        send_buffer_size: Bytes not yet taken by the peer above which a send
            waits; it goes on at a quarter.
        receive_queue_size: Messages that wait for a callback or a receive
            above which reading pauses; it goes on at half.
        receive_queue_bytes: The same in bytes.
    """

    idle_timeout: float | None = None
    max_message_size: int | None = 1_048_576
    max_frame_size: int | None = None
    max_fragments: int | None = 4096
    message_timeout: float | None = 30.0
    compression: bool | Compression = True
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    close_timeout: float = 10.0
    send_timeout: float | None = 30.0
    send_buffer_size: int = 262_144
    receive_queue_size: int = 256
    receive_queue_bytes: int = 1_048_576

    def __post_init__(self) -> None:
        for name in ("ping_timeout", "send_timeout", *_NOT_ZERO):
            check_timeout(name, getattr(self, name))
        for name in _NOT_ZERO:
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must be more than 0 seconds; None switches it off")
        check_timeout("close_timeout", self.close_timeout, optional=False)
        for name in ("max_message_size", "max_frame_size", "max_fragments"):
            check_count(name, getattr(self, name))
        for name in ("send_buffer_size", "receive_queue_size", "receive_queue_bytes"):
            check_count(name, getattr(self, name), optional=False)
        if not isinstance(self.compression, (bool, Compression)):
            raise TypeError(
                f"compression must be True, False or a Compression, not {self.compression!r}"
            )

    @property
    def deflate(self) -> Compression | None:
        """The compression settings in force, or None if it is off."""
        if self.compression is True:
            return _DEFAULT_COMPRESSION
        return self.compression or None


_DEFAULT_COMPRESSION = Compression()

# What would never let anything happen.
_NOT_ZERO = ("idle_timeout", "message_timeout", "ping_interval")


@dataclass(frozen=True, kw_only=True)
class ServiceConfig(ConnectionConfig):
    """What a service tells its listener: the class attribute `config`.

    Attributes:
        subprotocols: The subprotocols spoken, best first; the first that the
            client offers as well is chosen.
        allowed_origins: Web origins that may connect beside the listener's
            own, such as "https://app.example"; ("*",) allows every page.
            A request without an Origin header comes from no browser's page
            and is always allowed. RFC 6455 section 10.2.

    The others are those of `ConnectionConfig`.
    """

    subprotocols: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "subprotocols", _check_subprotocols(self.subprotocols))
        if isinstance(self.allowed_origins, (str, bytes)):
            raise TypeError(
                f"allowed_origins must be a sequence such as ({self.allowed_origins!r},)"
            )
        origins = tuple(self.allowed_origins)
        for origin in origins:
            if not isinstance(origin, str):
                raise TypeError(f"an origin is a str, not {origin!r}")
            if origin != "*" and not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.\-]*://[^/\s]+", origin):
                raise ValueError(
                    f"{origin!r} is no origin: write scheme://host or scheme://host:port, "
                    "without a path"
                )
        object.__setattr__(self, "allowed_origins", origins)


@dataclass(frozen=True, kw_only=True)
class ClientConfig(ConnectionConfig):
    """What a client can be told; the keywords of `Client`.

    Attributes:
        subprotocols: The subprotocols offered, best first.
        headers: Request headers beside those of the handshake: a mapping or
            pairs.
        handshake_timeout: Seconds for connecting, TLS and the opening
            handshake together. Looking a name up is the system's and is not
            cut short.

    The others are those of `ConnectionConfig`.
    """

    subprotocols: Sequence[str] = ()
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    handshake_timeout: float | None = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "subprotocols", _check_subprotocols(self.subprotocols))
        check_timeout("handshake_timeout", self.handshake_timeout)


@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """How a client connects again, at first and after each loss of its connection.

    A loss is an end that is no orderly close by either side. Nothing is
    retried after a 401, a 403 or a certificate that is refused.

    Attributes:
        max_count: Attempts after the first one, or after a loss, until the
            client gives up; each success begins the count again. 0: for ever.
        interval: Seconds before the first retry.
        backoff_factor: Each further wait is this many times the one before.
        max_interval: The longest wait, in seconds.
        jitter: The part of each wait that is random: with 0.1 it is between
            0.9 and 1.1 times its length. So clients that lost the same server
            do not come back all at once.
        status_codes: Status codes of the peer's close frame that count as a
            loss: the server goes away, has failed, restarts, or is too busy.
        wait_to_send: Whether a send waits for the connection, for up to
            `send_timeout`; otherwise it raises `Reconnecting` at once.
    """

    max_count: int = 0
    interval: float = 1.0
    backoff_factor: float = 1.0
    max_interval: float = 30.0
    jitter: float = 0.1
    status_codes: Sequence[int] = (1001, 1011, 1012, 1013, 1014)
    wait_to_send: bool = False

    def __post_init__(self) -> None:
        check_count("max_count", self.max_count, least=0, optional=False)
        for name in ("interval", "max_interval"):
            check_timeout(name, getattr(self, name), optional=False)
        if self.interval > self.max_interval:
            raise ValueError(
                f"interval, {self.interval!r}, must not be more than max_interval, "
                f"{self.max_interval!r}"
            )
        _check_number("backoff_factor", self.backoff_factor, 1.0, 1000.0)
        _check_number("jitter", self.jitter, 0.0, 1.0)
        if isinstance(self.status_codes, (str, bytes, int)):
            raise TypeError(
                f"status_codes must be a sequence such as (1012,), not {self.status_codes!r}"
            )
        codes = tuple(self.status_codes)
        for code in codes:
            if isinstance(code, bool) or not isinstance(code, int):
                raise TypeError(f"a status code is an int, not {code!r}")
            if not 1000 <= code <= 4999:
                raise ValueError(
                    "status_codes are those of close frames, between 1000 and 4999, "
                    f"not HTTP's: {code!r}"
                )
        object.__setattr__(self, "status_codes", codes)
        if not isinstance(self.wait_to_send, bool):
            raise TypeError(f"wait_to_send must be True or False, not {self.wait_to_send!r}")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class TLSConfig:
    """The certificates of one end of a connection, as files in PEM.

    Attributes:
        ca_file: Certificates that the peer's must come from. None: on a client
            the system's authorities; on a listener clients need none.
        cert_file: This end's own certificate, with those that it comes from. A
            listener must have one.
        key_file: Its private key; None: it is in `cert_file`, too.
        password: What the key is encrypted with.
        verify: False to talk to whoever answers, unverified: on clients, and
            for tests only.
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None
    password: str | None = field(default=None, repr=False)
    verify: bool = True

    def __post_init__(self) -> None:
        for name in ("ca_file", "cert_file", "key_file"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (str, os.PathLike)):
                raise TypeError(f"{name} must be a path or None, not {value!r}")
        if self.password is not None and not isinstance(self.password, str):
            raise TypeError("password must be a str or None")
        if not isinstance(self.verify, bool):
            raise TypeError(f"verify must be True or False, not {self.verify!r}")
        if self.cert_file is None and (self.key_file is not None or self.password is not None):
            raise ValueError("key_file and password belong to a cert_file, which is missing")
        if not self.verify and self.ca_file is not None:
            raise ValueError("with verify=False the ca_file would not be looked at: give one only")

    def client_context(self) -> ssl.SSLContext:
        """Return a context for clients: TLS 1.2 and newer, without compression.

        Raises:
            OSError: A file cannot be read.
            ValueError: A file does not have what it should.
        """
        context = self._load(ssl.Purpose.SERVER_AUTH)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def server_context(self) -> ssl.SSLContext:
        """Return a context for listeners; in all else as `client_context`."""
        if self.cert_file is None:
            raise ValueError("a listener's TLSConfig needs a cert_file: the server's certificate")
        if not self.verify:
            raise ValueError("verify=False is for clients; a listener verifies if it has a ca_file")
        context = self._load(ssl.Purpose.CLIENT_AUTH)
        if self.ca_file is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _load(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path is not None:
                _check_readable(name, path)
        try:
            context = make_context(purpose, self.ca_file)
        except ssl.SSLError as exc:
            what = f"the ca_file {str(self.ca_file)!r}"
            raise ValueError(f"{what} cannot be used: {_about(exc)}") from exc
        if self.cert_file is None:
            return context
        try:
            # Without a password OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.cert_file, self.key_file, self.password or "")
        except ssl.SSLError as exc:
            what = f"the cert_file {str(self.cert_file)!r}"
            if self.key_file is None:
                what += ", without a key_file,"
            else:
                what += f" with the key_file {str(self.key_file)!r}"
            raise ValueError(f"{what} cannot be used: {_about(exc)}") from exc
        return context


def _check_readable(name: str, path: str | os.PathLike[str]) -> None:
    """Raise if a file cannot be read; the errors of `ssl` do not name it."""
    try:
        with open(path, "rb"):
            pass
    except OSError as exc:
        text = f"the {name} cannot be read: {exc.strerror}"
        raise type(exc)(exc.errno, text, os.fspath(path)) from None


def _about(error: ssl.SSLError) -> str:
    """Return what OpenSSL says, in words."""
    if not error.reason or error.reason == "PEM lib":
        return "it has no certificate and key in PEM, or the password is wrong"
    return error.reason.replace("_", " ").lower()
