"""The faults of test_network where the bytes are TLS records, or compressed."""

from __future__ import annotations

import select
import socket
from typing import Any

import pytest

import syncws
from syncws.client import connect
from tests.faults.ends import ends, serves_on, timed_from
from tests.faults.proxy import DOWN, FAULTS, LOSSY, UP, Fault, Proxy
from tests.faults.test_network import DIRECTIONS, KINDS, Place, send_amid
from tests.support import (
    HANG,
    Gate,
    RawPeer,
    RawServer,
    ServerRecorder,
    client_tls,
    listening,
    server_tls,
)

#: What a record of TLS 1.3 has beside its content: a head, a byte that says
#: what it is, and a tag. RFC 8446 section 5.2.
RECORD = 22


class Exact(Place):
    """A place whose offset has everything that comes before it."""

    def bytes_of(self, direction: str) -> int:
        mask = 4 if direction == UP else 0
        return self.offset + sum(
            2 + mask + len(part) + RECORD for part in self.parts[: self.frames]
        )


RECORDS = {
    "amid the head of a record": Exact(3, 0, ("second", "third"), False),
    "amid a record": Exact(12, 0, ("second", "third"), False),
    "amid the tag of a record": Exact(25, 0, ("second", "third"), False),
    "between records": Exact(0, 1, ("second", "third", "fourth"), False, ("second",)),
    "between fragments": Exact(0, 1, ("sec", "on", "d"), True),
}


@pytest.mark.parametrize("place", RECORDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("client", KINDS)
@pytest.mark.parametrize("kind", FAULTS)
def test_amid_tls(kind: str, client: str, direction: str, place: str) -> None:
    """Without a close_notify: that is the end of TCP as any other."""
    with ends(client, tls=True) as pair:
        send_amid(pair, kind, direction, RECORDS[place])


# Offsets in each direction: amid the first message of TLS, and of those that
# answer it.
HELLOS = {
    "before ClientHello": (UP, 0),
    "amid ClientHello": (UP, 100),
    "before ServerHello": (DOWN, 0),
    "amid ServerHello": (DOWN, 50),
    "amid the certificate": (DOWN, 400),
}


@pytest.mark.parametrize("place", HELLOS)
@pytest.mark.parametrize("kind", [*LOSSY, "stall"])
def test_amid_the_tls_handshake(kind: str, place: str) -> None:
    direction, offset = HELLOS[place]
    service = ServerRecorder()
    with (
        listening(service, ssl=server_tls()) as listener,
        Proxy(listener.port or 0, Fault(kind, direction, offset)) as proxy,
    ):
        url = proxy.url.replace("ws:", "wss:")
        timeout = 0.2 if kind == "stall" else 10.0
        with timed_from("secure"), pytest.raises(syncws.ConnectError) as caught:
            syncws.Client(url, ssl=client_tls(), handshake_timeout=timeout)
        error = caught.value
        step = f"the TLS handshake with 127.0.0.1 port {proxy.port} "
        if kind == "stall":
            assert isinstance(error, syncws.ConnectTimeout)
            assert str(error) == step + "took longer than handshake_timeout, 0.2 s"
        else:
            assert str(error).startswith(step + "failed: ")
            assert type(error) in (syncws.TLSError, syncws.ConnectError)
            assert isinstance(error.__cause__, OSError)
        serves_on(url, service, ssl=client_tls())
        proxy.reset_all()
    assert service.calls.empty()


# Both are over the length from which messages are compressed.
LONG = ("a long message, " * 50, "another, " * 50)

COMPRESSED = {
    "amid a frame header": Place(1, 0, LONG, False),
    "amid a compressed payload": Place(9, 0, LONG, False),
    "amid a compressed fragment": Place(9, 0, LONG, True),
}


@pytest.mark.parametrize("place", COMPRESSED)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("client", KINDS)
@pytest.mark.parametrize("kind", FAULTS)
def test_amid_compressed_messages(kind: str, client: str, direction: str, place: str) -> None:
    with ends(client, compression=True) as pair:
        send_amid(pair, kind, direction, COMPRESSED[place])


# -- Reset before TLS began --------------------------------------------------


def test_a_client_whose_connection_is_reset_before_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left open, though `ssl` has taken the socket over when it notices."""
    real = connect._open

    def reset(*args: Any) -> socket.socket:
        sock = real(*args)
        server.accept().reset()
        select.select([sock], [], [], HANG)
        return sock

    monkeypatch.setattr(connect, "_open", reset)
    with RawServer() as server:
        url = server.url.replace("ws:", "wss:")
        with pytest.raises(syncws.ConnectError, match="the TLS handshake with"):
            syncws.Client(url, ssl=client_tls())


def test_a_client_that_resets_before_it_is_accepted() -> None:
    service = ServerRecorder()
    with listening(service, ssl=server_tls()) as listener, Gate() as gate:
        assert listener._loop is not None
        listener._loop.call_soon(gate.block)
        gate.reached()
        for _ in range(3):
            RawPeer.dial(listener).reset()
        gate.open()
        url = f"wss://127.0.0.1:{listener.port}/"
        serves_on(url, service, ssl=client_tls())
