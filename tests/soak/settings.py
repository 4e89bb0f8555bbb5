"""How big a run is, and what follows from that."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

__all__ = ["SABOTAGE", "Settings"]

#: What the server can be told to do wrong, to see that it is noticed.
SABOTAGE = ("drop", "duplicate", "swap", "corrupt", "leak")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A run's measures.

    Attributes:
        connections: How many are open at a time.
        seconds: For how long after they have been opened.
        rate: Messages a second, both directions and broadcasts together.
        churn: Connections a second that end and are followed by new ones.
        sabotage: What the server does wrong; "" for nothing.
        seed: Of everything random.
        scratch: A directory for certificates.
        patience: Seconds that an answer, or an end, may take.
    """

    connections: int
    seconds: float
    rate: float
    churn: float
    sabotage: str = ""
    seed: int = 1
    scratch: str = ""
    patience: float = 60.0

    @classmethod
    def of(
        cls,
        connections: int,
        seconds: float,
        *,
        rate: float | None = None,
        churn: float | None = None,
        sabotage: str = "",
        seed: int = 1,
        patience: float = 60.0,
    ) -> Settings:
        """Fill in what is not given from the number of connections."""
        return cls(
            connections=connections,
            seconds=seconds,
            rate=min(12_000.0, 12.0 * connections) if rate is None else rate,
            churn=min(250.0, max(5.0, 0.1 * connections)) if churn is None else churn,
            sabotage=sabotage,
            seed=seed,
            patience=patience,
        )

    # -- Who there is ----------------------------------------------------

    @property
    def rough(self) -> int:
        """Raw sockets that misbehave, each with a thread of its own."""
        return max(2, min(48, self.connections // 20))

    @property
    def blocking_threads(self) -> int:
        """Threads with blocking clients."""
        return max(1, min(6, self.connections // 50))

    @property
    def blocking_each(self) -> int:
        """Blocking clients that a thread has."""
        return max(1, min(16, self.connections // 100))

    @property
    def callback_clients(self) -> int:
        """Clients with a service: all the others."""
        return max(1, self.connections - self.rough - self.blocking_threads * self.blocking_each)

    @property
    def group_share(self) -> float:
        """The part of the callback clients that is in the group."""
        return max(0.05, min(0.5, 4 / self.callback_clients))

    # -- What they do ----------------------------------------------------

    @property
    def broadcasts(self) -> float:
        """Broadcasts a second: a fifth of all messages, as far as sensible."""
        members = self.group_share * self.callback_clients
        return max(2.0, min(20.0, 0.2 * self.rate / members))

    @property
    def acts(self) -> float:
        """What the callback clients send a second; most of it is answered."""
        return 0.36 * self.rate

    @property
    def warm_up(self) -> float:
        """Seconds after which memory must be flat, if the run is long enough to tell."""
        return min(60.0, self.seconds / 3)

    @property
    def judges_memory(self) -> bool:
        """Whether it is."""
        return self.seconds >= 180

    @property
    def report_interval(self) -> float:
        """Seconds between the reports of the processes."""
        return max(0.1, min(1.0, self.seconds / 20))

    @property
    def descriptors(self) -> int:
        """Open files that one process may need."""
        return self.connections + self.connections // 10 + 256

    # -- For the other processes -----------------------------------------

    def dump(self) -> str:
        """Return it as an argument of a command."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Settings:
        """Read what `dump` wrote."""
        return cls(**json.loads(text))
