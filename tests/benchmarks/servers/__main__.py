"""The command `python -m tests.benchmarks.servers PEER WORKLOAD`; prints its port."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from ..process import die_with_parent, raise_file_limit
from ..workloads import WORKLOADS, Workload

# The functions that serve, by peer; their modules import what they measure.
_SERVE = {
    "syncws": "syncws_peer:serve",
    "syncws-pure": "syncws_peer:serve",
    "websockets-sync": "websockets_peer:serve_sync",
    "websockets-asyncio": "websockets_peer:serve_asyncio",
    "simple-websocket": "simple_websocket_peer:serve",
    "aiohttp": "aiohttp_peer:serve",
    "gevent-websocket": "gevent_peer:serve",
    "picows": "picows_peer:serve",
    "socketify": "socketify_peer:serve",
    "floor": "floor_peer:serve",
}


def main() -> None:
    """Serve until killed; if that does not work, print why instead of the port."""
    peer, workload = sys.argv[1:]
    die_with_parent()
    raise_file_limit()
    module, _, function = _SERVE[peer].partition(":")
    try:
        serve: Callable[[Workload], None]
        serve = getattr(importlib.import_module(f"{__package__}.{module}"), function)
        serve(WORKLOADS[workload])
    except Exception as exc:
        print(f"{type(exc).__name__}: {exc}", flush=True)
        raise


if __name__ == "__main__":
    main()
