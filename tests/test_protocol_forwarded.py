"""What proxies say of a client, and who is believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncws.protocol.forwarded import UNIX, Client, TrustedProxies, split_host
from syncws.protocol.headers import Headers
from syncws.protocol.http import HeadError

PROXY = ("127.0.0.1", 40_000)
STRANGER = ("203.0.113.9", 40_000)
TRUSTED = ("127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48")
ALL = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port")


def client(
    *fields: tuple[str, str],
    peer: Any = PROXY,
    secure: bool = False,
    trusted: Sequence[str] = TRUSTED,
    headers: Sequence[str] = ALL,
) -> Client:
    return TrustedProxies(trusted, headers).client(Headers(fields), peer, secure)


def by_for(*values: str, **options: Any) -> Any:
    """Return the address that these X-Forwarded-For lines give."""
    return client(*(("X-Forwarded-For", value) for value in values), **options).address


def by_forwarded(*values: str, **options: Any) -> Client:
    fields = (("Forwarded", value) for value in values)
    return client(*fields, headers=["Forwarded"], **options)


# -- Whom to believe ---------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "address", "is_trusted"),
    [
        ("127.0.0.1", ("127.0.0.1", 1), True),
        ("127.0.0.1", ("127.0.0.2", 1), False),
        ("10.0.0.0/8", ("10.255.0.1", 1), True),
        ("10.0.0.0/8", ("11.0.0.0", 1), False),
        ("::1", ("::1", 1), True),
        ("2001:db8::/32", ("2001:db8:ffff::1", 1), True),
        ("2001:db8::/32", ("2001:db9::", 1), False),
        ("127.0.0.1", ("::ffff:127.0.0.1", 1), True),
        ("::ffff:127.0.0.1", ("127.0.0.1", 1), True),
        ("::ffff:10.0.0.0/104", ("10.1.2.3", 1), True),
        ("::ffff:10.0.0.0/104", ("11.1.2.3", 1), False),
        ("fe80::/10", ("fe80::1%eth0", 1), True),
        ("0.0.0.0/0", ("8.8.8.8", 1), True),
        ("0.0.0.0/0", ("::1", 1), False),
        ("::/0", ("8.8.8.8", 1), False),
        ("0.0.0.0/0", "/run/proxy.sock", False),
        ("0.0.0.0/0", "", False),
        (UNIX, "/run/proxy.sock", True),
        (UNIX, "", True),
        (UNIX, ("127.0.0.1", 1), False),
        ("127.0.0.1", ("unknown", 0), False),
        (UNIX, ("unix", 0), False),
    ],
)
def test_who_is_trusted(trusted: str, address: Any, is_trusted: bool) -> None:
    assert TrustedProxies([trusted]).trusts(address) is is_trusted


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("10.0.0.1/8", "write '10.0.0.0/8' for the network, or '10.0.0.1' for this address alone"),
        ("2001:db8::1/32", "write '2001:db8::/32' for the network"),
        ("127.0.0.1:80", "write '127.0.0.1'"),
        ("[::1]", "write '::1'"),
        ("[::1]:80", "write '::1'"),
        ("localhost", "write '127.0.0.1' and '::1'"),
        ("*", "write '0.0.0.0/0' and '::/0' if really nobody but"),
        ("proxy.example", "or 'unix', say"),
        ("10.0.0.0/33", "or 'unix', say"),
        ("unknown", "or 'unix', say"),
        ("010.0.0.1", "or 'unix', say"),
        ("", "or 'unix', say"),
    ],
)
def test_addresses_that_are_wrong(wrong: str, right: str) -> None:
    with pytest.raises(ValueError, match="is no IP address and no network") as caught:
        TrustedProxies(["127.0.0.1", wrong])
    assert repr(wrong) in str(caught.value)
    assert right in str(caught.value)


@pytest.mark.parametrize("wrong", ["127.0.0.1", b"127.0.0.1", 5, None, [b"127.0.0.1"], [1]])
def test_what_is_no_list_of_strings(wrong: Any) -> None:
    with pytest.raises(TypeError, match="trusted_proxies must be a list of str"):
        TrustedProxies(wrong)
    with pytest.raises(TypeError, match="forwarded_headers must be a list of str"):
        TrustedProxies([], wrong)


def test_headers_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match="'X-Real-IP'; it may have Forwarded, X-Forwarded-For"):
        TrustedProxies([], ["X-Real-IP"])
    with pytest.raises(ValueError, match="has Forwarded and others"):
        TrustedProxies([], ["forwarded", "X-Forwarded-Proto"])


# -- Who is not trusted changes nothing --------------------------------------

NAMES = (*ALL, "Forwarded", "Host", "X-Real-IP", "Via")
VALUES = st.one_of(
    st.sampled_from(
        ("127.0.0.1", "10.0.0.1, 8.8.8.8", "for=127.0.0.1;proto=https;host=evil.example", "https")
    ),
    st.sampled_from(("unix:", "evil.example", "443", "unknown", '"', "for=", ", ,")),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40),
)
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6)
CHOICES = st.one_of(st.just(("Forwarded",)), st.lists(st.sampled_from(ALL), unique=True).map(tuple))


@given(FIELDS, CHOICES, st.booleans(), st.sampled_from([STRANGER, ("::1", 1), "/run/x", ""]))
def test_who_is_not_trusted_changes_nothing(
    fields: list[tuple[str, str]], headers: tuple[str, ...], secure: bool, peer: Any
) -> None:
    found = client(*fields, peer=peer, secure=secure, headers=headers)
    assert found == Client(peer, secure, "")


@given(FIELDS, CHOICES, st.booleans())
def test_headers_that_are_not_named_change_nothing(
    fields: list[tuple[str, str]], headers: tuple[str, ...], secure: bool
) -> None:
    named = {name.lower() for name in headers} | {"host"}

    def outcome(some: list[tuple[str, str]]) -> Client | str:
        try:
            return client(*some, secure=secure, headers=headers)
        except HeadError as exc:
            return exc.text

    assert outcome(fields) == outcome([field for field in fields if field[0].lower() in named])


@given(FIELDS, CHOICES, st.booleans())
@example([("X-Forwarded-For", ",")], ALL, False)
def test_whatever_a_proxy_says_there_is_a_client_or_a_refusal(
    fields: list[tuple[str, str]], headers: tuple[str, ...], secure: bool
) -> None:
    try:
        address, _, host = client(*fields, secure=secure, headers=headers)
    except HeadError as exc:
        told = (exc.status, len(exc.text) < 400)
    else:
        told = (400, True)
        check_client(address, host)
    assert told == (400, True)


def check_client(address: Any, host: str) -> None:
    """Assert that these can be a client's."""
    if isinstance(address, tuple):
        assert 0 <= address[1] < 65_536
        if address[0] != "unknown" and not address[0].startswith("_"):
            assert str(ipaddress.ip_address(address[0])) == address[0]
    else:
        assert address == ""
    if host:
        split_host(host, 80)


