"""The chat sample, as people use it: in Chromium, on a desktop and on a phone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service as ChromeDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

import syncws
from tests.programs import catches
from tests.support import HANG, wait_until

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "examples" / "chat" / "chat.py"

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")

in_chromium = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None, reason="needs chromium and chromedriver"
)

# A slash and what else ends a path, markup, a direction mark, and what is longer in UTF-16.
ODD_NAMES = ["a/b ?#%2F & c", "<b>Bob</b>", "👩‍🚀 Zoë", "\u202enada", "..a", "W" * 30]


class Room:
    """The sample as it runs."""

    def __init__(self) -> None:
        self.port = 0
        self.start()
        self.url = f"http://localhost:{self.port}/"

    def start(self) -> None:
        """Start it, where it was if it has been."""
        self._process = subprocess.Popen(
            [sys.executable, "-X", "dev", str(SAMPLE), str(self.port)],
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT)},  # this syncws, whatever is installed
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert self._process.stdout is not None
        self.said = self._process.stdout.readline()
        found = re.search(r"Open http://localhost:(\d+)/ in two tabs", self.said)
        if found is None:
            self._process.kill()
            pytest.fail(self.said + self._process.communicate(timeout=HANG)[0])
        self.port = int(found[1])
        # It lets people in, and says so, before it looks after signals.
        wait_until(lambda: catches(self._process.pid, signal.SIGTERM))

    def kill(self) -> None:
        """End it without a word to anybody."""
        self._process.kill()
        self._process.communicate(timeout=HANG)

    def stop(self) -> None:
        """End it in order; check that it had nothing to complain about."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            self.said += self._process.communicate(timeout=HANG)[0]
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        assert self._process.returncode == 0, self.said
        assert "Traceback" not in self.said, self.said
        assert "Warning" not in self.said, self.said

    def join(self, name: str, age: str = "30") -> syncws.Client:
        """Join without a browser."""
        address = f"ws://localhost:{self.port}/chat/{quote(name, safe='')}"
        return syncws.Client(f"{address}?age={quote(age)}")


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    try:
        yield room
    finally:
        room.stop()


# -- Without a browser -------------------------------------------------------


def heard(client: syncws.Client) -> dict[str, Any]:
    return json.loads(client.receive_text(timeout=HANG))


def test_everyone_is_told_who_joins_what_is_said_and_who_leaves(room: Room) -> None:
    with room.join("ada", "36") as ada:
        first = heard(ada)
        me = {"id": first["id"], "name": "ada", "age": "36"}
        assert first == {"event": "joined", **me, "people": [me]}
        with room.join("ada", "7") as other:  # there may be two of a name
            second = heard(other)
            you = {"id": second["id"], "name": "ada", "age": "7"}
            assert second == {"event": "joined", **you, "people": [me, you]}
            assert heard(ada) == second
            assert me["id"] != you["id"]
            other.send_text("<hello> 👋")
            ada.send_text("hi")
            said = [{"event": "said", **you, "text": "<hello> 👋"}]
            said += [{"event": "said", **me, "text": "hi"}]
            for one in ada, other:
                assert sorted((heard(one), heard(one)), key=lambda told: -len(told["text"])) == said
        assert heard(ada) == {"event": "left", **you, "people": [me]}
    room.stop()
    assert room.said.count("'ada' joined\n") == room.said.count("'ada' left\n") == 2


@pytest.mark.parametrize("query", ["", "?age=", "?name=ada"])
def test_who_says_no_age_is_refused(room: Room, query: str) -> None:
    with pytest.raises(syncws.HandshakeRejected) as caught:
        syncws.Client(f"ws://localhost:{room.port}/chat/ada{query}")
    assert (caught.value.status, caught.value.body) == (400, b"Age is required")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_will_do(room: Room, name: str) -> None:
    with room.join(name) as client:
        assert heard(client)["name"] == name


def test_a_name_and_an_age_have_an_end(room: Room) -> None:
    with room.join("ä" * 1000, "1" * 1000) as client:
        told = heard(client)
    assert (told["name"], told["age"]) == ("ä" * 30, "111")


