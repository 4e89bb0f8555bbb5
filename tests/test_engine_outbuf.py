from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from syncws.engine.outbuf import OutBuffer


class ScriptedTransport:
    """Takes as many bytes at a time as the script says; then all there is."""

    def __init__(self, *script: int | OSError) -> None:
        self.script = deque(script)
        self.taken = b""
        self.calls: list[str] = []

    def send(self, data: bytes | memoryview) -> int:
        self.calls.append("send")
        assert len(data)
        return self._take(bytes(data))

    def send_many(self, chunks: list[bytes | memoryview]) -> int:
        self.calls.append("send_many")
        assert len(chunks) > 1
        assert all(len(chunk) for chunk in chunks)
        return self._take(b"".join(chunks))

    def _take(self, whole: bytes) -> int:
        step = self.script.popleft() if self.script else len(whole)
        if isinstance(step, OSError):
            raise step
        self.taken += whole[:step]
        return len(whole[:step])


def write(out: OutBuffer, transport: Any) -> bool:
    return out.write_to(transport)


def filled(*chunks: bytes) -> OutBuffer:
    out = OutBuffer()
    for chunk in chunks:
        out.append(chunk)
    assert out.size == sum(map(len, chunks))
    return out


def test_nothing_to_write() -> None:
    transport = ScriptedTransport()
    out = OutBuffer()
    assert out.size == 0
    assert write(out, transport) is True
    assert transport.calls == []


def test_everything_goes_in_one_call() -> None:
    transport = ScriptedTransport()
    out = filled(b"one", b"two", b"three")
    assert write(out, transport) is True
    assert transport.calls == ["send_many"]
    assert transport.taken == b"onetwothree"
    assert out.size == 0
    assert out.chunks == []
    assert write(out, transport) is True
    assert transport.calls == ["send_many"]


def test_one_chunk_goes_without_a_list() -> None:
    transport = ScriptedTransport(2)
    out = filled(b"three")
    assert write(out, transport) is True
    assert transport.calls == ["send", "send"]
    assert transport.taken == b"three"


@pytest.mark.parametrize("sent", range(11))
def test_what_was_sent_is_dropped(sent: int) -> None:
    out = filled(b"one", b"two", b"three")
    out.drop(sent)
    assert b"".join(out.chunks) == b"onetwothree"[sent:]
    assert out.size == 11 - sent
    assert len(out.chunks) == (3 if sent < 3 else 2 if sent < 6 else 1)


# Short writes that end before, at and behind the borders of chunks.
@pytest.mark.parametrize("first", range(1, 12))
def test_a_short_write_leaves_the_rest_in_order(first: int) -> None:
    transport = ScriptedTransport(first, 0)
    out = filled(b"one", b"two", b"three")
    assert write(out, transport) is (first == 11)
    assert transport.taken == b"onetwothree"[:first]
    assert out.size == 11 - first
    out.append(b"!")
    assert write(out, transport) is (first < 11)
    if first == 11:
        assert write(out, transport) is True
    assert transport.taken == b"onetwothree!"
    assert out.size == 0


def test_a_transport_that_takes_byte_by_byte() -> None:
    transport = ScriptedTransport(*[1] * 11)
    out = filled(b"one", b"two", b"three")
    assert write(out, transport) is True
    assert transport.taken == b"onetwothree"


def test_a_transport_that_takes_nothing() -> None:
    transport = ScriptedTransport(0)
    out = filled(b"one")
    assert write(out, transport) is False
    assert out.size == 3
    assert write(out, transport) is True
    assert transport.taken == b"one"


def test_an_error_is_raised() -> None:
    transport = ScriptedTransport(2, BrokenPipeError())
    out = filled(b"one", b"two")
    with pytest.raises(BrokenPipeError):
        write(out, transport)
    out.clear()
    assert out.size == 0
    assert write(out, transport) is True
    assert transport.taken == b"on"


def test_views_are_taken_as_well() -> None:
    transport = ScriptedTransport(2)
    out = OutBuffer()
    out.append(memoryview(b"xoney")[1:4])
    out.append(b"two")
    assert out.size == 6
    assert write(out, transport) is True
    assert transport.taken == b"onetwo"


def test_many_chunks() -> None:
    transport = ScriptedTransport(*[7] * 100)
    chunks = [bytes([n]) * (n % 5 + 1) for n in range(200)]
    out = filled(*chunks)
    assert write(out, transport) is True
    assert transport.taken == b"".join(chunks)
