"""A server of the benchmark: members join its room, and it publishes as fast as they read.

    python -m tests.benchmarks.groups.node URL MODE SIZE DEPTH

URL and MODE are those of Redis; "" if there is none. It prints its port.
"""

from __future__ import annotations

import sys
import threading

import syncws

from ..process import die_with_parent, raise_file_limit


class Node(syncws.Service):
    """Obeys words: "join" adds the caller, "go" begins to publish, "ack" says that all have one."""

    config = syncws.ServiceConfig(ping_interval=None, compression=False)

    def __init__(self, room: syncws.Room, size: int, depth: int) -> None:
        self._room = room
        self._payload = b"x" * size
        self._free = threading.Semaphore(depth)

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        if text == "join":
            self._room.add(caller)
            caller.send_text("in")
        elif text == "go":
            threading.Thread(target=self._publish, daemon=True).start()
        else:
            self._free.release(int(text))

    def _publish(self) -> None:
        while self._free.acquire():
            self._room.send_binary(self._payload)


def main() -> None:
    """Serve until standard input ends."""
    die_with_parent()
    raise_file_limit()
    url, mode, size, depth = sys.argv[1:]
    backplane = syncws.RedisBackplane(url, mode=mode) if url else None
    groups = syncws.Groups(backplane)
    listener = syncws.Listener(0)
    listener.attach("/", Node(groups.room("all"), int(size), int(depth)))
    with listener:
        print(listener.port, flush=True)
        for _ in sys.stdin:
            print(groups.flush(30), flush=True)


if __name__ == "__main__":
    main()
