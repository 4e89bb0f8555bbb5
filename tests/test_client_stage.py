"""Where a client that connects again can go from where it stands."""

from __future__ import annotations

import itertools

import pytest

from syncws.client.stage import MOVES, Stage

# As drawn at the top of the module.
ALLOWED = {
    (Stage.CONNECTED, Stage.WAITING),
    (Stage.CONNECTED, Stage.CLOSED),
    (Stage.WAITING, Stage.DIALING),
    (Stage.WAITING, Stage.CLOSED),
    (Stage.DIALING, Stage.WAITING),
    (Stage.DIALING, Stage.CONNECTED),
    (Stage.DIALING, Stage.CLOSED),
}


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.product(Stage, Stage)), ids=lambda stage: stage.name
)
def test_the_table(before: Stage, after: Stage) -> None:
    assert (after in MOVES[before]) is ((before, after) in ALLOWED)


def test_nothing_comes_behind_the_end() -> None:
    assert MOVES[Stage.CLOSED] == set()
    assert MOVES.keys() == set(Stage)
