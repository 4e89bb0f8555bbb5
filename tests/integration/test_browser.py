"""Chromium against the basic sample's service."""

from __future__ import annotations

import http.server
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service as ChromeDriver

import syncws
from tests.support import HANG

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "basic_sample.py"
Basic: Any = runpy.run_path(str(SAMPLE))["Basic"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None, reason="needs chromium and chromedriver"
)

PAGE = b"""<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>syncws</title>
<h1>A page that talks to syncws</h1>
<pre id="log"></pre>
<script>
// Sends each message when the one before it was answered; a list of numbers
// goes as binary. Calls `done` with all that happened once the socket closes.
function talk(url, protocols, messages, goodbye, done) {
  const log = document.getElementById("log");
  const seen = {opened: false, errors: 0, received: []};
  const say = (line) => { log.textContent += line + "\\n"; };
  const ws = new WebSocket(url, protocols);
  ws.binaryType = "arraybuffer";
  const next = () => {
    const message = messages.shift();
    if (message === undefined) {
      if (goodbye) ws.close(...goodbye);
      return;
    }
    const binary = Array.isArray(message);
    say("> " + (binary ? "binary: " + message : message.slice(0, 60)));
    ws.send(binary ? new Uint8Array(message) : message);
  };
  ws.onopen = () => {
    Object.assign(seen, {opened: true, protocol: ws.protocol, extensions: ws.extensions});
    say("opened " + url + ", subprotocol: " + ws.protocol);
    next();
  };
  ws.onmessage = (event) => {
    const binary = typeof event.data !== "string";
    const data = binary ? Array.from(new Uint8Array(event.data)) : event.data;
    seen.received.push(data);
    say("< " + (binary ? "binary: " + data : data.slice(0, 60)));
    next();
  };
  ws.onerror = () => { seen.errors += 1; };
  ws.onclose = (event) => {
    say("closed: " + event.code + " " + event.reason);
    done({...seen, code: event.code, reason: event.reason, clean: event.wasClean});
  };
}
</script>
"""


class Page(http.server.BaseHTTPRequestHandler):
    # For sockets that the browser opens in advance and leaves alone.
    timeout = 2

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Serve the page; return where."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, name="page")
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium with the page open."""
    options = Options()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-proxy-server",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1000,600",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    # With the path given, selenium looks for no driver to download.
    driver = webdriver.Chrome(options, ChromeDriver(CHROMEDRIVER))
    try:
        driver.set_script_timeout(HANG)
        driver.set_page_load_timeout(HANG)
        driver.get(origin)
        yield driver
    finally:
        driver.quit()


class Watched(Basic):
    """The sample's service, for the page, and with an eye on what the sample only prints."""

    def __init__(self, origin: str | None) -> None:
        self.config = syncws.ServiceConfig(
            subprotocols=Basic.config.subprotocols,
            idle_timeout=Basic.config.idle_timeout,
            allowed_origins=() if origin is None else (origin,),
        )
        self.pongs: SimpleQueue[bytes] = SimpleQueue()
        self.closed: SimpleQueue[tuple[int, str]] = SimpleQueue()

    def on_pong(self, caller: syncws.Caller, data: bytes) -> None:
        super().on_pong(caller, data)
        self.pongs.put(data)
        caller.send_text("Thanks for the pong")

    def on_close(self, caller: syncws.Caller, status_code: int, reason: str) -> None:
        super().on_close(caller, status_code, reason)
        self.closed.put((status_code, reason))


class Served:
    """A listener with the sample's service.

    Attributes:
        url: Where it is.
        service: What it leads to.
    """

    def __init__(self, listener: syncws.Listener, service: Watched) -> None:
        self.service = service
        listener.attach("/basic/ws", service)
        self.url = f"ws://127.0.0.1:{listener.port}/basic/ws"


@pytest.fixture
def listener() -> Iterator[syncws.Listener]:
    with syncws.Listener(0) as listener:
        yield listener


@pytest.fixture
def served(listener: syncws.Listener, origin: str) -> Served:
    return Served(listener, Watched(origin))


def talk(
    browser: webdriver.Chrome,
    url: str,
    *messages: str | list[int],
    protocols: tuple[str, ...] = (),
    goodbye: tuple[int, str] | None = None,
) -> dict[str, Any]:
    """Have the page talk to `url` until the socket closes; return what it saw.

    Args:
        browser: The browser with the page.
        url: Where to.
        messages: Sent one by one, each when the one before was answered.
        protocols: The subprotocols offered.
        goodbye: The code and reason of the page's close behind them, if it closes.
    """
    return browser.execute_async_script(
        "talk(...arguments)", url, list(protocols), list(messages), goodbye
    )


