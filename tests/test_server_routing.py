"""Which service a path leads to."""

from __future__ import annotations

import itertools
import re
import time
import uuid
from typing import Any

import pytest

import syncws
from syncws.callbacks import ServiceSpec
from syncws.server import routing
from syncws.server.routing import Route, Router, parameters_of


class Chat(syncws.Service):
    def on_text(self, caller: Any, text: str) -> None: ...


def spec(service: Any = Chat) -> ServiceSpec:
    return ServiceSpec(service, client=False)


def test_a_path_leads_to_its_service() -> None:
    router = Router()
    chat, other = spec(), spec()
    router.attach("/chat", chat)
    router.attach("/", other)
    assert router.match("/chat") == Route("/chat", chat)
    assert router.match("/") == Route("/", other)
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
    before = router._table
    router.attach("/two", spec())
    router.detach("/one")
    assert list(before.routes) == [("", "one")]


@pytest.mark.parametrize("path", ["/%ff", "/a/%C3", "/%ED%A0%80", "/%C0%AF", "/a%80b/x"])
def test_a_path_that_is_no_utf_8_matches_nothing(path: str) -> None:
    router = Router()
    router.attach("/{name}", spec())
    router.attach("/x/{rest:path}", spec())
    router.attach("/\ufffd", spec())
    assert router.match(path) is None
    assert router.match(f"/x{path}") is None
    with pytest.raises(ValueError, match="is not UTF-8 where it is percent-encoded"):
        router.attach(path, spec())


# -- Templates -------------------------------------------------------

ID = "12345678-1234-5678-9abc-def012345678"


def params(template: str, raw: str) -> dict[str, Any] | None:
    """Return what the parameters of a template get of a path, None if it does not match."""
    router = Router()
    router.attach(template, spec())
    found = router.match(raw)
    if found is None:
        return None
    assert found.path == template
    return dict(found.params)


@pytest.mark.parametrize(
    ("template", "raw", "found"),
    [
        ("/chat/{name}", "/chat/anna", {"name": "anna"}),
        ("/chat/{name}", "/chat/a%20b", {"name": "a b"}),
        ("/chat/{name}", "/chat/%C3%A4", {"name": "\xe4"}),
        ("/chat/{name}", "/chat/a%2Fb", {"name": "a/b"}),
        ("/chat/{name}", "/chat/%2e%2e", {"name": ".."}),
        ("/chat/{name}", "/chat/%7Bname%7D", {"name": "{name}"}),
        ("/chat/{name}", "/chat/a+b", {"name": "a+b"}),
        ("/chat/{name}", "/%63hat/x", {"name": "x"}),
        ("/chat/{name:str}", "/chat/7", {"name": "7"}),
        ("/{a}/{b}", "/x/y", {"a": "x", "b": "y"}),
        ("/{a}/x/{b}", "/1/x/2", {"a": "1", "b": "2"}),
        ("/{a}/", "/x/", {"a": "x"}),
        ("/{a}", "/x", {"a": "x"}),
        ("/{größe}", "/x", {"größe": "x"}),
        ("/{room:int}", "/7", {"room": 7}),
        ("/{room:int}", "/007", {"room": 7}),
        ("/{room:int}", "/%37", {"room": 7}),
        ("/{room:int}", "/999999999999999999", {"room": 10**18 - 1}),
        ("/{x:float}", "/1.5", {"x": 1.5}),
        ("/{x:float}", "/2", {"x": 2.0}),
        ("/{id:uuid}", f"/{ID}", {"id": uuid.UUID(ID)}),
        ("/{id:uuid}", f"/{ID.upper()}", {"id": uuid.UUID(ID)}),
        ("/f/{rest:path}", "/f/a", {"rest": "a"}),
        ("/f/{rest:path}", "/f/a/b//c/", {"rest": "a/b//c/"}),
        ("/f/{rest:path}", "/f/a%2Fb/c", {"rest": "a/b/c"}),
        ("/{rest:path}", "/a/b", {"rest": "a/b"}),
        ("/{n:int}/{rest:path}", "/1/x/y", {"n": 1, "rest": "x/y"}),
    ],
)
def test_a_template_matches(template: str, raw: str, found: dict[str, Any]) -> None:
    got = params(template, raw)
    assert got == found
    assert got is not None
    assert [type(value) for value in got.values()] == [type(value) for value in found.values()]


