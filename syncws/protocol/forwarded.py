"""What proxies in front say of a client: its address, its scheme, and the host it asked for.

No sockets: headers, the peer's address and whom to believe in, the client out.
A header is believed only as far as it was written by a proxy that is trusted;
what such a proxy has merely passed on is the client's own word.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .headers import Headers
from .http import AUTHORITY, HeadError, list_of

__all__ = ["DEFAULT_HEADERS", "UNIX", "Client", "TrustedProxies", "split_host"]

#: (host, port), or the path of a Unix-domain socket.
Address = tuple[str, int] | str

#: What proxies are believed if nothing else is said. Not X-Forwarded-Host:
#: nearly every proxy hands the Host header on, and few set that one.
DEFAULT_HEADERS = ("X-Forwarded-For", "X-Forwarded-Proto")

#: The word for whoever comes by a Unix-domain socket.
UNIX = "unix"

#: Where a client is that a proxy does not tell of.
_UNKNOWN = ("unknown", 0)

_NAMES = {
    name.lower(): name
    for name in (
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
    )
}
_SCHEMES = {"http": False, "ws": False, "https": True, "wss": True}
_HOST = re.compile(AUTHORITY, re.IGNORECASE)

_PORT = r"(?::(?:([0-9]{1,5})|_[A-Za-z0-9._-]+))?"
_ZONE = r"(?:%[A-Za-z0-9._~-]+)?"
_IP = re.compile(
    rf"\[([0-9A-Fa-f:.]{{2,45}}){_ZONE}\]{_PORT}|([0-9.]{{7,15}}){_PORT}|([0-9A-Fa-f:.]{{2,45}}){_ZONE}"
)
# RFC 7239 section 6.3.
_HIDDEN = re.compile(rf"(unknown|_[A-Za-z0-9._-]+){_PORT}", re.IGNORECASE)

# A token may also have what an address without quotes has: proxies write so,
# and nothing is ambiguous by it. RFC 7239 section 4.
_PAIR = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'(?:([!#$%&\'*+.^_`|~0-9A-Za-z:\[\]-]+)|"((?:[^"\\]|\\.)*)")'
)
_SPACE = re.compile(r"[ \t]*")
_ESCAPE = re.compile(r"\\(.)")

_QUOTED = 60


class Client(NamedTuple):
    """Whom a request comes from.

    Attributes:
        address: (host, port), with port 0 if it is not told; the path of a
            Unix-domain socket; or ("unknown", 0) or another word in place of
            the host if a proxy keeps it to itself.
        secure: Whether the client came over TLS.
        host: The host, with its port if it has one, that the client asked the
            proxy for; "" if that is what the Host header says.
    """

    address: Address
    secure: bool
    host: str = ""


class TrustedProxies:
    """Which proxies are believed, and which of their headers.

    Args:
        addresses: IP addresses and networks, and `UNIX`.
        headers: The headers that all of these proxies set themselves, in place
            of what a client has sent: X-Forwarded-For, -Proto, -Host and
            -Port, or Forwarded alone.

    Raises:
        TypeError: These are no strings.
        ValueError: One is no address and no network, or no such header; the
            text says what would be right.

    Immutable.
    """

    __slots__ = ("_headers", "_networks", "_unix")

    def __init__(self, addresses: Iterable[str], headers: Iterable[str] = DEFAULT_HEADERS) -> None:
        given = _strings("trusted_proxies", addresses)
        self._unix = UNIX in given
        self._networks = tuple(_network(text) for text in given if text != UNIX)
        self._headers = _check_headers(_strings("forwarded_headers", headers))

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trusts(self, address: Address) -> bool:
        """Whether a proxy that is trusted has this address."""
        if isinstance(address, str):
            return self._unix
        try:
            ip = _ip(address[0])
        except ValueError:
            return False
        return any(ip in network for network in self._networks)

    def client(self, headers: Headers, peer: Address, secure: bool) -> Client:
        """Return whom a request comes from.

        Args:
            headers: The request's.
            peer: Who has sent it: the client itself, or the last proxy.
            secure: Whether that one came over TLS.

        Raises:
            HeadError: A trusted proxy says something that cannot be
                understood. To go by what is left would make the proxy the
                client, who might have wanted just that.
        """
        if not self.trusts(peer):
            return Client(peer, secure)
        if "forwarded" in self._headers:
            return self._by_forwarded(headers, peer, secure)
        address = peer
        if "x-forwarded-for" in self._headers:
            nodes = [part for part in list_of(headers, "X-Forwarded-For") if part]
            if nodes:
                address, _ = self._walk(nodes, "X-Forwarded-For")
        # The last value is the nearest proxy's; others may be a client's.
        proto = self._last(headers, "X-Forwarded-Proto")
        if proto:
            secure = _scheme(proto, "X-Forwarded-Proto")
        return Client(address, secure, self._host(headers, secure))

    def _host(self, headers: Headers, secure: bool) -> str:
        host = self._last(headers, "X-Forwarded-Host")
        if host:
            _split(host, "X-Forwarded-Host")
        port = self._last(headers, "X-Forwarded-Port")
        if not port:
            return host
        if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
            raise _malformed("X-Forwarded-Port", port)
        # A port that the client has named counts; some proxies leave it out.
        named = host or _plain_host(headers)
        if not named or _split(named, "Host")[1] is not None:
            return host
        return named if int(port) == (443 if secure else 80) else f"{named}:{int(port)}"

    def _last(self, headers: Headers, name: str) -> str:
        if name.lower() not in self._headers:
            return ""
        return next((part for part in reversed(list_of(headers, name)) if part), "")

    def _by_forwarded(self, headers: Headers, peer: Address, secure: bool) -> Client:
        """RFC 7239."""
        elements = [element for line in headers.get_all("Forwarded") for element in _elements(line)]
        if not elements:
            return Client(peer, secure)
        address, at = self._walk([e.get("for", "unknown") for e in elements], "Forwarded")
        # That element was written by the proxy that the client has connected to.
        element = elements[at]
        if "proto" in element:
            secure = _scheme(element["proto"], "Forwarded")
        host = element.get("host", "")
        if host:
            _split(host, "Forwarded")
        return Client(address, secure, host)

    def _walk(self, nodes: Sequence[str], header: str) -> tuple[Address, int]:
        """Return the last address that is no proxy's, or the first of all, and its place."""
        address: Address = ""
        for index in range(len(nodes) - 1, -1, -1):
            found = _node(nodes[index])
            if found is None:
                raise _malformed(header, nodes[index])
            address = found
            if not self.trusts(address):
                return address, index
        return address, 0


