"""Connections that send and wait for the answer, and what they measure.

Threads: callbacks run in workers, one at a time for each connection; `Load`
belongs to the thread that runs it, but for `stop`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ...client.client import Client
from ...engine.engine import Engine
from ...errors import ConnectError, HandshakeRejected, WebSocketError
from ...service import Service
from .histogram import Histogram

__all__ = ["Load", "Plan", "Result"]

# Connections that are made at the same time.
_AT_ONCE = 32

# Seconds between two calls of what shows the progress.
_TICK = 0.1


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        url: Of what.
        payload: What is sent: text or bytes.
        connections: How many.
        duration: Seconds of measuring.
        messages: Messages in all after which it ends early; None: no limit.
        warmup: Seconds before it.
        depth: Messages under way on each connection.
        rate: Messages a second, of all connections; None: as fast as the answers come.
        timeout: Seconds for the answers that are out at the end.
    """

    url: str
    payload: str | bytes
    connections: int = 10
    duration: float = 10.0
    messages: int | None = None
    warmup: float = 1.0
    depth: int = 1
    rate: float | None = None
    timeout: float = 5.0


@dataclass
class Result:
    """What was measured.

    Attributes:
        made: Connections that were made.
        refused: How many of the others were answered with another status.
        errors: What went wrong, and how often.
        seconds: How long was measured.
        unanswered: Messages whose answer has not come at the end.
        latency: From when a message was to be sent to its answer.
        connecting: How long each connection took.
        cpu: Cores that this process has used meanwhile.
        stopped: Whether somebody has ended it early.
    """

    made: int = 0
    refused: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    unanswered: int = 0
    latency: Histogram = field(default_factory=Histogram)
    connecting: Histogram = field(default_factory=Histogram)
    cpu: float = 0.0
    stopped: bool = False

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.latency.count / self.seconds if self.seconds else 0.0


