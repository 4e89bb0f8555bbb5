"""Messages and sockets between the supervisor and its processes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from syncws.cli.channel import Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Both ends of a channel."""
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_come_in_order_with_their_sockets(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ours.send("first")
        ours.send("listen", sockets=[one, two], slot=1)
        ours.send("share", sockets=[two])
        got = []
        while len(got) < 3:
            messages = theirs.receive()
            assert messages is not None
            got += messages
        assert [message for message, _ in got] == [
            {"name": "first"},
            {"name": "listen", "slot": 1},
            {"name": "share"},
        ]
        addresses = [[sock.getsockname() for sock in sockets] for _, sockets in got]
        assert addresses == [
            [],
            [one.getsockname(), two.getsockname()],
            [two.getsockname()],
        ]
        for _, sockets in got:
            for sock in sockets:
                assert not sock.get_inheritable()
                sock.close()


def test_a_message_may_come_in_parts(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.sock.sendall(b'{"name": "sto')
    assert theirs.receive() == []
    ours.sock.sendall(b'p", "sockets": 0}\n{"na')
    assert theirs.receive() == [({"name": "stop"}, [])]


def test_the_end_is_told(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.close()
    assert theirs.receive() is None
    with pytest.raises(BrokenPipeError):
        theirs.send("loaded")
