"""A run from its beginning to its end: starts the processes, and hears what they say."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trustme

from .figures import Histogram
from .ledger import Book
from .processes import Child, Failure, Report
from .report import Result, problems_of
from .server import PLAIN, TLS
from .settings import Settings

__all__ = ["Run", "soak"]

# Seconds that the processes may take to start, to open everything, and to end.
_START = 60.0
_END = 240.0

# Seconds between lines on how it goes.
_PROGRESS = 10.0

# Texts of problems that are kept.
_KEPT = 60


class Run:
    """One run."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.book = Book()
        self.problems: list[str] = []
        self.children: dict[str, Child] = {}
        self.stats: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, list[dict[str, Any]]] = {}
        self.done: dict[str, dict[str, Any]] = {}
        self.interrupted = False
        self.opening = 0.0  # seconds until everything was open
        self.soaked = 0.0  # and from then on
        self.peak = 0
        self._say = say
        self._reports: queue.Queue[Report] = queue.Queue()
        self._heard: dict[tuple[str, str], dict[str, Any]] = {}
        self._gone: set[str] = set()
        self._began = time.monotonic()
        self._sampled = 0.0
        self._shown = time.monotonic()
        self._before = (time.monotonic(), 0, 0)
        self._interval = max(0.5, min(10.0, settings.seconds / 12))

    # -- What is heard ---------------------------------------------------

    def _handle(self, report: Report) -> None:
        child, what, data = report
        if what == "records":
            for record in data["records"]:
                self.book.add("server" if child == "server" else "client", record)
        elif what == "stats":
            self.stats[child] = data
            if child == "server":
                self.peak = max(self.peak, data["open"])
        elif what == "problem":
            self._problem(f"{child}: {data['text']}")
        elif what == "look":
            self.looks.setdefault(child, []).append(data["state"])
        elif what == "ended":
            self._gone.add(child)
            if child not in self.done:
                self._problem(f"{child} ended with status {data['status']}")
        else:
            if what == "done":
                self.done[child] = data
            self._heard[child, what] = data

    def _problem(self, text: str) -> None:
        if len(self.problems) < _KEPT:
            self.problems.append(text)
            self._say(f"  problem: {text}")

    def _pump(self, until: Callable[[], bool], timeout: float, what: str) -> None:
        """Hear reports until something holds.

        Raises:
            Failure: It did not in time, or a process has ended before.
        """
        deadline = time.monotonic() + timeout
        while not until():
            if time.monotonic() > deadline:
                raise Failure(f"{what}: not within {timeout:.0f} s")
            if self._gone - set(self.done):
                raise Failure(f"{what}: {', '.join(sorted(self._gone - set(self.done)))} has ended")
            with contextlib.suppress(queue.Empty):
                self._handle(self._reports.get(timeout=0.1))
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        if self.soaked and now - self._sampled >= self._interval:
            self._sampled = now
            for name, child in self.children.items():
                heap = self.stats.get(name, {}).get("heap", (0, 0))
                child.look(now - self.soaked, heap)
        if now - self._shown >= _PROGRESS:
            self._shown = now
            self._progress(now)

    def _progress(self, now: float) -> None:
        server = self.stats.get("server", {})
        sent, received = server.get("sent", 0), server.get("received", 0)
        then, sent_then, received_then = self._before
        self._before = (now, sent, received)
        passed = now - then
        memory = " + ".join(
            f"{child.samples[-1].memory // 1024}"
            for child in self.children.values()
            if child.samples
        )
        self._say(
            f"{now - self._began:6.0f} s  {server.get('open', 0):6} open "
            f"{server.get('opened', 0):8} opened  in {(received - received_then) / passed:7.0f}/s  "
            f"out {(sent - sent_then) / passed:7.0f}/s  "
            f"broadcast {server.get('promised', 0):9}  memory {memory or '?'} MiB  "
            f"wrong {sum(self.book.counts.values())}  problems {len(self.problems)}"
        )

    # -- The course ------------------------------------------------------

    def start(self) -> None:
        """Start the processes, and tell the clients where the server is."""
        settings = self.settings
        self._child("server")
        addresses = json.dumps(self._await("server", "ready")["addresses"])
        for name in ("clients", "rough"):
            self._child(name)
        for name in ("clients", "rough"):
            self._await(name, "ready")
            self.children[name].tell(addresses)
        began = time.monotonic()
        self._pump(
            lambda: self.stats.get("clients", {}).get("open", 0) >= settings.callback_clients,
            _START + settings.connections / 50,
            "opening the connections",
        )
        self.opening = time.monotonic() - began

    def soak(self) -> None:
        """Let it go on for as long as it should."""
        began = self.soaked = time.monotonic()
        seconds = self.settings.seconds
        for look in (self.settings.warm_up, seconds):
            self._until(began + look)
            for name in ("server", "clients"):
                self.children[name].tell("look")
        self._pump(lambda: all(len(one) >= 2 for one in self.looks.values()), _START, "a last look")

    def _until(self, when: float) -> None:
        self._pump(lambda: time.monotonic() >= when, when - time.monotonic() + _START, "the soak")

    def finish(self) -> None:
        """End everything in order: the clients half of it, the server's stop the rest."""
        self._say("ending")
        for name in ("rough", "clients"):
            self.children[name].tell("finish")
        for name in ("rough", "clients"):
            self._await(name, "quiet", _END)
        self.children["server"].tell("stop")
        for name in self.children:
            self._await(name, "done", _END)
        self._pump(
            lambda: len(self._gone) == len(self.children), _START, "the end of the processes"
        )
        while not self._reports.empty():
            self._handle(self._reports.get())
        self.book.close()

    def _child(self, name: str) -> None:
        self.children[name] = Child(name, self.settings, self._reports)

    def _await(self, name: str, what: str, timeout: float = _START) -> dict[str, Any]:
        self._pump(lambda: (name, what) in self._heard, timeout, f"{name}: {what}")
        return self._heard[name, what]

    def close(self) -> None:
        """End the processes, however they are."""
        for child in self.children.values():
            child.close()

    # -- What came of it -------------------------------------------------

    def result(self) -> Result:
        """Return all figures, and what is wrong."""
        figures = {
            "settings": dataclasses.asdict(self.settings),
            "warm_up": self.settings.warm_up,
            "judges_memory": self.settings.judges_memory,
            "interrupted": self.interrupted,
            "opening": self.opening,
            "peak": self.peak,
            "pairs": self.book.pairs,
            "plans": dict(self.book.plans),
            "totals": dict(self.book.totals),
            "counts": {kind: self.book.counts[kind] for kind in _KINDS},
            "findings": self.book.findings,
            "broadcasts": self.stats.get("server", {}).get("broadcasts", 0),
            "promised": self.stats.get("server", {}).get("promised", 0),
            "opened": self.stats.get("server", {}).get("opened", 0),
            "samples": {name: child.samples for name, child in self.children.items()},
            "looks": self.looks,
            "done": self.done,
            "problems": self.problems,
        }
        latency = Histogram(self.stats.get("clients", {}).get("latency", ()))
        figures["latency"] = {"p50": latency.quantile(0.5), "p99": latency.quantile(0.99)}
        return Result(figures, problems_of(figures))


_KINDS = ("lost", "duplicated", "reordered", "corrupt", "untold", "ended")


def soak(settings: Settings, say: Callable[[str], None]) -> Result:
    """Do a run; a KeyboardInterrupt ends it in order, a second one at once."""
    with _certificates(settings) as ready:
        run = Run(ready, say)
        try:
            try:
                run.start()
                run.soak()
            except KeyboardInterrupt:
                run.interrupted = True
                say("interrupted")
            run.finish()
        except Failure as exc:
            run.problems.append(str(exc))
        finally:
            run.close()
        return run.result()


@contextlib.contextmanager
def _certificates(settings: Settings) -> Iterator[Settings]:
    """Have a directory with the server's certificate and who has signed it."""
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(Path(scratch, "authority.pem")))
        certificate = authority.issue_cert(*PLAIN, *TLS)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(Path(scratch, "server.pem")))
        yield dataclasses.replace(settings, scratch=scratch)
