"""A client that comes back when its server does.

    python examples/retry.py

It starts a server, stops it, starts another one on the same port, and prints
what the client sees meanwhile.
"""

import logging
import sys
import threading

import syncws


class Echo(syncws.Service):
    def on_text(self, caller, text):
        caller.send_text("You said: " + text)


class Printer(syncws.Service):
    """The client's side: one object for all of the client's connections."""

    def __init__(self):
        self.answered = threading.Semaphore(0)
        self.failed = threading.Event()
        self.back = threading.Event()

    def on_text(self, client, text):
        print(f"text: {text}")
        self.answered.release()

    def on_reconnect(self, client, attempt):
        print(f"reconnect: {attempt}")
        if attempt.number == 2:
            self.failed.set()
        if attempt.state == "connected":
            self.back.set()

    def on_error(self, client, error):
        print(f"given up: {error}")

    def on_close(self, client, status_code, reason):
        print(f"closed: {status_code} {reason}".rstrip())


def start_server(port):
    listener = syncws.Listener(port)
    listener.attach("/", Echo())
    listener.start()
    return listener


def main():
    sys.stdout.reconfigure(line_buffering=True)
    # The log has each step as well; here on_reconnect prints it.
    logging.getLogger("syncws.client").setLevel(logging.ERROR)
    retry = syncws.RetryConfig(max_count=20, interval=0.1, backoff_factor=2, max_interval=1)
    printer = Printer()
    server = start_server(0)  # port 0: the system picks one
    port = server.port
    with syncws.Client(f"ws://localhost:{port}/", service=printer, retry=retry) as client:
        client.send_text("hello")
        printer.answered.acquire(timeout=10)
        server.stop()
        printer.failed.wait(10)
        try:
            client.send_text("is anybody there?")
        except syncws.Reconnecting as error:
            print(f"not sent: {error}")
        server = start_server(port)
        printer.back.wait(10)
        client.send_text("hello again")
        printer.answered.acquire(timeout=10)
    server.stop()


if __name__ == "__main__":
    main()
