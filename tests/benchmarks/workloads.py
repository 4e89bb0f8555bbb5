"""What is measured, on whom, and how good it has to be."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "CLIENTS",
    "KIB",
    "METRICS",
    "MIB",
    "SERVERS",
    "TARGETS",
    "WORKLOADS",
    "Metric",
    "Peer",
    "Target",
    "Workload",
    "by_name",
    "select",
]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Metric:
    """A figure of a measurement.

    Attributes:
        title: The head of its column.
        decimals: Digits behind the point.
        more_is_better: Whether a larger figure is the better one.
    """

    title: str
    decimals: int = 0
    more_is_better: bool = False


METRICS: dict[str, Metric] = {
    "rate": Metric("per s", more_is_better=True),
    "p50_us": Metric("p50 µs", 1),
    "p99_us": Metric("p99 µs", 1),
    "min_us": Metric("min µs", 1),
    "user_us": Metric("user µs", 2),
    "sys_us": Metric("sys µs", 2),
    "load": Metric("load", 2),
    "wire_bytes": Metric("bytes back"),
    "kib": Metric("KiB each", 2),
    "kib_used": Metric("KiB each, used", 2),
    "threads_one": Metric("threads at 1"),
    "threads": Metric("threads"),
    "alone_p50_us": Metric("p50 µs alone", 1),
    "alone_p99_us": Metric("p99 µs alone", 1),
    "max_us": Metric("max µs"),
    "p99_ratio": Metric("p99 / alone", 2),
}


@dataclass(frozen=True)
class Peer:
    """Something that is measured.

    Attributes:
        name: As on the command line.
        modules: What has to be importable.
        distributions: Whose versions are reported.
        environment: Variables that its process gets.
    """

    name: str
    modules: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


_PURE = (("SYNCWS_PURE", "1"),)

SERVERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("syncws", ("syncws",), ("syncws",)),
        Peer("syncws-pure", ("syncws",), ("syncws",), _PURE),
        Peer("websockets-sync", ("websockets.sync.server",), ("websockets",)),
        Peer("websockets-asyncio", ("websockets.asyncio.server",), ("websockets",)),
        Peer(
            "simple-websocket",
            ("simple_websocket", "werkzeug.serving"),
            ("simple-websocket", "werkzeug"),
        ),
        Peer("aiohttp", ("aiohttp.web",), ("aiohttp",)),
        Peer(
            "gevent-websocket",
            ("gevent.pywsgi", "geventwebsocket.handler"),
            ("gevent-websocket", "gevent"),
        ),
        Peer("picows", ("picows", "uvloop"), ("picows", "uvloop")),
        Peer("socketify", ("socketify",), ("socketify",)),
        Peer("floor"),
    )
}

CLIENTS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("raw-socket"),
        Peer("syncws", ("syncws",), ("syncws",)),
        Peer("syncws-pure", ("syncws",), ("syncws",), _PURE),
        Peer("websocket-client", ("websocket",), ("websocket-client",)),
        Peer("websockets-sync", ("websockets.sync.client",), ("websockets",)),
        Peer("simple-websocket", ("simple_websocket",), ("simple-websocket",)),
    )
}

_ALL = tuple(SERVERS)
_DEFLATING = (
    "syncws",
    "syncws-pure",
    "websockets-sync",
    "websockets-asyncio",
    "simple-websocket",
    "aiohttp",
)
_BROADCASTING = (
    "syncws",
    "syncws-pure",
    "websockets-asyncio",
    "simple-websocket",
    "aiohttp",
    "picows",
)
_ECHO = ("rate", "p50_us", "p99_us", "min_us", "user_us", "sys_us", "load")
_OPENING = ("rate", "p50_us", "p99_us", "user_us", "sys_us", "load")
_ON_ONE_CPU = ", both ends on one CPU"
_IDLE = ("kib", "kib_used", "threads_one", "threads")


@dataclass(frozen=True)
class Workload:
    """One thing that is measured.

    Attributes:
        name: As on the command line.
        kind: The module of `load` that produces it; "client" for the blocking
            clients.
        about: It in words.
        peers: On whom.
        metrics: The columns of its table.
        ratios: The metrics of which ratios are shown.
        connections: How many.
        size: Bytes of a message.
        depth: Messages under way on a connection, or sent on each at all.
        text: Text rather than binary messages.
        deflate: Compressed with permessage-deflate.
        mode: What the server does with messages.
        seconds: The least time that it takes to be of use.
        one_cpu: Both ends share a CPU: where they only ever take turns, the
            time of waking another CPU would hide all else, and would depend
            on where the system happens to put them.
        note: What to know about the figures.
    """

    name: str
    kind: str
    about: str
    peers: tuple[str, ...] = _ALL
    metrics: tuple[str, ...] = _ECHO
    ratios: tuple[str, ...] = ("rate",)
    connections: int = 1
    size: int = 32
    depth: int = 1
    text: bool = False
    deflate: bool = False
    mode: str = "echo"
    seconds: float = 0.0
    one_cpu: bool = False
    note: str = ""

    @property
    def candidates(self) -> dict[str, Peer]:
        """The peers by name."""
        known = CLIENTS if self.kind == "client" else SERVERS
        return {name: known[name] for name in self.peers}


def _amount(size: int) -> str:
    """Return a size in words."""
    if size < KIB:
        return f"{size} B"
    return f"{size // KIB} KiB" if size < MIB else f"{size // MIB} MiB"


def _echo(
    name: str,
    connections: int,
    size: int = 32,
    *,
    depth: int = 1,
    text: bool = False,
    ratios: tuple[str, ...] = ("rate",),
) -> Workload:
    amount = _amount(size)
    about = f"echo of {amount} {'text' if text else 'binary'} messages, "
    about += f"{connections} connection{'s' if connections > 1 else ''}"
    about += f", {depth} messages under way on each" if depth > 1 else ""
    one_cpu = connections == depth == 1
    return Workload(
        name,
        "echo",
        about + (_ON_ONE_CPU if one_cpu else ""),
        ratios=ratios,
        connections=connections,
        size=size,
        depth=depth,
        text=text,
        one_cpu=one_cpu,
    )


def _client(name: str, about: str, mode: str, size: int = 32) -> Workload:
    roundtrip = mode == "echo"
    return Workload(
        name,
        "client",
        about + (_ON_ONE_CPU if roundtrip else ""),
        peers=tuple(CLIENTS),
        metrics=("p50_us", "p99_us", "min_us", "rate") if roundtrip else ("rate",),
        ratios=("p50_us",) if roundtrip else ("rate",),
        size=size,
        mode=mode,
        one_cpu=roundtrip,
    )


def _broadcast(connections: int) -> Workload:
    return Workload(
        f"broadcast-{connections}",
        "broadcast",
        f"32 B to each of {connections} subscribers, 4 broadcasts under way; deliveries per second",
        peers=_BROADCASTING,
        connections=connections,
        depth=4,
        mode="broadcast",
    )


def _idle(connections: int, *more: str) -> Workload:
    return Workload(
        f"idle-{connections}",
        "idle",
        f"memory of each of {connections} connections: just opened, and after one echo each",
        peers=("syncws", "syncws-pure", "websockets-asyncio", "aiohttp", "picows", *more),
        metrics=_IDLE,
        ratios=("kib", "kib_used"),
        connections=connections,
    )


_LIST: tuple[Workload, ...] = (
    _echo("echo-32-c1", 1, ratios=("p50_us", "rate")),
    _echo("echo-32-c8", 8),
    _echo("echo-32-c64", 64),
    _echo("echo-32-c256", 256),
    _echo("echo-32-c1000", 1000),
    _echo("echo-32-c64-depth8", 64, depth=8),
    _echo("echo-1k-c64", 64, KIB),
    _echo("echo-1k-text-c64", 64, KIB, text=True),
    Workload(
        "echo-1k-deflate-c64",
        "deflate",
        "echo of 1 KiB JSON text, permessage-deflate, 64 connections",
        peers=_DEFLATING,
        metrics=("rate", "p50_us", "p99_us", "user_us", "sys_us", "load", "wire_bytes"),
        connections=64,
        size=KIB,
        text=True,
        deflate=True,
        note="window of 12 bits, level 6 and memory level 5; aiohttp has level 1 and "
        "simple-websocket memory level 8, which cannot be set",
    ),
    _echo("echo-64k-c8", 8, 64 * KIB),
    _echo("echo-1m-c2", 2, MIB),
    _broadcast(100),
    _broadcast(1000),
    Workload(
        "handshakes",
        "handshakes",
        "connections opened and closed with a closing handshake, 32 at a time",
        metrics=_OPENING,
        connections=32,
        depth=0,
    ),
    Workload(
        "churn",
        "handshakes",
        "connections opened, used for one echo of 32 B and closed, 32 at a time",
        metrics=_OPENING,
        connections=32,
    ),
    _idle(2000, "websockets-sync", "simple-websocket"),
    _idle(10000),
    _client("client-roundtrip-32", "blocking client: round trips of 32 B", "echo"),
    _client("client-roundtrip-64k", "blocking client: round trips of 64 KiB", "echo", 64 * KIB),
    _client("firehose-receive", "blocking client: receives 32 B messages as they come", "push"),
    _client("firehose-send", "blocking client: sends 32 B messages as fast as it can", "sink"),
    Workload(
        "slow-callbacks",
        "slow",
        "32 B echoes of 16 connections, alone and beside 16 callbacks that sleep for 1 s each",
        peers=("syncws", "syncws-pure", "websockets-sync", "simple-websocket"),
        metrics=("alone_p50_us", "alone_p99_us", "p50_us", "p99_us", "max_us", "p99_ratio"),
        ratios=("p99_us",),
        connections=16,
        mode="sleep",
        seconds=3.0,
    ),
)

WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _LIST}


@dataclass(frozen=True)
class Target:
    """How a figure has to compare.

    Attributes:
        workload: Where.
        metric: Which figure.
        sign: ">=", "<=" or "<".
        limit: What the figure is compared with, or its ratio if there is
            something to divide it by.
        against: The peer whose figure divides it; None: nothing does, unless
            one of the following two says what.
        against_workload: The workload of the divisor, if it is another one.
        against_metric: The metric of the divisor, if it is another one.
        peer: Whose figure it is.
    """

    workload: str
    metric: str
    sign: str
    limit: float
    against: str | None = None
    against_workload: str | None = None
    against_metric: str | None = None
    peer: str = "syncws"

    @property
    def is_ratio(self) -> bool:
        """Whether there is something to divide by."""
        return any((self.against, self.against_workload, self.against_metric))

    def divisor(self) -> tuple[str, str, str]:
        """Return workload, peer and metric of what the figure is divided by."""
        return (
            self.against_workload or self.workload,
            self.against or self.peer,
            self.against_metric or self.metric,
        )

    def reached(self, value: float) -> bool:
        """Return whether a figure or ratio will do."""
        if self.sign == ">=":
            return value >= self.limit
        return value <= self.limit if self.sign == "<=" else value < self.limit


def _faster(workload: str, **factors: float) -> tuple[Target, ...]:
    """Rates: at least so many times those of peers."""
    return tuple(
        Target(workload, "rate", ">=", factor, against=peer.replace("_", "-"))
        for peer, factor in factors.items()
    )


def _quicker(workload: str) -> tuple[Target, ...]:
    """Round trips: nearly those of a bare socket, and below those of each library."""
    libraries = ("websocket-client", "websockets-sync", "simple-websocket")
    return (
        Target(workload, "p50_us", "<=", 1.10, against="raw-socket"),
        *(Target(workload, "p50_us", "<", 1.0, against=peer) for peer in libraries),
    )


TARGETS: tuple[Target, ...] = (
    *_faster("echo-32-c64", websockets_sync=10, simple_websocket=10, aiohttp=1.3, picows=0.8),
    Target("echo-32-c64", "rate", ">=", 8, against="websockets-sync", peer="syncws-pure"),
    *_faster("echo-32-c1000", aiohttp=1.3, picows=0.8),
    Target("echo-32-c1000", "rate", ">=", 0.9, against_workload="echo-32-c64"),
    Target("echo-32-c1", "p50_us", "<=", 1.0, against="picows"),
    *_faster("echo-64k-c8", picows=0.9, websockets_sync=3),
    *_faster("echo-1m-c2", picows=0.9, websockets_sync=3),
    *_faster("echo-1k-deflate-c64", websockets_asyncio=1.5),
    *_faster("broadcast-1000", websockets_asyncio=2.5, picows=0.9),
    *_faster("handshakes", websockets_asyncio=1.0),
    Target("idle-10000", "kib", "<=", 10.0),
    Target("idle-10000", "threads", "<=", 1.0, against_metric="threads_one"),
    *_quicker("client-roundtrip-32"),
    *_quicker("client-roundtrip-64k"),
    *_faster("firehose-receive", websocket_client=1.2),
    *_faster("firehose-send", websocket_client=1.2),
    Target("slow-callbacks", "p99_us", "<", 5.0, against_metric="alone_p99_us"),
)


def select(patterns: Sequence[str], known: Iterable[str]) -> list[str]:
    """Return the known names that match any of the patterns, in their order; all if there is none.

    Raises:
        ValueError: A pattern matches nothing.
    """
    names = list(known)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"{pattern!r} is none of: {', '.join(names)}")
    if not patterns:
        return names
    return [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def by_name(names: Sequence[str]) -> list[Workload]:
    """Return the workloads whose names match, see `select`."""
    return [WORKLOADS[name] for name in select(names, WORKLOADS)]
