"""Metrics for Prometheus: what listeners and engines count, read when they are scraped.

    from prometheus_client import start_http_server
    from syncws.integrations.prometheus import Metrics

    Metrics().add("chat", listener)
    start_http_server(9100, addr="127.0.0.1")

Nothing is done for a message; needs `pip install prometheus-client`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

from ..engine.engine import Engine
from ..server.stats import ListenerStats

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry
except ImportError as exc:
    raise ImportError(
        "syncws.integrations.prometheus needs prometheus-client: pip install prometheus-client"
    ) from exc

__all__ = ["Counting", "Metrics"]

# Gauges and counters of a listener: the field, the name, and what it says.
_GAUGES = (
    ("open", "connections_open", "WebSockets that are open"),
    ("buffered_bytes", "buffered_bytes", "Bytes that clients have not taken yet"),
)
_COUNTERS = (
    ("accepted", "connections_accepted", "WebSockets that were opened"),
    ("failed", "connections_failed", "WebSockets that ended with an error"),
    ("messages_received", "messages_received", "Messages that have come"),
    ("messages_sent", "messages_sent", "Messages that were sent"),
    ("bytes_received", "received_bytes", "Bytes of messages that have come"),
    ("bytes_sent", "sent_bytes", "Bytes of messages that were sent"),
)
_BY_CODE = (
    ("closed", "connections_closed", "code", "WebSockets that ended, by close code"),
    ("refused", "handshakes_refused", "status", "Handshakes that were refused, by HTTP status"),
)
_ENGINE = (
    ("threads", "engine_threads", "Worker threads"),
    ("idle", "engine_threads_idle", "Workers without work"),
    ("blocked", "engine_threads_blocked", "Workers whose callback waits or computes"),
    ("queued", "engine_connections_queued", "Connections that wait for a worker"),
)


class Counting(Protocol):
    """A `syncws.Listener`, or the `WebSockets` of an application."""

    def stats(self) -> ListenerStats:
        """Return what was counted so far."""


class Metrics(Collector):
    """A collector for what is added to it.

    Args:
        registry: Where to register it; None: nowhere, do it yourself. Of one
            registry it can be the only one: add all listeners to it.

    Any thread. The counts are of one process: of several, each has its own.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        # Guarded by _lock.
        self._lock = threading.Lock()
        self._listeners: dict[str, Counting] = {}
        self._engines: dict[str, Engine] = {}
        if registry is not None:
            registry.register(self)

    def add(self, name: str, source: Counting | Engine) -> Metrics:
        """Add a listener, the `WebSockets` of an application, or an engine; return this.

        Args:
            name: Its label in the metrics, `listener` or `engine`.
            source: What counts.

        Raises:
            TypeError: It is none of those.
            ValueError: The name is taken.
        """
        if not (isinstance(source, Engine) or callable(getattr(source, "stats", None))):
            raise TypeError(
                "metrics are of a syncws.Listener, of an application's WebSockets or of a "
                f"syncws.Engine, not {source!r}"
            )
        with self._lock:
            if name in (self._engines if isinstance(source, Engine) else self._listeners):
                raise ValueError(f"there are metrics of the name {name!r} already")
            if isinstance(source, Engine):
                self._engines[name] = source
            else:
                self._listeners[name] = source
        return self

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now; called by the registry."""
        with self._lock:
            listeners = {name: one.stats() for name, one in self._listeners.items()}
            engines = {name: one.stats() for name, one in self._engines.items()}
        for field, name, text in _GAUGES:
            gauge = GaugeMetricFamily(f"syncws_{name}", text, labels=["listener"])
            for label, stats in listeners.items():
                gauge.add_metric([label], getattr(stats, field))
            yield gauge
        for field, name, text in _COUNTERS:
            counter = CounterMetricFamily(f"syncws_{name}", text, labels=["listener"])
            for label, stats in listeners.items():
                counter.add_metric([label], getattr(stats, field))
            yield counter
        for field, name, kind, text in _BY_CODE:
            counter = CounterMetricFamily(f"syncws_{name}", text, labels=["listener", kind])
            for label, stats in listeners.items():
                for code, number in _grouped(getattr(stats, field)).items():
                    counter.add_metric([label, code], number)
            yield counter
        for field, name, text in _ENGINE:
            gauge = GaugeMetricFamily(f"syncws_{name}", text, labels=["engine"])
            for label, running in engines.items():
                gauge.add_metric([label], getattr(running, field))
            yield gauge


def _grouped(counts: dict[int, int]) -> dict[str, int]:
    """Return counts by code: those that clients may choose freely make two series only.

    RFC 6455 section 7.4.2.
    """
    grouped: dict[str, int] = {}
    for code, number in counts.items():
        label = f"{code // 1000}xxx" if code >= 3000 else str(code)
        grouped[label] = grouped.get(label, 0) + number
    return grouped
