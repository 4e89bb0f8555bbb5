"""ws and wss addresses, and those of proxies. RFC 6455 section 3."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

__all__ = ["ProxyURI", "WebSocketURI", "authority_of", "parse_proxy", "parse_uri"]

_DEFAULT_PORTS = {False: 80, True: 443}
_PROXY_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080}

# The schemes of proxies: what is spoken, and whether the proxy resolves names.
_PROXIES = {
    "http": ("http", True),
    "https": ("https", True),
    "socks": ("socks5", True),  # as desktops write it into all_proxy
    "socks4": ("socks4", False),
    "socks4a": ("socks4", True),
    "socks5": ("socks5", False),
    "socks5h": ("socks5", True),
}
_PROXY_FORM = "write scheme://host:port with http, https, socks5, socks5h, socks4 or socks4a"
_INSTEAD = {"http": "ws", "https": "wss"}

_URI = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?P<authority>[^/?#]*)"
    r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.DOTALL,
)
_HOST_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{0,5}))?")
_HOST_NAME = re.compile(r"[a-z0-9._\-]+")
_SPACE_OR_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

# What may stand in a target as it is. RFC 3986 sections 3.3 and 3.4, and the
# brackets that query strings have in practice.
_TARGET_SAFE = "/?:@!$&'()*+,;=%[]"


@dataclass(frozen=True, slots=True)
class WebSocketURI:
    """The parts of an address that connecting needs.

    Attributes:
        secure: Whether it is wss.
        host: The name as ASCII, or the IP address without brackets.
        port: The TCP port.
        target: The path and the query, percent-encoded.
        username: The user's name, decoded, or None.
        password: The password, decoded, or None.
    """

    secure: bool
    host: str
    port: int
    target: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def host_header(self) -> str:
        """The value of the Host header: no default port, brackets around IPv6.

        The zone of an IPv6 address has a meaning on this machine only and
        stays out. RFC 6874 section 4.
        """
        default = self.port == _DEFAULT_PORTS[self.secure]
        return authority_of(self.host, None if default else self.port)


@dataclass(frozen=True, slots=True)
class ProxyURI:
    """The parts of a proxy's address.

    Attributes:
        scheme: "http", "https", "socks4" or "socks5".
        resolves: Whether the proxy looks up names, as socks4a and socks5h say.
        host: The name as ASCII, or the IP address without brackets.
        port: The TCP port.
        username: The user's name, decoded, or None.
        password: The password, decoded, or None.
    """

    scheme: str
    resolves: bool
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS, not HTTP."""
        return self.scheme.startswith("socks")

    def __str__(self) -> str:
        """What is shown of it: nothing of the user and the password."""
        scheme = self.scheme
        if self.is_socks and self.resolves:
            scheme += "a" if scheme == "socks4" else "h"
        return f"{scheme}://{authority_of(self.host, self.port)}"


def authority_of(host: str, port: int | None = None) -> str:
    """Return a host and a port as HTTP has them: an IPv6 address in brackets, without its zone."""
    host = host.partition("%")[0]
    if ":" in host:
        host = f"[{host}]"
    return host if port is None else f"{host}:{port}"


def parse_uri(url: str) -> WebSocketURI:
    """Take a ws or wss address apart.

    Path and query are percent-encoded as UTF-8 where they have to be; what is
    encoded already is left alone. A name outside of ASCII becomes its IDNA
    form.

    Raises:
        TypeError: `url` is no str.
        ValueError: `url` is no WebSocket address. The message never has its
            user and password.

    RFC 6455 section 3.
    """
    if not isinstance(url, str):
        raise TypeError(f"a WebSocket URL is a str, not {url!r}")
    shown = _without_userinfo(url)
    if _SPACE_OR_CONTROL.search(url):
        raise ValueError(f"{shown!r} has a space or a control character: percent-encode it")
    parts = _URI.fullmatch(url)
    if parts is None:
        raise ValueError(f"{shown!r} is no WebSocket URL: write ws://host/path or wss://host/path")
    scheme = parts["scheme"].lower()
    if scheme not in ("ws", "wss"):
        raise ValueError(
            f"{shown!r} is no WebSocket URL: use {_INSTEAD.get(scheme, 'ws')}://... instead"
        )
    if parts["fragment"] is not None:
        raise ValueError(f"{shown!r} has a fragment, which a WebSocket URL cannot: write # as %23")
    secure = scheme == "wss"
    userinfo, at, host_port = parts["authority"].rpartition("@")
    host, port = _host_and_port(host_port, _DEFAULT_PORTS[secure], shown)
    username, password = _credentials(userinfo, shown) if at else (None, None)
    target = _encode(parts["path"] or "/", shown)
    if parts["query"]:
        target += "?" + _encode(parts["query"], shown)
    return WebSocketURI(secure, host, port, target, username, password)


