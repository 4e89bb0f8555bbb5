"""The corpora: what each target begins with, a file for each input."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import wsproto

import syncws

from .seeds import seeds
from .targets import MAX_SIZE, Target

__all__ = ["CORPUS", "distil", "load", "name_of", "write_seeds"]

CORPUS = Path(__file__).resolve().parent / "corpus"

_WATCHED = tuple(str(Path(module.__file__ or "").parent) for module in (syncws, wsproto, h11))

#: Where a line is gone to, and from which.
_Arc = tuple[str, int, int]


def name_of(data: bytes) -> str:
    """Return the name of a file that has no better one."""
    return hashlib.sha1(data).hexdigest()[:12]


def load(directory: Path) -> dict[str, bytes]:
    """Return the inputs in a directory, by name."""
    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def write_seeds(target: str) -> None:
    """Write what a corpus begins with."""
    directory = CORPUS / target
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in seeds(target).items():
        assert len(data) <= MAX_SIZE, name
        (directory / name).write_bytes(data)


def distil(name: str, target: Target, found: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Yield those inputs that go where neither the corpus nor others do, the shortest first.

    Args:
        name: The target's.
        target: The target.
        found: Inputs.
        most: How many at the most.
    """
    seen: set[_Arc] = set()
    for data in load(CORPUS / name).values():
        seen |= _arcs(target, data)
    for data in sorted(set(found), key=lambda data: (len(data), data)):
        arcs = _arcs(target, data)
        if not arcs <= seen and most:
            seen |= arcs
            most -= 1
            yield data


def _arcs(target: Target, data: bytes) -> set[_Arc]:
    """Return which lines an input goes through, and from where."""
    arcs: set[_Arc] = set()

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        filename = frame.f_code.co_filename
        if not filename.startswith(_WATCHED):
            return None
        before = frame.f_lineno

        def line(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal before
            if event == "line":
                arcs.add((filename, before, frame.f_lineno))
                before = frame.f_lineno
            return line

        return line

    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return arcs
