"""Two connections do anything in any order, and bytes take their time.

See `pair` for what must hold.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from syncws.config import Compression
from syncws.errors import Close
from syncws.protocol.deflate import DeflateParams
from syncws.protocol.events import BINARY, PING, PONG, TEXT
from tests.scripted import WAYS

from .end import LIMIT, End, Options
from .pair import Pair
from .profiles import COUNTS, profile

NUMBER = st.integers(0, 1)
SIZES = st.sampled_from([0, 1, 10, 125, 126, 1000, 3000, LIMIT - 20, LIMIT, LIMIT + 40])
CODES = st.sampled_from([1000, 1001, 1011, 3000, 4999])
STREAMS = st.sampled_from([frozenset(), frozenset({TEXT}), frozenset({TEXT, BINARY})])


class Recorded(logging.Handler):
    """What the engine complains of: an exception in the I/O thread, say."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Connections(RuleBasedStateMachine):
    """The rules."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: Any = None
        self.log = Recorded()
        logging.getLogger("syncws").addHandler(self.log)

    @initialize(
        way=st.sampled_from(WAYS),
        threshold=st.sampled_from([None, 0, 100]),
        afresh=st.booleans(),
        blocking=st.tuples(st.booleans(), st.booleans()),
        auto_pong=st.tuples(st.booleans(), st.booleans()),
        idle_event=st.tuples(st.booleans(), st.booleans()),
        stream=st.tuples(STREAMS, STREAMS),
        idle_timeout=st.sampled_from([None, 15.0]),
        ping_interval=st.sampled_from([None, 20.0]),
    )
    def begin(
        self,
        threshold: int | None,
        afresh: bool,
        blocking: tuple[bool, bool],
        auto_pong: tuple[bool, bool],
        idle_event: tuple[bool, bool],
        **options: Any,
    ) -> None:
        compression = None if threshold is None else Compression(threshold=threshold)
        self.pair = Pair(
            Options(
                compression=compression,
                params=DeflateParams(afresh, not afresh, 12, 9) if compression else None,
                blocking=blocking,
                # Who blocks for messages hears of nothing else.
                auto_pong=(auto_pong[0] or blocking[0], auto_pong[1] or blocking[1]),
                idle_event=(
                    idle_event[0] and not blocking[0],
                    idle_event[1] and not blocking[1],
                ),
                **options,
            )
        )
        COUNTS["connections: examples"] += 1

    def end(self, number: int) -> End:
        COUNTS["connections: steps"] += 1
        end: End = self.pair.ends[number]
        return end

    # -- An end acts -----------------------------------------------------

    def payload(self, end: End, size: int, opcode: int) -> bytes:
        label = end.label()
        filler = "é".encode() if opcode == TEXT else b"\x00\xff"
        return label + filler * ((size - len(label)) // 2)

    @rule(
        number=NUMBER,
        opcode=st.sampled_from([TEXT, BINARY]),
        size=SIZES,
        times=st.sampled_from([1, 1, 3]),
    )
    def send(self, number: int, opcode: int, size: int, times: int) -> None:
        end = self.end(number)
        for _ in range(times):
            end.send(opcode, self.payload(end, size, opcode), True)

    @rule(
        number=NUMBER,
        opcode=st.sampled_from([TEXT, TEXT, BINARY]),
        size=SIZES,
        final=st.booleans(),
    )
    def send_fragment(self, number: int, opcode: int, size: int, final: bool) -> None:
        end = self.end(number)
        end.send(opcode, self.payload(end, size, opcode) if size else b"", final)

    @rule(
        number=NUMBER,
        opcode=st.sampled_from([TEXT, BINARY]),
        between=st.lists(st.sampled_from(["share", "ping", "carry"]), max_size=3),
    )
    def send_in_fragments(self, number: int, opcode: int, between: list[str]) -> None:
        """Send a fragmented message, and other things amid it."""
        end = self.end(number)
        for what in between:
            end.send(opcode, self.payload(end, 100, opcode), False)
            if what == "share":
                end.share(end.label())
            elif what == "ping":
                end.control(PING)
            else:
                self.pair.ways[number].carry(100_000)
        end.send(opcode, self.payload(end, 100, opcode), True)

    @rule(number=NUMBER, opcode=st.sampled_from([TEXT, BINARY]))
    def send_many(self, number: int, opcode: int) -> None:
        end = self.end(number)
        for _ in range(300):
            end.send(opcode, end.label(), True)

    @rule(number=NUMBER)
    def share(self, number: int) -> None:
        end = self.end(number)
        end.share(end.label())

    @rule(number=NUMBER, opcode=st.sampled_from([PING, PONG]))
    def control(self, number: int, opcode: int) -> None:
        self.end(number).control(opcode)

    @rule(number=NUMBER, plan=st.sampled_from(["send", "ping", "close"]))
    def plan(self, number: int, plan: str) -> None:
        """Have the next message's callback do something."""
        self.end(number).plans.append(plan)

    @rule(number=NUMBER)
    def work(self, number: int) -> None:
        self.end(number).work()

    @rule(number=NUMBER)
    def turn(self, number: int) -> None:
        self.end(number).turn()

    # -- What is between them --------------------------------------------

    @rule(
        number=NUMBER,
        size=st.sampled_from([1, 2, 5, 100, 4000, 100_000, 100_000]),
        read=st.booleans(),
    )
    def carry(self, number: int, size: int, read: bool) -> None:
        end = self.end(1 - number)
        self.pair.ways[number].carry(size)
        if read:
            end.turn()

    @rule(number=NUMBER, room=st.sampled_from([0, 1, 100, None]), fill=st.booleans())
    def choke(self, number: int, room: int | None, fill: bool) -> None:
        """The system takes no more than this from an end, which may have a lot to send."""
        end = self.end(number)
        end.transport.room = room
        if fill:
            end.send(BINARY, self.payload(end, LIMIT, BINARY), True)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 11.0, 16.0, 21.0]))
    def advance(self, seconds: float) -> None:
        self.pair.advance(seconds)

    # -- The end ---------------------------------------------------------

    @rule(
        number=NUMBER,
        how=st.sampled_from(["close", "close", "both", "abort", "cut", "spoil"]),
        code=CODES,
        reason=st.sampled_from(["", "bye"]),
        then=st.sampled_from(["nothing", "turn", "arrive"]),
    )
    def finish(self, number: int, how: str, code: int, reason: str, then: str) -> None:
        end = self.end(number)
        if how == "cut":
            self.pair.cut()
        elif how == "spoil":
            self.pair.spoil(number)
        elif how == "abort":
            end.abort()
        else:
            end.close(Close(code, reason))
        if how == "both":
            self.pair.ends[1 - number].close(Close(4000, "at once"))
        if then == "turn":
            end.turn()
        elif then == "arrive":  # before any callback has run
            for _ in range(2):
                end.turn()
                self.pair.ways[number].carry(100_000)
                self.pair.ends[1 - number].turn()

    # -- What must hold --------------------------------------------------

    @precondition(lambda self: self.pair is not None)
    @invariant()
    def all_is_well(self) -> None:
        self.pair.check()
        assert self.log.lines == []

    def teardown(self) -> None:
        logging.getLogger("syncws").removeHandler(self.log)
        if self.pair is None:
            return
        try:
            if sys.exc_info()[0] is None:  # else a step has failed already
                self.rest()
        finally:
            self.pair.free()
        assert self.log.lines == []

    def rest(self) -> None:
        """Let all that goes on come to its end, and close what is open."""
        pair = self.pair
        for end in pair.ends:
            end.plans.clear()
        pair.settle()
        pair.check_settled()
        if pair.ends[0].open:
            number = len(pair.ends[0].promised) % 2
            pair.ends[number].close(Close(1000, "the end"))
            pair.settle()
            pair.check_settled()
            assert pair.ends[1 - number].connection.received == Close(1000, "the end")
        assert all(end.gone for end in pair.ends)
        pair.advance(100.0)
        pair.check_settled()


@pytest.mark.timeout(1800)
def test_two_connections() -> None:
    run_state_machine_as_test(Connections, settings=profile(examples=120, steps=30))
