"""Frames that no honest peer sends: lengths, reserved bits, masks, control frames, closes."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import Any

import pytest

import syncws
from syncws.protocol import encoder as encoder_module
from syncws.protocol import kernels, plain
from tests.abuse.hostile import Deaf, Victim, attacked, every_end
from tests.support import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawPeer,
    Recorder,
    close_payload,
    listening,
    open_pair,
)

KIB = 1024
LIMIT = 1000  # of a message, where a test sets one

_OPCODES = {
    "text": TEXT,
    "binary": BINARY,
    "continuation": CONT,
    "close": CLOSE,
    "ping": PING,
    "pong": PONG,
}
_LARGEST = 2**63 - 1


def header(victim: Victim, opcode: int, width: int, size: int, *, fin: bool = True) -> bytes:
    """Return a frame's header, of which nothing follows, with its size in so many bytes."""
    mark = {0: size, 2: 126, 8: 127}[width]
    masked = victim.kind == "server"
    start = bytes(((0x80 if fin else 0) | opcode, mark | (0x80 if masked else 0)))
    length = size.to_bytes(width, "big") if width else b""
    return start + length + (bytes(4) if masked else b"")


# -- Lengths -----------------------------------------------------------------


@every_end
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
@pytest.mark.parametrize(
    ("width", "size", "code"),
    [
        pytest.param(8, 2**63, 1002, id="top bit"),
        pytest.param(8, 2**63 + LIMIT, 1002, id="top bit and little else"),
        pytest.param(8, 2**64 - 1, 1002, id="all bits"),
        pytest.param(8, _LARGEST, 1009, id="the largest"),
        pytest.param(8, 2**32, 1009, id="over 32 bits"),
        pytest.param(8, 65_536, 1009, id="over the limit in 8 bytes"),
        pytest.param(2, LIMIT + 1, 1009, id="over the limit by one"),
        pytest.param(2, 125, 1002, id="125 in 2 bytes"),
        pytest.param(2, 0, 1002, id="0 in 2 bytes"),
        pytest.param(8, 65_535, 1002, id="65535 in 8 bytes"),
        pytest.param(8, 125, 1002, id="125 in 8 bytes"),
        pytest.param(8, 0, 1002, id="0 in 8 bytes"),
    ],
)
def test_lengths(kind: str, opcode: int, width: int, size: int, code: int) -> None:
    error = syncws.ProtocolError if code == 1002 else syncws.PayloadTooBigError
    with attacked(kind, max_message_size=LIMIT, peak=512 * KIB) as victim:
        victim.peer.send_bytes(header(victim, opcode, width, size))
        victim.fails(code, error)


@every_end
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_a_length_allocates_little_where_there_is_no_limit(kind: str, opcode: int) -> None:
    # A MiB is made room for at once, and not touched before it comes; for the first
    # large message of a process the allocator is told of four, once.
    with attacked(kind, max_message_size=None, peak=6 * 1024 * KIB) as victim:
        victim.peer.send_bytes(header(victim, opcode, 8, _LARGEST) + b"abcd")
        victim.others.served()
        victim.peer.abort()
        victim.closes(1006)


@every_end
@pytest.mark.parametrize("size", [LIMIT, _LARGEST])
def test_lengths_of_fragments_are_summed_up(kind: str, size: int) -> None:
    with attacked(kind, max_message_size=LIMIT, peak=512 * KIB) as victim:
        victim.peer.send(BINARY, b"x", fin=False)
        victim.peer.send_bytes(header(victim, CONT, 2 if size == LIMIT else 8, size))
        victim.fails(1009, syncws.PayloadTooBigError)


@every_end
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG], ids=["close", "ping", "pong"])
@pytest.mark.parametrize(("width", "size"), [(2, 126), (2, 5), (8, 65_536), (8, _LARGEST)])
def test_control_frames_are_short(kind: str, opcode: int, width: int, size: int) -> None:
    with attacked(kind, peak=512 * KIB) as victim:
        victim.peer.send_bytes(header(victim, opcode, width, size))
        victim.fails(1002, syncws.ProtocolError)


# -- Bits --------------------------------------------------------------------


@every_end
@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("name", _OPCODES)
def test_reserved_bits(kind: str, name: str, rsv: int) -> None:
    with attacked(kind) as victim:
        if name == "continuation":
            victim.peer.send(BINARY, b"x", fin=False)
        victim.peer.send(_OPCODES[name], b"", rsv=rsv)
        victim.fails(1002, syncws.ProtocolError)


@every_end
@pytest.mark.parametrize(
    ("name", "rsv"),
    [
        (name, rsv)
        for name in _OPCODES
        for rsv in range(1, 8)
        if rsv != 4 or name not in ("text", "binary")
    ],
)
def test_reserved_bits_that_compression_does_not_need(kind: str, name: str, rsv: int) -> None:
    with attacked(kind, deflate=True) as victim:
        if name == "continuation":
            victim.peer.send(BINARY, b"x", fin=False)
        victim.peer.send(_OPCODES[name], b"", rsv=rsv)
        victim.fails(1002, syncws.ProtocolError)


