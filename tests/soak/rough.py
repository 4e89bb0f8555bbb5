"""The process of the peers that misbehave: raw sockets, each with a thread of its own.

It prints what it has to say as `child.Control` does. Its first line of input
has the server's addresses; then it obeys the orders "finish" and "quit".
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import syncws

from ..support import BINARY, CLOSE, CONT, PING, PONG, TEXT, RawPeer, close_payload, frame
from .child import Control, State
from .ledger import LOST, End
from .message import Kind, Message, Stock
from .server import TLS

__all__ = ["Crowd", "Raw"]

# Where the numbers of these connections begin.
_BASE = 1_000_000_000

# Bytes of a receive buffer that fills soon.
_SMALL = 4096

# Seconds that one waits without reading until it is evicted, at the most.
_STUBBORN = 15.0

# Seconds between two connections of a thread.
_PAUSE = 0.2


class _SlowSocket:
    """Reads a little at a time."""

    def __init__(self, sock: socket.socket, dice: random.Random) -> None:
        self._sock = sock
        self._dice = dice

    def recv(self, size: int) -> bytes:
        """Read up to a few hundred bytes, after a while."""
        time.sleep(self._dice.uniform(0.0, 0.01))
        return self._sock.recv(min(size, self._dice.randint(1, 1400)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Raw:
    """The client's end by hand."""

    def __init__(self, peer: RawPeer, end: End) -> None:
        self.peer = peer
        self.end = end
        self._midway = False

    # -- What an End sends by --------------------------------------------

    def send_text(self, text: str, final: bool = True) -> None:
        """Send a text message, or a part of one."""
        self._send(TEXT, text.encode(), final)

    def send_binary(self, data: bytes, final: bool = True) -> None:
        """Send a binary message, or a part of one."""
        self._send(BINARY, data, final)

    def _send(self, opcode: int, data: bytes, final: bool) -> None:
        self.write(frame(CONT if self._midway else opcode, data, fin=final))
        self._midway = not final

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self.peer.send_bytes(data)
        except OSError as exc:
            closed = syncws.ConnectionClosed()
            closed.maybe_sent = True
            raise closed from exc

    # -- Reading ---------------------------------------------------------

    def next(self) -> Message | None:
        """Take the next message; None after the close frame, or the end of TCP."""
        parts = b""
        opcode = CONT
        while True:
            try:
                got = self.peer.read()
                if got.opcode == PING:
                    self.peer.send(PONG, got.payload)
            except (EOFError, OSError):
                self.end.code = LOST
                return None
            if got.opcode == CLOSE:
                code = int.from_bytes(got.payload[:2], "big")
                self.end.code, self.end.reason = code, got.payload[2:].decode()
                return None
            if got.opcode in (PING, PONG):
                continue
            opcode = got.opcode or opcode
            parts += got.payload
            if got.fin:
                message = self.end.take(parts.decode() if opcode == TEXT else parts)
                if message is not None:
                    return message
                parts = b""

    def drain(self) -> bool:
        """Say that this was all, and read to the answer; return whether it came."""
        self.end.plan = "drained"
        self.end.send(self, Kind.FIN, "1000")
        while (message := self.next()) is not None:
            if message.kind == Kind.FINACK:
                self.end.drained = True
                return True
        return False

    def close(self, code: int = 1000) -> None:
        """Close in order."""
        self.end.closed = True
        self.end.expected = code
        self.write(frame(CLOSE, close_payload(code)))
        while self.next() is not None:
            pass

    def read_to_the_end(self) -> None:
        """Read the end of TCP: the other end has had what was sent."""
        try:
            while self.peer.sock.recv(65_536):
                pass
        except OSError:
            pass


class Crowd:
    """The threads."""

    def __init__(self, control: Control, addresses: Sequence[tuple[str, int]]) -> None:
        self._control = control
        self._addresses = [one for one in addresses if one[0] not in TLS]
        self._halt = threading.Event()
        self.opened = 0
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"rough-{number}")
            for number in range(control.settings.rough)
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def finish(self) -> None:
        """Have each end what it is about, and wait for that."""
        self._halt.set()
        for thread in self._threads:
            thread.join(120.0)
            if thread.is_alive():
                self._control.problem(f"hangs: {thread.name}")

    def report(self, halt: threading.Event) -> None:
        """Say how it goes, until told to halt."""
        while not halt.wait(self._control.settings.report_interval):
            self._control.stats(opened=self.opened, open=len(self._threads))

    def _run(self, number: int) -> None:
        dice = random.Random(self._control.settings.seed * 10_000 + number)
        stock = Stock(self._control.settings.seed * 10_000 + number)
        behaviours = _BEHAVIOURS[number % len(_BEHAVIOURS) :] + _BEHAVIOURS
        count = 0
        while not self._halt.is_set():
            behave = behaviours[count % len(_BEHAVIOURS)]
            ident = _BASE + number + len(self._threads) * count
            count += 1
            raw = self._connect(ident, behave, dice)
            if raw is None:
                continue
            self.opened += 1
            with raw.peer:
                try:
                    behave(raw, stock, dice, self._halt)
                except syncws.ConnectionClosed:
                    raw.end.code = raw.end.code or LOST
                except TimeoutError as exc:
                    self._control.problem(f"rough: {behave.__name__} {ident}: {exc!r}")
            self._control.ended(raw.end.record())
            self._halt.wait(_PAUSE)

    def _connect(self, ident: int, behave: Callable[..., Any], dice: random.Random) -> Raw | None:
        service = "crowd" if behave is stubborn else dice.choice(("echo", "parts"))
        small = _SMALL if behave in (stubborn, slow) else None
        end = End(ident, service)
        try:
            target: Any = _Target(dice.choice(self._addresses))
            peer = RawPeer.connect(target, f"/{service}/{ident}", receive_buffer=small)
        except (AssertionError, EOFError, OSError) as exc:
            self._control.problem(f"not connected: {ident}, rough: {exc!r}")
            return None
        return Raw(peer, end)


