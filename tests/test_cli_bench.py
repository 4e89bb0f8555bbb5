"""`syncws bench`: what it measures, and what it says."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Ran

import syncws
from syncws.cli.bench.histogram import Histogram, bars
from syncws.cli.bench.load import Load, Plan, Result
from syncws.cli.bench.report import as_json, as_text
from syncws.cli.codes import ExitCode
from syncws.cli.commands import commands
from tests.support import listening


class Echo(syncws.Service):
    def on_text(self, caller: syncws.Caller, text: str) -> None:
        caller.send_text(text)

    def on_binary(self, caller: syncws.Caller, data: bytes) -> None:
        caller.send_binary(data)


def run(*args: str) -> Ran:
    return CliRunner().invoke(commands, ["bench", "--no-progress", *args])


def url_of(listener: syncws.Listener) -> str:
    return f"ws://127.0.0.1:{listener.port}/"


# -- Histograms ---------------------------------------------------------------


@pytest.mark.parametrize("spread", [1e-6, 1e-3, 1.0, 30.0])
def test_percentiles_are_right_within_a_64th(spread: float) -> None:
    numbers = random.Random(7)
    values = sorted(numbers.expovariate(1 / spread) for _ in range(5000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for percent in (1, 50, 90, 99, 99.9, 100):
        exact = values[max(0, -(-int(percent * len(values)) // 100) - 1)]
        assert histogram.percentile(percent) == pytest.approx(exact, rel=1 / 32, abs=2e-9)
    assert (histogram.least, histogram.most) == (values[0], values[-1])
    assert histogram.mean == pytest.approx(sum(values) / len(values))


def test_histograms_add_up() -> None:
    parts = [Histogram(), Histogram(), Histogram()]
    for value in (0.001, 0.004):
        parts[0].add(value)
    parts[2].add(0.0005)
    whole = Histogram.sum(parts)
    assert (whole.count, whole.least, whole.most) == (3, 0.0005, 0.004)
    assert [count for _, count in whole.rows() if count] == [1, 1, 1]
    assert sum(count for _, count in whole.rows()) == 3


def test_nothing_was_counted() -> None:
    empty = Histogram()
    assert (empty.count, empty.mean, empty.percentile(50), empty.rows()) == (0, 0.0, 0.0, [])


def test_every_value_is_in_a_row() -> None:
    histogram = Histogram()
    values = [0.0, 1e-9, 1e-6, 0.0009999, 0.001, 1.0, 499.0]
    for value in values:
        histogram.add(value)
    assert sum(count for _, count in histogram.rows()) == len(values)


def test_bars() -> None:
    assert bars([0, 1, 500, 1000], 10) == ["", "#", "#####", "##########"]
    assert bars([], 10) == []


# -- Load ---------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--depth", "4"), ("--rate", "2000"), ("--binary",)])
def test_an_echo_is_measured(options: tuple[str, ...]) -> None:
    with listening(Echo()) as listener:
        result = run(
            url_of(listener), "-c", "3", "--messages", "200", "--warmup", "0", "--json", *options
        )
    told = json.loads(result.stdout)
    assert result.exit_code == ExitCode.OK
    assert told["answers"] >= 200
    assert sum(row["count"] for row in told["histogram"]) == told["answers"]
    assert told["connections"]["made"] == told["connections"]["asked"] == 3
    assert (told["unanswered"], told["errors"], told["stopped_early"]) == (0, {}, False)
    assert told["message_bytes"] == 32
    latency = told["latency_ms"]
    keys = ["min", "p50", "p90", "p99", "p99.9", "max"]
    assert [latency[key] for key in keys] == sorted(latency[key] for key in keys)


def test_the_table_fits_a_terminal() -> None:
    with listening(Echo()) as listener:
        url = url_of(listener)
        result = run(url, "--messages", "50", "--warmup", "0", "--message", "hé")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert f"{url}, 3 bytes, 1 under way on each\n" in result.stdout
    assert re.search(r"^connections  10 of 10$", result.stdout, re.MULTILINE)
    assert re.search(r"^answers +[\d,]+ in \d+\.\d s$", result.stdout, re.MULTILINE)
    assert re.search(r"^  <= +\d+ [um]?s +[\d,]+  #+$", result.stdout, re.MULTILINE)


def test_a_server_that_does_not_answer() -> None:
    class Silent(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            pass

    with listening(Silent()) as listener:
        result = run(url_of(listener), "-d", "0.05", "--warmup", "0", "--timeout", "0.5", "-c", "2")
    assert result.exit_code == ExitCode.TIMEOUT
    assert "No answer came: this measures servers that answer each message" in result.stdout
    assert "unanswered   2 messages at the end" in result.stdout


def test_a_server_that_closes() -> None:
    class Closing(syncws.Service):
        def on_text(self, caller: syncws.Caller, text: str) -> None:
            caller.close(4000, "enough", timeout=0)

    with listening(Closing()) as listener:
        result = run(url_of(listener), "-c", "2", "-d", "5", "--warmup", "0", "--timeout", "0.1")
    assert result.exit_code == ExitCode.TIMEOUT
    assert "2 x closed with 4000 enough" in result.stdout


def test_a_greeting_is_no_answer() -> None:
    class Greeting(Echo):
        def on_open(self, caller: syncws.Caller) -> None:
            caller.send_text("hello")

    with listening(Greeting()) as listener:
        result = run(url_of(listener), "-c", "1", "--messages", "20", "--warmup", "0", "--json")
    assert json.loads(result.stdout)["answers"] >= 20


def test_all_are_refused() -> None:
    with listening(Echo(), path="/other") as listener:
        result = run(url_of(listener), "-c", "2")
    assert result.exit_code == ExitCode.REFUSED
    assert "connections  0 of 2" in result.stdout
    assert "2 x the server answered with HTTP status 404" in result.stdout


def test_some_are_refused() -> None:
    with listening(Echo(), max_connections=2) as listener:
        result = run(url_of(listener), "-c", "3", "--messages", "20", "--warmup", "0", "--json")
    told = json.loads(result.stdout)
    assert (told["connections"]["made"], told["connections"]["refused"]) == (2, 1)
    assert result.exit_code == ExitCode.FAILED


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("http://localhost/",), "use ws://... instead"),
        (("ws://x/", "--size", "3", "--message", "a"), "give one of --message, --file and --size"),
        (("ws://x/", "--rate", "5", "--depth", "2"), "leave --depth away"),
        (("ws://x/", "--insecure"), "are for wss://"),
        (("ws://x/", "-c", "0"), "0 is not in the range"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == ExitCode.USAGE
    assert says in result.output


def test_it_can_be_stopped_early() -> None:
    with listening(Echo()) as listener:
        load = Load(Plan(url_of(listener), "x", connections=2, duration=1000.0, warmup=0.0))

        def tick(what: str, part: float) -> None:
            if load.answers() > 10:
                load.stop()

        result = load.run(tick)
    assert result.stopped
    assert result.latency.count > 10
    assert "It was stopped early." in as_text(load.plan, result)
    assert as_json(load.plan, result)["stopped_early"]


def test_a_busy_generator_says_so() -> None:
    told = as_text(Plan("ws://x/", "a"), Result(made=1, cpu=1.2))
    assert "The generator itself used 1.2 cores" in told


def test_what_servers_say_is_escaped() -> None:
    def refuse(http: Any, request: Any) -> None:
        http.cancel_upgrade(503, "\x1b[31mred")

    listener = syncws.Listener(0)
    listener.upgrade("/", service=Echo())(refuse)
    with listener:
        assert "\x1b" not in run(url_of(listener), "-c", "1").stdout
