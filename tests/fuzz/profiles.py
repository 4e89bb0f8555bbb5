"""How long the state machines run: shortly and always the same, or `SYNCWS_FUZZ=long`."""

from __future__ import annotations

import os
from collections import Counter

from hypothesis import HealthCheck, Phase, settings

__all__ = ["COUNTS", "profile"]

#: Examples and steps, by machine.
COUNTS: Counter[str] = Counter()

_LONG = os.environ.get("SYNCWS_FUZZ", "") == "long"
_FACTOR = int(os.environ.get("SYNCWS_FUZZ_FACTOR", "10"))


def profile(examples: int, steps: int) -> settings:
    """Return a machine's settings.

    Args:
        examples: In the ordinary run, which is the same each time.
        steps: Of one example.
    """
    return settings(
        max_examples=examples * _FACTOR if _LONG else examples,
        stateful_step_count=steps * 2 if _LONG else steps,
        derandomize=not _LONG,
        database=None,
        deadline=None,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
