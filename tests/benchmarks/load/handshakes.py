"""Connections that are opened and closed, on bare sockets."""

from __future__ import annotations

import errno
import select
import time
from array import array

from ..process import cpu
from ..wire import BINARY, CLOSE, client_frame, dial, header, request
from ..workloads import Workload
from . import WARM_UP, Figures, Server, cpu_per_message, latencies_in_us

__all__ = ["measure"]

# Seconds without any progress after which a server is said to stall.
_PATIENCE = 20.0


class Opening:
    """A connection on its way through its life: things to send, and the answers to wait for."""

    def __init__(self, port: int, index: int, steps: tuple[tuple[bytes, bytes], ...]) -> None:
        self.began = time.perf_counter()
        self.sock = dial(index)
        self.sock.setblocking(False)
        self._steps = iter(steps)
        self._until = b""
        self._got = b""
        code = self.sock.connect_ex(("127.0.0.1", port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "connect failed")

    def proceed(self) -> bool:
        """Read and send what can be; return whether that was all."""
        if not self._until:
            self._next()
            return False
        data = self.sock.recv(4096)
        self._got += data
        if not data:
            behind = f" behind {self._got[:40]!r}" if self._got else ""
            raise ConnectionError(f"the server closed the connection{behind}")
        if self._until not in self._got:
            return False
        if not self._got.startswith((b"HTTP/1.1 101", b"\x82", b"\x88")):
            raise ConnectionError(f"the server answered {self._got[:40]!r}")
        self._got = b""
        return self._next()

    def _next(self) -> bool:
        step = next(self._steps, None)
        if step is None:
            return True
        data, self._until = step
        self.sock.send(data)
        return False


def _steps(workload: Workload, port: int) -> tuple[tuple[bytes, bytes], ...]:
    """Return what to send, and what the answer to it has in it."""
    handshake = (request(port), b"\r\n\r\n")
    close = (client_frame(CLOSE, (1000).to_bytes(2, "big")), b"\x88")
    payload = b"x" * workload.size
    echo = (client_frame(BINARY, payload), header(BINARY, len(payload)) + payload)
    return (handshake, *[echo] * workload.depth, close)


class Load:
    """Some connections at a time; each that ends is followed by another."""

    def __init__(self, workload: Workload, server: Server) -> None:
        self.latencies = array("d")
        self._port = server.port
        self._steps = _steps(workload, server.port)
        self._poll = select.epoll()
        self._open: dict[int, Opening] = {}
        self._index = 0
        for _ in range(workload.connections):
            self._begin()

    def _begin(self) -> None:
        self._index += 1
        opening = Opening(self._port, self._index, self._steps)
        self._open[opening.sock.fileno()] = opening
        self._poll.register(opening.sock, select.EPOLLOUT)

    def run(self, seconds: float) -> None:
        """Go on for so long.

        Raises:
            TimeoutError: Nothing happened.
        """
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            events = self._poll.poll(_PATIENCE)
            if not events:
                raise TimeoutError(f"nothing happened for {_PATIENCE:.0f} s")
            for number, event in events:
                self._step(number, event)

    def _step(self, number: int, event: int) -> None:
        opening = self._open[number]
        if event == select.EPOLLOUT:
            self._poll.modify(number, select.EPOLLIN)
        if opening.proceed():
            self.latencies.append(time.perf_counter() - opening.began)
            del self._open[number]
            opening.sock.close()
            self._begin()

    def close(self) -> None:
        """Drop what is open."""
        for opening in self._open.values():
            opening.sock.close()
        self._poll.close()


def measure(workload: Workload, server: Server, seconds: float) -> Figures:
    """Measure how many per second, and how long each takes."""
    load = Load(workload, server)
    try:
        load.run(WARM_UP)
        first, cpu_before = len(load.latencies), cpu(server.pid)
        began, busy = time.perf_counter(), time.process_time()
        load.run(seconds)
        elapsed = time.perf_counter() - began
        done = load.latencies[first:]
        if not done:
            raise TimeoutError("no connection was opened")
        figures = {"rate": len(done) / elapsed, "load": (time.process_time() - busy) / elapsed}
        figures |= latencies_in_us(done)
        return figures | cpu_per_message(cpu_before, cpu(server.pid), len(done))
    finally:
        load.close()
