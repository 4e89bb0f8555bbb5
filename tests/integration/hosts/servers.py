"""The servers that run the application of `app`, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h11
import pytest
import requests
import wsproto

import syncws
from tests.programs import (
    ROOT,
    Program,
    find_program,
    free_port,
    is_listening,
    python_path,
    running,
)
from tests.support import HANG, RawPeer, authority, client_tls, wait_until

__all__ = ["ALL", "PLAIN", "Server", "State", "serving"]

APP = "tests.integration.hosts.app"

_APACHE_MODULES = ("mpm_event", "authz_core", "wsgi")

# What nobody's log should have.
_BAD = ("Traceback", "Error", "ERROR", "Exception", "Warning:")

_WERKZEUG = f"""
import ssl, sys
from werkzeug.serving import run_simple
from {APP} import application
tls = tuple(sys.argv[2:]) or None
run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, ssl_context=tls)
"""

_PYWSGI = f"""
import sys
if sys.argv[2:]:
    from gevent import monkey
    monkey.patch_all()
from gevent.pywsgi import WSGIServer
from {APP} import application
WSGIServer(("127.0.0.1", int(sys.argv[1])), application).serve_forever()
"""

_WSGIREF = f"""
import sys
from wsgiref.simple_server import make_server
from {APP} import application
make_server("127.0.0.1", int(sys.argv[1]), application).serve_forever()
"""


class State(NamedTuple):
    """What a server's process has, by its own account."""

    pid: int
    descriptors: int
    threads: tuple[str, ...]
    open: int


