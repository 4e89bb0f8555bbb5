"""Rooms by name, with real members, and a backplane that writes down what it is asked."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import syncws
from syncws.groups.backplane import Deliver
from tests.support import HANG, ServerRecorder, interpreter, listening, wait_until

CONFIG = syncws.ServiceConfig(ping_interval=None, compression=False)


class Diary(syncws.Backplane):
    """Writes down every call, and refuses messages if it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.delivers: dict[str, Deliver] = {}
        self.others: list[syncws.Presence] = []
        self.full = False

    def start(self) -> None:
        if self.full:
            raise RuntimeError("can't start new thread")
        self.calls.append(("start",))

    def publish(self, room: str, opcode: int, payload: bytes) -> None:
        if self.full:
            raise syncws.BackplaneError("full")
        self.calls.append(("publish", room, opcode, payload))

    def subscribe(self, room: str, deliver: Deliver) -> None:
        self.calls.append(("subscribe", room))
        self.delivers[room] = deliver

    def unsubscribe(self, room: str) -> None:
        self.calls.append(("unsubscribe", room))

    def join(self, room: str, member: str, info: Mapping[str, Any]) -> None:
        self.calls.append(("join", room, member, info))

    def leave(self, room: str, member: str) -> None:
        self.calls.append(("leave", room, member))

    def who(self, room: str, timeout: float) -> list[syncws.Presence]:
        self.calls.append(("who", room, timeout))
        return self.others

    def flush(self, timeout: float) -> bool:
        self.calls.append(("flush", timeout))
        return False

    def close(self, timeout: float) -> None:
        self.calls.append(("close", timeout))

    def taken(self) -> list[tuple[Any, ...]]:
        """Return what was called since the last time."""
        calls, self.calls = self.calls, []
        return calls


class Members:
    """Connects clients, and gives each with its caller."""

    def __init__(self) -> None:
        self.service = ServerRecorder(CONFIG)
        self.listening = listening(self.service)
        self._listener = self.listening.__enter__()
        self._clients: list[syncws.Client] = []

    def __call__(self) -> tuple[syncws.Client, syncws.Caller]:
        client = syncws.Client(f"ws://127.0.0.1:{self._listener.port}/", ping_interval=None)
        self._clients.append(client)
        return client, self.service.expect("on_open")

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.listening.__exit__(None, None, None)


@pytest.fixture
def join() -> Iterator[Members]:
    members = Members()
    yield members
    members.close()


@pytest.fixture
def diary() -> Diary:
    return Diary()


# -- Rooms -------------------------------------------------------------------


def test_a_room_is_one_object_while_somebody_needs_it(join: Members) -> None:
    groups = syncws.Groups()
    room = groups.room("a")
    assert isinstance(room, syncws.Group)
    assert groups.room("a") is room
    assert groups.room("b") is not room
    _, caller = join()
    room.add(caller)
    known = weakref.ref(room)
    del room
    gc.collect()
    assert groups.room("a") is known()
    groups.room("a").discard(caller)
    gc.collect()
    assert known() is None
    assert len(groups.room("a")) == 0


def test_rooms_with_members_are_those_of_the_groups(
    join: Members,
) -> None:
    groups = syncws.Groups()
    held = groups.room("empty")
    assert (len(groups), list(groups), bool(groups)) == (0, [], True)
    (_, one), (_, other) = join(), join()
    groups.room("a").add(one)
    groups.room("a").add(other)
    groups.room("b").add(one)
    assert len(groups) == 2
    assert {room.name: set(room) for room in groups} == {"a": {one, other}, "b": {one}}
    assert "a" in groups
    assert "empty" not in groups
    groups.room("a").discard(one)
    assert len(groups) == 2
    groups.room("b").clear()
    assert [room.name for room in groups] == ["a"]
    assert held.name == "empty"
    assert repr(groups) == "<syncws.Groups of 1 rooms>"
    assert repr(held) == "<syncws.Room 'empty' of 0>"


def test_a_room_sends_to_its_members(join: Members) -> None:
    groups = syncws.Groups()
    (client, one), (stranger, other) = join(), join()
    groups.room("a").add(one)
    groups.room("b").add(other)
    assert groups.room("a").send_text("to a") == 1
    assert groups.room("b").send_binary(b"to b") == 1
    assert groups.room("nobody's").send_text("to nobody") == 0
    assert groups.room("a").send_text("but not to one", exclude=one) == 0
    assert groups.room("a").send_text("end") == 1
    assert [client.receive(HANG), client.receive(HANG)] == ["to a", "end"]
    assert stranger.receive(HANG) == b"to b"


def test_a_room_that_has_lost_its_last_member_is_gone(join: Members) -> None:
    groups = syncws.Groups()
    client, caller = join()
    groups.room("a").add(caller)
    client.close()
    assert join.service.expect("on_close") is caller
    wait_until(lambda: len(groups) == 0)
    assert not groups.room("a").add(caller)  # it has ended
    assert len(groups) == 0


