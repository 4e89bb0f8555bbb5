"""The clients' process: those with callbacks on one engine, and blocking ones on a few threads.

It prints what it has to say as `child.Control` does. Its first line of input
has the server's addresses; then it obeys the orders "finish" and "quit".
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import queue
import random
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import syncws

from .blocking import Blocking
from .child import Control, State, wait_until
from .figures import Histogram
from .ledger import End
from .message import Kind, Stock
from .server import TLS, cut

__all__ = ["Dialling", "Peer"]

# Threads that open connections.
_OPENERS = 8

# Seconds between turns of the thread that sends.
_TICK = 0.02

# What a client may have under way: bytes that wait, and echoes that are awaited.
_WAITING = 65_536
_AWAITED = 40

# How connections end, and how many of a hundred.
_PLANS = {
    "drained": 35,
    "close": 20,
    "server close": 20,
    "cross": 5,
    "abort": 10,
    "server abort": 10,
}

# What is served to how many of a hundred, beside the group.
_SERVICES = {"echo": 90, "parts": 8, "slow": 2}


class Peer:
    """A client with callbacks. Its conductor alone sends."""

    def __init__(self, end: End, client: syncws.Client) -> None:
        self.end = end
        self.client = client
        self.index = -1  # among those that are sent to
        self.asked = 0  # echoes
        self.answered = 0
        self.pings: collections.deque[bytes] = collections.deque(maxlen=64)
        self.deadline = 0.0  # when it must have ended

    def act(self, stock: Stock, dice: random.Random) -> None:
        """Send something."""
        pick = dice.random()
        if self.client.buffered_amount > _WAITING or self.asked - self.answered > _AWAITED:
            return
        if pick < 0.05:
            self.end.send_empty(self.client, text=pick < 0.025)
        elif pick < 0.08:
            data = dice.randbytes(dice.randint(0, 125))
            self.pings.append(data)
            try:
                self.client.ping(data)
            except syncws.ConnectionClosed:
                pass  # its on_close says more
        elif pick < 0.1:
            self.end.send(self.client, Kind.BURST, str(dice.randint(1, 12)))
        else:
            body = stock.body()
            parts = dice.randint(2, 5) if len(body) > 20 and dice.random() < 0.1 else 1
            self.ask(body, parts)

    def ask(self, body: str | bytes, parts: int = 1) -> None:
        """Send what is to be answered."""
        self.asked += self.end.send(
            self.client, Kind.ECHO, body, stamp=time.monotonic(), parts=parts
        )

    def finish(self, plan: str, stock: Stock, dice: random.Random) -> None:
        """Begin to end it."""
        end, client = self.end, self.client
        end.plan = plan
        code = dice.choice((1000, 1001, 3000, 4999))
        end.expected = code
        if plan != "server close" and dice.random() < 0.5:
            for _ in range(dice.randint(1, 6)):
                self.ask(stock.body(dice.randint(0, 4000)))
        if plan == "drained":
            end.send(client, Kind.FIN, str(code))
        elif plan in ("server close", "cross"):
            end.send(client, Kind.CLOSE_ME, str(code))
        elif plan == "server abort":
            end.send(client, Kind.ABORT_ME, dice.choice((b"reset", b"")))
        if plan in ("close", "cross"):
            end.closed = True
            client.close(code, "the client closes", timeout=0)
        elif plan == "abort":
            end.closed = True
            cut(client, reset=dice.random() < 0.5)


class Listening(syncws.Service):
    """The callbacks of all of them."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def on_text(self, client: syncws.Client, text: str) -> None:
        self._got(client, text)

    def on_binary(self, client: syncws.Client, data: bytes) -> None:
        self._got(client, data)

    def _got(self, client: syncws.Client, data: str | bytes) -> None:
        peer: Peer = client.attributes["peer"]
        message = peer.end.take(data)
        if message is None:
            return
        if message.kind == Kind.REPLY:
            peer.answered += 1
            self._crew.latency.add(time.monotonic() - message.stamp)
        elif message.kind == Kind.FINACK:
            peer.end.drained = peer.end.closed = True
            client.close(int(message.body), "drained", timeout=0)

    def on_pong(self, client: syncws.Client, data: bytes) -> None:
        peer: Peer = client.attributes["peer"]
        # A pong may stand for earlier pings as well: RFC 6455 section 5.5.3.
        while peer.pings:
            if peer.pings.popleft() == data:
                return
        self._crew.control.problem("pong: one that answers no ping")

    def on_error(self, client: syncws.Client, error: BaseException) -> None:
        client.attributes["peer"].end.error = type(error).__name__

    def on_close(self, client: syncws.Client, status_code: int, reason: str) -> None:
        peer: Peer = client.attributes["peer"]
        peer.end.code, peer.end.reason = status_code, reason
        self._crew.closed.put(peer)


