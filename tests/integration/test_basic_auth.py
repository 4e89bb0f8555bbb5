"""Basic authentication from end to end, and that nobody else gets to know of it."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

import syncws
from tests.support import RawPeer, RawServer, Recorder, ServerRecorder, Task, listening

AUTH = syncws.BasicAuth({"ann": "secret", "j\u00fcrgen": "geheim:\u00e4"}, realm="chat")
HIDDEN = ("secret", "YW5uOnNlY3JldA")  # in the clear and as it is sent


def test_a_resource_knows_who_comes() -> None:
    service = ServerRecorder()
    with listening() as listener:

        @listener.upgrade("/chat", service=service)
        def upgrader(http: syncws.Upgrade, request: syncws.Request) -> None:
            user = AUTH.user_of(request)
            if user is None:
                return http.cancel_upgrade(401, "Who are you?", headers=AUTH.challenge)
            http.accept_upgrade().attributes["user"] = user
            return None

        url = f"ws://localhost:{listener.port}/chat"
        with syncws.Client(url, auth=("ann", "secret")):
            assert service.expect("on_open").attributes["user"] == "ann"
        service.expect("on_close")
        for auth in (None, ("ann", "Secret"), ("eve", "secret")):
            with pytest.raises(syncws.HandshakeRejected) as caught:
                syncws.Client(url, auth=auth)
            assert caught.value.status == 401
            assert caught.value.body == b"Who are you?"
            challenge = caught.value.headers["WWW-Authenticate"]
            assert challenge == 'Basic realm="chat", charset="UTF-8"'
        service.quiet()


@pytest.mark.parametrize("path", ["/chat", "/chat/{room:int}"])
def test_it_is_a_resource_itself(path: str) -> None:
    service = ServerRecorder()
    threads: list[str] = []

    def check(user: str, password: str) -> bool:
        threads.append(threading.current_thread().name)
        return (user, password) == ("ann", "secret")

    with listening() as listener:
        listener.upgrade(path, service=service)(syncws.BasicAuth(check).admit)
        url = f"localhost:{listener.port}{path.replace('{room:int}', '7')}"
        with syncws.Client(f"ws://ann:secret@{url}") as client:
            caller = service.expect("on_open")
            assert caller.attributes["user"] == "ann"
            assert client.url == f"ws://{url}"
            assert caller.request.path_params == ({"room": 7} if "{" in path else {})
        service.expect("on_close")
        with pytest.raises(syncws.HandshakeRejected, match="401"):
            syncws.Client(f"ws://ann:wrong@{url}")
        assert len(threads) == 2
        assert all("-worker-" in name for name in threads)
        service.quiet()


def test_names_and_passwords_outside_of_ascii() -> None:
    service = ServerRecorder()
    with listening() as listener:
        listener.upgrade("/", service=service)(AUTH.admit)
        with syncws.Client(
            f"ws://localhost:{listener.port}/", auth=("j\u00fcrgen", "geheim:\u00e4")
        ):
            assert service.expect("on_open").attributes["user"] == "j\u00fcrgen"


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Authorization: Basic YW5uOnNlY3JldA==", "Authorization: Basic YW5uOnNlY3JldA=="),
        ("Authorization: Basic YW5uOnNlY3JldA",),
        ("Authorization: Basic %%%",),
        ("Authorization: Bearer YW5uOnNlY3JldA==",),
        ("Proxy-Authorization: Basic YW5uOnNlY3JldA==",),
    ],
)
def test_requests_that_do_not_say_it_rightly(lines: tuple[str, ...]) -> None:
    service = ServerRecorder()
    with listening() as listener:
        listener.upgrade("/", service=service)(AUTH.admit)
        with RawPeer.dial(listener) as peer:
            peer.send_bytes(RawPeer.request("/", *lines))
            assert peer.read_head().startswith(b"HTTP/1.1 401 ")
            assert b'WWW-Authenticate: Basic realm="chat", charset="UTF-8"\r\n' in peer.head
        with RawPeer.connect(listener, "/", "Authorization: Basic YW5uOnNlY3JldA=="):
            service.expect("on_open")


def test_a_function_that_fails_lets_nobody_in() -> None:
    service = ServerRecorder()
    yes: Any = lambda user, password: "yes"  # noqa: E731
    with listening() as listener:
        listener.upgrade("/", service=service)(syncws.BasicAuth(yes).admit)
        with pytest.raises(syncws.HandshakeRejected, match="500"):
            syncws.Client(f"ws://localhost:{listener.port}/", auth=("ann", "secret"))
        service.quiet()


def test_a_client_says_it_each_time() -> None:
    with RawServer() as server:
        retry = syncws.RetryConfig(interval=0)
        opening = Task(syncws.Client, server.url, auth=("ann", "secret"), retry=retry)
        for number in range(2):
            with server.accept() as peer:
                peer.answer()
                client = opening.result()
                assert b"\r\nAuthorization: Basic YW5uOnNlY3JldA==\r\n" in peer.head
                if number:
                    client.close(timeout=0)
        client.close()


def test_a_failover_client_says_it_to_each() -> None:
    services = [ServerRecorder(), ServerRecorder()]
    with listening() as first, listening() as second:
        first.upgrade("/", service=services[0])(syncws.BasicAuth({}).admit)
        second.upgrade("/", service=services[1])(AUTH.admit)
        urls = [f"ws://localhost:{listener.port}/" for listener in (first, second)]
        with syncws.FailoverClient(urls, auth=("ann", "secret"), failover_interval=0):
            services[1].expect("on_open")


def test_nobody_else_gets_to_know(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service, shown = ServerRecorder(), []
    with listening() as listener:
        listener.upgrade("/", service=service)(AUTH.admit)
        address = f"localhost:{listener.port}"
        for retry in (None, syncws.RetryConfig(max_count=1, interval=0)):
            for path, status in (("", None), ("nowhere", 404)):
                for where, auth in ((f"ann:secret@{address}", None), (address, ("ann", "secret"))):
                    url = f"ws://{where}/{path}"
                    if status is not None:
                        with pytest.raises(syncws.ConnectError) as caught:
                            syncws.Client(url, auth=auth, retry=retry)
                        shown += [str(caught.value), repr(caught.value)]
                        continue
                    with syncws.Client(url, service=Recorder(), auth=auth, retry=retry) as client:
                        shown += [repr(client), client.url, repr(client.response)]
                        caller = service.expect("on_open")
                        shown += [repr(caller), repr(caller.request)]
                    service.expect("on_close")
        with pytest.raises(syncws.HandshakeRejected) as refused:
            syncws.Client(f"ws://{address}/", auth=("eve", "secret"))
        shown.append(repr(refused.value))
    assert caplog.text
    for text in (*shown, caplog.text):
        assert not any(part in text for part in HIDDEN), text
