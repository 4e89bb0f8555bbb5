"""Notices that source files have changed."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["Watch"]

# Directories that have no source of the user's.
_PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages"})

_Stamps = dict[str, tuple[int, int]]


class Watch:
    """The Python files below a directory.

    Hidden directories and virtual environments are passed over.

    Args:
        root: The directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._seen = self._scan()
        self._changed: set[str] = set()

    def look(self) -> list[str]:
        """Return what has changed, once it has not changed since the last look.

        So files that are saved one after another count once.
        """
        now = self._scan()
        changed = {
            name for name in self._seen.keys() | now if self._seen.get(name) != now.get(name)
        }
        self._seen = now
        if changed:
            self._changed |= changed
            return []
        settled, self._changed = sorted(self._changed), set()
        return settled

    def _scan(self) -> _Stamps:
        stamps: _Stamps = {}
        for directory, inner, files in os.walk(self._root):
            if directory != self._root and "pyvenv.cfg" in files:
                inner.clear()
                continue
            inner[:] = [name for name in inner if name[0] != "." and name not in _PASSED_OVER]
            for name in files:
                if name.endswith(".py") and name[0] != ".":
                    path = os.path.join(directory, name)
                    try:
                        status = os.stat(path)
                    except OSError:  # it is being replaced
                        continue
                    stamps[os.path.relpath(path, self._root)] = (status.st_mtime_ns, status.st_size)
        return stamps
