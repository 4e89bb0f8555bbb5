"""Which cookies are sent where, and which are kept. RFC 6265."""

from __future__ import annotations

import http.cookiejar
from typing import Any

import pytest

from syncws.client.cookies import CookieStore
from syncws.protocol.headers import Headers
from syncws.protocol.uri import parse_uri

HOST = "ws://app.example/chat/room"


def sent(store: CookieStore, url: str = HOST) -> set[str]:
    """Return the cookies of the header for `url`."""
    header = store.header(parse_uri(url))
    return set() if header is None else set(header.split("; "))


def answered(*values: str, url: str = HOST, store: CookieStore | None = None) -> CookieStore:
    """Return a store that has got a response with these Set-Cookie headers."""
    store = store or CookieStore()
    store.keep(parse_uri(url), Headers([("Set-Cookie", value) for value in values]))
    return store


def cookie(
    name: str = "name", value: str | None = "value", **options: Any
) -> http.cookiejar.Cookie:
    settings: dict[str, Any] = {
        "version": 0,
        "name": name,
        "value": value,
        "port": None,
        "port_specified": False,
        "domain": "app.example",
        "domain_specified": False,
        "domain_initial_dot": False,
        "path": "/",
        "path_specified": True,
        "secure": False,
        "expires": None,
        "discard": True,
        "comment": None,
        "comment_url": None,
        "rest": {},
    }
    return http.cookiejar.Cookie(**{**settings, **options})


def jar_of(*cookies: http.cookiejar.Cookie) -> http.cookiejar.CookieJar:
    jar = http.cookiejar.CookieJar()
    for one in cookies:
        jar.set_cookie(one)
    return jar


# -- What is given -----------------------------------------------------------


def test_no_cookies_no_header() -> None:
    for given in (None, {}, http.cookiejar.CookieJar()):
        assert CookieStore(given).header(parse_uri(HOST)) is None


@pytest.mark.parametrize(
    "url",
    [
        HOST,
        "wss://app.example/",
        "ws://localhost:8080/",
        "ws://127.0.0.1:1/x",
        "ws://[::1]:8080/x?y=z",
        "wss://a.b.c.example:1/",
    ],
)
def test_a_mappings_cookies_go_to_every_server(url: str) -> None:
    store = CookieStore({"session": "abc", "theme": "dark"})
    assert sent(store, url) == {"session=abc", "theme=dark"}


@pytest.mark.parametrize("value", ["", "a=b", '"quoted"', "!#$%&'()*+-./:<=>?@[]^_`{|}~", '""'])
def test_values_that_a_cookie_may_have(value: str) -> None:
    assert CookieStore({"name": value}).header(parse_uri(HOST)) == f"name={value}"


@pytest.mark.parametrize(
    "value", ["a b", "a;b", "a,b", "a\\b", 'a"b', '"', '"a', 'a"', '"a b"', "é", "\u65e5", "a\r\nb"]
)
def test_values_that_no_cookie_may_have(value: str) -> None:
    with pytest.raises(ValueError, match="name"):
        CookieStore({"name": value})


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "a\n", "é"])
def test_names_that_no_cookie_may_have(name: str) -> None:
    with pytest.raises(ValueError):
        CookieStore({name: "value"})


@pytest.mark.parametrize(("name", "value"), [("name", 5), ("name", None), (5, "x"), ("n", b"x")])
def test_names_and_values_are_text(name: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="a cookie is a str and its value a str"):
        CookieStore({name: value})


@pytest.mark.parametrize("given", ["a=b", [("a", "b")], b"a=b", 5, [cookie()]])
def test_what_is_neither_a_mapping_nor_a_jar(given: Any) -> None:
    with pytest.raises(TypeError, match="a mapping of names to values or a CookieJar, not"):
        CookieStore(given)


def test_a_jar_is_copied() -> None:
    given = jar_of(cookie("mine"))
    store = CookieStore(given)
    assert store.jar is not given
    answered("theirs=1; Path=/", store=store)
    assert [one.name for one in given] == ["mine"]
    assert {one.name for one in store.jar} == {"mine", "theirs"}
    given.clear()
    assert sent(store) == {"mine=value", "theirs=1"}


def test_two_clients_have_a_jar_each() -> None:
    given = jar_of(cookie())
    first, second = CookieStore(given), CookieStore(given)
    answered("theirs=1", store=first)
    assert sent(first) == {"name=value", "theirs=1"}
    assert sent(second) == {"name=value"}


def test_the_jar_may_be_added_to() -> None:
    store = CookieStore()
    store.jar.set_cookie(cookie())
    assert sent(store) == {"name=value"}


def test_a_session_of_requests() -> None:
    requests = pytest.importorskip("requests")
    with requests.Session() as session:
        session.cookies.set("everywhere", "1")
        session.cookies.set("here", "2", domain="app.example", path="/chat")
        session.cookies.set("elsewhere", "3", domain="other.example")
        store = CookieStore(session.cookies)
    assert sent(store) == {"everywhere=1", "here=2"}
    assert sent(store, "ws://app.example/") == {"everywhere=1"}
    assert sent(store, "ws://other.example/") == {"everywhere=1", "elsewhere=3"}


