"""The certificate of a listener, which can be renewed while it listens."""

from __future__ import annotations

import ssl
import threading

from ..config import TLSConfig
from .arguments import server_context

__all__ = ["Certificates"]


class Certificates:
    """What a listener shows to clients, if it speaks TLS. Any thread.

    Args:
        given: What it was given as `ssl`.

    Attributes:
        context: For connections that are still to come; None without TLS.

    Raises:
        TypeError, ValueError: It is nothing that a listener can use.
        OSError: A file of it cannot be read.
    """

    def __init__(self, given: TLSConfig | ssl.SSLContext | None) -> None:
        self._given = given
        self.context = server_context(given)
        # Held while they are read anew, so that the newest ones win; a signal
        # handler may do so while its own thread does. Guards _given.
        self._lock = threading.RLock()
        self._reloads = 0

    def reload(self, config: TLSConfig | ssl.SSLContext | None) -> None:
        """Read them anew, or take others. See `Listener.reload_tls`."""
        if self.context is None:
            raise RuntimeError("the listener has no TLS: give ssl to Listener() first")
        with self._lock:
            done = False
            while not done:
                self._reloads += 1
                number = self._reloads
                self._reload(config)
                # A signal handler may have come between with what is newer.
                done = number == self._reloads

    def replace(self, config: TLSConfig) -> None:
        """Show this one from now on, also if there was no TLS. Before the listener is started."""
        with self._lock:
            self._reload(config)

    def _reload(self, config: TLSConfig | ssl.SSLContext | None) -> None:
        given = self._given if config is None else config
        if config is None and not isinstance(given, TLSConfig):
            raise TypeError(
                "the listener was given an ssl.SSLContext, which cannot be read anew: "
                "give reload_tls() a new one, or a syncws.TLSConfig"
            )
        context = server_context(given)
        self._given = given
        self.context = context

    def renew(self) -> None:
        """In a forked child: who held the lock is not here."""
        self._lock = threading.RLock()
