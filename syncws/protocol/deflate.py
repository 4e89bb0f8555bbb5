"""permessage-deflate: what is agreed on, and the two halves at work. RFC 7692.

wsproto's own extension inflates without bound and mixes up the settings of
several offers, so the offer is chosen here and wsproto is given one fresh
`Inflate` and one fresh `Deflate` for it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from ..config import TOKEN, Compression
from ..errors import HandshakeError

__all__ = ["Deflate", "DeflateParams", "Inflate", "agree", "choose", "offer"]

_NAME = "permessage-deflate"
_SERVER_BITS = "server_max_window_bits"
_CLIENT_BITS = "client_max_window_bits"
_SERVER_AFRESH = "server_no_context_takeover"
_CLIENT_AFRESH = "client_no_context_takeover"

# RFC 7692 section 7.1.2 has 8 as well; raw deflate cannot do it.
_BITS = {str(bits): bits for bits in range(9, 16)}

# What a sync flush ends with; it is not sent. RFC 7692 section 7.2.1.
_TAIL = b"\x00\x00\xff\xff"

# Ends of a deflate stream in one frame. A sender that finishes its stream needs
# one; each costs a new decompressor and a copy of what follows it.
_MAX_STREAMS = 64

_Params = list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class DeflateParams:
    """What both ends agreed on.

    Attributes:
        server_no_context_takeover: The server starts each message afresh.
        client_no_context_takeover: The client starts each message afresh.
        server_max_window_bits: The server's window, 9 to 15.
        client_max_window_bits: The client's window, 9 to 15.
    """

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int
    client_max_window_bits: int


# -- Negotiation -----------------------------------------------------


def offer(config: Compression) -> str:
    """Return the client's Sec-WebSocket-Extensions value. RFC 7692 section 7.1."""
    parts = [_NAME]
    if config.client_max_window_bits == 15:
        parts.append(_CLIENT_BITS)
    else:
        parts.append(f"{_CLIENT_BITS}={config.client_max_window_bits}")
    if config.server_max_window_bits < 15:
        parts.append(f"{_SERVER_BITS}={config.server_max_window_bits}")
    if config.server_no_context_takeover:
        parts.append(_SERVER_AFRESH)
    if config.client_no_context_takeover:
        parts.append(_CLIENT_AFRESH)
    return "; ".join(parts)


def choose(header_values: Sequence[str], config: Compression) -> tuple[DeflateParams, str] | None:
    """Choose the first of the client's offers that we can keep.

    Args:
        header_values: Every Sec-WebSocket-Extensions value of the request.
        config: The server's wishes; the smaller window of both is taken.

    Returns:
        What holds from now on and the response's header value, or None if no
        offer is acceptable or the header is malformed.

    RFC 7692 sections 5.1 and 7.1.
    """
    try:
        offers = _parse_extensions(header_values)
    except ValueError:
        return None
    for name, params in offers:
        if name == _NAME:
            try:
                return _answer(_checked(params, valueless=True), config)
            except ValueError:
                continue
    return None


def _answer(given: dict[str, int | None], config: Compression) -> tuple[DeflateParams, str]:
    client_bits = 15
    if _CLIENT_BITS in given:
        client_bits = min(config.client_max_window_bits, given[_CLIENT_BITS] or 15)
    params = DeflateParams(
        config.server_no_context_takeover or _SERVER_AFRESH in given,
        config.client_no_context_takeover or _CLIENT_AFRESH in given,
        min(config.server_max_window_bits, given.get(_SERVER_BITS) or 15),
        client_bits,
    )
    parts = [_NAME]
    if params.server_no_context_takeover:
        parts.append(_SERVER_AFRESH)
    if params.client_no_context_takeover:
        parts.append(_CLIENT_AFRESH)
    # A server may name its own window unasked (RFC 7692 section 7.1.2.1), the
    # client's only if the client said that it understands (7.1.2.2).
    if _SERVER_BITS in given or params.server_max_window_bits < 15:
        parts.append(f"{_SERVER_BITS}={params.server_max_window_bits}")
    if _CLIENT_BITS in given:
        parts.append(f"{_CLIENT_BITS}={client_bits}")
    return params, "; ".join(parts)


