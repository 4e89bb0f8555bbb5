"""Which service a path leads to."""

from __future__ import annotations

from typing import Any

import pytest

import syncws
from syncws.callbacks import ServiceSpec
from syncws.server.routing import Router


class Chat(syncws.Service):
    def on_text(self, caller: Any, text: str) -> None: ...


def spec(service: Any = Chat) -> ServiceSpec:
    return ServiceSpec(service, client=False)


def test_a_path_leads_to_its_service() -> None:
    router = Router()
    chat, other = spec(), spec()
    router.attach("/chat", chat)
    router.attach("/", other)
    assert router.match("/chat") == ("/chat", chat)
    assert router.match("/") == ("/", other)
    for path in ("/chat/", "/chats", "/Chat", "//chat", "/chat/x", "/chat//", "chat", ""):
        assert router.match(path) is None, path


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/a b", "/a%20b"),
        ("/a%20b", "/a%20b"),
        ("/ä", "/%C3%A4"),
        ("/%C3%A4", "/%c3%a4"),
        ("/chat", "/%63hat"),
        ("/a/b", "/a/b"),
        ("/a%2Fb", "/a%2fb"),
    ],
)
def test_paths_match_decoded(path: str, raw: str) -> None:
    router = Router()
    router.attach(path, spec())
    found = router.match(raw)
    assert found is not None
    assert found[0] == path


def test_an_encoded_slash_separates_nothing() -> None:
    router = Router()
    router.attach("/a/b", spec())
    assert router.match("/a%2Fb") is None
    router.attach("/a%2Fb", spec())  # another path


@pytest.mark.parametrize("path", ["chat", "", "http://x/chat", "*", " /chat"])
def test_a_path_begins_with_a_slash(path: str) -> None:
    router = Router()
    with pytest.raises(ValueError, match="must begin with a slash") as caught:
        router.attach(path, spec())
    assert repr(path) in str(caught.value)
    with pytest.raises(ValueError, match="must begin with a slash"):
        router.detach(path)


@pytest.mark.parametrize("path", ["/chat?x=1", "/chat#top", "/?"])
def test_a_path_has_no_query_and_no_fragment(path: str) -> None:
    with pytest.raises(ValueError, match="no query and no fragment"):
        Router().attach(path, spec())


@pytest.mark.parametrize("path", [None, b"/chat", 3])
def test_a_path_is_a_str(path: Any) -> None:
    with pytest.raises(TypeError, match="a path is a str"):
        Router().attach(path, spec())


@pytest.mark.parametrize("again", ["/a b", "/a%20b"])
def test_a_path_is_taken_once(again: str) -> None:
    router = Router()
    router.attach("/a b", spec())
    with pytest.raises(ValueError, match="has a service already: detach it first"):
        router.attach(again, spec())
    router.detach(again)
    router.attach(again, spec())


def test_detach_by_path() -> None:
    router = Router()
    router.attach("/one", spec())
    router.attach("/two", spec())
    router.detach("/one")
    assert router.match("/one") is None
    assert router.match("/two") is not None
    with pytest.raises(ValueError, match="'/one' is not attached; the attached paths are: '/two'"):
        router.detach("/one")


@pytest.mark.parametrize("service", [Chat, Chat()])
def test_detach_by_service_forgets_all_its_paths(service: Any) -> None:
    router = Router()
    for path in ("/one", "/two"):
        router.attach(path, spec(service))
    router.attach("/other", spec(Chat()))
    router.detach(service)
    assert router.match("/one") is router.match("/two") is None
    assert router.match("/other") is not None


def test_another_instance_of_the_same_class_is_another_service() -> None:
    router = Router()
    router.attach("/", spec(Chat()))
    for service in (Chat(), Chat):
        with pytest.raises(ValueError, match="is not attached"):
            router.detach(service)
    assert router.match("/") is not None


def test_services_that_compare_equal_are_not_the_same() -> None:
    class Equal(Chat):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    router = Router()
    router.attach("/", spec(Equal()))
    with pytest.raises(ValueError, match="is not attached"):
        router.detach(Equal())


def test_a_table_in_use_is_replaced_not_changed() -> None:
    router = Router()
    router.attach("/one", spec())
    before = router._routes
    router.attach("/two", spec())
    router.detach("/one")
    assert list(before) == [("", "one")]
