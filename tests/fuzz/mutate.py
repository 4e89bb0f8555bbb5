"""The driver for Pythons without atheris: changes inputs by chance.

It sees no coverage. What it keeps instead are inputs with an outcome that no
other has had.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence

from .findings import Findings
from .targets import MAX_SIZE, Target

__all__ = ["Mutator", "fuzz"]

_BYTES = (0x00, 0x01, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0xFE, 0xFF, 0x0A, 0x0D, 0x20)
_MOST_KEPT = 2000


class Mutator:
    """Makes inputs of inputs.

    Args:
        rng: Decides.
        tokens: Words to put in.
    """

    def __init__(self, rng: random.Random, tokens: Sequence[bytes]) -> None:
        self._rng = rng
        self._tokens = tokens
        self._ways: list[Callable[[bytearray, bytes], None]] = [
            self._flip,
            self._set,
            self._put_token,
            self._cut_out,
            self._repeat,
            self._splice,
            self._move,
        ]

    def mutate(self, data: bytes, other: bytes) -> bytes:
        """Return `data`, changed once or several times, maybe by what `other` has."""
        changed = bytearray(data)
        for _ in range(1 << self._rng.randrange(4)):
            self._rng.choice(self._ways)(changed, other)
        return bytes(changed[:MAX_SIZE])

    def _place(self, data: bytearray) -> int:
        return self._rng.randrange(len(data) + 1)

    def _part(self, data: bytes | bytearray, most: int) -> slice:
        start = self._rng.randrange(len(data) + 1)
        return slice(start, start + 1 + self._rng.randrange(most))

    def _flip(self, data: bytearray, other: bytes) -> None:
        if data:
            data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)

    def _set(self, data: bytearray, other: bytes) -> None:
        if data:
            values = _BYTES if self._rng.randrange(2) else range(256)
            data[self._rng.randrange(len(data))] = self._rng.choice(values)

    def _put_token(self, data: bytearray, other: bytes) -> None:
        place = self._place(data)
        token = self._rng.choice(self._tokens)
        data[place : place + self._rng.choice((0, 0, len(token)))] = token

    def _cut_out(self, data: bytearray, other: bytes) -> None:
        del data[self._part(data, 16)]

    def _repeat(self, data: bytearray, other: bytes) -> None:
        part = data[self._part(data, 32)]
        place = self._place(data)
        data[place:place] = part * (1 + self._rng.randrange(4))

    def _splice(self, data: bytearray, other: bytes) -> None:
        place = self._place(data)
        data[place : place + self._rng.choice((0, 8, len(data)))] = other[self._part(other, 256)]

    def _move(self, data: bytearray, other: bytes) -> None:
        part = self._part(data, 64)
        piece = data[part]
        del data[part]
        place = self._place(data)
        data[place:place] = piece


def fuzz(
    target: Target,
    corpus: Iterable[bytes],
    tokens: Sequence[bytes],
    findings: Findings,
    *,
    seconds: float,
    seed: int,
    most: int | None = None,
) -> tuple[int, list[bytes]]:
    """Give a target mutations until the time is over.

    Args:
        target: The target.
        corpus: What to begin with.
        tokens: Words that the mutations use.
        findings: Notes what goes wrong.
        seconds: How long.
        seed: Makes the same inputs as before.
        most: Executions, if they are to end before the time.

    Returns:
        The executions, and all inputs that were worth keeping.
    """
    rng = random.Random(seed)
    mutator = Mutator(rng, tokens)
    kept = sorted(corpus) or [b""]
    outcomes = {findings.attempt(target, data) for data in kept}
    executions = len(kept)
    end = time.monotonic() + seconds
    while time.monotonic() < end and (most is None or executions < most):
        data = mutator.mutate(rng.choice(kept), rng.choice(kept))
        outcome = findings.attempt(target, data)
        executions += 1
        if outcome not in outcomes and len(kept) < _MOST_KEPT:
            outcomes.add(outcome)
            kept.append(data)
    return executions, kept
