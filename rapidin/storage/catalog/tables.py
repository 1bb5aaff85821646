"""Reading from and writing to the tables, as plain functions of a session.

`store_writer` calls some of them in one transaction, so that a test can kill the process between any two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore
from sqlalchemy.orm import Session, aliased

from rapidin.errors import StoreCorruptError
from rapidin.storage.catalog import digests
from rapidin.storage.catalog.sample_rows import values_checksum
from rapidin.storage.catalog.schema import (
    LIVE_INDEX,
    SEARCH_INDEX,
    MetadataFieldRow,
    SampleMetadataRow,
    SampleRow,
    SegmentRow,
)
from rapidin.storage.filters import indexed_metadata
from rapidin.storage.vectors import Rows, SegmentRecord

Item = TypeVar("Item")

CHUNK = 500
"""Maximum number of values in one ``IN``; the smallest build of SQLite takes 999 parameters."""

ROWS_AT_ONCE = 10_000
"""Maximum number of rows that are Python objects at a time."""
LARGEST_EXACT = 2**53
"""Limit up to which a float holds every integer exactly."""

LIVE = SampleRow.deleted_at.is_(None)
"""Condition that holds for samples that were neither deleted nor replaced."""


def chunks(items: Sequence[Item], size: int = CHUNK) -> Iterator[Sequence[Item]]:
    """Yield slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def live_rows(session: Session, ids: Iterable[str]) -> Iterator[SampleRow]:
    """Yield the rows of the live samples among `ids`, in no particular order."""
    for chunk in chunks(list(ids)):
        yield from session.scalars(select(SampleRow).where(LIVE, SampleRow.sample_id.in_(chunk)))


def rows_by_key(session: Session, keys: Iterable[int]) -> dict[int, SampleRow]:
    """Return the rows with the given keys, live or not.

    Raises:
        StoreCorruptError: no row has one of the keys.
    """
    keys = set(keys)
    found: dict[int, SampleRow] = {}
    for chunk in chunks(sorted(keys)):
        for row in session.scalars(select(SampleRow).where(SampleRow.key.in_(chunk))):
            found[row.key] = row
    if len(found) < len(keys):
        raise StoreCorruptError(
            "store.db: an index names samples that are not there; restore the file from a backup"
        )
    return found


