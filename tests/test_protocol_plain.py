from __future__ import annotations

import random

import pytest

from syncws.protocol.plain import mask

# Around every border that an implementation may have: words, the switch from
# integers to tables, a frame's length fields.
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 125, 126, 127, 1023, 1024, 1025, 1027, 65_536]
KEYS = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04", b"\0\0\0\x80", b"\x37\xfa\x21\x3d"]


def by_definition(data: bytes, key: bytes) -> bytes:
    """RFC 6455 section 5.3, to the letter."""
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(data))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", KEYS, ids=bytes.hex)
def test_every_octet_is_xored_with_its_octet_of_the_key(size: int, key: bytes) -> None:
    data = random.Random(size).randbytes(size)
    masked = mask(data, key)
    assert masked == by_definition(data, key)
    assert type(masked) is bytes
    assert mask(masked, key) == data


def test_the_example_of_the_rfc() -> None:
    # RFC 6455 section 5.7.
    assert mask(bytes.fromhex("7f9f4d5158"), bytes.fromhex("37fa213d")) == b"Hello"


@pytest.mark.parametrize("size", [5, 5000])
def test_the_argument_is_not_changed(size: int) -> None:
    data = bytearray(range(5)) * (size // 5)
    before = bytes(data)
    mask(bytes(data), b"abcd")
    assert data == before
