"""What is counted of connections and of a listener."""

from __future__ import annotations

import syncws
from tests.support import TEXT, RawPeer, listening, wait_until


class Echo(syncws.Service):
    config = syncws.ServiceConfig(ping_interval=None, compression=False)

    def __init__(self) -> None:
        self.callers: list[syncws.Caller] = []

    def on_open(self, caller: syncws.Caller) -> None:
        self.callers.append(caller)

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text + "!")


def test_messages_and_their_bytes_are_counted_live_and_after_the_end() -> None:
    service = Echo()
    group = syncws.Group()
    with listening(service) as listener:
        with RawPeer.connect(listener) as peer:
            for text in ("hello", "grün"):  # 5 bytes of each kind
                peer.text(text)
                peer.expect(TEXT, text + "!")
            group.add(service.callers[0])
            group.send_text("all")
            peer.expect(TEXT, "all")
            assert service.callers[0].stats() == (10, 15, 2, 3)
            assert listener.stats() == (1, 1, {}, 10, 15, 2, 3, 0)
            peer.finish()
        wait_until(lambda: listener.stats().open == 0)
        stats = listener.stats()
        assert stats[:2] == (0, 1)
        assert sum(stats.closed.values()) == 1
        assert stats[3:] == (10, 15, 2, 3, 0)
        assert service.callers[0].stats() == (10, 15, 2, 3)
