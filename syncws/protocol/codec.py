"""Both halves of a connection's codec, as the handshake has settled it."""

from __future__ import annotations

from ..config import ConnectionConfig
from .decoder import Decoder
from .deflate import Deflate, DeflateParams, Inflate
from .encoder import Encoder

__all__ = ["make_codec"]


def make_codec(
    config: ConnectionConfig,
    params: DeflateParams | None,
    *,
    client: bool,
    stream_text: bool = False,
    stream_binary: bool = False,
) -> tuple[Decoder, Encoder]:
    """Return both halves for a connection.

    Args:
        config: Its limits, and the settings of its compression.
        params: What the handshake agreed on, or None for no compression.
        client: Whether this end is the client.
        stream_text: Give the frames of a text message as they come.
        stream_binary: The same for binary messages.
    """
    inflate = deflate = None
    settings = config.deflate
    if params is not None and settings is not None:
        bits = (params.server_max_window_bits, params.client_max_window_bits)
        fresh = (params.server_no_context_takeover, params.client_no_context_takeover)
        inflate = Inflate(
            window_bits=bits[not client],
            no_context_takeover=fresh[not client],
            max_message_size=config.max_message_size,
        )
        deflate = Deflate(
            window_bits=bits[client],
            no_context_takeover=fresh[client],
            level=settings.level,
            mem_level=settings.mem_level,
        )
    decoder = Decoder(
        client=client,
        max_message_size=config.max_message_size,
        max_frame_size=config.max_frame_size,
        max_fragments=config.max_fragments,
        inflate=inflate,
        stream_text=stream_text,
        stream_binary=stream_binary,
    )
    threshold = settings.threshold if settings is not None else 0
    return decoder, Encoder(client=client, deflate=deflate, threshold=threshold)
