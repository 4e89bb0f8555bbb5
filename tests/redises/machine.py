"""Two machines, by network namespaces that are joined by a link; Redis is on the first of them.

    unshare --net python -m tests.redises.machine MODE

The link is cut under traffic in both directions, and comes back. What came of
it is printed as JSON. Needs root and iproute2.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import syncws
from tests.programs import find_program, is_listening, running
from tests.redises.server import HANG, Server
from tests.support import wait_until

URL = "redis://10.211.8.1:6379"


def sh(command: str) -> None:
    """Run a command."""
    subprocess.run(command.split(), check=True)


class Machine:
    """A server, and one client of it that is in a room.

    Args:
        mode: That of the backplane.
        room: The room that the client is in.
    """

    def __init__(self, mode: str, room: str) -> None:
        options = {
            "mode": mode,
            "timeout": 0.5,
            "retry_interval": 0.05,
            "max_retry_interval": 0.2,
        }
        self.server = Server(URL, options)
        self.server.listener.start()
        url = f"ws://127.0.0.1:{self.server.listener.port}/{room}/client"
        self._client = syncws.Client(url, receive_queue_bytes=2**26)
        assert self._client.receive(HANG) == "in"
        self.got: list[int] = []
        self._ended: queue.Queue[None] = queue.Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while (message := self._client.receive(3 * HANG)) != "end":
            self.got.append(int(message))
        self._ended.put(None)

    @property
    def connected(self) -> bool:
        """Whether it has a connection to Redis."""
        return self.server.backplane.stats().connected

    def wait_alone(self) -> None:
        """Wait until it knows of both of its connections that they are lost."""
        runtime = self.server.backplane._runtime
        assert runtime is not None
        wait_until(lambda: runtime.health._down == {"reader", "writer"})

    def wait_for_traffic(self, room: str) -> None:
        """Wait until more was sent to a room."""
        before = self.server.obey("tried", room)
        wait_until(lambda: self.server.obey("tried", room) > before + 200)

    def report(self) -> dict[str, Any]:
        """Wait for the end of the traffic; return what came of it."""
        self._ended.get(timeout=HANG)
        return {"got": self.got, **self.server.backplane.stats()._asdict()}

    def close(self) -> None:
        """End all."""
        self._thread.join(HANG)
        self._client.close()
        self.server.listener.stop()
        self.server.groups.close()


def there(mode: str) -> None:
    """Be the machine without Redis, and do what the other one says."""
    print("apart", flush=True)
    sys.stdin.readline()
    for command in ("link set lo up", "address add 10.211.8.2/24 dev there", "link set there up"):
        sh(f"ip {command}")
    machine = Machine(mode, "there")
    print("ready", flush=True)
    machine.server.obey("begin", "here")
    for line in sys.stdin:
        command = line.strip()
        if command == "down":
            wait_until(lambda: len(machine.got) >= 100)
            sh("ip link set there down")
            machine.wait_alone()
            machine.wait_for_traffic("here")
        elif command == "up":
            sh("ip link set there up")
            wait_until(lambda: machine.connected)
        elif command == "end":
            print(json.dumps(machine.server.obey("end", "here")), flush=True)
            continue
        elif command == "report":
            print(json.dumps(machine.report()), flush=True)
            continue
        print("done", flush=True)
    machine.close()


def here(mode: str, directory: Path) -> None:
    """Be the machine with Redis, and say what is to be done."""
    sh("ip link set lo up")
    argv = [sys.executable, "-m", "tests.redises.machine", mode, "there"]
    peer = subprocess.Popen(
        ["unshare", "--net", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert peer.stdin is not None
    assert peer.stdout is not None

    def ask(line: str) -> str:
        print(line, file=peer.stdin, flush=True)
        assert peer.stdout is not None
        return peer.stdout.readline().strip()

    assert peer.stdout.readline() == "apart\n"
    sh("ip link add here type veth peer name there")
    sh(f"ip link set there netns {peer.pid}")
    sh("ip address add 10.211.8.1/24 dev here")
    sh("ip link set here up")
    redis = [find_program("redis-server"), "--bind", "10.211.8.1", "--protected-mode", "no"]
    redis += ["--save", "", "--dir", str(directory)]
    with running(
        redis, log=directory / "redis.log", ready=lambda: is_listening(6379, "10.211.8.1")
    ):
        machine = Machine(mode, "here")
        assert ask("go") == "ready"
        machine.server.obey("begin", "there")
        assert ask("down") == "done"
        machine.wait_for_traffic("there")
        assert ask("up") == "done"
        machine.wait_for_traffic("there")
        sent = {"there": machine.server.obey("end", "there"), "here": json.loads(ask("end"))}
        result = {"sent": sent, "there": json.loads(ask("report")), "here": machine.report()}
        print(json.dumps(result))
        machine.close()
        peer.communicate(timeout=HANG)


if __name__ == "__main__":
    if sys.argv[2:]:
        there(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory(prefix="syncws-") as made:
            here(sys.argv[1], Path(made))
