"""What a client tells of its way back to a connection."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from ..logs import log_safely
from .course import Step

__all__ = ["Attempt", "log_attempt"]

_log = logging.getLogger("syncws.client")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A step on the way back to a connection; what `on_reconnect` gets.

    Attributes:
        number: Which attempt it is since there was a connection, from 1 on.
        url: The address, without user and password.
        state: "waiting": it will be made; "connecting": it is being made;
            "connected": it has succeeded.
        wait: Seconds until it is made, if it is waiting.
        error: If it is waiting, why: the connection was lost, or the attempt
            before has failed.
        unsent: Bytes of frames that a send had taken and that got lost with
            the connection. What the system had taken already may be lost,
            too, which nobody can know.
    """

    number: int
    url: str
    state: Literal["waiting", "connecting", "connected"]
    wait: float = 0.0
    error: BaseException | None = None
    unsent: int = 0

    @classmethod
    def waiting(cls, step: Step, url: str, error: BaseException, unsent: int = 0) -> Attempt:
        """Return what tells of a step that will be taken."""
        return cls(step.number, url, "waiting", step.wait, error, unsent)

    @property
    def seconds(self) -> str:
        """The wait, for people: two digits are enough for what is below a second."""
        return f"{self.wait:.2g}" if self.wait < 1 else f"{round(self.wait, 2):g}"

    def __str__(self) -> str:
        if self.state == "connected":
            return f"connected to {self.url} by attempt {self.number}"
        when = "now" if self.state == "connecting" else f"in {self.seconds} s ({self.error})"
        return f"attempt {self.number} at {self.url} {when}"


def log_attempt(before: str, attempt: Attempt) -> None:
    """Log a step on the way back to a connection; it may run a user's code.

    Args:
        before: The address of the connection or attempt before.
        attempt: The step.
    """
    if attempt.state == "waiting":
        where = "" if attempt.url == before else f" at {attempt.url}"
        log_safely(
            _log,
            logging.WARNING,
            "%s: %s; attempt %d%s in %s s",
            before,
            attempt.error,
            attempt.number,
            where,
            attempt.seconds,
        )
    else:
        log_safely(_log, logging.INFO, "%s", attempt)
