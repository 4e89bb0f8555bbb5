"""What is told of an attempt: in words, and in the log."""

from __future__ import annotations

import dataclasses
import logging
import pickle

import pytest

import syncws
from syncws.client.attempt import log_attempt
from syncws.client.course import Step
from tests.support import broken_log

URL = "ws://one.example/"
OTHER = "ws://two.example/"
ERROR = syncws.ConnectError("nobody is there")
WAITING = syncws.Attempt(3, URL, "waiting", 0.25, ERROR, 17)
CONNECTING = syncws.Attempt(3, URL, "connecting")
CONNECTED = syncws.Attempt(3, URL, "connected")


def test_an_attempt_that_waits() -> None:
    made = syncws.Attempt.waiting(Step(0, 0.25, 3), URL, ERROR, 17)
    assert made == WAITING
    assert (made.number, made.url, made.state) == (3, URL, "waiting")
    assert (made.wait, made.error, made.unsent) == (0.25, ERROR, 17)
    assert syncws.Attempt.waiting(Step(0, 0.25, 3), URL, ERROR).unsent == 0


@pytest.mark.parametrize("attempt", [CONNECTING, CONNECTED])
def test_an_attempt_that_does_not_wait_has_no_error(attempt: syncws.Attempt) -> None:
    assert (attempt.wait, attempt.error, attempt.unsent) == (0.0, None, 0)


def test_an_attempt_cannot_be_changed_and_can_be_handed_on() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        WAITING.number = 4  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(CONNECTED))
    assert copy == CONNECTED


def test_an_attempt_in_words() -> None:
    assert str(WAITING).startswith(f"attempt 3 at {URL} in 0.25 s")
    assert str(CONNECTING).startswith(f"attempt 3 at {URL}")
    assert str(CONNECTED) == f"connected to {URL} by attempt 3"
    assert len({str(WAITING), str(CONNECTING), str(CONNECTED)}) == 3


def logged(
    caplog: pytest.LogCaptureFixture, before: str, attempt: syncws.Attempt
) -> tuple[int, str]:
    caplog.set_level(logging.DEBUG, "syncws.client")
    log_attempt(before, attempt)
    (record,) = caplog.records
    assert record.name == "syncws.client"
    return record.levelno, record.getMessage()


def test_a_wait_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    level, text = logged(caplog, URL, WAITING)
    assert level == logging.WARNING
    assert text == f"{URL}: nobody is there; attempt 3 in 0.25 s"


def test_a_wait_for_another_address_names_both(caplog: pytest.LogCaptureFixture) -> None:
    level, text = logged(caplog, OTHER, WAITING)
    assert level == logging.WARNING
    assert text == f"{OTHER}: nobody is there; attempt 3 at {URL} in 0.25 s"


@pytest.mark.parametrize("attempt", [CONNECTING, CONNECTED])
def test_attempts_and_successes_are_logged(
    attempt: syncws.Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    level, text = logged(caplog, OTHER, attempt)
    assert level == logging.INFO
    assert text == str(attempt)


@pytest.mark.parametrize("attempt", [WAITING, CONNECTING, CONNECTED])
def test_a_log_that_raises_does_not_matter(attempt: syncws.Attempt) -> None:
    logging.getLogger("syncws.client").setLevel(logging.DEBUG)
    try:
        with broken_log("syncws.client"):
            log_attempt(URL, attempt)
    finally:
        logging.getLogger("syncws.client").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (0.0, "0"),
        (0.002, "0.002"),
        (0.0949, "0.095"),
        (1.0, "1"),
        (12.3456, "12.35"),
        (600.0, "600"),
    ],
)
def test_a_wait_for_people(wait: float, text: str) -> None:
    assert syncws.Attempt(1, "ws://a/", "waiting", wait).seconds == text
