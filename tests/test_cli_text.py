"""What a peer sends, made fit for a terminal."""

from __future__ import annotations

import json

import pytest

from syncws.cli.text import cut, escape, indent_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ä and 日本", "plain, ä and 日本"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\x9bb\x7f", "a\\x9bb\\x7f"),
        ("\u202eexe.txt", "\\u202eexe.txt"),
        ("\u2028", "\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("a\tb", "a\tb"),
        ("a\nb\r", "a\\nb\\r"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_what_is_kept_can_be_said() -> None:
    assert escape("a\tb\n", keep="") == "a\\tb\\n"
    assert escape("a\nb", keep="\n") == "a\nb"


def test_every_control_character_is_escaped() -> None:
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        assert chr(code) not in escape(chr(code), keep="")


def test_a_long_text_is_cut_with_a_mark() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdef", 4) == "abc…"


def test_json_is_indented() -> None:
    assert indent_json('{"a":[1,{"b":[]}],"c":{}}') == (
        '{\n  "a": [\n    1,\n    {\n      "b": []\n    }\n  ],\n  "c": {}\n}'
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1.10, "a": 1e400, "b": 12345678901234567890123}',
        r'["\u001b[2J", "a \"quoted\" {brace}", "\\"]',
        "[true, false, null, -0.0, [[[]]], {}]",
        " [ ] ",
    ],
)
def test_nothing_but_white_space_changes(text: str) -> None:
    shown = indent_json(text)
    assert shown is not None
    assert json.loads(shown, object_pairs_hook=list) == json.loads(text, object_pairs_hook=list)
    for number in ("1.10", "1e400", "12345678901234567890123", "-0.0"):
        assert (number in shown) == (number in text)


@pytest.mark.parametrize("text", ["", "12", '"a"', "{a: 1}", "[1,]", "[" * 100_000, "hello [1]"])
def test_what_is_no_object_and_no_array_is_none(text: str) -> None:
    assert indent_json(text) is None
