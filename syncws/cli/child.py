"""A process that serves: loads the listener, and does what the supervisor says.

The main thread is that of the user's module and waits for the end; a thread
reads what the supervisor says, so that its end is noticed in any case.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from queue import Empty, SimpleQueue
from types import FrameType

from ..config import TLSConfig
from ..server.listener import Listener, use_tls
from .channel import Channel, Message
from .supervisor import SAID
from .target import TargetError, load

__all__ = ["FORMAT", "serve"]

FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"

# Seconds for which the main thread may sleep through a signal.
_LOOK = 0.5

_log = logging.getLogger("syncws.cli")

_Order = tuple[Message, list[socket.socket]]


class _Link:
    """The channel to the supervisor, and what came from it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loaded = False  # until then only the end counts
        self.orders: SimpleQueue[_Order] = SimpleQueue()
        threading.Thread(target=self._read, name="syncws-supervisor", daemon=True).start()

    def _read(self) -> None:
        while (messages := self._channel.receive()) is not None:
            for message, sockets in messages:
                if message["name"] == "stop" and not self._loaded:
                    os._exit(0)  # the module may take its time
                self.orders.put((message, sockets))
        if not self._loaded:
            os._exit(1)
        self.orders.put(({"name": "stop"}, []))  # the supervisor is gone

    def next(self) -> _Order | None:
        """Wait for an order; None now and then, also for Python's signal handlers."""
        with contextlib.suppress(Empty):
            return self.orders.get(timeout=_LOOK)
        return None

    def loaded(self, listener: Listener) -> None:
        """Tell that the module is there."""
        self._loaded = True
        self._channel.send("loaded", binding=list(listener.binding))

    def listening(self) -> None:
        """Tell that clients are accepted."""
        self._channel.send("listening")

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Somebody wants this process to end; another one follows if it is meant alone."""
        self.orders.put(({"name": "leave"}, []))


def serve(
    channel: Channel,
    module: str,
    attribute: str,
    *,
    graceful_timeout: float,
    log_level: int,
    tls: TLSConfig | None = None,
) -> int:
    """Serve until the supervisor says otherwise, or is gone; return the exit status."""
    link = _Link(channel)
    try:
        listener = load(module, attribute)
        if tls is not None:
            use_tls(listener, tls)
    except (TargetError, OSError, ValueError) as exc:
        sys.stderr.write(f"syncws: {exc}\n")
        return SAID
    if not logging.getLogger().handlers:
        logging.basicConfig(level=log_level, format=FORMAT)
    signal.signal(signal.SIGTERM, link.on_signal)
    try:
        link.loaded(listener)
        _obey(link, listener, graceful_timeout)
    except ConnectionError:
        pass  # the supervisor is gone, and nobody is here yet
    except (OSError, ValueError) as exc:
        sys.stderr.write(f"syncws: {exc}\n")
        return SAID
    return 0


def _obey(link: _Link, listener: Listener, graceful_timeout: float) -> None:
    serving = False
    while True:
        order = link.next()
        if order is None:
            if serving and not listener.addresses:
                _log.warning("the listener was stopped in its own process, which ends now")
                return
            continue
        message, sockets = order
        name = message["name"]
        if name == "stop":
            listener.stop(graceful_timeout)
            return
        if name in ("retire", "leave"):
            # All may have been told to leave, and then the end is not to take long.
            spread = graceful_timeout / 2 if name == "retire" else 0.0
            listener.stop(graceful_timeout, spread=spread)
            return
        try:
            if name == "listen":
                listener.start(sockets=sockets)
            else:
                listener.also_accept(sockets)
        finally:
            for sock in sockets:
                sock.close()  # the listener has copies
        if name == "listen":
            serving = True
            link.listening()
