"""Checking a whole store: every file, every vector, every row. Damage is reported, never raised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rapidin.errors import StoreCorruptError, StoreError
from rapidin.records import VerifyReport
from rapidin.storage import tables
from rapidin.storage.database import Database
from rapidin.storage.files import DATABASE_NAME
from rapidin.storage.reading import Segment, open_segment
from rapidin.storage.samples import sample_of
from rapidin.storage.schema import SampleRow
from rapidin.storage.segments import SegmentRecord

MOST_NAMED = 20
"""Samples or rows named one by one before a problem is summed up."""
_BLOCK_BYTES = 2**25


def verify_store(path: Path, database: Database, dimension: int) -> VerifyReport:
    """Check the store in the directory `path`, whose vectors have `dimension` numbers.

    Files that no row names are what an interrupted commit left; they are harmless and no problem.

    Raises:
        DependencyError: faiss is not installed.
    """
    check = _Verification(path, database, dimension)
    with check.noting():
        check.database_file()
    with check.noting():
        check.rows()
    with check.noting():
        check.segments()
    return VerifyReport(check.samples, tuple(dict.fromkeys(check.problems)))


class _Verification:
    """One run; collects problems."""

    def __init__(self, path: Path, database: Database, dimension: int) -> None:
        self.problems: list[str] = []
        self.samples = 0
        self._path = path
        self._database = database
        self._dimension = dimension
        self._name = f"{path / DATABASE_NAME}"

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note an error of the body as a problem."""
        try:
            yield
        except StoreError as error:
            self.problems.append(str(error))

    def database_file(self) -> None:
        """What SQLite itself can tell: pages, indexes, references."""
        with self._database.reading() as session:
            connection = session.connection()
            for (finding,) in connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_NAMED})"):
                if finding != "ok":
                    self.problems.append(f"{self._name}: {finding}; restore it from a backup")
            for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(
                MOST_NAMED
            ):
                self.problems.append(f"{self._name}: row {row} of {table} refers to no row of {parent}")

    def rows(self) -> None:
        """Every sample's row is as it was written, and no two share a vector."""
        with self._database.reading() as session:
            self.samples = session.scalar(select(func.count()).where(tables.LIVE)) or 0
            damaged = 0
            for row in session.scalars(select(SampleRow).execution_options(yield_per=tables.CHUNK)):
                try:
                    sample_of(row)
                except StoreCorruptError as error:
                    damaged += 1
                    if damaged <= MOST_NAMED:
                        self.problems.append(str(error))
            if damaged > MOST_NAMED:
                self.problems.append(f"{self._name}: {damaged} rows of samples were altered in all")
            self._places(session)

    def segments(self) -> None:
        """Every segment's file is as it was written, and its vectors are finite.

        One of which no sample is left is never read, so its file does not matter.
        """
        with self._database.reading() as session:
            live = tables.live_counts(session)
            records = [record for record in tables.segment_records(session) if live.get(record.id or 0)]
        for record in records:
            with self.noting():
                segment = open_segment(self._path, record, self._dimension, recheck=True)
                self._finite(segment)

    def _places(self, session: Session) -> None:
        """Every sample's vector lies in a segment that there is, at a place of its own."""
        records = {record.id: record for record in tables.segment_records(session)}
        taken: defaultdict[tuple[int, int], int] = defaultdict(int)
        columns = select(SampleRow.sample_id, SampleRow.segment_id, SampleRow.position)
        for sample_id, segment_id, position in session.execute(columns):
            record = records.get(segment_id)
            if record is None:
                self.problems.append(f"sample {sample_id!r}: its vector is in no segment; ingest it again")
                continue
            self._in_range(sample_id, record, position)
            taken[segment_id, position] += 1
        for (segment_id, position), count in taken.items():
            if count > 1:
                self.problems.append(
                    f"{self._name}: {count} samples share vector {position} of {records[segment_id].name}; "
                    "restore it from a backup"
                )

    def _in_range(self, sample_id: str, record: SegmentRecord, position: object) -> None:
        if not isinstance(position, int) or not 0 <= position < record.rows:
            self.problems.append(
                f"sample {sample_id!r}: its vector is number {position} of the {record.rows} in {record.name}; "
                "restore store.db from a backup"
            )

    def _finite(self, segment: Segment) -> None:
        step = max(1, _BLOCK_BYTES // (4 * self._dimension))
        buffer = np.empty((min(step, segment.rows), self._dimension), dtype=np.float32)
        for start in range(0, segment.rows, step):
            positions = np.arange(start, min(start + step, segment.rows))
            finite = np.isfinite(segment.decode(positions, buffer)).all(axis=1)
            if not finite.all():
                self.problems.append(
                    f"{segment.path}: vector {start + int(np.flatnonzero(~finite)[0])} is not finite; "
                    "delete its sample and ingest it again"
                )
                return
