"""Memory in use is seen, whatever the system keeps of what was freed."""

from __future__ import annotations

import pytest

from .heap import heap


def test_large_objects_count_while_they_are_there() -> None:
    before = heap().kib
    if not before:
        pytest.skip("the C library does not say")
    kept = bytes(64 * 2**20)
    assert heap().kib - before >= 60 * 1024
    del kept
    assert abs(heap().kib - before) < 4 * 1024


def test_small_objects_count() -> None:
    before = heap().blocks
    kept = [object() for _ in range(10_000)]
    assert heap().blocks - before >= len(kept)