class _Target:
    """What stands for a listener in another process."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.addresses = [address]


# -- How they misbehave ------------------------------------------------------


def slow(raw: Raw, stock: Stock, dice: random.Random, halt: threading.Event) -> None:
    """Ask for much, read nothing for seconds, and little at a time then."""
    for _ in range(dice.randint(5, 30)):
        raw.end.send(raw, Kind.ECHO, stock.body(dice.randint(0, 16_000)))
    halt.wait(dice.uniform(0.0, 3.0))
    raw.peer.sock = _SlowSocket(raw.peer.sock, dice)  # type: ignore[assignment]
    if raw.drain():
        raw.close()


def dripping(raw: Raw, stock: Stock, dice: random.Random, halt: threading.Event) -> None:
    """Send messages in bits, with pings between their fragments."""
    for _ in range(dice.randint(1, 6)):
        message = raw.end.next_message(Kind.ECHO, stock.body(dice.randint(0, 300)))
        data = message.encode() if isinstance(message, str) else message
        cut = dice.randrange(len(data))
        frames = (
            frame(TEXT if isinstance(message, str) else BINARY, data[:cut], fin=False)
            + frame(PING, dice.randbytes(dice.randint(0, 125)))
            + frame(CONT, data[cut:])
        )
        while frames:
            size = dice.randint(1, 40)
            raw.write(frames[:size])
            frames = frames[size:]
            halt.wait(dice.uniform(0.0, 0.01))
        raw.end.taken(message)
    if raw.drain():
        raw.close(dice.choice((1000, 3000)))


def cutting(raw: Raw, stock: Stock, dice: random.Random, halt: threading.Event) -> None:
    """End in the middle of a message, with a reset, the end of TCP, or half of it."""
    for _ in range(dice.randint(0, 10)):
        raw.end.send(raw, Kind.ECHO, stock.body(dice.randint(0, 4000)))
    message = raw.end.next_message(Kind.ECHO, stock.body(dice.randint(1, 4000)))
    data = message.encode() if isinstance(message, str) else message
    whole = frame(TEXT if isinstance(message, str) else BINARY, data)
    raw.write(whole[: dice.randrange(1, len(whole))])
    raw.end.plan = "cut"
    raw.end.closed = True
    raw.end.code = LOST
    how = dice.choice(("reset", "abort", "half"))
    if how == "reset":
        raw.peer.reset()
    elif how == "half":
        raw.peer.end_writing()
        while raw.next() is not None:
            pass


def hasty(raw: Raw, stock: Stock, dice: random.Random, halt: threading.Event) -> None:
    """Close right after the last message."""
    raw.end.plan = "close"
    for _ in range(dice.randint(0, 30)):
        raw.end.send(raw, Kind.ECHO, stock.body())
    if dice.random() < 0.3:
        raw.end.send_empty(raw, text=True)
    raw.close(dice.choice((1000, 1001, 4000)))


def pinging(raw: Raw, stock: Stock, dice: random.Random, halt: threading.Event) -> None:
    """Send many pings at once, and messages between them."""
    for _ in range(dice.randint(1, 4)):
        raw.write(b"".join(frame(PING, dice.randbytes(dice.randint(0, 125))) for _ in range(50)))
        raw.end.send(raw, Kind.ECHO, stock.body(100))
        raw.end.send(raw, Kind.BURST, "3")
    if raw.drain():
        raw.close()


def stubborn(raw: Raw, stock: Stock, dice: random.Random, halt: threading.Event) -> None:
    """Be in the group and read nothing, until it is too much."""
    halt.wait(dice.uniform(0.5, _STUBBORN))
    if raw.drain():
        raw.close()
    elif raw.end.code == 1013 and dice.random() < 0.7:
        raw.end.plan = "evicted"
        raw.write(frame(CLOSE, close_payload(1013)))
        raw.read_to_the_end()
    else:
        raw.end.plan = "evicted, cut"
        raw.end.code = LOST


_BEHAVIOURS: tuple[Callable[[Raw, Stock, random.Random, threading.Event], None], ...] = (
    slow,
    stubborn,
    cutting,
    hasty,
    dripping,
    pinging,
)


def main() -> None:
    """Run until told to quit."""
    control = Control()
    before = State()
    control.tell("ready", state=before.report())
    crowd = Crowd(control, [tuple(one) for one in json.loads(control.order())])
    halt = threading.Event()
    reporter = threading.Thread(target=crowd.report, args=(halt,), daemon=True)
    reporter.start()
    while (order := control.order()) == "look":
        control.tell("look", state=State().report())
    if order == "finish":
        crowd.finish()
    halt.set()
    reporter.join()
    control.stats(opened=crowd.opened, open=0)
    control.tell("quiet")
    del crowd, reporter
    after, left = before.left(control.settings.patience / 4)
    control.tell("done", before=before.report(), after=after, left=left)


if __name__ == "__main__":
    main()
