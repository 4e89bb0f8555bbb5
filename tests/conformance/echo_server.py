"""The server under test: it sends back what it receives.

Prints its port once it listens; ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import signal

import syncws

# The suite sends messages of 16 MiB, and messages in some 65,000 fragments; its
# pauses are long, and it takes its time to inflate what it gets.
CONFIG = syncws.ServiceConfig(
    max_message_size=64 * 2**20,
    max_fragments=None,
    compression=syncws.Compression(
        server_max_window_bits=15, client_max_window_bits=15, threshold=0
    ),
    ping_interval=None,
    send_timeout=None,
)


class Echo(syncws.Service):
    """Sends every message back."""

    config = CONFIG

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        """Send a text message back."""
        caller.send_text(text)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        """Send a binary message back."""
        caller.send_binary(data)


def main() -> None:
    """Serve until told to stop."""
    # Blocked before any thread starts, so that none but this one gets them.
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    listener = syncws.Listener(0)
    listener.attach("/", Echo())
    with listener:
        print(listener.port, flush=True)
        signal.sigwait(stop)


if __name__ == "__main__":
    main()
