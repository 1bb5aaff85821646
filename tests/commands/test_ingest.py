"""``rapidin ingest``: ``--bits`` for new stores and existing ones, and what it says about the curvature."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import worlds
from tests.bad_input.command_line import FAILED, USAGE, CommandLine


@pytest.mark.parametrize("bits", [None, 16, 4, 1])
def test_a_store_keeps_the_bits_it_was_created_with(
    rapidin: CommandLine, tmp_path: Path, model_directory: Path, twelve_rows: Path, bits: int | None
) -> None:
    store = tmp_path / "store"
    made = ("ingest", store, "--data", twelve_rows, "--model", model_directory, "--projection-dim", 128)
    assert rapidin(*made, *(() if bits is None else ("--bits", bits))).code == 0
    has = bits or 4
    assert rapidin("info", store, "--json").json["bits"] == has
    assert rapidin("ingest", store, "--data", twelve_rows, "--bits", has, "--json").json["skipped"] == 12
    other = 1 if has == 16 else 16
    expected = (store, f"bits is {has}, not {other}", "ingest into a new store")
    rapidin("ingest", store, "--data", twelve_rows, "--bits", other).error(FAILED, *expected)
    rapidin("ingest", store, "--data", twelve_rows, "--bits", 3).error(USAGE, "--bits 3 cannot be used")


@pytest.fixture
def with_curvature(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys, curvature=True)


def test_the_curvature_is_computed_and_told(
    with_curvature: CommandLine, tmp_path: Path, model_directory: Path, twelve_rows: Path
) -> None:
    rapidin, store = with_curvature, tmp_path / "store"
    made = ("ingest", store, "--data", twelve_rows, "--model", model_directory, "--projection-dim", 128)
    dry = rapidin(*made, "--dry-run")
    assert "12 samples to ingest" in dry.stderr
    assert "0 in the store already; 48 probes of the curvature to compute; room needed: about" in dry.stderr
    assert "curvature: 48 probes would be computed" in dry.stdout
    assert rapidin(*made, "--dry-run", "--json").json["curvature"]["computed"] == 48
    plain = rapidin(*made, "--no-curvature", "--json")
    assert plain.json["curvature"] is None
    assert "probes" not in plain.stderr
    few = rapidin("ingest", store, "--data", twelve_rows, "--probes", 20)
    assert "curvature: 20 probes computed" in few.stdout
    more = rapidin("ingest", store, "--data", twelve_rows, "--probes", 48)
    assert "curvature: 28 of 48 probes computed" in more.stdout
    again = rapidin("ingest", store, "--data", twelve_rows, "--json")
    assert again.json["curvature"] | {"version": None} == {
        "probes": 48,
        "computed": 0,
        "version": None,
        "advice": None,
    }
    asked = ("search", store, "--prompt", "Name the colour.", "--generation", "red", "--rerank", 0, "--json")
    assert rapidin(*asked).json["curvature"] == again.json["curvature"]["version"]


def test_a_store_that_has_grown_is_told(
    with_curvature: CommandLine, tmp_path: Path, model_directory: Path, twelve_rows: Path
) -> None:
    rapidin, store = with_curvature, tmp_path / "store"
    made = ("ingest", store, "--data", twelve_rows, "--model", model_directory, "--projection-dim", 128)
    assert rapidin(*made, "--probes", 8).code == 0
    more = worlds.write_rows(tmp_path / "more.jsonl", worlds.rows(6, first=12))
    told = rapidin("ingest", store, "--data", more).stdout
    assert "curvature: the probes were drawn when the store held 12 samples, and it holds 18" in told
    assert f"'rapidin curvature {store}' draws those that are missing" in told


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--probes", 5, "--no-curvature"), "leave out --no-curvature or --probes"),
        (("--probes", 0), "--probes"),
    ],
)
def test_flags_of_the_curvature_that_cannot_be_used(
    with_curvature: CommandLine, tmp_path: Path, twelve_rows: Path, flags: tuple[object, ...], message: str
) -> None:
    outcome = with_curvature("ingest", tmp_path / "store", "--data", twelve_rows, *flags)
    assert outcome.code == USAGE
    assert message in outcome.stderr
