"""The target `proxies`: what a proxy begins a connection with, and what the request has of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from syncws.protocol.forwarded import Client, TrustedProxies, split_host
from syncws.protocol.http import HeadError, HeadReader, parse_request
from syncws.protocol.proxy_protocol import (
    MOST,
    Introduction,
    IntroductionError,
    IntroductionReader,
)

from .parcel import Outcome, Parcel, Violation

__all__ = ["proxies"]

_PEER = ("127.0.0.1", 9)
_HEADERS = (
    ("X-Forwarded-For", "X-Forwarded-Proto"),
    ("Forwarded",),
    ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port"),
    (),
)
_TRUSTED = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")


def proxies(raw: bytes) -> Outcome:
    """Take any bytes as an introduction and a request; without one by the settings' bit 0."""
    parcel = Parcel.parse(raw)
    if not parcel.bits(0):
        return ("no introduction", *_forwarded(parcel, parcel.data, Introduction(_PEER)))
    said, taken = _introduction([parcel.data])
    if (said, taken) != _introduction(parcel.pieces()):
        raise Violation(f"whole {said}, in pieces {_introduction(parcel.pieces())}")
    if isinstance(said, str) or said is None:
        return (said,)
    if taken > MOST:
        raise Violation(f"an introduction has {taken} bytes")
    _check(said.source)
    _check(said.destination)
    return (said.secure, *_forwarded(parcel, parcel.data[taken:], said))


def _introduction(pieces: Sequence[bytes]) -> tuple[Introduction | str | None, int]:
    """Return what was said, and how many bytes it took."""
    reader, taken = IntroductionReader(), 0
    for piece in pieces:
        try:
            size = reader.feed(piece)
        except IntroductionError:
            return "refused", 0
        if not 0 <= size <= len(piece):
            raise Violation(f"{size} of {len(piece)} bytes were taken")
        taken += size
        if reader.introduction is not None:
            break
        if size != len(piece):
            raise Violation("bytes are left though it goes on")
    return reader.introduction, taken


def _forwarded(parcel: Parcel, data: bytes, said: Introduction) -> Outcome:
    if not isinstance(said.source, tuple):
        return (said.source is None,)
    reader = HeadReader(2048, 16)
    trusted = TrustedProxies(_TRUSTED, parcel.choose(1, _HEADERS))
    try:
        head = reader.feed(data)
        if head is None:
            return ("no head",)
        request = parse_request(head, remote_address=said.source)
        found = trusted.client(request.headers, said.source, said.secure)
    except HeadError as exc:
        return (exc.status,)
    if not trusted.trusts(said.source) and found != Client(said.source, said.secure):
        raise Violation(f"{said.source} has made itself {found}")
    _check(found.address)
    if found.host:
        split_host(found.host, 80)
    return (found.address == said.source, found.secure, bool(found.host))


def _check(address: tuple[str, int] | str | None) -> None:
    if not isinstance(address, tuple) or address[0] == "unknown" or address[0][:1] == "_":
        return
    if str(ipaddress.ip_address(address[0])) != address[0] or not 0 <= address[1] < 65_536:
        raise Violation(f"{address} is no address as it should be written")
