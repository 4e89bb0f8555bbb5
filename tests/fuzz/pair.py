"""Two connections, the wire between them, and what each end has a right to expect.

No thread and no time but the test's: an end does something when it is told to,
and bytes are carried as many as the test says.
"""

from __future__ import annotations

import socket

from syncws.engine.dispatch import Mailbox
from syncws.errors import Close, KeepaliveTimeout
from syncws.protocol.deflate import DeflateParams
from syncws.protocol.events import BINARY, PING, PONG, TEXT, Event

from .end import End, Options, counts
from .tap import Seen, Tap

__all__ = ["Pair"]

_PASSES = 400
_BAD_FRAME = b"\x8b"  # an opcode that there is not


class _Direction:
    """What is on its way from one end to the other."""

    def __init__(self, source: End, sink: End, tap: Tap) -> None:
        self.source = source
        self.sink = sink
        self.tap = tap
        self.flying = b""
        self.carried = 0
        self.cut = False
        self._ended = False  # the source sends no more
        self.told = False  # the sink knows

    def carry(self, size: int) -> None:
        """Carry up to `size` bytes."""
        if self.cut:
            return
        wanted = size - len(self.flying)
        if wanted > 0 and not self._ended:
            self._collect(wanted)
        piece = self.flying[:size]
        if piece:
            try:
                sent = self.sink.wire.send(piece)
            except BlockingIOError:
                return
            except OSError:
                sent = len(piece)  # the sink is gone
            self.flying = self.flying[sent:]
            self.carried += sent
        if self._ended and not self.flying and not self.told:
            self.told = True
            self._end_writing()

    def _collect(self, size: int) -> None:
        try:
            data = self.source.wire.recv(size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended = True
        self.tap.feed(data)
        self.flying += data

    def _end_writing(self) -> None:
        try:
            self.sink.wire.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Pair:
    """Both ends, and the wire.

    Attributes:
        now: The time of both ends.
        ends: The client and the server.
    """

    def __init__(self, options: Options) -> None:
        self.now = 1000.0
        self.ends = (End(options, True, self._clock), End(options, False, self._clock))
        client, server = self.ends
        params = options.params or DeflateParams(False, False, 15, 15)
        streams = [set(stream) for stream in options.stream]
        self.ways = (
            _Direction(
                client,
                server,
                Tap(True, streams[1], params.client_no_context_takeover, 15),
            ),
            _Direction(
                server,
                client,
                Tap(False, streams[0], params.server_no_context_takeover, 15),
            ),
        )
        self.was_cut = False
        for end in self.ends:
            end.turn()

    def _clock(self) -> float:
        return self.now

    # -- What happens ----------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let time pass, and both ends look at it."""
        before = self.now
        self.now += seconds
        for end in self.ends:
            was_open = end.open
            end.turn()
            if was_open and end.connection.sent == Close(1001, "idle timeout"):
                idle = end.connection.config.idle_timeout
                assert idle is not None
                assert self.now - end.last_message >= idle, "it was not idle for so long"
            if was_open and isinstance(end.connection.error, KeepaliveTimeout):
                assert before >= 1000.0 + 20.0, "there was no ping before"

    def cut(self) -> None:
        """Lose TCP, and all that is on its way."""
        self.was_cut = True
        for way in self.ways:
            way.cut = True
            way.source.wire.close()

    def spoil(self, number: int) -> bool:
        """Have an end get a frame that breaks the rules; return whether that can be now."""
        way = self.ways[1 - number]
        way.carry(0)
        if way.flying or not way.tap.at_border or way.cut or way.tap.close is not None:
            return False
        bad = _BAD_FRAME + (b"\x00" if way.sink.client else b"\x80\x00\x00\x00\x00")
        try:
            if way.sink.wire.send(bad) != len(bad):
                self.cut()
        except OSError:
            return False
        way.sink.spoiled = True
        return True

    def settle(self) -> None:
        """Carry and do everything, until nothing is left."""
        before: object = None
        for _ in range(_PASSES):
            for end in self.ends:
                end.transport.room = None
                end.turn()
                end.work()
                end.turn()
            for way in self.ways:
                way.carry(100_000)
            now = [
                (way.carried, len(way.flying), way.told, end.connection.state, len(end.got))
                for way, end in zip(self.ways, self.ends, strict=True)
            ]
            if now == before:
                return
            before = now
        raise AssertionError("it does not come to rest")

    # -- What must hold --------------------------------------------------

    def check(self) -> None:
        """Check what holds at any time."""
        for way in self.ways:
            source, sink = way.source, way.sink
            source.check()
            promised = source.promised + source.maybe
            on_wire = [s for s in way.tap.seen if counts(Event(*s)) and not _answers(s, source)]
            assert on_wire == promised[: len(on_wire)], "something else is on the wire"
            # An answer to a ping that went to the callbacks is a promise, too.
            expected = [
                seen
                for seen in way.tap.seen
                if counts(Event(*seen)) and not (seen.opcode == PING and sink.auto_pong)
            ]
            delivered = sink.delivered()
            if not way.flying and not sink.spoiled:
                assert len(delivered) <= len(expected)
            assert delivered == expected[: len(delivered)], "something else was delivered"
            received, sent = sink.connection.received, source.connection.sent
            assert received is None or received == sent == way.tap.close
            if way.tap.close is not None:
                assert way.tap.close == sent

    def check_settled(self) -> None:
        """Check what holds when nothing is on its way."""
        self.check()
        for way in self.ways:
            sink = way.sink
            sound = not (sink.connection.closed_here or sink.spoiled or sink.connection.error)
            if sound and sink.connection.received is not None:
                assert sink.delivered() == self._due(way), "something was lost before the close"
                self._check_consumed(sink)
                sent, answer = sink.connection.sent, Close(sink.connection.received.code)
                unanswered = sent is None and sink.has_aborted
                assert sent == answer or unanswered, "the close was answered wrongly"
        if not all(end.open for end in self.ends):
            for end in self.ends:
                assert end.gone, f"{end.connection.state} and at rest"
            return
        for way in self.ways:
            assert way.sink.delivered() == self._due(way), "something was lost"
            self._check_consumed(way.sink)
            self._check_answers(way)

    def _due(self, way: _Direction) -> list[Seen]:
        """Return what the sink has to get of what the source was promised."""
        answers = [s for s in way.tap.seen if s.opcode == PONG and _answers(s, way.source)]
        due = [s for s in way.source.promised if not (s.opcode == PING and way.sink.auto_pong)]
        if not answers:
            return due
        # Where they come in between the others, only the wire knows.
        on_wire = [
            seen
            for seen in way.tap.seen
            if counts(Event(*seen)) and not (seen.opcode == PING and way.sink.auto_pong)
        ]
        assert [seen for seen in on_wire if seen not in answers] == due
        return on_wire

    def _check_consumed(self, end: End) -> None:
        if isinstance(end.inbox, Mailbox):
            if end.has_closed:
                return  # that drops what nobody has received
            messages = [seen for seen in end.delivered() if seen.opcode in (TEXT, BINARY)]
        else:
            messages = end.delivered()
        assert [Seen(*event) for event in end.got if counts(event)] == messages

    def _check_answers(self, way: _Direction) -> None:
        """The last ping at least was answered. RFC 6455 section 5.5.3."""
        pings = [seen.data for seen in way.tap.seen if seen.opcode == PING]
        back = self.ways[0] if way is self.ways[1] else self.ways[1]
        pongs = [seen.data for seen in back.tap.seen if seen.opcode == PONG]
        if pings and way.sink.auto_pong:
            assert pings[-1] in pongs, "a ping was not answered"

    def free(self) -> None:
        for end in self.ends:
            end.free()


def _answers(seen: Seen, end: End) -> bool:
    """Whether this is the automatic answer to a ping of the peer's."""
    if seen.opcode != PONG or not end.auto_pong:
        return False
    mine = b"client" if end.client else b"server"
    assert isinstance(seen.data, bytes)
    return not seen.data.startswith(mine)
