"""What a client is let in with."""

from __future__ import annotations

from typing import Any

import pytest

import syncws
from syncws.callbacks import ServiceSpec
from syncws.server.admission import Terms, agree
from tests.handshakes import ACCEPT, request

OFFERS = (
    ("Sec-WebSocket-Protocol", "json, xml"),
    ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
)


def terms(*headers: tuple[str, str], config: dict[str, Any], **options: Any) -> Terms:
    class Chat(syncws.Service):
        def on_text(self, caller: Any, text: str) -> None: ...

    Chat.config = syncws.ServiceConfig(**config)
    return agree(request(*headers), ServiceSpec(Chat, client=False), **options)


def test_the_service_chooses() -> None:
    agreed = terms(*OFFERS, config={"subprotocols": ("xml", "json")})
    assert agreed.subprotocol == "xml"
    assert agreed.deflate is not None
    assert agreed.response.startswith(b"HTTP/1.1 101 ")
    for line in (
        b"Sec-WebSocket-Accept: " + ACCEPT.encode(),
        b"Sec-WebSocket-Protocol: xml",
        b"Sec-WebSocket-Extensions: permessage-deflate; ",
    ):
        assert b"\r\n" + line in agreed.response


def test_a_subprotocol_and_headers_that_are_given() -> None:
    agreed = terms(
        *OFFERS,
        config={"subprotocols": ("xml",), "compression": False},
        subprotocol="json",
        headers=[("X-Room", "a"), ("Set-Cookie", "b=1"), ("Set-Cookie", "c=2")],
    )
    assert (agreed.subprotocol, agreed.deflate) == ("json", None)
    assert agreed.response.endswith(
        b"Sec-WebSocket-Protocol: json\r\nX-Room: a\r\nSet-Cookie: b=1\r\nSet-Cookie: c=2\r\n\r\n"
    )


def test_nothing_is_agreed_on_that_is_not_offered() -> None:
    agreed = terms(config={"subprotocols": ("xml",)})
    assert (agreed.subprotocol, agreed.deflate) == (None, None)
    assert b"Protocol:" not in agreed.response
    assert b"Extensions" not in agreed.response


def test_a_reserved_header_is_refused() -> None:
    with pytest.raises(ValueError, match="set by the handshake"):
        terms(config={}, headers=[("Sec-WebSocket-Accept", "x")])
