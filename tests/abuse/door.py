"""A listener whose door is tried: what is answered, and who is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import syncws
from tests.abuse.hostile import beside, everything
from tests.abuse.watch import watched
from tests.support import RawPeer, ServerRecorder

__all__ = ["SECRET", "App", "Door", "door", "with_and_without_app"]

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [0-9]{3} ")

SECRET = b"GET /secret HTTP/1.1\r\nHost: localhost\r\n\r\n"


class App:
    """A WSGI application that notes what it is asked for."""

    def __init__(self) -> None:
        self.environs: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.environs.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    @property
    def paths(self) -> list[str]:
        """The paths that it was asked for."""
        return [environ["PATH_INFO"] for environ in self.environs]


class Door:
    """A listener whose door is tried."""

    def __init__(self, listener: syncws.Listener, service: ServerRecorder, app: App | None) -> None:
        self.listener = listener
        self.service = service
        self.app = app

    def answer(self, request: bytes, later: bytes = b"") -> tuple[int, bytes]:
        """Return the status of the only answer to a request, and all of it.

        Args:
            request: What is sent.
            later: What is sent once there is an answer.
        """
        with RawPeer.dial(self.listener) as peer:
            peer.send_bytes(request)
            head = peer.read_head()
            if later:
                with suppress(ConnectionError):
                    peer.send_bytes(later)
            rest = peer._buffer + everything(peer)
        assert not _STATUS_LINE.search(rest), rest
        return int(head.split()[1]), head + rest

    def status(self, *headers: str, host: str | None = None, path: str = "/") -> int:
        """Return the status of the answer to a handshake; 101 comes with an open connection."""
        with RawPeer.dial(self.listener) as peer:
            host = host or f"127.0.0.1:{self.listener.port}"
            peer.send_bytes(RawPeer.request(path, *headers, host=host))
            status = int(peer.read_head().split()[1])
            if status == 101:
                peer.finish()
                self.service.expect("on_open")
                self.service.expect("on_close")
        assert self.service.calls.empty()
        return status

    def stayed_shut(self) -> None:
        """Assert that neither the service nor the application was asked."""
        assert self.service.calls.empty()
        assert self.app is None or self.app.paths == []


@contextmanager
def door(
    *, app: bool = False, peak: int | None = None, config: Any = None, **options: Any
) -> Iterator[Door]:
    """A listener that is attacked before there is a connection; nothing is left of it."""
    service = ServerRecorder(config or syncws.ServiceConfig(ping_interval=None))
    application = App() if app else None
    with beside(app=application, **options) as others:
        others.listener.attach("/", service)
        with watched(peak=peak):
            yield Door(others.listener, service, application)
            others.served()


with_and_without_app = pytest.mark.parametrize("app", [False, True], ids=["alone", "with an app"])
