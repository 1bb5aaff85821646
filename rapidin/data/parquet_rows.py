"""Rows of Parquet files, which are read through pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rapidin.data.row import Row
from rapidin.errors import DataFileError, RowError
from rapidin.support import error_line

PARQUET_BATCH = 512
"""Number of rows that are decoded at a time; a row group, the unit of the format, may be larger than memory."""


def parquet_rows(path: Path) -> Iterator[Row | RowError]:
    """Yield the rows of a Parquet file in constant memory; the file is closed when the iterator ends or is closed.

    Values are Python objects (a date column gives dates), and null values are absent fields. Times are cut to
    whole microseconds, the smallest unit of Python's times.

    Raises:
        DataFileError: the file is no Parquet file or is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet

    number = 0
    try:
        # Threads of pyarrow's pool may abort the process while the interpreter ends (apache/arrow#34314).
        with path.open("rb") as file, pyarrow.parquet.ParquetFile(file) as content:
            stored = content.schema_arrow
            wanted = pa.schema([_in_microseconds(pa, column) for column in stored])
            for batch in content.iter_batches(batch_size=PARQUET_BATCH, use_threads=False):
                rows = pa.Table.from_batches([batch])
                for row in (rows if wanted.equals(stored) else rows.cast(wanted, safe=False)).to_pylist():
                    number += 1
                    yield Row(str(path), number, {name: field for name, field in row.items() if field is not None})
    except (ValueError, TypeError, KeyError, NotImplementedError, OSError) as error:  # Arrow raises these
        if isinstance(error, OSError) and error.errno is not None:  # a failure of the disk, not of the content
            raise
        raise DataFileError(
            f"{path}: cannot be read as Parquet after row {number}: {error_line(error)}; write the file again"
        ) from error


def _in_microseconds(pa: Any, field: Any) -> Any:
    """Return the field with nanoseconds replaced by microseconds, the smallest unit of Python's objects."""
    kind = field.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        kind = pa.timestamp("us", kind.tz)
    elif pa.types.is_time64(kind) and kind.unit == "ns":
        kind = pa.time64("us")
    elif pa.types.is_duration(kind) and kind.unit == "ns":
        kind = pa.duration("us")
    elif pa.types.is_struct(kind):
        kind = pa.struct([_in_microseconds(pa, kind.field(index)) for index in range(kind.num_fields)])
    elif pa.types.is_list(kind):
        kind = pa.list_(_in_microseconds(pa, kind.value_field))
    elif pa.types.is_large_list(kind):
        kind = pa.large_list(_in_microseconds(pa, kind.value_field))
    elif pa.types.is_fixed_size_list(kind):
        kind = pa.list_(_in_microseconds(pa, kind.value_field), kind.list_size)
    elif pa.types.is_map(kind):
        kind = pa.map_(_in_microseconds(pa, kind.key_field), _in_microseconds(pa, kind.item_field))
    return field.with_type(kind)