def content_hashes(session: Session, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return content hash and metadata hash of the live samples among `ids`."""
    found: dict[str, tuple[str, str]] = {}
    columns = select(SampleRow.sample_id, SampleRow.content_hash, SampleRow.metadata_hash)
    for chunk in chunks(ids):
        for sample_id, content, metadata in session.execute(columns.where(LIVE, SampleRow.sample_id.in_(chunk))):
            found[sample_id] = (content, metadata)
    return found


def live_contents(session: Session) -> Iterator[tuple[str, str]]:
    """Yield the id and the content hash of every live sample, in the order in which they were stored."""
    statement = live(SampleRow.sample_id, SampleRow.content_hash).order_by(SampleRow.key)
    for row in session.execute(statement.execution_options(yield_per=ROWS_AT_ONCE)):
        yield row.sample_id, row.content_hash


def live(*columns: Any) -> Select[Any]:
    """Return a selection from the live samples, in the order in which they were stored, read from a narrow index.

    Conditions of `filter_sql` may be added; only those on texts make SQLite look at the samples' rows.
    """
    return select(*columns).with_hint(SampleRow, f"INDEXED BY {LIVE_INDEX}", "sqlite").where(LIVE)


def live_count(session: Session, condition: ColumnElement[bool]) -> int:
    """Return the number of live samples that meet `condition`."""
    return session.scalar(live(func.count()).select_from(SampleRow).where(condition)) or 0


def live_keys(
    session: Session, condition: ColumnElement[bool], limit: int | None = None, offset: int = 0
) -> NDArray[np.int64]:
    """Return the keys [n] of live samples that meet `condition`, ascending, which is the order of storing.

    Args:
        session: session to read with.
        condition: condition from `filter_sql.compile_filters`.
        limit: maximum number of keys; None for all.
        offset: number of keys to leave out at the beginning.
    """
    statement = live(SampleRow.key).where(condition).order_by(SampleRow.key)
    # SQLite takes an offset only after a limit.
    statement = statement.limit(-1 if limit is None else limit).offset(offset)
    return _numbers(session, statement, 1)[:, 0].astype(np.int64)


def searchable_rows(session: Session) -> Rows:
    """Return the rows of the live samples, in ascending order of their ids.

    SQLite orders text by its UTF-8 bytes, which is Python's order, by code point.

    Raises:
        StoreCorruptError: a column does not hold numbers, or not those that were written.
    """
    statement = (
        select(SampleRow.key, SampleRow.segment_id, SampleRow.position, SampleRow.scale)
        .with_hint(SampleRow, f"INDEXED BY {SEARCH_INDEX}", "sqlite")
        .where(LIVE)
        .order_by(SampleRow.sample_id)
    )
    numbers = _numbers(session, statement, 4)
    digests.check_places(session, numbers)
    whole = numbers[:, :3]
    if not ((np.abs(whole) <= LARGEST_EXACT) & (whole == np.floor(whole))).all():
        raise _no_number("it is not a whole number")
    keys, segments, positions = (np.ascontiguousarray(column) for column in whole.T.astype(np.int64))
    with np.errstate(over="ignore"):  # an overflow becomes infinite, and so does the score, which is refused
        return Rows(keys, segments, positions, numbers[:, 3].astype(np.float32))


def searchable_ids(session: Session, condition: ColumnElement[bool]) -> list[str]:
    """Return the ids of the live samples that meet `condition`, in the order of `searchable_rows`."""
    digests.check(session, (digests.IDS,))
    other = aliased(SampleRow)
    statement = (
        select(other.sample_id)
        .with_hint(other, f"INDEXED BY {SEARCH_INDEX}", "sqlite")
        .where(other.deleted_at.is_(None), other.key.in_(live(SampleRow.key).where(condition)))
        .order_by(other.sample_id)
    )
    return list(session.scalars(statement))


def _numbers(session: Session, statement: Select[*tuple[Any, ...]], width: int) -> NDArray[np.float64]:
    """Return the numbers that `statement` selects in `width` columns, [n, width].

    Floats hold every key and place exactly (below 2^53), and one array for all columns is filled fastest. Rows
    come from the driver itself, because SQLAlchemy's take twice the time, and only some at a time, because each
    costs a hundred bytes as a Python object.

    Raises:
        StoreCorruptError: a column does not hold numbers.
    """
    parts = [np.empty((0, width))]
    with closing(session.connection().execute(statement)) as result:
        cursor: Any = result.cursor
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            try:
                flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)
            except (TypeError, ValueError, OverflowError) as error:
                raise _no_number(str(error)) from error
            parts.append(flat.reshape(-1, width))
    return np.concatenate(parts)


def _no_number(reason: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"store.db: the place of a vector is not a number ({reason}); restore store.db from a backup"
    )


def segment_records(session: Session) -> list[SegmentRecord]:
    """Return all segments, in order of creation.

    Raises:
        StoreCorruptError: a row holds values of the wrong types.
    """
    found = [
        SegmentRecord(row.id, row.name, row.rows, row.bytes, row.checksum, row.codec)
        for row in session.scalars(select(SegmentRow).order_by(SegmentRow.id))
    ]
    for record in found:
        texts = (record.name, record.checksum, record.codec)
        numbers = (record.id, record.rows, record.bytes)
        right = all(isinstance(text, str) for text in texts) and all(type(number) is int for number in numbers)
        if not right or record.rows < 0 or record.bytes < 0:
            raise StoreCorruptError(
                f"store.db: the row of segment {record.id!r} holds what no store holds; restore store.db from a "
                "backup"
            )
    return found


def live_counts(session: Session) -> dict[int, int]:
    """Return the number of live samples of each segment that has any, by its database id."""
    statement = live(SampleRow.segment_id, func.count()).group_by(SampleRow.segment_id)
    return {segment: count for segment, count in session.execute(statement)}


def insert_segment(session: Session, record: SegmentRecord) -> int:
    """Record a segment, and return its database id."""
    row = SegmentRow(
        name=record.name, rows=record.rows, bytes=record.bytes, checksum=record.checksum, codec=record.codec
    )
    session.add(row)
    session.flush()
    return row.id


def mark_deleted(session: Session, ids: Sequence[str]) -> int:
    """Mark the live samples among `ids` as deleted, and return their number."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    marked = 0
    for chunk in chunks(ids):
        keys = session.scalars(select(SampleRow.key).where(LIVE, SampleRow.sample_id.in_(chunk))).all()
        if not keys:
            continue
        with digests.followed(session, digests.one_of("key", keys), keys, metadata=False):
            session.execute(
                update(SampleRow).where(SampleRow.key.in_(keys)).values(deleted_at=now),
                execution_options={"synchronize_session": False},
            )
        marked += len(keys)
    return marked


def insert_metadata_fields(session: Session, names: Iterable[str]) -> dict[str, int]:
    """Record metadata keys, so that filters may name them, and return their database ids."""
    ids: dict[str, int] = {}
    for chunk in chunks(sorted(set(names))):
        session.execute(
            insert_or_ignore(MetadataFieldRow).on_conflict_do_nothing(), [{"name": name} for name in chunk]
        )
        columns = select(MetadataFieldRow.name, MetadataFieldRow.id)
        found = session.execute(columns.where(MetadataFieldRow.name.in_(chunk)))
        ids.update({name: id for name, id in found})
    return ids


def insert_samples(
    session: Session,
    values: Sequence[dict[str, Any]],
    segment_id: int,
    scales: Sequence[float],
    field_ids: Mapping[str, int],
) -> None:
    """Insert samples whose vectors lie in a segment in the same order, and their metadata for filters.

    Args:
        session: session to write with.
        values: columns of each sample, without those of its vector.
        segment_id: database id of the segment.
        scales: scales of the vectors.
        field_ids: database ids of metadata keys, from `insert_metadata_fields`.
    """
    # The keys are those that SQLite would give; the transaction keeps others from writing meanwhile.
    first = (session.scalar(select(func.max(SampleRow.key))) or 0) + 1
    complete = []
    for position, (columns, scale) in enumerate(zip(values, scales, strict=True)):
        row = columns | {"segment_id": segment_id, "position": position, "scale": scale}
        complete.append(row | {"key": first + position, "checksum": values_checksum(row), "deleted_at": None})
    session.execute(insert(SampleRow), complete)
    insert_metadata(session, {row["key"]: row["metadata_json"] for row in complete}, field_ids)
    digests.add(session, first)


def insert_metadata(session: Session, metadata: Mapping[int, str], field_ids: Mapping[str, int]) -> None:
    """Insert the metadata, JSON by the sample's key, as filters compare it."""
    # This is the driver's own statement: SQLAlchemy would spend more time on the five columns than SQLite does.
    statement = (
        f"INSERT INTO {SampleMetadataRow.__tablename__} (sample_key, field_id, kind, number, text) "
        "VALUES (?, ?, ?, ?, ?)"
    )
    for keys in chunks(list(metadata), ROWS_AT_ONCE):
        rows = [
            (key, field_ids[name], int(value.kind), value.number, value.text)
            for key in keys
            for name, value in indexed_metadata(metadata[key]).items()
        ]
        if rows:
            session.connection().exec_driver_sql(statement, rows)


def delete_metadata(session: Session, keys: Sequence[int]) -> None:
    """Delete what `insert_metadata` wrote for samples."""
    for chunk in chunks(keys):
        session.execute(
            delete(SampleMetadataRow).where(SampleMetadataRow.sample_key.in_(chunk)),
            execution_options={"synchronize_session": False},
        )
