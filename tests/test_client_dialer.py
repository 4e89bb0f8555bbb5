"""One address with all that it takes: TLS settings, and the cookies of the handshake."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

import syncws
from syncws.client.certificates import tls_context
from syncws.client.cookies import CookieStore
from syncws.client.dialer import Dialer
from syncws.config import ClientConfig, TLSConfig
from tests.support import RawPeer, RawServer, Task, authority, client_tls, server_tls


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as raw:
        yield raw


# -- TLS settings ------------------------------------------------------------


class Files(NamedTuple):
    """Files in PEM of an authority, and of a certificate of a client that comes from it."""

    ca: Path
    both: Path
    cert: Path
    key: Path
    encrypted: Path  # the key, with the password "secret"
    other_key: Path
    empty: Path
    missing: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    from cryptography.hazmat.primitives import serialization

    folder = tmp_path_factory.mktemp("tls")
    made = Files(*(folder / f"{name}.pem" for name in Files._fields))
    authority().cert_pem.write_to_path(str(made.ca))
    issued = authority().issue_cert("client@some.example")
    issued.private_key_and_cert_chain_pem.write_to_path(str(made.both))
    issued.cert_chain_pems[0].write_to_path(str(made.cert))
    issued.private_key_pem.write_to_path(str(made.key))
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    made.encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    authority().issue_cert("other.example").private_key_pem.write_to_path(str(made.other_key))
    made.empty.write_bytes(b"")
    return made


def test_what_a_client_can_be_given_as_ssl() -> None:
    assert tls_context(None) is None
    context = client_tls()
    assert tls_context(context) is context
    made = tls_context(TLSConfig())
    assert made is not None
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname


@pytest.mark.parametrize("given", [True, "ca.pem", {"ca_file": "x"}, TLSConfig])
def test_what_a_client_cannot_be_given_as_ssl(given: Any) -> None:
    with pytest.raises(TypeError, match=r"a syncws\.TLSConfig, an ssl\.SSLContext or None, not"):
        tls_context(given)


def test_a_servers_context() -> None:
    with pytest.raises(ValueError, match="server's context"):
        tls_context(server_tls())


def test_an_authority_of_its_own(files: Files) -> None:
    for path in (files.ca, str(files.ca)):
        context = tls_context(TLSConfig(ca_file=path))
        assert context is not None
        assert len(context.get_ca_certs()) == 1  # and none of the system's
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname


def test_verification_goes_by_the_explicit_flag_only(files: Files) -> None:
    context = tls_context(TLSConfig(verify=False))
    assert context is not None
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname
    mine = tls_context(TLSConfig(cert_file=files.both))
    assert mine is not None
    assert mine.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    "options",
    [
        {"cert_file": "both"},
        {"cert_file": "cert", "key_file": "key"},
        {"cert_file": "cert", "key_file": "encrypted", "password": "secret"},
        {"cert_file": "both", "verify": False},
        {"cert_file": "both", "ca_file": "ca"},
    ],
    ids=str,
)
def test_certificates_that_are_right(files: Files, options: dict[str, Any]) -> None:
    assert tls_context(configured(files, options)) is not None


def configured(files: Files, options: dict[str, Any]) -> TLSConfig:
    return TLSConfig(
        **{
            name: getattr(files, value) if name.endswith("_file") else value
            for name, value in options.items()
        }
    )


@pytest.mark.parametrize(
    "options",
    [
        {"ca_file": "missing"},
        {"cert_file": "missing"},
        {"cert_file": "cert", "key_file": "missing"},
        {"cert_file": "missing", "key_file": "key"},
    ],
    ids=str,
)
def test_a_file_that_is_missing_is_named(files: Files, options: dict[str, Any]) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        tls_context(configured(files, options))
    assert str(files.missing) in str(caught.value)
    for path in (files.cert, files.key):
        assert str(path) not in str(caught.value)


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_a_folder_is_no_file(files: Files, name: str) -> None:
    with pytest.raises(OSError) as caught:
        tls_context(TLSConfig(**{name: files.ca.parent}))
    assert str(files.ca.parent) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ca_file": "empty"}, "ca_file"),
        ({"ca_file": "key"}, "ca_file"),
        ({"cert_file": "empty"}, "cert_file"),
        ({"cert_file": "cert"}, "cert_file"),
        ({"cert_file": "ca", "key_file": "key"}, "key values mismatch"),
        ({"cert_file": "cert", "key_file": "other_key"}, "key values mismatch"),
        ({"cert_file": "cert", "key_file": "cert"}, "key_file"),
        ({"cert_file": "cert", "key_file": "encrypted"}, "password"),
        ({"cert_file": "cert", "key_file": "encrypted", "password": "Secret"}, "password"),
    ],
    ids=str,
)
def test_files_that_are_wrong(files: Files, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="cannot be used") as caught:
        tls_context(configured(files, options))
    assert text in str(caught.value)
    assert "Secret" not in str(caught.value)


def test_wrong_files_are_refused_before_anything_is_sent(files: Files, server: RawServer) -> None:
    url = f"wss://127.0.0.1:{server.port}/"
    with pytest.raises(FileNotFoundError):
        syncws.Client(url, ssl=TLSConfig(ca_file=files.missing))
    with pytest.raises(ValueError, match="write wss:// for TLS"):
        syncws.Client(server.url, ssl=TLSConfig(verify=False))
    server.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.sock.accept()


def served(
    server: RawServer, context: ssl.SSLContext, config: TLSConfig, **options: Any
) -> tuple[Task, RawPeer]:
    """Begin to open a client, and do the server's part of TLS."""
    url = f"wss://localhost:{server.port}/"
    opening = Task(syncws.Client, url, ssl=config, **options)
    peer = server.accept()
    try:
        peer.sock = context.wrap_socket(peer.sock, server_side=True)
    except BaseException:
        peer.abort()
        raise
    return opening, peer


