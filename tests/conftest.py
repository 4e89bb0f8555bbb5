"""What every test gets: it has to give back the threads and the descriptors that it takes."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

# No test goes by the time that something takes.
settings.register_profile("syncws", deadline=None)
settings.load_profile("syncws")

# Other people's clients ask a proxy of the environment even for this machine.
for _name in ("no_proxy", "NO_PROXY"):
    _excluded = [os.environ.get(_name), "localhost", "127.0.0.1", "::1"]
    os.environ[_name] = ",".join(filter(None, _excluded))

# Long enough for a closing handshake that waits for its deadline.
_GRACE = 5.0
_DESCRIPTORS = "/proc/self/fd"


def running_threads() -> set[threading.Thread]:
    """Return the threads alive.

    Without the stand-ins for threads that the threading module did not start,
    of which it cannot tell whether they still run.
    """
    return {
        thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)
    }


def open_descriptors() -> set[tuple[int, str]]:
    """Return the numbers and targets of the open descriptors; nothing where there is no /proc."""
    found = set()
    try:
        numbers = os.listdir(_DESCRIPTORS)
    except OSError:
        return found
    for number in numbers:
        try:
            found.add((int(number), os.readlink(f"{_DESCRIPTORS}/{number}")))
        except OSError:  # that of listdir itself
            pass
    return found


class Leaks:
    """What has appeared since this was made."""

    def __init__(self) -> None:
        self._threads = running_threads()
        self._descriptors = open_descriptors()

    def left(self) -> list[str]:
        """Return what is there and was not, a line for each."""
        threads = {
            thread for thread in running_threads() - self._threads if not self._hired(thread)
        }
        descriptors = open_descriptors() - self._descriptors
        return sorted(f"thread {thread.name}" for thread in threads) + sorted(
            f"descriptor {number}: {target}" for number, target in descriptors
        )

    def _hired(self, thread: threading.Thread) -> bool:
        """Whether an engine from before has added this one to its pool, which it keeps.

        That is the engine of a listener of wider scope. An engine that leaks
        is seen all the same: its I/O thread is.
        """
        engine, worker, _ = thread.name.partition("-worker")
        return bool(worker) and any(
            before.is_alive() and before.name.startswith(f"{engine}-io") for before in self._threads
        )

    def wait(self, grace: float = _GRACE) -> list[str]:
        """Return what is left once everything has gone, or after `grace` seconds."""
        left = self.left()
        if not left:
            return left
        # What a cycle holds is freed by the collector only, often for no other
        # reason than that pytest.raises keeps a traceback. A socket that is
        # closed in this way still fails the test: its ResourceWarning does.
        gc.collect()
        deadline = time.monotonic() + grace
        never = threading.Event()
        while (left := self.left()) and time.monotonic() < deadline:
            never.wait(0.01)
        return left


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread or a file descriptor behind.

    Fixtures of wider scope are set up before any of function scope, and
    autouse fixtures of the outermost conftest before the others of their
    scope. So this one looks first after what the module and the session own
    is there, and last after everything that the test itself asked for has
    been torn down. It asks for no other fixture but `request`, or that one
    would outlive it. A fixture of wider scope that a test gets through
    `getfixturevalue` is seen as the test's.
    """
    marker = request.node.get_closest_marker("may_leak")
    if marker is not None:
        if len(marker.args) != 1 or not isinstance(marker.args[0], str):
            pytest.fail("may_leak takes the reason, and nothing else", pytrace=False)
        yield
        return
    leaks = Leaks()
    yield
    if left := leaks.wait():
        pytest.fail("the test leaks:\n  " + "\n  ".join(left), pytrace=False)