def test_there_is_one_page_and_it_brings_everything(room: Room) -> None:
    page = requests.get(room.url, timeout=HANG)
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    page.encoding = "utf-8"
    assert page.text == SAMPLE.with_name("chat.html").read_text(encoding="utf-8")
    assert not re.search(
        r"https?://|@import|url\(|<(script|img|link)[^>]+(src|href)=.[^d]", page.text
    )
    for other in ("favicon.ico", "chat/ada?age=36", "chat.py"):
        answer = requests.get(room.url + other, timeout=HANG)
        assert (answer.status_code, answer.text) == (404, "There is only the page at /\n")


# -- In a browser ------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium."""
    options = Options()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
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
        "--window-size=1000,700",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    # With the path given, selenium looks for no driver to download.
    driver = webdriver.Chrome(options, ChromeDriver(CHROMEDRIVER))
    try:
        driver.set_script_timeout(HANG)
        driver.set_page_load_timeout(HANG)
        yield driver
    finally:
        driver.quit()


class Page:
    """One person's page, in a window of its own. Each method comes back to that window."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self._browser = browser
        browser.switch_to.new_window("window")
        self._window = browser.current_window_handle
        browser.get(url)

    def __getitem__(self, name: str) -> WebElement:
        """Return the element with this id."""
        self._browser.switch_to.window(self._window)
        return self._browser.find_element(By.ID, name)

    def run(self, script: str) -> Any:
        """Return the value of an expression."""
        self._browser.switch_to.window(self._window)
        return self._browser.execute_script(f"return {script}")

    def wait(self, condition: Callable[[], Any], message: str = "") -> Any:
        """Wait until the condition is true."""
        try:
            return WebDriverWait(self._browser, HANG, 0.02).until(lambda _: condition(), message)
        except TimeoutException as error:
            shown = self["state"].text, self.lines()
            raise AssertionError(f"{message}; the page shows {shown}") from error

    def write(self, name: str, text: str) -> None:
        """Write text into a field, as a keyboard's emoji come, too: send_keys has none."""
        field = self[name]
        field.clear()
        field.click()
        self._browser.execute_cdp_cmd("Input.insertText", {"text": text})
        assert field.get_property("value") == text

    def join(self, name: str, age: str = "30") -> None:
        """Fill in the form and press Enter, and wait until everybody knows."""
        self.write("name", name)
        self.write("age", age)
        self["age"].send_keys(Keys.ENTER)
        self.wait(lambda: self["state"].text.endswith("Connected"), "not connected")
        self.see(f"{name} ({age}) joined")

    def say(self, text: str) -> None:
        """Write a message and press Enter."""
        self.write("text", text)
        self["text"].send_keys(Keys.ENTER)

    def leave(self) -> None:
        self["leave"].click()

    def lines(self) -> list[str]:
        """Return what the conversation's lines show."""
        return self.run('Array.from(document.querySelectorAll("#log p"), p => p.innerText)')

    def see(self, *lines: str, times: int = 1) -> None:
        """Wait until the conversation has these lines, that many times."""
        for line in lines:
            self.wait(lambda line=line: self.lines().count(line) == times, f"no {line!r}")

    def see_people(self, *people: str) -> None:
        """Wait until these are shown to be here, as they came."""
        script = 'Array.from(document.querySelectorAll("#people li"), li => li.innerText)'
        self.wait(lambda: self.run(script) == list(people), f"not {people}")

    def classes(self, line: str) -> list[str]:
        """Return the classes of the lines that show this."""
        script = 'Array.from(document.querySelectorAll("#log p"), p => [p.innerText, p.className])'
        return [name for text, name in self.run(script) if text == line]

    def has_focus(self, name: str) -> bool:
        return bool(self.run(f'document.activeElement.id === "{name}"'))

    def be_a_phone(self, height: int = 640) -> None:
        """Have this viewport, of 360 pixels' width."""
        self._browser.switch_to.window(self._window)
        screen = {"width": 360, "height": height, "deviceScaleFactor": 2, "mobile": True}
        self._browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.wait(lambda: self.run("[innerWidth, innerHeight]") == [360, height], "no phone")

    def check_layout(self, *visible: str) -> None:
        """Check that nothing is off the sides, and that all of these is in sight."""
        assert self.run("document.documentElement.scrollWidth <= innerWidth")
        assert self.run("document.documentElement.scrollHeight <= innerHeight")
        for name in visible:
            rect = self.run(f'document.getElementById("{name}").getBoundingClientRect().toJSON()')
            width, height = self.run("[innerWidth, innerHeight]")
            assert rect["left"] >= 0, name
            assert rect["top"] >= 0, name
            assert rect["right"] <= width, name
            assert rect["bottom"] <= height, name
            assert rect["height"] > 20, name
            if name in ("leave", "send", "text"):
                assert rect["height"] < 50, name  # one line

    def at_end(self) -> bool:
        """Whether the newest line is in sight."""
        return bool(self.run("Math.abs(log.scrollHeight - log.scrollTop - log.clientHeight) < 2"))

    def reload(self) -> None:
        self._browser.switch_to.window(self._window)
        self._browser.refresh()

    def close(self) -> None:
        self._browser.switch_to.window(self._window)
        self._browser.close()


