"""What an HTTP proxy is asked for, and what it may answer."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncws.errors import ProxyAuthenticationError, ProxyError
from syncws.protocol.connect_tunnel import ConnectTunnel
from syncws.protocol.uri import parse_proxy

PROXY = "http://proxy.example:3128"
OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def tunnel(
    proxy: str = PROXY,
    host: str = "app.example",
    port: int = 443,
    *,
    headers: Sequence[tuple[str, str]] = (),
    max_size: int = 16384,
) -> ConnectTunnel:
    return ConnectTunnel(parse_proxy(proxy), host, port, headers=headers, max_size=max_size)


def refused(answer: bytes, proxy: str = PROXY) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        tunnel(proxy).receive(answer)
    assert caught.value.proxy == PROXY.replace("http:", proxy.partition("//")[0])
    assert str(caught.value).startswith(f"the proxy {caught.value.proxy} ")
    return caught.value


# -- The request -------------------------------------------------------------


def test_the_request() -> None:
    asked = tunnel()
    assert asked.request_bytes() == (
        b"CONNECT app.example:443 HTTP/1.1\r\nHost: app.example:443\r\nUser-Agent: syncws\r\n\r\n"
    )
    assert asked.request_bytes() == asked.request_bytes()


@pytest.mark.parametrize(
    ("host", "port", "authority"),
    [
        ("app.example", 80, b"app.example:80"),
        ("192.0.2.1", 8080, b"192.0.2.1:8080"),
        ("2001:db8::1", 443, b"[2001:db8::1]:443"),
        ("fe80::1%eth0", 443, b"[fe80::1]:443"),
    ],
)
def test_the_target(host: str, port: int, authority: bytes) -> None:
    lines = tunnel(host=host, port=port).request_bytes().split(b"\r\n")
    assert lines[:2] == [b"CONNECT " + authority + b" HTTP/1.1", b"Host: " + authority]


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [("ann:secret", b"ann:secret"), ("ann", b"ann:"), ("%C3%A4:%40%3A", "ä:@:".encode())],
)
def test_users(userinfo: str, credentials: bytes) -> None:
    request = tunnel(PROXY.replace("//", f"//{userinfo}@")).request_bytes()
    value = b"Basic " + base64.b64encode(credentials)
    assert b"\r\nProxy-Authorization: " + value + b"\r\n" in request


def test_headers() -> None:
    request = tunnel(headers=[("X-One", "1"), ("User-Agent", "mine")]).request_bytes()
    assert request.endswith(b":443\r\nX-One: 1\r\nUser-Agent: mine\r\n\r\n")


def test_a_header_that_would_be_two() -> None:
    with pytest.raises(ValueError, match="line break"):
        tunnel(headers=[("X-One", "1\r\nX-Two: 2")])


# -- Answers -----------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        OK,
        b"HTTP/1.0 200 Connection established\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 Fine\r\nVia: x\r\n\r\n",
        b"HTTP/1.1 299 Fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",  # RFC 9110 section 9.3.6
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Wait\r\nLink: x\r\n\r\n" + OK,
    ],
)
@pytest.mark.parametrize("rest", [b"", b"\x16\x03", b"HTTP/1.1 403 Forbidden\r\n\r\n"])
def test_a_tunnel(head: bytes, rest: bytes) -> None:
    assert tunnel().receive(head + rest) == rest
    asked = tunnel()
    for number in range(len(head) - 1):
        assert asked.receive(head[number : number + 1]) is None
    assert asked.receive(head[-1:] + rest) == rest


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", 403, "answered CONNECT with 403 Forbidden"),
        (b"HTTP/1.0 403\r\n\r\n", 403, "answered CONNECT with 403"),
        (b"HTTP/1.1 503 Away\r\nContent-Length: 3\r\n\r\nwhy", 503, "with 503 Away"),
        (b"HTTP/1.1 502 B\r\nContent-Length: 9\r\n\r\n", 502, "with 502 B"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\n\r\n",
            302,
            "with 302 Found; a client follows no redirects",
        ),
        (b"HTTP/1.1 403 \x1b[31m\x07\r\n\r\n", 403, r"with 403 \x1b[31m\x07"),
        (b"HTTP/1.1 403 " + b"x" * 1000 + b"\r\n\r\n", 403, "with 403 " + "x" * 60),
        (b"HTTP/1.1 403 \xa0\xad\r\n\r\n", 403, r"with 403 \xa0\xad"),
    ],
)
def test_a_refusal(answer: bytes, status: int, text: str) -> None:
    error = refused(answer)
    assert type(error) is ProxyError
    assert error.status == status
    assert str(error).endswith(text)
    assert str(error).isprintable()


@pytest.mark.parametrize("status", [b"401", b"407"])
@pytest.mark.parametrize(
    ("challenges", "realm", "text"),
    [
        ([], None, ""),
        (["Basic"], None, ""),
        (['Basic realm="the proxy"'], "the proxy", " for 'the proxy'"),
        (['basic charset="UTF-8", realm="a, \\"b\\""'], 'a, "b"', """ for 'a, "b"'"""),
        (["Negotiate", "NTLM", 'Basic realm="x"'], "x", " for 'x'"),
        (
            ["Negotiate", "NTLM"],
            None,
            ", but not in Basic authentication: it knows 'Negotiate, NTLM'",
        ),
        (
            ['Digest realm="x", nonce="y"'],
            "x",
            " for 'x', but not in Basic authentication: it knows 'Digest'",
        ),
        (['Basic realm="' + "x" * 1000 + '"'], "x" * 1000, f" for '{'x' * 60}'"),
        (['Basic realm="\x9b31m"'], "\x9b31m", " for '\\x9b31m'"),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_users_and_passwords_are_asked_for(
    status: bytes, challenges: list[str], realm: str | None, text: str, known: bool
) -> None:
    lines = [f"Proxy-Authenticate: {challenge}".encode("latin-1") for challenge in challenges]
    answer = b"\r\n".join([b"HTTP/1.1 " + status + b" Who?", *lines, b"", b""])
    proxy = PROXY.replace("//", "//ann:secret@") if known else PROXY
    error = refused(answer, proxy)
    assert isinstance(error, ProxyAuthenticationError)
    assert error.realm == realm
    assert error.status == int(status)
    what = "does not take this user and password" if known else "asks for a user and a password"
    assert str(error) == f"the proxy {PROXY} {what}{text}"
    assert "secret" not in repr(error)
    assert str(error).isprintable()


def test_credentials_by_hand_are_credentials() -> None:
    asked = tunnel(headers=[("proxy-authorization", "Bearer secret")])
    with pytest.raises(ProxyAuthenticationError, match="does not take this user") as caught:
        asked.receive(b"HTTP/1.1 407 No\r\n\r\n")
    assert "secret" not in repr(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x05\x00",
        b"HTTP/2 200\r\n\r\n",
        b"HTTX",
        b"\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 99 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_what_is_no_answer(answer: bytes) -> None:
    error = refused(answer)
    assert "answered CONNECT with what is not valid HTTP: b'" in str(error)
    assert error.status is None
    assert "TLS" not in str(error)


def test_what_is_no_http_is_refused_at_its_first_byte() -> None:
    assert "b'S'" in str(refused(b"S"))


def test_a_proxy_that_speaks_tls() -> None:
    alert = b"\x15\x03\x03\x00\x02\x01\x00"
    assert str(refused(alert)).endswith("; if it speaks TLS, write https://")
    assert "write https" not in str(refused(alert, PROXY.replace("http", "https")))


@pytest.mark.parametrize("before", [b"", b"HT", OK[:-1]])
def test_an_end_before_the_answer(before: bytes) -> None:
    asked = tunnel()
    if before:
        assert asked.receive(before) is None
    with pytest.raises(ProxyError, match="closed the connection before it answered CONNECT; if"):
        asked.receive(b"")
    assert "if it speaks" not in str(refused(b"", PROXY.replace("http", "https")))


# -- Sizes -------------------------------------------------------------------


def test_the_longest_head_that_is_allowed() -> None:
    start, end = b"HTTP/1.1 200 OK\r\nX: ", b"\r\n\r\n"
    head = start + b"x" * (300 - len(start + end)) + end
    assert tunnel(max_size=300).receive(head + b"y" * 1000) == b"y" * 1000
    for answer in (head[:-4] + b"x" + end, b"HTTP/1.1 100 Continue\r\n\r\n" + head):
        with pytest.raises(ProxyError, match="head of over 300 bytes"):
            tunnel(max_size=300).receive(answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 " + b"x" * 50_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 50_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 2000,
    ],
)
@pytest.mark.parametrize("size", [1000, 65_536])
def test_heads_without_end(answer: bytes, size: int) -> None:
    asked = tunnel()
    with pytest.raises(ProxyError, match="head of over 16384 bytes"):
        for start in range(0, len(answer), size):
            assert asked.receive(answer[start : start + size]) is None


# -- Cut anywhere ------------------------------------------------------------

_ANSWERS = st.sampled_from(
    [
        OK + b"\x16\x03\x01rest",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"rest",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nhello",
        b'HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n',
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbroken\r\n\r\nrest",
        b"SSH-2.0-x\r\n",
    ]
)


def outcome(pieces: list[bytes]) -> object:
    """Return the tunnel's first bytes, or the kind of the error."""
    asked = tunnel()
    for number, piece in enumerate(pieces):
        try:
            rest = asked.receive(piece)
        except ProxyError as exc:
            return type(exc), exc.status
        if rest is not None:
            return rest + b"".join(pieces[number + 1 :])
    return None


@given(answer=_ANSWERS, cuts=st.lists(st.integers(1, 80), max_size=6))
def test_an_answer_may_be_cut_anywhere(answer: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    pieces = [answer[start:end] for start, end in itertools.pairwise(edges)]
    assert outcome(pieces) == outcome([answer])


@given(start=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n"]), noise=st.binary(min_size=1))
def test_noise(start: bytes, noise: bytes) -> None:
    said = ""
    rest: bytes | None = None
    try:
        rest = tunnel().receive(start + noise)
    except ProxyError as exc:
        said = str(exc)
    assert said.isprintable()
    assert rest is None or (start + noise).endswith(rest)
