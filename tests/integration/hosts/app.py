"""The WSGI application of the tests, which every host runs as it is."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import syncws
from syncws.integrations.wsgi import default_adopter, upgrade

__all__ = ["application"]

logging.basicConfig(level=logging.INFO, format="LOG %(levelname)s %(name)s %(message)s")


class Echo(syncws.Service):
    config = syncws.ServiceConfig(
        ping_interval=None, subprotocols=("chat",), max_message_size=8_388_608
    )

    def on_open(self, caller: syncws.Caller) -> None:
        if "greeting" in caller.attributes:
            caller.send_text(caller.attributes["greeting"])

    def on_text(self, caller: syncws.Caller, text: str) -> None:
        if text == "close":
            caller.close(4000, "as you wish", timeout=0)
        elif text == "who":
            request = caller.request
            caller.send_json(
                {
                    "method": request.method,
                    "target": request.target,
                    "path": request.path,
                    "query": dict(request.query),
                    "params": request.path_params,
                    "cookies": request.cookies,
                    "remote": caller.remote_address,
                    "local": caller.local_address,
                    "secure": [caller.is_secure, request.is_secure],
                    "host": request.headers.get("Host"),
                    "pid": os.getpid(),
                }
            )
        else:
            caller.send_text(text)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        caller.send_binary(data)


ECHO = Echo()


def decide(http: Any, request: syncws.Request, room: str) -> None:
    """The resource of /ask."""
    if "age" not in request.query:
        http.cancel_upgrade(409, "Age is required", headers={"X-Why": "age"})
        return
    http.set_cookie("seen", "1")
    caller = http.accept_upgrade(headers={"X-Room": room})
    caller.attributes["greeting"] = f"hello {request.query['age']} in {room}"


def state() -> str:
    """How many descriptors, threads and WebSockets this process has."""
    names = sorted(thread.name for thread in threading.enumerate())
    return (
        f"{os.getpid()} {len(os.listdir('/proc/self/fd'))} {len(names)} "
        f"{len(default_adopter())} {','.join(names)}"
    )


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/ws":
        response = upgrade(environ, ECHO, headers={"X-Served": "here"}, attributes={"seen": True})
        response.headers += [("Set-Cookie", "session=abc"), ("Content-Type", "text/html")]
        return response(environ, start_response)
    if path == "/greeted":
        return upgrade(environ, ECHO, attributes={"greeting": "welcome"})(environ, start_response)
    if path == "/ask":
        return upgrade(environ, ECHO, resource=decide, params={"room": "blue"})(
            environ, start_response
        )
    if path == "/clock":
        body = str(time.monotonic()).encode()
    else:
        body = (state() if path == "/state" else f"hello {path}").encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
