"""Whether the C extension is in use; in a process of its own, for it is settled by the import."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

import syncws
from syncws import native
from tests.support import interpreter

BUILT = importlib.util.find_spec("syncws._speedups") is not None

SCRIPT = """
import json, os, socket, sys, types, warnings
os.environ.pop("SYNCWS_PURE", None)
value, instead = json.loads(sys.argv[1])
if value is not None:
    os.environ["SYNCWS_PURE"] = value
if instead == "nothing":
    sys.modules["syncws._speedups"] = None  # what import finds where none was built
elif instead == "another":
    sys.modules["syncws._speedups"] = types.ModuleType("_speedups")
    sys.modules["syncws._speedups"].INTERFACE = -1
elif instead == "an older":
    sys.modules["syncws._speedups"] = types.ModuleType("_speedups")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import syncws
from syncws import native
from syncws.engine.poller import make_poller
from syncws.engine.transport import make_transport
from syncws.protocol import kernels, plain

names = ["Payload", "frame", "mask", "read_frames"]
first, second = socket.socketpair()
poller = make_poller()
found = {
    "speedups": [syncws.speedups, native.speedups],
    "extension": native.extension is not None,
    "kernels": [getattr(kernels, name) is not getattr(plain, name) for name in names],
    "of_the_extension": [
        getattr(kernels, name) is getattr(native.extension, name, None) for name in names
    ],
    "transport": type(make_transport(first)).__name__,
    "poller": type(poller).__name__,
    "warnings": [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)],
}
poller.close()
first.close()
second.close()
print(json.dumps(found))
"""


def chosen(value: str | None, *, instead: str = "") -> dict[str, Any]:
    """Import syncws with this SYNCWS_PURE, or with none, and return what it has chosen.

    Args:
        value: That of the environment.
        instead: What there is in place of the extension.
    """
    with interpreter(SCRIPT, json.dumps([value, instead])) as process:
        line = process.line()
        code, errors = process.end()
        assert (code, errors) == (0, ""), errors
    found: dict[str, Any] = json.loads(line)
    return found


def assert_pure(found: dict[str, Any]) -> None:
    assert found["speedups"] == [False, False]
    assert found["extension"] is False
    assert found["kernels"] == [False] * 4
    assert found["transport"] == "PlainTransport"
    assert found["poller"] in ("EpollPoller", "SelectorPoller")


@pytest.mark.skipif(not BUILT, reason="the C extension was not built")
@pytest.mark.parametrize("value", [None, "", "0"])
def test_the_extension_is_used_where_it_was_built(value: str | None) -> None:
    found = chosen(value)
    assert found["speedups"] == [True, True]
    assert found["warnings"] == []
    assert found["extension"] is True
    assert found["kernels"] == found["of_the_extension"] == [True] * 4
    if hasattr(native.extension, "receive"):
        assert found["transport"] == "FastTransport"
    if hasattr(native.extension, "epoll_wait"):
        assert found["poller"] == "FastEpollPoller"


@pytest.mark.parametrize("value", ["1", "yes", "00"])
def test_the_environment_can_have_it_left_aside(value: str) -> None:
    found = chosen(value)
    assert_pure(found)
    assert found["warnings"] == []


@pytest.mark.parametrize("value", [None, "1"])
def test_without_it_everything_is_python(value: str | None) -> None:
    found = chosen(value, instead="nothing")
    assert_pure(found)
    assert found["warnings"] == []


@pytest.mark.parametrize("instead", ["another", "an older"])
def test_that_of_another_version_is_not_used(instead: str) -> None:
    found = chosen(None, instead=instead)
    assert_pure(found)
    (warning,) = found["warnings"]
    assert "another version" in warning
    assert chosen("1", instead=instead)["warnings"] == []


def test_the_package_tells() -> None:
    assert syncws.speedups is native.speedups is (native.extension is not None)
