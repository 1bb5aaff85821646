"""Changes of stored samples: a vector gets another place, metadata changes, segments are removed.

As in `tables`, these are plain functions of a session. Several of them make up one transaction, so that a test can
kill the process between any two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from rapidin.errors import SampleNotFoundError, StoreMismatchError
from rapidin.storage.catalog import digests, tables
from rapidin.storage.catalog.sample_rows import (
    MetadataChange,
    changed_values,
    is_sound,
    row_values,
    sample_of,
    values_checksum,
)
from rapidin.storage.catalog.schema import SampleMetadataRow, SampleRow, SegmentRow


def move_samples(session: Session, keys: Sequence[int], segment_id: int) -> None:
    """Record that the samples' vectors lie in a segment, in the order of `keys`; change nothing else of them.

    Raises:
        StoreCorruptError: a sample's row is missing, or was altered, which its new checksum would hide.
    """
    for start in range(0, len(keys), tables.CHUNK):
        chunk = keys[start : start + tables.CHUNK]
        rows = tables.rows_by_key(session, chunk)
        places: dict[int, dict[str, Any]] = {
            key: {"segment_id": segment_id, "position": position} for position, key in enumerate(chunk, start)
        }
        with digests.followed(session, digests.one_of("key", chunk), chunk, metadata=False):
            _rewrite(session, rows, places)


def change_metadata(session: Session, changes: Sequence[MetadataChange]) -> None:
    """Replace metadata, file and row of live samples, in a few statements for every `tables.CHUNK` of them.

    Raises:
        SampleNotFoundError: no live sample has one of the ids.
        StoreMismatchError: a content hash differs.
        StoreCorruptError: a sample's row was altered, which its new checksum would hide.
        StoreError: a text is not valid Unicode.
    """
    field_ids = tables.insert_metadata_fields(session, {name for change in changes for name in change.metadata})
    for chunk in tables.chunks(changes):
        rows = {row.sample_id: row for row in tables.live_rows(session, [change.id for change in chunk])}
        columns: dict[int, dict[str, Any]] = {}
        for change in chunk:
            row = rows.get(change.id)
            if row is None:
                raise SampleNotFoundError(f"no sample has the id {change.id!r}; ingest it first")
            if row.content_hash != change.content_hash:
                raise StoreMismatchError(f"sample {change.id!r}: its text has changed; store it with a new vector")
            columns[row.key] = changed_values(change)
        with digests.followed(session, digests.one_of("key", list(columns)), list(columns)):
            _rewrite(session, {row.key: row for row in rows.values()}, columns)
            tables.delete_metadata(session, list(columns))
            tables.insert_metadata(session, {key: new["metadata_json"] for key, new in columns.items()}, field_ids)


def file_again(session: Session) -> None:
    """Make everything again that searches and filters read, from the samples' own rows.

    Raises:
        StoreCorruptError: the row of a live sample was altered, or two live samples have one id.
    """
    session.connection().exec_driver_sql("REINDEX")
    session.execute(delete(SampleMetadataRow), execution_options={"synchronize_session": False})
    last = 0
    while rows := session.scalars(
        select(SampleRow).where(SampleRow.key > last).order_by(SampleRow.key).limit(tables.CHUNK)
    ).all():
        last = rows[-1].key
        for row in rows:
            if row.deleted_at is None:
                sample_of(row)  # checks it
        texts = {row.key: row.metadata_json for row in rows if is_sound(row)}
        names = {name for metadata in texts.values() for name in json.loads(metadata)}
        tables.insert_metadata(session, texts, tables.insert_metadata_fields(session, names))
        session.expunge_all()
    digests.fill(session)


def remove_segments(session: Session, segment_ids: Iterable[int]) -> int:
    """Remove the given segments that hold no live sample any more, and their deleted samples.

    Their metadata for filters and their parts of derived data are removed, too.

    Returns:
        The number of deleted samples that were removed.
    """
    removed = 0
    unsynchronised = {"synchronize_session": False}
    for segment_id in segment_ids:
        in_segment = SampleRow.segment_id == segment_id
        if session.scalar(select(func.count(SampleRow.key)).where(in_segment, tables.LIVE)):
            continue
        removed += session.scalar(select(func.count(SampleRow.key)).where(in_segment)) or 0
        with digests.followed(session, "segment_id = ?", (segment_id,)):
            session.execute(delete(SampleRow).where(in_segment), execution_options=unsynchronised)
        session.execute(delete(SegmentRow).where(SegmentRow.id == segment_id), execution_options=unsynchronised)
    return removed


def _rewrite(session: Session, rows: Mapping[int, SampleRow], columns: Mapping[int, dict[str, Any]]) -> None:
    """Change the same columns of several rows, and their checksums, in one statement.

    Args:
        session: session to write with; it forgets the rows, which may be long.
        rows: rows by key.
        columns: new values of some columns, by key.

    Raises:
        StoreCorruptError: a row was altered.
    """
    changes = []
    for key, new in columns.items():
        sample_of(rows[key])  # checks it
        changed = new | {"checksum": values_checksum(row_values(rows[key]) | new)}
        changes.append({"changed_key": key} | {f"new_{name}": value for name, value in changed.items()})
    if not changes:
        return
    names = [name for name in changes[0] if name != "changed_key"]
    session.expunge_all()
    table: Any = SampleRow.__table__
    attributes = SampleRow.__mapper__.columns
    session.connection().execute(
        update(table)
        .where(table.c.key == bindparam("changed_key"))
        .values({attributes[name.removeprefix("new_")]: bindparam(name) for name in names}),
        changes,
    )
