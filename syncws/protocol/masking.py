"""Masking of payloads. RFC 6455 section 5.3."""

from __future__ import annotations

__all__ = ["mask"]

_XOR = [bytes(byte ^ key for byte in range(256)) for key in range(256)]

# Above this many bytes four table look-ups beat one XOR of big integers.
_TABLE_FROM = 1024


def mask(data: bytes, key: bytes, _int: type[int] = int) -> bytes:
    """Return `data` XORed with the 4 bytes of `key`, over and over.

    Masking twice with one key gives the data back.
    """
    size = len(data)
    if size < _TABLE_FROM:
        keys = (key * ((size >> 2) + 1))[:size]
        return (_int.from_bytes(data, "little") ^ _int.from_bytes(keys, "little")).to_bytes(
            size, "little"
        )
    out = bytearray(data)
    for offset in range(4):
        out[offset::4] = out[offset::4].translate(_XOR[key[offset]])
    return bytes(out)
