"""Which proxy a client's connection goes through."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..config import TLSConfig
from ..protocol.connect_tunnel import PROXY_RESERVED
from ..protocol.headers import normalize_extra_headers
from ..protocol.uri import ProxyURI, WebSocketURI, authority_of, parse_proxy
from .certificates import tls_context

__all__ = ["Proxies", "Proxy"]

# Names of settings, best first; those of a scheme, for all, and what macOS has.
_SETTINGS = {False: ("ws", "http", "all", "socks"), True: ("wss", "https", "all", "socks")}

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and what it is told.

    Attributes:
        uri: Its address, with a user and a password.
        headers: What it gets beside the headers of CONNECT.
        tls: For https; None for the system's authorities.
    """

    uri: ProxyURI
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: ssl.SSLContext | None = None


class Proxies:
    """What a client was told of proxies; which of them is for an address.

    The environment is looked at when `find` is called.

    Args:
        proxy: True for the environment's, a URL, or None or False for none.
        headers: Headers for an HTTP proxy: a mapping or pairs.
        tls: For https proxies; None for the system's authorities.
        unix_path: Whether the client connects to a Unix-domain socket, which
            the environment's settings are not for.

    Raises:
        TypeError, ValueError: An argument is wrong, or goes with another one.
        ImportError: What SOCKS takes is not installed.
        OSError: A file of `tls` cannot be read.
    """

    def __init__(
        self,
        proxy: str | bool | None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
        tls: TLSConfig | ssl.SSLContext | None,
        *,
        unix_path: bool = False,
    ) -> None:
        self._headers = normalize_extra_headers(headers, PROXY_RESERVED)
        self._tls = tls_context(tls, "proxy_ssl")
        self._only: ProxyURI | None = None
        self._ask = proxy is True and not unix_path
        if isinstance(proxy, str):
            self._only = parse_proxy(proxy)
            if unix_path:
                raise ValueError("proxy is given, and a unix_path, which no proxy leads to")
        elif proxy is not None and not isinstance(proxy, bool):
            raise TypeError(
                f"proxy must be True, a URL, or None or False, not of type {type(proxy).__name__}"
            )
        if proxy is True:
            return  # whether these are of use depends on the environment
        scheme = self._only.scheme if self._only else "none"
        if self._headers and scheme not in ("http", "https"):
            raise ValueError("proxy_headers is given, but proxy is no http:// or https:// URL")
        if self._tls is not None and scheme != "https":
            raise ValueError("proxy_ssl is given, but proxy is no https:// URL")

    def find(self, target: WebSocketURI, *, environment: bool = True) -> Proxy | None:
        """Return the proxy for an address; None: there is to be none.

        Args:
            target: The address.
            environment: Whether the environment's settings are of use there.

        Raises:
            ValueError: The environment's is none.
            ImportError: What SOCKS takes is not installed.
        """
        uri = self._only or (_from_environment(target) if self._ask and environment else None)
        if uri is None:
            return None
        if uri.is_socks:
            _check_socks(uri)
            return Proxy(uri)
        names = {name.lower() for name, _ in self._headers}
        if uri.username is not None and "proxy-authorization" in names:
            raise ValueError(
                "proxy has a user, and there is a Proxy-Authorization among the proxy_headers: "
                "give one only"
            )
        return Proxy(uri, self._headers, self._tls if uri.scheme == "https" else None)


def _check_socks(uri: ProxyURI) -> None:
    try:
        import python_socks.sync  # noqa: F401
    except ImportError:
        raise ImportError(f"the proxy {uri} needs python-socks: pip install python-socks") from None


def _from_environment(target: WebSocketURI) -> ProxyURI | None:
    """Return what the variables, or the settings of macOS and Windows, say."""
    if _is_local(target.host):
        return None  # a proxy's localhost is another machine
    settings = urllib.request.getproxies()
    for name in _SETTINGS[target.secure]:
        if url := settings.get(name):
            break
    else:
        return None
    if _is_excluded(target, settings.get("no", "")):
        return None
    if "://" not in url:
        url = f"http://{url}"
    if name == "socks" and url.startswith("http://"):
        url = "socks5h" + url[4:]  # how macOS has it
    try:
        return parse_proxy(url)
    except ValueError as exc:
        raise ValueError(f"the environment's {name}_proxy cannot be used: {exc}") from None


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _is_excluded(target: WebSocketURI, excluded: str) -> bool:
    """Whether no_proxy has the address, or what macOS and Windows have in its place.

    urllib knows names and, with or without a port, suffixes of names; here are
    also addresses however they are written, networks, and "*." before a suffix.
    """
    bare = target.host.partition("%")[0]
    entries = [entry.strip().lower() for entry in excluded.split(",")]
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(bare)
        if any(address in network for network in map(_network, entries) if network is not None):
            return True
    suffixes = tuple(entry[1:] for entry in entries if entry.startswith("*."))
    if suffixes and bare.endswith(suffixes):
        return True
    return bool(urllib.request.proxy_bypass(authority_of(target.host, target.port)))


def _network(text: str) -> _Network | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    return None
