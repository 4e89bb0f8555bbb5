from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncws.groups.envelope import LONGEST_NAME, OVERHEAD, Counters, Envelope, Log, MalformedError

TEXT, BINARY = 1, 2
GOOD = Envelope(b"sender 8", 7, 3, "room", TEXT, "déjà".encode())


@given(
    st.binary(min_size=8, max_size=8),
    st.integers(1, 2**64 - 1),
    st.integers(1, 2**64 - 1),
    st.text(min_size=1, max_size=100),
    st.sampled_from([TEXT, BINARY]),
    st.text(max_size=100),
)
def test_there_and_back(
    sender: bytes, sequence: int, number: int, room: str, opcode: int, text: str
) -> None:
    envelope = Envelope(sender, sequence, number, room, opcode, text.encode())
    assert Envelope.unpack(envelope.pack()) == envelope


def test_overhead_is_the_most_there_is() -> None:
    longest = GOOD._replace(room="x" * LONGEST_NAME, payload=b"")
    assert len(longest.pack()) == OVERHEAD


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b'{"type": "message"}' * 5,
        GOOD.pack()[:29],
        b"sx" + GOOD.pack()[2:],
        b"sw\x02" + GOOD.pack()[3:],
        GOOD._replace(opcode=8).pack(),
        GOOD._replace(opcode=0).pack(),
        GOOD._replace(sequence=0).pack(),
        GOOD._replace(number=0).pack(),
        GOOD._replace(payload=b"\xff").pack(),
        GOOD.pack().replace(b"room", b"ro\xffm"),
        GOOD.pack().replace(b"\x00\x04room", b"\x40\x04room"),
    ],
)
def test_what_is_none_of_ours(data: bytes) -> None:
    with pytest.raises(MalformedError):
        Envelope.unpack(data)


@given(st.binary(max_size=100))
def test_anything_is_an_envelope_or_malformed(data: bytes) -> None:
    for candidate in (data, b"sw\x01\x01" + data, b"sw\x01\x02" + data):
        try:
            envelope = Envelope.unpack(candidate)
        except MalformedError:
            continue
        assert envelope.pack() == candidate


def test_counters() -> None:
    counters = Counters()
    assert [counters.next(channel) for channel in "abaab"] == [
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 3),
        (5, 2),
    ]


def test_counters_forget_the_channel_that_is_silent_longest() -> None:
    counters = Counters(channels=2)
    for channel in "abac":
        counters.next(channel)
    assert counters.next("a") == (5, 3)
    assert counters.next("b") == (6, 1)


def admit(log: Log, sequence: int, number: int, channel: str = "c", sender: bytes = b"1") -> int:
    return log.admit(channel, Envelope(sender, sequence, number, "r", BINARY, b""))


def test_gaps_are_counted() -> None:
    log = Log()
    assert admit(log, 10, 5) == 0  # the first
    assert admit(log, 11, 6) == 0
    assert admit(log, 20, 9) == 2
    assert admit(log, 21, 10) == 0


def test_what_has_come_already() -> None:
    log = Log()
    for sequence in (1, 2, 3):
        assert admit(log, sequence, sequence) == 0
    for sequence in (1, 2, 3):
        assert admit(log, sequence, sequence) == -1
    assert admit(log, 4, 4) == 0


def test_a_number_that_began_again_is_no_gap() -> None:
    log = Log()
    assert admit(log, 10, 5) == 0
    assert admit(log, 50, 1) == 0
    assert admit(log, 51, 2) == 0
    assert admit(log, 53, 4) == 1


def test_channels_and_senders_are_apart() -> None:
    log = Log()
    assert admit(log, 5, 5) == 0
    assert admit(log, 1, 1, channel="d") == 0
    assert admit(log, 1, 1, sender=b"2") == 0
    assert admit(log, 1, 1) == -1


def test_a_log_forgets() -> None:
    log = Log(senders=2)
    for channel in "ab":
        assert admit(log, 1, 1, channel) == 0
    log.forget("a")
    log.forget("never")
    assert admit(log, 1, 1, "a") == 0
    log.retain({"a"})
    assert admit(log, 1, 1, "a") == -1
    assert admit(log, 1, 1, "b") == 0
    for sender in (b"2", b"3"):
        assert admit(log, 1, 1, "a", sender) == 0
    assert admit(log, 1, 1, "a", b"3") == -1
    assert admit(log, 1, 1, "a") == 0  # the longest silent of three was forgotten
