"""The rooms of syncws and their one-way order.

Every import counts, wherever it stands: in a function, in a ``try``, or under
``if TYPE_CHECKING``. There are no exceptions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "syncws"

# From the bottom up; a room imports from those above it in this list, and from
# itself. "__init__" is what `import syncws` gives.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "logs", "native"),
    ("config", "timing", "tls"),
    ("protocol",),
    ("engine",),
    ("service", "endpoint", "callbacks"),
    ("server", "client"),
    ("groups",),
    ("integrations",),
    ("testing",),
    ("cli", "__main__"),
    ("__init__",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# On one floor, but strangers.
STRANGERS = {frozenset({"server", "client"})}

# Distributions that only one room knows.
RESERVED = {
    "wsproto": "protocol",
    "h11": "protocol",
    "python_socks": "client",
    "redis": "groups",
    "flask": "integrations",
    "werkzeug": "integrations",
    "django": "integrations",
    "prometheus_client": "integrations",
    "pytest": "testing",
    "click": "cli",
    "prompt_toolkit": "cli",
    "rich": "cli",
}


def modules_of(package: Path) -> dict[str, ast.Module]:
    """Parse every module below a package; a package's own name is that of its __init__."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return modules


def is_package(name: str, package: Path) -> bool:
    return (package.parent / Path(*name.split(".")) / "__init__.py").exists()


