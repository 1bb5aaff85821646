"""``rapidin import``: exports read into new stores and into existing ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidin.storage import Store
from tests.bad_input.command_line import FAILED, USAGE, CommandLine
from tests.commands.expectations import listed, report, said
from tests.storage.derived.clusters import COUNT, settings_of

IMPORT_KEYS = {"added", "replaced", "skipped", "samples_total"}


@pytest.fixture
def exported(rapidin: CommandLine, store: Path, tmp_path: Path) -> Path:
    assert rapidin("export", store, tmp_path / "exported").code == 0
    return tmp_path / "exported"


def test_a_new_store_holds_what_was_exported(
    rapidin: CommandLine, store: Path, exported: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    done = report(rapidin("import", new, exported, "--json"), IMPORT_KEYS)
    assert done == {"added": COUNT, "replaced": 0, "skipped": 0, "samples_total": COUNT}
    assert rapidin("info", new, "--json").json["bits"] == 4
    assert listed(rapidin, new) == listed(rapidin, store)
    assert rapidin("verify", new).code == 0


def test_an_existing_store_gets_what_it_lacks(rapidin: CommandLine, store: Path, exported: Path) -> None:
    assert rapidin("delete", store, "s0000", "s0599", "--yes").code == 0
    done = report(rapidin("import", store, exported, "--json"), IMPORT_KEYS)
    assert done == {"added": 2, "replaced": 0, "skipped": COUNT - 2, "samples_total": COUNT}
    said(rapidin("import", store, exported), "0 added, 0 replaced, 600 there already", "holds 600 samples")


@pytest.mark.parametrize("bits", [16, 4, 1])
def test_a_new_store_gets_the_bits_asked_for(
    rapidin: CommandLine, exported: Path, tmp_path: Path, bits: int
) -> None:
    new = tmp_path / "new"
    assert rapidin("import", new, exported, "--bits", bits).code == 0
    assert rapidin("info", new, "--json").json["bits"] == bits
    other = 16 if bits == 4 else 4
    rapidin("import", new, exported, "--bits", other).error(FAILED, new, f"has {bits} bits, not {other}")


def test_bits_without_a_codec_are_refused(rapidin: CommandLine, exported: Path, tmp_path: Path) -> None:
    rapidin("import", tmp_path / "new", exported, "--bits", 3).error(USAGE, "--bits 3", "16, 4, 1")
    assert not (tmp_path / "new").exists()


def test_a_store_of_other_settings_is_refused(rapidin: CommandLine, exported: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Store.create(other, settings_of(4, dimension=128)).close()
    rapidin("import", other, exported).error(FAILED, other, "projection dimension (128 and 256)", "a new store")
    assert rapidin("info", other, "--json").json["samples"] == 0


def test_a_directory_that_is_no_export_is_refused(rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
    for place in (store, tmp_path / "absent"):
        rapidin("import", tmp_path / "new", place).error(FAILED, place, "not an export of a store")
    assert not (tmp_path / "new").exists()
