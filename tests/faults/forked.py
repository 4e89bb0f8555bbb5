"""What the processes of test_forks run: a service, a client that asks it, and what a child does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import syncws
from tests.support import HANG, client_tls, server_tls

__all__ = ["Echo", "ask", "child", "pair", "round_trip"]


class Echo(syncws.Service):
    """Sends back what comes."""

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)


def ask(client: syncws.Client, text: str) -> bool:
    """Return whether it comes back."""
    client.send_text(text)
    return client.receive(timeout=HANG) == text


@contextlib.contextmanager
def pair(tls: bool) -> Iterator[tuple[syncws.Listener, syncws.Client]]:
    """A listener and a client of it, in this process."""
    with syncws.Listener(0, ssl=server_tls() if tls else None) as listener:
        listener.attach("/", Echo())
        url = f"{'wss' if tls else 'ws'}://localhost:{listener.port}/"
        with syncws.Client(url, ssl=client_tls() if tls else None) as client:
            assert ask(client, "before")
            yield listener, client


def round_trip() -> bool:
    """Return whether a new listener and a new client work here."""
    with pair(False) as (_, client):
        return ask(client, "own")


def child(url: str) -> None:
    """What a process of multiprocessing does: its own, and a client of the parent's listener."""
    assert round_trip()
    with syncws.Client(url) as client:
        assert ask(client, "to the parent")
