"""A peer that is gone without a word: no FIN, no RST, just a link that carries nothing any more.

Two network namespaces, joined by a pair of virtual Ethernet devices, one of
which is taken down. That needs root and iproute2; elsewhere this is skipped,
and the clock's tests stand alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import HANG

_ROOT = Path(__file__).resolve().parents[2]

# Runs in a namespace of its own and makes the other. Each end says what it hears.
_SCENE = """
import json, os, queue, subprocess, sys, threading, time
import syncws

HANG = {hang}
PEER = '''
{peer}
'''

def sh(command):
    subprocess.run(command.split(), check=True)

class Heard(syncws.Service):
    config = syncws.ServiceConfig(
        ping_interval=0.4, ping_timeout=0.6, close_timeout=0.5, send_timeout=None,
        compression=False,
    )
    opened = queue.Queue()
    calls = queue.Queue()

    def on_open(self, caller):
        self.opened.put(caller)

    def on_text(self, caller, text): ...

    def on_error(self, caller, error):
        self.calls.put((time.monotonic(), type(error).__name__))

    def on_close(self, caller, status_code, reason):
        self.calls.put((time.monotonic(), status_code))

sh("ip link set lo up")
peer = subprocess.Popen(
    ["unshare", "--net", sys.executable, "-c", PEER],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
)
assert peer.stdout.readline() == "apart\\n"
sh("ip link add here type veth peer name there")
sh(f"ip link set there netns {{peer.pid}}")
sh("ip address add 10.211.7.1/24 dev here")
sh("ip link set here up")

listener = syncws.Listener(0, "10.211.7.1")
listener.attach("/", Heard())
listener.start()
print(listener.port, file=peer.stdin, flush=True)
caller = Heard.opened.get(timeout=HANG)
assert peer.stdout.readline() == "connected\\n"
blocked = queue.Queue()
if {blocked!r}:
    def fill():
        try:
            while True:
                caller.send_binary(bytes(100_000))
        except syncws.ConnectionClosed as exc:
            blocked.put(type(exc.__cause__).__name__)
    threading.Thread(target=fill, daemon=True).start()
print("cut", file=peer.stdin, flush=True)
assert peer.stdout.readline() == "down\\n"
cut = time.monotonic()
heard = [Heard.calls.get(timeout=HANG), Heard.calls.get(timeout=HANG)]
result = {{
    "server": [what for _, what in heard],
    "seconds": heard[-1][0] - cut,
    "client": json.loads(peer.stdout.readline()),
}}
if {blocked!r}:
    result["blocked"] = blocked.get(timeout=HANG)
print(json.dumps(result))
listener.stop(1)
peer.communicate(timeout=HANG)
"""

_PEER = """
import json, subprocess, sys, time
import syncws

def sh(command):
    subprocess.run(command.split(), check=True)

print("apart", flush=True)
port = int(sys.stdin.readline())
sh("ip address add 10.211.7.2/24 dev there")
sh("ip link set there up")
client = syncws.Client(
    f"ws://10.211.7.1:{port}/", ping_interval=0.4, ping_timeout=0.6, close_timeout=0.5,
    handshake_timeout=20, proxy=None,
)
print("connected", flush=True)
sys.stdin.readline()
sh("ip link set there down")
print("down", flush=True)
begun = time.monotonic()
while True:
    try:
        client.receive()
    except syncws.ConnectionClosed as exc:
        error = type(exc.__cause__).__name__
        break
print(json.dumps([error, time.monotonic() - begun]), flush=True)
"""


def _can_make_namespaces() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    probe = "ip link add here type veth peer name there"
    return subprocess.run(["unshare", "--net", *probe.split()], capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_make_namespaces(), reason="no network namespaces here")
@pytest.mark.parametrize("blocked", [False, True], ids=["idle", "blocked in a send"])
def test_both_ends_learn_of_a_link_that_is_down(blocked: bool) -> None:
    scene = textwrap.dedent(_SCENE).format(hang=HANG, peer=_PEER, blocked=blocked)
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-W", "error", "-c", scene],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=3 * HANG,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["server"] == ["KeepaliveTimeout", 1006]
    assert told["client"][0] == "KeepaliveTimeout"
    if blocked:
        assert told["blocked"] == "KeepaliveTimeout"
    # Interval and timeout are a second; without keepalive it would be 15 minutes.
    assert told["seconds"] < HANG
    assert told["client"][1] < HANG