def test_text_and_binary_and_the_servers_close(browser: webdriver.Chrome, served: Served) -> None:
    seen = talk(
        browser, served.url, "hello", "Grüße 🐍", [0, 1, 254, 255], [], "", "closeMe",
        protocols=("json",),
    )  # fmt: skip
    assert seen["opened"]
    assert seen["protocol"] == "json"
    assert seen["received"] == [
        "You said: hello",
        "You said: Grüße 🐍",
        [0, 1, 254, 255],
        [],
        "You said: ",
    ]
    assert (seen["code"], seen["reason"]) == (1001, "You told me to close the connection")
    assert seen["clean"]
    assert seen["errors"] == 0
    # Chromium sends the close frame back as it came.
    assert served.service.closed.get(timeout=HANG) == (1001, "You told me to close the connection")


def test_messages_are_compressed_and_may_be_long(browser: webdriver.Chrome, served: Served) -> None:
    text = "жук " * 140_000
    seen = talk(browser, served.url, text, "short", goodbye=(1000, ""))
    assert seen["extensions"].startswith("permessage-deflate")
    assert seen["protocol"] == ""
    assert seen["received"][1] == "You said: short"
    same = seen["received"][0] == "You said: " + text
    assert same


def test_a_message_over_the_limit(browser: webdriver.Chrome, served: Served) -> None:
    seen = talk(browser, served.url, "жук " * 150_000)
    assert (seen["code"], seen["clean"]) == (1009, True)
    assert "max_message_size" in seen["reason"]


def test_the_page_closes(browser: webdriver.Chrome, served: Served) -> None:
    seen = talk(browser, served.url, "hello", goodbye=(3001, "tschüß"))
    assert (seen["code"], seen["clean"]) == (3001, True)
    assert served.service.closed.get(timeout=HANG) == (3001, "tschüß")


def test_the_browser_answers_pings(browser: webdriver.Chrome, served: Served) -> None:
    seen = talk(browser, served.url, "ping", "closeMe")
    assert seen["received"] == ["Thanks for the pong"]
    assert served.service.pongs.get(timeout=HANG) == b"Are you there?"


def test_a_page_that_goes_away_says_so(browser: webdriver.Chrome, served: Served) -> None:
    page = browser.current_window_handle
    browser.switch_to.new_window("tab")
    try:
        browser.get(served.url.replace("ws:", "http:"))
        browser.execute_async_script(
            "ws = new WebSocket(arguments[0]); ws.onopen = arguments[1]", served.url
        )
    finally:
        browser.close()
        browser.switch_to.window(page)
    assert served.service.closed.get(timeout=HANG) == (1001, "")


def test_pages_of_other_origins_are_refused(
    browser: webdriver.Chrome, listener: syncws.Listener
) -> None:
    seen = talk(browser, Served(listener, Watched(None)).url, "hello")
    assert not seen["opened"]
    assert (seen["code"], seen["reason"], seen["clean"]) == (1006, "", False)
    assert seen["errors"] == 1


def test_what_the_sample_says_for_the_console_works(browser: webdriver.Chrome) -> None:
    process = subprocess.Popen(
        [sys.executable, str(SAMPLE), "0"], stdout=subprocess.PIPE, encoding="utf-8"
    )
    page = browser.current_window_handle
    with process:
        try:
            assert process.stdout is not None
            said = ""
            while "Then try" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            (address,) = re.findall(r"open (http://\S+) in a browser", said)
            (code,) = re.findall(r"^ +(ws = new WebSocket.*)$", said, re.MULTILINE)
            browser.switch_to.new_window("tab")
            browser.get(address)
            assert "speaks WebSocket" in browser.page_source
            logged = browser.execute_async_script(
                """
                const lines = [], done = arguments[1];
                console.log = (...words) => {
                    lines.push(words.join(" "));
                    if (lines.length == 1) ws.send("closeMe"); else done(lines);
                };
                (0, eval)(arguments[0]);
                """,
                code,
            )
            browser.close()
        finally:
            browser.switch_to.window(page)
            process.kill()
    assert logged == ["You said: hello", "1001 You told me to close the connection"]
