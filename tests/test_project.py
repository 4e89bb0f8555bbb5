"""The files around the code agree with it and with each other."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {
    "cli",
    "django",
    "flask",
    "prometheus",
    "proxy",
    "redis",
    "examples",
    "test",
    "cov",
    "bench",
    "fuzz",
    "docs",
    "dev",
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read("README.md"), re.MULTILINE | re.DOTALL)


def source_version() -> str:
    (version,) = re.findall(r'^__version__ = "([^"]+)"$', read("syncws/__init__.py"), re.MULTILINE)
    return version


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py hands to setuptools, which need not be installed."""
    arguments: dict[str, Any] = {}
    setuptools = types.ModuleType("setuptools")
    setuptools.setup = arguments.update  # type: ignore[attr-defined]
    setuptools.find_packages = lambda **options: options  # type: ignore[attr-defined]
    setuptools.Extension = lambda *args, **options: (args, options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    return arguments


def installed() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("syncws")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("syncws is not installed")


def test_the_readme_has_its_two_commands() -> None:
    sample, test = (block.rstrip("\n") for block in blocks("sh"))
    assert "\n" not in sample + test
    assert sample.endswith(".venv/bin/python examples/basic_sample.py")
    assert "pip install -q -e '.[test]' && .venv/bin/python -m pytest" in test


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    command = blocks("sh")[1].strip()
    lines = [line.strip() for line in read(".ci/run").splitlines()]
    assert lines.count(command) == 1
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_sample_of_the_readme_exists() -> None:
    assert (ROOT / blocks("sh")[0].split()[-1]).is_file()


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", read("README.md"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_code_of_the_readme_uses_what_there_is() -> None:
    syncws = pytest.importorskip("syncws")
    code = blocks("python")
    assert len(code) >= 2
    for block in code:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "syncws" or node.attr in syncws.__all__


def test_the_newest_changes_are_those_of_the_version() -> None:
    newest = re.search(r"^## (\S+)", read("CHANGES.md"), re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == source_version()


def test_the_page_on_extras_has_all_of_them(setup_arguments: dict[str, Any]) -> None:
    extras = setup_arguments["extras_require"]
    ours, others = {}, set()
    for row in re.findall(r"^\| (`.*) \|$", read("docs/extras.md"), re.MULTILINE):
        first, *rest = (set(re.findall(r"`([^`]+)`", cell)) for cell in row.split(" | "))
        if len(rest) == 2:
            ours[first.pop()] = rest[0]
        else:
            others |= first
    assert ours == {name: set(extras[name]) for name in ours}
    assert ours.keys() >= {"cli", "django", "flask", "prometheus", "proxy", "redis"}
    assert ours.keys() | others == extras.keys()


def test_setup_takes_the_version_from_the_source(setup_arguments: dict[str, Any]) -> None:
    assert setup_arguments["version"] == source_version()


def test_setup_ships_the_package_with_its_types(setup_arguments: dict[str, Any]) -> None:
    assert setup_arguments["packages"]["include"] == ["syncws", "syncws.*"]
    assert "py.typed" in setup_arguments["package_data"]["syncws"]
    assert (ROOT / "syncws" / "py.typed").exists()


def test_setup_has_the_extras(setup_arguments: dict[str, Any]) -> None:
    extras = setup_arguments["extras_require"]
    assert set(extras) == EXTRAS
    assert set(extras["dev"]) > set(extras["test"]) | set(extras["cov"])


def test_every_directory_of_the_package_is_a_package() -> None:
    directories = {path.parent for path in (ROOT / "syncws").rglob("*.py")}
    assert [path for path in sorted(directories) if not (path / "__init__.py").exists()] == []


def test_the_supported_pythons_agree(setup_arguments: dict[str, Any]) -> None:
    prefix = "Programming Language :: Python :: 3."
    minors = [
        int(line.removeprefix(prefix))
        for line in setup_arguments["classifiers"]
        if line.startswith(prefix)
    ]
    assert setup_arguments["python_requires"] == f">=3.{min(minors)}"
    environments = re.search(r"^envlist = (.*)$", read("tox.ini"), re.MULTILINE)
    assert environments is not None
    assert re.findall(r"\bpy3(\d+)\b", environments.group(1)) == [str(m) for m in sorted(minors)]


def test_the_installed_metadata_agrees() -> None:
    distribution = installed()
    assert distribution.version == source_version()
    assert set(distribution.metadata.get_all("Provides-Extra") or ()) >= EXTRAS
    assert distribution.metadata["Requires-Python"] == ">=3.10"
    required = [line for line in distribution.requires or () if "extra ==" not in line]
    assert [re.split(r"[<>=! ]", line)[0] for line in required] == ["wsproto"]
