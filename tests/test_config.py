from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from syncws.config import ClientConfig, Compression, ConnectionConfig, ServiceConfig

CONFIGS = [ConnectionConfig, ServiceConfig, ClientConfig]
ALL_CONFIGS = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)

# Options of every connection.
TIMEOUTS = ["idle_timeout", "ping_interval", "ping_timeout", "send_timeout"]
LIMITS = ["max_message_size", "max_frame_size", "max_fragments"]
SIZES = ["send_buffer_size", "receive_queue_size", "receive_queue_bytes"]


def refused(config: type, error: type[Exception], **options: Any) -> str:
    """Return the message of the error of that very type, which has the option and the value."""
    with pytest.raises((TypeError, ValueError)) as caught:
        config(**options)
    assert type(caught.value) is error
    ((name, value),) = options.items()
    text = str(caught.value)
    assert name in text
    assert repr(value) in text
    return text


# -- All of them -----------------------------------------------------


@ALL_CONFIGS
def test_the_defaults_are_right_and_cannot_be_changed(config: type) -> None:
    made = config()
    assert made == config()
    assert hash(made) == hash(config())
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.idle_timeout = 5


@pytest.mark.parametrize("config", [*CONFIGS, Compression], ids=lambda config: config.__name__)
def test_options_are_named_and_known(config: type) -> None:
    with pytest.raises(TypeError):
        config(10)
    with pytest.raises(TypeError, match="no_such_option"):
        config(no_such_option=1)


@pytest.mark.parametrize("config", [*CONFIGS, Compression], ids=lambda config: config.__name__)
def test_every_option_is_documented(config: type) -> None:
    documented = "".join(base.__doc__ or "" for base in config.__mro__)
    for field in dataclasses.fields(config):
        assert f"{field.name}:" in documented


@ALL_CONFIGS
@pytest.mark.parametrize("name", TIMEOUTS)
def test_timeouts(config: type, name: str) -> None:
    for value in (None, 1, 0.5):
        assert getattr(config(**{name: value}), name) == value
    for value in ("5", True, []):
        refused(config, TypeError, **{name: value})
    for value in (-1, -0.5, float("nan"), float("inf")):
        refused(config, ValueError, **{name: value})


@pytest.mark.parametrize("name", ["idle_timeout", "ping_interval"])
@pytest.mark.parametrize("value", [0, 0.0])
def test_an_interval_of_zero(name: str, value: float) -> None:
    with pytest.raises(ValueError) as caught:
        ConnectionConfig(**{name: value})
    assert f"{name} must be more than 0 seconds" in str(caught.value)
    assert "None switches it off" in str(caught.value)


@pytest.mark.parametrize("name", ["ping_timeout", "send_timeout", "close_timeout"])
def test_a_timeout_of_zero(name: str) -> None:
    assert getattr(ConnectionConfig(**{name: 0}), name) == 0


@ALL_CONFIGS
def test_close_timeout(config: type) -> None:
    assert config(close_timeout=1).close_timeout == 1
    refused(config, TypeError, close_timeout=None)
    refused(config, TypeError, close_timeout="1")
    refused(config, ValueError, close_timeout=-1)


@ALL_CONFIGS
@pytest.mark.parametrize("name", LIMITS)
def test_limits(config: type, name: str) -> None:
    for value in (None, 1, 1 << 40):
        assert getattr(config(**{name: value}), name) == value
    for value in ("5", 1.0, True):
        assert "an int or None" in refused(config, TypeError, **{name: value})
    for value in (0, -1):
        assert "at least 1" in refused(config, ValueError, **{name: value})


@ALL_CONFIGS
@pytest.mark.parametrize("name", SIZES)
def test_sizes(config: type, name: str) -> None:
    assert getattr(config(**{name: 1}), name) == 1
    for value in (None, "5", 1.0, True):
        assert "must be an int, not" in refused(config, TypeError, **{name: value})
    for value in (0, -1):
        assert "at least 1" in refused(config, ValueError, **{name: value})


# -- Compression -----------------------------------------------------


def test_compression_in_force() -> None:
    assert ConnectionConfig().deflate == Compression()
    assert ConnectionConfig(compression=True).deflate == Compression()
    assert ConnectionConfig(compression=False).deflate is None
    settings = Compression(level=1)
    assert ConnectionConfig(compression=settings).deflate is settings


