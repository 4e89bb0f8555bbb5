"""Sends one message to many connections."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator

from ..endpoint import Endpoint, Line, connection_of
from ..engine.outbound import share
from ..protocol.events import BINARY, TEXT

__all__ = ["Group"]


class _Membership:
    """From joining to leaving: who joins again meanwhile has another one."""

    __slots__ = ("connection",)

    def __init__(self, connection: Line) -> None:
        self.connection = connection


class Group:
    """A set of connections that get the same messages.

    A connection leaves by itself when it ends. Every method may be called from
    any thread, also from a callback, and none of them blocks.

    Guarantees:
        - A member gets the group's messages, and what is sent to it alone, in
          the order of the calls.
        - No member holds up another. One that has more than its
          `send_buffer_size` still to read when the next message comes is
          closed with 1013 (try again later), and its on_error is told.
    """

    def __init__(self, members: Iterable[Endpoint] = ()) -> None:
        # Guarded by _lock.
        self._lock = threading.Lock()
        self._members: dict[Endpoint, _Membership] = {}
        _groups.add(self)
        for member in members:
            self.add(member)

    def __repr__(self) -> str:
        return f"<syncws.Group of {len(self._members)}>"

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def __iter__(self) -> Iterator[Endpoint]:
        """Go through those that are members now."""
        with self._lock:
            return iter(list(self._members))

    def add(self, member: Endpoint) -> bool:
        """Add a connection; return whether it is a member now: not if it has ended.

        Raises:
            TypeError: `member` is no `Caller` or `Client`.
        """
        if not isinstance(member, Endpoint):
            raise TypeError(f"a group's member is a Caller or a Client, not {member!r}")
        connection = connection_of(member)
        membership = _Membership(connection)
        with self._lock:
            if member in self._members:
                return True
            self._members[member] = membership
        if not connection.when_ended(membership, lambda: self._leave(member, membership)):
            self._leave(member, membership)
            return False
        if self._members.get(member) is not membership:
            # It was discarded meanwhile, by who found nothing to be forgotten.
            connection.not_when_ended(membership)
        return member in self._members

    def discard(self, member: Endpoint) -> None:
        """Remove a connection. Harmless if it is no member."""
        with self._lock:
            membership = self._members.pop(member, None)
        if membership is not None:
            membership.connection.not_when_ended(membership)

    def _leave(self, member: Endpoint, membership: _Membership) -> None:
        """The member has ended: it is none by this membership any more."""
        with self._lock:
            if self._members.get(member) is membership:
                del self._members[member]

    def send_text(self, text: str, *, exclude: Endpoint | Iterable[Endpoint] = ()) -> int:
        """Send a text message to every member.

        Does not block: the messages wait for the members to read.

        Args:
            text: The message.
            exclude: A member, or several, that it is not sent to.

        Returns:
            The number of members that it is on its way to; those that are
            being closed get nothing any more.

        Raises:
            TypeError: `text` is not a str.
            ValueError: `text` has surrogates, which UTF-8 cannot carry.

        RFC 6455 section 5.6.
        """
        if not isinstance(text, str):
            raise TypeError(f"send_text takes a str, not {type(text).__name__}: {text!r:.60}")
        return self._send(TEXT, text.encode(), exclude)

    def send_binary(
        self, data: bytes | bytearray | memoryview, *, exclude: Endpoint | Iterable[Endpoint] = ()
    ) -> int:
        """Send a binary message to every member; in all else as `send_text`.

        Args:
            data: The message; copied if it is mutable.
            exclude: A member, or several, that it is not sent to.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"send_binary takes bytes, not {type(data).__name__}: {data!r:.60}")
        return self._send(BINARY, bytes(data), exclude)

    def _send(self, opcode: int, payload: bytes, exclude: Endpoint | Iterable[Endpoint]) -> int:
        excluded = {exclude} if isinstance(exclude, Endpoint) else set(exclude)
        with self._lock:
            members = self._members
            if excluded:
                members = {one: members[one] for one in members if one not in excluded}
            outbounds = [membership.connection.outbound for membership in members.values()]
        return share(opcode, payload, outbounds)


_groups: weakref.WeakSet[Group] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for group in list(_groups):
        group._lock = threading.Lock()  # who held it is not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