def _plain_host(headers: Headers) -> str:
    """Return the Host header; "" if there is not exactly one."""
    hosts = headers.get_all("Host")
    return hosts[0] if len(hosts) == 1 else ""


def split_host(host: str, default_port: int) -> tuple[str, int]:
    """Return the name and the port of a `Client.host`."""
    name, port = _split(host, "Host")
    return name, default_port if port is None else int(port)


# -- What a header says -------------------------------------------------


def _malformed(header: str, value: str) -> HeadError:
    return HeadError(
        400, f"The header {header} of a proxy cannot be understood: {value[:_QUOTED]!a}."
    )


def _node(text: str) -> Address | None:
    """Return the address that one proxy gives, or None if it is none."""
    if text == "unix:":  # nginx has this for a Unix-domain socket
        return ""
    match = _IP.fullmatch(text)
    if match is not None:
        try:
            ip = _ip(match[1] or match[3] or match[5])
        except ValueError:
            return None
        port = int(match[2] or match[4] or 0)
        return (str(ip), port) if port < 65_536 else None
    match = _HIDDEN.fullmatch(text)
    if match is None:
        return None
    return _UNKNOWN if match[1].lower() == _UNKNOWN[0] else (match[1], 0)


def _scheme(text: str, header: str) -> bool:
    try:
        return _SCHEMES[text.lower()]
    except KeyError:
        raise _malformed(header, text) from None


def _split(authority: str, header: str) -> tuple[str, str | None]:
    match = _HOST.fullmatch(authority)
    if match is None or int(match[2] or 0) > 65_535:
        raise _malformed(header, authority)
    return match[1], match[2]


def _elements(line: str) -> list[Mapping[str, str]]:
    """Return the elements of one Forwarded header, parameters by name in lower case.

    The whole line has to be right: a quote that a client leaves open would
    swallow what a proxy appends to it.
    """
    elements: list[dict[str, str]] = [{}]
    pos = 0
    while True:
        pos = _skip(line, pos)
        pair = _PAIR.match(line, pos)
        if pair is not None:
            name = pair[1].lower()
            if name in elements[-1]:
                raise _malformed("Forwarded", line)
            elements[-1][name] = _ESCAPE.sub(r"\1", pair[3]) if pair[2] is None else pair[2]
            pos = _skip(line, pair.end())
        if pos == len(line):
            return [element for element in elements if element]
        if line[pos] == ",":
            elements.append({})
        elif line[pos] != ";":
            raise _malformed("Forwarded", line)
        pos += 1


def _skip(line: str, pos: int) -> int:
    found = _SPACE.match(line, pos)
    return found.end() if found else pos


# -- Addresses ----------------------------------------------------------


_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def _ip(text: str) -> _IPAddress:
    """Return an address without its zone; one of IPv4 that IPv6 wraps as what it is."""
    ip = ipaddress.ip_address(text.partition("%")[0])
    return (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip


def _network(text: str) -> _IPNetwork:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            f"trusted_proxies has {text!r}, which is no IP address and no network: {_hint(text)}"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _hint(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        pass
    else:
        host = text.partition("/")[0]
        return f"write {str(network)!r} for the network, or {host!r} for this address alone"
    found = _node(text)
    if found and isinstance(found, tuple) and found[0][0] not in "u_":
        return f"write {found[0]!r}"
    if text == "*":
        return (
            "write '0.0.0.0/0' and '::/0' if really nobody but your proxies can connect; "
            "anybody else could say to be whoever he likes"
        )
    if text.lower() == "localhost":
        return "write '127.0.0.1' and '::1'"
    return f"write '10.0.0.1', '10.0.0.0/8', '2001:db8::/32' or {UNIX!r}, say"


def _strings(name: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be a list of str, not {values!r}: write [{values!r}]")
    try:
        given = tuple(values)
    except TypeError:
        raise TypeError(f"{name} must be a list of str, not {values!r}") from None
    for value in given:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a list of str, but has {value!r}")
    return given


def _check_headers(names: Sequence[str]) -> frozenset[str]:
    for name in names:
        if name.lower() not in _NAMES:
            raise ValueError(
                f"forwarded_headers has {name!r}; it may have {', '.join(_NAMES.values())}"
            )
    chosen = frozenset(name.lower() for name in names)
    if "forwarded" in chosen and len(chosen) > 1:
        raise ValueError(
            "forwarded_headers has Forwarded and others, which might say different things: "
            "name what your proxies set, Forwarded alone or X-Forwarded-...; "
            "the other one is the client's own word"
        )
    return chosen
