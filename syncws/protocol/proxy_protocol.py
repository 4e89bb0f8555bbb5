"""The PROXY protocol, versions 1 and 2: what a proxy says before anything of the client's.

Bytes in, an introduction out. The specification is haproxy's
doc/proxy-protocol.txt; sections named here are its.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["MOST", "Introduction", "IntroductionError", "IntroductionReader", "crc32c"]

#: (host, port), or the path of a Unix-domain socket.
Address = tuple[str, int] | str

# With the line end. Section 2.1.
_MOST_1 = 107
_START_1 = b"PROXY "
_LINE = re.compile(
    r"PROXY (?:(TCP4) ([0-9.]+)|(TCP6) ([0-9A-Fa-f:.]+)) ([0-9A-Fa-f:.]+) "
    r"(0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")

_START_2 = b"\r\n\r\n\0\r\nQUIT\n"
_HEAD_2 = len(_START_2) + 4

# Bytes of addresses and further values. What proxies add, names of
# certificates and clouds, takes some hundreds.
_MOST_2 = 4096

#: Bytes that an introduction may have.
MOST = _HEAD_2 + _MOST_2

_LOCAL, _PROXY = 0, 1
_INET, _INET6, _UNIX = 1, 2, 3
_STREAM, _DGRAM = 1, 2

_CRC32C, _SSL = 0x03, 0x20
_CLIENT_SSL = 0x01


class IntroductionError(ValueError):
    """What has come is no introduction, or a broken one."""


class Introduction(NamedTuple):
    """What a proxy says of a connection.

    Attributes:
        source: Where the client is. None: the proxy does not say, or the
            connection is its own, to see whether the listener is well.
        destination: Where the client has connected to, or None.
        secure: Whether the client came over TLS, as far as the proxy says.
    """

    source: Address | None = None
    destination: Address | None = None
    secure: bool = False


class IntroductionReader:
    """Collects one introduction, however its bytes are cut.

    Attributes:
        introduction: What was said, once it is complete.
    """

    __slots__ = ("_buffer", "introduction")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.introduction: Introduction | None = None

    def feed(self, data: bytes) -> int:
        """Take bytes; return how many of them belong to the introduction.

        Those behind it are not looked at.

        Raises:
            IntroductionError: As soon as it is clear that it cannot be right.
        """
        seen = len(self._buffer)
        self._buffer += data
        end = _end_of(self._buffer)
        if end is None:
            return len(data)
        whole = bytes(self._buffer[:end])
        self.introduction = _parse_1(whole) if whole.startswith(_START_1) else _parse_2(whole)
        return end - seen


def _end_of(buffer: bytearray) -> int | None:
    """Return where the introduction ends, or None if it goes on."""
    if _START_2.startswith(buffer[: len(_START_2)]):
        return _end_of_2(buffer)
    if not _START_1.startswith(buffer[: len(_START_1)]):
        raise IntroductionError("it begins with something else")
    found = buffer.find(b"\r\n", 0, _MOST_1)
    if found >= 0:
        return found + 2
    if len(buffer) >= _MOST_1:
        raise IntroductionError(f"its line has more than {_MOST_1} bytes")
    return None


def _end_of_2(buffer: bytearray) -> int | None:
    if len(buffer) > len(_START_2) and buffer[len(_START_2)] >> 4 != 2:
        raise IntroductionError("its version is neither 1 nor 2")
    if len(buffer) < _HEAD_2:
        return None
    size = int.from_bytes(buffer[_HEAD_2 - 2 : _HEAD_2], "big")
    if size > _MOST_2:
        raise IntroductionError(f"it has {size} bytes, more than {_MOST_2}")
    return _HEAD_2 + size if len(buffer) >= _HEAD_2 + size else None


# -- Version 1 ----------------------------------------------------------


def _parse_1(line: bytes) -> Introduction:
    """Section 2.1."""
    if _UNKNOWN.fullmatch(line):
        return Introduction()
    match = _LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        raise IntroductionError("its line is malformed")
    source, destination, *ports = match[2] or match[4], match[5], int(match[6]), int(match[7])
    family = ipaddress.IPv4Address if match[1] else ipaddress.IPv6Address
    if max(ports) > 65_535:
        raise IntroductionError("a port is out of range")
    try:
        ends = [_text(family(end)) for end in (source, destination)]
    except ValueError:
        raise IntroductionError(f"an address is none of {match[1] or match[3]}") from None
    return Introduction((ends[0], ports[0]), (ends[1], ports[1]))


def _text(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return str((isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip)


# -- Version 2 ----------------------------------------------------------


def _parse_2(data: bytes) -> Introduction:
    """Section 2.2."""
    command, protocol = data[len(_START_2)] & 0x0F, data[len(_START_2) + 1]
    family, kind = protocol >> 4, protocol & 0x0F
    if command not in (_LOCAL, _PROXY):
        raise IntroductionError("its command is unknown")
    if family > _UNIX or kind > _DGRAM:
        raise IntroductionError("its family or protocol is unknown")
    if command == _LOCAL or not family or kind != _STREAM:
        # What else there is belongs to addresses that say nothing here.
        return Introduction()
    size = {_INET: 12, _INET6: 36, _UNIX: 216}[family]
    if len(data) < _HEAD_2 + size:
        raise IntroductionError("its addresses are cut short")
    source, destination = _addresses(family, data[_HEAD_2 : _HEAD_2 + size])
    return Introduction(source, destination, _read_values(data, _HEAD_2 + size))


def _addresses(family: int, block: bytes) -> tuple[Address, Address]:
    if family == _UNIX:
        paths = block[:108], block[108:]
        source, destination = (_path(path) for path in paths)
        return source, destination
    if family == _INET:
        ends = ipaddress.IPv4Address(block[:4]), ipaddress.IPv4Address(block[4:8])
        return _with_ports(_text(ends[0]), _text(ends[1]), block[8:])
    ends_6 = ipaddress.IPv6Address(block[:16]), ipaddress.IPv6Address(block[16:32])
    return _with_ports(_text(ends_6[0]), _text(ends_6[1]), block[32:])


def _path(raw: bytes) -> str:
    # An abstract one begins with a null.
    return (raw[:1] + raw[1:].partition(b"\0")[0]).decode("utf-8", "replace").rstrip("\0")


def _with_ports(source: str, destination: str, ports: bytes) -> tuple[Address, Address]:
    first, second = struct.unpack("!HH", ports)
    return (source, first), (destination, second)


def _read_values(data: bytes, pos: int) -> bool:
    """Check what follows the addresses; return whether the client came over TLS."""
    secure = False
    for kind, start, end in _values(data, pos):
        if kind == _CRC32C:
            _check_sum(data, start, end)
        elif kind == _SSL:
            if end - start < 5:
                raise IntroductionError("what it says of TLS is cut short")
            secure = bool(data[start] & _CLIENT_SSL)
    return secure


def _values(data: bytes, pos: int) -> Iterator[tuple[int, int, int]]:
    """Yield the type of each value, where it begins and where it ends. Section 2.2."""
    while pos < len(data):
        start = pos + 3
        end = start + int.from_bytes(data[pos + 1 : start], "big")
        if end > len(data):
            raise IntroductionError("a value goes beyond its end")
        yield data[pos], start, end
        pos = end


def _check_sum(data: bytes, start: int, end: int) -> None:
    """Section 2.2.3."""
    if end - start != 4:
        raise IntroductionError("its checksum is not of four bytes")
    blank = data[:start] + bytes(4) + data[end:]
    if int.from_bytes(data[start:end], "big") != crc32c(blank):
        raise IntroductionError("its checksum is wrong")


@functools.cache
def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        rest = byte
        for _ in range(8):
            rest = rest >> 1 ^ (0x82F63B78 if rest & 1 else 0)
        table.append(rest)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """Return the checksum of RFC 4960, appendix B."""
    table, total = _table(), 0xFFFFFFFF
    for byte in data:
        total = total >> 8 ^ table[(total ^ byte) & 0xFF]
    return total ^ 0xFFFFFFFF