class _Player(Service):
    """One connection."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.client: Client | None = None
        self.histogram = Histogram()
        self.out: deque[float] = deque()  # when the messages under way were to be sent
        self.ended = False

    def send(self, when: float) -> None:
        """Send a message that was due at a time."""
        client, payload = self.client, self._load.plan.payload
        assert client is not None
        self.out.append(when)
        try:
            if isinstance(payload, str):
                client.send_text(payload)
            else:
                client.send_binary(payload)
        except WebSocketError as exc:
            self.out.pop()
            if not self.ended:
                self._load.failed(type(exc).__name__)

    def on_text(self, client: Any, data: str) -> None:
        self._answered()

    def on_binary(self, client: Any, data: bytes) -> None:
        self._answered()

    def _answered(self) -> None:
        now = time.monotonic()
        if not self.out:
            return  # nobody has asked for it: a greeting
        when = self.out.popleft()
        load = self._load
        if load.measuring:
            self.histogram.add(now - when)
        if load.going and load.plan.rate is None:
            self.send(now)

    def on_error(self, client: Any, error: Exception) -> None:
        self._load.failed(f"{type(error).__name__}: {error}")

    def on_close(self, client: Any, status_code: int, reason: str) -> None:
        self.ended = True
        if self._load.going:
            self._load.failed(f"closed with {status_code} {reason}".rstrip())


class Load:
    """Puts load on a server.

    Args:
        plan: What is to be done.
        options: Those of the clients.

    Attributes:
        going: Messages are sent.
        measuring: Answers count.
    """

    def __init__(self, plan: Plan, **options: Any) -> None:
        self.plan = plan
        self.going = self.measuring = False
        self._options = options
        self._engine = Engine(workers=2, max_workers=16, name="bench")
        self._players: list[_Player] = []
        self._result = Result()
        self._lock = threading.Lock()  # guards errors
        self._stop = threading.Event()

    def stop(self) -> None:
        """End early, with what was measured so far."""
        self._result.stopped = True
        self._stop.set()

    def failed(self, what: str) -> None:
        """Count an error. Any thread."""
        with self._lock:
            self._result.errors[what] += 1

    def answers(self) -> int:
        """How many answers have come since measuring began."""
        return sum(player.histogram.count for player in self._players)

    def run(self, on_tick: Callable[[str, float], None]) -> Result:
        """Do it all; return what was measured.

        Args:
            on_tick: Called ten times a second with what is being done and the
                part of it that is done.
        """
        result = self._result
        try:
            self._connect(on_tick)
            if self._players and not self._stop.is_set():
                self._play(on_tick)
        finally:
            self.going = self.measuring = False
            for player in self._players:
                if player.client is not None:
                    player.client.close(timeout=0)
            for player in self._players:
                if player.client is not None:
                    player.client.wait_closed(self.plan.timeout)
            self._engine.reap()
        result.made = len(self._players)
        result.latency = Histogram.sum(player.histogram for player in self._players)
        return result

    # -- Connecting ------------------------------------------------------

    def _connect(self, on_tick: Callable[[str, float], None]) -> None:
        count = self.plan.connections
        with ThreadPoolExecutor(min(_AT_ONCE, count)) as pool:
            waiting = [pool.submit(self._open) for _ in range(count)]
            try:
                while (done := sum(one.done() for one in waiting)) < count:
                    on_tick("connecting", done / count)
                    if self._stop.wait(_TICK):
                        break
            finally:
                for one in waiting:
                    one.cancel()
        for one in waiting:
            if not one.cancelled():
                one.result()  # raises what is wrong with the arguments

    def _open(self) -> None:
        player = _Player(self)
        began = time.monotonic()
        try:
            client = Client(self.plan.url, service=player, engine=self._engine, **self._options)
        except ConnectError as exc:
            with self._lock:
                self._result.refused += isinstance(exc, HandshakeRejected)
            self.failed(str(exc))
            return
        player.client = client
        with self._lock:
            self._result.connecting.add(time.monotonic() - began)
            self._players.append(player)

    # -- Sending ---------------------------------------------------------

    def _play(self, on_tick: Callable[[str, float], None]) -> None:
        plan = self.plan
        self.going = True
        pacing = None
        if plan.rate is not None:
            pacing = threading.Thread(target=self._pace, args=(plan.rate,), name="bench-pace")
            pacing.start()
        else:
            for player in self._players:
                for _ in range(plan.depth):
                    player.send(time.monotonic())
        try:
            self._wait("warming up", plan.warmup, None, on_tick)
            self.measuring = True
            began, used = time.monotonic(), _cpu()
            self._wait("measuring", plan.duration, plan.messages, on_tick)
            self._result.seconds = time.monotonic() - began
            self._result.cpu = (_cpu() - used) / max(self._result.seconds, 1e-9)
        finally:
            self.going = False
            self._stop.set()
            if pacing is not None:
                pacing.join()
        self.measuring = False
        self._drain()

    def _wait(
        self,
        what: str,
        seconds: float,
        messages: int | None,
        on_tick: Callable[[str, float], None],
    ) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            gone = time.monotonic() - began
            part = gone / seconds if seconds else 1.0
            if messages is not None:
                part = max(part, self.answers() / messages)
            on_tick(what, min(part, 1.0))
            if part >= 1.0 or all(player.ended for player in self._players):
                return
            self._stop.wait(min(_TICK, seconds - gone))

    def _drain(self) -> None:
        """Give the answers that are out their time."""
        never = threading.Event()
        deadline = time.monotonic() + self.plan.timeout
        with contextlib.suppress(KeyboardInterrupt):
            while time.monotonic() < deadline and self._missing():
                never.wait(0.01)
        self._result.unanswered = self._missing()

    def _missing(self) -> int:
        return sum(len(player.out) for player in self._players)

    def _pace(self, rate: float) -> None:
        """Send when it is time, whether or not the answers have come."""
        began = time.monotonic()
        for number in itertools.count():
            due = began + number / rate
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            self._players[number % len(self._players)].send(due)


def _cpu() -> float:
    """Seconds of processor time that this process has used."""
    used = os.times()
    return used.user + used.system
