"""How the connections of WSGI servers are found and taken; they themselves are in integration."""

from __future__ import annotations

import io
import os
import socket
import ssl
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from syncws.integrations.hosts import Host, find_host, make_sink

from .support import HANG

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A client's socket, and the one that a host has accepted."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname(), HANG) as client:
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(HANG)
                yield client, accepted


def test_the_host_keeps_a_sink_and_we_have_the_connection(pair: Pair) -> None:
    client, hosts = pair
    host = find_host({"wsgi.input": hosts.makefile("rb")})
    number = hosts.fileno()
    sock, sink, rest = host.move()
    with sock, sink:
        assert rest == b""
        assert hosts.fileno() == number
        hosts.sendall(b"HTTP/1.1 101 for nobody")
        assert hosts.recv(10) == b""
        hosts.shutdown(socket.SHUT_RDWR)
        hosts.close()
        assert sink.recv(100) == b"HTTP/1.1 101 for nobody"
        assert sink.recv(100) == b""
        sock.sendall(b"for the client")
        assert client.recv(100) == b"for the client"
        client.sendall(b"for us")
        sock.settimeout(HANG)
        assert sock.recv(100) == b"for us"


@pytest.mark.parametrize("blocking", [True, False])
def test_the_descriptor_stays_as_the_host_has_set_it(pair: Pair, blocking: bool) -> None:
    _, hosts = pair
    hosts.setblocking(blocking)
    os.set_inheritable(hosts.fileno(), not blocking)
    sock, sink, _ = Host("host", hosts.fileno(), bytes).move()
    with sock, sink:
        assert os.get_blocking(hosts.fileno()) is blocking
        assert os.get_inheritable(hosts.fileno()) is not blocking
        assert not sock.get_inheritable()


def test_what_the_host_has_read_ahead(pair: Pair) -> None:
    client, hosts = pair
    client.sendall(b"GET\r\nand more")
    reader = hosts.makefile("rb")
    assert reader.readline() == b"GET\r\n"
    sock, sink, rest = find_host({"werkzeug.socket": hosts, "wsgi.input": reader}).move()
    with sock, sink:
        assert rest == b"and more"
        assert reader.read() == b""


def test_what_gunicorn_has_read_ahead(pair: Pair) -> None:
    _, hosts = pair
    unreader = types.SimpleNamespace(buf=io.BytesIO(b"and more"))
    body = types.SimpleNamespace(reader=types.SimpleNamespace(unreader=unreader))
    sock, sink, rest = find_host({"gunicorn.socket": hosts, "wsgi.input": body}).move()
    with sock, sink:
        assert rest == b"and more"
        assert unreader.buf.getvalue() == b""


