"""The way from one attempt to the next, without sockets or clocks."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import syncws
from syncws.client.course import Course, Step

URLS = ["ws://one.example/", "ws://two.example/", "ws://three.example/"]


def refused(text: str = "refused") -> syncws.ConnectError:
    return syncws.ConnectError(text)


def rejected(status: int) -> syncws.HandshakeRejected:
    return syncws.HandshakeRejected(SimpleNamespace(status=status, body=b"", headers={}))


def bad_certificate() -> syncws.TLSError:
    error = syncws.TLSError("no")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    return error


def lost_in_tls() -> syncws.TLSError:
    error = syncws.TLSError("no")
    error.__cause__ = ssl.SSLEOFError("it went away")
    return error


def alert(reason: str) -> syncws.TLSError:
    error = syncws.TLSError("no")
    error.__cause__ = cause = ssl.SSLError(1, "an alert")
    cause.reason = reason
    return error


# What OpenSSL calls the alerts of a server that refuses the client's certificate.
ALERTS = (
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_UNKNOWN_CA",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
)

FINAL = {
    "401": lambda: rejected(401),
    "403": lambda: rejected(403),
    "certificate": bad_certificate,
    "a proxy's user": lambda: syncws.ProxyAuthenticationError("who?", "http://p", 407),
    "a proxy's user, of SOCKS": lambda: syncws.ProxyAuthenticationError("who?", "socks5://p"),
    "a proxy's 403": lambda: syncws.ProxyError("no", "http://p", 403),
    "not allowed by SOCKS": lambda: syncws.ProxyError("no", "socks5://p", 2),
    "bug": lambda: RuntimeError("ours"),
    **{reason: lambda reason=reason: alert(reason) for reason in ALERTS},
}
PASSING = {
    "refused": refused,
    "timeout": lambda: syncws.ConnectTimeout("slow"),
    "handshake": lambda: syncws.HandshakeError("nonsense"),
    "tls": lost_in_tls,
    "a proxy that is away": lambda: syncws.ProxyError("refused", "http://p"),
    "a proxy's 503": lambda: syncws.ProxyError("no", "http://p", 503),
    "a server that is away for SOCKS": lambda: syncws.ProxyError("no", "socks5://p", 5),
    "alert": lambda: alert("TLSV1_ALERT_INTERNAL_ERROR"),
    **{str(status): lambda status=status: rejected(status) for status in (400, 402, 404, 429, 503)},
}

final = pytest.mark.parametrize("kind", FINAL)
passing = pytest.mark.parametrize("kind", PASSING)


def retrying(**options: object) -> syncws.RetryConfig:
    return syncws.RetryConfig(**{"jitter": 0.0, **options})  # type: ignore[arg-type]


def course_of(
    targets: int = 1,
    retry: syncws.RetryConfig | None = None,
    failover_interval: float | None = None,
) -> Course:
    return Course(targets, retry, failover_interval, lambda: 0.5)


def steps_until_the_end(course: Course, step: Step | None) -> list[Step]:
    """Return the steps, if every attempt is refused."""
    steps = []
    while step is not None:
        steps.append(step)
        assert len(steps) < 1000, "it never ends"
        step = course.failed(refused())
    return steps


# -- Retry -------------------------------------------------------------------


def test_each_attempt_has_its_number_and_its_wait() -> None:
    course = course_of(retry=retrying(max_count=4, interval=1, backoff_factor=2, max_interval=5))
    assert course.failed(refused()) == Step(0, 1, 2)
    assert course.failed(refused()) == Step(0, 2, 3)
    assert course.failed(refused()) == Step(0, 4, 4)
    assert course.failed(refused()) == Step(0, 5, 5)
    assert course.failed(refused()) is None
    assert course.attempts == 5


def test_behind_a_loss_max_count_attempts_are_made() -> None:
    course = course_of(retry=retrying(max_count=3, interval=1, backoff_factor=2))
    course.connected()
    steps = steps_until_the_end(course, course.lost())
    assert steps == [Step(0, 1, 1), Step(0, 2, 2), Step(0, 4, 3)]
    assert course.attempts == 3


def test_the_counts_begin_afresh_with_each_success() -> None:
    course = course_of(retry=retrying(max_count=3, interval=1, backoff_factor=2))
    for _ in range(5):
        course.failed(refused())
        assert course.failed(refused()) is not None
        course.connected()
        assert (course.attempts, course.reasons) == (0, {})
        assert course.lost() == Step(0, 1, 1)
        course.connected()
    assert len(steps_until_the_end(course, course.lost())) == 3


def test_a_count_of_zero_is_for_ever() -> None:
    course = course_of(retry=retrying(max_count=0, interval=1, backoff_factor=2, max_interval=8))
    for number in range(2, 3000):
        step = course.failed(refused())
        assert step is not None
        assert (step.target, step.number) == (0, number)
        assert step.wait == min(8, 2 ** min(number - 2, 5))
    assert len(course.reasons) == 1


def test_the_wait_is_jittered() -> None:
    numbers = iter([0.0, 1.0, 0.5])
    retry = syncws.RetryConfig(interval=10.0, max_interval=100.0, jitter=0.2)
    course = Course(1, retry, None, lambda: next(numbers))
    waits = [course.failed(refused()) for _ in range(3)]
    assert [step and step.wait for step in waits] == pytest.approx([8.0, 12.0, 10.0])


@final
@pytest.mark.parametrize("max_count", [0, 1, 100])
def test_what_cannot_pass_is_not_retried(kind: str, max_count: int) -> None:
    course = course_of(retry=retrying(max_count=max_count))
    assert course.failed(refused()) is not None
    assert course.failed(FINAL[kind]()) is None
    again = course_of(retry=retrying(max_count=max_count))
    again.connected()
    assert again.lost() is not None
    assert again.failed(FINAL[kind]()) is None


@passing
def test_what_may_pass_is_retried(kind: str) -> None:
    course = course_of(retry=retrying())
    for number in (2, 3, 4):
        assert course.failed(PASSING[kind]()) == Step(0, 1, number)


# -- Failover ----------------------------------------------------------------


def test_the_addresses_have_their_turns() -> None:
    course = course_of(3, None, 2.5)
    assert course.target == 0
    assert course.failed(refused()) == Step(1, 2.5, 2)
    assert course.target == 1
    assert course.failed(refused()) == Step(2, 2.5, 3)
    assert course.failed(refused()) is None
    assert course.attempts == 3


def test_behind_a_loss_the_next_has_its_turn_and_the_lost_one_is_last() -> None:
    course = course_of(3, None, 1.0)
    course.failed(refused())
    course.connected()
    assert [step.target for step in steps_until_the_end(course, course.lost())] == [2, 0, 1]


def test_losses_go_round() -> None:
    course = course_of(3, None, 1.0)
    targets = []
    for _ in range(7):
        course.connected()
        step = course.lost()
        assert step is not None
        assert step.number == 1
        targets.append(step.target)
    assert targets == [1, 2, 0, 1, 2, 0, 1]


def test_an_address_that_was_given_up_is_tried_again_behind_a_success() -> None:
    course = course_of(2, None, 1.0)
    assert course.failed(rejected(401)) is not None
    course.connected()
    assert course.lost() == Step(0, 1.0, 1)


@final
def test_what_cannot_pass_at_one_address_does_not_matter_at_the_next(kind: str) -> None:
    course = course_of(2, retrying(max_count=5), 1.0)
    assert course.failed(FINAL[kind]()) == Step(1, 1.0, 2)
    assert course.failed(refused()) == Step(1, 1.0, 3)


def test_one_address_that_is_lost_is_tried_once_more() -> None:
    course = course_of(1, None, 3.0)
    course.connected()
    assert steps_until_the_end(course, course.lost()) == [Step(0, 3.0, 1)]


# -- Both --------------------------------------------------------------------


def test_each_address_is_retried_before_the_next() -> None:
    retry = retrying(max_count=2, interval=1, backoff_factor=2)
    course = course_of(2, retry, 5.0)
    assert steps_until_the_end(course, Step(0, 0, 1)) == [
        Step(0, 0, 1),
        Step(0, 1, 2),
        Step(0, 2, 3),
        Step(1, 5.0, 4),
        Step(1, 1, 5),
        Step(1, 2, 6),
    ]


def test_a_lost_address_is_retried_and_then_given_up() -> None:
    course = course_of(3, retrying(max_count=1), 5.0)
    course.connected()
    steps = steps_until_the_end(course, course.lost())
    assert steps == [
        Step(0, 1, 1),
        Step(1, 5.0, 2),
        Step(1, 1, 3),
        Step(2, 5.0, 4),
        Step(2, 1, 5),
    ]


def test_retries_are_counted_afresh_at_each_address() -> None:
    course = course_of(2, retrying(max_count=2, backoff_factor=3), 5.0)
    course.failed(refused())
    course.failed(rejected(403))
    assert course.failed(refused()) == Step(1, 1, 4)


def planned(
    targets: int, start: int, lost: bool, retries: int | None, failover: bool
) -> Iterator[tuple[int, int]]:
    """Yield the addresses in turn, and how often each is tried at the most."""
    if retries is None:
        first = start + 1 if lost else start
        for offset in range(targets):
            yield (first + offset) % targets, 1
        return
    yield start, retries if lost else retries + 1
    if failover:
        for offset in range(1, targets):
            yield (start + offset) % targets, retries + 1


@given(
    targets=st.integers(1, 4),
    retries=st.none() | st.integers(1, 4),
    failover=st.booleans(),
    data=st.data(),
)
def test_any_course_is_as_planned(
    targets: int, retries: int | None, failover: bool, data: st.DataObject
) -> None:
    if retries is None:
        failover = True
    if not failover:
        targets = 1
    retry = None if retries is None else retrying(max_count=retries, interval=1, backoff_factor=2)
    course = course_of(targets, retry, 7.0 if failover else None)
    lost = False
    for _ in range(data.draw(st.integers(1, 4), "rounds")):
        number = 0
        start = course.target
        step = course.lost() if lost else Step(start, 0.0, 1)
        before = start
        reached = False
        for target, most in planned(targets, start, lost, retries, failover):
            for count in range(most):
                number += 1
                assert step is not None
                assert (step.target, step.number) == (target, number)
                assert course.target == target
                if number > 1 or lost:
                    retried = target == before and retry is not None
                    tries = count if lost and target == start else count - 1
                    assert step.wait == (2.0**tries if retried else 7.0)
                before = target
                outcome = data.draw(st.sampled_from(["refused", "final", "connected"]), "outcome")
                if outcome == "connected":
                    course.connected()
                    reached = True
                    break
                error = refused() if outcome == "refused" else rejected(401)
                step = course.failed(error)
                assert course.reasons[target] is error
                if outcome == "final":
                    break
            if reached:
                break
        if not reached:
            assert step is None
            assert course.attempts == number
            return
        assert course.attempts == 0
        lost = True


# -- The verdict -------------------------------------------------------------


@final
def test_the_verdict_over_the_only_address_is_what_it_says(kind: str) -> None:
    course = course_of(retry=retrying())
    course.failed(refused())
    error = FINAL[kind]()
    assert course.failed(error) is None
    assert course.verdict(URLS[:1]) is error


def test_the_verdict_over_retries() -> None:
    course = course_of(retry=retrying(max_count=1))
    course.failed(refused("first"))
    error = refused("second")
    course.failed(error)
    verdict = course.verdict(URLS[:1])
    assert isinstance(verdict, syncws.RetriesExhausted)
    assert verdict.reasons == ((URLS[0], error),)
    assert verdict.attempts == 2
    assert verdict.__cause__ is error
    assert str(verdict) == f"no connection after 2 attempts: {URLS[0]}: second"


def test_the_verdict_has_the_last_reason_of_each_address() -> None:
    course = course_of(3, retrying(max_count=1), 1.0)
    course.failed(refused("not this"))
    errors = [refused("a"), rejected(401), refused("b")]
    course.failed(errors[0])
    course.failed(errors[1])
    course.failed(refused("nor this"))
    course.failed(errors[2])
    verdict = course.verdict(URLS)
    assert isinstance(verdict, syncws.RetriesExhausted)
    assert verdict.reasons == tuple(zip(URLS, errors, strict=True))
    assert verdict.attempts == 5
    assert verdict.__cause__ is errors[2]


@final
def test_the_verdict_over_several_is_of_all_of_them(kind: str) -> None:
    course = course_of(2, None, 1.0)
    errors = [FINAL[kind](), FINAL[kind]()]
    for error in errors:
        course.failed(error)
    verdict = course.verdict(URLS[:2])
    assert isinstance(verdict, syncws.RetriesExhausted)
    assert [error for _, error in verdict.reasons] == errors


def test_reasons_from_before_a_success_do_not_count() -> None:
    course = course_of(2, None, 1.0)
    course.failed(refused("old"))
    course.connected()
    course.lost()
    new = refused("new")
    course.failed(new)
    assert course.reasons == {0: new}
