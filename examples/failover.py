"""A client with three backends: when one is lost it goes on to the next.

    python examples/failover.py

It starts three backends as processes of their own, kills one after the other,
and prints what the client sees.
"""

import subprocess
import sys
import threading

import syncws


class Backend(syncws.Service):
    def __init__(self, name):
        self.name = name

    def on_text(self, caller, text):
        caller.send_text(f"{self.name} heard: {text}")


class Printer(syncws.Service):
    """The client's side; it is the same one for all connections of the client."""

    def __init__(self):
        self.answered = threading.Semaphore(0)
        self.connected = threading.Semaphore(0)

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


def serve(name):
    """What a backend's process does."""
    listener = syncws.Listener(0)
    listener.attach("/", Backend(name))
    listener.start()
    print(listener.port, flush=True)
    sys.stdin.read()  # until this program ends


def start_backend(name):
    command = [sys.executable, __file__, name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, f"ws://localhost:{int(process.stdout.readline())}/"


def main():
    sys.stdout.reconfigure(line_buffering=True)
    backends = [start_backend(name) for name in ("one", "two", "three")]
    urls = [url for _, url in backends]
    printer = Printer()
    with syncws.FailoverClient(urls, service=printer, failover_interval=0.2) as client:
        for number, (backend, _) in enumerate(backends, 1):
            client.send_text("hello")
            printer.answered.acquire(timeout=10)
            backend.kill()
            backend.communicate()
            if number < len(backends):
                printer.connected.acquire(timeout=10)
        client.wait_closed(10)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1])
    else:
        main()
