"""What both ends of a connection can do, and what they refuse before a byte is sent."""

from __future__ import annotations

import array
import itertools
import re
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import syncws
from syncws.endpoint import address_of
from tests.support import (
    BINARY,
    CLOSE,
    CONT,
    HANG,
    PING,
    PONG,
    TEXT,
    RawPeer,
    Recorder,
    Task,
    open_pair,
)


@pytest.fixture
def pair() -> Iterator[tuple[syncws.Client, RawPeer]]:
    """A client and the raw other end of its connection."""
    with open_pair(ping_interval=None, compression=False) as (client, peer):
        yield client, peer


Pair = tuple[syncws.Client, RawPeer]


def nothing_was_sent(pair: Pair) -> None:
    """The next frame is the one that is sent now, and the connection is open."""
    client, peer = pair
    assert client.is_open
    client.send_text("first")
    peer.expect(TEXT, "first")


# -- Messages ----------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "x", "ÄÖÜ €", "\x00\n", "𝄞" * 100, "x" * 125, "x" * 126])
def test_send_text(pair: Pair, text: str) -> None:
    client, peer = pair
    client.send_text(text)
    peer.expect(TEXT, text)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_send_binary(pair: Pair, kind: Any, size: int) -> None:
    client, peer = pair
    client.send_binary(kind(bytes(range(256)) * 257)[:size])
    peer.expect(BINARY, (bytes(range(256)) * 257)[:size])


def test_a_mutable_message_is_copied(pair: Pair) -> None:
    client, peer = pair
    data = bytearray(1_000_000)
    client.send_binary(data)
    data[:] = b"x" * len(data)
    peer.expect(BINARY, bytes(1_000_000))


def test_a_view_is_sent_as_its_bytes(pair: Pair) -> None:
    client, peer = pair
    client.send_binary(memoryview(array.array("H", [1, 2, 3])))
    peer.expect(BINARY, array.array("H", [1, 2, 3]).tobytes())
    client.send_binary(memoryview(b"abcdef")[::2])
    peer.expect(BINARY, b"ace")


def test_fragments(pair: Pair) -> None:
    client, peer = pair
    client.send_text("a", final=False)
    client.ping(b"between")
    client.send_text("", final=False)
    client.send_text("b", False)
    client.send_text("c")
    frames = [peer.read() for _ in range(5)]
    assert [(f.opcode, f.payload, f.fin) for f in frames] == [
        (TEXT, b"a", False),
        (PING, b"between", True),
        (CONT, b"", False),
        (CONT, b"b", False),
        (CONT, b"c", True),
    ]
    client.send_binary(b"whole")
    peer.expect(BINARY, b"whole")


def test_fragments_of_two_messages_do_not_mix(pair: Pair) -> None:
    client, peer = pair
    client.send_text("a", final=False)
    with pytest.raises(syncws.InvalidContinuationFrameError):
        client.send_binary(b"b")
    client.send_text("c")
    peer.expect(TEXT, "a")
    peer.expect(CONT, "c")


@pytest.mark.parametrize("value", [None, 1, ["x"], {"a": 1}])
def test_send_text_takes_a_str(pair: Pair, value: Any) -> None:
    with pytest.raises(TypeError, match="send_text takes a str, not") as caught:
        pair[0].send_text(value)
    assert ("None" if value is None else repr(value)) in str(caught.value)
    assert "send_json" in str(caught.value)
    nothing_was_sent(pair)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_text_as_bytes(pair: Pair, kind: Any) -> None:
    client, peer = pair
    client.send_text(kind("déjà".encode()))
    peer.expect(TEXT, "déjà")


