"""A connection between its acceptance and its upgrade, or between two HTTP requests.

Threads: everything here runs in the I/O thread.
"""

from __future__ import annotations

import enum
import logging
import socket
from collections.abc import Callable
from typing import Any

from ..endpoint import address_of
from ..engine.dispatch import nothing
from ..engine.loop import READ, WRITE, IOLoop
from ..engine.transport import Transport
from ..protocol.http import HeadError, HeadReader, Request, parse_request, target_for_log
from ..protocol.proxy_protocol import Introduction, IntroductionError, IntroductionReader
from ..protocol.server_handshake import Refusal, refusal_response
from .proxies import Proxies, read_introduction

__all__ = ["Opening"]

# Seconds that a refused client has to take the answer and go.
_LEAVE = 2.0

_STOPPING = Refusal(503, "The server is going away.")

_log = logging.getLogger("syncws.server")


class _Phase(enum.Enum):
    INTRODUCTION = "the PROXY header"
    TLS = "the TLS handshake"
    HEAD = "reading the request"
    WAITING = "waiting for a resource"
    REFUSING = "writing the refusal"
    LEAVING = "waiting for the client to go"
    DONE = "upgraded or closed"


class Opening:
    """Reads one handshake request, and has it refused or upgraded.

    Args:
        loop: The I/O loop.
        transport: The accepted socket.
        deadline: When the request must be complete, on the loop's clock.
        max_size: Bytes that the request may have.
        decide: Called with the request, this, and the bytes behind it; it
            returns a refusal, or None after it has called `take` or `wait`.
        on_end: Called once when the socket is taken or closed.
        resumed: The socket had a request before: it is registered for READ,
            and past TLS.
        head_timeout: Seconds for the head of such a request, once it has begun.
        proxies: The proxies that are believed. None: nobody is.
        introduction: What a socket that had a request before began with.
        on_introduction: Called with this once such a proxy has said who the
            client is; it returns what `decide` is to return, whatever the
            request, or None.

    Attributes:
        transport: The socket.
        head: The request as it came, once it is complete.
        introduction: What a proxy has begun the connection with, or None.
        status: What it was refused with, or None.
    """

    __slots__ = (
        "_decide",
        "_foreword",
        "_head_timeout",
        "_idle",
        "_loop",
        "_mask",
        "_on_end",
        "_on_introduction",
        "_on_lost",
        "_out",
        "_phase",
        "_proxies",
        "_reader",
        "_timer",
        "head",
        "introduction",
        "status",
        "transport",
    )

    def __init__(
        self,
        loop: IOLoop,
        transport: Transport,
        *,
        deadline: float | None,
        max_size: int,
        decide: Callable[[Request, Opening, bytes], Refusal | None],
        on_end: Callable[[Opening], None],
        resumed: bool = False,
        head_timeout: float | None = None,
        proxies: Proxies | None = None,
        introduction: Introduction | None = None,
        on_introduction: Callable[[Opening], Refusal | None] = lambda opening: None,
    ) -> None:
        self._loop = loop
        self.transport = transport
        self._decide = decide
        self._on_end = on_end
        self._on_lost: Callable[[], None] = nothing
        self._reader = HeadReader(max_size)
        self._out = b""
        self._phase = _Phase.HEAD if resumed else _Phase.TLS
        self._proxies = proxies
        self.introduction = introduction
        self._on_introduction = on_introduction
        self._foreword: IntroductionReader | None = None
        if proxies is not None and proxies.protocol and not resumed:
            self._phase = _Phase.INTRODUCTION
            self._foreword = IntroductionReader()
        # TLS may have more to tell right away than the selector knows of.
        self._mask = WRITE if transport.wants_write else READ
        self._idle = resumed  # nothing of the request has come
        self._head_timeout = head_timeout
        self.head = b""
        self.status: int | None = None
        loop.own(self)
        register = loop.modify if resumed else loop.register
        try:
            register(transport.sock, self._mask, self)
        except BaseException:
            loop.disown(self)
            raise
        self._timer = None if deadline is None else loop.call_at(deadline, self.abort, self)

    def on_ready(self, mask: int) -> None:
        """The socket is ready: go on where we are."""
        if self._phase is _Phase.DONE:
            self._loop.unregister(self.transport.sock)  # nobody has taken it over
            return
        try:
            if self._phase is _Phase.INTRODUCTION:
                self._read_introduction()
            if self._phase is _Phase.TLS and self.transport.handshake():
                self._phase = _Phase.HEAD
            if self._phase is _Phase.HEAD:
                self._read_head()
            elif self._phase is _Phase.REFUSING:
                self._write()
            elif self._phase is _Phase.LEAVING:
                self._drain()
        except OSError as exc:
            self._client_lost(exc)
        self._update_interest()

    def _client_lost(self, error: OSError) -> None:
        level = logging.INFO if self._phase is _Phase.TLS else logging.DEBUG
        self._log(level, "a client was lost during %s: %s", self._phase.value, error)
        self.abort()

    def _update_interest(self) -> None:
        if self._phase is _Phase.DONE or self._phase is _Phase.WAITING:
            return
        transport = self.transport
        writing = self._phase is _Phase.REFUSING and not transport.wants_read
        self._wait_for(WRITE if writing or transport.wants_write else READ)

    def _wait_for(self, mask: int) -> None:
        if not self._mask:
            self._loop.register(self.transport.sock, mask, self)
        elif mask != self._mask:
            self._loop.modify(self.transport.sock, mask, self)
        self._mask = mask

    def _read_introduction(self) -> None:
        assert self._foreword is not None
        try:
            if not read_introduction(self.transport.sock, self._foreword):
                return
        except EOFError:
            self.abort()  # a proxy that has looked whether somebody is here
            return
        except IntroductionError as exc:
            self._log(logging.INFO, "a proxy was cut off for its PROXY header: %s", exc)
            self.abort()
            return
        self._phase = _Phase.TLS
        self.introduction = self._foreword.introduction
        refusal = self._on_introduction(self)
        if refusal is not None and self._phase is not _Phase.DONE:
            self._decide = lambda *_: refusal
            self._restart_timer(_LEAVE)

    def _read_head(self) -> None:
        size = self.transport.receive(self._loop.buffer)
        if size < 0:
            return
        if not size:
            self.abort()
            return
        self._take(bytes(self._loop.buffer[:size]))

    def resume(self, rest: bytes) -> None:
        """Begin with what has come behind the request before."""
        try:
            self._take(rest)
        except OSError as exc:
            self._client_lost(exc)

    def _take(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._restart_timer(self._head_timeout)
        request: Request | None = None
        try:
            head = self._reader.feed(data)
            if head is None:
                return
            self.head = head
            request = parse_request(
                head,
                remote_address=address_of(self.transport.sock.getpeername()),
                is_secure=self.transport.secure,
                peer_certificate=self.transport.peer_certificate,
            )
            if self._proxies is not None:
                request = self._proxies.attribute(request, self.introduction)
            refusal = self._decide(request, self, self._reader.rest)
        except HeadError as exc:
            refusal = Refusal(exc.status, exc.text)
        if refusal is not None:
            target = target_for_log(request) if request else "a request"
            level = logging.WARNING if refusal.status == 403 else logging.INFO
            self._log(level, "refused %s with %d: %s", target, refusal.status, refusal.text)
            self.refuse(refusal, head_only=request is not None and request.method == "HEAD")

    def _log(self, level: int, message: str, *args: object) -> None:
        self._loop.journal.write(_log, level, message, *args)

    def take(self) -> Transport:
        """Give the socket up to a connection, which takes its registration over, too."""
        if not self._mask:
            self._wait_for(READ)
        self._let_go()
        self._on_end(self)
        return self.transport

    def wait(self, on_lost: Callable[[], None]) -> None:
        """Leave the socket alone, for as long as it takes, until `take` or `reply`.

        Args:
            on_lost: Called if it comes to neither: the socket is closed, or
                the client is told that the server stops.
        """
        self._phase = _Phase.WAITING
        self._on_lost = on_lost
        self._loop.unregister(self.transport.sock)
        self._mask = 0
        if self._timer is not None:
            self._timer.cancel()

    def has_left(self) -> bool:
        """Whether the client has hung up, as far as the system knows. Any thread."""
        try:
            # Of TLS it sees what is encrypted, which will do.
            sock: Any = self.transport.sock
            receive = socket.socket.recv if isinstance(sock, socket.socket) else type(sock).recv
            return not receive(sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    @property
    def begun(self) -> bool:
        """Whether the client is in the midst of something; not between two requests."""
        return not self._idle

    @property
    def waiting(self) -> bool:
        """Whether `take` or `reply` is still to come."""
        return self._phase is _Phase.WAITING

    def prepare(self) -> None:
        """Nothing has to be made ready for `take`."""

    def reply(self, refusal: Refusal) -> None:
        """End the wait with an answer other than 101. Harmless if it is over."""
        if self._phase is not _Phase.WAITING:
            return
        try:
            self._answer(refusal)
        except OSError as exc:
            self._client_lost(exc)

    def refuse(self, refusal: Refusal, *, head_only: bool = False) -> None:
        """Answer with a status other than 101, and end the connection."""
        self._answer(refusal, head_only)

    def _answer(self, refusal: Refusal, head_only: bool = False) -> None:
        self.status = refusal.status
        self._out = refusal_response(refusal, head_only=head_only)
        self._phase = _Phase.REFUSING
        self._on_lost = nothing
        self._restart_timer(_LEAVE)
        self._write()
        self._update_interest()

    def _write(self) -> None:
        self._out = self._out[self.transport.send(self._out) :]
        if not self._out:
            # Closing with unread bytes would reset the connection and could
            # destroy the answer on its way: the client goes first.
            self._phase = _Phase.LEAVING
            self.transport.shutdown_write()

    def _drain(self) -> None:
        if not self.transport.receive(self._loop.buffer):
            self.abort()

    def _restart_timer(self, timeout: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if timeout is not None:
            self._timer = self._loop.call_at(self._loop.clock() + timeout, self.abort, self)

    def _let_go(self) -> None:
        self._phase = _Phase.DONE
        self._on_lost = nothing
        self._loop.disown(self)
        if self._timer is not None:
            self._timer.cancel()

    def stop(self) -> None:
        """The listener stops: tell a client that waits for a resource, and drop others."""
        if self._phase is not _Phase.WAITING:
            self.abort()
            return
        self._on_lost()
        self._log(logging.INFO, "refused a client that waited for a resource with 503")
        self.reply(_STOPPING)

    def abort(self) -> None:
        """Close the socket. Harmless twice."""
        if self._phase is not _Phase.DONE:
            on_lost = self._on_lost
            self._let_go()
            self._loop.unregister(self.transport.sock)
            self.transport.close()
            self._on_end(self)
            on_lost()

    def on_loop_error(self, error: BaseException) -> None:
        """Something of ours raised: close the socket."""
        self.abort()

    def abandon(self) -> None:
        """In a forked child: close this process's copy of the socket."""
        self._phase = _Phase.DONE
        self.transport.abandon()
        self._on_lost()
