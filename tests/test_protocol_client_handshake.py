from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any

import h11
import pytest
from wsproto.utilities import generate_accept_token

from syncws.config import Compression
from syncws.errors import HandshakeError, HandshakeRejected
from syncws.protocol.client_handshake import Agreement, ClientHandshake
from syncws.protocol.deflate import DeflateParams
from syncws.protocol.headers import Headers
from syncws.protocol.http import RESERVED, HeadReader, parse_request
from syncws.protocol.server_handshake import (
    Refusal,
    accept_response,
    check_upgrade,
    choose_subprotocol,
    refusal_response,
)
from syncws.protocol.uri import parse_uri
from tests.handshakes import ACCEPT, CUTS, head, pieces

# -- ClientHandshake -------------------------------------------------


def client(
    url: str = "ws://example.com/chat",
    *,
    subprotocols: Sequence[str] = (),
    compression: Compression | None = None,
    headers: Sequence[tuple[str, str]] = (),
    max_size: int = 16384,
) -> ClientHandshake:
    return ClientHandshake(
        parse_uri(url),
        subprotocols=subprotocols,
        compression=compression,
        headers=headers,
        max_size=max_size,
    )


def test_the_request() -> None:
    handshake = client("ws://example.com:9090/a%20b?c=d")
    sent = handshake.request_bytes()
    assert re.fullmatch(
        rb"GET /a%20b\?c=d HTTP/1\.1\r\nHost: example\.com:9090\r\nUpgrade: websocket\r\n"
        rb"Connection: Upgrade\r\nSec-WebSocket-Key: [A-Za-z0-9+/]{22}==\r\n"
        rb"Sec-WebSocket-Version: 13\r\nUser-Agent: syncws\r\n\r\n",
        sent,
    )
    assert handshake.request_bytes() == sent
    assert client("ws://example.com:9090/a%20b?c=d").request_bytes() != sent


def test_the_request_with_everything() -> None:
    handshake = client(
        "ws://ann:p%C3%A9@h/",
        subprotocols=["xml", "json"],
        compression=Compression(),
        headers=[("user-agent", "mine"), ("X", " caf\xe9 ")],
    )
    parsed = parse_request(handshake.request_bytes())
    assert check_upgrade(parsed) is None
    assert parsed.headers["Sec-WebSocket-Protocol"] == "xml, json"
    assert parsed.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate; ")
    user = base64.b64encode("ann:p\xe9".encode()).decode()
    assert parsed.headers["Authorization"] == f"Basic {user}"
    assert parsed.headers["User-Agent"] == "mine"
    assert parsed.headers["X"] == "caf\xe9"


@pytest.mark.parametrize(
    ("url", "headers", "expected"),
    [
        ("ws://ann@h/", [], "Basic " + base64.b64encode(b"ann:").decode()),
        ("ws://ann:x@h/", [("AUTHORIZATION", "Bearer t")], "Bearer t"),
    ],
)
def test_authorization(url: str, headers: list[tuple[str, str]], expected: str) -> None:
    parsed = parse_request(client(url, headers=headers).request_bytes())
    assert parsed.headers.get_all("Authorization") == [expected]


@pytest.mark.parametrize(
    "arguments",
    [
        *({"headers": [(name.title(), "x")]} for name in sorted(RESERVED)),
        {"headers": [("X", "a\r\nb")]},
        {"subprotocols": ["a\r\nb"]},
    ],
)
def test_the_request_cannot_be_spoiled(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        client(**arguments)


Answer = Callable[[str], bytes]


def answer(*changes: tuple[str, str | None], line: str = "HTTP/1.1 101 Switching") -> Answer:
    """A good response but for the changes; None leaves a header out."""

    def build(accept: str) -> bytes:
        fields: list[tuple[str, str | None]] = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept),
        ]
        changed = {name for name, _ in changes}
        fields = [field for field in fields if field[0] not in changed] + list(changes)
        kept = [(name, value) for name, value in fields if value is not None]
        return head(line, kept)

    return build


