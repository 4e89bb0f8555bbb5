"""The server's process: listeners, their services, and whoever broadcasts.

It prints what it has to say as `child.Control` does, and obeys the orders
"stop" and "quit".
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import threading
import time
from pathlib import Path
from typing import Any

import syncws
from syncws.endpoint import connection_of

from .child import Control, State
from .ledger import End
from .message import Kind, Stock, pack
from .sabotage import saboteur
from .settings import Settings

__all__ = ["PLAIN", "TLS", "cut"]

#: Where it listens: several addresses, since each has its own 28,000 ports for clients.
PLAIN = tuple(f"127.0.0.{number}" for number in range(1, 7))
TLS = ("127.0.0.7", "127.0.0.8")

# Bytes that the system keeps for a member of the crowd, so that it is seen to be slow.
_CROWD_BUFFER = 16_384


def cut(endpoint: syncws.Caller | syncws.Client, reset: bool) -> None:
    """Cut the TCP connection, without a closing handshake."""
    line = connection_of(endpoint)
    if reset:
        with contextlib.suppress(OSError):
            line.transport.sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
    line.ask_to_abort()


class Hall:
    """What the services share: who is there, the group, and the count of what was."""

    def __init__(self, control: Control, settings: Settings) -> None:
        self.settings = settings
        self.control = control
        self.stock = Stock(settings.seed)
        self.random = random.Random(settings.seed)
        self.sabotage = saboteur(settings.sabotage)
        self.group = syncws.Group()
        self.live: dict[int, End] = {}
        self.opened = 0
        self.stopping = threading.Event()
        self.promised = 0  # deliveries of broadcasts

        # Guarded by _lock: the number of the next broadcast goes with who is in the group.
        self._lock = threading.Lock()
        self._number = 0
        self._done = {"sent": 0, "received": 0}

    def arrived(self, end: End) -> None:
        """A connection is open."""
        with self._lock:
            self.opened += 1
        self.live[end.ident] = end

    def gone(self, end: End) -> None:
        """A connection has ended."""
        with self._lock:
            self._done["sent"] += end.sent
            self._done["received"] += end.inflow.received
        self.live.pop(end.ident, None)
        self.control.ended(end.record())

    def join(self, caller: syncws.Caller, end: End) -> None:
        """Have it get broadcasts, from the next one."""
        with self._lock:
            if self.group.add(caller):
                end.joined = self._number

    def leave(self, caller: syncws.Caller, end: End) -> None:
        """Have it get no more."""
        if end.joined is not None and end.left is None:
            with self._lock:
                end.left = self._number
                self.group.discard(caller)

    def broadcast(self) -> None:
        """Send one more to all members."""
        body = self.stock.body(16_000 if self._number % 5 == 0 else self.random.randint(0, 300))
        with self._lock:
            if self.stopping.is_set():
                return
            message = pack(Kind.BROADCAST, 0, self._number, time.monotonic(), body)
            self._number += 1
            if isinstance(message, str):
                self.promised += self.group.send_text(message)
            else:
                self.promised += self.group.send_binary(message)

    def stop(self) -> None:
        """No more broadcasts; what is open now will be closed by the listeners."""
        with self._lock:
            self.stopping.set()
            for end in list(self.live.values()):
                end.closed = True
                if end.joined is not None and end.left is None:
                    end.left = self._number

    def stats(self) -> dict[str, Any]:
        """Return figures for a report."""
        live = list(self.live.values())
        with self._lock:
            done = dict(self._done)
        return {
            "open": len(live),
            "opened": self.opened,
            "sent": done["sent"] + sum(end.sent for end in live),
            "received": done["received"] + sum(end.inflow.received for end in live),
            "broadcasts": self._number,
            "promised": self.promised,
        }


class Base(syncws.Service):
    """What every service does with a message."""

    name = "echo"
    config = syncws.ServiceConfig(send_timeout=60)

    def __init__(self, hall: Hall) -> None:
        self.hall = hall

    def on_open(self, caller: syncws.Caller) -> None:
        end = End(caller.request.path_params["id"], self.name)
        caller.attributes["end"] = end
        self.hall.arrived(end)
        self.opened(caller, end)

    def opened(self, caller: syncws.Caller, end: End) -> None:
        """What else there is to do."""

    def on_error(self, caller: syncws.Caller, error: BaseException) -> None:
        caller.attributes["end"].error = type(error).__name__

    def on_close(self, caller: syncws.Caller, status_code: int, reason: str) -> None:
        end: End = caller.attributes["end"]
        end.code, end.reason = status_code, reason
        self.hall.gone(end)

    def got(self, caller: syncws.Caller, data: str | bytes) -> None:
        """Do what the message is for."""
        end: End = caller.attributes["end"]
        message = end.take(data)
        if message is None:
            return
        kind, body = message.kind, message.body
        if kind == Kind.ECHO:
            self.echo(caller, end, body, message.stamp)
        elif kind == Kind.BURST:
            for _ in range(int(body)):
                if not self.hall.sabotage(end, caller, Kind.PUSH, self.hall.stock.body()):
                    break
        elif kind == Kind.FIN:
            self.hall.leave(caller, end)
            end.send(caller, Kind.FINACK, body)
        elif kind == Kind.CLOSE_ME:
            self.hall.leave(caller, end)
            end.closed = True
            caller.close(int(body), "as you wish", timeout=0)
        elif kind == Kind.ABORT_ME:
            end.closed = True
            cut(caller, reset=body == b"reset")

    def echo(self, caller: syncws.Caller, end: End, body: str | bytes, stamp: float) -> None:
        """Answer; a long message in parts now and then."""
        parts = 3 if len(body) > 2000 and end.sent % 4 == 0 else 1
        self.hall.sabotage(end, caller, Kind.REPLY, body, stamp=stamp, parts=parts)


class Echo(Base):
    """Answers each message."""

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        self.got(caller, text)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        self.got(caller, data)


class Slow(Echo):
    """Answers each message, and takes its time for that."""

    name = "slow"

    def echo(self, caller: syncws.Caller, end: End, body: str | bytes, stamp: float) -> None:
        time.sleep(self.hall.random.uniform(0.0, 0.2))
        super().echo(caller, end, body, stamp)


class Member(Echo):
    """Gets broadcasts."""

    name = "group"

    def opened(self, caller: syncws.Caller, end: End) -> None:
        self.hall.join(caller, end)


class Crowd(Member):
    """The same, with little patience for who does not read."""

    name = "crowd"
    config = syncws.ServiceConfig(send_buffer_size=32_768, close_timeout=10.0)

    def opened(self, caller: syncws.Caller, end: End) -> None:
        sock = connection_of(caller).transport.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CROWD_BUFFER)
        super().opened(caller, end)


class Parts(Base):
    """Gets fragments as they come, and answers the whole."""

    name = "parts"

    def on_text(self, caller: syncws.Caller, text: str, final: bool) -> None:
        self._part(caller, text, final, "")

    def on_binary(self, caller: syncws.Caller, data: bytes, final: bool) -> None:
        self._part(caller, data, final, b"")

    def _part(self, caller: syncws.Caller, part: Any, final: bool, glue: Any) -> None:
        parts: list[Any] = caller.attributes.setdefault("parts", [])
        parts.append(part)
        if final:
            whole = glue.join(parts)
            parts.clear()
            self.got(caller, whole)


def listeners(hall: Hall) -> list[syncws.Listener]:
    """Return listeners that listen, the plain ones and those with TLS."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(Path(hall.settings.scratch, "server.pem"))
    services = [kind(hall) for kind in (Echo, Slow, Member, Crowd, Parts)]
    found = []
    for host in (*PLAIN, *TLS):
        listener = syncws.Listener(
            0, host, ssl=tls if host in TLS else None, handshake_timeout=60.0, backlog=4096
        )
        for service in services:
            listener.attach(f"/{service.name}/{{id:int}}", service)
        listener.start()
        found.append(listener)
    return found


