"""Rooms over several processes, by a real Redis that is killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import syncws
from tests.integration.test_lost_link import _can_make_namespaces as can_make_namespaces
from tests.programs import ROOT, find_program, free_port
from tests.redises.real import RealRedis, real_redis
from tests.support import HANG, Interpreter, Task, authority, interpreter, wait_until

MODES = ("pubsub", "stream")
QUICK: dict[str, Any] = {"timeout": 2.0, "retry_interval": 0.05, "max_retry_interval": 0.2}


_SERVER = "from tests.redises.server import main; main()"


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


class Node:
    """A process with a WebSocket server, and clients of it here."""

    def __init__(self, process: Interpreter) -> None:
        self._process = process
        self.port = int(process.line())
        self._clients: list[Member] = []

    def ask(self, *command: str) -> Any:
        """Have it do something, and return what comes of it."""
        self._process.tell(" ".join(command))
        line = self._process.line()
        assert line != "<end>", self._process.end()
        return json.loads(line)

    def join(self, room: str, name: str) -> Member:
        """Connect a client that is a member of a room."""
        member = Member(f"ws://127.0.0.1:{self.port}/{room}/{name}")
        self._clients.append(member)
        return member

    def wait_connected(self, connected: bool) -> None:
        """Wait until it has a connection to Redis, or none."""
        wait_until(lambda: self.ask("stats")["connected"] is connected)

    def kill(self) -> None:
        """End the process without a word."""
        self._process.process.kill()
        self._process.process.wait(HANG)

    def end(self) -> tuple[int, str]:
        """Have it end; return its status and what it has logged."""
        self.close()
        assert self._process.process.stdin is not None
        self._process.process.stdin.close()
        return self._process.end()

    def close(self) -> None:
        """Close the clients."""
        for member in self._clients:
            member.close()


class Member:
    """A client that keeps all that it gets, in order."""

    def __init__(self, url: str) -> None:
        self.client = syncws.Client(url, ping_interval=None, receive_queue_bytes=2**26)
        assert self.client.receive(HANG) == "in"
        self.got: list[str | bytes] = []
        self._news: queue.Queue[str | bytes] = queue.Queue()
        self._task = Task(self._read)

    def _read(self) -> None:
        with contextlib.suppress(syncws.ConnectionClosed):
            while True:
                message = self.client.receive()
                self.got.append(message)
                self._news.put(message)

    def next(self) -> str | bytes:
        """Return the next message."""
        return self._news.get(timeout=HANG)

    def wait_for(self, count: int) -> None:
        """Wait until it has got that many messages."""
        wait_until(lambda: len(self.got) >= count)

    def until(self, word: str) -> list[str | bytes]:
        """Return all messages before this one, once it has come."""
        found = []
        while (message := self.next()) != word:
            found.append(message)
        return found

    def close(self) -> None:
        """End it."""
        self.client.close()
        self._task.wait()


@pytest.fixture
def node(redis: RealRedis) -> Iterator[Callable[..., Node]]:
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> Node:
            process = stack.enter_context(
                interpreter(
                    "from tests.redises.server import main; main()",
                    redis.url,
                    json.dumps(QUICK | options),
                )
            )
            new = Node(process)
            stack.callback(new.close)
            return new

        yield start


@pytest.mark.parametrize("mode", MODES)
def test_messages_cross_processes_once_and_in_order(node: Callable[..., Node], mode: str) -> None:
    one, two, three = (node(mode=mode) for _ in range(3))
    members = [one.join("r", "a"), two.join("r", "b"), two.join("r", "c"), three.join("r", "d")]
    stranger = three.join("other", "e")
    for number in range(100):
        assert one.ask("send", "r", f"one {number}") == 1
        assert two.ask("send", "r", f"two {number}") == 2
        assert three.ask("send", "s", "to nobody") == 0
    for process in (one, two):
        assert process.ask("flush")
        process.ask("send", "r", "end")
    for member in members:
        got = [*member.until("end"), *member.until("end")]
        for sender in ("one", "two"):
            assert [text for text in got if str(text).startswith(sender)] == [
                f"{sender} {number}" for number in range(100)
            ]
        assert len(got) == 200
    assert three.ask("send", "other", "the first") == 1
    assert stranger.next() == "the first"
    for process in (one, two, three):
        stats = process.ask("stats")
        assert stats["connected"]
        assert (stats["missed"], stats["duplicates"], stats["malformed"]) == (0, 0, 0)
        assert process.end() == (0, "")


def outage(redis: RealRedis, sender: Node, others: list[Node], members: list[Member]) -> range:
    """Kill Redis under traffic, and start it again once more of it was sent.

    Returns the numbers that may have been sent while it was away.
    """
    got = [len(member.got) for member in members]
    for member, before in zip(members, got, strict=True):
        member.wait_for(before + 100)
    first = min(int(member.got[-1]) for member in members)
    redis.kill()
    for other in others:
        other.wait_connected(False)
    until(sender, sender.ask("tried", "r") + 300)
    redis.start()
    for one in (sender, *others):
        one.wait_connected(True)
    last = int(sender.ask("tried", "r"))
    until(sender, last + 300)
    return range(first, last + 1)


def until(sender: Node, tried: int) -> None:
    wait_until(lambda: sender.ask("tried", "r") >= tried)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("queue_size", [10_000, 50])
@pytest.mark.parametrize("mode", MODES)
def test_redis_is_killed_under_traffic(
    redis: RealRedis,
    node: Callable[..., Node],
    mode: str,
    queue_size: int,
    rounds: int,
    record_property: Callable[[str, object], None],
) -> None:
    sender = node(mode=mode, queue_size=queue_size)
    others = [node(mode=mode), node(mode=mode)]
    here = sender.join("r", "here")
    there = [other.join("r", "there") for other in others]
    sender.ask("begin", "r")
    away = [outage(redis, sender, others, there) for _ in range(rounds)]
    sent = sender.ask("end", "r")
    assert here.until("end") == [str(number) for number in range(sent)]
    unsent = sender.ask("stats")["unsent"]
    for other, member in zip(others, there, strict=True):
        got = [int(text) for text in member.until("end")]
        stats = other.ask("stats")
        lost = sent - len(set(got))  # the numbers are those from 0 to it
        told = {
            "sent": sent,
            "delivered": len(got),
            "lost": lost,
            "duplicated": len(got) - len(set(got)),
            "counted as missed": stats["missed"],
            "of these given up by the sender": unsent,
            "duplicates dropped": stats["duplicates"],
        }
        print(mode, told)
        record_property("figures", told)
        assert got == sorted(set(got))  # in order, and none twice
        assert lost == stats["missed"]
        assert stats["received"] == len(got) + 1
        if mode == "stream":
            assert lost == 0
        else:
            missing = set(range(sent)) - set(got)
            if queue_size == 10_000:  # the other may be full when Redis is only slow
                assert all(any(number in one for one in away) for number in missing)
            assert lost >= unsent
            if queue_size == 50:
                assert unsent >= 200
    for one in (sender, *others):
        status, log = one.end()
        assert status == 0
        lines = [line for line in log.splitlines() if "lost: the queue is full" not in line]
        begins = [" ".join(line.split()[:2]) for line in lines]
        one_outage = ["WARNING:syncws.groups:no connection", "INFO:syncws.groups:connected to"]
        assert begins == one_outage * rounds, log


def test_a_stream_that_takes_no_more_says_so(redis: RealRedis, node: Callable[..., Node]) -> None:
    sender, other = node(mode="stream", queue_size=5), node(mode="stream")
    member = other.join("r", "there")
    sender.ask("send", "r", "before")
    assert sender.ask("flush")
    redis.kill()
    backplane = syncws.RedisBackplane(redis.url, mode="stream", queue_size=5, **QUICK)
    with syncws.Groups(backplane) as groups:
        room = groups.room("r")
        for number in range(5):
            assert room.send_text(str(number)) == 0
        with pytest.raises(syncws.BackplaneError, match="5 messages wait for Redis already"):
            room.send_text("refused")
        redis.start()
        assert groups.flush(HANG)
        room.send_text("after")
        assert groups.flush(HANG)
        assert backplane.stats().unsent == 0
    assert [member.next() for _ in range(7)] == ["before", "0", "1", "2", "3", "4", "after"]


# -- Presence ----------------------------------------------------------------


def test_presence_is_of_all_processes(redis: RealRedis, node: Callable[..., Node]) -> None:
    one, two = node(presence_ttl=2.0), node(presence_ttl=2.0)
    ann = one.join("r", "ann")
    two.join("r", "bob")
    two.join("r", "cid")
    two.join("s", "dan")
    for process in (one, two):
        assert process.ask("who", "r") == ["ann", "bob", "cid"]
        assert process.ask("who", "s") == ["dan"]
        assert process.ask("who", "nobody") == []
    ann.close()
    wait_until(lambda: two.ask("who", "r") == ["bob", "cid"])
    # Redis forgets everything; whoever is there says so again.
    redis.command("FLUSHALL")
    wait_until(lambda: one.ask("who", "r") == ["bob", "cid"])
    two.kill()
    wait_until(lambda: one.ask("who", "r") == [])
    assert redis.command("EXISTS", "syncws:who:r") == 0


def test_presence_comes_back_with_redis(node: Callable[..., Node], redis: RealRedis) -> None:
    one, two = node(), node()
    two.join("r", "bob")
    assert one.ask("who", "r") == ["bob"]
    redis.kill()
    (redis.path.parent / "appendonlydir").rename(redis.path.parent / "lost")
    redis.start()
    wait_until(lambda: one.ask("who", "r") == ["bob"])


def test_who_ends_in_order_is_gone_at_once(node: Callable[..., Node], redis: RealRedis) -> None:
    one = node()
    with syncws.Groups(syncws.RedisBackplane(redis.url, **QUICK)) as groups:
        one.join("r", "ann")
        assert [who.info for who in groups.who("r")] == [{"name": "ann"}]
        assert one.end()[0] == 0
        assert groups.who("r") == []
    assert redis.command("KEYS", "*") == []


# -- Rooms -------------------------------------------------------------------


@contextlib.contextmanager
def planes(redis: RealRedis, *modes: str) -> Iterator[list[syncws.RedisBackplane]]:
    """Backplanes by themselves, started."""
    made = [syncws.RedisBackplane(redis.url, mode=mode, **QUICK) for mode in modes]
    try:
        for plane in made:
            plane.start()
        yield made
    finally:
        for plane in made:
            plane.close(HANG)


@pytest.mark.parametrize("mode", MODES)
def test_thousands_of_rooms(redis: RealRedis, mode: str) -> None:
    got: queue.Queue[tuple[str, bytes]] = queue.Queue()
    names = [f"room {number}" for number in range(5000)]

    def keep(name: str) -> Callable[[int, bytes], None]:
        return lambda opcode, payload: got.put((name, payload))

    with planes(redis, mode, mode) as (backplane, other):
        for name in names:
            backplane.subscribe(name, keep(name))
        assert backplane.flush(HANG)
        if mode == "pubsub":
            assert len(redis.command("PUBSUB", "CHANNELS", "*:room:*")) == 5000
        for name in names:
            other.publish(name, 1, name.encode())
        found = [got.get(timeout=HANG) for _ in names]
        assert sorted(found) == sorted((name, name.encode()) for name in names)
        for name in names[1:]:
            backplane.unsubscribe(name)
        assert backplane.flush(HANG)
        if mode == "pubsub":
            assert redis.command("PUBSUB", "CHANNELS", "*:room:*") == [b"syncws:room:room 0"]
        for name in names[:2]:
            other.publish(name, 2, b"\xff")
        assert got.get(timeout=HANG) == ("room 0", b"\xff")
        backplane.unsubscribe("room 0")
        assert backplane.flush(HANG)
    assert got.empty()


@pytest.mark.parametrize("mode", MODES)
def test_a_reader_that_waits_is_woken_through_redis(redis: RealRedis, mode: str) -> None:
    # What it would do by itself after its timeout comes too late.
    backplane = syncws.RedisBackplane(redis.url, mode=mode, shards=1000, timeout=10 * HANG)
    backplane.start()
    runtime = backplane._runtime
    assert runtime is not None
    for name in ("one", "two", "three"):
        backplane.subscribe(name, lambda opcode, payload: None)
        assert backplane.flush(HANG)
        wait_until(lambda: runtime.reader._asleep)
    backplane.close(HANG)
    assert not runtime.reader._thread.is_alive()
    for key in redis.command("KEYS", "*wake*"):
        assert 0 < redis.command("PTTL", key) <= 60_000


def test_streams_are_short_and_expire(redis: RealRedis) -> None:
    backplane = syncws.RedisBackplane(
        redis.url, mode="stream", shards=1, stream_length=10, stream_ttl=1000, prefix="x:", **QUICK
    )
    backplane.start()
    for number in range(1000):
        backplane.publish("r", 1, b"%d" % number)
    assert backplane.flush(HANG)
    assert redis.command("XLEN", "x:stream:0") < 300  # it is cut roughly
    assert 900_000 < redis.command("PTTL", "x:stream:0") <= 1_000_000
    backplane.close(HANG)


def test_what_others_publish_harms_nobody(redis: RealRedis, node: Callable[..., Node]) -> None:
    one = node(max_message_size=100)
    member = one.join("r", "ann")
    for data in (b"", b"hello", b"{}", b"sw\x01\x01" + bytes(50), b"x" * 1_000_000):
        redis.command("PUBLISH", "syncws:room:r", data)
    with syncws.Groups(syncws.RedisBackplane(redis.url, **QUICK)) as groups:
        groups.room("r").send_text("still there")
        assert member.next() == "still there"
        groups.room("r").send_text("x" * 100)
        assert member.next() == "x" * 100
        groups.room("r").send_text("x" * 101)  # more than the other one takes
        groups.room("r").send_text("end")
        assert member.next() == "end"
    assert one.ask("stats")["malformed"] == 6
    status, log = one.end()
    assert status == 0
    assert log.count("none of ours") == 1


# -- Getting in --------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_tls_and_a_password(tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    certificate = authority().issue_cert("127.0.0.1")
    files = [str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")]
    authority().cert_pem.write_to_path(files[0])
    certificate.cert_chain_pems[0].write_to_path(files[1])
    certificate.private_key_pem.write_to_path(files[2])
    port = free_port()
    names = ("tls-ca-cert-file", "tls-cert-file", "tls-key-file")
    lines = [f"{name} {file}" for name, file in zip(names, files, strict=True)]
    lines += [f"tls-port {port}", "tls-auth-clients no", "requirepass se/cret", "bind 127.0.0.1"]
    got: queue.Queue[bytes] = queue.Queue()
    trust = {"ssl_ca_certs": files[0]}
    with contextlib.ExitStack() as stack:
        stack.enter_context(real_redis(*lines))

        def start(password: str, **options: Any) -> syncws.RedisBackplane:
            url = f"rediss://:{password}@127.0.0.1:{port}"
            plane = syncws.RedisBackplane(url, mode=mode, **(QUICK | options))
            stack.callback(plane.close, HANG)
            plane.start()
            return plane

        one, other = start("se%2Fcret", options=trust), start("se%2Fcret", options=trust)
        one.subscribe("r", lambda opcode, payload: got.put(payload))
        assert one.flush(HANG)
        for size in (0, 1, 20_000, 1_000_000, 10):
            other.publish("r", 2, bytes(size))
        assert [len(got.get(timeout=HANG)) for _ in range(5)] == [0, 1, 20_000, 1_000_000, 10]
        other.join("r", "m", {})
        assert other.flush(HANG)
        assert one.who("r", HANG) == [syncws.Presence("m", {})]
        assert not caplog.records
        strangers = [start("se%2Fcret"), start("wro%2Fng", options=trust)]
        wait_until(lambda: len(caplog.records) == 2)
        assert "certificate" in caplog.text.lower()
        assert "password" in caplog.text.lower()
        assert "cret" not in caplog.text
        assert "wro/ng" not in caplog.text
        for plane in strangers:
            plane.close(0)


# -- Forks -------------------------------------------------------------------

_PREFORK = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import syncws
from tests.redises.server import Rooms

url, mode, early = sys.argv[1:]
groups = syncws.Groups(syncws.RedisBackplane(url, mode=mode, timeout=2))
if early:  # the parent uses it, too
    groups.room("r").send_text("before the forks")
    assert groups.flush(20)
pids, channels = [], []
for name in ("ann", "bob"):
    come, go = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        listener = syncws.Listener(0)
        listener.attach("/{room}/{name}", Rooms(groups))
        listener.start()
        client = syncws.Client(f"ws://127.0.0.1:{listener.port}/r/{name}")
        assert client.receive(20) == "in"
        os.write(come[1], b"x")
        os.read(go[0], 1)
        groups.room("r").send_text(f"from {name}")
        got = {client.receive(20) for _ in range(3)}
        assert got == {"from ann", "from bob", "from the parent"}, got
        client.close()
        listener.stop()
        groups.close()
        assert client.receive is not None
        os._exit(0)
    pids.append(pid)
    channels.append((come[0], go[1]))
for come, _ in channels:
    os.read(come, 1)
for _, go in channels:
    os.write(go, b"x")
groups.room("r").send_text("from the parent")
assert groups.flush(20)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]))
groups.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("early", ["", "early"], ids=["before use", "after use"])
@pytest.mark.parametrize("mode", MODES)
def test_children_of_a_fork_have_connections_of_their_own(
    redis: RealRedis, mode: str, early: str
) -> None:
    with interpreter(_PREFORK, redis.url, mode, early) as process:
        assert process.line() == "[0, 0]", process.end()
        assert process.end() == (0, "")


# -- Two machines ------------------------------------------------------------


@pytest.mark.skipif(not can_make_namespaces(), reason="no network namespaces here")
@pytest.mark.parametrize("mode", MODES)
def test_the_link_between_two_machines_is_cut(
    mode: str, record_property: Callable[[str, object], None]
) -> None:
    find_program("redis-server")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.redises.machine", mode],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3 * HANG,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for end in ("here", "there"):
        sent, got = told["sent"][end], told[end]["got"]
        figures = {
            "mode": mode,
            "members": end,
            "sent": sent,
            "delivered": len(got),
            "lost": sent - len(set(got)),
            "duplicated": len(got) - len(set(got)),
            **{name: told[end][name] for name in ("missed", "duplicates", "unsent")},
        }
        print(figures)
        record_property("figures", figures)
        assert got == sorted(set(got))
        assert figures["lost"] == figures["missed"]
        if mode == "stream":
            assert figures["lost"] == 0
    assert told["there"]["losses"] == 1
