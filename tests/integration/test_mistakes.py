"""The commonest mistakes: each is answered with what is wrong and what would be right.

docs/troubleshooting.md has the same messages, as its code blocks.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import syncws
from tests.support import HANG, client_tls, server_tls, wait_until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"


class Echo(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)


class Small(Echo):
    config = syncws.ServiceConfig(max_message_size=10)


class Members(Echo):
    config = syncws.ServiceConfig(allowed_origins=("https://shop.example",))


class Site(NamedTuple):
    """Where the mistakes are made."""

    listener: syncws.Listener
    tls: syncws.Listener

    @property
    def port(self) -> int:
        assert self.listener.port is not None
        return self.listener.port

    @property
    def url(self) -> str:
        return f"ws://localhost:{self.port}/chat"

    def client(self, **options: Any) -> syncws.Client:
        return syncws.Client(self.url, **options)


@pytest.fixture
def site() -> Iterator[Site]:
    listener = syncws.Listener(0)
    listener.attach("/chat", Echo())
    listener.attach("/small", Small())
    listener.attach("/members", Members())
    secure = syncws.Listener(0, ssl=server_tls())
    secure.attach("/chat", Echo())
    with listener, secure:
        yield Site(listener, secure)


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def service(**members: Any) -> type[syncws.Service]:
    return type("Chat", (syncws.Service,), members)


def takes(*, names: str) -> Callable[..., None]:
    """Return a method with parameters of these names."""
    found: Callable[..., None] = eval(f"lambda {names}: None")
    return found


async def asynchronous(self: Any, caller: Any, text: str) -> None:
    """Is never awaited."""


def attached(path: str = "/a", **members: Any) -> None:
    syncws.Listener(0).attach(path, service(**members))


def too_large(site: Site) -> None:
    with syncws.Client(f"ws://localhost:{site.port}/small") as client:
        client.send_text("x" * 100)
        client.receive(timeout=HANG)


def after_close(site: Site) -> None:
    client = site.client()
    client.close()
    client.send_text("hello")


def with_client(use: Callable[[syncws.Client], Any], **options: Any) -> Callable[[Site], None]:
    def make(site: Site) -> None:
        with site.client(**options) as client:
            use(client)

    return make


class Mistake(NamedTuple):
    """What is done, and what comes of it; the message is as the page has it."""

    make: Callable[[Site], Any]
    error: type[BaseException]
    message: str


#: "PORT" stands for any number.
MISTAKES = {
    "http:// in place of ws://": Mistake(
        lambda site: syncws.Client("http://localhost:9090/chat"),
        ValueError,
        "'http://localhost:9090/chat' is no WebSocket URL: use ws://... instead",
    ),
    "no scheme": Mistake(
        lambda site: syncws.Client("localhost:9090/chat"),
        ValueError,
        "'localhost:9090/chat' is no WebSocket URL: write ws://host/path or wss://host/path",
    ),
    "a port in use": Mistake(
        lambda site: syncws.Listener(site.port).start(),
        OSError,
        "cannot listen on 127.0.0.1 port PORT: Address already in use; another program does, "
        "so stop it or take another port (0 finds a free one)",
    ),
    "nobody listens": Mistake(
        lambda site: syncws.Client(f"ws://localhost:{closed_port()}/"),
        syncws.ConnectError,
        "connecting with localhost port PORT failed: Connection refused: nothing listens there",
    ),
    "wss:// to a listener without TLS": Mistake(
        lambda site: syncws.Client(f"wss://localhost:{site.port}/chat"),
        syncws.TLSError,
        "the TLS handshake with localhost port PORT failed: the server does not speak TLS there; "
        "is its address one of ws://?",
    ),
    "ws:// to a listener with TLS": Mistake(
        lambda site: syncws.Client(f"ws://localhost:{site.tls.port}/chat"),
        syncws.HandshakeError,
        "the server closed the connection before it answered the handshake; if it speaks TLS, "
        "write wss://",
    ),
    "an authority that is not known": Mistake(
        lambda site: syncws.Client(f"wss://localhost:{site.tls.port}/chat"),
        syncws.TLSError,
        "if its authority is your own, ssl=syncws.TLSConfig(ca_file=...) names it",
    ),
    "a file that is not there": Mistake(
        lambda site: syncws.Client(
            "wss://localhost/", ssl=syncws.TLSConfig(ca_file="/missing/ca.pem")
        ),
        FileNotFoundError,
        "the ca_file cannot be read: No such file or directory: '/missing/ca.pem'",
    ),
    "a path that is not attached": Mistake(
        lambda site: syncws.Client(f"ws://localhost:{site.port}/chats"),
        syncws.HandshakeRejected,
        "the server answered with HTTP status 404, not 101: No WebSocket service is attached to "
        "/chats",
    ),
    "a page of another origin": Mistake(
        lambda site: syncws.Client(
            f"ws://localhost:{site.port}/members", headers={"Origin": "https://other.example"}
        ),
        syncws.HandshakeRejected,
        "Pages of the origin 'https://other.example' may not connect: the service's "
        "allowed_origins does not name it.",
    ),
    "a service without callbacks": Mistake(
        lambda site: attached(),
        TypeError,
        "Chat has no callback: define one of on_open, on_text, on_binary, on_ping, on_pong, "
        "on_idle_timeout, on_error, on_close, on_reconnect",
    ),
    "a callback by another name": Mistake(
        lambda site: attached(on_message_text=takes(names="self, caller, text")),
        TypeError,
        "Chat.on_message_text is no callback; did you mean on_text?",
    ),
    "a callback in another spelling": Mistake(
        lambda site: attached(onMessage=takes(names="self, caller, text")),
        TypeError,
        "Chat.onMessage is no callback; did you mean on_text?",
    ),
    "a callback with too few parameters": Mistake(
        lambda site: attached(on_text=takes(names="self, text")),
        TypeError,
        "Chat.on_text(self, text) cannot be called: it must take on_text(self, caller, text) or "
        "the same and final",
    ),
    "an async callback": Mistake(
        lambda site: attached(on_text=asynchronous),
        TypeError,
        "Chat.on_text must be a plain method, not async: it runs in a thread and may block",
    ),
    "a function for a service": Mistake(
        lambda site: syncws.Listener(0).attach("/a", takes(names="ws")),  # type: ignore[arg-type]
        TypeError,
        "make one of a function with syncws.FunctionService(...)",
    ),
    "on_open at a client": Mistake(
        lambda site: site.client(service=service(on_open=takes(names="self, caller"))),
        TypeError,
        "Chat.on_open is never called on a client, which is open once it is made: move what it "
        "does after the Client(...) call",
    ),
    "a path without a slash": Mistake(
        lambda site: attached("chat", on_text=takes(names="self, caller, text")),
        ValueError,
        "the path 'chat' must begin with a slash: /chat",
    ),
    "a parameter as in Flask": Mistake(
        lambda site: attached("/chat/<name>", on_text=takes(names="self, caller, text")),
        ValueError,
        "in the path '/chat/<name>' '<name>' is no parameter: write {name}, or with a type "
        "{name:int}",
    ),
    "a path that is taken": Mistake(
        lambda site: site.listener.attach("/chat", Echo()),
        ValueError,
        "the path '/chat' has a service already: detach it first",
    ),
    "a second start": Mistake(
        lambda site: site.listener.start(),
        RuntimeError,
        "the listener is started already",
    ),
    "a str as a binary message": Mistake(
        with_client(lambda client: client.send_binary("hello")),  # type: ignore[arg-type]
        TypeError,
        "send_binary takes bytes, not str: 'hello'; send_text takes a str",
    ),
    "a dict as a message": Mistake(
        with_client(lambda client: client.send_text({"a": 1})),  # type: ignore[arg-type]
        TypeError,
        "send_text takes a str, not dict: {'a': 1}; send_json takes what JSON can express",
    ),
    "sending after close": Mistake(
        after_close,
        syncws.ConnectionClosed,
        "the connection is closed: received 1000, sent 1000",
    ),
    "a close code that is reserved": Mistake(
        with_client(lambda client: client.close(1006)),
        ValueError,
        "status_code 1006 cannot be sent: use 1000 (normal), 1001 (going away), 1008 (policy), "
        "1011 (error), another that RFC 6455 section 7.4.1 lets an endpoint send, or one from "
        "3000 to 4999",
    ),
    "receive with a callback service": Mistake(
        with_client(lambda client: client.receive(), service=Echo()),
        RuntimeError,
        "this client has a callback service, whose on_text and on_binary get the messages",
    ),
    "a message that is too large": Mistake(
        too_large,
        syncws.ConnectionClosed,
        "a message of at least 100 bytes is over max_message_size, 10",
    ),
    "one subprotocol that is no list": Mistake(
        lambda site: site.client(subprotocols="json"),
        TypeError,
        "subprotocols must be a sequence of names such as ('json',)",
    ),
    "a timeout that is no number": Mistake(
        lambda site: syncws.ServiceConfig(idle_timeout="30"),  # type: ignore[arg-type]
        TypeError,
        "idle_timeout must be a number of seconds or None, not '30'",
    ),
    "a port that is no number": Mistake(
        lambda site: syncws.Listener("9090"),  # type: ignore[arg-type]
        TypeError,
        "port must be an int, not '9090'",
    ),
    "a line break in a header": Mistake(
        lambda site: site.client(headers={"X-Name": "a\r\nb"}),
        ValueError,
        "the value of the header 'X-Name' has a line break or another control character",
    ),
}


def pattern(message: str) -> str:
    return re.escape(message).replace("PORT", r"\d+")


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_answered_with_what_would_be_right(site: Site, mistake: Mistake) -> None:
    with pytest.raises(mistake.error) as caught:
        mistake.make(site)
    assert re.search(pattern(mistake.message), str(caught.value)), str(caught.value)


def test_the_page_has_these_messages_and_no_others() -> None:
    told = re.findall(r"^```text\n(.*?)\n```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    wanted = {mistake.message for mistake in MISTAKES.values()} | set(LOGGED)
    assert set(told) == wanted
    assert len(told) == len(wanted)


# -- What is only logged -----------------------------------------------------

LOGGED = (
    "The request is a TLS handshake, and ws:// is spoken here: wss:// needs ssl.",
    "returned something, which is not sent: send it with caller.send_text(...) or the like",
)


def test_tls_where_there_is_none_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "syncws.server")
    with pytest.raises(syncws.TLSError):
        syncws.Client(f"wss://localhost:{site.port}/chat")
    wait_until(lambda: LOGGED[0] in caplog.text)


def test_what_a_callback_returns_is_warned_of_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    class Returning(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> str:  # type: ignore[override]
            if text == "last":
                caller.send_text("done")
            return text

    site.listener.attach("/returning", Returning())
    with syncws.Client(f"ws://localhost:{site.port}/returning") as client:
        for text in ("one", "two", "last"):
            client.send_text(text)
        assert client.receive(timeout=HANG) == "done"
    (message,) = [text for text in caplog.messages if "returned something" in text]
    assert message == f"Returning.on_text at /returning {LOGGED[1]}"


def test_a_certificate_for_another_name_is_said() -> None:
    with (
        syncws.Listener(0, ssl=server_tls("shop.example")) as listener,
        pytest.raises(syncws.TLSError, match=r"its certificate was refused: .*'localhost'$"),
    ):
        syncws.Client(f"wss://localhost:{listener.port}/", ssl=client_tls())
