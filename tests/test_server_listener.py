"""A listener's arguments, and what it does before it starts."""

from __future__ import annotations

import queue
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import syncws
from syncws.engine.connection import Connection
from tests.support import (
    RawPeer,
    Recorder,
    ServerRecorder,
    authority,
    client_tls,
    listening,
)

CONFIG = syncws.ServiceConfig(ping_interval=None)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, TypeError, "needs a port, 0 for a free one, a unix_path or sockets"),
        ({"port": "80"}, TypeError, "port must be an int, not '80'"),
        ({"port": True}, TypeError, "port must be an int, not True"),
        ({"port": 80.0}, TypeError, "port must be an int"),
        ({"port": -1}, ValueError, "port must be between 0 and 65535, not -1"),
        ({"port": 65_536}, ValueError, "between 0 and 65535, not 65536"),
        ({"port": 0, "unix_path": "/x"}, ValueError, "not both: 0 and '/x'"),
        ({"unix_path": 3}, TypeError, "PathLike"),
        ({"port": 0, "host": None}, TypeError, "host must be a str"),
        ({"port": 0, "host": b"x"}, TypeError, "host must be a str"),
        ({"port": 0, "ssl": True}, TypeError, r"an ssl\.SSLContext or None, not True"),
        ({"port": 0, "engine": 3}, TypeError, r"engine must be a syncws\.Engine or None, not 3"),
        ({"port": 0, "handshake_timeout": "1"}, TypeError, "handshake_timeout"),
        ({"port": 0, "handshake_timeout": -1}, ValueError, "handshake_timeout"),
        ({"port": 0, "handshake_timeout": float("inf")}, ValueError, "handshake_timeout"),
        ({"port": 0, "max_handshake_size": "1"}, TypeError, "max_handshake_size"),
        ({"port": 0, "max_handshake_size": None}, TypeError, "max_handshake_size"),
        ({"port": 0, "max_handshake_size": 0}, ValueError, "max_handshake_size"),
        ({"port": 0, "backlog": "1"}, TypeError, "backlog"),
        ({"port": 0, "backlog": 0}, ValueError, "backlog"),
        ({"port": 0, "unknown": 1}, TypeError, "unknown"),
        ({"port": 0, "trusted_proxies": "127.0.0.1"}, TypeError, r"write \['127\.0\.0\.1'\]"),
        ({"port": 0, "trusted_proxies": ["localhost"]}, ValueError, r"write '127\.0\.0\.1'"),
        ({"port": 0, "trusted_proxies": None}, TypeError, "trusted_proxies must be a list"),
        ({"port": 0, "forwarded_headers": ["X-Real-IP"]}, ValueError, "it may have Forwarded"),
        ({"port": 0, "forwarded_headers": None}, TypeError, "forwarded_headers must be a list"),
        ({"port": 0, "proxy_protocol": True}, ValueError, "proxy_protocol needs trusted_proxies"),
        (
            {"port": 0, "proxy_protocol": "v2", "trusted_proxies": ["::1"]},
            TypeError,
            "proxy_protocol must be True or False, not 'v2'",
        ),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        syncws.Listener(**options)


def test_what_there_is_before_it_starts(tmp_path: Path) -> None:
    listener = syncws.Listener(8080)
    assert listener.port == 8080
    assert listener.addresses == []
    assert repr(listener) == "<syncws.Listener 127.0.0.1, not started>"
    unix = syncws.Listener(unix_path=tmp_path / "socket")
    assert unix.port is None
    assert str(tmp_path) in repr(unix)
    assert not (tmp_path / "socket").exists()
    listener.stop()


def test_a_wrong_service_is_refused_when_it_is_attached() -> None:
    class Wrong(syncws.Service):
        def on_txt(self, caller: Any, text: str) -> None: ...

    listener = syncws.Listener(0)
    with pytest.raises(TypeError, match="did you mean on_text"):
        listener.attach("/", Wrong())
    with pytest.raises(TypeError, match="a service is"):
        listener.attach("/", object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="slash"):
        listener.attach("chat", Recorder())
    listener.attach("/", Recorder())
    with pytest.raises(ValueError, match="has a service already"):
        listener.attach("/", Recorder())
    listener.detach("/")
    with pytest.raises(ValueError, match="is not attached"):
        listener.detach("/")


