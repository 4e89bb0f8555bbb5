"""The client under test: it sends back what it receives, in each of the suite's cases.

python -m tests.conformance.echo_client URL AGENT
"""

from __future__ import annotations

import sys
from urllib.parse import quote

import syncws


def connect(url: str) -> syncws.Client:
    """Open a connection that is up to what the suite sends.

    It sends messages of 16 MiB, and messages in some 65,000 fragments. It may
    be busy for long before it answers: writing its report, or compressing.
    """
    return syncws.Client(
        url,
        max_message_size=64 * 2**20,
        max_fragments=None,
        compression=syncws.Compression(
            server_max_window_bits=15, client_max_window_bits=15, threshold=0
        ),
        ping_interval=None,
        send_timeout=None,
        handshake_timeout=120.0,
    )


def count_cases(url: str) -> int:
    """Ask the suite how many cases there are."""
    with connect(f"{url}/getCaseCount") as client:
        return int(client.receive_text(timeout=120.0))


def echo(url: str) -> None:
    """Send every message back until the connection ends."""
    with connect(url) as client:
        for message in client:
            if isinstance(message, str):
                client.send_text(message)
            else:
                client.send_binary(message)


def main(url: str, agent: str) -> None:
    """Run every case, then have the report written."""
    agent = quote(agent)
    for case in range(1, count_cases(url) + 1):
        try:
            echo(f"{url}/runCase?case={case}&agent={agent}")
        except syncws.WebSocketError as error:
            # Half of the cases are there to provoke this; the suite judges it.
            print(f"case {case}: {type(error).__name__}: {error}", flush=True)
    echo(f"{url}/updateReports?agent={agent}")


if __name__ == "__main__":
    main(*sys.argv[1:])
