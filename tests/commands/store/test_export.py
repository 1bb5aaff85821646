"""``rapidin export``: formats, filters, and directories that cannot be written to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bad_input.command_line import FAILED, USAGE, CommandLine
from tests.commands.expectations import report, said
from tests.storage.derived.clusters import COUNT, WIDTH

EXPORT_KEYS = {"path", "format", "samples", "bytes", "seconds", "notes"}
FORMATS = {"safetensors": {"vectors-00000.safetensors"}, "numpy": {"vectors.npy"}}


@pytest.mark.parametrize("format", FORMATS)
def test_both_formats_are_written(rapidin: CommandLine, store: Path, tmp_path: Path, format: str) -> None:
    to = tmp_path / "exported"
    done = report(rapidin("export", store, to, "--format", format, "--json"), EXPORT_KEYS)
    assert (done["path"], done["format"], done["samples"]) == (str(to), format, COUNT)
    assert {path.name for path in to.iterdir()} == {"store.json", "samples.parquet"} | FORMATS[format]
    assert done["bytes"] == sum(path.stat().st_size for path in to.iterdir())
    if format == "numpy":
        assert np.load(to / "vectors.npy").shape == (COUNT, WIDTH)


def test_a_filter_chooses_samples(rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
    chosen = ("--where", "third=1", "--where", "id<s0300")
    done = report(rapidin("export", store, tmp_path / "some", *chosen, "--json"), EXPORT_KEYS)
    assert done["samples"] == 100
    rapidin("export", store, tmp_path / "none", "--where", "colour=red").error(USAGE, "'colour'")
    rapidin("export", store, tmp_path / "none", "--format", "csv").error(USAGE, "--format")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some", "store"]


def test_what_was_done_is_told_in_words(rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
    said(rapidin("export", store, tmp_path / "to"), "600 samples", f"in {tmp_path / 'to'}")


def test_a_directory_that_holds_something_is_refused(rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
    to = tmp_path / "exported"
    to.mkdir()
    (to / "mine.txt").write_text("mine")
    rapidin("export", store, to).error(FAILED, to, "the directory holds 'mine.txt'; give a new or empty one")
    rapidin("export", store, to / "mine.txt").error(FAILED, to / "mine.txt", "new or empty directory")
    rapidin("export", store, store).error(FAILED, store, "give a new or empty one")
    assert [path.name for path in to.iterdir()] == ["mine.txt"]
    (to / "mine.txt").unlink()
    assert rapidin("export", store, to).code == 0