def demanding() -> ssl.SSLContext:
    """A server's context that demands a certificate of the client."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("localhost").configure_cert(context)
    authority().configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_client_with_a_certificate(files: Files, server: RawServer) -> None:
    config = TLSConfig(ca_file=files.ca, cert_file=files.cert, key_file=files.key)
    opening, peer = served(server, demanding(), config)
    with peer:
        peer.answer()
        assert isinstance(peer.sock, ssl.SSLSocket)
        assert peer.sock.getpeercert()
        with opening.result() as client:
            assert client.is_secure
            peer.abort()


@pytest.mark.parametrize("retry", [None, syncws.RetryConfig(interval=0)], ids=["once", "retrying"])
def test_a_client_whose_certificate_is_missing_is_refused_for_good(
    files: Files, server: RawServer, retry: syncws.RetryConfig | None
) -> None:
    context = demanding()
    opening = Task(
        syncws.Client,
        f"wss://localhost:{server.port}/",
        ssl=TLSConfig(ca_file=files.ca),
        retry=retry,
    )
    with server.accept() as peer:
        with pytest.raises(ssl.SSLError):
            # Its end is not sent before the client has its alert.
            context.wrap_socket(peer.sock.dup(), server_side=True).close()
        error = opening.error()
    assert isinstance(error, syncws.TLSError)
    assert isinstance(error.__cause__, ssl.SSLError)
    assert "CERTIFICATE_REQUIRED" in str(error.__cause__)


def test_whoever_answers_is_talked_to_without_verification(server: RawServer) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("other.example").configure_cert(context)
    opening, peer = served(server, context, TLSConfig(verify=False))
    with peer:
        peer.answer()
        with opening.result() as client:
            assert client.is_secure
            peer.abort()


@pytest.mark.parametrize("retry", [None, syncws.RetryConfig(interval=0)], ids=["once", "retrying"])
def test_a_certificate_that_is_refused_is_refused_for_good(
    server: RawServer, retry: syncws.RetryConfig | None
) -> None:
    opening = Task(syncws.Client, f"wss://localhost:{server.port}/", ssl=TLSConfig(), retry=retry)
    with server.accept() as peer:
        with pytest.raises(OSError):
            peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
            peer.sock.recv(1)
            raise OSError("the client went")
        peer.abort()
    error = opening.error()
    assert isinstance(error, syncws.TLSError)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


# -- Cookies -----------------------------------------------------------------


def dialer_to(server: RawServer, cookies: CookieStore, path: str = "/", **options: Any) -> Dialer:
    url = f"ws://127.0.0.1:{server.port}{path}"
    return Dialer(url, ClientConfig(**options), None, None, cookies)


def dialed(server: RawServer, dialer: Dialer, serve: Callable[[RawPeer], None]) -> Any:
    """Return what came of an attempt, and the fields of its request."""
    dialing = Task(dialer.dial)
    with server.accept() as peer:
        serve(peer)
        try:
            dialing.result().transport.close()
        except syncws.ConnectError as exc:
            return exc, fields_of(peer)
    return None, fields_of(peer)


def fields_of(peer: RawPeer) -> list[tuple[str, str]]:
    lines = peer.head.decode("latin-1").split("\r\n")[1:]
    return [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]


def cookies_in(fields: list[tuple[str, str]]) -> list[str]:
    return [value for name, value in fields if name == "cookie"]


def test_cookies_are_one_header(server: RawServer) -> None:
    store = CookieStore({"a": "1", "b": "2"})
    _, fields = dialed(server, dialer_to(server, store), RawPeer.answer)
    (value,) = cookies_in(fields)
    assert sorted(value.split("; ")) == ["a=1", "b=2"]


def test_no_cookies_no_header(server: RawServer) -> None:
    _, fields = dialed(server, dialer_to(server, CookieStore()), RawPeer.answer)
    assert cookies_in(fields) == []


@pytest.mark.parametrize("name", ["Cookie", "cookie", "COOKIE"])
def test_a_cookie_header_by_hand_is_sent_in_place_of_all(server: RawServer, name: str) -> None:
    store = CookieStore({"a": "1"})
    dialer = dialer_to(server, store, headers=((name, "mine=x"), ("X-Other", "y")))
    for _ in range(2):
        _, fields = dialed(server, dialer, lambda peer: peer.answer("Set-Cookie: b=2"))
        assert cookies_in(fields) == ["mine=x"]
        assert ("x-other", "y") in fields
    assert {cookie.name for cookie in store.jar} == {"a", "b"}


def test_what_a_response_sets_is_sent_from_then_on(server: RawServer) -> None:
    store = CookieStore()
    dialer = dialer_to(server, store)
    _, fields = dialed(
        server, dialer, lambda peer: peer.answer("Set-Cookie: a=1; Path=/", "Set-Cookie: b=2")
    )
    assert cookies_in(fields) == []
    _, fields = dialed(server, dialer, RawPeer.answer)
    assert sorted(cookies_in(fields)[0].split("; ")) == ["a=1", "b=2"]


@pytest.mark.parametrize("status", [401, 403, 503, 302])
def test_what_a_refusal_sets_is_kept(server: RawServer, status: int) -> None:
    store = CookieStore()
    dialer = dialer_to(server, store)

    def refuse(peer: RawPeer) -> None:
        peer.read_head()
        peer.send_bytes(
            f"HTTP/1.1 {status} No\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\n\r\nno".encode()
        )

    error, _ = dialed(server, dialer, refuse)
    assert isinstance(error, syncws.HandshakeRejected)
    assert (error.status, error.headers["set-cookie"], error.body) == (status, "a=1", b"no")
    _, fields = dialed(server, dialer, RawPeer.answer)
    assert cookies_in(fields) == ["a=1"]


def test_cookies_go_by_the_addresses(server: RawServer) -> None:
    store = CookieStore()
    first, second = dialer_to(server, store, "/first/x"), dialer_to(server, store, "/second/x")
    dialed(
        server, first, lambda peer: peer.answer("Set-Cookie: here=1", "Set-Cookie: all=2;Path=/")
    )
    _, fields = dialed(server, second, RawPeer.answer)
    assert cookies_in(fields) == ["all=2"]


# -- The address -------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://user:secret@app.example/a?b=c", "ws://app.example/a?b=c"),
        ("wss://app.example", "wss://app.example/"),
        ("ws://[::1]:8080/", "ws://[::1]:8080/"),
    ],
)
def test_the_address_is_shown_without_credentials(url: str, shown: str) -> None:
    assert Dialer(url, ClientConfig(), None, None, CookieStore()).url == shown


def test_tls_settings_without_tls() -> None:
    with pytest.raises(ValueError, match="write wss:// for TLS"):
        Dialer("ws://app.example/", ClientConfig(), client_tls(), None, CookieStore())


def test_a_connection_that_is_lost_at_once_leaves_no_socket(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(sock: object) -> None:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr("syncws.client.dialer.peer_addresses", lost)
    dialing = Task(dialer_to(server, CookieStore()).dial)
    with server.accept() as peer:
        peer.answer()
        assert "right after the handshake" in str(dialing.error())
        peer.expect_end()
