"""What a client says of itself in its request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..protocol.basic import basic_authorization, check_credentials
from ..protocol.headers import normalize_extra_headers
from ..protocol.http import RESERVED
from ..protocol.uri import parse_uri

__all__ = ["request_headers"]


def request_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
    auth: tuple[str, str] | None,
    urls: Sequence[str],
) -> tuple[tuple[str, str], ...]:
    """Return the headers of a client's own, with those for its user and password.

    Args:
        headers: A mapping, pairs, or None.
        auth: The user and the password, or None.
        urls: The client's addresses.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A header or `auth` cannot be sent as it is, or there are
            two users.
    """
    fields = normalize_extra_headers(headers, RESERVED)
    if auth is None:
        return fields
    given: object = auth
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        # Not the value: it may have the password.
        raise TypeError("auth must be a pair of a user and a password")
    user, password = check_credentials(*given)
    if any(name.lower() == "authorization" for name, _ in fields):
        raise ValueError("auth is given, and an Authorization among the headers: give one only")
    if any(parse_uri(url).username is not None for url in urls):
        raise ValueError("auth is given, and a user in the URL: give one only")
    return (*fields, ("Authorization", basic_authorization(user, password)))
