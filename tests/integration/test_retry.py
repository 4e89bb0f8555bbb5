"""Backends that are killed, refuse, and come back: nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import syncws
from tests.programs import free_port
from tests.reconnecting import Backend
from tests.support import HANG, Interpreter, Task, interpreter, wait_until

# Messages that are on their way at once, and those that are sent in the end.
_WINDOW = 50
_LAST = 300

_SOON = syncws.RetryConfig(interval=0.01)

# Acknowledges each message with its text, behind a line for it in a file.
_BACKEND = """
import sys, threading, syncws
port, path = int(sys.argv[1]), sys.argv[2]
log = open(path, "a", buffering=1)
class Acknowledging(syncws.Service):
    config = syncws.ServiceConfig(compression=False)
    def on_text(self, caller, text):
        log.write(text + "\\n")
        caller.send_text(text)
listener = syncws.Listener(port, host="127.0.0.1")
listener.attach("/", Acknowledging())
listener.start()
print("serving", listener.port)
threading.Event().wait()
"""


class _Countdown:
    """Over after so many acknowledgements."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._over = threading.Event()

    def count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._over.set()

    def wait(self) -> None:
        assert self._over.wait(HANG)


class Sender(syncws.Service):
    """Sends numbered messages, and those that were not acknowledged again behind a loss."""

    def __init__(self) -> None:
        self._next = 0
        self._messages: int | None = None  # in all, once that is known
        self._finishing = False
        self.pending: dict[int, None] = {}
        self.acknowledged: list[int] = []
        self.ends: list[str] = []
        self.attempts: list[syncws.Attempt] = []
        self.resent = 0
        self.ended = threading.Event()
        self.done = threading.Event()
        self._countdowns: list[_Countdown] = []

    def wait(self, more: int) -> None:
        """Wait until so many more messages are acknowledged."""
        countdown = _Countdown(more)
        self._countdowns.append(countdown)
        countdown.wait()

    def finish(self) -> None:
        """Come to an end some messages from now; `done` is set when all are acknowledged."""
        self._finishing = True

    def begin(self, client: syncws.Client) -> None:
        """Send the first; the others follow by themselves."""
        with contextlib.suppress(syncws.Reconnecting):
            client.send_text("-1")

    def on_text(self, client: syncws.Client, text: str) -> None:
        number = int(text)
        if number >= 0:
            self.acknowledged.append(number)
            # Were it told of twice, or of one that was never sent, this raises.
            del self.pending[number]
            for countdown in self._countdowns:
                countdown.count()
        if self._finishing and self._messages is None:
            self._messages = self._next + _LAST
        if len(self.acknowledged) == self._messages:
            self.done.set()
        while len(self.pending) < _WINDOW and self._next != self._messages:
            number, self._next = self._next, self._next + 1
            self.pending[number] = None
            client.send_text(str(number))  # Reconnecting: it is pending

    def on_reconnect(self, client: syncws.Client, attempt: syncws.Attempt) -> None:
        self.attempts.append(attempt)
        if attempt.state == "connected":
            for number in [*self.pending]:
                self.resent += 1
                client.send_text(str(number))
            if not self._next:
                self.begin(client)

    def on_error(self, client: syncws.Client, error: BaseException) -> None:
        self.ends.append(f"on_error {error!r}")

    def on_close(self, client: syncws.Client, status_code: int, reason: str) -> None:
        self.ends.append(f"on_close {status_code}")
        self.ended.set()

    def check(self) -> None:
        """Each message was acknowledged, and each acknowledgement was told of once."""
        assert self._messages is not None
        assert sorted(self.acknowledged) == list(range(self._messages))
        assert self.pending == {}


def started(stack: contextlib.ExitStack, port: int, log: Path) -> Interpreter:
    """Start a backend on this port."""
    process = stack.enter_context(interpreter(_BACKEND, str(port), str(log)))
    assert process.line() == f"serving {port}"
    return process


