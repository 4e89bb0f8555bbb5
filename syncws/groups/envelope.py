"""A group's message on its way between processes, and who has sent which already."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Container
from typing import NamedTuple

from ..protocol.events import BINARY, TEXT

__all__ = ["LONGEST_NAME", "OVERHEAD", "Counters", "Envelope", "Log", "MalformedError"]

#: Bytes of UTF-8 that a room's name has at most.
LONGEST_NAME = 1024

_VERSION = 1
# "sw", version, opcode, sender, sequence number, number on the channel, length of the name.
_HEAD = struct.Struct("!2sBB8sQQH")

#: Bytes of an envelope beside its payload, at most.
OVERHEAD = _HEAD.size + LONGEST_NAME

# Channels, and senders on one channel, that are remembered; the longest silent go first.
_CHANNELS = 100_000
_SENDERS = 1_000


class MalformedError(Exception):
    """What came is no envelope of ours."""


class Envelope(NamedTuple):
    """A message with its sender and its place among what that has sent.

    Attributes:
        sender: Eight random bytes for each backplane in each process.
        sequence: Counts what the sender has sent at all, from 1.
        number: Counts what it has sent on this channel, from 1; it may begin
            again when the sender has sent nothing there for long.
        room: The name of the room.
        opcode: TEXT or BINARY.
        payload: The message.
    """

    sender: bytes
    sequence: int
    number: int
    room: str
    opcode: int
    payload: bytes

    def pack(self) -> bytes:
        """Return it as bytes."""
        name = self.room.encode()
        head = _HEAD.pack(
            b"sw", _VERSION, self.opcode, self.sender, self.sequence, self.number, len(name)
        )
        return head + name + self.payload

    @classmethod
    def unpack(cls, data: bytes) -> Envelope:
        """Return what `pack` made these bytes of.

        Raises:
            MalformedError: Nothing did, or a later version.
        """
        try:
            magic, version, opcode, sender, sequence, number, size = _HEAD.unpack_from(data)
        except struct.error:
            raise MalformedError("too short") from None
        if magic != b"sw" or version != _VERSION:
            raise MalformedError("not of this version")
        end = _HEAD.size + size
        if opcode not in (TEXT, BINARY) or not sequence or not number or end > len(data):
            raise MalformedError("a field that cannot be")
        payload = data[end:]
        try:
            room = data[_HEAD.size : end].decode()
            if opcode == TEXT:
                payload.decode()
        except UnicodeDecodeError:
            raise MalformedError("text that is no UTF-8") from None
        return cls(sender, sequence, number, room, opcode, payload)


class Counters:
    """The numbers of what one sender sends. Not thread-safe."""

    def __init__(self, channels: int = _CHANNELS) -> None:
        self._channels = channels
        self._sequence = 0
        self._numbers: OrderedDict[str, int] = OrderedDict()

    def next(self, channel: str) -> tuple[int, int]:
        """Return the next message's sequence number, and its number on this channel."""
        self._sequence += 1
        number = self._numbers.pop(channel, 0) + 1
        self._numbers[channel] = number
        if len(self._numbers) > self._channels:
            self._numbers.popitem(last=False)
        return self._sequence, number


class Log:
    """What has come on each channel from each sender. Not thread-safe."""

    def __init__(self, senders: int = _SENDERS) -> None:
        self._senders = senders
        self._channels: dict[str, OrderedDict[bytes, tuple[int, int]]] = {}

    def admit(self, channel: str, envelope: Envelope) -> int:
        """Note a message; return how many are missing before it, or -1 if it has come already.

        What came before a sender's first message here is not known, and
        counts as nothing.
        """
        senders = self._channels.setdefault(channel, OrderedDict())
        sequence, number = senders.get(envelope.sender, (0, 0))
        if envelope.sequence <= sequence:
            return -1
        senders[envelope.sender] = (envelope.sequence, envelope.number)
        senders.move_to_end(envelope.sender)
        if len(senders) > self._senders:
            senders.popitem(last=False)
        # A number that is not higher began again.
        return envelope.number - number - 1 if 0 < number < envelope.number else 0

    def retain(self, channels: Container[str]) -> None:
        """Nothing is read any more but from these channels."""
        for channel in [channel for channel in self._channels if channel not in channels]:
            del self._channels[channel]

    def forget(self, channel: str) -> None:
        """Nothing more is read from this channel."""
        self._channels.pop(channel, None)
