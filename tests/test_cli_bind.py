"""Addresses on the command line, and the sockets of several processes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncws.cli.bind import Bind, Sockets, parse_bind, show_address
from syncws.server import acceptor
from syncws.server.arguments import Binding


def tcp(host: str, port: int) -> Bind:
    return Bind(Binding(host, port, None, 1024))


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:9090", tcp("127.0.0.1", 9090)),
        ("localhost:0", tcp("localhost", 0)),
        (":80", tcp("", 80)),
        ("[::1]:65535", tcp("::1", 65535)),
        ("[::]:80", tcp("::", 80)),
        ("unix:/run/a:b.sock", Bind(Binding("", 0, "/run/a:b.sock", 1024))),
        ("fd://3", Bind(fd=3)),
        ("fd:12", Bind(fd=12)),
        ("systemd", Bind(systemd="")),
        ("systemd:chat.socket", Bind(systemd="chat.socket")),
    ],
)
def test_what_a_bind_says(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no HOST:PORT"),
        ("9090", "is no HOST:PORT"),
        ("localhost", "is no HOST:PORT"),
        ("localhost:", "is no HOST:PORT"),
        ("localhost:http", "is no HOST:PORT"),
        ("localhost:-1", "is no HOST:PORT"),
        ("localhost:65536", "is no HOST:PORT"),
        ("localhost:\uff18\uff10", "is no HOST:PORT"),
        ("systemd:", "is no HOST:PORT"),
        ("::1:80", r"in brackets: \[::1\]:80"),
        ("unix:", "needs a path"),
        ("fd://", "no number of a descriptor"),
        ("fd://x", "no number of a descriptor"),
    ],
)
def test_what_says_nothing(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_bind(text)


def test_addresses_are_shown_as_they_are_written() -> None:
    assert show_address(("127.0.0.1", 80)) == "127.0.0.1:80"
    assert show_address(("::1", 80)) == "[::1]:80"
    assert show_address("/run/chat.sock") == "unix:/run/chat.sock"


@pytest.fixture
def three() -> Iterator[Sockets]:
    """The sockets of three processes."""
    sockets = Sockets(3)
    yield sockets
    sockets.close()
    sockets.remove_paths()


@pytest.fixture(params=[True, False], ids=["own sockets", "one socket"])
def can_share(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the system spreads clients itself."""
    can: bool = request.param
    if can and not acceptor.can_share_port():
        pytest.skip("not on this system")
    monkeypatch.setattr("syncws.cli.bind.can_share_port", lambda: can)
    return can


def test_each_process_has_a_socket_on_the_port(three: Sockets, can_share: bool) -> None:
    three.open([tcp("127.0.0.1", 0)])
    ((host, port),) = three.addresses
    assert host == "127.0.0.1"
    of = [three.of(slot) for slot in range(3)]
    assert [[sock.getsockname() for sock in sockets] for sockets in of] == [[(host, port)]] * 3
    assert len({sockets[0].fileno() for sockets in of}) == (3 if can_share else 1)
    assert [len(three.own_of(slot)) for slot in range(3)] == [int(can_share)] * 3


def test_every_socket_gets_some_clients(three: Sockets) -> None:
    if not acceptor.can_share_port():
        pytest.skip("not on this system")
    three.open([tcp("127.0.0.1", 0)])
    clients = [socket.create_connection(three.addresses[0]) for _ in range(200)]  # type: ignore[arg-type]
    accepted = []
    for slot in range(3):
        (sock,) = three.of(slot)
        count = 0
        while True:
            try:
                sock.accept()[0].close()
            except BlockingIOError:
                break
            count += 1
        accepted.append(count)
    for client in clients:
        client.close()
    assert sum(accepted) == 200
    assert min(accepted) > 0  # one in 10**34 times it is so by chance


@pytest.mark.usefixtures("can_share")
def test_nobody_may_be_on_the_port_before(three: Sockets) -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("not on this system")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}"):
            three.open([tcp("127.0.0.1", port)])


def test_all_have_the_same_unix_socket_and_it_is_removed(three: Sockets, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    three.open([parse_bind(f"unix:{path}")])
    assert three.addresses == [str(path)]
    assert three.of(0) == three.of(2)
    three.close()
    assert path.exists()
    three.remove_paths()
    assert not path.exists()


def test_a_descriptor_is_taken(three: Sockets) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        fd = os.dup(sock.fileno())
        os.set_inheritable(fd, True)
        three.open([Bind(fd=fd)])
        assert three.addresses == [sock.getsockname()]
        assert not os.get_inheritable(fd)


def test_a_descriptor_that_is_no_listening_socket(three: Sockets) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match=f"cannot listen on descriptor {reading}"):
            three.open([Bind(fd=reading)])
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(OSError, match=f"cannot listen on descriptor {reading}"):
        three.open([Bind(fd=reading)])
    with socket.socket() as sock, pytest.raises(ValueError, match="does not listen"):
        three.open([Bind(fd=os.dup(sock.fileno()))])
