from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from syncws.config import (
    ClientConfig,
    Compression,
    ConnectionConfig,
    RetryConfig,
    ServiceConfig,
    TLSConfig,
)

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


# -- RetryConfig -----------------------------------------------------


def test_retry_is_for_ever_every_second_unless_told_otherwise() -> None:
    made = RetryConfig()
    assert (made.max_count, made.interval, made.backoff_factor) == (0, 1.0, 1.0)
    assert (made.max_interval, made.wait_to_send) == (30.0, False)
    assert 0 < made.jitter <= 0.5
    assert 1000 not in made.status_codes
    assert made == RetryConfig()
    assert hash(made) == hash(RetryConfig())
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.interval = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("config", [RetryConfig, TLSConfig], ids=lambda config: config.__name__)
def test_retry_and_tls_options_are_named_known_and_documented(config: Any) -> None:
    with pytest.raises(TypeError):
        config(10)
    with pytest.raises(TypeError, match="no_such_option"):
        config(no_such_option=1)
    for field in dataclasses.fields(config):
        assert f"{field.name}:" in config.__doc__


def test_max_count() -> None:
    for value in (0, 1, 10_000):
        assert RetryConfig(max_count=value).max_count == value
    for wrong in (None, "1", 1.0, True):
        assert "must be an int, not" in refused(RetryConfig, TypeError, max_count=wrong)
    assert "at least 0" in refused(RetryConfig, ValueError, max_count=-1)


@pytest.mark.parametrize("name", ["interval", "max_interval"])
def test_retry_intervals(name: str) -> None:
    others = {"max_interval": 100.0} if name == "interval" else {"interval": 0.0}
    for value in (0, 0.0, 0.5, 100):
        assert getattr(RetryConfig(**{**others, name: value}), name) == value
    for value in (None, "1", True, []):
        with pytest.raises(TypeError, match=rf"\A{name} must be a number of seconds"):
            RetryConfig(**{**others, name: value})  # type: ignore[arg-type]
    for value in (-1, -0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"\A{name} must"):
            RetryConfig(**{**others, name: value})


def test_the_first_wait_is_not_longer_than_the_longest() -> None:
    assert RetryConfig(interval=5, max_interval=5).interval == 5
    with pytest.raises(ValueError, match=r"interval, 5, must not be more than max_interval, 4\.5"):
        RetryConfig(interval=5, max_interval=4.5)


@pytest.mark.parametrize(("name", "low", "high"), [("backoff_factor", 1, 1000), ("jitter", 0, 1)])
def test_factor_and_jitter(name: str, low: float, high: float) -> None:
    for value in (low, high, (low + high) / 2):
        assert getattr(RetryConfig(**{name: value}), name) == value
    for wrong in (None, "1", True, 1j):
        assert "must be a number" in refused(RetryConfig, TypeError, **{name: wrong})
    for value in (low - 0.01, high + 0.01, float("nan"), float("inf")):
        assert "between" in refused(RetryConfig, ValueError, **{name: value})


def test_status_codes_of_a_loss() -> None:
    assert RetryConfig(status_codes=[1012, 4999, 1000]).status_codes == (1012, 4999, 1000)
    assert RetryConfig(status_codes=()).status_codes == ()
    assert RetryConfig(status_codes=range(4000, 4003)).status_codes == (4000, 4001, 4002)
    for wrong in (1012, "1012", b"1012", None):
        with pytest.raises(TypeError):
            RetryConfig(status_codes=wrong)  # type: ignore[arg-type]
    for code in ("1012", 1012.0, True, None):
        with pytest.raises(TypeError, match=f"not {code!r}"):
            RetryConfig(status_codes=(1011, code))  # type: ignore[arg-type]
    for code in (999, 5000, 0, -1):
        with pytest.raises(ValueError, match=f"between 1000 and 4999, not HTTP's: {code}"):
            RetryConfig(status_codes=(1011, code))


@pytest.mark.parametrize("value", [None, 0, 1, "yes"])
def test_wait_to_send_of_the_wrong_type(value: Any) -> None:
    assert "True or False" in refused(RetryConfig, TypeError, wait_to_send=value)


# -- TLSConfig -------------------------------------------------------


def test_tls_verifies_unless_told_otherwise() -> None:
    made = TLSConfig()
    assert made.verify is True
    assert (made.ca_file, made.cert_file, made.key_file, made.password) == (None,) * 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.verify = False  # type: ignore[misc]


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_tls_files_are_paths(name: str) -> None:
    others = {"cert_file": "cert.pem"} if name == "key_file" else {}
    for value in ("some.pem", Path("some.pem"), None):
        assert getattr(TLSConfig(**{**others, name: value}), name) == value
    for value in (5, b"some.pem", True, ["some.pem"]):
        with pytest.raises(TypeError, match=f"{name} must be a path or None, not"):
            TLSConfig(**{**others, name: value})


@pytest.mark.parametrize("value", [None, 0, 1, "no"])
def test_verify_is_switched_off_by_false_only(value: Any) -> None:
    assert "True or False" in refused(TLSConfig, TypeError, verify=value)


@pytest.mark.parametrize("options", [{"key_file": "key.pem"}, {"password": "x"}])
def test_a_key_without_a_certificate(options: Any) -> None:
    with pytest.raises(ValueError, match="belong to a cert_file, which is missing"):
        TLSConfig(**options)


def test_an_authority_that_would_not_be_looked_at() -> None:
    with pytest.raises(ValueError, match="ca_file would not be looked at"):
        TLSConfig(verify=False, ca_file="ca.pem")


def test_a_password_is_shown_nowhere() -> None:
    assert "secret" not in repr(TLSConfig(cert_file="cert.pem", password="secret"))
    with pytest.raises(TypeError) as caught:
        TLSConfig(cert_file="cert.pem", password=b"secret")  # type: ignore[arg-type]
    assert "password must be a str" in str(caught.value)
    assert "secret" not in str(caught.value)
