"""An application's call, without a connection."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from syncws.protocol.exchange import ResponseError
from syncws.protocol.http import parse_request
from syncws.server.channel import ClientGone
from syncws.server.wsgi import Origin, call_application
from tests.support import broken_log

ORIGIN = Origin(("127.0.0.1", 8080), ("192.0.2.1", 50_000), False)
PLAIN = [("Content-Type", "text/plain")]


class FakeChannel:
    """What the application's call sees of a connection."""

    def __init__(self, *body: bytes, size: int | None = 0) -> None:
        self.body = list(body)
        self.body_size = sum(map(len, body)) if size == 0 else size
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.data: list[bytes] = []
        self.calls: list[str] = []
        self.fails: dict[str, Exception] = {}

    @property
    def sent(self) -> int:
        return sum(map(len, self.data))

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.fails:
            raise self.fails[call]

    def read(self, buffer: memoryview) -> int:
        self._note("read")
        part = self.body.pop(0) if self.body else b""
        size = min(len(part), len(buffer))
        buffer[:size] = part[:size]
        if part[size:]:
            self.body.insert(0, part[size:])
        return size

    def respond(self, status: str, headers: list[tuple[str, str]]) -> None:
        self._note("respond")
        self.status, self.headers = status, headers

    def send(self, data: bytes) -> None:
        self._note("send")
        self.data.append(data)

    def finish(self) -> None:
        self._note("finish")

    def cut(self) -> None:
        self._note("cut")


class Closing:
    """An iterable that counts what is done with it."""

    def __init__(self, *parts: Any, error: Exception | None = None) -> None:
        self.parts = parts
        self.error = error
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part

    def close(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error


def call(
    app: Any,
    *headers: str,
    channel: FakeChannel | None = None,
    target: str = "/path",
    method: str = "GET",
    origin: Origin = ORIGIN,
    forwarded_host: str = "",
) -> FakeChannel:
    channel = channel or FakeChannel()
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers, "", ""]
    request = parse_request("\r\n".join(lines).encode("latin-1"))
    request = dataclasses.replace(request, forwarded_host=forwarded_host)
    clock = iter((1.0, 1.5)).__next__
    call_application(app, request, origin, clock, channel)  # type: ignore[arg-type]
    return channel


def environ_of(*headers: str, **options: Any) -> dict[str, Any]:
    """Return the environment that an application gets."""
    seen: list[dict[str, Any]] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(environ)
        start_response("200 OK", PLAIN)
        return []

    call(app, *headers, **options)
    return seen[0]


def app_of(result: Any, headers: Any = PLAIN, status: str = "200 OK") -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, headers)
        return result

    return app


# -- The environment -------------------------------------------------------


def test_a_path_is_decoded_once() -> None:
    environ = environ_of(target="/%2541%252F")
    assert environ["PATH_INFO"] == "/%41%2F"


def test_a_line_break_in_a_path_forges_no_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.errors"].write("noted\n")
        raise ValueError("broken")

    caplog.set_level(logging.INFO, "syncws.server")
    call(app, target="/a%0Ab%0D")
    assert caplog.records
    assert not [record for record in caplog.records if "\n" in record.getMessage()]


def test_the_environment() -> None:
    environ = environ_of("X-One: 1", target="/a%20b%2Fc/%C3%A9?x=%20y")
    stdin, stderr = environ.pop("wsgi.input"), environ.pop("wsgi.errors")
    assert type(environ) is dict
    assert stdin.read() == b""
    assert stderr.write("") == 0
    assert environ.pop("wsgi.file_wrapper")(io.BytesIO(b"x")).filelike.read() == b"x"
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/c/\xc3\xa9",
        "QUERY_STRING": "x=%20y",
        "REQUEST_URI": "/a%20b%2Fc/%C3%A9?x=%20y",
        "RAW_URI": "/a%20b%2Fc/%C3%A9?x=%20y",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "syncws",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "localhost",
        "HTTP_X_ONE": "1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


def test_the_process_keeps_its_own_environment() -> None:
    environ = environ_of()
    environ["REQUEST_METHOD"] = "changed"
    assert "REQUEST_METHOD" not in os.environ
    assert environ_of()["REQUEST_METHOD"] == "GET"


