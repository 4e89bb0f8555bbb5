"""What the tests of clients that connect again share."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import syncws
from tests.support import HANG, RawPeer, RawServer, Recorder

__all__ = ["LATER", "NEVER", "NOW", "Backend", "Reconnector", "linked"]

#: At once, for ever.
NOW = syncws.RetryConfig(interval=0.0, jitter=0.0)

#: Behind a wait that no test sits out.
LATER = syncws.RetryConfig(interval=1000.0, max_interval=1000.0)

#: Once, and at once.
NEVER = syncws.RetryConfig(max_count=1, interval=0.0)


class Reconnector(Recorder):
    """Records attempts as well."""

    def on_reconnect(self, client: syncws.Client, attempt: syncws.Attempt) -> None:
        self.record("on_reconnect", client, attempt)

    def attempt(self, state: str, number: int | None = None) -> syncws.Attempt:
        """Return the attempt of the next call, which is of on_reconnect and in this state."""
        call = self.next()
        assert call.name == "on_reconnect", call
        attempt: syncws.Attempt = call.args[0]
        assert attempt.state == state, attempt
        if number is not None:
            assert attempt.number == number
        return attempt

    def reconnected(self) -> syncws.Attempt:
        """Take the calls of a loss and of the one attempt behind it off; return the first."""
        waiting = self.attempt("waiting", 1)
        self.attempt("connecting", 1)
        self.attempt("connected", 1)
        return waiting

    def error(self, kind: type[BaseException]) -> Any:
        """Return the error of the next call, which is of on_error."""
        call = self.next()
        assert call.name == "on_error", call
        assert isinstance(call.args[0], kind), call
        return call.args[0]

    def ended(self) -> None:
        """The next call is on_close, and none follows."""
        self.expect("on_close")
        self.quiet()


class Backend:
    """A port that refuses or listens as the test wants, and is never anybody else's."""

    def __init__(self, *, listening: bool = True) -> None:
        # Never listens, so that it keeps the port while the other is replaced.
        self._keeper = self._bound(0)
        self.port: int = self._keeper.getsockname()[1]
        self._sock = self._bound(self.port)
        self.url = f"ws://127.0.0.1:{self.port}/"
        if listening:
            self.listen()

    @staticmethod
    def _bound(port: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.settimeout(HANG)
        return sock

    def listen(self) -> None:
        """Let connections come."""
        self._sock.listen(16)

    def refuse(self) -> None:
        """Refuse connections from now on; those that wait are reset."""
        self._sock.close()
        self._sock = self._bound(self.port)

    def accept(self) -> RawPeer:
        """Accept one connection."""
        sock, _ = self._sock.accept()
        return RawPeer(sock, client=False)

    def answered(self, *headers: str, rest: bytes = b"") -> RawPeer:
        """Accept one connection, and its handshake."""
        peer = self.accept()
        try:
            peer.answer(*headers, rest=rest)
        except BaseException:
            peer.abort()
            raise
        return peer

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()
        self._keeper.close()


@contextlib.contextmanager
def linked(
    *, answer: tuple[str, ...] = (), rest: bytes = b"", **options: Any
) -> Iterator[tuple[RawServer, syncws.Client, RawPeer]]:
    """A server, a client that connects again, and the server's end of the first connection."""
    options = {"retry": NOW, "ping_interval": None, **options}
    with RawServer() as server:
        opening = server.open_client(**options)
        with server.accept() as peer:
            peer.answer(*answer, rest=rest)
            client = opening.result()
            try:
                yield server, client, peer
            finally:
                client.close(timeout=0)
                peer.abort()
                client.close()
