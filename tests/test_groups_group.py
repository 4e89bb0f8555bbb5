"""One message to many connections, over real sockets."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import syncws
from tests.support import (
    BINARY,
    CLOSE,
    HANG,
    TEXT,
    RawPeer,
    RawServer,
    Recorder,
    ServerRecorder,
    listening,
    wait_until,
)

CONFIG = syncws.ServiceConfig(ping_interval=None, compression=False)


@pytest.fixture
def service() -> ServerRecorder:
    return ServerRecorder(CONFIG)


@pytest.fixture
def listener(service: ServerRecorder) -> Iterator[syncws.Listener]:
    with listening(service) as running:
        yield running


class Join:
    """Connects clients to the service, and gives each with its caller."""

    def __init__(self, listener: syncws.Listener, service: ServerRecorder) -> None:
        self._listener = listener
        self._service = service
        self._clients: list[syncws.Client] = []

    def __call__(self, **options: Any) -> tuple[syncws.Client, syncws.Caller]:
        url = f"ws://127.0.0.1:{self._listener.port}/"
        client = syncws.Client(url, ping_interval=None, **options)
        self._clients.append(client)
        return client, self._service.expect("on_open")

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def join(listener: syncws.Listener, service: ServerRecorder) -> Iterator[Join]:
    joining = Join(listener, service)
    yield joining
    joining.close()


def test_every_member_gets_the_message(join: Join) -> None:
    pairs = [join() for _ in range(5)]
    group = syncws.Group(caller for _, caller in pairs)
    assert len(group) == 5
    assert set(group) == {caller for _, caller in pairs}
    assert group.send_text("déjà vu") == 5
    assert group.send_binary(bytearray(b"\x00\xff")) == 5
    for client, caller in pairs:
        assert caller in group
        assert client.receive(timeout=HANG) == "déjà vu"
        assert client.receive(timeout=HANG) == b"\x00\xff"


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 200_000])
def test_messages_of_every_size(join: Join, size: int) -> None:
    pairs = [join() for _ in range(3)]
    group = syncws.Group(caller for _, caller in pairs)
    group.send_binary(bytes(size))
    group.send_text("x" * size)
    for client, _ in pairs:
        assert client.receive(timeout=HANG) == bytes(size)
        assert client.receive(timeout=HANG) == "x" * size


def test_some_can_be_left_out(join: Join) -> None:
    pairs = [join() for _ in range(3)]
    callers = [caller for _, caller in pairs]
    group = syncws.Group(callers)
    assert group.send_text("not 0", exclude=callers[0]) == 2
    assert group.send_text("only 2", exclude=callers[:2]) == 1
    assert group.send_binary(b"none", exclude=group) == 0
    stranger = join()[1]
    assert group.send_text("all", exclude=[stranger]) == 3
    got = [[], ["not 0"], ["not 0", "only 2"]]
    for (client, _), before in zip(pairs, got, strict=True):
        assert [client.receive(timeout=HANG) for _ in before] == before
        assert client.receive(timeout=HANG) == "all"


def test_a_member_is_a_member_once(join: Join) -> None:
    client, caller = join()
    group = syncws.Group()
    assert group.add(caller)
    assert group.add(caller)
    assert len(group) == 1
    assert group.send_text("once") == 1
    group.discard(caller)
    group.discard(caller)
    assert caller not in group
    assert group.send_text("nobody") == 0
    caller.send_text("the end")
    assert [client.receive(timeout=HANG) for _ in range(2)] == ["once", "the end"]


def test_order_with_what_is_sent_to_a_member_alone(join: Join) -> None:
    pairs = [join() for _ in range(3)]
    group = syncws.Group(caller for _, caller in pairs)
    for number in range(200):
        group.send_text(f"all {number}")
        for _, caller in pairs:
            caller.send_text(f"one {number}")
    for client, _ in pairs:
        for number in range(200):
            assert client.receive(timeout=HANG) == f"all {number}"
            assert client.receive(timeout=HANG) == f"one {number}"


def test_a_fragmented_message_is_not_interrupted(
    listener: syncws.Listener, service: ServerRecorder
) -> None:
    with RawPeer.connect(listener) as peer:
        caller = service.expect("on_open")
        group = syncws.Group([caller])
        caller.send_text("begin", final=False)
        assert group.send_binary(b"group") == 1
        caller.send_text("end", final=True)
        frames = [peer.read() for _ in range(3)]
        assert [(one.opcode, one.payload, one.fin) for one in frames] == [
            (TEXT, b"begin", False),
            (0, b"end", True),
            (BINARY, b"group", True),
        ]
        peer.finish()
    service.expect("on_close")


def test_members_with_compression_get_it_between_compressed_messages(
    listener: syncws.Listener,
) -> None:
    service = ServerRecorder(syncws.ServiceConfig(ping_interval=None))
    listener.attach("/deflate", service)
    with syncws.Client(f"ws://127.0.0.1:{listener.port}/deflate", ping_interval=None) as client:
        caller = service.expect("on_open")
        group = syncws.Group([caller])
        text = "again and again " * 50
        for _ in range(3):
            caller.send_text(text)
            group.send_text(text)
        assert [client.receive(timeout=HANG) for _ in range(6)] == [text] * 6
    service.expect("on_close")


def test_a_member_leaves_when_it_ends(join: Join, service: ServerRecorder) -> None:
    staying, going = join(), join()
    group = syncws.Group([staying[1], going[1]])
    going[0].close()
    assert service.expect("on_close") is going[1]
    assert list(group) == [staying[1]]
    assert group.send_text("still here") == 1
    assert staying[0].receive(timeout=HANG) == "still here"
    assert not group.add(going[1])
    assert len(group) == 1


def test_a_group_keeps_nothing_of_who_has_ended(join: Join, service: ServerRecorder) -> None:
    client, caller = join()
    group = syncws.Group([caller])
    client.close()
    service.expect("on_close")
    gone = weakref.ref(caller)
    del caller

    def freed() -> bool:
        gc.collect()
        return gone() is None

    wait_until(freed)  # the worker has yet to return from on_close
    assert not group


def test_a_connection_keeps_no_group_that_it_has_left(join: Join) -> None:
    _, caller = join()
    group = syncws.Group([caller])
    group.discard(caller)
    gone = weakref.ref(group)
    del group
    assert gone() is None
    assert caller.is_open


def test_a_member_that_is_closing_gets_nothing(
    listener: syncws.Listener, service: ServerRecorder
) -> None:
    with RawPeer.connect(listener) as peer:
        caller = service.expect("on_open")
        group = syncws.Group([caller])
        caller.close(4000, timeout=0)
        assert group.send_text("too late") == 0
        peer.expect_close(4000)
        peer.close_frame(4000)
        peer.expect_end()
    service.expect("on_close")


def test_a_slow_member_holds_up_nobody_and_is_closed(listener: syncws.Listener) -> None:
    config = syncws.ServiceConfig(
        ping_interval=None, compression=False, send_buffer_size=100_000, close_timeout=0.2
    )
    service = ServerRecorder(config)
    listener.attach("/slow", service)
    url = f"ws://127.0.0.1:{listener.port}/slow"
    with (
        RawPeer.connect(listener, "/slow") as sleeper,
        syncws.Client(url, ping_interval=None) as reader,
    ):
        callers = [service.expect("on_open") for _ in range(2)]
        group = syncws.Group(callers)
        message = bytes(50_000)
        sent = 0
        # The system's buffers take some megabytes before ours fill.
        while group.send_binary(message) == 2:
            assert reader.receive(timeout=HANG) == message
            sent += 1
            assert sent < 2000
        assert reader.receive(timeout=HANG) == message
        call = service.next()
        assert call.name == "on_error"
        assert isinstance(call.args[0], syncws.SendTimeout)
        assert service.expect("on_close", 1006, "") is call.endpoint
        assert call.endpoint not in group
        assert len(group) == 1
        # What was taken for it is on its way, and whole.
        for _ in range(sent // 2):
            assert sleeper.read().payload == message
        assert group.send_text("on") == 1
        assert reader.receive(timeout=HANG) == "on"
    service.expect("on_close")


def test_clients_can_be_members() -> None:
    with RawServer() as server:
        recorders = [Recorder() for _ in range(2)]
        clients, peers = [], []
        for recorder in recorders:
            opening = server.open_client(service=recorder, ping_interval=None)
            peer = server.accept()
            peer.answer()
            clients.append(opening.result())
            peers.append(peer)
        group = syncws.Group(clients)
        assert group.send_text("hello") == 2
        for peer in peers:
            got = peer.read()
            assert (got.opcode, got.payload, got.masked) == (TEXT, b"hello", True)
        for client, peer in zip(clients, peers, strict=True):
            client.close(timeout=0)
            peer.expect(CLOSE)
            peer.close_frame()
            peer.end_writing()
        for recorder, peer in zip(recorders, peers, strict=True):
            recorder.expect("on_close", 1000, "")
            peer.abort()


def test_a_callback_may_send_to_its_group(listener: syncws.Listener) -> None:
    group = syncws.Group()

    class Chat(syncws.Service):
        config = CONFIG

        def on_open(self, caller: syncws.Caller) -> None:
            group.add(caller)

        def on_text(self, caller: syncws.Caller, text: str) -> None:
            group.send_text(text, exclude=caller)
            caller.send_text("sent")

    listener.attach("/chat", Chat())
    url = f"ws://127.0.0.1:{listener.port}/chat"
    with (
        syncws.Client(url, ping_interval=None) as one,
        syncws.Client(url, ping_interval=None) as other,
    ):
        other.send_text("here")
        assert other.receive(timeout=HANG) == "sent"  # so it has been added
        one.send_text("hello")
        assert other.receive(timeout=HANG) == "hello"
        got = [one.receive(timeout=HANG)]
        if got == ["here"]:  # it had been added by then
            got.append(one.receive(timeout=HANG))
        assert got[-1] == "sent"


def test_with_an_idle_timeout_a_groups_message_is_a_message(listener: syncws.Listener) -> None:
    service = ServerRecorder(syncws.ServiceConfig(ping_interval=None, idle_timeout=1000))
    listener.attach("/idle", service)
    with syncws.Client(f"ws://127.0.0.1:{listener.port}/idle", ping_interval=None) as client:
        caller = service.expect("on_open")
        watch = caller._connection._watch
        watch.last_message = 0.0
        syncws.Group([caller]).send_text("hello")
        assert watch.last_message > 0.0
        assert client.receive(timeout=HANG) == "hello"
    service.expect("on_close")


@pytest.mark.parametrize("wrong", [None, "caller", object(), syncws.Group()])
def test_what_is_no_member(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a group's member is a Caller or a Client, not"):
        syncws.Group().add(wrong)


def test_wrong_messages_are_refused(join: Join) -> None:
    client, caller = join()
    group = syncws.Group([caller])
    with pytest.raises(TypeError, match=r"send_text takes a str, not bytes: b'x'"):
        group.send_text(b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"send_binary takes bytes, not str: 'x'"):
        group.send_binary("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="surrogates"):
        group.send_text("\ud800")
    group.send_text("right")
    assert client.receive(timeout=HANG) == "right"


def test_a_group_says_how_many_it_has(join: Join) -> None:
    group = syncws.Group([join()[1]])
    assert group.name is None
    assert repr(group) == "<syncws.Group of 1>"
    assert repr(syncws.Group(name="lobby")) == "<syncws.Group 'lobby' of 0>"
    assert syncws.Group(name="lobby").name == "lobby"


def test_json_is_a_callers(join: Join) -> None:
    client, caller = join()
    group = syncws.Group([caller])
    value = {"déjà": [1, 2.5, None, True], "": "vu"}
    assert group.send_json(value) == 1
    caller.send_json(value)
    assert client.receive(timeout=HANG) == '{"déjà":[1,2.5,null,true],"":"vu"}'
    assert client.receive(timeout=HANG) == '{"déjà":[1,2.5,null,true],"":"vu"}'
    assert group.send_json(value, exclude=caller) == 0
    for wrong, error in ((object(), TypeError), (float("nan"), ValueError), ("\ud800", ValueError)):
        with pytest.raises(error) as ours:
            group.send_json(wrong)
        with pytest.raises(error) as theirs:
            caller.send_json(wrong)
        assert str(ours.value) == str(theirs.value)
    caller.send_text("the end")
    assert client.receive(timeout=HANG) == "the end"


def test_clearing_closes_nobody(join: Join) -> None:
    pairs = [join() for _ in range(3)]
    group = syncws.Group(caller for _, caller in pairs)
    group.clear()
    group.clear()
    assert not group
    assert group.send_text("nobody") == 0
    for client, caller in pairs:
        caller.send_text("still open")
        assert client.receive(timeout=HANG) == "still open"


def test_closing_closes_all_and_waits_for_none(
    listener: syncws.Listener, service: ServerRecorder
) -> None:
    with RawPeer.connect(listener) as one, RawPeer.connect(listener) as other:
        callers = [service.expect("on_open") for _ in range(2)]
        group = syncws.Group(callers)
        group.close(4000, "the room is closed")  # while the peers have not answered
        for peer in (one, other):
            assert peer.expect_close(4000) == (4000, "the room is closed")
        assert group.send_text("too late") == 0
        assert len(group) == 2  # until they have ended
        for peer in (one, other):
            peer.close_frame(4000)
            peer.expect_end()
        for _ in callers:
            service.expect("on_close", 4000, "")
        assert len(group) == 0
    group.close()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((1005,), ValueError, "status_code 1005 cannot be sent"),
        (("1000",), TypeError, "status_code must be an int"),
        ((1000, "x" * 124), ValueError, "reason takes up to 123 bytes"),
        ((1000, None), TypeError, "reason must be a str"),
    ],
)
def test_closing_for_a_wrong_reason_closes_nobody(
    join: Join, arguments: tuple[Any, ...], error: type[Exception], match: str
) -> None:
    _, caller = join()
    group = syncws.Group([caller])
    with pytest.raises(error, match=match):
        group.close(*arguments)
    with pytest.raises(error, match=match):
        syncws.Group().close(*arguments)
    assert caller.is_open


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="one of 'close', 'drop_newest', 'drop_oldest', not 'x'"):
        syncws.Group(policy="x")
    with pytest.raises(TypeError, match="a group's name is a str, not 7"):
        syncws.Group(name=7)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        syncws.Group((), "name")  # type: ignore[misc]


def test_a_group_that_reaches_further(join: Join) -> None:
    """Sending and what is done here of it are two: what `_send` gets has been checked."""
    sent = []

    class Far(syncws.Group):
        def _send(self, opcode: int, payload: bytes, exclude: Any) -> int:
            sent.append((opcode, payload, set(exclude)))
            return 7

    client, caller = join()
    group = Far([caller])
    assert repr(group) == "<syncws.Far of 1>"
    assert group.send_text("é", exclude=caller) == 7
    assert group.send_json([1]) == 7
    assert group.send_binary(memoryview(b"b"), exclude=[caller]) == 7
    with pytest.raises(TypeError):
        group.send_text(b"x")  # type: ignore[arg-type]
    assert sent == [
        (TEXT, "é".encode(), {caller}),
        (TEXT, b"[1]", set()),
        (BINARY, b"b", {caller}),
    ]
    assert group._deliver(TEXT, b"from elsewhere", frozenset()) == 1
    assert group._deliver(TEXT, b"not to you", {caller}) == 0
    assert group._deliver(TEXT, b"the end", frozenset()) == 1
    assert [client.receive(timeout=HANG) for _ in range(2)] == ["from elsewhere", "the end"]


def fill(caller: syncws.Caller) -> None:
    """Let it have no room for anything, until `drain`."""
    outbound = caller._connection.outbound
    with outbound.lock:
        outbound._set_room(-1)


def drain(caller: syncws.Caller) -> None:
    caller._connection.outbound.relax()


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
def test_what_is_dropped_is_counted(join: Join, policy: str) -> None:
    pairs = [join() for _ in range(3)]
    (_, slow), (_, slower), (_, good) = pairs
    group = syncws.Group((caller for _, caller in pairs), policy=policy)
    assert group.policy == policy
    assert group.dropped == 0
    fill(slower)
    assert group.send_text("1") == 2
    for client in (pairs[0][0], pairs[2][0]):
        assert client.receive(timeout=HANG) == "1"  # so that nothing waits that could be dropped
    wait_until(lambda: not slow.buffered_amount)
    fill(slow)
    assert group.send_text("2") == 1
    assert group.send_text("3", exclude=slow) == 1
    assert group.send_text("4", exclude=[slow, slower]) == 1
    drain(slow)
    drain(slower)
    assert group.send_text("5") == 3
    assert (group.dropped_of(slow), group.dropped_of(slower), group.dropped_of(good)) == (1, 3, 0)
    assert group.dropped == 4
    assert group.dropped_of(None) == 0  # type: ignore[arg-type]
    expected = [["5"], ["5"], ["2", "3", "4", "5"]]
    for (client, _), texts in zip(pairs, expected, strict=True):
        assert [client.receive(timeout=HANG) for _ in texts] == texts


def test_a_slow_member_is_told_of_once_a_minute(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, slow), (_, other) = join(), join()
    group = syncws.Group([slow, other], name="prices", policy="drop_newest")
    told: list[Any] = []
    now = 1000.0
    outbounds = [caller._connection.outbound for caller in (slow, other)]
    monkeypatch.setattr(type(outbounds[0]), "clock", lambda self: now)
    monkeypatch.setattr(
        type(outbounds[0]), "log_soon", lambda self, log, level, text, *args: told.append(args)
    )
    fill(slow)
    for _ in range(5):
        group.send_text("x")
    assert told == [(slow, group, 1)]
    now += 59.0
    group.send_text("x")
    assert len(told) == 1
    fill(other)
    group.send_text("x")
    assert told[1:] == [(other, group, 1)]
    now += 1.0
    group.send_text("x")
    assert told[2:] == [(slow, group, 8)]
    drain(slow)
    drain(other)


def test_a_queued_message_keeps_no_group(join: Join) -> None:
    _, caller = join()
    group = syncws.Group([caller], policy="drop_oldest")
    with caller._connection.outbound.lock:
        caller._connection.outbound._midway = True  # so that it waits
    assert group.send_text("waits") == 1
    group.discard(caller)
    gone = weakref.ref(group)
    del group
    assert gone() is None
    with caller._connection.outbound.lock:
        caller._connection.outbound._set_midway(False)


def test_a_client_that_connects_again_misses_what_comes_meanwhile() -> None:
    retry = syncws.RetryConfig(interval=0.01, jitter=0.0)
    with RawServer() as server:
        opening = server.open_client(service=Recorder(), retry=retry, ping_interval=None)
        peer = server.accept()
        peer.answer()
        client = opening.result()
        group = syncws.Group([client], policy="drop_oldest")
        assert group.send_text("1") == 1
        peer.expect(TEXT, b"1")
        peer.abort()
        with server.accept() as again:
            assert group.send_text("2") == 0  # there is no connection yet
            again.answer()
            wait_until(lambda: client.is_open)
            assert group.send_text("3") == 1
            again.expect(TEXT, b"3")
            assert client in group
            assert group.dropped == 0
            client.close(timeout=0)
            again.expect_close(1000)
            again.close_frame()
            again.expect_end()
            client.wait_closed(HANG)
        assert client not in group