def agree(header_values: Sequence[str], config: Compression | None) -> DeflateParams | None:
    """Check the server's answer to our offer.

    Args:
        header_values: Every Sec-WebSocket-Extensions value of the response.
        config: What `offer` was made of, or None if nothing was offered.

    Returns:
        What holds from now on, or None if the server declined.

    Raises:
        HandshakeError: The answer is malformed or is none to our offer.

    RFC 6455 section 4.1, RFC 7692 sections 5.1 and 7.1.
    """
    try:
        extensions = _parse_extensions(header_values)
        if not extensions:
            return None
        for name, _ in extensions:
            if config is None or name != _NAME:
                raise ValueError(f"{name!r} was not offered")
        if config is None or len(extensions) > 1:
            raise ValueError(f"{_NAME!r} is named more than once")
        return _accepted(_checked(extensions[0][1], valueless=False), config)
    except ValueError as exc:
        raise HandshakeError(
            f"the server's Sec-WebSocket-Extensions {', '.join(header_values)!r} "
            f"does not fit our offer: {exc}"
        ) from None


def _accepted(given: dict[str, int | None], config: Compression) -> DeflateParams:
    # A server that accepts an offer with these has to repeat them.
    # RFC 7692 sections 7.1.1.1 and 7.1.2.1.
    if config.server_no_context_takeover and _SERVER_AFRESH not in given:
        raise ValueError(f"{_SERVER_AFRESH} is missing")
    server_bits = given.get(_SERVER_BITS) or 15
    if server_bits > config.server_max_window_bits:
        raise ValueError(
            f"{_SERVER_BITS} is {server_bits}, more than {config.server_max_window_bits}"
        )
    return DeflateParams(
        _SERVER_AFRESH in given,
        config.client_no_context_takeover or _CLIENT_AFRESH in given,
        server_bits,
        min(config.client_max_window_bits, given.get(_CLIENT_BITS) or 15),
    )


def _checked(params: _Params, *, valueless: bool) -> dict[str, int | None]:
    # `valueless`: an offer may have client_max_window_bits without a value.
    checked: dict[str, int | None] = {}
    for name, value in params:
        if name in checked:
            raise ValueError(f"{name} is given twice")
        if name in (_SERVER_AFRESH, _CLIENT_AFRESH):
            if value is not None:
                raise ValueError(f"{name} has a value")
            checked[name] = None
        elif name in (_SERVER_BITS, _CLIENT_BITS):
            if value in _BITS:
                checked[name] = _BITS[value]
            elif value is None and valueless and name == _CLIENT_BITS:
                checked[name] = None
            else:
                raise ValueError(f"{name} must be between 9 and 15, not {value!r}")
        else:
            raise ValueError(f"{name} is unknown")
    return checked


# RFC 6455 section 9.1.
_SEPARATORS = re.compile(r"[ \t,]*")
_TOKEN = re.compile(rf"[ \t]*({TOKEN})[ \t]*")
_VALUE = re.compile(rf'[ \t]*(?:"((?:[^"\\]|\\.)*)"|((?:{TOKEN})?))[ \t]*')
_ESCAPE = re.compile(r"\\(.)")


def _parse_extensions(header_values: Sequence[str]) -> list[tuple[str, _Params]]:
    """Parse extension names with their parameters; ValueError if malformed.

    A value may be empty here: it spoils one offer, not the header.
    """
    text = ",".join(header_values)
    found: list[tuple[str, _Params]] = []
    pos = 0
    while True:
        pos += len(_SEPARATORS.match(text, pos)[0])  # type: ignore[index]  # matches ""
        if pos == len(text):
            return found
        name, pos = _parse_token(text, pos)
        params: _Params = []
        while text.startswith(";", pos):
            param, pos = _parse_token(text, pos + 1)
            value = None
            if text.startswith("=", pos):
                match = _VALUE.match(text, pos + 1)
                assert match is not None  # It matches "".
                quoted, plain = match.groups()
                value = plain if quoted is None else _ESCAPE.sub(r"\1", quoted)
                pos = match.end()
            params.append((param, value))
        found.append((name, params))
        if pos < len(text) and text[pos] != ",":
            raise ValueError(f"it is malformed at {text[pos : pos + 20]!r}")