@pytest.mark.parametrize(
    ("template", "raw"),
    [
        ("/chat/{name}", "/chat/"),
        ("/chat/{name}", "/chat"),
        ("/chat/{name}", "/chat/a/b"),
        ("/chat/{name}", "/chat/a/"),
        ("/chat/{name}", "/Chat/a"),
        ("/chat/{name}", "//chat/a"),
        ("/{a}/{b}", "/x"),
        ("/{a}/{b}", "//y"),
        ("/{room:int}", "/"),
        ("/{room:int}", "/x"),
        ("/{room:int}", "/-7"),
        ("/{room:int}", "/+7"),
        ("/{room:int}", "/7.0"),
        ("/{room:int}", "/7%0A"),
        ("/{room:int}", "/1_0"),
        ("/{room:int}", "/%D9%A3"),  # a digit, but not one of ours
        ("/{room:int}", "/1000000000000000000"),
        ("/{x:float}", "/1."),
        ("/{x:float}", "/.5"),
        ("/{x:float}", "/1e5"),
        ("/{x:float}", "/inf"),
        ("/{x:float}", "/nan"),
        ("/{x:float}", "/" + "1" * 400),
        ("/{id:uuid}", "/" + ID.replace("-", "")),
        ("/{id:uuid}", "/{" + ID + "}"),
        ("/{id:uuid}", f"/{ID}0"),
        ("/f/{rest:path}", "/f"),
        ("/f/{rest:path}", "/f/"),
        ("/f/{rest:path}", "/f//etc"),
        ("/f/{rest:path}", "/g/x"),
    ],
)
def test_a_template_does_not_match(template: str, raw: str) -> None:
    assert params(template, raw) is None


# Each of them matches a path that all before it do not, or is less specific there.
RANKED = [
    "/a/b/c",
    "/a/b/{x:int}",
    "/a/b/{x}",
    "/a/{x:int}/c",
    "/a/{x:int}/{rest:path}",
    "/a/{x:float}/c",
    "/a/{x:uuid}/c",
    "/a/{x}/c",
    "/a/{x}/{y}",
    "/a/{rest:path}",
    "/{x:int}/b/c",
    "/{x}/b/c",
    "/{rest:path}",
]


@pytest.mark.parametrize("order", [RANKED, RANKED[::-1], RANKED[::2] + RANKED[1::2]])
@pytest.mark.parametrize(
    ("raw", "best"),
    [
        ("/a/b/c", "/a/b/c"),
        ("/a/%62/c", "/a/b/c"),
        ("/a/b/5", "/a/b/{x:int}"),
        ("/a/b/x", "/a/b/{x}"),
        ("/a/5/c", "/a/{x:int}/c"),
        ("/a/5/d", "/a/{x:int}/{rest:path}"),
        ("/a/5/d/e", "/a/{x:int}/{rest:path}"),
        ("/a/1.5/c", "/a/{x:float}/c"),
        (f"/a/{ID}/c", "/a/{x:uuid}/c"),
        ("/a/x/c", "/a/{x}/c"),
        ("/a/1.5/d", "/a/{x}/{y}"),  # no float goes on like this
        ("/a/x/y/z", "/a/{rest:path}"),
        ("/a/b", "/a/{rest:path}"),
        ("/5/b/c", "/{x:int}/b/c"),
        ("/x/b/c", "/{x}/b/c"),
        ("/x/b/d", "/{rest:path}"),
        ("/5", "/{rest:path}"),
    ],
)
def test_the_most_specific_wins_whatever_the_order(order: list[str], raw: str, best: str) -> None:
    assert sorted(order) == sorted(RANKED)
    router = Router()
    for template in order:
        router.attach(template, spec())
    found = router.match(raw)
    assert found is not None
    assert found.path == best


