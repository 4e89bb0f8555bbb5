"""The times of a connection: no clock here but the numbers that are passed in."""

from __future__ import annotations

import pytest

from syncws.config import ConnectionConfig
from syncws.engine.watch import Due, Watch


def watch(**options: float | None) -> Watch:
    """Return one that begins to read at 100.0, and watches nothing but what is asked for."""
    settings: dict[str, float | None] = {
        "ping_interval": None,
        "idle_timeout": None,
        "message_timeout": None,
        **options,
    }
    watched = Watch(ConnectionConfig(**settings), 100.0)  # type: ignore[arg-type]
    watched.resume(100.0)
    return watched


def check(watched: Watch, now: float, *, quiet: bool = True) -> list[Due]:
    return watched.check(now, quiet=quiet)


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


def test_a_pong_answers_the_pings_before_it_too() -> None:
    watched = watch(ping_interval=2.0, ping_timeout=5.0)
    first = watched.ping(102.0)
    watched.alive = True
    second = watched.ping(104.0)
    assert watched.pong(second, 107.0)
    assert watched.latency == 3.0
    assert not watched.pong(first, 108.0)
    assert check(watched, 120.0) == [Due.PING], "and nothing is lost"


def test_a_late_pong_leaves_the_later_ping_unanswered() -> None:
    watched = watch(ping_interval=None, ping_timeout=5.0)
    first = watched.ping(102.0)
    watched.ping(104.0)
    assert watched.pong(first, 108.0)
    assert watched.latency == 6.0
    assert check(watched, 109.0) == [Due.LOST]


def test_pings_that_nobody_answers_are_forgotten_in_the_end() -> None:
    watched = watch(ping_interval=2.0, ping_timeout=5.0)
    first, *_, last = [watched.ping(float(now)) for now in range(102, 112)]
    assert not watched.pong(first, 120.0)
    assert watched.pong(last, 120.0)


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
    watched.pause(121.0)
    assert check(watched, 125.0) == []
    assert watched.next_due() == 140.0, "when a ping would be due"
    assert check(watched, 140.0) == [], "but one is out"
    watched.resume(150.0)
    assert watched.next_due() == 154.0, "1 of 5 seconds had passed"
    assert check(watched, 153.9) == []
    assert check(watched, 154.0) == [Due.LOST]


def test_a_ping_that_is_sent_while_nothing_is_read_has_its_whole_time() -> None:
    watched = watch(ping_interval=20.0, ping_timeout=5.0)
    watched.pause(110.0)
    assert check(watched, 120.0) == [Due.PING]
    watched.ping(120.0)
    watched.resume(200.0)
    assert check(watched, 204.9) == []
    assert check(watched, 205.0) == [Due.LOST]


def test_pause_and_resume_are_harmless_twice() -> None:
    watched = watch(ping_interval=None, ping_timeout=5.0)
    watched.ping(120.0)
    watched.pause(121.0)
    watched.pause(123.0)
    watched.resume(124.0)
    watched.resume(130.0)
    assert watched.next_due() == 128.0


def test_a_pause_is_no_idleness() -> None:
    watched = watch(idle_timeout=10.0)
    watched.pause(105.0)
    assert check(watched, 110.0) == []
    assert check(watched, 120.0) == []
    watched.resume(121.0)
    assert check(watched, 130.0) == [Due.IDLE]


@pytest.mark.parametrize(("interval", "timeout"), [(20.0, 5.0), (5.0, 20.0), (7.0, 7.0)])
@pytest.mark.parametrize("last_byte", [0.5, 3.0, 19.0, 42.0])
@pytest.mark.parametrize("chatty", [False, True])
def test_a_lost_peer_is_known_within_interval_and_timeout(
    interval: float, timeout: float, last_byte: float, chatty: bool
) -> None:
    """Whether it answered pings until then or only sent messages."""
    watched = watch(ping_interval=interval, ping_timeout=timeout)
    end = 100.0 + last_byte
    if chatty:
        now = 100.0
        while now < end:  # something comes every quarter of a second
            now += 0.25
            watched.alive = True
            for due in check(watched, now):
                assert due is Due.PING
                watched.ping(now)
        watched.alive = True
    while (due_at := watched.next_due()) is not None and due_at < end:
        for due in check(watched, due_at):
            assert due is Due.PING
            watched.pong(watched.ping(due_at), due_at)
    watched.alive = True
    while True:
        now = watched.next_due() or 0.0
        dues = check(watched, now)
        if Due.LOST in dues:
            break
        if Due.PING in dues:
            watched.ping(now)
    assert end < now <= end + interval + timeout


