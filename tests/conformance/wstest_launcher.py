"""Run wstest with manners. For Python 2.7, inside the suite's environment.

    python wstest_launcher.py CASE_TIMEOUT WSTEST ARGUMENTS...

What it changes:

* The fuzzing server listens on the loopback interface only, on a port that
  the system picks and that is printed as ``LISTENING port``.
* A connection that is still open after CASE_TIMEOUT seconds is aborted and
  printed as ``ABORTED case``; wstest by itself would wait for ever.
* SIGTERM does not lose what has been recorded: a report of it is written.
"""

from __future__ import print_function

import sys

# Picks Twisted's reactor; has to come before Twisted itself.
from autobahntestsuite import choosereactor  # noqa: F401  isort: skip
from autobahntestsuite import fuzzing, wstest
from twisted.internet import reactor

CASE_TIMEOUT = float(sys.argv.pop(1))


def wrap(owner, name):
    """Replace `owner.name` by the decorated function, which gets the original first."""

    def decorate(replacement):
        # From a class a plain function, which getattr of Python 2 does not give.
        original = vars(owner).get(name) or getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: replacement(original, *args, **kwargs))

    return decorate


@wrap(reactor, "listenTCP")
def listen_on_loopback(original, _port, factory, *_args, **_kwargs):
    """Listen on the loopback interface, and tell where."""
    listening = original(0, factory, interface="127.0.0.1")
    # The factory compares the Host header of each handshake with its own port.
    factory.port = factory.externalPort = listening.getHost().port
    print("LISTENING", factory.port)
    return listening


@wrap(fuzzing.FuzzingProtocol, "connectionMade")
def start_watchdog(original, self):
    """Give the connection its deadline."""
    original(self)
    self.watchdog = reactor.callLater(CASE_TIMEOUT, abort, self)


def abort(protocol):
    """End a connection that does not end by itself."""
    case = getattr(protocol, "Case", None)
    name = protocol.factory.CaseSet.caseClasstoId(case) if case else getattr(protocol, "path", "?")
    print("ABORTED", name)
    protocol.transport.abortConnection()


@wrap(fuzzing.FuzzingProtocol, "connectionLost")
def stop_watchdog(original, self, reason):
    """Take the deadline back."""
    if self.watchdog.active():
        self.watchdog.cancel()
    original(self, reason)


# For each factory, the number of results in the last report written.
reported = {}


def count(factory):
    """Return how many results a factory has."""
    return sum(len(cases) for cases in factory.agents.values())


@wrap(fuzzing.FuzzingFactory, "__init__")
def remember_factory(original, self, outdir):
    """Keep track of the factory."""
    original(self, outdir)
    reported[self] = 0


@wrap(fuzzing.FuzzingFactory, "createReports")
def remember_report(original, self, *args, **kwargs):
    """Keep track of how complete the report is."""
    original(self, *args, **kwargs)
    reported[self] = count(self)


def write_rest():
    """Report what was recorded since the last report."""
    for factory, number in list(reported.items()):
        if count(factory) > number:
            print("INTERRUPTED after", count(factory))
            factory.createReports()


reactor.addSystemEventTrigger("before", "shutdown", write_rest)
wstest.run()
