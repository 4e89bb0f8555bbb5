"""Autobahn's WebSocket testsuite against both ends of syncws.

    python -m tests.conformance --preset quick

The suite is a program for Python 2.7. Its environment is made on first use,
with pinned packages, below ``.conformance/``; reports go there too.

    presets.py          which cases
    environment.py      the suite's Python 2.7 environment
    wstest_launcher.py  what runs in it
    runner.py           the suite and its peer as processes, for one role
    report.py           what the suite recorded, and whether it will do
    echo_server.py      the peers under test
    echo_client.py
"""
