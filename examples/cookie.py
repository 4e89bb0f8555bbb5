"""Log in over HTTP, and be known on the WebSocket: cookies.

    python examples/cookie.py

It needs Flask and requests. It runs a Flask application and a service on one
port, logs in, connects, and prints what it is told.
"""

import secrets
import sys

import flask
import requests

import syncws

app = flask.Flask(__name__)
listener = syncws.Listener(0, app=app)
names = {}  # of who has logged in, by token


@app.post("/login")
def login():
    if flask.request.form["password"] != "open sesame":
        return "Wrong password.\n", 403
    token = secrets.token_urlsafe()
    names[token] = flask.request.form["name"]
    response = flask.make_response("Welcome.\n")
    response.set_cookie("token", token, httponly=True, samesite="Lax")
    return response


class Greeter(syncws.Service):
    def on_open(self, caller):
        name, visits = caller.attributes["name"], caller.attributes["visits"]
        caller.send_text(f"Hello {name}, this is visit {visits}.")


@listener.upgrade("/greeter", service=Greeter)
def upgrader(http, request):
    name = names.get(request.cookies.get("token"))
    if name is None:
        return http.cancel_upgrade(401, "Log in first.")
    visits = int(request.cookies.get("visits", "0")) + 1
    http.set_cookie("visits", str(visits), path="/greeter")
    caller = http.accept_upgrade()
    caller.attributes.update(name=name, visits=visits)
    return caller


def main():
    sys.stdout.reconfigure(line_buffering=True)
    with listener:
        url = f"ws://localhost:{listener.port}/greeter"
        try:
            syncws.Client(url)
        except syncws.HandshakeRejected as error:
            print(f"without a cookie: {error.status} {error.body.decode().strip()}")

        session = requests.Session()
        form = {"name": "Ada", "password": "open sesame"}
        answer = session.post(f"http://localhost:{listener.port}/login", data=form)
        print(f"logged in: {answer.status_code} {answer.text.strip()}")
        session.close()

        cookies = session.cookies
        for _ in range(2):
            with syncws.Client(url, cookies=cookies) as client:
                print(client.receive(timeout=5))
                cookies = client.cookies  # with what the handshake has set


if __name__ == "__main__":
    main()