class Dialling:
    """Where to connect to, and with what options."""

    def __init__(self, control: Control, addresses: Sequence[tuple[str, int]], base: int) -> None:
        self._plain = [one for one in addresses if one[0] not in TLS]
        self._secure = [one for one in addresses if one[0] in TLS]
        self._tls = ssl.create_default_context(
            cafile=str(Path(control.settings.scratch, "authority.pem"))
        )
        self._numbers = itertools.count(base)

    def end(self, service: str) -> End:
        """Return the client's end of a connection that is not yet there."""
        return End(next(self._numbers), service)

    def open(self, end: End, dice: random.Random, **options: Any) -> syncws.Client:
        """Connect."""
        secure = dice.random() < 0.1
        host, port = dice.choice(self._secure if secure else self._plain)
        compression: bool | syncws.Compression = dice.random() < 0.3
        if compression and dice.random() < 0.3:
            compression = syncws.Compression(
                client_no_context_takeover=True, server_no_context_takeover=True, threshold=0
            )
        return syncws.Client(
            f"{'wss' if secure else 'ws'}://{host}:{port}/{end.service}/{end.ident}",
            ssl=self._tls if secure else None,
            compression=compression,
            handshake_timeout=60.0,
            send_timeout=60.0,
            **options,
        )


class Crew:
    """All clients with callbacks: opens, uses and ends them.

    Threads: the openers connect, workers call the callbacks, and one conductor
    does the rest; they meet at queues.
    """

    def __init__(self, control: Control, dialling: Dialling) -> None:
        self.control = control
        self.settings = control.settings
        self.latency = Histogram()
        self.closed: queue.SimpleQueue[Peer] = queue.SimpleQueue()
        self.opened = 0
        self.halt = threading.Event()
        self._dialling = dialling
        self._service = Listening(self)
        self._stock = Stock(self.settings.seed + 1)
        self._dice = random.Random(self.settings.seed + 1)
        self._orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # services
        self._connected: queue.SimpleQueue[Peer | None] = queue.SimpleQueue()
        self._opening = 0
        self._live: list[Peer] = []
        self._ending: set[Peer] = set()
        self._done = {"sent": 0, "received": 0}
        self._late: set[int] = set()
        self._openers = [
            threading.Thread(target=self._open, args=(number,), name=f"opener-{number}")
            for number in range(_OPENERS)
        ]
        for opener in self._openers:
            opener.daemon = True
            opener.start()

    # -- Openers ---------------------------------------------------------

    def _open(self, number: int) -> None:
        dice = random.Random(self.settings.seed * 100 + number)
        while (service := self._orders.get()) is not None:
            end = self._dialling.end(service)
            try:
                client = self._dialling.open(
                    end, dice, service=self._service, ready_on_connect=False
                )
            except syncws.ConnectError as exc:
                self.control.problem(f"not connected: {end.ident} to /{service}: {exc!r}")
                self._connected.put(None)
                continue
            peer = client.attributes["peer"] = Peer(end, client)
            client.ready()
            self._connected.put(peer)

    # -- Conductor -------------------------------------------------------

    def conduct(self, until: threading.Event) -> None:
        """Keep as many open as there should be, and all of them busy, until told to finish."""
        acts = churn = 0.0
        last = reported = time.monotonic()
        while not until.is_set():
            time.sleep(_TICK)
            now = time.monotonic()
            passed, last = now - last, now
            self.settle()
            self.fill()
            full = len(self._live) + len(self._ending) >= self.settings.callback_clients
            if full:
                # What could not be done in time is left out.
                acts = min(acts + passed * self.settings.acts, self.settings.acts)
                churn = min(churn + passed * self.settings.churn, self.settings.churn)
            while acts >= 1 and self._live:
                acts -= 1
                self._dice.choice(self._live).act(self._stock, self._dice)
            plans, weights = list(_PLANS), list(_PLANS.values())
            while churn >= 1 and self._live:
                churn -= 1
                (plan,) = self._dice.choices(plans, weights)
                self.finish(self._dice.choice(self._live), plan)
            if now - reported > self.settings.report_interval:
                reported = now
                self.report()

    def settle(self) -> None:
        """Look after those that have come and gone."""
        while not self._connected.empty():
            peer = self._connected.get()
            self._opening -= 1
            if peer is not None:
                self.opened += 1
                peer.index = len(self._live)
                self._live.append(peer)
        while not self.closed.empty():
            peer = self.closed.get()
            if peer.index >= 0:
                self._leave(peer)
            elif peer not in self._ending:  # its opener is yet to say that it is there
                self.closed.put(peer)
                break
            self._ending.discard(peer)
            self._done["sent"] += peer.end.sent
            self._done["received"] += peer.end.inflow.received
            self.control.ended(peer.end.record())
            peer.client.attributes.clear()  # a cycle less for the collector
        now = time.monotonic()
        for peer in self._ending:
            if now > peer.deadline and peer.end.ident not in self._late:
                self._late.add(peer.end.ident)
                self.control.problem(f"no end: connection {peer.end.ident}, {peer.end.plan}")

    def fill(self) -> None:
        """Order what is missing."""
        missing = self.settings.callback_clients - len(self._live) - self._opening
        missing -= len(self._ending)
        for _ in range(missing):
            share = self._dice.random()
            if share < self.settings.group_share:
                service = "group"
            else:
                (service,) = self._dice.choices(list(_SERVICES), list(_SERVICES.values()))
            self._opening += 1
            self._orders.put(service)

    def finish(self, peer: Peer, plan: str) -> None:
        """Begin to end one."""
        self._leave(peer)
        self._ending.add(peer)
        peer.deadline = time.monotonic() + self.settings.patience
        peer.finish(plan, self._stock, self._dice)

    def _leave(self, peer: Peer) -> None:
        """It is not to be sent to any more."""
        last = self._live.pop()
        if last is not peer:
            self._live[peer.index] = last
            last.index = peer.index
        peer.index = -1

    def report(self) -> None:
        """Say how it goes."""
        ends = [peer.end for peer in (*self._live, *self._ending)]
        self.control.stats(
            open=len(ends),
            opened=self.opened,
            sent=self._done["sent"] + sum(end.sent for end in ends),
            received=self._done["received"] + sum(end.inflow.received for end in ends),
            latency=self.latency.counts,
        )

    # -- The end ---------------------------------------------------------

    def drain(self) -> None:
        """End half of them in order, and leave the rest to the server's stop."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._orders.get_nowait()  # when it was interrupted
        for _ in self._openers:
            self._orders.put(None)
        for opener in self._openers:
            opener.join()
        self.settle()
        for peer in list(self._live)[::2]:
            self.finish(peer, "drained")
            if len(self._ending) % 200 == 0:
                self.settle()
        self._wait(lambda: not self._ending, self.settings.patience + 5)
        for peer in self._live:
            peer.end.plan = "stop"

    def wait_ended(self) -> None:
        """Wait until the server has closed the rest."""
        self._wait(lambda: not (self._live or self._ending), self.settings.patience)
        self.report()
        for peer in (*self._live, *self._ending):
            self.control.problem(f"no end: connection {peer.end.ident}, {peer.end.plan}")

    def _wait(self, condition: Any, timeout: float) -> None:
        def settled() -> bool:
            self.settle()
            return bool(condition())

        wait_until(settled, timeout)


def main() -> None:
    """Run until told to quit."""
    control = Control()
    before = State()
    control.tell("ready", state=before.report())
    dialling = Dialling(control, [tuple(one) for one in json.loads(control.order())], 0)
    crew = Crew(control, dialling)
    blocking = Blocking(control, dialling)
    until = threading.Event()
    conductor = threading.Thread(target=crew.conduct, args=(until,), name="conductor", daemon=True)
    conductor.start()
    while (order := control.order()) == "look":
        control.tell("look", state=State().report())
    until.set()
    conductor.join()
    if order == "finish":
        blocking.finish()
        crew.drain()
        crew.report()
        control.tell("quiet")
        crew.wait_ended()
    del crew, blocking, dialling, conductor
    after, left = before.left(control.settings.patience / 4)
    control.tell("done", before=before.report(), after=after, left=left)


if __name__ == "__main__":
    main()
