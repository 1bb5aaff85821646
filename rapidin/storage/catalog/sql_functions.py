"""Python functions that SQLite calls, because it has no regular expressions and its JSON functions do not suffice.

Those functions cannot name a key with a double quote, cut text at a NUL, and round integers beyond 64 bits, all of
it differently from version to version. `database` registers the functions below with every connection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, false, func

from rapidin.storage.filters import Condition

_PLAIN_PATTERN = re.compile(r"[\w ]*")
"""Regular expressions of letters, digits, underscores and spaces, which match only themselves."""


def finds(pattern: str, column: Any) -> ColumnElement[bool]:
    """Return SQL that tells whether the regular expression finds something in the text."""
    if _PLAIN_PATTERN.fullmatch(pattern):
        found: ColumnElement[bool] = func.instr(column, pattern) > 0  # many times faster than a call of Python
        return found
    return func.rapidin_finds(pattern, column, type_=false().type)


def metadata_matches(condition: Condition, metadata_json: Any) -> ColumnElement[bool]:
    """Return SQL that tells whether the condition holds for a sample with this metadata, a column of JSON."""
    return func.rapidin_metadata_matches(
        metadata_json, condition.field, *_arguments(condition), type_=false().type
    )


def value_matches(condition: Condition, value: Any) -> ColumnElement[bool]:
    """Return SQL that tells whether the condition holds for this value, a column of numbers or texts."""
    return func.rapidin_value_matches(value, *_arguments(condition), type_=false().type)


def _arguments(condition: Condition) -> tuple[str, bool, str, bool]:
    return condition.operator, condition.negated, condition.text, condition.quoted


@lru_cache(maxsize=64)
def _condition(symbol: str, negated: bool, text: str, quoted: bool) -> Condition:
    return Condition("", True, symbol, negated, text, quoted)


def _metadata_matches(metadata: str, field: str, symbol: str, negated: int, text: str, quoted: int) -> bool:
    return _value_matches(json.loads(metadata).get(field), symbol, negated, text, quoted)


def _value_matches(value: Any, symbol: str, negated: int, text: str, quoted: int) -> bool:
    return _condition(symbol, bool(negated), text, bool(quoted)).matches(value)


def _finds(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None


SQL_FUNCTIONS: tuple[tuple[str, int, Callable[..., bool]], ...] = (
    ("rapidin_metadata_matches", 6, _metadata_matches),
    ("rapidin_value_matches", 5, _value_matches),
    ("rapidin_finds", 2, _finds),
)
"""Name, number of arguments and function."""
