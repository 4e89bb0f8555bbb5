"""Sockets in memory do what the engine and the handshakes ask of sockets."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from syncws.engine.poller import READ, WRITE
from syncws.testing.network import CAPACITY, MemoryPoller, MemoryWakeup, Network
from tests.support import HANG, Task, wait_until


def pair(network: Network | None = None) -> tuple[Any, Any]:
    network = network or Network()
    with network.listen(9090, None) as listening:
        ours = network.connect(9090, None)
        theirs, address = listening.accept()
    assert address == ours.getsockname()
    return ours, theirs


def test_what_is_sent_arrives_in_order() -> None:
    ours, theirs = pair()
    assert ours.send(b"hello ") == 6
    assert ours.sendmsg([b"my", memoryview(b"self")]) == 6
    assert theirs.recv(3) == b"hel"
    assert theirs.recv(2, socket.MSG_PEEK) == b"lo"
    buffer = bytearray(100)
    assert theirs.recv_into(buffer) == 9
    assert buffer[:9] == b"lo myself"
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_addresses() -> None:
    ours, theirs = pair()
    assert ours.getpeername() == theirs.getsockname() == ("127.0.0.1", 9090)
    assert theirs.getpeername() == ours.getsockname()
    assert ours.getsockname()[1] >= 49_152
    assert ours.family == socket.AF_INET
    assert ours.fileno() != theirs.fileno()
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ours.setblocking(False)


def test_a_path() -> None:
    network = Network()
    listening = network.listen(0, "/run/chat")
    assert (listening.getsockname(), listening.family) == ("/run/chat", socket.AF_UNIX)
    assert network.connect(0, "/run/chat").getpeername() == "/run/chat"


def test_a_port_is_taken_once() -> None:
    network = Network()
    first = network.listen(80, None)
    with pytest.raises(OSError, match="cannot listen on port 80 in memory") as caught:
        network.listen(80, None)
    assert caught.value.errno == errno.EADDRINUSE
    first.close()
    first.close()
    assert first.fileno() == -1
    network.listen(80, None)


def test_port_0_finds_a_free_one() -> None:
    network = Network()
    ports = {network.listen(0, None).getsockname()[1] for _ in range(5)}
    assert len(ports) == 5


def test_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        Network().connect(9090, None)


def test_who_was_not_accepted_is_cut_off() -> None:
    network = Network()
    with network.listen(80, None):
        ours = network.connect(80, None)
    with pytest.raises(ConnectionResetError):
        ours.recv(1)
    with pytest.raises(BrokenPipeError):
        ours.send(b"x")


def test_nobody_waits_to_be_accepted() -> None:
    with Network().listen(80, None) as listening, pytest.raises(BlockingIOError):
        listening.accept()


def test_room_is_bounded() -> None:
    ours, theirs = pair()
    assert ours.send(bytes(CAPACITY + 1)) == CAPACITY
    assert not ours.readiness() & WRITE
    with pytest.raises(BlockingIOError):
        ours.send(b"x")
    theirs.recv(10)
    assert ours.readiness() & WRITE
    assert ours.send(bytes(20)) == 10


def test_an_end_comes_after_what_was_sent() -> None:
    ours, theirs = pair()
    ours.send(b"bye")
    ours.close()
    ours.close()
    assert theirs.readiness() == READ | WRITE
    assert (theirs.recv(10), theirs.recv(10)) == (b"bye", b"")
    with pytest.raises(BrokenPipeError):
        theirs.send(b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        ours.recv(1)


def test_half_an_end() -> None:
    ours, theirs = pair()
    ours.shutdown(socket.SHUT_WR)
    assert theirs.recv(1) == b""
    theirs.send(b"still")
    assert ours.recv(9) == b"still"
    with pytest.raises(BrokenPipeError):
        ours.send(b"x")
    ours.shutdown(socket.SHUT_RDWR)
    assert ours.recv(1) == b""


def test_a_reset_loses_what_was_on_the_way() -> None:
    ours, theirs = pair()
    ours.send(b"lost")
    ours.reset()
    with pytest.raises(ConnectionResetError):
        theirs.recv(10)


def test_waiting_for_a_socket() -> None:
    ours, theirs = pair()
    assert theirs.wait_ready(True, 0)
    assert not theirs.wait_ready(False, 0)
    waiting = Task(theirs.wait_ready, False, HANG)
    ours.send(b"x")
    assert waiting.result()


# -- The poller ---------------------------------------------------------------


def test_the_poller_tells_of_what_is_ready_until_it_is_not() -> None:
    network = Network()
    ours, theirs = pair(network)
    poller = MemoryPoller(network)
    poller.register(theirs, READ, "owner")
    assert poller.poll(0) == []
    ours.send(b"x")
    assert poller.poll(None) == poller.poll(0) == [("owner", READ)]
    theirs.recv(1)
    assert poller.poll(0) == []
    poller.modify(theirs, READ | WRITE, "another")
    assert poller.poll(0) == [("another", WRITE)]
    poller.unregister(theirs)
    poller.unregister(theirs)
    assert poller.poll(0) == []
    poller.register(theirs, WRITE, "again")
    with pytest.raises(FileExistsError):
        poller.register(theirs, READ, "twice")
    poller.close()
    assert poller.poll(0) == []


def test_the_poller_wakes_up() -> None:
    network = Network()
    poller, wakeup = MemoryPoller(network), MemoryWakeup(network)
    poller.register(wakeup, READ, wakeup)
    woken = Task(poller.poll, None)
    wait_until(lambda: poller.asleep)
    wakeup.wake()
    assert woken.result() == [(wakeup, READ)]
    wakeup.on_ready(READ)
    assert poller.poll(0.001) == []
