"""A WebSocket service with every callback, to be tried by hand.

    python examples/basic_sample.py [port]

It says what to do next. Ctrl-C ends it.
"""

import contextlib
import shlex
import sys
from pathlib import Path

import syncws


class Basic(syncws.Service):
    """Says back what it is told; "ping" and "closeMe" make it do just that."""

    config = syncws.ServiceConfig(subprotocols=("xml", "json"), idle_timeout=120)

    def on_open(self, caller):
        print(f"{caller.id} connected from {caller.remote_address}")
        print(f"{caller.id} subprotocol: {caller.subprotocol}, over TLS: {caller.is_secure}")

    def on_text(self, caller, text):
        print(f"{caller.id} text: {text}")
        if text == "ping":
            caller.ping(b"Are you there?")
        elif text == "closeMe":
            caller.close(1001, "You told me to close the connection")
        else:
            caller.send_text("You said: " + text)

    def on_binary(self, caller, data):
        print(f"{caller.id} binary, {len(data)} bytes")
        caller.send_binary(data)

    def on_ping(self, caller, data):
        print(f"{caller.id} ping: {data!r}")
        caller.pong(data)  # without an on_ping the pong goes out by itself

    def on_pong(self, caller, data):
        print(f"{caller.id} pong: {data!r}")

    def on_idle_timeout(self, caller):
        print(f"{caller.id} was silent for {self.config.idle_timeout} s")
        caller.close(1001, "Connection timeout")

    def on_close(self, caller, status_code, reason):
        print(f"{caller.id} left: {status_code} {reason}".rstrip())

    def on_error(self, caller, error):
        print(f"{caller.id} failed: {error}")


def main():
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    listener = syncws.Listener(int(sys.argv[1]) if len(sys.argv) > 1 else 9090)
    listener.attach("/basic/ws", Basic())
    with contextlib.suppress(KeyboardInterrupt), listener:
        address = f"localhost:{listener.port}/basic/ws"
        client = shlex.join([sys.executable, str(Path(__file__).with_name("client.py"))])
        print(f"Listening on ws://{address}. Ctrl-C ends it.\n")
        print(f"Run in another terminal:\n\n    {client} ws://{address}\n")
        # Only pages of the listener's own origin may connect, unless the
        # config's allowed_origins names others. Its answers to http:// will do.
        print(f"Or open http://{address} in a browser, and paste into its console:\n")
        print(
            f'    ws = new WebSocket("ws://{address}", "json");'
            " ws.onmessage = e => console.log(e.data);"
            " ws.onclose = e => console.log(e.code, e.reason);"
            ' ws.onopen = () => ws.send("hello");\n'
        )
        print('Then try ws.send("ping") and ws.send("closeMe").\n')
        listener.serve_forever()
    print("Stopped.")


if __name__ == "__main__":
    main()
