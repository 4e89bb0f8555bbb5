"""The backplane by Redis, with a Redis that the test plays."""

from __future__ import annotations

import contextlib
import logging
import queue
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from syncws.groups import redis_link, redis_reader
from syncws.groups.envelope import Envelope
from syncws.groups.redis_link import Link
from tests.redises.scripted import RedisPeer, ScriptedRedis, array, bulk, message
from tests.support import HANG, Task, wait_until

pytest.importorskip("redis")

OK = b"+OK\r\n"
QUICK: dict[str, Any] = {"retry_interval": 0.01, "max_retry_interval": 0.05}


@pytest.fixture
def redis() -> Iterator[ScriptedRedis]:
    with ScriptedRedis() as server:
        yield server


Make = Callable[..., syncws.RedisBackplane]


@pytest.fixture
def make(redis: ScriptedRedis) -> Iterator[Make]:
    """Makes started backplanes, which give up what they have at the end."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> syncws.RedisBackplane:
            plane = syncws.RedisBackplane(redis.url, **(QUICK | options))
            stack.callback(plane.close, 0)
            plane.start()
            return plane

        yield start


def far(number: int, room: str = "r", sender: bytes = b"sender 8", **changes: Any) -> bytes:
    """Return the n-th message of another process."""
    payload = str(number).encode()
    return Envelope(sender, number, number, room, 1, payload)._replace(**changes).pack()


def payloads(commands: list[list[bytes]]) -> list[bytes]:
    return [Envelope.unpack(command[-1]).payload for command in commands]


def published(peer: RedisPeer, count: int) -> list[list[bytes]]:
    """Return messages as they are published; each is answered with the number before it."""
    return [peer.expect("PUBLISH") for _ in range(count)]


# -- What it is made with ----------------------------------------------------


def test_importing_syncws_imports_no_redis() -> None:
    code = "import sys, syncws; print('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"pip install redis"):
        syncws.RedisBackplane("redis://localhost")


@pytest.mark.parametrize(
    "url",
    ["http://ann:secret@localhost", "redis://:sec/ret@localhost:x", "redis://h:0/?db=x&p=secret"],
)
def test_a_wrong_url_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="no URL of a Redis server") as caught:
        syncws.RedisBackplane(url)
    assert "sec" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_it_shows_where_it_goes_but_no_password() -> None:
    shown = {
        "redis://ann:secret@example.com:7000/3": "pubsub by Redis at example.com:7000",
        "rediss://:secret@example.com": "pubsub by Redis at example.com:6379",
        "unix://ann:secret@/run/redis.sock": "pubsub by Redis at /run/redis.sock",
    }
    for url, words in shown.items():
        assert repr(syncws.RedisBackplane(url)) == f"<syncws.RedisBackplane {words}>"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mode": "list"}, ValueError),
        ({"prefix": b"x"}, TypeError),
        ({"shards": 0}, ValueError),
        ({"shards": 1.5}, TypeError),
        ({"queue_size": True}, TypeError),
        ({"timeout": None}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"presence_ttl": -1}, ValueError),
        ({"options": {"nonsense": 1}}, ValueError),
        ({"options": {"protocol": 3, "client_name": "x"}}, None),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception] | None) -> None:
    with contextlib.nullcontext() if error is None else pytest.raises(error):
        syncws.RedisBackplane("redis://localhost", **options)


def test_a_url_is_a_str() -> None:
    with pytest.raises(TypeError, match="url is a str, not bytes"):
        syncws.RedisBackplane(b"redis://localhost")  # type: ignore[arg-type]


def test_nothing_is_connected_before_use(redis: ScriptedRedis) -> None:
    plane = syncws.RedisBackplane(redis.url)
    assert plane.flush(1)
    assert not any(plane.stats())
    with pytest.raises(syncws.BackplaneError, match="not started"):
        plane.publish("r", 1, b"")
    plane.unsubscribe("r")
    plane.leave("r", "m")
    plane.close(1)
    with pytest.raises(syncws.BackplaneError, match="closed"):
        plane.start()
    redis.sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        redis.accept()


# -- Writing -----------------------------------------------------------------


def test_messages_are_published_in_order(redis: ScriptedRedis, make: Make) -> None:
    plane = make(prefix="x:")
    writer = redis.writer()
    with plane._runtime.writer._changed:  # type: ignore[union-attr]
        for number in range(3):
            plane.publish("r", 1, b"%d" % number)
        plane.publish("é", 2, b"\xff")
    commands = published(writer, 4)
    assert [command[1].decode() for command in commands] == ["x:room:r"] * 3 + ["x:room:é"]
    envelopes = [Envelope.unpack(command[2]) for command in commands]
    assert [(e.sequence, e.number, e.room, e.opcode, e.payload) for e in envelopes] == [
        (1, 1, "r", 1, b"0"),
        (2, 2, "r", 1, b"1"),
        (3, 3, "r", 1, b"2"),
        (4, 1, "é", 2, b"\xff"),
    ]
    assert len({e.sender for e in envelopes}) == 1
    assert not plane.flush(0)
    writer.answer(b":1\r\n" * 4)
    assert plane.flush(HANG)
    assert (plane.stats().sent, plane.stats().queued) == (4, 0)
    wait_until(lambda: plane.stats().connected)


def test_what_is_not_known_to_have_been_sent_is_sent_again(
    redis: ScriptedRedis, make: Make
) -> None:
    plane = make()
    first = redis.writer()
    plane.publish("r", 1, b"a")
    before = published(first, 1)
    first.answer(b":0\r\n")
    with plane._runtime.writer._changed:  # type: ignore[union-attr]
        plane.publish("r", 1, b"b")
        plane.publish("r", 1, b"c")
    before = published(first, 2)
    first.answer(b":0\r\n")  # one of two answers; the other is not known
    first.close()
    again = published(redis.writer(), 2)
    assert again == before


@pytest.mark.parametrize("error", ["LOADING it reads", "OOM no memory", "READONLY a replica"])
def test_what_may_be_obeyed_later_is_sent_again(
    redis: ScriptedRedis, make: Make, error: str
) -> None:
    plane = make(mode="stream")
    writer = redis.writer()
    plane.publish("r", 1, b"a")
    for _ in range(3):
        assert [writer.next()[0] for _ in range(4)] == [b"MULTI", b"XADD", b"PEXPIRE", b"EXEC"]
        refused = f"-{error}\r\n".encode()
        writer.answer(OK, refused, b"+QUEUED\r\n", b"-EXECABORT for errors before\r\n")
        writer = redis.writer()
    assert [writer.next()[0] for _ in range(4)][1] == b"XADD"
    writer.answer(OK, b"+QUEUED\r\n" * 2, array(bulk("1-0"), b":1\r\n"))
    assert plane.flush(HANG)
    assert (plane.stats().sent, plane.stats().unsent) == (1, 0)


@pytest.mark.parametrize("mode", ["pubsub", "stream"])
def test_what_redis_refuses_is_counted_and_logged_once(
    redis: ScriptedRedis, make: Make, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    plane = make(mode=mode)
    writer = redis.writer()
    for number in range(3):
        plane.publish("r", 1, b"x")
        if mode == "pubsub":
            published(writer, 1)
            writer.answer(b"-NOPERM this user has no permissions\r\n")
        else:
            assert [writer.next()[0] for _ in range(4)][3] == b"EXEC"
            writer.answer(OK, b"-NOPERM no\r\n", b"+QUEUED\r\n", b"-EXECABORT errors\r\n")
        assert plane.flush(HANG)
        assert plane.stats().unsent == number + 1
    assert plane.stats().sent == 0
    refusals = [line for line in caplog.messages if "NOPERM" in line]
    assert len(refusals) == 1
    assert "refuses messages" in refusals[0]


def test_a_transaction_in_which_one_entry_is_refused(redis: ScriptedRedis, make: Make) -> None:
    plane = make(mode="stream", shards=1)
    writer = redis.writer()
    plane.publish("r", 1, b"x")
    assert [writer.next()[0] for _ in range(4)][1] == b"XADD"
    writer.answer(OK, b"+QUEUED\r\n" * 2, array(b"-WRONGTYPE it is a list\r\n", b":1\r\n"))
    assert plane.flush(HANG)
    assert (plane.stats().sent, plane.stats().unsent) == (0, 1)


def test_entries_have_a_length_and_an_expiry(redis: ScriptedRedis, make: Make) -> None:
    plane = make(mode="stream", shards=1, stream_length=7, stream_ttl=2.5)
    writer = redis.writer()
    plane.publish("r", 2, b"x")
    writer.expect("MULTI")
    writer.expect("XADD", "syncws:stream:0", "MAXLEN", "~", "7", "*", "m")
    writer.expect("PEXPIRE", "syncws:stream:0", "2500")
    writer.expect("EXEC")


def test_a_full_queue_gives_up_the_oldest(
    redis: ScriptedRedis, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    plane = make(queue_size=3)
    writer = redis.writer()
    plane.publish("r", 1, b"under way")
    under_way = published(writer, 1)
    for number in range(10):
        plane.publish("r", 1, b"%d" % number)
    assert (plane.stats().unsent, plane.stats().queued) == (7, 4)
    writer.answer(b":0\r\n")
    kept = published(writer, 3)
    writer.answer(b":0\r\n" * 3)
    assert payloads([*under_way, *kept]) == [b"under way", b"7", b"8", b"9"]
    assert [Envelope.unpack(one[2]).number for one in kept] == [9, 10, 11]  # a gap to be seen
    assert plane.flush(HANG)
    lost = [line for line in caplog.messages if "are lost" in line]
    assert len(lost) == 1


def test_a_full_queue_by_bytes(redis: ScriptedRedis, make: Make) -> None:
    plane = make(queue_bytes=1000, mode="stream")
    redis.writer().close()
    redis.sock.close()  # and it never comes back
    plane.publish("r", 1, bytes(100))
    wait_until(lambda: plane.stats().losses)
    with pytest.raises(syncws.BackplaneError, match="wait for Redis already"):
        for _ in range(12):
            plane.publish("r", 1, bytes(100))
    assert 5 < plane.stats().queued < 10
    assert plane.stats().unsent == 0


def test_a_message_that_is_too_big(redis: ScriptedRedis, make: Make) -> None:
    plane = make(max_message_size=10)
    plane.publish("r", 1, bytes(10))
    with pytest.raises(ValueError, match="at most 10 bytes, not 11"):
        plane.publish("r", 1, bytes(11))
    redis.writer()


def test_closing_sends_what_waits(redis: ScriptedRedis, make: Make) -> None:
    plane = make()
    writer = redis.writer()
    plane.publish("r", 1, b"a")
    closing = Task(plane.close, HANG)
    published(writer, 1)
    writer.answer(b":0\r\n")
    closing.result()
    assert (plane.stats().sent, plane.stats().unsent, plane.stats().connected) == (1, 0, False)
    for call in (lambda: plane.publish("r", 1, b""), lambda: plane.who("r", 1)):
        with pytest.raises(syncws.BackplaneError, match="closed"):
            call()


def test_closing_counts_what_there_was_no_time_for(
    redis: ScriptedRedis, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    plane = make()
    redis.writer().close()
    redis.sock.close()
    for _ in range(3):
        plane.publish("r", 1, b"a")
    wait_until(lambda: plane.stats().losses)
    plane.close(0.01)
    wait_until(lambda: plane.stats().unsent == 3)
    wait_until(lambda: "no time left" in caplog.text)


# -- Being without Redis -----------------------------------------------------


def test_a_loss_and_a_return_are_a_line_each(
    redis: ScriptedRedis, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "syncws.groups")
    plane = make()
    plane.subscribe("r", lambda opcode, payload: None)
    for peer in redis.both():
        peer.close()
    for _ in range(3):  # it comes back, but not for good
        with contextlib.suppress(EOFError, OSError):
            redis.accept().close()
    closed = True
    while closed:
        try:
            writer, reader = redis.both()
            reader.confirm()
            closed = False
        except (EOFError, OSError):
            pass
    wait_until(lambda: plane.stats().connected)
    assert plane.stats().losses == 1
    wait_until(lambda: "again after" in caplog.text)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["WARNING", "INFO"]
    assert f"no connection to Redis at 127.0.0.1:{redis.port}, trying again" in lines[0][1]
    assert "again after" in lines[1][1]
    writer.close()


def test_a_wrong_password_is_logged_and_not_shown(
    redis: ScriptedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    plane = syncws.RedisBackplane(redis.url.replace("//", "//ann:secret@"), **QUICK)
    plane.start()
    peer = redis.accept()
    assert peer.next() == [b"AUTH", b"ann", b"secret"]
    peer.answer(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")
    wait_until(lambda: "invalid username-password pair" in caplog.text)
    plane.close(0)
    assert "secret" not in caplog.text


def test_a_redis_that_does_not_answer_is_left(redis: ScriptedRedis, make: Make) -> None:
    plane = make(timeout=0.05)
    plane.subscribe("r", lambda opcode, payload: None)
    redis.accept()
    redis.accept()
    for _ in range(4):  # both try again
        redis.accept()
    assert plane.stats().losses == 1


class Waits:
    """Decides how long readers wait; what they wait for in vain passes on their clock alone.

    A sign of life that was asked for is waited for until the test has given it,
    or has set `deaf`, which is for one of them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deaf = threading.Event()
        self._passed = 0.0
        asked: set[Link] = set()
        send, receive = Link.send, Link.receive

        def sent(link: Link, commands: Any) -> None:
            if ("PING", "-") in commands:
                asked.add(link)
            send(link, commands)

        def received(link: Link, timeout: float) -> list[Any]:
            while not (found := receive(link, min(timeout, 0.05))):
                if link not in asked or self.deaf.is_set():
                    if link in asked:
                        self.deaf.clear()
                    self._passed += timeout
                    break
            asked.discard(link)
            return found

        clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + self._passed)
        for module in (redis_link, redis_reader):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(Link, "send", sent)
        monkeypatch.setattr(Link, "receive", received)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


