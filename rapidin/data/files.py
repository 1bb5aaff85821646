"""The choice of a reader for each file, and errors of files as a whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rapidin.data.csv_rows import csv_rows
from rapidin.data.json_rows import json_array_rows, json_lines_rows
from rapidin.data.parquet_rows import parquet_rows
from rapidin.data.row import Row
from rapidin.errors import DataFileError, RowError
from rapidin.support import error_line

SUFFIXES = (
    ".jsonl",
    ".ndjson",
    ".json",
    ".csv",
    ".parquet",
    ".jsonl.gz",
    ".ndjson.gz",
    ".json.gz",
    ".csv.gz",
)
"""Endings of the names of files that can be read; upper case counts as lower case."""

Reader = Callable[[Path], Iterator[Row | RowError]]
"""Function that yields the rows of a file, and the errors of rows that cannot be read."""

READERS: dict[str, Reader] = {
    ".jsonl": json_lines_rows,
    ".ndjson": json_lines_rows,
    ".json": json_array_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}


def read_rows(files: Sequence[Path], on_error: Callable[[RowError], None] | None = None) -> Iterator[Row]:
    """Read the rows of files in order, in constant memory; only a ``.json`` file is held in memory as a whole.

    All files are checked before the first row is read, so that a misspelt name is found at once.

    Args:
        files: paths that end in one of `SUFFIXES`.
        on_error: function that is called with the error of a row that cannot be read, after which reading goes on;
            None to raise the error.

    Raises:
        DataFileError: a file is missing, a directory, empty, of an unknown kind, or broken beyond its rows.
        RowError: a row cannot be read and there is no `on_error`.
    """
    readers = [(path, _reader(path)) for path in files]
    return _rows(readers, on_error)


def _rows(readers: Sequence[tuple[Path, Reader]], on_error: Callable[[RowError], None] | None) -> Iterator[Row]:
    for path, reader in readers:
        empty = True
        for row in _guarded(path, reader):
            empty = False
            if isinstance(row, Row):
                yield row
            elif on_error is None:
                raise row
            else:
                on_error(row)
        if empty:
            raise DataFileError(f"{path}: holds no rows; give a file with at least one")


def _guarded(path: Path, reader: Reader) -> Iterator[Row | RowError]:
    """Yield the rows of one file; failures of the disk and of a damaged .gz become errors that name the file."""
    try:
        yield from reader(path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(f"{path}: cannot be read: {error_line(error)}; check the file") from error


def _reader(path: Path) -> Reader:
    """Choose the function that reads a file by the file's suffix, after a check that the file can be opened."""
    name = path.name.lower()
    suffix = next((known for known in SUFFIXES if name.endswith(known)), None)
    try:
        if path.is_dir():
            raise DataFileError(f"{path}: is a directory; name the data files in it")
        if not path.exists():
            raise DataFileError(f"{path}: no such file; check the path")
        if suffix is None:
            raise DataFileError(f"{path}: unknown kind of file; known are {', '.join(SUFFIXES)}")
        if path.stat().st_size == 0:
            raise DataFileError(f"{path}: is empty; give a file with at least one row")
        with path.open("rb"):
            pass
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:  # samples carry their file's name, and a store holds only text
        raise DataFileError(f"{path}: its name is not valid UTF-8; rename it") from error
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read: {error_line(error)}; check the file") from error
    return READERS[suffix.removesuffix(".gz")]
