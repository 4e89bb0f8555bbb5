"""Forks amid everything: the child has what it makes itself, and the parent notices nothing."""

from __future__ import annotations

import os

import pytest

from tests.support import interpreter

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

_BEGIN = """
import os, signal, sys, threading, traceback, warnings
warnings.simplefilter("ignore")  # of Python 3.12 about forks with threads
import syncws
from tests.faults.forked import Echo, ask, child, pair, round_trip

def forked(body, how="_exit"):
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(15)  # should it hang
    try:
        body()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    if how == "_exit": os._exit(0)
    sys.exit(0)

def status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run(script: str, *args: str, lines: list[str]) -> None:
    """Run it in a process, and see that it prints just this and nothing to stderr."""
    with interpreter(_BEGIN + script, *args) as process:
        for line in [*lines, "<end>"]:
            assert process.line() == line, process.end()
        assert process.end() == (0, "")


# -- The child's end ---------------------------------------------------------


@pytest.mark.parametrize("tls", ["", "tls"], ids=["plain", "tls"])
@pytest.mark.parametrize("how", ["_exit", "sys.exit", "close"])
def test_the_childs_end_sends_nothing_to_the_parents_peers(how: str, tls: str) -> None:
    script = """
how, tls = sys.argv[1], bool(sys.argv[2])
with pair(tls) as (listener, client):
    def body():
        assert round_trip()
        if how == "close":
            client.close()
            listener.stop()
    print("child", status(forked(body, how)))
    print("parent", ask(client, "after"))
    print("open", client.is_open)
"""
    run(script, how, tls, lines=["child 0", "parent True", "open True"])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str) -> None:
    script = """
import multiprocessing
context = multiprocessing.get_context(sys.argv[1])
with pair(False) as (listener, client):
    url = f"ws://127.0.0.1:{listener.port}/"
    processes = [context.Process(target=child, args=(url,)) for _ in range(2)]
    for process in processes: process.start()
    for process in processes: process.join(20)
    print("children", [process.exitcode for process in processes])
    print("parent", ask(client, "after"))
"""
    run(script, method, lines=["children [0, 0]", "parent True"])


def test_a_child_stops_a_listener_that_it_has_inherited_and_starts_it_elsewhere() -> None:
    script = """
with pair(False) as (listener, client):
    port = listener.port
    def body():
        listener.stop()
        listener.start()
        assert listener.port != port
        with syncws.Client(f"ws://127.0.0.1:{listener.port}/") as own:
            assert ask(own, "own")
        listener.stop()
    print("child", status(forked(body)))
    with syncws.Client(f"ws://127.0.0.1:{port}/") as other:
        print("parent", ask(client, "after"), ask(other, "new"))
"""
    run(script, lines=["child 0", "parent True True"])


# -- Forks from callbacks ----------------------------------------------------


@pytest.mark.parametrize("how", ["_exit", "return", "raise"])
def test_a_fork_in_a_callback(how: str) -> None:
    """What was queued behind it is handled by the parent only, and the child ends."""
    script = """
how = sys.argv[1]
class Forks(syncws.Service):
    def on_text(self, caller, text):
        who = "parent" if os.getpid() == parent else "child"
        os.write(1, f"{who} got {text}\\n".encode())
        if text == "fork":
            second.send_text("from the second")
            while not more: threading.Event().wait(0.001)
            pid = os.fork()
            if pid == 0:
                signal.alarm(15)
                assert not syncws.Engine().owns_current_thread()
                if not round_trip(): os._exit(2)
                if how == "_exit": os._exit(0)
                if how == "raise": os.close(2); raise SystemExit
                return
            children.append(pid)
    def on_open(self, caller): callers.append(caller)
class Other(syncws.Service):
    def on_text(self, caller, text): seconds.append(os.getpid())
parent = os.getpid()
children, callers, more, seconds = [], [], [], []
listener = syncws.Listener(0, engine=syncws.Engine(workers=1, max_workers=1))
listener.attach("/", Forks())
listener.attach("/other", Other())
listener.start()
client = syncws.Client(f"ws://127.0.0.1:{listener.port}/")
second = syncws.Client(f"ws://127.0.0.1:{listener.port}/other")
for text in ("fork", "one", "two"): client.send_text(text)
# They wait behind the callback, for the only worker.
while not callers: threading.Event().wait(0.001)
while callers[0]._connection._inbox._inbox.__len__() < 2: threading.Event().wait(0.001)
while not listener._loop.pool.queue: threading.Event().wait(0.001)
more.append(True)
while len(children) < 1: threading.Event().wait(0.001)
print("child", status(children[0]))
client.close()
second.close()
listener.stop()
print("others", seconds == [parent])
"""
    with interpreter(_BEGIN + script, how) as process:
        lines = []
        while (line := process.line()) != "<end>":
            lines.append(line)
        assert process.end() == (0, "")
    assert sorted(lines) == [
        "child 0",
        "others True",
        "parent got fork",
        "parent got one",
        "parent got two",
    ]


# -- Locks that others hold --------------------------------------------------


def test_no_lock_that_another_thread_holds_stops_the_child() -> None:
    """In the child there is nobody who would let go of them."""
    script = """
