"""Bytes on their way out."""

from __future__ import annotations

from collections import deque

from .transport import Transport

__all__ = ["OutBuffer"]


class OutBuffer:
    """A queue of chunks that a transport takes as fast as the peer reads.

    Not thread-safe: guarded by its connection's lock.
    """

    __slots__ = ("_chunks", "size")

    def __init__(self) -> None:
        self._chunks: deque[bytes | memoryview] = deque()
        self.size = 0  # bytes queued

    def append(self, data: bytes | memoryview) -> None:
        """Queue `data` behind what is there."""
        self._chunks.append(data)
        self.size += len(data)

    def clear(self) -> None:
        """Forget everything queued."""
        self._chunks.clear()
        self.size = 0

    def write_to(self, transport: Transport) -> bool:
        """Write as much as `transport` takes; return whether nothing is left.

        Raises:
            OSError: The transport has failed.
        """
        chunks = self._chunks
        while chunks:
            sent = transport.send_many(chunks)
            self.size -= sent
            if not self.size:
                chunks.clear()
                return True
            if not sent:
                return False
            while sent:
                chunk = chunks[0]
                if sent < len(chunk):
                    chunks[0] = memoryview(chunk)[sent:]
                    break
                sent -= len(chunk)
                chunks.popleft()
        return True
