"""Conditions on metadata as SQL over ``sample_metadata``; they match exactly what `Condition.matches` does.

A condition becomes a few *cases*, one for each kind of value (`indexed_values.Kind`) that can match: numbers,
texts, booleans, and values that only the sample's JSON holds. A sample has one value of a field, so cases never
overlap. A negated condition matches the samples that no case finds, including those without the field.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Select, and_, exists, false, func, not_, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from rapidin.storage.catalog.schema import SampleMetadataRow, SampleRow
from rapidin.storage.catalog.sql_functions import finds, metadata_matches, value_matches
from rapidin.storage.filters import (
    COMPARISONS,
    LARGEST_INTEGER,
    LONGEST_TEXT,
    SMALLEST_INTEGER,
    Condition,
    Kind,
    indexed_value,
)

_FEW = 0.25
"""Largest share of samples for which a list of matching keys is faster than a look at every sample's value."""
_LONGEST_NUMBER = 30
"""Maximum number of characters of an indexed number's JSON text."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One kind of value, and the condition that it must meet.

    Attributes:
        kind: kind of the value.
        met: condition on the columns of `SampleMetadataRow`.
        indexed: whether the index finds the rows without a look at others.
    """

    kind: Kind
    met: ColumnElement[bool]
    indexed: bool = True


def compile_metadata(condition: Condition, field_id: int, session: Session) -> ColumnElement[bool]:
    """Return the condition on the metadata field `field_id` for rows of `SampleRow`."""
    plain = replace(condition, negated=False)
    cases = [*_numbers(plain), *_booleans(plain), *_texts(plain, field_id)]
    unindexed = _unindexed(plain)
    if cases and all(case.indexed for case in cases) and _are_many(cases, field_id, session):
        met = _by_look_at_each(cases, unindexed, plain, field_id)
    else:
        met = _by_list_of_keys(cases, unindexed, plain, field_id)
    if plain.matches(None):
        with_value = select(SampleMetadataRow.sample_key).where(SampleMetadataRow.field_id == field_id)
        met = or_(met, SampleRow.key.not_in(with_value))
    return not_(met) if condition.negated else met


def holds_only_booleans(field_id: int, session: Session) -> bool:
    """Tell whether the metadata field `field_id` has values and all of them are truth values."""
    of_field = select(SampleMetadataRow.sample_key).where(SampleMetadataRow.field_id == field_id)
    # This asks for one kind at a time, so that the index finds the first row of each.
    some = {kind: session.scalar(of_field.where(SampleMetadataRow.kind == kind).limit(1)) for kind in Kind}
    return [kind for kind, key in some.items() if key is not None] == [Kind.BOOLEAN]


def holds_unindexed(field_id: int, session: Session) -> bool:
    """Tell whether the metadata field `field_id` has values that only the samples' JSON holds."""
    kinds = (Kind.LONG_TEXT, Kind.OTHER)
    statement = select(SampleMetadataRow.sample_key).where(
        SampleMetadataRow.field_id == field_id, SampleMetadataRow.kind.in_(kinds)
    )
    return session.scalar(statement.limit(1)) is not None


def _by_list_of_keys(
    cases: Sequence[_Case], unindexed: Sequence[Kind], plain: Condition, field_id: int
) -> ColumnElement[bool]:
    """Gather the keys of matching samples from the index. The time grows with the number of matches."""
    found = [_of_case(case, field_id) for case in cases]
    if unindexed:
        sample = aliased(SampleRow)
        found.append(
            select(SampleMetadataRow.sample_key)
            .join(sample, sample.key == SampleMetadataRow.sample_key)
            .where(
                SampleMetadataRow.field_id == field_id,
                SampleMetadataRow.kind.in_(unindexed),
                metadata_matches(plain, sample.metadata_json),
            )
        )
    return SampleRow.key.in_(union_all(*found)) if found else false()


def _by_look_at_each(
    cases: Sequence[_Case], unindexed: Sequence[Kind], plain: Condition, field_id: int
) -> ColumnElement[bool]:
    """Look up every sample's value. The time grows with the number of samples, but a limit may end it early."""
    met = [and_(SampleMetadataRow.kind == case.kind, case.met) for case in cases]
    if unindexed:
        of_json = metadata_matches(plain, SampleRow.metadata_json)
        met.append(and_(SampleMetadataRow.kind.in_(unindexed), of_json))
    return exists(
        select(SampleMetadataRow.sample_key)
        .where(SampleMetadataRow.sample_key == SampleRow.key, SampleMetadataRow.field_id == field_id, or_(*met))
        .correlate(SampleRow)
    )


