"""``rapidin compact``: space that is given back, and indexes that have to be extended afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.command_line import USAGE, CommandLine
from tests.commands.expectations import listed, report, said, scores

COMPACT_KEYS = {
    *("segments_before", "segments_after", "removed", "bytes_before", "bytes_after", "seconds"),
    *("uncovered", "notes"),
}


def test_space_is_given_back(rapidin: CommandLine, store: Path) -> None:
    assert rapidin("delete", store, "--where", "third=0", "--yes", "--json").json == {"deleted": 200}
    before, kept = listed(rapidin, store), scores(store)
    done = report(rapidin("compact", store, "--json"), COMPACT_KEYS)
    assert (done["segments_before"], done["segments_after"], done["removed"]) == (3, 1, 200)
    assert done["bytes_after"] < done["bytes_before"]
    assert (listed(rapidin, store), scores(store)) == (before, kept)
    again = report(rapidin("compact", store, "--json"), COMPACT_KEYS)
    assert (again["segments_before"], again["segments_after"], again["removed"]) == (1, 1, 0)
    assert rapidin("verify", store).code == 0


def test_the_commands_that_extend_the_indexes_are_told(rapidin: CommandLine, store: Path) -> None:
    for kind in ("ivf", "rabitq"):
        assert rapidin("index", store, "--type", kind).code == 0
    assert rapidin("delete", store, "s0000", "s0300").code == 0
    outcome = rapidin("compact", store)
    for kind in ("ivf", "rabitq"):
        command = f"rapidin index {store} --type {kind}"
        said(outcome, f"index {kind!r} no longer covers 598 samples: extend it with '{command}'")
    described = rapidin("info", store).stdout
    assert "recall" not in described and "0 B" not in described
    assert described.count("it covers 0 of 598 samples") == 2
    for kind in ("ivf", "rabitq"):
        assert rapidin("index", store, "--type", kind, "--json").json["covered"] == 598
    assert "it covers" not in rapidin("info", store).stdout
    assert "no longer" not in rapidin("compact", store).stdout
    assert rapidin("compact", store, "--json").json["uncovered"] == {}


def test_commands_can_be_copied(rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """Lines are not wrapped, and names of directories are not taken for markup."""
    odd = store.rename(store.with_name("a [b] store"))
    assert rapidin("index", odd, "--type", "rabitq").code == 0
    real = monkeypatch.setenv
    monkeypatch.setattr(monkeypatch, "setenv", lambda name, value: real(name, "40"))
    assert f"'rapidin index {odd} --type rabitq'" in rapidin("compact", odd).stdout


def test_what_was_done_is_told_in_words(rapidin: CommandLine, store: Path, empty: Path) -> None:
    said(rapidin("compact", store), "3 → 1 files", "0 deleted samples are gone")
    said(rapidin("compact", empty), "0 → 0 files")


@pytest.mark.parametrize("fraction", ["-0.1", "1.5", "nan", "half"])
def test_a_fraction_outside_its_range_is_refused(rapidin: CommandLine, store: Path, fraction: str) -> None:
    rapidin("compact", store, f"--fraction={fraction}").error(USAGE, "--fraction")
