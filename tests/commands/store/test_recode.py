"""``rapidin recode``: copies of a store with other numbers of bits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bad_input.command_line import FAILED, USAGE, CommandLine
from tests.commands.expectations import listed, report, said
from tests.storage.derived.clusters import COUNT

RECODE_KEYS = {"samples", "bits", "bytes_before", "bytes_after", "seconds", "notes"}


@pytest.mark.parametrize("bits", [16, 4, 1])
def test_a_copy_has_the_bits_asked_for(rapidin: CommandLine, store: Path, tmp_path: Path, bits: int) -> None:
    new = tmp_path / "new"
    outcome = rapidin("recode", store, new, "--bits", bits, "--json")
    done = report(outcome, RECODE_KEYS)
    assert (done["samples"], done["bits"]) == (COUNT, bits)
    assert ("not better" in outcome.stderr) == (bits == 16)
    # Headers of files and factors of rows beside the numbers themselves.
    assert done["bytes_after"] / done["bytes_before"] == pytest.approx(bits / 4, rel=0.3)
    assert rapidin("info", new, "--json").json["bits"] == bits
    assert listed(rapidin, new) == listed(rapidin, store)
    assert rapidin("verify", new).code == 0


def test_what_was_done_is_told_in_words(rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
    said(rapidin("recode", store, tmp_path / "new", "--bits", 1), f"600 samples in {tmp_path / 'new'}")


def test_a_disk_without_room_is_seen_at_once(
    rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path
) -> None:
    """It is seen before any vector is coded. Room for the vectors alone is too little."""
    from rapidin.storage import snapshot

    vectors = 600 * 128  # 256 numbers of 4 bits
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=vectors + 20_000))
    monkeypatch.setattr(snapshot, "decoded_vectors", None)
    new = tmp_path / "new"
    rapidin("recode", store, new, "--bits", 4).error(FAILED, "bytes are needed and 96,800 bytes are free")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_target_that_holds_something_is_refused(rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
    for taken in (store, tmp_path):
        rapidin("recode", store, taken, "--bits", 1).error(FAILED, taken, "give a new or empty one")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_bits_without_a_codec_are_refused(rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
    rapidin("recode", store, tmp_path / "new", "--bits", 3).error(USAGE, "--bits 3", "16, 4, 1")
    rapidin("recode", store, tmp_path / "new").error(USAGE, "--bits")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
