"""Every input of the corpora goes through its target, with both sets of loops, and takes little."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from syncws.protocol.decoder import Decoder
from syncws.protocol.deflate import Inflate
from syncws.protocol.events import PING, Event
from syncws.protocol.http import HeadReader

from . import __main__ as command
from .corpus import CORPUS, load
from .findings import Findings
from .mutate import fuzz
from .parcel import Parcel, Violation
from .seeds import seeds
from .targets import MAX_SIZE, TARGETS, TOKENS

NAMES = pytest.mark.parametrize("name", TARGETS)

# Bytes that an input may take at the most, whatever it has. A target holds the
# events of up to five runs, and a message without a limit inflates to a
# thousand times its size.
MOST = 8 * 1024 * 1024
MOST_LIMITED = 1024 * 1024


@NAMES
def test_the_corpus_goes_through(name: str) -> None:
    corpus = load(CORPUS / name)
    for file, data in corpus.items():
        try:
            TARGETS[name](data)
        except Exception as exc:
            raise AssertionError(f"{CORPUS / name / file}: {exc!r}") from exc
    assert len(corpus) >= 20


@NAMES
def test_the_corpus_has_what_it_began_with(name: str) -> None:
    corpus = load(CORPUS / name)
    assert {file: corpus.get(file) for file in seeds(name)} == seeds(name)


def test_the_corpora_are_small() -> None:
    sizes = [len(data) for name in TARGETS for data in load(CORPUS / name).values()]
    assert max(sizes) <= MAX_SIZE
    assert sum(sizes) <= 300_000
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


@NAMES
def test_no_input_takes_much_memory(name: str) -> None:
    for file, data in load(CORPUS / name).items():
        parcel = Parcel.parse(data)
        unlimited = {"frames": parcel.bits(4, 2) == 0, "deflate": parcel.bits(0, 2) == 0}
        tracemalloc.start()
        try:
            TARGETS[name](data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < (MOST if unlimited.get(name) else MOST_LIMITED), file


def test_a_good_handshake_is_accepted() -> None:
    assert TARGETS["server_handshake"](seeds("server_handshake")["good"])[0] == "accepted"
    assert TARGETS["client_handshake"](seeds("client_handshake")["good-deflate"])[0] == "agreed"


@pytest.mark.parametrize("name", ["server_handshake", "client_handshake"])
def test_a_seed_does_what_its_name_says(name: str) -> None:
    expected = {
        "good": ("accepted", "agreed"),
        "declined": ("accepted",),
        "rejected": ("rejected",),
    }
    refused = ("refused", "no request", "HandshakeError")
    for file, data in seeds(name).items():
        kind = file.partition("-")[0]
        if kind in ("good", "declined", "rejected", "refused", "bad"):
            assert TARGETS[name](data)[0] in expected.get(kind, refused), file


# -- The targets see what goes wrong ---------------------------------


def test_a_decoder_that_says_something_else_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    control = Decoder._control

    def hasty(self: Decoder, opcode: int, *where: Any) -> Event | None:
        return Event(PING, b"wrong") if opcode == PING else control(self, opcode, *where)

    monkeypatch.setattr(Decoder, "_control", hasty)
    with pytest.raises(Violation, match="by wsproto alone"):
        whole = Parcel.parse(seeds("frames")["server-controls"])._replace(sizes=())
        TARGETS["frames"](whole.pack())


def test_a_limit_that_does_not_hold_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    init = Inflate.__init__

    def unlimited(self: Inflate, **options: Any) -> None:
        init(self, **{**options, "max_message_size": None})

    monkeypatch.setattr(Inflate, "__init__", unlimited)
    with pytest.raises(Violation, match="over the limit"):
        TARGETS["deflate"](seeds("deflate")["bomb"])


def test_a_head_that_depends_on_its_cuts_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = HeadReader.feed

    def hasty(self: HeadReader, data: bytes) -> bytes | None:
        return feed(self, data + b"\r\n\r\n" if len(data) == 1 else data)

    monkeypatch.setattr(HeadReader, "feed", hasty)
    with pytest.raises(Violation, match="in pieces"):
        TARGETS["server_handshake"](seeds("server_handshake")["good"])


# -- The drivers -----------------------------------------------------


def test_parcels_are_packed_and_parsed() -> None:
    parcel = Parcel(0x1234, (3, 0), b"abcdefg")
    assert Parcel.parse(parcel.pack()) == parcel
    assert parcel.pieces() == [b"abc", b"defg"]
    assert [parcel.bits(2), parcel.bits(4, 4), parcel.choose(4, "abcd")] == [1, 3, "d"]
    assert Parcel.parse(b"") == Parcel(0, (), b"")


@NAMES
def test_a_few_mutations(name: str, tmp_path: Path) -> None:
    findings = Findings(name, tmp_path / "findings")
    corpus = load(CORPUS / name).values()
    options: dict[str, Any] = {"seconds": 60.0, "seed": 1, "most": len(corpus) + 150}
    executions, kept = fuzz(TARGETS[name], corpus, TOKENS[name], findings, **options)
    assert findings.paths == []
    assert executions == options["most"]
    assert fuzz(TARGETS[name], corpus, TOKENS[name], findings, **options) == (executions, kept)


def test_what_goes_wrong_is_written_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(data: bytes) -> tuple[object, ...]:
        return (1 // len(data),)

    findings = Findings("frames", tmp_path)
    assert findings.attempt(broken, b"a") == (1,)
    assert findings.attempt(broken, b"") is None
    assert findings.attempt(broken, b"") is None
    (path,) = findings.paths
    assert path.read_bytes() == b""
    assert f"python -m tests.fuzz --target frames {path}" in capsys.readouterr().out


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["fuzz", *arguments])
        status = command.main()
        return status, capsys.readouterr().out

    status, out = run(
        *("--plain", "--seconds", "0", "--seed", "7", "--target", "exchange"),
        *("--keep", str(tmp_path / "kept"), "--findings", str(tmp_path / "findings")),
    )
    assert status == 0
    assert out.startswith("seed 7\n")
    assert f"exchange          {len(load(CORPUS / 'exchange')):12}" in out
    assert len(list((tmp_path / "kept" / "exchange").iterdir())) >= 20
    file = CORPUS / "exchange" / "length"
    assert run("--target", "exchange", str(file))[1] == "length: exchange: (None, True, 3, 0)\n"


def test_a_finding_is_an_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "exchange", lambda data: (data[100],))
    arguments = ("--plain", "--seconds", "0", "--target", "exchange", "--findings", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["fuzz", *arguments])
    assert command.main() == 1
    (path,) = tmp_path.iterdir()
    assert capsys.readouterr().out.endswith(f"\n  {path}\n")
