"""The cookies that a client sends and gets. RFC 6265.

The standard library's jar knows the rules; it is shown a ws URL as the http
URL that the handshake is in fact a request for.
"""

from __future__ import annotations

import copy
import http.cookiejar
import re
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import Any

from ..config import TOKEN
from ..protocol.headers import Headers, check_header
from ..protocol.uri import WebSocketURI

__all__ = ["CookieStore", "Cookies"]

#: What a client can be given: names and values, or a jar, such as the one of
#: a session of requests.
Cookies = Mapping[str, str] | http.cookiejar.CookieJar

_NOT_IN_VALUES = frozenset(' ",;\\')  # RFC 6265 section 4.1.1


class CookieStore:
    """One client's cookies.

    Args:
        cookies: Names and values that go to every server that this client
            connects to; or a jar, whose cookies go where they belong. They
            are copied.

    Raises:
        TypeError, ValueError: They are no cookies.
    """

    def __init__(self, cookies: Cookies | None = None) -> None:
        #: The jar; it may be looked at, and added to, from any thread.
        self.jar = http.cookiejar.CookieJar(_StrictPolicy())
        if cookies is None:
            return
        if isinstance(cookies, http.cookiejar.CookieJar):
            for cookie in cookies:
                self.jar.set_cookie(_copy(cookie))
        elif isinstance(cookies, Mapping):
            for name, value in cookies.items():
                self.jar.set_cookie(_everywhere(name, value))
        else:
            raise TypeError(
                f"cookies must be a mapping of names to values or a CookieJar, not {cookies!r}"
            )

    def header(self, uri: WebSocketURI) -> str | None:
        """Return the Cookie header for a handshake with `uri`; None if there is none to send.

        Domain, path, Secure and expiry decide. RFC 6265 section 5.4.
        """
        request = _request(uri)
        self.jar.add_cookie_header(request)
        value: str | None = request.get_header("Cookie")
        return value

    def keep(self, uri: WebSocketURI, headers: Headers) -> None:
        """Keep what a response sets. RFC 6265 section 5.3."""
        values = headers.get_all("Set-Cookie")
        if values:
            self.jar.extract_cookies(_Answer(values), _request(uri))  # type: ignore[arg-type]


class _StrictPolicy(http.cookiejar.DefaultCookiePolicy):
    """What was set without a domain goes back to its host only. RFC 6265 section 5.4."""

    def __init__(self) -> None:
        super().__init__(strict_ns_domain=self.DomainStrictNonDomain)


class _Answer:
    """A response, as a jar wants to see it."""

    def __init__(self, values: list[str]) -> None:
        self._message = Message()
        for value in values:
            self._message["Set-Cookie"] = value

    def info(self) -> Message:
        return self._message


def _request(uri: WebSocketURI) -> Any:
    scheme = "https" if uri.secure else "http"
    return urllib.request.Request(f"{scheme}://{uri.host_header}{uri.target}")


def _copy(cookie: http.cookiejar.Cookie) -> http.cookiejar.Cookie:
    copied = copy.copy(cookie)
    if not copied.domain:
        copied.domain_specified = True  # it was made to go everywhere
    return copied


def _everywhere(name: object, value: object) -> http.cookiejar.Cookie:
    """Return a cookie without a domain: it goes to every host."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"a cookie is a str and its value a str, not {name!r}: {value!r}")
    if not re.fullmatch(TOKEN, name):
        raise ValueError(
            f"{name!r} is no name of a cookie: use letters, digits and !#$%&'*+-.^_`|~"
        )
    check_header(name, value)
    if not value.isascii() or _NOT_IN_VALUES & set(value[1:-1] if _quoted(value) else value):
        raise ValueError(
            f"the value of the cookie {name!r} has a character that no cookie may have: "
            "percent-encode it or encode it as base64"
        )
    return http.cookiejar.Cookie(
        version=0,
        name=name,
        value=value,
        port=None,
        port_specified=False,
        domain="",
        domain_specified=True,
        domain_initial_dot=False,
        path="/",
        path_specified=True,
        secure=False,
        expires=None,
        discard=True,
        comment=None,
        comment_url=None,
        rest={},
    )


def _quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] == '"'
