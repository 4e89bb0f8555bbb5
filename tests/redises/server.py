"""A WebSocket server in a process of its own, whose rooms go over Redis: tests run several.

    python -c "from tests.redises.server import main; main()" URL OPTIONS

A client on /ROOM/NAME is a member of the room, and is told "in" when other
processes know. What comes on standard input is obeyed; see `obey`.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from typing import Any

import syncws

HANG = 20.0


class Rooms(syncws.Service):
    """Puts each caller into the room of its path."""

    config = syncws.ServiceConfig(
        ping_interval=None, compression=False, send_buffer_size=16_777_216
    )

    def __init__(self, groups: syncws.Groups) -> None:
        self._groups = groups

    def on_open(self, caller: syncws.Caller) -> None:
        params = caller.request.path_params
        self._groups.room(params["room"]).add(caller, info={"name": params["name"]})
        assert self._groups.flush(HANG)
        caller.send_text("in")


class Traffic:
    """Sends numbers to a room, one after the other, until it is stopped."""

    def __init__(self, groups: syncws.Groups, room: str) -> None:
        self._groups = groups
        self._room = groups.room(room)
        self._stop = threading.Event()
        self.sent = 0
        self.refused = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.0005):
            try:
                self._room.send_text(str(self.sent))
                self.sent += 1
            except syncws.BackplaneError:
                self.refused += 1

    def stop(self) -> None:
        """Send no more but the word that tells so, once there is a place for it."""
        self._stop.set()
        self._thread.join()
        while True:
            try:
                self._room.send_text("end")
                return
            except syncws.BackplaneError:  # too many wait
                assert self._groups.flush(HANG)


class Server:
    """What obeys the test."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        host = options.pop("host", "127.0.0.1")
        self.backplane = syncws.RedisBackplane(url, **options)
        self.groups = syncws.Groups(self.backplane)
        self.traffic: dict[str, Traffic] = {}
        self.listener = syncws.Listener(0, host)
        self.listener.attach("/{room}/{name}", Rooms(self.groups))

    def obey(self, command: str, *args: str) -> Any:
        """Do what is asked; return what is printed as JSON."""
        if command == "begin":
            self.traffic[args[0]] = Traffic(self.groups, args[0])
        elif command == "tried":
            return self.traffic[args[0]].sent + self.traffic[args[0]].refused
        elif command == "end":
            self.traffic[args[0]].stop()
            return self.traffic[args[0]].sent
        elif command == "send":
            return self.groups.room(args[0]).send_text(" ".join(args[1:]))
        elif command == "stats":
            return self.backplane.stats()._asdict()
        elif command == "flush":
            return self.groups.flush(HANG)
        elif command == "who":
            return sorted(one.info["name"] for one in self.groups.who(args[0], HANG))
        return None

    def run(self) -> None:
        """Obey until there is nothing more to read."""
        with self.listener, self.groups:
            print(self.listener.port)
            for line in sys.stdin:
                print(json.dumps(self.obey(*line.split())))


def main() -> None:
    """Run a server with the options of the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:%(name)s:%(message)s")
    logging.getLogger("syncws.server").setLevel(logging.ERROR)
    Server(sys.argv[1], json.loads(sys.argv[2])).run()
