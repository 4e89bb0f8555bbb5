"""Connections to a Redis server, by redis-py's own, and its errors as those of Python."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Command", "Link", "ReplyError", "Server"]

Command = Sequence[bytes | str | int]

# Answers that are taken at once.
_MOST = 1000

# redis-py cuts the first word off some errors; these are the ones that we tell apart.
_CODES = {
    "ClusterDownError": "CLUSTERDOWN",
    "ExecAbortError": "EXECABORT",
    "MasterDownError": "MASTERDOWN",
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}


class ReplyError(Exception):
    """An error that is an answer, or part of one: Redis has refused a command.

    Args:
        error: redis-py's.
    """

    def __init__(self, error: Exception) -> None:
        code = _CODES.get(type(error).__name__, "")
        text = str(error)
        super().__init__(text if text.startswith(code) else f"{code} {text}")

    @property
    def code(self) -> str:
        """Its first word, such as "OOM"."""
        return str(self).partition(" ")[0]


class Server:
    """Where a Redis server is, and how to get in. Immutable; any thread.

    Args:
        url: As `redis.Redis.from_url` takes it.
        options: More for redis-py's connections.
        timeout: Seconds to connect, and for each answer.

    Raises:
        ImportError: redis-py is not installed.
        ValueError: The URL or the options are wrong.
    """

    def __init__(self, url: str, options: Mapping[str, Any], timeout: float) -> None:
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
            with _errors():
                connection.connect()
        except BaseException:
            connection.disconnect()
            raise
        return Link(connection)


class Link:
    """A connection that is logged in, and ends with its first error. Used by one thread.

    It is a `redis.Connection`, not a `redis.Redis` or a `PubSub`: these connect
    again on their own, and nobody would know that there was a gap.

    Args:
        connection: Connected; each step on it has its timeout.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._error: OSError | None = None
        #: When something came, on the monotonic clock.
        self.heard = time.monotonic()

    def send(self, commands: Sequence[Command]) -> None:
        """Write commands.

        Raises:
            OSError: The connection is lost.
        """
        with self._using() as connection:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """Write commands and return their answers; errors among them are values.

        Raises:
            OSError: The connection is lost; whether they were obeyed is not known.
        """
        self.send(commands)
        with self._using() as connection:
            return [_read(connection) for _ in commands]

    def receive(self, timeout: float) -> list[Any]:
        """Wait for an answer; return all that are there, none if it takes too long.

        Raises:
            OSError: The connection is lost.
        """
        found: list[Any] = []
        try:
            with self._using() as connection:
                while len(found) < _MOST and connection.can_read(0 if found else timeout):
                    found.append(_read(connection))
        except OSError:
            if not found:
                raise  # else the next call does
        if found:
            self.heard = time.monotonic()
        return found

    @contextlib.contextmanager
    def _using(self) -> Iterator[Any]:
        """Have the connection, unless it was lost: redis-py would make another one."""
        if self._error is not None:
            raise self._error
        try:
            with _errors():
                yield self._connection
        except OSError as exc:
            self._error = exc
            raise

    def close(self) -> None:
        """Close it. In a forked child the parent's connection stays as it is."""
        self._error = self._error or ConnectionError("the connection is closed")
        with contextlib.suppress(Exception):
            self._connection.disconnect()


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Raise errors of redis-py as OSError: the connection is good for nothing more."""
    import redis

    try:
        yield
    except redis.TimeoutError as exc:
        raise TimeoutError(str(exc)) from None
    except (redis.RedisError, ValueError) as exc:  # the latter is what it says to no number
        raise ConnectionError(str(exc)) from None


def _read(connection: Any) -> Any:
    """Return the next answer; Redis's refusals are values."""
    import redis

    try:
        answer = connection.read_response()
    except redis.ResponseError as exc:
        return ReplyError(exc)
    if isinstance(answer, list):  # that of a transaction may have them inside
        return [ReplyError(one) if isinstance(one, redis.ResponseError) else one for one in answer]
    return answer
