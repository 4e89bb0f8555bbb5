"""Our listener and our client against other libraries' clients and servers.

A scenario has two ends, `Ours` and `Theirs`, and does not care which of them is
the server. There is one adapter for each library; all their calls block.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import aiohttp
import aiohttp.web
import pytest
import websocket
import websockets.asyncio.client
import websockets.asyncio.server
import websockets.sync.client
import websockets.sync.server

import syncws
from tests.support import HANG

T = TypeVar("T")
Message = str | bytes

# What does not compress grows a little on the wire, where websockets measures it.
THEIR_MAX_SIZE = 1 << 21

NOISE = random.Random(1).randbytes(1 << 20)
MESSAGES: dict[str, Message] = {
    "text": "hello",
    "text of other scripts": "Grüße, привет, 你好, 🐍",
    "empty text": "",
    "empty binary": b"",
    "binary": bytes(range(256)),
    "a size of 16 bits": b"\x00\xff" * 32_767,
    "a size of 64 bits": "ж" * 32_768,
    "1 MiB that compress": b"\x01" * (1 << 20),
    "1 MiB that do not": NOISE,
    "text once more": "the same compressor goes on",
}


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),), name="peers")

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._started.set()
        await self._stop.wait()

    def __enter__(self) -> Loop:
        self._thread.start()
        assert self._started.wait(HANG)
        return self

    def __exit__(self, *exc: object) -> None:
        self.call(self._stop.set)
        self._thread.join(HANG)

    def call(self, function: Callable[..., object], *args: object) -> None:
        self._loop.call_soon_threadsafe(function, *args)

    def run(self, function: Callable[..., Awaitable[T]], *args: object, **options: Any) -> T:
        """Await `function(...)` in the loop."""

        async def main() -> T:
            return await function(*args, **options)

        return asyncio.run_coroutine_threadsafe(main(), self._loop).result(HANG)


# -- Their ends ------------------------------------------------------


class Theirs:
    """A connection of another library."""

    #: What was agreed on in the handshake.
    subprotocol: str | None
    deflates: bool

    def send(self, message: Message) -> None:
        raise NotImplementedError

    def send_fragments(self, parts: Sequence[Message]) -> None:
        raise NotImplementedError

    def receive(self) -> Message:
        """Take the next message; answer pings until it comes."""
        raise NotImplementedError

    def ping(self, data: bytes) -> None:
        """Send a ping and wait for its pong."""
        raise NotImplementedError

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and wait for the answer."""
        raise NotImplementedError

    def wait_closed(self) -> tuple[int, str]:
        """Answer our close frame; return what it says."""
        raise NotImplementedError


class WebsocketsSync(Theirs):
    def __init__(self, ws: Any) -> None:
        self._ws = ws
        self.subprotocol = ws.subprotocol
        self.deflates = bool(ws.protocol.extensions)

    def send(self, message: Message) -> None:
        self._ws.send(message)

    def send_fragments(self, parts: Sequence[Message]) -> None:
        self._ws.send(iter(parts))

    def receive(self) -> Message:
        return self._ws.recv(timeout=HANG)

    def ping(self, data: bytes) -> None:
        assert self._ws.ping(data).wait(HANG)

    def close(self, code: int, reason: str) -> None:
        self._ws.close(code, reason)

    def wait_closed(self) -> tuple[int, str]:
        with pytest.raises(websockets.ConnectionClosed) as caught:
            self._ws.recv(timeout=HANG)
        assert caught.value.rcvd_then_sent
        return caught.value.rcvd.code, caught.value.rcvd.reason


class WebsocketsAsyncio(Theirs):
    def __init__(self, loop: Loop, ws: Any) -> None:
        self._loop = loop
        self._ws = ws
        self.subprotocol = ws.subprotocol
        self.deflates = bool(ws.protocol.extensions)

    def send(self, message: Message) -> None:
        self._loop.run(self._ws.send, message)

    def send_fragments(self, parts: Sequence[Message]) -> None:
        self._loop.run(self._ws.send, iter(parts))

    def receive(self) -> Message:
        return self._loop.run(self._ws.recv)

    def ping(self, data: bytes) -> None:
        async def ping() -> None:
            await (await self._ws.ping(data))

        self._loop.run(ping)

    def close(self, code: int, reason: str) -> None:
        self._loop.run(self._ws.close, code, reason)

    def wait_closed(self) -> tuple[int, str]:
        with pytest.raises(websockets.ConnectionClosed) as caught:
            self._loop.run(self._ws.recv)
        assert caught.value.rcvd_then_sent
        return caught.value.rcvd.code, caught.value.rcvd.reason