# -- X-Forwarded-For ---------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ((), PROXY),
        (("",), PROXY),
        ((" , ,",), PROXY),
        (("8.8.8.8",), ("8.8.8.8", 0)),
        (("1.1.1.1, 8.8.8.8",), ("8.8.8.8", 0)),
        (("1.1.1.1, 8.8.8.8, 10.1.1.1",), ("8.8.8.8", 0)),
        (("1.1.1.1, 8.8.8.8", "10.1.1.1, 127.0.0.1"), ("8.8.8.8", 0)),
        (("1.1.1.1", "8.8.8.8"), ("8.8.8.8", 0)),
        (("8.8.8.8,,10.1.1.1, ",), ("8.8.8.8", 0)),
        (("10.2.2.2, 10.1.1.1",), ("10.2.2.2", 0)),
        (("8.8.8.8:1234",), ("8.8.8.8", 1234)),
        (("8.8.8.8:1234, 10.0.0.1:99",), ("8.8.8.8", 1234)),
        (("2001:db8::7",), ("2001:db8::7", 0)),
        (("2001:DB8:0:0::7",), ("2001:db8::7", 0)),
        (("[2001:db8::7]",), ("2001:db8::7", 0)),
        (("[2001:db8::7]:65535",), ("2001:db8::7", 65535)),
        (("8.8.8.8, 2001:db8:1::2",), ("8.8.8.8", 0)),
        (("::ffff:8.8.8.8",), ("8.8.8.8", 0)),
        (("8.8.8.8, ::ffff:10.0.0.1",), ("8.8.8.8", 0)),
        (("fe80::1%eth0",), ("fe80::1", 0)),
        (("unknown",), ("unknown", 0)),
        (("8.8.8.8, UNKNOWN",), ("unknown", 0)),
        (("8.8.8.8, _hidden.1",), ("_hidden.1", 0)),
        (("unix:",), ""),
        (("8.8.8.8, unix:",), ""),
        # What is left of the client's own address is the client's own word.
        (("rubbish, 8.8.8.8",), ("8.8.8.8", 0)),
        (("127.0.0.1, 8.8.8.8",), ("8.8.8.8", 0)),
    ],
)
def test_the_last_that_is_no_proxy(values: tuple[str, ...], address: Any) -> None:
    assert by_for(*values) == address


