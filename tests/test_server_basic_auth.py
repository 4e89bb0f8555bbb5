"""Lets in those who know their password."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

import syncws
from syncws.protocol.basic import basic_authorization
from syncws.protocol.headers import Headers

USERS = {"ann": "secret", "bob": "", "j\u00fcrgen": "gr\u00fc\u00dfe"}


def request(user: str | None, password: str = "") -> syncws.Request:
    headers = [] if user is None else [("Authorization", basic_authorization(user, password))]
    return syncws.Request("GET", "/", "/", "", Headers(headers))


@pytest.mark.parametrize(
    ("user", "password", "right"),
    [
        ("ann", "secret", True),
        ("j\u00fcrgen", "gr\u00fc\u00dfe", True),
        ("bob", "", True),
        ("bob", "x", False),
        ("ann", "", False),
        ("ann", "Secret", False),
        ("ann", "secret ", False),
        ("ann", "secre", False),
        ("Ann", "secret", False),
        ("eve", "secret", False),
        ("eve", "", False),
        ("", "", False),
        (None, "", False),
    ],
)
@pytest.mark.parametrize("mapping", [True, False], ids=["mapping", "function"])
def test_users(user: str | None, password: str, right: bool, mapping: bool) -> None:
    def check(name: str, given: str) -> bool:
        return USERS.get(name) == given

    auth = syncws.BasicAuth(USERS if mapping else check)
    assert auth.user_of(request(user, password)) == (user if right else None)


def test_whoever_is_asked_for_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    auth = syncws.BasicAuth({"ann": "a secret that is longer than any digest" * 10, "bob": ""})
    for user, password in (
        ("ann", "wrong"),
        ("ann", "a secret that is longer than any digest" * 10),
        ("bob", ""),
        ("bob", "wrong" * 100),
        ("eve", "wrong"),
        ("eve", ""),
    ):
        auth.user_of(request(user, password))
        assert compared == [(32, 32)], (user, password)
        compared.clear()


def test_nobody_is_let_in_for_a_user_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: True)
    auth = syncws.BasicAuth({"ann": "secret"})
    assert auth.user_of(request("eve", "x")) is None
    assert syncws.BasicAuth({}).user_of(request("", "")) is None


def test_the_mapping_is_copied() -> None:
    users = {"ann": "secret"}
    auth = syncws.BasicAuth(users)
    users["eve"] = "evil"
    del users["ann"]
    assert auth.user_of(request("eve", "evil")) is None
    assert auth.user_of(request("ann", "secret")) == "ann"


def test_a_function_is_not_asked_about_nothing() -> None:
    asked: list[tuple[str, str]] = []

    def check(user: str, password: str) -> bool:
        asked.append((user, password))
        return False

    auth = syncws.BasicAuth(check)
    assert auth.user_of(request(None)) is None
    assert asked == []
    assert auth.user_of(request("ann", "x:y")) is None
    assert asked == [("ann", "x:y")]


@pytest.mark.parametrize("result", [None, 1, "yes", object(), ("ann",)])
def test_a_function_says_true_or_false(result: Any) -> None:
    auth = syncws.BasicAuth(lambda user, password: result)
    with pytest.raises(TypeError, match="must return True or False") as caught:
        auth.user_of(request("ann", "secret"))
    assert "secret" not in str(caught.value)


def test_what_a_function_raises_lets_nobody_in() -> None:
    def broken(user: str, password: str) -> bool:
        raise LookupError("no database")

    with pytest.raises(LookupError):
        syncws.BasicAuth(broken).user_of(request("ann", "secret"))


@pytest.mark.parametrize(
    ("realm", "value"),
    [
        ("chat", 'Basic realm="chat", charset="UTF-8"'),
        ("", 'Basic realm="", charset="UTF-8"'),
        ('the "chat" \\ room', 'Basic realm="the \\"chat\\" \\\\ room", charset="UTF-8"'),
        ('", charset="X', 'Basic realm="\\", charset=\\"X", charset="UTF-8"'),
        ("caf\u00e9", 'Basic realm="caf\u00e9", charset="UTF-8"'),
    ],
)
def test_the_challenge(realm: str, value: str) -> None:
    auth = syncws.BasicAuth({}, realm)
    assert auth.challenge == {"WWW-Authenticate": value}
    auth.challenge.clear()
    assert auth.challenge == {"WWW-Authenticate": value}


@pytest.mark.parametrize("char", ["\r", "\n", "\0", "\t", "\x1f", "\x7f", "\x85", "\u20ac"])
def test_a_realm_that_cannot_be_sent(char: str) -> None:
    with pytest.raises(ValueError, match=r"control character|latin-1"):
        syncws.BasicAuth({}, "chat" + char)


def test_arguments_of_wrong_types() -> None:
    async def asynchronous(user: str, password: str) -> bool:
        return False

    class Asynchronous:
        async def __call__(self, user: str, password: str) -> bool:
            return False

    for users, text in (
        (None, "mapping of names"),
        ([("ann", "secret")], "mapping of names"),
        ("ann:secret", "mapping of names"),
        (asynchronous, "not async"),
        (Asynchronous(), "not async"),
        ({"ann": b"secret"}, "a str"),
        ({"ann": None}, "a str"),
        ({1: "secret"}, "a str"),
    ):
        wrong: Any = users
        with pytest.raises(TypeError, match=text) as caught:
            syncws.BasicAuth(wrong)
        assert "secret" not in str(caught.value)
    realm: Any = b"chat"
    with pytest.raises(TypeError, match="realm must be a str"):
        syncws.BasicAuth({}, realm)


@pytest.mark.parametrize(
    "users", [{"a:nn": "secret"}, {"ann\n": "secret"}, {"ann": "secret\r"}, {"ann": "\0secret"}]
)
def test_users_that_could_not_be_sent(users: dict[str, str]) -> None:
    with pytest.raises(ValueError) as caught:
        syncws.BasicAuth(users)
    assert "secret" not in str(caught.value)


def test_it_shows_nobody() -> None:
    auth = syncws.BasicAuth({"ann": "secret"}, "chat")
    assert repr(auth) == "<syncws.BasicAuth 'chat'>"
    kept = [getattr(auth, name) for name in type(auth).__slots__]
    assert "secret" not in repr(kept), "not even in there"
