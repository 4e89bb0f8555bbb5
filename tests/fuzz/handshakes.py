"""The targets `server_handshake` and `client_handshake`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import h11

from syncws.config import Compression, ConnectionConfig
from syncws.errors import HandshakeError, HandshakeRejected
from syncws.protocol import client_handshake as client_module
from syncws.protocol import deflate
from syncws.protocol.client_handshake import Agreement, ClientHandshake
from syncws.protocol.codec import make_codec
from syncws.protocol.http import HeadError, HeadReader, Request, parse_request, target_for_log
from syncws.protocol.server_handshake import (
    Refusal,
    accept_response,
    check_origin,
    check_upgrade,
    choose_subprotocol,
    refusal_response,
)
from syncws.protocol.uri import parse_uri
from syncws.server.routing import Router
from tests.handshakes import KEY

from .parcel import Outcome, Parcel, Violation

__all__ = ["client_handshake", "server_handshake"]

_ORIGINS: tuple[tuple[str, ...], ...] = ((), ("*",), ("https://app.example",), ())
_SUBPROTOCOLS: tuple[tuple[str, ...], ...] = ((), ("chat",), ("xml", "json"), ("json", "chat"))
_COMPRESSION = (
    None,
    Compression(),
    Compression(server_max_window_bits=9, client_max_window_bits=15),
    Compression(server_no_context_takeover=True, client_no_context_takeover=True),
)
_MAX_HEAD = 2048
_MAX_HEADERS = 16


def _router() -> Router:
    router = Router()
    for path in ("/", "/chat", "/chat/{room:int}", "/{name}/x", "/files/{rest:path}"):
        router.attach(path, None)
    return router


_ROUTER = _router()


def _differ(what: str, some: object, other: object) -> None:
    if some != other:
        raise Violation(f"{what}: {some!r:.1000} is not {other!r:.1000}")


# -- The server ------------------------------------------------------


def server_handshake(raw: bytes) -> Outcome:
    """Answer any bytes that a client may begin with."""
    parcel = Parcel.parse(raw)
    outcome, answer = _serve(parcel, [parcel.data])
    # Which of several faults is named may depend on what has come first.
    _, in_pieces = _serve(parcel, parcel.pieces())
    _differ("whole and in pieces", answer, in_pieces)
    return outcome


def _serve(parcel: Parcel, pieces: Sequence[bytes]) -> tuple[Outcome, tuple[Any, ...]]:
    """Return what came of it; and the status, and if that is 101 all else."""
    reader = HeadReader(_MAX_HEAD, _MAX_HEADERS)
    fed = b""
    try:
        for piece in pieces:
            fed += piece
            head = reader.feed(piece)
            if head is not None:
                break
        else:
            if len(fed) >= _MAX_HEAD:
                raise Violation("an endless head is read on")
            return ("no head",), (None,)
        request = parse_request(head, is_secure=bool(parcel.bits(6)))
    except HeadError as exc:
        _check_response(refusal_response(Refusal(exc.status, exc.text)), exc.status)
        return ("no request", exc.status, exc.text[:70]), ("refused",)
    _differ("the head and what follows", head + reader.rest, fed)
    _look_at(request)
    refusal = check_upgrade(request) or check_origin(
        request, parcel.choose(0, _ORIGINS), bool(parcel.bits(6))
    )
    if refusal is not None:
        head_only = request.method == "HEAD"
        response = refusal_response(refusal, head_only=head_only)
        _check_response(response, refusal.status, head_only=head_only)
        return ("refused", refusal.status, str(refusal.text)[:40]), ("refused",)
    _check_accepted(head)
    return _accept(parcel, request, reader.rest, len(parcel.data) - len(fed))


def _accept(
    parcel: Parcel, request: Request, rest: bytes, unread: int
) -> tuple[Outcome, tuple[Any, ...]]:
    subprotocol = choose_subprotocol(request, parcel.choose(2, _SUBPROTOCOLS))
    compression = parcel.choose(4, _COMPRESSION)
    extensions = request.headers.get_all("Sec-WebSocket-Extensions")
    chosen = None if compression is None else deflate.choose(extensions, compression)
    answer = None
    if chosen is not None:
        params, answer = chosen
        # The client that wished for this must be able to take it.
        for bits in (params.server_max_window_bits, params.client_max_window_bits):
            if not 9 <= bits <= 15:
                raise Violation(f"agreed on a window of {bits} bits")
        make_codec(ConnectionConfig(compression=compression or False), params, client=False)
    response = accept_response(request, subprotocol=subprotocol, extensions=answer)
    _check_response(response, 101)
    outcome = ("accepted", subprotocol, answer, bool(rest))
    return outcome, (101, request, response, len(rest) + unread)


def _look_at(request: Request) -> None:
    """Do what a listener and a user's resource do with a request."""
    target_for_log(request).encode()
    route = _ROUTER.match(request.raw_path)
    if route is not None:
        dict(route.params)
    for text in (request.path, *request.query, *request.query.raw, *request.cookies.items()):
        hash(text)
    dict(request.headers)
    hash(request)


