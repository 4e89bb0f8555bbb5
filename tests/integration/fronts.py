"""Proxies in front of a listener, with the configurations of docs/proxies.md."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import syncws
from tests.programs import Program, catches, find_program, free_port, is_listening, running
from tests.support import HANG, RawPeer, authority, client_tls, listening, server_tls

__all__ = ["KINDS", "PAGE", "Front", "blocks", "front", "haproxy", "nginx", "serving"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "proxies.md"

# What a process of its own in the foreground needs around it.
_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {path}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    {temp}
{block}
}}
"""
_TEMP = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

_BACKEND = "127.0.0.1:9090"


def blocks(language: str) -> list[str]:
    """Return the page's blocks of a language."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(f"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def changed(text: str, changes: Mapping[str, str]) -> str:
    """Return a block with other ports, paths and times; each must be there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


class Front(NamedTuple):
    """A proxy that runs.

    Attributes:
        port: Where it listens, for TLS.
        program: It.
    """

    port: int
    program: Program

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.port}/"

    @property
    def origin(self) -> str:
        """Of pages that it hands out."""
        return f"https://localhost:{self.port}"

    def client(self, **options: Any) -> syncws.Client:
        """Connect through it."""
        return syncws.Client(self.url, ssl=client_tls(), **options)

    def dial(self, source: str = "127.0.0.1") -> RawPeer:
        """Connect to it from this address, with TLS."""
        sock = socket.create_connection(("127.0.0.1", self.port), HANG, (source, 0))
        try:
            secured = client_tls().wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise
        return RawPeer(secured, client=True)

    def raw(self, *headers: str, source: str = "127.0.0.1", path: str = "/") -> RawPeer:
        """Connect through it by hand, to the end of the handshake; see `RawPeer.head`."""
        peer = self.dial(source)
        peer.send_bytes(RawPeer.request(path, *headers, host=f"localhost:{self.port}"))
        peer.read_head()
        return peer

    def status(self, *headers: str, source: str = "127.0.0.1") -> int:
        """Return the status that a handshake is answered with."""
        with self.raw(*headers, source=source) as peer:
            return int(peer.head.split()[1])


def _certificate(path: Path) -> Path:
    file = path / "chat.pem"
    certificate = authority().issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(file))
    return file


@contextlib.contextmanager
def nginx(
    path: Path, backend: str = _BACKEND, upstream: str = "", changes: Mapping[str, str] = {}
) -> Iterator[Front]:
    """Run nginx with the page's first configuration.

    Args:
        path: A directory for it.
        backend: The listener's address.
        upstream: What takes the place of the upstream.
        changes: What else is not as on the page.
    """
    port, pem = free_port(), str(_certificate(path))
    block, _ = blocks("nginx")
    if upstream:
        block = re.sub(r"upstream chat \{.*?^\}\n", upstream, block, flags=re.DOTALL | re.MULTILINE)
        assert upstream in block
    else:
        block = changed(block, {_BACKEND: backend})
    places = {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/ssl/chat.pem": pem,
        "/etc/ssl/chat.key": pem,
    }
    block = changed(block, {**places, **changes})
    temp = "".join(f"{name}_temp_path {path}/{name}; " for name in _TEMP)
    user = "user root;" if os.geteuid() == 0 else ""
    config = path / "nginx.conf"
    config.write_text(_NGINX.format(user=user, path=path, temp=temp, block=block), encoding="utf-8")
    argv = [find_program("nginx"), "-p", str(path), "-e", "stderr", "-c", str(config)]
    with running(argv, log=path / "nginx.log", ready=lambda: is_listening(port)) as program:
        yield Front(port, program)


@contextlib.contextmanager
def haproxy(
    path: Path, number: int = 0, backend: str = _BACKEND, changes: Mapping[str, str] = {}
) -> Iterator[Front]:
    """Run haproxy with one of the page's configurations.

    Args:
        path: A directory for it.
        number: Which.
        backend: The listener's address.
        changes: What else is not as on the page.
    """
    port = free_port()
    block = changed(
        blocks("haproxy")[number], {"bind :443": f"bind 127.0.0.1:{port}", _BACKEND: backend}
    )
    if "/etc/haproxy/chat.pem" in block:
        block = changed(block, {"/etc/haproxy/chat.pem": str(_certificate(path))})
    config = path / "haproxy.cfg"
    config.write_text(f"global\n    maxconn 256\n{changed(block, changes)}", encoding="utf-8")
    argv = [find_program("haproxy"), "-W", "-db", "-f", str(config)]
    with running(argv, log=path / "haproxy.log", ready=lambda: is_listening(port)) as program:
        # The master listens, and says so, before it looks after signals.
        program.wait_for(lambda: catches(program.process.pid, signal.SIGUSR2))
        yield Front(port, program)


#: nginx, and haproxy for HTTP, for TCP with PROXY headers of both versions,
#: and for TLS that ends there.
KINDS = ("nginx", "haproxy", "passthrough", "passthrough 1", "offload")


@contextlib.contextmanager
def front(kind: str, path: Path, backend: str) -> Iterator[Front]:
    """One of `KINDS` in front of a listener."""
    made: Any
    if kind == "nginx":
        made = nginx(path, backend)
    else:
        old = {"send-proxy-v2": "send-proxy"} if kind == "passthrough 1" else {}
        number = {"haproxy": 0, "offload": 2}.get(kind, 1)
        made = haproxy(path, number, backend, old)
    with made as running_front:
        yield running_front


@contextlib.contextmanager
def serving(
    kind: str, path: Path, service: Any, **options: Any
) -> Iterator[tuple[Front, syncws.Listener]]:
    """A listener with one of `KINDS` in front of it."""
    options.setdefault("trusted_proxies", ["127.0.0.1"])
    if kind not in ("nginx", "haproxy"):
        options["proxy_protocol"] = True
    if kind.startswith("passthrough"):
        options["ssl"] = server_tls()
    with (
        listening(service, **options) as listener,
        front(kind, path, f"127.0.0.1:{listener.port}") as made,
    ):
        yield made, listener


def directory() -> Any:
    """Return a directory whose path is short enough for a Unix-domain socket."""
    return tempfile.TemporaryDirectory(prefix="syncws-")
