"""Samples that get another place for their vector, and segments that end: the tables' part of a compaction.

As in `tables`, plain functions of a session, called in one transaction, so that a test can kill between any two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from rapidin.storage.catalog import tables
from rapidin.storage.catalog.sample_rows import row_values, sample_of, values_checksum
from rapidin.storage.catalog.schema import SampleRow, SegmentRow


def move_samples(session: Session, keys: Sequence[int], segment_id: int) -> None:
    """Have the samples' vectors lie in a segment, in the order of `keys`; everything else of them stays.

    Raises:
        StoreCorruptError: a sample's row is missing, or was altered: its new checksum would hide that.
    """
    for start in range(0, len(keys), tables.CHUNK):
        chunk = keys[start : start + tables.CHUNK]
        rows = tables.rows_by_key(session, chunk)
        changes = []
        for position, key in enumerate(chunk, start):
            sample_of(rows[key])  # checks it
            place: dict[str, Any] = {"segment_id": segment_id, "position": position}
            checksum = values_checksum(row_values(rows[key]) | place)
            new = place | {"checksum": checksum}
            changes.append({"moved": key} | {f"new_{name}": value for name, value in new.items()})
        session.expunge_all()  # what was read is not needed again, and may be long
        table: Any = SampleRow.__table__
        session.connection().execute(
            update(table)
            .where(table.c.key == bindparam("moved"))
            .values({name: bindparam(f"new_{name}") for name in ("segment_id", "position", "checksum")}),
            changes,
        )


def remove_segments(session: Session, segment_ids: Iterable[int]) -> int:
    """Remove those of the segments in which no live sample is left, and their deleted samples; how many of these.

    What hangs on them, metadata for filters and parts of approximate indexes, goes with them.
    """
    removed = 0
    unsynchronised = {"synchronize_session": False}
    for segment_id in segment_ids:
        in_segment = SampleRow.segment_id == segment_id
        if session.scalar(select(func.count(SampleRow.key)).where(in_segment, tables.LIVE)):
            continue
        removed += session.scalar(select(func.count(SampleRow.key)).where(in_segment)) or 0
        session.execute(delete(SampleRow).where(in_segment), execution_options=unsynchronised)
        session.execute(delete(SegmentRow).where(SegmentRow.id == segment_id), execution_options=unsynchronised)
    return removed