def test_names_come_and_go_in_flat_memory() -> None:
    groups = syncws.Groups()

    def use(first: int, count: int) -> int:
        for number in range(first, first + count):
            groups.room(f"room {number}").send_text("to nobody")
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = use(0, 2_000)
        after = use(2_000, 20_000)
    finally:
        tracemalloc.stop()
    assert after - before < 50_000
    assert len(groups._rooms) == 0


@pytest.mark.parametrize("name", ["", "x" * 1025, "é" * 513, "\ud800"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError):
        syncws.Groups().room(name)


@pytest.mark.parametrize("name", [None, b"a", 1])
def test_a_name_is_a_str(name: Any) -> None:
    with pytest.raises(TypeError, match="a room's name is a str"):
        syncws.Groups().room(name)


def test_the_longest_name() -> None:
    assert syncws.Groups().room("é" * 512).name == "é" * 512


def test_the_policy_is_every_rooms() -> None:
    assert syncws.Groups(policy="drop_oldest").room("a").policy == "drop_oldest"
    with pytest.raises(ValueError, match="policy is one of"):
        syncws.Groups(policy="hope")


def test_compression_is_every_rooms() -> None:
    assert syncws.Groups().room("a")._sharing._compression
    assert not syncws.Groups(compression=False).room("a")._sharing._compression
    assert not syncws.Group(compression=False)._sharing._compression
    for make in (syncws.Groups, syncws.Group):
        with pytest.raises(TypeError, match="compression is a bool, not 1"):
            make(compression=1)  # type: ignore[arg-type]


def test_many_threads_join_and_leave(join: Members) -> None:
    diary = Diary()
    groups = syncws.Groups(diary)
    callers = [join()[1] for _ in range(4)]
    start = threading.Barrier(len(callers))

    def come_and_go(caller: syncws.Caller) -> None:
        start.wait(HANG)
        for _ in range(200):
            groups.room("a").add(caller)
            groups.room("a").discard(caller)

    threads = [threading.Thread(target=come_and_go, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert len(groups) == 0
    calls = [call[0] for call in diary.taken()[1:]]
    assert calls == ["subscribe", "unsubscribe"] * (len(calls) // 2)
    assert calls


# -- With a backplane --------------------------------------------------------


def test_a_backplane_is_asked_for_rooms_with_members_only(join: Members, diary: Diary) -> None:
    groups = syncws.Groups(diary)
    room = groups.room("a")
    (_, one), (_, other) = join(), join()
    assert diary.taken() == []
    room.add(one)
    room.add(other)
    room.add(other)
    assert diary.taken() == [("start",), ("subscribe", "a")]
    room.discard(one)
    room.discard(one)
    assert diary.taken() == []
    room.discard(other)
    assert diary.taken() == [("unsubscribe", "a")]


def test_a_backplane_that_does_not_start_is_started_later(join: Members, diary: Diary) -> None:
    groups = syncws.Groups(diary)
    room = groups.room("a")
    _, one = join()
    diary.full = True
    for _ in range(2):
        with pytest.raises(RuntimeError, match="can't start"):
            room.add(one)
        assert one not in room
        assert len(groups) == 0
    diary.full = False
    assert room.add(one)
    assert diary.taken() == [("start",), ("subscribe", "a")]


def test_what_is_sent_goes_to_the_backplane_and_what_comes_from_it_to_the_members(
    join: Members, diary: Diary
) -> None:
    groups = syncws.Groups(diary)
    client, caller = join()
    room = groups.room("a")
    assert room.send_text("é") == 0
    room.add(caller)
    assert room.send_binary(b"\xff", exclude=caller) == 0
    assert room.send_json({"a": 1}) == 1
    assert [call for call in diary.taken() if call[0] == "publish"] == [
        ("publish", "a", 1, "é".encode()),
        ("publish", "a", 2, b"\xff"),
        ("publish", "a", 1, b'{"a":1}'),
    ]
    diary.delivers["a"](1, b"far")
    diary.delivers["a"](2, b"away")
    assert diary.taken() == []
    assert [client.receive(HANG) for _ in range(3)] == ['{"a":1}', "far", b"away"]


def test_what_the_backplane_does_not_take_nobody_gets(join: Members, diary: Diary) -> None:
    groups = syncws.Groups(diary)
    client, caller = join()
    room = groups.room("a")
    room.add(caller)
    diary.full = True
    with pytest.raises(syncws.BackplaneError, match="full"):
        room.send_text("lost")
    diary.full = False
    room.send_text("there")
    assert client.receive(HANG) == "there"


def test_a_backplane_belongs_to_one(diary: Diary) -> None:
    groups = syncws.Groups(diary)
    with pytest.raises(ValueError, match="belongs to other groups"):
        syncws.Groups(diary)
    assert repr(groups)


def test_a_backplane_is_one() -> None:
    with pytest.raises(TypeError, match=r"not str: write Groups\(RedisBackplane\(url\)\)"):
        syncws.Groups("redis://localhost")  # type: ignore[arg-type]


def test_closing(join: Members, diary: Diary) -> None:
    _, caller = join()
    with syncws.Groups(diary) as groups:
        room = groups.room("a")
        room.add(caller)
        assert not groups.flush(3)
    assert diary.taken()[2:] == [("flush", 3), ("close", 5.0)]
    groups.close()
    with pytest.raises(syncws.BackplaneError, match="closed"):
        room.send_text("too late")
    with pytest.raises(syncws.BackplaneError, match="closed"):
        groups.room("b").presence()
    assert caller in room
    assert groups.room("b").add(caller, info={})  # it stays among us
    assert diary.taken() == []
    room.discard(caller)
    assert len(groups) == 1


def test_what_was_not_started_is_not_closed(diary: Diary) -> None:
    groups = syncws.Groups(diary)
    assert groups.flush()
    groups.close()
    assert diary.taken() == []


# -- Presence ----------------------------------------------------------------


def test_presence_without_a_backplane(join: Members) -> None:
    groups = syncws.Groups()
    room = groups.room("a")
    (_, one), (_, other), (client, third) = join(), join(), join()
    room.add(one, info={"name": "Ann"})
    room.add(other)
    room.add(third, info={})
    assert room.presence() == [(one.id, {"name": "Ann"}), (third.id, {})]
    room.add(one, info={"name": "Anna"})
    client.close()
    join.service.expect("on_close")
    wait_until(lambda: third not in room)
    wait_until(lambda: len(room.presence()) == 1)
    assert groups.who("a") == [syncws.Presence(one.id, {"name": "Anna"})]
    room.discard(one)
    assert groups.who("a") == []
    assert groups.who("b") == []


def test_presence_with_a_backplane(join: Members, diary: Diary) -> None:
    groups = syncws.Groups(diary)
    diary.others = [syncws.Presence("far", {"name": "Bob"}), syncws.Presence("away", {})]
    assert groups.who("a", 3) == diary.others
    assert diary.taken() == [("start",), ("who", "a", 3)]
    _, caller = join()
    room = groups.room("a")
    room.add(caller, info={"name": "Ann"})
    assert diary.taken() == [("subscribe", "a"), ("join", "a", caller.id, {"name": "Ann"})]
    assert room.presence() == [*diary.others, (caller.id, {"name": "Ann"})]
    diary.taken()
    room.discard(caller)
    assert diary.taken() == [("leave", "a", caller.id), ("unsubscribe", "a")]
    assert room.presence() == diary.others


def test_the_members_here_are_as_they_are_now(join: Members, diary: Diary) -> None:
    groups = syncws.Groups(diary)
    _, caller = join()
    groups.room("a").add(caller, info={"name": "new"})
    diary.others = [syncws.Presence(caller.id, {"name": "old"})]
    assert groups.who("a") == [syncws.Presence(caller.id, {"name": "new"})]


@pytest.mark.parametrize(
    ("info", "error"),
    [
        ("Ann", TypeError),
        ({"x": object()}, ValueError),
        ({"x": float("nan")}, ValueError),
        ({"x": "y" * 5000}, ValueError),
    ],
)
def test_info_that_cannot_be(join: Members, info: Any, error: type[Exception]) -> None:
    room = syncws.Groups().room("a")
    _, caller = join()
    with pytest.raises(error):
        room.add(caller, info=info)
    assert caller not in room


def test_info_is_copied(join: Members) -> None:
    room = syncws.Groups().room("a")
    _, caller = join()
    info = {"tags": ["x"]}
    room.add(caller, info=info)
    info["tags"].append("y")
    assert room.presence()[0].info == {"tags": ["x"]}


# -- Forks -------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_begins_anew() -> None:
    script = """
import os, warnings
warnings.simplefilter("ignore")
import syncws
from tests.support import ServerRecorder, listening
from tests.test_groups_groups import CONFIG, Diary, Members

diary = Diary()
groups = syncws.Groups(diary)
join = Members()
client, caller = join()
groups.room("a").add(caller, info={})
pid = os.fork()
if not pid:
    assert len(groups) == 0 and len(groups.room("a")) == 0
    assert groups.room("a").send_text("from the child") == 0
    assert [call[0] for call in diary.taken()] == "start subscribe join start publish".split()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert len(groups) == 1
assert groups.room("a").send_text("from the parent") == 1
print(client.receive(20))
join.close()
"""
    with interpreter(script) as process:
        assert process.line() == "from the parent", process.end()
        assert process.end() == (0, "")
