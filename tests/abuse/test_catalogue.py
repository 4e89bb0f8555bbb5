"""The list of abuse cases and the tests say the same; so does the page on security."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = _ROOT / "docs" / "abuse-cases.md"
_SECURITY = _ROOT / "docs" / "security.md"
_HERE = "tests/abuse/"

# Rows that may be without tests of their own here.
_WITHOUT: tuple[str, ...] = ()


def _named(page: Path = _PAGE) -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py::\w+)`", page.read_text(encoding="utf-8"))


@functools.cache
def _tests_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    }


@pytest.mark.parametrize("page", [_PAGE, _SECURITY], ids=lambda page: page.stem)
def test_the_tests_that_are_named_exist(page: Path) -> None:
    named = _named(page)
    assert named
    missing = []
    for name in named:
        module, _, test = name.partition("::")
        path = _ROOT / module
        if not path.is_file() or test not in _tests_of(path):
            missing.append(name)
    assert missing == []


def test_every_test_is_named() -> None:
    ours = {
        f"{_HERE}{path.name}::{test}"
        for path in (_ROOT / _HERE).glob("test_*.py")
        for test in _tests_of(path)
    }
    assert ours - set(_named()) == set()
    assert len(set(_named())) == len(_named())  # each once


def test_every_row_has_tests_or_says_why_not() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in _PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| flaw ")
    ]
    assert len(rows) > 20
    for row in rows:
        assert len(row) == 5, row
        assert all(row[:4]), row
        assert row[4] or row[0] in _WITHOUT, row