def test_without_descriptors_nothing_changes(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    client, hosts = pair
    host = Host("host", hosts.fileno(), bytes)

    def fails(descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "dup", fails)
    with pytest.raises(OSError, match="Too many"):
        host.move()
    hosts.sendall(b"still there")
    assert client.recv(100) == b"still there"


def test_another_connection_of_the_same_number_is_left_alone(pair: Pair) -> None:
    """The host has closed its own meanwhile, and accepted another."""
    _, hosts = pair
    host = Host("host", hosts.fileno(), bytes)
    other, others = socket.socketpair()
    with other, others:
        os.dup2(others.fileno(), hosts.fileno())
        with pytest.raises(OSError, match="has it no more"):
            host.move()
        host.answer(b"for nobody")
        host.discard(socket.socket())
        others.sendall(b"still the same")
        hosts.sendall(b", both")
        assert other.recv(100) == b"still the same, both"
        hosts.setblocking(False)
        with pytest.raises(BlockingIOError):
            hosts.recv(1)


def test_a_connection_is_moved_once(pair: Pair) -> None:
    _, hosts = pair
    host = Host("host", hosts.fileno(), bytes)
    sock, sink, _ = host.move()
    with sock, sink, pytest.raises(OSError, match="has it no more"):
        host.move()


def test_a_connection_that_is_no_more_needed_takes_no_descriptor(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, hosts = pair
    host = Host("host", hosts.fileno(), bytes)
    sink, given = make_sink()

    def fails(descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "dup", fails)
    with sink:
        host.discard(given)
        assert client.recv(1) == b""
        hosts.sendall(b"for nobody")
        assert sink.recv(100) == b"for nobody"


def test_a_default_timeout_changes_nothing_of_the_host_s(pair: Pair) -> None:
    _, hosts = pair
    hosts.setblocking(True)
    socket.setdefaulttimeout(HANG)
    try:
        host = Host("host", hosts.fileno(), bytes)
        assert os.get_blocking(hosts.fileno())
        assert not host.has_left()
        assert os.get_blocking(hosts.fileno())
    finally:
        socket.setdefaulttimeout(None)


def test_whether_the_client_has_left(pair: Pair) -> None:
    client, hosts = pair
    host = Host("host", hosts.fileno(), bytes)
    assert not host.has_left()
    assert hosts.gettimeout() == HANG
    client.sendall(b"x")
    assert not host.has_left()
    assert hosts.recv(1) == b"x"
    client.close()
    hosts.recv(1)
    assert host.has_left()


def test_an_answer_in_the_host_s_stead(pair: Pair) -> None:
    client, hosts = pair
    Host("host", hosts.fileno(), bytes).answer(b"HTTP/1.1 503 no")
    with pytest.raises(OSError):
        hosts.sendall(b"HTTP/1.1 101 yes")
        hosts.sendall(b"HTTP/1.1 101 yes")
    assert client.recv(100) == b"HTTP/1.1 503 no"
    assert client.recv(100) == b""


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])
def test_an_input_that_was_replaced(pair: Pair, key: str) -> None:
    with pytest.raises(RuntimeError, match=r"wsgi\.input"):
        find_host({key: pair[1], "wsgi.input": io.BytesIO()})


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"mod_wsgi.version": (5, 0, 0)}, "mod_wsgi"),
        ({"waitress.client_disconnected": bool}, "waitress"),
        ({"SERVER_SOFTWARE": "other/1.0"}, "other/1.0"),
        ({}, "this WSGI server"),
        ({"wsgi.input": io.BytesIO()}, "this WSGI server"),
        ({"wsgi.input": io.BufferedReader(io.BytesIO())}, "this WSGI server"),  # type: ignore[arg-type]
    ],
)
def test_hosts_that_have_nothing_to_give(environ: dict[str, Any], name: str) -> None:
    with pytest.raises(RuntimeError, match=f"^{name} does not let") as caught:
        find_host(environ)
    assert "syncws.Listener" in str(caught.value)


@pytest.mark.parametrize("module", ["gevent.monkey", "eventlet.patcher"])
def test_greenlets_are_no_threads(module: str, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"wsgi.input": pair[1].makefile("rb")}
    fake = types.SimpleNamespace(
        is_module_patched=lambda name: False, is_monkey_patched=lambda name: False
    )
    monkeypatch.setitem(sys.modules, module, fake)
    find_host(environ)
    fake.is_module_patched = fake.is_monkey_patched = lambda name: name in ("threading", "thread")
    with pytest.raises(RuntimeError, match="gthread"):
        find_host(environ)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threads": b"4"}, ""),
        ({b"enable-threads": True}, ""),
        ({"master": True}, "--enable-threads"),
        ({"threads": b"4", "https-socket": b":443"}, "https-socket"),
    ],
)
def test_uwsgi(
    options: dict[Any, Any], text: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    uwsgi = types.SimpleNamespace(opt=options, connection_fd=pair[1].fileno)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    if text:
        with pytest.raises(RuntimeError, match=text):
            find_host({"uwsgi.version": b"2"})
    else:
        host = find_host({"uwsgi.version": b"2"})
        assert (host.name, host.remote) == ("uWSGI", pair[0].getsockname())
    with pytest.raises(RuntimeError, match="this WSGI server"):
        find_host({})  # another server, in a process of uWSGI's


@pytest.mark.parametrize("threads", [True, False])
def test_tls_takes_a_thread(pair: Pair, threads: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(
        pair[1].dup(), server_side=True, do_handshake_on_connect=False
    ) as wrapped:
        environ = {
            "werkzeug.socket": wrapped,
            "wsgi.input": pair[1].makefile("rb"),
            "wsgi.multithread": threads,
        }
        if threads:
            assert find_host(environ).tls is wrapped
        else:
            with pytest.raises(RuntimeError, match="takes one of its threads"):
                find_host(environ)
