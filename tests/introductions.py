"""Headers of the PROXY protocol, to begin from."""

from __future__ import annotations

import socket
import struct

from syncws.protocol.proxy_protocol import crc32c

__all__ = ["LINE", "TLS", "V4", "V6", "introduction_2", "local", "value", "with_checksum"]

_START = b"\r\n\r\n\0\r\nQUIT\n"

#: Version 1, from 203.0.113.7 as all of these.
LINE = b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\n"

_PORTS = struct.pack("!HH", 56324, 443)
V4 = socket.inet_aton("203.0.113.7") + socket.inet_aton("127.0.0.1") + _PORTS
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "::1")
    + _PORTS
)


def introduction_2(block: bytes, *, version: int = 0x21, family: int = 0x11) -> bytes:
    """Return a header of version 2."""
    return _START + struct.pack("!BBH", version, family, len(block)) + block


def local(block: bytes = b"", family: int = 0x00) -> bytes:
    """Return one of a proxy's own connection."""
    return introduction_2(block, version=0x20, family=family)


def value(kind: int, data: bytes = b"") -> bytes:
    """Return what can follow the addresses."""
    return struct.pack("!BH", kind, len(data)) + data


#: The client has come over TLS.
TLS = value(0x20, b"\1\0\0\0\0" + value(0x21, b"TLSv1.3"))


def with_checksum(block: bytes, behind: bytes, family: int = 0x11) -> bytes:
    """Return a header that has its checksum between the addresses and what follows."""
    blank = introduction_2(block + value(3, bytes(4)) + behind, family=family)
    right = introduction_2(
        block + value(3, struct.pack("!I", crc32c(blank))) + behind, family=family
    )
    assert len(right) == len(blank)
    return right
