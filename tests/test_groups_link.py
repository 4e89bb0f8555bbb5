"""A connection to Redis, with a Redis that the test plays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from syncws.groups.redis_link import Link, ReplyError, Server
from tests.redises.scripted import RedisPeer, ScriptedRedis, array, bulk
from tests.support import HANG, Task

pytest.importorskip("redis")


@pytest.fixture
def redis() -> Iterator[ScriptedRedis]:
    with ScriptedRedis() as server:
        yield server


def connect(redis: ScriptedRedis) -> tuple[RedisPeer, Link]:
    """Return both ends of a connection, on which redis-py has said what it says first."""

    def enter() -> Link:
        link = Server(redis.url, {}, HANG).connect()
        assert link.call([("PING",)]) == [b"PONG"]
        return link

    connecting = Task(enter)
    peer = redis.accept()
    peer.pong()
    return peer, connecting.result()


@pytest.fixture
def pair(redis: ScriptedRedis) -> Iterator[tuple[RedisPeer, Link]]:
    peer, link = connect(redis)
    yield peer, link
    link.close()


def test_answers_and_refusals_are_values(pair: tuple[RedisPeer, Link]) -> None:
    peer, link = pair
    calling = Task(link.call, [("GET", "a", 1, b"\xff")] + [("GET", "b")] * 7)
    assert peer.next() == [b"GET", b"a", b"1", b"\xff"]
    peer.answer(bulk(b"\r\n\xff"), bulk(None), b":-7\r\n", b"*0\r\n", b"+OK\r\n", b"*-1\r\n")
    peer.answer(b"-ODD no such thing\r\n", array(b"-OOM no memory\r\n", array(b":1\r\n")))
    *values, refused, mixed = calling.result()
    assert values == [b"\r\n\xff", None, -7, [], b"OK", None]
    assert isinstance(refused, ReplyError)
    assert (refused.code, str(refused)) == ("ODD", "ODD no such thing")
    assert (mixed[0].code, mixed[1]) == ("OOM", [1])


@pytest.mark.parametrize(
    "code",
    [
        *("BUSY", "CLUSTERDOWN", "EXECABORT", "MASTERDOWN", "MISCONF", "NOPERM", "NOREPLICAS"),
        *("OOM", "READONLY", "TRYAGAIN", "WRONGTYPE"),
    ],
)
def test_a_refusal_has_its_code(pair: tuple[RedisPeer, Link], code: str) -> None:
    peer, link = pair
    peer.answer(f"-{code} it says why\r\n".encode())
    (refused,) = link.receive(HANG)
    assert (refused.code, str(refused)) == (code, f"{code} it says why")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"$x\r\n",
        b"*1\r\n!\r\n",
        b":one\r\n",
        b"-LOADING it reads its files\r\n",
        b"-NOAUTH it forgot us\r\n",
    ],
)
@pytest.mark.parametrize("use", ["call", "receive"])
def test_an_error_is_the_end_of_it(
    redis: ScriptedRedis, pair: tuple[RedisPeer, Link], use: str, answer: bytes
) -> None:
    peer, link = pair
    uses: dict[str, Callable[[], Any]] = {
        "call": lambda: link.call([("PING",)]),
        "receive": lambda: link.receive(HANG),
        "send": lambda: link.send([("PING",)]),
    }
    peer.answer(answer)
    if not answer:
        peer.close()
    with pytest.raises(OSError):
        uses[use]()
    for again in uses.values():
        with pytest.raises(OSError):
            again()
    # redis-py would have made another connection.
    redis.sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        redis.accept()


def test_what_came_before_the_end_comes_first(pair: tuple[RedisPeer, Link]) -> None:
    peer, link = pair
    peer.answer(b":1\r\n:2\r\n")
    peer.close()
    found: list[Any] = []
    with pytest.raises(OSError):
        while True:
            found += link.receive(HANG)
    assert found == [1, 2]


def test_nothing_comes_for_a_while(pair: tuple[RedisPeer, Link]) -> None:
    peer, link = pair
    before = link.heard
    assert link.receive(0.0) == link.receive(0.01) == []
    assert link.heard == before
    peer.answer(b":1\r\n")
    assert link.receive(HANG) == [1]
    assert link.heard > before


def test_an_answer_that_stops_halfway(redis: ScriptedRedis) -> None:
    peer, link = connect(redis)
    link._connection._parser._buffer.socket_timeout = 0.1  # not before it is connected
    peer.answer(b"$5\r\nab")
    with contextlib.closing(link), pytest.raises(TimeoutError):
        link.receive(HANG)