def test_a_template_that_matched_in_part_leaves_no_value_behind() -> None:
    router = Router()
    router.attach("/{a:int}/{b:int}/x", spec())
    router.attach("/{c}/{d}/{e}", spec())
    found = router.match("/1/2/y")
    assert found is not None
    assert found.params == {"c": "1", "d": "2", "e": "y"}


def test_each_match_has_parameters_of_its_own() -> None:
    router = Router()
    router.attach("/{a}", spec())
    one, other = router.match("/1"), router.match("/2")
    assert one is not None
    assert other is not None
    assert (one.params, other.params) == ({"a": "1"}, {"a": "2"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/chat/{name}", "/chat/{id}"),
        ("/chat/{name}", "/chat/{name:str}"),
        ("/chat/{name}", "/%63hat/{x}"),
        ("/{a:int}/{b}", "/{c:int}/{d}"),
        ("/f/{rest:path}", "/f/{all:path}"),
    ],
)
def test_templates_of_the_same_shape_clash(one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        router = Router()
        router.attach(first, spec())
        with pytest.raises(ValueError, match="has a service already") as caught:
            router.attach(second, spec())
        assert repr(first) in str(caught.value)
        assert repr(second) in str(caught.value)
        router.detach(second)
        router.attach(second, spec())


def test_templates_of_other_shapes_do_not_clash() -> None:
    router = Router()
    for template in ("/{a}", "/{a:int}", "/{a:float}", "/{a:uuid}", "/{a:path}", "/a", "/{a}/"):
        router.attach(template, spec())


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("/room-{id}", "a parameter is a whole segment"),
        ("/{id}.json", "a parameter is a whole segment"),
        ("/{a}{b}", "a parameter is a whole segment"),
        ("/{a", "a parameter is a whole segment"),
        ("/a}", "a parameter is a whole segment"),
        ("/{{a}}", "a parameter is a whole segment"),
        ("/{a/b}", "a parameter is a whole segment"),
        ("/{a:int:x}", "'int:x' is no type"),
        ("/{", "%7B"),
        ("/{}", "write a Python identifier"),
        ("/{:int}", "write a Python identifier"),
        ("/{room id}", "write a Python identifier"),
        ("/{room-id}", "write a Python identifier"),
        ("/{7}", "write a Python identifier"),
        ("/{ a}", "write a Python identifier"),
        ("/{class}", "write a Python identifier"),
        ("/{a:}", "'' is no type"),
        ("/{a:integer}", "one of int, float, uuid, str, path"),
        ("/{a:Int}", "'Int' is no type"),
        ("/{a}/{a}", "two parameters 'a'"),
        ("/{a:int}/x/{a:path}", "two parameters 'a'"),
        ("/{rest:path}/x", "{rest:path} must come last"),
        ("/{rest:path}/", "{rest:path} must come last"),
        ("/{rest:path}/{a}", "{rest:path} must come last"),
    ],
)
def test_a_template_that_is_not_understood(template: str, text: str) -> None:
    router = Router()
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        router.attach(template, spec())
    assert repr(template) in str(caught.value)
    with pytest.raises(ValueError, match=re.escape(text)):
        router.detach(template)


def test_braces_that_are_no_parameter_are_percent_encoded() -> None:
    router = Router()
    router.attach("/%7Ba%7D", spec())
    assert router.match("/x") is None
    for raw in ("/%7Ba%7D", "/{a}"):
        found = router.match(raw)
        assert found is not None
        assert found.params == {}


