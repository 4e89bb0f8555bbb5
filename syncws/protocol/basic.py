"""Basic authentication: a user and a password in a header. RFC 7617."""

from __future__ import annotations

import base64
import re

from .headers import Headers

__all__ = ["basic_authorization", "check_credentials", "credentials_of"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_credentials(user: object, password: object) -> tuple[str, str]:
    """Return a user and a password that can be sent.

    Raises:
        TypeError: One of them is no str.
        ValueError: One has a control character or a lone surrogate, or the
            user a colon, where the password would begin. The messages never
            have either.

    RFC 7617 section 2.
    """
    if not isinstance(user, str) or not isinstance(password, str):
        raise TypeError("a user and a password are each a str")
    if ":" in user:
        raise ValueError("a user's name has a colon, which Basic authentication cannot carry")
    if _CONTROL.search(user + password):
        raise ValueError("a user or password has a line break or another control character")
    try:
        (user + password).encode()
    except UnicodeEncodeError:
        raise ValueError(
            "a user or password has a lone surrogate, which UTF-8 cannot carry"
        ) from None
    return user, password


def basic_authorization(user: str, password: str) -> str:
    """Return the value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def credentials_of(headers: Headers) -> tuple[str, str] | None:
    """Return the user and the password of a request; None if it has none, or wrong ones.

    Of two Authorization headers another program might look at the other one,
    so neither counts.
    """
    values = headers.get_all("Authorization")
    if len(values) != 1:
        return None
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(token.strip(" "), validate=True).decode()
    except ValueError:  # no base64, or no UTF-8
        return None
    user, colon, password = text.partition(":")
    if not colon or _CONTROL.search(text):
        return None
    return user, password
