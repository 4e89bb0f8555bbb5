"""TLS for the session."""

from __future__ import annotations

import ssl

import pytest

from tests import support


@pytest.fixture(scope="session")
def server_tls() -> ssl.SSLContext:
    """A server's context for localhost and 127.0.0.1."""
    return support.server_tls()


@pytest.fixture(scope="session")
def client_tls() -> ssl.SSLContext:
    """A client's context that trusts the authority of `server_tls` only."""
    return support.client_tls()