def test_detach_a_template() -> None:
    router = Router()
    one, other = spec(), spec(Chat())
    router.attach("/{a}", one)
    router.attach("/x/{b:int}", one)
    router.attach("/{rest:path}", other)
    router.detach("/{a}")
    found = router.match("/x")
    assert found is not None
    assert found.spec is other
    router.detach(Chat)
    found = router.match("/x/1")
    assert found is not None
    assert found.spec is other
    with pytest.raises(ValueError, match=re.escape("the attached paths are: '/{rest:path}'")):
        router.detach("/x/{b:int}")


def test_the_parameters_of_a_path() -> None:
    assert parameters_of("/a/b") == ()
    assert parameters_of("/{b}/x/{a:int}/{c:path}") == ("b", "a", "c")


class CountingStr(str):
    """A segment that counts how often it is looked at."""

    looks = 0

    def __hash__(self) -> int:
        CountingStr.looks += 1
        return super().__hash__()

    __eq__ = str.__eq__


def test_hostile_paths_cost_no_more_than_others() -> None:
    """Every branch matches up to the last segment, and there none does."""
    router = Router()
    kinds = ["1", "{x%d:int}", "{x%d:float}", "{x%d}"]
    for shape in itertools.product(kinds, repeat=4):
        segments = [kind % at if "%" in kind else kind for at, kind in enumerate(shape)]
        router.attach("/" + "/".join([*segments, "end"]), spec())
    nodes = sum(len(kinds) ** depth for depth in range(1, 5))
    segments = ["", *(CountingStr("1") for _ in range(4)), "no"]
    CountingStr.looks = 0
    root = router._table.root
    assert root is not None
    assert routing._find(root, segments, 0, []) is None
    assert CountingStr.looks <= nodes
    # What comes behind is not looked at, and no expression goes back and forth.
    began = time.thread_time()  # what it costs, not what others cost meanwhile
    for raw in ("/1" * 8000, "/" + "1" * 16_000, "/" + "1." * 8000, "/" * 16_000):
        assert router.match(raw) is None
    assert time.thread_time() - began < 1.0


# -- Resources -------------------------------------------------------


def test_a_path_leads_to_its_resource() -> None:
    def resource(http: Any, request: Any) -> None: ...

    router = Router()
    with_service = spec()
    router.attach("/one", with_service, resource)
    router.attach("/two/{a}", None, resource)
    assert router.match("/one") == Route("/one", with_service, resource)
    assert router.match("/two/x") == Route("/two/{a}", None, resource, {"a": "x"})
    router.detach(resource)
    assert router.match("/one") is router.match("/two/x") is None
    with pytest.raises(ValueError, match="is not attached"):
        router.detach(resource)


def test_a_resource_goes_with_its_service_too() -> None:
    router = Router()
    router.attach("/one", spec(), print)
    router.attach("/two", None, print)
    router.detach(Chat)
    assert router.match("/one") is None
    assert router.match("/two") is not None
    with pytest.raises(ValueError, match="None is not attached"):
        router.detach(None)  # type: ignore[arg-type]
    assert router.match("/two") is not None


def test_a_method_is_the_same_resource_each_time() -> None:
    class Resources:
        def one(self, http: Any, request: Any) -> None: ...

    resources, others = Resources(), Resources()
    router = Router()
    router.attach("/one", None, resources.one)
    router.attach("/two", None, others.one)
    router.detach(resources.one)
    assert router.match("/one") is None
    assert router.match("/two") is not None


@pytest.mark.parametrize(
    ("path", "instead"),
    [("/chat/<name>", "{name}"), ("/rooms/<int:room>/x", "{room}"), ("/<path:rest>", "{rest}")],
)
def test_parameters_as_others_write_them(path: str, instead: str) -> None:
    with pytest.raises(ValueError, match="is no parameter") as caught:
        Router().attach(path, spec())
    assert f"write {instead}" in str(caught.value)


def test_a_type_before_the_name() -> None:
    with pytest.raises(ValueError, match=r"the type comes last: write \{room:int\}"):
        Router().attach("/{int:room}", spec())