@every_end
@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_reserved_opcodes(kind: str, opcode: int) -> None:
    with attacked(kind) as victim:
        victim.peer.send(opcode, b"x")
        victim.fails(1002, syncws.ProtocolError)


@every_end
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG], ids=["close", "ping", "pong"])
def test_fragments_of_control_frames(kind: str, opcode: int) -> None:
    with attacked(kind) as victim:
        victim.peer.send(opcode, fin=False)
        victim.fails(1002, syncws.ProtocolError)


@every_end
@pytest.mark.parametrize("within", [False, True], ids=["alone", "within a message"])
def test_fragments_of_nothing_and_of_two_messages(kind: str, within: bool) -> None:
    with attacked(kind) as victim:
        if within:
            victim.peer.send(TEXT, b"x", fin=False)
        victim.peer.send(TEXT if within else CONT, b"y")
        victim.fails(1002, syncws.InvalidContinuationFrameError)


# -- Masks -------------------------------------------------------------------


@every_end
@pytest.mark.parametrize("size", [0, 5, 126, 65_536])
@pytest.mark.parametrize("name", _OPCODES)
def test_frames_with_the_wrong_mask(kind: str, name: str, size: int) -> None:
    opcode = _OPCODES[name]
    size = min(size, 125) if opcode >= CLOSE else size
    with attacked(kind) as victim:
        if name == "continuation":
            victim.peer.send(BINARY, b"x", fin=False)
        payload = close_payload(1000) if opcode == CLOSE else bytes(size)
        with suppress(ConnectionError):  # a header says it all
            victim.peer.send(opcode, payload, masked=kind != "server")
        victim.fails(1002, syncws.ProtocolError)


