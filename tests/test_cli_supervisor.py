"""What the supervisor of `syncws serve` decides, without any process."""

from __future__ import annotations

import logging

import pytest

from syncws.cli.supervisor import (
    FIRST_DELAY,
    LONGEST_DELAY,
    MARGIN,
    MOST_FAILURES,
    STABLE,
    Phase,
    Supervisor,
)
from syncws.server.arguments import Binding

BINDING = Binding("127.0.0.1", 9090, None, 5)


class FakeHost:
    """Notes what it is told to do."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []
        self.spawned = 0
        self.error: OSError | None = None
        self.no_room: OSError | None = None

    def spawn(self, slot: int) -> int:
        if self.no_room is not None:
            raise self.no_room
        self.spawned += 1
        self.done.append(("spawn", slot))
        return self.spawned

    def open(self, binding: Binding) -> None:
        self.done.append(("open",))
        if self.error is not None:
            raise self.error

    def listen(self, pid: int, slot: int) -> None:
        self.done.append(("listen", pid, slot))

    def share(self, pid: int, slot: int) -> None:
        self.done.append(("share", pid, slot))

    def retire(self, pid: int) -> None:
        self.done.append(("retire", pid))

    def stop(self, pid: int) -> None:
        self.done.append(("stop", pid))

    def kill(self, pid: int) -> None:
        self.done.append(("kill", pid))

    def ready(self) -> None:
        self.done.append(("ready",))

    def reloading(self) -> None:
        self.done.append(("reloading",))

    def stopping(self) -> None:
        self.done.append(("stopping",))


class Fleet:
    """A supervisor, what it has done since it was asked last, and a clock to turn."""

    def __init__(self, count: int = 2, *, timeout: float = 30.0) -> None:
        self.host = FakeHost()
        self.now = 100.0
        self.it = Supervisor(self.host, count, timeout, lambda: self.now)

    def did(self) -> list[tuple[object, ...]]:
        done, self.host.done = self.host.done, []
        return done

    def up(self, pid: int) -> None:
        """A process comes up."""
        self.it.loaded(pid, BINDING)
        self.it.listening(pid)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.it.tick()


def serving(count: int = 2) -> Fleet:
    """Processes 1 to `count` serve, in slots 0 and up."""
    fleet = Fleet(count)
    fleet.it.start()
    for pid in range(1, count + 1):
        fleet.up(pid)
    assert fleet.it.phase is Phase.SERVING
    fleet.did()
    return fleet


# -- Starting ----------------------------------------------------------------


def test_the_others_are_started_once_the_first_listens() -> None:
    fleet = Fleet(3)
    fleet.it.start()
    assert fleet.did() == [("spawn", 0)]
    fleet.it.loaded(1, BINDING)
    assert fleet.did() == [("open",), ("listen", 1, 0)]
    fleet.it.listening(1)
    assert fleet.did() == [("spawn", 1), ("spawn", 2)]
    fleet.up(3)
    assert fleet.did() == [("listen", 3, 2)]  # what to listen on is known
    assert fleet.it.phase is Phase.STARTING
    fleet.up(2)
    assert fleet.did() == [("listen", 2, 1), ("ready",)]
    assert fleet.it.phase is Phase.SERVING


def test_one_process_is_enough_if_one_is_wanted() -> None:
    fleet = Fleet(1)
    fleet.it.start()
    fleet.up(1)
    assert fleet.did()[-1] == ("ready",)


@pytest.mark.parametrize(("status", "exit_status"), [(1, 1), (7, 7), (0, 1), (-11, 139)])
def test_a_first_process_that_does_not_come_up_ends_it(status: int, exit_status: int) -> None:
    fleet = Fleet()
    fleet.it.start()
    fleet.it.exited(1, status)
    assert fleet.it.phase is Phase.ENDED
    assert fleet.it.status == exit_status
    assert fleet.host.spawned == 1


def test_an_address_that_cannot_be_listened_on_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet()
    fleet.host.error = OSError(98, "cannot listen there")
    fleet.it.start()
    fleet.it.loaded(1, BINDING)
    assert fleet.did()[-2:] == [("stopping",), ("kill", 1)]
    assert "cannot listen there" in caplog.text
    fleet.it.exited(1, -9)
    assert (fleet.it.phase, fleet.it.status) == (Phase.ENDED, 1)


def test_processes_that_always_end_at_the_start_end_it() -> None:
    fleet = Fleet()
    fleet.it.start()
    fleet.up(1)
    for failures in range(1, MOST_FAILURES + 1):
        fleet.it.exited(fleet.host.spawned, 3)
        if failures < MOST_FAILURES:
            assert fleet.it.phase is Phase.STARTING
            due = fleet.it.next_due
            assert due is not None
            fleet.after(due - fleet.now)
    assert fleet.it.phase is Phase.STOPPING
    fleet.it.exited(1, -9)
    assert (fleet.it.phase, fleet.it.status) == (Phase.ENDED, 3)


# -- Deaths ------------------------------------------------------------------


def test_a_process_that_has_served_is_replaced_at_once() -> None:
    fleet = serving()
    fleet.after(STABLE)
    fleet.it.exited(2, -9)
    assert fleet.did() == [("spawn", 1)]
    fleet.up(3)
    assert ("listen", 3, 1) in fleet.did()
    assert fleet.it.next_due is None


def test_the_next_attempt_comes_later_and_later() -> None:
    fleet = serving()
    delays = []
    for _ in range(12):
        fleet.it.exited(fleet.host.spawned, 1)
        assert ("spawn", 1) not in fleet.did()
        due = fleet.it.next_due
        assert due is not None
        delays.append(due - fleet.now)
        fleet.after(delays[-1] - 0.001)
        assert fleet.did() == []
        fleet.after(0.002)
        assert fleet.did() == [("spawn", 1)]
    assert delays[0] == pytest.approx(FIRST_DELAY)
    assert delays[1] == pytest.approx(2 * FIRST_DELAY)
    assert delays[-1] == pytest.approx(LONGEST_DELAY)
    assert fleet.it.phase is Phase.SERVING  # it never gives up once all have served


def test_no_room_for_a_process_is_no_end_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    fleet = serving()
    fleet.host.no_room = BlockingIOError(11, "no more processes")
    fleet.it.exited(2, -9)
    fleet.after(FIRST_DELAY)
    assert fleet.it.phase is Phase.SERVING
    assert "no more processes" in caplog.text
    assert ("share", 1, 1) in fleet.did()
    assert fleet.it.next_due == pytest.approx(fleet.now + 2 * FIRST_DELAY)
    fleet.after(2 * FIRST_DELAY)
    fleet.host.no_room = None
    fleet.after(4 * FIRST_DELAY)
    assert fleet.did() == [("spawn", 1)]
    fleet.up(3)
    fleet.host.no_room = OSError(24, "no more descriptors")
    fleet.it.hang_up()
    assert fleet.it.pids == [1, 3]
    fleet.host.no_room = None
    fleet.after(LONGEST_DELAY)
    assert ("spawn", 0) in fleet.did()


def test_no_room_for_the_first_process_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet()
    fleet.host.no_room = OSError(24, "no more descriptors")
    fleet.it.start()
    assert (fleet.it.phase, fleet.it.status) == (Phase.ENDED, 1)
    assert "no more descriptors" in caplog.text


def test_after_a_good_while_the_next_attempt_is_at_once_again() -> None:
    fleet = serving(1)
    fleet.it.exited(1, 1)
    fleet.after(FIRST_DELAY)
    fleet.up(2)
    fleet.after(STABLE)
    fleet.did()
    fleet.it.exited(2, 1)
    assert fleet.did() == [("spawn", 0)]
    fleet.it.exited(3, 1)
    assert fleet.it.next_due == pytest.approx(fleet.now + FIRST_DELAY)


def test_another_process_accepts_for_one_that_does_not_start() -> None:
    fleet = serving(3)
    fleet.it.exited(2, 1)
    assert fleet.did() == [("share", 1, 1)]
    fleet.after(FIRST_DELAY)
    fleet.it.exited(4, 1)
    assert fleet.did() == [("spawn", 1)]  # the first still helps
    fleet.after(STABLE)
    fleet.did()
    fleet.it.exited(1, 1)
    assert ("share", 3, 1) in fleet.did()  # and now the other


def test_strangers_are_passed_over() -> None:
    fleet = serving()
    fleet.it.exited(77, 0)
    fleet.it.loaded(77, BINDING)
    fleet.it.listening(77)
    assert fleet.did() == []


# -- Reloading ---------------------------------------------------------------


def test_processes_are_replaced_one_after_another() -> None:
    fleet = serving()
    fleet.it.hang_up()
    assert fleet.did() == [("reloading",), ("spawn", 0)]
    assert fleet.it.phase is Phase.RELOADING
    fleet.it.loaded(3, BINDING)
    assert fleet.did() == [("listen", 3, 0)]  # the old one serves as well
    fleet.it.listening(3)
    assert fleet.did() == [("retire", 1), ("spawn", 1)]
    fleet.up(4)
    assert fleet.did() == [("listen", 4, 1), ("retire", 2), ("ready",)]
    assert fleet.it.phase is Phase.SERVING
    fleet.it.exited(1, 0)
    fleet.it.exited(2, 0)
    assert fleet.did() == []
    assert fleet.it.pids == [3, 4]


def test_new_code_that_does_not_start_leaves_the_old_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = serving()
    fleet.it.hang_up()
    fleet.did()
    fleet.it.exited(3, 1)
    assert fleet.did() == [("ready",)]
    assert fleet.it.phase is Phase.SERVING
    assert "the old processes go on" in caplog.text
    fleet.after(1000)
    assert fleet.did() == []
    fleet.it.hang_up()  # the next one is another matter
    assert fleet.did() == [("reloading",), ("spawn", 0)]
    fleet.up(4)
    fleet.up(5)
    assert ("retire", 2) in fleet.did()
    assert fleet.it.phase is Phase.SERVING


def test_new_code_that_starts_only_once_is_tried_again_and_again() -> None:
    fleet = serving()
    fleet.it.hang_up()
    fleet.up(3)
    fleet.did()
    fleet.it.exited(4, 1)
    assert fleet.did() == []
    fleet.after(FIRST_DELAY)
    assert fleet.did() == [("spawn", 1)]
    fleet.up(5)
    assert fleet.did() == [("listen", 5, 1), ("retire", 2), ("ready",)]


def test_a_reload_amid_a_reload_begins_again() -> None:
    fleet = serving()
    fleet.it.hang_up()
    fleet.did()
    fleet.it.hang_up()
    assert fleet.did() == [("kill", 3), ("spawn", 0)]
    fleet.it.loaded(3, BINDING)  # it was about to say so
    fleet.it.listening(3)
    fleet.it.exited(3, -9)
    assert fleet.did() == []
    fleet.up(4)
    fleet.up(5)
    names = [what[0] for what in fleet.did()]
    assert names == ["listen", "retire", "spawn", "listen", "retire", "ready"]


def test_a_second_reload_that_fails_keeps_what_the_first_has_brought() -> None:
    fleet = serving()
    fleet.it.hang_up()
    fleet.up(3)  # 2 is still of the first code
    fleet.it.hang_up()
    fleet.did()
    fleet.it.exited(5, 1)
    assert fleet.did() == [("ready",)]
    assert fleet.it.phase is Phase.SERVING


def test_an_old_process_that_dies_amid_a_reload_is_replaced() -> None:
    fleet = serving()
    fleet.after(STABLE)
    fleet.it.hang_up()
    fleet.did()
    fleet.it.exited(2, -9)
    assert fleet.did() == [("spawn", 1)]
    fleet.up(3)
    fleet.up(4)
    assert fleet.did()[-1] == ("ready",)


def test_another_address_needs_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    fleet = serving(1)
    fleet.it.hang_up()
    fleet.did()
    fleet.it.loaded(2, BINDING._replace(port=9091))
    assert fleet.did() == [("listen", 2, 0)]
    assert "needs a restart" in caplog.text


@pytest.mark.parametrize("stop", [False, True])
def test_no_reload_before_all_serve_and_after_the_end_has_begun(
    stop: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet()
    fleet.it.start()
    if stop:
        fleet.it.terminate()
    fleet.did()
    fleet.it.hang_up()
    assert fleet.did() == []
    assert "no reload while" in caplog.text


# -- The end -----------------------------------------------------------------


def test_all_are_stopped_and_waited_for() -> None:
    fleet = serving()
    fleet.it.terminate()
    assert fleet.did() == [("stopping",), ("stop", 1), ("stop", 2)]
    fleet.it.exited(2, 0)
    assert fleet.it.phase is Phase.STOPPING
    fleet.it.exited(1, 0)
    assert (fleet.it.phase, fleet.it.status) == (Phase.ENDED, 0)
    fleet.it.terminate()  # harmless
    assert fleet.host.spawned == 2


def test_the_second_time_it_ends_at_once() -> None:
    fleet = serving()
    fleet.it.terminate()
    fleet.did()
    fleet.it.terminate()
    assert fleet.did()[1:] == [("kill", 1), ("kill", 2)]
    fleet.it.exited(1, -9)
    fleet.it.exited(2, -9)
    assert (fleet.it.phase, fleet.it.status) == (Phase.ENDED, 1)


def test_who_does_not_end_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    fleet = serving()
    fleet.it.terminate()
    fleet.it.exited(1, 0)
    fleet.did()
    assert fleet.it.next_due == fleet.now + 30.0 + MARGIN
    fleet.after(30.0 + MARGIN - 0.01)
    assert fleet.did() == []
    fleet.after(0.02)
    assert fleet.did() == [("kill", 2)]
    assert "process 2 does not end" in caplog.text
    fleet.after(1000)
    assert fleet.did() == []  # once is enough


def test_who_does_not_retire_is_killed() -> None:
    fleet = serving(1)
    fleet.it.hang_up()
    fleet.up(2)
    fleet.did()
    fleet.after(30.0 + MARGIN)
    assert fleet.did() == [("kill", 1)]
    fleet.it.exited(1, -9)
    assert fleet.host.spawned == 2


def test_the_end_may_come_before_anything_listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fleet = Fleet()
    fleet.it.start()
    fleet.it.terminate()
    assert fleet.did()[-1] == ("stop", 1)
    fleet.it.loaded(1, BINDING)
    assert fleet.did() == []
    fleet.it.exited(1, 0)
    assert (fleet.it.phase, fleet.it.status) == (Phase.ENDED, 0)