# -- Where cookies go --------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "url", "goes"),
    [
        ("app.example", "ws://app.example/", True),
        ("app.example", "ws://app.example:8080/", True),
        ("app.example", "ws://APP.example/", True),
        ("app.example", "ws://other.example/", False),
        ("app.example", "ws://badapp.example/", False),
        ("app.example", "ws://app.example.evil.example/", False),
        (".app.example", "ws://app.example/", True),
        (".app.example", "ws://sub.app.example/", True),
        (".app.example", "ws://badapp.example/", False),
        (".app.example", "ws://example/", False),
        ("127.0.0.1", "ws://127.0.0.1:9/", True),
        ("127.0.0.1", "ws://127.0.0.2:9/", False),
        ("localhost.local", "ws://localhost:9/", True),
    ],
)
def test_the_domain_decides(domain: str, url: str, goes: bool) -> None:
    given = cookie(domain=domain, domain_specified=domain.startswith("."))
    assert sent(CookieStore(jar_of(given)), url) == ({"name=value"} if goes else set())


def test_a_cookie_without_a_domain_goes_back_to_its_host_only() -> None:
    """RFC 6265 section 5.4: the host-only-flag."""
    store = answered("name=value; Path=/")
    assert sent(store) == {"name=value"}
    assert sent(store, "ws://sub.app.example/") == set()


def test_a_cookie_with_a_domain_goes_to_its_subdomains() -> None:
    store = answered("name=value; Path=/; Domain=app.example")
    assert sent(store) == {"name=value"}
    assert sent(store, "ws://sub.app.example/") == {"name=value"}
    assert sent(store, "ws://example/") == set()


@pytest.mark.parametrize(
    ("path", "target", "goes"),
    [
        ("/", "/", True),
        ("/", "/a/b", True),
        ("/a", "/a", True),
        ("/a", "/a/b", True),
        ("/a", "/a?b", True),
        ("/a/", "/a/b", True),
        ("/a", "/ab", False),
        ("/a", "/", False),
        ("/a/b", "/a", False),
        ("/A", "/a", False),
    ],
)
def test_the_path_decides(path: str, target: str, goes: bool) -> None:
    store = CookieStore(jar_of(cookie(path=path)))
    assert sent(store, f"ws://app.example{target}") == ({"name=value"} if goes else set())


def test_secure_cookies_go_over_tls_only() -> None:
    store = CookieStore(jar_of(cookie("open"), cookie("secret", secure=True)))
    assert sent(store, "ws://app.example/") == {"open=value"}
    assert sent(store, "wss://app.example/") == {"open=value", "secret=value"}


def test_expired_cookies_are_not_sent() -> None:
    store = CookieStore(jar_of(cookie("old", expires=1), cookie("new", expires=2**40)))
    assert sent(store) == {"new=value"}


def test_a_cookie_that_expires_is_not_sent_from_then_on() -> None:
    store = answered("name=value; Max-Age=100000")
    assert sent(store) == {"name=value"}
    (kept,) = store.jar
    kept.expires = 1
    assert sent(store) == set()


def test_what_comes_later_is_looked_at_with_each_handshake() -> None:
    store = CookieStore({"name": "first"})
    store.jar.clear()
    store.jar.set_cookie(cookie(value="second"))
    assert sent(store) == {"name=second"}


# -- What is kept ------------------------------------------------------------


def test_several_cookies_of_one_response() -> None:
    store = answered("a=1", "b=2; Path=/", "c=3; Path=/elsewhere", "d=4; HttpOnly; SameSite=Lax")
    assert sent(store) == {"a=1", "b=2", "d=4"}
    assert sent(store, "ws://app.example/elsewhere") == {"b=2", "c=3"}


def test_an_expiry_with_a_comma() -> None:
    store = answered(
        "old=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT",
        "new=2; Expires=Fri, 21 Oct 2157 07:28:00 GMT",
    )
    assert sent(store) == {"new=2"}


def test_a_later_response_replaces_and_removes() -> None:
    store = answered("a=1", "b=2", "c=3")
    answered("a=one", "b=gone; Max-Age=0", store=store)
    assert sent(store) == {"a=one", "c=3"}


def test_a_response_without_cookies_changes_nothing() -> None:
    store = CookieStore({"mine": "1"})
    store.keep(parse_uri(HOST), Headers([("Server", "x")]))
    assert sent(store) == {"mine=1"}


@pytest.mark.parametrize(
    "value", ["a=1; Domain=other.example", "a=1; Domain=.example", "a=1; Domain=sub.app.example"]
)
def test_a_server_sets_no_cookies_for_others(value: str) -> None:
    store = answered(value)
    assert list(store.jar) == []
    for url in (HOST, "ws://other.example/", "ws://sub.app.example/", "ws://any.example/"):
        assert sent(store, url) == set()


def test_a_secure_cookie_over_tls_is_not_sent_without() -> None:
    store = answered("a=1; Secure; Path=/", url="wss://app.example/")
    assert sent(store, "wss://app.example/") == {"a=1"}
    assert sent(store, "ws://app.example/") == set()


@pytest.mark.parametrize("value", ["", ";", "=", "; Path=/", "\xe9=\xe8", 'a="', "a=1; Max-Age=x"])
def test_nonsense_does_no_harm(value: str) -> None:
    store = answered(value, "good=1; Path=/")
    assert "good=1" in sent(store)


@pytest.mark.parametrize("url", ["ws://localhost:8080/", "ws://127.0.0.1/", "ws://[::1]:8080/"])
def test_names_and_addresses_without_a_dot(url: str) -> None:
    assert sent(answered("a=1", url=url), url) == {"a=1"}
