"""Blocking clients: a few threads, each of which goes round several clients."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import syncws

from .child import Control
from .ledger import LOST, End
from .message import Kind, Stock

if TYPE_CHECKING:
    from .clients import Dialling

__all__ = ["Blocking"]

# Seconds between two rounds of a thread.
_PAUSE = 0.1


class _Caller:
    """One blocking client."""

    def __init__(self, end: End, client: syncws.Client, rounds: int, patience: float) -> None:
        self.end = end
        self.client = client
        self.rounds = rounds
        self._patience = patience  # seconds

    def go_round(self, stock: Stock, dice: random.Random) -> None:
        """Send a few messages and take their answers."""
        self.rounds -= 1
        awaited = 0
        for _ in range(dice.randint(1, 4)):
            body = stock.body(dice.choice((0, 10, 500, 5000)))
            awaited += self.end.send(self.client, Kind.ECHO, body, stamp=time.monotonic())
        for _ in range(awaited):
            self.end.take(self.client.receive(self._patience))

    def close(self) -> End:
        """End it in order, with everything delivered."""
        end = self.end
        end.plan, end.expected = "drained", 1000
        end.send(self.client, Kind.FIN, "1000")
        try:
            while not end.drained:
                message = end.take(self.client.receive(self._patience))
                end.drained = message is not None and message.kind == Kind.FINACK
        finally:
            end.closed = True
            self.client.close()
            end.code = self._code()
        return end

    def _code(self) -> int:
        try:
            self.client.ping()
        except syncws.ConnectionClosed as exc:
            return exc.received.code if exc.received else LOST
        return LOST


class Blocking:
    """The threads."""

    def __init__(self, control: Control, dialling: Dialling) -> None:
        self._control = control
        self._dialling = dialling
        self._halt = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"blocking-{number}")
            for number in range(control.settings.blocking_threads)
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def finish(self) -> None:
        """End all of them."""
        self._halt.set()
        for thread in self._threads:
            thread.join(2 * self._control.settings.patience)
            if thread.is_alive():
                self._control.problem(f"hangs: {thread.name}")

    def _run(self, number: int) -> None:
        settings = self._control.settings
        dice = random.Random(settings.seed * 1000 + number)
        stock = Stock(settings.seed * 1000 + number)
        callers: list[_Caller] = []
        while not self._halt.wait(_PAUSE):
            if len(callers) < settings.blocking_each:
                self._open(callers, dice)
            for caller in list(callers):
                if caller.rounds and self._tried(caller, lambda one: one.go_round(stock, dice)):
                    continue
                callers.remove(caller)
                self._close(caller)
        for caller in callers:
            self._close(caller)

    def _open(self, callers: list[_Caller], dice: random.Random) -> None:
        end = self._dialling.end(dice.choice(("echo", "parts")))
        try:
            client = self._dialling.open(end, dice)
        except syncws.ConnectError as exc:
            self._control.problem(f"not connected: {end.ident}, blocking: {exc!r}")
            return
        patience = self._control.settings.patience
        callers.append(_Caller(end, client, dice.randint(5, 100), patience))

    def _close(self, caller: _Caller) -> None:
        self._tried(caller, lambda one: one.close())
        self._control.ended(caller.end.record())

    def _tried(self, caller: _Caller, call: object) -> bool:
        """Return whether it worked."""
        try:
            call(caller)  # type: ignore[operator]
        except syncws.WebSocketError as exc:
            self._control.problem(f"blocking client: {caller.end.ident}: {exc!r}")
            return False
        return True