def test_a_unix_domain_socket_amid_proxies() -> None:
    trusted = (*TRUSTED, UNIX)
    assert by_for("8.8.8.8, unix:", trusted=trusted) == ("8.8.8.8", 0)
    assert by_for("8.8.8.8", peer="/run/nginx", trusted=trusted) == ("8.8.8.8", 0)


@pytest.mark.parametrize(
    "value",
    [
        "rubbish",
        "8.8.8",
        "8.8.8.256",
        "08.8.8.8",
        "8.8.8.8:",
        "8.8.8.8:x",
        "8.8.8.8:65536",
        "8.8.8.8:-1",
        "8.8.8.8/32",
        "8.8.8.8 9.9.9.9",
        "٨.8.8.8",
        "[8.8.8.8",
        "[::1",
        "::1]",
        "[::1]x",
        "[::1]:",
        ":::1",
        ":",
        "ab",
        "2001:db8::7:99999",
        '"8.8.8.8"',
        "for=8.8.8.8",
        "unix:/run/x",
        "unknown1",
        "_",
        "a" * 16_000,
        ":" * 16_000,
    ],
)
@pytest.mark.parametrize("tail", ["", ", 10.0.0.1"])
def test_what_a_proxy_must_not_say(value: str, tail: str) -> None:
    with pytest.raises(
        HeadError, match="X-Forwarded-For of a proxy cannot be understood"
    ) as caught:
        by_for("8.8.8.8, " + value + tail)
    assert caught.value.status == 400
    assert len(caught.value.text) < 400


@given(
    st.lists(st.ip_addresses().map(str), max_size=5),
    st.ip_addresses().map(str),
    st.lists(st.sampled_from(["127.0.0.1", "10.3.2.1", "[2001:db8:1::9]:80"]), max_size=3),
)
def test_a_client_cannot_choose_its_address(
    forged: list[str], address: str, proxies: list[str]
) -> None:
    """Whatever it sends, proxies append to it."""
    trusted = TrustedProxies(TRUSTED)
    if trusted.trusts((address, 0)):
        return
    expected = by_for(address)
    assert by_for(", ".join([*forged, address, *proxies])) == expected
    assert by_for(*forged, address, *proxies) == expected


# -- The scheme and the host -------------------------------------------------


@pytest.mark.parametrize(
    ("values", "secure"),
    [
        ((), False),
        (("https",), True),
        (("HTTPS",), True),
        (("wss",), True),
        (("http",), False),
        (("ws",), False),
        (("https, http",), False),
        (("https", "http"), False),
        (("http, https",), True),
        (("",), False),
    ],
)
def test_the_scheme_is_what_the_nearest_proxy_says(values: tuple[str, ...], secure: bool) -> None:
    fields = [("X-Forwarded-Proto", value) for value in values]
    assert client(*fields).secure is secure
    assert client(*fields, secure=True).secure is (secure or not any(values))


@pytest.mark.parametrize("value", ["ftp", "http https", "on", "https;", "http, x"])
def test_schemes_that_there_are_not(value: str) -> None:
    with pytest.raises(HeadError, match="X-Forwarded-Proto of a proxy cannot be understood"):
        client(("X-Forwarded-Proto", value))


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ([], ""),
        ([("Host", "a.example")], ""),
        ([("X-Forwarded-Host", "a.example")], "a.example"),
        ([("X-Forwarded-Host", "evil.example, a.example:81")], "a.example:81"),
        ([("X-Forwarded-Host", "[::1]:81")], "[::1]:81"),
        ([("X-Forwarded-Host", "a.example"), ("X-Forwarded-Port", "81")], "a.example:81"),
        ([("X-Forwarded-Host", "a.example:82"), ("X-Forwarded-Port", "81")], "a.example:82"),
        ([("X-Forwarded-Host", "a.example"), ("X-Forwarded-Port", "80")], "a.example"),
        ([("Host", "a.example"), ("X-Forwarded-Port", "9, 81")], "a.example:81"),
        ([("Host", "a.example:82"), ("X-Forwarded-Port", "81")], ""),
        ([("Host", "a.example"), ("Host", "b.example"), ("X-Forwarded-Port", "81")], ""),
        ([("X-Forwarded-Port", "81")], ""),
        (
            [
                ("Host", "a.example"),
                ("X-Forwarded-Port", "443"),
                ("X-Forwarded-Proto", "https"),
            ],
            "a.example",
        ),
    ],
)
def test_the_host(fields: list[tuple[str, str]], host: str) -> None:
    assert client(*fields).host == host


