"""Compaction: new segments without deleted rows, and a few large segments in place of many small ones.

Codes are copied unchanged, so every score stays the same. One transaction records each new segment, moves its
samples and removes the old segments that it emptied. Only then are old files deleted, as soon as no reader needs
them. So a kill at any moment leaves a correct store, partly compacted, and disk space is needed for one new
segment at a time.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import RapidinError, SettingError, StoreCorruptError, StoreError
from rapidin.records import CompactReport, Progress
from rapidin.storage.catalog import Database, digests, sample_changes, tables
from rapidin.storage.derived import KINDS, derived_records, uncovered_notes
from rapidin.storage.maintenance import garbage
from rapidin.storage.store_files import file_errors
from rapidin.storage.vectors import Codec, Rows, Segment, SegmentRecord, open_segment, segment_writing

SEGMENT_BYTES = 2**27
"""Maximum number of bytes of codes in a new segment; a segment with less than half of it is small."""
_COPIED_BYTES = 2**24
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one compaction.

    Attributes:
        empty: database ids of segments without live samples.
        parts: rows of each new segment, in the order of old segments and positions.
    """

    empty: tuple[int, ...]
    parts: tuple[Rows, ...]


def make_plan(records: Sequence[SegmentRecord], rows: Rows, row_bytes: int, fraction: float) -> Plan:
    """Choose the segments to rewrite: those with more deleted rows than `fraction`, and small ones if several.

    Their rows are distributed evenly, so that a new segment is small only if it is the only one. So a second
    compaction finds nothing to do.

    Args:
        records: records of all segments.
        rows: rows of all live samples.
        row_bytes: number of bytes of a coded vector.
        fraction: share of a segment's rows.
    """
    most = max(1, SEGMENT_BYTES // row_bytes)
    ids, counts = np.unique(rows.segments, return_counts=True)
    live = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    filled = [(record.id or 0, record.rows, live[record.id]) for record in records if record.id in live]
    wasteful = {id for id, total, left in filled if total - left > fraction * total}
    small = {id for id, _, left in filled if 2 * left < most}
    chosen = wasteful | small if len(wasteful | small) > 1 else wasteful
    moving = np.flatnonzero(np.isin(rows.segments, list(chosen)))
    moving = moving[np.lexsort((rows.positions[moving], rows.segments[moving]))]
    parts = np.array_split(moving, -(-len(moving) // most)) if len(moving) else []
    return Plan(
        empty=tuple(record.id or 0 for record in records if record.id not in live),
        parts=tuple(rows.chosen(part) for part in parts),
    )


def compact_store(
    path: Path,
    database: Database,
    codec: Codec,
    dimension: int,
    fraction: float,
    on_progress: Progress | None = None,
) -> CompactReport:
    """Compact the store in the directory `path`. The caller holds the writer's lock.

    Args:
        path: directory of the store.
        database: database of the store.
        codec: codec of its vectors.
        dimension: K.
        fraction: share of a segment's rows; the segment is rewritten if more of them are deleted.
        on_progress: function that takes the number of samples done and the number of all samples.

    Raises:
        SettingError: `fraction` is not from 0 to 1.
        StoreCorruptError: a segment or row is damaged. Segments made before stay, and nothing is lost.
        StoreSpaceError: the disk has no room for a new segment. Segments made before stay, and nothing is lost.
    """
    if not 0 <= fraction <= 1:
        raise SettingError(f"--fraction {fraction} cannot be used: give a number from 0 to 1")
    started = time.monotonic()
    with database.reading() as session:
        wrong = digests.wrong(session)
    if wrong:
        _logger.warning("%s: store.db was damaged; what filters and searches read is made again", path)
        with database.writing() as session:
            sample_changes.file_again(session)
    with database.reading() as session:
        records = tables.segment_records(session)
        rows = tables.searchable_rows(session)
        covered_before = derived_records.covered(session)
    bytes_before = sum(record.bytes for record in records) + database.size()
    compaction = _Compaction(path, database, codec, dimension)
    compaction.run(make_plan(records, rows, codec.row_bytes(dimension), fraction), records, on_progress)
    with database.reading() as session:
        records_after = tables.segment_records(session)
        covered = derived_records.covered(session)
    uncovered = {kind: was - covered[kind] for kind, was in covered_before.items() if covered[kind] < was}
    return CompactReport(
        segments_before=len(records),
        segments_after=len(records_after),
        removed=compaction.removed,
        bytes_before=bytes_before,
        bytes_after=sum(record.bytes for record in records_after) + database.size(),
        seconds=time.monotonic() - started,
        uncovered=uncovered,
        notes=uncovered_notes(uncovered, path),
    )


class _Compaction:
    """One run of a compaction; `removed` counts the deleted samples whose rows it removed."""

    def __init__(self, path: Path, database: Database, codec: Codec, dimension: int) -> None:
        self.removed = 0
        self._path = path
        self._database = database
        self._dimension = dimension
        self._codec = codec
        self._opened: tuple[int, Segment] | None = None

    def run(self, plan: Plan, records: Sequence[SegmentRecord], on_progress: Progress | None) -> None:
        """Carry out the plan, then give space back."""
        by_id = {record.id or 0: record for record in records}
        if plan.empty:
            with self._database.writing() as session:
                self.removed += sample_changes.remove_segments(session, plan.empty)
            garbage.remove_garbage(self._path, self._database)
        done, total = 0, sum(len(part) for part in plan.parts)
        for part in plan.parts:
            try:
                self._rewrite(part, by_id)
            except RapidinError:
                with suppress(RapidinError):  # the first error is the one to report
                    garbage.remove_garbage(self._path, self._database)
                raise
            garbage.remove_garbage(self._path, self._database)
            done += len(part)
            if on_progress is not None:
                on_progress(done, total)
        self._opened = None
        self._give_back_space()

    def _rewrite(self, rows: Rows, records: dict[int, SegmentRecord]) -> None:
        """Make one new segment of `rows`, which are in the order of their places."""
        segment_writing.check_space(self._path, len(rows), self._codec.row_bytes(self._dimension))
        sources, starts = np.unique(rows.segments, return_index=True)
        self._segment(records[int(sources[0])])  # is checked before memory is taken for another
        index = self._codec.new_index(self._dimension)
        for source, positions in zip(sources.tolist(), np.split(rows.positions, starts[1:]), strict=True):
            self._copy(self._segment(records[source]), positions, index)
        record = segment_writing.write_segment(self._path, index, self._codec)
        del index  # it is as large as the segment
        self.removed += self._record(record, rows, sources.tolist())

    def _copy(self, segment: Segment, positions: NDArray[np.int64], index: object) -> None:
        step = max(1, _COPIED_BYTES // self._codec.row_bytes(self._dimension))
        for start in range(0, len(positions), step):
            codes = segment.selected(positions[start : start + step])
            index.add_sa_codes(np.ascontiguousarray(codes))  # type: ignore[attr-defined]

    def _segment(self, record: SegmentRecord) -> Segment:
        """Open a segment and compare its bytes with their checksum, because a new checksum would hide damage."""
        if self._opened is None or self._opened[0] != record.id:
            segment = open_segment(self._path, record, self._dimension, recheck=True)
            if segment.codec != self._codec:
                raise StoreCorruptError(
                    f"{segment.path}: its vectors are coded as {segment.codec.name!r}, those of the store as "
                    f"{self._codec.name!r}; restore store.db from a backup"
                )
            self._opened = (record.id or 0, segment)
        return self._opened[1]

    def _record(self, record: SegmentRecord, rows: Rows, sources: Sequence[int]) -> int:
        """Record a new segment in the database, and return the number of deleted samples that this removed."""
        with self._database.writing() as session:
            segment_id = tables.insert_segment(session, record)
            sample_changes.move_samples(session, rows.keys.tolist(), segment_id)
            follow = {kind.name for kind in KINDS.values() if kind.follows_samples}
            derived_records.follow_samples(session, follow, sources, segment_id, record.rows)
            return sample_changes.remove_segments(session, sources)

    def _give_back_space(self) -> None:
        """Shrink the database; it does no harm if that is impossible now."""
        try:
            with file_errors(self._path):
                size, free = self._database.path.stat().st_size, shutil.disk_usage(self._path).free
            if free > 2 * size:  # SQLite writes a copy and then its log
                self._database.give_back_space()
        except StoreError as error:
            _logger.info("the database keeps its size for now: %s", error)
