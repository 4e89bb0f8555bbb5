"""What a peer sends, made fit for a terminal."""

from __future__ import annotations

import json
import re
import unicodedata

__all__ = ["cut", "escape", "indent_json"]

# Characters that a terminal obeys, or that change how others are shown: controls
# (C0, DEL and C1), formats such as those for bidirectional text, separators of
# lines and paragraphs, lone surrogates.
_OBEYED = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))

# But these join letters and emojis, and do no harm.
_JOINERS = "\u200c\u200d"

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def escape(text: str, *, keep: str = "\t") -> str:
    """Return `text` with all that a terminal would obey written as \\x1b, \\u202e or the like.

    Args:
        text: Anybody's text.
        keep: Control characters to leave as they are.
    """
    if text.isprintable():
        return text
    return "".join(char if _is_harmless(char, keep) else _written(char) for char in text)


def _is_harmless(char: str, keep: str) -> bool:
    return char in keep or char in _JOINERS or unicodedata.category(char) not in _OBEYED


def _written(char: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    if short is not None:
        return short
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cut(text: str, width: int) -> str:
    """Return `text`, or as much of it as fits into `width` characters with a mark of that."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def indent_json(text: str) -> str | None:
    """Return a JSON object or array on several lines, or None if `text` is none.

    Its numbers, strings and keys stay as they were written, also keys that
    occur twice.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    tokens = _TOKEN.findall(text)
    lines: list[str] = []
    depth = 0
    for index, token in enumerate(tokens):
        if token in ("{", "["):
            if tokens[index + 1] in ("}", "]"):
                lines.append(token)
                continue
            depth += 1
            lines.append(token + _new_line(depth))
        elif token in ("}", "]"):
            if tokens[index - 1] in ("{", "["):
                lines.append(token)
                continue
            depth -= 1
            lines.append(_new_line(depth) + token)
        elif token == ",":
            lines.append("," + _new_line(depth))
        else:
            lines.append(": " if token == ":" else token)
    return "".join(lines)


def _new_line(depth: int) -> str:
    return "\n" + "  " * depth
