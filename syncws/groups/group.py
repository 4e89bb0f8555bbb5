"""Sends one message to many connections."""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from ..endpoint import Endpoint, Line, check_close, connection_of, to_json
from ..engine.outbound import Outbound
from ..engine.sharing import POLICIES, Sharing
from ..protocol.events import BINARY, TEXT

__all__ = ["Group"]

# Seconds between lines of the log about one member that is too slow.
_LOG_INTERVAL = 60.0

_log = logging.getLogger("syncws.groups")


class _Membership:
    """From joining to leaving: who joins again meanwhile has another one."""

    __slots__ = ("connection", "dropped", "log_at")

    def __init__(self, connection: Line) -> None:
        self.connection = connection
        self.dropped = 0  # messages for which it had no room
        self.log_at = -math.inf  # when more of these are worth a line of the log


class Group:
    """A set of connections that get the same messages.

    A connection leaves by itself when it ends. Every method may be called from
    any thread, also from a callback, and none of them blocks.

    Guarantees:
        - A member gets the group's messages, and what is sent to it alone, in
          the order of the calls.
        - No member holds up another, nor whoever sends. What becomes of a
          message for a member that has more than its `send_buffer_size` still
          to read is the policy.
        - A message comes whole or not at all. What is not sent to a member that
          stays is counted, and told in the log.

    Args:
        members: Who is a member from the beginning.
        name: What it is called, if anything.
        policy: What becomes of a message for a member that has too much to
            read still. "close": the member is closed with 1013 (try again
            later), and its on_error is told. "drop_newest": it does not get
            this one. "drop_oldest": it does, and not those of the group that
            have waited for longest; if that makes no room it does not get
            this one.
        compression: Whether members that have agreed on compression get
            messages compressed. False: plain, which is quicker where bytes
            cost little, as in a data center; what is sent to a member alone
            is compressed all the same.

    Raises:
        TypeError: Of `members`, one is no `Caller` or `Client`; `name` is no
            str, `compression` no bool.
        ValueError: There is no such policy.
    """

    def __init__(
        self,
        members: Iterable[Endpoint] = (),
        *,
        name: str | None = None,
        policy: str = "close",
        compression: bool = True,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"a group's name is a str, not {name!r:.60}")
        if policy not in POLICIES:
            raise ValueError(
                f"policy is one of {', '.join(map(repr, POLICIES))}, not {policy!r:.60}"
            )
        if not isinstance(compression, bool):
            raise TypeError(f"compression is a bool, not {compression!r:.60}")
        self._name = name
        self._policy = policy
        self._sharing = Sharing(policy, compression=compression)
        # Guarded by _lock.
        self._lock = threading.Lock()
        self._members: dict[Endpoint, _Membership] = {}
        self._dropped = 0
        _groups.add(self)
        for member in members:
            self.add(member)

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<syncws.{type(self).__name__}{name} of {len(self._members)}>"

    @property
    def name(self) -> str | None:
        """What it is called, or None."""
        return self._name

    @property
    def policy(self) -> str:
        """What becomes of a message for a member that has too much to read still."""
        return self._policy

    @property
    def dropped(self) -> int:
        """Messages for which a member had no room, counted for each member that missed one."""
        return self._dropped

    def dropped_of(self, member: Endpoint) -> int:
        """Return how many messages a member has missed since it joined; 0 if it is no member."""
        membership = self._members.get(member)
        return 0 if membership is None else membership.dropped

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

    def clear(self) -> None:
        """Remove every connection; none of them is closed."""
        for member in self:
            self.discard(member)

    def close(self, status_code: int = 1000, reason: str = "") -> None:
        """Close every member's connection, without waiting for any end.

        Each leaves when it has ended; who is added meanwhile stays. The group
        itself has no end.

        Args:
            status_code: Why; as for `Caller.close`.
            reason: The same in words; as for `Caller.close`.
        """
        check_close(status_code, reason)
        for member in self:
            member.close(status_code, reason, timeout=0)

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
            being closed get nothing any more. By "drop_oldest" it may be
            dropped later, for those that come after it.

        Raises:
            TypeError: `text` is not a str.
            ValueError: `text` has surrogates, which UTF-8 cannot carry.

        RFC 6455 section 5.6.
        """
        if not isinstance(text, str):
            raise TypeError(f"send_text takes a str, not {type(text).__name__}: {text!r:.60}")
        return self._send(TEXT, text.encode(), _endpoints(exclude))

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
        return self._send(BINARY, bytes(data), _endpoints(exclude))

    def send_json(self, value: Any, *, exclude: Endpoint | Iterable[Endpoint] = ()) -> int:
        """Send anything that JSON can express, as a text message; in all else as `send_text`.

        Raises:
            TypeError, ValueError: `json.dumps` refuses it, or it has a number
                that is not finite, which JSON has not.
        """
        return self._send(TEXT, to_json(value), _endpoints(exclude))

    # -- What a group that reaches further puts its own in place of -------

    def _send(self, opcode: int, payload: bytes, exclude: AbstractSet[Endpoint]) -> int:
        """Send a message, whose arguments have been checked; return what `send_text` does."""
        return self._deliver(opcode, payload, exclude)

    def _deliver(self, opcode: int, payload: bytes, exclude: AbstractSet[Endpoint]) -> int:
        """Send a message to the members here but for `exclude`; return how many take it.

        Args:
            opcode: TEXT or BINARY.
            payload: The message; for TEXT valid UTF-8.
            exclude: Who it is not sent to; whoever is no member does not matter.
        """
        with self._lock:
            members = self._members
            if exclude:
                members = {one: members[one] for one in members if one not in exclude}
            outbounds = [membership.connection.outbound for membership in members.values()]
            sent_to = None if self._policy == "close" else list(members.items())
        dropped: dict[Outbound, int] = {}
        try:
            return self._sharing.send(opcode, payload, outbounds, dropped)
        finally:
            if dropped and sent_to is not None:
                self._count(dropped, zip(outbounds, sent_to, strict=True))

    def _count(
        self,
        dropped: dict[Outbound, int],
        members: Iterable[tuple[Outbound, tuple[Endpoint, _Membership]]],
    ) -> None:
        """Some members had no room."""
        for outbound, (member, membership) in members:
            count = dropped.get(outbound, 0)
            if not count:
                continue
            now = outbound.clock()
            with self._lock:
                self._dropped += count
                membership.dropped += count
                due = now >= membership.log_at
                if due:
                    membership.log_at = now + _LOG_INTERVAL
            if due:
                outbound.log_soon(
                    _log,
                    logging.WARNING,
                    "%r reads too slowly for %r: messages for it are dropped, %d so far",
                    *(member, self, membership.dropped),
                )


def _endpoints(exclude: Endpoint | Iterable[Endpoint]) -> AbstractSet[Endpoint]:
    """Return who is left out."""
    return {exclude} if isinstance(exclude, Endpoint) else set(exclude)


_groups: weakref.WeakSet[Group] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for group in list(_groups):
        group._lock = threading.Lock()  # who held it is not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
