"""A real redis-server, on a Unix-domain socket, that can be killed and started again."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import Program, find_program, running

__all__ = ["RealRedis", "real_redis"]


class RealRedis:
    """A server with an append-only file, which it reads when it is started again.

    Args:
        directory: For its files; the path of the socket must be short.
        options: Lines of its configuration.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._program = find_program("redis-server")
        self._stack = contextlib.ExitStack()
        self.path = directory / "redis.sock"
        self.url = f"unix://{self.path}"
        self.program: Program | None = None
        lines = ["port 0", f"unixsocket {self.path}", f"dir {directory}", 'save ""', *options]
        (directory / "redis.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def start(self) -> None:
        """Start it, and wait until it can be connected to."""
        self.program = self._stack.enter_context(
            running(
                [self._program, str(self._directory / "redis.conf")],
                log=self._directory / "redis.log",
                ready=self._ready,
            )
        )

    def _ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            if sock.connect_ex(str(self.path)):
                return False
            sock.sendall(b"PING\r\n")
            return sock.recv(100)[:1] in (b"+", b"-")

    def kill(self) -> None:
        """End it without a word."""
        assert self.program is not None
        self.program.kill()

    def command(self, *args: str | bytes | int, **options: Any) -> Any:
        """Have it obey a command, on a connection for this."""
        redis = pytest.importorskip("redis")
        client = redis.Redis.from_url(self.url, **options)
        try:
            return client.execute_command(*args)
        finally:
            client.close()
            client.connection_pool.disconnect()

    def close(self) -> None:
        """End it for good."""
        self._stack.close()


@contextlib.contextmanager
def real_redis(*options: str) -> Iterator[RealRedis]:
    """A running server, until the block ends; skips the test where there is none.

    By default it forgets nothing when it is killed.
    """
    pytest.importorskip("redis")
    find_program("redis-server")
    with tempfile.TemporaryDirectory(prefix="syncws-") as directory:
        server = RealRedis(Path(directory), *(options or ("appendonly yes", "appendfsync always")))
        try:
            server.start()
            yield server
        finally:
            server.close()
