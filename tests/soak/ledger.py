"""Who has sent what and who has got what, and whether that fits together.

Each end of a connection keeps an `End`. Both go to one `Book` when the
connection has ended, which judges the pair.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from syncws import ConnectionClosed

from .message import BROADCAST, Corrupt, Kind, Message, pack, unpack

__all__ = ["Book", "End", "Finding", "Inflow", "Sink", "judge", "slices"]

# Missing numbers that are remembered at the most.
_MEMORY = 10_000

#: Close codes of ends that are no closing handshake.
LOST = 1006


class Inflow:
    """The numbers that have come, which must be consecutive.

    Attributes:
        first: The first that came.
        next: The one that comes next.
        received: How many have come, whatever they were.
        duplicated: How many of them had come before.
        reordered: How many of them should have come before.
    """

    __slots__ = ("_missing", "duplicated", "first", "next", "received", "reordered", "skipped")

    def __init__(self, first: int | None = 0) -> None:
        self.first = first
        self.next = first or 0
        self.received = 0
        self.duplicated = 0
        self.reordered = 0
        self.skipped = 0  # numbers too many to remember
        self._missing: set[int] | None = None

    def take(self, number: int) -> None:
        """Note that a number has come."""
        self.received += 1
        if self.first is None:
            self.first = self.next = number
        if number == self.next:
            self.next += 1
        elif number > self.next:
            self._skip(range(self.next, number))
            self.next = number + 1
        elif self._missing and number in self._missing:
            self._missing.discard(number)
            self.reordered += 1
        else:
            self.duplicated += 1

    def take_unnumbered(self) -> None:
        """Note that an empty message has come, which is the next or will turn out not to be."""
        self.take(self.next)

    def _skip(self, numbers: range) -> None:
        missing = self._missing = self._missing or set()
        room = max(0, _MEMORY - len(missing))
        missing.update(numbers[:room])
        self.skipped += len(numbers[room:])

    @property
    def lost(self) -> int:
        """Numbers that have not come though later ones have."""
        return self.skipped + len(self._missing or ())


class Sink(Protocol):
    """What an end sends by."""

    def send_text(self, text: str, final: bool = True) -> None: ...
    def send_binary(self, data: bytes, final: bool = True) -> None: ...


class End:
    """One end of a connection.

    Sending is for one thread at a time, and so is receiving.

    Attributes:
        ident: The connection.
        plan: How it is meant to end; the client's end knows.
        service: The name of what serves it.
        sent: Messages that were taken to be sent.
        maybe: Messages whose send raised, and which may have gone out nevertheless.
        inflow: What has come.
        casts: The broadcasts that have come; None: they may begin anywhere.
        corrupt: Messages that are not what was sent.
        closed: This end has closed or cut the connection itself.
        drained: Each end has said that it got the other's last message.
        code: What on_close was told.
        expected: What it should be told; None: anything but 1006.
        joined: The first broadcast that the other end is to get.
        left: The first that it is not to get any more.
        error: What on_error was told.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "casts",
        "closed",
        "code",
        "corrupt",
        "drained",
        "error",
        "expected",
        "ident",
        "inflow",
        "joined",
        "left",
        "maybe",
        "opened_at",
        "plan",
        "reason",
        "sent",
        "service",
    )

    def __init__(self, ident: int, service: str = "") -> None:
        self.ident = ident
        self.service = service
        self.plan = ""
        self.sent = 0
        self.maybe = 0
        self.bytes_out = 0
        self.bytes_in = 0
        self.inflow = Inflow()
        self.casts = Inflow(None)
        self.corrupt = 0
        self.closed = False
        self.drained = False
        self.code: int | None = None
        self.reason = ""
        self.expected: int | None = None
        self.joined: int | None = None
        self.left: int | None = None
        self.error = ""
        self.opened_at = time.monotonic()

    # -- Sending ---------------------------------------------------------

    def next_message(self, kind: Kind, body: str | bytes, stamp: float = 0.0) -> str | bytes:
        """Return the next message, which is not sent yet."""
        return pack(kind, self.ident, self.sent, stamp, body)

    def taken(self, message: str | bytes) -> None:
        """The next message was taken to be sent."""
        self.sent += 1
        self.bytes_out += len(message)

    def send(
        self, sink: Sink, kind: Kind, body: str | bytes = b"", *, stamp: float = 0.0, parts: int = 1
    ) -> bool:
        """Send the next message, in so many parts; return whether it was taken."""
        return self.send_packed(sink, self.next_message(kind, body, stamp), parts)

    def send_empty(self, sink: Sink, text: bool) -> bool:
        """Send an empty message, which has a number all the same."""
        return self.send_packed(sink, "" if text else b"")

    def send_packed(self, sink: Sink, message: str | bytes, parts: int = 1) -> bool:
        """Send what `next_message` gave."""
        send: Any = sink.send_text if isinstance(message, str) else sink.send_binary
        final = parts < 2
        try:
            if final:
                send(message)
            else:
                for part, final in slices(message, parts):
                    send(part, final)
        except ConnectionClosed as exc:
            # A message of which a part is missing cannot arrive.
            self.maybe += exc.maybe_sent and final
            return False
        self.taken(message)
        return True

    # -- Receiving -------------------------------------------------------

    def take(self, data: str | bytes) -> Message | None:
        """Check what has come; None if it is empty or corrupt."""
        self.bytes_in += len(data)
        if not data:
            self.inflow.take_unnumbered()
            return None
        try:
            message = unpack(data)
        except Corrupt:
            self.corrupt += 1
            self.inflow.take_unnumbered()
            return None
        if message.kind == BROADCAST:
            self.casts.take(message.number)
            return message
        if message.connection != self.ident:
            self.corrupt += 1
            return None
        self.inflow.take(message.number)
        return message

    # -- The end ---------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """Return what the book needs."""
        found = {name: getattr(self, name) for name in _COPIED}
        for name, flow in (("flow", self.inflow), ("casts", self.casts)):
            found[name] = {
                "first": flow.first,
                "next": flow.next,
                "received": flow.received,
                "duplicated": flow.duplicated,
                "reordered": flow.reordered,
                "lost": flow.lost,
            }
        return found


