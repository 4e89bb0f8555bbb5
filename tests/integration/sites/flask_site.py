"""A Flask application with WebSockets of every kind."""

from __future__ import annotations

import os
from typing import Any

import flask

import syncws
from syncws.integrations.flask import WebSocket, WebSockets

app = flask.Flask(__name__)
app.secret_key = "not this one"
sockets = WebSockets(app, max_threads=20)
chat = flask.Blueprint("chat", __name__, url_prefix="/chat")


@app.before_request
def load() -> Any:
    """Know who it is, and keep strangers out of one place."""
    flask.g.user = flask.session.get("user")
    if flask.request.path.startswith("/members") and flask.g.user is None:
        return "Log in first", 401
    return None


@app.after_request
def mark(response: flask.Response) -> flask.Response:
    response.headers["X-After"] = "1"
    return response


@app.get("/login/<name>")
def login(name: str) -> str:
    flask.session["user"] = name
    return "welcome"


@app.get("/echo")
def page() -> str:
    return "a page"


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@sockets.route("/echo")
def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


@sockets.route("/members/<int:room>")
def members(ws: WebSocket, room: int) -> None:
    while True:
        text = ws.receive_text()
        ws.send(f"{flask.g.user} {flask.session['user']} {room + 1} {flask.request.args} {text}")


@sockets.route("/say/<name>")
class Say(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        with sockets.context(caller):
            caller.send_text(f"{caller.request.path_params['name']} {flask.g.user} {text}")


@app.route("/count", websocket=True)
def count() -> flask.Response:
    flask.session["visits"] = flask.session.get("visits", 0) + 1
    return sockets.accept(Say, params={"name": str(flask.session["visits"])})


@sockets.upgrade("/ask", service=Say)
def ask(http: syncws.Upgrade, request: syncws.Request) -> Any:
    if "user" not in flask.session:
        return http.cancel_upgrade(403, "Not you")
    caller = http.accept_upgrade(headers={"X-Asked": "1"})
    caller.send_text(f"hello {flask.session['user']}")
    return caller


@sockets.route("/broken", blueprint=chat)
def broken(ws: WebSocket) -> None:
    raise ZeroDivisionError


@sockets.route("/room", blueprint=chat)
def room(ws: WebSocket) -> None:
    ws.send(flask.url_for("chat.room"))


app.register_blueprint(chat)
