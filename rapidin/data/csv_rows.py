"""Rows of CSV files with a header, separated by commas and quoted by double quotes (RFC 4180)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from rapidin.data.row import Row, open_bytes
from rapidin.errors import DataFileError, RowError
from rapidin.support import error_line, shortened

LARGEST_CELL = 2**31 - 1


def csv_rows(path: Path) -> Iterator[Row | RowError]:
    """Yield the rows below the header; every value is text, and empty cells are absent fields.

    Raises:
        DataFileError: the header is broken.
    """
    # Many texts are longer than the default limit of 128 KiB. The limit holds for the whole process, so it is only
    # raised.
    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
    with open_bytes(path) as file:
        # Bytes that are not UTF-8 become lone surrogates, so that only their own row is lost.
        lines = (line.decode("utf-8", "surrogateescape") for line in file)
        reader = csv.reader(_without_mark(lines), strict=True)
        try:
            header = next((cells for cells in reader if cells), [])
        except csv.Error as error:
            raise DataFileError(f"{path}: broken CSV at line {reader.line_num}: {error_line(error)}") from error
        if not _is_unicode(header):
            raise DataFileError(f"{path}: the header is not valid UTF-8; save the file as UTF-8")
        if "" in header or len(set(header)) < len(header):
            raise DataFileError(
                f"{path}: the header has an empty or repeated name: {shortened(repr(header), 200)}"
            )
        number = 0
        while True:
            first_line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                yield RowError(path, number, f"broken CSV at line {first_line}: {error_line(error)}")
                continue
            if not cells:
                continue
            number += 1
            if len(cells) != len(header):
                reason = f"line {first_line} has {len(cells)} cells, the header {len(header)}"
                yield RowError(path, number, f"{reason}; quote cells that hold a comma")
            elif not _is_unicode(cells):
                yield RowError(path, number, f"line {first_line} is not valid UTF-8; save the file as UTF-8")
            else:
                fields = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
                yield Row(str(path), number, fields, untyped=True)


def _without_mark(lines: Iterator[str]) -> Iterator[str]:
    """Remove a byte order mark from the first line."""
    for index, line in enumerate(lines):
        yield line.removeprefix("\ufeff") if index == 0 else line


def _is_unicode(cells: Sequence[str]) -> bool:
    """Tell whether no cell holds a byte that is not UTF-8, which was read as a lone surrogate."""
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
