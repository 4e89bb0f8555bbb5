"""What a forked child makes anew: locks, for who held one in the parent is not there."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Renewed", "renew_in_children"]


class Renewed(Protocol):
    """What has locks of its own."""

    def _after_fork(self) -> None:
        """In a forked child: make the locks anew. No other thread is there."""


_renewed: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renew_in_children(one: Renewed) -> None:
    """Have `one` renewed in every child that is forked as long as it is there. Any thread."""
    _renewed.add(one)


def _after_fork_in_child() -> None:
    for one in list(_renewed):
        one._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
