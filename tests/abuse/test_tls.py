"""Certificates that are not the server's: refused at first, on retry and on failover alike."""

from __future__ import annotations

import datetime
import functools
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import syncws
from tests.abuse.hostile import beside, nobody_waits
from tests.abuse.watch import watched
from tests.proxying import TUNNEL
from tests.support import HANG, TEXT, RawPeer, RawServer, Task, authority, client_tls, server_tls

_DAY = datetime.timedelta(days=1)


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


def _self_signed(tmp: Any) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp / "self-signed.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


@functools.cache
def _stranger() -> trustme.CA:
    return trustme.CA()


_KINDS = [
    "wrong host",
    "a parent's name",
    "expired",
    "not yet valid",
    "self-signed",
    "a stranger's",
]


@pytest.fixture(params=_KINDS)
def bad_tls(request: pytest.FixtureRequest, tmp_path: Any) -> ssl.SSLContext:
    """The context of a server that is not who it should be."""
    now = datetime.datetime.now(datetime.timezone.utc)
    kind: str = request.param
    if kind == "wrong host":
        return _context(authority().issue_cert("other.example", "127.0.0.2"))
    if kind == "a parent's name":
        return _context(authority().issue_cert("*.localhost", "localhost.example"))
    if kind == "expired":
        past: dict[str, Any] = {"not_before": now - 3 * _DAY, "not_after": now - _DAY}
        return _context(authority().issue_cert("localhost", **past))
    if kind == "not yet valid":
        future: dict[str, Any] = {"not_before": now + _DAY, "not_after": now + 3 * _DAY}
        return _context(authority().issue_cert("localhost", **future))
    if kind == "self-signed":
        return _self_signed(tmp_path)
    return _context(_stranger().issue_cert("localhost"))


@contextmanager
def impostor(context: ssl.SSLContext) -> Iterator[RawServer]:
    """A server whose certificate is wrong; its URL is that of a right one."""
    with RawServer() as server:
        server.url = f"wss://user:password@localhost:{server.port}/"
        yield server


def heard(server: RawServer, context: ssl.SSLContext) -> bytes:
    """Serve one client; return what it says after TLS, if it comes so far."""
    with server.accept() as peer:
        try:
            peer.sock = context.wrap_socket(peer.sock, server_side=True)
            return peer.sock.recv(65_536)
        except (ssl.SSLError, ConnectionError):
            return b""


_SECRETS: dict[str, Any] = {
    "cookies": {"session": "secret"},
    "headers": {"X-Token": "secret"},
}


def test_a_right_certificate_is_taken() -> None:
    with impostor(server_tls()) as server:
        opening = server.open_client(ssl=client_tls())
        assert heard(server, server_tls()).startswith(b"GET / ")
        assert isinstance(opening.error(), syncws.HandshakeError)


@pytest.mark.parametrize("given", ["context", "files", "system"])
def test_a_wrong_certificate(bad_tls: ssl.SSLContext, given: str, tmp_path: Any) -> None:
    tls: Any = {"context": client_tls(), "system": None}.get(given)
    if given == "files":
        authority().cert_pem.write_to_path(tmp_path / "ca.pem")
        tls = syncws.TLSConfig(ca_file=tmp_path / "ca.pem")
    with beside() as others, watched(), impostor(bad_tls) as server:
        opening = server.open_client(ssl=tls, **_SECRETS)
        assert heard(server, bad_tls) == b""
        assert isinstance(opening.error(), syncws.TLSError)
        others.served()
        assert nobody_waits(server)


@pytest.mark.parametrize("again", [False, True], ids=["once", "with retries"])
def test_a_wrong_certificate_through_a_proxy(bad_tls: ssl.SSLContext, again: bool) -> None:
    """The proxy leads to somebody else, or is that itself."""
    retry = syncws.RetryConfig(max_count=3, interval=0.0) if again else None
    with beside() as others, watched(), impostor(bad_tls) as server:
        proxy = f"http://127.0.0.1:{server.port}"
        opening = server.open_client(ssl=client_tls(), proxy=proxy, retry=retry, **_SECRETS)
        with server.accept() as peer:
            assert b"secret" not in peer.read_head()
            peer.send_bytes(TUNNEL)
            with suppress(ssl.SSLError, ConnectionError):
                peer.sock = bad_tls.wrap_socket(peer.sock, server_side=True)
                assert peer.sock.recv(65_536) == b""
        assert isinstance(opening.error(), syncws.TLSError)
        others.served()
        assert nobody_waits(server)


