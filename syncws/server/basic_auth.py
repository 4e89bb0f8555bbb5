"""Lets in those who know their password. RFC 7617."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from ..callbacks import is_async
from ..protocol.basic import check_credentials, credentials_of
from ..protocol.headers import check_header
from ..protocol.http import Request
from .upgrade import Upgrade

__all__ = ["BasicAuth"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class BasicAuth:
    """Checks the user and the password that clients send with their handshake.

    Anybody on the way reads both, unless the listener has TLS or stands behind
    a proxy that has.

    Its methods may be called from any thread.

    Args:
        users: A mapping of names to passwords, which is copied, or a function
            that is called with both and returns True or False. It is called in
            the thread that calls `user_of`, which is a worker's in an upgrade
            resource, so it may ask a database. Comparing in constant time is
            its own business then.
        realm: What the user is asked for the password of, if a program asks.

    Raises:
        TypeError: An argument has a wrong type, or the function is async.
        ValueError: A name has a colon, or a name, a password or the realm has
            a control character.
    """

    __slots__ = ("_challenge", "_check", "_digests", "_key", "_nobody", "_realm")

    def __init__(
        self, users: Mapping[str, str] | Callable[[str, str], bool], realm: str = "WebSocket"
    ) -> None:
        # Passwords are kept, and compared, as digests of one length, with a
        # key that nobody else has.
        self._key = secrets.token_bytes(32)
        self._nobody = secrets.token_bytes(32)
        self._digests: dict[str, bytes] = {}
        self._check: Callable[[str, str], bool]
        if isinstance(users, Mapping):
            for user, password in users.items():
                check_credentials(user, password)
                self._digests[user] = self._digest(password)
            self._check = self._compare
        else:
            self._check = _checked(users)
        self._realm = realm
        self._challenge = _challenge(realm)

    def __repr__(self) -> str:
        return f"<syncws.BasicAuth {self._realm!r}>"

    @property
    def challenge(self) -> dict[str, str]:
        """The header of a refusal with 401, which says what the client has to send."""
        return {"WWW-Authenticate": self._challenge}

    def user_of(self, request: Request) -> str | None:
        """Return who the client is, or None if it does not say so, or not rightly.

        Blocks for as long as the function does, if there is one.

        Raises:
            TypeError: The function returned something else than True or False.
        """
        given = credentials_of(request.headers)
        if given is None or not self._check(*given):
            return None
        return given[0]

    def admit(self, http: Upgrade, request: Request, **parameters: Any) -> None:
        """Let in who gives a right password, and refuse others with 401: an upgrade resource.

        The name is in the caller's `attributes["user"]`::

            listener.upgrade("/chat", service=Chat)(auth.admit)
        """
        user = self.user_of(request)
        if user is None:
            http.cancel_upgrade(401, "A user and a password are needed", self.challenge)
        else:
            http.accept_upgrade().attributes["user"] = user

    def _digest(self, password: str) -> bytes:
        return hmac.digest(self._key, password.encode(), "sha256")

    def _compare(self, user: str, password: str) -> bool:
        """Take as long for a user that there is not as for a wrong password."""
        expected = self._digests.get(user)
        right = hmac.compare_digest(self._digest(password), expected or self._nobody)
        return right and expected is not None


def _checked(function: Callable[[str, str], bool]) -> Callable[[str, str], bool]:
    """Return the function, whose result counts only if it is True or False.

    What else is true lets nobody in: a coroutine is, and so is the row of a
    database with the right password in it.
    """
    if not callable(function):
        # Not its repr: it may have passwords.
        raise TypeError(
            "users must be a mapping of names to passwords or a function(user, password), "
            f"not of type {type(function).__name__}"
        )
    if is_async(function):
        raise TypeError("users must be a plain function, not async: it runs in a thread")

    def check(user: str, password: str) -> bool:
        right = function(user, password)
        if not isinstance(right, bool):
            raise TypeError(
                "the function of a BasicAuth must return True or False, not an object of type "
                f"{type(right).__name__}"
            )
        return right

    return check


def _challenge(realm: object) -> str:
    """Return the value of a WWW-Authenticate header. RFC 7617 sections 2 and 2.1."""
    if not isinstance(realm, str):
        raise TypeError(f"realm must be a str, not {realm!r}")
    if _CONTROL.search(realm):
        raise ValueError(f"realm has a line break or another control character: {realm!r}")
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
    value = f'Basic realm="{quoted}", charset="UTF-8"'
    check_header("WWW-Authenticate", value)
    return value
