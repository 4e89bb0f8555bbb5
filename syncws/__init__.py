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

from .client.attempt import Attempt
from .client.client import Client
from .client.failover import FailoverClient
from .config import ClientConfig, Compression, RetryConfig, ServiceConfig, TLSConfig
from .engine.engine import Engine, EngineStats, default_engine
from .engine.observer import Observer
from .engine.stats import ConnectionStats
from .errors import (
    BackplaneError,
    Close,
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    HandshakeError,
    HandshakeRejected,
    InvalidContinuationFrameError,
    InvalidPayloadError,
    KeepaliveTimeout,
    MessageTimeout,
    MessageTypeError,
    OverloadError,
    PayloadTooBigError,
    ProtocolError,
    ProxyAuthenticationError,
    ProxyError,
    ReceiveTimeout,
    Reconnecting,
    RetriesExhausted,
    SendTimeout,
    TLSError,
    WebSocketError,
)
from .groups.backplane import Backplane, MemoryBackplane, Presence
from .groups.group import Group
from .groups.groups import Groups, Room
from .groups.redis import RedisBackplane
from .native import speedups
from .protocol.client_handshake import Response
from .protocol.headers import Headers
from .protocol.http import Query, Request
from .server.activation import systemd_sockets
from .server.basic_auth import BasicAuth
from .server.caller import Caller
from .server.functions import FunctionService, Threads, WebSocket
from .server.listener import Listener
from .server.stats import ConnectionInfo, ListenerStats
from .server.upgrade import Upgrade
from .service import Service

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "Backplane",
    "BackplaneError",
    "BasicAuth",
    "Caller",
    "Client",
    "ClientConfig",
    "Close",
    "Compression",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "ConnectionInfo",
    "ConnectionStats",
    "Engine",
    "EngineStats",
    "FailoverClient",
    "FunctionService",
    "Group",
    "Groups",
    "HandshakeError",
    "HandshakeRejected",
    "Headers",
    "InvalidContinuationFrameError",
    "InvalidPayloadError",
    "KeepaliveTimeout",
    "Listener",
    "ListenerStats",
    "MemoryBackplane",
    "MessageTimeout",
    "MessageTypeError",
    "Observer",
    "OverloadError",
    "PayloadTooBigError",
    "Presence",
    "ProtocolError",
    "ProxyAuthenticationError",
    "ProxyError",
    "Query",
    "ReceiveTimeout",
    "Reconnecting",
    "RedisBackplane",
    "Request",
    "Response",
    "RetriesExhausted",
    "RetryConfig",
    "Room",
    "SendTimeout",
    "Service",
    "ServiceConfig",
    "TLSConfig",
    "TLSError",
    "Threads",
    "Upgrade",
    "WebSocket",
    "WebSocketError",
    "default_engine",
    "speedups",
    "systemd_sockets",
]
