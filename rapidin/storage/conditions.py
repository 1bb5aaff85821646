"""Filters as SQLAlchemy expressions over the table of samples; values are bound parameters throughout.

Built-in fields are columns and compared by SQLite. Metadata is compared by `filters.Condition.matches`,
registered as an SQL function, because SQLite's own JSON functions cannot do it: their paths know no key with a
double quote in it, they cut text at a NUL and round integers beyond 64 bits, differently from version to version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, case, cast, false, func, not_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from rapidin.errors import FilterError
from rapidin.storage.filters import COMPARISONS, Condition, check_field, parse
from rapidin.storage.schema import MetadataFieldRow, SampleRow, SegmentRow

_TEXT_COLUMNS: dict[str, Any] = {
    "id": SampleRow.sample_id,
    "prompt": SampleRow.prompt,
    "response": SampleRow.response,
    "text": SampleRow.prompt + SampleRow.response,
    "file": SampleRow.file,
    "truncated": case((SampleRow.truncated, "true"), else_="false"),
    "segment": select(SegmentRow.name).where(SegmentRow.id == SampleRow.segment_id).scalar_subquery(),
}
_NUMBER_COLUMNS: dict[str, InstrumentedAttribute[int]] = {
    "row": SampleRow.row,
    "tokens": SampleRow.tokens,
    "targets": SampleRow.targets,
}
_LARGEST_INTEGER = 2**63 - 1
"""Of SQLite; beyond it a number is bound as a float, which is larger than any row number all the same."""


def compile_filters(where: Sequence[str], session: Session) -> ColumnElement[bool]:
    """One SQL condition that holds where all the expressions do; true without any.

    Raises:
        FilterError: an expression that cannot be read or asks for a field that no sample has.
    """
    expressions = (where,) if isinstance(where, str) else tuple(where)
    conditions = [parse(expression) for expression in expressions]
    if not conditions:
        return true()
    metadata_fields = session.scalars(select(MetadataFieldRow.name)).all()
    for condition in conditions:
        check_field(condition, metadata_fields)
    return and_(*(_compiled(condition) for condition in conditions))


def _compiled(condition: Condition) -> ColumnElement[bool]:
    name = condition.field
    if not condition.in_metadata and (name in _TEXT_COLUMNS or name in _NUMBER_COLUMNS):
        plain = _on_column(condition)
        return not_(plain) if condition.negated else plain
    matched: ColumnElement[bool] = func.rapidin_metadata_matches(
        SampleRow.metadata_json,
        name,
        condition.operator,
        condition.negated,
        condition.text,
        condition.quoted,
        type_=false().type,
    )
    return matched


def _on_column(condition: Condition) -> ColumnElement[bool]:
    """The condition, before negation, on a column that is never null."""
    number = condition.number
    column: Any = _NUMBER_COLUMNS.get(condition.field)
    if column is not None and number is not None and condition.operator != "~":
        bound = number if abs(number) <= _LARGEST_INTEGER else float(number)
        compared: ColumnElement[bool] = COMPARISONS[condition.operator](column, bound)
        return compared
    if column is not None and condition.operator in ("<", "<=", ">", ">="):
        raise FilterError(
            f"filter on {condition.field!r}: {condition.text!r} is no number; write, for example, "
            f"'{condition.field} {condition.operator} 100'"
        )
    text: Any = _TEXT_COLUMNS[condition.field] if column is None else cast(column, Text)
    if condition.operator == "~":
        found: ColumnElement[bool] = func.rapidin_finds(condition.text, text, type_=false().type)
        return found
    # True is how Python's users write it.
    value = condition.text.lower() if condition.field == "truncated" else condition.text
    compared = COMPARISONS[condition.operator](text, value)
    return compared


@lru_cache(maxsize=64)
def _condition(field: str, symbol: str, negated: bool, text: str, quoted: bool) -> Condition:
    return Condition(field, True, symbol, negated, text, quoted)


def _metadata_matches(metadata: str, field: str, symbol: str, negated: int, text: str, quoted: int) -> bool:
    """SQL function: whether a sample with this metadata is meant."""
    condition = _condition(field, symbol, bool(negated), text, bool(quoted))
    return condition.matches(json.loads(metadata).get(field))


def _finds(pattern: str, text: str) -> bool:
    """SQL function: whether the regular expression finds something."""
    return re.search(pattern, text) is not None


SQL_FUNCTIONS: tuple[tuple[str, int, Callable[..., bool]], ...] = (
    ("rapidin_metadata_matches", 6, _metadata_matches),
    ("rapidin_finds", 2, _finds),
)
"""Name, number of arguments and function of what `database` registers with every connection."""