def _check_accepted(head: bytes) -> None:
    """An accepted head is one by the letter, read in the simplest way. RFC 6455 section 4.2.1."""
    text = head.decode("latin-1")
    line, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
    if not re.fullmatch(r"GET [!-~\x80-\xff]+ HTTP/1\.1", line):
        raise Violation(f"accepted the request line {line!r}")
    names = [name.lower() for name in (field.partition(":")[0] for field in lines)]
    for name in ("host", "sec-websocket-key", "sec-websocket-version"):
        if names.count(name) != 1:
            raise Violation(f"accepted a request with {names.count(name)} headers {name}")
    if "transfer-encoding" in names or re.search(r"[\r\n\0]", "".join(lines)):
        raise Violation(f"accepted the head {head!r}")
    lengths = [f.partition(":")[2] for f in lines if f.lower().startswith("content-length")]
    if any(length.strip("0 \t,") for length in lengths):
        raise Violation("accepted a request with a body")


def _check_response(response: bytes, status: int, *, head_only: bool = False) -> None:
    """A client sees one response, and nothing behind it."""
    head, _, body = response.partition(b"\r\n\r\n")
    if re.search(rb"(?<!\r)\n|\r(?!\n)|\0", head):
        raise Violation(f"the response's head has a bare line break: {head!r}")
    client = h11.Connection(h11.CLIENT)
    fields = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
    client.send(h11.Request(method="HEAD" if head_only else "GET", target="/", headers=fields))
    client.send(h11.EndOfMessage())
    client.receive_data(response)
    event = client.next_event()
    if not isinstance(event, (h11.InformationalResponse, h11.Response)):
        raise Violation(f"the response is {event!r}")
    _differ("the status", event.status_code, status)
    if status == 101:
        _differ("behind a 101", body, b"")
        return
    got = b""
    while isinstance(event := client.next_event(), h11.Data):
        got += event.data
    if not isinstance(event, h11.EndOfMessage):
        raise Violation(f"the response ends with {event!r}")
    _differ("the body", got, body)


# -- The client ------------------------------------------------------


def client_handshake(raw: bytes) -> Outcome:
    """Take any bytes that a server may answer with."""
    parcel = Parcel.parse(raw)
    result = _dial(parcel, [parcel.data])
    in_pieces = _dial(parcel, parcel.pieces())
    # What is no HTTP is quoted as far as it has come.
    _differ("whole and in pieces", _kind(result), _kind(in_pieces))
    if isinstance(result, Agreement) and isinstance(in_pieces, Agreement):
        _differ("whole and in pieces", result, in_pieces)
        return ("agreed", result.subprotocol, result.deflate, bool(result.rest))
    if isinstance(result, HandshakeRejected) and isinstance(in_pieces, HandshakeRejected):
        # Its body ends with the piece in which it turns out to be wrong.
        _differ("whole and in pieces", result.response.headers, in_pieces.response.headers)
        str(result).encode()
        return ("rejected", result.status, len(result.body).bit_length())
    return (_kind(result)[0], re.sub(r" b?['\"].*", "", str(result))[:70])


def _kind(result: Agreement | HandshakeError | HandshakeRejected) -> Outcome:
    status = result.status if isinstance(result, HandshakeRejected) else None
    return (type(result).__name__, status)


def _dial(
    parcel: Parcel, pieces: Sequence[bytes]
) -> Agreement | HandshakeError | HandshakeRejected:
    compression = parcel.choose(4, _COMPRESSION)
    subprotocols = parcel.choose(2, _SUBPROTOCOLS)
    nonce: Callable[[], bytes] = KEY.encode
    with mock.patch.object(client_module, "generate_nonce", nonce):
        handshake = ClientHandshake(
            parse_uri("ws://example.com/chat"),
            subprotocols=subprotocols,
            compression=compression,
            headers=(),
            max_size=_MAX_HEAD,
        )
    try:
        for number, piece in enumerate([*pieces, b""]):
            agreement = handshake.receive(piece)
            if agreement is not None:
                left = b"".join(pieces[number + 1 :])
                return _agreed(agreement, left, subprotocols, compression)
    except (HandshakeError, HandshakeRejected) as exc:
        return exc
    raise Violation("the handshake goes on at the end of TCP")


def _agreed(
    agreement: Agreement,
    left: bytes,
    subprotocols: Sequence[str],
    compression: Compression | None,
) -> Agreement:
    if agreement.subprotocol is not None and agreement.subprotocol not in subprotocols:
        raise Violation(f"agreed on {agreement.subprotocol!r}")
    params = agreement.deflate
    if params is not None:
        if compression is None:
            raise Violation("agreed on what was not offered")
        if params.server_max_window_bits > compression.server_max_window_bits:
            raise Violation(f"agreed on {params}")
    config = ConnectionConfig(compression=compression or False, max_message_size=1000)
    decoder, _ = make_codec(config, params, client=True)
    decoder.receive(agreement.rest)
    return Agreement(agreement.response, agreement.subprotocol, params, agreement.rest + left)