def test_a_reader_that_hears_nothing_asks_for_a_sign_of_life(
    redis: ScriptedRedis, waits: Waits, make: Make
) -> None:
    plane = make(timeout=1000, presence_ttl=60)
    plane.subscribe("r", lambda opcode, payload: None)
    _, reader = redis.both()
    reader.confirm()
    for _ in range(2):
        assert reader.next() == [b"PING", b"-"]
        reader.answer(array(bulk("pong"), bulk("-")))
    assert reader.next() == [b"PING", b"-"]
    assert plane.stats().losses == 0
    waits.deaf.set()
    reader = redis.accept()  # it has taken too long
    assert plane.stats().losses == 1
    reader.confirm()


def test_another_server_than_redis(redis: ScriptedRedis, make: Make) -> None:
    plane = make()
    plane.publish("r", 1, b"a")
    peer = redis.accept()
    peer.expect("PING")
    peer.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    published(redis.writer(), 1)[0]
    assert plane.stats().losses == 1


# -- Reading channels --------------------------------------------------------


class Heard:
    """Takes messages of rooms."""

    def __init__(self, plane: syncws.RedisBackplane, *rooms: str) -> None:
        self.news: queue.Queue[tuple[str, int, bytes]] = queue.Queue()
        self._plane = plane
        for room in rooms:
            self.add(room)

    def add(self, room: str) -> None:
        """Listen to a room."""
        self._plane.subscribe(room, lambda opcode, payload: self.news.put((room, opcode, payload)))

    def next(self) -> tuple[str, int, bytes]:
        """Return the next message."""
        return self.news.get(timeout=HANG)


