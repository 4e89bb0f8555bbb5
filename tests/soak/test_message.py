"""A message of the soak tells of every change."""

from __future__ import annotations

import pytest

from .message import Corrupt, Kind, Message, Stock, pack, unpack

BODIES = ("", "naïve 🦊", b"", b"\x00\xff" * 1000)


@pytest.mark.parametrize("body", BODIES)
def test_a_message_comes_back(body: str | bytes) -> None:
    packed = pack(Kind.ECHO, 7, 3, 1.5, body)
    assert type(packed) is type(body)
    assert unpack(packed) == Message(Kind.ECHO, 7, 3, 1.5, body)


@pytest.mark.parametrize("index", [0, 1, 8, 20, 24, 28, 30, -1])
def test_a_changed_byte_is_noticed(index: int) -> None:
    packed = bytearray(pack(Kind.ECHO, 7, 3, 1.5, b"a body"))  # type: ignore[arg-type]
    packed[index] ^= 1
    with pytest.raises(Corrupt):
        unpack(bytes(packed))


@pytest.mark.parametrize("index", [0, 10, 38, 40, -1])
def test_a_changed_character_is_noticed(index: int) -> None:
    packed = list(pack(Kind.ECHO, 7, 3, 1.5, "a body"))
    packed[index] = "!"
    with pytest.raises(Corrupt):
        unpack("".join(packed))  # type: ignore[arg-type]


@pytest.mark.parametrize("body", BODIES[1::2])
@pytest.mark.parametrize("size", [1, 20, -1])
def test_a_cut_message_is_noticed(body: str | bytes, size: int) -> None:
    with pytest.raises(Corrupt):
        unpack(pack(Kind.ECHO, 7, 3, 1.5, body)[:size])


def test_what_is_too_much_is_noticed() -> None:
    with pytest.raises(Corrupt):
        unpack(pack(Kind.ECHO, 7, 3, 1.5, b"a body") + b"!")  # type: ignore[operator]


def test_bodies_are_small_and_large_text_and_binary() -> None:
    stock = Stock(1)
    bodies = [stock.body() for _ in range(3000)]
    assert {type(body) for body in bodies} == {str, bytes}
    sizes = [len(body.encode()) if isinstance(body, str) else len(body) for body in bodies]
    assert min(sizes) < 10
    assert 49_152 < max(sizes) <= 262_144


def test_the_same_seed_gives_the_same_bodies() -> None:
    one, other = Stock(5), Stock(5)
    assert [one.body(50) for _ in range(20)] == [other.body(50) for _ in range(20)]
