"""Groups among other libraries' ends, and slow ones: all that was sent comes, or is counted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import queue
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server
import wsproto
import wsproto.events
import wsproto.extensions

import syncws
from tests.support import HANG, ServerRecorder, Task, listening

COMPRESSED = syncws.ServiceConfig(ping_interval=None)

# What is said over and over, so that a compressor finds it in what was said before.
WORDS = (
    *("the", "price", "of", "what", "they", "all", "want", "has", "gone", "up", "again"),
    *("and", "nobody", "knows", "for", "how", "long"),
)


def says(who: str, number: int) -> str:
    """A message of its own that is like all the others; some are too short to be compressed."""
    chosen = random.Random(f"{who}{number}")
    size = chosen.choice([1, 5, 40, 200, 600])
    return f"{who} {number} " + " ".join(chosen.choices(WORDS, k=size))


# -- Compressed once, for whoever it is ----------------------------------

Reading = Callable[[str, int, threading.Event], list[str]]


def by_syncws(url: str, count: int, opened: threading.Event) -> list[str]:
    with syncws.Client(url, ping_interval=None) as client:
        opened.set()
        return [str(client.receive(timeout=HANG)) for _ in range(count)]


def by_websockets(url: str, count: int, opened: threading.Event) -> list[str]:
    with websockets.sync.client.connect(url) as client:
        opened.set()
        return [str(client.recv(timeout=HANG)) for _ in range(count)]


def by_aiohttp(url: str, count: int, opened: threading.Event) -> list[str]:
    async def read() -> list[str]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, compress=12) as client,
        ):
            assert client.compress
            opened.set()
            return [await client.receive_str(timeout=HANG) for _ in range(count)]

    return asyncio.run(read())


def by_wsproto(url: str, count: int, opened: threading.Event) -> list[str]:
    host, port = url.removeprefix("ws://").rstrip("/").split(":")
    ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    deflate = wsproto.extensions.PerMessageDeflate()
    found, text = [], ""
    with socket.create_connection((host, int(port)), HANG) as sock:
        sock.sendall(ws.send(wsproto.events.Request(host, "/", extensions=[deflate])))
        while len(found) < count:
            ws.receive_data(sock.recv(65_536))
            for event in ws.events():
                if isinstance(event, wsproto.events.AcceptConnection):
                    assert deflate.enabled()
                    opened.set()
                else:
                    assert isinstance(event, wsproto.events.TextMessage), event
                    text += event.data
                    if event.message_finished:
                        found.append(text)
                        text = ""
    return found


CLIENTS: list[Reading] = [by_syncws, by_websockets, by_aiohttp, by_wsproto]
EACH = 60


def check_order(got: list[str], senders: tuple[str, ...]) -> None:
    """Everything is there, and each sender's messages are in the order of its calls."""
    for who in senders:
        expected = [says(who, number) for number in range(EACH)]
        assert [text for text in got if text.startswith(f"{who} ")] == expected


@pytest.mark.parametrize("bits", [9, 15])
def test_every_client_inflates_it_between_messages_of_its_own(bits: int) -> None:
    """Threads send to the group, and one for each member to that alone, all at once."""
    service = ServerRecorder(
        syncws.ServiceConfig(
            ping_interval=None,
            compression=syncws.Compression(
                server_max_window_bits=bits, client_max_window_bits=bits
            ),
        )
    )
    with listening(service) as listener:
        url = f"ws://127.0.0.1:{listener.port}/"
        group, callers, readers = syncws.Group(), [], []
        for read in CLIENTS:
            opened = threading.Event()
            readers.append(Task(read, url, 3 * EACH, opened))
            assert opened.wait(HANG)
            callers.append(service.expect("on_open"))
            group.add(callers[-1])
        begin = threading.Barrier(2 + len(callers))

        def send_to_all(who: str) -> None:
            begin.wait(HANG)
            for number in range(EACH):
                assert group.send_text(says(who, number)) == len(callers)

        def send_to(caller: syncws.Caller) -> None:
            begin.wait(HANG)
            for number in range(EACH):
                text = says("own", number)
                if number % 7 == 0:
                    caller.send_text(text[:50], final=False)
                    text = text[50:]
                caller.send_text(text)

        senders = [Task(send_to_all, who) for who in ("one", "two")]
        senders += [Task(send_to, caller) for caller in callers]
        for task in senders:
            task.result()
        for task in readers:
            check_order(task.result(), ("one", "two", "own"))


