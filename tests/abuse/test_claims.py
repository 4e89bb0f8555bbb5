"""Claims of clients, and of proxies, about who they are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

import syncws
from tests.abuse.door import App
from tests.abuse.hostile import Bystanders, beside, everything
from tests.abuse.watch import watched
from tests.introductions import LINE, TLS, V4, introduction_2, local, value
from tests.support import RawPeer, ServerRecorder, Task, listening, news, server_tls, wait_until


class Scene:
    """A listener with proxies that is attacked, and an honest one beside it."""

    def __init__(
        self, listener: syncws.Listener, service: ServerRecorder, app: App, others: Bystanders
    ) -> None:
        self.listener = listener
        self.service = service
        self.app = app
        self.others = others

    def answer(self, data: bytes) -> bytes:
        """Return all that comes for these bytes, to the end."""
        with RawPeer.dial(self.listener) as peer:
            with suppress(ConnectionError):
                peer.send_bytes(data)
            return everything(peer)

    def caller(self, *headers: str) -> tuple[syncws.Caller, Any]:
        """Return what the service gets to see of a client, and the client's own address."""
        with RawPeer.dial(self.listener) as peer:
            peer.send_bytes(RawPeer.request("/", *headers))
            assert peer.read_head().startswith(b"HTTP/1.1 101 "), peer.head
            caller = self.service.expect("on_open")
            address = peer.sock.getsockname()
            peer.finish()
            self.service.expect("on_close")
        return caller, address

    def environ(self, *headers: str) -> dict[str, Any]:
        """Return what the application gets to see of a client."""
        lines = ["GET /page HTTP/1.0", "Host: localhost", *headers, "", ""]
        assert self.answer("\r\n".join(lines).encode()).startswith(b"HTTP/1.1 200 ")
        return self.app.environs.pop()

    def stayed_shut(self) -> None:
        """Assert that nobody was asked."""
        assert self.service.calls.empty()
        assert self.app.environs == []


@contextmanager
def behind(**options: Any) -> Iterator[Scene]:
    """A listener that has proxies."""
    service, app = ServerRecorder(syncws.ServiceConfig(ping_interval=None)), App()
    with beside() as others, listening(service, app=app, **options) as listener, watched():
        yield Scene(listener, service, app, others)
        others.served()


CLAIMS = {
    "for": ["X-Forwarded-For: 10.0.0.1"],
    "for twice": ["X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 127.0.0.1"],
    "for many": ["X-Forwarded-For: " + "10.0.0.1, " * 1000 + "10.0.0.1"],
    "for, malformed": ["X-Forwarded-For: rubbish"],
    "for, in other letters": ["x-FORWARDED-for: 10.0.0.1"],
    "for, with underscores": ["X_Forwarded_For: 10.0.0.1"],
    "proto": ["X-Forwarded-Proto: https"],
    "host": ["X-Forwarded-Host: evil.example", "X-Forwarded-Port: 444"],
    "forwarded": ["Forwarded: for=10.0.0.1;proto=https;host=evil.example"],
    "forwarded, open": ['Forwarded: for="10.0.0.1'],
}

TOLD = [
    ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"],
    ["Forwarded"],
]


@pytest.mark.parametrize("told", TOLD, ids=["x-forwarded", "forwarded"])
@pytest.mark.parametrize("claims", CLAIMS.values(), ids=CLAIMS)
def test_who_is_no_proxy_changes_nothing(claims: list[str], told: list[str]) -> None:
    with behind(trusted_proxies=["10.0.0.0/8", "::1", "unix"], forwarded_headers=told) as scene:
        caller, address = scene.caller(*claims)
        request = caller.request
        assert caller.remote_address == request.remote_address == request.peer_address == address
        assert not caller.is_secure
        assert (request.host, request.forwarded_host) == ("localhost", "")
        environ = scene.environ(*claims)
        assert (environ["REMOTE_ADDR"], environ["HTTP_HOST"]) == ("127.0.0.1", "localhost")
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["SERVER_PORT"] == str(scene.listener.port)


