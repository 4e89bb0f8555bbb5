"""syncws, with and without its C extension."""

from __future__ import annotations

import threading
import time

import syncws

from ..workloads import Workload
from . import BACKLOG, MAX_SIZE, announce


class Echo(syncws.Service):
    """Sends messages back."""

    config = syncws.ServiceConfig(
        compression=False, ping_interval=None, max_message_size=MAX_SIZE, send_timeout=60
    )

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        caller.send_binary(data)


class DeflatedEcho(Echo):
    """Sends messages back, compressed."""

    config = syncws.ServiceConfig(
        compression=syncws.Compression(), ping_interval=None, max_message_size=MAX_SIZE
    )


class Sleep(Echo):
    """Sends text back after as many seconds as it says."""

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        time.sleep(float(text))
        caller.send_text(text)


class Members:
    """A loop over callers, for a syncws without groups."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers: tuple[syncws.Caller, ...] = ()

    def add(self, caller: syncws.Caller) -> None:
        """Add a caller."""
        with self._lock:
            self._callers += (caller,)

    def send_binary(self, data: bytes) -> None:
        """Send to all."""
        for caller in self._callers:
            caller.send_binary(data)


class Broadcast(syncws.Service):
    """Sends binary messages to all who have sent a text."""

    config = Echo.config

    def __init__(self) -> None:
        self.group = getattr(syncws, "Group", Members)()

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        self.group.add(caller)
        caller.send_text(text)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        self.group.send_binary(data)


def serve(workload: Workload) -> None:
    """Serve until killed."""
    services = {"echo": Echo, "broadcast": Broadcast, "sleep": Sleep}
    service = DeflatedEcho if workload.deflate else services[workload.mode]
    with syncws.Listener(0, backlog=BACKLOG) as listener:
        listener.attach("/", service())
        assert listener.port is not None
        announce(listener.port)
        threading.Event().wait()
