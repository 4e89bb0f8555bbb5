"""How long a client may take."""

from __future__ import annotations

import pytest

from syncws.server.allowance import Allowance


def test_nothing_moves() -> None:
    allowance = Allowance(30.0)
    assert allowance.update(True, 0, 100.0) == 130.0
    assert allowance.update(True, 0, 120.0) == 130.0


def test_each_byte_gives_time_but_a_trickle_does_not_go_on_for_ever() -> None:
    allowance = Allowance(30.0)
    now, size, due = 0.0, 0, allowance.update(True, 0, 0.0)
    while due is not None and now < due:
        now += 1.0
        size += 512
        due = allowance.update(True, size, now)
    assert now == 60.0  # 30 s and half a second for each


def test_what_keeps_up_may_go_on() -> None:
    allowance = Allowance(30.0)
    for now in range(1000):
        due = allowance.update(True, now * 1024, float(now))
        assert due == now + 30.0


def test_much_at_first_buys_no_long_silence() -> None:
    allowance = Allowance(30.0)
    allowance.update(True, 0, 0.0)
    assert allowance.update(True, 100_000_000, 1.0) == 31.0
    assert allowance.update(True, 100_000_000, 20.0) == 31.0


def test_time_counts_only_while_the_client_is_waited_for() -> None:
    allowance = Allowance(30.0)
    assert allowance.update(True, 0, 0.0) == 30.0
    assert allowance.update(False, 0, 20.0) is None
    assert allowance.update(False, 0, 500.0) is None
    assert allowance.update(True, 0, 1000.0) == 1010.0  # what was left
    assert allowance.update(True, 1024, 1005.0) == 1011.0


@pytest.mark.parametrize("waiting", [True, False])
def test_no_limit(waiting: bool) -> None:
    assert Allowance(None).update(waiting, 0, 1.0) is None
