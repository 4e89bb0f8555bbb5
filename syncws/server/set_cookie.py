"""Set-Cookie headers."""

from __future__ import annotations

import datetime
import email.utils
import re
from http.cookies import CookieError, Morsel

__all__ = ["set_cookie_header"]

# What a value may have, and what would end an attribute. RFC 6265 section 4.1.1.
_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e]*")
_DOMAIN = re.compile(r"[A-Za-z0-9.-]+")


def set_cookie_header(
    name: str,
    value: str,
    *,
    max_age: float | None = None,
    expires: datetime.datetime | None = None,
    path: str | None = "/",
    domain: str | None = None,
    secure: bool = False,
    httponly: bool = False,
    samesite: str | None = None,
) -> str:
    """Return the value of a Set-Cookie header; see `Upgrade.set_cookie`.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: One has what cannot stand there, or what browsers refuse.
    """
    cookie: Morsel[str] = Morsel()
    if not isinstance(name, str):
        raise TypeError(f"a cookie's name is a str, not {name!r}")
    _check("value", value, _VALUE, 'no white space, quotes, commas, ";" or "\\": percent-encode it')
    try:
        cookie.set(name, value, value)
    except CookieError as exc:
        raise ValueError(f"{name!r} is no name of a cookie: {exc}") from None
    if path is not None:
        _check("path", path, _PATH, 'an absolute path in ASCII without ";"')
        cookie["path"] = path
    if domain is not None:
        _check("domain", domain, _DOMAIN, "a host name in ASCII")
        cookie["domain"] = domain
    if max_age is not None:
        cookie["max-age"] = str(_seconds(max_age))
    if expires is not None:
        cookie["expires"] = _date(expires)
    if samesite is not None:
        cookie["samesite"] = _samesite(samesite, secure)
    cookie["secure"] = bool(secure)
    cookie["httponly"] = bool(httponly)
    return cookie.OutputString()


def _check(name: str, value: object, pattern: re.Pattern[str], wanted: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"a cookie's {name} is a str, not {value!r}")
    if not pattern.fullmatch(value):
        raise ValueError(f"a cookie's {name} has {wanted}; not {value!r}")


def _seconds(max_age: object) -> int:
    if isinstance(max_age, bool) or not isinstance(max_age, (int, float)):
        raise TypeError(f"max_age must be a number of seconds, not {max_age!r}")
    try:
        return int(max_age)
    except (ValueError, OverflowError):
        raise ValueError(f"max_age must be a finite number of seconds, not {max_age!r}") from None


def _date(expires: object) -> str:
    if not isinstance(expires, datetime.datetime):
        raise TypeError(f"expires must be a datetime, not {expires!r}")
    if expires.tzinfo is None:
        raise ValueError("expires has no time zone: take datetime.now(timezone.utc), say")
    return email.utils.format_datetime(expires.astimezone(datetime.timezone.utc), usegmt=True)


def _samesite(samesite: object, secure: bool) -> str:
    if not isinstance(samesite, str):
        raise TypeError(f"samesite must be a str, not {samesite!r}")
    found = samesite.capitalize()
    if found not in ("Strict", "Lax", "None"):
        raise ValueError(f"samesite must be 'Strict', 'Lax' or 'None', not {samesite!r}")
    if found == "None" and not secure:
        raise ValueError("browsers take samesite='None' with secure=True only")
    return found