def test_headers() -> None:
    environ = environ_of(
        "Cookie: a=1",
        "Accept: x",
        "cookie: b=2",
        "ACCEPT: y",
        "X_Forwarded_For: forged",
        "X-Forwarded-For: right",
        "X_Forwarded-For: forged",
        "X_Real_IP: forged",
        "Content-Type: text/plain",
        "Content-Length: 5",
        "X-Name: \xe9",
        channel=FakeChannel(b"hello"),
    )
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_ACCEPT"] == "x,y"
    assert environ["HTTP_X_FORWARDED_FOR"] == "right"
    assert "HTTP_X_REAL_IP" not in environ
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/plain", "5")
    assert environ["HTTP_X_NAME"] == "\xe9"
    assert {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"}.isdisjoint(environ)


@pytest.mark.parametrize("size", [5, None])
def test_a_chunked_body_has_a_length_if_it_has_come_whole(size: int | None) -> None:
    environ = environ_of("Transfer-Encoding: chunked", channel=FakeChannel(b"hello", size=size))
    assert environ.get("CONTENT_LENGTH") == (None if size is None else "5")
    assert ("HTTP_TRANSFER_ENCODING" in environ) is (size is None)
    assert environ["wsgi.input"].read() == b"hello"


def test_a_full_url_says_which_host() -> None:
    environ = environ_of(target="http://example.org:81/path?x")
    assert (environ["HTTP_HOST"], environ["PATH_INFO"]) == ("example.org:81", "/path")
    assert environ["REQUEST_URI"] == "http://example.org:81/path?x"


def test_what_a_proxy_says_of_the_client() -> None:
    environ = environ_of(
        forwarded_host="app.example:8443",
        origin=Origin(("127.0.0.1", 8000), ("8.8.8.8", 0), True),
    )
    assert environ["HTTP_HOST"] == "app.example:8443"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("app.example", "8443")
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("8.8.8.8", "https")
    assert "REMOTE_PORT" not in environ
    environ = environ_of(
        forwarded_host="app.example",
        origin=Origin("/run/socket", ("unknown", 0), True),
    )
    assert (environ["HTTP_HOST"], environ["SERVER_PORT"]) == ("app.example", "443")
    assert environ["REMOTE_ADDR"] == "unknown"


def test_what_servers_only_know_is_left_out_of_an_applications_headers() -> None:
    headers = [("Connection", "keep-alive"), ("Keep-Alive", "timeout=5"), ("X-One", "1")]
    channel = call(app_of([b"x"], headers=headers))
    assert channel.status == "200 OK"
    names = {name for name, _ in channel.headers}
    assert "X-One" in names
    assert names.isdisjoint({"Connection", "Keep-Alive"})


@pytest.mark.parametrize(
    ("secure", "scheme", "port"), [(True, "https", "443"), (False, "http", "80")]
)
def test_a_unix_domain_socket_has_no_port(secure: bool, scheme: str, port: str) -> None:
    environ = environ_of(origin=Origin("/run/socket", "", secure))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", port)
    assert environ["wsgi.url_scheme"] == scheme
    assert environ["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in environ


# -- The body --------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda body: body.read(), b"one\ntwo\nthree"),
        (lambda body: body.read(5), b"one\nt"),
        (lambda body: body.read(-1), b"one\ntwo\nthree"),
        (lambda body: body.read(0), b""),
        (lambda body: body.read1(100), b"on"),
        (lambda body: body.readline(), b"one\n"),
        (lambda body: body.readline(2), b"on"),
        (lambda body: body.readlines(), [b"one\n", b"two\n", b"three"]),
        (list, [b"one\n", b"two\n", b"three"]),
        (lambda body: (body.read(), body.read(), body.readline()), (b"one\ntwo\nthree", b"", b"")),
    ],
)
def test_the_body_is_a_file(read: Any, expected: Any) -> None:
    got: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        got.append(read(environ["wsgi.input"]))
        start_response("200 OK", PLAIN)
        return []

    call(app, "Content-Length: 13", channel=FakeChannel(b"on", b"e\ntwo", b"\nthree"))
    assert got == [expected]


def test_a_body_that_is_lost_raises_an_os_error() -> None:
    errors: list[BaseException] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as exc:
            errors.append(exc)
            raise
        return []

    channel = FakeChannel(b"hello")
    channel.fails["read"] = ClientGone("it went away")
    call(app, "Content-Length: 5", channel=channel)
    assert isinstance(errors[0], ConnectionError)
    assert channel.calls == ["read"]


