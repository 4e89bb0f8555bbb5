"""What tests of WebSocket code need: services and clients in memory, a clock, scripted peers.

Nothing here needs pytest; its fixtures are those of the plugin, which pytest
finds by itself: `ws_listener`, `ws_client`, `ws_engine`, `ws_clock` and
`ws_errors`.
"""

from __future__ import annotations

from .clock import ManualClock
from .memory import MemoryEngine
from .script import (
    Step,
    accept,
    close,
    drop,
    expect,
    expect_close,
    expect_ping,
    expect_pong,
    hang,
    ignore,
    ping,
    pong,
    raw,
    refuse,
    send,
    silence,
)
from .scripted import ScriptedServer, play
from .site import Site, serving

__all__ = [
    "ManualClock",
    "MemoryEngine",
    "ScriptedServer",
    "Site",
    "Step",
    "accept",
    "close",
    "drop",
    "expect",
    "expect_close",
    "expect_ping",
    "expect_pong",
    "hang",
    "ignore",
    "ping",
    "play",
    "pong",
    "raw",
    "refuse",
    "send",
    "serving",
    "silence",
]