def wait_asleep(plane: syncws.RedisBackplane) -> None:
    """Wait until the reader is to be woken through Redis."""
    runtime = plane._runtime
    assert runtime is not None
    wait_until(lambda: runtime.reader._asleep)


def test_rooms_are_subscribed_together(redis: ScriptedRedis, make: Make) -> None:
    plane = make(prefix="x:")
    heard = Heard(plane, "a")
    writer, reader = redis.both()
    assert reader.confirm() == ["+x:room:a"]
    assert plane.flush(HANG)
    wait_asleep(plane)
    with plane._runtime.subscriptions.changed:  # type: ignore[union-attr]
        for number in range(600):
            heard.add(str(number))
        plane.unsubscribe("a")
    writer.wake(reader)
    changes = reader.confirm() + reader.confirm()
    assert sorted(changes) == sorted(["-x:room:a", *(f"+x:room:{n}" for n in range(600))])
    assert plane.flush(HANG)
    wait_asleep(plane)
    with plane._runtime.subscriptions.changed:  # type: ignore[union-attr]
        plane.unsubscribe("7")
        heard.add("7")
        heard.add("new")
    writer.wake(reader)
    assert reader.confirm() == ["+x:room:new"]
    assert plane.stats().rooms == 601


@pytest.mark.usefixtures("waits")
def test_a_reader_that_cannot_be_woken_looks_up_by_itself(
    redis: ScriptedRedis, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    plane = make(timeout=1000)
    heard = Heard(plane, "a")
    writer, reader = redis.both()
    reader.confirm()
    for room in ("b", "c"):
        wait_asleep(plane)
        heard.add(room)
        writer.expect("PUBLISH", reader.woken_by, "")
        writer.answer(b"-NOPERM no access to the channel\r\n")
        while (command := reader.next())[0] == b"PING":
            reader.answer(array(bulk("pong"), bulk(command[1])))
        assert command == [b"SUBSCRIBE", f"syncws:room:{room}".encode()]
        reader.confirm()
    assert len([line for line in caplog.messages if "refuses to wake the reader" in line]) == 1
    assert plane.stats().losses == 0


def test_messages_are_delivered_once_and_gaps_counted(redis: ScriptedRedis, make: Make) -> None:
    plane = make()
    heard = Heard(plane, "r")
    writer, reader = redis.both()
    reader.confirm()
    numbers = [4, 5, 5, 4, 8, 9, 9, 10]
    reader.answer(*(message("syncws:room:r", far(number)) for number in numbers))
    assert [heard.next() for _ in range(5)] == [("r", 1, b"%d" % n) for n in (4, 5, 8, 9, 10)]
    # Other senders are apart; this process hears nothing of its own.
    plane.publish("r", 1, b"own")
    own = published(writer, 1)[0][2]
    other = far(1, sender=b"another!", opcode=2, payload=b"\xff")
    reader.answer(message("syncws:room:r", own), message("syncws:room:r", other))
    assert heard.next() == ("r", 2, b"\xff")
    stats = plane.stats()
    assert (stats.received, stats.missed, stats.duplicates, stats.malformed) == (6, 2, 3, 0)


def test_gaps_are_seen_over_a_loss(redis: ScriptedRedis, make: Make) -> None:
    plane = make()
    heard = Heard(plane, "r")
    _, reader = redis.both()
    reader.confirm()
    reader.answer(message("syncws:room:r", far(1)), message("syncws:room:r", far(2)))
    reader.close()
    reader = next_reader(redis)
    assert reader.confirm() == ["+syncws:room:r"]
    reader.answer(message("syncws:room:r", far(5)))
    assert [heard.next()[2] for _ in range(3)] == [b"1", b"2", b"5"]
    assert plane.stats().missed == 2


def next_reader(redis: ScriptedRedis) -> RedisPeer:
    """Accept the next connection that reads; those that write are served on the way."""
    while True:
        peer = redis.accept()
        with contextlib.suppress(EOFError):
            if peer.peek() != b"PING":
                return peer
            peer.pong()


def test_what_is_none_of_ours_is_dropped(
    redis: ScriptedRedis, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    plane = make(max_message_size=10)
    heard = Heard(plane, "r")
    _, reader = redis.both()
    reader.confirm()
    bad = [
        b"",
        b"hello",
        far(1, payload=bytes(11)),
        far(1, payload=bytes(100_000)),
        far(1, payload=b"\xff"),
        far(1, room="other"),
    ]
    for data in bad:
        reader.answer(message("syncws:room:r", data))
    reader.answer(message("syncws:room:\xff".encode("latin-1").decode("latin-1"), far(1)))
    reader.answer(array(bulk("message"), bulk("syncws:room:r"), bulk(None)))
    reader.answer(array(bulk("message"), bulk("syncws:room:r"), array(b":1\r\n")))
    reader.answer(array(bulk("other"), b":1\r\n"), b":1\r\n", bulk(None))
    reader.answer(message("syncws:room:r", far(1)))
    assert heard.next() == ("r", 1, b"1")
    assert plane.stats().malformed == len(bad) + 3
    assert len([line for line in caplog.messages if "none of ours" in line]) == 1
    assert plane.stats().losses == 0


def test_a_refused_subscription_is_tried_again(
    redis: ScriptedRedis, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    plane = make()
    Heard(plane, "r")
    _, reader = redis.both()
    assert reader.next()[0] == b"SUBSCRIBE"
    reader.answer(b"-NOPERM no access to the channel\r\n")
    assert next_reader(redis).confirm() == ["+syncws:room:r"]
    assert plane.flush(HANG)
    assert "NOPERM no access" in caplog.text


def test_a_room_that_fails_harms_no_other(
    redis: ScriptedRedis, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    plane = make()

    def fail(opcode: int, payload: bytes) -> None:
        raise RuntimeError("a bug")

    plane.subscribe("bad", fail)
    heard = Heard(plane, "r")
    _, reader = redis.both()
    reader.confirm()
    reader.answer(message("syncws:room:bad", far(1, "bad")), message("syncws:room:r", far(2)))
    assert heard.next() == ("r", 1, b"2")
    assert "a bug" in caplog.text


# -- Reading streams ---------------------------------------------------------


def stream(key: str, *entries: tuple[str, bytes]) -> bytes:
    """Return the answer to XREAD."""
    items = [array(bulk(name), array(bulk("m"), bulk(data))) for name, data in entries]
    return array(array(bulk(key), array(*items)))


def last(peer: RedisPeer, name: str | None) -> None:
    """Answer what the last entry of a stream is."""
    peer.expect("XREVRANGE")
    entry = array(array(bulk(name), array(bulk("m"), bulk("x")))) if name else b"*0\r\n"
    peer.answer(entry)


def ids(peer: RedisPeer) -> list[str]:
    """Return where the next XREAD reads from."""
    command = peer.expect("XREAD", "BLOCK")
    names = [part.decode() for part in command[command.index(b"STREAMS") + 1 :]]
    peer.woken_by = names[len(names) // 2 - 1]
    assert ":wake:" in peer.woken_by
    return names[len(names) // 2 : -1]


def test_a_stream_is_read_from_its_end_on(redis: ScriptedRedis, make: Make) -> None:
    plane = make(mode="stream", shards=1)
    heard = Heard(plane, "r")
    _, reader = redis.both()
    last(reader, "70-2")
    assert ids(reader) == ["70-2"]
    assert plane.flush(HANG)
    key = "syncws:stream:0"
    reader.answer(stream(key, ("71-0", far(1)), ("71-1", far(2, room="other")), ("71-2", far(3))))
    assert [heard.next()[2] for _ in range(2)] == [b"1", b"3"]
    assert ids(reader) == ["71-2"]
    reader.answer(b"*-1\r\n")  # nothing came for a while
    assert ids(reader) == ["71-2"]
    reader.close()
    # On the next connection it goes on, and knows what it has got already.
    reader = next_reader(redis)
    last(reader, "90-0")
    assert ids(reader) == ["71-2"]
    reader.answer(stream(key, ("80-0", far(3)), ("80-1", far(4)), ("80-2", far(7))))
    assert [heard.next()[2] for _ in range(2)] == [b"4", b"7"]
    stats = plane.stats()
    assert (stats.duplicates, stats.missed, stats.received) == (1, 2, 4)


def test_a_stream_that_redis_has_lost_is_read_from_where_it_was_begun(
    redis: ScriptedRedis, make: Make
) -> None:
    plane = make(mode="stream", shards=1)
    heard = Heard(plane, "r")
    _, reader = redis.both()
    last(reader, "70-0")
    assert ids(reader) == ["70-0"]
    reader.answer(stream("syncws:stream:0", ("71-0", far(1)), ("75-0", far(2))))
    assert ids(reader) == ["75-0"]
    for before, after in (("72-0", "70-0"), ("60-0", "60-0"), (None, "0-0")):
        reader.close()
        reader = next_reader(redis)
        last(reader, before)
        assert ids(reader) == [after]
    reader.answer(stream("syncws:stream:0", ("1-0", far(2)), ("2-0", far(3))))
    assert [heard.next()[2] for _ in range(3)] == [b"1", b"2", b"3"]


def test_more_streams_are_read_at_once(redis: ScriptedRedis, make: Make) -> None:
    plane = make(mode="stream", shards=1000)
    channel = plane._settings.channel
    heard = Heard(plane, "a")
    writer, reader = redis.both()
    last(reader, "5-0")
    assert ids(reader) == ["5-0"]
    heard.add("b")
    # The connection stands in XREAD, which the entry ends.
    writer.expect("XADD", reader.woken_by, "MAXLEN", "1", "*")
    writer.expect("PEXPIRE", reader.woken_by, "60000")
    writer.answer(bulk("6-7"), b":1\r\n")
    reader.answer(stream(reader.woken_by, ("6-7", b"")))
    ends = {channel("a"): "8-0", channel("b"): "9-0"}
    for _ in ends:
        key = reader.expect("XREVRANGE")[1].decode()
        reader.answer(array(array(bulk(ends[key]), b"*0\r\n")))
    at = {channel("a"): "5-0", channel("b"): "9-0"}
    command = reader.peek_all()
    assert command[-1] == b"6-7"
    assert ids(reader) == [at[key] for key in sorted(at)]
    assert plane.flush(HANG)
    assert plane.stats().losses == 0
    # Fewer are read as before, none is not read at all.
    with plane._runtime.subscriptions.changed:  # type: ignore[union-attr]
        plane.unsubscribe("a")
        plane.unsubscribe("b")
    writer.expect("XADD", reader.woken_by)
    writer.expect("PEXPIRE")
    writer.answer(bulk("9-9"), b":1\r\n")
    reader.answer(stream(reader.woken_by, ("9-9", b"")))
    with pytest.raises(EOFError):
        reader.next()
    assert plane.flush(HANG)


def test_entries_that_are_none_of_ours(redis: ScriptedRedis, make: Make) -> None:
    plane = make(mode="stream", shards=1)
    heard = Heard(plane, "r")
    _, reader = redis.both()
    last(reader, None)
    assert ids(reader) == ["0-0"]
    fields = array(*map(bulk, ("a", "b", "c", "d")))
    entries = array(
        array(bulk("1-0"), fields),
        array(bulk("1-1"), bulk(None)),
        array(bulk("1-2"), array(bulk("m"), bulk("hello"))),
        array(bulk("1-3"), array(bulk("m"), bulk(far(1)))),
    )
    reader.answer(array(array(bulk("syncws:stream:0"), entries)))
    assert heard.next() == ("r", 1, b"1")
    assert ids(reader) == ["1-3"]
    assert plane.stats().malformed == 3
    reader.answer(b"-WRONGTYPE that is a list\r\n")
    last(next_reader(redis), "1-3")
    wait_until(lambda: plane.stats().losses == 1)


# -- Presence ----------------------------------------------------------------


def test_presence_is_written(redis: ScriptedRedis, make: Make) -> None:
    plane = make(prefix="x:", presence_ttl=20)
    writer = redis.writer()
    plane.join("r", "m1", {"name": "Ann"})
    alive = writer.expect("SET")
    sender = alive[1].decode().removeprefix("x:alive:")
    assert len(sender) == 16
    assert alive[2:] == [b"1", b"PX", b"20000"]
    writer.answer(OK)
    for _ in range(2):  # what was written before it was known to be alive comes again
        writer.expect("HSET", "x:who:r", f"{sender}:m1", '{"name":"Ann"}')
        writer.expect("EXPIRE", "x:who:r")
        writer.answer(b":1\r\n:1\r\n")
    assert plane.flush(HANG)
    plane.leave("r", "m1")
    plane.leave("r", "m1")
    writer.expect("HDEL", "x:who:r", f"{sender}:m1")
    writer.answer(b":1\r\n")
    assert plane.flush(HANG)
    closing = Task(plane.close, HANG)
    writer.expect("DEL", f"x:alive:{sender}")
    writer.answer(b":1\r\n")
    closing.result()


def test_presence_is_written_again_when_redis_has_forgotten(
    redis: ScriptedRedis, make: Make
) -> None:
    plane = make(presence_ttl=0.3)
    writer = redis.writer()
    plane.join("r", "m1", {})
    writer.expect("SET")
    writer.answer(OK)
    written = 0
    renewals = iter([1, 0, 1, 1])
    while True:
        command = writer.next()
        if command[0] == b"HSET":
            writer.expect("EXPIRE")
            writer.answer(b":1\r\n:1\r\n")
            written += 1
        elif command[0] == b"SET":
            writer.answer(OK)
            assert written == 2
        else:
            assert command[0] == b"PEXPIRE"
            answer = next(renewals, None)
            if answer is None:
                break
            writer.answer(b":%d\r\n" % answer)
    assert written == 3
    writer.close()
    writer = redis.accept()  # and on another connection
    assert writer.expect("SET")
    writer.answer(OK)
    writer.expect("HSET")


def test_who_is_there(redis: ScriptedRedis, make: Make) -> None:
    plane = make()
    writer = redis.writer()
    asking = Task(plane.who, "r", HANG)
    assert writer.expect("HGETALL", "syncws:who:r")
    own = plane._runtime.writer._sender.hex()  # type: ignore[union-attr]
    entries = {
        f"{own}:m0": "{}",
        "aa:m1": '{"name":"Ann"}',
        "bb:m2": "{}",
        "aa:m3": "no JSON",
        "aa:m4": "[]",
        "nonsense": "{}",
        "bb:m5": "{}",
    }
    writer.answer(array(*(bulk(x) for pair in entries.items() for x in pair)))
    for sender, alive in (("aa", 1), ("bb", 0), ("nonsense", 0)):
        writer.expect("EXISTS", f"syncws:alive:{sender}")
        writer.answer(b":%d\r\n" % alive)
    writer.expect("HDEL", "syncws:who:r", "bb:m2", "bb:m5", "nonsense")
    writer.answer(b":3\r\n")
    assert asking.result() == [syncws.Presence("m1", {"name": "Ann"})]


def test_a_question_outlives_a_loss(redis: ScriptedRedis, make: Make) -> None:
    plane = make()
    writer = redis.writer()
    wait_until(lambda: plane.stats().connected)
    asking = Task(plane.who, "r", HANG)
    writer.expect("HGETALL")
    writer.close()
    writer = redis.writer()
    writer.expect("HGETALL")
    writer.answer(b"*0\r\n")
    assert asking.result() == []


def test_a_question_that_redis_does_not_answer(redis: ScriptedRedis, make: Make) -> None:
    plane = make()
    writer = redis.writer()
    asking = Task(plane.who, "r", HANG)
    writer.expect("HGETALL")
    writer.answer(b"-WRONGTYPE that is a list\r\n")
    with pytest.raises(syncws.BackplaneError, match="WRONGTYPE"):
        asking.result()
    with pytest.raises(syncws.BackplaneError, match=r"no answer from Redis within 0\.01 s"):
        plane.who("r", 0.01)
    assert plane.stats().losses == 0


def test_a_question_while_redis_is_away(redis: ScriptedRedis, make: Make) -> None:
    plane = make(retry_interval=60, max_retry_interval=60)
    redis.sock.close()
    wait_until(lambda: plane.stats().losses)
    with pytest.raises(syncws.BackplaneError, match="no connection to Redis"):
        plane.who("r", HANG)
