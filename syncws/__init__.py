"""WebSockets for threads: a listener that calls services, and a blocking client.

The way in and the way out of a message:

    socket -> IOLoop -> Connection.on_ready -> Decoder -> Dispatcher
           -> WorkerPool -> Service.on_text(caller, text)

    Caller.send_text -> Connection.send -> [lock: Encoder -> socket, or
           OutBuffer -> IOLoop -> socket]

One I/O thread owns the sockets, a few workers run the callbacks, and
everything that you call blocks like any other Python function.
"""

from __future__ import annotations

from .client.client import Client
from .config import ClientConfig, Compression, ServiceConfig
from .engine.engine import Engine, default_engine
from .errors import (
    Close,
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    HandshakeError,
    HandshakeRejected,
    InvalidContinuationFrameError,
    InvalidPayloadError,
    KeepaliveTimeout,
    MessageTypeError,
    PayloadTooBigError,
    ProtocolError,
    ReceiveTimeout,
    SendTimeout,
    WebSocketError,
)
from .groups.group import Group
from .native import speedups
from .protocol.headers import Headers
from .protocol.http import Query, Request
from .server.caller import Caller
from .server.listener import Listener
from .server.upgrade import Upgrade
from .service import Service

__version__ = "0.1.0"

__all__ = [
    "Caller",
    "Client",
    "ClientConfig",
    "Close",
    "Compression",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "Engine",
    "Group",
    "HandshakeError",
    "HandshakeRejected",
    "Headers",
    "InvalidContinuationFrameError",
    "InvalidPayloadError",
    "KeepaliveTimeout",
    "Listener",
    "MessageTypeError",
    "PayloadTooBigError",
    "ProtocolError",
    "Query",
    "ReceiveTimeout",
    "Request",
    "SendTimeout",
    "Service",
    "ServiceConfig",
    "Upgrade",
    "WebSocketError",
    "default_engine",
    "speedups",
]
