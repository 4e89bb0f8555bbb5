"""Metrics for Prometheus."""

from __future__ import annotations

import importlib
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import syncws
from syncws.integrations.prometheus import Metrics
from syncws.server.stats import ListenerStats
from tests.support import TEXT, RawPeer, listening, wait_until


class Echo(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)


def scrape(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Return the samples by name and labels' values."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, *sorted(sample.labels.values(), reverse=True)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_a_listener_counts_is_scraped() -> None:
    registry = CollectorRegistry()
    with listening(Echo()) as listener:
        Metrics(registry).add("chat", listener).add("default", syncws.default_engine())
        with RawPeer.connect(listener) as peer:
            peer.text("hello")
            peer.expect(TEXT, "hello")
            found = scrape(registry)
            assert found["syncws_connections_open", "chat"] == 1
            assert found["syncws_messages_received_total", "chat"] == 1
            assert found["syncws_received_bytes_total", "chat"] == 5
            assert found["syncws_sent_bytes_total", "chat"] == 5
            assert found["syncws_engine_threads", "default"] >= 1
            peer.finish()
        wait_until(lambda: not listener.stats().open)
        found = scrape(registry)
        assert found["syncws_connections_open", "chat"] == 0
        assert found["syncws_connections_accepted_total", "chat"] == 1
        assert sum(value for key, value in found.items() if "connections_closed" in key[0]) == 1


class Told:
    def __init__(self, **counts: object) -> None:
        empty = ListenerStats(0, 0, {}, 0, {}, 0, 0, 0, 0, 0)
        self._stats = empty._replace(**counts)  # type: ignore[arg-type]

    def stats(self) -> ListenerStats:
        return self._stats


def test_codes_that_clients_choose_make_few_series() -> None:
    registry = CollectorRegistry()
    closed = {1000: 5, 1006: 2, **dict.fromkeys(range(3000, 5000), 1)}
    Metrics(registry).add("a", Told(closed=closed, refused={404: 3})).add("b", Told())
    found = scrape(registry)
    series = {key[1:]: value for key, value in found.items() if "connections_closed" in key[0]}
    assert series == {("a", "1000"): 5, ("a", "1006"): 2, ("a", "3xxx"): 1000, ("a", "4xxx"): 1000}
    assert found["syncws_handshakes_refused_total", "a", "404"] == 3
    assert found["syncws_connections_open", "b"] == 0


def test_what_counts_nothing_is_refused() -> None:
    metrics = Metrics(registry=None)
    with pytest.raises(TypeError, match=r"metrics are of a syncws\.Listener, .* not 'chat'"):
        metrics.add("chat", "chat")  # type: ignore[arg-type]
    metrics.add("chat", Told()).add("chat", syncws.default_engine())
    with pytest.raises(ValueError, match="metrics of the name 'chat' already"):
        metrics.add("chat", Told())


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    monkeypatch.delitem(sys.modules, "syncws.integrations.prometheus")
    with pytest.raises(ImportError, match="pip install prometheus-client"):
        importlib.import_module("syncws.integrations.prometheus")
