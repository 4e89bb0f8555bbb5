"""A client with callbacks that tries what basic_sample.py can do.

    python examples/client.py [url]

Without the url of that one it runs its service by itself, whose lines begin
with the connection's id.
"""

import sys
import threading

from basic_sample import Basic

import syncws


class Printer(syncws.Service):
    """Prints what happens, and says when the last answer has come."""

    def __init__(self):
        self.answered = threading.Event()

    def on_text(self, client, text):
        print(f"text: {text}")

    def on_binary(self, client, data):
        print(f"binary: {data!r}")

    def on_ping(self, client, data):
        print(f"ping: {data!r}")
        client.pong(data)

    def on_pong(self, client, data):
        print(f"pong: {data!r}")
        self.answered.set()

    def on_error(self, client, error):
        print(f"failed: {error}")

    def on_close(self, client, status_code, reason):
        print(f"closed: {status_code} {reason}".rstrip())


def talk(url):
    """Return what went wrong, if something did."""
    printer = Printer()
    try:
        client = syncws.Client(url, service=printer, subprotocols=["json"])
    except syncws.ConnectError as error:
        return f"No connection to {url}: {error}\nIs examples/basic_sample.py running?"
    with client:
        print(f"Connected to {url}, subprotocol: {client.subprotocol}")
        client.send_text("hello")
        client.send_binary(b"\x00\x01\x02\x03")
        client.send_text("ping")
        client.ping(b"And you?")
        # Answers come in order: after this pong all the others are here.
        if not printer.answered.wait(10):
            return "The server did not answer."
        client.send_text("closeMe")
        if not client.wait_closed(10):
            return "The server did not close the connection."
    return None


def main():
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    if len(sys.argv) > 1:
        return talk(sys.argv[1])
    listener = syncws.Listener(0)
    listener.attach("/basic/ws", Basic())
    with listener:
        return talk(f"ws://localhost:{listener.port}/basic/ws")


if __name__ == "__main__":
    sys.exit(main())
