"""How many clients a listener lets in: in all, and from one address.

Threads: everything here runs in the I/O thread.
"""

from __future__ import annotations

import ipaddress
import logging

from ..endpoint import Address
from ..engine.journal import Journal
from ..protocol.server_handshake import Refusal
from ..timing import Clock

__all__ = ["Door"]

# Seconds between warnings that clients are refused. Each one makes a line of
# its own anyway, as information.
_QUIET = 10.0

# Bits of an IPv6 address that one client has: it chooses the others itself.
# RFC 6177.
_PREFIX = 64

_log = logging.getLogger("syncws.server")


class Door:
    """Counts sockets, and says who has to stay outside.

    Args:
        most: Sockets at once, or None.
        most_per_address: Those of one address at once, or None.
        clock: The loop's clock.
        journal: Where warnings go.
    """

    def __init__(
        self, most: int | None, most_per_address: int | None, clock: Clock, journal: Journal
    ) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._clock = clock
        self._journal = journal
        # Whom a socket counts for, and whom it did when it came.
        self._inside: dict[object, str | None] = {}
        self._came_for: dict[object, str | None] = {}
        self._by_address: dict[str, int] = {}
        self._warned_at: float | None = None

    def refusal(self, address: Address) -> Refusal | None:
        """Return why one more socket from there would have to leave, if so."""
        if self._most is not None and len(self._inside) >= self._most:
            return self._refuse("max_connections", self._most, "The server has no room")
        return self._full(self._host(address))

    def _full(self, host: str | None) -> Refusal | None:
        if host is not None and self._most_per_address is not None:
            number = self._by_address.get(host, 0)
            if number >= self._most_per_address:
                return self._refuse(
                    "max_connections_per_address", number, f"Too many connections from {host}"
                )
        return None

    def enter(self, who: object, address: Address) -> None:
        """Count one socket more, by whatever stands for it; it is not refused."""
        self._came_for[who] = self._host(address)
        self._inside[who] = None
        self._count(who, self._came_for[who])

    def move(self, who: object, address: Address) -> Refusal | None:
        """Count a socket for this address from now on, or return why that cannot be.

        Harmless for one that was not let in.
        """
        host = self._host(address)
        if who not in self._inside or self._inside[who] == host:
            return None
        refusal = self._full(host)
        self._count(who, None if refusal else host)
        return refusal

    def rest(self, who: object) -> None:
        """Count a socket as when it came. Harmless for one that was not let in."""
        if who in self._inside:
            self._count(who, self._came_for[who])

    def _count(self, who: object, host: str | None) -> None:
        before = self._inside[who]
        self._inside[who] = host
        if before is not None:
            left = self._by_address[before] - 1
            if left:
                self._by_address[before] = left
            else:
                del self._by_address[before]
        if host is not None:
            self._by_address[host] = self._by_address.get(host, 0) + 1

    def _host(self, address: Address) -> str | None:
        return None if self._most_per_address is None else _host(address)

    def _refuse(self, option: str, number: int, text: str) -> Refusal:
        now = self._clock()
        if self._warned_at is None or now - self._warned_at >= _QUIET:
            self._warned_at = now
            self._journal.write(
                _log, logging.WARNING, "%s, %d, is reached: clients are refused", option, number
            )
        return Refusal(503, f"{text}. Try again later.", (("Retry-After", "5"),))

    def leave(self, who: object) -> None:
        """A socket is gone. Harmless for one that was not let in."""
        if who in self._inside:
            self._count(who, None)
            del self._inside[who], self._came_for[who]


def _host(address: Address) -> str | None:
    """Return whom an address belongs to; None for a Unix-domain socket."""
    if isinstance(address, str):
        return None
    host = address[0]
    if ":" in host:
        ip = ipaddress.IPv6Address(host.partition("%")[0])
        if ip.ipv4_mapped is not None:  # how a socket for both families shows IPv4
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, _PREFIX), strict=False))
    return host