class Aiohttp(Theirs):
    """Without its autoping, which hides pongs."""

    def __init__(self, loop: Loop, ws: Any, subprotocol: str | None) -> None:
        self._loop = loop
        self._ws = ws
        self.subprotocol = subprotocol
        self.deflates = bool(ws.compress)

    def send(self, message: Message) -> None:
        send = self._ws.send_str if isinstance(message, str) else self._ws.send_bytes
        self._loop.run(send, message)

    def receive(self) -> Message:
        while (message := self._receive()).type is aiohttp.WSMsgType.PING:
            self._loop.run(self._ws.pong, message.data)
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        return message.data

    def _receive(self) -> Any:
        return self._loop.run(self._ws.receive)

    def ping(self, data: bytes) -> None:
        self._loop.run(self._ws.ping, data)
        message = self._receive()
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, data)

    def close(self, code: int, reason: str) -> None:
        self._loop.run(self._ws.close, code=code, message=reason.encode())

    def wait_closed(self) -> tuple[int, str]:
        message = self._receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        return message.data, message.extra


class WebsocketClient(Theirs):
    deflates = False

    def __init__(self, ws: Any) -> None:
        self._ws = ws
        self.subprotocol = ws.getsubprotocol()

    def send(self, message: Message) -> None:
        send = self._ws.send_text if isinstance(message, str) else self._ws.send_bytes
        send(message)

    def send_fragments(self, parts: Sequence[Message]) -> None:
        abnf = websocket.ABNF
        opcode = abnf.OPCODE_TEXT if isinstance(parts[0], str) else abnf.OPCODE_BINARY
        for number, part in enumerate(parts, 1):
            data = part.encode() if isinstance(part, str) else part
            self._ws.send_frame(abnf.create_frame(data, opcode, int(number == len(parts))))
            opcode = abnf.OPCODE_CONT

    def receive(self) -> Message:
        return self._ws.recv()

    def ping(self, data: bytes) -> None:
        self._ws.ping(data)
        assert self._ws.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, data)

    def close(self, code: int, reason: str) -> None:
        self._ws.close(code, reason.encode(), timeout=HANG)

    def wait_closed(self) -> tuple[int, str]:
        opcode, data = self._ws.recv_data()
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        self._ws.shutdown()
        return int.from_bytes(data[:2], "big"), data[2:].decode()


@dataclass(frozen=True)
class Options:
    """What an end is to be opened with; a client's `ssl` trusts, a server's is trusted."""

    ssl: ssl.SSLContext | None
    deflate: bool
    subprotocols: Sequence[str]


def connect_websockets_sync(stack: contextlib.ExitStack, url: str, options: Options) -> Theirs:
    ws = websockets.sync.client.connect(
        url,
        ssl=options.ssl,
        compression="deflate" if options.deflate else None,
        subprotocols=options.subprotocols or None,
        max_size=THEIR_MAX_SIZE,
        proxy=None,
    )
    return WebsocketsSync(stack.enter_context(ws))


def connect_websockets_asyncio(stack: contextlib.ExitStack, url: str, options: Options) -> Theirs:
    loop = stack.enter_context(Loop())

    async def connect() -> Any:
        return await websockets.asyncio.client.connect(
            url,
            ssl=options.ssl,
            compression="deflate" if options.deflate else None,
            subprotocols=options.subprotocols or None,
            max_size=THEIR_MAX_SIZE,
            proxy=None,
        )

    ws = loop.run(connect)
    # Python 3.10 warns of a TLS transport that was not closed from this side.
    stack.callback(loop.call, ws.transport.close)
    stack.callback(loop.run, ws.close)
    return WebsocketsAsyncio(loop, ws)


