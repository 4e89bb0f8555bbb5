"""The command `syncws serve`: processes that share their listening sockets.

The supervisor has one thread, imports nothing of the user's and never serves
itself, so it can fork at any time. Nothing here is imported where there is no fork.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ..config import TLSConfig
from ..server.arguments import Binding
from . import child
from .bind import Bind, Sockets, show_address
from .channel import Channel
from .notify import Notifier
from .supervisor import Phase, Supervisor
from .watch import Watch

__all__ = ["Options", "run"]

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)

# Seconds between looks at the source files.
_LOOK = 0.4

# Up to here a descriptor is left open: the next one would get its number.
_STDERR = 2

_log = logging.getLogger("syncws.cli")


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    module: str
    attribute: str
    processes: int
    binds: Sequence[Bind]
    graceful_timeout: float
    pid_file: str | None
    ready_fd: int | None
    log_level: int
    tls: TLSConfig | None = None
    reload: bool = False


class _Forked(BaseException):
    """This is the new process; it leaves the supervisor's frames with this."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel


def run(options: Options) -> int:
    """Serve until a signal ends it; return the exit status, also in the processes it starts."""
    logging.basicConfig(level=options.log_level, format=child.FORMAT)
    channel = None
    try:
        return _supervise(options)
    except _Forked as forked:
        channel = forked.channel
    # Out of the handler: errors of the module are not errors amid another one.
    return child.serve(
        channel,
        options.module,
        options.attribute,
        graceful_timeout=options.graceful_timeout,
        log_level=options.log_level,
        tls=options.tls,
    )


def _supervise(options: Options) -> int:
    binds = list(options.binds)
    if not binds and os.environ.get("LISTEN_PID") == str(os.getpid()):
        binds.append(Bind(systemd=""))
    sockets = Sockets(options.processes)
    try:
        sockets.open(binds)
    except (OSError, ValueError) as exc:
        sockets.close()
        sockets.remove_paths()
        sys.stderr.write(f"syncws: {exc}\n")
        return 1
    return _Processes(options, sockets, opened=bool(binds)).run()


class _PidFile:
    """Has the id of this process, from when its address is its own."""

    def __init__(self, name: str | None) -> None:
        self._path = None if name is None else Path(name)
        self._text = f"{os.getpid()}\n"

    def write(self) -> None:
        """Write it."""
        if self._path is not None:
            try:
                self._path.write_text(self._text, encoding="ascii")
            except OSError as exc:
                text = f"cannot write the pid file {self._path}: {exc.strerror}"
                raise OSError(exc.errno, text) from exc

    def remove(self) -> None:
        """Remove it unless it is another's by now."""
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError):
                if self._path.read_text(encoding="ascii") == self._text:
                    self._path.unlink()


