"""A client with three backends: when one is lost it goes on to the next.

    python examples/failover.py

It starts three backends, stops one after the other, and prints what the client
sees.
"""

import logging
import sys
import threading

import syncws


class Backend(syncws.Service):
    def __init__(self, name):
        self.name = name

    def on_text(self, caller, text):
        caller.send_text(f"{self.name} heard: {text}")


class Printer(syncws.Service):
    """The client's side: one object for all of the client's connections."""

    def __init__(self):
        self.connected = threading.Semaphore(1)  # 1: the constructor connects
        self.answered = threading.Semaphore(0)

    def on_text(self, client, text):
        print(f"text: {text}")
        self.answered.release()

    def on_reconnect(self, client, attempt):
        print(f"failover: {attempt}")
        if attempt.state == "connected":
            self.connected.release()

    def on_error(self, client, error):
        print(f"given up: {error}")

    def on_close(self, client, status_code, reason):
        print(f"closed: {status_code} {reason}".rstrip())


def start_backend(name):
    listener = syncws.Listener(0)  # port 0: the system picks one
    listener.attach("/", Backend(name))
    listener.start()
    return listener


def main():
    sys.stdout.reconfigure(line_buffering=True)
    # The log has each step and the end as well; here the callbacks print them.
    logging.getLogger("syncws.client").setLevel(logging.CRITICAL)
    backends = [start_backend(name) for name in ("one", "two", "three")]
    urls = [f"ws://localhost:{backend.port}/" for backend in backends]
    printer = Printer()
    with syncws.FailoverClient(urls, service=printer, failover_interval=0.2) as client:
        for backend in backends:
            printer.connected.acquire(timeout=10)
            client.send_text("hello")
            printer.answered.acquire(timeout=10)
            backend.stop()
        client.wait_closed(10)


if __name__ == "__main__":
    main()
