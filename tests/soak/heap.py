"""What this process has allocated and not freed.

Resident memory says more than that: the C library keeps freed memory that it
cannot give back, for what still lies between, and with many threads that grows
for a long time though nothing is leaked.
"""

from __future__ import annotations

import ctypes
import sys
from typing import NamedTuple

__all__ = ["Heap", "heap"]


class Heap(NamedTuple):
    """What is allocated now.

    Attributes:
        kib: By C code and as large objects, in KiB; 0 where the C library does not say.
        blocks: Small objects of Python's, a count.
    """

    kib: int
    blocks: int


class _Info(ctypes.Structure):
    """The result of mallinfo2(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


_mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
if _mallinfo is not None:
    _mallinfo.restype = _Info


def heap() -> Heap:
    """Look."""
    kib = 0
    if _mallinfo is not None:
        info = _mallinfo()
        kib = (info.uordblks + info.hblkhd) // 1024
    return Heap(kib, sys.getallocatedblocks())