@pytest.fixture
def open_page(browser: webdriver.Chrome, room: Room) -> Iterator[Callable[[], Page]]:
    """What opens the sample's page in a window, which is gone behind the test."""
    first = browser.current_window_handle
    yield lambda: Page(browser, room.url)
    for window in browser.window_handles:
        if window != first:
            browser.switch_to.window(window)
            browser.close()
    browser.switch_to.window(first)


@pytest.fixture
def ada(open_page: Callable[[], Page]) -> Page:
    return open_page()


@pytest.fixture
def bob(open_page: Callable[[], Page]) -> Page:
    return open_page()


@in_chromium
def test_two_talk_and_see_each_other_come_and_go(ada: Page, bob: Page) -> None:
    assert ada.has_focus("name")
    ada.join("Ada", "36")
    assert ada.has_focus("text")
    ada.see_people("Ada (36), you")
    bob.join("Bob", "7")
    ada.see("Bob (7) joined")
    ada.see_people("Ada (36), you", "Bob (7)")
    bob.see_people("Ada (36)", "Bob (7), you")
    ada.say("hello, Bob")
    bob.see("Ada\nhello, Bob")
    bob.say("  Grüße 👋  ")
    ada.see("Bob\nGrüße 👋")
    assert bob["text"].get_property("value") == ""
    bob.say("   ")  # is no message
    bob.leave()
    ada.see("Bob (7) left")
    ada.see_people("Ada (36), you")
    assert ada.lines() == [
        "Ada (36) joined",
        "Bob (7) joined",
        "Ada\nhello, Bob",
        "Bob\nGrüße 👋",
        "Bob (7) left",
    ]
    assert ada.run('log.getAttribute("role")') == "log"  # is read out


@in_chromium
def test_who_closes_the_page_leaves(ada: Page, bob: Page) -> None:
    ada.join("Ada")
    bob.join("Bob")
    ada.see("Bob (30) joined")
    bob.close()
    ada.see("Bob (30) left")


@in_chromium
def test_who_has_left_stays_away_and_may_come_again(ada: Page, bob: Page) -> None:
    bob.join("Bob")
    ada.join("Ada", "36")
    ada.say("before")
    bob.see("Ada\nbefore")
    ada.leave()
    assert ada["state"].text == "You have left"
    assert ada["enter"].is_displayed()
    assert ada.has_focus("name")
    bob.see("Ada (36) left")
    ada.reload()
    ada.join("Ada", "37")
    assert ada.lines() == ["Ada (37) joined"]
    bob.see("Ada (37) joined")
    bob.see_people("Bob (30), you", "Ada (37)")


