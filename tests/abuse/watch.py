"""What a case of abuse may cost, and that all of it comes back."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import tracemalloc
from collections.abc import Iterator

from syncws.engine.engine import default_engine
from tests.conftest import Leaks
from tests.support import HANG

__all__ = ["watched"]

# Bytes that may stay allocated: of caches that fill once, and of frames of tests.
_KEPT = 512 * 1024


def watched(*, peak: int | None = None) -> contextlib.AbstractContextManager[None]:
    """Assert that the block leaves nothing behind, while what runs around it goes on.

    Threads, descriptors, and the sockets that the process's engine looks
    after have to be what they were; and so has memory, if that is watched.

    Args:
        peak: Bytes that the block may take beside what was there before, at
            any time. None: memory is not watched, which takes time.
    """
    return _watched() if peak is None else _weighed(peak)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    leaks = Leaks()
    before = _looked_after()
    yield
    left = leaks.wait(HANG)
    assert not left, left
    deadline = time.monotonic() + HANG
    never = threading.Event()
    while _looked_after() > before and time.monotonic() < deadline:
        never.wait(0.01)
    assert _looked_after() <= before


def _looked_after() -> int:
    """The sockets of connections, handshakes and listeners that are alive."""
    runtime = default_engine()._runtime
    return len(runtime.loop._handlers) if runtime is not None else 0


@contextlib.contextmanager
def _weighed(peak: int) -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        with _watched():
            yield
            _, highest = tracemalloc.get_traced_memory()
        assert highest - before <= peak, f"{highest - before} bytes, more than {peak}"
        deadline = time.monotonic() + HANG
        never = threading.Event()
        while (kept := _kept(before)) > _KEPT and time.monotonic() < deadline:
            never.wait(0.01)
        assert kept <= _KEPT, f"{kept} bytes are kept"
    finally:
        tracemalloc.stop()


def _kept(before: int) -> int:
    gc.collect()
    now, _ = tracemalloc.get_traced_memory()
    return now - before