def connect_aiohttp(stack: contextlib.ExitStack, url: str, options: Options) -> Theirs:
    loop = stack.enter_context(Loop())

    async def open_session() -> Any:
        return aiohttp.ClientSession()

    session = loop.run(open_session)
    stack.callback(loop.run, session.close)
    ws = loop.run(
        session.ws_connect,
        url,
        ssl=options.ssl or True,
        compress=15 if options.deflate else 0,
        protocols=options.subprotocols,
        autoping=False,
    )
    stack.callback(loop.run, ws.close)
    return Aiohttp(loop, ws, ws.protocol)


def connect_websocket_client(stack: contextlib.ExitStack, url: str, options: Options) -> Theirs:
    ws = websocket.create_connection(
        url,
        timeout=HANG,
        sslopt={"context": options.ssl} if options.ssl else None,
        subprotocols=list(options.subprotocols) or None,
    )
    stack.callback(ws.shutdown)
    stack.callback(ws.close)
    return WebsocketClient(ws)


# Servers return their port, and where their ends of connections come up.
Served = tuple[int, "SimpleQueue[Theirs]"]


def serve_websockets_sync(stack: contextlib.ExitStack, options: Options) -> Served:
    accepted: SimpleQueue[Theirs] = SimpleQueue()
    done = threading.Event()

    def handle(ws: Any) -> None:
        accepted.put(WebsocketsSync(ws))
        done.wait()

    server = websockets.sync.server.serve(
        handle,
        "127.0.0.1",
        0,
        ssl=options.ssl,
        compression="deflate" if options.deflate else None,
        subprotocols=options.subprotocols or None,
        max_size=THEIR_MAX_SIZE,
    )
    thread = threading.Thread(target=server.serve_forever, name="peers")
    thread.start()
    for end in (server.shutdown_watcher, server.shutdown_notifier):
        if isinstance(end, int):  # before version 17 a pipe that it leaves open
            stack.callback(os.close, end)
    stack.callback(thread.join, HANG)
    stack.callback(server.shutdown)
    stack.callback(done.set)
    return server.socket.getsockname()[1], accepted


def serve_websockets_asyncio(stack: contextlib.ExitStack, options: Options) -> Served:
    accepted: SimpleQueue[Theirs] = SimpleQueue()
    loop = stack.enter_context(Loop())

    async def handle(ws: Any) -> None:
        accepted.put(WebsocketsAsyncio(loop, ws))
        await ws.wait_closed()

    async def serve() -> Any:
        return await websockets.asyncio.server.serve(
            handle,
            "127.0.0.1",
            0,
            ssl=options.ssl,
            compression="deflate" if options.deflate else None,
            subprotocols=options.subprotocols or None,
            max_size=THEIR_MAX_SIZE,
        )

    server = loop.run(serve)
    stack.callback(loop.run, server.wait_closed)
    stack.callback(loop.call, server.close)
    return server.sockets[0].getsockname()[1], accepted


def serve_aiohttp(stack: contextlib.ExitStack, options: Options) -> Served:
    accepted: SimpleQueue[Theirs] = SimpleQueue()
    loop = stack.enter_context(Loop())
    done: list[asyncio.Event] = []

    async def handle(request: Any) -> Any:
        ws = aiohttp.web.WebSocketResponse(
            protocols=options.subprotocols, compress=options.deflate, autoping=False
        )
        await ws.prepare(request)
        accepted.put(Aiohttp(loop, ws, ws.ws_protocol))
        await done[0].wait()
        return ws

    async def serve() -> Any:
        done.append(asyncio.Event())
        app = aiohttp.web.Application()
        app.router.add_get("/", handle)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0, ssl_context=options.ssl).start()
        return runner

    runner = loop.run(serve)
    stack.callback(loop.run, runner.cleanup)
    stack.callback(loop.call, done[0].set)
    return runner.addresses[0][1], accepted


@dataclass(frozen=True)
class Peer:
    """Another library in one role.

    Attributes:
        name: For the test's name.
        connect: Opens its client.
        serve: Opens its server.
        deflates: Whether it knows permessage-deflate.
        fragments: Whether it sends fragments.
        tls: Whether it does TLS reliably.
    """

    name: str
    connect: Callable[[contextlib.ExitStack, str, Options], Theirs] | None = None
    serve: Callable[[contextlib.ExitStack, Options], Served] | None = None
    deflates: bool = True
    fragments: bool = True
    tls: bool = True

    def __str__(self) -> str:
        return self.name


