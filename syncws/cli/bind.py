"""Where to listen, as it is said on the command line, and the sockets of it.

Each process has a listening socket of its own for each TCP port, where the
system can share one (SO_REUSEPORT): it spreads clients evenly. All of them are
held here, too, as long as the command runs. So a process that ends loses no
client which waits to be accepted: its successor gets the same socket.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from ..endpoint import Address, address_of
from ..server.acceptor import Sharing, UnixPath, can_share_port, open_sibling
from ..server.activation import systemd_sockets
from ..server.arguments import Binding, check_sockets

__all__ = ["Bind", "Sockets", "parse_bind", "show_address"]

_BACKLOG = 1024


class Bind(NamedTuple):
    """Where to listen: one of these.

    Attributes:
        binding: A TCP or a Unix address.
        fd: A listening descriptor of this process.
        systemd: The name of what systemd has passed on; "" for all of it.
    """

    binding: Binding | None = None
    fd: int | None = None
    systemd: str | None = None


def parse_bind(text: str) -> Bind:
    """Return what a --bind says.

    Raises:
        ValueError: It says nothing.
    """
    scheme, _, rest = text.partition(":")
    if text == "systemd" or (scheme == "systemd" and rest):
        return Bind(systemd=rest)
    if scheme == "unix":
        if not rest:
            raise ValueError("unix: needs a path, as in unix:/run/chat.sock")
        return Bind(Binding("", 0, rest, _BACKLOG))
    if scheme == "fd":
        number = rest.removeprefix("//")
        if not (number.isascii() and number.isdigit()):
            raise ValueError(f"{text!r} has no number of a descriptor, as in fd://3")
        return Bind(fd=int(number))
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"write an IPv6 address in brackets: [{host}]:{port}")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError(f"{text!r} is no HOST:PORT, :PORT, unix:PATH, fd://N or systemd")
    return Bind(Binding(host, int(port), None, _BACKLOG))


class Sockets:
    """The listening sockets of all processes."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._slots: list[list[socket.socket]] = [[] for _ in range(processes)]
        self._shared: list[socket.socket] = []  # by all processes
        self._paths: list[UnixPath] = []

    @property
    def addresses(self) -> list[Address]:
        """Where they listen."""
        return [address_of(sock.getsockname()) for sock in (*self._slots[0], *self._shared)]

    def of(self, slot: int) -> list[socket.socket]:
        """Return those of a process."""
        return [*self._slots[slot], *self._shared]

    def own_of(self, slot: int) -> list[socket.socket]:
        """Return those that no other process has."""
        return self._slots[slot]

    def open(self, binds: Sequence[Bind]) -> None:
        """Open or take what is named there.

        Raises:
            OSError, ValueError: Something cannot be listened on; the text says what.
        """
        for bind in binds:
            if bind.binding is not None:
                self._open(bind.binding)
            elif bind.fd is not None:
                self._take(_from_descriptor(bind.fd))
            else:
                self._take_from_systemd(bind.systemd or None)

    def _open(self, binding: Binding) -> None:
        if binding.unix_path is not None:
            self._shared += binding.open()
            self._paths.append(UnixPath(binding.unix_path))
        elif not can_share_port() or self._processes == 1:
            self._shared += binding.open()
        else:
            first = binding.open(Sharing.FOLLOWERS)
            self._slots[0] += first
            for slot in self._slots[1:]:
                for sock in first:
                    slot.append(open_sibling(sock, binding.backlog))

    def _take_from_systemd(self, name: str | None) -> None:
        found = systemd_sockets(name)
        if not found:
            called = "" if name is None else f" that is named {name!r}"
            raise OSError(f"systemd has passed no socket{called} to this process")
        self._take(found)

    def _take(self, sockets: list[socket.socket]) -> None:
        self._shared += sockets
        check_sockets(sockets)

    def close(self) -> None:
        """Close this process's copies. Harmless twice."""
        for sock in (*self._shared, *(each for slot in self._slots for each in slot)):
            sock.close()

    def remove_paths(self) -> None:
        """Remove Unix-domain sockets that were made here."""
        for path in self._paths:
            path.remove()
        self._paths = []


def _from_descriptor(fd: int) -> list[socket.socket]:
    try:
        os.set_inheritable(fd, False)
        return [socket.socket(fileno=fd)]
    except OSError as exc:
        raise OSError(exc.errno, f"cannot listen on descriptor {fd}: {exc.strerror}") from exc


def show_address(address: Address) -> str:
    """Return an address as people write it."""
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