@pytest.mark.parametrize("value", ["1", -1, None])
def test_serve_forever_checks_its_timeout_before_it_listens(value: Any) -> None:
    listener = syncws.Listener(0)
    with pytest.raises((TypeError, ValueError), match="timeout"):
        listener.serve_forever(value)
    assert listener.addresses == []


def test_the_handlers_exception_leaves_the_with_block() -> None:
    with pytest.raises(KeyError), syncws.Listener(0) as listener:
        raise KeyError
    assert listener.addresses == []


@pytest.mark.parametrize(
    ("offer", "chosen"),
    [
        ((), None),
        (("Sec-WebSocket-Protocol: json",), "json"),
        (("Sec-WebSocket-Protocol: json, xml",), "xml"),  # the service's order counts
        (("Sec-WebSocket-Protocol: json", "Sec-WebSocket-Protocol: xml"), "xml"),
        (("Sec-WebSocket-Protocol: JSON, other",), None),
    ],
)
def test_the_subprotocol(offer: tuple[str, ...], chosen: str | None) -> None:
    service = ServerRecorder(syncws.ServiceConfig(subprotocols=("xml", "json")))
    with listening(service) as listener, RawPeer.connect(listener, "/", *offer) as peer:
        assert service.expect("on_open").subprotocol == chosen
        assert (b"sec-websocket-protocol" in peer.head.lower()) is (chosen is not None)


@pytest.mark.parametrize("compression", [True, False])
def test_compression_is_agreed_on_if_the_service_wants_it(compression: bool) -> None:
    service = ServerRecorder(syncws.ServiceConfig(compression=compression))
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    with listening(service) as listener, RawPeer.connect(listener, "/", offer) as peer:
        service.expect("on_open")
        assert (b"permessage-deflate" in peer.head) is compression


def test_compression_is_not_forced_on_a_client() -> None:
    service = ServerRecorder(CONFIG)
    with listening(service) as listener, RawPeer.connect(listener) as peer:
        caller = service.expect("on_open")
        assert b"Extensions" not in peer.head
        caller.send_text("x" * 1000)
        frame = peer.read()
        assert (frame.rsv, frame.payload) == (0, b"x" * 1000)


