"""A Django project in one file, with WebSockets of every kind."""

from __future__ import annotations

import os
import sys
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

import syncws
from syncws.integrations.django import WebSocket, database, upgrade, websocket

NAME = "tests.integration.sites.django_site"

if not settings.configured:  # manage.py has this module twice
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": os.environ.get("SITE_DATABASE", ":memory:"),
            }
        },
        DEBUG=False,
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
        ],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF=NAME,
        SECRET_KEY="not this one",
        WSGI_APPLICATION=f"{NAME}.application",
    )
    django.setup()

from django.contrib import auth  # noqa: E402 - when it is set up


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a page")


def log_in(request: HttpRequest, name: str) -> HttpResponse:
    user = auth.authenticate(request, username=name, password="secret")
    if user is None:
        return HttpResponse("wrong", status=403)
    auth.login(request, user)
    return HttpResponse("welcome")


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def who(ws: WebSocket, name: str) -> None:
    request = ws.attributes["django"]
    ws.send(f"{name} {request.user.get_username()} {request.GET.get('q')} {request.path}")
    echo(ws)


class Say(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        with database():
            users = auth.get_user_model().objects.count()
        caller.send_text(f"{caller.request.path_params['name']} {users} {text}")


def count(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    name = str(request.session["visits"])
    response = upgrade(request, Say, params={"name": name}, headers={"X-Given": "1"})
    response["X-Set"] = "2"
    response.set_cookie("extra", "3")
    return response


def members(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return HttpResponse("Log in first", status=401)
    return upgrade(request, who, params={"name": "member"})


def broken(ws: WebSocket) -> None:
    raise ZeroDivisionError


urlpatterns: list[Any] = [
    path("", home),
    path("login/<name>", log_in),
    path("echo", websocket(echo), name="echo"),
    path("who/<str:name>", websocket(who)),
    path("say/<str:name>", websocket(Say)),
    path("count", count),
    path("members", members),
    path("broken", websocket(broken)),
]

application = get_wsgi_application()


def main() -> None:
    """Be a manage.py."""
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


def set_up() -> None:
    """Make the database, with one user."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    auth.get_user_model().objects.create_user("ann", password="secret")


if __name__ == "__main__":
    set_up() if sys.argv[1:] == ["setup"] else main()
