"""What proxies begin a connection with."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncws.protocol.proxy_protocol import (
    MOST,
    Introduction,
    IntroductionError,
    IntroductionReader,
    crc32c,
)
from tests.handshakes import CUTS, pieces
from tests.introductions import TLS, V4, V6, introduction_2, local, value, with_checksum


def read(data: bytes, cut: int = -1) -> Introduction | None:
    """Return what is said by all of these bytes, however they are cut."""
    reader = IntroductionReader()
    for piece in pieces(data, cut):
        assert reader.introduction is None
        assert reader.feed(piece) == len(piece)
    return reader.introduction


GOOD: dict[bytes, Introduction] = {
    b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\n": Introduction(
        ("203.0.113.7", 56324), ("127.0.0.1", 443)
    ),
    b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n": Introduction(
        ("0.0.0.0", 0), ("255.255.255.255", 65535)
    ),
    b"PROXY TCP6 2001:DB8::7 ::1 1 2\r\n": Introduction(("2001:db8::7", 1), ("::1", 2)),
    b"PROXY TCP6 ::ffff:8.8.8.8 ::1 1 2\r\n": Introduction(("8.8.8.8", 1), ("::1", 2)),
    # The longest line that there can be, by the specification.
    b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n": Introduction(
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    b"PROXY UNKNOWN\r\n": Introduction(),
    b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n": Introduction(),
    introduction_2(V4): Introduction(("203.0.113.7", 56324), ("127.0.0.1", 443)),
    introduction_2(V6, family=0x21): Introduction(("2001:db8::7", 56324), ("::1", 443)),
    introduction_2(bytes(10) + b"\xff\xff\x08\x08\x08\x08" + V6[16:], family=0x21): Introduction(
        ("8.8.8.8", 56324), ("::1", 443)
    ),
    introduction_2(b"/run/a".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0"), family=0x31): (
        Introduction("/run/a", "\0abstract")
    ),
    introduction_2(b"", family=0x00): Introduction(),
    introduction_2(b"anything", family=0x00): Introduction(),
    introduction_2(b"anything", family=0x01): Introduction(),
    introduction_2(b"anything", family=0x10): Introduction(),
    introduction_2(V4, family=0x12): Introduction(),  # a stream comes by no datagrams
    local(): Introduction(),
    local(V4, family=0x11): Introduction(),
    local(b"x" * 50): Introduction(),
    introduction_2(V4 + TLS): Introduction(("203.0.113.7", 56324), ("127.0.0.1", 443), True),
    introduction_2(V4 + value(0x20, b"\0" * 5)): Introduction(
        ("203.0.113.7", 56324), ("127.0.0.1", 443), False
    ),
    introduction_2(V4 + value(0x02, b"a.example") + value(0x04) + value(0xE0, b"x") + TLS): (
        Introduction(("203.0.113.7", 56324), ("127.0.0.1", 443), True)
    ),
    introduction_2(V4 + value(0x04, bytes(MOST - 16 - 12 - 3))): Introduction(
        ("203.0.113.7", 56324), ("127.0.0.1", 443)
    ),
    with_checksum(V4, TLS): Introduction(("203.0.113.7", 56324), ("127.0.0.1", 443), True),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("data", GOOD, ids=range(len(GOOD)))
def test_an_introduction(data: bytes, cut: int) -> None:
    assert read(data, cut) == GOOD[data]


@pytest.mark.parametrize(
    "behind", [b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", bytes(9000)]
)
@pytest.mark.parametrize("data", GOOD, ids=range(len(GOOD)))
def test_what_is_behind_it_is_somebody_elses(data: bytes, behind: bytes) -> None:
    reader = IntroductionReader()
    assert reader.feed(data[:9]) == 9
    assert reader.feed(data[9:] + behind) == len(data) - 9
    assert reader.introduction == GOOD[data]


BAD: dict[bytes, str] = {
    b"G": "begins with something else",
    b"GET / HTTP/1.1\r\n": "begins with something else",
    b"\x16\x03\x01": "begins with something else",
    b"\r\n\r\n\0\r\nQUIX": "begins with something else",
    b"PROXX ": "begins with something else",
    b"PROXY\t": "begins with something else",
    b"proxy ": "begins with something else",
    b"PROXY \r\n": "malformed",
    b"PROXY TCP4\r\n": "malformed",
    b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n": "malformed",
    b"PROXY UNKNOWNX\r\n": "malformed",
    b"PROXY UNKNOWN \n\r\n": "malformed",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n": "malformed",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n": "malformed",
    b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n": "malformed",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n": "malformed",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n": "malformed",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n": "malformed",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 123456\r\n": "malformed",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r\n": "malformed",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n": "malformed",
    "PROXY TCP4 1.1.1.1 2.2.2.2 1 \u0662\r\n".encode(): "malformed",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n": "out of range",
    b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n": "none of TCP4",
    b"PROXY TCP4 1.1.1.1 ::1 1 2\r\n": "none of TCP4",
    b"PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n": "none of TCP4",
    b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n": "none of TCP6",
    b"PROXY UNKNOWN " + b"x" * 93: "more than 107",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n": "more than 107",
    introduction_2(V4, version=0x11): "neither 1 nor 2",
    introduction_2(V4, version=0x31): "neither 1 nor 2",
    introduction_2(V4, version=0x22): "command is unknown",
    introduction_2(V4, family=0x41): "family or protocol is unknown",
    introduction_2(V4, family=0x13): "family or protocol is unknown",
    local(family=0xFF): "family or protocol is unknown",
    introduction_2(V4[:-1]): "cut short",
    introduction_2(b""): "cut short",
    introduction_2(V4, family=0x21): "cut short",
    introduction_2(V4, family=0x31): "cut short",
    introduction_2(V4 + b"\x04"): "beyond its end",
    introduction_2(V4 + b"\x04\x00"): "beyond its end",
    introduction_2(V4 + b"\x04\x00\x01"): "beyond its end",
    introduction_2(V4 + value(0x20, b"\1")): "TLS is cut short",
    introduction_2(V4 + value(0x03, b"123")): "not of four bytes",
    introduction_2(V4 + value(0x03, b"1234")): "checksum is wrong",
    introduction_2(V4 + value(0x04, bytes(MOST))): "more than 4096",
    introduction_2(V4)[:14] + b"\xff\xff": "more than 4096",
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_what_is_no_introduction(data: bytes, cut: int) -> None:
    with pytest.raises(IntroductionError, match=BAD[data]):
        read(data, cut)


@pytest.mark.parametrize("data", [b"G", b"\r\nG", b"PROXYX", b"\r\n\r\n\0\r\nQUIT\n\x31"])
def test_what_cannot_become_one_is_refused_at_once(data: bytes) -> None:
    """Who speaks plain HTTP must not have to wait for the deadline."""
    reader = IntroductionReader()
    assert data[:-1] == b"" or reader.feed(data[:-1]) == len(data) - 1
    with pytest.raises(IntroductionError):
        reader.feed(data[-1:])


@pytest.mark.parametrize("data", GOOD, ids=range(len(GOOD)))
def test_a_part_of_one_says_nothing(data: bytes) -> None:
    assert read(data[:-1]) is None


def test_a_changed_byte_is_noticed_by_the_checksum() -> None:
    data = bytearray(with_checksum(V4, TLS))
    for position in range(16, len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        if position not in (28, 29, 30):  # the type and length of the checksum itself
            with pytest.raises(IntroductionError):
                read(bytes(changed))


def test_the_checksum_is_that_of_rfc_4960() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 appendix B.4


PORTS = st.integers(0, 65_535)
ADDRESSES = st.one_of(
    st.tuples(st.just(4), *[st.ip_addresses(v=4)] * 2),
    st.tuples(st.just(6), *[st.ip_addresses(v=6)] * 2),
)


@given(ADDRESSES, PORTS, PORTS, st.booleans(), st.data())
def test_both_versions_say_the_same(
    ends: tuple[int, Any, Any], port: int, other: int, checked: bool, data: Any
) -> None:
    version, source, destination = ends
    line = f"PROXY TCP{version} {source} {destination} {port} {other}\r\n".encode()
    block = source.packed + destination.packed + struct.pack("!HH", port, other)
    family = 0x11 if version == 4 else 0x21
    binary = with_checksum(block, b"", family) if checked else introduction_2(block, family=family)
    cut = data.draw(st.sampled_from(CUTS))
    found = read(line, cut)
    assert found == read(binary, cut)
    assert found is not None
    assert found.source == (str(getattr(source, "ipv4_mapped", None) or source), port)


@given(st.data())
def test_any_bytes_are_read_the_same_however_they_are_cut(data: Any) -> None:
    start = data.draw(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", *GOOD, *BAD]))
    keep = data.draw(st.integers(0, len(start)))
    rest = data.draw(st.binary(max_size=40))
    whole = start[:keep] + rest
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=20))

    def outcome(parts: list[bytes]) -> tuple[Any, int]:
        reader, taken = IntroductionReader(), 0
        try:
            for part in parts:
                if reader.introduction is None:
                    taken += reader.feed(part)
        except IntroductionError:
            return "refused", 0
        return reader.introduction, taken

    parts, pos = [], 0
    for size in sizes:
        parts.append(whole[pos : pos + size])
        pos += size
    assert outcome([*parts, whole[pos:]]) == outcome([whole])
