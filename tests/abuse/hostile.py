"""Ends of connections under attack, with others beside them that nothing happens to."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

import syncws
from tests.abuse.watch import watched
from tests.support import HANG, RawPeer, RawServer, Recorder, frame, listening, open_pair

__all__ = [
    "DEFLATE",
    "Bystanders",
    "Deaf",
    "Victim",
    "attacked",
    "beside",
    "connecting",
    "deflated",
    "endpoint_of",
    "every_end",
    "everything",
    "nobody_waits",
]

#: The ends that are fed: a listener, a client with callbacks, one that receives by itself.
every_end = pytest.mark.parametrize("kind", ["server", "client", "blocking"])

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
# What a client of ours offers, and a server has to answer with.
_WINDOWS = "; server_max_window_bits=12; client_max_window_bits=12"


class _Echo(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)


class Deaf(Recorder):
    """Is told of each pong, and keeps none."""

    def on_pong(self, caller: Any, data: bytes) -> None:
        """Do nothing."""


class Bystanders:
    """An honest listener, and an honest client that is connected to it.

    Attributes:
        listener: The listener. What is attacked on a server's side is its, too.
    """

    def __init__(self, listener: syncws.Listener, *, tls: Any = None) -> None:
        self.listener = listener
        self._tls = tls
        scheme = "ws" if tls is None else "wss"
        self._url = f"{scheme}://127.0.0.1:{listener.port}/honest"
        self._client = self._connect()

    def _connect(self) -> syncws.Client:
        return syncws.Client(self._url, ssl=self._tls)

    def served(self) -> None:
        """Assert that who is connected is answered, and that who comes new is let in."""
        with self._connect() as new:
            for client in (self._client, new):
                client.send_text("well?")
                assert client.receive(timeout=HANG) == "well?"

    def leave(self) -> None:
        """Close the client."""
        self._client.close()


@contextlib.contextmanager
def beside(*, tls: tuple[Any, Any] | None = None, **options: Any) -> Iterator[Bystanders]:
    """Bystanders, who are well before the block and after it.

    Args:
        tls: The contexts of a listener and of a client.
        options: Those of the listener.
    """
    if tls is not None:
        options["ssl"] = tls[0]
    with listening(_Echo(), "/honest", **options) as listener:
        others = Bystanders(listener, tls=None if tls is None else tls[1])
        try:
            others.served()
            yield others
            others.served()
        finally:
            others.leave()


class Victim:
    """An end under attack: its raw peer, and what its application gets to see.

    Args:
        kind: One of those of `every_end`.
        peer: The hostile end.
        others: Those that must not suffer.
        service: The application, if it has callbacks.
        client: The client, if it is one.
    """

    def __init__(
        self,
        kind: str,
        peer: RawPeer,
        others: Bystanders,
        service: Recorder,
        client: syncws.Client | None,
    ) -> None:
        self.kind = kind
        self.peer = peer
        self.others = others
        self.service = service
        self.client = client

    def frame(self, opcode: int, payload: bytes = b"", **options: Any) -> bytes:
        """Return a frame that is masked as the peer's have to be."""
        return frame(opcode, payload, masked=self.kind == "server", **options)

    def receives(self, message: str | bytes) -> None:
        """Assert that the application gets this next."""
        if self.kind == "blocking":
            assert self.client is not None
            assert self.client.receive(timeout=HANG) == message
        else:
            name = "on_text" if isinstance(message, str) else "on_binary"
            self.service.expect(name, message)

    def fails(self, code: int, error: type[syncws.WebSocketError]) -> None:
        """Assert that the connection is failed, and that nobody else is."""
        self.peer.expect_close(code)
        self.others.served()
        self.peer.abort()
        if self.kind == "blocking":
            assert isinstance(self.ended().__cause__, error)
            return
        call = self.service.next()
        assert call.name == "on_error", call
        assert isinstance(call.args[0], error)
        self.service.expect("on_close", 1006, "")
        assert self.service.calls.empty()

    def closes(self, code: int, reason: str = "") -> None:
        """Assert that the application hears of the end, once, and of nothing before it."""
        if self.kind == "blocking":
            received = self.ended().received
            assert (received.code if received else 1006) == code
            assert (received.reason if received else "") == reason
        else:
            self.service.expect("on_close", code, reason)
            assert self.service.calls.empty()

    def ended(self) -> syncws.ConnectionClosed:
        """Return what a blocking client's receive raises, as it does from now on."""
        assert self.client is not None
        with pytest.raises(syncws.ConnectionClosed) as caught:
            self.client.receive(timeout=HANG)
        return caught.value


@contextlib.contextmanager
def attacked(
    kind: str,
    *,
    service: Recorder | None = None,
    deflate: bool = False,
    peak: int | None = None,
    receive_buffer: int | None = None,
    **options: Any,
) -> Iterator[Victim]:
    """An open connection with a hostile peer; nothing is left of it after the block.

    Args:
        kind: One of those of `every_end`.
        service: The application, if it is to be one of its own.
        deflate: Whether permessage-deflate is agreed on.
        peak: See `watched`.
        receive_buffer: That of the peer's socket.
        options: Those of the end under attack.
    """
    options = {"ping_interval": None, "compression": deflate, **options}
    service = service or Recorder()
    if kind == "server":
        service.config = syncws.ServiceConfig(**options)
        headers = (DEFLATE,) if deflate else ()
        with beside() as others:
            others.listener.attach("/", service)
            with (
                watched(peak=peak),
                RawPeer.connect(
                    others.listener, "/", *headers, receive_buffer=receive_buffer
                ) as peer,
            ):
                yield Victim(kind, peer, others, service, None)
                others.served()
    else:
        answer = (DEFLATE + _WINDOWS,) if deflate else ()
        if kind == "client":
            options["service"] = service
        with (
            beside() as others,
            watched(peak=peak),
            open_pair(answer=answer, receive_buffer=receive_buffer, **options) as (client, peer),
        ):
            yield Victim(kind, peer, others, service, client)
            others.served()


def endpoint_of(victim: Victim) -> Any:
    """Return the caller, or the client, that is attacked."""
    if victim.client is not None:
        return victim.client
    victim.peer.text("who?")
    return victim.service.expect("on_text", "who?")


@contextlib.contextmanager
def connecting(
    error: type[syncws.ConnectError], *, peak: int | None = None, **options: Any
) -> Iterator[RawPeer]:
    """A raw server's end of a handshake that our client breaks off with this error.

    The client has connected once, then, and is gone when the block ends.

    Args:
        error: What `Client(...)` raises.
        peak: See `watched`.
        options: Those of the client.
    """
    with beside() as others, watched(peak=peak), RawServer() as server:
        opening = server.open_client(**options)
        with server.accept() as peer:
            yield peer
            raised = opening.error()
            assert type(raised) is error, raised
            others.served()
            everything(peer)  # what was left of its request, and the end
        assert nobody_waits(server)


def everything(peer: RawPeer) -> bytes:
    """Return all that comes until the other end has gone."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while data := peer.sock.recv(65_536):
            parts.append(data)
    return b"".join(parts)


def nobody_waits(server: RawServer) -> bool:
    """Whether nobody else has connected; on this machine that takes no time."""
    server.sock.setblocking(False)
    try:
        server.sock.accept()[0].close()
    except (BlockingIOError, OSError):
        return True
    return False


def deflated(data: bytes) -> bytes:
    """Return the payload of one compressed message. RFC 7692 section 7.2.1."""
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
