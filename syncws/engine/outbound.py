"""What a connection sends.

`send` encodes and writes at once if nothing is queued; what the socket does
not take, the I/O thread writes when it does.

Threads: methods under "I/O thread" run only in the IOLoop; methods under "Any
thread" may be called from anywhere and take the lock themselves.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterable, Sized
from typing import Protocol

from ..config import ConnectionConfig
from ..errors import Close, WebSocketError
from ..protocol.encoder import APART, Encoder
from ..protocol.events import BINARY, PING
from ..protocol.kernels import frame
from ..timing import Deadline
from .loop import IOLoop
from .outbuf import OutBuffer
from .room import Room
from .state import End
from .transport import Transport
from .watch import Watch

__all__ = ["Outbound", "Sender"]

_FIN = 0x80

# Bytes that a chunk that waits takes up beside its own. Pongs have two.
_OVERHEAD = 48


class Sender(Protocol):
    """Whose bytes these are: a connection. Every method runs in the I/O thread."""

    def flushed(self, drained: bool) -> None:
        """What was queued has been written as far as the socket takes it."""

    def write_failed(self) -> None:
        """Writing has failed."""

    def fell_behind(self, size: int) -> None:
        """The peer has `size` bytes to read still, and now there is more."""

    def holds_back(self) -> None:
        """Messages wait for the end of a fragmented one."""

    def on_loop_error(self, error: BaseException) -> None:
        """A call for this one raised; it must give its descriptor up."""


class Outbound(Room):
    """The outbound half of a connection.

    Guarantees:
        - What `send` has taken is written whole, in the order it was taken.
        - Nothing comes between the fragments of a message but control frames.

    Args:
        loop: The I/O loop that owns the socket.
        transport: The socket.
        encoder: The outbound half of the protocol.
        config: Limits and timeouts.
        watch: Is told when messages go out.
        end: Why sending fails once it does.
    """

    __slots__ = (
        "_afresh",
        "_alike_below",
        "_client",
        "_deflating",
        "_dirty",
        "_encoder",
        "_encoding",
        "_flushing",
        "_midway",
        "_plain_below",
        "_pong_due",
        "_run_queue",
        "_sender",
        "_settings",
        "_shared",
        "_transport",
        "_watch",
        "attentive",
        "bytes_sent",
        "failed",
        "messages_sent",
    )

    def __init__(
        self,
        loop: IOLoop,
        transport: Transport,
        encoder: Encoder,
        config: ConnectionConfig,
        watch: Watch,
        end: End,
        sender: Sender,
    ) -> None:
        super().__init__(loop, config, end)
        # Only whether it is empty matters here.
        self._run_queue: Sized = ()
        if loop.pool is not None:
            self._run_queue = loop.pool.queue
        self._dirty = loop.dirty
        self._client = encoder.client
        self._settings = encoder.settings  # None: nothing is compressed
        self._plain_below = min(encoder.threshold, APART)  # bytes of a message; see `send`
        self._alike_below = 0 if encoder.client else encoder.threshold  # the same; see `Sharing`
        self._watch = watch

        # Owned by the I/O thread.
        self.attentive = False  # the sender wants to know of every flush
        self._sender: Sender | None = sender  # None once the connection has ended

        # Held by whoever sends a message, from encoding to queueing: deflate
        # output is only valid on the wire in the order it was produced. Taken
        # before `lock`, and never in the I/O thread, which must not wait while
        # a big message is compressed.
        self._encoding = threading.Lock()
        self._encoder = encoder

        # Guarded by `lock`.
        self.failed = False  # writing has
        self.bytes_sent = self.messages_sent = 0  # payloads that were taken
        self._transport = transport
        self._flushing = False  # the I/O thread will write what is queued
        self._pong_due: bytes | None = None  # a pong kept back while the peer does not read
        self._midway = False  # between the fragments of a message
        self._shared: OutBuffer | None = None  # groups' messages that wait for the last of them
        self._deflating = False  # a message is being encoded, after those that are queued
        self._afresh = False  # the next one must not refer to those before it

    # -- Any thread ------------------------------------------------------

    @property
    def flushing(self) -> bool:
        """Whether something is queued that the I/O thread has to write."""
        return self._flushing

    def send(self, opcode: int, payload: bytes, final: bool = True) -> None:
        """Send a message, a fragment of one, a ping or a pong; see `Endpoint.send_text`."""
        if not final or opcode > BINARY or len(payload) >= self._plain_below:
            self._send_other(opcode, payload, final)
            return
        # A whole message in a plain frame depends on no other message, so it
        # needs no encoder. What follows is `write`, without the calls.
        if self._watch.idle_timeout is not None:
            self._watch.last_message = self._loop.clock()
        out = self._out
        key = os.urandom(4) if self._client else None
        told = True
        with self.lock:
            ready = self.open and not self._midway and out.size <= self._high
            if ready:
                rest: bytes | None
                try:
                    if out.size or self._run_queue:
                        rest = frame(_FIN | opcode, payload, key)
                    else:
                        try:
                            rest = self._transport.send_frame(_FIN | opcode, payload, key)
                        except OSError as exc:
                            rest = None
                            told = not self._fail(exc)
                    if rest is not None:
                        out.chunks.append(rest)
                        out.size += len(rest)
                        told = self._flushing
                        self._flushing = True
                    self.messages_sent += 1
                    self.bytes_sent += len(payload)
                    if not told:
                        # The same as `flush_soon`, without the call. Before a
                        # signal handler can raise out of the end of the block.
                        self._dirty.append(self)
                        if not self._run_queue:
                            self._loop.wake_if_dirty()
                except BaseException:
                    self.cut_short()
                    raise
        if not ready:
            self._send_other(opcode, payload, final)
            return
        if self.failed:
            raise self.end.closed_error(maybe_sent=True)

    def _send_other(self, opcode: int, payload: bytes, final: bool) -> None:
        """Send what is no whole message in a plain frame, or must wait."""
        message = opcode <= BINARY
        watch = self._watch
        if message and watch.idle_timeout is not None:
            watch.last_message = self._loop.clock()
        out = self._out
        deadline: Deadline | None = None
        while True:
            # The I/O thread may not know yet that writing has failed.
            if self.failed or not self.open:
                raise self.end.closed_error()
            if out.size > self._high:
                deadline = self._wait_for_room(deadline)
            with self._encoding:
                if out.size > self._high:
                    continue  # another sender was quicker
                try:
                    if message:
                        queued = self._send_message(opcode, payload, final)
                    else:
                        queued = self._send_control(opcode, payload)
                    if queued:
                        self.flush_soon()
                except WebSocketError:
                    raise
                except BaseException:
                    with self.lock:
                        self.cut_short()
                    raise
            break
        if self.failed:
            raise self.end.closed_error(maybe_sent=True)

    def _send_control(self, opcode: int, payload: bytes) -> bool:
        """Return whether the I/O thread has to flush."""
        encoder = self._encoder
        frame = encoder.ping(payload) if opcode == PING else encoder.pong(payload)
        with self.lock:
            if not self.open:
                raise self.end.closed_error()
            return self.write(frame)

    def _send_message(self, opcode: int, payload: bytes, final: bool) -> bool:
        """Return whether the I/O thread has to flush. Requires _encoding."""
        if self._settings is not None:
            with self.lock:
                self._deflating = True
                if self._afresh:
                    self._encoder.begin_afresh()
                    self._afresh = False
        try:
            parts = self._encoder.parts(opcode, payload, final)
        except WebSocketError:
            self._deflating = False
            raise
        with self.lock:
            self._deflating = False
            if not self.open:
                raise self.end.closed_error()
            self.messages_sent += final
            self.bytes_sent += len(payload)
            queued = self._write_parts(parts)
            if self._midway == final:
                queued |= self._set_midway(not final)
            return queued

    def held(self) -> int:
        """Return the bytes that wait to be written, also for the end of a fragmented message."""
        with self.lock:
            waiting = (self._out, self._shared or OutBuffer())
            return sum(out.size + _OVERHEAD * len(out.chunks) for out in waiting)

    def flush_soon(self) -> None:
        """Have what is queued written by the I/O thread."""
        self._loop.flush_soon(self)

    def clock(self) -> float:
        """Return the time, in seconds of the loop's clock."""
        return self._loop.clock()

    def log_soon(self, log: logging.Logger, level: int, message: str, *args: object) -> None:
        """Have a line logged by a worker: handlers may block."""
        self._loop.call_soon(self._loop.journal.write, log, level, message, *args)

    def fall_behind(self) -> None:
        """Give up a peer that reads too slowly. Does not wait."""
        self._loop.call_soon(self._fall_behind, owner=self)

    # -- Under the lock --------------------------------------------------

    def write(self, data: bytes | memoryview) -> bool:
        """Write or queue `data`; return whether the I/O thread has to flush. Requires `lock`.

        With nothing queued, and no callback waiting for a worker, writing here
        saves the hand-over to the I/O thread. When callbacks do wait, a batch
        of answers is cheaper written there.
        """
        rest = data
        if not self._out.size and not self._run_queue:
            try:
                sent = self._transport.send(data)
            except OSError as exc:
                return self._fail(exc)
            if sent == len(data):
                return False
            rest = memoryview(data)[sent:] if sent else data
        return self._queue(rest)

    def _queue(self, data: bytes | memoryview) -> bool:
        """Return whether the I/O thread has to be told. Requires `lock`."""
        self._out.append(data)
        return self._start_flushing()

    def _write_parts(self, parts: Iterable[bytes]) -> bool:
        """Do what `write` does, for a frame in parts. Requires `lock`."""
        out = self._out
        direct = not out.size and not self._run_queue
        for part in parts:
            out.append(part)
        try:
            if direct and out.write_to(self._transport):
                return False
        except OSError as exc:
            return self._fail(exc)
        return self._start_flushing()

    def _start_flushing(self) -> bool:
        if self._flushing:
            return False
        self._flushing = True
        return True

    def _fail(self, error: OSError) -> bool:
        """Writing has failed: the I/O thread will see to the rest. Requires `lock`."""
        self.failed = True
        # Its traceback would keep what the sender has at hand as long as this.
        self.end.write_error = error.with_traceback(None)
        self._flushing = True
        return True

    def cut_short(self) -> None:
        """A signal handler has raised amid a send. Requires `lock`.

        It may have done so right after bytes were written, before that was
        noted: what came next could begin in the middle of a frame, or be sent
        twice. So nothing comes next.
        """
        self.open = False
        self._fail(ConnectionAbortedError(errno.ECONNABORTED, "a signal cut a send short"))
        self.flush_soon()

    def _set_midway(self, midway: bool) -> bool:
        """A fragmented message begins, or ends and lets go out what waited. Requires `lock`.

        Returns whether the I/O thread has to flush.
        """
        self._midway = midway
        shared, self._shared = self._shared, None
        if shared is None:
            return False
        self._afresh = True  # some of it may be compressed
        queued = False
        for message in shared.chunks:
            queued |= self.write(message)
        return queued

    def held_back(self) -> OutBuffer:
        """Return what waits for the end of a fragmented message. Requires `lock`."""
        if self._shared is None:
            self._shared = OutBuffer()
            self._loop.call_soon(self._holds_back, owner=self)
        return self._shared

    def send_close(self, close: Close) -> bool:
        """Send our one close frame; return whether the I/O thread has to flush. Requires `lock`."""
        self.end.sent = close
        return self.write(self._encoder.close(close))

    # -- I/O thread ------------------------------------------------------

    def send_pong(self, payload: bytes) -> None:
        """Answer a ping, or keep the answer back while the peer reads nothing."""
        with self.lock:
            if not self.open:
                return
            if self._out.size > self._high:
                # The peer floods us and does not read: only the latest ping
                # needs an answer, says RFC 6455 section 5.5.3.
                self._pong_due = payload
                return
            queued = self.write(self._encoder.pong(payload))
        if queued:
            self.flush_soon()

    def send_ping(self, payload: bytes) -> None:
        """Send a keepalive ping."""
        with self.lock:
            queued = self.open and self.write(self._encoder.ping(payload))
        if queued:
            self.flush_soon()

    def rest(self) -> None:
        """Give back memory if nothing was sent since the last call."""
        if self._encoding.acquire(False):  # else somebody is sending
            try:
                self._encoder.rest()
            finally:
                self._encoding.release()

    def send_first(self, data: bytes) -> None:
        """Write what comes before the first frame: the end of the opening handshake."""
        with self.lock:
            queued = self.write(data)
        if queued:
            self.flush()

    def flush(self) -> None:
        """Write what is queued, as far as the socket takes it."""
        sender = self._sender
        if sender is None:
            return
        drained = False
        out = self._out
        with self.lock:
            if not self.failed:
                try:
                    chunks = out.chunks
                    if len(chunks) == 1:
                        # As a rule it is one message, and goes whole.
                        sent = self._transport.send(chunks[0])
                        if sent == out.size:
                            chunks.clear()
                            out.size = 0
                            drained = True
                        elif sent:
                            out.drop(sent)
                    else:
                        drained = out.write_to(self._transport)
                    if drained and self._pong_due is not None and self.open:
                        out.append(self._encoder.pong(self._pong_due))
                        self._pong_due = None
                        drained = out.write_to(self._transport)
                    self._flushing = not drained
                    if self._condition is not None and out.size <= self._low:
                        self._condition.notify_all()
                except OSError as exc:
                    self._fail(exc)
        if self.failed:
            self._drop()
            sender.write_failed()
        elif not drained or self.attentive:
            sender.flushed(drained)

    def _drop(self) -> None:
        with self.lock:
            self.end.unsent += self._out.size
            self._out.clear()
            self._flushing = False
            self.notify()

    def on_loop_error(self, error: BaseException) -> None:
        """A flush raised: the connection cannot go on."""
        if self._sender is not None:
            self._sender.on_loop_error(error)

    def _fall_behind(self) -> None:
        if self._sender is not None:
            self._sender.fell_behind(self._out.size)

    def _holds_back(self) -> None:
        if self._sender is not None:
            self._sender.holds_back()

    def release(self) -> None:
        """Give back what is queued: the socket is gone. Requires `lock`."""
        self.open = False
        self.end.unsent += self._out.size + (self._shared.size if self._shared else 0)
        self._out.clear()
        self._shared = None
        self._sender = None

    def abandon(self) -> None:
        """In a forked child: whoever held a lock is not here."""
        self.lock = threading.Lock()
        self._encoding = threading.Lock()
        self._condition = None
        self.open = False