def _are_many(cases: Sequence[_Case], field_id: int, session: Session) -> bool:
    """Tell whether the cases match more than a few of the samples; stop counting there."""
    few = int((session.scalar(select(func.max(SampleRow.key))) or 0) * _FEW)
    matching = union_all(*(_of_case(case, field_id) for case in cases)).limit(few + 1).subquery()
    return (session.scalar(select(func.count()).select_from(matching)) or 0) > few


def _of_case(case: _Case, field_id: int) -> Select[int]:
    return select(SampleMetadataRow.sample_key).where(
        SampleMetadataRow.field_id == field_id, SampleMetadataRow.kind == case.kind, case.met
    )


def _numbers(plain: Condition) -> list[_Case]:
    column = SampleMetadataRow.number
    number = plain.number
    if plain.operator == "~":
        return [_Case(Kind.NUMBER, value_matches(plain, column), indexed=False)]
    if number is not None:
        compared = _compared(plain.operator, number)
        return [] if compared is None else [_Case(Kind.NUMBER, compared)]
    if plain.operator == "=":
        same = _number_written(plain.text)
        if same is None:
            return []
        stored_as = "integer" if isinstance(same, int) else "real"
        return [_Case(Kind.NUMBER, and_(column == same, func.typeof(column) == stored_as))]
    return [_Case(Kind.NUMBER, value_matches(plain, column), indexed=False)]


def _compared(symbol: str, number: int | float) -> ColumnElement[bool] | None:
    """Compare the numbers in the index with `number`, exactly as Python does; return None if none can match."""
    column = SampleMetadataRow.number
    if isinstance(number, float) or SMALLEST_INTEGER <= number <= LARGEST_INTEGER:
        compared: ColumnElement[bool] = COMPARISONS[symbol](column, number)
        return compared
    # SQLite cannot hold this integer. Only floats in the index are as large, so the nearest float serves as well.
    near = float(number)
    if symbol == "=":
        return column == near if near == number else None
    if near != number:
        symbol = {"<": "<=" if near < number else "<", ">": ">=" if near > number else ">"}[symbol[0]]
    compared = COMPARISONS[symbol](column, near)
    return compared


def _number_written(text: str) -> int | float | None:
    """Return the number in the index whose JSON is `text`, or None if there can be none."""
    if len(text) > _LONGEST_NUMBER:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    row = indexed_value(value)
    return row.number if row.kind == Kind.NUMBER and json.dumps(value) == text else None


def _booleans(plain: Condition) -> list[_Case]:
    matching = [value for value in (False, True) if plain.matches(value)]
    return (
        [_Case(Kind.BOOLEAN, SampleMetadataRow.number.in_([int(value) for value in matching]))] if matching else []
    )


def _texts(plain: Condition, field_id: int) -> list[_Case]:
    column = SampleMetadataRow.text
    # This is always true of a text. It lets SQLite use the index, which has this column before the text.
    no_number = SampleMetadataRow.number.is_(None)
    if plain.operator != "~":
        compared: ColumnElement[bool] = COMPARISONS[plain.operator](column, plain.text)
        return [_Case(Kind.TEXT, and_(no_number, compared))]
    # The function sees each text once. Without the limit SQLite would call it for every sample anyway.
    other = aliased(SampleMetadataRow)
    texts = (
        select(other.text)
        .where(other.field_id == field_id, other.kind == Kind.TEXT, other.number.is_(None))
        .distinct()
        .limit(-1)
        .subquery()
    )
    found = select(texts.c.text).where(finds(plain.text, texts.c.text))
    return [_Case(Kind.TEXT, and_(no_number, column.in_(found)), indexed=False)]


def _unindexed(plain: Condition) -> list[Kind]:
    """Return the kinds of values that only the samples' JSON holds and that may match."""
    too_short = plain.operator == "=" and len(plain.text) <= LONGEST_TEXT
    return [Kind.OTHER] if too_short else [Kind.LONG_TEXT, Kind.OTHER]
