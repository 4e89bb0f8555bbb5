"""Listening sockets: which there are, and what becomes of those who connect."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from syncws.engine.loop import READ
from syncws.server import acceptor as module
from syncws.server.acceptor import Acceptor, open_sockets

# -- Accepting ---------------------------------------------------------------
from tests.scripted import DirectJournal


class FakeLoop:
    """What an acceptor sees of a loop."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registered: dict[Any, tuple[int, Any]] = {}
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.owned: set[Any] = set()
        self.journal = DirectJournal()

    def clock(self) -> float:
        return self.now

    def register(self, fileobj: Any, mask: int, handler: Any) -> None:
        assert fileobj not in self.registered
        self.registered[fileobj] = (mask, handler)

    def unregister(self, fileobj: Any) -> None:
        del self.registered[fileobj]

    def call_at(self, when: float, call: Callable[[], None], owner: Any) -> None:
        self.timers.append((when, call))

    def own(self, handler: Any) -> None:
        self.owned.add(handler)

    def disown(self, handler: Any) -> None:
        self.owned.discard(handler)


class FakeSocket:
    """A listening socket that accepts what the test says."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.closed = 0

    def accept(self) -> tuple[object, object]:
        if not self.outcomes:
            raise BlockingIOError
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome, ("address", 1)

    def fileno(self) -> int:
        return -1 if self.closed else 3

    def close(self) -> None:
        self.closed += 1


def acceptor_of(*outcomes: object) -> tuple[Acceptor, FakeLoop, FakeSocket, list[object]]:
    loop, sock = FakeLoop(), FakeSocket(*outcomes)
    accepted: list[object] = []
    acceptor = Acceptor(loop, sock, accepted.append)  # type: ignore[arg-type]
    acceptor.listen()
    assert loop.registered == {sock: (READ, acceptor)}
    return acceptor, loop, sock, accepted


def test_everyone_who_waits_is_accepted() -> None:
    acceptor, loop, sock, accepted = acceptor_of("a", "b", "c")
    acceptor.on_ready(READ)
    assert accepted == ["a", "b", "c"]
    assert sock in loop.registered


def test_others_have_their_turn_behind_a_batch() -> None:
    acceptor, _, sock, accepted = acceptor_of(*range(100))
    acceptor.on_ready(READ)
    assert len(accepted) == 64
    acceptor.on_ready(READ)
    assert accepted == list(range(100))
    assert sock.outcomes == []


def test_a_client_that_went_away_is_passed_over() -> None:
    gone = OSError(errno.ECONNABORTED, "gone")
    acceptor, loop, sock, accepted = acceptor_of(gone, "a", gone, "b")
    acceptor.on_ready(READ)
    assert accepted == ["a", "b"]
    assert sock in loop.registered


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_it_waits_when_the_system_has_nothing_left(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    acceptor, loop, sock, accepted = acceptor_of("a", OSError(code, os.strerror(code)), "b")
    acceptor.on_ready(READ)
    assert accepted == ["a"]
    assert loop.registered == {}  # trying on would only spin
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("syncws.server", logging.ERROR)
    assert os.strerror(code) in record.getMessage()
    ((when, again),) = loop.timers
    assert when == loop.now + 0.5
    again()
    assert loop.registered == {sock: (READ, acceptor)}
    acceptor.on_ready(READ)
    assert accepted == ["a", "b"]


def test_one_that_waits_can_be_stopped() -> None:
    acceptor, loop, sock, _ = acceptor_of(OSError(errno.EMFILE, "x"))
    acceptor.on_ready(READ)
    acceptor.abort()
    assert sock.closed
    loop.timers[0][1]()  # comes too late
    assert loop.registered == {}
    assert loop.owned == set()


def test_abort_twice_is_harmless() -> None:
    acceptor, loop, sock, _ = acceptor_of()
    assert loop.owned == {acceptor}
    acceptor.abort()
    acceptor.abort()
    assert sock.closed
    assert loop.registered == {}
    assert loop.owned == set()


def test_a_failure_behind_it_does_not_end_it() -> None:
    acceptor, loop, sock, _ = acceptor_of()
    acceptor.on_loop_error(ValueError())
    assert sock in loop.registered
    assert not sock.closed


def test_in_a_forked_child_only_the_descriptor_goes() -> None:
    acceptor, loop, sock, _ = acceptor_of()
    acceptor.abandon()
    assert sock.closed
    assert sock in loop.registered  # the parent's selector is not touched


# -- Opening: TCP ------------------------------------------------------------


@pytest.fixture
def opened() -> Iterator[Callable[..., list[socket.socket]]]:
    """Call `open_sockets`, and close what it returns in the end."""
    sockets: list[socket.socket] = []

    def call(
        host: str = "127.0.0.1", port: int = 0, unix_path: str | None = None
    ) -> list[socket.socket]:
        found = open_sockets(host, port, unix_path, 5)
        sockets.extend(found)
        return found

    yield call
    for sock in sockets:
        sock.close()


Opened = Callable[..., list[socket.socket]]


def resolve_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    """Let every name have these IPv4 addresses."""

    def getaddrinfo(host: object, port: int, **options: Any) -> list[Any]:
        assert options["flags"] & socket.AI_PASSIVE
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts]

    monkeypatch.setattr(module.socket, "getaddrinfo", getaddrinfo)


def test_a_free_port(opened: Opened) -> None:
    (sock,) = opened()
    assert sock.getsockname()[0] == "127.0.0.1"
    assert sock.getsockname()[1] > 0
    assert not sock.getblocking()
    with socket.create_connection(sock.getsockname()):
        pass


def test_all_addresses_of_a_name_share_one_port(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1")
    sockets = opened("name")
    assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert len({sock.getsockname()[1] for sock in sockets}) == 1


def test_a_port_in_use_is_named_with_the_way_out(opened: Opened) -> None:
    (sock,) = opened()
    port = sock.getsockname()[1]
    with pytest.raises(OSError, match=f"127.0.0.1 port {port}: .* another port") as caught:
        open_sockets("127.0.0.1", port, None, 5)
    assert caught.value.errno == errno.EADDRINUSE


def test_nothing_is_left_open_when_one_address_fails(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    (taken,) = opened("127.0.0.1")
    port = taken.getsockname()[1]
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")
    with pytest.raises(OSError, match=f"127.0.0.1 port {port}"):
        open_sockets("name", port, None, 5)
    resolve_to(monkeypatch, "127.0.0.2")
    opened("name", port)  # free again


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1 port 0") as caught:
        open_sockets("192.0.2.1", 0, None, 5)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def without_ipv6(monkeypatch: pytest.MonkeyPatch, missing: str, *hosts: str) -> None:
    """Be a system without IPv6, where names still have IPv6 addresses: these in their order."""

    class Socket(socket.socket):
        def __init__(self, family: int = -1, *args: Any) -> None:
            if family == socket.AF_INET6 and missing == "family":
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            # There may be none here either.
            super().__init__(socket.AF_INET if family == socket.AF_INET6 else family, *args)

        def bind(self, address: Any) -> None:
            if ":" in address[0]:
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            super().bind(address)

        def setsockopt(self, level: int, *args: Any) -> None:
            if level != socket.IPPROTO_IPV6:
                super().setsockopt(level, *args)

    def getaddrinfo(host: object, port: int, **options: Any) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in hosts
        ]

    monkeypatch.setattr(module.socket, "socket", Socket)
    monkeypatch.setattr(module.socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("missing", ["family", "address"])
@pytest.mark.parametrize("hosts", [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_a_family_that_the_system_lacks_is_passed_over(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, missing: str, hosts: tuple[str, ...]
) -> None:
    without_ipv6(monkeypatch, missing, *hosts)
    (sock,) = opened("localhost")
    assert sock.getsockname()[0] == "127.0.0.1"
    assert sock.getsockname()[1] > 0


@pytest.mark.parametrize("missing", ["family", "address"])
def test_no_address_is_left(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    without_ipv6(monkeypatch, missing, "::1")
    with pytest.raises(OSError, match="cannot listen on ::1 port 80") as caught:
        open_sockets("localhost", 80, None, 5)
    assert caught.value.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*args: object, **options: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(module.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match="cannot listen on 'nowhere': Name or service not known"):
        open_sockets("nowhere", 0, None, 5)


def test_all_interfaces(opened: Opened) -> None:
    hosts = {sock.getsockname()[0] for sock in opened("")}
    assert "0.0.0.0" in hosts
    assert hosts <= {"0.0.0.0", "::"}


# -- Opening: Unix -----------------------------------------------------------


def test_a_unix_path(opened: Opened, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    (sock,) = opened(unix_path=path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert not sock.getblocking()


def test_a_stale_unix_path_is_taken_over(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        stale.listen()
    opened(unix_path=str(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_unix_path_in_use_is_left_alone(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    opened(unix_path=str(path))
    with pytest.raises(OSError, match=f"cannot listen on {path}") as caught:
        open_sockets("", 0, str(path), 5)
    assert caught.value.errno == errno.EADDRINUSE
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match=f"cannot listen on {path}"):
        open_sockets("", 0, str(path), 5)
    assert stat.S_ISREG(path.stat().st_mode)
    assert path.read_text() == "precious"


def test_a_unix_path_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory") as caught:
        open_sockets("", 0, str(tmp_path / "none" / "socket"), 5)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="too long"):
        open_sockets("", 0, str(tmp_path / ("x" * 200)), 5)
    with pytest.raises((OSError, ValueError), match="null"):
        open_sockets("", 0, f"{tmp_path}/a\0b", 5)
