"""What an HTTP proxy is asked for a connection to a server: CONNECT out, its answer in.

RFC 9110 section 9.3.6.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import h11

from ..errors import ProxyAuthenticationError, ProxyError, printable
from .basic import basic_authorization
from .http import headers_of, send_request
from .uri import ProxyURI, authority_of

__all__ = ["PROXY_RESERVED", "ConnectTunnel"]

#: What is CONNECT's own, or would say how a body is framed that there is not.
PROXY_RESERVED = frozenset(
    ("connection", "content-length", "host", "proxy-connection", "transfer-encoding", "upgrade")
)

# What a record of TLS begins with that says what is wrong. RFC 8446 section 5.1.
_TLS_ALERT = b"\x15"

# Characters of what a proxy says that get into an error.
_QUOTED = 60

_REALM = re.compile(r'\brealm="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


class ConnectTunnel:
    """One request for a tunnel; not to be used again.

    Args:
        proxy: The proxy; its user and password become Basic authentication.
        host: The server's name or address.
        port: Its port.
        headers: Further headers, which are the proxy's and never reach the
            server; checked.
        max_size: Bytes of the answer's head, with the informational ones
            before it.
    """

    def __init__(
        self,
        proxy: ProxyURI,
        host: str,
        port: int,
        *,
        headers: Sequence[tuple[str, str]] = (),
        max_size: int = 16384,
    ) -> None:
        self._proxy = proxy
        self._max_size = max_size
        self._received = 0
        self._first = b""
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_size)
        self._authenticated = False
        self._request = self._serialize(authority_of(host, port), headers)

    def _serialize(self, target: str, headers: Sequence[tuple[str, str]]) -> bytes:
        given = {name.lower() for name, _ in headers}
        fields = [("Host", target)]
        if "user-agent" not in given:
            fields.append(("User-Agent", "syncws"))
        if self._proxy.username is not None:
            value = basic_authorization(self._proxy.username, self._proxy.password or "")
            fields.append(("Proxy-Authorization", value))
        fields.extend(headers)
        self._authenticated = any(name.lower() == "proxy-authorization" for name, _ in fields)
        return send_request(self._parser, "CONNECT", target, fields)

    def request_bytes(self) -> bytes:
        """Return the request; the same bytes at each call."""
        return self._request

    def receive(self, data: bytes) -> bytes | None:
        """Take bytes from the proxy; once the tunnel stands return those that came through it.

        Whatever a 2xx says of a body, it has none.

        Args:
            data: The bytes, or b"" at their end.

        Raises:
            ProxyError: The proxy refused, closed early, or speaks no HTTP.
        """
        if not data:
            raise self._error("closed the connection before it answered CONNECT" + self._hint())
        self._first = (self._first + data[:_QUOTED])[:_QUOTED]
        if not b"HTTP/".startswith(self._first[:5]):
            raise self._not_http()
        self._received += len(data)
        try:
            self._parser.receive_data(data)
            while (event := self._parser.next_event()) is not h11.NEED_DATA:
                rest = self._parser.trailing_data[0]
                if self._received - len(rest) > self._max_size:
                    raise self._too_long()
                if isinstance(event, h11.Response):
                    self._check(event)
                    return rest
        except h11.RemoteProtocolError as exc:
            if exc.error_status_hint == 431:
                raise self._too_long() from None
            raise self._not_http() from exc
        return None

    def _check(self, response: h11.Response) -> None:
        """Raise unless this is a tunnel."""
        status = response.status_code
        if 200 <= status < 300:
            return
        if status in (401, 407):  # some have the servers' for a wrong password
            raise self._authentication_error(response)
        reason = printable(response.reason.decode("latin-1")[:_QUOTED]).strip()
        text = f"answered CONNECT with {status}" + (f" {reason}" if reason else "")
        if 300 <= status < 400:
            text += "; a client follows no redirects"
        raise self._error(text, status)

    def _authentication_error(self, response: h11.Response) -> ProxyError:
        challenges = headers_of(response).get_all("Proxy-Authenticate")
        found = _REALM.search(", ".join(challenges))
        realm = re.sub(r"\\(.)", r"\1", found[1]) if found else None
        text = "asks for a user and a password"
        if self._authenticated:
            text = "does not take this user and password"
        if realm is not None:
            text += f" for {realm[:_QUOTED]!r}"
        if challenges and "basic" not in ", ".join(challenges).lower():
            known = ", ".join(challenge.split(" ")[0] for challenge in challenges)
            text += f", but not in Basic authentication: it knows {known[:_QUOTED]!r}"
        return ProxyAuthenticationError(
            f"the proxy {self._proxy} {text}", str(self._proxy), response.status_code, realm
        )

    def _error(self, text: str, status: int | None = None) -> ProxyError:
        return ProxyError(f"the proxy {self._proxy} {text}", str(self._proxy), status)

    def _too_long(self) -> ProxyError:
        return self._error(f"answered CONNECT with a head of over {self._max_size} bytes")

    def _not_http(self) -> ProxyError:
        hint = self._hint() if self._first[:1] == _TLS_ALERT else ""
        return self._error(f"answered CONNECT with what is not valid HTTP: {self._first!r}{hint}")

    def _hint(self) -> str:
        return "; if it speaks TLS, write https://" if self._proxy.scheme == "http" else ""