@pytest.mark.parametrize("value", [b"\xff", b"ok\xc3", bytearray(b"\xed\xa0\x80")])
def test_bytes_that_are_no_utf8_are_no_text(pair: Pair, value: Any) -> None:
    with pytest.raises(ValueError, match="bytes that are UTF-8") as caught:
        pair[0].send_text(value)
    assert repr(bytes(value)) in str(caught.value)
    assert "send_binary takes any" in str(caught.value)
    nothing_was_sent(pair)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True], "ü": "é"}, '{"a":[1,2.5,null,true],"ü":"é"}'),
        ("text", '"text"'),
        (None, "null"),
        ([], "[]"),
    ],
)
def test_json(pair: Pair, value: Any, text: str) -> None:
    client, peer = pair
    client.send_json(value)
    peer.expect(TEXT, text)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"a": object()}, TypeError),
        (b"bytes", TypeError),
        (float("nan"), ValueError),
        ([float("inf")], ValueError),
        ("\ud800", ValueError),
    ],
)
def test_what_json_cannot_express_is_not_sent(
    pair: Pair, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        pair[0].send_json(value)
    nothing_was_sent(pair)


@pytest.mark.parametrize("value", ["text", None, 1, [1, 2]])
def test_send_binary_takes_bytes(pair: Pair, value: Any) -> None:
    with pytest.raises(TypeError, match="send_binary takes bytes, not") as caught:
        pair[0].send_binary(value)
    assert ("None" if value is None else repr(value)) in str(caught.value)
    nothing_was_sent(pair)


def test_surrogates_cannot_be_sent(pair: Pair) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        pair[0].send_text("\ud800")
    nothing_was_sent(pair)


def test_a_long_wrong_value_is_cut_in_the_message(pair: Pair) -> None:
    with pytest.raises(TypeError) as caught:
        pair[0].send_text(["x" * 10_000])  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


# -- Pings and pongs ---------------------------------------------------------


@pytest.mark.parametrize("name", ["ping", "pong"])
@pytest.mark.parametrize("data", [b"", b"x" * 125, bytearray(b"x"), memoryview(b"x")])
def test_ping_and_pong(pair: Pair, name: str, data: Any) -> None:
    client, peer = pair
    getattr(client, name)(data)
    peer.expect(PING if name == "ping" else PONG, bytes(data))


@pytest.mark.parametrize("name", ["ping", "pong"])
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("text", TypeError, "takes bytes, not str: 'text'"),
        (None, TypeError, "takes bytes, not None"),
        (3, TypeError, "takes bytes, not int: 3"),
        (b"x" * 126, ValueError, "up to 125 bytes, not 126"),
    ],
)
def test_wrong_pings_and_pongs(
    pair: Pair, name: str, value: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"{name} .*{re.escape(text)}"):
        getattr(pair[0], name)(value)
    nothing_was_sent(pair)


# -- close -------------------------------------------------------------------

SENDABLE = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]


@pytest.mark.parametrize("code", SENDABLE)
def test_codes_that_can_be_sent(pair: Pair, code: int) -> None:
    client, peer = pair
    client.close(code, "why", timeout=0)
    assert peer.expect_close() == (code, "why")


@pytest.mark.parametrize("code", [-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_536])
def test_codes_that_cannot_be_sent(pair: Pair, code: int) -> None:
    with pytest.raises(ValueError, match=f"status_code {code} cannot be sent"):
        pair[0].close(code)
    nothing_was_sent(pair)


@pytest.mark.parametrize("code", ["1000", None, 1000.0, True, b"1000"])
def test_codes_are_ints(pair: Pair, code: Any) -> None:
    with pytest.raises(TypeError, match="status_code must be an int") as caught:
        pair[0].close(code)
    assert ("None" if code is None else repr(code)) in str(caught.value)
    nothing_was_sent(pair)


def test_a_reason_has_123_bytes(pair: Pair) -> None:
    client, peer = pair
    with pytest.raises(ValueError, match="up to 123 bytes of UTF-8, not 124"):
        client.close(1000, "€" * 41 + "x")
    nothing_was_sent(pair)
    client.close(1000, "€" * 41, timeout=0)
    assert peer.expect_close() == (1000, "€" * 41)


@pytest.mark.parametrize("reason", [None, b"why", 3])
def test_a_reason_is_a_str(pair: Pair, reason: Any) -> None:
    with pytest.raises(TypeError, match="reason must be a str"):
        pair[0].close(1000, reason)
    nothing_was_sent(pair)