def _parse_token(text: str, pos: int) -> tuple[str, int]:
    match = _TOKEN.match(text, pos)
    if match is None:
        raise ValueError(f"it is malformed at {text[pos : pos + 20]!r}")
    return match[1], match.end()


# -- At work ---------------------------------------------------------


class Inflate(Extension):
    """The inbound half: inflates messages, and never beyond their limit.

    The limit counts the bytes of the whole message, whatever its fragments;
    a message of exactly the limit is accepted. Messages that are not
    compressed pass through uncounted.

    Args:
        window_bits: The peer's window, 9 to 15.
        no_context_takeover: Whether the peer starts each message afresh.
        max_message_size: Inflated bytes of one message, or None for no limit.

    RFC 7692 section 7.2.2.
    """

    name = _NAME

    def __init__(
        self, *, window_bits: int, no_context_takeover: bool, max_message_size: int | None
    ) -> None:
        self._window_bits = window_bits
        self._no_context_takeover = no_context_takeover
        self._limit = max_message_size
        # Created for the first compressed message, kept between messages.
        self._decompressor: zlib._Decompress | None = None
        # About the frame that is arriving.
        self._control = False
        self._streams = 0
        # About the message, which control frames may interrupt.
        self._compressed = False
        self._inflated = 0
        self._unfinished = False  # Bytes were fed and await the tail.

    def release(self) -> None:
        """Give back the window: nothing more is inflated."""
        self._decompressor = None

    def enabled(self) -> bool:
        """Return True: it was negotiated before it was created."""
        return True

    def offer(self) -> bool:
        """Return False: the offer is made by this module's `offer`."""
        return False

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        """Note what the frame is, and tell whether it may have RSV1.

        It may on the first frame of a message only. wsproto calls this again
        for the same frame if the masking key has not arrived yet.

        RFC 7692 section 6.
        """
        self._control = opcode.iscontrol()
        if self._control or opcode is Opcode.CONTINUATION:
            if rsv.rsv1:
                return CloseReason.PROTOCOL_ERROR
        else:
            self._compressed = rsv.rsv1
            self._inflated = 0
        if not self._control:
            self._streams = 0
        return RsvBits(True, False, False)

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        """Inflate a part of a frame, or tell what the connection fails with."""
        if self._control or not self._compressed:
            return data
        return self._inflate(data)

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        """Inflate what is left when a message is complete."""
        if self._control or not fin or not self._compressed:
            return None
        self._compressed = False
        # Without a byte, or after the end of a stream, nothing awaits the tail.
        rest = self._inflate(_TAIL) if self._unfinished else b""
        self._unfinished = False
        if self._no_context_takeover:
            self._decompressor = None
        return rest

    def whole(self, payload: bytes) -> bytes | CloseReason:
        """Inflate a message that came in one frame, or tell what the connection fails with."""
        self._inflated = self._streams = 0
        if not payload:
            return b""
        if self._decompressor is None:
            self._decompressor = zlib.decompressobj(-self._window_bits)
        most = 0 if self._limit is None else self._limit + 1
        try:
            data = self._decompressor.decompress(payload + _TAIL, most)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        if self._limit is not None and len(data) > self._limit:
            return CloseReason.MESSAGE_TOO_BIG
        if self._decompressor.eof:
            return self._behind_end(data)
        if self._no_context_takeover:
            self._decompressor = None
        return data

    def _behind_end(self, data: bytes) -> bytes | CloseReason:
        """The message's stream has ended, maybe before the message has."""
        assert self._decompressor is not None
        left = self._decompressor.unused_data
        self._decompressor = None
        if left == _TAIL:
            return data
        self._inflated = len(data)
        self._streams = 1
        # What is left of the message, or of our tail if it took a part of that.
        behind = left[: -len(_TAIL)] if len(left) > len(_TAIL) else left
        rest = self._inflate(behind)
        if isinstance(rest, CloseReason):
            return rest
        if self._unfinished and behind is not left:
            tail = self._inflate(_TAIL)
            if isinstance(tail, CloseReason):
                return tail
            rest += tail
        self._unfinished = False
        if self._no_context_takeover:
            self._decompressor = None
        return data + rest

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        parts = []
        while data:
            if self._decompressor is None:
                self._decompressor = zlib.decompressobj(-self._window_bits)
            # One byte more than allowed tells; 0 would mean without bound.
            most = 0 if self._limit is None else self._limit - self._inflated + 1
            try:
                part = self._decompressor.decompress(data, most)
            except zlib.error:
                return CloseReason.INVALID_FRAME_PAYLOAD_DATA
            self._inflated += len(part)
            if self._limit is not None and self._inflated > self._limit:
                return CloseReason.MESSAGE_TOO_BIG
            parts.append(part)
            self._unfinished = not self._decompressor.eof
            if self._unfinished:
                break
            # A block with BFINAL ends a stream, not the message.
            # RFC 7692 section 7.2.3.4.
            data = self._decompressor.unused_data
            self._decompressor = None
            self._streams += 1
            if self._streams > _MAX_STREAMS:
                return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        return b"".join(parts)