class Server:
    """A server that runs.

    Attributes:
        name: How it is called in `ALL`.
        program: Its process.
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(self, name: str, program: Program, port: int, ca: Path | None) -> None:
        self.name = name
        self.program = program
        self.port = port
        self._ca = ca

    def client(self, path: str = "/ws", **options: Any) -> syncws.Client:
        """Open a WebSocket."""
        tls = None if self._ca is None else client_tls()
        scheme = "ws" if self._ca is None else "wss"
        return syncws.Client(f"{scheme}://127.0.0.1:{self.port}{path}", ssl=tls, **options)

    def peer(self) -> RawPeer:
        """Connect, and say nothing."""
        sock = socket.create_connection(("127.0.0.1", self.port), HANG)
        if self._ca is not None:
            sock = client_tls().wrap_socket(sock, server_hostname="127.0.0.1")
        return RawPeer(sock, client=True)

    def get(self, path: str, session: requests.Session | None = None) -> requests.Response:
        """Send a plain request."""
        scheme = "http" if self._ca is None else "https"
        verify: Any = True if self._ca is None else str(self._ca)
        with contextlib.ExitStack() as stack:
            session = session or stack.enter_context(requests.Session())
            return session.get(
                f"{scheme}://127.0.0.1:{self.port}{path}", verify=verify, timeout=HANG
            )

    def state(self) -> State:
        """Ask a process of the server what it has."""
        pid, descriptors, threads, count, names = self.get("/state").text.split(" ", 4)
        assert int(threads) == len(names.split(","))
        return State(int(pid), int(descriptors), tuple(names.split(",")), int(count))

    def wait_for_open(self, number: int) -> None:
        """Wait until it has so many WebSockets."""
        wait_until(lambda: self.state().open == number)

    def wait_until_idle(self) -> None:
        """Wait until the main thread of the process has done with every request so far.

        For servers whose main thread takes the requests, one at a time.
        """
        with self.peer() as peer:
            peer.send_bytes(b"GET /state HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            response = b"".join(iter(lambda: peer.sock.recv(65_536), b""))
        pid = response.partition(b"\r\n\r\n")[2].split()[0].decode()
        # Those that log do so when a request has ended.
        self.program.wait_to_say("GET /state")
        stat = Path(f"/proc/{pid}/stat")
        wait_until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "S")

    def check_output(self) -> None:
        """Assert that there is nothing in its log that should not be there."""
        bad = [line for line in self.program.output.splitlines() if any(b in line for b in _BAD)]
        # What every server for development says of itself.
        assert [line for line in bad if "development server" not in line] == [], self.program.output


def _certificate(directory: Path) -> list[str]:
    """Write a certificate and its key; return where."""
    paths = [directory / "cert.pem", directory / "key.pem"]
    leaf = authority().issue_cert("localhost", "127.0.0.1")
    paths[0].write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(paths[1]))
    authority().cert_pem.write_to_path(str(directory / "ca.pem"))
    return [str(path) for path in paths]


def _gunicorn(port: int, directory: Path, *options: str) -> list[str]:
    return [
        find_program("gunicorn"),
        f"--bind=127.0.0.1:{port}",
        f"--worker-tmp-dir={directory}",
        "--no-control-socket",
        "--access-logfile=-",
        *options,
        f"{APP}:application",
    ]


def _uwsgi(port: int, *options: str) -> list[str]:
    return [
        find_program("uwsgi"),
        f"--http-socket=127.0.0.1:{port}",
        "--master",
        "--die-on-term",
        f"--wsgi-file={ROOT / 'tests/integration/hosts/app.py'}",
        *options,
    ]


def _apache(port: int, directory: Path) -> Path:
    """Write the configuration of an Apache with mod_wsgi; return where."""
    modules = Path("/usr/lib/apache2/modules")
    if not (modules / "mod_wsgi.so").exists():
        pytest.skip("mod_wsgi is not installed")
    found = [ROOT, *(Path(module.__file__ or "").parents[1] for module in (h11, wsproto))]
    config = directory / "apache.conf"
    lines = [
        *(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in _APACHE_MODULES),
        f"ServerRoot {directory}",
        "ServerName localhost",
        f"PidFile {directory}/pid",
        f"Listen 127.0.0.1:{port}",
        f"ErrorLog {directory}/log",
        f"WSGIPythonPath {':'.join(sorted({str(path) for path in found}))}",
        f"WSGIScriptAlias / {ROOT}/tests/integration/hosts/app.py",
        "<Directory />",
        "Require all granted",
        "</Directory>",
    ]
    if os.getuid() == 0:
        if not all(place.stat().st_mode & 0o001 for place in ROOT.parents):
            pytest.skip("only root may read the application, and Apache is not run as root")
        lines += ["User www-data", "Group www-data"]
    config.write_text("\n".join([*lines, ""]))
    return config


def _argv(name: str, port: int, directory: Path) -> list[str]:
    kind, _, variant = name.partition(" ")
    python = [sys.executable, "-c"]
    tls = _certificate(directory) if variant == "tls" else []
    if kind == "werkzeug":
        return [*python, _WERKZEUG, str(port), *tls]
    if kind == "wsgiref":
        return [*python, _WSGIREF, str(port)]
    if kind == "pywsgi":
        return [*python, _PYWSGI, str(port), *([variant] if variant else [])]
    if kind == "uwsgi":
        return _uwsgi(port, *(["--enable-threads", "--threads=4"] if not variant else [variant]))
    if kind == "apache2":
        return [find_program("apache2"), "-X", "-f", str(_apache(port, directory))]
    if kind == "waitress":
        return [find_program("waitress-serve"), f"--listen=127.0.0.1:{port}", f"{APP}:application"]
    options = {
        "gunicorn": [],
        "gthread": ["--threads=8", "--keep-alive=30"],
        "preload": ["--threads=4", "--workers=2", "--preload"],
        "gevent": ["--worker-class=gevent"],
    }[kind]
    if tls:
        options = [*options, f"--certfile={tls[0]}", f"--keyfile={tls[1]}"]
    return _gunicorn(port, directory, *options, *variant.split() * (not tls))


@contextlib.contextmanager
def serving(name: str, directory: Path, *options: str) -> Iterator[Server]:
    """Run a server until the block ends.

    Args:
        name: One of `ALL`, or another that `_argv` knows.
        directory: A directory of its own.
        options: Further arguments.
    """
    port = free_port()
    argv = [*_argv(name, port, directory), *options]
    env = {**python_path(), "HOME": str(directory)}
    for variable in ("PYTHONDEVMODE", "PYTHONWARNINGS"):
        env.pop(variable, None)
    with running(
        argv,
        log=directory / "log",
        ready=lambda: is_listening(port),
        cwd=ROOT,
        env=env,
    ) as program:
        ca = directory / "ca.pem"
        yield Server(name, program, port, ca if ca.exists() else None)


#: Those that let go of their connections.
PLAIN = ("werkzeug", "gunicorn", "gthread", "uwsgi", "pywsgi", "wsgiref")

#: Those, and the ones whose threads stay.
ALL = (*PLAIN, "werkzeug tls", "gthread tls")
