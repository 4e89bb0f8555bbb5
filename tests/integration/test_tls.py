"""TLS: who is talked to, and what becomes of those who do not keep to its rules."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import syncws
from syncws.server.reception import Reception
from tests.integration.bare_tls import BareTLS, end_of, newest
from tests.integration.key_updates import Keys
from tests.support import (
    CLOSE,
    HANG,
    TEXT,
    Gate,
    RawPeer,
    RawServer,
    Recorder,
    ServerRecorder,
    Task,
    authority,
    client_tls,
    close_payload,
    frame,
    listening,
    server_tls,
)

Version = ssl.TLSVersion

both_roles = pytest.mark.parametrize("role", ["server", "client"])
both_versions = pytest.mark.parametrize("version", [Version.TLSv1_2, Version.TLSv1_3], ids=str)


def context_for(role: str, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Return a context for the peer of an end of ours."""
    make = client_tls if role == "server" else server_tls
    return newest(make.__wrapped__(), version)


# -- Records -----------------------------------------------------------------


def spoilt(tls: BareTLS, masked: bool) -> bytes:
    """Return a message's record with another last bit."""
    record = tls.seal(frame(TEXT, b"spoilt", masked=masked))
    return record[:-1] + bytes([record[-1] ^ 1])


def replayed(tls: BareTLS, masked: bool) -> bytes:
    """Return a record that was sent before."""
    record = tls.seal(frame(TEXT, b"first", masked=masked))
    tls.raw.sendall(record)
    return record


def dropped(tls: BareTLS, masked: bool) -> bytes:
    """Return a record whose predecessor is missing."""
    tls.seal(frame(TEXT, b"missing", masked=masked))
    return tls.seal(frame(TEXT, b"after", masked=masked))


BROKEN: dict[str, Callable[[BareTLS, bool], bytes]] = {
    "longer than a record": lambda tls, masked: b"\x17\x03\x03\x48\x01" + bytes(0x4801),
    "the longest length": lambda tls, masked: b"\x17\x03\x03\xff\xff" + bytes(100),
    "an empty record": lambda tls, masked: b"\x17\x03\x03\x00\x00",
    "no record": lambda tls, masked: b"\xde\xad\xbe\xef" * 30,
    "plain HTTP": lambda tls, masked: RawPeer.request(),
    "a plain frame": lambda tls, masked: frame(TEXT, b"plain", masked=masked) * 100,
    "a plain alert": lambda tls, masked: b"\x15\x03\x03\x00\x02\x02\x28",
    "a plain close_notify": lambda tls, masked: b"\x15\x03\x03\x00\x02\x01\x00",
    "a new ClientHello": lambda tls, masked: b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    "an alert": lambda tls, masked: tls.alert(),
    "a spoilt record": spoilt,
    "a record twice": replayed,
    "a record without the one before": dropped,
}


@both_versions
@both_roles
@pytest.mark.parametrize("case", BROKEN)
def test_what_breaks_the_rules_of_tls_ends_the_connection(
    role: str, version: ssl.TLSVersion, case: str
) -> None:
    service = Recorder()
    with end_of(role, service, context_for(role, version)) as (peer, tls, url):
        peer.text("hello")
        service.expect("on_text", "hello")
        tls.raw.sendall(BROKEN[case](tls, role == "server"))
        if case == "a record twice":
            service.expect("on_text", "first")
        service.expect("on_close", 1006, "")
        with contextlib.suppress(ConnectionResetError):
            while tls.raw.recv(65_536):  # at most an alert
                pass
        service.quiet()
        if role == "server":
            with syncws.Client(url, ssl=client_tls()) as other:
                other.send_text("others go on")
                service.expect("on_text", "others go on")


