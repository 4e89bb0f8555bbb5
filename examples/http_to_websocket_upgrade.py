"""A resource that decides who may upgrade from HTTP to a WebSocket.

    python examples/http_to_websocket_upgrade.py

It listens, connects to itself, once well and twice badly, and ends.
"""

import sys

import syncws

listener = syncws.Listener(0)  # port 0: the system picks one


class Chat(syncws.Service):
    """Greets by the name that the resource has found in the path."""

    def on_text(self, caller, text):
        caller.send_text(f"{caller.attributes['name']} said: {text}")


@listener.upgrade("/chat/{name}", service=Chat)
def upgrader(http, request, name):
    """Runs in a worker, so it may block: ask a database, say."""
    if "age" not in request.query:
        return http.cancel_upgrade(400, "Age is required")
    if name == "nobody":
        return http.cancel_upgrade(401, headers={"WWW-Authenticate": "Basic"})
    caller = http.accept_upgrade(headers={"X-Room": name})
    caller.attributes["name"] = name
    caller.send_text(f"Welcome, {name}, {request.query['age']}")  # the first message
    return caller  # or nothing


def main():
    sys.stdout.reconfigure(line_buffering=True)
    with listener:
        url = f"ws://localhost:{listener.port}/chat"
        with syncws.Client(f"{url}/anna?age=30") as client:
            print("accepted, X-Room:", client.response.headers["X-Room"])
            print(client.receive(timeout=10))
            client.send_text("hello")
            print(client.receive(timeout=10))
        for path in ("anna", "nobody?age=30"):
            try:
                syncws.Client(f"{url}/{path}")
            except syncws.HandshakeRejected as error:
                reason = error.body.decode() or error.headers["WWW-Authenticate"]
                print(f"refused, {error.status}: {reason}")


if __name__ == "__main__":
    main()