@pytest.mark.parametrize("claims", CLAIMS.values(), ids=CLAIMS)
def test_headers_that_the_proxy_does_not_set_are_the_clients(claims: list[str]) -> None:
    """A proxy hands on what it does not know."""
    told: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"], "forwarded_headers": []}
    with behind(**told) as scene:
        caller, address = scene.caller(*claims)
        assert caller.remote_address == address
        assert not caller.is_secure
        assert caller.request.host == "localhost"


@pytest.mark.parametrize(
    "forged",
    [
        "127.0.0.1",
        "10.0.0.1, 10.0.0.2",
        "rubbish",
        "unknown",
        "unix:",
        '"',
        "8.8.8.8,",
        "for=8.8.8.8",
        ", " * 100,
    ],
)
@pytest.mark.parametrize("lines", [1, 2], ids=["one line", "two lines"])
def test_a_client_of_a_proxy_cannot_choose_its_address(forged: str, lines: int) -> None:
    ours = "203.0.113.7, 10.0.0.9"
    headers = [f"X-Forwarded-For: {forged}, {ours}"]
    if lines == 2:
        headers = [f"X-Forwarded-For: {forged}", f"X-Forwarded-For: {ours}"]
    with behind(trusted_proxies=["127.0.0.1", "10.0.0.0/8"]) as scene:
        caller, _ = scene.caller(*headers, "X-Forwarded-Proto: https", "X-Forwarded-Proto: http")
        assert caller.remote_address == ("203.0.113.7", 0)
        assert not caller.is_secure


@pytest.mark.parametrize(
    ("told", "claims"),
    [
        (TOLD[0], ["X-Forwarded-For: rubbish"]),
        (TOLD[0], ["X-Forwarded-For: 127.0.0.1 ", "X-Forwarded-For: \x01".replace("\x01", "é")]),
        (TOLD[0], ["X-Forwarded-Proto: gopher"]),
        (TOLD[0], ["X-Forwarded-Host: a b"]),
        (TOLD[0], ["X-Forwarded-Port: 99999"]),
        (TOLD[1], ["Forwarded: rubbish"]),
        (TOLD[1], ['Forwarded: for=1.1.1.1;x=", for=8.8.8.8']),
        (TOLD[1], ['Forwarded: for=1.1.1.1;x=", for="[2001:db8::7]"']),
    ],
)
def test_what_a_proxy_cannot_have_meant_is_refused(told: list[str], claims: list[str]) -> None:
    with behind(trusted_proxies=["127.0.0.1"], forwarded_headers=told) as scene:
        for first in ("GET / HTTP/1.1", "GET /page HTTP/1.1"):
            request = RawPeer.request("/", *claims).decode()
            said = scene.answer(request.replace("GET / HTTP/1.1", first).encode("latin-1"))
            assert said.startswith(b"HTTP/1.1 400 ")
            assert b"of a proxy cannot be understood" in said
        scene.stayed_shut()


def test_claims_do_not_get_around_the_number_for_each_address() -> None:
    options: Any = {"trusted_proxies": ["10.0.0.1"], "max_connections_per_address": 2}
    with behind(**options) as scene, ExitStack() as stack:
        statuses = []
        for number in range(5):
            peer = stack.enter_context(RawPeer.dial(scene.listener))
            peer.send_bytes(RawPeer.request("/", f"X-Forwarded-For: 8.8.8.{number}"))
            statuses.append(int(peer.read_head().split()[1]))
        assert statuses == [101, 101, 503, 503, 503]
        scene.others.served()


# -- The PROXY protocol ------------------------------------------------------

_HEADERS = {
    "none": b"",
    "version 1": LINE,
    "version 2": introduction_2(V4),
    "version 2, local": local(),
}


