"""The target `exchange`: a plain HTTP request with its body, and the response."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import h11

from syncws.protocol.exchange import Exchange, ResponseError
from syncws.protocol.http import HeadError, HeadReader, parse_request

from .parcel import Outcome, Parcel, Violation

__all__ = ["exchange"]

_MAX_BODY = (None, 10, 200, 1)
_STATUS = ("200 OK", "204 No Content", "304 Not Modified", "500 Oops")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,20})[ \t]*(?:;[^\r\n]*)?\r\n")


class _Got(NamedTuple):
    """What came of a request.

    Attributes:
        status: What it was refused with, or None.
        body: The body, or as much as has come.
        complete: Whether that is all.
        rest: What came behind it.
    """

    status: int | None
    body: bytes = b""
    complete: bool = False
    rest: bytes = b""


def exchange(raw: bytes) -> Outcome:
    """Take any bytes as a request with a body, and answer it."""
    parcel = Parcel.parse(raw)
    got = _serve(parcel, [parcel.data])
    in_pieces = _serve(parcel, parcel.pieces())
    if got.status != in_pieces.status and None in (got.status, in_pieces.status):
        raise Violation(f"whole {got}, in pieces {in_pieces}")
    if got.status is None and got != in_pieces:
        raise Violation(f"whole {got}, in pieces {in_pieces}")
    if got.status is None and got.complete:
        _check_framing(parcel.data, got)
    return (got.status, got.complete, len(got.body).bit_length(), len(got.rest).bit_length())


def _serve(parcel: Parcel, pieces: Sequence[bytes]) -> _Got:
    reader = HeadReader(2048, 16)
    waiting = list(pieces)
    try:
        head = None
        while head is None:
            if not waiting:
                return _Got(None)
            head = reader.feed(waiting.pop(0))
        parse_request(head)
        limit = parcel.choose(0, _MAX_BODY)
        served = Exchange(head, limit)
        body = b"".join(_receive(served, [reader.rest, *waiting]))
    except HeadError as exc:
        if exc.status not in (400, 413, 414, 431, 501, 505):
            raise Violation(f"a request is refused with {exc.status}") from exc
        return _Got(exc.status)
    if len(body) != served.body_size or (limit is not None and len(body) > limit):
        raise Violation(f"{len(body)} bytes of a body, {served.body_size} were counted")
    got = _Got(None, body, served.body_complete, served.rest)
    if len(served.rest) != served.rest_size:
        raise Violation("the rest is counted wrongly")
    _respond(parcel, served, head.startswith(b"HEAD "))
    return got


def _receive(served: Exchange, pieces: Sequence[bytes]) -> list[bytes]:
    parts: list[bytes] = []
    for piece in pieces:
        parts += served.receive(piece)
        while served.unparsed:
            parts += served.receive(b"")
        if served.wants_continue and not served.body_complete and not served.started:
            served.go_on()
    return parts


def _check_framing(data: bytes, got: _Got) -> None:
    """The body ends where the simplest reader of RFC 9112 section 6 sees its end."""
    head, _, after = data.partition(b"\r\n\r\n")
    lengths = re.findall(rb"(?im)^content-length:[ \t]*([0-9, \t]+?)[ \t]*\r?$", head)
    if re.search(rb"(?im)^transfer-encoding:", head):
        body, rest = _dechunk(after)
    else:
        size = int(re.split(rb"[ \t]*,[ \t]*", lengths[0])[0]) if lengths else 0
        body, rest = after[:size], after[size:]
    if (got.body, got.rest) != (body, rest):
        raise Violation(f"read {got.body!r:.300} and {got.rest!r:.300}, not {body!r} and {rest!r}")


def _dechunk(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    pos = 0
    while True:
        found = _CHUNK.match(data, pos)
        if found is None:
            raise Violation(f"took {data[pos : pos + 50]!r} for a chunk")
        size = int(found[1], 16)
        pos = found.end()
        if not size:
            break
        body += data[pos : pos + size]
        pos += size + 2
        if data[pos - 2 : pos] != b"\r\n":
            raise Violation(f"took {data[pos - 2 : pos]!r} for the end of a chunk")
    if data.startswith(b"\r\n", pos):
        return body, data[pos + 2 :]
    end = data.find(b"\r\n\r\n", pos)
    if end < 0:
        raise Violation("took something else for the end of the trailers")
    return body, data[end + 4 :]


def _respond(parcel: Parcel, served: Exchange, is_head: bool) -> None:
    """Answer, and read the answer as a client does."""
    status = parcel.choose(2, _STATUS)
    text = b"x" * parcel.bits(8, 5)
    length = parcel.choose(4, (None, 0, 7, len(text)))
    headers = [] if length is None else [("Content-Length", str(length))]
    wire = served.start(status, headers, last=bool(parcel.bits(6)))
    for piece in served.data(text):
        wire += piece
    try:
        wire += served.end()
    except ResponseError:
        if length is None or len(text) >= length:
            raise
        return
    client = h11.Connection(h11.CLIENT)
    method = "HEAD" if is_head else "GET"
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    client.receive_data(b"")
    body = b""
    event = client.next_event()
    if not isinstance(event, h11.Response):
        raise Violation(f"the answer is {event!r}")
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    if not isinstance(event, h11.EndOfMessage):
        raise Violation(f"the answer ends with {event!r}")
    expected = text if length is None else text[:length]
    if body != (b"" if is_head or status[:3] in ("204", "304") else expected):
        raise Violation(f"the answer's body is {body!r}")
