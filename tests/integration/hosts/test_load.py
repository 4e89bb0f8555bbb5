"""How many WebSockets a few threads of a host hold, and what is left of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import syncws
from tests.support import HANG, wait_until

from .servers import Server, serving

MANY = 1000
THREADS = 4


def echo_all(clients: list[syncws.Client], text: str) -> None:
    for client in clients:
        client.send_text(text)
    for client in clients:
        assert client.receive(timeout=HANG) == text


def threads_of_host(server: Server) -> int:
    return sum(1 for name in server.state().threads if name.startswith("ThreadPoolExecutor"))


@pytest.mark.timeout(180)
def test_one_gunicorn_worker_with_four_threads(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    options = (f"--threads={THREADS}", "--worker-connections=100")
    with serving("gthread", tmp_path, *options) as server:
        # Whatever is there from then on has been there before.
        first = [server.client() for _ in range(10)]
        echo_all(first, "warm")
        for client in first:
            client.close()
        server.wait_for_open(0)
        before = server.state()

        clients = [server.client() for _ in range(MANY)]
        echo_all(clients, "hello")
        held = server.state()
        assert held.open == MANY
        assert held.pid == before.pid
        assert threads_of_host(server) <= THREADS
        assert len(held.threads) <= len(before.threads) + THREADS
        for _ in range(20):
            assert server.get("/plain").text == "hello /plain"
        echo_all(clients, "still here")

        figure = f"{held.open / THREADS:.0f} WebSockets per gunicorn thread"
        print(f"{held.open} WebSockets in {len(held.threads)} threads: {figure}")
        record_property("websockets_held", held.open)
        record_property("websockets_per_gunicorn_thread", held.open / THREADS)

        for client in clients:
            client.close(timeout=0)
        server.wait_for_open(0)
        wait_until(lambda: server.state().descriptors <= before.descriptors)
        server.check_output()