def run(handshake: ClientHandshake, build: Answer, cut: int, behind: bytes = b"") -> Agreement:
    key = parse_request(handshake.request_bytes()).headers["Sec-WebSocket-Key"]
    data = build(generate_accept_token(key.encode()).decode())
    for piece in pieces(data, cut)[:-1]:
        assert handshake.receive(piece) is None
    response = handshake.receive(pieces(data, cut)[-1] + behind)
    assert response is not None
    return response


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("build", "subprotocol", "deflate"),
    [
        (answer(), None, None),
        (answer(("Upgrade", "WebSocket"), ("Connection", "upgrade, x")), None, None),
        (answer(line="HTTP/1.1 101"), None, None),
        (answer(("Sec-WebSocket-Protocol", "json")), "json", None),
        (
            answer(("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=9")),
            None,
            DeflateParams(False, False, 9, 12),
        ),
    ],
)
def test_a_server_accepts(
    build: Answer, subprotocol: str | None, deflate: DeflateParams | None, cut: int
) -> None:
    handshake = client(subprotocols=["xml", "json"], compression=Compression())
    agreement = run(handshake, build, cut, b"\x82\x00")
    response = agreement.response
    assert (response.status, agreement.rest, response.body) == (101, b"\x82\x00", b"")
    assert (agreement.subprotocol, agreement.deflate) == (subprotocol, deflate)
    assert "sec-websocket-accept" in response.headers


@pytest.mark.parametrize("cut", CUTS)
def test_other_informational_responses_are_skipped(cut: int) -> None:
    before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    agreement = run(client(), lambda accept: before + answer()(accept), cut)
    assert (agreement.response.status, agreement.rest) == (101, b"")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("build", "text"),
    [
        (answer(line="HTTP/1.0 101 Switching"), "HTTP/1.0"),
        (answer(line="HTTP/2.0 101 Switching"), "HTTP/2.0"),
        (answer(("Upgrade", None)), "Upgrade: websocket"),
        (answer(("Upgrade", "h2c")), "Upgrade: websocket"),
        (answer(("Connection", "close")), "Connection: Upgrade"),
        (answer(("Sec-WebSocket-Accept", None)), "Sec-WebSocket-Accept"),
        (answer(("Sec-WebSocket-Accept", ACCEPT)), "Sec-WebSocket-Accept"),
        (answer(("Sec-WebSocket-Accept", "\xe9")), "Sec-WebSocket-Accept"),
        (lambda accept: answer(("sec-websocket-accept", accept))(accept), "Sec-WebSocket-Accept"),
        (answer(("Sec-WebSocket-Protocol", "soap")), "the subprotocol 'soap'"),
        (answer(("Sec-WebSocket-Protocol", "xml, json")), "the subprotocol 'xml, json'"),
        (answer(("Sec-WebSocket-Protocol", "")), "the subprotocol ''"),
        (
            answer(("Sec-WebSocket-Protocol", "xml"), ("Sec-WebSocket-Protocol", "xml")),
            "the subprotocol 'xml, xml'",
        ),
        (answer(("Sec-WebSocket-Extensions", "x-other")), "was not offered"),
        (lambda _: b"SSH-2.0-server\r\n", "b'S"),
        (lambda _: b"HTTP/1.1 oops\r\n\r\n", "not valid HTTP: b'HTTP/1.1 oops"),
        (lambda _: b"\x15\x03\x01\x00\x02", "not valid HTTP"),
    ],
)
def test_a_server_breaks_the_rules(build: Answer, text: str, cut: int) -> None:
    with pytest.raises(HandshakeError, match=re.escape(text)):
        run(client(subprotocols=["xml", "json"]), build, cut)


