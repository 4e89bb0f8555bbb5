"""What becomes of WebSockets when their host ends, begins anew, or forks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

import syncws
from tests.support import HANG, wait_until

from .servers import Server, serving

TOLD = syncws.Close(1001, "the server is going away")


def ended_with(client: syncws.Client) -> syncws.Close | None:
    with pytest.raises(syncws.ConnectionClosed) as caught:
        client.receive(timeout=HANG)
    return caught.value.received


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("gunicorn", signal.SIGTERM),
        ("gunicorn", signal.SIGINT),
        ("gunicorn", signal.SIGQUIT),
        ("gthread", signal.SIGTERM),
        ("preload", signal.SIGTERM),
        ("uwsgi", signal.SIGTERM),
        ("uwsgi", signal.SIGINT),
        ("werkzeug", signal.SIGINT),
        ("werkzeug tls", signal.SIGINT),
        ("gthread tls", signal.SIGINT),
        ("pywsgi", signal.SIGINT),
        ("wsgiref", signal.SIGINT),
    ],
)
def test_the_end_of_the_host(name: str, number: signal.Signals, tmp_path: Path) -> None:
    """The clients are told, and the host ends as it does without any."""
    with serving(name, tmp_path) as server:
        clients = [server.client() for _ in range(3)]
        for client in clients:
            client.send_text("here")
            assert client.receive(timeout=HANG) == "here"
        if name in ("gunicorn", "gthread tls", "wsgiref"):
            server.wait_until_idle()  # amid a request they log, hang with or swallow a signal
        if name == "preload":  # a worker amid its start would not hear of it
            workers: set[int] = set()
            wait_until(lambda: workers.add(server.state().pid) or len(workers) == 2)
        if name == "uwsgi":  # it has no hooks run while a thread of it is amid a request
            server.program.wait_for(lambda: server.program.output.count("HTTP/1.1 101") == 3)
        server.program.signal(number)
        assert [ended_with(client) for client in clients] == [TOLD] * 3
        server.program.wait()
        if "KeyboardInterrupt" not in server.program.output:  # pywsgi and wsgiref show that
            server.check_output()


def test_a_client_that_does_not_answer_the_close(tmp_path: Path) -> None:
    """It is waited for, but not for long: the host ends."""
    with serving("gunicorn", tmp_path) as server, server.peer() as peer:
        peer.send_bytes(peer.request("/ws"))
        peer.read_head()
        server.wait_for_open(1)
        server.program.signal(signal.SIGTERM)
        peer.expect_close(1001)
        assert server.program.wait() == 0


def test_a_workers_timeout_is_not_for_websockets(tmp_path: Path) -> None:
    """The one thread of the worker is free, so nobody thinks that it hangs."""
    with serving("gunicorn", tmp_path, "--timeout=1") as server:
        pid, client = pid_of(server)
        with client:
            begun = float(server.get("/clock").text)
            wait_until(lambda: float(server.get("/clock").text) > begun + 3)
            client.send_text("who")
            assert json.loads(client.receive(timeout=HANG))["pid"] == pid
        server.check_output()


def test_a_reload(tmp_path: Path) -> None:
    """Clients of the old worker are told to go, and find the new one."""
    with serving("gthread", tmp_path) as server, server.client() as client:
        before = server.state().pid
        server.program.signal(signal.SIGHUP)
        assert ended_with(client) == TOLD
        wait_until(lambda: server.state().pid != before)
        with server.client() as again:
            again.send_text("who")
            assert json.loads(again.receive(timeout=HANG))["pid"] != before


def pid_of(server: Server) -> tuple[int, syncws.Client]:
    client = server.client()
    client.send_text("who")
    return json.loads(client.receive(timeout=HANG))["pid"], client


def test_two_workers_of_a_preloaded_application(tmp_path: Path) -> None:
    """Each has an engine of its own, whatever was imported before the fork."""
    with serving("preload", tmp_path) as server:
        clients: dict[int, syncws.Client] = {}
        while len(clients) < 2:
            pid, client = pid_of(server)
            clients.setdefault(pid, client)
            if clients[pid] is not client:
                client.close()
        assert server.program.process.pid not in clients
        for client in clients.values():
            client.send_text("both")
        assert [client.receive(timeout=HANG) for client in clients.values()] == ["both"] * 2
        for client in clients.values():
            client.close()
        server.check_output()


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    with serving("gunicorn", tmp_path) as server:
        pid, client = pid_of(server)
        os.kill(pid, signal.SIGKILL)
        assert ended_with(client) is None
        again, other = pid_of(server)
        assert again != pid
        other.close()
