"""What looks on while callbacks run: for traces."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..logs import log_safely

__all__ = ["Observer", "observed"]

_log = logging.getLogger("syncws.engine")


class Observer(Protocol):
    """Looks on while callbacks run; see `Engine.observe`."""

    def callback(self, endpoint: Any, name: str) -> AbstractContextManager[Any]:
        """Return what is entered before a callback and left after it.

        It runs in the worker that the callback runs in, and is given the
        exception that the callback raises, if it does, which it cannot
        suppress. What it raises itself is logged and does no harm.

        Args:
            endpoint: The `Caller` or the `Client`.
            name: The callback, such as "on_text".
        """


def observed(observer: Observer, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call` with an observer around it."""

    def run(endpoint: Any, *args: Any) -> Any:
        try:
            manager = observer.callback(endpoint, name)
            manager.__enter__()
        except Exception as exc:
            _failed(observer, exc)
            return call(endpoint, *args)
        try:
            result = call(endpoint, *args)
        except BaseException as exc:
            _leave(observer, manager, exc)
            raise
        _leave(observer, manager, None)
        return result

    return run


def _leave(
    observer: Observer, manager: AbstractContextManager[Any], error: BaseException | None
) -> None:
    try:
        if error is None:
            manager.__exit__(None, None, None)
        else:
            manager.__exit__(type(error), error, error.__traceback__)
    except Exception as exc:
        if exc is not error:  # generators raise what they were given
            _failed(observer, exc)


def _failed(observer: Observer, error: Exception) -> None:
    log_safely(_log, logging.ERROR, "the observer %r raised", observer, error=error)
