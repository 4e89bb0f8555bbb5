"""The times of a connection: no clock here but the numbers that are passed in."""

from __future__ import annotations

import pytest

from syncws.config import ConnectionConfig
from syncws.engine.watch import Due, Watch


def watch(**options: float | None) -> Watch:
    """Return one that begins at 100.0, and watches nothing but what is asked for."""
    settings: dict[str, float | None] = {"ping_interval": None, "idle_timeout": None, **options}
    return Watch(ConnectionConfig(**settings), 100.0)  # type: ignore[arg-type]


def check(watched: Watch, now: float, *, quiet: bool = True, reading: bool = True) -> list[Due]:
    return watched.check(now, quiet=quiet, reading=reading)


def test_nothing_is_due_by_itself() -> None:
    watched = watch()
    assert watched.next_due() is None
    assert check(watched, 1e9) == []


# -- Idleness ----------------------------------------------------------------


def test_idleness_is_due_after_each_period() -> None:
    watched = watch(idle_timeout=10.0)
    assert watched.next_due() == 110.0
    assert check(watched, 109.9) == []
    assert check(watched, 110.0) == [Due.IDLE]
    assert watched.next_due() == 120.0
    assert check(watched, 119.9) == []
    assert check(watched, 120.5) == [Due.IDLE]
    assert watched.next_due() == 130.5


def test_a_message_puts_idleness_off() -> None:
    watched = watch(idle_timeout=10.0)
    watched.last_message = 107.0
    assert check(watched, 110.0) == []
    assert watched.next_due() == 117.0
    assert check(watched, 117.0) == [Due.IDLE]


def test_a_message_that_waits_is_no_idleness() -> None:
    watched = watch(idle_timeout=10.0)
    assert check(watched, 115.0, quiet=False) == []
    assert watched.next_due() == 125.0


# -- Keepalive ---------------------------------------------------------------


def test_pings_come_at_the_interval() -> None:
    watched = watch(ping_interval=20.0, ping_timeout=None)
    assert watched.next_due() == 120.0
    assert check(watched, 119.0) == []
    assert check(watched, 120.0) == [Due.PING]
    assert watched.next_due() == 140.0
    watched.ping(120.0)
    assert check(watched, 140.0) == [Due.PING]


def test_a_pong_tells_the_latency() -> None:
    watched = watch(ping_interval=20.0, ping_timeout=5.0)
    assert watched.latency is None
    data = watched.ping(120.0)
    assert watched.next_due() == 120.0  # check was not called: the ping is still due
    assert watched.pong(data, 120.25)
    assert watched.latency == 0.25
    assert not watched.pong(data, 121.0), "one ping has one pong"


@pytest.mark.parametrize("data", [b"", b"other"])
def test_other_pongs_are_not_ours(data: bytes) -> None:
    watched = watch(ping_interval=20.0)
    assert not watched.pong(data, 120.0)
    watched.ping(120.0)
    assert not watched.pong(data, 121.0)
    assert watched.latency is None


def test_each_ping_has_a_payload_of_its_own() -> None:
    watched = watch(ping_interval=20.0)
    assert watched.ping(120.0) != watched.ping(140.0)


def test_silence_after_a_ping_is_a_loss() -> None:
    watched = watch(ping_interval=20.0, ping_timeout=5.0)
    assert check(watched, 120.0) == [Due.PING]
    watched.ping(120.0)
    assert watched.next_due() == 125.0
    assert check(watched, 124.9) == []
    assert check(watched, 125.0) == [Due.LOST]


def test_any_byte_is_a_sign_of_life() -> None:
    watched = watch(ping_interval=20.0, ping_timeout=5.0)
    assert check(watched, 120.0) == [Due.PING]
    watched.ping(120.0)
    watched.alive = True
    assert check(watched, 125.0) == []
    assert watched.next_due() == 140.0


def test_what_came_before_the_ping_does_not_count() -> None:
    watched = watch(ping_interval=20.0, ping_timeout=5.0)
    watched.alive = True
    assert check(watched, 120.0) == [Due.PING]
    watched.ping(120.0)
    assert check(watched, 125.0) == [Due.LOST]


def test_while_nothing_is_read_silence_says_nothing() -> None:
    watched = watch(ping_interval=20.0, ping_timeout=5.0)
    check(watched, 120.0)
    watched.ping(120.0)
    assert check(watched, 125.0, reading=False) == []
    assert watched.next_due() == 130.0
    assert check(watched, 130.0) == [Due.LOST]


def test_no_ping_while_one_is_out() -> None:
    watched = watch(ping_interval=2.0, ping_timeout=5.0)
    assert check(watched, 102.0) == [Due.PING]
    watched.ping(102.0)
    assert check(watched, 104.0) == []
    assert check(watched, 106.0) == []
    assert check(watched, 107.0) == [Due.LOST]


# -- The end -----------------------------------------------------------------


def test_relaxed_it_watches_the_end_only() -> None:
    watched = watch(idle_timeout=10.0, ping_interval=20.0, ping_timeout=5.0)
    watched.ping(100.0)
    watched.relax()
    assert watched.next_due() is None
    assert watched.idle_timeout is None
    watched.end_by(103.0)
    assert check(watched, 102.0) == []
    assert check(watched, 103.0) == [Due.CUT]


def test_the_earlier_end_counts() -> None:
    watched = watch()
    watched.end_by(110.0)
    watched.end_by(105.0)
    watched.end_by(120.0)
    assert watched.next_due() == 105.0


def test_an_answer_is_due_once_and_not_at_the_end() -> None:
    watched = watch()
    watched.answer_by(100.5)
    assert check(watched, 100.4) == []
    assert check(watched, 100.5) == [Due.ANSWER]
    assert check(watched, 101.0) == []
    watched.answer_by(102.0)
    watched.end_by(110.0)
    assert check(watched, 103.0) == []


def test_the_cut_comes_alone() -> None:
    watched = watch(idle_timeout=1.0, ping_interval=1.0)
    watched.end_by(105.0)
    assert check(watched, 105.0) == [Due.CUT]