def test_no_ping_while_one_is_out() -> None:
    watched = watch(ping_interval=2.0, ping_timeout=5.0)
    assert check(watched, 102.0) == [Due.PING]
    watched.ping(102.0)
    assert check(watched, 104.0) == []
    assert check(watched, 106.0) == []
    assert check(watched, 107.0) == [Due.LOST]


# -- Slow messages -----------------------------------------------------------


def test_a_message_has_its_time_from_its_beginning() -> None:
    watched = watch(message_timeout=30.0)
    assert not watched.in_message
    assert watched.begin_message(110.0, 0)
    assert watched.in_message
    assert watched.next_due() == 140.0
    assert check(watched, 139.9) == []
    assert check(watched, 140.0) == [Due.SLOW]


def test_each_kib_gives_a_message_a_second() -> None:
    watched = watch(message_timeout=30.0)
    watched.came(500)
    watched.begin_message(110.0, 600)
    watched.came(500)
    watched.came(1048)
    assert check(watched, 140.0) == []
    assert watched.next_due() == 142.0
    watched.came(512)
    assert check(watched, 142.0) == []
    assert check(watched, 142.5) == [Due.SLOW]


def test_what_is_here_counts_as_far_as_it_has_come() -> None:
    watched = watch(message_timeout=30.0)
    watched.came(1024)
    watched.begin_message(110.0, 1_000_000)
    assert check(watched, 140.0) == []
    assert check(watched, 141.0) == [Due.SLOW]


def test_what_is_none_of_the_message_takes_nothing_from_it() -> None:
    watched = watch(message_timeout=30.0)
    watched.begin_message(110.0, 0)
    watched.came_beside(2048)
    assert check(watched, 139.9) == []
    assert check(watched, 140.0) == [Due.SLOW]


def test_what_a_message_inflates_to_gives_it_no_time() -> None:
    """Nor does what came before it, however much that was."""
    watched = watch(message_timeout=30.0)
    watched.came(1_000_000)
    watched.came(1024)
    watched.begin_message(110.0, 100_000)
    assert check(watched, 140.0) == []
    assert check(watched, 141.0) == [Due.SLOW]


def test_the_next_message_begins_anew() -> None:
    watched = watch(message_timeout=30.0)
    watched.begin_message(110.0, 0)
    watched.came(1_000_000)
    watched.end_message()
    assert watched.next_due() is None
    watched.begin_message(120.0, 0)
    assert check(watched, 150.0) == [Due.SLOW]


def test_a_message_stands_still_while_nothing_is_read() -> None:
    watched = watch(message_timeout=30.0)
    watched.begin_message(110.0, 0)
    watched.pause(120.0)
    assert watched.next_due() is None
    assert check(watched, 500.0) == []
    watched.resume(500.0)
    assert check(watched, 519.9) == []
    assert check(watched, 520.0) == [Due.SLOW]


def test_without_message_timeout_no_message_is_slow() -> None:
    watched = watch(message_timeout=None)
    assert not watched.begin_message(110.0, 0)
    assert watched.in_message
    assert watched.next_due() is None


# -- The end -----------------------------------------------------------------


def test_relaxed_it_watches_the_end_only() -> None:
    watched = watch(idle_timeout=10.0, ping_interval=20.0, ping_timeout=5.0, message_timeout=3.0)
    watched.ping(100.0)
    watched.begin_message(100.0, 0)
    watched.relax()
    assert not watched.begin_message(101.0, 0)
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
