"""What a server does that is to be caught: each of the faults that the soak looks for."""

from __future__ import annotations

import itertools
import threading
from typing import Protocol

from .ledger import End, Sink
from .message import Kind
from .settings import SABOTAGE

__all__ = ["saboteur"]

# Of so many messages one goes wrong.
_EVERY = 50


class Send(Protocol):
    """Sends a message of the server's; returns whether it was taken."""

    def __call__(
        self,
        end: End,
        sink: Sink,
        kind: Kind,
        body: str | bytes,
        *,
        stamp: float = 0.0,
        parts: int = 1,
    ) -> bool: ...


def honest(
    end: End, sink: Sink, kind: Kind, body: str | bytes, *, stamp: float = 0.0, parts: int = 1
) -> bool:
    """Send as it should be."""
    return end.send(sink, kind, body, stamp=stamp, parts=parts)


def saboteur(fault: str) -> Send:
    """Return what sends, with that fault in one message of many."""
    if not fault:
        return honest
    if fault not in SABOTAGE:
        raise ValueError(f"{fault!r} is not among {', '.join(SABOTAGE)}")
    counter = itertools.count(1)

    def send(
        end: End, sink: Sink, kind: Kind, body: str | bytes, *, stamp: float = 0.0, parts: int = 1
    ) -> bool:
        if next(counter) % _EVERY:
            return honest(end, sink, kind, body, stamp=stamp, parts=parts)
        message = end.next_message(kind, body, stamp)
        if fault == "drop":
            end.taken(message)
        elif fault == "duplicate":
            end.send_packed(sink, message)
            end.sent -= 1
            end.send_packed(sink, message)
        elif fault == "swap":
            end.sent += 1
            honest(end, sink, kind, body, stamp=stamp)
            end.sent -= 2
            honest(end, sink, kind, body, stamp=stamp)
            end.sent += 1
        elif fault == "corrupt":
            spoilt = message[:-1] + ("!" if isinstance(message, str) else b"!")  # type: ignore[operator]
            end.send_packed(sink, spoilt)
        else:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            honest(end, sink, kind, body, stamp=stamp, parts=parts)
        return True

    return send
