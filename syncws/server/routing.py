"""Which service or resource a path leads to.

A path is split into segments before they are percent-decoded, so an encoded
slash is part of its segment. RFC 3986 section 2.2.
"""

from __future__ import annotations

import enum
import keyword
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..callbacks import ServiceSpec
from ..service import Service

__all__ = ["Route", "Router", "parameters_of"]


def _to_int(segment: str) -> int | None:
    return int(segment) if re.fullmatch(r"[0-9]{1,18}", segment) else None


def _to_float(segment: str) -> float | None:
    found = re.fullmatch(r"[0-9]{1,18}(?:\.[0-9]{1,18})?", segment)
    return float(segment) if found else None


def _to_uuid(segment: str) -> uuid.UUID | None:
    found = re.fullmatch(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", segment)
    return uuid.UUID(segment) if found else None


def _to_str(segment: str) -> str | None:
    return segment or None


class _Kind(enum.Enum):
    """The types of parameters, the most specific first."""

    INT = "int"
    FLOAT = "float"
    UUID = "uuid"
    STR = "str"
    PATH = "path"  # all that is left


# What makes a segment a parameter's value, or None if it is none.
_CONVERT: dict[_Kind, Callable[[str], Any]] = {
    _Kind.INT: _to_int,
    _Kind.FLOAT: _to_float,
    _Kind.UUID: _to_uuid,
    _Kind.STR: _to_str,
}
_NAMES = frozenset(kind.value for kind in _Kind)
_TYPES = ", ".join(kind.value for kind in _Kind)

# What a path is told apart by: its literal segments, decoded, and the types of its parameters.
_Shape = tuple[str | _Kind, ...]


class Route(NamedTuple):
    """Where a path leads.

    Attributes:
        path: The path as it was attached.
        spec: The service; None for a resource that chooses one itself.
        resource: What is asked before the service gets the connection.
        params: The values of the path's parameters, by name.
    """

    path: str
    spec: ServiceSpec | None
    resource: Callable[..., Any] | None = None
    params: Mapping[str, Any] = {}


class _Node:
    """Where the templates that begin alike go on. Not changed once its table is in use."""

    __slots__ = ("ends", "literals", "rest", "typed")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.typed: dict[_Kind, _Node] = {}  # in the order in which they are tried
        # The routes, with the names of their parameters, whose path ends here,
        # and whose {name:path} takes all that is left.
        self.ends: tuple[Route, Sequence[str]] | None = None
        self.rest: tuple[Route, Sequence[str]] | None = None

    def child(self, part: str | _Kind) -> _Node:
        """Return the node behind a literal or a parameter, made if need be."""
        if isinstance(part, str):
            return self.literals.setdefault(part, _Node())
        node = self.typed.setdefault(part, _Node())
        self.typed = {kind: self.typed[kind] for kind in _Kind if kind in self.typed}
        return node


class _Table:
    """All routes, as the I/O thread looks them up."""

    __slots__ = ("root", "routes")

    def __init__(self, routes: dict[_Shape, Route]) -> None:
        self.routes = routes
        self.root: _Node | None = None  # of the templates, if there are any
        for shape, route in routes.items():
            if any(isinstance(part, _Kind) for part in shape):
                self.root = self.root or _Node()
                _grow(self.root, shape, route)


class Router:
    """Paths and templates, and where they lead.

    `attach` and `detach` may be called from any thread while the I/O thread
    looks paths up: the table is replaced, never changed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of those who replace the table
        self._table = _Table({})

    def renew(self) -> None:
        """In a forked child: who held the lock is not here."""
        self._lock = threading.Lock()

    def attach(
        self, path: str, spec: ServiceSpec | None, resource: Callable[..., Any] | None = None
    ) -> None:
        """Lead `path` to a service, by way of a resource if there is one.

        Raises:
            TypeError, ValueError: It is no path or template, or one that is taken.
        """
        shape, _ = _parse(path)
        with self._lock:
            routes = self._table.routes
            if shape in routes:
                other = routes[shape].path
                raise ValueError(
                    f"the path {path!r} has a service already: detach it first"
                    + (f"; it matches what {other!r} does" if other != path else "")
                )
            self._table = _Table({**routes, shape: Route(path, spec, resource)})

    def detach(self, target: str | Service | type[Service] | Callable[..., Any]) -> None:
        """Forget a path, or every path that leads to a service or a resource.

        Raises:
            ValueError: There is no such path, service or resource.
        """
        with self._lock:
            routes = self._table.routes
            if isinstance(target, str):
                shape, _ = _parse(target)
                gone = {shape} & routes.keys()
            else:
                gone = {shape for shape, route in routes.items() if _leads_to(route, target)}
            if not gone:
                known = ", ".join(repr(route.path) for route in routes.values()) or "none"
                raise ValueError(f"{target!r} is not attached; the attached paths are: {known}")
            self._table = _Table(
                {shape: route for shape, route in routes.items() if shape not in gone}
            )

    def match(self, raw_path: str) -> Route | None:
        """Return the most specific route for a path as it came, percent-encoded.

        The cost is that of the path's length and of the number of templates,
        whatever is in the path. One that is not UTF-8 matches nothing.
        """
        try:
            segments = _segments(raw_path)
        except UnicodeDecodeError:
            return None
        table = self._table
        route = table.routes.get(segments)
        if route is None and table.root is not None:
            values: list[Any] = []
            found = _find(table.root, segments, 0, values)
            if found is not None:
                route, names = found
                return route._replace(params=dict(zip(names, values, strict=True)))
        return route


def parameters_of(path: str) -> tuple[str, ...]:
    """Return the names of a path's parameters.

    Raises:
        TypeError, ValueError: It is no path or template.
    """
    return _parse(path)[1]


def _find(
    node: _Node, segments: Sequence[str], position: int, values: list[Any]
) -> tuple[Route, Sequence[str]] | None:
    """Return the best route from here on, its parameters' values behind `values`.

    A node is visited once at most, since its depth is its position.
    """
    if position == len(segments):
        return node.ends
    segment = segments[position]
    child = node.literals.get(segment)
    if child is not None:
        found = _find(child, segments, position + 1, values)
        if found is not None:
            return found
    for kind, child in node.typed.items():
        value = _CONVERT[kind](segment)
        if value is not None:
            values.append(value)
            found = _find(child, segments, position + 1, values)
            if found is not None:
                return found
            values.pop()
    if node.rest is not None and segment:
        values.append("/".join(segments[position:]))
        return node.rest
    return None


def _grow(root: _Node, shape: _Shape, route: Route) -> None:
    """Add a template below `root`."""
    end = route, parameters_of(route.path)
    node = root
    for part in shape:
        if part is _Kind.PATH:
            node.rest = end
            return
        node = node.child(part)
    node.ends = end


def _leads_to(route: Route, target: object) -> bool:
    if route.spec is not None and route.spec.service is target:
        return True
    if isinstance(target, MethodType):  # each time that it is asked for it is another object
        return route.resource == target
    return route.resource is target and target is not None


def _segments(path: str) -> tuple[str, ...]:
    segments = path.split("/")
    if "%" in path:
        return tuple(unquote(segment, errors="strict") for segment in segments)
    return tuple(segments)


# -- Templates -------------------------------------------------------


def _parse(path: str) -> tuple[_Shape, tuple[str, ...]]:
    """Return the shape of a path or template, and the names of its parameters.

    Raises:
        TypeError, ValueError: It is none; the text says what to write.
    """
    _check_path(path)
    shape: list[str | _Kind] = []
    names: list[str] = []
    for segment in path.split("/"):
        if shape and shape[-1] is _Kind.PATH:
            raise ValueError(f"in the path {path!r} {{{names[-1]}:path}} must come last")
        if "{" not in segment and "}" not in segment:
            shape.append(unquote(segment))
            continue
        name, kind = _parameter(path, segment)
        if name in names:
            raise ValueError(f"the path {path!r} has two parameters {name!r}: rename one")
        names.append(name)
        shape.append(kind)
    return tuple(shape), tuple(names)


def _parameter(path: str, segment: str) -> tuple[str, _Kind]:
    """Return the name and the type that "{name:type}" has."""
    found = re.fullmatch(r"\{([^{}:]*)(?::([^{}]*))?\}", segment)
    if found is None:
        raise ValueError(
            f"in the path {path!r} the segment {segment!r} is not understood: a parameter is a "
            "whole segment, written {name} or {name:type}, and other braces %7B and %7D"
        )
    name, kind = found[1], found[2]
    if kind is not None and name in _NAMES and kind not in _NAMES:
        raise ValueError(f"in the path {path!r} the type comes last: write {{{kind}:{name}}}")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(
            f"in the path {path!r} {name!r} is no name: a resource takes it as a parameter, so "
            "write a Python identifier such as {room}"
        )
    try:
        return name, _Kind("str" if kind is None else kind)
    except ValueError:
        raise ValueError(
            f"in the path {path!r} {kind!r} is no type: write {{{name}}}, or {{{name}:...}} with "
            f"one of {_TYPES}"
        ) from None


def _check_path(path: str) -> None:
    if callable(path):
        raise TypeError("the decorator needs its path: write @listener.upgrade(path, service=...)")
    if not isinstance(path, str):
        raise TypeError(f"a path is a str, not {path!r}")
    if not path.startswith("/"):
        raise ValueError(f"the path {path!r} must begin with a slash: /{path}")
    found = re.search(r"<(?:\w+:)?(\w+)>", path)
    if found is not None:
        raise ValueError(
            f"in the path {path!r} {found[0]!r} is no parameter: write {{{found[1]}}}, or with a "
            f"type {{{found[1]}:int}}"
        )
    if "?" in path or "#" in path:
        raise ValueError(f"the path {path!r} must have no query and no fragment")
    try:
        _segments(path)
    except UnicodeDecodeError:
        raise ValueError(f"the path {path!r} is not UTF-8 where it is percent-encoded") from None
