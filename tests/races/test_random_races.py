"""Several threads at both ends of a connection do what comes to their minds, for some rounds.

What that is comes from a seed, so that a failure can be looked at again as far
as threads allow.
"""

from __future__ import annotations

import contextlib
import queue
import random
from collections.abc import Callable
from typing import Any

import pytest

import syncws
from tests.support import HANG, Call, Recorder, ServerRecorder, Task, listening

_ROUNDS = 12
_STEPS = 30


class Talk:
    """One end: what it has sent, and every way to use it."""

    def __init__(self, endpoint: Any, name: str, group: syncws.Group) -> None:
        self.endpoint = endpoint
        self.name = name
        self.group = group

    def act(self, rng: random.Random, thread: int, closes: bool) -> list[str]:
        """Do some steps; return what was taken for sure, in order."""
        taken = []
        with contextlib.suppress(syncws.ConnectionClosed):
            for number in range(_STEPS):
                text = f"{self.name} {thread} {number} " + "x" * rng.choice((0, 10, 200, 20_000))
                step = rng.randrange(10)
                if step < 7:
                    self.endpoint.send_text(text)
                    taken.append(text)
                elif step == 7:
                    self.endpoint.ping(b"%d" % number)
                elif step == 8:
                    self.group.add(self.endpoint)
                    self.group.send_text("all", exclude=list(self.group)[1:])
                else:
                    self.group.discard(self.endpoint)
        if closes:
            self.endpoint.close(4000 + thread, timeout=rng.choice((0, 5.0)))
        return taken


def heard(calls: queue.Queue[Call]) -> tuple[list[str], bool]:
    """Return the texts up to on_close, and whether that was in order, for this end and the peer."""
    texts, failed = [], False
    while True:
        call = calls.get(timeout=HANG)
        failed = failed or call.name == "on_error"
        if call.name == "on_text" and call.args[0] != "all":
            texts.append(call.args[0])
        if call.name == "on_close":
            return texts, not failed and call.args[0] == 4000


def in_order(texts: list[str], taken: list[list[str]], whole: bool) -> None:
    """Each thread's texts come in order, once, none besides; all of them if `whole`."""
    for thread in taken:
        mine = [text for text in texts if text in set(thread)]
        assert mine == thread[: len(mine)]
        assert not whole or len(mine) == len(thread)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"compression": False},
    "compressed": {"compression": True},
    "narrow": {"compression": False, "receive_queue_size": 1, "send_buffer_size": 1000},
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_random_use_of_both_ends(kind: str) -> None:
    options = OPTIONS[kind]
    clean_ends = 0
    for seed in range(_ROUNDS):
        rng = random.Random(seed)
        server = ServerRecorder(syncws.ServiceConfig(ping_interval=None, **options))
        mine: Recorder = Recorder()
        group = syncws.Group()
        with listening(server) as listener:
            url = f"ws://127.0.0.1:{listener.port}/"
            client = syncws.Client(url, service=mine, ping_interval=None, **options)
            caller = server.expect("on_open")
            ends = [Talk(client, "client", group), Talk(caller, "caller", group)]
            closer = rng.randrange(2)
            tasks = [
                Task(
                    end.act, random.Random(rng.random()), thread, end is ends[closer] and not thread
                )
                for end in ends
                for thread in range(2)
            ]
            taken = [task.result() for task in tasks]
            texts, clean = heard(server.calls)
            mine_texts, mine_clean = heard(mine.calls)
            client.close()
            # Who closes drops what comes; what it has sent before, the other
            # gets. Unless that is too slow for the group.
            in_order(texts, taken[:2], whole=closer == 0 and clean and mine_clean)
            in_order(mine_texts, taken[2:], whole=closer == 1 and clean and mine_clean)
            clean_ends += clean and mine_clean
            assert len(group) == 0
        assert server.calls.empty()
        assert mine.calls.empty()
    assert clean_ends or kind == "narrow"


def together(*calls: Callable[[], Any]) -> None:
    for task in [Task(call) for call in calls]:
        task.result()


def test_clients_come_and_go_with_a_listener_and_an_engine_of_their_own() -> None:
    """Engines, listeners, groups and clients, begun and ended by several threads."""
    engine = syncws.Engine(workers=2, max_workers=4, name="busy")
    group = syncws.Group()

    class Chat(syncws.Service):
        config = syncws.ServiceConfig(ping_interval=None, compression=False)

        def on_open(self, caller: Any) -> None:
            group.add(caller)

        def on_text(self, caller: Any, text: str) -> None:
            group.send_text(text)

    listener = syncws.Listener(0, engine=engine)
    listener.attach("/", Chat())

    def visit() -> None:
        for number in range(10):
            with (
                contextlib.suppress(syncws.ConnectError, syncws.ConnectionClosed, OSError),
                syncws.Client(
                    f"ws://127.0.0.1:{listener.port or 1}/", engine=engine, ping_interval=None
                ) as client,
            ):
                client.send_text(str(number))
                client.receive(timeout=HANG)

    def restart() -> None:
        for _ in range(20):
            with contextlib.suppress(RuntimeError):
                listener.start()
            listener.stop()

    for _ in range(3):
        together(visit, visit, restart, restart)
        listener.stop()
        assert len(group) == 0
        assert engine.stats().users == 0
