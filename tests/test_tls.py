"""What every TLS context of ours has, and what one of the user's must have."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import syncws
from syncws.config import TLSConfig
from syncws.tls import check_context, make_context
from tests.support import RawServer, authority, client_tls, server_tls

PURPOSES = [ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH]
Version = ssl.TLSVersion


@pytest.fixture
def lax(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that allows, or demands, other versions than Python does."""
    create = ssl.create_default_context

    def created(*args: Any, **options: Any) -> ssl.SSLContext:
        context = create(*args, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = Version.TLSv1
        context.options &= ~ssl.OP_NO_COMPRESSION
        return context

    monkeypatch.setattr(ssl, "create_default_context", created)


@pytest.mark.parametrize("purpose", PURPOSES, ids=["listener", "client"])
@pytest.mark.usefixtures("lax")
def test_ours_are_strict_whatever_the_system_allows(purpose: ssl.Purpose) -> None:
    context = make_context(purpose)
    assert context.minimum_version is Version.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_what_the_system_demands_beyond_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    strict.minimum_version = Version.TLSv1_3
    monkeypatch.setattr(ssl, "create_default_context", lambda *args, **options: strict)
    assert make_context(ssl.Purpose.SERVER_AUTH).minimum_version is Version.TLSv1_3


@pytest.mark.usefixtures("lax")
def test_the_contexts_of_a_tls_config_are_ours(tmp_path: Path) -> None:
    cert = str(tmp_path / "cert.pem")
    authority().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(cert)
    config = TLSConfig(cert_file=cert)
    for context in (config.server_context(), config.client_context()):
        assert context.minimum_version is Version.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION


def made(protocol: Any, minimum: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return a user's context."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ssl.SSLContext(protocol)
        if minimum is not None:
            context.minimum_version = minimum
    return context


Protocols = (ssl.PROTOCOL_TLS, ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)


@pytest.mark.parametrize("protocol", Protocols)
@pytest.mark.parametrize("minimum", [None, Version.TLSv1_2, Version.TLSv1_3])
def test_contexts_that_are_right(protocol: Any, minimum: ssl.TLSVersion | None) -> None:
    context = made(protocol, minimum)
    assert check_context(context) is context


@pytest.mark.parametrize("protocol", Protocols)
@pytest.mark.parametrize("minimum", [Version.MINIMUM_SUPPORTED, Version.TLSv1, Version.TLSv1_1])
def test_contexts_that_allow_less(protocol: Any, minimum: ssl.TLSVersion) -> None:
    context = made(protocol, minimum)
    with pytest.raises(ValueError, match=r"minimum_version = ssl\.TLSVersion\.TLSv1_2"):
        check_context(context)
    assert context.minimum_version == minimum  # it is the user's
    context.minimum_version = Version.TLSv1_2  # as the error says
    check_context(context)


def test_contexts_for_one_version_only() -> None:
    for name in ("PROTOCOL_TLSv1", "PROTOCOL_TLSv1_1"):
        if hasattr(ssl, name):
            with pytest.raises(ValueError, match=r"ssl\.create_default_context\(\)"):
                check_context(made(getattr(ssl, name)))
    if hasattr(ssl, "PROTOCOL_TLSv1_2"):
        check_context(made(ssl.PROTOCOL_TLSv1_2))


def lowered(make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = Version.TLSv1_1
    return context


def test_a_listener_refuses_them() -> None:
    # Not the shared one: `server_tls` keeps what it returns.
    context = lowered(server_tls.__wrapped__)
    with pytest.raises(ValueError, match=r"before TLS 1\.2"):
        syncws.Listener(0, ssl=context)


def test_a_client_refuses_them_before_it_connects() -> None:
    context = lowered(client_tls.__wrapped__)
    with RawServer() as server:
        url = f"wss://localhost:{server.port}/"
        with pytest.raises(ValueError, match=r"before TLS 1\.2"):
            syncws.Client(url, ssl=context)
        with pytest.raises(ValueError, match=r"before TLS 1\.2"):
            syncws.FailoverClient([url], ssl=context)
        server.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.sock.accept()
