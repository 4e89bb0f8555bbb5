"""Selections of the suite's cases."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """Some of the suite's cases.

    Attributes:
        cases: Patterns of the cases to run.
        exclude: Patterns of the cases to leave out of those.
        count: How many cases that makes with the pinned suite.
        case_timeout: Seconds after which a case that has not ended is aborted.
        timeout: Seconds for the whole run in one role.
    """

    cases: tuple[str, ...]
    exclude: tuple[str, ...]
    count: int
    case_timeout: float
    timeout: float


# Groups 12 and 13 send 1,000 messages in each of their sub-cases. 1 to 7 have
# messages up to 8 KiB, 11 has such messages in fragments; the others, with
# messages up to 128 KiB, take nine tenths of the time.
_LONG_SUBCASES = (8, 9, 10, *range(12, 19))

PRESETS = {
    "core": Preset(("*",), ("9.*", "12.*", "13.*"), 247, 60.0, 600.0),
    "limits": Preset(("9.*",), (), 54, 300.0, 1200.0),
    "light": Preset(("*",), ("12.*", "13.*"), 301, 300.0, 1200.0),
    "quick": Preset(
        ("*",),
        tuple(f"{group}.*.{case}" for group in (12, 13) for case in _LONG_SUBCASES),
        397,
        300.0,
        1800.0,
    ),
    "pmd": Preset(("12.*", "13.*"), (), 216, 900.0, 7200.0),
    "full": Preset(("*",), (), 517, 900.0, 7200.0),
}
