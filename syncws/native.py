"""The C extension, if there is one.

It was not built where there was no compiler, and is left aside where the
environment has ``SYNCWS_PURE=1``. All that it does has a twin in Python, see
`protocol.plain`, `engine.transport` and `engine.poller`, which does the same
more slowly.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from types import ModuleType

__all__ = ["extension", "speedups"]

# What this version takes; see _speedups.c.
_INTERFACE = 1


def _load() -> ModuleType | None:
    if os.environ.get("SYNCWS_PURE", "") not in ("", "0"):
        return None
    found: ModuleType | None = None
    with contextlib.suppress(ImportError):
        found = importlib.import_module("._speedups", __package__)
    if found is not None and getattr(found, "INTERFACE", None) != _INTERFACE:
        warnings.warn(
            "syncws runs without its C extension, which is that of another version: "
            "install syncws again",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return found


extension = _load()

#: Whether the C extension is in use.
speedups: bool = extension is not None