def every(interval: float, call: Any, stop: threading.Event) -> threading.Thread:
    """Have something called again and again, in a thread."""

    def run() -> None:
        while not stop.wait(interval):
            call()

    thread = threading.Thread(target=run, name=call.__name__, daemon=True)
    thread.start()
    return thread


def main() -> None:
    """Run until told to quit."""
    control = Control()
    before = State()
    hall = Hall(control, control.settings)
    halt = threading.Event()

    def report() -> None:
        control.stats(**hall.stats())

    found = listeners(hall)
    addresses = [(host, port) for one in found for host, port in one.addresses]  # type: ignore[misc]
    threads = [
        every(control.settings.report_interval, report, halt),
        every(1 / control.settings.broadcasts, hall.broadcast, hall.stopping),
    ]
    control.tell("ready", addresses=addresses, state=before.report())
    while (order := control.order()) == "look":
        control.tell("look", state=State().report())
    hall.stop()
    if order == "stop":
        stops = [threading.Thread(target=one.stop, args=(30.0,)) for one in found]
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()
    halt.set()
    for thread in threads:
        thread.join()
    control.stats(**hall.stats())
    found.clear()
    after, left = before.left(control.settings.patience / 4)
    control.tell("done", before=before.report(), after=after, left=left)


if __name__ == "__main__":
    main()