@in_chromium
def test_who_says_no_age_is_told_so_and_may_try_again(ada: Page) -> None:
    ada.write("name", "Ada")
    ada["join"].click()
    ada.wait(lambda: ada["state"].text == "Not let in: age is required", "let in")
    assert ada["state"].get_attribute("role") == "status"  # is read out
    assert ada["enter"].is_displayed()
    assert not ada["chat"].is_displayed()
    assert ada.has_focus("age")
    ada.join("Ada", "36")


@in_chromium
@pytest.mark.parametrize("name", ["", "   ", "..", " . "])
def test_what_is_no_name_is_not_sent(ada: Page, name: str) -> None:
    ada.write("name", name)
    ada.write("age", "36")
    ada["join"].click()
    assert not ada.run("document.forms[0].checkValidity()")
    assert ada.run("socket") is None
    assert ada.has_focus("name")


@in_chromium
def test_names_are_shown_as_they_are(ada: Page, bob: Page) -> None:
    ada.join("Ada")
    for name in ODD_NAMES:
        bob.join(name, "9")
        ada.see(f"{name} (9) joined")
        bob.say("it is me")
        ada.see(f"{name}\nit is me")
        bob.leave()
        ada.see(f"{name} (9) left")
    assert ada.run('document.querySelectorAll("#log b b").length') == 0


@in_chromium
def test_html_is_shown_as_text(ada: Page, bob: Page) -> None:
    html = "<img src=x onerror=\"document.title='caught'\"><b>bold</b> &amp; <script>1</script>"
    ada.join("Ada")
    bob.join("Bob")
    ada.say(html)
    for page in ada, bob:
        page.see(f"Ada\n{html}")
        assert page.run('document.querySelectorAll("#log img, #log script").length') == 0
        assert page.run("document.title") != "caught"


@in_chromium
def test_two_of_a_name_are_told_apart(ada: Page, bob: Page) -> None:
    ada.join("Ada", "36")
    bob.join("Ada", "7")
    ada.see_people("Ada (36), you", "Ada (7)")
    bob.see_people("Ada (36)", "Ada (7), you")
    ada.say("from the first")
    bob.see("Ada\nfrom the first")
    bob.say("from the second")
    ada.see("Ada\nfrom the second")
    assert ada.classes("Ada\nfrom the first") == bob.classes("Ada\nfrom the second") == ["mine"]
    assert bob.classes("Ada\nfrom the first") == ada.classes("Ada\nfrom the second") == [""]


@in_chromium
def test_who_is_impatient_joins_once(ada: Page) -> None:
    ada.write("name", "Ada")
    ada.write("age", "36")
    ada.run('[1, 2, 3].forEach(() => document.getElementById("join").click())')
    ada.see("Ada (36) joined")
    ada.say("anybody?")
    ada.see("Ada\nanybody?")
    assert ada.lines() == ["Ada (36) joined", "Ada\nanybody?"]
    ada.see_people("Ada (36), you")


@in_chromium
def test_a_reload_leads_back_into_the_room(ada: Page, bob: Page) -> None:
    ada.join("Ada", "36")
    bob.join("Bob")
    ada.see("Bob (30) joined")
    bob.reload()
    ada.see("Bob (30) left")
    ada.see("Bob (30) joined", times=2)
    bob.see_people("Ada (36)", "Bob (30), you")
    bob.say("here again")
    ada.see("Bob\nhere again")


@in_chromium
def test_the_pages_come_back_when_the_server_does(room: Room, ada: Page, bob: Page) -> None:
    ada.join("Ada", "36")
    bob.join("Bob", "7")
    ada.say("before")
    bob.see("Ada\nbefore")
    room.kill()
    for page in ada, bob:
        page.wait(lambda page=page: "trying again" in page["state"].text, "not lost")
        page.see("Connection lost")
        page.see_people()
    ada.wait(lambda: ada.run("wait") > 1000, "no second attempt")
    ada.write("text", "unsent")
    ada["text"].send_keys(Keys.ENTER)
    assert ada["text"].get_property("value") == "unsent"  # it waits
    assert not ada["send"].is_enabled()

    room.start()
    for page in ada, bob:
        page.wait(lambda page=page: page["state"].text.endswith("Connected"), "not back")
    ada.wait(lambda: ada.run('document.querySelectorAll("#people li").length') == 2, "alone")
    ada["text"].send_keys(Keys.ENTER)
    bob.see("Ada\nunsent")
    bob.say("after")
    ada.see("Bob\nafter")
    assert ada.classes("Ada\nbefore") == ada.classes("Ada\nunsent") == ["mine"]
    assert ada.lines().count("Connection lost") == 1
    assert ada.run("wait") == 500  # a loss is as the first one


