"""A chat in a Flask application, for those who have logged in.

    flask --app examples/flask_app.py run

Then open http://127.0.0.1:5000/ in two tabs. It runs the same under gunicorn
(gunicorn --chdir examples flask_app:app) and uWSGI; with several workers each
has a room of its own.
"""

import os

from flask import Flask, abort, redirect, request, session

import syncws
from syncws.integrations.flask import WebSockets

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY", "only for trying it out")
sockets = WebSockets(app)
room = syncws.Group()

LOGIN = """<!doctype html><title>Chat</title>
<form method="post" action="/login">Your name: <input name="name" autofocus required></form>
"""

CHAT = """<!doctype html><title>Chat</title>
<form><input id="text" autofocus autocomplete="off"></form><ul id="said"></ul>
<script>
  const ws = new WebSocket(location.href.replace(/^http/, "ws") + "chat");
  const show = (text) => {
    const item = document.createElement("li");
    item.textContent = text;
    document.getElementById("said").prepend(item);
  };
  ws.onmessage = (event) => show(event.data);
  ws.onclose = () => show("The connection has ended.");
  document.forms[0].onsubmit = (event) => {
    event.preventDefault();
    ws.send(document.getElementById("text").value);
    event.target.reset();
  };
</script>
"""


@app.before_request
def check():
    if request.path == "/chat" and "name" not in session:
        abort(401)


@app.get("/")
def index():
    return CHAT if "name" in session else LOGIN


@app.post("/login")
def login():
    session["name"] = request.form["name"]
    return redirect("/")


@sockets.route("/chat")
def chat(ws):
    room.add(ws)  # it leaves by itself when its connection ends
    room.send_text(f"{session['name']} has come.")
    for text in ws:
        room.send_text(f"{session['name']}: {text}")
    room.send_text(f"{session['name']} has left.")