# Two threads of websockets.sync read and write one SSL object, which nothing
# guards in many Pythons: a few of a thousand clients never get a byte out,
# whoever listens, and memory may be damaged.
PEERS = (
    Peer("websockets client", connect_websockets_sync, tls=False),
    Peer("websockets asyncio client", connect_websockets_asyncio),
    Peer("aiohttp client", connect_aiohttp, fragments=False),
    Peer("websocket-client", connect_websocket_client, deflates=False),
    Peer("websockets server", serve=serve_websockets_sync, tls=False),
    Peer("websockets asyncio server", serve=serve_websockets_asyncio),
    Peer("aiohttp server", serve=serve_aiohttp, fragments=False),
)


# -- Our ends --------------------------------------------------------


class Recorder(syncws.Service):
    """Keeps what its callbacks get."""

    def __init__(self) -> None:
        self.opened: SimpleQueue[syncws.Caller] = SimpleQueue()
        self.messages: SimpleQueue[Any] = SimpleQueue()
        self.pongs: SimpleQueue[bytes] = SimpleQueue()
        self.closed: SimpleQueue[tuple[int, str]] = SimpleQueue()

    def on_text(self, caller: object, text: str) -> None:
        self.messages.put(text)

    def on_binary(self, caller: object, data: bytes) -> None:
        self.messages.put(data)

    def on_pong(self, caller: object, data: bytes) -> None:
        self.pongs.put(data)

    def on_close(self, caller: object, status_code: int, reason: str) -> None:
        self.closed.put((status_code, reason))


class Fragments(Recorder):
    """Keeps frames, not messages."""

    def on_text(self, caller: object, text: str, final: bool) -> None:
        self.messages.put((text, final))

    def on_binary(self, caller: object, data: bytes, final: bool) -> None:
        self.messages.put((data, final))


class Opened:
    """Of a listener's service only."""

    opened: SimpleQueue[syncws.Caller]

    def on_open(self, caller: syncws.Caller) -> None:
        self.opened.put(caller)


class ServedRecorder(Opened, Recorder):
    pass


class ServedFragments(Opened, Fragments):
    pass


class Ours:
    """A `Caller` or a `Client`: with a service, or else a client that receives."""

    def __init__(self, endpoint: Any, recorder: Recorder | None) -> None:
        self.endpoint = endpoint
        self.recorder = recorder

    def send(self, message: Message) -> None:
        if isinstance(message, str):
            self.endpoint.send_text(message)
        else:
            self.endpoint.send_binary(message)

    def receive(self) -> Any:
        if self.recorder is not None:
            return self.recorder.messages.get(timeout=HANG)
        return self.endpoint.receive(timeout=HANG)

    def wait_closed(self) -> tuple[int, str]:
        """Return the status code and reason of their close frame."""
        if self.recorder is not None:
            return self.recorder.closed.get(timeout=HANG)
        with pytest.raises(syncws.ConnectionClosed) as caught:
            self.endpoint.receive(timeout=HANG)
        assert caught.value.received is not None
        return caught.value.received


Meet = Callable[..., tuple[Ours, Theirs]]


