"""Sockets that systemd passes on, by its protocol."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

import syncws
from syncws.server import activation


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[int]]]:
    """Have listening sockets passed on under these names; return their ports."""
    opened: list[socket.socket] = []

    def call(names: str | None, **variables: str) -> list[int]:
        opened.extend(socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        # Beyond what is in use, in a row.
        first = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
        for number, sock in enumerate(opened):
            os.dup2(sock.fileno(), first + number, inheritable=True)
        monkeypatch.setattr(activation, "_FIRST", first)
        given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", **variables}
        if names is not None:
            given["LISTEN_FDNAMES"] = names
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        return [sock.getsockname()[1] for sock in opened]

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("not on this system")
    monkeypatch.setattr(activation, "_passed", None)
    yield call
    for sock in opened:
        sock.close()


Passed = Callable[..., list[int]]


def ports_of(sockets: list[socket.socket]) -> list[int]:
    """Return the ports, and close them."""
    ports = []
    for sock in sockets:
        assert not sock.get_inheritable()
        ports.append(sock.getsockname()[1])
        sock.close()
    return ports


def test_all_are_returned_once(passed: Passed) -> None:
    ports = passed("web:chat")
    assert ports_of(syncws.systemd_sockets()) == ports
    assert syncws.systemd_sockets() == []
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


def test_they_have_names(passed: Passed) -> None:
    ports = passed("web:chat")
    assert syncws.systemd_sockets("other") == []
    assert ports_of(syncws.systemd_sockets("chat")) == [ports[1]]
    assert syncws.systemd_sockets("chat") == []
    assert ports_of(syncws.systemd_sockets()) == [ports[0]]


def test_without_names_they_are_unknown(passed: Passed) -> None:
    ports = passed(None)
    assert ports_of(syncws.systemd_sockets("unknown")) == ports


def test_those_of_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "_passed", None)
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert syncws.systemd_sockets() == []
    assert os.environ["LISTEN_FDS"] == "1"


def test_without_systemd_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "_passed", None)
    monkeypatch.delenv("LISTEN_PID", raising=False)
    assert syncws.systemd_sockets() == []


@pytest.mark.parametrize("count", ["", "-1", "x", "²"])
def test_a_count_that_is_none(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "_passed", None)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    with pytest.raises(ValueError, match="LISTEN_FDS must be a number"):
        syncws.systemd_sockets()


def test_a_descriptor_that_is_not_there(passed: Passed) -> None:
    passed("", LISTEN_FDS="3")
    with pytest.raises(OSError, match="LISTEN_FDS=3, but descriptor"):
        syncws.systemd_sockets()


def test_a_listener_needs_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "_passed", [])
    with pytest.raises(ValueError, match="sockets is empty"):
        syncws.Listener(sockets=syncws.systemd_sockets())
