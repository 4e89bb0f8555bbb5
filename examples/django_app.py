"""A chat in a Django project of one file, for those who have logged in.

    python examples/django_app.py runserver

Then open http://127.0.0.1:8000/ in two tabs. It runs the same under gunicorn
(gunicorn --chdir examples django_app:application) and uWSGI; with several
workers each has a room of its own.
"""

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import path

import syncws
from syncws.integrations.django import upgrade, websocket

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["localhost", "127.0.0.1"],
        DEBUG="runserver" in sys.argv,
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
        ],
        ROOT_URLCONF="django_app",
        SECRET_KEY=os.environ.get("SECRET_KEY", "only for trying it out, and long enough"),
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        WSGI_APPLICATION="django_app.application",
    )

room = syncws.Group()

LOGIN = """<!doctype html><title>Chat</title>
<form method="post" action="/login"><input type="hidden" name="csrfmiddlewaretoken" value="%s">
Your name: <input name="name" autofocus required></form>
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


def index(request):
    return HttpResponse(CHAT if "name" in request.session else LOGIN % get_token(request))


def login(request):
    request.session["name"] = request.POST["name"]
    return redirect("/")


def talk(ws):
    name = ws.attributes["django"].session["name"]
    room.add(ws)  # it leaves by itself when its connection ends
    room.send_text(f"{name} has come.")
    for text in ws:
        room.send_text(f"{name}: {text}")
    room.send_text(f"{name} has left.")


def chat(request):
    if "name" not in request.session:
        return HttpResponse("Log in first.", status=401)
    return upgrade(request, talk)


def echo(ws, name):
    for message in ws:
        ws.send(f"{name}: {message}")


urlpatterns = [
    path("", index),
    path("login", login),
    path("chat", chat),
    path("echo/<str:name>", websocket(echo)),
]

application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
