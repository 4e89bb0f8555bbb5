"""What every TLS context of ours has, and what one of the user's must have."""

from __future__ import annotations

import os
import ssl

__all__ = ["check_context", "make_context"]

_FLOOR = ssl.TLSVersion.TLSv1_2

# Contexts for one version only have no minimum; this one is not below ours.
_ONLY_1_2 = getattr(ssl, "PROTOCOL_TLSv1_2", None)


def make_context(
    purpose: ssl.Purpose, ca_file: str | os.PathLike[str] | None = None
) -> ssl.SSLContext:
    """Return a context that trusts `ca_file`, or on a client the system's authorities.

    It speaks TLS 1.2 and newer, whatever the system allows, or what the system
    demands if that is more. It does not compress, since the length of what was
    compressed tells of what was in it, and does not begin a handshake again on
    an open connection, which costs this end far more than the peer that asks.

    Raises:
        OSError: `ca_file` cannot be read or used.
    """
    context = ssl.create_default_context(purpose, cafile=ca_file)
    context.minimum_version = max(context.minimum_version, _FLOOR)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def check_context(context: ssl.SSLContext, option: str = "ssl") -> ssl.SSLContext:
    """Return a user's context, which is left as it is.

    Raises:
        ValueError: It would speak a version before TLS 1.2.

    RFC 8996.
    """
    if context.minimum_version >= _FLOOR or context.protocol == _ONLY_1_2:
        return context
    if context.protocol in (ssl.PROTOCOL_TLS, ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        remedy = "set its minimum_version = ssl.TLSVersion.TLSv1_2"
    else:
        remedy = "make it with ssl.create_default_context()"
    raise ValueError(f"{option} is a context that allows versions before TLS 1.2: {remedy}")
