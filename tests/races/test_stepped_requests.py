"""Upgrade resources and HTTP requests between the I/O thread and a worker, stepped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import syncws
from syncws.engine.loop import READ, WRITE
from syncws.protocol.server_handshake import Refusal
from syncws.server.channel import Channel, ClientGone, Phase
from tests import test_server_http as http_scenes
from tests import test_server_upgrade as upgrade_scenes
from tests.races.stepping import Walker

STEPPED = True

Exploring = Callable[..., int]

_BODY = bytes(range(256)) * 257  # more than waits for the application
_RESPONSE = b"r" * 60_000
_PARTS = 6  # more than waits for the client


# -- The application's call --------------------------------------------------


class Call:
    """An application in a worker, and the client's bytes in the I/O thread."""

    def __init__(
        self, app: Callable[[Call, Channel], None], io: Callable[[Call], None], *, full: bool = True
    ) -> None:
        self.left = self.whole = _BODY if full else b"short"
        self.scene = http_scenes.Scene(f"Content-Length: {len(self.left)}")
        self.scene.app = lambda channel: app(self, channel)
        self._io = io
        self.body = b""
        self.cut = False
        self.come(http_scenes.BODY)
        assert self.scene.queued
        self.scene.transport.capacity = 0

    # -- The application

    def read(self, channel: Channel) -> None:
        self.body = http_scenes.read_all(channel)
        http_scenes.respond(channel, _RESPONSE)

    def write(self, channel: Channel) -> None:
        http_scenes.respond(channel, *[_RESPONSE] * _PARTS)

    # -- The I/O thread

    def come(self, size: int) -> None:
        """Let so much of the body come."""
        part, self.left = self.left[:size], self.left[size:]
        if part:
            self.scene.feed(part)

    def move(self) -> None:
        """Move bytes both ways, where that is waited for."""
        self.scene.loop.turn()
        if self.left and self.scene.mask & READ:
            self.come(1000)
        self.scene.transport.capacity = 100_000
        if self.scene.mask & WRITE:
            self.scene.handler.on_ready(WRITE)
        self.scene.loop.turn()

    def lose(self) -> None:
        """The client goes."""
        self.scene.handler.end("the client has gone")

    def fail_to_write(self) -> None:
        self.scene.transport.error = ConnectionResetError()
        self.move()

    def first(self) -> None:
        """A worker."""
        try:
            self.scene.loop.work()
        except ClientGone:
            self.cut = True

    def second(self) -> None:
        self._io(self)

    def unblock(self) -> None:
        self.move()

    def check(self, first: Walker, second: Walker) -> None:
        first.result()
        second.result()
        for _ in range(10):
            self.move()
        scene = self.scene
        assert scene.done == 1
        assert len(scene.ended) == 1
        if self._io is Call.move:
            assert not self.cut
            assert scene.transport.written.endswith(_RESPONSE + b"\r\n0\r\n\r\n")
            assert scene.transport.written.count(b"200 OK") == 1
            assert self.body in (b"", self.whole)
        else:
            assert scene.transport.closed
            assert scene.phase is Phase.DONE

    def close(self) -> None:
        pass


@pytest.mark.parametrize("io", [Call.move, Call.lose, Call.fail_to_write])
@pytest.mark.parametrize("app", [Call.read, Call.write])
def test_an_application_against_its_client(
    app: Callable[[Call, Channel], None], io: Callable[[Call], None], exploring: Exploring
) -> None:
    tried = exploring(
        lambda: Call(app, io, full=app is Call.read), among=("channel.py", "http.py", "lane.py")
    )
    assert tried > 20


# -- A resource's decision ---------------------------------------------------


class Asking(upgrade_scenes.Scene):
    """A resource in a worker, and the I/O thread, which makes the calls that are asked for."""

    def __init__(
        self, resource: Callable[..., Any], io: Callable[[Asking], None] | None = None
    ) -> None:
        super().__init__(resource)
        self.loop.at_once = False
        self._io = io
        self.errand = self.loop.errands[0]

    def first(self) -> None:
        """The worker."""
        self.errand()

    def second(self) -> None:
        """The I/O thread."""
        if self._io is not None:
            self._io(self)
        self.make_calls()

    def make_calls(self) -> None:
        while not self.loop.calls.empty():
            self.loop.calls.get()()

    def unblock(self) -> None:
        self.make_calls()

    def lose(self) -> None:
        """The client has gone, or the loop ends."""
        self.opening.abort()

    def stop(self) -> None:
        """The listener stops: who waits is refused."""
        if self.opening.waiting:
            self.opening.on_lost()
            self.opening.reply(Refusal(503, "x"))

    def check(self, first: Walker, second: Walker) -> None:
        first.result()
        second.result()
        self.make_calls()
        assert self.log.count("done") == 1
        # One answer, whatever it is.
        assert len(self.opening.replies) + self.opening.aborted + len(self.terms) == 1
        if self.terms:
            # Nothing is left that only this could hand on.
            assert not self.dispatcher._inbox or self.loop.ready or self.loop.queue
        while self.loop.ready or self.loop.queue:
            work = (self.loop.ready or self.loop.queue).pop()
            work.run()
        assert not self.dispatcher.busy()

    def close(self) -> None:
        pass


def accepts(http: Any, request: Any) -> None:
    http.accept_upgrade()


def refuses(http: Any, request: Any) -> None:
    http.cancel_upgrade(400, "no")


def returns(http: Any, request: Any) -> None:
    return None


def raises(http: Any, request: Any) -> None:
    raise syncws.ConnectionClosed


@pytest.mark.parametrize("resource", [accepts, refuses, returns, raises])
@pytest.mark.parametrize("io", [None, Asking.lose, Asking.stop])
def test_a_resource_against_the_io_thread(
    resource: Callable[..., Any], io: Callable[[Asking], None] | None, exploring: Exploring
) -> None:
    tried = exploring(lambda: Asking(resource, io), switches=2, among=("hearing.py", "dispatch.py"))
    assert tried > 10
