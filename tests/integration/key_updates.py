"""Records of TLS 1.3 by hand: updates of keys, as many as one likes. RFC 8446 sections 4.6.3, 7."""

from __future__ import annotations

import hmac
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["Keys"]

_HANDSHAKE, _DATA = 0x16, 0x17


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label of SHA-384, for up to 48 bytes."""
    label = b"tls13 " + label
    info = struct.pack("!HB", size, len(label)) + label + b"\0\x01"
    return hmac.digest(secret, info, "sha384")[:size]


class Keys:
    """A client's sending keys in TLS_AES_256_GCM_SHA384; nothing else may send.

    Args:
        log: What `ssl.SSLContext.keylog_filename` names, after the handshake.
    """

    def __init__(self, log: Path) -> None:
        lines = [line.split() for line in log.read_text().splitlines()]
        (secret,) = [line[2] for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0"]
        self._use(bytes.fromhex(secret))

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(_expand(secret, b"key", 32))
        self._iv = int.from_bytes(_expand(secret, b"iv", 12), "big")
        self._count = 0

    def seal(self, content: bytes, kind: int = _DATA) -> bytes:
        """Return a record."""
        nonce = (self._iv ^ self._count).to_bytes(12, "big")
        self._count += 1
        head = struct.pack("!BHH", 0x17, 0x0303, len(content) + 17)
        return head + self._cipher.encrypt(nonce, content + bytes([kind]), head)

    def update(self, ask: bool) -> bytes:
        """Return the record that changes these keys, and may ask for the same of the peer."""
        record = self.seal(b"\x18\0\0\x01" + bytes([ask]), _HANDSHAKE)
        self._use(_expand(self._secret, b"traffic upd", 48))
        return record
