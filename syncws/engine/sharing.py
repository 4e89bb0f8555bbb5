"""One message for many: encoded once for all who take it alike, and only queued here.

A member that has too much to read still never holds up the others; the policy
says what becomes of the message.

Threads: everything may be called from any thread. What is done to a member is
done under its lock; `Sharing` is a friend of `Outbound`, and does there what
`Outbound.send` does, for many at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..protocol.encoder import compressed_alone
from ..protocol.kernels import frame
from .loop import IOLoop
from .outbound import Outbound
from .outbuf import OutBuffer

__all__ = ["CLOSE", "DROP_NEWEST", "DROP_OLDEST", "POLICIES", "Sharing", "share"]

CLOSE = "close"
DROP_NEWEST = "drop_newest"
DROP_OLDEST = "drop_oldest"

#: What may become of a message for a member that has too much to read still.
POLICIES = (CLOSE, DROP_NEWEST, DROP_OLDEST)

_FIN = 0x80
_RSV1 = 0x40


class _Droppable(bytes):
    """A frame that may be dropped as long as nothing of it was written.

    Once a part was, a memoryview of the rest stands in its place.
    """

    of: Sharing


class _Message:
    """One message, in the shapes in which members take it."""

    __slots__ = ("_deflated", "_first", "_mark", "_payload", "plain", "size")

    def __init__(self, opcode: int, payload: bytes, mark: Sharing | None) -> None:
        self._first = _FIN | opcode
        self._payload = payload
        self._mark = mark
        self._deflated: dict[tuple[int, int, int], tuple[bytes, bytes] | None] = {}
        self.size = len(payload)
        self.plain = self._frame(self._first, payload, None)

    def _frame(self, first: int, payload: bytes, key: bytes | None) -> bytes:
        data = frame(first, payload, key)
        if self._mark is None:
            return data
        marked = _Droppable(data)
        marked.of = self._mark
        return marked

    def plain_for(self, member: Outbound) -> bytes:
        """Return the frame as it is; a client's has a key of its own. RFC 6455 section 5.3."""
        if member._client:
            return self._frame(self._first, self._payload, os.urandom(4))
        return self.plain

    def deflated_for(self, member: Outbound) -> bytes | None:
        """Return the compressed frame, or None if this member gets the other.

        It is compressed once for all who have agreed on the same: a deflate
        stream of its own, which refers to nothing before it, can be inflated
        whatever came before. RFC 7692 section 7.2.1.
        """
        settings = member._settings
        if settings is None or self.size < member._encoder.threshold:
            return None
        try:
            made = self._deflated[settings]
        except KeyError:
            made = self._deflated[settings] = self._deflate(settings)
        if made is None:
            return None
        if member._client:
            return self._frame(self._first | _RSV1, made[0], os.urandom(4))
        return made[1]

    def _deflate(self, settings: tuple[int, int, int]) -> tuple[bytes, bytes] | None:
        """Return the payload and a server's frame, or None if compressing makes it no shorter."""
        payload = compressed_alone(self._payload, settings)
        if len(payload) >= self.size:
            return None
        return payload, self._frame(self._first | _RSV1, payload, None)