class Deflate(Extension):
    """The outbound half: deflates messages.

    Each frame is flushed, so that a fragment reaches the peer at once.

    Args:
        window_bits: Our window, 9 to 15.
        no_context_takeover: Whether each message starts afresh.
        level: zlib's level, 1 to 9.
        mem_level: zlib's memory level, 1 to 9.

    Attributes:
        compress_next: Whether the next message is compressed. Looked at on its
            first frame, which the others follow.

    RFC 7692 section 7.2.1.
    """

    name = _NAME

    def __init__(
        self, *, window_bits: int, no_context_takeover: bool, level: int, mem_level: int
    ) -> None:
        self.compress_next = True
        self._no_context_takeover = no_context_takeover
        self.settings = (level, window_bits, mem_level)  # who has the same compresses the same
        # Created for the first compressed message, kept between messages.
        self._compressor: zlib._Compress | None = None
        # About the message that is being sent.
        self._compressing = False

    def enabled(self) -> bool:
        """Return True: it was negotiated before it was created."""
        return True

    def offer(self) -> bool:
        """Return False: the offer is made by this module's `offer`."""
        return False

    def release(self) -> None:
        """Give back the window between two messages; the next one starts afresh.

        The peer need not know: what does not refer to earlier messages can
        always be inflated.
        """
        self._compressor = None

    def whole(self, payload: bytes) -> bytes:
        """Return the payload of a message in one frame. RFC 7692 section 7.2.1."""
        return self._deflate(payload, True)

    def frame_outbound(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        data: bytes,
        fin: bool,
    ) -> tuple[RsvBits, bytes]:
        """Return the frame's reserved bits and payload. RFC 7692 sections 6.1 and 7.2.1."""
        if opcode.iscontrol():
            return rsv, data
        if opcode is not Opcode.CONTINUATION:
            self._compressing = self.compress_next
            if self._compressing:
                rsv = RsvBits(True, rsv.rsv2, rsv.rsv3)
        if not self._compressing:
            return rsv, data
        return rsv, self._deflate(data, fin)

    def _deflate(self, data: bytes, fin: bool) -> bytes:
        if self._compressor is None:
            level, window_bits, mem_level = self.settings
            self._compressor = zlib.compressobj(level, zlib.DEFLATED, -window_bits, mem_level)
        out = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        if fin:
            # A second flush in a row gives nothing; an empty block without its
            # tail is one zero byte. RFC 7692 section 7.2.3.6.
            out = out[: -len(_TAIL)] or b"\x00"
            if self._no_context_takeover:
                self._compressor = None
        return out
