"""An observer sees each callback, and can do no harm."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from syncws.testing import MemoryEngine, serving
from tests.support import HANG


class Notes:
    """Notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @contextlib.contextmanager
    def callback(self, endpoint: Any, name: str) -> Iterator[None]:
        self.seen.append((type(endpoint).__name__, name))
        try:
            yield
        except LookupError as exc:
            self.seen.append(exc)
            raise
        self.seen.append(f"{name} is over")


class Echo(syncws.Service):
    def on_open(self, caller: syncws.Caller) -> None:
        pass

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        if text == "fail":
            raise LookupError(text)
        caller.send_text(text)

    def on_error(self, caller: syncws.Caller, error: Exception) -> None:
        pass

    def on_close(self, caller: syncws.Caller, status_code: int, reason: str) -> None:
        pass


class Quiet(syncws.Service):
    def on_text(self, client: Any, text: str) -> None:
        pass


def test_every_callback_of_both_ends_is_seen() -> None:
    engine, notes = MemoryEngine(), Notes()
    engine.observe(notes)
    assert engine.observer is notes
    with serving(Echo(), engine=engine) as site:
        client = site.connect("/", service=Quiet())
        engine.settle()
        client.send_text("a")
        engine.settle()
        client.close()
    assert notes.seen == [
        ("Caller", "on_open"),
        "on_open is over",
        ("Caller", "on_text"),
        "on_text is over",
        ("Client", "on_text"),
        "on_text is over",
        ("Caller", "on_close"),
        "on_close is over",
    ]


def test_what_a_callback_raises_is_seen_and_not_held_up() -> None:
    engine, notes = MemoryEngine(), Notes()
    engine.observe(notes)
    with serving(Echo(), engine=engine) as site:
        client = site.connect("/")
        client.send_text("fail")
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.receive(HANG)
    assert caught.value.received == (1011, "internal error")
    assert isinstance(notes.seen[3], LookupError)
    assert [entry[1] for entry in notes.seen if isinstance(entry, tuple)] == [
        "on_open",
        "on_text",
        "on_error",
        "on_close",
    ]


def _raises(endpoint: Any, name: str) -> Any:
    raise OSError("no span")


@contextlib.contextmanager
def _raises_before(endpoint: Any, name: str) -> Iterator[None]:
    raise OSError("no span")
    yield


@contextlib.contextmanager
def _raises_after(endpoint: Any, name: str) -> Iterator[None]:
    yield
    raise OSError("no span")


@pytest.mark.parametrize("callback", [_raises, _raises_before, _raises_after])
def test_an_observer_that_raises_is_logged(
    callback: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def callback(self, endpoint: Any, name: str) -> Any:
            return callback(endpoint, name)

    engine = MemoryEngine()
    engine.observe(Broken())
    with serving(Echo(), engine=engine) as site:
        client = site.connect("/")
        client.send_text("a")
        assert client.receive(HANG) == "a"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 3  # on_open, on_text, on_close
    assert all("the observer <" in record.getMessage() for record in errors)
    assert "no span" in caplog.text


def test_it_cannot_suppress() -> None:
    class Swallowing:
        @contextlib.contextmanager
        def callback(self, endpoint: Any, name: str) -> Iterator[None]:
            with contextlib.suppress(LookupError):
                yield

    engine = MemoryEngine()
    engine.observe(Swallowing())
    with serving(Echo(), engine=engine) as site:
        client = site.connect("/")
        client.send_text("fail")
        with pytest.raises(syncws.ConnectionClosed):
            client.receive(HANG)


def test_what_is_no_observer() -> None:
    engine = syncws.Engine()
    with pytest.raises(TypeError, match=r"has a method callback\(endpoint, name\), not 7"):
        engine.observe(7)  # type: ignore[arg-type]
    engine.observe(None)
    assert engine.observer is None
