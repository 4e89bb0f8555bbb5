"""What goes wrong, once for each place where it does."""

from __future__ import annotations

import traceback
from pathlib import Path

from .corpus import name_of
from .targets import Target

__all__ = ["Findings"]


class Findings:
    """The inputs that raised, in files.

    Args:
        name: The target's.
        directory: Where the files go; made when there is something to write.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self._name = name
        self._directory = directory
        self._known: set[str] = set()
        self.paths: list[Path] = []

    def attempt(self, target: Target, data: bytes) -> object:
        """Give the target an input; return what came of it, or None if it raised."""
        try:
            return target(data)
        except Exception as exc:
            self._note(data, exc)
            return None

    def _note(self, data: bytes, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{type(error).__name__} at " + ", ".join(
            f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:]
        )
        if place in self._known:
            return
        self._known.add(place)
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{self._name}-{name_of(data)}"
        path.write_bytes(data)
        self.paths.append(path)
        print(f"{self._name}: {place}: {error!s:.300}")
        print(f"  python -m tests.fuzz --target {self._name} {path}", flush=True)