class Sharing:
    """How the messages of one group are sent.

    Guarantees:
        - A member gets its messages in the order of the calls; of those that
          are dropped nothing is sent, and the others come whole.
        - What is dropped is counted.

    Args:
        policy: One of `POLICIES`: the member is closed, the new message is not
            sent, or those that wait for longest make room for it.
        compression: Whether members that have agreed on it get it compressed.
    """

    __slots__ = ("_closing", "_compression", "_mark", "_oldest")

    def __init__(self, policy: str = CLOSE, *, compression: bool = True) -> None:
        assert policy in POLICIES
        self._compression = compression
        self._closing = policy == CLOSE
        self._oldest = policy == DROP_OLDEST
        self._mark = self if self._oldest else None

    def send(
        self, opcode: int, payload: bytes, members: Iterable[Outbound], dropped: dict[Outbound, int]
    ) -> int:
        """Have one whole message sent to many, without blocking.

        The I/O thread gets one list of all that have to write. A member that
        is midway in a fragmented message gets it after that.

        Args:
            opcode: TEXT or BINARY.
            payload: The message; for TEXT valid UTF-8.
            members: Who gets it.
            dropped: Gets for how many messages of this group each member had no room.

        Returns:
            The number of members that took it.
        """
        message = _Message(opcode, payload, self._mark)
        plain, size, length = message.plain, message.size, len(message.plain)
        compression = self._compression
        dirty: dict[IOLoop, list[Outbound]] = {}
        taken = 0
        try:
            for member in members:
                if size >= member._alike_below and (compression or member._client):
                    took = self._send_apart(message, member, dirty, dropped)
                else:
                    # As a rule. What follows is `_queue`, without the calls.
                    with member.lock:
                        if not member.open:
                            continue
                        try:
                            out = member._out
                            took = out.size <= member._brim and not member._midway
                            if took:
                                if not member._flushing:
                                    loop = member._loop
                                    if loop in dirty:
                                        dirty[loop].append(member)
                                    else:
                                        dirty[loop] = [member]
                                    member._flushing = True
                                out.size += length
                                out.chunks.append(plain)
                                member.messages_sent += 1
                                member.bytes_sent += message.size
                            else:
                                took = self._queue(plain, size, member, dirty, dropped)
                        except BaseException:
                            member.cut_short()
                            raise
                if took:
                    taken += 1
                    if member._watch.idle_timeout is not None:
                        member._watch.last_message = member._loop.clock()
        finally:
            # Also if a signal handler has raised: they will not be told otherwise.
            for loop, outbounds in dirty.items():
                loop.flush_all_soon(outbounds)
        return taken

    def _send_apart(
        self,
        message: _Message,
        member: Outbound,
        dirty: dict[IOLoop, list[Outbound]],
        dropped: dict[Outbound, int],
    ) -> bool:
        """Send it to a client, or to one that compresses; return whether it took it."""
        deflated = None
        if self._compression and not member._deflating:
            deflated = message.deflated_for(member)
        data = message.plain_for(member) if deflated is None else deflated
        with member.lock:
            if not member.open:
                return False
            try:
                if deflated is not None:
                    if member._deflating:
                        # What is being compressed at this moment refers to the
                        # messages before it, of which this one would be the
                        # last. As a plain one it is in no window.
                        data = message.plain_for(member)
                    elif not member._midway:  # else it comes with the end of that
                        member._afresh = True
                return self._queue(data, message.size, member, dirty, dropped)
            except BaseException:
                member.cut_short()
                raise

    def _queue(
        self,
        data: bytes,
        size: int,
        member: Outbound,
        dirty: dict[IOLoop, list[Outbound]],
        dropped: dict[Outbound, int],
    ) -> bool:
        """Queue a frame if there is room, or can be; return whether. Requires the member's lock."""
        midway = member._midway
        out = member.held_back() if midway else member._out
        limit = member._high if midway or self._closing else member._brim
        if out.size > limit:
            if self._closing:
                member.open = False  # nothing may come after what it has missed
                member.fall_behind()
                return False
            fixed = not midway and member._transport.secure
            count = self._make_room(out, limit, len(data), fixed) if self._oldest else 0
            dropped[member] = dropped.get(member, 0) + (count or 1)
            if not count:
                return False
        if not midway and not member._flushing:
            dirty.setdefault(member._loop, []).append(member)
            member._flushing = True
        out.append(data)
        member.messages_sent += 1
        member.bytes_sent += size
        return True

    def _make_room(self, out: OutBuffer, limit: int, size: int, fixed: bool) -> int:
        """Drop the oldest messages of this group, until there is room for `size` bytes.

        There is if no more than `limit` are left, or no more than there were.
        Nothing is dropped if that is not to be had.

        Args:
            out: What waits.
            limit: Bytes of it up to which there is room for another message.
            size: Bytes of that.
            fixed: Whether the first chunk has to stay: TLS may have encrypted
                a part of it.

        Returns:
            How many were dropped.
        """
        need = min(out.size - limit, size)
        chunks = out.chunks
        found: list[int] = []
        for index, chunk in enumerate(chunks):
            if isinstance(chunk, _Droppable) and chunk.of is self and (index or not fixed):
                found.append(index)
                need -= len(chunk)
                if need <= 0:
                    break
        else:
            return 0
        for index in reversed(found):
            out.size -= len(chunks.pop(index))
        return len(found)


def share(opcode: int, payload: bytes, members: Iterable[Outbound]) -> int:
    """Send one message by a group of its own; see `Sharing.send`."""
    return Sharing().send(opcode, payload, members, {})
