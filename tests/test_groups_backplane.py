"""Several groups of one process, joined."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import syncws
from tests.support import HANG
from tests.test_groups_groups import Members


@pytest.fixture
def join() -> Iterator[Members]:
    members = Members()
    yield members
    members.close()


def test_messages_reach_the_members_of_all(join: Members) -> None:
    first = syncws.MemoryBackplane()
    one, two = syncws.Groups(first), syncws.Groups(syncws.MemoryBackplane(first))
    three = syncws.Groups(syncws.MemoryBackplane(first))
    (a, a_caller), (b, b_caller), (c, c_caller) = join(), join(), join()
    one.room("r").add(a_caller)
    two.room("r").add(b_caller)
    three.room("other").add(c_caller)
    assert one.room("r").send_text("1") == 1
    assert two.room("r").send_binary(b"2", exclude=b_caller) == 0
    assert three.room("r").send_text("3") == 0
    assert three.room("other").send_text("4") == 1
    assert [a.receive(HANG) for _ in range(3)] == ["1", b"2", "3"]
    assert [b.receive(HANG) for _ in range(2)] == ["1", "3"]
    assert c.receive(HANG) == "4"


def test_who_has_left_gets_nothing(join: Members) -> None:
    first = syncws.MemoryBackplane()
    one, two = syncws.Groups(first), syncws.Groups(syncws.MemoryBackplane(first))
    client, caller = join()
    two.room("r").add(caller)
    one.room("r").send_text("before")
    two.room("r").discard(caller)
    one.room("r").send_text("meanwhile")
    two.room("r").add(caller)
    one.room("r").send_text("after")
    two.close()
    one.room("r").send_text("too late")
    caller.send_text("end")
    assert [client.receive(HANG) for _ in range(3)] == ["before", "after", "end"]


def test_presence_is_of_all(join: Members) -> None:
    first = syncws.MemoryBackplane()
    one, two = syncws.Groups(first), syncws.Groups(syncws.MemoryBackplane(first))
    (_, a), (_, b) = join(), join()
    one.room("r").add(a, info={"name": "Ann"})
    two.room("r").add(b, info={"name": "Bob"})
    everybody = {a.id: {"name": "Ann"}, b.id: {"name": "Bob"}}
    assert dict(one.who("r")) == dict(two.room("r").presence()) == everybody
    two.room("r").discard(b)
    assert dict(one.who("r")) == {a.id: {"name": "Ann"}}
    two.room("r").add(b, info={"name": "Bob"})
    two.close()
    assert dict(one.who("r")) == {a.id: {"name": "Ann"}}


def test_the_interface_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        syncws.Backplane()  # type: ignore[abstract]


def test_what_there_may_be_nothing_to_do_for() -> None:
    plane = syncws.MemoryBackplane()
    plane.start()
    assert plane.flush(1)
    plane.leave("r", "nobody")
    plane.unsubscribe("r")
    plane.close(1)
    plane.close(1)
