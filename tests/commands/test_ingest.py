"""``rapidin ingest --bits``, for new stores and existing ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.command_line import FAILED, USAGE, CommandLine


@pytest.mark.parametrize("bits", [None, 16, 4, 1])
def test_a_store_keeps_the_bits_it_was_created_with(
    rapidin: CommandLine, tmp_path: Path, model_directory: Path, twelve_rows: Path, bits: int | None
) -> None:
    store = tmp_path / "store"
    made = ("ingest", store, "--data", twelve_rows, "--model", model_directory, "--projection-dim", 64)
    assert rapidin(*made, *(() if bits is None else ("--bits", bits))).code == 0
    has = bits or 4
    assert rapidin("info", store, "--json").json["bits"] == has
    assert rapidin("ingest", store, "--data", twelve_rows, "--bits", has, "--json").json["skipped"] == 12
    other = 1 if has == 16 else 16
    expected = (store, f"bits is {has}, not {other}", "ingest into a new store")
    rapidin("ingest", store, "--data", twelve_rows, "--bits", other).error(FAILED, *expected)
    rapidin("ingest", store, "--data", twelve_rows, "--bits", 3).error(USAGE, "--bits 3 cannot be used")