def test_a_reason_has_no_surrogates(pair: Pair) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        pair[0].close(1000, "\ud800")
    nothing_was_sent(pair)


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
def test_a_close_timeout_is_checked(pair: Pair, timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout"):
        pair[0].close(timeout=timeout)
    nothing_was_sent(pair)


def test_close_without_a_timeout_waits_for_close_timeout() -> None:
    with open_pair(close_timeout=0.1) as (client, peer):
        client.close(timeout=None)
        peer.expect_close(1000)
        peer.expect_end()


# -- After the end -----------------------------------------------------------


def test_nothing_is_sent_after_the_end(pair: Pair) -> None:
    client, peer = pair
    client.close(4000, "over", timeout=0)
    peer.expect_close(4000)
    peer.close_frame(4001, "yes")
    peer.abort()
    client.close()
    for send in (
        lambda: client.send_text("x"),
        lambda: client.send_binary(b"x"),
        client.ping,
        client.pong,
    ):
        with pytest.raises(syncws.ConnectionClosed) as caught:
            send()
        assert caught.value.sent == (4000, "over")
        assert caught.value.received == (4001, "yes")
        assert "received 4001 (yes), sent 4000 (over)" in str(caught.value)
    # What is wrong by itself is still told first.
    with pytest.raises(TypeError):
        client.send_text(1)  # type: ignore[arg-type]
    client.ready()
    assert not client.is_open
    assert client.buffered_amount == 0
    assert "closed" in repr(client)


def test_nothing_is_sent_while_it_closes(pair: Pair) -> None:
    client, peer = pair
    client.close(timeout=0)
    with pytest.raises(syncws.ConnectionClosed):
        client.send_text("x")
    peer.expect(CLOSE)


# -- Properties --------------------------------------------------------------


def test_properties(pair: Pair) -> None:
    client, peer = pair
    assert client.is_open
    assert client.is_secure is False
    assert client.subprotocol is None
    assert client.local_address == peer.sock.getpeername()
    assert client.remote_address == peer.sock.getsockname()
    assert client.buffered_amount == 0
    assert client.latency is None
    assert client.attributes is client.attributes
    client.attributes["key"] = "value"
    assert client.attributes == {"key": "value"}
    assert client.id == client.id
    assert client.id in repr(client)
    assert "open" in repr(client)


def test_ids_differ_and_are_one_for_all_threads() -> None:
    with open_pair() as (one, _), open_pair() as (two, _):
        assert one.id != two.id
        begin = threading.Barrier(4)
        seen: list[str] = []

        def look() -> None:
            begin.wait(HANG)
            seen.append(one.id)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
        assert len(seen) == 4
        assert set(seen) == {one.id}


def test_the_first_looks_of_two_threads_find_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = pair
    assert client._attributes is client.attributes
    inside, go_on = threading.Event(), threading.Event()
    made = itertools.count()

    def token_hex(size: int) -> str:
        number = next(made)
        inside.set()
        assert go_on.wait(HANG)
        return f"token {number}"

    monkeypatch.setattr(secrets, "token_hex", token_hex)
    first = Task(lambda: client.id)
    assert inside.wait(HANG)
    second = Task(lambda: client.id)
    go_on.set()
    assert first.result() == second.result() == client.id == "token 0"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("::1", 80, 0, 0), ("::1", 80)),
        ("/run/socket", "/run/socket"),
        ("", ""),
        (b"\0abstract", "\0abstract"),
    ],
)
def test_addresses_as_they_are_shown(raw: Any, shown: Any) -> None:
    assert address_of(raw) == shown


def test_a_service_can_keep_its_endpoint_in_a_set() -> None:
    service = Recorder()
    with open_pair(service=service) as (client, peer):
        peer.text("x")
        assert service.expect("on_text", "x") is client
        assert client in {client}
        assert not hasattr(client, "__dict__")
