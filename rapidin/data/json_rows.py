"""Rows of JSON Lines files, and of JSON files that hold an array of objects."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rapidin.data.row import BYTE_ORDER_MARK, Row, bad_utf8, open_bytes
from rapidin.errors import DataFileError, RowError
from rapidin.support import error_line, shortened

_blank = re.compile(r"[ \t\r\n]*")


class _StrictJson:
    """Decodes JSON, and reports numbers that JSON does not have (NaN, Infinity) or that a float cannot hold."""

    def __init__(self) -> None:
        self._refused: str | None = None
        self._decoder = json.JSONDecoder(parse_constant=self._refuse, parse_float=self._float)

    def _refuse(self, literal: str) -> None:
        self._refused = literal

    def _float(self, literal: str) -> float:
        number = float(literal)
        if not math.isfinite(number):
            self._refused = literal
        return number

    def decode(self, text: str, start: int) -> tuple[Any, int, str | None]:
        """Decode one value.

        Args:
            text: the text.
            start: position at which the value begins.

        Returns:
            The value, the position of its end, and a number in it that is refused; None if there is no such
            number.

        Raises:
            ValueError: the text is not JSON; a JSONDecodeError if the syntax is wrong.
        """
        self._refused = None
        try:
            value, end = self._decoder.raw_decode(text, start)
        except RecursionError as error:
            raise json.JSONDecodeError("nested too deeply", text, start) from error
        return value, end, self._refused


def _json_row(path: Path, number: int, value: Any, refused: str | None) -> Row | RowError:
    """Make a row of a decoded value, or the error that says why it is not a row."""
    if refused is not None:
        return RowError(path, number, f"holds the number {refused}, which JSON does not have; write null")
    if not isinstance(value, dict):
        try:
            found = shortened(json.dumps(value), 200)
        except RecursionError:
            found = "lists within lists, many levels deep"
        return RowError(path, number, f"is not a JSON object {{…}} but {found}")
    return Row(str(path), number, {name: field for name, field in value.items() if field is not None})


def json_lines_rows(path: Path) -> Iterator[Row | RowError]:
    """Yield the rows of a JSON Lines file; blank lines are skipped, and a broken line is one error."""
    decoder = _StrictJson()
    with open_bytes(path) as lines:
        for number, line in enumerate(lines, start=1):
            content = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if content.isspace() or not content:
                continue
            try:
                text = content.rstrip(b"\r\n").decode("utf-8")
                value, end, refused = decoder.decode(text, _skip_blank(text, 0))
                rest = _skip_blank(text, end)
                if rest < len(text):
                    raise json.JSONDecodeError("Extra data", text, rest)
            except UnicodeDecodeError as error:
                yield RowError(path, number, bad_utf8(number, error))
            except json.JSONDecodeError as error:
                yield RowError(path, number, f"broken JSON at line {number}, column {error.pos + 1}: {error.msg}")
            except ValueError as error:  # an integer of thousands of digits
                yield RowError(path, number, f"broken JSON at line {number}: {error_line(error)}")
            else:
                yield _json_row(path, number, value, refused)


def json_array_rows(path: Path) -> Iterator[Row | RowError]:
    """Yield the elements of an array of objects; a ``.json`` file that holds JSON Lines is read as JSON Lines.

    Raises:
        DataFileError: the file holds neither, or its damage is not limited to a row.
    """
    with open_bytes(path) as file:
        content = file.read().removeprefix(BYTE_ORDER_MARK)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataFileError(f"{path}: {bad_utf8(line, error)}") from error
    del content
    start = _skip_blank(text, 0)
    try:
        if text.startswith("[", start):
            yield from _elements(path, text, start)
        elif start < len(text):
            value, end, _ = _StrictJson().decode(text, start)
            if not isinstance(value, dict) or "\n" in text[start:end]:
                raise DataFileError(
                    f"{path}: is not an array of objects [{{…}}, …]; write one, or one object per line as .jsonl"
                )
            yield from json_lines_rows(path)
    except json.JSONDecodeError as error:
        raise DataFileError(
            f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except ValueError as error:
        raise DataFileError(f"{path}: broken JSON: {error_line(error)}") from error


def _elements(path: Path, text: str, start: int) -> Iterator[Row | RowError]:
    """Decode the array at `start` one element at a time, so that an error can name the element's number."""
    decoder = _StrictJson()
    number = 0
    position = _skip_blank(text, start + 1)
    more = not text.startswith("]", position)
    while more:
        number += 1
        value, position, refused = decoder.decode(text, position)
        yield _json_row(path, number, value, refused)
        position = _skip_blank(text, position)
        more = text.startswith(",", position)
        if more:
            position = _skip_blank(text, position + 1)
        elif not text.startswith("]", position):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
    rest = _skip_blank(text, position + 1)
    if rest < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)


def _skip_blank(text: str, start: int) -> int:
    """Return the position of the first character from `start` on that is not white space."""
    match = _blank.match(text, start)
    return match.end() if match else start
