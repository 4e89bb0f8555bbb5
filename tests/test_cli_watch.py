"""Source files that change are noticed, once they have settled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncws.cli.watch import Watch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "chat.py").write_text("1")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "sockets.py").write_text("1")
    return tmp_path


def touch(path: Path, text: str = "2") -> None:
    """Change a file, whatever the file system's clock ticks in."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_nothing_changes(root: Path) -> None:
    watch = Watch(root)
    assert watch.look() == watch.look() == []


def test_a_burst_counts_once_and_when_it_is_over(root: Path) -> None:
    watch = Watch(root)
    touch(root / "chat.py")
    assert watch.look() == []
    touch(root / "shop" / "sockets.py")
    assert watch.look() == []
    assert watch.look() == ["chat.py", os.path.join("shop", "sockets.py")]
    assert watch.look() == []


def test_files_come_and_go(root: Path) -> None:
    watch = Watch(root)
    (root / "chat.py").unlink()
    touch(root / "shop" / "new.py")
    watch.look()
    assert watch.look() == ["chat.py", os.path.join("shop", "new.py")]


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".hidden/x.py",
        ".#chat.py",
        "__pycache__/x.py",
        "node_modules/x.py",
        "venv/lib/x.py",
    ],
)
def test_what_does_not_count(root: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    if name.startswith("venv"):
        (root / "venv" / "pyvenv.cfg").touch()
    watch = Watch(root)
    touch(root / name)
    assert watch.look() == watch.look() == []


def test_a_file_that_vanishes_amid_a_look(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "gone.py").symlink_to(root / "nowhere.py")
    assert Watch(root).look() == []
