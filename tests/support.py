"""What the tests of whole connections share: services that record, raw peers, TLS, processes.

Whatever waits here waits on a queue, an event or a socket, for `HANG` seconds
at most: long enough for any machine, so that it only runs out when something
hangs.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import logging
import os
import queue
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

import syncws

__all__ = [
    "BINARY",
    "CLOSE",
    "CONT",
    "HANG",
    "PING",
    "PONG",
    "QUIET",
    "TEXT",
    "Call",
    "Frame",
    "Gate",
    "RawPeer",
    "RawServer",
    "Recorder",
    "ServerRecorder",
    "Task",
    "broken_log",
    "client_tls",
    "close_payload",
    "frame",
    "interpreter",
    "listening",
    "news",
    "open_pair",
    "pass_time",
    "server_tls",
    "wait_until",
]

HANG = 20.0

# Seconds in which something that must not come would have come.
QUIET = 0.03

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_HEADER = b"sec-websocket-key:"
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_ROOT = Path(__file__).resolve().parents[1]


# -- Threads -----------------------------------------------------------------


class Task(threading.Thread):
    """A call in a thread of its own, and what came of it."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(name=f"task-{getattr(function, '__name__', 'call')}", daemon=True)
        self._call = functools.partial(function, *args, **kwargs)
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as exc:
            self._error = exc

    def wait(self) -> None:
        """Wait for the end, whatever it is."""
        self.join(HANG)
        assert not self.is_alive(), f"{self.name} hangs"

    def result(self) -> Any:
        """Return what the call returned, or raise what it raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._value

    def error(self) -> BaseException:
        """Return what the call raised."""
        self.wait()
        assert self._error is not None, f"{self.name} returned {self._value!r}"
        return self._error


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what no queue and no event tells of."""
    never = threading.Event()
    for _ in range(int(HANG / 0.002)):
        if condition():
            return
        never.wait(0.002)
    raise AssertionError("it never came")


