"""Bytes on their way out."""

from __future__ import annotations

from .transport import Transport

__all__ = ["OutBuffer"]


class OutBuffer:
    """A queue of chunks that a transport takes as fast as the peer reads.

    Not thread-safe: guarded by its connection's lock.
    """

    __slots__ = ("chunks", "size")

    def __init__(self) -> None:
        # An owner that is in a hurry may append here and count itself.
        self.chunks: list[bytes | memoryview] = []
        self.size = 0  # bytes queued

    def append(self, data: bytes | memoryview) -> None:
        """Queue `data` behind what is there."""
        self.chunks.append(data)
        self.size += len(data)

    def clear(self) -> None:
        """Forget everything queued."""
        self.chunks.clear()
        self.size = 0

    def write_to(self, transport: Transport) -> bool:
        """Write as much as `transport` takes; return whether nothing is left.

        Raises:
            OSError: The transport has failed.
        """
        chunks = self.chunks
        while chunks:
            sent = transport.send_many(chunks) if len(chunks) > 1 else transport.send(chunks[0])
            if sent == self.size:
                self.clear()
            elif sent:
                self.drop(sent)
            else:
                return False
        return True

    def drop(self, sent: int) -> None:
        """Take off what was sent; something is left."""
        self.size -= sent
        chunks = self.chunks
        whole = 0
        while sent >= len(chunks[whole]):
            sent -= len(chunks[whole])
            whole += 1
        del chunks[:whole]
        if sent:
            chunks[0] = memoryview(chunks[0])[sent:]
