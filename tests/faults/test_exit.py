"""The interpreter ends in every state: with the right status, at once, and without a word."""

from __future__ import annotations

import signal

import pytest

from tests.support import interpreter

_BEGIN = """
import logging, os, signal, socket, sys, threading, syncws
logging.getLogger("syncws").addHandler(logging.NullHandler())  # losses are warned of
reached, never = threading.Event(), threading.Event()
class Service(syncws.Service):
    def on_text(self, caller, text):
        if text == "block":
            reached.set()
            never.wait()
        caller.send_text(text)
    def on_close(self, caller, code, reason):
        if stopping:
            reached.set()
            never.wait()
stopping = []
listener = syncws.Listener(0)
listener.attach("/", Service())
listener.start()
url = f"ws://127.0.0.1:{listener.port}/"
def start(call, *args, daemon=True):
    threading.Thread(target=call, args=args, daemon=daemon).start()
def until_in(file, name):
    me = threading.get_ident()
    while True:
        for ident, frame in sys._current_frames().items():
            while ident != me and frame is not None:
                if frame.f_code.co_name == name and frame.f_code.co_filename.endswith(file):
                    return
                frame = frame.f_back
        never.wait(0.001)
"""

STATES = {
    # A server that says nothing; the client is in a daemon thread.
    "a client that waits for its handshake": """
silent = socket.socket(); silent.bind(("127.0.0.1", 0)); silent.listen()
start(syncws.Client, f"ws://127.0.0.1:{silent.getsockname()[1]}/")
until_in("connect.py", "_upgrade")
""",
    "a client that waits for TLS": """
silent = socket.socket(); silent.bind(("127.0.0.1", 0)); silent.listen()
start(syncws.Client, f"wss://127.0.0.1:{silent.getsockname()[1]}/")
until_in("waiting.py", "secure")
""",
    "an open client": "client = syncws.Client(url)",
    "a receive in another thread": """
client = syncws.Client(url)
start(client.receive)
until_in("dispatch.py", "get")
""",
    "a send in another thread": """
client = syncws.Client(url, compression=False)
client.send_text("block")
reached.wait(20)
def flood():
    while True: client.send_binary(b"x" * 1_000_000)
start(flood)
until_in("room.py", "_wait_for_room")
""",
    "a close in another thread": """
from tests.support import RawServer
server = RawServer()
opening = server.open_client()
peer = server.accept(); peer.answer()
client = opening.result()
start(client.close)
until_in("connection.py", "wait_closed")
""",
    "a client between attempts": """
from tests.reconnecting import LATER
client = syncws.Client(url, retry=LATER)
listener.stop()
""",
    "a client amid an attempt": """
from tests.reconnecting import NOW
from tests.support import RawServer
server = RawServer()
opening = server.open_client(retry=NOW, handshake_timeout=None)
first = server.accept(); first.answer()
client = opening.result()
first.abort()
second = server.accept()
second.read_head()
""",
    "a callback that blocks": """
client = syncws.Client(url)
client.send_text("block")
reached.wait(20)
""",
    "a listener that is stopping": """
stopping.append(True)
client = syncws.Client(url)
start(listener.stop)
reached.wait(20)
""",
    "daemon threads amid calls": """
def busy():
    while True:
        with syncws.Client(url) as client:
            for _ in range(10):
                client.send_text("x")
                client.receive()
for _ in range(3): start(busy)
group = syncws.Group()
client = syncws.Client(url)
client.send_text("y")
client.receive()
""",
}

WAYS = {
    "returns": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "raises": ("raise ValueError('the end')", 1, "ValueError: the end"),
    "_exit": ("os._exit(4)", 4, ""),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); never.wait()", -signal.SIGTERM, ""),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", STATES)
def test_the_interpreter_ends(state: str, way: str) -> None:
    end, status, error = WAYS[way]
    script = f"{_BEGIN}\n{STATES[state]}\nprint('ends')\n{end}\n"
    with interpreter(script) as process:
        assert process.line() == "ends", process.end()
        assert process.line() == "<end>"
        code, errors = process.end()
    assert code == status, errors
    lines = errors.strip().splitlines()
    if error:  # the traceback of that, and nothing else
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[-1] == error
        assert len(lines) <= 4, errors
    else:
        assert errors == ""


def test_a_thread_that_is_no_daemon_is_waited_for() -> None:
    """What it does with a client goes on working until it returns."""
    script = """
with syncws.Client(url) as client:  # from 3.12 on no thread can be started at the end
    client.send_text("here")
    print(client.receive(timeout=20))
def last():
    threading.main_thread().join()
    with syncws.Client(url) as client:
        client.send_text("still there")
        print(client.receive(timeout=20))
start(last, daemon=False)
"""
    with interpreter(_BEGIN + script) as process:
        assert process.line() == "here"
        assert process.line() == "still there"
        assert process.end() == (0, "")
