"""What a listener counts, as JSON."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

import syncws
from syncws.integrations.stats import StatsApp, snapshot
from tests.support import HANG, RawPeer, listening, wait_until


class Silent(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        """Nothing comes back."""


def test_the_counts_come_as_json() -> None:
    with (
        listening(Silent()) as listener,
        syncws.Listener(0, app=StatsApp(listener)) as inside,
        RawPeer.connect(listener),
    ):
        url = f"http://localhost:{inside.port}/anything"
        with urllib.request.urlopen(url, timeout=HANG) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            told = json.load(answer)
        assert told["listener"]["open"] == 1
        assert set(told["engine"]) == set(syncws.EngineStats._fields)
        (one,) = told["connections"]
        (info,) = listener.connections()
        assert (one["id"], one["path"]) == (info.id, "/")
        assert set(one["stats"]) == set(syncws.ConnectionStats._fields)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url, data=b"", timeout=HANG)
        assert caught.value.code == 405
        caught.value.close()


def test_it_tells_of_those_that_carry_most_and_of_so_many_only() -> None:
    with (
        listening(Silent()) as listener,
        RawPeer.connect(listener),
        RawPeer.connect(listener) as peer,
        RawPeer.connect(listener),
    ):
        peer.text("hello")
        wait_until(lambda: listener.stats().bytes_received == 5)
        told = snapshot(listener, syncws.default_engine(), most=1)
    assert [one["stats"]["bytes_received"] for one in told["connections"]] == [5]
    assert told["listener"]["open"] == 3


def test_it_is_of_a_listener() -> None:
    with pytest.raises(TypeError, match=r"StatsApp tells of a syncws\.Listener, not 'x'"):
        StatsApp("x")  # type: ignore[arg-type]
