"""What a Redis server answers, read without blocking: version 2 of its protocol."""

from __future__ import annotations

from typing import Any

__all__ = ["OVERSIZE", "Replies", "ReplyError"]


class ReplyError(Exception):
    """An error that is a reply, or part of one."""

    @property
    def code(self) -> str:
        """Its first word, such as "OOM"."""
        return str(self).partition(" ")[0]


class _Oversize:
    def __repr__(self) -> str:
        return "OVERSIZE"


#: In place of a string that is longer than allowed.
OVERSIZE: Any = _Oversize()


class Replies:
    """Takes bytes and gives replies: int, bytes, None, lists, and `ReplyError`s.

    Args:
        longest: Bytes of a string; a longer one is read and thrown away.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._buffer = bytearray()
        self._skip = 0  # bytes of a string that is too long, still to come
        self._open: list[tuple[int, list[Any]]] = []  # lists that are not complete
        self._done: list[Any] = []

    def feed(self, data: bytes) -> list[Any]:
        """Return the replies that are complete with `data`.

        Raises:
            ValueError: That is not the protocol.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        while (end := self._next(start)) > start:
            start = end
        del buffer[:start]
        done, self._done = self._done, []
        return done

    def _next(self, start: int) -> int:
        """Read one element from there; return its end, or `start` if it is not all there."""
        buffer = self._buffer
        if self._skip:
            part = min(self._skip, len(buffer) - start)
            self._skip -= part
            if part and not self._skip:
                self._add(OVERSIZE)
            return start + part
        line_end = buffer.find(b"\r\n", start)
        if line_end < 0:
            return start
        kind, line, end = buffer[start], bytes(buffer[start + 1 : line_end]), line_end + 2
        if kind == 36:  # $
            return self._string(int(line), start, end)
        if kind == 42:  # *
            size = int(line)
            if size > 0:
                self._open.append((size, []))
            else:
                self._add([] if size == 0 else None)
        elif kind == 58:  # :
            self._add(int(line))
        elif kind == 43:  # +
            self._add(line)
        elif kind == 45:  # -
            self._add(ReplyError(line.decode(errors="replace")))
        else:
            raise ValueError(f"no reply of Redis: {bytes(buffer[start : start + 40])!r}")
        return end

    def _string(self, size: int, start: int, end: int) -> int:
        if size < 0:
            self._add(None)
            return end
        if size > self._longest:
            self._skip = size + 2
            return end
        if len(self._buffer) < end + size + 2:
            return start
        self._add(bytes(self._buffer[end : end + size]))
        return end + size + 2

    def _add(self, value: Any) -> None:
        while self._open:
            size, items = self._open[-1]
            items.append(value)
            if len(items) < size:
                return
            self._open.pop()
            value = items
        self._done.append(value)
