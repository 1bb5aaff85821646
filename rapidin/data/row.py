"""The row of a data file, and functions that all readers share."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data file.

    Attributes:
        file: path of the data file, as the user wrote it.
        number: number of the row, from 1: the line in JSON Lines (blank lines count), the row below the header in
            CSV, the element of a JSON array, the row in Parquet.
        fields: values by name, as in the file; null values and empty CSV cells are absent.
        untyped: whether the format has only text (CSV), so that every value is a str; a value that becomes
            metadata may be read as a number or a truth value.
    """

    file: str
    number: int
    fields: dict[str, Any]
    untyped: bool = False


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes; a file whose name ends in .gz is decompressed."""
    if path.name.lower().endswith(".gz"):
        return io.BufferedReader(gzip.open(path, "rb"))
    return path.open("rb")


def bad_utf8(line: int, error: UnicodeDecodeError) -> str:
    """Make the message about the first byte of a line that is not UTF-8."""
    return f"line {line} is not valid UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8"
