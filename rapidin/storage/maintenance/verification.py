"""Verification of a whole store: every file, every vector, every row. Damage is reported, never raised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rapidin.errors import StoreCorruptError, StoreError
from rapidin.records import VerifyReport
from rapidin.settings import ProbeShape
from rapidin.storage.catalog import (
    Database,
    MetadataFieldRow,
    SampleMetadataRow,
    SampleRow,
    digests,
    sample_of,
    tables,
)
from rapidin.storage.concurrency import ReadersLock
from rapidin.storage.derived import StoreFacts, checks, derived_records
from rapidin.storage.filters import IndexedValue, indexed_metadata
from rapidin.storage.store_files import DATABASE_NAME
from rapidin.storage.vectors import Codec, Segment, SegmentRecord, open_segment

MOST_NAMED = 20
"""Number of samples or rows that are named one by one before a problem is summed up."""


def verify_store(
    path: Path, database: Database, codec: Codec, dimension: int, probe_shape: ProbeShape
) -> VerifyReport:
    """Check the store in the directory `path`.

    Files that no row names are the remains of an interrupted commit. They are harmless and not a problem.

    Args:
        path: directory of the store.
        database: database of the store.
        codec: codec of its vectors.
        dimension: K.
        probe_shape: shape of a probe of the curvature.

    Raises:
        DependencyError: faiss is not installed.
    """
    check = _Verification(path, database, codec, dimension, probe_shape)
    with closing(ReadersLock(path)):  # otherwise a compaction might remove files that are about to be read
        for part in (check.database_file, check.rows, check.digests, check.segments, check.derived):
            with check.noting():
                part()
    return VerifyReport(check.samples, tuple(dict.fromkeys(check.problems)))


class _Verification:
    """One run of a verification, which collects problems."""

    def __init__(
        self, path: Path, database: Database, codec: Codec, dimension: int, probe_shape: ProbeShape
    ) -> None:
        self.problems: list[str] = []
        self.samples = 0
        self._path = path
        self._database = database
        self._codec = codec
        self._dimension = dimension
        self._probe_shape = probe_shape
        self._name = f"{path / DATABASE_NAME}"

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Turn an error of the body into a problem."""
        try:
            yield
        except StoreError as error:
            self.problems.append(str(error))

    def database_file(self) -> None:
        """Check the pages, indexes and references of the database with SQLite's own functions, and the counter."""
        if not self._database.commits.is_intact():
            self.problems.append(
                f"{self._database.commits.path}: it was altered or damaged; nothing is lost, and the next command "
                "that writes to the store makes it again"
            )
        with self._database.reading() as session:
            connection = session.connection()
            for (finding,) in connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_NAMED})"):
                if finding != "ok":
                    self.problems.append(f"{self._name}: {finding}; restore it from a backup")
            dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(MOST_NAMED)
            for table, row, parent, _ in dangling:
                self.problems.append(
                    f"{self._name}: row {row} of {table} refers to a row of {parent} that does not exist; "
                    "restore it from a backup"
                )

    def rows(self) -> None:
        """Check that every sample's row and metadata for filters are as written, and no two share a vector."""
        with self._database.reading() as session:
            self.samples = session.scalar(select(func.count()).where(tables.LIVE)) or 0
            damaged, misfiled = _Counted(self.problems), _Counted(self.problems)
            filed = _FiledMetadata(session)
            statement = select(SampleRow).order_by(SampleRow.key).execution_options(yield_per=tables.CHUNK)
            for row in session.scalars(statement):
                found = filed.of(row.key)
                try:
                    sample_of(row)
                except StoreCorruptError as error:
                    damaged.add(str(error))
                    continue
                if row.deleted_at is None and (field := filed.difference(row.metadata_json, found)) is not None:
                    misfiled.add(
                        f"store.db: filters see another {field!r} in sample {row.sample_id!r} than its metadata "
                        "holds: restore store.db from a backup, or delete the sample and ingest it again"
                    )
            damaged.sum_up(f"{self._name}: {{}} rows of samples were altered in all")
            misfiled.sum_up(f"{self._name}: filters see other metadata of {{}} samples in all")
            self._places(session)

    def digests(self) -> None:
        """Check that searches and filters read what was written, unless a problem of the rows explains it."""
        if not self.problems:
            with self._database.reading() as session:
                self.problems.extend(str(digests.damaged(session, name)) for name in digests.wrong(session))

    def segments(self) -> None:
        """Check that every segment's file is as it was written, and that its vectors are finite.

        A segment without live samples is never read, so its file does not matter.
        """
        with self._database.reading() as session:
            live = tables.live_counts(session)
            records = [record for record in tables.segment_records(session) if live.get(record.id or 0)]
        for record in records:
            with self.noting():
                segment = open_segment(self._path, record, self._dimension, recheck=True)
                self._finite(segment)

    def derived(self) -> None:
        """Check that the rows and files of all derived data are as they were written."""
        with self._database.reading() as session:
            records = derived_records.read(session)
            segments = {record.id or 0: record for record in tables.segment_records(session)}
        for record in records.values():
            with self.noting():
                facts = StoreFacts(self._path, self._codec, self._dimension, segments, self._probe_shape)
                for check in checks(facts, record):
                    with self.noting():
                        check()

    def _places(self, session: Session) -> None:
        """Check that every sample's vector lies in an existing segment, at a place of its own."""
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
        start = 0
        for vectors in segment.decoded(np.arange(segment.rows)):
            finite = np.isfinite(vectors).all(axis=1)
            if not finite.all():
                self.problems.append(
                    f"{segment.path}: vector {start + int(np.flatnonzero(~finite)[0])} is not finite; "
                    "delete its sample and ingest it again"
                )
                return
            start += len(vectors)


