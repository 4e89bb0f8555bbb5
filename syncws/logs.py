"""Logging from where nothing may raise.

A user's filter or handler runs inside the logging call, and may raise there.
"""

from __future__ import annotations

import contextlib
import logging

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
    with contextlib.suppress(Exception):
        log.log(level, message, *args, exc_info=error)