@pytest.mark.parametrize("header", _HEADERS.values(), ids=_HEADERS)
def test_who_goes_around_the_proxy_is_turned_away(
    header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, "syncws.server"),
        behind(trusted_proxies=["10.0.0.0/8"], proxy_protocol=True) as scene,
    ):
        assert scene.answer(header + RawPeer.request()) == b""
        scene.stayed_shut()
        wait_until(lambda: news(caplog))
    (record,) = news(caplog)
    message = record.getMessage()
    assert message.startswith("turned ('127.0.0.1', ")


_BROKEN = {
    "none": RawPeer.request(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "in lower case": LINE.lower(),
    "a blank before": b" " + LINE,
    "a line break before": b"\r\n" + LINE,
    "a bare line break": LINE.replace(b"\r\n", b"\n") + RawPeer.request(),
    "another family": LINE.replace(b"TCP4", b"TCP6"),
    "another protocol": LINE.replace(b"TCP4", b"UDP4"),
    "a name": LINE.replace(b"127.0.0.1", b"localhost"),
    "an address out of range": LINE.replace(b"203.0", b"256.0"),
    "a port out of range": LINE.replace(b"443", b"65536"),
    "a line that is too long": b"PROXY UNKNOWN " + b"x" * 10_000,
    "version 3": introduction_2(V4, version=0x31),
    "an unknown command": introduction_2(V4, version=0x22),
    "an unknown family": introduction_2(V4, family=0x41),
    "addresses cut short": introduction_2(V4[:5]),
    "a value beyond the end": introduction_2(V4 + b"\x04\xff\xff"),
    "a wrong checksum": introduction_2(V4 + value(3, b"1234") + TLS),
    "64 KiB": introduction_2(V4)[:14] + b"\xff\xff" + bytes(65_535),
}


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("data", _BROKEN.values(), ids=_BROKEN)
def test_broken_introductions(data: bytes, secure: bool) -> None:
    options: Any = {"trusted_proxies": ["127.0.0.1"], "proxy_protocol": True}
    with behind(ssl=server_tls() if secure else None, **options) as scene:
        assert scene.answer(data + RawPeer.request()) == b""
        scene.stayed_shut()


@pytest.mark.parametrize("second", [LINE, introduction_2(V4)], ids=["version 1", "version 2"])
def test_a_second_introduction_is_no_request(second: bytes) -> None:
    """A client's, which a proxy that adds one hands on behind its own."""
    with behind(trusted_proxies=["127.0.0.1"], proxy_protocol=True) as scene:
        assert scene.answer(LINE + second + RawPeer.request()).startswith(b"HTTP/1.1 400 ")
        scene.stayed_shut()


@pytest.mark.parametrize("said", [b"", b"P", LINE[:-1], introduction_2(V4)[:-1], LINE])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_silence_in_an_introduction(said: bytes, secure: bool) -> None:
    options: Any = {"trusted_proxies": ["127.0.0.1"], "proxy_protocol": True}
    with (
        behind(ssl=server_tls() if secure else None, handshake_timeout=1.0, **options) as scene,
        ExitStack() as stack,
    ):
        silent = [stack.enter_context(RawPeer.dial(scene.listener)) for _ in range(10)]
        for peer in silent:
            peer.send_bytes(said)
        scene.others.served()
        for peer in silent:
            peer.expect_end()
        scene.stayed_shut()


def test_an_introduction_a_byte_at_a_time() -> None:
    options: Any = {"trusted_proxies": ["127.0.0.1"], "proxy_protocol": True}
    with (
        behind(handshake_timeout=1.0, **options) as scene,
        RawPeer.dial(scene.listener) as slow,
    ):
        long = introduction_2(V4 + value(4, bytes(4000)))
        dripping = Task(slow.drip, long, 0.01)
        scene.others.served()
        assert dripping.result()
        scene.stayed_shut()
