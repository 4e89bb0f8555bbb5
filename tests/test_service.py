"""What a service looks like: callbacks, names and parameters, as `ServiceSpec` sees them."""

from __future__ import annotations

import functools
import gc
import re
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import syncws
from syncws import callbacks
from syncws.callbacks import ServiceSpec

CALLBACKS = {
    "on_open": 1,
    "on_text": 2,
    "on_binary": 2,
    "on_ping": 2,
    "on_pong": 2,
    "on_idle_timeout": 1,
    "on_error": 2,
    "on_close": 3,
}


def service_class(**members: Any) -> type[syncws.Service]:
    return type("Mine", (syncws.Service,), members)


def spec_of(**members: Any) -> ServiceSpec:
    return ServiceSpec(service_class(**members)(), client=False)


def refused(error: type[Exception], text: str, **members: Any) -> None:
    """Neither the instance nor the class passes, and the error says so."""
    cls = service_class(**members)
    for service in (cls(), cls):
        with pytest.raises(error, match=re.escape(text)):
            ServiceSpec(service, client=False)


# -- The service itself ------------------------------------------------------


class NoService:
    def on_text(self, caller: Any, text: str) -> None: ...


@pytest.mark.parametrize("value", [NoService(), NoService, None, "chat", print, syncws.Listener])
def test_only_services_are_services(value: Any) -> None:
    with pytest.raises(
        TypeError, match=r"a service is an instance or a subclass of syncws\.Service"
    ):
        ServiceSpec(value, client=False)


@pytest.mark.parametrize("value", [syncws.Service, syncws.Service()])
def test_a_service_has_a_callback(value: Any) -> None:
    with pytest.raises(TypeError, match="Service has no callback: define one of on_open, on_text"):
        ServiceSpec(value, client=False)


def test_the_base_class_has_no_callback_and_the_default_config() -> None:
    assert not [name for name in dir(syncws.Service) if name.startswith("on_")]
    assert syncws.Service.config == syncws.ServiceConfig()


@pytest.mark.parametrize("config", [{"idle_timeout": 3}, None, syncws.ServiceConfig])
def test_the_config_is_a_service_config(config: Any) -> None:
    refused(TypeError, "config", config=config, on_text=lambda self, caller, text: None)


def test_a_clients_service_need_not_have_a_config_for_listeners() -> None:
    spec = ServiceSpec(service_class(on_text=lambda self, caller, text: None), client=True)
    assert spec.has == {"on_text"}


# -- Names -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("on_txt", "on_text"),
        ("on_message", "on_text"),
        ("on_connect", "on_open"),
        ("on_disconnect", "on_close"),
        ("on_test", "on_text"),
        ("on_idle", "on_idle_timeout"),
        ("on_closed", "on_close"),
        ("on_binary_message", "on_binary"),
        ("on_qqqqqqqq", None),
    ],
)
def test_a_misspelt_callback_is_refused_with_what_was_meant(name: str, meant: str | None) -> None:
    members = {name: lambda self, caller, text: None, "on_text": lambda self, caller, text: None}
    separator = "; did you mean" if meant else "."
    refused(TypeError, f"Mine.{name} is no callback{separator}", **members)
    if meant:
        refused(TypeError, f"did you mean {meant}?", **members)
    refused(TypeError, "other methods must not begin with on_", **members)


def test_names_that_do_not_begin_with_on_are_free() -> None:
    spec = spec_of(
        on_text=lambda self, caller, text: None, once=1, _on_text=2, online=3, open=4, on=5
    )
    assert spec.has == {"on_text"}


def test_every_callback_is_found() -> None:
    members = {
        name: eval(f"lambda self, {', '.join('abc'[:count])}: None")
        for name, count in CALLBACKS.items()
    }
    spec = spec_of(**members)
    assert spec.has == set(CALLBACKS)
    assert not spec.stream_text
    assert not spec.stream_binary


def test_inherited_callbacks_are_found() -> None:
    class Base(syncws.Service):
        def on_text(self, caller: Any, text: str) -> None: ...

    class Derived(Base):
        def on_close(self, caller: Any, status_code: int, reason: str) -> None: ...

    assert ServiceSpec(Derived(), client=False).has == {"on_text", "on_close"}
    assert ServiceSpec(Derived, client=False).has == {"on_text", "on_close"}


def test_an_instances_own_callback_is_found() -> None:
    service = service_class()()
    service.on_text = lambda caller, text: None  # type: ignore[attr-defined]
    assert ServiceSpec(service, client=False).has == {"on_text"}


