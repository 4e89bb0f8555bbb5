"""Which proxy a client goes through, and what happens on the way, with proxies by hand."""

from __future__ import annotations

import builtins
import logging
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import syncws
from syncws.client import connect as connect_module
from syncws.client.proxy import Proxies, Proxy
from syncws.client.tunnel import _Patient
from syncws.config import TLSConfig
from syncws.protocol.uri import parse_proxy, parse_uri
from syncws.timing import Deadline
from tests.proxying import TUNNEL, Patience, no_proxies, serve_socks4, serve_socks5, taken
from tests.reconnecting import NOW, Reconnector
from tests.support import (
    HANG,
    TEXT,
    RawPeer,
    RawServer,
    Task,
    client_tls,
    frame,
    server_tls,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxies(monkeypatch)


@pytest.fixture
def server() -> Iterator[RawServer]:
    """The socket that proxies are served on."""
    with RawServer() as raw:
        yield raw


# -- The environment ---------------------------------------------------------


def found(url: str, proxy: str | bool | None = True, **options: Any) -> str | None:
    """Return the proxy for an address, as it is shown."""
    chosen = Proxies(proxy, None, None, **options).find(parse_uri(url))
    return None if chosen is None else str(chosen.uri)


WS, WSS = "ws://app.example/", "wss://app.example/"
ONE, TWO, THREE = "http://one:1", "http://two:2", "http://three:3"


@pytest.mark.parametrize(
    ("variables", "plain", "secure"),
    [
        ({}, None, None),
        ({"http_proxy": ONE}, ONE, None),
        ({"https_proxy": ONE}, None, ONE),
        ({"HTTP_PROXY": ONE, "HTTPS_PROXY": TWO}, ONE, TWO),
        ({"http_proxy": ONE, "HTTP_PROXY": TWO}, ONE, None),
        ({"http_proxy": ONE, "ws_proxy": TWO}, TWO, None),
        ({"https_proxy": ONE, "wss_proxy": TWO}, None, TWO),
        ({"https_proxy": ONE, "WSS_PROXY": TWO}, None, TWO),
        ({"all_proxy": ONE}, ONE, ONE),
        ({"ALL_PROXY": ONE, "https_proxy": TWO}, ONE, TWO),
        ({"all_proxy": ONE, "wss_proxy": TWO, "http_proxy": THREE}, THREE, TWO),
        ({"http_proxy": "", "HTTP_PROXY": TWO}, None, None),
        ({"ws_proxy": "", "http_proxy": TWO}, TWO, None),
        ({"http_proxy": "one:1"}, ONE, None),
        ({"http_proxy": "ann:secret@one:1"}, ONE, None),
        ({"all_proxy": "socks5://one:1"}, "socks5://one:1", "socks5://one:1"),
        ({"all_proxy": "socks://one:1/"}, "socks5h://one:1", "socks5h://one:1"),
        ({"https_proxy": "https://one:1"}, None, "https://one:1"),
        ({"ftp_proxy": ONE}, None, None),
        # Of a CGI script, whose clients choose it with a header named Proxy.
        ({"HTTP_PROXY": ONE, "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": ONE, "REQUEST_METHOD": "GET"}, ONE, None),
    ],
)
def test_the_environments_proxies(
    variables: dict[str, str],
    plain: str | None,
    secure: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (found(WS), found(WSS)) == (plain, secure)
    assert found(WS, None) is found(WS, False) is found(WS, unix_path=True) is None


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize(
    ("excluded", "host", "direct"),
    [
        ("", "app.example", False),
        ("app.example", "app.example", True),
        ("APP.example", "app.example", True),
        ("other.example, app.example ,", "app.example", True),
        ("example", "app.example", True),
        (".example", "app.example", True),
        ("*.example", "app.example", True),
        ("*.example", "example", False),
        ("*.app.example", "app.example", False),
        ("pp.example", "app.example", False),
        ("*pp.example", "app.example", False),
        ("app.example", "app.example.com", False),
        ("*", "app.example", True),
        ("app.example:80", "app.example", True),
        ("app.example:81", "app.example", False),
        ("app.example:81", "app.example:81", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.0/24", "192.0.2.1", True),
        ("192.0.2.77/24", "192.0.2.1", True),
        ("192.0.3.0/24", "192.0.2.1", False),
        ("2.1", "192.0.2.1", True),  # as urllib has it
        ("2001:db8::/32", "[2001:db8::1]", True),
        ("2001:db8::1", "[2001:db8::1]", True),
        ("[2001:db8::1]", "[2001:db8:0::1]", True),
        ("2001:db9::/32", "[2001:db8::1]", False),
        ("192.0.2.0/24", "[2001:db8::1]", False),
        ("192.0.2.0/240", "192.0.2.1", False),
        ("fe80::/10", "[fe80::1%25eth0]", True),
    ],
)
def test_what_no_proxy_excludes(
    excluded: str, host: str, direct: bool, upper: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", ONE)
    monkeypatch.setenv("NO_PROXY" if upper else "no_proxy", excluded)
    assert found(f"ws://{host}/") == (None if direct else ONE)
    # A URL that is given is not the environment's.
    assert found(f"ws://{host}/", TWO) == TWO


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.8.9.10", "[::1]", "[0:0::1]"],
)
def test_this_machine_is_reached_without_the_environments_proxy(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", ONE)
    assert found(f"ws://{host}:9090/") is None
    assert found(f"wss://{host}:9090/") is None
    assert found(f"ws://{host}:9090/", TWO) == TWO
    assert found("ws://localhost.example/") == ONE
    assert found("ws://128.0.0.1/") == ONE


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"http": "http://one:1", "socks": "http://two:2"}, ONE),
        ({"socks": "http://two:2"}, "socks5h://two:2"),
        ({"socks": "socks4://two:2"}, "socks4://two:2"),
        ({"ftp": "http://two:2"}, None),
    ],
)
def test_the_systems_proxies(
    settings: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As urllib gets them on macOS and Windows, where no variable is set."""
    asked = []

    def bypass(host: str) -> bool:
        asked.append(host)
        return host.startswith("in.example")

    monkeypatch.setattr(urllib.request, "getproxies", lambda: settings)
    monkeypatch.setattr(urllib.request, "proxy_bypass", bypass)
    assert found(WS) == expected
    assert found("ws://in.example/") is None
    assert asked == (["app.example:80", "in.example:80"] if expected else [])


@pytest.mark.parametrize(
    "url", ["ftp://one:1", "http://one:99999", "http://ann:secret@", "socks5://ann@one"]
)
def test_what_the_environment_has_that_is_no_proxy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", url)
    with pytest.raises(ValueError, match="the environment's https_proxy cannot be used: ") as got:
        syncws.Client(WSS)
    assert "secret" not in str(got.value)


# -- Arguments ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"proxy": 5}, TypeError, "proxy must be True, a URL, or None or False, not of type int"),
        ({"proxy": b"http://ann:secret@p"}, TypeError, "not of type bytes"),
        ({"proxy": {"http": "http://ann:secret@p"}}, TypeError, "not of type dict"),
        ({"proxy": ""}, ValueError, "is no URL of a proxy"),
        ({"proxy": "p.example:3128"}, ValueError, "is no URL of a proxy"),
        ({"proxy": "http://ann:secret@p/x"}, ValueError, "more than a proxy's host and port"),
        ({"proxy": "http://p", "proxy_ssl": TLSConfig()}, ValueError, "proxy is no https:// URL"),
        ({"proxy": "socks5://p", "proxy_ssl": TLSConfig()}, ValueError, "no https:// URL"),
        ({"proxy": None, "proxy_ssl": TLSConfig()}, ValueError, "no https:// URL"),
        ({"proxy": "https://p", "proxy_ssl": True}, TypeError, "proxy_ssl must be a syncws.TLS"),
        ({"proxy_ssl": "ca.pem"}, TypeError, "proxy_ssl must be a syncws.TLSConfig"),
        ({"proxy": "socks5://p", "proxy_headers": {"X": "y"}}, ValueError, "no http:// or https"),
        ({"proxy": False, "proxy_headers": {"X": "y"}}, ValueError, "no http:// or https:// URL"),
        ({"proxy_headers": {"Host": "y"}}, ValueError, "'Host' is set by the handshake"),
        ({"proxy_headers": {"Content-Length": "5"}}, ValueError, "cannot be given"),
        ({"proxy_headers": {"X": "a\r\nY: b"}}, ValueError, "line break"),
        ({"proxy_headers": "X: y"}, TypeError, "must be a mapping"),
        (
            {"proxy": "http://ann:secret@p", "proxy_headers": {"proxy-authorization": "Bearer x"}},
            ValueError,
            "give one only",
        ),
    ],
)
def test_arguments_that_are_wrong(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        syncws.Client(WS, **options)
    assert "secret" not in str(caught.value)
    with pytest.raises(error, match=text):
        syncws.FailoverClient([WS, WSS], **options)


def test_a_proxy_leads_to_no_unix_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="a unix_path, which no proxy leads to"):
        syncws.Client(WS, unix_path=tmp_path / "socket", proxy=ONE)
    monkeypatch.setenv("http_proxy", ONE)
    with pytest.raises(syncws.ConnectError, match=f"connecting with {tmp_path}"):
        syncws.Client(WS, unix_path=tmp_path / "socket")


def test_a_servers_context_is_none_for_a_proxy() -> None:
    with pytest.raises(ValueError, match="proxy_ssl is a server's context"):
        syncws.Client(WS, proxy="https://p", proxy_ssl=server_tls())


def test_what_is_for_other_proxies_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same options have to do whatever the environment says."""
    proxies = Proxies(True, {"X-One": "1"}, client_tls())
    target = parse_uri(WS)
    assert proxies.find(target) is None
    headers = (("X-One", "1"),)
    for url, expected in {
        "http://p": Proxy(parse_proxy("http://p"), headers, None),
        "https://p": Proxy(parse_proxy("https://p"), headers, client_tls()),
        "socks5://p": Proxy(parse_proxy("socks5://p"), (), None),
    }.items():
        monkeypatch.setenv("http_proxy", url)
        assert proxies.find(target) == expected


def test_secrets_are_not_shown() -> None:
    proxies = Proxies("http://ann:secret@p", {"X-Token": "secret"}, None)
    assert "secret" not in repr(proxies.find(parse_uri(WS)))
    proxies = Proxies("http://p", {"Proxy-Authorization": "Bearer secret"}, None)
    assert "secret" not in repr(proxies.find(parse_uri(WS)))


@pytest.mark.parametrize("given", [True, False], ids=["given", "of the environment"])
def test_socks_without_its_library(given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "python_socks":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setenv("all_proxy", "socks5h://ann:secret@p:1")
    options = {"proxy": "socks5h://ann:secret@p:1"} if given else {}
    with pytest.raises(ImportError, match=r"pip install python-socks") as caught:
        syncws.Client(WS, **options)
    assert "the proxy socks5h://p:1 needs python-socks" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert found(WS, "http://p") == "http://p:80"  # without it


def test_an_import_takes_no_library_of_socks() -> None:
    code = "import sys, syncws; sys.exit('python_socks' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=HANG, check=False).returncode == 0


# -- HTTP --------------------------------------------------------------------


def opening(server: RawServer, url: str = WS, scheme: str = "http", **options: Any) -> Task:
    """Open a client through what is served here."""
    options.setdefault("proxy", f"{scheme}://127.0.0.1:{server.port}")
    return Task(syncws.Client, url, **options)


def accepted(server: RawServer) -> RawPeer:
    """Serve one connection through an HTTP proxy."""
    peer = server.accept()
    peer.read_head()
    peer.send_bytes(TUNNEL)
    peer.answer()
    return peer


def fields_of(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def test_what_is_the_proxys_and_what_is_the_servers(server: RawServer) -> None:
    task = opening(
        server,
        "ws://bob:hidden@app.example/path?token=hidden",
        proxy=f"http://ann:secret@127.0.0.1:{server.port}",
        proxy_headers={"X-Proxy": "one", "User-Agent": "mine"},
        headers={"X-Server": "two"},
        cookies={"session": "hidden"},
    )
    with server.accept() as peer:
        head = peer.read_head()
        assert head.startswith(b"CONNECT app.example:80 HTTP/1.1\r\n")
        assert fields_of(head) == {
            "host": "app.example:80",
            "proxy-authorization": "Basic YW5uOnNlY3JldA==",
            "x-proxy": "one",
            "user-agent": "mine",
            "": "",
        }
        peer.send_bytes(TUNNEL)
        peer.answer()
        with task.result() as client:
            assert peer.head.startswith(b"GET /path?token=hidden HTTP/1.1\r\n")
            fields = fields_of(peer.head)
            assert fields["host"] == "app.example"
            assert fields["authorization"] == "Basic Ym9iOmhpZGRlbg=="
            assert fields["cookie"] == "session=hidden"
            assert (fields["x-server"], fields["user-agent"]) == ("two", "syncws")
            assert not {"proxy-authorization", "x-proxy"} & fields.keys()
            assert "secret" not in f"{client!r} {client.url}"
            assert client.remote_address == ("127.0.0.1", server.port)
            assert not client.is_secure
            peer.abort()


def test_names_are_the_proxys_to_look_up(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    task = opening(server, proxy=f"http://proxy.example:{server.port}")
    with accepted(server):
        task.result().close(timeout=0)
    assert asked == ["proxy.example"]


def test_all_addresses_of_a_proxy_are_tried(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets it
        away = nobody.getsockname()[1]

        def getaddrinfo(host: str, port: int, **options: Any) -> Any:
            return real("127.0.0.1", away, **options) + real("127.0.0.1", port, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        task = opening(server, proxy=f"http://proxy.example:{server.port}")
        with accepted(server):
            task.result().close(timeout=0)


def test_an_ipv6_server(server: RawServer) -> None:
    task = opening(server, "ws://[2001:db8::1]:9090/")
    with server.accept() as peer:
        assert peer.read_head().startswith(b"CONNECT [2001:db8::1]:9090 HTTP/1.1\r\n")
        peer.abort()
    assert isinstance(task.error(), syncws.ProxyError)


def test_frames_that_come_with_the_handshake(server: RawServer) -> None:
    task = opening(server)
    with server.accept() as peer:
        peer.read_head()
        peer.send_bytes(TUNNEL)
        peer.answer(rest=frame(TEXT, b"first", masked=False))
        with task.result() as client:
            assert client.receive(timeout=HANG) == "first"
            peer.abort()


def test_what_comes_with_the_answer_is_the_servers(server: RawServer) -> None:
    """A server that speaks before it is asked has not read the key."""
    task = opening(server)
    with server.accept() as peer:
        peer.read_head()
        peer.send_bytes(TUNNEL + b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nno go")
        error = task.error()
    assert isinstance(error, syncws.HandshakeRejected)
    assert (error.status, error.body) == (403, b"no go")


def test_tls_that_comes_with_the_answer_is_the_servers(server: RawServer) -> None:
    task = opening(server, WSS, ssl=client_tls())
    with server.accept() as peer:
        peer.read_head()
        alert = b"\x15\x03\x03\x00\x02\x02\x28"
        peer.send_bytes(TUNNEL + alert)
        error = task.error()
    assert isinstance(error, syncws.TLSError)
    assert f"app.example port 443 through the proxy http://127.0.0.1:{server.port}" in str(error)
    assert "HANDSHAKE_FAILURE" in str(error)


def test_the_servers_certificate_is_the_servers(server: RawServer) -> None:
    task = opening(server, WSS, ssl=client_tls())
    with server.accept() as peer:
        peer.read_head()
        peer.send_bytes(TUNNEL)
        peer.sock = server_tls("app.example").wrap_socket(peer.sock, server_side=True)
        peer.answer()
        with task.result() as client:
            assert client.is_secure
            peer.abort()


# -- HTTPS -------------------------------------------------------------------


def test_an_https_proxy(server: RawServer) -> None:
    task = opening(server, scheme="https", proxy_ssl=client_tls())
    with server.accept() as peer:
        peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
        assert peer.read_head().startswith(b"CONNECT app.example:80 ")
        peer.send_bytes(TUNNEL)
        peer.answer(rest=frame(TEXT, b"first", masked=False))
        with task.result() as client:
            assert client.receive(timeout=HANG) == "first"
            client.send_text("hello")
            peer.expect(TEXT, "hello")
            # TLS to the proxy is none to the server.
            assert not client.is_secure
            peer.abort()


@pytest.mark.parametrize("trusted", [False, True], ids=["authority", "name"])
def test_an_https_proxy_with_a_wrong_certificate(trusted: bool, server: RawServer) -> None:
    certificate = server_tls("other.example") if trusted else server_tls()
    options = {"proxy_ssl": client_tls()} if trusted else {"ssl": client_tls()}
    retry = NOW  # for ever, did it not give up
    task = opening(server, WSS, "https", retry=retry, **options)
    with server.accept() as peer, pytest.raises(OSError):
        tls = certificate.wrap_socket(peer.sock, server_side=True)
        peer.sock = tls
        assert tls.recv(1) == b""
        raise OSError("it went")
    error = task.error()
    assert isinstance(error, syncws.TLSError)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    url = f"https://127.0.0.1:{server.port}"
    assert str(error).startswith(f"the TLS handshake with the proxy {url} failed: ")


def test_an_https_proxy_that_speaks_no_tls(server: RawServer) -> None:
    task = opening(server, scheme="https")
    with server.accept() as peer:
        peer.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        error = task.error()
    assert isinstance(error, syncws.TLSError)
    assert "the proxy does not speak TLS there; is its address one of http://?" in str(error)


# -- SOCKS -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (WS, ("app.example", 80)),
        ("ws://192.0.2.1:9090/", ("192.0.2.1", 9090)),
        ("ws://[2001:db8::1]/", ("2001:db8::1", 80)),
        ("ws://bücher.example/", ("xn--bcher-kva.example", 80)),
    ],
)
@pytest.mark.parametrize("user", [None, "ann"])
def test_socks5(server: RawServer, url: str, address: tuple[str, int], user: str | None) -> None:
    userinfo = "ann:secret@" if user else ""
    task = opening(server, url, proxy=f"socks5h://{userinfo}127.0.0.1:{server.port}")
    with server.accept() as peer:
        assert serve_socks5(peer, user=user, password="secret") == address
        peer.answer(rest=frame(TEXT, b"first", masked=False))
        with task.result() as client:
            assert client.receive(timeout=HANG) == "first"
            client.send_text("hello")
            peer.expect(TEXT, "hello")
            peer.abort()


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_who_looks_names_up(
    scheme: str, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> Any:
        asked.append(host)
        host = "192.0.2.7" if host == "app.example" else host
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    task = opening(server, scheme=scheme)
    with server.accept() as peer:
        serve = serve_socks5 if scheme.startswith("socks5") else serve_socks4
        host, port = serve(peer)[:2]
        peer.answer()
        task.result().close(timeout=0)
    by_proxy = scheme in ("socks4a", "socks5h")
    assert (host, port) == ("app.example" if by_proxy else "192.0.2.7", 80)
    assert asked == ["127.0.0.1"] + ([] if by_proxy else ["app.example"])


def test_a_name_that_the_system_does_not_know(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host == "app.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    task = opening(server, scheme="socks5")
    with server.accept() as peer:
        taken(peer, 3)
        peer.send_bytes(b"\x05\0")
        error = task.error()
    assert isinstance(error, syncws.ProxyError)
    shown = f"asking the proxy socks5://127.0.0.1:{server.port} for app.example port 80 failed"
    assert str(error) == f"{shown}: Name or service not known"


def test_socks4_with_a_user(server: RawServer) -> None:
    task = opening(server, proxy=f"socks4a://ann@127.0.0.1:{server.port}")
    with server.accept() as peer:
        assert serve_socks4(peer) == ("app.example", 80, "ann")
        peer.answer()
        task.result().close(timeout=0)


def test_tls_through_socks(server: RawServer) -> None:
    task = opening(server, WSS, "socks5h", ssl=client_tls())
    with server.accept() as peer:
        assert serve_socks5(peer) == ("app.example", 443)
        peer.sock = server_tls("app.example").wrap_socket(peer.sock, server_side=True)
        peer.answer()
        with task.result() as client:
            assert client.is_secure
            peer.abort()


def socks_refused(
    server: RawServer, serve: Callable[[RawPeer], object], scheme: str = "socks5h", **options: Any
) -> syncws.ProxyError:
    """Return what comes of a client whose proxy is served so; it tries no second time."""
    task = opening(server, scheme=scheme, **options)
    with server.accept() as peer:
        serve(peer)
        error = task.error()
    assert isinstance(error, syncws.ProxyError)
    assert error.proxy == f"{scheme}://127.0.0.1:{server.port}"
    assert str(error).startswith(f"the proxy {error.proxy} ")
    return error


def test_socks_with_a_wrong_password(server: RawServer) -> None:
    error = socks_refused(
        server,
        lambda peer: serve_socks5(peer, user="ann", password="secret", granted=False),
        proxy=f"socks5h://ann:secret@127.0.0.1:{server.port}",
        retry=NOW,
    )
    assert isinstance(error, syncws.ProxyAuthenticationError)
    assert error.status is error.realm is None
    assert "secret" not in f"{error!r} {error.__cause__!r}"


def test_socks_that_asks_for_a_user(server: RawServer) -> None:
    def serve(peer: RawPeer) -> None:
        assert taken(peer, 3) == b"\x05\x01\0"
        peer.send_bytes(b"\x05\xff")

    error = socks_refused(server, serve, retry=NOW)
    assert isinstance(error, syncws.ProxyAuthenticationError)


@pytest.mark.parametrize(
    ("code", "text"),
    [(1, "General"), (4, "Host unreach"), (5, "Connection refused"), (8, "Address type")],
)
def test_a_socks_proxy_that_cannot(code: int, text: str, server: RawServer) -> None:
    reply = bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])
    error = socks_refused(server, lambda peer: serve_socks5(peer, reply=reply))
    assert type(error) is syncws.ProxyError
    assert error.status == code
    assert f"did not connect to the server: {text}" in str(error)


def test_a_socks_proxy_that_does_not_allow_it(server: RawServer) -> None:
    reply = bytes([5, 2, 0, 1, 0, 0, 0, 0, 0, 0])
    error = socks_refused(server, lambda peer: serve_socks5(peer, reply=reply), retry=NOW)
    assert error.status == 2


def test_a_socks4_proxy_that_cannot(server: RawServer) -> None:
    error = socks_refused(server, lambda peer: serve_socks4(peer, code=91), "socks4a")
    assert error.status == 91


# -- Deadlines and ends ------------------------------------------------------

# By scheme, what the proxy has read when it falls silent.
_REACHED: dict[str, Callable[[RawPeer], object]] = {
    "http": lambda peer: peer.read_head(),
    "https": lambda peer: taken(peer, 1),
    "socks4a": lambda peer: taken(peer, 9),
    "socks5h": lambda peer: taken(peer, 3),
}
every_scheme = pytest.mark.parametrize("scheme", _REACHED)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    return Patience(monkeypatch)


@every_scheme
def test_a_proxy_that_is_silent(scheme: str, server: RawServer, patience: Patience) -> None:
    patience.end()
    task = opening(server, scheme=scheme, handshake_timeout=5)
    with server.accept() as peer:
        _REACHED[scheme](peer)
        error = task.error()
        assert isinstance(error, syncws.ConnectTimeout)
        step = "the TLS handshake with" if scheme == "https" else "asking"
        assert str(error).startswith(f"{step} the proxy {scheme}://127.0.0.1:{server.port} ")
        assert str(error).endswith("took longer than handshake_timeout, 5 s")


def test_a_proxy_that_is_silent_after_tls(server: RawServer, patience: Patience) -> None:
    task = opening(server, scheme="https", proxy_ssl=client_tls())
    with server.accept() as peer:
        peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
        patience.end()
        peer.send_bytes(b"H")
        error = task.error()
    assert isinstance(error, syncws.ConnectTimeout)
    assert str(error).startswith("asking the proxy https://")


@pytest.mark.parametrize("url", [WS, WSS])
def test_a_server_that_is_silent_behind_a_proxy(
    url: str, server: RawServer, patience: Patience
) -> None:
    patience.end_after("ask_http")
    task = opening(server, url)
    with server.accept() as peer:
        peer.read_head()
        peer.send_bytes(TUNNEL)
        error = task.error()
    assert isinstance(error, syncws.ConnectTimeout)
    step = "the opening" if url == WS else "the TLS"
    assert str(error).startswith(f"{step} handshake with app.example port ")
    assert f" through the proxy http://127.0.0.1:{server.port} took longer" in str(error)


def test_the_deadline_holds_for_the_proxy(server: RawServer) -> None:
    # Whatever the client has got to by then: it may be slow, too.
    assert isinstance(opening(server, handshake_timeout=0.1).error(), syncws.ConnectTimeout)


def test_one_deadline_for_what_comes_a_byte_at_a_time() -> None:
    """Though there is always something to read."""
    now = 100.0

    class Dripping:
        def recv(self, size: int) -> bytes:
            nonlocal now
            now += 0.25
            return b"x"

    sock: Any = Dripping()
    patient = _Patient(sock, Deadline(1.0, lambda: now))
    for _ in range(4):
        assert patient.recv(1) == b"x"
    with pytest.raises(TimeoutError):
        patient.recv(1)


@every_scheme
@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_a_proxy_that_goes(scheme: str, reset: bool, server: RawServer) -> None:
    task = opening(server, scheme=scheme)
    with server.accept() as peer:
        _REACHED[scheme](peer)
        if reset:
            peer.reset()
    error = task.error()
    kinds = (syncws.TLSError, syncws.ProxyError) if scheme == "https" else syncws.ProxyError
    assert isinstance(error, kinds)
    assert f"the proxy {scheme}://127.0.0.1:{server.port} " in str(error)


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks5h"])
def test_a_proxy_that_is_away(scheme: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets it
        url = f"{scheme}://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(syncws.ProxyError) as caught:
            syncws.Client(WS, proxy=url)
    assert str(caught.value) == (
        f"connecting with the proxy {url} failed: Connection refused: nothing listens there"
    )
    assert caught.value.proxy == url
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_proxy_whose_name_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(connect_module.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(syncws.ProxyError, match=r"the proxy http://p\.example:1 failed: Name or"):
        syncws.Client(WS, proxy="http://p.example:1")


# -- Coming back -------------------------------------------------------------


@every_scheme
def test_close_ends_an_attempt_whose_proxy_hangs(scheme: str, server: RawServer) -> None:
    service = Reconnector()
    # The first connection needs no proxy; all others hang in theirs.
    url = f"ws://127.0.0.1:{server.port}/"
    task = Task(
        syncws.Client,
        url,
        service=service,
        retry=NOW,
        handshake_timeout=None,
        proxy=f"{scheme}://127.0.0.1:{server.port}",
        **({"proxy_ssl": client_tls()} if scheme == "https" else {}),
    )
    with server.accept() as peer:
        if scheme == "https":
            peer.sock = server_tls().wrap_socket(peer.sock, server_side=True)
        if scheme.startswith("http"):
            peer.read_head()
            peer.send_bytes(TUNNEL)
        else:
            (serve_socks4 if scheme == "socks4a" else serve_socks5)(peer)
        peer.answer()
        client = task.result()
        peer.abort()
    service.attempt("waiting", 1)
    service.attempt("connecting", 1)
    with server.accept() as peer:
        _REACHED[scheme](peer)
        client.close()
        while peer.sock.recv(65_536):
            pass
    service.ended()


def test_every_attempt_goes_through_the_proxy_that_was_found_first(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://ann:secret@127.0.0.1:{server.port}")
    task = Task(syncws.Client, WS, retry=NOW)
    with accepted(server) as peer:
        client = task.result()
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        peer.abort()
    with accepted(server) as peer, client:
        peer.text("again")
        assert client.receive(timeout=HANG) == "again"
        peer.abort()
        client.close(timeout=0)


def test_failover_has_a_proxy_for_each_address(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer() as direct:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
        urls = [WS, direct.url]
        task = Task(syncws.FailoverClient, urls, failover_interval=0.0)
        with server.accept() as peer:
            peer.read_head()
            peer.send_bytes(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        with direct.accept() as peer:
            peer.answer()
            with task.result() as client:
                assert client.url == direct.url
                peer.abort()


def test_the_log_and_the_errors_of_attempts_have_no_password(
    server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    retry = syncws.RetryConfig(max_count=2, interval=0.0)
    proxy = f"http://ann:secret@127.0.0.1:{server.port}"
    task = opening(server, proxy=proxy, retry=retry)
    for _ in range(3):
        with server.accept() as peer:
            peer.read_head()
            peer.send_bytes(b"HTTP/1.1 503 Away\r\n\r\n")
    error = task.error()
    assert isinstance(error, syncws.RetriesExhausted)
    shown = f"the proxy http://127.0.0.1:{server.port} answered CONNECT with 503 Away"
    assert shown in str(error)
    assert shown in caplog.text
    assert "secret" not in f"{error!r} {caplog.text}"
