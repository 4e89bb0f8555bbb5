"""Keeps processes running: what is to be done when one is up, or ends, or a signal comes.

No process, socket or clock is touched here: a `Host` does what is decided. Each
process has a slot, and with it listening sockets. A slot has the process that
serves now and perhaps the next one, which is still coming up. What serves is
told to retire when its successor listens, and not before.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import Protocol

from ..server.arguments import Binding

__all__ = ["SAID", "Host", "Phase", "Supervisor"]

# Seconds that a process has to serve for, or its end counts as a failure to start.
STABLE = 5.0

# What a process exits with when it has printed why it cannot serve.
SAID = 78

# Such failures until the command gives up, if not all processes were up once.
MOST_FAILURES = 5

# Seconds until the next attempt after the first failure, and at the most.
FIRST_DELAY = 0.1
LONGEST_DELAY = 10.0

# Seconds that a process has beyond the graceful timeout before it is killed.
MARGIN = 5.0

_log = logging.getLogger("syncws.cli")


class Phase(enum.Enum):
    """What all processes together do."""

    STARTING = "starting"
    SERVING = "serving"
    RELOADING = "loading new code"
    STOPPING = "stopping"
    ENDED = "ended"


class Host(Protocol):
    """What acts on processes."""

    def spawn(self, slot: int) -> int:
        """Start a process that loads the module; return its id.

        Raises:
            OSError: The system has no room for one now.
        """

    def open(self, binding: Binding) -> None:
        """Have listening sockets, and say who is here; the first process has said where.

        Raises:
            OSError: That cannot be; the text says why.
        """

    def listen(self, pid: int, slot: int) -> None:
        """Have a process serve on a slot's sockets."""

    def share(self, pid: int, slot: int) -> None:
        """Have a process accept on another slot's sockets as well."""

    def retire(self, pid: int) -> None:
        """Have a process end without losing a client that has begun."""

    def stop(self, pid: int) -> None:
        """Have a process end."""

    def kill(self, pid: int) -> None:
        """End a process now."""

    def ready(self) -> None:
        """All processes listen."""

    def reloading(self) -> None:
        """New ones are on their way."""

    def stopping(self) -> None:
        """No new clients are wanted."""


class _Worker:
    """A process."""

    def __init__(self, pid: int, slot: int, generation: int) -> None:
        self.pid = pid
        self.slot = slot
        self.generation = generation  # of the code
        self.since: float | None = None  # when it began to listen
        self.kill_at: float | None = None
        self.dismissed = False  # it ends because it was told to


class _Slot:
    """A place for a process."""

    def __init__(self) -> None:
        self.current: _Worker | None = None  # listens
        self.next: _Worker | None = None  # is coming up
        self.failures = 0  # in a row
        self.not_before = 0.0  # when to try again
        self.helper: _Worker | None = None  # another slot's, which accepts meanwhile


