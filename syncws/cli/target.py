"""Finds the listener that the command line names."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ..server.listener import Listener

__all__ = ["TargetError", "load"]


class TargetError(Exception):
    """What was named cannot be served; the text says why, and is all that a user needs."""


class _Served(BaseException):
    """Somebody called `serve_forever`; not to be caught by accident."""


def load(module: str, attribute: str) -> Listener:
    """Import a module and return its listener.

    Args:
        module: The module's name, looked for in the working directory first.
        attribute: The name of a listener in it, or of a function that takes
            nothing and returns one; may have dots.

    Raises:
        TargetError: There is no such thing.
    """
    directory = os.getcwd()
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)
    where = f"{module}:{attribute}"
    with _not_serving(where):
        found = _find(_import(module), module, attribute)
        if not isinstance(found, Listener) and callable(found):
            found = _call(found, where)
    if not isinstance(found, Listener):
        raise TargetError(f"{where} is no syncws.Listener, but {found!r:.200}")
    if found.addresses:
        raise TargetError(
            f"{where} is started already: leave that to this command, and have the module "
            "start it under 'if __name__ == \"__main__\":' only"
        )
    return found


@contextmanager
def _not_serving(where: str) -> Iterator[None]:
    """Have `serve_forever` raise: it would not return before the end."""

    def refuse(self: Listener, *args: object, **options: object) -> None:
        raise _Served

    serve_forever = Listener.serve_forever
    setattr(Listener, "serve_forever", refuse)  # noqa: B010
    try:
        yield
    except _Served:
        raise TargetError(
            f"{where}: the module calls serve_forever() while it is imported; "
            "put that under 'if __name__ == \"__main__\":'"
        ) from None
    finally:
        setattr(Listener, "serve_forever", serve_forever)  # noqa: B010


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        # One that this module imports in turn is another matter.
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
            place = f"in {os.getcwd()} or where Python looks otherwise"
            hint = f"; write {name[:-3]} without .py" if name.endswith(".py") else ""
            raise TargetError(f"there is no module {exc.name!r} {place}{hint}") from None
        raise TargetError(f"importing {name} failed:\n{_traceback(exc)}") from None
    except Exception as exc:
        raise TargetError(f"importing {name} failed:\n{_traceback(exc)}") from None


def _find(module: ModuleType, name: str, attribute: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetError(
                f"module {name!r} has no {attribute!r}{_suggest(found, part)}"
            ) from None
    return found


def _suggest(thing: object, name: str) -> str:
    there = getattr(thing, "__dict__", {})  # numbers and the like have none
    listeners = [key for key, value in there.items() if isinstance(value, Listener)]
    near = difflib.get_close_matches(name, [key for key in there if key[:1] != "_"])
    names = list(dict.fromkeys([*near, *listeners]))
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else ""


def _call(function: Any, where: str) -> Any:
    try:
        return function()
    except Exception as exc:
        raise TargetError(f"calling {where}() failed:\n{_traceback(exc)}") from None


def _traceback(error: Exception) -> str:
    """Return a traceback that begins in the user's code."""
    frames = error.__traceback__
    inner = frames
    while inner is not None and _is_ours(inner.tb_frame.f_code.co_filename):
        inner = inner.tb_next
    text = traceback.format_exception(type(error), error, inner)
    return "".join(text).rstrip("\n")


def _is_ours(file: str) -> bool:
    return file == __file__ or file.startswith("<frozen importlib") or file == importlib.__file__
