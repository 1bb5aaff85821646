"""What is read from and written to the tables, as plain functions of a session.

A write is a few functions that `writer` calls in one transaction, so that a test can kill between any two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import ColumnElement, func, insert, select, true, update
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore
from sqlalchemy.orm import Session

from rapidin.errors import StoreCorruptError
from rapidin.storage.samples import values_checksum
from rapidin.storage.scan import Rows
from rapidin.storage.schema import MetadataFieldRow, SampleRow, SegmentRow
from rapidin.storage.segments import SegmentRecord

Item = TypeVar("Item")

CHUNK = 500
"""Values in one ``IN``; SQLite takes 999 parameters in its smallest build."""

LIVE = SampleRow.deleted_at.is_(None)
"""Condition of the samples that were neither deleted nor replaced."""


def chunks(items: Sequence[Item], size: int = CHUNK) -> Iterator[Sequence[Item]]:
    """Slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def live_rows(session: Session, ids: Iterable[str]) -> Iterator[SampleRow]:
    """Rows of the live samples among `ids`, in no particular order."""
    for chunk in chunks(list(ids)):
        yield from session.scalars(select(SampleRow).where(LIVE, SampleRow.sample_id.in_(chunk)))


def rows_by_key(session: Session, keys: Iterable[int]) -> dict[int, SampleRow]:
    """Rows with the given keys, live or not."""
    found: dict[int, SampleRow] = {}
    for chunk in chunks(sorted(set(keys))):
        for row in session.scalars(select(SampleRow).where(SampleRow.key.in_(chunk))):
            found[row.key] = row
    return found


def content_hashes(session: Session, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Content and metadata hash of the live samples among `ids`."""
    found: dict[str, tuple[str, str]] = {}
    columns = select(SampleRow.sample_id, SampleRow.content_hash, SampleRow.metadata_hash)
    for chunk in chunks(ids):
        for sample_id, content, metadata in session.execute(columns.where(LIVE, SampleRow.sample_id.in_(chunk))):
            found[sample_id] = (content, metadata)
    return found


def searchable_rows(session: Session, condition: ColumnElement[bool] | None = None) -> Rows:
    """The live samples that meet `condition`, in ascending order of their ids.

    SQLite orders text by its UTF-8 bytes, which is Python's order, by code point.

    Raises:
        StoreCorruptError: a column does not hold numbers.
    """
    statement = (
        select(SampleRow.key, SampleRow.segment_id, SampleRow.position, SampleRow.scale)
        .where(LIVE, true() if condition is None else condition)
        .order_by(SampleRow.sample_id)
    )
    found = session.execute(statement).all()
    keys, segments, positions, scales = zip(*found, strict=True) if found else ((), (), (), ())
    try:
        return Rows(
            np.array(keys, dtype=np.int64),
            np.array(segments, dtype=np.int64),
            np.array(positions, dtype=np.int64),
            np.array(scales, dtype=np.float32),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreCorruptError(
            f"store.db: the place of a vector is not a number ({error}); restore store.db from a backup"
        ) from error


def searchable_ids(session: Session, condition: ColumnElement[bool]) -> list[str]:
    """Ids of the live samples that meet `condition`, in the order of `searchable_rows`."""
    statement = select(SampleRow.sample_id).where(LIVE, condition).order_by(SampleRow.sample_id)
    return list(session.scalars(statement))


def segment_records(session: Session) -> list[SegmentRecord]:
    """All segments, in order of creation."""
    return [
        SegmentRecord(row.id, row.name, row.rows, row.bytes, row.checksum, row.codec)
        for row in session.scalars(select(SegmentRow).order_by(SegmentRow.id))
    ]


def live_counts(session: Session) -> dict[int, int]:
    """Live samples of each segment that has any, by its database id."""
    statement = select(SampleRow.segment_id, func.count()).where(LIVE).group_by(SampleRow.segment_id)
    return {segment: count for segment, count in session.execute(statement)}


def insert_segment(session: Session, record: SegmentRecord) -> int:
    """Name a segment; its database id."""
    row = SegmentRow(
        name=record.name, rows=record.rows, bytes=record.bytes, checksum=record.checksum, codec=record.codec
    )
    session.add(row)
    session.flush()
    return row.id


def mark_deleted(session: Session, ids: Sequence[str]) -> int:
    """Mark the live samples among `ids` as deleted; how many there were."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    marked = 0
    for chunk in chunks(ids):
        found = session.scalars(
            update(SampleRow)
            .where(LIVE, SampleRow.sample_id.in_(chunk))
            .values(deleted_at=now)
            .returning(SampleRow.key),
            execution_options={"synchronize_session": False},
        ).all()
        marked += len(found)
    return marked


def insert_samples(
    session: Session, values: Sequence[dict[str, Any]], segment_id: int, scales: Sequence[float]
) -> None:
    """Insert samples whose vectors lie in a segment in the same order."""
    complete = []
    for position, (columns, scale) in enumerate(zip(values, scales, strict=True)):
        row = columns | {"segment_id": segment_id, "position": position, "scale": scale}
        complete.append(row | {"checksum": values_checksum(row), "deleted_at": None})
    session.execute(insert(SampleRow), complete)


def insert_metadata_fields(session: Session, names: Iterable[str]) -> None:
    """Remember metadata keys, so that filters may ask for them."""
    for chunk in chunks(sorted(set(names))):
        session.execute(
            insert_or_ignore(MetadataFieldRow).on_conflict_do_nothing(), [{"name": name} for name in chunk]
        )
