"""Handshake requests to begin from, and ways to cut them."""

from __future__ import annotations

from collections.abc import Sequence

from syncws.protocol.headers import Headers
from syncws.protocol.http import Request

# The example of RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

FIELDS = (
    ("Host", "example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)


def request(
    *extra: tuple[str, str], without: str = "", method: str = "GET", version: str = "1.1"
) -> Request:
    """A good request; `extra` replaces or adds headers, `without` leaves one out."""
    replaced = {name.lower() for name, _ in extra} | {without.lower()}
    fields = [field for field in FIELDS if field[0].lower() not in replaced]
    return Request(method, "/chat", "/chat", "", Headers([*fields, *extra]), version)


def head(line: str = "GET /chat HTTP/1.1", fields: Sequence[tuple[str, str]] = FIELDS) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def pieces(data: bytes, cut: int) -> list[bytes]:
    step = cut or max(1, -(-len(data) // 2)) if cut >= 0 else len(data)
    return [data[start : start + step] for start in range(0, len(data), step)]


# Whole, in halves, byte by byte, and two sizes that part line ends.
CUTS = [-1, 0, 1, 2, 3]
