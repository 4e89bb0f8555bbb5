"""The listener that `python -m tests.benchmarks.processes` serves with `syncws serve`."""

from __future__ import annotations

import hashlib

import syncws

from .servers import BACKLOG

__all__ = ["echo", "work"]

# Iterations of a hash that holds the interpreter lock: a fifth of a millisecond or so.
_ROUNDS = 400


class Echo(syncws.Service):
    """Sends messages back."""

    config = syncws.ServiceConfig(compression=False, ping_interval=None)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        caller.send_binary(data)


class Work(Echo):
    """Sends messages back after some computing."""

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        digest = data
        for _ in range(_ROUNDS):
            digest = hashlib.md5(digest, usedforsecurity=False).digest()
        caller.send_binary(data)


def _serving(service: syncws.Service) -> syncws.Listener:
    listener = syncws.Listener(0, backlog=BACKLOG)
    listener.attach("/", service)
    return listener


echo = _serving(Echo())
work = _serving(Work())
