"""A client that has several addresses."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Iterable, Mapping, Sequence

from ..config import ClientConfig, Compression, RetryConfig, TLSConfig
from ..engine.engine import Engine
from ..service import Service
from ..timing import check_timeout
from .client import Client
from .cookies import Cookies
from .credentials import request_headers
from .proxy import Proxies

__all__ = ["FailoverClient"]

_DEFAULTS = ClientConfig()


class FailoverClient(Client):
    """A client that goes on to another address when one is lost or refuses.

    The addresses are tried in turn, beginning with the first, and after a
    loss with the one that follows. When each of them has failed, the one that
    was lost included, `on_error` gets a `RetriesExhausted` with what each has
    failed with, and the client is closed; the constructor raises it.

    In all else it is a `Client`.

    Args:
        urls: The addresses.
        failover_interval: Seconds before the next address is tried.
        retry: How often each address is tried again before the next has its
            turn. Its `max_count` must not be 0, for then none ever had.
    """

    __slots__ = ()

    def __init__(
        self,
        urls: Sequence[str],
        *,
        failover_interval: float = 1.0,
        service: Service | type[Service] | None = None,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        auth: tuple[str, str] | None = None,
        cookies: Cookies | None = None,
        ssl: TLSConfig | ssl_module.SSLContext | None = None,
        proxy: str | bool | None = True,
        proxy_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        proxy_ssl: TLSConfig | ssl_module.SSLContext | None = None,
        engine: Engine | None = None,
        ready_on_connect: bool = True,
        retry: RetryConfig | None = None,
        handshake_timeout: float | None = _DEFAULTS.handshake_timeout,
        idle_timeout: float | None = _DEFAULTS.idle_timeout,
        max_message_size: int | None = _DEFAULTS.max_message_size,
        max_frame_size: int | None = _DEFAULTS.max_frame_size,
        max_fragments: int | None = _DEFAULTS.max_fragments,
        message_timeout: float | None = _DEFAULTS.message_timeout,
        compression: bool | Compression = _DEFAULTS.compression,
        ping_interval: float | None = _DEFAULTS.ping_interval,
        ping_timeout: float | None = _DEFAULTS.ping_timeout,
        close_timeout: float = _DEFAULTS.close_timeout,
        send_timeout: float | None = _DEFAULTS.send_timeout,
        send_buffer_size: int = _DEFAULTS.send_buffer_size,
        receive_queue_size: int = _DEFAULTS.receive_queue_size,
        receive_queue_bytes: int = _DEFAULTS.receive_queue_bytes,
    ) -> None:
        addresses = _check_urls(urls)
        config = ClientConfig(
            subprotocols=subprotocols,
            headers=request_headers(headers, auth, addresses),
            handshake_timeout=handshake_timeout,
            idle_timeout=idle_timeout,
            max_message_size=max_message_size,
            max_frame_size=max_frame_size,
            max_fragments=max_fragments,
            message_timeout=message_timeout,
            compression=compression,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            send_timeout=send_timeout,
            send_buffer_size=send_buffer_size,
            receive_queue_size=receive_queue_size,
            receive_queue_bytes=receive_queue_bytes,
        )
        check_timeout("failover_interval", failover_interval, optional=False)
        if isinstance(retry, RetryConfig) and retry.max_count == 0:
            raise ValueError(
                "retry has max_count=0, to try the first address for ever: give it a max_count of "
                "1 or more, after which the next address has its turn"
            )
        self._open(
            addresses,
            config,
            service=service,
            cookies=cookies,
            ssl=ssl,
            proxies=Proxies(proxy, proxy_headers, proxy_ssl),
            unix_path=None,
            engine=engine,
            ready_on_connect=ready_on_connect,
            retry=retry,
            failover_interval=failover_interval,
        )


def _check_urls(urls: Sequence[str]) -> list[str]:
    if isinstance(urls, (str, bytes)):
        raise TypeError(f"urls must be a sequence of addresses such as [{urls!r}]")
    addresses = list(urls)
    if not addresses:
        raise ValueError("urls is empty: a failover client needs one address at least")
    return addresses
