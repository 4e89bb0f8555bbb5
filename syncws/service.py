"""What a user subclasses."""

from __future__ import annotations

from .config import ServiceConfig

__all__ = ["Service"]


class Service:
    """The callbacks of one end of a WebSocket.

    Define those that you need; the others keep their defaults:

    ========================================= ==================================================
    ``on_open(caller)``                       The connection is open; nothing is delivered
                                              before this returns. On the server's side only.
    ``on_text(caller, text)``                 A text message, a str.
    ``on_binary(caller, data)``               A binary message, bytes.
    ``on_ping(caller, data)``                 A ping. Without it the pong goes out by
                                              itself; with it, it is yours.
    ``on_pong(caller, data)``                 A pong that answers a `ping` of yours, or none
                                              at all.
    ``on_idle_timeout(caller)``               Nothing was sent or received for `idle_timeout`.
                                              Without it the connection is closed with 1001.
    ``on_error(caller, error)``               The connection failed; a close frame that says
                                              why has been sent.
    ``on_close(caller, status_code, reason)`` The connection has ended; once, and last. 1006
                                              if the peer sent no close frame.
    ``on_reconnect(client, attempt)``         A step on the way back to a connection that was
                                              lost, an `Attempt`. On a client with `retry` only.
    ========================================= ==================================================

    ``on_text`` and ``on_binary`` may take one more parameter, ``final``: then
    they get the frames of a message as they come, the last with ``True``.

    On a listener the first argument is the `Caller`, on a client the `Client`.
    The callbacks of one connection run in worker threads, one at a time and in
    order of arrival; those of different connections run side by side. They may
    block. One that raises is logged, and its connection is closed with 1011.

    Attach an instance, which all connections share, or the class itself, and
    each connection gets an instance of its own.
    """

    #: The settings of the connections to this service on a listener.
    config: ServiceConfig = ServiceConfig()