def parse_proxy(url: str) -> ProxyURI:
    """Take the address of a proxy apart.

    Raises:
        TypeError: `url` is no str.
        ValueError: `url` is no address of a proxy, or its user and password
            cannot be sent. The message never has them.
    """
    if not isinstance(url, str):
        raise TypeError(f"a proxy's URL is a str, not of type {type(url).__name__}")
    shown = _without_userinfo(url)
    if _SPACE_OR_CONTROL.search(url):
        raise ValueError(f"{shown!r} has a space or a control character: percent-encode it")
    parts = _URI.fullmatch(url)
    if parts is None or parts["scheme"].lower() not in _PROXIES:
        raise ValueError(f"{shown!r} is no URL of a proxy: {_PROXY_FORM}")
    if parts["path"] not in ("", "/") or parts["query"] or parts["fragment"]:
        raise ValueError(f"{shown!r} has more than a proxy's host and port: {_PROXY_FORM}")
    scheme, resolves = _PROXIES[parts["scheme"].lower()]
    userinfo, at, host_port = parts["authority"].rpartition("@")
    host, port = _host_and_port(host_port, _PROXY_PORTS[scheme], shown)
    username, password = _credentials(userinfo, shown) if at else (None, None)
    if scheme in ("socks4", "socks5") and username is not None:
        _check_socks(scheme, username, password, shown)
    return ProxyURI(scheme, resolves, host, port, username, password)


def _check_socks(scheme: str, username: str, password: str | None, shown: str) -> None:
    """Raise unless a SOCKS proxy can be sent these. RFC 1929, and the paper on SOCKS 4."""
    if scheme == "socks4" and password:
        raise ValueError(f"{shown!r} has a password, which SOCKS 4 has not: use socks5 or socks5h")
    if scheme == "socks5" and not (username and password):
        raise ValueError(f"{shown!r} has a user or a password only: SOCKS 5 has both or none")
    if not (username + (password or "")).isascii() or max(len(username), len(password or "")) > 255:
        raise ValueError(f"{shown!r} has a user or password over 255 characters, or outside ASCII")


def _without_userinfo(url: str) -> str:
    # To the last "@", wherever it is: a password with an unencoded "/" is cut
    # as well.
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, separator, _ = head.partition("://")
    return f"{scheme}://***@{tail}" if separator else f"***@{tail}"


def _host_and_port(text: str, default: int, shown: str) -> tuple[str, int]:
    match = _HOST_PORT.fullmatch(text)
    port = int(match["port"] or default) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(
            f"{shown!r} has no valid host and port: write host, host:port or [IPv6 address]:port, "
            "with a port from 1 to 65535"
        )
    if not match["host"]:
        raise ValueError(f"{shown!r} has no host: write {shown.partition('://')[0]}://host")
    if match["host"].startswith("["):
        return _ipv6(match["host"][1:-1], shown), port
    try:
        host = match["host"].encode("idna").decode("ascii").lower()
    except UnicodeError:
        host = ""
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{shown!r} has no valid host: write a host name or an IP address")
    return host, port


def _ipv6(text: str, shown: str) -> str:
    # RFC 6874 writes the "%" before a zone as "%25".
    text = text.replace("%25", "%", 1)
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError(f"{shown!r} has no valid IPv6 address between its brackets") from None
    return text.lower()


def _credentials(userinfo: str, shown: str) -> tuple[str, str | None]:
    username, colon, password = userinfo.partition(":")
    try:
        username = unquote(username, errors="strict")
        password = unquote(password, errors="strict")
    except UnicodeError:
        raise ValueError(f"{shown!r} has a user or password that is not UTF-8") from None
    # RFC 7617 section 2: neither has a control character, a user no colon.
    if _CONTROL.search(username + password) or ":" in username:
        raise ValueError(
            f"{shown!r} has a control character in its user or password, or a colon in its user"
        )
    return username, password if colon else None


def _encode(text: str, shown: str) -> str:
    try:
        return quote(_BARE_PERCENT.sub("%25", text), safe=_TARGET_SAFE)
    except UnicodeError:
        raise ValueError(f"{shown!r} has a lone surrogate, which UTF-8 cannot encode") from None
