"""From a URL to an upgraded socket: addresses, TLS, Unix paths, and one deadline for all."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

import syncws
from syncws.client import connect as module
from syncws.timing import Deadline
from tests.proxying import Patience, no_proxies
from tests.support import HANG, TEXT, RawPeer, RawServer, Task, client_tls, server_tls


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxies(monkeypatch)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    return Patience(monkeypatch)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as raw:
        yield raw


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses; a host with a colon is IPv6."""

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        assert options == {"type": socket.SOCK_STREAM}
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, port) if ":" not in address else (address, port, 0, 0),
            )
            for address, port in addresses
        ]

    monkeypatch.setattr(module.socket, "getaddrinfo", getaddrinfo)


class Ports:
    """Ports with nobody behind them, or with a queue that is full."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def closed(self) -> int:
        """A port that refuses."""
        sock = self._stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets it
        return int(sock.getsockname()[1])

    def silent(self) -> int:
        """A port that swallows connections: its queue is full."""
        sock = self._stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(3):
            filler = self._stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        return int(sock.getsockname()[1])


@pytest.fixture
def ports() -> Iterator[Ports]:
    with ExitStack() as stack:
        yield Ports(stack)


def open_to(server: RawServer, **options: Any) -> None:
    """Open a client whose name leads to `server` in the end, and use it."""
    opening = Task(syncws.Client, "ws://name.example/", **options)
    with server.accept() as peer:
        peer.answer()
        with opening.result() as client:
            peer.text("hello")
            assert client.receive(timeout=HANG) == "hello"
            peer.abort()


# -- Addresses ---------------------------------------------------------------


def test_the_second_address_when_the_first_refuses(
    server: RawServer, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, ("127.0.0.1", ports.closed()), ("127.0.0.1", server.port))
    began = time.monotonic()
    open_to(server)
    assert time.monotonic() - began < HANG / 4


def test_the_second_address_when_the_first_is_silent(
    server: RawServer, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STAGGER", 0.02)
    resolve_to(monkeypatch, ("127.0.0.1", ports.silent()), ("127.0.0.1", server.port))
    open_to(server, handshake_timeout=HANG)


def test_a_silent_address_between_two_that_refuse(
    server: RawServer, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STAGGER", 0.02)
    resolve_to(
        monkeypatch,
        ("127.0.0.1", ports.closed()),
        ("127.0.0.1", ports.silent()),
        ("127.0.0.1", ports.closed()),
        ("127.0.0.1", server.port),
    )
    open_to(server, handshake_timeout=HANG)


def test_an_address_given_twice_is_tried_once(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = ports.closed()
    resolve_to(monkeypatch, *[("127.0.0.1", port)] * 3)
    tried: list[object] = []

    class Counting(socket.socket):
        def connect_ex(self, address: Any) -> int:
            tried.append(address)
            return super().connect_ex(address)

    monkeypatch.setattr(module.socket, "socket", Counting)
    with pytest.raises(syncws.ConnectError):
        syncws.Client("ws://name.example/")
    assert tried == [("127.0.0.1", port)]


def test_all_addresses_refuse(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, *(("127.0.0.1", ports.closed()) for _ in range(3)))
    with pytest.raises(
        syncws.ConnectError, match=r"connecting with name\.example port 80 failed: .*refused"
    ) as caught:
        syncws.Client("ws://name.example/")
    assert isinstance(caught.value, ConnectionError)
    assert not isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert str(caught.value).count("refused") == 1


def test_no_address_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch)
    with pytest.raises(syncws.ConnectError, match="the name has no address"):
        syncws.Client("ws://name.example/")


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*args: object, **options: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(module.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(syncws.ConnectError, match=r"name\.example .*: Name or service") as caught:
        syncws.Client("ws://name.example/")
    assert isinstance(caught.value.__cause__, socket.gaierror)


@pytest.mark.parametrize("name", ["x" * 64, "x." * 150 + "example"])
def test_a_name_that_cannot_be(name: str) -> None:
    with pytest.raises((ValueError, syncws.ConnectError)):
        syncws.Client(f"ws://{name}/")


def test_a_family_that_the_system_does_not_have(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, ("::1", 9), ("127.0.0.1", server.port))

    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *args: Any, **options: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no IPv6")
            super().__init__(family, *args, **options)

    monkeypatch.setattr(module.socket, "socket", WithoutIPv6)
    open_to(server)


def test_an_address_that_connects_at_once(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AtOnce(socket.socket):
        def connect_ex(self, address: Any) -> int:
            self.setblocking(True)
            self.connect(address)
            self.setblocking(False)
            return 0

    resolve_to(monkeypatch, ("127.0.0.1", server.port))
    monkeypatch.setattr(module.socket, "socket", AtOnce)
    open_to(server)


def test_a_silent_address_ends_at_the_deadline(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, ("127.0.0.1", ports.silent()))
    began = time.monotonic()
    with pytest.raises(
        syncws.ConnectTimeout, match=r"connecting with name\.example .* handshake_timeout, 0\.1 s"
    ) as caught:
        syncws.Client("ws://name.example/", handshake_timeout=0.1)
    assert 0.05 < time.monotonic() - began < HANG / 4
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, syncws.ConnectError)


def test_the_deadline_holds_for_all_addresses_together(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STAGGER", 0.01)
    resolve_to(monkeypatch, *(("127.0.0.1", ports.silent()) for _ in range(5)))
    began = time.monotonic()
    with pytest.raises(syncws.ConnectTimeout):
        syncws.Client("ws://name.example/", handshake_timeout=0.1)
    assert time.monotonic() - began < HANG / 4


def test_a_timeout_of_the_systems_own_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    class TimingOut(socket.socket):
        def connect_ex(self, address: Any) -> int:
            return errno.ETIMEDOUT

    resolve_to(monkeypatch, ("127.0.0.1", 1))
    monkeypatch.setattr(module.socket, "socket", TimingOut)
    with pytest.raises(syncws.ConnectError, match="timed out") as caught:
        syncws.Client("ws://name.example/", handshake_timeout=None)
    assert "handshake_timeout" not in str(caught.value)


@pytest.mark.parametrize("timeout", [0, 0.0])
def test_no_time_at_all(server: RawServer, timeout: float) -> None:
    with pytest.raises(syncws.ConnectTimeout):
        syncws.Client(server.url, handshake_timeout=timeout)


def address(host: str) -> Any:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return module._Address(family, socket.SOCK_STREAM, 0, (host, 80))


@pytest.mark.parametrize(
    ("hosts", "order"),
    [
        (["::1", "::2", "1.1.1.1", "2.2.2.2"], ["::1", "1.1.1.1", "::2", "2.2.2.2"]),
        (["1.1.1.1", "2.2.2.2", "::1"], ["1.1.1.1", "::1", "2.2.2.2"]),
        (["1.1.1.1", "2.2.2.2"], ["1.1.1.1", "2.2.2.2"]),
        (["::1", "1.1.1.1", "2.2.2.2", "3.3.3.3"], ["::1", "1.1.1.1", "2.2.2.2", "3.3.3.3"]),
    ],
)
def test_families_take_turns(hosts: list[str], order: list[str]) -> None:
    mixed = module._interleaved([address(host) for host in hosts])
    assert [found.address[0] for found in mixed] == order


# -- The opening handshake ---------------------------------------------------


def refused_with(server: RawServer, serve: Callable[[RawPeer], None], **options: Any) -> Exception:
    """Return what the constructor raises when the server does this."""
    opening = Task(syncws.Client, server.url, **options)
    with server.accept() as peer:
        serve(peer)
        error = opening.error()
    assert isinstance(error, syncws.ConnectError)
    return error


def test_the_server_never_answers(server: RawServer, patience: Patience) -> None:
    patience.end()
    error = refused_with(server, lambda peer: None)
    assert isinstance(error, syncws.ConnectTimeout)
    assert "the opening handshake with 127.0.0.1" in str(error)


def test_a_server_that_always_has_more_to_say_has_no_more_time() -> None:
    """Though nothing is ever waited for."""
    now = 100.0

    class Transport:
        wants_read = wants_write = False
        sock = None

        def send(self, data: Any) -> int:
            return len(data)

        def receive(self, buffer: Any) -> int:
            nonlocal now
            now += 0.25
            buffer[:1] = b"H"
            return 1

    class Handshake:
        def request_bytes(self) -> bytes:
            return b"GET"

        def receive(self, data: bytes) -> None:
            assert data == b"H"
            assert now < 102.0

    transport: Any = Transport()
    handshake: Any = Handshake()
    with pytest.raises(TimeoutError):
        module._upgrade(transport, handshake, Deadline(1.0, lambda: now))
    assert now == 101.0


def test_the_server_answers_a_byte_at_a_time(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []  # when the time begins to run: the client may be slow to come

    def clock() -> float:
        return time.monotonic() - began[0] if began else 0.0

    monkeypatch.setattr(module, "Deadline", lambda timeout: Deadline(timeout, clock))

    def serve(peer: RawPeer) -> None:
        peer.read_head()
        began.append(time.monotonic())
        assert peer.drip(b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 1000, 0.005)

    assert isinstance(refused_with(server, serve, handshake_timeout=0.1), syncws.ConnectTimeout)


def test_the_server_goes_away(server: RawServer) -> None:
    for end in (RawPeer.abort, RawPeer.reset):
        for part in (b"", b"HTTP/1.1 101 Switching"):

            def serve(peer: RawPeer, part: bytes = part, end: Any = end) -> None:
                peer.read_head()
                peer.send_bytes(part)
                end(peer)

            error = refused_with(server, serve)
            assert not isinstance(error, TimeoutError)


def test_the_server_goes_away_before_the_request(server: RawServer) -> None:
    error = refused_with(server, RawPeer.reset)
    assert not isinstance(error, TimeoutError)


def test_the_server_answers_with_another_status(server: RawServer) -> None:
    def serve(peer: RawPeer) -> None:
        peer.read_head()
        peer.send_bytes(
            b"HTTP/1.1 403 Forbidden\r\nX-Why: because\r\nContent-Length: 5\r\n\r\nno go"
        )

    error = refused_with(server, serve)
    assert isinstance(error, syncws.HandshakeRejected)
    assert (error.status, error.headers["x-why"], error.body) == (403, "because", b"no go")


def test_the_server_breaks_the_rules(server: RawServer) -> None:
    def serve(peer: RawPeer) -> None:
        peer.read_head()
        peer.send_bytes(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n"
        )

    assert isinstance(refused_with(server, serve), syncws.HandshakeError)


def test_frames_behind_the_response_are_received(server: RawServer) -> None:
    opening = Task(syncws.Client, server.url)
    with server.accept() as peer:
        peer.answer(rest=b"\x81\x05first")
        with opening.result() as client:
            assert client.receive(timeout=HANG) == "first"
            peer.abort()


def test_the_request(server: RawServer) -> None:
    opening = Task(
        syncws.Client,
        f"ws://user:pass%21@127.0.0.1:{server.port}/path%20x?query=1",
        subprotocols=["json", "xml"],
        headers={"X-Custom": "yes"},
        compression=False,
    )
    with server.accept() as peer:
        peer.answer("Sec-WebSocket-Protocol: xml")
        with opening.result() as client:
            lines = peer.head.decode().split("\r\n")
            assert lines[0] == "GET /path%20x?query=1 HTTP/1.1"
            fields = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
            assert fields["host"] == f"127.0.0.1:{server.port}"
            assert fields["x-custom"] == "yes"
            assert fields["sec-websocket-protocol"] == "json, xml"
            assert fields["authorization"] == "Basic dXNlcjpwYXNzIQ=="
            assert "sec-websocket-extensions" not in fields
            assert "origin" not in fields
            assert client.subprotocol == "xml"
            assert client.response.status == 101
            assert client.response.headers["upgrade"] == "websocket"
            # The credentials are shown nowhere.
            assert client.url == f"ws://127.0.0.1:{server.port}/path%20x?query=1"
            assert "pass" not in repr(client)
            peer.abort()


# -- TLS ---------------------------------------------------------------------


def tls_refused(
    server: RawServer, context: ssl.SSLContext, trust: ssl.SSLContext | None, host: str
) -> syncws.ConnectError:
    """Return what the constructor raises when the server has this certificate."""
    opening = Task(syncws.Client, f"wss://{host}:{server.port}/", ssl=trust)
    with server.accept() as peer:
        with pytest.raises((ssl.SSLError, OSError)):
            tls = context.wrap_socket(peer.sock, server_side=True)
            peer.sock = tls
            tls.recv(1)
            raise OSError("the client went")
        peer.abort()
    error = opening.error()
    assert isinstance(error, syncws.ConnectError)
    assert isinstance(error.__cause__, ssl.SSLError)
    assert "the TLS handshake with" in str(error)
    return error


def test_tls_to_the_right_name(server: RawServer) -> None:
    opening = Task(syncws.Client, f"wss://localhost:{server.port}/", ssl=client_tls())
    with server.accept() as peer:
        peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
        peer.answer()
        with opening.result() as client:
            assert client.is_secure
            assert client.url.startswith("wss://localhost:")
            client.send_text("hello")
            peer.expect(TEXT, "hello")
            peer.abort()


def test_a_certificate_for_another_name_is_refused(server: RawServer) -> None:
    error = tls_refused(server, server_tls("other.example"), client_tls(), "localhost")
    assert "localhost" in str(error)


def test_an_unknown_authority_is_refused_by_default(server: RawServer) -> None:
    error = tls_refused(server, server_tls(), None, "localhost")
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert "certificate" in str(error).lower()


def test_a_self_signed_certificate_is_refused(server: RawServer) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    tls_refused(server, context, client_tls(), "localhost")


def test_a_server_without_tls(server: RawServer) -> None:
    opening = Task(syncws.Client, f"wss://localhost:{server.port}/")
    with server.accept() as peer:
        peer.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        error = opening.error()
    assert isinstance(error, syncws.ConnectError)
    assert isinstance(error.__cause__, ssl.SSLError)


def test_a_server_that_is_silent_in_tls(server: RawServer, patience: Patience) -> None:
    patience.end()
    began = time.monotonic()
    opening = Task(syncws.Client, f"wss://localhost:{server.port}/")
    with server.accept():
        error = opening.error()
    assert isinstance(error, syncws.ConnectTimeout)
    assert "the TLS handshake" in str(error)
    assert time.monotonic() - began < HANG / 4


def test_a_server_that_is_silent_behind_tls(server: RawServer, patience: Patience) -> None:
    patience.end_after("secure")
    opening = Task(syncws.Client, f"wss://localhost:{server.port}/", ssl=client_tls())
    with server.accept() as peer:
        peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
        error = opening.error()
    assert isinstance(error, syncws.ConnectTimeout)
    assert "the opening handshake" in str(error)


def test_a_server_that_goes_away_in_tls(server: RawServer) -> None:
    opening = Task(syncws.Client, f"wss://localhost:{server.port}/")
    with server.accept() as peer:
        peer.abort()
    assert isinstance(opening.error(), syncws.ConnectError)


# -- Unix --------------------------------------------------------------------


def test_a_unix_path_that_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with pytest.raises(syncws.ConnectError, match=f"connecting with {path} failed") as caught:
        syncws.Client("ws://localhost/", unix_path=path)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(syncws.ConnectError, match="refused"):
        syncws.Client("ws://localhost/", unix_path=path)


def test_a_unix_path_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(syncws.ConnectError, match="too long"):
        syncws.Client("ws://localhost/", unix_path=tmp_path / ("x" * 200))


def test_tls_over_a_unix_path(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(HANG)
        opening = Task(syncws.Client, "wss://localhost/x", unix_path=path, ssl=client_tls())
        sock, _ = listening.accept()
        with sock, RawPeer(server_tls().wrap_socket(sock, server_side=True), client=False) as peer:
            peer.answer()
            with opening.result() as client:
                assert b"Host: localhost\r\n" in peer.head
                assert client.remote_address == str(path)
                peer.abort()