@both_versions
@both_roles
@pytest.mark.parametrize("notified", [False, True], ids=["without close_notify", "close_notify"])
@pytest.mark.parametrize("cut", [None, 2, 9], ids=["between frames", "in a head", "in a frame"])
def test_an_end_without_a_close_frame_is_no_orderly_one(
    role: str, version: ssl.TLSVersion, notified: bool, cut: int | None
) -> None:
    service = Recorder()
    with end_of(role, service, context_for(role, version)) as (peer, tls, _):
        peer.text("hello")
        if cut is not None:
            peer.send_bytes(frame(TEXT, b"a message that is cut", masked=role == "server")[:cut])
        if notified:
            tls.raw.sendall(tls.close_notify())
        tls.raw.shutdown(socket.SHUT_WR)
        service.expect("on_text", "hello")
        service.expect("on_close", 1006, "")
        service.quiet()


@both_versions
@both_roles
def test_a_record_that_is_cut_is_no_orderly_end(role: str, version: ssl.TLSVersion) -> None:
    service = Recorder()
    with end_of(role, service, context_for(role, version)) as (peer, tls, _):
        peer.text("hello")
        tls.raw.sendall(tls.seal(frame(TEXT, b"cut", masked=role == "server"))[:-1])
        tls.raw.shutdown(socket.SHUT_WR)
        service.expect("on_text", "hello")
        service.expect("on_close", 1006, "")
        service.quiet()


@both_versions
@both_roles
@pytest.mark.parametrize("notified", [False, True], ids=["without close_notify", "close_notify"])
def test_an_end_after_the_close_frames_is_an_orderly_one(
    role: str, version: ssl.TLSVersion, notified: bool
) -> None:
    service = Recorder()
    with end_of(role, service, context_for(role, version)) as (peer, tls, _):
        peer.close_frame(4000, "enough")
        peer.expect_close(4000)
        if notified:
            tls.raw.sendall(tls.close_notify())
        tls.raw.shutdown(socket.SHUT_WR)
        service.expect("on_close", 4000, "enough")


def test_a_blocking_client_tells_a_truncation_from_a_close() -> None:
    with RawServer() as server:
        url = f"wss://localhost:{server.port}/"
        opening = Task(syncws.Client, url, ssl=client_tls())
        tls = BareTLS(server.accept().sock, server_tls())
        with tls.peer() as peer:
            tls.handshake()
            peer.answer()
            with opening.result() as client:
                peer.send_bytes(frame(TEXT, b"part", fin=False, masked=False))
                tls.raw.shutdown(socket.SHUT_WR)
                with pytest.raises(syncws.ConnectionClosed) as caught:
                    client.receive(HANG)
                assert caught.value.received is None


@both_versions
@both_roles
@pytest.mark.parametrize("sealed", [False, True], ids=["in the clear", "sealed before"])
def test_nothing_counts_after_close_notify(
    role: str, version: ssl.TLSVersion, sealed: bool
) -> None:
    service = Recorder()
    masked = role == "server"
    closing = close_payload(4000)
    late = frame(TEXT, b"late", masked=masked) + frame(CLOSE, closing, masked=masked)
    with end_of(role, service, context_for(role, version)) as (_, tls, _):
        early = tls.seal(late)
        tls.raw.sendall(tls.close_notify() + (early if sealed else late))
        service.expect("on_close", 1006, "")
        service.quiet()


@both_versions
def test_nothing_counts_after_close_notify_beside_a_close_frame(version: ssl.TLSVersion) -> None:
    """Ours goes on to wait for the end of TCP, of which nothing must be taken in the clear."""
    service = Recorder()
    with end_of("server", service, context_for("server", version)) as (peer, tls, url):
        peer.close_frame(4000)
        peer.expect_close(4000)
        tls.raw.sendall(tls.close_notify() + frame(TEXT, b"late") * 100)
        tls.raw.shutdown(socket.SHUT_WR)
        service.expect("on_close", 4000, "")
        service.quiet()
        with syncws.Client(url, ssl=client_tls()) as other:
            other.send_text("others go on")
            service.expect("on_text", "others go on")


def test_plain_http_to_a_tls_port() -> None:
    service = ServerRecorder()
    with listening(service, ssl=server_tls()) as listener:
        with RawPeer.dial(listener) as plain, RawPeer.dial(listener) as plainer:
            for peer in (plain, plainer):
                peer.send_bytes(RawPeer.request())
            for peer in (plain, plainer):
                answer = b""
                with contextlib.suppress(ConnectionResetError):
                    while data := peer.sock.recv(100):
                        answer += data
                assert b"HTTP" not in answer
        with RawPeer.connect(listener, tls=True):
            service.expect("on_open")


