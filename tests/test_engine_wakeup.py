from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from syncws.engine import wakeup as module
from syncws.engine.loop import READ
from syncws.engine.wakeup import Wakeup


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def is_readable(wakeup: Wakeup) -> bool:
    return bool(select.select([wakeup], [], [], 0)[0])


def test_woken_and_drained(wakeup: Wakeup) -> None:
    assert not is_readable(wakeup)
    for _ in range(3):
        wakeup.wake()
        assert is_readable(wakeup)
        wakeup.on_ready(READ)
        assert not is_readable(wakeup)


def test_waking_needs_no_names_of_its_module(
    wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the interpreter they are None."""
    for name in [name for name in vars(module) if not name.startswith("__")]:
        monkeypatch.setattr(module, name, None)
    wakeup.wake()
    assert is_readable(wakeup)
    wakeup._reader.close()
    wakeup.wake()


@pytest.mark.parametrize("times", [2, 4095, 4096, 4097, 8192])
def test_many_wake_ups_are_drained_together(wakeup: Wakeup, times: int) -> None:
    wakeup._writer.send(b"\0" * (times - 1))  # one by one, the system takes fewer
    wakeup.wake()
    wakeup.on_ready(READ)
    assert not is_readable(wakeup)


def test_to_drain_without_a_wake_up_is_harmless(wakeup: Wakeup) -> None:
    wakeup.on_ready(READ)
    wakeup.wake()
    assert is_readable(wakeup)


def test_a_full_pair_does_not_block(wakeup: Wakeup) -> None:
    wakeup._writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for _ in range(100_000):
        wakeup.wake()
    assert is_readable(wakeup)
    wakeup.on_ready(READ)
    wakeup.on_ready(READ)
    assert not is_readable(wakeup)
    wakeup.wake()
    assert is_readable(wakeup)


def test_to_wake_what_is_closed_is_harmless() -> None:
    wakeup = Wakeup()
    wakeup.close()
    wakeup.wake()
    wakeup.close()
    assert wakeup.fileno() == -1
