"""Listening sockets that systemd has opened and passed on: socket activation.

The protocol is that of sd_listen_fds(3): descriptors from 3 on, counted in
LISTEN_FDS, for the process that LISTEN_PID names.
"""

from __future__ import annotations

import os
import socket
import threading

__all__ = ["systemd_sockets"]

_FIRST = 3

_lock = threading.Lock()

# What has not been taken yet, with its name; None: not looked at yet. Guarded by _lock.
_passed: list[tuple[str, socket.socket]] | None = None


def systemd_sockets(name: str | None = None) -> list[socket.socket]:
    """Return the listening sockets that systemd has passed to this process.

    For `Listener(sockets=systemd_sockets())`. Each is returned once and is then
    the caller's; there are none if systemd has not started this process for
    a socket. The first call takes the variables of the protocol out of
    `os.environ`, so that programs which this one starts do not see them.

    Args:
        name: Those of this name only, see FileDescriptorName= in
            systemd.socket(5); it is the unit's unless that says otherwise.

    Raises:
        OSError: The variables name a descriptor that is no socket.
        ValueError: A variable is malformed.
    """
    global _passed
    with _lock:
        if _passed is None:
            _passed = _take_all()
        found = [sock for called, sock in _passed if name is None or called == name]
        _passed = [] if name is None else [one for one in _passed if one[0] != name]
    return found


def _take_all() -> list[tuple[str, socket.socket]]:
    environ = os.environ
    pid = environ.get("LISTEN_PID")
    if pid is None or pid != str(os.getpid()):
        return []  # they are for another process, which has not taken them out
    count_text, names_text = environ.get("LISTEN_FDS", "0"), environ.get("LISTEN_FDNAMES")
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(variable, None)
    if not (count_text.isascii() and count_text.isdigit()):
        raise ValueError(f"LISTEN_FDS must be a number, not {count_text!r}")
    count = int(count_text)
    names = [] if names_text is None else names_text.split(":")
    names += ["unknown"] * (count - len(names))
    found: list[tuple[str, socket.socket]] = []
    try:
        for fd, name in zip(range(_FIRST, _FIRST + count), names, strict=False):
            os.set_inheritable(fd, False)
            found.append((name, socket.socket(fileno=fd)))
    except OSError as exc:
        for _, sock in found:
            sock.close()
        text = f"LISTEN_FDS={count_text}, but descriptor {fd}: {exc.strerror}"
        raise OSError(exc.errno, text) from exc
    return found