# -- The response ----------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "length", "data"),
    [
        ([b"hello"], "5", [b"hello"]),
        ((b"hello",), "5", [b"hello"]),
        ([b"hel", b"lo"], None, [b"hel", b"lo"]),
        ([b"", b"hello"], None, [b"hello"]),
        ([], "0", []),
        ([b""], "0", []),
        (iter([b"hello"]), None, [b"hello"]),
        (iter([]), "0", []),
        (Closing(b"hello"), None, [b"hello"]),
    ],
)
def test_a_response(result: Any, length: str | None, data: list[bytes]) -> None:
    channel = call(app_of(result))
    assert channel.status == "200 OK"
    assert dict(channel.headers).get("Content-Length") == length
    assert channel.data == data
    assert channel.calls == ["respond", *["send"] * len(data), "finish"]
    assert getattr(result, "closed", 1) == 1


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not"), ("GET", "204 No")]
)
def test_no_length_is_made_up_where_the_body_is_left_out(method: str, status: str) -> None:
    channel = call(app_of([], status=status), method=method)
    assert channel.headers == PLAIN
    channel = call(app_of([], [("Content-Length", "9")], status), method=method)
    assert channel.headers == [("Content-Length", "9")]


def test_the_applications_headers_are_its_own() -> None:
    headers = list(PLAIN)
    for body in (b"x", b"hello"):
        channel = call(app_of([body], headers))
        assert dict(channel.headers)["Content-Length"] == str(len(body))
    assert headers == PLAIN


def test_each_part_is_sent_before_the_next_is_made() -> None:
    channel = FakeChannel()
    seen = []

    def parts() -> Iterator[bytes]:
        seen.append(list(channel.calls))
        yield b""
        seen.append(list(channel.calls))  # the head has not gone out for nothing
        yield b"a"
        seen.append(list(channel.calls))
        yield b"b"

    call(app_of(parts()), channel=channel)
    assert seen == [[], [], ["respond", "send"]]


def test_write() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"a")
        write(b"")
        write(b"b")
        return [b"c"]

    channel = call(app)
    assert channel.data == [b"a", b"b", b"c"]
    assert channel.headers == PLAIN


@pytest.mark.parametrize("length", [None, "5", "200000"])
def test_a_file(length: str | None) -> None:
    file = io.BytesIO(b"x" * 200_000)
    headers = PLAIN if length is None else [("Content-Length", length)]

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", headers)
        return environ["wsgi.file_wrapper"](file, 10)

    channel = call(app)
    assert b"".join(channel.data) == b"x" * int(length or 200_000)
    assert len(channel.data) <= 4
    assert channel.calls[-1] == "finish"
    assert file.closed


def test_a_file_is_not_read_for_its_head() -> None:
    class File(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size == 0
            return b""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        return environ["wsgi.file_wrapper"](File(b"x"))

    channel = call(app, method="HEAD")
    assert (channel.status, channel.headers) == ("200 OK", PLAIN)
    assert channel.calls == ["respond", "finish"]


def test_a_late_start_response_replaces_the_first() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)
        try:
            raise KeyError
        except KeyError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        return [b"sorry"]

    channel = call(app)
    assert (channel.status, channel.data) == ("500 Oops", [b"sorry"])


# -- Applications that fail ------------------------------------------------


def broken_before(environ: Any, start_response: Any) -> Any:
    raise KeyError("broken")


