"""A chat room, and the web page to use it with, on one port.

    python examples/chat/chat.py [port]

Open the address that it prints in two browser tabs. Ctrl-C ends it.
"""

import contextlib
import json
import sys
import threading
from pathlib import Path

import syncws

PAGE = Path(__file__).with_name("chat.html")


class Chat(syncws.Service):
    """Tells everyone who comes, what is said, and who leaves."""

    config = syncws.ServiceConfig(max_message_size=4096)

    def __init__(self):
        self.connections = {}  # callers by their id
        self.room = syncws.Group()
        # Callbacks of different callers run side by side. With this everyone
        # is told of them in one order, and of their own coming first.
        self.lock = threading.Lock()

    def on_open(self, caller):
        with self.lock:
            self.connections[caller.id] = caller
            self.room.add(caller)
            self.tell(caller, "joined", people=self.people())

    def on_text(self, caller, text):
        with self.lock:
            self.tell(caller, "said", text=text)

    def on_close(self, caller, status_code, reason):
        with self.lock:
            del self.connections[caller.id]
            self.tell(caller, "left", people=self.people())

    def people(self):
        return [{"id": one.id, **one.attributes} for one in self.connections.values()]

    def tell(self, caller, event, **more):
        print(f"{caller.attributes['name']!r} {event}")
        message = {"event": event, "id": caller.id, **caller.attributes, **more}
        self.room.send_text(json.dumps(message))


def page(environ, start_response):
    """What the listener answers to requests that are no WebSocket's: a WSGI application."""
    if environ["PATH_INFO"] != "/":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"There is only the page at /\n"]
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [PAGE.read_bytes()]


def upgrader(http, request, name):
    """Let in who says how old they are."""
    age = request.query.get("age")
    if not age:
        return http.cancel_upgrade(400, "Age is required")
    caller = http.accept_upgrade()
    caller.attributes.update(name=name[:30], age=age[:3])  # and no essays
    return caller


def main():
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    listener = syncws.Listener(int(sys.argv[1]) if len(sys.argv) > 1 else 9090, app=page)
    listener.upgrade("/chat/{name}", service=Chat())(upgrader)
    with contextlib.suppress(KeyboardInterrupt), listener:
        print(f"Open http://localhost:{listener.port}/ in two tabs. Ctrl-C ends this.")
        listener.serve_forever()


if __name__ == "__main__":
    main()