@pytest.mark.parametrize("value", ["a b", "a/b", "u@a", "a:b", "a:99999", "[::1", "a, b/"])
def test_hosts_that_there_are_not(value: str) -> None:
    with pytest.raises(HeadError, match="X-Forwarded-Host of a proxy cannot be understood"):
        client(("X-Forwarded-Host", value))


@pytest.mark.parametrize("value", ["x", "0", "65536", "-1", "8 0", "\u0665"])
def test_ports_that_there_are_not(value: str) -> None:
    with pytest.raises(HeadError, match="X-Forwarded-Port of a proxy cannot be understood"):
        client(("Host", "a"), ("X-Forwarded-Port", value))


def test_a_host_and_its_port() -> None:
    assert split_host("a.example:81", 443) == ("a.example", 81)
    assert split_host("[::1]", 443) == ("[::1]", 443)


def test_by_default_the_host_is_nobodys_to_say() -> None:
    fields = Headers(
        [
            ("Host", "a.example"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Port", "81"),
            ("Forwarded", "for=1.1.1.1;host=evil.example"),
            ("X-Forwarded-For", "8.8.8.8"),
        ]
    )
    assert TrustedProxies(TRUSTED).client(fields, PROXY, True) == Client(("8.8.8.8", 0), True, "")


# -- Forwarded ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((), Client(PROXY, False)),
        (("",), Client(PROXY, False)),
        (("for=8.8.8.8",), Client(("8.8.8.8", 0), False)),
        (("For=8.8.8.8; Proto=HTTPS ;host=a.example",), Client(("8.8.8.8", 0), True, "a.example")),
        (('for="8.8.8.8:99"',), Client(("8.8.8.8", 99), False)),
        (("for=8.8.8.8:99",), Client(("8.8.8.8", 99), False)),
        (('for="[2001:db8::7]:99";proto=https',), Client(("2001:db8::7", 99), True)),
        (('for="[2001:db8::7]"',), Client(("2001:db8::7", 0), False)),
        (('for="8.8\\.8.8";host="a.example:81"',), Client(("8.8.8.8", 0), False, "a.example:81")),
        (("for=unknown;proto=https",), Client(("unknown", 0), True)),
        (("proto=https",), Client(("unknown", 0), True)),
        (("for=_a1;by=_b2",), Client(("_a1", 0), False)),
        (
            ("for=1.1.1.1;proto=https;host=evil, for=8.8.8.8;proto=http;host=a",),
            Client(("8.8.8.8", 0), False, "a"),
        ),
        (
            ("for=1.1.1.1;proto=http", "for=8.8.8.8;proto=https;host=a, for=10.0.0.1;proto=http"),
            Client(("8.8.8.8", 0), True, "a"),
        ),
        (("for=10.2.2.2;proto=https,,for=10.1.1.1",), Client(("10.2.2.2", 0), True)),
        (('for=8.8.8.8;ext="a,b;c\\"d=e"',), Client(("8.8.8.8", 0), False)),
    ],
)
def test_forwarded(values: tuple[str, ...], found: Client) -> None:
    assert by_forwarded(*values) == found


@pytest.mark.parametrize(
    "value",
    [
        "8.8.8.8",
        "for",
        "for=",
        "for=8.8.8.8;for=9.9.9.9",
        "for=8.8.8.8;For=9.9.9.9",
        "for=rubbish",
        'for="8.8.8.8',
        "for=8.8.8.8 proto=https",
        "for = 8.8.8.8",
        "proto=ftp",
        'for=8.8.8.8;host="a b"',
        "for=8.8.8.8;host=/",
        "for=8.8.8.8=",
        "=8.8.8.8",
        'for="8.8.8.8"x',
        "for=8.8.8.8;" + " " * 16_000 + "!",
        'for="' + "\\a" * 8_000,
    ],
)
def test_forwarded_that_is_malformed(value: str) -> None:
    with pytest.raises(HeadError, match="Forwarded of a proxy cannot be understood"):
        by_forwarded(value)


@given(
    st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
        st.sampled_from(
            ['for=1.1.1.1;x="', 'for="1.1.1.1', "for=1.1.1.1", 'x="\\', "proto=https", "for=_x;"]
        ),
    ),
    st.sampled_from(
        ["for=8.8.8.8;proto=http", 'for="8.8.8.8:80";proto="http"', "proto=http;for=8.8.8.8"]
    ),
    st.sampled_from([", ", ","]),
)
def test_a_client_cannot_swallow_what_a_proxy_appends(forged: str, ours: str, comma: str) -> None:
    try:
        found = by_forwarded(forged + comma + ours)
    except HeadError:
        return
    assert found.address in (("8.8.8.8", 0), ("8.8.8.8", 80))
    assert not found.secure