def test_every_client_of_a_group_of_clients_sends_what_a_server_inflates() -> None:
    got: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def read(peer: websockets.sync.server.ServerConnection) -> None:
        got.put([str(peer.recv(timeout=HANG)) for _ in range(2 * EACH)])

    with websockets.sync.server.serve(read, "127.0.0.1", 0) as server:
        serving = Task(server.serve_forever)
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(syncws.Client(url, ping_interval=None)) for _ in range(3)
            ]
            group = syncws.Group(clients)

            def send_to(client: syncws.Client) -> None:
                for number in range(EACH):
                    client.send_text(says("own", number))

            senders = [Task(send_to, client) for client in clients]
            for number in range(EACH):
                assert group.send_text(says("one", number)) == 3
            for task in senders:
                task.result()
            for _ in clients:
                check_order(got.get(timeout=HANG), ("one", "own"))
        server.shutdown()
        serving.result()
    for end in (server.shutdown_watcher, server.shutdown_notifier):
        if isinstance(end, int):  # before version 17 a pipe that it leaves open
            os.close(end)


# -- Members that read slowly --------------------------------------------

# Bytes of a message: a few fill what the system takes for a peer with a small buffer.
SIZE = 8000


def numbered(number: int) -> str:
    """Text that does not get much shorter by compressing."""
    noise = random.Random(number).randbytes(SIZE // 2).hex()
    return f"{number} {noise}"


class Sleeper:
    """A client of another library that reads nothing until it is told to."""

    def __init__(
        self, stack: contextlib.ExitStack, listener: syncws.Listener, **options: Any
    ) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", listener.port))
        scheme = "wss" if "ssl" in options else "ws"
        self._peer = stack.enter_context(
            websockets.sync.client.connect(
                f"{scheme}://localhost:{listener.port}/",
                sock=sock,
                max_queue=1,
                ping_interval=None,
                **options,
            )
        )

    def read(self) -> list[int]:
        """Return the numbers of what comes, which is whole, until the end of it."""
        numbers = []
        while True:
            try:
                text = str(self._peer.recv(timeout=HANG))
            except websockets.exceptions.ConnectionClosed:
                return numbers
            if text == "end":
                return numbers
            numbers.append(int(text.split(" ", maxsplit=1)[0]))
            assert text == numbered(numbers[-1])

    def closed_with(self) -> int | None:
        return self._peer.close_code


WAYS = ["plain", "compressed", "TLS"]


class Scene:
    """A group with a member that sleeps and one that reads, over real sockets."""

    def __init__(
        self, stack: contextlib.ExitStack, policy: str, way: str, client_tls: ssl.SSLContext,
        server_tls: ssl.SSLContext,
    ) -> None:  # fmt: skip
        config = syncws.ServiceConfig(
            ping_interval=None, compression=way == "compressed", send_buffer_size=100_000
        )
        self.service = ServerRecorder(config)
        tls = {"ssl": server_tls} if way == "TLS" else {}
        listener = stack.enter_context(listening(self.service, **tls))
        options: dict[str, Any] = {"ssl": client_tls} if way == "TLS" else {}
        if way != "compressed":
            options["compression"] = None
        self.sleeper = Sleeper(stack, listener, **options)
        self.slow = self.service.expect("on_open")
        scheme = "wss" if way == "TLS" else "ws"
        self.reader = stack.enter_context(
            syncws.Client(
                f"{scheme}://localhost:{listener.port}/",
                ping_interval=None,
                **({"ssl": client_tls} if way == "TLS" else {}),
            )
        )
        self.group = syncws.Group(
            [self.slow, self.service.expect("on_open")], name="prices", policy=policy
        )
        self.taken = 0
        self.sent = 0

    def send(self) -> int:
        """Send the next message; whoever reads has it before this returns."""
        number = self.sent
        self.sent += 1
        taken = self.group.send_text(numbered(number))
        assert self.reader.receive(timeout=HANG) == numbered(number)
        return taken

    def send_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self.taken += self.send() - 1
            assert self.sent < 3000, "the system takes it all"


@pytest.fixture
def scene(
    request: pytest.FixtureRequest, client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        policy, way = request.param
        yield Scene(stack, policy, way, client_tls, server_tls)


def scenes(policy: str) -> Any:
    return pytest.mark.parametrize(
        "scene", [(policy, way) for way in WAYS], indirect=True, ids=WAYS
    )


DROPS = 40


def sent_alone(scene: Scene) -> Task:
    """Have the slow one's last message sent, which waits for room."""
    return Task(scene.slow.send_text, "end")


@scenes("drop_newest")
def test_drop_newest_sends_the_oldest(scene: Scene) -> None:
    group, slow = scene.group, scene.slow
    scene.send_until(lambda: group.dropped_of(slow) == DROPS)
    assert scene.sent == scene.taken + DROPS
    assert group.dropped == DROPS
    assert slow.buffered_amount < 100_000 + 2 * SIZE
    end = sent_alone(scene)
    assert scene.sleeper.read() == list(range(scene.taken))
    end.result()
    # It has caught up, and gets what comes from now on.
    assert scene.send() == 2
    Task(slow.send_text, "end").result()
    assert scene.sleeper.read() == [scene.sent - 1]
    assert group.dropped == DROPS
    assert slow.buffered_amount == 0


@scenes("drop_oldest")
def test_drop_oldest_sends_the_newest(scene: Scene) -> None:
    group, slow = scene.group, scene.slow
    scene.send_until(lambda: group.dropped_of(slow) >= DROPS)
    assert scene.taken == scene.sent
    assert group.dropped == group.dropped_of(slow)
    assert slow.buffered_amount < 100_000 + 2 * SIZE
    end = sent_alone(scene)
    got = scene.sleeper.read()
    end.result()
    assert len(got) + group.dropped == scene.sent
    assert got == sorted(got)
    # What the system had taken comes first, then nothing for a while, then all to the last.
    gap = [late - early for early, late in itertools.pairwise(got)]
    assert [step for step in gap if step != 1] == [group.dropped + 1]
    assert got[-1] == scene.sent - 1
    assert slow.buffered_amount == 0


@scenes("close")
def test_close_sends_all_up_to_the_end(scene: Scene) -> None:
    group, slow = scene.group, scene.slow
    scene.send_until(lambda: scene.sent > 1 and scene.taken < scene.sent)
    assert (scene.taken, group.dropped) == (scene.sent - 1, 0)
    call = scene.service.next()
    assert (call.name, call.endpoint) == ("on_error", slow)
    assert isinstance(call.args[0], syncws.SendTimeout)
    assert scene.sleeper.read() == list(range(scene.taken))
    assert scene.sleeper.closed_with() == 1013


class Lines(logging.Handler):
    """What is logged, as it was then."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.SimpleQueue[str] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.queue.put(record.getMessage())


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    log = logging.getLogger("syncws.groups")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


@pytest.mark.parametrize("scene", [("drop_oldest", "plain")], indirect=True)
def test_what_is_dropped_is_told_once(scene: Scene, lines: Lines) -> None:
    scene.send_until(lambda: scene.group.dropped >= DROPS)
    assert lines.queue.get(timeout=HANG) == (
        f"{scene.slow!r} reads too slowly for <syncws.Group 'prices' of 2>: "
        "messages for it are dropped, 1 so far"
    )
    end = sent_alone(scene)
    scene.sleeper.read()
    end.result()
    assert lines.queue.empty()


@pytest.mark.parametrize("scene", [("drop_oldest", "plain")], indirect=True)
def test_who_leaves_and_comes_back_is_counted_anew(scene: Scene) -> None:
    group, slow = scene.group, scene.slow
    scene.send_until(lambda: group.dropped > 0)
    before = group.dropped
    assert group.dropped_of(slow) == before
    group.discard(slow)
    assert group.dropped_of(slow) == 0
    assert group.dropped == before
    group.add(slow)
    assert group.dropped_of(slow) == 0
    assert scene.send() == 2
    assert (group.dropped_of(slow), group.dropped) == (1, before + 1)
    task = Task(scene.sleeper.read)
    slow.send_text("end")
    task.result()
