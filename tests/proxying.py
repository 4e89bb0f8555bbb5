"""Proxies for the tests of clients that go through them: squid, tinyproxy, Dante, and by hand."""

from __future__ import annotations

import contextlib
import ipaddress
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from syncws.client import connect

from .programs import Program, find_program, free_port, is_listening, running
from .support import HANG, RawPeer, authority

__all__ = [
    "PASSWORD",
    "REALM",
    "SECRET_NAME",
    "TUNNEL",
    "USER",
    "Patience",
    "RunningProxy",
    "dante",
    "no_proxies",
    "serve_socks4",
    "serve_socks5",
    "squid",
    "taken",
    "tinyproxy",
]

USER, PASSWORD = "ann", "pass-word"
REALM = "the squid's realm"

#: A name of this machine that only a squid knows.
SECRET_NAME = "app.example"

#: What an HTTP proxy answers.
TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"

_SETTINGS = ("all", "http", "https", "no", "socks", "ws", "wss")

_SQUID = """
{listen} 127.0.0.1:{port} {options}
hosts_file {hosts}
pid_filename none
access_log none
cache_log /dev/null
cache deny all
pinger_enable off
shutdown_lifetime 0 seconds
{auth}
acl forbidden port {forbidden}
http_access deny forbidden
http_access allow {allowed}
http_access deny all
"""
_SQUID_AUTH = """
auth_param basic program /bin/sh {helper}
auth_param basic realm {realm}
auth_param basic children 1 startup=1 idle=1
acl known proxy_auth REQUIRED
"""
_HELPER = """
while read -r line; do
    if [ "$line" = "{user} {password}" ]; then echo OK; else echo ERR; fi
done
"""
_TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 600
MaxClients 100
{auth}
{allowed}
"""
_DANTE = """
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks block {{ from: 0.0.0.0/0 to: 0.0.0.0/0 port = {forbidden} }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
"""


class Patience:
    """How long each wait of a client's may take; there is no other deadline then."""

    #: Soon over, for what nobody answers.
    SHORT = 0.05

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.seconds = HANG
        patch.setattr(connect, "Deadline", lambda timeout: self)

    def remaining(self) -> float:
        """As `Deadline` has it."""
        return self.seconds

    def end(self) -> None:
        """From now on it is `SHORT`."""
        self.seconds = self.SHORT

    def end_after(self, step: str) -> None:
        """It is `SHORT` once the client has done a step of connecting."""
        real = getattr(connect, step)

        def done(*args: Any) -> Any:
            result = real(*args)
            self.end()
            return result

        self._patch.setattr(connect, step, done)


class RunningProxy(NamedTuple):
    """A proxy that runs.

    Attributes:
        url: Its URL, with a user and a password if it asks for them.
        open_url: The same without these.
        port: Its port.
        forbidden: The port that it connects nobody to.
        program: The program.
    """

    url: str
    open_url: str
    port: int
    forbidden: int
    program: Program


def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the settings of proxies out of the environment."""
    for name in _SETTINGS:
        for variable in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """A directory that a program can read which gives up being root."""
    with tempfile.TemporaryDirectory(prefix="syncws-proxy-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextlib.contextmanager
def _running(
    argv: list[str], directory: Path, scheme: str, port: int, forbidden: int, auth: bool = False
) -> Iterator[RunningProxy]:
    log = directory / "log"
    with running(argv, log=log, cwd=directory, ready=lambda: is_listening(port)) as program:
        open_url = f"{scheme}://localhost:{port}"
        url = open_url
        if auth:
            url = f"{scheme}://{USER}:{PASSWORD}@localhost:{port}"
        yield RunningProxy(url, open_url, port, forbidden, program)


@contextlib.contextmanager
def squid(
    *, auth: bool = False, tls: bool = False, port: int | None = None
) -> Iterator[RunningProxy]:
    """A squid; with TLS it has a certificate of our authority."""
    program = find_program("squid")
    port = port or free_port()
    forbidden = free_port()
    with _directory() as directory:
        helper = directory / "helper"
        helper.write_text(_HELPER.format(user=USER, password=PASSWORD))
        hosts = directory / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {SECRET_NAME}\n")
        options = ""
        if tls:
            options = f"tls-cert={directory / 'cert.pem'} tls-key={directory / 'key.pem'}"
            certificate = authority().issue_cert("localhost")
            certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
            certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
        config = directory / "squid.conf"
        config.write_text(
            _SQUID.format(
                listen="https_port" if tls else "http_port",
                port=port,
                hosts=hosts,
                options=options,
                auth=_SQUID_AUTH.format(helper=helper, realm=REALM) if auth else "",
                forbidden=forbidden,
                allowed="known" if auth else "all",
            )
        )
        # Squids of one name would share memory, and leave it behind when they are killed.
        name = f"syncws{port}"
        argv = [program, "-N", "-d", "1", "-n", name, "-f", str(config)]
        scheme = "https" if tls else "http"
        try:
            with _running(argv, directory, scheme, port, forbidden, auth) as proxy:
                yield proxy
        finally:
            for segment in Path("/dev/shm").glob(f"{name}-*"):
                segment.unlink()


@contextlib.contextmanager
def tinyproxy(*targets: int, auth: bool = False) -> Iterator[RunningProxy]:
    """A tinyproxy; it connects to these ports only, if there are any."""
    program = find_program("tinyproxy")
    port, forbidden = free_port(), free_port()
    with _directory() as directory:
        config = directory / "tinyproxy.conf"
        config.write_text(
            _TINYPROXY.format(
                port=port,
                auth=f"BasicAuth {USER} {PASSWORD}" if auth else "",
                allowed="\n".join(f"ConnectPort {target}" for target in targets),
            )
        )
        argv = [program, "-d", "-c", str(config)]
        with _running(argv, directory, "http", port, forbidden, auth) as proxy:
            yield proxy


@contextlib.contextmanager
def dante(scheme: str = "socks5h") -> Iterator[RunningProxy]:
    """A Dante, for SOCKS 4 and 5 without a password: others take users of the system."""
    program = find_program("danted")
    port, forbidden = free_port(), free_port()
    with _directory() as directory:
        config = directory / "danted.conf"
        config.write_text(_DANTE.format(port=port, forbidden=forbidden))
        argv = [program, "-f", str(config)]
        with _running(argv, directory, scheme, port, forbidden) as proxy:
            yield proxy


# -- By hand -----------------------------------------------------------------


def taken(peer: RawPeer, size: int) -> bytes:
    """Return so many bytes of what the client sends."""
    data = b""
    while len(data) < size:
        more = peer.sock.recv(size - len(data))
        if not more:
            raise EOFError(f"the connection ended after {data!r}")
        data += more
    return data


def serve_socks5(
    peer: RawPeer,
    *,
    user: str | None = None,
    password: str = "",
    granted: bool = True,
    reply: bytes = b"\x05\0\0\x01\x7f\0\0\x01\0\x01",
) -> tuple[str, int]:
    """Do what a SOCKS 5 proxy does; return where it is asked to connect. RFC 1928, RFC 1929."""
    version, count = taken(peer, 2)
    methods = taken(peer, count)
    assert version == 5
    peer.send_bytes(b"\x05\0" if user is None else b"\x05\x02")
    if user is not None:
        assert 2 in methods
        assert taken(peer, 1) == b"\x01"
        assert taken(peer, taken(peer, 1)[0]).decode() == user
        assert taken(peer, taken(peer, 1)[0]).decode() == password
        peer.send_bytes(b"\x01\0" if granted else b"\x01\x01")
        if not granted:
            return "", 0
    assert taken(peer, 3) == b"\x05\x01\0"
    kind = taken(peer, 1)[0]
    if kind == 3:
        host = taken(peer, taken(peer, 1)[0]).decode()
    else:
        host = str(ipaddress.ip_address(taken(peer, 4 if kind == 1 else 16)))
    port = int.from_bytes(taken(peer, 2), "big")
    peer.send_bytes(reply)
    return host, port


def serve_socks4(peer: RawPeer, *, code: int = 90) -> tuple[str, int, str]:
    """The same for SOCKS 4 and 4a; return also the user."""
    assert taken(peer, 2) == b"\x04\x01"
    port = int.from_bytes(taken(peer, 2), "big")
    address = ipaddress.IPv4Address(taken(peer, 4))
    user, host = _to_nul(peer), str(address)
    if int(address) < 256:  # 0.0.0.x: the name follows
        host = _to_nul(peer)
    peer.send_bytes(bytes([0, code, 0, 0, 0, 0, 0, 0]))
    return host, port, user


def _to_nul(peer: RawPeer) -> str:
    data = b""
    while (byte := taken(peer, 1)) != b"\0":
        data += byte
    return data.decode()