class _Counted:
    """Problems of one kind; the first ones are reported one by one."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems
        self._count = 0

    def add(self, problem: str) -> None:
        self._count += 1
        if self._count <= MOST_NAMED:
            self._problems.append(problem)

    def sum_up(self, words: str) -> None:
        """Report the number of all problems in `words`, which has a place for it, if some were not reported."""
        if self._count > MOST_NAMED:
            self._problems.append(words.format(self._count))


class _FiledMetadata:
    """The table of metadata for filters, read once in ascending order of the samples' keys."""

    def __init__(self, session: Session) -> None:
        fields = select(MetadataFieldRow.id, MetadataFieldRow.name)
        self._names = {id: name for id, name in session.execute(fields)}
        columns = SampleMetadataRow.__table__.c
        statement = (
            select(columns.sample_key, columns.field_id, columns.kind, columns.number, columns.text)
            .order_by(columns.sample_key)
            .execution_options(yield_per=tables.CHUNK)
        )
        groups = groupby(session.execute(statement), key=lambda row: row[0])
        self._groups = ((key, [tuple(row[1:]) for row in rows]) for key, rows in groups)
        self._next = next(self._groups, None)

    def of(self, key: int) -> dict[str, tuple[Any, ...]]:
        """Return kind, number and text by field of the sample with a key; keys must ascend."""
        # rows without a sample are reported by SQLite's own check
        while self._next is not None and self._next[0] < key:
            self._next = next(self._groups, None)
        if self._next is None or self._next[0] != key:
            return {}
        rows = self._next[1]
        return {self._names.get(field_id, f"number {field_id}"): tuple(value) for field_id, *value in rows}

    @staticmethod
    def difference(metadata_json: str, found: dict[str, tuple[Any, ...]]) -> str | None:
        """Return a field whose value in `found` differs from the one in the JSON, or None if all agree."""
        expected = indexed_metadata(metadata_json)
        for name in sorted(expected.keys() | found.keys()):
            # They are compared as text, because 1, 1.0 and True are equal.
            if repr(found.get(name)) != repr(_plain(expected.get(name))):
                return name
        return None


def _plain(value: IndexedValue | None) -> tuple[Any, ...] | None:
    return None if value is None else (int(value.kind), value.number, value.text)
