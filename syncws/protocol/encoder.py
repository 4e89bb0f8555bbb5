"""Messages and control frames to bytes: the outbound half of a connection.

Messages of one frame, and control frames, are written here; fragments by
wsproto. RFC 6455 section 5.
"""

from __future__ import annotations

import os

from wsproto.frame_protocol import FrameProtocol

from ..errors import Close, InvalidContinuationFrameError
from .deflate import Deflate
from .events import BINARY, CLOSE, PING, PONG, TEXT
from .kernels import frame
from .plain import head

__all__ = ["APART", "Encoder", "compressed_alone"]

_FIN = 0x80
_RSV1 = 0x40

_NO_LIMIT = 1 << 63

# Bytes of a payload from which it is not copied behind its header.
APART = 16_384


class Encoder:
    """The outbound half: messages and control frames in, bytes out.

    Control frames share no state with messages: one thread may ask for them
    while another encodes a message.

    Args:
        client: Whether this end is the client, which masks what it sends.
        deflate: permessage-deflate's outbound half if it was agreed on.
        threshold: Messages of fewer bytes are not compressed.
    """

    __slots__ = ("_deflate", "_open", "_proto", "_rested", "client", "threshold")

    def __init__(self, *, client: bool, deflate: Deflate | None = None, threshold: int = 0) -> None:
        self.client = client
        self._deflate = deflate
        self.threshold = threshold if deflate else _NO_LIMIT
        self._open: int | None = None  # opcode of a fragmented message under way
        self._proto: FrameProtocol | None = None
        self._rested = True  # nothing was compressed since `rest` was last called

    def message(self, opcode: int, payload: bytes, final: bool = True) -> bytes:
        """Return the frame of a message, or of a fragment of one.

        Args:
            opcode: TEXT or BINARY.
            payload: The data; for TEXT valid UTF-8 as a whole, fragment by fragment.
            final: False if more fragments follow.

        Raises:
            InvalidContinuationFrameError: A fragmented message of the other
                type is under way; nothing has changed. RFC 6455 section 5.4.
        """
        if not final or self._open is not None:
            return self._by_wsproto(opcode, payload, final)
        first = _FIN | opcode
        if len(payload) >= self.threshold and self._deflate is not None:
            first |= _RSV1
            self._rested = False
            payload = self._deflate.whole(payload)
        return frame(first, payload, os.urandom(4) if self.client else None)

    def parts(self, opcode: int, payload: bytes, final: bool = True) -> tuple[bytes, ...]:
        """Return what `message` does in one or two parts: a large payload is not copied."""
        plain = final and self._open is None and len(payload) < self.threshold
        if self.client or not plain or len(payload) < APART:
            return (self.message(opcode, payload, final),)
        return (head(_FIN | opcode, len(payload)), payload)

    def _by_wsproto(self, opcode: int, payload: bytes, final: bool) -> bytes:
        if self._open is None:
            if self._deflate is not None:
                self._deflate.compress_next = not final or len(payload) >= self.threshold
        elif self._open != opcode:
            names = {TEXT: "text", BINARY: "binary"}
            raise InvalidContinuationFrameError(
                f"a fragmented {names[self._open]} message is under way: end it with "
                f"final=True before sending {names[opcode]}"
            )
        self._open = None if final else opcode
        self._rested = False
        if self._proto is None:
            self._proto = FrameProtocol(self.client, [self._deflate] if self._deflate else [])
        data = payload.decode() if opcode == TEXT else payload
        return bytes(self._proto.send_data(data, final))

    def rest(self) -> None:
        """Give back what compressing takes, if nothing was compressed since the last call."""
        if self._rested and self._open is None and self._deflate is not None:
            self._deflate.release()
        self._rested = True

    @property
    def settings(self) -> tuple[int, int, int] | None:
        """What it compresses with, if it does; see `compressed_alone`."""
        return None if self._deflate is None else self._deflate.settings

    def begin_afresh(self) -> None:
        """Refer to nothing before from now on."""
        if self._deflate is not None:
            self._deflate.release()

    def ping(self, payload: bytes) -> bytes:
        """Return a ping frame. RFC 6455 section 5.5.2."""
        return self._control(PING, payload)

    def pong(self, payload: bytes) -> bytes:
        """Return a pong frame. RFC 6455 section 5.5.3."""
        return self._control(PONG, payload)

    def close(self, close: Close) -> bytes:
        """Return a close frame; one without a body for code 1005. RFC 6455 section 5.5.1."""
        if close.code == 1005:
            return self._control(CLOSE, b"")
        return self._control(CLOSE, close.code.to_bytes(2, "big") + close.reason.encode())

    def _control(self, opcode: int, payload: bytes) -> bytes:
        """Return a control frame. RFC 6455 section 5.5."""
        assert len(payload) < 126
        return frame(_FIN | opcode, payload, os.urandom(4) if self.client else None)


def compressed_alone(payload: bytes, settings: tuple[int, int, int]) -> bytes:
    """Return a compressed message's payload that refers to nothing before it.

    Whoever inflates with the same window can inflate it, whatever came before.
    RFC 7692 section 7.2.1.

    Args:
        payload: The message.
        settings: Those of an `Encoder`.
    """
    level, window_bits, mem_level = settings
    deflate = Deflate(
        window_bits=window_bits, no_context_takeover=True, level=level, mem_level=mem_level
    )
    return deflate.whole(payload)