@pytest.mark.parametrize("size", [0, 1, 7, 40])
def test_a_server_closes_early(size: int) -> None:
    handshake = client()
    if size:
        assert handshake.receive(answer()(ACCEPT)[:size]) is None
    with pytest.raises(HandshakeError, match="closed the connection before it answered"):
        handshake.receive(b"")


def test_at_most_60_bytes_are_quoted() -> None:
    with pytest.raises(HandshakeError) as caught:
        client().receive(b"HTTP!" + b"x" * 1000)
    assert "x" * 55 + "'" in str(caught.value)
    assert "x" * 56 not in str(caught.value)


def test_a_head_that_does_not_end() -> None:
    handshake = client(max_size=500)
    assert handshake.receive(b"HTTP/1.1 101 X\r\n") is None
    with pytest.raises(HandshakeError, match="over 500 bytes"):
        for _ in range(100):
            assert handshake.receive(b"X-Y: 12345\r\n") is None


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("status", ["101 Switching Protocols", "403 Forbidden"])
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_a_head_over_the_limit_however_it_comes(cut: int, status: str, before: bytes) -> None:
    lines = f"HTTP/1.1 {status}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head = f"{lines}Sec-WebSocket-Accept: {ACCEPT}\r\nContent-Length: 0\r\n\r\n".encode()
    size = len(before + head)
    for limit in (size, size - 1):
        handshake = client(max_size=limit)
        caught: HandshakeError | HandshakeRejected | None = None
        try:
            for piece in pieces(before + head + b"\x81\x00", cut):
                if handshake.receive(piece) is not None:
                    break
        except (HandshakeError, HandshakeRejected) as exc:
            caught = exc
        if limit < size:
            assert str(caught) == f"the head of the server's response is over {limit} bytes"
        else:
            assert isinstance(caught, HandshakeRejected) is (status[0] == "4")


LIMIT = 65_536


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope", 403, b"nope"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno", 403, b"no"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.0 500\r\n\r\nto the end", 500, b"to the end"),
        (
            b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            302,
            b"abcd",
        ),
        (b"HTTP/1.1 400 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", 400, b"abc"),
        (b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 401 X\r\nContent-Length: 1\r\n\r\ny", 401, b"y"),
    ],
)
def test_a_server_rejects(data: bytes, status: int, body: bytes, cut: int) -> None:
    handshake = client()
    with pytest.raises(HandshakeRejected) as caught:
        for piece in [*pieces(data, cut), b""]:
            assert handshake.receive(piece) is None
    assert (caught.value.status, caught.value.body) == (status, body)
    assert isinstance(caught.value.headers, Headers)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 500 X\r\n\r\n",
        b"HTTP/1.1 500 X\r\nContent-Length: 9999999999\r\n\r\n",
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n",
    ],
)
def test_a_rejection_is_read_to_64_kib(start: bytes) -> None:
    handshake = client()
    with pytest.raises(HandshakeRejected) as caught:
        for piece in [start, *[b"x" * 1000] * 70]:
            assert handshake.receive(piece) is None
    assert caught.value.body == b"x" * LIMIT


def test_both_roles_agree() -> None:
    handshake = client(subprotocols=["json"], compression=Compression())
    reader = HeadReader(16384)
    whole = reader.feed(handshake.request_bytes())
    assert whole is not None
    parsed = parse_request(whole)
    assert check_upgrade(parsed) is None
    sent = accept_response(
        parsed, subprotocol=choose_subprotocol(parsed, ["json"]), extensions=None
    )
    response = handshake.receive(sent)
    assert response is not None
    assert response.subprotocol == "json"
    other = client()
    with pytest.raises(HandshakeRejected) as caught:
        other.receive(refusal_response(Refusal(426, "Later.")))
    assert caught.value.body == b"Later.\n"
    assert caught.value.headers["upgrade"] == "websocket"


def test_h11_reads_our_responses() -> None:
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    reader.receive_data(refusal_response(Refusal(400, "Bad.")))
    event = reader.next_event()
    assert isinstance(event, h11.Response)
    assert event.status_code == 400
