"""Waits for sockets to be ready: epoll where there is one, else what `selectors` finds.

epoll is used without `selectors`, whose objects for every socket that is ready
cost as much as reading from it.
"""

from __future__ import annotations

import contextlib
import math
import select
import selectors
from typing import Any, Protocol

from ..native import extension

__all__ = [
    "MOST_READY",
    "READ",
    "WRITE",
    "EpollPoller",
    "FastEpollPoller",
    "Poller",
    "SelectorPoller",
    "make_poller",
]

_extension: Any = extension

# What a poll tells of at the most: the extension 1024, `select.epoll` one less.
MOST_READY = 1023

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Poller(Protocol):
    """Descriptors, what each is waited for, and an object that belongs to it.

    Owned by the I/O thread.
    """

    def register(self, fileobj: Any, mask: int, owner: Any) -> None:
        """Wait for a descriptor to be ready for READ, WRITE or both."""

    def modify(self, fileobj: Any, mask: int, owner: Any) -> None:
        """Wait for something else from now on, or for another owner."""

    def unregister(self, fileobj: Any) -> None:
        """Forget a descriptor, whether or not it is known."""

    def poll(self, timeout: float | None) -> list[tuple[Any, int]]:
        """Wait for up to `timeout` seconds; return the owners of what is ready, and for what."""

    def close(self) -> None:
        """Forget everything."""


class EpollPoller:
    """Linux's."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._owners: dict[int, tuple[Any, int]] = {}  # by descriptor; and the mask

    def register(self, fileobj: Any, mask: int, owner: Any) -> None:
        fd = fileobj.fileno()
        self._epoll.register(fd, _EPOLL[mask])
        self._owners[fd] = owner, mask

    def modify(self, fileobj: Any, mask: int, owner: Any) -> None:
        fd = fileobj.fileno()
        if self._owners[fd][1] != mask:
            self._epoll.modify(fd, _EPOLL[mask])
        self._owners[fd] = owner, mask

    def unregister(self, fileobj: Any) -> None:
        fd = fileobj.fileno()
        if self._owners.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                self._epoll.unregister(fd)

    def poll(self, timeout: float | None) -> list[tuple[Any, int]]:
        owners = self._owners
        ready = []
        for fd, event in self._epoll.poll(timeout):
            found = owners.get(fd)
            if found is None:
                continue
            # An error or the end of a connection makes both ready.
            got = (READ if event & ~_EPOLLOUT else 0) | (WRITE if event & ~_EPOLLIN else 0)
            if got & found[1] != found[1]:
                found = found[0], got & found[1]
            ready.append(found)
        return ready

    def close(self) -> None:
        self._epoll.close()
        self._owners.clear()


class FastEpollPoller(EpollPoller):
    """The same, telling of what is ready when it returns, not when it was woken.

    In between it waits for the interpreter lock, and with all that has come
    meanwhile a round is worth more.
    """

    def poll(self, timeout: float | None) -> list[tuple[Any, int]]:
        milliseconds = -1 if timeout is None else math.ceil(timeout * 1000)
        ready: list[tuple[Any, int]] = _extension.epoll_wait(
            self._epoll.fileno(), milliseconds, self._owners
        )
        return ready


_EPOLLIN = getattr(select, "EPOLLIN", 0)
_EPOLLOUT = getattr(select, "EPOLLOUT", 0)
_EPOLL = {READ: _EPOLLIN, WRITE: _EPOLLOUT, READ | WRITE: _EPOLLIN | _EPOLLOUT}


class SelectorPoller:
    """Any system's."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fileobj: Any, mask: int, owner: Any) -> None:
        self._selector.register(fileobj, mask, owner)

    def modify(self, fileobj: Any, mask: int, owner: Any) -> None:
        self._selector.modify(fileobj, mask, owner)

    def unregister(self, fileobj: Any) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(fileobj)

    def poll(self, timeout: float | None) -> list[tuple[Any, int]]:
        return [(key.data, mask) for key, mask in self._selector.select(timeout)]

    def close(self) -> None:
        self._selector.close()


def make_poller() -> Poller:
    """Return the best that this system has."""
    if hasattr(extension, "epoll_wait"):
        return FastEpollPoller()
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
