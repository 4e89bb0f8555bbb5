"""A client that comes back when its server does.

    python examples/retry.py

It starts a server as a process of its own, kills it, starts it again, and
prints what the client sees meanwhile.
"""

import subprocess
import sys
import threading

import syncws


class Echo(syncws.Service):
    def on_text(self, caller, text):
        caller.send_text("You said: " + text)


class Printer(syncws.Service):
    """The client's side; it is the same one for all connections of the client."""

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


def serve(port):
    """What the server's process does."""
    listener = syncws.Listener(port)
    listener.attach("/", Echo())
    listener.start()
    print(listener.port, flush=True)
    sys.stdin.read()  # until this program ends


def start_server(port):
    command = [sys.executable, __file__, str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def main():
    sys.stdout.reconfigure(line_buffering=True)
    retry = syncws.RetryConfig(max_count=20, interval=0.1, backoff_factor=2.0, max_interval=1.0)
    printer = Printer()
    server, port = start_server(0)
    with syncws.Client(f"ws://localhost:{port}/", service=printer, retry=retry) as client:
        client.send_text("hello")
        printer.answered.acquire(timeout=10)
        server.kill()
        server.communicate()
        printer.failed.wait(10)
        try:
            client.send_text("is anybody there?")
        except syncws.Reconnecting as error:
            print(f"not sent: {error}")
        server, _ = start_server(port)
        printer.back.wait(10)
        client.send_text("hello again")
        printer.answered.acquire(timeout=10)
    server.communicate()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(int(sys.argv[1]))
    else:
        main()
