"""The leak check finds leaks, and nothing else."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Leaks

pytest_plugins = ["pytester"]

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="descriptors are only checked where /proc is"
)


@pytest.fixture(scope="module")
def owned_by_the_module() -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="owned-by-the-module")
    thread.start()
    read, write = os.pipe()
    yield
    stop.set()
    thread.join()
    os.close(read)
    os.close(write)


@pytest.fixture
def owned_by_the_test() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_fixtures_of_every_scope_may_own_things(
    owned_by_the_module: None, owned_by_the_test: socket.socket, tmp_path: Path
) -> None:
    assert owned_by_the_test.fileno() >= 0


def test_a_thread_is_found_and_forgotten_once_it_ends() -> None:
    leaks = Leaks()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-behind")
    thread.start()
    assert leaks.wait(0.0) == ["thread left-behind"]
    stop.set()
    thread.join()
    assert leaks.wait(0.0) == []


@needs_proc
def test_a_descriptor_is_found_and_forgotten_once_it_is_closed() -> None:
    leaks = Leaks()
    with socket.socket() as held:
        (line,) = leaks.wait(0.0)
        assert line.startswith(f"descriptor {held.fileno()}: socket:")
    assert leaks.wait(0.0) == []


@needs_proc
def test_a_reused_number_is_found() -> None:
    with socket.socket() as held:
        leaks = Leaks()
        with socket.socket() as other:
            os.dup2(other.fileno(), held.fileno())
        assert len(leaks.wait(0.0)) == 1


def test_only_an_engine_from_before_may_add_workers() -> None:
    stop = threading.Event()
    threads = [
        threading.Thread(target=stop.wait, name=name)
        for name in ("here-io", "here-worker-1", "gone-worker-1", "late-io", "late-worker-1")
    ]
    threads[0].start()
    leaks = Leaks()
    for thread in threads[1:]:
        thread.start()
    assert leaks.wait(0.0) == ["thread gone-worker-1", "thread late-io", "thread late-worker-1"]
    stop.set()
    for thread in threads:
        thread.join()


def test_what_ends_within_the_grace_is_no_leak() -> None:
    leaks = Leaks()
    thread = threading.Timer(0.05, lambda: None)
    thread.start()
    assert leaks.wait() == []


LEAKS = """
import socket, threading
import pytest

held = []


@pytest.fixture(scope="module")
def module_socket():
    with socket.socket() as held:
        yield held

@pytest.fixture
def careless():
    held.append(socket.socket())

def test_descriptor():
    held.append(socket.socket())

def test_fixture(careless):
    pass

def test_thread():
    stop = threading.Event()
    held.append(stop)
    threading.Thread(target=stop.wait, name="left-behind", daemon=True).start()

@pytest.mark.may_leak("to see whether the marker works")
def test_marked():
    held.append(socket.socket())

@pytest.mark.may_leak
def test_marked_without_a_reason():
    pass

def test_clean(module_socket, tmp_path):
    socket.socket().close()

def test_end():
    for thing in held:
        thing.set() if isinstance(thing, threading.Event) else thing.close()
"""


@needs_proc
def test_the_fixture_fails_tests_that_leak(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    pytester.makeconftest(source.replace("_GRACE = 5.0", "_GRACE = 0.1"))
    pytester.makeini(
        "[pytest]\nmarkers = may_leak(reason): here too\naddopts = --strict-markers -p no:xdist"
    )
    pytester.makepyfile(test_leaks=LEAKS)
    monkeypatch.setenv("PYTEST_ADDOPTS", "")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=6, errors=4)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_descriptor*",
            "*descriptor *: socket:*",
            "*ERROR at teardown of test_fixture*",
            "*ERROR at teardown of test_thread*",
            "*thread left-behind*",
            "*ERROR at setup of test_marked_without_a_reason*",
            "*may_leak takes the reason*",
        ]
    )
