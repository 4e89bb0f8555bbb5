from __future__ import annotations

import itertools

import pytest

from syncws.config import ConnectionConfig
from syncws.engine.connection import Connection
from syncws.engine.dispatch import Mailbox
from syncws.engine.loop import IOLoop
from syncws.engine.state import MOVES, State
from syncws.protocol.decoder import Decoder
from syncws.protocol.encoder import Encoder

# RFC 6455 section 7, as drawn at the top of the module.
ALLOWED = {
    (State.OPEN, State.CLOSING),
    (State.OPEN, State.ANSWERING),
    (State.OPEN, State.ENDING),
    (State.OPEN, State.CLOSED),
    (State.CLOSING, State.ENDING),
    (State.CLOSING, State.CLOSED),
    (State.ANSWERING, State.ENDING),
    (State.ANSWERING, State.CLOSED),
    (State.ENDING, State.CLOSED),
}
PAIRS = list(itertools.product(State, State))


class NoTransport:
    def frame_receiver(self, frames: object) -> None:
        pass

    def abandon(self) -> None:
        pass


def name(state: State) -> str:
    return state.name


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=name)
def test_the_table(before: State, after: State) -> None:
    assert (after in MOVES[before]) is ((before, after) in ALLOWED)


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=name)
def test_a_connection_makes_the_moves_of_the_table_only(before: State, after: State) -> None:
    loop = IOLoop("states")
    connection = Connection(
        loop,
        NoTransport(),  # type: ignore[arg-type]
        client=True,
        decoder=Decoder(client=True),
        encoder=Encoder(client=True),
        config=ConnectionConfig(),
        inbox=Mailbox(max_count=1, max_size=1),
    )
    connection._state = before
    if (before, after) in ALLOWED:
        connection._move(after)
        assert connection.state is after
    else:
        with pytest.raises(AssertionError, match=f"{before} to {after}"):
            connection._move(after)
        assert connection.state is before
    loop.abandon()


def test_there_is_no_way_back() -> None:
    ranks = [State.OPEN, State.CLOSING, State.ANSWERING, State.ENDING, State.CLOSED]
    for before, moves in MOVES.items():
        assert all(ranks.index(after) > ranks.index(before) for after in moves)
    assert set(MOVES) == set(State)


def test_every_state_can_be_cut_short() -> None:
    for state in State:
        if state is not State.CLOSED:
            assert State.CLOSED in MOVES[state]