from syncws import endpoint
with pair(False) as (listener, client):
    group = syncws.Group([client])
    new = syncws.Listener(0)
    locks = [
        listener._lock, new._lock, group._lock, listener._router._lock,
        listener._tally._changed, endpoint._naming, syncws.engine.engine._default_lock,
        client._engine._lock, client._connection.outbound.lock,
    ]
    for lock in locks: lock.acquire()
    def body():
        print(group.send_text("nobody is there"))
        group.discard(client)
        listener.attach("/more", Echo())
        listener.stop()
        new.attach("/", Echo())
        with new, syncws.Client(f"ws://127.0.0.1:{new.port}/") as own:
            assert own.id != client.id
            group.add(own)
            assert group.send_text("hello") == 1
            assert own.receive(timeout=15) == "hello"
        try:
            client.receive(timeout=15)
        except syncws.ConnectionClosed:
            print("closed")
        client.close()
    pid = forked(body)
    for lock in locks: lock.release()
    print("child", status(pid))
    print("parent", ask(client, "after"), group.send_text("hello"))
"""
    run(script, lines=["0", "closed", "child 0", "parent True 1"])


def test_a_fork_while_certificates_are_read_anew() -> None:
    script = """
with pair(True) as (listener, client):
    held, done = threading.Event(), threading.Event()
    def hold():
        with listener._certificates._lock:
            held.set()
            done.wait()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    pid = forked(lambda: listener.reload_tls(listener._certificates._given))
    done.set()
    holder.join()
    print("child", status(pid))
"""
    run(script, lines=["child 0"])


def test_a_fork_while_a_listener_is_being_stopped() -> None:
    script = """
class Slow(syncws.Service):
    def on_close(self, caller, code, reason):
        closing.set()
        go_on.wait(20)
closing, go_on = threading.Event(), threading.Event()
listener = syncws.Listener(0)
listener.attach("/", Slow())
listener.start()
client = syncws.Client(f"ws://127.0.0.1:{listener.port}/")
stopping = threading.Thread(target=listener.stop)
stopping.start()
closing.wait(20)
def body():
    listener.stop()
    listener.start()
    print("started", listener.port > 0)
    listener.stop()
print("child", status(forked(body)))
go_on.set()
stopping.join(20)
client.close()
listener.start()
listener.stop()
"""
    run(script, lines=["started True", "child 0"])


def test_many_forks_amid_traffic() -> None:
    """Whatever other threads are doing: no child hangs, and the parent loses nothing."""
    script = """
url = ""
group = syncws.Group()
class Busy(syncws.Service):
    def on_open(self, caller):
        caller.id
        group.add(caller)
    def on_text(self, caller, text): caller.send_text(text)
listener = syncws.Listener(0)
listener.attach("/", Busy())
listener.start()
url = f"ws://127.0.0.1:{listener.port}/"
ending = threading.Event()
counts = []
def traffic():
    count = 0
    while not ending.is_set():
        with syncws.Client(url) as client:
            for _ in range(20):
                client.send_text(f"echo {count}")
                while (got := client.receive(timeout=20)) != f"echo {count}":
                    assert got == "all", got
                count += 1
    counts.append(count)
def broadcast():
    while not ending.is_set():
        group.send_text("all")
        listener.attach("/more", Busy())
        listener.detach("/more")
def restart():
    while not ending.is_set():
        with syncws.Listener(0) as other: pass
threads = [threading.Thread(target=one) for one in (traffic, traffic, broadcast, restart)]
for thread in threads: thread.start()
def body():
    group.send_text("nobody")
    listener.attach("/mine", Echo())
    listener.stop()
    assert round_trip()
results = set()
for _ in range(int(sys.argv[1])):
    pids = [forked(body) for _ in range(2)]
    results |= {status(pid) for pid in pids}
ending.set()
for thread in threads: thread.join(20)
print("children", results)
print("parent", len(counts) == 2 and min(counts) > 0)
listener.stop()
"""
    run(script, "25", lines=["children {0}", "parent True"])