def news(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what a server has logged beside the line that each connection ends with."""
    return [
        record
        for record in caplog.records
        if record.name == "syncws.server" and not record.msg.startswith("connection %s closed")
    ]


class Gate:
    """A place in a callback where it waits until the test lets it go on."""

    def __init__(self) -> None:
        self._reached: queue.Queue[None] = queue.Queue()
        self._opened = threading.Event()

    def block(self) -> None:
        """Say that we are here, and wait."""
        self._reached.put(None)
        assert self._opened.wait(HANG), "the gate was never opened"

    def reached(self) -> None:
        """Wait until someone is at the gate."""
        self._reached.get(timeout=HANG)

    def open(self) -> None:
        """Let everyone pass, from now on."""
        self._opened.set()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *exc: object) -> None:
        self.open()


@contextlib.contextmanager
def broken_log(name: str) -> Iterator[None]:
    """Have a filter of this logger raise until the block ends; logging does not protect from it."""

    def broken(record: logging.LogRecord) -> bool:
        raise RuntimeError("a broken filter")

    log = logging.getLogger(name)
    log.addFilter(broken)
    try:
        yield
    finally:
        log.removeFilter(broken)


# -- Services ----------------------------------------------------------------


class Call(NamedTuple):
    """One call of a callback."""

    name: str
    endpoint: Any
    args: tuple[Any, ...] = ()


class Recorder(syncws.Service):
    """Puts every callback with its arguments into `calls`.

    Without those that change what the connection does by being there: on_ping,
    on_idle_timeout, and on_open, which a client refuses.
    """

    def __init__(self, config: syncws.ServiceConfig | None = None) -> None:
        self.calls: queue.Queue[Call] = queue.Queue()
        if config is not None:
            self.config = config

    def record(self, name: str, endpoint: Any, *args: Any) -> None:
        """Note a call."""
        self.calls.put(Call(name, endpoint, args))

    def on_text(self, caller: Any, text: str) -> None:
        self.record("on_text", caller, text)

    def on_binary(self, caller: Any, data: bytes) -> None:
        self.record("on_binary", caller, data)

    def on_pong(self, caller: Any, data: bytes) -> None:
        self.record("on_pong", caller, data)

    def on_error(self, caller: Any, error: BaseException) -> None:
        self.record("on_error", caller, error)

    def on_close(self, caller: Any, status_code: int, reason: str) -> None:
        self.record("on_close", caller, status_code, reason)

    def next(self) -> Call:
        """Return the next call."""
        return self.calls.get(timeout=HANG)

    def expect(self, name: str, *args: Any) -> Any:
        """Return the endpoint of the next call, which is this one; without `args` any will do."""
        call = self.next()
        assert call.name == name, call
        if args:
            assert call.args == args
        return call.endpoint

    def quiet(self) -> None:
        """Assert that no call comes."""
        with contextlib.suppress(queue.Empty):
            raise AssertionError(f"unexpected: {self.calls.get(timeout=QUIET)}")


class ServerRecorder(Recorder):
    """The same with on_open."""

    def on_open(self, caller: syncws.Caller) -> None:
        self.record("on_open", caller)


@contextlib.contextmanager
def listening(
    service: syncws.Service | type[syncws.Service] | None = None, path: str = "/", **options: Any
) -> Iterator[syncws.Listener]:
    """A listener with one service, on a free port, until the block ends."""
    if "unix_path" not in options:
        options.setdefault("port", 0)
    listener = syncws.Listener(**options)
    if service is not None:
        listener.attach(path, service)
    with listener:
        yield listener


def pass_time(listener: syncws.Listener, seconds: float) -> None:
    """Have so much time gone by for a listener's engine, however long the test takes itself."""
    loop = listener._loop
    assert loop is not None
    clock = loop.clock
    loop.clock = lambda: clock() + seconds
    loop.call_soon(lambda: None)  # it sleeps by the time before


# -- Raw peers ---------------------------------------------------------------


class Frame(NamedTuple):
    """A frame as it was on the wire, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool = False


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """Return a frame's bytes; the mask is always the same."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + _xor(payload, key)


def _xor(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


def close_payload(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame."""
    return struct.pack("!H", code) + reason.encode()


class RawPeer:
    """One end of a WebSocket by hand, so that it can be hostile, silent or slow.

    Args:
        sock: A connected socket; owned from now on.
        client: Whether this end masks.
    """

    def __init__(self, sock: socket.socket, *, client: bool) -> None:
        sock.settimeout(HANG)
        self.sock = sock
        self._client = client
        self._buffer = b""
        self.head = b""  # the other end's part of the handshake

    @classmethod
    def dial(
        cls, target: syncws.Listener, *, receive_buffer: int | None = None, tls: bool = False
    ) -> RawPeer:
        """Connect to a listener, and say nothing yet."""
        address = target.addresses[0]
        if isinstance(address, str):
            sock = socket.socket(socket.AF_UNIX)
        else:
            sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(HANG)
        sock.connect(address)
        if tls:
            sock = client_tls().wrap_socket(sock, server_hostname="localhost")
        return cls(sock, client=True)

    @classmethod
    def connect(
        cls, target: syncws.Listener, path: str = "/", *headers: str, **options: Any
    ) -> RawPeer:
        """Connect to a listener and have the handshake accepted."""
        peer = cls.dial(target, **options)
        peer.send_bytes(cls.request(path, *headers))
        try:
            head = peer.read_head()
            assert head.startswith(b"HTTP/1.1 101 "), head
        except BaseException:
            peer.abort()
            raise
        return peer

    @staticmethod
    def request(path: str = "/", *headers: str, host: str = "localhost") -> bytes:
        """Return a handshake request."""
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {_KEY}",
            "Sec-WebSocket-Version: 13",
            *headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def answer(self, *headers: str, rest: bytes = b"") -> None:
        """Read a client's handshake request and accept it; `rest` comes in one write with that."""
        self.read_head()
        lines = [line for line in self.head.split(b"\r\n") if line[:18].lower() == _KEY_HEADER]
        key = lines[0].partition(b":")[2].strip()
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        response = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept}",
            *headers,
        ]
        self.send_bytes("\r\n".join([*response, "", ""]).encode() + rest)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def send(self, opcode: int, payload: bytes | str = b"", **options: Any) -> None:
        """Send one frame."""
        data = payload.encode() if isinstance(payload, str) else payload
        options.setdefault("masked", self._client)
        self.send_bytes(frame(opcode, data, **options))

    def text(self, *texts: str) -> None:
        """Send text messages in one write."""
        self.send_bytes(b"".join(frame(TEXT, t.encode(), masked=self._client) for t in texts))

    def drip(self, data: bytes, interval: float) -> bool:
        """Send a byte at a time; return whether the other end hung up before the last."""
        try:
            for byte in data:
                self.sock.settimeout(HANG)
                self.send_bytes(bytes([byte]))
                self.sock.settimeout(interval)
                with contextlib.suppress(TimeoutError):
                    if not self.sock.recv(65_536):
                        return True
        except ConnectionError:
            return True
        return False

    def close_frame(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame."""
        self.send(CLOSE, close_payload(code, reason))

    def read_head(self) -> bytes:
        """Return an HTTP head with its blank line."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.head = head + end
        return self.head

    def _more(self) -> None:
        data = self.sock.recv(65_536)
        if not data:
            raise EOFError(f"the connection ended with {self._buffer!r:.200} unread")
        self._buffer += data

    def _take(self, size: int) -> bytes:
        parts = [self._buffer]
        have = len(self._buffer)
        while have < size:
            data = self.sock.recv(min(1_048_576, max(65_536, size - have)))
            if not data:
                raise EOFError(f"the connection ended {size - have} bytes early")
            parts.append(data)
            have += len(data)
        whole = b"".join(parts)
        self._buffer = whole[size:]
        return whole[:size]

    def read(self) -> Frame:
        """Return the next frame."""
        first, second = self._take(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        masked = bool(second & 0x80)
        key = self._take(4) if masked else b""
        payload = self._take(size)
        return Frame(
            first & 0x0F,
            _xor(payload, key) if masked else payload,
            bool(first & 0x80),
            first >> 4 & 7,
            masked,
        )

    def expect(self, opcode: int, payload: bytes | str | None = None) -> bytes:
        """Return the payload of the next frame, which has this opcode."""
        got = self.read()
        assert got.opcode == opcode, got
        assert got.masked is not self._client
        if payload is not None:
            assert got.payload == (payload.encode() if isinstance(payload, str) else payload)
        return got.payload

    def expect_close(self, code: int | None = None) -> tuple[int, str]:
        """Return the code and the reason of the next frame, which is a close frame."""
        payload = self.expect(CLOSE)
        got = int.from_bytes(payload[:2], "big") if payload else 1005
        if code is not None:
            assert got == code, payload
        return got, payload[2:].decode()

    def expect_end(self) -> None:
        """Read the end of TCP, and nothing before it."""
        assert not self._buffer
        with contextlib.suppress(ConnectionResetError):
            assert self.sock.recv(1) == b""

    def round_trip(self) -> None:
        """Return once the other end has seen all that was sent: it has answered a ping."""
        data = os.urandom(4)
        self.send(PING, data)
        self.expect(PONG, data)

    def finish(self, code: int = 1000) -> None:
        """Close in order."""
        self.close_frame(code)
        self.expect_close(code)
        self.abort()

    def end_writing(self) -> None:
        """Send the end of TCP."""
        self.sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close the socket without a word."""
        self.sock.close()

    def reset(self) -> None:
        """Close the socket with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.abort()


class RawServer:
    """A listening socket whose connections the test serves by hand."""

    def __init__(self, *, receive_buffer: int | None = None, backlog: int = 16) -> None:
        self._opening: Task | None = None
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(backlog)
        self.sock.settimeout(HANG)
        self.port: int = self.sock.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/"

    def open_client(self, **options: Any) -> Task:
        """Open a client here, in a thread of its own; `accept` and `answer` it meanwhile."""

        def open_it() -> syncws.Client:
            try:
                return syncws.Client(self.url, **options)
            except BaseException:
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)  # wakes accept()
                raise

        self._opening = Task(open_it)
        return self._opening

    def accept(self) -> RawPeer:
        """Accept one connection."""
        try:
            sock, _ = self.sock.accept()
        except OSError:
            if self._opening is not None:
                self._opening.result()
            raise
        return RawPeer(sock, client=False)

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()


@contextlib.contextmanager
def open_pair(
    *,
    receive_buffer: int | None = None,
    rest: bytes = b"",
    answer: tuple[str, ...] = (),
    **options: Any,
) -> Iterator[tuple[syncws.Client, RawPeer]]:
    """A client and the raw server's end of its connection; both are gone behind the block."""
    with RawServer(receive_buffer=receive_buffer) as server:
        opening = server.open_client(**options)
        with server.accept() as peer:
            peer.answer(*answer, rest=rest)
            client = opening.result()
            try:
                yield client, peer
            finally:
                peer.abort()
                client.close()


# -- TLS ---------------------------------------------------------------------


@functools.cache
def authority() -> trustme.CA:
    """The authority that our certificates come from."""
    return trustme.CA()


@functools.cache
def server_tls(*names: str) -> ssl.SSLContext:
    """A server's context, for localhost and 127.0.0.1 unless names are given."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
    return context


@functools.cache
def client_tls() -> ssl.SSLContext:
    """A client's context that trusts our authority only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


# -- Processes ---------------------------------------------------------------


class Interpreter:
    """A Python process that runs a script; a thread reads what it prints."""

    def __init__(self, script: str, *args: str) -> None:
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDEVMODE", "PYTHONWARNINGS")}
        env["PYTHONPATH"] = str(_ROOT)
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", script, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            cwd=_ROOT,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = Task(self._read)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("<end>")

    def line(self) -> str:
        """Return the next line that it prints."""
        return self._lines.get(timeout=HANG)

    def tell(self, line: str = "") -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and what it wrote to standard error."""
        assert self.process.stderr is not None
        code = self.process.wait(HANG)
        return code, self.process.stderr.read()

    def close(self) -> None:
        """End it, however it is."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(HANG)
        self._reader.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


@contextlib.contextmanager
def interpreter(script: str, *args: str) -> Iterator[Interpreter]:
    """A Python process that runs `script`, until the block ends."""
    process = Interpreter(script, *args)
    try:
        yield process
    finally:
        process.close()
