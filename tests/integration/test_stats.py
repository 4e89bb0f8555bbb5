"""What is counted of connections and of a listener, and the line that each leaves in the log."""

from __future__ import annotations

import logging
import os
import re

import pytest

import syncws
from tests.support import HANG, TEXT, Gate, RawPeer, listening, wait_until


class Echo(syncws.Service):
    config = syncws.ServiceConfig(ping_interval=None, compression=False)

    def __init__(self) -> None:
        self.callers: list[syncws.Caller] = []

    def on_open(self, caller: syncws.Caller) -> None:
        self.callers.append(caller)

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text + "!")

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        raise RuntimeError("no binary messages here")


def test_messages_and_their_bytes_are_counted_live_and_after_the_end() -> None:
    service = Echo()
    group = syncws.Group()
    with listening(service) as listener:
        with RawPeer.connect(listener) as peer:
            for text in ("hello", "grün"):  # 5 bytes of each kind
                peer.text(text)
                peer.expect(TEXT, text + "!")
            caller = service.callers[0]
            group.add(caller)
            group.send_text("all")
            peer.expect(TEXT, "all")
            assert caller.stats()[:4] == (10, 15, 2, 3)
            wait_until(lambda: listener.stats().buffered_bytes == 0)
            assert listener.stats() == (1, 1, {}, 0, {}, 10, 15, 2, 3, 0)
            (info,) = listener.connections()
            assert info[:5] == (caller.id, "/", caller.remote_address, None, 0)
            assert info.stats[:4] == (10, 15, 2, 3)
            peer.finish()
        wait_until(lambda: listener.stats().open == 0)
        stats = listener.stats()
        assert stats[:2] == (0, 1)
        assert sum(stats.closed.values()) == 1
        assert stats[5:] == (10, 15, 2, 3, 0)
        assert listener.connections() == []
        lasted = caller.stats()
        assert lasted[:4] == (10, 15, 2, 3)
        assert lasted.duration > 0
        assert caller.stats() == lasted  # it does not go on


def test_a_message_counts_before_its_callback() -> None:
    seen: list[syncws.ConnectionStats] = []

    class Asking(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            seen.append(caller.stats())
            caller.send_text("")

    with listening(Asking()) as listener, RawPeer.connect(listener) as peer:
        for number in range(1, 4):
            peer.text("x" * number)
            peer.expect(TEXT, "")
    assert [(stats.messages_received, stats.bytes_received) for stats in seen] == [
        (1, 1),
        (2, 3),
        (3, 6),
    ]


def test_fragments_and_compressed_messages_count_as_what_they_say() -> None:
    class Count(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            caller.send_text(text)

    with listening(Count()) as listener:
        url = f"ws://localhost:{listener.port}/"
        with syncws.Client(url) as client:
            client.send_text("a" * 5000, final=False)
            client.send_text("b" * 5000)
            assert client.receive(timeout=HANG) == "a" * 5000 + "b" * 5000
            assert client.stats()[:4] == (10000, 10000, 1, 1)
            assert listener.stats()[5:9] == (10000, 10000, 1, 1)


def test_failures_and_refusals_are_counted() -> None:
    with listening(Echo()) as listener:
        url = f"ws://localhost:{listener.port}/"
        with pytest.raises(syncws.HandshakeRejected):
            syncws.Client(url + "nowhere")
        with syncws.Client(url) as client:
            client.send_binary(b"")
            with pytest.raises(syncws.ConnectionClosed):
                client.receive(timeout=HANG)
        wait_until(lambda: listener.stats().failed == 1)
        wait_until(lambda: listener.stats().refused == {404: 1})
        assert listener.stats().closed == {1011: 1}


def test_a_client_that_comes_back_adds_up() -> None:
    class Once(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            caller.send_text(text)
            if text == "go":
                caller.close(1012, timeout=0)

    with listening(Once()) as listener:
        url = f"ws://localhost:{listener.port}/"
        retry = syncws.RetryConfig(interval=0.0, wait_to_send=True)
        with syncws.Client(url, retry=retry) as client:
            for text in ("a", "go", "b"):
                client.send_text(text)
                assert client.receive(timeout=HANG) == text
            assert client.stats()[:4] == (4, 4, 3, 3)
        assert client.stats()[:4] == (4, 4, 3, 3)


def test_each_connection_leaves_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "syncws")
    service = Echo()
    with listening(service) as listener:
        url = f"ws://localhost:{listener.port}/?name=a%0ab"
        with syncws.Client(url) as client:
            client.send_text("hello")
            client.receive(timeout=HANG)
            host, port = client.local_address
            client.close(4001)
        wait_until(lambda: sum("closed: " in text for text in caplog.messages) == 2)
    found = {one.name: one.getMessage() for one in caplog.records if "closed: " in one.getMessage()}
    assert re.fullmatch(
        rf"connection {service.callers[0].id} closed: path=/\?name=a%0ab "
        rf"remote={host}:{port} code=4001 duration=\d+\.\d{{3}} "
        r"messages_in=1 bytes_in=5 messages_out=1 bytes_out=6",
        found["syncws.server"],
    )
    assert re.fullmatch(
        rf"connection closed: remote=127\.0\.0\.1:{listener_port(url)} code=4001 "
        r"duration=\d+\.\d{3} messages_in=1 bytes_in=6 messages_out=1 bytes_out=5",
        found["syncws.client"],
    )


def listener_port(url: str) -> str:
    return url.split(":")[2].split("/", maxsplit=1)[0]


def test_without_the_level_nothing_is_made_ready(caplog: pytest.LogCaptureFixture) -> None:
    service = Echo()
    with listening(service) as listener, RawPeer.connect(listener) as peer:
        peer.text("a")
        peer.expect(TEXT, "a!")
        peer.finish()
        wait_until(lambda: listener.stats().open == 0)
        assert service.callers[0]._id == ""  # an id is made when it is asked for
    assert caplog.messages == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_counts_anew() -> None:
    with listening(Echo()) as listener, RawPeer.connect(listener) as peer:
        peer.text("a")
        peer.expect(TEXT, "a!")
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writer, repr(tuple(listener.stats())).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as told:
            assert told.read() == b"(0, 0, {}, 0, {}, 0, 0, 0, 0, 0)"
        os.waitpid(child, 0)
        assert listener.stats().open == 1


def test_it_can_be_asked_from_a_callback() -> None:
    found: list[syncws.ListenerStats] = []
    with Gate() as gate:

        class Asking(syncws.Service):
            def on_open(self, caller: syncws.Caller) -> None:
                found.append(listener.stats())
                gate.block()

        with listening(Asking()) as listener, RawPeer.connect(listener):
            gate.reached()
            gate.open()
    assert found[0].open == 1