@pytest.fixture(params=["in use", "in Python"])
def way_to_frame(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How frames are written: what is in use here, maybe in C, and without that."""
    if request.param == "in Python":
        monkeypatch.setattr(encoder_module, "frame", plain.frame)
    return request.param


class _Keys(RawPeer):
    """Notes the masking key of each frame that it reads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keys: list[bytes] = []

    def read_key(self) -> bytes:
        """Read a frame, of which only the key counts."""
        head = self._take(2)
        size = head[1] & 0x7F
        if size > 125:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        assert head[1] & 0x80
        key = self._take(4)
        self._take(size)
        self.keys.append(key)
        return key


def _send_each(client: syncws.Client) -> int:
    """Send one frame of each kind, and of several sizes; return how many."""
    client.send_text("hello")
    client.send_binary(bytes(200))
    client.send_binary(bytes(70_000))
    client.send_text("first", final=False)
    client.send_text("last")
    client.ping(b"well?")
    client.pong(b"well")
    return 7


def test_our_masks_are_what_the_system_gives(
    way_to_frame: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bytes] = []
    with open_pair(compression=False, ping_interval=None) as (client, peer):
        keys = _Keys(peer.sock, client=False)
        real = os.urandom

        def urandom(size: int) -> bytes:
            given.append(real(size))
            return given[-1]

        monkeypatch.setattr(os, "urandom", urandom)
        sent = _send_each(client)
        client.close(timeout=0)
        for _ in range(sent + 1):
            keys.read_key()
    monkeypatch.undo()
    ours = iter(given)
    assert all(key in ours for key in keys.keys)  # in this order, and none twice


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflated"])
def test_our_masks_are_never_the_same(way_to_frame: str, deflate: bool) -> None:
    answer = (
        (
            "Sec-WebSocket-Extensions: permessage-deflate"
            "; server_max_window_bits=12; client_max_window_bits=12",
        )
        if deflate
        else ()
    )
    with open_pair(answer=answer, compression=deflate, ping_interval=None) as (client, peer):
        keys = _Keys(peer.sock, client=False)
        for _ in range(100):
            for _ in range(_send_each(client)):
                keys.read_key()
        # Of 700 keys of 32 bits two are the same once in 17,000 runs; three, never.
        assert len(keys.keys) == 700
        assert len(set(keys.keys)) >= 699


def test_pongs_that_we_send_by_ourselves_are_masked_afresh() -> None:
    with open_pair(compression=False, ping_interval=None) as (_, peer):
        keys = _Keys(peer.sock, client=False)
        for _ in range(100):
            peer.send(PING, b"well?")
            keys.read_key()
        assert len(set(keys.keys)) >= 99


def test_a_server_masks_nothing() -> None:
    class Talker(Recorder):
        def on_text(self, caller: Any, text: str) -> None:
            _send_each(caller)
            caller.close(timeout=0)

    talker = Talker(syncws.ServiceConfig(ping_interval=None, compression=False))
    with listening(talker) as listener, RawPeer.connect(listener) as peer:
        peer.text("now")
        while (got := peer.read()).opcode != CLOSE:
            assert not got.masked
        assert not got.masked


def test_the_extension_writes_the_key_it_is_given() -> None:
    for way in {kernels.frame, plain.frame}:
        written = {way(0x82, b"abcd", os.urandom(4)) for _ in range(100)}
        assert len(written) >= 99
        assert all(struct.unpack("!BB", data[:2]) == (0x82, 0x84) for data in written)


# -- Closes ------------------------------------------------------------------


@every_end
@pytest.mark.parametrize(
    "code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]
)
def test_close_codes_that_must_not_be_sent(kind: str, code: int) -> None:
    with attacked(kind) as victim:
        victim.peer.close_frame(code)
        victim.fails(1002, syncws.ProtocolError)


@every_end
@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_close_codes_that_may_be_sent(kind: str, code: int) -> None:
    with attacked(kind) as victim:
        victim.peer.close_frame(code, "because")
        victim.peer.expect_close(code)
        victim.peer.abort()
        victim.closes(code, "because")


@every_end
@pytest.mark.parametrize(
    ("payload", "code", "error"),
    [
        (b"\x03", 1002, syncws.ProtocolError),
        (close_payload(1000) + b"\xff", 1007, syncws.InvalidPayloadError),
        (close_payload(1000) + b"\xed\xa0\x80", 1007, syncws.InvalidPayloadError),
        (close_payload(1000) + b"\xe2\x82", 1007, syncws.InvalidPayloadError),
    ],
    ids=["half a code", "no UTF-8", "surrogate", "truncated"],
)
def test_close_frames_that_are_malformed(
    kind: str, payload: bytes, code: int, error: type[syncws.WebSocketError]
) -> None:
    with attacked(kind) as victim:
        victim.peer.send(CLOSE, payload)
        victim.fails(code, error)


@every_end
@pytest.mark.parametrize("at_once", [True, False], ids=["in one write", "after the answer"])
@pytest.mark.parametrize(
    "what", ["messages", "pings", "a second close", "a bad frame", "no frames", "a flood"]
)
def test_data_after_close_is_ignored(kind: str, what: str, at_once: bool) -> None:
    with attacked(kind) as victim:
        peer = victim.peer
        more = {
            "messages": victim.frame(TEXT, b"ignored") * 3,
            "pings": victim.frame(PING, b"ignored") * 3,
            "a second close": victim.frame(CLOSE, close_payload(4001)),
            "a bad frame": victim.frame(0x3, rsv=7),
            "no frames": b"GET / HTTP/1.1\r\n\r\n",
            "a flood": victim.frame(BINARY, bytes(60_000)) * 20,
        }[what]
        close = victim.frame(CLOSE, close_payload(4000))
        if at_once:
            peer.send_bytes(close + more)
            peer.expect_close(4000)
        else:
            peer.send_bytes(close)
            peer.expect_close(4000)
            with suppress(ConnectionError):  # the other end may be gone
                peer.send_bytes(more)
        if kind == "server":
            peer.expect_end()
        peer.end_writing()
        peer.expect_end()
        victim.closes(4000)


# -- Floods ------------------------------------------------------------------


@every_end
@pytest.mark.parametrize("opcode", [PING, PONG], ids=["pings", "pongs"])
def test_a_flood_from_a_peer_that_does_not_read(kind: str, opcode: int) -> None:
    flood = 200
    with attacked(
        kind,
        service=Deaf(),
        receive_buffer=4096,
        send_buffer_size=20_000,
        peak=1024 * KIB,
    ) as victim:
        many = victim.frame(opcode, bytes(125)) * flood
        for _ in range(200):
            victim.peer.send_bytes(many)  # 5 MB; it is read all the while
        victim.peer.text("all read")
        victim.receives("all read")
        endpoint = victim.client
        assert endpoint is None or endpoint.buffered_amount < 20_200
        victim.others.served()


@every_end
def test_a_flood_of_pings_is_answered_while_the_peer_reads(kind: str) -> None:
    with attacked(kind) as victim:
        for turn in range(100):
            batch = [b"%d %d" % (turn, number) for number in range(50)]
            victim.peer.send_bytes(b"".join(victim.frame(PING, data) for data in batch))
            answers: list[bytes] = []
            while not answers or answers[-1] != batch[-1]:
                answers.append(victim.peer.expect(PONG))
            # Each at most once, in order; RFC 6455 section 5.5.3 lets us leave some out.
            assert [data for data in batch if data in set(answers)] == answers
        victim.peer.text("still here")
        victim.receives("still here")


@every_end
def test_a_flood_of_pings_within_a_message(kind: str) -> None:
    with attacked(kind) as victim:
        victim.peer.send(TEXT, b"he", fin=False)
        for _ in range(100):
            victim.peer.round_trip()
        victim.peer.send(CONT, b"llo")
        victim.receives("hello")