@pytest.mark.parametrize("service", ["instance", "class"])
def test_a_client_has_no_on_open(service: str) -> None:
    cls = service_class(on_open=lambda self, client: None)
    with pytest.raises(TypeError, match=r"on_open is never called on a client.* Client\(\.\.\.\)"):
        ServiceSpec(cls() if service == "instance" else cls, client=True)
    assert ServiceSpec(cls, client=False).has == {"on_open"}


# -- Parameters --------------------------------------------------------------


@pytest.mark.parametrize("name", CALLBACKS)
def test_too_few_parameters_are_refused(name: str) -> None:
    count = CALLBACKS[name]
    function = eval(f"lambda self{''.join(', ' + p for p in 'abc'[: count - 1])}: None")
    refused(TypeError, f"Mine.{name}", **{name: function})
    refused(TypeError, f"it must take {name}(self, caller", **{name: function})


@pytest.mark.parametrize("name", CALLBACKS)
def test_too_many_parameters_are_refused(name: str) -> None:
    # One more than `final`, which on_text and on_binary may have.
    count = CALLBACKS[name] + (2 if name in ("on_text", "on_binary") else 1)
    function = eval(f"lambda self, {', '.join('abcde'[:count])}: None")
    refused(TypeError, "cannot be called", **{name: function})


def test_the_message_shows_the_parameters_there_are_and_those_wanted() -> None:
    refused(
        TypeError,
        "caller) cannot be called: it must take on_close(self, caller, status_code, reason)",
        on_close=lambda self, caller: None,
    )
    refused(TypeError, "or the same and final", on_text=lambda self: None)
    refused(
        TypeError,
        "on_close(caller, status_code, reason)",
        on_close=staticmethod(lambda caller: None),
    )


def test_a_required_keyword_is_refused() -> None:
    def on_text(self: Any, caller: Any, text: str, *, final: bool) -> None: ...

    refused(TypeError, "cannot be called", on_text=on_text)


@pytest.mark.parametrize("value", [None, 1, "text", []])
def test_what_cannot_be_called_is_refused(value: Any) -> None:
    refused(TypeError, "on_text must be a method", on_text=value)


def test_async_callbacks_are_refused() -> None:
    async def coroutine(self: Any, caller: Any, text: str) -> None: ...

    async def generator(self: Any, caller: Any, text: str) -> Any:
        yield

    class Callable_:
        async def __call__(self, caller: Any, text: str) -> None: ...

    for function in (
        coroutine,
        generator,
        staticmethod(functools.partial(coroutine, None)),
        Callable_(),
    ):
        refused(TypeError, "must be a plain method, not async", on_text=function)


def test_a_callback_without_a_known_signature_is_refused_or_taken() -> None:
    """A builtin may not tell its parameters: that is no reason for a ValueError."""
    try:
        assert spec_of(on_text=dict.update).has == {"on_text"}
    except TypeError:
        pass


def on_text_default(self: Any, caller: Any, text: str, final: bool = True) -> None: ...
def on_text_required(self: Any, caller: Any, text: str, final: bool) -> None: ...
def on_text_other_name(self: Any, caller: Any, text: str, last: bool) -> None: ...
def on_text_other_default(self: Any, caller: Any, text: str, tries: int = 3) -> None: ...
def on_text_args(self: Any, caller: Any, text: str, *args: Any) -> None: ...
def on_text_all_args(*args: Any, **kwargs: Any) -> None: ...
def on_text_keyword(self: Any, caller: Any, text: str, *, final: bool = True) -> None: ...
def on_text_plain(self: Any, caller: Any, text: str) -> None: ...
def on_text_default_text(self: Any, caller: Any, text: str = "") -> None: ...


@pytest.mark.parametrize("kind", ["instance", "class"])
@pytest.mark.parametrize(
    ("function", "streamed"),
    [
        (on_text_plain, False),
        (on_text_required, True),
        (on_text_default, True),
        (on_text_other_name, True),
        (on_text_other_default, False),
        (on_text_args, False),
        (on_text_all_args, False),
        (on_text_keyword, False),
        (on_text_default_text, False),
    ],
)
def test_final_is_found(kind: str, function: Callable[..., None], streamed: bool) -> None:
    cls = service_class(on_text=function, on_binary=on_text_plain)
    spec = ServiceSpec(cls() if kind == "instance" else cls, client=False)
    assert spec.stream_text is streamed
    assert spec.stream_binary is False
    cls = service_class(on_text=on_text_plain, on_binary=function)
    spec = ServiceSpec(cls() if kind == "instance" else cls, client=False)
    assert spec.stream_text is False
    assert spec.stream_binary is streamed


