from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncws.groups.resp import OVERSIZE, Replies, ReplyError
from tests.redises.scripted import array, bulk

# What comes, and what that is.
REPLIES: list[tuple[bytes, Any]] = [
    (b":12\r\n", 12),
    (b":-1\r\n", -1),
    (b"+OK\r\n", b"OK"),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (bulk(b""), b""),
    (bulk(b"a\r\nb"), b"a\r\nb"),
    (array(bulk("message"), bulk("room"), bulk(b"\0\xff")), [b"message", b"room", b"\0\xff"]),
    (array(array(b":1\r\n", b"*0\r\n"), bulk(None), b"+x\r\n"), [[1, []], None, b"x"]),
    (bulk(b"x" * 101), OVERSIZE),
    (array(bulk(b"x" * 1000), b":1\r\n"), [OVERSIZE, 1]),
]


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_replies_come_in_pieces_of_any_size(size: int) -> None:
    whole = b"".join(wire for wire, _ in REPLIES)
    replies = Replies(100)
    found = []
    for start in range(0, len(whole), size):
        found += replies.feed(whole[start : start + size])
    assert found == [value for _, value in REPLIES]


def test_errors_are_replies() -> None:
    (error,) = Replies(100).feed(b"-OOM command not allowed\r\n")
    assert isinstance(error, ReplyError)
    assert (error.code, str(error)) == ("OOM", "OOM command not allowed")
    ((one, other),) = Replies(100).feed(array(b"-ERR no\r\n", b":1\r\n"))
    assert (one.code, other) == ("ERR", 1)


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b"$x\r\n", b":\r\n"])
def test_another_protocol_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        Replies(100).feed(data)


@given(st.lists(st.binary(max_size=200), max_size=20), st.data())
def test_any_strings_cut_anywhere(strings: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(bulk, strings))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    replies = Replies(1000)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += replies.feed(whole[start:end])
    assert found == strings


def test_what_is_too_long_is_not_kept() -> None:
    replies = Replies(10)
    assert replies.feed(b"$1000000\r\n") == []
    for _ in range(1000):
        assert replies.feed(bytes(1000)) == []
        assert len(replies._buffer) == 0
    assert replies.feed(b"\r\n:1\r\n") == [OVERSIZE, 1]