def kill(process: Interpreter) -> None:
    process.process.kill()
    process.process.wait(HANG)


def test_a_backend_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "log"
    sender = Sender()
    with contextlib.ExitStack() as stack:
        process = started(stack, port, log)
        client = syncws.Client(
            f"ws://127.0.0.1:{port}/", service=sender, retry=_SOON, compression=False
        )
        mine = client.id
        sender.begin(client)
        for _ in range(3):
            sender.wait(300)
            kill(process)
            process = started(stack, port, log)
        sender.finish()
        assert sender.done.wait(HANG)
        assert sender.ends == []
        assert client.id == mine
        client.close()
        assert sender.ended.wait(HANG)
    sender.check()
    assert sender.ends == ["on_close 1000"]
    assert [attempt.state for attempt in sender.attempts].count("connected") == 3
    assert sender.resent > 0
    assert {int(line) for line in log.read_text().split()} >= set(sender.acknowledged)


def test_backends_that_are_killed_one_after_the_other(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    log = tmp_path / "log"
    sender = Sender()
    with contextlib.ExitStack() as stack:
        processes = [started(stack, port, log) for port in ports]
        urls = [f"ws://127.0.0.1:{port}/" for port in ports]
        client = syncws.FailoverClient(
            urls, failover_interval=0.0, service=sender, compression=False
        )
        sender.begin(client)
        for process in processes[:2]:
            sender.wait(300)
            kill(process)
        sender.finish()
        assert sender.done.wait(HANG)
        assert client.url == urls[2]
        # And a round without success is the end.
        kill(processes[2])
        assert sender.ended.wait(HANG)
        client.close()
    sender.check()
    connected = [attempt.url for attempt in sender.attempts if attempt.state == "connected"]
    assert connected == urls[1:]
    error, close = sender.ends
    assert error.startswith("on_error RetriesExhausted(")
    for url in urls:
        assert error.count(url) == 1
    assert close == "on_close 1006"
    assert sender.resent > 0


def test_a_blocking_client_survives_the_death_of_its_backend(tmp_path: Path) -> None:
    """Each request is made again until it is answered."""
    port = free_port()
    log = tmp_path / "log"
    retry = syncws.RetryConfig(interval=0.01, wait_to_send=True)
    # Who asks is never far ahead of who kills.
    answers: queue.Queue[str] = queue.Queue(maxsize=1)

    def ask(client: syncws.Client) -> None:
        for number in range(60):
            while True:
                with contextlib.suppress(syncws.Reconnecting, syncws.ReceiveTimeout):
                    client.send_text(str(number))
                    # The answer may be that to the same request before.
                    while int(answer := client.receive_text(timeout=0.5)) < number:
                        pass
                    break
            answers.put(answer, timeout=HANG)

    got = []
    with contextlib.ExitStack() as stack:
        process = started(stack, port, log)
        client = stack.enter_context(syncws.Client(f"ws://127.0.0.1:{port}/", retry=retry))
        asking = Task(ask, client)
        for turn in range(3):
            got += [answers.get(timeout=HANG) for _ in range(20)]
            if turn < 2:
                kill(process)
                process = started(stack, port, log)
        asking.result()
    assert got == [str(number) for number in range(60)]


def test_a_client_that_is_there_before_its_backend(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    log = tmp_path / "log"
    sender = Sender()
    with contextlib.ExitStack() as stack:
        url = f"ws://127.0.0.1:{port}/"
        opening = Task(
            syncws.FailoverClient,
            [url, f"{url}other"],
            service=sender,
            failover_interval=0.01,
            retry=syncws.RetryConfig(max_count=1000, interval=0.01),
        )
        wait_until(lambda: f"{url}: connecting with 127.0.0.1 port {port} failed" in caplog.text)
        started(stack, port, log)
        client = opening.result()
        sender.begin(client)
        sender.finish()
        assert sender.done.wait(HANG)
        client.close()
        assert sender.ended.wait(HANG)
    sender.check()


# Loses its connection, and is refused as often as it is told. It counts what
# there is amid that and at the end.
_RETRIES = """
import gc, json, logging, os, sys, threading, time
logging.getLogger("syncws").setLevel(logging.CRITICAL)
import syncws
sys.path.insert(0, os.getcwd())
from tests.reconnecting import Backend
number = int(sys.argv[1])
figures = []
def count(client):
    gc.collect()
    loop = client._link._loop
    figures.append({
        "objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "timers": len(loop._timers),
        "handlers": len(loop._handlers),
    })
ended = threading.Event()
class Service(syncws.Service):
    next = number // 10
    calls = 0
    def on_reconnect(self, client, attempt):
        self.calls += 1
        if attempt.number >= self.next and attempt.state == "waiting":
            count(client)
            self.next = max(self.next, attempt.number) + number // 5
    def on_error(self, client, error):
        count(client)
        figures.append({"attempts": error.attempts, "reasons": len(error.reasons)})
    def on_close(self, client, status_code, reason):
        ended.set()
with Backend() as backend:
    service = Service()
    opened = []
    def open_it():
        retry = syncws.RetryConfig(max_count=number, interval=0.0)
        # What waits for the callback is no leak, and little.
        options = dict(service=service, retry=retry, ping_interval=None, receive_queue_size=8)
        opened.append(syncws.Client(backend.url, **options))
    opening = threading.Thread(target=open_it)
    opening.start()
    peer = backend.answered()
    opening.join()
    backend.refuse()
    began = time.monotonic()
    peer.abort()
    ended.wait()
    took = time.monotonic() - began
    client = opened.pop()
    client.close()
    print(json.dumps({"figures": figures, "calls": service.calls, "took": took}))
    syncws.default_engine().reap()
    print("left", [thread.name for thread in threading.enumerate()][1:])
"""


def test_ten_thousand_retries_leave_nothing_behind() -> None:
    with interpreter(_RETRIES, "10000") as process:
        found = json.loads(process.line())
        assert process.line() == "left []"
        code, errors = process.end()
        assert (code, errors) == (0, "")
    *figures, verdict = found["figures"]
    assert verdict == {"attempts": 10_000, "reasons": 1}
    assert found["calls"] >= 100
    first, *others = figures
    assert len(others) >= 3
    for later in others:
        for name in ("descriptors", "threads", "timers", "handlers"):
            # An attempt is under way, or is not.
            assert later[name] <= first[name] + 4, (name, figures)
        assert later["objects"] <= first["objects"] + 400, figures
        assert later["blocks"] <= first["blocks"] + 1500, figures


def test_many_clients_wait_without_threads() -> None:
    """As many as lose the same server at once."""
    engine = syncws.Engine(workers=2, max_workers=8)
    later = syncws.RetryConfig(interval=1000.0, max_interval=2000.0)
    number = 50
    lost: queue.Queue[syncws.Attempt] = queue.Queue()

    class Waiting(syncws.Service):
        def on_reconnect(self, client: syncws.Client, attempt: syncws.Attempt) -> None:
            lost.put(attempt)

    with Backend() as backend, contextlib.ExitStack() as stack:
        peers = []
        service = Waiting()
        for _ in range(number):
            opening = Task(syncws.Client, backend.url, service=service, retry=later, engine=engine)
            peers.append(stack.enter_context(backend.answered()))
            stack.callback(close_at_once(opening.result()))
        for peer in peers:
            peer.abort()
        waits = {lost.get(timeout=HANG).wait for _ in range(number)}
        assert len(waits) > number * 0.9  # jitter: not all come back at once
        assert engine.stats().users == number
        assert engine.stats().threads <= 8
        assert len([t for t in threading.enumerate() if t.name.startswith("syncws")]) <= 9


def close_at_once(client: syncws.Client) -> Callable[[], None]:
    return lambda: client.close(timeout=0)