@pytest.mark.parametrize("kind", ["instance", "class"])
@pytest.mark.parametrize("wrap", [staticmethod, classmethod])
def test_static_and_class_methods_are_callbacks(kind: str, wrap: Callable[..., Any]) -> None:
    plain: Callable[..., None] = lambda caller, text: None  # noqa: E731
    final: Callable[..., None] = lambda caller, data, final: None  # noqa: E731
    if wrap is classmethod:
        plain, final = on_text_plain, on_text_required
    cls = service_class(on_text=wrap(plain), on_binary=wrap(final))
    spec = ServiceSpec(cls() if kind == "instance" else cls, client=False)
    assert (spec.stream_text, spec.stream_binary) == (False, True)


def test_only_messages_are_streamed() -> None:
    refused(TypeError, "cannot be called", on_ping=on_text_required)
    assert not spec_of(on_ping=on_text_default, on_text=on_text_plain).stream_text


# -- Instances ---------------------------------------------------------------


def test_an_instance_is_shared_and_a_class_is_made_anew() -> None:
    cls = service_class(on_text=on_text_plain)
    service = cls()
    shared = ServiceSpec(service, client=False)
    assert shared.instance() is service
    own = ServiceSpec(cls, client=False)
    first, second = own.instance(), own.instance()
    assert type(first) is type(second) is cls
    assert first is not second


# -- Instances that are made for one connection each -------------------------


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the name of every callback whose parameters are looked at."""
    looks: list[str] = []
    check = callbacks._check_signature

    def counting(service: object, cls: type, name: str) -> bool:
        looks.append(name)
        return check(service, cls, name)

    monkeypatch.setattr(callbacks, "_check_signature", counting)
    return looks


class Streaming(syncws.Service):
    def on_open(self, caller: Any) -> None: ...
    def on_text(self, caller: Any, text: str, final: bool) -> None: ...
    def on_binary(self, caller: Any, data: bytes) -> None: ...


def facts(spec: ServiceSpec) -> tuple[Any, ...]:
    return spec.has, spec.stream_text, spec.stream_binary


def test_a_class_is_looked_at_once_for_all_its_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = type("Fresh", (Streaming,), {})
    looks = looked_at(monkeypatch)
    first, second = cls(), cls()
    specs = [ServiceSpec(one, client=False, again=True) for one in (first, second, cls)]
    assert sorted(looks) == ["on_binary", "on_open", "on_text"]
    assert [spec.service for spec in specs] == [first, second, cls]
    assert {facts(spec) for spec in specs} == {
        (frozenset({"on_open", "on_text", "on_binary"}), True, False)
    }


def test_what_is_attached_is_always_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = looked_at(monkeypatch)
    for _ in range(2):
        ServiceSpec(Streaming(), client=False)
    assert len(looks) == 6


def test_each_instance_has_its_own_config() -> None:
    class Configured(Streaming):
        def __init__(self, size: int) -> None:
            self.config = syncws.ServiceConfig(max_message_size=size)

    specs = [ServiceSpec(Configured(size), client=False, again=True) for size in (1, 2)]
    assert [spec.config.max_message_size for spec in specs] == [1, 2]
    wrong = Configured(3)
    wrong.config = 3  # type: ignore[assignment]
    with pytest.raises(TypeError, match="config must be"):
        ServiceSpec(wrong, client=False, again=True)


def test_an_instance_with_callbacks_of_its_own_is_looked_at() -> None:
    cls = type("Own", (Streaming,), {})
    for _ in range(2):
        own = cls()
        own.on_close = lambda caller, code, reason: None  # type: ignore[attr-defined]
        assert "on_close" in ServiceSpec(own, client=False, again=True).has
        assert "on_close" not in ServiceSpec(cls(), client=False, again=True).has
    wrong = cls()
    wrong.on_cloze = 3  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="did you mean on_close"):
        ServiceSpec(wrong, client=False, again=True)


def test_classes_whose_instances_may_differ_are_looked_at_each_time() -> None:
    class Computed(syncws.Service):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_open(self, caller: Any) -> None: ...

        def __getattr__(self, name: str) -> Any:
            if name == self.__dict__["name"]:
                return lambda caller, data: None
            raise AttributeError(name)

    class Slotted(syncws.Service):
        __slots__ = ("on_ping", "on_pong")

        def __init__(self, name: str) -> None:
            setattr(self, name, lambda caller, data: None)

    for cls in (Computed, Slotted):
        for name in ("on_ping", "on_pong", "on_ping"):
            spec = ServiceSpec(cls(name), client=False, again=True)
            assert spec.has - {"on_open"} == {name}


def test_a_class_that_is_gone_is_forgotten() -> None:
    cls = type("Gone", (Streaming,), {})
    ServiceSpec(cls(), client=False, again=True)
    reference = weakref.ref(cls)
    del cls
    gc.collect()
    assert reference() is None
