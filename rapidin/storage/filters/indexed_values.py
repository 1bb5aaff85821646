"""Metadata values as the table ``sample_metadata`` holds them, so that SQLite can find and compare them.

Everything that writes the table (commits and changes of metadata) uses this module, and `verify` compares with it.
A change here needs a migration that fills the table again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from rapidin.storage.filters.metadata import value_text

LONGEST_TEXT = 200
"""Maximum number of characters of an indexed text. Longer ones bloat the index, and few filters need them."""
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**63 - 1
"""Range of SQLite's integers."""


class Kind(IntEnum):
    """The meaning of a row of the table.

    Attributes:
        NUMBER: `number` is the value: an integer of at most 64 bits or a finite float other than -0.0.
        TEXT: `text` is the value's text: a text itself, or the JSON of a list or object.
        BOOLEAN: `number` is 0 or 1.
        LONG_TEXT: text that is too long for the index; only the sample's JSON holds it.
        OTHER: any other value that only the sample's JSON holds, for example an integer beyond 64 bits.
    """

    # The frequent kinds come first, because SQLite stores 0 and 1 without using a byte.
    NUMBER = 0
    TEXT = 1
    BOOLEAN = 2
    LONG_TEXT = 3
    OTHER = 4


class IndexedValue(NamedTuple):
    """The columns of one row that hold the value."""

    kind: Kind
    number: int | float | None = None
    text: str | None = None


def indexed_metadata(metadata_json: str) -> dict[str, IndexedValue]:
    """Return the values of a sample's metadata that are not null, by field.

    Raises:
        ValueError: the text is not the JSON of an object, so the row was damaged.
    """
    try:
        metadata = json.loads(metadata_json)
    except RecursionError as error:
        raise ValueError("metadata is nested too deeply") from error
    if not isinstance(metadata, Mapping):
        raise ValueError("metadata is not a JSON object")
    return {name: indexed_value(value) for name, value in metadata.items() if value is not None}


def indexed_value(value: Any) -> IndexedValue:
    """Return the columns for a value that came from JSON and is not null."""
    if isinstance(value, bool):
        return IndexedValue(Kind.BOOLEAN, number=int(value))
    if isinstance(value, (int, float)):
        return IndexedValue(Kind.NUMBER, number=value) if _fits(value) else IndexedValue(Kind.OTHER)
    try:
        text = value_text(value)
        text.encode()
    except ValueError:  # rapidin writes neither half a surrogate pair nor an infinite number inside a list
        return IndexedValue(Kind.OTHER)
    return IndexedValue(Kind.LONG_TEXT) if len(text) > LONGEST_TEXT else IndexedValue(Kind.TEXT, text=text)


def _fits(number: int | float) -> bool:
    """Tell whether SQLite gives the number back as it was, with its sign and type."""
    if isinstance(number, int):
        return SMALLEST_INTEGER <= number <= LARGEST_INTEGER
    # SQLite promises nothing about -0.0, and refuses NaN.
    return math.isfinite(number) and not (number == 0 and math.copysign(1.0, number) < 0)