def broken_between(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    raise ConnectionResetError("broken")  # its database's, say


def exits(environ: Any, start_response: Any) -> Any:
    raise SystemExit("broken")


def starts_twice(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    start_response("200 OK", PLAIN)
    return []


def never_starts(environ: Any, start_response: Any) -> Any:
    return []


def never_starts_but_writes(environ: Any, start_response: Any) -> Any:
    return [b"x"]


def never_starts_but_writes_nothing(environ: Any, start_response: Any) -> Any:
    return [b""]


@pytest.mark.parametrize(
    "app",
    [
        broken_before,
        broken_between,
        exits,
        starts_twice,
        never_starts,
        never_starts_but_writes,
        never_starts_but_writes_nothing,
        app_of(None),
        app_of(["text"]),
        app_of([b"x"], headers=[("Transfer-Encoding", "chunked")]),
        app_of([b"x"], headers=(("X", "y"),)),
        app_of([b"x"], headers=[("X", 5)]),
        app_of([b"x"], status="OK"),
        app_of([b"x"], status=200),  # type: ignore[arg-type]
        app_of(Closing(KeyError("broken"))),
        app_of(Closing(b"", KeyError("broken"))),
    ],
)
def test_an_application_that_fails_before_its_first_byte(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    channel = call(app)
    assert channel.status == "500 Internal Server Error"
    assert channel.data == [b"The server has failed to answer this request.\n"]
    assert channel.calls == ["respond", "send", "finish"]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "syncws.server"
    assert record.message == "GET /path: the application raised"
    assert record.exc_info is not None


@pytest.mark.parametrize("status", ["500 Oops", None])
def test_an_application_that_fails_behind_its_first_byte(
    status: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    result = Closing(b"begun", KeyError("broken"))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        for part in result:
            try:
                yield part
            finally:
                if status and sys.exc_info()[0]:
                    start_response(status, PLAIN, sys.exc_info())

    channel = call(app)
    assert (channel.status, channel.data) == ("200 OK", [b"begun"])
    assert channel.calls == ["respond", "send", "cut"]
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1


@pytest.mark.parametrize("parts", [(b"x", KeyError()), (KeyError(),), (b"x",), ()])
@pytest.mark.parametrize("error", [None, ValueError("in close")])
def test_what_it_returns_is_closed_once(
    parts: Any, error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    result = Closing(*parts, error=error)
    channel = call(app_of(result))
    assert result.closed == 1
    assert channel.calls.count("respond") == 1
    failed = error is not None or KeyError in map(type, parts)
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == failed


def test_a_response_that_is_refused_behind_its_head_is_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    channel = FakeChannel()
    channel.fails["finish"] = ResponseError("too short")
    result = Closing(b"hello")
    call(app_of(result), channel=channel)
    assert channel.calls == ["respond", "send", "finish", "cut"]
    assert result.closed == 1
    assert "too short" in caplog.text


def test_a_response_whose_head_is_refused_is_replaced() -> None:
    channel = FakeChannel()
    channel.fails["respond"] = ResponseError("no")
    statuses: list[str] = []

    def respond(status: str, headers: Any) -> None:
        statuses.append(status)
        if len(statuses) == 1:
            raise ResponseError("no")

    channel.respond = respond  # type: ignore[method-assign]
    call(app_of([b"x"]), channel=channel)
    assert statuses == ["200 OK", "500 Internal Server Error"]


# -- Clients that are lost -------------------------------------------------


@pytest.mark.parametrize("where", ["respond", "send", "finish"])
def test_a_lost_client_is_no_fault_of_the_application(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "syncws.server")
    channel = FakeChannel()
    channel.fails[where] = ClientGone("it went away")
    result = Closing(b"hello")
    call(app_of(result), channel=channel)
    assert result.closed == 1
    assert "cut" not in channel.calls
    (message,) = caplog.messages
    assert "cut short: it went away" in message


def test_nor_if_the_application_wraps_it(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        try:
            environ["wsgi.input"].read()
        except OSError as exc:
            raise ValueError("unreadable") from exc

    channel = FakeChannel()
    channel.fails["read"] = ClientGone("it went away")
    call(app, channel=channel)
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_a_lost_client_gets_no_error_page(caplog: pytest.LogCaptureFixture) -> None:
    channel = FakeChannel()
    channel.fails["respond"] = ClientGone("it went away")
    call(broken_before, channel=channel)
    assert channel.calls == ["respond"]
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1


# -- The log ---------------------------------------------------------------


def test_each_request_has_its_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "syncws.server")
    call(app_of([b"hello"], status="201 Made"), target="/path?x")
    assert caplog.messages == ["GET /path?x 201, 5 bytes, 0.500 s"]


def test_what_goes_to_wsgi_errors_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    kept = []

    def app(environ: Any, start_response: Any) -> Any:
        errors = environ["wsgi.errors"]
        kept.append(errors)
        errors.write("one\ntw")
        errors.writelines(["o\n", "thr"])
        errors.flush()
        print("ee", file=errors)
        errors.write("rest")
        start_response("200 OK", PLAIN)
        return []

    call(app)
    assert caplog.messages == [f"GET /path: {x}" for x in ("one", "two", "thr", "ee", "rest")]


def test_a_broken_log_does_no_harm() -> None:
    with broken_log("syncws.server"):
        assert call(broken_before).status.startswith("500")


# -- wsgiref's own opinion -------------------------------------------------


def test_the_validator_agrees(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read(100)
        environ["wsgi.errors"].write("fine\n")
        start_response("200 OK", PLAIN)
        return [b"got ", body]

    channel = FakeChannel(b"hello")
    call(validator(app), "Content-Length: 5", "Content-Type: a/b", channel=channel, method="POST")
    assert b"".join(channel.data) == b"got hello"
    assert caplog.messages == ["POST /path: fine"]
