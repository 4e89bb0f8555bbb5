"""Line breaks and NULs in what becomes a line of a head: refused before a byte is sent."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import syncws
from tests.abuse.hostile import attacked, beside, every_end, everything, nobody_waits
from tests.abuse.watch import watched
from tests.support import HANG, TEXT, RawPeer, RawServer, Recorder

_BAD = {
    "CR": "\r",
    "LF": "\n",
    "CRLF": "\r\n",
    "NUL": "\0",
    "a header": "\r\nX-Evil: 1",
    "a head": "\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
}
bad_text = pytest.mark.parametrize("bad", _BAD.values(), ids=_BAD)


def _encoded(bad: str) -> str:
    return "".join(f"%{ord(character):02X}" for character in bad)


# What an application may take from a stranger, and where it puts that.
_CLIENT: dict[str, Callable[[str, str], tuple[str, dict[str, Any]]]] = {
    "path": lambda url, bad: (f"{url}a{bad}b", {}),
    "end of the path": lambda url, bad: (f"{url}a{bad}", {}),
    "query": lambda url, bad: (f"{url}?a={bad}b", {}),
    "host": lambda url, bad: (url.replace("127", f"127{bad}", 1), {}),
    "port": lambda url, bad: (f"{url[:-1]}{bad}/", {}),
    "user": lambda url, bad: (url.replace("//", f"//us{bad}er:password@"), {}),
    "password": lambda url, bad: (url.replace("//", f"//user:pass{bad}word@"), {}),
    "encoded user": lambda url, bad: (url.replace("//", f"//us{_encoded(bad)}er@"), {}),
    "encoded password": lambda url, bad: (url.replace("//", f"//user:{_encoded(bad)}@"), {}),
    "scheme": lambda url, bad: (f"{bad}{url}", {}),
    "header": lambda url, bad: (url, {"headers": {"X-Name": f"a{bad}b"}}),
    "start of a header": lambda url, bad: (url, {"headers": {"X-Name": f"{bad}b"}}),
    "end of a header": lambda url, bad: (url, {"headers": [("X-Name", f"a{bad}")]}),
    "name of a header": lambda url, bad: (url, {"headers": {f"X-{bad}Name": "a"}}),
    "end of a name": lambda url, bad: (url, {"headers": [(f"X-Name{bad}", "a")]}),
    "cookie by hand": lambda url, bad: (url, {"headers": {"Cookie": f"a=b{bad}"}}),
    "credentials by hand": lambda url, bad: (url, {"headers": {"Authorization": f"Basic {bad}"}}),
    "cookie": lambda url, bad: (url, {"cookies": {"name": f"a{bad}b"}}),
    "end of a cookie": lambda url, bad: (url, {"cookies": {"name": f"a{bad}"}}),
    "name of a cookie": lambda url, bad: (url, {"cookies": {f"na{bad}me": "a"}}),
    "subprotocol": lambda url, bad: (url, {"subprotocols": [f"ch{bad}at"]}),
    "a proxy's host": lambda url, bad: (url, {"proxy": f"http://127{bad}.0.0.1:1"}),
    "a proxy's port": lambda url, bad: (url, {"proxy": f"http://127.0.0.1:1{bad}"}),
    "a proxy's user": lambda url, bad: (url, {"proxy": f"http://us{bad}er:x@127.0.0.1:1"}),
    "a proxy's password": lambda url, bad: (url, {"proxy": f"http://user:{bad}x@127.0.0.1:1"}),
    "a proxy's encoded user": lambda url, bad: (
        url,
        {"proxy": f"http://us{_encoded(bad)}er:x@127.0.0.1:1"},
    ),
    "a proxy's encoded password": lambda url, bad: (
        url,
        {"proxy": f"socks5h://user:{_encoded(bad)}x@127.0.0.1:1"},
    ),
    "header for a proxy": lambda url, bad: (
        url,
        {"proxy": "http://127.0.0.1:1", "proxy_headers": {"X-Name": f"a{bad}b"}},
    ),
    "credentials by hand for a proxy": lambda url, bad: (
        url,
        {"proxy": "http://127.0.0.1:1", "proxy_headers": {"Proxy-Authorization": f"Basic {bad}"}},
    ),
    "end of a subprotocol": lambda url, bad: (url, {"subprotocols": ["chat", f"soap{bad}"]}),
}


@pytest.mark.parametrize("place", _CLIENT)
@bad_text
def test_nothing_is_sent_by_a_client(place: str, bad: str) -> None:
    with beside() as others, watched(), RawServer() as server:
        url, options = _CLIENT[place](server.url, bad)
        with pytest.raises(ValueError):
            syncws.Client(url, **options)
        with pytest.raises(ValueError):
            syncws.FailoverClient([server.url, url], **options)
        others.served()
        assert nobody_waits(server)


def test_what_is_encoded_in_a_path_stays_so() -> None:
    with beside(), watched(), RawServer() as server:
        server.url += "a%0D%0Ab%00?c=%0D%0A"
        opening = server.open_client()
        with server.accept() as peer:
            assert peer.read_head().startswith(b"GET /a%0D%0Ab%00?c=%0D%0A HTTP/1.1\r\n")
            peer.abort()
        assert isinstance(opening.error(), syncws.ConnectError)


# -- A listener --------------------------------------------------------------

_SERVER: dict[str, Callable[[Any, str], object]] = {
    "header": lambda http, bad: http.accept_upgrade(headers={"X-Name": f"a{bad}b"}),
    "end of a header": lambda http, bad: http.accept_upgrade(headers=[("X-Name", f"a{bad}")]),
    "name of a header": lambda http, bad: http.accept_upgrade(headers={f"X-{bad}Name": "a"}),
    "subprotocol": lambda http, bad: http.accept_upgrade(subprotocol=f"ch{bad}at"),
    "header of a refusal": lambda http, bad: http.cancel_upgrade(400, "", {"X-Name": f"a{bad}"}),
    "name of one": lambda http, bad: http.cancel_upgrade(400, "", {f"X-{bad}": "a"}),
    "place to go to": lambda http, bad: http.cancel_upgrade(302, "", {"Location": f"/{bad}"}),
    "cookie": lambda http, bad: http.set_cookie("name", f"a{bad}b"),
    "end of a cookie": lambda http, bad: http.set_cookie("name", f"a{bad}"),
    "name of a cookie": lambda http, bad: http.set_cookie(f"na{bad}me", "a"),
    "path of a cookie": lambda http, bad: http.set_cookie("name", "a", path=f"/{bad}"),
    "domain of a cookie": lambda http, bad: http.set_cookie("name", "a", domain=f"a{bad}.b"),
    "same site": lambda http, bad: http.set_cookie("name", "a", samesite=f"Lax{bad}"),
}


class _Service(syncws.Service):
    config = syncws.ServiceConfig(subprotocols=("chat",))

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)


@contextmanager
def deciding(resource: Callable[..., Any]) -> Iterator[RawPeer]:
    """A client of a listener with this resource, before it has said anything."""
    with beside() as others:
        others.listener.upgrade("/", service=_Service)(resource)
        with watched(), RawPeer.dial(others.listener) as peer:
            yield peer
            others.served()


@pytest.mark.parametrize("place", _SERVER)
@bad_text
def test_nothing_is_sent_by_a_listener(place: str, bad: str) -> None:
    raised: queue.Queue[BaseException | None] = queue.Queue()

    def resource(http: Any, request: Any) -> Any:
        try:
            _SERVER[place](http, bad)
        except ValueError as exc:
            raised.put(exc)
        else:
            raised.put(None)
        return http.cancel_upgrade(418, "no")

    with deciding(resource) as peer:
        peer.send_bytes(RawPeer.request("/", "Sec-WebSocket-Protocol: chat"))
        head = peer.read_head()
        assert isinstance(raised.get(timeout=HANG), ValueError)
        # The first byte that comes is one of the refusal's.
        assert head.startswith(b"HTTP/1.1 418 ")
        assert b"evil" not in head.lower()
        assert peer._buffer + everything(peer) == b"no"


@bad_text
def test_the_text_of_a_refusal_is_no_part_of_its_head(bad: str) -> None:
    def resource(http: Any, request: Any) -> Any:
        return http.cancel_upgrade(400, f"a{bad}b")

    with deciding(resource) as peer:
        peer.send_bytes(RawPeer.request())
        head = peer.read_head()
        assert b"X-Evil" not in head
        body = f"a{bad}b".encode()
        assert f"Content-Length: {len(body)}\r\n".encode() in head
        assert peer._buffer + everything(peer) == body


_APP: dict[str, Callable[[Any, str], object]] = {
    "status": lambda start, bad: start(f"200 OK{bad}", []),
    "header": lambda start, bad: start("200 OK", [("X-Name", f"a{bad}b")]),
    "end of a header": lambda start, bad: start("200 OK", [("X-Name", f"a{bad}")]),
    "name of a header": lambda start, bad: start("200 OK", [(f"X-{bad}Name", "a")]),
}


@pytest.mark.parametrize("place", _APP)
@bad_text
def test_nothing_is_sent_for_an_application(
    place: str, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        _APP[place](start_response, bad)
        return [b"secret"]

    with (
        beside(app=app) as others,
        watched(),
        RawPeer.dial(others.listener) as peer,
    ):
        peer.send_bytes(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head = peer.read_head()
        assert head.startswith(b"HTTP/1.1 500 ")
        assert b"evil" not in (head + everything(peer)).lower()
        assert b"secret" not in peer._buffer
        others.served()
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


# -- A connection ------------------------------------------------------------


@every_end
@bad_text
def test_the_reason_of_a_close_has_a_length_and_no_lines(kind: str, bad: str) -> None:
    class Closing(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            caller.close(4000, text, timeout=0)

    with attacked(kind, service=Closing()) as victim:
        if kind == "blocking":
            assert victim.client is not None
            victim.client.close(4000, f"a{bad}b", timeout=0)
        else:
            victim.peer.text(f"a{bad}b")
        assert victim.peer.expect_close() == (4000, f"a{bad}b")
        victim.peer.close_frame(4000)
        victim.peer.end_writing()
        assert everything(victim.peer) == b""


@every_end
@pytest.mark.parametrize("reason", ["x" * 124, "ä" * 62, "\ud800"])
def test_a_reason_that_does_not_fit_is_not_sent(kind: str, reason: str) -> None:
    raised: queue.Queue[type[BaseException]] = queue.Queue()

    class Closing(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            with pytest.raises(ValueError) as caught:
                caller.close(4000, reason)
            raised.put(type(caught.value))
            caller.send_text("still open")

    with attacked(kind, service=Closing()) as victim:
        if victim.client is not None and kind == "blocking":
            with pytest.raises(ValueError):
                victim.client.close(4000, reason)
            victim.client.send_text("still open")
        else:
            victim.peer.text("now")
            assert issubclass(raised.get(timeout=HANG), ValueError)
        victim.peer.expect(TEXT, "still open")
