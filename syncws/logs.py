"""Logging from where nothing may raise.

A user's filter or handler runs inside the logging call, and may raise there.
"""

from __future__ import annotations

import logging
import threading

__all__ = ["log_safely"]


def log_safely(
    log: logging.Logger,
    level: int,
    message: str,
    *args: object,
    error: BaseException | None = None,
) -> None:
    """Log, and carry on whatever the handlers do.

    Args:
        log: The logger.
        level: The level.
        message: The text, with its placeholders.
        args: What they stand for.
        error: An exception whose traceback belongs to it.
    """
    try:
        log.log(level, message, *args, exc_info=error)
    except Exception:
        pass
    except BaseException:
        # A Ctrl-C of the user's own thread goes on its way. In ours a handler
        # that would exit ends nothing.
        if threading.current_thread() is threading.main_thread():
            raise