@in_chromium
def test_who_leaves_while_the_server_is_gone_is_not_brought_back(room: Room, ada: Page) -> None:
    ada.join("Ada", "36")
    ada.run("setTimeout = () => 77, clearTimeout = (timer) => { window.cleared = timer }")
    room.kill()
    ada.see("Connection lost")
    ada.leave()
    assert ada.run("cleared") == 77
    assert ada["state"].text == "You have left"
    ada["join"].click()
    ada.wait(lambda: ada["state"].text == "The server does not answer", "something answers")
    room.start()
    with room.join("Bob") as bob:
        assert [one["name"] for one in heard(bob)["people"]] == ["Bob"]
        ada["join"].click()
        assert heard(bob)["name"] == "Ada"
    ada.see("Bob (30) left")


@in_chromium
def test_on_a_phone_all_is_in_sight(room: Room, ada: Page) -> None:
    ada.be_a_phone()
    ada.check_layout("name", "age", "join")
    ada.join("W" * 30, "100")
    ada.check_layout("leave", "log", "text", "send")
    with room.join("Bob") as bob:
        for number in range(47):
            bob.send_text(f"message {number}")
        ada.see("Bob\nmessage 46")
    ada.see("Bob (30) left")
    ada.say("W" * 300)
    ada.see("W" * 30 + "\n" + "W" * 300)
    assert len(ada.lines()) == 51
    ada.check_layout("leave", "people", "log", "text", "send")
    assert ada.at_end()
    assert ada.run('document.querySelector("#log").scrollWidth <= log.clientWidth')
    assert ada.run('parseFloat(getComputedStyle(at("text")).fontSize)') >= 16  # or iOS zooms in

    ada.be_a_phone(height=340)  # as its keyboard comes up
    ada.wait(ada.at_end, "the newest line is out of sight")
    ada.check_layout("leave", "people", "log", "text", "send")


@in_chromium
def test_a_crowd_leaves_room_for_the_conversation(room: Room, ada: Page) -> None:
    ada.be_a_phone(height=340)
    crowd = []
    try:
        for number in range(20):
            crowd.append(room.join(f"number {number} of a crowd"))
        ada.join("Ada")
        ada.wait(lambda: ada.run('document.querySelectorAll("#people li").length') == 21, "few")
        ada.check_layout("leave", "people", "log", "text", "send")
    finally:
        for client in crowd:
            client.close()


@in_chromium
def test_who_reads_what_was_said_is_not_disturbed(room: Room, ada: Page) -> None:
    ada.be_a_phone()
    ada.join("Ada")
    with room.join("Bob") as bob:
        for number in range(20):
            bob.send_text(f"message {number}")
        ada.see("Bob\nmessage 19")
        assert ada.at_end()
        ada.run("log.scrollTo(0, 30)")
        ada.wait(lambda: not ada.run("atEnd"), "at the end")
        bob.send_text("one more")
        ada.see("Bob\none more")
    ada.see("Bob (30) left")
    assert ada.run("log.scrollTop") == 30
    ada.say("mine")
    ada.see("Ada\nmine")
    assert ada.at_end()  # who writes sees it


@in_chromium
def test_the_page_logs_no_errors(browser: webdriver.Chrome, ada: Page) -> None:
    browser.get_log("browser")
    ada.join("Ada")
    ada.say("hello")
    ada.see("Ada\nhello")
    ada.reload()
    ada.see("Ada (30) joined")
    ada.leave()
    assert browser.get_log("browser") == []
