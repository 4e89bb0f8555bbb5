from __future__ import annotations

import logging
from typing import Any

import pytest

from syncws.server.door import Door
from tests.scripted import DirectJournal


class Bench:
    def __init__(self, most: int | None, most_per_address: int | None = None) -> None:
        self.now = 100.0
        journal: Any = DirectJournal()
        self.door = Door(most, most_per_address, lambda: self.now, journal)

    def enter(self, address: Any = ("127.0.0.1", 1)) -> Any:
        """Return the socket that is inside now, or the refusal."""
        refusal = self.door.refusal(address)
        if refusal is not None:
            return refusal
        sock: Any = object()
        self.door.enter(sock, address)
        return sock


def status(answer: Any) -> int | None:
    return getattr(answer, "status", None)


def test_so_many_and_no_more() -> None:
    bench = Bench(2)
    first, second = bench.enter(), bench.enter()
    assert status(first) is status(second) is None
    refusal = bench.enter()
    assert refusal.status == 503
    assert ("Retry-After", "5") in refusal.headers
    bench.door.leave(first)
    assert status(bench.enter()) is None
    assert status(bench.enter()) == 503


def test_leaving_without_having_been_let_in_is_harmless() -> None:
    bench = Bench(1, 1)
    inside = bench.enter()
    bench.door.leave(object())  # type: ignore[arg-type]
    assert status(bench.enter()) == 503
    bench.door.leave(inside)
    bench.door.leave(inside)
    assert status(bench.enter()) is None
    assert status(bench.enter()) == 503


def test_each_address_has_its_own_number() -> None:
    bench = Bench(None, 2)
    mine = [bench.enter(("127.0.0.1", port)) for port in (1, 2)]
    refusal = bench.enter(("127.0.0.1", 3))
    assert refusal.status == 503
    assert "127.0.0.1" in refusal.text
    assert status(bench.enter(("127.0.0.2", 4))) is None
    bench.door.leave(mine[0])
    assert status(bench.enter(("127.0.0.1", 5))) is None
    for one in mine[1:]:
        bench.door.leave(one)


def test_what_is_refused_for_its_address_takes_no_room() -> None:
    bench = Bench(2, 1)
    bench.enter(("127.0.0.1", 1))
    for port in range(2, 10):
        assert status(bench.enter(("127.0.0.1", port))) == 503
    assert status(bench.enter(("127.0.0.2", 1))) is None


def test_what_is_refused_for_the_number_does_not_count_for_its_address() -> None:
    bench = Bench(1, 1)
    other = bench.enter(("127.0.0.1", 1))
    assert status(bench.enter(("127.0.0.2", 1))) == 503
    bench.door.leave(other)
    assert status(bench.enter(("127.0.0.2", 2))) is None


def test_an_ipv6_client_has_64_bits_to_itself() -> None:
    bench = Bench(None, 1)
    assert status(bench.enter(("2001:db8::1", 1))) is None
    assert status(bench.enter(("2001:db8::ffff:1", 1))) == 503
    assert status(bench.enter(("2001:db8:0:1::1", 1))) is None
    assert status(bench.enter(("fe80::1%eth0", 1))) is None
    assert status(bench.enter(("fe80::2%eth0", 1))) == 503


def test_a_client_of_ipv4_is_itself_however_its_address_is_written() -> None:
    """On a socket for both families these would be one network."""
    bench = Bench(None, 1)
    assert status(bench.enter(("::ffff:192.0.2.1", 1))) is None
    assert status(bench.enter(("::ffff:192.0.2.2", 1))) is None
    assert "from 192.0.2.1." in bench.enter(("192.0.2.1", 2)).text


def test_unix_domain_sockets_have_no_address() -> None:
    bench = Bench(3, 1)
    for _ in range(3):
        assert status(bench.enter("")) is None
    assert status(bench.enter("")) == 503


def test_a_proxys_socket_counts_for_its_client() -> None:
    bench = Bench(None, 1)
    first, second, third = (bench.enter("") for _ in range(3))
    assert bench.door.move(first, ("8.8.8.8", 0)) is None
    assert bench.door.move(first, ("8.8.8.8", 0)) is None
    refusal = bench.door.move(second, ("8.8.8.8", 0))
    assert status(refusal) == 503
    assert bench.door.move(third, ("9.9.9.9", 0)) is None
    assert status(bench.enter(("9.9.9.9", 7))) == 503
    # The same one's next request is another client's.
    assert bench.door.move(first, ("7.7.7.7", 0)) is None
    assert bench.door.move(second, ("8.8.8.8", 0)) is None
    bench.door.leave(third)
    assert status(bench.enter(("9.9.9.9", 7))) is None


def test_between_requests_a_socket_counts_as_when_it_came() -> None:
    bench = Bench(None, 1)
    proxy, client = bench.enter(""), bench.enter(("8.8.8.8", 1))
    assert status(bench.door.move(proxy, ("8.8.8.8", 0))) == 503
    bench.door.leave(client)
    assert bench.door.move(proxy, ("8.8.8.8", 0)) is None
    assert status(bench.enter(("8.8.8.8", 1))) == 503
    bench.door.rest(proxy)
    client = bench.enter(("8.8.8.8", 1))
    assert status(client) is None
    bench.door.rest(client)
    assert status(bench.enter(("8.8.8.8", 2))) == 503


def test_who_was_not_let_in_is_moved_nowhere() -> None:
    bench = Bench(None, 1)
    stranger: Any = object()
    assert bench.door.move(stranger, ("8.8.8.8", 0)) is None
    bench.door.rest(stranger)
    assert status(bench.enter(("8.8.8.8", 1))) is None


def test_nothing_is_kept_of_who_has_left() -> None:
    bench = Bench(None, 5)
    inside = [bench.enter((f"10.0.0.{number}", 1)) for number in range(200)]
    for number, one in enumerate(inside):
        if number % 2:
            bench.door.move(one, (f"10.0.1.{number}", 1))
        if number % 3:
            bench.door.rest(one)
        bench.door.leave(one)
    assert not bench.door._inside
    assert not bench.door._came_for
    assert not bench.door._by_address


def test_one_warning_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(1)
    with caplog.at_level(logging.WARNING, "syncws.server"):
        for _ in range(5):
            bench.enter()
        assert caplog.messages == ["max_connections, 1, is reached: clients are refused"]
        bench.now += 10.0
        bench.enter()
        bench.enter()
    assert len(caplog.messages) == 2