@pytest.fixture
def meet(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> Iterator[Meet]:
    """Connect an end of ours to one of a peer's; both are closed behind the test."""
    with contextlib.ExitStack() as stack:
        yield partial(_meet, stack, server_tls, client_tls)


def _meet(
    stack: contextlib.ExitStack,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    peer: Peer,
    *,
    blocking: bool = False,
    streamed: bool = False,
    tls: bool = False,
    trusting: ssl.SSLContext | None = None,
    deflate: tuple[bool, bool] = (True, True),
    subprotocols: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> tuple[Ours, Theirs]:
    """Pairs are ours, theirs; `trusting` is the client's context if it is not to trust us."""
    server_ssl = server_tls if tls else None
    client_ssl = (trusting or client_tls) if tls else None
    scheme = "wss" if tls else "ws"
    options = Options(server_ssl if peer.serve else client_ssl, deflate[1], subprotocols[1])
    recorder: Recorder | None = None
    if peer.serve is not None:
        port, accepted = peer.serve(stack, options)
        if not blocking:
            recorder = Fragments() if streamed else Recorder()
        client = syncws.Client(
            f"{scheme}://localhost:{port}/",
            service=recorder,
            ssl=client_ssl,
            compression=deflate[0],
            subprotocols=subprotocols[0],
        )
        stack.enter_context(client)
        theirs = accepted.get(timeout=HANG)
        # Not by our end, whose close frame aiohttp answers only in its receive.
        stack.callback(theirs.close, 1000, "")
        return Ours(client, recorder), theirs
    assert peer.connect is not None
    recorder = ServedFragments() if streamed else ServedRecorder()
    recorder.config = syncws.ServiceConfig(compression=deflate[0], subprotocols=subprotocols[0])
    listener = stack.enter_context(syncws.Listener(0, ssl=server_ssl))
    listener.attach("/", recorder)
    theirs = peer.connect(stack, f"{scheme}://localhost:{listener.port}/", options)
    return Ours(recorder.opened.get(timeout=HANG), recorder), theirs


# -- Scenarios -------------------------------------------------------


def ends(peers: Sequence[Peer]) -> list[tuple[Peer, bool]]:
    """Pair each peer with whether our end receives, which that of a listener cannot."""
    return [
        (peer, blocking)
        for peer in peers
        for blocking in ((False, True) if peer.serve else (False,))
    ]


def name_of(peer: Peer, blocking: bool, tls: bool = False) -> str:
    return f"{peer}{', receive' if blocking else ''}{', tls' if tls else ''}"


def each_end(peers: Sequence[Peer] = PEERS) -> Any:
    return pytest.mark.parametrize(
        ("peer", "blocking"), [pytest.param(*end, id=name_of(*end)) for end in ends(peers)]
    )


each_end_and_transport = pytest.mark.parametrize(
    ("peer", "blocking", "tls"),
    [
        pytest.param(*end, tls, id=name_of(*end, tls))
        for end in ends(PEERS)
        for tls in ((False, True) if end[0].tls else (False,))
    ],
)
each_peer = pytest.mark.parametrize("peer", PEERS, ids=str)
with_and_without_deflate = pytest.mark.parametrize("deflate", [True, False], ids=["deflate", "raw"])
FRAGMENTING = [peer for peer in PEERS if peer.fragments]


@with_and_without_deflate
@each_end_and_transport
def test_messages_go_both_ways(
    meet: Meet, peer: Peer, blocking: bool, deflate: bool, tls: bool
) -> None:
    ours, theirs = meet(peer, blocking=blocking, tls=tls, deflate=(deflate, deflate))
    assert theirs.deflates is (deflate and peer.deflates)
    assert ours.endpoint.is_secure is tls
    for name, message in MESSAGES.items():
        theirs.send(message)
        # Outside the assert, which would compare a MiB in detail.
        same = ours.receive() == message
        assert same, f"{name}, to us"
        ours.send(message)
        same = theirs.receive() == message
        assert same, f"{name}, from us"


@pytest.mark.parametrize("ours_wants", [True, False])
@pytest.mark.parametrize("theirs_want", [True, False])
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.deflates], ids=str)
def test_compression_takes_both_ends(
    meet: Meet, peer: Peer, ours_wants: bool, theirs_want: bool
) -> None:
    ours, theirs = meet(peer, deflate=(ours_wants, theirs_want))
    agreed = ours_wants and theirs_want
    assert theirs.deflates is agreed
    if peer.serve:
        answer = ours.endpoint.response.headers.get("Sec-WebSocket-Extensions", "")
        assert answer.startswith("permessage-deflate") is agreed
    theirs.send("ж" * 1000)
    assert ours.receive() == "ж" * 1000


@with_and_without_deflate
@each_end(FRAGMENTING)
@pytest.mark.parametrize(
    "parts", [("Gr", "üß", "e"), (b"\x00", NOISE[:70_000], b"", b"\xff")], ids=["text", "binary"]
)
def test_their_fragments_become_a_message(
    meet: Meet, peer: Peer, blocking: bool, deflate: bool, parts: Sequence[Message]
) -> None:
    ours, theirs = meet(peer, blocking=blocking, deflate=(deflate, deflate))
    theirs.send_fragments(parts)
    whole = parts[0][:0].join(parts)  # type: ignore[arg-type]
    assert ours.receive() == whole
    theirs.send("next")
    assert ours.receive() == "next"


