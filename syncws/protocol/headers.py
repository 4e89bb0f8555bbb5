"""HTTP header fields: as received, and checked before they are sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ..config import TOKEN

__all__ = ["Headers", "check_header", "normalize_extra_headers"]

_NAME = re.compile(TOKEN)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# What gives its holder another's rights, and so is not shown.
_SECRET = frozenset(("authorization", "cookie", "proxy-authorization", "set-cookie"))

# What stands for a header that is reserved.
_INSTEAD = {
    "host": "it comes from the URL",
    "sec-websocket-extensions": "use the option compression",
    "sec-websocket-protocol": "use the option subprotocol or subprotocols",
}


class Headers(Mapping[str, str]):
    """Header fields, in order and immutable; names are case-insensitive.

    `headers[name]` joins the values of a name that occurs several times with
    ", "; `get_all` keeps them apart. Iterating gives each name once, spelled
    as it first came. RFC 9110 section 5.3.

    Args:
        pairs: Names and values; they are not checked.
    """

    __slots__ = ("_raw", "_values")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._raw = tuple((name, value) for name, value in pairs)
        # From the folded name to the name as it first came and all values.
        self._values: dict[str, tuple[str, list[str]]] = {}
        for name, value in self._raw:
            self._values.setdefault(name.lower(), (name, []))[1].append(value)

    @property
    def raw(self) -> tuple[tuple[str, str], ...]:
        """The fields as they came, a repeated name repeated."""
        return self._raw

    def get_all(self, name: str) -> list[str]:
        """Return every value of `name`, in order; an empty list if there is none."""
        found = self._values.get(name.lower())
        return list(found[1]) if found else []

    def __getitem__(self, name: str) -> str:
        try:
            return ", ".join(self._values[name.lower()][1])
        except KeyError:
            raise KeyError(name) from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        mine = {name: ", ".join(values) for name, (_, values) in self._values.items()}
        return mine == {str(name).lower(): value for name, value in other.items()}

    def __hash__(self) -> int:
        return hash(frozenset((name, ", ".join(v)) for name, (_, v) in self._values.items()))

    def __repr__(self) -> str:
        shown = [(name, "***" if name.lower() in _SECRET else value) for name, value in self._raw]
        return f"Headers({shown!r})"


def check_header(name: str, value: str) -> None:
    """Check that a header field can be sent as it is.

    A line break in a value would let it forge further fields.

    Raises:
        TypeError: The name or the value is no str.
        ValueError: The name is no token, or the value has a control character
            other than a tab or a character outside of latin-1.

    RFC 9110 sections 5.1 and 5.5.
    """
    if not isinstance(name, str):
        raise TypeError(f"a header name is a str, not {name!r}")
    if not isinstance(value, str):
        raise TypeError(
            f"the value of the header {name!r} must be a str, not of type {type(value).__name__}"
        )
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no header name: use letters, digits and !#$%&'*+-.^_`|~")
    if _CONTROL.search(value):
        raise ValueError(
            f"the value of the header {name!r} has a line break or another control character"
        )
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(
            f"the value of the header {name!r} has a character outside of latin-1: "
            "percent-encode it or encode it as base64"
        ) from None


def normalize_extra_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None, reserved: frozenset[str]
) -> tuple[tuple[str, str], ...]:
    """Return the user's headers as checked pairs, without white space around values.

    Args:
        headers: A mapping, pairs, or None for no headers.
        reserved: Names, in lower case, that the handshake sets itself.

    Raises:
        TypeError: `headers` holds something else than pairs of str.
        ValueError: A name is reserved, or `check_header` refuses a field.
    """
    if headers is None:
        return ()
    given: object = headers
    if isinstance(given, (str, bytes)):
        raise TypeError(
            f"headers must be a mapping or (name, value) pairs, not of type {type(given).__name__}"
        )
    fields: Iterable[tuple[str, str]]
    if isinstance(headers, Headers):
        fields = headers.raw
    elif isinstance(headers, Mapping):
        fields = headers.items()
    else:
        fields = headers
    checked = []
    for field in fields:
        try:
            name, value = field
        except (TypeError, ValueError):
            raise TypeError(
                f"a header is a (name, value) pair, not of type {type(field).__name__}"
            ) from None
        check_header(name, value)
        if name.lower() in reserved:
            instead = _INSTEAD.get(name.lower())
            raise ValueError(
                f"the header {name!r} is set by the handshake and cannot be given"
                + (f": {instead}" if instead else "")
            )
        checked.append((name, value.strip(" \t")))
    return tuple(checked)
