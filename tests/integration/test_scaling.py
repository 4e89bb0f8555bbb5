"""The page docs/scaling.md: its code runs, in several processes, and what it says of defaults."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

import syncws
from tests.integration.test_docs import DOCS, ROOT, anchors, blocks, text_of, without_code
from tests.redises.real import RealRedis, real_redis
from tests.support import HANG, interpreter, wait_until

# Before the server's block: it tells its port.
_TELLING = """
import syncws
start = syncws.Listener.start

def start_and_tell(self):
    start(self)
    print(self.port)

syncws.Listener.start = start_and_tell
"""


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    with real_redis('save ""') as server:
        yield server


def with_redis(code: str, redis: RealRedis) -> str:
    assert "redis://localhost:6379" in code
    return code.replace("redis://localhost:6379", redis.url)


def test_the_rooms_are_in_several_processes(redis: RealRedis) -> None:
    server, job, _ = blocks("scaling")
    code = _TELLING + with_redis(server, redis)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(interpreter(code, "0")) for _ in range(2)]
        clients = []
        for process, name in zip(processes, ("ann", "bob"), strict=True):
            url = f"ws://127.0.0.1:{process.line()}/rooms/lobby?name={name}"
            clients.append(stack.enter_context(syncws.Client(url)))
        ann, bob = clients

        def sees_both(client: syncws.Client) -> bool:
            client.send_text("/who")
            return client.receive(HANG) == '["ann","bob"]'

        for client in clients:
            wait_until(functools.partial(sees_both, client))
        wait_until(lambda: redis.command("PUBSUB", "NUMSUB", "syncws:room:lobby")[1] == 2)
        ann.send_text("hello")
        assert [ann.receive(HANG), bob.receive(HANG)] == ["hello", "hello"]
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", with_redis(job, redis)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        for client in clients:
            assert client.receive(HANG) == "We close in ten minutes"
            client.close()
        for process in processes:
            process.process.terminate()
            assert process.end() == (0, "")


def test_groups_of_one_process_are_joined() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", blocks("scaling")[2]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert (done.stdout, done.stderr) == ("in in\nhello\n", "")
    assert "It prints `in in` and `hello`." in text_of("scaling")


def test_the_sketch_has_all_that_is_abstract() -> None:
    (sketch,) = re.findall(r"^```py\n(.*?)^```$", text_of("scaling"), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"    def (\w+)", sketch)) >= syncws.Backplane.__abstractmethods__
    compile(sketch, "sketch", "exec")


def test_the_options_that_are_named_are_there() -> None:
    text = text_of("scaling")
    options = set(inspect.signature(syncws.RedisBackplane).parameters)
    tuned = re.findall(r"^\| (`[^|]+`) \|", text.split("## What to tune")[1], re.MULTILINE)
    named = {name for cell in tuned for name in re.findall(r"`(\w+)`", cell)}
    assert named <= options
    assert named
    figures = set(syncws.RedisBackplane("redis://localhost").stats()._fields)
    assert {"unsent", "missed", "malformed"} <= figures


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        ("one of `shards` streams, 16 by default", "shards", 16),
        ("10,000 messages, 64 MiB", "queue_size", 10_000),
        ("10,000 messages, 64 MiB", "queue_bytes", 64 * 2**20),
        ("after `presence_ttl`, 30 seconds", "presence_ttl", 30.0),
        ("removed an hour (`stream_ttl`)", "stream_ttl", 3600.0),
        ("that does not answer, 5 seconds", "timeout", 5.0),
    ],
)
def test_the_defaults_that_it_names(words: str, option: str, value: float) -> None:
    assert words in text_of("scaling")
    assert inspect.signature(syncws.RedisBackplane).parameters[option].default == value


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", without_code(DOCS / "scaling.md")):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            other = DOCS / (name or "scaling.md")
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), target
