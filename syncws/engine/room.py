"""What waits to be written, and who waits for that to become less.

Threads: any, but for what is said to require the lock.
"""

from __future__ import annotations

import threading

from ..config import ConnectionConfig
from ..errors import SendTimeout
from ..timing import Deadline
from .loop import IOLoop
from .outbuf import OutBuffer
from .state import End

__all__ = ["Room"]

# The part of `send_buffer_size` that is left while memory is scarce.
_TIGHT = 8

# Of those for whom nobody has waited yet; never filled.
_NONE: dict[object, None] = {}


class Room:
    """The out-buffer of a connection, and its marks.

    Args:
        loop: Whose clock it goes by, and whose thread never waits.
        config: Its `send_buffer_size` and `send_timeout`.
        end: Why waiting fails once the connection has ended.
    """

    __slots__ = (
        "_brim",
        "_condition",
        "_full_size",
        "_high",
        "_loop",
        "_low",
        "_out",
        "_timeout",
        "_waiters",
        "end",
        "lock",
        "open",
    )

    def __init__(self, loop: IOLoop, config: ConnectionConfig, end: End) -> None:
        self._loop = loop
        self._timeout = config.send_timeout
        self._full_size = config.send_buffer_size

        # Guarded by `lock`, which guards the connection's state as well.
        self.lock = threading.Lock()
        self.end = end
        self.open = True  # messages can be sent
        self._out = OutBuffer()
        self._condition: threading.Condition | None = None  # made by the first who waits
        self._waiters: dict[object, None] = _NONE  # senders that wait for room
        self._set_room(config.send_buffer_size)

    @property
    def size(self) -> int:
        """Bytes taken by `send` that the system has not taken yet."""
        return self._out.size

    def tighten(self) -> None:
        """Have senders wait early."""
        with self.lock:
            self._set_room(self._full_size // _TIGHT)

    def relax(self) -> None:
        """Have senders wait as set, again."""
        with self.lock:
            self._set_room(self._full_size)
            if self._out.size <= self._low:
                self.notify()

    def _wait_for_room(self, deadline: Deadline | None) -> Deadline:
        """Wait until the peer has read; return the deadline that the next wait has, too."""
        # The I/O thread must not wait for itself. It comes here only from a
        # logging handler of the user's that sends what it gets.
        timeout = 0.0 if self._loop.in_thread() else self._timeout
        deadline = deadline or Deadline(timeout, self._loop.wait_clock)
        with self.lock:
            condition = self.waiting()
            here = object()
            try:
                self._waiters[here] = None
                self._wait_first()
                while self._out.size > self._high and self.open:
                    remaining = deadline.remaining()
                    if remaining == 0.0:
                        raise SendTimeout(
                            f"no room for {timeout} s: the peer has {self._out.size} bytes still "
                            "to read; nothing of this message was sent"
                        )
                    condition.wait(remaining)
            finally:
                # At once: a signal handler may raise in what is called next.
                self._waiters.pop(here, None)
                self._wait_first()
            if not self.open:
                raise self.end.closed_error()
        return deadline

    # -- Under the lock --------------------------------------------------

    def _set_room(self, size: int) -> None:
        """Have `size` bytes wait at the most. Requires `lock`."""
        self._high = size  # bytes above which senders wait
        self._low = size // 4  # and at which they go on
        self._wait_first()

    def _wait_first(self) -> None:
        """Others wait for room than before, or its size is another. Requires `lock`.

        Messages that are dropped for want of room leave it to them, who would
        wait in vain if a group took all that the peer's reading makes.
        """
        self._brim = self._low if self._waiters else self._high  # bytes up to which these have room

    def waiting(self) -> threading.Condition:
        """Return what those wait on who wait for room or for the end. Requires `lock`."""
        if self._condition is None:
            self._condition = threading.Condition(self.lock)
            self._waiters = {}
        return self._condition

    def notify(self) -> None:
        """Wake who waits for room or for the end. Requires `lock`."""
        if self._condition is not None:
            self._condition.notify_all()
