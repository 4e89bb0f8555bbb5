"""The targets by name, and words that help to reach deeper into each.

A target takes any bytes, see `parcel`. It returns what came of them, and raises
for whatever must not happen: any exception at all is a finding.
"""

from __future__ import annotations

from collections.abc import Callable

from .bodies import exchange
from .frames import deflate, frames
from .handshakes import client_handshake, server_handshake
from .introductions import proxies
from .parcel import Outcome

__all__ = ["MAX_SIZE", "TARGETS", "TOKENS", "Target"]

Target = Callable[[bytes], Outcome]

#: Bytes of an input at the most.
MAX_SIZE = 4096

TARGETS: dict[str, Target] = {
    "server_handshake": server_handshake,
    "client_handshake": client_handshake,
    "frames": frames,
    "deflate": deflate,
    "exchange": exchange,
    "proxies": proxies,
}

_HTTP = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b": ",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Connection: ",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"keep-alive",
    b"close",
]
_UPGRADE = [
    b"Upgrade: websocket\r\n",
    b"Connection: Upgrade\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    b"Sec-WebSocket-Version: 13\r\n",
    b"Sec-WebSocket-Protocol: ",
    b"Sec-WebSocket-Extensions: permessage-deflate",
    b"; client_max_window_bits",
    b"; server_max_window_bits=",
    b"; server_no_context_takeover",
    b"; client_no_context_takeover",
    b"Origin: http://",
    b"Host: ",
    b"Cookie: ",
]
_FRAMES = [
    *(bytes((first, second)) for first in (0x00, 0x01, 0x02, 0x41, 0x80) for second in (0, 0x80)),
    *(bytes((first, 0x81)) for first in (0x81, 0x82, 0xC1, 0xC2, 0x88, 0x89, 0x8A)),
    b"\x88\x02\x03\xe8",
    b"\x7e\x00\x7e",
    b"\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
    b"\x00\x00\x00\x00",
    b"\xe2\x82\xac",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
]

#: Words that the mutations use, by target.
TOKENS: dict[str, list[bytes]] = {
    "server_handshake": [b"GET / HTTP/1.1\r\n", b"/chat/7?a=b", b"%2F", *_HTTP, *_UPGRADE],
    "client_handshake": [b"HTTP/1.1 101 \r\n", b"HTTP/1.1 100 \r\n\r\n", *_HTTP, *_UPGRADE],
    "frames": _FRAMES,
    "deflate": [b"\x00\x00\xff\xff", b"\x03\x00", b"\x00", b"||", b"\x4a\x04\x00"],
    "proxies": [
        b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\n",
        b"PROXY UNKNOWN",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c",
        b"\x03\x00\x04",
        b"\x20\x00\x05\x01",
        b"X-Forwarded-For: 10.0.0.1, ",
        b"X-Forwarded-Proto: https\r\n",
        b"X-Forwarded-Host: ",
        b"X-Forwarded-Port: ",
        b"Forwarded: for=",
        b";proto=https",
        b';host="',
        b'"[2001:db8::1]:1"',
        b"::ffff:10.0.0.1",
        b"unknown",
        *_HTTP[:5],
    ],
    "exchange": [b"POST / HTTP/1.1\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b";a=b", *_HTTP],
}