# -- The TLS handshake ---------------------------------------------------------


@contextlib.contextmanager
def bare_client(
    listener: syncws.Listener, context: ssl.SSLContext | None = None
) -> Iterator[BareTLS]:
    """A client's TLS before its handshake."""
    with RawPeer.dial(listener) as peer:
        yield BareTLS(peer.sock, context or client_tls())


@pytest.mark.parametrize("manner", ["a part", "without the last flight", "a byte at a time"])
def test_a_client_that_does_not_finish_its_handshake_is_dropped(
    manner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Recorder()
    first = iter([True])
    open_socket = Reception._open_socket

    def opened(self: Reception, transport: Any, timeout: Any, **options: Any) -> Any:
        # The others have all the time that they may take here.
        return open_socket(self, transport, timeout if next(first, False) else HANG, **options)

    monkeypatch.setattr(Reception, "_open_socket", opened)
    with (
        listening(service, ssl=server_tls(), handshake_timeout=0.2) as listener,
        bare_client(listener) as slow,
        RawPeer.connect(listener, tls=True) as other,
    ):
        hello = slow.hello()
        if manner == "a byte at a time":
            assert RawPeer(slow.raw, client=True).drip(hello, 0.005)
        else:
            slow.raw.sendall(hello[:100] if manner == "a part" else hello)
            with contextlib.suppress(ConnectionResetError):
                while slow.raw.recv(65_536):
                    pass
        # Others are accepted meanwhile, and stay.
        other.text("hello")
        service.expect("on_text", "hello")
        with RawPeer.connect(listener, tls=True) as another:
            another.text("another")
            service.expect("on_text", "another")


def test_others_are_let_in_while_many_say_nothing() -> None:
    service = Recorder()
    with (
        listening(service, ssl=server_tls(), handshake_timeout=None) as listener,
        contextlib.ExitStack() as silent,
    ):
        for number in range(50):
            client = silent.enter_context(bare_client(listener))
            client.raw.sendall(client.hello()[: number * 10])
        with RawPeer.connect(listener, tls=True) as peer:
            peer.text("hello")
            service.expect("on_text", "hello")


@pytest.mark.parametrize("manner", ["nothing", "a part", "a byte at a time"])
def test_a_server_that_does_not_finish_its_handshake_is_given_up(manner: str) -> None:
    with RawServer() as server:
        url = f"wss://localhost:{server.port}/"
        opening = Task(syncws.Client, url, ssl=client_tls(), handshake_timeout=0.2)
        with server.accept() as peer:
            flight = BareTLS(peer.sock, server_tls()).answer()
            if manner == "a byte at a time":
                assert peer.drip(flight, 0.005)
            elif manner == "a part":
                peer.send_bytes(flight[: len(flight) // 2])
            error = opening.error()
    assert isinstance(error, syncws.ConnectTimeout)
    assert "the TLS handshake" in str(error)


def test_closing_a_client_that_retries_ends_its_tls_handshake() -> None:
    """It is in a worker then, and waits for a server that is silent."""
    retry = syncws.RetryConfig(interval=0)
    with RawServer() as server:
        url = f"wss://localhost:{server.port}/"
        opening = Task(syncws.Client, url, ssl=client_tls(), handshake_timeout=None, retry=retry)
        with server.accept() as peer:
            peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
            peer.answer()
            client = opening.result()
        with server.accept() as silent:
            assert silent.sock.recv(1) == b"\x16"
            client.close()
            assert not client.is_open


# -- Versions ------------------------------------------------------------------


@pytest.fixture
def lax(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system whose configuration allows TLS 1.1 with all that belongs to it."""
    create = ssl.create_default_context

    def created(*args: Any, **options: Any) -> ssl.SSLContext:
        return old(create(*args, **options), Version.MAXIMUM_SUPPORTED)

    monkeypatch.setattr(ssl, "create_default_context", created)


def old(context: ssl.SSLContext, newest: ssl.TLSVersion) -> ssl.SSLContext:
    """Have a context speak versions from 1.0 on; return it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = Version.TLSv1
        context.maximum_version = newest
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Files of certificates."""
    return Files(tmp_path)


class Files:
    """Certificates of our authority as files, by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.authority = str(path / "authority.pem")
        authority().cert_pem.write_to_path(self.authority)

    def config(self, name: str, *names: str, **options: Any) -> syncws.TLSConfig:
        """Return settings with a new certificate for some names, in the file of that name."""
        self.write(name, authority().issue_cert(*names))
        return syncws.TLSConfig(cert_file=self.path(name), **options)

    def write(self, name: str, certificate: trustme.LeafCert) -> None:
        """Put a certificate and its key in place of those that are in the file."""
        pem = certificate.private_key_and_cert_chain_pem.bytes()
        other = self._path / "other.pem"
        other.write_bytes(pem)
        other.replace(self.path(name))

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return str(self._path / f"{name}.pem")

    def trust(self) -> syncws.TLSConfig:
        """Return settings of a client."""
        return syncws.TLSConfig(ca_file=self.authority)


@pytest.mark.usefixtures("lax")
def test_a_client_that_speaks_nothing_newer_than_1_1_is_refused(files: Files) -> None:
    with listening(Recorder(), ssl=files.config("server", "localhost")) as listener:
        context = old(client_tls.__wrapped__(), Version.TLSv1_1)
        with RawPeer.dial(listener) as peer:
            tls = BareTLS(peer.sock, context)
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                tls.handshake()
        context.maximum_version = Version.TLSv1_2
        with bare_client(listener, context) as newer:
            newer.handshake()
            assert newer.tls.version() == "TLSv1.2"


@pytest.mark.usefixtures("lax")
def test_a_server_that_speaks_nothing_newer_than_1_1_is_refused(files: Files) -> None:
    context = old(server_tls.__wrapped__(), Version.TLSv1_1)
    with RawServer() as server:
        url = f"wss://localhost:{server.port}/"
        opening = Task(syncws.Client, url, ssl=files.trust())
        with server.accept() as peer, pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            BareTLS(peer.sock, context).handshake()
        error = opening.error()
        assert isinstance(error, syncws.TLSError)
        assert isinstance(error.__cause__, ssl.SSLError)
        assert "PROTOCOL_VERSION" in str(error.__cause__)


@pytest.mark.usefixtures("lax")
def test_what_is_given_nothing_demands_1_2_as_well() -> None:
    """A client without `ssl` has the system's authorities, but not its versions."""
    with RawServer() as server:
        opening = Task(syncws.Client, f"wss://localhost:{server.port}/")
        with server.accept() as peer, pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            BareTLS(peer.sock, old(server_tls.__wrapped__(), Version.TLSv1_1)).handshake()
        assert isinstance(opening.error(), syncws.TLSError)


# -- Names ---------------------------------------------------------------------


def names_asked_for(context: ssl.SSLContext) -> list[str | None]:
    """Return a list of the server names that come from now on."""
    asked: list[str | None] = []

    def called(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        asked.append(name)

    context.sni_callback = called
    return asked


@pytest.mark.parametrize(
    ("host", "names", "sent"),
    [
        ("localhost", ["localhost"], "localhost"),
        ("LOCALHOST", ["localhost"], "localhost"),
        ("chat.example.org", ["example.org", "chat.example.org"], "chat.example.org"),
        ("chat.example.org", ["*.example.org"], "chat.example.org"),
        ("b\u00fccher.example", ["xn--bcher-kva.example"], "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", ["xn--bcher-kva.example"], "xn--bcher-kva.example"),
        ("127.0.0.1", ["127.0.0.1"], None),
        ("[::1]", ["::1"], None),
    ],
)
def test_names_that_are_right(
    host: str, names: list[str], sent: str | None, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    context = server_tls.__wrapped__(*names)
    asked = names_asked_for(context)
    with (
        listening(Recorder(), unix_path=path, ssl=context),
        syncws.Client(f"wss://{host}/", unix_path=path, ssl=client_tls()) as client,
    ):
        assert client.is_secure
    assert asked == [sent]


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("localhost", ["other.example"]),
        ("chat.example.org", ["example.org"]),
        ("example.org", ["*.example.org"]),
        ("a.chat.example.org", ["*.example.org"]),
        ("chat.example.org", ["chat.example.org.evil.example", "evilchat.example.org"]),
        ("b\u00fccher.example", ["bucher.example"]),
        ("example.org", ["*.org"]),
        ("127.0.0.1", ["localhost", "127.0.0.2"]),
        ("[::1]", ["localhost", "127.0.0.1", "::2"]),
    ],
)
def test_names_that_are_wrong(host: str, names: list[str], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    service = ServerRecorder()
    with listening(service, unix_path=path, ssl=server_tls(*names)):
        for options in ({}, {"service": Recorder()}, {"retry": syncws.RetryConfig(interval=0)}):
            with pytest.raises(syncws.TLSError) as caught:
                syncws.Client(f"wss://{host}/", unix_path=path, ssl=client_tls(), **options)
            assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        service.quiet()


def test_a_failover_client_goes_past_a_server_with_a_wrong_name() -> None:
    wrong, right = ServerRecorder(), ServerRecorder()
    with (
        listening(wrong, ssl=server_tls("other.example")) as first,
        listening(right, ssl=server_tls()) as second,
    ):
        urls = [f"wss://localhost:{listener.port}/" for listener in (first, second)]
        with syncws.FailoverClient(urls, ssl=client_tls(), failover_interval=0) as client:
            assert client.url == urls[1]
            right.expect("on_open")
        with pytest.raises(syncws.TLSError) as caught:
            syncws.FailoverClient(urls[:1], ssl=client_tls(), failover_interval=0)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        wrong.quiet()


def test_a_client_that_comes_back_looks_at_the_name_again() -> None:
    service, other = ServerRecorder(), Recorder()
    with listening(service, ssl=server_tls()) as listener:
        client = syncws.Client(
            f"wss://localhost:{listener.port}/",
            service=other,
            ssl=client_tls(),
            retry=syncws.RetryConfig(interval=0),
        )
        caller = service.expect("on_open")
        listener.reload_tls(server_tls("other.example"))
        caller.close(1012, timeout=0)
        call = other.next()
        assert call.name == "on_error"
        assert isinstance(call.args[0], syncws.TLSError)
        assert isinstance(call.args[0].__cause__, ssl.SSLCertVerificationError)
        other.expect("on_close")
        assert client.wait_closed(HANG)


def test_a_context_without_checks_is_the_users_choice() -> None:
    context = client_tls.__wrapped__()
    context.check_hostname = False
    with listening(Recorder(), ssl=server_tls("other.example")) as listener:
        with syncws.Client(f"wss://localhost:{listener.port}/", ssl=context) as client:
            assert client.is_open
        assert context.check_hostname is False
        # The authority is still looked at.
        unknown = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unknown.check_hostname = False
        with pytest.raises(syncws.TLSError):
            syncws.Client(f"wss://localhost:{listener.port}/", ssl=unknown)


# -- Certificates of clients ---------------------------------------------------


def common_name(request: syncws.Request) -> str | None:
    """Return whom the client's certificate is for."""
    certificate = request.peer_certificate
    if certificate is None:
        return None
    return {key: value for ((key, value),) in certificate["subject"]}.get("commonName")


def test_clients_with_and_without_certificates(files: Files) -> None:
    service = ServerRecorder()
    asked: list[str | None] = []
    config = files.config("server", "localhost", ca_file=files.authority)
    anna = authority().issue_cert("anna.example", common_name="anna")
    files.write("anna", anna)
    with listening(service, ssl=config) as listener:

        @listener.upgrade("/ask", service=service)
        def ask(http: syncws.Upgrade, request: syncws.Request) -> None:
            asked.append(common_name(request))

        url = f"wss://localhost:{listener.port}/"
        trust: dict[str, Any] = {"ca_file": files.authority}
        files.write("stranger", trustme.CA().issue_cert("anna.example", common_name="anna"))
        for cert_file in (None, files.path("stranger")):
            with pytest.raises(syncws.ConnectError):
                syncws.Client(url, ssl=syncws.TLSConfig(**trust, cert_file=cert_file))
        service.quiet()
        right = syncws.TLSConfig(**trust, cert_file=files.path("anna"))
        with syncws.Client(url, ssl=right) as client:
            caller = service.expect("on_open")
            assert common_name(caller.request) == "anna"
            assert ("DNS", "anna.example") in caller.request.peer_certificate["subjectAltName"]
            client.close()
            service.expect("on_close", 1000, "")
            assert common_name(caller.request) == "anna", "it is kept"
        with syncws.Client(url + "ask", ssl=right):
            assert asked == ["anna"]


def test_a_certificate_that_nobody_asked_for_is_not_there(files: Files) -> None:
    service = ServerRecorder()
    with listening(service, ssl=files.config("server", "localhost")) as listener:
        config = files.config("anna", "anna.example", ca_file=files.authority)
        with syncws.Client(f"wss://localhost:{listener.port}/", ssl=config):
            assert service.expect("on_open").request.peer_certificate is None
    with listening(service) as listener, syncws.Client(f"ws://localhost:{listener.port}/"):
        service.expect("on_close")
        assert service.expect("on_open").request.peer_certificate is None


# -- New certificates ------------------------------------------------------------


def shown(listener: syncws.Listener) -> list[str]:
    """Return the names in the certificate that a client gets now."""
    with bare_client(listener, trusting()) as client:
        client.handshake()
        return names_in(client)


def trusting() -> ssl.SSLContext:
    """Return a client's context that takes any name."""
    context = client_tls.__wrapped__()
    context.check_hostname = False
    return context


def names_in(tls: BareTLS) -> list[str]:
    """Return the names in the certificate that came."""
    certificate = tls.tls.getpeercert()
    assert certificate is not None
    names: Any = certificate["subjectAltName"]
    return [value for _, value in names]


def test_new_certificates_are_for_new_connections(files: Files) -> None:
    service = Recorder()
    with (
        listening(service, ssl=files.config("server", "localhost")) as listener,
        RawPeer.connect(listener, tls=True) as open_one,
        bare_client(listener, trusting()) as midway,
        bare_client(listener, trusting()) as silent,
    ):
        hello = midway.hello()
        midway.raw.sendall(hello)
        assert midway.raw.recv(1, socket.MSG_PEEK)  # its handshake has begun
        silent.raw.sendall(silent.hello()[:1])
        open_one.round_trip()
        files.write("server", authority().issue_cert("localhost", "new.example"))
        assert shown(listener) == ["localhost"], "nothing is read unasked"
        listener.reload_tls()
        assert shown(listener) == ["localhost", "new.example"]
        open_one.text("still here")
        service.expect("on_text", "still here")
        midway.handshake()
        assert names_in(midway) == ["localhost"]
        with midway.peer() as peer:
            peer.send_bytes(RawPeer.request())
            assert peer.read_head().startswith(b"HTTP/1.1 101 ")
            peer.text("me too")
            service.expect("on_text", "me too")
        open_one.finish()
        silent.raw.close()


def test_other_settings_take_the_place_of_the_first(files: Files) -> None:
    second = files.config("second", "second.example")
    with listening(Recorder(), ssl=files.config("first", "first.example")) as listener:
        listener.reload_tls(second)
        assert shown(listener) == ["second.example"]
        files.write("second", authority().issue_cert("third.example"))
        files.write("first", authority().issue_cert("never.example"))
        listener.reload_tls()
        assert shown(listener) == ["third.example"]
        listener.reload_tls(server_tls("fourth.example"))
        assert shown(listener) == ["fourth.example"]
        with pytest.raises(TypeError, match=r"ssl\.SSLContext, which cannot be read anew"):
            listener.reload_tls()
        assert shown(listener) == ["fourth.example"]


def test_a_reload_that_fails_changes_nothing(files: Files) -> None:
    config = files.config("server", "localhost")
    with listening(Recorder(), ssl=config) as listener:
        path = Path(files.path("server"))
        pem = path.read_bytes()
        key, certificate = pem.split(b"-----BEGIN CERTIFICATE-----", 1)
        other = authority().issue_cert("other.example").private_key_pem.bytes()
        wrong: list[tuple[bytes, str]] = [
            (b"", "cannot be used"),
            (key, "cannot be used"),
            (b"-----BEGIN CERTIFICATE-----" + certificate, "cannot be used"),
            (other + b"-----BEGIN CERTIFICATE-----" + certificate, "key values mismatch"),
        ]
        for content, text in wrong:
            path.write_bytes(content)
            with pytest.raises(ValueError, match=text):
                listener.reload_tls()
            assert shown(listener) == ["localhost"]
        path.unlink()
        with pytest.raises(FileNotFoundError, match=r"server\.pem"):
            listener.reload_tls()
        refused: list[tuple[Any, type[Exception]]] = [
            (syncws.TLSConfig(cert_file=str(path)), FileNotFoundError),
            (syncws.TLSConfig(), ValueError),
            (client_tls(), ValueError),
            ("cert.pem", TypeError),
            (False, TypeError),
        ]
        for given, error in refused:
            with pytest.raises(error):
                listener.reload_tls(given)
        assert shown(listener) == ["localhost"]
        # None of those was kept: the files of the first one are read.
        path.write_bytes(pem)
        listener.reload_tls()
        assert shown(listener) == ["localhost"]


def test_a_listener_without_tls_has_no_certificate_to_renew() -> None:
    listener = syncws.Listener(0)
    for config in (None, server_tls()):
        with pytest.raises(RuntimeError, match="has no TLS"):
            listener.reload_tls(config)


def test_certificates_are_renewed_whether_or_not_it_is_started(files: Files) -> None:
    listener = syncws.Listener(0, ssl=files.config("server", "one.example"))
    files.write("server", authority().issue_cert("two.example"))
    listener.reload_tls()
    for names in (["two.example"], ["three.example"]):
        with listener:
            assert shown(listener) == names
        files.write("server", authority().issue_cert("three.example"))
        listener.reload_tls()


def test_a_callback_renews_certificates(files: Files) -> None:
    class Renewing(Recorder):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            files.write("server", authority().issue_cert("localhost", text))
            listener.reload_tls()
            caller.send_text("done")

    with (
        listening(Renewing(), ssl=files.config("server", "localhost")) as listener,
        RawPeer.connect(listener, tls=True) as peer,
    ):
        peer.text("new.example")
        peer.expect(TEXT, "done")
        assert shown(listener) == ["localhost", "new.example"]


def test_clients_come_while_certificates_are_renewed(files: Files) -> None:
    names = [["localhost", f"{number}.example"] for number in range(2)]
    configs = [files.config(str(number), *both) for number, both in enumerate(names)]
    seen: list[list[str]] = []
    with listening(Recorder(), ssl=configs[0]) as listener:

        def renew() -> None:
            for number in range(30):
                listener.reload_tls(configs[number % 2])

        tasks = [Task(renew), Task(renew)]
        while any(task.is_alive() for task in tasks) or not seen:
            seen.append(shown(listener))
        for task in tasks:
            task.result()
        listener.reload_tls(configs[1])
        assert shown(listener) == names[1]
    assert all(both in names for both in seen)


def test_a_session_of_the_old_certificate_is_not_resumed(files: Files) -> None:
    context = trusting()
    service = Recorder()
    with listening(service, ssl=files.config("server", "old.example")) as listener:

        def connect(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
            sock = RawPeer.dial(listener).sock
            with context.wrap_socket(sock, server_hostname="x", session=session) as tls:
                peer = RawPeer(tls, client=True)
                peer.send_bytes(RawPeer.request())
                peer.read_head()  # tickets come before it
                return tls.session, tls.session_reused

        session, _ = connect(None)
        assert connect(session)[1], "sessions are resumed as a rule"
        files.write("server", authority().issue_cert("new.example"))
        listener.reload_tls()
        assert connect(session)[1] is False
        assert shown(listener) == ["new.example"]


# -- Renegotiation ---------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command")
@pytest.mark.parametrize("ours", [True, False], ids=["TLSConfig", "SSLContext"])
def test_a_client_cannot_begin_the_handshake_again(files: Files, ours: bool) -> None:
    service = ServerRecorder()
    config = files.config("server", "localhost") if ours else server_tls()
    with listening(service, ssl=config) as listener:
        address = f"127.0.0.1:{listener.port}"
        with subprocess.Popen(
            ["openssl", "s_client", "-connect", address, "-tls1_2", "-nbio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as client:
            try:
                assert client.stdin is not None
                assert client.stderr is not None
                client.stdin.write(RawPeer.request())
                client.stdin.flush()
                service.expect("on_open")
                # A line that begins with this letter is a command.
                client.stdin.write(b"R\n")
                client.stdin.flush()
                # It takes the refusal for a reason to go.
                service.expect("on_close", 1006, "")
                client.wait(HANG)
                said = client.stderr.read().decode()
            finally:
                client.kill()
        assert "RENEGOTIATING" in said
        assert "no renegotiation" in said
        with syncws.Client(f"wss://localhost:{listener.port}/", ssl=client_tls()):
            service.expect("on_open")


@both_roles
def test_what_came_before_the_end_is_not_lost_while_callbacks_are_slow(role: str) -> None:
    """Reading has paused, and the end stands right behind what could not be taken yet."""

    class Slow(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            if text == "0":
                gate.block()
            self.record("on_text", caller, text)

    service = Slow()
    masked = role == "server"
    context = context_for(role, Version.TLSv1_3)
    with Gate() as gate, end_of(role, service, context, receive_queue_size=2) as (_, tls, _):
        frames = [frame(TEXT, str(number).encode(), masked=masked) for number in range(1500)]
        whole = b"".join([*frames, frame(CLOSE, close_payload(4000), masked=masked)])
        tls.raw.sendall(tls.seal(whole) + tls.close_notify())
        tls.raw.shutdown(socket.SHUT_WR)
        gate.reached()
        service.quiet()
        gate.open()
        for number in range(1500):
            service.expect("on_text", str(number))
        service.expect("on_close", 4000, "")


# -- Updates of keys -----------------------------------------------------------------


@contextlib.contextmanager
def updating(listener: syncws.Listener, tmp_path: Path) -> Iterator[tuple[RawPeer, BareTLS, Keys]]:
    """A client that updates its keys; it must send by these alone."""
    context = client_tls.__wrapped__()
    context.keylog_filename = str(tmp_path / "keys")
    with RawPeer.dial(listener) as plain:
        tls = BareTLS(plain.sock, context)
        tls.handshake()
        keys = Keys(tmp_path / "keys")
        peer = tls.peer()
        tls.raw.sendall(keys.seal(RawPeer.request()))
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        yield peer, tls, keys


@pytest.mark.parametrize("ask", [False, True], ids=["its own", "both"])
def test_keys_are_updated_between_messages(tmp_path: Path, ask: bool) -> None:
    class Echo(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            caller.send_text(text)

    with (
        listening(Echo(), ssl=server_tls()) as listener,
        updating(listener, tmp_path) as (peer, tls, keys),
    ):
        for number in range(20):
            updates = b"".join(keys.update(ask) for _ in range(number))
            tls.raw.sendall(updates + keys.seal(frame(TEXT, b"%d" % number)))
            peer.expect(TEXT, str(number))


@pytest.mark.parametrize("ask", [False, True], ids=["its own", "both"])
def test_who_sends_nothing_but_updates_of_keys_is_dropped(tmp_path: Path, ask: bool) -> None:
    """There is no limit to them in TLS, and each costs this end more than the other."""
    service = ServerRecorder()
    with (
        listening(service, ssl=server_tls()) as listener,
        updating(listener, tmp_path) as (_, tls, keys),
        RawPeer.connect(listener, tls=True) as other,
    ):
        service.expect("on_open")
        service.expect("on_open")
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                tls.raw.sendall(b"".join(keys.update(ask) for _ in range(500)))
                other.round_trip()
        service.expect("on_close", 1006, "")
        other.text("hello")
        service.expect("on_text", "hello")