@with_and_without_deflate
@pytest.mark.parametrize("peer", FRAGMENTING, ids=str)
def test_their_fragments_come_one_by_one_if_asked_for(
    meet: Meet, peer: Peer, deflate: bool
) -> None:
    ours, theirs = meet(peer, streamed=True, deflate=(deflate, deflate))
    theirs.send_fragments(("Gr", "üß", "e"))
    received = []
    while not received or not received[-1][1]:
        received.append(ours.receive())
    # Some end a message with an empty fragment.
    assert [text for text, _ in received if text] == ["Gr", "üß", "e"]


@with_and_without_deflate
@each_peer
def test_our_fragments_become_a_message(meet: Meet, peer: Peer, deflate: bool) -> None:
    ours, theirs = meet(peer, deflate=(deflate, deflate))
    end = ours.endpoint
    end.send_text("Gr", final=False)
    end.ping(b"between")  # RFC 6455 section 5.4 allows it
    end.send_text("üß", final=False)
    end.send_text("e")
    assert theirs.receive() == "Grüße"
    end.send_binary(b"", final=False)
    end.send_binary(NOISE[:70_000], final=False)
    end.send_binary(b"")
    assert theirs.receive() == NOISE[:70_000]
    end.send_text("next")
    assert theirs.receive() == "next"
    assert ours.recorder is not None
    assert ours.recorder.pongs.get(timeout=HANG) == b"between"


@each_end()
def test_their_pings_are_answered(meet: Meet, peer: Peer, blocking: bool) -> None:
    _, theirs = meet(peer, blocking=blocking)
    theirs.ping(b"one")
    theirs.ping(b"x" * 125)


@each_peer
def test_our_pings_are_answered(meet: Meet, peer: Peer) -> None:
    ours, theirs = meet(peer)
    ours.endpoint.ping(b"one")
    ours.endpoint.ping(b"x" * 125)
    ours.send("behind them")
    assert theirs.receive() == "behind them"
    assert ours.recorder is not None
    pongs = [ours.recorder.pongs.get(timeout=HANG)]
    if pongs == [b"one"]:  # RFC 6455 section 5.5.3: only the latest must be answered
        pongs.append(ours.recorder.pongs.get(timeout=HANG))
    assert pongs[-1] == b"x" * 125


@each_end_and_transport
def test_they_close(meet: Meet, peer: Peer, blocking: bool, tls: bool) -> None:
    ours, theirs = meet(peer, blocking=blocking, tls=tls)
    theirs.send("last words")
    theirs.close(4001, "tschüß")
    assert ours.receive() == "last words"
    assert ours.wait_closed() == (4001, "tschüß")
    assert not ours.endpoint.is_open
    with pytest.raises(syncws.ConnectionClosed):
        ours.send("too late")


@each_end_and_transport
def test_we_close(meet: Meet, peer: Peer, blocking: bool, tls: bool) -> None:
    ours, theirs = meet(peer, blocking=blocking, tls=tls)
    ours.send(NOISE)
    ours.endpoint.close(4002, "tschüß", timeout=0)
    same = theirs.receive() == NOISE
    assert same, "what was sent before the close frame"
    assert theirs.wait_closed() == (4002, "tschüß")
    ours.endpoint.close(timeout=HANG)
    # Most send the code back; websocket-client says 1000.
    assert ours.wait_closed()[0] in (4002, 1000)


@each_peer
@pytest.mark.parametrize(
    ("wanted", "theirs_want", "chosen"),
    [(("xml", "json"), ("json", "cbor"), "json"), (("xml", "json"), (), None), ((), (), None)],
    ids=["one in common", "theirs knows none", "none"],
)
def test_a_subprotocol_is_agreed_on(
    meet: Meet,
    peer: Peer,
    wanted: Sequence[str],
    theirs_want: Sequence[str],
    chosen: str | None,
) -> None:
    ours, theirs = meet(peer, subprotocols=(wanted, theirs_want))
    assert ours.endpoint.subprotocol == theirs.subprotocol == chosen


@each_peer
def test_an_unknown_authority_is_refused(meet: Meet, peer: Peer) -> None:
    expected = syncws.ConnectError if peer.serve else Exception
    refused = r"(?i)certificate.verify.failed|its certificate was refused"
    with pytest.raises(expected, match=refused):
        meet(peer, tls=True, trusting=ssl.create_default_context())
