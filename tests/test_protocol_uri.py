from __future__ import annotations

from typing import Any

import pytest

from syncws.protocol.uri import ProxyURI, WebSocketURI, authority_of, parse_proxy, parse_uri


@pytest.mark.parametrize(
    ("url", "expected", "host_header"),
    [
        ("ws://example.com", (False, "example.com", 80, "/"), "example.com"),
        ("wss://example.com", (True, "example.com", 443, "/"), "example.com"),
        ("WSS://Example.COM:443/A", (True, "example.com", 443, "/A"), "example.com"),
        ("ws://h:443/", (False, "h", 443, "/"), "h:443"),
        ("ws://h:/x", (False, "h", 80, "/x"), "h"),
        ("ws://h:65535?q=1", (False, "h", 65535, "/?q=1"), "h:65535"),
        ("ws://h/a?", (False, "h", 80, "/a"), "h"),
        ("ws://h//a//?b?c/d", (False, "h", 80, "//a//?b?c/d"), "h"),
        ("ws://127.0.0.1:9090/x", (False, "127.0.0.1", 9090, "/x"), "127.0.0.1:9090"),
        ("ws://[::1]", (False, "::1", 80, "/"), "[::1]"),
        ("wss://[FE80::1]:8443/", (True, "fe80::1", 8443, "/"), "[fe80::1]:8443"),
        ("ws://[fe80::1%25eth0]/", (False, "fe80::1%eth0", 80, "/"), "[fe80::1]"),
        ("ws://my_host.local./", (False, "my_host.local.", 80, "/"), "my_host.local."),
        ("ws://b\xfccher.example/", (False, "xn--bcher-kva.example", 80, "/"), None),
        ("ws://h/caf\xe9?n=\u20ac", (False, "h", 80, "/caf%C3%A9?n=%E2%82%AC"), "h"),
        ("ws://h/%C3%a9%2F", (False, "h", 80, "/%C3%a9%2F"), "h"),
        ("ws://h/100%/50%zz?%", (False, "h", 80, "/100%25/50%25zz?%25"), "h"),
        ('ws://h/"<\\>`{}?a[]=1', (False, "h", 80, "/%22%3C%5C%3E%60%7B%7D?a[]=1"), "h"),
        ("ws://h/a@b", (False, "h", 80, "/a@b"), "h"),
    ],
)
def test_parts(url: str, expected: tuple[bool, str, int, str], host_header: str | None) -> None:
    uri = parse_uri(url)
    assert (uri.secure, uri.host, uri.port, uri.target) == expected
    assert uri.host_header == (host_header or uri.host)
    assert (uri.username, uri.password) == (None, None)


@pytest.mark.parametrize(
    ("userinfo", "username", "password"),
    [
        ("ann:secret", "ann", "secret"),
        ("ann", "ann", None),
        ("ann:", "ann", ""),
        (":secret", "", "secret"),
        ("a%40b:c%3Ad:e@", "a@b", "c:d:e@"),
        ("%C3%A9:\u20ac", "\xe9", "\u20ac"),
    ],
)
def test_userinfo(userinfo: str, username: str, password: str | None) -> None:
    uri = parse_uri(f"ws://{userinfo}@h/")
    assert (uri.host, uri.username, uri.password) == ("h", username, password)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://h/", "use ws://... instead"),
        ("https://h/", "use wss://... instead"),
        ("ftp://h/", "no WebSocket URL: use ws://"),
        ("h/path", "no WebSocket URL: write"),
        ("ws:/h", "no WebSocket URL: write"),
        ("localhost:9090", "no WebSocket URL: write"),
        ("", "no WebSocket URL: write"),
        ("ws://", "no host"),
        ("ws:///path", "no host"),
        ("ws://:80/", "no host"),
        ("ws://h/#x", "fragment"),
        ("ws://h#", "fragment"),
        ("ws://h:0/", "valid host and port"),
        ("ws://h:65536/", "valid host and port"),
        ("ws://h:8o/", "valid host and port"),
        ("ws://h:-1/", "valid host and port"),
        ("ws://h:\u0661/", "valid host and port"),
        ("ws://h:" + "9" * 5000, "valid host and port"),
        ("ws://::1/", "valid host and port"),
        ("ws://[::1/", "valid host and port"),
        ("ws://[::1]x/", "valid host and port"),
        ("ws://[nope]/", "IPv6"),
        ("ws://[]/", "IPv6"),
        ("ws://a..b/", "valid host"),
        ("ws://" + "a" * 64 + "/", "valid host"),
        ("ws://a\\@b\\c/", "valid host"),
        ("ws://a%2eb/", "valid host"),
        ("ws://a\uff0fb/", "valid host"),
        ("ws://h/a b", "space"),
        (" ws://h/", "space"),
        ("ws://h/\r\nX: y", "control character"),
        ("ws://h/\0", "control character"),
        ("ws://h\n/", "control character"),
        ("ws://h/\x7f", "control character"),
        ("ws://h/\ud800", "surrogate"),
        ("ws://h/?\ud800", "surrogate"),
        ("ws://%ff:x@h/", "not UTF-8"),
        ("ws://a%0d%0a:x@h/", "control character in its user"),
        ("ws://a:x%00@h/", "control character in its user"),
        ("ws://a%3Ab:x@h/", "colon in its user"),
    ],
)
def test_refused(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_uri(url)


@pytest.mark.parametrize("value", [None, b"ws://h/", 5])
def test_not_a_str(value: Any) -> None:
    with pytest.raises(TypeError, match="is a str"):
        parse_uri(value)


@pytest.mark.parametrize(
    "url",
    [
        "http://mallory:pass@h/",
        "ws://mallory:pass@h:x/",
        "ws://mallory:pass@h/#f",
        "ws://mallory:pass@/",
        "ws://mallory:pa/pass@h/",
        "ws://mallory:pa ss pass@h/",
        "ws://mallory:pass@[x]/",
        "ws://mallory:pass%ff@h/",
        "mallory:pass@h",
    ],
)
def test_no_message_has_the_password(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_uri(url)
    assert "pass@" not in str(caught.value)
    assert "mallory" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_repr_has_no_password() -> None:
    assert "secret" not in repr(WebSocketURI(False, "h", 80, "/", "mallory", "secret"))


# -- Proxies -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("http://p.example:3128", ("http", True, "p.example", 3128), "http://p.example:3128"),
        ("http://p.example", ("http", True, "p.example", 80), "http://p.example:80"),
        ("HTTP://P.Example/", ("http", True, "p.example", 80), "http://p.example:80"),
        ("https://p.example", ("https", True, "p.example", 443), "https://p.example:443"),
        ("http://[::1]:3128", ("http", True, "::1", 3128), "http://[::1]:3128"),
        ("http://[fe80::1%25lo]:1", ("http", True, "fe80::1%lo", 1), "http://[fe80::1]:1"),
        ("socks4://p.example", ("socks4", False, "p.example", 1080), "socks4://p.example:1080"),
        ("socks4a://p.example", ("socks4", True, "p.example", 1080), "socks4a://p.example:1080"),
        ("socks5://10.0.0.1", ("socks5", False, "10.0.0.1", 1080), "socks5://10.0.0.1:1080"),
        ("socks5h://p.example:9", ("socks5", True, "p.example", 9), "socks5h://p.example:9"),
        ("socks://p.example:9/", ("socks5", True, "p.example", 9), "socks5h://p.example:9"),
        ("http://bücher.example", ("http", True, "xn--bcher-kva.example", 80), None),
    ],
)
def test_a_proxy(url: str, expected: tuple[str, bool, str, int], shown: str | None) -> None:
    uri = parse_proxy(url)
    assert uri == ProxyURI(*expected)
    assert uri.is_socks is expected[0].startswith("socks")
    if shown is not None:
        assert str(uri) == shown


