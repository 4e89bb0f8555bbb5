"""Cookies, as far as a server reads them."""

from __future__ import annotations

from .headers import Headers

__all__ = ["parse_cookies"]


def parse_cookies(headers: Headers) -> dict[str, str]:
    """Return the cookies that a request brings.

    Takes whatever browsers send, which is more than the grammar has. Of a name
    that comes several times the first value counts: the browser puts the one
    with the longest path first. Values are not decoded; only quotes around one
    are left out. What has no "=" or no name is skipped.

    RFC 6265 sections 4.2 and 5.4.
    """
    cookies: dict[str, str] = {}
    # HTTP allows one Cookie header only, but a proxy from HTTP/2 may make several.
    for header in headers.get_all("Cookie"):
        for pair in header.split(";"):
            name, equals, value = pair.partition("=")
            name, value = name.strip(" \t"), value.strip(" \t")
            if not name or not equals:
                continue
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            cookies.setdefault(name, value)
    return cookies
