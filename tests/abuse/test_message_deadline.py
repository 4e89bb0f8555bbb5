"""Messages that begin and never end, a little at a time."""

from __future__ import annotations

import itertools
import select
from collections.abc import Callable, Iterator

import pytest

import syncws
from tests.abuse.hostile import Deaf, Victim, attacked, deflated, every_end
from tests.support import BINARY, CONT, PING, PONG, TEXT

# Seconds between two pieces.
_PAUSE = 0.01

_TIMEOUT = 0.2

# The same for messages that are in time, however busy the machine is.
_AMPLE = 0.6


def _by_bytes(data: bytes) -> Iterator[bytes]:
    return (data[n : n + 1] for n in range(len(data)))


def _fragments(victim: Victim, opcode: int, payload: bytes, rsv: int = 0) -> Iterator[bytes]:
    yield victim.frame(opcode, payload, fin=False, rsv=rsv)
    yield from itertools.repeat(victim.frame(CONT, payload, fin=False))


def _then(first: bytes, more: Iterator[bytes]) -> Iterator[bytes]:
    return itertools.chain([first], more)


_TRICKLES: dict[str, Callable[[Victim], Iterator[bytes]]] = {
    "a text a byte at a time": lambda v: _by_bytes(v.frame(TEXT, bytes(50_000))),
    "a message a byte at a time": lambda v: _by_bytes(v.frame(BINARY, bytes(50_000))),
    "a short one": lambda v: _then(v.frame(BINARY, bytes(100))[:-1], itertools.repeat(b"")),
    "a byte of a header": lambda v: _then(v.frame(TEXT, b"x")[:1], itertools.repeat(b"")),
    "a part of a length": lambda v: _then(v.frame(TEXT, bytes(70_000))[:4], itertools.repeat(b"")),
    "a header": lambda v: _then(v.frame(BINARY, bytes(70_000))[:-70_000], itertools.repeat(b"")),
    "fragments of a byte": lambda v: _fragments(v, BINARY, b"x"),
    "texts of a byte": lambda v: _fragments(v, TEXT, b"x"),
    "empty fragments": lambda v: _fragments(v, BINARY, b""),
    "a fragment, and silence": lambda v: _then(
        v.frame(TEXT, b"x", fin=False), itertools.repeat(b"")
    ),
    "a fragment, and pongs": lambda v: _then(
        v.frame(TEXT, b"x", fin=False), itertools.repeat(v.frame(PONG, b"x"))
    ),
    "a fragment, and more than a KiB a second of pongs": lambda v: _then(
        v.frame(TEXT, b"x", fin=False), itertools.repeat(v.frame(PONG, b"x" * 125) * 4)
    ),
    "fragments a byte at a time": lambda v: _by_bytes(
        v.frame(TEXT, b"", fin=False) + v.frame(CONT, b"x" * 100, fin=False) * 1000
    ),
    "a ping within a message": lambda v: _then(
        v.frame(TEXT, b"x", fin=False) + v.frame(PING, b"x" * 100)[:-1], itertools.repeat(b"")
    ),
}
_COMPRESSED: dict[str, Callable[[Victim], Iterator[bytes]]] = {
    "a message a byte at a time": lambda v: _by_bytes(
        v.frame(BINARY, deflated(bytes(range(256)) * 4), rsv=4)
    ),
    "empty fragments": lambda v: _fragments(v, BINARY, b"", rsv=4),
    "a fragment that inflates to much, and silence": lambda v: _then(
        v.frame(BINARY, deflated(bytes(100_000)), fin=False, rsv=4), itertools.repeat(b"")
    ),
}


def trickle(victim: Victim, pieces: Iterator[bytes]) -> None:
    """Send a piece now and then until there is an answer."""
    sock = victim.peer.sock
    for piece in itertools.islice(pieces, 1500):
        if piece:
            sock.sendall(piece)
        if select.select([sock], [], [], _PAUSE)[0]:
            return
    raise AssertionError("all of it was taken")


@every_end
@pytest.mark.parametrize("way", _TRICKLES)
def test_a_message_that_never_ends(kind: str, way: str) -> None:
    with attacked(kind, service=Deaf(), message_timeout=_TIMEOUT) as victim:
        trickle(victim, _TRICKLES[way](victim))
        victim.fails(1008, syncws.MessageTimeout)


@every_end
@pytest.mark.parametrize("way", _COMPRESSED)
def test_a_compressed_message_that_never_ends(kind: str, way: str) -> None:
    with attacked(kind, deflate=True, message_timeout=_TIMEOUT) as victim:
        trickle(victim, _COMPRESSED[way](victim))
        victim.fails(1008, syncws.MessageTimeout)


@every_end
def test_between_messages_there_is_no_deadline(kind: str) -> None:
    with attacked(kind, message_timeout=_AMPLE) as victim:
        for _ in range(2):
            victim.peer.send(TEXT, b"he", fin=False)
            victim.peer.send(CONT, b"llo")
            victim.receives("hello")
            assert not select.select([victim.peer.sock], [], [], 2 * _AMPLE)[0]


@every_end
def test_a_message_that_gets_on_has_its_time(kind: str) -> None:
    # A second more for each KiB that came since it began: there are 20 of them.
    with attacked(kind, message_timeout=_AMPLE) as victim:
        victim.peer.send(BINARY, b"x", fin=False)
        victim.peer.round_trip()
        victim.peer.send(CONT, bytes(20_480), fin=False)
        assert not select.select([victim.peer.sock], [], [], 2 * _AMPLE)[0]
        victim.peer.send(CONT)
        victim.receives(b"x" + bytes(20_480))
