"""What stands between a client and a server and does to their bytes what networks do.

Every fault strikes at a byte of one direction, and stays until the test lets
it go: nothing here waits for a time.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import NamedTuple

from tests.support import HANG, Task

__all__ = ["DOWN", "FAULTS", "LOSSLESS", "LOSSY", "UP", "Fault", "Proxy"]

UP = "up"  # from the client to the server
DOWN = "down"

#: Faults behind which nothing comes in their direction any more, and the
#: connection ends.
LOSSY = ("cut", "reset", "truncate")
#: Those that nothing is lost by. "delay" lasts until `release`.
LOSSLESS = ("delay", "trickle")
#: "stall" is a delay that nobody ends.
FAULTS = (*LOSSY, *LOSSLESS, "stall")

_CHUNK = 65_536

# Bytes that trickle.
_TRICKLE = 2000


class Fault(NamedTuple):
    """What happens to a connection, and where.

    Attributes:
        kind: "cut": both ends get the end of TCP. "reset": both get a reset.
            "truncate": the receiver gets the end of TCP, the sender hears
            nothing. "delay", "stall": nothing goes on, nor is it read, until
            `Proxy.release`. "trickle": the next bytes come one at a time.
        direction: UP or DOWN.
        offset: Bytes of this direction that still pass.
        headed: Count them from the end of the HTTP head.
        eager: Strike as soon as they have passed, not when the next one comes.
    """

    kind: str
    direction: str
    offset: int
    headed: bool = False
    eager: bool = False


class _Pipe:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, fault: Fault | None) -> None:
        self.source = source
        self.sink = sink
        self.fault = fault
        self.pending = b""
        self.passed = 0
        self.held = False
        self.trickling = 0  # bytes that still go one by one
        self.dropping = False  # what comes is read and forgotten
        self.ended = False  # the source has
        self.head_size = 0
        self._head = b""

    def take(self, data: bytes) -> None:
        """Queue what has come."""
        if not self.head_size:
            self._head += data
            self.head_size = self._head.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in self._head else 0
        if not self.dropping:
            self.pending += data

    def room(self) -> int | None:
        """Return how many bytes may pass before the fault strikes; None: any number."""
        fault = self.fault
        if fault is None or (fault.headed and not self.head_size):
            return None
        return fault.offset + (self.head_size if fault.headed else 0) - self.passed


class _Passage:
    """A connection: two sockets and two pipes."""

    def __init__(self, client: socket.socket, server: socket.socket, fault: Fault | None) -> None:
        self.sockets = (client, server)
        for sock in self.sockets:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        up = _Pipe(client, server, fault if fault and fault.direction == UP else None)
        down = _Pipe(server, client, fault if fault and fault.direction == DOWN else None)
        self.pipes = {UP: up, DOWN: down}
        self.closed = False

    def end(self, pipe: _Pipe) -> None:
        """Tell the sink that nothing more comes."""
        pipe.dropping = True
        pipe.pending = b""
        with contextlib.suppress(OSError):
            pipe.sink.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset both ends."""
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close both sockets."""
        self.closed = True
        for sock in self.sockets:
            sock.close()


class Proxy:
    """Listens on a port and leads each connection to another.

    Args:
        port: The server's, on 127.0.0.1.
        faults: What happens to the first connection, to the second, and so
            on; to those behind them, and where it says None, nothing does.
    """

    def __init__(self, port: int, *faults: Fault | None) -> None:
        self._target = ("127.0.0.1", port)
        self._faults = list(faults)
        self._struck: queue.Queue[Fault] = queue.Queue()
        self._accepted: queue.Queue[None] = queue.Queue()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._reader, self._writer = socket.socketpair()
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        self._sock.listen(16)
        self.port: int = self._sock.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/"
        # Owned by the thread.
        self._passages: list[_Passage] = []
        self._stopping = False
        self._task = Task(self._run)

    # -- The test's thread -----------------------------------------------

    def arm(self, fault: Fault) -> None:
        """Have it happen to the youngest connection; its offset counts from now on."""

        def do() -> None:
            passage = self._passages[-1]
            pipe = passage.pipes[fault.direction]
            pipe.fault = fault._replace(offset=pipe.passed + fault.offset)
            self._forward(passage, pipe)

        self._call(do)

    def reached(self) -> Fault:
        """Wait until a fault has struck."""
        return self._struck.get(timeout=HANG)

    def connected(self) -> None:
        """Wait until one more client has connected."""
        self._accepted.get(timeout=HANG)

    def release(self) -> None:
        """End delays and stalls."""

        def do() -> None:
            for passage in self._passages:
                for pipe in passage.pipes.values():
                    pipe.held = False
                    self._forward(passage, pipe)

        self._call(do)

    def reset_all(self) -> None:
        """Reset every connection there is."""

        def do() -> None:
            for passage in self._passages:
                passage.reset()

        self._call(do)

    def _call(self, do: Callable[[], None]) -> None:
        done = threading.Event()
        self._calls.put(do)
        self._calls.put(done.set)
        self._writer.send(b"\0")
        assert done.wait(HANG)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        def stop() -> None:
            self._stopping = True

        self._call(stop)
        self._task.result()
        for sock in (self._reader, self._writer, self._sock):
            sock.close()

    # -- Its own thread --------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._round()
        finally:
            for passage in self._passages:
                passage.close()

    def _round(self) -> None:
        self._passages = [passage for passage in self._passages if not passage.closed]
        pipes = [(p, pipe) for p in self._passages for pipe in p.pipes.values()]
        reading = [
            pipe.source for _, pipe in pipes if not (pipe.ended or pipe.pending or pipe.held)
        ]
        writing = [pipe.sink for _, pipe in pipes if pipe.pending and not pipe.held]
        readable, writable, _ = select.select([self._reader, self._sock, *reading], writing, [])
        for passage, pipe in pipes:
            if pipe.source in readable and not passage.closed:
                self._receive(passage, pipe)
            if pipe.sink in writable and not passage.closed:
                self._forward(passage, pipe)
        if self._sock in readable:
            self._accept()
        if self._reader in readable:
            self._reader.recv(_CHUNK)
            while not self._calls.empty():
                self._calls.get()()

    def _accept(self) -> None:
        client, _ = self._sock.accept()
        try:
            server = socket.create_connection(self._target, timeout=HANG)
        except OSError:
            client.close()
            return
        passage = _Passage(client, server, self._faults.pop(0) if self._faults else None)
        self._passages.append(passage)
        self._accepted.put(None)
        for pipe in passage.pipes.values():
            self._forward(passage, pipe)  # a fault at the first byte strikes now

    def _receive(self, passage: _Passage, pipe: _Pipe) -> None:
        try:
            data = pipe.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            passage.reset()
            return
        pipe.take(data)
        pipe.ended = not data
        self._forward(passage, pipe)

    def _forward(self, passage: _Passage, pipe: _Pipe) -> None:
        """Let pass what may."""
        while not (passage.closed or pipe.held or pipe.dropping):
            room = pipe.room()
            fault = pipe.fault
            if room is not None and room <= 0 and fault and (pipe.pending or fault.eager):
                self._strike(passage, pipe, fault)
                continue
            if not pipe.pending:
                break
            size = 1 if pipe.trickling else _CHUNK if room is None else room
            try:
                sent = pipe.sink.send(pipe.pending[:size])
            except BlockingIOError:
                return
            except OSError:  # nobody is there any more
                pipe.dropping, pipe.pending = True, b""
                break
            pipe.passed += sent
            pipe.trickling = max(0, pipe.trickling - sent)
            pipe.pending = pipe.pending[sent:]
        if pipe.ended and not (pipe.pending or pipe.held or passage.closed):
            passage.end(pipe)
            if all(one.ended for one in passage.pipes.values()):
                passage.close()

    def _strike(self, passage: _Passage, pipe: _Pipe, fault: Fault) -> None:
        pipe.fault = None
        if fault.kind == "cut":
            for one in passage.pipes.values():
                passage.end(one)
        elif fault.kind == "reset":
            passage.reset()
        elif fault.kind == "truncate":
            passage.end(pipe)
        elif fault.kind == "trickle":
            pipe.trickling = _TRICKLE
        else:
            assert fault.kind in ("delay", "stall"), fault
            pipe.held = True
        self._struck.put(fault)