@pytest.mark.parametrize(
    ("url", "username", "password"),
    [
        ("http://ann:secret@p:1", "ann", "secret"),
        ("http://ann@p:1", "ann", None),
        ("http://ann:@p:1", "ann", ""),
        ("http://a%40b:s%3Ae%2F%C3%BC@p:1", "a@b", "s:e/ü"),
        ("socks5://ann:secret@p:1", "ann", "secret"),
        ("socks5h://" + "a" * 255 + ":" + "b" * 255 + "@p:1", "a" * 255, "b" * 255),
        ("socks4://ann@p:1", "ann", None),
    ],
)
def test_a_proxys_user(url: str, username: str, password: str | None) -> None:
    uri = parse_proxy(url)
    assert (uri.username, uri.password) == (username, password)
    assert "secret" not in repr(uri)
    assert str(uri).endswith("://p:1")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("p.example:3128", "is no URL of a proxy: write scheme://host:port with http"),
        ("ftp://p.example:3128", "is no URL of a proxy"),
        ("ws://p.example:3128", "is no URL of a proxy"),
        ("", "is no URL of a proxy"),
        ("http://", "has no host: write http://host"),
        ("http://p.example:0", "from 1 to 65535"),
        ("http://p.example:65536", "from 1 to 65535"),
        ("http://p.example/path", "has more than a proxy's host and port"),
        ("http://p.example?x", "has more than a proxy's host and port"),
        ("http://p.example#x", "has more than a proxy's host and port"),
        ("http://p example", "has a space or a control character"),
        ("http://ann:se\ncret@p", "has a space or a control character"),
        ("http://ann:se%0Acret@p", "has a control character in its user or password"),
        ("http://an%3An:secret@p", "a colon in its user"),
        ("http://ann:secret%FF@p", "not UTF-8"),
        ("socks4://ann:secret@p", "has a password, which SOCKS 4 has not"),
        ("socks5://ann@p", "SOCKS 5 has both or none"),
        ("socks5://ann:@p", "SOCKS 5 has both or none"),
        ("socks5h://:secret@p", "SOCKS 5 has both or none"),
        ("socks5h://ann:secr%C3%A9t@p", "outside ASCII"),
        ("socks5h://ann:secret" + "x" * 250 + "@p", "over 255 characters"),
        ("socks4://" + "x" * 256 + "@p", "over 255 characters"),
    ],
)
def test_no_proxy(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        parse_proxy(url)
    assert "secr" not in str(caught.value)
    assert "ann" not in str(caught.value)


@pytest.mark.parametrize("value", [None, b"http://p", 5, True])
def test_a_proxy_is_a_str(value: Any) -> None:
    with pytest.raises(TypeError, match="a proxy's URL is a str"):
        parse_proxy(value)


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("h", None, "h"),
        ("h", 80, "h:80"),
        ("::1", 80, "[::1]:80"),
        ("::1", None, "[::1]"),
        ("fe80::1%eth0", 80, "[fe80::1]:80"),
    ],
)
def test_an_authority(host: str, port: int | None, text: str) -> None:
    assert authority_of(host, port) == text