class _Processes:
    """Real processes; see `Host`.

    Args:
        options: What the command line says.
        sockets: What to listen on; owned from now on.
        opened: Whether that is known already.
    """

    def __init__(self, options: Options, sockets: Sockets, *, opened: bool) -> None:
        self._options = options
        self._sockets = sockets
        self._opened = opened
        self._notifier = Notifier()
        self._announced = False
        self._pid_file = _PidFile(options.pid_file)
        self._channels: dict[int, Channel] = {}
        self._selector = selectors.DefaultSelector()
        self._signals, self._wakeup = socket.socketpair()
        for sock in (self._signals, self._wakeup):
            sock.setblocking(False)
        self._selector.register(self._signals, selectors.EVENT_READ)
        self._handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._watch = Watch(Path.cwd()) if options.reload else None
        self._changed: list[str] = []
        self._supervisor = Supervisor(
            self, options.processes, options.graceful_timeout, time.monotonic
        )

    def run(self) -> int:
        """Keep the processes running until the end; return the exit status."""
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _noted)
        try:
            self._supervisor.start()
            while self._supervisor.phase is not Phase.ENDED:
                self._round()
        except _Forked:
            raise
        except BaseException:
            for pid in self._supervisor.pids:
                self.kill(pid)
            self._close()
            raise
        self._close()
        return self._supervisor.status

    def _round(self) -> None:
        due = self._supervisor.next_due
        timeout = None if due is None else max(0.0, due - time.monotonic())
        if self._watch is not None:
            timeout = _LOOK if timeout is None else min(timeout, _LOOK)
        for key, _ in self._selector.select(timeout):
            if key.data is not None:
                self._hear(key.data)
        # Before anybody's end: a signal for the whole group may have ended
        # processes as well. It may not be among what was ready yet.
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            numbers = self._signals.recv(4096)
        for number in numbers:
            if number == signal.SIGHUP:
                self._supervisor.hang_up()
            elif number != signal.SIGCHLD:
                self._supervisor.terminate()
        self._reap()
        self._supervisor.tick()
        if self._watch is not None:
            self._look(self._watch)

    def _look(self, watch: Watch) -> None:
        """Load the code anew if it has changed; what changes amid that comes after."""
        self._changed += watch.look()
        if self._changed and self._supervisor.phase is Phase.SERVING:
            names = ", ".join(dict.fromkeys(self._changed))
            self._changed = []
            _log.info("changed: %s", names)
            self._supervisor.hang_up()

    def _hear(self, pid: int) -> None:
        channel = self._channels[pid]
        messages = channel.receive()
        if messages is None:  # it ends
            self._selector.unregister(channel.sock)
            return
        for message, _ in messages:
            if message["name"] == "loaded":
                self._supervisor.loaded(pid, Binding(*message["binding"]))
            else:
                self._supervisor.listening(pid)

    def _reap(self) -> None:
        """Look after all processes that have ended: as process 1 also after strangers."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                channel = self._channels.pop(pid, None)
                if channel is not None:
                    with contextlib.suppress(KeyError):
                        self._selector.unregister(channel.sock)
                    channel.close()
                    self._supervisor.exited(pid, os.waitstatus_to_exitcode(status))

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._close_descriptors()
        self._pid_file.remove()

    def _close_descriptors(self) -> None:
        self._selector.close()
        self._signals.close()
        self._wakeup.close()
        for channel in self._channels.values():
            channel.close()
        self._sockets.close()

    # -- What the supervisor wants ---------------------------------------

    def spawn(self, slot: int) -> int:
        """Start a process that loads the module; return its id."""
        ours, theirs = Channel.pair()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody may read it any more
                stream.flush()
        # A signal for the supervisor is no signal for the new process.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                theirs.close()
                raise
            if not pid:
                with contextlib.suppress(OSError):  # never a second supervisor
                    self._become_child(ours)
                raise _Forked(theirs)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()
        self._channels[pid] = ours
        self._selector.register(ours.sock, selectors.EVENT_READ, pid)
        return pid

    def _become_child(self, ours: Channel) -> None:
        """Leave what is the supervisor's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # A Ctrl-C is for the whole group, and the supervisor says what follows.
        # Not SIG_IGN, which programs that the user starts would inherit.
        signal.signal(signal.SIGINT, _noted)
        signal.signal(signal.SIGHUP, _noted)
        ours.close()
        self._close_descriptors()
        number = self._options.ready_fd
        if number is not None and number > _STDERR and not self._announced:
            with contextlib.suppress(OSError):
                os.close(number)
        root = logging.getLogger()
        for handler in list(root.handlers):  # logging is the module's to set up
            root.removeHandler(handler)
        root.setLevel(logging.WARNING)

    def open(self, binding: Binding) -> None:
        """Have listening sockets, unless the command line has said where, and the pid file."""
        if not self._opened:
            self._sockets.open([Bind(binding)])
            self._opened = True
        # Not before: it would be taken from another command that has the address.
        self._pid_file.write()

    def listen(self, pid: int, slot: int) -> None:
        """Have a process serve on a slot's sockets."""
        self._tell(pid, "listen", self._sockets.of(slot))

    def share(self, pid: int, slot: int) -> None:
        """Have a process accept on another slot's sockets, too, if they are its own."""
        if self._sockets.own_of(slot):
            self._tell(pid, "share", self._sockets.own_of(slot))

    def retire(self, pid: int) -> None:
        """Have a process end without losing a client that has begun."""
        self._tell(pid, "retire")

    def stop(self, pid: int) -> None:
        """Have a process end."""
        self._tell(pid, "stop")

    def _tell(self, pid: int, name: str, sockets: Sequence[socket.socket] = ()) -> None:
        with contextlib.suppress(OSError):  # it has ended, which is heard of soon
            self._channels[pid].send(name, sockets=sockets)

    def kill(self, pid: int) -> None:
        """End a process now."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def ready(self) -> None:
        """Tell everybody that all processes listen."""
        count = self._options.processes
        where = ", ".join(map(show_address, self._sockets.addresses))
        processes = f"{count} process" if count == 1 else f"{count} processes"
        text = f"Listening on {where} with {processes}, pid {os.getpid()}"
        self._notifier.ready(text)
        if self._announced:
            _log.info("%s", text)
            return
        self._announced = True
        with contextlib.suppress(OSError):  # nobody may read it
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        number = self._options.ready_fd
        if number is not None:
            with contextlib.suppress(OSError):
                os.write(number, b"ready\n")
                if number > _STDERR:
                    os.close(number)

    def reloading(self) -> None:
        """Tell that new processes are on their way."""
        self._notifier.reloading()

    def stopping(self) -> None:
        """Take no more clients: the sockets are closed with the last process's copies."""
        self._notifier.stopping()
        self._sockets.close()
        self._sockets.remove_paths()


def _noted(number: int, frame: FrameType | None) -> None:
    """The number is in the pipe that wakes the supervisor, or of no interest."""
