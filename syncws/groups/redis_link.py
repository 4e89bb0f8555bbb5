"""Connections to a Redis server: redis-py makes them, and we talk on them."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .resp import Replies

__all__ = ["Command", "Link", "Server"]

Command = Sequence[bytes | str | int]

_CHUNK = 262_144


class Server:
    """Where a Redis server is, and how to get in. Immutable; any thread.

    Args:
        url: As `redis.Redis.from_url` takes it.
        options: More for redis-py's connections.
        timeout: Seconds to connect, and for each answer.
        longest: Bytes of a string in an answer.

    Raises:
        ImportError: redis-py is not installed.
        ValueError: The URL or the options are wrong.
    """

    def __init__(self, url: str, options: Mapping[str, Any], timeout: float, longest: int) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as exc:
            raise ImportError("RedisBackplane needs redis-py: pip install redis") from exc
        if not isinstance(url, str):
            raise TypeError(f"url is a str, not {type(url).__name__}")
        try:
            pool = redis.ConnectionPool.from_url(url, **({"protocol": 2} | dict(options)))
            kwargs = {
                name: value
                for name, value in pool.connection_kwargs.items()
                if "maint_notifications" not in name  # which need version 3 of the protocol
            }
            self._make = pool.connection_class
            self._kwargs = kwargs | {
                "protocol": 2,
                "decode_responses": False,
                "socket_timeout": timeout,
                "health_check_interval": 0,
                "retry": Retry(NoBackoff(), 0),
                "retry_on_error": [],
            }
            if "path" not in kwargs:
                self._kwargs["socket_connect_timeout"] = timeout
            self._make(**self._kwargs)
        except (ValueError, TypeError, redis.RedisError):
            # What it says may have a part of a password.
            raise ValueError(
                "that is no URL of a Redis server, such as redis://localhost:6379/0, rediss:// "
                "for TLS, or unix:///path; or there is no such option"
            ) from None
        self._errors = (OSError, redis.RedisError)
        self._timeout = timeout
        self._longest = longest
        place = (
            kwargs.get("path") or f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"
        )
        #: Where it is, without what lets us in.
        self.place = str(place)

    def connect(self) -> Link:
        """Connect and log in.

        Raises:
            OSError: It could not be done.
        """
        connection = self._make(**self._kwargs)
        try:
            connection.connect()
            return Link(connection, self._timeout, self._longest)
        except self._errors as exc:
            connection.disconnect()
            if isinstance(exc, OSError):
                raise
            raise ConnectionError(str(exc)) from None
        except BaseException:
            connection.disconnect()
            raise


class Link:
    """A connection that is logged in. Used by one thread, but for `interrupt`.

    Args:
        connection: redis-py's; connected.
        timeout: Seconds for each step.
        longest: Bytes of a string in an answer.
    """

    def __init__(self, connection: Any, timeout: float, longest: int) -> None:
        self._connection = connection
        self._sock: socket.socket = connection._sock
        self._timeout = timeout
        self._replies = Replies(longest)
        self._ready: list[Any] = []
        self._pid = os.getpid()
        #: When something came, on the monotonic clock.
        self.heard = time.monotonic()

    def fileno(self) -> int:
        """The descriptor to wait on; `receive` first, for TLS keeps data back."""
        return self._sock.fileno()

    def send(self, commands: Sequence[Command]) -> None:
        """Write commands.

        Raises:
            OSError: The connection is lost.
        """
        self._sock.settimeout(self._timeout)
        for part in self._connection.pack_commands(commands):
            self._sock.sendall(part)

    def call(self, commands: Sequence[Command], timeout: float | None = None) -> list[Any]:
        """Write commands and return their answers; errors among them are values.

        Raises:
            OSError: The connection is lost; whether they were obeyed is not known.
        """
        self.send(commands)
        self._sock.settimeout(self._timeout if timeout is None else timeout)
        found = self._ready
        while len(found) < len(commands):
            found += self._feed(self._sock.recv(_CHUNK))
        self._ready = found[len(commands) :]
        return found[: len(commands)]

    def receive(self) -> list[Any]:
        """Return the answers that are there, without waiting.

        Raises:
            OSError: The connection is lost.
        """
        found, self._ready = self._ready, []
        self._sock.settimeout(0.0)
        try:
            while len(found) < 1000:
                found += self._feed(self._sock.recv(_CHUNK))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            if not found:
                raise  # else the next call does
        return found

    def _feed(self, data: bytes) -> list[Any]:
        if not data:
            raise ConnectionResetError("the server has closed the connection")
        self.heard = time.monotonic()
        try:
            return self._replies.feed(data)
        except ValueError as exc:
            raise ConnectionError(str(exc)) from None

    def interrupt(self) -> None:
        """Have whoever waits for an answer see the end. Any thread."""
        with contextlib.suppress(OSError):
            # Not that of TLS, which is the other thread's.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it. In a forked child the parent's connection stays as it is."""
        with contextlib.suppress(Exception):
            if os.getpid() == self._pid:
                self._connection.disconnect()
            else:
                self._sock.close()
