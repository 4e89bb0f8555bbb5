"""One end of a connection, whose every step is somebody else's to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..client.waiting import wait
from ..config import ClientConfig
from ..endpoint import address_of
from ..engine.transport import make_transport
from ..errors import Close
from ..protocol.client_handshake import ClientHandshake
from ..protocol.codec import make_codec
from ..protocol.events import BINARY, CLOSE, ERROR, PING, PONG, TEXT, Event
from ..protocol.http import HeadReader, Request, parse_request
from ..timing import Deadline

__all__ = ["Left", "Peer"]

_MAX_HEAD = 65_536
_MAX_MESSAGE = 1 << 26


class Left(Exception):
    """The other end has gone, or this one was cut off."""


class Peer:
    """One end of a connection, which does what its script says.

    Args:
        sock: The connected socket; owned from now on.
        client: Whether this end is the client.
        timeout: Seconds for each step.
    """

    def __init__(self, sock: Any, client: bool, timeout: float) -> None:
        config = ClientConfig(
            compression=False, max_message_size=_MAX_MESSAGE, max_frame_size=_MAX_MESSAGE
        )
        self._sock = sock
        self._timeout = timeout
        self._events: list[Event] = []
        self._ended = ""  # how the connection has ended, once it has
        self._transport = make_transport(sock)
        self._decoder, self.encoder = make_codec(config, None, client=client)

    # -- Bytes -----------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes."""
        rest = memoryview(data)
        deadline = Deadline(self._timeout)
        try:
            while rest := rest[self._transport.send(rest) :]:
                self._wait(True, deadline, "the other end does not read")
        except OSError as exc:
            self._ended = self._ended or str(exc)

    def read(self, what: str, timeout: float | None = -1) -> bytes:
        """Return what comes next, b"" at the end."""
        buffer = bytearray(65_536)
        deadline = Deadline(self._timeout if timeout == -1 else timeout)
        while True:
            try:
                size = self._transport.receive(buffer)
            except OSError as exc:
                self._ended = self._ended or exc.strerror or str(exc)
                return b""
            if size >= 0:
                if not size:
                    self._ended = self._ended or "without a close frame"
                return bytes(buffer[:size])
            self._wait(False, deadline, what)

    def _wait(self, writable: bool, deadline: Deadline, what: str) -> None:
        try:
            wait(self._sock, writable, deadline)
        except TimeoutError:
            raise AssertionError(f"{what} within {self._timeout} s") from None

    # -- Messages --------------------------------------------------------

    def begin(self, data: bytes) -> None:
        """Take what has come behind the handshake."""
        if data:
            self._events += self._decoder.receive(data)

    def send(self, message: str | bytes) -> None:
        """Send a message."""
        opcode = TEXT if isinstance(message, str) else BINARY
        payload = message.encode() if isinstance(message, str) else message
        self.write(self.encoder.message(opcode, payload))

    def next_event(self, skipped: Sequence[int]) -> tuple[int | None, Any]:
        """Return what comes next but for these; None, and why, if nothing comes any more.

        Pings are answered, and a close frame is.
        """
        while True:
            while not self._events:
                data = self.read("nothing came")
                if not data:
                    return None, self._ended
                self._events += self._decoder.receive(data)
            event = self._events.pop(0)
            if event.opcode == PING:
                self.write(self.encoder.pong(event.data))
            elif event.opcode == CLOSE:
                self._answer_close(event.data)
            if event.opcode not in skipped:
                return event.opcode, event.data

    def _answer_close(self, close: Close) -> None:
        if not self._ended:
            self.write(self.encoder.close(close))
            self._ended = "it was closed"

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and wait for the other end's."""
        self.write(self.encoder.close(Close(code, reason)))
        ended, self._ended = self._ended, "closed by the script"
        if ended:
            raise AssertionError(f"cannot close: the connection has ended: {ended}")
        opcode: int | None = 0
        while opcode not in (None, CLOSE, ERROR):  # what was on the way comes first
            opcode, _ = self.next_event((TEXT, BINARY, PING, PONG))
        if opcode != CLOSE:
            raise AssertionError("the other end did not answer the close frame")

    def drop(self) -> None:
        """End TCP; what was sent before arrives."""
        self._transport.shutdown_write()
        while self.read("the other end stays"):  # unread, it would make this a reset
            pass
        raise Left

    def listen(self) -> None:
        """Read until the other end closes, or leaves."""
        opcode: int | None = 0
        while opcode not in (None, CLOSE, ERROR):
            if not self._events:
                self._events += self._decoder.receive(self.read("", None) or b"")
            opcode = self.next_event(())[0] if self._events or self._ended else 0

    def read_to_end(self) -> None:
        """Read until there is nothing any more."""
        while self.read("the other end stays", None):
            pass

    def finish(self) -> None:
        """End the connection."""
        self._transport.close()

    # -- Handshakes ------------------------------------------------------

    def ask(self, handshake: ClientHandshake) -> None:
        """Do a client's handshake.

        Raises:
            HandshakeError: The server does not accept it.
        """
        self.write(handshake.request_bytes())
        agreement = None
        while agreement is None:
            agreement = handshake.receive(self.read("no answer to the handshake came"))
        self.begin(agreement.rest)

    def read_request(self) -> tuple[Request, bytes]:
        """Return a client's request, and what has come behind it."""
        reader = HeadReader(_MAX_HEAD)
        head = None
        while head is None:
            data = self.read("no handshake came")
            if not data:
                raise AssertionError(f"the client left before its handshake: {self._ended}")
            head = reader.feed(data)
        request = parse_request(head, remote_address=address_of(self._sock.getpeername()))
        return request, reader.rest
