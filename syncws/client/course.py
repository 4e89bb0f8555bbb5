"""Which address a client tries next, and when: retry and failover, without sockets or clocks."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..config import RetryConfig
from ..errors import (
    ConnectError,
    HandshakeRejected,
    ProxyAuthenticationError,
    ProxyError,
    RetriesExhausted,
)
from ..timing import Backoff

__all__ = ["Course", "Step"]

# Whoever may not come in is not let in for asking again.
_FINAL_STATUSES = frozenset((401, 403))

# The same of proxies; 2 is how SOCKS 5 says that it is not allowed. RFC 1928 section 6.
_FINAL_OF_PROXIES = frozenset((2, 401, 403))


class Step(NamedTuple):
    """The next attempt.

    Attributes:
        target: The number of the address.
        wait: Seconds until then.
        number: Which attempt it is since there was a connection, from 1 on.
    """

    target: int
    wait: float
    number: int


class Course:
    """The way from one attempt to the next.

    Args:
        targets: How many addresses there are.
        retry: How each is tried again; None: not at all.
        failover_interval: Seconds before another address is tried; None: there
            is no other.
        rand: Random numbers from 0 to 1, for jitter.

    Attributes:
        target: The number of the address that is tried, or connected to.
        attempts: How many attempts there were since there was a connection.
        reasons: By address, what the last attempt at it failed with since then.
    """

    def __init__(
        self,
        targets: int,
        retry: RetryConfig | None,
        failover_interval: float | None,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._targets = targets
        self._most = None if retry is None else retry.max_count or float("inf")
        self._backoff = None
        if retry is not None:
            self._backoff = Backoff(
                retry.interval, retry.backoff_factor, retry.max_interval, retry.jitter, rand
            )
        self._failover_interval = failover_interval
        self._retries = 0  # in a row, of the address at hand
        self._given_up: set[int] = set()  # addresses, since there was a connection
        self.target = 0
        self.attempts = 0
        self.reasons: dict[int, BaseException] = {}

    def connected(self) -> None:
        """The attempt has succeeded: all counts begin afresh."""
        self.attempts = 0
        self.reasons.clear()
        self._given_up.clear()
        self._begin_retries()

    def lost(self) -> Step | None:
        """An open connection was lost; return what to try, or None."""
        return self._again() or self._onward()

    def failed(self, error: BaseException) -> Step | None:
        """The attempt has failed; return what to try, or None to give up."""
        self.attempts += 1
        self.reasons[self.target] = error
        step = self._again() if _may_pass(error) else None
        if step is None:
            self._given_up.add(self.target)
            step = self._onward()
        return step

    def verdict(self, urls: Sequence[str]) -> BaseException:
        """Return why nothing is tried any more: what the only address says, or all of them."""
        if len(urls) == 1 and not _may_pass(self.reasons[0]):
            return self.reasons[0]
        reasons = [(urls[target], error) for target, error in self.reasons.items()]
        verdict = RetriesExhausted(reasons, self.attempts)
        verdict.__cause__ = self.reasons[self.target]
        return verdict

    def _begin_retries(self) -> None:
        self._retries = 0
        if self._backoff is not None:
            self._backoff.reset()

    def _again(self) -> Step | None:
        """The same address, if it may be retried."""
        if self._backoff is None or self._most is None or self._retries >= self._most:
            return None
        self._retries += 1
        return Step(self.target, self._backoff.next(), self.attempts + 1)

    def _onward(self) -> Step | None:
        """The next address in turn, if there is one that was not given up."""
        if self._failover_interval is None:
            return None
        for offset in range(1, self._targets + 1):
            target = (self.target + offset) % self._targets
            if target not in self._given_up:
                self.target = target
                self._begin_retries()
                return Step(target, self._failover_interval, self.attempts + 1)
        return None


def _may_pass(error: BaseException) -> bool:
    """Whether another attempt at the same address may succeed."""
    if isinstance(error, HandshakeRejected):
        return error.status not in _FINAL_STATUSES
    if isinstance(error, ProxyAuthenticationError):
        return False
    if isinstance(error, ProxyError):
        return error.status not in _FINAL_OF_PROXIES
    return isinstance(error, ConnectError) and not _is_about_certificates(error.__cause__)


def _is_about_certificates(error: BaseException | None) -> bool:
    """Whether a certificate was refused: the server's here, or ours there."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    if not isinstance(error, ssl.SSLError):
        return False
    # The alerts of RFC 8446 section 6.2, as OpenSSL calls them.
    reason = getattr(error, "reason", None) or ""
    return "CERTIFICATE" in reason or "UNKNOWN_CA" in reason
