"""Which service a path leads to."""

from __future__ import annotations

import threading
from urllib.parse import unquote

from ..callbacks import ServiceSpec
from ..service import Service

__all__ = ["Router"]

_Segments = tuple[str, ...]


class Router:
    """Paths and their services.

    `attach` and `detach` may be called from any thread while the I/O thread
    looks paths up: the table is replaced, never changed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of those who replace the table
        self._routes: dict[_Segments, tuple[str, ServiceSpec]] = {}

    def attach(self, path: str, spec: ServiceSpec) -> None:
        """Lead `path` to `spec`.

        Raises:
            TypeError, ValueError: It is no path, or one that is taken.
        """
        key = _segments(_check_path(path))
        with self._lock:
            if key in self._routes:
                raise ValueError(f"the path {path!r} has a service already: detach it first")
            self._routes = {**self._routes, key: (path, spec)}

    def detach(self, target: str | Service | type[Service]) -> None:
        """Forget a path, or every path that leads to a service.

        Raises:
            ValueError: There is no such path or service.
        """
        with self._lock:
            if isinstance(target, str):
                key = _segments(_check_path(target))
                gone = {key} if key in self._routes else set()
            else:
                gone = {key for key, (_, spec) in self._routes.items() if spec.service is target}
            if not gone:
                known = ", ".join(repr(path) for path, _ in self._routes.values()) or "none"
                raise ValueError(f"{target!r} is not attached; the attached paths are: {known}")
            self._routes = {key: route for key, route in self._routes.items() if key not in gone}

    def match(self, raw_path: str) -> tuple[str, ServiceSpec] | None:
        """Return the path and the service for a path as it came, percent-encoded."""
        return self._routes.get(_segments(raw_path))


def _segments(path: str) -> _Segments:
    """Split, then decode: an encoded slash is part of its segment. RFC 3986 section 2.2."""
    return tuple(unquote(segment) for segment in path.split("/"))


def _check_path(path: str) -> str:
    if not isinstance(path, str):
        raise TypeError(f"a path is a str, not {path!r}")
    if not path.startswith("/"):
        raise ValueError(f"the path {path!r} must begin with a slash: /{path}")
    if "?" in path or "#" in path:
        raise ValueError(f"the path {path!r} must have no query and no fragment")
    return path