_COPIED = (
    "bytes_in",
    "bytes_out",
    "closed",
    "code",
    "corrupt",
    "drained",
    "error",
    "expected",
    "ident",
    "joined",
    "left",
    "maybe",
    "plan",
    "reason",
    "sent",
    "service",
)


def slices(message: str | bytes, parts: int) -> Iterable[tuple[str | bytes, bool]]:
    """Cut a message; say with each part whether it is the last."""
    size = max(1, -(-len(message) // parts))
    for start in range(0, len(message), size):
        yield message[start : start + size], start + size >= len(message)


# -- Judging -----------------------------------------------------------------


class Finding(NamedTuple):
    """Something is wrong with a connection."""

    kind: str  # lost, duplicated, reordered, corrupt, untold, or ended
    count: int
    text: str


Record = Mapping[str, Any]


def judge(server: Record, client: Record) -> list[Finding]:
    """Return what is wrong with a connection, of which both ends have told."""
    name = f"connection {client['ident']} ({client['service']}, {client['plan'] or 'no plan'})"
    found = [
        *_flow(f"{name} to the server", client, server),
        *_flow(f"{name} to the client", server, client),
        *_casts(f"{name} broadcasts", server, client),
        *_end(name, server, client),
    ]
    return [finding for finding in found if finding.count]


def _flow(name: str, sender: Record, receiver: Record) -> list[Finding]:
    """One direction.

    Messages may be missing at the end, where the receiver has closed, or the
    sender was told of a connection lost.
    """
    flow = receiver["flow"]
    text = f"{name}: {sender['sent']} sent, {flow['received']} received, next {flow['next']}"
    missing = sender["sent"] - flow["next"]
    lost = flow["lost"]
    untold = 0
    if missing > 0:
        if sender["drained"] or receiver["drained"]:
            lost += missing
        elif receiver["closed"] or receiver["error"] or sender["code"] == LOST:
            pass
        elif sender["code"] is None:
            untold = missing
        else:
            lost += missing
    # More than were sent have come: from where?
    surplus = max(0, -missing - sender["maybe"])
    return [
        Finding("untold", untold, text),
        Finding("lost", lost, text),
        Finding("duplicated", flow["duplicated"] + surplus, text),
        Finding("reordered", flow["reordered"], text),
        Finding("corrupt", receiver["corrupt"], text),
    ]


def _casts(name: str, server: Record, client: Record) -> list[Finding]:
    casts, joined, left = client["casts"], server["joined"], server["left"]
    text = f"{name}: from {joined} to {left}, received {casts['first']} to {casts['next']}"
    lost = casts["lost"]
    surplus = 0
    if casts["first"] is not None:
        if joined is None or casts["first"] < joined:
            surplus += 1
        else:
            lost += casts["first"] - joined
        if left is not None:
            surplus += max(0, casts["next"] - left)
    orderly = LOST not in (server["code"], client["code"])
    full = client["drained"] or (orderly and server["closed"] and not client["closed"])
    if full and joined is not None and left is not None:
        have = joined if casts["first"] is None else casts["next"]
        lost += max(0, left - have)
    return [
        Finding("lost", lost, text),
        Finding("duplicated", casts["duplicated"] + surplus, text),
        Finding("reordered", casts["reordered"], text),
    ]


# What each plan lets on_close of the server and of the client be told: a code,
# or None for the one that was agreed on.
_ENDS: dict[str, tuple[tuple[int | None, ...], tuple[int | None, ...]]] = {
    "drained": ((None,), (None,)),
    "close": ((None,), (None,)),
    "server close": ((None,), (None,)),
    "stop": ((1001,), (1001,)),
    "abort": ((LOST,), (LOST,)),
    "server abort": ((LOST,), (LOST,)),
    "cut": ((LOST,), (LOST,)),
    "evicted": ((1013, LOST), (1013,)),  # the answer may come too late
    "evicted, cut": ((LOST,), (LOST,)),
}


def _end(name: str, server: Record, client: Record) -> list[Finding]:
    """Whether both ends were told what the plan was."""
    codes = (server["code"], client["code"])
    text = f"{name}: ended with {codes[0]} at the server {server['error']}{server['reason']!r} "
    text += f"and {codes[1]} at the client {client['error']}{client['reason']!r}"
    plan = client["plan"]
    if plan == "cross":
        return [Finding("ended", int(LOST in codes), text)]
    allowed = _ENDS.get(plan)
    if allowed is None:
        return [Finding("ended", 1, text)]
    right = all(
        any(code == (client["expected"] if one is None else one) for one in ones)
        for code, ones in zip(codes, allowed, strict=True)
    )
    evicted = plan.startswith("evicted") == (server["error"] == "SendTimeout")
    return [Finding("ended", int(not (right and evicted)), text)]


class Book:
    """All connections that have ended, at one end or both. Any thread.

    Attributes:
        counts: How much was found wrong, by kind.
        findings: The first of them.
        plans: How connections have ended.
        totals: Of messages and bytes, as both ends tell.
    """

    _SHOWN = 40

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[str, Record]] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.findings: list[str] = []
        self.plans: collections.Counter[str] = collections.Counter()
        self.totals: collections.Counter[str] = collections.Counter()
        self.pairs = 0

    def add(self, side: str, record: Record) -> None:
        """One end has ended: "server" or "client"."""
        with self._lock:
            self._count(side, record)
            ident = record["ident"]
            before = self._waiting.pop(ident, None)
            if before is None:
                self._waiting[ident] = (side, record)
                return
            if before[0] == side:
                self._note([Finding("ended", 1, f"connection {ident} has ended twice: {side}")])
                return
            self.pairs += 1
            server, client = (record, before[1]) if side == "server" else (before[1], record)
            self.plans[client["plan"] or "without a plan"] += 1
            self._note(judge(server, client))

    def _count(self, side: str, record: Record) -> None:
        totals = self.totals
        totals[f"{side} sent"] += record["sent"]
        totals[f"{side} received"] += record["flow"]["received"]
        totals[f"{side} bytes sent"] += record["bytes_out"]
        totals[f"{side} bytes received"] += record["bytes_in"]
        totals[f"{side} broadcasts"] += record["casts"]["received"]
        totals["evicted"] += side == "server" and record["error"] == "SendTimeout"

    def _note(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.counts[finding.kind] += finding.count
            if len(self.findings) < self._SHOWN:
                self.findings.append(f"{finding.kind} {finding.count}: {finding.text}")

    def close(self) -> None:
        """Nothing more comes: whoever is alone was not told of the end, or of the beginning."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            for side, record in waiting.values():
                other = "client" if side == "server" else "server"
                text = f"connection {record['ident']} has ended at the {side} only: "
                text += f"the {other} says nothing of it ({record['plan']}, {record['code']})"
                self._note([Finding("untold", 1, text)])
