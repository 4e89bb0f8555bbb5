"""A proxy: each caller gets a client of its own to a backend.

    python examples/proxy_server.py

It starts a backend and the proxy, talks to the one through the other, prints
what passes, and ends.
"""

import sys

import syncws


class Backend(syncws.Service):
    def on_text(self, caller, text):
        if text == "bye":
            caller.close(4001, "the backend says bye")
        else:
            caller.send_text("the backend heard: " + text)


class Proxy(syncws.Service):
    """Hands on what callers send; a client with callbacks brings the answers whenever they come."""

    def __init__(self, url):
        self.url = url

    def on_open(self, caller):
        # Nothing may come from the backend before the two know each other.
        backend = syncws.Client(self.url, service=Answers(), ready_on_connect=False)
        backend.attributes["caller"] = caller
        caller.attributes["backend"] = backend
        backend.ready()

    def on_text(self, caller, text):
        print(f"proxy -> {text}")
        caller.attributes["backend"].send_text(text)

    def on_close(self, caller, status_code, reason):
        print(f"proxy: the caller left: {status_code} {reason}".rstrip())
        close(caller.attributes.get("backend"), status_code, reason)


class Answers(syncws.Service):
    def on_text(self, client, text):
        print(f"proxy <- {text}")
        client.attributes["caller"].send_text(text)

    def on_close(self, client, status_code, reason):
        print(f"proxy: the backend left: {status_code} {reason}")
        close(client.attributes.get("caller"), status_code, reason)


class BlockingProxy(Proxy):
    """The same where each text has one answer: it is waited for."""

    def on_open(self, caller):
        caller.attributes["backend"] = syncws.Client(self.url)

    def on_text(self, caller, text):
        backend = caller.attributes["backend"]
        try:
            backend.send_text(text)
            caller.send_text(backend.receive_text(timeout=5))
        except syncws.ConnectionClosed as error:
            close(caller, *(error.received or (1006, "")))


def close(end, status_code, reason):
    """Close the other side alike; 1005 and 1006 stand for a code that did not come."""
    if end is not None:
        end.close({1005: 1000, 1006: 1014}.get(status_code, status_code), reason, timeout=0)


def main():
    sys.stdout.reconfigure(line_buffering=True)
    with syncws.Listener(0) as listener:
        url = f"ws://localhost:{listener.port}"
        listener.attach("/backend", Backend())
        listener.attach("/proxy", Proxy(url + "/backend"))
        listener.attach("/blocking", BlockingProxy(url + "/backend"))
        for path in ("/proxy", "/blocking"):
            with syncws.Client(url + path) as client:
                client.send_text("hello")
                print(f"{path}: {client.receive(timeout=5)}")
                client.send_text("bye")
                try:
                    client.receive(timeout=5)
                except syncws.ConnectionClosed as error:
                    print(f"{path} closed: {error.received}")


if __name__ == "__main__":
    main()
