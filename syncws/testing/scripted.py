"""Peers that go by a script: servers for the tests of clients, clients for those of services.

Threads: a server's scripts are played in threads of its own, one for each
connection; a client's in that of the caller.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..client.waiting import wait
from ..engine.engine import Engine
from ..protocol.client_handshake import ClientHandshake
from ..protocol.http import Request
from ..protocol.server_handshake import accept_response, refusal_response
from ..protocol.uri import parse_uri
from ..timing import Deadline, check_timeout
from .peer import Left, Peer
from .script import Accept, Ignore, Refuse, Step

__all__ = ["ScriptedServer", "play"]


class ScriptedServer:
    """A server whose connections go by scripts, for the tests of a client.

    The first connection gets the first script, the next one the next; then
    there is nobody any more, and further ones are refused by the system. A
    script is a list of steps, made by functions of this package::

        with ScriptedServer(
            [expect("hello"), send("welcome"), drop()],
            [expect("hello"), send("welcome back"), expect_close(1000)],
        ) as server:
            run_my_client(server.url)

    At the end of the ``with`` block the scripts are waited for, and what went
    otherwise raises an AssertionError, unless the block has raised: a message
    that was not expected, a step that was not reached, a script that nobody
    came for.

    Args:
        scripts: The scripts.
        engine: A `MemoryEngine` to be reached through; None for a free port
            of 127.0.0.1.
        port: The port to listen on; 0 for a free one.
        timeout: Real seconds for each step, and for the end.

    Attributes:
        url: Where it is, such as "ws://127.0.0.1:50123/".
        requests: The handshakes' requests so far.
    """

    def __init__(
        self,
        *scripts: Sequence[Step],
        engine: Engine | None = None,
        port: int = 0,
        timeout: float = 5.0,
    ) -> None:
        check_timeout("timeout", timeout, optional=False)
        for script in scripts:
            _check_script(script)
        if not scripts:
            raise ValueError("ScriptedServer needs a script for each connection that is to come")
        self._scripts = list(scripts)
        self._timeout = timeout
        network = engine.network if engine is not None else None
        self._sock: Any
        if network is not None:
            self._sock = network.listen(port, None)
        else:
            self._sock = socket.create_server(("127.0.0.1", port))
            self._sock.setblocking(False)
        self.url = f"ws://127.0.0.1:{self._sock.getsockname()[1]}/"
        self.requests: list[Request] = []
        self._failures: list[tuple[int, str]] = []
        self._threads: list[threading.Thread] = []
        self._through = [threading.Event() for _ in scripts]
        self._left = threading.Event()
        self._peers: set[Peer] = set()
        self._acceptor = threading.Thread(target=self._accept, name="scripted-server", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        self.close(check=kind is None)

    def wait_for(self, number: int) -> None:
        """Wait until the script of a connection is through.

        Args:
            number: Which connection; the first is 1.

        Raises:
            AssertionError: It is not within `timeout`.
            ValueError: There is no such script.
        """
        if not 1 <= number <= len(self._scripts):
            raise ValueError(
                f"there are scripts for connections 1 to {len(self._scripts)}, not {number!r}"
            )
        if not self._through[number - 1].wait(self._timeout):
            raise AssertionError(f"the script of connection {number} is not through")

    def close(self, *, check: bool = True) -> None:
        """Wait for the scripts, end what is open, and say what went otherwise.

        Args:
            check: Whether to wait, and to raise.

        Raises:
            AssertionError: Something went otherwise.
        """
        deadline = Deadline(self._timeout if check else 0.0)
        self._acceptor.join(deadline.remaining())
        for thread in list(self._threads):
            thread.join(deadline.remaining())
        missing = len(self._scripts) - len(self._threads)
        late = [number for number, thread in enumerate(self._threads, 1) if thread.is_alive()]
        self._left.set()
        self._acceptor.join()
        self._sock.close()
        for peer in list(self._peers):
            with contextlib.suppress(OSError):
                peer._sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        if not check:
            return
        failures = [text for _, text in sorted(self._failures)]
        failures += [f"connection {number}: the script is not through" for number in late]
        if missing:
            failures.append(f"{missing} more of {len(self._scripts)} connections were expected")
        if failures:
            raise AssertionError("; ".join(dict.fromkeys(failures)))

    # -- Threads of its own ----------------------------------------------

    def _accept(self) -> None:
        for number, script in enumerate(self._scripts, 1):
            while True:
                if self._left.is_set():
                    return
                try:
                    wait(self._sock, False, Deadline(0.02))
                    sock, _ = self._sock.accept()
                    break
                except (TimeoutError, BlockingIOError):
                    continue
            if number == len(self._scripts):
                self._sock.close()  # before its client can know that it is the last
            peer = Peer(sock, False, self._timeout)
            self._peers.add(peer)
            thread = threading.Thread(
                target=self._play,
                args=(number, peer, script),
                name=f"scripted-server-{number}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()

    def _play(self, number: int, peer: Peer, script: Sequence[Step]) -> None:
        try:
            _go(peer, script, lambda: self._greet(peer, script))
        except AssertionError as exc:
            if not self._left.is_set():
                self._failures.append((number, f"connection {number}, {exc}"))
        finally:
            peer.finish()
            self._peers.discard(peer)
            self._through[number - 1].set()

    def _greet(self, peer: Peer, script: Sequence[Step]) -> None:
        request, rest = peer.read_request()
        self.requests.append(request)
        first = script[0] if script else None
        if isinstance(first, Refuse):
            peer.write(refusal_response(first.refusal))
            raise Left
        if isinstance(first, Ignore):
            peer.read_to_end()
            raise Left
        step = first if isinstance(first, Accept) else Accept(None, {})
        peer.write(
            accept_response(
                request, subprotocol=step.subprotocol, extensions=None, headers=step.headers
            )
        )
        peer.begin(rest)


def play(
    url: str,
    script: Sequence[Step],
    *,
    engine: Engine | None = None,
    headers: Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    timeout: float = 5.0,
) -> None:
    """Connect to a service as a client that goes by a script, for what a `Client` would not do.

    Blocks until the script is through; then the connection is ended without a
    close frame, unless the script has ended it.

    Args:
        url: A ws:// URL.
        script: The steps.
        engine: The `MemoryEngine` that the listener runs on, or None.
        headers: Further headers of the request.
        subprotocols: What to offer.
        timeout: Real seconds for each step.

    Raises:
        AssertionError: Something came that was not expected, or did not come.
        HandshakeRejected: The server answered with another status than 101.
        OSError: Nobody listens there.
    """
    _check_script(script)
    uri = parse_uri(url)
    if uri.secure:
        raise ValueError(f"a script is played over ws://, not {url!r}")
    handshake = ClientHandshake(
        uri, subprotocols=subprotocols, compression=None, headers=tuple(headers)
    )
    network = engine.network if engine is not None else None
    if network is not None:
        sock = network.connect(uri.port, None)
    else:
        sock = socket.create_connection((uri.host, uri.port), timeout)
    peer = Peer(sock, True, timeout)
    try:
        _go(peer, script, lambda: peer.ask(handshake))
    finally:
        peer.finish()


def _go(peer: Peer, script: Sequence[Step], greet: Callable[[], None]) -> None:
    """Play a script; say at which step it went otherwise."""
    where = "the handshake"
    try:
        greet()
        for number, step in enumerate(script, 1):
            where = f"step {number}, {step!r}"
            step.play(peer)
    except Left:
        pass
    except AssertionError as exc:
        raise AssertionError(f"{where}: {exc}") from None


def _check_script(script: Sequence[Step]) -> None:
    for step in script:
        if not isinstance(step, Step):
            raise TypeError(
                f"a script is a list of steps such as send('hello') and drop(), not {step!r}"
            )
