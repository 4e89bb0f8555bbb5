"""The C extension, if there is one.

It was not built where there was no compiler, and is left aside where the
environment has ``SYNCWS_PURE=1``. All that it does has a twin in Python, see
`protocol.plain` and `engine.transport`, which does the same more slowly.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from types import ModuleType

__all__ = ["extension", "speedups"]

extension: ModuleType | None = None
if os.environ.get("SYNCWS_PURE", "") in ("", "0"):
    with contextlib.suppress(ImportError):
        extension = importlib.import_module("._speedups", __package__)

#: Whether the C extension is in use.
speedups: bool = extension is not None