def targets_of(
    name: str, modules: Mapping[str, ast.Module], package: Path
) -> Iterator[tuple[int, str]]:
    """Yield the line and the absolute name of everything that a module imports.

    A name imported from a package is its module of that name, or else the package.
    """
    for node in ast.walk(modules[name]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = node.level - 1 if is_package(name, package) else node.level
                anchor = name.split(".")
                anchor = anchor[: len(anchor) - up]
                base = ".".join([*anchor, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in modules else base


def room_of(name: str) -> str:
    """Return the room that a module of the package is in."""
    _, _, rest = name.partition(".")
    return rest.split(".")[0] or "__init__"


def order_violations(package: Path) -> list[str]:
    """Return every import that goes up, or to a stranger, and every module without a room."""
    modules = modules_of(package)
    found = []
    for name in modules:
        room = room_of(name)
        if room not in FLOOR_OF:
            found.append(f"{name}: {room!r} is no room")
            continue
        for line, target in targets_of(name, modules, package):
            if target.split(".")[0] != package.name:
                continue
            other = room_of(target)
            if other not in FLOOR_OF:
                found.append(f"{name}:{line} imports {target}: {other!r} is no room")
            elif FLOOR_OF[other] > FLOOR_OF[room] or frozenset({room, other}) in STRANGERS:
                found.append(f"{name}:{line} imports {target}")
    return found


def reserved_violations(package: Path) -> list[str]:
    """Return every import of a distribution by a room that must not know it."""
    modules = modules_of(package)
    return [
        f"{name}:{line} imports {target}"
        for name in modules
        for line, target in targets_of(name, modules, package)
        if RESERVED.get(target.split(".")[0], room_of(name)) != room_of(name)
    ]


def cycles(package: Path) -> list[str]:
    """Return the cycles among modules, each once."""
    modules = modules_of(package)
    graph = {
        name: sorted({target for _, target in targets_of(name, modules, package)} & set(modules))
        for name in modules
    }
    found = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in graph[name]:
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


def test_imports_go_one_way() -> None:
    assert order_violations(PACKAGE) == []


def test_only_one_room_knows_each_library() -> None:
    assert reserved_violations(PACKAGE) == []


def test_no_module_imports_itself_in_the_end() -> None:
    assert cycles(PACKAGE) == []


def test_the_package_is_what_is_looked_at() -> None:
    assert {"syncws", "syncws.errors", "syncws.config"} <= set(modules_of(PACKAGE))


# Imports as they may be.
GOOD = {
    "__init__": "from .server import Listener\nfrom .errors import E as E\n__version__ = '1'\n",
    "__main__": "from .cli import main\n",
    "errors": "import enum\n",
    "timing": "from . import errors\n",
    "config": "from .timing import check\n",
    "protocol/__init__": "from .codec import Codec\n",
    "protocol/codec": "import wsproto.events\nfrom ..errors import E\nfrom .uri import parse\n",
    "protocol/uri": "from h11 import Request\n",
    "engine/__init__": "",
    "engine/connection": "from ..protocol import Codec\nfrom .loop import Loop\n",
    "engine/loop": "from .. import config, timing\n",
    "service": "from .endpoint import Endpoint\n",
    "endpoint": "import syncws.engine.connection\n",
    "server/__init__": "from .listener import Listener\n",
    "server/listener": "from ..service import Service\nfrom syncws.engine import loop\n",
    "client/__init__": "from ..endpoint import Endpoint\n",
    "cli/__init__": "from ..client import Client\ndef main():\n    from ..server import Listener\n",
}


def build(root: Path, **changes: str) -> Path:
    """Write a package whose imports are good but for the changes; "_" stands for "/"."""
    package = root / "syncws"
    sources = GOOD | {name.replace("_", "/"): text for name, text in changes.items()}
    for name, text in sources.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


def test_a_good_tree_has_no_violations(tmp_path: Path) -> None:
    package = build(tmp_path)
    assert (order_violations(package), reserved_violations(package), cycles(package)) == (
        [],
        [],
        [],
    )


@pytest.mark.parametrize(
    ("module", "source", "violation"),
    [
        ("errors", "from .config import Config\n", "syncws.errors:1 imports syncws.config"),
        ("errors", "import syncws\n", "syncws.errors:1 imports syncws"),
        ("config", "from . import __version__\n", "syncws.config:1 imports syncws"),
        ("timing", "from .protocol import x\n", "syncws.timing:1 imports syncws.protocol"),
        ("protocol_uri", "from ..engine import x\n", "syncws.protocol.uri:1 imports syncws.engine"),
        ("engine_loop", "from ..service import S\n", "syncws.engine.loop:1 imports syncws.service"),
        ("engine_loop", "from .. import server\n", "syncws.engine.loop:1 imports syncws.server"),
        (
            "engine_loop",
            "def late():\n    import syncws.client\n",
            "syncws.engine.loop:2 imports syncws.client",
        ),
        (
            "engine_loop",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..endpoint import E\n",
            "syncws.engine.loop:3 imports syncws.endpoint",
        ),
        ("endpoint", "from .client import C\n", "syncws.endpoint:1 imports syncws.client"),
        (
            "server_listener",
            "from ..client import Client\n",
            "syncws.server.listener:1 imports syncws.client",
        ),
        ("client_x", "from ..server import listener\n", "syncws.client.x:1 imports"),
        ("client_x", "from ..groups import Group\n", "syncws.client.x:1 imports syncws.groups"),
        ("groups", "from .integrations import x\n", "syncws.groups:1 imports syncws.integrations"),
        ("testing", "from . import cli\n", "syncws.testing:1 imports syncws.cli"),
        ("attic", "", "syncws.attic: 'attic' is no room"),
        ("config", "from .attic import x\n", "'attic' is no room"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, violation: str, tmp_path: Path) -> None:
    (found,) = order_violations(build(tmp_path, **{module: source}))
    assert violation in found


@pytest.mark.parametrize("module", ["engine_loop", "service", "client_x", "__init__"])
@pytest.mark.parametrize("source", ["import h11\n", "from wsproto.events import Ping\n"])
def test_a_reserved_import_is_found(module: str, source: str, tmp_path: Path) -> None:
    package = build(tmp_path)
    path = package / (f"{module}.py" if module == "__init__" else f"{module.replace('_', '/')}.py")
    path.write_text(source, encoding="utf-8")
    (found,) = reserved_violations(package)
    assert " imports " in found


def test_a_cycle_is_found(tmp_path: Path) -> None:
    package = build(
        tmp_path,
        engine_loop="from .timers import T\n",
        engine_timers="from .wakeup import W\n",
        engine_wakeup="def late():\n    from . import loop\n",
    )
    assert order_violations(package) == []
    (found,) = cycles(package)
    assert set(found.split(" -> ")) == {
        "syncws.engine.loop",
        "syncws.engine.timers",
        "syncws.engine.wakeup",
    }
