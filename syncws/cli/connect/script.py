"""`syncws connect` in a pipe or script: stdin is sent, what comes goes to stdout.

Threads: one reads stdin and sends; a worker writes what comes, so neither waits
for the other; the main thread waits for what ends it all.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ...client.client import Client
from ...errors import ConnectionClosed, WebSocketError
from ...service import Service
from ...timing import Clock
from ..codes import ExitCode
from ..text import escape
from .render import Renderer

__all__ = ["Plan", "Script", "messages_of"]

_READ = 65_536

# Close codes that say that all is well. RFC 6455 section 7.4.1.
_WELL = (1000, 1001, 1005)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is sent, and what is waited for.

    Attributes:
        texts: Messages to send in place of stdin.
        whole: Send all of stdin as one message; else each line.
        binary: Send binary messages: the bytes of `whole`, lines in hex.
        expect: End when so many messages have come. None: see `wait`.
        wait: Once all is sent, end when nothing has come for so many seconds.
            None: never.
        timeout: Seconds to wait for each of those that are expected.
    """

    texts: tuple[str, ...] = ()
    whole: bool = False
    binary: bool = False
    expect: int | None = None
    wait: float | None = 1.0
    timeout: float = 10.0


def messages_of(fd: int, plan: Plan) -> Iterator[str | bytes]:
    """Yield the messages that a descriptor has; nothing if there is nothing to read.

    Raises:
        ValueError: A text is not UTF-8, or a line is not hex.
    """
    number = 0
    for number, piece in enumerate(_pieces(fd, plan.whole), 1):
        try:
            if not plan.binary:
                yield piece.decode()
            elif plan.whole:
                yield piece
            else:
                yield bytes.fromhex(piece.decode())
        except UnicodeDecodeError:
            raise ValueError(
                f"line {number} of stdin is not UTF-8; --binary --one sends any bytes"
            ) from None
        except ValueError:
            shown = escape(piece[:40].decode(errors="replace"))
            raise ValueError(f"line {number} of stdin, {shown!r}, is not hex") from None


def _pieces(fd: int, whole: bool) -> Iterator[bytes]:
    held = b""
    # os.read, for a thread that waits in a buffered reader cannot be left
    # behind when the interpreter ends.
    while data := os.read(fd, _READ):
        held += data
        if not whole:
            *lines, held = held.split(b"\n")
            yield from (line.removesuffix(b"\r") for line in lines)
    if held:
        yield held.removesuffix(b"\n").removesuffix(b"\r") if whole else held


class Script(Service):
    """Sends, prints, and knows when it is over.

    Args:
        plan: What is sent, and what is waited for.
        output: Where messages go; nothing else does.
        say: Gets what is to be told to the user: on stderr.
        render: How messages are shown.
        clock: Gives the time in seconds.
    """

    def __init__(
        self,
        plan: Plan,
        output: BinaryIO,
        say: Callable[[str], None],
        render: Renderer,
        clock: Clock = time.monotonic,
    ) -> None:
        self._plan = plan
        self._output = output
        self._say = say
        self._render = render
        self._clock = clock

        # Guarded by _changed.
        self._changed = threading.Condition()
        self._came = 0  # messages
        self._last = clock()  # when something last came or went
        self._sent = False  # everything
        self._code: ExitCode | None = None  # it is over

    # -- The client's worker ---------------------------------------------

    def on_text(self, client: Client, text: str) -> None:
        self._print((self._render.text(text) + "\n").encode(errors="replace"))

    def on_binary(self, client: Client, data: bytes) -> None:
        self._print(self._render.binary(data))

    def on_error(self, client: Client, error: WebSocketError) -> None:
        self._end(ExitCode.FAILED, f"the connection failed: {error}")

    def on_close(self, client: Client, status_code: int, reason: str) -> None:
        why = f"the server has closed with {status_code}" + (f": {reason}" if reason else "")
        with self._changed:
            lacking = self._plan.expect is not None and self._came < self._plan.expect
        if status_code in _WELL and not lacking:
            self._end(ExitCode.OK)
        elif status_code == 1006:
            self._end(ExitCode.FAILED, "the connection was lost")
        else:
            self._end(ExitCode.FAILED, why)

    def _print(self, shown: bytes) -> None:
        expect = self._plan.expect
        with self._changed:
            if self._code is not None or (expect is not None and self._came >= expect):
                return  # more than was asked for
        try:
            self._output.write(shown)
            self._output.flush()
        except OSError:
            self._end(ExitCode.OK)  # nobody reads any more: head has all it wants
            return
        with self._changed:
            self._came += 1
            self._last = self._clock()
            self._changed.notify_all()

    # -- The thread that sends -------------------------------------------

    def send(self, client: Client, fd: int | None) -> None:
        """Send everything."""
        source = () if fd is None else messages_of(fd, self._plan)
        try:
            for message in self._plan.texts or source:
                if isinstance(message, str):
                    client.send_text(message)
                else:
                    client.send_binary(message)
                with self._changed:
                    self._last = self._clock()
        except ConnectionClosed:
            return  # on_close or on_error says why
        except (OSError, ValueError, WebSocketError) as exc:
            self._end(ExitCode.FAILED, str(exc))
            return
        with self._changed:
            self._sent = True
            self._last = self._clock()
            self._changed.notify_all()

    # -- Any thread ------------------------------------------------------

    def _end(self, code: ExitCode, why: str = "") -> None:
        with self._changed:
            if self._code is not None:
                return
            self._code = code
            self._changed.notify_all()
        if why:
            self._say(f"Error: {escape(why, keep='')}")

    def run(self, client: Client, fd: int | None) -> ExitCode:
        """Do what the plan says; return what to exit with. Closes the client.

        Args:
            client: The client, which has this as its service and is not ready.
            fd: What to read messages from; None if there is nothing.
        """
        sender = threading.Thread(target=self.send, args=(client, fd), daemon=True)
        client.ready()
        sender.start()
        try:
            return self._wait()
        except KeyboardInterrupt:
            self._end(ExitCode.INTERRUPTED)
            return ExitCode.INTERRUPTED
        finally:
            client.close(timeout=self._plan.timeout)

    def _wait(self) -> ExitCode:
        with self._changed:
            while self._code is None:
                patience = self._patience()
                if patience is not None and patience <= 0:
                    return self._verdict()
                self._changed.wait(patience)
            return self._code

    def _patience(self) -> float | None:
        """Return the seconds that are left, or None for no limit. Requires _changed."""
        plan = self._plan
        if plan.expect is not None and self._came >= plan.expect:
            return 0.0
        if not self._sent:
            return None
        if plan.expect is not None:
            return self._last + plan.timeout - self._clock()
        return None if plan.wait is None else self._last + plan.wait - self._clock()

    def _verdict(self) -> ExitCode:
        """Nothing more is waited for. Requires _changed."""
        plan = self._plan
        self._code = ExitCode.OK
        if plan.expect is not None and self._came < plan.expect:
            self._code = ExitCode.TIMEOUT
            self._say(
                f"Error: {self._came} of {plan.expect} messages have come, "
                f"and no other within {plan.timeout:g} s"
            )
        return self._code
