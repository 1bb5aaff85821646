"""Exports that would fill the memory, or whose sizes are not what they seem."""

from __future__ import annotations

import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rapidin.errors import StoreError
from rapidin.storage import Store, export_vectors, import_vectors
from rapidin.storage.transfer import export_reading


@pytest.fixture
def export(filled: Store, tmp_path: Path) -> Path:
    export_vectors(filled, tmp_path / "export")
    return tmp_path / "export"


def replaced(export: Path, name: str, values: pa.Array, **options) -> None:
    table = pq.read_table(export / "samples.parquet")
    columns = {column: table.column(column) for column in table.schema.names} | {name: values}
    pq.write_table(pa.table(columns), export / "samples.parquet", compression="zstd", **options)


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_small_file_that_unpacks_to_gigabytes(export: Path, tmp_path: Path, dictionary: bool) -> None:
    replaced(export, "prompt", pa.array(["A" * 30_000_000] * 20, pa.large_string()), use_dictionary=dictionary)
    assert (export / "samples.parquet").stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StoreError, match=r"samples\.parquet: .* unpack"):
        import_vectors(tmp_path / "new", export)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert not (tmp_path / "new").exists()


def test_a_text_that_many_rows_share_is_kept_once(export: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(export_reading, "_BATCH_CHARACTERS", 3_000_000)
    replaced(export, "prompt", pa.array(["A" * 1_000_000] * 20, pa.large_string()))
    assert import_vectors(tmp_path / "new", export).added == 20


def test_a_text_that_no_model_reads(export: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(export_reading, "_LONGEST_TEXT", 1000)
    replaced(export, "response", pa.array(["x"] * 7 + ["y" * 1001] + ["x"] * 12))
    with pytest.raises(StoreError, match="row 8: its response has 1,001 characters"):
        import_vectors(tmp_path / "new", export)


def test_a_number_that_no_store_holds(export: Path, tmp_path: Path) -> None:
    replaced(export, "tokens", pa.array([2**63] + [1] * 19, pa.uint64()))
    with pytest.raises(StoreError, match="row 1: its tokens is 9223372036854775808"):
        import_vectors(tmp_path / "new", export)