@ALL_CONFIGS
@pytest.mark.parametrize("value", [None, 1, 0, "deflate", {"level": 6}])
def test_compression_of_the_wrong_type(config: type, value: Any) -> None:
    refused(config, TypeError, compression=value)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("level", 1, 9),
        ("mem_level", 1, 9),
        ("server_max_window_bits", 9, 15),
        ("client_max_window_bits", 9, 15),
    ],
)
def test_settings_of_compression(name: str, low: int, high: int) -> None:
    for value in (low, high):
        assert getattr(Compression(**{name: value}), name) == value
    for value in (low - 1, high + 1, -low):
        text = refused(Compression, ValueError, **{name: value})
        assert f"between {low} and {high}" in text
    for wrong in (None, "9", 9.0, True):
        refused(Compression, TypeError, **{name: wrong})


def test_threshold() -> None:
    assert Compression(threshold=0).threshold == 0
    assert "at least 0" in refused(Compression, ValueError, threshold=-1)
    for value in (None, "9", 9.0, False):
        refused(Compression, TypeError, threshold=value)


# -- Subprotocols and origins ----------------------------------------

NAMED = pytest.mark.parametrize("config", [ServiceConfig, ClientConfig])


@NAMED
def test_subprotocols(config: Any) -> None:
    assert config().subprotocols == ()
    assert config(subprotocols=["json", "v2.chat!#$%&'*+-.^_`|~"]).subprotocols == (
        "json",
        "v2.chat!#$%&'*+-.^_`|~",
    )
    assert config(subprotocols=(name for name in "ab")).subprotocols == ("a", "b")


@NAMED
@pytest.mark.parametrize("value", ["json", b"json"])
def test_a_string_is_no_sequence_of_subprotocols(config: Any, value: Any) -> None:
    text = refused(config, TypeError, subprotocols=value)
    assert f"({value!r},)" in text


@NAMED
@pytest.mark.parametrize("name", ["", "a b", "a,b", "a/b", "é", 'a"', "a\n"])
def test_what_is_no_subprotocol(config: Any, name: str) -> None:
    with pytest.raises(ValueError) as caught:
        config(subprotocols=("good", name))
    assert repr(name) in str(caught.value)


@NAMED
def test_subprotocols_of_the_wrong_type(config: Any) -> None:
    with pytest.raises(TypeError) as caught:
        config(subprotocols=("good", 5))
    assert "not 5" in str(caught.value)


@NAMED
def test_a_subprotocol_twice(config: Any) -> None:
    with pytest.raises(ValueError) as caught:
        config(subprotocols=("a", "b", "a"))
    assert "('a', 'b', 'a')" in str(caught.value)


@pytest.mark.parametrize(
    "origin",
    ["*", "https://app.example", "http://localhost:8080", "chrome-extension://abc", "HTTP://[::1]"],
)
def test_origins(origin: str) -> None:
    assert ServiceConfig(allowed_origins=[origin]).allowed_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "app.example",
        "https://",
        "https://app.example/",
        "https://a.b/path",
        "https://a b",
        "//",
    ],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValueError) as caught:
        ServiceConfig(allowed_origins=("https://good.example", origin))
    assert repr(origin) in str(caught.value)
    assert "scheme://host" in str(caught.value)


@pytest.mark.parametrize("value", ["https://app.example", b"*"])
def test_a_string_is_no_sequence_of_origins(value: Any) -> None:
    assert f"({value!r},)" in refused(ServiceConfig, TypeError, allowed_origins=value)


def test_origins_of_the_wrong_type() -> None:
    with pytest.raises(TypeError) as caught:
        ServiceConfig(allowed_origins=(None,))  # type: ignore[arg-type]
    assert "not None" in str(caught.value)


# -- A client's own --------------------------------------------------


def test_handshake_timeout() -> None:
    assert ClientConfig(handshake_timeout=None).handshake_timeout is None
    assert ClientConfig(handshake_timeout=3).handshake_timeout == 3
    refused(ClientConfig, TypeError, handshake_timeout="3")
    refused(ClientConfig, ValueError, handshake_timeout=-3)
