"""Filters as SQLAlchemy expressions over the table of samples; values are bound parameters throughout.

They are meant for statements made by `tables.live`. These read an index that holds everything that filters compare
except texts. A condition on a built-in field compares a column of that index. A condition on a sample's id or
metadata (`metadata_sql`) says which keys another index finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, case, cast, not_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from rapidin.errors import FilterError
from rapidin.storage.catalog import digests
from rapidin.storage.catalog.metadata_sql import compile_metadata, holds_only_booleans, holds_unindexed
from rapidin.storage.catalog.schema import LIVE_INDEX, SEARCH_INDEX, MetadataFieldRow, SampleRow, SegmentRow
from rapidin.storage.catalog.sql_functions import finds
from rapidin.storage.filters import COMPARISONS, LARGEST_INTEGER, Condition, check_boolean, check_field, parse

_TEXT_COLUMNS: dict[str, Any] = {
    "prompt": SampleRow.prompt,
    "response": SampleRow.response,
    "text": SampleRow.prompt + SampleRow.response,
    "truncated": case((SampleRow.truncated, "true"), else_="false"),
}
_NUMBER_COLUMNS: dict[str, InstrumentedAttribute[int]] = {
    "row": SampleRow.row,
    "tokens": SampleRow.tokens,
    "targets": SampleRow.targets,
}


def compile_filters(where: Sequence[str], session: Session) -> ColumnElement[bool]:
    """Return one SQL condition that holds for samples that meet all expressions; it is true without any.

    It is meant for `session` in its present transaction, because metadata conditions are put in the form that is
    fastest for what the store holds now.

    Raises:
        FilterError: an expression cannot be read, or names a field that no sample has.
        StoreCorruptError: what the filters read is not what was written.
    """
    expressions = (where,) if isinstance(where, str) else tuple(where)
    conditions = [parse(expression) for expression in expressions]
    if not conditions:
        return true()
    fields = {name: id for id, name in session.execute(select(MetadataFieldRow.id, MetadataFieldRow.name))}
    for condition in conditions:
        check_field(condition, list(fields))
    digests.check(session, {name for condition in conditions for name in _read(condition, fields, session)})
    for condition in conditions:
        if not condition.is_built_in and holds_only_booleans(fields[condition.field], session):
            check_boolean(condition)
    return and_(*(_compiled(condition, fields, session) for condition in conditions))


def _read(condition: Condition, fields: dict[str, int], session: Session) -> Iterator[str]:
    """Yield the names of the digests of what a condition reads."""
    yield digests.COLUMNS  # which samples there are
    if not condition.is_built_in:
        yield digests.of_field(fields[condition.field])
        if holds_unindexed(fields[condition.field], session):
            yield digests.TEXTS
    elif condition.field == "id":
        yield digests.IDS
    elif condition.field in ("prompt", "response", "text"):
        yield digests.TEXTS


def _compiled(condition: Condition, fields: dict[str, int], session: Session) -> ColumnElement[bool]:
    if condition.is_built_in:
        plain = _on_built_in(condition)
        return not_(plain) if condition.negated else plain
    return compile_metadata(condition, fields[condition.field], session)


def _on_built_in(condition: Condition) -> ColumnElement[bool]:
    """Return the condition, before negation, on a field that is never null."""
    match condition.field:
        case "id":
            # This is a subquery, because the outer statement reads an index without ids.
            other = aliased(SampleRow)
            found = select(other.key).with_hint(other, f"INDEXED BY {SEARCH_INDEX}", "sqlite")
            met = _on_text(condition, other.sample_id)
            return SampleRow.key.in_(found.where(other.deleted_at.is_(None), met))
        case "segment":
            return SampleRow.segment_id.in_(select(SegmentRow.id).where(_on_text(condition, SegmentRow.name)))
        case "file":
            return _on_file(condition)
        case name if name in _TEXT_COLUMNS:
            return _on_text(condition, _TEXT_COLUMNS[name])
        case name:
            return _on_number(condition, _NUMBER_COLUMNS[name])


def _on_file(condition: Condition) -> ColumnElement[bool]:
    if condition.operator != "~":
        return _on_text(condition, SampleRow.file)
    # There are few files. Without the limit SQLite would look at every sample's file anyway.
    other = aliased(SampleRow)
    files = (
        select(other.file)
        .with_hint(other, f"INDEXED BY {LIVE_INDEX}", "sqlite")
        .where(other.deleted_at.is_(None))
        .distinct()
        .limit(-1)
        .subquery()
    )
    return SampleRow.file.in_(select(files.c.file).where(_on_text(condition, files.c.file)))


def _on_text(condition: Condition, column: Any) -> ColumnElement[bool]:
    if condition.operator == "~":
        return finds(condition.text, column)
    if condition.field == "truncated":
        check_boolean(condition)
    # Python's users write True.
    value = condition.text.lower() if condition.field == "truncated" else condition.text
    compared: ColumnElement[bool] = COMPARISONS[condition.operator](column, value)
    return compared


def _on_number(condition: Condition, column: InstrumentedAttribute[int]) -> ColumnElement[bool]:
    number = condition.number
    if number is not None and condition.operator != "~":
        # An integer too large for SQLite is bound as a float, which still exceeds every number in these columns.
        bound = number if abs(number) <= LARGEST_INTEGER else float(number)
        compared: ColumnElement[bool] = COMPARISONS[condition.operator](column, bound)
        return compared
    if condition.operator in ("<", "<=", ">", ">="):
        raise FilterError(
            f"filter on {condition.field!r}: {condition.text!r} is not a number; write, for example, "
            f"'{condition.field} {condition.operator} 100'"
        )
    return _on_text(condition, cast(column, Text))
