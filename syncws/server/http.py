"""Has one HTTP request answered by the application.

Threads: everything but `run` runs in the I/O thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..engine.lane import Lane
from ..engine.loop import READ, WRITE, IOLoop
from ..engine.timers import Timer
from ..engine.transport import Transport
from ..protocol.exchange import Exchange
from ..protocol.http import HeadError, Request, target_for_log
from ..protocol.server_handshake import Refusal, refusal_response
from .allowance import Allowance
from .channel import BODY_BUFFER, Channel, Phase

__all__ = ["RequestHandler"]

# Seconds that the client has to go when the connection ends after a response.
_LEAVE = 2.0

# Those before the application has been called.
_EARLY = (Phase.BODY, Phase.QUEUED)

_log = logging.getLogger("syncws.server")


class RequestHandler:
    """Moves the bytes of one request and of its response.

    Guarantees:
        - The application is called at most once, in a worker.
        - `on_end` and `on_done` are called once each, whatever happens.

    Args:
        loop: The I/O loop.
        transport: The socket, registered for READ.
        request: The request.
        exchange: Its body and the response to it.
        timeout: Seconds for the client; see `Allowance`.
        lane: Where the application's call waits for a worker.
        call: The application's call, given the channel.
        on_end: Called with this and the bytes behind the request when the
            socket can have another request, or with None when it is closed. In
            the I/O thread.
        on_done: Called when the application has returned or will never be
            called. In any thread.

    Attributes:
        transport: The socket.
        channel: What is shared with the worker.
    """

    __slots__ = (
        "_at_end",
        "_call",
        "_inbound",
        "_lane",
        "_last",
        "_loop",
        "_mask",
        "_on_done",
        "_on_end",
        "_outbound",
        "_reading",
        "_request",
        "_timer",
        "channel",
        "transport",
    )

    def __init__(
        self,
        loop: IOLoop,
        transport: Transport,
        request: Request,
        exchange: Exchange,
        *,
        timeout: float | None,
        lane: Lane,
        call: Callable[[Channel], None],
        on_end: Callable[[RequestHandler, bytes | None], None],
        on_done: Callable[[], None],
    ) -> None:
        self._loop = loop
        self.transport = transport
        self.channel = Channel(loop, self, transport, exchange)
        self._request = request
        self._lane = lane
        self._call = call
        self._on_end = on_end
        self._on_done = on_done
        self._mask = READ  # what the selector waits for; 0: not registered
        self._reading = True  # what comes is wanted
        self._at_end = False  # nothing more comes
        self._last = False  # the socket has no other request
        self._timer: Timer | None = None
        self._inbound = Allowance(timeout)
        self._outbound = Allowance(timeout)
        loop.own(self)

    # -- In --------------------------------------------------------------

    def start(self, rest: bytes) -> None:
        """Take the socket over from who has read the head, and `rest` behind it."""
        self._loop.modify(self.transport.sock, READ, self)
        self.take(rest)

    def on_ready(self, mask: int) -> None:
        """The socket is ready."""
        # TLS may have to write before it can read, and the other way round.
        transport = self.transport
        if (mask & READ or transport.wants_write) and self._reading:
            self._read()
        if mask & WRITE or transport.wants_read:
            self.flush()

    def _read(self) -> None:
        window = memoryview(self._loop.buffer)[:BODY_BUFFER]
        try:
            size = self.transport.receive(window)
        except OSError as exc:
            self.end(f"the client was lost: {exc}")
            return
        if size > 0:
            self.take(bytes(window[:size]))
        elif size < 0:
            self.update()
        else:
            self._take_end()

    def take(self, data: bytes) -> None:
        """Deal with what has come; have the application called when it is time."""
        try:
            if self.channel.receive(data):
                self._lane.submit(self.run)
        except HeadError as exc:
            self._refuse(exc.status, exc.text)
        self.update()

    def _take_end(self) -> None:
        """Nothing more comes. Who has sent all of its request may still wait for the answer."""
        self._at_end = True
        if self.channel.expects_more:
            self.end("the client has gone")
        else:
            self.update()

    # -- Out -------------------------------------------------------------

    def flush(self) -> None:
        """Write what is queued, and go on when all of the response is out."""
        try:
            if self.channel.write():
                self._conclude()
        except OSError as exc:
            self.end(f"the client was lost: {exc}")
        self.update()

    def _refuse(self, status: int, text: str) -> None:
        """Answer in place of the application, unless it has begun to, and end the connection."""
        request = self._request
        response = refusal_response(Refusal(status, text), head_only=request.method == "HEAD")
        before = self.channel.refuse(response, text)
        self._log(logging.INFO, "refused %s with %d: %s", target_for_log(request), status, text)
        if before in _EARLY:
            self._on_done()
        self.flush()

    # -- The end ---------------------------------------------------------

    def _conclude(self) -> None:
        """The response is out: the socket can have another request, or the client goes."""
        idle = self.channel.reusable  # or the client knows that this is the end
        rest = self.channel.conclude(not self._last, self._at_end)
        self._stop_timer()
        if rest is not None:
            self._set_mask(READ)
            self._let_go(rest)
        elif self._at_end or idle:
            self.end("nothing more is to come")
        else:
            self._timer = self._loop.call_at(self._loop.clock() + _LEAVE, self.abort, self)

    def end(self, why: str) -> None:
        """Close the socket. Harmless twice, and when it has been given up."""
        if self.channel.standing().phase is Phase.DONE:
            return
        self._set_mask(0)
        before = self.channel.close(why)
        if before is not Phase.LEAVING:
            self._log(logging.DEBUG, "%s, while %s: %s", self._request.target, before.value, why)
        if before in _EARLY:
            self._on_done()
        self._let_go(None)

    def end_soon(self) -> None:
        """Let the connection end after this request."""
        self._last = True
        self.channel.end_soon()

    def _let_go(self, rest: bytes | None) -> None:
        self._loop.disown(self)
        self._stop_timer()
        self._on_end(self, rest)

    def abort(self) -> None:
        """Close the socket. Harmless twice."""
        self.end("the connection was closed")

    def on_loop_error(self, error: BaseException) -> None:
        """Something of ours raised: close the socket."""
        self.abort()

    def abandon(self) -> None:
        """In a forked child: close this process's copy of the socket."""
        self.channel.abandon()

    def _log(self, level: int, message: str, *args: object) -> None:
        self._loop.journal.write(_log, level, message, *args)

    def describe(self) -> str:
        """Say what runs. Any thread."""
        return f"the application, for {target_for_log(self._request)},"

    # -- What is waited for ----------------------------------------------

    def update(self) -> None:
        """Wait for what is wanted now, and no longer than the client may take."""
        phase, reading, writing, owing, body_size, taken = self.channel.standing()
        if phase is Phase.DONE:
            return
        self._reading = reading and not self._at_end
        transport = self.transport
        mask = 0
        if self._reading:
            mask = WRITE if transport.wants_write else READ
        if writing:
            mask |= READ if transport.wants_read else WRITE
        self._set_mask(mask)
        if phase is not Phase.LEAVING:
            now = self._loop.clock()
            body_due = self._inbound.update(owing, body_size, now)
            response_due = self._outbound.update(writing, taken, now)
            if body_due is not None and body_due <= now:
                self._refuse(408, "The request's body did not come in time.")
            elif response_due is not None and response_due <= now:
                self.end("the client did not take the response in time")
            else:
                self._keep_time(body_due, response_due)

    def _set_mask(self, mask: int) -> None:
        sock = self.transport.sock
        if mask == self._mask:
            return
        if not mask:
            self._loop.unregister(sock)
        elif not self._mask:
            self._loop.register(sock, mask, self)
        else:
            self._loop.modify(sock, mask, self)
        self._mask = mask

    def _keep_time(self, *times: float | None) -> None:
        """Look again at the first of these times, or before."""
        due = min((when for when in times if when is not None), default=None)
        if due is not None and (self._timer is None or self._timer.when > due):
            self._stop_timer()
            self._timer = self._loop.call_at(due, self._look, self)

    def _look(self) -> None:
        self._timer = None
        self.update()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- Worker thread ---------------------------------------------------

    def run(self) -> None:
        """Call the application, if there still is someone to answer to."""
        channel = self.channel
        if channel.begin():
            try:
                self._call(channel)
            finally:
                channel.cut()
                if not self._loop.abandoned:  # else the one that counts is in the parent process
                    self._on_done()
