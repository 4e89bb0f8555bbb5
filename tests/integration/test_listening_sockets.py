"""Listeners on sockets that others have opened, on ports that several share, and their end."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import syncws
from syncws.server.acceptor import can_share_port
from tests.support import (
    TEXT,
    Gate,
    RawPeer,
    Recorder,
    ServerRecorder,
    Task,
    client_tls,
    listening,
    server_tls,
    wait_until,
)

CONFIG = syncws.ServiceConfig(ping_interval=None, compression=False)


class Echo(syncws.Service):
    config = CONFIG

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)


def echoed(peer: RawPeer, text: str = "hello") -> None:
    peer.text(text)
    peer.expect(TEXT, text)


# -- sockets -----------------------------------------------------------------


def test_a_listener_on_given_sockets_stops_and_starts_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = syncws.Listener(sockets=[sock])
        listener.attach("/", Echo())
        assert listener.port == sock.getsockname()[1]
        for _ in range(2):
            with listener, RawPeer.connect(listener) as peer:
                assert listener.addresses == [sock.getsockname()]
                echoed(peer)
                peer.finish()
            # Who comes now waits for the next start.
            with RawPeer(socket.create_connection(sock.getsockname()), client=True) as peer:
                peer.send_bytes(RawPeer.request())
                with listener:
                    assert peer.read_head().startswith(b"HTTP/1.1 101 ")


def test_a_unix_socket_that_was_given_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        with listening(Echo(), sockets=[sock], port=None) as listener:
            assert listener.port is None
            with RawPeer.connect(listener) as peer:
                echoed(peer)
                peer.finish()
        assert path.exists()
        # The same where a listener of its own is started on sockets of others.
        other = syncws.Listener(unix_path=path)
        other.start(sockets=[sock])
        other.stop()
        assert path.exists()


def test_a_unix_path_that_another_listens_on_by_now_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first = syncws.Listener(unix_path=path)
    first.start()
    path.unlink()
    with listening(Echo(), unix_path=path, port=None) as successor:
        path.chmod(0o600)
        first.stop()
        with RawPeer.connect(successor) as peer:
            echoed(peer)
            peer.finish()
    assert not path.exists()


def test_sockets_given_at_the_start_come_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = syncws.Listener(1, "192.0.2.1")
        listener.attach("/", Echo())
        listener.start(sockets=[sock])
        try:
            with RawPeer.connect(listener) as peer:
                echoed(peer)
                peer.finish()
        finally:
            listener.stop()
        assert sock.fileno() >= 0


def test_further_sockets_while_it_runs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, listening(Echo()) as listener:
        listener.also_accept([sock])
        assert listener.addresses[1] == sock.getsockname()
        with RawPeer(socket.create_connection(sock.getsockname()), client=True) as peer:
            peer.send_bytes(RawPeer.request())
            peer.read_head()
            echoed(peer)
            listener.stop(timeout=0)
        with pytest.raises(RuntimeError, match="not started"):
            listener.also_accept([sock])


def test_tls_on_given_sockets() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        listening(Echo(), sockets=[sock], port=None, ssl=server_tls()) as listener,
        syncws.Client(f"wss://localhost:{listener.port}/", ssl=client_tls()) as client,
    ):
        client.send_text("hello")
        assert client.receive_text() == "hello"


def test_a_listener_that_cannot_start_leaves_given_sockets_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = syncws.Engine()

    def fail() -> None:
        raise RuntimeError("no threads")

    monkeypatch.setattr(engine, "acquire", fail)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        with pytest.raises(RuntimeError, match="no threads"):
            syncws.Listener(sockets=[sock], engine=engine).start()
        with socket.create_connection(sock.getsockname()):
            pass


@pytest.mark.parametrize("where", ["Listener", "start", "also_accept"])
def test_what_are_no_listening_sockets(where: str) -> None:
    def give(sockets: Any) -> None:
        if where == "Listener":
            syncws.Listener(sockets=sockets)
        elif where == "start":
            syncws.Listener(0).start(sockets=sockets)
        else:
            syncws.Listener(0).also_accept(sockets)

    closed = socket.socket()
    closed.close()
    with socket.socket() as idle, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for sockets, error, text in (
            (idle, TypeError, "sockets must be a sequence of socket.socket"),
            ("3", TypeError, "sockets must be a sequence of socket.socket"),
            ([3], TypeError, "plain sockets only, not 3"),
            ([], ValueError, "sockets is empty"),
            ([closed], ValueError, "that is closed"),
            ([idle], ValueError, "does not listen"),
            ([datagrams], ValueError, "does not listen"),
        ):
            with pytest.raises(error, match=text):
                give(sockets)


def test_sockets_or_an_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        for options in ({"port": 0}, {"unix_path": "/x"}):
            with pytest.raises(ValueError, match="give sockets, or a port or a unix_path"):
                syncws.Listener(**options, sockets=[sock])  # type: ignore[arg-type]


# -- reuse_port --------------------------------------------------------------


@pytest.mark.skipif(not can_share_port(), reason="not on this system")
def test_listeners_may_share_a_port() -> None:
    services = [ServerRecorder(CONFIG), ServerRecorder(CONFIG)]
    with (
        listening(services[0], reuse_port=True) as first,
        listening(services[1], reuse_port=True, port=first.port) as second,
        ExitStack() as stack,
    ):
        assert first.addresses == second.addresses
        for _ in range(200):
            stack.enter_context(RawPeer.connect(first))
        # Both have some; by chance one would have none once in 10**60 times.
        for service in services:
            service.expect("on_open")
        with pytest.raises(OSError, match="another program does"):
            syncws.Listener(first.port).start()


def test_what_cannot_share_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="reuse_port must be a bool, not 1"):
        syncws.Listener(0, reuse_port=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reuse_port is for a port only"):
        syncws.Listener(unix_path="/x", reuse_port=True)
    monkeypatch.setattr("syncws.server.arguments.can_share_port", lambda: False)
    with pytest.raises(ValueError, match="this system does not spread"):
        syncws.Listener(0, reuse_port=True)


# -- A spread stop -----------------------------------------------------------


def test_a_spread_stop_lets_in_who_has_begun() -> None:
    service = ServerRecorder(CONFIG)
    with (
        listening(service) as listener,
        RawPeer.connect(listener) as before,
        RawPeer.dial(listener) as begun,
    ):
        service.expect("on_open")
        begun.send_bytes(RawPeer.request()[:20])
        begun_is_known(listener)
        stopping = Task(listener.stop, spread=5.0)
        before.expect_close(1001)  # now nobody is accepted any more
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", listener.port or 0))
        begun.send_bytes(RawPeer.request()[20:])
        assert begun.read_head().startswith(b"HTTP/1.1 101 ")
        begun.expect_close(1001)
        for peer in (before, begun):
            peer.close_frame(1001)
            peer.expect_end()
            peer.abort()
        stopping.result()


def begun_is_known(listener: syncws.Listener) -> None:
    """Return once all connections that were made before are accepted: a later one is."""
    with RawPeer.connect(listener) as peer:
        peer.finish()


def test_a_spread_stop_waits_for_an_upgrade_resource() -> None:
    with Gate() as gate:
        listener = syncws.Listener(0)

        @listener.upgrade("/", service=Recorder(CONFIG))
        def decide(http: syncws.Upgrade, request: syncws.Request) -> None:
            gate.block()

        with listener, RawPeer.dial(listener) as peer:
            peer.send_bytes(RawPeer.request())
            gate.reached()
            stopping = Task(listener.stop, spread=5.0)
            port = listener.port

            def refused() -> bool:
                with socket.socket() as sock:
                    return sock.connect_ex(("127.0.0.1", port or 0)) != 0

            wait_until(refused)
            gate.open()
            assert peer.read_head().startswith(b"HTTP/1.1 101 ")
            peer.expect_close(1001)
            peer.close_frame(1001)
            peer.abort()
            stopping.result()


def test_a_spread_stop_without_clients_ends_at_once_and_it_starts_again() -> None:
    listener = syncws.Listener(0)
    listener.attach("/", Echo())
    for _ in range(20):
        listener.start()
        with RawPeer.connect(listener) as peer:
            echoed(peer)
            peer.finish()
        listener.stop(spread=1.0)


def test_a_spread_stop_leaves_its_successors_unix_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with (
        listening(Echo(), unix_path=path, port=None) as listener,
        RawPeer.connect(listener) as peer,
    ):
        stopping = Task(listener.stop, timeout=1.0, spread=0.0)
        peer.expect_close(1001)
        assert not path.exists()
        with listening(Echo(), unix_path=path, port=None) as successor:
            stopping.result()  # the peer does not answer: all is ended once more at half time
            with RawPeer.connect(successor) as other:
                echoed(other)
                other.finish()


@pytest.mark.parametrize("spread", ["1", -1, True])
def test_a_wrong_spread_does_not_stop_it(spread: Any) -> None:
    with listening(Echo()) as listener:
        with pytest.raises((TypeError, ValueError), match="spread"):
            listener.stop(spread=spread)
        with RawPeer.connect(listener) as peer:
            echoed(peer)