@pytest.mark.parametrize("error", [ssl.SSLError("no"), ValueError("no")])
def test_a_socket_that_cannot_be_wrapped_is_closed(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    class Refusing(ssl.SSLContext):
        def wrap_bio(self, *args: Any, **options: Any) -> Any:
            raise error

    with (
        listening(Recorder(), ssl=Refusing(ssl.PROTOCOL_TLS_SERVER)) as listener,
        RawPeer.dial(listener) as peer,
    ):
        peer.expect_end()
    assert caplog.records == []


@pytest.mark.parametrize("context", [ssl.create_default_context, client_tls])
def test_a_clients_tls_context_is_refused(context: Callable[[], ssl.SSLContext]) -> None:
    with pytest.raises(ValueError, match=r"client's context.*Purpose\.CLIENT_AUTH"):
        syncws.Listener(0, ssl=context())


def test_config_is_read_when_it_is_attached() -> None:
    reads: list[str] = []

    class Configured(ServerRecorder):
        @property
        def config(self) -> syncws.ServiceConfig:  # type: ignore[override]
            reads.append(threading.current_thread().name)
            return CONFIG

    service = Configured()
    with listening(service) as listener:
        for _ in range(2):
            with RawPeer.connect(listener) as peer:
                peer.round_trip()
    assert reads == [threading.current_thread().name]


def test_a_connection_that_cannot_be_started_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("broken")

    service = ServerRecorder(CONFIG)
    with listening(service) as listener:
        with monkeypatch.context() as patch, RawPeer.dial(listener) as peer:
            patch.setattr(Connection, "start", broken)
            peer.send_bytes(RawPeer.request())
            peer.expect_end()
        service.expect("on_close", 1006, "")
        with RawPeer.connect(listener) as peer:
            peer.round_trip()
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [RuntimeError]


def test_a_client_that_resets_at_once_does_no_harm() -> None:
    service = ServerRecorder(CONFIG)
    with listening(service) as listener:
        for _ in range(20):
            peer = RawPeer.dial(listener)
            peer.send_bytes(RawPeer.request())
            peer.reset()
        with RawPeer.connect(listener) as peer:
            peer.round_trip()


def test_an_application_must_not_be_async() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    class Application:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    for wrong in (app, Application()):
        with pytest.raises(TypeError, match="app must be a WSGI application, not async"):
            syncws.Listener(0, app=wrong)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A server's certificate and key, a client's, and the authority's, as files."""
    found = {"ca_file": str(tmp_path / "ca.pem")}
    authority().cert_pem.write_to_path(found["ca_file"])
    for name in ("server", "client"):
        certificate = authority().issue_cert("localhost")
        found[f"{name}_cert"] = str(tmp_path / f"{name}.pem")
        found[f"{name}_key"] = str(tmp_path / f"{name}.key")
        for number, blob in enumerate(certificate.cert_chain_pems):
            blob.write_to_path(found[f"{name}_cert"], append=number > 0)
        certificate.private_key_pem.write_to_path(found[f"{name}_key"])
    return found


def test_a_listener_takes_certificates_as_files(files: dict[str, str]) -> None:
    tls = syncws.TLSConfig(cert_file=files["server_cert"], key_file=files["server_key"])
    service = ServerRecorder()
    with listening(service, ssl=tls) as listener:
        trust = syncws.TLSConfig(ca_file=files["ca_file"])
        with syncws.Client(f"wss://localhost:{listener.port}/", ssl=trust) as client:
            assert client.is_secure
            client.send_text("hello")
            service.expect("on_open")
            service.expect("on_text", "hello")


def test_a_listener_may_want_certificates_of_clients(files: dict[str, str]) -> None:
    tls = syncws.TLSConfig(
        ca_file=files["ca_file"], cert_file=files["server_cert"], key_file=files["server_key"]
    )
    service = ServerRecorder()
    with listening(service, ssl=tls) as listener:
        url = f"wss://localhost:{listener.port}/"
        with pytest.raises(syncws.ConnectError):
            syncws.Client(url, ssl=syncws.TLSConfig(ca_file=files["ca_file"]))
        own = syncws.TLSConfig(
            ca_file=files["ca_file"], cert_file=files["client_cert"], key_file=files["client_key"]
        )
        with syncws.Client(url, ssl=own):
            service.expect("on_open")


def test_wrong_certificates_of_a_listener(files: dict[str, str]) -> None:
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, ValueError, "needs a cert_file"),
        ({"ca_file": files["ca_file"]}, ValueError, "needs a cert_file"),
        ({"cert_file": files["server_cert"], "verify": False}, ValueError, "is for clients"),
        ({"cert_file": "/no/such.pem"}, OSError, "/no/such.pem"),
        ({"cert_file": files["server_cert"]}, ValueError, "without a key_file, cannot be used"),
        ({"cert_file": __file__}, ValueError, "cannot be used"),
        (
            {"cert_file": files["server_cert"], "key_file": files["client_key"]},
            ValueError,
            "key values mismatch",
        ),
    ]
    for options, error, text in wrong:
        with pytest.raises(error, match=text):
            syncws.Listener(0, ssl=syncws.TLSConfig(**options))


def test_a_signal_that_comes_while_certificates_are_read_has_the_last_word(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = syncws.TLSConfig(cert_file=files["server_cert"], key_file=files["server_key"])
    listener = syncws.Listener(0, ssl=tls)
    made: list[ssl.SSLContext] = []

    def interrupted(given: syncws.TLSConfig) -> ssl.SSLContext:
        context = given.server_context()
        made.append(context)
        if len(made) == 1:  # the files change, and a handler in the same thread is told
            listener.reload_tls()
        return context

    monkeypatch.setattr("syncws.server.certificates.server_context", interrupted)
    listener.reload_tls()
    assert len(made) == 3
    assert listener._certificates.context is made[2]


def test_serve_forever_does_not_sleep_through_a_signal() -> None:
    """One that came right before it slept: its handler runs only when the thread wakes."""
    slept: list[float | None] = []

    class Queue:
        def empty(self) -> bool:
            return True

        def get(self, timeout: float | None = None) -> int:
            slept.append(timeout)
            if timeout is None:
                return 1
            if len(slept) < 3:
                raise queue.Empty
            return 1  # from the handler, which has run meanwhile

    listener = syncws.Listener(0)
    with listener:
        listener._stops._queue = Queue()  # type: ignore[assignment]
        stop = listener.stop
        listener.stop = lambda timeout=10.0: None  # type: ignore[method-assign]
        listener.serve_forever()
        listener.stop = stop  # type: ignore[method-assign]
        listener._stops._queue = queue.SimpleQueue()
    assert len(slept) == 3
    assert None not in slept