def test_a_wrong_certificate_of_a_proxy(bad_tls: ssl.SSLContext) -> None:
    retry = syncws.RetryConfig(max_count=3, interval=0.0)
    with beside() as others, watched(), impostor(bad_tls) as server:
        opening = server.open_client(
            ssl=client_tls(),
            proxy=f"https://ann:secret@localhost:{server.port}",
            proxy_ssl=client_tls(),
            retry=retry,
            **_SECRETS,
        )
        assert heard(server, bad_tls) == b""
        assert isinstance(opening.error(), syncws.TLSError)
        others.served()
        assert nobody_waits(server)


def reasons(error: BaseException | None) -> list[type[BaseException]]:
    """Return what the attempts of a client that has given up failed with."""
    assert isinstance(error, syncws.RetriesExhausted), error
    return [type(reason) for _, reason in error.reasons]


def test_a_wrong_certificate_is_not_tried_again(bad_tls: ssl.SSLContext) -> None:
    again = syncws.RetryConfig(max_count=3, interval=0.0)
    with beside() as others, watched(), impostor(bad_tls) as server:
        opening = server.open_client(ssl=client_tls(), retry=again, **_SECRETS)
        assert heard(server, bad_tls) == b""
        assert isinstance(opening.error(), syncws.TLSError)
        others.served()
        assert nobody_waits(server)


def accept_well(server: RawServer) -> RawPeer:
    """Serve one client as an honest server would; return this end of it."""
    peer = server.accept()
    peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
    peer.answer()
    return peer


def test_a_wrong_certificate_after_a_loss(bad_tls: ssl.SSLContext) -> None:
    again = syncws.RetryConfig(max_count=3, interval=0.0, jitter=0.0)
    with beside() as others, watched(), impostor(bad_tls) as server:
        opening = server.open_client(ssl=client_tls(), retry=again, **_SECRETS)
        with accept_well(server):
            client = opening.result()
        # Lost; and somebody else has the address now.
        assert heard(server, bad_tls) == b""
        with pytest.raises(syncws.ConnectionClosed) as caught:
            client.receive(timeout=HANG)
        assert isinstance(caught.value.__cause__, syncws.TLSError)
        others.served()
        assert nobody_waits(server)
        client.close()


def fail_over(*servers: RawServer) -> Task:
    """Open a client that has these addresses."""
    return Task(
        syncws.FailoverClient,
        [server.url for server in servers],
        ssl=client_tls(),
        failover_interval=0.0,
        **_SECRETS,
    )


def test_wrong_certificates_on_failover(bad_tls: ssl.SSLContext) -> None:
    with beside() as others, watched(), impostor(bad_tls) as one, impostor(bad_tls) as other:
        opening = fail_over(one, other)
        assert heard(one, bad_tls) == b""
        assert heard(other, bad_tls) == b""
        assert reasons(opening.error()) == [syncws.TLSError, syncws.TLSError]
        others.served()
        assert nobody_waits(one)
        assert nobody_waits(other)


def test_failover_goes_past_a_wrong_certificate(bad_tls: ssl.SSLContext) -> None:
    with beside() as others, watched(), impostor(bad_tls) as one, impostor(bad_tls) as honest:
        opening = fail_over(one, honest)
        assert heard(one, bad_tls) == b""
        with accept_well(honest) as peer, opening.result() as client:
            client.send_text("hello")
            peer.expect(TEXT, "hello")
            others.served()
            # Lost: the impostor's turn again, which is over at once.
            peer.abort()
            assert heard(one, bad_tls) == b""
            with accept_well(honest) as again:
                again.text("back")
                assert client.receive(timeout=HANG) == "back"
                again.close_frame()
                again.expect_close()
                again.abort()
