"""Groups, engines, listeners, routes and resources: operations of several threads, stepped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import syncws
from syncws.endpoint import Endpoint
from syncws.engine.state import State
from tests.races.stepping import Walker
from tests.races.wire import Wire

STEPPED = True

Exploring = Callable[..., int]


# -- Groups ------------------------------------------------------------------


class Member(Wire):
    """A group, and a connection that joins, leaves and ends."""

    def __init__(
        self,
        first: Callable[[Member], Any],
        second: Callable[[Member], Any],
        *,
        joined: bool = False,
    ) -> None:
        super().__init__(first, second)  # type: ignore[arg-type]
        self.endpoint = Endpoint(self.connection, None, ("", ""))
        self.group = syncws.Group()
        if joined:
            self.group.add(self.endpoint)

    def add(self) -> None:
        self.group.add(self.endpoint)

    def discard(self) -> None:
        self.group.discard(self.endpoint)

    def add_again(self) -> None:
        self.discard()
        self.add()

    def broadcast(self) -> None:
        (self.taken if self.group.send_text("all") else self.refused).append("all")

    def finish(self) -> None:
        self.connection.abort()

    def check_inbox(self) -> None:
        super().check_inbox()
        # It leaves by itself, whatever went before; and nothing holds the group.
        assert self.endpoint not in self.group
        assert not self.connection._farewells

    def check(self, first: Walker, second: Walker) -> None:
        if self.connection.state is not State.CLOSED:
            told = self.connection._farewells or {}
            assert len(told) == len(self.group), "it does not leave, or the group is kept"
        super().check(first, second)


GROUPS: dict[str, tuple[Callable[[Member], Any], Callable[[Member], Any], bool]] = {
    "add / end": (Member.add, Member.finish, False),
    "add / discard": (Member.add, Member.discard, False),
    "add / add": (Member.add, Member.add, False),
    "discard / add": (Member.discard, Member.add, True),
    "discard / discard and add": (Member.discard, Member.add_again, True),
    "discard / end": (Member.discard, Member.finish, True),
    "send / end": (Member.broadcast, Member.finish, True),
    "send / discard": (Member.broadcast, Member.discard, True),
    "send / close": (Member.broadcast, Wire.start_close, True),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("pair", GROUPS)
def test_groups(pair: str, exploring: Exploring) -> None:
    first, second, joined = GROUPS[pair]
    tried = exploring(
        lambda: Member(first, second, joined=joined),
        switches=2,
        among=("group.py", "connection.py"),
    )
    assert tried > 50