class Supervisor:
    """The processes and what becomes of them.

    Args:
        host: Acts on processes.
        count: How many are to serve.
        graceful_timeout: Seconds that one may take to end.
        clock: Tells the time in seconds.

    Attributes:
        phase: What all of them do.
        status: The command's exit status, once it has ended.
    """

    def __init__(
        self, host: Host, count: int, graceful_timeout: float, clock: Callable[[], float]
    ) -> None:
        self._host = host
        self._patience = graceful_timeout + MARGIN
        self._clock = clock
        self._slots = [_Slot() for _ in range(count)]
        self._workers: dict[int, _Worker] = {}
        self._binding: Binding | None = None
        self._newest = 1  # the generation of the code that was loaded last
        self._wanted = 1  # the oldest generation that is to serve
        self._before = 1  # what that was before the reload
        self._proven = False  # a process of the newest generation has listened
        self.phase = Phase.STARTING
        self.status = 0

    @property
    def pids(self) -> list[int]:
        """The processes that there are, those that end included."""
        return list(self._workers)

    # -- What happens ----------------------------------------------------

    def start(self) -> None:
        """Start the first process; the others follow once that one listens."""
        self._spawn(0)

    def loaded(self, pid: int, binding: Binding) -> None:
        """A process has the listener, and this is where it was told to listen."""
        worker = self._workers.get(pid)
        if worker is None or worker.dismissed:
            return
        if self._binding is None:
            try:
                self._host.open(binding)
            except (OSError, ValueError) as exc:
                _log.error("%s", exc)
                self._end(1)
                return
            self._binding = binding
        elif self._binding != binding:
            _log.warning("the new code has another address, which needs a restart to be used")
            self._binding = binding
        self._host.listen(pid, worker.slot)

    def listening(self, pid: int) -> None:
        """A process accepts clients."""
        worker = self._workers.get(pid)
        if worker is None or worker.dismissed:
            return
        slot = self._slots[worker.slot]
        before, slot.current, slot.next = slot.current, worker, None
        worker.since = self._clock()
        slot.helper = None
        if worker.generation == self._newest:
            self._proven = True
        if before is not None:
            self._dismiss(before, self._host.retire)
        self._go_on()

    def exited(self, pid: int, status: int) -> None:
        """A process has ended; `status` is negative for a signal."""
        worker = self._workers.pop(pid, None)
        if worker is None:
            return
        slot = self._slots[worker.slot]
        if slot.current is worker:
            slot.current = None
        if slot.next is worker:
            slot.next = None
        if not worker.dismissed:
            self._died(worker, slot, status)
        self._go_on()

    def hang_up(self) -> None:
        """Load the code anew."""
        if self.phase not in (Phase.SERVING, Phase.RELOADING):
            _log.warning("no reload while %s", self.phase.value)
            return
        _log.info("loading the code anew")
        if self.phase is Phase.SERVING:
            self._host.reloading()
        self.phase = Phase.RELOADING
        self._newest += 1
        serving = [slot.current.generation for slot in self._slots if slot.current is not None]
        self._before = min(serving, default=self._wanted)
        self._wanted = self._newest
        self._proven = False
        for slot in self._slots:
            slot.not_before = 0.0
            if slot.next is not None:  # it may have read a part of the old code
                self._dismiss(slot.next, self._host.kill)
                slot.next = None
        self._go_on()

    def terminate(self) -> None:
        """End all processes; the second time at once."""
        if self.phase is Phase.STOPPING:
            _log.warning("ending at once")
            self._end(1)
        elif self.phase is not Phase.ENDED:
            _log.info("stopping")
            self.phase = Phase.STOPPING
            self._host.stopping()
            for worker in self._workers.values():
                self._dismiss(worker, self._host.stop)
            self._go_on()

    def tick(self) -> None:
        """Some time has passed."""
        now = self._clock()
        for worker in self._workers.values():
            if worker.kill_at is not None and worker.kill_at <= now:
                worker.kill_at = None
                _log.warning("process %d does not end and is killed", worker.pid)
                self._host.kill(worker.pid)
        self._go_on()

    @property
    def next_due(self) -> float | None:
        """When `tick` is to be called next."""
        times = [each.kill_at for each in self._workers.values() if each.kill_at is not None]
        now = self._clock()
        for slot in self._slots:
            if slot.next is None and slot.not_before > now and self._needs_one(slot):
                times.append(slot.not_before)
        return min(times, default=None)

    # -- What is to be done ----------------------------------------------

    def _go_on(self) -> None:
        """Start what is missing; say so if nothing is."""
        if self.phase is Phase.STOPPING or self.phase is Phase.ENDED:
            if not self._workers:
                self.phase = Phase.ENDED
            return
        self._start_missing()
        self._find_helpers()
        if self.phase is not Phase.SERVING and not any(map(self._needs_one, self._slots)):
            self.phase = Phase.SERVING
            self._host.ready()

    def _needs_one(self, slot: _Slot) -> bool:
        return slot.current is None or slot.current.generation < self._wanted

    def _start_missing(self) -> None:
        """Empty slots first; others are replaced one after another."""
        now = self._clock()
        for number, slot in enumerate(self._slots):
            first = number == 0 or self._proven or self.phase is not Phase.STARTING
            due = slot.next is None and slot.not_before <= now
            if slot.current is None and due and first:
                self._spawn(number)
        if any(slot.next for slot in self._slots):
            return
        for number, slot in enumerate(self._slots):
            if self._needs_one(slot) and slot.current is not None and slot.not_before <= now:
                self._spawn(number)
                return

    def _find_helpers(self) -> None:
        """The clients of a slot that fails to start are another process's meanwhile."""
        able = [slot.current for slot in self._slots if slot.current is not None]
        for number, slot in enumerate(self._slots):
            if slot.current is None and slot.failures and able and slot.helper not in able:
                slot.helper = able[0]
                self._host.share(able[0].pid, number)

    def _spawn(self, number: int) -> None:
        slot = self._slots[number]
        try:
            pid = self._host.spawn(number)
        except OSError as exc:
            if self.phase is Phase.STARTING and not self._proven:
                _log.error("cannot start a process: %s", exc)
                self._end(1)
            else:  # those that there are go on
                text = "cannot start a process, trying again in %.1f s: %s"
                _log.error(text, self._try_later(slot), exc)
            return
        worker = _Worker(pid, number, self._newest)
        self._workers[pid] = slot.next = worker

    def _try_later(self, slot: _Slot) -> float:
        """Note a failure; return the seconds until the next attempt."""
        slot.failures += 1
        delay: float = min(FIRST_DELAY * 2 ** min(slot.failures - 1, 20), LONGEST_DELAY)
        slot.not_before = self._clock() + delay
        return delay

    def _dismiss(self, worker: _Worker, how: Callable[[int], None]) -> None:
        worker.dismissed = True
        worker.kill_at = self._clock() + self._patience
        how(worker.pid)

    def _died(self, worker: _Worker, slot: _Slot, status: int) -> None:
        """Nobody has told it to."""
        how = f"signal {-status}" if status < 0 else f"status {status}"
        said = status == SAID
        if said:
            how, status = "see above", 1
        now = self._clock()
        if worker.since is not None and now - worker.since >= STABLE:
            _log.error("process %d has ended (%s); another one follows", worker.pid, how)
            slot.failures = 0
            return
        if worker.since is None and not self._proven and self.phase is Phase.STARTING:
            if not said:
                _log.error("the first process has ended with %s before it listened", how)
            self._end(128 - status if status < 0 else status or 1)
            return
        delay = self._try_later(slot)
        failures = sum(each.failures for each in self._slots)
        if worker.since is None and worker.generation == self._newest and not self._proven:
            self._give_up_reload(how)
        elif self.phase is Phase.STARTING and failures >= MOST_FAILURES:
            _log.error("processes end as soon as they are started (the last: %s)", how)
            self._end(128 - status if status < 0 else status or 1)
        else:
            text = "process %d has ended (%s); another one follows in %.1f s"
            _log.error(text, worker.pid, how, delay)

    def _give_up_reload(self, how: str) -> None:
        """The new code does not start; whoever serves goes on."""
        _log.error("the new code does not start (%s); the old processes go on", how)
        if self._wanted == self._newest:
            self._wanted = self._before

    def _end(self, status: int) -> None:
        self.phase = Phase.STOPPING
        self.status = status
        self._host.stopping()
        for worker in self._workers.values():
            self._dismiss(worker, self._host.kill)
        self._go_on()
